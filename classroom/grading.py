"""What nbgrader calls when it grades: the answers are taken out of a submission, and each is checked in a process.

`nbgrader_config.py` in the folder of a class names the two classes. Nothing else of a submission is used: set-up, given
cells and checkers are the teacher's. So a damaged file or cell costs its own points and no others.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import nbformat
from isolated import Error, check, ready
from nbconvert.exporters import NotebookExporter
from nbgrader.preprocessors import NbGraderPreprocessor
from sandbox import KINDS
from traitlets import Enum, Float, Integer

from instructlab_repro.notebooks.exercises import HEADING

LARGEST, LONGEST = 2**26, 100_000  # bytes of a file, characters of a cell
UNCHANGED = {"name": "NoAnswer", "message": "the answer is as it was released"}
REFUSED = {
    "name": "HiddenCase",
    "message": "the visible cases pass, a hidden one does not: test more than they do",
}
ACCEPTED = "accepted, hidden cases too"
ALONE = "Only the answer's own cell is graded, as plain Python without IPython's commands: it must hold what it needs."


class Submission(NotebookExporter):
    """The notebook that was released, with the answers of a student's file and notes on what was amiss in it."""

    def from_filename(self, filename: str, resources: Any = None, **kw: Any) -> Any:
        """As nbconvert's. nbgrader calls it twice: with the student's file, and with what came of that."""
        converter: Any = self.parent
        ids, course = resources["nbgrader"], converter.coursedir
        graded = Path(course.format_path(course.autograded_directory, ids["student"], ids["assignment"]))
        if Path(filename).parent == graded:
            return super().from_filename(filename, resources, **kw)
        for other in graded.rglob("*"):  # copied by nbgrader, links followed; feedback would hand it out
            if other.is_file() and other.suffix != ".ipynb" and other.name != "timestamp.txt":
                other.unlink()
        released = course.format_path(course.release_directory, ".", ids["assignment"])
        notebook = nbformat.read(Path(released, f"{ids['notebook']}.ipynb"), as_version=4)
        try:
            cells, unread = handed_in(Path(filename)), []
        except (OSError, ValueError) as error:
            cells, unread = {}, [f"The submitted file was not read: {error}."]
        for cell in notebook.cells:
            if id := cell.metadata.get("nbgrader", {}).get("grade_id"):
                own = cells.get(id, [])
                changed = [text for _, text in own if text.strip() != cell.source.strip()]
                cell.metadata.instructlab = {
                    "released": cell.source,
                    "notes": unread or _notes(id, own, bool(changed) and cell.metadata.nbgrader.locked),
                }
                if cell.metadata.nbgrader.solution and changed and len(changed[-1]) <= LONGEST:
                    cell.source = changed[-1]
        return self.from_notebook_node(notebook, resources, **kw)


def handed_in(path: Path) -> dict[str, list[tuple[str, str]]]:
    """Type and text of the cells of a student's file by grade id, in order; ValueError where it is no notebook."""
    if path.is_symlink() or not path.is_file():
        raise ValueError("it is no regular file")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"it is larger than {LARGEST // 2**20} MiB")
    try:
        cells = json.loads(path.read_bytes())["cells"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"it is no notebook ({type(error).__name__}: {error})") from None
    found: dict[str, list[tuple[str, str]]] = {}
    for cell in cells if isinstance(cells, list) else []:
        try:
            id = cell["metadata"].get("nbgrader", {}).get("grade_id") or cell["id"].replace("-", "_")
            text = "".join(cell["source"]).encode(errors="replace").decode()
        except (LookupError, TypeError, AttributeError):
            continue  # damaged, or one of the student's own
        found.setdefault(str(id), []).append((str(cell.get("cell_type")), text))
    return found


def _notes(id: str, own: list[tuple[str, str]], altered: bool) -> list[str]:
    notes = {
        "was missing from the submission": not own,
        f"stood {len(own)} times in the submission; the last changed one of an answer counts": len(own) > 1,
        "was no code cell; its text is taken as code": any(kind != "code" for kind, _ in own),
        "had been changed; it is checked as it was released": altered,
        f"has more than {LONGEST:,} characters and is not read": any(len(text) > LONGEST for _, text in own),
    }
    return [f"Cell {id} {note}." for note, holds in notes.items() if holds]


class CheckAnswers(NbGraderPreprocessor):
    """Has each graded answer checked, and writes below its checker what came out; nbgrader reads the points there."""

    seconds = Float(60, help="wall-clock limit for one answer and its checker").tag(config=True)
    memory = Integer(2**31, help="bytes for one answer and its checker, beyond the imports").tag(config=True)

    sandbox = Enum(KINDS, "", help="shut the process in: bwrap, or docker").tag(config=True)

    def preprocess(self, nb: Any, resources: Any) -> Any:
        """Set-up is what stands before the first exercise, given is what stands in it before the answer."""
        if self.sandbox:
            ready(self.sandbox)
        setup: list[str] = []
        given = setup
        for cell in nb.cells:
            data = cell.metadata.get("nbgrader", {})
            if cell.cell_type != "code":
                given = [*setup] if HEADING.search(cell.source) else given
            elif data.get("solution"):
                answer = cell
            elif data.get("grade"):
                self._check(given, answer, cell, resources["nbgrader"]["student"])
            elif not data:
                given.append(cell.source)
        return nb, resources

    def _check(self, given: list[str], answer: Any, checker: Any, student: str) -> None:
        about, visible = answer.metadata.instructlab, checker.metadata.instructlab
        bound = (
            node
            for node in ast.parse(about.released).body
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
        )
        names = [node.name for node in bound]
        error: Error = UNCHANGED
        printed, notes = "", [*about.notes, *visible.notes]
        if answer.source.strip() != about.released.strip():
            limits = self.seconds, self.memory, self.sandbox
            error, _ = check(given, names, answer.source, checker.source, *limits)
            if error:  # what a student sees comes from a process that holds no hidden case
                self.log.warning("%s, %s: %r", student, checker.metadata.nbgrader.grade_id, error["message"])
                error, printed = check(given, names, answer.source, visible.released, *limits)
                error = error or REFUSED
                notes += [ALONE] if error["name"] in ("NameError", "SyntaxError") else []
        if not error:
            printed = ACCEPTED if checker.source.strip() != visible.released.strip() else "accepted"
        checker.outputs = [nbformat.v4.new_output("stream", name="stdout", text="\n".join([*notes, printed]))]
        if error:
            name, said = error["name"], error["message"]
            trace = [error.get("traceback") or f"{name}: {said}"]
            checker.outputs.append(nbformat.v4.new_output("error", ename=name, evalue=said, traceback=trace))
