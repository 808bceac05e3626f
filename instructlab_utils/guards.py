"""What training and its scores refuse, before anything is changed: labels that are no classes, weights too narrow to learn.

From lesson 03 on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from instructlab_utils.errors import TrainingError


def whole_label(value: Any, where: str) -> int:
    """``value`` as an int; TrainingError for 0.7, "1" or None, which ``int`` would cut, guess or not take."""
    try:
        label = int(value)
    except (TypeError, ValueError, OverflowError):
        label = None
    if label is None or not label == value:
        raise TrainingError(f"{where}: the label is {value!r}, and a class is a whole number")
    return label


def must_fit(model: nn.Module, examples: Sequence[dict[str, Any]]) -> None:
    """TrainingError where an example has more tokens than ``model`` has positions; nothing is cut without a word."""
    window = getattr(getattr(model, "config", None), "max_position_embeddings", None) or math.inf
    window -= getattr(model, "virtual_positions", 0)  # a soft prompt's
    for number, example in enumerate(examples):
        if (length := len(example.get("input_ids", ()))) > window:
            raise TrainingError(
                f"row {number} has {length} tokens, the model reads at most {window}: cut it before"
            )


def must_be_trainable(
    model: nn.Module,
    examples: Sequence[dict[str, Any]],
    dev: Sequence[dict[str, Any]] | None,
    classes: bool,
) -> None:
    """TrainingError where ``train`` cannot begin.

    With ``classes`` the labels of ``examples``, alone or in lists, are class indices or -100; those of ``dev`` are class
    indices.
    """
    if not examples:
        raise TrainingError("train() got no examples: the split or the subsample is empty")
    if dev is not None and not dev:
        raise TrainingError("train() got an empty dev split: leave dev out, or give it examples")
    must_fit(model, [*examples, *(dev or ())])
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.dtype == torch.float16:
            raise TrainingError(
                f"{name} is float16, where AdamW's squares of small gradients become 0: call model.float() before training"
            )
    for split, rows, masked in (("examples", examples if classes else (), True), ("dev", dev or (), False)):
        for number, row in enumerate(rows):
            labels = row["labels"] if masked and isinstance(row["labels"], list) else [row["labels"]]
            for label in labels:
                if not isinstance(label, int):
                    raise TrainingError(
                        f"{split}, row {number}: the label is {label!r}, and a class is an int"
                    )
                if label < 0 and not (masked and label == -100):
                    raise TrainingError(
                        f"{split}, row {number}: the label is {label}, and a class is 0 or more; leave such rows out"
                    )


def share_of_hits(logits: Tensor, targets: Sequence[int], split: str) -> float:
    """How often the largest of the logits (N, K) is the target. TrainingError for NaN, and targets that are no class."""
    if logits.isnan().any():  # argmax would call the first NaN the winner
        raise TrainingError(f"logits of {split} examples are NaN: nothing is predicted by them")
    classes = torch.tensor(targets)
    if classes.shape != logits.shape[:1] or not 0 <= classes.min() <= classes.max() < logits.shape[-1]:
        raise TrainingError(
            f"{split}: need one label from 0 to {logits.shape[-1] - 1} for each row of logits"
        )
    return (logits.argmax(-1) == classes).double().mean().item()
