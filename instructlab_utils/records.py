"""Data for instruction tuning as people have them, made one: Alpaca, ShareGPT, OpenAI messages, CSV → conversations.

`read` accounts for every row of a file: it becomes a `Conversation`, or one `Problem`, a sentence with file, line, field,
fault and fix. Nothing is repaired by guessing. What is changed: line ends become line feeds, white space at the ends of a
text goes, parts of a text are joined. Taught in lesson 16. torch is not needed here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from instructlab_utils.errors import InstructionError
from instructlab_utils.instructions import HIDDEN, LINE, Problem, Refused, show
from instructlab_utils.project import closest
from instructlab_utils.rows import rows, shown

ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot", "bard", "bing"), "assistant"),
}
FIELDS = {  # what a field of Alpaca's form is called elsewhere: Dolly, OpenAI's old completions, questions
    "instruction": ("instruction", "prompt", "question"),
    "input": ("input", "context"),
    "output": ("output", "response", "completion", "answer"),
    "system": ("system",),
    "history": ("history",),
}
TURNS = ("messages", "conversations", "conversation")
SPEAKER, SPEECH = ("role", "from"), ("content", "value")
NOTHING = ("", "<noinput>")  # an empty input; the second is Self-Instruct's
MARKS = re.compile(r"<\|[^|<>\s]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>", re.IGNORECASE)


class Conversation(NamedTuple):
    """Messages with ``role``, ``content``, where it was given ``weight``; where they stood; ``kept``: the other fields."""

    messages: tuple[dict[str, Any], ...]
    file: str
    line: int
    shape: str
    kept: dict[str, Any]


def read(
    path: str | Path, columns: Mapping[str, str] | None = None
) -> tuple[list[Conversation], list[Problem]]:
    """The conversations of a file in order, and a problem for every row that is none.

    Whether it is CSV (also with semicolons or tabs), JSON Lines or JSON is seen by its name and its first character.
    ``columns``: column or field of the file → "instruction", "input", "output" or "system", where the names are others.
    Raises InstructionError only for a file that cannot be opened, and for ``columns`` that name no field.
    """
    named = dict(columns or {})
    if odd := [str(field) for field in named.values() if field not in FIELDS]:
        raise InstructionError(f"{odd[0]!r} is no field of a record: choose one of {', '.join(FIELDS)}")
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InstructionError(f"cannot read {path} ({reason}): check the path") from error
    found, problems = [], []
    for line, value in rows(data, Path(path).suffix.lower(), lambda header: _header(header, named)):
        try:
            if isinstance(value, Refused):
                raise value
            messages, shape, kept = standard(value, named)
            found.append(Conversation(messages, str(path), line, shape, kept))
        except Refused as refused:
            problems.append(Problem(str(path), line, *refused.args))
    return found, problems


# --- one row --------------------------------------------------------------------------------------------------------------


def standard(
    row: Any, columns: Mapping[str, str] = {}
) -> tuple[tuple[dict[str, Any], ...], str, dict[str, Any]]:
    """Messages, the name of the shape, and the other fields of one parsed row. Raises Refused: field, reason, fix."""
    if not isinstance(row, dict):
        raise Refused(LINE, f"it is {show(row)}", "write one object for each conversation")
    _storable(row)
    if key := next((key for key in TURNS if row.get(key) not in (None, [])), None):
        messages = turns(row[key], key)
        shape = "messages" if key == "messages" else "sharegpt"
        used = [key]
    else:
        names = _names(row, columns)
        messages, shape = _alpaca(row, {field: name for name, field in names.items()}), "alpaca"
        used = list(names)
    _in_order(messages, key or "output")
    return tuple(messages), shape, {name: value for name, value in row.items() if name not in used}


def _storable(row: dict[str, Any]) -> None:
    """Refuses half a surrogate pair in any key or value: the record could not be written again."""
    for name, value in row.items():
        try:
            json.dumps({name: value}, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            reason = "it holds half of a surrogate pair, or a byte that is not UTF-8"
            raise Refused(shown(name), reason, "delete it, or save the file as UTF-8") from None
        except (RecursionError, ValueError):
            raise Refused(shown(name), "it has too many levels of nesting", "write texts") from None


def clean(text: Any, field: str) -> str:
    """The text without white space at its ends, with line feeds. Refuses what is no text, is empty, or holds a mark."""
    if not isinstance(text, str):
        raise Refused(field, f"it is {show(text)}", "write a text in double quotes")
    plain = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    if not plain:
        raise Refused(field, "it is empty", "write a text, or delete the record")
    if mark := MARKS.search(plain):
        raise Refused(field, f"it holds {show(mark[0])}, a mark of chat templates", "take it out")
    if hidden := re.search(HIDDEN, plain):
        reason = f"it holds {hidden[0]!a}, which cannot be seen or stored"
        raise Refused(field, reason, "delete it")
    return plain


def turns(value: Any, key: str) -> list[dict[str, Any]]:
    """The messages of a list of turns, in OpenAI's words (role, content) or in ShareGPT's (from, value)."""
    if not isinstance(value, list):
        raise Refused(key, f"it is {show(value)}", "write a list of turns")
    return [_turn(turn, f"{key}[{i}]") for i, turn in enumerate(value)]


def _turn(turn: Any, at: str) -> dict[str, Any]:
    if not isinstance(turn, dict):
        raise Refused(at, f"it is {show(turn)}", "write an object with role and content")
    filled = {name: value for name, value in turn.items() if value not in (None, [], {})}
    for name in ("tool_calls", "function_call", "tool_call_id"):
        if name in filled:
            raise Refused(
                f"{at}.{name}", "a call of a tool is no text", "write it out, or leave the record out"
            )
    speaker, speech = _one(filled, SPEAKER, at), _one(filled, SPEECH, at)
    if extra := [name for name in filled if name not in (speaker, speech, "weight")]:
        raise Refused(f"{at}.{shown(extra[0])}", "it would be lost", "delete it, or move it out of the turn")
    message: dict[str, Any] = {
        "role": _role(filled[speaker], f"{at}.{speaker}"),
        "content": _content(filled[speech], f"{at}.{speech}"),
    }
    if "weight" in filled:
        if (
            message["role"] != "assistant"
            or type(filled["weight"]) is not int
            or filled["weight"] not in (0, 1)
        ):
            raise Refused(f"{at}.weight", "it is not 0 or 1 on a turn of the assistant", "mend or delete it")
        message["weight"] = filled["weight"]
    return message


def _one(turn: dict[str, Any], names: tuple[str, ...], at: str) -> str:
    """The one of ``names`` that the turn has."""
    there = [name for name in names if name in turn]
    if len(there) == 1:
        return there[0]
    if there:
        raise Refused(f"{at}.{there[1]}", f"{there[0]} stands there too", "keep one of the two")
    raise Refused(
        f"{at}.{names[0]}", f"it is missing, or empty{closest(next(iter(turn), ''), list(names))}", "add it"
    )


def _role(said: Any, at: str) -> str:
    known = ROLES.get(said.strip().lower()) if isinstance(said, str) else None
    if known is None:
        what = (
            "a tool is no speaker here"
            if said in ("tool", "function", "ipython")
            else f"{show(said)} is no role"
        )
        raise Refused(at, what, "write system, user or assistant")
    return known


def _content(value: Any, at: str) -> str:
    """A text, or a list of parts that are texts, joined."""
    if not isinstance(value, list):
        return clean(value, at)
    parts = []
    for i, part in enumerate(value):
        if not (isinstance(part, dict) and part.get("type") == "text" and set(part) == {"type", "text"}):
            kind = part.get("type") if isinstance(part, dict) else part
            raise Refused(
                f"{at}[{i}]", f"{show(kind)} is no part of type text", "leave the record out, or write it out"
            )
        parts.append(clean(part["text"], f"{at}[{i}].text"))
    return clean("\n".join(parts), at)


def _names(row: dict[str, Any], columns: Mapping[str, str]) -> dict[str, str]:
    """Name in the row → field, for a row in Alpaca's form."""
    used = {name: columns[name] for name in row if name in columns}
    for field, names in FIELDS.items():
        if field not in used.values():
            there = [name for name in row if str(name).strip().lower() in names and name not in columns]
            if len(there) > 1:
                raise Refused(shown(there[1]), f"{show(there[0])} says the same", "keep one of the two")
            used |= dict.fromkeys(there, field)
    for field in ("instruction", "output"):
        if field not in used.values():
            listed = [name for name, value in row.items() if isinstance(value, list) and value]
            hint = (
                f"; is it the list {show(listed[0])}"
                if listed
                else closest(next(iter(row), ""), list(FIELDS[field]))
            )
            raise Refused(
                field, f"there is none{hint}", f"call it {field}, or say which field it is by columns"
            )
    if len(set(used.values())) < len(used):
        raise Refused(LINE, "two of its columns are the same field", "name each field once")
    return used


def _alpaca(row: dict[str, Any], names: Mapping[str, str]) -> list[dict[str, Any]]:
    def text(field: str) -> str:
        return clean(row[names[field]], shown(names[field]))

    def filled(field: str) -> bool:
        value = row.get(names.get(field, ""), None)
        return field in names and not (
            value is None or (isinstance(value, str) and value.strip().lower() in NOTHING)
        )

    messages = [{"role": "system", "content": text("system")}] if filled("system") else []
    if filled("history"):
        messages += _history(row[names["history"]], shown(names["history"]))
    asked = text("instruction") + (f"\n\n{text('input')}" if filled("input") else "")
    return [*messages, {"role": "user", "content": asked}, {"role": "assistant", "content": text("output")}]


def _history(value: Any, at: str) -> list[dict[str, Any]]:
    """Earlier turns as pairs of a question and its answer."""
    if not (isinstance(value, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in value)):
        raise Refused(at, f"it is {show(value)}, not pairs of texts", "write [[question, answer], …]")
    both = [
        (("user", "assistant")[j], text, f"{at}[{i}][{j}]")
        for i, pair in enumerate(value)
        for j, text in enumerate(pair)
    ]
    return [{"role": role, "content": clean(text, place)} for role, text, place in both]


def _in_order(messages: list[dict[str, Any]], field: str) -> None:
    """System only in front, then user and assistant by turns; the assistant speaks last."""
    start = bool(messages) and messages[0]["role"] == "system"
    for i, message in enumerate(messages[start:], start=start):
        wanted = ("user", "assistant")[(i - start) % 2]
        if message["role"] != wanted:
            reason = f"the {message['role']} speaks where the {wanted} should"
            raise Refused(
                f"{field}[{i}]", reason, "delete or join turns until they alternate, the user's first"
            )
    if not messages or messages[-1]["role"] != "assistant":
        raise Refused(field, "it ends without an answer", "add the answer, or delete the last turn")


def _header(header: list[str], columns: Mapping[str, str]) -> Refused | None:
    """What is wrong with the columns of a table: then none of its rows can be read."""
    try:
        _names(dict.fromkeys(header, ""), columns)
    except Refused as refused:
        field, reason, fix = refused.args
        return Refused(field, f"the header: {reason}, and no row was read", fix)
    return None
