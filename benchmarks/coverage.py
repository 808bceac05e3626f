"""How often the two intervals of a verdict hold the truth, on simulated runs: writes benchmarks/coverage.json.

    python benchmarks/coverage.py    # about a minute on one idle core

Two methods answer the same test examples on every seed. An answer is right with probability Φ(skill of the method +
luck of the seed + ease of the example), where the ease has a part of its own for each method. There are two truths:
*these examples*, the mean difference over all seeds on this test set, which is what a verdict speaks of, and *new
examples*, the mean over all test sets too. The t interval over seeds aims at the first.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from instructlab_repro.claims import hierarchical_bootstrap
from instructlab_utils.intervals import t_interval

PAGE = Path(__file__).with_name("coverage.json")
SEEDS, EXAMPLES, SIMULATIONS, SAMPLES, LEVEL = (5, 10), 400, 2000, 500, 0.95
SKILL = np.array([1.05, 0.85])
LUCK, EASE, OWN = 0.1, 0.8, 0.5  # standard deviations: of seeds, of examples, of examples under one method


def draw(rng: np.random.Generator, seeds: int, examples: int) -> tuple[np.ndarray, float, float]:
    """correct(a) - correct(b), shape (seeds, examples), and the two truths."""
    ease = rng.normal(0, EASE, examples) + rng.normal(0, OWN, (2, examples))
    luck = rng.normal(0, LUCK, (2, seeds, 1))
    chance = norm.cdf(SKILL[:, None, None] + luck + ease[:, None, :])
    correct = (rng.random(chance.shape) < chance).astype(float)
    these = norm.cdf((SKILL[:, None] + ease) / np.sqrt(1 + LUCK**2)).mean(axis=1)
    new = norm.cdf(SKILL / np.sqrt(1 + LUCK**2 + EASE**2 + OWN**2))
    return correct[0] - correct[1], float(these[0] - these[1]), float(new[0] - new[1])


def measure(
    seeds: int, simulations: int, samples: int, examples: int = EXAMPLES
) -> dict[str, dict[str, float]]:
    """Interval → truth → share of the simulations whose interval holds it; and the intervals' mean width."""
    rng = np.random.default_rng(seeds)
    inside = np.zeros((2, 2))
    width = np.zeros(2)
    for number in range(simulations):
        differences, *truths = draw(rng, seeds, examples)
        found = (
            t_interval(differences.mean(axis=1), LEVEL),
            hierarchical_bootstrap(differences[None], samples, LEVEL, seed=number),
        )
        for i, interval in enumerate(found):
            inside[i] += [interval.low <= truth <= interval.high for truth in truths]
            width[i] += interval.high - interval.low
    return {
        name: {
            "these_examples": round(inside[i, 0] / simulations, 4),
            "new_examples": round(inside[i, 1] / simulations, 4),
            "width": round(width[i] / simulations, 4),
        }
        for i, name in enumerate(("t_interval", "hierarchical_bootstrap"))
    }


def page(simulations: int = SIMULATIONS, samples: int = SAMPLES) -> dict[str, Any]:
    return {
        "level": LEVEL,
        "examples": EXAMPLES,
        "simulations": simulations,
        "bootstrap_samples": samples,
        "coverage": {str(seeds): measure(seeds, simulations, samples) for seeds in SEEDS},
    }


if __name__ == "__main__":
    PAGE.write_text(json.dumps(page(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))
