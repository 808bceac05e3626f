"""VeRA: two random matrices for all layers, two trained vectors for each. Taught in lesson 09, section 5."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instructlab_utils.tuners.base import Method, copy_into, defaults, find, peft_targets, wrap
from instructlab_utils.tuners.lora import ATTENTION, ChangedLinear
from instructlab_utils.tuners.ownership import wide


class Projections(nn.Module):
    """The frozen random matrices that all layers share: A of shape (r, widest input), B of shape (widest output, r).

    A module of its own, so that ``model.to(device)`` moves them once and they stay shared. They are no part of the
    state dict, since the seed gives them back.
    """

    A: Tensor
    B: Tensor

    def __init__(self, r: int, in_features: int, out_features: int, seed: int, like: Tensor) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        for name, shape in (("A", (r, in_features)), ("B", (out_features, r))):
            bound = math.sqrt(6 / shape[1])  # Kaiming, as peft draws them
            drawn = torch.empty(shape).uniform_(-bound, bound, generator=generator)
            self.register_buffer(name, drawn.to(like.device, wide(like.dtype)), persistent=False)


class VeraLinear(ChangedLinear):
    """y = W x + c + b * (B (d * (A x))), with the shared A and B cut to size; trained are b, (out,), and d, (r,).

    Source: Kopiczko, Blankevoort and Asano (2024), VeRA, section 3; lesson 09, section 5.
    """

    def __init__(
        self, base: nn.Linear, shared: Projections, r: int, d_initial: float, dropout: float
    ) -> None:
        super().__init__(base)
        self.shared, self.dropout = shared, nn.Dropout(dropout)
        self.b = nn.Parameter(shared.A.new_zeros(base.out_features))
        self.d = nn.Parameter(shared.A.new_full((r,), d_initial))

    @property
    def A(self) -> Tensor:
        return self.shared.A[:, : self.base.in_features]

    @property
    def B(self) -> Tensor:
        return self.shared.B[: self.base.out_features]

    def delta(self) -> Tensor:
        return (self.b[:, None] * self.B) @ (self.d[:, None] * self.A)

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        if self.merged:
            return y
        x = self.dropout(x.to(self.d.dtype))
        change = F.linear(self.d * F.linear(x, self.A), self.B)
        return torch.addcmul(y.to(self.b.dtype), self.b, change).to(y.dtype)


@dataclass(frozen=True)
class Vera(Method):
    """VeRA: the random matrices come from ``projection_seed`` and are saved with the vectors."""

    r: int = 256
    targets: tuple[str, ...] = ()
    d_initial: float = 0.1
    dropout: float = 0.0
    projection_seed: int = 0

    peft_type: ClassVar[str] = "VERA"
    names: ClassVar[dict[str, str]] = {"b": "vera_lambda_b", "d": "vera_lambda_d"}
    settings: ClassVar[tuple[str, ...]] = (
        "d_initial", "projection_prng_key", "r", "save_projection", "target_modules", "vera_dropout",
    )  # fmt: skip

    def apply(self, model: nn.Module) -> nn.Module:
        targets = self.targets or defaults(model, ATTENTION)
        weights = [module.weight for module in find(model, targets).values()]
        wide, tall = max(W.shape[1] for W in weights), max(W.shape[0] for W in weights)
        shared = Projections(self.r, wide, tall, self.projection_seed, weights[0])
        return wrap(model, targets, lambda m: VeraLinear(m, shared, self.r, self.d_initial, self.dropout))

    def to_peft(self, model: nn.Module) -> dict[str, Any]:
        return {
            "r": self.r,
            "d_initial": self.d_initial,
            "vera_dropout": self.dropout,
            "projection_prng_key": self.projection_seed,
            "save_projection": True,
            "target_modules": list(self.targets or defaults(model, ATTENTION)),
        }

    @classmethod
    def from_peft(cls, config: dict[str, Any]) -> Vera | None:
        seed = config["projection_prng_key"]
        return cls(config["r"], peft_targets(config), config["d_initial"], config["vera_dropout"], seed)

    def tensors(self, model: nn.Module) -> dict[str, Tensor]:
        shared = next(m for m in model.modules() if isinstance(m, Projections))
        return super().tensors(model) | {"base_model.vera_A": shared.A, "base_model.vera_B": shared.B}

    def restore(self, model: nn.Module, tensors: dict[str, Tensor], place: Path) -> None:
        """As for all methods. A file without the matrices (peft's ``save_projection=False``) gets those of the seed."""
        ours = self.tensors(model)
        copy_into(
            ours, {name: ours[name] for name in ours if "vera_A" in name or "vera_B" in name} | tensors, place
        )
