"""Intervals cover what they promise; scores equal the official programs on hostile texts; wrong arguments are refused."""

from __future__ import annotations

import json
import random
import re
import string
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
import torch
from rouge_score.rouge_scorer import RougeScorer
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score

from instructlab_utils import intervals, metrics, tasks

ROOT = Path(__file__).resolve().parents[1]


def test_t_interval_equals_scipy():
    x = np.random.default_rng(0).normal(size=7)
    ours = intervals.t_interval(x)
    theirs = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-12)


def test_t_interval_covers_the_truth_19_times_in_20():
    rng = np.random.default_rng(1)
    found = [intervals.t_interval(rng.normal(2.0, 1.0, 5)) for _ in range(2000)]
    covered = np.mean([i.low <= 2.0 <= i.high for i in found])
    assert 0.935 <= covered <= 0.965


@pytest.mark.parametrize("values", [[], [1.0], [[1.0, 2.0], [3.0, 4.0]]])
def test_t_interval_refuses_too_few(values):
    with pytest.raises(ValueError, match="at least 2 values"):
        intervals.t_interval(values)


@pytest.mark.parametrize("hits,n", [(0, 10), (10, 10), (340, 400), (1, 3)])
def test_wilson_equals_scipy(hits, n):
    ours = intervals.wilson_interval(hits, n)
    theirs = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_wilson_refuses_the_impossible():
    for hits, n in ((-1, 5), (6, 5), (0, 0)):
        with pytest.raises(ValueError, match=r"successes must be in 0\.\.n"):
            intervals.wilson_interval(hits, n)


def test_paired_bootstrap_is_near_the_normal_interval_and_repeats():
    rng = np.random.default_rng(2)
    easy = rng.random(400)
    a, b = (
        (rng.random(400) < 0.1 + 0.8 * easy).astype(float),
        (rng.random(400) < 0.05 + 0.8 * easy).astype(float),
    )
    found = intervals.paired_bootstrap(a, b, samples=4000, seed=3)
    half = 1.96 * (a - b).std(ddof=1) / 20
    assert found.mean == pytest.approx((a - b).mean())
    assert (found.low, found.high) == pytest.approx(((a - b).mean() - half, (a - b).mean() + half), abs=0.008)
    assert found == intervals.paired_bootstrap(a, b, samples=4000, seed=3)


def test_paired_bootstrap_is_narrower_than_an_unpaired_one():
    rng = np.random.default_rng(4)
    a = (rng.random(400) < 0.8).astype(float)
    b = np.where(rng.random(400) < 0.05, 1 - a, a)
    paired = intervals.paired_bootstrap(a, b, samples=2000)
    shuffled = intervals.paired_bootstrap(a, rng.permutation(b), samples=2000)
    assert paired.high - paired.low < 0.6 * (shuffled.high - shuffled.low)


def test_scores():
    truth, answers = [0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 0, 2]
    assert metrics.accuracy(truth, answers) == pytest.approx(4 / 6)
    assert metrics.macro_f1(truth, answers) == pytest.approx(f1_score(truth, answers, average="macro"))
    assert str(intervals.Interval(0.5, 0.25, 0.75)) == "0.500 [0.250, 0.750]"


# --- other scripts ------------------------------------------------------------------------------------------------

SENTENCES = [
    ("Zażółć gęślą jaźń, bo żółw śpi.", "13a"),
    ("Die große Straße führt über die Brücke.", "13a"),
    ("我喜欢学习自然语言处理。", "zh"),
    ("私は東京でラーメンを食べました。", "char"),
    ("ฉันชอบเรียนภาษาไทย", "char"),
    ("أحب أن أدرس اللغة العربية كل يوم.", "intl"),
    ("मुझे हिन्दी में पढ़ना अच्छा लगता है।", "intl"),
    ("나는 매일 한국어 공부를 열심히 합니다.", "intl"),
    ("Я люблю изучать языки каждый день.", "intl"),
]


@pytest.mark.parametrize(("text", "tokenizer"), SENTENCES)
def test_a_text_scores_full_marks_against_itself_in_every_script(text, tokenizer):
    bleu, rouge = metrics.bleu([text], [[text]]), metrics.rouge_l([text], [[text]])
    assert bleu == pytest.approx(100) and bleu.tokenizer == tokenizer
    assert (
        rouge == 1 and rouge.tokenizer == "unicode" and metrics.chrf([text], [[text]]) == pytest.approx(100)
    )
    nfd = unicodedata.normalize("NFD", text)
    assert metrics.bleu([nfd], [[text]]) == pytest.approx(100) and metrics.rouge_l([text], [[nfd]]) == 1
    assert metrics.chrf([nfd], [[text]]) == pytest.approx(100)


@pytest.mark.parametrize(
    ("text", "reference", "score"),
    [
        ("żółć", "żółć", 1),
        ("größe", "grüße", 0),
        ("हिन्दी", "हिन्दा", 0),
        ("你好", "你坏", 0.5),
        ("👍", "👍", 1),
        ("👍", "👎", 0),
        ("５", "5", 1),
        ("ЯНВАРЬ", "январь", 1),
        ("!?", "!?", 0),  # no words, as in the official program
    ],
)
def test_rouge_l_by_hand(text, reference, score):
    assert metrics.rouge_l([text], [[reference]]) == score


def test_the_official_tokenizer_is_there_by_name():
    assert metrics.rouge_l(["größe"], [["grüße"]], tokenizer="ascii") == 1
    assert metrics.rouge_l(["żółć"], [["żółć"]], tokenizer="ascii") == 0
    chinese = ["我喜欢学习自然语言处理。"], [["我喜欢学习机器学习。"]]
    assert metrics.bleu(*chinese, tokenizer="13a") == sacrebleu.corpus_bleu(chinese[0], [chinese[1][0]]).score
    assert metrics.bleu(*chinese).tokenizer == "zh" and 0 < metrics.bleu(*chinese) < 100
    assert isinstance(metrics.bleu(*chinese), float) and json.loads(json.dumps(metrics.bleu(*chinese))) > 0
    answer = ["我喜欢学习"]  # what a model says does not choose the measure
    assert metrics.bleu(answer, [["I like to learn"]]).tokenizer == "13a"
    for score in (metrics.bleu, metrics.rouge_l):
        with pytest.raises(ValueError, match="unknown tokenizer 'no'"):
            score(["a"], [["a"]], tokenizer="no")


def test_english_scores_are_those_of_the_official_defaults():
    """Recorded results stand on them: our own instructions, and restaurants with their é and £."""
    path = ROOT / "data" / "instructions" / "course.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["language"] == "en"]
    texts = [row["text"] for row in rows]
    references = [row["paraphrases"] for row in rows]
    for row in tasks.load("e2e").splits["train"].select(range(120)).to_list():
        texts.append(row["targets"][0])
        references.append(row["targets"][1:] or row["targets"])
    assert len(texts) > 200 and any(not text.isascii() for text in texts)
    streams = metrics._streams(references)
    assert metrics.bleu(texts, references) == sacrebleu.corpus_bleu(texts, streams).score
    assert metrics.chrf(texts, references) == sacrebleu.corpus_chrf(texts, streams).score
    scorer = RougeScorer(["rougeL"])
    pairs = zip(texts, references, strict=True)
    assert metrics.rouge_l(texts, references) == np.mean([official_rouge(scorer, *pair) for pair in pairs])


# --- parity on hostile texts --------------------------------------------------------------------------------------

ASCII = "the The a an A. Denver denver Broncos 4 four don't U.S. - -- theatre a-b I'm an, _ a_b $5 ... ( ) THE. x1".split()
ASCII += ["", " ", "\n", "\t", '"', "<skipped>", "&quot;", "\x1f"]
OTHER = [
    "–",
    "—",
    "“the”",
    "’s",
    "Zürich",
    "ß",
    "é",
    "e\u0301",
    "«",
    "…",
    "。",
    "你好",
    "的",
    "カ",
    "हिन्दी",
    "।",
    "مرحبا",
    "؟",
]
OTHER += ["👍", "🇵🇱", "\u00a0", "\u200b", "İ", "ﬁ", "½", "£20", "ſ", "K"]  # a Kelvin sign at the end


def hostile(rng, words=ASCII + OTHER, most=6):
    return rng.choice(["", " ", " "]).join(rng.choice(words) for _ in range(rng.randint(0, most)))


def official_answer(text):
    """The function normalize_answer of SQuAD's evaluate-v1.1.py and evaluate-v2.0.py, in its four steps."""
    text = "".join(ch for ch in text.lower() if ch not in set(string.punctuation))
    return " ".join(re.compile(r"\b(a|an|the)\b", re.UNICODE).sub(" ", text).split())


def official_f1(answer, prediction, version):
    gold, found = (official_answer(text).split() for text in (answer, prediction))
    same = sum((Counter(gold) & Counter(found)).values())
    if version == 2 and (len(gold) == 0 or len(found) == 0):
        return int(gold == found)
    if same == 0:
        return 0
    precision, recall = 1.0 * same / len(found), 1.0 * same / len(gold)
    return (2 * precision * recall) / (precision + recall)


def official_squad(prediction, answers, version):
    """Rajpurkar et al. (2016, 2018): v1.1 takes the maximum over all answers, v2.0 drops those without words first."""
    if version == 2:
        answers = [answer for answer in answers if official_answer(answer)] or [""]
    em = max(int(official_answer(prediction) == official_answer(answer)) for answer in answers)
    return em, max(official_f1(answer, prediction, version) for answer in answers)


def test_squad_is_the_official_script_version_2():
    rng, kinds = random.Random(0), Counter()
    for _ in range(3000):
        prediction, answers = hostile(rng), [hostile(rng) for _ in range(rng.randint(0, 4))]
        if answers and rng.random() < 0.2:
            prediction = rng.choice(answers).upper() + rng.choice(["", "!", " the"])
        wanted = official_squad(prediction, answers, 2)
        assert metrics.squad_em_f1(prediction, answers) == pytest.approx(wanted, abs=1e-12)
        empty = [not official_answer(answer) for answer in answers]
        kinds["some answers empty"] += any(empty) and not all(empty)
        kinds["prediction empty"] += not official_answer(prediction)
        kinds["partly right"] += 0 < wanted[1] < 1
        if answers and not any(empty):  # where every answer has words both versions agree
            kinds["version 1.1"] += 1
            assert wanted == pytest.approx(official_squad(prediction, answers, 1), abs=1e-12)
    assert min(kinds.values()) > 200, kinds
    assert metrics.squad_em_f1("the", ["The!", "Denver"]) == (
        0,
        0,
    )  # an answer without words beside one with words


@pytest.mark.parametrize("tokenizer", ["13a", "intl", "zh", "char", "none"])
def test_bleu_is_sacrebleus(tokenizer):
    rng, between = random.Random(1), 0
    for _ in range(500):
        texts, references = corpus(rng)
        streams = [[each[j] if j < len(each) else None for each in references] for j in range(4)]
        streams = [stream for stream in streams if any(text is not None for text in stream)]
        theirs = sacrebleu.corpus_bleu(texts, streams, tokenize=tokenizer).score
        assert metrics.bleu(texts, references, tokenizer=tokenizer) == theirs
        between += 0 < theirs < 100
        assert metrics.chrf(texts, references) == sacrebleu.corpus_chrf(texts, streams).score
    assert between > 200


def corpus(rng, words=ASCII + OTHER):
    """A few composed texts, many with words of their references, and one to four references each."""
    texts, references = [], []
    for _ in range(rng.randint(1, 4)):
        each = [unicodedata.normalize("NFC", hostile(rng, words, 12)) for _ in range(rng.randint(1, 4))]
        text = (
            rng.choice(each) + " " + hostile(rng, words, 3) if rng.random() < 0.6 else hostile(rng, words, 12)
        )
        texts.append(unicodedata.normalize("NFC", text))
        references.append([unicodedata.normalize("NFC", one) for one in each])
    return texts, references


def official_rouge(scorer, text, references):
    return max(scorer.score(reference, text)["rougeL"].fmeasure for reference in references)


def test_rouge_l_is_that_of_rouge_score():
    """By name on everything, by default on ASCII."""
    rng, scorer, between = random.Random(2), RougeScorer(["rougeL"]), 0
    for i in range(2500):
        texts, references = corpus(rng, ASCII if i % 2 else ASCII + OTHER)
        pairs = zip(texts, references, strict=True)
        theirs = np.mean([official_rouge(scorer, *pair) for pair in pairs])
        assert metrics.rouge_l(texts, references, tokenizer="ascii") == pytest.approx(theirs, abs=1e-12)
        if i % 2:
            assert metrics.rouge_l(texts, references) == theirs
        between += 0 < theirs < 1
    assert between > 1000


def test_accuracy_and_macro_f1_are_sklearns():
    rng = np.random.default_rng(3)
    for i in range(2000):
        n, k = rng.integers(1, 12), rng.integers(1, 6)
        truth, found = rng.integers(0, k, n), rng.integers(0, k + 1, n)
        ours = metrics.accuracy(truth.tolist(), found), metrics.macro_f1(truth, torch.tensor(found))
        theirs = accuracy_score(truth, found), f1_score(truth, found, average="macro", zero_division=0)
        assert ours == pytest.approx(theirs, abs=1e-12), i


# --- arguments ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", [metrics.bleu, metrics.chrf, metrics.rouge_l])
@pytest.mark.parametrize(
    ("texts", "references", "error", "told"),
    [
        ("abc", ["a", "b", "c"], TypeError, "texts must be a list of texts, not 'abc'"),
        (["abc"], ["abc"], TypeError, r"references\[0\] must be a list of texts, not 'abc'"),
        (["abc"], "abc", TypeError, "references must be a list of lists of texts, not 'abc'"),
        ([None], [["a"]], TypeError, r"texts\[0\] must be a text, not None"),
        (["a"], [[1]], TypeError, r"references\[0\]\[0\] must be a text, not 1"),
        (["a", "b"], [["a"]], ValueError, "2 texts, 1 lists of references"),
        (["a"], [[]], ValueError, "need one non-empty list for each text"),
        ([], [], ValueError, "0 texts"),
    ],
)
def test_a_text_is_no_list_of_texts(score, texts, references, error, told):
    with pytest.raises(error, match=told):
        score(texts, references)


def test_squad_and_spans_refuse_a_text_for_a_list():
    with pytest.raises(TypeError, match="answers must be a list of texts, not 'Denver'"):
        metrics.squad_em_f1("e", "Denver")
    with pytest.raises(TypeError, match="targets\\[0\\] must be a list of texts, not 'B-a'"):
        metrics.span_f1(["B-a"], ["B-a"])
    for wrong in ([["O"], ["O"]], [["O", "O"]]):
        with pytest.raises(ValueError, match="the same sentences, with a tag for each word"):
            metrics.span_f1([["O"]], wrong)


@pytest.mark.parametrize(
    ("truth", "found", "told"),
    [
        ([0, 1], [0], "2 targets and 1 predictions"),
        ([0, 1], [[0], [1]], "predictions must be one number for each example"),  # would broadcast
        ([], [], "at least one"),
        ([-100, 1], [0, 1], r"targets\[0\] is -100: classes are whole numbers from 0"),
        ([0, 1], [0.7, 1], r"predictions\[0\] is 0.7"),
        ([0, 1], [0, float("nan")], r"predictions\[1\] is nan"),
        ([0, 1], [[0], [1, 2]], "rows of equal length"),
    ],
)
@pytest.mark.parametrize("score", [metrics.accuracy, metrics.macro_f1])
def test_classes_are_whole_numbers_one_for_each(score, truth, found, told):
    with pytest.raises(ValueError, match=told):
        score(truth, found)
    with pytest.raises(TypeError, match="targets must hold numbers"):
        score(["a", "b"], [0, 1])


P = [[0.9, 0.1], [0.2, 0.8]]


@pytest.mark.parametrize(
    ("scores", "targets", "told"),
    [
        ([[2.0, -1.0], [0.5, 0.1]], [0, 1], "take the softmax of logits"),
        ([[0.9, 0.9], [0.2, 0.8]], [0, 1], "sum to 1"),
        ([[float("nan"), 0.1], [0.2, 0.8]], [0, 1], "NaN"),
        (P, [0], "need one row of classes for each target"),
        (P, [[0], [1]], "targets must be one number for each example"),
        (P, [0, 2], "a target is 2, but probabilities have 2 classes"),
        (P, [0, -1], "classes are whole numbers from 0"),
        ([0.9, 0.1], [0, 1], "need one row of classes"),
        ([], [], "at least one"),
    ],
)
def test_calibration_takes_distributions_and_a_target_for_each(scores, targets, told):
    with pytest.raises(ValueError, match=told):
        metrics.expected_calibration_error(scores, targets)
    with pytest.raises(ValueError, match="bins is 0: choose a whole number from 1"):
        metrics.expected_calibration_error(P, [0, 1], bins=0)
    if "softmax" not in told and "sum" not in told:
        with pytest.raises(ValueError, match=told.replace("probabilities", "logits")):
            metrics.fit_temperature(scores, targets)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_calibration_takes_tensors_of_every_dtype(dtype):
    z = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    y, p = torch.arange(50) % 7, torch.softmax(z, 1)
    tolerance = 1e-6 if dtype in (torch.float64, torch.float32) else 0.02
    wanted = metrics.expected_calibration_error(torch.softmax(z.double(), 1), y)
    assert metrics.expected_calibration_error(p, y) == pytest.approx(wanted, abs=tolerance)
    assert metrics.fit_temperature(z, y) == pytest.approx(metrics.fit_temperature(z.double(), y))
