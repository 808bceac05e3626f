"""An experiment as data: the grid of data/experiments/<name>.toml, its blocks, keys and results.

A *block* is one execution of the experiment's notebook: one point on every axis, except the axes that ``inside``
names, over which the notebook loops itself, as it does over the methods. So models load once and comparisons are
paired. A ``tune`` block comes first: every tuned method tries equally many values, on coordinates that no result
uses, and a metric of the dev set decides.

A block's key is the SHA-256 of the notebook's code cells and of the part of the TOML that the block uses. Prose, new
seeds, methods or tasks, and changes of the package leave it as it is; ``revision`` changes it on purpose.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, PrivateAttr, ValidationError, model_validator

from instructlab_repro import provenance
from instructlab_repro.strict import Strict, read_toml, sentence
from instructlab_utils import files
from instructlab_utils.errors import ConfigError, ParameterError, RecordError
from instructlab_utils.project import PROFILES, closest, find_root

if TYPE_CHECKING:
    from instructlab_repro.notebooks.runner import Manifest

FOLDER = "data/experiments"
REMEDY = "restore the file from git, or delete it and run again"  # for a damaged file of results
MAX_PREDICTIONS = 200 * 1024  # bytes in git, per experiment
BULKY = (
    "predictions",
    "targets",
    "scores",
)  # fields that go to the Parquet file: one number per test example
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


@dataclass(frozen=True)
class Block:
    """One job: its coordinates, its folder under build/, and the blocks that must be there before it."""

    experiment: str
    profile: str
    id: str
    stage: str
    coordinates: Mapping[str, Value]
    needs: tuple[str, ...] = ()
    under: str = "runs"  # a repetition, whose lines are compared and never become results, has another place

    @property
    def out(self) -> Path:
        return find_root() / "build" / self.under / self.experiment / self.profile / self.id

    @property
    def parameters(self) -> dict[str, Any]:
        """What the experiment notebook is given."""
        return {
            "profile": self.profile,
            **({} if (find_root() / f"notebooks/experiments/source/{self.experiment}.py").is_file() else {"experiment": self.experiment}),
            "stage": self.stage,
            **self.coordinates,
        }

    def where(self) -> str:
        """For a person: "movie-sentiment · n_train = 50 · seed = 0"."""
        parts = (v if isinstance(v, str) else f"{axis} = {v:g}" for axis, v in self.coordinates.items())
        return " · ".join(parts)


@dataclass(frozen=True)
class Trial:
    """One run inside a block: a method, its place on the axes inside the block, and the values of its knobs."""

    block_key: str
    method: str
    inside: Mapping[str, Value]
    tuned: Mapping[str, Value]
    twin: bool = False

    @property
    def key(self) -> dict[str, Any]:
        """The fields that tell this run's line from all others of its block."""
        return {"key": self.block_key, "method": self.method, **self.inside, "tuned": dict(self.tuned)}


class Experiment(Strict):
    """data/experiments/<name>.toml, validated; ``at(profile)`` gives the grid of one profile."""

    name: str
    title: str
    notebook: str
    revision: PositiveInt
    claims: list[str] = []
    methods: list[str] = Field(min_length=1)
    tables_of: dict[str, dict[str, Any]] = {}
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

    @model_validator(mode="before")
    @classmethod
    def _split_methods(cls, fields: Any) -> Any:
        if isinstance(fields.get("methods"), dict):
            return fields | {"methods": list(fields["methods"]), "tables_of": fields["methods"]}
        return fields

    def method(self, name: str) -> dict[str, Any]:
        """The table [methods.NAME], with settings in place of their names."""
        table = self.tables_of[name]
        return {
            k: self.settings[v[1:]] if isinstance(v, str) and v.startswith("$") else v
            for k, v in table.items()
        }

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
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

    def at(self, profile: str) -> Experiment:
        """This experiment with the overrides of ``profile`` applied; remembers the claims' hashes of now.

        Raises:
            ParameterError: for an unknown profile.
            ConfigError: when the overrides do not fit, or a claim's file is not there.
        """
        if profile not in PROFILES:
            raise ParameterError(f"unknown profile {profile!r}: choose one of {', '.join(PROFILES)}")
        fields = self.model_dump(exclude={"profiles"}, exclude_none=True)
        override = self.profiles.get(profile, Override())  # type: ignore[call-overload]
        for section, values in override:
            if values:
                fields[section] = _merge(fields.get(section, {}), values)
        chosen = _validate(fields, f"{FOLDER}/{self.name}.toml", f"profiles.{profile}.")
        chosen._profile = profile
        chosen._claims = provenance.claims_sha(chosen.claims)
        return chosen

    @property
    def profile(self) -> str:
        if self._profile is None:
            raise ConfigError(f"{self.name}: choose a profile first, with .at(profile)")
        return self._profile

    @property
    def outside(self) -> list[str]:
        """The axes that make blocks, in the order of the file."""
        return [axis for axis in self.axes if axis not in self.inside]

    def settings_of(self, block: Block) -> SimpleNamespace:
        """The settings of one block: those of [settings], and its own entries of [settings_by].

        Raises:
            ConfigError: for coordinates (tried in Jupyter, say) that [settings_by] does not know.
        """
        found = dict(self.settings)
        for axis, settings in self.settings_by.items():
            value = block.coordinates[axis]
            for name, table in settings.items():
                if str(value) not in table:
                    raise ConfigError(
                        f"{FOLDER}/{self.name}.toml: settings_by.{axis}.{name} has no entry for {axis} = {value}; "
                        f"known: {', '.join(table)}"
                    )
                found[name] = table[str(value)]
        return SimpleNamespace(**found)

    def block(self, *, stage: str = "run", **coordinates: Value) -> Block:
        """The block at these coordinates, in the grid or (for playing in Jupyter) outside it."""
        if stage not in ("tune", "run"):
            raise ParameterError(f"unknown stage {stage!r}: choose tune or run")
        if set(coordinates) != set(self.outside):
            raise ParameterError(
                f"{self.name}: a block needs {', '.join(self.outside)}, not {', '.join(coordinates)}"
            )
        for axis, value in coordinates.items():
            if isinstance(value, str) and value not in self.axes[axis]:
                known = [str(v) for v in self.axes[axis]]
                raise ParameterError(
                    f"unknown {axis} {value!r}{closest(value, known)}; known: {', '.join(known)}"
                )
        place = {axis: coordinates[axis] for axis in self.outside}
        tuned = self.tuning
        free = {a: v for a, v in place.items() if tuned is not None and a not in tuned.at}
        tune = "-".join(["tune", *(_part(axis, value) for axis, value in free.items())])
        if stage == "tune":
            return Block(self.name, self.profile, tune, stage, place)
        name = "-".join(_part(axis, value) for axis, value in place.items())
        return Block(self.name, self.profile, name, stage, place, (tune,) if tuned is not None else ())

    def blocks(self) -> list[Block]:
        """All blocks, the tuning ones first."""
        found: dict[str, Block] = {}
        for stage in ("tune", "run") if self.tuning is not None else ("run",):
            fixed = self.tuning.at if stage == "tune" and self.tuning is not None else {}
            grid = ([fixed[axis]] if axis in fixed else self.axes[axis] for axis in self.outside)
            for place in itertools.product(*grid):
                block = self.block(stage=stage, **dict(zip(self.outside, place, strict=True)))
                if found.setdefault(block.id, block) != block:
                    raise ConfigError(
                        f"{FOLDER}/{self.name}.toml: two blocks would be called {block.id!r}; rename a value."
                    )
        return list(found.values())

    def _tune_block(self, block: Block) -> Block:
        """The tuning block that ``block`` needs, also for coordinates outside the grid."""
        assert self.tuning is not None
        return self.block(stage="tune", **{a: self.tuning.at.get(a, v) for a, v in block.coordinates.items()})

    def key(self, block: Block) -> str:
        """SHA-256 of the notebook's code cells and of the settings that this block uses."""
        used: dict[str, Any] = {
            "code": notebook_code_sha(self.notebook),
            "revision": self.revision,
            "profile": block.profile,
            "stage": block.stage,
            "coordinates": dict(block.coordinates),
            "settings": vars(self.settings_of(block)),
        }
        if block.stage == "tune" and self.tuning is not None:
            used["tuning"] = {**self.tuning.model_dump(), "at": None}
        elif self.tuning is not None:
            used["tuning"] = self.key(self._tune_block(block))
        return hashlib.sha256(files.dumps(used).encode()).hexdigest()

    def _insides(self, fixed: Mapping[str, Value] | None = None) -> list[dict[str, Value]]:
        grid = ([fixed[axis]] if fixed and axis in fixed else self.axes[axis] for axis in self.inside)
        return [dict(zip(self.inside, place, strict=True)) for place in itertools.product(*grid)]

    def trials(self, block: Block) -> list[Trial]:
        """What the block must run, in order.

        Raises:
            RecordError: for a run block before its tuning block has finished.
        """
        key, tuned = self.key(block), self.tuning
        if block.stage == "tune":
            assert tuned is not None
            places = self._insides(tuned.at)
            return [
                Trial(key, method, inside, values)
                for method in self.methods
                for inside in places
                for values in tuned.settings(method)
            ]
        if tuned is None or not tuned.values:
            return [Trial(key, method, inside, {}) for method in self.methods for inside in self._insides()]
        tune = self._tune_block(block)
        lines = self.lines(tune)
        if lines is None:
            raise RecordError(
                f"{self.name}: no tuned values for {block.id} in profile {self.profile}; first run "
                f"`python -m instructlab_utils block {self.name} {tune.id} --profile {self.profile}`"
            )
        best = self._choose(lines)
        free = [axis for axis in self.inside if axis not in tuned.at]
        return [
            Trial(key, method, inside, best.get((method, *(inside[axis] for axis in free)), {}))
            for method in self.methods
            for inside in self._insides()
        ]

    def _choose(self, lines: Iterable[Mapping[str, Any]]) -> dict[tuple, dict[str, Value]]:
        """(method, place on the axes inside) → the values with the best metric; of equals the first that was tried."""
        assert self.tuning is not None
        sign = -1 if self.tuning.better == "higher" else 1
        free = [axis for axis in self.inside if axis not in self.tuning.at]
        tried: dict[tuple, list[tuple[float, int, dict[str, Value]]]] = defaultdict(list)
        for line in lines:
            order = self.tuning.settings(line["method"]).index(line["tuned"])
            cell = (line["method"], *(line[axis] for axis in free))
            tried[cell].append((sign * line[self.tuning.metric], order, line["tuned"]))
        return {cell: min(results, key=lambda r: r[:2])[2] for cell, results in tried.items()}

    def identity(self, block: Block) -> dict[str, Any]:
        """The fields that every line of the block repeats; the claims' hashes are those of ``at``."""
        return {
            "schema": provenance.SCHEMA,
            "experiment": self.name,
            "revision": self.revision,
            "key": self.key(block),
            "block": block.id,
            "stage": block.stage,
            **block.coordinates,
            "profile": self.profile,
            "claims": self._claims,
            "code": notebook_code_sha(self.notebook)[:16],
            "settings": vars(self.settings_of(block)),
            "assets": self._asset_pins(),
            "environment": provenance.short_environment(),
        }

    def _asset_pins(self) -> dict[str, str]:
        """The first digits of the pins of the models and data that the notebook declares."""
        from instructlab_repro import assets, notebooks

        declared = notebooks.find(self.notebook).assets
        known = assets.catalogue() if declared else {}
        return {name: known[name].pin[:16] for name in declared if name in known}

    # --- what is there -------------------------------------------------------------------------------------

    def expected_seconds(self, block: Block) -> float | None:
        """How long the block took when it last ran, of whatever key; else the median of its stage; else None."""
        import statistics

        with contextlib.suppress(RecordError, ValueError, KeyError):
            manifest = files.read_json(block.out / "manifest.json")
            if manifest["status"] == "ok":
                return float(manifest["seconds"])
        rows = _rows_by_block(results_path(self.name, self.profile))
        known = {name: found[0] for name, found in rows.items() if found[0].get("block_seconds")}
        if block.id in known:
            return known[block.id]["block_seconds"]
        like = [line["block_seconds"] for line in known.values() if line["stage"] == block.stage]
        return statistics.median(like) if like else None

    def lines(self, block: Block) -> list[dict] | None:
        """The finished block's lines, one per trial: from build/, else the committed results; else None."""
        return self._built(block)[0] or self._committed(block)

    def _built(self, block: Block) -> tuple[list[dict] | None, str]:
        """The lines under build/ if the block is finished and of the present key; else None, and why."""
        from instructlab_repro.notebooks.runner import read_manifest

        if not (block.out / "manifest.json").is_file():
            return None, "not run"
        try:
            manifest = read_manifest(block.out)
            stored = files.read_lines(block.out / "lines.jsonl")
        except RecordError as error:
            return None, str(error)
        if manifest.status != "ok":
            reason = (manifest.error or {}).get("message", "")
            state = "was cut off, or is going on" if manifest.status == "running" else manifest.status
            return None, f"its last run {state}" + (f": {reason}" if reason else "")
        if bad := [line for line in stored if line.get("schema") != provenance.SCHEMA]:
            return (
                None,
                f"{block.id}: a line of schema {bad[0].get('schema')!r}, known is {provenance.SCHEMA}",
            )
        key = self.key(block)
        current = [line for line in stored if line.get("key") == key]
        if stored and not current:
            return None, "the experiment's code or settings have changed"
        return self._complete(block, current)

    def _complete(self, block: Block, lines: list[dict]) -> tuple[list[dict] | None, str]:
        """``lines`` in the order of the trials, or None when one is missing."""
        if not lines:
            return None, "no lines"
        try:
            trials = self.trials(block)
        except RecordError:
            return None, "its tuning block has not finished"
        found = []
        for trial in trials:
            line = next((x for x in lines if all(x.get(k) == v for k, v in trial.key.items())), None)
            if line is None:
                return None, f"no line for {trial.method}"
            found.append(line)
        return found, ""

    def _committed(self, block: Block) -> list[dict] | None:
        """Lines of the results file count as done when their key is the present one."""
        rows = _rows_by_block(results_path(self.name, self.profile)).get(block.id, [])
        key = self.key(block) if rows else ""
        return self._complete(block, [row for row in rows if row.get("key") == key])[0]


def _part(axis: str, value: Value) -> str:
    """A coordinate in a block's name: text as it is, a number after the axis' first letter."""
    return value if isinstance(value, str) else f"{axis[0]}{value:g}"


# --- reading the TOML -----------------------------------------------------------------------------


def _merge(base: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``extra`` on top; tables in tables are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in extra.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _validate(fields: Mapping[str, Any], file: str, prefix: str = "") -> Experiment:
    try:
        return Experiment.model_validate(fields)
    except ValidationError as error:
        raise ConfigError(sentence(error, file, prefix)) from None


def names() -> list[str]:
    """All experiments, by name."""
    return sorted(path.stem for path in (find_root() / FOLDER).glob("*.toml"))


def load(name: str) -> Experiment:
    """The experiment of data/experiments/<name>.toml, with every profile checked.

    Raises:
        ConfigError: for an unknown experiment, and for a mistake in its file (one sentence with its key).
    """
    file = f"{FOLDER}/{name}.toml"
    path = find_root() / file
    if not path.is_file():
        known = names()
        raise ConfigError(
            f"unknown experiment {name!r}{closest(name, known)}; known: {', '.join(known) or 'none'}"
        )
    experiment = _validate(read_toml(path, file), file)
    if experiment.name != name:
        raise ConfigError(
            f"{file}: name is {experiment.name!r}, but the file is called {name!r}; make them equal."
        )
    for profile in PROFILES:
        experiment.at(profile)
    return experiment


@lru_cache(maxsize=64)
def _code_sha(path: Path, _: tuple[int, int]) -> str:
    from instructlab_repro import notebooks

    return notebooks.code_sha(path)


def notebook_path(notebook: str) -> Path:
    """The experiment's .ipynb; its text source while the .ipynb is not built."""
    folder = find_root() / "notebooks" / "experiments"
    built, source = folder / f"{notebook}.ipynb", folder / "source" / f"{notebook}.py"
    if not built.is_file() and not source.is_file():
        raise ConfigError(
            f"notebooks/experiments/source/{notebook}.py: no such experiment notebook; write it first."
        )
    return built if built.is_file() else source


def notebook_code_sha(notebook: str) -> str:
    """SHA-256 of the code cells of the experiment notebook; read once per process and version of the file."""
    path = notebook_path(notebook)
    stat = path.stat()
    return _code_sha(path, (stat.st_mtime_ns, stat.st_size))


# --- a short form ----------------------------------------------------------------------------------


def blocks(experiment: Experiment, profile: str) -> list[Block]:
    """All blocks of a profile, the tuning ones first."""
    return experiment.at(profile).blocks()


# --- running one block ----------------------------------------------------------------------------


def find_block(name: str, block: str, profile: str) -> tuple[Experiment, Block]:
    """An experiment at a profile and one of its blocks; ConfigError naming the known blocks."""
    experiment = load(name).at(profile)
    for candidate in experiment.blocks():
        if candidate.id == block:
            return experiment, candidate
    known = [candidate.id for candidate in experiment.blocks()]
    shown = ", ".join(known[:6]) + (" …" if len(known) > 6 else "")
    raise ConfigError(f"unknown block {block!r} of {name}{closest(block, known)}; known: {shown}")


def run_block(
    name: str,
    block: str,
    profile: str,
    *,
    fresh: bool = False,
    under: str = "runs",
    threads: int | None = None,
) -> Manifest:
    """Run one block, going on where an interrupted execution stopped; a finished block is left as it is.

    The manifest says how it ended; a notebook that ends without all its lines counts as failed. ``under`` is the
    folder of build/ that gets the lines: only those under ``runs`` become results.

    Raises:
        ConfigError: for an unknown experiment or block.
        RecordError: before its tuning block has finished.
    """
    from instructlab_repro import notebooks
    from instructlab_repro.notebooks import runner

    experiment, chosen = find_block(name, block, profile)
    chosen = replace(chosen, under=under)
    out = chosen.out
    if not fresh and experiment._built(chosen)[0] is not None:
        return runner.read_manifest(out)
    experiment.trials(chosen)  # says so if the tuned values are not there yet
    path = out / "lines.jsonl"
    if path.is_file():
        key = experiment.key(chosen)
        kept = [] if fresh else [line for line in files.salvage(path) if line.get("key") == key]
        files.write_lines(path, kept)
    if notebook_path(experiment.notebook).suffix == ".py":
        notebooks.build([experiment.notebook])
    manifest = runner.run_notebook(
        notebook_path(experiment.notebook),
        out,
        chosen.parameters,
        timeout=experiment.resources.minutes * 60,
        env={"INSTRUCTLAB_RUN_DIR": str(out), "INSTRUCTLAB_ROOT": str(find_root())},
        threads=threads or experiment.resources.cores,
    )
    if manifest.status == "ok":
        lines, reason = experiment._built(chosen)
        if lines is None:
            manifest.status = "failed"
            manifest.error = {"cell": None, "source": "", "name": "RecordError", "message": reason}
            manifest.write(out)
    return manifest


# --- results --------------------------------------------------------------------------------------


def results_path(name: str, profile: str = "laptop") -> Path:
    """Where the lines of all runs stand. Only a laptop or gpu run is a result; smoke stays under build/."""
    if profile == "smoke":
        return find_root() / "build" / "results" / f"{name}.smoke.jsonl"
    suffix = "" if profile == "laptop" else f".{profile}"
    return find_root() / "data" / "results" / f"{name}{suffix}.jsonl"


def predictions_path(name: str, profile: str = "laptop") -> Path:
    """The predicted and true labels of the test examples, beside the lines."""
    return results_path(name, profile).with_suffix(".predictions.parquet")


def bootstrap_path(name: str, profile: str = "laptop") -> Path:
    """Claim → statistic → interval of the bootstrap, where the predictions are too large for git."""
    return results_path(name, profile).with_suffix(".bootstrap.json")


def results(name: str, profile: str = "laptop", stage: str = "run") -> list[dict]:
    """The recorded lines of one stage; [] when the experiment has not run."""
    path = results_path(name, profile)
    return [line for line in files.read_lines(path, remedy=REMEDY) if line.get("stage") == stage]


def predictions(name: str, profile: str = "laptop") -> list[dict[str, Any]]:
    """What the runs said about each test example: the coordinates of a line, and arrays of shape (test,).

    ``predictions`` and ``targets`` are integers, ``scores`` floats; what a run did not record is absent.
    """
    import numpy as np
    import pyarrow.parquet as parquet

    path = predictions_path(name, profile)
    if not path.is_file():
        return []
    try:
        rows = parquet.read_table(path).to_pylist()
    except OSError as error:
        raise RecordError(f"{path}: not a readable Parquet file ({error}); restore it from git.") from None
    arrays = ({k: np.array(row[k]) for k in BULKY if row.get(k) is not None} for row in rows)
    return [
        {k: v for k, v in row.items() if k not in BULKY} | found
        for row, found in zip(rows, arrays, strict=True)
    ]


_ROWS: dict[Path, tuple[tuple[int, int], dict[str, list[dict]]]] = {}


def _rows_by_block(path: Path) -> dict[str, list[dict]]:
    """Lines of a results file by block, read once per version of the file."""
    if not path.is_file():
        return {}
    stat = path.stat()
    version = (stat.st_mtime_ns, stat.st_size)
    if path not in _ROWS or _ROWS[path][0] != version:
        found: dict[str, list[dict]] = defaultdict(list)
        for line in files.read_lines(path, remedy=REMEDY):
            found[str(line.get("block"))].append(line)
        _ROWS[path] = (version, dict(found))
    return _ROWS[path][1]


@dataclass
class Aggregate:
    """What :func:`aggregate` found. ``missing`` names cells without a run, ``refused`` blocks and why."""

    path: Path
    lines: list[dict] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    changed: bool = False
    left_out: list[dict[str, Any]] = field(default_factory=list)  # predictions that are too large for git

    @property
    def complete(self) -> bool:
        return not self.missing


def aggregate(experiment: Experiment, profile: str) -> Aggregate:
    """Collect the finished blocks into one file, a sorted line per run; predictions go to Parquet beside it.

    A block counts when its manifest is ok, its schema known, its key the present one, and every trial has its
    line; a committed block of the present key counts where build/ has none. Others are refused and listed. No
    average is taken here, so no cell can silently stand on fewer seeds. Files change only when results do.
    """
    from instructlab_repro.notebooks.runner import read_manifest

    experiment = experiment.at(profile)
    found = Aggregate(results_path(experiment.name, profile))
    cells = [*experiment.axes, "method"]
    stored = {tuple(row[c] for c in cells): row for row in predictions(experiment.name, profile)}
    bulk: dict[tuple, dict[str, Any]] = {}
    for block in experiment.blocks():
        lines, reason = experiment._built(block)
        cost: dict[str, float] = {}
        if lines is None:
            lines = experiment._committed(block)
            if lines is None:
                if reason != "not run":
                    found.refused[block.id] = reason
                for method in experiment.methods if block.stage == "run" else ("tuning",):
                    found.missing.append(f"{block.where()} · {method}")
                continue
        else:
            manifest = read_manifest(block.out)
            cost = {"block_seconds": manifest.seconds, "peak_memory_mb": manifest.peak_memory_mb}
        for line in lines:
            found.lines.append({**cost, **{k: v for k, v in line.items() if k not in BULKY}})
            cell = tuple(line[c] for c in cells)
            if block.stage == "run" and any(line.get(name) is not None for name in BULKY):
                bulk[cell] = {name: line[name] for name in BULKY if line.get(name) is not None}
            elif block.stage == "run" and cell in stored:
                bulk[cell] = {name: stored[cell][name] for name in BULKY if name in stored[cell]}
    found.lines.sort(key=lambda line: (line["stage"], *(line[c] for c in cells), files.dumps(line["tuned"])))
    text = "".join(files.dumps(line) + "\n" for line in found.lines)
    old = found.path.read_bytes() if found.path.is_file() else b""
    if text.encode("utf-8") != old:
        # predictions first: a kill in between leaves old lines with newer predictions of the same key
        _write_predictions(found, cells, bulk, predictions_path(experiment.name, profile))
        files.write_text(found.path, text)
        found.changed = True
    return found


def _write_predictions(
    found: Aggregate, names: list[str], bulk: Mapping[tuple, Mapping[str, Any]], path: Path
) -> None:
    if not bulk:
        return
    import io

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as parquet

    cells = sorted(bulk)
    columns: dict[str, Any] = {name: [cell[i] for cell in cells] for i, name in enumerate(names)}
    for name in BULKY:
        rows = [bulk[cell].get(name) for cell in cells]
        flat = np.concatenate([np.asarray(row) for row in rows if row is not None] or [np.zeros(0, int)])
        if flat.dtype.kind == "f":
            kind = pa.float32()
        else:  # the smallest integer type that holds them: most are class numbers
            low, high = (int(flat.min()), int(flat.max())) if len(flat) else (0, 0)
            kind = pa.uint8() if 0 <= low and high < 256 else pa.int32()
        columns[name] = pa.array([None if row is None else list(row) for row in rows], type=pa.list_(kind))
    buffer = io.BytesIO()
    parquet.write_table(pa.table(columns), buffer, compression="zstd", compression_level=19)
    size = buffer.tell()
    if size > MAX_PREDICTIONS:
        path.unlink(missing_ok=True)  # those of an earlier run would not fit the new lines
        found.left_out = [dict(zip(names, cell, strict=True)) | dict(bulk[cell]) for cell in cells]
        found.notes.append(
            f"{path.name} was not written: {size // 1024} KB, the limit is {MAX_PREDICTIONS // 1024} KB; "
            "the bootstrap intervals are kept instead"
        )
        return
    files.write_bytes(path, buffer.getvalue())
