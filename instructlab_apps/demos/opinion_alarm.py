"""An alarm for a share that rises: a CUSUM whose limit is set by simulation, for a stated chance of a false alarm.

The share before is not known: it is counted on a quiet stretch first, and the simulation pays for that too.

Taught in lesson 26.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np

from instructlab_utils.errors import ParameterError

QUIET = 500  # items of the first stretch, on which the usual share is counted
SPAN = 1000  # items for which the chance of a false alarm is stated
LEVEL = 0.05  # the chance of one or more false alarms in SPAN quiet items
ODDS = 2.0  # the rise of the odds that the statistic is made for
RATES = (0.05, 0.10, 0.15, 0.20, 0.25, 0.30, 0.35, 0.40, 0.50, 0.60)


def weights(usual: np.ndarray | float, odds: float = ODDS) -> tuple[np.ndarray, np.ndarray]:
    """What a hit adds to the sum, and what a miss adds (it is below 0): log p₁/p₀ and log (1 - p₁)/(1 - p₀), float64.

    p₀ = ``usual``, strictly between 0 and 1; p₁ has ``odds`` times its odds. Source: Page (1954); lesson 26.
    """
    p = np.asarray(usual, dtype=np.float64)
    if not ((p > 0) & (p < 1)).all() or not odds > 1:
        raise ParameterError(
            f"usual share {usual}, odds {odds}: give a share between 0 and 1, and odds above 1"
        )
    raised = odds * p / (1 - p + odds * p)
    return np.log(raised / p), np.log((1 - raised) / (1 - p))


def counted(hits: np.ndarray | int, n: int = QUIET) -> np.ndarray:
    """The usual share from a count, with half a hit and half a miss added, so that it is never 0 or 1; float64."""
    return (np.asarray(hits) + 0.5) / (n + 1)


@functools.cache
def limits(
    span: int = SPAN, level: float = LEVEL, runs: int = 4000, seed: int = 0
) -> tuple[tuple[float, float], ...]:
    """(share, limit) for the shares of RATES: the sum exceeds the limit in ``span`` quiet items with chance ``level``.

    Each of ``runs`` streams draws its own quiet stretch, counts its own usual share, and uses the limit that belongs to what
    it has counted (two rounds: the limits of the first are scaled until the chance is right).
    """
    rng = np.random.default_rng(seed)
    peaks, usual = [], []
    for rate in RATES:
        share = counted(rng.binomial(QUIET, rate, runs))
        up, down = weights(share)
        total = peak = np.zeros(runs)
        for _ in range(span):
            total = np.maximum(0, total + np.where(rng.random(runs) < rate, up, down))
            peak = np.maximum(peak, total)
        peaks.append(peak)
        usual.append(share)
    first = [float(np.quantile(peak, 1 - level)) for peak in peaks]
    for _ in range(3):
        used = [np.interp(share, RATES, first) for share in usual]
        first = [
            h * float(np.quantile(peak / u, 1 - level)) for h, peak, u in zip(first, peaks, used, strict=True)
        ]
    return tuple(zip(RATES, first, strict=True))


def limit_of(usual: float) -> float:
    """The limit for a usual share, between those of :func:`limits`."""
    rates, found = zip(*limits(), strict=True)
    return float(np.interp(usual, rates, found))


@dataclass
class Watch:
    """Counts a quiet stretch, then watches. After an alarm the sum begins at 0 again.

    ``sums``: the sum that each watched item has brought, before it begins again. ``hits``: every item that was seen, 1 where
    it counts. ``alarms``: places in ``hits`` at which an alarm was raised. ``began``: where the present rise began, a place
    in ``hits``: behind the last item at which the sum was 0.
    """

    hits: list[int] = field(default_factory=list)
    sums: list[float] = field(default_factory=list)
    alarms: list[int] = field(default_factory=list)
    usual: float = float("nan")
    limit: float = float("nan")
    began: int = QUIET
    _steps: tuple[float, float] = (0.0, 0.0)
    _total: float = 0.0

    @property
    def ready(self) -> bool:
        """Whether the quiet stretch is over."""
        return len(self.hits) >= QUIET

    def see(self, hit: bool) -> bool:
        """The next item; True where it raises an alarm."""
        self.hits.append(int(hit))
        if len(self.hits) <= QUIET:
            if len(self.hits) == QUIET:
                self.usual = float(counted(sum(self.hits)))
                self.limit = limit_of(self.usual)
                up, down = weights(self.usual)
                self._steps = float(up), float(down)
            return False
        self._total = max(0.0, self._total + self._steps[0 if hit else 1])
        self.sums.append(self._total)
        raised = self._total > self.limit
        if raised:
            self.alarms.append(len(self.hits) - 1)
            self._total = 0.0
        if self._total == 0:
            self.began = len(self.hits)
        return raised
