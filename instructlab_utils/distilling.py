"""A small network that learns from a larger one's probabilities. Built in lesson 25, section 2. Taught in lesson 25."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instructlab_utils.errors import ParameterError, TrainingError
from instructlab_utils.losses import cross_entropy, log_softmax


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T² times the mean divergence KL(teacher at T ‖ student at T) over rows, in nats; logits of shape (N, K).

    The factor keeps the gradient's size as T grows. The teacher gets no gradient. Raises ParameterError for other shapes or
    a temperature that is not positive. Source: Hinton, Vinyals and Dean (2015), section 2; lesson 25, section 2.
    """
    if student.shape != teacher.shape or not temperature > 0:
        raise ParameterError(
            f"logits {tuple(student.shape)} and {tuple(teacher.shape)}, T = {temperature}: one shape, T above 0"
        )
    log_q = log_softmax(student / temperature)
    log_p = log_softmax(teacher.detach() / temperature)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(-1).mean()


def network(inputs: int, hidden: int, classes: int, seed: int) -> nn.Sequential:
    """One hidden layer of ReLUs, first values drawn from ``seed``; ``hidden`` 0 is a linear head."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if not hidden:
            return nn.Sequential(nn.Linear(inputs, classes))
        return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def learn(
    net: nn.Module, x: Tensor, y: Tensor, *, rate: float, decay: float, steps: int = 200, smoothing: float = 0.0,
    pool: Tensor | None = None, told: Tensor | None = None, temperature: float = 1.0,
) -> list[float]:  # fmt: skip
    """AdamW with full batches on labels ``y`` (N,), and on what a teacher ``told`` of ``pool``, with equal weight.

    ``told`` is (M, K), the teacher's logits, learned by :func:`distillation_loss`; or (M,), labels that it named. ``net`` is
    changed in place. Returns the loss of each step. TrainingError where it stops being finite. Source: lesson 25, section 2.
    """
    if (pool is None) != (told is None):
        raise ParameterError("a pool without what a teacher told of it, or the reverse: give both or none")
    optimizer, losses = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=decay), []
    for _ in range(steps):
        loss = cross_entropy(net(x), y, smoothing).mean()
        if pool is not None and told is not None:
            z = net(pool)
            more = (
                distillation_loss(z, told, temperature) if told.ndim == 2 else cross_entropy(z, told).mean()
            )
            loss = loss + more
        if not loss.isfinite():
            raise TrainingError(f"the loss is {loss.item()}: lower the rate")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
