"""How often the intervals of a verdict hold the truth, on simulated runs.

    python benchmarks/coverage.py    # a minute; writes benchmarks/coverage.json and the table of docs/how-sure.md

``coverage``: two methods answer the same test examples on every seed. An answer is right with probability Φ(skill of
the method + luck of the seed + ease of the example), where the ease has a part of its own for each method. There are
two truths: *these examples*, the mean difference over all seeds on this test set, and *new examples*, the mean over all
test sets too. The t interval over seeds aims at the first, the crossed interval over seeds and examples at the second.

``worlds``: the luck of a seed is normal, heavy-tailed (Student's t with 3 degrees of freedom, as wide), or one run in
ten collapses: the better method then answers like a coin. Truths are means over all seeds, collapsed ones included.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm, t

from instructlab_repro.pages import grid, update_blocks
from instructlab_utils.intervals import Interval, crossed, hierarchical_bootstrap, t_interval

PAGE = Path(__file__).with_name("coverage.json")
SEEDS, EXAMPLES, SIMULATIONS, SAMPLES, LEVEL = (5, 10, 20), 400, 2000, 500, 0.95
SKILL = np.array([1.05, 0.85])
LUCK, EASE, OWN = 0.1, 0.8, 0.5  # standard deviations: of seeds, of examples, of examples under one method
COLLAPSED = 0.1  # of the runs

Luck = Callable[[np.random.Generator, int], np.ndarray]
WORLDS: dict[str, Luck] = {
    "normal": lambda rng, seeds: rng.normal(0, LUCK, (2, seeds)),
    "heavy_tailed": lambda rng, seeds: LUCK * rng.standard_t(3, (2, seeds)) / 3**0.5,
    "one_in_ten_collapses": lambda rng, seeds: np.stack(
        [
            np.where(rng.random(seeds) < COLLAPSED, -np.inf, rng.normal(0, LUCK, seeds)),
            rng.normal(0, LUCK, seeds),
        ]
    ),
}
INTERVALS: dict[str, Callable[[np.ndarray, int], Interval]] = {
    "t_interval": lambda y, _: t_interval(y.mean(axis=1), LEVEL),
    "crossed": lambda y, _: crossed(y[None]).interval(LEVEL),
    "hierarchical_bootstrap": lambda y, samples: hierarchical_bootstrap(y[None], samples, LEVEL),
}


def _expected(luck: np.ndarray, ease: np.ndarray, skill: float) -> np.ndarray:
    """Chance of a right answer by example: the mean over ``luck``, where -inf answers like a coin."""
    there = luck[np.isfinite(luck)]
    share = len(there) / len(luck)
    return share * norm.cdf(skill + there[:, None] + ease).mean(axis=0) + (1 - share) * 0.5


def draw(
    rng: np.random.Generator, seeds: int, examples: int, world: str, every: np.ndarray
) -> tuple[np.ndarray, float]:
    """correct(a) - correct(b), shape (seeds, examples), and the truth about these examples.

    ``every``, shape (2, many), stands for all seeds of the world.
    """
    ease = rng.normal(0, EASE, examples) + rng.normal(0, OWN, (2, examples))
    luck = WORLDS[world](rng, seeds)
    chance = norm.cdf(SKILL[:, None, None] + luck[:, :, None] + ease[:, None, :])
    chance[~np.isfinite(luck)] = 0.5
    correct = (rng.random(chance.shape) < chance).astype(float)
    these = [_expected(every[i], ease[i], SKILL[i]).mean() for i in range(2)]
    return correct[0] - correct[1], float(these[0] - these[1])


def measure(
    seeds: int, simulations: int, samples: int, world: str = "normal", examples: int = EXAMPLES
) -> dict[str, dict[str, float]]:
    """Interval → truth → share of the simulations whose interval holds it; and the intervals' mean width."""
    rng = np.random.default_rng(seeds)
    levels = np.linspace(0.025, 0.975, 20)  # the means of as many equal shares of the seeds
    every = {
        "normal": np.tile(LUCK * norm.ppf(levels), (2, 1)),
        "heavy_tailed": LUCK * np.tile(t.ppf(levels, 3), (2, 1)) / 3**0.5,
    }
    every["one_in_ten_collapses"] = every["normal"].copy()
    every["one_in_ten_collapses"][0, :: round(1 / COLLAPSED)] = -np.inf
    spread = np.random.default_rng(0).normal(0, np.hypot(EASE, OWN), 20_000)
    new = np.subtract(*(_expected(every[world][i], spread, SKILL[i]).mean() for i in range(2)))
    inside, width = np.zeros((len(INTERVALS), 2)), np.zeros(len(INTERVALS))
    for _ in range(simulations):
        differences, these = draw(rng, seeds, examples, world, every[world])
        for i, interval_of in enumerate(INTERVALS.values()):
            found = interval_of(differences, samples)
            inside[i] += [found.low <= truth <= found.high for truth in (these, new)]
            width[i] += found.high - found.low
    return {
        name: {
            "these_examples": round(inside[i, 0] / simulations, 4),
            "new_examples": round(inside[i, 1] / simulations, 4),
            "width": round(width[i] / simulations, 4),
        }
        for i, name in enumerate(INTERVALS)
    }


def page(simulations: int = SIMULATIONS, samples: int = SAMPLES) -> dict[str, Any]:
    worlds = {
        world: {str(seeds): measure(seeds, simulations, samples, world) for seeds in SEEDS}
        for world in WORLDS
    }
    return {
        "level": LEVEL,
        "examples": EXAMPLES,
        "simulations": simulations,
        "bootstrap_samples": samples,
        "coverage": worlds["normal"],
        "worlds": worlds,
    }


def table(found: dict[str, Any]) -> str:
    """How often each interval held the truth, by world and number of seeds."""
    worlds = {"normal": found["coverage"], **found["worlds"]}
    seeds, truths = sorted(found["coverage"], key=int), ("these_examples", "new_examples")
    heads = [f"{words}: {' / '.join(seeds)} seeds" for words in ("this test set", "new examples")]
    rows = [["luck of a seed", "interval", *heads]]
    for world, by_seeds in worlds.items():
        for name in by_seeds[seeds[0]]:
            shares = [" / ".join(f"{by_seeds[n][name][truth]:.1%}" for n in seeds) for truth in truths]
            rows.append([world.replace("_", " "), name.replace("_", " "), *shares])
    note = f"{found['simulations']} simulated experiments, {found['examples']} test examples, "
    return f"{grid(rows, [True, True, False, False])}\n\n{note}nominal {found['level']:.0%}.\n"


if __name__ == "__main__":
    found = page()
    PAGE.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    update_blocks(PAGE.parents[1] / "docs" / "how-sure.md", {"coverage": table(found)})
    print(PAGE.read_text(encoding="utf-8"))
