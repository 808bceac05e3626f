"""Intervals cover what they promise, and equal the libraries' where a library has them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from instructlab_utils import intervals, metrics


def test_t_interval_equals_scipy():
    x = np.random.default_rng(0).normal(size=7)
    ours = intervals.t_interval(x)
    theirs = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-12)


def test_t_interval_covers_the_truth_19_times_in_20():
    rng = np.random.default_rng(1)
    found = [intervals.t_interval(rng.normal(2.0, 1.0, 5)) for _ in range(2000)]
    covered = np.mean([i.low <= 2.0 <= i.high for i in found])
    assert 0.935 <= covered <= 0.965


@pytest.mark.parametrize("values", [[], [1.0], [[1.0, 2.0], [3.0, 4.0]]])
def test_t_interval_refuses_too_few(values):
    with pytest.raises(ValueError, match="at least 2 values"):
        intervals.t_interval(values)


@pytest.mark.parametrize("hits,n", [(0, 10), (10, 10), (340, 400), (1, 3)])
def test_wilson_equals_scipy(hits, n):
    ours = intervals.wilson_interval(hits, n)
    theirs = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_wilson_refuses_the_impossible():
    for hits, n in ((-1, 5), (6, 5), (0, 0)):
        with pytest.raises(ValueError, match=r"successes must be in 0\.\.n"):
            intervals.wilson_interval(hits, n)


def test_paired_bootstrap_is_near_the_normal_interval_and_repeats():
    rng = np.random.default_rng(2)
    easy = rng.random(400)
    a, b = (
        (rng.random(400) < 0.1 + 0.8 * easy).astype(float),
        (rng.random(400) < 0.05 + 0.8 * easy).astype(float),
    )
    found = intervals.paired_bootstrap(a, b, samples=4000, seed=3)
    half = 1.96 * (a - b).std(ddof=1) / 20
    assert found.mean == pytest.approx((a - b).mean())
    assert (found.low, found.high) == pytest.approx(((a - b).mean() - half, (a - b).mean() + half), abs=0.008)
    assert found == intervals.paired_bootstrap(a, b, samples=4000, seed=3)


def test_paired_bootstrap_is_narrower_than_an_unpaired_one():
    rng = np.random.default_rng(4)
    a = (rng.random(400) < 0.8).astype(float)
    b = np.where(rng.random(400) < 0.05, 1 - a, a)
    paired = intervals.paired_bootstrap(a, b, samples=2000)
    shuffled = intervals.paired_bootstrap(a, rng.permutation(b), samples=2000)
    assert paired.high - paired.low < 0.6 * (shuffled.high - shuffled.low)


def test_scores():
    truth, answers = [0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 0, 2]
    assert metrics.accuracy(truth, answers) == pytest.approx(4 / 6)
    assert metrics.macro_f1(truth, answers) == pytest.approx(f1_score(truth, answers, average="macro"))
    assert str(intervals.Interval(0.5, 0.25, 0.75)) == "0.500 [0.250, 0.750]"
