"""The parameters of a notebook: what its tagged cell declares, and values checked against that."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructlab_repro.notebooks.sources import read
from instructlab_utils.errors import NotebookError, ParameterError
from instructlab_utils.project import closest

BOOLS = {"true": True, "false": False, "1": True, "0": False}
TYPES: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "bool": bool,
    "list": list,
    "tuple": (tuple, list),
    "dict": dict,
    "None": type(None),
    "NoneType": type(None),
}


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
    cells = [c for c in read(path).cells if "parameters" in c.metadata.get("tags", [])]
    if not cells:
        return {}
    source = cells[0].source
    rows = source.splitlines()
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise NotebookError(f"{path.name}: the parameters cell is not valid Python ({error})") from error
    found = {}
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            name, value, kind = node.target.id, node.value, ast.unparse(node.annotation).strip("'\"")
        elif (
            isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
        ):
            name, value, kind = node.targets[0].id, node.value, ""
        else:
            continue
        try:
            default = ast.literal_eval(value)
        except ValueError as error:
            raise NotebookError(f"{path.name}: the default of {name!r} must be a constant") from error
        comment = rows[(node.end_lineno or 1) - 1][node.end_col_offset :].strip()
        found[name] = Parameter(name, kind or type(default).__name__, default, comment.lstrip("# "))
    return found


def check_parameters(
    declared: Mapping[str, Parameter], given: Mapping[str, Any], *, parse: bool = False
) -> dict[str, Any]:
    """``given`` as values of the declared types.

    ``parse=True`` reads strings from a command line by the declared type, so ``2e-5`` is a float. A bool is
    not an int; an int is welcome where a float is asked. ParameterError names the parameter, the type, and
    the known names.
    """
    checked = {}
    for name, value in given.items():
        if name not in declared:
            known = ", ".join(f"{p.name} ({p.type})" for p in declared.values()) or "none"
            raise ParameterError(f"unknown parameter {name!r}{closest(name, list(declared))}; known: {known}")
        checked[name] = _convert(name, value, declared[name].type, parse)
    return checked


def _convert(name: str, value: Any, declared: str, parse: bool) -> Any:
    for kind in (part.strip() for part in declared.replace("Optional[", "None | ").split("|")):
        base = kind.split("[")[0].rstrip("]").strip()
        with contextlib.suppress(ValueError, SyntaxError, TypeError, KeyError):
            if parse and isinstance(value, str):
                return _parse(value, base)
            return _accept(value, base)
    shown = f"{value!r}" if parse else f"{value!r} ({type(value).__name__})"
    raise ParameterError(f"parameter {name!r} must be of type {declared}, not {shown}")


def _parse(text: str, kind: str) -> Any:
    if kind == "str":
        return text
    if kind == "bool":
        return BOOLS[text.lower()]
    if kind == "int":
        return int(text)
    if kind == "float":
        return float(text)
    return _accept(ast.literal_eval(text), kind)


def _accept(value: Any, kind: str) -> Any:
    if kind not in TYPES:  # a type that we do not know: the notebook itself must check it
        return value
    if not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind in ("int", "float")):
        raise TypeError(kind)
    return float(value) if kind == "float" else value
