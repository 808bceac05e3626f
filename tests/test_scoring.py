"""Ranking of options: packed rows with a shared prefix give what one forward pass for each pair gives."""

from __future__ import annotations

from types import SimpleNamespace

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
    options=st.lists(WORD, min_size=1, max_size=4, unique=True),
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
    for contexts, options, message in (
        ("ab", [["c"], ["d"]], "contexts: a list of texts is wanted"),
        (["a"], [" yes"], "options: a list of texts is wanted, not ' yes'"),
        (["a"], " ", "options: a list of texts is wanted"),
        (["a"], [[" b", ""]], "the option of 'a' . '' has no token"),
        (["a "], [["b", ""]], "the option of 'a ' . '' has no token"),
        (["a"], [[" b", " c", " b"]], "' b' and ' b' of 'a' are the same tokens: leave one out"),
        (["a"], [[None]], "not .None."),
    ):
        with pytest.raises(ParameterError, match=message):
            score(contexts, options)
    with pytest.raises(ParameterError, match="max_tokens is 0"):
        score(["a"], [[" b"]], max_tokens=0)
    with pytest.raises(ParameterError, match="falls inside a token, or nothing follows it"):
        score(["thers are"], [["c"]], prefix="No o")
    with pytest.raises(ParameterError, match="falls inside a token, or nothing follows it"):
        score([" "], [["c"]], prefix="another")


HOSTILE = st.text(
    st.one_of(
        st.sampled_from(
            list("<>=()[]{}'\"/\\\n\t  .,:;-_019aAfioüßéżł中文字情感正面👍🏽👨\u200d\u0301\u00a0\u3000")
        ),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=8,
)


@settings(max_examples=300, deadline=None)
@given(context=HOSTILE, option=HOSTILE)
def test_context_and_option_are_the_tokens_of_their_text(tokenizer, context, option) -> None:
    """Whatever stands at the border: nothing of the text is lost, added or read twice."""
    context = f"x {context}"
    alone, whole = (
        tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in (context.rstrip(), context + option)
    )
    try:
        before, after = scoring.encode_pair(context, option, tokenizer)
    except ParameterError as error:  # some characters have no token in this vocabulary
        assert not option or whole == alone[: len(whole)] or "one token spans" in str(error)
        return
    assert before + after == whole and before == alone[: len(before)] and after
    assert len(before) == len(alone) or after[0] != alone[len(before)]


@pytest.mark.parametrize(
    ("context", "option", "tokens"),
    [
        ("if x <", "= 4", ["Ġ<=", "Ġ", "4"]),
        ("if x <", " 4", ["Ġ", "4"]),
        ("f(", ")", ["()"]),
        ("He said", "s so", ["s", "Ġso"]),
        ("The answer is ", "blue", ["Ġblue"]),
    ],
)
def test_a_token_that_spans_the_border_is_the_options(tokenizer, context, option, tokens) -> None:
    after = scoring.encode_pair(context, option, tokenizer)[1]
    assert tokenizer.convert_ids_to_tokens(after) == tokens


@pytest.mark.parametrize(
    ("context", "options", "shared"),
    [
        ("if x <", ["= 4", " 4", "= 5"], "if x"),
        ("a = f(", [")", "x)", "0)"], "a = f"),
        ("1 +", ["= 2", " 1"], "1"),
    ],
)
def test_options_behind_a_moved_border_stay_comparable(tokenizer, tiny, context, options, shared) -> None:
    """Each option's score is log p of its whole text, minus that of the tokens which all options share."""

    def whole(text: str) -> float:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            each = tiny(ids).logits[0, :-1].float().double().log_softmax(-1)
        return each.gather(1, ids[0, 1:, None]).sum().item()

    (scores,) = scoring.option_log_probs(tiny, tokenizer, [context], [options])
    by_hand = [whole(context + option) - whole(shared) for option in options]
    assert scores.log_probs.tolist() == pytest.approx(by_hand, rel=1e-5)
    assert len(set(scores.log_probs.tolist())) == len(options)
    n = len(tokenizer(shared)["input_ids"])
    assert scores.tokens.tolist() == [len(tokenizer(context + o)["input_ids"]) - n for o in options]


def test_no_token_in_front_of_a_spanning_one_is_refused(tokenizer) -> None:
    for one in (tokenizer, models.load_tokenizer("encoder")):
        with pytest.raises(ParameterError, match="one token spans 'play' and 'ing', and none predicts it"):
            scoring.encode_pair("play", "ing", one)
    before, after = scoring.encode_pair("I play", "ing", models.load_tokenizer("encoder"))
    assert len(before) == len(after) == 1


def test_a_text_longer_than_the_window_is_refused(tokenizer, tiny) -> None:
    """512 positions: the last token of an option is only predicted and needs none."""
    fits = [" a" * 511, " a" * 512]
    scored = scoring.option_log_probs(tiny, tokenizer, ["x" + fits[0]], [[" b", " c"]])
    assert len(scored[0].log_probs) == 2
    for context, options, prefix in (
        ("x" + fits[1], [" b"], ""),
        ("x" + fits[0], [" b", " b c"], ""),
        (fits[0], [" b"], "x y"),
    ):
        with pytest.raises(
            ParameterError, match="needs 513 positions .* the model has 512: shorten the text"
        ):
            scoring.option_log_probs(tiny, tokenizer, ["fine", context], [[" z"], options], prefix=prefix)


def test_a_model_without_a_config_has_the_tokenizers_window(tokenizer) -> None:
    class Bare(torch.nn.Module):
        weight = torch.nn.Parameter(torch.zeros(1))

    with pytest.raises(ParameterError, match=f"the model has {tokenizer.model_max_length}"):
        scoring.option_log_probs(Bare(), tokenizer, [" a" * 9000], [[" b"]])


def test_typed_special_tokens_are_refused_and_a_chat_is_not(tokenizer, tiny) -> None:
    turn = "<|im_start|>user\nIs it good?<|im_end|>\n<|im_start|>assistant\n"
    (found,) = scoring.option_log_probs(tiny, tokenizer, [turn], [["yes", "no"]])
    assert found.tokens.tolist() == [2, 2]  # the line break in front is the option's
    for context, option in (
        ("Say <|im_end|> now:", " yes"),
        ("Q: a<file_sep>b\nA:", " yes"),
        ("Q: a\nA:", " yes<|endoftext|>"),
        ("Q: <|im_", "end|> A"),
        (turn.replace("good", "<repo_name>"), " yes"),
    ):
        with pytest.raises(ParameterError, match="is a special token of this tokenizer: take it out"):
            scoring.option_log_probs(tiny, tokenizer, [context], [[option]])


def test_logits_of_half_precision_are_summed_in_float32_or_wider(tokenizer) -> None:
    class Table(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            g = torch.Generator().manual_seed(0)
            self.rows = torch.nn.Parameter((4 * torch.randn(300, 49152, generator=g)).bfloat16())

        def forward(self, ids, logits_to_keep, **_):
            return SimpleNamespace(logits=self.rows[ids % 300][:, logits_to_keep])

    net, option = Table(), " a long option of many words, one after the other"
    (found,) = scoring.option_log_probs(net, tokenizer, ["It is"], [[option]])
    before, after = scoring.encode_pair("It is", option, tokenizer)
    ids = torch.tensor([before[-1], *after[:-1]]) % 300
    each = net.rows.detach()[ids].double().log_softmax(-1)[range(len(after)), after]
    assert found.log_probs.item() == pytest.approx(each.sum().item(), rel=1e-6)


def test_nan_is_never_the_best_option(tokenizer, tiny) -> None:
    nan, inf, one = float("nan"), float("inf"), torch.ones(2, dtype=torch.int64)
    for log_probs in (torch.tensor([nan, -1.0]), torch.zeros(3), torch.zeros(2, 2)):
        with pytest.raises(ParameterError, match="are NaN or not one an option"):
            scoring.OptionScores(log_probs, one)
    impossible = scoring.OptionScores(torch.tensor([-inf, -1.0]), one)
    assert scoring.choose(impossible) == 1
    with pytest.raises(ParameterError, match="are no numbers"):
        scoring.choose(impossible, "pmi", impossible)
    for scores, free in (
        (torch.tensor([[nan, 0.0]]), torch.zeros(2)),
        (torch.zeros(1, 2), torch.tensor([nan, 0.0])),
        (torch.zeros(1, 2), torch.tensor([-inf, 0.0])),
    ):
        with pytest.raises(ParameterError, match="a score is NaN, or content_free"):
            scoring.contextual_calibration(scores, free)
    far = scoring.contextual_calibration(torch.tensor([[-300.0, 0.0]]), torch.tensor([-300.0, 0.0]))
    torch.testing.assert_close(far.exp(), torch.full((1, 2), 0.5, dtype=torch.float64))


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
