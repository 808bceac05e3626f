"""The executors: profiles hold what Snakemake knows, a job brings its environment along, and a real Slurm agrees.

The tests that need Slurm say why they skip; `scripts/slurm_single_node.sh start` gives them one, on any Linux as root.
"""

import importlib.util
import json
import os
import platform
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy_project as toy
import yaml

from instructlab_repro import experiments
from instructlab_repro.engine import jobs, snakemake
from instructlab_repro.notebooks import kernels
from instructlab_repro.pages import check_blocks
from instructlab_utils.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
PROFILES = sorted(path.parent.name for path in (ROOT / "profiles").glob("*/config.yaml"))
PLUGIN = importlib.util.find_spec("snakemake_executor_plugin_slurm") is not None


def _script(path: str):
    """A script of the repository as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


demo = _script("scripts/slurm_demo.py")


def needs_slurm(test):
    """Slow tests that need a running Slurm and the executor's plugin; else skipped, with the reason."""
    reason = demo.reason_to_skip() or ("" if PLUGIN else "snakemake-executor-plugin-slurm is not installed")
    return pytest.mark.slow(pytest.mark.skipif(bool(reason), reason=reason)(test))


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRUCTLAB_ROOT", str(tmp_path))
    return toy.make(tmp_path)


# --- profiles --------------------------------------------------------------------------------------


def _options(name: str) -> dict:
    return yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text(encoding="utf-8"))


def test_there_is_a_profile_for_one_machine_and_one_for_slurm():
    assert {"local", "slurm"} <= set(PROFILES)


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_hold_only_options_that_snakemake_knows(name):
    from snakemake.cli import get_argument_parser

    known = get_argument_parser()._option_string_actions
    for option in _options(name):
        if option.startswith("slurm-") and not PLUGIN:
            continue  # the plugin's own; the next test reads them
        assert f"--{option}" in known, f"profiles/{name}/config.yaml: {option}"


@pytest.mark.skipif(not PLUGIN, reason="snakemake-executor-plugin-slurm is not installed")
def test_snakemake_reads_the_slurm_profile_as_it_is_meant():
    from snakemake.cli import get_argument_parser

    read = get_argument_parser(profiles=[str(ROOT / "profiles" / "slurm")]).parse_args(["all"])
    assert (read.executor, read.slurm_status_command, read.slurm_no_account) == ("slurm", "squeue", True)
    assert read.keep_going and read.rerun_incomplete and read.slurm_requeue and read.latency_wait >= 30
    assert [trigger.name for trigger in read.rerun_triggers] == ["PARAMS"]


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_resumes_and_lets_the_key_decide(name):
    options = _options(name)
    assert options["keep-going"] and options["rerun-incomplete"] and options["rerun-triggers"] == ["params"]


def test_an_executor_that_cannot_work_is_one_sentence(root, monkeypatch):
    with pytest.raises(ConfigError, match=r"unknown executor 'slrum', did you mean 'slurm'\?; known: local"):
        snakemake.run_graph(["toy"], "smoke", executor="slrum")
    own = root / "profiles" / "mine" / "config.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("executor: nowhere\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="'nowhere' is not installed; run `pip install snakemake-executor-"):
        snakemake.executor_profile("mine")
    own.write_text("executor: [\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="not a table of YAML"):
        snakemake.executor_profile(str(own.parent))
    own.write_text("executor: slurm\n", encoding="utf-8")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="no `sbatch` here"):
        snakemake.executor_profile("mine")
    assert snakemake.executor_profile("local") == (ROOT / "profiles" / "local", "local")


# --- what a job brings along -----------------------------------------------------------------------


def test_a_job_asks_for_what_its_experiment_says(root):
    job = jobs.block_jobs("toy", "smoke")["tune-a"]
    assert job.resources == {
        "mem_mb": 2000 + jobs.SNAKEMAKE_MB,  # 2000 is the default of [resources]
        "runtime": 1 + jobs.SLACK,
        "gpu": 0,
    }
    path = root / "data/experiments/toy.toml"
    path.write_text(path.read_text() + "[profiles.gpu.resources]\ngpu = 1\ncores = 2\n")
    job = jobs.block_jobs("toy", "gpu")["tune-a"]
    assert job.resources["gpu"] == 1 and job.threads == 2


def test_a_node_looks_at_its_own_block_only(root):
    experiment = experiments.load("toy").at("laptop")
    block = experiment.block(stage="run", task="a", n_train=10, seed=0)
    assert list(jobs.block_jobs("toy", "laptop", block)) == ["tune-a", "a-n10-s0"]
    assert len(jobs.block_jobs("toy", "laptop")) == 14


WORKER = """#!/bin/bash
env > "$INSTRUCTLAB_ROOT/environment.txt"
mkdir -p "$INSTRUCTLAB_ROOT/build/runs/$4/$7"
cp -r "$INSTRUCTLAB_ROOT/prepared/$5" "$INSTRUCTLAB_ROOT/build/runs/$4/$7/"
"""


SLEEPER = """#!/bin/bash
cd "$INSTRUCTLAB_ROOT" && echo "$5" >> calls.txt
if [ -e slow ] && [ "$5" = tune-b ]; then echo $$ > sleeping; exec sleep 600; fi
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for a kernel is a shell script")
@pytest.mark.parametrize(
    ("home", "by_hand"), [("/somewhere/cache", True), ("/srv/x #1: it's {a} \\ 'ü'", False)]
)
def test_a_job_in_an_empty_environment_gets_all_it_needs_from_the_snakefile(root, monkeypatch, home, by_hand):
    (root / "Snakefile").write_bytes((ROOT / "Snakefile").read_bytes())
    block = experiments.load("toy").at("smoke").blocks()[0]
    toy.run(experiments.load("toy").at("smoke"), block)
    block.out.parent.rename(root / "prepared")
    worker = root / "worker.sh"
    worker.write_text(WORKER, encoding="utf-8")
    worker.chmod(worker.stat().st_mode | stat.S_IXUSR)
    words = [sys.executable, "-m", "snakemake", "--profile", str(ROOT / "profiles" / "local")]
    words += ["--snakefile", str(root / "Snakefile"), "--directory", str(root)]
    monkeypatch.setenv("INSTRUCTLAB_HOME", home)
    monkeypatch.setenv("INSTRUCTLAB_PYTHON", str(worker))
    carried = [f"home={home}", f"python={worker}"] if by_hand else [jobs.sent()]
    words += ["--config", "profile=smoke", *carried]
    words += ["--", block.out.joinpath("done").relative_to(root).as_posix()]
    empty = {"PATH": "/usr/bin:/bin", "HOME": str(root)}
    subprocess.run(words, cwd=ROOT, env=empty, check=True, capture_output=True)
    found = dict(
        line.split("=", 1) for line in (root / "environment.txt").read_text().splitlines() if "=" in line
    )
    assert found["INSTRUCTLAB_ROOT"] == str(root) and found["INSTRUCTLAB_PROFILE"] == "smoke"
    assert found["INSTRUCTLAB_HOME"] == home and found["PYTHONPATH"] == str(ROOT)
    assert all(found[name] == "1" for name in kernels.THREADS)
    assert block.out.joinpath("done").read_text().strip() == experiments.load("toy").at("smoke").key(block)


def test_the_head_node_needs_no_kernel_and_no_torch():
    """Where Snakemake is called, jobs are listed and keyed; only nodes start kernels."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'ipykernel', 'transformers', 'papermill')))\n"
        "from instructlab_repro.engine import jobs\n"
        "print(len(jobs.all_jobs(['lessons', 'experiments'], 'smoke')))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and int(done.stdout) > 3, done.stderr


def test_processes_of_another_login_node_are_left_alone(monkeypatch):
    ended = []
    monkeypatch.setattr(snakemake, "_end_group", lambda group, **_: ended.append(group))
    left = {"group": 2**22 + 1, "started": 0.0}
    snakemake._end_orphans({**left, "host": "another"})
    assert not ended
    snakemake._end_orphans({**left, "host": platform.node()})
    assert ended == [2**22 + 1]


def test_slurm_jobs_of_a_killed_call_are_cancelled_before_the_next_one_starts(root, monkeypatch):
    queue = ["7 instructlab-abc_1", "8 instructlab-abd_1", "9 other name", "12_3 instructlab-abc_2"]
    cancelled = []

    def run(words, **_):
        if words[0] == "scancel":
            cancelled.extend(words[1:])
            queue[:] = [row for row in queue if row.split()[0] not in cancelled]
        return subprocess.CompletedProcess(words, 0, "\n".join(queue), "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(snakemake.time, "sleep", lambda _: None)
    build = root / "build"
    build.mkdir()
    (build / ".graph.json").write_text(
        json.dumps({"group": 2**22 + 1, "started": 0, "host": "another", "slurm": "instructlab-abc"})
    )
    snakemake.end_killed()
    assert cancelled == ["7", "12_3"] and not (build / ".graph.json").exists()


def test_a_killed_call_on_slurm_cannot_be_followed_where_slurm_cannot_be_asked(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        ConfigError, match="a killed call left Slurm jobs; call this once where `squeue` works"
    ):
        snakemake._cancel_slurm("instructlab-abc")


# --- the single node -------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="Slurm runs on Linux")
def test_the_single_node_script_says_what_it_cannot_do(tmp_path):
    script = ROOT / "scripts" / "slurm_single_node.sh"
    done = subprocess.run([script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error: say start, stop or status\n")
    bare = {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)}
    missing = subprocess.run(
        ["bash", "-c", f"command() {{ return 1; }}; set -- start; source {script}"],
        env=bare,
        capture_output=True,
        text=True,
    )
    wanted = "error: (munged is not installed; apt-get install .*|Slurm's daemons must be started by root)\n"
    assert missing.returncode == 2 and re.fullmatch(wanted, missing.stderr)


def test_the_demo_sees_a_difference_and_forgives_only_time_memory_and_commit(tmp_path):
    lines = {"a": 1, "seconds": 1.0, "environment": {"commit": "x", "dirty": True, "cpu": "c"}}
    found = []
    for name, change in (("one", {}), ("two", {"seconds": 2.0}), ("three", {"a": 2})):
        folder = tmp_path / name / "build" / "results"
        folder.mkdir(parents=True)
        (folder / "x.smoke.jsonl").write_text(json.dumps(lines | change) + "\n")
        cost = "9" if name == "two" else "8"
        (folder / "x.md").write_text(f"| m | CPU seconds | a |\n| large | {cost} | {change.get('a', 1)} |\n")
        found.append(demo.results(tmp_path / name))
    assert demo.differences(found[0], found[1]) == []
    assert demo.differences(found[0], found[2]) == [
        "build/results/x.md differs",
        "build/results/x.smoke.jsonl differs",
    ]
    assert demo.differences(found[0], {}) == [f"{name} is only in one of them" for name in sorted(found[0])]


# --- SCALING.md ------------------------------------------------------------------------------------


def test_scaling_says_what_was_measured_and_calculated():
    page, scaling = ROOT / "SCALING.md", _script("benchmarks/scaling.py")
    blocks = scaling.blocks()
    assert all(f"<!-- generated:{name} -->" in page.read_text(encoding="utf-8") for name in blocks)
    assert check_blocks(page, blocks) == []


def test_the_arithmetic_of_seven_billion_weights():
    """Against the sizes that the models' authors publish: 6.738 billion weights; rank 16 on all matrices, 40.0 million."""
    scaling = _script("benchmarks/scaling.py")
    assert scaling.parameters() == {"P": 6_738_415_616, "P_E": 262_144_000, "P_A": 39_976_960}
    full, _, lora = scaling.memory().values()
    assert full["AdamW"] == pytest.approx(12 * 6.738415616) and sum(full.values()) > 80 > sum(lora.values())
    assert scaling.hours()["8"] == pytest.approx(2 * scaling.hours()["4"])


# --- with a real Slurm -----------------------------------------------------------------------------


@needs_slurm
def test_a_job_that_takes_more_memory_than_it_asked_for_is_ended(tmp_path):
    greedy = (
        f'{sys.executable} -c \'import time; x = bytearray(600 * 2**20); time.sleep(60); open("end", "w")\''
    )
    words = ["sbatch", "--wait", "--mem=100", "--output=/dev/null", f"--chdir={tmp_path}", f"--wrap={greedy}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0 and not (tmp_path / "end").exists()


@needs_slurm
@pytest.mark.timeout(1800)
def test_a_call_killed_on_slurm_is_finished_by_the_next_one(root, monkeypatch):
    """Its jobs stay in the queue; the next call ends them before it starts them again: a folder has one writer."""
    grid = root / "data" / "experiments" / "toy.toml"
    text = grid.read_text().replace("seed = [0, 1, 2]", "seed = [0]").replace("[10, 20]", "[10]")
    grid.write_text(text, encoding="utf-8")
    (root / "Snakefile").write_bytes((ROOT / "Snakefile").read_bytes())
    experiment = experiments.load("toy").at("laptop")
    for block in experiment.blocks():
        toy.run(experiment, block)
    experiment.blocks()[0].out.parent.rename(root / "prepared")
    worker = root / "worker.sh"
    worker.write_text(SLEEPER + WORKER.removeprefix("#!/bin/bash\n"), encoding="utf-8")
    worker.chmod(worker.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("INSTRUCTLAB_PYTHON", str(worker))
    (root / "slow").touch()
    code = "from instructlab_repro.engine import snakemake; snakemake.run_graph(['toy'], 'laptop', 2, executor='slurm')"
    first = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    deadline = time.monotonic() + 900
    while not ((root / "sleeping").exists() and (root / "build/runs/toy/laptop/tune-a/done").exists()):
        assert time.monotonic() < deadline and first.poll() is None
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    sleeper = int((root / "sleeping").read_text())
    os.kill(sleeper, 0)  # the job goes on without its call
    (root / "slow").unlink()
    result = snakemake.run_graph(["toy"], "laptop", 2, executor="slurm")
    with pytest.raises(ProcessLookupError):
        os.kill(sleeper, 0)
    assert {job.name: job.status for job in result.ran} == {
        "toy/tune-b": "ok",
        "toy/a-n10-s0": "ok",
        "toy/b-n10-s0": "ok",
    }
    assert sorted((root / "calls.txt").read_text().split()) == [
        "a-n10-s0",
        "b-n10-s0",
        "tune-a",
        "tune-b",
        "tune-b",
    ]


@needs_slurm
@pytest.mark.timeout(3600)
def test_a_grid_through_slurm_gives_the_same_results_as_without(tmp_path):
    """Nine blocks with real models, two jobs at a time; see scripts/slurm_demo.py for what may differ."""
    report = demo.run(tmp_path)
    assert len(report.jobs) == len(report.block_bytes) == 9 and report.at_once == 2
    assert {job["State"] for job in report.jobs} == {"COMPLETED"}
    assert report.differences == []
    assert {Path(name).suffix for name in report.compared} == {".jsonl", ".parquet", ".md", ".csv", ".tex"}
