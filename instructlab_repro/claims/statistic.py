"""Kinds of statistics: what a claim's file may measure, and the one number per seed that each gives."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, get_args

import numpy as np
from pydantic import Field, model_validator

from instructlab_repro.experiments import Value
from instructlab_repro.strict import Strict
from instructlab_utils.errors import RecordError

Axes = Mapping[str, Sequence[Value]]  # axis → values; "method" counts as one
Where = dict[str, Value]
Bounds = tuple[float, float]

SHARES = ("accuracy", "em", "exact", "f1", "macro_f1", "span_f1", "top_share", "unused", "found")  # 0 to 1
COUNTS = ("trainable_parameters", "file_bytes")  # metrics that are what they are: no luck, and no interval
DIGITS = 9  # means are rounded before they are ordered, so that the noise of a sum breaks no tie


class Statistic(Strict):
    """What all kinds share. ``metric`` is a numeric field of the lines; the axes in ``over`` are averaged.

    Every axis but the seed stands once in ``over``, in ``axis``, or with a value in ``a``, ``b`` or ``at``.
    ``number`` takes y, shape (curves, groups, points): groups are the cells of ``over``, points those of ``axis``.
    """

    name: str
    metric: str
    over: list[str] = []

    sides: ClassVar[tuple[str, ...]] = ()  # the fields that hold cells, one for each curve
    least: ClassVar[int] = 1  # points
    numeric: ClassVar[bool] = False  # the axis must hold numbers
    per_example: ClassVar[bool] = False  # the number is a mean over test examples
    straight: ClassVar[bool] = False  # its interval is symmetric although the number has bounds
    limits: ClassVar[Bounds | None] = None  # what the number of a share of examples cannot leave

    @property
    def bounds(self) -> Bounds | None:
        """What the number cannot leave."""
        return self.limits if self.metric in SHARES or self.metric.startswith("accuracy_") else None

    @property
    def curves(self) -> dict[str, tuple[Where, str]]:
        """Place in the file → the cells of a curve, and its metric."""
        return {side: (getattr(self, side), self.metric) for side in self.sides}

    def points(self, axes: Axes) -> list[Where]:
        return [{}]

    def tied(self, y: np.ndarray) -> bool:
        """Whether this seed has an exact tie where an order was asked for."""
        return False


class Single(Statistic):
    at: Where = {}
    sides: ClassVar[tuple[str, ...]] = ("at",)


class Pair(Statistic):
    a: Where
    b: Where
    sides: ClassVar[tuple[str, ...]] = ("a", "b")

    def tied(self, y: np.ndarray) -> bool:
        return y.shape[2] == 1 and round(float((y[0] - y[1]).mean()), DIGITS) == 0


class Along(Statistic):
    """``axis`` is walked along its ``values``, by default all; with ``log10`` its logarithm counts."""

    axis: str
    values: list[Value] = []
    log10: bool = False

    least: ClassVar[int] = 2

    def points(self, axes: Axes) -> list[Where]:
        found = list(self.values or axes.get(self.axis, ()))
        if self.numeric:
            found.sort()
        return [{self.axis: value} for value in found]

    def x(self, axes: Axes) -> np.ndarray:
        found = np.array([point[self.axis] for point in self.points(axes)], dtype=float)
        return np.log10(found) if self.log10 else found


class PairedDifference(Pair):
    """metric(a) - metric(b) on the same seed, so on the same examples."""

    kind: Literal["paired_difference"]
    per_example: ClassVar[bool] = True
    straight: ClassVar[bool] = True
    limits: ClassVar[Bounds | None] = (-1.0, 1.0)

    def number(self, y: np.ndarray, axes: Axes) -> float:
        return float((y[0] - y[1]).mean())


class Level(Single):
    """The metric itself, to be held against a threshold."""

    kind: Literal["value"]
    per_example: ClassVar[bool] = True
    limits: ClassVar[Bounds | None] = (0.0, 1.0)

    def number(self, y: np.ndarray, axes: Axes) -> float:
        return float(y.mean())


class Ratio(Pair):
    """The mean of log2(metric(a) / metric(b)): 1 is twice as much, -1 half as much, 0 the same."""

    kind: Literal["ratio"]

    def number(self, y: np.ndarray, axes: Axes) -> float:
        if (y <= 0).any():
            what = f"a ratio needs positive numbers, and {self.metric} is not"
            raise RecordError(f"{self.name}: {what}; use paired_difference.")
        return float(np.log2(y[0] / y[1]).mean())


class Slope(Single, Along):
    """The least-squares slope of the metric on the axis; with ``log10``, per factor of ten."""

    kind: Literal["slope"]
    numeric: ClassVar[bool] = True

    def number(self, y: np.ndarray, axes: Axes) -> float:
        return float(np.polyfit(self.x(axes), y[0].mean(axis=0), 1)[0])


class Range(Single, Along):
    """Largest minus smallest metric along the axis; the axis may be ``method``."""

    kind: Literal["range"]
    limits: ClassVar[Bounds | None] = (0.0, 1.0)

    def number(self, y: np.ndarray, axes: Axes) -> float:
        return float(np.ptp(y[0].mean(axis=0)))


class SpreadDifference(Statistic):
    """Largest minus smallest metric over the cells of ``a``, minus the same over the cells of ``b``: which moves more."""

    kind: Literal["spread_difference"]
    a: list[Where] = Field(min_length=2)
    b: list[Where] = Field(min_length=2)

    @property
    def curves(self) -> dict[str, tuple[Where, str]]:
        cells = [(f"{side}[{i}]", at) for side in ("a", "b") for i, at in enumerate(getattr(self, side))]
        return {name: (at, self.metric) for name, at in cells}

    def number(self, y: np.ndarray, axes: Axes) -> float:
        means = y.mean(axis=(1, 2))
        return float(np.ptp(means[: len(self.a)]) - np.ptp(means[len(self.a) :]))


class RankCorrelation(Single, Along):
    """Spearman's, along the axis, of the metric with a published ``reference`` (value = number) or an ``other`` metric.

    0 where one side does not vary: no order, no agreement.
    """

    kind: Literal["rank_correlation"]
    reference: dict[str, int | float] = {}
    other: str = ""
    least: ClassVar[int] = 3

    @property
    def bounds(self) -> Bounds | None:
        return (-1.0, 1.0)

    @model_validator(mode="after")
    def _one(self) -> RankCorrelation:
        if bool(self.reference) == bool(self.other):
            raise ValueError("give either a reference or an other metric")
        return self

    @property
    def curves(self) -> dict[str, tuple[Where, str]]:
        return super().curves | ({"other": (self.at, self.other)} if self.other else {})

    def points(self, axes: Axes) -> list[Where]:
        known = self.reference
        return [point for point in super().points(axes) if not known or str(point[self.axis]) in known]

    def curves_of(self, y: np.ndarray, axes: Axes) -> np.ndarray:
        """What is compared, shape (2, points): our rounded means, and the reference or the other metric's."""
        ours = y.mean(axis=1).round(DIGITS)
        if self.reference:
            return np.array([ours[0], [self.reference[str(p[self.axis])] for p in self.points(axes)]])
        return ours

    def number(self, y: np.ndarray, axes: Axes) -> float:
        return spearman(*self.curves_of(y, axes))

    def tied(self, y: np.ndarray) -> bool:
        return any(len(set(curve)) < len(curve) for curve in y.mean(axis=1).round(DIGITS))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation, equal values sharing their mean rank; 0 where one side does not vary."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    ranks = []
    for values in (a, b):
        _, place, count = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(count) - (count - 1) / 2)[place])
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


class Argmax(Single, Along):
    """The value on the axis with the best metric, of equals the first; with ``log10`` its logarithm."""

    kind: Literal["argmax"]
    better: Literal["higher", "lower"] = "higher"
    numeric: ClassVar[bool] = True

    def number(self, y: np.ndarray, axes: Axes) -> float:
        return float(self.x(axes)[np.argmax(self._goodness(y))])

    def tied(self, y: np.ndarray) -> bool:
        curve = self._goodness(y)
        return int((curve == curve.max()).sum()) > 1

    def _goodness(self, y: np.ndarray) -> np.ndarray:
        curve = y[0].mean(axis=0).round(DIGITS)
        return curve if self.better == "higher" else -curve


Kind = PairedDifference | Level | Ratio | Slope | Range | SpreadDifference | RankCorrelation | Argmax
AnyStatistic = Annotated[Kind, Field(discriminator="kind")]
KINDS = frozenset(get_args(kind.model_fields["kind"].annotation)[0] for kind in get_args(Kind))


@dataclass(frozen=True)
class PerSeed:
    """``values[i]`` belongs to ``seeds[i]``; ``missing`` names the cells that have no run.

    ``y``, shape (seeds, curves, groups, points), is what the values were made from.
    """

    seeds: tuple[int, ...]
    values: np.ndarray
    by_task: dict[str, np.ndarray] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    ties: int = 0
    axes: Axes = field(default_factory=dict)
    y: np.ndarray = field(default_factory=lambda: np.zeros(0))


def by_cell(rows: Iterable[Mapping[str, Any]], axes: Axes) -> dict[tuple, Mapping[str, Any]]:
    return {tuple(row.get(axis) for axis in axes): row for row in rows if row.get("stage", "run") == "run"}


def groups_of(statistic: AnyStatistic, axes: Axes) -> list[Where]:
    grid = itertools.product(*(axes[axis] for axis in statistic.over))
    return [dict(zip(statistic.over, values, strict=True)) for values in grid]


def _cells(
    statistic: AnyStatistic, table: Mapping[tuple, Mapping[str, Any]], axes: Axes, seed: Value
) -> tuple[np.ndarray, list[str]]:
    """The metrics of one seed, shape (curves, groups, points), NaN where there is none, and the names of those."""
    curves, groups, points = statistic.curves.values(), groups_of(statistic, axes), statistic.points(axes)
    values, missing = [], []
    for (where, metric), group, point in itertools.product(curves, groups, points):
        cell = {"seed": seed, **where, **group, **point}
        line = table.get(tuple(cell[axis] for axis in axes))
        value = line.get(metric) if line is not None else None
        there = isinstance(value, int | float) and np.isfinite(value)
        values.append(value if there else np.nan)
        if not there:
            shown = (v if isinstance(v, str) else f"{axis} = {v:g}" for axis in axes for v in [cell[axis]])
            missing.append(" · ".join(shown) + (f" · its {metric}" if line is not None else ""))
    return np.array(values, dtype=float).reshape(len(curves), len(groups), len(points)), missing


def per_seed(statistic: AnyStatistic, lines: Iterable[Mapping[str, Any]], axes: Axes) -> PerSeed:
    """The statistic of every seed. A seed that lacks a cell gives no number, and the cell is named."""
    if len(statistic.points(axes)) < statistic.least:  # a profile may have shortened the axis
        return PerSeed((), np.array([]), missing=(f"{statistic.name}: too few values on the axis",))
    table, kept, missing = by_cell(lines, axes), {}, []
    for seed in axes["seed"]:
        y, absent = _cells(statistic, table, axes, seed)
        missing += absent
        if not absent:
            kept[int(seed)] = y
    by_task: dict[str, list[int]] = {}
    for place, group in enumerate(groups_of(statistic, axes)):
        if "task" in group:
            by_task.setdefault(str(group["task"]), []).append(place)
    found = list(kept.values())
    return PerSeed(
        tuple(kept),
        np.array([statistic.number(y, axes) for y in found]),
        {t: np.array([statistic.number(y[:, mine], axes) for y in found]) for t, mine in by_task.items()},
        tuple(missing),
        sum(statistic.tied(y) for y in found),
        axes,
        np.array(found),
    )
