"""Rehearsal of the gpu profile without a GPU: lessons and blocks at smoke sizes on a pretend CUDA device.

python tests/drill_gpu.py              every lesson, and a block of every experiment
python tests/drill_gpu.py 03 pet       these; also files of your own: x.py

Each notebook's source runs cell by cell in a process of its own, with the device and the dtypes of the gpu profile (bf16
where it takes them) and the budgets of smoke; a tuned method takes the first value that it would try. A tensor that
meets another without a move, or becomes a NumPy array, is listed with its line.
See tests/pretend_device.py for what that proves and what it does not.
"""

from __future__ import annotations

import argparse
import linecache
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LESSONS, BLOCKS = ROOT / "notebooks" / "source", ROOT / "notebooks" / "experiments" / "source"
LONGEST = 1800  # seconds
# it imports once what each notebook needs, and forks a process for each
WARM = multiprocessing.get_context("forkserver")
WARM.set_forkserver_preload(
    ["torch", "transformers", "peft", "datasets", "sklearn.linear_model", "IPython", "jupytext"]
)


def rehearse(source: Path, parameters: dict[str, Any]) -> int:
    """Run the code cells of ``source`` on the pretend device; the number of mistakes, which are printed."""
    import jupytext
    import matplotlib

    matplotlib.use("Agg")
    from IPython.core.interactiveshell import InteractiveShell
    from pretend_device import pretend_cuda

    from instructlab_repro.experiments import blocks, tuning
    from instructlab_utils import models

    mistakes: dict[str, list[str]] = {}  # place → messages

    def report(error: Exception) -> None:
        frames = traceback.extract_stack()[:-2]
        mine = [f for f in frames if f.filename.startswith((str(ROOT / "instructlab"), "cell"))]
        place = " < ".join(f"{Path(f.filename).name}:{f.lineno}: {f.line}" for f in reversed(mine[-3:]))
        mistakes.setdefault(place, []).append(str(error))

    models.pick_device = lambda profile="laptop": "cuda"
    blocks.Experiment._tune_lines = lambda self, block, rounds: []
    tuning.Tuning.best = lambda self, method, lines: (self.called_for(method, lines)[0] or [{}])[0]
    shell = InteractiveShell.instance()
    shell.user_ns["__name__"] = "__main__"
    with pretend_cuda(report):
        for number, cell in enumerate(jupytext.read(source, fmt="py:percent").cells):
            if cell.cell_type != "code":
                continue
            code, name = cell.source, f"cell {number}"
            if "parameters" in cell.metadata.get("tags", []):
                code += "\n" + "\n".join(f"{key} = {value!r}" for key, value in parameters.items())
            linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
            try:
                exec(compile(code, name, "exec"), shell.user_ns)
            except Exception:
                traceback.print_exc()
                mistakes[f"{name} stopped"] = [traceback.format_exc().splitlines()[-1]]
                break
    for place, messages in mistakes.items():
        print(f"MISTAKE {source.stem} ({len(messages)} times): {place}\n    {messages[0]}")
    return len(mistakes)


def places(chosen: list[str]) -> list[tuple[str, Path, dict[str, Any]]]:
    """(name, source, parameters) of what is to be rehearsed: every lesson, the first ``run`` block of each experiment."""
    from instructlab_repro import experiments

    found = [(path.stem, path, {"profile": "smoke"}) for path in sorted(LESSONS.glob("*.py"))]
    for name in experiments.names():
        spec = experiments.load(name).at("smoke")
        block = next(block for block in spec.blocks() if block.stage == "run")
        parameters = {"profile": "smoke", "experiment": name, "stage": block.stage, **block.coordinates}
        found.append((name, BLOCKS / f"{spec.notebook}.py", parameters))
    own = [(word, Path(word).resolve(), {"profile": "smoke"}) for word in chosen if word.endswith(".py")]
    return own + [one for one in found if not chosen or any(one[0].startswith(word) for word in chosen)]


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("names", nargs="*")
    words.add_argument("--workers", type=int, default=1, help="processes at a time")
    asked = words.parse_args()
    with ThreadPoolExecutor(asked.workers) as pool:
        return int(not all([*pool.map(alone, places(asked.names))]))


def alone(place: tuple[str, Path, dict[str, Any]]) -> bool:
    """Rehearse in a process of its own, with a line of what came of it; True without a mistake."""
    name, source, parameters = place
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        process = WARM.Process(target=quietly, args=(source, parameters, folder))
        process.start()
        process.join(LONGEST)
        process.kill()
        process.join()
        well = process.exitcode == 0
        print(f"{name}: {'ok' if well else 'FAILED'}, {time.monotonic() - began:.0f} s", flush=True)
        if not well:
            print(f"exit code {process.exitcode}\n{Path(folder, 'told').read_text()[-6000:]}", flush=True)
    return well


def quietly(source: Path, parameters: dict[str, Any], folder: str) -> None:
    """``rehearse`` with what it says in ``folder``/told and the number of mistakes as exit code."""
    with Path(folder, "told").open("w") as told:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(told.fileno(), stream.fileno())
    os.environ["INSTRUCTLAB_RUN_DIR"] = folder
    os.chdir(ROOT)
    sys.exit(min(rehearse(source, parameters), 100))


if __name__ == "__main__":
    sys.exit(main())
