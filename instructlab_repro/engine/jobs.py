"""Which notebooks are left to run: a job is one lesson or one block, with its key and what it needs.

It is done when its notebook ended well with the present code; then a file `done` with the job's key stands in its
folder. Snakemake runs what is left, see snakemake.py; the Snakefile asks this module.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from instructlab_repro import experiments, notebooks, provenance
from instructlab_repro.notebooks.kernels import chosen_environment
from instructlab_utils.errors import RecordError
from instructlab_utils.project import find_root

LESSON_MB = 3000
SNAKEMAKE_MB = 500  # a cluster also counts the two Snakemakes and the runner around a kernel
SLACK = 5  # minutes on a cluster beyond a job's own limit, so that its manifest says why it ended
# Snakemake's config travels to a node, the environment may not. By hand home=… and python=…; our own call sends their
# values as the hexadecimal digits of JSON, since Snakemake reads "/srv/a #1", "a: b" and 007 as YAML.
CARRIED = {"home": "INSTRUCTLAB_HOME", "python": "INSTRUCTLAB_PYTHON"}


@dataclass
class Job:
    """One notebook to run. ``status`` after a run: ok, failed, aborted, running (cut off) or "not run".

    ``expected`` are seconds, by an earlier run or the lesson's header; 0 where nothing is known.
    """

    name: str
    out: Path
    notebook: Path
    key: str
    command: str
    resources: dict[str, int]
    threads: int = 1
    needs: tuple[Path, ...] = ()
    done: bool = False
    why: str = ""
    expected: float = 0.0
    manifest: notebooks.Manifest | None = None
    before: tuple[int, ...] = ()

    @property
    def marker(self) -> Path:
        return self.out / "done"

    @property
    def status(self) -> str:
        return self.manifest.status if self.manifest else "not run"

    @property
    def error(self) -> str:
        error = (self.manifest and self.manifest.error) or {}
        return ": ".join(str(error[key]) for key in ("name", "message") if error.get(key))

    def refresh(self) -> Job:
        """Read the manifest again; the file that was there ``before`` does not count, whatever its date."""
        with contextlib.suppress(OSError, RecordError):
            if experiments.stored.version(self.out / "manifest.json") != self.before:
                self.manifest = notebooks.read_manifest(self.out)
        return self


def _resources(minutes: float, memory_mb: int, gpus: int) -> dict[str, int]:
    """What Snakemake asks a cluster for; ``minutes`` are the job's own limit."""
    return {"mem_mb": memory_mb + SNAKEMAKE_MB, "runtime": math.ceil(minutes) + SLACK, "gpu": gpus}


def lesson_jobs(profile: str) -> dict[str, Job]:
    """Every lesson of a profile, by id."""
    package, jobs = provenance.package_sha(), {}
    for lesson in notebooks.lessons().values():
        code = notebooks.code_sha(lesson.notebook if lesson.notebook.is_file() else lesson.source)
        out = find_root() / "build" / profile / lesson.source.stem
        command = f"lesson-job {lesson.id} --profile {profile}"
        key = hashlib.sha256(f"{code} {package} {profile}".encode()).hexdigest()
        asked = _resources(max(15, 5 * lesson.minutes[profile]), LESSON_MB, int(profile == "gpu"))
        job = Job(lesson.id, out, lesson.notebook, key, command, asked)
        job.refresh()
        job.expected = (job.manifest and job.manifest.seconds) or 60 * lesson.minutes[profile]
        job.done = job.status == "ok" and read_line(job.marker) == job.key
        job.why = "" if job.done else "not run" if job.status == "not run" else "changed or not ended well"
        jobs[lesson.id] = job
    return jobs


def block_jobs(name: str, profile: str, only: experiments.Block | None = None) -> dict[str, Job]:
    """Every block of an experiment at a profile, by id; committed results count as done.

    ``only`` is one block with those that it needs: a node that runs one block reads no other's files.
    """
    experiment = experiments.load(name).at(profile)
    asked, jobs = experiment.resources, dict[str, Job]()
    resources = _resources(asked.minutes, asked.memory_mb, asked.gpu)
    notebook = find_root() / "notebooks" / "experiments" / f"{experiment.notebook}.ipynb"
    for block in experiment.blocks():
        if only is not None and block.id not in (only.id, *only.needs):
            continue
        built, why = experiment.built(block)
        command, key = f"block {name} {block.id} --profile {profile}", experiment.key(block)
        job = Job(f"{name}/{block.id}", block.out, notebook, key, command, resources, asked.cores)
        job.needs = tuple(jobs[need].marker for need in block.needs if not jobs[need].done)
        job.done, job.why = built is not None or experiment.lines(block) is not None, why
        job.expected = experiment.expected_seconds(block) or 0.0
        jobs[block.id] = job.refresh()
    return jobs


def all_jobs(targets: list[str] | tuple[str, ...], profile: str) -> list[Job]:
    """The jobs of ``targets``: "lessons", "experiments", a lesson's id, an experiment, or EXPERIMENT/BLOCK.

    A block brings the blocks that it needs. ConfigError or NotebookError for an unknown target.
    """
    lessons = lesson_jobs(profile) if any("/" not in t for t in targets) else {}
    grids = experiments.names()
    chosen: dict[str, Job] = {}
    for target in targets:
        grid, _, block = target.partition("/")
        if target == "lessons":
            found = list(lessons.values())
        elif target == "experiments":
            found = [job for name in grids for job in block_jobs(name, profile).values()]
        elif grid not in grids:
            found = [lessons[notebooks.find(target).id]]
        elif block:  # which comes after those that it needs
            wanted = experiments.find_block(grid, block, profile)[1]
            found = list(block_jobs(grid, profile, wanted).values())
        else:
            found = list(block_jobs(grid, profile).values())
        chosen |= {job.name: job for job in found}
    return list(chosen.values())


def interpreter() -> str:
    """The Python that runs the jobs, quoted for a shell: INSTRUCTLAB_PYTHON (its path on a cluster's nodes), else this."""
    path = os.environ.get("INSTRUCTLAB_PYTHON", sys.executable)
    return subprocess.list2cmdline([path]) if os.name == "nt" else shlex.quote(path)


def environment(profile: str, config: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """All that a job needs of its environment: a cluster may start it with an empty one.

    ``config`` is Snakemake's, which travels to the node with the job; see ``CARRIED``.
    """
    by_hand = {variable: str(config[name]) for name, variable in CARRIED.items() if config.get(name)}
    sent = json.loads(bytes.fromhex(config.get("sent", "7b7d")))
    return {**chosen_environment(), "INSTRUCTLAB_PROFILE": profile, **by_hand, **sent}


def sent() -> str:
    """The word of Snakemake's config with the variables of ``CARRIED``."""
    values = {name: os.environ[name] for name in CARRIED.values() if os.environ.get(name)}
    return f"sent={json.dumps(values).encode().hex()}"


def read_line(path: Path) -> str:
    """The text of a small file without its ends; empty where it is not there."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
