"""The small decoder of lessons 15 to 17: its tokenizer, and samples against greedy decoding and scored log-probabilities."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from instructlab_utils import generation, preferences, small, training
from instructlab_utils.errors import ParameterError, TrainingError

WORDS = [f"w{i}" for i in range(9)]
TOKENIZER = small.word_tokenizer(WORDS)
END = TOKENIZER.eos_token_id
PROMPTS = [[3], [4, 5, 6, 7, 8], [9, 9, 3], [11, 2]]  # of different lengths: padded on the left


def net(seed=0):
    return small.small_decoder(len(TOKENIZER), width=16, window=24, std=0.3, seed=seed)


@pytest.mark.parametrize("seed", range(5))
def test_at_temperature_0_it_is_greedy_decoding(seed):
    model = net(seed)
    new, log_p = small.sample(model, PROMPTS, 8, END, temperature=0)
    assert new == generation.greedy(model, PROMPTS, 8, END) and log_p == [0.0] * 4
    assert (
        small.sample(model, PROMPTS[1:2], 8, END, temperature=0)[0] == new[1:2]
    )  # the batch changes nothing


@pytest.mark.parametrize("seed", range(5))
def test_the_log_probability_is_that_of_the_scored_answer(seed):
    """End token included, and absent where the answer was cut."""
    model = net(seed)
    new, log_p = small.sample(model, PROMPTS * 8, 6, END, generator=torch.Generator().manual_seed(seed))
    examples = preferences.answer_examples(PROMPTS * 8, new, END, 6)
    scored = preferences.answer_log_probs(model, training.collate_tokens(examples, 0))
    assert torch.tensor(log_p).allclose(scored, atol=1e-4)
    assert {len(row) == 6 for row in new} == {True, False}  # both kinds were met


def test_the_frequencies_are_the_models_own():
    model, prompt = net(1), [4, 5]
    draws, _ = small.sample(model, [prompt] * 4000, 1, END, temperature=2.0, generator=torch.Generator())
    ids = torch.tensor([row[0] if row else END for row in draws])
    p = (model(torch.tensor([prompt])).logits[0, -1] / 2).softmax(-1)
    seen = torch.bincount(ids, minlength=len(p)) / len(ids)
    assert ((seen - p).abs() < 4.5 * (p * (1 - p) / len(ids)).sqrt() + 1e-9).all()


def test_only_allowed_tokens_are_drawn_and_their_probability_is_renormalised():
    model, only = net(2), [5, 7]
    how = dict(generator=torch.Generator().manual_seed(0), allowed=lambda i, new: only if i else [END])
    new, log_p = small.sample(model, [[3], *[[4]] * 50], 1, END, **how)
    assert new[0] == [] and log_p[0] == 0.0 and {row[0] for row in new[1:]} == set(only)
    share = model(torch.tensor([[4]])).logits[0, -1, only].log_softmax(-1)
    wanted = [share[only.index(row[0])].item() for row in new[1:]]
    assert log_p[1:] == pytest.approx(wanted, abs=1e-5)


def test_what_cannot_be_sampled_is_refused():
    model = net()
    for prompts in ([], [[]], [[3] * 20]):
        with pytest.raises(ParameterError):
            small.sample(model, prompts, 8, END)
    with pytest.raises(ParameterError, match="no token is allowed for prompt 0"):
        small.sample(model, [[3]], 2, END, allowed=lambda i, new: [])
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    with pytest.raises(TrainingError, match="NaN"):
        small.sample(model, [[3]], 2, END)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=12))
def test_words_come_back(words):
    ids = TOKENIZER(" ".join(words))["input_ids"]
    assert len(ids) == len(words) and TOKENIZER.decode(ids).split() == words


@pytest.mark.parametrize("words", [["a", "a"], ["a b"], [""], ["<pad>"]])
def test_words_that_cannot_be_a_vocabulary_are_refused(words):
    with pytest.raises(ParameterError):
        small.word_tokenizer(words)


def test_an_unknown_word_is_an_error_and_no_common_token():
    with pytest.raises(Exception, match="UNK"):
        TOKENIZER("w1 elephant")


def test_the_first_values_have_the_asked_spread_and_come_from_the_seed():
    a, b, c = net(0), net(0), net(1)
    assert a.lm_head.weight.std().item() == pytest.approx(0.3, rel=0.2)
    assert a.lm_head.weight is a.get_input_embeddings().weight  # tied
    assert torch.equal(a.lm_head.weight, b.lm_head.weight) and not torch.equal(
        a.lm_head.weight, c.lm_head.weight
    )
