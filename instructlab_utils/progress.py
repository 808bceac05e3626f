"""How long work is shown, decided in one place: a bar that moves in a terminal, whole lines everywhere else.

A log, a pipe and a notebook's output keep every carriage return; half a bar would stay there for good.

From lesson 03 on.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Self

PAUSE = 15.0  # seconds at least between two lines on one piece of work


def moves() -> bool:
    """Whether a bar may move: standard error is a terminal that can go back to the start of its line."""
    return bool(sys.stderr and sys.stderr.isatty()) and os.environ.get("TERM") != "dumb"


class Lines:
    """In place of a bar, with the few methods of tqdm that we call: a line now and then, and a last one."""

    def __init__(self, desc: str = "", total: float | None = None, unit: str = "") -> None:
        self.desc, self.total, self.unit, self.n = desc, total, unit, 0.0
        self._told, self._last = 0.0, time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.n != self._told:
            self._say()

    def _say(self) -> None:
        from tqdm import tqdm

        self._told, self._last = self.n, time.monotonic()
        n, total = (tqdm.format_sizeof(number) + self.unit for number in (self.n, self.total or 0))
        print(f"{self.desc}: {n}{f' of {total}' if self.total else ''}", file=sys.stderr, flush=True)

    def update(self, n: float = 1) -> None:
        self.n += n
        if time.monotonic() - self._last >= PAUSE:
            self._say()

    def write(self, text: str, **_: Any) -> None:
        """The line on one item; the next :meth:`update` counts it without a line of its own."""
        of = f" of {self.total:.0f}" if self.total else ""
        print(f"{text} ({self.n + 1:.0f}{of})", file=sys.stderr, flush=True)
        self._told, self._last = self.n + 1, time.monotonic()

    def set_postfix_str(self, *_: Any, **__: Any) -> None:
        """A bar says what runs at the moment; a log hears of it when it has ended."""


def bar_or_lines(
    desc: str = "", total: float | None = None, unit: str = "", *, disable: bool = False, **settings: Any
) -> Any:
    """A tqdm bar on standard error where one may move, else :class:`Lines`; both are context managers."""
    if not moves() and not disable:
        return Lines(desc, total, unit)
    from tqdm import tqdm

    return tqdm(desc=desc or None, total=total, unit=unit, file=sys.stderr, disable=disable, **settings)
