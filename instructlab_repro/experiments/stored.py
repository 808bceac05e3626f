"""Where results stand, and reading them: lines, predictions, rows by block. Each file is read once per version of it."""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from instructlab_utils import files
from instructlab_utils.errors import RecordError
from instructlab_utils.project import find_root

EDITIONS = {2: 1, 3: 2}  # schema of a line → edition of the protocol that it follows
REMEDY = "restore the file from git, or delete it and run again"  # for a damaged file of results
NOT_FINITE = ("NaN", "Infinity", "-Infinity")  # as strict JSON has them
Rows = list[dict[str, Any]]
BULKY = ("predictions", "targets", "scores")  # one number per test example: fields of the Parquet file


def version(path: Path) -> tuple[int, ...]:
    """What changes when a file does: its time, size and number in the file system; () without it."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def results_path(name: str, profile: str = "laptop") -> Path:
    """Where the lines of all runs stand. Only a laptop or gpu run is a result; smoke stays under build/."""
    if profile == "smoke":
        return find_root() / "build" / "results" / f"{name}.smoke.jsonl"
    suffix = "" if profile == "laptop" else f".{profile}"
    return find_root() / "data" / "results" / f"{name}{suffix}.jsonl"


def predictions_path(name: str, profile: str = "laptop") -> Path:
    """The predicted and true labels of the test examples, beside the lines."""
    return results_path(name, profile).with_suffix(".predictions.parquet")


def bootstrap_path(name: str, profile: str = "laptop") -> Path:
    """Claim → statistic → interval of the bootstrap, where the predictions are too large for git."""
    return results_path(name, profile).with_suffix(".bootstrap.json")


@lru_cache(maxsize=512)
def _lines(path: Path, remedy: str, _: tuple[int, ...]) -> tuple[dict[str, Any], ...]:
    rows = files.read_lines(path, remedy=remedy)
    return tuple({k: float(v) if v in NOT_FINITE else v for k, v in row.items()} for row in rows)


def read(path: Path, remedy: str = "") -> Rows:
    """The lines of a JSONL file, as copies that a caller may change; [] without the file. RecordError for damage."""
    return [dict(line) for line in _lines(path, remedy, version(path))]


def results(name: str, profile: str = "laptop", stage: str = "run") -> Rows:
    """The recorded lines of one stage; [] when the experiment has not run."""
    return [line for line in read(results_path(name, profile), REMEDY) if line.get("stage") == stage]


def rows_by_block(name: str, profile: str = "laptop") -> dict[str, Rows]:
    """The recorded lines of all stages by their block's id; not to be changed."""
    path, found = results_path(name, profile), defaultdict(list)
    for line in _lines(path, REMEDY, version(path)):
        found[str(line.get("block"))].append(line)
    return dict(found)


@lru_cache(maxsize=16)
def _predictions(path: Path, _: tuple[int, ...]) -> tuple[dict[str, Any], ...]:
    import numpy as np
    import pyarrow.parquet as parquet

    try:
        rows = parquet.ParquetFile(path).read().to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's own are ValueErrors
        said = str(error).partition("\n")[0]
        why = f"not a readable Parquet file ({said}); restore it from git, a pointer by `git lfs pull`."
        raise RecordError(f"{path}: {why}") from None
    for row in rows:
        for name in [name for name in BULKY if name in row]:
            if (value := row.pop(name)) is not None:
                row[name] = np.array(value)
                row[name].setflags(write=False)
    return tuple(rows)


def predictions(name: str, profile: str = "laptop") -> Rows:
    """What the runs said about each test example: the coordinates of a line, and read-only arrays of shape (test,).

    ``predictions`` and ``targets`` are integers, ``scores`` floats; what a run did not record is absent.
    """
    path = predictions_path(name, profile)
    return [dict(row) for row in _predictions(path, version(path))] if path.is_file() else []
