"""Grids under way: what is kept of them can be put back, and is what its lines say it is."""

from __future__ import annotations

import hashlib
import json
import runpy
import shutil
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
    assert lines
    for line in lines:
        assert line["experiment"] == name and line["claims"] == sums
        assert line["method"] in spec["methods"]


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_is_put_back_and_nothing_that_is_there_is_lost(name, tmp_path):
    shutil.copytree(ROOT / "data" / "claims", tmp_path / "data" / "claims")
    block = next((PENDING / name / "lines").glob("*.jsonl"))
    mine = tmp_path / "build" / "runs" / name / "laptop" / block.stem / "lines.jsonl"
    mine.parent.mkdir(parents=True)
    mine.write_text("longer than what was kept\n", encoding="utf-8")
    written = resume(name, tmp_path)
    assert mine.read_text(encoding="utf-8") == "longer than what was kept\n"
    design = tmp_path / "data" / "experiments" / f"{name}.toml"
    assert design in written and design.read_bytes() == (PENDING / name / f"{name}.toml").read_bytes()
    source = tmp_path / "notebooks" / "experiments" / "source" / f"{name}.py"
    kept = PENDING / name / "notebook.py"
    assert (source in written) == kept.exists()
    assert not kept.exists() or source.read_bytes() == kept.read_bytes()
    for claim in (PENDING / name / "claims").glob("*.toml"):
        assert (tmp_path / "data" / "claims" / claim.name).read_bytes() == claim.read_bytes()
        before = (ROOT / "data" / "claims" / claim.name).read_bytes()
        if b"\nexperiment = " in before:
            assert (tmp_path / "data" / "claims" / "edition-1" / claim.name).read_bytes() == before


@pytest.mark.parametrize("name", ["nothing", ""])
def test_an_unknown_grid_is_one_sentence(name):
    with pytest.raises(SystemExit, match=rf"data/pending/{name}: there is no such grid; waiting are: "):
        resume(name)
