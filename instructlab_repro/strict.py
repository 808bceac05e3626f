"""Data files that must be right: strict models, TOML, and the first mistake as one sentence with file and key."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from instructlab_utils.errors import sentence
from instructlab_utils.project import read_toml

__all__ = ["Strict", "read_toml", "sentence"]


class Strict(BaseModel):
    """Unknown keys and loose types are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
