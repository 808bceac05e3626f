"""Does a verdict depend on a word that must not matter? Pairs of texts, a gap, and a penalty in the training objective.

A *pair* is two texts that differ in one word, such as "the woman waits ." and "the man waits .". The classifier is a linear
head on kept features: s = x w + b, where s > 0 says positive. Rows of ``a`` and ``b`` are the features of the two texts of
a pair, (M, d). Built in lesson 22 (notebooks/source/22_safety.py). Source of the penalty: Garg et al. (2019),
counterfactual logit pairing.

Taught in lesson 22.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from instructlab_utils import suites
from instructlab_utils.errors import ConfigError, ParameterError, TrainingError

Text = Annotated[str, Field(pattern=r"\S")]
PLACE = "{person}"


class Groups(BaseModel):
    """Pairs of words, the first of one group and the second of another, and templates with one ``{person}`` each."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Text
    pairs: Annotated[tuple[tuple[Text, Text], ...], Field(min_length=2)]
    templates: Annotated[tuple[Text, ...], Field(min_length=2)]


def load(path: Path | str = "data/suites/groups.toml") -> Groups:
    """The suite in a TOML file. ConfigError, one sentence with file and place, where it is not well formed, where a word or
    template stands there twice, and where a template has no place or several places for the word."""
    suite, file = suites.read(path, Groups)
    words = [word for pair in suite.pairs for word in pair]
    for name, texts in (("pairs", words), ("templates", list(suite.templates))):
        if twice := [text for text in texts if texts.count(text) > 1]:
            raise ConfigError(f"{file}: {name}: {twice[0]!r} stands there twice; remove one.")
    if wrong := [t for t in suite.templates if t.count(PLACE) != 1 or "{" in t.replace(PLACE, "")]:
        raise ConfigError(f"{file}: templates: {wrong[0]!r} needs {PLACE} exactly once, and no other brace.")
    return suite


def halves(suite: Groups, seed: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Text pairs to train on and text pairs to test on: no word and no template stands in both. Source: lesson 22, section 2.

    The seed halves the words and the templates; each half of the words fills each template of its half.
    """
    rng = random.Random(seed)
    pairs = rng.sample(suite.pairs, len(suite.pairs))
    templates = rng.sample(suite.templates, len(suite.templates))
    words = pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]
    frames = templates[: len(templates) // 2], templates[len(templates) // 2 :]

    def filled(half: int) -> list[tuple[str, str]]:
        return [(t.replace(PLACE, a), t.replace(PLACE, b)) for t in frames[half] for a, b in words[half]]

    return filled(0), filled(1)


def pair_penalty(s_a: Tensor, s_b: Tensor) -> Tensor:
    """Mean over the pairs of (s_a - s_b)², a scalar; both (M,). TrainingError for other shapes, or no pair.

    Source: Garg et al. (2019), section 4.3, with a square; lesson 22, section 3.
    """
    if s_a.shape != s_b.shape or s_a.dim() != 1 or not len(s_a):
        raise TrainingError(f"scores {tuple(s_a.shape)} and {tuple(s_b.shape)}: need one of each a pair")
    return (s_a - s_b).square().mean()


def fit_fair(
    x: Tensor,
    y: Tensor,
    decay: float,
    a: Tensor | None = None,
    b: Tensor | None = None,
    strength: float = 0.0,
) -> tuple[Tensor, Tensor, list[float]]:
    """The head (w, b) that minimises mean log-loss + decay |w|² / 2 + strength · penalty of the pairs, and its losses.

    x (N, d), y (N,) of 0 and 1. Newton's method in float64: the problem is convex, so there is one answer, up to rounding; it
    stops when a step no longer lowers the objective. The first loss is that of the zero head.

    ParameterError for a decay that is not positive, a negative strength, or a strength without pairs; TrainingError where a
    number is not finite. Source: lesson 22, section 3.
    """
    if not decay > 0 or not strength >= 0 or (strength and (a is None or b is None)):
        raise ParameterError(
            f"decay {decay}, strength {strength}: need decay above 0, strength from 0, and pairs"
        )
    ones = torch.ones(len(x), 1, dtype=torch.float64)
    X, target = torch.cat([x.double(), ones], 1), y.double()
    if not X.isfinite().all():
        raise TrainingError("a feature is NaN or infinite: look at what made it")
    d = X.shape[1]
    D = torch.zeros(1, d, dtype=torch.float64)
    if strength and a is not None and b is not None:
        D = torch.cat([(a - b).double(), torch.zeros(len(a), 1, dtype=torch.float64)], 1)
    ridge = decay * torch.ones(d, dtype=torch.float64)
    ridge[-1] = 0.0  # the bias is free
    fixed = torch.diag(ridge) + 2 * strength * D.T @ D / len(D)

    def objective(v: Tensor) -> float:
        s = X @ v
        log_loss = (torch.nn.functional.softplus(s) - target * s).mean()
        return float(log_loss + v @ fixed @ v / 2)

    v = torch.zeros(d, dtype=torch.float64)
    losses = [objective(v)]
    for _ in range(50):
        p = (X @ v).sigmoid()
        g = X.T @ (p - target) / len(X) + fixed @ v
        H = (X * (p * (1 - p))[:, None]).T @ X / len(X) + fixed
        H[-1, -1] += 1e-12
        step = torch.linalg.solve(H, g)
        size = 1.0
        while (new := objective(v - size * step)) > losses[-1] and size > 1e-6:
            size /= 2
        if not new < losses[-1] - 1e-13:
            break
        v = v - size * step
        losses.append(new)
    return v[:-1], v[-1], losses


def gap(s_a: Tensor, s_b: Tensor, clean: Tensor) -> float:
    """Mean |s_a - s_b| over the pairs, in standard deviations of the scores ``clean`` of ordinary texts.

    A head that halves all its scores halves |s_a - s_b| and decides nothing otherwise; the division takes that away.
    TrainingError where the ordinary texts all have one score: then there is no scale. Source: lesson 22, section 2.
    """
    spread = float(clean.double().std())
    if not spread > 0:
        raise TrainingError("all ordinary texts have the same score: a gap has no scale")
    return float((s_a - s_b).double().abs().mean()) / spread
