"""The opinion monitor as a demo: a stream that is stepped by hand or by a clock, a trend, alarms with their reason.

Taught in lesson 26.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from instructlab_apps.demos import charts, opinion_check
from instructlab_apps.demos.opinion_alarm import LEVEL, QUIET, SPAN, Watch
from instructlab_apps.demos.opinion_stream import MOODS, RAISED, USUAL, Opinion, OpinionReader, Source
from instructlab_apps.demos.page import Demo, Values, View
from instructlab_utils.errors import ParameterError

WINDOW, SHOWN, LATEST = 50, 300, 8  # watched items: of a share, in the chart; items in the list
STEPS = (1, 25, 100)
START = "business"


@dataclass(frozen=True)
class Raised:
    """An alarm at the watched item ``place``, from 0. ``since``: where the rise began; ``quotes``: most negative."""

    letter: str
    place: int
    since: int
    negative: int
    usual: float
    inside: bool
    quotes: tuple[Opinion, ...]

    @property
    def n(self) -> int:
        """The items of the rise."""
        return self.place - self.since + 1


class MonitorPages:
    """The monitor behind its pages: one stream, one watched topic. ``reader`` has read the pool of items."""

    def __init__(self, reader: OpinionReader, seed: int = 0, topic: str = START) -> None:
        self.reader, self._lock = reader, threading.RLock()
        self.begin(seed, topic)

    def begin(self, seed: int, topic: str) -> None:
        """A new stream, run until the quiet stretch is over. ParameterError for another topic or a seed below 0."""
        if topic not in self.reader.topics or not 0 <= seed < 1_000_000:
            raise ParameterError(
                f"topic {topic!r}, seed {seed}: choose of {', '.join(self.reader.topics)}, and 0 to 999999"
            )
        with self._lock:
            self.seed, self.topic = seed, topic
            self._at = self.reader.topics.index(topic)
            self._source = Source(self.reader.items["test"], len(self.reader.topics), seed)
            self.watch, self.alarms, self.seen = Watch(), list[Raised](), 0
            self._items, self._struck, self._latest = (
                list[Opinion](),
                list[bool](),
                list[tuple[int, Opinion, bool]](),
            )
            while not self.watch.ready:
                self.step(100)

    def step(self, n: int) -> None:
        """The next ``n`` items of the stream; those of the watched topic are counted."""
        with self._lock:
            for _ in range(n):
                item, struck = self._source.next()
                self.seen += 1
                self._latest = [*self._latest[-LATEST + 1 :], (self.seen, item, struck)]
                if item.topic == self._at:
                    self._items.append(item)
                    self._struck.append(struck)
                    since = self.watch.began
                    if self.watch.see(item.read == 0):
                        self._raise(since)

    def plant(self) -> None:
        """An episode in the next items of the watched topic."""
        with self._lock:
            self._source.strike(self._at, opinion_check.LENGTH)

    def _raise(self, since: int) -> None:
        place = len(self._items) - 1
        rise = self._items[since : place + 1]
        quotes = sorted(
            {item.text: item for item in rise if item.read == 0}.values(), key=lambda item: -item.negative
        )
        letter = chr(ord("A") + len(self.alarms) % 26)
        negative = sum(item.read == 0 for item in rise)
        found = Raised(
            letter, place, since, negative, self.watch.usual, self._struck[place], tuple(quotes[:3])
        )
        self.alarms.append(found)

    # --- what the pages show ---

    def dashboard(self, query: Values) -> Mapping[str, Any]:
        """Trend, alarms, the latest items."""
        with self._lock:
            now = len(self._items)
            recent = [alarm for alarm in self.alarms if alarm.place >= now - SHOWN]
            return {
                "trend": self._trend(now),
                "sum": self._sums(now),
                "now": now,
                "seen": self.seen,
                "share": np.mean(self.watch.hits[-WINDOW:]),
                "usual": self.watch.usual,
                "alarms": self.alarms[::-1],
                "fresh": recent[-1] if recent and recent[-1].place >= now - WINDOW else None,
                "latest": self._latest[::-1],
                "left": self._source.left,
                "topics": self.reader.topics,
                "topic": self.topic,
                "seed": self.seed,
                "moods": MOODS,
                "steps": STEPS,
                "facts": {
                    "quiet": QUIET,
                    "span": SPAN,
                    "level": LEVEL,
                    "window": WINDOW,
                    "length": opinion_check.LENGTH,
                },
            }

    def _common(self, now: int) -> dict[str, Any]:
        first = max(now - SHOWN, QUIET if now > QUIET + WINDOW else WINDOW)
        struck = [place for place in range(first, now) if self._struck[place]]
        edges = (
            [place for place in struck if place - 1 not in struck],
            [place + 1 for place in struck if place + 1 not in struck],
        )
        return {
            "x": f"items on {self.topic}",
            "x_range": (first, max(now, first + 50)),
            "marks": [(alarm.place, alarm.letter) for alarm in self.alarms if alarm.place >= first],
            "areas": list(zip(*edges, strict=True)),
        }

    def _trend(self, now: int) -> Any:
        common = self._common(now)
        first = int(common["x_range"][0])
        total = np.concatenate([[0], np.cumsum(self.watch.hits)])
        xs = list(range(first, now + 1))
        ys = [(total[x] - total[max(x - WINDOW, 0)]) / min(WINDOW, x) for x in xs]
        told = (
            f"Share of negative items on {self.topic} among the last {WINDOW}: now {charts.percent(ys[-1])}, "
            f"usually {charts.percent(self.watch.usual)}; "
            f"{len(common['marks'])} alarms in view."
        )
        line = charts.Line(f"negative among the last {WINDOW}", xs, ys)
        return charts.chart(
            [line],
            told=told,
            y="",
            y_range=(0, 1),
            limit=(f"usual {charts.percent(self.watch.usual)}", self.watch.usual),
            **common,
        )

    def _sums(self, now: int) -> Any:
        common = self._common(now)
        first = max(int(common["x_range"][0]), QUIET)
        xs = list(range(first, now))
        ys = self.watch.sums[first - QUIET :]
        told = f"The sum of evidence: now {ys[-1] if ys else 0:.1f}; an alarm is raised above {self.watch.limit:.1f}."
        line = charts.Line("evidence for a rise", xs, ys)
        top = self.watch.limit * 1.25
        return charts.chart(
            [line], told=told, y="", y_range=(0, top), limit=("alarm above", self.watch.limit), **common
        )

    @functools.cached_property
    def report(self) -> tuple[opinion_check.HeadScores, dict[str, opinion_check.Alarms]]:
        """The evaluation on the first topic, made when it is first looked at."""
        return opinion_check.heads(self.reader), opinion_check.alarms(self.reader, START)

    def worth(self, query: Values) -> Mapping[str, Any]:
        """The page of the evaluation."""
        heads, alarms = self.report
        spans = np.arange(0, opinion_check.LENGTH + 1, 5)
        names = {"head": "moods by the head", "people": "moods by people"}
        lines = [
            charts.Line(
                names[key],
                spans.tolist(),
                [float(np.mean(np.array(one.delay) <= x) * one.recall.mean) for x in spans],
            )
            for key, one in alarms.items()
        ]
        told = (
            "Share of planted episodes that have raised an alarm, by the items since their begin. "
            + " ".join(
                f"{names[key]}: {charts.percent(one.recall.mean)} by the end." for key, one in alarms.items()
            )
        )
        drawn = charts.chart(
            lines, told=told, x="items of the topic since the episode began", y="",
            x_range=(0, opinion_check.LENGTH), y_range=(0, 1)
        )  # fmt: skip
        medians = {key: int(np.median(one.delay)) if one.delay else None for key, one in alarms.items()}
        return {
            "heads": heads, "alarms": alarms, "names": names, "chart": drawn, "told": told, "moods": MOODS,
            "medians": medians, "topic": START, "raised": RAISED, "quiet_shares": USUAL,
            "facts": {"quiet": QUIET, "span": SPAN, "level": LEVEL, "length": opinion_check.LENGTH},
        }  # fmt: skip

    # --- what the forms do ---

    def do_step(self, form: Values) -> str:
        """The next items."""
        if form.get("n") not in {str(n) for n in STEPS}:
            raise ParameterError(f"a step of {form.get('n')!r} items: choose of {', '.join(map(str, STEPS))}")
        self.step(int(form["n"]))
        return "/"

    def do_plant(self, form: Values) -> str:
        """An episode from now on."""
        self.plant()
        return "/"

    def do_begin(self, form: Values) -> str:
        """A new stream."""
        seed = form.get("seed", "")
        if not (seed.isascii() and seed.isdigit() and len(seed) <= 6):
            raise ParameterError(f"seed {seed!r:.20}: write a whole number from 0 to 999999")
        self.begin(int(seed), form.get("topic", ""))
        return "/"


def build(reader: OpinionReader | None = None) -> Demo:
    """The demo. ``reader``: one that is fitted already.

    AssetError where MiniLM, the BBC articles or the rated sentences are not fetched.
    """
    pages = MonitorPages(reader or OpinionReader())
    views = (
        View("/", "Dashboard", "monitor.html.j2", pages.dashboard),
        View("/worth", "What it is worth", "monitor_worth.html.j2", pages.worth),
    )
    actions = {"step": pages.do_step, "plant": pages.do_plant, "begin": pages.do_begin}
    about = (
        "A demo of lesson 26. These are no finance posts: the items are sentences of newspaper editorials "
        "(VADER's collection), drawn again and again; their topic is guessed by a head "
        "that was fitted on headlines of BBC News."
    )
    return Demo("monitor", "Opinion monitor", about, views, actions)
