"""A decoder that sees: a small image encoder, a projector into the decoder's embeddings, and the loss on the answer alone.

The decoder reads ``[image tokens | text]``. Built in lesson 23; the experiment `captions` uses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from instructlab_utils import training
from instructlab_utils.errors import TrainingError
from instructlab_utils.losses import cross_entropy


class ConvEncoder(nn.Module):
    """Three convolutions of stride 2: pictures (B, 3, 32, 32) in 0…1 → 16 image tokens (B, 16, width).

    A token sees a window of 15 pixels around its place. Source: lesson 23, section 3.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        sizes = (3, width // 4, width // 2, width)
        self.layers = nn.ModuleList([nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(sizes)])
        self.norm = nn.LayerNorm(width)

    def forward(self, pictures: Tensor) -> Tensor:
        x = 2 * pictures - 1
        for layer in self.layers:
            x = nn.functional.gelu(layer(x))
        return self.norm(x.flatten(2).transpose(1, 2))


class Heads(nn.Module):
    """An encoder with one linear head for each attribute, on all of its tokens side by side: how it is trained first.

    ``values``: attribute → its values. Returns logits (B, number of values) by attribute. Source: lesson 23, section 3.
    """

    def __init__(
        self, encoder: nn.Module, values: Mapping[str, Sequence[str]], width: int = 64, tokens: int = 16
    ):
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleDict({name: nn.Linear(tokens * width, len(v)) for name, v in values.items()})

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        h = self.encoder(pictures).flatten(1)
        return {name: head(h) for name, head in self.heads.items()}


def head_losses(pictures: Tensor, net: Any, batch: training.Batch) -> Tensor:
    """An objective for :class:`Heads`: the cross-entropies of all attributes of all pictures, flat, (A B,).

    ``batch["picture"]`` and ``batch["labels"]``: int64, (B, 1) and (B, A), A attributes in the heads' order.
    Source: lesson 23, section 3.
    """
    logits = net(pictures[batch["picture"][:, 0]])
    parts = zip(logits.values(), batch["labels"].T, strict=True)
    return torch.cat([cross_entropy(z, y) for z, y in parts])


@torch.no_grad()
def heads_right(net: Heads, pictures: Tensor, attributes: Sequence[Sequence[int]]) -> Tensor:
    """Is each attribute's most probable value the right one, and in the last column are all; booleans, (B, A + 1).

    Source: lesson 23, section 3.
    """
    best = torch.stack([z.argmax(1) for z in net(pictures).values()], 1)
    right = best == torch.tensor(attributes)
    return torch.cat([right, right.all(1, keepdim=True)], 1)


class Seeing(nn.Module):
    """``encoder``, ``projector`` and ``decoder`` in a row; the decoder reads ``[image tokens | text]``.

    ``forward(input_ids, attention_mask, pictures, seen)``: text (B, T) padded on the right, pictures (B, 3, 32, 32), and
    ``seen`` (B,), 0 where a row has no picture: then nothing looks at its image tokens. Returns the logits of the T text
    positions and of the last image token before them, (B, 1 + T, V): row t predicts text token t.
    Without an ``encoder`` the pictures are its tokens already, (B, P, width): a frozen encoder reads each picture once.
    Source: lesson 23, section 4.
    """

    def __init__(self, decoder: Any, encoder: nn.Module | None = None, width: int = 64) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder or nn.Identity(), decoder
        self.projector = nn.Linear(width, decoder.get_input_embeddings().embedding_dim)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, pictures: Tensor, seen: Tensor) -> Tensor:
        v = self.projector(self.encoder(pictures))
        w = self.decoder.get_input_embeddings()(input_ids)
        mask = torch.cat([seen[:, None].expand(v.shape[:2]).to(attention_mask.dtype), attention_mask], 1)
        out = self.decoder(inputs_embeds=torch.cat([v.to(w.dtype), w], 1), attention_mask=mask)
        return out.logits[:, v.shape[1] - 1 :]


def freeze(*parts: nn.Module, frozen: bool = True) -> None:
    """Stop (or with ``frozen=False`` allow) the training of all weights of ``parts``. Source: lesson 23, section 5."""
    for part in parts:
        part.requires_grad_(not frozen)


def answer_logits(pictures: Tensor, net: Seeing, batch: training.Batch) -> tuple[Tensor, Tensor]:
    """Logits at the labels that count, (n, V), and these labels, (n,). ``batch["picture"]`` (B, 1): places, or -1.

    TrainingError where a place is not among the pictures. Source: lesson 23, section 4.
    """
    at = batch["picture"][:, 0]
    if len(at) and not -1 <= int(at.min()) <= int(at.max()) < len(pictures):
        raise TrainingError(
            f"a row asks for picture {int(at.max())}; there are {len(pictures)}, counted from 0"
        )
    logits = net(batch["input_ids"], batch["attention_mask"], pictures[at.clamp(min=0)], at >= 0)[:, :-1]
    counts = batch["labels"] != training.IGNORED
    return logits[counts], batch["labels"][counts]


def seeing_losses(pictures: Tensor, net: Seeing, batch: training.Batch) -> Tensor:
    """The objective of instruction tuning with pictures: cross-entropies of the answer's tokens, (n,), in nats.

    Source: lesson 23, section 4.
    """
    logits, labels = answer_logits(pictures, net, batch)
    return cross_entropy(logits, labels)


@torch.no_grad()
def answered(
    net: Seeing, examples: Sequence[training.Example], pictures: Tensor, size: int = 128
) -> tuple[Tensor, Tensor]:
    """Is each answer right, word for word (N,), and its log-probability in nats, float64 (N,).

    All tokens of the right answer, its end too, must be the most probable ones: then greedy decoding writes it.
    Source: lesson 23, section 5.
    """
    right, log_p = [], []
    for begin in range(0, len(examples), size):
        batch = training.collate_tokens(examples[begin : begin + size], 0)
        logits, labels = answer_logits(pictures, net, batch)
        rows = (batch["labels"] != training.IGNORED).nonzero()[:, 0]
        n, wrong = len(batch["labels"]), (logits.argmax(-1) != labels).double()
        right.append(torch.zeros(n, dtype=torch.float64).index_add_(0, rows, wrong) == 0)
        losses = cross_entropy(logits, labels).double()
        log_p.append(-torch.zeros(n, dtype=torch.float64).index_add_(0, rows, losses))
    return torch.cat(right), torch.cat(log_p)
