"""`make classroom`: the exercises through nbgrader, as a teacher would do it; two submissions prove the grading.

Grading runs the students' code with the rights of whoever calls it. Grade real submissions in a container without
network.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from instructlab_repro.notebooks import exercises
from instructlab_repro.notebooks.exercises import OVERVIEW, PLACEHOLDER, STUB
from instructlab_utils.errors import ConfigError, NotebookError
from instructlab_utils.files import write_json

ASSIGNMENT = "exercises"
MARKER = ".classroom"
STUDENTS = ("solved", "untouched")


Grades = dict[str, dict[str, dict[str, float]]]  # student → notebook → {"score", "max_score"}


def classroom(folder: Path | str) -> Grades:
    """The whole cycle with nbgrader, as a teacher would do it; everything is written under `folder`.

    ``source/`` (with solutions), ``release/exercises/`` (what students get), two submissions (``solved``: every
    answer filled in; ``untouched``), their automatic grades, ``gradebook.db`` and ``results.json``.

    NotebookError when a step of nbgrader fails, when the release shows a solution or a hidden case, or when the grades
    are not full marks and zero. ConfigError when `folder` holds something else, or nbgrader is not installed.
    """
    folder, began = Path(folder).resolve(), time.perf_counter()
    paths = list(exercises.sources().values())
    with tempfile.TemporaryDirectory(prefix="ilu-") as sockets, _as_if_activated():
        api, gradebook = _nbgrader(folder, Path(sockets))
        _prepare(folder)
        for path in paths:
            notebook = exercises.teacher_notebook(path)
            _write_notebook(notebook, folder / "source" / ASSIGNMENT / f"{path.stem}.ipynb")
        _step(api.generate_assignment(ASSIGNMENT), "generate_assignment")
        released = folder / "release" / ASSIGNMENT
        for path in paths:
            _submit(released / f"{path.stem}.ipynb", folder / "submitted", path)
        print(f"student notebooks: {released}", flush=True)

        results: Grades = {student: {} for student in STUDENTS}
        for student, grades in results.items():
            _step(api.autograde(ASSIGNMENT, student), f"autograde {student}")
            with gradebook(f"sqlite:///{folder / 'gradebook.db'}") as book:
                for name in (path.stem for path in paths):
                    found = book.find_submission_notebook(name, ASSIGNMENT, student)
                    grades[name] = {"score": float(found.score), "max_score": float(found.max_score)}
                    print(f"{student:10}{name:26}{found.score:3g} of {found.max_score:g} points", flush=True)
    seconds = round(time.perf_counter() - began, 1)
    write_json(folder / "results.json", {"students": results, "seconds": seconds})
    _judge(results, folder / "autograded")
    return results


def _judge(results: Grades, autograded: Path) -> None:
    """Full marks for the solution, none for the untouched copy, and the hidden cases took part."""
    for name, full in results["solved"].items():
        zero = results["untouched"][name]
        if not (full["score"] == full["max_score"] > 0 == zero["score"]):
            raise NotebookError(
                f"{name}: expected full marks for the solution and none for the untouched copy, got "
                f"{full['score']:g} and {zero['score']:g} of {full['max_score']:g}; see {autograded}"
            )
        executed = autograded / "solved" / ASSIGNMENT / f"{name}.ipynb"
        if "HIDDEN TESTS" not in executed.read_text(encoding="utf-8"):
            raise NotebookError(f"{executed}: the hidden cases were not put back before grading")


def _nbgrader(folder: Path, sockets: Path) -> tuple[Any, Any]:
    try:
        from nbgrader.api import Gradebook
        from nbgrader.apps import NbGraderAPI
        from traitlets.config import Config
    except ImportError as error:
        raise ConfigError(f"nbgrader is not installed ({error}): pip install -e '.[classroom]'") from None
    config = Config()
    config.CourseDirectory.root = str(folder)
    config.CourseDirectory.db_url = f"sqlite:///{folder / 'gradebook.db'}"
    config.ClearSolutions.code_stub = {"python": STUB}
    config.Execute.timeout, config.Execute.startup_timeout = 120, 300
    if os.name == "posix":  # kernels that talk through files: no open port, and no warning about it
        config.KernelManager.transport = "ipc"
        config.KernelManager.ip = str(sockets / "k")
    return NbGraderAPI(config=config), Gradebook


def _prepare(folder: Path) -> None:
    """Empty `folder` if a classroom was there before; refuse to touch anything else."""
    if folder.exists():
        if any(folder.iterdir()) and not (folder / MARKER).is_file():
            raise ConfigError(
                f"{folder} is not empty and was not made by this command: choose another folder"
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARKER).write_text("Made by `make classroom`, and emptied by the next one.\n", encoding="utf-8")


def _submit(released: Path, submitted: Path, source: Path) -> None:
    """Two submissions of one released notebook: as it is, and with every answer filled in."""
    import nbformat

    notebook = nbformat.read(released, as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells)
    for forbidden in ("BEGIN SOLUTION", "HIDDEN TESTS", PLACEHOLDER, OVERVIEW):
        if forbidden in text:
            raise NotebookError(f"{released.name}: the student version shows {forbidden!r}")
    _write_notebook(notebook, submitted / "untouched" / ASSIGNMENT / released.name)
    answers = {
        f"answer_{e.id.replace('.', '_')}": exercises.solution(e.answer) for e in exercises.load(source)
    }
    for cell in notebook.cells:
        cell.source = answers.get(cell.metadata.get("nbgrader", {}).get("grade_id"), cell.source)
    _write_notebook(notebook, submitted / "solved" / ASSIGNMENT / released.name)


def _write_notebook(notebook: Any, path: Path) -> None:
    import nbformat

    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def _step(result: dict[str, Any], name: str) -> None:
    if not result.get("success"):
        log = f"{result.get('log') or ''}\n{result.get('error') or ''}"
        causes = re.findall(r"^\s*(\w*(?:Error|Exception): .+)$", log, re.MULTILINE) or ["no message"]
        raise NotebookError(f"nbgrader {name} failed: {causes[0]}")


@contextlib.contextmanager
def _as_if_activated() -> Iterator[None]:
    """nbgrader calls `alembic` by name: put this environment's programs on the PATH. Its log is in its result."""
    path, disabled = os.environ.get("PATH", ""), logging.root.manager.disable
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), path])
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        os.environ["PATH"] = path
