"""What a training run leaves on the disk: a log, the best weights, a checkpoint; safetensors and JSON only.

Taught in lesson 03, section 5. A kill or a power cut at any moment leaves the old file or the new one, never half of one,
and the same call of ``training.train`` resumes to the same bits. Another call is refused.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from instructlab_utils.curves import mirror
from instructlab_utils.distributed import agree, main_score
from instructlab_utils.errors import TrainingError
from instructlab_utils.files import (
    drop_stale,
    dumps,
    make_folder,
    read_lines,
    sync,
    sync_folder,
    write_json,
    write_lines,
    write_with,
)
from instructlab_utils.identity import must_be_the_same

Weights = dict[str, Tensor]
LATEST, LOG, BEST = "latest.json", "log.jsonl", "best.safetensors"
MODEL, OPTIMIZER = "model.safetensors", "optimizer.safetensors"


def copied(tensors: Weights) -> Weights:
    """Copies that share no memory: safetensors refuses tied tensors, and a checkpoint must not change later."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


def must_be_finite(model: nn.Module, step: int, optimizer: torch.optim.Optimizer | None = None) -> None:
    """TrainingError where a trained weight, or a moment of it in ``optimizer``, is infinite or NaN after update ``step``."""
    numbers = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if optimizer is not None:
        numbers |= {f"the optimiser's {name}": tensor for name, tensor in _moments(optimizer).items()}
    for name, tensor in numbers.items():
        if not tensor.isfinite().all():
            raise TrainingError(
                f"the loss is finite, but {name} is not after update {step}: lower the learning rate (nothing was saved)"
            )


def save_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any], best: Path | None = None
) -> None:  # fmt: skip
    """Write model, optimiser moments, random states and ``state``, and then remove the checkpoint before.

    A fresh folder is filled, flushed to the disk, read back and compared, and then named in ``latest.json`` by one atomic
    rename: until then the old checkpoint stands. ``state["step"]`` is the number of updates made; the file ``best`` goes
    along. Source: lesson 03, section 5.

    Raises TrainingError where a trained weight is not finite, or the disk does not hold what was written.
    """
    must_be_finite(model, state["step"], optimizer)
    tensors = {MODEL: copied(model.state_dict()), OPTIMIZER: copied(_moments(optimizer) | random_states())}
    name = step_name(state["step"])
    if _latest(folder) == name:  # a second save after the same update: the first one stands meanwhile
        name += "-again"
    _write_tensors(folder / name, tensors, best)
    if not _holds(folder / name, tensors):
        shutil.rmtree(folder / name, ignore_errors=True)
        raise TrainingError(
            f"{folder / name}: what was read back is not what was written, so the checkpoint before is kept; look at the disk"
        )
    write_json(folder / LATEST, {"folder": name, **state})
    if _latest(folder) != name:
        raise TrainingError(f"{folder / LATEST}: does not hold what was written; look at the disk")
    remove_others(folder, name)


def _moments(optimizer: torch.optim.Optimizer) -> Weights:
    entries = optimizer.state_dict()["state"].items()
    return {f"{i}.{key}": torch.as_tensor(value) for i, entry in entries for key, value in entry.items()}


def random_states() -> Weights:
    """The states of torch's generators: of the CPU, and of every CUDA device where there is one (dropout draws there)."""
    states = {"random_state": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda_random_state.{i}": s for i, s in enumerate(torch.cuda.get_rng_state_all())}
    return states


def _restore_random_states(tensors: Weights) -> None:
    """Take the states out of ``tensors`` and set them, those of CUDA for the devices that are here too: one computes."""
    torch.set_rng_state(tensors.pop("random_state"))
    names = [n for n in tensors if n.startswith("cuda_random_state.")]
    states = {int(name.split(".")[1]): tensors.pop(name) for name in names}
    for i in set(states) & set(range(torch.cuda.device_count() if torch.cuda.is_available() else 0)):
        torch.cuda.set_rng_state(states[i], i)


def _write_tensors(place: Path, tensors: dict[str, Weights], best: Path | None) -> None:
    """The files of a checkpoint, durable, in a folder that gets its name when it is complete."""
    temporary = place.with_suffix(".tmp")
    for old in (temporary, place):  # left by a kill: ``latest.json`` names neither
        shutil.rmtree(old, ignore_errors=True)
    for name, content in tensors.items():
        write_with(temporary / name, partial(_save_file, content))
    if best is not None:  # a second name for the file: it is never changed, only replaced
        try:
            os.link(best, temporary / BEST)
        except OSError:
            write_with(temporary / BEST, partial(shutil.copyfile, best))
    sync_folder(temporary)
    os.replace(temporary, place)
    sync_folder(place.parent)


def _save_file(tensors: Weights, place: Path) -> None:
    from safetensors.torch import save_file

    save_file(tensors, place)


def _holds(place: Path, tensors: dict[str, Weights]) -> bool:
    """Whether the files in ``place``, read back, are ``tensors``, bit for bit."""
    from safetensors import SafetensorError, safe_open

    try:
        for name, wanted in tensors.items():
            with safe_open(place / name, "pt") as found:
                if set(found.keys()) != wanted.keys():
                    return False
                if not all(_same_bits(found.get_tensor(key), tensor) for key, tensor in wanted.items()):
                    return False
    except (OSError, SafetensorError):
        return False
    return True


def _same_bits(a: Tensor, b: Tensor) -> bool:
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    return torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


def step_name(step: int) -> str:
    """The folder of the checkpoint after ``step`` updates."""
    return f"step-{step:06d}"


def remove_others(folder: Path, name: str) -> None:
    """Remove all checkpoints but ``name``, also half-written ones."""
    for old in folder.glob("step-*"):
        if old.name != name:
            shutil.rmtree(old, ignore_errors=True)


def named(folder: Path) -> dict[str, Any] | None:
    """What ``latest.json`` says of the run in ``folder``; None without one. TrainingError for a damaged one."""
    try:
        return json.loads((folder / LATEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _damaged(folder, error) from error


def _latest(folder: Path) -> str | None:
    return (named(folder) or {}).get("folder")


def _damaged(folder: Path, error: Exception) -> TrainingError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return TrainingError(
        f"{folder}: this checkpoint cannot be resumed ({reason}); delete the folder to start again"
    )


def load_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any] | None:
    """Restore what :func:`save_checkpoint` wrote, in place, and return its ``state``; None where there is none.

    TrainingError, with the folder and the fix, where the checkpoint belongs to another model or is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if (state := named(folder)) is None or state["folder"] is None:
        return None
    try:
        place = folder / state["folder"]
        moments = load_file(place / OPTIMIZER)  # both are read before anything is changed
        model.load_state_dict(load_file(place / MODEL))
        _restore_random_states(moments)
        entries: dict[int, Weights] = {}
        for name, tensor in moments.items():
            index, key = name.split(".", 1)
            entries.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise _damaged(folder, error) from error
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
        """Note one update; returns its line of the log."""
        step = len(self.losses) + 1
        self.losses.append(loss)
        self.norms.append(norm)
        self.rates.append(rate)
        return {"step": step, "loss": loss, "norm": norm, "rate": rate}

    def look(self, score: float, wait: int) -> bool:
        """Note a dev score; True for the best so far. ``wait`` updates without a better one stop the run (0: never).

        TrainingError for a score that compares with none (NaN) or that none can beat (infinity).
        """
        step, better = len(self.losses), score > self.best_score
        if not score < math.inf:
            raise TrainingError(
                f"the dev score is {score} after update {step}: nothing can be chosen by it; look at what evaluate returns"
            )
        self.dev.append((step, score))
        if better:
            self.best_step, self.best_score = step, score
        self.stopped_early = not better and 0 < wait <= step - self.best_step
        return better


class RunFolder:
    """The folder of one run: ``log.jsonl``, ``best.safetensors``, and ``latest.json``, which names run and checkpoint.

    Every process reads it, only one that ``writes`` changes it. With ``folder=None`` nothing is read or written, and the
    best weights are kept in memory alone. Source: lesson 03, section 5.
    """

    def __init__(self, folder: Path | None, writes: bool = True) -> None:
        self.read_from, self.write_to = folder, folder if writes else None
        self.best: Weights | None = None
        self.run: dict[str, Any] = {}
        self.mirror = mirror(folder) if writes else None
        if self.write_to is not None:
            make_folder(self.write_to)
            for name in (LATEST, LOG, BEST):
                drop_stale(self.write_to / name)  # of a write that a kill cut short

    def resume(self, model: nn.Module, optimizer: torch.optim.Optimizer, run: Mapping[str, Any]) -> History:
        """Restore the last checkpoint and remove what was written after it; an empty history where there is none.

        ``run`` says all that shapes it (:func:`instructlab_utils.identity.run_identity`). TrainingError for the folder of
        another run, and for one that does not say whose it is; also where processes do not find the same.
        """
        history, refused, self.run = History(), None, dict(run)
        try:
            if self.read_from is not None:
                history = self._resume(self.read_from, model, optimizer)
        except TrainingError as error:
            refused = error
        agree(len(history.losses), run, refused, self.read_from, next(model.parameters()).device)
        return history

    def _resume(self, folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> History:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        history = History()
        found = named(folder)
        if not found or (found["folder"] is None and not (folder / LOG).exists()):  # no update was made
            self._claim(folder)
        elif "run" not in found:
            raise TrainingError(
                f"{folder}: an older version wrote this checkpoint and did not note its settings, so nothing tells whether "
                "it is the same run; choose another folder or delete this one"
            )
        else:
            must_be_the_same(folder, found["run"], self.run)
        if state := load_checkpoint(folder, model, optimizer):
            history = History(**{k: v for k, v in state["history"].items() if v is not None})
            if history.best_step:
                best = folder / state["folder"] / BEST
                try:
                    self.best = load_file(best)
                except (OSError, SafetensorError) as error:
                    raise _damaged(folder, error) from error
                if self.write_to is not None:  # a kill may have left weights of a later update there
                    write_with(folder / BEST, partial(shutil.copyfile, best))
        if self.write_to is not None:
            done = len(history.losses)
            if (log := folder / LOG).exists():  # a resumed log equals an undisturbed one
                write_lines(log, [entry for entry in read_lines(log) if entry["step"] <= done])
            remove_others(folder, state["folder"] if state else "")
        return history

    def _claim(self, folder: Path) -> None:
        """Say whose folder this is, before anything else is written into it. TrainingError where it is somebody's."""
        others = [p.name for p in (folder / LOG, folder / BEST, *sorted(folder.glob("step-*"))) if p.exists()]
        if others:
            raise TrainingError(
                f"{folder}: holds {others[0]} but no {LATEST} to say of which run; choose another folder or delete this one"
            )
        if self.write_to is not None:
            write_json(folder / LATEST, {"folder": None, "step": 0, "run": self.run})

    def log(self, entry: dict[str, Any]) -> None:
        """Append what one update did."""
        if self.write_to is not None:
            with (self.write_to / LOG).open("a", encoding="utf-8") as log:
                log.write(dumps(entry) + "\n")
        if self.mirror is not None:
            self.mirror(entry)

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, history: History) -> None:
        """:func:`save_checkpoint`, where this process writes."""
        if self.write_to is not None:
            sync(self.write_to / LOG)  # a checkpoint without the log that it builds on would be no use
            best = self.write_to / BEST if history.best_step else None
            known = asdict(history) | {
                "best_score": history.best_score if best else None
            }  # JSON has no infinity
            state = {"step": len(history.losses), "run": self.run, "history": known}
            save_checkpoint(self.write_to, model, optimizer, state, best)

    def look(
        self, model: nn.Module, score: Callable[[nn.Module], float], history: History, wait: int
    ) -> float:
        """The dev score, noted in ``history``; the weights are kept if it is the best so far."""
        found = main_score(score(model), next(model.parameters()).device)
        model.train()
        if history.look(found, wait):
            self.keep_best(model, history.best_step)
        return found

    def keep_best(self, model: nn.Module, step: int) -> None:
        """These weights, after update ``step``, are the best so far."""
        must_be_finite(model, step)
        self.best = copied(model.state_dict())
        if self.write_to is not None:
            write_with(self.write_to / BEST, partial(_save_file, self.best))

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
        for entry in read_lines(folder / LOG):
            step = entry.pop("step")
            for name, value in entry.items():
                writer.add_scalar(name, value, step)
