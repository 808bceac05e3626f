"""Fetching: one lock for each asset, a look at the free space, a download that goes on where it stopped, one rename.

An asset's folder is put together in ``home()/staging`` and moved into place at once, so a folder with a stamp is whole. A
download that was cut off stays in ``home()/downloads`` and is continued.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from instructlab_repro.assets.archives import CHUNK, unpack
from instructlab_repro.assets.conversion import FULL, convert
from instructlab_repro.assets.pinned import Asset, Distribution, catalogue
from instructlab_utils import cache, files
from instructlab_utils.cache import file_sha256, home
from instructlab_utils.errors import AssetError
from instructlab_utils.progress import bar_or_lines

ATTEMPTS = 4
PAUSE = 0.25  # seconds before the second attempt, doubled for each further one
TIMEOUT = (10, 60)  # seconds to connect, seconds without a byte
SLACK = 1 << 20  # bytes left free beside what an asset needs: the stamp, configuration files, the tokenizer

_remove = functools.partial(shutil.rmtree, ignore_errors=True)


def fetch(
    names: list[str] | None = None, *, progress: bool = True, index: str | None = None
) -> dict[str, Path]:
    """Bring the named assets (None: the whole catalogue) into the cache and return their folders.

    What is there and verifies, every byte of it, is left alone and needs no network. ``index`` is the address
    of a simple package index, or a folder or file:// address that holds the distribution files. Default:
    INSTRUCTLAB_INDEX, else PIP_INDEX_URL, else the public index. PIP_CERT and REQUESTS_CA_BUNDLE count.

    Raises AssetError if a name is unknown, a download fails or has another hash, an archive is unsafe, or the
    disk is full.
    """
    known = catalogue()
    wanted = {name: cache.entry(name) for name in (known if names is None else names)}
    index = index or os.environ.get("INSTRUCTLAB_INDEX") or os.environ.get("PIP_INDEX_URL") or ""
    return {name: _fetch_one(known[name], index, progress) for name in wanted}


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of ``folder``, which need not exist yet."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    return shutil.disk_usage(there).free


def _fetch_one(asset: Asset, index: str, progress: bool) -> Path:
    name, folder = asset.name, cache.place(asset.name)
    staging, downloads = home() / "staging" / name, home() / "downloads" / name
    if not (staging.exists() or downloads.exists() or cache.wrong(name, deep=True)):
        return folder
    try:
        with _locked(name):
            _remove(staging)  # what a killed process left half-made
            try:
                if cache.wrong(name, deep=True):  # else it was killed at the very end, or this one waited
                    kept = sum(_size(file) for file in downloads.glob("*"))
                    if free_bytes(home()) + kept < _space(asset):
                        raise _disk_full(asset)
                    _assemble(asset, index, staging, downloads, progress)
                    folder.parent.mkdir(parents=True, exist_ok=True)
                    if folder.exists():
                        os.replace(folder, staging / "old")
                    os.replace(staging / "new", folder)
                _remove(downloads)
            except OSError as error:
                if error.errno in FULL:
                    _remove(downloads)  # a full disk is no place for a part
                raise
            finally:
                _remove(staging)
    except OSError as error:
        if error.errno in FULL:
            raise _disk_full(asset) from error
        why = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        why = f"asset {name!r} cannot be fetched ({why}); mend that or set INSTRUCTLAB_HOME"
        raise AssetError(why) from error
    return folder


def _assemble(asset: Asset, index: str, staging: Path, downloads: Path, progress: bool) -> None:
    """Build the whole asset, stamp included, in ``staging / "new"``, from the first source that works."""
    new, failures = staging / "new", []
    for source in asset.sources:
        archive = None
        try:
            archive = _download(asset, source, index, downloads, progress)
            _remove(staging)
            unpack(asset, source, archive, new)
            break
        except AssetError as error:
            failures.append(error)
            if archive:
                archive.unlink()
    else:
        raise failures[0]
    made_with = convert(asset.name, asset.convert, new, progress) if asset.convert else {}
    found = {}
    for file in sorted(file for file in new.rglob("*") if file.is_file()):
        file.chmod(0o644)  # safetensors writes for the owner only; a class shares one cache
        found[file.relative_to(new).as_posix()] = {"bytes": _size(file), "sha256": file_sha256(file)}
    stamp = {"schema": cache.SCHEMA, "name": asset.name, "pin": asset.pin}
    files.write_json(new / cache.STAMP, stamp | {"made_with": made_with, "files": found})


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _locked(name: str) -> Any:
    from filelock import FileLock, Timeout

    lock = FileLock(home() / "locks" / f"{name}.lock")
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        print(f"waiting for another process that fetches {name!r} …", file=sys.stderr)
        return lock.acquire()


def _space(asset: Asset) -> int:
    """Bytes that the disk holds at the worst moment: the download, the unpacked files, the converted ones."""
    unpacked = sum(file.bytes for file in asset.files) + (asset.tree.bytes if asset.tree else 0)
    converted = int(asset.disk_mb * 1e6) if asset.convert else 0
    return max(source.bytes for source in asset.sources) + unpacked + converted + SLACK


def _disk_full(asset: Asset) -> AssetError:
    why = f"needs {_space(asset):,} bytes and {home()} may take {free_bytes(home()):,}"
    do = "free some space or set INSTRUCTLAB_HOME to a folder on another disk"
    return AssetError(f"disk full: asset {asset.name!r} {why}; {do}")


def _download(asset: Asset, source: Distribution, index: str, folder: Path, progress: bool) -> Path:
    """The verified distribution file of ``source`` in ``folder``; an earlier part of it is continued.

    Raises AssetError if no index answers, or the file is not there, is cut off, or has another SHA-256.
    """
    done, part = folder / source.file, folder / f"{source.file}.part"
    place = f"asset {asset.name!r}: {source.file}"
    if done.is_file() and file_sha256(done) == source.sha256:
        return done
    local = _mirrored(index, source, place)
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(1 + (local is None and part.is_file())):  # an old part may be damaged: once more, anew
        if local is None:
            _stream(asset, source, index, part, progress)
        else:
            shutil.copyfile(local, part)
        size, digest = _size(part), file_sha256(part)
        if digest == source.sha256:
            return part.replace(done)
        part.unlink()
    got, want = f"{size} bytes and SHA-256 {digest[:16]}…", f"{source.bytes} and {source.sha256[:16]}…"
    do = "it was deleted, run fetch again or use an index that serves the pinned file"
    raise AssetError(f"{place} arrived with {got} instead of {want}; {do}")


def _mirrored(index: str, source: Distribution, place: str) -> Path | None:
    """The file in the folder that a file:// address or a plain path means; None for an address on the network."""
    if not index or ("://" in index and not index.startswith("file:")):
        return None
    folder = Path(url2pathname(urlsplit(index).path) if index.startswith("file:") else index)
    project = re.sub(r"[-_.]+", "-", source.package).lower()
    for file in (folder / source.file, folder / project / source.file):
        if file.is_file():
            return file
    raise AssetError(f"{place} is not in {folder}; put it there or use another index")


def _stream(asset: Asset, source: Distribution, index: str, part: Path, progress: bool) -> None:
    """Download into ``part``, going on from what it holds, with a few attempts when the line breaks."""
    import pypi_simple
    import requests

    attempts, reason = 0, "the connection closed early"
    shown_as: Any = {"desc": asset.name, "total": source.bytes, "unit": "B", "unit_scale": True}
    with bar_or_lines(**shown_as, disable=not progress) as bar, requests.Session() as session:
        session.verify = os.environ.get("PIP_CERT") or True
        client = pypi_simple.PyPISimple(index or pypi_simple.PYPI_SIMPLE_ENDPOINT, session=session)
        address = urlsplit(client.endpoint)  # printed without user name and password
        shown = address._replace(netloc=address.netloc.rpartition("@")[2]).geturl()
        place = f"asset {asset.name!r}: the index {shown}"
        while attempts < ATTEMPTS:
            before = _size(part)
            try:
                page = client.get_project_page(source.package, timeout=TIMEOUT)
                same = [file for file in page.packages if file.filename == source.file]
                pinned = [file for file in same if file.digests.get("sha256") in (None, source.sha256)]
                if not pinned:
                    raise AssetError(f"{place} has no {source.file} with the pinned SHA-256; use another")
                if _receive(session, pinned[0].url, source, part, bar):
                    return
            except pypi_simple.NoSuchProjectError as error:
                raise AssetError(f"{place} has no package {source.package}; use another index") from error
            except (requests.RequestException, pypi_simple.UnsupportedRepoVersionError, ValueError) as error:
                reason = _reason(error)
                if attempts and not _size(part):
                    break  # twice nothing at all: there is no network, and patience does not help
            attempts = 1 if _size(part) > before else attempts + 1
            time.sleep(PAUSE * 2 ** (attempts - 1))
    if size := _size(part):
        why = f"stopped at {size} of {source.bytes} bytes ({reason}); run fetch again, it goes on from there"
        raise AssetError(f"asset {asset.name!r}: the download of {source.file} {why}")
    do = f"connect to a network, or set INSTRUCTLAB_INDEX to a folder with {source.file}"
    raise AssetError(f"{place} cannot be reached ({reason}) and {home()} does not hold the asset; {do}")


def _receive(session: Any, url: str, source: Distribution, part: Path, bar: Any) -> bool:
    """One request, appended to ``part`` if the server honours Range. True when the server has no more to give."""
    have = _size(part)
    if have >= source.bytes:
        return True
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with session.get(url, stream=True, timeout=TIMEOUT, headers=headers) as response:
        if response.status_code == 416:  # the server's file is not longer than our part
            return True
        response.raise_for_status()
        content_range = response.headers.get("Content-Range", "")
        goes_on = response.status_code == 206 and content_range.startswith(f"bytes {have}-")
        with part.open("ab" if goes_on else "wb") as out:
            # small blocks: what has come of a block is lost when the line breaks
            for block in response.iter_content(CHUNK >> 6):
                out.write(block)
                bar.update(out.tell() - bar.n)
                if out.tell() > source.bytes:
                    break  # longer than its pin: the check that follows refuses it
    return "Content-Length" in response.headers or _size(part) >= source.bytes


def _reason(error: BaseException) -> str:
    """The innermost cause of a network error, in a few words and without an address that may hold a password."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP {response.status_code}"
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    text = str(getattr(error, "strerror", None) or error or type(error).__name__)
    return re.sub(r"//[^/@\s]*@", "//", text.splitlines()[0])[:120]
