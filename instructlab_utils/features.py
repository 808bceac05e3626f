"""Sentences as vectors, computed once: the mean states of the encoder, kept on disk, and the states below its upper layers.

A head on kept vectors trains in milliseconds, so fifty seeds cost minutes. Built in lesson 20, section 1.
"""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from instructlab_utils import cache, files, models, tasks, training
from instructlab_utils.arguments import listed
from instructlab_utils.augmentation import delete_words, words_of
from instructlab_utils.errors import TrainingError


def pooled(states: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens that are there: states (B, T, d), mask (B, T) of 0 and 1; returns (B, d). Lesson 20, section 1.

    Raises TrainingError for a text without a token.
    """
    counts = mask.sum(1, keepdim=True)
    if (counts == 0).any():
        raise TrainingError("a text without a token has no mean")
    return (states * mask[..., None]).sum(1) / counts


def mean_states(texts: Sequence[str], max_length: int = 24, dropout: int | None = None) -> Tensor:
    """The pre-trained encoder's :func:`pooled` states of the first ``max_length`` tokens, float32 of shape (N, 384).

    ``dropout`` is a seed: the same with the encoder's own dropout switched on. What was computed once is read from
    ``cache.home()/features``, under a name that depends on encoder, texts and arguments. Source: lesson 20, section 1.
    """
    said = listed(texts, "texts")
    told = [cache.pin(cache.entry(models.ROLES["encoder"])), max_length, dropout, *said]
    key = hashlib.sha256("\0".join(map(str, told)).encode()).hexdigest()[:24]
    kept = cache.home() / "features" / f"{key}.npy"
    if kept.exists():
        return torch.from_numpy(np.load(kept))
    encoder, tokenizer = models.load_encoder(), models.load_tokenizer("encoder")
    examples = training.encode([{"text": text, "label": 0} for text in said], tokenizer, max_length)
    if dropout is not None:
        encoder.train()
        torch.manual_seed(dropout)
    found: dict[int, Tensor] = {}
    with torch.no_grad():
        for chosen in training.batches_by_length(examples, 64):
            batch = training.collate([examples[i] for i in chosen], tokenizer.pad_token_id)
            ids, mask = batch["input_ids"], batch["attention_mask"]
            states = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            found |= zip(chosen, pooled(states, mask), strict=True)
    vectors = torch.stack([found[i] for i in range(len(said))])
    buffer = io.BytesIO()
    np.save(buffer, vectors.numpy())
    files.write_bytes(kept, buffer.getvalue())
    return vectors


class UpperLayers(nn.Module):
    """The encoder's layers from ``at`` on, as a model of kept states: ``forward(states, mask)`` is (B, d), pooled.

    The layers are the encoder's own, not copies. Source: lesson 20, section 5.
    """

    def __init__(self, encoder: Any, at: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(encoder.encoder.layer[at:])

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        longest = int(mask.sum(1).max())
        states, mask = states[:, :longest], mask[:, :longest]
        hidden = torch.finfo(states.dtype).min * (1 - mask.to(states.dtype))[:, None, None]
        for layer in self.layers:
            states = layer(states, attention_mask=hidden)
        return pooled(states, mask)


@torch.no_grad()
def lower_states(
    encoder: Any, tokenizer: Any, texts: Sequence[str], at: int, max_length: int = 24
) -> tuple[Tensor, Tensor]:
    """What enters layer ``at`` of the encoder, (N, T, d) and the mask (N, T), without dropout.

    ``UpperLayers(encoder, at)`` of it is what the whole encoder gives. Source: lesson 20, section 5.
    """
    was, encoder.encoder.layer = encoder.encoder.layer, encoder.encoder.layer[:at]
    rows = [{"text": text, "label": 0} for text in listed(texts, "texts")]
    examples = training.encode(rows, tokenizer, max_length)
    width = max(len(example["input_ids"]) for example in examples)
    states = torch.zeros(len(rows), width, encoder.config.hidden_size)
    masks = torch.zeros(len(rows), width)
    with models.evaluating(encoder):
        for chosen in training.batches_by_length(examples, 64):
            batch = training.collate([examples[i] for i in chosen], tokenizer.pad_token_id)
            ids, mask = batch["input_ids"], batch["attention_mask"]
            found = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            states[chosen, : ids.shape[1]], masks[chosen, : ids.shape[1]] = found, mask.float()
    encoder.encoder.layer = was
    return states, masks


def split_pool(task: str, every: int, seed: int, rows: int) -> tuple[Any, list[int], Any, Any]:
    """Rows of a task to choose from with their places in the order of ``seed``, rows to test on, and rows for dev.

    The first holds one group in ``every`` of the split train, ``rows`` rows at most; the third the other groups and the split
    test, so that many seeds can have test rows of their own. Each beginning of the order has the pool's shares of labels,
    up to rounding. Source: lesson 20, section 1.
    """
    from datasets import concatenate_datasets

    splits = tasks.load(task).splits
    chosen = [int(group, 16) % every == 0 for group in splits["train"]["group"]]
    near, rest = ([i for i, mine in enumerate(chosen) if mine == side] for side in (True, False))
    pool, test = splits["train"].select(near[:rows]), splits["train"].select(rest)
    place = {key: row for row, key in enumerate(pool["id"])}
    order = [place[key] for key in tasks.subsample(pool, len(pool), seed)["id"]]
    return pool, order, concatenate_datasets([splits["test"], test]), splits["dev"]


def shortened(texts: Sequence[str], share: float = 0.2, seed: int = 0) -> list[str]:
    """Each text with each of its words left out with probability ``share``, but never all. Source: lesson 20, section 4."""
    rng = random.Random(seed)
    return [" ".join(delete_words(words_of(text), share, rng)) for text in listed(texts, "texts")]
