"""What makes a training run this run and no other: every setting, the data, the functions, the model's form.

A run's folder keeps it, and a call with another identity is refused there: the old result would pass for the new one, or
a resumed run would mix both. From lesson 03 on.
"""

from __future__ import annotations

import dataclasses
import dis
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from instructlab_utils.errors import TrainingError
from instructlab_utils.files import dumps

PLAIN = (type(None), bool, int, float, complex, str, bytes)


def run_identity(
    model: nn.Module, examples: Iterable[Any], dev: Iterable[Any] | None, processes: int, **settings: Any
) -> dict[str, Any]:
    """All that shapes a run, as JSON knows it: ``settings``, of functions their code and what they enclose, of data a hash.

    The number of ``processes`` belongs to it only where dropout draws: without, any number trains the same model. The first
    values of the weights do not: a checkpoint replaces them.
    """
    trained = [(n, tuple(p.shape)) for n, p in model.named_parameters() if p.requires_grad]
    kinds = sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters()})
    forward = ", bfloat16 forward" if any(p.is_cuda for p in model.parameters()) else ""
    draws = any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 for m in model.modules())
    shown = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(model))  # layers, sizes, dropout; no address
    found = {name: described(value) for name, value in settings.items()}
    found |= {
        "examples": _hash_of(examples),
        "dev": None if dev is None else _hash_of(dev),
        "model": f"{type(model).__name__} {_sha(shown)}",
        "trainable": f"{len(trained)} tensors {_sha(dumps(trained))}",
        "precision": f"{' and '.join(kinds)}{forward}",
        "processes": processes if draws else None,
    }
    return json.loads(dumps(found))


def must_be_the_same(folder: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """TrainingError that names every difference with both values."""
    names = [name for name in {**wanted, **stored} if stored.get(name) != wanted.get(name)]
    if names:
        old, new = (" and ".join(f"{name} {run.get(name)}" for name in names) for run in (stored, wanted))
        functions = {"schedule", "objective", "after_step", "evaluate"} & set(names)
        why = (
            " (a function's hash tells its code, the Python that compiled it, what it encloses)"
            if functions
            else ""
        )
        raise TrainingError(
            f"{folder}: holds a run with {old}, not {new}{why}; choose another folder or delete this one"
        )


def described(value: Any) -> Any:
    """A setting as it is stored: plain values as they are, a function by its name and a hash of what it does.

    What a function does is its code, its defaults, the arguments of a :func:`functools.partial`, and the numbers, strings,
    tensors and functions that it encloses or that its object holds. Not looked at is what a run may change: variables that
    the function itself sets, and enclosed lists and dicts. Nor are global variables, nor the code of this package's own
    functions: an update of the package does not end a run.
    """
    if not callable(value):
        return value
    inner = value
    while isinstance(inner, functools.partial):
        inner = inner.func
    name = getattr(inner, "__qualname__", type(inner).__qualname__)
    return f"{name} {_sha(repr(_facts(value, set())))}"


def _facts(value: Any, seen: set[int]) -> Any:
    """What two processes see alike in ``value``: no addresses, no order of sets."""
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, frozenset):
        return sorted(repr(_facts(item, seen)) for item in value)
    if id(value) in seen:  # a function that encloses itself
        return "again"
    seen = seen | {id(value)}
    if isinstance(value, list | tuple):
        return [_facts(item, seen) for item in value]
    if isinstance(value, dict):
        return [(_facts(key, seen), _facts(item, seen)) for key, item in value.items()]
    if isinstance(value, CodeType):
        return value.co_code, value.co_names, [_facts(constant, seen) for constant in value.co_consts]
    if isinstance(value, functools.partial):
        return [_facts(part, seen) for part in (value.func, value.args, value.keywords)]
    if isinstance(value, MethodType):
        return _facts(value.__func__, seen), _facts(value.__self__, seen)
    if isinstance(value, FunctionType):
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        kept = {name: cell.cell_contents for name, cell in cells if cell != type(cell)()}  # the filled ones
        ours = value.__module__.partition(".")[0] == __name__.partition(".")[0]
        parts = (
            value.__qualname__ if ours else value.__code__,
            value.__defaults__,
            value.__kwdefaults__,
            _held(kept, "STORE_DEREF", value),
        )
        return [_facts(part, seen) for part in parts]
    if isinstance(value, Tensor):
        array = value.detach().cpu().contiguous()
        return str(array.dtype), tuple(array.shape), _sha(array.reshape(-1).view(torch.uint8).numpy())
    if isinstance(value, np.ndarray | np.generic):
        return _facts(value.tolist(), seen)
    name = getattr(value, "__qualname__", type(value).__qualname__)
    if isinstance(value, nn.Module | type) or not (callable(value) or dataclasses.is_dataclass(value)):
        return name
    methods = {n: f for n, f in vars(type(value)).items() if isinstance(f, FunctionType) and n != "__init__"}
    held = _held(getattr(value, "__dict__", {}), "STORE_ATTR", *methods.values())
    return name, _facts(methods.get("__call__"), seen), _facts(held, seen)


def _held(variables: Mapping[str, Any], store: str, *functions: FunctionType) -> dict[str, Any]:
    """Those of the variables that none of the functions sets, and that are no containers that it could fill."""
    changed = {i.argval for f in functions for i in dis.get_instructions(f) if i.opname == store}
    free = {n: v for n, v in variables.items() if n not in changed}
    return {n: type(v).__name__ if isinstance(v, list | dict | set) else v for n, v in free.items()}


def _hash_of(examples: Iterable[Any]) -> str:
    """Number and content of the examples, in their order."""
    rows, digest = list(examples), hashlib.sha256()
    for row in rows:
        digest.update(dumps(row).encode() + b"\n")
    return f"{len(rows)} with SHA-256 {digest.hexdigest()[:16]}"


def _sha(content: Any) -> str:
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()[:16]
