"""``new KIND NAME``: the files that a lesson, an experiment, a claim or a task needs by hand, as a skeleton.

A skeleton passes every test except those that say what is missing: for a lesson its parity test and its long exercises,
for the rest the line that begins with SKELETON. The texts stand in ``templates/``.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from instructlab_repro import notebooks
from instructlab_utils.errors import ParameterError
from instructlab_utils.files import write_text
from instructlab_utils.project import closest, find_root, shown, text_of

TEMPLATES = Path(__file__).with_name("templates")
TASKS = "data/tasks.toml"


@dataclass(frozen=True)
class Skeleton:
    """What one kind is called, which files it needs (template → path), and what its author does next."""

    pattern: str
    example: str
    files: dict[str, str]
    then: str


_KINDS = tomllib.loads(text_of(TEMPLATES.with_name("kinds.toml")))
KINDS = {kind: Skeleton(**row) for kind, row in _KINDS.items()}


def new(kind: str, name: str, *, own_notebook: bool = False) -> list[Path]:
    """Write the skeleton of a lesson, experiment, claim or task; returns the files that its author fills in.

    ``own_notebook`` gives an experiment a notebook of its own, instead of the shared one, ``tuning``.
    Raises ParameterError for an unknown kind, a name of another form, and a name that is taken; nothing is written then.
    """
    if kind not in KINDS:
        raise ParameterError(f"unknown kind {kind!r}{closest(kind, [*KINDS])}; known: {', '.join(KINDS)}")
    skeleton = KINDS[kind]
    if not re.fullmatch(skeleton.pattern, name):
        raise ParameterError(f"{name!r} is no name for {_a(kind)}; write one like {skeleton.example}")
    if own_notebook and kind != "experiment":
        raise ParameterError(f"{_a(kind)} has no notebook to choose; leave --notebook out")
    files = dict(skeleton.files)
    if own_notebook:
        files["notebook.py"] = "notebooks/experiments/source/@NAME@.py"
    words = _words(kind, name, own_notebook)
    templates = {find_root() / _filled(place, words): template for template, place in files.items()}
    _refuse_what_is_taken(kind, name, list(templates))
    for path, template in templates.items():
        text = _filled((TEMPLATES / f"{template}.txt").read_text(encoding="utf-8"), words)
        write_text(path, (text_of(path) if kind == "task" else "") + text)
    if kind == "lesson" or own_notebook:
        notebooks.build([name])
    return list(templates)


def next_step(kind: str, name: str) -> str:
    """The commands after the skeleton is filled in."""
    return _filled(KINDS[kind].then, _words(kind, name, False))


def _words(kind: str, name: str, own_notebook: bool) -> dict[str, str]:
    title = (name[3:] if kind == "lesson" else name).replace("_", " ").capitalize()
    notebook = name if own_notebook else "tuning"
    return {"@NN@": name[:2], "@NAME@": name, "@TITLE@": title, "@NOTEBOOK@": notebook}


def _filled(text: str, words: dict[str, str]) -> str:
    for mark, word in words.items():
        text = text.replace(mark, word)
    return text


def _refuse_what_is_taken(kind: str, name: str, paths: list[Path]) -> None:
    if kind == "task":
        if not paths[0].is_file():
            raise ParameterError(f"{TASKS} is not here; run this inside a clone of the repository")
        if re.search(rf"^\[task\.{name}\]", text_of(paths[0]), re.MULTILINE):
            raise ParameterError(f"{TASKS} has a task {name!r} already; choose another name")
        return
    taken = [path for path in paths if path.exists()]
    if kind == "lesson":
        taken += sorted(paths[0].parent.glob(f"{name[:2]}_*.py"))
    if taken:
        raise ParameterError(f"{shown(taken[0])} is there already; choose another name")


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
