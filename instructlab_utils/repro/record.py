"""Writing results so that a kill at any moment leaves either the old file or the new one, never half of one.

A block of an experiment writes one JSON line per run (`append_line`), a notebook writes one JSON object
(`write_json`). Both are flushed to the disk before the function returns.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from instructlab_utils.errors import ConfigError, RecordError
from instructlab_utils.session import find_root

SCHEMA = 2  # of a run line and of an aggregated line

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "accelerate",
    "scikit-learn",
    "numpy",
    "scipy",
    "papermill",
    "snakemake",
)
SHORT = ("torch", "transformers", "scikit-learn", "numpy")


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
    """JSON text with sorted keys, the same bytes for the same content."""
    return json.dumps(obj, sort_keys=True, ensure_ascii=False, indent=indent, default=_plain)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; Windows cannot open a folder, there the rename alone must do."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _drop_stale(path: Path) -> None:
    """Remove what a killed writer of this file has left beside it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        import psutil

        writer = left.name.split(".")[-3]
        if not (writer.isdigit() and psutil.pid_exists(int(writer))):
            left.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Replace `path` by `content` atomically. After an error the old file stands, alone."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _drop_stale(path)
    prefix = f".{path.name}.{os.getpid()}."
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, 0o644)  # mkstemp's 0600 would keep a colleague from reading the results
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)
    return path


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
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
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
        print(f"note: {path}: {len(damaged)} damaged line(s) set aside in {aside.name}", file=sys.stderr)
    return rows


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(*words: str) -> str | None:
    try:
        found = subprocess.run(["git", *words], cwd=find_root(), capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError, ConfigError):
        return None
    return found.stdout.strip() if found.returncode == 0 else None


@lru_cache(maxsize=1)
def _cpu_model() -> str:
    with contextlib.suppress(OSError):  # only Linux has this file
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


@lru_cache(maxsize=1)
def hardware() -> str:
    """Twelve hexadecimal digits that name the processor with its instruction sets, and the CUDA device if torch has one.

    Same digits, same versions and same threads: the same bits are expected.
    """
    facts = [platform.machine(), _cpu_model()]
    wanted = ("vendor_id", "cpu family", "model\t", "stepping", "flags", "Features", "CPU part")
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines():
            if line.startswith(wanted):
                facts.append(line)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        facts.append(torch.cuda.get_device_name())
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


@lru_cache(maxsize=1)
def package_sha() -> str:
    """Sixteen hexadecimal digits over the teaching modules' sources: provenance, never a reason to run again."""
    sha = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].glob("*.*")):
        if path.suffix in (".py", ".toml"):
            sha.update(path.name.encode() + b"\0" + path.read_bytes())
    return sha.hexdigest()[:16]


def threads() -> int:
    """Threads of one matrix product: torch's own answer if it is loaded, else what it would choose."""
    if torch := sys.modules.get("torch"):
        return int(torch.get_num_threads())
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdigit() else (os.cpu_count() or 1)


@lru_cache(maxsize=1)
def _commit() -> tuple[str | None, bool | None]:
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None, None
    return commit, bool(_git("status", "--porcelain", "--untracked-files=no"))


def environment() -> dict[str, Any]:
    """Versions, commit, hardware and threads of this process. Never imports torch."""
    commit, dirty = _commit()
    return {
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "commit": commit,
        "dirty": dirty,
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "hardware": hardware(),
        "package": package_sha(),
        "cores": os.cpu_count(),
        "threads": threads(),
    }


def short_environment() -> dict[str, Any]:
    """The few facts that every result line repeats."""
    everything = environment()
    keep = {
        key: everything[key] for key in ("python", "commit", "dirty", "cpu", "hardware", "package", "threads")
    }
    return keep | {name: everything["packages"].get(name) for name in SHORT}


def claims_sha(names: list[str] | tuple[str, ...]) -> dict[str, str]:
    """SHA-256 of the bytes of data/claims/<name>.toml, so that a claim changed after its run is seen.

    Raises:
        ConfigError: when there is no such claim.
    """
    found = {}
    for name in names:
        path = find_root() / "data" / "claims" / f"{name}.toml"
        if not path.is_file():
            raise ConfigError(f"data/claims/{name}.toml: no such claim; write it before the run.")
        # line ends are normalised: a checkout on Windows must not look like a changed claim
        found[name] = hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()
    return found


def reset_peak_memory() -> None:
    """Let :func:`peak_memory_mb` start again from what is resident now; only Linux can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far (since the last reset), in MB (2**20 bytes)."""
    with contextlib.suppress(
        OSError
    ):  # VmHWM starts again at exec; getrusage would report the parent's peak too
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return round(int(line.split()[1]) / 1024, 1)
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return round(psutil.Process().memory_info().peak_wset / 2**20, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 1024), 1)
