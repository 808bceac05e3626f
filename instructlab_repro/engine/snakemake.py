"""Snakemake at work: run what is left, one call at a time in a project, and leave nothing behind.

Manifest and executed notebook are declared as logs, since Snakemake deletes the outputs of failed jobs. Killed at any
moment and called again, :func:`run_graph` does only what is missing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from instructlab_repro import notebooks
from instructlab_repro.engine.jobs import Job, all_jobs, environment, read_line, sent
from instructlab_repro.experiments import stored
from instructlab_repro.notebooks.kernels import PACKAGE
from instructlab_utils import files
from instructlab_utils.errors import ConfigError
from instructlab_utils.project import closest, find_root, text_of

Progress = Callable[[list[Job]], None]
NOTE, LOG = ".graph.json", "snakemake.log"  # in build/: who is at work, and what Snakemake said
CLOSING = ("Shutting down", "Complete log", "Exiting because", "At least one job did not")
LATE = 0.4  # the share of the jobs, the longest, before which no other starts


@dataclass
class GraphResult:
    """``ran`` are this call's jobs, ``current`` those that were done before."""

    ran: list[Job] = field(default_factory=list)
    current: list[Job] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def bad(self) -> list[Job]:
        return [job for job in self.ran if job.status != "ok"]

    @property
    def exit_code(self) -> int:
        """0 all ok, 1 when a job failed, 3 when jobs were only aborted or never ran."""
        ended = {job.status for job in self.bad}
        return 1 if "failed" in ended else 3 if ended else 0


def run_graph(
    targets: Sequence[str],
    profile: str,
    workers: int | None = None,
    *,
    fresh: bool = False,
    executor: str = "local",
    on_progress: Progress | None = None,
) -> GraphResult:
    """Run what is left of ``targets`` with ``workers`` jobs at a time; one failure does not stop the others.

    ``executor`` is a folder of profiles/, which also says how many without ``workers``. ``on_progress`` gets
    this call's jobs about twice a second, their status refreshed. ``fresh`` runs all again.

    ConfigError when another call is at work in this project, or Snakemake cannot start.
    """
    begin, build = time.time(), find_root() / "build"
    build.mkdir(exist_ok=True)
    with _alone(build), _terminable():
        _end_left(build)
        result = GraphResult()
        for job in all_jobs(tuple(targets), profile):
            (result.current if job.done and not fresh else result.ran).append(job)
        if not result.ran:
            return result
        folder, kind = executor_profile(executor)
        if unbuilt := {job.notebook.stem for job in result.ran if not job.notebook.is_file()}:
            notebooks.build(sorted(unbuilt))
        _clear(result.ran, fresh)
        code = _Snakemake(result, profile, workers, folder, kind).run(on_progress)
        (build / NOTE).unlink(missing_ok=True)  # after an error it stays: the next call looks again
        for job in result.ran:
            job.refresh()
        if on_progress is not None:
            on_progress(result.ran)
    result.seconds = time.time() - begin
    _explain(code, result, build)
    return result


def _clear(jobs: list[Job], fresh: bool) -> None:
    """Forget how these jobs ended; ``fresh`` also empties what they have stored, so that no committed line steps in."""
    for job in jobs:
        for name in ("done", "manifest.json") if fresh else ("done",):
            (job.out / name).unlink(missing_ok=True)
        if fresh:
            files.write_lines(job.out / "lines.jsonl", [])
        job.manifest, job.before = None, stored.version(job.out / "manifest.json")


def _explain(code: int, result: GraphResult, build: Path) -> None:
    """Raise what Snakemake's exit code means where the jobs do not say it."""
    if code != 0 and shutil.disk_usage(build).free < 2**16:  # its log says nothing then, for the same reason
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(build))
    lines = [line for line in read_line(build / LOG).splitlines() if line.strip()]
    said = " / ".join(line.strip() for line in lines if not line.startswith(CLOSING))[-400:] or "no message"
    if (code != 0) != bool(result.bad):
        raise ConfigError(f"Snakemake ended with code {code}: … {said} (all of it in {build / LOG}).")
    if code != 0 and all(job.status == "not run" for job in result.ran):
        raise ConfigError(f"Snakemake could not start: … {said} (all of it in {build / LOG}).")


@dataclass
class _Snakemake:
    """One call of Snakemake for the jobs of ``result``; ``folder`` holds its profile."""

    result: GraphResult
    profile: str
    workers: int | None
    folder: Path
    kind: str

    def words(self, *own: str) -> list[str]:
        """The command line; it is called in the project's root."""
        words = [sys.executable, "-m", "snakemake", *own, "--profile", str(self.folder)]
        if self.workers is not None:
            words += ["--cores" if self.kind == "local" else "--jobs", str(self.workers)]
        if self.kind == "slurm":
            words += ["--slurm-jobname-prefix", self.prefix]
        return [*words, "--config", f"profile={self.profile}", sent()]

    @property
    def prefix(self) -> str:
        """How the names of this project's Slurm jobs begin."""
        return f"instructlab-{hashlib.sha256(str(find_root()).encode()).hexdigest()[:8]}"

    def targets(self) -> list[str]:
        """All jobs; the longest are started first, so that the workers end together."""
        jobs = sorted(self.result.ran, key=lambda job: -job.expected)
        markers = [job.marker.relative_to(find_root()).as_posix() for job in jobs]
        known = sum(job.expected > 0 for job in jobs)
        first = markers[: min(known, int(LATE * len(jobs)))]
        return [*(["--prioritize", *first] if first else []), "--", *markers]

    def run(self, on_progress: Progress | None) -> int:
        """Start it, follow it to its end; its exit code. Whatever ends this call ends the jobs."""
        root, env = find_root(), environment(self.profile)
        locks = root / ".snakemake" / "locks"
        if self.kind == "local":
            notebooks.start_warm(env)  # it imports while Snakemake does
        with open(root / "build" / LOG, "w", encoding="utf-8") as log:
            options: dict = {"cwd": root, "env": env, "stdout": log, "stderr": subprocess.STDOUT}
            if locks.is_dir() and any(locks.iterdir()):  # left by a kill; we hold our own lock
                subprocess.run(self.words("--unlock"), **options)
            words = [*self.words(), *self.targets()]
            process = subprocess.Popen(words, start_new_session=True, **options)
            try:
                _remember(root / "build", process.pid, self.prefix if self.kind == "slurm" else None)
                while True:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        return process.wait(timeout=0.5)
                    if on_progress is not None:
                        on_progress([job.refresh() for job in self.result.ran])
            except BaseException:  # Ctrl-C: notebooks write their manifests, then everything ends
                _end_group(process.pid, gently=True)
                if self.kind == "slurm":
                    _cancel_slurm(self.prefix)
                raise
            finally:
                _end_group(process.pid)
                process.wait()
                notebooks.stop_warm(env)


def executor_profile(name: str) -> tuple[Path, str]:
    """The folder profiles/<name> (or a folder of your own, by its path), and the executor that it names.

    ConfigError for an unknown profile, and where its executor cannot work.
    """
    import yaml

    homes = [base / "profiles" for base in dict.fromkeys((find_root(), PACKAGE))]
    folder = next((home / name for home in homes if (home / name / "config.yaml").is_file()), None)
    if folder is None:
        known = sorted({path.parent.name for home in homes for path in home.glob("*/config.yaml")})
        raise ConfigError(f"unknown executor {name!r}{closest(name, known)}; known: {', '.join(known)}")
    try:
        options = yaml.safe_load(text_of(folder / "config.yaml"))
        kind = str(options.get("executor", "local"))
    except (yaml.YAMLError, AttributeError) as e:
        why = " ".join(str(e).split())
        raise ConfigError(f"{folder}/config.yaml: not a table of YAML ({why}).") from None
    extra = f"snakemake_executor_plugin_{kind.replace('-', '_')}"
    if kind != "local" and importlib.util.find_spec(extra) is None:
        raise ConfigError(f"executor {kind!r} is not installed; run `pip install {extra.replace('_', '-')}`.")
    if kind == "slurm" and shutil.which("sbatch") is None:
        raise ConfigError("there is no `sbatch` here; call this on a login node of the Slurm cluster.")
    return folder, kind


# --- one at a time, and nothing left behind --------------------------------------------------------


def end_killed() -> None:
    """End what a killed call has left at work, where there is nothing else to do. ConfigError while another call runs."""
    build = find_root() / "build"
    if (build / NOTE).is_file():
        with _alone(build):
            _end_left(build)


@contextlib.contextmanager
def _alone(build: Path) -> Iterator[None]:
    """Hold the project's lock: a folder has one writer."""
    from filelock import FileLock, Timeout

    try:
        held = FileLock(build / ".graph.lock").acquire(timeout=0)
    except Timeout:
        reason = "another run is at work in this project; wait for it, or stop it and call again."
        raise ConfigError(reason) from None
    with held:
        yield


def _end_left(build: Path) -> None:
    """End what a killed predecessor has left running; its note goes when that is done."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        left = json.loads((build / NOTE).read_text(encoding="utf-8"))
        _end_orphans(left)
        if left.get("slurm"):
            _cancel_slurm(left["slurm"])
    (build / NOTE).unlink(missing_ok=True)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does, so that no job is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _remember(build: Path, pid: int, slurm: str | None) -> None:
    """Write down process group and names of Slurm jobs, so that the next call can end them if this is killed."""
    with contextlib.suppress(psutil.Error):
        started = psutil.Process(pid).create_time()
        left = {"group": pid, "started": started, "host": platform.node(), "slurm": slurm}
        files.write_json(build / NOTE, left)


def _cancel_slurm(prefix: str) -> None:
    """End the jobs whose names begin with ``prefix``, and wait until they have left: a folder has one writer."""
    ask = ["squeue", "--me", "--noheader", "--states=PD,CF,R,S,CG", "--format=%i %j"]
    deadline = time.monotonic() + 60
    while True:
        try:
            done = subprocess.run(ask, capture_output=True, encoding="utf-8", timeout=60)
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
    group, started = int(left["group"]), float(left["started"])
    if left.get("host", platform.node()) != platform.node():
        return  # process numbers of another login node
    with contextlib.suppress(psutil.NoSuchProcess):
        if abs(psutil.Process(group).create_time() - started) > 2:
            return
    if any(process.create_time() < started - 2 for process in _members(group) if process.is_running()):
        return
    _end_group(group)
