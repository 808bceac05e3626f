"""Where the project is, its profiles, and their budgets. Taught in lesson 00, section 1."""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from instructlab_utils.errors import ConfigError, ParameterError

PROFILES = ("smoke", "laptop", "gpu")


def find_root(start_at: Path | None = None) -> Path:
    """The project's root: INSTRUCTLAB_ROOT, else the nearest folder upwards that holds data/assets.toml.

    Notebooks run from the root, from notebooks/, or from anywhere inside the project.
    """
    if root := os.environ.get("INSTRUCTLAB_ROOT"):
        return Path(root).resolve()
    here = (start_at or Path.cwd()).resolve()
    for folder in (here, *here.parents, *Path(__file__).resolve().parents):
        if (folder / "data" / "assets.toml").is_file() and (folder / "pyproject.toml").is_file():
            return folder
    raise ConfigError(
        f"no clone of the repository above {here}, and the installed package has no notebooks: git clone it and "
        "run inside, or name its folder with --root or INSTRUCTLAB_ROOT"
    )


def clone() -> Path | None:
    """The project's root, or None where the package is installed alone."""
    try:
        return find_root()
    except ConfigError:
        return None


def text_of(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte-order mark, its lines ended by a newline character.

    Raises ConfigError that names file, line and byte where it is no UTF-8; OSError where it cannot be read.
    """
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
        where = f"{shown(path)}, line {line}: the byte 0x{byte:02x} at {error.start}"
        raise ConfigError(f"{where} is not UTF-8 text; save the file as UTF-8") from None


def read_toml(path: Path, name: str) -> dict[str, Any]:
    """What the TOML file holds. ConfigError naming the file (as ``name``) when it is not TOML."""
    try:
        return tomllib.loads(text_of(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: not valid TOML ({error}); mend that line.") from None


def resolve_profile(profile: str) -> str:
    """``"auto"`` means INSTRUCTLAB_PROFILE, else ``"laptop"``. ParameterError for an unknown name."""
    name = os.environ.get("INSTRUCTLAB_PROFILE", "laptop") if profile == "auto" else profile
    if name not in PROFILES:
        raise ParameterError(f"unknown profile {name!r}: choose one of {', '.join(PROFILES)}, or auto")
    return name


def budget(lesson: str, profile: str) -> SimpleNamespace:
    """The knobs of ``lesson`` in ``profile``, from instructlab_utils/profiles.toml."""
    path = Path(__file__).with_name("profiles.toml")
    table = read_toml(path, path.name).get(lesson, {})
    missing = [knob for knob, row in table.items() if profile not in row]
    if missing:
        raise ConfigError(f"{path.name}: [{lesson}] {missing[0]} has no column {profile!r}; add it")
    return SimpleNamespace(**{knob: row[profile] for knob, row in table.items()})


def closest(name: str, known: list[str]) -> str:
    """``", did you mean X?"`` for a name close to a known one, else an empty string."""
    near = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {near[0]!r}?" if near else ""


def shown(path: Path) -> str:
    """A path as a message shows it: relative to the project's root where it lies inside."""
    root = clone()
    if root and path.resolve().is_relative_to(root):
        return path.resolve().relative_to(root).as_posix()
    return str(path)
