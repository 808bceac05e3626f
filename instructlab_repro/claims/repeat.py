"""Doing it again: verification of committed results, the determinism study behind its bands, and `explain`.

A repetition runs a block once more, into a folder of its own, and compares its lines with the recorded ones. On the
same hardware, with the same versions and threads, every bit must agree. Elsewhere each metric must stay inside the
band that the determinism study of data/results/<experiment>.determinism.json publishes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from instructlab_repro import experiments, provenance
from instructlab_repro.experiments import Block, Experiment
from instructlab_utils import files
from instructlab_utils.errors import ConfigError, RecordError
from instructlab_utils.project import find_root

SAME = ("hardware", "threads", "python", "torch", "transformers", "scikit-learn", "numpy")
# How the names of metrics end that no repetition gives again.
VOLATILE = ("seconds", "ms_per_step", "peak_memory_mb")
MARGIN = 2.0  # a band is so many times the largest difference that the study saw
LEAST = 1e-6  # and never narrower than this, or than one test example for a share of examples


# --- comparing --------------------------------------------------------------------------------------


@dataclass
class Comparison:
    """One run against its repetition: ``differences`` holds the metrics that are not equal, new minus recorded."""

    block: str
    method: str
    inside: dict[str, Any]
    differences: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    predictions_changed: int | None = None  # test examples; None where nothing is stored
    test: int | None = None
    same_environment: bool = True

    @property
    def equal(self) -> bool:
        return not self.differences and not self.predictions_changed


def compare(
    experiment: Experiment,
    block: Block,
    recorded: Sequence[Mapping[str, Any]],
    again: Sequence[Mapping[str, Any]],
) -> list[Comparison]:
    """Recorded lines against those of a repetition, trial by trial. RecordError if a trial has no counterpart."""
    import numpy as np

    stored = {}
    for row in experiments.predictions(experiment.name, experiment.profile):
        stored[tuple(row[c] for c in (*experiment.axes, "method"))] = row.get(
            "predictions", row.get("scores")
        )
    found = []
    for old in recorded:
        names = ("method", "tuned", *experiment.inside)
        new = next((x for x in again if all(x[n] == old[n] for n in names)), None)
        if new is None:
            raise RecordError(
                f"{experiment.name}/{block.id}: the repetition has no line for {old['method']}."
            )
        each = Comparison(block.id, old["method"], {n: old[n] for n in experiment.inside})
        each.same_environment = all(old["environment"].get(k) == new["environment"].get(k) for k in SAME)
        for name, value in new.items():
            if isinstance(value, float) and not name.endswith(VOLATILE) and isinstance(old.get(name), float):
                each.metrics[name] = value
                if value != old[name]:
                    each.differences[name] = value - old[name]
        one = stored.get(tuple(old[c] for c in (*experiment.axes, "method")))
        one = old.get("predictions", old.get("scores")) if one is None else one
        two = new.get("predictions", new.get("scores"))
        if one is not None and two is not None:
            one, two = (
                np.asarray(x, dtype=np.float32) for x in (one, two)
            )  # as the Parquet file keeps scores
            each.test, each.predictions_changed = len(two), int((one != two).sum())
        found.append(each)
    return found


def judge(
    comparisons: Iterable[Comparison], bands: Mapping[str, Mapping[str, float]]
) -> tuple[str, list[str]]:
    """equal, within or different, and a sentence for each thing that is not equal.

    ``bands[method][metric]`` is the largest difference that another machine may show; a method or metric that the
    study did not see gets the widest band of its metric. Where the environment is the same, no difference is allowed.
    """
    word, reasons = "equal", []
    for each in comparisons:
        if each.equal:
            continue
        place = f"{each.block} · {each.method}" + "".join(f" · {k} = {v}" for k, v in each.inside.items())
        if each.same_environment:
            word = "different"
            reasons.append(f"{place}: other bits on the same hardware: {_shown(each)}")
            continue
        over = []
        for metric, difference in each.differences.items():
            widest = max((b[metric] for b in bands.values() if metric in b), default=0.0)
            if abs(difference) > bands.get(each.method, {}).get(metric, widest):
                over.append(metric)
        if over:
            word = "different"
            reasons.append(f"{place}: outside the band in {', '.join(over)}: {_shown(each)}")
        else:
            word = "within" if word == "equal" else word
            reasons.append(f"{place}: inside the band: {_shown(each)}")
    return word, reasons


def _shown(each: Comparison) -> str:
    parts = [f"{metric} {difference:+.2g}" for metric, difference in each.differences.items()]
    if each.predictions_changed:
        parts.append(f"{each.predictions_changed} of {each.test} predictions")
    return ", ".join(parts)


# --- running blocks again ---------------------------------------------------------------------------


def repeat(
    experiment: Experiment, blocks: Sequence[Block], under: str, *, workers: int, threads: int
) -> None:
    """Run the blocks once more, ``workers`` at a time with ``threads`` each, into build/<under>/; finished ones stay.

    Raises:
        RecordError: naming the first block that did not end well.
    """
    env = os.environ | {"INSTRUCTLAB_ROOT": str(find_root()), "INSTRUCTLAB_PROFILE": experiment.profile}
    package = str(Path(__file__).resolve().parents[2])
    env["PYTHONPATH"] = os.pathsep.join(p for p in (package, env.get("PYTHONPATH", "")) if p)

    def one(block: Block) -> tuple[Block, int, str]:
        words = [sys.executable, "-m", "instructlab_utils", "block", experiment.name, block.id]
        words += ["--profile", experiment.profile, "--under", under, "--threads", str(threads)]
        done = subprocess.run(words, env=env, capture_output=True, text=True)
        return block, done.returncode, (done.stderr.strip() or "no message").splitlines()[-1]

    with ThreadPoolExecutor(workers) as pool:
        ended = list(pool.map(one, blocks))
    for block, code, message in ended:
        if code:
            raise RecordError(
                f"{experiment.name}/{block.id}: the repetition ended with code {code}: {message}"
            )


def _lines_under(experiment: Experiment, block: Block, under: str) -> list[dict]:
    lines, reason = experiment.built(replace(block, under=under))
    if lines is None:
        raise RecordError(f"{experiment.name}/{block.id}: no repetition under build/{under}: {reason}")
    return lines


def verified_path() -> Path:
    """What was verified last, by "<experiment>.<profile>"."""
    return find_root() / "data" / "results" / "verified.json"


def verified() -> dict[str, dict[str, Any]]:
    """The content of :func:`verified_path`; {} without it."""
    return files.read_json(verified_path()) if verified_path().is_file() else {}


def stale(experiment: Experiment) -> bool:
    """Whether the last verification of this experiment, as it is today, found another result."""
    entry = verified().get(f"{experiment.name}.{experiment.profile}")
    if entry is None or entry["status"] != "different":
        return False
    block = next((b for b in experiment.blocks() if b.id == entry["block"]), None)
    return block is not None and experiment.key(block) == entry["key"]


def cheapest(experiment: Experiment) -> Block:
    """The block that takes the least time of those with results. RecordError where there is none."""
    there = [b for b in experiment.blocks() if b.stage == "run" and experiment.lines(b) is not None]
    if not there:
        raise RecordError(
            f"{experiment.name}: no {experiment.profile} results to verify; run `make reproduce` first."
        )
    return min(there, key=lambda b: (experiment.expected_seconds(b) or 0.0, b.id))


def verify(name: str, profile: str, block: str | None = None) -> tuple[str, str]:
    """Run one block again, compare, and write the outcome down; returns the word and a text for a person.

    Without ``block`` it is the cheapest one. Results of the smoke profile are compared too, but not written down.
    """
    experiment = experiments.load(name).at(profile)
    chosen = cheapest(experiment) if block is None else experiments.find_block(name, block, profile)[1]
    recorded = experiment.lines(chosen)
    if recorded is None:
        raise RecordError(f"{name}/{chosen.id}: no {profile} results to verify; run `make reproduce` first.")
    scratch = replace(chosen, under="verify")
    for left in ("lines.jsonl", "manifest.json"):
        (scratch.out / left).unlink(missing_ok=True)
    threads = int(recorded[0]["environment"]["threads"])
    repeat(experiment, [chosen], "verify", workers=1, threads=threads)
    comparisons = compare(experiment, chosen, recorded, _lines_under(experiment, chosen, "verify"))
    word, reasons = judge(comparisons, bands(name, profile))
    here = all(each.same_environment for each in comparisons)
    how = (
        "the same hardware and versions: bit for bit"
        if here
        else "another environment: by the published bands"
    )
    text = f"{name}/{chosen.id}: {word} in {len(comparisons)} runs ({how})"
    if profile != "smoke":
        entry = {
            "block": chosen.id,
            "key": experiment.key(chosen),
            "status": word,
            "same_environment": here,
            "reasons": reasons,
            "date": datetime.now(UTC).date().isoformat(),
            "environment": provenance.short_environment(),
        }
        files.write_json(verified_path(), verified() | {f"{name}.{profile}": entry})
    return word, "\n".join([text, *(f"  {reason}" for reason in reasons)])


# --- the determinism study --------------------------------------------------------------------------


def study_path(name: str, profile: str = "laptop") -> Path:
    """The published study of one experiment."""
    return experiments.results_path(name, profile).with_suffix(".determinism.json")


def bands(name: str, profile: str = "laptop") -> dict[str, dict[str, float]]:
    """``bands[method][metric]`` of an experiment; of the other experiments' studies where it has none; else {}."""
    if study_path(name, profile).is_file():
        return files.read_json(study_path(name, profile))["bands"]
    others: dict[str, dict[str, float]] = {}
    for other in experiments.names():
        if study_path(other, profile).is_file():
            others |= {
                f"{other}.{m}": b for m, b in files.read_json(study_path(other, profile))["bands"].items()
            }
    return others


def study(name: str, profile: str = "laptop") -> dict[str, Any]:
    """Run the blocks that [determinism] names under each of its conditions, compare, publish the bands.

    The recorded results are the reference. It may be killed and called again: finished blocks are not repeated.
    """
    experiment = experiments.load(name).at(profile)
    plan = experiment.determinism
    if plan is None:
        raise ConfigError(
            f"{experiments.FOLDER}/{name}.toml: has no [determinism]; name the blocks and conditions there."
        )
    blocks = [
        b
        for b in experiment.blocks()
        if b.stage == "run" and all(b.coordinates[axis] in values for axis, values in plan.where.items())
    ]
    if absent := [b.id for b in blocks if experiment.lines(b) is None]:
        raise RecordError(
            f"{name}/{absent[0]}: no {profile} results to compare with; run `make reproduce` first."
        )
    conditions = []
    for threads in plan.threads:
        for workers in plan.workers:
            under = f"determinism/workers-{workers}-threads-{threads}"
            print(
                f"{name}: {len(blocks)} blocks, {workers} at a time, {threads} thread(s) each",
                file=sys.stderr,
            )
            repeat(experiment, blocks, under, workers=workers, threads=threads)
            runs = []
            for block in blocks:
                recorded = experiment.lines(block) or []
                runs += compare(experiment, block, recorded, _lines_under(experiment, block, under))
            conditions.append(
                {"workers": workers, "threads": threads, "runs": [_entry(each) for each in runs]}
            )
    found = {
        "experiment": name,
        "profile": profile,
        "blocks": [b.id for b in blocks],
        "reference": sorted({(experiment.lines(b) or [])[0]["environment"]["threads"] for b in blocks}),
        "environment": provenance.short_environment(),
        "date": datetime.now(UTC).date().isoformat(),
        "conditions": conditions,
        "bands": _bands(conditions),
    }
    files.write_json(study_path(name, profile), found)
    return found


def _entry(each: Comparison) -> dict[str, Any]:
    fields = ("block", "method", "inside", "metrics", "differences", "predictions_changed", "test")
    return {name: getattr(each, name) for name in fields}


def _bands(conditions: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Method → metric → MARGIN times the largest difference seen, at least LEAST, or one example for a share."""
    largest: dict[str, dict[str, float]] = defaultdict(dict)
    for run in (run for condition in conditions for run in condition["runs"]):
        for metric in run["metrics"]:
            share = 0.0 <= run["metrics"][metric] <= 1.0 and "loss" not in metric and run["test"]
            least = 1 / run["test"] if share else LEAST
            seen = MARGIN * abs(run["differences"].get(metric, 0.0))
            largest[run["method"]][metric] = max(largest[run["method"]].get(metric, 0.0), seen, least)
    return {
        method: {metric: float(f"{v:.3g}") for metric, v in found.items()}
        for method, found in largest.items()
    }


def _n(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"


# --- explain ----------------------------------------------------------------------------------------


def explain(result: str, profile: str = "laptop") -> str:
    """What a result was made from, and what has changed since: an experiment, EXPERIMENT/BLOCK, a claim, or a file."""
    from instructlab_repro import claims

    if result in claims.names():
        claim = claims.load(result)
        if claim.experiment is None:
            return f"{result}: a draft; no experiment serves it yet."
        return f"{result}: decided by {claim.experiment}\n" + explain(claim.experiment, profile)
    name, _, block = result.partition("/")
    if name not in experiments.names():  # data/results/x.jsonl, figures/x.png, tables/x.tex …
        stems = {Path(result).name.split(".")[0], Path(result).stem.split("_")[-1]}
        known = sorted(stems & set(experiments.names()))
        if not known or not (find_root() / result).exists():
            listed = ", ".join([*experiments.names(), *claims.names()])
            raise ConfigError(
                f"{result}: not a result; name an experiment, EXPERIMENT/BLOCK, a claim or a file of: {listed}"
            )
        name, block = known[0], ""
    experiment = experiments.load(name).at(profile)
    if block:
        return _explain_block(experiment, experiments.find_block(name, block, profile)[1])
    blocks = experiment.blocks()
    rows = experiments.rows_by_block(name, profile)
    covered = [b for b in blocks if experiment.lines(b) is not None]
    text = [f"{name}: {experiment.title} (profile {profile}, revision {experiment.revision})"]
    text.append(f"  {len(covered)} of {len(blocks)} blocks have results of today's code and settings")
    lines = [line for found in rows.values() for line in found]
    for label, pick in (
        ("code", lambda line: line["code"]),
        ("package", lambda line: line["environment"]["package"]),
        ("commit", lambda line: str(line["environment"]["commit"])[:12]),
        ("hardware", lambda line: f"{line['environment']['hardware']} ({line['environment']['cpu']})"),
        ("torch", lambda line: line["environment"]["torch"]),
    ):
        values = sorted({pick(line) for line in lines})
        text.append(
            f"  {label}: {', '.join(values) or 'nothing recorded'}{_since(experiment, label, values)}"
        )
    for claim_id, sha in provenance.claims_sha(experiment.claims).items():
        then = {line["claims"].get(claim_id) for line in lines}
        text.append(
            f"  claim {claim_id}: {'as it stood at the runs' if then == {sha} else 'text changed since the runs'}"
        )
    text.append(f"  verified: {_verified(experiment)}")
    return "\n".join(text)


def _since(experiment: Experiment, label: str, values: Sequence[str]) -> str:
    now = {
        "code": experiments.notebook_code_sha(experiment.notebook)[:16],
        "package": provenance.package_sha(),
        "hardware": f"{provenance.hardware()} ({provenance.environment()['cpu']})",
        "torch": provenance.environment()["packages"].get("torch"),
    }.get(label)
    return "" if now is None or not values or list(values) == [now] else f" (now {now})"


def _verified(experiment: Experiment) -> str:
    entry = verified().get(f"{experiment.name}.{experiment.profile}")
    if entry is None:
        return "never; `reproduce --verify` does it"
    return f"{entry['date']}, block {entry['block']}: {entry['status']}"


def _explain_block(experiment: Experiment, block: Block) -> str:
    """One block: its settings, tuned values and provenance, with what is different today."""
    now = experiment.lines(block)
    rows = now or experiments.rows_by_block(experiment.name, experiment.profile).get(block.id)
    if not rows:
        return f"{experiment.name}/{block.id}: no results yet."
    line, today = rows[0], experiment.identity(block)
    text = [f"{experiment.name}/{block.id}: {block.where()}, {len(rows)} runs"]
    text.append(
        "  covers today's experiment: " + ("yes" if now else "no, it runs again at the next `make reproduce`")
    )
    for name in ("revision", "code", "settings", "assets", "claims"):
        if line[name] != today[name]:
            text.append(f"  changed since: {name}: {_short(line[name])} → {_short(today[name])}")
    for name, value in line["environment"].items():
        other = today["environment"].get(name)
        if name not in ("commit", "dirty", "threads") and other != value:  # the runner sets the threads
            text.append(f"  other than here: {name}: {value} → {other}")
    text.append(f"  settings: {_short(line['settings'])}")
    tuned = {row["method"]: row["tuned"] for row in rows if row["tuned"]}
    text.append(
        f"  tuned: {_short({m: ', '.join(f'{k} = {v:g}' for k, v in t.items()) for m, t in tuned.items()})}"
    )
    text.append(f"  assets: {_short(line['assets'])}")
    text.append(
        f"  commit: {line['environment']['commit']}{' with local changes' * bool(line['environment']['dirty'])}"
    )
    text.append(
        f"  took: {experiment.expected_seconds(block) or 0:.0f} s, {line['environment']['threads']} thread(s)"
    )
    return "\n".join(text)


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(
            f"{k} {str(v)[:16] if isinstance(v, str) and len(v) > 40 else v}" for k, v in value.items()
        )
    return str(value)
