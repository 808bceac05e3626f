"""Has what people send changed? An exponentially weighted mean of projected vectors, and an alarm with a stated false rate.

The chart is Lowry's MEWMA: each request's vector, whitened on reference texts, moves a running mean z; under no shift the
statistic (2 - r) / r · ‖z‖² stays small. The threshold comes from simulated streams of reference texts. Taught in lesson 25.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instructlab_utils.errors import ParameterError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Whitening:
    """``(x - mean) @ matrix`` has mean 0 and covariance 1 on the reference: mean (d,), matrix (d, k), float64."""

    mean: Floats
    matrix: Floats

    def __call__(self, x: Any) -> Floats:
        return (np.asarray(x, dtype=np.float64) - self.mean) @ self.matrix


def whitening(reference: Any, k: int = 8) -> Whitening:
    """The first ``k`` principal directions of the reference (n, d), each scaled to variance 1. ParameterError where n is
    below 10 k, or a direction does not vary."""
    x = np.asarray(reference, dtype=np.float64)
    if x.ndim != 2 or len(x) < 10 * k or not np.isfinite(x).all():
        raise ParameterError(f"a reference of shape {x.shape} for {k} directions: need {10 * k} finite rows")
    mean = x.mean(0)
    _, scale, directions = np.linalg.svd(x - mean, full_matrices=False)
    if k > len(scale) or scale[k - 1] <= 1e-9 * scale[0]:
        raise ParameterError(f"the reference varies in fewer than {k} directions: take fewer, or more texts")
    return Whitening(mean, directions[:k].T * (np.sqrt(len(x) - 1) / scale[:k]))


def statistics(u: Floats, weight: float) -> Floats:
    """The chart's value after each request: whitened vectors ``u`` (T, k) or R streams of them (T, R, k) → (T,) or (T, R).
    ``weight`` in (0, 1]: what the newest request counts. Source: Lowry et al. (1992); lesson 25."""
    z, values = np.zeros(u.shape[1:]), np.empty(u.shape[:-1])
    for t, row in enumerate(u):
        z = (1 - weight) * z + weight * row
        values[t] = (2 - weight) / weight * np.square(z).sum(-1)
    return values


def first_alarms(values: Floats, threshold: float) -> Floats:
    """For each stream of ``values`` (T, R), the number of requests until the alarm; infinite where there is none."""
    over = values > threshold
    return np.where(over.any(0), over.argmax(0) + 1.0, np.inf)


def run_length(values: Floats, threshold: float) -> float:
    """Mean number of requests until an alarm, from streams (T, R) that may end before theirs: all requests seen until
    alarm or end, over the alarms. Infinite where there was none."""
    first, most = first_alarms(values, threshold), len(values)
    alarms = np.isfinite(first).sum()
    return float(np.minimum(first, most).sum() / alarms) if alarms else np.inf


def threshold_for(
    reference: Floats, weight: float, run: float, *, streams: int = 200, seed: int = 0
) -> float:
    """The threshold at which streams drawn from the whitened ``reference`` (n, k) run ``run`` requests on average.

    ``streams`` streams of ``2 * run`` requests are drawn with replacement; bisection finds the threshold. ParameterError for
    a weight outside (0, 1] or a run below 20.
    """
    if not 0 < weight <= 1 or run < 20:
        raise ParameterError(f"weight {weight}, {run} requests to a false alarm: (0, 1], and 20 or more")
    rng = np.random.default_rng(seed)
    steps = int(2 * run)
    z, values = np.zeros((streams, reference.shape[1])), np.empty((steps, streams))
    for t in range(steps):  # step by step: all vectors at once would not fit
        z = (1 - weight) * z + weight * reference[rng.integers(len(reference), size=streams)]
        values[t] = (2 - weight) / weight * np.square(z).sum(-1)
    low, high = 0.0, float(values.max())
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if run_length(values, middle) < run else (low, middle)
    return high


class DriftAlarm:
    """The chart, one request at a time. ``feed`` returns whether the value is above the threshold."""

    def __init__(self, whiten: Whitening, threshold: float, weight: float = 0.1) -> None:
        self.whiten, self.threshold, self.weight = whiten, threshold, weight
        self.z = np.zeros(whiten.matrix.shape[1])
        self.value, self.seen, self.alarms = 0.0, 0, 0

    def feed(self, vector: Any) -> bool:
        """``vector``: (d,). An alarm starts the chart again, so that a lasting shift rings again and again."""
        self.z = (1 - self.weight) * self.z + self.weight * self.whiten(vector)
        self.value = float((2 - self.weight) / self.weight * np.square(self.z).sum())
        self.seen += 1
        rings = self.value > self.threshold
        if rings:
            self.alarms += 1
            self.z = np.zeros_like(self.z)
        return rings


def learned(
    reference: Any, *, k: int = 8, weight: float = 0.1, run: float = 2000.0, seed: int = 0
) -> DriftAlarm:
    """An alarm from reference vectors (n, d): directions from one half, the threshold from the other, which the directions
    have not seen. ``run``: requests to a false alarm, on average, where requests are drawn like the reference."""
    x = np.asarray(reference, dtype=np.float64)
    order = np.random.default_rng(seed).permutation(len(x))
    half = len(x) // 2
    whiten = whitening(x[order[:half]], k)
    return DriftAlarm(whiten, threshold_for(whiten(x[order[half:]]), weight, run, seed=seed), weight)
