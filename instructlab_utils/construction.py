"""Automatic construction of instructions: a few hand-written ones become many, filtered, with a count for each step.

An instruction is a row of *clauses*; a clause is words and the steps of a program (`programs`) that they ask for. So the
label of a constructed instruction is never wrong about its program; whether its words say what the program does is for an
audit. Taught in lesson 16.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from instructlab_utils import generation, models, programs
from instructlab_utils.errors import ProgramError
from instructlab_utils.programs import Program, Step

JOIN = re.compile(r" (?:, then|; then|, afterwards|and afterwards|, and|, but|,|;|:|and) ")
JOINS = (" , then ", " , and ", " ; then ", " , afterwards ")
NUMBERS = {1: "one", 2: "two", 3: "three"}
WORD = re.compile(r"[a-z0-9]+")  # the words of rouge_score
ARROW = "=>"
CLOSE = 0.7  # ROUGE-L from which an instruction counts as known: Wang et al. (2023), section 2.2


class Clause(NamedTuple):
    """Words, and the steps that they ask for."""

    text: str
    program: Program


class Made(NamedTuple):
    """An instruction: clauses, and what stands between them."""

    clauses: tuple[Clause, ...]
    joins: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        between = (*self.joins, "")
        return "".join(clause.text + join for clause, join in zip(self.clauses, between, strict=True))

    @property
    def program(self) -> Program:
        return tuple(step for clause in self.clauses for step in clause.program)


Bank = Sequence[Clause]
Operator = Callable[[Made, Bank, random.Random], Made | None]


# --- the tree of skills -------------------------------------------------------------------------------------------------


def _steps(text: str) -> tuple[Step, ...]:
    return tuple(programs.parse(one)[0] for one in text.split(" ; "))


TAXONOMY: dict[str, dict[str, tuple[Step, ...]]] = {
    "order": {"reverse": _steps("reverse"), "sort": _steps("sort"), "swap": _steps("swap")},
    "select": {
        "take": _steps("take 1 ; take 2 ; take 3"),
        "drop": _steps("drop 1 ; drop 2 ; drop 3"),
        "parity": _steps("filter even ; filter odd"),
        "compare": _steps(" ; ".join(f"filter {sign} {n}" for sign in "><" for n in range(2, 9))),
    },
    "change": {
        "twice": _steps("twice"),
        "add": _steps("map ( add 1 ) ; map ( add 2 ) ; map ( add 3 )"),
        "times": _steps("map ( times 2 ) ; map ( times 3 )"),
    },
    "measure": {name: _steps(name) for name in ("first", "last", "max", "min", "length")},
}
LEAVES = {leaf: steps for branch in TAXONOMY.values() for leaf, steps in branch.items()}
LEAF_OF = {str(step): leaf for leaf, steps in LEAVES.items() for step in steps}


def leaf_of(program: Program) -> str:
    """The leaf of what a program does last; KeyError for a step that is in no leaf."""
    return LEAF_OF[str(program[-1])]


# --- hand-written instructions ------------------------------------------------------------------------------------------


def load(path: str | Path) -> list[Clause]:
    """Hand-written instructions from JSON Lines with ``text`` and ``program``; ProgramError for a program that is none."""
    lines = Path(path).read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    found = [Clause(" ".join(row["text"].split()), programs.parse(row["program"])) for row in rows]
    for clause in found:
        programs.check(clause.program)
    return found


def split(one: Clause) -> Made:
    """Clause by clause, where there are as many parts between joins as there are steps; else the whole is one clause.

    A guess from the form alone: "from the even ones the first , as a list" comes apart at the wrong place. Source: lesson 16.
    """
    parts, joins = JOIN.split(one.text), JOIN.findall(one.text)
    if len(parts) == len(one.program) > 1:
        clauses = tuple(Clause(text, (step,)) for text, step in zip(parts, one.program, strict=True))
        return Made(clauses, tuple(joins))
    return Made((one,))


def single(pool: Sequence[Made]) -> list[Clause]:
    """The clauses of one step in a pool: what new instructions are put together from."""
    return [clause for made in pool for clause in made.clauses if len(clause.program) == 1]


# --- operators: one instruction becomes another -------------------------------------------------------------------------


def _kind(step: Step) -> tuple[str, str]:
    """What stays of a step when its number changes."""
    return step.name, step.bodies[0][0].name if step.bodies else step.test.relation if step.test else ""


def _number(step: Step) -> int | None:
    return step.bodies[0][0].number if step.bodies else step.test.number if step.test else step.number


def described(step: Step, rng: random.Random) -> Clause:
    """A clause in the language's own phrases."""
    return Clause(programs.describe((step,), rng.choice), (step,))


def renumbered(clause: Clause, rng: random.Random) -> Clause | None:
    """Another number in a clause of one step, in its words and in its program; None where the words do not name it once."""
    step, words = clause.program[0], clause.text.split()
    old = _number(step)
    others = [s for s in LEAVES[LEAF_OF[str(step)]] if _kind(s) == _kind(step) and s != step]
    places = [i for i, word in enumerate(words) if old is not None and word in (str(old), NUMBERS.get(old))]
    if len(clause.program) != 1 or len(places) != 1 or not others:
        return None
    new = rng.choice(others)
    digit = str(_number(new))
    words[places[0]] = digit if words[places[0]].isdigit() else NUMBERS.get(int(digit), digit)
    return Clause(" ".join(words), (new,))


def _with(made: Made, i: int, clause: Clause | None) -> Made | None:
    """The instruction with another clause at place ``i``."""
    return clause and Made((*made.clauses[:i], clause, *made.clauses[i + 1 :]), made.joins)


def another_number(made: Made, bank: Bank, rng: random.Random) -> Made | None:
    i = rng.randrange(len(made.clauses))
    return _with(made, i, renumbered(made.clauses[i], rng))


def another_step(made: Made, bank: Bank, rng: random.Random) -> Made | None:
    """In breadth: one clause gives way to one from the bank."""
    return _with(made, rng.randrange(len(made.clauses)), rng.choice(bank))


def other_words(made: Made, bank: Bank, rng: random.Random) -> Made | None:
    """The same program: one clause in the language's own phrases."""
    i = rng.randrange(len(made.clauses))
    steps = made.clauses[i].program
    return _with(made, i, described(steps[0], rng)) if len(steps) == 1 else None


def deepened(made: Made, bank: Bank, rng: random.Random) -> Made | None:
    """In depth: a further step at the end."""
    return Made((*made.clauses, rng.choice(bank)), (*made.joins, rng.choice(JOINS)))


def constrained(made: Made, bank: Bank, rng: random.Random) -> Made | None:
    """In depth: only some of the numbers count, which a program can check."""
    step = rng.choice((*LEAVES["parity"], *LEAVES["compare"]))
    return Made((described(step, rng), *made.clauses), (rng.choice(JOINS), *made.joins))


OPERATORS: dict[str, Operator] = {
    "another number": another_number,
    "another step": another_step,
    "other words": other_words,
    "deepened": deepened,
    "constrained": constrained,
}


# --- filters ------------------------------------------------------------------------------------------------------------


def labelled(program: Program, deepest: int = 2) -> bool:
    """Whether the teacher can label it: types fit, and it is not too long."""
    try:
        programs.check(program)
    except ProgramError:
        return False
    return len(program) <= deepest


def inputs(n: int, rng: random.Random) -> list[list[int]]:
    """``n`` lists of 4 to 6 digits."""
    return [[rng.randrange(10) for _ in range(rng.randint(4, 6))] for _ in range(n)]


def answer(program: Program, value: list[int]) -> programs.Value | None:
    """What the program gives, None where it has no result."""
    try:
        return programs.run(program, value).value
    except ProgramError:
        return None


def useful(program: Program, lists: Sequence[list[int]]) -> bool:
    """Whether every step changes something: on most lists a result, not empty, and not that of a shorter program."""
    full = [answer(program, x) for x in lists]
    shorter = [(), *(program[:i] + program[i + 1 :] for i in range(len(program)))]
    same = [sum(answer(p, x) == y for x, y in zip(lists, full, strict=True)) for p in shorter]
    return sum(y is None or y == [] for y in full) < len(lists) / 2 and max(same) < 0.8 * len(lists)


def common_words(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest common subsequence. Source: lesson 16."""
    row = [0] * (len(b) + 1)
    for word in a:
        before = row[:]
        for j, other in enumerate(b, start=1):
            row[j] = before[j - 1] + 1 if word == other else max(before[j], row[j - 1])
    return row[-1]


def rouge_l(a: Sequence[str], b: Sequence[str]) -> float:
    """ROUGE-L F1 of two lists of words: 2 l / (|a| + |b|), 0 for two empty ones. Source: Lin (2004); lesson 16."""
    return 2 * common_words(a, b) / max(1, len(a) + len(b))


class Pool:
    """Texts, and whether a new one is too near to one of them by ROUGE-L. Words that both have bound it from above."""

    def __init__(self) -> None:
        self.words: list[list[str]] = []
        self.holders: dict[str, Counter[int]] = {}

    def add(self, text: str) -> None:
        words = WORD.findall(text.lower())
        for word, n in Counter(words).items():
            self.holders.setdefault(word, Counter())[len(self.words)] = n
        self.words.append(words)

    def near(self, text: str, limit: float = CLOSE) -> bool:
        words = WORD.findall(text.lower())
        shared: Counter[int] = Counter()
        for word, n in Counter(words).items():
            for i, m in self.holders.get(word, {}).items():
                shared[i] += min(n, m)
        close = (i for i, n in shared.items() if 2 * n >= limit * (len(words) + len(self.words[i])))
        return any(rouge_l(words, self.words[i]) >= limit for i in close)


# --- the loop -----------------------------------------------------------------------------------------------------------


def bootstrap(
    seeds: Sequence[Made], size: int, rng: random.Random, *, filtered: bool = True, leaves: Sequence[str] = (),
    banned: frozenset[str] = frozenset(), most: int = 200_000,
) -> tuple[list[Made], Counter[str]]:  # fmt: skip
    """``seeds`` and what grows from them until there are ``size``, and how many proposals each step has left.

    Every proposal is labelled and none has a ``banned`` program; ``filtered``: it is useful, and new by ROUGE-L.
    ``leaves``: the leaves take turns (a taxonomy); without them a proposal comes from any member of the pool.
    Stops after ``most`` proposals.
    """
    pool, known, left, lists = list(seeds), Pool(), Counter[str](), inputs(16, rng)
    for made in seeds:
        known.add(made.text)
    while len(pool) < size and left["proposed"] < most:
        new = proposal(pool, leaves[len(pool) % len(leaves)] if leaves else None, rng)
        left["proposed"] += 1
        fault = refusal(new, filtered, banned, lists, known)
        if fault or new is None:
            left[f"refused: {fault}"] += 1
        else:
            pool.append(new)
            known.add(new.text)
    return pool, left


def proposal(pool: Sequence[Made], leaf: str | None, rng: random.Random) -> Made | None:
    """One operator on one member of the pool; with a ``leaf``, its last clause is then one of that leaf's."""
    bank = single(pool)
    made = OPERATORS[rng.choice(list(OPERATORS))](rng.choice(pool), bank, rng)
    if made is None or leaf is None or leaf_of(made.program) == leaf:
        return made
    mine = [clause for clause in bank if leaf_of(clause.program) == leaf]
    return _with(made, len(made.clauses) - 1, rng.choice(mine or [described(rng.choice(LEAVES[leaf]), rng)]))


def refusal(
    new: Made | None, filtered: bool, banned: frozenset[str], lists: Sequence[list[int]], known: Pool
) -> str:
    """The first check that a proposal does not pass; empty where it passes all. Source: lesson 16."""
    if new is None or not labelled(new.program):
        return "no label"
    if programs.render(new.program) in banned:
        return "held out"
    if filtered and not useful(new.program, lists):
        return "useless"
    return "near copy" if filtered and known.near(new.text) else ""


# --- words to programs --------------------------------------------------------------------------------------------------


def vocabulary(texts: Iterable[str]) -> list[str]:
    """All words of the texts, of the language's phrases and of programs, sorted, and the sign that ends a prompt."""
    phrases = [*texts, *JOINS, *NUMBERS.values(), *programs.RELATIONS.values()]
    phrases += [phrase for options in programs.PHRASES.values() for phrase in options]
    steps = [str(step) for steps in LEAVES.values() for step in steps]
    words = {word for text in (*phrases, *steps, "| 1 2 3 4 5 6 7 8 9") for word in text.split()}
    return [*sorted(words - {"{}"}), ARROW]


def example(text: str, program: str, tokenizer: Any) -> dict[str, list[int]]:
    """One training example: the words, the arrow, then the program, which alone counts."""
    return generation.encode_completion(f"{text} {ARROW}", program, tokenizer)


def translate(net: Any, tokenizer: Any, texts: Sequence[str], longest: int = 20) -> list[str]:
    """The program that the model writes for each text, by greedy decoding; it need not be one."""
    prompts = [tokenizer(f"{text} {ARROW}")["input_ids"] for text in texts]
    found = generation.greedy(net, prompts, longest, tokenizer.eos_token_id)
    return [tokenizer.decode(ids) for ids in found]


def parsed(text: str) -> Program | None:
    """The program, None where the text is none or its types do not fit."""
    try:
        program = programs.parse(text)
        programs.check(program)
    except ProgramError:
        return None
    return program


def same(a: Program, b: Program, lists: Sequence[list[int]]) -> bool:
    """Whether two programs give the same on every list; no result is like no result."""
    return all(answer(a, x) == answer(b, x) for x in lists)


def marked(
    answers: Sequence[str], wanted: Sequence[Clause | Made], lists: Sequence[list[int]]
) -> tuple[list[bool], list[bool]]:
    """For each answer, whether its program does the right thing, and whether its last step is of the right leaf."""
    found = [(parsed(said), one.program) for said, one in zip(answers, wanted, strict=True)]
    right = [a is not None and same(a, b, lists) for a, b in found]
    return right, [a is not None and LEAF_OF.get(str(a[-1])) == leaf_of(b) for a, b in found]


def word_vectors(words: Sequence[str], width: int, scale: float = 0.05) -> Tensor:
    """First values for the words' embeddings, (len(words), width): MiniLM's vectors, centred, their main directions.

    What a small model from scratch lacks and a pretrained one has: that "final" is near "last".
    """
    tokenizer, net = models.load_tokenizer("encoder"), models.load_encoder()
    table = net.get_input_embeddings().weight.detach()
    pieces = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
    raw = torch.stack([table[ids].mean(0) for ids in pieces])
    left, strength, _ = torch.linalg.svd(raw - raw.mean(0), full_matrices=False)
    left = (
        left * left.gather(0, left.abs().argmax(0, keepdim=True)).sign()
    )  # else the signs are the library's whim
    found = (left * strength)[:, :width]
    return found * scale / found.std()
