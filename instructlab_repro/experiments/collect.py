"""The finished blocks of a grid as one file of results, a sorted line per run, with predictions in Parquet beside it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instructlab_repro.experiments.blocks import Experiment
from instructlab_repro.experiments.quality import edition
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

    @property
    def complete(self) -> bool:
        return not self.missing

    @property
    def edition(self) -> int | str | None:
        """The edition of the protocol that the lines follow: 1, 2, "mixed"; None without lines."""
        return edition(self.lines)


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
        if lines is None:
            lines = experiment.committed(block)
            if lines is None:
                if reason != "not run":
                    found.refused[block.id] = reason
                for method in ("tuning",) if block.stage == "tune" else experiment.methods:
                    found.missing.append(f"{block.where()} · {method}")
                continue
        else:
            manifest = read_manifest(block.out)
            cost = {"block_seconds": manifest.seconds, "peak_memory_mb": manifest.peak_memory_mb}
        for line in lines:
            kept = {**cost, **{k: v for k, v in line.items() if k not in BULKY}}
            found.lines.append(kept)
            cell = tuple(line[c] for c in cells)
            if block.stage == "twin":
                kept |= _changed(line, bulk.get(cell, {}))
            elif block.stage == "run" and any(line.get(name) is not None for name in BULKY):
                bulk[cell] = {name: line[name] for name in BULKY if line.get(name) is not None}
            elif block.stage == "run" and cell in stored:
                bulk[cell] = {name: stored[cell][name] for name in BULKY if name in stored[cell]}
    found.lines.sort(key=lambda line: (line["stage"], *(line[c] for c in cells), files.dumps(line["tuned"])))
    text = "".join(files.dumps(line) + "\n" for line in found.lines)
    old = found.path.read_bytes() if found.path.is_file() else b""
    if text.encode("utf-8") != old:
        # predictions first: a kill in between leaves old lines with newer predictions of the same key
        _write_predictions(found, cells, bulk, predictions_path(experiment.name, profile))
        files.write_text(found.path, text)
        found.changed = True
    return found


def _changed(twin: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, int]:
    """How many predictions of a rounding twin, which are not kept, differ from those of the run that it repeats."""
    both = twin.get("predictions"), run.get("predictions")
    if any(each is None for each in both):
        return {}
    return {"predictions_changed": sum(a != b for a, b in zip(*both, strict=True))}  # type: ignore[arg-type]


def _write_predictions(
    found: Aggregate, names: list[str], bulk: Mapping[tuple, Mapping[str, Any]], path: Path
) -> None:
    if not bulk:
        return
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as parquet

    cells = sorted(bulk)
    columns: dict[str, Any] = {name: [cell[i] for cell in cells] for i, name in enumerate(names)}
    for name in BULKY:
        rows = [bulk[cell].get(name) for cell in cells]
        flat = np.concatenate([np.asarray(row) for row in rows if row is not None] or [np.zeros(0, int)])
        if flat.dtype.kind == "f":
            kind = pa.float32()
        else:  # the smallest integer type that holds them: most are class numbers
            low, high = (int(flat.min()), int(flat.max())) if len(flat) else (0, 0)
            kind = pa.uint8() if 0 <= low and high < 256 else pa.int32()
        columns[name] = pa.array([None if row is None else list(row) for row in rows], type=pa.list_(kind))
    buffer = io.BytesIO()
    parquet.write_table(pa.table(columns), buffer, compression="zstd", compression_level=19)
    size = buffer.tell()
    if size > MAX_PREDICTIONS:
        path.unlink(missing_ok=True)  # those of an earlier run would not fit the new lines
        found.left_out = [dict(zip(names, cell, strict=True)) | dict(bulk[cell]) for cell in cells]
        found.notes.append(
            f"{path.name} was not written: {size // 1024} KB, the limit is {MAX_PREDICTIONS // 1024} KB; "
            "the bootstrap intervals are kept instead"
        )
        return
    files.write_bytes(path, buffer.getvalue())
