"""Behavioural tests in the manner of CheckList: a suite is a TOML file of templates, a failure rate its result.

A *suite* (ours: data/suites/sentiment.toml and qa.toml) names its labels and lists of words, and holds tests. Each test
belongs to a capability and has a type:

- MFT, minimum functionality: the text's label is given;
- INV, invariance: the same verdict for the text and its changed double;
- DIR, direction: the probability of a label must not fall ("up") or not rise ("down") by more than the suite's tolerance.

In a template, ``{good}`` stands for each word of the list ``good`` in turn; ``{good2}`` for another word of the same list.
The changed double is a second template, ``against``, with the same words, or a change of characters, ``change``.
Source: Ribeiro et al. (2020). From lesson 19 on. Also here: the words that an attack may exchange.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from instructlab_utils import augmentation, robustness, suites, training
from instructlab_utils.errors import ConfigError
from instructlab_utils.project import closest, find_root, text_of

CHANGES: dict[str, Callable[[str, random.Random], str]] = {
    "typo": robustness.typo,
    "lookalike": robustness.lookalike,
    "capitals": lambda text, _: text.upper(),
}
Text = Annotated[str, Field(pattern=r"\S")]
# texts, and for each its possible labels → for each the labels' probabilities
Probabilities = Callable[[list[str], list[list[str]]], Sequence[Sequence[float]]]


class Template(BaseModel):
    """One test. ``options`` are the possible answers where they differ from the suite's labels."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    capability: Text
    type: Literal["MFT", "INV", "DIR"]
    template: Text
    label: str = ""
    against: str = ""
    change: str = ""
    expects: Literal["", "up", "down"] = ""
    options: tuple[Text, ...] = ()


class Suite(BaseModel):
    """Labels, lists of words, and tests; ``tolerance`` is that of the DIR tests."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Text
    labels: tuple[Text, ...] = ()
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.1
    words: dict[str, Annotated[tuple[Text, ...], Field(min_length=1)]] = {}
    tests: Annotated[tuple[Template, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Case:
    """One filled template: ``text``, its double where there is one, the label, and the possible labels."""

    test: Template
    text: str
    double: str
    label: str
    options: tuple[str, ...]


def load(path: Path | str) -> Suite:
    """The suite in a TOML file. ConfigError, one sentence with file and place, where it is not well formed."""
    suite, file = suites.read(path, Suite)
    for number, test in enumerate(suite.tests):
        if wrong := _mistake(suite, test):
            raise ConfigError(f"{file}: tests.{number} ({test.capability}, {test.type}): {wrong}.")
    return suite


def _mistake(suite: Suite, test: Template) -> str:
    """What is wrong with a test, in half a sentence; empty where nothing is."""
    options = test.options or suite.labels
    doubles = bool(test.against) + bool(test.change)
    if len(set(options)) < 2:
        return "it needs two different labels or options at least"
    if test.change and test.change not in CHANGES:
        return f"unknown change {test.change!r}{closest(test.change, list(CHANGES))}; choose of {', '.join(CHANGES)}"
    if test.type == "MFT" and (doubles or test.expects):
        return "an MFT has a label and nothing to compare with; remove against, change and expects"
    if test.type != "MFT" and doubles != 1:
        return f"an {test.type} test needs exactly one of against and change"
    if test.type == "INV" and (test.label or test.expects):
        return "an INV test only compares; remove label and expects"
    if test.type == "DIR" and not test.expects:
        return 'a DIR test needs expects = "up" or "down"'
    if test.type != "INV" and test.label not in options:
        return f"its label {test.label!r} is none of {', '.join(options)}"
    if test.against == test.template:
        return "template and against are the same text"
    texts = [test.template, test.against, test.label, *test.options]
    for text in texts:
        if re.sub(r"\{[a-z]+\d?\}", "", text).strip("{}") != re.sub(r"\{[a-z]+\d?\}|[{}]", "", text):
            return f"{text!r} has a brace that belongs to no {{name}}"
    for name in _names(texts):
        if (known := name.rstrip("0123456789")) not in suite.words:
            return f"{{{name}}} has no list of words{closest(known, list(suite.words))}; add it under [words]"
    return ""


def _names(texts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name for text in texts for name in re.findall(r"\{([a-z]+\d?)\}", text)))


@cache
def _filled(
    suite_words: tuple[tuple[str, tuple[str, ...]], ...], names: tuple[str, ...]
) -> list[dict[str, str]]:
    """All fillings of the names, in an order that one generator draws; no two names of one list get the same word."""
    words = dict(suite_words)
    lists = [words[name.rstrip("0123456789")] for name in names]
    found = [dict(zip(names, line, strict=True)) for line in product(*lists)]
    found = [line for line in found if len(set(line.values())) == len(line)]
    random.Random(0).shuffle(found)
    return found


def cases(suite: Suite, n: int, number: int = 0) -> list[Case]:
    """``n`` cases of each test. Another ``number`` (0, 1, …) gives other fillings, and none twice.

    A template that has fewer fillings than n gives them all, each time. ConfigError where it has n, but not (number + 1) n.
    """
    found = []
    for place, test in enumerate(suite.tests):
        texts = [test.template, test.against, test.label, *test.options]
        fillings = _filled(tuple(suite.words.items()), tuple(_names(texts)))
        if len(fillings) > n:
            begin = n * number
            if begin + n > len(fillings):
                raise ConfigError(
                    f"{suite.name}: tests.{place} ({test.capability}, {test.type}) has {len(fillings)} fillings, too few for "
                    f"{number + 1} times {n}; add words"
                )
            fillings = fillings[begin : begin + n]
        for filling in fillings:
            text, double, label, *options = (t.format(**filling) for t in texts)
            if test.change:
                double = CHANGES[test.change](text, random.Random(text))
            found.append(Case(test, text, double, label, tuple(options) or suite.labels))
    return found


def failures(suite: Suite, filled: Sequence[Case], probabilities: Probabilities) -> list[bool]:
    """For each case whether the model fails it. ``probabilities`` is called once, with all texts and doubles.

    ConfigError where its answer does not have one number for each label of each text.
    """
    asked = [(case.text, case.options) for case in filled]
    asked += [(case.double, case.options) for case in filled if case.test.type != "MFT"]
    found = probabilities([text for text, _ in asked], [list(options) for _, options in asked])
    p = [[float(value) for value in line] for line in found]
    if [len(line) for line in p] != [len(options) for _, options in asked]:
        raise ConfigError(
            f"{suite.name}: the model must give one number for each label of each of {len(asked)} texts"
        )
    doubles = iter(p[len(filled) :])
    failed = []
    for case, own in zip(filled, p, strict=False):
        best = own.index(max(own))
        if case.test.type == "MFT":
            failed.append(case.options[best] != case.label)
            continue
        other = next(doubles)
        if case.test.type == "INV":
            failed.append(other.index(max(other)) != best)
        else:
            at = case.options.index(case.label)
            rise = other[at] - own[at]
            failed.append((rise if case.test.expects == "up" else -rise) < -suite.tolerance)
    return failed


def rates(filled: Sequence[Case], failed: Sequence[bool]) -> dict[tuple[str, str], float]:
    """(capability, type) → share of its cases that fail, in the suite's order."""
    cells: dict[tuple[str, str], list[bool]] = {}
    for case, fails in zip(filled, failed, strict=True):
        cells.setdefault((case.test.capability, case.test.type), []).append(fails)
    return {cell: sum(found) / len(found) for cell, found in cells.items()}


# --- what an attack may exchange, and how it asks ---------------------------------------------------------------------


def polarity() -> tuple[dict[str, int], set[str]]:
    """word → +1 or -1, and the words that an attack leaves alone: data/suites/polarity.toml."""
    told = tomllib.loads(text_of(find_root() / "data" / "suites" / "polarity.toml"))
    signs = dict.fromkeys(told["positive"], 1) | dict.fromkeys(told["negative"], -1)
    return signs, set(told["kept"])


def neighbours(table: Tensor, tokenizer: Any, wanted: Collection[str], k: int) -> dict[str, list[str]]:
    """The synonyms that an attack tries: of each word's ``k`` nearest in ``table`` those that ``polarity`` leaves."""
    vocabulary = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    signs, kept = polarity()
    return robustness.synonyms(augmentation.nearest_words(table, vocabulary, wanted, k), kept, signs)


def reader(net: Any, tokenizer: Any, max_length: int) -> robustness.Scorer:
    """A scorer for :func:`robustness.word_attack`: the model reads the words, joined by spaces, and says probabilities."""

    def read(sentences: list[list[str]]) -> Tensor:
        rows = [{"text": " ".join(words), "label": 0} for words in sentences]
        return training.predict(
            net, training.encode(rows, tokenizer, max_length), tokenizer.pad_token_id
        ).softmax(1)

    return read


def by_text(read: robustness.Scorer) -> Probabilities:
    """The same for :func:`failures`: texts as they are written, always the suite's labels."""
    return lambda texts, options: read([[text] for text in texts]).tolist()


def similarity(
    encoder: Any, tokenizer: Any, max_length: int
) -> Callable[[list[str], list[list[str]]], list[float]]:
    """Cosines of sentence embeddings, the mean over the tokens of ``encoder``: of the first sentence with each of the others.

    Sentences are lists of words. What was embedded once is kept. Source: Reimers and Gurevych (2019); lesson 19, section 5.
    """
    kept: dict[str, Tensor] = {}

    @torch.no_grad()
    def similar(original: list[str], others: list[list[str]]) -> list[float]:
        texts = [" ".join(words) for words in (original, *others)]
        new = [text for text in dict.fromkeys(texts) if text not in kept]
        rows = [{"text": text, "label": 0} for text in new]
        coded = training.encode(rows, tokenizer, max_length) if new else []
        for begin in range(0, len(coded), 64):
            batch = training.collate(coded[begin : begin + 64], tokenizer.pad_token_id)
            h = encoder(batch["input_ids"], batch["attention_mask"]).last_hidden_state
            means = (h * batch["attention_mask"][..., None]).sum(1)
            units = torch.nn.functional.normalize(means, dim=1)
            kept.update(zip(new[begin : begin + 64], units, strict=True))
        return [float(kept[texts[0]] @ kept[text]) for text in texts[1:]]

    return similar
