"""Constrained decoding: a grammar says which tokens may come next, and all others get probability 0.

Two machines. A *regular* language becomes a finite automaton over bytes (:func:`automaton`), and a token may follow if all
of its bytes can be walked (:class:`Mask`, with a trie of the vocabulary). The language of programs is nested, so it needs a
stack (:class:`Stacks`); there a token is a whole word. Lesson 15 builds both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from instructlab_utils.programs import DEEPEST, DIGITS, MEASURES, STEPS

NUMBER = "number"  # stands for every number of a program
END = ""  # the end of a program

# --- programs: a machine with stacks ----------------------------------------------------------------------------------

Symbol = str | tuple[str, ...]  # a word, or the name of a rule with the types that it takes and gives
Stack = tuple[Symbol, ...]  # what is still to come, the next symbol first
KINDS = ("list", "number")


def productions(symbol: tuple[str, ...], typed: bool) -> Iterator[Stack]:
    """What a rule's symbol may become. ``("program", a, b)``: steps that make b from a; without types both are ""."""
    rule, *types = symbol
    if rule == "program":
        for middle in KINDS if typed else ("",):
            yield ("step", types[0], middle), ("more", middle, types[1])
    elif rule == "more":
        yield ("|", ("program", *types))
        if types[0] == types[1] or types[1] == "any":
            yield ()
    elif rule == "test":
        yield from [("even",), ("odd",), *((sign, NUMBER) for sign in "><=")]
    else:
        yield from _steps(types[0], types[1], typed)


def _steps(takes: str, gives: str, typed: bool) -> Iterator[Stack]:
    """The ways to write a step that makes ``gives`` from ``takes``."""
    for name, kind in STEPS.items():
        if not typed or (kind.takes, kind.gives) == (takes, gives):
            yield (name, NUMBER) if kind.numbered else (name,)
    if not typed or (takes, gives) == ("list", "list"):
        inner = ("program", "number", "number") if typed else ("program", "", "")
        yield "map", "(", inner, ")"
        yield "filter", ("test",)
    body = ("program", takes, gives)
    for measure in ("it", *MEASURES):
        if not typed or (measure == "it") == (takes == "number"):
            yield "if", measure, ("test",), "then", "(", body, ")", "else", "(", body, ")"


def deepest(stack: Stack) -> int:
    """How many brackets will be open at most while the stack is read."""
    depth = most = 0
    for symbol in reversed(stack):
        depth += (symbol == ")") - (symbol == "(")
        most = max(most, depth)
    return most


class Stacks:
    """Which words may come next in a program. ``typed``: only programs that the type check accepts, for a list.

    The state is a set of stacks, since the type that an ``if`` gives is known only later. A state is never changed:
    ``advance`` returns the next one, empty where the word cannot stand there.
    """

    def __init__(self, typed: bool = False) -> None:
        self.typed = typed
        self.start = frozenset({(("program", "list", "any") if typed else ("program", "", ""), END)})
        self.expand = lru_cache(maxsize=None)(self._expand)

    def _expand(self, stack: Stack) -> frozenset[Stack]:
        """The same stack with a word on top, in all ways."""
        if isinstance(stack[0], str):
            return frozenset({stack}) if deepest(stack) <= DEEPEST else frozenset()
        found: set[Stack] = set()
        for symbols in productions(stack[0], self.typed):
            found |= self.expand((*symbols, *stack[1:]))
        return frozenset(found)

    def words(self, state: Iterable[Stack]) -> set[str]:
        """The words that may come next; ``NUMBER`` for any number, ``END`` for the end of the program."""
        return {str(stack[0]) for top in state for stack in self.expand(top)}

    def advance(self, state: Iterable[Stack], word: str) -> frozenset[Stack]:
        """The state after ``word``."""
        symbol = NUMBER if word.isdigit() else word
        return frozenset(s[1:] for top in state for s in self.expand(top) if s[0] == symbol)


class WordMasks:
    """The ids that may come next, for a tokenizer whose tokens are words: ``ids`` is word → id, ``end_id`` ends a program."""

    def __init__(self, machine: Stacks, ids: Mapping[str, int], end_id: int) -> None:
        self.machine, self.ids, self.end_id = machine, dict(ids), end_id
        self.words = {id_: word for word, id_ in ids.items()}
        self.states = {(): machine.start}
        self.numbers = [id_ for word, id_ in ids.items() if word.isdigit() and len(word) <= DIGITS]

    def state(self, new: Sequence[int]) -> frozenset[Stack]:
        """The state after the ids ``new``; that of all but the last is remembered."""
        key = tuple(new)
        if key not in self.states:
            self.states[key] = self.machine.advance(self.state(key[:-1]), self.words[key[-1]])
        return self.states[key]

    def allowed(self, new: Sequence[int]) -> list[int]:
        """The ids that may follow ``new``, ascending."""
        words = self.machine.words(self.state(new))
        found = [self.ids[word] for word in words - {NUMBER, END} if word in self.ids]
        return sorted(found + self.numbers * (NUMBER in words) + [self.end_id] * (END in words))
