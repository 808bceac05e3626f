"""Tuning a decoder with patterns: what follows a text, one of two words or a fresh head?

The lower layers are frozen and read each text once; LoRA stands in the upper ones. Lesson 13, section 3, builds the pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from instructlab_utils import models, training, tuners
from instructlab_utils.errors import ParameterError
from instructlab_utils.markers import text_ids

LONGEST = 128  # tokens of a text in its pattern


class Halves:
    """SmolLM2 cut before layer ``at``, in fp32: ``encode`` keeps what the lower half makes of each text.

    LoRA of rank ``rank`` stands in the upper half, with first values drawn from ``seed``. Source: lesson 13, section 3.
    """

    def __init__(self, tokenizer: Any, *, at: int, rank: int, seed: int, device: str = "cpu") -> None:
        self.tokenizer, self.device = tokenizer, device
        self.bottom, top = models.split_decoder(models.load_decoder(device=device).float(), at=at)
        self.top: Any = tuners.inject(top, tuners.Lora(rank), seed=seed).to(device)
        self.first_values = {name: p.detach().clone() for name, p in tuners.trainable(self.top).items()}
        self.seen: dict[tuple[int, ...], Tensor] = {}

    def short(self, rows: Any, longest: int) -> Any:
        """The rows of a split whose text has at most ``longest`` tokens: padding costs as much as text."""
        lengths = [len(ids) for ids in self.tokenizer(list(rows["text"]))["input_ids"]]
        return rows.select([i for i, n in enumerate(lengths) if n <= longest])

    @torch.no_grad()
    def encode(self, rows: Iterable[dict[str, Any]], pattern: str = "{}") -> list[training.Example]:
        """Examples of the texts in a pattern, at most 128 tokens each; the states of new ones are computed and kept.

        Raises ParameterError for a pattern without exactly one ``{}``, for a special token in a text, and for a text that
        is too long in its pattern: cut, it would lose the pattern's end, which is what the model is asked.
        """
        before, *after = pattern.split("{}")
        if len(after) != 1:
            raise ParameterError(f"the pattern {pattern!r} needs {{}} exactly once: there the text goes")
        texts = [{**row, "text": before + row["text"] + after[0]} for row in rows]
        for row in texts:
            if (n := len(text_ids(row["text"], self.tokenizer))) > LONGEST:
                raise ParameterError(
                    f"{row['text'][:40]!r} … has {n} tokens, {LONGEST} fit: take shorter texts (`short`)"
                )
        found = training.encode(texts, self.tokenizer, LONGEST)
        new = [example for example in found if tuple(example["input_ids"]) not in self.seen]
        new.sort(key=lambda example: len(example["input_ids"]))
        for begin in range(0, len(new), 16):
            batch = training.collate(new[begin : begin + 16], self.tokenizer.pad_token_id)
            batch = training.move({k: batch[k] for k in ("input_ids", "attention_mask")}, self.device)
            states = self.bottom(**batch).last_hidden_state
            for example, h in zip(new[begin : begin + 16], states, strict=True):
                self.seen[tuple(example["input_ids"])] = h[: len(example["input_ids"])].clone()
        return found

    def last_states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The upper half's state of each text's last token, (B, d), from the kept states."""
        lengths = attention_mask.sum(1)
        texts = [tuple(ids[:n].tolist()) for ids, n in zip(input_ids, lengths, strict=True)]
        h = pad_sequence([self.seen[text] for text in texts], batch_first=True)
        h = self.top.model(inputs_embeds=h, attention_mask=attention_mask).last_hidden_state
        return h[torch.arange(len(h)), lengths - 1]


class Reader(nn.Module):
    """Two logits from the state of a text's last token: the rows of two words, frozen, or a fresh linear head.

    Building one sets LoRA back to its first values. Source: lesson 13, section 3.

    Raises ParameterError unless the words are two different tokens.
    """

    def __init__(self, halves: Halves, words: Sequence[str] | None, seed: int) -> None:
        super().__init__()
        self.halves, self.top, self.head = halves, halves.top, None
        with torch.no_grad():
            for name, p in tuners.trainable(self.top).items():
                p.copy_(halves.first_values[name])
        table = self.top.get_output_embeddings().weight
        if words is None:
            self.head = nn.Linear(table.shape[1], 2, device=table.device)
            drawn = torch.empty(2, table.shape[1])  # on the CPU, as its generator
            nn.init.normal_(drawn, std=0.02, generator=torch.Generator().manual_seed(seed))
            self.head.weight.data.copy_(drawn)
            nn.init.zeros_(self.head.bias)
        else:
            ids = [text_ids(word, halves.tokenizer) for word in words]
            if [len(i) for i in ids] != [1, 1] or ids[0] == ids[1]:
                raise ParameterError(
                    f"the words {list(words)} have the tokens {ids}: take two different ones of one each"
                )
            self.register_buffer("rows", table[[i for (i,) in ids]], persistent=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        last = self.halves.last_states(input_ids, attention_mask)
        return SimpleNamespace(logits=last @ self.rows.T if self.head is None else self.head(last))

    def logits(self, rows: Iterable[dict[str, Any]], pattern: str = "{}") -> Tensor:
        """Float64 (N, 2) of the rows' texts in a pattern."""
        return training.predict(self, self.halves.encode(rows, pattern), 0, 24).double()
