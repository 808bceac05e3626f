"""The stream of the opinion monitor, and the two heads that read it: topic and three-class sentiment.

What is here are no finance posts: the stream is made of sentences of newspaper editorials that people have rated; the topic
head is fitted on headlines of BBC News. A head on kept vectors fits in a second.

Taught in lesson 26.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from instructlab_apps.demos import sentences
from instructlab_utils import tasks
from instructlab_utils.errors import ParameterError

MOODS = ("negative", "neutral", "positive")
CUT = 0.5  # on the raters' scale from -4 to 4; what lies within ± it is neutral
USUAL = (0.25, 0.50, 0.25)  # share of each mood in a quiet stream
RAISED = (0.75, 0.20, 0.05)  # the same in an episode, for the topic that it strikes
MOST = 1800  # training sentences that the sentiment head is fitted on


@dataclass(frozen=True)
class Opinion:
    """A sentence: people's mean ``rating`` and its mood, and what the heads say of it: ``topic``, the mood ``read``, and
    the chance of ``negative``."""

    text: str
    rating: float
    mood: int
    topic: int
    read: int
    negative: float


@cache
def rated(split: str) -> tuple[tuple[str, float], ...]:
    """Editorial sentences of a split with their mean rating; an article is wholly in one split. A sentence twice is one."""
    found: dict[str, list[float]] = {}
    article: dict[str, str] = {}
    for row in tasks.read("editorial-sentiment"):
        found.setdefault(row.text, []).append(row.rating)
        article.setdefault(row.text, row.article)
    chosen = [text for text in sorted(found) if tasks.split_of(f"editorial {article[text]}") == split]
    return tuple((text, float(np.mean(found[text]))) for text in chosen)


def mood_of(rating: float) -> int:
    """0, 1 or 2: negative below -CUT, positive above CUT, else neutral."""
    return int(np.digitize(rating, [-CUT, CUT]))


class OpinionReader:
    """The two heads. ``topics``: names; ``items``: dev and test sentences, read.

    The first time, the vectors of about 5,600 sentences and headlines are computed (a minute or two) and kept.
    """

    def __init__(self) -> None:
        from sklearn.linear_model import LogisticRegression

        news = tasks.load("bbc-topics")
        self.topics = list(news.labels)
        titles = {
            split: [text.partition("\n")[0] for text in news.splits[split]["text"]]
            for split in ("train", "test")
        }
        labels = {split: np.array(news.splits[split]["label"]) for split in titles}
        topic = LogisticRegression(C=10.0, max_iter=2000).fit(
            sentences.kept(titles["train"]), labels["train"]
        )
        self.topic_right = topic.predict(sentences.kept(titles["test"])) == labels["test"]
        rows = rated("train")
        train = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:MOST]]
        mood = LogisticRegression(C=1.0, max_iter=2000)
        mood.fit(sentences.kept([text for text, _ in train]), [mood_of(rating) for _, rating in train])
        self._heads: tuple[Any, Any] = topic, mood
        self.items = {split: self._read(split) for split in ("dev", "test")}

    def _read(self, split: str) -> tuple[Opinion, ...]:
        rows = rated(split)
        vectors = sentences.kept([text for text, _ in rows])
        topics, chances = self._heads[0].predict(vectors), self._heads[1].predict_proba(vectors)
        return tuple(
            Opinion(text, rating, mood_of(rating), int(topic), int(each.argmax()), float(each[0]))
            for (text, rating), topic, each in zip(rows, topics, chances, strict=True)
        )


class Source:
    """An endless stream from a pool of items: topic as often as in the pool, mood by USUAL, then any item of both.

    ``strike(topic, n)`` plants an episode: the next ``n`` items of the topic have moods by RAISED. Items come again: the pool
    is finite, the stream is not. ParameterError where a topic has no item of some mood.
    """

    def __init__(self, items: tuple[Opinion, ...], topics: int, seed: int) -> None:
        self._rng, self._items = random.Random(seed), items
        self._cells = [
            [
                [i for i, item in enumerate(items) if (item.topic, item.mood) == (topic, mood)]
                for mood in range(3)
            ]
            for topic in range(topics)
        ]
        if not all(cell for row in self._cells for cell in row):
            raise ParameterError("a topic has no item of some mood: give more items")
        self._sizes = [sum(map(len, row)) for row in self._cells]
        self.struck, self.left = -1, 0

    def strike(self, topic: int, n: int) -> None:
        """Plant an episode in the topic's next ``n`` items."""
        self.struck, self.left = topic, n

    def next(self, topic: int | None = None) -> tuple[Opinion, bool]:
        """The next item, of ``topic`` if one is given, and whether an episode has struck it."""
        if topic is None:
            topic = self._rng.choices(range(len(self._cells)), self._sizes)[0]
        struck = self.left > 0 and topic == self.struck
        self.left -= struck
        mood = self._rng.choices(range(len(MOODS)), RAISED if struck else USUAL)[0]
        return self._items[self._rng.choice(self._cells[topic][mood])], struck
