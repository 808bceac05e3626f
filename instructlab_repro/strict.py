"""Data files that must be right: strict models, TOML, and the first mistake as one sentence with file and key."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from instructlab_utils.errors import ConfigError, sentence
from instructlab_utils.project import text_of

__all__ = ["Strict", "read_toml", "sentence"]


class Strict(BaseModel):
    """Unknown keys and loose types are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def read_toml(path: Path, name: str) -> dict[str, Any]:
    """ConfigError naming the file (as ``name``) when it is not TOML."""
    try:
        return tomllib.loads(text_of(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: not valid TOML ({error}); mend that line.") from None
