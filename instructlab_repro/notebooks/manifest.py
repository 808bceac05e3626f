"""What is known of one run of a notebook: ``manifest.json`` in its folder, true at every moment."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instructlab_utils.errors import RecordError
from instructlab_utils.files import read_json, write_json

SCHEMA = 1
EXIT = {"ok": 0, "failed": 1, "aborted": 3, "running": 3}


@dataclass
class Manifest:
    """One run: ``status`` is running, ok, failed or aborted; ``seconds`` are wall time with the kernel's start.

    ``peak_memory_mb`` is the largest sum of resident memory (MB, 2**20 bytes) over the kernel and its children;
    ``error`` has the keys cell (the number in the partial notebook's ``In [n]``), source (its first line), name
    and message; ``executed`` is the notebook's file name in this folder.
    """

    notebook: str
    parameters: dict[str, Any]
    code_sha: str
    profile: str
    seed: int
    status: str = "running"
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    threads: int = 1
    started: str = ""
    ended: str | None = None
    versions: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    executed: str = "executed.ipynb"
    schema: int = SCHEMA

    @property
    def exit_code(self) -> int:
        return EXIT[self.status]

    def write(self, out: Path) -> None:
        write_json(out / "manifest.json", dataclasses.asdict(self))


def read_manifest(out: Path) -> Manifest:
    """The manifest in a run's folder. RecordError if it is absent, damaged or of another schema."""
    path = out / "manifest.json"
    fields = read_json(path)
    if not isinstance(fields, dict) or fields.get("schema") != SCHEMA:
        raise RecordError(f"{path}: not a manifest of schema {SCHEMA}; delete it and run again")
    try:
        return Manifest(**fields)
    except TypeError as error:
        raise RecordError(f"{path}: {error}; delete it and run again") from error
