"""What a person sees while something runs: a bar in a terminal; in a log whole lines, without a carriage return."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from instructlab_utils import progress

ROOT = Path(__file__).resolve().parents[1]
BYTES = """
from instructlab_utils import progress
with progress.bar_or_lines("tiny", 4e6, "B", unit_scale=True) as bar:
    for _ in range(4):
        bar.update(1e6)
"""
JOBS = """
from pathlib import Path
from types import SimpleNamespace as New
from instructlab_repro.engine import course
jobs = [New(name=name, status="waiting", manifest=New(seconds=2.0, peak_memory_mb=90.0)) for name in ("00", "01")]
with course.progress() as on_progress:
    for job in jobs:
        job.status = "running"
        on_progress(jobs)
        job.status = "ok"
        on_progress(jobs)
"""


def in_a_pipe(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=120)
    assert done.returncode == 0 and done.stdout == b"", done
    return done.stderr.decode()


def in_a_terminal(code: str, **variables: str) -> str:
    """What the program writes to a pseudo-terminal."""
    pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminal of this kind")
    from termios import tcsetwinsize

    ours, theirs = pty.openpty()
    tcsetwinsize(theirs, (24, 100))
    env = {**os.environ, "TERM": "xterm", **variables}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=theirs, stderr=theirs, env=env
    ) as child:
        os.close(theirs)
        told = b""
        try:
            while block := os.read(ours, 4096):
                told += block
        except OSError:  # Linux says so where the other end has closed
            pass
    os.close(ours)
    assert child.returncode == 0, told
    return told.decode().replace("\r\n", "\n")  # the terminal's own line ends


def test_a_download_in_a_log_is_one_line():
    assert in_a_pipe(BYTES) == "tiny: 4.00MB of 4.00MB\n"


def test_a_download_in_a_terminal_is_a_bar():
    told = in_a_terminal(BYTES)
    assert "\r" in told and "tiny: 100%|" in told and "4.00M/4.00M" in told


def test_notebooks_in_a_log_are_a_line_each():
    assert in_a_pipe(JOBS) == "00: ok, 2.0 s, 90 MB (1 of 2)\n01: ok, 2.0 s, 90 MB (2 of 2)\n"


def test_notebooks_in_a_terminal_are_lines_above_a_bar():
    told = in_a_terminal(JOBS.replace("jobs:", "jobs:\n        import time; time.sleep(0.6)"))
    assert re.search(r"^00: ok, 2\.0 s, 90 MB *$", re.sub(r".*\r", "", told), re.MULTILINE), told
    assert "50%|" in told and re.search(r"1/2 \[.*, 01\]", told), told


def test_a_terminal_that_cannot_go_back_gets_lines():
    assert in_a_terminal(BYTES, TERM="dumb") == "tiny: 4.00MB of 4.00MB\n"


def test_a_notebook_gets_lines_because_its_output_may_be_stored(tmp_path):
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(BYTES)])
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(ROOT)}}).execute()
    (output,) = notebook.cells[0].outputs
    assert (output.name, output.text) == ("stderr", "tiny: 4.00MB of 4.00MB\n")


def test_a_slow_download_says_now_and_then_how_far_it_is(monkeypatch, capsys):
    now = iter(range(0, 1000, 10))  # seconds: each look at the clock is ten later
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with progress.bar_or_lines("slow", 5e6, "B") as bar:
        for _ in range(4):
            bar.update(1e6)
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "slow: 2.00MB of 5.00MB" and told[-1] == "slow: 4.00MB of 5.00MB" and len(told) == 2


def test_what_is_not_to_be_shown_is_not(capsys):
    with progress.bar_or_lines("hidden", 10, disable=True) as bar:
        bar.update(10 - bar.n)
    assert capsys.readouterr() == ("", "")


def test_setup_hides_pips_warnings_and_shows_its_errors(tmp_path):
    flags = re.search(r"^QUIETLY := ([^#\n]+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    words = [sys.executable, "-m", "pip", "install", "--no-index", "--find-links", str(tmp_path / "missing")]
    env = {**os.environ, "PIP_CONFIG_FILE": os.devnull}
    loud, quiet = (
        subprocess.run(
            [*words, *more, "not-in-any-folder"], capture_output=True, text=True, env=env, timeout=120
        )
        for more in ([], flags)
    )
    assert "WARNING" in loud.stderr and "WARNING" not in quiet.stderr
    assert loud.returncode == quiet.returncode == 1 and "ERROR: No matching distribution" in quiet.stderr
