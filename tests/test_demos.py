"""The demos: the frame of their pages, what each of them decides, and a person who uses them in a browser."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import uvicorn
from browser import Browser, tab
from fastapi.testclient import TestClient
from scipy import stats

from instructlab_apps.demos import (
    charts,
    opinion_alarm,
    opinion_check,
    opinion_monitor,
    opinion_stream,
    page,
    sentences,
    support_bot,
    support_check,
    support_desk,
)
from instructlab_apps.demos.conversations import Conversations, Said
from instructlab_repro.engine import cli
from instructlab_utils.errors import ParameterError
from instructlab_utils.intervals import wilson_interval

ROOT = Path(__file__).resolve().parents[1]
CONTRAST = (ROOT / "tests" / "contrast.js").read_text(encoding="utf-8")
OWN = "http://127.0.0.1"


# --- the frame -------------------------------------------------------------------------------------------------------


def toy(action=lambda form: f"/?said={form['said']}") -> page.Demo:
    """A demo with the template of a refusal as its only page: it shows a text."""
    view = page.View(
        "/", "Start", "refused.html.j2", lambda query: {"said": query.get("said", "nothing yet")}
    )
    return page.Demo("toy", "A toy", "It says what it was told.", (view,), {"say": action})


def client(demo: page.Demo) -> TestClient:
    return TestClient(page.application(demo), base_url=OWN, raise_server_exceptions=False)


def test_a_form_leads_to_a_page_and_every_value_is_escaped():
    said = client(toy()).post("/do/say", data={"said": "<script>alert(1)</script>"})
    assert said.status_code == 200 and said.history[0].status_code == 303
    assert "&lt;script&gt;alert(1)" in said.text and "<script>alert" not in said.text


def test_every_answer_forbids_what_the_page_does_not_need():
    c = client(toy())
    for path in ("/", "/page.css", "/page.js", "/health", "/nothing", "/docs", "/openapi.json"):
        answer = c.get(path)
        assert "default-src 'none'" in answer.headers["content-security-policy"], path
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.status_code == (404 if path in ("/nothing", "/docs", "/openapi.json") else 200)
    assert c.get("/page.js").headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": OWN}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example:80"}, 403),
    ],
)
def test_only_the_own_page_may_send_a_form(headers, status):
    assert client(toy()).post("/do/say", data={"said": "x"}, headers=headers).status_code == status


@pytest.mark.parametrize(
    ("send", "status", "said"),
    [
        ({"url": "/do/shout", "content": b"said=x"}, 404, "no action named shout"),
        ({"url": "/do/say", "content": b"said=" + b"x" * 20_000}, 413, "too long"),
        ({"url": "/do/say", "content": b"&".join(b"a=1" for _ in range(60))}, 422, "more than 50 fields"),
        ({"url": "/do/say", "content": b""}, 500, ""),
    ],
)
def test_a_form_that_cannot_be_is_refused(send, status, said):
    answer = client(toy()).post(send["url"], content=send["content"])
    assert answer.status_code == status and said in answer.text


def test_a_mistake_of_the_person_is_one_sentence_and_a_leap_to_another_site_is_none():
    def wrong(form):
        raise ParameterError("write a question first")

    answer = client(toy(wrong)).post("/do/say", data={"said": ""})
    assert answer.status_code == 422 and "write a question first" in answer.text
    for target in ("//evil.example/", "https://evil.example/", "elsewhere"):
        assert client(toy(lambda form, t=target: t)).post("/do/say", data={"a": "b"}).status_code == 500


def test_fields_are_read_as_a_browser_sends_them():
    assert page.fields_of(b"a=1&b=two+words%21&c=&a=%C3%A9%00") == {"a": "é", "b": "two words!", "c": ""}
    assert page.fields_of("a=ü".encode()) == {"a": "\ufffd\ufffd"}


def test_a_demo_needs_a_first_page():
    view = page.View("/other", "Other", "refused.html.j2", lambda query: {})
    with pytest.raises(ParameterError, match="one of them '/'"):
        page.application(page.Demo("toy", "A toy", "", (view,)))


def refusal(capfd, *args: object) -> str:
    with pytest.raises(SystemExit) as left:
        cli.main([str(arg) for arg in args])
    assert left.value.code == 2
    return capfd.readouterr().err


def test_the_command_says_what_is_wrong_in_one_sentence(capfd):
    from instructlab_apps import commands  # adds the commands

    assert commands.app is cli.app
    assert commands.NAMES == list(page.DEMOS)  # the help names them without loading anything
    assert "no demo named 'bott', did you mean 'bot'?" in refusal(capfd, "demo", "bott")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = refusal(capfd, "demo", "bot", "--port", taken.getsockname()[1])
    assert "cannot be used" in said and "--port" in said and said.count("\n") == 1
    assert "port 70000 cannot be used" in refusal(capfd, "demo", "bot", "--port", 70000)


# --- in a browser ----------------------------------------------------------------------------------------------------


class Served:
    """A demo on a free port, in a thread of this process."""

    def __init__(self, demo: page.Demo) -> None:
        self.place = page.listening(0)
        self.url = f"http://127.0.0.1:{self.place.getsockname()[1]}"
        self.server = uvicorn.Server(uvicorn.Config(page.application(demo), log_level="error"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.place]}, daemon=True)
        self.thread.start()
        end = time.monotonic() + 20
        while not self.server.started and time.monotonic() < end:
            time.sleep(0.02)

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)
        self.place.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    yield from tab()


def looks_right(browser: Browser, url: str) -> None:
    """The page at both widths, light and dark: nothing sideways, nothing on the console, nothing from elsewhere."""
    for width in (1280, 390):
        for dark in (False, True):
            browser.complaints.clear()
            browser.requests.clear()
            browser.open(url, width=width, dark=dark)
            assert browser.evaluate("Math.max(document.documentElement.scrollWidth, innerWidth)") == width
            assert browser.evaluate(CONTRAST) == []
            assert browser.complaints == []
            own = (url.split("/", 3)[2], "data:")
            assert [asked for asked in browser.requests if not any(one in asked for one in own)] == []
            assert browser.evaluate(UNNAMED) == []


UNNAMED = """[...document.querySelectorAll('input:not([type=hidden]), select, textarea, button, a')]
.filter(e => !(e.labels && e.labels.length) && !e.textContent.trim() && !e.ariaLabel).map(e => e.outerHTML)"""


def test_the_frame_in_a_browser(browser):
    served = Served(toy())
    try:
        looks_right(browser, f"{served.url}/")
        browser.evaluate("document.body.insertAdjacentHTML('beforeend', '<p style=\"color:red\">x</p>')")
        assert "Content Security Policy" in " ".join(browser.complaints)
        browser.press("Tab")
        assert browser.evaluate("document.activeElement.textContent") == "Skip to the content"
    finally:
        served.close()


# --- charts ----------------------------------------------------------------------------------------------------------


def test_ticks_are_round_and_inside():
    assert charts.ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert charts.ticks(512, 838) == [600, 700, 800] and charts.ticks(-3, 3, 4) == [-2, 0, 2]
    for low, high in ((0.013, 0.0191), (7, 123_456), (-1e-6, 5e-6)):
        found = charts.ticks(low, high)
        assert 2 <= len(found) <= 6 and low <= found[0] and found[-1] <= high
    for low, high in ((1, 1), (2, 1), (0, float("nan")), (0, float("inf"))):
        with pytest.raises(ParameterError, match="two finite ends"):
            charts.ticks(low, high)


def drawn(lines, **more):
    return charts.chart(lines, told="<told>", x="<x>", y="<y>", x_range=(0, 10), y_range=(0, 1), **more)


def test_a_chart_is_text_of_an_image_with_every_word_escaped():
    line = charts.Line("<name>", [0, 5, 99], [0, 0.5, -7])
    text = drawn([line], limit=("<limit>", 0.5), marks=[(5, "<A>")], areas=[(2, 4)])
    root = ElementTree.fromstring(text)
    assert root.attrib["role"] == "img" and root.attrib["aria-label"] == "<told>"
    said = "".join(root.itertext())
    assert all(word in said for word in ("<name>", "<limit>", "<A>", "<x>", "<y>")) and "<name>" not in text
    points = [tuple(map(float, p.split(","))) for p in root.find("polyline").attrib["points"].split()]
    right, floor = charts.WIDTH - charts.RIGHT, charts.HEIGHT - charts.BOTTOM
    assert points[0] == (charts.LEFT, floor) and points[2] == (right, floor)  # outside: at the border
    assert points[1] == ((charts.LEFT + right) / 2, (charts.TOP + floor) / 2)
    assert not [e for e in root.iter() if "style" in e.attrib]


def test_a_chart_that_cannot_be_drawn_is_refused():
    line = charts.Line("a", [0.0, 1.0], [0.0, 1.0])
    for lines in ([line] * 4, [charts.Line("a", [0.0], [])], [charts.Line("a", [0.0], [float("nan")])]):
        with pytest.raises(ParameterError):
            drawn(lines)


# --- the store of conversations --------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Conversations]:
    found = Conversations(tmp_path / "deep" / "bot.sqlite", names=["Olga"])
    yield found
    found.close()


def test_nothing_personal_reaches_the_file(store, tmp_path):
    id = store.start()
    text = "Olga here, jane.doe@example.org, card 4111 1111 1111 1111, call +49 30 1234567"
    assert store.add(id, Said("customer", text)) == "[NAME] here, [EMAIL], card [CARD], call [PHONE]"
    store.move(id, "waiting", "asked by jane.doe@example.org")
    assert store.get(id).reason == "asked by [EMAIL]"
    raw = (tmp_path / "deep" / "bot.sqlite").read_bytes()
    assert b"jane.doe" not in raw and b"4111" not in raw and b"Olga" not in raw and b"[EMAIL]" in raw


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_no_other_user_reads_the_file(store, tmp_path):
    assert (tmp_path / "deep" / "bot.sqlite").stat().st_mode & 0o077 == 0


def test_a_conversation_is_kept_in_order_and_forgotten_for_good(store, tmp_path):
    first, second = store.start(), store.start()
    for n in range(5):
        store.add(first, Said("customer", f"a remarkable sentence {n}"))
        store.add(second, Said("bot", f"other {n}", "table-book", 0.5))
    assert [turn.text[-1] for turn in store.get(first).turns] == list("01234")
    assert store.get(second).turns[0] == Said("bot", "other 0", "table-book", 0.5)
    store.forget(first)
    with pytest.raises(ParameterError, match="not stored"):
        store.get(first)
    assert len(store.get(second).turns) == 5
    assert b"remarkable" not in (tmp_path / "deep" / "bot.sqlite").read_bytes()


def test_who_waits_longest_stands_first_and_states_are_counted(store):
    ids = [store.start() for _ in range(4)]
    for id in (ids[2], ids[1]):
        store.move(id, "waiting", "unsure")
    assert [one.id for one in store.waiting()] == [ids[1], ids[2]]
    store.move(ids[1], "answered")
    assert store.get(ids[1]).reason == "unsure"  # why it was there is kept
    assert store.counts() == {"open": 2, "waiting": 1, "solved": 0, "answered": 1}


@pytest.mark.parametrize(
    ("do", "said"),
    [
        (lambda s, id: s.add("unknown", Said("customer", "x")), "not stored"),
        (lambda s, id: s.add(id, Said("customer", "  ")), "0 characters"),
        (lambda s, id: s.add(id, Said("customer", "x" * 501)), "501 characters"),
        (lambda s, id: s.add(id, Said("robot", "x")), "'robot' says nothing"),
        (lambda s, id: s.move(id, "lost"), "no state 'lost'"),
        (lambda s, id: s.move("unknown", "open"), "not stored"),
    ],
)
def test_what_a_conversation_cannot_take(store, do, said):
    id = store.start()
    with pytest.raises(ParameterError, match=said):
        do(store, id)
    assert store.get(id).turns == ()


def test_threads_share_the_store(store):
    id = store.start()
    threads = [threading.Thread(target=store.add, args=(id, Said("customer", f"{n}"))) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(turn.text for turn in store.get(id).turns) == sorted(map(str, range(20)))


# --- the bot ---------------------------------------------------------------------------------------------------------


def test_what_the_bot_knows_fits_together():
    told = support_desk.knowledge()
    assert len(told["articles"]) == 21 and {one.topic for one in told["articles"]} == set(told["topic"])
    assert {row["article"] for row in told["question"]} == {one.id for one in told["articles"]}
    assert (
        max(len(one.title + one.answer) for one in told["articles"]) < 400
    )  # with details it fits in a turn
    services = {row["service"] for row in told["second"]} - {""} - set(told["topic"])
    assert set(support_desk.PAST) < services and set(support_desk.MIX) == set(support_desk.SOURCES)
    assert sum(support_desk.MIX.values()) == pytest.approx(1)


def test_details_that_the_answer_repeats():
    assert support_desk.understood("Rate “The Ingenuity Gap” 3 out of 6") == (
        "title: The Ingenuity Gap",
        "number: 3",
    )
    assert support_desk.understood("A table for four on Friday") == ("number: four", "time: on Friday")
    assert support_desk.understood("Play some jazz") == ()


@pytest.mark.parametrize(
    ("right", "answered", "end"),
    [
        ([1, 1, 1], [1, 1, 1], "solved"),
        ([1, 0, 1], [1, 1, 0], "wrong"),
        ([1, 0, 1], [1, 0, 1], "person"),
        ([0, 1], [0, 1], "person"),
        ([0], [1], "wrong"),
    ],
)
def test_how_a_dialogue_ends(right, answered, end):
    assert support_check.outcome(np.array(right, bool), np.array(answered, bool)) == end


def test_a_customer_costs_what_is_said():
    right, answered = np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool)
    assert support_desk.cost(right, answered, np.full(4, 0.25)) == pytest.approx((0 + 1 + 5 + 1) / 4)


def test_weights_give_each_source_its_share_and_dialogues_use_no_need_twice():
    wanted = [
        support_desk.Need(f"{s}{n}", "", s)
        for s in support_desk.SOURCES
        for n in range(10 + 30 * (s == "first"))
    ]
    weights = support_desk.mixed(wanted)
    for source, share in support_desk.MIX.items():
        mine = [w for w, need in zip(weights, wanted, strict=True) if need.source == source]
        assert sum(mine) == pytest.approx(share)
    made = support_check.dialogues(wanted, seed=1)
    used = [place for one in made for place in one]
    assert len(used) == len(set(used)) and {len(one) for one in made} == {1, 2, 3}
    assert made == support_check.dialogues(wanted, seed=1) != support_check.dialogues(wanted, seed=2)
    with pytest.raises(ParameterError, match="seed -1"):
        support_check.dialogues(wanted, seed=-1)


@pytest.fixture(scope="module")
def desk() -> support_desk.SupportDesk:
    return support_desk.SupportDesk()


@pytest.mark.slow
def test_held_out_needs_are_not_known(desk):
    known = {need.text for need in support_desk.needs("train")}
    dev, test = ({need.text for need in support_desk.needs(split)} for split in ("dev", "test"))
    assert not known & dev and not known & test and not dev & test
    assert {need.source for need in support_desk.needs("train")} == {"first", "past"}
    for split in ("dev", "test"):
        assert {need.source for need in support_desk.needs(split)} == set(support_desk.SOURCES)
        new = {need.service for need in support_desk.needs(split) if need.source == "new"}
        assert new and not new & set(support_desk.PAST)


@pytest.mark.slow
def test_the_threshold_is_the_cheapest_on_dev_and_pays_on_test(desk):
    assert min(cost for _, cost in desk.dev_cost) == dict(desk.dev_cost)[desk.threshold]
    report = support_check.evaluate(desk, seed=0)
    assert report.cost < 0.75 * report.cost_people and report.cost < 0.5 * report.cost_bot
    assert report.dialogues.wrong.high < 0.2 and report.dialogues.solved.low > 0.25
    assert report.sources["past"].person.low > 0.8 and report.sources["new"].person.low > 0.8
    total = report.dialogues.solved.mean + report.dialogues.wrong.mean + report.dialogues.person.mean
    assert total == pytest.approx(1)
    answered, wrong = ([point[k] for point in report.curve] for k in (1, 2))
    assert answered == sorted(answered, reverse=True) and wrong == sorted(wrong, reverse=True)
    everyone = support_check.evaluate(desk, seed=0, threshold=0.0)
    assert (
        everyone.dialogues.person.mean <= 0.02 and everyone.dialogues.wrong.low > report.dialogues.wrong.high
    )
    assert support_check.evaluate(desk, seed=1).dialogues != report.dialogues
    assert support_check.articles_found(desk).low > 1 / 3  # three articles a topic


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("I want to speak to a real person", "asks for a person"),
        ("purple elephants integrate quietly", "Nothing that we know resembles"),
        ("Find me a hotel with two rooms in Paris please", "this desk does not have"),
    ],
)
def test_a_hand_over_says_why(desk, text, why):
    reply = desk.reply(text)
    assert reply.person and why in reply.why


@pytest.mark.slow
def test_one_text_gets_the_vector_that_many_get(desk):
    texts = [need.text for need in support_desk.needs("dev")]
    assert np.abs(sentences.fresh(texts[:7]) - sentences.kept(texts)[:7]).max() < 1e-5
    confidence, _, places = desk.scores(support_desk.needs("dev"))
    for place in (0, 50, 130):
        reply = desk.reply(texts[place])
        assert reply.confidence == pytest.approx(confidence[place], abs=1e-4)
        assert reply.article == desk.articles[places[place]]


@pytest.fixture(scope="module")
def bot(tmp_path_factory, desk) -> Iterator[tuple[Served, Path]]:
    path = tmp_path_factory.mktemp("bot") / "bot.sqlite"
    served = Served(support_bot.build(path, desk))
    yield served, path
    served.close()


def turns(browser: Browser) -> list[str]:
    return browser.evaluate("[...document.querySelectorAll('.turn p:last-child')].map(e => e.textContent)")


def ask(browser: Browser, text: str, wanted: int) -> str:
    """Type a question, press Enter, wait for the answer; returns its text."""
    browser.click("#text")
    browser.type(text)
    browser.press("Enter")
    browser.until(f"document.querySelectorAll('.turn').length === {wanted}", 60)
    return turns(browser)[-1]


@pytest.mark.slow
def test_a_person_talks_to_the_bot(browser, bot):
    served, path = bot
    browser.complaints.clear()
    browser.open(f"{served.url}/", width=390)
    said = ask(browser, "How do I rate “The <b>Long</b> Way” 4 out of 6? Tell jane.doe@example.org", 2)
    assert said.startswith("Rate a book or an album.") and "number: 4" in said
    assert turns(browser)[0] == "How do I rate “The <b>Long</b> Way” 4 out of 6? Tell [EMAIL]"
    assert browser.evaluate("document.querySelectorAll('.turn b').length") == 0
    assert browser.evaluate("document.activeElement.id") == "text"  # the keyboard stays where it was
    browser.until("document.getElementById('said').textContent.startsWith('Rate a book')")
    url = browser.evaluate("location.href")
    looks_right(browser, url)
    browser.click("#solved")
    browser.until("document.querySelector('.note.good') !== null")
    said = ask(browser, "Please find me a hotel in Paris for two nights", 4)
    assert said.startswith("A person takes over") and "does not have" in said
    assert browser.evaluate("document.getElementById('solved')") is None
    ask(browser, "Hello?", 5)  # the bot is silent now
    assert turns(browser)[-1] == "Hello?"
    looks_right(browser, f"{served.url}/desk")
    browser.click("#text1")
    browser.type("We do not book hotels, sorry.")
    browser.press("Tab")
    browser.press("Enter")  # on the button
    browser.until("document.body.textContent.includes('Nobody waits')")
    browser.open(url)
    assert turns(browser)[-1] == "We do not book hotels, sorry."
    assert b"jane.doe" not in path.read_bytes()
    browser.click("#forget")
    browser.until(
        "document.querySelectorAll('.turn').length === 0 && location.pathname + location.search === '/'"
    )
    assert browser.complaints == []
    assert b"Long" not in path.read_bytes()


@pytest.mark.slow
def test_the_pages_of_the_bot(browser, bot):
    served, _ = bot
    for path in ("/", "/desk", "/worth"):
        looks_right(browser, served.url + path)
    assert browser.evaluate("document.querySelectorAll('svg[role=img] polyline').length") == 3
    browser.open(f"{served.url}/")
    browser.click("#opener1")
    browser.until("document.querySelectorAll('.turn').length === 2", 60)
    browser.click("#person")
    browser.until("document.body.textContent.includes('did not help')")


@pytest.mark.slow
def test_the_bot_without_javascript_and_with_mistakes(tmp_path, desk):
    c = client(support_bot.build(tmp_path / "bot.sqlite", desk))
    answer = c.post("/do/say", data={"text": "I have to cancel my dinner reservation."})
    assert answer.status_code == 200 and "Open Bookings and choose the table" in answer.text
    id = answer.url.params["c"]
    assert c.post("/do/judge", data={"c": id, "solved": "yes"}).text.count("Solved. Ask again") == 1
    for data, said in (
        ({"text": ""}, "0 characters"),
        ({"text": "x" * 501}, "501 characters"),
        ({"text": "x", "c": "unknown"}, "not stored"),
        ({}, "0 characters"),
    ):
        refused = c.post("/do/say", data=data)
        assert refused.status_code == 422 and said in refused.text
    assert c.get("/?c=unknown").status_code == 422
    assert c.post("/do/answer", data={"c": id, "text": " "}).status_code == 422


# --- the monitor -----------------------------------------------------------------------------------------------------


def test_the_weights_are_log_likelihood_ratios():
    up, down = opinion_alarm.weights(0.2, 2.0)
    raised = 2 * 0.25 / (1 + 2 * 0.25)
    assert up == pytest.approx(np.log(raised / 0.2)) and down == pytest.approx(np.log((1 - raised) / 0.8))
    rates = np.linspace(0.01, 0.99, 50)
    ups, downs = opinion_alarm.weights(rates)
    assert (rates * ups + (1 - rates) * downs < 0).all()  # a quiet stream sinks
    for usual, odds in ((0.0, 2), (1.0, 2), (0.3, 1.0), (float("nan"), 2)):
        with pytest.raises(ParameterError, match="share between 0 and 1"):
            opinion_alarm.weights(usual, odds)


def with_an_alarm(rate: float, runs: int, scale: float = 1.0) -> int:
    """How many of ``runs`` quiet streams raise an alarm, reckoned without :class:`Watch`."""
    rng = np.random.default_rng(11)
    usual = opinion_alarm.counted(rng.binomial(opinion_alarm.QUIET, rate, runs))
    up, down = opinion_alarm.weights(usual)
    limit = np.array([opinion_alarm.limit_of(share) for share in usual]) * scale
    total, over = np.zeros(runs), np.zeros(runs, bool)
    for _ in range(opinion_alarm.SPAN):
        total = np.maximum(0, total + np.where(rng.random(runs) < rate, up, down))
        over |= total > limit
    return int(over.sum())


@pytest.mark.parametrize("rate", [0.08, 0.22, 0.33, 0.45])
def test_the_stated_chance_of_a_false_alarm_holds(rate):
    runs = 4000
    found = wilson_interval(with_an_alarm(rate, runs), runs, level=0.999)
    assert found.low <= opinion_alarm.LEVEL <= found.high and found.high < 0.08
    assert with_an_alarm(rate, runs, scale=0.8) / runs > 0.07  # a lower limit would be noticed


def test_a_watch_is_the_sum_written_out():
    rng = np.random.default_rng(3)
    hits = [*(rng.random(opinion_alarm.QUIET) < 0.25), *(rng.random(300) < 0.5)]
    watch, raised = opinion_alarm.Watch(), []
    for hit in hits[: opinion_alarm.QUIET]:
        assert not watch.ready and not watch.see(hit)
    assert watch.ready and watch.usual == pytest.approx((sum(hits[:500]) + 0.5) / 501)
    up, down = opinion_alarm.weights(watch.usual)
    total, began = 0.0, opinion_alarm.QUIET
    for place, hit in enumerate(hits[opinion_alarm.QUIET :], opinion_alarm.QUIET):
        assert watch.began == began
        total = max(0.0, total + float(up if hit else down))
        reached = total
        if total > watch.limit:
            raised.append(place)
            total = 0.0
        began = place + 1 if total == 0 else began
        assert watch.see(hit) == (place in raised) and watch.sums[-1] == pytest.approx(reached)
    assert raised and watch.alarms == raised


def opinions() -> tuple[opinion_stream.Opinion, ...]:
    """Six items of two topics and three moods, read without a mistake."""
    return tuple(
        opinion_stream.Opinion(f"{topic} {mood}", 2.0 * (mood - 1), mood, topic, mood, float(mood == 0))
        for topic in range(2)
        for mood in range(3)
    )


def test_an_episode_strikes_its_topic_only_and_ends():
    source = opinion_stream.Source(opinions(), 2, seed=0)
    source.strike(1, 2000)
    items = [source.next() for _ in range(6000)]
    struck = [item for item, mine in items if mine]
    assert len(struck) == 2000 and {item.topic for item in struck} == {1} and source.left == 0
    for chosen, shares in (
        (struck, opinion_stream.RAISED),
        ([item for item, mine in items if not mine], opinion_stream.USUAL),
    ):
        for mood, share in enumerate(shares):
            hits = sum(item.mood == mood for item in chosen)
            found = wilson_interval(hits, len(chosen), level=0.999)
            assert found.low <= share <= found.high
    with pytest.raises(ParameterError, match="no item of some mood"):
        opinion_stream.Source(opinions()[:5], 2, seed=0)


def test_moods_are_cut_where_it_is_said():
    assert [opinion_stream.mood_of(x) for x in (-4, -0.51, -0.5, 0, 0.49, 0.5, 4)] == [0, 0, 1, 1, 1, 2, 2]


def toy_reader() -> SimpleNamespace:
    """What the monitor needs of a reader, on the six items."""
    return SimpleNamespace(
        topics=["business", "sports"], items={"test": opinions()}, topic_right=np.array([True, False])
    )


def test_alarms_come_in_episodes_and_precision_counts_the_others():
    found = opinion_check.alarms(toy_reader(), "business", seed=2, quiet=200, loud=40)
    assert found["head"] == found["people"]  # nothing is misread here
    false = wilson_interval(round(found["head"].false.mean * 200), 200, level=0.999)
    assert false.low <= opinion_alarm.LEVEL <= false.high
    assert found["head"].recall.mean == 1 and found["head"].precision.low > 0.9
    assert (
        list(found["head"].delay) == sorted(found["head"].delay) and 5 < np.median(found["head"].delay) < 40
    )
    assert found != opinion_check.alarms(toy_reader(), "business", seed=3, quiet=60, loud=60)
    for topic, quiet, length in (("weather", 5, 150), ("business", 0, 150), ("business", 5, 1001)):
        with pytest.raises(ParameterError, match="choose of"):
            opinion_check.alarms(toy_reader(), topic, quiet=quiet, loud=5, length=length)


def test_the_dashboard_counts_the_watched_topic_and_tells_alarms_apart():
    pages = opinion_monitor.MonitorPages(toy_reader(), seed=1)
    shown = pages.dashboard({})
    assert shown["now"] >= opinion_alarm.QUIET and 1.5 < shown["seen"] / shown["now"] < 2.5
    assert shown["usual"] == pytest.approx(0.25, abs=0.06) and not shown["alarms"]
    before = shown["seen"]
    pages.plant()
    pages.step(200)
    shown = pages.dashboard({})
    assert shown["seen"] == before + 200 and len(shown["latest"]) == opinion_monitor.LATEST
    assert [one for one in shown["alarms"] if one.inside] and shown["fresh"] is shown["alarms"][0]
    first = shown["alarms"][-1]
    assert first.inside and first.negative / first.n > 0.4 and first.since >= opinion_alarm.QUIET
    assert {item.read for item in first.quotes} == {0} and 'class="mark"' in shown["trend"]
    pages.begin(1, "sports")
    assert pages.dashboard({})["topic"] == "sports" and not pages.dashboard({})["alarms"]
    other = opinion_monitor.MonitorPages(toy_reader(), seed=1)
    other._source.strike(1, 150)  # the topic that is not watched
    other.step(300)
    assert not other.alarms


def test_the_monitor_refuses_what_no_button_sends():
    c = client(opinion_monitor.build(toy_reader()))
    for path, data, said in (
        ("step", {"n": "1000000"}, "choose of 1, 25, 100"),
        ("step", {}, "choose of 1, 25, 100"),
        ("begin", {"seed": "-1", "topic": "business"}, "whole number"),
        ("begin", {"seed": "²", "topic": "business"}, "whole number"),
        ("begin", {"seed": "1", "topic": "weather"}, "choose of business, sports"),
    ):
        answer = c.post(f"/do/{path}", data=data)
        assert answer.status_code == 422 and said in answer.text
    assert "On business" in c.post("/do/step", data={"n": "25"}).text


SEEN = "Number([...document.querySelectorAll('dd small')].map(e => e.textContent.match(/^of (\\d+) items$/)).find(m => m)[1])"


def use_the_monitor(browser: Browser, url: str) -> None:
    """Step, plant, let the clock run until an alarm is raised, stop it, choose another topic by the keyboard."""
    browser.complaints.clear()
    browser.open(url)
    before = browser.evaluate(SEEN)
    browser.click("#step25")
    browser.until(f"{SEEN} === {before + 25}")
    assert browser.evaluate("document.activeElement.id") == "step25"
    browser.click("#plant")
    browser.until("document.body.textContent.includes('An episode is on')")
    for _ in range(40):
        if browser.evaluate("document.querySelector('.note.bad') !== null"):
            break
        now = browser.evaluate(SEEN)
        browser.click("#step100")
        browser.until(f"{SEEN} === {now + 100}")
    browser.until("document.querySelector('.note.bad').textContent.includes('were negative')")
    assert browser.evaluate("document.querySelectorAll('svg path.mark').length") >= 2  # one in each chart
    assert (
        browser.evaluate("document.querySelector('details[open] .tag').textContent") == "in a planted episode"
    )
    now = browser.evaluate(SEEN)
    browser.click("#run")
    browser.until(f"{SEEN} >= {now + 50}")
    assert browser.evaluate("document.getElementById('run').ariaPressed") == "true"
    browser.click("#run")
    browser.until("document.getElementById('run').textContent === 'Run'")
    browser.evaluate("new Promise(done => setTimeout(done, 300))")
    now = browser.evaluate(SEEN)
    browser.evaluate("new Promise(done => setTimeout(done, 1500))")
    assert browser.evaluate(SEEN) == now
    browser.evaluate("document.getElementById('topic').selectedIndex = 1")
    browser.click("#begin")
    browser.until("document.querySelector('h1').textContent !== 'Opinion on business'")
    assert browser.complaints == []


def test_a_person_uses_the_monitor(browser):
    served = Served(opinion_monitor.build(toy_reader()))
    try:
        use_the_monitor(browser, f"{served.url}/")
    finally:
        served.close()
    browser.click("#run")  # the program has ended: the page says so, and its clock stops
    browser.until("document.getElementById('said').textContent.includes('Start it again')")
    browser.until("document.getElementById('run').textContent === 'Run'")
    assert browser.evaluate("document.getElementById('said').getBoundingClientRect().height > 20")


@pytest.fixture(scope="module")
def reader() -> opinion_stream.OpinionReader:
    return opinion_stream.OpinionReader()


@pytest.mark.slow
def test_the_heads_read_better_than_the_largest_class(reader):
    found = opinion_check.heads(reader)
    assert found.topic.low > 0.8 and found.mood.low > found.largest and found.f1 > 0.5
    assert found.table.sum(axis=1) == pytest.approx(np.ones(3)) and found.table[0, 0] > 2 * found.table[1, 0]
    articles = [{text for text, _ in opinion_stream.rated(split)} for split in ("train", "dev", "test")]
    assert not articles[0] & articles[2] and not articles[1] & articles[2]


@pytest.mark.slow
@pytest.mark.parametrize("topic", ["business", "politics"])
def test_on_fresh_streams_the_false_alarms_are_those_that_were_stated(reader, topic):
    found = opinion_check.alarms(reader, topic, seed=0)
    for (
        one
    ) in found.values():  # another processor reads a few sentences otherwise, and then all streams are others
        alarms = round(200 * one.false.mean)
        assert stats.binomtest(alarms, 200, opinion_alarm.LEVEL).pvalue > 0.001
    assert found["head"].recall.low > 0.7 and found["head"].precision.low > 0.85
    assert found["people"].recall.mean >= found["head"].recall.mean
    assert np.median(found["people"].delay) < np.median(found["head"].delay) < opinion_check.LENGTH


@pytest.mark.slow
def test_the_pages_of_the_monitor(browser, reader):
    served = Served(opinion_monitor.build(reader))
    try:
        looks_right(browser, f"{served.url}/")
        browser.click("#plant")
        browser.until("document.body.textContent.includes('An episode is on')")
        for _ in range(8):
            now = browser.evaluate(SEEN)
            browser.click("#step100")
            browser.until(f"{SEEN} === {now + 100}")
        for path in ("/", "/worth"):
            looks_right(browser, served.url + path)
    finally:
        served.close()
