"""A training run's log in a second program while it runs: TensorBoard, or Weights & Biases without its servers.

INSTRUCTLAB_LOG_TO=tensorboard or wandb (or both, with a comma) switches it on for every :func:`training.train`; without it
nothing is imported. All runs lie in build/curves. The log of lesson 03, section 5, stays as it is.

From lesson 03 on.
"""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from instructlab_utils.errors import ParameterError
from instructlab_utils.project import clone, closest

SWITCH = "INSTRUCTLAB_LOG_TO"
Sink = Callable[[dict[str, float], int], None]  # scalars by name, and the update after which they hold
_numbers = itertools.count(1)


def _tensorboard(place: Path, first: int) -> Sink:
    from torch.utils.tensorboard import SummaryWriter

    # a run that was cut off goes on: what it had written of later updates is dropped
    writer = SummaryWriter(str(place), purge_step=first)

    def log(scalars: dict[str, float], step: int) -> None:
        for name, value in scalars.items():
            writer.add_scalar(name, value, step)
        writer.flush()  # nobody closes the writer of a run that is killed

    return log


def _wandb(place: Path, first: int) -> Sink:
    wandb = importlib.import_module("wandb")  # in no list of ours: whoever wants it has it
    place.mkdir(parents=True, exist_ok=True)
    run = wandb.init(
        project="instructlab", name=place.name, dir=str(place), mode="offline", reinit="create_new"
    )
    return lambda scalars, step: run.log(scalars, step=step)


KINDS: dict[str, Callable[[Path, int], Sink]] = {"tensorboard": _tensorboard, "wandb": _wandb}


def wanted() -> list[str]:
    """What the switch names. ParameterError, with the known names, for another word."""
    names = [name.strip() for name in os.environ.get(SWITCH, "").split(",") if name.strip()]
    for name in names:
        if name not in KINDS:
            raise ParameterError(
                f"{SWITCH}={name}{closest(name, list(KINDS))}: choose of {', '.join(KINDS)}, or unset it"
            )
    return names


def place_of(folder: Path | None) -> Path:
    """Where a run's curves go: build/curves, then the run's folder below build, or the notebook that trains and a number."""
    base = (clone() or Path.cwd()).resolve() / "build"
    if folder is not None and folder.resolve().is_relative_to(base):
        return base / "curves" / folder.resolve().relative_to(base)
    who = Path(
        os.environ.get("INSTRUCTLAB_RUN_DIR") or f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{os.getpid()}"
    ).name
    return base / "curves" / who / f"{next(_numbers):03}"


def mirror(folder: Path | None) -> Callable[[dict[str, Any]], None]:
    """A function that passes each line of the run's log on to what the switch names, from the first line on.

    ParameterError for an unknown name, or a package that is not installed.
    """
    names, sinks = wanted(), list[Sink]()

    def log(entry: dict[str, Any]) -> None:
        step = entry["step"]
        if names and not sinks:
            place = place_of(folder)
            for name in names:
                try:
                    sinks.append(KINDS[name](place, step))
                except ImportError as error:
                    do = f"`pip install {name}`, or unset the variable"
                    raise ParameterError(
                        f"{SWITCH}={name}: the package is not installed ({error.name}); {do}"
                    ) from None
        for sink in sinks:
            sink({name: value for name, value in entry.items() if name != "step"}, step)

    return log
