"""An experiment as data: the grid of data/experiments/<name>.toml, its blocks, keys and results.

A block is one task, training size and seed; it loops over the methods in one process, so that models load
once and comparisons are paired. A ``tune`` block comes first for each task: every tuned method tries each of
its values once, on a seed that no result uses, and accuracy on dev decides.

A block's key is the SHA-256 of the notebook's code cells and of the part of the TOML that the block uses.
Prose, new seeds or tasks, and changes of the package leave it as it is; ``revision`` changes it on purpose.
"""

from __future__ import annotations

import hashlib
import itertools
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, PrivateAttr, ValidationError, model_validator

from instructlab_utils.errors import ConfigError, ParameterError, RecordError
from instructlab_utils.repro import record
from instructlab_utils.session import PROFILES, closest, find_root

if TYPE_CHECKING:
    from instructlab_utils.repro.runner import Manifest

FOLDER = "data/experiments"
KNOBS = ("learning_rate", "C")
MAX_PREDICTIONS = 200 * 1024  # bytes in git, per experiment
BULKY = ("predictions", "targets")  # fields that go to the Parquet file

Seed = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(gt=0, strict=False)]  # TOML writes table keys as strings


class Strict(BaseModel):
    """Unknown keys and loose types are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Axes(Strict):
    """The grid: every combination of these is one block."""

    task: list[str] = Field(min_length=1)
    n_train: list[PositiveInt] = Field(min_length=1)
    seed: list[Seed] = Field(min_length=1)


class Sizes(Strict):
    """Examples for decisions (dev) and for results (test)."""

    dev: PositiveInt
    test: PositiveInt


class Tuning(Strict):
    """Which values a method tries, on how many examples, on which seed; one knob per method."""

    n_train: PositiveInt
    seed: Seed
    learning_rate: dict[str, list[Annotated[float, Field(gt=0)]]] = {}
    C: dict[str, list[Annotated[float, Field(gt=0)]]] = {}

    def values(self) -> dict[str, list[float]]:
        """Method → its values, whatever the knob is called."""
        return {**self.learning_rate, **self.C}


class Budget(Strict):
    """Updates by training size, examples per update, tokens per example by task."""

    batch_size: PositiveInt
    steps: dict[Size, PositiveInt]
    max_length: dict[str, PositiveInt]


class Resources(Strict):
    """What one block may use: minutes of wall time, MB of memory."""

    minutes: Annotated[float, Field(gt=0)]
    memory_mb: PositiveInt = 2000


class Override(Strict):
    """What a profile may replace; tables are merged, lists are replaced."""

    axes: dict[str, Any] = {}
    sizes: dict[str, Any] = {}
    tuning: dict[str, Any] = {}
    budget: dict[str, Any] = {}
    resources: dict[str, Any] = {}


@dataclass(frozen=True)
class Block:
    """One job: its coordinates, its folder under build/, and the blocks that must be there before it."""

    experiment: str
    profile: str
    id: str
    stage: str
    task: str
    n_train: int
    seed: int
    needs: tuple[str, ...] = ()

    @property
    def out(self) -> Path:
        return find_root() / "build" / "runs" / self.experiment / self.profile / self.id

    @property
    def parameters(self) -> dict[str, Any]:
        """What the experiment notebook is given."""
        names = ("profile", "stage", "task", "n_train", "seed")
        return {name: getattr(self, name) for name in names}


class Experiment(Strict):
    """data/experiments/<name>.toml, validated; ``at(profile)`` gives the grid of one profile."""

    name: str
    title: str
    notebook: str
    revision: PositiveInt
    claims: list[str] = []
    methods: list[str] = Field(min_length=1)
    labels: dict[str, str] = {}
    notes: list[str] = []  # printed under the table
    axes: Axes
    sizes: Sizes
    tuning: Tuning | None = None
    budget: Budget
    resources: Resources
    profiles: dict[Literal["smoke", "laptop", "gpu"], Override] = {}

    _profile: str | None = PrivateAttr(None)
    _claims: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        for name, values in (("methods", self.methods), *((f"axes.{a}", v) for a, v in self.axes)):
            if len(set(values)) != len(values):
                raise ValueError(f"{name}: names something twice")
        for method in self.labels:
            if method not in self.methods:
                raise ValueError(f"labels: {method!r} is not one of the methods")
        sizes = set(self.axes.n_train)
        if self.tuning is not None:
            sizes.add(self.tuning.n_train)
            self._check_tuning(self.tuning)
        for n in sorted(sizes - set(self.budget.steps)):
            raise ValueError(f"budget.steps: no number of updates for {n} training examples")
        for task in self.axes.task:
            if task not in self.budget.max_length:
                raise ValueError(f"budget.max_length: no length for task {task!r}")
        return self

    def _check_tuning(self, tuning: Tuning) -> None:
        if tuning.seed in self.axes.seed:
            raise ValueError(f"tuning.seed: {tuning.seed} is also a seed of the grid; choose another")
        if both := set(tuning.learning_rate) & set(tuning.C):
            raise ValueError(f"tuning: {sorted(both)[0]!r} has two knobs; give it one")
        for method, values in tuning.values().items():
            if method not in self.methods:
                raise ValueError(f"tuning: {method!r} is not one of the methods")
            if len(set(values)) != len(values):
                raise ValueError(f"tuning: {method!r} tries a value twice")
        if len(counts := {len(values) for values in tuning.values().values()}) > 1:
            raise ValueError(f"tuning: every method must try equally many values, not {sorted(counts)}")

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
        chosen._claims = record.claims_sha(chosen.claims)
        return chosen

    @property
    def profile(self) -> str:
        if self._profile is None:
            raise ConfigError(f"{self.name}: choose a profile first, with .at(profile)")
        return self._profile

    def steps(self, n_train: int) -> int:
        """Updates for ``n_train`` examples. ConfigError when the TOML names none."""
        if n_train not in self.budget.steps:
            raise ConfigError(
                f"{FOLDER}/{self.name}.toml: budget.steps has no entry for n_train = {n_train}; "
                f"known: {', '.join(map(str, self.budget.steps))}"
            )
        return self.budget.steps[n_train]

    def block(self, *, stage: str, task: str, n_train: int, seed: int) -> Block:
        """The block at these coordinates, in the grid or (for playing in Jupyter) outside it."""
        if stage not in ("tune", "run"):
            raise ParameterError(f"unknown stage {stage!r}: choose tune or run")
        if task not in self.budget.max_length:
            raise ParameterError(f"unknown task {task!r}{closest(task, self.axes.task)}")
        name = f"tune-{task}" if stage == "tune" else f"{task}-n{n_train}-s{seed}"
        needs = (f"tune-{task}",) if stage == "run" and self.tuning is not None else ()
        return Block(self.name, self.profile, name, stage, task, n_train, seed, needs)

    def blocks(self) -> list[Block]:
        """All blocks, the tuning ones first."""
        found = []
        if (tuning := self.tuning) is not None:
            for task in self.axes.task:
                found.append(self.block(stage="tune", task=task, n_train=tuning.n_train, seed=tuning.seed))
        for task, n, seed in itertools.product(self.axes.task, self.axes.n_train, self.axes.seed):
            found.append(self.block(stage="run", task=task, n_train=n, seed=seed))
        return found

    def key(self, block: Block) -> str:
        """SHA-256 of the notebook's code cells and of the settings that this block uses."""
        settings = {
            "code": notebook_code_sha(self.notebook),
            "revision": self.revision,
            "profile": block.profile,
            "block": [block.stage, block.task, block.n_train, block.seed],
            "methods": self.methods,
            "sizes": self.sizes.model_dump(),
            "tuning": self.tuning.model_dump() if self.tuning is not None else None,
            "tuning_steps": self.steps(self.tuning.n_train) if self.tuning is not None else None,
            "batch_size": self.budget.batch_size,
            "steps": self.steps(block.n_train),
            "max_length": self.budget.max_length[block.task],
        }
        return hashlib.sha256(record.dumps(settings).encode()).hexdigest()

    def knob(self, method: str) -> str | None:
        """Which knob of ``method`` is tuned: learning_rate, C, or None."""
        tuned = self.tuning
        return next((k for k in KNOBS if tuned is not None and method in getattr(tuned, k)), None)

    def trials(self, block: Block) -> list[tuple[str, float | None]]:
        """What the block must run: (method, value of its knob), in order.

        Raises:
            RecordError: for a run block before its tuning block has finished.
        """
        values = self.tuning.values() if self.tuning is not None else {}
        if block.stage == "tune":
            return [(method, value) for method in self.methods for value in values.get(method, ())]
        if not values:
            return [(method, None) for method in self.methods]
        (tune,) = (b for b in self.blocks() if b.id in block.needs)
        lines = self.lines(tune)
        if lines is None:
            raise RecordError(
                f"{self.name}: no tuned values for {block.task} in profile {self.profile}; first run "
                f"`python -m instructlab_utils block {self.name} {tune.id} --profile {self.profile}`"
            )
        best = choose_learning_rates(lines)
        return [(method, best.get((block.task, method))) for method in self.methods]

    def identity(self, block: Block) -> dict[str, Any]:
        """The fields that every line of the block repeats; the claims' hashes are those of ``at``."""
        return {
            "schema": record.SCHEMA,
            "experiment": self.name,
            "revision": self.revision,
            "key": self.key(block),
            "block": block.id,
            "stage": block.stage,
            "task": block.task,
            "n_train": block.n_train,
            "seed": block.seed,
            "profile": self.profile,
            "claims": self._claims,
            "environment": record.short_environment(),
        }

    # --- what is there -------------------------------------------------------------------------------------

    def lines(self, block: Block) -> list[dict] | None:
        """The finished block's lines, one per trial: from build/, else the committed results; else None."""
        return self._built(block)[0] or self._committed(block)

    def _built(self, block: Block) -> tuple[list[dict] | None, str]:
        """The lines under build/ if the block is finished and of the present key; else None, and why."""
        from instructlab_utils.repro.runner import read_manifest

        if not (block.out / "manifest.json").is_file():
            return None, "not run"
        try:
            manifest = read_manifest(block.out)
            stored = record.read_lines(block.out / "lines.jsonl")
        except RecordError as error:
            return None, str(error)
        if manifest.status != "ok":
            reason = (manifest.error or {}).get("message", "")
            state = "was cut off, or is going on" if manifest.status == "running" else manifest.status
            return None, f"its last run {state}" + (f": {reason}" if reason else "")
        if bad := [line for line in stored if line.get("schema") != record.SCHEMA]:
            return None, f"{block.id}: a line of schema {bad[0].get('schema')!r}, known is {record.SCHEMA}"
        key = self.key(block)
        current = [line for line in stored if line.get("key") == key]
        if stored and not current:
            return None, "the experiment's code or settings have changed"
        return self._complete(block, current)

    def _complete(self, block: Block, lines: list[dict]) -> tuple[list[dict] | None, str]:
        """``lines`` in the order of the trials, or None when one is missing."""
        try:
            trials = self.trials(block)
        except RecordError:
            return None, "its tuning block has not finished"
        by_trial = {(line["method"], tuned_value(line)): line for line in lines}
        if missing := [method for method, value in trials if (method, value) not in by_trial]:
            return None, f"no line for {missing[0]}"
        return [by_trial[trial] for trial in trials], ""

    def _committed(self, block: Block) -> list[dict] | None:
        """Lines of the results file count as done when their key is the present one."""
        rows = _rows_by_block(results_path(self.name, self.profile)).get(block.id, [])
        key = self.key(block) if rows else ""
        return self._complete(block, [row for row in rows if row.get("key") == key])[0]


# --- reading the TOML -----------------------------------------------------------------------------


def _merge(base: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``extra`` on top; tables in tables are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in extra.items():
        known = {str(k): k for k in merged}.get(str(key), key)  # 50 and "50" are the same table key
        both = isinstance(value, Mapping) and isinstance(merged.get(known), Mapping)
        merged[known] = _merge(merged[known], value) if both else value
    return merged


def _validate(fields: Mapping[str, Any], file: str, prefix: str = "") -> Experiment:
    try:
        return Experiment.model_validate(fields)
    except ValidationError as error:
        raise ConfigError(explain(error, file, prefix)) from None


def explain(error: ValidationError, file: str, prefix: str = "") -> str:
    """The first mistake that pydantic found, as one sentence with file and key."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"] if part != "[key]")
    if first["type"] == "extra_forbidden":
        return f"{file}: unknown key {prefix + where!r}; remove it or correct its spelling."
    if first["type"] == "missing":
        return f"{file}: the key {prefix + where!r} is missing; add it."
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    if not where:
        return f"{file}: {prefix}{message}."
    shown = "" if isinstance(first["input"], Mapping) else f", not {first['input']!r}"
    return f"{file}: {prefix}{where}: {message[:1].lower()}{message[1:]}{shown}."


def read_toml(path: Path, name: str) -> dict[str, Any]:
    """ConfigError naming the file (as ``name``) when it is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: not valid TOML ({error}); mend that line.") from None


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
    from instructlab_utils.repro import notebooks

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


# --- short forms ----------------------------------------------------------------------------------


def blocks(experiment: Experiment, profile: str) -> list[Block]:
    """All blocks of a profile, the tuning ones first."""
    return experiment.at(profile).blocks()


def block_key(experiment: Experiment, block: Block) -> str:
    """See :meth:`Experiment.key`."""
    return experiment.at(block.profile).key(block)


def tuned_value(line: Mapping[str, Any]) -> float | None:
    """A line's tuned value: notebooks write it as learning_rate, result files under the knob's name."""
    return line["learning_rate"] if line.get("learning_rate") is not None else line.get("C")


def choose_learning_rates(lines: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    """(task, method) → the value with the best accuracy on dev; of equals the smallest one."""
    tried: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for line in lines:
        if line["stage"] == "tune" and (value := tuned_value(line)) is not None:
            tried[line["task"], line["method"]].append((-line["dev_accuracy"], value))
    return {cell: min(results)[1] for cell, results in tried.items()}


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


def run_block(name: str, block: str, profile: str, *, fresh: bool = False) -> Manifest:
    """Run one block, going on where an interrupted execution stopped; a finished block is left as it is.

    The manifest says how it ended; a notebook that ends without all its lines counts as failed.

    Raises:
        ConfigError: for an unknown experiment or block.
        RecordError: before its tuning block has finished, and for a damaged result line.
    """
    from instructlab_utils.repro import notebooks, runner

    experiment, chosen = find_block(name, block, profile)
    out = chosen.out
    if not fresh and experiment._built(chosen)[0] is not None:
        return runner.read_manifest(out)
    experiment.trials(chosen)  # says so if the tuned values are not there yet
    path = out / "lines.jsonl"
    if path.is_file():
        key = experiment.key(chosen)
        kept = [] if fresh else [line for line in record.read_lines(path) if line.get("key") == key]
        record.write_lines(path, kept)
    if notebook_path(experiment.notebook).suffix == ".py":
        notebooks.build([experiment.notebook])
    manifest = runner.run_notebook(
        notebook_path(experiment.notebook),
        out,
        chosen.parameters,
        timeout=experiment.resources.minutes * 60,
        env={"INSTRUCTLAB_RUN_DIR": str(out), "INSTRUCTLAB_ROOT": str(find_root())},
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


def results(name: str, profile: str = "laptop", stage: str = "run") -> list[dict]:
    """The recorded lines of one stage; [] when the experiment has not run."""
    return [line for line in record.read_lines(results_path(name, profile)) if line.get("stage") == stage]


def predictions(name: str, profile: str = "laptop") -> dict[tuple[str, int, int, str], tuple[Any, Any]]:
    """(task, n_train, seed, method) → (predictions, targets), integer arrays of shape (test,)."""
    import numpy as np
    import pyarrow.parquet as parquet

    path = predictions_path(name, profile)
    if not path.is_file():
        return {}
    try:
        rows = parquet.read_table(path).to_pylist()
    except OSError as error:
        raise RecordError(f"{path}: not a readable Parquet file ({error}); restore it from git.") from None
    return {
        (row["task"], row["n_train"], row["seed"], row["method"]): (
            np.array(row[BULKY[0]]),
            np.array(row[BULKY[1]]),
        )
        for row in rows
    }


_ROWS: dict[Path, tuple[tuple[int, int], dict[str, list[dict]]]] = {}


def _rows_by_block(path: Path) -> dict[str, list[dict]]:
    """Lines of a results file by block, read once per version of the file."""
    if not path.is_file():
        return {}
    stat = path.stat()
    version = (stat.st_mtime_ns, stat.st_size)
    if path not in _ROWS or _ROWS[path][0] != version:
        found: dict[str, list[dict]] = defaultdict(list)
        for line in record.read_lines(path):
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

    @property
    def complete(self) -> bool:
        return not self.missing


def aggregate(experiment: Experiment, profile: str) -> Aggregate:
    """Collect the finished blocks into one file, a sorted line per run; predictions go to Parquet beside it.

    A block counts when its manifest is ok, its schema known, its key the present one, and every trial has its
    line; a committed block of the present key counts where build/ has none. Others are refused and listed. No
    average is taken here, so no cell can silently stand on fewer seeds. Files change only when results do.
    """
    from instructlab_utils.repro.runner import read_manifest

    experiment = experiment.at(profile)
    found = Aggregate(results_path(experiment.name, profile))
    stored = predictions(experiment.name, profile)
    bulk: dict[tuple[str, int, int, str], tuple[Any, Any]] = {}
    for block in experiment.blocks():
        lines, reason = experiment._built(block)
        if lines is None:
            lines = experiment._committed(block)
            peak = None
            if lines is None:
                if reason != "not run":
                    found.refused[block.id] = reason
                for method in experiment.methods if block.stage == "run" else ("tuning",):
                    found.missing.append(f"{block.task} · n = {block.n_train} · seed {block.seed} · {method}")
                continue
        else:
            peak = read_manifest(block.out).peak_memory_mb
        for line in lines:
            cell = (block.task, block.n_train, block.seed, line["method"])
            if block.stage == "run":
                if all(line.get(name) is not None for name in BULKY):
                    bulk[cell] = (line["predictions"], line["targets"])
                elif cell in stored:
                    bulk[cell] = stored[cell]
            found.lines.append(_published(experiment, line, peak))
    found.lines.sort(key=_order)
    text = "".join(record.dumps(line) + "\n" for line in found.lines)
    old = found.path.read_text(encoding="utf-8") if found.path.is_file() else ""
    if text != old:
        # predictions first: a kill in between leaves old lines with newer predictions of the same key
        _write_predictions(found, bulk, predictions_path(experiment.name, profile))
        record.write_text(found.path, text)
        found.changed = True
    return found


def _published(experiment: Experiment, line: dict, peak: float | None) -> dict:
    """A line as it is committed: without its bulk, the knob under its own name, the block's peak memory."""
    row = {name: value for name, value in line.items() if name not in BULKY}
    value = tuned_value(line)
    row |= dict.fromkeys(KNOBS)
    if value is not None and (knob := experiment.knob(line["method"])) is not None:
        row[knob] = value
    if row.get("peak_memory_mb") is None:
        row["peak_memory_mb"] = peak
    return row


def _order(line: dict) -> tuple:
    value = tuned_value(line)
    return (
        line["stage"],
        line["task"],
        line["n_train"],
        line["seed"],
        line["method"],
        -1 if value is None else value,
    )


def _write_predictions(found: Aggregate, bulk: Mapping[tuple, tuple[Any, Any]], path: Path) -> None:
    if not bulk:
        return
    import io

    import pyarrow as pa
    import pyarrow.parquet as parquet

    small = pa.list_(pa.uint8())
    cells = sorted(bulk)
    columns: dict[str, Any] = {
        name: [cell[i] for cell in cells] for i, name in enumerate(("task", "n_train", "seed", "method"))
    }
    for i, name in enumerate(BULKY):
        columns[name] = pa.array([[int(v) for v in bulk[cell][i]] for cell in cells], type=small)
    buffer = io.BytesIO()
    parquet.write_table(pa.table(columns), buffer, compression="zstd", compression_level=19)
    size = buffer.tell()
    if size > MAX_PREDICTIONS:
        found.notes.append(
            f"{path.name} was not written: {size // 1024} KB, the limit is {MAX_PREDICTIONS // 1024} KB"
        )
        return
    record.write_bytes(path, buffer.getvalue())
