"""Scores. They call a library where there is one; the lessons write those by hand and compare."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from instructlab_utils.arguments import classes, distributions, listed, nested, scored, whole
from instructlab_utils.characters import composed, script_of, words_of_text

# script → name in sacrebleu
TOKENIZERS = {"latin": "13a", "chinese": "zh", "unspaced": "char", "other": "intl"}


class Score(float):
    """A number that knows how the texts were cut: ``tokenizer`` is the name to quote with it (lesson 06, section 7)."""

    tokenizer: str

    def __new__(cls, value: float, tokenizer: str) -> Score:
        score = super().__new__(cls, value)
        score.tokenizer = tokenizer
        return score


def _classes(targets: ArrayLike, predictions: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    truth, found = classes(targets, "targets"), classes(predictions, "predictions")
    if len(truth) != len(found):
        raise ValueError(f"{len(truth)} targets and {len(found)} predictions: need one for each")
    return truth, found


def accuracy(targets: ArrayLike, predictions: ArrayLike) -> float:
    """Share of equal entries, in 0…1; both are class numbers, (n,). Source: lesson 03, section 6.

    Raises ValueError for unequal lengths, and for what is no class: a negative number, a fraction, NaN, nothing at all.
    """
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(*_classes(targets, predictions)))


def macro_f1(targets: ArrayLike, predictions: ArrayLike) -> float:
    """Unweighted mean of the F1 of every class that occurs in ``targets`` or ``predictions``; 0 where it is undefined.

    Arguments and errors as :func:`accuracy`. Source: lesson 03, section 6.
    """
    from sklearn.metrics import f1_score

    return float(f1_score(*_classes(targets, predictions), average="macro", zero_division=0))


def _composed(texts: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """The checked arguments, in Unicode's composed form: é in one character and in two is the same text."""
    said, wanted = listed(texts, "texts"), nested(references, "references")
    if not said or len(said) != len(wanted) or not all(wanted):
        raise ValueError(
            f"{len(said)} texts, {len(wanted)} lists of references: need one non-empty list for each text"
        )
    return list(map(composed, said)), [list(map(composed, each)) for each in wanted]


def _streams(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """References in sacrebleu's shape: stream j holds the j-th reference of every text, None where there is none."""
    longest = max(len(each) for each in references)
    return [[each[j] if j < len(each) else None for each in references] for j in range(longest)]


def bleu(texts: Sequence[str], references: Sequence[Sequence[str]], tokenizer: str = "auto") -> Score:
    """Corpus BLEU, in 0…100, of ``texts[i]`` against its ``references[i]`` (one or several), by sacrebleu.

    ``tokenizer`` is one of sacrebleu's: ``13a`` (its default), ``intl``, ``zh``, ``char``, ``none`` … With ``auto`` the
    script of most words of the references chooses: 13a for Latin letters, zh for Chinese, char for other scripts without
    spaces, such as Japanese or Thai, intl for all others. The result's ``tokenizer`` says which: scores of two tokenizers
    cannot be compared. Texts are compared in Unicode's composed form (NFC). 0 where no text has four words.

    Raises TypeError where a text stands in place of a list, ValueError where a text has no reference, or for an unknown
    tokenizer. Source: Papineni et al. (2002), Post (2018); lesson 06, section 7.
    """
    import sacrebleu

    said, wanted = _composed(texts, references)
    name = tokenizer
    if tokenizer == "auto":
        name = TOKENIZERS[script_of([text for each in wanted for text in each])]
    elif tokenizer not in sacrebleu.BLEU.TOKENIZERS:
        raise ValueError(
            f"unknown tokenizer {tokenizer!r}: choose auto or one of {sacrebleu.BLEU.TOKENIZERS}"
        )
    found = sacrebleu.corpus_bleu(said, _streams(wanted), tokenize=name)  # type: ignore[arg-type]
    return Score(found.score, name)


def chrf(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus chrF, in 0…100: character n-grams up to 6, recall counts twice; sacrebleu's defaults, on NFC.

    Arguments and errors as :func:`bleu`; every script is cut alike, into characters.
    Source: Popović (2015); lesson 06, section 7.
    """
    import sacrebleu

    said, wanted = _composed(texts, references)
    return float(sacrebleu.corpus_chrf(said, _streams(wanted)).score)  # type: ignore[arg-type]


class _Words:
    """In the place of rouge_score's tokenizer, which takes every letter but a…z for a space."""

    def tokenize(self, text: str) -> list[str]:
        return words_of_text(text.replace("_", " "))


def rouge_l(texts: Sequence[str], references: Sequence[Sequence[str]], tokenizer: str = "unicode") -> Score:
    """Mean ROUGE-L F1, in 0…1, without stemming; of several references the best one counts. Arguments as :func:`bleu`.

    ``tokenizer``: ``unicode``, the words of `characters` (in Chinese each character, and emoji), or ``ascii``, the one of the
    package rouge_score, for which only a-z and 0-9 are letters. Where all letters are ASCII both give the same.
    Source: Lin (2004); lesson 06, section 7.
    """
    from rouge_score.rouge_scorer import RougeScorer

    said, wanted = _composed(texts, references)
    if tokenizer not in ("unicode", "ascii"):
        raise ValueError(f"unknown tokenizer {tokenizer!r}: choose unicode or ascii")
    scorer = RougeScorer(["rougeL"], tokenizer=_Words() if tokenizer == "unicode" else None)
    best = [scorer.score_multi(*pair)["rougeL"].fmeasure for pair in zip(wanted, said, strict=True)]
    return Score(float(np.mean(best)), tokenizer)


def expected_calibration_error(probabilities: ArrayLike, targets: ArrayLike, bins: int = 10) -> float:
    """Mean distance between confidence and accuracy, in 0…1: sum over bins of (n_b / N) |accuracy_b − confidence_b|.

    ``probabilities`` is (N, K); the confidence is the largest of a row, and falls into one of ``bins`` bins of equal width,
    each closed on the right. Raises ValueError for logits, for NaN, for another number of targets, or for a target that is
    no class from 0 to K − 1. Source: Guo et al. (2017); lesson 07, section 7.
    """
    p, y = distributions(probabilities, targets)
    confidence, hit = p.max(1), p.argmax(1) == y
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(bin_of, hit - confidence, whole(bins, "bins"))  # n_b (accuracy_b - confidence_b)
    return float(np.abs(gaps).sum() / len(p))


def fit_temperature(logits: ArrayLike, targets: ArrayLike, low: float = 0.01, high: float = 100.0) -> float:
    """The T in ``low``…``high`` for which softmax(logits / T) has the smallest cross-entropy; logits are (N, K).

    With s = 1 / T the loss is convex and its slope is the mean of Σ_k p_k z_k − z_y; bisection finds where it is 0.
    Raises ValueError for NaN or infinite logits, for another number of targets, or for a target that is no class.
    Source: Guo et al. (2017); lesson 07, section 7.
    """
    from scipy.special import softmax

    z, y = scored(logits, targets, "logits")
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
    """Exact match and F1 over the words, each in 0…1 and each against the answer that fits best: version 2.0's rule.

    Answers of which the normalisation leaves nothing do not count, unless there is no other. Without ``answers`` the question
    is unanswerable: then only a prediction of which nothing is left is right. Version 1.1 keeps such answers, and its F1 is 0
    where one side has no words; where every answer has words the two agree.
    Raises TypeError where ``answers`` is one text. Source: Rajpurkar et al. (2016, 2018); lesson 05, section 6.
    """
    guess, best_em, best_f1 = normalize_answer(prediction).split(), 0.0, 0.0
    truths = [normalize_answer(answer).split() for answer in listed(answers, "answers")]
    for truth in list(filter(None, truths)) or [[]]:
        common = sum((Counter(guess) & Counter(truth)).values())
        exact = float(guess == truth)
        f1 = 2 * common / (len(guess) + len(truth)) if guess and truth else exact
        best_em, best_f1 = max(best_em, exact), max(best_f1, f1)
    return best_em, best_f1


def span_f1(targets: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]) -> float:
    """Micro F1 of whole spans over all sentences, by seqeval in its strict mode (scheme IOB2); 0 where there is none.

    Both arguments hold one list of BIO tags per sentence. In strict mode an I that continues nothing opens no span.
    Raises DataError for a tag of another scheme (E-, S-, L-, U-), ValueError for lists of unequal length, TypeError for a
    text in the place of a list. Source: lesson 04, section 3.
    """
    from seqeval.metrics import f1_score
    from seqeval.scheme import IOB2

    from instructlab_utils.tagging import read_tags

    truth, found = nested(targets, "targets"), nested(predictions, "predictions")
    if [len(tags) for tags in truth] != [len(tags) for tags in found]:
        raise ValueError("targets and predictions must have the same sentences, with a tag for each word")
    read = [read_tags(tags) for tags in truth + found]
    if not any(read):
        return 0.0
    return float(f1_score(truth, found, mode="strict", scheme=IOB2, zero_division=0))


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
