"""An experiment as data: the models of data/experiments/<name>.toml, with every mistake as one sentence."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, PrivateAttr, ValidationError, model_validator

from instructlab_repro import provenance
from instructlab_repro.experiments.tuning import FEWEST_SEEDS, Tuning, Value
from instructlab_repro.strict import Strict, sentence
from instructlab_utils.errors import ConfigError, ParameterError
from instructlab_utils.project import PROFILES

FOLDER = "data/experiments"
RESERVED = "experiment profile stage method method_key tuned block key revision schema".split()
PLAIN = re.compile(r"[A-Za-z0-9][\w.+-]*")


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


class Training(Strict):
    """When a run counts as trained: its loss has fallen below this share of its first value."""

    share: Annotated[float, Field(gt=0, le=1)] = 0.9


Section = Literal["axes", "settings", "settings_by", "tuning", "resources"]
Override = dict[Section, dict[str, Any]]  # what a profile may replace; tables are merged, lists are replaced


class Spec(Strict):
    """data/experiments/<name>.toml, validated; ``at(profile)`` gives the grid of one profile.

    ``methods`` is a list of names, or a table: ``[methods.lora_r8]`` with ``tuner = "Lora"`` and the tuner's
    parameters, of which ``"$steps"`` stands for the setting ``steps``, and ``{ task = { a = 1, b = 2 } }`` for a value by
    the axis ``task``. ``notes`` are printed under the table.
    ``settings_by`` is axis → setting → value on the axis → setting's value. ``twin`` says where rounding twins run;
    an axis that it leaves out stands at its first value.
    """

    name: str
    title: str
    notebook: str
    revision: PositiveInt
    claims: list[str] = []
    methods: list[str] = Field(min_length=1)
    labels: dict[str, str] = {}
    notes: list[str] = []
    axes: dict[str, list[Value]]
    inside: list[str] = []
    settings: dict[str, Any] = {}
    settings_by: dict[str, dict[str, dict[str, Any]]] = {}
    tuning: Tuning | None = None
    resources: Resources
    tables: list[Table] = Field(min_length=1)
    training: Training = Training()
    twin: dict[str, Value] | None = None
    profiles: dict[Literal["smoke", "laptop", "gpu"], Override] = {}

    _method_tables: dict[str, dict[str, Any]] = PrivateAttr(default_factory=dict)
    _profile: str | None = PrivateAttr(None)
    _claims: dict[str, str] = PrivateAttr(default_factory=dict)
    _file: Self | None = PrivateAttr(None)  # of a profile's spec: the one whose overrides were applied

    @model_validator(mode="wrap")
    @classmethod
    def _tabled(cls, fields: dict[str, Any], handler: Callable[[Any], Self]) -> Self:
        """Takes ``methods`` as a list or as a table."""
        tables = fields.get("methods")
        if not isinstance(tables, Mapping):
            return handler(fields)
        found = handler({**fields, "methods": list(tables)})
        settings = {*found.settings, *itertools.chain(*found.settings_by.values())}
        for method, table in tables.items():
            if not isinstance(table, Mapping) or not isinstance(table.get("tuner"), str):
                raise ValueError(f'methods.{method}: write a table with tuner = "..."')
            asked = [*table.values()]
            for parameter, cases in table.items():
                if isinstance(cases, Mapping):
                    where = f"methods.{method}.{parameter}"
                    _among(where, cases, found.outside, "axes that make blocks")
                    if len(cases) != 1:
                        raise ValueError(f"{where}: differs by {len(cases)} axes; choose one")
                    ((axis, by_value),) = cases.items()
                    found._check_entries(where, axis, by_value)
                    asked += by_value.values()
            names = (v[1:] for v in asked if isinstance(v, str) and v.startswith("$"))
            _among(f"methods.{method}", names, settings, "settings")
        found._method_tables = dict(tables)
        return found

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._check_axes()
        axes, methods = (self.axes, "axes"), (self.methods, "methods")
        _among("labels", self.labels, *methods)
        if self.tuning is not None:
            _among("tuning.at", self.tuning.at, *axes)
            _among("tuning.values", self.tuning.values, *methods)
            for group in self.tuning.same:
                _among("tuning.same", group, *methods)
            self.tuning.check(self.axes["seed"])
        self._check_settings()
        free = [axis for axis in self.axes if axis != "seed"]
        _among("inside", self.inside, free, "axes that a block can loop over")
        for number, table in enumerate(self.tables):
            _among(f"tables.{number}.columns", table.columns, free, "axes that a table can spread out")
            _among(f"tables.{number}.verdicts", table.verdicts, *methods)
        for axis, value in (self.twin or {}).items():
            _among("twin", [axis], *axes)
            _among(f"twin.{axis}", [value], self.axes[axis], "values on the axis; a twin repeats a run")
        return self

    @property
    def outside(self) -> list[str]:
        """The axes that make blocks, in the order of the file."""
        return [axis for axis in self.axes if axis not in self.inside]

    def _check_axes(self) -> None:
        if "seed" not in self.axes:
            raise ValueError("axes: there is no axis 'seed'; results need several")
        lists: dict[str, list[Any]] = {f"axes.{axis}": values for axis, values in self.axes.items()}
        for name, values in ({"methods": self.methods} | lists).items():
            if not values:
                raise ValueError(f"{name}: is empty; name at least one value")
            if len(set(values)) != len(values):
                raise ValueError(f"{name}: names something twice")
            if len({type(value) for value in values}) > 1:
                raise ValueError(f"{name}: mixes types; write all as text, or all as numbers of one kind")
            if odd := [value for value in values if isinstance(value, str) and not PLAIN.fullmatch(value)]:
                raise ValueError(f"{name}: {odd[0]!r} becomes a file's name; use letters, digits, . _ + -")
        for axis in self.axes:
            if axis in RESERVED or not axis.isidentifier():
                raise ValueError(f"axes: {axis!r} cannot be the name of an axis")
        if wrong := [seed for seed in self.axes["seed"] if not isinstance(seed, int) or seed < 0]:
            raise ValueError(f"axes.seed: {wrong[0]!r} is not a whole number, 0 or more")

    def _check_settings(self) -> None:
        _among("settings_by", self.settings_by, self.outside, "axes that make blocks")
        for axis, settings in self.settings_by.items():
            for name, by_value in settings.items():
                where = f"settings_by.{axis}.{name}"
                if name in self.settings:
                    raise ValueError(f"{where}: stands in settings too; keep one of them")
                self._check_entries(where, axis, by_value)

    def _check_entries(self, where: str, axis: str, by_value: Mapping[str, Any]) -> None:
        """ValueError, which names ``where``, if a value on ``axis``, of the grid or of the tuning, has no entry."""
        wanted = [*self.axes[axis], *(self.tuning.places.get(axis, ()) if self.tuning else ())]
        if absent := [value for value in wanted if str(value) not in by_value]:
            raise ValueError(f"{where}: no value for {axis} = {absent[0]}")

    # --- one profile ---------------------------------------------------------------------------------------

    def at(self, profile: str) -> Self:
        """This experiment with the overrides of ``profile`` applied; remembers the claims' hashes of now.

        ParameterError for an unknown profile; ConfigError when the overrides do not fit, or a claim has no file.
        """
        if profile not in PROFILES:
            raise ParameterError(f"unknown profile {profile!r}: choose one of {', '.join(PROFILES)}")
        base = self._file or self
        fields = base.model_dump(exclude={"profiles"}, exclude_none=True)
        fields["methods"] = base._method_tables or fields["methods"]
        for section, values in base.profiles.get(profile, {}).items():  # type: ignore[call-overload]
            fields[section] = _merge(fields.get(section, {}), values)
        file, seeds = f"{FOLDER}/{self.name}.toml", (fields.get("tuning") or {}).get("seeds", [])
        if profile == "smoke":
            seeds[1:] = []  # no result: one seed shows that it runs, and a twin anywhere
            fields |= {"twin": {}} if base.twin else {}
        elif 0 < len(seeds) < FEWEST_SEEDS:
            raise ConfigError(f"{file}: tuning.seeds: name at least {FEWEST_SEEDS}, not {len(seeds)}.")
        found = self.checked(fields, file, f"profiles.{profile}.")
        found._profile, found._file = profile, base
        found._claims = provenance.claims_sha(found.claims)
        return found

    @classmethod
    def checked(cls, fields: Mapping[str, Any], file: str, prefix: str = "") -> Self:
        """The model of ``fields``; ConfigError with the file and the key of the first mistake."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise ConfigError(sentence(error, file, prefix)) from None

    @property
    def profile(self) -> str:
        if self._profile is None:
            raise ConfigError(f"{self.name}: choose a profile first, with .at(profile)")
        return self._profile


def _among(place: str, names: Iterable[Value], known: Collection[Value], kind: str) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{place}: {name!r} is not one of the {kind}")


def _merge(base: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``extra`` on top; tables in tables are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in extra.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def trains(line: Mapping[str, Any]) -> bool:
    """Whether the run trained a network at all: a majority class is not a failure to train."""
    signs = ("first_loss", "train_loss", "steps", "updates", "diverged")
    return any(line.get(sign) for sign in signs) or "learning_rate" in line.get("tuned", {})


def did_not_train(line: Mapping[str, Any], experiment: Spec) -> bool:
    """Whether a run diverged, kept the stated share of its first loss, or predicts one class (its ``one_class``).

    A line of the first edition has no ``first_loss``; there only the predictions can tell.
    """
    if not trains(line):
        return False
    first, last = line.get("first_loss"), line.get("train_loss")
    stuck = first is not None and (last is None or not last <= experiment.training.share * first)
    return bool(line.get("diverged") or line.get("one_class") or stuck)
