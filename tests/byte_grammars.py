"""Lesson 15's automaton on the bytes of a real tokenizer: the language of programs, and JSON by a schema.

What `test_lesson_15` compares with llguidance. The lesson builds the automaton itself; these grammars put it to the test.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from instructlab_utils.errors import ParameterError
from instructlab_utils.grammars import Grammar, Piece, State, advance, allowed, opened, trie
from instructlab_utils.programs import DIGITS, MEASURES, STEPS

DIGIT = frozenset("0123456789")


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
    """What may follow in a text of ``grammar``, for ``small.sample`` with a byte-level tokenizer."""

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
