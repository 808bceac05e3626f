"""What a stranger may send: so many requests a minute, so many bytes, so deep a JSON. Taught in lesson 25."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable
from typing import Any

from instructlab_utils.errors import CourseError

_STRINGS, _BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL), re.compile(rb"[\[\]{}]")


class Refusal(CourseError):
    """A request that is turned away: HTTP ``status``, one sentence, the parameter where there is one, and seconds after
    which a second try may succeed (0: the same request never will)."""

    def __init__(self, status: int, message: str, param: str | None = None, after: float = 0.0) -> None:
        super().__init__(message)
        self.status, self.param, self.after = status, param, after


class Bucket:
    """Holds ``burst`` tokens at most and gains ``rate`` a second; a request takes one. ``clock``: seconds, monotonic."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst, self.clock = rate, burst, clock
        self.tokens, self.at = burst, clock()

    def take(self) -> float:
        """0 where a token was there and is taken; else the seconds until there will be one."""
        now = self.clock()
        self.tokens, self.at = min(self.burst, self.tokens + self.rate * (now - self.at)), now
        if self.tokens < 1:
            return (1 - self.tokens) / self.rate
        self.tokens -= 1
        return 0.0


class RateLimits:
    """One bucket for each key id: ``per_minute`` requests in the long run, a tenth of them (one at least) at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.buckets: dict[str, Bucket] = {}

    def admit(self, id: str, per_minute: float) -> None:
        """Raises Refusal (429) where the key has used up its share."""
        bucket = self.buckets.get(id)
        if bucket is None or bucket.rate != per_minute / 60:
            bucket = self.buckets[id] = Bucket(per_minute / 60, max(1.0, per_minute / 10), self.clock)
        if (wait := bucket.take()) > 0:
            raise Refusal(
                429, f"more than {per_minute:g} requests a minute: wait {math.ceil(wait)} s", after=wait
            )


def depth(body: bytes) -> int:
    """How deep the brackets of a JSON text are nested; those inside strings do not count."""
    deepest = now = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub(b"", body)):
        now += 1 if bracket in b"[{" else -1
        deepest = max(deepest, now)
    return deepest


def parsed_json(body: bytes, deepest: int = 8) -> dict[str, Any]:
    """The object in ``body``. Refusal (400) for what is no JSON in UTF-8, too deep, or no object; NaN and Infinity are no
    JSON either."""
    if depth(body) > deepest:
        raise Refusal(400, f"the JSON is nested deeper than {deepest}: send a flat object")

    def no_number(word: str) -> Any:
        raise ValueError(f"{word} is no number of JSON")

    try:
        value = json.loads(body.decode("utf-8"), parse_constant=no_number)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is no JSON in UTF-8: send one object") from None
    if not isinstance(value, dict):
        raise Refusal(400, "the body is JSON, but no object: send {…}")
    return value
