"""What a fault leaves behind, piece by piece; drill_reproduce.py has the same faults against the whole engine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import drill_reproduce as drill
import psutil
import pytest

from instructlab_repro import experiments, notebooks
from instructlab_repro.engine import jobs, snakemake
from instructlab_repro.notebooks import runner
from instructlab_utils import files
from instructlab_utils.errors import ConfigError, RecordError


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRUCTLAB_ROOT", str(tmp_path))
    drill.make(tmp_path)
    notebooks.build(["toy"])
    return tmp_path


def finish(experiment: experiments.Experiment) -> None:
    """Leave the files of every finished block under build/, without running anything."""
    for block in experiment.blocks():
        rows = []
        for number, trial in enumerate(experiment.trials(block)):
            shares = {"accuracy": number / 10, "dev_accuracy": number / 10}
            rows.append(
                experiment.identity(block) | trial.key | shares | {"predictions": [0, 1], "targets": [1, 1]}
            )
        files.write_lines(block.out / "lines.jsonl", rows)
        runner.Manifest("toy", {}, "", "laptop", 0, status="ok").write(block.out)


# --- a killed writer -------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_what_a_killed_writer_left_is_removed_by_the_next_one(tmp_path):
    path = files.write_json(tmp_path / "m.json", {"old": True})
    code = (
        "import os, signal\nfrom instructlab_utils import files\n"
        "os.fsync = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"files.write_json({str(path)!r}, {{'new': True}})\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2 and files.read_json(path) == {"old": True}
    files.write_json(path, {"new": True})
    assert [p.name for p in tmp_path.iterdir()] == ["m.json"] and files.read_json(path) == {"new": True}


def test_the_temporary_file_of_a_living_writer_or_of_another_file_stays(tmp_path):
    others = [f".m.json.{os.getppid()}.abc.tmp", ".n.json.999999999.abc.tmp"]
    for name in others:
        (tmp_path / name).touch()
    files.write_json(tmp_path / "m.json", {})
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*others, "m.json"])


# --- damaged lines ---------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [b'{"n": 1', b"\x00\x00", b'{"n\xff": 1}', b"[1]"])
def test_a_damaged_line_of_a_block_is_set_aside_and_told(tmp_path, capsys, damage):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"n": 0}\n' + damage + b'\n{"n": 2}\n')
    assert files.salvage(path) == [{"n": 0}, {"n": 2}]
    assert (tmp_path / "lines.damaged.txt").read_bytes() == b"line 2: " + damage + b"\n"
    assert "1 damaged line(s) set aside in lines.damaged.txt" in capsys.readouterr().err


def test_only_the_run_of_a_damaged_line_is_missing(root, monkeypatch):
    experiment = experiments.load("toy").at("laptop")
    finish(experiment)
    block = experiment.blocks()[1]
    path = block.out / "lines.jsonl"
    rows = path.read_bytes().split(b"\n")
    rows[2] = rows[2][:40]
    path.write_bytes(b"\n".join(rows))
    assert [job.name for job in jobs.all_jobs(["toy"], "laptop") if not job.done] == [f"toy/{block.id}"]
    manifest = runner.read_manifest(block.out)
    monkeypatch.setattr(runner, "run_notebook", lambda *_, **__: manifest)
    experiments.run_block("toy", block.id, "laptop")
    kept = files.read_lines(path)
    assert len(kept) == len(experiment.trials(block)) - 1
    assert manifest.status == "failed" and "no line for" in manifest.error["message"]


def damage_results(cut: slice) -> tuple[Path, bytes]:
    """Replace the third line of the toy's results by a part of it and a byte that no UTF-8 text holds."""
    path = experiments.results_path("toy")
    good = path.read_bytes()
    rows = good.split(b"\n")
    rows[2] = rows[2][cut] + b"\xff"
    path.write_bytes(b"\n".join(rows))
    return path, good


@pytest.mark.parametrize("cut", [slice(40), slice(0)])
def test_a_damaged_results_file_is_written_again_from_build(root, cut):
    experiment = experiments.load("toy")
    finish(experiment.at("laptop"))
    experiments.aggregate(experiment, "laptop")
    path, good = damage_results(cut)
    assert all(job.done for job in jobs.all_jobs(["toy"], "laptop"))
    assert experiments.aggregate(experiment, "laptop").changed
    assert path.read_bytes() == good


def test_in_a_fresh_clone_a_damaged_results_file_is_named_with_its_line_and_git(root):
    experiment = experiments.load("toy")
    finish(experiment.at("laptop"))
    experiments.aggregate(experiment, "laptop")
    (root / "build").rename(root / "away")
    assert all(job.done for job in jobs.all_jobs(["toy"], "laptop"))
    path, good = damage_results(slice(40))
    sentence = (
        r"toy\.jsonl, line 3: not a JSON object; restore the file from git, or delete it and run again\.$"
    )
    with pytest.raises(RecordError, match=sentence):
        jobs.all_jobs(["toy"], "laptop")
    with pytest.raises(RecordError, match=sentence):
        experiments.results("toy")
    path.write_bytes(good[:-20])  # replaced as a whole, so a cut last line is damage as well
    with pytest.raises(RecordError, match=rf"line {good.count(b'{' + chr(34).encode() + b'accuracy')}: not"):
        experiments.results("toy")


# --- two calls -------------------------------------------------------------------------------------


def test_a_second_call_is_refused_in_one_sentence(root):
    from filelock import FileLock

    (root / "build").mkdir()
    with FileLock(root / "build" / ".graph.lock"), pytest.raises(ConfigError, match="another run is at work"):
        snakemake.run_graph(["toy"], "laptop")
    assert not (root / ".snakemake").exists()


def test_what_another_call_finished_meanwhile_is_not_run_again(root, monkeypatch):
    experiment = experiments.load("toy").at("laptop")

    @contextlib.contextmanager
    def lock(_: Path):
        finish(experiment)  # the other call ends while this one waits for the lock
        yield

    monkeypatch.setattr(snakemake, "_alone", lock)
    monkeypatch.setattr(snakemake, "_Snakemake", lambda *_: pytest.fail("Snakemake was started"))
    result = snakemake.run_graph(["toy"], "laptop")
    assert result.ran == [] and len(result.current) == len(experiment.blocks()) and result.exit_code == 0


def test_a_killed_engine_whose_snakemake_finished_all_leaves_nothing_behind(root, monkeypatch):
    finish(experiments.load("toy").at("laptop"))
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    snakemake._remember(root / "build", sleeper.pid, None)
    monkeypatch.setattr(snakemake, "_Snakemake", lambda *_: pytest.fail("Snakemake was started"))
    assert snakemake.run_graph(["toy"], "laptop").ran == []
    assert not psutil.pid_exists(sleeper.pid)
    assert not (root / "build" / ".graph.json").exists()


# --- a full disk -----------------------------------------------------------------------------------


def test_no_half_of_an_executed_notebook_stays(root, monkeypatch):
    out = root / "out"

    def full(path: str, text: str) -> None:
        assert path == str(out / "executed.ipynb") and text.startswith("{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runner, "write_text", full)
    manifest = runner.run_notebook(experiments.notebook_path("toy"), out, {}, timeout=200)
    assert manifest.status == "aborted" and "No space left" in manifest.error["message"]
    assert [path.name for path in out.iterdir()] == ["manifest.json"]
