"""The sentences below a table: what a number is, how it was run, and what a reader must not conclude."""

from __future__ import annotations

from collections import defaultdict

from instructlab_repro import experiments
from instructlab_repro.pages.markdown import render
from instructlab_repro.pages.summary import MAJORITY, Summary, coordinate


def notes(summary: Summary) -> list[str]:
    """What a reader must know of the runs, from the lines themselves; the text is templates/notes.txt.j2."""
    experiment, axis, lines = summary.experiment, summary.curve, summary.lines
    floor = "majority" if "majority" in experiment.methods else MAJORITY
    own = [place for place in summary.cells if place[0] != floor]
    flat = [m for m, *column in own if not float(summary.shown(summary.cells[m, *column].sd))]
    text = render(
        "notes.txt.j2",
        summary=summary,
        seeds=len(summary.seeds),
        told={key for numbers in summary.costs.values() for key in numbers},
        where=f" at {coordinate(axis, max(experiment.axes[axis]))}" if axis else "",
        edition=experiments.edition(lines),
        facts=lambda key: ", ".join(sorted({str(line["environment"].get(key)) for line in lines})),
        old={line["revision"] for line in lines} - {experiment.revision},
        floor=_unlearned(summary, floor, own) if summary.table.better == "higher" else [],
        flat=dict.fromkeys(map(summary.label, flat)) if summary.table.unit == "%" else {},
    )
    return [line for line in text.splitlines() if line]


def _unlearned(summary: Summary, floor: str, places: list[tuple]) -> list[str]:
    """Which methods learned nothing, and where: a comparison with such a cell says little about the other side."""
    found: dict[str, list[str]] = defaultdict(list)
    for method, *column in places:
        cell, least = summary.cells[method, *column], summary.cells.get((floor, *column))
        if least and cell.interval and not cell.beats(least):
            found[summary.label(method)].append(summary.name(tuple(column)))
    every = len(summary.columns)

    def where(at: list[str]) -> str:
        if len(at) == every:
            return " (everywhere)" * (every > 1)
        return f" ({'; '.join(at)})" if len(at) < 4 else f" ({len(at)} of {every} columns)"

    return [f"{method}{where(at)}" for method, at in found.items()]
