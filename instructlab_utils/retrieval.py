"""Finding the passage that holds an answer: words that match (BM25), vectors that lie near, two lists made one, and measures.

Passages are numbered 0 … N - 1; scores are float64 of shape (N,), the larger the better. Built in lesson 24, sections 2 to 5.

Taught in lesson 24.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from instructlab_utils.arguments import listed
from instructlab_utils.characters import words_of_text
from instructlab_utils.errors import ParameterError

KINDS = ("robertson", "okapi", "lucene")


def rarity(n: Tensor, N: int, kind: str = "lucene") -> Tensor:
    """The idf of words that stand in ``n`` of ``N`` passages, float64, shape of ``n``.

    ``robertson``: ln((N - n + 0.5) / (n + 0.5)), below 0 for a word in more than half of the passages. ``okapi``, as in
    rank-bm25's BM25Okapi: where that is below 0, a quarter of the mean over all words instead. ``lucene``: ln(1 + the same
    fraction), above 0 everywhere. Raises ParameterError for another kind and for an ``n`` that is not in 0 … N.

    Source: Robertson and Zaragoza (2009), equation 3.3; lesson 24, section 2.
    """
    n = torch.as_tensor(n).double()
    if kind not in KINDS or not ((n >= 0) & (n <= N)).all():
        raise ParameterError(f"idf {kind!r} of {n.tolist()} in {N}: choose {', '.join(KINDS)}, counts 0 … N")
    odds = (N - n + 0.5) / (n + 0.5)
    if kind == "lucene":
        return (1 + odds).log()
    found = odds.log()
    return found.where((found >= 0) | (kind == "robertson"), 0.25 * found.mean())


def saturation(f: Tensor, length: Tensor, k1: float, b: float) -> Tensor:
    """f (k1 + 1) / (f + k1 (1 - b + b · length)): what ``f`` occurrences of a word count, float64; 0 for none.

    ``length``: that of the passage, divided by the mean length. Raises ParameterError for k1 below 0 and b outside 0 … 1.
    Source: Robertson and Zaragoza (2009), equation 3.15; lesson 24, section 2.
    """
    if not (k1 >= 0 and 0 <= b <= 1):
        raise ParameterError(f"k1 is {k1}, b is {b}: choose k1 from 0, and b from 0 to 1")
    f = torch.as_tensor(f).double()
    return torch.where(f > 0, f * (k1 + 1) / (f + k1 * (1 - b + b * length)).clamp(min=1e-300), 0.0)


class BM25:
    """Scores of passages by the words that they share with a question.

    ``texts``: N passages, one at least; words are those of `characters.words_of_text`. An empty passage scores 0 everywhere.
    Raises ParameterError for no passage, TypeError for one that is no text. Source: lesson 24, section 2.
    """

    def __init__(self, texts: Sequence[str], k1: float = 1.5, b: float = 0.75, kind: str = "lucene") -> None:
        words = [words_of_text(text) for text in listed(texts, "texts")]
        if not words:
            raise ParameterError("no passage: there is nothing to search")
        self.N, lengths = len(words), torch.tensor([len(each) for each in words]).double()
        lengths = lengths / lengths.mean().clamp(min=1e-300)
        found: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for place, each in enumerate(words):
            for word, times in Counter(each).items():
                found[word].append((place, times))
        idf = rarity(torch.tensor([len(pairs) for pairs in found.values()]), self.N, kind)
        self.weights: dict[str, tuple[Tensor, Tensor]] = {}
        for (word, pairs), value in zip(found.items(), idf, strict=True):
            places, times = torch.tensor(pairs).T
            self.weights[word] = places, value * saturation(times, lengths[places], k1, b)

    def scores(self, question: str) -> Tensor:
        """Float64 (N,): the sum over the question's words, a repeated word again. Unknown words count nothing."""
        total = torch.zeros(self.N, dtype=torch.float64)
        for word in filter(self.weights.__contains__, words_of_text(question)):
            total.index_add_(0, *self.weights[word])
        return total


def cosines(questions: Tensor, passages: Tensor) -> Tensor:
    """Cosine of each question (Q, d) with each passage (N, d), float64 (Q, N). ParameterError for a row without direction."""
    units = []
    for rows in (questions.double(), passages.double()):
        lengths = rows.norm(dim=1, keepdim=True)
        if not ((lengths > 0) & lengths.isfinite()).all():
            raise ParameterError("a row is zero or not finite: it has no direction")
        units.append(rows / lengths)
    return units[0] @ units[1].T


def ranking(scores: Tensor) -> Tensor:
    """The numbers of the passages from best to worst, int64 of the shape of ``scores`` (…, N); of equals the first first.

    Raises ParameterError for NaN, which stands nowhere. Source: lesson 24, section 2.
    """
    if scores.isnan().any():
        raise ParameterError("a score is NaN: it has no place in an order")
    return scores.sort(dim=-1, descending=True, stable=True).indices


def fused(lists: Sequence[Tensor], k: float = 60.0) -> Tensor:
    """Reciprocal rank fusion: the sum over lists of 1 / (k + place), float64 of shape (…, N); places begin at 1.

    ``lists``: scores of the same passages, each of shape (…, N), in any unit: only their order counts.
    Raises ParameterError for no list, other shapes, and k at -1 or below.
    Source: Cormack, Clarke and Büttcher (2009); lesson 24, section 4.
    """
    if not lists or len({each.shape for each in lists}) != 1 or not k > -1:
        raise ParameterError(f"{len(lists)} lists, k = {k}: give lists of one shape, and k above -1")
    total = torch.zeros(lists[0].shape, dtype=torch.float64)
    for scores in lists:
        total += 1 / (k + 1 + ranking(scores).argsort(dim=-1).double())
    return total


def place_of(scores: Tensor, right: Tensor) -> Tensor:
    """Where the right passage stands in each row's :func:`ranking`, from 1 (lesson 24).

    Scores (Q, N), right (Q,); int64 (Q,).
    """
    return (ranking(scores) == right[:, None]).nonzero()[:, 1] + 1


def measures(places: Tensor) -> dict[str, float]:
    """What lists with one right passage each are worth, by its places (Q,), from 1.

    ``recall1``, ``recall5``, ``recall20``: share in the first so many. ``mrr``: mean of 1 / place. ``ndcg10``: mean of
    1 / log2(1 + place), 0 after place 10. ``log_place``: mean of ln(place). ParameterError for no place, or one below 1.
    Source: Järvelin and Kekäläinen (2002) for nDCG; lesson 24, section 3.
    """
    if places.numel() == 0 or (places < 1).any():
        raise ParameterError("no place, or one below 1: places are counted from 1")
    p = places.double()
    found = {f"recall{k}": (p <= k).double().mean().item() for k in (1, 5, 20)}
    gain = torch.where(p <= 10, 1 / (1 + p).log2(), 0.0).mean().item()
    return found | {"mrr": (1 / p).mean().item(), "ndcg10": gain, "log_place": p.log().mean().item()}


@dataclass(frozen=True)
class Corpus:
    """Passages cut from the contexts of questions. ``texts``: N passages; ``articles``: where each is from.

    ``spans``: context → (number of its first passage, the characters where each of its passages begins).
    Source: lesson 24, section 1.
    """

    texts: list[str]
    articles: list[str]
    spans: dict[str, tuple[int, list[int]]]

    def place(self, row: Mapping[str, Any]) -> int:
        """The number of the passage in which the row's first answer begins."""
        first, begins = self.spans[row["context"]]
        return first + sum(begin <= row["starts"][0] for begin in begins) - 1


def sentences_of(text: str, most: int) -> list[int]:
    """The characters where pieces of ``text`` begin: whole sentences, as many as ``most`` words hold, one at least."""
    borders = [0, *(m.end() for m in re.finditer(r"(?<=[.!?])\s+(?=\S)", text)), len(text)]
    begins = [0]
    for left, right in pairwise(borders):
        if left > begins[-1] and len(text[begins[-1] : right].split()) > most:
            begins.append(left)
    return begins


def corpus(rows: Iterable[Mapping[str, Any]], most: int = 60) -> Corpus:
    """All contexts of QA rows, each once, in the order of article and text, cut by :func:`sentences_of`.

    Rows have ``context`` and ``group``, the article. Source: lesson 24, section 1.
    """
    contexts = sorted({(row["group"], row["context"]) for row in rows})
    found = Corpus([], [], {})
    for article, context in contexts:
        begins = sentences_of(context, most)
        found.spans[context] = len(found.texts), begins
        for begin, end in pairwise([*begins, len(context)]):
            found.texts.append(context[begin:end].strip())
            found.articles.append(article)
    return found


def choices(
    rows: Sequence[Mapping[str, Any]], everything: Iterable[Mapping[str, Any]], most: int = 60
) -> tuple[dict[str, list[list[str]]], list[float]]:
    """Three passages for each question, each as a list of one line, and whether the first is the second (1.0 or 0.0).

    The passages are those of :func:`corpus` of ``everything``. ``retrieved``: the best by BM25; ``gold``: the one in which
    the first answer begins; ``wrong``: the best of those in which no answer stands. Source: lesson 24, section 6.
    """
    found = corpus(everything, most)
    store, texts = BM25(found.texts), [text.lower() for text in found.texts]
    orders = [ranking(store.scores(row["question"])).tolist() for row in rows]
    wrong = [
        next(i for i in order if not any(answer.lower() in texts[i] for answer in row["answers"]))
        for row, order in zip(rows, orders, strict=True)
    ]
    places = {
        "retrieved": [order[0] for order in orders],
        "gold": [found.place(row) for row in rows],
        "wrong": wrong,
    }
    hits = [float(a == b) for a, b in zip(places["retrieved"], places["gold"], strict=True)]
    return {name: [[found.texts[i]] for i in each] for name, each in places.items()}, hits
