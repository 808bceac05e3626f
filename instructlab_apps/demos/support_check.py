"""What the customer-service bot is worth on held-out customers: alone, in dialogues, and over all thresholds.

Taught in lesson 26.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from instructlab_apps.demos.support_desk import COSTS, MIX, SOURCES, Need, SupportDesk, cost, mixed, needs
from instructlab_utils.errors import ParameterError
from instructlab_utils.intervals import Interval, wilson_interval

OUTCOMES = ("solved", "wrong", "person")


@dataclass(frozen=True)
class Shares:
    """How ``n`` dialogues or single texts ended; each share with Wilson's 95 % interval."""

    n: int
    solved: Interval
    wrong: Interval
    person: Interval


@dataclass(frozen=True)
class SupportReport:
    """The evaluation of one seed at one threshold.

    ``dialogues``: how they ended. ``needless``: of those handed over, the share in which the bot had the right answer.
    ``sources``: the same shares for single texts of each source. ``curve``: threshold, and the shares of customers (weighted
    by MIX) that the bot answers, and answers wrongly, and the mean cost.
    """

    threshold: float
    dialogues: Shares
    needless: Interval
    sources: dict[str, Shares]
    cost: float
    cost_people: float
    cost_bot: float
    curve: list[tuple[float, float, float, float]]


def dialogues(wanted: Sequence[Need], seed: int, most: int = 400) -> list[list[int]]:
    """Held-out customers as the places of their needs: one to three needs each, sources by MIX, no need used twice.

    It stops when a source has none left, or at ``most``. ParameterError for a seed below 0. They are composed: the needs are
    real texts, that one customer has these three is not.
    """
    if seed < 0:
        raise ParameterError(f"seed {seed}: give 0 or more")
    rng = np.random.default_rng(seed)
    left = {
        s: [int(i) for i in rng.permutation([n for n, need in enumerate(wanted) if need.source == s])]
        for s in SOURCES
    }
    found: list[list[int]] = []
    while len(found) < most:
        drawn = rng.choice(len(SOURCES), size=rng.integers(1, 4), p=[MIX[s] for s in SOURCES])
        if any((drawn == place).sum() > len(left[s]) for place, s in enumerate(SOURCES)):
            break
        found.append([left[SOURCES[place]].pop() for place in drawn])
    return found


def outcome(right: np.ndarray, answered: np.ndarray) -> str:
    """How a dialogue ends, from its needs in order: "person" at the first that is not answered, "wrong" at the first wrong
    answer, "solved" if all are answered rightly."""
    for good, said in zip(right, answered, strict=True):
        if not said:
            return "person"
        if not good:
            return "wrong"
    return "solved"


def shares(ends: Sequence[str]) -> Shares:
    """Each outcome's share with its interval. ParameterError for none."""
    if not ends:
        raise ParameterError("no dialogue to count")
    return Shares(len(ends), *(wilson_interval(list(ends).count(kind), len(ends)) for kind in OUTCOMES))


def evaluate(
    desk: SupportDesk, seed: int = 0, threshold: float | None = None, split: str = "test"
) -> SupportReport:
    """The bot on the held-out needs of ``split`` (test or dev), at its own threshold unless one is given."""
    limit = desk.threshold if threshold is None else threshold
    wanted = needs(split)
    confidence, right, _ = desk.scores(wanted)
    answered, weights = confidence >= limit, mixed(wanted)
    composed = dialogues(wanted, seed)
    ends = [outcome(right[places], answered[places]) for places in composed]
    handed = [places for places, end in zip(composed, ends, strict=True) if end == "person"]
    needless = sum(bool(right[next(i for i in places if not answered[i])]) for places in handed)
    single = [outcome(right[[i]], answered[[i]]) for i in range(len(wanted))]
    by_source = {
        s: shares([end for end, need in zip(single, wanted, strict=True) if need.source == s])
        for s in SOURCES
    }
    curve = []
    for at in np.linspace(0, 1, 101):
        said = confidence >= at
        wrong = (said & ~right) @ weights
        curve.append((float(at), float(said @ weights), float(wrong), cost(right, said, weights)))
    return SupportReport(
        threshold=limit,
        dialogues=shares(ends),
        needless=wilson_interval(needless, len(handed)) if handed else Interval(0.0, 0.0, 1.0),
        sources=by_source,
        cost=cost(right, answered, weights),
        cost_people=COSTS["person"],
        cost_bot=cost(right, np.ones(len(right), bool), weights),
        curve=curve,
    )


def articles_found(desk: SupportDesk) -> Interval:
    """Of our own test questions, the share whose very article is found, handed over or not."""
    own = [need for need in needs("test") if need.source == "own"]
    _, right, _ = desk.scores(own)
    return wilson_interval(int(right.sum()), len(own))
