"""The methods, each with the values that it may try: majority, two kinds of TF-IDF, a frozen encoder, LoRA, full tuning."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from instructlab_utils.characters import words_of_text

SMOOTH = 1e-3  # probability that every prediction shares among all classes, so that no loss is infinite
LONGEST = 4000  # characters of a text that TF-IDF counts


@dataclass(frozen=True)
class Contender:
    """A method, ``called`` so inside a sentence. Trials try the first of its ``values``, as many as the time pays for.
    The order of :data:`CONTENDERS` is that of the price, cheapest first; the first three need no encoder."""

    key: str
    name: str
    called: str
    values: tuple[float, ...]
    knob: str


CONTENDERS = (
    Contender("majority", "majority class", "the majority class", (), ""),
    Contender("words", "TF-IDF, words", "TF-IDF of words", (10.0, 1.0, 100.0), "C"),
    Contender("characters", "TF-IDF, characters", "TF-IDF of characters", (10.0, 1.0, 100.0), "C"),
    Contender("frozen", "frozen encoder", "a frozen encoder", (10.0, 1.0, 100.0), "C"),
    Contender("lora", "LoRA, rank 8", "LoRA", (3e-3, 1e-2, 1e-3), "rate"),
    Contender("full", "full tuning", "full tuning", (3e-4, 1e-4, 1e-3), "rate"),
)
BY_KEY = {one.key: one for one in CONTENDERS}


def smoothed(p: np.ndarray) -> np.ndarray:
    """(1 − ε) p + ε / K with ε = 0.001, for probabilities (N, K)."""
    return (1 - SMOOTH) * p + SMOOTH / p.shape[1]


def counted(texts: Sequence[str], kind: str, spaced: bool, most: int = 30_000) -> Any:
    """Counts of words and pairs of words, or of runs of characters: a sparse matrix (N, at most ``most``).

    Which runs are counted depends on all texts and on no label. Raises nothing for texts without a word.
    """
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import CountVectorizer

    cut = [text[:LONGEST] for text in texts]
    if kind == "words":
        analyzer: Any = _words_and_pairs
        how: dict[str, Any] = {}
    else:
        analyzer = "char_wb" if spaced else "char"
        how = {"ngram_range": (2, 4) if spaced else (1, 3), "lowercase": True}
    try:
        return CountVectorizer(
            analyzer=analyzer, min_df=2, max_features=most, dtype=np.float64, **how
        ).fit_transform(cut)
    except ValueError:  # no word stands in two texts
        return csr_matrix((len(cut), 1))


def _words_and_pairs(text: str) -> list[str]:
    words = words_of_text(text)
    return words + [f"{a} {b}" for a, b in pairwise(words)]


def weighted(counts: Any, train: np.ndarray) -> Any:
    """TF-IDF with 1 + log tf, rows of norm 1; document frequencies are those of the rows ``train``."""
    from sklearn.feature_extraction.text import TfidfTransformer

    return TfidfTransformer(sublinear_tf=True).fit(counts[train]).transform(counts)


def linear(
    x: Any, y: np.ndarray, C: float, classes: int, iterations: int = 150
) -> Callable[[Any], np.ndarray]:
    """Multinomial logistic regression with L2 penalty 1 / C on sparse or dense ``x``; returns x → smoothed (N, classes).

    A class that does not occur in ``y`` gets the smoothing's probability only.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    known = np.unique(y)

    def widened(p: np.ndarray) -> np.ndarray:
        out = np.zeros((len(p), classes))
        out[:, known] = p
        return smoothed(out)

    if len(known) == 1:
        return lambda new: widened(np.ones((new.shape[0], 1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        steps = iterations if len(known) <= 10 else iterations // 3  # many classes: a step costs more
        net = LogisticRegression(C=C, max_iter=steps, tol=1e-3).fit(x, y)
    return lambda new: widened(net.predict_proba(new))


def shares(y: np.ndarray, classes: int, rows: int) -> np.ndarray:
    """The majority method: the shares of the labels for every text, (rows, classes)."""
    return smoothed(np.tile(np.bincount(y, minlength=classes) / len(y), (rows, 1)))


def log_loss(p: np.ndarray, y: np.ndarray) -> float:
    """Mean of −ln p of the label, nats."""
    return float(-np.log(p[np.arange(len(y)), y]).mean())
