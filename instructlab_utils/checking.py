"""What the checkers of the exercises have in common. From lesson 00 on, on each exercise page.

``call = calls(function)`` calls a learner's function with copies, under a time limit. An argument that was changed in
place, a forgotten ``return``, an exception and a call that does not end are each one AssertionError with the input.
``equal`` compares a result with the right one, says which entry differs, and knows wrong results by name.
"""

from __future__ import annotations

import copy
import ctypes
import inspect
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Number
from typing import Any

import numpy as np
import torch

NUMBER_TOLERANCE = 1e-6  # of a Python number: it may come from float32
TOLERANCE = {torch.float64: 1e-8, torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}
PATIENCE = 6  # how many times its seconds a call may wait on the clock
IDLE = 20  # it waits if it computes less than one second in so many
EXACT_FLOATS = 2**53  # beyond it a float cannot hold every whole number


class _Stopped(BaseException):
    """Raised in the learner's function when its time is over. No ``except Exception`` catches it."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Stop the body after so many seconds of processor time, since a busy machine is no fault. If it hardly computes and
    waits for something that does not come: after ``PATIENCE`` times as many on the clock. It works on every system and
    inside Jupyter: a second thread asks the interpreter to raise ``_Stopped`` here. One long step inside a library ends
    first, since the interpreter cannot cut it."""
    here, done, lock = ctypes.c_ulong(threading.get_ident()), threading.Event(), threading.Lock()
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    used, began = time.process_time(), time.monotonic()

    def watch() -> None:
        pause = min(0.25, seconds / 4)
        while not done.wait(pause):
            busy, clock = time.process_time() - used, time.monotonic() - began
            if busy > seconds or clock > max(PATIENCE * seconds, IDLE * busy):
                with lock:
                    if not done.is_set():
                        raise_in(here, ctypes.py_object(_Stopped))
                pause = 1.0  # once more, should a bare except have caught it

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()
        with lock:
            raise_in(here, None)


class calls:
    """A learner's function, called with copies of the arguments.

    Args:
        function: what the learner wrote.
        limit: seconds of processor time that a call may take.
        slow: the likely reason if it takes longer, a sentence.
        changes: names of arguments that the function is meant to change. They are not copied and not compared.
        none: may the function return None?
    """

    def __init__(
        self,
        function: Callable[..., Any],
        limit: float = 10.0,
        slow: str = "Does it try all combinations, or wait for something that never comes?",
        changes: Sequence[str] = (),
        none: bool = False,
    ) -> None:
        self.function, self.limit, self.slow, self.changes, self.none = function, limit, slow, changes, none
        self.name = getattr(function, "__name__", "the function")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = self._names(args, kwargs)
        passed = {name: value if name in self.changes else copied(value) for name, value in given.items()}
        before = {name: _contents(value) for name, value in given.items() if name not in self.changes}
        result = self._run(tuple(passed.values())[: len(args)], {name: passed[name] for name in kwargs})
        after = {name: _contents(passed[name]) for name in before}
        changed = [name for name in before if _difference(after[name], before[name], "", None, 0.0)]
        if result is None and not self.none:
            instead = f" It changed {changed[0]!r} in place instead." if changed else ""
            raise AssertionError(f"{self.name} returned None. Did you forget return?{instead}")
        if changed:
            raise AssertionError(
                f"{self.name} changed its argument {changed[0]!r} in place. Whoever called it still needs the old one."
            )
        return result

    def refuses(self, error: type[Exception], *args: Any, says: str, **kwargs: Any) -> str:
        """The message of the exception that this call must raise; ``says`` is for a call that goes through."""
        try:
            got = self(*args, **kwargs)
        except AssertionError as caught:
            if isinstance(caught.__cause__, error):
                return str(caught.__cause__)
            if caught.__cause__ is None and "returned None" not in str(caught):
                raise
            kind = type(caught.__cause__).__name__ if caught.__cause__ else "nothing"
            raise AssertionError(f"{says} Raise {error.__name__}; you raise {kind}.") from caught.__cause__
        raise AssertionError(f"{says} Raise {error.__name__}; you return {shown(got)}.")

    def agrees(self, reference: Callable[..., Any], *cases: tuple[Any, ...], **options: Any) -> None:
        """For each case (a tuple of arguments) the same result as the reference; ``options`` as for ``equal``.

        ``wrong`` holds functions here: message → what a wrong function would return for the same arguments.
        """
        wrong = options.pop("wrong", {})
        for case in cases:
            known = {message: function(*map(copied, case)) for message, function in wrong.items()}
            try:
                equal(self(*case), reference(*map(copied, case)), wrong=known, **options)
            except AssertionError as caught:
                known |= {"The input": None}  # what the general reports of a call say themselves
                said = any(text in str(caught) for text in known)
                where = "" if said else f" The input: {self._input(case, {})}."
                raise AssertionError(f"{caught}{where}") from caught.__cause__

    def gradients(self, reference: Callable[..., Any], *args: Any, of: Sequence[int], says: str = "") -> None:
        """The result has a graph that leads to the arguments at the places ``of``, with the reference's gradients."""

        def slopes(function: Callable[..., Any]) -> list[torch.Tensor | None]:
            own = [arg.clone().requires_grad_() if i in of else copied(arg) for i, arg in enumerate(args)]
            result = function(*own)
            parts = result if isinstance(result, list | tuple) else [result]
            live = [part for part in parts if isinstance(part, torch.Tensor) and part.requires_grad]
            if not live:
                return [None for _ in of]
            total = sum((part * torch.linspace(1, 2, part.numel()).view(part.shape)).sum() for part in live)
            return list(torch.autograd.grad(total, [own[i] for i in of], allow_unused=True))

        names = list(self._names(args, {}))
        try:
            found = slopes(lambda *own: self._run(own, {}))
        except RuntimeError as error:  # a tensor of the graph was changed in place, for one
            raise AssertionError(f"{says} The gradient cannot be computed: {error}".strip()) from error
        for i, got, want in zip(of, found, slopes(reference), strict=True):
            if got is None:
                raise AssertionError(
                    f"{says} No gradient reaches {names[i]!r}: .item(), .detach(), .data, torch.no_grad() or a new "
                    "tensor or Parameter made of it cuts the graph.".strip()
                )
            near = TOLERANCE[torch.float32]  # the result may have been collected in float32
            equal(got, want, f"the gradient with respect to {names[i]}", tol=near, says=says)

    def _names(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments by the names that the learner gave them."""
        own = inspect.signature(self.function).parameters.values()
        known = [p.name for p in own if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        known += [f"argument {i + 1}" for i in range(len(known), len(args))]
        return dict(zip(known, args, strict=False)) | kwargs

    def _input(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        return ", ".join(f"{name} = {shown(value)}" for name, value in self._names(args, kwargs).items())

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        said, recorded = f" The input: {self._input(args, kwargs) or 'none'}.", torch.is_grad_enabled()
        try:
            with _time_limit(self.limit):
                return self.function(*args, **kwargs)
        except NotImplementedError:  # the stub: "write your answer here" is no mistake with an input
            raise
        except _Stopped:
            stopped = f"{self.name} was stopped after {self.limit:g} s. {self.slow}"
            raise AssertionError(stopped + said) from None
        except Exception as error:
            raise AssertionError(f"{self.name} raised {type(error).__name__}: {error}.{said}") from error
        finally:
            if torch.is_grad_enabled() != recorded:
                torch.set_grad_enabled(recorded)
                raise AssertionError(
                    f"{self.name} leaves gradients switched off for all that follows. Use `with torch.no_grad():`."
                )


@contextmanager
def means(error: type[Exception], message: str) -> Iterator[None]:
    """If the learner's function raises ``error`` inside the block, say ``message`` instead of the general report."""
    try:
        yield
    except AssertionError as caught:
        if isinstance(caught.__cause__, error):
            raise AssertionError(message) from caught.__cause__
        raise


def equal(
    got: Any,
    want: Any,
    name: str = "the result",
    wrong: Mapping[str, Any] | None = None,
    *,
    dtype: Any = None,
    tol: float | None = None,
    says: str = "",
) -> None:
    """Is ``got`` the right result? If not: the first message of ``wrong`` whose value it has, or the place and both values.

    Args:
        got, want: numbers, strings, tensors, arrays, or lists, tuples and dicts of them. A tensor must be a tensor of
            the same shape. A number may be of any kind (int, np.int64, Fraction, a tensor without axes).
        name: what the result is called in messages.
        wrong: message → a wrong result. One that equals ``want`` in this case is passed over.
        dtype: the dtype that the exercise promises. Without it any will do that holds the value.
        tol: relative tolerance; by default what the coarser of the two dtypes can hold.
        says: a sentence before the general message: what this case is about.
    """
    place = _difference(got, want, name, dtype, tol)
    if not place:
        return
    for message, value in (wrong or {}).items():
        if not _difference(got, value, name, None, tol) and _difference(value, want, name, None, tol):
            raise AssertionError(message)
    raise AssertionError(f"{says} {place}".strip())


def form(got: Any, want: Any, name: str = "the result", *, dtype: Any = None) -> None:
    """As ``equal`` for types, keys, lengths, shapes and the dtype; the values may be anything."""
    equal(got, want, name, dtype=dtype, tol=math.inf)


def near(got: Any, want: float, name: str, wrong: Mapping[str, float] | None = None, *, room: float) -> None:
    """As ``equal`` for one number that may lie ``room`` away from ``want``, whatever the size of both."""
    form(got, 0.0, name)
    if abs(got - want) <= room:
        return
    for message, value in (wrong or {}).items():
        if abs(got - value) <= room < abs(value - want):
            raise AssertionError(message)
    raise AssertionError(f"{name} is {got:.4f}, and should be {want:.4f}.")


def handed_in(study: Callable[[], Any], keys: Sequence[str], limit: float = 10.0) -> dict[str, Any]:
    """What the function of a project returns within ``limit`` seconds: a dict with just these ``keys``."""
    mine = calls(study, limit=limit)()
    assert isinstance(mine, dict), f"Return a dict, not {shown(mine)}."
    missing = [key for key in keys if key not in mine]
    extra = [str(key) for key in mine if key not in keys]
    assert not missing and not extra, (
        f"Keys that are missing: {', '.join(missing) or 'none'}; too many: {', '.join(extra) or 'none'}."
    )
    return mine


def verdict(mine: Mapping[str, Any], low: float, high: float) -> str:
    """The word that the interval gives for "above mine['threshold']"; it has to be mine['verdict']."""
    bar = mine["threshold"]
    word = "supported" if low > bar else "refuted" if high < bar else "undecided"
    assert mine["verdict"] == word, (
        f"verdict: the interval [{low:.3f}, {high:.3f}] against {bar:g} says {word}."
    )
    return word


def predicted(
    prediction: Callable[[], Any], numbers: Sequence[str] = (), **words: Sequence[str]
) -> dict[str, Any]:
    """A learner's predictions as a dict: ``numbers`` are keys of finite numbers, ``words`` keys with the words allowed."""
    mine = calls(prediction)()
    assert isinstance(mine, Mapping), f"Return a dict, not {shown(mine)}."
    keys = [*numbers, *words]
    assert set(mine) == set(keys), f"Keys expected: {', '.join(keys)}. You have {', '.join(map(str, mine))}."
    for key in numbers:
        value = _number(mine[key])
        assert value is not None and math.isfinite(value), (
            f"{key}: a number expected, not {shown(mine[key])}."
        )
    for key, allowed in words.items():
        assert mine[key] in allowed, f"{key}: one of {', '.join(map(repr, allowed))}, not {shown(mine[key])}."
    return {key: _number(value) if key in numbers else value for key, value in mine.items()}


def _difference(got: Any, want: Any, name: str, dtype: Any, tol: float | None) -> str:
    """Where and how two results differ, one sentence; empty if they are equal."""
    if isinstance(want, torch.Tensor | np.ndarray):
        if not isinstance(got, torch.Tensor if isinstance(want, torch.Tensor) else np.ndarray):
            return f"{name}: {type(want).__name__} expected, not {type(got).__name__}: {shown(got)}."
        if tuple(got.shape) != tuple(want.shape):
            turned = " Is it turned round?" if sorted(got.shape) == sorted(want.shape) else ""
            return f"{name}: shape {tuple(want.shape)} expected, not {tuple(got.shape)}.{turned}"
        if dtype is not None and got.dtype != dtype:
            return f"{name}: dtype {dtype} expected, not {got.dtype}."
        return _entries(torch.as_tensor(got).detach().cpu(), torch.as_tensor(want).detach().cpu(), name, tol)
    if isinstance(want, Mapping):
        if not isinstance(got, Mapping):
            return f"{name}: a dict expected, not {shown(got)}."
        if set(got) != set(want):
            return f"{name}: keys expected: {', '.join(map(str, want))}. You have {', '.join(map(str, got)) or 'none'}."
        pairs = [(got[key], want[key], f"{name}[{key!r}]") for key in want]
    elif isinstance(want, list | tuple):
        if isinstance(got, torch.Tensor | np.ndarray) and got.ndim == 1:
            got = got.tolist()
        if not isinstance(got, list | tuple):
            return f"{name}: a {type(want).__name__} of {len(want)} expected, not {shown(got)}."
        if len(got) != len(want):
            return f"{name}: {len(want)} entries expected, not {len(got)}: {shown(got)} instead of {shown(want)}."
        pairs = [(a, b, f"{name}[{i}]") for i, (a, b) in enumerate(zip(got, want, strict=True))]
    else:
        return _plain(got, want, name, tol)
    return next(filter(None, (_difference(a, b, where, dtype, tol) for a, b, where in pairs)), "")


def _plain(got: Any, want: Any, name: str, tol: float | None) -> str:
    a, b = _number(got), _number(want)
    if a is None or b is None or isinstance(want, bool):
        alike = isinstance(got, type(want)) or isinstance(a, type(want))
        return (
            ""
            if alike and (tol == math.inf or got == want)
            else f"{name} is {shown(got)}, and should be {shown(want)}."
        )
    near = NUMBER_TOLERANCE if tol is None else tol
    exact = isinstance(b, int) and tol is None and (isinstance(a, int) or abs(b) > EXACT_FLOATS)
    close = not exact and math.isclose(a, b, rel_tol=near, abs_tol=near if b == 0 else 0.0)
    if a == b or close or tol == math.inf or (a != a and b != b):
        return ""
    one, two = _apart(a, b)
    return f"{name} is {one}, and should be {two}."


def _entries(got: torch.Tensor, want: torch.Tensor, name: str, tol: float | None) -> str:
    if tol == math.inf:
        return ""
    if got.is_floating_point() or want.is_floating_point():
        near = max(TOLERANCE.get(t.dtype, 0.0) for t in (got, want)) if tol is None else tol
        finite = want[want.isfinite()].double().abs()
        room = near * (finite.max().item() if finite.numel() else 1.0)
        bad = ~torch.isclose(got.double(), want.double(), rtol=near, atol=room or near, equal_nan=True)
    else:
        bad = got != want
    if not bad.any():
        return ""
    place = tuple(bad.nonzero()[0].tolist())
    where = f"{name}[{', '.join(map(str, place))}]" if place else name
    one, two = _apart(got[place].item(), want[place].item())
    number = f"; {int(bad.sum())} of {bad.numel()} entries differ" if bad.numel() > 1 else ""
    return f"{where} is {one}, and should be {two}{number}."


def _number(value: Any) -> Any:
    """A Python number for a number of any kind, else None."""
    if isinstance(value, torch.Tensor | np.ndarray | np.generic) and getattr(value, "ndim", 1) == 0:
        value = value.item()
    return value if isinstance(value, Number) and not isinstance(value, complex) else None


def _apart(a: Any, b: Any) -> tuple[str, str]:
    """Two numbers that differ, with as few digits as show it."""
    if not (isinstance(a, int) and isinstance(b, int)):
        for digits in range(4, 18):
            one, two = f"{float(a):.{digits}g}", f"{float(b):.{digits}g}"
            if one != two:
                return one, two
    return repr(a), repr(b)


def copied(value: Any) -> Any:
    """A deep copy of data; functions, modules and random generators are passed as they are."""
    keep = callable(value) or isinstance(value, torch.Generator | np.random.Generator)
    return value if keep else copy.deepcopy(value)


def _contents(value: Any) -> Any:
    return copied(dict(value.state_dict()) if isinstance(value, torch.nn.Module) else value)


def shown(value: Any) -> str:
    """A value in at most 160 characters; a tensor that is longer by its shape."""
    if isinstance(value, torch.Tensor | np.ndarray):
        text = repr(value.tolist()) if math.prod(value.shape) <= 24 else ""
        short = 0 < len(text) <= 160
        return f"{text if short else f'{type(value).__name__} {tuple(value.shape)}'} ({value.dtype})"
    text = repr(value)
    return text if len(text) <= 160 else f"{text[:157]}..."
