"""A class of hostile students through nbgrader's own commands: each spoils one lesson, and keeps what is not spoiled.

python tests/drill_classroom.py [LESSON LESSON]    # a table; status 1 if a student's points are not as expected
"""

from __future__ import annotations

import copy
import html
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructlab_repro.engine import classroom
from instructlab_repro.notebooks import exercises

ALL, REST, NONE = (
    "all",
    "rest",
    "none",
)  # of the spoiled lesson's points: the rest is all but the first exercise's

TRANSFORMER = """
import ast, builtins

class Emptied(ast.NodeTransformer):
    def visit_FunctionDef(self, node):
        if node.name.startswith(("check_", "hidden_")):
            node.body = [ast.Pass()]
        return node

try:
    get_ipython().ast_transformers.append(Emptied())
except NameError:
    compiled = builtins.compile
    builtins.compile = lambda source, *more, **named: compiled(Emptied().visit(ast.parse(source)), *more, **named)
"""
PATCHER = """
import builtins, copy, math, sys

def always(*args, **kwargs):
    return True

math.isclose = builtins.all = builtins.isinstance = always
for name, module in list(sys.modules.items()):
    if name in ("torch", "numpy"):
        module.allclose = module.equal = always
print('{"name": "", "message": ""}', "passed")
"""

Answers = dict[str, str]


@dataclass(frozen=True)
class Student:
    """What one does to a solved notebook: change the notebook, or the bytes of its file; and what that may cost."""

    keeps: str
    told: str
    change: Callable[[dict[str, Any]], None] | None = None
    data: Callable[[bytes], bytes] | None = None


def cells(notebook: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The cells whose grade id begins with ``kind``."""
    return [
        c for c in notebook["cells"] if c["metadata"].get("nbgrader", {}).get("grade_id", "").startswith(kind)
    ]


def graded(notebook: dict[str, Any]) -> dict[str, Any]:
    """The answer cell of the first graded exercise."""
    check = next(c for c in cells(notebook, "check_") if c["metadata"]["nbgrader"]["grade"])
    return cells(notebook, check["metadata"]["nbgrader"]["grade_id"].replace("check", "answer"))[0]


def answering(code: str, *, instead: bool = False) -> Callable[[dict[str, Any]], None]:
    """Code in the answer of the first graded exercise: before the solution, or instead of it."""

    def change(notebook: dict[str, Any]) -> None:
        cell = graded(notebook)
        text = "".join(cell["source"])
        cell["source"] = code + (
            "\n" + re.sub(r"(?s)(def .+?:\n).*", r"\1    return None\n", text) if instead else text
        )

    return change


def nothing_solved(notebook: dict[str, Any]) -> None:
    for cell in cells(notebook, "answer_"):
        head = re.match(r"(?s).*?def .+?:\n", "".join(cell["source"]))
        cell["source"] = f"{TRANSFORMER}\n{head[0] if head else ''}    return None\n"
    notebook["cells"].insert(
        0,
        {
            **notebook["cells"][-1],
            "cell_type": "code",
            "source": TRANSFORMER,
            "outputs": [],
            "execution_count": None,
            "metadata": {},
            "id": "mine",
        },
    )


def repeated(notebook: dict[str, Any]) -> None:
    notebook["cells"] += copy.deepcopy(cells(notebook, "check_"))


def deleted(kind: str) -> Callable[[dict[str, Any]], None]:
    def change(notebook: dict[str, Any]) -> None:
        lost = cells(notebook, "check_") if kind == "check_" else [graded(notebook)]
        notebook["cells"] = [cell for cell in notebook["cells"] if cell not in lost]

    return change


def retyped(notebook: dict[str, Any]) -> None:
    for cell in (*cells(notebook, "answer_"), *cells(notebook, "check_")):
        cell["cell_type"] = "markdown"
        cell.pop("outputs", None), cell.pop("execution_count", None)


def damaged(notebook: dict[str, Any]) -> None:
    for cell in cells(notebook, "answer_"):
        cell["source"] = [*cell["source"], "\n# half a character: \ud800\n"]
    notebook["cells"][1:1] = [
        None,
        7,
        "text",
        {"metadata": None},
        {"metadata": {"nbgrader": []}, "source": [1]},
    ]
    del notebook["nbformat"]


def printing(notebook: dict[str, Any]) -> None:
    graded(notebook)["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "x" * 50 * 2**20}]


CLASS = {
    "honest": Student(ALL, "accepted"),
    "empty": Student(NONE, "it is no notebook", data=lambda data: b""),
    "torn": Student(NONE, "it is no notebook", data=lambda data: data[: len(data) // 2]),
    "vast": Student(NONE, "larger than 64 MiB", data=lambda data: data + b" " * 2**26),
    "link": Student(NONE, "it is no regular file"),
    "wordy": Student(ALL, "accepted", printing),
    "damaged": Student(ALL, "accepted", damaged),
    "repeated": Student(ALL, "stood 2 times", repeated),
    "deleted": Student(ALL, "was missing", deleted("check_")),
    "lost": Student(REST, "was missing", deleted("answer_")),
    "retyped": Student(ALL, "was no code cell", retyped),
    "leaving": Student(REST, "ended with status 0", answering("import os\nos._exit(0)\n")),
    "endless": Student(REST, "an endless loop", answering("while True:\n    pass\n")),
    "transformer": Student(NONE, "Error", nothing_solved),
    "unspeakable": Student(REST, "ValueError", answering("raise ValueError('\\ud800')\n")),
    "patcher": Student(REST, "Error", answering(PATCHER, instead=True)),
}


def drill(folder: Path, pages: list[Path], seconds: int) -> list[dict[str, Any]]:
    """Grade the class in two lessons, of which the first is spoiled, with nbgrader's commands; one row a student."""
    with classroom.opened(folder) as api:
        for page in pages:
            released = classroom.release(api, folder, page)
            for name, student in CLASS.items():
                path = folder / "submitted" / name / page.stem / f"{page.stem}.ipynb"
                classroom.write_notebook(classroom.solved(released, page), path)
                if page is pages[0]:
                    spoil(path, student, folder / "source" / page.stem / path.name)
    config = folder / "nbgrader_config.py"
    text = re.sub(r"(?m)^(c.CheckAnswers.seconds =).*", rf"\1 {seconds}", config.read_text(encoding="utf-8"))
    config.write_text(text, encoding="utf-8")
    for command in ("autograde", "generate_feedback"):
        for page in pages:
            words = [sys.executable, "-m", "nbgrader", command, page.stem]
            done = subprocess.run(words, cwd=folder, capture_output=True, text=True, encoding="utf-8")
            if done.returncode:
                raise SystemExit(f"{command} {page.stem}: {done.stderr[-2000:]}")
    secret = hidden_lines(pages)
    return [row(folder, pages, name, student, secret) for name, student in CLASS.items()]


def spoil(path: Path, student: Student, source: Path) -> None:
    if student.change:
        notebook = json.loads(path.read_bytes())
        student.change(notebook)
        path.write_text(json.dumps(notebook), encoding="utf-8")
    elif student.data:
        path.write_bytes(student.data(path.read_bytes()))
    elif student.keeps == NONE:
        path.unlink()
        path.symlink_to(source)
        path.with_name("extra.txt").symlink_to(source)


def hidden_lines(pages: list[Path]) -> set[str]:
    """The lines of hidden code that say something and stand nowhere else on the pages."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    inside = {
        line.strip() for match in exercises.HIDDEN.finditer(text) for line in match["body"].splitlines()
    }
    outside = {line.strip() for line in exercises.HIDDEN.sub("", text).splitlines()}
    return {line for line in inside - outside if len(line) > 12}


def row(folder: Path, pages: list[Path], name: str, student: Student, secret: set[str]) -> dict[str, Any]:
    """Points by lesson and what they should be; was the student told; files for the student that show a hidden line."""
    from nbgrader.api import Gradebook

    full, first = {}, 0
    for page in pages:
        points = [exercise.points for exercise in exercises.load(page) if exercise.graded]
        full[page.stem], first = sum(points), first or points[0]
    spoiled = pages[0].stem
    lost = {ALL: 0, REST: first, NONE: full[spoiled]}[student.keeps]
    with Gradebook(f"sqlite:///{folder / 'gradebook.db'}") as book:
        points = {stem: float(book.find_submission_notebook(stem, stem, name).score) for stem in full}
    feedback = folder / "feedback" / name
    seen = [path for path in (*feedback.rglob("*"), *(folder / "release").rglob("*")) if path.is_file()]
    text = html.unescape((feedback / spoiled / f"{spoiled}.html").read_text(encoding="utf-8"))
    return {
        "student": name,
        "points": points,
        "expected": full | {spoiled: full[spoiled] - lost},
        "told": student.told in text,
        "shown": [
            path.name
            for path in seen
            if any(line in html.unescape(path.read_text("utf-8")) for line in secret)
        ],
        "others": [path.name for path in feedback.rglob("*") if path.is_file() and path.suffix != ".html"],
    }


def main(names: list[str]) -> int:
    pages = [exercises.sources()[name] for name in names]
    with tempfile.TemporaryDirectory() as folder:
        rows = drill(Path(folder, "class"), pages, seconds=30)
    for one in rows:
        good = one["points"] == one["expected"] and one["told"] and not one["shown"] and not one["others"]
        points = "  ".join(
            f"{stem} {found:g} of {one['expected'][stem]:g}" for stem, found in one["points"].items()
        )
        print(f"{one['student']:12} {points}  {'ok' if good else one}", flush=True)
        one["good"] = good
    return int(not all(one["good"] for one in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["00", "05"]))
