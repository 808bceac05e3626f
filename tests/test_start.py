"""The ways to start with one click: their files are whole, name what exists, and fit what they promise."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from instructlab_repro import assets, notebooks

ROOT = Path(__file__).resolve().parents[1]
SMALL = 1100  # MB in `make course`, whose kernels share what they import; alone a lesson took a third to two thirds more


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# --- the development container ---------------------------------------------------------------------

# Keys that containers.dev defines, and their types.
KEYS: dict[str, type] = {
    "name": str, "build": dict, "remoteUser": str, "hostRequirements": dict, "updateContentCommand": str,
    "postAttachCommand": str, "forwardPorts": list, "portsAttributes": dict, "customizations": dict,
}  # fmt: skip


def test_devcontainer() -> None:
    told: dict[str, Any] = json.loads(text(".devcontainer/devcontainer.json"))
    assert {key: type(value) for key, value in told.items()} == KEYS
    image = text(f".devcontainer/{told['build']['dockerfile']}")
    assert f"USER {told['remoteUser']}\n" in image and f" {told['remoteUser']}\n" in image.split("useradd")[1]
    targets = re.findall(r"^([a-z]+):", text("Makefile"), re.MULTILINE)
    assert told["updateContentCommand"].removeprefix("make ") in targets
    assert told["postAttachCommand"] == ".venv/bin/python -m instructlab_utils doctor"
    assert told["portsAttributes"].keys() == {str(port) for port in told["forwardPorts"]}
    for key, unit in {"memory": "gb", "storage": "gb"}.items():
        assert re.fullmatch(rf"\d+{unit}", told["hostRequirements"][key])


def test_the_container_has_the_locked_python_and_what_the_readme_asks_for() -> None:
    image = text(".devcontainer/Dockerfile")
    version = re.search(r"^FROM python:(3\.\d+)-", image, re.MULTILINE)
    assert version and f"on Python {version[1]};" in text("requirements.lock")
    assert {"git", "make"} < set(image.split())


# --- Binder ----------------------------------------------------------------------------------------


def binder_assets() -> set[str]:
    return set(re.findall(r"--only ([a-z0-9-]+)", text("binder/postBuild")))


def test_binder_has_the_locked_python_and_versions() -> None:
    assert f"on Python {text('binder/runtime.txt').strip().removeprefix('python-')};" in text(
        "requirements.lock"
    )
    assert "--constraint requirements.lock --editable ." in text("binder/postBuild")


@pytest.mark.skipif(os.name == "nt", reason="the file system has no such mark")
@pytest.mark.parametrize("name", ["binder/postBuild", "binder/start"])
def test_binders_scripts_can_run(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)
    done = subprocess.run(["bash", "-n", str(ROOT / name)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.name == "nt", reason="bash")
def test_binder_starts_in_the_small_profile() -> None:
    ask = "import os; from instructlab_utils.project import resolve_profile as p; print(p('auto'), *__import__('sys').argv)"
    done = subprocess.run(
        [str(ROOT / "binder/start"), sys.executable, "-c", ask, "a b"], cwd=ROOT, capture_output=True
    )
    assert done.stdout.decode().split() == ["smoke", "-c", "a", "b"], done.stderr


def test_the_page_names_the_lessons_that_binder_can_run() -> None:
    named = re.search(r"<!-- binder -->\n(.+?)<!-- /binder -->", text("docs/start.md"), re.DOTALL)
    assert named is not None
    fetched = {one.id for one in notebooks.lessons().values() if set(one.assets) <= binder_assets()}
    memory = {
        lesson: int(told)
        for lesson, told in re.findall(
            r"^\| (\d\d)_\w+ \| ok \| [\d.]+ \| (\d+) MB \|$", text("docs/reproduce.md"), re.MULTILINE
        )
    }
    can = {lesson for lesson in fetched if memory[lesson] < SMALL}
    assert set(re.findall(r"\d\d", named[1])) == can and len(can) > 5
    assert binder_assets() <= set(assets.catalogue())


# --- Colab -----------------------------------------------------------------------------------------


@pytest.fixture
def colab(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """scripts/colab.py as a module; a call of pip or a download would fail the test."""
    spec = importlib.util.spec_from_file_location("colab", ROOT / "scripts" / "colab.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pip = SimpleNamespace(run=lambda *_, **__: pytest.fail("pip was called"))
    monkeypatch.setattr(module, "subprocess", pip)
    monkeypatch.setattr(assets, "fetch", lambda *_: pytest.fail("something was fetched"))
    return module


def test_colab_script_does_nothing_elsewhere(colab: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    before = list(sys.path)
    colab.main("03")
    assert capsys.readouterr().out.startswith("this is not Colab: nothing was done") and sys.path == before


def test_colab_script_installs_what_is_missing_and_keeps_what_colab_runs_on(
    colab: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = {
        "ipykernel": "6.17.1",
        "IPython": "7.34.0",
        "torch": "2.11.0+cu130",
        "numpy": "2.0.2",
        "tqdm": "4.67.1",
    }
    packages = [type("Package", (), {"name": name, "version": version}) for name, version in there.items()]
    called, kept, fetched = [], [], []

    def run(words: list[str], check: bool) -> None:
        called.append(words)
        kept.extend(Path(words[words.index("--constraint") + 1]).read_text().splitlines())

    monkeypatch.setattr(colab, "is_colab", lambda: True)
    monkeypatch.setattr(colab, "distributions", lambda: packages)
    monkeypatch.setattr(colab.subprocess, "run", run)
    monkeypatch.setattr(assets, "fetch", fetched.append)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if Path(path).resolve() != ROOT])
    colab.main("03")
    (words,) = called
    wanted = {re.split("[>=<]", word)[0] for word in words[words.index("--constraint") + 2 :]}
    assert {"numpy", "transformers", "pydantic"} < wanted  # numpy is below its range
    assert not wanted & {"torch", "ipykernel", "ipython", "tqdm", *colab.RUNNERS}
    assert kept == ["ipykernel==6.17.1", "ipython==7.34.0", "torch==2.11.0+cu130"]
    assert fetched == [["minilm", "vader"]] and str(ROOT) in sys.path
    assert capsys.readouterr().out.startswith("lesson 03 is ready")


def test_a_lesson_and_its_fetch_do_without_the_runners(colab: ModuleType) -> None:
    hidden = f"import sys; sys.modules.update(dict.fromkeys({sorted(colab.RUNNERS)}))"
    needs = "from instructlab_repro import assets, lesson; from instructlab_repro.engine import course"
    code = f"{hidden}; {needs}; print(course.needed_assets(['03']), lesson.words('C1'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("['minilm', 'vader'] {'C1': "), done.stderr


def test_the_site_names_the_script_and_the_lesson(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("babel", reason="the site's environment")
    from book import study

    monkeypatch.setattr(study, "settings", lambda: ("https://example.org/course", "main"))
    told = study._glance(notebooks.lessons()["09"], "notebooks/09_lora.md")
    assert (
        "%run scripts/colab.py 09\n" in told
        and "git clone --depth 1 -b main https://example.org/course" in told
    )
