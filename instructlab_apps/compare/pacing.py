"""What fits into the reader's minutes: how many texts are read, how long, which methods, how many seeds and updates.

All speeds are measured in the first seconds, on the machine as it is then; what is cut is told.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

BATCH = 16
EVALUATED = 1.15  # a machine that others use gets slower: each estimate with this factor
ENOUGH, LITTLE = 60, 30  # updates: a run that is worth a comparison, and the least that is tried
CUTS = (128, 96, 64, 48, 32)
SLOWEST = 8.0


class OutOfTime(Exception):
    """A run that would not end within the minutes; what it had done is dropped."""


class Pulse:
    """How slow the machine is for this process: seconds that pass for one second of its own work, over the last quarter
    of a minute; 1 to :data:`SLOWEST`, and 1 as long as less than 5 seconds have been seen."""

    def __init__(self) -> None:
        self.marks = [(time.perf_counter(), time.process_time())]

    def slow(self) -> float:
        """Seconds a second, as of now."""
        self.marks.append((time.perf_counter(), time.process_time()))
        while len(self.marks) > 2 and self.marks[-1][0] - self.marks[1][0] > 15:
            del self.marks[0]
        passed, worked = (last - first for first, last in zip(self.marks[0], self.marks[-1], strict=True))
        return 1.0 if passed < 5 else min(max(passed / max(worked, 1e-3), 1.0), SLOWEST)


@dataclass(frozen=True)
class Clock:
    """``end`` is the moment (time.time()) at which the report must be there; ``minutes`` what the reader gave."""

    end: float
    minutes: float
    pulse: Pulse = field(default_factory=Pulse, compare=False, repr=False)

    def left(self) -> float:
        """Seconds until the end."""
        return self.end - time.time()

    @property
    def trials(self) -> int:
        """Values that every trained method may try."""
        return 3 if self.minutes >= 10 else 2

    @property
    def reserve(self) -> float:
        """Seconds kept for judging and for the report; more where others use the machine, but half of the minutes at most."""
        kept = 6 + 6 * self.pulse.slow() + 0.06 * 60 * min(self.minutes, 10)
        return min(kept, max(30 * self.minutes, 16.0))


@dataclass(frozen=True)
class Speeds:
    """Seconds a padded token: ``reading``, and one update by ``full`` tuning or ``lora`` (None: impossible here)."""

    reading: float
    full: float
    lora: float | None


@dataclass
class Plan:
    """Texts are cut to ``cut`` tokens, about ``working`` of them are read by the encoder; ``methods`` are tuned with
    ``steps`` updates, by ``trials`` values and then ``seeds`` seeds. ``said``: what was cut, in sentences."""

    cut: int
    working: int
    methods: list[str]
    steps: int
    seeds: int
    trials: int
    said: list[str] = field(default_factory=list)
    seconds: float = 0.0


def plan(left: float, clock: Clock, speeds: Speeds, lengths: Sequence[int], window: int = 512) -> Plan:
    """The most that fits into ``left`` seconds. ``lengths`` are tokens a text, uncut; ``window`` what the encoder reads.

    First come enough texts for frozen features, then full tuning with three seeds, then LoRA, then five seeds.
    """
    size, n, trials = np.asarray(lengths), len(lengths), clock.trials
    room = max(left - clock.reserve, 1.0)
    longest = int(min(np.quantile(size, 0.95), 128, window))
    cuts = [cut for cut in CUTS if cut < longest and longest > 32]
    options = [_option(cut, size, room, speeds, trials) for cut in [max(longest, 8), *cuts]]

    def suits(option: tuple[int, int, int], texts: int, steps: int) -> bool:
        return option[1] >= min(n, texts) and option[2] >= steps

    for texts, steps in ((600, ENOUGH), (400, LITTLE)):
        if fitting := [option for option in options if suits(option, texts, steps)]:
            break
    else:  # nothing can be tuned: the time goes to reading more texts
        options = [_option(cut, size, room, speeds, trials, 0.6) for cut, _, _ in options]
        fitting = [option for option in options if suits(option, 600, 0)] or options[-1:]
    cut, working, _ = fitting[0]
    cost = _Cost(cut, size, working, speeds, trials)
    return _tuned(Plan(cut, working, [], 0, 5, trials), cost, size, 0.9 * room - cost.reading)


def hopeless(made: Plan, left: float, clock: Clock, known: Speeds, lengths: Sequence[int]) -> bool:
    """Whether nothing could be tuned even if the machine were half as fast again as when ``known`` was measured: then a
    new measuring would be time thrown away."""
    lora = None if known.lora is None else known.lora / 1.5
    return not settled(
        made, left, clock, Speeds(known.reading / 1.5, known.full / 1.5, lora), lengths
    ).methods


def settled(made: Plan, left: float, clock: Clock, speeds: Speeds, lengths: Sequence[int]) -> Plan:
    """``made`` with the tuning planned anew, after the encoder has read: what the reading took is known by then."""
    size = np.asarray(lengths)
    cost = _Cost(made.cut, size, made.working, speeds, made.trials)
    return _tuned(made, cost, size, 0.95 * max(left - clock.reserve, 1.0), read=True)


def _tuned(made: Plan, cost: _Cost, size: np.ndarray, rest: float, read: bool = False) -> Plan:
    """The best rung that ``rest`` seconds pay: enough updates first, then LoRA, then five seeds."""
    want = int(np.clip(5 * 0.64 * made.working / BATCH, 100, 400))  # five epochs
    both = ["full", "lora"] if cost.speeds.lora is not None else ["full"]
    rungs = [(both, 5), (both, 3), (["full"], 5), (["full"], 3)]
    found = Plan(made.cut, made.working, [], 0, 5, made.trials)
    for need, allowed in ((want, rungs), (ENOUGH, rungs[1::2]), (LITTLE, rungs[1::2])):
        for methods, seeds in allowed:
            if not found.methods and (steps := cost.steps(methods, seeds, rest)) >= need:
                found = Plan(made.cut, made.working, list(methods), min(steps, want), seeds, made.trials)
    found.said = _said(found, size, want, cost.speeds)
    found.seconds = (0.0 if read else cost.reading) + cost.tuning(found.methods, found.seeds, found.steps)
    return found


class _Cost:
    """Seconds of what is planned, with :data:`EVALUATED` in them."""

    def __init__(self, cut: int, size: np.ndarray, working: int, speeds: Speeds, trials: int) -> None:
        self.tokens, self.speeds, self.trials, self.working = (
            1.1 * np.minimum(size, cut).mean(),
            speeds,
            trials,
            working,
        )
        self.reading = EVALUATED * speeds.reading * self.tokens * working

    def once(self, seeds: int) -> float:
        """What all runs of one method take beside their updates: copies of the encoder, dev and test texts."""
        judged = self.trials * 0.2 * self.working + seeds * 0.16 * self.working
        return EVALUATED * self.speeds.reading * self.tokens * judged + 0.7 * (self.trials + seeds)

    def update(self, method: str) -> float:
        """Seconds of one update."""
        speed = self.speeds.lora if method == "lora" else self.speeds.full
        return EVALUATED * (speed or 0.0) * BATCH * self.tokens

    def steps(self, methods: Sequence[str], seeds: int, rest: float) -> int:
        """Updates a run that ``rest`` seconds pay, the same for all methods."""
        each = sum(map(self.update, methods)) * (self.trials + seeds)
        return max(0, int((rest - len(methods) * self.once(seeds)) / each)) if each else 0

    def tuning(self, methods: Sequence[str], seeds: int, steps: int) -> float:
        """Seconds of all runs of all ``methods``."""
        runs = self.trials + seeds
        return sum(self.update(method) * steps * runs + self.once(seeds) for method in methods)


def _option(
    cut: int, size: np.ndarray, room: float, speeds: Speeds, trials: int, share: float = 0.2
) -> tuple[int, int, int]:
    """The cut, how many texts this share of the room reads, and the updates of full tuning with three seeds."""
    a_text = EVALUATED * speeds.reading * 1.1 * np.minimum(size, cut).mean()
    working = int(min(len(size), max(60, share * room / a_text)))
    cost = _Cost(cut, size, working, speeds, trials)
    return cut, working, cost.steps(["full"], 3, 0.9 * room - cost.reading)


def _said(made: Plan, size: np.ndarray, want: int, speeds: Speeds) -> list[str]:
    said = []
    if over := float((size > made.cut).mean()):
        said.append(
            f"The encoder read the first {made.cut} tokens of a text; {over:.0%} of the texts are longer."
        )
    if made.working < len(size):
        said.append(
            f"The encoder read {made.working:,} of {len(size):,} texts, drawn at random; every "
            "method is scored on texts of this sample, but TF-IDF may learn from all."
        )
    if not made.methods:
        said.append(
            "LoRA and full tuning were cut: the time does not pay for three seeds of 30 updates. Give more --minutes."
        )
    elif "lora" not in made.methods:
        why = (
            "the encoder has no layers that it knows"
            if speeds.lora is None
            else "the time pays for one tuned method"
        )
        said.append(f"LoRA was cut: {why}.")
    if made.methods and made.steps < want:
        said.append(
            f"Tuned methods had {made.steps} updates of {BATCH} texts; about {want} would be usual for this many texts, "
            "so more --minutes may raise them."
        )
    return said
