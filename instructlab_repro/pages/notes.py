"""The sentences below a table: what a number is, how it was run, and what a reader must not conclude."""

from __future__ import annotations

from collections import defaultdict

from instructlab_repro import experiments
from instructlab_repro.pages.markdown import render
from instructlab_repro.pages.summary import MAJORITY, Summary, beats, coordinate


def notes(summary: Summary) -> list[str]:
    """What a reader must know of the runs, from the lines themselves; the text is templates/notes.txt.j2."""
    experiment, axis, lines = summary.experiment, summary.curve, summary.lines
    text = render(
        "notes.txt.j2",
        summary=summary,
        seeds=len(experiment.axes["seed"]),
        told={key for numbers in summary.costs.values() for key in numbers},
        where=f" at {coordinate(axis, max(experiment.axes[axis]))}" if axis else "",
        edition=experiments.edition(lines),
        facts=lambda key: ", ".join(sorted({str(line["environment"].get(key)) for line in lines})),
        old={line["revision"] for line in lines} - {experiment.revision},
        floor=_floor(summary),
        still=_still(summary) if summary.table.unit == "%" else [],
    )
    return [line for line in text.splitlines() if line]


def _floor(summary: Summary) -> list[str]:
    """Which cells learned nothing: a comparison with such a cell says little about the other side."""
    found: dict[str, list[str]] = defaultdict(list)
    for (method, *column), cell in summary.cells.items() if summary.table.better == "higher" else ():
        least = summary.cells.get(("majority", *column)) or summary.cells.get((MAJORITY, *column))
        if least and cell.interval and method not in ("majority", MAJORITY) and not beats(cell, least, 1):
            found[summary.label(method)].append(summary.name(tuple(column)))
    every = len(summary.columns)

    def where(at: list[str]) -> str:
        if len(at) == every > 1:
            return "everywhere"
        return "; ".join(at) if len(at) < 4 else f"{len(at)} of {every} columns"

    return [f"{method} ({where(at)})" for method, at in found.items()]


def _still(summary: Summary) -> list[str]:
    """The methods with a cell that is printed with ± 0, the majority class aside."""
    found = [
        summary.label(method)
        for (method, *_), cell in summary.cells.items()
        if method not in ("majority", MAJORITY) and not float(summary.shown(cell.sd))
    ]
    return list(dict.fromkeys(found))
