"""Records into texts and labels: columns found or suggested, rows without one of them counted, classes too small told."""

from __future__ import annotations

import difflib
import math
import random
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from instructlab_apps.compare.opening import Opened, open_file
from instructlab_utils.errors import DataError

LEAST_ROWS, LEAST_CLASS, MOST_CLASSES = 30, 6, 200
MOST_ROWS = 20_000
LABEL_LENGTH = 80


@dataclass
class Intake:
    """Texts and labels that can be used, ``line`` by ``line`` of the file; ``label`` are numbers into ``names``.

    ``aside`` counts what was set aside by reason, ``examples`` has the first lines of each; ``notes`` are sentences.
    """

    text: list[str]
    label: list[int]
    line: list[int]
    names: list[str]
    aside: Counter[str]
    examples: dict[str, list[int]]
    notes: list[str]
    rows: int


def take_in(path: Path, text: str, label: str, most: int = MOST_ROWS) -> Intake:
    """Read ``path`` and choose its columns. DataError, in one sentence with the fix, where nothing can be compared."""
    opened = open_file(path)
    if not opened.records:
        lost = f" ({len(opened.broken)} row(s) are broken: {opened.broken[0][1]})" if opened.broken else ""
        raise DataError(f"{path.name} has a header and no row that can be read{lost}; give rows")
    must_name(opened, path.name, text, label)
    aside, examples = Counter[str](), dict[str, list[int]]()

    def put_aside(line: int, why: str) -> None:
        aside[why] += 1
        examples.setdefault(why, [])
        if len(examples[why]) < 5:
            examples[why].append(line)

    for line, why in opened.broken:
        put_aside(line, f"broken: {why}")
    kept: list[tuple[int, str, str]] = []
    controls = 0
    for line, record in opened.records:
        said, named = written(record.get(text)), " ".join(clean(written(record.get(label))).split())
        if any("\ud800" <= c <= "\udfff" for c in said + named):
            put_aside(line, "bytes that do not fit the file's encoding")
            continue
        controls += (tidy := clean(said)) != said
        if not tidy.strip():
            put_aside(line, "no text")
        elif not named:
            put_aside(line, "no label")
        elif len(named) > LABEL_LENGTH:
            put_aside(line, f"a label of more than {LABEL_LENGTH} characters")
        else:
            kept.append((line, tidy.strip(), named))
    notes = list(opened.notes)
    if controls:
        notes.append(f"{controls} text(s) held control characters such as NUL; these were taken out.")
    total = len(opened.records) + len(opened.broken)
    must_be_classes(kept, path.name, label)
    if len(kept) > most:
        notes.append(f"The file has {len(kept):,} usable rows; {most:,} of them, drawn at random, were used.")
        kept = sorted(random.Random(0).sample(kept, most))
    names = sorted({named for _, _, named in kept})
    place = {named: i for i, named in enumerate(names)}
    notes += [
        f"The labels {a!r} and {b!r} differ in case only; they count as two." for a, b in _alike(names)[:3]
    ]
    return Intake(
        [said for _, said, _ in kept], [place[named] for _, _, named in kept], [line for line, _, _ in kept],
        names, aside, examples, notes, total,
    )  # fmt: skip


def _alike(names: Sequence[str]) -> list[tuple[str, str]]:
    seen: dict[str, str] = {}
    return [(seen[n.casefold()], n) for n in names if seen.setdefault(n.casefold(), n) != n]


def sampled(data: Intake, most: int) -> Intake:
    """``data``, or ``most`` of its rows drawn at random and told; labels keep their numbers."""
    if len(data.text) <= most:
        return data
    chosen = sorted(random.Random(0).sample(range(len(data.text)), most))
    told = f"{most:,} of {len(data.text):,} usable rows, drawn at random, were used: the time does not pay for all."
    text, label = [data.text[i] for i in chosen], [data.label[i] for i in chosen]
    line = [data.line[i] for i in chosen]
    return replace(data, text=text, label=label, line=line, notes=[*data.notes, told])


def written(value: Any) -> str:
    """A cell as text: nothing for null and NaN; numbers and truth values as they are written."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return value if isinstance(value, str) else str(value)


def clean(text: str) -> str:
    """Without control characters, which no page can show; tabs and line ends stay."""
    return "".join(c for c in text if (c >= " " and c != "\x7f" and c not in "\ufffe\uffff") or c in "\t\n\r")


# --- columns ---------------------------------------------------------------------------------------------------------


def guess(opened: Opened) -> tuple[str, str]:
    """The columns that look most like texts and like labels, or "" where none does; from the first 500 records."""
    seen = [record for _, record in opened.records[:500]]
    columns = {c: [v for record in seen if (v := written(record.get(c)).strip())] for c in opened.columns}
    columns = {name: values for name, values in columns.items() if len(values) > len(seen) / 2}
    length = {name: sum(map(len, values)) / len(values) for name, values in columns.items()}
    text = max(
        length, key=lambda name: length[name] * len(set(columns[name])) / len(columns[name]), default=""
    )
    few = {n: len(set(v)) for n, v in columns.items() if n != text and 1 < len(set(v)) <= max(2, len(v) / 3)}
    hinted = [
        n for n in few if n.casefold() in ("label", "class", "category", "target", "sentiment", "topic")
    ]
    return text, (hinted or sorted(few, key=lambda name: few[name]) or [""])[0]


def must_name(opened: Opened, name: str, text: str, label: str) -> None:
    """DataError, with the columns and a suggestion, unless both columns are there and are two."""
    wrong = [f"--{role} {given!r}" for role, given in (("text", text), ("label", label))
             if given and given not in opened.columns]  # fmt: skip
    if text and label and not wrong:
        if text == label:
            raise DataError(f"--text and --label both name {text!r}; the label needs a column of its own")
        return
    likely = dict(zip(("text", "label"), guess(opened), strict=True))
    for role, given in (("text", text), ("label", label)):
        folded = {column.casefold(): column for column in opened.columns}
        if given in opened.columns:
            likely[role] = given
        elif given and (near := difflib.get_close_matches(given.casefold(), folded, 1)):
            likely[role] = folded[near[0]]
    shown = ", ".join(repr(clean(column)[:40]) for column in opened.columns[:12])
    what = f"{name} has no column for {' and '.join(wrong)}" if wrong else f"{name}: name the columns"
    tip = " ".join(f"--{role} {shlex.quote(clean(found))}" for role, found in likely.items() if found)
    raise DataError(f"{what}; its columns are {shown}{f'; try {tip}' if tip else ''}")


def must_be_classes(kept: Sequence[tuple[int, str, str]], name: str, label: str) -> None:
    """DataError where the labels are no classes or the rows too few to compare anything."""
    counts = Counter(named for _, _, named in kept)
    distinct = {named: set[str]() for named in counts}
    for _, said, named in kept:
        distinct[named].add(said.casefold())
    if not counts:
        raise DataError(f"{name}: no row has both a text and a label in {label!r}; look at the two columns")
    if len(counts) == 1:
        only = next(iter(counts))
        raise DataError(f"{name}: every row has the label {only[:40]!r}; at least two classes are needed")
    large = sum(len(texts) >= LEAST_CLASS for texts in distinct.values())
    need = f"at least {LEAST_ROWS} rows and two classes of {LEAST_CLASS} different texts are needed"
    if len(kept) >= LEAST_ROWS and (len(counts) > MOST_CLASSES or 2 * len(counts) > len(kept)):
        what = f"{len(counts):,} different values in {len(kept):,} rows"
        raise DataError(f"{name}: {label!r} has {what}, which are no classes; choose a column of few labels")
    if len(kept) < LEAST_ROWS or large < 2:
        raise DataError(
            f"{name}: {len(kept)} usable row(s) and {large} class(es) that are large enough; {need}"
        )
