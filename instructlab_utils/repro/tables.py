"""Results in the shape of a paper, from the recorded lines and nothing else: a row per method, columns in groups.

A cell that lacks a run is not averaged; it is left out and named in the notes. Published numbers stand in groups of
their own and are never ranked with ours. Text between the comments `<!-- generated:NAME -->` and `<!-- /generated -->`
of a Markdown file is written here, never by hand.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from instructlab_utils.errors import ConfigError, RecordError
from instructlab_utils.metrics import Interval, t_interval
from instructlab_utils.repro import experiments, record
from instructlab_utils.repro.experiments import Experiment, Table, Value
from instructlab_utils.repro.ledger import BLOCK as BLOCK
from instructlab_utils.repro.ledger import check_blocks as check_blocks
from instructlab_utils.repro.ledger import grid, ledger, ledger_page, ledger_rows
from instructlab_utils.repro.ledger import update_blocks as update_blocks
from instructlab_utils.session import find_root

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 7  # columns beside the method that a page of GitHub shows without scrolling
TEX = str.maketrans(
    {c: "\\" + c for c in "&%$#_{}"}
    | {c: f"${tex}$" for c, tex in zip("±<>−·×≤≥", r"\pm < > - \cdot \times \le \ge".split(), strict=True)}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--"}
    | {"\u00a0": "~", "[": "{[}"}  # a row that begins with [ would be an option of the \\ before it
)


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
    path, lines = experiments.results_path(name, profile), experiments.results(name, profile)
    if not lines:
        raise RecordError(f"{path}: no results yet; run `make reproduce`.")
    if strange := {line.get("schema") for line in lines} - {record.SCHEMA}:
        raise RecordError(f"{path}: lines of schema {strange.pop()!r}; this version reads {record.SCHEMA}.")
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


# --- four forms of the same table ------------------------------------------------------------------


def _rows(summary: Summary, groups: list[Group], text: Callable[[Entry], str]) -> list[list[str]]:
    """The printed entries of every method, in the order of the heads."""
    return [[text(entry) for group in groups for entry in group.rows[m]] for m in summary.experiment.methods]


def markdown(name: str, profile: str = "laptop", metric: str | None = None, root: str = "../") -> str:
    """The table with its notes. A wide one is cut between groups, so that a page shows it without scrolling.

    ``root`` leads from the page's folder to the project's; the default fits a notebook.
    """
    summary = summarise(name, profile, metric)

    def text(entry: Entry) -> str:
        if entry.claim:
            return f"[{entry.claim}]({root}LEDGER.md#{entry.claim.lower()}): {entry.text}"
        return f"**{entry.text}**" if entry.best else entry.text

    pages: list[list[Group]] = [[]]
    for group in summary.groups():
        if pages[-1] and sum(len(g.heads) for g in (*pages[-1], group)) > WIDTH:
            pages.append([])
        pages[-1].append(group)
    parts = [f"**{summary.title}**"]
    for page in pages:
        heads = [
            f"{group.title}<br>{head}" if group.title else head for group in page for head in group.heads
        ]
        rows = zip(map(summary.label, summary.experiment.methods), _rows(summary, page, text), strict=True)
        left = [True, *(group.left for group in page for _ in group.heads)]
        parts.append(grid([["method", *heads], *([label, *row] for label, row in rows)], left))
    return "\n\n".join([*parts, *summary.notes]) + "\n"


def html(name: str, profile: str = "laptop", metric: str | None = None, root: str = "../") -> str:
    """The table for a notebook (``IPython.display.HTML``), with the intervals; its colours are those of the page.

    ``root`` is that of :func:`markdown`.
    """
    summary = summarise(name, profile, metric)
    groups, left = summary.groups(), ' style="text-align:left"'
    span = ' rowspan="2"' if any(group.title for group in groups) else ""
    bars, top, below = "<colgroup></colgroup>", f'<th scope="col"{span}{left}>method</th>', ""
    for group in groups:
        size, own = len(group.heads), "" if group.title else span
        bars += f'<colgroup span="{size}" style="border-left:1px solid"></colgroup>'
        heads = "".join(f'<th scope="col"{own}{left * group.left}>{escape(h)}</th>' for h in group.heads)
        if group.title:
            top += f'<th scope="colgroup" colspan="{size}"{left}>{escape(group.title)}</th>'
            below += heads
        else:
            top += heads

    def text(entry: Entry) -> str:
        inner = f"<strong>{escape(entry.text)}</strong>" if entry.best else escape(entry.text)
        if entry.claim:
            link = f'<a href="{root}LEDGER.md#{entry.claim.lower()}">{entry.claim}</a>'
            return f"<td{left}>{link}: {inner}</td>"
        return f"<td>{inner}<br><small>{entry.small}</small></td>" if entry.small else f"<td>{inner}</td>"

    body = [
        f'<th scope="row"{left}>{escape(summary.label(method))}</th>{"".join(row)}'
        for method, row in zip(summary.experiment.methods, _rows(summary, groups, text), strict=True)
    ]
    rows = [f'<tr style="text-align:right">{row}</tr>' for row in (top, below, *body) if row]
    rows.insert(2 if below else 1, "</thead><tbody>")
    notes = [*summary.notes, *["In brackets: the 95 % t interval over seeds."] * ("<small>" in rows[-1])]
    parts = [
        '<div style="overflow-x:auto"><table style="border-collapse:collapse;color:inherit">',
        f'<caption style="text-align:left;font-weight:bold">{escape(summary.title)}</caption>{bars}<thead>',
    ]
    small = (f"<p><small>{escape(note)}</small></p>" for note in notes)
    return "\n".join([*parts, *rows, "</tbody></table>", *small, "</div>"])


def to_csv(name: str, profile: str = "laptop", metric: str | None = None) -> str:
    """A row per cell, long form, published numbers last; values as recorded, empty where a cell is missing.

    An axis that the cell averages over says "all". Seconds are those of the notes, memory is in MB (2**20 bytes).
    """
    summary = summarise(name, profile, metric)
    axes = [axis for axis in summary.experiment.axes if axis != "seed"]
    rows: list[dict[str, Any]] = []
    for method, column in itertools.product(summary.experiment.methods, summary.columns):
        cell, at = summary.cells.get((method, *column)), dict(zip(summary.spread, column, strict=True))
        row: dict[str, Any] = {"group": "ours", "method": method, **dict.fromkeys(axes, "all"), **at}
        row |= {"column": summary.name(column), "metric": summary.table.metric, "seeds": 0}
        if cell is not None:
            row |= {"seeds": len(cell.values), "mean": cell.mean, "best": int(cell.best)}
        if cell is not None and cell.interval is not None:
            row |= {"sd": cell.sd, "low": cell.interval.low, "high": cell.interval.high}
        row |= dict(zip(("claim", "verdict"), summary.verdicts.get(method, ("", "")), strict=True))
        rows.append(row | summary.costs[method])
    for paper in summary.table.paper:
        group = f"paper: {paper.model}, {paper.data} ({paper.source}; {paper.evidence})"
        for head, values in paper.values.items():
            about = {"group": group, "column": head, "metric": paper.metric}
            rows += [about | {"method": method, "mean": value} for method, value in values.items()]
    numbers = [*"seeds mean sd low high best".split(), *(key for _, keys, _ in COSTS for key in keys)]
    out = io.StringIO()
    fields = ["group", "method", *axes, "column", "metric", *numbers, "claim", "verdict"]
    writer = csv.DictWriter(out, fields, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: round(v, 10) if isinstance(v, float) else v for k, v in r.items()} for r in rows)
    return out.getvalue()


def latex(name: str, profile: str = "laptop", metric: str | None = None) -> str:
    """The table for a paper, with its notes; needs the package booktabs. A missing cell is a dash, named below."""
    summary = summarise(name, profile, metric)
    groups = summary.groups()
    tops, rules, heads, kinds = [""], [], ["method"], "l"
    for group in groups:
        size, first = len(group.heads), len(heads) + 1
        tops += (
            [rf"\multicolumn{{{size}}}{{c}}{{{group.title.translate(TEX)}}}"] if group.title else [""] * size
        )
        rules += [rf"\cmidrule(lr){{{first}-{first + size - 1}}}"] if group.title else []
        heads += group.heads
        kinds += ("l" if group.left else "r") * size

    def text(entry: Entry) -> str:
        inner = (f"{entry.claim}: " * bool(entry.claim) + entry.text.replace("missing", "–")).translate(TEX)
        return rf"\textbf{{{inner}}}" if entry.best else inner

    rows = [rf"\begin{{tabular}}{{{kinds}}}", r"\toprule"]
    rows += [" & ".join(tops) + r" \\", " ".join(rules)] if rules else []
    rows += [" & ".join(head.translate(TEX) for head in heads) + r" \\", r"\midrule"]
    for method, row in zip(summary.experiment.methods, _rows(summary, groups, text), strict=True):
        rows.append(" & ".join([summary.label(method).translate(TEX), *row]) + r" \\")
    notes = [rf"\par\smallskip{{\footnotesize {note.translate(TEX)}\par}}" for note in summary.notes]
    return "\n".join([*rows, r"\bottomrule", r"\end{tabular}", *notes, ""])


def figure(name: str, profile: str = "laptop", metric: str | None = None) -> Figure:
    """Curves along the longest numeric axis or, where there is none, a dot per method; with 95 % t intervals over seeds.

    A panel per combination of the other axes; at most three stand side by side.
    """
    from instructlab_utils import plotting

    summary = summarise(name, profile, metric)
    methods, axis, scale = summary.experiment.methods, summary.curve, summary.table.scale
    panels: dict[str, list[tuple]] = defaultdict(list)
    for column in summary.columns:
        panels[summary.name(column, [axis or ""])].append(column)
    wide = min(3, len(panels))
    shape = math.ceil(len(panels) / wide), wide
    drawing, grid = plotting.axes(*shape, sharex=axis is None, sharey=True, squeeze=False)
    for panel in grid.flat[len(panels) :]:
        panel.set_visible(False)
    for panel, (title, columns) in zip(grid.flat, panels.items(), strict=False):
        panel.set_title(title)
        for index, method in enumerate(methods):
            there = [column for column in columns if (method, *column) in summary.cells]
            cells = [summary.cells[method, *column] for column in there]
            at = [column[summary.spread.index(axis)] if axis else index for column in there]
            ends = [(cell.interval.low, cell.interval.high) for cell in cells if cell.interval is not None]
            low, high = scale * np.array(ends or [(cell.mean, cell.mean) for cell in cells]).reshape(-1, 2).T
            means, look = [scale * cell.mean for cell in cells], plotting.style(index)
            if axis:
                panel.plot(at, means, label=summary.label(method), **look)
                panel.fill_between(at, low, high, color=look["color"], alpha=0.12, linewidth=0)
            else:
                panel.plot(means, at, **(look | {"linestyle": "none"}))
                panel.hlines(at, low, high, color=look["color"])
        if axis:
            ticks = sorted(summary.experiment.axes[axis])
            panel.set_xscale("log" if 0 < 10 * ticks[0] < ticks[-1] else "linear")  # type: ignore[operator]
            panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            panel.minorticks_off()
            panel.set_xlabel("training examples" if axis == "n_train" else axis.replace("_", " "))
        else:
            panel.set_yticks(range(len(methods)), map(summary.label, methods))
            panel.set_xlabel(summary.title)
    if axis is None:
        grid[0][0].invert_yaxis()  # shared by all: the first method stands on top
        return drawing
    for row in grid:
        row[0].set_ylabel(summary.title)
    drawing.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return drawing


def _stems(name: str, profile: str) -> dict[str, str]:
    """Metric → name of its files: <name> for the first table, <name>.<metric> for the others."""
    stem = name if profile in ("laptop", "smoke") else f"{name}.{profile}"
    tables = experiments.load(name).tables
    return {table.metric: f"{stem}.{table.metric}" if i else stem for i, table in enumerate(tables)}


def write(name: str, profile: str = "laptop") -> list[Path]:
    """Write data/results/tables/STEM.{md,csv,tex} and figures/STEM.png of every table; below build/ for a smoke run."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    import matplotlib.pyplot as plt

    folder, figures, written = find_root() / "data" / "results" / "tables", find_root() / "figures", []
    if profile == "smoke":
        folder = figures = find_root() / "build" / "results" / "tables"
    for metric, stem in _stems(name, profile).items():
        picture, drawing = io.BytesIO(), figure(name, profile, metric)
        drawing.savefig(picture, format="png")
        plt.close(drawing)
        written += [
            record.write_text(folder / f"{stem}.md", markdown(name, profile, metric, root="../../../")),
            record.write_text(folder / f"{stem}.csv", to_csv(name, profile, metric)),
            record.write_text(folder / f"{stem}.tex", latex(name, profile, metric)),
            record.write_bytes(figures / f"{stem}.png", picture.getvalue()),
        ]
    return written


def generated(profile: str = "laptop") -> dict[str, str]:
    """The blocks that this module can write, by name: claims, ledger-page and table-<stem>, for pages at the root."""
    found = {"claims": ledger(profile), "ledger-page": ledger_page(profile)}
    for name in experiments.names():
        for metric, stem in _stems(name, profile).items() if experiments.results(name, profile) else ():
            found[f"table-{stem}"] = markdown(name, profile, metric, root="")
    return found
