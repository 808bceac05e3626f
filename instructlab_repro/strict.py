"""Data files that must be right: strict models, TOML, and the first mistake as one sentence with file and key."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from instructlab_utils.errors import ConfigError


class Strict(BaseModel):
    """Unknown keys and loose types are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def sentence(error: ValidationError, file: str, prefix: str = "") -> str:
    """The first mistake that pydantic found, as one sentence with file and key."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"] if part != "[key]")
    if first["type"] == "extra_forbidden":
        return f"{file}: unknown key {prefix + where!r}; remove it or correct its spelling."
    if first["type"] == "missing":
        return f"{file}: the key {prefix + where!r} is missing; add it."
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    if not where:
        return f"{file}: {prefix}{message}."
    shown = "" if isinstance(first["input"], Mapping) else f", not {first['input']!r}"
    return f"{file}: {prefix}{where}: {message[:1].lower()}{message[1:]}{shown}."


def read_toml(path: Path, name: str) -> dict[str, Any]:
    """ConfigError naming the file (as ``name``) when it is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: not valid TOML ({error}); mend that line.") from None
