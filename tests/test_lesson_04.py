"""Lesson 04's hand-written functions equal the libraries': spans, span F1, decoding, alignment, masked loss."""

from __future__ import annotations

import itertools
import random
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import f1_score
from seqeval.scheme import IOB2, Entities

from instructlab_utils import metrics, models, tagging, training
from instructlab_utils.errors import DataError, TrainingError

ROOT = Path(__file__).resolve().parents[1]
LABELS = ["O", "B-a", "I-a", "B-b", "I-b"]
TAGS = st.lists(st.sampled_from(LABELS), min_size=1, max_size=8)
PAIRS = st.lists(
    st.integers(1, 8).flatmap(
        lambda n: st.tuples(*[st.lists(st.sampled_from(LABELS), min_size=n, max_size=n)] * 2)
    ),
    min_size=1,
    max_size=4,
)


def lesson_function(name, **names):
    """The function ``name`` as lesson 04 writes it, with ``names`` in reach."""
    import jupytext

    for cell in jupytext.read(ROOT / "notebooks/source/04_tokens_and_relations.py", fmt="py:percent").cells:
        if cell.cell_type == "code" and f"def {name}(" in cell.source:
            body = cell.source[cell.source.index(f"def {name}(") :].split("\n\n\n")[0]
            exec(compile(body, name, "exec"), names)  # our own source, read from this repository
            return names[name]
    raise AssertionError(f"lesson 04 does not define {name}")


@settings(max_examples=200, deadline=None)
@given(PAIRS)
def test_span_f1_is_seqevals_in_strict_mode(pairs):
    """Legal and illegal sequences alike; and without a warning where there is no span at all."""
    truth, guess = (list(side) for side in zip(*pairs, strict=True))
    by_hand = lesson_function("span_f1", spans_of=tagging.spans_of)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert metrics.span_f1(truth, guess) == pytest.approx(by_hand(truth, guess), abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(PAIRS)
def test_seqevals_default_mode_is_the_strict_one_after_the_repair(pairs):
    truth, guess = (list(side) for side in zip(*pairs, strict=True))
    repaired = [[tagging.repair(tags) for tags in side] for side in (truth, guess)]
    assert metrics.span_f1(*repaired) == pytest.approx(f1_score(truth, guess, zero_division=0), abs=1e-12)


LEGAL = ["O", "O", "B-a", "I-a", "B-b", "I-b", "B", "I", "B-", "I-", "B-a-b", "I-a-b", "B-_", "I-ż", "B-ż"]
FOREIGN = [
    "E-a",
    "S-a",
    "L-a",
    "U-a",
    "M-a",
    "E",
    "S",
    "b-a",
    "i-a",
    "o",
    "B_a",
    "Ba",
    "O-a",
    "B--a",
    "B-a-",
    "",
    "-",
    "PER",
    "OB-a",
]


def test_on_hostile_bio_tags_every_reading_is_seqevals():
    """Untyped tags, I without B, a change of type inside: strict mode, entities, and the default after the repair."""
    rng, spans, stray = random.Random(0), 0, 0
    by_hand = lesson_function("span_f1", spans_of=tagging.spans_of)
    for _ in range(2500):
        lengths = [rng.randint(0, 7) for _ in range(rng.randint(1, 3))]
        truth, guess = ([[rng.choice(LEGAL) for _ in range(n)] for n in lengths] for _ in range(2))
        if rng.random() < 0.5:
            guess = [[tag if rng.random() < 0.8 else "O" for tag in tags] for tags in truth]
        ours, found = metrics.span_f1(truth, guess), [tagging.spans_of(tags) for tags in truth]
        assert ours == pytest.approx(by_hand(truth, guess), abs=1e-12)
        if any(lengths):
            theirs = f1_score(truth, guess, mode="strict", scheme=IOB2, zero_division=0)
            assert ours == pytest.approx(float(theirs), abs=1e-12)
            repaired = [[tagging.repair(tags) for tags in side] for side in (truth, guess)]
            default = float(f1_score(truth, guess, zero_division=0))
            assert metrics.span_f1(*repaired) == pytest.approx(default, abs=1e-12)
            stray += repaired != [truth, guess]
        assert found == [[e.to_tuple()[1:] for e in sentence] for sentence in Entities(truth, IOB2).entities]
        spans += sum(map(len, found))
    assert spans > 2500 and stray > 1000


@pytest.mark.parametrize("tag", FOREIGN)
def test_tags_of_other_schemes_are_refused(tag):
    """IOBES, BILOU and misspelt ones: read as BIO they gave other spans than any library, without a word."""
    for call in (tagging.spans_of, tagging.repair, tagging.legal_transitions, tagging.conll_types):
        with pytest.raises(DataError, match="is no tag of the scheme BIO"):
            call(["O", "B-a", tag, "I-a"])
    with pytest.raises(DataError, match="is no tag of the scheme BIO"):
        metrics.span_f1([["O", "O"]], [["B-a", tag]])
    with pytest.raises(DataError, match="'BIO' is one text"):
        tagging.read_tags("BIO")


def test_the_grammar_knows_untyped_tags():
    start, transition = tagging.legal_transitions(["O", "B", "I", "B-a", "I-a"])
    assert (start == 0).tolist() == [True, True, False, True, False]
    assert (transition[:, 2] == 0).tolist() == [False, True, True, False, False]


@settings(max_examples=200, deadline=None)
@given(TAGS)
def test_spans_are_seqevals_entities(tags):
    theirs = [entity.to_tuple()[1:] for entity in Entities([tags], IOB2).entities[0]]
    assert tagging.spans_of(tags) == theirs


@settings(max_examples=200, deadline=None)
@given(TAGS)
def test_a_repaired_sequence_is_legal_and_a_legal_one_stays(tags):
    start, transition = tagging.legal_transitions(LABELS)

    def score(path):
        ids = [LABELS.index(tag) for tag in path]
        return float(start[ids[0]] + sum(transition[j, k] for j, k in itertools.pairwise(ids)))

    assert score(tagging.repair(tags)) == 0
    assert (tagging.repair(tags) == tags) == (score(tags) == 0)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4), st.integers(0, 10_000), st.booleans())
def test_viterbi_is_the_best_of_all_sequences(length, seed, free):
    """With the mask of legal transitions and with arbitrary transition scores; scores differ, so the path is unique."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(length, 5, generator=generator, dtype=torch.float64)
    start, transition = tagging.legal_transitions(LABELS)
    if free:
        start, transition = (torch.randn(shape, generator=generator) for shape in ((5,), (5, 5)))

    def total(path):
        steps = sum(float(transition[j, k]) for j, k in itertools.pairwise(path))
        return float(start[path[0]]) + steps + sum(float(scores[t, k]) for t, k in enumerate(path))

    assert tagging.viterbi(scores, start, transition) == list(
        max(itertools.product(range(5), repeat=length), key=total)
    )


def test_without_transition_scores_viterbi_is_argmax_and_ignores_a_constant_per_word():
    scores = torch.randn(30, 7, generator=torch.Generator().manual_seed(0))
    zero = torch.zeros(7), torch.zeros(7, 7)
    assert tagging.viterbi(scores, *zero) == scores.argmax(-1).tolist()
    grammar = tagging.legal_transitions(["O", "B-a", "I-a", "B-b", "I-b", "B-c", "I-c"])
    assert tagging.viterbi(scores, *grammar) == tagging.viterbi(scores.log_softmax(-1), *grammar)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 6), st.integers(0, 10_000))
def test_viterbi_changes_illegal_sequences_only(length, seed):
    scores = torch.randn(length, 5, generator=torch.Generator().manual_seed(seed))
    alone = scores.argmax(-1).tolist()
    path = tagging.viterbi(scores, *tagging.legal_transitions(LABELS))
    tags = [LABELS[k] for k in alone]
    assert (path == alone) == (tagging.repair(tags) == tags)


@pytest.mark.parametrize("m", [0, 1, 2, 9])
def test_the_number_of_forbidden_transitions_is_the_lessons_formula(m):
    labels = ["O", *(prefix + str(x) for x in range(m) for prefix in ("B-", "I-"))]
    start, transition = tagging.legal_transitions(labels)
    assert int((transition < 0).sum()) == m * (2 * m - 1)
    assert int((start < 0).sum()) == m and transition.shape == (2 * m + 1, 2 * m + 1)


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer("encoder")


def test_alignment_gives_each_word_the_piece_at_which_it_starts(tokenizer):
    """By ``char_to_token``, which knows nothing of ``word_ids``."""
    words = ["Grudziądzu", "w", "^Brukseli", "don't", "unbelievably", "."]
    encoded = tokenizer(words, is_split_into_words=True)
    aligned = tagging.align_labels(encoded.word_ids(), list(range(len(words))))
    assert len(aligned) == len(encoded["input_ids"]) > len(words) + 2
    starts = [encoded.word_to_tokens(i).start for i in range(len(words))]
    assert [i for i, label in enumerate(aligned) if label != -100] == starts
    assert [aligned[i] for i in starts] == list(range(len(words)))


def test_encode_is_aligned_and_refuses_what_would_get_lost(tokenizer):
    rows = [{"tokens": ["Grudziądzu", "!"], "tags": ["B-a", "O"]}]
    (example,) = tagging.encode(rows, tokenizer, LABELS)
    assert [label for label in example["labels"] if label != -100] == [1, 0]
    assert len(example["labels"]) == len(example["input_ids"])
    with pytest.raises(DataError, match="row 0: a word has no piece"):
        tagging.encode([{"tokens": ["a", "\u200b"], "tags": ["O", "O"]}], tokenizer, LABELS)
    with pytest.raises(DataError, match="row 0: 'B-z' is not one of the 5 labels"):
        tagging.encode([{"tokens": ["a"], "tags": ["B-z"]}], tokenizer, LABELS)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"tokens": ["a", "b"], "tags": ["O", "O", "B-a"]}, "row 1: 2 tokens and 3 tags"),
        ({"tokens": ["a", "b", "c"], "tags": ["O", "O"]}, "row 1: 3 tokens and 2 tags"),
    ],
)
def test_a_tag_for_each_token(tokenizer, row, told):
    """Tags too many were dropped silently, tags too few were an IndexError."""
    with pytest.raises(DataError, match=told):
        tagging.encode([{"tokens": ["a"], "tags": ["O"]}, row], tokenizer, LABELS)
    with pytest.raises(TypeError, match="row 0: tokens must be a list of texts, not 'ab'"):
        tagging.encode([{"tokens": "ab", "tags": ["O", "O"]}], tokenizer, LABELS)
    with pytest.raises(DataError, match="a label stands twice"):
        tagging.encode([{"tokens": ["a"], "tags": ["O"]}], tokenizer, [*LABELS, "O"])


def test_labels_at_padding_are_refused():
    short, long = {"input_ids": [1, 2], "labels": [0, 1, 1]}, {"input_ids": [1, 2, 3], "labels": [0, 1, 1]}
    assert training.collate_tokens([long], 0)["labels"].shape == (1, 3)
    with pytest.raises(TrainingError, match="more labels, or more of another list, than input_ids"):
        training.collate_tokens([short, long], 0)


def test_viterbi_refuses_what_would_broadcast_and_what_has_no_path():
    scores, start, transition = torch.zeros(4, 3), torch.zeros(3), torch.zeros(3, 3)
    assert len(tagging.viterbi(scores, start, transition)) == 4
    for wrong in (
        (scores, start[:1], transition),
        (scores, start, transition[:1]),
        (scores, start, transition[0]),
        (scores[0], start, transition),
        (scores[:0], start, transition),
    ):
        with pytest.raises(DataError, match=r"need \(T, K\), \(K,\), \(K, K\), T > 0"):
            tagging.viterbi(*wrong)
    for worst in (torch.nan, -torch.inf):
        with pytest.raises(DataError, match="no path has a score"):
            tagging.viterbi(scores, start, transition + worst)


def test_the_loss_with_ignored_pieces_is_torchs():
    """Sum over the targets divided by their number equals torch's mean, value and gradient."""
    from transformers import BertConfig, BertForTokenClassification

    torch.manual_seed(0)
    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    net = BertForTokenClassification(BertConfig(vocab_size=40, num_labels=5, **sizes)).double().eval()
    examples = [
        {"input_ids": [1, 7, 8, 9, 2], "labels": [-100, 3, -100, 0, -100]},
        {"input_ids": [1, 5, 2], "labels": [-100, 4, -100]},
    ]
    batch = training.collate_tokens(examples, pad_id=0)
    ours = training.target_losses(net, batch).sum() / (batch["labels"] != -100).sum()
    theirs = net(**batch).loss
    assert abs(ours - theirs) <= 1e-5 * abs(theirs)
    a, b = (torch.autograd.grad(loss, net.classifier.weight, retain_graph=True)[0] for loss in (ours, theirs))
    assert a.shape == b.shape and (a - b).abs().max() <= 1e-5 * b.abs().max()


def test_batches_are_those_of_transformers(tokenizer):
    from transformers import DataCollatorForTokenClassification

    rows = [
        {"tokens": ["a", "Grudziądzu"], "tags": ["O", "B-a"]},
        {"tokens": ["b"], "tags": ["O"]},
    ]
    examples = tagging.encode(rows, tokenizer, LABELS)
    theirs = DataCollatorForTokenClassification(tokenizer)([dict(e) for e in examples])
    ours = training.collate_tokens(examples, tokenizer.pad_token_id)
    for name in ("input_ids", "attention_mask", "labels"):
        assert torch.equal(ours[name], theirs[name]), name


def test_names_keep_their_borders_and_get_four_types():
    assert tagging.conll_types(["O", "B-liv", "I-liv", "B-fac", "B-pro", "I-num"]) == [
        "O", "B-PER", "I-PER", "B-LOC", "B-MISC", "I-MISC",
    ]  # fmt: skip
    with pytest.raises(TypeError, match="words must be a list of texts"):
        tagging.mark_capitals("Komisja")
    assert tagging.mark_capitals(["Komisja", "w", "Łodzi", "1", ""]) == ["^Komisja", "w", "^Łodzi", "1", ""]


def test_sentences_are_cut_marked_and_hold_a_span():
    from datasets import Dataset

    rows = [
        {"id": "a", "tokens": ["w", "Łodzi", "Anna"], "tags": ["O", "B-loc", "B-liv"]},
        {"id": "b", "tokens": ["nic", "tu", "Anna"], "tags": ["O", "O", "B-liv"]},
    ]
    task = SimpleNamespace(
        name="polish-ner",
        labels=("O", "B-liv", "I-liv", "B-loc", "I-loc"),
        splits={"dev": Dataset.from_list(rows)},
    )
    found = tagging.sentences(task, "dev", 5, 0, 2)
    assert found == [{"tokens": ["w", "^Łodzi"], "tags": ["O", "B-LOC"]}]
    assert tagging.labels_of(task) == ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def test_the_head_of_a_tagger_depends_on_the_seed_alone():
    a = models.load_tagger(3, seed=1).classifier.weight
    torch.rand(5)
    b, c = (models.load_tagger(3, seed=seed).classifier.weight for seed in (1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c) and a.shape == (3, 384)
