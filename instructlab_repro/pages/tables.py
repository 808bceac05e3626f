"""Results in the shape of a paper: one :class:`Summary` in four forms, and as a figure."""

from __future__ import annotations

import csv
import io
import itertools
import math
import os
from collections import defaultdict
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from instructlab_repro import experiments
from instructlab_repro.pages.markdown import BLOCK as BLOCK
from instructlab_repro.pages.markdown import check_blocks as check_blocks
from instructlab_repro.pages.markdown import grid, ledger, ledger_page
from instructlab_repro.pages.markdown import update_blocks as update_blocks
from instructlab_repro.pages.summary import COSTS, Entry, Group, Summary, summarise
from instructlab_utils import files
from instructlab_utils.project import find_root

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 7  # columns beside the method that a page of GitHub shows without scrolling
TEX = str.maketrans(
    {c: "\\" + c for c in "&%$#_{}"}
    | {c: f"${tex}$" for c, tex in zip("±<>−·×≤≥", r"\pm < > - \cdot \times \le \ge".split(), strict=True)}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--"}
    | {"\u00a0": "~", "[": "{[}"}  # a row that begins with [ would be an option of the \\ before it
)


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
        '<div style="overflow-x:auto"><table cellpadding="4" style="border-collapse:collapse;color:inherit;'
        'font-size:85%;white-space:nowrap">',
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


def generated(profile: str = "laptop") -> dict[str, str]:
    """The blocks that this module can write, by name: claims, ledger-page and table-<stem>, for pages at the root."""
    found = {"claims": ledger(profile), "ledger-page": ledger_page(profile)}
    for name in experiments.names():
        for metric, stem in _stems(name, profile).items() if experiments.results(name, profile) else ():
            found[f"table-{stem}"] = markdown(name, profile, metric, root="")
    return found
