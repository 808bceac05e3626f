"""The command: bad files told in one sentence before anything starts, then the notebook, then where the report lies."""

from __future__ import annotations

import hashlib
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from instructlab_apps.compare.intake import MOST_ROWS, take_in
from instructlab_apps.compare.pacing import Clock
from instructlab_utils import cache, files
from instructlab_utils.errors import DataError, NotebookError, ParameterError
from instructlab_utils.project import clone, shown

SOURCE = Path(__file__).with_name("own_data.py")
LEAST_MINUTES, MOST_MINUTES = 0.5, 24 * 60
OURS = (
    "DataError",
    "TrainingError",
    "AssetError",
    "ParameterError",
    "RecordError",
)  # of the notebook: one sentence
STARTUP = 30.0  # seconds that a run which goes on gets at least


def rows_within(minutes: float) -> int:
    """How many rows are worth reading in this time."""
    return int(min(MOST_ROWS, 2000 + 2000 * minutes))


def clock_of(started: float, minutes: float) -> Clock:
    """The clock of a run that began at ``started``; one that goes on after a kill has :data:`STARTUP` seconds at least."""
    return Clock(max(started + 60 * minutes, time.time() + STARTUP), minutes)


def compare(
    data: Path, text: str, label: str, model: Path | None, minutes: float, out: Path | None, threads: int = 1,
    began: float | None = None,
) -> int:  # fmt: skip
    """Compare the methods on ``data`` and write a report into ``out``; the exit code.

    Raises DataError or ParameterError, in one sentence, for what cannot be compared. A folder in which the same
    comparison was killed goes on; one that is finished says so. The minutes count from ``began`` (time.time()), else now.
    """
    from filelock import FileLock, Timeout

    began = began or time.time()
    if not LEAST_MINUTES <= minutes <= MOST_MINUTES:
        raise ParameterError(f"--minutes {minutes:g}: choose {LEAST_MINUTES:g} to {MOST_MINUTES}")
    take_in(data, text, label, rows_within(minutes))
    if model is not None:
        must_be_encoder(model)
    else:
        cache.folder("minilm")  # AssetError, with the command that fetches it
    folder = (out or (clone() or Path.cwd()) / "build" / "compare" / data.stem).resolve()
    if folder.exists() and not folder.is_dir():
        raise ParameterError(f"--out {folder} is a file; name a folder")
    files.make_folder(folder)
    key = key_of(
        data.read_bytes(),
        text=text,
        label=label,
        model=model.resolve() if model else "",
        minutes=f"{minutes:g}",
    )
    try:
        with FileLock(folder / ".lock", timeout=0):
            return _locked(data, text, label, model, minutes, folder, key, began, threads)
    except Timeout:
        raise ParameterError(
            f"another comparison is at work in {shown(folder)}; wait, or name another --out"
        ) from None


def alone(folder: Path, patience: float = 60.0) -> Any:
    """The lock of the one kernel that may write into ``folder``; it falls when its process ends.

    The kernel of a command that was killed a moment ago lives on for a second or more: it is waited for. ParameterError
    where it is still there after ``patience`` seconds.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".kernel.lock")
    try:
        lock.acquire(timeout=patience, poll_interval=0.1)
    except Timeout:
        raise ParameterError(
            f"another comparison is at work in {shown(folder)}; wait, or name another --out"
        ) from None
    return lock


def key_of(data: bytes, **choices: Any) -> dict[str, Any]:
    """What makes a comparison this one: the file's hash and the choices. Another key needs another folder."""
    return {"sha256": hashlib.sha256(data).hexdigest(), **{k: str(v) for k, v in choices.items()}}


def must_be_encoder(folder: Path) -> None:
    """DataError unless ``folder`` holds a configuration, a tokenizer and weights in safetensors; imports nothing heavy."""
    if not folder.is_dir():
        raise DataError(f"--model {folder}: no such folder; give one with config.json and model.safetensors")
    names = {path.name for path in folder.iterdir()}
    if "config.json" not in names:
        raise DataError(f"--model {folder}: it has no config.json; give a folder saved by save_pretrained")
    if not any(name.endswith(".safetensors") for name in names):
        pickled = [name for name in sorted(names) if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
        why = f"it has only {pickled[0]}, which could run code" if pickled else "it has no weights"
        raise DataError(f"--model {folder}: {why}; give model.safetensors (save_pretrained writes it)")
    if not names & {"tokenizer.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "vocab.json"}:
        raise DataError(f"--model {folder}: it has no tokenizer; save the tokenizer into the same folder")


def process_start() -> float:
    """When this process began, half a minute ago at most: Python's own start is part of the reader's minutes."""
    import psutil

    return max(float(psutil.Process().create_time()), time.time() - STARTUP)


def _locked(
    data: Path, text: str, label: str, model: Path | None, minutes: float, folder: Path, key: dict[str, Any],
    began: float, threads: int,
) -> int:  # fmt: skip
    from instructlab_repro import notebooks

    results, report = folder / "results.jsonl", folder / "report.html"
    lines = files.read_lines(results)
    if lines and {name: lines[0].get(name) for name in key} != key:
        raise ParameterError(
            f"{shown(folder)} holds another comparison (file, columns, model or minutes differ); name another --out"
        )
    if lines and lines[-1]["kind"] == "done" and report.exists():
        print(f"already done: {shown(report)}\n{lines[-1]['headline']}")
        return 0
    if not lines:
        files.append_line(results, {"kind": "header", **key, "elapsed": 0.0})
    spent = max((line["elapsed"] for line in lines), default=0.0)
    if spent:
        print(f"goes on after {spent:.0f} s of an earlier run", file=sys.stderr)
    command = [
        "python",
        "-m",
        "instructlab_utils",
        "compare",
        "--data",
        str(data),
        "--text",
        text,
        "--label",
        label,
    ]
    command += ["--model", str(model)] if model else []
    command += ["--minutes", f"{minutes:g}", "--out", str(folder) + "-again"]
    values = {
        "data": str(data.resolve()), "text": text, "label": label, "model": str(model.resolve()) if model else "",
        "minutes": float(minutes), "folder": str(folder), "started": began - spent, "command": shlex.join(command),
    }  # fmt: skip
    place = write_notebook(folder)
    limit = (
        max(60 * minutes - spent, STARTUP) * 1.5 + 120
    )  # the clock inside comes first; this is the second lock
    # a kernel of its own: starting the warm one for a single run would take longer than the imports of this notebook
    env = {"INSTRUCTLAB_WARM": "0"}
    manifest = notebooks.run_notebook(place, folder, values, timeout=limit, env=env, threads=threads)
    if manifest.status != "ok":
        if (manifest.error or {}).get("name") in OURS:
            raise DataError(str((manifest.error or {})["message"]))
        print(notebooks.describe(manifest, folder), file=sys.stderr)
        print("what was finished is kept: the same command goes on from there", file=sys.stderr)
        return manifest.exit_code
    print(files.read_json(folder / "summary.json")["headline"])
    print(f"report: {shown(report)} ({time.time() - began + spent:.0f} s)")
    return 0


def write_notebook(folder: Path) -> Path:
    """The notebook, generated from its text into ``folder``."""
    import nbformat

    from instructlab_repro import notebooks

    if not SOURCE.is_file():
        raise NotebookError(f"{SOURCE} is missing; install the package again")
    return files.write_text(folder / "compare.ipynb", nbformat.writes(notebooks.from_source(SOURCE)) + "\n")
