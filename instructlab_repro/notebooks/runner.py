"""One notebook through papermill, strictly: checked parameters, time limits, a manifest that is always true.

Papermill alone runs a mistyped parameter's default without a word, waits forever for a cell, and calls a cell
"completed" after a timeout. This module refuses the first and reports the others. Exit codes: 0 ok, 1 a cell
failed, 3 aborted (time limit, dead kernel, or a signal).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from instructlab_repro import provenance
from instructlab_repro.notebooks.budgets import keep
from instructlab_repro.notebooks.kernels import chosen_environment
from instructlab_repro.notebooks.manifest import Manifest
from instructlab_repro.notebooks.manifest import read_manifest as read_manifest
from instructlab_repro.notebooks.parameters import check_parameters, inspect_notebook
from instructlab_repro.notebooks.sources import code_sha
from instructlab_utils.errors import CourseError
from instructlab_utils.files import write_text
from instructlab_utils.project import resolve_profile, shown

KERNEL = ("-m", "ipykernel_launcher", "-f", "{connection_file}")
LONGEST_FOLDER = 60  # characters; a socket's whole path may have 104 on macOS, 108 on Linux


class _Watch:
    """Follows one kernel: its process, the memory of its tree, the cell that runs, and why it was ended."""

    def __init__(self, limit: float, cell_limit: float) -> None:
        self.limit, self.cell_limit = limit, cell_limit
        self.pid: int | None = None
        self.peak = self.resident = 0
        self.reason: tuple[str, str] | None = None
        self.cell: Any = None
        self.cell_start: float | None = None
        self.number = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="kernel-watch", daemon=True)

    def __enter__(self) -> _Watch:
        self._start = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _loop(self) -> None:
        while not self._stop.wait(0.1):
            now = time.monotonic()
            if self.reason is None and now - self._start > self.limit:
                self.reason = ("Timeout", f"the notebook's limit of {self.limit:g} s has passed")
            elif self.reason is None and self.cell_start and now - self.cell_start > self.cell_limit:
                self.reason = ("Timeout", f"the cell's limit of {self.cell_limit:g} s has passed")
            tree = _process_tree(self.pid) if self.pid is not None else []
            if self.reason is not None:
                for process in tree:
                    with contextlib.suppress(Exception):
                        process.kill()
                continue
            resident = sum(_memory(process) for process in tree)
            if resident > self.resident:  # reading the exact share takes longer, so only at a new height
                self.resident = resident + 2**20
                self.peak = max(self.peak, sum(_memory(process, shared=True) for process in tree))

    def enter(self, cell: Any) -> None:
        """A cell begins."""
        self.cell, self.cell_start = cell, time.monotonic()
        self.number += 1

    def error(self, name: str, message: str) -> dict[str, Any]:
        """The manifest's error fields, for something that happened in the present cell."""
        source = _first_line(self.cell.source) if self.cell is not None else ""
        return {"cell": self.number or None, "source": source, "name": name, "message": message}


def _process_tree(pid: int) -> list[Any]:
    import psutil

    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    return []


def _memory(process: Any, *, shared: bool = False) -> int:
    """Resident bytes; with ``shared``, pages that n processes share count 1/n each where the system can tell (PSS).

    A forked kernel shares what the server has imported with its siblings.
    """
    import psutil

    for ask in (process.memory_full_info, process.memory_info) if shared else (process.memory_info,):
        with contextlib.suppress(psutil.Error, OSError):  # it may end while it is read
            found = ask()
            return int(getattr(found, "pss", found.rss))
    return 0


def run_notebook(
    path: str | Path,
    out: Path,
    parameters: Mapping[str, Any],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    cell_timeout: float | None = None,
    threads: int = 1,
    progress: bool = False,
) -> Manifest:
    """Run a notebook into ``out``: executed.ipynb, manifest.json, and the metrics.json that it records.

    ``timeout`` limits the whole notebook, ``cell_timeout`` one cell (both in seconds); ``env`` is added to
    the kernel's environment. The kernel works in the notebook's own folder, as in Jupyter, with ``threads``
    threads. Returns the manifest whatever happens in the notebook; raises ParameterError or NotebookError,
    before anything is written, if the parameters or the file are wrong.
    """
    path, out = Path(path).resolve(), Path(out).resolve()
    values = check_parameters(inspect_notebook(path), parameters)
    kernel_env = {**chosen_environment(threads), "INSTRUCTLAB_RUN_DIR": str(out), **(env or {})}
    profile = str(values.get("profile", "auto"))
    if profile == "auto":
        profile = kernel_env.get("INSTRUCTLAB_PROFILE", "laptop")
    seed, sha = int(values.get("seed", 0)), code_sha(path)
    manifest = Manifest(shown(path), values, sha, resolve_profile(profile), seed)
    manifest.threads, manifest.started, manifest.versions = threads, _now(), provenance.environment()
    if manifest.profile == "gpu":  # the variable may say something else
        kernel_env["INSTRUCTLAB_WARM"] = "0"
    out.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(CourseError):  # else none is there
        if code_sha(out / "executed.ipynb") != read_manifest(out).code_sha:  # somebody worked in it
            keep(out / "executed.ipynb")
    for stale in ("executed.ipynb", "metrics.json"):
        (out / stale).unlink(missing_ok=True)
    manifest.write(out)
    watch = _Watch(timeout, cell_timeout or timeout)
    begin = time.monotonic()
    with _signals(watch), _sockets() as config, watch:
        kernel_env["IPYTHONDIR"] = str(Path(config.KernelManager.connection_file).parent)  # no start-up files
        try:
            notebook = _papermill(path, out, values, config, kernel_env, watch, progress)
        except BaseException as error:
            manifest.status, manifest.error = _explain(error, watch)
        else:
            manifest.status = "ok"
            code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
            if unrun := [cell for cell in code if cell.execution_count is None]:
                # papermill takes sys.exit() for success
                manifest.status = "failed"
                manifest.error = watch.error("SystemExit", f"{len(unrun)} cells after it did not run")
    manifest.seconds = round(time.monotonic() - begin, 2)
    manifest.peak_memory_mb = round(watch.peak / 2**20, 1)
    manifest.ended = _now()
    manifest.write(out)
    return manifest


def _papermill(
    path: Path,
    out: Path,
    values: dict[str, Any],
    config: Any,
    env: dict[str, str],
    watch: _Watch,
    progress: bool,
) -> Any:
    import papermill
    from jupyter_client import AsyncKernelManager
    from papermill.iorw import LocalHandler, papermill_io

    from instructlab_repro.notebooks import client as client  # registers the engine
    from instructlab_repro.notebooks import provisioner

    class Whole(LocalHandler):
        """Papermill writes in place: a kill or a full disk would leave half a notebook, which nobody can open."""

        def write(self, buf: str, path: str) -> None:
            if re.search(r"\b(NaN|Infinity)\b", buf):  # no JSON, and Jupyter cannot open it
                buf = json.dumps(json.loads(buf, parse_constant=str), indent=1, ensure_ascii=False) + "\n"
            write_text(path, buf)

    class Manager(AsyncKernelManager):
        """Starts the kernel with its own environment and tells the watch its process id."""

        async def start_kernel(self, **kw: Any) -> None:  # type: ignore[override]
            if self.kernel_spec is not None and self.kernel_spec.argv:
                # not what a kernel registered by the user says
                self.kernel_spec.argv, self.kernel_spec.env = [sys.executable, *KERNEL], {}
                chosen = {"provisioner_name": provisioner.register()}
                self.kernel_spec.metadata = {**self.kernel_spec.metadata, "kernel_provisioner": chosen}
            await self._async_start_kernel(**{**kw, "env": env})
            watch.pid = getattr(self.provisioner, "pid", None)

    papermill_io.register(str(out), Whole())  # paths that start so
    for name in ("papermill", "traitlets"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what they would say stands in the manifest
    # papermill takes a brace in a path for the name of a parameter
    names = [str(file).replace("{", "{{").replace("}", "}}") for file in (path, out / "executed.ipynb")]
    return papermill.execute_notebook(
        *names,
        parameters=values,
        cwd=str(path.parent),
        progress_bar={"desc": path.stem, "leave": False} if progress else False,
        execution_timeout=round(watch.cell_limit) + 30,  # the watch comes first; this is the second lock
        start_timeout=120,
        engine_name="capped",
        stopped=lambda: watch.reason is not None,
        config=config,
        kernel_manager_class=Manager,
        on_cell_execute=lambda cell, cell_index: watch.enter(cell),
        kernel_name="python3",
    )


def _explain(error: BaseException, watch: _Watch) -> tuple[str, dict[str, Any]]:
    """Status and error fields for what papermill raised."""
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    if watch.reason is not None:
        return "aborted", watch.error(*watch.reason)
    if isinstance(error, PapermillExecutionError):
        entry = {"cell": error.exec_count, "source": _first_line(error.source)}
        return "failed", {**entry, "name": error.ename, "message": error.evalue}
    if isinstance(error, DeadKernelError) or "Kernel died" in str(error):
        return "aborted", watch.error("DeadKernel", "the kernel died; often the machine was out of memory")
    return "aborted", watch.error(type(error).__name__, str(error).strip()[:500])


@contextlib.contextmanager
def _signals(watch: _Watch) -> Iterator[None]:
    """SIGTERM and Ctrl-C end the kernel and are written down; a second one has its usual effect."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(number: int, _: object) -> None:
        watch.reason = watch.reason or ("Interrupted", f"stopped by {signal.Signals(number).name}")
        signal.signal(number, before[number])

    before = {int(each): signal.signal(each, handler) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for each, previous in before.items():
            signal.signal(each, previous)


@contextlib.contextmanager
def _sockets() -> Iterator[Any]:
    """Kernel settings with a folder for sockets that no other kernel shares; TCP on Windows, which has none.

    Kernels that take free TCP ports at the same moment can take the same one, and Jupyter's default socket
    name is relative to the working directory; both let parallel runs talk to each other's kernels.
    """
    from traitlets.config import Config

    posix = os.name == "posix"
    base = "/tmp" if posix and len(tempfile.gettempdir()) > LONGEST_FOLDER else None
    with tempfile.TemporaryDirectory(prefix="ilu-", dir=base, ignore_cleanup_errors=True) as folder:
        sockets = {"transport": "ipc", "ip": str(Path(folder) / "k")} if posix else {}
        yield Config({"KernelManager": {"connection_file": str(Path(folder) / "kernel.json"), **sockets}})


def describe(manifest: Manifest, out: Path) -> str:
    """For a person: what ran and how long, or which cell failed and where the partial notebook lies."""
    cost = f"{manifest.seconds:.1f} s · {manifest.peak_memory_mb:.0f} MB"
    head = f"{manifest.notebook} · {manifest.status} · {cost}"
    if manifest.error is None:
        return f"{head} · {shown(out / manifest.executed)}"
    error, partial = manifest.error, out / manifest.executed
    cell = f"cell [{error['cell']}]" if error["cell"] else "before the first cell"
    source = f" `{error['source']}`" if error["source"] else ""
    message = f"{error['name']}: {error['message']}".strip().splitlines()[0]
    where = f"\n  partial notebook: {shown(partial)}" if partial.exists() else ""
    return f"{head}\n  {cell}{source}: {message}{where}"


def _first_line(source: str) -> str:
    return next((row.strip() for row in source.splitlines() if row.strip()), "")[:100]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
