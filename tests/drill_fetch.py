"""Fault drill: kill −9 `fetch` at random moments; the next call must complete, with the bytes of an undisturbed one.

python tests/drill_fetch.py --times 20
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from local_index import entry, pack_tar, pack_zip, project, serve, tree

COMMAND = [sys.executable, "-m", "instructlab_utils", "fetch"]
PACKAGE = Path(__file__).resolve().parents[1]


def _archives(seed: int) -> tuple[dict[str, bytes], str]:
    """Two distribution files (a zip with many members; a tar inside a tar) and the assets.toml that pins them."""
    noise = random.Random(seed)
    many = {f"many/{number:03d}.txt": noise.randbytes(3_000) for number in range(400)}
    nested = {f"inner/{letter}.bin": noise.randbytes(150_000) for letter in "abc"}
    wheel = pack_zip({"package/code.py": b"raise SystemExit('package code was run')", **many})
    sdist = pack_tar({"sdist-1.0/inner.tar.gz": pack_tar(nested), "sdist-1.0/setup.py": b"raise SystemExit"})
    toml = entry("wheel", "wheel-1.0-py3-none-any.whl", wheel, many)
    toml += entry("sdist", "sdist-1.0.tar.gz", sdist, nested, inner="sdist-1.0/inner.tar.gz")
    return {"wheel-1.0-py3-none-any.whl": wheel, "sdist-1.0.tar.gz": sdist}, toml


def _start(environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        COMMAND, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _moment(home: Path, kind: int, wait: float) -> Callable[[], bool]:
    """Says when to kill: after ``wait`` of the whole, or that much of a second after a stage has begun."""
    began = time.monotonic()
    stages = [None, "downloads/*/*.part", "staging/*/new", "assets/wheel/.ok", "staging/sdist/inner"]
    stage = stages[kind % len(stages)]
    seen: list[float] = []

    def now() -> bool:
        if stage is None:
            return time.monotonic() - began > wait
        if not seen and next(iter(home.glob(stage)), None) is not None:
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() - seen[0] > wait

    return now


def drill_fetch(times: int, folder: Path, seed: int = 0) -> list[str]:
    """Kill `fetch` ``times`` times, each with a fresh cache in ``folder``; returns what went wrong, one line each.

    Every third round serves without Range, so that the download starts again instead of going on.
    """
    moments = random.Random(seed)
    failures: list[str] = []
    files, toml = _archives(seed)
    root = project(folder / "project", toml)
    environment = os.environ | {"INSTRUCTLAB_ROOT": str(root), "PYTHONPATH": str(PACKAGE)}
    with serve(files) as index:
        index.rate = 4e6

        def fetch(home: Path) -> tuple[int, str]:
            process = _start(environment | {"INSTRUCTLAB_HOME": str(home), "INSTRUCTLAB_INDEX": index.url})
            text, _ = process.communicate(timeout=600)
            return process.returncode, text

        began = time.monotonic()
        code, text = fetch(folder / "undisturbed")
        whole = time.monotonic() - began
        if code:
            return [f"the undisturbed fetch failed with exit code {code}: {text}"]
        expected = tree(folder / "undisturbed" / "assets")
        killed = 0
        for number in range(times):
            home = folder / f"home-{number}"
            index.ranges = number % 3 != 2
            wait = moments.uniform(0.2, 1.05) * whole if number % 5 == 0 else moments.uniform(0, 0.08)
            now = _moment(home, number, wait)
            victim = _start(environment | {"INSTRUCTLAB_HOME": str(home), "INSTRUCTLAB_INDEX": index.url})
            while victim.poll() is None and not now():
                time.sleep(0.001)
            victim.kill()
            victim.communicate()
            killed += victim.returncode != 0
            code, text = fetch(home)
            if code:
                failures.append(f"round {number}: after the kill, fetch failed with {code}: {text.strip()}")
                continue
            if tree(home / "assets") != expected:
                failures.append(f"round {number}: the assets differ from an undisturbed fetch")
            left = [name for part in ("downloads", "staging") for name in tree(home / part)]
            if left:
                failures.append(f"round {number}: left behind: {', '.join(left[:3])}")
            shutil.rmtree(home)
        if not killed:
            failures.append("no process was killed before it had finished, so nothing was tested")
    return failures


def main() -> None:
    """Run the drill in a temporary folder; exit code 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        failures = drill_fetch(options.times, Path(folder), options.seed)
    for failure in failures:
        print(failure)
    print(f"fetch: {options.times} kills, {len(failures)} failures, {time.monotonic() - began:.0f} s")
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
