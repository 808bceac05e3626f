"""instructlab_utils/profiles.toml, written from the ``budget`` in each source's header.

A header says ``budget: {n_train: {smoke: 32, laptop: 800, gpu: 3200}}``. The generated file shows all budgets side by
side, and the installed package reads it without any notebook.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from instructlab_utils.errors import NotebookError
from instructlab_utils.files import write_text
from instructlab_utils.project import PROFILES, find_root

Budget = Mapping[str, Mapping[str, int | float]]  # knob → profile → number


HEAD = """\
# Generated from the headers of notebooks/source and notebooks/experiments/source; edit the header, then `make notebooks`.
# All budgets side by side: one table per lesson or experiment, one row per knob, one column per profile.

[profiles]
smoke = "mechanics only: a few dozen examples and a few steps of the same code"
laptop = "two CPU cores, no GPU: the stored outputs"
gpu = "one CUDA device, bf16 where supported: full data"
"""


def checked(budget: Any, where: str) -> Budget:
    """``budget`` itself. NotebookError, which begins with ``where``, unless each knob has a number per profile."""
    if not isinstance(budget, dict):
        raise NotebookError(f"{where}.budget must be a table of knobs; write knob: {{smoke: 1, …}}")
    for knob, row in budget.items():
        if not isinstance(knob, str) or not knob.isidentifier():
            raise NotebookError(f"{where}.budget: {knob!r} is no name for a knob; use letters, digits and _")
        if not isinstance(row, dict) or set(row) != set(PROFILES):
            raise NotebookError(
                f"{where}.budget.{knob} needs one number each for {', '.join(PROFILES)}, and nothing else"
            )
        for profile, number in row.items():
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise NotebookError(f"{where}.budget.{knob}.{profile} must be a number, not {number!r}")
    return budget


def text(notebooks: Iterable[Any]) -> str:
    """The file, from lessons and experiments: each has an ``id`` and a ``budget``."""
    parts = [HEAD]
    for notebook in notebooks:
        rows = [
            f"{knob} = {{ {', '.join(f'{profile} = {row[profile]}' for profile in PROFILES)} }}\n"
            for knob, row in notebook.budget.items()
        ]
        if rows:
            parts.append(f'["{notebook.id}"]\n{"".join(rows)}')
    return "\n".join(parts)


def path() -> Path:
    """Where the file of this project lies."""
    return find_root() / "instructlab_utils" / "profiles.toml"


def in_step(notebooks: Iterable[Any]) -> bool:
    """Whether the file says what the headers say. A project without the package's sources has no such file."""
    if not path().parent.is_dir():
        return True
    return path().is_file() and path().read_text(encoding="utf-8") == text(notebooks)


def write(notebooks: Sequence[Any]) -> list[Path]:
    """Write the file if it differs; returns what changed on disk."""
    return [] if in_step(notebooks) else [write_text(path(), text(notebooks))]
