"""A grid's blocks: one execution of the experiment's notebook each, with its key, its trials and its lines.

A *block* is one point on every axis, except the axes that ``inside`` names, over which the notebook loops itself, as it
does over the methods. So models load once and comparisons are paired. A ``tune`` block comes first: every tuned method
tries equally many values, on coordinates that no result uses, and a metric of the dev set decides.

A block's key is the SHA-256 of the notebook's code cells and of the part of the TOML that the block uses. Prose, new
seeds, methods or tasks, and changes of the package leave it as it is; ``revision`` changes it on purpose.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from instructlab_repro import assets, notebooks, provenance
from instructlab_repro.experiments import stored
from instructlab_repro.experiments.spec import FOLDER, Spec, Value, did_not_train
from instructlab_repro.experiments.stored import Rows
from instructlab_repro.experiments.tuning import ROUNDS, Lines, Tuning
from instructlab_repro.notebooks import runner
from instructlab_utils import files
from instructlab_utils.errors import ConfigError, ParameterError, RecordError
from instructlab_utils.project import closest, find_root

TUNE = ("tune", *(f"tune-x{round_}" for round_ in range(1, ROUNDS + 1)))  # the given values, then extensions
STAGES = (*TUNE, "run", "twin")


@dataclass(frozen=True)
class Block:
    """One job: its coordinates, its folder under build/, and the blocks that must be there before it.

    ``stage`` is tune, run, or twin; ``round`` counts the extensions of a tuning grid.
    """

    experiment: str
    profile: str
    id: str
    stage: str
    coordinates: Mapping[str, Value]
    needs: tuple[str, ...] = ()
    round: int = 0
    notebook: str = ""
    under: str = "runs"  # a repetition, whose lines are compared and never become results, has another place

    @property
    def out(self) -> Path:
        return find_root() / "build" / self.under / self.experiment / self.profile / self.id

    @property
    def parameters(self) -> dict[str, Any]:
        """What the notebook is given; one that several experiments share is told which."""
        stage = TUNE[self.round] if self.stage == "tune" else self.stage
        shared = {"experiment": self.experiment} if self.notebook != self.experiment else {}
        return {"profile": self.profile, **shared, "stage": stage, **self.coordinates}

    def where(self) -> str:
        """For a person: "movie-sentiment · n_train = 50 · seed = 0"."""
        parts = (v if isinstance(v, str) else f"{axis} = {v:g}" for axis, v in self.coordinates.items())
        return " · ".join(parts)


@dataclass(frozen=True)
class Trial:
    """One run inside a block: a method, its place on the axes inside the block, and the values of its knobs.

    A ``twin`` starts from values moved by one part in ten million, and shows what rounding can do.
    """

    block_key: str
    method: str
    inside: Mapping[str, Value]
    tuned: Mapping[str, Value]
    method_key: str = ""  # of its table, where methods are tables
    twin: bool = False

    @property
    def key(self) -> dict[str, Any]:
        """The fields that tell this run's line from all others of its block."""
        table = {"method_key": self.method_key} if self.method_key else {}
        asked = {"key": self.block_key, "method": self.method, "tuned": dict(self.tuned)}
        return asked | table | dict(self.inside)


class Experiment(Spec):
    """A :class:`Spec` with its grid; ``at(profile)`` chooses whose."""

    @property
    def _rule(self) -> Tuning:
        return self.tuning or Tuning(metric="")  # which tunes nothing, nowhere

    def method(self, name: str, block: Block | None = None) -> dict[str, Any]:
        """The table [methods.NAME] as it is for ``block``, with settings in place of their ``$names``.

        ParameterError for an unknown name, or without a block where blocks differ; ConfigError as in ``settings_of``.
        """
        if name not in self._method_tables:
            raise ParameterError(f"{self.name}: there is no table [methods.{name}]")
        settings = vars(self.settings_of(block)) if block else self.settings
        known, found = {f"${name}": value for name, value in settings.items()}, {}
        for parameter, value in self._method_tables[name].items():
            if isinstance(value, Mapping):
                if block is None:
                    raise ParameterError(f"{self.name}: {parameter} differs between blocks; name one")
                ((axis, by_value),) = value.items()
                value = self._at(block, f"methods.{name}.{parameter}", axis, by_value)
            asked = isinstance(value, str) and value.startswith("$")
            if asked and value not in known:
                raise ParameterError(f"{self.name}: {value} differs between blocks; name one")
            found[parameter] = known[value] if asked else value
        return found

    def settings_of(self, block: Block) -> SimpleNamespace:
        """The settings of one block: those of [settings], and its own entries of [settings_by].

        ConfigError for coordinates (tried in Jupyter, say) that [settings_by] does not know.
        """
        found = dict(self.settings)
        for axis, settings in self.settings_by.items():
            for name, by_value in settings.items():
                found[name] = self._at(block, f"settings_by.{axis}.{name}", axis, by_value)
        return SimpleNamespace(**found)

    def _at(self, block: Block, where: str, axis: str, by_value: Mapping[str, Any]) -> Any:
        """What ``by_value`` has for the block; ConfigError, which names ``where``, if that is nothing."""
        value = str(block.coordinates[axis])
        if value not in by_value:
            what = f"{FOLDER}/{self.name}.toml: {where} has no entry for {axis} = {value}"
            raise ConfigError(f"{what}; known: {', '.join(by_value)}")
        return by_value[value]

    def block(self, *, stage: str = "run", **coordinates: Value) -> Block:
        """The block at these coordinates, in the grid or (for playing in Jupyter) outside it."""
        if stage not in STAGES:
            raise ParameterError(f"unknown stage {stage!r}: choose {', '.join(STAGES)}")
        if set(coordinates) != set(self.outside):
            needed, given = ", ".join(self.outside), ", ".join(coordinates)
            raise ParameterError(f"{self.name}: a block needs {needed}, not {given}")
        for axis, value in coordinates.items():
            known = [str(v) for v in self.axes[axis]]
            if isinstance(value, str) and value not in known:
                near = closest(value, known)
                raise ParameterError(f"unknown {axis} {value!r}{near}; known: {', '.join(known)}")
        place = {axis: coordinates[axis] for axis in self.outside}
        kind, round_ = stage.partition("-")[0], TUNE.index(stage) if stage in TUNE else 0
        before = range(round_ if kind == "tune" else self._rule.rounds)
        seeds = self._rule.places.get("seed", [])
        needs = tuple(self._tune_id(place, seed, earlier) for earlier in before for seed in seeds)
        parts = [*["twin"] * (kind == "twin"), *(_part(axis, value) for axis, value in place.items())]
        name = self._tune_id(place, place["seed"], round_) if kind == "tune" else "-".join(parts)
        return Block(self.name, self.profile, name, kind, place, needs, round_, self.notebook)

    def _fixed(self, stage: str) -> dict[str, list[Value]]:
        """The axes that the blocks of a stage do not spread over, with their values."""
        if stage == "twin":
            return {axis: [(self.twin or {}).get(axis, values[0])] for axis, values in self.axes.items()}
        return self._rule.places if stage in TUNE else {}

    def _tune_id(self, place: Mapping[str, Value], seed: Value, round_: int) -> str:
        parts = ["tune", *(_part(axis, v) for axis, v in place.items() if axis not in self._rule.places)]
        return "-".join([*parts, *[f"s{seed}"] * bool(self._rule.seeds), *[f"x{round_}"] * bool(round_)])

    def blocks(self) -> list[Block]:
        """All blocks, each after those that it needs: tuning round by round, the runs, the twins."""
        stages = [*TUNE[: self._rule.rounds], "run", *["twin"] * (self.twin is not None)]
        found: dict[str, Block] = {}
        for stage in stages:
            for place in self._places(self.outside, self._fixed(stage)):
                block = self.block(stage=stage, **place)
                if found.setdefault(block.id, block) != block:
                    what = f"two blocks would be called {block.id!r}; rename a value."
                    raise ConfigError(f"{FOLDER}/{self.name}.toml: {what}")
        return list(found.values())

    def _places(self, axes: list[str], fixed: Mapping[str, list[Value]]) -> list[dict[str, Value]]:
        grid = (fixed.get(axis, self.axes[axis]) for axis in axes)
        return [dict(zip(axes, place, strict=True)) for place in itertools.product(*grid)]

    def _tune_blocks(self, block: Block, round_: int) -> list[Block]:
        """The tuning blocks of one round that ``block`` needs, also for coordinates outside the grid."""
        place = {axis: [value] for axis, value in block.coordinates.items()} | self._rule.places
        return [self.block(stage=TUNE[round_], **each) for each in self._places(self.outside, place)]

    def key(self, block: Block) -> str:
        """SHA-256 of the notebook's code cells and of the settings that this block uses.

        What a method is and the values it tries belong to its trials: a changed method runs again alone.
        """
        used: dict[str, Any] = {
            "code": notebook_code_sha(self.notebook),
            "revision": self.revision,
            "profile": block.profile,
            "stage": block.stage,
            "coordinates": dict(block.coordinates),
            "settings": vars(self.settings_of(block)),
        }
        if self.tuning is not None and block.stage != "tune":
            first = self.key(self._tune_blocks(block, 0)[0])
            used["tuning"] = [first, self.tuning.model_dump(include={"metric", "better", "tie", "seeds"})]
        return hashlib.sha256(files.dumps(used).encode()).hexdigest()

    def trials(self, block: Block, before: Lines | None = None) -> list[Trial]:
        """What the block must run, in order; [] for an extension that the lines before do not call for.

        ``before`` are the lines of the tuning that it needs; RecordError where they are not given and not there.
        """
        if before is None:
            before = self._tune_lines(block, block.round if block.stage == "tune" else self._rule.rounds)
        key, tuning, found = self.key(block), self._rule, []
        for method in self.methods:
            for inside in self._places(self.inside, self._fixed(block.stage)):
                place = {"method": method} | {a: v for a, v in inside.items() if a not in tuning.places}
                cell = [line for line in before if place.items() <= line.items()]
                cell = [{**line, "failed": did_not_train(line, self)} for line in cell]
                asked = [tuning.best(method, cell)]
                if block.stage == "tune":
                    rounds = tuning.called_for(method, cell)
                    asked = rounds[block.round] if block.round < len(rounds) else []
                sha, twin = self.method_key(method), block.stage == "twin"
                found += [Trial(key, method, inside, values, sha, twin) for values in asked]
        return found

    def method_key(self, method: str) -> str:
        """The first digits of the SHA-256 of a method's table, which its lines carry; "" without tables."""
        table = self._method_tables.get(method)
        return hashlib.sha256(files.dumps(table).encode()).hexdigest()[:16] if table else ""

    def _tune_lines(self, block: Block, rounds: int) -> Rows:
        """All lines of the first ``rounds`` rounds of tuning that ``block`` needs; each round follows from those before."""
        found: Rows = []
        for round_ in range(rounds):
            before = [*found]
            for tune in self._tune_blocks(block, round_):
                lines = self.lines(tune, self.trials(tune, before))
                if lines is None:
                    raise RecordError(
                        f"{self.name}: no tuned values for {block.id} in profile {self.profile}; first run "
                        f"`python -m instructlab_utils block {self.name} {tune.id} --profile {self.profile}`"
                    )
                found += lines
        return found

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
        declared = notebooks.find(self.notebook).assets
        known = assets.catalogue() if declared else {}
        return {name: known[name].pin[:16] for name in declared if name in known}

    # --- what is there -------------------------------------------------------------------------------------

    def expected_seconds(self, block: Block) -> float | None:
        """How long the block took when it last ran, of whatever key; else the median of its stage; else None."""
        with contextlib.suppress(RecordError):
            manifest = runner.read_manifest(block.out)
            if manifest.status == "ok":
                return manifest.seconds
        rows = stored.rows_by_block(self.name, self.profile).values()
        known = [lines[0] for lines in rows if lines[0].get("block_seconds")]
        like = [line for line in known if line["block"] == block.id]
        like = like or [line for line in known if line["stage"] == block.stage]
        return statistics.median(line["block_seconds"] for line in like) if like else None

    def lines(self, block: Block, trials: list[Trial] | None = None) -> Rows | None:
        """The finished block's lines, one per trial: from build/, else the committed results; else None."""
        found = self.built(block, trials)[0]
        return found if found is not None else self.committed(block, trials)

    def built(self, block: Block, trials: list[Trial] | None = None) -> tuple[Rows | None, str]:
        """The lines under build/ if the block is finished and of the present key; else None, and why."""
        if not (block.out / "manifest.json").is_file():
            return None, "not run"
        try:
            manifest = runner.read_manifest(block.out)
            found = stored.read(block.out / "lines.jsonl")
        except RecordError as error:
            return None, str(error)
        if manifest.status != "ok":
            reason = (manifest.error or {}).get("message", "")
            state = "was cut off, or is going on" if manifest.status == "running" else manifest.status
            return None, f"its last run {state}" + f": {reason}" * bool(reason)
        if bad := [line for line in found if line.get("schema") not in stored.EDITIONS]:
            return None, f"{block.id}: a line of unknown schema {bad[0].get('schema')!r}"
        key = self.key(block)
        if found and all(line.get("key") != key for line in found):
            return None, "the experiment's code or settings have changed"
        return self._complete(block, found, trials)

    def committed(self, block: Block, trials: list[Trial] | None = None) -> Rows | None:
        """Lines of the results file count as done when their key is the present one."""
        rows = stored.rows_by_block(self.name, self.profile).get(block.id, [])
        return self._complete(block, rows, trials)[0]

    def _complete(self, block: Block, lines: Rows, trials: list[Trial] | None) -> tuple[Rows | None, str]:
        """``lines`` in the order of the trials, or None when one is missing."""
        try:
            trials = self.trials(block) if trials is None else trials
        except RecordError:
            return None, "its tuning block has not finished"
        found = []
        for trial in trials:
            line = next((x for x in lines if all(x.get(k) == v for k, v in trial.key.items())), None)
            if line is None:
                return None, f"no line for {trial.method}"
            found.append(line)
        return found, ""


def _part(axis: str, value: Value) -> str:
    """A coordinate in a block's name: text as it is, a number after the axis' first letter."""
    return value if isinstance(value, str) else f"{axis[0]}{value:g}"


def notebook_path(notebook: str) -> Path:
    """The experiment's .ipynb; its text source while the .ipynb is not built."""
    folder = find_root() / "notebooks" / "experiments"
    built, source = folder / f"{notebook}.ipynb", folder / "source" / f"{notebook}.py"
    if found := [path for path in (built, source) if path.is_file()]:
        return found[0]
    raise ConfigError(f"notebooks/experiments/source/{notebook}.py: there is no such notebook; write it.")


def notebook_code_sha(notebook: str) -> str:
    """SHA-256 of the code cells of the experiment notebook; read once per process and version of the file."""
    path = notebook_path(notebook)
    return _code_sha(path, stored.version(path))


@lru_cache(maxsize=64)
def _code_sha(path: Path, _: tuple[int, ...]) -> str:
    return notebooks.code_sha(path)
