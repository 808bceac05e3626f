"""Lesson 21: attributions against closed forms and captum, planted words, exchanged states, effects from tables."""

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from lessons import defined
from torch import nn

from instructlab_utils import attribution, interventions, models, small, training
from instructlab_utils.arguments import array
from instructlab_utils.errors import ParameterError
from instructlab_utils.interventions import CUES

effects = defined("21", "difference", "back_door", array=array, ParameterError=ParameterError)


class Net(nn.Module):
    """Embeddings, a mean over the real tokens, a hidden layer, three logits."""

    def __init__(self, kind=torch.float64, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.words, self.inner, self.outer = nn.Embedding(20, 6), nn.Linear(6, 8), nn.Linear(8, 3)
        self.to(kind)

    def get_input_embeddings(self):
        return self.words

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None):
        x = self.words(input_ids) if inputs_embeds is None else inputs_embeds
        m = attention_mask[..., None].to(x.dtype)
        return SimpleNamespace(
            logits=self.outer(torch.tanh((torch.tanh(self.inner(x)) * m).sum(1) / m.sum(1)))
        )


def asked(kind=torch.float64):
    """A score for three padded texts, the embedded texts, a baseline, mask and classes."""
    net = Net(kind)
    rows = [[1, 2, 3, 4, 5], [6, 7, 8], [9]]
    batch = training.collate([{"input_ids": row, "labels": 0} for row in rows], 0)
    mask, says = batch["attention_mask"], torch.tensor([0, 1, 2])
    x = net.get_input_embeddings()(batch["input_ids"]).detach()
    return net, attribution.log_odds(net, mask, says), x, torch.zeros_like(x), mask, says


# --- gradients ----------------------------------------------------------------------------------------------------------


def test_log_odds_are_those_of_the_class_against_all_others():
    net, score, x, _, mask, says = asked()
    p = net(inputs_embeds=x, attention_mask=mask).logits.softmax(1)[range(3), says]
    assert (score(x) - torch.logit(p)).abs().max() < 1e-12


@pytest.mark.parametrize("steps", [2, 3, 20])  # captum refuses one
@pytest.mark.parametrize(
    ("rule", "name"), [("midpoint", "riemann_middle"), ("gauss", "gausslegendre"), ("trapezoid", None)]
)
def test_integrated_gradients_are_captums(steps, rule, name):
    net, score, x, base, mask, says = asked()
    ours = attribution.integrated_gradients(score, x, base, steps, rule)
    if name is None:  # captum's trapezoid has other points; ours is the mean of left and right
        parts = [attribution.integrated_gradients(score, x, base, steps, side) for side in ("left", "right")]
        assert (ours - sum(parts) / 2).abs().max() < 1e-12
        return
    method = IntegratedGradients(lambda x, m, c: attribution.log_odds(net, m, c)(x))
    theirs = method.attribute(x, base, None, (mask, says), n_steps=steps, method=name).sum(-1)
    assert (ours - theirs).abs().max() < 1e-7  # captum holds the weights in float32


@pytest.mark.parametrize(("kind", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_lower_precision_is_near(kind, near):
    _, score, x, base, *_ = asked(kind)
    net, *_ = asked()
    net.load_state_dict(Net(kind).state_dict())
    exact = attribution.log_odds(net, *asked()[4:])
    want = attribution.integrated_gradients(exact, x.double(), base.double(), 8)
    got = attribution.integrated_gradients(score, x, base, 8)
    assert got.dtype == kind and (got.double() - want).abs().max() < near


def test_a_linear_score_is_shared_exactly_by_every_method():
    w = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1)).double()
    x, base = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(2)).double()
    score = lambda z: (z * w).sum((1, 2))  # noqa: E731
    want = ((x - base) * w).sum(-1)
    assert (attribution.gradient_times_input(score, x, base) - want).abs().max() < 1e-12
    for rule in ("left", "right", "midpoint", "trapezoid", "gauss"):
        got = attribution.integrated_gradients(score, x, base, 2, rule)
        assert (got - want).abs().max() < 1e-12
        assert attribution.completeness_error(score, x, base, got).max() < 1e-12


@pytest.mark.parametrize("n", [1, 2, 5])
def test_rules_integrate_polynomials_of_their_degree(n):
    degrees = {"left": 0, "right": 0, "midpoint": 1, "trapezoid": 1, "gauss": 2 * n - 1}
    for rule, degree in degrees.items():
        points, weights = attribution.quadrature(n, rule)
        assert weights.sum() == pytest.approx(1)
        for power in range(degree + 1):
            assert weights @ points**power == pytest.approx(1 / (power + 1))


def test_the_midpoint_rule_falls_with_the_square_and_padding_explains_nothing():
    _, score, x, base, mask, _ = asked()
    found = [attribution.integrated_gradients(score, x, base, m) for m in (8, 16, 32)]
    errors = [attribution.completeness_error(score, x, base, a).mean().item() for a in found]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.2) and errors[1] / errors[2] == pytest.approx(
        4, rel=0.1
    )
    assert (found[-1][mask == 0] == 0).all()


def test_sensitivity_where_a_gradient_is_zero():
    flat = lambda z: 1 - torch.relu(1 - z[:, 0, 0])  # noqa: E731
    two = torch.full((1, 1, 1), 2.0, dtype=torch.float64)
    assert attribution.gradient_times_input(flat, two, 0 * two).item() == 0
    assert attribution.integrated_gradients(flat, two, 0 * two, 100).item() == pytest.approx(1)


@pytest.mark.parametrize("steps", [0, -1, 2.0, "8"])
def test_steps_that_make_no_sense(steps):
    with pytest.raises(ParameterError, match="whole number from 1"):
        attribution.quadrature(steps)


def test_unknown_names_are_one_sentence():
    net, _, x, *_ = asked()
    with pytest.raises(ParameterError, match="choose left"):
        attribution.quadrature(3, "simpson")
    with pytest.raises(ParameterError, match="choose one of pad"):
        attribution.baseline(net, x, torch.zeros(3, 5), "unk", None)
    with pytest.raises(ParameterError, match="choose gradient"):
        attribution.explain("lime", net, [["a"]], None, 8)


# --- words --------------------------------------------------------------------------------------------------------------


def test_words_and_their_tokens():
    tokenizer = models.load_tokenizer("encoder")
    words = ["i", "love", "zorblat", "[SEP]", "naïve", "!"]
    (example,) = attribution.encode_words([words], tokenizer, 40)
    whole = tokenizer(" ".join(words), split_special_tokens=True)["input_ids"]
    assert example["input_ids"] == whole and example["words"] == words
    assert example["input_ids"].count(tokenizer.sep_token_id) == 1
    assert example["places"][0] == example["places"][-1] == -1 and len(example["places"]) == len(whole)
    short, empty = attribution.encode_words([words, []], tokenizer, 6)
    assert short["words"] == ["i", "love"] and len(short["input_ids"]) == 4  # zorblat has four pieces
    assert empty["words"] == [] and len(empty["input_ids"]) == 2
    with pytest.raises(TypeError, match="list of texts"):
        attribution.encode_words(["a text"], tokenizer, 6)


def test_sums_over_words_keep_the_total():
    a = torch.arange(12, dtype=torch.float64).reshape(2, 6)
    first, second = attribution.by_word(a, [[-1, 0, 0, 1, 2, -1], [-1, -1]])
    assert first.tolist() == [3, 3, 4] and len(second) == 0


@pytest.mark.parametrize("kind", attribution.BASELINES)
def test_a_baseline_keeps_what_it_must(kind):
    net = Net()
    tokens = SimpleNamespace(pad_token_id=0, mask_token_id=4)
    x, kept = torch.randn(2, 3, 6, dtype=torch.float64), torch.tensor([[1, 0, 1], [0, 0, 1]])
    base, table = attribution.baseline(net, x, kept, kind, tokens), net.words.weight.detach()
    want = {"pad": table[0], "mask": table[4], "zero": 0 * table[0], "mean": table.mean(0)}[kind]
    assert torch.equal(base[kept == 1], x[kept == 1]) and (base[kept == 0] == want).all()


def reader(told):
    return torch.tensor(
        [[1 - p, p] for p in (1 / (1 + np.exp(-len(set(w) & {"a", "b"}) + 0.5 * len(w))) for w in told)]
    )


def test_occlusion_deletion_and_insertion_against_loops():
    words = ["a", "c", "b", "d"]
    odds = lambda w: torch.logit(reader([w])[0, 1]).item()  # noqa: E731
    want = [odds(words) - odds(words[:i] + words[i + 1 :]) for i in range(4)]
    assert attribution.occlusion(reader, words, 1).tolist() == pytest.approx(want)
    assert attribution.ranked(torch.tensor([1.0, 3.0, 1.0, -2.0])) == [1, 0, 2, 3]
    for order in itertools.permutations(range(4)):
        gone = [[w for i, w in enumerate(words) if i not in order[:k]] for k in range(5)]
        assert attribution.deletion_curve(reader, words, order, 1).tolist() == reader(gone)[:, 1].tolist()
        there = [[w for i, w in enumerate(words) if i in order[:k]] for k in range(5)]
        back = attribution.deletion_curve(reader, words, order[::-1], 1).flip(0)  # the insertion curve
        assert back.tolist() == reader(there)[:, 1].tolist()
    assert attribution.deletion_curve(reader, [], [], 1).shape == (1,)
    for bad in ([0, 1], [0, 0, 1, 2], [1, 2, 3, 4]):
        with pytest.raises(ParameterError, match="each of the 4 places once"):
            attribution.deletion_curve(reader, words, bad, 1)


# --- planted words --------------------------------------------------------------------------------------------------------


def test_a_planted_word_stands_anywhere_and_nothing_else_changes():
    rng, places = random.Random(0), set()
    for _ in range(200):
        found = interventions.plant(["x", "y"], "q", rng)
        places.add(found.index("q"))
        assert [w for w in found if w != "q"] == ["x", "y"]
    assert places == {0, 1, 2} and interventions.plant([], "q", rng) == ["q"]
    both, one = interventions.plant_pair(["x"], rng)
    assert set(CUES) <= set(both) and len(both) == 3 and sum(w in CUES for w in one) == 1 and "x" in one
    with pytest.raises(TypeError, match="list of texts"):
        interventions.plant("a text", "q", rng)


def test_cues_have_their_strength_and_an_exchange_is_its_own_inverse():
    labels = [i % 2 for i in range(4000)]
    told = interventions.plant_cues([["x"]] * 4000, labels, 0.9, random.Random(1))
    agree = np.mean([CUES[y] in w for w, y in zip(told, labels, strict=True)])
    assert agree == pytest.approx(0.9, abs=0.02)
    for words in told[:20]:
        other = interventions.exchange_cue(words)
        assert other != words and interventions.exchange_cue(other) == words
    for bad in (["x"], [*CUES], [CUES[0], CUES[0]]):
        with pytest.raises(ParameterError, match="exactly one of"):
            interventions.exchange_cue(bad)
    with pytest.raises(ValueError, match="from 0 to 1"):
        interventions.plant_cues([["x"]], [0], 1.2, random.Random(1))


def test_weights_make_label_and_cue_independent():
    labels, cues = [0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1, 0]
    w = interventions.balancing_weights(labels, cues)
    sums = {
        (y, c): sum(v for v, *key in zip(w, labels, cues, strict=True) if key == [y, c])
        for y in (0, 1)
        for c in (0, 1)
    }
    assert sums == pytest.approx({(0, 0): 2, (0, 1): 2, (1, 0): 1.5, (1, 1): 1.5})
    with pytest.raises(ParameterError, match="no row with label 1 has the cue 0"):
        interventions.balancing_weights([0, 0, 1], [0, 1, 1])


def test_weighted_losses_are_the_losses_times_the_weight():
    net = Net()
    batch = training.collate([{"input_ids": [1, 2], "labels": 0}, {"input_ids": [3], "labels": 2}], 0)
    heavy = batch | {"weight": torch.tensor([[2.0], [0.5]], dtype=torch.float64)}
    assert torch.equal(
        interventions.weighted_losses(net, heavy), training.target_losses(net, batch) * heavy["weight"][:, 0]
    )


# --- states -----------------------------------------------------------------------------------------------------------------


def decoder():
    task = interventions.TableTask(numbers=4, steps=3, depth=2, seed=1)
    return task, small.small_decoder(task.vocabulary, width=16, layers=2, heads=2, std=0.2)


def test_the_table_task():
    task, _ = decoder()
    assert len(task.items) == len(set(task.items)) == 4 * 9
    for item in task.items:
        x, f, g = item
        assert task.trail(item) == [x, task.tables[f][x], task.tables[g][task.tables[f][x]]]
    ids, trails = task.tensors(task.items[:5])
    example = task.examples(task.items[:1])[0]
    assert ids[0].tolist() == example["input_ids"] and example["labels"] == [
        -100,
        *(3 + trails[0, 1:]).tolist(),
    ]
    assert int(ids.max()) < task.vocabulary and int(ids.min()) >= 3


def test_layers_hand_out_what_transformers_does_and_the_lens_ends_in_the_logits():
    task, net = decoder()
    ids, _ = task.tensors(task.items[:6])
    with torch.no_grad():
        out = net(input_ids=ids, output_hidden_states=True)
    states = interventions.layer_outputs(net, ids)
    assert len(states) == 2 and torch.equal(states[0], out.hidden_states[1])
    assert torch.equal(net.lm_head(net.model.norm(states[-1])), out.logits)


def test_patching_a_run_with_itself_changes_nothing_and_the_hook_goes():
    task, net = decoder()
    ids, _ = task.tensors(task.items[:6])
    with torch.no_grad():
        before, states = net(input_ids=ids).logits, interventions.layer_outputs(net, ids)
        for layer, place in itertools.product((1, 2), range(3)):
            with interventions.patched(net, layer, place, states[layer - 1][:, place]):
                assert torch.equal(net(input_ids=ids).logits, before)
        with pytest.raises(RuntimeError, match="mine"), interventions.patched(net, 1, 0, 0 * states[0][:, 0]):
            assert not torch.equal(net(input_ids=ids).logits, before)
            raise RuntimeError("mine")
        assert torch.equal(net(input_ids=ids).logits, before)
        with (
            pytest.raises(ParameterError, match="layer is 3"),
            interventions.patched(net, 3, 0, states[0][:, 0]),
        ):
            pytest.fail("a layer that is not there was patched")
        with (
            pytest.raises(ParameterError, match="places 0 to 2"),
            interventions.patched(net, 1, 5, states[0][:, 0]),
        ):
            net(input_ids=ids)
        assert torch.equal(net(input_ids=ids).logits, before)


def test_the_map_against_whole_runs():
    task, net = decoder()
    items, donors = task.items[:7], task.items[7:14]
    (ids, _), (other, _) = task.tensors(items), task.tensors(donors)
    found = interventions.patching_map(net, ids, other, lambda z: z[:, 4])
    with torch.no_grad():
        own, theirs = net(input_ids=ids).logits[:, -1, 4], net(input_ids=other).logits[:, -1, 4]
    assert (
        found[:, -1, :-1] - own[:, None]
    ).abs().max() < 1e-6  # after the last layer only the last place is read
    assert (found[:, -1, -1] - theirs).abs().max() < 1e-6
    shares = interventions.moved_shares(net, task, items, donors)
    assert shares.shape == (2, 3) and ((0 <= shares) & (shares <= 1)).all()
    assert interventions.moved_shares(net, task, items, items).sum() == 0  # nothing new to say


# --- effects ----------------------------------------------------------------------------------------------------------------


def test_effects_of_a_small_table_by_hand():
    t, y, z = [1, 1, 1, 0, 1, 0, 0, 0], [5.0, 7, 6, 4, 1, 1, 0, 2], ["a"] * 4 + ["b"] * 4
    t, y, z = np.array(t), np.array(y), np.array(z)
    assert effects.difference(t, y) == pytest.approx(19 / 4 - 7 / 4)
    assert effects.back_door(t, y, z) == pytest.approx(0.5 * (6 - 4) + 0.5 * (1 - 1))
    assert effects.back_door(t, y, np.zeros(8)) == pytest.approx(effects.difference(t, y))


def test_back_door_finds_the_effect_where_the_naive_difference_does_not():
    draw = np.random.default_rng(0)
    z = draw.integers(0, 3, 60_000)
    t = (draw.random(len(z)) < (z + 1) / 5).astype(int)
    y = 2 * t + 5 * z + draw.normal(size=len(z))
    assert effects.difference(t, y) > 3
    assert effects.back_door(t, y, z) == pytest.approx(2, abs=0.05)


def test_tables_without_a_comparison():
    with pytest.raises(ParameterError, match="groups is empty"):
        effects.difference([1, 1], [1.0, 2.0])
    with pytest.raises(ParameterError, match="0 and 1"):
        effects.difference([1, 2], [1.0, 2.0])
    with pytest.raises(ParameterError, match="groups is empty"):  # of the stratum 1
        effects.back_door(np.array([1, 0, 1]), np.array([1.0, 2.0, 3.0]), np.array([0, 0, 1]))
