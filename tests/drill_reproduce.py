"""Six faults against `reproduce`, at random moments; the next call must finish with equal metrics and predictions.

``python tests/drill_reproduce.py --times 20`` prints a line per round and exits 1 if anything differs. Every six
rounds hold each fault once: kill -9 of the engine, of a worker, of a kernel; a full disk; a corrupt result line; two
calls at once. The project is a toy, but Snakefile, command, papermill and kernels are the real ones.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
from toy_project import SOURCE

REPOSITORY = Path(__file__).resolve().parents[1]
FAULTS = ("engine", "worker", "kernel", "disk", "line", "two")
BLOCKS = {"tune": 6, "a-n4-s0": 6, "a-n4-s1": 6, "a-n4-s2": 6}  # lines of each
VOLATILE = ("seconds", "cpu_seconds", "peak_memory_mb", "block_seconds", "environment", "made")
PATIENCE = 900  # seconds for one call; an idle machine needs about 20

TOML = """
name = "toy"
title = "A toy"
notebook = "toy"
revision = 1
methods = ["floor", "small", "large"]
inside = ["width"]
[axes]
task = ["a"]
n_train = [4]
width = [1, 2]
seed = [0, 1, 2]
[tuning]
at = { task = "a", n_train = 4, seed = 9, width = 1 }
metric = "dev_accuracy"
[tuning.values]
small = { C = [1.0, 2.0, 3.0] }
large = { rate = [0.1, 0.2, 0.3] }
[resources]
minutes = 15
memory_mb = 300
[[tables]]
metric = "accuracy"
title = "Accuracy"
"""

NOTEBOOK = (
    SOURCE
    + """
# %% tags=["parameters"]
profile: str = "laptop"
stage: str = "run"
task: str = "a"
n_train: int = 4
seed: int = 0

# %%
import os
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from instructlab_utils import Run
from instructlab_repro import experiments

root, out = (Path(os.environ[f"INSTRUCTLAB_{name}"]) for name in ("ROOT", "RUN_DIR"))
(out / "pid").write_text(str(os.getpid()))
run = Run("toy", profile, seed, "cpu", root, out, SimpleNamespace())  # without torch: a block lasts seconds
spec = experiments.load("toy").at(profile)
block = spec.block(stage=stage, task=task, n_train=n_train, seed=seed)

# %%
for trial in spec.trials(block):
    if run.have(trial.key):
        continue
    with run.measure() as cost:
        time.sleep(0.2)
        place = f"{seed} {trial.method} {dict(trial.inside)} {dict(trial.tuned)}"
        rng = np.random.default_rng(zlib.crc32(place.encode()))
        targets = rng.integers(0, 2, 50)
        predictions = np.where(rng.random(50) < 0.7, targets, 1 - targets)
    accuracy = float((predictions == targets).mean())
    run.line(
        spec.identity(block) | trial.key, **vars(cost), accuracy=accuracy, macro_f1=accuracy,
        dev_accuracy=float(rng.random()), trainable_parameters=len(trial.method), steps=1, test_loss=1 - accuracy,
        predictions=predictions.tolist(), targets=targets.tolist(), made=time.time_ns(),
    )
run.record(runs=len(spec.trials(block)))
"""
)


class Broken(Exception):
    """A round that did not go as promised; the text says how."""


def check(condition: bool, text: str) -> None:
    if not condition:
        raise Broken(text)


# --- the toy project and its processes ---------------------------------------------------------------


def make(root: Path) -> None:
    files = {
        "data/assets.toml": "",
        "pyproject.toml": "",
        "data/experiments/toy.toml": TOML,
        "notebooks/experiments/source/toy.py": NOTEBOOK,
        "Snakefile": (REPOSITORY / "Snakefile").read_text(encoding="utf-8"),
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


class Call:
    """One `reproduce` in a process group of its own; what it prints goes to a file outside of the project."""

    def __init__(self, root: Path) -> None:
        env = {k: v for k, v in os.environ.items() if not k.startswith("INSTRUCTLAB_")}
        env |= {"INSTRUCTLAB_ROOT": str(root), "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        self.printed = tempfile.TemporaryFile("w+", encoding="utf-8")
        command = [sys.executable, "-m", "instructlab_utils", "reproduce", "toy", "--workers", "2"]
        options: dict[str, Any] = {"stdout": self.printed, "stderr": subprocess.STDOUT}
        self.process = subprocess.Popen(command, cwd=root, env=env, start_new_session=True, **options)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> tuple[int, str]:
        """Exit code and all that was printed."""
        try:
            code = self.process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Broken(f"the call hung for {PATIENCE} s") from None
        self.printed.seek(0)
        return code, self.printed.read()


def processes(root: Path) -> list[psutil.Process]:
    """Every living process of the toy project."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ours = process.environ().get("INSTRUCTLAB_ROOT") == str(root)
            ours = ours or Path(process.cwd()).is_relative_to(
                root
            )  # a forked one shows its server's environment
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def worker(root: Path, block: str) -> psutil.Process | None:
    """The process that runs a block (not the shell around it)."""
    for process in processes(root):
        with contextlib.suppress(psutil.Error):
            if {"block", "toy", block} <= set(process.cmdline()):
                return process
    return None


def stored(root: Path, block: str) -> list[bytes]:
    """The whole lines of a block so far."""
    path = root / "build" / "runs" / "toy" / "laptop" / block / "lines.jsonl"
    return path.read_bytes().split(b"\n")[:-1] if path.is_file() else []


def lines(root: Path) -> int:
    return sum(len(stored(root, block)) for block in BLOCKS)


def until(call: Call, reached: Callable[[], Any], pause: float = 0.01) -> Any:
    """What ``reached`` gives as soon as it gives something, or None when the call has ended before."""
    while call.running:
        if found := reached():
            return found
        time.sleep(pause)
    return None


# --- what must hold ----------------------------------------------------------------------------------


def outcome(root: Path) -> dict[str, Any]:
    """The result lines without times, and all predictions."""
    import pyarrow.parquet as parquet

    path = root / "data" / "results" / "toy.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    kept = [{k: v for k, v in row.items() if k not in VOLATILE} for row in rows]
    table = parquet.read_table(path.with_suffix(".predictions.parquet"))
    return {"lines": kept, "predictions": table.to_pylist()}


def made(root: Path) -> dict[str, int]:
    """When each run under build/ was computed, by its line's identity."""
    found = {}
    for block in BLOCKS:
        for line in stored(root, block):
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                found[json.dumps([block, row["method"], row["width"], row["tuned"]])] = row["made"]
    return found


def sound(root: Path, *, well: bool = True) -> None:
    """Nothing half-written, nothing temporary, and nobody left at work.

    Without ``well``, the call's note for the next one may still be there.
    """
    notes = {"build/.graph.lock"} if well else {"build/.graph.lock", "build/.graph.json"}
    deadline = time.monotonic() + 60
    while (left := processes(root)) and time.monotonic() < deadline:
        time.sleep(0.1)
    check(not left, f"still running: {[' '.join(p.cmdline()[:6]) for p in left if p.is_running()]}")
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if name.startswith(".snakemake/") or not path.is_file() or name in notes:
            continue
        check(not path.name.startswith(".") and path.suffix != ".tmp", f"left behind: {name}")
        if path.suffix in (".json", ".ipynb", ".jsonl"):
            text = path.read_text(encoding="utf-8")
            try:
                parts = text.splitlines() if path.suffix == ".jsonl" else [text]
                for part in parts:
                    json.loads(part)
            except ValueError:
                raise Broken(f"half-written: {name} ({len(text)} characters)") from None


def finishes(root: Path, expected: dict[str, Any]) -> None:
    """The next call, without a fault, ends well, loses nothing and gives the expected results."""
    before = made(root)
    code, text = Call(root).end()
    check(code == 0, f"the next call ended with {code}: {text[-1500:]}")
    sound(root)
    after = made(root)
    lost = [run for run, when in before.items() if after.get(run) != when]
    check(not lost, f"lost and computed again: {lost}")
    check(len(after) == sum(BLOCKS.values()), f"{len(after)} lines under build/")
    check(outcome(root) == expected, "metrics or predictions differ from the undisturbed run")


# --- the faults --------------------------------------------------------------------------------------


def engine(root: Path, rng: random.Random) -> str:
    """Kill the engine, its Snakemake, or (as a power cut does) everything."""
    at, who = rng.randrange(sum(BLOCKS.values()) + 1), rng.choice(("engine", "engine", "snakemake", "all"))
    call = Call(root)
    until(call, lambda: (root / "build" / ".graph.json").is_file() and lines(root) >= at)
    time.sleep(rng.uniform(0, 0.5))
    check(call.running, "the call ended before it could be killed")
    if who == "snakemake" and (snakemake := next(iter(psutil.Process(call.process.pid).children()), None)):
        snakemake.kill()
        code, text = call.end()
        check(code in (1, 2, 3) and "Traceback" not in text, f"without Snakemake: {code}, {text[-1500:]}")
        sound(root)
        return f"Snakemake, at {at} lines"
    call.kill()
    for process in processes(root) if who == "all" else []:
        with contextlib.suppress(psutil.Error):
            process.kill()
    return f"{who}, at {at} lines"


def _job(root: Path, rng: random.Random, status: str, choose: Callable[[psutil.Process], Any]) -> str:
    """Kill what ``choose`` finds in a worker; the engine goes on with the others and names the block."""
    block, call = rng.choice(list(BLOCKS)), Call(root)
    at = rng.randrange(BLOCKS[block] - 1)

    def victim() -> psutil.Process | None:
        with contextlib.suppress(psutil.Error):
            if len(stored(root, block)) >= at and (found := worker(root, block)):
                return choose(found)
        return None

    found = until(call, victim, 0.05)
    check(found is not None, f"the call ended before block {block} could be hit")
    found.kill()
    code, text = call.end()
    place = f"{block}, at {at} lines"
    check(code == 3, f"{place}: exit code {code}, not 3: {text[-1500:]}")
    check(block in text and "Traceback" not in text, f"{place}: not named, or a traceback: {text[-1500:]}")
    ended = json.loads((root / "build" / "laptop" / "reproduce.json").read_text(encoding="utf-8"))
    statuses = {entry["notebook"].split("/")[1]: entry["status"] for entry in ended["notebooks"]}
    others = "not run" if block == "tune" else "ok"
    early = ("not run",) if at == 0 else ()  # killed before it could write its manifest
    own = statuses.pop(block)
    check(own in (status, *early), f"{place}: {own}")
    check(statuses == {name: others for name in BLOCKS if name != block}, f"{place}: {statuses}")
    sound(root)
    return place


def kernel(root: Path, rng: random.Random) -> str:
    def choose(process: psutil.Process) -> psutil.Process | None:
        block = next(word for word in process.cmdline() if word in BLOCKS)
        pid = root / "build" / "runs" / "toy" / "laptop" / block / "pid"
        return psutil.Process(int(pid.read_text() or 0)) if pid.is_file() else None

    return _job(root, rng, "aborted", choose)


def disk(root: Path, rng: random.Random) -> str:
    """Fill the file system on which the whole project lies, and keep it full until the call has ended."""
    call, at = Call(root), rng.randrange(sum(BLOCKS.values()))
    until(call, lambda: (root / "build" / "snakemake.log").is_file() and lines(root) >= at)
    time.sleep(rng.uniform(0, 0.5))
    check(call.running, "the call ended before the disk was full")
    with full(root, call):
        code, text = call.end()
        last = text.strip().splitlines()[-1]
        check(code in (1, 2, 3), f"exit code {code} on a full disk, at {at} lines: {text[-1500:]}")
        check("Traceback" not in text, f"a traceback on a full disk, at {at} lines: {text[-3000:]}")
        check("space" in text, f"the full disk is not named, at {at} lines: {text[-1500:]}")
        sound(root, well=False)
    return f"at {at} lines, exit code {code}: {last.replace(str(root), '…')}"


def garble(path: Path, rng: random.Random) -> int:
    """Damage one whole line of a file, in one of three ways; returns its number."""
    rows = path.read_bytes().split(b"\n")
    number = rng.randrange(len(rows) - 1)
    row = rows[number]
    ways = (row[: len(row) // 2], b"\x00" * len(row), row[:20] + b"\xff\xfe{" + row[20:])
    rows[number] = rng.choice(ways)
    path.write_bytes(b"\n".join(rows))
    return number + 1


def line(root: Path, rng: random.Random) -> str:
    """After a power cut a block's line is damaged: told, set aside, and only that run is made again."""
    block, call = rng.choice(list(BLOCKS)), Call(root)
    check(until(call, lambda: len(stored(root, block)) >= 2), "the call ended before it could be killed")
    call.kill()
    for process in processes(root):
        with contextlib.suppress(psutil.Error):
            process.kill()
    path = root / "build" / "runs" / "toy" / "laptop" / block / "lines.jsonl"
    number = garble(path, rng)
    return f"line {number} of {block}"


def results_line(root: Path, rng: random.Random, expected: dict[str, Any]) -> None:
    """A damaged results file is written again from build/; without build/ it is named, and git restores it."""
    path, build = root / "data" / "results" / "toy.jsonl", root / "build"
    good = path.read_bytes()
    number = garble(path, rng)
    finishes(root, expected)
    check(path.read_bytes() == good, f"the results file, damaged in line {number}, was not written again")
    number = garble(path, rng)
    damaged = path.read_bytes()
    away = build.rename(root.with_name(f"{root.name}-away"))
    code, text = Call(root).end()
    said = f"toy.jsonl, line {number}: not a JSON object; restore the file from git"
    check(code == 2 and said in text and "Traceback" not in text, f"fresh clone: {code}, {text[-1500:]}")
    check(
        path.read_bytes() == damaged and not list(build.glob("runs/*/*/*")), "fresh clone: something was run"
    )
    shutil.rmtree(build, ignore_errors=True)
    path.write_bytes(good)
    code, text = Call(root).end()
    check(code == 0 and not list(build.glob("runs/*/*/*")), f"restored clone: {code}, {text[-1500:]}")
    check(path.read_bytes() == good and outcome(root) == expected, "restored clone: the results changed")
    shutil.rmtree(build, ignore_errors=True)
    away.rename(build)


def two(root: Path, rng: random.Random) -> str:
    """A second call while the first is at work: it is refused in one sentence, and disturbs nothing."""
    first, at = Call(root), rng.randrange(-3, sum(BLOCKS.values()) + 1)
    until(first, lambda: lines(root) >= at)
    (code, text), (other, said) = sorted((call.end() for call in (Call(root), first)), reverse=True)
    check(other == 0 and code in (0, 2), f"at {at} lines: {code}, {text[-900:]}; {other}, {said[-900:]}")
    check("Traceback" not in text + said, f"at {at} lines, a traceback: {text[-900:]} {said[-900:]}")
    if code == 2:
        check(
            text.strip().count("\n") == 0 and "another run is at work" in text, f"refused with {text[-900:]}"
        )
    sound(root)
    return f"at {at} lines, the second exit code is {code}"


# --- a full disk -------------------------------------------------------------------------------------


def privilege() -> list[str] | None:
    """What must stand before `mount` so that it may mount a small file system; None where nothing helps."""
    for words in ([], ["sudo", "-n"]):
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(OSError):
            tried = [*words, "mount", "-t", "tmpfs", "-o", "size=64k", "none", folder]
            if subprocess.run(tried, capture_output=True).returncode == 0:
                subprocess.run([*words, "umount", folder], check=True)
                return words
    return None


def in_namespace() -> None:
    """Start again as root of a user namespace, where everybody may mount; returns where there is no such thing."""
    words = ["unshare", "--map-root-user", "--mount"]
    with contextlib.suppress(OSError):
        if subprocess.run([*words, "true"], capture_output=True).returncode == 0:
            os.execvp(words[0], [*words, sys.executable, *sys.argv, "--in-namespace"])


@contextlib.contextmanager
def small_disk(root: Path, words: list[str] | None) -> Iterator[None]:
    """A file system of 16 MB under the project; an ordinary folder for None."""
    root.mkdir()
    if words is not None:
        options = "size=16m,mode=1777"
        subprocess.run([*words, "mount", "-t", "tmpfs", "-o", options, "none", str(root)], check=True)
    try:
        yield
    finally:
        if words is not None:
            subprocess.run([*words, "umount", "--lazy", str(root)], check=True)


@contextlib.contextmanager
def full(root: Path, call: Call) -> Iterator[None]:
    """No byte left on the project's small disk; whatever is freed is taken at once."""
    filler, stop = root / "filler", threading.Event()

    def fill() -> None:
        with open(filler, "wb", buffering=0) as stream:
            size = 1 << 20
            while not stop.is_set():
                try:
                    stream.write(b"\0" * size)
                except OSError:
                    size = max(size // 2, 1)
                    stop.wait(0 if size > 1 else 0.01)

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        filler.unlink()


# --- the drill ---------------------------------------------------------------------------------------


def one_round(
    root: Path, fault: str, seed: str, expected: dict[str, Any], words: list[str] | None
) -> tuple[bool, str]:
    """One fault in a fresh project; whether all went as promised, and what happened."""
    rng, began, good = random.Random(seed), time.monotonic(), True
    with small_disk(root, words if fault == "disk" else None):
        make(root)
        try:
            said = RUN[fault](root, rng)
            finishes(root, expected)
            if fault == "line":
                results_line(root, rng, expected)
        except (Broken, OSError, ValueError, psutil.Error) as error:
            good, said = False, f"FAILED: {type(error).__name__}: {error}"
        finally:
            for process in processes(root):
                process.kill()
    return good, f"{fault}: {said} ({time.monotonic() - began:.0f} s)"


def drill_reproduce(
    times: int,
    folder: Path,
    seed: int = 0,
    kinds: tuple[str, ...] = FAULTS,
    words: list[str] | None = None,
    workers: int = 1,
) -> list[str]:
    """One undisturbed run, then ``times`` faults, ``workers`` at a time; returns what went wrong.

    ``words`` stand before `mount`; see :func:`privilege`.
    """
    rng, failures = random.Random(seed), []
    calm = folder / "calm"
    make(calm)
    code, text = Call(calm).end()
    if code:
        return [f"the undisturbed call ended with {code}: {text[-1500:]}"] * times
    sound(calm)
    expected = outcome(calm)
    drawn = [fault for _ in range(times) for fault in rng.sample(kinds, len(kinds))][:times]

    def play(turn: int) -> tuple[bool, str]:
        return one_round(folder / f"round-{turn}", drawn[turn], f"{seed} {turn}", expected, words)

    with ThreadPoolExecutor(workers) as pool:
        for turn, (good, said) in enumerate(pool.map(play, range(times)), start=1):
            print(f"engine round {turn}/{times}: {said}", flush=True)
            failures += [] if good else [f"round {turn}, {said}"]
    return failures


RUN: dict[str, Callable[[Path, random.Random], str]] = {
    "engine": engine,
    "worker": lambda root, rng: _job(root, rng, "running", lambda process: process),
    "kernel": kernel,
    "disk": disk,
    "line": line,
    "two": two,
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--workers", type=int, default=max(1, (os.cpu_count() or 2) // 2), help="rounds at a time"
    )
    parser.add_argument("--only", choices=FAULTS, help="this fault in every round")
    parser.add_argument("--in-namespace", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    drawn, before_mount = (arguments.only,) if arguments.only else FAULTS, privilege()
    if before_mount is None and not arguments.in_namespace:
        in_namespace()
    how = " ".join(["by", *(before_mount or []), "mount", *["in a user namespace"] * arguments.in_namespace])
    if before_mount is None:
        drawn, how = tuple(kind for kind in drawn if kind != "disk"), "left out, nothing may be mounted here"
        if not drawn:
            parser.error(f"full disk: {how}")
    print(f"full disk: {how}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve()
        failed = drill_reproduce(
            arguments.times, folder, arguments.seed, drawn, before_mount, arguments.workers
        )
    good = arguments.times - len(failed)
    print("\n".join([*failed, f"engine drill: {good} of {arguments.times} rounds equal"]))
    sys.exit(bool(failed))
