"""How uncertain a score is: intervals and tests. Taught in lesson 03, section 6."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Interval:
    """A point estimate with the ends of its confidence interval, in the unit of the data."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Student's t interval of the mean of ``values``, one per seed; for paired methods pass the differences.

    Raises ValueError for fewer than two values. Source: Student (1908); lesson 03, section 6.
    """
    from scipy import stats

    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or len(x) < 2:
        raise ValueError(
            f"an interval over seeds needs at least 2 values in one dimension, got shape {x.shape}"
        )
    half = stats.t.ppf(0.5 + level / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))
    return Interval(float(x.mean()), float(x.mean() - half), float(x.mean() + half))


def wilson_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share, for the accuracy of one run on ``n`` test examples.

    Source: Wilson (1927); lesson 03, section 6. Raises ValueError unless 0 <= successes <= n and n > 0.
    """
    from scipy import stats

    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"successes must be in 0..n and n positive, got {successes} of {n}")
    z, p = stats.norm.ppf(0.5 + level / 2), successes / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return Interval(p, float(centre - half), float(centre + half))


def paired_bootstrap(
    a: ArrayLike, b: ArrayLike, samples: int = 10_000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile interval of mean(a) - mean(b), where ``a[i]`` and ``b[i]`` score the same test example.

    Examples are drawn with replacement, always in pairs. Source: Efron (1979); lesson 03, section 6.
    """
    d = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    rng = np.random.default_rng(seed)
    means = np.array([d[rng.integers(0, len(d), len(d))].mean() for _ in range(samples)])
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(float(d.mean()), float(low), float(high))


def _t_statistic(values: ArrayLike, threshold: float) -> tuple[float, int]:
    """Student's t of the mean against ``threshold``, and its degrees of freedom; NaN where all values equal it."""
    x = np.asarray(values, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float((x.mean() - threshold) / (x.std(ddof=1) / np.sqrt(len(x)))), len(x) - 1


def t_test(values: ArrayLike, threshold: float = 0.0) -> float:
    """Two-sided p-value of Student's t test that the mean of ``values`` is ``threshold``; NaN where all equal it.

    Source: Student (1908). It is below alpha exactly where the (1 - alpha) :func:`t_interval` leaves the threshold out.
    """
    from scipy import special  # stats.ttest_1samp says the same, a hundred times slower

    t, df = _t_statistic(values, threshold)
    return float(2 * special.stdtr(df, -abs(t)))


def tost(values: ArrayLike, margin: float) -> float:
    """P-value of two one-sided t tests that the mean of ``values`` does not lie within ±``margin``; small: it does.

    It is below alpha exactly where the (1 - 2 alpha) :func:`t_interval` lies inside the margin. NaN where all values
    equal the margin. Source: Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15 (1987).
    """
    from scipy import special

    (low, df), (high, _) = _t_statistic(values, -margin), _t_statistic(values, margin)
    return float(np.max([special.stdtr(df, -low), special.stdtr(df, high)]))


def holm(p_values: ArrayLike) -> np.ndarray:
    """P-values corrected for their number, shape as given: those below alpha may be rejected together.

    The chance of one false rejection or more is at most alpha. Source: Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted
