"""What the customer-service bot decides: the topic, the article, how sure it is, and whether a person takes over, and why.

Four steps for a text: a head on frozen sentence vectors names the topic; BM25 and the vectors, made one list, find the
article; a logistic model, fitted on dev, turns six numbers into the chance that the answer is right; below a threshold,
which is the cheapest one on dev, a person takes over.

Taught in lesson 26.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from instructlab_apps.demos import sentences
from instructlab_apps.demos.charts import percent
from instructlab_utils import tasks
from instructlab_utils.errors import ConfigError
from instructlab_utils.retrieval import BM25, fused, ranking

KNOWLEDGE = Path(__file__).with_name("support.toml")
SOURCES = ("first", "second", "own", "past", "new")
MIX = {
    "first": 0.50,
    "second": 0.15,
    "own": 0.10,
    "past": 0.15,
    "new": 0.10,
}  # of the customers that we expect
PAST = (
    "hotels",
    "buses",
    "salons",
    "payments",
    "homes",
)  # services that the desk was asked for before, and has not
COSTS = {"wrong": 5.0, "person": 1.0, "solved": 0.0}  # of a wrong answer, a hand-over, a right answer
WHY = {
    "person": "The customer asks for a person.",
    "far": "Nothing that we know resembles the question (closest likeness {likeness:.2f}).",
    "strange": "It looks like a request for something that this desk does not have (likeness {strange:.2f}).",
    "torn": "It may be about {first} or about {second}.",
    "unsure": "The chance that “{title}” is the right answer is {confidence}, below the limit of {limit}.",
}


@dataclass(frozen=True)
class Article:
    """What the bot can say. ``topic`` is one of the seven intents."""

    id: str
    topic: str
    title: str
    answer: str


@dataclass(frozen=True)
class Need:
    """A text with what is right: a topic ("" for none that the desk has) and, for our own questions, an article.

    ``source``: first (the intents' task), second (service dialogues), own (ours); past and new: of the same dialogues, for
    services that the desk does not have and was asked for before (PAST), or never. ``service`` names these.
    """

    text: str
    topic: str
    source: str
    article: str = ""
    service: str = ""


@dataclass(frozen=True)
class Reply:
    """What was decided about a text. ``person``: a person takes over, for the reason ``why``; else the article is shown."""

    topic: str
    article: Article
    confidence: float
    person: bool
    why: str
    likeness: float
    understood: tuple[str, ...] = ()


@functools.cache
def knowledge() -> dict[str, Any]:
    """The file support.toml, its articles and questions checked against each other. ConfigError names what does not fit."""
    found = tomllib.loads(KNOWLEDGE.read_text(encoding="utf-8"))
    articles = {row["id"]: Article(**row) for row in found["article"]}
    lost = [row["topic"] for row in found["article"] if row["topic"] not in found["topic"]]
    lost += [row["article"] for row in found["question"] if row["article"] not in articles]
    if lost or len(articles) < len(found["article"]):
        raise ConfigError(
            f"support.toml: {lost or 'an id that is there twice'}: write each id once, and use those"
        )
    return found | {"articles": list(articles.values())}


@functools.cache
def needs(split: str) -> tuple[Need, ...]:
    """What customers want, split by hash: train, dev or test.

    Train holds the first source and the past requests for services that the desk does not have. Nothing else of the second
    source trains: there the openings of train and test are both test. Of our own questions on an article the first is dev,
    the second test.
    """
    told = knowledge()
    found = []
    for row in tasks.load("intent").splits[split]:
        text = row["input"].removeprefix("Utterance: ")
        found.append(Need(text, row["options"][row["answer"]], "first"))
    seen: dict[str, int] = {}
    for row in told["question"] if split != "train" else ():
        place = seen[row["article"]] = seen.get(row["article"], -1) + 1
        if place % 2 == (split == "test"):
            topic = next(one.topic for one in told["articles"] if one.id == row["article"])
            found.append(Need(row["text"], topic, "own", row["article"]))
    for text, service in openings():
        inside, mine = service in told["topic"], tasks.split_of(tasks.content_id(text))
        if mine == "train" and service not in PAST:
            mine = "test"
        if mine == split:
            source = "second" if inside else "past" if service in PAST else "new"
            found.append(Need(text, service if inside else "", source, service=service))
    return tuple(found)


def openings() -> list[tuple[str, str]]:
    """The first turns of the service dialogues, each once, with the service that support.toml's patterns give it."""
    told, found = knowledge()["second"], {}
    for row in tasks.read("schema-dialog"):
        first = re.search(r'following: user: "(.*?)"\.? ?(?:response:|$)', row["source"])
        rule = next((one for one in told if first and re.search(one["words"], first[1], re.IGNORECASE)), None)
        if first and rule and rule["service"]:
            found[first[1]] = rule["service"]
    return sorted(found.items())


def understood(text: str) -> tuple[str, ...]:
    """Details that the answer repeats: a title in quotes, a number of points or people, a time."""
    found = [f"title: {m[1].strip(' .,')}" for m in re.finditer(r"[“\"]([^”\"]{2,60})[”\"]", text)][:1]
    bare = re.sub(r"[“\"][^”\"]*[”\"]", " ", text)
    words = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
    patterns = {
        "number": rf"\b(\d{{1,2}}|{words})\b(?= (?:people|persons|stars|points|out of|tickets|seats))|(?<=for )(?:{words})\b",
        "time": r"\b(?:today|tonight|tomorrow|this evening|next week|next \w+day|on \w+day)\b",
    }
    for name, pattern in patterns.items():
        found += [f"{name}: {m[0]}" for m in re.finditer(pattern, bare, re.IGNORECASE)][:1]
    return tuple(found)


class SupportDesk:
    """The fitted bot. Fitting takes the vectors of about 1,200 sentences (kept on disk) and a second.

    ``threshold``: the least confidence with which the bot answers; ``dev_cost``: (threshold, mean cost) for each candidate.
    """

    def __init__(self) -> None:
        from sklearn.linear_model import LogisticRegression

        told = knowledge()
        self.names: dict[str, str] = told["topic"]
        self.articles: list[Article] = told["articles"]
        self.topics = sorted(self.names)
        self._asks = re.compile(told["person"], re.IGNORECASE)
        pieces = [(one.title, one.topic) for one in self.articles]
        for one in self.articles:
            pieces += [(text, one.topic) for text in re.split(r"(?<=[.?!]) ", one.answer)]
        train = needs("train")
        known = [(need.text, need.topic) for need in train if need.topic] + pieces
        self._strange = sentences.kept([need.text for need in train if not need.topic])
        self._known = sentences.kept([text for text, _ in known])
        self._of = np.array([self.topics.index(topic) for _, topic in known])
        self._head = LogisticRegression(C=10.0, max_iter=2000).fit(self._known, self._of)
        texts = [f"{one.title}. {one.answer}" for one in self.articles]
        self._words, self._passages = BM25(texts), sentences.kept(texts)
        self._sure: Any = None
        dev = needs("dev")
        facts, best, _ = self._look([need.text for need in dev], sentences.kept([need.text for need in dev]))
        right = np.array([self.is_right(need, self.articles[i]) for need, i in zip(dev, best, strict=True)])
        weights = mixed(dev)
        self._sure = LogisticRegression(C=1.0).fit(facts, right, sample_weight=weights * len(dev))
        confidence = self._sure.predict_proba(facts)[:, 1]
        self.dev_cost = [(limit, cost(right, confidence >= limit, weights)) for limit in _limits(confidence)]
        self.threshold = min(self.dev_cost, key=lambda pair: (pair[1], -pair[0]))[0]
        # "far" is said below the likeness that all but one in twenty of the dev customers with a right answer pass
        self.near = float(np.quantile(facts[right, 1], 0.05))

    def is_right(self, need: Need, article: Article) -> bool:
        """Whether the article answers the need: the very article for our own questions, else one of the topic."""
        return article.id == need.article if need.article else article.topic == need.topic

    def _look(self, texts: Sequence[str], vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Six numbers for each text, float64 (N, 6), the best article's place and the second topic's, int64 (N,).

        The numbers: log-odds of the first topic against the second; likeness (cosine) to the closest known sentence of the
        topic; the same over all other topics; likeness to the article; whether words and vectors find the same topic;
        likeness to the closest past request for a service that the desk does not have.
        """
        import torch

        chances = self._head.predict_proba(vectors)
        order = (-chances).argsort(axis=1, kind="stable")
        rows = np.arange(len(texts))
        first, second = order[:, 0], order[:, 1]
        alike = vectors @ self._known.T
        mine = self._of[None] == first[:, None]
        near, other = np.where(mine, alike, -1).max(1), np.where(mine, -1, alike).max(1)
        dense = vectors @ self._passages.T
        best, agree = np.zeros(len(texts), int), np.zeros(len(texts))
        topic_of = np.array([self.topics.index(one.topic) for one in self.articles])
        for i, text in enumerate(texts):
            both = fused([self._words.scores(text), torch.from_numpy(dense[i])])
            found = ranking(both).numpy()
            best[i] = next(place for place in found if topic_of[place] == first[i])
            agree[i] = topic_of[found[0]] == first[i]
        strange = (vectors @ self._strange.T).max(1)
        odds = np.log(chances[rows, first]) - np.log(chances[rows, second])
        return np.column_stack([odds, near, other, dense[rows, best], agree, strange]), best, second

    def scores(self, wanted: Sequence[Need]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For fixed texts: confidence float64 (N,), whether the article is right, bool (N,), the article's place (N,)."""
        texts = [need.text for need in wanted]
        facts, best, _ = self._look(texts, sentences.kept(texts))
        right = np.array(
            [self.is_right(need, self.articles[i]) for need, i in zip(wanted, best, strict=True)]
        )
        asked = np.array([bool(self._asks.search(text)) for text in texts])
        return np.where(asked, 0.0, self._sure.predict_proba(facts)[:, 1]), right, best

    def reply(self, text: str) -> Reply:
        """What the bot does with a customer's text."""
        facts, best, other = self._look([text], sentences.fresh([text]))
        second = self.topics[other[0]]
        article, confidence = self.articles[best[0]], float(self._sure.predict_proba(facts)[0, 1])
        likeness = float(facts[0, 1:3].max())
        kind = ""
        if self._asks.search(text):
            kind = "person"
        elif confidence < self.threshold:
            odds, near, elsewhere, _, _, strange = facts[0]
            kind = "strange" if strange > max(near, elsewhere) else "far" if near < self.near else "unsure"
            kind = "torn" if kind == "unsure" and odds < np.log(3) else kind
        why = WHY[kind].format(
            likeness=likeness,
            strange=facts[0, 5],
            first=self.names[article.topic],
            second=self.names[second],
            title=article.title,
            confidence=percent(confidence),
            limit=percent(self.threshold),
        ) if kind else ""  # fmt: skip
        return Reply(article.topic, article, confidence, bool(kind), why, likeness, understood(text))

    @functools.cached_property
    def openers(self) -> list[str]:
        """Three questions for a person who does not know what to ask."""
        return [need.text for need in needs("dev") if need.source == "own"][:9:3]


def mixed(wanted: Sequence[Need]) -> np.ndarray:
    """Weights that sum to 1 and give each source its share of MIX, float64 (N,)."""
    counts = {source: sum(need.source == source for need in wanted) for source in SOURCES}
    weights = np.array([MIX[need.source] / counts[need.source] for need in wanted])
    return weights / weights.sum()


def cost(right: np.ndarray, answered: np.ndarray, weights: np.ndarray) -> float:
    """Mean cost of a customer: COSTS of a wrong answer, of a person, of a right answer, by the weights."""
    each = np.where(~answered, COSTS["person"], np.where(right, COSTS["solved"], COSTS["wrong"]))
    return float((each * weights).sum())


def _limits(confidence: np.ndarray) -> list[float]:
    """Thresholds between neighbouring confidences, and both ends."""
    found = np.unique(confidence)
    return [0.0, *((found[1:] + found[:-1]) / 2).tolist(), 1.0]
