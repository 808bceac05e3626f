"""Contrastive learning: InfoNCE, alignment and uniformity, SetFit's loss of pairs. Built in lesson 20."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from instructlab_utils.errors import TrainingError
from instructlab_utils.losses import log_sum_exp, upcast
from instructlab_utils.training import linear_schedule


def on_sphere(x: Tensor) -> Tensor:
    """Each row of (n, d) divided by its length. TrainingError for a row of zeros, or one that is not finite.

    Source: lesson 20, section 2.
    """
    length = upcast(x).norm(dim=1, keepdim=True)
    if not (length.isfinite().all() and (length > 0).all()):
        raise TrainingError("a row is zero or not finite: it has no direction")
    return upcast(x) / length


def info_nce(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """Loss of each row i, shape (n,): -log softmax over j of cos(a_i, b_j) / temperature, at j = i.

    a and b are (n, d): two views of the same n things; the other rows of b are the negatives. Equal to
    MultipleNegativesRankingLoss of sentence-transformers with scale = 1 / temperature.
    Raises TrainingError for other shapes, fewer than two rows, a temperature that is not positive.
    Source: van den Oord et al. (2018); Gao et al. (2021); lesson 20, section 2.
    """
    if a.shape != b.shape or len(a) < 2 or not temperature > 0:
        raise TrainingError(f"views {tuple(a.shape)} and {tuple(b.shape)}, temperature {temperature}")
    z = on_sphere(a) @ on_sphere(b).T / temperature
    return log_sum_exp(z) - z.diagonal()


def alignment(a: Tensor, b: Tensor) -> float:
    """Mean squared distance on the sphere between two views, in 0…4. Source: Wang and Isola (2020); lesson 20, section 3."""
    return (on_sphere(a) - on_sphere(b)).square().sum(1).mean().item()


def uniformity(x: Tensor) -> float:
    """log of the mean of exp(-2 × squared distance) over all pairs of rows: 0 where all are one point, never below -8.

    Source: Wang and Isola (2020); lesson 20, section 3.
    """
    return torch.pdist(on_sphere(x)).square().mul(-2).exp().mean().log().item()


def all_pairs(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs i < j of n labels, and 1.0 where the two are equal: three tensors of shape (n (n - 1) / 2,).

    Source: Tunstall et al. (2022); lesson 20, section 5.
    """
    i, j = torch.triu_indices(len(labels), len(labels), offset=1)
    return i, j, (labels[i] == labels[j]).float()


def pair_loss(vectors: Tensor, labels: Tensor) -> Tensor:
    """Mean over :func:`all_pairs` of (cosine - same)², a scalar: CosineSimilarityLoss of sentence-transformers.

    Source: Tunstall et al. (2022); lesson 20, section 5.
    """
    i, j, same = all_pairs(labels)
    v = on_sphere(vectors)
    return ((v[i] * v[j]).sum(1) - same).square().mean()


def damaged_projection(width: int, generator: torch.Generator, decades: float = 3.0) -> Tensor:
    """A random (width, width) matrix whose singular values fall evenly, in logarithms, from 1 to 10 ** -decades.

    It can be undone (no direction is lost), but a cosine after it sees few directions. Source: lesson 20, section 4.
    """
    U, V = (torch.linalg.qr(torch.randn(width, width, generator=generator))[0] for _ in range(2))
    return U @ torch.diag(torch.logspace(0, -decades, width)) @ V.T


def train_projection(
    W: Tensor, first: Tensor, second: Tensor, generator: torch.Generator,
    *, rate: float, temperature: float, steps: int, batch_size: int = 128,
) -> tuple[Tensor, list[float]]:  # fmt: skip
    """A copy of ``W``, (e, d), after ``steps`` updates of Adam on :func:`info_nce` of the two views, each (N, d), times W.T.

    Returns it with the mean loss of each update. Source: Gao et al. (2021); lesson 20, section 4.
    """
    W, losses = W.clone().requires_grad_(), []
    optimizer = torch.optim.Adam([W], lr=rate)
    for _ in range(steps):
        rows = torch.randperm(len(first), generator=generator)[:batch_size]
        loss = info_nce(first[rows] @ W.T, second[rows] @ W.T, temperature).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return W.detach(), losses


def found_again(queries: Tensor, x: Tensor, rows: Tensor) -> Tensor:
    """For each query whether the row of ``x`` with the largest cosine is the one that ``rows`` names, (n,) of bool.

    Source: lesson 20, section 4.
    """
    return (on_sphere(queries) @ on_sphere(x).T).argmax(1) == rows


def nearest_centre(x: Tensor, y: Tensor, new: Tensor) -> Tensor:
    """The class of each row of ``new``, (n,): the one whose mean of unit vectors of x, y has the largest cosine.

    Source: Snell et al. (2017), with cosines; lesson 20, section 4.
    """
    centres = torch.stack([on_sphere(x)[y == k].mean(0) for k in range(int(y.max()) + 1)])
    return (on_sphere(new) @ on_sphere(centres).T).argmax(1)


def descend(net: nn.Module, loss: Callable[[int], Tensor], *, steps: int, rate: float) -> list[float]:
    """``steps`` updates of AdamW on ``loss(step)``, the rate falling linearly to 0, dropout on; ``net`` ends in eval mode.

    Returns the loss of each update. TrainingError where one is not finite. Source: lesson 20, section 5.
    """
    optimizer, losses = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.01), []
    net.train()
    for step in range(steps):
        value = loss(step)
        if not value.isfinite():
            raise TrainingError(f"the loss is {value.item()} in update {step + 1}: lower the rate")
        optimizer.param_groups[0]["lr"] = rate * linear_schedule(step, steps, 0)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    net.eval()
    return losses
