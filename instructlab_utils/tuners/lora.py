"""LoRA written out, with rsLoRA, DoRA and PiSSA. Taught in lesson 09, sections 1 to 5."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instructlab_utils.errors import TrainingError
from instructlab_utils.tuners.base import Mergeable, Method, defaults, wrap

ATTENTION = {"bert": ("query", "value"), "llama": ("q_proj", "v_proj")}
# every linear layer inside the blocks; "output.dense" alone would name "attention.output.dense" too
ALL_LINEAR = {
    "bert": ("query", "key", "value", "output.dense", "intermediate.dense"),
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}
# what peft's configurations may hold and these classes do not do
FOREIGN = (
    "alpha_pattern", "exclude_modules", "layers_to_transform", "lora_bias", "target_parameters",
    "trainable_token_indices", "use_bdlora", "use_qalora",
)  # fmt: skip


def foreign(config: dict[str, Any]) -> bool:
    """Whether peft's configuration asks for something that our classes lack."""
    regex = isinstance(config.get("target_modules"), str)
    return regex or config.get("bias", "none") != "none" or any(config.get(key) for key in FOREIGN)


class ChangedLinear(Mergeable):
    """y = (W + delta) x + b: what merges by adding a matrix to the frozen weight."""

    @abstractmethod
    def delta(self) -> Tensor:
        """The change of the weight, (out, in)."""

    def merge(self) -> None:
        self.base.weight += self.delta()

    def unmerge(self) -> None:
        self.base.weight -= self.delta()


class LoraLinear(ChangedLinear):
    """y = W x + b + s B A x, with A of shape (r, in) and B of shape (out, r); W and b are frozen, s is the ``scale``.

    Source: Hu et al. (2022), LoRA, section 4.1; lesson 09, sections 1 to 4.
    """

    def __init__(self, base: nn.Linear, r: int, scale: float, dropout: float) -> None:
        super().__init__(base)
        self.A = nn.Parameter(base.weight.new_empty(r, base.in_features))
        self.B = nn.Parameter(base.weight.new_zeros(base.out_features, r))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        self.scale, self.dropout = scale, nn.Dropout(dropout)

    def delta(self) -> Tensor:
        return self.scale * self.B @ self.A

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        if self.merged:
            return y
        return y + F.linear(F.linear(self.dropout(x), self.A) * self.scale, self.B)

    @torch.no_grad()
    def principal(self) -> None:
        """PiSSA: A and B take the r largest singular triplets of W, and the frozen weight keeps the rest of W.

        The output stays the same up to rounding. Source: Meng, Wang and Zhang (2024), PiSSA, section 3.
        """
        W = self.base.weight
        U, S, V = torch.linalg.svd(W, full_matrices=False)  # W = U diag(S) V
        r = len(self.A)
        root = (S[:r] / self.scale).sqrt()
        self.A.copy_(root[:, None] * V[:r])
        self.B.copy_(U[:, :r] * root)
        W -= self.delta()


class DoraLinear(LoraLinear):
    """Each row of W + s B A is divided by its norm and multiplied by its own trainable magnitude in ``m``, shape (out,).

    The norm counts as a constant for the gradient, as the authors propose. Source: Liu et al. (2024), DoRA, section 4;
    lesson 09, section 5.
    """

    def __init__(self, base: nn.Linear, r: int, scale: float, dropout: float) -> None:
        super().__init__(base, r, scale, dropout)
        self.m = nn.Parameter(base.weight.detach().norm(dim=1))

    def gain(self) -> Tensor:
        """m / ||W + s B A||, shape (out,)."""
        with torch.no_grad():
            norm = torch.addmm(self.base.weight, self.B, self.A, alpha=self.scale).norm(dim=1)
        return self.m / norm

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        if self.merged:
            return y
        gain = self.gain()
        if self.training and self.dropout.p > 0:  # the frozen part of the change reads the masked input too
            x = self.dropout(x)
            frozen = F.linear(x, self.base.weight)
        else:
            frozen = y if self.base.bias is None else y - self.base.bias
        return y + (gain - 1) * frozen + gain * F.linear(F.linear(x, self.A) * self.scale, self.B)

    def merge(self) -> None:
        self.merged_gain = self.gain()[:, None].detach()  # the merged weight no longer tells it
        self.base.weight.add_(self.delta()).mul_(self.merged_gain)

    def unmerge(self) -> None:
        self.base.weight.div_(self.merged_gain).sub_(self.delta())


@dataclass(frozen=True)
class Lora(Method):
    """LoRA of rank ``r`` on the linear layers named ``targets`` (default: query and value), with the scale ``alpha / r``.

    ``rslora``: the scale is alpha / sqrt(r) (Kalajdzievski, 2023). ``dora``: :class:`DoraLinear`. ``init``: "kaiming"
    starts from B = 0, "pissa" from the largest singular triplets of the weight, and then the frozen weight changes. A
    saved PiSSA adapter holds A and B only; who loads it, here or in peft, computes the same residual from the original
    model again.
    """

    r: int = 8
    alpha: float = 8
    targets: tuple[str, ...] = ()
    dropout: float = 0.0
    rslora: bool = False
    dora: bool = False
    init: Literal["kaiming", "pissa"] = "kaiming"

    peft_type: ClassVar[str] = "LORA"
    names: ClassVar[dict[str, str]] = {
        "A": "lora_A.weight", "B": "lora_B.weight", "m": "lora_magnitude_vector",
    }  # fmt: skip

    def __post_init__(self) -> None:
        if self.r < 1:
            raise TrainingError(f"Lora(r={self.r}): the rank must be 1 or more")
        if self.init not in ("kaiming", "pissa"):
            raise TrainingError(f"Lora(init={self.init!r}): choose kaiming or pissa")
        if self.dora and self.init == "pissa":
            raise TrainingError("Lora(dora=True, init='pissa'): choose one of the two")

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return self.alpha / (math.sqrt(self.r) if self.rslora else self.r)

    def apply(self, model: nn.Module) -> nn.Module:
        targets = self.targets or defaults(model, ATTENTION)
        kind = DoraLinear if self.dora else LoraLinear
        wrap(model, targets, lambda base: kind(base, self.r, self.scale, self.dropout))
        if self.init == "pissa":
            for module in model.modules():
                if isinstance(module, LoraLinear):
                    module.principal()
        return model

    def to_peft(self, model: nn.Module) -> dict[str, Any]:
        return {
            "r": self.r,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "target_modules": list(self.targets or defaults(model, ATTENTION)),
            "use_rslora": self.rslora,
            "use_dora": self.dora,
            "init_lora_weights": "pissa" if self.init == "pissa" else True,
        }

    @classmethod
    def from_peft(cls, config: dict[str, Any]) -> Lora | None:
        init = config.get("init_lora_weights", True)
        if foreign(config) or config.get("rank_pattern") or init not in (True, False, "gaussian", "pissa"):
            return None
        return cls(
            config["r"],
            config["lora_alpha"],
            tuple(sorted(config["target_modules"])),
            config["lora_dropout"],
            bool(config.get("use_rslora")),
            bool(config.get("use_dora")),
            "pissa" if init == "pissa" else "kaiming",
        )
