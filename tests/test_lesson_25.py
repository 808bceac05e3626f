"""Lesson 25: distillation, pruning by masks and slices, and int8 by hand against torch's."""

from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from instructlab_utils import distilling, quantisation, sparsity
from instructlab_utils.errors import ParameterError, TrainingError

HOSTILE = {
    "normal": lambda g: torch.randn(6, 32, generator=g),
    "one-sided": lambda g: torch.rand(6, 32, generator=g),
    "an outlier": lambda g: torch.randn(6, 32, generator=g).index_fill(1, torch.tensor([3]), 500.0),
    "a row of zeros": lambda g: torch.randn(6, 32, generator=g) * torch.arange(6)[:, None],
    "tiny": lambda g: 1e-20 * torch.randn(6, 32, generator=g),
    "all negative": lambda g: -1 - torch.rand(6, 32, generator=g),
}


def draws(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# --- distillation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("T", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_loss_is_torchs_kl_div_times_t_squared(T, dtype):
    z, v = draws(7, 5).to(dtype), draws(7, 5, seed=1).to(dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    want = T**2 * F.kl_div(
        F.log_softmax(z.to(wide) / T, -1),
        F.log_softmax(v.to(wide) / T, -1),
        reduction="batchmean",
        log_target=True,
    )
    found = distilling.distillation_loss(z, v, T)
    assert found.dtype == wide and abs(found - want) < (1e-12 if dtype == torch.float64 else 2e-2)


def test_its_gradient_three_ways_and_none_for_the_teacher():
    z, v, T = draws(3, 4).requires_grad_(), draws(3, 4, seed=1).requires_grad_(), 3.0
    distilling.distillation_loss(z, v, T).backward()
    closed = T * ((z / T).softmax(-1) - (v / T).softmax(-1)) / 3
    assert z.grad.shape == closed.shape and (z.grad - closed).abs().max() < 1e-12 and v.grad is None
    assert torch.autograd.gradcheck(lambda x: distilling.distillation_loss(x, v, T), (z,))


@pytest.mark.parametrize("bad", [(draws(2, 3), draws(2, 4), 1.0), (draws(2, 3), draws(2, 3), 0.0)])
def test_a_loss_without_sense_is_refused(bad):
    with pytest.raises(ParameterError):
        distilling.distillation_loss(*bad)


def test_learning_fits_labels_soft_labels_and_names():
    x, y = draws(40, 6), torch.arange(40) % 3
    told = 4 * draws(40, 3, seed=2)
    for more in ({}, {"pool": x, "told": told}, {"pool": x, "told": told.argmax(1)}):
        net = distilling.network(6, 16, 3, seed=0).double()
        losses = distilling.learn(net, x, y, rate=0.03, decay=0.0, steps=60, **more)
        assert losses[-1] < 0.6 * losses[0]
    assert torch.equal(distilling.network(6, 4, 3, 1)[0].weight, distilling.network(6, 4, 3, 1)[0].weight)
    with pytest.raises(ParameterError):
        distilling.learn(net, x, y, rate=0.1, decay=0.0, pool=x)
    with pytest.raises(TrainingError):
        distilling.learn(net, x * math.nan, y, rate=0.1, decay=0.0)


# --- pruning ---------------------------------------------------------------------------------------------------------


def small_bert(seed=0):
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32
    )
    return BertModel(config).eval()


def test_exactly_the_share_is_removed_and_it_is_the_smallest():
    scores = {"a": draws(5, 7).abs(), "b": draws(11, seed=1).abs()}
    flat = torch.cat([score.flatten() for score in scores.values()])
    for share in (0, 0.1, 0.5, 0.93, 1):
        masks = sparsity.keep_best(scores, share)
        kept = torch.cat([mask.flatten() for mask in masks.values()])
        assert masks["a"].shape == (5, 7) and (~kept).sum() == round(share * 46)
        assert not kept.any() or kept.all() or flat[~kept].max() <= flat[kept].min()
    ties = sparsity.keep_best({"a": torch.zeros(10)}, 0.3)["a"]
    assert ties.tolist() == [False] * 3 + [True] * 7


@pytest.mark.parametrize(("scores", "share"), [([1.0, 2.0], 1.5), ([1.0, 2.0], -0.1), ([1.0, math.nan], 0.5)])
def test_a_share_or_a_score_without_sense_is_refused(scores, share):
    with pytest.raises(ParameterError):
        sparsity.keep_best({"a": torch.tensor(scores)}, share)


def test_movement_is_minus_the_gradient_at_the_mask():
    linear, x, y = nn.Linear(6, 3).double(), draws(9, 6), torch.arange(9) % 3
    mask = torch.ones_like(linear.weight, requires_grad=True)
    F.cross_entropy(F.linear(x, linear.weight * mask, linear.bias), y).backward()
    scores: dict[str, torch.Tensor] = {}
    for times in (1, 2):
        sparsity.add_movement(scores, {"w": linear.weight})
        assert (scores["w"] + times * mask.grad).abs().max() < 1e-15


def test_masked_weights_come_back_even_after_an_error():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    weights = sparsity.linear_weights(net)
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    masks = sparsity.keep_best({name: weight.abs() for name, weight in before.items()}, 0.5)
    with pytest.raises(RuntimeError), sparsity.masked_weights(weights, masks):
        assert sum((weight == 0).sum() for weight in weights.values()) == 12
        raise RuntimeError("inside")
    assert all(torch.equal(weights[name], before[name]) for name in before)


@pytest.mark.parametrize("keep", [[0], [1, 3], [3, 0, 2], [0, 1, 2, 3]])
def test_a_gate_of_zero_is_a_slice(keep):
    bert = small_bert()
    ids, mask = torch.randint(50, (3, 6)), torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] * 5 + [0]])
    layers = bert.encoder.layer
    gates = torch.zeros(2, 4).index_fill(1, torch.tensor(keep), 1.0)
    with torch.no_grad():
        plain = bert(ids, attention_mask=mask).last_hidden_state
        with sparsity.head_gates(layers, gates):
            gated = bert(ids, attention_mask=mask).last_hidden_state
        assert torch.equal(bert(ids, attention_mask=mask).last_hidden_state, plain)
        for layer in layers:
            sparsity.slice_heads(layer, keep)
        cut = bert(ids, attention_mask=mask).last_hidden_state
    assert (gated - cut).abs().max() < 1e-5
    assert (len(keep) == 4) == torch.equal(cut, plain)
    assert layers[0].attention.self.query.weight.shape == (6 * len(keep), 24)


def test_heads_that_are_not_there_are_refused():
    for keep in ([], [4], [1, 1], [-1]):
        with pytest.raises(ParameterError):
            sparsity.slice_heads(small_bert().encoder.layer[0], keep)


# --- eight bits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [quantisation.absmax, quantisation.zero_point])
@pytest.mark.parametrize("name", HOSTILE)
def test_codes_are_torchs(kind, name):
    x = HOSTILE[name](torch.Generator().manual_seed(0))
    one, rows = kind(x), kind(x, -1)
    per_tensor = torch.quantize_per_tensor(x, one.scale.item(), int(one.zero.item()), torch.qint8)
    zeros = rows.zero[:, 0].long()
    per_row = torch.quantize_per_channel(x, rows.scale[:, 0].double(), zeros, 0, torch.qint8)
    for found, theirs in ((one, per_tensor), (rows, per_row)):
        apart = (found.numbers.int() - theirs.int_repr().int()).abs()
        steps = x / found.scale
        half = ((steps - steps.floor()) - 0.5).abs() < 1e-3  # a tie may fall to either side
        assert apart.max() <= 1 and not apart[~half].any()
        assert (
            (found.values() - x).abs() <= 0.5001 * found.scale + 1e-30
        ).all() or kind is quantisation.zero_point
        assert ((found.values() - x).abs() <= 1.0001 * found.scale + 1e-30).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_codes_keep_the_dtype_of_values_and_zero_exactly(dtype):
    x = draws(4, 9).to(dtype)
    x[1, 2] = 0
    for kind in (quantisation.absmax, quantisation.zero_point):
        found = kind(x, -1)
        assert found.numbers.dtype == torch.int8 and found.values().dtype == dtype
        assert found.values()[1, 2] == 0


@pytest.mark.parametrize("bad", [torch.tensor([1.0, math.inf]), torch.tensor([math.nan]), torch.zeros(0)])
def test_what_no_scale_fits_is_refused(bad):
    for kind in (quantisation.absmax, quantisation.zero_point):
        with pytest.raises(ParameterError):
            kind(bad)


@pytest.mark.parametrize("name", quantisation.SCHEMES)
@pytest.mark.parametrize("bias", [True, False])
def test_a_scheme_multiplies_what_its_codes_stand_for(name, bias):
    torch.manual_seed(0)
    linear, x = nn.Linear(16, 5, bias=bias).double(), 2 * draws(3, 7, 16)
    x[1, 2, 4] = 40.0
    scheme = quantisation.SCHEMES[name]
    layer = quantisation.EightBitLinear(linear, scheme)
    found = layer(x).detach()
    apart = (x.abs() >= 6).flatten(0, 1).any(0) if scheme.outliers else torch.zeros(16, dtype=torch.bool)
    w = scheme.codes(linear.weight.detach(), scheme.columns).values()
    want = scheme.codes(x.masked_fill(apart, 0), scheme.rows).values() @ w.T
    want = want + x[..., apart] @ linear.weight[:, apart].T + (linear.bias if bias else 0)
    assert found.shape == (3, 7, 5) and (found - want).abs().max() < 1e-10
    assert layer.outlier_share == apart.double().mean()


def test_finer_scales_lose_less_where_there_are_outliers():
    linear, x = nn.Linear(64, 32, bias=False), draws(20, 64, dtype=torch.float32)
    x[3] *= 50
    x[:, 5] += 30
    exact = linear(x)
    error = {
        name: (quantisation.EightBitLinear(linear, scheme)(x) - exact).norm().item()
        for name, scheme in quantisation.SCHEMES.items()
    }
    assert error["absmax"] > error["row_wise"] > error["llm_int8"]


def test_inside_the_decoder_computes_in_int8_and_afterwards_as_before():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    net, ids = LlamaForCausalLM(config).eval(), torch.randint(60, (1, 9))
    with torch.no_grad():
        plain = net(ids).logits
        with quantisation.eight_bit(net, quantisation.SCHEMES["llm_int8"]) as layers:
            assert len(layers) == 14 and isinstance(net.lm_head, nn.Linear)
            other = net(ids).logits
        with quantisation.eight_bit(net, None) as none:
            assert none == [] and torch.equal(net(ids).logits, plain)
        assert 0 < (other - plain).abs().max() < 0.1 and torch.equal(net(ids).logits, plain)


def test_torchs_dynamic_layer_by_hand_and_its_file():
    net, x = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 8)), draws(5, 64, dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = torch.ao.quantization.quantize_dynamic(copy.deepcopy(net), {nn.Linear}, dtype=torch.qint8)
    tensors = quantisation.tensors_of(small)
    assert tensors["0.weight"].dtype == torch.int8 and tensors["0.weight"].shape == (48, 64)
    w = tensors["0.weight"].float() * tensors["0.scale"]
    low, high = quantisation.ends(x)
    bits = []
    for most in (127, 255):
        s = (high - low) / most
        o = (-low / s).round()
        ours = (((x / s).round() + o).clamp(0, most) - o) * s @ w.T + tensors["0.bias"]
        bits.append((ours - small[0](x)).abs().max().item())
    assert min(bits) < 1e-5
    big, little = (quantisation.file_bytes(quantisation.tensors_of(each)) for each in (net, small))
    assert big > 4 * (64 * 48 + 48 * 8) and little < big / 2
