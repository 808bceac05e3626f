"""From recorded lines to one table: its cells, costs, verdicts and notes, before they take a form.

A cell that lacks a run is not averaged; it is left out and named in the notes. Published numbers stand in groups of
their own and are never ranked with ours.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from instructlab_repro import experiments
from instructlab_repro.experiments import Experiment, Table, Value
from instructlab_repro.pages import ledger
from instructlab_utils.errors import ConfigError, RecordError
from instructlab_utils.intervals import Interval, t_interval

MAJORITY = "majority class"
Runs = Mapping[tuple, dict[str, Any]]


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
    chosen: dict[str, str] = field(default_factory=dict)  # method → values of the knobs, number of trials
    untrained: dict[str, str] = field(
        default_factory=dict
    )  # method → "2 of 5" runs; only where there are any
    verdicts: dict[str, tuple[str, str]] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)  # the runs behind it

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
        """The longest numeric axis among the columns; None where none has two values."""
        axes = self.experiment.axes
        lengths = {axis: len(axes[axis]) for axis in self.spread if not isinstance(axes[axis][0], str)}
        longest = max(lengths, key=lambda axis: lengths[axis], default="")
        return longest if lengths.get(longest, 0) > 1 else None

    @property
    def methods(self) -> list[str]:
        """The rows: the majority class first, where it is known and no method of the experiment."""
        known = any(method == MAJORITY for method, *_ in self.cells)
        return [*[MAJORITY] * known, *self.experiment.methods]

    @property
    def gpu(self) -> bool:
        """On a GPU the processor waits, so wall time counts."""
        return self.experiment.profile == "gpu"

    @property
    def title(self) -> str:
        return f"{self.table.title} ({self.table.unit})" if self.table.unit else self.table.title

    def label(self, method: str) -> str:
        return self.experiment.labels.get(method, method)

    def name(self, column: tuple[Value, ...], skip: Iterable[str] = ()) -> str:
        """ "movie-sentiment, n = 50"; without the axes to ``skip``."""
        pairs = zip(self.spread, column, strict=True)
        return ", ".join(coordinate(axis, value) for axis, value in pairs if axis not in skip)

    def shown(self, number: float) -> str:
        return f"{self.table.scale * number:.{self.table.decimals}f}"

    def entry(self, method: str, column: tuple[Value, ...]) -> Entry:
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
        told = [cost for cost in COSTS if any(cost[1][0] in numbers for numbers in self.costs.values())]
        rows = {m: [_cost(self.costs.get(m, {}), *cost[1:]) for cost in told] for m in methods}
        found += [Group("", [cost[0] for cost in told], rows)] * bool(told)
        if self.verdicts:
            words = {m: Entry(word, claim=claim) for m, (claim, word) in self.verdicts.items()}
            rows = {m: [words.get(m, Entry(""))] for m in methods}
            found.append(Group("", ["verdict"], rows, left=True))
        return found


def coordinate(axis: str, value: Value) -> str:
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
    ("held in training", ("held_mb",), _memory),
    ("peak memory", ("peak_memory_mb",), _memory),
]


# --- from lines to a summary -----------------------------------------------------------------------


def _wanted(experiment: Experiment, metric: str | None) -> Table:
    """The table of ``metric``, checked against the experiment's methods and claims."""
    file = f"{experiments.FOLDER}/{experiment.name}.toml"
    found = [table for table in experiment.tables if table.metric == (metric or experiment.tables[0].metric)]
    if len(found) != 1:
        known = ", ".join(table.metric for table in experiment.tables)
        raise ConfigError(f"{file}: {len(found)} tables of {metric!r}, not one; its tables are of: {known}.")
    for method in {m for paper in found[0].paper for column in paper.values.values() for m in column}:
        if method not in experiment.methods:
            raise ConfigError(f"{file}: tables.paper: {method!r} is not one of the methods")
    if strange := set(found[0].verdicts.values()) - set(experiment.claims):
        raise ConfigError(f"{file}: tables.verdicts: {strange.pop()!r} is not one of the claims")
    return found[0]


def summarise(name: str, profile: str = "laptop", metric: str | None = None) -> Summary:
    """The table of ``metric`` (default: the experiment's first) with all its cells.

    Bold are the best mean of a column and all methods whose paired 95 % t interval to it contains zero, of the methods
    that trained in every run of the column.

    Raises:
        ConfigError: for an unknown metric, and a published number of an unknown method.
        RecordError: when nothing is recorded yet, a line is of another schema, or a run lacks a field.
    """
    experiment = experiments.load(name).at(profile)
    summary = Summary(experiment, table := _wanted(experiment, metric))
    path, lines = experiments.results_path(name, profile), experiments.results(name, profile)
    if not lines:
        raise RecordError(f"{path}: no results yet; run `make reproduce`.")
    if foreign := {line.get("schema") for line in lines} - set(experiments.EDITIONS):
        raise RecordError(
            f"{path}: lines of schema {foreign.pop()!r}; this version reads {', '.join(map(str, experiments.EDITIONS))}."
        )
    try:
        every = {(line["method"], *(line[axis] for axis in experiment.axes)): line for line in lines}
        grid = itertools.product(experiment.methods, *experiment.axes.values())
        runs = {key: every[key] for key in grid if key in every}
        if bad := [line for line in runs.values() if table.metric not in line]:
            where = f"{table.metric!r} in the run of {bad[0]['method']}, block {bad[0]['block']}"
            raise RecordError(f"{path}: there is no {where}; run `make reproduce` again.")
        summary.lines = list(runs.values())
        stuck, shares = _answers(summary, runs)
        for column in summary.columns:
            found = {m: c for m in experiment.methods if (c := _cell(summary, runs, m, column))}
            not_trained = [method for method, *at in stuck if tuple(at) == column]
            for method, cell in _marked(found, table.better, not_trained).items():
                summary.cells[method, *column] = cell
            if shares and (most := _cell(summary, shares, MAJORITY, column)):
                summary.cells[MAJORITY, *column] = most
        for method in experiment.methods:
            own = [line for line in runs.values() if line["method"] == method]
            summary.costs[method] = _costs(summary, own)
        found_untrained = experiments.untrained(name, profile)
        summary.untrained = {m: f"{n}\u00a0of\u00a0{of}" for m, (n, of) in found_untrained.items() if n}
        summary.chosen = _chosen(experiment)
        words = {row["claim"]: row["verdict"] for row in ledger.rows(profile)} if table.verdicts else {}
        summary.verdicts = {m: (claim, words.get(claim, "not tested")) for m, claim in table.verdicts.items()}
    except KeyError as error:
        raise RecordError(f"{path}: a line has no field {error}; run `make reproduce` again.") from None
    return summary


def _keys(summary: Summary, method: str, column: tuple[Value, ...], seed: Value) -> list[tuple]:
    """Where the runs of a cell's seed stand: one key per place that the seed is averaged over."""
    axes = summary.experiment.axes
    fixed = dict(zip(summary.spread, column, strict=True)) | {"seed": seed}
    free = [[fixed[axis]] if axis in fixed else axes[axis] for axis in axes]
    return list(itertools.product([method], *free))


def _cell(summary: Summary, runs: Runs, method: str, column: tuple[Value, ...]) -> Cell | None:
    """The cell of all seeds; None, and perhaps an entry under ``missing``, when a run or its number is absent."""
    values, gaps, undefined = [], [], []
    for seed in summary.experiment.axes["seed"]:
        keys = _keys(summary, method, column, seed)
        told = [runs[key][summary.table.metric] if key in runs else math.nan for key in keys]
        undefined += [number is None for number in told]
        numbers = [float(number) for number in told if number is not None and math.isfinite(number)]
        values.append(float(np.mean(numbers)) if numbers else math.nan)
        if len(numbers) < len(keys):
            gaps.append(f"{seed} ({len(numbers)} of {len(keys)} runs)" if len(keys) > 1 else f"{seed}")
    if not gaps:
        return Cell(tuple(values), t_interval(values) if len(values) > 1 else None)
    if not all(undefined) and method != MAJORITY:
        where = ", ".join(filter(None, (summary.label(method), summary.name(column))))
        summary.missing[method, *column] = f"{where}: seed {', '.join(gaps)}"
    return None


def beats(top: Cell, cell: Cell, sign: int) -> bool:
    """Whether the paired 95 % t interval of the differences lies on the better side; for one seed, whether it is better."""
    differences = sign * np.subtract(top.values, cell.values)
    return bool((t_interval(differences).low if len(differences) > 1 else differences[0]) > 0)


def _marked(column: Mapping[str, Cell], better: str, stuck: Iterable[str]) -> dict[str, Cell]:
    """The column with the best mean marked, and what cannot be told from it on the same seeds; none that did not train."""
    sign, trained = (1 if better == "higher" else -1), [m for m in column if m not in stuck]
    top = max((column[m] for m in trained), key=lambda cell: sign * cell.mean, default=None)
    best = [m for m in trained if top is not None and not beats(top, column[m], sign)]
    return {m: replace(cell, best=m in best) for m, cell in column.items()}


def _answers(summary: Summary, runs: Runs) -> tuple[set[tuple], Runs]:
    """(method, *column) of the cells with a run that did not train; and the majority's share of the test examples in
    place of the metric, where that is an accuracy over the classes of one task."""
    experiment, metric = summary.experiment, summary.table.metric
    rows = experiments.predictions(experiment.name, experiment.profile)
    stored = {(row["method"], *(row[axis] for axis in experiment.axes)): row for row in rows}
    stuck, shares = set(), {}
    for key, line in runs.items():
        row, one_class = stored.get(key, {}), bool(line.get("one_class"))
        if "predictions" in row and "targets" in row:
            answers, targets = row["predictions"], row["targets"]
            one_class = one_class or bool(np.ptp(answers) == 0 < np.ptp(targets))
            right = abs((line[metric] or 0) - float(np.mean(answers == targets))) < 1e-9
            if right and "test" in experiment.settings:
                shares[MAJORITY, *key[1:]] = {metric: np.bincount(targets).max() / len(targets)}
        if experiments.did_not_train({**line, "one_class": one_class}, experiment):
            stuck.add((key[0], *(line[axis] for axis in summary.spread)))
    return stuck, {} if "majority" in experiment.methods else shares


def _costs(summary: Summary, lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Parameters from least to most, median seconds at the end of the curve, largest memory: of the runs that tell them."""
    axis, clock = summary.curve, "seconds" if summary.gpu else "cpu_seconds"
    memory = (
        "peak_memory_mb" if summary.gpu else "held_mb"
    )  # a process's own peak says nothing about a method
    found: dict[str, float] = {}
    if counts := [line["trainable_parameters"] for line in lines if "trainable_parameters" in line]:
        found |= {"trained_min": min(counts), "trained_max": max(counts)}
    end = [line for line in lines if axis is None or line[axis] == max(summary.experiment.axes[axis])]
    if spent := [line[clock] for line in end if clock in line]:
        found[clock] = float(np.median(spent))
    if peaks := [line[memory] for line in lines if line.get(memory) is not None]:
        found[memory] = max(peaks)
    return found


def _chosen(experiment: Experiment) -> dict[str, str]:
    """Method → "rate 0.001, 0.003† of 4": the chosen values of each knob, a dagger at an edge, and how many were tried."""
    tried: dict[tuple[str, str], set] = defaultdict(set)
    for line in experiments.results(experiment.name, experiment.profile, "tune"):
        for knob, value in line["tuned"].items():
            tried[line["method"], knob].add(value)
    used: dict[str, dict[str, set]] = defaultdict(lambda: defaultdict(set))
    trials: dict[str, int] = {}
    for (method, _), told in experiments.chosen(experiment.name, experiment.profile).items():
        trials[method] = max(told["tried"], trials.get(method, 0))
        for knob, value in told["values"].items():
            used[method][knob].add(value)

    def shown(method: str, knob: str, values: set) -> str:
        every = tried[method, knob]
        numeric = len(every) > 2 and not any(isinstance(value, str) for value in every)
        edges = (min(every), max(every)) if numeric else ()
        texts = [(f"{v:g}" if numeric else str(v)) + "†" * (v in edges) for v in sorted(values)]
        told = ", ".join(texts) if len(texts) < 4 else f"{texts[0]} – {texts[-1]}"
        return f"{knob.replace('learning_', '').replace('_', ' ')} {told}"

    return {
        method: f"{'; '.join(shown(method, *pair) for pair in knobs.items())} of {trials[method]}"
        for method, knobs in used.items()
    }
