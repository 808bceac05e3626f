"""Lesson 12: what it writes by hand equals package and library; what its experiments draw and count is what they say."""

from __future__ import annotations

import ast
import itertools
import math
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from transformers import LlamaConfig, LlamaForCausalLM

from instructlab_repro import experiments
from instructlab_utils import models, scoring, tasks
from instructlab_utils.errors import ParameterError
from instructlab_utils.markers import text_ids
from instructlab_utils.run import Cost

ROOT = Path(__file__).resolve().parents[1] / "notebooks"
LESSON = ROOT / "source" / "12_in_context.py"
EXPERIMENTS = ROOT / "experiments" / "source"
many = settings(max_examples=100, deadline=None, derandomize=True)


def load(path, *names, **scope):
    """The top-level functions, classes and constants ``names`` of a notebook's source, in one namespace with ``scope``."""
    nodes = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else ()
        if {getattr(node, "name", ""), *(getattr(target, "id", "") for target in targets)} & set(names):
            nodes.append(node)
    assert len(nodes) == len(names)
    scope |= {"torch": torch, "tasks": tasks, "scoring": scoring, "itertools": itertools, "cache": cache}
    exec(compile(ast.Module(nodes, []), str(path), "exec"), scope)
    return SimpleNamespace(**{name: scope[name] for name in names}, scope=scope)


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer("decoder")


@pytest.fixture(scope="module")
def lesson(tokenizer):
    """The lesson's functions on a tiny float64 model with large weights and the real tokenizer."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True, initializer_range=0.3,
    )  # fmt: skip
    scope = {"net": LlamaForCausalLM(config).double().eval(), "tokenizer": tokenizer}
    scope |= {"run": SimpleNamespace(device="cpu"), "ParameterError": ParameterError, "text_ids": text_ids}
    names = ("encode_pair", "log_prob", "row_of", "packed", "ids_of", "show", "scores_of")
    return load(LESSON, *names, **scope)


# --- the lesson's scorers ------------------------------------------------------------------------------


@pytest.mark.parametrize("option", [" yes", " the two letters Au", "\n\n", "ü"])
def test_log_prob_by_hand_is_the_librarys_loss(lesson, tokenizer, option):
    before, after = lesson.encode_pair("The symbol of gold is", option, tokenizer)
    ids, labels = torch.tensor([before + after]), torch.tensor([[-100] * len(before) + after])
    with torch.no_grad():
        loss = lesson.scope["net"](input_ids=ids, labels=labels).loss.item()
    found, size = lesson.log_prob("The symbol of gold is", option)
    assert found == pytest.approx(-loss * len(after), rel=1e-5) and size == len(before) + len(after)


@pytest.mark.parametrize(
    "context,option,empty", [("", "x", "context"), (" \n", "x", "context"), ("a", "", "option")]
)
def test_the_taught_encode_pair_refuses_what_has_no_token(lesson, tokenizer, context, option, empty):
    with pytest.raises(ParameterError, match=f"the {empty} of .* has no token: write some text"):
        lesson.encode_pair(context, option, tokenizer)


def test_a_row_by_hand_equals_the_pairs_and_the_package(lesson, tokenizer):
    prefix = lesson.show([("good fun", "positive"), ("a bore", "negative")])
    contexts = [f"\n\nReview: {text}\nSentiment:" for text in ("fine", "what a waste of two hours", "so so")]
    words = [" negative", " positive"]
    one_by_one = torch.tensor([[lesson.log_prob(prefix + c, w)[0] for w in words] for c in contexts]).double()
    by_hand = lesson.packed(prefix, contexts, words)
    assert by_hand.shape == one_by_one.shape == (3, 2)
    torch.testing.assert_close(by_hand, one_by_one, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(lesson.scores_of(contexts, words, prefix), one_by_one, rtol=1e-5, atol=1e-5)


ROW_OF = load(LESSON, "row_of").row_of
FITTED = load(EXPERIMENTS / "in_context.py", "oracle", "cross_fitted")


@many
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 3))
def test_a_row_keeps_its_contexts_apart(sizes, cached):
    places, seen = ROW_OF([[0] * size for size in sizes], cached)
    blocks = torch.block_diag(*(torch.ones(size, size).tril() for size in sizes)).bool()
    assert torch.equal(seen[:, cached:], blocks) and seen[:, :cached].all()
    assert places.tolist() == [cached + i for size in sizes for i in range(size)]


# --- what the derivations say --------------------------------------------------------------------------

SHIFT = st.floats(-4, 4, allow_nan=False)


@many
@given(st.integers(0, 10**6), st.integers(2, 6), SHIFT)
def test_calibration_undoes_a_bias_that_does_not_depend_on_the_text(seed, K, shift):
    g = torch.Generator().manual_seed(seed)
    q, b = torch.rand(7, K, generator=g).double() + 0.01, torch.rand(K, generator=g).double() + 0.01
    q /= q.sum(1, keepdim=True)
    found = scoring.contextual_calibration((q * b).log() + shift, (b / K).log())
    torch.testing.assert_close(found.exp(), q)


@many
@given(st.integers(0, 10**6), SHIFT)
def test_for_two_labels_calibration_keeps_the_area_under_the_curve(seed, shift):
    g = torch.Generator().manual_seed(seed)
    scores, free = torch.randn(30, 2, generator=g).double(), torch.tensor([shift, 0.0]).double()
    y = torch.arange(30) % 2
    after = scoring.contextual_calibration(scores, free)
    auc = [roc_auc_score(y, (s[:, 1] - s[:, 0]).numpy().round(9)) for s in (scores, after)]
    assert auc[0] == auc[1]


@many
@given(st.integers(0, 10**6), st.integers(2, 6))
def test_with_one_content_free_text_calibration_chooses_as_pmi_does(seed, K):
    g = torch.Generator().manual_seed(seed)
    scores, free = torch.randn(9, K, generator=g).double(), torch.randn(K, generator=g).double()
    calibrated, ones = scoring.contextual_calibration(scores, free), torch.ones(K, dtype=torch.int64)
    base = scoring.OptionScores(free, ones)
    pmi = [scoring.choose(scoring.OptionScores(s, ones), "pmi", base) for s in scores]
    assert calibrated.argmax(1).tolist() == pmi


# --- the experiments -----------------------------------------------------------------------------------


def settings_of(name):
    spec = experiments.load(name).at("laptop")
    return spec, spec.settings_of(spec.blocks()[0])


@pytest.fixture(scope="module")
def in_context(tokenizer):
    _, chosen = settings_of("in_context")
    block = SimpleNamespace(run=Measured())
    scope = {"tokenizer": tokenizer, "settings": chosen, "net": None, "block": block}
    names = ("FORMATS", "shuffled", "texts_of", "drawn", "scored")
    return {seed: load(EXPERIMENTS / "in_context.py", *names, **scope, seed=seed) for seed in (0, 3)}


class Measured:
    def measure(self):
        import contextlib

        return contextlib.nullcontext(Cost())


@pytest.mark.parametrize("task", ["movie-sentiment", "bbc-topics", "vitaminc", "intent"])
def test_what_the_model_reads_is_one_more_demonstration(in_context, tokenizer, monkeypatch, task):
    seen, block = {}, in_context[3]
    chosen = block.scope["settings"]

    def record(net, tokenizer, contexts, options, *, prefix):
        seen.update(contexts=contexts, options=options, prefix=prefix)
        return [scoring.OptionScores(torch.zeros(len(o)), torch.ones(len(o))) for o in options]

    monkeypatch.setattr(scoring, "option_log_probs", record)
    form, words = block.FORMATS[task][0], block.texts_of(task)[1]
    pairs, test, _ = block.drawn(task, 24)
    assert len(pairs) == 8 and len({text for text, _ in test}) == 24
    assert not {text for text, _ in pairs} & {text for text, _ in test}
    for k, wrong, n in ((0, False, 24), (4, False, 24), (4, True, 24), (8, False, 12)):
        scores, free, labels, targets, _, _ = block.scored(task, k, wrong)
        assert scores.shape == (n, len(words)) and free.shape == (3, len(words)) and len(labels) == k
        assert targets.tolist() == [label for _, label in block.drawn(task, n)[1]]
        shown = [form.format(text) + words[label] for (text, _), label in zip(pairs, labels, strict=False)]
        whole = [*shown, form.format(block.drawn(task, n)[1][0][0])]
        assert seen["prefix"] + seen["contexts"][0] == "\n\n".join(whole)
        assert seen["options"] == [words] * (n + 3) and all(word[0] == " " for word in words)
        assert all(any(nothing in c for nothing in ("N/A", "[MASK]", form.format(""))) or task != "movie-sentiment"
                   for c in seen["contexts"][n:])  # fmt: skip
        true = [label for _, label in pairs[:k]]
        assert all(a != b for a, b in zip(labels, true, strict=True)) if wrong else labels == true
    longest = chosen.max_tokens[task]
    assert all(len(tokenizer(text)["input_ids"]) <= longest for text, _ in [*pairs, *test])


@pytest.mark.parametrize("task", ["bbc-topics", "intent"])
def test_seeds_share_no_test_text_and_have_the_labels_in_the_same_shares(in_context, task):
    counts, seen = [], []
    for block in in_context.values():
        _, test, frequent = block.drawn(task, 24)
        labels = [label for _, label in test]
        counts.append([labels.count(c) for c in range(len(block.texts_of(task)[1]))])
        seen.append({text for text, _ in test})
        train = [label for _, label in block.texts_of(task)[0]["train"]]
        assert train.count(frequent) == max(map(train.count, set(train)))
    assert not seen[0] & seen[1] and all(abs(a - b) <= 1 for a, b in zip(*counts, strict=True))


def test_content_free_texts_keep_the_tasks_own_form(in_context):
    forms = in_context[0].FORMATS
    asked = {task: form.format(empty.format("N/A")) for task, (form, empty) in forms.items()}
    assert asked["movie-sentiment"] == "Review: N/A\nSentiment:"
    assert asked["vitaminc"] == "Passage: N/A\nClaim: N/A\nTrue, False, or Neither?"
    assert asked["intent"] == "Utterance: N/A\nIntent:"


@many
@given(st.integers(0, 10**6), st.integers(2, 4))
def test_the_oracle_is_never_below_its_starts_and_exact_for_two_labels(seed, K):
    g = torch.Generator().manual_seed(seed)
    scores, targets = torch.randn(12, K, generator=g).double(), torch.randint(K, (12,), generator=g)
    starts = [torch.zeros(K).double(), torch.randn(K, generator=g).double()]

    def right(bias):
        return ((scores + bias).argmax(1) == targets).sum().item()

    found = right(FITTED.oracle(scores.clone(), targets, starts))
    assert found >= max(map(right, starts))
    if K == 2:
        gaps = (scores[:, 0] - scores[:, 1]).sort().values
        cuts = [gaps[0] - 1, *(gaps[1:] + gaps[:-1]) / 2, gaps[-1] + 1]
        assert found == max(right(torch.stack([torch.zeros(()).double(), cut])) for cut in cuts)


def test_the_cross_fitted_oracle_never_sees_the_label_that_it_is_judged_by():
    g = torch.Generator().manual_seed(0)
    scores, targets = torch.randn(24, 3, generator=g).double(), torch.randint(3, (24,), generator=g)
    starts = [torch.zeros(3).double(), torch.randn(3, generator=g).double()]
    found = FITTED.cross_fitted(scores, targets, starts)
    for i in (0, 7, 23):
        other = targets.clone()
        other[i] = (targets[i] + 1) % 3
        again = FITTED.cross_fitted(scores, other, starts)
        assert torch.equal(found[i], again[i])
    inside = (scores + FITTED.oracle(scores, targets, starts)).argmax(1) == targets
    assert (found.argmax(1) == targets).sum() <= inside.sum()


@pytest.fixture(scope="module")
def order_of(tokenizer):
    _, chosen = settings_of("demonstration_order")
    names = ("FORMATS", "short", "balanced", "orders", "tested")
    return {
        seed: load(
            EXPERIMENTS / "demonstration_order.py", *names, tokenizer=tokenizer, settings=chosen, seed=seed
        )
        for seed in range(3)
    }


def test_demonstrations_are_balanced_and_their_orders_differ(order_of):
    for seed, block in order_of.items():
        movies = [label for _, label in block.balanced("movie-sentiment", 4)]
        topics = [label for _, label in block.balanced("bbc-topics", 4)]
        assert sorted(movies) == [0, 0, 1, 1] and len(set(topics)) == 4
        every = block.orders(4)
        assert len(set(every)) == 24 and {tuple(sorted(order)) for order in every} == {(0, 1, 2, 3)}
        assert every[:8] != order_of[(seed + 1) % 3].orders(4)[:8]


def test_all_orders_answer_a_seed_s_own_texts(order_of):
    texts = [{text for text, _ in block.tested("bbc-topics")} for block in order_of.values()]
    assert all(len(own) == 24 for own in texts) and len(set.union(*texts)) == 72
    shown = {text for block in order_of.values() for text, _ in block.balanced("bbc-topics", 4)}
    assert not shown & set.union(*texts)


SPREAD = load(EXPERIMENTS / "demonstration_order.py", "beyond_luck", "by_luck", "log_odds")


def test_the_cross_fitted_spread_is_zero_by_luck_and_the_true_one_where_orders_differ():
    g = torch.Generator().manual_seed(0)
    luck = torch.rand(2000, 8, 24, generator=g) < 0.5  # orders that do not matter
    found = torch.tensor([SPREAD.beyond_luck(right.double()) for right in luck]).double()
    assert abs(found.mean()) < 3 * found.std() / 2000**0.5
    plain = torch.tensor(
        [right.double().mean(1).max() - right.double().mean(1).min() for right in luck[:300]]
    )
    shuffled = torch.tensor([SPREAD.by_luck(right.double()) for right in luck[:300]])
    assert plain.mean() > 0.2 and abs(plain.mean() - shuffled.mean()) < 0.02
    ends = torch.tensor([0.1, *[0.5] * 6, 0.9])[:, None]
    true = (torch.rand(300, 8, 100, generator=g) < ends).double()
    assert torch.tensor([SPREAD.beyond_luck(right) for right in true]).mean() == pytest.approx(0.8, abs=0.02)
    assert SPREAD.beyond_luck(torch.ones(8, 24).double()) == 0  # all orders tie


def test_log_odds_are_those_of_the_normalised_probabilities():
    g = torch.Generator().manual_seed(0)
    scores, targets = torch.randn(8, 24, 5, generator=g).double(), torch.randint(5, (24,), generator=g)
    p = scores.softmax(-1)[:, range(24), targets]
    torch.testing.assert_close(SPREAD.log_odds(scores, targets), (p / (1 - p)).log())


@many
@given(
    st.lists(st.integers(0, 4), min_size=4, max_size=4), st.lists(st.integers(0, 4), min_size=5, max_size=20)
)
def test_the_measure_of_recency_is_zero_over_all_orders_for_a_model_that_ignores_them(labels, predictions):
    """The excess of the share of the last label, summed over the 24 orders of any four labels, for fixed predictions."""
    total = 0.0
    for order in itertools.permutations(range(4)):
        shares = [predictions.count(labels[i]) / len(predictions) for i in order]
        total += shares[-1] - sum(shares) / 4
    assert math.isclose(total, 0, abs_tol=1e-9)


def test_samples_of_zero_shot_are_disjoint(tokenizer):
    spec, chosen = settings_of("zero_shot")
    path = EXPERIMENTS / "zero_shot.py"
    blocks = [
        load(path, "sample", tokenizer=tokenizer, settings=chosen, seed=s).sample for s in spec.axes["seed"]
    ]
    forms = load(path, "FORMATS").FORMATS
    assert list(forms) == spec.axes["task"]
    for task in ("general-knowledge", "code-lines", "similarities", "odd-one-out", "sports"):
        drawn = [[row["id"] for row in sample(task)] for sample in blocks]
        sizes = {len(rows) for rows in drawn}
        assert len(sizes) == 1 and 8 <= sizes.pop() <= chosen.test
        assert len({key for rows in drawn for key in rows}) == sum(map(len, drawn))
        assert forms[task][1] and not forms[task][1].endswith(" ")
