"""A clone with any setting for line ends has the bytes of the repository: scripts run, hashed data keep their hash."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def git(*words: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(["git", *words], cwd=cwd, capture_output=True, check=True)
    return done.stdout.decode()


def blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a clone")
@pytest.mark.parametrize("setting", ["true", "input"])
def test_a_clone_that_turns_line_ends_has_the_same_bytes(tmp_path, setting):
    clone = tmp_path / "clone"
    settings = ["-c", f"core.autocrlf={setting}", "-c", "core.eol=crlf"]
    git(*settings, "clone", "--quiet", "--local", "--depth=1", f"file://{ROOT}", str(clone))
    rows = [row.split(maxsplit=3) for row in git("ls-files", "--stage", "-z", cwd=clone).split("\0") if row]
    assert len(rows) > 500
    other = [name for _, sha, _, name in rows if blob((clone / name).read_bytes()) != sha]
    assert not other, f"{len(other)} files have other bytes, the first: {other[:3]}"
    assert (clone / ".ci" / "run").read_bytes().startswith(b"#!/usr/bin/env bash\n")
    assert git("status", "--porcelain", cwd=clone) == ""


def test_no_committed_text_has_windows_line_ends_and_every_binary_kind_is_named():
    rows = [row.split("\t") for row in git("ls-files", "--eol").splitlines()]
    assert not [name for facts, name in rows if facts.startswith(("i/crlf", "i/mixed"))]
    unnamed = [name for facts, name in rows if facts.startswith("i/-text") and "attr/-text" not in facts]
    assert not unnamed, unnamed
