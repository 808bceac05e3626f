"""The commands: exit codes, one-sentence errors, the course on a tiny project, the plain tools beside it."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from conftest import LESSON

from instructlab_apps import commands  # with the commands of its own
from instructlab_repro import assets, notebooks, provenance

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def call(capfd):
    """Call the command line in this process; returns exit code, stdout, stderr."""

    def call(*args: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            commands.main([str(arg) for arg in args])
        out, err = capfd.readouterr()
        return left.value.code or 0, out, err

    return call


def error_of(result: tuple[int, str, str]) -> str:
    """The sentence of a refused call: exit code 2, one line, no traceback."""
    code, _, err = result
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1, result
    return err.removeprefix("error: ").strip()


# --- refusals ------------------------------------------------------------------------------------


def test_help_lists_every_command(call):
    code, out, _ = call("--help")
    assert code == 0
    for (
        name
    ) in "doctor fetch list run course reproduce table claims notebooks import bench classroom drill".split():
        assert f" {name} " in out, name
    assert "lesson-job" not in out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["run", "09"], "unknown lesson or experiment '09'"),
        (["run", "00", "-p", "sed", "3"], "unknown parameter 'sed', did you mean 'seed'?"),
        (["run", "00", "-p", "seed", "three"], "parameter 'seed' must be of type int, not 'three'"),
        (["run", "00", "-p", "seed"], "-p seed has no value"),
        (["run", "00", "--profile", "huge"], "unknown profile 'huge'"),
        (["run", "00", "--store", "-p", "seed", "3"], "--store keeps the outputs of the default parameters"),
        (["run", "00", "--store", "--profile", "smoke"], "--store keeps outputs of the laptop profile only"),
        (["notebooks", "09"], "unknown lesson or experiment '09'"),
        (["import", "09_x.ipynb"], "09_x.ipynb does not exist"),
        (["reproduce", "nothing"], "unknown experiment 'nothing'"),
        (["block", "nothing", "b"], "unknown experiment 'nothing'"),
        (["claims", "C99"], "C99"),
        (["bench"], "benchmarks/bench.py is not here"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_sentence_and_exit_code_2(call, write_lesson, project, args, said):
    write_lesson()
    assert said in error_of(call(*args))
    assert not list((project / "build").rglob("manifest.json"))


def test_no_project_is_one_sentence(call, tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRUCTLAB_ROOT", str(tmp_path))
    assert "known: none" in error_of(call("run", "00"))


def test_a_full_disk_is_one_sentence(call, write_lesson, project, monkeypatch):
    write_lesson()
    assert call("notebooks")[0] == 0

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "manifest.json")

    monkeypatch.setattr(provenance.os, "fsync", full)
    said = error_of(call("run", "00"))
    assert said == "cannot write at manifest.json: No space left on device; nothing half-written is left"
    assert list((project / "build/run/laptop/00_tiny").iterdir()) == []


def test_a_path_is_that_file_or_refused(call, write_lesson, project, tmp_path, monkeypatch):
    write_lesson()
    assert call("notebooks")[0] == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    own = project / "notebooks" / "00_tiny.ipynb"
    (elsewhere / own.name).write_bytes(own.read_bytes())
    said = error_of(call("run", elsewhere / own.name))
    assert said.startswith("unknown lesson or experiment") and str(elsewhere) in said and "'00_tiny'" in said
    monkeypatch.setenv("INSTRUCTLAB_ROOT", str(project))
    monkeypatch.chdir(elsewhere)
    assert "unknown lesson or experiment '00_tiny.ipynb'" in error_of(call("run", own.name))
    assert not (project / "build").exists()
    (tmp_path / "linked").symlink_to(project / "notebooks")
    for name in (
        own,
        "notebooks/00_tiny.ipynb",
        tmp_path / "linked" / own.name,
        "00_tiny.py",
        own.parent / "source/00_tiny.py",
    ):
        assert notebooks.find(name).id == "00"


def test_a_place_that_cannot_be_a_folder_is_one_sentence(call, write_lesson, project):
    write_lesson()
    (project / "taken").write_text("mine")
    for out in ("taken", "taken/deeper", "x" * 300):
        said = error_of(call("run", "00", "--out", project / out))
        assert said.startswith("cannot write at ") and out[:50] in said
    assert "File name too long" in error_of(call("run", "x" * 300 + ".ipynb"))
    assert (project / "taken").read_text() == "mine"
    for words in (["classroom", "--out", project / "taken"],):
        assert "Traceback" not in call(*words)[2]


# --- run -----------------------------------------------------------------------------------------


def test_run_parses_by_declared_type_in_both_spellings(call, write_lesson, project):
    write_lesson()
    code, out, _ = call("run", "0", "-p", "lr", "2e-5", "--parameter", "flag=true", "--profile", "smoke")
    assert code == 0 and "notebooks/00_tiny.ipynb · ok ·" in out
    manifest = json.loads((project / "build/run/smoke/00_tiny/manifest.json").read_text())
    assert manifest["parameters"] == {"lr": 2e-5, "flag": True} and manifest["profile"] == "smoke"


def test_run_tells_a_failing_cell_and_leaves_1(call, write_lesson):
    write_lesson(LESSON + "\n# %%\nassert seed == 1, 'not one'\n")
    code, out, err = call("run", "00")
    assert (code, out) == (1, "")
    assert "cell [3] `assert seed == 1, 'not one'`: AssertionError: not one" in err
    assert "partial notebook: build/run/laptop/00_tiny/executed.ipynb" in err


def test_run_out_of_time_leaves_3(call, write_lesson):
    write_lesson("# %%\nimport time\ntime.sleep(60)\n")
    code, _, err = call("run", "00", "--timeout", "5")
    assert code == 3 and "aborted" in err and "limit of 5 s" in err


def test_run_store_keeps_outputs_of_the_default_parameters(call, write_lesson, project):
    write_lesson()
    code, out, _ = call("run", "00", "--store")
    assert code == 0 and "stored in notebooks/00_tiny.ipynb" in out
    cells = nbformat.read(project / "notebooks/00_tiny.ipynb", 4).cells
    assert [cell.get("execution_count") for cell in cells] == [None, 1, 2]
    assert cells[2].outputs[0].text == "2\n"
    assert call("notebooks", "--check")[0] == 0


# --- notebooks -----------------------------------------------------------------------------------


def test_notebooks_check_and_import(call, write_lesson, project):
    source = write_lesson()
    code, out, _ = call("notebooks")
    assert code == 0 and "wrote 00_tiny.ipynb" in out
    assert call("notebooks")[1] == "all notebooks are in step with their sources\n"
    assert call("notebooks", "--check")[0] == 0
    path = project / "notebooks/00_tiny.ipynb"
    path.write_text(path.read_text().replace("1 + 1", "3 + 1"))
    code, _, err = call("notebooks", "--check")
    assert code == 1 and "cell 3 (code) differs from the source at 'print(1 + 1)'" in err
    assert call("import", path)[0] == 0
    assert "print(3 + 1)" in source.read_text()
    assert call("notebooks", "--check")[0] == 0


def test_list_shows_lessons_and_minutes(call, write_lesson):
    write_lesson()
    code, out, _ = call("list")
    assert code == 0 and re.search(r"^00 +Tiny +see a notebook run( +0.1 min){3}$", out, re.MULTILINE), out


# --- course --------------------------------------------------------------------------------------


def test_course_goes_on_after_a_failure_and_repeats_only_what_is_missing(call, write_lesson, project):
    shutil.copy(ROOT / "Snakefile", project)
    write_lesson(number="00")
    broken = write_lesson(LESSON + "\n# %%\n1 / 0\n", number="01")

    code, out, err = call("course")
    assert code == 1
    assert "Notebooks run: 2, 1 of them did not end well" in out
    assert (
        re.search(r"^00: ok, .+ MB \([12] of 2\)$", err, re.MULTILINE) and "\r" not in err
    )  # no terminal here
    assert "cell [3] `1 / 0`: ZeroDivisionError: division by zero" in err
    assert "partial notebook: build/smoke/01_tiny/executed.ipynb" in err
    assert (project / "build/smoke/01_tiny/executed.ipynb").is_file()
    summary = json.loads((project / "build/smoke/summary.json").read_text())
    assert {n["notebook"]: n["status"] for n in summary["notebooks"]} == {"00": "ok", "01": "failed"}
    assert all(n["seconds"] > 0 and n["peak_memory_mb"] > 10 for n in summary["notebooks"])

    first = (project / "build/smoke/00_tiny/manifest.json").read_bytes()
    broken.write_text(broken.read_text().replace("1 / 0", "1 / 1"))
    notebooks.build()
    code, out, _ = call("course")
    assert code == 0 and "Notebooks run: 1, all ok, 1 more up to date" in out
    assert (project / "build/smoke/00_tiny/manifest.json").read_bytes() == first

    second = (project / "build/smoke/01_tiny/manifest.json").read_bytes()
    code, out, _ = call("course")
    assert code == 0
    assert "Up to date, all 2 notebooks: nothing was fetched, nothing was run." in out
    assert (project / "build/smoke/01_tiny/manifest.json").read_bytes() == second
    rows = (project / "build/smoke/summary.md").read_text().splitlines()
    assert rows[4] == "| notebook | status | seconds | peak memory |" and rows[6].startswith(
        "| 00_tiny | ok, up"
    )


def test_dates_of_another_clock_decide_nothing(call, write_lesson, project):
    """A notebook, and what an earlier call has written, dated three hours ahead; then all dated years back."""
    shutil.copy(ROOT / "Snakefile", project)
    write_lesson()
    notebooks.build()
    ahead = time.time() + 3 * 3600
    for path in (project / "notebooks/00_tiny.ipynb", project / "notebooks/source/00_tiny.py"):
        os.utime(path, (ahead, ahead))
    code, out, err = call("course")
    assert code == 0 and "Notebooks run: 1, all ok" in out, err
    assert "Up to date, all 1 notebooks" in call("course")[1]
    for when in (ahead, 1e9):
        for path in [*project.rglob("*.ipynb"), *project.rglob("*.py"), *(project / "build").rglob("*")]:
            os.utime(path, (when, when))
        code, out, _ = call("course")
        assert code == 0 and "Up to date, all 1 notebooks" in out


def test_a_lesson_that_declares_an_unknown_asset_is_one_sentence(call, write_lesson, monkeypatch):
    monkeypatch.setattr(assets, "catalogue", lambda: {"silver": None})
    source = write_lesson()
    source.write_text(source.read_text().replace("assets: []", "assets: [gold]"))
    assert "00_tiny.py declares 'gold', which data/assets.toml does not hold" in error_of(call("course"))


# --- the plain tools, without our runner ---------------------------------------------------------

SESSION = """# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
seed: int = 0

# %%
from instructlab_utils import project

root = project.find_root()
print(project.resolve_profile(profile), (root / "data" / "assets.toml").is_file(), seed)

# %% tags=["nbval-check-output"]
print(root.name == "project")
"""


@pytest.fixture
def plain(tmp_path, monkeypatch):
    """A project with one lesson that finds its root, executed once."""
    root = tmp_path / "project"
    for folder in ("data", "notebooks/source"):
        (root / folder).mkdir(parents=True)
    for name in ("pyproject.toml", "data/assets.toml"):
        (root / name).write_text("")
    from conftest import HEADER

    (root / "notebooks/source/00_tiny.py").write_text(HEADER.format(id="00", title="Tiny") + SESSION)
    monkeypatch.chdir(root)
    notebooks.build()
    path = root / "notebooks" / "00_tiny.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", name="stdout", text="True\n")]
    for number, cell in enumerate(notebook.cells, 1):
        cell.execution_count = number
    nbformat.write(notebook, path)
    return root


@pytest.mark.parametrize("folder", [".", "notebooks"])
def test_papermill_alone_works_from_root_and_from_notebooks(plain, folder):
    here = plain / folder
    notebook = os.path.relpath(plain / "notebooks/00_tiny.ipynb", here)
    words = [sys.executable, "-m", "papermill", notebook, "out.ipynb", "-p", "seed", "2", "--no-progress-bar"]
    done = subprocess.run(words, cwd=here, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    cells = nbformat.read(here / "out.ipynb", 4).cells
    assert "laptop True 2\n" in [o.get("text") for c in cells for o in c.get("outputs", [])]


@pytest.mark.parametrize(
    ("folder", "text", "code"), [(".", "True", 0), ("notebooks", "True", 0), (".", "False", 1)]
)
def test_nbval_alone_works_and_sees_a_changed_output(plain, folder, text, code):
    path = plain / "notebooks" / "00_tiny.ipynb"
    path.write_text(path.read_text().replace('"True\\n"', f'"{text}\\n"'))
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax", path.name]
    words[-1] = os.path.relpath(path, plain / folder)
    env = {**os.environ, "INSTRUCTLAB_PROFILE": "smoke"}
    done = subprocess.run(words, cwd=plain / folder, capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == code, done.stdout[-2000:]
    assert ("1 failed" in done.stdout) == (code == 1)


# --- the Makefile --------------------------------------------------------------------------------


def test_ci_can_be_called():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    "target", ["course", "test", "lab", "notebooks", "reproduce", "bench", "classroom", "drill", "rehearsal"]
)
def test_every_target_sets_its_environment_up(target):
    done = subprocess.run(
        ["make", "-n", target, "READY=.venv/.never"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "pip install" in done.stdout and "-m venv .venv" in done.stdout
