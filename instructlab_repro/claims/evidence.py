"""What stands behind a statistic: numbers per test example, the estimate of the second edition, and its control."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from instructlab_repro.claims.claim import Claim, fits_unit
from instructlab_repro.claims.statistic import (
    AnyStatistic,
    Axes,
    PairedDifference,
    PerSeed,
    Range,
    RankCorrelation,
    SpreadDifference,
    Where,
    by_cell,
    groups_of,
    spearman,
)
from instructlab_utils.intervals import Estimate, crossed, jackknife, over_units, sign_flip_test

SHUFFLES = 200  # of labels within items, for the value of a spread under no effect

Rows = Iterable[Mapping[str, Any]]


def example_cells(
    statistic: AnyStatistic, stored: Rows, lines: Rows, axes: Axes, seeds: Iterable[int]
) -> list[np.ndarray] | None:
    """For each cell of ``over``: the metric of every test example, shape (seeds, curves, points, examples).

    From ``scores``, or for accuracy from predictions == targets, where their mean is the metric that the line holds.
    None where something is not stored, or the curves have other numbers of examples.
    """
    arrays, table = by_cell(stored, axes), by_cell(lines, axes)

    def one(cell: Where, metric: str) -> np.ndarray:
        place = tuple(cell[axis] for axis in axes)
        row = arrays.get(place, {})
        known = [row["scores"]] if "scores" in row else []
        if metric == "accuracy" and "predictions" in row and "targets" in row:
            known.append(np.equal(row["predictions"], row["targets"]))
        fits = (x for x in known if np.isclose(np.mean(x), table[place][metric], atol=1e-4))
        return np.asarray(next(fits, ()), dtype=float)

    cells = []
    curves, points = statistic.curves.values(), statistic.points(axes)
    for group in groups_of(statistic, axes):
        runs = itertools.product(seeds, curves, points)
        found = [one({"seed": s, **where, **group, **point}, metric) for s, (where, metric), point in runs]
        if len(sizes := {len(numbers) for numbers in found}) != 1 or 0 in sizes:
            return None
        cells.append(np.array(found).reshape(-1, len(curves), len(points), *sizes))
    return cells


def numbers_of(statistic: AnyStatistic, cells: Sequence[np.ndarray] | None) -> np.ndarray | None:
    """The statistic per test example, shape (groups, seeds, examples), NaN where a group has fewer examples.

    None for kinds that are no mean over examples, and where something is not stored.
    """
    if cells is None or not statistic.per_example:
        return None
    numbers = [y[:, 0, 0] - y[:, 1, 0] if y.shape[1] == 2 else y[:, 0, 0] for y in cells]
    longest = max(y.shape[1] for y in numbers)
    return np.array([np.pad(y, ((0, 0), (0, longest - y.shape[1])), constant_values=np.nan) for y in numbers])


def own_items(claim: Claim, stored: Rows, axes: Axes) -> bool:
    """Whether each seed has test items of its own: as [power] says, else where the targets of two seeds differ."""
    if claim.power is not None and claim.power.items is not None:
        return claim.power.items
    seen: dict[tuple, set[bytes]] = {}
    for row in stored:
        if "targets" in row:
            place = tuple(row.get(axis) for axis in axes if axis not in ("seed", "method"))
            seen.setdefault(place, set()).add(np.asarray(row["targets"]).tobytes())
    return any(len(found) > 1 for found in seen.values())


def estimate(
    claim: Claim, statistic: AnyStatistic, numbers: PerSeed, examples: np.ndarray | None, own: bool
) -> tuple[Estimate, str]:
    """The mean with its error by the claim's unit, and what varies in it, for a person.

    Statistics that only stand beside the verdict, and have no number for each unit, get the seeds. ValueError for
    fewer than two units; what an item says must be stored where the unit is the item.
    """
    k, unit = len(numbers.seeds), claim.unit if fits_unit(statistic, claim.unit) else "seed"
    bounds = None if statistic.straight else statistic.bounds
    if unit == "task":
        tasks = [values.mean() for values in numbers.by_task.values()]
        return over_units(tasks, bounds), f"{len(tasks)} tasks"
    if unit == "method":
        return _over_methods(statistic, numbers), f"{numbers.y.shape[-1]} methods"
    if unit == "item" and examples is not None:
        pooled = examples.reshape(len(examples), -1) if own else examples.mean(axis=1)
        return over_units(pooled, bounds), f"{(~np.isnan(pooled)).sum()} items"
    if examples is not None and not own and examples.shape[2] > 1:
        return crossed(examples, bounds), f"{k} seeds × {(~np.isnan(examples[:, 0])).sum()} shared items"
    return over_units(numbers.values, bounds), f"{k} seeds" + ", own items" * own


def _over_methods(statistic: AnyStatistic, numbers: PerSeed) -> Estimate:
    """A rank correlation over methods that were drawn at random: the jackknife leaves one out at a time.

    Of the methods' means over seeds, since what is lucky within one seed is no property of a method.
    """
    assert isinstance(statistic, RankCorrelation)
    a, b = statistic.curves_of(numbers.y.mean(axis=0), numbers.axes)
    centre, error = jackknife(lambda kept: spearman(a[kept], b[kept]), len(a))
    return Estimate(centre, error, len(a) - 1, statistic.bounds)


def under_no_effect(
    statistic: AnyStatistic, numbers: PerSeed, cells: Sequence[np.ndarray] | None
) -> dict[str, float] | None:
    """The control: what the statistic says when labels change places, which cannot have an effect.

    Paired differences: the ``p`` of swapping the two arms by seed. Ranges: the ``mean``, and the middle 95 % (``low``,
    ``high``), when the settings are shuffled within each test item. None for other kinds.
    """
    if isinstance(statistic, PairedDifference):
        return {"p": sign_flip_test(numbers.values)}
    if cells is None or not isinstance(statistic, Range | SpreadDifference):
        return None
    rng = np.random.default_rng(0)
    found = np.zeros(SHUFFLES)
    for number in range(SHUFFLES):
        # (seeds, curves × points, examples): the settings of an item change places, its numbers stay its own
        flat = [rng.permuted(y.reshape(len(y), -1, y.shape[3]), axis=1) for y in cells]
        means = [shuffled.reshape(y.shape).mean(axis=3) for shuffled, y in zip(flat, cells, strict=True)]
        by_seed = np.stack(means, axis=2)  # (seeds, curves, groups, points)
        found[number] = np.mean([statistic.number(y, numbers.axes) for y in by_seed])
    low, high = np.quantile(found, [0.025, 0.975])
    return {"mean": float(found.mean()), "low": float(low), "high": float(high)}
