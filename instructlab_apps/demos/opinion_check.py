"""What the opinion monitor is worth: its heads, false alarms on quiet streams, and planted episodes that it finds or misses.

Taught in lesson 26.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from instructlab_apps.demos.opinion_alarm import QUIET, SPAN, Watch
from instructlab_apps.demos.opinion_stream import MOODS, Opinion, OpinionReader, Source
from instructlab_utils.errors import ParameterError
from instructlab_utils.intervals import Interval, wilson_interval
from instructlab_utils.metrics import macro_f1

LENGTH = 150  # items of a planted episode


@dataclass(frozen=True)
class HeadScores:
    """Accuracy of both heads with Wilson's interval, and macro-F1 of the sentiment.

    ``largest``: the share of the largest mood. ``table``: rows are people's moods, columns the head's; each row
    sums to 1.
    """

    topic: Interval
    mood: Interval
    largest: float
    f1: float
    table: np.ndarray


@dataclass(frozen=True)
class Alarms:
    """One way to read the moods. ``false``: share of quiet streams of SPAN items with an alarm.

    On streams with one episode, ``precision``: of the alarms, the share inside it; ``recall``: the share of episodes with an
    alarm inside; ``delay``: items from its begin to the first alarm inside, sorted, of those that were found.
    """

    false: Interval
    precision: Interval
    recall: Interval
    delay: tuple[int, ...]


def heads(reader: OpinionReader) -> HeadScores:
    """The heads on held-out headlines and sentences."""
    items = reader.items["test"]
    gold, said = np.array([item.mood for item in items]), np.array([item.read for item in items])
    table = np.array([[np.mean(said[gold == a] == b) for b in range(len(MOODS))] for a in range(len(MOODS))])
    right = reader.topic_right
    return HeadScores(
        topic=wilson_interval(int(right.sum()), len(right)),
        mood=wilson_interval(int((gold == said).sum()), len(gold)),
        largest=float(np.bincount(gold).max() / len(gold)),
        f1=macro_f1(gold, said),
        table=table,
    )


def watched(hits: Sequence[bool]) -> list[int]:
    """Where alarms are raised behind the quiet stretch, counted from its end, given whether each item counts as negative."""
    watch = Watch()
    for hit in hits:
        watch.see(bool(hit))
    return [place - QUIET for place in watch.alarms]


def alarms(
    reader: OpinionReader,
    topic: str = "business",
    seed: int = 0,
    quiet: int = 200,
    loud: int = 200,
    length: int = LENGTH,
) -> dict[str, Alarms]:
    """Fresh streams of test sentences of one topic, ``quiet`` without an episode and ``loud`` with one at a random place.

    Keys: ``head`` reads the moods as the monitor does, ``people`` takes the raters' moods from the same streams.
    ParameterError for a topic that is unknown, no stream, and an episode that does not fit.
    """
    if topic not in reader.topics or min(quiet, loud) < 1 or not 1 <= length <= SPAN:
        raise ParameterError(
            f"{topic!r}, {quiet} and {loud} streams, {length} items: choose of {reader.topics}, 1 or more"
        )
    at, rng = reader.topics.index(topic), np.random.default_rng([seed, 1])
    source = Source(reader.items["test"], len(reader.topics), seed)
    reads = {"head": lambda item: item.read == 0, "people": lambda item: item.mood == 0}
    false = dict.fromkeys(reads, 0)
    for _ in range(quiet):
        items = _stream(source, at, QUIET + SPAN)
        for name, read in reads.items():
            false[name] += bool(watched([read(item) for item in items]))
    inside: dict[str, list[int]] = {name: [] for name in reads}
    found: dict[str, list[int]] = {name: [] for name in reads}
    raised = dict.fromkeys(reads, 0)
    for _ in range(loud):
        begin = int(rng.integers(SPAN - length + 1))
        items = _stream(source, at, QUIET + begin)
        source.strike(at, length)
        items += _stream(source, at, SPAN - begin)
        for name, read in reads.items():
            places = watched([read(item) for item in items])
            mine = [place - begin for place in places if begin <= place < begin + length]
            raised[name] += len(places)
            inside[name] += mine
            found[name] += mine[:1]
    return {
        name: Alarms(
            false=wilson_interval(false[name], quiet),
            precision=wilson_interval(len(inside[name]), raised[name])
            if raised[name]
            else Interval(0.0, 0.0, 1.0),
            recall=wilson_interval(len(found[name]), loud),
            delay=tuple(sorted(found[name])),
        )
        for name in reads
    }


def _stream(source: Source, topic: int, n: int) -> list[Opinion]:
    return [source.next(topic)[0] for _ in range(n)]
