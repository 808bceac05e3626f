"""The language of lesson 15 under fire: 10,000 malformed programs and inputs, and a bank of hostile ones.

Whatever the text, there is a result or one ProgramError, the limits hold, and nothing outside the interpreter changes.
"""

import builtins
import contextlib
import json
import os
import random
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instructlab_utils import grammars, programs, writing
from instructlab_utils.errors import ProgramError
from instructlab_utils.programs import DEEPEST, DIGITS, LONGEST, Limits

MANY = settings(max_examples=2500, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck])
WORDS = [*programs.STEPS, *programs.WORDS, *"|()<>=", "0", "7", "1000", "999999", "99999999999"]
NOISE = [
    "\x00", "\x1b[2J", "\u202e", "ｒｅｖｅｒｓｅ", "rеverse", "²", "٣", "１", "\ud800", "__import__",
    "('os')", "\xa0", "\r", "-1", "1.5", "Reverse", "{", "lambda", "take2", "\n\n", "\t",
]  # fmt: skip
LIMITS = Limits(steps=60, length=40, size=10**6)


randoms = st.integers(0, 2**40).map(random.Random)


def mutated(rng):
    """A well-typed program after one to four accidents: a word or a character lost, doubled, moved or replaced."""
    parts = programs.render(writing.draw(rng, rng.randint(1, 5))).split(" ")
    for _ in range(rng.randint(1, 4)):
        gap = rng.choice(["", " "])  # accidents of characters, or of words
        parts = parts if gap else list(" ".join(parts))
        place = rng.randrange(len(parts) or 1)
        new, old = [rng.choice(WORDS if rng.random() < 0.6 else NOISE)], parts[place : place + 1]
        parts[place : place + 1] = rng.choice([[], old * 2, new, new + old])
        parts = gap.join(parts).split(" ")
    return " ".join(parts)


texts = st.one_of(
    randoms.map(mutated),
    st.lists(st.sampled_from(WORDS + NOISE), max_size=60).map(" ".join),
    st.text(max_size=80),
)
numbers = st.one_of(st.integers(-9, 9), st.integers(), st.sampled_from([10**100, -(10**9), 10**9 + 1]))
odd = st.one_of(
    st.booleans(),
    st.floats(),
    st.none(),
    st.text(max_size=4),
    st.binary(max_size=3),
    st.just({}),
    st.just(print),
)
inputs = st.one_of(
    numbers, st.lists(numbers, max_size=12), odd, st.lists(st.one_of(numbers, odd, st.just([1])))
)


def attempt(text, value, limits=LIMITS):
    """The trace of a run or the ProgramError; anything else fails the test that calls it."""
    try:
        return programs.run(programs.parse(text), value, limits)
    except ProgramError as error:
        return error


def keeps(value, limits):
    numbers = value if isinstance(value, list) else [value]
    return len(numbers) <= limits.length and all(type(n) is int and abs(n) <= limits.size for n in numbers)


def one_sentence(error):
    told = str(error)
    return told.startswith("column ") and "\n" not in told and len(told) < 300 and told.isprintable()


@given(texts, inputs)
@MANY
def test_any_text_and_any_input_give_a_result_within_the_limits_or_one_sentence(text, value):
    before = repr(value)
    found = attempt(text, value)
    records = found.records
    assert len(records) <= LIMITS.steps
    assert all(keeps(record.before, LIMITS) and keeps(record.after, LIMITS) for record in records)
    if isinstance(found, ProgramError):
        assert one_sentence(found) and 0 <= found.at <= min(len(text), LONGEST) + 1
    else:
        assert keeps(found.value, LIMITS)
    assert repr(value) == before


@given(texts)
@MANY
def test_what_is_read_is_written_and_read_again(text):
    try:
        program = programs.parse(text)
    except ProgramError:
        return
    again = programs.render(program)
    assert programs.parse(again) == program and programs.render(programs.parse(again)) == again
    assert again.split() == [token.text for token in programs.tokens(text)][:-1] or "0" in text


@given(st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join) | randoms.map(mutated))
@MANY
def test_the_column_is_that_of_the_first_token_that_does_not_fit(text):
    """The judge is another machine: the grammar of constrained decoding. What stands before the column can be continued."""
    try:
        found = programs.tokens(text)
    except ProgramError as error:
        assert not programs.tokens(text[: error.at - 1])[-1].text  # all characters before it are good
        return
    machine = grammars.Stacks()
    state, wrong = machine.start, None
    for token in found:
        if token.text not in machine.words(state) and not (
            token.text.isdigit() and len(token.text) <= DIGITS and grammars.NUMBER in machine.words(state)
        ):
            wrong = token.at
            break
        state = machine.advance(state, token.text)
    try:
        programs.parse(text)
        assert wrong is None
    except ProgramError as error:
        assert error.at == wrong


@given(randoms, st.integers(1, 6))
@MANY
def test_a_drawn_program_survives_text_and_types_and_words(rng, depth):
    program = writing.draw(rng, depth)
    assert programs.parse(programs.render(program)) == program
    kind = programs.check(program)
    value = [rng.randint(-20, 20) for _ in range(rng.randint(0, 8))]
    found = attempt(programs.render(program), value, Limits())
    if not isinstance(found, ProgramError):
        assert programs.kind_of(found.value) == kind
        top = [record for record in found.records if record.depth == 0]
        assert [record.step for record in top] == list(map(str, program))
        assert [top[0].before, *(r.after for r in top)] == [value, *(r.before for r in top[1:]), found.value]
    assert programs.describe(program, rng.choice)


HOSTILE = [
    "map ( " * 10_000 + "add 1" + " )" * 10_000,
    "(" * 10_000,
    "( " * 1_999,
    " | ".join(["if sum > 0 then ( " * 200]),
    "map ( " * 300 + "add 1",
    "take " + "9" * 100_000,
    "take " + "9" * 3_900,
    "take 9999999",
    "reverse " * 400,
    "reverse | " * 399,
    "a" * 4_000,
    "a" * 3_000 + " 1",
    "|" * 4_000,
    "__import__('os').system('touch hacked')",
    "map ( __import__ )",
    "filter __import__",
    "if __import__ even then ( sum ) else ( sum )",
    "take __import__",
    "eval",
    "reverse; import os",
    "reverse\n__import__",
    "\x1b[2J\x1b[31mreverse",
    "reverse | \u202etake 2",
    "ｒｅｖｅｒｓｅ",
    "rеverse",  # a Cyrillic е
    "take ２",
    "take ²",
    "take ٣",
    "take -1",
    "take 1e9",
    "take 0x10",
    "take 1_000",
    "\ud800",
    "\x00reverse",
    "reverse\x00",
    "",
    " ",
    "{0.__class__}",
    "%s%s%s",
]
GREEDY = [
    (" | ".join(["twice"] * 300), [1, 2, 3]),
    (" | ".join(["times 999999"] * 300), 999_999),
    ("sum | upto | map ( upto | sum ) | sum | upto", [40]),
    ("upto | map ( upto | map ( upto | map ( upto | sum ) | sum ) | sum )", 900),
    ("upto | map ( " * DEEPEST + "add 1" + " ) | sum" * (DEEPEST - 1) + " )", 30),
    ("map ( times 999999 ) | map ( times 999999 )", [10**9]),
    ("upto", 10**9),
    ("upto", 10**100),
    ("sum", [10**9] * 1000),
    ("reverse", [1] * 10**6),
]


def outside():
    """What a program could change: names, surroundings, the table of steps, modules."""
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return dict(vars(builtins)), surroundings, dict(programs.STEPS), sys.getrecursionlimit(), set(sys.modules)


@contextlib.contextmanager
def untouched(folder, monkeypatch, capfd):
    """Nothing is written, imported, printed or called outside the interpreter in a with-block of this."""
    called = []

    def watch(name):
        real = getattr(builtins, name)
        inside.setattr(builtins, name, lambda *a, **k: called.append((name, a)) or real(*a, **k))

    before = outside()
    with monkeypatch.context() as inside:
        inside.chdir(folder)
        for name in ("eval", "exec", "open", "__import__"):
            watch(name)
        yield
        seen = [*called]
    assert outside() == before and seen == [] and not list(folder.iterdir())
    assert capfd.readouterr() == ("", "")


def test_the_hostile_bank_changes_nothing(tmp_path, monkeypatch, capfd):
    cases = [(text, value) for text in HOSTILE for value in ([3, 1, 2], 5)]
    began = time.perf_counter()
    with untouched(tmp_path, monkeypatch, capfd):
        errors = [attempt(*case) for case in cases]
    assert time.perf_counter() - began < 20
    for (text, _), error in zip(cases, errors, strict=True):
        assert isinstance(error, ProgramError) and one_sentence(error), text[:60]
        assert 0 <= error.at <= len(text) + 1 and not error.records


def test_the_watch_sees_what_a_program_must_not_do(tmp_path, monkeypatch, capfd):
    for crime in (lambda: eval("1"), lambda: print("x"), lambda: (tmp_path / "x").write_text("x")):
        with pytest.raises(AssertionError), untouched(tmp_path, monkeypatch, capfd):
            crime()


def test_greedy_programs_stop_at_a_limit(tmp_path, monkeypatch, capfd):
    began = time.perf_counter()
    with untouched(tmp_path, monkeypatch, capfd):
        results = [attempt(*case, Limits()) for case in GREEDY]
    assert time.perf_counter() - began < 20
    for (text, _), found in zip(GREEDY, results, strict=True):
        assert isinstance(found, ProgramError) and one_sentence(found), text[:60]
        assert len(found.records) <= Limits().steps
        assert all(keeps(record.after, Limits()) for record in found.records)


@pytest.mark.parametrize(
    "value",
    [
        True,
        1.0,
        float("nan"),
        None,
        "12",
        b"12",
        (1, 2),
        {1},
        {},
        [True],
        [1, 2.0],
        [[1]],
        [None],
        ["1"],
        1 + 0j,
        [1, [2]],
    ],
)
def test_an_input_that_is_no_whole_number_is_refused_in_one_sentence(value):
    for text in ("reverse", "add 1", "sum"):
        error = attempt(text, value)
        assert isinstance(error, ProgramError) and one_sentence(error) and "whole number" in str(error)


@pytest.mark.parametrize("value", [10**100, [10**100], [-(10**100)]])
def test_an_input_beyond_the_limits_is_refused_in_one_sentence(value):
    error = attempt("sum" if isinstance(value, list) else "add 1", value)
    assert isinstance(error, ProgramError) and one_sentence(error) and "beyond" in str(error)


def test_a_run_keeps_its_own_copy_of_the_input():
    value = [1]
    trace = programs.run(programs.parse("swap"), value)
    value.append(2)
    assert trace.value == [1] and trace.records[0].before == [1]


def test_a_record_of_a_run_is_plain_data():
    rng = random.Random(0)
    for _ in range(200):
        found = attempt(programs.render(writing.draw(rng, 3)), [1, 2, 3])
        assert json.loads(json.dumps([record._asdict() for record in found.records])) == [
            record._asdict() for record in found.records
        ]
