"""Ranking of options: packed rows with a shared prefix give what one forward pass for each pair gives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from instructlab_utils import models, scoring
from instructlab_utils.errors import ParameterError

WORD = st.text("abcdeüß .,\n", min_size=1, max_size=12)


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer("decoder")


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True, initializer_range=0.3,
    )  # fmt: skip
    return LlamaForCausalLM(config).double().eval()


def one_by_one(model, tokenizer, context: str, option: str) -> float:
    before, after = scoring.encode_pair(context, option, tokenizer)
    with torch.no_grad():
        logits = model(torch.tensor([before + after])).logits[0, len(before) - 1 : -1]
    return logits.float().double().log_softmax(-1).gather(1, torch.tensor(after)[:, None]).sum().item()


def test_encode_pair_is_lm_evals_rule(tokenizer) -> None:
    before, after = scoring.encode_pair("The answer is ", "blue sky", tokenizer)
    assert tokenizer.decode(before) == "The answer is" and tokenizer.decode(after) == " blue sky"
    for context, option, empty in (("", "x", "context"), ("  ", "x", "context"), ("a", "", "option")):
        with pytest.raises(ParameterError, match=f"the {empty} of .* has no token: write some text"):
            scoring.encode_pair(context, option, tokenizer)


@settings(max_examples=25, deadline=None)
@given(
    contexts=st.lists(WORD, min_size=1, max_size=5),
    options=st.lists(WORD, min_size=1, max_size=4),
    prefix=st.sampled_from(["", "Some words first.\n\nAnd an example: yes"]),
    max_tokens=st.sampled_from([1, 16, 64, 500]),
)
def test_packed_rows_equal_pairs_one_by_one(tokenizer, tiny, contexts, options, prefix, max_tokens) -> None:
    contexts = [f"\n\nText: {context}x" for context in contexts]
    options = [f" {option}x" for option in options]
    found = scoring.option_log_probs(
        tiny, tokenizer, contexts, [options] * len(contexts), prefix=prefix, max_tokens=max_tokens
    )
    for context, scores in zip(contexts, found, strict=True):
        lengths = [len(scoring.encode_pair(prefix + context, o, tokenizer)[1]) for o in options]
        assert scores.tokens.tolist() == lengths and scores.log_probs.dtype == torch.float64
        alone = [one_by_one(tiny, tokenizer, prefix + context, option) for option in options]
        assert scores.log_probs.tolist() == pytest.approx(alone, rel=1e-5)


def test_a_context_is_read_once_and_a_prefix_once(tokenizer, tiny, monkeypatch) -> None:
    read = []
    forward = type(tiny).forward
    monkeypatch.setattr(
        type(tiny),
        "forward",
        lambda self, ids, **kw: (read.append(ids.shape[1]), forward(self, ids, **kw))[1],
    )
    contexts = ["\n\nOne two three:", "\n\nFour five:", "\n\nSix:"]
    options = [[" a", " b c d", " e f"]] * 3
    scoring.option_log_probs(tiny, tokenizer, contexts, options, prefix="A long beginning", max_tokens=10**6)
    own = sum(len(tokenizer(context)["input_ids"]) for context in contexts)
    assert read == [len(tokenizer("A long beginning")["input_ids"]), own + 3 * (0 + 2 + 1)]


def test_what_cannot_be_scored_is_one_sentence(tokenizer, tiny) -> None:
    def score(contexts, options, **kw):
        return scoring.option_log_probs(tiny, tokenizer, contexts, options, **kw)

    with pytest.raises(ParameterError, match="2 contexts, 1 lists of options"):
        score(["a", "b"], [["c"]])
    with pytest.raises(ParameterError, match="the prefix ends in white space"):
        score(["a"], [["c"]], prefix="x ")
    with pytest.raises(ParameterError, match="has no option: give at least one"):
        score(["a"], [[]])
    with pytest.raises(ParameterError, match="falls inside a token, or nothing follows it"):
        score(["thers are"], [["c"]], prefix="No o")
    with pytest.raises(ParameterError, match="falls inside a token, or nothing follows it"):
        score([" "], [["c"]], prefix="another")


def test_rules_disagree_where_they_should() -> None:
    scores = scoring.OptionScores(torch.tensor([-3.0, -4.0, -3.5]).double(), torch.tensor([1, 4, 1]))
    base = scoring.OptionScores(torch.tensor([-1.0, -4.0, -6.0]).double(), torch.tensor([1, 4, 1]))
    assert [scoring.choose(scores), scoring.choose(scores, "mean")] == [0, 1]
    assert scoring.choose(scores, "pmi", base) == 2
    with pytest.raises(ParameterError, match="unknown rule 'max'"):
        scoring.choose(scores, "max")
    for wrong in (None, scoring.OptionScores(base.log_probs, torch.tensor([1, 1, 1]))):
        with pytest.raises(ParameterError, match="pmi needs base"):
            scoring.choose(scores, "pmi", wrong)


def test_calibration_by_hand_and_its_fixed_points() -> None:
    p = torch.tensor([[0.8, 0.2], [0.5, 0.5]]).double()
    free = torch.tensor([[0.9, 0.1], [0.7, 0.3]]).double()
    q = scoring.contextual_calibration(p.log(), free.log()).exp()
    by_hand = p / torch.tensor([0.8, 0.2])
    torch.testing.assert_close(q, by_hand / by_hand.sum(1, keepdim=True))
    torch.testing.assert_close(q[0], torch.tensor([0.5, 0.5]).double())
    even = scoring.contextual_calibration(p.log(), torch.zeros(2).double())
    torch.testing.assert_close(even.exp(), p)
    shifted = scoring.contextual_calibration(p.log() - 7, free.log() + 3)
    torch.testing.assert_close(shifted.exp(), q)
    with pytest.raises(ParameterError, match="2 options, but 3 in content_free"):
        scoring.contextual_calibration(p.log(), torch.zeros(3))


def test_the_real_decoder_packed_and_one_by_one(tokenizer) -> None:
    model = models.load_decoder()
    contexts = [f"\n\nReview: {text}\nSentiment:" for text in ("A joy.", "What a waste of time.", "Fine")]
    options = [[" positive", " negative"], [" very good indeed", " bad"], [" positive", " negative"]]
    prefix = "Review: I loved it.\nSentiment: positive"
    found = scoring.option_log_probs(model, tokenizer, contexts, options, prefix=prefix)
    for context, choices, scores in zip(contexts, options, found, strict=True):
        alone = [one_by_one(model, tokenizer, prefix + context, option) for option in choices]
        assert scores.log_probs.tolist() == pytest.approx(alone, abs=1e-4)
    assert [scoring.choose(s) for s in found[:2]] == [0, 1]


@pytest.mark.parametrize("at", [1, 2])
def test_a_split_decoder_is_the_whole_one(tiny, at: int) -> None:
    ids = torch.randint(0, 49152, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, 5:] = 0
    bottom, top = models.split_decoder(tiny, at)
    hidden = bottom(input_ids=ids, attention_mask=mask).last_hidden_state
    logits = top(inputs_embeds=hidden, attention_mask=mask).logits
    torch.testing.assert_close(logits[mask.bool()], tiny(ids, attention_mask=mask).logits[mask.bool()])
    assert top.model.layers[0] is tiny.model.layers[at] and top.lm_head.weight is tiny.lm_head.weight
    assert all(not parameter.is_meta for part in (bottom, top) for parameter in part.parameters())


def test_a_split_needs_layers_on_both_sides(tiny) -> None:
    for at in (0, 3, -1):
        with pytest.raises(ParameterError, match=f"cannot split at layer {at}: choose a number from 1 to 2"):
            models.split_decoder(tiny, at)


def test_rows_hold_what_fits() -> None:
    trees = [scoring._tree(list(range(n)), [[1]], 0) for n in (4, 4, 9, 2, 3)]
    assert list(scoring._rows(trees, 8)) == [trees[:2], trees[2:3], trees[3:]]


def test_forty_real_questions_are_ranked_as_lm_eval_ranks_them(tokenizer) -> None:
    import importlib.util
    from pathlib import Path

    from lm_eval.models.huggingface import HFLM

    path = Path(__file__).resolve().parents[1] / "benchmarks" / "bench.py"
    spec = importlib.util.spec_from_file_location("bench", path)
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    net = models.load_decoder()
    harness = HFLM(pretrained=net, tokenizer=tokenizer, batch_size=8, device="cpu", max_length=2048)
    tasks = bench.questions(8)
    ours, theirs = [], []
    for name in ("implicatures", "sports", "phrase-relatedness", "odd-one-out", "social-iqa"):
        ours += bench.ranked_by_us(net, tokenizer, tasks[name], "")
        theirs += bench.ranked_by_harness(harness, tasks[name], "")
    same, difference = bench.agreement(ours, theirs)
    assert len(ours) == 40 and same == 1 and difference < bench.AGREEMENT["log_prob"]
