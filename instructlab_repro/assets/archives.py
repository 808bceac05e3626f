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

from instructlab_repro.assets.pinned import Asset, Distribution, File, Tree, unsafe
from instructlab_utils.errors import AssetError

CHUNK = 1 << 20
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError)


def unpack(asset: Asset, source: Distribution, archive: Path, folder: Path) -> None:
    """Write the asset's files from ``archive`` into the new ``folder``, each verified against its pin, and nothing else.

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
            inner = folder.with_name("inner")
            for _, stream in _members(archive, lambda name: name == source.inner, place):
                _write(stream, inner, CHUNK << 12)
            if not inner.is_file():
                raise AssetError(f"{place} lacks {source.inner}; correct `inner` in data/assets.toml")
            archive, place = inner, f"{place} → {PurePosixPath(source.inner).name}"
        for name, stream in _members(archive, wanted, place):
            short = name.removeprefix(source.prefix)
            target = folder / short
            target.parent.mkdir(parents=True, exist_ok=True)
            found[short] = _write(stream, target, pinned.get(short, asset.tree.bytes if asset.tree else 0))
    except DAMAGED as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise AssetError(f"{place} is damaged ({why}); nothing was kept, use another source") from error
    for file in asset.files:
        if file.name not in found:
            raise AssetError(f"{place} lacks {file.name}; nothing was kept, correct data/assets.toml")
        _verify(f"{place}: {file.name} has", found.pop(file.name), file)
    if tree := asset.tree:
        lines = "".join(f"{digest}  {name}\n" for name, (_, digest) in sorted(found.items()))
        whole = sum(size for size, _ in found.values()), hashlib.sha256(lines.encode()).hexdigest()
        _verify(f"{place}: {tree.pattern} gives {len(found)} files,", whole, tree)


def _verify(what: str, got: tuple[int, str], pin: File | Tree) -> None:
    if got != (pin.bytes, pin.sha256):
        want, why = f"{pin.bytes} and {pin.sha256[:16]}…", "nothing was kept, correct data/assets.toml"
        raise AssetError(f"{what} {got[0]} bytes and SHA-256 {got[1][:16]}… instead of {want}; {why}")


def _matches(name: str, pattern: str) -> bool:
    """Whether a member's name fits a pattern, part by part: ``*`` never crosses a slash."""
    same_depth = len(PurePosixPath(name).parts) == len(PurePosixPath(pattern).parts)
    return same_depth and not unsafe(name) and PurePosixPath(name).match(pattern)


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

    def admits(name: str, regular: bool, folder: bool) -> bool:
        if why := unsafe(name):
            raise AssetError(f"{place}: the member {name!r} {why}; nothing was kept, use another source")
        if folder or not wanted(name):
            return False
        if not regular:
            raise AssetError(f"{place} holds a link or a device where a file is expected; nothing was kept")
        return True

    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as box:
            for info in box.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if admits(info.filename, kind in {0, stat.S_IFREG}, info.is_dir()):
                    with box.open(info) as stream:
                        yield info.filename, stream
        return
    with tarfile.open(archive) as ball:
        for member in ball:
            if admits(member.name, member.isreg(), member.isdir()):
                yield member.name, cast(IO[bytes], ball.extractfile(member))
