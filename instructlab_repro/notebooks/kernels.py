"""Warm processes: a server imports the libraries once and forks a kernel, or a job, for each request.

A fork takes a tenth of a second, the imports eight. The server computes nothing and has one thread, so a child has
the state of a process that has just imported the same modules: the same bits come out. Its socket lies in a folder
that only this user may enter; its name holds a hash of the packages' files, of the interpreter and of the variables
that libraries read when they are imported, so a changed file means another server. The connection of a request is
its child's lifeline: whoever asked keeps it open, and where it closes the child's whole session ends.
"""

from __future__ import annotations

import ast
import atexit
import contextlib
import gc
import hashlib
import importlib
import json
import os
import random
import select
import selectors
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2]
IDLE = 120.0  # seconds after which a server that nobody uses ends
PATIENCE = 180.0  # seconds until a request's child must have started; the server's own imports count
THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)
READ_AT_IMPORT = ("CUDA_", "DATASETS_", "HF_", "HOME", "HUGGINGFACE_", "LANG", "LC_", "LD_", "MALLOC_", "MATPLOTLIBRC",
                  "MPLCONFIGDIR", "PYTHON", "PYTORCH_", "TORCH", "TRANSFORMERS_", "XDG_")  # fmt: skip
# Processes of a cluster's job must stay in its own group; coverage must be there from the start.
FOREIGN = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "COVERAGE_PROCESS_START")
SOURCES = ("instructlab_utils", "instructlab_repro", "notebooks/source", "notebooks/experiments/source")
OPTIONAL = ("nbgrader", "torch.utils.tensorboard")  # heavy, and no lesson needs them
INLINE = "module://matplotlib_inline.backend_inline"
LATER = ("ipykernel.kernelapp", "ipykernel.ipkernel", "matplotlib_inline.config", "papermill.engines",
         "transformers.models.bert.modeling_bert", "transformers.models.llama.modeling_llama")  # fmt: skip


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
    sha = hashlib.sha256(repr((sys.executable, sys.version, PACKAGE, _python_path(env))).encode())
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


def _python_path(env: Mapping[str, str]) -> list[str]:
    return list(dict.fromkeys([str(PACKAGE), *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]))


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
                streams = [
                    nothing.fileno(),
                    *(stream.fileno() for stream in (sys.__stdout__, sys.__stderr__) if stream),
                ]
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
    with open(path.with_name("lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            connection.connect(str(path))
            return connection
        path.unlink(missing_ok=True)
        code = f"from instructlab_repro.notebooks import kernels; kernels.serve({str(path)!r})"
        own = {**env, **dict.fromkeys(THREADS, "1"), "PYTHONPATH": os.pathsep.join(_python_path(env))}
        own |= {"TOKENIZERS_PARALLELISM": "false", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
        own["JE_ARROW_MALLOC_CONF"] = "background_thread:false"  # pyarrow's, as soon as it is imported
        own["MPLBACKEND"] = (
            INLINE  # else matplotlib_inline's import makes pyplot choose, once for all children
        )
        with open(path.with_name("log"), "w") as log:
            subprocess.run([sys.executable, "-P", "-c", code], env=own, cwd="/", stdin=subprocess.DEVNULL,
                           stdout=log, stderr=log, start_new_session=True, check=True, timeout=60)  # fmt: skip
    connection.connect(str(path))
    return connection


# --- the server -------------------------------------------------------------------------------------


def serve(path: str) -> None:
    """Listen at ``path``, go on in a child of nobody, import, and fork for whoever asks, until nobody does."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    if os.fork():
        os._exit(0)  # the caller may connect; requests wait until the imports are done
    try:
        _Server(listener, preload()).run()
    except BaseException:
        traceback.print_exc()
    finally:
        Path(path).unlink(missing_ok=True)
        os._exit(0)  # to take the libraries apart would last a second


def preload() -> str:
    """Import what packages, lessons and experiments import anywhere in their sources, and what that loads later.

    Returns why nothing may be forked (a thread or the use of a GPU does not survive it), or an empty string.
    """
    names: set[tuple[str, str]] = {(name, "") for name in LATER}
    for path in (path for folder in SOURCES for path in sorted((PACKAGE / folder).rglob("*.py"))):
        with contextlib.suppress(SyntaxError):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names |= {(alias.name, "") for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names |= {(node.module, alias.name) for alias in node.names}
    for module, name in sorted(names):
        if not module.startswith(OPTIONAL):
            with contextlib.suppress(Exception):
                found = importlib.import_module(module)
                if name and not hasattr(
                    found, name
                ):  # transformers and others load at the first use of a name
                    importlib.import_module(f"{module}.{name}")
    gc.collect()
    gc.freeze()  # the collector would write into each page, and pages are shared until somebody writes
    tasks = Path("/proc/self/task")
    if threading.active_count() > 1 or (tasks.is_dir() and len(list(tasks.iterdir())) > 1):
        return "a library has started a thread when it was imported"
    return "a library has touched the GPU" if sys.modules["torch"].cuda.is_initialized() else ""


class _Server:
    def __init__(self, listener: socket.socket, refusal: str) -> None:
        self.listener, self.refusal = listener, refusal
        self.children: dict[int, socket.socket] = {}
        self.stopped = False

    def run(self) -> None:
        self.ended, wake = os.pipe()
        for end in (self.ended, wake):
            os.set_blocking(end, False)
        self.wake = wake
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake)
        self.selector = selectors.DefaultSelector()
        for each in (self.listener, self.ended):
            self.selector.register(each, selectors.EVENT_READ)
        while not self.stopped:
            ready = [key.fileobj for key, _ in self.selector.select(IDLE)]
            if not ready and not self.children:
                return
            if self.ended in ready:
                os.read(self.ended, 4096)
                self.reap()
            if self.listener in ready:
                connection, _ = self.listener.accept()
                with contextlib.suppress(OSError, ValueError):
                    self.answer(connection)

    def reap(self) -> None:
        """Tell those who asked how their children have ended."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                connection = self.children.pop(ended[0])
                with contextlib.suppress(OSError):
                    connection.sendall(str(os.waitstatus_to_exitcode(ended[1])).encode())
                connection.close()

    def answer(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        head, streams, _, _ = socket.recv_fds(connection, 4, 3)
        length = int.from_bytes(head, "big")
        if not length:  # stop, or only a look at whether somebody listens
            self.stopped = len(head) == 4 and not self.children
            connection.close()
            return
        request = b""
        while len(request) < length:
            part = connection.recv(length - len(request))
            if not part:
                raise ValueError("the request ended early")
            request += part
        connection.settimeout(None)
        if self.refusal:
            connection.sendall(self.refusal.encode())
            return
        if pid := os.fork():
            self.children[pid] = connection
            for stream in streams:
                os.close(stream)
            return
        code = 1
        try:
            self.leave(streams)
            code = _work(json.loads(request), connection)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def leave(self, streams: list[int]) -> None:
        """What makes a child of the server a process of its own."""
        os.setsid()
        signal.set_wakeup_fd(-1)
        for each in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.selector.close()
        self.listener.close()
        for end in (self.ended, self.wake):
            os.close(end)
        for other in self.children.values():
            other.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)


def _work(request: dict, connection: socket.socket) -> int:
    """Take over the request's environment, call its target, and return the exit code."""
    target, arguments, env = request["target"], request["arguments"], request["env"]
    os.environ.clear()
    os.environ.update(env)
    os.chdir(request["cwd"])
    tempfile.tempdir = None  # TMPDIR is the request's
    sys.path[:0] = [entry for entry in _python_path(env) if entry not in sys.path]
    sys.argv = [target, *arguments]
    random.seed()
    sys.modules["numpy"].random.seed()  # an ordinary process begins with a random state of its own
    # Figures appear because the backend, when it is imported for the first one, finds a kernel.
    sys.modules.pop(INLINE.partition("//")[2], None)
    sys.modules["matplotlib"].rcParams["backend"] = env.get(
        "MPLBACKEND", INLINE if "kernel" in target else "agg"
    )
    connection.sendall(str(os.getpid()).encode())

    def follow() -> None:
        connection.recv(1)  # nothing is ever sent: this ends when whoever asked has gone
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=follow, name="lifeline", daemon=True).start()
    module, name = target.split(":")
    code: object = 1
    try:
        code = getattr(importlib.import_module(module), name)(arguments)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if isinstance(code, str):
        os.write(2, f"{code}\n".encode())
    return code if isinstance(code, int) else int(code is not None)
