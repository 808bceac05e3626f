"""The folder of fetched models and data: where it is, and whether an asset in it is the one that data/assets.toml pins.

Fetching is the engine's work (``python -m instructlab_utils fetch``); a lesson only reads. From lesson 00 on.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instructlab_utils.errors import AssetError, ConfigError
from instructlab_utils.project import clone, closest, find_root, text_of

STAMP = ".ok"  # JSON beside the files: their pin, sizes and SHA-256
SCHEMA = 1


def home() -> Path:
    """The cache folder, which need not exist yet: INSTRUCTLAB_HOME, else .cache, relative to the root; outside a clone
    ~/.cache/instructlab."""
    folder, root = os.environ.get("INSTRUCTLAB_HOME"), clone()
    default = ".cache" if root else "~/.cache/instructlab"
    return ((root or Path.cwd()) / Path(folder or default).expanduser()).resolve()


def data_file(name: str) -> tuple[str, Path]:
    """The text of a file in data/ (outside a clone: of the installed package's copy), and its path.

    ConfigError where it cannot be read.
    """
    root = clone()
    path = root / "data" / name if root else _shipped(name)
    try:
        return text_of(path), path
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); restore it from the repository"
        ) from error


def _shipped(name: str) -> Path:
    from importlib.metadata import PackageNotFoundError, files

    try:
        installed = files("instructlab-utils") or []
    except PackageNotFoundError:
        installed = []
    found = [file for file in installed if file.parts[-3:] == ("share", "instructlab", name)]
    return Path(str(found[0].locate())) if found else find_root() / name  # which says what is missing


@functools.lru_cache(maxsize=8)
def _entries(text: str, path: Path) -> dict[str, dict[str, Any]]:
    try:
        return {entry["name"]: entry for entry in tomllib.loads(text)["asset"]}
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not a catalogue of assets ({error}); mend that line") from error


def entry(name: str) -> dict[str, Any]:
    """What data/assets.toml says of an asset. AssetError for an unknown name."""
    known = _entries(*data_file("assets.toml"))
    if name not in known:
        raise AssetError(
            f"no asset named {name!r}{closest(name, list(known)) or ';'} known: {', '.join(known)}"
        )
    return known[name]


def pin(entry: Mapping[str, Any]) -> str:
    """SHA-256 of everything that decides the content of an asset's folder; sources and prose do not."""
    convert = entry.get("convert")
    parts = {
        "files": [dict(file) for file in entry.get("files") or ()],
        "tree": entry.get("tree"),
        "convert": None if convert is None else {"split_digits": False, **convert},
    }
    return hashlib.sha256(json.dumps([SCHEMA, parts], sort_keys=True).encode()).hexdigest()


def place(name: str) -> Path:
    """Where an asset's folder is, or will be."""
    return home() / "assets" / name


def wrong(name: str, *, deep: bool) -> str:
    """Why the asset's folder cannot be used, or an empty string; ``deep`` compares each file's SHA-256 too."""
    folder = place(name)
    if not folder.is_dir():
        return f"is not in {home()}"
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        stamped, files = stamp["pin"], dict(stamp["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"in {folder} has no readable stamp {STAMP}"
    if stamped != pin(entry(name)):
        return f"in {folder} was fetched for another pin of data/assets.toml"
    for file, facts in files.items():
        try:
            size = (folder / file).stat().st_size
        except OSError:
            return f"in {folder} lacks its file {file}"
        if size != facts["bytes"]:
            return f"in {folder} is damaged: {file} has {size} bytes instead of {facts['bytes']}"
        if deep and file_sha256(folder / file) != facts["sha256"]:
            return f"in {folder} is damaged: {file} has another SHA-256 than when it was fetched"
    return ""


def folder(name: str) -> Path:
    """The folder of a fetched asset, after a look at the presence and size of each of its files.

    Raises AssetError if the name is unknown, or if the asset is absent, damaged, or of an older pin.
    """
    entry(name)
    if why := wrong(name, deep=False):
        raise AssetError(f"asset {name!r} {why}; run `python -m instructlab_utils fetch --only {name}`")
    return place(name)


def file_sha256(file: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
