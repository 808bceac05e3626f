"""Kernels and jobs get an environment that we choose: what a shell or a home folder says changes no result."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from instructlab_repro import notebooks
from instructlab_repro.engine import jobs, snakemake
from instructlab_repro.strict import read_toml
from instructlab_utils import cache
from instructlab_utils.errors import ConfigError
from instructlab_utils.project import text_of

ROOT = Path(__file__).resolve().parents[1]
LOOK = """# %%
import json, locale, os, random, sys, time, warnings
import matplotlib
import matplotlib.pyplot as plt
try:
    assert False
    asserts = "gone"
except AssertionError:
    asserts = "work"
seen = {
    "asserts": asserts,
    "random": os.path.basename(os.path.dirname(random.__file__)),
    "optimize": sys.flags.optimize,
    "startup": sorted(name for name in globals() if name.startswith("from_startup")),
    "usetex": matplotlib.rcParams["text.usetex"],
    "backend": matplotlib.get_backend().lower(),
    "warnings": list(sys.warnoptions),
    "zone": time.tzname[0],
    "encoding": [sys.stdout.encoding.lower(), locale.getpreferredencoding(False).lower(), sys.getfilesystemencoding()],
    "home": os.environ.get("INSTRUCTLAB_HOME"),
}
print(json.dumps(seen))
print("größer → 漢字 · 👍")
"""


@pytest.fixture
def hostile(tmp_path) -> dict[str, str]:
    """What a user's shell and home folder may hold."""
    user = tmp_path / "user"
    for folder in ("ipython/profile_default/startup", "shadow", "config/matplotlib"):
        (user / folder).mkdir(parents=True)
    (user / "ipython/profile_default/startup/00.py").write_text("from_startup = 1\n")
    (user / "ipython/profile_default/ipython_config.py").write_text(
        "c.InteractiveShellApp.exec_lines = ['from_startup_lines = 1']\n"
    )
    (user / "python_startup.py").write_text("from_startup_file = 1\n")
    (user / "shadow/random.py").write_text("raise ImportError('a shadow')\n")
    (user / "config/matplotlib/matplotlibrc").write_text("text.usetex: True\nbackend: svg\n")
    return {
        "IPYTHONDIR": str(user / "ipython"),
        "PYTHONSTARTUP": str(user / "python_startup.py"),
        "PYTHONWARNINGS": "error",
        "MATPLOTLIBRC": str(user / "config/matplotlib/matplotlibrc"),
        "XDG_CONFIG_HOME": str(user / "config"),
        "MPLBACKEND": "svg",
        "TZ": "Asia/Tokyo",
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "ascii",
    }


def seen_in(executed: Path) -> dict:
    cell = nbformat.read(executed, 4).cells[-1]
    first, second = "".join(output.get("text", "") for output in cell.outputs).splitlines()
    assert second == "größer → 漢字 · 👍"
    return json.loads(first)


def as_chosen(seen: dict) -> None:
    assert (seen["asserts"], seen["optimize"]) == ("work", 0)
    assert seen["startup"] == [] and seen["usetex"] is False and "inline" in seen["backend"]
    assert seen["random"].startswith("python") and seen["warnings"] == [] and seen["zone"] == "UTC"
    assert seen["encoding"] == ["utf-8"] * 3


@pytest.mark.parametrize("warm", ["0", ""])
def test_a_kernel_sees_nothing_of_a_hostile_environment(write_lesson, project, monkeypatch, hostile, warm):
    shadow = str(Path(hostile["IPYTHONDIR"]).parent / "shadow")
    for name, value in {
        **hostile,
        "PYTHONOPTIMIZE": "1",
        "PYTHONPATH": shadow,
        "INSTRUCTLAB_WARM": warm,
    }.items():
        monkeypatch.setenv(name, value)
    write_lesson(LOOK)
    (path,) = notebooks.build()
    manifest = notebooks.run_notebook(path, project / "out", {}, timeout=120)
    assert manifest.status == "ok", manifest.error
    as_chosen(seen_in(project / "out" / "executed.ipynb"))


def test_a_kernel_registered_by_the_user_says_nothing(write_lesson, project, monkeypatch, tmp_path):
    spec = tmp_path / "share" / "kernels" / "python3"
    spec.mkdir(parents=True)
    argv = [sys.executable, "-O", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    facts = {"argv": argv, "display_name": "mine", "language": "python", "env": {"TZ": "Asia/Tokyo"}}
    (spec / "kernel.json").write_text(json.dumps(facts))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    monkeypatch.setenv("INSTRUCTLAB_WARM", "0")
    write_lesson(LOOK)
    (path,) = notebooks.build()
    assert notebooks.run_notebook(path, project / "out", {}, timeout=120).status == "ok"
    as_chosen(seen_in(project / "out" / "executed.ipynb"))


def test_a_job_gets_what_we_choose_and_the_rest_of_the_shell(project, monkeypatch, hostile):
    for name, value in {
        **hostile,
        "PYTHONOPTIMIZE": "2",
        "PYTHONHOME": "/nowhere",
        "LANG": "ja_JP",
        "MINE": "x",
    }.items():
        monkeypatch.setenv(name, value)
    env = jobs.environment("smoke")
    assert {name for name in env if name.startswith("PYTHON")} == {"PYTHONPATH", "PYTHONUTF8"}
    assert not {"IPYTHONDIR", "MPLBACKEND", "LANG"} & set(env)
    assert env["MINE"] == "x" and env["PATH"] == os.environ["PATH"] and env["MATPLOTLIBRC"] == os.devnull
    assert env["PYTHONPATH"] == str(ROOT) and env["INSTRUCTLAB_PROFILE"] == "smoke"


def ours(*words: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("INSTRUCTLAB_ROOT")}
    env = {**clean, "PYTHONPATH": str(ROOT), **(env or {})}
    return subprocess.run([sys.executable, *words], cwd=cwd, env=env, capture_output=True, timeout=200)


def test_the_command_line_works_through_a_pipe_that_is_not_utf_8(write_lesson, project, hostile):
    write_lesson(LOOK, title="Größer → 漢字")
    done = ours("-m", "instructlab_utils", "run", "00", cwd=project, env=hostile)
    assert done.returncode == 0, done.stderr
    as_chosen(seen_in(project / "build/run/laptop/00_tiny/executed.ipynb"))
    for encoding in ("cp932", "ascii", "latin-1"):
        told = ours("-m", "instructlab_utils", "list", cwd=project, env={"PYTHONIOENCODING": encoding})
        assert told.returncode == 0 and b"Traceback" not in told.stderr, told.stderr
        assert told.stdout.decode(encoding).startswith("lesson")


@pytest.mark.parametrize("switch", [["-O"], ["-OO"], []])
def test_python_without_assertions_is_refused_with_a_sentence(project, switch):
    env = {} if switch else {"PYTHONOPTIMIZE": "1"}
    done = ours(*switch, "-m", "instructlab_utils", "list", cwd=project, env=env)
    assert done.returncode == 2 and done.stdout == b""
    assert re.fullmatch(rb"error: Python runs with -O or PYTHONOPTIMIZE, [^\n]*\n", done.stderr), done.stderr
    by_hand = ours(*switch, "-c", "import instructlab_utils", cwd=project, env=env)
    assert by_hand.returncode == 1 and b"ConfigError: Python runs with -O" in by_hand.stderr


# --- text that is not UTF-8 ------------------------------------------------------------------------


def test_a_byte_order_mark_and_windows_line_ends_are_no_content(tmp_path, write_lesson, project):
    path = tmp_path / "a.toml"
    path.write_bytes(b"\xef\xbb\xbfname = 'caf\xc3\xa9'\r\nother = 1\r\n")
    assert read_toml(path, "a.toml") == {"name": "café", "other": 1}
    source = write_lesson()
    notebooks.build()
    before, cells = notebooks.code_sha(source), notebooks.from_source(source).cells
    source.write_bytes(b"\xef\xbb\xbf" + source.read_bytes().replace(b"\n", b"\r\n"))
    assert notebooks.code_sha(source) == before and notebooks.from_source(source).cells == cells
    assert notebooks.find("00").title == "Tiny" and notebooks.check() == []


LATIN = b"first = 1\nsecond = 'caf\xe9'\n"


@pytest.mark.parametrize("read", [text_of, lambda path: read_toml(path, path.name)])
def test_a_latin_1_byte_is_one_sentence_with_file_line_and_byte(tmp_path, read):
    path = tmp_path / "settings.toml"
    path.write_bytes(LATIN)
    with pytest.raises(
        ConfigError, match=r"settings\.toml, line 2: the byte 0xe9 at 23 is not UTF-8 text; save"
    ):
        read(path)


def test_a_latin_1_byte_in_any_file_of_a_project_names_the_file(write_lesson, project):
    source = write_lesson()
    source.write_bytes(source.read_bytes() + b"# caf\xe9\n")
    done = ours("-m", "instructlab_utils", "list", cwd=project)
    assert done.returncode == 2 and done.stderr.startswith(b"error: notebooks/source/00_tiny.py, line "), (
        done.stderr
    )
    assert b"byte 0xe9" in done.stderr and b"Traceback" not in done.stderr
    (project / "data" / "assets.toml").write_bytes(LATIN)
    with pytest.raises(ConfigError, match=r"data/assets\.toml, line 2: the byte 0xe9"):
        cache.entry("anything")


def test_no_file_of_ours_is_read_in_the_encoding_of_the_machine():
    """Text is opened with an encoding, or by ``text_of``; what the kernel of the system gives is ASCII."""
    found = []
    for package in ("instructlab_utils", "instructlab_repro"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                opened = re.search(
                    r"\.read_text\(\)|[^.\w]open\((?!.*(encoding=|[\"']r?\+?[wa]?b|devnull))|text=True", line
                )
                if opened and "/proc/" not in line and "def " not in line:
                    found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not found, "\n".join(found)


@pytest.mark.skipif(sys.platform == "win32", reason="make and env")
def test_make_gives_what_it_calls_a_chosen_environment(hostile):
    words = ["make", "-s", "-f", str(ROOT / "Makefile"), "--eval=show-environment:; @env", "show-environment"]
    env = {**os.environ, **hostile, "PYTHONOPTIMIZE": "1", "PYTHONPATH": "/shadow", "PYTHONHOME": "/nowhere"}
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, check=True)
    found = dict(line.split("=", 1) for line in done.stdout.decode().splitlines() if "=" in line)
    refused = ("PYTHONOPTIMIZE", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONWARNINGS", "MPLBACKEND")
    assert not set(refused) & set(found)
    assert found["MATPLOTLIBRC"] == "/dev/null" and found["PYTHONUTF8"] == "1"
    assert found["IPYTHONDIR"] == str(ROOT / "build" / "ipython")


@pytest.mark.skipif(sys.platform == "win32", reason="make")
def test_a_date_in_the_future_makes_no_environment_again(tmp_path):
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    ready = subprocess.run(
        ["make", "-s", "--eval=show:; @echo $(READY)", "show"], cwd=tmp_path, capture_output=True, check=True
    )
    (tmp_path / ".venv").mkdir()
    (tmp_path / ready.stdout.decode().strip()).touch()
    for name in ("requirements.lock", "pyproject.toml"):
        os.utime(tmp_path / name, (4e9, 4e9))
    assert subprocess.run(["make", "-q", "setup"], cwd=tmp_path).returncode == 0
    (tmp_path / "requirements.lock").write_text("torch==2.0\n")
    assert subprocess.run(["make", "-q", "setup"], cwd=tmp_path).returncode == 1


# --- strings that another program reads ------------------------------------------------------------

HOMES = [
    "/srv/x #1",
    "a: b",
    "007",
    "1e3",
    "yes",
    "null",
    "[1, 2]",
    "{a}",
    'it\'s "q"',
    "~/größe 漢",
    "a=b",
    "C:\\x y",
    " x ",
]


@pytest.mark.parametrize("home", HOMES)
def test_a_folder_s_name_reaches_a_job_as_it_is(monkeypatch, home):
    from snakemake.cli import parse_config

    monkeypatch.setenv("INSTRUCTLAB_HOME", home)
    monkeypatch.setenv("INSTRUCTLAB_PYTHON", home)
    config = parse_config(["profile=smoke", jobs.sent()])
    monkeypatch.delenv("INSTRUCTLAB_HOME")  # a node may start with an empty environment
    monkeypatch.delenv("INSTRUCTLAB_PYTHON")
    env = jobs.environment("smoke", config)
    assert (env["INSTRUCTLAB_HOME"], env["INSTRUCTLAB_PYTHON"]) == (home, home)


@pytest.mark.parametrize("path", ["/opt/my python/bin/python", "/opt/a'b/$HOME/python", "/opt/#1/`x`"])
def test_the_interpreters_path_is_one_word_of_a_shell(monkeypatch, path):
    monkeypatch.setenv("INSTRUCTLAB_PYTHON", path)
    assert shlex.split(jobs.interpreter()) == [path]
    monkeypatch.setattr(
        jobs, "os", SimpleNamespace(name="nt", environ={"INSTRUCTLAB_PYTHON": "C:\\My Python\\python.exe"})
    )
    assert jobs.interpreter() == '"C:\\My Python\\python.exe"'


def test_when_snakemake_fails_its_last_words_are_told(tmp_path):
    job = SimpleNamespace(status="not run")
    said = [
        "Building DAG of jobs...",
        *["Using shell: /bin/bash"] * 30,
        "MissingRuleException:",
        "No rule to make x",
        "",
    ]
    (tmp_path / "snakemake.log").write_bytes(
        "\n".join(said).encode() + b"caf\xe9\nShutting down, this might take some time.\n"
    )
    with pytest.raises(
        ConfigError, match=r"could not start: … .*MissingRuleException: / No rule to make x / caf"
    ):
        snakemake._explain(1, snakemake.GraphResult(ran=[job]), tmp_path)
    with pytest.raises(
        ConfigError, match=r"ended with code 1: … .*No rule to make x / caf[^/]*\(all of it in"
    ):
        snakemake._explain(1, snakemake.GraphResult(ran=[SimpleNamespace(status="ok")]), tmp_path)
