"""Pinned models and data: read data/assets.toml, fetch what is missing, verify it, say where it lies.

A fetched asset is a folder ``home()/assets/<name>``. Beside the files it holds ``.ok``, a JSON stamp with the pin that
it was made from and the size and SHA-256 of every file. The folder is put together in ``home()/staging`` and moved into place by
one rename, so a folder with a stamp is whole. A download that was cut off stays in ``home()/downloads`` and is
continued. No code of a fetched package is run, nothing is unpickled, and only the files named in the catalogue are unpacked.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import io
import json
import os
import re
import shutil
import struct
import sys
import tarfile
import time
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Annotated, Any, Literal
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from instructlab_utils.errors import AssetError, ConfigError
from instructlab_utils.session import closest, find_root

CHUNK = 1 << 20
STAMP = ".ok"
STAMP_SCHEMA = 1
ATTEMPTS = 4
FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
SLACK = 1 << 20  # bytes left free beside what an asset needs: the stamp, configuration files, the tokenizer

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=0)]


# ---------------------------------------------------------------------------------------------------------- catalogue


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Source(_Strict):
    """One distribution file that holds the asset's files."""

    package: str
    version: str
    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*\.(whl|zip|tar\.gz|tgz)$")]
    sha256: Sha256
    bytes: Size
    prefix: str = ""
    inner: str = ""


class File(_Strict):
    """One file to unpack: its name after the source's prefix, its size in bytes, its SHA-256."""

    name: str
    bytes: Size
    sha256: Sha256


class Tree(_Strict):
    """Many small files: a pattern, their number, their total size in bytes, and the SHA-256 of their listing."""

    pattern: str
    count: Annotated[int, Field(ge=1)]
    bytes: Size
    sha256: Sha256


class Convert(_Strict):
    """A GGUF file that becomes a safetensors folder; the GGUF itself is not kept."""

    gguf: str
    dtype: Literal["bfloat16", "float16", "float32"]
    split_digits: bool = False
    tensors_sha256: Sha256


class Asset(_Strict):
    """One entry of the catalogue."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    kind: Literal["model", "data"]
    title: str
    licence: str
    citation: str
    download_mb: Annotated[float, Field(gt=0, strict=False)]
    disk_mb: Annotated[float, Field(gt=0, strict=False)]
    sources: Annotated[tuple[Source, ...], Field(min_length=1, strict=False)]
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
        parts = self.model_dump(include={"files", "tree", "convert"}, mode="json")
        return hashlib.sha256(json.dumps([STAMP_SCHEMA, parts], sort_keys=True).encode()).hexdigest()

    @property
    def unpacked_bytes(self) -> int:
        """Bytes that the unpacked files take."""
        return sum(file.bytes for file in self.files) + (self.tree.bytes if self.tree else 0)


def catalogue_path() -> Path:
    """The file data/assets.toml of this project."""
    return find_root() / "data" / "assets.toml"


def catalogue() -> dict[str, Asset]:
    """The assets of data/assets.toml by name, in the file's order.

    Raises ConfigError, naming the file and the key, if the file is missing, is not TOML, or has a wrong key or value.
    """
    path = catalogue_path()
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); restore it from the repository"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    return dict(_parse(text, str(path)))


@functools.lru_cache(maxsize=8)
def _parse(text: str, path: str) -> dict[str, Asset]:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML ({error}); mend that line") from error
    unknown = sorted(set(table) - {"asset"})
    rows = table.get("asset")
    if unknown or not isinstance(rows, list) or not rows:
        what = f"unknown table {unknown[0]!r}" if unknown else "no [[asset]] table"
        raise ConfigError(f"{path}: {what}; every entry is an [[asset]]")
    found: dict[str, Asset] = {}
    for number, row in enumerate(rows, 1):
        name = row.get("name", f"number {number}") if isinstance(row, dict) else f"number {number}"
        try:
            asset = Asset.model_validate(row)
        except ValidationError as error:
            raise ConfigError(f"{path}: asset {name!r}: {_explain(error)}") from error
        if asset.name in found:
            raise ConfigError(f"{path}: asset {asset.name!r} stands there twice; rename or remove one")
        found[asset.name] = asset
    return found


def _explain(error: ValidationError) -> str:
    """The first complaint of a validation as one phrase: the key, what is wrong, what to do."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part + 1 if isinstance(part, int) else part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}; remove it or correct its name"
    if first["type"] == "missing":
        return f"key {key!r} is missing; add it"
    message = first["msg"].removeprefix("Value error, ")
    return f"{key}: {message[0].lower()}{message[1:]}" if key else message


def _find(name: str) -> Asset:
    known = catalogue()
    if name not in known:
        near = closest(name, list(known))
        raise AssetError(f"no asset named {name!r}{near or ';'} known: {', '.join(known)}")
    return known[name]


# ------------------------------------------------------------------------------------------------ where things lie


def home() -> Path:
    """The cache folder: INSTRUCTLAB_HOME, else .cache in the project's root. It need not exist yet."""
    folder = os.environ.get("INSTRUCTLAB_HOME")
    return Path(folder).expanduser().resolve() if folder else find_root() / ".cache"


def path(name: str) -> Path:
    """The folder of a fetched asset, after a look at the presence and size of each of its files.

    Raises AssetError if the name is unknown, or if the asset is absent, damaged, or of an older pin.
    """
    asset = _find(name)
    if why := _wrong(asset, deep=False):
        raise AssetError(f"asset {name!r} {why}; run `python -m instructlab_utils fetch --only {name}`")
    return _folder(name)


def _folder(name: str) -> Path:
    return home() / "assets" / name


def _wrong(asset: Asset, *, deep: bool) -> str:
    """Why the asset's folder cannot be used, or an empty string. ``deep`` reads every file and compares its SHA-256."""
    folder = _folder(asset.name)
    if not folder.is_dir():
        return f"is not in {home()}"
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        pin, files = stamp["pin"], dict(stamp["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"in {folder} has no readable stamp {STAMP}"
    if pin != asset.pin:
        return f"in {folder} was fetched for another pin of data/assets.toml"
    for name, facts in files.items():
        file = folder / name
        try:
            size = file.stat().st_size
        except OSError:
            return f"in {folder} lacks its file {name}"
        if size != facts["bytes"]:
            return f"in {folder} is damaged: {name} has {size} bytes instead of {facts['bytes']}"
        if deep and file_sha256(file) != facts["sha256"]:
            return f"in {folder} is damaged: {name} has another SHA-256 than when it was fetched"
    return ""


def file_sha256(file: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def unsafe(name: str) -> str:
    """Why an archive member of this name must not be unpacked, or an empty string."""
    windows = PureWindowsPath(name)
    if not name or "\0" in name:
        return "is empty or holds a null character"
    if name.startswith(("/", "\\")) or windows.drive:
        return "is an absolute path"
    if ".." in windows.parts:
        return "climbs out of its folder"
    return ""


# ------------------------------------------------------------------------------------------------------------- fetch


def fetch(
    names: list[str] | None = None, *, progress: bool = True, index: str | None = None
) -> dict[str, Path]:
    """Bring the named assets (None: all of the catalogue) into the cache and return their folders.

    What is there and verifies is left alone, without any network. ``index`` is the address of a simple package index, or a
    folder or file:// address that holds the distribution files; default: INSTRUCTLAB_INDEX, else PIP_INDEX_URL, else the
    public index. PIP_CERT and REQUESTS_CA_BUNDLE are honoured.

    Raises AssetError if a name is unknown, a download fails or has another hash, an archive is unsafe, or the disk is full.
    """
    wanted = list(catalogue()) if names is None else list(dict.fromkeys(names))
    assets = [_find(name) for name in wanted]
    index = index or os.environ.get("INSTRUCTLAB_INDEX") or os.environ.get("PIP_INDEX_URL") or ""
    return {asset.name: _fetch_one(asset, index, progress) for asset in assets}


def _fetch_one(asset: Asset, index: str, progress: bool) -> Path:
    if not _wrong(asset, deep=True):
        return _folder(asset.name)
    staging, downloads = home() / "staging" / asset.name, home() / "downloads" / asset.name
    try:
        with _lock(asset.name):
            if not _wrong(asset, deep=True):  # another process has fetched it while this one waited
                return _folder(asset.name)
            _remove(staging)
            _need_space(asset, downloads)
            try:
                _assemble(asset, index, staging, downloads, progress)
                _move_into_place(staging / "new", _folder(asset.name), staging / "old")
                _remove(downloads)
            except OSError as error:
                if error.errno in FULL:
                    _remove(downloads)
                raise
            finally:
                _remove(staging)
    except OSError as error:
        raise _said(error, asset) from error
    return _folder(asset.name)


def _assemble(asset: Asset, index: str, staging: Path, downloads: Path, progress: bool) -> None:
    """Build the whole asset, stamp included, in ``staging / "new"``, from the first source that works."""
    new = staging / "new"
    failures: list[AssetError] = []
    for source in asset.sources:
        try:
            archive = _download(asset, source, index, downloads, progress)
            _remove(new)
            unpack(asset, source, archive, new, staging / "inner")
            break
        except AssetError as error:
            failures.append(error)
    else:
        raise failures[0]
    made_with = {}
    if asset.convert:
        made_with = convert(asset.name, asset.convert, new, progress)
    stamp = {"schema": STAMP_SCHEMA, "name": asset.name, "pin": asset.pin, "made_with": made_with}
    stamp["files"] = {
        file.relative_to(new).as_posix(): {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
        for file in sorted(new.rglob("*"))
        if file.is_file()
    }
    (new / STAMP).write_text(json.dumps(stamp, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _move_into_place(new: Path, folder: Path, old: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(new, folder)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


@contextlib.contextmanager
def _lock(name: str) -> Iterator[None]:
    from filelock import FileLock, Timeout

    file = home() / "locks" / f"{name}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"waiting for another process that fetches {name!r} …", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _need_space(asset: Asset, downloads: Path) -> None:
    """AssetError before anything is written, if the disk cannot hold the download and what becomes of it."""
    converted = int(asset.disk_mb * 1e6) if asset.convert else 0
    need = max(source.bytes for source in asset.sources) + asset.unpacked_bytes + converted + SLACK
    have = sum(file.stat().st_size for file in downloads.glob("*")) if downloads.is_dir() else 0
    if (free := shutil.disk_usage(home()).free) < need - have:
        raise _disk_full(asset.name, need - have, free)


def _disk_full(name: str, need: int, free: int) -> AssetError:
    return AssetError(
        f"disk full: asset {name!r} needs {need:,} bytes and {home()} has {free:,} free; "
        "free some space or set INSTRUCTLAB_HOME to a folder on another disk"
    )


def _said(error: OSError, asset: Asset) -> AssetError:
    """An error of the file system as one sentence."""
    if error.errno in FULL:
        need = max(source.bytes for source in asset.sources) + asset.unpacked_bytes + SLACK
        need += int(asset.disk_mb * 1e6) if asset.convert else 0
        return _disk_full(asset.name, need, shutil.disk_usage(home()).free)
    where = error.filename or home()
    why = error.strerror or error
    return AssetError(
        f"asset {asset.name!r} cannot be written: {where}: {why}; mend that or set INSTRUCTLAB_HOME"
    )


# ---------------------------------------------------------------------------------------------------------- download


def _download(asset: Asset, source: Source, index: str, folder: Path, progress: bool) -> Path:
    """The verified distribution file of ``source`` in ``folder``; an earlier part of it is continued.

    Raises AssetError if no index can be reached, the file is not there, is cut off, or has another SHA-256.
    """
    done, part = folder / source.file, folder / f"{source.file}.part"
    if done.is_file() and done.stat().st_size == source.bytes and file_sha256(done) == source.sha256:
        return done
    done.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    local = _local_folder(index)
    resumed = part.is_file() and part.stat().st_size > 0
    for _ in range(2):
        with _bar(asset.name, source.bytes, progress) as advance:
            if local is None:
                _stream(asset, source, index, part, advance)
            else:
                _copy(asset, source, local, part, advance)
        have, digest = part.stat().st_size, file_sha256(part)
        if (have, digest) == (source.bytes, source.sha256):
            os.replace(part, done)
            return done
        part.unlink()
        if not resumed:
            break
        resumed = False  # the kept part may have been the damaged one: once more from the start
    if have != source.bytes:
        raise AssetError(
            f"asset {asset.name!r}: the download of {source.file} has {have} bytes instead of {source.bytes}; "
            "it was deleted, run fetch again or use another index"
        )
    raise AssetError(
        f"asset {asset.name!r}: {source.file} has SHA-256 {digest[:16]}… instead of {source.sha256[:16]}…; "
        "it was deleted, use an index that serves the pinned file"
    )


def _local_folder(index: str) -> Path | None:
    """The folder that a file:// address or a plain path means; None for an address on the network."""
    scheme = urlsplit(index).scheme
    if scheme == "file":
        return Path(url2pathname(urlsplit(index).path))
    if index and (len(scheme) <= 1 or "://" not in index):  # a one-letter scheme is a Windows drive
        return Path(index)
    return None


def _copy(asset: Asset, source: Source, folder: Path, part: Path, advance: Callable[[int], Any]) -> None:
    project = re.sub(r"[-_.]+", "-", source.package).lower()
    places = [folder / source.file, folder / project / source.file]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise AssetError(
            f"asset {asset.name!r}: {source.file} is not in {folder}; put it there or use another index"
        )
    with found.open("rb") as stream, part.open("wb") as out:
        while block := stream.read(CHUNK):
            out.write(block)
            advance(len(block))


def _stream(asset: Asset, source: Source, index: str, part: Path, advance: Callable[[int], Any]) -> None:
    """Download over HTTP into ``part``, going on from what it holds, with a few attempts when the line breaks."""
    import requests
    from pypi_simple import PYPI_SIMPLE_ENDPOINT, NoSuchProjectError, PyPISimple

    with requests.Session() as session:
        session.verify = os.environ.get("PIP_CERT") or True
        client = PyPISimple(index or PYPI_SIMPLE_ENDPOINT, session=session)
        reason = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(0.25 * 2**attempt)
            try:
                page = client.get_project_page(source.package, timeout=(10, 60))
                found = next((file for file in page.packages if file.filename == source.file), None)
                if found is None:
                    raise AssetError(
                        f"asset {asset.name!r}: the index {_public(client.endpoint)} has no {source.file}; use another index"
                    )
                offered = found.digests.get("sha256", source.sha256)
                if offered != source.sha256:
                    raise AssetError(
                        f"asset {asset.name!r}: the index offers {source.file} with SHA-256 {offered[:16]}… instead of "
                        f"{source.sha256[:16]}…; use an index that serves the pinned file"
                    )
                if _receive(session, found.url, source, part, advance):
                    return
                reason = "the connection closed early"
            except NoSuchProjectError as error:
                raise AssetError(
                    f"asset {asset.name!r}: the index {_public(client.endpoint)} has no package {source.package}; use another index"
                ) from error
            except requests.HTTPError as error:
                status = error.response.status_code if error.response is not None else 0
                reason = f"HTTP {status}"
                if 400 <= status < 500 and status not in {408, 429}:
                    break
            except (requests.RequestException, ValueError) as error:
                reason = _root_cause(error)
                if isinstance(error, requests.ConnectionError) and not part.exists() and attempt:
                    break  # nothing ever came: there is no network, more patience does not help
    have = part.stat().st_size if part.exists() else 0
    if have:
        raise AssetError(
            f"asset {asset.name!r}: the download of {source.file} stopped at {have} of {source.bytes} bytes ({reason}); "
            "run fetch again, it goes on from there"
        )
    raise AssetError(
        f"asset {asset.name!r} is not in {home()} and the index {_public(client.endpoint)} cannot be reached ({reason}); "
        f"connect to a network, or set INSTRUCTLAB_INDEX to a folder that holds {source.file}"
    )


def _receive(session: Any, url: str, source: Source, part: Path, advance: Callable[[int], Any]) -> bool:
    """One request, appended to ``part`` if the server honours Range. True when the file has its full size."""
    have = part.stat().st_size if part.exists() else 0
    if have >= source.bytes:
        return True
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with session.get(url, stream=True, timeout=(10, 60), headers=headers) as response:
        if response.status_code == 416:
            part.unlink()
            return False
        response.raise_for_status()
        goes_on = response.status_code == 206 and response.headers.get("Content-Range", "").startswith(
            f"bytes {have}-"
        )
        if goes_on:
            advance(have)
        with part.open("ab" if goes_on else "wb") as out:
            for block in response.iter_content(CHUNK >> 2):
                out.write(block)
                advance(len(block))
                if out.tell() > source.bytes:
                    break  # longer than the pin: the hash check refuses it
    return part.stat().st_size >= source.bytes


@contextlib.contextmanager
def _bar(name: str, total: int, progress: bool) -> Iterator[Callable[[int], Any]]:
    from tqdm import tqdm

    with tqdm(
        total=total, desc=name, unit="B", unit_scale=True, disable=not progress, file=sys.stderr
    ) as bar:
        yield bar.update


def _public(url: str) -> str:
    """The address without user name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _root_cause(error: BaseException) -> str:
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return unquote(str(text)).splitlines()[0][:120]


# ------------------------------------------------------------------------------------------------------------ unpack


def unpack(asset: Asset, source: Source, archive: Path, folder: Path, scratch: Path) -> None:
    """Write the asset's files from ``archive`` into the new ``folder``, each verified against its pin.

    Names in the archive are checked before anything else; links, devices and members that are not in the catalogue are
    never written. ``scratch`` is a file name for an archive inside the archive.

    Raises AssetError if the archive is damaged or unsafe, or a file is missing or has another size or SHA-256.
    """
    place = f"asset {asset.name!r}: {archive.name}"
    folder.mkdir(parents=True)
    try:
        if source.inner:
            for name, _, stream in _members(archive, lambda name: name == source.inner, place):
                with scratch.open("wb") as out:
                    shutil.copyfileobj(stream, out, CHUNK)
            if not scratch.is_file():
                raise AssetError(f"{place} lacks {source.inner}; correct `inner` in data/assets.toml")
            archive, place = scratch, f"{place} → {PurePosixPath(source.inner).name}"
        pinned = {file.name: file for file in asset.files}
        listing: dict[str, tuple[int, str]] = {}

        def wanted(name: str) -> bool:
            if not name.startswith(source.prefix):
                return False
            short = name.removeprefix(source.prefix)
            return short in pinned or (asset.tree is not None and matches(short, asset.tree.pattern))

        for name, size, stream in _members(archive, wanted, place):
            short = name.removeprefix(source.prefix)
            limit = pinned[short].bytes if short in pinned else asset.tree.bytes if asset.tree else 0
            if size > limit:
                raise AssetError(f"{place}: {name} has {size} bytes instead of {limit}; nothing was kept")
            target = folder.joinpath(*PurePosixPath(short).parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            listing[short] = _write(stream, target, limit)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError) as error:
        raise AssetError(f"{place} is damaged ({error}); nothing was kept, run fetch again") from error
    _compare(asset, listing, place)


def _write(stream: IO[bytes], target: Path, limit: int) -> tuple[int, str]:
    """Copy at most a little more than ``limit`` bytes; the number of bytes and their SHA-256."""
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as out:
        while size <= limit and (block := stream.read(CHUNK)):
            out.write(block)
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def _compare(asset: Asset, listing: dict[str, tuple[int, str]], place: str) -> None:
    for file in asset.files:
        if file.name not in listing:
            raise AssetError(f"{place} lacks {file.name}; correct data/assets.toml")
        size, digest = listing[file.name]
        if (size, digest) != (file.bytes, file.sha256):
            raise AssetError(
                f"{place}: {file.name} has {size} bytes and SHA-256 {digest[:16]}… instead of {file.bytes} bytes and "
                f"{file.sha256[:16]}…; nothing was kept"
            )
    if asset.tree:
        names = sorted(set(listing) - {file.name for file in asset.files})
        total = sum(listing[name][0] for name in names)
        lines = "".join(f"{listing[name][1]}  {name}\n" for name in names)
        found = (len(names), total, hashlib.sha256(lines.encode()).hexdigest())
        if found != (asset.tree.count, asset.tree.bytes, asset.tree.sha256):
            raise AssetError(
                f"{place}: {asset.tree.pattern} gives {found[0]} files, {found[1]} bytes, SHA-256 {found[2][:16]}… instead of "
                f"{asset.tree.count}, {asset.tree.bytes}, {asset.tree.sha256[:16]}…; nothing was kept"
            )


def matches(name: str, pattern: str) -> bool:
    """Whether a member name fits a pattern, part by part: ``*`` never crosses a slash."""
    parts = PurePosixPath(name).parts
    return len(parts) == len(PurePosixPath(pattern).parts) and PurePosixPath(name).match(pattern)


def _members(
    archive: Path, wanted: Callable[[str], bool], place: str
) -> Iterator[tuple[str, int, IO[bytes]]]:
    """The wanted regular files of a zip or tar archive, one at a time: name, declared size in bytes, open stream."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as box:
            for info in box.infolist():
                _refuse(info.filename, place)
            for info in box.infolist():
                if info.is_dir() or not wanted(info.filename):
                    continue
                if (info.external_attr >> 16) & 0o170000 not in {0, 0o100000}:
                    raise AssetError(f"{place}: {info.filename} is a link or a device; nothing was kept")
                with box.open(info) as stream:
                    yield info.filename, info.file_size, stream
        return
    with tarfile.open(archive) as ball:
        for member in ball:
            _refuse(member.name, place)
            if member.isdir() or not wanted(member.name):
                continue
            if not member.isreg():
                raise AssetError(f"{place}: {member.name} is a link or a device; nothing was kept")
            tarfile.data_filter(member, str(archive.parent))
            stream = ball.extractfile(member)
            assert stream is not None  # a regular file always has one
            yield member.name, member.size, stream


def _refuse(name: str, place: str) -> None:
    if why := unsafe(name):
        raise AssetError(f"{place}: the member {name!r} {why}; nothing was kept")


# ----------------------------------------------------------------------------------------------------------- convert


def convert(name: str, recipe: Convert, folder: Path, progress: bool = True) -> dict[str, str]:
    """Turn the GGUF file in ``folder`` into plain safetensors, configuration and tokenizer; delete the GGUF.

    The weights are de-quantised in float32 and rounded once to ``recipe.dtype``. Returns the versions of what did it.
    Raises AssetError if the weights are not the pinned ones.
    """
    import torch
    import transformers

    gguf = folder / recipe.gguf
    if progress:
        print(f"{name}: converting {recipe.gguf} to safetensors (once) …", file=sys.stderr)
    quiet = transformers.utils.logging
    bars = quiet.is_progress_bar_enabled()
    quiet.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            options = {"gguf_file": recipe.gguf, "local_files_only": True}
            model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
            model = model.to(getattr(torch, recipe.dtype))
            # transformers marks the model as quantised and refuses to save it; it is not any more
            model.hf_quantizer = None
            if hasattr(model.config, "quantization_config"):
                del model.config.quantization_config
            if recipe.split_digits:
                from tokenizers import pre_tokenizers

                rules = [
                    pre_tokenizers.Digits(individual_digits=True),
                    tokenizer.backend_tokenizer.pre_tokenizer,
                ]
                tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(rules)
            tokenizer.model_max_length = model.config.max_position_embeddings
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except Exception as error:
        # safetensors reports a full disk as its own error, with the number in the text
        number = re.search(r"os error (\d+)", str(error))
        if number and int(number[1]) in FULL:
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(folder)) from error
        raise
    finally:
        if bars:
            quiet.enable_progress_bar()
    gguf.unlink()
    made_with = {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__}
    digest = tensors_sha256(folder / "model.safetensors")
    if digest != recipe.tensors_sha256:
        versions = ", ".join(f"{package} {version}" for package, version in made_with.items())
        raise AssetError(
            f"asset {name!r}: the converted weights have tensors_sha256 {digest} ({versions}), which is not the pinned one; "
            "install the versions of requirements.lock"
        )
    return made_with


def tensors_sha256(file: Path) -> str:
    """SHA-256 of the tensors of a safetensors file: sorted lines ``name dtype shape``, each followed by the tensor's bytes.

    Unlike the file's own hash it does not depend on the metadata that a library version writes into the header.
    Source: the format is a little-endian uint64 length, a JSON header of that length, and the data.
    """
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        for name in sorted(header):
            begin, end = header[name]["data_offsets"]
            digest.update(f"{name} {header[name]['dtype']} {header[name]['shape']}\n".encode())
            stream.seek(8 + length + begin)
            digest.update(stream.read(end - begin))
    return digest.hexdigest()
