"""Instructions: records, files without silent losses, sets without leaks, rendering, chat format, our own set."""

from __future__ import annotations

import json
import math
import random
import re
import warnings
from collections import Counter
from itertools import count
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from instructlab_utils import chat, generation, instructions, tasks
from instructlab_utils.errors import InstructionError
from instructlab_utils.instructions import Instruction

ROOT = Path(__file__).resolve().parents[1]
COURSE = ROOT / "data" / "instructions" / "course.jsonl"
CARD = ROOT / "data" / "cards" / "instructions.md"


def record(i: int = 0, **changes) -> dict:
    """A valid record; no word of its texts stands in the record of another number."""
    base = {
        "id": f"id-{i}",
        "kind": f"kind-{i}",
        "cluster": f"cluster-{i}",
        "language": "en",
        "text": f"say{i} the{i} word{i} {{input}} now{i}",
        "paraphrases": [f"please{i} repeat{i}: {{input}}", f"{{input}} is{i} what{i} to{i} say{i}"],
        "options": ["yes", "no"],
        "check": "one_of",
        "examples": [{"input": f"left{i}", "output": "yes"}, {"input": f"right{i}", "output": "no"}],
        "split": ("train", "dev", "test")[i % 3],
        "source": "a test",
    }
    return base | changes


def instruction(i: int = 0, **changes) -> Instruction:
    return Instruction.model_validate(record(i, **changes))


def dump(row) -> bytes:
    return json.dumps(row).encode()


def write(path: Path, *lines) -> Path:
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else dump(line) for line in lines) + b"\n")
    return path


# --- ten thousand malformed records ------------------------------------------------------------------------------

JUNK = (
    True,
    False,
    None,
    0,
    -1.5,
    10**30,
    "",
    " ",
    "\x00",
    "\ud800",
    "a\u202eb",
    [],
    [[]],
    {},
    {"a": []},
    [None],
    "x" * 9999,
)


def drop(row, r):
    del row[r.choice(sorted(row.keys() - {"options"}))]


def rename(row, r):
    name = r.choice(sorted(row))
    row[r.choice([name.upper(), name + "s", name[1:], "", "\u202e", "\ud83d", "a b\n"])] = row.pop(name)


def add(row, r):
    row[r.choice(["name", "outputs", "{input}", "__class__", "a" * 500, "\n", "字段"])] = r.choice(JUNK)


def wrong_type(row, r):
    texts = ("id", "kind", "cluster", "language", "text", "check", "split", "source")
    lists = ("paraphrases", "examples", "options")
    row[r.choice(texts + lists)] = r.choice([True, 0, {}, {"a": 1}, 1e400, [None], [[]]])


def wrong_type_inside(row, r):
    name = r.choice(["paraphrases", "options", "examples"])
    row[name] = [*row[name][1:], r.choice([value for value in JUNK if not isinstance(value, str)])]


def wrong_text(row, r):
    row[r.choice(["text", "source"])] = r.choice(
        ["", " ", " a {input}", "{input} b ", "\x07{input}", "\ud800 {input}", "\ufeff{input}"]
    )


def wrong_name(row, r):
    name = r.choice(["id", "kind", "cluster", "translation_of"])
    row[name] = r.choice(["", "A", "a_b", "a--b", "-a", "a b", "a\n", "é", "a/../b", "a" * 300 + "!"])


def wrong_choice(row, r):
    row[r.choice(["language", "check", "split"])] = r.choice(
        ["", "EN", "exact ", "validation", "zh-CN", "one of", "\x1b[31m"]
    )


def wrong_input(row, r):
    i = r.randrange(2)
    changed = {
        "text": row["text"].replace(
            "{input}", r.choice(["it", "{Input}", "{ input }", "{input} {input}", "{input"])
        )
    }
    text = row["paraphrases"][i]
    row["paraphrases"][i] = r.choice(
        [text + " {input}", text.replace("{input}", "it"), row["text"].upper(), row["text"] + "!"]
    )
    row.update(r.choice([changed, {}]))


def few(row, r):
    name = r.choice(["paraphrases", "examples", "options"])
    row[name] = row[name][:1]


def twice(row, r):
    name = r.choice(["paraphrases", "examples", "options"])
    row[name] = [row[name][0]] * r.randint(2, 4)


def wrong_output(row, r):
    row["examples"][r.randrange(2)]["output"] = r.choice(["maybe", "Yes", "yes ", "", "no.", "yes no"])


def wrong_example(row, r):
    example = row["examples"][r.randrange(2)]
    r.choice(
        [
            example.clear,
            lambda: example.pop("input"),
            lambda: example.update(note="x"),
            lambda: example.update(input=" "),
        ]
    )()


def no_options(row, r):
    row["options"] = r.choice([[], ["yes"], ["yes", "yes", "no"], ["yes", "no", "not yes"][1:]])


def other_script(row, r):
    row.update(r.choice([{"language": "zh"}, {"text": "请说{input}"}]))


def cut(row, r):
    text = dump(row)
    return text[: r.randrange(1, len(text) - 1)]


def bad_bytes(row, r):
    text = dump(row)
    at = r.randrange(len(text))
    return (
        text[:at]
        + r.choice([b"\xff", b"\xc3(", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\x80"])
        + text[at:]
    )


def other_json(row, r):
    deep = r.choice([b"[" * 9999, b'{"a":' * 9999, b"[" * 400 + b"]" * 400, b"[" * 9999 + b"]" * 9999])
    return r.choice(
        [
            deep,
            b"null",
            b"true",
            b"-0",
            b"1" * 9999,
            b'"text"',
            b"[{}]",
            b"NaN",
            b"{} {}",
            b"{'id': 'a'}",
            b"id: a",
        ]
    )


def deep_inside(row, r):
    n = r.choice([50, 500, 5000])
    return dump(row)[:-1] + b', "deep": ' + b"[" * n + b"]" * n + b"}"


def no_number(row, r):
    return dump(row)[:-1] + b', "more": ' + r.choice([b"NaN", b"-Infinity", b"Infinity", b"9" * 5000]) + b"}"


def key_twice(row, r):
    name = r.choice(sorted(row))
    return dump(row)[:-1] + f', "{name}": '.encode() + dump(row[name]) + b"}"


def key_twice_inside(row, r):
    return dump(row).replace(b'{"input"', b'{"input": "z", "input"', 1)


def byte_order_mark(row, r):
    return r.choice([b"\xef\xbb\xbf" + dump(row), json.dumps(row).encode("utf-16")])


IN_A_LINE = (
    drop, rename, add, wrong_type, wrong_type_inside, wrong_text, wrong_name, wrong_choice, wrong_input, few, twice,
    wrong_output, wrong_example, no_options, other_script, cut, bad_bytes, other_json, deep_inside, no_number, key_twice,
    key_twice_inside, byte_order_mark,
)  # fmt: skip


# Each record is right in itself; only the set is not. ``last``: a valid record of the same file.
def same_id(row, last, r):
    row["id"] = last["id"]


def same_kind(row, last, r):
    row["kind"] = last["kind"]


def leaked_input(row, last, r):
    words = last["examples"][r.randrange(2)]["input"]
    row["split"] = "dev" if last["split"] == "test" else "test"
    row["examples"][r.randrange(2)]["input"] = r.choice([words, words.upper(), f" {words}. ", f"“{words}”!"])


def copied_wording(row, last, r):
    text = r.choice([last["text"], *last["paraphrases"]])
    row.update(
        r.choice(
            [
                {"text": text + "!"},
                {"paraphrases": [row["paraphrases"][0], text.upper().replace("INPUT", "input")]},
            ]
        )
    )


def nearly_copied(row, last, r):
    words = " ".join(f"long{last['id'][3:]}x{k}" for k in range(30))
    last["paraphrases"][1], row["text"] = words + " {input}", words + " {input} then"


def lost_original(row, last, r):
    row["translation_of"] = r.choice(["nobody", last["id"], row["id"]])


IN_THE_SET = (same_id, same_kind, leaked_input, copied_wording, nearly_copied, lost_original)
MUTATIONS = st.tuples(st.sampled_from(IN_A_LINE + IN_THE_SET), st.integers(0, 2**32 - 1))
QUICK = settings(deadline=None, database=None, derandomize=True, phases=[Phase.generate, Phase.shrink])


def is_one_sentence(text: str, place: str) -> bool:
    text.encode("utf-8")  # no lone surrogate
    return (
        text.startswith(place)
        and text.isprintable()
        and bool(re.fullmatch(r".+, field \S.*: .+; .+\.( \(\d+ more\))?", text))
    )


def test_ten_thousand_malformed_records_are_refused_in_one_sentence_each(tmp_path: Path) -> None:
    path, malformed, used, distinct = tmp_path / "set.jsonl", Counter(), Counter(), set()
    files = count()

    @settings(QUICK, max_examples=200)
    @given(st.lists(MUTATIONS, min_size=50, max_size=50))
    def check(mutations) -> None:
        start = 100 * next(files)  # hypothesis likes to repeat itself; other numbers make other records
        rows, wrong_lines, wrong_sets = [], set(), set()
        for i, (mutate, seed) in enumerate(mutations):
            r = random.Random(f"{start} {i} {seed}")
            valid, row = record(start + 2 * i), record(start + 2 * i + 1)
            if mutate in IN_THE_SET:
                mutate(row, valid, r)
                Instruction.model_validate(row)
                wrong_sets.add(4 * i + 3)
            else:
                row = mutate(row, r) or row
                wrong_lines.add(4 * i + 3)
            rows += [b"", valid, row, b" \t\r"]
            distinct.add(row if isinstance(row, bytes) else dump(row))
            used[mutate.__name__] += 1
        write(path, *rows)
        accepted, problems = instructions.read(path)
        assert len(accepted) + len(problems) == 100  # no silent loss
        assert {problem.line for problem in problems} == wrong_lines and len(problems) == len(wrong_lines)
        for problem in problems:
            assert is_one_sentence(str(problem), f"{path}, line {problem.line}, field "), problem
        lines = sorted({2 + 4 * i for i in range(50)} | wrong_sets)
        told = instructions.check_set(accepted, "set.jsonl", lines)
        assert {problem.line for problem in told} == wrong_sets
        for problem in told:
            assert is_one_sentence(str(problem), f"set.jsonl, line {problem.line}, field "), problem
        with pytest.raises(InstructionError) as error:
            instructions.load(path)
        assert is_one_sentence(str(error.value), f"{path}, line 3, field ")
        assert str(error.value).endswith(f"({len(problems) + len(told) - 1} more)")
        malformed["lines"] += len(problems)
        malformed["sets"] += len(wrong_sets)

    check()
    assert len(distinct) > 9500  # the others are bare pieces of JSON, the same for all records
    assert malformed.total() >= 10_000 and malformed["sets"] > 1000
    assert all(used[mutate.__name__] > 100 for mutate in IN_A_LINE + IN_THE_SET)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(QUICK, max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(sorted(record())), VALUES) | st.binary() | VALUES, max_size=8))
def test_any_value_in_any_field_and_any_bytes_are_read_or_refused(tmp_path_factory, lines) -> None:
    path = tmp_path_factory.getbasetemp() / "anything.jsonl"
    rows = [record(0, **{line[0]: line[1]}) if isinstance(line, tuple) else line for line in lines]
    write(path, *rows)
    accepted, problems = instructions.read(path)
    filled = [n for n, line in enumerate(path.read_bytes().split(b"\n"), start=1) if line.strip()]
    assert len(accepted) + len(problems) == len(filled)
    assert all(is_one_sentence(str(problem), f"{path}, line {problem.line}, field ") for problem in problems)
    assert {problem.line for problem in problems} <= set(filled)


# --- what a message says -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"txet": 1}, "field txet: there is no such field, did you mean 'text'?; rename or delete it."),
        (record(text=True), "field text: it is true or false; write a text in double quotes."),
        (record(split="val"), "field split: it is 'val', not 'train', 'dev' or 'test'; write one of these."),
        (record(paraphrases=["a {input}"]), "field paraphrases: it has fewer than 2 entries; add some."),
        (record(paraphrases="a"), "field paraphrases: it is 'a'; write a list."),
        (record(examples=[1, 2]), "field examples[0]: it is a number; write an object with input and output."),
        (record(options=["a", "b"]),
         "field examples[0].output: 'yes' is not among the options; add it, or mend the example."),
        (record(options=["yes", "no", "no yes"], examples=[{"input": w, "output": w} for w in ("no yes", "no")]),
         "field examples[0].output: 'no yes' does not pass the check one_of; use options that do not contain each other."),
        (record(text="Say {Input}"),
         "field text: {input} is missing, misspelt or not alone; "
         "write it once, in every wording or in none."),
        (record(text="Say it"),
         "field paraphrases[0]: {input} is missing, misspelt or not alone; "
         "write it once, in every wording or in none."),
        (record(options=[]), "field options: the check one_of needs closed answers; list them, or use another check."),
        (b'{"id": "a", "id": "b"}', "field id: it stands twice in one object; delete one of the two."),
        (b'{"id": NaN}', "field whole line: NaN is no JSON; delete it."),
        (b"\xff{}", "field whole line: byte 1 is not UTF-8; save the file as UTF-8."),
        (b"\xef\xbb\xbf{}", "field whole line: a byte order mark is in front of it; delete the mark."),
        (b"{", "field whole line: it is not JSON (expecting property name enclosed in double quotes, column 2); "
         "write one JSON object a line."),
        (b"[" * 99999, "field whole line: it has too many levels of nesting; write texts and lists of texts."),
        (b"1" * 9999, "field whole line: it has too many digits in a number; write texts and lists of texts."),
        (b'"a"', "field whole line: it is 'a'; write one JSON object a line."),
    ],
)  # fmt: skip
def test_a_problem_names_file_line_field_fault_and_fix(tmp_path: Path, line, told: str) -> None:
    path = write(tmp_path / "a.jsonl", record(1), b"", line)
    accepted, (problem,) = instructions.read(path)
    assert str(problem) == f"{path}, line 3, {told}" and len(accepted) == 1


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(InstructionError, match="cannot read .*: check the path"):
            instructions.read(path)


def test_the_record_checks_itself_without_a_file_too() -> None:
    with pytest.raises(ValueError, match="examples"):
        instruction(examples=[])
    with pytest.raises(ValueError, match="frozen"):
        instruction().text = "other"  # type: ignore[misc]


def test_save_and_load_are_inverse_byte_for_byte(tmp_path: Path) -> None:
    odd = instruction(
        1, examples=[{"input": ' {x} "\\ \n\t ü 字 ', "output": "yes"}, {"input": "b", "output": "no"}]
    )
    path = instructions.save(tmp_path / "a.jsonl", [instruction(0), odd])
    assert instructions.load(path) == [instruction(0), odd]
    again = instructions.save(tmp_path / "b.jsonl", instructions.load(path))
    assert again.read_bytes() == path.read_bytes() and path.read_bytes().count(b"\n") == 2
    assert (
        instructions.save(tmp_path / "c.jsonl", []).read_bytes() == b""
        and instructions.load(tmp_path / "c.jsonl") == []
    )


# --- the set as a whole ------------------------------------------------------------------------------------------


def told(*rows: Instruction) -> list[str]:
    return [str(problem) for problem in instructions.check_set(rows)]


def test_a_set_of_different_records_has_no_problem() -> None:
    assert told(*(instruction(i) for i in range(9))) == []


def test_copies_are_refused_with_the_line_of_the_first() -> None:
    assert told(instruction(0), instruction(1, id="id-0")) == [
        "set, line 2, field id: id-0 is also the id of line 1; choose another."
    ]
    text = record(0)["paraphrases"][1].upper().replace("INPUT", "input")
    assert told(instruction(0), instruction(1, text=text + " !")) == [
        "set, line 2, field text: it says the same as line 1, which is in train; delete one of the two."
    ]
    words = " ".join(f"w{i}" for i in range(20))
    near = told(instruction(0, text=words + " {input}"), instruction(1, text=words + " {input} please"))
    assert near == [
        "set, line 2, field text: it is nearly the same as a wording of line 1; write another wording."
    ]
    assert (
        told(
            instruction(0, text=words + " {input}"),
            instruction(1, text="x y z a b c d " + words + " {input}"),
        )
        == []
    )


def test_a_near_duplicate_is_found_among_chinese_characters() -> None:
    def chinese(i: int, text: str) -> Instruction:
        rest = ["甲乙丙丁：{input}", "{input}，戊己庚辛"] if i else ["子丑寅卯：{input}", "{input}，辰巳午未"]
        return instruction(i, language="zh", text=text, paraphrases=rest, options=[], check="exact")

    long = "请把下面这句话里所有的错别字都找出来并且改正过来：{input}"
    assert [p.field for p in instructions.check_set([chinese(0, long), chinese(1, long + "吧")])] == ["text"]
    assert instructions.check_set([chinese(0, long), chinese(1, "请写出一个近义词：{input}")]) == []


@pytest.mark.parametrize("copy", ["left0", "LEFT0", " “left0”. ", "ｌｅｆｔ０"])
def test_an_input_in_two_splits_is_a_leak(copy: str) -> None:
    examples = [{"input": "new", "output": "yes"}, {"input": copy, "output": "no"}]
    (leak,) = told(instruction(0), instruction(1, examples=examples))
    assert leak == (
        f"set, line 2, field examples[1].input: {copy!r} is also an input of line 1, which is in train; choose another input."
    )
    assert told(instruction(0), instruction(3, examples=examples)) == []  # the same split


def test_marks_inside_numbers_and_between_them_tell_inputs_apart() -> None:
    assert (
        len({instructions.normalised(text) for text in ("3.5", "35", "3+5", "3-5", "3*5", "3/5", "3:5")}) == 7
    )
    assert instructions.normalised(" Ab, c! ") == instructions.normalised("“ab” C")
    assert instructions.normalised(".5") != instructions.normalised("5")
    assert instructions.normalised("x != y") != instructions.normalised("x = y")
    assert instructions.normalised("the rapist") != instructions.normalised("therapist")
    assert instructions.normalised("it's") != instructions.normalised("its")
    assert instructions.normalised("用 Python 写") == instructions.normalised("用Python写。")
    assert instructions.normalised("3 + 5") == instructions.normalised("3+5") != instructions.normalised("35")
    assert instructions.normalised("?") == "?"  # not the empty text, which would equal "!"


def test_kinds_and_translations_must_agree() -> None:
    assert told(instruction(0), instruction(1, kind="kind-0")) == [
        "set, line 2, field cluster: the kind kind-0 has another one on line 1; choose one of them."
    ]
    chinese = {"language": "zh", "text": "请说{input}", "paraphrases": ["请重复{input}", "{input}，跟我说"]}
    same = {field: record(0)[field] for field in ("kind", "cluster", "split")}
    assert told(instruction(0), instruction(1, **chinese, **same, translation_of="id-0")) == []
    assert told(instruction(1, **chinese, **same, translation_of="id-0"), instruction(0)) == []
    wrong = told(instruction(0), instruction(1, **chinese, translation_of="id-0"))
    assert [re.search(r"field (\w+): it is not that of id-0", text)[1] for text in wrong] == [
        "kind",
        "cluster",
        "split",
    ]
    (lost,) = told(instruction(0), instruction(1, **chinese, **same, translation_of="id-9"))
    assert "field translation_of: no record of another language is id-9; mend it." in lost
    assert len(told(instruction(0), instruction(3, **same, translation_of="id-0"))) == 1  # English of English


# --- checks, rendering, chat -------------------------------------------------------------------------------------


def test_checks_compare_whole_words() -> None:
    closed = instruction(options=["yes", "no"])
    assert instructions.passes(closed, "No, it is not.", "no")
    for answer in ("I do not know.", "Yes or no? That depends.", "none", ""):
        assert not instructions.passes(closed, answer, "no")
    free = instruction(options=[], check="contains")
    for output, right, wrong in [
        ("Rome", "It is ROME.", "Romeo"),
        ("New York", "in new york, I think", "York is new"),
        ("3", "3, I say", "13 or 3.5 or -3"),
        ("3.5", "about 3.5", "3 and 5"),
        ("水果", "它们都是水果。", "果水"),
        ("?", "a ?", "a !"),
        ("C", "I write in C.", "I write in C++."),
        ("C", "**C**", "C#"),
        ("C++", "use C++", "use C"),
        ("x > y", "so x > y", "so x < y"),
        ("50", "about 50, or so", "50 %"),
        ("50", "$50$ is it", "it costs $50"),
        ("👎", "👎 it is", "👍"),
        ("café", "a cafe\u0301", "a cafe"),
        ("5", "It is ５.", "5th"),
        ("-3", "\u22123", "3"),
        ("toxic", "Toxic!", "non-toxic"),
        ("x²", "x²", "x2"),
        ("हिन्दी", "यह हिन्दी है", "यह हिन्दा है"),
        ("3.5", "有3.5个", "有35个"),
        ("Rome", "Yes 👍 <b>Rome</b>", "Rome-like"),
        ("5", "3 + 2 = 5", "2.5"),
        ("5", "x = 5.", "±5"),
        ("5", "→5", ".5"),
        ("x = y", "x = y", "x != y"),
        ("f(x)", "it is f(x).", "f[x]"),
        ("C", "(C) Rome", "Objective-C"),
        ("1e-5", "1e-5", "1e-6"),
        ("don't", "don’t", "dont"),
    ]:
        assert instructions.passes(free, right, output) and not instructions.passes(free, wrong, output)
    with pytest.raises(ValueError, match="one stands twice"):
        instruction(options=["café", "cafe\u0301"], examples=[{"input": i, "output": "café"} for i in "ab"])
    same = instruction(options=["café", "bar"], examples=[{"input": i, "output": "cafe\u0301"} for i in "ab"])
    assert instructions.passes(same, "the café", "cafe\u0301")
    assert not instructions.passes(same, "a bar", "café")
    pair = instruction(
        options=["C", "C++"], examples=[{"input": i, "output": o} for i, o in (("a", "C"), ("b", "C++"))]
    )
    assert instructions.passes(pair, "In C++.", "C++") and not instructions.passes(pair, "In C++.", "C")
    exact = instruction(options=[], check="exact")
    assert instructions.passes(exact, "cafe\u0301 −５ \n", "café -5") and not instructions.passes(
        exact, "x2", "x²"
    )
    assert instructions.passes(exact, " a, b\n", "a, b") and not instructions.passes(exact, "A, b", "a, b")


def test_an_input_comes_through_literally() -> None:
    one = instruction()
    for given_text in ("{input}", "{0} {} }{ {{x}}", "%s \\1 $x", "a\nb", ""):
        assert chat.render(one, given_text) == f"say0 the0 word0 {given_text} now0"
    assert chat.render(one, "x", wording=2) == "x is0 what0 to0 say0"
    for wording in (3, -1):
        with pytest.raises(InstructionError, match=f"id-0 has no wording {wording}: choose one of 0 to 2"):
            chat.render(one, "x", wording)
    alone = instruction(
        text="Say {}.",
        paraphrases=["Go {}.", "Do {}."],
        examples=[{"input": "", "output": o} for o in ("yes", "no")],
    )
    assert chat.render(alone) == "Say {}."
    with pytest.raises(InstructionError, match="id-0 takes no input: leave out 'x'"):
        chat.render(alone, "x")


def test_messages_hold_what_is_given() -> None:
    user = {"role": "user", "content": "please0 repeat0: x"}
    assert chat.messages(instruction(), "x", wording=1) == [user]
    system, answer = {"role": "system", "content": ""}, {"role": "assistant", "content": "yes"}
    assert chat.messages(instruction(), "x", "yes", 1, system="") == [system, user, answer]


@pytest.fixture(scope="module")
def tokenizer():
    from instructlab_utils import models

    return models.load_tokenizer("decoder")


def talk(*turns: str, system: str | None = None) -> list[dict[str, str]]:
    first = [{"role": "system", "content": system}] if system is not None else []
    return first + [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]


TALKS = [
    talk("Say it.", "Paris"),
    talk("Is {x} good?", "yes", "Why?", "Because\n\nit is.", "And now?"),
    talk("写一个字。", " 好 ", system="Be brief."),
    talk("1 2  3\n", "4\n5  6", system=""),
    talk("nothing", ""),
]


@pytest.mark.slow
def test_the_template_inserts_a_system_message_unless_there_is_one(tokenizer) -> None:
    assert tokenizer.pad_token_id == tokenizer.eos_token_id  # why a mask by pad ids would unlearn stopping
    assert chat.chat_text(tokenizer, talk("a")).startswith(
        "<|im_start|>system\nYou are a helpful AI assistant"
    )
    text = chat.chat_text(tokenizer, talk("a", system="b"), generation_prompt=True)
    assert text == "<|im_start|>system\nb<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.slow
@pytest.mark.parametrize("conversation", TALKS)
def test_labels_are_the_answers_and_their_end_tokens(tokenizer, conversation) -> None:
    found = chat.encode_chat(conversation, tokenizer)
    assert tokenizer.decode(found["input_ids"]) == chat.chat_text(tokenizer, conversation)
    kept = [label for label in found["labels"] if label != -100]
    answers = [turn["content"] for turn in conversation if turn["role"] == "assistant"]
    assert tokenizer.decode(kept) == "".join(answer + "<|im_end|>" for answer in answers)
    assert all(
        label in (-100, token) for label, token in zip(found["labels"], found["input_ids"], strict=True)
    )
    assert kept.count(tokenizer.eos_token_id) == len(answers)


@pytest.mark.slow
@pytest.mark.parametrize("conversation", TALKS)
def test_labels_are_those_of_a_template_with_generation_marks(tokenizer, conversation) -> None:
    """transformers marks the assistant's tokens by character offsets where a template says which; SmolLM2's does not."""
    old = "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    new = (
        "{{'<|im_start|>' + message['role'] + '\n'}}{% if message['role'] == 'assistant' %}{% generation %}"
        "{{message['content'] + '<|im_end|>'}}{% endgeneration %}{% else %}"
        "{{message['content'] + '<|im_end|>'}}{% endif %}{{'\n'}}"
    )
    assert tokenizer.chat_template.count(old) == 1
    theirs = tokenizer.apply_chat_template(
        conversation, chat_template=tokenizer.chat_template.replace(old, new), return_dict=True,
        return_assistant_tokens_mask=True,
    )  # fmt: skip
    ours = chat.encode_chat(conversation, tokenizer)
    assert ours["input_ids"] == theirs["input_ids"]
    assert [int(label != -100) for label in ours["labels"]] == theirs["assistant_masks"]


@pytest.mark.slow
def test_one_turn_equals_encode_completion(tokenizer) -> None:
    for one in instructions.load(COURSE)[::10]:
        example = one.examples[0]
        turns = chat.messages(one, example.input, example.output)
        ours = chat.encode_chat(turns, tokenizer)
        prompt = chat.chat_text(tokenizer, turns[:-1], generation_prompt=True)
        theirs = generation.encode_completion(prompt, example.output, tokenizer)
        assert [ours[key][:-1] for key in theirs] == list(theirs.values())
        assert ours["labels"][-1] == -100 and tokenizer.decode(ours["input_ids"][-1:]) == "\n"


@pytest.mark.slow
def test_one_turn_equals_trl_but_for_the_last_newline(tokenizer, tmp_path: Path) -> None:
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    net = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1,
        pad_token_id=2, eos_token_id=2, bos_token_id=1,
    ))  # fmt: skip
    chosen = [
        chat.messages(one, one.examples[1].input, one.examples[1].output)
        for one in instructions.load(COURSE)[::20]
    ]
    rows = Dataset.from_list([{"prompt": turns[:-1], "completion": turns[-1:]} for turns in chosen])
    arguments = SFTConfig(
        str(tmp_path), bf16=False, gradient_checkpointing=False, use_cpu=True, report_to="none"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = SFTTrainer(net, arguments, train_dataset=rows, processing_class=tokenizer)
    for i, turns in enumerate(chosen):
        theirs = trainer.data_collator([trainer.train_dataset[i]])
        ours = chat.encode_chat(turns, tokenizer)
        assert ours["input_ids"] == theirs["input_ids"][0].tolist()
        newline = ours["input_ids"][-1]
        assert [*ours["labels"][:-1], newline] == theirs["labels"][0].tolist()


@pytest.mark.slow
def test_what_cannot_be_masked_is_an_error(tokenizer) -> None:
    with pytest.raises(InstructionError, match="there is no message"):
        chat.encode_chat([], tokenizer)
    for conversation in (talk("a"), talk("a", "b")[1:]):
        with pytest.raises(InstructionError, match="begins with the user and holds an answer"):
            chat.encode_chat(conversation, tokenizer)
    with pytest.raises(InstructionError, match="message 1 has no border between tokens"):
        chat.encode_chat(talk("a", "\n\nb"), tokenizer)  # the template's newline and two more are two tokens
    with pytest.raises(
        InstructionError, match="message 0 holds a special token: take it out of 'a<|im_end|>'"
    ):
        chat.encode_chat(talk("a<|im_end|>", "b"), tokenizer)
    for turn in ({"role": "tool", "content": "a"}, {"role": "user"}, {"role": "user", "content": None}, {}):
        with pytest.raises(InstructionError, match="message 0 needs a role"):
            chat.chat_text(tokenizer, [turn])


class Stripping:
    """A tokenizer of characters whose template strips the contents, as many do."""

    chat_template, eos_token, all_special_tokens = "yes", "$", ("$",)

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [ord(character) for character in text]}

    def apply_chat_template(self, turns, tokenize: bool, add_generation_prompt: bool) -> str:
        return (
            "".join(f"{turn['role'][0]}:{turn['content'].strip()}$" for turn in turns)
            + "a:" * add_generation_prompt
        )


def test_a_template_that_changes_an_answer_is_an_error() -> None:
    found = chat.encode_chat(talk("x", "yz"), Stripping())
    assert found["labels"] == [-100] * 6 + [ord(c) for c in "yz$"]
    with pytest.raises(InstructionError, match="take the white space from both ends of the answer"):
        chat.encode_chat(talk("x", "yz "), Stripping())
    bare = Stripping()
    bare.chat_template = ""
    with pytest.raises(InstructionError, match="or no chat template"):
        chat.chat_text(bare, talk("x"))


# --- mixtures ----------------------------------------------------------------------------------------------------


def test_shares_of_a_mixture() -> None:
    sizes = {"a": 10, "b": 100, "c": 1000}
    assert instructions.mixture(sizes, None) == pytest.approx(
        {"a": 10 / 1110, "b": 100 / 1110, "c": 1000 / 1110}
    )
    assert instructions.mixture(sizes, 100) == pytest.approx({"a": 10 / 210, "b": 100 / 210, "c": 100 / 210})
    rates = [math.sqrt(n / 1110) for n in sizes.values()]
    assert list(instructions.mixture(sizes, None, 2.0).values()) == pytest.approx(
        [r / sum(rates) for r in rates]
    )
    assert list(instructions.mixture(sizes, None, 1e9).values()) == pytest.approx([1 / 3] * 3)
    assert instructions.mixture({"a": 10**300, "b": 1}, None, 1e-300) == {"a": 1.0, "b": 0.0}


@pytest.mark.parametrize("wrong", [
    ({}, None, 1.0), ({"a": 0}, None, 1.0), ({"a": True}, None, 1.0), ({"a": 1.5}, None, 1.0), ({"a": 1}, 0, 1.0),
    ({"a": 1}, None, 0.0), ({"a": 1}, None, math.nan), ({"a": 1}, None, math.inf), ({"a": 1}, None, -1.0),
])  # fmt: skip
def test_a_mixture_of_nothing_is_an_error(wrong) -> None:
    with pytest.raises(InstructionError, match="a mixture needs tasks|the temperature is"):
        instructions.mixture(*wrong)


# --- the set that we wrote ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def course() -> list[Instruction]:
    return instructions.load(COURSE)


def test_our_set_is_valid_and_as_large_as_promised(course, tmp_path: Path) -> None:
    english = [one for one in course if one.language == "en"]
    chinese = [one for one in course if one.language == "zh"]
    assert (
        len(english) >= 200
        and len({one.kind for one in english}) >= 20
        and len({one.cluster for one in english}) >= 8
    )
    assert len(chinese) >= 40 and all(one.translation_of for one in chinese)
    assert instructions.save(tmp_path / "again.jsonl", course).read_bytes() == COURSE.read_bytes()


def test_a_cluster_is_in_one_split_and_its_hash_says_which(course) -> None:
    assert all(one.split == tasks.split_of(one.cluster) for one in course)
    assert {one.split for one in course} == {"train", "dev", "test"}
    grouped = instructions.clusters(course)
    assert list(grouped) == sorted(grouped) and sum(map(len, grouped.values())) == len(course)


def test_every_example_of_our_set_can_be_rendered_and_passes_its_check(course) -> None:
    for one in course:
        for example in one.examples:
            assert all(example.input in chat.render(one, example.input, k) for k in range(len(one.wordings)))
            assert instructions.passes(one, example.output, example.output)
        if one.options:  # every closed answer is refused where another is right
            a, b = one.options[:2]
            assert not instructions.passes(one, b, a)


TENS = dict(zip("IVXLC", (1, 5, 10, 50, 100), strict=True))


def roman(text: str) -> str:
    values = [TENS[letter] for letter in text]
    return str(sum(-a if a < b else a for a, b in zip(values, [*values[1:], 0], strict=True)))


COMPUTED = {
    "arithmetic-addition": lambda s: str(sum(map(int, s.split(" and ")))),
    "arithmetic-subtraction": lambda s: str(int(s.split(", ")[0]) - int(s.split(", ")[1])),
    "arithmetic-mistake": lambda s: "right" if eval(s.replace("x", "*").replace("=", "==")) else "wrong",
    "number-comparison-larger": lambda s: max(s.split(" or "), key=int),
    "number-comparison-even": lambda s: ("even", "odd")[int(s) % 2],
    "sorting-words-alphabet": lambda s: ", ".join(sorted(s.split(", "))),
    "sorting-words-reverse": lambda s: ", ".join(sorted(s.split(", "), reverse=True)),
    "sorting-words-length": lambda s: ", ".join(sorted(s.split(", "), key=len)),
    "sorting-words-first": lambda s: min(s.split(", ")),
    "sorting-words-reverse-list": lambda s: ", ".join(s.split(", ")[::-1]),
    "sorting-numbers-up": lambda s: ", ".join(sorted(s.split(", "), key=int)),
    "sorting-numbers-down": lambda s: ", ".join(sorted(s.split(", "), key=int, reverse=True)),
    "sorting-numbers-middle": lambda s: sorted(s.split(", "), key=int)[1],
    "counting-words-in-sentence": lambda s: str(len(s.split())),
    "counting-words-items": lambda s: str(len(s.split(", "))),
    "counting-words-longest": lambda s: max(s.strip(".").split(), key=len),
    "counting-letters-in-word": lambda s: str(len(s)),
    "counting-letters-vowels": lambda s: str(sum(c in "aeiou" for c in s)),
    "counting-letters-one-letter": lambda s: str(s.split(" in ")[1].count(s[0])),
    "letter-position-first": lambda s: s[0],
    "letter-position-last": lambda s: s[-1],
    "letter-position-second": lambda s: s[1],
    "letter-change-upper": str.upper,
    "letter-change-lower": str.lower,
    "letter-change-reverse": lambda s: s[::-1],
    "letter-change-spell": "-".join,
    "letter-change-remove-vowels": lambda s: re.sub("[aeiou]", "", s),
    "letter-change-join": lambda s: "".join(word[0] for word in s.split()),
    "number-series-roman": roman,
    "code-output-python-print": lambda s: str(eval(s[6:-1])),
    "code-output-boolean": lambda s: str(eval(s)),
    "code-output-list": lambda s: str(eval(s)),
    "data-format-json-list": lambda s: json.dumps(s.split(", ")),
    "data-format-bold": lambda s: f"**{s}**",
    "calendar-century": lambda s: str(int(s) // 100 + 1),
}  # fmt: skip


def test_what_a_program_can_compute_is_right(course) -> None:
    seen = {one.id: one for one in course}
    for name, function in COMPUTED.items():
        for example in seen[name].examples:
            assert function(example.input) == example.output, (name, example)


def test_the_card_counts_what_the_file_holds(course) -> None:
    text = CARD.read_text(encoding="utf-8")
    for cluster, group in instructions.clusters(course).items():
        english = sum(one.language == "en" for one in group)
        examples = sum(len(one.examples) for one in group)
        row = f"| {cluster} | {group[0].split} | {english} | {len(group) - english} | {examples} |"
        assert row in text, f"the card's row should be: {row}"
        for kind in {one.kind for one in group}:
            numbers = Counter(one.language for one in group if one.kind == kind)
            assert f"| {kind} | {cluster} | {numbers['en']} | {numbers['zh']} |" in text
    for split, n in Counter(one.split for one in course).items():
        assert f"| {split} | {n} |" in text
