"""Scores and their uncertainty. Scores call a library where there is one; lesson 03 writes those by hand and compares."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Interval:
    """A point estimate with the ends of its confidence interval, in the unit of the data."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def accuracy(targets: Sequence[int], predictions: Sequence[int]) -> float:
    """Share of equal entries, in 0…1."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(targets, predictions))


def macro_f1(targets: Sequence[int], predictions: Sequence[int]) -> float:
    """Unweighted mean of the F1 of every class that occurs in ``targets`` or ``predictions``; 0 where it is undefined."""
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
    """
    from seqeval.metrics import f1_score
    from seqeval.scheme import IOB2

    found = f1_score(list(targets), list(predictions), mode="strict", scheme=IOB2, zero_division=0)
    return float(found)


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Student's t interval of the mean of ``values``, one per seed; for paired methods pass the differences.

    Raises ValueError for fewer than two values. Source: Student (1908); lesson 03, section 6.
    """
    from scipy import stats

    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or len(x) < 2:
        raise ValueError(
            f"an interval over seeds needs at least 2 values in one dimension, got shape {x.shape}"
        )
    half = stats.t.ppf(0.5 + level / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))
    return Interval(float(x.mean()), float(x.mean() - half), float(x.mean() + half))


def wilson_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share, for the accuracy of one run on ``n`` test examples.

    Source: Wilson (1927); lesson 03, section 6. Raises ValueError unless 0 <= successes <= n and n > 0.
    """
    from scipy import stats

    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"successes must be in 0..n and n positive, got {successes} of {n}")
    z, p = stats.norm.ppf(0.5 + level / 2), successes / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return Interval(p, float(centre - half), float(centre + half))


def paired_bootstrap(
    a: ArrayLike, b: ArrayLike, samples: int = 10_000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile interval of mean(a) - mean(b), where ``a[i]`` and ``b[i]`` score the same test example.

    Examples are drawn with replacement, always in pairs. Source: Efron (1979); lesson 03, section 6.
    """
    d = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    rng = np.random.default_rng(seed)
    means = np.array([d[rng.integers(0, len(d), len(d))].mean() for _ in range(samples)])
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(float(d.mean()), float(low), float(high))


def _t_statistic(values: ArrayLike, threshold: float) -> tuple[float, int]:
    """Student's t of the mean against ``threshold``, and its degrees of freedom; NaN where all values equal it."""
    x = np.asarray(values, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float((x.mean() - threshold) / (x.std(ddof=1) / np.sqrt(len(x)))), len(x) - 1


def t_test(values: ArrayLike, threshold: float = 0.0) -> float:
    """Two-sided p-value of Student's t test that the mean of ``values`` is ``threshold``; NaN where all equal it.

    Source: Student (1908). It is below alpha exactly where the (1 - alpha) :func:`t_interval` leaves the threshold out.
    """
    from scipy import special  # stats.ttest_1samp says the same, a hundred times slower

    t, df = _t_statistic(values, threshold)
    return float(2 * special.stdtr(df, -abs(t)))


def tost(values: ArrayLike, margin: float) -> float:
    """P-value of two one-sided t tests that the mean of ``values`` does not lie within ±``margin``; small: it does.

    It is below alpha exactly where the (1 - 2 alpha) :func:`t_interval` lies inside the margin. NaN where all values
    equal the margin. Source: Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15 (1987).
    """
    from scipy import special

    (low, df), (high, _) = _t_statistic(values, -margin), _t_statistic(values, margin)
    return float(np.max([special.stdtr(df, -low), special.stdtr(df, high)]))


def holm(p_values: ArrayLike) -> np.ndarray:
    """P-values corrected for their number, shape as given: those below alpha may be rejected together.

    The chance of one false rejection or more is at most alpha. Source: Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


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
