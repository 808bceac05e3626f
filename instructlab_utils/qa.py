"""Extractive question answering: from character offsets to token spans and back, also for contexts longer than a window.

A *row* has ``question``, ``context``, ``answers`` (texts) and ``starts`` (their character offsets; both empty where there
is no answer). The model scores every token of a window as the first and as the last token of the answer.
Built in lesson 05 (notebooks/source/05_question_answering.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from instructlab_utils.errors import TrainingError
from instructlab_utils.losses import cross_entropy
from instructlab_utils.models import load_span_model as load_span_model  # for the experiment qa_shifts
from instructlab_utils.training import Batch, Example, batches_by_length, collate_tokens, move

Offsets = Sequence[tuple[int, int] | None]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Window:
    """What the model reads at once: a question and a piece of its context.

    ``row`` is the number of the question. ``offsets`` holds, for each of the T tokens, its characters in the context
    (begin, end), or None for the question and the special tokens. ``example`` is what the loop trains on:
    ``input_ids`` and ``token_type_ids``, T integers each, and ``labels``, the first and last token of the answer.
    Source: lesson 05, section 3.
    """

    row: int
    offsets: Offsets
    example: Example


def token_span(offsets: Offsets, begin: int, end: int) -> tuple[int, int]:
    """First and last token of the characters ``begin`` … ``end`` - 1 of the context; (0, 0) unless all are in the window.

    Position 0 is [CLS], which no answer contains. Source: lesson 05, section 2.
    """
    inside = [(i, *piece) for i, piece in enumerate(offsets) if piece is not None]
    if not inside or begin < inside[0][1] or end > inside[-1][2]:
        return 0, 0
    touched = [i for i, left, right in inside if left < end and right > begin]
    return (touched[0], touched[-1]) if touched else (0, 0)


def cut(
    question: str, context: str, tokenizer: Any, max_length: int, stride: int
) -> Iterator[tuple[list[int], list[int], Offsets]]:
    """Token ids, segments and offsets of every window: at most ``max_length`` tokens, ``stride`` of the context in common.

    Source: lesson 05, section 3. Raises TrainingError for a question that leaves too little room for its context, and for
    windows longer than the model's. Special tokens in the texts are plain characters.
    """
    plain = {"split_special_tokens": True}  # a typed "[SEP]" is six characters, no border
    room = max_length - 3 - len(tokenizer(question, add_special_tokens=False, **plain)["input_ids"])
    if room <= stride:
        raise TrainingError(f"a question leaves {room} tokens for its context: raise max_length or cut it")
    if max_length > tokenizer.model_max_length:
        raise TrainingError(f"windows of {max_length} tokens: the model reads {tokenizer.model_max_length}")
    pieces = tokenizer(
        question, context, truncation="only_second", max_length=max_length, stride=stride,
        return_overflowing_tokens=True, return_offsets_mapping=True, **plain,
    )  # fmt: skip
    for k, ids in enumerate(pieces["input_ids"]):
        places = zip(pieces["offset_mapping"][k], pieces.sequence_ids(k), strict=True)
        yield ids, pieces["token_type_ids"][k], [piece if part == 1 else None for piece, part in places]


def answer_places(row: Row, number: int) -> list[tuple[int, int]]:
    """The characters (begin, end) of each answer. Text and offset say the same thing twice, so they are compared.

    Raises TrainingError, naming row ``number``, where a field is missing, or an answer does not stand at its start: the
    label would be another text. Other keys of a row are not looked at. Source: lesson 05, section 3.
    """
    missing = {"question", "context", "answers", "starts"} - set(row)
    if missing or isinstance(row["answers"], str) or len(row["answers"]) != len(row["starts"]):
        raise TrainingError(f"row {number}: write question, context, answers and a start for each answer")
    places = [(start, start + len(text)) for text, start in zip(row["answers"], row["starts"], strict=True)]
    for text, (begin, end) in zip(row["answers"], places, strict=True):
        if not text or begin < 0 or row["context"][begin:end] != text:
            there = row["context"][max(0, begin) : max(0, end)]
            raise TrainingError(
                f"row {number}: at character {begin} stands {there!r}, not the answer {text!r}"
            )
    return places


def windows(rows: Iterable[Row], tokenizer: Any, max_length: int, stride: int) -> list[Window]:
    """All windows of all rows, in order (:func:`cut`). The first answer is the label; 0 and 0 where a window lacks a part.

    Source: lesson 05, section 3. Raises TrainingError as :func:`cut` and :func:`answer_places` do.
    """
    found = []
    for number, row in enumerate(rows):
        answers = answer_places(row, number)
        for ids, segments, offsets in cut(row["question"], row["context"], tokenizer, max_length, stride):
            labels = token_span(offsets, *answers[0]) if answers else (0, 0)
            example = {"input_ids": ids, "token_type_ids": segments, "labels": list(labels)}
            found.append(Window(number, offsets, example))
    return found


def boundary_losses(model: nn.Module, batch: Batch) -> Tensor:
    """The objective for ``training.train``: two cross-entropies a window, its first and its last token, shape (2 B,).

    Their mean is the mean of :func:`losses.span_loss`. Source: lesson 05, section 4.
    """
    output = model(**{name: tensor for name, tensor in batch.items() if name != "labels"})
    scores = torch.stack([output.start_logits, output.end_logits], 1).float()  # (B, 2, T)
    return cross_entropy(scores, batch["labels"]).flatten()


@torch.no_grad()
def span_scores(
    model: nn.Module, examples: Sequence[Example], pad_id: int, batch_size: int = 32
) -> list[Tensor]:
    """Logits of every token as first and as last, in the examples' order: float32 tensors of shape (2, T_i).

    Source: lesson 05, section 5.
    """
    model.eval()
    found: dict[int, Tensor] = {}
    device = next(model.parameters()).device
    for chosen in batches_by_length(examples, batch_size):
        batch = move(collate_tokens([examples[i] for i in chosen], pad_id), device)
        output = model(**{name: tensor for name, tensor in batch.items() if name != "labels"})
        scores = torch.stack([output.start_logits, output.end_logits], 1).float().cpu()
        found |= {i: s[:, : len(examples[i]["input_ids"])] for i, s in zip(chosen, scores, strict=True)}
    return [found[i] for i in range(len(examples))]


def best_spans(
    scores: Tensor, offsets: Offsets, max_tokens: int = 30, n: int = 1
) -> list[tuple[float, int, int]]:
    """The ``n`` best legal spans of a window: (score, first, last), the best first; [] where there is none.

    ``scores`` is (2, T). Legal: both ends in the context, last >= first, at most ``max_tokens`` tokens. The score is the
    sum of both logits minus that of position 0, so that windows compare and zero means "as likely as no answer".
    Raises TrainingError where scores are NaN or not two a token, and for ``n`` or ``max_tokens`` below 1.
    Source: lesson 05, section 5.
    """
    if scores.shape != (2, len(offsets)) or scores.isnan().any() or n < 1 or max_tokens < 1:
        raise TrainingError(
            f"scores of shape {tuple(scores.shape)} for {len(offsets)} tokens, {n} spans of {max_tokens}: NaN, or no fit"
        )
    start, end = scores - scores[:, :1]
    context = torch.tensor([piece is not None for piece in offsets])
    legal = (context[:, None] & context[None, :]).triu().tril(max_tokens - 1)
    pairs = (start[:, None] + end[None, :]).masked_fill(~legal, float("-inf"))
    values, places = pairs.flatten().topk(min(n, int(legal.sum())))
    return [(v, *divmod(p, len(offsets))) for v, p in zip(values.tolist(), places.tolist(), strict=True)]


def answer_texts(
    rows: Sequence[Row], found: Sequence[Window], scores: Sequence[Tensor], max_tokens: int = 30,
    margin: float = float("-inf"),
) -> list[str]:  # fmt: skip
    """One answer a row: the characters of the best span over all its windows; "" where its score is below ``margin``.

    Source: lesson 05, section 5.
    """
    best = {number: (margin, "") for number in range(len(rows))}
    for window, pair in zip(found, scores, strict=True):
        for score, first, last in best_spans(pair, window.offsets, max_tokens):
            if score > best[window.row][0]:
                begin, end = window.offsets[first][0], window.offsets[last][1]  # type: ignore[index]
                best[window.row] = score, rows[window.row]["context"][begin:end]
    return [best[number][1] for number in range(len(rows))]
