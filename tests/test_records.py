"""The input standardiser: the shapes that people have, refusals with file, line, field and fix,
ten thousand broken rows."""

from __future__ import annotations

import copy
import csv
import io
import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructlab_utils import records
from instructlab_utils.errors import InstructionError
from instructlab_utils.instructions import Problem

ALPACA = {"instruction": "Name a colour.", "input": "", "output": "Red."}
SHAREGPT = {
    "id": "x1",
    "conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Good day."}],
}
OPENAI = {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day."}]}
DOLLY = {
    "instruction": "Who?",
    "context": "Ada wrote it.",
    "response": "Ada.",
    "category": "closed_qa",
}


def write(folder: Path, name: str, data) -> Path:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))
    return path


def lines(*rows) -> str:
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n"


def said(one: records.Conversation) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in one.messages]


def one_of(folder: Path, data, name: str = "a.jsonl", **more) -> records.Conversation:
    found, problems = records.read(write(folder, name, data), **more)
    assert not problems and len(found) == 1, problems
    return found[0]


# --- what people have -----------------------------------------------------------------------------------------------

HELLO = [("user", "Hello"), ("assistant", "Good day.")]


@pytest.mark.parametrize(
    ("row", "wanted", "shape", "kept"),
    [
        (ALPACA, [("user", "Name a colour."), ("assistant", "Red.")], "alpaca", {}),
        (ALPACA | {"input": "<noinput>"}, [("user", "Name a colour."), ("assistant", "Red.")], "alpaca", {}),
        (ALPACA | {"input": None}, [("user", "Name a colour."), ("assistant", "Red.")], "alpaca", {}),
        (ALPACA | {"input": "nan"}, [("user", "Name a colour.\n\nnan"), ("assistant", "Red.")], "alpaca", {}),
        (DOLLY, [("user", "Who?\n\nAda wrote it."), ("assistant", "Ada.")], "alpaca", {"category": "closed_qa"}),
        ({"prompt": " a ", "completion": " b\r\nc\n"}, [("user", "a"), ("assistant", "b\nc")], "alpaca", {}),
        ({"Question": "a", "Answer": "b"}, [("user", "a"), ("assistant", "b")], "alpaca", {}),
        (
            ALPACA | {"system": "Be short.", "history": [["Hello", "Good day."]]},
            [("system", "Be short."), *HELLO, ("user", "Name a colour."), ("assistant", "Red.")],
            "alpaca",
            {},
        ),
        (SHAREGPT, HELLO, "sharegpt", {"id": "x1"}),
        ({"conversations": OPENAI["messages"]}, HELLO, "sharegpt", {}),
        (OPENAI | {"prompt": "Hello", "prompt_id": 7}, HELLO, "messages", {"prompt": "Hello", "prompt_id": 7}),
        (
            {"messages": [{"role": "developer", "content": "Be kind."}, *OPENAI["messages"]]},
            [("system", "Be kind."), *HELLO],
            "messages",
            {},
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "Good"}, {"type": "text", "text": "morning"}]},
                    {"role": "assistant", "content": "Good day.", "tool_calls": None, "refusal": None},
                ]
            },
            [("user", "Good\nmorning"), ("assistant", "Good day.")],
            "messages",
            {},
        ),
    ],
)  # fmt: skip
def test_a_shape_becomes_messages_and_keeps_the_rest(tmp_path, row, wanted, shape, kept):
    found = one_of(tmp_path, lines(row))
    assert (said(found), found.shape, found.kept, found.line) == (wanted, shape, kept, 1)


def test_a_weight_stays_with_its_turn(tmp_path):
    turns = [*OPENAI["messages"][:1], OPENAI["messages"][1] | {"weight": 0}]
    assert one_of(tmp_path, lines({"messages": turns})).messages[1]["weight"] == 0


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_layout_of_json_gives_the_same_with_its_line(tmp_path, mark):
    three = [ALPACA, SHAREGPT, OPENAI]
    layouts = {
        "a.jsonl": (lines(ALPACA, "", SHAREGPT, OPENAI), [1, 3, 4]),
        "b.json": (lines(*three), [1, 2, 3]),
        "c.json": (json.dumps(three), [1, 1, 1]),
        "d.json": ("[\n" + ",\n".join(map(json.dumps, three)) + "\n]\n", [2, 3, 4]),
        "e.json": ("\n".join(json.dumps(row, indent=1) for row in three), [1, 6, 19]),
        "f.txt": (lines(*three).replace("\n", "\r\n"), [1, 2, 3]),
    }
    for name, (text, places) in layouts.items():
        found, problems = records.read(write(tmp_path, name, mark + text))
        assert not problems and [one.line for one in found] == places, (name, problems)
        assert [one.shape for one in found] == ["alpaca", "sharegpt", "messages"]
    assert all(one.file.endswith("f.txt") for one in found)


@pytest.mark.parametrize("sign", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_table_as_spreadsheets_write_it(tmp_path, sign, end):
    out = io.StringIO(newline="")
    table = csv.writer(out, delimiter=sign, lineterminator=end)
    rows = [["Instruction", "input", "output", "who"], ["Add, then; say", "1\n2", 'it is "3"', "me"]]
    table.writerows([*rows, ["", "", "", ""], ["b", "", "c", ""]])
    found, problems = records.read(write(tmp_path, "a.csv", "\ufeff" + out.getvalue()))
    assert not problems and [one.line for one in found] == [2, 5]
    assert said(found[0]) == [("user", "Add, then; say\n\n1\n2"), ("assistant", 'it is "3"')]
    assert found[0].kept == {"who": "me"} and said(found[1]) == [("user", "b"), ("assistant", "c")]


def test_other_names_are_said_by_columns(tmp_path):
    path = write(tmp_path, "a.csv", "Frage;Antwort;instruction\nWie?;So.;kept\n")
    found, problems = records.read(path, {"Frage": "instruction", "Antwort": "output"})
    assert not problems and said(found[0]) == [("user", "Wie?"), ("assistant", "So.")]
    assert found[0].kept == {"instruction": "kept"}
    with pytest.raises(InstructionError, match="'answer' is no field"):
        records.read(path, {"Frage": "answer"})


# --- what is refused, by name ---------------------------------------------------------------------------------------


def turns(*pairs):
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


ASKED = {"role": "user", "content": "a"}
REFUSED = {
    "tool calls": (
        {"messages": [ASKED, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]},
        "messages[1].tool_calls", "a call of a tool",
    ),
    "a tool's turn": (turns(("user", "a"), ("tool", "b")), "messages[1].role", "a tool is no speaker"),
    "an image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages[0].content[0]", "'image_url' is no part of type text",
    ),
    "an unknown role": (turns(("narrator", "a")), "messages[0].role", "'narrator' is no role"),
    "two askers": (
        turns(("user", "a"), ("user", "b"), ("assistant", "c")), "messages[1]",
        "the user speaks where the assistant should",
    ),
    "the model first": (
        turns(("assistant", "a"), ("user", "b"), ("assistant", "c")), "messages[0]",
        "the assistant speaks where the user should",
    ),
    "no answer": (turns(("user", "a")), "messages", "it ends without an answer"),
    "a late system": (turns(("user", "a"), ("system", "b"), ("assistant", "c")), "messages[1]", "the system speaks"),
    "only a system": (turns(("system", "a")), "messages", "it ends without an answer"),
    "a lost key": (
        {"conversations": [{"from": "human", "value": "a", "mood": "sad"}]}, "conversations[0].mood",
        "it would be lost",
    ),
    "two speakers": (
        {"conversations": [{"from": "human", "role": "user", "value": "a"}]}, "conversations[0].from",
        "role stands there too",
    ),
    "a weight": ({"messages": [{"role": "user", "content": "a", "weight": 1}]}, "messages[0].weight", "not 0 or 1"),
    "a mark": (ALPACA | {"output": "Red.<|im_end|>\n<|im_start|>user"}, "output",
        "'<|im_end|>', a mark of chat templates"),
    "a hidden character": (ALPACA | {"output": "Red\u202e."}, "output", "cannot be seen or stored"),
    "half a pair": (ALPACA | {"note": "\ud800"}, "note", "half of a surrogate pair"),
    "an empty output": (ALPACA | {"output": " \n"}, "output", "it is empty"),
    "a number": (ALPACA | {"output": 4}, "output", "it is a number"),
    "no output": ({"instruction": "a", "outputt": "b"}, "output", "there is none"),
    "two outputs": (ALPACA | {"response": "b"}, "response", "'output' says the same"),
    "a wrapper": ({"version": 1, "data": [ALPACA]}, "instruction", "is it the list 'data'"),
    "a list": ([ALPACA], "whole line", "it is a list"),
    "history": (ALPACA | {"history": ["a", "b"]}, "history", "not pairs of texts"),
    "turns in a text": ({"messages": "a"}, "messages", "it is 'a'"),
    "NaN": ('{"instruction": "a", "output": NaN}', "whole line", "NaN is no JSON"),
    "an infinite number": ('{"instruction": "a", "output": "b", "n": 1e999}', "whole line",
    "beyond what a computer holds"),
    "a long number": ('{"instruction": "a", "output": "b", "n": ' + "9" * 5000 + "}", "whole line", "too many digits"),
    "a key twice": ('{"output": "a", "instruction": "b", "output": "c"}', "output", "twice in one object"),
    "deep nesting": (
        '{"instruction": "a", "output": "b", "n": ' + "[" * 100_000 + "]" * 100_000 + "}", "whole line",
        "levels of nesting",
    ),
    "cut off": ('{"instruction": "a"', "whole line", "it is not JSON"),
    "two on a line": (json.dumps(ALPACA) * 2, "whole line", "something stands after the value"),
    "bytes": (b'{"instruction": "a", "output": "\xe9"}', "output", "a byte that is not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_row_is_refused_with_file_line_field_and_fix_and_its_neighbours_stay(tmp_path, name):
    row, field, reason = REFUSED[name]
    text = row if isinstance(row, bytes) else (row if isinstance(row, str) else json.dumps(row)).encode()
    good = json.dumps(ALPACA).encode()
    found, problems = records.read(write(tmp_path, "a.jsonl", b"\n".join([good, text, good])))
    assert [one.line for one in found] == [1, 3] and len(problems) == 1
    (problem,) = problems
    assert (problem.line, problem.field) == (2, field) and reason in problem.reason, str(problem)
    assert problem.fix and str(problem).startswith(f"{tmp_path / 'a.jsonl'}, line 2, field {field}: ")


@pytest.mark.parametrize(
    ("name", "data", "line", "reason"),
    [
        ("a.csv", "instruction,output\na,b\nc\nd,e,f\n", 3, "it has 1 fields, the header 2"),
        ("a.csv", 'instruction,output\na,"b\nc,d\n', 2, "it is no row of a table"),
        ("a.csv", 'instruction,output\n"a" x,b\n', 2, "it is no row of a table"),
        ("a.csv", "instruction,output,output\na,b,c\n", 1, "the header has it twice, and no row was read"),
        ("a.csv", "task,solution\na,b\n", 1, "the header: there is none, and no row was read"),
        (
            "a.csv",
            "instruction,prompt,output\na,b,c\n",
            1,
            "'instruction' says the same, and no row was read",
        ),
        ("a.csv", b"instruction,output\na,\xe9\n", 2, "a byte that is not UTF-8"),
        (
            "a.csv",
            "instruction,output\na,b\n".encode("utf-16"),
            1,
            "the file is UTF-16, and none of it was read",
        ),
        ("a.json", "[" + json.dumps(ALPACA) + ",\n{]", 2, "nothing after it was read"),
        ("a.json", "[\n" + json.dumps(ALPACA), 2, "the list does not end"),
        ("a.json", "[" + json.dumps(ALPACA) + "] x", 1, "something stands after the list"),
    ],
)
def test_a_file_is_refused_where_it_breaks(tmp_path, name, data, line, reason):
    problems = records.read(write(tmp_path, name, data))[1]
    assert (problems[0].line, reason in problems[0].reason) == (line, True), problems[0]


def test_a_file_that_cannot_be_opened_is_one_sentence(tmp_path):
    with pytest.raises(InstructionError, match="cannot read"):
        records.read(tmp_path / "none.csv")
    with pytest.raises(InstructionError, match="cannot read"):
        records.read(str(tmp_path) + "/\0")
    assert records.read(write(tmp_path, "empty.jsonl", "\n \n")) == ([], [])


# --- ten thousand broken rows ---------------------------------------------------------------------------------------

ROWS, FILES = 20, 500
JUNK = (
    None, True, 0, -1.5, 10**30, "", " ", "\x00", "\x1b[31m", "\ud800", "a\u202eb", [], [[]], {},
    {"a": []}, [None], "x" * 9999,
    "<|im_end|>", "</s>", "[INST]", "a,b;c\t\"d", "=1+1", "字段", "\u2028", {"role": "user"},
    [{"role": "user", "content": []}],
)  # fmt: skip
RAW = (
    b"\xff", b"NaN", b"-Infinity", b"1e400", b"9" * 5000, b"[" * 5000, b'{"a":' * 5000, b'"\\ud83d"',
    b"{}", b"[]", b"null",
    b'{"output": 1, "output": 2}', b"\x00", b'"', b"'", b",,,", b"\xef\xbb\xbf{}", b"//",
)  # fmt: skip


def places(value, path=()):
    """The paths of everything inside a value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, part in inside for found in places(part, (*path, key)))]


def broken(r: random.Random):
    """A row of a real shape after one to three faults, as bytes without a line feed."""
    row = json.loads(json.dumps(r.choice([ALPACA, SHAREGPT, OPENAI, DOLLY])))
    for _ in range(r.randint(1, 3)):
        at = r.choice(places(row))
        if not at:
            row = row if isinstance(row, dict) and r.random() < 0.9 else copy.deepcopy(r.choice(JUNK))
            continue
        parent = row
        for key in at[:-1]:
            parent = parent[key]
        kind = r.randrange(4)
        if kind == 0:
            del parent[at[-1]]
        elif kind == 1 and isinstance(parent, dict):
            name = r.choice(
                [str(at[-1]).upper(), f"{at[-1]}s", "", "\ud83d", "tool_calls", "from", "role", "weight"]
            )
            parent[name] = parent.pop(at[-1])
        elif kind == 2 and isinstance(parent, list):
            parent.insert(r.randrange(len(parent) + 1), copy.deepcopy(r.choice(JUNK)))
        else:
            parent[at[-1]] = copy.deepcopy(r.choice(JUNK))
    text = json.dumps(row, ensure_ascii=r.random() < 0.5).encode("utf-8", "surrogatepass")
    if r.random() < 0.25:
        cut = r.randrange(len(text) + 1)
        text = text[:cut] + r.choice([b"", *RAW]) + text[cut + r.randrange(3) :]
    return text.replace(b"\n", b" ").strip(b" \t\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0") or b"x"


def sound(found, problems, path):
    """Every record can be stored, every problem is a sentence on one line."""
    for one in found:
        assert one.messages[-1]["role"] == "assistant"
        json.dumps([one.messages, one.kept], ensure_ascii=False).encode()
        assert all(isinstance(m["content"], str) and m["content"].strip() for m in one.messages)
    for problem in problems:
        assert isinstance(problem, Problem) and problem.file == str(path) and problem.line >= 1
        assert problem.field and problem.reason and problem.fix
        assert str(problem).isprintable() and len(str(problem)) < len(str(path)) + 400, str(problem)


@settings(max_examples=FILES, deadline=None)
@given(st.integers(0, 2**32))
def test_ten_thousand_broken_rows_are_records_or_named_problems(tmp_path_factory, seed):
    r = random.Random(seed)
    rows = [broken(r) for _ in range(ROWS)]
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    path.write_bytes(b"\n".join(rows))
    found, problems = records.read(path)
    assert sorted([one.line for one in found] + [problem.line for problem in problems]) == list(
        range(1, ROWS + 1)
    )
    sound(found, problems, path)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([".json", ".csv", ".tsv", ".txt"]))
def test_broken_lists_and_tables_end_with_a_named_problem_where_they_break(tmp_path_factory, seed, suffix):
    r = random.Random(seed)
    rows = [broken(r) for _ in range(ROWS)]
    text = b"[" + b",\n".join(rows) + b"]"
    if suffix in (".csv", ".tsv"):
        cells = [[r.choice(["a", "", 'b"c', "d\ne", "f;g", "<s>", "\x00",
        "\r"]) for _ in range(r.choice([2, 2, 2, 1, 3]))]
                 for _ in range(ROWS)]  # fmt: skip
        out = io.StringIO(newline="")
        csv.writer(out, delimiter=r.choice(",;\t"), escapechar="\\").writerows(
            [["instruction", "output"], *cells]
        )
        text = out.getvalue().encode()
        cut = r.randrange(len(text))
        text = text[:cut] + r.choice([b"", b'"', b"\xff", b"\n\n"]) + text[cut:]
    path = tmp_path_factory.mktemp("files") / f"a{suffix}"
    path.write_bytes(text)
    found, problems = records.read(path)
    sound(found, problems, path)
    told = any("read" in problem.reason or "not JSON" in problem.reason for problem in problems)
    assert found or problems
    if suffix in (".json", ".txt"):
        assert told or len(found) + len(problems) >= ROWS
