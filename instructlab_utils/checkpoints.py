"""What a training run leaves on the disk: a log, the best weights, a checkpoint; safetensors and JSON only.

Taught in lesson 03, section 5. A kill at any moment leaves the old file or the new one, never half of one, and the same
call of ``training.train`` resumes to the same bits.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from instructlab_utils.errors import TrainingError
from instructlab_utils.files import dumps, read_lines, write_json, write_lines

Weights = dict[str, Tensor]


def copied(tensors: Weights) -> Weights:
    """Copies that share no memory: safetensors refuses tied tensors, and a checkpoint must not change later."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


def save_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Write model, optimiser moments, random state and ``state``, then remove the checkpoint before.

    A fresh folder is filled, and then named in ``latest.json`` by one atomic rename. ``state["step"]`` is the number of
    updates made. Source: lesson 03, section 5.
    """
    name = step_name(state["step"])
    _write_tensors(folder / name, model, optimizer)
    write_json(folder / "latest.json", {"folder": name, **state})
    remove_others(folder, name)


def _write_tensors(place: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    from safetensors.torch import save_file

    temporary = place.with_suffix(".tmp")
    for old in (temporary, place):
        shutil.rmtree(old, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(copied(model.state_dict()), temporary / "model.safetensors")
    moments: Weights = {"random_state": torch.get_rng_state()}
    for index, entry in optimizer.state_dict()["state"].items():
        moments |= {f"{index}.{key}": torch.as_tensor(value) for key, value in entry.items()}
    save_file(copied(moments), temporary / "optimizer.safetensors")
    os.replace(temporary, place)


def step_name(step: int) -> str:
    """The folder of the checkpoint after ``step`` updates."""
    return f"step-{step:06d}"


def remove_others(folder: Path, name: str) -> None:
    """Remove all checkpoints but ``name``, also half-written ones."""
    for old in folder.glob("step-*"):
        if old.name != name:
            shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any] | None:
    """Restore what :func:`save_checkpoint` wrote, in place, and return its ``state``; None where there is none.

    TrainingError, with the folder and the fix, where the checkpoint belongs to another model or is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (folder / "latest.json").exists():
        return None
    try:
        state = json.loads((folder / "latest.json").read_text(encoding="utf-8"))
        place = folder / state["folder"]
        model.load_state_dict(load_file(place / "model.safetensors"))
        moments = load_file(place / "optimizer.safetensors")
        random_state = moments.pop("random_state")
        entries: dict[int, Weights] = {}
        for name, tensor in moments.items():
            index, key = name.split(".", 1)
            entries.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})
        torch.set_rng_state(random_state)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(
            f"{folder}: this checkpoint cannot be resumed ({reason}); delete the folder to start again"
        ) from error
    return state


@dataclass
class History:
    """What a training run did: the loss of every update, the dev scores, and where the best one was. Lesson 03, section 5."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    dev: list[tuple[int, float]] = field(default_factory=list)
    best_step: int = 0
    best_score: float = -math.inf
    stopped_early: bool = False

    def add(self, loss: float, norm: float, rate: float) -> dict[str, Any]:
        """Note one update; returns its line of the log. TrainingError for a loss that is no number."""
        step = len(self.losses) + 1
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} at update {step}: lower the learning rate or look at that batch"
            )
        self.losses.append(loss)
        self.norms.append(norm)
        self.rates.append(rate)
        return {"step": step, "loss": loss, "norm": norm, "rate": rate}

    def look(self, score: float, wait: int) -> bool:
        """Note a dev score; True for the best so far. ``wait`` updates without a better one stop the run (0: never)."""
        step, better = len(self.losses), score > self.best_score
        self.dev.append((step, score))
        if better:
            self.best_step, self.best_score = step, score
        self.stopped_early = not better and 0 < wait <= step - self.best_step
        return better


class RunFolder:
    """The folder of one run: ``log.jsonl``, ``best.safetensors``, and the checkpoint that ``latest.json`` names.

    Every process reads it, only one that ``writes`` changes it. With ``folder=None`` nothing is read or written, and the
    best weights are kept in memory alone. Source: lesson 03, section 5.
    """

    def __init__(self, folder: Path | None, writes: bool = True) -> None:
        self.read_from, self.write_to = folder, folder if writes else None
        self.best: Weights | None = None
        if self.write_to is not None:
            self.write_to.mkdir(parents=True, exist_ok=True)
            for left in self.write_to.glob(".*.tmp"):  # of a write that a kill cut short
                left.unlink()

    def resume(self, model: nn.Module, optimizer: torch.optim.Optimizer, seed: int, steps: int) -> History:
        """Restore the last checkpoint and remove what was written after it; an empty history where there is none.

        TrainingError for a checkpoint of another run: another ``seed`` or number of ``steps``.
        """
        from safetensors.torch import load_file

        folder, history = self.read_from, History()
        if folder is None:
            return history
        if state := load_checkpoint(folder, model, optimizer):
            if (state["seed"], state["steps"]) != (seed, steps):
                raise TrainingError(
                    f"{folder}: holds a run with seed {state['seed']} and {state['steps']} steps, not {seed} and {steps}; "
                    "choose another folder or delete it"
                )
            history = History(**state["history"])
            self.best = load_file(folder / "best.safetensors") if history.best_step else None
        if self.write_to is not None:
            done = len(history.losses)
            if (log := folder / "log.jsonl").exists():  # a resumed log equals an undisturbed one
                write_lines(log, [entry for entry in read_lines(log) if entry["step"] <= done])
            remove_others(folder, step_name(done))
        return history

    def log(self, entry: dict[str, Any]) -> None:
        """Append what one update did."""
        if self.write_to is not None:
            with (self.write_to / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(dumps(entry) + "\n")

    def save(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, seed: int, steps: int, history: History
    ) -> None:
        """:func:`save_checkpoint`, where this process writes."""
        if self.write_to is not None:
            state = {"step": len(history.losses), "steps": steps, "seed": seed, "history": asdict(history)}
            save_checkpoint(self.write_to, model, optimizer, state)

    def keep_best(self, model: nn.Module) -> None:
        """These weights are the best so far."""
        from safetensors.torch import save_file

        self.best = copied(model.state_dict())
        if self.write_to is not None:
            save_file(self.best, self.write_to / "best.safetensors.tmp")
            os.replace(self.write_to / "best.safetensors.tmp", self.write_to / "best.safetensors")

    def restore_best(self, model: nn.Module) -> None:
        """Give ``model`` the best weights, where any were kept."""
        if self.best is not None:
            model.load_state_dict(self.best)


def to_tensorboard(folder: Path, events: Path) -> None:
    """Write the log in ``folder`` as TensorBoard's event files into ``events``; it needs the package ``tensorboard``.

    Lesson 03, section 5.
    """
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(events)) as writer:
        for entry in read_lines(folder / "log.jsonl"):
            step = entry.pop("step")
            for name, value in entry.items():
                writer.add_scalar(name, value, step)
