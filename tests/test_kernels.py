"""Warm kernels: the same bits as an ordinary one, the same ends, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from instructlab_repro import notebooks
from instructlab_repro.notebooks import kernels, runner

ROOT = Path(__file__).resolve().parents[1]
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
ENV = {**os.environ, **dict.fromkeys(kernels.THREADS, "1")}
ENV.pop("INSTRUCTLAB_WARM", None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(kernels.unfit(ENV)), reason=f"no warm kernels: {kernels.unfit(ENV)}"),
]

COMPUTE = """import numpy as np, torch, matplotlib.pyplot as plt
torch.manual_seed(3)
x = torch.randn(300, 300); y = torch.softmax(x @ x.T, -1)
print(y.double().sum().item().hex(), float(np.linalg.svd(y.numpy())[1][0]).hex(), torch.get_num_threads())
figure, axes = plt.subplots(); axes.plot(y[0].numpy()[:50]);"""


@pytest.fixture(autouse=True)
def warm(monkeypatch):
    monkeypatch.delenv("INSTRUCTLAB_WARM", raising=False)
    monkeypatch.delenv("MPLBACKEND", raising=False)


def run(project: Path, *cells: str, **options) -> tuple[notebooks.Manifest, list]:
    path = project / "notebooks" / "a.ipynb"
    nbformat.write(
        new_notebook(metadata={"kernelspec": KERNEL}, cells=[new_code_cell(c) for c in cells]), path
    )
    manifest = runner.run_notebook(path, project / "build" / "out", {}, **{"timeout": 120, **options})
    return manifest, nbformat.read(project / "build" / "out" / "executed.ipynb", 4).cells


def text(cells: list) -> str:
    return "".join(o.get("text", "") for cell in cells for o in cell.outputs)


def server_of(pid: int) -> psutil.Process | None:
    """The server above a kernel, or None for an ordinary one."""
    above = [p for p in psutil.Process(pid).parents() if "server.serve" in " ".join(p.cmdline())]
    return above[0] if above else None


SEEN = "import os, psutil\nprint(any('server.serve' in ' '.join(p.cmdline()) for p in psutil.Process().parents()))"


def test_a_warm_kernel_computes_and_draws_the_same_bits(project):
    printed, drawn = [], []
    for wish in ("1", "0"):
        manifest, cells = run(project, SEEN, COMPUTE, env={"INSTRUCTLAB_WARM": wish})
        assert manifest.status == "ok", manifest.error
        assert text(cells[:1]).strip() == str(wish == "1")
        printed.append(text(cells[1:]))
        drawn.append([o.data["image/png"] for o in cells[1].outputs if o.output_type == "display_data"])
    assert printed[0] == printed[1] and len(printed[0]) > 20
    assert drawn[0] == drawn[1] and len(drawn[0]) == 1


def test_it_has_the_environment_the_folder_and_the_chance_of_its_own_request(project):
    look = (
        "import os, random, sys, signal, tempfile, numpy\n"
        "print(os.environ['MARK'], 'OTHER' in os.environ, os.path.basename(os.getcwd()), tempfile.gettempdir(),"
        " signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, os.getsid(0) == os.getpid(), sys.stdin.read() == '')\n"
        "print(random.random(), numpy.random.random())"
    )
    (project / "t").mkdir()
    rows = []
    for mark, other in (("one", {"OTHER": "x"}), ("two", {})):
        _, cells = run(project, look, env={"MARK": mark, "TMPDIR": str(project / "t"), **other})
        rows.append(text(cells).splitlines())
    assert rows[0][0] == f"one True notebooks {project / 't'} True True True"
    assert rows[1][0] == f"two False notebooks {project / 't'} True True True"
    drawn = [set(row[1].split()) for row in rows]
    assert not drawn[0] & drawn[1]


def test_a_killed_one_is_a_dead_kernel_and_a_slow_one_ends_at_its_limit(project):
    manifest, _ = run(project, SEEN, "import os; os.kill(os.getpid(), 9)")
    assert (manifest.status, manifest.error["name"]) == ("aborted", "DeadKernel")
    child = "import os, subprocess, sys, time\nopen('pid', 'w').write(str(os.getpid()))"
    manifest, _ = run(
        project,
        child,
        "subprocess.run([sys.executable, '-c', 'import time; time.sleep(99)'])",
        cell_timeout=3,
    )
    assert manifest.error["name"] == "Timeout"
    assert not psutil.pid_exists(int((project / "notebooks" / "pid").read_text()))


def test_memory_counts_what_the_kernel_does_not_share(project):
    manifest, _ = run(project, SEEN, "import time, numpy as np; a = np.ones(900 * 2**17); time.sleep(1)")
    assert 900 < manifest.peak_memory_mb < 2500  # the libraries count by the share of each who has them
    before = manifest.peak_memory_mb
    manifest, _ = run(project, SEEN, "import time; time.sleep(1)")
    assert manifest.peak_memory_mb < before - 300


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"INSTRUCTLAB_WARM": "0"}, "INSTRUCTLAB_WARM is 0"),
        ({"OMP_NUM_THREADS": "2"}, "more than one thread"),
        ({"INSTRUCTLAB_PROFILE": "gpu"}, "the gpu profile"),
        ({"SLURM_JOB_ID": "7"}, "SLURM_JOB_ID is set"),
    ],
)
def test_what_asks_for_an_ordinary_kernel(change, said):
    assert kernels.unfit(ENV) == "" and kernels.unfit(ENV | change) == said


def test_a_changed_file_or_variable_is_another_server_in_a_private_folder(tmp_path, monkeypatch):
    path = kernels.socket_path(ENV)
    assert path.parent.stat().st_mode & 0o777 == 0o700 and path == kernels.socket_path(ENV | {"OTHER": "x"})
    assert path != kernels.socket_path(ENV | {"HF_HOME": "/elsewhere"})
    package = tmp_path / "instructlab_utils"
    package.mkdir()
    (package / "losses.py").write_text("a = 1\n")
    monkeypatch.setattr(kernels, "PACKAGE", tmp_path)
    before = kernels.socket_path(ENV)
    (package / "losses.py").write_text("a = 2\n")
    assert len({path, before, kernels.socket_path(ENV)}) == 3
    monkeypatch.setattr(kernels.tempfile, "gettempdir", lambda: str(tmp_path))
    if len(str(tmp_path)) < 40:
        (tmp_path / f"instructlab-{os.getuid()}").mkdir(mode=0o755)
        with pytest.raises(OSError, match="not a private folder"):
            kernels.socket_path(ENV)


def test_where_no_server_can_start_or_it_dies_an_ordinary_process_does_it(project, monkeypatch, capsys):
    own = ENV | {"HF_HUB_DISABLE_TELEMETRY": "1"}  # a server of its own
    process = kernels.fork("subprocess:call", ["sleep", "60"], own, "/")
    server = server_of(process.pid)
    server.kill()
    server.wait(20)
    assert psutil.pid_exists(process.pid) and process.poll() is None  # its work goes on
    process.kill()
    assert process.wait(20) != 0
    monkeypatch.setattr(
        kernels.subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(OSError(12, "no memory"))
    )
    manifest, cells = run(project, SEEN, env={"HF_HUB_DISABLE_TELEMETRY": "1"})
    assert manifest.status == "ok" and text(cells).strip() == "False"
    assert capsys.readouterr().err.count("note: no warm process ([Errno 12] no memory)") == 1


def test_whoever_asked_and_dies_takes_its_process_along(tmp_path):
    code = (
        "import os, sys, time; from instructlab_repro.notebooks import kernels\n"
        "p = kernels.fork('subprocess:call', ['sleep', '60'], os.environ, '/'); print(p.pid, flush=True); time.sleep(60)"
    )
    env = ENV | {"PYTHONPATH": str(ROOT)}
    asker = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True)
    pid = int(asker.stdout.readline())
    assert server_of(pid) is not None
    asker.kill()
    asker.wait()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid)


def test_a_command_has_its_exit_code_its_output_and_its_signals(tmp_path):
    env = ENV | {"PYTHONPATH": str(ROOT)}
    code = (
        "import sys; from instructlab_repro.notebooks import kernels\n"
        "sys.exit(kernels.delegate(sys.argv[1], sys.argv[2:]))"
    )

    def call(*words: str) -> subprocess.Popen:
        words = (sys.executable, "-c", code, *words)
        return subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    wrong = call("instructlab_repro.engine.cli:main", "block", "nothing", "s0")
    out, err = wrong.communicate(timeout=120)
    assert wrong.returncode == 2 and err.startswith("error: ") and out == ""
    ended = call("subprocess:call", sys.executable, "-c", "print('said'); raise SystemExit(7)")
    assert (ended.communicate(timeout=60)[0], ended.returncode) == ("said\n", 7)
    slow = call("subprocess:call", sys.executable, "-uc", "import time; print('on'); time.sleep(60)")
    assert slow.stdout.readline() == "on\n"
    slow.send_signal(signal.SIGTERM)
    assert slow.wait(20) == -signal.SIGTERM


def test_a_server_that_nobody_uses_ends():
    process = kernels.fork("subprocess:call", ["sleep", "60"], ENV, "/")
    server, path = server_of(process.pid), kernels.socket_path(ENV)
    kernels.stop(ENV)  # it is in use
    time.sleep(0.5)
    assert path.exists() and server.is_running()
    process.kill()
    assert process.wait(20) == -signal.SIGKILL
    kernels.stop(ENV)
    server.wait(20)
    assert not path.exists()
