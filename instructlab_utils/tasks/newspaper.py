"""The reader of the People's Daily as Peking University tagged it: words with parts of speech become characters with names.

Taught in lesson 27.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from instructlab_utils.errors import DataError
from instructlab_utils.tasks.fields import FEWEST, text_lines

Record = dict[str, Any]
NAMED = ("nr", "ns", "nt")  # persons, places, organisations
STOPS, BLOCK = frozenset("。！？；"), 20  # what ends a sentence; paragraphs in a group


def persons(words: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """(word, part of speech) with each surname joined to its given name: 王/nr 小明/nr is one person (lesson 27).

    In a run of persons a word of one character, or of two before one of at most two, takes the next word with it.
    """
    joined: list[tuple[str, str]] = []
    open_surname = False
    for i, (word, kind) in enumerate(words):
        if open_surname:
            joined[-1] = (joined[-1][0] + word, kind)
            open_surname = False
            continue
        joined.append((word, kind))
        after, of = words[i + 1] if i + 1 < len(words) else ("", "")
        open_surname = kind == of == "nr" and (len(word) == 1 or len(word) == 2 >= len(after))
    return joined


def annotated(files: list[Path], counts: Counter[str]) -> Iterator[Record]:
    """Paragraphs of ``word/tag``: sentences as characters, with BIO tags of persons, places and organisations (lesson 27).

    The group is that of `BLOCK` paragraphs in a row, named by the first: articles are not marked.
    """
    for path in files:
        group, number = "", 0
        for place, line in text_lines(path):
            if not line.strip():
                continue
            pairs = [item.rpartition("/") for item in line.split()]
            if odd := [w + s + t for w, s, t in pairs if not w or not re.fullmatch(r"[A-Za-z]+", t)]:
                raise DataError(f"{place}: {odd[0]!r:.40}: write word/tag, the tag in letters")
            words = persons([(word, tag) for word, _, tag in pairs])
            if number % BLOCK == 0:
                group = "".join(word for word, _ in words)
            number += 1
            yield from _cut(words, group, counts)


def _cut(words: list[tuple[str, str]], group: str, counts: Counter[str]) -> Iterator[Record]:
    """The sentences of a paragraph, each character with its tag."""
    tokens: list[str] = []
    tags: list[str] = []
    for i, (word, kind) in enumerate(words, start=1):
        tokens += word
        named = kind in NAMED
        tags += [f"B-{kind}", *[f"I-{kind}"] * (len(word) - 1)] if named else ["O"] * len(word)
        if word in STOPS or i == len(words):
            if sum(map(str.isalpha, tokens)) < FEWEST:
                counts["sentences left out: hardly a letter"] += 1
            else:
                yield {"tokens": tokens, "tags": tags, "group": group}
            tokens, tags = [], []
