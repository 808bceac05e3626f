"""An experiment as data: the models of data/experiments/<name>.toml, with every mistake as one sentence."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, PrivateAttr, ValidationError, model_validator

from instructlab_repro import provenance
from instructlab_repro.strict import Strict, sentence
from instructlab_utils.errors import ConfigError, ParameterError
from instructlab_utils.project import PROFILES

FOLDER = "data/experiments"
RESERVED = ("experiment", "profile", "stage", "method", "tuned", "block", "key", "revision", "schema")
PLAIN = re.compile(r"[A-Za-z0-9][\w.+-]*")

Value = str | int | float
Knob = dict[str, list[Value]]


class Tuning(Strict):
    """Where and with which values each method is tuned. ``values.METHOD.KNOB`` is a list; several knobs multiply."""

    at: dict[
        str, Value
    ]  # the coordinates of the tuning blocks; an axis that is not named here is tuned value by value
    metric: str
    better: Literal["higher", "lower"] = "higher"
    values: dict[str, Knob] = {}

    def settings(self, method: str) -> list[dict[str, Value]]:
        """What ``method`` tries, in order; [] for a method that is not tuned."""
        knobs = self.values.get(method, {})
        return [dict(zip(knobs, found, strict=True)) for found in itertools.product(*knobs.values()) if knobs]


class Resources(Strict):
    """What one block may use: minutes of wall time, MB of memory, threads, GPUs."""

    minutes: Annotated[float, Field(gt=0)]
    memory_mb: PositiveInt = 2000
    cores: PositiveInt = 1
    gpu: Annotated[int, Field(ge=0)] = 0


class Paper(Strict):
    """A column group of published numbers, shown beside ours and never ranked with them."""

    source: str  # authors, year, table
    model: str
    data: str
    metric: str
    evidence: Literal["read in the paper", "read in an abstract"]
    values: dict[str, dict[str, float]]  # column → method → number as printed


class Table(Strict):
    """One table: a row per method, a column per combination of the axes in ``columns``; seeds are averaged."""

    metric: str
    title: str
    better: Literal["higher", "lower"] = "higher"
    scale: float = 1.0  # the numbers are multiplied by this before they are printed
    unit: str = ""
    decimals: Annotated[int, Field(ge=0, le=6)] = 1
    columns: list[str] = []  # default: every axis but the seed
    paper: list[Paper] = []
    verdicts: dict[str, str] = {}  # method → claim


class Determinism(Strict):
    """Which blocks are run again under which conditions, to learn what stays the same to the last bit."""

    where: dict[str, list[Value]]
    workers: list[PositiveInt] = Field(min_length=1)
    threads: list[PositiveInt] = Field(min_length=1)


class Override(Strict):
    """What a profile may replace; tables are merged, lists are replaced."""

    axes: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    settings_by: dict[str, Any] = {}
    tuning: dict[str, Any] = {}
    resources: dict[str, Any] = {}


class Spec(Strict):
    """data/experiments/<name>.toml, validated; ``at(profile)`` gives the grid of one profile."""

    name: str
    title: str
    notebook: str
    revision: PositiveInt
    claims: list[str] = []
    methods: list[str] = Field(min_length=1)
    labels: dict[str, str] = {}
    notes: list[str] = []  # printed under the table
    axes: dict[str, list[Value]]
    inside: list[str] = []
    settings: dict[str, Any] = {}
    settings_by: dict[
        str, dict[str, dict[str, Any]]
    ] = {}  # axis → setting → value on the axis → setting's value
    tuning: Tuning | None = None
    resources: Resources
    tables: list[Table] = Field(min_length=1)
    determinism: Determinism | None = None
    profiles: dict[Literal["smoke", "laptop", "gpu"], Override] = {}

    _profile: str | None = PrivateAttr(None)
    _claims: dict[str, str] = PrivateAttr(default_factory=dict)
    _profiles: dict[str, Any] = PrivateAttr(default_factory=dict)  # profile → this spec with its overrides

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._check_axes()
        for method in self.labels:
            if method not in self.methods:
                raise ValueError(f"labels: {method!r} is not one of the methods")
        if self.tuning is not None:
            self._check_tuning(self.tuning)
        for axis, settings in self.settings_by.items():
            if axis not in self.axes or axis in self.inside:
                raise ValueError(f"settings_by: {axis!r} is not an axis that makes blocks")
            wanted = [*self.axes[axis]]
            if self.tuning is not None and axis in self.tuning.at:
                wanted.append(self.tuning.at[axis])
            for name, entries in settings.items():
                if name in self.settings:
                    raise ValueError(f"settings_by.{axis}.{name}: stands in settings too; keep one of them")
                if absent := [value for value in wanted if str(value) not in entries]:
                    raise ValueError(f"settings_by.{axis}.{name}: no value for {axis} = {absent[0]}")
        for number, table in enumerate(self.tables):
            self._check_table(f"tables.{number}", table)
        if self.determinism is not None and (strange := set(self.determinism.where) - set(self.axes)):
            raise ValueError(f"determinism.where: {sorted(strange)[0]!r} is not one of the axes")
        return self

    def _check_axes(self) -> None:
        if "seed" not in self.axes:
            raise ValueError("axes: there is no axis 'seed'; results need several")
        lists: dict[str, list[Any]] = {"methods": self.methods} | {
            f"axes.{a}": v for a, v in self.axes.items()
        }
        for name, values in lists.items():
            if not values:
                raise ValueError(f"{name}: is empty; name at least one value")
            if len(set(values)) != len(values):
                raise ValueError(f"{name}: names something twice")
            if len({type(value) for value in values}) > 1:
                raise ValueError(
                    f"{name}: mixes types; write all of them as text, or all as numbers of one kind"
                )
            for value in values:
                if isinstance(value, str) and not PLAIN.fullmatch(value):
                    raise ValueError(
                        f"{name}: {value!r} becomes a file's name; use letters, digits and . _ + -"
                    )
        for axis in self.axes:
            if axis in RESERVED or not axis.isidentifier():
                raise ValueError(f"axes: {axis!r} cannot be the name of an axis")
        if wrong := [seed for seed in self.axes["seed"] if not isinstance(seed, int) or seed < 0]:
            raise ValueError(f"axes.seed: {wrong[0]!r} is not a whole number, 0 or more")
        for axis in self.inside:
            if axis not in self.axes or axis == "seed":
                raise ValueError(f"inside: {axis!r} is not an axis that a block can loop over")

    def _check_tuning(self, tuning: Tuning) -> None:
        for axis in tuning.at:
            if axis not in self.axes:
                raise ValueError(f"tuning.at: {axis!r} is not one of the axes")
        if tuning.at.get("seed") is None:
            raise ValueError("tuning.at: no seed; tune on one that no result uses")
        if tuning.at["seed"] in self.axes["seed"]:
            raise ValueError(
                f"tuning.at: seed {tuning.at['seed']} is also a seed of the grid; choose another"
            )
        for method, knobs in tuning.values.items():
            if method not in self.methods:
                raise ValueError(f"tuning.values: {method!r} is not one of the methods")
            for knob, values in knobs.items():
                if len(set(values)) != len(values):
                    raise ValueError(f"tuning.values.{method}.{knob}: tries a value twice")
        if len(counts := {len(tuning.settings(method)) for method in tuning.values}) > 1:
            raise ValueError(
                f"tuning.values: every method must try equally many values, not {sorted(counts)}"
            )

    def _check_table(self, place: str, table: Table) -> None:
        for axis in table.columns:
            if axis not in self.axes or axis == "seed":
                raise ValueError(f"{place}.columns: {axis!r} is not an axis that a table can spread out")
        for method in table.verdicts:
            if method not in self.methods:
                raise ValueError(f"{place}.verdicts: {method!r} is not one of the methods")

    # --- one profile ---------------------------------------------------------------------------------------

    def at(self, profile: str) -> Self:
        """This experiment with the overrides of ``profile`` applied; remembers the claims' hashes of now.

        Raises:
            ParameterError: for an unknown profile.
            ConfigError: when the overrides do not fit, or a claim's file is not there.
        """
        if profile not in PROFILES:
            raise ParameterError(f"unknown profile {profile!r}: choose one of {', '.join(PROFILES)}")
        if profile not in self._profiles:
            self._profiles[profile] = self._merged(profile)
        chosen: Self = self._profiles[profile].model_copy(deep=True)
        chosen._profile, chosen._profiles = profile, self._profiles
        chosen._claims = provenance.claims_sha(chosen.claims)
        return chosen

    def _merged(self, profile: str) -> Self:
        fields = self.model_dump(exclude={"profiles"}, exclude_none=True)
        override = self.profiles.get(profile, Override())  # type: ignore[call-overload]
        for section, values in override:
            if values:
                fields[section] = _merge(fields.get(section, {}), values)
        return self.checked(fields, f"{FOLDER}/{self.name}.toml", f"profiles.{profile}.")

    @classmethod
    def checked(cls, fields: Mapping[str, Any], file: str, prefix: str = "") -> Self:
        """The model of ``fields``; ConfigError with the file and the key of the first mistake."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise ConfigError(sentence(error, file, prefix)) from None

    def copied(self) -> Self:
        """A copy that its holder may change; the specs of the profiles are shared, and copied by :meth:`at`."""
        shared, self._profiles = self._profiles, {}
        copy = self.model_copy(deep=True)
        self._profiles = copy._profiles = shared
        return copy

    @property
    def profile(self) -> str:
        if self._profile is None:
            raise ConfigError(f"{self.name}: choose a profile first, with .at(profile)")
        return self._profile


def _merge(base: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``extra`` on top; tables in tables are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in extra.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
