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
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from instructlab_repro import assets, notebooks, provenance
from instructlab_repro.experiments import stored
from instructlab_repro.experiments.spec import FOLDER, Spec, Value
from instructlab_repro.experiments.tuning import choose
from instructlab_repro.notebooks import runner
from instructlab_repro.strict import read_toml
from instructlab_utils import files
from instructlab_utils.errors import ConfigError, ParameterError, RecordError
from instructlab_utils.project import PROFILES, closest, find_root


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
        return {"profile": self.profile, "stage": self.stage, **self.coordinates}

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

    @property
    def key(self) -> dict[str, Any]:
        """The fields that tell this run's line from all others of its block."""
        return {"key": self.block_key, "method": self.method, **self.inside, "tuned": dict(self.tuned)}


class Experiment(Spec):
    """A :class:`Spec` with its grid; ``at(profile)`` chooses whose."""

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
        free = [axis for axis in self.inside if axis not in tuned.at]
        best = choose(tuned, free, lines)
        return [
            Trial(key, method, inside, best.get((method, *(inside[axis] for axis in free)), {}))
            for method in self.methods
            for inside in self._insides()
        ]

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
        with contextlib.suppress(RecordError, ValueError, KeyError):
            manifest = files.read_json(block.out / "manifest.json")
            if manifest["status"] == "ok":
                return float(manifest["seconds"])
        rows = stored.rows_by_block(self.name, self.profile)
        known = {name: found[0] for name, found in rows.items() if found[0].get("block_seconds")}
        if block.id in known:
            return known[block.id]["block_seconds"]
        like = [line["block_seconds"] for line in known.values() if line["stage"] == block.stage]
        return statistics.median(like) if like else None

    def lines(self, block: Block) -> list[dict] | None:
        """The finished block's lines, one per trial: from build/, else the committed results; else None."""
        return self.built(block)[0] or self.committed(block)

    def built(self, block: Block) -> tuple[list[dict] | None, str]:
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
            return None, f"its last run {state}" + (f": {reason}" if reason else "")
        if bad := [line for line in found if line.get("schema") != provenance.SCHEMA]:
            return (
                None,
                f"{block.id}: a line of schema {bad[0].get('schema')!r}, known is {provenance.SCHEMA}",
            )
        key = self.key(block)
        current = [line for line in found if line.get("key") == key]
        if found and not current:
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

    def committed(self, block: Block) -> list[dict] | None:
        """Lines of the results file count as done when their key is the present one."""
        rows = stored.rows_by_block(self.name, self.profile).get(block.id, [])
        key = self.key(block) if rows else ""
        return self._complete(block, [row for row in rows if row.get("key") == key])[0]


def _part(axis: str, value: Value) -> str:
    """A coordinate in a block's name: text as it is, a number after the axis' first letter."""
    return value if isinstance(value, str) else f"{axis[0]}{value:g}"


@lru_cache(maxsize=64)
def _code_sha(path: Path, _: tuple[int, int]) -> str:
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


@lru_cache(maxsize=64)
def _read(path: Path, _: tuple[int, ...]) -> Experiment:
    file = f"{FOLDER}/{path.name}"
    experiment = Experiment.checked(read_toml(path, file), file)
    if experiment.name != path.stem:
        raise ConfigError(
            f"{file}: name is {experiment.name!r}, but the file is called {path.stem!r}; make them equal."
        )
    for profile in PROFILES:
        experiment.at(profile)
    return experiment


def names() -> list[str]:
    """All experiments, by name."""
    return sorted(path.stem for path in (find_root() / FOLDER).glob("*.toml"))


def load(name: str) -> Experiment:
    """The experiment of data/experiments/<name>.toml, with every profile checked; read once per version of the file.

    Raises:
        ConfigError: for an unknown experiment, and for a mistake in its file (one sentence with its key).
    """
    path = find_root() / FOLDER / f"{name}.toml"
    if not path.is_file():
        known = names()
        raise ConfigError(
            f"unknown experiment {name!r}{closest(name, known)}; known: {', '.join(known) or 'none'}"
        )
    return _read(path, stored.version(path)).copied()


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
) -> runner.Manifest:
    """Run one block, going on where an interrupted execution stopped; a finished block is left as it is.

    The manifest says how it ended; a notebook that ends without all its lines counts as failed. ``under`` is the
    folder of build/ that gets the lines: only those under ``runs`` become results.

    Raises:
        ConfigError: for an unknown experiment or block.
        RecordError: before its tuning block has finished.
    """
    experiment, chosen = find_block(name, block, profile)
    chosen = replace(chosen, under=under)
    out = chosen.out
    if not fresh and experiment.built(chosen)[0] is not None:
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
        lines, reason = experiment.built(chosen)
        if lines is None:
            manifest.status = "failed"
            manifest.error = {"cell": None, "source": "", "name": "RecordError", "message": reason}
            manifest.write(out)
    return manifest
