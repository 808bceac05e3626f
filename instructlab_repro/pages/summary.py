"""From recorded lines to one table: its cells, costs, verdicts and notes, before they take a form.

A cell that lacks a run is not averaged; it is left out and named in the notes. Published numbers stand in groups of
their own and are never ranked with ours.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from instructlab_repro import experiments
from instructlab_repro.experiments import Experiment, Table, Value
from instructlab_repro.pages import ledger
from instructlab_utils.errors import ConfigError, RecordError
from instructlab_utils.intervals import t_interval

MAJORITY = "majority class"
Column = tuple[Value, ...]


class Cell:
    """The metric of a method in a column as recorded, not scaled: one value per seed, in the grid's order."""

    def __init__(self, values: list[float]) -> None:
        several = len(values) > 1  # a single seed has neither sd nor interval
        self.values, self.best = values, False
        self.mean = float(np.mean(values))
        self.sd = float(np.std(values, ddof=1)) if several else math.nan
        self.interval = t_interval(values) if several else None

    def beats(self, other: Cell, better: str = "higher") -> bool:
        """Whether the paired 95 % t interval of the differences lies on the better side; a single seed's difference."""
        found = np.subtract(self.values, other.values) * (1 if better == "higher" else -1)
        return bool((t_interval(found).low if len(found) > 1 else found[0]) > 0)


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


class Summary:
    """One table of an experiment, from the ``lines`` of its grid: what stands in it is computed when it is asked for."""

    def __init__(self, experiment: Experiment, table: Table, lines: list[dict[str, Any]]) -> None:
        self.experiment, self.table, self.lines = experiment, table, lines
        axes = experiment.axes
        self.seeds = axes["seed"]
        self.spread = table.columns or [axis for axis in axes if axis != "seed"]  # make the columns
        self.rest = [axis for axis in axes if axis not in (*self.spread, "seed")]  # averaged in each seed
        self.columns: list[Column] = list(itertools.product(*(axes[axis] for axis in self.spread)))
        curves = [axis for axis in self.spread if len(axes[axis]) > 1 and not isinstance(axes[axis][0], str)]
        self.curve = max(curves, key=lambda axis: len(axes[axis]), default=None)  # the longest numeric axis
        self.title = f"{table.title} ({table.unit})" if table.unit else table.title

    @property
    def methods(self) -> list[str]:
        """The rows: the majority class first, where it is known and no method of the experiment."""
        known = any(method == MAJORITY for method, *_ in self.cells)
        return [*[MAJORITY] * known, *self.experiment.methods]

    def label(self, method: str) -> str:
        return self.experiment.labels.get(method, method)

    def name(self, column: Column, skip: Iterable[str] = ()) -> str:
        """ "movie-sentiment, n = 50"; without the axes to ``skip``."""
        pairs = zip(self.spread, column, strict=True)
        return ", ".join(coordinate(axis, value) for axis, value in pairs if axis not in skip)

    def shown(self, number: float) -> str:
        return f"{self.table.scale * number:.{self.table.decimals}f}"

    def _place(self, line: Mapping[str, Any]) -> tuple:
        return line["method"], *(line[axis] for axis in self.spread)

    @cached_property
    def _shares(self) -> list[dict[str, Any]]:
        """Lines of the majority class: its share of the test examples of each run, in place of the metric.

        Only where the metric is an accuracy over the classes of one task; [] where the experiment runs it as a method.
        """
        experiment, metric, found = self.experiment, self.table.metric, {}
        settings = {*experiment.settings, *itertools.chain(*experiment.settings_by.values())}
        if "majority" in experiment.methods or "test" not in settings:
            return []
        runs = {(line["method"], *(line[axis] for axis in experiment.axes)): line for line in self.lines}
        for row in experiments.predictions(experiment.name, experiment.profile):
            at = {axis: row[axis] for axis in experiment.axes}
            line = runs.get((row["method"], *at.values()))
            if line is not None and "predictions" in row and "targets" in row:
                answers, targets = row["predictions"], row["targets"]
                if abs((line[metric] or 0) - np.mean(answers == targets)) < 1e-9:
                    share = np.bincount(targets).max() / len(targets)
                    found[*at.values(),] = at | {"method": MAJORITY, metric: share}
        return list(found.values())

    @cached_property
    def _outcomes(self) -> dict[tuple, Cell | str]:
        """(method, *column) → its cell or, where a run or its number is absent, "large, n = 10: seed 2".

        A metric that is null in every run is no gap: the method has none.
        """
        runs: dict[tuple, dict[Value, list]] = defaultdict(lambda: defaultdict(list))
        for line in (*self.lines, *self._shares):
            runs[self._place(line)][line["seed"]].append(line[self.table.metric])
        found: dict[tuple, Cell | str] = {}
        every = math.prod(len(self.experiment.axes[axis]) for axis in self.rest)  # runs of a seed
        for column, method in itertools.product(self.columns, (*self.experiment.methods, MAJORITY)):
            told = [runs[method, *column][seed] for seed in self.seeds]
            finite = [[v for v in values if v is not None and math.isfinite(v)] for values in told]
            short = [(seed, len(n)) for seed, n in zip(self.seeds, finite, strict=True) if len(n) < every]
            if not short:
                found[method, *column] = Cell([float(np.mean(values)) for values in finite])
            elif method != MAJORITY and told != [[None] * every] * len(self.seeds):
                where = ", ".join(filter(None, (self.label(method), self.name(column))))
                gaps = [f"{seed}" + f" ({n} of {every} runs)" * (every > 1) for seed, n in short]
                found[method, *column] = f"{where}: seed {', '.join(gaps)}"
        return found

    @cached_property
    def missing(self) -> dict[tuple, str]:
        """(method, *column) → what is absent there."""
        return {place: found for place, found in self._outcomes.items() if isinstance(found, str)}

    @cached_property
    def cells(self) -> dict[tuple, Cell]:
        """(method, *column) → its cell, where there are all its runs.

        Bold are the best mean of a column and all methods whose paired 95 % t interval to it contains zero, of the
        methods that trained in every run of the column.
        """
        found = {place: cell for place, cell in self._outcomes.items() if isinstance(cell, Cell)}
        judged = experiments.judged(self.experiment.name, self.experiment.profile)
        stuck, best = {self._place(line) for line, failed in judged if failed}, self.table.better
        for column in self.columns:
            places = [(method, *column) for method in self.experiment.methods]
            ranked = [found[place] for place in places if place in found and place not in stuck]
            top = (max if best == "higher" else min)(ranked, key=lambda cell: cell.mean, default=None)
            for cell in ranked:
                cell.best = top is not None and not top.beats(cell, best)
        return found

    @cached_property
    def costs(self) -> dict[str, dict[str, float]]:
        """Method → the keys of COSTS that its runs tell: parameters from least to most, seconds, memory.

        Seconds are the median at the end of the curve. A process's own peak memory says nothing about a method, so on a
        CPU it is what training holds; on a GPU the processor waits, so wall time counts.
        """
        axis, found, gpu = self.curve, {}, self.experiment.profile == "gpu"
        clock, memory = ("seconds", "peak_memory_mb") if gpu else ("cpu_seconds", "held_mb")
        for method in self.experiment.methods:
            lines = [line for line in self.lines if line["method"] == method]
            end = [line for line in lines if axis is None or line[axis] == max(self.experiment.axes[axis])]
            counts = [line["trainable_parameters"] for line in lines if "trainable_parameters" in line]
            spent = [line[clock] for line in end if clock in line]
            peaks = [line[memory] for line in lines if line.get(memory) is not None]
            told = {"trained_min": min(counts), "trained_max": max(counts)} if counts else {}
            told |= {clock: float(np.median(spent))} if spent else {}
            found[method] = told | ({memory: max(peaks)} if peaks else {})
        return found

    @cached_property
    def chosen(self) -> dict[str, str]:
        """Method → "rate 0.001, 0.003† of 4": the chosen values of each knob, a dagger at an edge, how many were tried."""
        name, profile = self.experiment.name, self.experiment.profile
        tried: dict[tuple[str, str], set] = defaultdict(set)
        for line in experiments.results(name, profile, "tune"):
            for knob, value in line["tuned"].items():
                tried[line["method"], knob].add(value)
        used: dict[str, dict[str, set]] = defaultdict(lambda: defaultdict(set))
        trials: Counter[str] = Counter()
        for (method, _), told in experiments.chosen(name, profile).items():
            trials[method] = max(told["tried"], trials[method])
            for knob, value in told["values"].items():
                used[method][knob].add(value)
        return {
            method: "; ".join(_knob(knob, values, tried[method, knob]) for knob, values in knobs.items())
            + f" of {trials[method]}"
            for method, knobs in used.items()
        }

    @cached_property
    def untrained(self) -> dict[str, str]:
        """Method → "2 of 5" runs did not train; only where there are any."""
        found = experiments.untrained(self.experiment.name, self.experiment.profile)
        return {method: f"{n}\u00a0of\u00a0{every}" for method, (n, every) in found.items() if n}

    @cached_property
    def verdicts(self) -> dict[str, tuple[str, str]]:
        """Method → its claim and the word of the ledger."""
        claims = self.table.verdicts
        rows = ledger.rows(self.experiment.profile) if claims else []
        words = {row["claim"]: row["verdict"] for row in rows}
        return {method: (claim, words.get(claim, "not tested")) for method, claim in claims.items()}

    def entry(self, method: str, column: Column) -> Entry:
        """ "84.5 ± 1.2", with no-break spaces, and "[83.0, 86.0]"; a single seed has neither sd nor interval."""
        cell = self.cells.get((method, *column))
        if cell is None:
            return Entry("missing" if (method, *column) in self.missing else "–")
        if cell.interval is None:
            return Entry(self.shown(cell.mean), best=cell.best)
        low, high = cell.interval.low, cell.interval.high
        if self.table.unit == "%":  # no printed bound is impossible
            low, high = max(low, 0.0), min(high, 100 / self.table.scale)
        mean, sd, *ends = map(self.shown, (cell.mean, cell.sd, low, high))
        return Entry(f"{mean}\u00a0±\u00a0{sd}", "[{},\u00a0{}]".format(*ends), cell.best)

    def groups(self) -> list[Group]:
        """Paper, ours (one group per value of the first axis, if there are several axes), tuning, cost, verdict."""
        methods, found = self.methods, []
        for number, paper in enumerate(self.table.paper, 1):
            rows = {m: [Entry(str(c.get(m, "–"))) for c in paper.values.values()] for m in methods}
            found.append(Group(f"paper: {paper.model}, {paper.data} [{number}]", list(paper.values), rows))
        first, ours = self.spread[:1] if len(self.spread) > 1 else [], ["ours"] if self.table.paper else []
        for _, grouped in itertools.groupby(self.columns, key=lambda column: column[: len(first)]):
            columns = list(grouped)
            title = ": ".join(ours + [coordinate(axis, columns[0][0]) for axis in first])
            heads = [self.name(column, first) or self.table.metric for column in columns]
            found.append(Group(title, heads, {m: [self.entry(m, c) for c in columns] for m in methods}))
        for head, texts in (("did not train", self.untrained), ("chosen, of tried", self.chosen)):
            found += [Group("", [head], {m: [Entry(texts.get(m, "–"))] for m in methods})] * bool(texts)
        told = {key for numbers in self.costs.values() for key in numbers}
        if kinds := [cost for cost in COSTS if cost[1][0] in told]:
            rows = {m: [_cost(self.costs.get(m, {}), keys, show) for _, keys, show in kinds] for m in methods}
            found.append(Group("", [head for head, *_ in kinds], rows))
        if self.verdicts:
            words = {m: Entry(word, claim=claim) for m, (claim, word) in self.verdicts.items()}
            found.append(Group("", ["verdict"], {m: [words.get(m, Entry(""))] for m in methods}, left=True))
        return found


def coordinate(axis: str, value: Value) -> str:
    """Text as it is, a number with its axis."""
    name = {"n_train": "n"}.get(axis, axis.replace("_", " "))
    return value if isinstance(value, str) else f"{name} = {value:g}"


def _knob(knob: str, values: set, tried: set) -> str:
    """ "rate 0.001, 0.003†": a dagger at the smallest and largest of three or more numbers that were tried."""
    numeric = len(tried) > 2 and not any(isinstance(value, str) for value in tried)
    edges = (min(tried), max(tried)) if numeric else ()
    texts = [(f"{v:g}" if numeric else str(v)) + "†" * (v in edges) for v in sorted(values)]
    told = ", ".join(texts) if len(texts) < 4 else f"{texts[0]} – {texts[-1]}"
    return f"{knob.replace('learning_', '').replace('_', ' ')} {told}"


def _cost(numbers: Mapping[str, float], keys: tuple[str, ...], show: Callable[..., str]) -> Entry:
    return Entry(show(*(numbers[key] for key in keys)) if keys[0] in numbers else "–")


def _count(*ends: float) -> str:
    def short(n: float) -> str:
        return f"{n / 1e6:.1f} M" if n >= 1e6 else f"{n / 1e3:.1f} k" if n >= 1e3 else f"{n}"

    return " – ".join(dict.fromkeys(map(short, ends))).replace(" ", "\u00a0")


def _seconds(value: float) -> str:
    return "<\u00a00.1" if value < 0.05 else f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _memory(megabytes: float) -> str:
    return f"{megabytes / 1024:.1f}\u00a0GB" if megabytes >= 1000 else f"{megabytes:.0f}\u00a0MB"


COSTS: list[tuple[str, tuple[str, ...], Callable[..., str]]] = [
    ("trained", ("trained_min", "trained_max"), _count),
    ("CPU seconds", ("cpu_seconds",), _seconds),
    ("seconds", ("seconds",), _seconds),
    ("held in training", ("held_mb",), _memory),
    ("peak memory", ("peak_memory_mb",), _memory),
]


def _wanted(experiment: Experiment, metric: str | None) -> Table:
    """The table of ``metric``, checked against the experiment's methods and claims."""
    file = f"{experiments.FOLDER}/{experiment.name}.toml"
    found = [table for table in experiment.tables if table.metric == (metric or experiment.tables[0].metric)]
    if len(found) != 1:
        known = ", ".join(table.metric for table in experiment.tables)
        raise ConfigError(f"{file}: {len(found)} tables of {metric!r}, not one; its tables are of: {known}.")
    named = {method for paper in found[0].paper for column in paper.values.values() for method in column}
    if strange := named - set(experiment.methods):
        raise ConfigError(f"{file}: tables.paper: {strange.pop()!r} is not one of the methods")
    if strange := set(found[0].verdicts.values()) - set(experiment.claims):
        raise ConfigError(f"{file}: tables.verdicts: {strange.pop()!r} is not one of the claims")
    return found[0]


def summarise(name: str, profile: str = "laptop", metric: str | None = None) -> Summary:
    """The table of ``metric`` (default: the experiment's first) with all its cells.

    Raises:
        ConfigError: for an unknown metric, and a published number of an unknown method.
        RecordError: when nothing is recorded yet, a line is of another schema, or a run lacks a field.
    """
    experiment = experiments.load(name).at(profile)
    table, axes = _wanted(experiment, metric), experiment.axes
    path, lines = experiments.results_path(name, profile), experiments.results(name, profile)
    if not lines:
        raise RecordError(f"{path}: no results yet; run `make reproduce`.")
    if foreign := {line.get("schema") for line in lines} - set(experiments.EDITIONS):
        known = ", ".join(map(str, experiments.EDITIONS))
        raise RecordError(f"{path}: lines of schema {foreign.pop()!r}; this version reads {known}.")
    every = {(line.get("method"), *(line.get(axis) for axis in axes)): line for line in lines}
    runs = [every[key] for key in itertools.product(experiment.methods, *axes.values()) if key in every]
    needed = (table.metric, "block", "tuned", "environment", "revision")
    for key, line in ((key, line) for line in runs for key in needed if key not in line):
        where = f"{key!r} in the run of {line['method']}, block {line.get('block')}"
        raise RecordError(f"{path}: there is no {where}; run `make reproduce` again.")
    return Summary(experiment, table, runs)
