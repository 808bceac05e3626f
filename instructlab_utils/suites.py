"""Suites of texts for a test, as data: a TOML file below data/suites/ and the pydantic model that it must fit.

From lesson 19 on; the behavioural tests of that lesson, and the pairs and the attacks of lesson 22, are such files.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from instructlab_utils.errors import ConfigError, sentence
from instructlab_utils.project import find_root, read_toml, shown

Model = TypeVar("Model", bound=BaseModel)


def read(path: Path | str, model: type[Model]) -> tuple[Model, str]:
    """The suite in a TOML file, a relative path from the project's root, and the file's name for messages.

    ConfigError, one sentence with file and place, where the file cannot be read, is no TOML, or does not fit the model.
    """
    path = Path(path) if Path(path).is_absolute() else find_root() / path
    try:
        return model.model_validate(read_toml(path, shown(path))), shown(path)
    except OSError as error:
        raise ConfigError(f"{shown(path)}: cannot be read ({error.strerror}).") from None
    except ValidationError as error:
        raise ConfigError(sentence(error, shown(path))) from None
