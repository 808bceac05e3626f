"""What is wrong with the data before anything is trained: copies, contradictions, leaks, length, and signs unread."""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from instructlab_apps.compare.contenders import counted
from instructlab_apps.compare.intake import Intake, sampled
from instructlab_utils import tasks
from instructlab_utils.characters import canonical, script_of, words_of_text
from instructlab_utils.errors import DataError
from instructlab_utils.tasks.splits import components

SURE, COVERS, TOLD = (
    0.98,
    0.5,
    20,
)  # a sign gives a label away: its precision, its share of the class; examples told
FEWEST = 300  # rows that are looked at, whatever it costs
LOOKED = 2000  # characters by which near-copies are found
BLIND, DIM = 0.15, 0.03  # shares of unknown tokens


@dataclass
class Findings:
    """What :func:`audit` found. ``keep`` are the places of the texts to use, ``group`` one number for each of these:
    texts of one group stand on one side of every split. The lists hold places in the intake."""

    keep: list[int]
    group: list[int]
    copies: int = 0
    near: list[tuple[int, int]] = field(default_factory=list)
    contradictions: list[list[int]] = field(default_factory=list)
    leaks: list[dict[str, Any]] = field(default_factory=list)
    small: list[tuple[str, int]] = field(default_factory=list)
    lonely: list[tuple[str, int]] = field(default_factory=list)
    script: str = "latin"
    unknown: float = 0.0
    split: float = 1.0
    lengths: tuple[int, int, int] = (0, 0, 0)
    length_tells: tuple[float, float] = (0.0, 0.0)
    warnings: list[str] = field(default_factory=list)


def paced(data: Intake, tokenizer: Any, seconds: float) -> Intake:
    """``data``, or as many of its rows as can be looked at and counted in ``seconds``, measured on 100 of them now."""
    for size in (8, 100):  # the first round imports what it needs
        sample, begin = sampled(data, size), time.perf_counter()
        tasks.near_duplicates([text[:LOOKED] for text in sample.text])
        for kind in ("words", "characters"):
            counted(sample.text, kind, spaced=True)
        tokenizer(sample.text, add_special_tokens=False)
    a_row = (time.perf_counter() - begin) / len(sample.text)
    return sampled(
        data, max(FEWEST, int(seconds / (2 * a_row)))
    )  # about as much again for the rest of the audit


def audit(data: Intake, tokenizer: Any, least: int, english: bool) -> Findings:
    """Look at all texts; ``least`` is how many different texts a class needs to be in every part of the split.

    ``english`` says that the encoder was trained on English text, so that a warning can name the reason.
    Raises DataError where fewer than two labels are left without copies and contradictions.
    """
    by_text: dict[str, list[int]] = defaultdict(list)
    for i, text in enumerate(data.text):
        by_text[" ".join(canonical(text).split())].append(i)
    contradictions = [places for places in by_text.values() if len({data.label[i] for i in places}) > 1]
    once = sorted(places[0] for places in by_text.values() if len({data.label[i] for i in places}) == 1)
    texts = [data.text[i] for i in once]
    pairs = tasks.near_duplicates([text[:LOOKED] for text in texts])
    group = components(len(texts), pairs)
    tally = Counter(data.label[i] for i in once)
    groups = defaultdict(set)
    for place, one in zip(once, group, strict=True):
        groups[data.label[place]].add(one)
    lonely = {label for label in tally if len(groups[label]) < 2}  # to learn from or to test on, never both
    rows = [n for n, place in enumerate(once) if data.label[place] not in lonely]
    keep = [once[n] for n in rows]
    if len({data.label[place] for place in keep}) < 2:
        raise DataError(
            f"without copies and contradictions {len(keep)} text(s) of fewer than two labels are left; "
            "give more different texts"
        )
    found = Findings(keep, [group[n] for n in rows])
    found.copies = len(data.text) - len(by_text)
    found.near = [(once[i], once[j]) for i, j in pairs]
    found.contradictions = contradictions
    found.lonely = [(data.names[label], tally[label]) for label in sorted(lonely)]
    found.small = [
        (data.names[label], len(groups[label]))
        for label, _ in tally.most_common()
        if label not in lonely and len(groups[label]) < least
    ]
    kept_texts, labels = [data.text[i] for i in keep], np.array([data.label[i] for i in keep])
    found.leaks = leaks(kept_texts, labels, data.names)
    found.script = script_of([text[:LOOKED] for text in kept_texts[:300]])
    _read_by(tokenizer, kept_texts, found)
    sizes = np.array([len(text) for text in kept_texts])
    found.lengths = tuple(int(q) for q in np.quantile(sizes, [0.05, 0.5, 0.95]))  # type: ignore[assignment]
    found.length_tells = length_tells(sizes, labels)
    found.warnings = _warnings(found, english, len(kept_texts))
    return found


def leaks(texts: Sequence[str], labels: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Words that give a label away: a class's own name in its texts, and words that nearly only one class has.

    Each has ``word``, ``label``, ``share`` of the class that holds it, ``elsewhere`` (share of the other texts), ``kind``.
    """
    holds: dict[str, Counter[int]] = defaultdict(Counter)
    for text, label in zip(texts, labels.tolist(), strict=True):
        for word in set(words_of_text(text)):
            holds[word][label] += 1
    size, canonical_texts = Counter(labels.tolist()), [canonical(text) for text in texts]
    found = []
    for label, name in enumerate(names):
        own = words_of_text(name)
        if not size[label] or not own or size[label] == len(texts):
            continue
        pattern = re.compile(r"(?<!\w)" + r"\W*".join(map(re.escape, own)) + r"(?!\w)" * name.isascii())
        hit = np.array([own[0] in text and pattern.search(text) is not None for text in canonical_texts])
        inside, outside = hit[labels == label].mean(), hit[labels != label].mean()
        if inside > 0.2 and inside > 3 * outside:
            found.append(_leak(" ".join(own), name, inside, outside, "the label's own name"))
    for word, counts in holds.items():
        (label, inside), total = counts.most_common(1)[0], counts.total()
        if (
            inside >= max(5, COVERS * size[label])
            and inside >= SURE * total
            and size[label] < 0.9 * len(texts)
        ):
            others = (total - inside) / max(1, len(texts) - size[label])
            found.append(_leak(word, names[label], inside / size[label], others, "a word of one class only"))
    return sorted(found, key=lambda one: -one["share"])[:TOLD]


def _leak(word: str, label: str, share: float, elsewhere: float, kind: str) -> dict[str, Any]:
    return {"word": word, "label": label, "share": float(share), "elsewhere": float(elsewhere), "kind": kind}


def length_tells(sizes: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Accuracy of guessing the commonest label of the text's length (ten bins, odd rows judge even ones and back),
    and that of the commonest label of all."""
    edges = np.quantile(sizes, np.linspace(0, 1, 11)[1:-1])
    bins, hits = np.searchsorted(edges, sizes), 0
    most = np.bincount(labels).argmax()
    order = np.random.default_rng(0).permutation(len(sizes))
    for mine, other in ((order[::2], order[1::2]), (order[1::2], order[::2])):
        best = [np.bincount(labels[other][bins[other] == b], minlength=1).argmax() for b in range(10)]
        best = [b if (bins[other] == n).any() else most for n, b in enumerate(best)]
        hits += int((np.array(best)[bins[mine]] == labels[mine]).sum())
    return hits / len(sizes), float((labels == most).mean())


def _read_by(tokenizer: Any, texts: Sequence[str], found: Findings) -> None:
    """The mean share of tokens that the tokenizer does not know, and tokens a word; from the first 1,000 texts."""
    sample = [text[:2000] for text in texts[:1000]]
    unknown = tokenizer.unk_token_id
    ids = tokenizer(sample, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    shares = np.array([np.mean([i == unknown for i in one]) if one else 1.0 for one in ids])
    found.unknown = float(shares.mean())
    found.split = sum(map(len, ids)) / max(1, sum(len(words_of_text(text)) for text in sample))


def _warnings(found: Findings, english: bool, total: int) -> list[str]:
    """Sentences on what makes every score of the report doubtful."""
    said = []
    if found.unknown > BLIND:
        said.append(
            f"The encoder is nearly blind here: {found.unknown:.0%} of the tokens that it reads are “unknown”, so its scores "
            "say little about encoders that know this language. Give one with --model."
        )
    elif found.unknown > DIM:
        said.append(
            f"The encoder's tokenizer does not know {found.unknown:.0%} of the tokens of these texts."
        )
    if english and found.script != "latin":
        name = {"chinese": "Chinese", "unspaced": "in a script without spaces"}.get(found.script, "not Latin")
        said.append(
            f"The texts are mainly {name}, and the built-in encoder has learned English: "
            "frozen features, LoRA and full tuning are handicapped. An encoder of the language, given with --model, "
            "may turn the order round."
        )
    if found.leaks and found.leaks[0]["share"] > 0.9:
        one = found.leaks[0]
        said.append(
            f"“{one['word']}” stands in {one['share']:.0%} of the texts of “{one['label']}” and in {one['elsewhere']:.1%} of "
            "the others: if it is there because somebody has seen the label, every score below is too good."
        )
    tells, most = found.length_tells
    if tells > most + 0.1:
        said.append(
            f"The length of a text alone guesses {tells:.0%} of the labels ({most:.0%} without it): look why."
        )
    if total < 200:
        said.append(
            f"With {total} texts every score is uncertain by many points; the intervals say how many."
        )
    return said
