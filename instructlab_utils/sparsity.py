"""What can be taken out of a network: single weights, attention heads, layers. Masks to try it, slices to be rid of it.

transformers 5 has no ``prune_heads`` and no ``head_mask``; hooks and slices do their work. Built in lesson 25, sections 3
and 4. Taught in lesson 25.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from instructlab_utils.errors import ParameterError


def linear_weights(net: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of all linear layers of ``net`` by name; biases, LayerNorms and embeddings are left in peace."""
    return {name: part.weight for name, part in net.named_modules() if isinstance(part, nn.Linear)}


def keep_best(scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Masks, bool in the shapes of ``scores``, True where kept: ``round(share * n)`` of all n scores together are removed.

    Removed are the smallest; of equal ones the first. ParameterError for a share outside 0 … 1, or a score that is NaN.
    Source: lesson 25, section 3.
    """
    flat = torch.cat([score.detach().flatten() for score in scores.values()])
    if not 0 <= share <= 1 or flat.isnan().any():
        raise ParameterError(
            f"share {share} of {len(flat)} scores: choose 0 to 1, and scores that are numbers"
        )
    gone, n = torch.zeros(len(flat), dtype=torch.bool), round(share * len(flat))
    if n:
        limit = flat.kthvalue(n).values
        gone = flat < limit
        gone[(flat == limit).nonzero()[: n - int(gone.sum()), 0]] = True
    parts = (~gone).split([score.numel() for score in scores.values()])
    return {name: part.view_as(scores[name]) for name, part in zip(scores, parts, strict=True)}


@torch.no_grad()
def add_movement(scores: dict[str, Tensor], weights: Mapping[str, nn.Parameter]) -> None:
    """Subtract weight times gradient from each weight's score, in place: call it after each backward pass.

    A weight that training moves away from zero gains, one that it moves towards zero loses. Source: Sanh, Wolf and Rush
    (2020), equation 6, without the mask; lesson 25, section 3.
    """
    for name, weight in weights.items():
        if weight.grad is not None:
            scores[name] = scores.get(name, torch.zeros_like(weight)) - weight * weight.grad


@contextmanager
def masked_weights(weights: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, the weights are 0 where their mask is False; afterwards they are as before. Source: lesson 25, section 3."""
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    try:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.mul_(masks[name])
        yield
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(before[name])


@contextmanager
def head_gates(layers: Sequence[Any], gates: Tensor) -> Iterator[None]:
    """Inside, what head h of BERT layer l says is multiplied by ``gates[l, h]``; ``gates`` (L, H) may require gradients.

    A hook before the output projection does it. Source: Michel, Levy and Neubig (2019); lesson 25, section 4.
    """

    def scaled(at: int) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            said = inputs[0].unflatten(-1, (gates.shape[1], -1))
            return ((said * gates[at][:, None].to(said.dtype)).flatten(-2), *inputs[1:])

        return hook

    handles = [
        layer.attention.output.dense.register_forward_pre_hook(scaled(at)) for at, layer in enumerate(layers)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def slice_heads(layer: Any, keep: Sequence[int]) -> None:
    """Cut the heads that ``keep`` does not name out of a BERT layer, in place: rows of q, k, v, columns of the output.

    The result is smaller and computes what gates of 0 would have given. ParameterError where no head would be left, or a
    name is no head or stands twice. Source: lesson 25, section 4.
    """
    own, out = layer.attention.self, layer.attention.output.dense
    heads, size = own.num_attention_heads, own.attention_head_size
    if not keep or len(set(keep)) != len(keep) or not all(0 <= head < heads for head in keep):
        raise ParameterError(
            f"keep heads {list(keep)} of {heads}: name one at least, each once, from 0 to {heads - 1}"
        )
    rows = torch.cat([torch.arange(head * size, (head + 1) * size) for head in sorted(keep)])
    for linear in (own.query, own.key, own.value):
        linear.weight = nn.Parameter(linear.weight[rows].clone())
        linear.bias = nn.Parameter(linear.bias[rows].clone())
        linear.out_features = len(rows)
    out.weight, out.in_features = nn.Parameter(out.weight[:, rows].clone()), len(rows)
    own.num_attention_heads, own.all_head_size = len(keep), len(rows)
