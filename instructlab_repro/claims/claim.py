"""A claim's file: who says what, which statistics test it, and whether its experiment measures them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, ValidationError, model_validator

from instructlab_repro import experiments
from instructlab_repro.claims.statistic import KINDS, Along, AnyStatistic, Axes, RankCorrelation
from instructlab_repro.experiments import Experiment, Value, stored
from instructlab_repro.strict import Strict, read_toml, sentence
from instructlab_utils.errors import ConfigError
from instructlab_utils.project import closest, find_root, text_of

FOLDER = "data/claims"

Direction = Literal["greater", "less"]
NEEDS = {
    "difference": ("statistic", "direction", "threshold"),
    "equivalence": ("statistic", "margin"),
    "conjunction": ("comparisons",),
    "k-of-n": ("comparisons", "k"),
    "argument": ("argument",),
}


class Origin(Strict):
    """Who says it, where, and on what evidence."""

    work: str
    place: str
    evidence: Literal["measured", "cited", "asserted", "fabricated"]


class Part(Strict):
    """One part of a conjunction or of k-of-n."""

    statistic: AnyStatistic
    direction: Direction
    threshold: float


class Argument(Strict):
    """No run decides, a test does: it fails when the argument no longer holds."""

    test: str  # "tests/test_x.py::test_y"
    text: str
    conclusion: Literal["supported", "refuted"]


class Power(Strict):
    """What is fixed before a run of the second edition.

    ``smallest`` is the smallest effect of interest, in the statistic's unit. ``items``: each seed has test items of its
    own; without it the stored targets decide. ``sides``: "one" gives "supported" the one-sided test.
    """

    smallest: Annotated[float, Field(gt=0)]
    items: bool | None = None
    sides: Literal["one", "two"] = "two"


class Edition(Strict):
    """``why`` there is a second edition, in a sentence; ``first`` is the first one's id where it had another."""

    why: Annotated[str, Field(min_length=1)]
    first: str | None = None


class Claim(Strict):
    """data/claims/<id>.toml. ``expected`` is what we thought before the run; it has no influence.

    ``unit`` is what the interval draws: seeds (and the items that they share), or where nothing is trained items or
    tasks, or the methods of a rank correlation. Without experiment and argument it is a draft, and may lack what its
    kind needs.
    """

    id: str
    statement: str
    kind: Literal["difference", "equivalence", "conjunction", "k-of-n", "argument"]
    lesson: Annotated[str, Field(pattern=r"^\d\d$")]
    source: Origin
    expected: Literal["supported", "refuted", "undecided", "unknown"]
    experiment: str | None = None
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    direction: Direction | None = None
    threshold: float | None = None
    margin: Annotated[float, Field(gt=0)] | None = None
    k: PositiveInt | None = None
    statistic: AnyStatistic | None = None
    comparisons: Annotated[list[Part], Field(min_length=2)] | None = None
    secondary: list[AnyStatistic] = []
    argument: Argument | None = None
    power: Power | None = None
    edition: Edition | None = None
    unit: Literal["seed", "item", "task", "method"] = "seed"

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
        if wrong := [s.name for s in self.deciding if not fits_unit(s, self.unit)]:
            raise ValueError(f"unit: {wrong[0]!r} has no number for each {self.unit}; choose another unit")
        return self

    @property
    def parts(self) -> list[Part]:
        """What the verdict stands on: the comparisons, or the one statistic (a margin needs no side). [] for a draft."""
        if self.comparisons is not None or self.statistic is None:
            return self.comparisons or []
        direction, threshold = self.direction or "greater", self.threshold or 0.0
        return [Part(statistic=self.statistic, direction=direction, threshold=threshold)]

    @property
    def deciding(self) -> list[AnyStatistic]:
        return [part.statistic for part in self.parts]

    @property
    def statistics(self) -> dict[str, AnyStatistic]:
        """Place in the file → statistic, for all of them."""
        found = {"statistic": self.statistic} if self.statistic is not None else {}
        found |= {f"comparisons.{i}.statistic": c.statistic for i, c in enumerate(self.comparisons or ())}
        return found | {f"secondary.{i}": statistic for i, statistic in enumerate(self.secondary)}


def fits_unit(statistic: AnyStatistic, unit: str) -> bool:
    """Whether ``statistic`` gives a number for each ``unit``."""
    if unit == "method":
        return isinstance(statistic, RankCorrelation) and statistic.axis == "method"
    return {"seed": True, "item": statistic.per_example, "task": "task" in statistic.over}[unit]


def methods_of(claim: Claim, experiment: Experiment) -> set[str]:
    """The methods whose runs the verdict leans on."""
    found: set[str] = set()
    for statistic in claim.deciding:
        cells = [where for where, _ in statistic.curves.values()] + statistic.points(axes_of(experiment))
        found |= set(experiment.methods) if "method" in statistic.over else set()
        found |= {str(cell["method"]) for cell in cells if "method" in cell}
    return found


def names() -> list[str]:
    """The ids of all claims, C2 before C10; those of the articles (C) before those of other works (another letter)."""
    found = [path.stem for path in (find_root() / FOLDER).glob("*.toml")]
    return sorted(found, key=lambda name: (name[0] != "C", name[0], len(name), name))


@lru_cache(maxsize=512)
def _parsed(path: Path, folder: str, _: tuple[int, ...]) -> dict[str, Any]:
    return read_toml(path, f"{folder}/{path.name}")


def _toml(path: Path, folder: str) -> dict[str, Any]:
    """A TOML file of ``folder``, not to be changed; read once per version of it."""
    return _parsed(path, folder, stored.version(path))


def load(name: str) -> Claim:
    """The claim of data/claims/<name>.toml, checked against its experiment or its test; read once per version.

    Raises:
        ConfigError: for an unknown claim, and for a mistake in its file (one sentence with its key).
    """
    root, file = find_root(), f"{FOLDER}/{name}.toml"
    if not (root / file).is_file():
        known = names()
        raise ConfigError(f"unknown claim {name!r}{closest(name, known)}; known: {', '.join(known)}")
    try:
        claim = Claim.model_validate(_toml(root / file, FOLDER))
    except ValidationError as error:
        # pydantic puts the kind into the path of a key
        kinds = rf"\.({'|'.join(sorted(KINDS))})(?=[.:'])"
        raise ConfigError(re.sub(kinds, "", sentence(error, file))) from None
    if claim.id != name:
        raise ConfigError(f"{file}: id is {claim.id!r}, the file is called {name!r}; make them equal.")
    for path in sorted((root / experiments.FOLDER).glob("*.toml")):
        listed = name in _toml(path, experiments.FOLDER).get("claims", ())
        named = claim.experiment == path.stem
        where = f"{file}: experiment: {experiments.FOLDER}/{path.name}"
        if listed and not named:
            raise ConfigError(f"{where} lists this claim; name {path.stem!r} here.")
        if named and not listed:
            raise ConfigError(f"{where} does not list {name}; add it to its claims.")
    if claim.argument is not None:
        _check_test(file, claim.argument.test)
    if claim.experiment is not None:
        axes = axes_of(experiments.load(claim.experiment).at("laptop"))
        for key, statistic in claim.statistics.items():
            for problem in _problems(statistic, axes):
                raise ConfigError(f"{file}: {key}.{problem}.")
    return claim


def _check_test(file: str, test: str) -> None:
    place, _, function = test.partition("::")
    path = find_root() / place
    text = text_of(path) if path.is_file() else ""
    if not re.search(rf"^def {re.escape(function)}\(", text, re.MULTILINE):
        raise ConfigError(f"{file}: argument.test: there is no {test!r}; write that test first.")


def axes_of(experiment: Experiment) -> dict[str, list[Value]]:
    """The experiment's axes, with "method" as one more."""
    return {**experiment.axes, "method": list(experiment.methods)}


def _problems(statistic: AnyStatistic, axes: Axes) -> Iterator[str]:
    """What the experiment does not run, or the statistic leaves open, of what the statistic names."""
    free = [name for name in axes if name != "seed"]
    along = [statistic.axis] if isinstance(statistic, Along) else []
    curves = {key: where for key, (where, _) in statistic.curves.items()}
    for key, mentioned in {"over": statistic.over, "axis": along, **curves}.items():
        for name in mentioned:
            if name not in free:
                yield f"{key}: {name!r} is not an axis{closest(name, free)}; known: {', '.join(free)}"
    fixed = [(f"{key}.{name}", name, value) for key, where in curves.items() for name, value in where.items()]
    walked = [("values", statistic.axis, v) for v in statistic.values] if isinstance(statistic, Along) else []
    for key, name, value in fixed + walked:
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
