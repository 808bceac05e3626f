"""The parameters of a notebook: what its tagged cell declares, and values checked against that."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Optional

from pydantic import ConfigDict, TypeAdapter, ValidationError

from instructlab_repro.notebooks.sources import read
from instructlab_utils.errors import NotebookError, ParameterError
from instructlab_utils.project import closest

BUILT_IN = {kind.__name__: kind for kind in (str, int, float, bool, list, tuple, dict, type(None))}
TYPE_SYNTAX = (ast.Expression, ast.Name, ast.Load, ast.Constant, ast.Subscript, ast.Tuple, ast.List, ast.BinOp,
               ast.BitOr)  # fmt: skip
NAMES = {**BUILT_IN, "Any": Any, "Literal": Literal, "Optional": Optional}


@dataclass(frozen=True)
class Parameter:
    """A name of the cell tagged ``parameters``: its declared type as text, its default, and its comment."""

    name: str
    type: str
    default: Any
    help: str = ""


def inspect_notebook(path: str | Path) -> dict[str, Parameter]:
    """The parameters that a notebook declares, in order.

    Read from the syntax tree: papermill's own inspection gives up on a comment that holds an equals sign.
    NotebookError if the cell is not valid Python or a default is not a constant.
    """
    path = Path(path)
    cells = [cell for cell in read(path).cells if "parameters" in cell.metadata.get("tags", [])]
    source = cells[0].source if cells else ""
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise NotebookError(f"{path.name}: the parameters cell is not valid Python ({error})") from error
    found = {}
    for node in body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        if not isinstance(target, ast.Name):
            continue
        try:
            default = ast.literal_eval(node.value)
        except ValueError as error:
            raise NotebookError(f"{path.name}: the default of {target.id!r} must be a constant") from error
        kind = type(default).__name__
        if isinstance(node, ast.AnnAssign):
            kind = ast.unparse(node.annotation).strip("'\"")
        comment = source.splitlines()[(node.end_lineno or 1) - 1][node.end_col_offset :]
        found[target.id] = Parameter(target.id, kind, default, comment.strip().lstrip("# "))
    return found


def check_parameters(
    declared: Mapping[str, Parameter], given: Mapping[str, Any], *, parse: bool = False
) -> dict[str, Any]:
    """``given`` as values of the declared types.

    ``parse=True`` reads strings from a command line by the declared type, so ``2e-5`` is a float. A bool is
    not an int; an int is welcome where a float is asked. ParameterError names the parameter, the type, and
    the known names.
    """
    for name in given:
        if name not in declared:
            known = ", ".join(f"{p.name} ({p.type})" for p in declared.values()) or "none"
            raise ParameterError(f"unknown parameter {name!r}{closest(name, list(declared))}; known: {known}")
    return {name: _checked(declared[name], value, parse) for name, value in given.items()}


def _type(text: str) -> Any:
    """The declared type; Any where it is none that we know: the notebook itself must check it then.

    Only names, subscripts and ``|`` are evaluated: inspecting a notebook must not run what stands in it.
    """
    with contextlib.suppress(NameError, SyntaxError, TypeError):
        tree = ast.parse(text, mode="eval")
        if all(isinstance(node, TYPE_SYNTAX) for node in ast.walk(tree)):
            return eval(compile(tree, "<type>", "eval"), {"__builtins__": NAMES})
    return Any


def _checked(parameter: Parameter, value: Any, parse: bool) -> Any:
    adapter = TypeAdapter(_type(parameter.type), config=ConfigDict(strict=True))
    with contextlib.suppress(ValidationError, ValueError, SyntaxError):
        if not (parse and isinstance(value, str)):
            return adapter.validate_python(value)
        with contextlib.suppress(ValidationError):
            return adapter.validate_strings(value)
        return adapter.validate_python(ast.literal_eval(value))  # None, a list, a table
    shown = f"{value!r}" if parse else f"{value!r} ({type(value).__name__})"
    raise ParameterError(f"parameter {parameter.name!r} must be of type {parameter.type}, not {shown}")
