"""Rules about yes-or-no outputs: how probable it is that they hold, the loss that asks for it, and the best world in which
they do.

A network says n bits by logits z (…, n), independent of each other. A *world* is an assignment of all bits; a rule is the
set of worlds that it allows, a bool tensor (S, n). Built in lesson 24, sections 9 and 10.

Taught in lesson 24.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise, product
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from instructlab_utils import features, tasks
from instructlab_utils.errors import ParameterError
from instructlab_utils.losses import cross_entropy, log_sum_exp, upcast

MOST = 16  # bits that are enumerated: 65,536 worlds
CUTS = (-1.5, 0.0, 1.5)  # of the films' ratings: not very bad, good, very good
TEXTS = {
    "topics": ("bbc-topics", 2),
    "ratings": ("movie-sentiment", 3),
}  # task, and one group in how many is the pool


def worlds(n: int, rule: Callable[[Sequence[bool]], bool]) -> Tensor:
    """All assignments of ``n`` bits that ``rule`` allows, bool (S, n), in the order of counting.

    Raises ParameterError where the rule allows none, and for more than 16 bits. Source: lesson 24, section 9.
    """
    if not 1 <= n <= MOST:
        raise ParameterError(f"{n} bits: 1 to {MOST} can be enumerated")
    found = [bits for bits in product((False, True), repeat=n) if rule(bits)]
    if not found:
        raise ParameterError("the rule allows no world: nothing could satisfy it")
    return torch.tensor(found)


def exactly(n: int, k: int = 1) -> Tensor:
    """The rule "exactly ``k`` of ``n`` bits", as worlds; for k = 1 the i-th world has bit i."""
    found = worlds(n, lambda bits: sum(bits) == k)
    return found.flip(0)


def chain(n: int) -> Tensor:
    """The rule "each bit implies the one before it": n + 1 worlds, the i-th has the first i bits."""
    return worlds(n, lambda bits: all(a or not b for a, b in pairwise(bits)))


def log_holds(z: Tensor, allowed: Tensor) -> Tensor:
    """ln P(the rule holds) for bits with logits ``z`` (…, n); ``allowed`` is bool (S, n). Float32 or wider, shape (…).

    The weighted model count: the sum over allowed worlds of the product of the probabilities of their bits. A world's
    probability is exp(sum of its bits' logits) / Π (1 + exp(z_i)), so the denominator is taken out once.
    Raises ParameterError where shapes do not fit or a logit is NaN. Source: Xu et al. (2018); lesson 24, section 9.
    """
    z = _checked(z, allowed)
    return log_sum_exp(z @ allowed.to(z.dtype).T) - softplus(z).sum(-1)


def semantic_loss(z: Tensor, allowed: Tensor) -> Tensor:
    """Minus :func:`log_holds`, shape (…): 0 where the rule is sure to hold (lesson 24).

    Its gradient is P(bit) - P(bit | rule).
    """
    return -log_holds(z, allowed)


def world_losses(z: Tensor, allowed: Tensor, y: Tensor) -> Tensor:
    """Minus ln P(world y | the rule holds), shape (N,): z (N, n), y (N,) numbers of allowed worlds.

    Source: lesson 24, section 10.
    """
    z = _checked(z, allowed)
    return cross_entropy(z @ allowed.to(z.dtype).T, y)


def most_probable(z: Tensor, allowed: Tensor) -> Tensor:
    """The number of the most probable allowed world, int64 of shape (…): rules as post-processing; of equals the first.

    Source: lesson 24, section 10.
    """
    z = _checked(z, allowed)
    return (z @ allowed.to(z.dtype).T).argmax(-1)


def holds(z: Tensor, allowed: Tensor) -> Tensor:
    """Whether the bits z > 0, each decided alone, are an allowed world: bool (…)."""
    z = _checked(z, allowed)
    return ((z > 0)[..., None, :] == allowed).all(-1).any(-1)


def judged(z: Tensor, allowed: Tensor, y: Tensor) -> dict[str, float | bool]:
    """What logits z (N, n) are worth where world y (N,) is right: ``accuracy`` and ``loss`` (nats) of the world that the rule
    allows, ``violations`` and ``bits`` (share that is exactly right) of bits that are decided alone, and ``one_class``.

    Source: lesson 24, section 10.
    """
    best = most_probable(z, allowed)
    return {
        "accuracy": (best == y).double().mean().item(),
        "loss": world_losses(z, allowed, y).double().mean().item(),
        "violations": 1 - holds(z, allowed).double().mean().item(),
        "bits": ((z > 0) == allowed[y]).all(-1).double().mean().item(),
        "one_class": len(set(best.tolist())) == 1,
    }


def _checked(z: Tensor, allowed: Tensor) -> Tensor:
    if (
        allowed.dtype != torch.bool
        or allowed.ndim != 2
        or z.shape[-1:] != allowed.shape[1:]
        or len(allowed) == 0
    ):
        raise ParameterError(
            f"logits {tuple(z.shape)}, rule {tuple(allowed.shape)}, {allowed.dtype}: give (…, n) and bool (S, n)"
        )
    if z.isnan().any():
        raise ParameterError("a logit is NaN: no world has a probability")
    return upcast(z)


def bit_entropy(z: Tensor) -> Tensor:
    """The sum of the entropies of bits with logits z (…, n), shape (…): what a loss without a rule could ask for."""
    z = upcast(z)
    return (softplus(z) - z * torch.sigmoid(z)).sum(-1)


def fit_bits(
    x: Tensor,
    bits: Tensor,
    decay: float,
    *,
    pool: Tensor | None = None,
    extra: Callable[[Tensor], Tensor] | None = None,
    weight: float = 0.0,
    steps: int = 200,
    rate: float = 0.05,
) -> tuple[Callable[[Tensor], Tensor], list[float]]:
    """A linear head: x (N, d) → logits of n bits; ``bits`` (N, n), 0 or 1. Returns it, and the loss at each update.

    The loss is the binary cross-entropy, summed over the bits, mean over the texts, plus ``weight`` × the mean of
    ``extra(logits)`` over ``pool`` (texts whose bits nobody knows), plus ``decay`` / 2 × the squared weights. Full batch,
    Adam from 0. Raises ParameterError where the loss is not finite. Source: lesson 24, section 10.
    """
    head = torch.nn.Linear(x.shape[1], bits.shape[1], dtype=x.dtype)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    optimizer, losses = torch.optim.Adam(head.parameters(), lr=rate), []
    binary = torch.nn.functional.binary_cross_entropy_with_logits
    for _ in range(steps):
        loss = binary(head(x), bits.to(x.dtype), reduction="none").sum(1).mean()
        loss = loss + decay / 2 * head.weight.square().sum()
        if extra is not None and pool is not None:
            loss = loss + weight * extra(head(pool)).mean()
        if not loss.isfinite():
            raise ParameterError(f"the loss is {loss.item()}: lower the rate, or look at the features")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return lambda new: head(new).detach(), losses


ARMS = ("no_rule", "rule", "rule_labelled", "entropy", "wrong_rule", "permuted")


def fit_arm(
    arm: str, x: Tensor, y: Tensor, allowed: Tensor, wrong: Tensor, seed: int = 0, **knobs: Any
) -> tuple[Callable[[Tensor], Tensor], list[float]]:
    """:func:`fit_bits` on x (N, d), of which the first ``len(y)`` rows have a world, by one of ``ARMS``.

    ``rule`` asks on all rows that the rule ``allowed`` holds, ``rule_labelled`` on the labelled ones alone, ``wrong_rule``
    for the rule ``wrong``, ``entropy`` for sure bits; ``permuted`` shuffles the labels. Source: lesson 24, section 10.
    """
    if arm not in ARMS:
        raise ParameterError(f"unknown arm {arm!r}: choose one of {', '.join(ARMS)}")
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    bits = allowed[y[order] if arm == "permuted" else y]
    asked: dict[str, Callable[[Tensor], Tensor]] = {
        "entropy": bit_entropy,
        "wrong_rule": partial(semantic_loss, allowed=wrong),
    }
    extra = asked.get(arm, partial(semantic_loss, allowed=allowed))
    pool = None if arm in ("no_rule", "permuted") else x[: len(y) if arm == "rule_labelled" else None]
    return fit_bits(x[: len(y)], bits, pool=pool, extra=extra, **knobs)


def texts(
    name: str, seed: int, pool: int, test: int, seeds: Sequence[int] | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, y of ``pool`` texts in the order of ``seed``, and x, y of ``test`` texts; x are kept features of length 1.

    ``topics``: y is one of five worlds of ``exactly(5)``. ``ratings``: y counts how many of ``CUTS`` a film's rating passes,
    a world of ``chain(3)``. With ``seeds`` the seed has test texts of its own, without them they are of dev.
    Source: lesson 24, section 10.
    """
    task, every = TEXTS[name]
    kept, order, rest, dev = features.split_pool(task, every, seed, pool)
    rows = tasks.disjoint(rest, test, seed, seeds) if seeds else tasks.subsample(dev, test, 0)
    x, new = (torch.nn.functional.normalize(features.mean_states(part["text"])) for part in (kept, rows))
    if name == "topics":
        y, right = (torch.tensor(part["label"]) for part in (kept, rows))
    else:
        y, right = (
            torch.bucketize(torch.tensor(part["rating"]), torch.tensor(CUTS)) for part in (kept, rows)
        )
    return x[order], y[order], new, right
