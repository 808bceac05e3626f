"""Constrained decoding: a grammar says which tokens may come next, and all others get probability 0.

Two machines with one idea, a set of stacks of what is still to come. The first reads *characters*, so it serves a tokenizer
whose tokens are pieces of text: :func:`opened`, :func:`advance`, :func:`trie`, :func:`allowed`, together :class:`Constraint`.
The second reads *words* and knows the types of programs: :class:`Stacks`, :class:`WordMasks`. Taught in lesson 15.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from instructlab_utils.errors import ParameterError
from instructlab_utils.programs import DEEPEST, DIGITS, MEASURES, STEPS

# --- characters: a grammar, its automaton, a tokenizer of pieces --------------------------------------------------------

Piece = str | frozenset[str]  # a rule's name, a text, or one of several characters
Grammar = Mapping[str, Sequence[Sequence[Piece]]]  # rule → its alternatives; no rule may begin with itself
State = frozenset[tuple[Piece, ...]]
DIGIT = frozenset("0123456789")


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


def token_bytes(tokenizer: Any) -> dict[int, str]:
    """Id → the token's bytes, each as the character of its number (Latin-1); without special and added tokens.

    For byte-level tokenizers, whose tokens may end inside a character of UTF-8. They write the bytes that Latin-1 shows as
    themselves, and the other 68, in order, as the characters from 256 on.
    """
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    byte_of = {chr(byte): byte for byte in shown} | {chr(256 + i): byte for i, byte in enumerate(hidden)}
    added = tokenizer.get_added_vocab()
    plain = {id_: word for word, id_ in tokenizer.get_vocab().items() if word not in added}
    return {id_: "".join(chr(byte_of[c]) for c in word) for id_, word in plain.items()}


class Constraint:
    """What may follow in a text of ``grammar``, for :func:`instructlab_utils.small.sample` with a byte-level tokenizer."""

    def __init__(self, tokenizer: Any, grammar: Grammar, start: str = "<start>") -> None:
        self.grammar, self.texts, self.end_id = grammar, token_bytes(tokenizer), tokenizer.eos_token_id
        self.root = trie({id_: text for id_, text in self.texts.items() if text})
        self.start = opened([(start,)], grammar)
        self.masks: dict[State, list[int]] = {}

    def state(self, new: Sequence[int]) -> State:
        """The state after the tokens ``new``."""
        state = self.start
        for character in "".join(self.texts[id_] for id_ in new):
            state = advance(state, character, self.grammar)
        return state

    def allowed(self, i: int, new: Sequence[int]) -> list[int]:
        """The ids that may follow ``new``, whatever prompt ``i`` says; ascending. A state's answer is computed once."""
        state = self.state(new)
        if state not in self.masks:
            found = allowed(state, self.root, self.grammar) + [self.end_id] * (() in state)
            self.masks[state] = sorted(found)
        return self.masks[state]


# --- two grammars -------------------------------------------------------------------------------------------------------


def program_grammar() -> dict[str, list[list[Piece]]]:
    """Lesson 15's programs as ``programs.render`` writes them; types, and the limit of brackets, are not part of it."""
    steps: list[list[Piece]] = [
        [f"{name} ", "<number>"] if k.numbered else [name] for name, k in STEPS.items()
    ]
    return {
        "<start>": [["<step>"], ["<step>", " | ", "<start>"]],
        "<step>": [
            *steps, ["map ( ", "<start>", " )"], ["filter ", "<test>"],
            ["if ", "<measure>", " ", "<test>", " then ( ", "<start>", " ) else ( ", "<start>", " )"],
        ],
        "<test>": [["even"], ["odd"], [">", " ", "<number>"], ["<", " ", "<number>"], ["=", " ", "<number>"]],
        "<measure>": [[name] for name in ("it", *MEASURES)],
        "<number>": [[DIGIT] * n for n in range(1, DIGITS + 1)],
    }  # fmt: skip


def _span(low: int, high: int) -> frozenset[str]:
    return frozenset(map(chr, range(low, high + 1)))


MORE = _span(0x80, 0xBF)  # the bytes of a character of UTF-8 after its first
HEX = DIGIT | frozenset("abcdefABCDEF")
JSON: dict[str, list[list[Piece]]] = {  # values of JSON
    "<integer>": [["<natural>"], ["-", "<natural>"]],
    "<natural>": [["0"], [DIGIT - {"0"}, "<digits>"]],
    "<digits>": [[], [DIGIT, "<digits>"]],
    "<boolean>": [["true"], ["false"]],
    "<string>": [['"', "<characters>"]],
    "<characters>": [['"'], ["<character>", "<characters>"]],
    "<character>": [
        [_span(0x20, 0x7E) - {'"', "\\"}], ["\\", frozenset('"\\bfnrt')],
        ["\\u00", frozenset("01"), HEX], ["\\u007", frozenset("Ff")],
        [_span(0xC2, 0xDF), MORE], ["\xe0", _span(0xA0, 0xBF), MORE], ["\xed", _span(0x80, 0x9F), MORE],
        [_span(0xE1, 0xEF) - {"\xed"}, MORE, MORE], ["\xf0", _span(0x90, 0xBF), MORE, MORE],
        [_span(0xF1, 0xF3), MORE, MORE, MORE], ["\xf4", _span(0x80, 0x8F), MORE, MORE],
    ],
}  # fmt: skip


def schema_grammar(schema: Mapping[str, Any]) -> dict[str, list[list[Piece]]]:
    """The texts of a JSON schema, as ``json.dumps`` writes them: one blank after a comma and a colon, none elsewhere,
    control characters escaped and no others.

    Known: objects whose keys are all required and stand in their order, enum, const, anyOf, integer, string, boolean.
    Raises ParameterError for anything else.
    """
    rules = dict(JSON)
    _add("<start>", schema, rules)
    return rules


def _add(name: str, schema: Mapping[str, Any], rules: dict[str, list[list[Piece]]]) -> None:
    """Add the rule ``name`` for ``schema``, and rules for its parts."""
    parts = list(schema.get("anyOf", schema.get("properties", {}).values()))
    inner: list[Piece] = [f"{name[:-1]}.{place}>" for place in range(len(parts))]
    keys = list(schema.get("properties", ()))
    if "enum" in schema or "const" in schema:
        rules[name] = [[_written(value)] for value in schema.get("enum", [schema.get("const")])]
    elif "anyOf" in schema:
        rules[name] = [[part] for part in inner]
    elif schema.get("type") in ("integer", "string", "boolean"):
        rules[name] = [[f"<{schema['type']}>"]]
    elif schema.get("type") == "object" and list(schema.get("required", ())) == keys:
        before = [f"{', ' if place else '{'}{_written(key)}: " for place, key in enumerate(keys)]
        pairs = [piece for both in zip(before, inner, strict=True) for piece in both]
        rules[name] = [[*pairs, "}"] if keys else ["{}"]]
    else:
        raise ParameterError(f"the schema {dict(schema)} is none that this grammar knows: see schema_grammar")
    for part, each in zip(inner, parts, strict=True):
        _add(str(part), each, rules)


def _written(value: Any) -> str:
    """The bytes of a value of JSON, each as the character of its number."""
    return json.dumps(value, ensure_ascii=False).encode().decode("latin-1")


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
