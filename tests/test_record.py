"""Results survive kills, full disks and damage: the old file or the new one, whole lines only."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from instructlab_repro import provenance
from instructlab_utils import files
from instructlab_utils.errors import ConfigError, RecordError


def test_write_json_sorts_keys_and_leaves_nothing_else(tmp_path):
    path = files.write_json(tmp_path / "deep" / "m.json", {"b": 1, "a": [1.5, "é"]})
    assert path.read_text(encoding="utf-8") == '{\n "a": [\n  1.5,\n  "é"\n ],\n "b": 1\n}\n'
    assert [p.name for p in path.parent.iterdir()] == ["m.json"]
    assert files.read_json(path) == {"a": [1.5, "é"], "b": 1}


def test_numpy_scalars_and_arrays_become_plain_numbers(tmp_path):
    import numpy as np

    path = files.write_json(
        tmp_path / "m.json", {"x": np.float64(0.25), "y": np.array([1, 2]), "p": Path("a/b")}
    )
    assert json.loads(path.read_text()) == {"x": 0.25, "y": [1, 2], "p": "a/b"}


def test_a_failed_replacement_keeps_the_old_file(tmp_path, monkeypatch):
    path = files.write_json(tmp_path / "m.json", {"old": True})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_json(path, {"new": True})
    assert json.loads(path.read_text()) == {"old": True}
    assert [p.name for p in tmp_path.iterdir()] == ["m.json"]


def test_what_json_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "x.jsonl"
    with pytest.raises(RecordError, match=r"x\.jsonl.*set"):
        files.append_line(path, {"a": {1, 2}})
    with pytest.raises(RecordError, match=r"m\.json"):
        files.write_json(tmp_path / "m.json", {"a": object()})
    assert list(tmp_path.iterdir()) == []


def test_every_torn_last_line_is_dropped_then_overwritten(tmp_path):
    path = tmp_path / "x.jsonl"
    whole, last = {"n": 1, "text": "ü"}, {"n": 2, "text": "Straße"}
    files.append_line(path, whole)
    start = path.read_bytes()
    files.append_line(path, last)
    full = path.read_bytes()
    for cut in range(len(start), len(full)):
        path.write_bytes(full[:cut])
        complete = cut == len(full) - 1  # only the line end is missing
        assert files.read_lines(path) == ([whole, last] if complete else [whole]), cut
        files.append_line(path, {"n": 3})
        assert files.read_lines(path) == ([whole, last] if complete else [whole]) + [{"n": 3}], cut


@pytest.mark.parametrize("damage", [b'{"n": 1\n', b"[1, 2]\n", b"\xff\xfe\n", b"\x00\x00\x00\n"])
def test_a_damaged_line_inside_is_named(tmp_path, damage):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"n": 0}\n' + damage + b'{"n": 2}\n')
    with pytest.raises(RecordError, match=r"x\.jsonl, line 2"):
        files.read_lines(path)


def test_no_file_has_no_lines(tmp_path):
    assert files.read_lines(tmp_path / "none.jsonl") == []
    with pytest.raises(RecordError, match=r"none\.json: no such file"):
        files.read_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(RecordError, match=r"bad\.json: not JSON"):
        files.read_json(tmp_path / "bad.json")


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
def test_a_full_disk_keeps_what_was_there(tmp_path):
    path = tmp_path / "x.jsonl"
    files.append_line(path, {"n": 0})
    before = path.read_bytes()
    code = (
        "import resource, signal\n"
        "from instructlab_utils import files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) + 20}, {len(before) + 20}))\n"
        f"files.append_line({str(path)!r}, {{'text': 'x' * 1000}})\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 1 and "OSError" in ended.stderr
    assert path.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_killed_writer_loses_no_whole_line(tmp_path):
    path = tmp_path / "x.jsonl"
    code = (
        "from instructlab_utils import files\n"
        f"n = len(files.read_lines({str(path)!r}))\n"
        f"while True:\n    files.append_line({str(path)!r}, {{'n': n, 'text': 'x' * 5000}})\n    n += 1\n"
    )
    dice = random.Random(0)
    for _ in range(3):
        have = len(files.read_lines(path))
        writer = subprocess.Popen([sys.executable, "-c", code])
        deadline = time.monotonic() + 20
        while len(path.read_bytes() if path.exists() else b"") <= have * 5000 + 6000:
            assert time.monotonic() < deadline and writer.poll() is None
            time.sleep(0.005)
        time.sleep(dice.random() * 0.05)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        lines = files.read_lines(path)
        assert [line["n"] for line in lines] == list(range(len(lines))) and len(lines) > have


def test_the_environment_is_found_without_torch():
    code = (
        "import sys\nfrom instructlab_repro import provenance\n"
        "found = provenance.environment()\nassert 'torch' not in sys.modules\n"
        "assert found['packages']['torch'] and found['cpu'] and found['threads'] == 3, found\n"
        "assert set(provenance.short_environment()) >= {'commit', 'dirty', 'torch', 'transformers', 'threads'}\n"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "3"}
    ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_peak_memory_sees_what_was_freed():
    code = (
        "from instructlab_utils.run import peak_memory_mb\n"
        "before = peak_memory_mb()\nx = bytearray(b'1') * (80 * 2**20)\ndel x\n"
        "after = peak_memory_mb()\nassert 70 < after - before < 120, (before, after)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_claim_hashes_follow_the_text_and_not_the_line_ends(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRUCTLAB_ROOT", str(tmp_path))
    path = tmp_path / "data" / "claims" / "C9.toml"
    path.parent.mkdir(parents=True)
    path.write_bytes(b'id = "C9"\n')
    first = provenance.claims_sha(["C9"])
    path.write_bytes(b'id = "C9"\r\n')
    assert provenance.claims_sha(["C9"]) == first
    path.write_bytes(b'id = "C8"\n')
    assert provenance.claims_sha(["C9"]) != first
    with pytest.raises(ConfigError, match=r"data/claims/C7\.toml"):
        provenance.claims_sha(["C7"])
