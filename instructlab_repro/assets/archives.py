"""Safe unpacking: every name in an archive is checked, and only what the catalogue pins is written."""

from __future__ import annotations

import gzip
import hashlib
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, cast

from instructlab_repro.assets.pinned import Asset, Distribution, unsafe
from instructlab_utils.errors import AssetError

CHUNK = 1 << 20
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError)


def unpack(asset: Asset, source: Distribution, archive: Path, folder: Path) -> None:
    """Write the asset's files from ``archive`` into the new ``folder``, each verified against its pin.

    Links, devices and members that the catalogue does not list are never written.

    Raises AssetError if the archive is damaged or unsafe, or a file is missing or not the pinned one.
    """
    place = f"asset {asset.name!r}: {archive.name}"
    folder.mkdir(parents=True)
    pinned = {file.name: file.bytes for file in asset.files}
    found: dict[str, tuple[int, str]] = {}

    def wanted(name: str) -> bool:
        short = name.removeprefix(source.prefix)
        listed = short in pinned or (asset.tree is not None and _matches(short, asset.tree.pattern))
        return listed and name.startswith(source.prefix)

    try:
        if source.inner:
            box = folder.with_name("inner")
            for _, stream in _members(archive, lambda name: name == source.inner, place):
                _write(stream, box, CHUNK << 12)
            if not box.is_file():
                raise AssetError(f"{place} lacks {source.inner}; correct `inner` in data/assets.toml")
            archive, place = box, f"{place} → {PurePosixPath(source.inner).name}"
        for name, stream in _members(archive, wanted, place):
            short = name.removeprefix(source.prefix)
            target = folder.joinpath(*PurePosixPath(short).parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            found[short] = _write(stream, target, pinned.get(short, asset.tree.bytes if asset.tree else 0))
    except DAMAGED as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise AssetError(f"{place} is damaged ({why}); nothing was kept, use another source") from error
    _verify(asset, found, place)


def _verify(asset: Asset, found: dict[str, tuple[int, str]], place: str) -> None:
    """Compare sizes and hashes of what was unpacked with the pins: each file's, and the tree's as a whole."""
    checks = [
        (f"{file.name} has", found.pop(file.name, None), (file.bytes, file.sha256)) for file in asset.files
    ]
    if tree := asset.tree:
        lines = "".join(f"{digest}  {name}\n" for name, (_, digest) in sorted(found.items()))
        whole = sum(size for size, _ in found.values()), hashlib.sha256(lines.encode()).hexdigest()
        checks.append((f"{tree.pattern} gives {len(found)} files,", whole, (tree.bytes, tree.sha256)))
    for what, got, pin in checks:
        if got is None:
            raise AssetError(f"{place} lacks {what[:-4]}; nothing was kept, correct data/assets.toml")
        if got != pin:
            raise AssetError(
                f"{place}: {what} {got[0]} bytes and SHA-256 {got[1][:16]}… instead of {pin[0]} and {pin[1][:16]}…; "
                "nothing was kept, correct data/assets.toml"
            )


def _matches(name: str, pattern: str) -> bool:
    """Whether a member's name fits a pattern, part by part: ``*`` never crosses a slash."""
    same_depth = len(PurePosixPath(name).parts) == len(PurePosixPath(pattern).parts)
    return same_depth and PurePosixPath(name).match(pattern)


def _write(stream: IO[bytes], target: Path, limit: int) -> tuple[int, str]:
    """Copy the stream, stopping soon after ``limit`` bytes; returns the bytes written and their SHA-256."""
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as out:
        while size <= limit and (block := stream.read(CHUNK)):
            out.write(block)
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def _members(archive: Path, wanted: Callable[[str], bool], place: str) -> Iterator[tuple[str, IO[bytes]]]:
    """The wanted regular files of a zip or tar archive, one at a time: name, open stream."""

    def check(name: str) -> None:
        if why := unsafe(name):
            raise AssetError(f"{place}: the member {name!r} {why}; nothing was kept, use another source")

    link = AssetError(f"{place} holds a link or a device where a file is expected; nothing was kept")
    with archive.open("rb") as start:
        is_zip = start.read(4) == b"PK\x03\x04"
    if is_zip:
        with zipfile.ZipFile(archive) as box:
            for info in box.infolist():
                check(info.filename)
                if not info.is_dir() and wanted(info.filename):
                    if stat.S_IFMT(info.external_attr >> 16) not in {0, stat.S_IFREG}:
                        raise link
                    with box.open(info) as stream:
                        yield info.filename, stream
        return
    with tarfile.open(archive) as ball:
        for member in ball:
            check(member.name)
            if not member.isdir() and wanted(member.name):
                if not member.isreg():
                    raise link
                member = tarfile.data_filter(member, str(archive.parent))
                yield member.name, cast(IO[bytes], ball.extractfile(member))
