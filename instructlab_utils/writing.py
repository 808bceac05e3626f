"""Programs that a model writes: drawn at random, broken on purpose, what is wrong with them, and what they compute.

The language is that of :mod:`instructlab_utils.programs`. Taught in lesson 15.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

import torch

from instructlab_utils import programs, small
from instructlab_utils.errors import ProgramError
from instructlab_utils.grammars import Stacks, WordMasks
from instructlab_utils.programs import STEPS, Program, Step, Test, Value

PLAIN = re.compile(r"[a-z]+|[0-9]+|[|()<>=]")  # of what an error says
NUMBERS = range(1, 6)
SIGNS = (*STEPS, *programs.WORDS, *"|()<>=", *map(str, NUMBERS))
NESTED = ("map", "filter", "if")
ERROR = "error"  # in place of a value


def draw(rng: random.Random, depth: int, given: str = "list", nested: bool = True) -> Program:
    """A well-typed program of ``depth`` steps; a body in brackets has one step, so that words for it have one reading."""
    found: list[Step] = []
    for _ in range(depth):
        plain = [name for name, kind in STEPS.items() if kind.takes == given]
        step = _step(rng, rng.choice([*plain, *NESTED * 3] if nested and given == "list" else plain), given)
        found.append(step)
        given = programs.check((step,), given)
    return tuple(found)


def _step(rng: random.Random, name: str, given: str) -> Step:
    relation, number = rng.choice(("even", "odd", ">", "<", "=")), rng.choice(NUMBERS)
    test = Test(relation, number if relation in "><=" else None)
    if name == "map":
        body = draw(rng, 1, "number", False)
        while programs.check(body, "number") != "number":  # upto
            body = draw(rng, 1, "number", False)
        return Step(name, bodies=(body,))
    if name == "filter":
        return Step(name, test=test)
    if name == "if":
        then, other = draw(rng, 1, given, False), draw(rng, 1, given, False)
        while programs.check(other, given) != programs.check(then, given):
            other = draw(rng, 1, given, False)
        return Step(name, test=test, measure=rng.choice(programs.MEASURES), bodies=(then, other))
    return Step(name, number if STEPS[name].numbered else None)


def fault(text: str) -> str:
    """What the parser or the type check says of a program, in plain tokens after the number of the word; "" if nothing."""
    try:
        programs.check(programs.parse(text))
    except ProgramError as error:
        told = " ".join(PLAIN.findall(error.reason.lower()))
        return f"{text[: error.at - 1].count(' ') + 1} : {told}"
    return ""


def broken(rng: random.Random, text: str) -> str:
    """The program with one word left out, doubled, or replaced, so that it is no longer valid."""
    while True:
        words = text.split()
        place = rng.randrange(len(words))
        words[place : place + 1] = rng.choice(([], [words[place]] * 2, [rng.choice(SIGNS)]))
        if fault(" ".join(words)):
            return " ".join(words)


def outputs(text: str, inputs: Sequence[Value]) -> list[Value | str]:
    """What a program gives for each input; ``ERROR`` where it cannot be read or run."""
    found: list[Value | str] = []
    for given in inputs:
        try:
            found.append(programs.run(programs.parse(text), given).value)
        except ProgramError:
            found.append(ERROR)
    return found


def ids_of(text: str, tokenizer: Any) -> list[int]:
    """The ids of the words of ``text`` that the vocabulary has; others, which an error may name, are left out."""
    known = tokenizer.get_vocab()
    return [known[word] for word in text.split() if word in known]


def write(
    net: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], longest: int, *,
    machine: Stacks | None = None, temperature: float = 0.0, generator: torch.Generator | None = None,
) -> list[str]:  # fmt: skip
    """A program for each prompt, of at most ``longest`` tokens, constrained by ``machine``; greedy at temperature 0."""
    end = tokenizer.eos_token_id
    masks = WordMasks(machine, tokenizer.get_vocab(), end) if machine else None
    allowed = (lambda _, new: masks.allowed(new)) if masks else None
    new, _ = small.sample(
        net, prompts, longest, end, temperature=temperature, generator=generator, allowed=allowed
    )
    return [" ".join(tokenizer.convert_ids_to_tokens(row)) for row in new]
