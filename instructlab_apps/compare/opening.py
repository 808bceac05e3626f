"""A reader's file into records: the encoding guessed and told, broken rows set aside and counted, none lost silently.

Nothing in a file is executed or unpickled: CSV and JSON are read by the standard library, Parquet by pyarrow.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instructlab_utils.errors import DataError

LARGEST = 200 * 2**20  # bytes of a file
LONGEST = 1_000_000  # characters of a cell
SPAN = 200  # lines that one cell in quotes may take before its opening quote counts as a mistake
OPEN = "a quote is opened and not closed"
SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".parquet")
FOREIGN = {  # first bytes of files that people rename to .csv
    b"PK\x03\x04": "an Excel workbook or another zip archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"%PDF": "a PDF",
    b"\x1f\x8b": "a gzip archive",
    b"SQLite": "a database",
    b"\x80\x04": "a Python pickle, which could run code",
    b"\x80\x05": "a Python pickle, which could run code",
}


@dataclass
class Opened:
    """What a file holds: records with the line (of Parquet and JSON lists: the row, from 1) on which each begins.

    ``broken`` has line and reason of each row that could not be read; ``notes`` are sentences for the reader.
    """

    columns: list[str]
    records: list[tuple[int, dict[str, Any]]]
    broken: list[tuple[int, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def open_file(path: Path) -> Opened:
    """Read a CSV, TSV, JSON Lines, JSON or Parquet file. DataError, in one sentence, for anything else."""
    name = path.name
    if path.is_dir():
        raise DataError(f"{name} is a folder; give the file inside it, such as {name}/texts.csv")
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*") if p.suffix.lower() in SUFFIXES)[:3]
        found = f"; beside it lie {', '.join(near)}" if near else ""
        raise DataError(f"{path}: no such file{found}")
    if (size := path.stat().st_size) > LARGEST:
        raise DataError(
            f"{name} has {size / 2**20:.0f} MB, and {LARGEST / 2**20:.0f} MB can be read; give a sample of its rows"
        )
    data = path.read_bytes()
    if not data.strip(b" \t\r\n\x00\xef\xbb\xbf"):
        raise DataError(f"{name} is empty; it needs a header and rows")
    if data[:4] == b"PAR1" or path.suffix.lower() == ".parquet":
        return _parquet(path)
    for magic, what in FOREIGN.items():
        if data.startswith(magic):
            raise DataError(f"{name} is {what}; save the table as CSV in UTF-8 and give that file")
    text, notes = decode(data, name)
    if not text.replace("\x00", "").strip():
        raise DataError(f"{name} is empty; it needs a header and rows")
    begin = text.lstrip()[:1]
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson") or (suffix not in (".csv", ".tsv") and begin == "{"):
        opened = _json_lines(text, name)
    elif suffix == ".json" or (suffix not in (".csv", ".tsv") and begin == "["):
        opened = _json_list(text, name)
    else:
        opened = _table(text, name)
    opened.notes[:0] = notes
    return opened


# --- encodings -------------------------------------------------------------------------------------------------------


def decode(data: bytes, name: str = "the file") -> tuple[str, list[str]]:
    """The text of ``data`` and notes on how it was read; bytes that do not fit become lone surrogates.

    Tried in this order: a byte-order mark, UTF-16 by its zero bytes, UTF-8, GB18030 where what comes out is Chinese of
    everyday characters, Windows-1252. DataError for what is no text.
    """
    for mark, code in ((b"\xff\xfe\x00\x00", "utf-32"), (b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"),
                       (b"\xfe\xff", "utf-16")):  # fmt: skip
        if data.startswith(mark):
            if code == "utf-8-sig":
                return _checked(data[3:].decode("utf-8", "surrogateescape"), name), []
            said = [f"The file is {code.upper()}; it was read as such."]
            return _checked(data.decode(code, "replace"), name), said
    head = data[:4000]
    zeros = (head[0::2].count(0), head[1::2].count(0))
    if len(head) > 3 and max(zeros) > 0.3 * len(head) / 2 and min(zeros) < 0.05 * len(head) / 2:
        code = "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
        said = ["The file has no byte-order mark and looks like UTF-16; it was read as such."]
        return _checked(data.decode(code, "replace"), name), said
    high = [line for line in data.split(b"\n") if not line.isascii()]
    whole = [line for line in high if _decodes(line, "utf-8")]
    if len(whole) == len(high):
        return _checked(data.decode("utf-8"), name), []
    if 2 * len(whole) >= len(high):
        said = [
            f"{len(high) - len(whole)} line(s) are not UTF-8 as the others are; their rows are set aside."
        ]
        return _checked(data.decode("utf-8", "surrogateescape"), name), said
    chinese = [line for line in high if _decodes(line, "gb18030")]
    if 10 * len(chinese) >= 9 * len(high) and _everyday(b"\n".join(chinese).decode("gb18030")):
        said = [
            "The file is not UTF-8; its bytes are everyday Chinese in GB18030 (GBK), and it was read as that."
        ]
        return _checked(data.decode("gb18030", "surrogateescape"), name), said
    said = ["The file is not UTF-8; it was read as Windows-1252: look at the accents, or save it as UTF-8."]
    return _checked(data.decode("cp1252", "surrogateescape"), name), said


def _decodes(line: bytes, code: str) -> bool:
    try:
        line.decode(code)
    except UnicodeDecodeError:
        return False
    return True


def _everyday(text: str) -> bool:
    """Whether most characters beyond ASCII are Chinese punctuation or of GB2312's first level, its 3,755 commonest."""
    other = [c for c in text if ord(c) > 127][:20_000]
    common = 0
    for c in other:
        try:
            code = c.encode("gb2312")
        except UnicodeEncodeError:
            continue
        common += code[0] <= 0xA3 or 0xB0 <= code[0] <= 0xD7
    return 10 * common >= 8 * len(other)


def _checked(text: str, name: str) -> str:
    """``text``, or DataError where it is full of characters that no text has."""
    head = text[:20_000]
    odd = sum(c < " " and c not in "\t\r\n\x0b\x0c\x00" for c in head) + 2 * head.count("\x00")
    odd += sum("\udc80" <= c <= "\udcff" for c in head)
    if odd > 0.03 * len(head) and odd > 5:
        raise DataError(f"{name} is not a text file; save the table as CSV in UTF-8")
    return text


# --- forms -----------------------------------------------------------------------------------------------------------


def _parquet(path: Path) -> Opened:
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.read_table(path)
        records = list(enumerate(table.to_pylist(), start=1))
    except (ArrowException, OSError, ValueError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())[:120]
        raise DataError(f"{path.name} cannot be read as Parquet ({why}); write it again") from None
    return Opened(list(table.column_names), records)


def _json_lines(text: str, name: str) -> Opened:
    records: list[tuple[int, dict[str, Any]]] = []
    broken: list[tuple[int, str]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            broken.append((number, f"not JSON ({getattr(error, 'msg', 'too deep or too long').lower()})"))
            continue
        if isinstance(value, dict):
            records.append((number, value))
        else:
            broken.append((number, "not an object with columns"))
    return _collected(records, broken, name, 'each line must be an object such as {"text": …, "label": …}')


def _json_list(text: str, name: str) -> Opened:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        why = getattr(error, "msg", "too deep or too long").lower()
        where = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{name}{where}: not JSON ({why}); mend it, or write one object a line") from None
    rows = value if isinstance(value, list) else [value]
    records = [(n, row) for n, row in enumerate(rows, start=1) if isinstance(row, dict)]
    broken = [(n, "not an object with columns") for n, row in enumerate(rows, 1) if not isinstance(row, dict)]
    return _collected(records, broken, name, "it must be a list of objects")


def _collected(
    records: list[tuple[int, dict[str, Any]]], broken: list[tuple[int, str]], name: str, rule: str
) -> Opened:
    if not records:
        raise DataError(f"{name} has no row that can be read; {rule}")
    columns = dict.fromkeys(str(key) for _, row in records for key in row)
    return Opened(list(columns), [(n, {str(k): v for k, v in row.items()}) for n, row in records], broken)


def delimiter_of(lines: list[str]) -> str:
    """The sign that cuts the first rows into the same number of fields as the header most often; ties: more fields."""

    def fit(sign: str) -> tuple[float, int]:
        widths = [len(next(csv.reader([line], delimiter=sign), [])) for line in lines[:50]]
        share = sum(width == widths[0] for width in widths) / len(widths)
        return (share if widths[0] > 1 else 0.0, widths[0])

    return max(",\t;|", key=fit)


def _table(text: str, name: str) -> Opened:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip()), 0)
    before = csv.field_size_limit(LONGEST)
    try:
        return _rows_of(lines, first, name)
    finally:
        csv.field_size_limit(before)


def _rows_of(lines: list[str], first: int, name: str) -> Opened:
    try:
        sign = delimiter_of([line for line in lines[first : first + 200] if line.strip()])
        parsed = list(_cut(lines, first, sign))
    except csv.Error as error:
        raise DataError(
            f"{name}, line {first + 1}: no header can be read ({error}); save it as CSV"
        ) from None
    number, header, why = parsed[0]
    if header is None:
        raise DataError(f"{name}, line {number}: the header cannot be read ({why}); mend its quotes")
    columns = [_plain(cell) for cell in header]
    notes = [] if sign == "," else [f"Fields are parted by {'a tab' if sign == chr(9) else repr(sign)}."]
    records: list[tuple[int, dict[str, Any]]] = []
    broken: list[tuple[int, str]] = []
    for number, row, why in parsed[1:]:
        if row is None:
            broken.append((number, why))
        elif len(row) != len(columns):
            broken.append((number, f"{len(row)} field(s), the header has {len(columns)}"))
        else:
            records.append((number, dict(zip(columns, row, strict=True))))
    if twice := [c for i, c in enumerate(columns) if c in columns[:i]]:
        notes.append(f"The header has {twice[0]!r} twice; the last of them was read.")
    return Opened(list(dict.fromkeys(columns)), records, broken, notes)


def _plain(cell: str) -> str:
    return re.sub(r"\s+", " ", cell).strip()


def _cut(lines: list[str], first: int, sign: str) -> Iterator[tuple[int, list[str] | None, str]]:
    """Line, fields or None, and why not. A quote that is not closed within ``SPAN`` lines costs its own line only."""
    i = first
    while i < len(lines):
        if not lines[i].strip():
            i += 1
            continue
        row, why, used = *_parsed(lines[i : i + 1], sign), 1
        quotes = lines[i].count('"')
        while row is None and why == OPEN and used < SPAN and i + used < len(lines):
            quotes, used = quotes + lines[i + used].count('"'), used + 1
            if quotes % 2 == 0:
                row, why = _parsed(lines[i : i + used], sign)
                why = why and OPEN
                if row is None:
                    break
        yield i + 1, row, why
        i += used if row is not None else 1


def _parsed(lines: list[str], sign: str) -> tuple[list[str] | None, str]:
    """The one row that ``lines`` hold, or None and why not."""
    try:
        rows = list(csv.reader([line + "\n" for line in lines], delimiter=sign, strict=True))
    except csv.Error as error:
        why = str(error).replace("\t", "a tab")
        if "unexpected end" in why:
            return None, OPEN
        return (
            None,
            f"a cell has more than {LONGEST:,} characters" if "limit" in why else f"not a row ({why})",
        )
    return (rows[0], "") if len(rows) == 1 else (None, OPEN)
