"""Writing results so that a kill at any moment leaves either the old file or the new one, never half of one.

A block of an experiment writes one JSON line per run (`append_line`), a notebook writes one JSON object
(`write_json`). Both are flushed to the disk before the function returns. From lesson 00 on.
"""

from __future__ import annotations

import glob
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from instructlab_utils.errors import RecordError


def _plain(value: Any) -> Any:
    """What json.dumps asks for objects that it does not know: NumPy and torch scalars, paths."""
    if isinstance(value, Path):
        return value.as_posix()
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not a number, a string, a list or a table of such")


def dumps(obj: Any, *, indent: int | None = None) -> str:
    """JSON text with sorted keys, the same bytes for the same content; NaN and infinities become strings."""
    how: Any = {"sort_keys": True, "ensure_ascii": False, "default": _plain}
    text = json.dumps(obj, indent=indent, **how)
    if "NaN" in text or "Infinity" in text:  # strict JSON has no such numbers
        text = json.dumps(json.loads(text, parse_constant=str), indent=indent, **how)
    return text


def sync(path: str | Path) -> None:
    """Flush to the disk what another library wrote into a file; its name is durable after :func:`sync_folder`."""
    with open(path, "r+b") as stream:
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Make a new name in a folder durable; Windows cannot open a folder, there the rename alone must do."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each durable in the one that holds it."""
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in new:
        sync_folder(place.parent)


def drop_stale(path: Path) -> None:
    """Remove what a killed writer of this file has left beside it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        import psutil

        writer = left.name.split(".")[-3]
        if not (writer.isdigit() and psutil.pid_exists(int(writer))):
            left.unlink(missing_ok=True)


def write_with(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Replace `path` atomically by the file that `write(temporary)` makes. After an error the old file stands, alone.

    For libraries that want a name to write to: ``write_with(path, lambda place: save_file(tensors, place))``.
    """
    path = Path(path)
    make_folder(path.parent)
    drop_stale(path)
    prefix = f".{path.name}.{os.getpid()}."
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=".tmp")
    os.close(handle)
    try:
        write(Path(name))
        sync(name)
        os.chmod(name, 0o644)  # mkstemp's 0600 would keep a colleague from reading the results
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return path


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Replace `path` by `content` atomically. After an error the old file stands, alone."""
    return write_with(path, lambda place: place.write_bytes(content))


def write_text(path: str | Path, text: str) -> Path:
    """Replace `path` by `text` (UTF-8, line ends as given) atomically."""
    return write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, obj: Any) -> Path:
    """Replace `path` by `obj` as indented JSON with sorted keys, atomically.

    Raises:
        RecordError: when `obj` holds something that JSON has no form for.
    """
    try:
        text = dumps(obj, indent=1)
    except (TypeError, ValueError) as error:
        raise RecordError(f"{path}: cannot be written as JSON: {error}.") from None
    return write_text(path, text + "\n")


def read_json(path: str | Path) -> Any:
    """Raises RecordError, naming the file, when it is absent or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordError(f"{path}: no such file.") from None
    except ValueError as error:
        raise RecordError(f"{path}: not JSON ({error}); delete it and run again.") from None


def write_lines(path: str | Path, rows: list[dict]) -> Path:
    """Replace `path` by one JSON line per row, atomically."""
    return write_text(path, "".join(dumps(row) + "\n" for row in rows))


def _parses(fragment: bytes) -> bool:
    try:
        json.loads(fragment)
    except ValueError:  # also a cut UTF-8 character: UnicodeDecodeError is a ValueError
        return False
    return True


def append_line(path: str | Path, obj: dict) -> None:
    """Append one JSON line and flush it to the disk. One writer per file.

    A last line that a kill cut short is overwritten. When the disk is full the file gets its old length back.

    Raises:
        RecordError: when `obj` holds something that JSON has no form for.
        OSError: when the disk is full.
    """
    path = Path(path)
    try:
        line = dumps(obj).encode("utf-8") + b"\n"
    except (TypeError, ValueError) as error:
        raise RecordError(f"{path}: cannot be written as JSON: {error}.") from None
    make_folder(path.parent)
    if not path.exists():
        path.touch()
        sync_folder(path.parent)
    with open(path, "r+b", buffering=0) as stream:
        content = stream.read()
        end = content.rfind(b"\n") + 1
        rest = content[end:]
        if rest and _parses(rest):  # complete, only its line end is missing
            end, line = len(content), b"\n" + line
        stream.truncate(end)
        stream.seek(end)
        try:
            if stream.write(line) != len(line):
                raise OSError(28, "No space left on device", str(path))
            os.fsync(stream.fileno())
        except OSError:
            stream.truncate(end)
            raise


def _rows(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes, dict | None]]:
    """(number, line, its JSON object or None where it is not one), empty lines left out."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            yield number, line, row if isinstance(row, dict) else None


def read_lines(path: str | Path, *, remedy: str = "") -> list[dict]:
    """All complete lines of a JSONL file; [] without one. A last line that a kill cut short is left out.

    ``remedy`` is for a file that is only ever replaced as a whole: a cut last line is damage there too, and this
    is what to do about any damage.

    Raises:
        RecordError: for a damaged line that is not such a rest; it names the file and the line.
    """
    path = Path(path)
    if not path.is_file():
        return []
    *whole, rest = path.read_bytes().split(b"\n")
    if rest and (remedy or _parses(rest)):
        whole.append(rest)
    rows = []
    for number, _, row in _rows(whole):
        if row is None:
            remedy = remedy or "delete that line and run again"
            raise RecordError(f"{path}, line {number}: not a JSON object; {remedy}.")
        rows.append(row)
    return rows


def salvage(path: str | Path) -> list[dict]:
    """The sound lines of a JSONL file; the damaged ones are kept beside it, in ``<stem>.damaged.txt``, and told.

    A run whose line is damaged is then simply missing, and runs again.
    """
    path = Path(path)
    rows, damaged = [], []
    for number, line, row in _rows(path.read_bytes().split(b"\n")):
        if row is not None:
            rows.append(row)
        else:
            damaged.append(f"line {number}: ".encode() + line + b"\n")
    if damaged:
        aside = path.with_suffix(".damaged.txt")
        with open(aside, "ab") as stream:
            stream.writelines(damaged)
            stream.flush()
            os.fsync(stream.fileno())  # the caller replaces the file that they came from
        sync_folder(aside.parent)
        print(f"note: {path}: {len(damaged)} damaged line(s) set aside in {aside.name}", file=sys.stderr)
    return rows
