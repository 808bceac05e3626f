"""Two processes under accelerate's launcher (gloo, loopback) train the model that one process trains."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState
from accelerate.utils import reduce
from safetensors.torch import load_file, save_file
from test_training import invented, tiny

from instructlab_utils import training
from instructlab_utils.errors import TrainingError

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
STEPS = 8
# 21 sentences in fives: every fifth micro-batch has one row, so the second process has none of it.
SETTINGS: dict[str, Any] = dict(
    steps=STEPS,
    learning_rate=1e-3,
    pad_id=0,
    batch_size=5,
    recipe=training.Recipe(accumulation=2),
    seed=3,
    eval_every=2,
    save_every=3,
)
TYPES = {"float64": torch.float64, "float32": torch.float32}


def trained(
    folder: Path,
    dtype: torch.dtype = torch.float32,
    dropout: float = 0.0,
    start: int = 0,
    n: int = 21,
    **more: Any,
) -> tuple[Any, training.History]:
    net = tiny(dropout, start, dtype)
    return net, training.train(net, invented(n), dev=invented(12, 1), folder=folder, **SETTINGS, **more)


# --- what each of the two processes runs ------------------------------------------------------------------------------


def job(out: Path, part: str) -> None:
    processes = PartialState(cpu=True)
    rank, step = processes.process_index, training.training_step
    assert processes.num_processes == 2 and processes.backend == "gloo"
    if part == "kill":

        def fatal(*arguments: Any) -> tuple[float, float]:
            log = out / "cut" / "log.jsonl"
            if rank == 0 and log.exists() and log.read_bytes().count(b"\n") == 4:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(*arguments)

        training.training_step = fatal
    if part != "all":
        trained(out / "cut", dropout=0.1)
        return
    for name, dtype in TYPES.items():
        # Another start in each process: the main process's weights count.
        net, history = trained(out / name, dtype, start=rank)
        keep(out, f"{name}-{rank}", net, history)
    net, history = trained(out / "calm", dropout=0.1)
    keep(out, f"dropout-{rank}", net, history)
    trained(out / "two began", torch.float64, until=4)
    net, history = trained(out / "one began", torch.float64, start=7)
    keep(out, f"two finished-{rank}", net, history)

    def naive(
        shared: Any, optimizer: Any, micro: Any, rate: float, max_norm: float, _: Any
    ) -> tuple[float, float]:
        """A mean over the own rows in each process, then torch's average of the gradients."""
        mine = [{key: value[shared.mine] for key, value in batch.items()} for batch in micro]
        loss, norm = step(shared.replica, optimizer, mine, rate, max_norm)
        return reduce(torch.tensor(loss, dtype=torch.float64)).item(), norm

    training.training_step = naive
    net, history = trained(out / "naive", torch.float64, n=20)  # four micro-batches of five
    keep(out, f"naive-{rank}", net, history)
    with pytest.raises(TrainingError, match="see different examples or settings"):
        trained(out / "mixed", n=21 + rank)
    with pytest.raises(TrainingError, match="see different checkpoints"):
        trained(out / ("calm" if rank == 0 else "elsewhere"), dropout=0.1)
    with pytest.raises(TrainingError, match="another process cannot begin" if rank else "holds a run with"):
        trained(out / ("calm" if rank == 0 else "mixed"), dropout=0.2)
    (out / f"refused-{rank}").touch()


def keep(out: Path, name: str, net: Any, history: training.History) -> None:
    save_file(
        {key: value.contiguous() for key, value in net.state_dict().items()}, out / f"{name}.safetensors"
    )
    (out / f"{name}.json").write_text(json.dumps(asdict(history)))


# --- the comparison ---------------------------------------------------------------------------------------------------


def launch(script: str | Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    return subprocess.run(
        [*launcher, "--main_process_port", "0", script, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes left what :func:`job` computes."""
    out = tmp_path_factory.mktemp("two")
    trained(out / "one began", torch.float64, until=4)
    done = launch(__file__, out, "all")
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def results(out: Path, name: str) -> tuple[training.History, dict[str, torch.Tensor]]:
    history = training.History(**json.loads((out / f"{name}.json").read_text()))
    return history, load_file(out / f"{name}.safetensors")


def apart(ours: list[float], theirs: list[float]) -> float:
    """The largest relative difference."""
    return max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("name", "tolerance"), [("float64", 1e-9), ("float32", 1e-5)])
def test_two_processes_equal_one(two, tmp_path, name, tolerance):
    net, alone = trained(tmp_path, TYPES[name])
    history, weights = results(two, f"{name}-0")
    assert len(history.losses) == STEPS and history.rates == alone.rates
    assert apart(history.losses, alone.losses) <= tolerance
    assert apart(history.norms, alone.norms) <= tolerance
    assert [step for step, _ in history.dev] == [2, 4, 6, 8] and dict(history.dev) == dict(alone.dev)
    for key, value in net.state_dict().items():
        torch.testing.assert_close(weights[key], value, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["float64", "float32", "dropout"])
def test_all_processes_hold_the_same_bits(two, name):
    (first, weights), (second, others) = (results(two, f"{name}-{rank}") for rank in (0, 1))
    assert first == second and weights.keys() == others.keys()
    assert all(torch.equal(weights[key], others[key]) for key in weights)


def test_a_mean_of_the_processes_means_is_another_model(two, tmp_path):
    """So the tolerance above can fail: shares of three and two rows must not count alike."""
    _, alone = trained(tmp_path, torch.float64, n=20)
    history, _ = results(two, "naive-0")
    assert apart(history.losses[:1], alone.losses[:1]) > 1e-4  # before any update: the denominator alone
    assert apart(history.norms, alone.norms) > 1e-2


def test_only_the_main_process_writes(two):
    for name in ("float64", "float32", "calm"):
        lines = (two / name / "log.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == list(range(1, STEPS + 1))
        found = sorted(path.name for path in (two / name).iterdir())
        assert found == ["best.safetensors", "latest.json", "log.jsonl", f"step-{STEPS:06d}"]


def test_processes_that_see_different_examples_or_checkpoints_are_refused(two):
    assert (two / "refused-0").exists() and (two / "refused-1").exists()


def test_killed_and_resumed_equals_undisturbed(two, tmp_path):
    """SIGKILL for the main process in update 5, the last checkpoint after update 3; dropout on; bytes compared."""
    assert launch(__file__, tmp_path, "kill").returncode != 0
    assert json.loads((tmp_path / "cut" / "latest.json").read_text())["step"] == 3
    done = launch(__file__, tmp_path, "resume")
    assert done.returncode == 0, done.stderr[-3000:]
    files = [path.relative_to(two / "calm") for path in (two / "calm").rglob("*") if path.is_file()]
    assert len(files) == 6  # the best weights twice, for the run and for its checkpoint
    for path in files:
        assert (tmp_path / "cut" / path).read_bytes() == (two / "calm" / path).read_bytes(), path


def test_another_number_of_processes_finishes_the_run(two, tmp_path):
    _, alone = trained(tmp_path, torch.float64)
    _, one_finished = trained(two / "two began", torch.float64, start=7)
    two_finished, _ = results(two, "two finished-0")
    for history in (one_finished, two_finished):
        assert len(history.losses) == STEPS and dict(history.dev) == dict(alone.dev)
        assert apart(history.losses, alone.losses) <= 1e-9 and apart(history.norms, alone.norms) <= 1e-9


def test_the_script_prints_once_what_it_logs(tmp_path):
    sizes = ("--n-train", "20", "--steps", "2", "--batch-size", "8")
    done = launch("scripts/train.py", *sizes, "--out", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    *printed, accuracy = done.stdout.splitlines()
    assert printed == [f"update {step:4d}: loss {loss:.6f}" for step, loss in enumerate(losses, start=1)]
    assert len(losses) == 2 and accuracy.startswith("accuracy on dev, 200 sentences: ")


if __name__ == "__main__":
    job(Path(sys.argv[1]), sys.argv[2])
