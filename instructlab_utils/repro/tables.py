"""Results in the shape of a paper: method by task and training size, from the recorded lines and nothing else.

A cell that lacks a seed is not averaged; it is left out and named under the table. Text between the comments
`<!-- generated:NAME -->` and `<!-- /generated -->` of a Markdown file is written here, never by hand.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from instructlab_utils.errors import ConfigError, RecordError
from instructlab_utils.metrics import Interval, t_interval
from instructlab_utils.repro import claims, experiments, record
from instructlab_utils.repro.experiments import Experiment, tuned_value
from instructlab_utils.session import find_root

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLOCK = re.compile(r"(<!-- generated:(?P<name>[\w.-]+) -->\n)(?P<text>.*?)(<!-- /generated -->)", re.DOTALL)
BOUND = re.compile(r"<!-- (?:generated:[\w.-]+|/generated) -->")


@dataclass(frozen=True)
class Cell:
    """Accuracy of a method on a task at a training size, in 0…1, one value per seed in the grid's order."""

    values: tuple[float, ...]
    interval: Interval | None  # None for a single seed
    best: bool = False

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def sd(self) -> float:
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else float("nan")


@dataclass
class Summary:
    """``cells[method, task, n_train]``; a cell with a missing seed is absent, and its runs are in ``missing``."""

    experiment: Experiment
    cells: dict[tuple[str, str, int], Cell] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    trained: dict[str, tuple[int, int]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def columns(self) -> list[tuple[str, int]]:
        return [(task, n) for task in self.experiment.axes.task for n in self.experiment.axes.n_train]

    def label(self, method: str) -> str:
        return self.experiment.labels.get(method, method)


def summarise(name: str, profile: str = "laptop") -> Summary:
    """All cells of an experiment's table.

    Bold are the best mean of a column and all methods whose paired 95 % t interval to it contains zero.

    Raises:
        RecordError: when nothing is recorded yet, or a line lacks a field.
    """
    experiment = experiments.load(name).at(profile)
    lines = experiments.results(name, profile)
    path = experiments.results_path(name, profile)
    if not lines:
        raise RecordError(f"{path}: no results yet; run `make reproduce`.")
    if strange := {line.get("schema") for line in lines} - {record.SCHEMA}:
        raise RecordError(f"{path}: lines of schema {strange.pop()!r}; this version reads {record.SCHEMA}.")
    summary, seeds = Summary(experiment), experiment.axes.seed
    try:
        runs = {(line["method"], line["task"], line["n_train"], line["seed"]): line for line in lines}
        for task, n in summary.columns:
            column: dict[str, Cell] = {}
            for method in experiment.methods:
                found = [runs.get((method, task, n, seed)) for seed in seeds]
                absent = [seed for seed, line in zip(seeds, found, strict=True) if line is None]
                if absent:
                    named = ", ".join(map(str, absent))
                    summary.missing.append(f"{summary.label(method)}, {task}, n = {n}: seed {named}")
                    continue
                values = tuple(float(line["accuracy"]) for line in found)  # type: ignore[index]
                column[method] = Cell(values, t_interval(values) if len(values) > 1 else None)
            for method, cell in _marked(column).items():
                summary.cells[method, task, n] = cell
        largest = max(experiment.axes.n_train)
        for method in experiment.methods:
            mine = [line for line in lines if line["method"] == method]
            if counts := [line["trainable_parameters"] for line in mine]:
                summary.trained[method] = (min(counts), max(counts))
            if spent := [line["seconds"] for line in mine if line["n_train"] == largest]:
                summary.seconds[method] = float(np.median(spent))
        summary.notes = _notes(experiment, lines, profile)
        if floor := _floor(summary):
            summary.notes.append(floor)
    except KeyError as error:
        raise RecordError(f"{path}: a line has no field {error}; run `make reproduce` again.") from None
    return summary


def _marked(column: Mapping[str, Cell]) -> dict[str, Cell]:
    """The column with the best mean marked, and what cannot be told from it on the same seeds."""
    if not column:
        return {}
    top = max(column.values(), key=lambda cell: cell.mean)

    def tied(cell: Cell) -> bool:
        if cell.mean == top.mean:
            return True
        if len(cell.values) < 2:
            return False
        return t_interval(np.subtract(top.values, cell.values)).low <= 0

    return {method: Cell(cell.values, cell.interval, tied(cell)) for method, cell in column.items()}


def _notes(experiment: Experiment, lines: list[dict], profile: str) -> list[str]:
    """What a reader must know of the runs, from the lines themselves."""
    environments = [line["environment"] for line in lines]

    def facts(key: str) -> str:
        return ", ".join(sorted({str(env.get(key)) for env in environments}))

    seeds = len(experiment.axes.seed)
    notes = [
        f"Test accuracy in percent, mean ± standard deviation over {seeds} seed{'s' * (seeds > 1)}, "
        "the 95 % t interval in brackets. "
        "Bold: the best mean of a column, and all whose paired interval to it contains zero. "
        f"Seconds: median run at n = {max(experiment.axes.n_train)}.",
        f"Profile {profile}; {experiment.sizes.test} test examples; {facts('cpu')}, threads {facts('threads')}; "
        f"torch {facts('torch')}, transformers {facts('transformers')}.",
        *experiment.notes,
    ]
    edges = []
    tuned = experiment.tuning.values() if experiment.tuning is not None else {}
    for method, values in tuned.items():
        chosen = {line["task"]: tuned_value(line) for line in lines if line["method"] == method}
        at_edge = [
            f"{task} {value:g}"
            for task, value in sorted(chosen.items())
            if value in (min(values), max(values))
        ]
        if at_edge and len(values) > 2:
            edges.append(f"{experiment.labels.get(method, method)} ({', '.join(at_edge)})")
    if edges:
        notes.append(
            f"The tuned value lies at the edge of what was tried, a better one may lie beyond: {'; '.join(edges)}."
        )
    return notes


def _floor(summary: Summary) -> str:
    """Which cells learned nothing: a comparison with such a cell says little about the other side."""
    names = []
    for method in summary.experiment.methods:
        columns = []
        for task, n in summary.columns:
            cell, least = summary.cells.get((method, task, n)), summary.cells.get(("majority", task, n))
            if cell is None or least is None or method == "majority" or cell.interval is None:
                continue
            if t_interval(np.subtract(cell.values, least.values)).low <= 0:
                columns.append(f"{task} {n}")
        if columns:
            names.append(f"{summary.label(method)} ({', '.join(columns)})")
    if not names:
        return ""
    return f"Not better than the majority class, as far as these seeds can tell: {'; '.join(names)}."


# --- three forms of the same table -----------------------------------------------------------------


def _count(pair: tuple[int, int] | None) -> str:
    def short(n: int) -> str:
        return f"{n / 1e6:.1f} M" if n >= 1e6 else f"{n / 1e3:.1f} k" if n >= 1e3 else str(n)

    if pair is None:
        return "–"
    low, high = short(pair[0]), short(pair[1])
    return low if low == high else f"{low} – {high}"


def _seconds(value: float | None) -> str:
    return (
        "–"
        if value is None
        else f"{value:.0f}"
        if value >= 10
        else f"{value:.1f}"
        if value >= 0.05
        else "< 0.1"
    )


def _percent(cell: Cell) -> tuple[str, str]:
    """ "84.5 ± 1.2" and "[83.0, 86.0]"; the second is empty for a single seed."""
    if cell.interval is None:
        return f"{100 * cell.mean:.1f}", ""
    spread = f"{100 * cell.mean:.1f} ± {100 * cell.sd:.1f}"
    return spread, f"[{100 * cell.interval.low:.1f}, {100 * cell.interval.high:.1f}]"


def _grid(rows: list[list[str]]) -> str:
    """A Markdown table; the first row is the head, numbers are set right."""
    head, *body = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *body])


def markdown(name: str, profile: str = "laptop") -> str:
    """The table with its notes, for a README or a notebook; it lists the missing cells."""
    summary = summarise(name, profile)
    rows = [["method", *(f"{task}<br>n = {n}" for task, n in summary.columns), "trained", "seconds"]]
    for method in summary.experiment.methods:
        row = [summary.label(method)]
        for task, n in summary.columns:
            cell = summary.cells.get((method, task, n))
            if cell is None:
                row.append("missing")
                continue
            spread, interval = _percent(cell)
            spread = f"**{spread}**" if cell.best else spread
            row.append(f"{spread}<br>{interval}" if interval else spread)
        rows.append([*row, _count(summary.trained.get(method)), _seconds(summary.seconds.get(method))])
    return "\n\n".join([_grid(rows), *summary.notes, *_missing(summary)]) + "\n"


def _missing(summary: Summary) -> list[str]:
    if not summary.missing:
        return []
    return ["Missing, and therefore not averaged:\n\n" + "\n".join(f"- {cell}" for cell in summary.missing)]


def to_csv(name: str, profile: str = "laptop") -> str:
    """One row per cell, long form; accuracies in 0…1, empty where the cell is missing."""
    summary = summarise(name, profile)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    fields = "method,task,n_train,seeds,mean,sd,low,high,best,trained_min,trained_max,seconds_at_largest_n"
    writer.writerow(fields.split(","))
    for method in summary.experiment.methods:
        tail = [*summary.trained.get(method, ("", "")), round(summary.seconds.get(method, float("nan")), 3)]
        for task, n in summary.columns:
            cell = summary.cells.get((method, task, n))
            numbers: list[Any] = [0, "", "", "", "", ""]
            if cell is not None:
                ends = (cell.interval.low, cell.interval.high) if cell.interval else ("", "")
                rounded = [round(x, 6) if isinstance(x, float) else x for x in (cell.mean, cell.sd, *ends)]
                numbers = [len(cell.values), *rounded, int(cell.best)]
            writer.writerow([method, task, n, *numbers, *tail])
    return out.getvalue()


def _tex(text: str) -> str:
    for plain, escaped in (("\\", r"\textbackslash "), *((c, "\\" + c) for c in "&%$#_{}")):
        text = text.replace(plain, escaped)
    return text.replace("±", r"$\pm$").replace("–", "--").replace("<", r"$<$")


def latex(name: str, profile: str = "laptop") -> str:
    """The table for a paper; needs the package booktabs. Missing cells are a dash, and named in a comment."""
    summary = summarise(name, profile)
    tasks, sizes = summary.experiment.axes.task, summary.experiment.axes.n_train
    groups, rules = [], []
    for i, task in enumerate(tasks):
        groups.append(rf"\multicolumn{{{len(sizes)}}}{{c}}{{{_tex(task)}}}")
        rules.append(rf"\cmidrule(lr){{{2 + i * len(sizes)}-{1 + (i + 1) * len(sizes)}}}")
    heads = [f"$n={n}$" for _, n in summary.columns]
    rows = [
        *(f"% missing: {cell}" for cell in summary.missing),
        rf"\begin{{tabular}}{{l{'r' * (len(heads) + 2)}}}",
        r"\toprule",
        " & ".join(["", *groups, "", ""]) + r" \\",
        " ".join(rules),
        " & ".join(["method", *heads, "trained", "seconds"]) + r" \\",
        r"\midrule",
    ]
    for method in summary.experiment.methods:
        row = [_tex(summary.label(method))]
        for task, n in summary.columns:
            cell = summary.cells.get((method, task, n))
            text = "--" if cell is None else _tex(_percent(cell)[0])
            row.append(rf"\textbf{{{text}}}" if cell is not None and cell.best else text)
        tail = (_count(summary.trained.get(method)), _seconds(summary.seconds.get(method)))
        rows.append(" & ".join([*row, *map(_tex, tail)]) + r" \\")
    return "\n".join([*rows, r"\bottomrule", r"\end{tabular}", ""])


def figure(name: str, profile: str = "laptop") -> Figure:
    """Learning curves: a panel per task, accuracy over training size, bands are 95 % t intervals over seeds."""
    from instructlab_utils import plotting

    summary = summarise(name, profile)
    tasks, sizes = summary.experiment.axes.task, summary.experiment.axes.n_train
    drawing, panels = plotting.axes(1, len(tasks), sharey=True, squeeze=False)
    for panel, task in zip(panels[0], tasks, strict=True):
        for index, method in enumerate(summary.experiment.methods):
            there = [n for n in sizes if (method, task, n) in summary.cells]
            cells = [summary.cells[method, task, n] for n in there]
            style = plotting.style(index)
            panel.plot(there, [100 * c.mean for c in cells], label=summary.label(method), **style)
            ends = [(c.interval.low, c.interval.high) for c in cells if c.interval is not None]
            if len(ends) == len(cells) and cells:
                low, high = (100 * np.array(side) for side in zip(*ends, strict=True))
                panel.fill_between(there, low, high, color=style["color"], alpha=0.12, linewidth=0)
        panel.set_xscale("log")
        panel.set_xticks(sizes, [str(n) for n in sizes])
        panel.minorticks_off()
        panel.set_title(task)
        panel.set_xlabel("training examples")
    panels[0][0].set_ylabel("test accuracy (%)")
    handles, labels = panels[0][0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=4)
    return drawing


def write(name: str, profile: str = "laptop") -> list[Path]:
    """Write data/results/tables/<name>.{md,csv,tex} and figures/<name>.png; below build/ for a smoke run."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    folder, figures = find_root() / "data" / "results" / "tables", find_root() / "figures"
    if profile == "smoke":
        folder = figures = find_root() / "build" / "results" / "tables"
    stem = name if profile in ("laptop", "smoke") else f"{name}.{profile}"
    written = [
        record.write_text(folder / f"{stem}.md", markdown(name, profile)),
        record.write_text(folder / f"{stem}.csv", to_csv(name, profile)),
        record.write_text(folder / f"{stem}.tex", latex(name, profile)),
    ]
    import matplotlib.pyplot as plt

    picture, drawing = io.BytesIO(), figure(name, profile)
    drawing.savefig(picture, format="png")
    plt.close(drawing)
    return [*written, record.write_bytes(figures / f"{stem}.png", picture.getvalue())]


def ledger(profile: str = "laptop") -> str:
    """Every claim with its verdict and interval, as a Markdown table."""
    rows = [["claim", "statement", "verdict", "statistic", "mean over seeds", "experiment"]]
    for name in claims.names():
        found = claims.verdict(name, profile)
        interval = "–"
        if found["mean"] is not None and found["verdict"] != "not tested":
            interval = f"{found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"
        word = found["verdict"] + (" (text changed since)" if found["changed"] else "")
        rows.append(
            [name, found["statement"], f"**{word}**", found["statistic"], interval, found["experiment"]]
        )
    return _grid(rows) + "\n"


# --- generated blocks ------------------------------------------------------------------------------


def generated(profile: str = "laptop") -> dict[str, str]:
    """The blocks that this module can write, by name: table-<experiment> and claims."""
    found = {"claims": ledger(profile)}
    for name in experiments.names():
        if experiments.results(name, profile):
            found[f"table-{name}"] = markdown(name, profile)
    return found


def _replaced(path: Path, mapping: Mapping[str, str]) -> tuple[str, str, list[str]]:
    """Old text, new text, and the names of the blocks that differ."""
    old = path.read_text(encoding="utf-8")
    if len(BOUND.findall(old)) != 2 * len(BLOCK.findall(old)):
        raise ConfigError(
            f"{path.name}: a generated block is not closed by <!-- /generated -->, or not opened."
        )
    different = []

    def fill(match: re.Match[str]) -> str:
        name = match["name"]
        if BOUND.search(match["text"]):
            raise ConfigError(f"{path.name}: the generated block {name!r} holds another; close it first.")
        if name not in mapping:
            return match[0]
        text = f"{mapping[name].strip()}\n"
        if text != match["text"]:
            different.append(name)
        return f"{match[1]}{text}{match[4]}"

    return old, BLOCK.sub(fill, old), different


def update_blocks(path: str | Path, mapping: Mapping[str, str]) -> list[str]:
    """Write the blocks that ``mapping`` names into a Markdown file; returns the names that changed.

    Other blocks and all other text stay. ConfigError when a block is not closed.
    """
    path = Path(path)
    _, new, different = _replaced(path, mapping)
    if different:
        record.write_text(path, new)
    return different


def check_blocks(path: str | Path, mapping: Mapping[str, str]) -> list[str]:
    """One sentence per block that is not what ``mapping`` would write now; changes nothing."""
    path = Path(path)
    _, _, different = _replaced(path, mapping)
    return [
        f"{path.name}: the generated block {name!r} is out of date; run `make reproduce`."
        for name in different
    ]
