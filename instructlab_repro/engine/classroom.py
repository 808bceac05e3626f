"""`make classroom`: a class for nbgrader, one assignment a lesson, and two submissions that prove its grades."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import re
import runpy
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from instructlab_repro.notebooks import exercises
from instructlab_repro.notebooks.exercises import OVERVIEW, PLACEHOLDER
from instructlab_utils.errors import ConfigError, NotebookError
from instructlab_utils.files import write_json
from instructlab_utils.project import find_root

MARKER, STUDENTS = ".classroom", ("solved", "untouched")
ACCEPTED = "accepted, hidden cases too"  # what classroom/grading.py writes below a checker

Grades = dict[str, dict[str, dict[str, float]]]  # student → lesson → {"score", "max_score"}


def classroom(folder: Path | str) -> Grades:
    """A class with all lessons, and its zip files, under `folder`; the proof goes into ``results.json``: two submissions
    through nbgrader, ``solved``, with every answer filled in, and ``untouched``.

    NotebookError when a step of nbgrader fails, when the release shows a solution or a hidden case, or when the grades
    are not full marks and zero. ConfigError when `folder` holds something else, or nbgrader is not installed.
    """
    folder, began = Path(folder).resolve(), time.perf_counter()
    results: Grades = {student: {} for student in STUDENTS}
    with opened(folder) as api:
        for path in exercises.sources().values():
            released = release(api, folder, path)
            for student, notebook in zip(STUDENTS, (solved(released, path), released), strict=True):
                write_notebook(notebook, folder / "submitted" / student / path.stem / f"{path.stem}.ipynb")
                results[student][path.stem] = found = grade(api, folder, path.stem, student)
                points = f"{found['score']:3g} of {found['max_score']:g} points"
                print(f"{student:10}{path.stem:26}{points}", flush=True)
    seconds = round(time.perf_counter() - began, 1)
    write_json(folder / "results.json", {"students": results, "seconds": seconds})
    _judge(results, folder / "autograded")
    runpy.run_path(str(folder / "bundle.py"))["write"](folder)  # students.zip, teacher.zip
    return results


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Any]:
    """A new class in `folder`, ready for nbgrader: its API, told what `nbgrader_config.py` there says.

    A class of this command that holds nobody's work is emptied first; ConfigError for any other folder with files in it.
    nbgrader calls `alembic` by name: meanwhile this environment's programs are on the PATH.
    """
    try:
        from nbgrader.apps import NbGraderAPI
        from traitlets.config import PyFileConfigLoader
    except ImportError as error:
        raise ConfigError(f"nbgrader is not installed ({error}): pip install -e '.[classroom]'") from None
    if folder.exists():
        others = {path.name for path in folder.glob("submitted/*")} - set(STUDENTS)
        if any(folder.iterdir()) and (others or not (folder / MARKER).is_file()):
            what = f"holds submissions ({min(others)})" if others else "is not empty, not of our making"
            raise ConfigError(f"{folder} {what}: choose another folder with --out, or empty it")
        shutil.rmtree(folder)
    shutil.copytree(find_root() / "teaching", folder / "teaching")  # for the teacher; makes the folder, too
    (folder / MARKER).write_text("Made by `make classroom`, which empties it again.\n", encoding="utf-8")
    for path in (find_root() / "classroom").glob("*.py"):
        shutil.copy(path, folder)
    programs, disabled = os.environ.get("PATH", ""), logging.root.manager.disable
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), programs])
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = PyFileConfigLoader("nbgrader_config.py", path=str(folder)).load_config()
            config.CourseDirectory.root = str(folder)
            yield NbGraderAPI(config=config)
    finally:
        logging.disable(disabled)
        os.environ["PATH"] = programs


def release(api: Any, folder: Path, path: Path) -> Any:
    """One lesson's exercises as an assignment of their own; returns the notebook that students get."""
    import nbformat

    name = f"{path.stem}/{path.stem}.ipynb"
    write_notebook(exercises.teacher_notebook(path), folder / "source" / name)
    _step(api.generate_assignment(path.stem), "generate_assignment")
    notebook = nbformat.read(folder / "release" / name, as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells)
    for forbidden in ("BEGIN SOLUTION", "HIDDEN TESTS", PLACEHOLDER, OVERVIEW):
        if forbidden in text:
            raise NotebookError(f"{path.stem}: the student version shows {forbidden!r}")
    return notebook


def solved(released: Any, path: Path) -> Any:
    """A released notebook with every answer filled in."""
    notebook = copy.deepcopy(released)
    answers = {f"answer_{e.id.replace('.', '_')}": exercises.solution(e.answer) for e in exercises.load(path)}
    for cell in notebook.cells:
        cell.source = answers.get(cell.metadata.get("nbgrader", {}).get("grade_id"), cell.source)
    return notebook


def grade(api: Any, folder: Path, lesson: str, student: str) -> dict[str, float]:
    """Grade what a student has handed in for a lesson; returns the points."""
    from nbgrader.api import Gradebook

    _step(api.autograde(lesson, student), f"autograde {lesson} of {student}")
    with Gradebook(f"sqlite:///{folder / 'gradebook.db'}") as book:
        found = book.find_submission_notebook(lesson, lesson, student)
        return {"score": float(found.score), "max_score": float(found.max_score)}


def write_notebook(notebook: Any, path: Path) -> None:
    """As it is, to a file whose folder is made."""
    import nbformat

    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def _judge(results: Grades, autograded: Path) -> None:
    """Full marks for the solution, none for the untouched copy; the hidden cases took part and are not left there."""
    for name, full in results["solved"].items():
        zero = results["untouched"][name]
        if not (full["score"] == full["max_score"] > 0 == zero["score"]):
            raise NotebookError(
                f"{name}: expected full marks for the solution and none for the untouched copy, got "
                f"{full['score']:g} and {zero['score']:g} of {full['max_score']:g}; see {autograded}"
            )
        text = (autograded / "solved" / name / f"{name}.ipynb").read_text(encoding="utf-8")
        if ACCEPTED not in text or "HIDDEN TESTS" in text:
            raise NotebookError(f"{name}: hidden cases were not run, or are left in {autograded}")


def _step(result: dict[str, Any], name: str) -> None:
    if not result.get("success"):
        log = f"{result.get('log') or ''}\n{result.get('error') or ''}"
        causes = re.findall(r"^\s*(\w*(?:Error|Exception): .+)$", log, re.MULTILINE) or ["no message"]
        raise NotebookError(f"nbgrader {name} failed: {causes[0]}")
