"""Grading: one answer in a process of its own, a hostile class through nbgrader, and what `make classroom` refuses."""

from __future__ import annotations

import csv
import html
import importlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import drill_classroom
import proof
import pytest

from instructlab_repro.engine import classroom
from instructlab_repro.notebooks import exercises
from instructlab_utils.errors import ConfigError, NotebookError

ROOT = Path(__file__).resolve().parents[1]
PAGE = """# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %%
import math

# %% [markdown]
# ## 09.1 Add
#
# > ●○○○○ · 5 minutes · graded

# %%
BASE = 1

# %% nbgrader={"grade_id": "answer_09_1", "solution": true}
def add(a, b):
    ### BEGIN SOLUTION
    return a + b
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_09_1", "grade": true, "points": 1, "locked": true}
def check_09_1(add):
    assert math.isclose(add(1, 2), 3) and BASE == 1, "1 + 2 is 3."


check_09_1(add)
### BEGIN HIDDEN TESTS
def hidden_09_1(add):
    assert math.isclose(add(-1, 0), -1), "Negative numbers too."


hidden_09_1(add)
### END HIDDEN TESTS

# %% [markdown]
# ## 09.2 Twice
#
# > ●○○○○ · 5 minutes · graded

# %% nbgrader={"grade_id": "answer_09_2", "solution": true}
def twice(a):
    ### BEGIN SOLUTION
    return a + a
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_09_2", "grade": true, "points": 2, "locked": true}
assert twice(1) == 2, "Twice 1 is 2."
### BEGIN HIDDEN TESTS
assert twice("ab") == "abab", "Strings too."
### END HIDDEN TESTS
"""
HARNESS = """
sys.modules["instructlab_utils.checking"] = checking = types.ModuleType("instructlab_utils.checking")
exec("NUMBER_TOLERANCE, TOLERANCE = 1e-6, {}\\nclass calls:\\n    __call__ = max\\ndef equal():\\n    pass", vars(checking))
"""  # a harness of four names in the place of the real one
WRONG = "def add(a, b):\n    return 0\n"
ABSOLUTE = "def add(a, b):\n    return abs(a) + b\n"


@pytest.fixture(scope="module")
def isolated() -> ModuleType:
    return beside("isolated")


def beside(name: str) -> ModuleType:
    """A module of the folder classroom/, which is copied into each class and is in no package."""
    sys.path.insert(0, str(ROOT / "classroom"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "classroom"))


def page(folder: Path, id: str = "09") -> Path:
    path = folder / f"{id}_add.py"
    path.write_text(PAGE.replace("09", id), encoding="utf-8")
    return path


@pytest.fixture
def checked(isolated: ModuleType, tmp_path: Path) -> Any:
    """What the process says of an answer to 09.1: the error, and what was printed."""
    exercise = exercises.load(page(tmp_path))[0]

    def run(answer: str, *, setup: str = "", **limits: float) -> tuple[dict[str, str], str]:
        given = [*exercise.setup, *exercise.given, setup]
        error, printed = isolated.check(given, ["add"], answer, exercise.check, **limits)
        return error, printed

    return run


# --- one answer, one process ------------------------------------------------------------------------------


def test_a_right_answer_is_accepted_and_what_it_prints_is_kept(checked):
    assert checked("print('mine')\ndef add(a, b):\n    return a + b\n") == ({}, "mine\n")


@pytest.mark.parametrize(
    ("answer", "message"),
    [(WRONG, "1 + 2 is 3."), (ABSOLUTE, "Negative numbers too."), ("", "does not define add")],
)
def test_a_wrong_answer_meets_the_message_of_the_checker(checked, answer, message):
    error, _ = checked(answer)
    assert message in error["message"] and message in error["traceback"]


@pytest.mark.parametrize(
    ("attack", "name"),
    [
        (drill_classroom.TRANSFORMER, "AssertionError"),
        (drill_classroom.PATCHER, "PermissionError"),
        ("def check_09_1(add):\n    pass\nhidden_09_1 = check_09_1", "AssertionError"),
        ("class math:\n    isclose = staticmethod(lambda a, b: True)", "AssertionError"),
        ("math.isclose = lambda a, b: True", "PermissionError"),
        ("import builtins\nbuiltins.AssertionError = SystemExit", "AssertionError"),
        (
            "import builtins\nmath.isclose = lambda a, b: True\nbuiltins.any = lambda every: False",
            "PermissionError",
        ),
        ("class Yes:\n    __eq__ = __call__ = lambda *any: True\nmath.isclose = Yes()", "PermissionError"),
        ("given.__globals__['math'] = None", "AssertionError"),
        ("import sys\nsys.exit(0)", "SystemExit"),
        ("raise SystemExit", "SystemExit"),
        ("import os\nos._exit(0)", "NoVerdict"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "NoVerdict"),
        ("print('09.1 passed')\nprint('{}')\nimport sys\nprint('passed', file=sys.stderr)", "AssertionError"),
        ("import sys\nsys.settrace(lambda *event: None)\nmath = 1", "AssertionError"),
        ("get_ipython().run_line_magic('pinfo', 'math')", "NameError"),
        ("def add(a, b) return", "SyntaxError"),
        ("x = '\\0'\n\0", "SyntaxError|ValueError"),
        ("input()", "EOFError"),
    ],
)
def test_an_answer_that_attacks_its_checker_earns_nothing(checked, attack, name):
    error, _ = checked(f"{attack}\n{WRONG}", setup="def given():\n    pass\n")
    assert error["name"] in name.split("|"), error


@pytest.mark.parametrize(
    "inside",
    [
        "math.isclose = lambda *any: True",
        "import sys; sys._getframe(1).f_globals['math'] = __import__('types').SimpleNamespace(isclose=max)",
        "import os; os._exit(0)",
        "raise SystemExit(0)",
    ],
)
def test_an_attack_at_the_time_of_the_call_earns_nothing(checked, inside):
    error, _ = checked(f"def add(a, b):\n    {inside}\n    return 3\n")
    assert error["name"] in ("PermissionError", "SystemExit", "NoVerdict"), error


def test_a_function_whose_code_was_replaced_is_seen(isolated):
    case = "import copy\ncopy.deepcopy.__code__ = (lambda x: 1).__code__\ndef f():\n    return 1\n"
    error, _ = isolated.check(["import copy"], ["f"], case, "assert copy.deepcopy(2) == f()")
    assert "copy.deepcopy" in error["message"]


def test_data_of_torch_and_of_the_common_harness_may_not_be_replaced(isolated):
    case = "def f():\n    return 1\n"
    for attack, place in (
        ("torch.float32 = torch.float64", "torch.float32"),
        ("checking.NUMBER_TOLERANCE = 1e9", "instructlab_utils.checking.NUMBER_TOLERANCE"),
        ("checking.TOLERANCE[torch.float32] = 1e9", "instructlab_utils.checking.TOLERANCE"),
        ("checking.equal = print", "instructlab_utils.checking.equal"),
        ("checking.calls.__call__ = lambda *args: 1", "instructlab_utils.checking.calls.__call__"),
    ):
        given = ["import sys, types", "import torch", HARNESS]
        error, _ = isolated.check(given, ["f"], f"{case}{attack}\n", "assert f() == 1")
        assert place in error["message"], error


def test_an_exception_that_cannot_be_shown_or_stored_is_an_error(checked):
    assert checked("raise ValueError('\\ud800')")[0]["message"] == "?"
    error, _ = checked("class E(Exception):\n    def __str__(self):\n        raise self\nraise E")
    assert (error["name"], error["message"]) == ("E", " (its text cannot be shown)")


def test_a_method_put_into_tensor_is_seen_and_torch_itself_is_not(isolated):
    case = (["import torch"], ["f"], "def f():\n    return torch.zeros(2)\n", "assert (f() == 1).all()")
    assert isolated.check(*case)[0]["name"] == "AssertionError"
    forged = case[2] + "torch.Tensor.__bool__ = lambda self: True\n"
    assert "Tensor.__bool__" in isolated.check(*case[:2], forged, case[3])[0]["message"]
    learns = case[2] + "torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0).step()\n"
    assert isolated.check(*case[:2], learns, "assert len(f()) == 2")[0] == {}


def test_an_endless_loop_ends_at_the_limit_with_what_it_started(checked):
    began = time.monotonic()
    error, _ = checked(
        "import subprocess\nsubprocess.Popen(['sleep', '60'])\nwhile True:\n    pass\n", seconds=2
    )
    assert error["name"] == "TimeLimit" and "2 s" in error["message"]
    assert time.monotonic() - began < 20


def test_a_thread_that_goes_on_does_not_hold_the_verdict(checked):
    thread = "import threading, time\nthreading.Thread(target=time.sleep, args=[60]).start()\n"
    assert checked(f"{thread}def add(a, b):\n    return a + b\n", seconds=30) == ({}, "")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how much memory is in use")
def test_memory_and_files_have_a_limit(checked):
    assert checked(f"x = bytearray(2**30)\n{WRONG}", memory=2**29)[0]["name"] == "MemoryError"
    assert checked(f"open('x', 'wb').write(bytes(2**25))\n{WRONG}")[0]["name"] == "OSError"
    assert checked(f"{drill_classroom.PRINTER}{WRONG}")[0]["name"] == "OSError"  # a gigabyte
    _, printed = checked(f"print('x' * 10**6)\n{WRONG}")
    assert len(printed) == 10_000


def test_the_environment_of_the_caller_does_not_reach_an_answer(checked, monkeypatch, tmp_path):
    (tmp_path / "math.py").write_text("isclose = lambda a, b: True", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "PYTHONOPTIMIZE": "1",
        "PYTHONPATH": str(tmp_path),
        "SECRET_TOKEN": "1",
        "HOME": "/",
    }.items():
        monkeypatch.setenv(name, value)
    assert checked(WRONG)[0]["message"] == "1 + 2 is 3."
    _, printed = checked("import os\nprint(sorted(os.environ), os.listdir())")
    assert "PATH" in printed and printed.rstrip().endswith("[]")
    assert not any(word in printed for word in ("PYTHON", "SECRET", str(tmp_path)))


def test_the_annotations_of_an_answer_are_evaluated_as_in_a_notebook(checked, tmp_path):
    answer = "def add(a: int, b: int) -> int:\n    assert add.__annotations__['a'] is int\n    return a + b\n"
    assert checked(answer)[0] == {}
    assert proof.prove(exercises.load(page(tmp_path))[0], answer).accepted


# --- a class ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_hostile_class_through_nbgrader_loses_what_it_spoiled_and_no_more(tmp_path):
    pytest.importorskip("nbgrader")
    rows = drill_classroom.drill(tmp_path / "class", [page(tmp_path), page(tmp_path, "08")], seconds=10)
    assert [row["student"] for row in rows] == list(drill_classroom.CLASS) and len(rows) > 12
    for row in rows:
        assert row["points"] == row["expected"], row
        assert row["told"] and not row["shown"] and not row["others"], row
    assert {0.0, 2.0, 3.0} == {row["points"]["09_add"] for row in rows}
    log = (tmp_path / "class" / "grading.log").read_text(encoding="utf-8")
    assert "leaving, check_09_1" in log


# --- in a sandbox -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bwrap() -> str:
    try:
        beside("isolated").ready("bwrap")
    except RuntimeError as error:
        pytest.skip(str(error))
    return "bwrap"


@pytest.mark.slow
def test_answers_that_attack_the_machine_reach_nothing_and_get_what_was_earned(bwrap, tmp_path):
    pytest.importorskip("nbgrader")
    students = drill_classroom.HOSTILE | {name: drill_classroom.CLASS[name] for name in ("honest", "endless")}
    rows = drill_classroom.drill(
        tmp_path / "class", [page(tmp_path), page(tmp_path, "08")], 10, bwrap, students
    )
    assert len(rows) == len(students)
    for row in rows:
        assert row["points"] == row["expected"], row
        assert row["told"] and not row["shown"] and not row["others"], row
    told = (tmp_path / "class" / "feedback" / "vandal" / "09_add" / "09_add.html").read_text(encoding="utf-8")
    assert "written: /" not in html.unescape(told)


def test_without_a_sandbox_the_same_attacks_reach_the_network_and_the_hidden_cases(isolated, tmp_path):
    page(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        attack = drill_classroom.NETWORK.replace("{port}", str(server.getsockname()[1]))
        assert isolated.check([], [], attack, "") == ({}, "")
        assert server.accept()[0].recv(9) == b"the hidde"
    words = [line[::-1] for line in drill_classroom.hidden_lines([tmp_path / "09_add.py"])]
    attack = re.sub(r"for root in \(.+\):", f"for root in ('{tmp_path}',):", drill_classroom.READER)
    error, printed = isolated.check([], [], attack.replace("{words}", repr(words)), "")
    assert error["message"] == "read what I could" and "def hidden_09_1(add):" in printed


def test_a_sandbox_leaves_python_and_the_course_and_takes_the_rest(bwrap, isolated):
    look = "import os, sys\nimport instructlab_utils\n"
    look += (
        f"print(os.path.exists({str(ROOT / 'notebooks')!r}), os.path.exists('/etc/passwd'), os.getuid())\n"
    )
    look += "print(sorted(os.environ), os.listdir('.'))\nopen('mine', 'w').write('x' * 2**20)\n"
    look += "open(instructlab_utils.__file__, 'a')\n"
    error, printed = isolated.check([], [], look, "", sandbox=bwrap)
    assert error["name"] in ("OSError", "PermissionError"), error  # read-only, and of somebody else
    seen, kept = printed.splitlines()
    assert seen.startswith("False False ") and not seen.endswith(" 0") and kept.endswith("[]")
    assert "TOKEN" not in kept and "PYTHONPATH" not in kept
    error, _ = isolated.check([], [], "bytearray(2**30)", "", memory=2**29, sandbox=bwrap)
    assert error["name"] == "MemoryError"
    began = time.monotonic()
    error, _ = isolated.check(
        [], [], "import os\nos.fork()\nwhile True:\n    pass", "", seconds=2, sandbox=bwrap
    )
    assert error["name"] == "TimeLimit" and time.monotonic() - began < 20


def test_nobody_is_graded_where_the_sandbox_does_not_run(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        RuntimeError, match=r"'bwrap' does not run on this machine \(bwrap is not installed\)"
    ):
        beside("isolated").ready("bwrap")
    refuses = tmp_path / "bwrap"
    refuses.write_text("#!/bin/sh\necho 'No permissions to create new namespace'\nexit 1\n", encoding="utf-8")
    refuses.chmod(0o755)
    with pytest.raises(RuntimeError, match="No permissions to create new namespace"):
        beside("isolated").ready("bwrap")


DOCKER = """#!{python}
import os, sys
words = sys.argv[sys.argv.index("instructlab-grader") + 1 :]
assert words[:3] == ["timeout", "--signal=KILL", "65"] and words[3] == "python", words
os.environ.clear()
os.execv({python!r}, [{python!r}, *words[4:-1], {script!r}])
"""


@pytest.mark.skipif(
    shutil.which("prlimit") is None, reason="prlimit (util-linux) limits what the client may write"
)
def test_the_container_gets_its_job_and_gives_its_verdict(isolated, monkeypatch, tmp_path):
    """With a program in docker's place, which starts what docker would start: no daemon runs here."""
    stub = tmp_path / "docker"
    stub.write_text(DOCKER.format(python=sys.executable, script=isolated.__file__), encoding="utf-8")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    case = (["x = 1"], ["f"], "def f():\n    return 1\n")
    assert isolated.check(*case, "assert f() == x", sandbox="docker")[0] == {}
    assert isolated.check(*case, "assert f() != x, 'no'", sandbox="docker")[0]["message"] == "no"


def test_the_container_has_limits_that_docker_knows(tmp_path):
    words = beside("sandbox").command("docker", "isolated.py", "/course", tmp_path, {}, 60, 2**31)
    words = words[words.index("docker") : words.index("instructlab-grader")]
    for wanted in (
        "--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges",
        "--pids-limit=64", "--memory=4294967296", "--memory-swap=4294967296", "--user=65534:65534",
    ):  # fmt: skip
        assert wanted in words
    assert [word for word in words if word.startswith("--volume")] == [
        f"--volume={tmp_path}/verdict:{tmp_path}/verdict"
    ]
    if program := shutil.which("docker"):
        known = subprocess.run([program, "run", "--help"], capture_output=True, text=True).stdout
        assert [word for word in words[2:] if word.split("=")[0] not in known] == []


def test_the_image_holds_the_grader_and_no_exercise(tmp_path):
    lines = (ROOT / "deploy" / "grader" / "Dockerfile").read_text(encoding="utf-8").splitlines()
    steps = [line.split() for line in lines if line and not line.startswith("#")]
    assert steps[0][0] == "FROM" and ["USER", "65534:65534"] in steps
    copied = {name for step in steps if step[0] == "COPY" for name in step[1:-1]}
    assert copied == {
        "requirements.lock",
        "LICENSE",
        "classroom/isolated.py",
        "instructlab_utils",
        "instructlab_apps",
    }
    assert all((ROOT / name).exists() for name in copied)
    assert {step[0] for step in steps} <= {"FROM", "ENV", "WORKDIR", "COPY", "RUN", "USER", "CMD"}


SCRIPT = ROOT / "deploy" / "grader" / "grade.sh"


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "which class?"),
        (["{class}", "chroot"], "no sandbox chroot"),
        (["{class}"], "no nbgrader_config.py"),
    ],
)
def test_the_script_says_what_is_missing(words, said, tmp_path):
    words = [word.replace("{class}", str(tmp_path)) for word in words]
    done = subprocess.run([SCRIPT, *words], capture_output=True, text=True)
    assert done.returncode in (1, 2) and said in done.stderr
    if program := shutil.which("shellcheck"):
        assert subprocess.run([program, SCRIPT], capture_output=True).returncode == 0


@pytest.mark.slow
def test_the_script_grades_a_folder_of_submissions_in_the_sandbox(bwrap, tmp_path):
    pytest.importorskip("nbgrader")
    folder, path = tmp_path / "class", page(tmp_path)
    with classroom.opened(folder) as api:
        released = classroom.release(api, folder, path)
    (folder / "gradebook.db").unlink()  # as in teacher.zip
    done = subprocess.run([SCRIPT, folder], capture_output=True, text=True, env=bare())
    assert done.returncode == 2 and "nobody has handed in" in done.stderr
    for student, notebook in (("ann", classroom.solved(released, path)), ("bob", released)):
        classroom.write_notebook(notebook, folder / "submitted" / student / "09_add" / "09_add.ipynb")
    done = subprocess.run([SCRIPT, folder], capture_output=True, text=True, env=bare())
    assert done.returncode == 0, done.stderr[-3000:]
    with (folder / "grades.csv").open(encoding="utf-8") as table:
        points = {row["student_id"]: row["score"] for row in csv.DictReader(table)}
    assert points == {"ann": "3.0", "bob": "0.0"}
    assert (folder / "feedback" / "ann" / "09_add" / "09_add.html").is_file()


def test_the_drill_sees_a_hidden_line(tmp_path):
    assert drill_classroom.hidden_lines([page(tmp_path)]) == {
        "def hidden_09_1(add):",
        "hidden_09_1(add)",
        'assert math.isclose(add(-1, 0), -1), "Negative numbers too."',
        'assert twice("ab") == "abab", "Strings too."',
    }


def test_a_student_learns_that_a_hidden_case_failed_and_the_teacher_which(tmp_path):
    pytest.importorskip("nbgrader")
    path = page(tmp_path)
    with classroom.opened(tmp_path / "class") as api:
        notebook = classroom.solved(classroom.release(api, tmp_path / "class", path), path)
        for cell in notebook.cells:
            if cell.metadata.get("nbgrader", {}).get("grade_id") == "answer_09_1":
                cell.source = f"import sys\nprint(sys._getframe(1).f_locals)\n{ABSOLUTE}"
            if cell.metadata.get("nbgrader", {}).get("grade_id") == "answer_09_2":
                cell.source = "def twice(a):\n    return double(a)\n"
        classroom.write_notebook(
            notebook, tmp_path / "class" / "submitted" / "ann" / "09_add" / "09_add.ipynb"
        )
        assert classroom.grade(api, tmp_path / "class", "09_add", "ann") == {"score": 0.0, "max_score": 3.0}
        assert api.generate_feedback("09_add", "ann")["success"]
    for kind in ("autograded/ann/09_add/09_add.ipynb", "feedback/ann/09_add/09_add.html"):
        text = html.unescape((tmp_path / "class" / kind).read_text(encoding="utf-8"))
        assert "Negative numbers too" not in text and "Strings too" not in text, kind
    assert "the visible cases pass, a hidden one does not" in text
    assert "Only the answer's own cell is graded" in text


# --- `make classroom` -------------------------------------------------------------------------------------


def test_classroom_leaves_foreign_folders_alone(tmp_path):
    pytest.importorskip("nbgrader")
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="not empty"):
        classroom.classroom(tmp_path)
    assert (tmp_path / "thesis.txt").read_text(encoding="utf-8") == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_classroom_leaves_the_work_of_students_alone(tmp_path):
    pytest.importorskip("nbgrader")
    work = tmp_path / "submitted" / "ann" / "09_add" / "09_add.ipynb"
    work.parent.mkdir(parents=True)
    work.write_text("hers", encoding="utf-8")
    (tmp_path / classroom.MARKER).write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"holds submissions \(ann\)"):
        classroom.classroom(tmp_path)
    assert work.read_text(encoding="utf-8") == "hers"


def test_classroom_proves_itself_on_one_page(tmp_path, monkeypatch, capsys):
    pytest.importorskip("nbgrader")
    monkeypatch.setattr(exercises, "sources", lambda: {"09": page(tmp_path)})
    assert classroom.classroom(tmp_path / "class") == points(3.0, 0.0)
    said = capsys.readouterr().out
    assert "3 of 3 points" in said and "students.zip: " in said and "teacher.zip: " in said
    text = (tmp_path / "class" / "autograded" / "solved" / "09_add" / "09_add.ipynb").read_text(
        encoding="utf-8"
    )
    assert text.count(beside("grading").ACCEPTED) == 2 and beside("grading").ACCEPTED == classroom.ACCEPTED
    assert "add_missing_cells = True" in (tmp_path / "class" / "nbgrader_config.py").read_text(
        encoding="utf-8"
    )


# --- what is handed out -----------------------------------------------------------------------------------


OPENED = """
import json, pathlib, sys
import instructlab_utils
assert pathlib.Path(instructlab_utils.__file__).is_relative_to(pathlib.Path.cwd()), instructlab_utils.__file__
for page in sorted(pathlib.Path().glob("*.ipynb")):
    space = {"__name__": "__main__"}
    for cell in json.loads(page.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code" and "nbgrader" not in cell["metadata"]:
            exec(compile("".join(cell["source"]), page.name, "exec"), space)
    print(page.name)
"""


@pytest.mark.slow
def test_students_open_their_zip_and_every_page_runs_as_far_as_the_first_answer(tmp_path):
    for path in exercises.sources(ROOT).values():
        folder = tmp_path / "class" / "release" / path.stem
        classroom.write_notebook(proof.student_notebook(path), folder / f"{path.stem}.ipynb")
    students, _ = beside("bundle").write(tmp_path / "class")
    with zipfile.ZipFile(students) as bundle:
        names = bundle.namelist()
        bundle.extractall(tmp_path)
        assert {info.date_time for info in bundle.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert not any(
            b"BEGIN SOLUTION" in bundle.read(n) or b"HIDDEN TESTS" in bundle.read(n) for n in names
        )
    pages = {name.removeprefix("students/") for name in names if name.endswith(".ipynb")}
    assert pages == {f"{path.stem}.ipynb" for path in exercises.sources(ROOT).values()}
    tops = {name.split("/")[1] for name in names} - pages
    assert tops == {
        "README.md", "LICENSE", "requirements.lock", "pyproject.toml", "data", "instructlab_utils", "instructlab_apps",
    }  # fmt: skip
    words = [sys.executable, "-c", OPENED]
    done = subprocess.run(words, cwd=tmp_path / "students", capture_output=True, text=True, env=bare())
    assert done.returncode == 0 and pages <= set(done.stdout.split()), done.stderr[-2000:]


def bare() -> dict[str, str]:
    """An activated environment, without the places that tests set for the course in this checkout."""
    here = {"PYTHONPATH", "INSTRUCTLAB_ROOT", "INSTRUCTLAB_HOME"}
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {key: value for key, value in os.environ.items() if key not in here} | {"PATH": programs}


@pytest.mark.slow
def test_a_teacher_opens_the_zip_and_nbgrader_grades_in_it(tmp_path):
    pytest.importorskip("nbgrader")
    folder, path, made = tmp_path / "class", page(tmp_path), []
    for _ in range(2):  # built again: the same bytes
        with classroom.opened(folder) as api:
            released = classroom.release(api, folder, path)
            made.append([zipped.read_bytes() for zipped in beside("bundle").write(folder)])
    assert made[0] == made[1]
    with zipfile.ZipFile(folder / "teacher.zip") as bundle:
        bundle.extractall(tmp_path)
    own = tmp_path / "teacher"
    assert (own / "teaching" / "09.md").is_file() and not (own / "gradebook.db").exists()
    work = own / "submitted" / "ann" / "09_add" / "09_add.ipynb"
    classroom.write_notebook(classroom.solved(released, path), work)
    for words in (["generate_assignment", "09_add", "--force"], ["autograde", "09_add"]):
        words = [sys.executable, "-m", "nbgrader", *words]
        done = subprocess.run(words, cwd=own, capture_output=True, text=True, env=bare())
        assert done.returncode == 0, done.stderr[-2000:]
    assert (own / "deploy" / "grader" / "grade.sh").is_file()
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{own / 'gradebook.db'}") as book:
        assert book.find_submission_notebook("09_add", "09_add", "ann").score == 3.0


def test_no_zip_is_written_for_students_that_shows_a_solution(tmp_path):
    path = page(tmp_path)
    classroom.write_notebook(
        exercises.teacher_notebook(path), tmp_path / "release" / "09_add" / "09_add.ipynb"
    )
    with pytest.raises(ValueError, match=r"09_add.ipynb shows 'BEGIN SOLUTION'"):
        beside("bundle").write(tmp_path)
    assert not (tmp_path / "students.zip").exists()


# --- what make classroom refuses ---------------------------------------------------------------------------


def points(solved: float, untouched: float) -> classroom.Grades:
    """Of a class of two on one lesson with three points."""
    return {
        "solved": {"09_add": {"score": solved, "max_score": 3.0}},
        "untouched": {"09_add": {"score": untouched, "max_score": 3.0}},
    }


@pytest.mark.parametrize("scores", [(1.0, 0.0), (3.0, 1.0), (0.0, 0.0)])
def test_classroom_refuses_other_grades_than_full_and_none(tmp_path, scores):
    with pytest.raises(NotebookError, match="expected full marks"):
        classroom._judge(points(*scores), tmp_path)


@pytest.mark.parametrize("text", ["accepted", "accepted, hidden cases too ### BEGIN HIDDEN TESTS"])
def test_classroom_refuses_grades_without_the_hidden_cases_and_files_with_them(tmp_path, text):
    executed = tmp_path / "solved" / "09_add" / "09_add.ipynb"
    executed.parent.mkdir(parents=True)
    executed.write_text(text, encoding="utf-8")
    with pytest.raises(NotebookError, match="hidden cases were not run, or are left"):
        classroom._judge(points(3.0, 0.0), tmp_path)
    executed.write_text(classroom.ACCEPTED, encoding="utf-8")
    classroom._judge(points(3.0, 0.0), tmp_path)
    assert executed.is_file()


def test_classroom_refuses_a_release_that_shows_the_solution(tmp_path):
    path = page(tmp_path)

    class Careless:
        def generate_assignment(self, name: str) -> dict[str, Any]:
            classroom.write_notebook(
                exercises.teacher_notebook(path), tmp_path / "release" / name / f"{name}.ipynb"
            )
            return {"success": True}

    with pytest.raises(NotebookError, match="shows 'BEGIN SOLUTION'"):
        classroom.release(Careless(), tmp_path, path)


def test_the_solved_submission_has_every_answer_filled_in(tmp_path):
    path = page(tmp_path)
    notebook = classroom.solved(proof.student_notebook(path), path)
    answers = [cell.source for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("solution")]
    assert answers == ["def add(a, b):\n    return a + b\n", "def twice(a):\n    return a + a\n"]


def test_a_failed_step_of_nbgrader_names_its_cause():
    log = "[ERROR] trouble\n    FileNotFoundError: no 'alembic'\nNbGraderException: see above"
    with pytest.raises(NotebookError, match="autograde failed: FileNotFoundError: no 'alembic'"):
        classroom._step({"success": False, "log": log}, "autograde")


def test_students_read_that_only_the_answer_cell_is_graded(tmp_path):
    notebook = proof.student_notebook(next(iter(exercises.sources(ROOT).values())))
    assert "only the answer cells of graded exercises are read" in notebook.cells[0].source
