"""The package's promise: each public function and class names the lesson that derives it, or its module does for all."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from test_defines import ALL, package_code

PACKAGE = Path(__file__).resolve().parents[1] / "instructlab_utils"
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
LESSON = re.compile(r"lessons? \d\d", re.IGNORECASE)
FOR_ALL = re.compile(r"Taught in lessons? \d\d|From lesson \d\d on")
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def public(code: str) -> dict[str, str]:
    """Docstring of every public top-level function and class, by name."""
    nodes = [node for node in ast.parse(code).body if isinstance(node, Definition)]
    return {node.name: ast.get_docstring(node) or "" for node in nodes if node.name[0] != "_"}


def unnamed(code: str) -> list[str]:
    """Public names whose docstring tells no lesson, in a module whose first lines tell none for all of them."""
    if FOR_ALL.search(ast.get_docstring(ast.parse(code)) or ""):
        return []
    return [name for name, told in public(code).items() if not LESSON.search(told)]


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_tells_its_lesson(module):
    assert unnamed((PACKAGE / module).read_text(encoding="utf-8")) == []


def test_what_a_lesson_defines_tells_that_lesson_itself():
    """For a function that a lesson builds word for word, the module's line is not enough."""
    silent = []
    for one in ALL:
        if f"lesson {one.lesson[:2]}" not in public(package_code(one.module))[one.name].lower():
            silent.append(f"{one.module}.{one.name}: lesson {one.lesson[:2]}")
    assert silent == []


def test_a_missing_lesson_is_seen():
    code = '"""A module."""\ndef taught():\n    """Lesson 03."""\ndef told():\n    """Nothing."""\ndef _own(): ...'
    assert unnamed(code) == ["told"]
    assert unnamed(code.replace("A module.", "What lesson 03 does by hand.")) == ["told"]
    assert unnamed(code.replace("A module.", "Taught in lessons 03 and 04.")) == []
