"""Where the texts of the tasks come from, and the readers of the raw files.

A reader gives every row of its file, cleaned, and stops with a DataError at the first row that is not in the
expected form: a silent guess here would become a silent error in every result.
"""

from __future__ import annotations

import difflib
import html
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from instructlab_utils import cache
from instructlab_utils.errors import DataError

SENTIMENT = ("negative", "positive")
TOPICS = ("business", "entertainment", "politics", "sports", "tech")


class Source(NamedTuple):
    """The raw data of a task: asset, labels, the files in the asset, whether ids are article_sentence."""

    asset: str
    labels: tuple[str, ...]
    files: str
    has_articles: bool = False

    @property
    def rated(self) -> bool:
        """True where people rated the texts, False where the source gives a label."""
        return self.labels == SENTIMENT


SOURCES = {
    "movie-sentiment": Source("vader", SENTIMENT, "movieReviewSnippets_GroundTruth.txt"),
    "tweet-sentiment": Source("vader", SENTIMENT, "tweets_GroundTruth.txt"),
    "product-sentiment": Source(
        "vader", SENTIMENT, "amazonReviewSnippets_GroundTruth.txt", has_articles=True
    ),
    "editorial-sentiment": Source(
        "vader", SENTIMENT, "nytEditorialSnippets_GroundTruth.txt", has_articles=True
    ),
    "bbc-topics": Source("bbc", TOPICS, "bbcnews/data/*/*.txt"),
}


class Row(NamedTuple):
    """One raw text with people's mean ``rating`` (else NaN) or the source's ``label`` (else None).

    ``article`` is the number of the text that a sentence was cut from, "" where the source does not tell.
    """

    text: str
    rating: float = float("nan")
    label: str | None = None
    article: str = ""


def raw_files(name: str) -> list[Path]:
    """The raw files of a task. DataError for an unknown task or no file, AssetError for a missing asset."""
    from instructlab_utils.tasks.records import RECORDS  # it reads rows with functions of this module

    known = [*SOURCES, *RECORDS]
    if not isinstance(name, str) or name not in known:
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise DataError(f"unknown task {name!r}: {hint}the tasks are {', '.join(known)}")
    source = SOURCES[name] if name in SOURCES else RECORDS[name]
    patterns = (source.files,) if isinstance(source.files, str) else source.files
    folder = cache.folder(source.asset)
    files = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    if not files:
        raise DataError(
            f"no {patterns[0]} in {folder}: run `python -m instructlab_utils fetch --only {source.asset}`"
        )
    return files


def read(name: str, counts: Counter[str] | None = None) -> list[Row]:
    """All rows of a task's raw files, cleaned. ``counts`` is told what was repaired."""
    counts, files, source = Counter() if counts is None else counts, raw_files(name), SOURCES[name]
    if source.rated:
        return [row for path in files for row in read_rated(path, source.has_articles, counts)]
    return [read_article(path, source.labels, counts) for path in files]


def clean(text: str) -> str:
    """Resolve HTML entities (some are escaped twice) and turn every run of white space into one space."""
    return " ".join(html.unescape(html.unescape(text)).split())


def read_rated(path: Path, has_articles: bool, counts: Counter[str]) -> list[Row]:
    """Read lines of the form ``id TAB mean rating TAB text``. DataError at the first line that is not."""
    if not (lines := path.read_bytes().splitlines()):
        raise DataError(f"{path} is empty: delete its folder and fetch the asset again")
    rows = []
    for number, raw in enumerate(lines, start=1):
        place = f"{path}, line {number}"
        try:
            fields = raw.decode("utf-8").split("\t")
        except UnicodeDecodeError as error:
            bad = f"{place}, field {raw[: error.start].count(9) + 1}: byte 0x{raw[error.start]:02x}"
            raise DataError(f"{bad} is not UTF-8: save the file as UTF-8") from None
        if len(fields) != 3:
            raise DataError(
                f"{place}: {len(fields)} field(s), not 3: put one tab after the id and after the rating"
            )
        if has_articles and not re.fullmatch(r"\d+_\d+", fields[0]):
            raise DataError(f"{place}, field 1 (id): {fields[0]!r}: write article_sentence, such as 12_3")
        try:
            rating = float(fields[1])
        except ValueError:
            rating = float("nan")
        if not -4 <= rating <= 4:
            raise DataError(f"{place}, field 2 (rating): {fields[1]!r}: write a number from -4 to 4")
        if not clean(fields[2]):
            raise DataError(f"{place}, field 3 (text) is empty: write the sentence, or delete the line")
        counts["texts with HTML entities"] += html.unescape(fields[2]) != fields[2]
        article = fields[0].split("_")[0] if has_articles else ""
        rows.append(Row(clean(fields[2]), rating=rating, article=article))
    return rows


def read_article(path: Path, topics: tuple[str, ...], counts: Counter[str]) -> Row:
    """Read ``topic/NNN.txt``, title in the first line; the text is title, line break, body.

    A file that is not UTF-8 is read as Windows-1252 and counted. DataError where both fail.
    """
    topic, raw = path.parent.name, path.read_bytes()
    if topic not in topics:
        raise DataError(f"{path}: unknown topic {topic!r}: move the file to one of {', '.join(topics)}")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        counts["files not in UTF-8"] += 1
        try:
            text = raw.decode("cp1252")
        except UnicodeDecodeError as error:
            bad = f"{path}, line {raw[: error.start].count(10) + 1}: byte 0x{raw[error.start]:02x}"
            raise DataError(f"{bad} is neither UTF-8 nor Windows-1252: save the file as UTF-8") from None
    title, _, body = text.strip().partition("\n")
    if not clean(title) or not clean(body):
        raise DataError(f"{path}, line 1: title or body is missing: write both, or delete the file")
    counts["texts with HTML entities"] += html.unescape(text) != text
    return Row(f"{clean(title)}\n{clean(body)}", label=topic)
