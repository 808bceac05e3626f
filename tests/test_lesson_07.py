"""What lesson 07 builds by hand equals torch, scipy and second definitions; augmentation keeps its promises."""

from __future__ import annotations

import ast
import math
import random
from collections import defaultdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from torch.nn import functional as F

from instructlab_utils import augmentation, metrics
from instructlab_utils.errors import TrainingError
from instructlab_utils.losses import cross_entropy, r_drop, symmetric_kl

LESSON = Path(__file__).resolve().parents[1] / "notebooks" / "source" / "07_overfitting.py"
SEEDS = st.integers(0, 2**31 - 1)
DTYPES = st.sampled_from([torch.float64, torch.float32])
many = settings(max_examples=200, deadline=None, derandomize=True)


@cache
def from_lesson(name):
    """A function that stands in the lesson and not in the package."""
    tree = ast.parse(LESSON.read_text(encoding="utf-8"))
    (node,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)
    scope = {"np": np, "torch": torch, "cross_entropy": cross_entropy}
    exec(compile(ast.Module([node], []), str(LESSON), "exec"), scope)
    return scope[name]


def normal(seed, *shape, dtype=torch.float64, scale=1.0):
    return (
        scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ).to(dtype)


def assert_close(ours, theirs, dtype):
    """Relative to the largest magnitude."""
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    scale = max(1.0, theirs.abs().max().item())
    assert (ours - theirs).abs().max().item() <= (1e-12 if dtype == torch.float64 else 1e-5) * scale


# --- noise and targets -------------------------------------------------------------------------------


@many
@given(seed=SEEDS, p=st.floats(0.0, 0.9), dtype=DTYPES)
def test_dropout_equals_torch_on_its_mask(seed, p, dtype):
    dropout = from_lesson("dropout")
    h = normal(seed, 7, 5, dtype=dtype) + 10  # no activation is zero by itself
    torch.manual_seed(seed)
    theirs = F.dropout(h, p)
    assert_close(dropout(h, (theirs != 0).to(dtype), p), theirs, dtype)


def kl_of_torch(a, b):
    log_p, log_q = F.log_softmax(a, 1), F.log_softmax(b, 1)
    both = ((log_q, log_p), (log_p, log_q))
    return sum(F.kl_div(x, y, log_target=True, reduction="none").sum(1) for x, y in both) / 2


@many
@given(
    seed=SEEDS,
    n=st.integers(1, 5),
    classes=st.integers(2, 6),
    dtype=DTYPES,
    scale=st.sampled_from([0.1, 1, 8]),
)
def test_symmetric_kl_and_its_gradient_equal_torch(seed, n, classes, dtype, scale):
    a, b = (normal(seed + i, n, classes, dtype=dtype, scale=scale).requires_grad_(True) for i in (0, 1))
    ours, theirs = symmetric_kl(a, b), kl_of_torch(a, b)
    assert_close(ours.detach(), theirs.detach(), dtype)
    assert (ours >= -1e-6).all()
    for mine, reference in zip(
        torch.autograd.grad(ours.sum(), (a, b)), torch.autograd.grad(theirs.sum(), (a, b)), strict=True
    ):
        assert_close(mine, reference, dtype)


@many
@given(seed=SEEDS, alpha=st.floats(0, 5))
def test_r_drop_equals_torch_and_does_not_prefer_a_pass(seed, alpha):
    a, b = (normal(seed + i, 4, 3).requires_grad_(True) for i in (0, 1))
    y = torch.randint(3, (4,), generator=torch.Generator().manual_seed(seed))
    theirs = sum(F.cross_entropy(z, y, reduction="none") for z in (a, b)) / 2 + alpha * kl_of_torch(a, b)
    ours = r_drop(a, b, y, alpha)
    assert_close(ours.detach(), theirs.detach(), torch.float64)
    assert_close(r_drop(b, a, y, alpha).detach(), ours.detach(), torch.float64)
    mine, reference = (torch.autograd.grad(one.sum(), (a, b)) for one in (ours, theirs))
    for x, z in zip(mine, reference, strict=True):
        assert_close(x, z, torch.float64)


def test_r_drop_of_equal_passes_is_the_cross_entropy_and_shapes_are_checked():
    a, y = normal(0, 5, 3), torch.tensor([0, 1, 2, 0, 1])
    assert torch.equal(r_drop(a, a, y, 3.0), cross_entropy(a, y))
    assert torch.isfinite(symmetric_kl(torch.tensor([[1e4, 0.0]]), torch.tensor([[0.0, 1e4]]))).all()
    with pytest.raises(TrainingError, match=r"\(5, 3\) and \(4, 3\)"):
        symmetric_kl(a, a[:4])


@many
@given(seed=SEEDS, smoothing=st.floats(0.001, 0.9), classes=st.integers(2, 6), dtype=DTYPES)
def test_label_smoothing_and_its_gradient_equal_torch(seed, smoothing, classes, dtype):
    z = normal(seed, 4, classes, dtype=dtype).requires_grad_(True)
    y = torch.randint(classes, (4,), generator=torch.Generator().manual_seed(seed))
    ours = cross_entropy(z, y, smoothing)
    theirs = F.cross_entropy(z, y, label_smoothing=smoothing, reduction="none")
    assert_close(ours.detach(), theirs.detach(), dtype)
    gradient = torch.autograd.grad(ours.sum(), z)[0]
    assert_close(gradient, torch.autograd.grad(theirs.sum(), z)[0], dtype)
    q = (1 - smoothing) * F.one_hot(y, classes).to(dtype) + smoothing / classes
    assert_close(gradient, (z.softmax(1) - q).detach(), dtype)


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("smoothing", [0.05, 0.1, 0.3])
def test_the_gradient_vanishes_at_the_finite_gap(classes, smoothing):
    z = torch.zeros(classes, dtype=torch.float64)
    z[0] = math.log(1 + classes * (1 - smoothing) / smoothing)
    z.requires_grad_(True)
    (g,) = torch.autograd.grad(cross_entropy(z, torch.tensor(0), smoothing), z)
    assert g.abs().max() < 1e-12


def test_weight_decay_alone_shrinks_by_the_product_of_the_lesson():
    w, rates = torch.ones(3, dtype=torch.float64, requires_grad=True), [1e-3, 3e-3, 2e-3]
    optimizer = torch.optim.AdamW([w], weight_decay=30.0)
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        w.grad = torch.zeros_like(w)
        optimizer.step()
    assert_close(
        w.detach(), torch.full((3,), math.prod(1 - r * 30 for r in rates), dtype=torch.float64), torch.float64
    )


def test_each_task_reaches_its_own_pair_of_logits():
    logits = normal(0, 6, 6).requires_grad_(True)
    labels = torch.arange(6)
    loss = from_lesson("task_losses")(logits, labels)
    for i in range(6):
        t = i // 2
        want = F.cross_entropy(logits[i : i + 1, 2 * t : 2 * t + 2], labels[i : i + 1] % 2)
        assert loss[i].item() == pytest.approx(want.item(), abs=1e-12)
    (g,) = torch.autograd.grad(loss.sum(), logits)
    own = F.one_hot(labels // 2, 3).repeat_interleave(2, dim=1).bool()
    assert (g[~own] == 0).all() and (g[own] != 0).all()


@many
@given(seed=SEEDS, members=st.integers(2, 5))
def test_an_ensemble_is_never_above_the_mean_loss_of_its_members(seed, members):
    p = normal(seed, members, 8, 3, scale=3).softmax(-1)
    y = torch.randint(3, (8,), generator=torch.Generator().manual_seed(seed))
    rows = torch.arange(8)
    together, alone = -p.mean(0)[rows, y].log(), -p[:, rows, y].log().mean(0)
    assert (together <= alone + 1e-12).all()


# --- calibration -------------------------------------------------------------------------------------


def ece_by_loops(p, y, bins):
    """The definition, bin by bin, with the edges written out."""
    total = 0.0
    for b in range(bins):
        low, high = b / bins, (b + 1) / bins
        inside = [i for i in range(len(y)) if low * (1 - 1e-12) < max(p[i]) <= high]
        if inside:
            accuracy = sum(int(np.argmax(p[i]) == y[i]) for i in inside) / len(inside)
            confidence = sum(max(p[i]) for i in inside) / len(inside)
            total += len(inside) / len(y) * abs(accuracy - confidence)
    return total


@many
@given(seed=SEEDS, n=st.integers(1, 40), classes=st.integers(2, 5), bins=st.integers(1, 20))
def test_ece_equals_the_definition_bin_by_bin(seed, n, classes, bins):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(classes, 0.5), n)
    y = rng.integers(classes, size=n)
    assert metrics.expected_calibration_error(p, y, bins) == pytest.approx(
        ece_by_loops(p, y, bins), abs=1e-12
    )


def test_ece_at_the_edges():
    assert metrics.expected_calibration_error([[1.0, 0.0], [1.0, 0.0]], [0, 1]) == pytest.approx(0.5)
    # 0.5 lies in the lower of two bins, with 0.5 + 0.5 of nothing else
    p = [[0.5, 0.5], [0.75, 0.25]]
    assert metrics.expected_calibration_error(p, [0, 1], bins=2) == pytest.approx((0.5 + 0.75) / 2)
    assert metrics.expected_calibration_error(torch.tensor(p), torch.tensor([0, 0])) == pytest.approx(0.375)


@many
@given(seed=SEEDS, n=st.integers(20, 60), classes=st.integers(2, 4), scale=st.floats(0.5, 6))
def test_temperature_is_scipys_optimum(seed, n, classes, scale):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, classes))
    y = np.where(rng.random(n) < 0.6, z.argmax(1), rng.integers(classes, size=n))
    z = scale * z
    ours = metrics.fit_temperature(z, y)

    def loss(s):
        return cross_entropy(torch.tensor(s * z), torch.tensor(y)).mean().item()

    best = minimize_scalar(
        lambda u: loss(math.exp(u)), bounds=(math.log(0.01), math.log(100)), method="bounded"
    )
    assert loss(1 / ours) <= best.fun + 1e-9
    if 0.02 < ours < 50:
        assert math.log(1 / ours) == pytest.approx(best.x, abs=2e-3)


def test_temperature_stays_in_its_range_where_the_best_is_infinite():
    """All right: any small T has a loss of zero, in doubles. All wrong: the flattest distribution is the best."""
    z, y = np.array([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 1])
    small = metrics.fit_temperature(z, y)
    assert 0.01 * (1 - 1e-9) <= small and cross_entropy(torch.tensor(z / small), y).max() < 1e-12
    assert metrics.fit_temperature(-z, y) == pytest.approx(100, rel=1e-6)


def test_early_stopping_is_too_good_and_the_more_so_the_more_looks():
    best_of, rng = from_lesson("best_of"), np.random.default_rng(0)
    means = {looks: np.mean([best_of(looks, 100, rng) for _ in range(400)]) for looks in (1, 5, 40)}
    assert abs(means[1] - 0.7) < 0.01
    assert means[1] + 0.01 < means[5] < means[40] - 0.01


# --- augmentation ------------------------------------------------------------------------------------

WORDS = st.lists(st.sampled_from(["good", "bad", "film", "the", "a", ",", "plot"]), min_size=1, max_size=12)
NEAR = {"good": ["great", "bad"], "film": ["movie"], "plot": ["story", "tale"]}


@many
@given(words=WORDS, share=st.floats(0.0, 1.0), n=st.integers(0, 15), seed=SEEDS)
def test_eda_keeps_its_rules_of_length_and_never_returns_nothing(words, share, n, seed):
    kept = list(words)
    known = [word for word in words if word in NEAR]
    replaced = augmentation.replace_words(words, NEAR, n, random.Random(seed))
    assert len(replaced) == len(words)
    changed = [(old, new) for old, new in zip(words, replaced, strict=True) if old != new]
    assert len(changed) == min(n, len(known)) and all(new in NEAR[old] for old, new in changed)
    inserted = augmentation.insert_words(words, NEAR, n, random.Random(seed))
    assert len(inserted) == len(words) + (n if known else 0)
    rest = iter(inserted)
    assert all(word in rest for word in words)  # still there, in order
    assert sorted(augmentation.swap_words(words, n, random.Random(seed))) == sorted(words)
    shorter = augmentation.delete_words(words, share, random.Random(seed))
    rest = iter(words)
    assert 1 <= len(shorter) <= len(words) and all(word in rest for word in shorter)
    assert augmentation.eda(words, NEAR, share, random.Random(seed))
    assert words == kept


def test_eda_uses_all_four_operations_and_repeats_with_the_same_generator():
    words = "the film is good , the plot is not".split()
    lengths = {
        len(augmentation.eda(words, NEAR, 0.2, random.Random(seed))) - len(words) for seed in range(60)
    }
    assert min(lengths) < 0 and 0 in lengths and 2 in lengths
    assert augmentation.eda(words, NEAR, 0.2, random.Random(7)) == augmentation.eda(
        words, NEAR, 0.2, random.Random(7)
    )


def test_the_nearest_words_are_those_of_the_largest_cosine():
    vocabulary = ["good", "##ly", "great", "bad", "12", "film", "of", "movie"]
    table = normal(3, len(vocabulary), 6)
    whole = [i for i, word in enumerate(vocabulary) if word in {"good", "great", "bad", "film", "movie"}]
    found = augmentation.nearest_words(table, vocabulary, {"good", "film", "of", "absent"}, k=2)
    assert set(found) == {"good", "film"}
    for word, near in found.items():
        here = table[vocabulary.index(word)]
        cosine = {vocabulary[i]: F.cosine_similarity(here, table[i], dim=0).item() for i in whole}
        assert near == sorted(set(cosine) - {word}, key=lambda w: -cosine[w])[:2]


def test_words_of_splits_marks_and_lowers():
    assert augmentation.words_of("It's NOT bad, really!") == [
        "it",
        "'",
        "s",
        "not",
        "bad",
        ",",
        "really",
        "!",
    ]


def ibm_by_dicts(pairs, rounds):
    """The textbook's loops, in dictionaries."""
    t = defaultdict(lambda: 1.0)
    for _ in range(rounds):
        count, total = defaultdict(float), defaultdict(float)
        for source, target in pairs:
            for g in target:
                z = sum(t[e, g] for e in ["", *source])
                for e in ["", *source]:
                    count[e, g] += t[e, g] / z
                    total[e] += t[e, g] / z
        t = {(e, g): c / total[e] for (e, g), c in count.items()}
    return t


def sentences(alphabet):
    return st.lists(st.sampled_from(alphabet), min_size=1, max_size=4)


@many
@given(
    pairs=st.lists(st.tuples(sentences("abcd"), sentences("vwxyz")), min_size=1, max_size=6),
    rounds=st.integers(1, 4),
)
def test_the_dictionary_equals_the_loops_of_the_textbook(pairs, rounds):
    want = {(e, g): p for (e, g), p in ibm_by_dicts(pairs, rounds).items() if e and p >= 0.05}
    found = augmentation.dictionary(pairs, rounds, least=0.05)
    got = {(e, g): p for e, row in found.items() for g, p in row.items()}
    assert {k for k in want.keys() ^ got.keys() if abs(want.get(k, got.get(k)) - 0.05) > 1e-9} == set()
    for key in want.keys() & got.keys():
        assert got[key] == pytest.approx(want[key], abs=1e-12)


def test_a_known_dictionary_is_found_and_translates_back():
    known = {"house": "haus", "book": "buch", "red": "rot", "old": "alt", "dog": "hund", "sees": "sieht"}
    rng = random.Random(0)
    pairs = []
    for _ in range(60):
        source = rng.sample(list(known), 3)
        target = [known[word] for word in source]
        rng.shuffle(target)
        pairs.append((source, target))
    there = augmentation.dictionary(pairs, rounds=20)
    back = augmentation.dictionary([(g, e) for e, g in pairs], rounds=20)
    assert {e: max(row, key=row.get) for e, row in there.items()} == known
    sentence = ["old", "dog", ",", "unknown"]
    assert augmentation.back_translate(sentence, there, back, 0.0, rng) == sentence
    again = [augmentation.back_translate(sentence, there, back, 1.0, rng) for _ in range(50)]
    assert all(line[2:] == [",", "unknown"] for line in again)
    assert np.mean([line[:2] == ["old", "dog"] for line in again]) > 0.8


def test_a_word_that_the_second_dictionary_lacks_stays():
    there, back = {"good": {"gut": 1.0}, "film": {"streifen": 1.0}}, {"gut": {"fine": 1.0}}
    assert augmentation.back_translate(["good", "film"], there, back, 1.0, random.Random(0)) == [
        "fine",
        "film",
    ]
