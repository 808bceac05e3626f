"""Finding an experiment, and running one of its blocks."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from instructlab_repro import notebooks
from instructlab_repro.experiments.blocks import Block, Experiment, notebook_path
from instructlab_repro.experiments.spec import FOLDER
from instructlab_repro.experiments.stored import rows_by_block, version
from instructlab_repro.notebooks import runner
from instructlab_repro.strict import read_toml
from instructlab_utils import files
from instructlab_utils.errors import ConfigError
from instructlab_utils.project import PROFILES, closest, find_root


@lru_cache(maxsize=64)
def _read(path: Path, _: tuple[int, ...]) -> Experiment:
    file = f"{FOLDER}/{path.name}"
    experiment = Experiment.checked(read_toml(path, file), file)
    if experiment.name != path.stem:
        what = f"{file}: name is {experiment.name!r}, but the file is called {path.stem!r}"
        raise ConfigError(f"{what}; make them equal.")
    for profile in PROFILES:
        experiment.at(profile)
    return experiment


def names() -> list[str]:
    """All experiments, by name."""
    return sorted(path.stem for path in (find_root() / FOLDER).glob("*.toml"))


def load(name: str) -> Experiment:
    """The experiment of data/experiments/<name>.toml, with every profile checked; read once per version of the file.

    ConfigError for an unknown experiment, and for a mistake in its file: one sentence with its key.
    """
    path = find_root() / FOLDER / f"{name}.toml"
    if not path.is_file():
        known = names()
        told = ", ".join(known) or "none"
        raise ConfigError(f"unknown experiment {name!r}{closest(name, known)}; known: {told}")
    return _read(path, version(path)).model_copy(deep=True)


def find_block(name: str, block: str, profile: str) -> tuple[Experiment, Block]:
    """An experiment at a profile and one of its blocks; ConfigError naming the known blocks."""
    experiment = load(name).at(profile)
    known = {each.id: each for each in experiment.blocks()}
    if block not in known:
        shown = ", ".join([*known][:6]) + " …" * (len(known) > 6)
        raise ConfigError(f"unknown block {block!r} of {name}{closest(block, list(known))}; known: {shown}")
    return experiment, known[block]


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

    ConfigError for an unknown experiment or block; RecordError before its tuning block has finished.
    """
    experiment, chosen = find_block(name, block, profile)
    chosen = replace(chosen, under=under)
    out, path = chosen.out, chosen.out / "lines.jsonl"
    if not fresh and experiment.built(chosen)[0] is not None:
        return runner.read_manifest(out)
    trials = experiment.trials(chosen)  # says so if the tuned values are not there yet
    kept = files.salvage(path) if path.is_file() and not fresh else []
    if (
        not path.is_file() and under == "runs" and not fresh
    ):  # after a change of methods, the others' lines still count
        kept = rows_by_block(name, profile).get(block, [])
    key = experiment.key(chosen)
    files.write_lines(path, [line for line in kept if line.get("key") == key])
    if not trials:
        manifest = runner.Manifest(experiment.notebook, chosen.parameters, "", profile, 0, status="ok")
        manifest.write(out)
        return manifest
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
    lines, reason = experiment.built(chosen)
    if manifest.status == "ok" and lines is None:
        manifest.status = "failed"
        manifest.error = {"cell": None, "source": "", "name": "RecordError", "message": reason}
        manifest.write(out)
    return manifest
