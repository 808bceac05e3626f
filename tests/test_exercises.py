"""The exercises and their checkers: solutions pass, every wrong answer in the bank meets its own message."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path

import proof
import pytest

from instructlab_repro import notebooks
from instructlab_repro.notebooks import exercises as ex
from instructlab_utils.errors import NotebookError

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ex.sources(ROOT)
EXERCISES = {exercise.id: exercise for path in SOURCES.values() for exercise in ex.load(path)}
ANSWERS = {
    path.stem: tomllib.loads(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "tests" / "answers").glob("*.toml"))
}
BANK = [wrong for answers in ANSWERS.values() for wrong in answers["wrong"]]
RIGHT = [item for answers in ANSWERS.values() for item in answers["right"].items()]
RIGHT += [
    (also["exercise"], also["code"]) for answers in ANSWERS.values() for also in answers.get("also", [])
]
SECONDS = {id: s for answers in ANSWERS.values() for id, s in answers.get("seconds", {}).items()}
HEAD = """# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# ## 09.1 Add
#
# > ●○○○○ · 5 minutes · graded

# %% nbgrader={"grade_id": "answer_09_1", "solution": true}
def add(a, b):
    ### BEGIN SOLUTION
    return a + b
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_09_1", "grade": true, "points": 1, "locked": true}
assert add(1, 2) == 3, "1 + 2 is 3."
### BEGIN HIDDEN TESTS
assert add(-1, 0) == -1, "Negative numbers too."
### END HIDDEN TESTS
"""


@cache
def judged(index: int) -> tuple[proof.Marking, proof.Marking]:
    """The verdicts on one wrong answer: of the visible checker alone, and with the hidden cases."""
    wrong = BANK[index]
    exercise = EXERCISES[wrong["exercise"]]
    seen = proof.prove(exercise, wrong["code"], hidden=False)
    if not seen.accepted and exercise.check.startswith(proof.visible(exercise.check)):
        return seen, seen  # the hidden cases come last: the whole checker would stop at the same place
    return seen, proof.prove(exercise, wrong["code"])


def label(index: int) -> str:
    return f"{BANK[index]['exercise']}-{BANK[index]['believes']}"


# --- the set as a whole -----------------------------------------------------------------------------------


@pytest.mark.parametrize("lesson", SOURCES)
def test_each_lesson_has_a_bug_hunt_a_prediction_and_both_kinds(lesson):
    own = [exercise for id, exercise in EXERCISES.items() if id.startswith(lesson)]
    assert 4 <= len(own) <= 8
    assert {"bug hunt", "prediction"} <= {exercise.flavour for exercise in own}
    assert {"practice", "graded"} == {exercise.kind for exercise in own}


@pytest.mark.parametrize("lesson", sorted(set(SOURCES) - {"27"}))  # a short companion
def test_each_lesson_has_a_long_box_and_an_open_project_with_a_rubric(lesson):
    own = [exercise for id, exercise in EXERCISES.items() if id.startswith(lesson)]
    projects = [exercise for exercise in own if exercise.minutes >= 90 and "rubric" in exercise.text.lower()]
    long = [exercise for exercise in own if exercise.minutes >= 40 and exercise not in projects]
    assert projects and long, f"write a box of 40 minutes and a project with a rubric for lesson {lesson}"


def test_every_lesson_has_a_page_of_exercises_and_at_least_three_misconceptions_each():
    assert list(SOURCES) == list(ANSWERS) == list(notebooks.lessons())
    count = {id: sum(wrong["exercise"] == id for wrong in BANK) for id in EXERCISES}
    assert set(EXERCISES) == {wrong["exercise"] for wrong in BANK}
    assert min(count.values()) >= 3, count


@pytest.mark.parametrize("id", EXERCISES)
def test_hidden_cases_catch_what_the_visible_checker_lets_through(id):
    only_hidden = [wrong for wrong in BANK if wrong["exercise"] == id and wrong.get("hidden")]
    assert bool(only_hidden) == EXERCISES[id].graded


@pytest.mark.parametrize("id", EXERCISES)
def test_every_misconception_has_its_own_message(id):
    own = [i for i, wrong in enumerate(BANK) if wrong["exercise"] == id and not wrong.get("blind")]
    messages = [judged(i)[1].message for i in own]
    for i in own:
        assert [BANK[i]["says"] in message for message in messages].count(True) == 1, BANK[i]["says"]


# --- the checkers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", EXERCISES)
def test_checker_accepts_the_solution_in_less_than_a_second(id):  # or in what a training run is given
    proof.prove(EXERCISES[id])  # the first call of a library function may compile or load something
    verdict = proof.prove(EXERCISES[id])
    assert verdict.accepted, f"{verdict.error}: {verdict.message}"
    assert verdict.seconds < SECONDS.get(id, 1)
    assert verdict.output.startswith(f"{id} passed")


@pytest.mark.parametrize("id", EXERCISES)
def test_checker_rejects_the_untouched_stub(id):
    verdict = proof.prove(EXERCISES[id], proof.stub(EXERCISES[id].answer))
    assert (verdict.accepted, verdict.error) == (False, "NotImplementedError")


@pytest.mark.parametrize("id", EXERCISES)
def test_checker_explains_a_forgotten_return(id):
    names = re.findall(r"^def (\w+)\(", EXERCISES[id].answer, re.MULTILINE)
    assert names
    for name in names:
        verdict = proof.prove(EXERCISES[id], f"def {name}(*args, **kwargs):\n    pass\n")
        assert verdict.error == "AssertionError"
        assert re.search(r"None|[Rr]eturn", verdict.message), verdict.message


@pytest.mark.parametrize("index", range(len(BANK)), ids=label)
def test_checker_rejects_a_wrong_answer_with_its_own_message(index):
    wrong = BANK[index]
    seen, all_cases = judged(index)
    assert not all_cases.accepted, "the checker accepts this wrong answer"
    assert all_cases.error == "AssertionError", f"{all_cases.error}: {all_cases.message}"
    assert wrong["says"] in all_cases.message, f"it said: {all_cases.message}"
    assert seen.accepted == wrong.get("hidden", False), f"visible cases: {seen.message or 'accepted'}"
    usual = 5 if wrong.get("blind") else 1  # one tries all sequences until it is stopped
    assert all_cases.seconds < SECONDS.get(wrong["exercise"], usual)


@pytest.mark.parametrize(("id", "code"), RIGHT, ids=[id for id, _ in RIGHT])
def test_checker_accepts_another_right_answer(id, code):
    verdict = proof.prove(EXERCISES[id], code)
    assert verdict.accepted, f"{verdict.error}: {verdict.message}"


def test_every_exercise_with_code_to_write_has_another_right_answer():
    assert {id for id, exercise in EXERCISES.items() if exercise.flavour != "prediction"} <= {
        id for id, _ in RIGHT
    }


# --- what students get ------------------------------------------------------------------------------------


def lines_of(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines()}


def code_of(text: str) -> set[str]:
    """The lines of a piece of code that are long enough to give something away."""
    return {
        line for line in lines_of(text) if len(line) > 12 and not line.startswith(("#", "return {", "def "))
    }


@pytest.mark.parametrize("path", SOURCES.values(), ids=lambda path: path.stem)
def test_student_notebook_shows_no_solution_and_no_hidden_case(path):
    notebook = proof.student_notebook(path)
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    text = "\n".join(cell.source for cell in notebook.cells)
    for marker in ("BEGIN SOLUTION", "END SOLUTION", "HIDDEN", ex.PLACEHOLDER, ex.OVERVIEW):
        assert marker not in text
    exercises = ex.load(path)
    shown = code_of("\n".join("\n".join((*e.setup, *e.given, proof.visible(e.check))) for e in exercises))
    for exercise in exercises:
        assert proof.stub(exercise.answer) in code and ex.STUB in proof.stub(exercise.answer)
        bodies = "\n".join(match["body"] for match in ex.SOLUTION.finditer(exercise.answer))
        assert not (code_of(bodies) - shown) & lines_of(text if exercise.graded else code)
        if exercise.graded:
            hidden = "\n".join(match["body"] for match in ex.HIDDEN.finditer(exercise.check))
            assert code_of(hidden) and not (code_of(hidden) - shown) & lines_of(text)
            assert "<summary>Solution" not in exercise.text
    assert ex.overview(exercises) in notebook.cells[0].source
    practice = [exercise for exercise in exercises if not exercise.graded]
    assert text.count("<summary>Solution</summary>") == len(practice)
    for exercise in practice:
        assert ex.solution(exercise.answer).strip() in text


@pytest.mark.parametrize("path", SOURCES.values(), ids=lambda path: path.stem)
def test_our_student_version_is_the_one_that_nbgrader_makes(path):
    pytest.importorskip("nbgrader")
    from nbgrader.preprocessors import CheckCellMetadata, ClearHiddenTests, ClearSolutions

    notebook = ex.teacher_notebook(path)
    clear = ClearSolutions(code_stub={"python": ex.STUB})
    for step in (CheckCellMetadata(), clear, ClearHiddenTests(), CheckCellMetadata()):
        notebook, _ = step.preprocess(notebook, {})
    ours = [cell.source.rstrip() for cell in proof.student_notebook(path).cells]
    assert [cell.source.rstrip() for cell in notebook.cells] == ours
    assert ex.STUB in "\n".join(ours)


@pytest.mark.parametrize("path", SOURCES.values(), ids=lambda path: path.stem)
def test_student_notebook_is_valid_and_always_the_same(path):
    import nbformat

    notebook = proof.student_notebook(path)
    nbformat.validate(notebook)
    assert nbformat.writes(notebook) == nbformat.writes(proof.student_notebook(path))
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert notebook.metadata.kernelspec.name == "python3"


# --- sources with a mistake in them ------------------------------------------------------------------------


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "09_add.py"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_small_source_loads(tmp_path):
    (exercise,) = ex.load(written(tmp_path, HEAD))
    assert (exercise.id, exercise.difficulty, exercise.minutes, exercise.points) == ("09.1", 1, 5, 1)
    assert proof.prove(exercise).accepted
    assert proof.prove(exercise, "def add(a, b):\n    return abs(a) + b").message == "Negative numbers too."
    assert proof.prove(exercise, "def add(a, b):\n    return abs(a) + b", hidden=False).accepted
    assert "a + b" not in proof.stub(exercise.answer) and proof.stub(exercise.answer).endswith(ex.STUB)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("## 09.1 Add", "## Add", "no exercise"),
        ("9.1 Add", "9.2 Add", "a cell answer_09_2"),
        ("●○○○○", "●○○○", "no box"),
        ("· graded", "· marked", "no box"),
        ("answer_09_1", "answer_09_2", "a cell answer_09_1"),
        ("### BEGIN SOLUTION", "# begin", "BEGIN SOLUTION"),
        ('"solution": true', '"locked": true', "'solution': true"),
        ('"grade": true, "points": 1, ', "", "the checker must be locked"),
        ("### BEGIN HIDDEN TESTS", "# hidden", "hidden tests belong to graded"),
        ("· graded\n", "· graded\n#\n# {{solution}}\n", "a graded one has none"),
    ],
)
def test_a_mistake_in_a_source_is_named(tmp_path, old, new, says):
    assert old in HEAD
    with pytest.raises(NotebookError, match=re.escape(says)):
        ex.load(written(tmp_path, HEAD.replace(old, new)))


def test_wrong_numbering_is_named(tmp_path):
    with pytest.raises(NotebookError, match=r"numbered 09\.1"):
        ex.load(written(tmp_path, HEAD.replace("09.1", "09.2").replace("09_1", "09_2")))


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(NotebookError, match="no exercise source"):
        ex.load(tmp_path / "09_none.py")
