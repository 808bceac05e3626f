"""Warm processes, for whoever asks: a server imports the libraries once and forks a kernel, or a job, for each request.

A fork takes a tenth of a second, the imports eight. The server computes nothing and has one thread, so a child has
the state of a process that has just imported the same modules: the same bits come out. Its socket lies in a folder
that only this user may enter; its name holds a hash of the packages' files, of the interpreter and of the variables
that libraries read when they are imported, so a changed file means another server. The connection of a request is
its child's lifeline: whoever asked keeps it open, and where it closes the child's whole session ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path

from instructlab_utils.project import clone

PACKAGE = Path(__file__).resolve().parents[2]
PATIENCE = 180.0  # seconds until a request's child must have started; the server's own imports count
THREADS = tuple(f"{library}_NUM_THREADS" for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "RAYON"))
READ_AT_IMPORT = ("CUDA_", "DATASETS_", "HF_", "HOME", "HUGGINGFACE_", "LANG", "LC_", "LD_", "MALLOC_", "MATPLOTLIBRC",
                  "MPLCONFIGDIR", "PYTHON", "PYTORCH_", "TORCH", "TRANSFORMERS_", "XDG_")  # fmt: skip
# Processes of a cluster's job must stay in its own group; coverage must be there from the start.
FOREIGN = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "COVERAGE_PROCESS_START")
SOURCES = ("instructlab_utils", "instructlab_repro", "notebooks/source", "notebooks/experiments/source")
# The server starts with it: importing matplotlib_inline makes pyplot choose a backend, once for all children.
INLINE = "module://matplotlib_inline.backend_inline"


# What changes a program's meaning, its text or its figures is ours to choose, not that of whoever starts it.
CHOSEN = {"PYTHONPATH": str(PACKAGE), "PYTHONUTF8": "1", "LC_ALL": "C.UTF-8", "TZ": "UTC", "MATPLOTLIBRC": os.devnull,
          "TOKENIZERS_PARALLELISM": "false"}  # fmt: skip
DROPPED = ("PYTHON", "IPYTHON", "MPLBACKEND", "LANG", "LC_")


def chosen_environment(threads: int | None = 1) -> dict[str, str]:
    """All that a kernel or a job finds in its environment; without ``threads``, for a process of our own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(DROPPED)} | CHOSEN
    ours = dict.fromkeys(THREADS, str(threads)) if threads else {}
    return kept | ours | ({"INSTRUCTLAB_ROOT": str(root)} if threads and (root := clone()) else {})


def unfit(env: Mapping[str, str]) -> str:
    """Why a process with this environment must be an ordinary one; empty where it may be forked."""
    wish = env.get("INSTRUCTLAB_WARM", "")
    if not hasattr(os, "fork") or (sys.platform != "linux" and wish != "1"):
        return "not tried on this system"
    if wish == "0":
        return "INSTRUCTLAB_WARM is 0"
    if env.get("OMP_NUM_THREADS") != "1" or any(env.get(name, "1") != "1" for name in THREADS):
        return "more than one thread"
    if env.get("INSTRUCTLAB_PROFILE") == "gpu":
        return "the gpu profile"
    return next((f"{name} is set" for name in FOREIGN if name in env), "")


def socket_path(env: Mapping[str, str]) -> Path:
    """The socket of the server for this code and environment. OSError if its folder is not private."""
    sha = hashlib.sha256(repr((sys.executable, sys.version, PACKAGE)).encode())
    sha.update(str(os.stat(sysconfig.get_path("purelib")).st_mtime_ns).encode())  # an installation changes it
    for package in SOURCES[:2]:
        for path in sorted((PACKAGE / package).rglob("*")):
            if path.suffix in (".py", ".toml"):
                sha.update(f"\0{path}\0".encode() + path.read_bytes())
    for name in sorted(env):
        if name.startswith(READ_AT_IMPORT) and name != "PYTHONPATH":
            sha.update(f"\0{name}={env[name]}".encode())
    base = tempfile.gettempdir() if len(tempfile.gettempdir()) < 40 else "/tmp"
    folder = Path(base) / f"instructlab-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o170077 != 0o040000:
        raise OSError(f"{folder} is not a private folder of this user; remove it")
    return folder / sha.hexdigest()[:16]


# --- who asks ---------------------------------------------------------------------------------------


class Forked:
    """A process that the server has forked, as ``subprocess.Popen`` shows one; dropping it ends the process."""

    stdin = stdout = stderr = None

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self._connection, self.pid = connection, pid
        self.returncode: int | None = None

    def _read(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], timeout)[0]:
            code = b""
            with contextlib.suppress(ConnectionError):
                code = self._connection.recv(16)
            self.returncode = int(code) if code else -signal.SIGKILL  # nobody is left who could tell
            self._connection.close()
        return self.returncode

    def poll(self) -> int | None:
        return self._read(0.0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._read(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def fork(
    target: str, arguments: list[str], env: Mapping[str, str], cwd: str | os.PathLike[str]
) -> Forked | None:
    """A process that calls ``target`` ("module:function") with ``arguments``; None, with a note, if there is none.

    It has this process's standard streams (no input), and ``env`` and ``cwd`` of its own.
    """
    asked = {"target": target, "arguments": arguments, "env": dict(env), "cwd": str(cwd)}
    request, reason = json.dumps(asked).encode(), ""
    for _ in range(2):  # a server may end in the moment in which it is asked
        try:
            connection = _connect(env)
            connection.settimeout(PATIENCE)
            with open(os.devnull) as nothing:
                streams = [s.fileno() for s in (nothing, sys.__stdout__, sys.__stderr__) if s]
                socket.send_fds(connection, [len(request).to_bytes(4, "big")], streams)
            connection.sendall(request)
            answer = connection.recv(200).decode()
            if answer.isdigit():
                connection.settimeout(None)
                return Forked(connection, int(answer))
            connection.close()
            reason = answer or "the server has ended"
            if answer:
                break
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            reason = str(error) or type(error).__name__
    print(f"note: no warm process ({reason}); an ordinary one is started", file=sys.stderr)
    return None


def start(env: Mapping[str, str]) -> None:
    """Let the server of this environment begin its imports, if it may be used; returns at once."""
    if not unfit(env):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            _connect(env).close()


def stop(env: Mapping[str, str]) -> None:
    """End the server of this environment, if it is there and nobody uses it."""
    if not unfit(env):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(socket_path(env)))
            connection.sendall((0).to_bytes(4, "big"))


def delegate(target: str, arguments: list[str]) -> int | None:
    """Let a warm process make a command's call; its exit code, or None where the caller must do it itself."""
    if unfit(os.environ) or (process := fork(target, arguments, os.environ, Path.cwd())) is None:
        return None
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: process.send_signal(number))
    code = process.wait()
    if code < 0:  # end as it has ended
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def _connect(env: Mapping[str, str]) -> socket.socket:
    """A connection to the server of this environment, which is started under a lock if it is not there."""
    import fcntl

    path = socket_path(env)
    connection = socket.socket(socket.AF_UNIX)
    with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
        connection.connect(str(path))
        return connection
    with open(path.with_name("lock"), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            connection.connect(str(path))
            return connection
        path.unlink(missing_ok=True)
        code = f"from instructlab_repro.notebooks import server; server.serve({str(path)!r})"
        own = {name: value for name, value in env.items() if not name.startswith("INSTRUCTLAB_")}
        own |= dict.fromkeys(THREADS, "1") | CHOSEN | {"MPLBACKEND": INLINE}
        own["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # to ask for a GPU must not open it
        own["JE_ARROW_MALLOC_CONF"] = "background_thread:false"  # pyarrow starts one when it is imported
        with open(path.with_name("log"), "wb") as log:
            subprocess.run([sys.executable, "-P", "-c", code], env=own, cwd="/", stdin=subprocess.DEVNULL,
                           stdout=log, stderr=log, start_new_session=True, check=True, timeout=60)  # fmt: skip
    connection.connect(str(path))
    return connection
