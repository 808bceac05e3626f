"""Lesson 26: likes, features without leaks, one ranker, its measure; what would change our mind; what the articles hold."""

from __future__ import annotations

import importlib.util
import itertools
import math
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.metrics import ndcg_score
from sklearn.metrics.pairwise import cosine_similarity
from torch.nn import functional as F

from instructlab_utils import recommending
from instructlab_utils.errors import DataError, ParameterError

ROOT = Path(__file__).resolve().parents[1]


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def table_of(rows=40, titles=12, seed=0):
    return (draws(rows, titles, seed=seed) > 0.4).double()


def row(line, options, answer, name="0"):
    return {"id": name, "input": line, "options": options, "answer": answer}


def toy(rows=24, titles=14, seed=1):
    """Likes in which rows 0 and 1 are equal, and row 2 shares four titles with them."""
    g = torch.Generator().manual_seed(seed)
    table = torch.zeros(rows, titles, dtype=torch.float64)
    for each in table:
        each[torch.randperm(titles, generator=g)[:5]] = 1
    table[:3] = 0
    table[0, :5] = table[1, :5] = 1
    table[2, 1:6] = 1
    names = [f"film {i}" for i in range(titles)]
    asked = table.argmax(1)
    return recommending.Likes(names, table, asked, [["a", "b"]] * rows)


# --- reading ---------------------------------------------------------------------------------------------------------


def test_titles_with_a_comma_stay_one():
    line = "Lock, Stock & Two Smoking Barrels, Monsters, Inc, Up, Alien:"
    assert recommending.titles_of(line) == [*recommending.COMMAS, "Up", "Alien"]
    with pytest.raises(DataError):
        recommending.titles_of("Up, , Alien:")


def test_likes_hold_history_and_right_option_in_an_order_of_ids():
    found = recommending.likes([row("B, A:", ["X", "C"], 1, "2"), row("C, D:", ["A", "Y"], 0, "1")])
    assert found.titles == ["A", "B", "C", "D"]
    assert found.table.tolist() == [[1, 0, 1, 1], [1, 1, 1, 0]]
    assert found.asked.tolist() == [0, 2] and found.options == [["A", "Y"], ["X", "C"]]
    with pytest.raises(DataError):
        recommending.likes([])


def test_the_films_are_as_the_lesson_says():
    from instructlab_utils import tasks

    data = recommending.likes(r for part in tasks.load("movies").splits.values() for r in part)
    assert data.table.shape == (500, 152) and (data.table.sum(1) == 5).all()
    assert all(
        data.titles[i] in options for i, options in zip(data.asked.tolist(), data.options, strict=True)
    )
    assert data.copies().diagonal().all() and torch.equal(data.copies(), data.copies().T)


# --- behaviour -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_neighbours_are_cosines(seed):
    X = table_of(seed=seed)
    X[:, 3] = 0  # a title that nobody likes
    want = cosine_similarity(X.T.numpy())
    np.fill_diagonal(want, 0)
    assert np.abs(recommending.neighbours(X).numpy() - want).max() < 1e-12
    shrunk = recommending.neighbours(X, 5.0)
    counts, common = X.sum(0), X.T @ X
    for i, j in itertools.permutations(range(12), 2):
        below = math.sqrt(counts[i] * counts[j]) + 5
        assert abs(shrunk[i, j] - common[i, j] / below) < 1e-12
    assert shrunk.isfinite().all() and (shrunk.diagonal() == 0).all()


@pytest.mark.parametrize("rank", [1, 3, 12])
def test_factors_give_the_best_approximation_of_their_rank(rank):
    X = table_of()
    left, sizes, right = np.linalg.svd(X.numpy(), full_matrices=False)
    best = left[:, :rank] * sizes[:rank] @ right[:rank]
    V = recommending.factors(X, rank)
    assert np.abs((X @ V @ V.T).numpy() - best).max() < 1e-9
    assert (V.T @ V - torch.eye(rank)).abs().max() < 1e-9


def test_heirs_are_a_softmax_over_others_with_likes():
    vectors, known = draws(6, 4), torch.tensor([True, True, False, True, False, True])
    found = recommending.heirs(vectors, known, 0.5)
    assert (found.sum(1) - 1).abs().max() < 1e-12
    assert (found[:, ~known] == 0).all() and (found.diagonal() == 0).all()
    unit = F.normalize(vectors, dim=1)
    others = [0, 1, 5]
    want = torch.softmax(unit[3] @ unit[others].T / 0.5, 0)
    assert (found[3, others] - want).abs().max() < 1e-12


# --- questions -------------------------------------------------------------------------------------------------------


def asked_of(data, rows, about="warm", cold=(), **how):
    hidden = torch.zeros(len(data.titles), dtype=torch.bool)
    hidden[list(cold)] = True
    everyone = torch.ones(len(data.table), dtype=torch.bool)
    return recommending.questions(
        data, rows, everyone, hidden, draws(len(data.titles), 6), about=about, rank=3, **how
    )


def test_a_question_sees_neither_its_row_nor_a_near_copy():
    data = toy()
    before = asked_of(data, [0])
    changed = toy()
    # film 0's likes outside of the copies stay; the equal row 1 and the near row 2 trade films with each other
    changed.table[1] = data.table[2]
    changed.table[2] = data.table[1]
    assert torch.equal(asked_of(changed, [0]).features, before.features)
    left = [i for i in range(len(data.table)) if i > 2]
    bare = torch.zeros(len(data.table), dtype=torch.bool)
    bare[left] = True
    nobody = torch.zeros(len(data.titles), dtype=torch.bool)
    alone = recommending.questions(data, [0], bare, nobody, draws(len(data.titles), 6), rank=3)
    assert (alone.features - before.features).abs().max() < 1e-12
    leaky = asked_of(data, [0], copies=True)
    assert (leaky.features[..., 0] > before.features[..., 0]).any()


def test_each_title_is_asked_once_among_those_that_the_row_does_not_hold():
    data = toy()
    found = asked_of(data, [0, 7])
    assert found.right.tolist() == [*data.table[0].nonzero()[:, 0], *data.table[7].nonzero()[:, 0]]
    for allowed, right, row in zip(found.allowed, found.right, found.row, strict=True):
        own = data.table[row].bool().clone()
        own[right] = False
        assert torch.equal(allowed, ~own)


def test_cold_titles_have_no_likes_and_no_place_in_a_history():
    data, cold = toy(), [1, 4, 9]
    every = asked_of(data, range(24), "all", cold)
    assert (every.features[:, cold, :3].abs() < 1e-12).all()
    warm = asked_of(data, range(24), "warm", cold)
    assert not warm.allowed[:, cold].any() and not set(warm.right.tolist()) & set(cold)
    among = asked_of(data, range(24), "cold", cold)
    assert set(among.right.tolist()) <= set(cold) and among.allowed.sum(1).max() <= 3
    assert not among.allowed[:, [i for i in range(14) if i not in cold]].any()
    with pytest.raises(ParameterError):
        asked_of(data, [0], "cold", [13])


# --- the ranker and its measure --------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [1e-4, 0.1])
def test_newtons_weights_are_those_of_scipy(decay):
    x, allowed, right = draws(30, 9, 4), draws(30, 9, seed=2) > -1, torch.arange(30) % 9
    allowed[torch.arange(30), right] = True
    ranker = recommending.fit_ranker(x, allowed, right, decay)
    scaled = (x / ranker.scale).numpy()

    def loss(w):
        z = np.where(allowed, scaled @ w, -np.inf)
        top = z.max(1, keepdims=True)
        log_sum = top[:, 0] + np.log(np.exp(z - top).sum(1))
        return (log_sum - z[range(30), right]).mean() + decay / 2 * w @ w

    best = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-9})
    assert np.abs(ranker.weights.numpy() - best.x).max() < 1e-5
    assert loss(ranker.weights.numpy()) <= best.fun + 1e-12


def test_a_ranker_that_could_be_sure_stays_finite():
    x = torch.zeros(5, 3, 2, dtype=torch.float64)
    x[:, 0, 0] = 1  # the right title is told by one feature; the other says nothing
    ranker = recommending.fit_ranker(
        x, torch.ones(5, 3, dtype=torch.bool), torch.zeros(5, dtype=torch.int64), 1e-3
    )
    assert ranker.weights.isfinite().all() and ranker.weights[0] > 0 and ranker.weights[1].abs() < 1e-9


@pytest.mark.parametrize(
    ("dtype", "room"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.1)]
)
def test_choice_losses_are_cross_entropy_over_what_is_allowed(dtype, room):
    scores, right = 3 * draws(8, 6), torch.tensor([0, 1, 2, 3, 4, 5, 0, 1])
    allowed = draws(8, 6, seed=5) > -0.7
    allowed[torch.arange(8), right] = True
    found = recommending.choice_losses(scores.to(dtype), allowed, right)
    for i in range(8):
        kept = allowed[i].nonzero()[:, 0]
        want = F.cross_entropy(scores[i, kept][None], (kept == right[i]).nonzero()[0])
        assert abs(found[i].double() - want) < room


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_expected_gain_is_the_mean_over_all_orders_of_equals(dtype):
    scores = torch.tensor(
        [[2, 1, 1, 1, 0], [0, 0, 0, 0, 0], [5, 4, 3, 2, 1], [-math.inf, 1, -math.inf, 1, 1]], dtype=dtype
    )
    allowed = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [1, 0, 1, 1, 1], [1, 1, 1, 1, 1]]).bool()
    right = torch.tensor([2, 0, 3, 0])
    found = recommending.expected_gain(scores, allowed, right, 3)
    for i in range(4):
        kept, worth = allowed[i].nonzero()[:, 0].tolist(), []
        for order in itertools.permutations(kept):
            by_score = sorted(order, key=lambda title: -scores[i, title].item())
            place = by_score.index(right[i].item()) + 1
            worth.append(1 / math.log2(1 + place) if place <= 3 else 0.0)
        assert abs(found[i].item() - sum(worth) / len(worth)) < 1e-12
    with pytest.raises(ParameterError):
        recommending.expected_gain(torch.tensor([[math.nan, 1.0]]), allowed[:1, :2], right[1:2])


def test_the_expected_gain_is_scikit_learns_with_its_own_ties():
    scores, right = draws(7, 12).round(), torch.arange(7)
    allowed = torch.ones(7, 12, dtype=torch.bool)
    gains = F.one_hot(right, 12).double()
    theirs = [ndcg_score(g[None].numpy(), s[None].numpy(), k=10) for g, s in zip(gains, scores, strict=True)]
    assert np.abs(recommending.expected_gain(scores, allowed, right).numpy() - theirs).max() < 1e-12


def test_towers_learn_which_direction_counts():
    data = toy(rows=60, titles=14, seed=3)
    taste = torch.linspace(-1, 1, 14)
    for number, each in enumerate(data.table):
        each.zero_()
        each[(torch.arange(5) if number % 2 else torch.arange(9, 14))] = 1
    g = torch.Generator().manual_seed(0)
    vectors = torch.cat([0.3 * taste[:, None], 1.5 * torch.randn(14, 7, generator=g)], 1)
    fit = asked_of(data, range(60), copies=True)
    nobody, none = torch.zeros(14, dtype=torch.bool), torch.zeros(60, dtype=torch.bool)
    losses = []
    for steps in (1, 150):
        score = recommending.towers(fit, data, vectors, nobody, none, 0, steps, 0.01)
        losses.append(recommending.choice_losses(score(fit), fit.allowed, fit.right).mean().item())
    assert losses[1] < losses[0] - 0.5
    with pytest.raises(ParameterError):
        recommending.towers(fit, data, vectors, nobody, ~none, 0, 1, 0.01)


def test_words_of_titles_find_series():
    found = recommending.word_vectors(["Star Wars IV", "Star Wars V", "Up", "Alien V"])
    alike = found @ found.T
    assert (alike.diagonal() - 1).abs().max() < 1e-12
    assert alike[0, 1] > alike[1, 3] > 0 and alike[2, [0, 1, 3]].abs().max() == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: recommending.neighbours(table_of(), -1),
        lambda: recommending.factors(table_of(), 0),
        lambda: recommending.factors(table_of(), 13),
        lambda: recommending.heirs(draws(3, 2), torch.tensor([True, False, False])),
        lambda: recommending.heirs(draws(3, 2), torch.ones(3, dtype=torch.bool), 0),
        lambda: recommending.fit_ranker(
            draws(2, 3, 2), torch.ones(2, 3, dtype=torch.bool), torch.zeros(2).long(), 0
        ),
        lambda: asked_of(toy(), [0], "lukewarm"),
    ],
)
def test_recommending_refuses_in_one_sentence(call):
    with pytest.raises(ParameterError):
        call()


# --- what would change our mind --------------------------------------------------------------------------------------

MINDS = tomllib.loads((ROOT / "data" / "minds.toml").read_text(encoding="utf-8"))


def test_each_claim_of_the_articles_says_what_would_change_our_mind():
    assert list(MINDS) == [*(f"C{n}" for n in range(1, 26)), "AGI"]
    for name, told in MINDS.items():
        assert 60 <= len(told["change"]) <= 400 and told["change"].endswith("."), name
        assert set(told) == ({"change", "statement", "reason"} if name == "AGI" else {"change"}), name
    assert len({told["change"] for told in MINDS.values()}) == len(MINDS)


@pytest.mark.parametrize("name", [name for name in MINDS if name != "AGI"])
def test_each_of_them_is_a_claim(name):
    assert f'id = "{name}"' in (ROOT / "data" / "claims" / f"{name}.toml").read_text(encoding="utf-8")


def test_no_number_is_typed_where_a_run_would_print_one():
    assert not re.findall(r"\d+\.\d|\d ?%", "".join(told["change"] for told in MINDS.values()))


# --- what the articles hold ------------------------------------------------------------------------------------------


def coverage():
    place = ROOT / "scripts" / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_of_articles", place)
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


COVERAGE = coverage()


def test_every_row_is_in_a_lesson_that_holds_its_words():
    found = COVERAGE.rows()
    assert len(found) > 100 and {row["part"] for row in found} == set(COVERAGE.PARTS)
    there = [row for row in found if all(COVERAGE.source_of(lesson) for lesson in row["where"])]
    assert COVERAGE.wrong(there) == []
    missing = {lesson for row in found for lesson in row["where"] if COVERAGE.source_of(lesson) is None}
    assert missing <= {"25"}  # until that lesson stands


def test_the_page_is_what_the_rows_give():
    text = (ROOT / "docs" / "coverage.md").read_text(encoding="utf-8")
    assert text == COVERAGE.page(COVERAGE.rows())
    assert all(f"| {row['name']} |" in text for row in COVERAGE.rows())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"where": {"03": ["gradient of a unicorn"]}}, "does not hold"),
        ({"where": {"99": ["loss"]}}, "no lesson 99"),
        ({"where": {"03": []}}, "write a word"),
        ({"where": {}}, "and a lesson"),
        ({"part": "rumour"}, "known part"),
        ({"articles": ["007"]}, "articles are"),
    ],
)
def test_a_wrong_row_is_one_sentence(change, says):
    good = {"part": "task", "name": "Naming", "articles": ["000"], "where": {"03": ["loss"]}}
    assert COVERAGE.wrong([good]) == []
    (said,) = COVERAGE.wrong([good | change])
    assert says in said and "'Naming'" in said


def test_a_name_that_stands_twice_is_told():
    good = {"part": "task", "name": "Naming", "articles": ["000"], "where": {"03": ["loss"]}}
    assert COVERAGE.wrong([good, good]) == ["'Naming' stands twice"]
