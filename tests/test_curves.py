"""INSTRUCTLAB_LOG_TO: a training run's log in TensorBoard or an offline W&B run; without it nothing is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from test_training import invented, tiny

from instructlab_utils import curves, training
from instructlab_utils.errors import ParameterError

ROOT = Path(__file__).resolve().parents[1]


def run(folder: Path | None = None, **settings: Any) -> dict[str, torch.Tensor]:
    """Four updates; the weights at the end."""
    net = tiny(0.1)
    training.train(
        net, invented(8), **{"steps": 4, "learning_rate": 1e-3, "pad_id": 0, "folder": folder} | settings
    )
    return net.state_dict()


def scalars(folder: Path) -> dict[str, list[int]]:
    """Name → steps, from the event files in ``folder``."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = events.EventAccumulator(str(folder))
    found.Reload()
    return {name: [one.step for one in found.Scalars(name)] for name in found.Tags()["scalars"]}


def test_without_the_switch_nothing_is_imported_or_written(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(curves.SWITCH, raising=False)
    curves.mirror(None)({"step": 1, "loss": 0.5})
    assert not (project / "build").exists()
    code = "import sys; from instructlab_utils import training; print({'tensorboard', 'wandb'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.parametrize("inside", [True, False])
def test_tensorboard_gets_each_update_and_the_run_stays_the_same(
    project: Path, monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    monkeypatch.setenv(curves.SWITCH, "tensorboard")
    monkeypatch.setenv("INSTRUCTLAB_RUN_DIR", str(project / "build/smoke/03_loop"))
    folder, looks = (
        project / ("build/train/a" if inside else "elsewhere"),
        {"dev": invented(4), "eval_every": 2},
    )
    shown = run(folder, **looks)
    monkeypatch.delenv(curves.SWITCH)
    plain = run(project / "plain", **looks)
    assert all(torch.equal(shown[name], plain[name]) for name in plain)
    assert (folder / "log.jsonl").read_bytes() == (project / "plain/log.jsonl").read_bytes()
    (place,) = {path.parent for path in project.rglob("events*")}
    assert place.parent == project / "build/curves" / ("train" if inside else "03_loop")
    assert scalars(place) == {n: [1, 2, 3, 4] for n in ("loss", "norm", "rate")} | {"dev_accuracy": [2, 4]}


def test_a_run_without_a_folder_is_named_by_its_notebook(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(curves.SWITCH, "tensorboard")
    monkeypatch.setenv("INSTRUCTLAB_RUN_DIR", str(project / "build/smoke/09_lora"))
    run()
    run()
    places = sorted({path.parent for path in (project / "build/curves").rglob("events*")})
    assert [place.parent.name for place in places] == ["09_lora"] * 2
    assert [scalars(place)["loss"] for place in places] == [[1, 2, 3, 4]] * 2


def test_a_run_that_is_taken_up_again_has_each_update_once(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(curves.SWITCH, "tensorboard")
    for until in (3, None):  # the checkpoint is that of the second update: the third is made twice
        run(project / "build/cut", save_every=2, until=until)
    assert scalars(project / "build/curves/cut")["loss"] == [1, 2, 3, 4]


def test_wandb_never_leaves_the_machine(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    fake = ModuleType("wandb")
    fake.init = lambda **how: told.append(how) or SimpleNamespace(log=lambda *a, **k: told.append((a, k)))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv(curves.SWITCH, "wandb")
    monkeypatch.setenv("WANDB_MODE", "online")
    run(project / "build/w")
    assert told[0]["mode"] == "offline" and told[0]["dir"] == str(project / "build/curves/w")
    assert [k["step"] for _, k in told[1:]] == [1, 2, 3, 4] and set(told[1][0][0]) == {"loss", "norm", "rate"}


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "tensorbord",
            r"INSTRUCTLAB_LOG_TO=tensorbord, did you mean 'tensorboard'\?: choose of tensorboard, wandb",
        ),
        ("wandb", r"INSTRUCTLAB_LOG_TO=wandb: the package is not installed \(wandb\); `pip install wandb`"),
    ],
)
def test_a_wrong_word_and_an_absent_package_are_one_sentence(
    project: Path, monkeypatch: pytest.MonkeyPatch, word: str, said: str
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setenv(curves.SWITCH, word)
    with pytest.raises(ParameterError, match=said):
        run()
