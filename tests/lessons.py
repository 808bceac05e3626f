"""Functions that a lesson defines and the package lacks, for tests of them."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jupytext

SOURCES = Path(__file__).resolve().parents[1] / "notebooks" / "source"


def defined(number: str, *names: str, **known: Any) -> SimpleNamespace:
    """The functions ``names`` of lesson ``number``, made in a space that holds ``known``; each stands there once."""
    (source,) = SOURCES.glob(f"{number}_*.py")
    cells = jupytext.read(source, fmt="py:percent").cells
    trees = [ast.parse(cell.source) for cell in cells if cell.cell_type == "code"]
    nodes = [
        node
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name in names
    ]
    assert sorted(node.name for node in nodes) == sorted(names)
    exec(compile(ast.Module(nodes, []), source.name, "exec"), known)
    return SimpleNamespace(**{name: known[name] for name in names})
