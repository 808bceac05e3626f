"""A small language of executable instructions: text → steps → types → a run with an audit trail.

A program is a pipeline, ``reverse | take 2 | map ( add 1 )``: each step gets what the one before gave. Values are whole
numbers and lists of them. Lesson 15 builds all of it; lessons 16 and 17 use it as a teacher that is never wrong.

    program = step { "|" step }
    step    = NAME [ NUMBER ] | "map" "(" program ")" | "filter" test
            | "if" ( MEASURE | "it" ) test "then" "(" program ")" "else" "(" program ")"
    test    = "even" | "odd" | ( ">" | "<" | "=" ) NUMBER

Nothing here is executed by Python: a step is looked up in :data:`STEPS`, and every run has limits. Taught in lesson 15.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from instructlab_utils.errors import ProgramError
from instructlab_utils.phrases import JOINS as JOINS
from instructlab_utils.phrases import PHRASES as PHRASES
from instructlab_utils.phrases import RELATIONS as RELATIONS

Value = int | list[int]
LONGEST = 4000  # characters of a program
DEEPEST = 12  # brackets in brackets
DIGITS = 6  # of a number in a program
TOKEN = re.compile(r"[a-z]+|[0-9]+|[|()<>=]|(?P<other>[^ \t\n])")


class Kind(NamedTuple):
    """What a step takes and gives ("list" or "number"), whether a number follows it, and what it computes."""

    takes: str
    gives: str
    numbered: bool
    compute: Callable[..., Any]


STEPS = {
    "reverse": Kind("list", "list", False, lambda x: x[::-1]),
    "sort": Kind("list", "list", False, sorted),
    "unique": Kind("list", "list", False, lambda x: list(dict.fromkeys(x))),
    "swap": Kind("list", "list", False, lambda x: x if len(x) < 2 else [x[-1], *x[1:-1], x[0]]),
    "twice": Kind("list", "list", False, lambda x: x + x),
    "take": Kind("list", "list", True, lambda x, k: x[:k]),
    "drop": Kind("list", "list", True, lambda x, k: x[k:]),
    "length": Kind("list", "number", False, len),
    "sum": Kind("list", "number", False, sum),
    "max": Kind("list", "number", False, max),
    "min": Kind("list", "number", False, min),
    "first": Kind("list", "number", False, lambda x: x[0]),
    "last": Kind("list", "number", False, lambda x: x[-1]),
    "add": Kind("number", "number", True, lambda n, k: n + k),
    "times": Kind("number", "number", True, lambda n, k: n * k),
    "rest": Kind("number", "number", True, lambda n, k: n % k),
    "upto": Kind("number", "list", False, lambda n: list(range(1, n + 1))),
}
WORDS = ("map", "filter", "if", "then", "else", "it", "even", "odd")
MEASURES = tuple(name for name, kind in STEPS.items() if kind[:3] == ("list", "number", False))


@dataclass(frozen=True)
class Test:
    """``even``, ``odd``, or a relation with a number."""

    relation: str
    number: int | None = None

    __test__ = False  # not a test of pytest

    def holds(self, n: int) -> bool:
        """Whether the number ``n`` passes."""
        if self.number is None:
            return n % 2 == (self.relation == "odd")
        return {">": n > self.number, "<": n < self.number, "=": n == self.number}[self.relation]

    def __str__(self) -> str:
        return self.relation if self.number is None else f"{self.relation} {self.number}"


@dataclass(frozen=True)
class Step:
    """One step: its name, its number, test, measure and bodies where it has them, and its column, from 1."""

    name: str
    number: int | None = None
    test: Test | None = None
    measure: str | None = None
    bodies: tuple[Program, ...] = ()
    at: int = field(default=0, compare=False)

    def __str__(self) -> str:
        if self.name == "if":
            then, otherwise = map(render, self.bodies)
            return f"if {self.measure} {self.test} then ( {then} ) else ( {otherwise} )"
        if self.bodies:
            return f"{self.name} ( {render(self.bodies[0])} )"
        return " ".join(str(part) for part in (self.name, self.number, self.test) if part is not None)


Program = tuple[Step, ...]


def render(program: Program) -> str:
    """The program as text with one blank between tokens; ``parse`` gives the same program back."""
    return " | ".join(map(str, program))


class Token(NamedTuple):
    """A word, number or sign, and its column, from 1."""

    text: str
    at: int


def tokens(text: str) -> list[Token]:
    """The tokens of a program, and one empty token at the end (lesson 15). Raises ProgramError for any other character."""
    if len(text) > LONGEST:
        raise ProgramError(LONGEST, f"the program has {len(text)} characters; {LONGEST} are allowed")
    found = []
    for match in TOKEN.finditer(text):
        if match["other"]:
            raise ProgramError(match.start() + 1, f"{match[0]!a} is no character of the language")
        found.append(Token(match[0], match.start() + 1))
    return [*found, Token("", len(text) + 1)]


class Cursor:
    """A place in the tokens of a program, and the number of brackets that are open there. Lesson 15."""

    def __init__(self, text: str) -> None:
        self.tokens, self.place, self.open = tokens(text), 0, 0

    @property
    def next(self) -> Token:
        """The token that is read next."""
        return self.tokens[self.place]

    def take(self, *wanted: str) -> str:
        """The next token's text, if it is one of ``wanted``; then the one after it is next."""
        text, at = self.next
        if text not in wanted:
            raise ProgramError(at, complaint(text, wanted))
        self.place += 1
        return text


def shown(text: str) -> str:
    """A token as a message names it: not more than 40 characters of it."""
    return repr(text if len(text) <= 40 else f"{text[:40]}…") if text else "the end"


def complaint(text: str, wanted: Sequence[str]) -> str:
    """What is wrong with a token, and what could stand in its place."""
    found = shown(text)
    if near := difflib.get_close_matches(text, wanted, 1) if text else []:
        return f"{found} cannot stand here; did you mean {near[0]!r}?"
    some = " or ".join(repr(word) if word else "the end" for word in wanted)
    some = some if len(wanted) < 6 else "the name of a step, such as 'reverse'"
    return f"{found} cannot stand here; expected {some}"


def read_number(cursor: Cursor) -> int:
    """The next token as a number."""
    text, at = cursor.next
    if not text.isdigit():
        raise ProgramError(at, f"{shown(text)} cannot stand here; expected a number")
    if len(text) > DIGITS:
        raise ProgramError(at, f"the number has {len(text)} digits; {DIGITS} are allowed")
    cursor.place += 1
    return int(text)


def read_test(cursor: Cursor) -> Test:
    """``even``, ``odd``, or a relation and a number. Lesson 15."""
    relation = cursor.take("even", "odd", ">", "<", "=")
    return Test(relation, read_number(cursor) if relation in "><=" else None)


def read_body(cursor: Cursor) -> Program:
    """A program in brackets. Lesson 15."""
    if cursor.open >= DEEPEST:
        raise ProgramError(cursor.next.at, f"more than {DEEPEST} brackets in brackets")
    cursor.open += 1
    cursor.take("(")
    found = read_program(cursor)
    cursor.take(")")
    cursor.open -= 1
    return found


def read_if(cursor: Cursor, at: int) -> Step:
    """What stands after the word ``if``."""
    measure, test = cursor.take("it", *MEASURES), read_test(cursor)
    cursor.take("then")
    then = read_body(cursor)
    cursor.take("else")
    return Step("if", test=test, measure=measure, bodies=(then, read_body(cursor)), at=at)


def read_step(cursor: Cursor) -> Step:
    """One step of a program. Lesson 15."""
    at = cursor.next.at
    name = cursor.take("map", "filter", "if", *STEPS)
    if name == "map":
        return Step(name, bodies=(read_body(cursor),), at=at)
    if name == "filter":
        return Step(name, test=read_test(cursor), at=at)
    if name == "if":
        return read_if(cursor, at)
    return Step(name, read_number(cursor) if STEPS[name].numbered else None, at=at)


def read_program(cursor: Cursor) -> Program:
    """Steps with ``|`` between them. Lesson 15."""
    found = [read_step(cursor)]
    while cursor.next.text == "|":
        cursor.take("|")
        found.append(read_step(cursor))
    return tuple(found)


def parse(text: str) -> Program:
    """The steps of a program (lesson 15). Raises ProgramError, with the column of the first token that does not fit."""
    cursor = Cursor(text)
    found = read_program(cursor)
    cursor.take("")  # the end
    return found


def check(program: Program, given: str = "list") -> str:
    """The type that a program gives for a ``given`` one (lesson 15). ProgramError at the first step that does not fit."""
    for step in program:
        given = type_of(step, given)
    return given


def type_of(step: Step, given: str) -> str:
    """The type that one step gives for a ``given`` one (lesson 15). Raises ProgramError where it does not fit."""
    takes, gives = STEPS[step.name][:2] if step.name in STEPS else ("list", "list")
    takes = "number" if step.measure == "it" else takes
    if given != takes:
        raise ProgramError(step.at, f"{step.name!r} needs a {takes}, and gets a {given}")
    inside = [check(body, "number" if step.name == "map" else given) for body in step.bodies]
    if step.name == "map" and inside != ["number"]:
        raise ProgramError(step.at, f"the body of 'map' gives a {inside[0]}; it must give a number")
    if len(set(inside)) > 1:
        raise ProgramError(
            step.at, f"'then' gives a {inside[0]} and 'else' a {inside[1]}; both must give the same"
        )
    return inside[0] if step.name == "if" else gives


@dataclass(frozen=True)
class Limits:
    """What one run may use: steps, numbers in a list, and the size of a number."""

    steps: int = 1000
    length: int = 1000
    size: int = 10**9


class Record(NamedTuple):
    """One line of the audit trail: the step, its column, how deep it stands, the value before and after."""

    step: str
    at: int
    depth: int
    before: Value
    after: Value


@dataclass
class Trace:
    """A run: its ``value``, and a record for each step in the order in which the steps ended."""

    value: Value
    records: list[Record] = field(default_factory=list)


def run(program: Program, value: Value, limits: Limits = Limits()) -> Trace:
    """Execute the program on ``value``, which is not changed. Raises ProgramError for a value that is no whole number or
    list of them, types that do not fit, a step without a result, a limit; its ``records`` hold the trail until there."""
    check(program, kind_of(value))
    trace = Trace(within(value if isinstance(value, int) else [*value], limits, 0))
    try:
        trace.value = walk(program, trace.value, limits, trace.records)
    except ProgramError as error:
        error.records = trace.records
        raise
    return trace


def kind_of(value: Any) -> str:
    """ "number" or "list"; ProgramError for anything but whole numbers and lists of them (True is no number here)."""
    if isinstance(value, list) and all(type(n) is int for n in value):
        return "list"
    if type(value) is int:
        return "number"
    raise ProgramError(0, "the input must be a whole number or a list of whole numbers")


def walk(program: Program, value: Value, limits: Limits, records: list[Record], depth: int = 0) -> Value:
    """The steps one after another, each with its line in ``records``. Lesson 15."""
    for step in program:
        after = within(apply(step, value, limits, records, depth), limits, step.at)
        if len(records) >= limits.steps:
            raise ProgramError(step.at, f"the run needs more than {limits.steps} steps")
        records.append(Record(str(step), step.at, depth, value, after))
        value = after
    return value


def apply(step: Step, value: Any, limits: Limits, records: list[Record], depth: int) -> Any:
    """What one step makes of a value. Lesson 15."""
    if step.name == "map":
        return [walk(step.bodies[0], n, limits, records, depth + 1) for n in value]
    if step.name == "filter":
        return [n for n in value if step.test.holds(n)]  # type: ignore[union-attr]
    if step.name == "if":
        n = value if step.measure == "it" else compute(step, str(step.measure), value)
        chosen = step.bodies[0] if step.test.holds(n) else step.bodies[1]  # type: ignore[union-attr]
        return walk(chosen, value, limits, records, depth + 1)
    if step.name == "upto" and value > limits.length:  # before the memory is spent
        raise ProgramError(step.at, f"a list of more than {limits.length} numbers")
    return compute(step, step.name, value, *([step.number] if step.number is not None else []))


def compute(step: Step, name: str, *values: Any) -> Any:
    """Look a step up in the table, and do what stands there."""
    try:
        return STEPS[name].compute(*values)
    except (IndexError, ValueError):
        raise ProgramError(step.at, f"{name!r} has no result for an empty list") from None
    except ZeroDivisionError:
        raise ProgramError(step.at, f"{name!r} has no result for 0") from None


def within(value: Value, limits: Limits, at: int) -> Value:
    """The value, if it keeps the limits."""
    numbers = [value] if isinstance(value, int) else value
    if len(numbers) > limits.length:
        raise ProgramError(at, f"a list of more than {limits.length} numbers")
    if any(abs(n) > limits.size for n in numbers):
        raise ProgramError(at, f"a number beyond {limits.size}")
    return value


# --- programs at random, and in words ---------------------------------------------------------------------------------


def describe(program: Program, choose: Callable[[Sequence[str]], str] = lambda options: options[0]) -> str:
    """The program in words, tokens separated by blanks; ``choose`` picks one of the wordings at each place."""
    return choose(JOINS).join(_words(step, choose) for step in program)


def _words(step: Step, choose: Callable[[Sequence[str]], str]) -> str:
    parts: list[Any] = [step.number] if step.number is not None else []
    if step.test is not None:
        parts = [RELATIONS[step.test.relation].format(step.test.number)]
    if step.measure is not None:
        parts.insert(0, "it" if step.measure == "it" else f"the {step.measure}")
    parts += [describe(body, choose) for body in step.bodies]
    return choose(PHRASES[step.name]).format(*parts)


def programs(
    depth: int, names: Sequence[str], numbers: Sequence[int] = (1, 2, 3), given: str = "list"
) -> Iterator[Program]:
    """All well-typed programs of ``depth`` plain steps out of ``names``, in the order of ``names`` and ``numbers``."""
    if depth == 0:
        yield ()
    for name in (name for name in names if depth and STEPS[name].takes == given):
        for number in numbers if STEPS[name].numbered else (None,):
            for rest in programs(depth - 1, names, numbers, STEPS[name].gives):
                yield (Step(name, number), *rest)
