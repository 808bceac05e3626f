"""Scores. They call a library where there is one; the lessons write those by hand and compare."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def accuracy(targets: Sequence[int], predictions: Sequence[int]) -> float:
    """Share of equal entries, in 0…1. Source: lesson 03, section 6."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(targets, predictions))


def macro_f1(targets: Sequence[int], predictions: Sequence[int]) -> float:
    """Unweighted mean of the F1 of every class that occurs in ``targets`` or ``predictions``; 0 where it is undefined.

    Source: lesson 03, section 6.
    """
    from sklearn.metrics import f1_score

    return float(f1_score(targets, predictions, average="macro", zero_division=0))


def _streams(texts: Sequence[str], references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """References in sacrebleu's shape: stream j holds the j-th reference of every text, None where there is none."""
    if not texts or len(texts) != len(references) or not all(references):
        raise ValueError(
            f"{len(texts)} texts, {len(references)} lists of references: need one non-empty list for each text"
        )
    longest = max(len(each) for each in references)
    return [[each[j] if j < len(each) else None for each in references] for j in range(longest)]


def bleu(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU, in 0…100, of ``texts[i]`` against its ``references[i]`` (one or several), by sacrebleu's defaults.

    Raises ValueError where a text has no reference. Source: Papineni et al. (2002), Post (2018); lesson 06, section 7.
    """
    import sacrebleu

    return float(sacrebleu.corpus_bleu(list(texts), _streams(texts, references)).score)  # type: ignore[arg-type]


def chrf(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus chrF, in 0…100: character n-grams up to 6, recall counts twice. Arguments and errors as :func:`bleu`.

    Source: Popović (2015); lesson 06, section 7.
    """
    import sacrebleu

    return float(sacrebleu.corpus_chrf(list(texts), _streams(texts, references)).score)  # type: ignore[arg-type]


def rouge_l(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean ROUGE-L F1, in 0…1, without stemming; of several references the best one counts. Arguments as :func:`bleu`.

    Source: Lin (2004); lesson 06, section 7.
    """
    from rouge_score.rouge_scorer import RougeScorer

    _streams(texts, references)  # its errors
    scorer = RougeScorer(["rougeL"])
    best = (
        scorer.score_multi(each, text)["rougeL"].fmeasure
        for text, each in zip(texts, references, strict=True)
    )
    return float(np.mean(list(best)))


def expected_calibration_error(probabilities: ArrayLike, targets: Sequence[int], bins: int = 10) -> float:
    """Mean distance between confidence and accuracy, in 0…1: sum over bins of (n_b / N) |accuracy_b − confidence_b|.

    ``probabilities`` is (N, K); the confidence is the largest of a row, and falls into one of ``bins`` bins of equal width,
    each closed on the right. Source: Guo et al. (2017); lesson 07, section 7.
    """
    p = np.asarray(probabilities, dtype=float)
    confidence, hit = p.max(1), p.argmax(1) == np.asarray(targets)
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(bin_of, hit - confidence, bins)  # n_b (accuracy_b - confidence_b)
    return float(np.abs(gaps).sum() / len(p))


def fit_temperature(
    logits: ArrayLike, targets: Sequence[int], low: float = 0.01, high: float = 100.0
) -> float:
    """The T in ``low``…``high`` for which softmax(logits / T) has the smallest cross-entropy; logits are (N, K).

    With s = 1 / T the loss is convex and its slope is the mean of Σ_k p_k z_k − z_y; bisection finds where it is 0.
    Source: Guo et al. (2017); lesson 07, section 7.
    """
    from scipy.special import softmax

    z, y = np.asarray(logits, dtype=float), np.asarray(targets)
    small, large = 1 / high, 1 / low
    for _ in range(60):
        s = np.sqrt(small * large)
        slope = ((softmax(s * z, axis=1) * z).sum(1) - z[np.arange(len(y)), y]).mean()
        small, large = (s, large) if slope < 0 else (small, s)
    return float(1 / np.sqrt(small * large))


def normalize_answer(text: str) -> str:
    """Lower case, without ASCII punctuation, without the words a, an, the, single spaces: SQuAD's own rule, in its order.

    Source: Rajpurkar et al. (2016), the script evaluate-v1.1.py; lesson 05, section 6.
    """
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def squad_em_f1(prediction: str, answers: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 over the words, each in 0…1 and each against the answer that fits best.

    No ``answers`` means unanswerable: then only an empty prediction is right. As in version 2.0 of the official script,
    F1 is exact match where one side has no words left; version 1.1 gives 0 there.
    Source: Rajpurkar et al. (2016); lesson 05, section 6.
    """
    guess, best_em, best_f1 = normalize_answer(prediction).split(), 0.0, 0.0
    for answer in answers or [""]:
        truth = normalize_answer(answer).split()
        common = sum((Counter(guess) & Counter(truth)).values())
        exact = float(guess == truth)
        f1 = 2 * common / (len(guess) + len(truth)) if guess and truth else exact
        best_em, best_f1 = max(best_em, exact), max(best_f1, f1)
    return best_em, best_f1


def span_f1(targets: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]) -> float:
    """Micro F1 of whole spans over all sentences, by seqeval in its strict mode (scheme IOB2); 0 where there is none.

    Both arguments hold one list of BIO tags per sentence. In strict mode an I that continues nothing opens no span.
    Source: lesson 04, section 3.
    """
    from seqeval.metrics import f1_score
    from seqeval.scheme import IOB2

    found = f1_score(list(targets), list(predictions), mode="strict", scheme=IOB2, zero_division=0)
    return float(found)


def pareto_front(points: ArrayLike) -> np.ndarray:
    """Which rows of ``points``, shape (n, d), no other row dominates: n times True or False. Larger is better everywhere.

    A row dominates another if it is nowhere worse and somewhere better, so equal rows do not dominate each other. Give a
    cost with a minus sign. Raises ValueError for NaN, which is neither better nor worse. Source: lesson 11, section 5.
    """
    p = np.asarray(points, dtype=float)
    if p.ndim != 2 or np.isnan(p).any():
        raise ValueError(f"points must be numbers in rows and columns, without NaN; got shape {p.shape}")
    nowhere_worse = (p[:, None] >= p).all(2)
    somewhere_better = (p[:, None] > p).any(2)
    return ~(nowhere_worse & somewhere_better).any(0)  # type: ignore[return-value]
