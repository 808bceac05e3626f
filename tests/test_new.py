"""`new KIND NAME`: each skeleton passes its tests except those that say what is missing; nothing is overwritten."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from test_drift import _title_row, agree, findings

from instructlab_repro import claims, experiments, notebooks
from instructlab_repro.engine.new import KINDS, TEMPLATES, new, next_step
from instructlab_utils import project as project_module
from instructlab_utils.errors import ParameterError
from instructlab_utils.tasks.listing import table, tables

ROOT = Path(__file__).resolve().parents[1]
MARK = "# SKELETON: "


def unfinished(root: Path) -> list[str]:
    """One sentence for each line of data/ by which a skeleton says that it is one."""
    return [
        f"{path.relative_to(root).as_posix()}, line {number}: {line.removeprefix(MARK)}"
        for path in sorted((root / "data").rglob("*.toml"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if line.startswith(MARK)
    ]


def test_no_skeleton_is_left_unfinished() -> None:
    assert not unfinished(ROOT), "\n".join(unfinished(ROOT))


@pytest.fixture
def clone(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The parts of this repository that a skeleton meets."""
    for folder in ("instructlab_utils", "tests/answers", "notebooks/exercises", "data/claims"):
        (project / folder).mkdir(parents=True)
    for pattern in (
        "tests/conftest.py",
        "tests/proof.py",
        "tests/test_exercises.py",
        "data/tasks.toml",
        "data/claims/C1.toml",
        "data/results/baselines*",
        "data/experiments/baselines.toml",
        "notebooks/experiments/source/baselines.py",
    ):
        for path in ROOT.glob(pattern):
            target = project / path.relative_to(ROOT)
            target.parent.mkdir(exist_ok=True)
            shutil.copy(path, target)
    baselines = project / "data" / "experiments" / "baselines.toml"
    text = baselines.read_text(encoding="utf-8")
    baselines.write_text(re.sub(r"(?m)^claims = .*$", 'claims = ["C1"]', text), encoding="utf-8")
    monkeypatch.setattr(
        project_module, "__file__", str(project / "instructlab_utils" / "project.py")
    )  # whose neighbour is the generated profiles.toml
    return project


def run_tests(root: Path, *paths: str) -> tuple[list[str], str]:
    """The tests of a clone that fail, and what pytest printed."""
    env = {**os.environ, "INSTRUCTLAB_ROOT": str(root), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *paths]
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=300)
    return re.findall(r"^FAILED (\S+)", done.stdout, flags=re.MULTILINE), done.stdout


# --- a lesson --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_lesson_needs_four_files_and_two_tests_say_what_is_missing(clone: Path) -> None:
    made = [path.relative_to(clone).as_posix() for path in new("lesson", "15_alignment")]
    assert made == [
        "notebooks/source/15_alignment.py",
        "notebooks/exercises/15_alignment.py",
        "tests/answers/15.toml",
        "tests/test_lesson_15.py",
    ]
    assert "@" not in "".join((clone / path).read_text() for path in (made[0], made[2], made[3]))
    failed, printed = run_tests(clone, "tests")
    assert failed == [
        "tests/test_exercises.py::test_each_lesson_has_a_long_box_and_an_open_project_with_a_rubric[15]",
        "tests/test_lesson_15.py::test_what_the_lesson_writes_by_hand_equals_the_library",
    ], printed
    assert "write a box of 40 minutes and a project with a rubric for lesson 15" in printed
    assert "write the parity test of lesson 15" in printed


def test_a_new_lesson_is_built_with_its_budget_and_runs(clone: Path, capsys, monkeypatch) -> None:
    new("lesson", "15_alignment")
    lesson = notebooks.find("15")
    assert lesson.title == "Alignment" and lesson.notebook.is_file()
    assert notebooks.check(["15"]) == []
    assert findings(lesson.source) == [] and agree(_title_row(lesson, "time"), lesson.minutes)
    assert findings(clone / "notebooks" / "exercises" / "15_alignment.py") == []
    table = tomllib.loads((clone / "instructlab_utils" / "profiles.toml").read_text())
    assert table["15"] == {"n_numbers": {"smoke": 100, "laptop": 10000, "gpu": 10000}}
    monkeypatch.setenv("INSTRUCTLAB_PROFILE", "smoke")
    space: dict[str, object] = {}
    for cell in notebooks.from_source(lesson.source).cells:
        if cell.cell_type == "code":
            exec(cell.source, space)
    assert "C1: " in capsys.readouterr().out and "mean_difference" in space["run"].metrics  # type: ignore[attr-defined]


# --- an experiment, a claim, a task ----------------------------------------------------------------


@pytest.mark.parametrize("own", [False, True], ids=["shared notebook", "own notebook"])
def test_an_experiment_needs_one_file_or_two(clone: Path, own: bool) -> None:
    made = [path.relative_to(clone).as_posix() for path in new("experiment", "label_noise", own_notebook=own)]
    assert made == [
        "data/experiments/label_noise.toml",
        *["notebooks/experiments/source/label_noise.py"] * own,
    ]
    grid = experiments.load("label_noise")
    assert grid.notebook == ("label_noise" if own else "tuning")
    for profile in ("smoke", "laptop", "gpu"):
        stages = {block.stage for block in grid.at(profile).blocks()}
        assert stages == {"tune", "run"}
    assert unfinished(clone) == [
        "data/experiments/label_noise.toml, line 1: "
        "name the methods, the grid and what it may cost, then remove this line."
    ]
    if own:
        source = notebooks.find("label_noise").source
        code = ast.parse(source.read_text(encoding="utf-8"))
        assert len({node.lineno for node in ast.walk(code) if isinstance(node, ast.stmt)}) <= 80
        assert notebooks.check(["label_noise"]) == [] and findings(source) == []


def test_a_claim_needs_one_file_and_is_a_draft(clone: Path) -> None:
    (path,) = new("claim", "K7")
    assert path == clone / "data" / "claims" / "K7.toml"
    found = claims.verdict("K7")
    assert (found["verdict"], found["experiment"]) == ("not tested", None)
    assert unfinished(clone) == [
        "data/claims/K7.toml, line 1: say what is claimed, who says it and where, then remove this line. "
        "Finish the claim before the first run."
    ]


def test_a_task_needs_a_table_and_no_python(clone: Path) -> None:
    before = len(tables())
    (path,) = new("task", "causal-pairs")
    assert path == clone / "data" / "tasks.toml" and len(tables()) == before + 1
    made = table("causal-pairs")
    assert (made.kind, made.asset) == ("choice", "bigbench")
    assert all((ROOT / "data" / "assets.toml").read_text().count(name) for name in made.files)
    assert (
        len(unfinished(clone)) == 1
        and "name the pinned files, say what the texts are" in unfinished(clone)[0]
    )
    with pytest.raises(ParameterError, match="has a task 'causal-pairs' already"):
        new("task", "causal-pairs")


# --- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("lessons", "15_x", "unknown kind 'lessons', did you mean 'lesson'?; known: lesson, experiment"),
        ("lesson", "alignment", "'alignment' is no name for a lesson; write one like 15_alignment"),
        ("lesson", "15_../x", "is no name for a lesson"),
        ("lesson", "00_other", "notebooks/source/00_tiny.py is there already; choose another name"),
        ("experiment", "Label-Noise", "is no name for an experiment; write one like label_noise"),
        ("experiment", "baselines", "data/experiments/baselines.toml is there already"),
        ("claim", "c31", "is no name for a claim; write one like C31"),
        ("claim", "C1", "data/claims/C1.toml is there already"),
        ("task", "Causal Pairs", "is no name for a task; write one like causal-pairs"),
    ],
)
def test_a_bad_name_is_one_sentence_and_writes_nothing(clone, write_lesson, kind, name, said) -> None:
    write_lesson()
    before = sorted(path for path in clone.rglob("*") if path.is_file())
    with pytest.raises(ParameterError, match=re.escape(said)) as caught:
        new(kind, name)
    assert "\n" not in str(caught.value)
    assert sorted(path for path in clone.rglob("*") if path.is_file()) == before


def test_only_an_experiment_may_have_a_notebook_of_its_own(clone: Path) -> None:
    with pytest.raises(ParameterError, match="a claim has no notebook to choose"):
        new("claim", "K7", own_notebook=True)
    assert next_step("claim", "K7") == "python -m instructlab_utils claims --plan K7"


def test_every_template_is_used_and_is_part_of_the_installed_package() -> None:
    used = {f"{name}.txt" for skeleton in KINDS.values() for name in skeleton.files} | {"notebook.py.txt"}
    assert {path.name for path in TEMPLATES.iterdir()} == used
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert "engine/templates/*.txt" in settings["package-data"]["instructlab_repro"]
