"""Tasks with one schema, and splits that nobody can choose by their result.

``load("movie-sentiment")`` goes five steps, and each is a function below: read the raw rows, give a label,
remove copies, group what must stay together, split by hash.

Why by hash? A random split depends on the order of the rows and on the generator. The SHA-256 of the content
does not: a sentence lands in the same split on every machine and in every year. Why by group? Sentences of
one review share subject and author, and near duplicates share nearly everything. A test sentence whose
neighbour was trained on measures memory, not generalisation.

Tasks whose answer is not one label (questions, tagged tokens, texts to write, options to choose from) are read by
`repro/records.py` and split the same way. Taught in lessons 00 and 03. What each task holds: data/cards/.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructlab_utils import cache
from instructlab_utils.errors import AssetError, DataError
from instructlab_utils.tasks.records import RECORDS
from instructlab_utils.tasks.sources import SOURCES, Row, raw_files, read

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

SALT = "instructlab-1"  # fixed for ever: another salt is another benchmark
SHARES = {"train": 0.65, "dev": 0.15, "test": 0.20}
CUT = 0.5  # a mean rating in [-0.5, 0.5], on the raters' scale from -4 to 4, gets no label
JACCARD = 0.8  # two texts at least this similar are near duplicates
VERSION = "1"  # raise it when a change here makes other examples or splits from the same raw files


@dataclass(frozen=True)
class Task:
    """A task ready for training: what it is, where it comes from, and its three splits.

    ``splits`` has train, dev and test (some tasks only test); every row has id (16 hex digits of the content's SHA-256)
    and group (rows of one group share a split). The other columns depend on ``kind``:

    - classification: text, label (ClassLabel), rating (float, NaN where the source has none);
    - qa: question, context, answers (texts), starts (their character offsets; both empty where there is no answer);
    - tokens: tokens, tags (one of ``labels`` each, BIO);
    - generation: source, targets (texts), in webnlg also triples, in products-en-de also label (text);
    - choice: input, options (texts, in an order that tells nothing), answer (index of the right one).

    ``labels`` is empty for qa, generation and choice.
    ``thresholds``: the rating that a label must pass, empty where the source gives the labels.
    ``counts``: what happened on the way (rows read, repaired, left out, found twice).
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


def label_of(row: Row) -> str | None:
    """The label of the source, else the sign of the rating; None between the thresholds, and on them."""
    if row.label is not None:
        return row.label
    return "positive" if row.rating > CUT else "negative" if row.rating < -CUT else None


def content_id(text: str) -> str:
    """16 hexadecimal digits of the text's SHA-256: the same text has the same id everywhere."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def shingles(text: str, size: int = 5) -> frozenset[str]:
    """All runs of ``size`` words, without case and punctuation; a shorter text is one shingle."""
    words = re.findall(r"\w+", text.casefold()) or [text]
    return frozenset(" ".join(words[i : i + size]) for i in range(max(1, len(words) - size + 1)))


def near_duplicates(texts: Sequence[str]) -> list[tuple[int, int]]:
    r"""Pairs i < j whose shingle sets have the Jaccard similarity :math:`|A \cap B| / |A \cup B| \ge 0.8`.

    MinHash (32 bands of 4 rows) proposes a pair of similarity s with probability :math:`1 - (1 - s^4)^{32}`,
    which at 0.8 leaves out 5 in 10^8. The exact similarity then decides.
    Source: A. Broder (1997), On the resemblance and containment of documents.
    """
    from datasketch import MinHash, MinHashLSH

    sets = [shingles(text) for text in texts]
    encoded = ([shingle.encode("utf-8") for shingle in one] for one in sets)
    index, pairs = MinHashLSH(num_perm=128, params=(32, 4)), []
    for j, minhash in enumerate(MinHash.generator(encoded, num_perm=128, seed=1)):
        for i in sorted(index.query(minhash)):
            if len(sets[i] & sets[j]) >= JACCARD * len(sets[i] | sets[j]):
                pairs.append((i, j))
        index.insert(j, minhash)
    return pairs


def components(size: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """Union-find over nodes 0 … size - 1: for each, the smallest node it is linked to."""
    parent = list(range(size))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    for a, b in links:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return [root(node) for node in range(size)]


def split_of(group: str) -> str:
    """train, dev or test: where the salted hash of ``group``, read as a number in [0, 1), falls."""
    number = int.from_bytes(hashlib.sha256(f"{SALT}:{group}".encode()).digest()[:8], "big") / 2**64
    return "train" if number < SHARES["train"] else "dev" if number < 1 - SHARES["test"] else "test"


def arrange(rows: Sequence[Row], counts: Counter[str]) -> dict[str, list[dict[str, object]]]:
    """Raw rows → the examples of each split, sorted by id. A group is named by the smallest id in it.

    Groups are made from all rows, also those without a label, so that another threshold would move no
    sentence to another split. Copies of a text become one example with their mean rating; if their labels
    differ, there is no telling which is right, and none is kept.
    """
    copies: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        copies[content_id(row.text)].append(row)
    ids = sorted(copies)
    pairs = near_duplicates([copies[key][0].text for key in ids])
    first: dict[str, int] = {}  # article → its first text; the others are linked to that one
    articles = [(row.article, i) for i, key in enumerate(ids) for row in copies[key] if row.article]
    links = [(first.setdefault(article, i), i) for article, i in articles]
    group = components(len(ids), pairs + links)
    splits: dict[str, list[dict[str, object]]] = {split: [] for split in SHARES}
    contradictory = unlabelled = 0
    for i, key in enumerate(ids):
        same, name = copies[key], ids[group[i]]
        label = label_of(same[0])
        if any(label_of(row) != label for row in same):
            contradictory += 1
        elif label is None:
            unlabelled += 1
        else:
            rating = sum(row.rating for row in same) / len(same)
            example = {"id": key, "text": same[0].text, "label": label, "rating": rating, "group": name}
            splits[split_of(name)].append(example)
    labels = [label_of(copies[key][0]) for key in ids]
    clusters = Counter(components(len(ids), pairs)).values()
    counts["rows read"] = len(rows)
    counts["copies of another text"] = len(rows) - len(ids)
    counts["texts dropped: copies with different labels"] = contradictory
    counts["texts left out: rating between the thresholds"] = unlabelled
    counts["near-duplicate pairs"] = len(pairs)
    counts["near-duplicate pairs with different labels"] = sum(labels[i] != labels[j] for i, j in pairs)
    counts["near-duplicate clusters"] = sum(size > 1 for size in clusters)
    counts["articles"] = len(first)
    counts["groups"] = len(set(group))
    return splits


def names() -> list[str]:
    """The tasks that ``load`` knows."""
    return [*SOURCES, *RECORDS]


def asset_of(name: str) -> str:
    """The asset that holds the raw files of a task."""
    return (SOURCES.get(name) or RECORDS[name]).asset


def load(name: str) -> Task:
    """The task with its splits: made once from the raw files, later read from ``cache.home()/tasks``.

    Raises: DataError for an unknown task or a malformed raw file; AssetError if the raw files are not there.
    """
    files = raw_files(name)
    from datasets import DatasetDict  # after the check: a misspelt name should not wait for this import
    from filelock import FileLock

    pin = hashlib.sha256(f"{VERSION} {SALT} {SHARES} {CUT} {JACCARD}".encode())
    for path in files:
        pin.update(f"{path.parent.name}/{path.name}\0".encode() + path.read_bytes())
    stored = cache.home() / "tasks" / f"{name}-{pin.hexdigest()[:12]}"
    try:
        stored.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{stored}.lock"):  # two notebooks may load the same task at once
            if not stored.exists():
                _store(name, stored)
    except OSError as error:
        raise AssetError(
            f"cannot write {stored} ({error.strerror}): free space or set INSTRUCTLAB_HOME"
        ) from error
    try:
        counts = json.loads((stored / "counts.json").read_text(encoding="utf-8"))
        splits = DatasetDict.load_from_disk(str(stored), keep_in_memory=True)
    except (OSError, ValueError) as error:
        raise AssetError(f"{stored} is damaged: delete that folder and load the task again") from error
    source, records = SOURCES.get(name), RECORDS.get(name)
    pinned = cache.entry(asset_of(name))
    return Task(
        name=name,
        labels=source.labels if source else bio_labels(splits),
        licence=pinned["licence"],
        source=pinned["citation"],
        assets=(asset_of(name),),
        thresholds={"negative": -CUT, "positive": CUT} if source and source.rated else {},
        counts=counts,
        splits=splits,
        kind=records.kind if records else "classification",
        metric=records.metric if records else "accuracy",
    )


def bio_labels(splits: DatasetDict) -> tuple[str, ...]:
    """O, then B- and I- of every span type that occurs in the column ``tags``; empty where there is no such column."""
    tagged = [part["tags"] for part in splits.values() if "tags" in part.column_names]
    tags = {tag for column in tagged for row in column for tag in row}
    types = sorted({tag[2:] for tag in tags} - {""})
    return ("O", *(f"{mark}-{kind}" for kind in types for mark in "BI")) if types else ()


def arrange_records(name: str, counts: Counter[str]) -> dict[str, list[dict[str, Any]]]:
    """Records → the rows of each split, sorted by id; rows with the same content stand once.

    Near duplicates are not looked for: what must stay together is the reader's ``group``.
    """
    task = RECORDS[name]
    splits: dict[str, list[dict[str, Any]]] = {split: [] for split in SHARES}
    seen: set[str] = set()
    for row in task.read(raw_files(name), counts):
        counts["rows read"] += 1
        content = json.dumps({k: v for k, v in row.items() if k not in ("id", "group")}, sort_keys=True)
        row["id"] = content_id(content)
        if row["id"] in seen:
            counts["copies of another row"] += 1
            continue
        seen.add(row["id"])
        splits["test" if task.test_only else split_of(row["group"])].append(row)
    counts["groups"] = len({row["group"] for rows in splits.values() for row in rows})
    return {
        split: sorted(rows, key=lambda row: row["id"])
        for split, rows in splits.items()
        if rows or not task.test_only
    }


def _store(name: str, stored: Path) -> None:
    """Build the splits in a folder beside ``stored`` and move it there in one step."""
    import datasets
    from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

    counts: Counter[str] = Counter()
    string, texts, examples = Value("string"), List(Value("string")), {}
    kinds: dict[str, Any] = dict.fromkeys(("answers", "tokens", "tags", "targets", "options"), texts)
    kinds |= {"starts": List(Value("int64")), "triples": List(texts), "rating": Value("float64")}
    kinds["answer"] = Value("int64")
    if name in SOURCES:
        examples = arrange(read(name, counts), counts)
        kinds["label"] = ClassLabel(names=list(SOURCES[name].labels))
    else:
        examples = arrange_records(name, counts)
    for split, rows in examples.items():
        if not rows:
            raise DataError(
                f"{name}: no text falls into {split}; the raw files are too small, fetch the asset again"
            )
    columns = next(iter(examples.values()))[0]
    features = Features({column: kinds.get(column, string) for column in columns})
    splits = DatasetDict({split: Dataset.from_list(rows, features) for split, rows in examples.items()})
    with tempfile.TemporaryDirectory(dir=stored.parent, prefix=f".{name}-") as folder:
        new, shown = Path(folder) / "new", not datasets.are_progress_bars_disabled()
        datasets.disable_progress_bars()
        try:
            splits.save_to_disk(str(new))
        finally:
            if shown:
                datasets.enable_progress_bars()
        (new / "counts.json").write_text(json.dumps(counts, indent=1), encoding="utf-8")
        os.replace(new, stored)


def subsample(dataset: Dataset, n: int, seed: int) -> Dataset:
    """``n`` rows with the label shares of ``dataset`` (up to rounding); n = 50 is contained in n = 200.

    Where rows have no label, all count as one label.

    Within a label, rows are ranked by the SHA-256 of ``f"{seed}:{id}"``, so their order plays no part. Rank k of
    m stands at (k + 1/2) / m; the sample is the first n in the order of these positions.
    Raises: DataError if ``n`` is no integer between 1 and the number of rows.
    """
    if not isinstance(n, Integral) or not 1 <= n <= len(dataset):
        raise DataError(f"n is {n!r}: choose an integer from 1 to {len(dataset)}, the number of rows")
    ranked: dict[int, list[tuple[str, int]]] = defaultdict(list)
    labels = dataset["label"] if "label" in dataset.column_names else [0] * len(dataset)
    for i, (key, label) in enumerate(zip(dataset["id"], labels, strict=True)):
        ranked[label].append((hashlib.sha256(f"{seed}:{key}".encode()).hexdigest(), i))
    order = []
    for rows in ranked.values():
        order += [((k + 0.5) / len(rows), digest, i) for k, (digest, i) in enumerate(sorted(rows))]
    return dataset.select([i for _, _, i in sorted(order)[:n]])
