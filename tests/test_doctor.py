"""`doctor`: a command for each failed check, and one line that says what to do next."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import HEADER, LESSON

from instructlab_apps import doctor
from instructlab_repro import assets
from instructlab_utils import cache

FETCH = "python -m instructlab_utils fetch"


@pytest.fixture
def clone(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with one lesson and two assets, looked at with the Python of its own environment; nothing is measured."""
    source = HEADER.format(id="00", title="Tiny").replace("assets: []", "assets: [model, texts]")
    (project / "notebooks/source/00_tiny.py").write_text(source + LESSON, encoding="utf-8")
    monkeypatch.setenv("INSTRUCTLAB_HOME", str(project / ".cache"))
    known = {name: SimpleNamespace(disk_mb=2.0) for name in ("model", "texts", "unused")}
    monkeypatch.setattr(assets, "catalogue", lambda: known)
    monkeypatch.setattr(doctor, "_measure", lambda: {"device": "cpu", "gemm_gflops": 99.5})
    monkeypatch.setattr(sys, "prefix", str(project / ".venv"))
    return project


@pytest.fixture
def fetched(clone: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The clone with what its lesson needs."""
    monkeypatch.setattr(cache, "wrong", lambda name, deep: "is not in it" if name == "unused" else "")
    return clone


def ended(clone: Path, *statuses: str) -> None:
    """The last `course` ended so."""
    (clone / "build/smoke").mkdir(parents=True)
    notebooks = [{"notebook": f"{i:02}", "status": status} for i, status in enumerate(statuses)]
    (clone / "build/smoke/summary.json").write_text(json.dumps({"notebooks": notebooks}))


def said(**changed: Any) -> list[str]:
    """The rendered lines behind the tables."""
    return doctor.render(doctor.examine() | changed).rpartition("\n\n")[2].splitlines()


def test_fresh_clone(clone: Path) -> None:
    assert said() == [
        f"assets: model, texts → `{FETCH} --only model --only texts`",
        "next: `make course`, which fetches what is missing and runs every lesson once",
    ]


def test_fetched(fetched: Path) -> None:
    assert said() == ["next: `make lab`, and open a lesson; or `make course`, which runs all of them once"]


def test_after_the_course(fetched: Path) -> None:
    ended(fetched, "ok", "ok")
    assert said() == ["next: `make lab`, and open a lesson"]


def test_after_a_course_with_failures(fetched: Path) -> None:
    ended(fetched, "ok", "failed", "aborted")
    assert said() == [
        "next: `make course` again; 2 notebooks did not end well, build/smoke/summary.md names them"
    ]


def test_installed_alone(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "clone", lambda: None)
    lessons, missing, following = said()
    assert lessons.startswith("lessons: are not part of the installed package → `git clone` the repository")
    assert missing == "assets: model, texts, unused → `instructlab fetch --needed`"
    assert (
        following.startswith("next: `git clone` the repository") and "`instructlab --root FOLDER" in following
    )


def test_another_environment_gets_commands_of_its_own_python(fetched: Path) -> None:
    assert said(ours=False) == [
        "next: `python -m jupyter lab notebooks`, and open a lesson; or `python -m instructlab_utils course`, "
        "which runs all of them once"
    ]


def test_versions_that_are_not_the_locked_ones(fetched: Path) -> None:
    (fetched / "requirements.lock").write_text("# exact\nnumpy==0.1\ntorch==9.9\n")
    report = doctor.examine()
    assert report["locked"] == {"torch": "9.9", "numpy": "0.1"}
    report["versions"] |= {"numpy": "0.1", "torch": "9.8+cpu", "scipy": None}
    told = "packages: scipy is absent, torch 9.8+cpu instead of 9.9 → `make setup`"
    assert said(versions=report["versions"]) == [told, "next: `make setup`"]
    report["versions"] |= {"torch": "9.9+cpu", "scipy": "1"}
    assert said(versions=report["versions"])[0].startswith("next: `make lab`")


def test_little_memory_and_a_full_disk(clone: Path) -> None:
    memory, disk, _, following = said(memory_gb=2.0, free_gb=0.001)
    assert memory.startswith("memory: is below 3 GiB") and memory.endswith("→ `make course WORKERS=1`")
    assert disk.startswith("disk: 0.0 GB are needed") and "INSTRUCTLAB_HOME" in following


def test_what_it_measures() -> None:
    report = doctor.examine()
    assert report["cores"] >= 1 and report["memory_gb"] > 0 and report["free_gb"] >= 0
    assert (
        report["gemm_gflops"] > 0.1
        and report["versions"]["torch"]
        and set(report["locked"]) > {"torch", "numpy"}
    )
    assert set(report["assets"]) == set(assets.catalogue())
    json.dumps(report)
    text = doctor.render(report)
    assert f"{report['gemm_gflops']} GFLOP/s" in text and "\x1b" not in text  # no terminal here


def test_colours_only_in_a_terminal(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[33mmodel" in doctor.render(doctor.examine())
