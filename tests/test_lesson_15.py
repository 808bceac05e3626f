"""Lesson 15: constrained decoding equals a library's, by hand and on words; what the small model writes stays in bounds."""

import json
import random

import byte_grammars
import llguidance
import llguidance.hf
import numpy as np
import pytest

from instructlab_utils import grammars, models, programs, small, writing
from instructlab_utils.errors import ParameterError, ProgramError

FREE = '%llguidance {"no_forcing": true}\n'  # the library's "forced" tokens are a choice of speed, not of the language
CALL = {
    "type": "object",
    "properties": {
        "tool": {"enum": ["weather", "calendar", "café"]},
        "days": {"type": "integer"},
        "exact": {"type": "boolean"},
    },
    "required": ["tool", "days", "exact"],
}
NOTE = {
    "type": "object",
    "properties": {
        "to": {"anyOf": [{"const": None}, {"type": "string"}]},
        "at": {"type": "object", "properties": {"hour": {"type": "integer"}}, "required": ["hour"]},
    },
    "required": ["to", "at"],
}
PLAIN = [name for name, kind in programs.STEPS.items() if not kind.numbered]
NUMBERED = [name for name, kind in programs.STEPS.items() if kind.numbered]


def either(names):
    return "(" + " | ".join(f'"{name}"' for name in names) + ")"


LANGUAGE = f"""start: step (" | " step)*
step: {either(PLAIN)} | {either(NUMBERED)} " " number | "map ( " start " )" | "filter " test
    | "if " {either(("it", *programs.MEASURES))} " " test " then ( " start " ) else ( " start " )"
test: "even" | "odd" | (">" | "<" | "=") " " number
number: /[0-9]{{1,6}}/
"""
IN_WORDS = f"""start: step ("| " step)*
step: {either(f"{name} " for name in PLAIN)} | {either(f"{name} " for name in NUMBERED)} number | "map ( " start ") "
    | "filter " test | "if " {either(f"{name} " for name in ("it", *programs.MEASURES))} test then
then: "then ( " start ") else ( " start ") "
test: "even " | "odd " | ("> " | "< " | "= ") number
number: /[0-9]{{1,6}} /
"""


def closed(schema):
    """The schema without other keys: objects in objects too."""
    if schema.get("type") != "object":
        return schema
    parts = {key: closed(value) for key, value in schema["properties"].items()}
    return schema | {"properties": parts, "additionalProperties": False}


def of_schema(schema):
    told = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    return f"start: %json {json.dumps(closed(schema) | {'x-guidance': told})}\n"


GRAMMARS = {
    "programs": (byte_grammars.program_grammar(), LANGUAGE),
    "call": (byte_grammars.schema_grammar(CALL), of_schema(CALL)),
    "note": (byte_grammars.schema_grammar(NOTE), of_schema(NOTE)),
}


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer("decoder")


@pytest.fixture(scope="module")
def library(tokenizer):
    return llguidance.hf.from_tokenizer(tokenizer, n_vocab=len(tokenizer))


def mask(matcher, n):
    bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
    return set(np.flatnonzero(np.unpackbits(bits, bitorder="little")[:n]).tolist())


def walk(rng, ours, theirs, end, prefixes, length=24):
    """(prefixes, tokens in one set and not in the other, at most) on random texts of the grammar."""
    seen, worst = 0, 0
    while seen < prefixes:
        matcher, new = theirs(), []
        while len(new) < length:
            found = set(ours(new))
            worst, seen = max(worst, len(found ^ mask(matcher, 49152))), seen + 1
            token = rng.choice(sorted(found))
            if token == end:
                break
            assert matcher.consume_token(token)
            new.append(token)
    return seen, worst


@pytest.mark.parametrize("name", GRAMMARS)
def test_allowed_tokens_are_the_librarys(name, tokenizer, library, capsys):
    ours, theirs = GRAMMARS[name]
    constraint = byte_grammars.Constraint(tokenizer, ours)
    seen, worst = walk(
        random.Random(name), lambda new: constraint.allowed(0, new),
        lambda: llguidance.LLMatcher(library, FREE + theirs), tokenizer.eos_token_id, 400,
    )  # fmt: skip
    with capsys.disabled():
        print(f"\n{name}: {seen} prefixes, largest difference {worst} tokens, {len(constraint.masks)} states")
    assert worst == 0


class Words:
    """A tokenizer whose tokens are the words of ``tokenizer`` with the blank after them, as the library wants it."""

    def __init__(self, tokenizer):
        ids = tokenizer.get_vocab()
        self.tokens = [f"{word} ".encode() for word in sorted(ids, key=ids.get)]
        self.eos_token_id, self.bos_token_id, self.special_token_ids = tokenizer.eos_token_id, None, [0, 1, 2]
        self.encode = lambda text: [ids[word] for word in text.split()]

    def __call__(self, text):
        return self.encode(text.decode() if isinstance(text, bytes) else text)


def test_allowed_words_are_the_librarys(capsys):
    tokenizer = small.word_tokenizer([*writing.SIGNS, "6", "123456", "1234567"])
    masks = grammars.WordMasks(grammars.Stacks(), tokenizer.get_vocab(), tokenizer.eos_token_id)
    library = llguidance.LLTokenizer(llguidance.TokenizerWrapper(Words(tokenizer)))
    seen, worst = walk(
        random.Random(0), masks.allowed, lambda: llguidance.LLMatcher(library, FREE + IN_WORDS),
        tokenizer.eos_token_id, 400,
    )  # fmt: skip
    with capsys.disabled():
        print(f"\nwords: {seen} prefixes, largest difference {worst} tokens")
    assert worst == 0


def test_the_typed_machine_takes_what_the_type_check_takes():
    """Every well-typed program can be written, and every walk that ends is a well-typed program; as deep as the parser."""
    rng, typed, plain = random.Random(0), grammars.Stacks(typed=True), grammars.Stacks()
    for depth in [1, 2, 3, 4] * 100:
        state = typed.start
        for word in programs.render(writing.draw(rng, depth)).split():
            state = typed.advance(state, word)
        assert grammars.END in typed.words(state)
    ended, refused = 0, 0
    while ended < 300 or refused < 100:
        machine, words = (typed, plain)[rng.random() < 0.5], []
        state = machine.start
        while len(words) < 40 and (words == [] or words[-1] != grammars.END):
            choices = sorted(machine.words(state))
            words.append(grammars.END if grammars.END in choices else rng.choice(choices))
            state = machine.advance(state, words[-1])
        if words[-1] == grammars.END:
            text = " ".join("3" if word == grammars.NUMBER else word for word in words[:-1])
            ended += machine is typed
            wrong = writing.fault(text)
            refused += bool(wrong)
            assert programs.render(programs.parse(text)) == text and not (wrong and machine is typed), text


@pytest.mark.parametrize("nested", [programs.DEEPEST, programs.DEEPEST + 1])
def test_brackets_are_allowed_as_deep_as_the_parser_goes(nested):
    machine = grammars.Stacks()
    words = ["map", "("] * nested + ["add", "1"] + [")"] * nested
    state = machine.start
    for word in words:
        state = machine.advance(state, word)
    parses = not isinstance(writing.fault(" ".join(words)), str) or "brackets" not in writing.fault(
        " ".join(words)
    )
    assert (grammars.END in machine.words(state)) == parses == (nested <= programs.DEEPEST)


def test_a_token_may_end_inside_a_character(tokenizer):
    """Bytes, not characters: "café" is written through tokens that hold half of "é"."""
    constraint = byte_grammars.Constraint(tokenizer, byte_grammars.schema_grammar({"enum": ["café", "cafe"]}))
    halves = {id_ for id_, text in constraint.texts.items() if text == "\xc3"}
    prefix = tokenizer('"caf', add_special_tokens=False)["input_ids"]
    assert halves & set(constraint.allowed(0, prefix))
    new = [*prefix, *halves]
    assert {constraint.texts[id_][0] for id_ in constraint.allowed(0, new)} == {"\xa9"}


@pytest.mark.parametrize(
    "schema",
    [{"type": "array"}, {"type": "object", "properties": {"a": {"type": "integer"}}}, {"type": "number"}, {}],
)
def test_another_schema_is_refused(schema):
    with pytest.raises(ParameterError, match="none that this grammar knows"):
        byte_grammars.schema_grammar(schema)


@pytest.mark.parametrize("value", [0, -12, True, None, 'a "b" \\ é 😀', {"k": 1}])
def test_what_json_writes_is_read(value):
    kinds = {int: {"type": "integer"}, bool: {"type": "boolean"}, str: {"type": "string"}}
    nested = {"type": "object", "properties": {"k": {"type": "integer"}}, "required": ["k"]}
    grammar = byte_grammars.schema_grammar(
        kinds.get(type(value), {"const": None} if value is None else nested)
    )
    state = grammars.opened([("<start>",)], grammar)
    for character in json.dumps(value, ensure_ascii=False).encode().decode("latin-1"):
        state = grammars.advance(state, character, grammar)
    assert () in state


def test_an_untrained_model_writes_only_valid_programs_under_the_typed_machine():
    tokenizer = small.word_tokenizer(list(writing.SIGNS))
    net = small.small_decoder(len(tokenizer), std=0.3, window=128, seed=1)
    prompts = [[3 + i % 20, 4] for i in range(30)]
    machine = grammars.Stacks(typed=True)
    texts = writing.write(net, tokenizer, prompts, 100, machine=machine, temperature=1.0)
    ended = [text for text in texts if len(text.split()) < 100]
    assert len(ended) > 10 and not any(map(writing.fault, ended))
    free = writing.write(net, tokenizer, prompts, 20)
    assert sum(map(bool, map(writing.fault, free))) > 20


def test_broken_programs_are_invalid_and_outputs_say_error():
    rng = random.Random(3)
    for _ in range(200):
        text = programs.render(writing.draw(rng, 3))
        assert not writing.fault(text) and writing.fault(writing.broken(rng, text))
    assert writing.outputs("first", [[4, 2], []]) == [4, writing.ERROR]
    assert writing.outputs("turn", [[4, 2]]) == [writing.ERROR]
    with pytest.raises(ProgramError):
        programs.parse("turn")
