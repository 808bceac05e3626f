"""Verdicts: what the recorded runs say of a claim, by the rules of the edition that the runs follow.

Edition 1 (lines of schema 2): the t interval over seeds decides, several comparisons stand together after Holm.
Edition 2 (schema 3): the interval speaks of seeds and items, an effect inside ± the smallest of interest refutes, and
each part of a claim has a verdict of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from instructlab_repro import experiments, provenance
from instructlab_repro.claims import repeat
from instructlab_repro.claims.claim import Claim, axes_of, load, methods_of
from instructlab_repro.claims.evidence import estimate, example_cells, numbers_of, own_items, under_no_effect
from instructlab_repro.claims.statistic import COUNTS, AnyStatistic, Axes, per_seed
from instructlab_repro.experiments import Experiment
from instructlab_utils import files
from instructlab_utils.decisions import decide, decide_equivalence, decide_several, holm_level
from instructlab_utils.intervals import Estimate, hierarchical_bootstrap, over_units

UNTRAINED = 0.1  # of a method's runs may not have trained


@dataclass(frozen=True)
class Runs:
    """What an experiment recorded; ``kept`` stands for predictions that are too large for git, by statistic."""

    experiment: Experiment
    axes: Axes
    lines: list[dict[str, Any]]
    stored: list[dict[str, Any]]
    kept: Mapping[str, Any]

    @property
    def edition(self) -> int | str | None:
        """1, 2 or "mixed" by the schema of the lines; None without lines."""
        return experiments.edition(self.lines)

    def outdated(self) -> bool:
        """Whether a line's block has another key today."""
        blocks = {block.id: block for block in self.experiment.blocks() if block.stage == "run"}
        seen = {(str(line.get("block")), line.get("key")) for line in self.lines}
        return any(b not in blocks or self.experiment.key(blocks[b]) != key for b, key in seen)

    def untrained(self, methods: set[str]) -> bool:
        """Whether of one of ``methods`` more than one run in ten did not train."""
        found = experiments.untrained(self.experiment.name, self.experiment.profile)
        return any(found[m][0] > UNTRAINED * found[m][1] for m in methods & found.keys())


def recorded(claim: Claim, profile: str, stored: list[dict[str, Any]] | None = None) -> Runs:
    """The runs of the claim's experiment; ``stored`` replaces the recorded predictions."""
    assert claim.experiment is not None
    experiment = experiments.load(claim.experiment).at(profile)
    stored = experiments.predictions(claim.experiment, profile) if stored is None else stored
    path = experiments.bootstrap_path(claim.experiment, profile)
    kept = files.read_json(path).get(claim.id, {}) if not stored and path.is_file() else {}
    return Runs(experiment, axes_of(experiment), experiments.results(claim.experiment, profile), stored, kept)


NOTHING: dict[str, Any] = {
    "statistic": None, "mean": None, "low": None, "high": None, "bootstrap": None, "seeds": [], "values": [],
    "by_task": {}, "missing": [], "ties": 0, "basis": None, "error": None, "df": None,
    "bounds": None, "seeds_only": None, "control": None,
}  # fmt: skip


def _measure(claim: Claim, statistic: AnyStatistic, runs: Runs) -> tuple[dict[str, Any], Estimate | None]:
    """The numbers of one statistic, and the estimate that decides; None below two seeds."""
    numbers = per_seed(statistic, runs.lines, runs.axes)
    found = NOTHING | {
        "statistic": statistic.name,
        "seeds": list(numbers.seeds),
        "values": numbers.values.tolist(),
        "by_task": {task: float(v.mean()) for task, v in numbers.by_task.items() if len(v)},
        "missing": list(numbers.missing),
        "bounds": statistic.bounds and list(statistic.bounds),
    }
    if len(numbers.seeds) < 2:
        return found, None
    cells = example_cells(statistic, runs.stored, runs.lines, runs.axes, numbers.seeds)
    examples, kept, level = numbers_of(statistic, cells), runs.kept.get(statistic.name), claim.confidence
    if runs.edition != 2:
        chosen = over_units(numbers.values)
        beside = hierarchical_bootstrap(examples, level=level) if examples is not None else None
        found["bootstrap"] = kept if beside is None else [beside.low, beside.high]
    else:
        own = own_items(claim, runs.stored, runs.axes)
        chosen, basis = estimate(claim, statistic, numbers, examples, own)
        control = under_no_effect(statistic, numbers, cells)
        if kept:
            chosen = replace(chosen, error=kept["error"], df=kept["df"])
            basis, control = kept["basis"], kept["control"]
        seeds = over_units(numbers.values, chosen.bounds).interval(level)
        found |= {"error": chosen.error, "df": chosen.df, "basis": basis, "control": control}
        found |= {
            "seeds_only": [seeds.low, seeds.high] if seeds.low < seeds.high else None,
            "ties": numbers.ties,
        }
    interval = chosen.interval(level)
    return found | {"mean": interval.mean, "low": interval.low, "high": interval.high}, chosen


def _refusal(claim: Claim, runs: Runs, parts: list[dict[str, Any]]) -> str | None:
    """Why the runs of edition 2 cannot give a verdict."""
    if runs.edition != 2:
        return None
    if runs.untrained(methods_of(claim, runs.experiment)):
        return "did not train"
    drawn = [part for s, part in zip(claim.deciding, parts, strict=True) if s.metric not in COUNTS]
    if claim.unit == "seed" and any(np.ptp(part["values"]) < 1e-12 for part in drawn):
        return "the seeds change nothing"
    if claim.unit == "item" and any("items" not in part["basis"] for part in parts):
        return "no number is stored for each item"
    return None


def _judge(claim: Claim, runs: Runs) -> dict[str, Any]:
    """What the runs say: the numbers of the one statistic, or under ``comparisons`` those of each part; the word."""
    level, edition, several = claim.confidence, 2 if runs.edition == 2 else 1, claim.comparisons is not None
    measured = [_measure(claim, statistic, runs) for statistic in claim.deciding]
    parts, estimates = [found for found, _ in measured], [e for _, e in measured if e is not None]
    sides = [(part.direction, part.threshold) for part in claim.parts]
    whole = parts[0]
    if several:
        for part, (direction, threshold) in zip(parts, sides, strict=True):
            part |= {"direction": direction, "threshold": threshold, "verdict": "not tested", "p": None}
        whole = {
            "missing": list(dict.fromkeys(cell for part in parts for cell in part["missing"])),
            "seeds": sorted(set.intersection(*(set(part["seeds"]) for part in parts))),
            "comparisons": parts,
        }
    if whole["missing"] or len(estimates) < len(parts):
        return whole
    if refusal := _refusal(claim, runs, parts):
        return whole | {"why": refusal}
    if claim.margin is not None:
        return whole | {"verdict": decide_equivalence(estimates[0], claim.margin, level)}
    power = claim.power if edition == 2 else None
    smallest, tails = (power.smallest, power.sides) if power is not None else (None, "two")
    each = [decide(e, *side, smallest, tails, level) for e, side in zip(estimates, sides, strict=True)]
    if not several:
        return whole | {"verdict": each[0].word}
    whole["verdict"], words, after = decide_several(each, claim.k or len(parts), level, edition)
    for i, (part, word, p) in enumerate(zip(parts, words, after, strict=True)):
        part |= {"verdict": word, "p": p}
        if edition == 2 and p is not None:
            family = [one.p_against if word == "refuted" else one.p_for for one in each]
            ends = estimates[i].interval(holm_level(family, i, level))
            part["adjusted"] = [ends.low, ends.high]
    return whole


def verdict(name: str, profile: str = "laptop", stored: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """The verdict on a claim from the recorded results of its experiment, as a table for JSON.

    ``verdict`` is supported, refuted, undecided, or "not tested": for a draft, while a cell that a statistic names
    lacks a run for a seed of the grid, and where edition 2 refuses, which ``why`` explains. ``mean``, ``low``, ``high``
    are the interval that decides, ``bootstrap`` (edition 1) and ``seeds_only`` (edition 2) one beside it;
    ``comparisons`` holds them for the kinds with several (with the ``p`` after Holm), ``secondary`` for the statistics
    that do not decide. ``changed``: the claim's text is no longer the one that the runs recorded; ``outdated``: the
    experiment is no longer the one that ran; ``stale``: a verification gave other numbers. ``stored`` replaces the
    recorded predictions.
    """
    claim = load(name)
    kept = "statement kind lesson experiment direction threshold margin k confidence expected unit"
    found: dict[str, Any] = {
        **{key: getattr(claim, key) for key in kept.split()},
        "claim": claim.id,
        "source": claim.source.model_dump(),
        "argument": claim.argument and claim.argument.model_dump(),
        "verdict": claim.argument.conclusion if claim.argument is not None else "not tested",
        "smallest": claim.power and claim.power.smallest,
        **dict.fromkeys(("changed", "outdated", "stale"), False),
        **{"edition": None, "why": None, "comparisons": [], "secondary": []},
        **NOTHING,
    }
    if claim.experiment is None:
        return found
    runs = recorded(claim, profile, stored)
    found |= _judge(claim, runs)
    now = provenance.claims_sha([name])[name]
    return found | {
        "edition": runs.edition,
        "changed": any(x.get("claims", {}).get(name) != now for x in runs.lines if x.get("stage") != "tune"),
        "outdated": runs.outdated(),
        "stale": repeat.stale(runs.experiment),
        "secondary": [_measure(claim, other, runs)[0] for other in claim.secondary],
    }


def keep_bootstraps(experiment: Experiment, profile: str, rows: list[dict[str, Any]]) -> None:
    """Write what the experiment's claims need of ``rows``, predictions too large for git: bootstraps, or errors.

    Without ``rows`` the file of an earlier run is removed, since the predictions themselves are there.
    """
    path = experiments.bootstrap_path(experiment.name, profile)
    if not rows:
        path.unlink(missing_ok=True)
        return
    rows = [{k: np.asarray(v) if k in experiments.BULKY else v for k, v in row.items()} for row in rows]
    found: dict[str, dict[str, Any]] = {}
    for name in experiment.claims:
        each = verdict(name, profile, rows)
        for part in (each, *each["comparisons"], *each["secondary"]):
            new = {key: part[key] for key in ("error", "df", "basis", "control")}  # of edition 2
            found.setdefault(name, {})[part["statistic"]] = part["bootstrap"] if part["df"] is None else new
        found[name] = {key: value for key, value in found[name].items() if key and value is not None}
    files.write_json(path, found)
