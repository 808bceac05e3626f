"""Cross-entropies and what they are made of, in elementary tensor operations.

Each function is built and checked in lesson 01 (notebooks/source/01_empirical_risk.py), in the section that
its docstring names. They return one loss per example or per position, so that the caller chooses the
denominator; only ``masked_cross_entropy`` divides, and it says by what. Values and gradients equal those of
torch.nn.functional.

Logits may be of any floating dtype. They are widened to float32 before anything is added up, and the losses stay
float32 (of float64 logits float64): a sum in bfloat16 stops growing after some hundred terms. The gradient comes back
in the dtype of the logits.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from instructlab_utils.errors import TrainingError

__all__ = [
    "binary_cross_entropy",
    "cross_entropy",
    "entropy",
    "log_softmax",
    "log_sum_exp",
    "masked_cross_entropy",
    "r_drop",
    "sequence_log_probs",
    "sequence_losses",
    "span_loss",
    "symmetric_kl",
    "upcast",
]


def upcast(z: Tensor) -> Tensor:
    """``z`` in float32, or unchanged (the same tensor) where it is float32 or float64; the gradient flows back.

    Source: lesson 01, section 3.
    """
    return z.to(torch.promote_types(z.dtype, torch.float32))


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of a yes-or-no answer, one value per example.

    Args:
        logits: real scores z, any shape, floating.
        targets: the labels y, 0 or 1 (or a probability between them), same shape.

    Returns:
        max(z, 0) − y z + log(1 + exp(−|z|)) in nats, the shape of ``logits``, float32 (float64 of float64); its
        gradient is sigmoid(z) − y.

    Raises:
        TrainingError: the shapes differ (broadcasting would pair every logit with every label), or a label lies
            outside [0, 1]: with −1 for "no" the loss has no lower bound.

    Source: lesson 01, section 3.
    """
    if logits.shape != targets.shape:
        raise TrainingError(f"logits {tuple(logits.shape)}, targets {tuple(targets.shape)}: shapes differ")
    if not ((targets >= 0) & (targets <= 1)).all():
        raise TrainingError("a target lies outside [0, 1]: write 0 for no and 1 for yes")
    logits = upcast(logits)
    positive_part = torch.maximum(logits, torch.zeros_like(logits))
    return positive_part - targets * logits + torch.log1p(torch.exp(-logits.abs()))


def log_sum_exp(z: Tensor, dim: int = -1) -> Tensor:
    """log Σ_k exp(z_k) along ``dim``, which disappears from the shape; finite for every finite ``z``.

    float32, or float64 where ``z`` is. Source: lesson 01, section 4.
    """
    z = upcast(z)
    shift = z.detach().amax(dim, keepdim=True)
    shift = torch.where(shift.isfinite(), shift, torch.zeros_like(shift))
    return torch.exp(z - shift).sum(dim).log() + shift.squeeze(dim)


def log_softmax(z: Tensor, dim: int = -1) -> Tensor:
    """Logarithms of the softmax probabilities along ``dim``, the shape of ``z``; float32, or float64 where ``z`` is.

    The largest logit is subtracted first: the probabilities stay the same, and no digit is lost to an offset.

    Source: lesson 01, section 4.
    """
    z = upcast(z)
    shifted = z - z.detach().amax(dim, keepdim=True)
    return shifted - log_sum_exp(shifted, dim).unsqueeze(dim)


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of one of K classes, one value per example or position.

    Args:
        logits: (..., K), floating.
        targets: (...), int64 class indices in 0 … K − 1.
        smoothing: ε in [0, 1): the target gives 1 − ε to the class and spreads ε evenly over all K.

    Returns:
        −Σ_k q_k log p_k in nats, shape (...), float32 (float64 of float64); its gradient with respect to the logits
        is p − q.

    Raises:
        TrainingError: the shapes do not fit, or ``smoothing`` lies outside [0, 1).
        RuntimeError: a target is not a class index (from ``Tensor.gather``).

    Source: lesson 01, section 6.
    """
    if logits.shape[:-1] != targets.shape or not 0 <= smoothing < 1:
        shapes = f"logits {tuple(logits.shape)}, targets {tuple(targets.shape)}"
        raise TrainingError(f"{shapes}, smoothing {smoothing}: need (..., K), (...) and 0 <= smoothing < 1")
    log_p = log_softmax(logits)
    picked = log_p.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    if smoothing == 0:  # 0 · (−inf) would be nan where a logit is −inf
        return -picked
    return -(1 - smoothing) * picked - smoothing * log_p.mean(-1)


def masked_cross_entropy(
    logits: Tensor, targets: Tensor, denominator: float | Tensor | None = None, ignore_index: int = -100
) -> Tensor:
    """Sum of the cross-entropies over the positions that have a target, divided by ``denominator``.

    Args:
        logits: (..., V), floating. Nothing is shifted here: logits and targets are already aligned.
        targets: (...), int64; a position that holds ``ignore_index`` carries no loss and no gradient.
        denominator: default the number of positions that count, as ``torch`` does. When gradients are
            accumulated, pass the number of the *whole* batch, in every micro-batch (section 10 of the lesson).
        ignore_index: the mark of a position without a target.

    Returns:
        A scalar, in nats, float32 (float64 of float64).

    Raises:
        TrainingError: the shapes do not fit, no position counts (torch would return nan), or the denominator is not
            a positive number.

    Source: lesson 01, section 9.
    """
    if logits.shape[:-1] != targets.shape:
        raise TrainingError(
            f"logits {tuple(logits.shape)}, targets {tuple(targets.shape)}: need (..., V) and (...)"
        )
    counts = targets != ignore_index
    if not counts.any():
        raise TrainingError(f"all {targets.numel()} targets are {ignore_index}: nothing to learn from")
    if denominator is None:
        denominator = counts.sum()
    if not 0 < denominator < math.inf:  # nan is no number either
        raise TrainingError(f"the denominator is {denominator}: it must be positive")
    return cross_entropy(logits[counts], targets[counts]).sum() / denominator


def sequence_log_probs(logits: Tensor, labels: Tensor) -> Tensor:
    """log p(response | prompt) of each row: the sum over its labels of log p(y_t | everything before t).

    Args:
        logits: (B, T, V), floating, as the model returns them. The shift happens here.
        labels: (B, T), int64; -100 where a position belongs to the prompt or to the padding.

    Returns:
        (B,), in nats, at most 0, float32 (float64 of float64). Longer responses have smaller values: see
        :func:`sequence_losses`.

    Raises:
        TrainingError: the shapes do not fit, or a row has no label behind its first position, so it has no response.

    Source: lesson 06, section 4.
    """
    if logits.ndim != 3 or logits.shape[:-1] != labels.shape:
        raise TrainingError(
            f"logits {tuple(logits.shape)}, labels {tuple(labels.shape)}: need (B, T, V) and (B, T)"
        )
    predicted, targets = logits[:, :-1], labels[:, 1:]
    counts = targets != -100
    if not counts.any(1).all():
        row = int((~counts.any(1)).nonzero()[0])
        raise TrainingError(f"row {row} has no label behind its first position: it holds no response")
    log_p = -cross_entropy(predicted[counts], targets[counts])
    return log_p.new_zeros(counts.shape).masked_scatter(counts, log_p).sum(1)


def sequence_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Length-normalised loss of each row: minus its log-probability, divided by its number of labels.

    Args, Raises: as :func:`sequence_log_probs`.

    Returns:
        (B,), in nats per token. Their mean gives every *sequence* the same weight, however long it is.

    Source: lesson 06, section 4.
    """
    return -sequence_log_probs(logits, labels) / (labels[:, 1:] != -100).sum(1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy of the predictive distribution, −Σ_k p_k log p_k, in nats: 0 for a certain one, log K for a uniform one.

    ``logits``: (..., K), floating; −inf is allowed and counts as probability 0. Returns shape (...), float32 (float64 of
    float64).

    Source: lesson 06, section 6.
    """
    log_p = log_softmax(logits)
    p = torch.exp(log_p)
    return -(p * log_p.masked_fill(p == 0, 0.0)).sum(-1)


def symmetric_kl(a: Tensor, b: Tensor) -> Tensor:
    """½ KL(p ‖ q) + ½ KL(q ‖ p) = ½ Σ_k (p_k − q_k)(log p_k − log q_k) of p = softmax(a) and q = softmax(b), in nats.

    ``a`` and ``b`` have the shape (..., K), the result (...), float32 (float64 of float64); gradients flow into both. A
    class that −inf excludes in both adds nothing; excluded in one only, the result is inf. Source: lesson 07, section 3.
    """
    if a.shape != b.shape:
        raise TrainingError(f"logits {tuple(a.shape)} and {tuple(b.shape)}: the two passes differ in shape")
    log_p, log_q = log_softmax(a), log_softmax(b)
    p, q = log_p.exp(), log_q.exp()
    return ((p - q) * (log_p - log_q).masked_fill(p + q == 0, 0.0)).sum(-1) / 2


def r_drop(a: Tensor, b: Tensor, targets: Tensor, alpha: float) -> Tensor:
    """R-Drop: the mean of the cross-entropies of two passes, plus α times their symmetric KL; one value per example.

    ``a`` and ``b``, (..., K), are the logits of the same inputs under two draws of dropout, ``targets`` (...) the classes.
    Liang et al. (2021) add the two cross-entropies; with the mean, half of their α has the same effect and α = 0 is the
    ordinary loss. Raises TrainingError for a negative α, which would reward disagreement. Source: lesson 07, section 3.
    """
    if not alpha >= 0:  # nan neither
        raise TrainingError(f"alpha is {alpha}: the weight of the divergence is a number, 0 or more")
    return (cross_entropy(a, targets) + cross_entropy(b, targets)) / 2 + alpha * symmetric_kl(a, b)


def span_loss(start: Tensor, end: Tensor, spans: Tensor) -> Tensor:
    """Loss of a span: the mean of two cross-entropies over the positions, one value per example.

    Args:
        start, end: (B, T), floating: the logits of each position as the first and as the last of the span.
        spans: (B, 2), int64: the true first and last position.

    Returns:
        −(log p_start[s] + log p_end[e]) / 2 in nats, shape (B,), float32 (float64 of float64). Its gradient with respect to
        ``start`` is (p_start − onehot(s)) / 2, and alike for ``end``.

    Raises:
        TrainingError: the shapes do not fit.
        RuntimeError: a position lies outside 0 … T − 1 (from ``Tensor.gather``).

    Source: lesson 05, section 4.
    """
    return (cross_entropy(start, spans[:, 0]) + cross_entropy(end, spans[:, 1])) / 2
