"""Claims as data, written before the runs that test them, and the verdicts that the runs give them.

data/claims/<id>.toml names statistics; each yields one number per seed. The t interval of those numbers decides:
wholly beyond the threshold on the claimed side is supported, wholly on the other refuted, everything else undecided.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt, ValidationError, model_validator

from instructlab_repro import experiments, provenance
from instructlab_repro.claims import repeat
from instructlab_repro.experiments import Experiment, Value
from instructlab_repro.strict import Strict, read_toml, sentence
from instructlab_utils import files
from instructlab_utils.errors import ConfigError, RecordError
from instructlab_utils.intervals import Interval, holm, t_interval, t_test, tost
from instructlab_utils.project import closest, find_root

FOLDER = "data/claims"
BOOTSTRAP = 2000

Axes = Mapping[str, Sequence[Value]]  # axis → values; "method" counts as one
Where = dict[str, Value]
Direction = Literal["greater", "less"]


# --- statistics: one number per seed ---------------------------------------------------------------


class Statistic(Strict):
    """What all kinds share. ``metric`` is a numeric field of the lines; the axes in ``over`` are averaged.

    Every axis but the seed stands once in ``over``, in ``axis``, or with a value in ``a``, ``b`` or ``at``.
    ``number`` takes y, shape (curves, groups, points): groups are the cells of ``over``, points those of ``axis``.
    """

    name: str
    metric: str
    over: list[str] = Field(default_factory=list)

    least: ClassVar[int] = 1  # points
    numeric: ClassVar[bool] = False  # the axis must hold numbers

    def points(self, axes: Axes) -> list[Where]:
        return [{}]

    def censored(self, y: np.ndarray) -> bool:
        """Whether the number of this seed is only a bound of what was asked for."""
        return False


class Single(Statistic):
    at: Where = Field(default_factory=dict)

    @property
    def curves(self) -> dict[str, tuple[Where, str]]:
        return {"at": (self.at, self.metric)}


class Pair(Statistic):
    a: Where
    b: Where

    @property
    def curves(self) -> dict[str, tuple[Where, str]]:
        return {"a": (self.a, self.metric), "b": (self.b, self.metric)}


class Along(Statistic):
    """``axis`` is walked along its ``values``, by default all; with ``log10`` its logarithm counts."""

    axis: str
    values: list[Value] = Field(default_factory=list)
    log10: bool = False

    least: ClassVar[int] = 2

    def points(self, axes: Axes) -> list[Where]:
        found = list(self.values or axes.get(self.axis, ()))
        if self.numeric:
            found.sort()
        return [{self.axis: value} for value in found]

    def x(self, axes: Axes) -> np.ndarray:
        found = np.array([point[self.axis] for point in self.points(axes)], dtype=float)
        return np.log10(found) if self.log10 else found


class PairedDifference(Pair):
    """metric(a) - metric(b) on the same seed, so on the same examples."""

    kind: Literal["paired_difference"]

    def number(self, y: np.ndarray, axes: Axes) -> float:
        return float((y[0] - y[1]).mean())


class Level(Single):
    """The metric itself, to be held against a threshold."""

    kind: Literal["value"]

    def number(self, y: np.ndarray, axes: Axes) -> float:
        return float(y.mean())


class Ratio(Pair):
    """The mean of log2(metric(a) / metric(b)): 1 is twice as much, -1 half as much, 0 the same."""

    kind: Literal["ratio"]

    def number(self, y: np.ndarray, axes: Axes) -> float:
        if (y <= 0).any():
            raise RecordError(
                f"{self.name}: a ratio needs positive numbers, and {self.metric} is not; use paired_difference."
            )
        return float(np.log2(y[0] / y[1]).mean())


class Slope(Single, Along):
    """The least-squares slope of the metric on the axis; with ``log10``, per factor of ten."""

    kind: Literal["slope"]
    numeric: ClassVar[bool] = True

    def number(self, y: np.ndarray, axes: Axes) -> float:
        return float(np.polyfit(self.x(axes), y[0].mean(axis=0), 1)[0])


class Crossing(Pair, Along):
    """Where, from small to large, curve a first rises above curve b, by linear interpolation on the (log10) axis.

    With ``log10`` the number is the logarithm, and so is the threshold. A seed whose a starts above b gets the first
    point, one whose a never rises above b the last; both are counted as censored.
    """

    kind: Literal["crossing"]
    numeric: ClassVar[bool] = True

    def number(self, y: np.ndarray, axes: Axes) -> float:
        x, gap = self.x(axes), (y[0] - y[1]).mean(axis=0)
        if self.censored(y):
            return float(x[0] if gap[0] > 0 else x[-1])
        i = int(np.argmax(gap > 0))
        return float(x[i - 1] - gap[i - 1] * (x[i] - x[i - 1]) / (gap[i] - gap[i - 1]))

    def censored(self, y: np.ndarray) -> bool:
        gap = (y[0] - y[1]).mean(axis=0)
        return bool(gap[0] > 0 or not (gap > 0).any())


class Range(Single, Along):
    """Largest minus smallest metric along the axis; the axis may be ``method``."""

    kind: Literal["range"]

    def number(self, y: np.ndarray, axes: Axes) -> float:
        return float(np.ptp(y[0].mean(axis=0)))


class SpreadDifference(Statistic):
    """Largest minus smallest metric over the cells of ``a``, minus the same over the cells of ``b``: which moves more."""

    kind: Literal["spread_difference"]
    a: list[Where] = Field(min_length=2)
    b: list[Where] = Field(min_length=2)

    @property
    def curves(self) -> dict[str, tuple[Where, str]]:
        cells = [("a", i, cell) for i, cell in enumerate(self.a)] + [
            ("b", i, cell) for i, cell in enumerate(self.b)
        ]
        return {f"{side}[{i}]": (cell, self.metric) for side, i, cell in cells}

    def number(self, y: np.ndarray, axes: Axes) -> float:
        means = y.mean(axis=(1, 2))
        return float(np.ptp(means[: len(self.a)]) - np.ptp(means[len(self.a) :]))


class RankCorrelation(Single, Along):
    """Spearman's, along the axis, of the metric with a published ``reference`` (value = number) or an ``other`` metric.

    0 where one side does not vary: no order, no agreement.
    """

    kind: Literal["rank_correlation"]
    reference: dict[str, int | float] = Field(default_factory=dict)
    other: str = ""
    least: ClassVar[int] = 3

    @model_validator(mode="after")
    def _one(self) -> RankCorrelation:
        if bool(self.reference) == bool(self.other):
            raise ValueError("give either a reference or an other metric")
        return self

    @property
    def curves(self) -> dict[str, tuple[Where, str]]:
        mine = {"at": (self.at, self.metric)}
        return mine | {"other": (self.at, self.other)} if self.other else mine

    def points(self, axes: Axes) -> list[Where]:
        found = super().points(axes)
        return [point for point in found if not self.reference or str(point[self.axis]) in self.reference]

    def number(self, y: np.ndarray, axes: Axes) -> float:
        from scipy import stats

        curves = y.mean(axis=1)
        wanted = (
            [self.reference[str(p[self.axis])] for p in self.points(axes)] if self.reference else curves[1]
        )
        if np.ptp(curves[0]) == 0 or np.ptp(wanted) == 0:
            return 0.0
        return float(stats.spearmanr(curves[0], wanted).statistic)


class Argmax(Single, Along):
    """The value on the axis with the best metric (of equals the first); with ``log10`` its logarithm."""

    kind: Literal["argmax"]
    better: Literal["higher", "lower"] = "higher"
    numeric: ClassVar[bool] = True

    def number(self, y: np.ndarray, axes: Axes) -> float:
        curve = y[0].mean(axis=0)
        return float(self.x(axes)[np.argmax(curve if self.better == "higher" else -curve)])


AnyStatistic = Annotated[
    PairedDifference | Level | Ratio | Slope | Crossing | Range | SpreadDifference | RankCorrelation | Argmax,
    Field(discriminator="kind"),
]


# --- the claim -------------------------------------------------------------------------------------


class Source(Strict):
    """Who says it, where, and on what evidence."""

    work: str
    place: str
    evidence: Literal["measured", "cited", "asserted", "fabricated"]


class Comparison(Strict):
    """One part of a conjunction or of k-of-n."""

    statistic: AnyStatistic
    direction: Direction
    threshold: float


class Argument(Strict):
    """No run decides, a test does: it fails when the argument no longer holds."""

    test: str  # "tests/test_x.py::test_y"
    text: str
    conclusion: Literal["supported", "refuted"]


NEEDS = {
    "difference": ("statistic", "direction", "threshold"),
    "equivalence": ("statistic", "margin"),
    "conjunction": ("comparisons",),
    "k-of-n": ("comparisons", "k"),
    "argument": ("argument",),
}


class Claim(Strict):
    """data/claims/<id>.toml. ``expected`` is what we thought before the run; it has no influence.

    Without experiment and argument it is a draft, and may lack what its kind needs.
    """

    id: str
    statement: str
    kind: Literal["difference", "equivalence", "conjunction", "k-of-n", "argument"]
    lesson: Annotated[str, Field(pattern=r"^\d\d$")]
    source: Source
    expected: Literal["supported", "refuted", "undecided", "unknown"]
    experiment: str | None = None
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    direction: Direction | None = None
    threshold: float | None = None
    margin: Annotated[float, Field(gt=0)] | None = None
    k: PositiveInt | None = None
    statistic: AnyStatistic | None = None
    comparisons: Annotated[list[Comparison], Field(min_length=2)] | None = None
    secondary: list[AnyStatistic] = Field(default_factory=list)
    argument: Argument | None = None

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Claim:
        draft = self.experiment is None and self.argument is None
        for key in sorted({key for keys in NEEDS.values() for key in keys}):
            needed, there = key in NEEDS[self.kind], getattr(self, key) is not None
            if there and not needed:
                raise ValueError(f"{key}: has no place in a claim of the kind {self.kind!r}; remove it")
            if needed and not there and not draft:
                raise ValueError(f"{key}: is missing; a claim of the kind {self.kind!r} needs it")
        if self.kind == "argument" and self.experiment is not None:
            raise ValueError("experiment: an argument has no run; remove it")
        if self.k is not None and self.k > len(self.comparisons or ()):
            raise ValueError(f"k: {self.k} is more than there are comparisons")
        return self

    @property
    def statistics(self) -> dict[str, AnyStatistic]:
        """Place in the file → statistic, for all of them."""
        found = {"statistic": self.statistic} if self.statistic is not None else {}
        found |= {f"comparisons.{i}.statistic": c.statistic for i, c in enumerate(self.comparisons or ())}
        return found | {f"secondary.{i}": statistic for i, statistic in enumerate(self.secondary)}


def names() -> list[str]:
    """The ids of all claims, C2 before C10; those of the articles (C) before those of other works (another letter)."""
    found = [path.stem for path in (find_root() / FOLDER).glob("*.toml")]
    return sorted(found, key=lambda name: (name[0] != "C", name[0], len(name), name))


def load(name: str) -> Claim:
    """The claim of data/claims/<name>.toml, checked against its experiment or its test.

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
        # pydantic puts the kind into the path of a key
        kinds = r"\.(paired_difference|value|ratio|slope|crossing|range|rank_correlation|argmax)(?=[.:'])"
        raise ConfigError(re.sub(kinds, "", sentence(error, file))) from None
    if claim.id != name:
        raise ConfigError(f"{file}: id is {claim.id!r}, but the file is called {name!r}; make them equal.")
    for listing in sorted((find_root() / experiments.FOLDER).glob("*.toml")):
        place = f"{experiments.FOLDER}/{listing.name}"
        if name in read_toml(listing, place).get("claims", ()) and claim.experiment != listing.stem:
            raise ConfigError(f"{file}: experiment: {place} lists this claim; name {listing.stem!r} here.")
    if claim.argument is not None:
        _check_test(file, claim.argument.test)
    if claim.experiment is not None:
        check(claim, experiments.load(claim.experiment).at("laptop"))
    return claim


def _check_test(file: str, test: str) -> None:
    place, _, function = test.partition("::")
    path = find_root() / place
    tree = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module([], [])
    if function not in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}:
        raise ConfigError(f"{file}: argument.test: there is no {test!r}; write that test first.")


def check(claim: Claim, experiment: Experiment) -> None:
    """Whether the experiment lists the claim, and runs all that its statistics name.

    Raises:
        ConfigError: for the first that does not fit, with file and key.
    """
    file = f"{FOLDER}/{claim.id}.toml"
    if claim.id not in experiment.claims:
        place = f"{experiments.FOLDER}/{experiment.name}.toml"
        raise ConfigError(f"{file}: experiment: {place} does not list {claim.id}; add it to its claims.")
    for place, statistic in claim.statistics.items():
        for problem in _problems(statistic, _axes(experiment)):
            raise ConfigError(f"{file}: {place}.{problem}.")


def _axes(experiment: Experiment) -> dict[str, list[Value]]:
    return {**experiment.axes, "method": list(experiment.methods)}


def _problems(statistic: AnyStatistic, axes: Axes) -> Iterator[str]:
    free = [name for name in axes if name != "seed"]
    along = [statistic.axis] if isinstance(statistic, Along) else []
    curves = {key: where for key, (where, _) in statistic.curves.items()}
    for key, mentioned in {"over": statistic.over, "axis": along, **curves}.items():
        for name in mentioned:
            if name not in free:
                yield f"{key}: {name!r} is not an axis{closest(name, free)}; known: {', '.join(free)}"
    fixed = [(f"{key}.{name}", name, value) for key, where in curves.items() for name, value in where.items()]
    if isinstance(statistic, Along):
        fixed += [("values", statistic.axis, value) for value in statistic.values]
    for key, name, value in fixed:
        if value not in axes[name]:
            known = ", ".join(map(str, axes[name]))
            yield f"{key}: the experiment does not run {value!r}; known: {known}"
    for key, where in curves.items():
        for name in free:
            times = [*statistic.over, *along, *where].count(name)
            if times == 0:
                yield f"{key}: says nothing of {name!r}; fix it there, or average it with `over`"
            if times > 1:
                yield f"{key}: {name!r} is named twice; fix it, or average it, or walk along it"
    if not isinstance(statistic, Along):
        return
    if isinstance(statistic, RankCorrelation):
        for name in set(statistic.reference) - {str(value) for value in axes[statistic.axis]}:
            yield f"reference: the experiment does not run {name!r} on {statistic.axis!r}"
    points = [point[statistic.axis] for point in statistic.points(axes)]
    if len(points) < statistic.least:
        yield f"axis: {statistic.axis!r} has {len(points)} values, and this kind needs {statistic.least}"
    if statistic.numeric and any(isinstance(point, str) for point in points):
        yield f"axis: {statistic.axis!r} holds text, and this kind needs numbers"
    elif statistic.log10 and any(isinstance(point, str) or point <= 0 for point in points):
        yield f"log10: {statistic.axis!r} has values that are not positive numbers"


# --- one number per seed ---------------------------------------------------------------------------


@dataclass(frozen=True)
class PerSeed:
    """``values[i]`` belongs to ``seeds[i]``; ``missing`` names the cells that have no run."""

    seeds: tuple[int, ...]
    values: np.ndarray
    by_task: dict[str, np.ndarray] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    censored: int = 0


def _by_cell(rows: Iterable[Mapping[str, Any]], axes: Axes) -> dict[tuple, Mapping[str, Any]]:
    return {tuple(row.get(axis) for axis in axes): row for row in rows if row.get("stage", "run") == "run"}


def _groups(statistic: AnyStatistic, axes: Axes) -> list[Where]:
    grid = itertools.product(*(axes[axis] for axis in statistic.over))
    return [dict(zip(statistic.over, values, strict=True)) for values in grid]


def per_seed(statistic: AnyStatistic, lines: Iterable[Mapping[str, Any]], axes: Axes) -> PerSeed:
    """The statistic of every seed. A seed that lacks a cell gives no number, and the cell is named."""
    table = _by_cell(lines, axes)
    curves, groups, points = list(statistic.curves.values()), _groups(statistic, axes), statistic.points(axes)
    if len(points) < statistic.least:  # a profile may have shortened the axis
        return PerSeed((), np.array([]), missing=(f"{statistic.name}: too few values on the axis",))
    kept, values, missing, censored = [], [], [], 0
    by_task: dict[str, list[float]] = {str(group["task"]): [] for group in groups if "task" in group}
    for seed in axes["seed"]:
        y = np.full((len(curves), len(groups), len(points)), np.nan)
        for place in np.ndindex(y.shape):
            where, metric = curves[place[0]]
            cell = {"seed": seed, **where, **groups[place[1]], **points[place[2]]}
            line = table.get(tuple(cell[axis] for axis in axes))
            value = line.get(metric) if line is not None else None
            if isinstance(value, int | float) and np.isfinite(value):
                y[place] = value
            else:
                shown = (
                    v if isinstance(v, str) else f"{axis} = {v:g}" for axis in axes for v in [cell[axis]]
                )
                missing.append(" · ".join(shown) + (f" · its {metric}" if line is not None else ""))
        if np.isnan(y).any():
            continue
        kept.append(int(seed))
        values.append(statistic.number(y, axes))
        censored += statistic.censored(y)
        for task, found in by_task.items():
            mine = [str(group["task"]) == task for group in groups]
            found.append(statistic.number(y[:, mine], axes))
    arrays = {task: np.array(found) for task, found in by_task.items()}
    return PerSeed(tuple(kept), np.array(values), arrays, tuple(missing), censored)


def decide(interval: Interval, threshold: float, direction: str) -> str:
    """supported, refuted or undecided, from where the interval lies; touching the threshold decides nothing."""
    above, below = interval.low > threshold, interval.high < threshold
    if direction == "less":
        above, below = below, above
    return "supported" if above else "refuted" if below else "undecided"


def decide_equivalence(values: np.ndarray, margin: float, level: float = 0.95) -> str:
    """supported if two one-sided tests say |mean| < margin, refuted if the t interval lies wholly outside."""
    if tost(values, margin) < 1 - level:
        return "supported"
    interval = t_interval(values, level)
    return "refuted" if interval.low > margin or interval.high < -margin else "undecided"


def decide_several(
    numbers: Sequence[np.ndarray], sides: Sequence[tuple[str, float]], k: int, level: float = 0.95
) -> tuple[str, list[str], list[float]]:
    """The word over several comparisons, each one's word, and the p-values after Holm.

    ``sides`` are (direction, threshold). A comparison counts when its two-sided p-value, corrected for their number,
    is below 1 - level. At least ``k`` supported: supported; so many refuted that ``k`` are out of reach: refuted.
    """
    raw = np.nan_to_num(
        [t_test(x, threshold) for x, (_, threshold) in zip(numbers, sides, strict=True)], nan=1.0
    )
    adjusted = holm(raw).tolist()
    words = []
    for values, (direction, threshold), p in zip(numbers, sides, adjusted, strict=True):
        right = (values.mean() > threshold) == (direction == "greater")
        words.append("undecided" if p >= 1 - level else "supported" if right else "refuted")
    if words.count("supported") >= k:
        return "supported", words, adjusted
    return ("refuted" if words.count("refuted") > len(words) - k else "undecided"), words, adjusted


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


def example_numbers(
    statistic: AnyStatistic,
    stored: Iterable[Mapping[str, Any]],
    lines: Iterable[Mapping[str, Any]],
    axes: Axes,
    seeds: Iterable[int],
) -> np.ndarray | None:
    """The statistic per test example, shape (groups, seeds, examples), NaN where a group has fewer examples.

    From ``scores``, or for accuracy from predictions == targets, where their mean is the metric that the line holds.
    None for kinds that are no mean over examples, and where something is not stored.
    """
    if not isinstance(statistic, PairedDifference | Level):
        return None
    arrays, table = _by_cell(stored, axes), _by_cell(lines, axes)

    def one(cell: Where) -> np.ndarray | None:
        place = tuple(cell[axis] for axis in axes)
        row = arrays.get(place, {})
        found = row.get("scores")
        if found is None and statistic.metric == "accuracy" and "predictions" in row and "targets" in row:
            found = np.equal(row["predictions"], row["targets"])
        if found is None or not np.isclose(np.mean(found), table[place][statistic.metric], atol=1e-4):
            return None
        return np.asarray(found, dtype=float)

    grid = []
    for group in _groups(statistic, axes):
        rows = []
        for seed in seeds:
            found = [one({"seed": seed, **where, **group}) for where, _ in statistic.curves.values()]
            curves = [curve for curve in found if curve is not None]
            if len(curves) < len(found) or len({len(curve) for curve in curves}) != 1:
                return None
            rows.append(curves[0] - curves[1] if len(curves) == 2 else curves[0])
        if len({len(row) for row in rows}) != 1:
            return None
        grid.append(rows)
    longest = max(len(rows[0]) for rows in grid)
    padded = [[np.pad(r, (0, longest - len(r)), constant_values=np.nan) for r in rows] for rows in grid]
    return np.array(padded)


# --- verdicts --------------------------------------------------------------------------------------


def _outdated(experiment: Experiment, lines: Iterable[Mapping[str, Any]]) -> bool:
    today = {block.id: experiment.key(block) for block in experiment.blocks() if block.stage == "run"}
    return any(today.get(str(line.get("block"))) != line.get("key") for line in lines)


NOTHING: dict[str, Any] = {
    "statistic": None, "mean": None, "low": None, "high": None, "bootstrap": None, "seeds": [], "values": [],
    "by_task": {}, "missing": [], "censored": 0,
}  # fmt: skip


def verdict(name: str, profile: str = "laptop", stored: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """The verdict on a claim from the recorded results of its experiment, as a table for JSON.

    ``verdict`` is supported, refuted, undecided, or "not tested": for a draft, and while a cell that a statistic names
    lacks a run for a seed of the grid. ``mean``, ``low``, ``high`` are the t interval over seeds, ``bootstrap`` the
    one beside it, None where there are too few seeds; ``comparisons`` holds them for the kinds with several (with the
    ``p`` after Holm), ``secondary`` for the statistics that do not decide. ``changed``: the claim's text is no longer
    the one that the runs recorded; ``outdated``: the experiment is no longer the one that ran; ``stale``: a
    verification gave other numbers. ``stored`` replaces the recorded predictions.
    """
    claim = load(name)
    kept = (
        "statement",
        "kind",
        "lesson",
        "experiment",
        "direction",
        "threshold",
        "margin",
        "k",
        "confidence",
    )
    found: dict[str, Any] = {
        **{key: getattr(claim, key) for key in (*kept, "expected")},
        "claim": claim.id,
        "source": claim.source.model_dump(),
        "argument": claim.argument.model_dump() if claim.argument is not None else None,
        "verdict": claim.argument.conclusion if claim.argument is not None else "not tested",
        "changed": False,
        "outdated": False,
        "stale": False,
        "comparisons": [],
        "secondary": [],
        **NOTHING,
    }
    if claim.experiment is None:
        return found
    experiment = experiments.load(claim.experiment).at(profile)
    axes, lines = _axes(experiment), experiments.results(claim.experiment, profile)
    stored = experiments.predictions(claim.experiment, profile) if stored is None else stored
    kept_intervals = experiments.bootstrap_path(claim.experiment, profile)
    summary = files.read_json(kept_intervals).get(name, {}) if not stored and kept_intervals.is_file() else {}

    def measure(statistic: AnyStatistic) -> dict[str, Any]:
        numbers = per_seed(statistic, lines, axes)
        interval: dict[str, Any] = {}
        if len(numbers.seeds) >= 2:
            over_seeds = t_interval(numbers.values, claim.confidence)
            interval = {"mean": over_seeds.mean, "low": over_seeds.low, "high": over_seeds.high}
            grid = example_numbers(statistic, stored, lines, axes, numbers.seeds)
            if grid is not None:
                beside = hierarchical_bootstrap(grid, level=claim.confidence)
                interval["bootstrap"] = [beside.low, beside.high]
            elif statistic.name in summary:
                interval["bootstrap"] = summary[statistic.name]
        return NOTHING | interval | {
            "statistic": statistic.name,
            "seeds": list(numbers.seeds),
            "values": numbers.values.tolist(),
            "by_task": {task: float(v.mean()) for task, v in numbers.by_task.items() if len(v)},
            "missing": list(numbers.missing),
            "censored": numbers.censored,
        }  # fmt: skip

    if claim.statistic is not None:
        found |= measure(claim.statistic)
        if found["mean"] is not None and not found["missing"]:
            if claim.margin is not None:
                found["verdict"] = decide_equivalence(
                    np.array(found["values"]), claim.margin, claim.confidence
                )
            elif claim.threshold is not None and claim.direction is not None:
                over_seeds = Interval(found["mean"], found["low"], found["high"])
                found["verdict"] = decide(over_seeds, claim.threshold, claim.direction)
    if claim.comparisons is not None:
        parts = [
            measure(c.statistic)
            | {"direction": c.direction, "threshold": c.threshold, "verdict": "not tested", "p": None}
            for c in claim.comparisons
        ]
        found["missing"] = list(dict.fromkeys(cell for part in parts for cell in part["missing"]))
        found["seeds"] = sorted(set.intersection(*(set(part["seeds"]) for part in parts)))
        found["comparisons"] = parts
        if not found["missing"] and len(found["seeds"]) >= 2:
            found["verdict"], words, adjusted = decide_several(
                [np.array(part["values"]) for part in parts],
                [(c.direction, c.threshold) for c in claim.comparisons],
                claim.k or len(parts),
                claim.confidence,
            )
            for part, word, p in zip(parts, words, adjusted, strict=True):
                part |= {"verdict": word, "p": p}
    now = provenance.claims_sha([name])[name]
    return found | {
        "changed": any(line.get("claims", {}).get(name) != now for line in lines),
        "outdated": _outdated(experiment, lines),
        "stale": repeat.stale(experiment),
        "secondary": [measure(other) for other in claim.secondary],
    }


def keep_bootstraps(experiment: Experiment, profile: str, rows: list[dict[str, Any]]) -> None:
    """Write the bootstrap intervals of the experiment's claims, made from ``rows``: predictions too large for git.

    Without ``rows`` the file of an earlier run is removed, since the predictions themselves are there.
    """
    path = experiments.bootstrap_path(experiment.name, profile)
    if not rows:
        path.unlink(missing_ok=True)
        return
    rows = [{k: np.asarray(v) if k in experiments.BULKY else v for k, v in row.items()} for row in rows]
    found = {}
    for name in experiment.claims:
        each = verdict(name, profile, rows)
        parts = [each, *each["comparisons"], *each["secondary"]]
        found[name] = {
            part["statistic"]: part["bootstrap"] for part in parts if part["bootstrap"] is not None
        }
    files.write_json(path, found)


FLAGS = {
    "changed": "the claim's text has changed since these runs started",
    "outdated": "the experiment's code or settings have changed since these runs",
    "stale": "a verification of these runs gave other numbers",
}


def _sentence(found: Mapping[str, Any]) -> str:
    if found["mean"] is None:
        return f"{found['statistic']}: not tested, {len(found['seeds'])} complete seeds"
    mean, low, high = (round(found[key], 6) for key in ("mean", "low", "high"))  # as in the ledger
    text = f"{found['statistic']}: {mean:+.3f} [{low:+.3f}, {high:+.3f}]"
    if found["bootstrap"] is not None:
        text += ", bootstrap [{:+.3f}, {:+.3f}]".format(*found["bootstrap"])
    if found["censored"]:
        text += f", no crossing inside the axis for {found['censored']} seeds"
    tasks = "; ".join(f"{task} {round(value, 6):+.3f}" for task, value in found["by_task"].items())
    return f"{text} ({tasks})" if tasks else text


def _side(found: Mapping[str, Any]) -> str:
    if found.get("margin") is not None:
        return f"within ±{found['margin']:g}"
    return f"{'above' if found['direction'] == 'greater' else 'below'} {found['threshold']:g}"


def render(found: Mapping[str, Any]) -> str:
    """A verdict for a person: the claim, the word, the intervals that decide, then what stands beside them."""
    rows = [f"{found['claim']}: {found['statement']}"]
    basis = f"{found['confidence']:.0%} t interval over {len(found['seeds'])} seeds"
    if found["argument"] is not None:
        rows.append(
            f"{found['verdict']}, by argument: {found['argument']['text']} ({found['argument']['test']})"
        )
    elif found["experiment"] is None:
        rows.append("not tested: a draft, without an experiment")
    elif found["comparisons"]:
        parts, k = found["comparisons"], found["k"]
        rows.append(f"{found['verdict']} ({k or len(parts)} of {len(parts)} must hold after Holm; {basis})")
        for part in parts:
            p = "" if part["p"] is None else f", p = {part['p']:.3f} after Holm"
            rows.append(f"  {part['verdict']}: {_sentence(part)}; claimed to lie {_side(part)}{p}")
    else:
        tests = "two one-sided t tests, " if found["kind"] == "equivalence" else ""
        beside = "; in brackets: each task's mean" if found["by_task"] else ""
        rows.append(f"{found['verdict']} ({tests}{basis}, claimed to lie {_side(found)}{beside})")
        rows.append(f"  {_sentence(found)}")
    if found["secondary"]:
        rows.append("printed beside it, without a vote:")
        rows += [f"  {_sentence(other)}" for other in found["secondary"]]
    if missing := found["missing"]:
        rows.append(f"missing: {len(missing)} runs, the first: {missing[0]}")
    return "\n".join([*rows, *(text for flag, text in FLAGS.items() if found[flag])])


# --- the ledger ------------------------------------------------------------------------------------


def _path(pattern: str) -> str | None:
    root = find_root()
    found: list[Path] = sorted(root.glob(pattern))
    return found[0].relative_to(root).as_posix() if found else None


def ledger(profile: str = "laptop") -> list[dict[str, Any]]:
    """One row per claim, in the order of their numbers; numbers are rounded to six digits."""

    def short(found: Mapping[str, Any]) -> dict[str, Any]:
        ends = {
            key: found[key] for key in ("mean", "low", "high", "p", "threshold", "margin") if key in found
        }
        rounded = {key: None if value is None else round(value, 6) for key, value in ends.items()}
        kept = {key: found[key] for key in ("statistic", "verdict", "direction", "censored") if key in found}
        beside = None if found["bootstrap"] is None else [round(end, 6) for end in found["bootstrap"]]
        return rounded | kept | {"bootstrap": beside, "seeds": len(found["seeds"])}

    rows = []
    for name in names():
        found = verdict(name, profile)
        kept = (
            "claim",
            "statement",
            "source",
            "kind",
            "k",
            "confidence",
            "expected",
            "experiment",
            "argument",
        )
        stem = found["experiment"] if profile == "laptop" else f"{found['experiment']}.{profile}"
        row = {key: found[key] for key in kept} | short(found)
        row["comparisons"] = [short(part) for part in found["comparisons"]]
        row["secondary"] = [short(part) for part in found["secondary"]]
        row["missing"] = len(found["missing"])
        row["flags"] = [flag for flag in FLAGS if found[flag]]
        ran = found["experiment"] and experiments.results(found["experiment"], profile)
        row["table"] = f"data/results/tables/{stem}.md" if ran else None  # written after the ledger
        row["lesson"] = _path(f"notebooks/{found['lesson']}_*.ipynb") or "planned"
        rows.append(row)
    return rows


def write_ledger() -> Path:
    """Write data/results/ledger.json: the laptop profile's rows, the same bytes for the same results."""
    return files.write_json(find_root() / "data" / "results" / "ledger.json", ledger())
