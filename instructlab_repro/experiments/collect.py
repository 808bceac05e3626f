"""The finished blocks of a grid as one file of results, a sorted line per run, with predictions in Parquet beside it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instructlab_repro.experiments.blocks import Experiment
from instructlab_repro.experiments.stored import BULKY, predictions, predictions_path, results_path
from instructlab_repro.notebooks.runner import read_manifest
from instructlab_utils import files

MAX_PREDICTIONS = 200 * 1024  # bytes in git, per experiment


@dataclass
class Aggregate:
    """What :func:`aggregate` found. ``missing`` names cells without a run, ``refused`` blocks and why."""

    path: Path
    lines: list[dict] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    changed: bool = False
    left_out: list[dict[str, Any]] = field(default_factory=list)  # predictions that are too large for git


def aggregate(experiment: Experiment, profile: str) -> Aggregate:
    """Collect the finished blocks into one file, a sorted line per run; predictions go to Parquet beside it.

    A block counts when its manifest is ok, its schema known, its key the present one, and every trial has its
    line; a committed block of the present key counts where build/ has none. Others are refused and listed. No
    average is taken here, so no cell can silently stand on fewer seeds. Files change only when results do.
    """
    experiment = experiment.at(profile)
    found = Aggregate(results_path(experiment.name, profile))
    cells = [*experiment.axes, "method"]
    stored = {tuple(row[c] for c in cells): row for row in predictions(experiment.name, profile)}
    bulk: dict[tuple, dict[str, Any]] = {}
    for block in experiment.blocks():
        lines, reason = experiment.built(block)
        cost: dict[str, float] = {}
        if lines is not None:
            manifest = read_manifest(block.out)
            cost = {"block_seconds": manifest.seconds, "peak_memory_mb": manifest.peak_memory_mb}
        elif (lines := experiment.committed(block)) is None:
            found.refused |= {block.id: reason} if reason != "not run" else {}
            asked = ["tuning"] if block.stage == "tune" else experiment.methods
            found.missing += [f"{block.where()} · {method}" for method in asked]
        for line in lines or ():
            cell = tuple(line[c] for c in cells)
            kept = {**cost, **{k: v for k, v in line.items() if k not in BULKY}}
            if block.stage == "twin":
                kept |= _changed(line, bulk.get(cell, {}))
            elif block.stage == "run" and (said := _bulky(line) or _bulky(stored.get(cell, {}))):
                bulk[cell] = said
            found.lines.append(kept)
    found.lines.sort(key=lambda line: (line["stage"], *(line[c] for c in cells), files.dumps(line["tuned"])))
    text = "".join(files.dumps(line) + "\n" for line in found.lines).encode()
    if text != (found.path.read_bytes() if found.path.is_file() else b""):
        # predictions first: a kill in between leaves old lines with newer predictions of the same key
        if rows := [dict(zip(cells, cell, strict=True)) | bulk[cell] for cell in sorted(bulk)]:
            _write_predictions(found, rows, predictions_path(experiment.name, profile))
        files.write_bytes(found.path, text)
        found.changed = True
    return found


def _bulky(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: line[name] for name in BULKY if line.get(name) is not None}


def _changed(twin: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, int]:
    """How many predictions of a rounding twin, which are not kept, differ from those of the run that it repeats."""
    both = [each["predictions"] for each in (twin, run) if each.get("predictions") is not None]
    return {"predictions_changed": sum(a != b for a, b in zip(*both, strict=True))} if len(both) == 2 else {}


def _write_predictions(found: Aggregate, rows: list[dict[str, Any]], path: Path) -> None:
    """``rows`` as Parquet: class numbers as int32, scores as float32. Beyond the limit no file is left, but a note."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    kinds = {name: pa.list_(pa.float32() if name == "scores" else pa.int32()) for name in BULKY}
    columns = {
        name: pa.array([row.get(name) for row in rows], kinds.get(name))
        for name in dict.fromkeys([*rows[0], *BULKY])
    }
    buffer = io.BytesIO()
    parquet.write_table(pa.table(columns), buffer, compression="zstd", compression_level=19)
    if (size := buffer.tell()) <= MAX_PREDICTIONS:
        files.write_bytes(path, buffer.getvalue())
        return
    path.unlink(missing_ok=True)  # those of an earlier run would not fit the new lines
    found.left_out = rows
    found.notes.append(
        f"{path.name} was not written: {size // 1024} KB, the limit is {MAX_PREDICTIONS // 1024} KB; "
        "the bootstrap intervals are kept instead"
    )
