"""Which values a method runs with: those whose tuning runs were best on the dev set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from instructlab_repro.experiments.spec import Tuning, Value


def choose(
    tuning: Tuning, free: Sequence[str], lines: Iterable[Mapping[str, Any]]
) -> dict[tuple, dict[str, Value]]:
    """(method, place on the ``free`` axes) → the values with the best metric; of equals the first that was tried."""
    sign = -1 if tuning.better == "higher" else 1
    tried: dict[tuple, list[tuple[float, int, dict[str, Value]]]] = defaultdict(list)
    for line in lines:
        order = tuning.settings(line["method"]).index(line["tuned"])
        cell = (line["method"], *(line[axis] for axis in free))
        tried[cell].append((sign * line[tuning.metric], order, line["tuned"]))
    return {cell: min(results, key=lambda r: r[:2])[2] for cell, results in tried.items()}
