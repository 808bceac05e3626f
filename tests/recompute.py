"""Every verdict once more, by a stranger's hand: pandas, SciPy and NumPy, and nothing of this project is imported.

    python tests/recompute.py [FOLDER]

It reads claims, experiments, recorded lines and predictions under FOLDER/data (default: this repository), recomputes for
every claim with an experiment each part's mean, interval and p-value and the verdict, and compares them with
data/results/ledger.json. A line for each disagreement; exit code 1 if there is one. Each statistic gives a number per seed.

Edition 1: a t interval over seeds; several parts are judged together, after Holm.
Edition 2: *What varies.* Seeds with test items of their own: t over seeds. Items that all seeds share: a crossed model,
variance = seed / k + item / n + rest / (k n); degrees of freedom by Satterthwaite of two parts, (seed + rest / n) / k with
k - 1, and item / n with n - 1. Where nothing is trained the unit is the item, the task, or the method (by the jackknife).
Numbers with bounds (shares, ranges, correlations) are judged on Fisher's z by the delta method.
*Words.* Supported: beyond the threshold on the claimed side. Refuted: on the other side, or (threshold 0) inside ± the
smallest effect of interest by two one-sided tests. All parts needed: supported if each is, refuted if one is after Holm;
k of n: both after Holm. Not tested: a cell lacks a run, the seeds change nothing, an item has no number, or more than one
run in ten of a method that the claim leans on did not train.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

SHARES = set("accuracy em exact f1 macro_f1 span_f1 top_share unused found".split())  # 0 to 1, as accuracy_*
COUNTS = ("trainable_parameters", "file_bytes")  # what they are in every run: no luck, no interval
NOT_FINITE = ("NaN", "Infinity", "-Infinity")  # as strict JSON has them
EDITIONS = {2: 1, 3: 2}  # schema of a line → edition


class Experiment:
    """One experiment on the laptop: its axes ("method" is one), its runs by place on them, what each test item said."""

    def __init__(self, root: Path, name: str) -> None:
        told = tomllib.loads((root / f"data/experiments/{name}.toml").read_text(encoding="utf-8"))
        changed = told.get("profiles", {}).get("laptop", {}).get("axes", {})
        self.axes = {**told["axes"], **changed, "method": list(told["methods"])}
        self.share = told.get("training", {}).get("share", 0.9)
        path = root / f"data/results/{name}.jsonl"
        text = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        lines = [{k: float(v) if v in NOT_FINITE else v for k, v in json.loads(x).items()} for x in text]
        self.line = {self.place(line): line for line in lines if line["stage"] == "run"}
        path = path.with_suffix(".predictions.parquet")
        rows = pd.read_parquet(path).to_dict("records") if path.is_file() else []
        self.stored = {self.place(row): {k: v for k, v in row.items() if v is not None} for row in rows}
        path = root / f"data/results/{name}.bootstrap.json"  # where predictions are too large for git
        self.kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() and not rows else {}
        editions = {EDITIONS[line["schema"]] for line in self.line.values()}
        self.edition = 0 if len(editions) != 1 else editions.pop()  # 0: nothing has run, or lines of both

    def place(self, row: dict) -> tuple:
        return tuple(row[axis] for axis in self.axes)

    def groups(self, over: list[str]) -> list[dict]:
        return [dict(zip(over, group, strict=True)) for group in itertools.product(*map(self.axes.get, over))]

    def values(self, metric: str, where: dict, over: list[str], axis: str | None, points: list) -> np.ndarray:
        """The metric of the runs at ``where``: (seeds, cells of ``over``, points of ``axis``); NaN without a number."""

        def one(seed: int, group: dict, point: Any) -> float:
            value = self.line.get(self.place({**where, **group, "seed": seed, axis: point}), {}).get(metric)
            return math.nan if value is None or not math.isfinite(value) else float(value)

        groups, points = self.groups(over), points or [None]
        return np.array([[[one(s, g, p) for p in points] for g in groups] for s in self.axes["seed"]])

    def items(self, metric: str, where: dict) -> np.ndarray | None:
        """The metric of each test item of one run, if what is stored has the mean that the line states."""
        row, line = self.stored.get(self.place(where), {}), self.line.get(self.place(where), {})
        choices = [row["scores"]] if "scores" in row else []
        if metric == "accuracy" and row.keys() >= {"predictions", "targets"}:
            choices.append(row["predictions"] == row["targets"])
        fits = (x for x in choices if np.isclose(np.mean(x), line.get(metric, math.nan), atol=1e-4))
        return next((np.asarray(x, dtype=float) for x in fits), None)

    def own_items(self) -> bool:
        """Whether two seeds have other right answers at the same place, so other test items."""
        seen: dict[tuple, set[bytes]] = {}
        for row in (row for row in self.stored.values() if "targets" in row):
            place = tuple(row[axis] for axis in self.axes if axis not in ("seed", "method"))
            seen.setdefault(place, set()).add(row["targets"].tobytes())
        return any(len(found) > 1 for found in seen.values())

    def untrained(self) -> set[str]:
        """Methods of which more than one run in ten did not train, of those whose lines speak of training."""
        failed: dict[str, list[bool]] = {}
        signs = ("first_loss", "train_loss", "steps", "updates", "diverged")
        for place, line in self.line.items():
            if any(map(line.get, signs)) or "learning_rate" in line.get("tuned", {}):
                first, last = line.get("first_loss"), line.get("train_loss")
                stuck = first is not None and not (last is not None and last <= self.share * first)
                row, one = self.stored.get(place, {}), line.get("one_class")
                if one is None and row.keys() >= {"predictions", "targets"}:
                    one = len(set(row["predictions"])) == 1 < len(set(row["targets"]))
                failed.setdefault(line["method"], []).append(bool(line.get("diverged") or one or stuck))
        return {method for method, runs in failed.items() if sum(runs) > 0.1 * len(runs)}


class Numbers(NamedTuple):
    """What a statistic says."""

    by_seed: np.ndarray
    by_task: list[np.ndarray]  # by seed, for each task
    by_item: list[np.ndarray] | None  # (seeds, items), for each cell of ``over``
    y: np.ndarray  # the metrics, (seeds, curves, cells of ``over``, points)
    missing: bool  # a run, or its number


def arms(statistic: dict) -> list[tuple[dict, str]]:
    """The cells that a statistic compares, each with its metric."""
    if statistic["kind"] == "spread_difference":
        return [(where, statistic["metric"]) for where in (*statistic["a"], *statistic["b"])]
    sides = [statistic["a"], statistic["b"]] if "a" in statistic else [statistic.get("at", {})]
    other = [(statistic.get("at", {}), statistic["other"])] if statistic.get("other") else []
    return [(where, statistic["metric"]) for where in sides] + other


def points_of(statistic: dict, axes: dict) -> list:
    """The values on the axis along which a statistic walks."""
    points = list(statistic.get("values") or axes.get(statistic.get("axis"), ()))
    if statistic.get("reference"):
        points = [point for point in points if str(point) in statistic["reference"]]
    return sorted(points) if statistic["kind"] in ("slope", "argmax") else points


def number(statistic: dict, y: np.ndarray, points: list) -> float:
    """The statistic of y, shape (curves, cells of ``over``, points)."""
    kind, mean = statistic["kind"], y.mean(axis=1)
    if kind in ("value", "paired_difference"):
        return float(y.mean() if kind == "value" else (y[0] - y[1]).mean())
    if kind == "ratio":
        return float(np.log2(y[0] / y[1]).mean())
    if kind == "range":
        return float(np.ptp(mean[0]))
    if kind == "spread_difference":
        many = len(statistic["a"])
        return float(np.ptp(y[:many].mean(axis=(1, 2))) - np.ptp(y[many:].mean(axis=(1, 2))))
    rounded = mean.round(9)  # the noise of a sum is no order
    if kind == "rank_correlation":
        return rank_correlation(*two_orders(statistic, rounded, points))
    x = np.log10(points) if statistic.get("log10") else np.array(points, dtype=float)
    if kind == "slope":
        return float(stats.linregress(x, mean[0]).slope)
    assert kind == "argmax", kind
    return float(x[(rounded[0].argmin if statistic.get("better") == "lower" else rounded[0].argmax)()])


def two_orders(statistic: dict, mean: np.ndarray, points: list) -> tuple[np.ndarray, np.ndarray]:
    """What a rank correlation compares: a metric with published numbers, or with another metric."""
    published = statistic.get("reference")
    return mean[0], np.array([published[str(point)] for point in points]) if published else mean[1]


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    return 0.0 if np.ptp(a) == 0 or np.ptp(b) == 0 else float(stats.spearmanr(a, b).statistic)


def measure(statistic: dict, found: Experiment) -> Numbers:
    over, axis, points = statistic.get("over", []), statistic.get("axis"), points_of(statistic, found.axes)
    curves = [found.values(metric, where, over, axis, points) for where, metric in arms(statistic)]
    y, groups, tasks = np.stack(curves, axis=1), found.groups(over), {}
    if not np.isfinite(y).all():
        return Numbers(np.array([]), [], None, y, True)
    for place, group in enumerate(groups):
        tasks.setdefault(group.get("task"), []).append(place)
    by_task = [np.array([number(statistic, one[:, mine], points) for one in y]) for mine in tasks.values()]
    items = (
        of_items(statistic, found, groups) if statistic["kind"] in ("paired_difference", "value") else None
    )
    return Numbers(np.array([number(statistic, one, points) for one in y]), by_task, items, y, False)


def of_items(statistic: dict, found: Experiment, groups: list[dict]) -> list[np.ndarray] | None:
    """Of each cell of ``over``: the difference, or the level, on every test item, (seeds, items)."""
    tables, seeds = [], found.axes["seed"]
    for group in groups:
        rows = [found.items(m, {**where, **group, "seed": s}) for where, m in arms(statistic) for s in seeds]
        if any(row is None for row in rows) or len({len(row) for row in rows if row is not None}) != 1:
            return None
        table = np.array(rows).reshape(-1, len(seeds), len(rows[0]))
        tables.append(table[0] - table[1] if len(table) == 2 else table[0])
    return tables


class Estimate(NamedTuple):
    """A mean with its standard error on t with ``df``; between ``bounds``, if any, it is judged on Fisher's scale."""

    mean: float
    error: float
    df: float
    bounds: tuple[float, float] | None = None

    def place(self, value: float) -> float:
        """Fisher's z, by which a correlation reaches from -1 to 1; for a share it is half of the logit."""
        if self.bounds is None:
            return value
        low, high = self.bounds
        with np.errstate(divide="ignore"):
            return float(np.arctanh(np.clip(2 * (value - low) / (high - low) - 1, -1, 1)))

    def back(self, z: float) -> float:
        low, high = self.bounds or (0.0, 0.0)
        return float(z if self.bounds is None else low + (high - low) * (np.tanh(z) + 1) / 2)

    @property
    def scaled(self) -> float:
        """The standard error on that scale, by the delta method."""
        low, high = self.bounds or (0.0, 0.0)
        steep = (self.mean - low) * (high - self.mean) * 2 / (high - low) if self.bounds else 1.0
        return self.error / steep if self.error else 0.0

    def interval(self, level: float) -> tuple[float, float]:
        middle, half = self.place(self.mean), stats.t.ppf(0.5 + level / 2, self.df) * self.scaled
        return (self.back(middle - half), self.back(middle + half)) if half else (self.mean, self.mean)

    def above(self, threshold: float) -> float:
        """One-sided p-value of the hypothesis that the true mean is not above ``threshold``."""
        if self.error == 0:
            return 0.0 if self.mean > threshold else 0.5 if self.mean == threshold else 1.0
        return float(stats.t.sf((self.place(self.mean) - self.place(threshold)) / self.scaled, self.df))

    def differs(self, threshold: float) -> float:
        return 2 * min(self.above(threshold), 1 - self.above(threshold))

    def inside(self, margin: float) -> float:
        """Two one-sided tests (Schuirmann 1987) that the true mean does not lie within ± ``margin``."""
        return max(self.above(-margin), 1 - self.above(margin))


def over_units(groups: list[np.ndarray], bounds: tuple[float, float] | None) -> Estimate:
    """The mean over units that were drawn; fixed groups count alike (Welch, Satterthwaite)."""
    errors = np.array([x.var(ddof=1) / len(x) for x in groups]) / len(groups) ** 2
    free = np.array([len(x) - 1 for x in groups])
    total = errors.sum()
    df = total**2 / (errors**2 / free).sum() if total > 0 else free.min()
    return Estimate(float(np.mean([x.mean() for x in groups])), math.sqrt(total), float(df), bounds)


def crossed(groups: list[np.ndarray], bounds: tuple[float, float] | None) -> Estimate:
    """Random seeds and random items, the seeds the same in each group: moments of the two-way layout."""
    k, scale = len(groups[0]), len(groups) ** 2
    item, rest, free = [], [], []
    for y in groups:
        n, residual = y.shape[1], y - y.mean(axis=0) - y.mean(axis=1, keepdims=True) + y.mean()
        mean_square = (residual**2).sum() / ((k - 1) * (n - 1))
        item.append(max(y.mean(axis=0).var(ddof=1) - mean_square / k, 0) / n / scale)
        rest.append(mean_square / n / scale)
        free.append(n - 1)
    between = np.mean([y.mean(axis=1) for y in groups], axis=0).var(ddof=1)
    of_seeds, of_items = max(between, sum(rest)) / k, sum(item)
    total = of_seeds + of_items
    below = of_seeds**2 / (k - 1) + sum(one**2 / n for one, n in zip(item, free, strict=True))
    df = total**2 / below if total > 0 else k - 1
    return Estimate(float(np.mean([y.mean() for y in groups])), math.sqrt(total), float(df), bounds)


def over_methods(statistic: dict, numbers: Numbers, points: list) -> Estimate:
    """A rank correlation over methods that were drawn: the jackknife, of the methods' means over seeds."""
    a, b = two_orders(statistic, numbers.y.mean(axis=(0, 2)).round(9), points)
    n = len(a)
    left = np.array([rank_correlation(np.delete(a, i), np.delete(b, i)) for i in range(n)])
    error = math.sqrt((n - 1) / n * ((left - left.mean()) ** 2).sum())
    return Estimate(rank_correlation(a, b), error, n - 1, (-1.0, 1.0))


def bounds_of(statistic: dict) -> tuple[float, float] | None:
    """What a statistic cannot leave, where its interval minds that; a paired difference lies far from its bounds."""
    share = statistic["metric"] in SHARES or statistic["metric"].startswith("accuracy_")
    least = {"rank_correlation": -1.0} | ({"value": 0.0, "range": 0.0} if share else {})
    return (least[statistic["kind"]], 1.0) if statistic["kind"] in least else None


def estimate(claim: dict, statistic: dict, found: Experiment, numbers: Numbers) -> Estimate:
    if found.edition == 1:
        return over_units([numbers.by_seed], None)
    unit, bounds, items = claim.get("unit", "seed"), bounds_of(statistic), numbers.by_item
    if kept := found.kept.get(claim["id"], {}).get(statistic["name"]):
        return Estimate(float(numbers.by_seed.mean()), kept["error"], kept["df"], bounds)
    own = claim.get("power", {}).get("items")
    own = found.own_items() if own is None else own
    if unit == "method":
        return over_methods(statistic, numbers, points_of(statistic, found.axes))
    if unit == "seed" and items is not None and not own:
        return crossed(items, bounds)
    units = [numbers.by_seed]
    if unit == "task":
        units = [np.array([task.mean() for task in numbers.by_task])]
    elif unit == "item" and items is not None:
        units = [y.ravel() if own else y.mean(axis=0) for y in items]
    return over_units(units, bounds)


def holm(p: list[float]) -> list[float]:
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate((len(p) - np.arange(len(p))) * np.array(p)[order])
    return np.minimum(steps, 1)[np.argsort(order, kind="stable")].tolist()


def for_and_against(part: dict, e: Estimate, power: dict) -> tuple[float, float]:
    """The p-values of the tests that would support and refute one part."""
    threshold, two = part["threshold"], e.differs(part["threshold"])
    right = (e.mean > threshold) == (part["direction"] == "greater")
    small = e.inside(power["smallest"]) if "smallest" in power and threshold == 0 else 1.0
    return (two / (1 + (power.get("sides") == "one")) if right else 1.0), min(small, 1.0 if right else two)


def methods_of(parts: list[dict], found: Experiment) -> set[str]:
    """The methods that a claim leans on."""
    named = set()
    for statistic in (part["statistic"] for part in parts):
        named |= {where["method"] for where, _ in arms(statistic) if "method" in where}
        named |= set(points_of(statistic, found.axes)) if statistic.get("axis") == "method" else set()
        named |= set(found.axes["method"]) if "method" in statistic.get("over", []) else set()
    return named


def recompute(claim: dict, found: Experiment) -> dict[str, Any]:
    """The verdict on one claim, and of each part its mean, interval, word, and p-value after Holm."""
    level, alpha = claim.get("confidence", 0.95), 1 - claim.get("confidence", 0.95)
    parts = claim.get("comparisons") or [{"direction": "greater", "threshold": 0.0} | claim]
    numbers = [measure(part["statistic"], found) for part in parts]
    if not found.edition or any(each.missing for each in numbers):
        return {"verdict": "not tested", "parts": []}
    each = [estimate(claim, p["statistic"], found, x) for p, x in zip(parts, numbers, strict=True)]
    told = [{"mean": e.mean, "low": e.interval(level)[0], "high": e.interval(level)[1]} for e in each]
    drawn = [x for x, part in zip(numbers, parts, strict=True) if part["statistic"]["metric"] not in COUNTS]
    dead = claim.get("unit", "seed") == "seed" and any(np.ptp(x.by_seed) < 1e-12 for x in drawn)
    bare = claim.get("unit") == "item" and any(x.by_item is None for x in numbers)
    if found.edition == 2 and (dead or bare or methods_of(parts, found) & found.untrained()):
        return {"verdict": "not tested", "parts": told}
    if "margin" in claim:
        low, high = each[0].interval(level)
        away = low > claim["margin"] or high < -claim["margin"]
        word = "supported" if each[0].inside(claim["margin"]) < alpha else "refuted" if away else "undecided"
        return {"verdict": word, "parts": told}
    power = claim.get("power", {}) if found.edition == 2 else {}
    both = [for_and_against(part, e, power) for part, e in zip(parts, each, strict=True)]
    words = ["refuted" if no < alpha else "supported" if yes < alpha else "undecided" for yes, no in both]
    if "comparisons" not in claim:
        return {"verdict": words[0], "parts": told}
    whole, words, after = together(words, both, claim.get("k", len(parts)), found.edition, alpha)
    told = [row | {"verdict": word, "p": p} for row, word, p in zip(told, words, after, strict=True)]
    return {"verdict": whole, "parts": told}


def together(words: list[str], both: list, needed: int, edition: int, alpha: float) -> tuple[str, list, list]:
    """The word over several parts of which ``needed`` must hold, each part's word, and p after Holm where it judges."""
    if edition == 1:
        shown: list[float | None] = [*holm([min(pair) for pair in both])]
    else:
        yes, no = (holm([*column]) for column in zip(*both, strict=True))
        p = {"supported": yes if needed < len(words) else [None] * len(words), "refuted": no}
        shown = [p[word][i] if word in p else None for i, word in enumerate(words)]
    judged = ["undecided" if p is not None and p >= alpha else w for w, p in zip(words, shown, strict=True)]
    held, failed = (judged.count(word) for word in ("supported", "refuted"))
    whole = "supported" if held >= needed else "refuted" if failed > len(words) - needed else "undecided"
    return whole, judged if edition == 1 else words, shown


def disagreements(root: Path) -> list[str]:
    """A sentence for every number and word on which this script and the ledger differ, and for every absent row."""
    rows = json.loads((root / "data/results/ledger.json").read_text(encoding="utf-8"))
    rows, found, said = {row["claim"]: row for row in rows}, {}, []
    for path in sorted((root / "data/claims").glob("*.toml")):
        claim = tomllib.loads(path.read_text(encoding="utf-8"))
        if (name := claim.get("experiment")) is None:
            continue
        found[name] = found.get(name) or Experiment(root, name)
        ours, row = recompute(claim, found[name]), rows.get(claim["id"], {"verdict": "nothing"})
        if ours["verdict"] != row["verdict"]:
            said.append(f"{claim['id']}: the ledger says {row['verdict']!r}, recomputed {ours['verdict']!r}")
        for i, (mine, theirs) in enumerate(zip(ours["parts"], row.get("comparisons") or [row], strict=False)):
            for key, value in mine.items():
                other, close = theirs.get(key), value == theirs.get(key)
                if isinstance(value, float) and other is not None:  # the ledger has six digits
                    close = math.isclose(value, other, rel_tol=1e-6, abs_tol=2e-6)
                if not close:
                    said.append(
                        f"{claim['id']}, part {i + 1}, {key}: the ledger says {other}, recomputed {value}"
                    )
    return said


def main() -> int:
    said = disagreements(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1])
    print("\n".join(said) or "every verdict, mean, interval and p-value is the ledger's")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
