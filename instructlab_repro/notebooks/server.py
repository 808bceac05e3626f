"""The server of warm processes: it imports, listens, and forks; see kernels.py for what it promises."""

from __future__ import annotations

import ast
import atexit
import contextlib
import gc
import importlib
import json
import os
import random
import selectors
import signal
import socket
import sys
import tempfile
import threading
import traceback
from pathlib import Path

from instructlab_repro.notebooks.kernels import INLINE, PACKAGE, SOURCES

IDLE = 120.0  # seconds after which a server that nobody uses ends
OPTIONAL = ("nbgrader", "torch.utils.tensorboard")  # heavy, and no lesson needs them
LATER = ("ipykernel.kernelapp", "ipykernel.ipkernel", "matplotlib_inline.config", "papermill.engines",
         "transformers.models.bert.modeling_bert", "transformers.models.llama.modeling_llama")  # fmt: skip


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
        with contextlib.suppress(SyntaxError, ValueError):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names |= {(alias.name, "") for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names |= {(node.module, alias.name) for alias in node.names}
    for module, name in sorted(names):
        if not module.startswith(OPTIONAL):
            with contextlib.suppress(Exception):
                found = importlib.import_module(module)
                if name and not hasattr(found, name):  # transformers loads at the first use of a name
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
    sys.argv = [target, *arguments]
    random.seed()
    sys.modules["numpy"].random.seed()  # an ordinary process begins with a random state of its own
    # Figures appear because the backend, when it is imported for the first one, finds a kernel.
    sys.modules.pop(INLINE.partition("//")[2], None)
    sys.modules["matplotlib"].rcParams["backend"] = INLINE if "kernel" in target else "agg"
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
