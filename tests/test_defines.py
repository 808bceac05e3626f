"""A lesson's cell tagged ``defines:module.name`` holds the very function that the package offers.

Compared are the two syntax trees, without docstrings and annotations, for every lesson source.
"""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import jupytext
import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "notebooks" / "source").glob("*.py"))


@dataclass(frozen=True)
class Definition:
    """One tagged cell: the lesson's file name, the package's module and function, the cell's code."""

    lesson: str
    module: str
    name: str
    code: str


def definitions(source: Path) -> list[Definition]:
    """The tagged cells of one lesson source, in order."""
    found = []
    for cell in jupytext.read(source, fmt="py:percent").cells:
        for tag in cell.metadata.get("tags", []):
            if tag.startswith("defines:"):
                module, _, name = tag.removeprefix("defines:").rpartition(".")
                found.append(Definition(source.name, module, name, cell.source))
    return found


class Bare(ast.NodeTransformer):
    """Drops annotations and docstrings, which may differ between a lesson and the package."""

    def _definition(self, node):
        self.generic_visit(node)
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        if hasattr(node, "returns"):
            node.returns = None
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _definition

    def visit_arg(self, node):
        node.annotation = None
        return node

    def visit_AnnAssign(self, node):
        self.generic_visit(node)
        if node.value is None:
            return node
        return ast.copy_location(ast.Assign(targets=[node.target], value=node.value), node)


def tree(code: str, name: str) -> str | None:
    """The dump of the top-level function or class ``name`` in ``code``, or None where it is not defined."""
    for node in ast.parse(code).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name:
            return ast.dump(Bare().visit(node))
    return None


def package_code(module: str) -> str:
    """The source text of ``instructlab_utils.<module>``, or of ``instructlab_<module>`` for ``apps.…``; no import."""
    parts = module.split(".")
    home = ["instructlab_apps", *parts[1:]] if parts[0] == "apps" else ["instructlab_utils", *parts]
    path = ROOT.joinpath(*home).with_suffix(".py")
    assert path.is_file(), (
        f"a lesson defines something of {module}, but {path.relative_to(ROOT)} does not exist"
    )
    return path.read_text(encoding="utf-8")


ALL = [definition for source in SOURCES for definition in definitions(source)]


@pytest.mark.parametrize("one", ALL, ids=lambda d: f"{d.lesson}-{d.module}.{d.name}")
def test_lesson_and_package_define_the_same_function(one):
    """The lesson's function is the package's, word for word but for docstring and annotations."""
    in_lesson = tree(one.code, one.name)
    in_package = tree(package_code(one.module), one.name)
    assert in_lesson, (
        f"{one.lesson}: the cell tagged defines:{one.module}.{one.name} does not define {one.name}"
    )
    assert in_package, f"{one.module} has no top-level {one.name}, which {one.lesson} says it defines"
    assert in_lesson == in_package, f"{one.lesson} and instructlab_utils.{one.module} differ in {one.name}"


def test_each_definition_is_taught_once():
    """A function has one home among the lessons."""
    names = [f"{one.module}.{one.name}" for one in ALL]
    assert sorted(set(names)) == sorted(names)


def test_lesson_01_defines_the_losses():
    """The walk does find the tags: lesson 01 builds exactly what the losses module offers."""
    offered = importlib.util.find_spec("instructlab_utils.losses")
    names = {one.name for one in ALL if one.lesson.startswith("01_") and one.module == "losses"}
    public = {
        node.name
        for node in ast.parse(Path(offered.origin).read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }
    assert names and names <= public
    assert {
        "log_sum_exp",
        "log_softmax",
        "binary_cross_entropy",
        "cross_entropy",
        "masked_cross_entropy",
    } <= names


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ("def f(x):\n    return x + 1", 'def f(x: int) -> int:\n    """Add one."""\n    return x + 1', True),
        ("def f(x):\n    y = x\n    return y", "def f(x):\n    y: int = x\n    return y", True),
        ('def f(x):\n    "only words"', "def f(x):\n    pass", True),
        ("def f(x):\n    return x + 1", "def f(x):\n    return x - 1", False),
        ("def f(x):\n    return x", "def f(x, y=0):\n    return x", False),
        ("def f(x, y=0):\n    return x", "def f(x, y=1):\n    return x", False),
        ("def f(x):\n    return x  # why", "def f(x):\n    return x", True),
    ],
)
def test_the_comparison_itself(ours, theirs, same):
    """Docstrings, comments and annotations do not count; code and defaults do."""
    assert (tree(ours, "f") == tree(theirs, "f")) is same


def test_a_missing_definition_is_seen():
    """A tag on a cell that does not define the name is an error, not a pass."""
    assert tree("g = 1", "f") is None
