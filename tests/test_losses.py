"""The losses of lesson 01 equal torch's, in value and in gradient, and fail loudly where torch would not."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from instructlab_utils import losses
from instructlab_utils.errors import TrainingError

# absolute below size 1, relative above it
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
SHAPES = st.lists(st.integers(1, 6), min_size=0, max_size=3).map(tuple)
SEEDS = st.integers(0, 2**31 - 1)
DTYPES = st.sampled_from([torch.float64, torch.float32])
SCALES = st.sampled_from([1e-3, 1.0, 10.0, 1e4])
many = settings(deadline=None, max_examples=120, derandomize=True)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def normal(shape, seed, dtype, scale=1.0):
    """Normal numbers of standard deviation ``scale``, the same for a seed in every dtype."""
    return (scale * torch.randn(shape, generator=generator(seed), dtype=torch.float64)).to(dtype)


def with_gradient(function, logits, weights):
    """Value, and gradient of its weighted sum with respect to the logits; unequal weights hide no position."""
    logits = logits.clone().requires_grad_(True)
    value = function(logits)
    (gradient,) = torch.autograd.grad((value * weights).sum(), logits)
    return value.detach(), gradient


def assert_same(ours, theirs, weights, logits):
    """Same shape, dtype, value and gradient, within the tolerance of the dtype."""
    tolerance = TOLERANCE[logits.dtype]
    for mine, reference in zip(
        with_gradient(ours, logits, weights), with_gradient(theirs, logits, weights), strict=True
    ):
        assert mine.shape == reference.shape
        assert mine.dtype == reference.dtype == logits.dtype
        assert torch.isfinite(mine).all()
        torch.testing.assert_close(mine, reference, rtol=tolerance, atol=tolerance)


@many
@given(shape=SHAPES, classes=st.integers(1, 9), seed=SEEDS, dtype=DTYPES, scale=SCALES)
def test_log_sum_exp_equals_torch(shape, classes, seed, dtype, scale):
    logits = normal((*shape, classes), seed, dtype, scale)
    assert_same(losses.log_sum_exp, lambda z: torch.logsumexp(z, -1), normal(shape, seed + 1, dtype), logits)


@many
@given(shape=SHAPES, classes=st.integers(1, 9), seed=SEEDS, dtype=DTYPES, scale=SCALES)
def test_log_softmax_equals_torch(shape, classes, seed, dtype, scale):
    logits = normal((*shape, classes), seed, dtype, scale)
    weights = normal((*shape, classes), seed + 1, dtype)
    assert_same(losses.log_softmax, lambda z: F.log_softmax(z, -1), weights, logits)


@many
@given(shape=SHAPES, seed=SEEDS, dtype=DTYPES, scale=SCALES, soft=st.booleans())
def test_binary_cross_entropy_equals_torch(shape, seed, dtype, scale, soft):
    logits = normal(shape, seed, dtype, scale)
    targets = torch.rand(shape, generator=generator(seed + 1), dtype=torch.float64).to(dtype)
    targets = targets if soft else targets.round()
    assert_same(
        lambda z: losses.binary_cross_entropy(z, targets),
        lambda z: F.binary_cross_entropy_with_logits(z, targets, reduction="none"),
        normal(shape, seed + 2, dtype),
        logits,
    )


@many
@given(
    shape=SHAPES,
    classes=st.integers(1, 9),
    seed=SEEDS,
    dtype=DTYPES,
    scale=SCALES,
    smoothing=st.sampled_from([0.0, 0.1, 0.5, 0.9]),
)
def test_cross_entropy_equals_torch(shape, classes, seed, dtype, scale, smoothing):
    logits = normal((*shape, classes), seed, dtype, scale)
    targets = torch.randint(classes, shape, generator=generator(seed + 1))

    def reference(z):
        flat = F.cross_entropy(
            z.reshape(-1, classes), targets.reshape(-1), reduction="none", label_smoothing=smoothing
        )
        return flat.reshape(shape)

    assert_same(
        lambda z: losses.cross_entropy(z, targets, smoothing),
        reference,
        normal(shape, seed + 2, dtype),
        logits,
    )


@many
@given(
    batch=st.integers(1, 5),
    length=st.integers(1, 8),
    vocabulary=st.integers(1, 9),
    seed=SEEDS,
    dtype=DTYPES,
    scale=SCALES,
    ignore=st.sampled_from([-100, 0]),
)
def test_masked_cross_entropy_equals_torch(batch, length, vocabulary, seed, dtype, scale, ignore):
    logits = normal((batch, length, vocabulary + 1), seed, dtype, scale)
    targets = torch.randint(1, vocabulary + 1, (batch, length), generator=generator(seed + 1))
    masked = torch.rand(batch, length, generator=generator(seed + 2)) < 0.5
    masked[-1, -1] = False
    targets[masked] = ignore
    assert_same(
        lambda z: losses.masked_cross_entropy(z, targets, ignore_index=ignore),
        lambda z: F.cross_entropy(z.flatten(0, 1), targets.flatten(), ignore_index=ignore),
        torch.ones((), dtype=dtype),
        logits,
    )


@many
@given(seed=SEEDS, pieces=st.integers(1, 6), denominator=st.sampled_from([1, 7, 2.5]))
def test_accumulation_with_the_true_denominator_is_exact(seed, pieces, denominator):
    """Micro-batches of unequal length add up to the full batch, in value and in gradient."""
    logits = normal((12, 5), seed, torch.float64)
    targets = torch.randint(5, (12,), generator=generator(seed + 1))
    one = torch.ones((), dtype=torch.float64)
    whole = with_gradient(lambda z: losses.masked_cross_entropy(z, targets, denominator), logits, one)

    def accumulated(z):
        parts = zip(z.tensor_split(pieces), targets.tensor_split(pieces), strict=True)
        return sum(losses.masked_cross_entropy(part, labels, denominator) for part, labels in parts)

    for mine, reference in zip(with_gradient(accumulated, logits, one), whole, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("size", [1e4, 3e38], ids=str)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_extreme_logits_stay_finite(dtype, size, smoothing):
    """Where exp overflows, value and gradient are still numbers, and the right ones."""
    size = size if dtype == torch.float64 or size < 1e10 else 1e38
    logits = torch.tensor([[size, -size, 0.0], [-size, -size, -size]], dtype=dtype, requires_grad=True)
    per_example = losses.cross_entropy(logits, torch.tensor([0, 2]), smoothing)
    (gradient,) = torch.autograd.grad(per_example.sum(), logits)
    assert torch.isfinite(per_example).all() and torch.isfinite(gradient).all()
    assert per_example[1].item() == pytest.approx(math.log(3), rel=1e-6)
    assert gradient.sum(-1).abs().max() < 1e-6

    z = torch.tensor([size, size, -size, -size], dtype=dtype, requires_grad=True)
    y = torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=dtype)
    binary = losses.binary_cross_entropy(z, y)
    (slope,) = torch.autograd.grad(binary.sum(), z)
    assert binary.tolist() == pytest.approx([0.0, size, size, 0.0], rel=1e-6)
    assert slope.tolist() == [0.0, 1.0, -1.0, 0.0]


@pytest.mark.parametrize("value", [0.0, -0.0])
def test_binary_gradient_at_zero(value):
    """Weights that start at zero give z = 0 everywhere; clamp instead of maximum would be wrong there."""
    z = torch.full((2,), value, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(losses.binary_cross_entropy(z, torch.tensor([0.0, 1.0]).double()).sum(), z)
    assert slope.tolist() == [0.5, -0.5]


@pytest.mark.parametrize("function", ["binary", "softmax", "smoothed", "masked"])
def test_gradients_by_finite_differences(function):
    """torch's own three-way judge, independent of any reference loss."""
    z = normal((4, 3), 3, torch.float64).requires_grad_(True)
    targets = torch.tensor([0, 2, 1, 1])
    call = {
        "binary": lambda z: losses.binary_cross_entropy(z, torch.eye(4, 3, dtype=torch.float64)),
        "softmax": lambda z: losses.cross_entropy(z, targets),
        "smoothed": lambda z: losses.cross_entropy(z, targets, 0.2),
        "masked": lambda z: losses.masked_cross_entropy(z, torch.tensor([0, -100, 1, -100]), 5),
    }[function]
    assert torch.autograd.gradcheck(call, (z,))


def test_closed_forms_of_the_gradient():
    """p − y for the logits; p − q with smoothing; exactly zero at a masked position."""
    z = normal((5, 4), 0, torch.float64).requires_grad_(True)
    targets = torch.tensor([0, 3, 1, 2, 2])
    p, one_hot = torch.softmax(z.detach(), -1), F.one_hot(targets, 4).double()
    for smoothing in (0.0, 0.3):
        (gradient,) = torch.autograd.grad(losses.cross_entropy(z, targets, smoothing).sum(), z)
        q = (1 - smoothing) * one_hot + smoothing / 4
        torch.testing.assert_close(gradient, p - q, rtol=0, atol=1e-14)
    masked = torch.tensor([0, -100, 1, -100, 2])
    (gradient,) = torch.autograd.grad(losses.masked_cross_entropy(z, masked), z)
    assert gradient[[1, 3]].abs().max() == 0
    torch.testing.assert_close(gradient[[0, 2, 4]], ((p - one_hot) / 3)[[0, 2, 4]], rtol=0, atol=1e-14)


def test_garbage_at_a_masked_position_does_not_leak():
    """nan or inf where there is no target touches neither the loss nor the gradient."""
    clean = normal((3, 4), 1, torch.float64)
    dirty = clean.clone()
    dirty[1] = math.nan
    targets = torch.tensor([2, -100, 0])
    one = torch.ones((), dtype=torch.float64)
    expected = with_gradient(lambda z: losses.masked_cross_entropy(z, targets), clean, one)
    found = with_gradient(lambda z: losses.masked_cross_entropy(z, targets), dirty, one)
    for mine, reference in zip(found, expected, strict=True):
        assert torch.equal(mine, reference)


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -3])
def test_any_dimension(dim):
    z = normal((2, 3, 4), 5, torch.float64)
    torch.testing.assert_close(losses.log_sum_exp(z, dim), torch.logsumexp(z, dim), rtol=0, atol=1e-14)
    torch.testing.assert_close(losses.log_softmax(z, dim), torch.log_softmax(z, dim), rtol=0, atol=1e-14)


def test_minus_infinity_is_a_forbidden_class():
    """Logits of −inf (a mask over the vocabulary) give probability zero, not nan."""
    z = torch.tensor([[1.0, -math.inf, 2.0]], dtype=torch.float64, requires_grad=True)
    loss = losses.cross_entropy(z, torch.tensor([2]))
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-1)), abs=1e-14)
    assert gradient[0, 1] == 0 and torch.isfinite(gradient).all()
    assert losses.log_sum_exp(torch.full((2,), -math.inf)).item() == -math.inf
    assert losses.log_sum_exp(torch.tensor([math.inf, 0.0])).item() == math.inf


def test_a_large_offset_costs_no_digit():
    """Shift first, then take logarithms: float32 logits around 10,000 keep their differences."""
    z = torch.tensor([0.25, 1.5, -2.0])
    torch.testing.assert_close(losses.log_softmax(z + 8192.0), losses.log_softmax(z), rtol=1e-6, atol=0)


def test_uniform_logits_cost_ln_k():
    for k in (2, 7, 30522):
        loss = losses.cross_entropy(torch.zeros(k, dtype=torch.float64), torch.tensor(k - 1))
        assert loss.item() == pytest.approx(math.log(k), abs=1e-12)


@pytest.mark.parametrize(
    ("logits", "targets"), [((4, 1), (4,)), ((4,), (4, 1)), ((3,), (4,)), ((1,), ()), ((2, 3), (3, 2))]
)
def test_binary_refuses_to_broadcast(logits, targets):
    with pytest.raises(TrainingError, match="shape"):
        losses.binary_cross_entropy(torch.zeros(logits), torch.zeros(targets))


@pytest.mark.parametrize(
    ("logits", "targets"),
    [((4, 3), (3,)), ((4, 3), (4, 1)), ((4, 3), ()), ((2, 4, 3), (2, 3)), ((4, 3), (2,)), ((4, 3), (4, 3))],
)
def test_cross_entropy_refuses_shapes_that_do_not_fit(logits, targets):
    """gather would accept fewer targets than rows and say nothing."""
    with pytest.raises(TrainingError, match=r"logits \(.*targets \("):
        losses.cross_entropy(torch.zeros(logits), torch.zeros(targets, dtype=torch.int64))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 2.0, math.nan])
def test_cross_entropy_refuses_a_bad_smoothing(smoothing):
    with pytest.raises(TrainingError, match="smoothing"):
        losses.cross_entropy(torch.zeros(2, 3), torch.tensor([0, 1]), smoothing)


@pytest.mark.parametrize("label", [3, 17, -1, -100])
def test_a_label_outside_the_classes_is_an_error(label):
    """Also −100: only the masked version knows what it means."""
    with pytest.raises((RuntimeError, IndexError)):
        losses.cross_entropy(torch.zeros(2, 3), torch.tensor([0, label]))


@pytest.mark.parametrize("denominator", [None, 4])
def test_all_masked_raises_one_sentence(denominator):
    """torch returns nan here, which then destroys every weight."""
    with pytest.raises(TrainingError, match="all 4 targets are -100") as caught:
        losses.masked_cross_entropy(torch.zeros(2, 2, 3), torch.full((2, 2), -100), denominator)
    assert "\n" not in str(caught.value)
    assert F.cross_entropy(torch.zeros(4, 3), torch.full((4,), -100)).isnan()


def test_an_empty_batch_raises():
    with pytest.raises(TrainingError, match="all 0 targets"):
        losses.masked_cross_entropy(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))


@pytest.mark.parametrize("denominator", [0, -3, torch.tensor(0)])
def test_a_denominator_must_be_positive(denominator):
    with pytest.raises(TrainingError, match="positive"):
        losses.masked_cross_entropy(torch.zeros(2, 3), torch.tensor([0, 1]), denominator)


def test_masked_refuses_shapes_that_do_not_fit():
    with pytest.raises((TrainingError, IndexError)):
        losses.masked_cross_entropy(torch.zeros(2, 4, 3), torch.zeros(2, 3, dtype=torch.int64))
