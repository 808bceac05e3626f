"""Pinned models and data: read data/assets.toml, fetch what is missing, verify it, say where it lies.

A fetched asset is a folder ``home()/assets/<name>``. Beside its files it holds ``.ok``, a JSON stamp with the
pin that it was made from and the size and SHA-256 of every file. The folder is put together in
``home()/staging`` and moved into place by one rename, so a folder with a stamp is whole. A download that was
cut off stays in ``home()/downloads`` and is continued. No code of a fetched package is run, nothing is
unpickled, and only the files that the catalogue names are unpacked.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import stat
import struct
import sys
import tarfile
import time
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Annotated, Any, Literal, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from instructlab_utils import cache
from instructlab_utils.cache import SCHEMA, STAMP, file_sha256, home, place
from instructlab_utils.errors import AssetError, ConfigError
from instructlab_utils.project import closest

CHUNK = 1 << 20
ATTEMPTS = 4
PAUSE = 0.25  # seconds before the second attempt, doubled for each further one
TIMEOUT = (10, 60)  # seconds to connect, seconds without a byte
FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
SLACK = 1 << 20  # bytes left free beside what an asset needs: the stamp, configuration files, the tokenizer
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError)
PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "scikit-learn", "papermill", "snakemake")

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=0)]


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
    """Many small files: a pattern, their number, total size in bytes, and the SHA-256 of their listing."""

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
        return cache.pin(self.model_dump(include={"files", "tree", "convert"}, mode="json"))


def catalogue() -> dict[str, Asset]:
    """The assets of data/assets.toml by name, in the file's order.

    Raises ConfigError, naming file and key, if it is missing, is not TOML, or has a wrong key or value.
    """
    text, path = cache.data_file("assets.toml")
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
    wanted = list(catalogue()) if names is None else list(dict.fromkeys(names))
    assets = [_find(name) for name in wanted]
    index = index or os.environ.get("INSTRUCTLAB_INDEX") or os.environ.get("PIP_INDEX_URL") or ""
    return {asset.name: _fetch_one(asset, index, progress) for asset in assets}


def _fetch_one(asset: Asset, index: str, progress: bool) -> Path:
    folder, staging = place(asset.name), home() / "staging" / asset.name
    downloads = home() / "downloads" / asset.name
    if not (staging.exists() or downloads.exists() or cache.wrong(asset.name, deep=True)):
        return folder
    try:
        with _lock(asset.name):
            _remove(staging)  # what a killed process left half-made
            if not cache.wrong(
                asset.name, deep=True
            ):  # it was killed at the very end, or this one waited for another
                _remove(downloads)
                return folder
            _need_space(asset, downloads)
            try:
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
        raise AssetError(
            f"asset {asset.name!r} cannot be fetched ({why}); mend that or set INSTRUCTLAB_HOME"
        ) from error
    return folder


def _assemble(asset: Asset, index: str, staging: Path, downloads: Path, progress: bool) -> None:
    """Build the whole asset, stamp included, in ``staging / "new"``, from the first source that works."""
    new, failures = staging / "new", []
    for source in asset.sources:
        try:
            archive = _download(asset, source, index, downloads, progress)
        except AssetError as error:
            failures.append(error)
            continue
        try:
            _remove(staging)
            unpack(asset, source, archive, new)
            break
        except AssetError as error:
            archive.unlink()
            failures.append(error)
    else:
        raise failures[0]
    made_with = convert(asset.name, asset.convert, new, progress) if asset.convert else {}
    files = {}
    for file in sorted(file for file in new.rglob("*") if file.is_file()):
        file.chmod(0o644)  # safetensors writes for the owner only; a class shares one cache
        facts = {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
        files[file.relative_to(new).as_posix()] = facts
    stamp = {"schema": SCHEMA, "name": asset.name, "pin": asset.pin, "made_with": made_with, "files": files}
    (new / STAMP).write_text(json.dumps(stamp, indent=1, sort_keys=True) + "\n", encoding="utf-8")


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


def _space(asset: Asset) -> int:
    """Bytes that the disk holds at the worst moment: the download, the unpacked files, the converted ones."""
    unpacked = sum(file.bytes for file in asset.files) + (asset.tree.bytes if asset.tree else 0)
    converted = int(asset.disk_mb * 1e6) if asset.convert else 0
    return max(source.bytes for source in asset.sources) + unpacked + converted + SLACK


def _free(folder: Path) -> int:
    """Free bytes on the disk of ``folder``, which need not exist yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _need_space(asset: Asset, downloads: Path) -> None:
    have = sum(file.stat().st_size for file in downloads.glob("*"))
    if _free(home()) + have < _space(asset):
        raise _disk_full(asset)


def _disk_full(asset: Asset) -> AssetError:
    return AssetError(
        f"disk full: asset {asset.name!r} needs {_space(asset):,} bytes and {home()} may take "
        f"{_free(home()):,}; free some space or set INSTRUCTLAB_HOME to a folder on another disk"
    )


def _download(asset: Asset, source: Source, index: str, folder: Path, progress: bool) -> Path:
    """The verified distribution file of ``source`` in ``folder``; an earlier part of it is continued.

    Raises AssetError if no index answers, or the file is not there, is cut off, or has another SHA-256.
    """
    done, part = folder / source.file, folder / f"{source.file}.part"
    place = f"asset {asset.name!r}: {source.file}"
    if done.is_file() and file_sha256(done) == source.sha256:
        return done
    folder.mkdir(parents=True, exist_ok=True)
    local = _local_folder(index)
    continued = local is None and part.is_file()
    while True:
        with _bar(asset.name, source.bytes, progress) as show:
            if local is None:
                _stream(asset, source, index, part, show)
            else:
                _copy(source, local, part, show, place)
        size, digest = part.stat().st_size, file_sha256(part)
        if digest == source.sha256:
            os.replace(part, done)
            return done
        part.unlink()
        if not continued:
            break
        continued = False  # the old part may be what is damaged: once more, from the start
    if size != source.bytes:
        raise AssetError(
            f"{place} arrived with {size} bytes instead of {source.bytes}; it was deleted, "
            "run fetch again or use another index"
        )
    raise AssetError(
        f"{place} has SHA-256 {digest[:16]}… instead of {source.sha256[:16]}…; it was deleted, "
        "use an index that serves the pinned file"
    )


def _local_folder(index: str) -> Path | None:
    """The folder that a file:// address or a plain path means; None for an address on the network."""
    if index.startswith("file:"):
        return Path(url2pathname(urlsplit(index).path))
    return Path(index) if index and "://" not in index else None


def _copy(source: Source, folder: Path, part: Path, show: Callable[[int], Any], place: str) -> None:
    project = re.sub(r"[-_.]+", "-", source.package).lower()
    found = [f for f in (folder / source.file, folder / project / source.file) if f.is_file()]
    if not found:
        raise AssetError(f"{place} is not in {folder}; put it there or use another index")
    with found[0].open("rb") as stream, part.open("wb") as out:
        while block := stream.read(CHUNK):
            out.write(block)
            show(out.tell())


def _stream(asset: Asset, source: Source, index: str, part: Path, show: Callable[[int], Any]) -> None:
    """Download into ``part``, going on from what it holds, with a few attempts when the line breaks."""
    import requests
    from pypi_simple import (
        PYPI_SIMPLE_ENDPOINT,
        NoSuchProjectError,
        PyPISimple,
        UnsupportedRepoVersionError,
    )

    def kept() -> int:
        return part.stat().st_size if part.exists() else 0

    attempts, reason = 0, "the connection closed early"
    with requests.Session() as session:
        session.verify = os.environ.get("PIP_CERT") or True
        client = PyPISimple(index or PYPI_SIMPLE_ENDPOINT, session=session)
        place = f"asset {asset.name!r}: the index {_public(client.endpoint)}"
        while attempts < ATTEMPTS:
            before = kept()
            try:
                page = client.get_project_page(source.package, timeout=TIMEOUT)
                found = next((file for file in page.packages if file.filename == source.file), None)
                if found is None:
                    raise AssetError(f"{place} has no {source.file}; use another index")
                offered = found.digests.get("sha256", source.sha256)
                if offered != source.sha256:
                    raise AssetError(
                        f"{place} offers {source.file} with SHA-256 {offered[:16]}… instead of "
                        f"{source.sha256[:16]}…; use an index that serves the pinned file"
                    )
                if _receive(session, found.url, source, part, show):
                    return
            except NoSuchProjectError as error:
                raise AssetError(f"{place} has no package {source.package}; use another index") from error
            except (requests.RequestException, UnsupportedRepoVersionError, ValueError) as error:
                reason = _reason(error)
                if attempts and not kept():
                    break  # twice nothing at all: there is no network, and patience does not help
            attempts = 1 if kept() > before else attempts + 1
            time.sleep(PAUSE * 2 ** (attempts - 1))
    if size := kept():
        raise AssetError(
            f"asset {asset.name!r}: the download of {source.file} stopped at {size} of {source.bytes} bytes "
            f"({reason}); run fetch again, it goes on from there"
        )
    raise AssetError(
        f"{place} cannot be reached ({reason}) and {home()} does not hold the asset; connect to a network, "
        f"or set INSTRUCTLAB_INDEX to a folder with {source.file}"
    )


def _receive(session: Any, url: str, source: Source, part: Path, show: Callable[[int], Any]) -> bool:
    """One request, appended to ``part`` if the server honours Range. True when the server has no more to give."""
    have = part.stat().st_size if part.exists() else 0
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
                show(out.tell())
                if out.tell() > source.bytes:
                    break  # longer than its pin: the check that follows refuses it
    return "Content-Length" in response.headers or part.stat().st_size >= source.bytes


@contextlib.contextmanager
def _bar(name: str, total: int, progress: bool) -> Iterator[Callable[[int], Any]]:
    """A text progress bar; yields a function that takes the number of bytes there are by now."""
    from tqdm import tqdm

    off = not progress
    with tqdm(total=total, desc=name, unit="B", unit_scale=True, disable=off, file=sys.stderr) as bar:
        yield lambda size: bar.update(size - bar.n)


def _public(url: str) -> str:
    """The address without user name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _reason(error: BaseException) -> str:
    """The innermost cause of a network error, in a few words and without an address that may hold a password."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP {response.status_code}"
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    text = str(getattr(error, "strerror", None) or error or type(error).__name__)
    return re.sub(r"//[^/@\s]*@", "//", text.splitlines()[0])[:120]


def unpack(asset: Asset, source: Source, archive: Path, folder: Path) -> None:
    """Write the asset's files from ``archive`` into the new ``folder``, each verified against its pin.

    Every name in the archive is checked; links, devices and members that the catalogue does not list are never
    written.

    Raises AssetError if the archive is damaged or unsafe, or a file is missing or not the pinned one.
    """
    place = f"asset {asset.name!r}: {archive.name}"
    folder.mkdir(parents=True)
    pinned = {file.name: file for file in asset.files}
    found: dict[str, tuple[int, str]] = {}

    def wanted(name: str) -> bool:
        short = name.removeprefix(source.prefix)
        listed = short in pinned or (asset.tree is not None and matches(short, asset.tree.pattern))
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
            limit = pinned[short].bytes if short in pinned else asset.tree.bytes if asset.tree else 0
            found[short] = _write(stream, target, limit)
    except DAMAGED as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise AssetError(f"{place} is damaged ({why}); nothing was kept, use another source") from error

    for file in asset.files:
        size, digest = found.pop(file.name, (0, "absent"))
        if digest == "absent":
            raise AssetError(f"{place} lacks {file.name}; nothing was kept, correct data/assets.toml")
        if (size, digest) != (file.bytes, file.sha256):
            raise AssetError(
                f"{place}: {file.name} has {size} bytes and SHA-256 {digest[:16]}… instead of {file.bytes} "
                f"and {file.sha256[:16]}…; nothing was kept, correct data/assets.toml"
            )
    if tree := asset.tree:
        lines = "".join(f"{digest}  {name}\n" for name, (_, digest) in sorted(found.items()))
        got = len(found), sum(size for size, _ in found.values()), hashlib.sha256(lines.encode()).hexdigest()
        if got != (tree.count, tree.bytes, tree.sha256):
            raise AssetError(
                f"{place}: {tree.pattern} gives {got[0]} files, {got[1]} bytes, SHA-256 {got[2][:16]}… instead of "
                f"{tree.count}, {tree.bytes}, {tree.sha256[:16]}…; nothing was kept, correct data/assets.toml"
            )


def matches(name: str, pattern: str) -> bool:
    """Whether a member's name fits a pattern, part by part: ``*`` never crosses a slash."""
    same_depth = len(PurePosixPath(name).parts) == len(PurePosixPath(pattern).parts)
    return same_depth and PurePosixPath(name).match(pattern)


def unsafe(name: str) -> str:
    """Why an archive member of this name must not be unpacked, or an empty string."""
    windows = PureWindowsPath(name)
    if not name or "\0" in name:
        return "is empty or holds a null character"
    if windows.root or windows.drive:
        return "is an absolute path"
    return "climbs out of its folder" if ".." in windows.parts else ""


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
            for info in box.infolist():
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


def convert(name: str, recipe: Convert, folder: Path, progress: bool = True) -> dict[str, str]:
    """Turn the GGUF file in ``folder`` into plain safetensors, configuration and tokenizer; delete the GGUF.

    The weights are de-quantised in float32 and rounded once to the recipe's dtype. Returns the versions of the
    libraries that did it. Raises AssetError if it fails or the weights are not the pinned ones.
    """
    if progress:
        print(f"{name}: converting {recipe.gguf} to safetensors (once) …", file=sys.stderr)
    try:
        import torch
        import transformers
        from tokenizers import pre_tokenizers

        quiet = transformers.utils.logging
        bars = quiet.is_progress_bar_enabled()
        quiet.disable_progress_bar()
        with contextlib.redirect_stderr(io.StringIO()):
            where = {"gguf_file": recipe.gguf, "local_files_only": True}
            model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **where)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **where)
            model = model.to(getattr(torch, recipe.dtype))
            model.hf_quantizer = None  # it is not quantised any more; with the mark, saving is refused
            if hasattr(model.config, "quantization_config"):
                del model.config.quantization_config
            if recipe.split_digits:
                fast = tokenizer.backend_tokenizer
                rules = [pre_tokenizers.Digits(individual_digits=True), fast.pre_tokenizer]
                fast.pre_tokenizer = pre_tokenizers.Sequence(rules)
            tokenizer.model_max_length = model.config.max_position_embeddings
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        if bars:
            quiet.enable_progress_bar()
    except Exception as error:
        # safetensors has its own exception for a full disk, with the system's number in the text
        number = getattr(error, "errno", None) or next(iter(re.findall(r"os error (\d+)", str(error))), 0)
        if int(number) in FULL:
            raise OSError(int(number), os.strerror(int(number))) from error
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise AssetError(
            f"asset {name!r}: {recipe.gguf} cannot be converted ({why}); install requirements.lock"
        ) from error
    (folder / recipe.gguf).unlink()
    digest = tensors_sha256(folder / "model.safetensors")
    if digest != recipe.tensors_sha256:
        raise AssetError(
            f"asset {name!r}: the converted weights have tensors_sha256 {digest} instead of "
            f"{recipe.tensors_sha256}; install the versions of requirements.lock"
        )
    return {"torch": torch.__version__.partition("+")[0], "transformers": transformers.__version__}


def tensors_sha256(file: Path) -> str:
    """SHA-256 over the tensors of a safetensors file: sorted by name, a line ``name dtype shape``, the bytes.

    Unlike the file's own hash it does not depend on what a library version writes into the header.
    Source: the format is a little-endian uint64 length, a JSON header of that length, then the data.
    """
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        for name, facts in sorted(header.items()):
            begin, end = facts["data_offsets"]
            digest.update(f"{name} {facts['dtype']} {facts['shape']}\n".encode())
            stream.seek(8 + length + begin)
            digest.update(stream.read(end - begin))
    return digest.hexdigest()


def doctor(*, deep: bool = False) -> dict[str, Any]:
    """What this machine offers and what the cache holds.

    Keys: python, platform, versions (package → version or None), device, cores, memory_gb (GiB), gemm_gflops
    (float32, one thread, best of several products of 1024 × 1024 matrices, in 10⁹ FLOP/s; None without torch),
    home, free_gb (GB), assets (name → {state: "ready" or what is wrong, disk_mb}). ``deep`` reads every file of
    every asset and compares its SHA-256. Raises ConfigError if data/assets.toml is malformed.
    """
    import platform
    from importlib import metadata

    import psutil

    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        **_measure(),
        "home": str(home()),
        "free_gb": round(_free(home()) / 1e9, 1),
        "assets": {
            name: {"state": cache.wrong(asset.name, deep=deep) or "ready", "disk_mb": asset.disk_mb}
            for name, asset in catalogue().items()
        },
    }


def _measure(n: int = 1024, repeats: int = 8) -> dict[str, Any]:
    """The device, and the speed of float32 matrix products on one CPU thread in 10⁹ FLOP/s."""
    try:
        import torch
    except ImportError:
        return {"device": "cpu (torch is not installed)", "gemm_gflops": None}
    cuda = torch.cuda.is_available()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        a, seconds = torch.ones(n, n), []
        for _ in range(repeats):
            start = time.perf_counter()
            a @ a
            seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    device = f"cuda ({torch.cuda.get_device_name()})" if cuda else "cpu"
    return {"device": device, "gemm_gflops": round(2 * n**3 / min(seconds) / 1e9, 1)}


def render_doctor(report: dict[str, Any]) -> str:
    """The report of :func:`doctor` as aligned lines of text, with the command that brings what is missing."""
    speed = report["gemm_gflops"]
    lines = [
        ("python", f"{report['python']} on {report['platform']}"),
        (
            "packages",
            ", ".join(f"{name} {version or 'absent'}" for name, version in report["versions"].items()),
        ),
        ("device", f"{report['device']}, {report['cores']} cores, {report['memory_gb']} GiB of memory"),
        ("speed", "not measured" if speed is None else f"{speed} GFLOP/s (float32 product, one thread)"),
        ("cache", f"{report['home']}, {report['free_gb']} GB free on its disk"),
    ]
    lines += [(f"asset {name}", f"{a['state']} ({a['disk_mb']} MB)") for name, a in report["assets"].items()]
    width = max(len(name) for name, _ in lines)
    text = "\n".join(f"{name:<{width}}  {value}" for name, value in lines)
    if any(a["state"] != "ready" for a in report["assets"].values()):
        text += "\nrun `python -m instructlab_utils fetch` to bring what is missing"
    return text
