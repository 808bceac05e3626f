"""A claim as data, written before the run that tests it, and the verdict that the run gives it.

data/claims/<id>.toml names a statistic that yields one number per seed. The t interval of those numbers decides:
wholly beyond the threshold on the claimed side is supported, wholly on the other refuted, everything else undecided.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, PositiveInt, ValidationError

from instructlab_utils.errors import ConfigError
from instructlab_utils.metrics import Interval, t_interval
from instructlab_utils.repro import experiments, record
from instructlab_utils.repro.experiments import Strict, explain, read_toml
from instructlab_utils.session import closest, find_root

FOLDER = "data/claims"
METRICS = ("accuracy", "macro_f1", "test_loss")
BOOTSTRAP = 2000


class Cell(Strict):
    """One column of the grid: a method at a training size."""

    method: str
    n_train: PositiveInt


class PairedDifference(Strict):
    """Per seed: the mean over the tasks of metric(a) - metric(b), both on the same test examples."""

    kind: Literal["paired_difference"]
    name: str
    metric: Literal["accuracy", "macro_f1", "test_loss"]
    over: Literal["task"]
    a: Cell
    b: Cell


class Claim(Strict):
    """data/claims/<id>.toml. ``expected`` is what we thought before the run; it has no influence."""

    id: str
    statement: str
    source: str
    evidence: str
    experiment: str
    direction: Literal["greater", "less"]
    threshold: float
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    expected: Literal["supported", "refuted", "undecided", "unknown"]
    statistic: PairedDifference
    secondary: list[PairedDifference] = Field(default_factory=list)


def names() -> list[str]:
    """The ids of all claims, C2 before C10."""
    found = [path.stem for path in (find_root() / FOLDER).glob("*.toml")]
    return sorted(found, key=lambda name: (len(name), name))


def load(name: str) -> Claim:
    """The claim of data/claims/<name>.toml.

    Raises:
        ConfigError: for an unknown claim, and for a mistake in its file (one sentence with its key).
    """
    file = f"{FOLDER}/{name}.toml"
    path = find_root() / file
    if not path.is_file():
        raise ConfigError(
            f"unknown claim {name!r}{closest(name, names())}; known: {', '.join(names()) or 'none'}"
        )
    try:
        claim = Claim.model_validate(read_toml(path, file))
    except ValidationError as error:
        raise ConfigError(explain(error, file)) from None
    if claim.id != name:
        raise ConfigError(f"{file}: id is {claim.id!r}, but the file is called {name!r}; make them equal.")
    return claim


# --- one number per seed ---------------------------------------------------------------------------


@dataclass(frozen=True)
class PerSeed:
    """``values[i]`` belongs to ``seeds[i]``; ``missing`` names the cells that have no run."""

    seeds: tuple[int, ...]
    values: np.ndarray
    by_task: dict[str, np.ndarray] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


def per_seed(
    statistic: PairedDifference, lines: Iterable[Mapping[str, Any]], tasks: list[str], seeds: list[int]
) -> PerSeed:
    """The statistic of every seed. A seed that lacks a cell gives no number, and the cell is named."""
    table = {
        (line["task"], line["n_train"], line["seed"], line["method"]): line[statistic.metric]
        for line in lines
        if line["stage"] == "run"
    }
    kept, rows, missing = [], [], []
    for seed in seeds:
        row = []
        for task in tasks:
            pair = [table.get((task, c.n_train, seed, c.method)) for c in (statistic.a, statistic.b)]
            for cell, value in zip((statistic.a, statistic.b), pair, strict=True):
                if value is None:
                    missing.append(f"{task} · n = {cell.n_train} · seed {seed} · {cell.method}")
            row.append(np.nan if None in pair else pair[0] - pair[1])  # type: ignore[operator]
        if not np.isnan(row).any():
            kept.append(seed)
            rows.append(row)
    grid = np.array(rows, dtype=float).reshape(len(kept), len(tasks))
    by_task = {task: grid[:, i] for i, task in enumerate(tasks)}
    return PerSeed(tuple(kept), grid.mean(axis=1) if kept else np.array([]), by_task, tuple(missing))


def decide(interval: Interval, threshold: float, direction: str) -> str:
    """supported, refuted or undecided, from where the interval lies; touching the threshold decides nothing."""
    above, below = interval.low > threshold, interval.high < threshold
    if direction == "less":
        above, below = below, above
    return "supported" if above else "refuted" if below else "undecided"


def hierarchical_bootstrap(
    differences: np.ndarray, samples: int = BOOTSTRAP, level: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile interval of the mean of ``differences``, shape (tasks, seeds, examples).

    Each sample draws seeds with replacement, the same for all tasks, and, within each task, test examples with
    replacement, the same for all seeds: the test set is shared, so its luck is too. NaN marks the padding of
    tasks with fewer examples. Tasks are not drawn: they are the whole of what the claim names.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 8.
    """
    tasks, seeds, _ = differences.shape
    rng = np.random.default_rng(seed)
    chosen = [differences[t][:, ~np.isnan(differences[t]).any(axis=0)] for t in range(tasks)]
    means = np.empty(samples)
    for i in range(samples):
        drawn = rng.integers(0, seeds, seeds)
        weights = np.bincount(drawn, minlength=seeds) / seeds
        total = 0.0
        for task in chosen:
            n = task.shape[1]
            total += weights @ task @ (np.bincount(rng.integers(0, n, n), minlength=n) / n)
        means[i] = total / tasks
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    centre = np.mean([task.mean() for task in chosen])
    return Interval(float(centre), float(low), float(high))


def example_differences(
    statistic: PairedDifference,
    predictions: Mapping[tuple[str, int, int, str], tuple[Any, Any]],
    tasks: list[str],
    seeds: Iterable[int],
) -> np.ndarray | None:
    """correct(a) - correct(b) per test example, shape (tasks, seeds, examples); None where one is not stored."""
    if statistic.metric != "accuracy":
        return None
    grid = []
    for task in tasks:
        rows = []
        for seed in seeds:
            pair = [predictions.get((task, c.n_train, seed, c.method)) for c in (statistic.a, statistic.b)]
            if pair[0] is None or pair[1] is None or len(pair[0][1]) != len(pair[1][1]):
                return None
            correct = [np.asarray(p) == np.asarray(t) for p, t in pair]  # type: ignore[misc]
            rows.append(correct[0].astype(float) - correct[1])
        grid.append(rows)
    if not grid or not grid[0]:
        return None
    longest = max(len(rows[0]) for rows in grid)
    padded = [[np.pad(r, (0, longest - len(r)), constant_values=np.nan) for r in rows] for rows in grid]
    return np.array(padded)


# --- verdicts --------------------------------------------------------------------------------------


def verdict(name: str, profile: str = "laptop") -> dict[str, Any]:
    """The verdict on a claim from the recorded results of its experiment, as a table for JSON.

    ``verdict`` is supported, refuted, undecided, or "not tested" while a cell that the statistic names lacks a run
    for a seed of the grid. ``mean``, ``low``, ``high`` are the t interval over seeds, ``bootstrap`` the one beside
    it; ``secondary`` holds the same for the statistics that do not decide. None where there are too few seeds.
    ``changed`` says that the claim's text is no longer the one that the runs recorded when they started.
    """
    claim = load(name)
    experiment = experiments.load(claim.experiment).at(profile)
    lines = experiments.results(claim.experiment, profile)
    stored = experiments.predictions(claim.experiment, profile)
    tasks, seeds = experiment.axes.task, experiment.axes.seed

    def find(statistic: PairedDifference) -> dict[str, Any]:
        numbers = per_seed(statistic, lines, tasks, seeds)
        found: dict[str, Any] = dict.fromkeys(("mean", "low", "high", "bootstrap"))
        if len(numbers.seeds) >= 2:
            interval = t_interval(numbers.values, claim.confidence)
            found |= {"mean": interval.mean, "low": interval.low, "high": interval.high}
            grid = example_differences(statistic, stored, tasks, numbers.seeds)
            if grid is not None:
                beside = hierarchical_bootstrap(grid, level=claim.confidence)
                found["bootstrap"] = [beside.low, beside.high]
        by_task = {task: float(v.mean()) for task, v in numbers.by_task.items() if len(v)}
        return found | {
            "statistic": statistic.name,
            "seeds": list(numbers.seeds),
            "values": numbers.values.tolist(),
            "by_task": by_task,
            "missing": list(numbers.missing),
        }

    found = find(claim.statistic)
    word = "not tested"
    if found["mean"] is not None and not found["missing"]:
        interval = Interval(found["mean"], found["low"], found["high"])
        word = decide(interval, claim.threshold, claim.direction)
    now = record.claims_sha([name])[name]
    return found | {
        "claim": claim.id,
        "statement": claim.statement,
        "experiment": claim.experiment,
        "direction": claim.direction,
        "threshold": claim.threshold,
        "confidence": claim.confidence,
        "expected": claim.expected,
        "verdict": word,
        "changed": any(line.get("claims", {}).get(name) != now for line in lines),
        "secondary": [find(other) for other in claim.secondary],
    }


def _sentence(found: Mapping[str, Any]) -> str:
    if found["mean"] is None:
        return f"{found['statistic']}: not tested, {len(found['seeds'])} complete seeds"
    text = f"{found['statistic']}: {found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"
    if found["bootstrap"] is not None:
        text += ", bootstrap [{:+.3f}, {:+.3f}]".format(*found["bootstrap"])
    tasks = "; ".join(f"{task} {mean:+.3f}" for task, mean in found["by_task"].items())
    return f"{text} ({tasks})"


def render(found: Mapping[str, Any]) -> str:
    """A verdict for a person: the claim, the word, the interval that decides, then what stands beside it."""
    side = {"greater": "above", "less": "below"}[found["direction"]]
    rows = [
        f"{found['claim']}: {found['statement']}",
        f"{found['verdict']} ({found['confidence']:.0%} t interval over {len(found['seeds'])} seeds, "
        f"claimed to lie {side} {found['threshold']:g}; in brackets: each task's mean)",
        f"  {_sentence(found)}",
        "printed beside it, without a vote:",
        *(f"  {_sentence(other)}" for other in found["secondary"]),
    ]
    if missing := found["missing"]:
        rows.append(f"missing: {len(missing)} runs, the first: {missing[0]}")
    if found["changed"]:
        rows.append("the claim's text has changed since these runs started")
    return "\n".join(rows)
