"""data/tasks.toml: one table for each task, read and checked once (lesson 03 has the first)."""

from __future__ import annotations

import functools
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from instructlab_utils import cache
from instructlab_utils.errors import ConfigError, DataError, sentence
from instructlab_utils.project import closest
from instructlab_utils.tasks.readers import READERS


@dataclass(frozen=True)
class TaskTable:
    """What data/tasks.toml says of a task (lesson 03); the head of that file explains every key."""

    kind: str
    reader: str
    asset: str
    files: tuple[str, ...]
    metric: str
    group: str
    about: str
    labels: tuple[str, ...] = ()
    test_only: bool = False
    problems: tuple[str, ...] = ()
    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.reader not in READERS:
            near = closest(self.reader, list(READERS)) or ";"
            raise ValueError(f"reader: there is no {self.reader!r}{near} known: {', '.join(READERS)}")
        gives = READERS[self.reader][0]
        if self.kind != gives:
            raise ValueError(
                f"kind: {self.kind!r}, but the reader {self.reader!r} gives {gives!r}; write that"
            )
        if bool(self.labels) != (gives == "classification"):
            raise ValueError("labels: name them for a classification, and for no other kind")
        if not self.files:
            raise ValueError("files: name one file of the asset, or more")

    @property
    def rated(self) -> bool:
        """True where people rated the texts, False where the source gives a label."""
        return self.reader.startswith("rated")

    @property
    def content(self) -> str:
        """What decides the examples, beside the files themselves."""
        return repr([asdict(self)[key] for key in ("reader", "labels", "test_only")])


@functools.lru_cache(maxsize=8)
def _parse(text: str, path: Path) -> tuple[dict[str, TaskTable], dict[str, dict[str, str]]]:
    from pydantic import TypeAdapter, ValidationError  # takes a tenth of a second

    try:
        whole = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML ({error}); mend that line") from error
    adapter, notes, found = TypeAdapter(TaskTable), TypeAdapter(dict[str, dict[str, str]]), {}
    for key in sorted({*whole, "task", "asset"}):
        if key not in ("task", "asset") or not isinstance(whole.get(key), dict):
            raise ConfigError(f"{path}: {key!r} is missing or unknown; write [task.NAME], [asset.NAME]")
    for name, row in whole["task"].items():
        try:
            found[name] = adapter.validate_python(row)
        except ValidationError as error:
            raise ConfigError(sentence(error, str(path), f"task.{name}.")) from error
    try:
        return found, notes.validate_python(whole["asset"])
    except ValidationError as error:
        raise ConfigError(sentence(error, str(path), "asset.")) from error


def tables() -> dict[str, TaskTable]:
    """Every task of data/tasks.toml by name (lesson 03). ConfigError, one sentence, at the first mistake in the file."""
    return _parse(*cache.data_file("tasks.toml"))[0]


def note(asset: str, what: str) -> str:
    """What data/tasks.toml notes of an asset, as on the cards of lesson 03: ``licence``, or whence the ``labels``."""
    text, path = cache.data_file("tasks.toml")
    try:
        return _parse(text, path)[1][asset][what]
    except KeyError:
        raise ConfigError(f"{path}: [asset.{asset}] has no {what!r}; add it for the data card") from None


def table(name: str) -> TaskTable:
    """The table of one task (lesson 03). DataError for an unknown name, with the nearest known one."""
    known = tables()
    if not isinstance(name, str) or name not in known:
        near = closest(str(name), list(known))
        raise DataError(f"unknown task {name!r}{near or ';'} the tasks are {', '.join(known)}")
    return known[name]


def raw_files(name: str) -> list[Path]:
    """The raw files of a task, sorted within a pattern (lesson 03).

    Raises: DataError for an unknown task or a file that is not there, AssetError for a missing asset.
    """
    task = table(name)
    folder, files = cache.folder(task.asset), []
    for pattern in task.files:
        if not (found := sorted(folder.glob(pattern))):
            raise DataError(
                f"no {pattern} in {folder}: run `python -m instructlab_utils fetch --only {task.asset}`"
            )
        files += found
    return files


def read(name: str, counts: Counter[str] | None = None) -> Iterator[Any]:
    """The rows of a task's raw files, cleaned (lesson 03). ``counts`` is told what was repaired or left out."""
    return READERS[table(name).reader][1](raw_files(name), Counter() if counts is None else counts)
