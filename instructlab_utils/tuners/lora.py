"""LoRA written out, with rsLoRA, DoRA and PiSSA. Taught in lesson 09, sections 1 to 5."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instructlab_utils.errors import TrainingError
from instructlab_utils.tuners.base import Mergeable, Method, defaults, find, peft_targets, wrap
from instructlab_utils.tuners.ownership import must_own, wide

ATTENTION = {"bert": ("query", "value"), "llama": ("q_proj", "v_proj")}
# every linear layer inside the blocks; "output.dense" alone would name "attention.output.dense" too
ALL_LINEAR = {
    "bert": ("query", "key", "value", "output.dense", "intermediate.dense"),
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}


class ChangedLinear(Mergeable):
    """y = (W + delta) x + b: what merges by adding a matrix to the frozen weight.

    Its own parameters are float32 where the model is bf16 or fp16, as in peft: small updates would be lost otherwise.
    """

    @abstractmethod
    def delta(self) -> Tensor:
        """The change of the weight, (out, in), in the dtype of the parameters."""

    def folded(self, W: Tensor) -> Tensor:
        """The weight after :meth:`merge`, from the one before it."""
        return W + self.delta()

    def unfolded(self, W: Tensor) -> Tensor:
        """The weight before :meth:`merge`, from the one after it."""
        return W - self.delta()

    def merge(self) -> None:
        W = self.base.weight
        half = W.dtype != wide(W.dtype)  # too coarse to come back by subtraction: a copy
        self.original = W.detach().clone() if half else None
        W.copy_(self.folded(W.to(wide(W.dtype))))

    def unmerge(self) -> None:
        W = self.base.weight
        W.copy_(self.unfolded(W) if self.original is None else self.original)
        self.original = None


class LoraLinear(ChangedLinear):
    """y = W x + b + s B A x, with A of shape (r, in) and B of shape (out, r); W and b are frozen, s is the ``scale``.

    Source: Hu et al. (2022), LoRA, section 4.1; lesson 09, sections 1 to 4.
    """

    def __init__(self, base: nn.Linear, r: int, scale: float, dropout: float) -> None:
        super().__init__(base)
        dtype = wide(base.weight.dtype)
        self.A = nn.Parameter(base.weight.new_empty(r, base.in_features, dtype=dtype))
        self.B = nn.Parameter(base.weight.new_zeros(base.out_features, r, dtype=dtype))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        self.scale, self.dropout = scale, nn.Dropout(dropout)

    def delta(self) -> Tensor:
        return self.scale * self.B @ self.A

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        if self.merged:
            return y
        x = self.dropout(x.to(self.A.dtype))
        return (y + F.linear(F.linear(x, self.A) * self.scale, self.B)).to(y.dtype)

    @torch.no_grad()
    def principal(self) -> None:
        """PiSSA: A and B take the r largest singular triplets of W, and the frozen weight keeps the rest of W.

        The output stays the same up to rounding. Source: Meng, Wang and Zhang (2024), PiSSA, section 3.
        """
        W = self.base.weight.to(self.A.dtype)
        U, S, V = torch.linalg.svd(W, full_matrices=False)  # W = U diag(S) V
        r = len(self.A)
        root = (S[:r] / self.scale).sqrt()
        self.A.copy_(root[:, None] * V[:r])
        self.B.copy_(U[:, :r] * root)
        self.base.weight.copy_(W - self.delta())


class DoraLinear(LoraLinear):
    """Each row of W + s B A is divided by its norm and multiplied by its own trainable magnitude in ``m``, shape (out,).

    The norm counts as a constant for the gradient, as the authors propose. Source: Liu et al. (2024), DoRA, section 4;
    lesson 09, section 5.
    """

    def __init__(self, base: nn.Linear, r: int, scale: float, dropout: float) -> None:
        super().__init__(base, r, scale, dropout)
        self.m = nn.Parameter(base.weight.detach().to(self.A.dtype).norm(dim=1))

    def gain(self) -> Tensor:
        """m / ||W + s B A||, shape (out,)."""
        with torch.no_grad():
            W = self.base.weight.to(self.A.dtype)
            norm = torch.addmm(W, self.B, self.A, alpha=self.scale).norm(dim=1)
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
        change = gain * F.linear(F.linear(x.to(self.A.dtype), self.A) * self.scale, self.B)
        return (y + (gain - 1) * frozen + change).to(y.dtype)

    def folded(self, W: Tensor) -> Tensor:
        self.merged_gain = self.gain()[:, None].detach()  # the merged weight no longer tells it
        return (W + self.delta()) * self.merged_gain

    def unfolded(self, W: Tensor) -> Tensor:
        return W / self.merged_gain - self.delta()


@dataclass(frozen=True)
class Lora(Method):
    """LoRA of rank ``r`` on the linear layers named ``targets`` (default: query and value), with the scale ``alpha / r``.

    ``rslora``: the scale is alpha / sqrt(r) (Kalajdzievski, 2023). ``dora``: :class:`DoraLinear`. ``init``: "kaiming"
    starts from B = 0, "pissa" from the largest singular triplets of the weight, and then the frozen weight changes. A
    saved PiSSA adapter holds A and B only; who loads it, here or in peft, computes the same residual from the original
    model again.

    ``rank_pattern``, ``alpha_pattern``: another rank or alpha for the layers whose name a key matches, a regular
    expression for the end of the name, as in peft. ``bias``: "all" biases of the model train too, or those of the
    tuned layers, "lora_only".
    """

    r: int = 8
    alpha: float = 8
    targets: tuple[str, ...] = ()
    dropout: float = 0.0
    rslora: bool = False
    dora: bool = False
    init: Literal["kaiming", "pissa"] = "kaiming"
    bias: Literal["none", "all", "lora_only"] = "none"
    rank_pattern: Any = ()  # a mapping; kept as pairs, so that the method can be hashed
    alpha_pattern: Any = ()

    peft_type: ClassVar[str] = "LORA"
    names: ClassVar[dict[str, str]] = {
        "A": "lora_A.weight", "B": "lora_B.weight", "m": "lora_magnitude_vector",
    }  # fmt: skip
    settings: ClassVar[tuple[str, ...]] = (
        "alpha_pattern", "bias", "init_lora_weights", "lora_alpha", "lora_dropout", "r", "rank_pattern", "target_modules",
        "use_dora", "use_rslora",
    )  # fmt: skip

    def __post_init__(self) -> None:
        for name in ("rank_pattern", "alpha_pattern"):  # hashable, as the whole method is
            object.__setattr__(self, name, tuple(dict(getattr(self, name)).items()))
        for place, r in (("", self.r), *self.rank_pattern):
            if r < 1:
                raise TrainingError(f"Lora(r={r}){place and f' for {place!r}'}: the rank must be 1 or more")
        if self.bias not in ("none", "all", "lora_only"):
            raise TrainingError(f"Lora(bias={self.bias!r}): choose none, all or lora_only")
        if self.init not in ("kaiming", "pissa"):
            raise TrainingError(f"Lora(init={self.init!r}): choose kaiming or pissa")
        if self.dora and self.init == "pissa":
            raise TrainingError("Lora(dora=True, init='pissa'): choose one of the two")

    def rank_and_scale(self, name: str) -> tuple[int, float]:
        """The rank of the layer ``name``, and what its B A is multiplied by."""
        r, alpha = (
            next((v for key, v in pattern if re.match(rf"(.*\.)?({key})$", name)), default)
            for pattern, default in ((self.rank_pattern, self.r), (self.alpha_pattern, self.alpha))
        )
        return int(r), alpha / (math.sqrt(r) if self.rslora else r)

    def apply(self, model: nn.Module) -> nn.Module:
        found = find(model, self.targets or defaults(model, ATTENTION))
        for key, _ in (*self.rank_pattern, *self.alpha_pattern):
            if not any(re.match(rf"(.*\.)?({key})$", name) for name in found):
                raise TrainingError(f"Lora: the pattern {key!r} matches none of the targets: correct it")
        sizes = {name: self.rank_and_scale(name) for name in found}
        if self.init == "pissa":  # both before any weight changes
            must_own(model, found, "inject() would change")
            for name, (r, _) in sizes.items():
                if r > (most := min(found[name].weight.shape)):
                    raise TrainingError(
                        f"Lora(r={r}, init='pissa'): {name} has {most} singular triplets; lower r"
                    )
        kind = DoraLinear if self.dora else LoraLinear
        tuned = {m: kind(cast(nn.Linear, m), *sizes[name], self.dropout) for name, m in found.items()}
        wrap(model, tuple(found), tuned.__getitem__)
        for layer in tuned.values():
            if self.init == "pissa":
                layer.principal()
            if self.bias == "lora_only" and layer.base.bias is not None:
                layer.base.bias.requires_grad_(True)
        for name, p in model.named_parameters():
            if self.bias == "all" and name.split(".")[-1] == "bias":
                p.requires_grad_(True)
        return model

    def to_peft(self, model: nn.Module) -> dict[str, Any]:
        asked: dict[str, Any] = {} if self.bias == "none" else {"bias": self.bias}
        patterns = {"rank_pattern": self.rank_pattern, "alpha_pattern": self.alpha_pattern}
        asked |= {name: dict(pairs) for name, pairs in patterns.items() if pairs}
        return asked | {
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
        if init not in (True, False, "gaussian", "pissa"):
            raise TrainingError(f"init_lora_weights = {init!r} changes the frozen weights as Lora cannot")
        return cls(
            config["r"],
            config["lora_alpha"],
            peft_targets(config),
            config["lora_dropout"],
            bool(config.get("use_rslora")),
            bool(config.get("use_dora")),
            "pissa" if init == "pissa" else "kaiming",
            config.get("bias", "none"),
            config.get("rank_pattern") or (),
            config.get("alpha_pattern") or (),
        )
