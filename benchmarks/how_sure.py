"""One recorded comparison, taken apart: what seeds give to its uncertainty, and what test items give.

    python benchmarks/how_sure.py    # seconds; writes a block and the picture of docs/how-sure.md

The runs of both methods of claim ``CLAIM`` stored which test item they answered rightly. So the same mean difference gets
an interval over seeds alone, over items alone, and over both; and the power of any other plan can be computed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from instructlab_repro import claims
from instructlab_repro.claims import verdicts
from instructlab_repro.pages import grid, update_blocks
from instructlab_utils.intervals import Components, Interval, components, crossed, over_units, power_of_t

CLAIM, SMALLEST = "C2", 0.02
PAGE = Path(__file__).parents[1] / "docs" / "how-sure.md"
PICTURE = PAGE.with_suffix(".png")
SEEDS = np.arange(3, 41)


def numbers() -> tuple[str, np.ndarray]:
    """The name of the claim's first statistic, and its value on each test item: (tasks, seeds, items), NaN as padding."""
    claim = claims.load(CLAIM)
    runs, statistic = verdicts.recorded(claim, "laptop"), claim.deciding[0]
    seeds = claims.per_seed(statistic, runs.lines, runs.axes).seeds
    cells = claims.example_cells(statistic, runs.stored, runs.lines, runs.axes, seeds)
    found = claims.numbers_of(statistic, cells)
    assert found is not None, f"the runs of {CLAIM} store nothing for each test item"
    return statistic.name, found


def intervals(found: np.ndarray) -> dict[str, Interval]:
    """What varies → the 95 % interval of the mean."""
    return {
        "seeds, these items": over_units(np.nanmean(found, axis=2).mean(axis=0)).interval(),
        "items, these seeds": over_units(found.mean(axis=1)).interval(),
        "seeds and items": crossed(found).interval(),
    }


def power(parts: Components, items: float) -> list[float]:
    """The chance to find ``SMALLEST`` with each number of ``SEEDS``, and so many times the present items."""
    plans = [parts.estimate(SMALLEST, int(k), items) for k in SEEDS]
    return [power_of_t(SMALLEST, plan.error, plan.df) for plan in plans]


def block() -> str:
    """The worked example as Markdown."""
    name, found = numbers()
    parts, tasks, seeds = components(found), len(found), found.shape[1]
    items = int((~np.isnan(found[:, 0])).sum())
    variances = {"seeds": parts.seed / seeds, "test items": parts.item, "the rest": parts.rest / seeds}
    rows = [["what may turn out otherwise", "95 % interval, points", "width"]]
    for what, one in intervals(found).items():
        rows.append(
            [what, f"[{100 * one.low:+.1f}, {100 * one.high:+.1f}]", f"{100 * (one.high - one.low):.1f}"]
        )
    shares = ", ".join(f"{what} {v / sum(variances.values()):.0%}" for what, v in variances.items())
    told = f"“{name}” ([{CLAIM}](../LEDGER.md#{CLAIM.lower()})): {100 * found_mean(found):+.1f} points"
    more = {k: power(parts, k) for k in (1.0, 4.0)}
    at = int(np.flatnonzero(SEEDS == seeds)[0])
    return (
        f"{told}, the mean of {seeds} seeds on the same {items} test items of {tasks} task{'s' * (tasks > 1)}.\n\n"
        f"{grid(rows, [True, False, False])}\n\n"
        f"Of the variance of this mean come from {shares}. With these {seeds} seeds and these items, a difference of "
        f"{100 * SMALLEST:.0f} points would be found with a power of {more[1.0][at]:.2f}; with four times the items "
        f"{more[4.0][at]:.2f}; with {SEEDS[-1]} seeds and these items {more[1.0][-1]:.2f}.\n"
    )


def found_mean(found: np.ndarray) -> float:
    return float(np.nanmean(found, axis=2).mean())


def draw() -> None:
    """Left the dots of the seeds and the three intervals, right the power of other plans."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    from instructlab_utils import plotting

    name, found = numbers()
    figure, (left, right) = plotting.axes(1, 2, width=4.6, height=2.9)
    by_seed = 100 * np.nanmean(found, axis=2).mean(axis=0)
    left.plot(by_seed, np.zeros(len(by_seed)), "o", color="#999999", label="one seed")
    told: dict[str, Any] = intervals(found)
    for i, one in enumerate(told.values()):
        look = plotting.style(i)
        left.plot(100 * one.mean, i + 1, **look)
        left.hlines(i + 1, 100 * one.low, 100 * one.high, color=look["color"], linewidth=2)
    left.set(
        yticks=range(4), yticklabels=["each seed", *told], xlabel="difference in accuracy, points", title=name
    )
    left.set_ylim(3.4, -0.4)
    parts = components(found)
    for i, items in enumerate((1.0, 4.0)):
        look = plotting.style(i) | {"marker": ""}
        right.plot(
            SEEDS, power(parts, items), label="these items" if items == 1 else "four times as many", **look
        )
    right.axhline(0.8, color="#999999", linewidth=0.8)
    right.set(xlabel="seeds", ylabel=f"power at {100 * SMALLEST:.0f} points", ylim=(0, 1.02))
    right.legend()
    figure.savefig(PICTURE)


if __name__ == "__main__":
    update_blocks(PAGE, {"worked-example": block()})
    draw()
    print(block())
