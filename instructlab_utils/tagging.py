"""One label per word: alignment with word pieces, spans, and the best legal tag sequence.

A *tag* is a string of the scheme BIO (called IOB2 in the literature): ``B-name`` opens a span, ``I-name`` continues one
of the same name, ``O`` is outside. Tags of other schemes (IOBES, BILOU) are refused; in IOB1 most I continue nothing. The
masks and paths here work on label indices, in the order of ``labels``.
Taught in lesson 04.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from instructlab_utils.arguments import listed
from instructlab_utils.errors import DataError
from instructlab_utils.training import IGNORED

if TYPE_CHECKING:
    from instructlab_utils.tasks import Task

Span = tuple[str, int, int]  # name, first word, word after the last
CONLL = {"liv": "PER", "loc": "LOC", "fac": "LOC", "org": "ORG"}  # of polish-ner; all else is MISC


def conll_types(tags: Iterable[str]) -> list[str]:
    """The tags of polish-ner with CoNLL-2003's four types: persons, locations, organisations, miscellaneous.

    Source: lesson 04, section 6.
    """
    read = read_tags(tags)
    return [prefix if prefix == "O" else f"{prefix}-{CONLL.get(kind, 'MISC')}" for prefix, kind in read]


def mark_capitals(words: Iterable[str]) -> list[str]:
    """The words, each capitalised one with a ``^`` before it: a piece of its own for an uncased tokenizer.

    Source: lesson 04, section 6.
    """
    return ["^" + word if word[:1].isupper() else word for word in listed(words, "words")]


def labels_of(task: Task) -> list[str]:
    """The labels that :func:`sentences` uses, O first."""
    return list(dict.fromkeys(conll_types(task.labels) if task.name == "polish-ner" else task.labels))


def sentences(task: Task, split: str, n: int, seed: int, max_words: int) -> list[dict[str, list[str]]]:
    """At most ``n`` sentences drawn by ``seed``: their first ``max_words`` words and tags, where these hold a span.

    Names in Polish get four types and marked capitals. Returns dicts of ``tokens`` and ``tags``, all lists of str.
    Source: lesson 04, section 6.
    """
    from instructlab_utils.tasks import subsample

    rows = task.splits[split]
    tagged = [i for i, tags in enumerate(rows["tags"]) if set(tags[:max_words]) != {"O"}]
    found = []
    for row in subsample(rows.select(tagged), min(n, len(tagged)), seed):
        words, tags = row["tokens"][:max_words], row["tags"][:max_words]
        if task.name == "polish-ner":
            words, tags = mark_capitals(words), conll_types(tags)
        found.append({"tokens": words, "tags": tags})
    return found


def align_labels(words: Sequence[int | None], labels: Sequence[int]) -> list[int]:
    """One label per piece: that of its word on the word's first piece, -100 on all other pieces.

    Args:
        words: for each piece the index of its word, None for special tokens (``encoding.word_ids()``).
        labels: one label per word.

    Source: lesson 04, section 2.
    """
    aligned, previous = [], None
    for word in words:
        aligned.append(-100 if word is None or word == previous else labels[word])
        previous = word
    return aligned


def encode(rows: Iterable[dict[str, Any]], tokenizer: Any, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Examples for ``training.train``, without padding or cutting. Rows need ``tokens`` and ``tags``.

    Returns dicts of ``input_ids`` and ``labels``, two lists of the same length, in the order of ``rows``.
    Source: lesson 04, section 2.

    Raises:
        DataError: a row has not one tag for each token, a tag is not one of ``labels`` (or stands there twice), or a word has
            no piece, so that it would get no tag.
    """
    index, examples = {label: k for k, label in enumerate(listed(labels, "labels"))}, []
    if len(index) != len(labels):
        raise DataError("a label stands twice among the labels: its number would be ambiguous")
    for number, row in enumerate(rows):
        words, tags = (listed(row[name], f"row {number}: {name}") for name in ("tokens", "tags"))
        if len(words) != len(tags):
            raise DataError(f"row {number}: {len(words)} tokens and {len(tags)} tags; there must be one each")
        if unknown := set(tags) - set(index):
            raise DataError(f"row {number}: {sorted(unknown)[0]!r} is not one of the {len(index)} labels")
        encoded = tokenizer(words, is_split_into_words=True, split_special_tokens=True)
        aligned = align_labels(encoded.word_ids(), [index[tag] for tag in tags])
        if sum(label != IGNORED for label in aligned) != len(words):
            raise DataError(f"row {number}: a word has no piece; replace it before the tokenizer removes it")
        examples.append({"input_ids": encoded["input_ids"], "labels": aligned})
    return examples


def read_tags(tags: Iterable[str]) -> list[tuple[str, str]]:
    """(prefix, name) of each BIO tag: ``B-name``, ``I-name``, and ("O", "") for ``O``; the name of a bare B or I is ``_``.

    Raises DataError for a tag of another scheme, and for a text in the place of a list.
    Source: the schemes of seqeval; lesson 04, section 3.
    """
    if isinstance(tags, str):
        raise DataError(f"{tags!r} is one text: give a list of tags")
    read = []
    for tag in tags:
        prefix, _, kind = str(tag).partition("-")
        if (prefix not in ("B", "I") and tag != "O") or kind != kind.strip("-"):
            raise DataError(f"{tag!r} is no tag of the scheme BIO: turn it into O, B-name or I-name first")
        read.append((prefix, "" if prefix == "O" else kind or "_"))
    return read


def spans_of(tags: Sequence[str]) -> list[Span]:
    """The spans of a tag sequence, read strictly: only B opens one, only I of the same name continues it.

    Returns (name, begin, end) in order, ``end`` exclusive. An I that continues nothing belongs to no span.
    Equal to seqeval's strict mode with the scheme IOB2. Raises DataError as :func:`read_tags`. Source: lesson 04, section 3.
    """
    spans, name, begin = [], "", 0
    for i, (prefix, kind) in enumerate([*read_tags(tags), ("O", "")]):  # the last O closes a span at the end
        if name and (prefix != "I" or kind != name):
            spans.append((name, begin, i))
            name = ""
        if prefix == "B":
            name, begin = kind, i
    return spans


def repair(tags: Sequence[str]) -> list[str]:
    """The tags with every I that continues nothing turned into a B, which is how seqeval reads BIO tags by default.

    Raises DataError as :func:`read_tags`. Source: lesson 04, section 3.
    """
    repaired, before = [], ""
    for tag, (prefix, kind) in zip(tags, read_tags(tags), strict=True):
        repaired.append("B" + tag[1:] if prefix == "I" and kind != before else tag)
        before = kind
    return repaired


def legal_transitions(labels: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Scores of starting with a label, (K,), and of going from label j to label k, (K, K): 0 if legal, else -inf.

    I-name may follow only B-name or I-name; everything else may follow everything. Float32.
    Raises DataError as :func:`read_tags`. Source: lesson 04, section 5.
    """

    def score(before: str, after: tuple[str, str]) -> float:
        prefix, kind = after
        return -torch.inf if prefix == "I" and kind != before else 0.0

    read = read_tags(labels)
    start = torch.tensor([score("", after) for after in read])
    return start, torch.tensor([[score(before, after) for after in read] for _, before in read])


def viterbi(scores: Tensor, start: Tensor, transition: Tensor) -> list[int]:
    """The path y that maximises start[y_1] + Σ_t scores[t, y_t] + Σ_t transition[y_{t-1}, y_t].

    Args:
        scores: (T, K), T > 0; logits will do, since a constant per position moves no maximum.
        start: (K,); transition: (K, K), from row to column; -inf forbids.

    Returns:
        T label indices. Source: Viterbi (1967); lesson 04, section 5.

    Raises:
        DataError: other shapes, which would broadcast, or no path with a score: NaN, or all are forbidden.
    """
    shapes = [tuple(part.shape) for part in (scores, start, transition)]
    if not scores.numel() or shapes[1:] != [shapes[0][1:], shapes[0][1:] * 2]:
        raise DataError(f"scores, start and transition are {shapes}: need (T, K), (K,), (K, K), T > 0")
    best, pointers = scores[0] + start, []
    for s in scores[1:]:
        value, pointer = (best[:, None] + transition).max(dim=0)
        best = value + s
        pointers.append(pointer.tolist())
    if not best.max() > -torch.inf:
        raise DataError("no path has a score: there is a NaN, or every path is forbidden")
    path = [int(best.argmax())]
    for pointer in reversed(pointers):
        path.append(pointer[path[-1]])
    return path[::-1]
