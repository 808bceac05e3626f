"""Files into rows: CSV, JSON Lines and JSON, each row with the line on which it begins, and a fault in place of a bad one.

The half of `records` that does not look into a row. Taught in lesson 16.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from instructlab_utils.instructions import LINE, Refused, show

LONGEST = 4000  # digits of a number

Rows = Iterator[tuple[int, Any]]  # line and value; the value is a Refused where the row could not be parsed
Check = Callable[[list[str]], Refused | None]  # of a table's header


def shown(name: str) -> str:
    """The name of a field in a message."""
    return name if re.fullmatch(r"\w{1,40}", name) and name.isascii() else show(name)


def rows(data: bytes, suffix: str, check: Check) -> Rows:
    """The rows of a file by its name's ending and its first character; ``check`` may refuse the header of a table."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        yield 1, Refused(LINE, "the file is UTF-16, and none of it was read", "save it as UTF-8")
        return
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    begin = text.lstrip()[:1]
    if suffix in (".jsonl", ".ndjson") or (suffix not in (".csv", ".tsv") and begin == "{" and _whole(text)):
        yield from _lines(text)
    elif suffix == ".json" or (suffix not in (".csv", ".tsv") and begin in ("", "{", "[")):
        yield from _values(text)
    else:
        yield from _table(text, check)


def _whole(text: str) -> bool:
    """Whether the first line that is not blank is a JSON value of its own."""
    try:
        json.loads(text.lstrip().split("\n", 1)[0])
    except (ValueError, RecursionError):
        return False
    return True


class _Json:
    """A decoder that goes on after a fault in a value, and reports the first one."""

    def __init__(self) -> None:
        self.faults: list[Refused] = []
        self.decoder = json.JSONDecoder(
            object_pairs_hook=self._pairs,
            parse_constant=self._constant,
            parse_int=self._int,
            parse_float=self._float,
        )

    def _pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for name in {name for name, _ in pairs} if len({name for name, _ in pairs}) < len(pairs) else ():
            if sum(name == other for other, _ in pairs) > 1:
                self.faults.append(
                    Refused(shown(name), "it stands twice in one object", "delete one of the two")
                )
        return dict(pairs)

    def _constant(self, name: str) -> None:
        self.faults.append(Refused(LINE, f"{name} is no JSON", "write null or a text"))

    def _int(self, digits: str) -> int:
        if len(digits) <= LONGEST:
            return int(digits)
        self.faults.append(Refused(LINE, "it has too many digits in a number", "write it as a text"))
        return 0

    def _float(self, digits: str) -> float:
        if not math.isfinite(value := float(digits)):
            self.faults.append(
                Refused(LINE, "it has a number beyond what a computer holds", "write it as a text")
            )
        return value

    def value(self, text: str, start: int) -> tuple[Any, int]:
        """The value at ``start``, or the Refused in its place, and where it ends. ValueError where there is none."""
        self.faults.clear()
        value, end = self.decoder.raw_decode(text, start)
        return (self.faults[0] if self.faults else value), end


def _lines(text: str) -> Rows:
    json_of = _Json()
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, _line(json_of, line.strip())


def _line(json_of: _Json, line: str) -> Any:
    try:
        value, end = json_of.value(line, 0)
    except json.JSONDecodeError as error:
        return Refused(
            LINE, f"it is not JSON ({error.msg.lower()}, column {error.colno})", "write one object a line"
        )
    except RecursionError:
        return Refused(LINE, "it has too many levels of nesting", "write texts and lists of turns")
    return (
        value
        if end == len(line)
        else Refused(LINE, "something stands after the value", "write one object a line")
    )


def _values(text: str) -> Rows:
    """The elements of a JSON list, or values one after the other, each with the line on which it begins."""
    json_of, gap = _Json(), re.compile(r"[\s,]*")
    place = len(text) - len(text.lstrip())
    listed = text[place : place + 1] == "["
    place, line, seen = place + listed, 1, 0
    while True:
        place = gap.match(text, place).end()  # type: ignore[union-attr]
        line, seen = line + text.count("\n", seen, place), place
        if place == len(text) or (listed and text[place] == "]"):
            break
        try:
            value, place = json_of.value(text, place)
        except (json.JSONDecodeError, RecursionError) as error:
            why = getattr(error, "msg", "too many levels of nesting").lower()
            yield line, Refused(LINE, f"it is not JSON ({why}), and nothing after it was read", "mend it")
            return
        yield line, value
    if listed and (place == len(text) or text[place + 1 :].strip()):
        what = (
            "the list does not end"
            if place == len(text)
            else "something stands after the list, and was not read"
        )
        yield line, Refused(LINE, what, "mend the end of the file")


def _table(text: str, check: Check) -> Rows:
    """The rows of a table with a header, as objects. A field may hold line feeds; a row has the line where it begins."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    header, line = None, 1
    while True:
        begin = line
        try:
            row: Any = next(reader, None)
        except csv.Error as error:
            why = str(error).replace("\t", "a tab").replace("\n", " ")
            fix = "double each quote inside a field, close each field"
            row = Refused(LINE, f"it is no row of a table ({why})", fix)
        line = reader.line_num + 1
        if row is None:
            return
        if isinstance(row, Refused):
            yield begin, row
        elif header is None and row:
            header = [name.strip() for name in row]
            if fault := (_twice(header) or check(header)):
                yield begin, fault
                return
        elif any(cell.strip() for cell in row):
            yield begin, _object(header or [], row)


def _delimiter(text: str) -> str:
    """The sign that parts the header into the most names."""
    header = text.lstrip().split("\n", 1)[0]
    return max(",;\t", key=header.count)


def _twice(header: list[str]) -> Refused | None:
    twice = [name for i, name in enumerate(header) if name in header[:i]]
    reason = "the header has it twice, and no row was read"
    return Refused(shown(twice[0]), reason, "rename one of the two") if twice else None


def _object(header: list[str], row: list[str]) -> Any:
    if len(row) != len(header):
        reason = f"it has {len(row)} fields, the header {len(header)}"
        return Refused(LINE, reason, "put fields with separators or line feeds in double quotes")
    return dict(zip(header, row, strict=True))
