"""Lesson 13: soft labels and their loss equal torch's; gradient, cache and first-order score of a trigger are right."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import jupytext
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from instructlab_repro import claims, experiments
from instructlab_utils import losses, models, training, tuners

ROOT = Path(__file__).resolve().parents[1]
LESSON = ROOT / "notebooks" / "source" / "13_prompt_search.py"
WANTED = (
    "word_ids",
    "soft_labels",
    "soft_cross_entropy",
    "first_order",
    "best_of",
    "trigger_logits",
    "trigger_loss",
)


def tiny(layers: int = 3) -> LlamaForCausalLM:
    """A small Llama in float64; transformers' own norm would compute in float32."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=1, pad_token_id=0, initializer_range=0.5, tie_word_embeddings=False,
    )  # fmt: skip
    net = LlamaForCausalLM(config).double().eval()
    for part in (*net.model.layers, net.model):
        for name in ("input_layernorm", "post_attention_layernorm", "norm"):
            if hasattr(part, name):
                setattr(part, name, nn.RMSNorm(16, eps=config.rms_norm_eps, dtype=torch.float64))
    return net.requires_grad_(False)


@pytest.fixture(scope="module")
def lesson() -> SimpleNamespace:
    """The functions of the lesson's cells, without running anything else of it."""
    net = tiny()
    space = {
        "torch": torch, "losses": losses, "training": training, "net": net, "W": net.get_output_embeddings().weight,
        "tokenizer": models.load_tokenizer("decoder"), "PAIRS": {"a": ("", [4, 9])},
    }  # fmt: skip
    for cell in jupytext.read(LESSON, fmt="py:percent").cells:
        if cell.cell_type != "code":
            continue
        for part in cell.source.split("\n\n\n"):
            if re.match(rf"(@.*\n)?def ({'|'.join(WANTED)})\(", part.lstrip("\n")):
                definition = part.lstrip("\n")
                body = re.match(r"(?:@.*\n)?def .*\n(?:(?:[ \t].*)?\n|\)[^\n]*\n)*(?:[ \t].*)?", definition)
                assert body is not None
                exec(body.group(), space)
    missing = [name for name in WANTED if name not in space]
    assert not missing, f"the lesson does not define {missing}"
    return SimpleNamespace(**{name: space[name] for name in WANTED}, space=space, net=net)


def test_a_label_needs_a_word_of_one_token(lesson) -> None:
    ids = lesson.word_ids([" terrible", " great"])
    assert [lesson.space["tokenizer"].decode(i) for i in ids] == [" terrible", " great"]
    with pytest.raises(ValueError, match="'terrible' is 2 tokens: choose a word that is one"):
        lesson.word_ids(["terrible"])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), P=st.integers(1, 4), N=st.integers(1, 5), K=st.integers(2, 4))
def test_soft_labels_and_their_loss_equal_torch(lesson, seed: int, P: int, N: int, K: int) -> None:
    g = torch.Generator().manual_seed(seed)
    s, w, z = (
        torch.randn(P, N, K, generator=g),
        0.1 + torch.rand(P, generator=g),
        torch.randn(N, K, generator=g),
    )
    q = lesson.soft_labels(s.double(), w.double(), 2.0)
    mean = sum(w[p].double() * s[p].double() for p in range(P)) / w.double().sum()
    torch.testing.assert_close(q, (mean / 2).softmax(-1))
    z = z.double().requires_grad_()
    loss = lesson.soft_cross_entropy(z, q)
    torch.testing.assert_close(loss, F.cross_entropy(z, q, reduction="none"))
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    torch.testing.assert_close(gradient, z.softmax(-1) - q)


def test_the_gradient_for_a_token_is_the_embedding_matrix_times_that_of_its_vector() -> None:
    net = tiny()
    E, text, trigger = net.get_input_embeddings().weight, torch.tensor([3, 7, 5]), torch.tensor([2, 11])

    def loss(x):
        z = net(inputs_embeds=torch.cat([E[text], x @ E])[None]).logits[0, -1, [4, 9]]
        return -torch.log_softmax(z, -1)[0]

    x = F.one_hot(trigger, 31).double()
    vectors = E[trigger].clone().requires_grad_()
    z = net(inputs_embeds=torch.cat([E[text], vectors])[None]).logits[0, -1, [4, 9]]
    (g,) = torch.autograd.grad(-torch.log_softmax(z, -1)[0], vectors)
    torch.testing.assert_close(torch.func.grad(loss)(x), g @ E.T)
    steps = 1e-5 * torch.eye(62).double().view(62, 2, 31)
    finite = torch.stack([(loss(x + s) - loss(x - s)) / 2e-5 for s in steps]).view(2, 31)
    assert (finite - g @ E.T).abs().max() < 1e-6


def test_first_order_is_exact_for_a_linear_loss(lesson) -> None:
    g = torch.Generator().manual_seed(1)
    E, slope, trigger = (
        torch.randn(9, 4, generator=g).double(),
        torch.randn(2, 4, generator=g).double(),
        [3, 8],
    )
    found = lesson.first_order(E, trigger, slope)
    assert found.shape == (2, 9)
    for place in range(2):
        for token in range(9):
            new = list(trigger)
            new[place] = token
            exact = ((E[new] - E[trigger]) * slope).sum()
            assert found[place, token] == pytest.approx(exact.item(), abs=1e-12)


def test_a_trigger_behind_the_cache_equals_one_pass(lesson, monkeypatch) -> None:
    monkeypatch.setitem(lesson.space, "word_ids", lambda words: words)
    net, texts, trigger = lesson.net, [[3, 7, 5, 12], [8, 2]], [6, 21, 14]
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    ids = torch.tensor([[3, 7, 5, 12], [8, 2, 0, 0]])
    cache = net.model(ids, attention_mask=mask, use_cache=True).past_key_values
    kept = cache, mask, torch.tensor([0, 1])
    E = net.get_input_embeddings().weight
    for _ in range(2):  # the second time shows that the cache has forgotten the trigger
        got = lesson.trigger_logits(kept, E[trigger])
        for row, text in zip(got, texts, strict=True):
            alone = net(torch.tensor([text + trigger])).logits[0, -1, [4, 9]]
            torch.testing.assert_close(row, alone)
    want = F.cross_entropy(got, kept[2])
    torch.testing.assert_close(lesson.trigger_loss(kept, E[trigger]), want)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), N=st.integers(1, 7), data=st.data())
def test_the_expected_best_of_k_is_the_mean_over_all_subsets(lesson, seed: int, N: int, data) -> None:
    k = data.draw(st.integers(1, N))
    g = torch.Generator().manual_seed(seed)
    dev, test = torch.randn(N, generator=g).tolist(), torch.rand(N, generator=g).tolist()
    kept = [test[max(chosen, key=lambda i: dev[i])] for chosen in combinations(range(N), k)]
    assert lesson.best_of(dev, test, k) == pytest.approx(sum(kept) / len(kept))


def test_tuning_the_upper_layers_leaves_the_lower_ones_and_the_kept_states_alone() -> None:
    net = tiny(4)
    bottom, top = models.split_decoder(net, at=2)
    ids = torch.tensor([[3, 7, 5, 12, 9]])
    before = bottom(input_ids=ids).last_hidden_state
    top = tuners.inject(top, tuners.Lora(r=2), seed=0)
    whole = net(ids).logits
    torch.testing.assert_close(top(inputs_embeds=before).logits, whole)
    optimizer = torch.optim.SGD(tuners.trainable(top).values(), lr=0.5)
    for _ in range(2):
        F.cross_entropy(top(inputs_embeds=before).logits[:, -1], torch.tensor([4])).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(bottom(input_ids=ids).last_hidden_state, before)
    after = top(inputs_embeds=before).logits
    assert not torch.allclose(after, whole)
    torch.testing.assert_close(net(ids).logits, after)  # the two parts share their layers with the whole


def test_the_pairs_of_the_search_are_enough_and_never_ambiguous() -> None:
    lines = (ROOT / "data" / "instructions" / "induction.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    settings_ = experiments.load("instruction_search").settings
    seeds = len(experiments.load("instruction_search").axes["seed"])
    needed = max(sum(settings_[key] for key in ("demonstrations", "dev", "test")), seeds * settings_["test"])
    assert all(len(set(texts)) == settings_["proposals"] for texts in settings_["human"].values())
    for task, sibling in settings_["siblings"].items():
        known = {row["input"]: row["answer"] for row in rows if row["task"] == task}
        other = {row["input"]: row["answer"] for row in rows if row["task"] == sibling}
        assert len(known) == sum(row["task"] == task for row in rows) >= needed
        assert known.keys() == other.keys() and all(known[x] != other[x] for x in known)


@pytest.mark.parametrize("name", ["E1", "E2", "LB1", "LB2", "AE1", "AE3"])
def test_the_claims_of_the_lesson_have_verdicts(name: str) -> None:
    assert claims.verdict(name)["verdict"] in ("supported", "refuted", "undecided")
