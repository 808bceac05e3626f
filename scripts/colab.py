"""In Colab, what a lesson needs beyond what is there: packages, the course on the path, models and data. Elsewhere nothing.

Three lines in a first cell (the site writes them with its repository's address; the number is the lesson's):

    !git clone --depth 1 ADDRESS course
    %cd course
    %run scripts/colab.py 03

A plain ``pip install .`` would replace the kernel that Colab runs on, in the middle of its work.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
# What runs notebooks from a command line: Colab runs them itself, and its kernel is too old for these.
RUNNERS = {"jupytext", "nbclient", "papermill", "snakemake"}
# Colab's own machinery, and its torch, which knows its device.
KEPT = {
    "ipykernel",
    "ipython",
    "ipywidgets",
    "jupyter-client",
    "jupyter-core",
    "torch",
    "tornado",
    "traitlets",
    "pyzmq",
}


def is_colab() -> bool:
    """Whether this Python is Colab's."""
    try:
        return importlib.util.find_spec("google.colab") is not None
    except ModuleNotFoundError:  # not even a package `google`
        return False


def lacking(lines: Iterable[str], here: dict[str, str]) -> list[str]:
    """The requirements that the installed versions do not meet; what is Colab's own stays as it is, where it is there."""
    found = []
    for line in lines:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        has = here.get(name)
        if name in RUNNERS:
            continue
        if has is None or not (name in KEPT or requirement.specifier.contains(has, prereleases=True)):
            found.append(line)
    return found


def main(lesson: str) -> None:
    """Install, put the course on the path, fetch what ``lesson`` needs; a sentence where this is not Colab."""
    if not is_colab():
        print("this is not Colab: nothing was done; `make course` sets up a machine of your own")
        return
    here = {canonicalize_name(one.name): one.version for one in distributions()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if wanted := lacking(project["dependencies"], here):
        with tempfile.TemporaryDirectory() as folder:
            kept = Path(folder) / "kept.txt"
            kept.write_text("".join(f"{n}=={v}\n" for n, v in here.items() if n in KEPT), encoding="utf-8")
            words = [sys.executable, "-m", "pip", "install", "-qq", "--constraint", str(kept), *wanted]
            subprocess.run(words, check=True)
    importlib.invalidate_caches()
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from instructlab_repro import assets
    from instructlab_repro.engine.course import needed_assets

    assets.fetch(needed_assets([lesson]))
    print(
        f"lesson {lesson} is ready: run its cells. If Colab asks for a restart, restart, and run this cell again."
    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "00")
