"""Constrained decoding: a grammar says which tokens may come next, and all others get probability 0.

Two machines with one idea, a set of stacks of what is still to come. The first reads *characters*, so it serves a tokenizer
whose tokens are pieces of text: :func:`opened`, :func:`advance`, :func:`trie`, :func:`allowed`.
The second reads *words* and knows the types of programs: :class:`Stacks`, :class:`WordMasks`. Taught in lesson 15.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from instructlab_utils.programs import DEEPEST, DIGITS, MEASURES, STEPS

# --- characters: a grammar, its automaton, a tokenizer of pieces --------------------------------------------------------

Piece = str | frozenset[str]  # a rule's name, a text, or one of several characters
Grammar = Mapping[str, Sequence[Sequence[Piece]]]  # rule → its alternatives; no rule may begin with itself
State = frozenset[tuple[Piece, ...]]


def opened(stacks: Iterable[tuple[Piece, ...]], grammar: Grammar) -> State:
    """The stacks with a character on top, after every rule on top is replaced by each of its alternatives.

    The empty stack, (), stands for the end of the text. Source: lesson 15.
    """
    found, waiting = set(), list(stacks)
    while waiting:
        stack = waiting.pop()
        if stack and isinstance(stack[0], str) and stack[0] in grammar:
            waiting += [(*choice, *stack[1:]) for choice in grammar[stack[0]]]
        else:
            found.add(stack)
    return frozenset(found)


def advance(state: State, character: str, grammar: Grammar) -> State:
    """The state after one more character; empty where no text of the language goes on like this. Source: lesson 15."""
    after = set()
    for top, *rest in filter(None, state):
        if character in top if isinstance(top, frozenset) else top[0] == character:
            after.add(tuple(rest) if isinstance(top, frozenset) or len(top) == 1 else (top[1:], *rest))
    return opened(after, grammar)


def trie(texts: Mapping[int, str]) -> dict[str, Any]:
    """The vocabulary as a tree; under the key "" stand the ids of the tokens that end here. Source: lesson 15."""
    root: dict[str, Any] = {}
    for token, text in texts.items():
        node = root
        for character in text:
            node = node.setdefault(character, {})
        node.setdefault("", []).append(token)
    return root


def allowed(state: State, node: Mapping[str, Any], grammar: Grammar) -> list[int]:
    """The ids of all tokens whose every character can be read from ``state``. Source: lesson 15."""
    found = list(node.get("", ()))
    for character, below in node.items():
        if character and (after := advance(state, character, grammar)):
            found += allowed(after, below, grammar)
    return found


# --- words: a machine with stacks that knows the types of programs -----------------------------------------------------

NUMBER = "number"  # stands for every number of a program
END = ""  # the end of a program

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
        first: Stack = (("program", "list", "any") if typed else ("program", "", ""), END)
        self.start = frozenset({first})
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
        self.states: dict[tuple[int, ...], frozenset[Stack]] = {(): machine.start}
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
