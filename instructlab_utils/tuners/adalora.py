"""AdaLoRA: a budget of ranks for the whole model. Taught in lesson 09, section 7."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instructlab_utils.errors import TrainingError
from instructlab_utils.tuners.base import Method, copy_into, defaults, peft_targets, wrap
from instructlab_utils.tuners.lora import ATTENTION, ChangedLinear
from instructlab_utils.tuners.ownership import wide

# AdaLoRA's settings that are called the same in peft
SCHEDULE = (
    "total_step", "init_r", "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight",
)  # fmt: skip


class AdaLoraLinear(ChangedLinear):
    """y = W x + b + s B diag(E) A x, an update in the form of a singular value decomposition.

    A (r, in) and B (out, r) are kept nearly orthogonal by a penalty, E (r, 1) are the singular values; the paper writes
    P, Lambda and Q for B, E and A. A row of E that is not ``kept`` is set to 0. The running averages of sensitivity and
    uncertainty are buffers, so that a checkpoint holds them. Source: Zhang et al. (2023), AdaLoRA, section 3.
    """

    kept: Tensor

    def __init__(self, base: nn.Linear, r: int, alpha: float, dropout: float) -> None:
        super().__init__(base)
        W, dtype = base.weight, wide(base.weight.dtype)
        self.A = nn.Parameter(W.new_empty(r, base.in_features, dtype=dtype).normal_(0.0, 0.02))
        self.E = nn.Parameter(W.new_zeros(r, 1, dtype=dtype))
        self.B = nn.Parameter(W.new_empty(base.out_features, r, dtype=dtype).normal_(0.0, 0.02))
        self.scale, self.dropout = alpha / (r + 1e-5), nn.Dropout(dropout)
        self.register_buffer("kept", torch.ones(r, dtype=torch.bool, device=base.weight.device))
        for name in "AEB":
            for average in ("sensitivity", "uncertainty"):
                self.register_buffer(f"{average}_{name}", torch.zeros_like(getattr(self, name).data))

    def delta(self) -> Tensor:
        return self.scale * self.B @ (self.E * self.A)

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        if self.merged:
            return y
        x = self.dropout(x.to(self.A.dtype))
        return (y + F.linear(F.linear(x, self.E * self.A) * self.scale, self.B)).to(y.dtype)

    def penalty(self) -> Tensor:
        """How far A and B are from orthogonal, as peft measures it: the two Frobenius norms, not squared."""
        eye = torch.eye(len(self.E), dtype=self.E.dtype, device=self.E.device)
        return (self.A @ self.A.T - eye).norm() + (self.B.T @ self.B - eye).norm()

    def observe(self, beta1: float, beta2: float) -> None:
        """Smooth the sensitivity |w dL/dw| of every weight, and its distance from the smoothed value."""
        for name in "AEB":
            w = getattr(self, name)
            smooth, unsure = getattr(self, f"sensitivity_{name}"), getattr(self, f"uncertainty_{name}")
            now = (w * w.grad).abs_()
            smooth.lerp_(now, 1 - beta1)
            unsure.lerp_(now.sub_(smooth).abs_(), 1 - beta2)

    def importance(self) -> Tensor:
        """One score for each triplet (a row of A, a row of E, a column of B), shape (r,)."""
        A, E, B = (getattr(self, f"sensitivity_{n}") * getattr(self, f"uncertainty_{n}") for n in "AEB")
        return E.view(-1) + A.mean(dim=1) + B.mean(dim=0)

    def mask(self) -> None:
        """Set the singular values that are not kept to 0. (They come back with the next update of the optimiser.)"""
        self.E.masked_fill_(~self.kept[:, None], 0.0)

    @property
    def used(self) -> Tensor:
        """Which triplets the output depends on: those kept, and those that came back since the last allocation; (r,)."""
        return self.kept | (self.E.view(-1) != 0)


@dataclass(frozen=True)
class AdaLora(Method):
    """AdaLoRA: every layer begins with ``init_r`` triplets, and ``target_r`` per layer are left, on average.

    Updates count from 0. Up to ``tinit`` nothing is taken away; then the budget falls with a cubic schedule, every
    ``deltaT`` updates the least important triplets lose their singular value; ``tfinal`` updates before ``total_step``
    the choice is final. Train with ``training.train(model, …, **tuners.extras(model))``: the loss needs the penalty, and
    every update a call of :meth:`update`.
    """

    total_step: int = 0
    init_r: int = 12
    target_r: int = 8
    alpha: float = 8
    targets: tuple[str, ...] = ()
    dropout: float = 0.0
    tinit: int = 0
    tfinal: int = 0
    deltaT: int = 1
    beta1: float = 0.85
    beta2: float = 0.85
    orth_reg_weight: float = 0.5

    peft_type: ClassVar[str] = "ADALORA"
    names: ClassVar[dict[str, str]] = {"A": "lora_A", "E": "lora_E", "B": "lora_B"}
    settings: ClassVar[tuple[str, ...]] = (
        *SCHEDULE, "init_lora_weights", "lora_alpha", "lora_dropout", "r", "rank_pattern", "target_modules",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.total_step < 1:
            raise TrainingError(f"AdaLora(total_step={self.total_step}): say how many updates there will be")
        if self.tinit >= self.total_step - self.tfinal:
            raise TrainingError(
                f"AdaLora: tinit = {self.tinit} and tfinal = {self.tfinal} leave no update of {self.total_step} in which "
                "the budget could fall; lower one of them"
            )
        if not 1 <= self.target_r <= self.init_r:
            raise TrainingError(f"AdaLora(target_r={self.target_r}): choose from 1 to init_r = {self.init_r}")

    def apply(self, model: nn.Module) -> nn.Module:
        targets = self.targets or defaults(model, ATTENTION)
        return wrap(model, targets, lambda m: AdaLoraLinear(m, self.init_r, self.alpha, self.dropout))

    def layers(self, model: nn.Module) -> dict[str, AdaLoraLinear]:
        """The tuned layers by name."""
        return {name: m for name, m in model.named_modules() if isinstance(m, AdaLoraLinear)}

    def budget(self, step: int, layers: int) -> int:
        """How many triplets the whole model may keep after update ``step``.

        Source: Zhang et al. (2023), AdaLoRA, section 3.3.
        """
        first, last = self.init_r * layers, self.target_r * layers
        end = self.total_step - self.tfinal
        if step <= self.tinit:
            return first
        if step > end:
            return last
        left = 1 - (step - self.tinit) / (end - self.tinit)
        return int((first - last) * left**3 + last)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Observe the gradients of update ``step`` and mask: call it after ``optimizer.step()``, before ``zero_grad()``.

        Equal to peft's ``update_and_allocate``.
        """
        layers, end = list(self.layers(model).values()), self.total_step - self.tfinal
        if step < end:
            for layer in layers:
                layer.observe(self.beta1, self.beta2)
        drop = self.init_r * len(layers) - self.budget(step, len(layers))
        if drop > 0 and (step == end or (step < end and step % self.deltaT == 0)):
            scores = [layer.importance() for layer in layers]
            threshold = torch.cat(scores).kthvalue(drop).values
            for layer, score in zip(layers, scores, strict=True):
                layer.kept.copy_(score > threshold)
                layer.mask()
        elif step > end:
            for layer in layers:
                layer.mask()

    def penalty(self, model: nn.Module) -> Tensor:
        """What the loss gets on top: the mean distance from orthogonality over all A and B, times its weight."""
        parts = [layer.penalty() for layer in self.layers(model).values()]
        return self.orth_reg_weight * torch.stack(parts).sum() / (2 * len(parts))

    def extras(self, model: nn.Module, objective: Callable[..., Tensor]) -> dict[str, Any]:
        # one loss per target, each with the penalty: their mean is the mean loss plus the penalty
        return {
            "objective": lambda net, batch: objective(net, batch) + self.penalty(model),
            "after_step": lambda step: self.update(model, step),
        }

    def to_peft(self, model: nn.Module) -> dict[str, Any]:
        layers = self.layers(model)
        shrunk = any(not layer.used.all() for layer in layers.values())
        return {name: getattr(self, name) for name in SCHEDULE} | {
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "target_modules": list(self.targets or defaults(model, ATTENTION)),
            "rank_pattern": {f"{n}.lora_E": layer.used.tolist() for n, layer in layers.items()}
            if shrunk
            else None,
        }

    @classmethod
    def from_peft(cls, config: dict[str, Any]) -> AdaLora | None:
        if config["lora_alpha"] <= 0:
            raise TrainingError(f"lora_alpha = {config['lora_alpha']}: AdaLora needs a positive one")
        return cls(
            **{name: config[name] for name in SCHEDULE},
            alpha=config["lora_alpha"],
            dropout=config["lora_dropout"],
            targets=peft_targets(config),
        )

    def tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """As for all methods, but of each layer only the triplets that its output depends on."""
        found = super().tensors(model)
        for name, layer in self.layers(model).items():
            used = layer.used
            for leaf, rows in (("A", layer.A[used]), ("E", layer.E[used]), ("B", layer.B[:, used])):
                found[self.file_name(model, f"{name}.{leaf}")] = rows
        return found

    def restore(self, model: nn.Module, tensors: dict[str, Tensor], place: Path) -> None:
        """The file's triplets become the first of each layer; their order has no meaning, and the others stay at 0."""
        for name, layer in self.layers(model).items():
            rows = len(tensors.get(self.file_name(model, f"{name}.E"), layer.E))
            layer.kept.copy_(torch.arange(len(layer.E), device=layer.kept.device) < rows)
        copies = self.tensors(model)
        copy_into(copies, tensors, place)
        for name, layer in self.layers(model).items():
            layer.A[layer.kept] = copies[self.file_name(model, f"{name}.A")]
            layer.E[layer.kept] = copies[self.file_name(model, f"{name}.E")]
            layer.B[:, layer.kept] = copies[self.file_name(model, f"{name}.B")]
