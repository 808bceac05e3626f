"""Half precision: every loss and filter against torch, trl and transformers in four dtypes, on hostile inputs.

A loss of bfloat16 or float16 logits is the loss of these very numbers in float64, up to float32's rounding: nothing is
added up in the dtype of the input. The reference is always computed in float64 (losses) or as transformers' generate
calls it (filters: logits in float32, or float64 where they are).
"""

from __future__ import annotations

import math
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import TopKLogitsWarper, TopPLogitsWarper

from instructlab_utils import decisions, generation, intervals, losses, plotting, scoring
from instructlab_utils.errors import ParameterError, TrainingError

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
WIDE = {t: torch.promote_types(t, torch.float32) for t in DTYPES}
CLOSE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-6, torch.float16: 2e-6}
SLOPE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-10}
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: str(t)[6:])


def normal(*shape, seed=0, scale=3.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hostile(dtype):
    """(name, logits (rows, K), class of each row) that break a loss that rounds, overflows or divides nothing."""
    small, large = (2_000.0, 60_000.0) if dtype == torch.float16 else (2_000.0, 1e30)
    tied = torch.zeros(3, 5)
    gap = torch.tensor([[0.0, -200.0, 200.0], [-small, 0.0, 0.0], [small, 0.0, -small]])
    spoilt = normal(4, 6)
    spoilt[:, 2] = -math.inf
    return [
        ("random", normal(40, 7), torch.arange(40) % 7),
        ("vocabulary", normal(3, 30_000), torch.tensor([0, 29_999, 17])),
        ("ties", tied, torch.tensor([0, 2, 4])),
        ("gaps of 200 and 2000, the wrong class", gap, torch.tensor([1, 0, 2])),
        ("gaps of 200 and 2000, the right class", gap, torch.tensor([2, 1, 0])),
        ("largest numbers", torch.tensor([[large, -large], [-large, -large]]), torch.tensor([1, 0])),
        ("an offset", normal(5, 4) + 512, torch.arange(5) % 4),
        ("an excluded class", spoilt, torch.tensor([0, 1, 3, 5])),
        ("batch of one", normal(1, 2), torch.tensor([1])),
        ("one class", normal(2, 1), torch.tensor([0, 0])),
    ]


CASES = [name for name, *_ in hostile(torch.float32)]
every_case = pytest.mark.parametrize("case", CASES)


def draw(case, dtype):
    """The case's logits rounded to ``dtype``, the same numbers in float64, and its classes."""
    logits, classes = next((z, y) for name, z, y in hostile(dtype) if name == case)
    logits = logits.to(dtype)
    return logits, logits.double(), classes


def values_and_slopes(function, *logits):
    leaves = [z.clone().requires_grad_(True) for z in logits]
    value = function(*leaves)
    finite = torch.where(value.detach().isfinite(), value, torch.zeros_like(value))
    weights = torch.linspace(0.5, 1.5, finite.numel(), dtype=finite.dtype).view(finite.shape)
    return value.detach(), torch.autograd.grad((finite * weights).sum(), leaves)


def assert_same(ours, theirs, dtype, *logits):
    """Values to float32's precision and in float32 or float64, slopes to that of ``dtype`` and in ``dtype``."""
    value, slopes = values_and_slopes(ours, *logits)
    expected, wanted = values_and_slopes(theirs, *(z.double() for z in logits))
    assert value.dtype == WIDE[dtype] and value.shape == expected.shape
    torch.testing.assert_close(value.double(), expected, rtol=CLOSE[dtype], atol=CLOSE[dtype])
    for mine, other in zip(slopes, wanted, strict=True):
        assert mine.dtype == dtype
        torch.testing.assert_close(mine.double(), other, rtol=SLOPE[dtype], atol=CLOSE[dtype])


# --- losses -----------------------------------------------------------------------------------------------------


@every_dtype
@every_case
def test_log_sum_exp_and_log_softmax(dtype, case):
    z, _, _ = draw(case, dtype)
    # torch's own logsumexp has the slope 1 for each of two equal logits of 1e30; its log_softmax has ½
    assert_same(losses.log_sum_exp, lambda z: z[:, 0] - F.log_softmax(z, -1)[:, 0], dtype, z)
    ours, theirs = losses.log_softmax(z), F.log_softmax(z.double(), -1)
    assert ours.dtype == WIDE[dtype]
    torch.testing.assert_close(ours.double(), theirs, rtol=CLOSE[dtype], atol=CLOSE[dtype])
    assert_same(lambda z: losses.log_softmax(z)[..., -1], lambda z: F.log_softmax(z, -1)[..., -1], dtype, z)


@every_dtype
@every_case
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_and_the_mean_over_positions(dtype, case, smoothing):
    z, _, y = draw(case, dtype)
    assert_same(
        lambda z: losses.cross_entropy(z, y, smoothing),
        lambda z: F.cross_entropy(z, y, reduction="none", label_smoothing=smoothing),
        dtype,
        z,
    )
    if not smoothing:
        masked = torch.where(torch.arange(len(y)) % 3 == 1, -100, y)
        assert_same(
            lambda z: losses.masked_cross_entropy(z, masked), lambda z: F.cross_entropy(z, masked), dtype, z
        )


@every_dtype
def test_binary_cross_entropy(dtype):
    z = torch.tensor([0.0, -0.0, 20.0, -20.0, 200.0, -200.0, 2000.0, -2000.0, 60_000.0, 1e-4]).to(dtype)
    for y in (torch.zeros(10), torch.ones(10), torch.linspace(0, 1, 10)):
        assert_same(
            lambda z, y=y: losses.binary_cross_entropy(z, y.to(z.dtype).double().to(WIDE[z.dtype])),
            lambda z, y=y: F.binary_cross_entropy_with_logits(z, y.to(dtype).double(), reduction="none"),
            dtype,
            z,
        )


@every_dtype
@every_case
def test_entropy_and_divergences(dtype, case):
    z, wide, y = draw(case, dtype)
    other = z.flip(0)

    def entropy(z):
        return torch.special.entr(z.softmax(-1)).sum(-1)

    def kl(a, b):
        log_p, log_q = a.log_softmax(-1), b.log_softmax(-1)
        both = (F.kl_div(log_q, log_p, reduction="none", log_target=True),
                F.kl_div(log_p, log_q, reduction="none", log_target=True))  # fmt: skip
        return sum(each.nan_to_num(nan=0.0, posinf=math.inf) for each in both).sum(-1) / 2  # 0 log (0 / 0)

    torch.testing.assert_close(
        losses.entropy(z).double(), entropy(wide), rtol=CLOSE[dtype], atol=CLOSE[dtype]
    )
    torch.testing.assert_close(
        losses.symmetric_kl(z, other).double(), kl(wide, wide.flip(0)), rtol=1e-5, atol=10 * CLOSE[dtype]
    )
    for value, slopes in (
        values_and_slopes(losses.entropy, z),
        values_and_slopes(losses.symmetric_kl, z, other),
        values_and_slopes(lambda a, b: losses.r_drop(a, b, y, 0.3), z, other),
    ):
        assert value.dtype == WIDE[dtype] and not value.isnan().any()
        assert all(slope.dtype == dtype and not slope.isnan().any() for slope in slopes)


@every_dtype
def test_a_class_that_both_passes_exclude_adds_nothing_to_their_divergence(dtype):
    """Before, −inf minus −inf made it nan."""
    a, b = normal(4, 5, seed=1).to(dtype), normal(4, 5, seed=2).to(dtype)
    kept = [0, 1, 3, 4]
    masked = [z.clone().index_fill_(1, torch.tensor([2]), -math.inf) for z in (a, b)]
    assert_same(
        losses.symmetric_kl,
        lambda a, b: losses.symmetric_kl(a[:, kept], b[:, kept]),
        dtype,
        *masked,
    )
    assert (losses.symmetric_kl(masked[0], b) == math.inf).all()


@every_dtype
def test_span_loss(dtype):
    start, end = normal(3, 512, seed=3).to(dtype), normal(3, 512, seed=4).to(dtype)
    spans = torch.tensor([[0, 511], [17, 17], [511, 0]])
    assert_same(
        lambda s, e: losses.span_loss(s, e, spans),
        lambda s, e: (
            sum(F.cross_entropy(z, y, reduction="none") for z, y in zip((s, e), spans.T, strict=True)) / 2
        ),
        dtype,
        start,
        end,
    )


def test_a_thousand_equal_tokens_in_bfloat16():
    """1,024 tokens of probability ½. Added up in bfloat16 the sum stays at −256."""
    found = losses.sequence_log_probs(
        torch.zeros(1, 1025, 2, dtype=torch.bfloat16), torch.ones(1, 1025).long()
    )
    assert found.dtype == torch.float32 and found.item() == pytest.approx(-1024 * math.log(2), rel=1e-6)


@every_dtype
@pytest.mark.parametrize("shape", [(1, 2, 2), (1, 513, 50), (4, 1025, 7)], ids=str)
def test_sequence_log_probs_are_trl_s_sums_over_long_sequences(dtype, shape):
    from trl.trainer.utils import selective_log_softmax

    z = normal(*shape, seed=5).to(dtype)
    labels = torch.randint(shape[2], shape[:2], generator=torch.Generator().manual_seed(6))
    for row in range(1, shape[0]):
        labels[row, : shape[1] // (row + 1)] = -100
    counts = labels[:, 1:] != -100

    def theirs(z):
        each = selective_log_softmax(z[:, :-1], labels[:, 1:].clamp(min=0))
        return (each * counts).sum(1)

    assert_same(lambda z: losses.sequence_log_probs(z, labels), theirs, dtype, z)
    assert_same(lambda z: losses.sequence_losses(z, labels), lambda z: -theirs(z) / counts.sum(1), dtype, z)


@every_dtype
def test_causal_losses_of_a_model_in_any_dtype(dtype):
    z = normal(2, 9, 11, seed=7).to(dtype)
    labels = torch.randint(11, (2, 9), generator=torch.Generator().manual_seed(8))
    labels[:, 0] = labels[0, 5:] = -100

    def of(z):
        net = lambda **_: types.SimpleNamespace(logits=z)  # noqa: E731
        ids = torch.ones_like(labels)
        return generation.causal_losses(net, {"input_ids": ids, "attention_mask": ids, "labels": labels})

    value, (slope,) = values_and_slopes(of, z)
    kept = labels[:, 1:] != -100
    wanted, (theirs,) = values_and_slopes(
        lambda z: F.cross_entropy(z[:, :-1][kept], labels[:, 1:][kept], reduction="none"), z.double()
    )
    assert value.dtype == torch.float32 and slope.dtype == dtype
    torch.testing.assert_close(value.double(), wanted, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(slope.double(), theirs, rtol=2.0**-8, atol=2e-6)


@every_dtype
def test_calibration_by_what_the_model_says_to_nothing(dtype):
    z, free = normal(6, 3, seed=9).to(dtype), normal(2, 3, seed=10).to(dtype)
    found = scoring.contextual_calibration(z, free)
    p = z.double().softmax(-1) / free.double().softmax(-1).mean(0)
    torch.testing.assert_close(
        found.double(), (p / p.sum(-1, keepdim=True)).log(), rtol=2e-6, atol=CLOSE[dtype] * 10
    )


def test_float32_and_float64_pass_through_untouched():
    """So no number of a recorded experiment on a CPU changes."""
    for dtype in (torch.float32, torch.float64):
        z = torch.ones(2, dtype=dtype, requires_grad=True)
        assert losses.upcast(z) is z
    assert losses.upcast(torch.ones(2, dtype=torch.float16)).dtype == torch.float32


# --- filters ----------------------------------------------------------------------------------------------------


def rows_of_logits(dtype):
    """2,400 rows over 1 to 60 tokens: random ones of three scales, ties, gaps of 200 and 2,000, −inf, nothing left."""
    g = torch.Generator().manual_seed(11)
    for size in (1, 2, 3, 7, 23, 60):
        z = torch.randn(400, size, generator=g, dtype=torch.float64)
        z[:200] *= torch.tensor([0.1, 1.0, 8.0, 200.0], dtype=torch.float64).repeat(50)[:, None]
        z[200:250] = z[200:250].round()
        z[250:270] = 0
        z[270:290, ::2] = -200
        z[290:310, 1::2] = 2000
        z[310:350][torch.rand(40, size, generator=g) < 0.4] = -math.inf
        z[350:355] = -math.inf
        z[355:360, 0] = math.inf
        yield z.to(dtype)


@every_dtype
@pytest.mark.parametrize("p", [1e-10, 0.01, 0.3, 0.5, 0.9, 0.95, 0.999, 1 - 1e-12])
def test_the_nucleus_is_that_of_generate(dtype, p):
    """The same tokens on 2,400 rows a dtype; before, 199 of 200 random rows in bfloat16 differed."""
    for z in rows_of_logits(dtype):
        wide = z.to(WIDE[dtype])  # generate widens its logits before any filter
        ours, theirs = generation.nucleus_filter(z, p), TopPLogitsWarper(p)(None, wide)
        assert ours.dtype == dtype and torch.equal(ours.to(WIDE[dtype]), theirs)


@every_dtype
def test_a_nucleus_of_everything_drops_nothing(dtype):
    for z in rows_of_logits(dtype):
        found = generation.nucleus_filter(z, 1.0)
        assert torch.equal(found, z) and found.data_ptr() != z.data_ptr()


@every_dtype
def test_the_nucleus_of_a_vocabulary(dtype):
    z = normal(20, 50_000, seed=12, scale=2.0).to(dtype)
    for p in (0.5, 0.95, 1.0):
        found = generation.nucleus_filter(z, p)
        wide = z.to(WIDE[dtype])
        assert torch.equal(found.to(WIDE[dtype]), TopPLogitsWarper(p)(None, wide) if p < 1 else wide)
        kept = z.double().softmax(-1).where(found > -math.inf, 0.0)
        assert (kept.sum(-1) >= p - 1e-4).all()
        fewer = kept.sum(-1) - kept.where(kept > 0, 2.0).amin(-1)
        assert (fewer < p + 1e-4).all()


@every_dtype
@pytest.mark.parametrize("k", [1, 2, 5, 1000])
def test_top_k_is_that_of_transformers(dtype, k):
    for z in rows_of_logits(dtype):
        ours, theirs = generation.top_k_filter(z, k), TopKLogitsWarper(k)(None, z)
        assert ours.dtype == dtype and torch.equal(ours, theirs)


def test_filters_take_any_number_of_dimensions():
    z = normal(2, 3, 9, seed=13)
    for function, value in ((generation.nucleus_filter, 0.7), (generation.top_k_filter, 3)):
        rows = torch.stack([function(row, value) for row in z.flatten(0, 1)])
        assert torch.equal(function(z, value), rows.view_as(z))


# --- what is refused --------------------------------------------------------------------------------------------


def test_greedy_refuses_what_has_no_most_probable_token():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    net = GPT2LMHeadModel(GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2)).eval()
    assert len(generation.greedy(net, [[1, 2, 3]], 6, 99)[0]) == 6  # the last one is never read
    with pytest.raises(ParameterError, match="3 tokens and 7 new ones: the model has 8 positions"):
        generation.greedy(net, [[1], [1, 2, 3]], 7, 99)
    for prompts in ([], [[1], []]):
        with pytest.raises(ParameterError, match="without a token"):
            generation.greedy(net, prompts, 2, 99)
    net.lm_head.weight.data[3] = math.nan
    with pytest.raises(TrainingError, match="a logit is NaN"):
        generation.greedy(net, [[1, 2]], 2, 99)


@pytest.mark.parametrize("label", [-1.0, 2.0, 1.0001, math.nan])
def test_a_binary_label_outside_0_and_1(label):
    with pytest.raises(TrainingError, match="outside"):
        losses.binary_cross_entropy(torch.zeros(2), torch.tensor([0.0, label]))


@pytest.mark.parametrize("value", [math.nan, -1.0, -math.inf])
def test_a_weight_or_denominator_that_is_no_positive_number(value):
    z, y = torch.zeros(2, 3), torch.tensor([0, 1])
    with pytest.raises(TrainingError, match="alpha"):
        losses.r_drop(z, z, y, value)
    with pytest.raises(TrainingError, match="positive"):
        losses.masked_cross_entropy(z, y, value)
    with pytest.raises(TrainingError, match="positive"):
        losses.masked_cross_entropy(z, y, torch.tensor(value))
    with pytest.raises(TrainingError, match="positive"):
        losses.masked_cross_entropy(z, y, math.inf)


@pytest.mark.parametrize(
    ("logits", "labels"), [((2, 5, 3), (2, 4)), ((2, 5, 3), (1, 5)), ((2, 5), (2, 5)), ((5, 3), (5,))]
)
def test_sequences_of_other_shapes(logits, labels):
    with pytest.raises(TrainingError, match=r"logits \(.*labels \("):
        losses.sequence_log_probs(torch.zeros(logits), torch.zeros(labels).long())
    if logits != (5, 3):
        with pytest.raises(TrainingError, match=r"logits \(.*targets \("):
            losses.masked_cross_entropy(torch.zeros(logits), torch.zeros(labels).long())


NOT_FINITE = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("value", NOT_FINITE)
def test_no_interval_and_no_p_value_of_numbers_that_are_not_finite(value):
    """Before, a nan gave "nan [nan, nan]", and the sign-flip test called it significant with p = 0."""
    x = [0.1, 0.2, value]
    cells = np.ones((1, 2, 3))
    cells[0, 1, 1] = value
    for call in (
        lambda: intervals.t_interval(x),
        lambda: intervals.t_test(x),
        lambda: intervals.tost(x, 0.1),
        lambda: intervals.paired_bootstrap(x, [0.0, 0.0, 0.0], 20),
        lambda: intervals.over_units(x),
        lambda: intervals.sign_flip_test(x),
        lambda: intervals.holm([0.1, value]),
        lambda: intervals.hierarchical_bootstrap(cells, 20),
        lambda: intervals.crossed(cells),
        lambda: intervals.components(cells),
        lambda: intervals.Estimate(value, 0.1, 3),
        lambda: intervals.Estimate(0.0, value, 3),
        lambda: intervals.Interval(0.0, value, 1.0),
        lambda: intervals.power_of_t(0.1, value if value != math.inf else -1.0, 3),
        lambda: plotting.label_points(None, [0.0, value], [0.0, 1.0], ["a", "b"]),
    ):
        with np.errstate(all="ignore"), pytest.raises(ValueError):
            call()


@pytest.mark.parametrize("n", [0, 1])
def test_no_interval_of_one_unit_or_none(n):
    """numpy warns and goes on with nan; a single pair gave an interval of width 0."""
    x = [0.5] * n
    for call in (
        lambda: intervals.t_interval(x),
        lambda: intervals.t_test(x),
        lambda: intervals.tost(x, 0.1),
        lambda: intervals.paired_bootstrap(x, x, 20),
        lambda: intervals.over_units(x),
        lambda: intervals.over_units([x, [0.1] * n]),
        lambda: intervals.jackknife(lambda kept: float(len(kept)), n),
        lambda: intervals.crossed(np.ones((1, n, 5))),
        lambda: intervals.crossed(np.ones((1, 5, n))),
    ):
        with pytest.raises(ValueError):
            call()
    with pytest.raises(ValueError, match="at least 1"):
        intervals.sign_flip_test([])
    with pytest.raises(ValueError, match="n positive"):
        intervals.wilson_interval(0, 0)


def test_wilsons_interval_has_no_impossible_end():
    for n in range(1, 200):
        assert intervals.wilson_interval(0, n).low == 0 and intervals.wilson_interval(n, n).high == 1


def test_scores_that_numpy_would_broadcast_or_flatten():
    for a, b in (
        ([1.0], [0, 1, 1]),
        ([0, 1, 1], [1.0]),
        ([[0, 1], [1, 1]], [[0, 1], [1, 1]]),
        ([0, 1], [0, 1, 1]),
    ):
        with pytest.raises(ValueError, match="shapes"):
            intervals.paired_bootstrap(a, b, 20)
    square = np.arange(4.0).reshape(2, 2)
    for call in (intervals.t_interval, intervals.t_test, intervals.sign_flip_test, intervals.holm):
        with pytest.raises(ValueError, match="one dimension"):
            call(square)
    with pytest.raises(ValueError, match="shape"):
        intervals.over_units(np.ones((2, 2, 2)))
    with pytest.raises(ValueError, match="shape"):
        intervals.hierarchical_bootstrap(np.ones((3, 4)), 20)


def test_a_share_is_no_count_and_95_is_no_level():
    with pytest.raises(ValueError, match=r"both whole, got 0\.85 of 100"):
        intervals.wilson_interval(0.85, 100)
    for level in (95, 1.0, -0.5):
        with np.errstate(all="ignore"), pytest.raises(ValueError):
            intervals.wilson_interval(3, 10, level)
        with np.errstate(all="ignore"), pytest.raises(ValueError):
            intervals.t_interval([1.0, 2.0, 4.0], level)
        with np.errstate(all="ignore"), pytest.raises(ValueError):
            intervals.Estimate(0.1, 0.1, 3).interval(level)
        with pytest.raises(ValueError, match="level"):
            intervals.power_of_t(0.1, 0.1, 3, level=level)
    for level in (95, -0.5):
        with pytest.raises(ValueError):
            intervals.paired_bootstrap([1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0], 200, level)


def test_a_seed_that_lacks_an_item_is_not_padding():
    cells = np.ones((1, 3, 5))
    cells[0, :, 4] = np.nan  # padding
    assert intervals.hierarchical_bootstrap(cells, 20).mean == 1
    cells[0, 1, 2] = np.nan
    with pytest.raises(ValueError, match="not finite for some seeds"):
        intervals.hierarchical_bootstrap(cells, 20)


def test_decisions_refuse_words_that_they_would_read_as_something_else():
    found = intervals.Estimate(0.1, 0.01, 9)
    for wrong in (
        {"direction": "more"},
        {"direction": "greater", "sides": "2"},
        {"direction": "greater", "level": 95},
        {"direction": "greater", "smallest": -0.02},
        {"direction": "greater", "smallest": math.nan},
    ):
        with pytest.raises(ValueError):
            decisions.decide(found, **wrong)
    for margin in (0.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="margin"):
            decisions.decide_equivalence(found, margin)
    part = decisions.decide(found, "greater")
    for parts, k in (([part], 0), ([part], 2), ([], 0), ([], 1)):
        with pytest.raises(ValueError, match="parts"):
            decisions.decide_several(parts, k)
    for place in (-1, 2):
        with pytest.raises(ValueError, match="place"):
            decisions.holm_level([0.1, 0.2], place, 0.95)
