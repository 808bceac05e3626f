"""An encoder of characters, trained from nothing: for a language that the pinned encoder cannot read. Taught in lesson 27.

A *character* is one code point. Id 0 pads, 1 stands for every character that the vocabulary lacks, 2 opens a text, 3 hides
a character. The network is transformers' BERT, small enough for one core and minutes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from instructlab_utils.arguments import listed
from instructlab_utils.errors import DataError, ParameterError
from instructlab_utils.training import IGNORED, Batch, Example

PAD, UNKNOWN, OPEN, MASK = range(4)
SPECIAL = ("<pad>", "<unknown>", "<open>", "<mask>")


def vocabulary(texts: Iterable[str], least: int = 3) -> dict[str, int]:
    """Character → id, from 4 on, of the characters that stand at least ``least`` times in ``texts``, frequent ones first.

    Source: lesson 27, section 2.
    """
    counts = Counter(c for text in listed(texts, "texts") for c in text if not c.isspace())
    kept = sorted((c for c, n in counts.items() if n >= least), key=lambda c: (-counts[c], c))
    if not kept:
        raise DataError(f"no character stands {least} times in the texts: give more texts, or a smaller least")
    return {c: i for i, c in enumerate(kept, start=len(SPECIAL))}


def encode(characters: Sequence[str], ids: dict[str, int], window: int) -> list[int]:
    """``OPEN`` and the ids of the first ``window`` characters; white space is left out of a text, not of a list.

    Source: lesson 27, section 2.
    """
    if isinstance(characters, str):
        characters = "".join(characters.split())
    return [OPEN, *(ids.get(c, UNKNOWN) for c in characters[:window])]


def classified(rows: Iterable[dict[str, Any]], ids: dict[str, int], window: int) -> list[Example]:
    """Examples of texts with a ``label``. Source: lesson 27, section 2."""
    return [{"input_ids": encode(row["text"], ids, window), "labels": row["label"]} for row in rows]


def tagged(
    rows: Iterable[dict[str, Any]], ids: dict[str, int], labels: Sequence[str], window: int
) -> list[Example]:
    """Examples of ``tokens`` (characters) with ``tags``: one target a character, none for ``OPEN``.

    Raises DataError where a row has not one tag for each character. Source: lesson 27, section 6.
    """
    number, found = {label: k for k, label in enumerate(labels)}, []
    for i, row in enumerate(rows):
        tokens, tags = row["tokens"], row["tags"]
        if len(tokens) != len(tags) or any(len(c) != 1 for c in tokens):
            raise DataError(f"row {i}: {len(tokens)} tokens, {len(tags)} tags: give one tag to each character")
        targets = [IGNORED, *(number[tag] for tag in tags[:window])]
        found.append({"input_ids": encode(tokens, ids, window), "labels": targets})
    return found


def network(head: Any, size: int, labels: int, seed: int, *, width: int = 96, layers: int = 2, window: int = 64) -> Any:
    """A BERT of ``layers`` layers with random first values; ``head`` is a class of transformers, such as BertForMaskedLM."""
    from transformers import BertConfig

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=size, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=4, max_position_embeddings=window + 1, type_vocab_size=1, pad_token_id=PAD, num_labels=labels,
    )  # fmt: skip
    return head(config)


def hide(ids: Tensor, size: int, generator: torch.Generator, rate: float = 0.15) -> tuple[Tensor, Tensor]:
    """BERT's masking of ids (B, T): the inputs, and the targets, -100 where nothing is asked.

    Each character is asked with probability ``rate``. Of the asked ones 80 % become ``MASK``, 10 % a character drawn at random,
    10 % stay. Special tokens are never asked. Source: Devlin et al. (2019), section 3.1; lesson 27, section 4.
    """
    if not 0 < rate < 1:
        raise ParameterError(f"the rate of masking is {rate}: choose a share between 0 and 1")
    asked = (torch.rand(ids.shape, generator=generator) < rate) & (ids >= len(SPECIAL))
    how = torch.rand(ids.shape, generator=generator)
    other = torch.randint(len(SPECIAL), size, ids.shape, generator=generator)
    inputs = torch.where(asked & (how < 0.8), MASK, ids)
    inputs = torch.where(asked & (how >= 0.9), other, inputs)
    return inputs, torch.where(asked, ids, IGNORED)


def masked_losses(model: nn.Module, batch: Batch) -> Tensor:
    """The cross-entropy of each asked character: logits are computed there only. Source: lesson 27, section 4."""
    states = model.bert(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    asked = batch["labels"] != IGNORED
    return nn.functional.cross_entropy(model.cls(states[asked]), batch["labels"][asked], reduction="none")


def windows(texts: Iterable[Sequence[str]], ids: dict[str, int], window: int) -> list[list[int]]:
    """The texts as ids, in pieces of ``window`` characters; a last piece shorter than a quarter is left out."""
    found = []
    for text in texts:
        text = "".join("".join(text).split())
        parts = [text[i : i + window] for i in range(0, len(text), window)]
        found += [encode(part, ids, window) for part in parts if 4 * len(part) >= window]
    return found
