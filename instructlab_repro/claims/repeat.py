"""Doing it again: verification of committed results, and the determinism study.

A repetition runs a block once more, into a folder of its own, and compares its lines with the recorded ones. On the
same hardware, with the same versions and threads, every bit must agree ("equal"). Elsewhere each metric must stay
inside the band of the method's rounding twin ("within"). Where that twin moves as much as a seed does, the seeds' 99 %
prediction interval counts ("sensitive, within seeds"). All else is "different".
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from instructlab_repro import experiments, provenance
from instructlab_repro.experiments import Block, Experiment
from instructlab_utils import files
from instructlab_utils.errors import ConfigError, RecordError
from instructlab_utils.project import find_root

SAME = ("hardware", "threads", "python", "torch", "transformers", "scikit-learn", "numpy")
# How the names of metrics end that no repetition gives again.
VOLATILE = ("seconds", "ms_per_step", "peak_memory_mb")
LOSSES = ("loss", "nll", "likelihood")  # parts of the names of metrics that are no shares of examples
MARGIN = 2.0  # a band is so many times the largest difference that twins or the study saw
LEAST = 1e-6  # and never narrower than this share of the metric, or than one test example
WORDS = ("equal", "within", "sensitive, within seeds", "different")

Bands = Mapping[str, Mapping[str, float]]
Lines = Sequence[Mapping[str, Any]]


# --- comparing --------------------------------------------------------------------------------------


@dataclass
class Repetition:
    """One run against its recorded one: ``differences`` holds the metrics that are not equal, new minus recorded.

    ``seeds[metric]`` is what other seeds do in the same place: standard deviation, and 99 % prediction interval.
    """

    block: str
    method: str
    inside: dict[str, Any]
    metrics: dict[str, float] = field(default_factory=dict)
    differences: dict[str, float] = field(default_factory=dict)
    predictions_changed: int | None = None  # test examples; None where nothing is stored
    test: int | None = None
    same_environment: bool = True
    seeds: dict[str, tuple[float, float, float]] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        return not self.differences and not self.predictions_changed

    def least(self, metric: str) -> float:
        """The narrowest band: one test example for a share of examples, else relative."""
        recorded = abs(self.metrics[metric] - self.differences.get(metric, 0.0))
        share = recorded <= 1 and not any(part in metric for part in LOSSES)
        return 1 / self.test if share and self.test else LEAST * recorded

    def shown(self) -> str:
        parts = [f"{metric} {difference:+.2g}" for metric, difference in self.differences.items()]
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
        each = Repetition(block.id, old["method"], {n: old[n] for n in experiment.inside})
        each.same_environment = all(old["environment"].get(k) == new["environment"].get(k) for k in SAME)
        alike = [x for x in others if all(x[c] == old[c] for c in cells if c != "seed")]
        for name, value in new.items():
            if isinstance(value, float) and not name.endswith(VOLATILE) and isinstance(old.get(name), float):
                each.metrics[name] = value
                if value != old[name]:
                    each.differences[name] = value - old[name]
                    each.seeds[name] = _other_seeds([x[name] for x in alike])
        one = _answers(stored.get(tuple(old[c] for c in cells), {}), old)
        two = _answers(new)
        if one is not None and two is not None:
            each.test, each.predictions_changed = len(two), int((one != two).sum())
        found.append(each)
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
    twin gets the widest band of its metric. In the same environment no difference is allowed.
    """
    worst, reasons = 0, []
    for each in repetitions:
        if each.equal:
            continue
        place = f"{each.block} · {each.method}" + "".join(f" · {k} = {v}" for k, v in each.inside.items())
        found = {metric: _word(each, metric, bands) for metric in each.differences}
        level = 3 if each.same_environment else max((1, *found.values()))
        over = ", ".join(metric for metric, word in found.items() if word == level)
        why = {
            1: "inside the band",
            2: f"sensitive to rounding, inside the seeds' range in {over}",
            3: "other bits on the same hardware" if each.same_environment else f"outside the band in {over}",
        }[level]
        worst = max(worst, level)
        reasons.append(f"{place}: {why}: {each.shown()}")
    return WORDS[worst], reasons


def _word(each: Repetition, metric: str, bands: Bands) -> int:
    """The place in WORDS of one metric of one run, on another machine."""
    widest = max((band[metric] for band in bands.values() if metric in band), default=0.0)
    band = max(bands.get(each.method, {}).get(metric, widest), each.least(metric))
    if abs(each.differences[metric]) <= band:
        return 1
    sd, low, high = each.seeds[metric]
    return 2 if 0 < sd <= band / MARGIN and low <= each.metrics[metric] <= high else 3


# --- running blocks again ---------------------------------------------------------------------------


def repeat(
    experiment: Experiment, blocks: Sequence[Block], under: str, *, workers: int, threads: int
) -> None:
    """Run the blocks once more, ``workers`` at a time with ``threads`` each, into build/<under>/; finished ones stay.

    Says on stderr how far it is, whenever a run has ended. RecordError naming the first block that did not end well.
    """
    env = os.environ | {"INSTRUCTLAB_ROOT": str(find_root()), "INSTRUCTLAB_PROFILE": experiment.profile}
    package = str(Path(__file__).resolve().parents[2])
    env["PYTHONPATH"] = os.pathsep.join(p for p in (package, env.get("PYTHONPATH", "")) if p)

    def one(block: Block) -> tuple[Block, int, str]:
        words = [sys.executable, "-m", "instructlab_utils", "block", experiment.name, block.id]
        words += ["--profile", experiment.profile, "--under", under, "--threads", str(threads)]
        done = subprocess.run(words, env=env, capture_output=True, text=True)
        return block, done.returncode, (done.stderr.strip() or "no message").splitlines()[-1]

    seconds = sum(experiment.expected_seconds(block) or 0.0 for block in blocks) / workers
    what = blocks[0].id if len(blocks) == 1 else f"{len(blocks)} blocks"
    _say(experiment, f"runs {what} again, about {seconds:.0f} s by earlier runs")
    paths = [replace(block, under=under).out / "lines.jsonl" for block in blocks]
    total = sum(len(experiment.trials(block)) for block in blocks)
    start, shown = time.monotonic(), 0
    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(one, block) for block in blocks]
        while wait(waiting, timeout=1).not_done:
            there = sum(path.read_bytes().count(b"\n") for path in paths if path.is_file())
            if there != shown:
                _say(experiment, f"{there} of {total} runs after {time.monotonic() - start:.0f} s")
            shown = there
    for block, code, message in (future.result() for future in waiting):
        if code:
            raise _error(experiment, block.id, f"the repetition ended with code {code}: {message}")


def _say(experiment: Experiment, text: str) -> None:
    print(f"{experiment.name}: {text}", file=sys.stderr, flush=True)


def _error(experiment: Experiment, block: str, text: str) -> RecordError:
    return RecordError(f"{experiment.name}/{block}: {text}")


def _again(experiment: Experiment, block: Block, under: str) -> list[Repetition]:
    """The comparison of a repetition that has ended."""
    lines, reason = experiment.built(replace(block, under=under))
    if lines is None:
        raise _error(experiment, block.id, f"no repetition under build/{under}: {reason}")
    return compare(experiment, block, experiment.lines(block) or [], lines)


# --- verification -----------------------------------------------------------------------------------


def verified_path() -> Path:
    """What was verified last, by "<experiment>.<profile>"."""
    return find_root() / "data" / "results" / "verified.json"


def verified() -> dict[str, dict[str, Any]]:
    """The content of :func:`verified_path`; {} without it."""
    return files.read_json(verified_path()) if verified_path().is_file() else {}


def stale(experiment: Experiment) -> bool:
    """Whether the last verification, of the experiment as it is today, found other bits in the same environment.

    Another processor says nothing about the recorded results.
    """
    entry = verified().get(f"{experiment.name}.{experiment.profile}")
    if entry is None or entry["status"] != "different" or not entry.get("same_environment", True):
        return False
    block = next((b for b in experiment.blocks() if b.id == entry["block"]), None)
    return block is not None and experiment.key(block) == entry["key"]


def cheapest(experiment: Experiment) -> Block:
    """The block that takes the least time of those with results. RecordError where there is none."""
    there = [b for b in experiment.blocks() if b.stage == "run" and experiment.lines(b) is not None]
    if not there:
        what = f"no {experiment.profile} results to verify; run `make reproduce` first."
        raise RecordError(f"{experiment.name}: {what}")
    return min(there, key=lambda b: (experiment.expected_seconds(b) or 0.0, b.id))


def verify(name: str, profile: str, block: str | None = None) -> tuple[str, str]:
    """Run one block again, compare, and write the outcome down; returns the word and a text for a person.

    Without ``block`` it is the cheapest one. Results of the smoke profile are compared too, but not written down.
    """
    experiment = experiments.load(name).at(profile)
    chosen = cheapest(experiment) if block is None else experiments.find_block(name, block, profile)[1]
    recorded = experiment.lines(chosen)
    if recorded is None:
        raise _error(experiment, chosen.id, f"no {profile} results to verify; run `make reproduce` first.")
    for left in ("lines.jsonl", "manifest.json"):
        (replace(chosen, under="verify").out / left).unlink(missing_ok=True)
    repeat(experiment, [chosen], "verify", workers=1, threads=int(recorded[0]["environment"]["threads"]))
    found = _again(experiment, chosen, "verify")
    word, reasons = judge(found, bands(name, profile))
    here = all(each.same_environment for each in found)
    how = "the same hardware and versions: bit for bit" if here else "elsewhere: by the rounding twins"
    text = f"{name}/{chosen.id}: {word} in {len(found)} runs ({how})"
    if profile != "smoke":
        entry = _today() | {"block": chosen.id, "key": experiment.key(chosen), "status": word}
        entry |= {"same_environment": here, "reasons": reasons}
        files.write_json(verified_path(), verified() | {f"{name}.{profile}": entry})
    return word, "\n".join([text, *(f"  {reason}" for reason in reasons)])


def _today() -> dict[str, Any]:
    return {"date": datetime.now(UTC).date().isoformat(), "environment": provenance.short_environment()}


def bands(name: str, profile: str = "laptop") -> Bands:
    """``bands[method][metric]``: of the experiment's rounding twins, else of its determinism study, else {}."""
    if twins := experiments.bands(name, profile):
        return {method: {m: MARGIN * v for m, v in moved.items()} for method, moved in twins.items()}
    path = study_path(name, profile)
    return files.read_json(path)["bands"] if path.is_file() else {}


# --- the determinism study --------------------------------------------------------------------------


def study_path(name: str, profile: str = "laptop") -> Path:
    """The published study of one experiment."""
    return experiments.results_path(name, profile).with_suffix(".determinism.json")


def study(name: str, profile: str = "laptop") -> dict[str, Any]:
    """Run the blocks that [determinism] names under each of its conditions, compare, publish the bands.

    The recorded results are the reference. It may be killed and called again: finished blocks are not repeated.
    """
    experiment = experiments.load(name).at(profile)
    plan = experiment.determinism
    if plan is None:
        file = f"{experiments.FOLDER}/{name}.toml"
        raise ConfigError(f"{file}: has no [determinism]; name the blocks and conditions there.")
    every_block = [b for b in experiment.blocks() if b.stage == "run"]
    blocks = [b for b in every_block if all(b.coordinates[a] in values for a, values in plan.where.items())]
    recorded = {b.id: experiment.lines(b) for b in blocks}
    if absent := [block for block, lines in recorded.items() if lines is None]:
        raise _error(experiment, absent[0], f"no {profile} results; run `make reproduce` first.")
    kept = ("block", "method", "inside", "metrics", "differences", "predictions_changed", "test")
    conditions, every = [], []
    for threads, workers in ((t, w) for t in plan.threads for w in plan.workers):
        under = f"determinism/workers-{workers}-threads-{threads}"
        repeat(experiment, blocks, under, workers=workers, threads=threads)
        found = [each for block in blocks for each in _again(experiment, block, under)]
        runs = [{key: getattr(each, key) for key in kept} for each in found]
        conditions.append({"workers": workers, "threads": threads, "runs": runs})
        every += found
    reference = sorted({(lines or [])[0]["environment"]["threads"] for lines in recorded.values()})
    study = _today() | {"experiment": name, "profile": profile, "blocks": list(recorded)}
    study |= {"reference": reference, "conditions": conditions, "bands": _bands(every)}
    files.write_json(study_path(name, profile), study)
    return study


def _bands(repetitions: Iterable[Repetition]) -> dict[str, dict[str, float]]:
    """Method → metric → MARGIN times the largest difference seen, never below the least."""
    largest: dict[str, dict[str, float]] = defaultdict(dict)
    for each in repetitions:
        mine = largest[each.method]
        for metric in each.metrics:
            seen = MARGIN * abs(each.differences.get(metric, 0.0))
            mine[metric] = float(f"{max(seen, each.least(metric), mine.get(metric, 0.0)):.3g}")
    return dict(largest)
