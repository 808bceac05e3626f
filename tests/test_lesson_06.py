"""Lesson 06: its hand-written pieces equal those of transformers, trl, sacrebleu and rouge-score."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import Counter
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import jupytext
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from instructlab_utils import generation, losses, metrics, models, tasks, training
from instructlab_utils.errors import ParameterError, TrainingError

ROOT = Path(__file__).resolve().parents[1]
LESSON = ROOT / "notebooks" / "source" / "06_causal_language_model.py"
V = 61
many = settings(max_examples=200, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def lesson() -> SimpleNamespace:
    """The definitions of the lesson's cells, without running anything else of it."""
    space = {
        "math": math,
        "re": re,
        "Counter": Counter,
        "SimpleNamespace": SimpleNamespace,
        "torch": torch,
        "nn": nn,
    }
    wanted = ("join", "visible", "Attention", "Block", "Weights", "MiniGPT", "copy_weights", "continued", "beam_search",
              "common_subsequence", "rouge_l", "ngrams", "clipped_counts", "bleu")  # fmt: skip
    for cell in jupytext.read(LESSON, fmt="py:percent").cells:
        if cell.cell_type == "code" and re.search(
            rf"^(def|class) ({'|'.join(wanted)})\b", cell.source, re.MULTILINE
        ):
            code = cell.source.split("\n\n\n")  # definitions, and below them what uses them
            kept = [part for part in code if re.match(r"@|def |class ", part.lstrip("\n"))]
            exec("\n\n\n".join(kept), space)
    return SimpleNamespace(**{name: space[name] for name in wanted})


@pytest.fixture(scope="module")
def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=V, n_positions=48, n_embd=24, n_layer=3, n_head=4, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    net = GPT2LMHeadModel(config).double()
    with torch.no_grad():  # of a size at which attention and logits are far from uniform
        for p in net.parameters():
            p.add_(
                0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()), dtype=p.dtype)
            )
    return net.eval()


@pytest.fixture(scope="module")
def mini(lesson, gpt2):
    net = lesson.MiniGPT(V, 48, d=24, heads=4, layers=3).double()
    lesson.copy_weights(gpt2, net)
    return net


def ids_of(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, V, (rows, length), generator=torch.Generator().manual_seed(seed))


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return ((a - b).abs().max() / b.abs().max()).item()


# --- the model --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padded", [0, 5])
def test_logits_and_all_gradients_are_those_of_gpt2(gpt2, mini, padded):
    ids, mask = ids_of(3, 17), torch.ones(3, 17, dtype=torch.int64)
    mask[1, 17 - padded :] = 0
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, 0] = -100
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    real = mask.bool()
    with torch.no_grad():
        ours, theirs = (net(ids, attention_mask=mask).logits[real] for net in (mini, gpt2))
    assert theirs.std() > 1 and relative(ours, theirs) < 1e-12
    for net in (mini, gpt2):
        net.zero_grad()
    predicted, targets = mini(ids, attention_mask=mask).logits[:, :-1], labels[:, 1:]
    torch.nn.functional.cross_entropy(predicted.flatten(0, 1), targets.flatten()).backward()
    loss = gpt2(**batch).loss  # in float32, whatever the model's dtype
    torch.nn.functional.cross_entropy(
        gpt2(ids, attention_mask=mask).logits[:, :-1].flatten(0, 1), targets.flatten()
    ).backward()
    assert math.isclose(generation.causal_losses(mini, batch).mean().item(), loss.item(), rel_tol=1e-5)
    for (name, theirs), ours in zip(gpt2.named_parameters(), mini.parameters(), strict=True):
        gradient = theirs.grad.T if ".c_" in name and theirs.ndim == 2 else theirs.grad
        assert relative(ours.grad, gradient) < 1e-10, name


def test_the_cache_changes_nothing_and_equals_the_library_s(gpt2, mini, lesson):
    ids = ids_of(2, 9)
    (a, z_a, n_a), (b, z_b, n_b) = (lesson.continued(mini, ids, 10, cached) for cached in (False, True))
    assert torch.equal(a, b) and relative(z_b, z_a) < 1e-10
    assert (n_a, n_b) == (sum(range(9, 19)), 18)
    whole, step = gpt2(ids[:, :6], use_cache=True), mini(ids[:, :6])
    theirs = gpt2(ids[:, 6:], past_key_values=whole.past_key_values).logits
    assert relative(mini(ids[:, 6:], past=step.past).logits, theirs) < 1e-10


def test_left_padding_and_packing_are_invisible(mini):
    one, two = ids_of(1, 7, 1), ids_of(1, 5, 2)
    alone = torch.cat([mini(one).logits[0], mini(two).logits[0]])
    row, text = torch.cat([one, two], 1), torch.tensor([[0] * 7 + [1] * 5])
    places = torch.cat([torch.arange(7), torch.arange(5)])[None]
    packed = mini(row, attention_mask=text[:, :, None] == text[:, None, :], places=places).logits[0]
    assert relative(packed, alone) < 1e-10
    assert relative(mini(row).logits[0][7:], alone[7:]) > 1e-3  # the leak that blocks repair
    left = torch.cat([torch.zeros(1, 3, dtype=torch.int64), two], 1)
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]])
    places = (mask.cumsum(1) - 1).clamp(min=0)
    logits = mini(left, attention_mask=mask, places=places).logits
    assert not logits.isnan().any() and relative(logits[0, 3:], alone[7:]) < 1e-10


def test_an_untrained_model_costs_ln_v(lesson):
    torch.manual_seed(0)
    net = lesson.MiniGPT(V, 48, d=24, heads=4, layers=2)
    ids = ids_of(8, 30)
    labels = ids.clone()
    labels[:, 0] = -100
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    assert abs(generation.causal_losses(net, batch).mean().item() - math.log(V)) < 0.05


# --- losses -----------------------------------------------------------------------------------------------------


def random_batch(seed: int, rows: int = 3, length: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(rows, length, V, generator=generator, dtype=torch.float64)
    labels = torch.randint(V, (rows, length), generator=generator)
    for row in range(rows):
        begin = int(torch.randint(1, length, (), generator=generator))
        labels[row, :begin] = -100
        labels[row, int(torch.randint(begin + 1, length + 1, (), generator=generator)) :] = -100
    return logits, labels


@many
@given(st.integers(0, 2**31))
def test_sequence_log_probs_sum_what_torch_gives_per_token(seed):
    logits, labels = random_batch(seed)
    logits.requires_grad_(True)
    per_token = -torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none"
    )
    ours, lengths = losses.sequence_log_probs(logits, labels), (labels != -100).sum(1)
    assert torch.allclose(ours, per_token.sum(1)) and (ours <= 0).all()
    assert torch.allclose(losses.sequence_losses(logits, labels), -per_token.sum(1) / lengths)
    weights = torch.arange(1.0, len(labels) + 1, dtype=torch.float64)
    gradients = [
        torch.autograd.grad((weights * x).sum(), logits, retain_graph=True)[0]
        for x in (ours, per_token.sum(1))
    ]
    assert relative(*gradients) < 1e-12


@pytest.mark.parametrize("function", [losses.sequence_log_probs, losses.sequence_losses])
def test_a_row_without_a_response_is_an_error_with_its_place(function):
    logits, labels = random_batch(0)
    labels[1] = -100
    labels[1, 0] = 5  # nothing predicts the first position
    with pytest.raises(TrainingError, match="row 1 has no label"):
        function(logits, labels)


def test_infinite_logits_where_nothing_counts_do_no_harm():
    logits, labels = random_batch(1)
    expected = losses.sequence_log_probs(logits, labels)
    spoiled = logits.clone()
    spoiled[:, -1] = -math.inf
    assert torch.equal(losses.sequence_log_probs(spoiled, labels), expected)


@many
@given(st.integers(0, 2**31), st.sampled_from([0.1, 1.0, 30.0]))
def test_entropy_is_that_of_torch_s_categorical(seed, scale):
    logits = scale * torch.randn(4, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    reference = torch.distributions.Categorical(logits=logits).entropy()
    assert torch.allclose(losses.entropy(logits), reference, atol=1e-12)


def test_entropy_at_its_ends_and_with_excluded_tokens():
    assert math.isclose(losses.entropy(torch.zeros(7)).item(), math.log(7), rel_tol=1e-6)
    filtered = torch.tensor([1.0, 1.0, -math.inf], requires_grad=True)
    value = losses.entropy(filtered)
    assert math.isclose(value.item(), math.log(2), rel_tol=1e-6)
    assert losses.entropy(torch.tensor([5.0, -math.inf])) == 0


class Words:
    """A tokenizer for tests: a token is a word, its id the word's length; the end is 0."""

    eos_token_id = 0

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [len(word) for word in text.split()]}


def test_labels_of_prompt_and_completion():
    ids = [1, 2, 3, 4, 0]
    only = generation.encode_completion("a bb", "ccc dddd", Words())
    assert only == {"input_ids": ids, "labels": [-100, -100, 3, 4, 0]}
    everything = generation.encode_completion("a bb", "ccc dddd", Words(), completion_only=False)
    assert everything == {"input_ids": ids, "labels": [-100, 2, 3, 4, 0]}
    with pytest.raises(TrainingError, match="the prompt is empty"):
        generation.encode_completion(" ", "ccc", Words())


def test_a_label_that_nothing_predicts_and_a_batch_without_labels_are_errors(mini):
    ids = ids_of(2, 5)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    with pytest.raises(TrainingError, match="position 0 has a label"):
        generation.causal_losses(mini, batch)
    empty = batch | {"labels": torch.full_like(ids, -100)}
    optimizer = torch.optim.SGD(mini.parameters(), lr=0.0)
    with pytest.raises(TrainingError, match="-100"):
        training.training_step(mini, optimizer, [empty], 0.0, 1.0, generation.causal_losses)


def test_accumulation_equals_the_full_batch(mini):
    rows = [
        {"input_ids": ids_of(1, n, n)[0].tolist(), "labels": [-100] * 2 + ids_of(1, n, n)[0].tolist()[2:]}
        for n in (4, 5, 19, 20)
    ]
    whole = training.collate_tokens(rows, 0)
    parts = [training.collate_tokens(rows[:1], 0), training.collate_tokens(rows[1:], 0)]
    found = []
    for micro in ([whole], parts):
        mini.zero_grad()
        keep = torch.optim.SGD(mini.parameters(), lr=0.0)
        keep.zero_grad = lambda *args: None  # type: ignore[method-assign]
        loss, _ = training.training_step(mini, keep, micro, 0.0, math.inf, generation.causal_losses)
        found.append((loss, torch.cat([p.grad.flatten() for p in mini.parameters()])))
    mini.zero_grad()
    assert math.isclose(found[0][0], found[1][0], rel_tol=1e-6) and relative(found[1][1], found[0][1]) < 1e-5


@pytest.mark.parametrize("completion_only", [True, False])
def test_labels_loss_and_gradients_are_those_of_trl(tmp_path, completion_only):
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    names = ["<end>", "<unknown>", "name", "area", "pub", "river", "the", "is", "a", "by", ":", "."]
    core = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unknown>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<end>", pad_token="<end>", unk_token="<unknown>"
    )
    pairs = [("name : a pub", " the pub is a pub ."), ("area : river name : pub", " by the river .")]
    torch.manual_seed(0)
    net = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(names), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, pad_token_id=0, eos_token_id=0, bos_token_id=0,
    ))  # fmt: skip
    arguments = SFTConfig(
        str(tmp_path), per_device_train_batch_size=2, bf16=False, gradient_checkpointing=False, use_cpu=True,
        report_to="none", completion_only_loss=completion_only,
    )  # fmt: skip
    rows = Dataset.from_list([{"prompt": p, "completion": c} for p, c in pairs])
    trainer = SFTTrainer(net, arguments, train_dataset=rows, processing_class=tokenizer)
    theirs = trainer.data_collator([trainer.train_dataset[i] for i in range(2)])
    ours = training.collate_tokens(
        [generation.encode_completion(*pair, tokenizer, completion_only) for pair in pairs], 0
    )
    assert torch.equal(ours["input_ids"], theirs["input_ids"])
    counted = slice(1, None)  # trl labels position 0 too; its loss never sees it
    assert torch.equal(ours["labels"][:, counted], theirs["labels"][:, counted])
    a, b = generation.causal_losses(net, ours).mean(), trainer.compute_loss(net, dict(theirs))
    assert math.isclose(a.item(), b.item(), rel_tol=1e-5)
    for mine, other in zip(
        *(torch.autograd.grad(loss, list(net.parameters())) for loss in (a, b)), strict=True
    ):
        assert relative(mine, other) < 1e-5


# --- decoding ---------------------------------------------------------------------------------------------------


def reference(net, prompt: list[int], **how) -> list[int]:
    ids = torch.tensor([prompt])
    out = net.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=14, do_sample=False, pad_token_id=0, **how
    )
    return out[0].tolist()


@pytest.mark.parametrize("seed", range(6))
def test_greedy_and_beam_search_give_the_ids_of_generate(gpt2, mini, lesson, seed):
    prompts = [ids_of(1, n, 10 * seed + n)[0].tolist() for n in (2, 9, 5)]
    end = reference(gpt2, prompts[0], eos_token_id=V)[
        5
    ]  # a token that does occur, so that rows end at different times
    gpt2.generation_config.eos_token_id = end
    for prompt, answer in zip(prompts, generation.greedy(gpt2, prompts, 14, end), strict=True):
        theirs = reference(gpt2, prompt, eos_token_id=end)[len(prompt) :]
        assert answer == (theirs[: theirs.index(end)] if end in theirs else theirs)
    for prompt in prompts:
        for beams in (2, 3, 5):
            theirs = reference(gpt2, prompt, eos_token_id=end, num_beams=beams)
            assert lesson.beam_search(mini, prompt, beams, 14, end)[0] == theirs, (beams, end)


@many
@given(
    st.integers(0, 2**31),
    st.integers(1, 30),
    st.sampled_from([0.01, 0.2, 0.5, 0.9, 0.999, 1.0]),
    st.sampled_from([0.3, 1.0, 5.0]),
)
def test_filters_leave_the_distributions_of_transformers(seed, k, p, scale):
    logits = scale * torch.randn(3, 23, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    top, nucleus = generation.top_k_filter(logits, k), generation.nucleus_filter(logits, p)
    assert torch.allclose(top.softmax(-1), TopKLogitsWarper(k)(None, logits).softmax(-1), atol=1e-12)
    theirs = TopPLogitsWarper(p)(None, logits) if p < 1 else logits
    assert torch.allclose(nucleus.softmax(-1), theirs.softmax(-1), atol=1e-9)
    assert ((nucleus > -math.inf).sum(-1) >= 1).all()


@pytest.mark.parametrize(
    ("function", "value"), [("top_k_filter", 0), ("nucleus_filter", 0.0), ("nucleus_filter", 1.5)]
)
def test_filters_refuse_what_would_leave_nothing(function, value):
    with pytest.raises(ParameterError, match="choose"):
        getattr(generation, function)(torch.zeros(1, 4), value)


# --- scores -----------------------------------------------------------------------------------------------------

WORDS = st.lists(
    st.sampled_from("the pub is a by near river. not very Café friendly it's".split()), max_size=12
).map(" ".join)


@many
@given(st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3)), min_size=1, max_size=4))
def test_bleu_by_hand_is_sacrebleu_s(lesson, rows):
    import sacrebleu

    texts, references = [text for text, _ in rows], [list(found) for _, found in rows]
    streams = [[r[j] if j < len(r) else None for r in references] for j in range(max(map(len, references)))]
    theirs = sacrebleu.corpus_bleu(texts, streams, tokenize="none").score
    assert math.isclose(lesson.bleu(texts, references), theirs, rel_tol=1e-9, abs_tol=1e-9)


@many
@given(WORDS, WORDS)
def test_rouge_l_by_hand_is_that_of_rouge_score(lesson, text, other):
    from rouge_score.rouge_scorer import RougeScorer

    theirs = RougeScorer(["rougeL"]).score(other, text)["rougeL"].fmeasure
    assert math.isclose(lesson.rouge_l(text, other), theirs, abs_tol=1e-12)
    assert math.isclose(metrics.rouge_l([text], [[other]]), theirs, abs_tol=1e-12)


def test_scores_call_their_libraries_and_take_the_best_reference():
    texts, references = (
        ["the pub is near the river", "a cheap pub"],
        [["no match here", "the pub is by the river"], ["a cheap pub"]],
    )
    assert metrics.bleu(["a b c d e"], [["a b c d e"]]) == pytest.approx(100)
    assert metrics.chrf(["a b c d e"], [["a b c d e"]]) == pytest.approx(100)
    assert metrics.rouge_l(texts, references) == pytest.approx((10 / 12 + 1) / 2)
    assert 0 < metrics.bleu(texts, references) < 100 and 0 < metrics.chrf(texts, references) < 100
    for score in (metrics.bleu, metrics.chrf, metrics.rouge_l):
        with pytest.raises(ValueError, match="one non-empty list for each text"):
            score(texts, [["one"], []])


def test_joining_by_hand_gives_the_ids_of_the_library_on_ten_thousand_texts(lesson):
    tokenizer = models.load_tokenizer("decoder").backend_tokenizer
    found = json.loads(tokenizer.to_str())["model"]
    pairs = (tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in found["merges"])
    rank, vocabulary = {pair: n for n, pair in enumerate(pairs)}, found["vocab"]

    @cache
    def ids(word: str) -> list[int]:
        pieces = tuple(word)
        while known := {pair for pair in itertools.pairwise(pieces) if pair in rank}:
            pieces = lesson.join(pieces, min(known, key=rank.__getitem__))
        return [vocabulary[piece] for piece in pieces]

    texts = [text for row in tasks.load("e2e").splits["train"] for text in row["targets"]]
    for name in ("movie-sentiment", "tweet-sentiment", "editorial-sentiment", "bbc-topics"):
        texts += [row["text"] for rows in tasks.load(name).splits.values() for row in rows]
    texts += ["", " ", "naïve café, 12.50 €", "\t\n  tabs", "数学 🙂", "don't DON'T"]
    assert len(set(texts)) >= 10_000
    for text in texts:
        words = tokenizer.pre_tokenizer.pre_tokenize_str(text)
        assert [i for word, _ in words for i in ids(word)] == tokenizer.encode(
            text, add_special_tokens=False
        ).ids
