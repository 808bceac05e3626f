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
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructlab_utils import cache
from instructlab_utils.errors import AssetError, DataError
from instructlab_utils.tasks.records import RECORDS
from instructlab_utils.tasks.sources import SOURCES, raw_files, read
from instructlab_utils.tasks.splits import (
    CUT,
    JACCARD,
    SALT,
    SHARES,
    arrange,
    arrange_records,
    components,
    content_id,
    disjoint,
    label_of,
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
    "SALT",
    "SHARES",
    "Task",
    "arrange",
    "asset_of",
    "components",
    "content_id",
    "disjoint",
    "label_of",
    "load",
    "names",
    "near_duplicates",
    "shingles",
    "split_of",
    "subsample",
]

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
        task = RECORDS[name]
        examples = arrange_records(task.read(raw_files(name), counts), counts, task.test_only)
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
