"""Versions of a model: a canary gets a small share of the requests, a sequential test watches it, and one step goes back.

Taught in lesson 25.
"""

from __future__ import annotations

import hashlib
import math
import sqlite3
from pathlib import Path
from typing import NamedTuple

from instructlab_utils.errors import ParameterError


class Sprt:
    """Wald's sequential test of a rate: is it ``low`` or ``high``? ``feed`` each event; the answer is "" (go on), "low" or
    "high". The chance to say "high" of a good one is about ``alpha`` at most, to say "low" of a bad one about ``beta``.

    Source: Wald (1945); lesson 25.
    """

    def __init__(self, low: float, high: float, alpha: float = 0.01, beta: float = 0.01) -> None:
        if not 0 < low < high < 1 or not 0 < alpha < 0.5 or not 0 < beta < 0.5:
            raise ParameterError(
                f"rates {low} and {high}, errors {alpha} and {beta}: 0 < low < high < 1, below 0.5"
            )
        self.step = (math.log((1 - high) / (1 - low)), math.log(high / low))  # of a good event, of a bad one
        self.bounds = math.log(beta / (1 - alpha)), math.log((1 - beta) / alpha)
        self.sum, self.n = 0.0, 0

    def feed(self, bad: bool) -> str:
        self.sum += self.step[bool(bad)]
        self.n += 1
        return "low" if self.sum <= self.bounds[0] else "high" if self.sum >= self.bounds[1] else ""


class Route(NamedTuple):
    """The version that most get, the one on trial (or None), and the share of requests that get it."""

    stable: str
    candidate: str | None
    share: float


def place_of_unit(name: str, unit: str) -> float:
    """A number in [0, 1) that depends on the two texts alone: the same caller meets the same version again."""
    return int.from_bytes(hashlib.sha256(f"{name}\0{unit}".encode()).digest()[:8]) / 2**64


class Rollout:
    """Routes in the SQLite file ``path``, so that a restart forgets nothing. ``low``, ``high``: rates of disagreement with
    the stable version that are fine, and that are not."""

    def __init__(self, path: Path | str, low: float = 0.05, high: float = 0.2) -> None:
        self.db = sqlite3.connect(path, timeout=30.0, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute(
            "CREATE TABLE IF NOT EXISTS routes (name TEXT PRIMARY KEY, stable TEXT NOT NULL, candidate TEXT, share REAL)"
        )
        self.rates, self.tests = (low, high), dict[str, Sprt]()

    def add(self, name: str, stable: str) -> None:
        """A new name with its first version; what is there already stays."""
        self.db.execute("INSERT OR IGNORE INTO routes VALUES (?, ?, NULL, 0)", (name, stable))

    def route(self, name: str) -> Route:
        """ParameterError for an unknown name."""
        row = self.db.execute(
            "SELECT stable, candidate, share FROM routes WHERE name = ?", (name,)
        ).fetchone()
        if row is None:
            raise ParameterError(f"no model {name!r}: GET /v1/models lists them")
        return Route(*row)

    def version(self, name: str, unit: str) -> str:
        """Which version the caller ``unit`` gets."""
        stable, candidate, share = self.route(name)
        return candidate if candidate and place_of_unit(name, unit) < share else stable

    def start(self, name: str, candidate: str, share: float) -> None:
        """Put ``candidate`` on trial. ParameterError for a share outside (0, 1], or the version that is stable anyway."""
        if not 0 < share <= 1 or candidate == self.route(name).stable:
            raise ParameterError(
                f"{name}: candidate {candidate!r} with share {share}: another version, a share in (0, 1]"
            )
        self.db.execute("UPDATE routes SET candidate = ?, share = ? WHERE name = ?", (candidate, share, name))
        self.tests[name] = Sprt(*self.rates)

    def promote(self, name: str) -> None:
        """The candidate becomes the stable version. ParameterError where there is none."""
        if self.route(name).candidate is None:
            raise ParameterError(f"{name}: no version is on trial, so none can be promoted")
        self.db.execute(
            "UPDATE routes SET stable = candidate, candidate = NULL, share = 0 WHERE name = ?", (name,)
        )
        self.tests.pop(name, None)

    def rollback(self, name: str) -> None:
        """Everybody gets the stable version again, from the next request on."""
        self.route(name)
        self.db.execute("UPDATE routes SET candidate = NULL, share = 0 WHERE name = ?", (name,))
        self.tests.pop(name, None)

    def judged(self, name: str, bad: bool) -> bool:
        """Tell of one answer of the candidate; True where this one made it fall: it is rolled back."""
        test = self.tests.setdefault(name, Sprt(*self.rates))
        said = test.feed(bad)
        if said == "high":
            self.rollback(name)
            return True
        if said == "low":
            self.tests[name] = Sprt(*self.rates)  # good so far; it stays on watch
        return False

    def close(self) -> None:
        self.db.close()
