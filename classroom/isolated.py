"""One answer and its checker in a process of their own: `check` starts it, and this file is also what it runs."""

from __future__ import annotations

import builtins
import contextlib
import importlib.util
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

if __name__ != "__main__":
    from sandbox import PROCESSES, command

# The environment of an answer is this and nothing else: no variable of the caller may change what code means.
KEPT = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR")
HARNESS, NOBODY = "instructlab_utils.checking", 65534
LIBRARY = """builtins math copy inspect numpy numpy.linalg numpy.testing
torch torch.autograd torch.linalg torch.nn.functional torch.testing""".split()
SOUND = dict(vars(builtins))
__builtins__ = SOUND  # type: ignore[assignment]  # this module's own, and the checker's
Library = dict[tuple[str, ...], tuple[Any, int | str]]
Error = dict[str, str]  # name, message and, if something was raised, traceback


def check(
    given: list[str],
    names: list[str],
    answer: str,
    checker: str,
    seconds: float = 60,
    memory: int = 2**31,
    sandbox: str = "",
) -> tuple[Error, str]:
    """What a checker says of an answer (empty: it accepts), and the first 10,000 bytes of what was printed.

    `given` runs before the answer; the checker gets `names` of what the answer defines. `seconds` of wall-clock time
    hold the start of Python and all imports; `memory` is bytes beyond those in use before the answer runs (Linux). A
    process that was killed, or ended by the answer, gives no verdict: an error too. `sandbox`: see sandbox.py.
    """
    with tempfile.TemporaryDirectory(prefix="ilu-", ignore_cleanup_errors=True) as folder:
        work, verdict, seal = Path(folder, "work"), Path(folder, "verdict"), secrets.token_hex()
        work.mkdir()
        found = importlib.util.find_spec("instructlab_utils")  # a checker may import it
        course = str(Path(found.origin).parents[1]) if found and found.origin else str(work)
        job = {"given": given, "names": names, "answer": answer, "check": checker, "memory": memory}
        job |= {"verdict": str(verdict), "seal": seal, "path": course}
        chosen = {"HOME": str(work), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
        chosen |= {key: os.environ[key] for key in KEPT if key in os.environ}
        words = [sys.executable, "-I", "-X", "utf8", "-W", "ignore", __file__]
        if sandbox:
            verdict.touch()
            verdict.chmod(0o666 if sandbox == "docker" else 0o600)  # in a container somebody else writes it
            words = command(sandbox, __file__, course, Path(folder), chosen, seconds, memory)
            job, chosen = job | {"processes": PROCESSES}, dict(os.environ)
        with open(Path(folder, "printed"), "w+b") as printed:
            process = subprocess.Popen(
                words, stdin=-1, stdout=printed, stderr=printed, cwd=work, env=chosen, start_new_session=True
            )
            error = {"name": "TimeLimit", "message": f"no verdict after {seconds:g} s: an endless loop?"}
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(json.dumps(job).encode(), timeout=seconds)
                message = f"the process ended with status {process.returncode} before the checker was done"
                error = {"name": "NoVerdict", "message": message}
                with contextlib.suppress(OSError, ValueError, KeyError):
                    told = json.loads(verdict.read_bytes())
                    if told.pop("seal") == seal:
                        error = {key: text.encode(errors="replace").decode() for key, text in told.items()}
            with contextlib.suppress(ProcessLookupError):  # and all that the answer has started
                os.killpg(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()
            process.wait()
            printed.seek(0)
            return error, printed.read(10_000).decode(errors="replace")


def ready(kind: str) -> None:
    """Does the sandbox run here? RuntimeError with what it said, else every answer would be refused for its sake."""
    error, printed = {"message": f"{kind} is not installed"}, ""
    if shutil.which(kind):
        error, printed = check([], [], "", "", sandbox=kind)
    if error:
        said = printed.strip().replace("\n", "; ") or error["message"]
        raise RuntimeError(f"the sandbox {kind!r} does not run on this machine ({said}); nobody was graded")


# --- in the process ------------------------------------------------------------------------------------


def judge(job: dict[str, Any]) -> Error:
    """Empty if the checker accepts. The checker has its own namespace and is compiled before the answer runs. An
    answer that replaces what the checker relies on, at once or while it is called, is refused.
    """
    given: dict[str, Any] = {"__name__": "__main__"}
    try:
        for code in job["given"]:
            exec(compile(code, "<given>", "exec", dont_inherit=True), given)
        checker, ours = compile(job["check"], "<checker>", "exec", dont_inherit=True), dict(given)
        answer = sys.modules["__main__"] = ModuleType("__main__")
        vars(answer).update(given, __builtins__=builtins)
        before = _library(ours)
        _limit(job["memory"], job.get("processes", 0))
        exec(compile(job["answer"], "<answer>", "exec", dont_inherit=True), vars(answer))
        for name in job["names"]:
            if name not in vars(answer):
                raise NameError(f"the answer does not define {name}")
            before.pop(("", name), None)
            ours[name] = vars(answer)[name]
        exec(checker, ours)
        if replaced := _replaced(before, _library(ours)):
            raise PermissionError(f"the answer changed {replaced}; it may only define functions of its own")
    except BaseException as error:
        vars(builtins).update(SOUND)
        told = {"name": type(error).__name__, "message": "", "traceback": ""}
        try:
            told["message"] = str(error)
            told["traceback"] = "".join(
                line for line in traceback.format_exception(error) if __file__ not in line
            )
        except BaseException:
            told["message"] += " (its text cannot be shown)"
        return {key: text[-4000:] for key, text in told.items()}
    return {}


def _library(ours: dict[str, Any]) -> Library:
    """What a checker relies on, by the place where it hangs, each with a mark that shows a change of its inside."""
    modules = {m.__name__ for m in ours.values() if isinstance(m, ModuleType)}.union(LIBRARY, [HARNESS])
    spaces = {"": ours} | {name: vars(sys.modules[name]) for name in sorted(modules) if name in sys.modules}
    found: dict[tuple[str, ...], Any] = {}
    for where, space in spaces.items():
        for name, value in space.items():
            if callable(value) or isinstance(value, ModuleType) or (where and not name.startswith("_")):
                found[where, name] = value
            for part, method in vars(value).items() if isinstance(value, type) else ():
                if hasattr(type(method), "__get__"):
                    found[where, name, part] = method
    found.pop(("torch", "manual_seed"), None)  # torch itself replaces it when it loads its compiler
    return {key: (value, _mark(value, inside=key[0] == HARNESS)) for key, value in found.items()}


def _mark(value: Any, inside: bool) -> int | str:
    if type(value) is FunctionType:
        return id(value.__code__)
    return repr(value) if inside and isinstance(value, dict | list | set) else ""


def _replaced(before: Library, after: Library) -> str:
    """The first entry that is not what it was, or that is new in a class; or a hook; empty if there is none."""
    for key, (value, mark) in before.items():
        now = after.get(key, (None, ""))
        if now[0] is not value or now[1] != mark:
            return ".".join(key).lstrip(".")
    new = [".".join(key) for key in after if len(key) == 3 and key not in before and key[:2] in before]
    return new[0] if new else "the trace function" if sys.gettrace() or sys.getprofile() else ""


def _limit(memory: int, processes: int) -> None:
    """Memory beyond what is in use (Linux), files of 16 MiB, no core dump. Windows has no such limits.

    In a sandbox (`processes` is not 0) also the number of processes; root becomes nobody.
    """
    if os.name != "posix":
        return
    import resource

    limits = {resource.RLIMIT_FSIZE: 2**24, resource.RLIMIT_CORE: 0}
    if processes:
        limits[resource.RLIMIT_NPROC] = processes
        if os.geteuid() == 0:
            os.setgroups([]), os.setgid(NOBODY), os.setuid(NOBODY)
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + memory
    for kind, wanted in limits.items():
        hard = resource.getrlimit(kind)[1]
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (limit, limit))


if __name__ == "__main__":
    job, encode, write, leave = json.load(sys.stdin.buffer), json.JSONEncoder().encode, os.write, os._exit
    sys.path.insert(0, job["path"])
    seal, verdict = job.pop("seal"), os.open(job.pop("verdict"), os.O_WRONLY | os.O_CREAT)
    told = {"seal": seal} | judge(job)
    with contextlib.suppress(OSError):  # the file of what was printed is full
        sys.stdout.flush()
    write(verdict, encode(told).encode())
    leave(0)
