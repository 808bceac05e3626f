"""Which values a method runs with: those that were best on the dev set, on seeds that no result uses.

One seed in ``at`` is the first edition: its metric decides. Three or more ``seeds`` are the second: the mean over them
decides, and a best value at the edge of its list calls for another one beyond, at the same factor, at most twice each
way. What is called for runs in rounds, each with a block per seed: ``tune-s100``, then ``tune-s100-x1`` and
``tune-s100-x2``. So the graph knows all blocks before it starts, seeds run side by side, an interrupted round goes on,
and a round is a function of the lines of the rounds before. One that nothing calls for ends without a notebook.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from instructlab_repro.strict import Strict

Value = str | int | float
Values = dict[str, Value]  # of a method's knobs
Knobs = dict[str, list[Value]]
Lines = Sequence[Mapping[str, Any]]

FEWEST_SEEDS = 3
ROUNDS = 2  # of extension
TIES = 6  # decimals of a mean; what differs less is equal


class Tuning(Strict):
    """``values.METHOD.KNOB`` is a list; several knobs multiply. An axis that ``at`` leaves out is tuned value by value."""

    at: dict[str, Value] = {}
    seeds: list[int] = []
    metric: str
    better: Literal["higher", "lower"] = "higher"
    tie: str | None = None  # a metric that decides between equal means; the higher is the better
    values: dict[str, Knobs] = {}
    same: list[Annotated[list[str], Field(min_length=1)]] = []  # methods whose knobs go in the same steps
    limits: dict[str, list[float]] = {}  # knob → the least and the largest value that makes sense

    @property
    def places(self) -> dict[str, list[Value]]:
        """The axes that do not spread over the grid while tuning, with their values."""
        seeds: dict[str, list[Value]] = {"seed": [*self.seeds]} if self.seeds else {}
        return {axis: [value] for axis, value in self.at.items()} | seeds

    @property
    def rounds(self) -> int:
        """How many rounds there may be, with the one of the given values."""
        wide = any(_extendable(values) for knobs in self.values.values() for values in knobs.values())
        return bool(self.values) + ROUNDS * (wide and len(self.seeds) >= FEWEST_SEEDS)

    def called_for(self, method: str, lines: Lines) -> list[list[Values]]:
        """What a method tries, round by round, by its finished ``lines`` of one place: each round but the last has run.

        The first is tried in any case; it is empty for a method that is not tuned.
        """
        knobs = self.values.get(method, {})
        found = [_product(knobs)]
        while knobs and len(found) < self.rounds:
            tried = [*itertools.chain(*found)]
            if not all(_of(values, lines) for values in tried):
                break
            best = self._least(tried, lines)
            knobs = {knob: self._widened(knob, values, best[knob]) for knob, values in knobs.items()}
            more = [values for values in _product(knobs) if values not in tried]
            if not more:
                break
            found.append(more)
        return found

    def best(self, method: str, lines: Lines) -> Values:
        """The values that a method runs with, of all it tried; of equals the first. {} if it is not tuned."""
        asked = itertools.chain(*self.called_for(method, lines))
        tried = [values for values in asked if _of(values, lines)]
        return self._least(tried, lines) if tried else {}

    def check(self, grid_seeds: list[Value]) -> None:
        """ValueError for values that do not make a fair comparison."""
        if self.at.get("seed") is None and not self.seeds:
            raise ValueError("tuning.at: no seed; tune on one that no result uses")
        if "seed" in self.at and self.seeds:
            raise ValueError("tuning.seeds: 'at' names a seed too; keep one of them")
        if len(set(self.seeds)) != len(self.seeds) or any(seed < 0 for seed in self.seeds):
            raise ValueError("tuning.seeds: write whole numbers, 0 or more, each once")
        if shared := [seed for seed in self.places["seed"] if seed in grid_seeds]:
            place = "seeds" if self.seeds else "at"
            raise ValueError(f"tuning.{place}: seed {shared[0]} is also a seed of the grid; choose another")
        for method, knobs in self.values.items():
            for knob, values in knobs.items():
                if len(set(values)) != len(values):
                    raise ValueError(f"tuning.values.{method}.{knob}: tries a value twice")
        if len(counts := {len(_product(knobs)) for knobs in self.values.values()}) > 1:
            raise ValueError(f"tuning.values: each method must try equally many values, not {sorted(counts)}")
        steps = {m: {k: _steps(v) for k, v in knobs.items()} for m, knobs in self.values.items()}
        for first, *others in self.same:
            if odd := [method for method in others if steps.get(method) != steps.get(first)]:
                raise ValueError(f"tuning.same: {odd[0]!r} does not go in the same steps as {first!r}")
        for knob, limits in self.limits.items():
            if len(limits) != 2 or limits[0] > limits[1]:
                raise ValueError(f"tuning.limits.{knob}: write the least and the largest value")

    def _least(self, tried: list[Values], lines: Lines) -> Values:
        """The best of ``tried``: with the fewest runs that did not train, whose dev loss can be lower than that of a
        network which fits too closely; then by the mean of the metric, by that of ``tie``, by the order."""
        sign = -1 if self.better == "higher" else 1

        def rank(values: Values) -> tuple[int, float, float]:
            runs = _of(values, lines)
            failed = sum(bool(line.get("failed")) for line in runs) if self.seeds else 0
            return failed, _mean(runs, self.metric, sign), _mean(runs, self.tie, -1) if self.tie else 0.0

        return min(tried, key=rank)  # min keeps the first of equals

    def _widened(self, knob: str, values: list[Value], best: Value) -> list[Value]:
        if not _extendable(values) or best not in (min(values), max(values)):
            return values
        new = beyond([float(value) for value in values], upwards=best == max(values))
        low, high = self.limits.get(knob, (0, math.inf))
        value = round(new) if all(isinstance(value, int) for value in values) else new
        return [*values, value] if low <= value <= high and value not in values and value > 0 else values


def beyond(values: list[float], *, upwards: bool) -> float:
    """The next value past an edge: half decades (1, 3, 10, …) go on as such, others by the factor of the last step."""
    edge, inner = sorted(values, reverse=upwards)[:2]
    places = [round(2 * math.log10(value)) for value in (edge, inner)]
    if all(math.isclose(value, _half_decade(p)) for value, p in zip((edge, inner), places, strict=True)):
        return _half_decade(2 * places[0] - places[1])
    return float(f"{edge * edge / inner:.6g}")


def _half_decade(place: int) -> float:
    """0 → 1, 1 → 3, 2 → 10, -1 → 0.3: as a TOML file writes them."""
    return float(f"{(1, 3)[place % 2]}e{place // 2}")


def _extendable(values: list[Value]) -> bool:
    return len(values) > 1 and all(not isinstance(value, str) and value > 0 for value in values)


def _product(knobs: Knobs) -> list[Values]:
    return [dict(zip(knobs, found, strict=True)) for found in itertools.product(*knobs.values()) if knobs]


def _of(values: Values, lines: Lines) -> Lines:
    return [line for line in lines if line["tuned"] == values]


def _steps(values: list[Value]) -> list[float]:
    """The factors between neighbours as tenths of a decade: 3 and 10/3 are both half a decade."""
    ordered = sorted(float(value) for value in values) if _extendable(values) else []
    return [round(math.log10(b / a), 1) for a, b in itertools.pairwise(ordered)]


def _mean(lines: Lines, metric: str, sign: int) -> float:
    """The rounded mean, so that float noise breaks no tie; infinite (the worst) where a run has no finite number."""
    found = [line.get(metric) for line in lines]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in found):
        return math.inf
    return round(sign * sum(found) / len(found), TIES)  # type: ignore[arg-type]
