"""The exceptions of this project. Each carries one sentence that names the place and the fix.

The command line prints that sentence and exits with code 2; a notebook shows it as the last line of the traceback.
From lesson 00 on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError


OPTIMISED = (
    "Python runs with -O or PYTHONOPTIMIZE, which removes every check that is an assertion; start it without."
)


class CourseError(Exception):
    """Base class: something that the user can mend, said in one sentence."""


class AssetError(CourseError):
    """A pinned model or data file is missing, damaged, or not what its hash says."""


class DataError(CourseError):
    """A task is unknown, or a data file does not have the form that its reader expects."""


class ConfigError(CourseError):
    """A TOML or JSON file of this project has a wrong key, type or value."""


class ParameterError(CourseError):
    """A notebook parameter is unknown or has the wrong type."""


class NotebookError(CourseError):
    """A lesson or experiment is unknown, or its notebook is not in the expected form."""


class RecordError(CourseError):
    """A result line or manifest is damaged or of an unknown schema."""


class TrainingError(CourseError):
    """A batch, head or checkpoint with which training cannot go on."""


class InstructionError(CourseError):
    """An instruction, a set of instructions or a conversation is not in the expected form."""


class ProgramError(CourseError):
    """A program of lesson 15's language cannot be read, has types that do not fit, or cannot run on.

    ``at`` is the column, from 1 (0: the input); ``records`` the audit trail of a run until there.
    """

    def __init__(self, at: int, reason: str) -> None:
        super().__init__(f"column {at}: {reason}{'' if reason.endswith('?') else '.'}")
        self.at, self.reason = at, reason
        self.records: list[Any] = []


def sentence(error: ValidationError, file: str, prefix: str = "") -> str:
    """The first mistake that pydantic found, as one sentence with file and key."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"] if part != "[key]")
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):  # of a model, of a dataclass
        return f"{file}: unknown key {prefix + where!r}; remove it or correct its spelling."
    if first["type"] == "missing":
        return f"{file}: the key {prefix + where!r} is missing; add it."
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    if not where:
        return f"{file}: {prefix}{message}."
    shown = "" if isinstance(first["input"], Mapping) else f", not {first['input']!r}"
    return f"{file}: {prefix}{where}: {message[:1].lower()}{message[1:]}{shown}."
