"""Results in the shape of a paper: one :class:`Summary` in four forms, and as a figure."""

from __future__ import annotations

import csv
import io
import itertools
import math
import os
import textwrap
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from instructlab_repro import experiments
from instructlab_repro.pages.markdown import render
from instructlab_repro.pages.notes import notes
from instructlab_repro.pages.summary import COSTS, Group, summarise
from instructlab_utils import files
from instructlab_utils.project import find_root

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 7  # columns beside the method that a page of GitHub shows without scrolling


def markdown(name: str, profile: str = "laptop", metric: str | None = None, root: str = "../") -> str:
    """The table with its notes. A wide one is cut between groups, so that a page shows it without scrolling.

    ``root`` leads from the page's folder to the project's; the default fits a notebook.
    """
    summary = summarise(name, profile, metric)
    pages: list[list[Group]] = [[]]
    for group in summary.groups():
        if pages[-1] and sum(len(g.heads) for g in (*pages[-1], group)) > WIDTH:
            pages.append([])
        pages[-1].append(group)
    return render("table.md.j2", summary=summary, pages=pages, notes=notes(summary), root=root)


def html(name: str, profile: str = "laptop", metric: str | None = None, root: str = "../") -> str:
    """The table for a notebook (``IPython.display.HTML``), with the intervals; its colours are those of the page.

    ``root`` is that of :func:`markdown`.
    """
    summary = summarise(name, profile, metric)
    return render("table.html.j2", summary=summary, groups=summary.groups(), notes=notes(summary), root=root)


def latex(name: str, profile: str = "laptop", metric: str | None = None) -> str:
    """The table for a paper, with its notes; needs the package booktabs. A missing cell is a dash, named below."""
    summary = summarise(name, profile, metric)
    return render("table.tex.j2", summary=summary, groups=summary.groups(), notes=notes(summary))


def to_csv(name: str, profile: str = "laptop", metric: str | None = None) -> str:
    """A row per cell, long form, published numbers last; values as recorded, empty where a cell is missing.

    An axis that the cell averages over says "all". Seconds are those of the notes, memory is in MB (2**20 bytes).
    """
    summary = summarise(name, profile, metric)
    axes = [axis for axis in summary.experiment.axes if axis != "seed"]
    rows: list[dict[str, Any]] = []
    for method, column in itertools.product(summary.methods, summary.columns):
        row: dict[str, Any] = {"group": "ours", "method": method} | dict.fromkeys(axes, "all")
        row |= dict(zip(summary.spread, column, strict=True)) | {"column": summary.name(column), "seeds": 0}
        if cell := summary.cells.get((method, *column)):
            row |= {"seeds": len(cell.values), "mean": cell.mean, "best": int(cell.best)}
            if cell.interval is not None:
                row |= {"sd": cell.sd, "low": cell.interval.low, "high": cell.interval.high}
        row["claim"], row["verdict"] = summary.verdicts.get(method, ("", ""))
        row |= {"chosen": summary.chosen.get(method, ""), "untrained": summary.untrained.get(method, "")}
        rows.append(row | {"metric": summary.table.metric} | summary.costs.get(method, {}))
    for paper in summary.table.paper:
        group = f"paper: {paper.model}, {paper.data} ({paper.source}; {paper.evidence})"
        for head, values in paper.values.items():
            about = {"group": group, "column": head, "metric": paper.metric}
            rows += [about | {"method": method, "mean": value} for method, value in values.items()]
    numbers = [*"seeds mean sd low high best".split(), *(key for _, keys, _ in COSTS for key in keys)]
    words = "untrained chosen claim verdict".split()
    fields = ["group", "method", *axes, "column", "metric", *numbers, *words]
    writer = csv.DictWriter(out := io.StringIO(), fields, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: round(v, 10) if isinstance(v, float) else v for k, v in r.items()} for r in rows)
    return out.getvalue()


def figure(name: str, profile: str = "laptop", metric: str | None = None) -> Figure:
    """Curves along the longest numeric axis or, where there is none, a dot per method; with 95 % t intervals over seeds.

    A panel per combination of the other axes; at most three stand side by side.
    """
    from instructlab_utils import plotting

    summary = summarise(name, profile, metric)
    axis, scale, all_methods = summary.curve, summary.table.scale, list(summary.experiment.methods)
    methods = [method for method in all_methods if any(place[0] == method for place in summary.cells)]
    panels: dict[str, list[tuple]] = defaultdict(list)
    for column in summary.columns:
        panels[summary.name(column, [axis or ""])].append(column)
    shape = math.ceil(len(panels) / 3), min(3, len(panels))
    drawing, grid = plotting.axes(*shape, sharex=axis is None, sharey=True, squeeze=False)
    for panel in grid.flat[len(panels) :]:
        panel.set_visible(False)
    for panel, (title, columns) in zip(grid.flat, panels.items(), strict=False):
        panel.set_title(title)
        for index, method in enumerate(methods):
            there = [column for column in columns if (method, *column) in summary.cells]
            cells = [summary.cells[method, *column] for column in there]
            means, look = [scale * cell.mean for cell in cells], plotting.style(all_methods.index(method))
            bars = [(cell, cell.interval or cell) for cell in cells]
            ends = [(getattr(b, "low", c.mean), getattr(b, "high", c.mean)) for c, b in bars]
            low, high = scale * np.array(ends).reshape(-1, 2).T
            if axis:
                at = [column[summary.spread.index(axis)] for column in there]
                panel.plot(at, means, label=summary.label(method), **look)
                panel.fill_between(at, low, high, color=look["color"], alpha=0.12, linewidth=0)
            else:
                panel.plot(means, [index] * len(means), **(look | {"linestyle": "none"}))
                panel.hlines([index] * len(means), low, high, color=look["color"])
        if axis:
            ticks = sorted(summary.experiment.axes[axis])
            panel.set_xscale("log" if 0 < 10 * ticks[0] < ticks[-1] else "linear")  # type: ignore[operator]
            panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            panel.minorticks_off()
            panel.set_xlabel("training examples" if axis == "n_train" else axis.replace("_", " "))
        else:
            panel.set_yticks(range(len(methods)), map(summary.label, methods))
    if axis is None:
        drawing.supxlabel(textwrap.fill(summary.title, 50 * shape[1]), fontsize="medium")
        grid[0][0].set_ylim(len(methods) - 0.5, -0.5)  # shared by all: the first method stands on top
        longest = max(len(summary.label(method)) for method in methods)
        more = (
            0.08 * max(0, longest - 30),
            0.2 * max(0, len(methods) - 12) * shape[0],
        )  # for long labels, many rows
        drawing.set_size_inches(*(drawing.get_size_inches() + more))
        return drawing
    for row in grid:
        row[0].set_ylabel(textwrap.fill(summary.title, 30))
    drawing.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return drawing


def _stems(name: str, profile: str) -> dict[str, str]:
    """Metric → name of its files: <name> for the first table, <name>.<metric> for the others."""
    stem = name if profile in ("laptop", "smoke") else f"{name}.{profile}"
    tables = experiments.load(name).tables
    return {table.metric: f"{stem}.{table.metric}" if i else stem for i, table in enumerate(tables)}


def forms(name: str, profile: str = "laptop") -> dict[Path, str]:
    """The text of every table file: data/results/tables/STEM.{md,csv,tex}; below build/ for a smoke run."""
    folder = find_root() / ("build" if profile == "smoke" else "data") / "results" / "tables"
    found = {}
    for metric, stem in _stems(name, profile).items():
        found[folder / f"{stem}.md"] = markdown(name, profile, metric, root="../../../")
        found[folder / f"{stem}.csv"] = to_csv(name, profile, metric)
        found[folder / f"{stem}.tex"] = latex(name, profile, metric)
    return found


def write(name: str, profile: str = "laptop") -> list[Path]:
    """Write the files of :func:`forms`, and figures/STEM.png of every table; a smoke run's beside its tables."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    import matplotlib.pyplot as plt

    written = [files.write_text(path, text) for path, text in forms(name, profile).items()]
    figures = written[0].parent if profile == "smoke" else find_root() / "figures"
    for metric, stem in _stems(name, profile).items():
        picture, drawing = io.BytesIO(), figure(name, profile, metric)
        drawing.savefig(picture, format="png")
        plt.close(drawing)
        written.append(files.write_bytes(figures / f"{stem}.png", picture.getvalue()))
    return written


def generated() -> dict[str, str]:
    """Every table of the laptop's results as a block of a page at the root, by name: table-<stem>."""
    return {
        f"table-{stem}": markdown(name, metric=metric, root="")
        for name in experiments.names()
        if experiments.results(name)
        for metric, stem in _stems(name, "laptop").items()
    }
