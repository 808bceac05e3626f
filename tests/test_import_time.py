"""Importing the package must stay cheap (0.3 s): heavy libraries are imported where they are used.

What is loaded is asked, not how long it takes: a busy machine would make any limit in seconds fail.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {
    "torch", "transformers", "accelerate", "datasets", "numpy", "pandas", "pyarrow", "matplotlib", "sklearn", "scipy",
    "papermill", "pydantic", "peft",
}  # fmt: skip


def loaded_by(statement: str) -> set[str]:
    """Names of all modules in a fresh interpreter after ``statement``."""
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("statement", "module", "unwanted"),
    [
        ("import instructlab_utils", "instructlab_utils", HEAVY),
        (
            "from instructlab_utils import tasks",
            "instructlab_utils.tasks",
            {"torch", "transformers", "datasets"},
        ),
        ("import instructlab_repro.engine.cli", "instructlab_repro.engine.cli", HEAVY - {"pydantic"}),
    ],
)
def test_an_import_loads_no_heavy_library(statement, module, unwanted):
    loaded = loaded_by(statement)
    assert module in loaded and not unwanted & loaded


def test_the_lessons_package_loads_nothing_of_the_engine():
    names = "cache, errors, files, instructions, chat, intervals, metrics, plotting, project, run, tasks"
    loaded = loaded_by(f"from instructlab_utils import {names}")
    assert "instructlab_utils.chat" in loaded
    assert not [name for name in loaded if name.partition(".")[0] in {"instructlab_repro", "torch"}]
