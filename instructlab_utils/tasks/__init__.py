"""Tasks with one schema, and splits that nobody can choose by their result (lesson 03).

``load("movie-sentiment")`` goes five steps: read the raw rows (readers.py, as data/tasks.toml says), give a label,
remove copies, group what must stay together, split by hash (splits.py).

Why by hash? A random split depends on the order of the rows and on the generator. The SHA-256 of the content
does not: a sentence lands in the same split on every machine and in every year. Why by group? Sentences of
one review share subject and author, and near duplicates share nearly everything. A test sentence whose
neighbour was trained on measures memory, not generalisation. What each task holds: data/cards/.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructlab_utils import cache
from instructlab_utils.errors import AssetError, ConfigError, DataError
from instructlab_utils.tasks.listing import TaskTable, note, raw_files, read, table, tables
from instructlab_utils.tasks.readers import Row
from instructlab_utils.tasks.splits import (
    CUT,
    JACCARD,
    SALT,
    SHARES,
    arrange,
    arrange_records,
    content_id,
    disjoint,
    near_duplicates,
    shingles,
    split_of,
    subsample,
)

if TYPE_CHECKING:
    from datasets import DatasetDict

__all__ = [
    "CUT",
    "JACCARD",
    "Row",
    "Task",
    "TaskTable",
    "asset_of",
    "content_id",
    "disjoint",
    "examples",
    "load",
    "names",
    "near_duplicates",
    "note",
    "read",
    "shingles",
    "split_of",
    "subsample",
    "table",
    "tables",
]
VERSION = "2"  # raise it when a change here makes other examples or splits from the same raw files


@dataclass(frozen=True)
class Task:
    """A task ready for training: what it is, where it comes from, and its three splits (lesson 03).

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


def names() -> list[str]:
    """The tasks that ``load`` knows (lesson 03)."""
    return list(tables())


def asset_of(name: str) -> str:
    """The asset that holds the raw files of a task (lesson 03)."""
    return table(name).asset


def load(name: str) -> Task:
    """The task with its splits: made once from the raw files, later read from ``cache.home()/tasks`` (lesson 03).

    Raises: DataError for an unknown task or a malformed raw file; AssetError if the raw files are not there.
    """
    told, files = table(name), raw_files(name)
    from datasets import DatasetDict  # after the check: a misspelt name should not wait for this import
    from filelock import FileLock

    pin = hashlib.sha256(f"{VERSION} {SALT} {SHARES} {CUT} {JACCARD} {told.content}".encode())
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
    pinned = cache.entry(told.asset)
    return Task(
        name=name,
        labels=told.labels or _bio_labels(splits),
        licence=pinned["licence"],
        source=pinned["citation"],
        assets=(told.asset,),
        thresholds={"negative": -CUT, "positive": CUT} if told.rated else {},
        counts=counts,
        splits=splits,
        kind=told.kind,
        metric=told.metric,
    )


def _bio_labels(splits: DatasetDict) -> tuple[str, ...]:
    """O, then B- and I- of every span type that occurs in the column ``tags``; empty where there is no such column."""
    tagged = [part["tags"] for part in splits.values() if "tags" in part.column_names]
    tags = {tag for column in tagged for row in column for tag in row}
    types = sorted({tag[2:] for tag in tags} - {""})
    return ("O", *(f"{mark}-{kind}" for kind in types for mark in "BI")) if types else ()


def examples(name: str, counts: Counter[str]) -> dict[str, list[dict[str, Any]]]:
    """The rows of each split, made from the raw files; ``counts`` is told what happened on the way (lesson 03).

    Raises: DataError as `load`, ConfigError where a file has a label that data/tasks.toml does not name.
    """
    told = table(name)
    if told.kind != "classification":
        return arrange_records(read(name, counts), counts, told.test_only)
    found = arrange(list(read(name, counts)), counts)
    for label in {str(row["label"]) for rows in found.values() for row in rows} - {*told.labels}:
        raise ConfigError(f"data/tasks.toml: task.{name}.labels: the files hold {label!r}; name it there")
    return found


def _store(name: str, stored: Path) -> None:
    """Build the splits in a folder beside ``stored`` and move it there in one step."""
    import datasets
    from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

    counts: Counter[str] = Counter()
    made = examples(name, counts)
    string, texts = Value("string"), List(Value("string"))
    kinds: dict[str, Any] = dict.fromkeys(("answers", "tokens", "tags", "targets", "options"), texts)
    kinds |= {"starts": List(Value("int64")), "triples": List(texts), "rating": Value("float64")}
    kinds["answer"] = Value("int64")
    if labels := table(name).labels:
        kinds["label"] = ClassLabel(names=list(labels))
    for split, rows in made.items():
        if not rows:
            raise DataError(f"{name}: no text falls into {split}; raw files are too small, fetch the asset")
    columns = next(iter(made.values()))[0]
    features = Features({column: kinds.get(column, string) for column in columns})
    splits = DatasetDict({split: Dataset.from_list(rows, features) for split, rows in made.items()})
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
