"""Exercises: read from their text sources, turned into what nbgrader takes.

A source is ``notebooks/exercises/NN_name.py`` (jupytext py:percent). One exercise is a box (a Markdown cell that
begins with ``## NN.K title`` and holds a line ``> ●●○○○ · 10 minutes · practice``), cells that are given, an
answer cell and, directly after it, its checker. Answer and checker carry nbgrader metadata, with the defaults left out:

    # %% nbgrader={"grade_id": "answer_01_1", "solution": true}
    # %% nbgrader={"grade_id": "check_01_1", "locked": true}                              practice
    # %% nbgrader={"grade_id": "check_01_2", "grade": true, "points": 3, "locked": true}  graded

The solution is written once, between BEGIN SOLUTION and END SOLUTION. Practice exercises show it again where their
Markdown says ``{{solution}}``; graded ones hold hidden cases instead. ``{{overview}}`` becomes a table of the page.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructlab_utils.errors import NotebookError
from instructlab_utils.project import find_root, text_of

HEADING = re.compile(r"^## (?P<id>\d\d\.\d) (?P<title>.+)$", re.MULTILINE)
BOX = re.compile(
    r"^> (?P<stars>●{1,5}○{0,4}) · (?P<minutes>\d+) minutes · (?P<kind>practice|graded)"
    r"(?: · (?P<flavour>bug hunt|prediction))?$",
    re.MULTILINE,
)
SOLUTION = re.compile(r"^[ ]*### BEGIN SOLUTION\n(?P<body>.*?)^[ ]*### END SOLUTION\n?", re.M | re.S)
HIDDEN = re.compile(
    r"^[ ]*### BEGIN HIDDEN TESTS\n(?P<body>.*?)^[ ]*### END HIDDEN TESTS(?:\n|\Z)", re.M | re.S
)
PLACEHOLDER, OVERVIEW = "{{solution}}", "{{overview}}"
STUB = 'raise NotImplementedError("write your answer here")'
DEFAULTS = {"grade": False, "locked": False, "schema_version": 3, "solution": False, "task": False}


@dataclass(frozen=True)
class Exercise:
    """One exercise. ``setup`` and ``given`` are the code cells before it that it may use."""

    id: str
    title: str
    difficulty: int
    minutes: int
    kind: str
    flavour: str
    points: int
    text: str
    setup: tuple[str, ...]
    given: tuple[str, ...]
    answer: str
    check: str

    @property
    def graded(self) -> bool:
        """Does it count, and has it hidden cases?"""
        return self.kind == "graded"


# --- reading ------------------------------------------------------------------------------------------


def sources(root: Path | None = None) -> dict[str, Path]:
    """The exercise sources by lesson id, in order."""
    folder = (root or find_root()) / "notebooks" / "exercises"
    return {path.name[:2]: path for path in sorted(folder.glob("[0-9][0-9]_*.py"))}


def load(path: Path) -> list[Exercise]:
    """The exercises of one source, in order. NotebookError names the file, the exercise and what is missing."""
    cells = _notebook(path).cells
    starts = [i for i, c in enumerate(cells) if c.cell_type == "markdown" and HEADING.search(c.source)]
    if not starts:
        raise NotebookError(f"{path.name}: no exercise; a box begins with '## NN.K title'")
    setup = tuple(cell.source for cell in cells[: starts[0]] if cell.cell_type == "code")
    found = [
        _exercise(path, cells[start:end], setup)
        for start, end in zip(starts, [*starts[1:], len(cells)], strict=True)
    ]
    expected = [f"{path.name[:2]}.{k}" for k in range(1, len(found) + 1)]
    if [exercise.id for exercise in found] != expected:
        raise NotebookError(f"{path.name}: exercises must be numbered {', '.join(expected)}")
    return found


def _exercise(path: Path, cells: list[Any], setup: tuple[str, ...]) -> Exercise:
    heading = HEADING.search(cells[0].source)
    assert heading is not None
    where = f"{path.name}: exercise {heading['id']}"
    box = BOX.search(cells[0].source)
    if box is None or len(box["stars"]) != 5:
        rule = "write '> ●●○○○ · 10 minutes · practice' (or graded) under the title"
        raise NotebookError(f"{where}: no box; {rule}")
    suffix = heading["id"].replace(".", "_")
    by_id = {cell.metadata.get("nbgrader", {}).get("grade_id"): i for i, cell in enumerate(cells)}
    at, check_at = by_id.get(f"answer_{suffix}"), by_id.get(f"check_{suffix}")
    if at is None or check_at != at + 1:
        pair = f"a cell answer_{suffix}, and directly after it check_{suffix}"
        raise NotebookError(f"{where}: {pair}, are needed")
    answer, check = cells[at], cells[check_at]
    text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    graded = box["kind"] == "graded"
    solved = answer.metadata.nbgrader.solution and SOLUTION.search(answer.source)
    locked = check.metadata.nbgrader.locked and check.metadata.nbgrader.grade == graded
    hidden = bool(HIDDEN.search(check.source))
    hints = text.count("<summary>Hint ")
    ends_well = PLACEHOLDER not in text if graded else PLACEHOLDER in text and hints >= 2
    for holds, rule in (
        (solved, "the answer cell needs 'solution': true and BEGIN SOLUTION … END SOLUTION"),
        (locked, "the checker must be locked, and have 'grade' and points only if graded"),
        (hidden == graded, "hidden tests belong to graded exercises, and only to them"),
        (ends_well, f"a practice exercise ends with two hints and {PLACEHOLDER}; a graded one has none"),
    ):
        if not holds:
            raise NotebookError(f"{where}: {rule}")
    return Exercise(
        id=heading["id"],
        title=heading["title"],
        difficulty=box["stars"].count("●"),
        minutes=int(box["minutes"]),
        kind=box["kind"],
        flavour=box["flavour"] or "",
        points=int(check.metadata.nbgrader.get("points", 0)),
        text=text,
        setup=setup,
        given=tuple(cell.source for cell in cells[:at] if cell.cell_type == "code"),
        answer=answer.source,
        check=check.source,
    )


def _notebook(path: Path) -> Any:
    """The source as a notebook with complete nbgrader metadata and ids that do not change from call to call."""
    import jupytext

    if not path.is_file():
        raise NotebookError(f"no exercise source {path}")
    notebook = jupytext.reads(text_of(path), fmt="py:percent")
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        if "nbgrader" in cell.metadata:
            cell.metadata["nbgrader"].update(DEFAULTS | dict(cell.metadata["nbgrader"]))
            cell.id = cell.metadata["nbgrader"]["grade_id"].replace("_", "-")
    notebook.metadata.pop("jupytext", None)
    return notebook


# --- the same text for teachers and for students -----------------------------------------------------------


def solution(answer: str) -> str:
    """An answer cell with its solution and without the marker lines."""
    return SOLUTION.sub(lambda match: match["body"], answer)


def overview(exercises: list[Exercise]) -> str:
    """A Markdown table: exercise, difficulty, minutes, kind; with the minutes added up."""
    lines = ["| exercise | difficulty | minutes | kind |", "|:--|:--|--:|:--|"]
    for e in exercises:
        kind = " · ".join(filter(None, (e.kind, e.flavour, f"{e.points} points" if e.graded else "")))
        stars = "●" * e.difficulty + "○" * (5 - e.difficulty)
        lines.append(f"| {e.id} {e.title} | {stars} | {e.minutes} | {kind} |")
    alone = "\nOf what you hand in, only the answer cells of graded exercises are read: keep imports and helpers in them."
    return "\n".join([*lines, f"| together | | {sum(e.minutes for e in exercises)} | |", alone])


def teacher_notebook(path: Path) -> Any:
    """The notebook that nbgrader takes as its source: solutions and hidden cases in it, placeholders filled in."""
    exercises = load(path)
    notebook = _notebook(path)
    current = -1
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        current += bool(HEADING.search(cell.source))
        cell.source = cell.source.replace(OVERVIEW, overview(exercises))
        if PLACEHOLDER in cell.source:
            code = solution(exercises[current].answer).rstrip("\n")
            block = f"<details><summary>Solution</summary>\n\n```python\n{code}\n```\n\n</details>"
            cell.source = cell.source.replace(PLACEHOLDER, block)
    return notebook
