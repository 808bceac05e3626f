"""From recorded lines to one table: its cells, costs, verdicts and notes, before they take a form.

A cell that lacks a run is not averaged; it is left out and named in the notes. Published numbers stand in groups of
their own and are never ranked with ours.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from instructlab_repro import experiments
from instructlab_repro.experiments import Experiment, Table, Value
from instructlab_repro.pages.markdown import ledger_rows
from instructlab_utils.errors import ConfigError, RecordError
from instructlab_utils.intervals import Interval, t_interval


@dataclass(frozen=True)
class Cell:
    """The metric of a method in a column as recorded, not scaled: one value per seed, in the grid's order."""

    values: tuple[float, ...]
    interval: Interval | None  # None for a single seed
    best: bool = False

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def sd(self) -> float:
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else float("nan")


class Entry(NamedTuple):
    """One place of a printed table; ``small`` is the interval, ``claim`` a link to the ledger."""

    text: str
    small: str = ""
    best: bool = False
    claim: str = ""


class Group(NamedTuple):
    """Columns under one heading. ``rows[method]`` has an entry per head; text is set left, numbers right."""

    title: str
    heads: list[str]
    rows: dict[str, list[Entry]]
    left: bool = False


@dataclass
class Summary:
    """One table of an experiment. ``cells[method, *column]``; one without all its runs is absent, and ``missing``.

    Absent and not missing is a metric that the method does not have: null in every run.
    """

    experiment: Experiment
    table: Table
    cells: dict[tuple, Cell] = field(default_factory=dict)
    missing: dict[tuple, str] = field(default_factory=dict)
    costs: dict[str, dict[str, float]] = field(default_factory=dict)  # method → name in COSTS → number
    verdicts: dict[str, tuple[str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @cached_property
    def spread(self) -> list[str]:
        """The axes whose values make the columns."""
        return self.table.columns or [axis for axis in self.experiment.axes if axis != "seed"]

    @cached_property
    def rest(self) -> list[str]:
        """The axes over which each seed is averaged."""
        return [axis for axis in self.experiment.axes if axis not in (*self.spread, "seed")]

    @cached_property
    def columns(self) -> list[tuple[Value, ...]]:
        return list(itertools.product(*(self.experiment.axes[axis] for axis in self.spread)))

    @cached_property
    def curve(self) -> str | None:
        """The numeric axis with the most values, at least two: curves run along it, costs are told at its end."""
        lengths = {a: len(v) for a in self.spread if not isinstance((v := self.experiment.axes[a])[0], str)}
        longest = max(lengths, key=lambda axis: lengths[axis], default="")
        return longest if lengths.get(longest, 0) > 1 else None

    @property
    def clock(self) -> str:
        """The line's field that tells the cost: on a GPU the processor waits, so wall time counts."""
        return "seconds" if self.experiment.profile == "gpu" else "cpu_seconds"

    @property
    def title(self) -> str:
        return f"{self.table.title} ({self.table.unit})" if self.table.unit else self.table.title

    def label(self, method: str) -> str:
        return self.experiment.labels.get(method, method)

    def name(self, column: tuple[Value, ...], skip: Iterable[str] = ()) -> str:
        """ "movie-sentiment, n = 50"; without the axes to ``skip``."""
        pairs = zip(self.spread, column, strict=True)
        return ", ".join(_coordinate(axis, value) for axis, value in pairs if axis not in skip)

    def shown(self, number: float) -> str:
        return f"{self.table.scale * number:.{self.table.decimals}f}"

    def entry(self, method: str, column: tuple[Value, ...]) -> Entry:
        """ "84.5 ± 1.2", with no-break spaces, and "[83.0, 86.0]"; a single seed has neither sd nor interval."""
        cell = self.cells.get((method, *column))
        if cell is None:
            return Entry("missing" if (method, *column) in self.missing else "–")
        if cell.interval is None:
            return Entry(self.shown(cell.mean), best=cell.best)
        mean, sd, *ends = map(self.shown, (cell.mean, cell.sd, cell.interval.low, cell.interval.high))
        return Entry(f"{mean}\u00a0±\u00a0{sd}", "[{},\u00a0{}]".format(*ends), cell.best)

    def groups(self) -> list[Group]:
        """Paper, ours (one group per value of the first axis, if there are several axes), cost, verdict."""
        methods, found = self.experiment.methods, []
        for number, paper in enumerate(self.table.paper, 1):
            rows = {m: [Entry(str(c.get(m, "–"))) for c in paper.values.values()] for m in methods}
            found.append(Group(f"paper: {paper.model}, {paper.data} [{number}]", list(paper.values), rows))
        first, ours = self.spread[:1] if len(self.spread) > 1 else [], ["ours"] if self.table.paper else []
        for _, grouped in itertools.groupby(self.columns, key=lambda column: column[: len(first)]):
            columns = list(grouped)
            title = ": ".join(ours + [_coordinate(axis, columns[0][0]) for axis in first])
            heads = [self.name(column, first) or self.table.metric for column in columns]
            found.append(Group(title, heads, {m: [self.entry(m, c) for c in columns] for m in methods}))
        told = [cost for cost in COSTS if any(cost[1][0] in numbers for numbers in self.costs.values())]
        rows = {m: [_cost(self.costs[m], *cost[1:]) for cost in told] for m in methods}
        found.append(Group("", [cost[0] for cost in told], rows))
        words = {m: [Entry(word, claim=claim)] for m, (claim, word) in self.verdicts.items()}
        if words:
            found.append(Group("", ["verdict"], {m: words.get(m, [Entry("")]) for m in methods}, left=True))
        return [group for group in found if group.heads]


def _coordinate(axis: str, value: Value) -> str:
    """Text as it is, a number with its axis."""
    name = {"n_train": "n"}.get(axis, axis.replace("_", " "))
    return value if isinstance(value, str) else f"{name} = {value:g}"


def _cost(numbers: Mapping[str, float], keys: tuple[str, ...], show: Callable[..., str]) -> Entry:
    return Entry(show(*(numbers[key] for key in keys)) if keys[0] in numbers else "–")


def _count(low: float, high: float) -> str:
    short = [
        f"{n / 1e6:.1f} M" if n >= 1e6 else f"{n / 1e3:.1f} k" if n >= 1e3 else f"{n}" for n in (low, high)
    ]
    return " – ".join(dict.fromkeys(short)).replace(" ", "\u00a0")


def _seconds(value: float) -> str:
    return "<\u00a00.1" if value < 0.05 else f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _memory(megabytes: float) -> str:
    return f"{megabytes / 1024:.1f}\u00a0GB" if megabytes >= 1000 else f"{megabytes:.0f}\u00a0MB"


COSTS: list[tuple[str, tuple[str, ...], Callable[..., str]]] = [
    ("trained", ("trained_min", "trained_max"), _count),
    ("CPU seconds", ("cpu_seconds",), _seconds),
    ("seconds", ("seconds",), _seconds),
    ("peak memory", ("peak_memory_mb",), _memory),
]


# --- from lines to a summary -----------------------------------------------------------------------


def summarise(name: str, profile: str = "laptop", metric: str | None = None) -> Summary:
    """The table of ``metric`` (default: the experiment's first) with all its cells.

    Bold are the best mean of a column and all methods whose paired 95 % t interval to it contains zero.

    Raises:
        ConfigError: for an unknown metric, and a published number of an unknown method.
        RecordError: when nothing is recorded yet, a line is of another schema, or a run lacks a field.
    """
    experiment, file = experiments.load(name).at(profile), f"{experiments.FOLDER}/{name}.toml"
    wanted = [table for table in experiment.tables if table.metric == (metric or experiment.tables[0].metric)]
    if len(wanted) != 1:
        known = ", ".join(table.metric for table in experiment.tables)
        raise ConfigError(f"{file}: {len(wanted)} tables of {metric!r}, not one; its tables are of: {known}.")
    summary = Summary(experiment, wanted[0])
    for method in {m for paper in wanted[0].paper for column in paper.values.values() for m in column}:
        if method not in experiment.methods:
            raise ConfigError(f"{file}: tables.paper: {method!r} is not one of the methods")
    if strange := set(wanted[0].verdicts.values()) - set(experiment.claims):
        raise ConfigError(f"{file}: tables.verdicts: {strange.pop()!r} is not one of the claims")
    path, lines = experiments.results_path(name, profile), experiments.results(name, profile)
    if not lines:
        raise RecordError(f"{path}: no results yet; run `make reproduce`.")
    if foreign := {line.get("schema") for line in lines} - set(experiments.EDITIONS):
        raise RecordError(
            f"{path}: lines of schema {foreign.pop()!r}; this version reads {', '.join(map(str, experiments.EDITIONS))}."
        )
    try:
        runs = {(line["method"], *(line[axis] for axis in experiment.axes)): line for line in lines}
        grid = itertools.product(experiment.methods, *experiment.axes.values())
        lines = [runs[key] for key in grid if key in runs]
        if bad := [line for line in lines if wanted[0].metric not in line]:
            where = f"{wanted[0].metric!r} in the run of {bad[0]['method']}, block {bad[0]['block']}"
            raise RecordError(f"{path}: there is no {where}; run `make reproduce` again.")
        for column in summary.columns:
            found = {m: c for m in experiment.methods if (c := _cell(summary, runs, m, column))}
            for method, cell in _marked(found, wanted[0].better).items():
                summary.cells[method, *column] = cell
        for method in experiment.methods:
            summary.costs[method] = _costs(summary, [line for line in lines if line["method"] == method])
        words = {row["claim"]: row["verdict"] for row in ledger_rows(profile)} if wanted[0].verdicts else {}
        summary.verdicts = {
            m: (claim, words.get(claim, "not tested")) for m, claim in wanted[0].verdicts.items()
        }
        summary.notes = _notes(summary, lines)
    except KeyError as error:
        raise RecordError(f"{path}: a line has no field {error}; run `make reproduce` again.") from None
    return summary


def _cell(
    summary: Summary, runs: Mapping[tuple, dict], method: str, column: tuple[Value, ...]
) -> Cell | None:
    """The cell of all seeds; None, and perhaps an entry under ``missing``, when a run or its number is absent."""
    axes, values, gaps, undefined = summary.experiment.axes, [], [], []
    places = list(itertools.product(*(axes[axis] for axis in summary.rest)))
    for seed in axes["seed"]:
        numbers = []
        for place in places:
            at = dict(zip((*summary.spread, *summary.rest, "seed"), (*column, *place, seed), strict=True))
            line = runs.get((method, *(at[axis] for axis in axes)))
            number = math.nan if line is None else line[summary.table.metric]
            undefined.append(number is None)
            if number is not None and math.isfinite(number):
                numbers.append(float(number))
        values.append(float(np.mean(numbers)) if numbers else math.nan)
        if len(numbers) < len(places):
            gaps.append(f"{seed} ({len(numbers)} of {len(places)} runs)" if len(places) > 1 else f"{seed}")
    if not gaps:
        return Cell(tuple(values), t_interval(values) if len(values) > 1 else None)
    if not all(undefined):
        where = ", ".join(filter(None, (summary.label(method), summary.name(column))))
        summary.missing[method, *column] = f"{where}: seed {', '.join(gaps)}"
    return None


def _beats(top: Cell, cell: Cell, sign: int) -> bool:
    """Whether the paired 95 % t interval of the differences lies on the better side; for one seed, whether it is better."""
    differences = sign * np.subtract(top.values, cell.values)
    return bool((t_interval(differences).low if len(differences) > 1 else differences[0]) > 0)


def _marked(column: Mapping[str, Cell], better: str) -> dict[str, Cell]:
    """The column with the best mean marked, and what cannot be told from it on the same seeds."""
    sign = 1 if better == "higher" else -1
    top = max(column.values(), key=lambda cell: sign * cell.mean, default=None)
    return {
        m: replace(cell, best=top is not None and not _beats(top, cell, sign)) for m, cell in column.items()
    }


def _costs(summary: Summary, lines: list[dict]) -> dict[str, float]:
    """Parameters from least to most, median seconds at the end of the curve, largest memory: of the runs that tell them."""
    axis, clock = summary.curve, summary.clock
    found: dict[str, float] = {}
    if counts := [line["trainable_parameters"] for line in lines if "trainable_parameters" in line]:
        found |= {"trained_min": min(counts), "trained_max": max(counts)}
    end = [line for line in lines if axis is None or line[axis] == max(summary.experiment.axes[axis])]
    if spent := [line[clock] for line in end if clock in line]:
        found[clock] = float(np.median(spent))
    if peaks := [line["peak_memory_mb"] for line in lines if "peak_memory_mb" in line]:
        found["peak_memory_mb"] = max(peaks)
    return found


def _notes(summary: Summary, lines: list[dict]) -> list[str]:
    """What a reader must know of the runs, from the lines themselves."""
    experiment, axis, seeds = summary.experiment, summary.curve, len(summary.experiment.axes["seed"])

    def facts(key: str) -> str:
        return ", ".join(sorted({str(line["environment"].get(key)) for line in lines}))

    def told(key: str) -> bool:
        return any(key in numbers for numbers in summary.costs.values())

    spread = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    about = f"{summary.title}, {summary.table.better} is better: {spread}."
    if summary.rest:
        about += f" Each seed is the mean over {' and '.join(summary.rest).replace('_', ' ')}."
    if seeds > 1:
        about += " Bold: the best mean of a column, and all whose paired 95 % t interval to it contains zero."
    gpu = summary.clock == "seconds"
    if told(summary.clock):
        where = f" at {_coordinate(axis, max(experiment.axes[axis]))}" if axis else ""
        about += f" {'Wall seconds (on a GPU the CPU waits)' if gpu else 'CPU seconds'}: median run{where}."
    if told("peak_memory_mb"):
        about += (
            f" Peak memory: of {'the GPU' if gpu else 'the process, with all it had loaded'}, largest run."
        )
    examples = f"{experiment.settings['test']} test examples; " if "test" in experiment.settings else ""
    machine = f"{facts('cpu')}, threads {facts('threads')}; torch {facts('torch')}, transformers {facts('transformers')}"
    notes = [about, f"Profile {experiment.profile}; {examples}{machine}.", *experiment.notes]
    if old := {line["revision"] for line in lines} - {experiment.revision}:
        notes.append(f"Runs of revision {min(old)}; the experiment is at revision {experiment.revision}.")
    if edges := _edges(experiment, lines):
        text = "The tuned value lies at the edge of what was tried, a better one may lie beyond"
        notes.append(f"{text}: {'; '.join(edges)}.")
    if floor := _floor(summary):
        notes.append(
            f"Not better than the majority class, as far as these seeds can tell: {'; '.join(floor)}."
        )
    if summary.missing:
        notes.append(f"Missing, and therefore not averaged: {'; '.join(summary.missing.values())}.")
    for number, paper in enumerate(summary.table.paper, 1):
        text = f"[{number}] {paper.source}: {paper.metric}, as printed; {paper.evidence}"
        notes.append(f"{text}. Not ranked with ours, which has another model and other data.")
    return notes


def _edges(experiment: Experiment, lines: list[dict]) -> list[str]:
    """Per method the numeric knobs whose chosen value is the least or the largest of more than two."""
    found, tuning = [], experiment.tuning
    for method, knobs in tuning.values.items() if tuning is not None else ():
        places: dict[str, dict[str, None]] = defaultdict(dict)  # a set that keeps its order
        for line, (knob, values) in itertools.product(lines, knobs.items()):
            numeric = len(values) > 2 and not isinstance(values[0], str)
            if line["method"] == method and numeric and line["tuned"][knob] in (min(values), max(values)):
                at = " ".join(_coordinate(a, line[a]) for a in experiment.axes if a not in tuning.at)  # type: ignore[union-attr]
                places[f"{knob.replace('_', ' ')} {line['tuned'][knob]:g}"][at] = None
        if places:
            texts = (": ".join(filter(None, (value, ", ".join(at)))) for value, at in sorted(places.items()))
            found.append(f"{experiment.labels.get(method, method)} ({'; '.join(texts)})")
    return found


def _floor(summary: Summary) -> list[str]:
    """Which cells learned nothing: a comparison with such a cell says little about the other side."""
    found: dict[str, list[str]] = defaultdict(list)
    for (method, *column), cell in summary.cells.items() if summary.table.better == "higher" else ():
        least = summary.cells.get(("majority", *column))
        if least is not None and cell.interval and method != "majority" and not _beats(cell, least, 1):
            found[summary.label(method)].append(summary.name(tuple(column)))
    every = len(summary.columns)
    return [
        f"{m} ({'; '.join(at) if len(at) < every or every < 2 else 'everywhere'})" for m, at in found.items()
    ]
