"""Doing it again: verification of committed results.

A repetition runs a block once more, into a folder of its own, and compares its lines with the recorded ones. On the
same hardware, with the same versions and threads, every bit must agree ("equal"). Elsewhere each metric must stay
inside the band of the method's rounding twin ("within"). A twin is one draw, and may leave a metric alone by luck. So
what it moved is also pooled over the metrics, each in the unit of the seeds' standard deviation. Where a twin grows to a
third of that and more, the seeds' 99 % prediction interval counts ("sensitive, within seeds"). All else is "different".
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from instructlab_repro import experiments, provenance
from instructlab_repro.experiments import Block, Experiment
from instructlab_utils import files
from instructlab_utils.errors import RecordError
from instructlab_utils.project import find_root

SAME = ("hardware", "threads", "python", "torch", "transformers", "scikit-learn", "numpy")
# How the names of metrics end that no repetition gives again.
VOLATILE = ("seconds", "ms_per_step", "peak_memory_mb")
LOSSES = ("loss", "nll", "likelihood", "perplexity")  # parts of the names of metrics that count no examples
MARGIN = 2.0  # a band is so many times the largest difference that twins saw
POOLED = 3.0  # or so many times their root mean square over a method's metrics: both are luck
LEAST = 1e-4  # and never narrower than this share of the metric, or than one test example: float32 keeps that much
WORDS = ("equal", "within", "sensitive, within seeds", "different")

Bands = Mapping[str, Mapping[str, float]]
Lines = Sequence[Mapping[str, Any]]


# --- comparing --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Repetition:
    """One run against its recorded one.

    ``moved`` holds the metrics that are not equal: the recorded value, the new one, and what the recorded runs of all
    seeds have in the same place. ``test`` counts the test examples, 0 where nothing is stored for each.
    """

    place: str
    method: str
    same_environment: bool
    moved: dict[str, tuple[float, float, list[float]]]
    predictions_changed: int
    test: int

    @property
    def equal(self) -> bool:
        return not self.moved and not self.predictions_changed

    def shown(self) -> str:
        parts = [f"{metric} {new - old:+.2g}" for metric, (old, new, _) in self.moved.items()]
        if self.predictions_changed:
            parts.append(f"{self.predictions_changed} of {self.test} predictions")
        return ", ".join(parts)


def compare(experiment: Experiment, block: Block, recorded: Lines, again: Lines) -> list[Repetition]:
    """Recorded lines against those of a repetition, trial by trial. RecordError if a trial has no counterpart."""
    cells = (*experiment.axes, "method")
    given = experiment.name, experiment.profile
    stored = {tuple(row[c] for c in cells): row for row in experiments.predictions(*given)}
    others, found = experiments.results(*given), []
    for old in recorded:
        names = ("method", "tuned", *experiment.inside)
        new = next((x for x in again if all(x[n] == old[n] for n in names)), None)
        if new is None:
            raise _error(experiment, block.id, f"the repetition has no line for {old['method']}.")
        alike = [x for x in others if all(x[c] == old[c] for c in cells if c != "seed")]
        moved = {
            name: (old[name], value, [x[name] for x in alike])
            for name, value in new.items()
            if isinstance(value, float) and not name.endswith(VOLATILE)
            if isinstance(old.get(name), float) and value != old[name]
        }
        one, two = _answers(stored.get(tuple(old[c] for c in cells), {}), old), _answers(new)
        test, changed = 0, 0
        if one is not None and two is not None:
            test, changed = len(two), int((one != two).sum())
        place = f"{block.id} · {old['method']}" + "".join(f" · {n} = {old[n]}" for n in experiment.inside)
        same = all(old["environment"].get(k) == new["environment"].get(k) for k in SAME)
        found.append(Repetition(place, old["method"], same, moved, changed, test))
    return found


def _answers(*rows: Mapping[str, Any]) -> np.ndarray | None:
    """The first predictions or scores in ``rows``, as the Parquet file keeps scores."""
    found = (row[name] for row in rows for name in ("predictions", "scores") if row.get(name) is not None)
    return next((np.asarray(answers, dtype=np.float32) for answers in found), None)


def _other_seeds(values: Sequence[float]) -> tuple[float, float, float]:
    """Standard deviation and the ends of the 99 % prediction interval of one more run; all 0 below 3 runs."""
    from scipy import special

    if (n := len(values)) < 3:
        return 0.0, 0.0, 0.0
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(special.stdtrit(n - 1, 0.995)) * sd * (1 + 1 / n) ** 0.5
    return sd, mean - half, mean + half


def judge(repetitions: Iterable[Repetition], bands: Bands) -> tuple[str, list[str]]:
    """The worst of WORDS, and a sentence for each run that is not equal.

    ``bands[method][metric]`` is the largest difference that another machine may show. A method or metric without a
    twin gets the widest band of its metric, or without any twin what ``LEAST`` and one test example allow. In the same
    environment no difference is allowed.
    """
    worst, reasons = 0, []
    for each in repetitions:
        if each.equal:
            continue
        found = {metric: _word(each, metric, bands) for metric in each.moved}
        level = 3 if each.same_environment else max((1, *found.values()))
        over = ", ".join(metric for metric, word in found.items() if word == level)
        why = {
            1: "inside the band",
            2: f"sensitive to rounding, inside the seeds' range in {over}",
            3: "other bits on the same hardware" if each.same_environment else f"outside the band in {over}",
        }[level]
        worst = max(worst, level)
        reasons.append(f"{each.place}: {why}: {each.shown()}")
    return WORDS[worst], reasons


def _word(each: Repetition, metric: str, bands: Bands) -> int:
    """The place in WORDS of one metric of one run, on another machine."""
    old, new, alike = each.moved[metric]
    counted = each.test and not any(part in metric for part in LOSSES)
    least = max(1.0, abs(old)) / each.test if counted else LEAST * abs(old)  # one example's part of a mean
    widest = max((band[metric] for band in bands.values() if metric in band), default=0.0)
    (sd, low, high), pooled = _other_seeds(alike), POOLED * _of_a_seed(each, bands.get(each.method, {}))
    band = max(bands.get(each.method, {}).get(metric, widest), least, pooled * sd if pooled < 1 else 0.0)
    if abs(new - old) <= band:
        return 1
    return 2 if sd > 0 and pooled >= 1 and low <= new <= high else 3


def _of_a_seed(each: Repetition, band: Mapping[str, float]) -> float:
    """What the method's twin moved, as a share of the seeds' standard deviation: root mean square over the metrics."""
    spreads = {metric: _other_seeds(alike)[0] for metric, (_, _, alike) in each.moved.items()}
    found = [band[metric] / MARGIN / sd for metric, sd in spreads.items() if metric in band and sd > 0]
    return float(np.sqrt(np.mean(np.square(found)))) if found else 0.0


# --- running a block again ---------------------------------------------------------------------------


def repeat(experiment: Experiment, block: Block, threads: int) -> Lines:
    """The lines of the block, run once more into build/verify/ with ``threads``.

    Says on stderr how far it is, whenever a run has ended. RecordError where it does not end well.
    """
    scratch, done = replace(block, under="verify"), threading.Event()
    path, total, start = scratch.out / "lines.jsonl", len(experiment.trials(block)), time.monotonic()

    def say(text: str) -> None:
        print(f"{experiment.name}: {text}", file=sys.stderr, flush=True)

    def watch() -> None:
        shown, ended = 0, False
        while not ended:
            ended = done.wait(1)
            there = path.read_bytes().count(b"\n") if path.is_file() else 0
            if there != shown:
                say(f"{there} of {total} runs after {time.monotonic() - start:.0f} s")
            shown = there

    path.unlink(missing_ok=True)
    say(f"runs {block.id} again, about {experiment.expected_seconds(block) or 0:.0f} s by earlier runs")
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:  # in the main thread, which gets the signals
        how: dict[str, Any] = {"fresh": True, "under": "verify", "threads": threads}
        manifest = experiments.run_block(experiment.name, block.id, experiment.profile, **how)
    finally:
        done.set()
        watcher.join()
    if manifest.error is not None:
        raise _error(experiment, block.id, f"the repetition {manifest.status}: {manifest.error['message']}")
    again, reason = experiment.built(scratch)
    if again is None:
        raise _error(experiment, block.id, f"no repetition under build/verify: {reason}")
    return again


def _error(experiment: Experiment, block: str, text: str) -> RecordError:
    return RecordError(f"{experiment.name}/{block}: {text}")


# --- verification -----------------------------------------------------------------------------------


def verified_path() -> Path:
    """What was verified last, by "<experiment>.<profile>"."""
    return find_root() / "data" / "results" / "verified.json"


def verified() -> dict[str, dict[str, Any]]:
    """The content of :func:`verified_path`; {} without it."""
    return files.read_json(verified_path()) if verified_path().is_file() else {}


def last(experiment: Experiment) -> dict[str, Any] | None:
    """The last verification, if it was one of the experiment as it is today."""
    entry = verified().get(f"{experiment.name}.{experiment.profile}", {})
    block = next((b for b in experiment.blocks() if b.id == entry.get("block")), None)
    return entry if block is not None and experiment.key(block) == entry["key"] else None


def stale(experiment: Experiment) -> bool:
    """Whether it found other bits in the same environment. Another processor says nothing about the recorded results."""
    entry = last(experiment) or {"status": "none"}
    return entry["status"] == "different" and entry.get("same_environment", True)


def cheapest(experiment: Experiment) -> Block:
    """The block that takes the least time of those with results. RecordError where there is none."""
    there = [b for b in experiment.blocks() if b.stage == "run" and experiment.lines(b) is not None]
    if not there:
        what = f"no {experiment.profile} results to verify; run `make reproduce` first."
        raise RecordError(f"{experiment.name}: {what}")
    return min(there, key=lambda b: (experiment.expected_seconds(b) or 0.0, b.id))


def verify(name: str, profile: str) -> tuple[str, str]:
    """Run the cheapest block again, compare, and write the outcome down; returns the word and a text for a person.

    Results of the smoke profile are compared too, but not written down.
    """
    experiment = experiments.load(name).at(profile)
    chosen = cheapest(experiment)
    recorded = experiment.lines(chosen) or []
    again = repeat(experiment, chosen, int(recorded[0]["environment"]["threads"]))
    found = compare(experiment, chosen, recorded, again)
    word, reasons = judge(found, bands(name, profile))
    here = all(each.same_environment for each in found)
    how = "the same hardware and versions: bit for bit" if here else "elsewhere: by the rounding twins"
    text = f"{name}/{chosen.id}: {word} in {len(found)} runs ({how})"
    if profile != "smoke":
        entry = {
            "date": datetime.now(UTC).date().isoformat(),
            "environment": provenance.short_environment(),
            "block": chosen.id,
            "key": experiment.key(chosen),
            "status": word,
            "same_environment": here,
            "reasons": reasons,
        }
        files.write_json(verified_path(), verified() | {f"{name}.{profile}": entry})
    return word, "\n".join([text, *(f"  {reason}" for reason in reasons)])


def bands(name: str, profile: str = "laptop") -> Bands:
    """``bands[method][metric]`` by the experiment's rounding twins; {} without twins."""
    found = experiments.bands(name, profile)
    return {method: {m: MARGIN * v for m, v in moved.items()} for method, moved in found.items()}
