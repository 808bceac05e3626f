"""The sentences below a table: what a number is, how it was run, and what a reader must not conclude."""

from __future__ import annotations

from collections import defaultdict

from instructlab_repro import experiments
from instructlab_repro.pages.summary import MAJORITY, Summary, beats, coordinate


def notes(summary: Summary) -> list[str]:
    """What a reader must know of the runs, from the lines themselves."""
    experiment, seeds = summary.experiment, len(summary.experiment.axes["seed"])

    def facts(key: str) -> str:
        return ", ".join(sorted({str(line["environment"].get(key)) for line in summary.lines}))

    examples = f"{experiment.settings['test']} test examples; " if "test" in experiment.settings else ""
    machine = f"{facts('cpu')}, threads {facts('threads')}; torch {facts('torch')}, transformers {facts('transformers')}"
    edition = f"Profile {experiment.profile}, edition {experiments.edition(summary.lines)} of the protocol"
    told = [_about(summary, seeds), f"{edition}; {examples}{machine}.", *experiment.notes]
    if old := {line["revision"] for line in summary.lines} - {experiment.revision}:
        told.append(f"Runs of revision {min(old)}; the experiment is at revision {experiment.revision}.")
    if any("†" in text for text in summary.chosen.values()):
        told.append("†: the chosen value lies at the edge of what was tried; a better one may lie beyond.")
    if floor := _floor(summary):
        told.append(
            f"Not better than the majority class, as far as these seeds can tell: {'; '.join(floor)}."
        )
    if seeds > 1 and (still := _still(summary)):
        told.append(
            f"±\u00a0{summary.shown(0)} means that every seed gave the same number, which a tuned method seldom does "
            f"unless it gives one answer to everything: {', '.join(still)}."
        )
    if summary.missing:
        told.append(f"Missing, and therefore not averaged: {'; '.join(summary.missing.values())}.")
    for number, paper in enumerate(summary.table.paper, 1):
        text = f"[{number}] {paper.source}: {paper.metric}, as printed; {paper.evidence}"
        told.append(f"{text}. Not ranked with ours, which has another model and other data.")
    return told


def _about(summary: Summary, seeds: int) -> str:
    """The first note: what a number of the table is."""
    told = {key for numbers in summary.costs.values() for key in numbers}
    spread = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    about = f"{summary.title}, {summary.table.better} is better: {spread}."
    if summary.rest:
        about += f" Each seed is the mean over {' and '.join(summary.rest).replace('_', ' ')}."
    if seeds > 1:
        about += " Bold: the best mean of a column, and all whose paired 95 % t interval to it contains zero."
    if summary.untrained:
        about += " A run that diverged, kept its loss or gives one class to everything did not train; no bold there."
    if told & {"seconds", "cpu_seconds"}:
        axis = summary.curve
        where = f" at {coordinate(axis, max(summary.experiment.axes[axis]))}" if axis else ""
        clock = "Wall seconds (on a GPU the CPU waits)" if summary.gpu else "CPU seconds"
        about += f" {clock}: median run{where}."
    if told & {"held_mb", "peak_memory_mb"}:
        about += " Peak memory: of the GPU, largest run." * summary.gpu
        about += " Held in training: weights, gradients, optimiser and the batch's values." * (
            not summary.gpu
        )
    return about


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
