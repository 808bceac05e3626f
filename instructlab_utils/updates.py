"""What stands in a change of a weight matrix: its directions, how it lies to the weight, lengths apart from directions.

Taught in lesson 09, sections 5 and 8; the experiment `lora_weights` measures it in trained networks.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def overlap(D: Tensor, E: Tensor, i: int, j: int) -> np.ndarray:
    """phi for all sizes up to i and j, from the right singular vectors of the changes D and E: array (i, j).

    The entry (a, b) is the squared norm of V_a^T V'_b over min(a + 1, b + 1), in 0…1: 1 where the smaller subspace lies in
    the larger one. Source: Hu et al. (2022), LoRA, section 7.2; lesson 09, section 8.
    """
    V, V_ = (torch.linalg.svd(part).Vh[:k].T for part, k in ((D, i), (E, j)))
    together = (V.T @ V_).square().cumsum(0).cumsum(1)
    smaller = torch.minimum(torch.arange(1, i + 1)[:, None], torch.arange(1, j + 1))
    return (together / smaller).numpy()


def projection(D: Tensor, W: Tensor, r: int) -> float:
    """What the weight W does in the first r pairs of directions of its change D: the norm of U^T W V.

    Source: Hu et al. (2022), LoRA, section 7.3 and table 7; lesson 09, section 8.
    """
    U, _, Vt = torch.linalg.svd(D)
    return (U[:, :r].T @ W @ Vt[:r].T).norm().item()


def lengths_and_directions(W: Tensor, W0: Tensor) -> tuple[float, float]:
    """How far W lies from W0, split as DoRA does: the mean over rows of the change of length, and of 1 - cosine.

    The first is in the unit of the weights and never negative, the second in 0…2.
    Source: Liu et al. (2024), DoRA, section 3.2; lesson 09, section 5.
    """
    longer = (W.norm(dim=1) - W0.norm(dim=1)).abs().mean()
    turned = 1 - torch.cosine_similarity(W.double(), W0.double(), dim=1).mean()
    return longer.item(), turned.item()
