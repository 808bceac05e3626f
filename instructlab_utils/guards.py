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


def positions(model: nn.Module) -> float:
    """How many tokens ``model`` reads, beside a soft prompt's; infinite where no table of positions limits it.

    XLNet's configuration says -1; Falcon with ALiBi and DeBERTa name a number that binds nothing. RoBERTa's positions begin
    behind its padding's id: of 514 rows 512 can be used.
    """
    config = getattr(model, "config", None)
    limit = getattr(config, "max_position_embeddings", None) or math.inf
    if limit < 0 or getattr(config, "alibi", False) or not getattr(config, "position_biased_input", True):
        return math.inf
    for name, table in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(table, nn.Embedding) and table.padding_idx:
            limit = table.num_embeddings - table.padding_idx - 1
    return limit - getattr(model, "virtual_positions", 0)


def must_fit(model: nn.Module, examples: Sequence[dict[str, Any]]) -> None:
    """TrainingError where an example has more tokens than ``model`` has positions; nothing is cut without a word."""
    window = positions(model)
    for number, example in enumerate(examples):
        if (length := len(example.get("input_ids", ()))) > window:
            raise TrainingError(f"row {number} has {length} tokens, the model reads at most {window}: cut it")


def must_be_trainable(
    model: nn.Module, examples: Sequence[dict[str, Any]], dev: Sequence[dict[str, Any]] | None, classes: bool
) -> None:
    """TrainingError where ``train`` cannot begin.

    With ``classes`` the labels of ``examples``, alone or in lists, are class indices or -100; those of ``dev`` are class
    indices. Integers of NumPy and torch will do.
    """
    if not len(examples):
        raise TrainingError("train() got no examples: the split or the subsample is empty")
    if dev is not None and not len(dev):
        raise TrainingError("train() got an empty dev split: leave dev out, or give it examples")
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.dtype == torch.float16:
            raise TrainingError(
                f"{name} is float16, where AdamW's squares of small gradients become 0: call model.float() before training"
            )
    for split, rows, masked in (("examples", examples, True), ("dev", dev or (), False)):
        must_fit(model, rows)
        for number, row in enumerate(rows if classes or not masked else ()):
            found = row["labels"]
            for label in found if masked and isinstance(found, list) else [found]:
                label = label.item() if getattr(label, "ndim", None) == 0 else label
                if not isinstance(label, int) or (label < 0 and not (masked and label == -100)):
                    raise TrainingError(
                        f"{split}, row {number}: the label is {label!r}, and a class is an int, 0 or more: mend the row"
                    )


def share_of_hits(logits: Tensor, targets: Sequence[int], split: str) -> float:
    """How often the largest of the logits (N, K) is the target. TrainingError for NaN, and targets that are no class."""
    if logits.isnan().any():  # argmax would call the first NaN the winner
        raise TrainingError(f"logits of {split} examples are NaN: nothing is predicted by them")
    classes = torch.tensor(targets)
    if classes.shape != logits.shape[:1] or not 0 <= classes.min() <= classes.max() < logits.shape[-1]:
        raise TrainingError(f"{split}: need one label from 0 to {logits.shape[-1] - 1} for each row")
    return (logits.argmax(-1) == classes).double().mean().item()
