"""One training run in several processes (``accelerate launch``): the same batches, the same weights, the same results.

Each process computes a share of every micro-batch; only the main one writes. With dropout each draws its own masks, so one
and several processes then agree in distribution only. Taught in lesson 03, section 3: the denominator of a whole batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, gather, reduce
from torch import Tensor, nn

from instructlab_utils.errors import TrainingError
from instructlab_utils.files import dumps


def agree(
    done: int, run: Mapping[str, Any], refused: TrainingError | None, folder: Path | None, device: torch.device
) -> None:  # fmt: skip
    """TrainingError, in all processes, unless all train the same ``run``, and have made ``done`` updates of it.

    What one process has ``refused`` is raised there, and the others do not wait for it.
    """
    number = int.from_bytes(hashlib.sha256(dumps(run).encode()).digest()[:7], "big")
    found = gather(torch.tensor([[number, done, refused is not None]], device=device))
    if refused is not None:
        raise refused
    if found[:, 2].any():
        raise TrainingError(f"{folder}: another process cannot begin; its message says why")
    if len(found[:, 0].unique()) > 1:
        raise TrainingError("the processes see different examples or settings: use the same seed in each")
    if len(found[:, 1].unique()) > 1:
        raise TrainingError(
            f"{folder}: the processes see different checkpoints; name a folder on a disk that all of them share"
        )


def main_score(score: float, device: torch.device) -> float:
    """The main process's ``score``: it counts for all, so that all stop together."""
    return broadcast(torch.tensor(score, dtype=torch.float64, device=device)).item()


class Shared(nn.Module):
    """``model`` in several processes: each computes its rows of a batch (every W-th) and receives the logits of the others.

    So each process sees the loss of the whole batch, with its true denominator. The gradient of a sum is the sum of the
    processes' gradients, but torch's wrapper *averages* them: hence the factor W. A share may be empty: its gradient is 0.
    """

    def __init__(self, model: nn.Module, processes: PartialState) -> None:
        super().__init__()
        self.replica = nn.parallel.DistributedDataParallel(model)  # takes the main process's weights
        self.processes = processes.num_processes
        self.mine = slice(processes.process_index, None, self.processes)

    def forward(self, **inputs: Tensor) -> Any:
        """The replica's output, with the logits of all rows, (B, …), of which only this process's carry gradients."""
        size = len(inputs["input_ids"])
        rows = self.mine if self.mine.start < size else slice(1)  # models want a row, also where none is ours
        output = self.replica(**{name: tensor[rows] for name, tensor in inputs.items()})
        logits = output.logits.new_zeros(size, *output.logits.shape[1:])
        ours = output.logits[: len(logits[self.mine])]
        ours.register_hook(lambda gradient: gradient * self.processes)
        logits[self.mine] = ours.detach()
        logits = reduce(logits, "sum")
        logits[self.mine] = ours
        output.logits = logits
        return output
