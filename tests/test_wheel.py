"""The wheel, installed outside the repository: what works there, and one sentence for what does not; completion."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from instructlab_utils import cache

ROOT = Path(__file__).resolve().parents[1]
BIN = "Scripts" if os.name == "nt" else "bin"


def builds() -> bool:
    """Whether the build backend is here; pip would fetch it, and these tests ask no index."""
    try:
        return int(version("setuptools").split(".")[0]) >= 77
    except PackageNotFoundError:
        return False


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment with the wheel; it borrows the libraries of this one, but not our source tree."""
    if not builds():
        pytest.skip("setuptools 77 or newer is not installed, and building without it needs an index")
    place = tmp_path_factory.mktemp("wheel")
    tree, home = place / "tree", place / "venv"
    tree.mkdir()
    listed = subprocess.run(["git", "ls-files", "-z", "instructlab_*", "data/*.toml", "pyproject.toml", "README.md",
                             "LICENSE"], cwd=ROOT, capture_output=True, check=True).stdout.decode()  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    venv.create(home)
    pip = [sys.executable, "-m", "pip", "-qq"]
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(place)]
    subprocess.run([*pip, "wheel", *options, str(tree)], check=True, timeout=300)
    (wheel,) = place.glob("*.whl")
    into = ["--python", str(home), "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, *into, str(wheel)], check=True, timeout=300)
    there = sysconfig.get_path("purelib", "venv", {"base": str(home), "platbase": str(home)})
    borrowed = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    (Path(there) / "borrowed.pth").write_text("\n".join(dict.fromkeys(borrowed)), encoding="utf-8")
    return home


def call(installed: Path, folder: Path, *words: str, **more: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``instructlab`` in a folder outside the repository."""
    env = {
        name: told for name, told in os.environ.items() if not name.startswith(("INSTRUCTLAB_", "PYTHONPATH"))
    }
    env |= {"HOME": str(folder), "USERPROFILE": str(folder)} | more
    program = shutil.which("instructlab", path=str(installed / BIN))
    assert program is not None
    done = subprocess.run([program, *words], cwd=folder, env=env, capture_output=True, timeout=300)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_help(installed: Path, tmp_path: Path) -> None:
    code, out, _ = call(installed, tmp_path, "--help")
    assert code == 0 and "Usage: instructlab " in out and " compare " in out


def test_the_packages_files_came_along(installed: Path) -> None:
    """Every file that is no Python and lies in the three packages; and the two of data/."""
    tracked = subprocess.run(
        ["git", "ls-files", "instructlab_*"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = [name for name in tracked.stdout.splitlines() if (ROOT / name).is_file()]
    (there,) = installed.rglob("site-packages")
    assert len(names) > 150 and not [name for name in names if not (there / name).is_file()]
    for name in ("assets.toml", "tasks.toml"):
        copy = (installed / "share" / "instructlab" / name).read_bytes()
        assert copy == (ROOT / "data" / name).read_bytes()


def test_doctor_knows_the_pins_and_says_where_the_lessons_are(installed: Path, tmp_path: Path) -> None:
    code, out, err = call(installed, tmp_path, "doctor")
    assert (code, err) == (0, "")
    assert re.search(r"^lessons +not here$", out, re.MULTILINE)
    assert str(tmp_path / ".cache" / "instructlab") in out and "smollm2" in out
    assert out.splitlines()[-1].startswith("next: `git clone` the repository and `make course` in it")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["list"], ["course"], ["reproduce"], ["run", "01"], ["claims"]])
def test_what_needs_the_notebooks_says_so_in_one_sentence(
    installed: Path, tmp_path: Path, words: list[str]
) -> None:
    code, out, err = call(installed, tmp_path, *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert (
        err.startswith("error: no clone of the repository above ") and "git clone" in err and "--root" in err
    )
    assert not list(tmp_path.iterdir())


def test_a_clone_elsewhere_can_be_named(installed: Path, tmp_path: Path) -> None:
    code, out, _ = call(installed, tmp_path, "--root", str(ROOT), "list")
    assert code == 0 and "Empirical risk" in out
    code, _, err = call(installed, tmp_path, "--root", str(tmp_path), "list")
    assert code == 2 and "is no clone of the repository: it has no data/assets.toml" in err


@pytest.mark.slow
def test_a_file_of_ones_own_is_compared_without_a_clone(installed: Path, tmp_path: Path) -> None:
    words = {"good": ("fine", "warm", "great"), "bad": ("dull", "weak", "flat")}
    rows = [f"a {words[label][i % 3]} film number {i},{label}" for i in range(60) for label in words]
    (tmp_path / "my.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    columns = ["--data", "my.csv", "--text", "text", "--label", "label", "--minutes", "1"]
    code, out, err = call(installed, tmp_path, "compare", *columns, INSTRUCTLAB_HOME=str(cache.home()))
    assert code == 0 and "report: " in out, err
    assert (tmp_path / "build/compare/my/report.html").is_file()


@pytest.mark.skipif(os.name == "nt", reason="a shell that Windows lacks")
@pytest.mark.parametrize(
    ("typed", "offered"), [("instructlab rep", "reproduce"), ("instructlab course --w", "--workers")]
)
def test_the_shell_completes(typed: str, offered: str) -> None:
    words = {
        "COMP_WORDS": typed,
        "COMP_CWORD": str(typed.count(" ")),
        "_INSTRUCTLAB_COMPLETE": "complete_bash",
    }
    program = "import sys; sys.argv = ['instructlab']; from instructlab_apps.commands import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=os.environ | words, capture_output=True
    )
    assert done.stdout.decode().split() == [offered], done


def test_completion_is_installed_for_the_short_name(tmp_path: Path) -> None:
    """Also where it is asked for by the long one, which no shell completes."""
    env = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    words = [sys.executable, "-m", "instructlab_utils", "--show-completion", "bash"]
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "_INSTRUCTLAB_COMPLETE=complete_bash" in done.stdout, done
    assert done.stdout.rstrip().endswith("instructlab")
