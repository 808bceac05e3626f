"""The exercises proved in this process: a solution, a wrong answer, a student's page, without nbgrader and kernels."""

from __future__ import annotations

import contextlib
import io
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructlab_repro.notebooks.exercises import HIDDEN, SOLUTION, STUB, Exercise, solution, teacher_notebook


@dataclass(frozen=True)
class Marking:
    """What a checker said of an answer: nothing (accepted), or the exception's type and message.

    ``seconds`` is processor time, which a busy machine does not lengthen.
    """

    accepted: bool
    error: str
    message: str
    output: str
    seconds: float


def stub(answer: str) -> str:
    """An answer cell whose solutions are replaced by the line that raises NotImplementedError."""

    def cut(match: re.Match[str]) -> str:
        indent = match[0][: len(match[0]) - len(match[0].lstrip(" "))]
        return f"{indent}{STUB}\n"

    return SOLUTION.sub(cut, answer).rstrip("\n")


def visible(check: str) -> str:
    """A checker without its hidden cases."""
    return HIDDEN.sub("", check).rstrip("\n")


def student_notebook(path: Path) -> Any:
    """What a student opens: stubs instead of solutions, no hidden cases. Needs no nbgrader and no kernel."""
    notebook = teacher_notebook(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = visible(stub(cell.source))
    return notebook


def prove(exercise: Exercise, answer: str | None = None, *, hidden: bool = True) -> Marking:
    """Run set-up, given cells, an answer and its checker in a fresh namespace, in this process.

    Args:
        answer: the student's code; it is run after the solution, so that it may replace one function of several.
            None stands for the solution itself.
        hidden: also run the hidden cases.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        for number, code in enumerate((*exercise.setup, *exercise.given)):
            _execute(code, f"{exercise.id} given {number}", namespace)
        _execute(solution(exercise.answer), f"{exercise.id} solution", namespace)
        if answer is not None:
            _execute(answer, f"{exercise.id} answer", namespace)
        output.truncate(0)
        output.seek(0)
        began = time.process_time()
        error = message = ""
        try:
            check = exercise.check if hidden else visible(exercise.check)
            _execute(check, f"{exercise.id} checker", namespace)
        except Exception as caught:
            error, message = type(caught).__name__, str(caught)
        seconds = time.process_time() - began
    return Marking(not error, error, message, output.getvalue(), seconds)


def _execute(code: str, name: str, namespace: dict[str, Any]) -> None:
    exec(compile(code, f"<{name}>", "exec", dont_inherit=True), namespace)
