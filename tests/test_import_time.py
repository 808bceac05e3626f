"""Importing the package must stay cheap: heavy libraries are imported where they are used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAVY = (
    "torch",
    "transformers",
    "datasets",
    "numpy",
    "pandas",
    "matplotlib",
    "sklearn",
    "scipy",
    "papermill",
)
LIMIT = 0.3  # seconds, design §5


def _python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_package_import_loads_no_heavy_library() -> None:
    loaded = _python("import sys, instructlab_utils; print(' '.join(sorted(sys.modules)))").split()
    assert "instructlab_utils" in loaded
    assert not [name for name in HEAVY if name in loaded]


def test_command_line_help_loads_no_heavy_library() -> None:
    loaded = _python("import sys, instructlab_repro.engine.cli; print(' '.join(sorted(sys.modules)))").split()
    assert "instructlab_repro.engine.cli" in loaded
    assert not [name for name in HEAVY if name in loaded]


def test_package_import_time() -> None:
    code = "import time; t = time.perf_counter(); import instructlab_utils; print(time.perf_counter() - t)"
    seconds = [float(_python(code)) for _ in range(5)]
    # The smallest: a busy test machine adds time to an import, it never takes any away.
    assert min(seconds) < LIMIT, seconds
