"""How long will people wait? Formulas for one server, and simulations that need none of their assumptions.

Times in seconds, rates in requests a second. Taught in lesson 25.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instructlab_utils.errors import ParameterError

Floats = NDArray[np.float64]


def pollaczek_khinchine(rate: float, mean: float, square: float) -> float:
    """Mean wait before service, M/G/1: arrivals at random with ``rate``, service with E[S] = ``mean`` and E[S²] =
    ``square``. Infinite where rate · mean reaches 1. ParameterError for impossible moments.

    Source: Pollaczek (1930), Khinchine (1932); lesson 25.
    """
    if rate < 0 or mean <= 0 or square < mean * mean * (1 - 1e-9):
        raise ParameterError(f"rate {rate}, E[S] {mean}, E[S²] {square}: E[S²] is at least E[S]²")
    load = rate * mean
    return rate * square / (2 * (1 - load)) if load < 1 else float("inf")


def waits(gaps: Any, services: Any) -> Floats:
    """Lindley's recursion, W ← max(0, W + S − A), for all customers at once: ``gaps`` (n,) between arrivals, the first
    before the first customer, ``services`` (n,); returns the wait of each (n,), float64. The first finds nobody.

    A sum that is pushed up at 0 is that sum minus its lowest value so far. Source: Lindley (1952); lesson 25.
    """
    a, s = np.asarray(gaps, dtype=np.float64), np.asarray(services, dtype=np.float64)
    if a.shape != s.shape or a.ndim != 1 or (a < 0).any() or (s < 0).any():
        raise ParameterError(
            f"{a.shape} gaps and {s.shape} services: need one row each, of the same length, from 0"
        )
    free = np.concatenate([[0.0], np.cumsum(s[:-1] - a[1:])])
    return free - np.minimum.accumulate(free)


def batched(arrivals: Any, seconds: Callable[[int], float], most: int) -> tuple[Floats, list[int]]:
    """A server that takes everybody who waits, ``most`` at once at most, and needs ``seconds(batch size)``.

    ``arrivals`` (n,): times in order. Returns each customer's time from arrival to answer (n,), and the sizes of the
    batches. ParameterError for times out of order.
    """
    times = np.asarray(arrivals, dtype=np.float64)
    if (np.diff(times) < 0).any() or most < 1:
        raise ParameterError(f"arrivals must be in order, and a batch holds 1 or more, not {most}")
    free, at, taken, sizes = 0.0, 0, np.empty(len(times)), []
    while at < len(times):
        begin = max(free, times[at])
        end = min(int(np.searchsorted(times, begin, side="right")), at + most)
        free = begin + seconds(end - at)
        taken[at:end] = free - times[at:end]
        sizes.append(end - at)
        at = end
    return taken, sizes


def batch_in_balance(rate: float, fixed: float, each: float) -> float:
    """The batch size n at which as many come while one batch is computed as are in it: n = rate · (fixed + each · n).

    ``fixed`` + ``each`` · n: seconds of a batch. Never below 1; infinite where rate · each reaches 1. Source: lesson 25.
    """
    if rate * each >= 1:
        return float("inf")
    return max(1.0, rate * fixed / (1 - rate * each))
