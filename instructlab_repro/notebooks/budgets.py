"""instructlab_utils/profiles.toml, written from the ``budget`` in each source's header.

A header says ``budget: {n_train: {smoke: 32, laptop: 800, gpu: 3200}}``. The generated file shows all budgets side by
side, and the installed package reads it without any notebook.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from instructlab_utils.cache import file_sha256
from instructlab_utils.files import write_bytes, write_text
from instructlab_utils.project import PROFILES, find_root, shown

HEAD = """\
# Generated from the headers of notebooks/source and notebooks/experiments/source; edit the header, then `make notebooks`.
# All budgets side by side: one table per lesson or experiment, one row per knob, one column per profile.

[profiles]
smoke = "mechanics only: a few dozen examples and a few steps of the same code"
laptop = "two CPU cores, no GPU: the stored outputs"
gpu = "one CUDA device, bf16 where supported: full data"
"""


def path() -> Path:
    """Where the file of this project lies."""
    return find_root() / "instructlab_utils" / "profiles.toml"


def text(notebooks: Sequence[Any]) -> str:
    """The file, from lessons and experiments: each has an ``id`` and a ``budget``."""
    parts = [HEAD]
    for notebook in (one for one in notebooks if one.budget):
        lines = [f'["{notebook.id}"]\n']
        for knob, row in notebook.budget.items():
            lines.append(f"{knob} = {{ {', '.join(f'{name} = {row[name]}' for name in PROFILES)} }}\n")
        parts.append("".join(lines))
    return "\n".join(parts)


def in_step(notebooks: Sequence[Any]) -> bool:
    """Whether the file says what the headers say. A project without the package's sources has no such file."""
    if not path().parent.is_dir():
        return True
    return path().is_file() and path().read_text(encoding="utf-8") == text(notebooks)


def write(notebooks: Sequence[Any]) -> list[Path]:
    """Write the file if it differs; returns what changed on disk."""
    if in_step(notebooks):
        return []
    if path().is_file():
        keep(path())
    return [write_text(path(), text(notebooks))]


def keep(file: Path) -> None:
    """Copy what a person may have typed and is to be replaced into notebooks/kept, which git ignores, and say so."""
    copy = find_root() / "notebooks" / "kept" / f"{file.stem}.{file_sha256(file)[:8]}{file.suffix}"
    write_bytes(copy, file.read_bytes())
    print(f"note: {shown(file)}: a copy of what it was is in {shown(copy)}", file=sys.stderr)
