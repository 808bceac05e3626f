"""Would more labels help? A power law through the learning curve, with a band that is as wide as it must be.

error(n) = a + b n^(-c). Four sizes cannot tell a from c, so the band holds every c that fits nearly as well, and all
resampled seeds; the law must also foretell the largest size from the three smaller ones before it may foretell more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

EXPONENTS = (0.15, 0.25, 0.35, 0.5, 0.75, 1.0)
DRAWS = 400


@dataclass
class Curve:
    """``points``: size, mean accuracy, lowest and highest seed. ``ahead``: size, low, middle, high of the band. ``passed``:
    the band from the smaller sizes held the last point; ``gain`` is the band of doubling, in accuracy."""

    method: str
    points: list[tuple[int, float, float, float]]
    ahead: list[tuple[int, float, float, float]]
    passed: bool
    gain: tuple[float, float, float]
    words: str


def fitted(sizes: np.ndarray, errors: np.ndarray, c: float) -> tuple[float, float, float]:
    """a ≥ 0, b ≥ 0 and the squared residual of the least-squares line in n^(-c)."""
    z = sizes**-c
    slope, level = np.polyfit(z, errors, 1)
    if slope < 0:  # more data seem to hurt: flat
        slope, level = 0.0, float(errors.mean())
    elif level < 0:
        level, slope = 0.0, float((z * errors).sum() / (z * z).sum())
    return float(level), float(slope), float(((level + slope * z - errors) ** 2).sum())


def band(
    sizes: Sequence[int], errors: np.ndarray, at: Sequence[int], tests: int, seed: int = 0
) -> np.ndarray:
    """Low, middle, high of the error at each size of ``at``, (len(at), 3); ``errors`` is (seeds, sizes).

    Seeds are resampled; each draw adds the binomial noise of ``tests`` test texts in all and takes one of the exponents
    at random, in proportion to how well it fits. The noise at a size ahead is that of the law alone.
    """
    rng, n = np.random.default_rng(seed), np.asarray(sizes, dtype=float)
    mean = errors.mean(0)
    noise = np.sqrt(np.maximum(mean * (1 - mean), 0.25 / tests) / tests)
    out = np.zeros((DRAWS, len(at)))
    for draw in range(DRAWS):
        picked = errors[rng.integers(0, len(errors), len(errors))].mean(0)
        picked = np.clip(picked + noise * rng.standard_normal(len(n)), 0, 1)
        fits = [fitted(n, picked, c) for c in EXPONENTS]
        weight = np.exp([-0.5 * residual / (noise**2).mean() for _, _, residual in fits])
        i = rng.choice(len(EXPONENTS), p=weight / weight.sum() if weight.sum() else None)
        level, slope, _ = fits[i]
        out[draw] = level + slope * np.asarray(at, dtype=float) ** -EXPONENTS[i]
    return np.quantile(np.clip(out, 0, 1), [0.025, 0.5, 0.975], axis=0).T


def learned(
    lines: Sequence[dict[str, Any]], method: str, finals: dict[int, tuple[int, float, int]]
) -> Curve | None:
    """The curve of one method, from its lines and ``finals``: seed → size, accuracy, test texts with all data. None where
    fewer than three sizes have two seeds in common."""
    rows: dict[int, dict[float, tuple[int, float]]] = {}
    for line in lines:
        if line["kind"] == "curve" and line["method"] == method and line["seed"] in finals:
            rows.setdefault(line["seed"], {})[line["share"]] = (line["n"], line["accuracy"])
    shares = sorted({share for mine in rows.values() for share in mine})
    whole = {seed: mine for seed, mine in rows.items() if all(share in mine for share in shares)}
    if len(shares) < 2 or len(whole) < 2:
        return None
    table = np.array(
        [[1 - mine[s][1] for s in shares] + [1 - finals[seed][1]] for seed, mine in whole.items()]
    )
    first = [np.mean([mine[s][0] for mine in whole.values()]) for s in shares]
    sizes = [round(float(n)) for n in [*first, np.mean([finals[seed][0] for seed in whole])]]
    tests = sum(finals[seed][2] for seed in whole)
    passed = True
    if len(sizes) > 3:
        (low, _, high), *_ = band(sizes[:-1], table[:, :-1], [sizes[-1]], tests)
        slack = 2 * float(np.sqrt(max(table[:, -1].mean() * (1 - table[:, -1].mean()), 0.25 / tests) / tests))
        passed = bool(low - slack <= table[:, -1].mean() <= high + slack)
    last = sizes[-1]
    ahead = [round(last * factor) for factor in (1, 1.4, 2, 2.8, 4)]
    bands = 1 - band(sizes, table, ahead, tests)[:, ::-1]
    points = [
        (n, 1 - float(e.mean()), 1 - float(e.max()), 1 - float(e.min()))
        for n, e in zip(sizes, table.T, strict=True)
    ]
    low, middle, high = (float(x) for x in bands[2])
    # the law's own value today, not the noisy point, is what doubling is compared with
    now = float(bands[0][1])
    gain = (low - now, middle - now, high - now)
    words = _words(gain, last, passed)
    return Curve(
        method,
        points,
        [(n, float(a), float(b), float(c)) for n, (a, b, c) in zip(ahead, bands, strict=True)],
        passed,
        gain,
        words,
    )


def _words(gain: tuple[float, float, float], last: int, passed: bool) -> str:
    low, middle, high = (100 * x for x in gain)
    if not passed:
        return (
            "The curve did not foretell its own last point from the smaller ones, so no number is given for more labels; "
            "look at the points."
        )
    places = f"{middle:+.1f} points, band [{low:+.1f}, {high:+.1f}]".replace("-", "−")
    told = f"Twice as many labels (about {2 * last:,}) would bring {places}"
    if high < 1:
        return f"{told}: more labels of the same kind hardly help this method."
    if low > 0.5:
        return f"{told}: more labels help."
    return f"{told}: they may help, and may not."
