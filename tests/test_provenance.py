"""What the package's hash sees, and which results go out of date with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import toy_project

from instructlab_repro import experiments, provenance
from instructlab_repro.engine import jobs
from instructlab_utils import files

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A copy of the teaching package in place of the real one."""
    copy = tmp_path / "instructlab_utils"
    shutil.copytree(ROOT / "instructlab_utils", copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "TEACHING", copy)
    provenance.package_sha.cache_clear()
    yield copy
    provenance.package_sha.cache_clear()


def sha() -> str:
    provenance.package_sha.cache_clear()
    return provenance.package_sha()


def double_delta(package: Path) -> None:
    """LoRA's change of the weight, twice as large: the tuner that a hash of the top folder alone did not see."""
    path = package / "tuners" / "lora.py"
    text = path.read_text(encoding="utf-8")
    assert "return self.scale * self.B @ self.A" in text
    path.write_text(text.replace("return self.scale *", "return 2 * self.scale *"), encoding="utf-8")


def test_the_hash_is_that_of_the_package_as_it_is_imported():
    assert provenance.TEACHING == ROOT / "instructlab_utils" and len(sha()) == 16


def test_the_hash_sees_every_module_and_its_path_and_no_line_ends(package):
    seen = [sha()]
    (package / "errors.py").write_bytes((package / "errors.py").read_bytes().replace(b"\n", b"\r\n"))
    (package / "notes.txt").write_text("no part of it")
    assert sha() == seen[0]
    double_delta(package)
    seen.append(sha())
    (package / "tuners" / "vera.py").rename(package / "vera.py")
    seen.append(sha())
    (package / "profiles.toml").write_text("")
    assert len({*seen, sha()}) == 4


def test_the_hash_sees_the_table_of_tasks(package):
    seen, table = [sha()], package.parent / "data" / "tasks.toml"
    table.parent.mkdir()
    for text in ("[task.irony]", "[task.sarcasm]"):
        table.write_text(text, encoding="utf-8")
        seen.append(sha())
    assert len(set(seen)) == 3


def test_a_changed_tuner_makes_lesson_09_run_again_and_leaves_a_block_done(tmp_path, package, monkeypatch):
    """A lesson executes the package; a block's line carries its hash."""
    root = toy_project.make(tmp_path / "toy")
    monkeypatch.setenv("INSTRUCTLAB_ROOT", str(root))
    for name in ("09_lora.ipynb", "source/09_lora.py"):
        (root / "notebooks" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "notebooks" / name, root / "notebooks" / name)
    lesson = jobs.lesson_jobs("laptop")["09"]
    block = toy_project.run_all().blocks()[0].id
    lesson.out.mkdir(parents=True)
    toy_project.write_manifest(lesson.out)
    lesson.marker.write_text(lesson.key, encoding="utf-8")
    assert jobs.lesson_jobs("laptop")["09"].done and jobs.block_jobs("toy", "laptop")[block].done
    double_delta(package)
    now = sha()
    assert not jobs.lesson_jobs("laptop")["09"].done and jobs.block_jobs("toy", "laptop")[block].done
    lines = files.read_lines(experiments.results_path("toy"))
    assert lines and all(line["environment"]["package"] != now for line in lines)
