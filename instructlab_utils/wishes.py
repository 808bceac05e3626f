"""A world in which a program judges every answer: a wish names constraints, an answer is a row of digits.

"rising length 4 from 2 to even" is met by 2 3 5 8 and by 2 4 7 8, and missed by 2 3 5 7. Thousands of answers are judged
in a second, and many are right: room for a policy to become better, or merely narrower. Taught in lesson 17.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from itertools import combinations, pairwise
from typing import Any, NamedTuple

from torch import Generator, nn

from instructlab_utils import generation, small, training
from instructlab_utils.preferences import answer_examples

ORDERS = ("rising", "falling")
LENGTHS = (2, 3, 4, 5)
PARITIES = ("even", "odd")
WORDS = (*map(str, range(10)), *ORDERS, "length", "from", "to", *PARITIES)
LONGEST = 8  # tokens of an answer, its end included


class Wish(NamedTuple):
    """``length`` digits in strict ``order``, the first of them ``start``, the last one ``parity``."""

    order: str
    length: int
    start: int
    parity: str

    def __str__(self) -> str:
        return f"{self.order} length {self.length} from {self.start} to {self.parity}"


@cache
def answers(wish: Wish) -> tuple[tuple[int, ...], ...]:
    """All that meet the wish."""
    step = 1 if wish.order == "rising" else -1
    rows = [row[::step] for row in combinations(range(10), wish.length)]
    return tuple(row for row in rows if right(wish, row))


def wishes(least: int = 2) -> list[Wish]:
    """All that ``least`` answers or more meet, in a fixed order."""
    found = [Wish(o, n, d, p) for o in ORDERS for n in LENGTHS for d in range(10) for p in PARITIES]
    return [wish for wish in found if len(answers(wish)) >= least]


def judged(wish: Wish, answer: Sequence[int]) -> dict[str, bool]:
    """Constraint → whether the answer meets it. Anything but digits from 0 to 9 meets neither order nor parity."""
    digits = all(0 <= d <= 9 for d in answer)
    steps = [b - a if wish.order == "rising" else a - b for a, b in pairwise(answer)]
    return {
        "order": digits and all(step > 0 for step in steps),
        "length": len(answer) == wish.length,
        "start": list(answer[:1]) == [wish.start],
        "parity": digits and len(answer) > 0 and answer[-1] % 2 == (wish.parity == "odd"),
    }


def right(wish: Wish, answer: Sequence[int]) -> float:
    """The reward: 1 if all four constraints hold, else 0."""
    return float(all(judged(wish, answer).values()))


def points(wish: Wish, answer: Sequence[int]) -> float:
    """A judge with a hole: a point for the start, one for the parity, one for each step in the wished order.

    In shares of the points of a right answer, so that a right one has 1. But nothing says when to stop: a longer answer has
    more steps, and the length is never looked at.
    """
    found, up = judged(wish, answer), wish.order == "rising"
    steps = sum((a < b) == up and a != b for a, b in pairwise(answer))
    return (found["start"] + found["parity"] + steps) / (wish.length + 1)


def demonstration(wish: Wish, slip: float, rng: random.Random) -> list[int]:
    """An answer as a careless person writes it: each constraint is forgotten with probability ``slip``.

    A forgotten order leaves the digits after the first as they come, a forgotten length is one too few or too many.
    """
    forgets = {name: rng.random() < slip for name in ("order", "length", "start", "parity")}
    length = wish.length + (rng.choice((-1, 1)) if forgets["length"] else 0)
    start = rng.randrange(10) if forgets["start"] else wish.start
    parity = rng.choice(PARITIES) if forgets["parity"] else wish.parity
    fitting = answers(Wish(wish.order, length, start, parity))
    digits = list(rng.choice(fitting)) if fitting else rng.sample(range(10), length)
    if forgets["order"]:
        digits[1:] = rng.sample(digits[1:], len(digits) - 1)
    return digits


# --- the same wish in other words -------------------------------------------------------------------------------------

WORDINGS = (
    ({"rising": "rising", "falling": "falling"}, {"rising": "upwards", "falling": "downwards"},
     {"rising": "climbing", "falling": "sinking"}),
    ("length {}", "count {}", "size {}"),
    ("from {}", "first {}", "start {}"),
    ("to {}", "last {}", "end {}"),
)  # fmt: skip
MORE_WORDS = ("upwards", "downwards", "climbing", "sinking", "count", "size", "first", "start", "last", "end")
Wording = tuple[int, int, int, int]  # which of three for each part of a wish


def worded(wish: Wish, wording: Wording = (0, 0, 0, 0)) -> str:
    """The wish in one of 81 wordings; the first is ``str(wish)``."""
    order, length, start, parity = (options[i] for options, i in zip(WORDINGS, wording, strict=True))
    parts = (length.format(wish.length), start.format(wish.start), parity.format(wish.parity))  # type: ignore[attr-defined]
    return " ".join((order[wish.order], *parts))  # type: ignore[index]


# --- policies ---------------------------------------------------------------------------------------------------------


class Draw(NamedTuple):
    """An answer drawn from a policy: its wish, its digits, its token ids, its log-probability in nats."""

    wish: Wish
    digits: list[int]
    ids: list[int]
    log_prob: float


class World:
    """The wishes in three parts, by ``seed``: ``test`` (24), ``dev`` (12), and ``train``; and their tokens."""

    def __init__(self, seed: int) -> None:
        self.rng, self.tokenizer = random.Random(seed), small.word_tokenizer(WORDS)
        found = self.rng.sample(wishes(), len(wishes()))
        self.test, self.dev, self.train = found[:24], found[24:36], found[36:]
        self.ids = {word: self.tokenizer.convert_tokens_to_ids(word) for word in WORDS}
        self.end = self.tokenizer.eos_token_id

    def prompt(self, wish: Wish) -> list[int]:
        return [self.ids[word] for word in str(wish).split()]

    def examples(self, rows: Sequence[tuple[Wish, Sequence[int]]]) -> list[training.Example]:
        """Wishes and the token ids of answers, as examples to train on or to score."""
        return answer_examples([self.prompt(w) for w, _ in rows], [y for _, y in rows], self.end, LONGEST)

    def batch(self, drawn: Sequence[Draw]) -> training.Batch:
        """Answers as one padded batch."""
        return training.collate_tokens(self.examples([(a.wish, a.ids) for a in drawn]), 0)

    def base(self, seed: int, *, steps: int, slip: float, rows: int = 8000) -> Any:
        """A small decoder, trained from scratch on ``rows`` demonstrations by careless people."""
        wanted = [self.rng.choice(self.train) for _ in range(rows)]
        shown = [(w, [self.ids[str(d)] for d in demonstration(w, slip, self.rng)]) for w in wanted]
        net = small.small_decoder(len(self.tokenizer), window=16, seed=seed)
        training.train(
            net, self.examples(shown), steps=steps, learning_rate=3e-3, pad_id=0, batch_size=64, seed=seed,
            objective=generation.causal_losses,
        )  # fmt: skip
        return net

    def draw(self, net: nn.Module, wanted: Sequence[Wish], generator: Generator) -> list[Draw]:
        """One answer of the policy to each wish, at temperature 1."""
        prompts = [self.prompt(wish) for wish in wanted]
        new, log_p = small.sample(net, prompts, LONGEST, self.end, generator=generator)
        digit = {self.ids[str(d)]: d for d in range(10)}
        digits = [[digit.get(i, -1) for i in row] for row in new]
        return [Draw(*row) for row in zip(wanted, digits, new, log_p, strict=True)]
