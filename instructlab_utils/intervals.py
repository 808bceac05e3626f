"""How uncertain a score is: intervals and tests. Taught in lesson 03, section 6."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Interval:
    """A point estimate with the ends of its confidence interval, in the unit of the data.

    ValueError where one is not finite or the ends stand in the wrong order: so every function below refuses values that
    are NaN or infinite, and a level of 95.
    """

    mean: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not (np.isfinite([self.mean, self.low, self.high]).all() and self.low <= self.high):
            found = f"{self.mean} [{self.low}, {self.high}]"
            raise ValueError(f"no interval: {found}; the values must be finite, the level between 0 and 1")

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Student's t interval of the mean of ``values``, one per seed; for paired methods pass the differences.

    Raises ValueError for fewer than two values, and as :class:`Interval`. Source: Student (1908); lesson 03, section 6.
    """
    from scipy import special  # stats takes a second to import

    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or len(x) < 2:
        raise ValueError(
            f"an interval over seeds needs at least 2 values in one dimension, got shape {x.shape}"
        )
    half = special.stdtrit(len(x) - 1, 0.5 + level / 2) * x.std(ddof=1) / np.sqrt(len(x))
    return Interval(float(x.mean()), float(x.mean() - half), float(x.mean() + half))


def wilson_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share, for the accuracy of one run on ``n`` test examples.

    Source: Wilson (1927); lesson 03, section 6. Raises ValueError unless 0 <= successes <= n and n > 0; a share instead
    of a count is no whole number and is refused too.
    """
    from scipy import stats

    if not 0 <= successes <= n or n == 0 or successes % 1 or n % 1:
        raise ValueError(f"successes must be in 0..n and n positive, both whole, got {successes} of {n}")
    z, p = stats.norm.ppf(0.5 + level / 2), successes / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    low, high = centre - half if successes else 0.0, centre + half if successes < n else 1.0  # exact ends
    return Interval(p, float(low), float(high))


def paired_bootstrap(
    a: ArrayLike, b: ArrayLike, samples: int = 10_000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile interval of mean(a) - mean(b), where ``a[i]`` and ``b[i]`` score the same test example.

    Examples are drawn with replacement, always in pairs. Raises ValueError unless both have the same shape (n,), n at
    least 2, and as :class:`Interval`. Source: Efron (1979); lesson 03, section 6.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(
            f"need two scores of the same 2 examples or more, got shapes {a.shape} and {b.shape}"
        )
    d = a - b
    rng = np.random.default_rng(seed)
    means = np.array([d[rng.integers(0, len(d), len(d))].mean() for _ in range(samples)])
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(float(d.mean()), float(low), float(high))


def _units(values: ArrayLike, least: int) -> np.ndarray:
    """``values`` as float64 of shape (n,). ValueError for another shape, fewer than ``least``, or one not finite."""
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or len(x) < least:
        raise ValueError(f"need at least {least} values in one dimension, got shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(
            f"value {np.isfinite(x).argmin()} is {x[np.isfinite(x).argmin()]}: it must be finite"
        )
    return x


def _t_statistic(values: ArrayLike, threshold: float) -> tuple[float, int]:
    """Student's t of the mean against ``threshold``, and its degrees of freedom; NaN where all values equal it."""
    x = _units(values, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float((x.mean() - threshold) / (x.std(ddof=1) / np.sqrt(len(x)))), len(x) - 1


def t_test(values: ArrayLike, threshold: float = 0.0) -> float:
    """Two-sided p-value of Student's t test that the mean of ``values`` is ``threshold``; NaN where all equal it.

    It is below alpha exactly where the (1 - alpha) :func:`t_interval` leaves the threshold out. ValueError for fewer than
    two values or one that is not finite. Source: Student (1908).
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

    The chance of one false rejection or more is at most alpha. ValueError for a NaN or a number outside [0, 1].
    Source: Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    p = _units(p_values, 0)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values lie in [0, 1], got {p.min()} to {p.max()}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


def hierarchical_bootstrap(
    differences: np.ndarray, samples: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile interval of the mean of ``differences``, shape (tasks, seeds, examples).

    Each sample draws seeds with replacement, the same for all tasks, and, within each task, test examples with
    replacement, the same for all seeds: the test set is shared, so its luck is too. NaN marks the padding of
    tasks with fewer examples. Tasks are not drawn: they are the whole of what the claim names.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 8; lesson 03, section 6.
    """
    chosen, seeds = _without_padding(differences), differences.shape[1]
    drawn = _drawn((seeds, *(task.shape[1] for task in chosen)), samples, seed)
    weights = drawn[0] / seeds
    means = np.zeros(samples)
    for task, counts in zip(chosen, drawn[1:], strict=True):
        means += ((weights @ task) * counts).sum(axis=1) / (counts.shape[1] * len(chosen))
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(float(np.mean([task.mean() for task in chosen])), float(low), float(high))


@lru_cache(maxsize=1)
def _drawn(sizes: tuple[int, ...], samples: int, seed: int) -> list[np.ndarray]:
    """How often each of ``size`` things is drawn among ``size`` draws, shape (samples, size), for each size.

    Statistics of one experiment ask for the same draws, one after the other.
    """
    rng, highs = np.random.default_rng(seed), np.repeat(sizes, sizes)
    found = [np.zeros((samples, size), np.uint16) for size in sizes]
    step = max(1, 2_000_000 // len(highs))  # samples at a time, for memory's sake
    for start in range(0, samples, step):
        rows = min(step, samples - start)
        places = rng.integers(0, np.broadcast_to(highs, (rows, len(highs))))
        for counts, mine in zip(found, np.split(places, np.cumsum(sizes)[:-1], axis=1), strict=True):
            size = counts.shape[1]
            flat = (mine + size * np.arange(rows)[:, None]).ravel()
            counts[start : start + rows] = np.bincount(flat, minlength=size * rows).reshape(rows, size)
    return found


def _without_padding(numbers: np.ndarray) -> list[np.ndarray]:
    """(seeds, examples) of each task, without the examples that are padding: NaN for every seed.

    ValueError for another shape, a task without examples, and numbers that are NaN for some seeds only or infinite.
    """
    if numbers.ndim != 3 or not numbers.size:
        raise ValueError(f"need numbers of shape (tasks, seeds, examples), got {numbers.shape}")
    found = [task[:, ~np.isnan(task).all(axis=0)] for task in numbers]
    if not all(task.size and np.isfinite(task).all() for task in found):
        raise ValueError("a task has no example, or one not finite for some seeds: NaN is padding only")
    return found


@dataclass(frozen=True)
class Estimate:
    """A mean, its standard error, and the degrees of freedom of that error; ``bounds`` are those of what is estimated.

    With bounds the interval is symmetric in the logit of the place between them (for a correlation that is Fisher's z
    but for a factor), by the delta method, so that no end is impossible. Sources: Fisher, Metron 1 (1921); Agresti,
    Categorical Data Analysis (2002), section 3.1. Lesson 03.
    """

    mean: float
    error: float
    df: float
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite([self.mean, self.error]).all() and self.error >= 0 and self.df > 0):
            raise ValueError(
                f"no estimate: mean {self.mean}, error {self.error}, degrees of freedom {self.df}"
            )

    def _place(self, value: float) -> float:
        if self.bounds is None:
            return value
        low, high = self.bounds
        with np.errstate(divide="ignore"):
            share = np.clip((value - low) / (high - low), 0, 1)
            return float(np.log(share) - np.log1p(-share))

    @property
    def _scaled_error(self) -> float:
        if self.bounds is None or self.error == 0:
            return self.error
        low, high = self.bounds
        return self.error * (high - low) / ((self.mean - low) * (high - self.mean))

    def interval(self, level: float = 0.95) -> Interval:
        """The two-sided interval at ``level``; both ends are the mean where the error is 0."""
        from scipy import special

        if self.error == 0:
            return Interval(self.mean, self.mean, self.mean)
        half = special.stdtrit(self.df, 0.5 + level / 2) * self._scaled_error
        ends = [self._place(self.mean) - half, self._place(self.mean) + half]
        if self.bounds is not None:
            low, high = self.bounds
            ends = [low + (high - low) * special.expit(end) for end in ends]
        return Interval(self.mean, float(ends[0]), float(ends[1]))

    def _t(self, threshold: float) -> float:
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.float64(self._place(self.mean) - self._place(threshold)) / self._scaled_error)

    def p_value(self, threshold: float = 0.0) -> float:
        """Two-sided p-value of the mean against ``threshold``; 1 where the error is 0 and the mean equals it."""
        from scipy import special

        t = self._t(threshold)
        return 1.0 if np.isnan(t) else float(2 * special.stdtr(self.df, -abs(t)))

    def tost(self, margin: float) -> float:
        """P-value of two one-sided tests that the mean does not lie within ±``margin``; see :func:`tost`."""
        from scipy import special

        sides = [special.stdtr(self.df, -self._t(-margin)), special.stdtr(self.df, self._t(margin))]
        return float(np.max(np.nan_to_num(sides, nan=1.0)))


def over_units(values: ArrayLike, bounds: tuple[float, float] | None = None) -> Estimate:
    """The mean over units (seeds, say) that were drawn at random, shape (units,), or (groups, units) with NaN padding.

    Groups are fixed and count alike; their errors are added (Welch 1947, Satterthwaite 1946). ValueError below two
    units, for another shape, and for values that are not finite. Lesson 03.
    """
    x = np.asarray(values, dtype=float)
    if x.ndim == 1:
        x = _units(x, 0)
    elif x.ndim != 2:
        raise ValueError(f"need units of shape (units,) or (groups, units), got {x.shape}")
    groups = [row[~np.isnan(row)] for row in np.atleast_2d(x)]
    if min(map(len, groups), default=0) < 2:
        raise ValueError("an interval needs at least 2 units in each group")
    # Equal values have no variance; of five equal ones the mean may be off by a bit, and var() is not quite 0.
    parts = np.array([row.var(ddof=1) / len(row) if np.ptp(row) else 0.0 for row in groups])
    parts /= len(groups) ** 2
    df = _satterthwaite(parts, np.array([len(row) - 1 for row in groups]))
    return Estimate(float(np.mean([row.mean() for row in groups])), float(np.sqrt(parts.sum())), df, bounds)


def _satterthwaite(parts: np.ndarray, df: np.ndarray) -> float:
    """Degrees of freedom of a sum of independent estimates of variance. Source: Satterthwaite, Biometrics 2 (1946)."""
    total = parts.sum()
    return float(total**2 / (parts**2 / df).sum()) if total > 0 else float(df.min())


@dataclass(frozen=True)
class Components:
    """Variance that one seed, the present test items, and their interaction on one seed each give to a mean.

    ``df`` are the degrees of freedom of seeds and of items, as they are now.
    """

    seed: float
    item: float
    rest: float
    df: tuple[float, float]

    def estimate(self, mean: float, seeds: int, share: float = 1.0) -> Estimate:
        """The estimate that ``seeds`` seeds and ``share`` times the present number of items would give."""
        parts = np.array([(self.seed + self.rest / share) / seeds, self.item / share])
        df = np.array([seeds - 1, max((self.df[1] + 1) * share - 1, 1)])
        return Estimate(mean, float(np.sqrt(parts.sum())), _satterthwaite(parts, df))


def components(numbers: np.ndarray) -> Components:
    """Variance components of ``numbers``, shape (groups, seeds, items), NaN as padding: items shared by all seeds.

    Moments of the two-way layout without replication; negative ones become 0. Seeds are the same in all groups.
    ValueError below two seeds or two items. Source: Searle, Casella and McCulloch, Variance Components (1992),
    section 4.3. Lesson 03.
    """
    groups = _without_padding(numbers)
    if min(min(y.shape) for y in groups) < 2:
        raise ValueError("components of variance need at least 2 seeds and 2 items in each group")
    scale, seeds = len(groups) ** 2, numbers.shape[1]
    item, rest, df = [], [], []
    for y in groups:
        n = y.shape[1]
        by_item = seeds * y.mean(axis=0).var(ddof=1)  # a mean square, as the next
        residual = y - y.mean(axis=0) - y.mean(axis=1, keepdims=True) + y.mean()
        left = (residual**2).sum() / ((seeds - 1) * (n - 1))
        item.append(max(by_item - left, 0.0) / seeds / n / scale)
        rest.append(left / n / scale)
        df.append(n - 1.0)
    by_seed = np.mean([y.mean(axis=1) for y in groups], axis=0).var(ddof=1)
    items = _satterthwaite(np.array(item), np.array(df))
    return Components(max(by_seed - sum(rest), 0.0), sum(item), sum(rest), (seeds - 1.0, items))


def crossed(numbers: np.ndarray, bounds: tuple[float, float] | None = None) -> Estimate:
    """The mean over random seeds *and* random items that all seeds share; shape (groups, seeds, items), NaN as padding.

    Variance = seed / k + item / n + rest / (k n), with Satterthwaite's degrees of freedom. Sources: as
    :func:`components`; Clark, Journal of Verbal Learning and Verbal Behavior 12 (1973). Lesson 03.
    """
    found = components(numbers)
    mean = float(np.mean([y.mean() for y in _without_padding(numbers)]))
    planned = found.estimate(mean, numbers.shape[1])
    return Estimate(mean, planned.error, planned.df, bounds)


def jackknife(statistic: Callable[[np.ndarray], float], units: int) -> tuple[float, float]:
    """``statistic`` of the indices of all ``units``, and its standard error by leaving out one at a time.

    ValueError below two units. Source: Efron and Tibshirani (1993), chapter 11. Lesson 03.
    """
    if units < 2:
        raise ValueError(f"the jackknife leaves out one of at least 2 units, got {units}")
    every = np.arange(units)
    left = np.array([statistic(np.delete(every, i)) for i in every])
    return float(statistic(every)), float(np.sqrt((units - 1) * left.var()))


def sign_flip_test(values: ArrayLike, samples: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value that the mean of paired differences is 0: the labels of the two arms change places at random.

    All 2^n ways up to 12 values, ``samples`` of them above. ValueError for no value or one that is not finite. Source:
    Fisher, The Design of Experiments (1935), section 21. Lesson 03.
    """
    x = _units(values, 1)
    if len(x) <= 12:
        signs = 1.0 - 2.0 * ((np.arange(2 ** len(x))[:, None] >> np.arange(len(x))) & 1)
    else:
        drawn = np.random.default_rng(seed).choice([-1.0, 1.0], (samples, len(x)))
        signs = np.vstack([np.ones(len(x)), drawn])
    means = np.abs(signs @ x)
    return float((means >= means[0] * (1 - 1e-12)).mean())


def power_of_t(effect: float, error: float, df: float, sides: int = 2, level: float = 0.95) -> float:
    """Chance that a t test at 1 - ``level`` finds a true mean of ``effect`` that is known up to ``error``.

    ValueError for an error below 0, no degrees of freedom, sides other than 1 and 2, a level outside (0, 1).
    Source: Cohen, Statistical Power Analysis (1988), by the noncentral t distribution. Lesson 03.
    """
    from scipy import stats

    if not (error >= 0 and df > 0 and sides in (1, 2) and 0 < level < 1):
        raise ValueError(f"no test: error {error}, {df} degrees of freedom, {sides} sides, level {level}")
    if error == 0:
        return 1.0
    critical = stats.t.ppf(1 - (1 - level) / sides, df)
    return float(stats.nct.sf(critical, df, abs(effect) / error))
