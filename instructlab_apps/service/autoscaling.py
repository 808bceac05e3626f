"""Replicas that come late: a simulation of autoscaling, event by event, on recorded service times. Taught in lesson 25."""

from __future__ import annotations

import heapq
import math
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instructlab_utils.errors import ParameterError

Floats = NDArray[np.float64]
RECORDED = Path(__file__).with_name("measured.toml")


@dataclass(frozen=True)
class Scaled:
    """What became of the day: ``latency`` of each request (n,) in seconds, from arrival to answer; ``at`` (m,), times of
    the decisions, and ``replicas`` (m,), how many there were then; ``paid``: seconds of replicas, cold starts included."""

    latency: Floats
    at: Floats
    replicas: Floats
    paid: float


def measured() -> dict[str, Any]:
    """What benchmarks/service.py has recorded: ``seconds`` of one request alone by route, ``batch`` (``sizes`` and
    ``seconds``), ``curve`` (a row for each server and rate), and the ``machine``."""
    return tomllib.loads(RECORDED.read_text(encoding="utf-8"))


def recorded(route: str) -> Floats:
    """Recorded service times of one request alone, in seconds (n,). ParameterError for an unknown route."""
    told = measured()["seconds"]
    if route not in told:
        raise ParameterError(f"no recorded times of {route!r}; known: {', '.join(told)}")
    return np.asarray(told[route], dtype=np.float64)


def arrivals_of(rate: Callable[[float], float], highest: float, until: float, seed: int = 0) -> Floats:
    """Arrival times in [0, until): a Poisson process whose rate changes, by thinning one of rate ``highest``.

    Source: Lewis and Shedler (1979); lesson 25.
    """
    rng = np.random.default_rng(seed)
    n = rng.poisson(highest * until)
    times = np.sort(rng.random(n) * until)
    kept = rng.random(n) * highest < np.array([rate(t) for t in times])
    return times[kept]


def autoscaled(
    arrivals: Floats, services: Floats, *, target: float, cold: float, most: int = 1000, least: int = 1,
    every: float = 15.0, hold: float = 300.0, first: int | None = None,
) -> Scaled:  # fmt: skip
    """Requests in one line before replicas that take one at a time; each ``every`` seconds the number is set anew.

    The rule is Kubernetes': wanted = ⌈busy / target⌉, where ``busy`` is the work that came a second since the last decision,
    and the number falls to no less than was wanted in the last ``hold`` seconds. A new replica answers after ``cold``
    seconds and is paid from its order on; one that is let go finishes its request first.

    ParameterError for a target outside (0, 1], or numbers of replicas that make no sense.
    """
    if not 0 < target <= 1 or not 1 <= least <= most or len(arrivals) != len(services):
        raise ParameterError(
            f"target {target}, {least} to {most} replicas, {len(arrivals)} arrivals: see above"
        )
    have = max(least, min(most, first or least))
    free = [0.0] * have  # when each replica is free, a heap
    latency, at, sizes, wishes = np.empty(len(arrivals)), [0.0], [have], [(0.0, have)]
    decide, work, paid, drop = every, 0.0, 0.0, 0

    def decided(now: float) -> None:
        nonlocal have, work, paid, drop
        paid += have * every
        wishes.append((now, max(least, min(most, math.ceil(work / every / target)))))
        while wishes[0][0] < now - hold:
            wishes.pop(0)
        wanted, work = max(size for _, size in wishes), 0.0
        for _ in range(have, wanted):
            if drop:  # one that was to go stays
                drop -= 1
            else:
                heapq.heappush(free, now + cold)
        drop += max(0, have - wanted)
        have = wanted
        at.append(now)
        sizes.append(have)

    for i, (now, need) in enumerate(zip(arrivals.tolist(), services.tolist(), strict=True)):
        while now >= decide:
            decided(decide)
            decide += every
        while drop and len(free) > 1:  # the one that is free first goes
            heapq.heappop(free)
            drop -= 1
        done = max(heapq.heappop(free), now) + need
        heapq.heappush(free, done)
        latency[i] = done - now
        work += need
    return Scaled(latency, np.array(at), np.array(sizes, dtype=np.float64), paid)
