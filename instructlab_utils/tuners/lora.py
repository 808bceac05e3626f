"""LoRA and its relatives, written out: rsLoRA, DoRA, PiSSA, VeRA, AdaLoRA. Taught in lesson 09."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instructlab_utils.errors import TrainingError
from instructlab_utils.tuners.base import Mergeable, Method, copy_into, defaults, find, wrap

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

# AdaLoRA's settings that are called the same in peft
SCHEDULE = (
    "total_step", "init_r", "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight",
)  # fmt: skip


def _foreign(config: dict[str, Any]) -> bool:
    """Whether peft's configuration asks for something that the classes of this module lack."""
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
        if _foreign(config) or config.get("rank_pattern") or init not in (True, False, "gaussian", "pissa"):
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


# --- VeRA: two random matrices for all layers, two trained vectors for each --------------------------------------------


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
            self.register_buffer(name, drawn.to(like.device, like.dtype), persistent=False)


class VeraLinear(ChangedLinear):
    """y = W x + c + b * (B (d * (A x))), with the shared A and B cut to size; trained are b, (out,), and d, (r,).

    Source: Kopiczko, Blankevoort and Asano (2024), VeRA, section 3; lesson 09, section 5.
    """

    def __init__(
        self, base: nn.Linear, shared: Projections, r: int, d_initial: float, dropout: float
    ) -> None:
        super().__init__(base)
        self.shared, self.dropout = shared, nn.Dropout(dropout)
        self.b = nn.Parameter(base.weight.new_zeros(base.out_features))
        self.d = nn.Parameter(base.weight.new_full((r,), d_initial))

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
        return torch.addcmul(y, self.b, F.linear(self.d * F.linear(self.dropout(x), self.A), self.B))


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
        if _foreign(config):
            return None
        targets, seed = tuple(sorted(config["target_modules"])), config["projection_prng_key"]
        return cls(config["r"], targets, config["d_initial"], config["vera_dropout"], seed)

    def tensors(self, model: nn.Module) -> dict[str, Tensor]:
        shared = next(m for m in model.modules() if isinstance(m, Projections))
        return super().tensors(model) | {"base_model.vera_A": shared.A, "base_model.vera_B": shared.B}

    def restore(self, model: nn.Module, tensors: dict[str, Tensor], place: Path) -> None:
        """As for all methods. A file without the matrices (peft's ``save_projection=False``) gets those of the seed."""
        ours = self.tensors(model)
        copy_into(
            ours, {name: ours[name] for name in ours if "vera_A" in name or "vera_B" in name} | tensors, place
        )


# --- AdaLoRA: a budget of ranks for the whole model ----------------------------------------------------------------------


class AdaLoraLinear(ChangedLinear):
    """y = W x + b + s B diag(E) A x, an update in the form of a singular value decomposition.

    A (r, in) and B (out, r) are kept nearly orthogonal by a penalty, E (r, 1) are the singular values; the paper writes
    P, Lambda and Q for B, E and A. A row of E that is not ``kept`` is set to 0. The running averages of sensitivity and
    uncertainty are buffers, so that a checkpoint holds them. Source: Zhang et al. (2023), AdaLoRA, section 3.
    """

    kept: Tensor

    def __init__(self, base: nn.Linear, r: int, alpha: float, dropout: float) -> None:
        super().__init__(base)
        self.A = nn.Parameter(base.weight.new_empty(r, base.in_features).normal_(0.0, 0.02))
        self.E = nn.Parameter(base.weight.new_zeros(r, 1))
        self.B = nn.Parameter(base.weight.new_empty(base.out_features, r).normal_(0.0, 0.02))
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
        return y + F.linear(F.linear(self.dropout(x), self.E * self.A) * self.scale, self.B)

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
        shrunk = any(not layer.kept.all() for layer in layers.values())
        return {name: getattr(self, name) for name in SCHEDULE} | {
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "target_modules": list(self.targets or defaults(model, ATTENTION)),
            "rank_pattern": {f"{n}.lora_E": layer.kept.tolist() for n, layer in layers.items()}
            if shrunk
            else None,
        }

    @classmethod
    def from_peft(cls, config: dict[str, Any]) -> AdaLora | None:
        if _foreign(config) or config["lora_alpha"] <= 0:
            return None
        return cls(
            **{name: config[name] for name in SCHEDULE},
            alpha=config["lora_alpha"],
            dropout=config["lora_dropout"],
            targets=tuple(sorted(config["target_modules"])),
        )

    def tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """As for all methods, but of each layer only the kept triplets, as peft does it."""
        found = super().tensors(model)
        for name, layer in self.layers(model).items():
            for leaf, rows in (
                ("A", layer.A[layer.kept]),
                ("E", layer.E[layer.kept]),
                ("B", layer.B[:, layer.kept]),
            ):
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
