"""LoRA and its relatives, written out. Taught in lesson 09."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from instructlab_utils.tuners.base import Method, Tuned, defaults, wrap

ATTENTION = {"bert": ("query", "value"), "llama": ("q_proj", "v_proj")}


class LoraLinear(Tuned):
    """y = W x + b + (alpha / r) B A x, with A of shape (r, in) and B of shape (out, r); W and b are frozen.

    Source: Hu et al. (2022), LoRA, section 4.1; lesson 09.
    """

    def __init__(self, base: nn.Linear, r: int, alpha: float, dropout: float) -> None:
        super().__init__(base)
        self.A = nn.Parameter(base.weight.new_empty(r, base.in_features))
        self.B = nn.Parameter(base.weight.new_zeros(base.out_features, r))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        self.scale, self.dropout = alpha / r, nn.Dropout(dropout)

    def delta(self) -> Tensor:
        """The change of the weight, (out, in)."""
        return self.scale * self.B @ self.A

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        if self.merged:
            return y
        return y + F.linear(F.linear(self.dropout(x), self.A) * self.scale, self.B)

    def merge(self) -> None:
        self.base.weight += self.delta()

    def unmerge(self) -> None:
        self.base.weight -= self.delta()


@dataclass(frozen=True)
class Lora(Method):
    """LoRA of rank ``r`` with scale ``alpha / r`` on the linear layers named ``targets`` (default: query and value)."""

    r: int = 8
    alpha: float = 8
    targets: tuple[str, ...] = ()
    dropout: float = 0.0

    peft_type: ClassVar[str] = "LORA"
    names: ClassVar[dict[str, str]] = {"A": "lora_A.weight", "B": "lora_B.weight"}

    def apply(self, model: nn.Module) -> nn.Module:
        targets = self.targets or defaults(model, ATTENTION)
        return wrap(model, targets, lambda base: LoraLinear(base, self.r, self.alpha, self.dropout))

    def to_peft(self, model: nn.Module) -> dict[str, Any]:
        return {
            "r": self.r,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "target_modules": list(self.targets or defaults(model, ATTENTION)),
        }

    @classmethod
    def from_peft(cls, config: dict[str, Any]) -> Lora | None:
        return cls(
            config["r"], config["lora_alpha"], tuple(sorted(config["target_modules"])), config["lora_dropout"]
        )
