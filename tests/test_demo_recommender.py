"""The recommender's page: what it suggests and why, a film that nobody has liked, and a person in a browser."""

from __future__ import annotations

import pytest
import torch
from fastapi.testclient import TestClient
from test_demos import OWN, Served, browser, looks_right  # noqa: F401

from instructlab_apps.demos import page, recommender
from instructlab_repro import lesson
from instructlab_utils.errors import ParameterError


@pytest.fixture(scope="module")
def demo():
    return recommender.build()


@pytest.fixture(scope="module")
def found(demo):
    return demo.views[0].values.__self__.found


@pytest.fixture
def client(demo):
    return TestClient(page.application(demo), base_url=OWN, raise_server_exceptions=False)


def test_suggestions_are_new_films_in_order_with_shares_that_sum_to_one_over_all(found):
    liked = [found.number("Toy Story"), found.number("Aladdin")]
    for by in ("popularity", "likes", "both"):
        every = found.suggest(liked, by, most=len(found.data.titles) - 2)
        assert len({one.title for one in every}) == len(every) == len(found.data.titles) - 2
        assert not {"Toy Story", "Aladdin"} & {one.title for one in every}
        chances = [one.chance for one in every]
        assert chances == sorted(chances, reverse=True) and abs(sum(chances) - 1) < 1e-9


def test_popularity_knows_no_person_and_likes_do(found):
    one, two = [found.number("The Lion King")], [found.number("Pulp Fiction")]
    names = {
        by: [{s.title for s in found.suggest(liked, by)} for liked in (one, two)]
        for by in ("popularity", "likes")
    }
    assert len(names["popularity"][0] & names["popularity"][1]) >= recommender.SHOWN - 2
    assert names["likes"][0] != names["likes"][1]


def test_the_reason_counts_what_is_there(found):
    a, b = (
        found.number("Star Wars Episode IV - A New Hope"),
        found.number("Star Wars Episode V - The Empire Strikes Back"),
    )
    both = int((found.data.table[:, a] * found.data.table[:, b]).sum())
    said = found.why(b, [a])
    assert (
        f"{both} of them with {found.data.titles[a]}" in said
        and f"{int(found.data.table[:, b].sum())} lists" in said
    )


def test_a_new_title_is_level_with_nothing_by_likes_and_has_a_place_by_both(found):
    liked = [found.number("Toy Story"), found.number("Aladdin")]
    film = found.number("Toy Story 3")
    seen = found.newcomer("Toy Story 4", found.vectors[film], liked)
    assert seen.models[0][0] == "Toy Story 3" and abs(seen.models[0][1] - 1) < 1e-9
    assert 1 <= seen.first <= seen.last <= seen.offered == len(found.data.titles) - 2 + 1
    assert 1 <= seen.by_both <= seen.offered
    far = found.newcomer("x", torch.ones(found.vectors.shape[1]), liked)
    assert (seen.first, seen.last) == (far.first, far.last)


def test_unknown_films_and_empty_histories_are_refused(found):
    with pytest.raises(ParameterError):
        found.number("Toy Story 99")
    with pytest.raises(ParameterError):
        found.suggest([])


def test_a_film_is_added_and_taken_away_by_the_address_alone(client, found):
    first = client.get("/")
    assert first.status_code == 200 and "The Lion King" in first.text
    number = found.number("Alien")
    added = client.post("/do/add", data={"likes": "3.5", "film": "Alien"}, follow_redirects=False)
    assert added.headers["location"] == f"/?likes=3.5.{number}"
    gone = client.post("/do/remove", data={"likes": f"3.{number}", "number": "3"}, follow_redirects=False)
    assert gone.headers["location"] == f"/?likes={number}"
    nothing = client.post("/do/remove", data={"likes": "3", "number": "3"})
    assert nothing.status_code == 200 and "Name a film that you like." in nothing.text


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/do/add", {"likes": "3", "film": "No such film"}),
        ("/do/add", {"likes": ".".join(map(str, range(12))), "film": "Up"}),
        ("/do/add", {"likes": "999", "film": "Up"}),
        ("/do/new", {"likes": "3", "title": "x" * 200}),
        ("/do/new", {"likes": "3", "title": "  "}),
    ],
)
def test_mistakes_are_one_sentence(client, path, form):
    assert client.post(path, data=form).status_code == 422


@pytest.mark.parametrize("likes", ["abc", "-1", "1e3", "999", "３"])
def test_a_broken_address_is_refused(client, likes):
    assert client.get("/", params={"likes": likes}).status_code == 422


def test_a_new_title_is_escaped_and_judged(client):
    said = client.post("/do/new", data={"likes": "3.5", "title": "<b>Toy</b> & Story"})
    assert (
        said.status_code == 200
        and "&lt;b&gt;Toy&lt;/b&gt; &amp; Story" in said.text
        and "<b>Toy" not in said.text
    )
    assert "By likes and titles" in said.text


def test_the_page_of_worth_shows_what_is_recorded(client):
    said = client.get("/worth").text
    recorded = bool(lesson.results("recommending"))
    assert ("titles, frozen MiniLM" in said and "C24" in said) == recorded
    assert ("No results are recorded yet." in said) != recorded


def test_a_person_in_a_browser(demo, browser):  # noqa: F811
    served = Served(demo)
    try:
        for path in ("/", "/new", "/worth"):
            looks_right(browser, served.url + path)
        browser.open(f"{served.url}/?likes=3")
        browser.click("#add")
        browser.until("document.querySelectorAll('form[action=\"/do/remove\"]').length === 2")
        browser.open(f"{served.url}/new?likes=3.5")
        browser.click("#title")
        browser.type("A Bug's Life")
        browser.press("Enter")
        browser.until("document.body.textContent.includes('Its title is nearest to')")
        assert browser.evaluate("document.querySelector('.facts dd').textContent.length > 0")
        assert browser.complaints == []
    finally:
        served.close()
