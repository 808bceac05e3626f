"""Grids under way: what is kept of them can be put back, and is what its lines say it is."""

from __future__ import annotations

import hashlib
import json
import runpy
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PENDING = ROOT / "data" / "pending"
GRIDS = sorted(path.name for path in PENDING.iterdir() if path.is_dir())
resume = runpy.run_path(str(ROOT / "scripts" / "resume.py"))["resume"]


@pytest.mark.parametrize("name", GRIDS)
def test_the_lines_belong_to_the_design_and_to_its_claims(name):
    folder = PENDING / name
    spec = tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8"))
    sums = {p.stem: hashlib.sha256(p.read_bytes()).hexdigest() for p in (folder / "claims").glob("*.toml")}
    assert sorted(sums) == sorted(spec["claims"])
    lines = [
        json.loads(line)
        for path in sorted((folder / "lines").glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert bool(lines) == (folder / "lines").exists()
    for line in lines:
        assert line["experiment"] == name and line["claims"] == sums
        assert line["method"] in spec["methods"]


@pytest.mark.parametrize("new_notebook", [False, True])
def test_a_grid_is_put_back_and_nothing_that_is_there_is_lost(new_notebook, tmp_path, monkeypatch):
    kept, tree = tmp_path / "pending", tmp_path / "tree"
    monkeypatch.setitem(resume.__globals__, "PENDING", kept)
    for path, text in {
        kept / "toy" / "toy.toml": "design",
        kept / "toy" / "claims" / "X1.toml": "new claim",
        kept / "toy" / "claims" / "X2.toml": "first claim",
        kept / "toy" / "lines" / "s0.jsonl": "line of s0",
        kept / "toy" / "lines" / "s1.jsonl": "line of s1",
        tree / "data" / "claims" / "X1.toml": 'id\nexperiment = "toy"',
        tree / "data" / "claims" / "X2.toml": "a draft",
        tree / "build" / "runs" / "toy" / "laptop" / "s0" / "lines.jsonl": "two lines of s0",
        tree
        / "data"
        / "experiments"
        / "old.toml": 'claims = ["X0", "X2"]\nverdicts = { a = "X2", "b.1" = "X0" }\n',
        tree / "data" / "experiments" / "other.toml": 'claims = ["Y1"]\nverdicts = {}\n',
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    if new_notebook:
        (kept / "toy" / "notebook.py").write_text("cells", encoding="utf-8")
    expected = {
        "data/experiments/toy.toml": "design",
        "data/experiments/old.toml": 'claims = ["X0"]\nverdicts = { "b.1" = "X0" }\n',
        "data/claims/X1.toml": "new claim",
        "data/claims/X2.toml": "first claim",
        "data/claims/edition-1/X1.toml": 'id\nexperiment = "toy"',
        "build/runs/toy/laptop/s1/lines.jsonl": "line of s1",
    } | ({"notebooks/experiments/source/toy.py": "cells"} if new_notebook else {})
    written = {path.relative_to(tree).as_posix() for path in resume("toy", tree)}
    assert written == set(expected)
    assert {name: (tree / name).read_text(encoding="utf-8") for name in expected} == expected
    assert (tree / "build/runs/toy/laptop/s0/lines.jsonl").read_text(encoding="utf-8") == "two lines of s0"


def test_a_claim_that_is_new_is_its_own_first_edition_at_a_second_call_too(tmp_path, monkeypatch):
    monkeypatch.setitem(resume.__globals__, "PENDING", tmp_path / "pending")
    folder, tree = tmp_path / "pending" / "toy", tmp_path / "tree"
    (folder / "claims").mkdir(parents=True)
    (folder / "toy.toml").write_text("design", encoding="utf-8")
    (folder / "claims" / "N1.toml").write_text('id\nexperiment = "toy"', encoding="utf-8")
    for _ in range(2):
        resume("toy", tree)
        assert sorted(p.name for p in (tree / "data" / "claims").iterdir()) == ["N1.toml"]


@pytest.mark.parametrize("name", ["nothing", ""])
def test_an_unknown_grid_is_one_sentence(name):
    with pytest.raises(SystemExit, match=rf"data/pending/{name}: there is no such grid; waiting are: "):
        resume(name)
