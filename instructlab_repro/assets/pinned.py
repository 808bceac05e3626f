"""What data/assets.toml pins: its entries as strict models, and the mistakes in it as one sentence."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path, PureWindowsPath
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from instructlab_repro.strict import Strict, sentence
from instructlab_utils import cache
from instructlab_utils.errors import ConfigError

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=0)]


class Distribution(Strict):
    """One distribution file of a package that holds the asset's files."""

    package: str
    version: str
    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*\.(whl|zip|tar\.gz|tgz)$")]
    sha256: Sha256
    bytes: Size
    prefix: str = ""
    inner: str = ""


class File(Strict):
    """One file to unpack: its name after the distribution's prefix, its size in bytes, its SHA-256."""

    name: str
    bytes: Size
    sha256: Sha256


class Tree(Strict):
    """Many small files: a pattern, their number, total size in bytes, and the SHA-256 of their listing."""

    pattern: str
    count: Annotated[int, Field(ge=1)]
    bytes: Size
    sha256: Sha256


class Convert(Strict):
    """A GGUF file that becomes a safetensors folder; the GGUF itself is not kept."""

    gguf: str
    dtype: Literal["bfloat16", "float16", "float32"]
    split_digits: bool = False
    tensors_sha256: Sha256


class Asset(Strict):
    """One entry of the catalogue."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    kind: Literal["model", "data"]
    title: str
    licence: str
    citation: str
    download_mb: Annotated[float, Field(gt=0, strict=False)]
    disk_mb: Annotated[float, Field(gt=0, strict=False)]
    sources: Annotated[tuple[Distribution, ...], Field(min_length=1, strict=False)]
    files: Annotated[tuple[File, ...], Field(strict=False)] = ()
    tree: Tree | None = None
    convert: Convert | None = None

    @model_validator(mode="after")
    def _coherent(self) -> Asset:
        names = [file.name for file in self.files]
        if not names and self.tree is None:
            raise ValueError("needs files or a tree")
        for name in names:
            if why := unsafe(name):
                raise ValueError(f"file name {name!r} {why}")
        if len(set(names)) != len(names):
            raise ValueError("a file is named twice")
        if self.convert and self.convert.gguf not in names:
            raise ValueError(f"convert.gguf {self.convert.gguf!r} is not among its files")
        return self

    @property
    def pin(self) -> str:
        """SHA-256 of everything that decides the content of the folder; sources and prose do not."""
        return cache.pin(self.model_dump(include={"files", "tree", "convert"}, mode="json"))


def unsafe(name: str) -> str:
    """Why an archive member of this name must not be unpacked, or an empty string."""
    windows = PureWindowsPath(name)
    if not name or "\0" in name:
        return "is empty or holds a null character"
    if windows.root or windows.drive:
        return "is an absolute path"
    return "climbs out of its folder" if ".." in windows.parts else ""


def catalogue() -> dict[str, Asset]:
    """The assets of data/assets.toml by name, in the file's order.

    Raises ConfigError, naming file and key, if it is missing, is not TOML, or has a wrong key or value.
    """
    return dict(_parse(*cache.data_file("assets.toml")))


@functools.lru_cache(maxsize=8)
def _parse(text: str, path: Path) -> dict[str, Asset]:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML ({error}); mend that line") from error
    unknown, rows = sorted(set(table) - {"asset"}), table.get("asset")
    if unknown or not isinstance(rows, list) or not rows:
        what = f"unknown table {unknown[0]!r}" if unknown else "no [[asset]] table"
        raise ConfigError(f"{path}: {what}; every entry is an [[asset]]")
    found: dict[str, Asset] = {}
    for number, row in enumerate(rows, 1):
        try:
            asset = Asset.model_validate(row)
        except ValidationError as error:
            name = row.get("name", number) if isinstance(row, dict) else number
            raise ConfigError(sentence(error, f"{path}: asset {name!r}")) from error
        if asset.name in found:
            raise ConfigError(f"{path}: asset {asset.name!r} stands there twice; rename or remove one")
        found[asset.name] = asset
    return found
