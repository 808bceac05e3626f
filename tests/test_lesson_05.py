"""Lesson 05: spans, windows, span loss, decoding and SQuAD's scores equal their references; the program of C23 stops."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import default_collate
from transformers import BertConfig, BertForQuestionAnswering

from instructlab_utils import losses, metrics, models, qa, tasks, training
from instructlab_utils.errors import TrainingError

SIZES = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
SETS = ("squad", "squad-newwiki", "squad-nyt", "squad-reddit", "squad-amazon")


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer("encoder")


def tiny(size: int = 100, dtype: torch.dtype = torch.float32, seed: int = 0):
    torch.manual_seed(seed)
    config = BertConfig(vocab_size=size, num_labels=2, attn_implementation="eager", **SIZES)
    return BertForQuestionAnswering(config).eval().to(dtype)


# --- from characters to tokens and back -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_every_label_decodes_back_to_its_answer(name, tokenizer):
    """On real contexts: the tokens of the label hold the answer, and not one token more than needed."""
    rows = tasks.subsample(tasks.load(name).splits["test"], 60, 5).to_list()
    found = qa.windows(rows, tokenizer, 128, 48)
    assert {window.row for window in found} == set(range(len(rows)))
    labelled = 0
    for window in found:
        row, (first, last) = rows[window.row], window.example["labels"]
        assert len(window.example["input_ids"]) == len(window.offsets) <= 128
        begin, end = row["starts"][0], row["starts"][0] + len(row["answers"][0])
        inside = [piece for piece in window.offsets if piece is not None]
        if (first, last) == (0, 0):
            assert begin < inside[0][0] or end > inside[-1][1]
            continue
        labelled += 1
        left, right = window.offsets[first], window.offsets[last]
        assert left[0] <= begin < left[1] and right[0] < end <= right[1]
        assert row["answers"][0] in row["context"][left[0] : right[1]]
    assert labelled >= 0.9 * len(rows)


CONTEXT = "Beyoncé was born in Houston, Texas. She sang there."


@pytest.mark.parametrize(
    ("answer", "start", "there"),
    [
        ("Houston, Texas", 22, "uston, Texas. "),
        ("Houston", 21, "ouston,"),
        ("Beyoncé", 1, "eyoncé "),
        ("Houston", -30, "é was b"),
        ("Austin", 20, "Housto"),
        ("houston", 20, "Houston"),
        ("Beyonce\u0301", 0, "Beyoncé "),
        ("sang there. And", 40, "sang there."),
        ("x", 500, ""),
        ("", 3, ""),
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_an_answer_that_does_not_stand_at_its_start_is_never_a_label(tokenizer, answer, start, there, place):
    texts, starts = ["Texas"], [29]
    texts.insert(place, answer)
    starts.insert(place, start)
    good = {"question": "Where?", "context": CONTEXT, "answers": ["Texas"], "starts": [29]}
    message = re.escape(f"row 1: at character {start} stands ")
    with pytest.raises(
        TrainingError, match=f"{message}.*, not the answer {re.escape(repr(answer))}"
    ) as caught:
        qa.windows([good, good | {"answers": texts, "starts": starts}], tokenizer, 64, 8)
    assert start < 0 or repr(there) in str(caught.value)
    (window,) = qa.windows([good], tokenizer, 64, 8)
    first, last = window.example["labels"]
    assert CONTEXT[window.offsets[first][0] : window.offsets[last][1]] == "Texas"


@pytest.mark.parametrize(
    "change",
    [
        {"answers": "Texas"},
        {"starts": []},
        {"answers": [], "starts": [3]},
        {"starts": None},
        {"answers": {"text": ["Texas"], "answer_start": [29]}, "starts": None},
    ],
)
def test_a_row_in_another_form_is_one_sentence(tokenizer, change):
    row = {"question": "Where?", "context": CONTEXT, "answers": ["Texas"], "starts": [29]} | change
    row = {key: value for key, value in row.items() if value is not None}
    with pytest.raises(TrainingError, match="row 0: write question, context, answers and a start for each"):
        qa.windows([row], tokenizer, 64, 8)


def test_special_tokens_that_people_typed_are_characters(tokenizer):
    """A context that speaks of [SEP] has one border, and its answer keeps its place."""
    context = "BERT reads [CLS] first, [SEP] between two texts and [MASK] for a gap."
    row = {"question": "What is [SEP]?", "context": context, "answers": ["[SEP]"], "starts": [24]}
    (window,) = qa.windows([row], tokenizer, 64, 8)
    ids = window.example["input_ids"]
    assert ids.count(tokenizer.sep_token_id) == 2 and ids.count(tokenizer.cls_token_id) == 1
    assert tokenizer.mask_token_id not in ids
    first, last = window.example["labels"]
    assert context[window.offsets[first][0] : window.offsets[last][1]] == "[SEP]"


def test_windows_longer_than_the_models_are_refused(tokenizer):
    with pytest.raises(TrainingError, match="windows of 513 tokens: the model reads 512"):
        list(qa.cut("why?", "because " * 600, tokenizer, 513, 32))
    assert len(list(qa.cut("why?", "because " * 600, tokenizer, 512, 32))) == 2


@pytest.mark.parametrize(
    ("scores", "settings"),
    [
        (torch.tensor([[0.0, float("nan"), 1.0], [0.0, 1.0, 2.0]]), {}),
        (torch.zeros(2, 4), {}),
        (torch.zeros(3, 2), {}),
        (torch.zeros(2, 3), {"n": 0}),
        (torch.zeros(2, 3), {"max_tokens": 0}),
    ],
)
def test_scores_that_are_nan_or_do_not_fit_give_no_answer(scores, settings):
    with pytest.raises(TrainingError, match="scores of shape"):
        qa.best_spans(scores, [None, (0, 1), (2, 3)], **settings)


def test_neighbouring_windows_share_the_stride_and_cover_the_context(tokenizer):
    context = " ".join(f"word{i}" for i in range(200))
    row = {"question": "Which word?", "context": context, "answers": [], "starts": []}
    found = qa.windows([row], tokenizer, 64, 20)
    seen = [[piece for piece in window.offsets if piece is not None] for window in found]
    assert seen[0][0][0] == 0 and seen[-1][-1][1] == len(context)
    for left, right in itertools.pairwise(seen):
        assert len(set(left) & set(right)) == 20
    assert all(window.example["labels"] == [0, 0] for window in found)
    for window in found:  # the question is in all of them, whole
        assert window.example["token_type_ids"].count(0) == found[0].example["token_type_ids"].count(0)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.data())
@settings(max_examples=200, deadline=None)
def test_token_span_equals_a_search_over_all_spans(sizes, draw):
    """The shortest run of tokens that covers the characters, found by trying all of them."""
    ends = np.cumsum([size + 1 for size in sizes])  # one space after each token
    pieces = [(int(end) - 1 - size, int(end) - 1) for end, size in zip(ends, sizes, strict=True)]
    offsets = [None, None, *pieces, None]
    begin = draw.draw(st.integers(0, pieces[-1][1] - 1))
    end = draw.draw(st.integers(begin + 1, pieces[-1][1]))
    letters = {c for left, right in pieces for c in range(left, right)}
    wanted = set(range(begin, end)) & letters
    runs = [
        (e - s, s, e)
        for s in range(2, 2 + len(pieces))
        for e in range(s, 2 + len(pieces))
        if wanted and wanted <= {c for left, right in pieces[s - 2 : e - 1] for c in range(left, right)}
    ]
    assert qa.token_span(offsets, begin, end) == (min(runs)[1:] if runs else (0, 0))


def test_a_question_without_room_for_its_context_is_refused(tokenizer):
    with pytest.raises(TrainingError, match="raise max_length"):
        list(qa.cut("why " * 40, "because", tokenizer, 64, 32))


# --- the loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype,tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_span_loss_and_gradient_equal_the_library_s(dtype, tolerance):
    net = tiny(dtype=dtype)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 100, (6, 17), generator=generator)
    spans = torch.randint(0, 17, (6, 2), generator=generator)
    segments = (torch.arange(17) > 5).long().expand(6, -1)
    weights = [p for p in net.parameters() if p.requires_grad]
    theirs = net(ids, token_type_ids=segments, start_positions=spans[:, 0], end_positions=spans[:, 1])
    reference = torch.autograd.grad(theirs.loss, weights, allow_unused=True)
    output = net(ids, token_type_ids=segments)
    loss = losses.span_loss(output.start_logits, output.end_logits, spans)
    assert loss.shape == (6,) and loss.dtype == dtype
    ours = torch.autograd.grad(loss.mean(), weights, allow_unused=True)
    scale = max(g.abs().max() for g in reference if g is not None)
    assert (loss.mean() - theirs.loss).abs() <= tolerance * theirs.loss.abs()
    for mine, other in zip(ours, reference, strict=True):
        assert (mine is None) == (other is None)
        assert mine is None or (mine - other).abs().max() <= tolerance * scale


def test_the_objective_counts_two_targets_a_window():
    """train() divides by the labels that count, 2 a window: so its mean loss is the library's."""
    rows = [
        {"input_ids": [5, 6, 7, 8, 9][:n], "token_type_ids": [0, 0, 1, 1, 1][:n], "labels": [2, n - 1]}
        for n in (5, 4, 3)
    ]
    batch = training.collate_tokens(rows, 0)
    net = tiny()
    each = qa.boundary_losses(net, batch)
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    theirs = net(**inputs, start_positions=batch["labels"][:, 0], end_positions=batch["labels"][:, 1]).loss
    assert each.shape == (6,) and torch.allclose(each.mean(), theirs, rtol=1e-6)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    mean, _ = training.training_step(net, optimizer, [batch], 0.0, 1.0, qa.boundary_losses)
    assert mean == pytest.approx(theirs.item(), rel=1e-6)


def test_span_loss_refuses_shapes_that_do_not_fit():
    with pytest.raises(TrainingError, match="need"):
        losses.span_loss(torch.zeros(2, 5), torch.zeros(2, 5), torch.zeros(3, 2, dtype=torch.long))


def test_scores_come_back_in_order_and_without_padding():
    net = tiny()
    rows = [
        {"input_ids": list(range(3, 3 + n)), "token_type_ids": [0] * n, "labels": [0, 0]}
        for n in (9, 4, 12, 2)
    ]
    found = qa.span_scores(net, rows, 0, batch_size=3)
    for row, pair in zip(rows, found, strict=True):
        alone = net(torch.tensor([row["input_ids"]]))
        assert pair.shape == (2, len(row["input_ids"]))
        torch.testing.assert_close(
            pair, torch.cat([alone.start_logits, alone.end_logits]).detach(), atol=1e-5, rtol=0
        )


def test_the_span_head_depends_on_its_seed_alone():
    one, two, other = (models.load_span_model(seed=s).qa_outputs for s in (1, 1, 2))
    assert torch.equal(one.weight, two.weight) and not torch.equal(one.weight, other.weight)
    assert not one.bias.any() and one.weight.shape == (2, 384)


# --- decoding ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, 10), st.integers(1, 6), st.integers(1, 8), st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_the_joint_search_equals_trying_all_pairs(length, max_tokens, n, seed):
    rng = np.random.default_rng(seed)
    scores = torch.tensor(rng.normal(size=(2, length)))
    offsets = [(t, t + 1) if rng.random() < 0.7 else None for t in range(length)]
    pairs = [
        ((scores[0, s] + scores[1, e] - scores[0, 0] - scores[1, 0]).item(), s, e)
        for s in range(length)
        for e in range(s, min(length, s + max_tokens))
        if offsets[s] and offsets[e]
    ]
    found = qa.best_spans(scores, offsets, max_tokens, n)
    assert [span[1:] for span in found] == [span[1:] for span in sorted(pairs, reverse=True)[:n]]
    np.testing.assert_allclose(
        [x[0] for x in found], [x[0] for x in sorted(pairs, reverse=True)[:n]], atol=1e-12
    )


def test_answers_come_from_the_best_window_and_from_the_characters():
    rows = [{"context": "Ada  LOVELACE wrote it"}, {"context": "nobody"}]
    offsets = [None, (0, 3), (5, 13), (14, 19)]
    low = torch.tensor([[0.0, 1, 0, 0], [0.0, 1, 0, 0]])
    high = torch.tensor([[0.0, 2, 0, 0], [0.0, 0, 2, 0]])
    found = [
        qa.Window(0, offsets, {}),
        qa.Window(0, offsets, {}),
        qa.Window(1, [None, (0, 6)], {}),
    ]
    scores = [low, high, torch.tensor([[0.0, -3], [0.0, -3]])]
    assert qa.answer_texts(rows, found, scores) == ["Ada  LOVELACE", "nobody"]
    assert qa.answer_texts(rows, found, scores, margin=0.0) == ["Ada  LOVELACE", ""]


# --- exact match and F1 -----------------------------------------------------------------------------------------------

# A second implementation, written from the description of SQuAD's scripts: characters one by one, words counted by hand.
PUNCTUATION = set(r"""!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~""")


def reference_words(text: str) -> list[str]:
    lowered = "".join(c for c in text.lower() if c not in PUNCTUATION)
    without, last = [], 0
    for match in re.finditer(r"\b(?:a|an|the)\b", lowered):
        without += [lowered[last : match.start()], " "]
        last = match.end()
    return "".join([*without, lowered[last:]]).split()


def reference_em_f1(prediction: str, answers: list[str]) -> tuple[float, float]:
    found = []
    for answer in [each for each in answers if reference_words(each)] or [""]:  # as in version 2.0
        guess, truth = reference_words(prediction), reference_words(answer)
        left, same = list(truth), 0
        for word in guess:
            if word in left:
                left.remove(word)
                same += 1
        if not guess or not truth:
            f1 = float(guess == truth)
        elif same == 0:
            f1 = 0.0
        else:
            precision, recall = same / len(guess), same / len(truth)
            f1 = 2 * precision * recall / (precision + recall)
        found.append((float(" ".join(guess) == " ".join(truth)), f1))
    return max(em for em, _ in found), max(f1 for _, f1 in found)


WORDS = st.sampled_from(
    "the|The|a|an|Denver|denver|Broncos|4|four|don't|U.S.|–|theatre||\n|Zürich|a-b|I'm|A.|ß".split("|")
)
TEXTS = st.one_of(st.lists(WORDS, max_size=6).map(" ".join), st.text(max_size=12))


@given(TEXTS, st.lists(TEXTS, max_size=3))
@settings(max_examples=400, deadline=None)
def test_scores_equal_a_second_implementation(prediction, answers):
    assert metrics.squad_em_f1(prediction, answers) == pytest.approx(
        reference_em_f1(prediction, answers), abs=1e-12
    )


@pytest.mark.parametrize(
    "prediction,answers,em,f1",
    [
        ("the Denver Broncos!", ["Denver Broncos"], 1, 1),
        ("Broncos of Denver", ["Denver Broncos", "x"], 0, 0.8),
        ("", [], 1, 1),
        ("something", [], 0, 0),
        ("The", ["a"], 1, 1),  # no words left on either side: version 2.0 of the script
        ("b b", ["b"], 0, 2 / 3),
    ],
)
def test_scores_by_hand(prediction, answers, em, f1):
    assert metrics.squad_em_f1(prediction, answers) == pytest.approx((em, f1))


# --- claim C23 --------------------------------------------------------------------------------------------------------


def test_the_article_s_program_stops_and_could_not_print_its_result(tokenizer):
    """The decisive lines of article 004, rewritten: each repair meets the next error, and ``.2f`` cannot print 0.920."""
    net = tiny(len(tokenizer))
    texts = ["Who built it? Ada built it.", "Who burned it? Max burned it."]
    items = []
    for text, answer in zip(texts, ["ada", "max"], strict=True):
        tokens = tokenizer(text, max_length=128, padding="max_length", truncation=True, return_tensors="pt")
        label = torch.tensor([tokenizer.convert_tokens_to_ids(answer)])
        items.append({"input_ids": tokens["input_ids"], "mask": tokens["attention_mask"], "label": label})
    batch = default_collate(items)
    assert batch["input_ids"].shape == (2, 1, 128)  # the tokenizer's own batch axis is still there
    with pytest.raises(ValueError, match="too many values to unpack"):
        net(batch["input_ids"], attention_mask=batch["mask"], labels=batch["label"])
    output = net(batch["input_ids"][:, 0], attention_mask=batch["mask"][:, 0], labels=batch["label"])
    assert output.loss is None  # `labels` is no argument of this head and is ignored
    with pytest.raises(AttributeError, match="item"):
        output.loss.item()
    with pytest.raises(AttributeError, match="logits"):
        output.logits.softmax(dim=-1)
    with pytest.raises(IndexError):  # and with start_logits in its place: one axis too few
        output.start_logits.softmax(dim=-1)[:, 0].argmax(dim=1)
    for hits in range(1001):  # no accuracy prints as the article shows it
        assert f"Accuracy: {hits / 1000:.2f}" != "Accuracy: 0.920"
    # A label of the vocabulary is no position of the window, and most answers of several words are unknown.
    assert tokenizer.convert_tokens_to_ids("ada") > 128
    assert tokenizer.convert_tokens_to_ids("ada built") == tokenizer.unk_token_id
