"""What all tests share: one thread, an environment without this project's variables, and a project of a few bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

for _name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR"):
    os.environ.setdefault(f"{_name}_NUM_THREADS", "1")  # before anybody imports torch
os.environ.setdefault("MPLBACKEND", "Agg")

HEADER = """# ---
# jupyter:
#   instructlab:
#     id: "{id}"
#     title: {title}
#     outcome: see a notebook run
#     assets: []
#     minutes: {{smoke: 0.1, laptop: 0.1, gpu: 0.1}}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {{extension: .py, format_name: percent}}
#   kernelspec: {{display_name: Python 3, language: python, name: python3}}
# ---

"""

LESSON = """# %% [markdown]
# # A tiny lesson

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
seed: int = 0  # 0 = the usual one
lr: float = 0.0  # 0 = take the profile's
flag: bool = False

# %% tags=["nbval-check-output"]
print(1 + 1)
"""


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of the caller's shell must not decide a test; the asset cache (INSTRUCTLAB_HOME) stays."""
    for name in ("INSTRUCTLAB_ROOT", "INSTRUCTLAB_PROFILE", "INSTRUCTLAB_RUN_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, the current folder of the test."""
    for folder in ("data", "notebooks/source", "notebooks/experiments/source"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("pyproject.toml", "data/assets.toml"):
        (tmp_path / name).write_text("", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write_lesson(project: Path) -> Callable[..., Path]:
    """Write notebooks/source/NN_tiny.py in the project; returns its path."""

    def write(body: str = LESSON, number: str = "00", title: str = "Tiny") -> Path:
        path = project / "notebooks" / "source" / f"{number}_tiny.py"
        path.write_text(HEADER.format(id=number, title=title) + body, encoding="utf-8")
        return path

    return write
