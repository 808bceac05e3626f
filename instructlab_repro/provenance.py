"""What a result was made with: versions, commit, hardware, threads, and the hashes of package and claims."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import subprocess
import sys
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from instructlab_utils import project
from instructlab_utils.errors import ConfigError
from instructlab_utils.project import find_root

SCHEMA = 3  # of a run line and of an aggregated line

PACKAGES = (
    "torch", "transformers", "tokenizers", "datasets", "accelerate",
    "scikit-learn", "numpy", "scipy", "papermill", "snakemake",
)  # fmt: skip
TEACHING = Path(project.__file__).parent  # instructlab_utils, wherever it is installed
SHORT = ("torch", "transformers", "scikit-learn", "numpy")


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _git(*words: str) -> str | None:
    try:
        found = subprocess.run(["git", *words], cwd=find_root(), capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError, ConfigError):
        return None
    return found.stdout.decode(errors="replace").strip() if found.returncode == 0 else None


@lru_cache(maxsize=1)
def _cpu_info() -> list[str]:
    """The lines about the first processor; only Linux tells them."""
    with contextlib.suppress(OSError):
        return Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    return []


def _cpu_model() -> str:
    names = (line.split(":", 1)[1].strip() for line in _cpu_info() if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


@lru_cache(maxsize=1)
def hardware() -> str:
    """Twelve hexadecimal digits that name the processor with its instruction sets, and the CUDA device if torch has one.

    Same digits, same versions and same threads: the same bits are expected.
    """
    wanted = ("vendor_id", "cpu family", "model\t", "stepping", "flags", "Features", "CPU part")
    told = [line for line in _cpu_info() if line.startswith(wanted)]
    facts = [platform.machine(), _cpu_model(), *told]
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        facts.append(torch.cuda.get_device_name())
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


@lru_cache(maxsize=1)
def package_sha() -> str:
    """Sixteen hexadecimal digits over instructlab_utils: each of its .py and .toml files, with its path, and data/tasks.toml.

    A lesson executes the package: another hash, and its last run is out of date. A block of an experiment runs again for
    its own code and settings alone, since the package grows with each lesson; its lines carry the hash.
    """
    sha = hashlib.sha256()
    table = TEACHING.parent / "data" / "tasks.toml"  # which reader reads what: code in all but name
    found = [path for path in TEACHING.rglob("*.*") if path.suffix in (".py", ".toml")]
    for path in sorted(found + [table] * table.is_file()):
        sha.update(path.relative_to(TEACHING.parent).as_posix().encode() + b"\0")
        # line ends are normalised: a checkout on Windows must not look like a changed package
        sha.update(path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
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
    return commit, None if commit is None else bool(_git("status", "--porcelain", "--untracked-files=no"))


def environment() -> dict[str, Any]:
    """Versions, commit, hardware and threads of this process. Never imports torch."""
    commit, dirty = _commit()
    machine = {"cpu": _cpu_model(), "hardware": hardware(), "cores": os.cpu_count(), "threads": threads()}
    ours = {"python": platform.python_version(), "packages": dict(_versions()), "package": package_sha()}
    return {**ours, **machine, "commit": commit, "dirty": dirty, "platform": platform.platform()}


def short_environment() -> dict[str, Any]:
    """The few facts that every result line repeats."""
    told = environment()
    facts = ("python", "commit", "dirty", "cpu", "hardware", "package", "threads")
    return {fact: told[fact] for fact in facts} | {name: told["packages"].get(name) for name in SHORT}


def claims_sha(names: list[str] | tuple[str, ...]) -> dict[str, str]:
    """SHA-256 of the bytes of data/claims/<name>.toml, so that a claim changed after its run is seen.

    Raises:
        ConfigError: when there is no such claim.
    """
    found, folder = {}, find_root() / "data" / "claims"
    for name in names:
        path = folder / f"{name}.toml"
        if not path.is_file():
            raise ConfigError(f"data/claims/{name}.toml: no such claim; write it before the run.")
        # line ends are normalised: a checkout on Windows must not look like a changed claim
        found[name] = hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()
    return found
