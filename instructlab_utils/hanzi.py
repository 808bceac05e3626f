"""An encoder of characters, trained from nothing: for a language that the pinned encoder cannot read. Taught in lesson 27.

A *character* is one code point. Id 0 pads, 1 stands for every character that the vocabulary lacks, 2 opens a text, 3 hides
a character. The network is transformers' BERT, small enough for one core and minutes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from instructlab_utils.arguments import listed
from instructlab_utils.errors import DataError, ParameterError
from instructlab_utils.tagging import spans_of
from instructlab_utils.training import IGNORED, Batch, Example

PAD, UNKNOWN, OPEN, MASK = range(4)
STD = 0.02  # of the first values of matrices
SPECIAL = ("<pad>", "<unknown>", "<open>", "<mask>")


def vocabulary(texts: Iterable[str], least: int = 3) -> dict[str, int]:
    """Character → id, from 4 on, of the characters that stand at least ``least`` times in ``texts``, frequent ones first.

    Source: lesson 27, section 3.
    """
    counts = Counter(c for text in listed(texts, "texts") for c in text if not c.isspace())
    kept = sorted((c for c, n in counts.items() if n >= least), key=lambda c: (-counts[c], c))
    if not kept:
        raise DataError(
            f"no character stands {least} times in the texts: give more texts, or a smaller least"
        )
    return {c: i for i, c in enumerate(kept, start=len(SPECIAL))}


def encode(characters: Sequence[str], ids: dict[str, int], window: int) -> list[int]:
    """``OPEN`` and the ids of the first ``window`` characters; white space is left out of a text, not of a list.

    Source: lesson 27, section 3.
    """
    if isinstance(characters, str):
        characters = "".join(characters.split())
    return [OPEN, *(ids.get(c, UNKNOWN) for c in characters[:window])]


def classified(rows: Iterable[dict[str, Any]], ids: dict[str, int], window: int) -> list[Example]:
    """Examples of texts with a ``label``. Source: lesson 27, section 3."""
    return [{"input_ids": encode(row["text"], ids, window), "labels": row["label"]} for row in rows]


def tagged(
    rows: Iterable[dict[str, Any]], ids: dict[str, int], labels: Sequence[str], window: int
) -> list[Example]:
    """Examples of ``tokens`` (characters) with ``tags``: one target a character, none for ``OPEN``.

    Raises DataError where a row has not one tag for each character. Source: lesson 27, section 7.
    """
    number, found = {label: k for k, label in enumerate(labels)}, []
    for i, row in enumerate(rows):
        tokens, tags = row["tokens"], row["tags"]
        if len(tokens) != len(tags) or any(len(c) != 1 for c in tokens):
            raise DataError(
                f"row {i}: {len(tokens)} tokens, {len(tags)} tags: give one tag to each character"
            )
        targets = [IGNORED, *(number[tag] for tag in tags[:window])]
        found.append({"input_ids": encode(tokens, ids, window), "labels": targets})
    return found


class Neighbours(nn.Module):
    """Embeddings of characters that see their neighbours: LN(e + GELU(convolution of e)), ``reach`` to each side.

    Padding is zero before the convolution, so that it changes no other position. Source: lesson 27, section 5.
    """

    def __init__(self, embeddings: Any, width: int, reach: int) -> None:
        super().__init__()
        self.inner = embeddings
        self.convolution = nn.Conv1d(width, width, 2 * reach + 1, padding=reach)
        self.norm = nn.LayerNorm(width)

    @property
    def word_embeddings(self) -> nn.Module:
        """Where transformers looks for the matrix that it ties to the output."""
        return self.inner.word_embeddings

    def forward(self, input_ids: Tensor, **others: Any) -> Tensor:
        e = self.inner(input_ids=input_ids, **others) * (input_ids != PAD)[..., None]
        near = self.convolution(e.transpose(1, 2)).transpose(1, 2)
        return self.norm(e + nn.functional.gelu(near))


def network(
    head: Any,
    size: int,
    labels: int,
    seed: int,
    *,
    width: int = 96,
    layers: int = 1,
    reach: int = 2,
    window: int = 48,
    dropout: float = 0.1,
) -> Any:
    """A BERT of ``layers`` layers over `Neighbours`, random first values; ``head`` is a class of transformers.

    ``window``: characters of a text, at most; ``labels``: of the head, where it has some.
    """
    from transformers import BertConfig

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=size, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers, num_labels=labels,
        num_attention_heads=4, max_position_embeddings=window + 1, type_vocab_size=1, pad_token_id=PAD,
        hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, initializer_range=STD,
    )  # fmt: skip
    net = head(config)
    net.bert.embeddings = Neighbours(net.bert.embeddings, width, reach)
    return net


class MeanClassifier(nn.Module):
    """A linear head on the mean of the characters' states; ``OPEN`` and padding do not count (lesson 27)."""

    def __init__(self, config: Any) -> None:
        from transformers import BertModel

        super().__init__()
        self.config, self.bert = config, BertModel(config, add_pooling_layer=False)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        states = self.bert(input_ids, attention_mask=attention_mask).last_hidden_state
        counted = (attention_mask.bool() & (input_ids != OPEN))[..., None]
        mean = (states * counted).sum(1) / counted.sum(1).clamp(min=1)
        return SimpleNamespace(logits=self.classifier(self.dropout(mean)))


def continued(head: Any, trunk: nn.Module | None, size: int, labels: int, seed: int, **shape: Any) -> Any:
    """A `network` whose BERT has the weights of ``trunk``'s; the head is fresh. Without a trunk all of it is.

    Raises DataError where the trunk has another shape.
    """
    net = network(head, size, labels, seed, **shape)
    if trunk is not None:
        try:
            net.bert.load_state_dict(trunk.bert.state_dict())
        except RuntimeError as error:
            raise DataError(f"the trunk is another network: {' '.join(str(error).split())[:200]}") from error
    return net


def hide(ids: Tensor, size: int, generator: torch.Generator, rate: float = 0.15) -> tuple[Tensor, Tensor]:
    """BERT's masking of ids (B, T): the inputs, and the targets, -100 where nothing is asked.

    Each character is asked with probability ``rate``. Of those asked 80 % become ``MASK``, 10 % a character drawn at random,
    10 % stay. Special tokens are never asked. Source: Devlin et al. (2019), section 3.1; lesson 27, section 6.
    """
    if not 0 < rate < 1:
        raise ParameterError(f"the rate of masking is {rate}: choose a share between 0 and 1")
    asked = (torch.rand(ids.shape, generator=generator) < rate) & (ids >= len(SPECIAL))
    how = torch.rand(ids.shape, generator=generator)
    other = torch.randint(len(SPECIAL), size, ids.shape, generator=generator)
    inputs = torch.where(asked & (how < 0.8), MASK, ids)
    inputs = torch.where(asked & (how >= 0.9), other, inputs)
    return inputs, torch.where(asked, ids, IGNORED)


def masked_examples(
    pieces: Sequence[Sequence[int]], size: int, seed: int, rate: float = 0.15
) -> list[Example]:
    """Each piece once, with its own masks, for `training.train` with `masked_losses`. Source: lesson 27, section 6."""
    padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(p) for p in pieces], batch_first=True)
    inputs, targets = hide(padded, size, torch.Generator().manual_seed(seed), rate)
    return [
        {"input_ids": inputs[i, : len(p)].tolist(), "labels": targets[i, : len(p)].tolist()}
        for i, p in enumerate(pieces)
    ]


def masked_losses(model: nn.Module, batch: Batch) -> Tensor:
    """The cross-entropy of each asked character: logits are computed there only. Source: lesson 27, section 6."""
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


# --- names without a network ------------------------------------------------------------------------------------------


def entities(rows: Iterable[dict[str, Any]]) -> set[tuple[str, str]]:
    """(kind, characters) of every name in rows of ``tokens`` and ``tags``. Source: lesson 27, section 7."""
    return {(k, "".join(row["tokens"][a:b])) for row in rows for k, a, b in spans_of(row["tags"])}


def look_up(tokens: Sequence[str], known: Iterable[tuple[str, str]]) -> list[str]:
    """BIO tags of the names that are ``known``: from the left, the longest name that begins here. Of a name with several
    kinds the first in the alphabet counts. Source: lesson 27, section 7."""
    kinds = {name: kind for kind, name in sorted(known, reverse=True)}
    longest = max(map(len, kinds), default=0)
    tags, i = ["O"] * len(tokens), 0
    while i < len(tokens):
        ends = range(min(i + longest, len(tokens)), i, -1)
        end = next((j for j in ends if "".join(tokens[i:j]) in kinds), i)
        if end > i:
            kind = kinds["".join(tokens[i:end])]
            tags[i:end] = [f"B-{kind}", *[f"I-{kind}"] * (end - i - 1)]
        i = max(end, i + 1)
    return tags


def around(tokens: Sequence[str], reach: int = 2) -> list[list[str]]:
    """For each character the features of its window: single characters and pairs, each with its place, such as ``-1:王``.

    Source: lesson 27, section 7.
    """
    padded = ["<edge>"] * reach + list(tokens) + ["<edge>"] * reach
    found = []
    for i in range(len(tokens)):
        seen = padded[i : i + 2 * reach + 1]
        single = [f"{k - reach}:{c}" for k, c in enumerate(seen)]
        found.append(single + [f"{k - reach}:{a}{b}" for k, (a, b) in enumerate(pairwise(seen))])
    return found


def found_new(
    rows: Sequence[dict[str, Any]], predicted: Sequence[Sequence[str]], known: set[tuple[str, str]]
) -> tuple[int, int]:
    """How many names of ``rows`` that are not ``known`` were found, kind and both ends right, and how many there are.

    ``predicted`` holds the tags of each row. Source: lesson 27, section 7.
    """
    hits = new = 0
    for row, tags in zip(rows, predicted, strict=True):
        said = set(spans_of(tags))
        for kind, a, b in spans_of(row["tags"]):
            if (kind, "".join(row["tokens"][a:b])) not in known:
                new += 1
                hits += (kind, a, b) in said
    return hits, new
