"""What an object of a raw JSON file must hold: known fields, each of its type. From lesson 05 on.

A field that no reader knows is refused, since what it says would be lost without a word.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from instructlab_utils.errors import DataError

# Fields of BIG-bench's files that tell about an example; they change neither its input nor its answer.
NOTES = frozenset({"comment", "id", "inst_type", "n_sentences"})

FEWEST = 4  # letters in a Chinese text: with fewer it is a smiley, a number or a heading


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for key, n in Counter(key for key, _ in pairs).items():
        if n > 1:
            raise ValueError(f"the key {key!r} stands twice in one object")
    return dict(pairs)


def load_json(path: Path, key: str) -> list[Any]:
    """The list under ``key`` of a JSON file; what stands beside it describes the file and is not read (lesson 05).

    DataError where there is none, and for a key that an object has twice: one of its values would be lost.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)[key]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path}: no JSON with the list {key!r} ({error}); delete its folder and fetch the asset again"
        ) from error
    if not isinstance(found, list) or not found:
        raise DataError(f"{path}: {key!r} is empty or no list; delete its folder and fetch the asset again")
    return found


def checked(found: Any, place: str, kinds: dict[str, type], known: frozenset[str]) -> dict[str, Any]:
    """The object, with the fields ``kinds`` of these types; the fields ``known`` may stand beside them and are not read.

    DataError, naming place and field, for a field that is missing, of another type, or known to nobody: what it says,
    a weight or a second answer, would be lost without a word (lesson 05).
    """
    if not isinstance(found, dict):
        raise DataError(f"{place}: {repr(found)[:60]} is no object: write one, or delete it")
    for key in [key for key in found if key not in known | set(kinds)]:
        raise DataError(f"{place}, field {key!r}: no reader knows it; delete it, or teach the reader")
    for key, kind in kinds.items():
        value = found.get(key)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            wanted = {str: "text", int: "whole number", list: "list"}[kind]
            raise DataError(f"{place}, field {key}: {repr(value)[:60]}: write a {wanted}, or delete it")
    return found


def examples(path: Path, counts: Counter[str]) -> Iterator[tuple[str, str, list[str]]]:
    """(place, input, targets) of every example of a BIG-bench ``task.json`` (lesson 05).

    DataError for a missing or an unknown field; the fields `NOTES` are not read.
    """
    for number, example in enumerate(load_json(path, "examples"), start=1):
        place = f"{path}, example {number}"
        checked(example, place, {}, NOTES | {"input", "target"})
        source, target = (example.get(name) for name in ("input", "target"))
        targets = [target] if isinstance(target, str) else target
        if not isinstance(source, str):
            raise DataError(f"{place}, field input: {source!r}: write a text, or delete the example")
        if not isinstance(targets, list) or not targets or not all(isinstance(t, str) for t in targets):
            raise DataError(f"{place}, field target: {target!r}: write a text or a list of texts")
        if source.strip():
            yield place, source, targets
        else:
            counts["examples left out: the input is empty"] += 1


def scored_options(example: Any, place: str) -> dict[str, Any]:
    """An example with two or more options and a number for each; DataError for anything else."""
    checked(example, place, {"input": str}, NOTES | {"target", "target_scores"})
    scores = example.get("target_scores")
    if (
        not isinstance(scores, dict)
        or len(scores) < 2
        or not all(isinstance(score, int | float) and math.isfinite(score) for score in scores.values())
    ):
        raise DataError(f"{place}, field target_scores: write two or more options, each with a number")
    said = example.get("target", [])
    if not isinstance(said, str) and not (isinstance(said, list) and all(isinstance(t, str) for t in said)):
        raise DataError(f"{place}, field target: {said!r}: write a text or a list of texts")
    return example


def text_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Place and text of each line, also of an empty one (lesson 27). DataError for an empty file, and for no UTF-8."""
    if not (raw := path.read_bytes()).strip():
        raise DataError(f"{path} is empty: delete its folder and fetch the asset again")
    for number, line in enumerate(raw.splitlines(), start=1):
        try:
            yield f"{path}, line {number}", line.decode("utf-8")
        except UnicodeDecodeError as error:
            bad = f"{path}, line {number}: byte 0x{line[error.start]:02x}"
            raise DataError(f"{bad} is not UTF-8: save the file as UTF-8") from None
