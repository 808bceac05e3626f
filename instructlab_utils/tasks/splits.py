"""Splits by hash, near duplicates, samples: everything that decides which text a model sees, and when.

Lesson 03 says why a split goes by hash and by group, lesson 14 counts shared shingles. Nothing here reads a file.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

from instructlab_utils.characters import canonical, composed, words_of_text
from instructlab_utils.errors import DataError
from instructlab_utils.tasks.readers import Row

if TYPE_CHECKING:
    from datasets import Dataset

SALT = "instructlab-1"  # fixed for ever: another salt is another benchmark
SHARES = {"train": 0.65, "dev": 0.15, "test": 0.20}
CUT = 0.5  # a mean rating in [-0.5, 0.5], on the raters' scale from -4 to 4, gets no label
JACCARD = 0.8  # two texts at least this similar are near duplicates


def label_of(row: Row) -> str | None:
    """The label of the source, else the sign of the rating; None between the thresholds, and on them (lesson 03)."""
    if row.label is not None:
        return row.label
    return "positive" if row.rating > CUT else "negative" if row.rating < -CUT else None


def content_id(text: str) -> str:
    """16 hexadecimal digits of the text's SHA-256: the same text has the same id everywhere (lesson 03)."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def shingles(text: str, size: int = 5) -> frozenset[str]:
    """All runs of ``size`` words (`characters`), without case and punctuation; a shorter text is one shingle (lesson 14)."""
    words = words_of_text(text) or [canonical(text)]
    return frozenset(" ".join(words[i : i + size]) for i in range(max(1, len(words) - size + 1)))


def near_duplicates(texts: Sequence[str]) -> list[tuple[int, int]]:
    r"""Pairs i < j whose shingle sets have the Jaccard similarity :math:`|A \cap B| / |A \cup B| \ge 0.8` (lesson 03).

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
    """Union-find over nodes 0 … size - 1: for each, the smallest node it is linked to (lesson 03)."""
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
    """train, dev or test: where the salted hash of ``group``, read as a number in [0, 1), falls (lesson 03)."""
    number = int.from_bytes(hashlib.sha256(f"{SALT}:{group}".encode()).digest()[:8], "big") / 2**64
    return "train" if number < SHARES["train"] else "dev" if number < 1 - SHARES["test"] else "test"


def arrange(rows: Sequence[Row], counts: Counter[str]) -> dict[str, list[dict[str, object]]]:
    """Raw rows → the examples of each split, sorted by id. A group is named by the smallest id in it (lesson 03).

    Groups are made from all rows, also those without a label, so that another threshold would move no
    sentence to another split. Copies of a text become one example with their mean rating; if their labels
    differ, there is no telling which is right, and none is kept.
    """
    copies: dict[str, list[Row]] = defaultdict(list)
    known: dict[str, str] = {}  # a composed text → the id of its first encoding
    for row in sorted(rows, key=lambda row: row.text):
        copies[known.setdefault(composed(row.text), content_id(row.text))].append(row)
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


def arrange_records(
    rows: Iterable[dict[str, Any]], counts: Counter[str], test_only: bool
) -> dict[str, list[dict[str, Any]]]:
    """Rows of a reader → the rows of each split, sorted by id; rows with the same content, in any Unicode
    encoding, stand once (lesson 03).

    Near duplicates are not looked for: what must stay together is the reader's ``group``. With ``test_only`` all
    rows are the test split.
    """
    splits: dict[str, list[dict[str, Any]]] = {split: [] for split in SHARES}
    # composed content → the row; of several encodings that of the smallest id
    kept: dict[str, dict[str, Any]] = {}
    for row in rows:
        counts["rows read"] += 1
        content = {k: v for k, v in row.items() if k != "group"}
        key = content_id(json.dumps(content, sort_keys=True))
        same = composed(json.dumps(content, sort_keys=True, ensure_ascii=False))
        if same in kept:
            counts["copies of another row"] += 1
        if same not in kept or key < kept[same]["id"]:
            kept[same] = {"id": key} | row
    for row in kept.values():
        splits["test" if test_only else split_of(row["group"])].append(row)
    counts["groups"] = len({row["group"] for part in splits.values() for row in part})
    return {
        split: sorted(part, key=lambda row: row["id"])
        for split, part in splits.items()
        if part or not test_only
    }


def _spread(dataset: Dataset, ranks: Sequence[str]) -> list[int]:
    """Row numbers in an order whose every beginning has the label shares of the whole, within a row.

    Within a label, rows go by ``ranks``; rank k of m stands at (k + 1/2) / m, and the labels are merged by these places.
    """
    ranked: dict[int, list[tuple[str, int]]] = defaultdict(list)
    labels = dataset["label"] if "label" in dataset.column_names else [0] * len(dataset)
    for i, (rank, label) in enumerate(zip(ranks, labels, strict=True)):
        ranked[label].append((rank, i))
    order = []
    for rows in ranked.values():
        order += [((k + 0.5) / len(rows), rank, i) for k, (rank, i) in enumerate(sorted(rows))]
    return [i for _, _, i in sorted(order)]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _sized(n: int, most: int) -> None:
    if not isinstance(n, Integral) or isinstance(n, bool) or not 1 <= n <= most:
        raise DataError(f"n is {n!r}: choose an integer from 1 to {most}, the number of rows")


def subsample(dataset: Dataset, n: int, seed: int) -> Dataset:
    """``n`` rows with the label shares of ``dataset`` (up to rounding); n = 50 is contained in n = 200 (lesson 03).

    Where rows have no label, all count as one label. Within a label, rows are ranked by the SHA-256 of
    ``f"{seed}:{id}"``, so their order in ``dataset`` plays no part.
    Raises: DataError if ``n`` is no integer between 1 and the number of rows, or ``seed`` no integer: 1.0 and 1 are written
    differently, and would draw different rows.
    """
    _sized(n, len(dataset))
    if not isinstance(seed, Integral) or isinstance(seed, bool):
        raise DataError(f"the seed is {seed!r}: choose an integer")
    return dataset.select(_spread(dataset, [_digest(f"{seed}:{key}") for key in dataset["id"]])[:n])


def disjoint(dataset: Dataset, n: int, seed: int, seeds: int | Sequence[int]) -> Dataset:
    """``seed``'s own ``n`` rows of ``dataset``: no other seed gets one of them (lesson 03; the experiments' test items).

    ``seeds``: all seeds in a fixed order, or their number k for 0 … k - 1. Adding seeds at the end changes no earlier
    seed's rows; another ``n`` does. Label shares are those of ``dataset``, up to rounding (two rows at most).

    One order serves all seeds, by the hash of the group, then of the id, within a label (see ``_spread``): the i-th seed
    gets its i-th run of n rows. Rows of a group thus stand together, and few groups are shared by two seeds.
    Raises: DataError if ``n`` is no integer from 1, ``seed`` is not one of ``seeds``, or the rows do not suffice.
    """
    known = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    _sized(n, len(dataset))
    if seed not in known or len(set(known)) != len(known):
        raise DataError(f"seed {seed!r} is not one of the seeds {known}, each named once: name it there")
    if n * len(known) > len(dataset):
        raise DataError(
            f"{len(dataset)} rows cannot give {len(known)} seeds {n} rows each of their own: they suffice for "
            f"{len(dataset) // n} seeds, or for {len(dataset) // len(known)} rows a seed"
        )
    groups = dataset["group"] if "group" in dataset.column_names else dataset["id"]
    ranks = [_digest(f"own:{g}") + _digest(key) for g, key in zip(groups, dataset["id"], strict=True)]
    start = known.index(seed) * n
    return dataset.select(_spread(dataset, ranks)[start : start + n])
