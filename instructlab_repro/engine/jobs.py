"""Many notebooks at once: which jobs are left to do, and Snakemake to do them.

A job is one lesson or one block. It is done when its notebook ended well with the present code; then a file
`done` with the job's key stands in its folder. Manifest and executed notebook are declared as logs, since
Snakemake deletes the outputs of failed jobs. Killed at any moment and called again, `run_graph` does only what
is missing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import json
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import psutil

from instructlab_repro import experiments, notebooks, provenance
from instructlab_utils import files
from instructlab_utils.errors import ConfigError
from instructlab_utils.project import closest, find_root

LESSON_MB = 3000
SNAKEMAKE_MB = 500  # a cluster also counts the two Snakemakes and the runner around a kernel
SLACK = 5  # minutes on a cluster beyond a job's own limit, so that its manifest says why it ended
# Snakemake's config travels to a node, the environment may not.
CARRIED = {"home": "INSTRUCTLAB_HOME", "python": "INSTRUCTLAB_PYTHON"}
PACKAGE = Path(experiments.__file__).resolve().parents[2]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass
class Job:
    """One notebook to run. ``status`` after a run: ok, failed, aborted, running (cut off) or "not run"."""

    name: str
    out: Path
    notebook: Path
    key: str
    minutes: float
    memory_mb: int
    command: str
    threads: int = 1
    gpus: int = 0
    needs: tuple[Path, ...] = ()
    done: bool = False
    why: str = ""
    status: str = "not run"
    seconds: float | None = None
    peak_memory_mb: float | None = None
    error: str = ""

    @property
    def marker(self) -> Path:
        return self.out / "done"

    @property
    def resources(self) -> dict[str, int]:
        """What Snakemake asks a cluster for: MB, minutes, GPUs."""
        memory, runtime = self.memory_mb + SNAKEMAKE_MB, math.ceil(self.minutes) + SLACK
        return {"mem_mb": memory, "runtime": runtime, "gpu": self.gpus}

    def refresh(self, since: float = 0.0) -> Job:
        """Read the manifest again; one that is older than ``since`` (seconds of the epoch) does not count."""
        path = self.out / "manifest.json"
        with contextlib.suppress(OSError, ValueError):
            if path.stat().st_mtime >= since:
                stored = json.loads(path.read_text(encoding="utf-8"))
                self.status = stored["status"]
                self.seconds, self.peak_memory_mb = stored["seconds"], stored["peak_memory_mb"]
                error = stored.get("error") or {}
                self.error = ": ".join(str(error[k]) for k in ("name", "message") if error.get(k))
        return self


@dataclass
class GraphResult:
    """``ran`` are this call's jobs, ``current`` those that were done before; ``log`` is Snakemake's own."""

    ran: list[Job] = field(default_factory=list)
    current: list[Job] = field(default_factory=list)
    log: Path | None = None
    seconds: float = 0.0
    dry_run: bool = False

    @property
    def bad(self) -> list[Job]:
        return [] if self.dry_run else [job for job in self.ran if job.status != "ok"]

    @property
    def exit_code(self) -> int:
        """0 all ok, 3 when jobs were aborted or never ran but none failed, else 1."""
        if not self.bad:
            return 0
        return 1 if any(job.status == "failed" for job in self.bad) else 3


# --- which jobs there are --------------------------------------------------------------------------


def lesson_jobs(profile: str) -> dict[str, Job]:
    """Every lesson of a profile, by id."""
    package, jobs = provenance.package_sha(), {}
    for lesson in notebooks.lessons().values():
        code = notebooks.code_sha(lesson.notebook if lesson.notebook.is_file() else lesson.source)
        job = Job(
            name=lesson.id,
            out=find_root() / "build" / profile / lesson.source.stem,
            notebook=lesson.notebook,
            key=hashlib.sha256(f"{code} {package} {profile}".encode()).hexdigest(),
            minutes=max(15, 5 * lesson.minutes[profile]),  # the limit of `lesson-job`
            memory_mb=LESSON_MB,
            gpus=int(profile == "gpu"),
            command=f"lesson-job {lesson.id} --profile {profile}",
        )
        job.refresh()
        job.done = job.status == "ok" and _reads(job.marker) == job.key
        job.why = "" if job.done else "not run" if job.status == "not run" else "changed or not ended well"
        jobs[lesson.id] = job
    return jobs


def block_jobs(name: str, profile: str, only: experiments.Block | None = None) -> dict[str, Job]:
    """Every block of an experiment at a profile, by id; committed results count as done.

    ``only`` is one block with those that it needs: a node that runs one block reads no other's files.
    """
    experiment = experiments.load(name).at(profile)
    asked = experiment.resources
    jobs: dict[str, Job] = {}
    for block in experiment.blocks():
        if only is not None and block.id not in (only.id, *only.needs):
            continue
        built, why = experiment.built(block)
        job = Job(
            name=f"{name}/{block.id}",
            out=block.out,
            notebook=find_root() / "notebooks" / "experiments" / f"{experiment.notebook}.ipynb",
            key=experiment.key(block),
            minutes=asked.minutes,
            memory_mb=asked.memory_mb,
            command=f"block {name} {block.id} --profile {profile}",
            threads=asked.cores,
            gpus=asked.gpu,
            needs=tuple(jobs[need].marker for need in block.needs if not jobs[need].done),
            done=built is not None or experiment.lines(block) is not None,
            why=why,
        )
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
        elif grid in grids and not block:
            found = list(block_jobs(grid, profile).values())
        elif grid in grids:
            _, wanted = experiments.find_block(grid, block, profile)
            jobs = block_jobs(grid, profile, wanted)
            found = [*(jobs[need] for need in wanted.needs), jobs[block]]
        else:
            found = [lessons[notebooks.find(target).id]]
        chosen |= {job.name: job for job in found}
    return list(chosen.values())


def interpreter() -> str:
    """The Python that runs the jobs: INSTRUCTLAB_PYTHON (its path on a cluster's nodes), else this one."""
    return os.environ.get("INSTRUCTLAB_PYTHON", sys.executable)


def environment(profile: str, config: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """All that a job needs of its environment: a cluster may start it with an empty one.

    ``config`` is Snakemake's, which travels to the node with the job; see ``CARRIED``.
    """
    path = [str(PACKAGE), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {
        **dict.fromkeys(THREADS, "1"),
        "TOKENIZERS_PARALLELISM": "false",
        "INSTRUCTLAB_ROOT": str(find_root()),
        "INSTRUCTLAB_PROFILE": profile,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(path)),
        **{variable: str(config[name]) for name, variable in CARRIED.items() if config.get(name)},
    }


def executor_profile(name: str) -> tuple[Path, str]:
    """The folder profiles/<name> (or a folder of your own, by its path), and the executor that it names.

    Raises:
        ConfigError: for an unknown profile, and where its executor cannot work.
    """
    import yaml

    homes = [base / "profiles" for base in dict.fromkeys((find_root(), PACKAGE))]
    folder = next((home / name for home in homes if (home / name / "config.yaml").is_file()), None)
    if folder is None:
        known = sorted({path.parent.name for home in homes for path in home.glob("*/config.yaml")})
        raise ConfigError(f"unknown executor {name!r}{closest(name, known)}; known: {', '.join(known)}")
    try:
        options = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        kind = str(options.get("executor", "local"))
    except (yaml.YAMLError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{folder / 'config.yaml'}: not a table of YAML ({reason}); mend it.") from None
    plugin = f"snakemake_executor_plugin_{kind.replace('-', '_')}"
    if kind != "local" and importlib.util.find_spec(plugin) is None:
        raise ConfigError(
            f"executor {kind!r} is not installed; run `pip install {plugin.replace('_', '-')}`."
        )
    if kind == "slurm" and shutil.which("sbatch") is None:
        raise ConfigError("there is no `sbatch` here; call this on a login node of the Slurm cluster.")
    return folder, kind


def _reads(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


# --- running them ----------------------------------------------------------------------------------


def run_graph(
    targets: list[str] | tuple[str, ...],
    profile: str,
    workers: int | None = None,
    dry_run: bool = False,
    *,
    fresh: bool = False,
    executor: str = "local",
    on_progress: Callable[[list[Job]], None] | None = None,
) -> GraphResult:
    """Run what is left of ``targets`` with ``workers`` jobs at a time; one failure does not stop the others.

    ``executor`` is a folder of profiles/, which also says how many without ``workers``. ``on_progress`` gets
    this call's jobs about twice a second, their status refreshed. ``fresh`` runs all again.

    Raises:
        ConfigError: when another call is at work in this project, or Snakemake cannot start.
    """
    begin = time.time()
    jobs = all_jobs(targets, profile)
    result = GraphResult(dry_run=dry_run)
    result.current = [] if fresh else [job for job in jobs if job.done]
    result.ran = jobs if fresh else [job for job in jobs if not job.done]
    build = find_root() / "build"
    if not dry_run and not result.ran:
        end_killed()
    if dry_run or not result.ran:
        return result
    folder, kind = executor_profile(executor)
    if unbuilt := {job.notebook.stem for job in result.ran if not job.notebook.is_file()}:
        notebooks.build(sorted(unbuilt))
    build.mkdir(exist_ok=True)
    with _alone(build), _terminable():
        _end_left(build)
        if not fresh:  # another call may have ended since
            jobs = all_jobs(targets, profile)
            result.current, result.ran = [j for j in jobs if j.done], [j for j in jobs if not j.done]
            if not result.ran:
                return result
        else:
            for job in result.ran:
                for name in ("lines.jsonl", "manifest.json"):
                    (job.out / name).unlink(missing_ok=True)
        for job in result.ran:
            job.marker.unlink(missing_ok=True)
            job.status, job.seconds, job.peak_memory_mb, job.error = "not run", None, None, ""
        result.log = build / "snakemake.log"
        code = _snakemake(result, profile, workers, folder, kind, begin, on_progress)
        (build / ".graph.json").unlink(missing_ok=True)  # after an error it stays: the next call looks again
        for job in result.ran:
            job.refresh(begin)
        if on_progress is not None:
            on_progress(result.ran)
    result.seconds = time.time() - begin
    if (
        code != 0 and shutil.disk_usage(build).free < 2**16
    ):  # Snakemake's log says nothing then, for the same reason
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(build))
    if (code != 0 and not result.bad) or (code == 0 and result.bad):
        last = _reads(result.log).splitlines()[-1:] or ["no message"]
        raise ConfigError(f"Snakemake ended with code {code} ({last[0]}); its log is {result.log}.")
    if code != 0 and all(job.status == "not run" for job in result.ran):
        lines = [line for line in _reads(result.log).splitlines() if line.strip()]
        raise ConfigError(
            f"Snakemake could not start: {' '.join(lines[:3])[:400]} (all of it in {result.log})."
        )
    return result


def _command(*words: str) -> list[str]:
    root = find_root()
    places = ["--snakefile", str(root / "Snakefile"), "--directory", str(root)]
    return [sys.executable, "-m", "snakemake", *places, *words]


def _snakemake(
    result: GraphResult,
    profile: str,
    workers: int | None,
    folder: Path,
    kind: str,
    begin: float,
    on_progress: Callable[[list[Job]], None] | None,
) -> int:
    root = find_root()
    env = {**os.environ, **environment(profile)}
    settings = ["--profile", str(folder), "--config", f"profile={profile}"]
    settings += [f"{name}={os.environ[key]}" for name, key in CARRIED.items() if os.environ.get(key)]
    prefix = f"instructlab-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"
    own: list[str] = []
    if workers is not None:
        own += ["--cores" if kind == "local" else "--jobs", str(workers)]
    if kind == "slurm":
        own += ["--slurm-jobname-prefix", prefix]
    locks = root / ".snakemake" / "locks"
    assert result.log is not None
    with open(result.log, "w", encoding="utf-8") as log:
        options: dict = {"cwd": root, "env": env, "stdout": log, "stderr": subprocess.STDOUT}
        if locks.is_dir() and any(locks.iterdir()):  # left by a kill; we hold our own lock
            subprocess.run(_command("--unlock", *own, *settings), **options)
        targets = [job.marker.relative_to(root).as_posix() for job in result.ran]
        words = _command(*own, *settings, "--", *targets)
        process = subprocess.Popen(words, start_new_session=True, **options)
        try:
            _remember(root / "build", process.pid, prefix if kind == "slurm" else None)
            while True:
                try:
                    return process.wait(timeout=0.5)
                except subprocess.TimeoutExpired:
                    if on_progress is not None:
                        on_progress([job.refresh(begin) for job in result.ran])
        except BaseException:  # Ctrl-C: notebooks write their manifests, then everything ends
            _end_group(process.pid, gently=True)
            if kind == "slurm":
                _cancel_slurm(prefix)
            raise
        finally:
            _end_group(process.pid)
            process.wait()


# --- one at a time, and nothing left behind --------------------------------------------------------


def end_killed() -> None:
    """End what a killed call has left at work, where there is nothing else to do. ConfigError while another call runs."""
    build = find_root() / "build"
    if (build / ".graph.json").is_file():
        with _alone(build):
            _end_left(build)


@contextlib.contextmanager
def _alone(build: Path) -> Iterator[None]:
    """Hold the project's lock: a folder has one writer."""
    from filelock import FileLock, Timeout

    lock = FileLock(build / ".graph.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            "another run is at work in this project; wait for it, or stop it and call again."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _end_left(build: Path) -> None:
    """End what a killed predecessor has left running; its note goes when that is done."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        left = json.loads((build / ".graph.json").read_text(encoding="utf-8"))
        _end_orphans(left)
        if left.get("slurm"):
            _cancel_slurm(left["slurm"])
    (build / ".graph.json").unlink(missing_ok=True)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does, so that no job is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _remember(build: Path, pid: int, slurm: str | None) -> None:
    """Write down process group and names of Slurm jobs, so that the next call can end them if this is killed."""
    with contextlib.suppress(psutil.Error):
        started = psutil.Process(pid).create_time()
        left = {"group": pid, "started": started, "host": platform.node(), "slurm": slurm}
        files.write_json(build / ".graph.json", left)


def _cancel_slurm(prefix: str) -> None:
    """End the jobs whose names begin with ``prefix``, and wait until they have left: a folder has one writer."""
    ask = ["squeue", "--me", "--noheader", "--states=PD,CF,R,S,CG", "--format=%i %j"]
    deadline = time.monotonic() + 60
    while True:
        try:
            done = subprocess.run(ask, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            raise ConfigError("a killed call left Slurm jobs; call this once where `squeue` works.") from None
        rows = [line.split() for line in done.stdout.splitlines()]
        jobs = [row[0] for row in rows if row[-1].startswith(prefix)]
        if done.returncode or (jobs and time.monotonic() > deadline):
            reason = done.stderr.strip() or f"the jobs {', '.join(jobs)} do not end"
            raise ConfigError(f"jobs of a killed call: {reason}; look at `squeue --me`, then call again.")
        if not jobs:
            return
        subprocess.run(["scancel", *jobs], capture_output=True, timeout=60)
        time.sleep(1)


def _members(group: int) -> list:
    """Processes of a process group, and everything below them (kernels have sessions of their own)."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if (os.getpgid(process.pid) if hasattr(os, "getpgid") else process.pid) == group:
                for member in (process, *process.children(recursive=True)):
                    found[member.pid] = member
    return list(found.values())


def _end_group(group: int, *, gently: bool = False) -> None:
    members = _members(group)
    if gently:
        for process in members:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGTERM)
        _, members = psutil.wait_procs(members, timeout=15)
    for process in members:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(members, timeout=5)


def _end_orphans(left: dict) -> None:
    """End the group of a killed predecessor, unless its number now belongs to other processes."""
    if left.get("host", platform.node()) != platform.node():
        return  # process numbers of another login node
    group, started = int(left["group"]), float(left["started"])
    with contextlib.suppress(psutil.NoSuchProcess):
        if abs(psutil.Process(group).create_time() - started) > 2:
            return
    if any(process.create_time() < started - 2 for process in _members(group) if process.is_running()):
        return
    _end_group(group)
