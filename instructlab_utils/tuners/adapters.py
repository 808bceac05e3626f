"""Bottleneck adapters, IA3, and the methods that only choose which of the model's own weights train.

Taught in lesson 08. Blocks are the transformer's layers; each has two sublayers, attention and feed-forward network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from instructlab_utils.errors import TrainingError
from instructlab_utils.tuners.base import (
    Mergeable,
    Method,
    Tuned,
    defaults,
    find,
    new_layers,
    peft_targets,
    wrap,
)
from instructlab_utils.tuners.ownership import wide, within

# per block: the last linear layer of each sublayer (attention, feed-forward), then the module that a parallel adapter wraps
SUBLAYERS = {
    "bert": ("attention.output.dense", "output.dense"),
    "llama": ("self_attn.o_proj", "mlp.down_proj"),
}
FEED_FORWARD = {"bert": ("output",), "llama": ("mlp",)}
RESCALED = {"bert": ("key", "value", "output.dense"), "llama": ("k_proj", "v_proj", "down_proj")}
INPUT_RESCALED = {"bert": ("output.dense",), "llama": ("down_proj",)}


def blocks(model: nn.Module) -> dict[str, nn.Module]:
    """The transformer's layers by full name, from the input upwards. TrainingError where none are found."""
    found = {n: m for n, m in model.named_modules() if re.search(r"(^|\.)(layer|layers)\.\d+$", n)}
    if not found:
        raise TrainingError(f"{type(model).__name__} has no numbered layers: load an encoder or a decoder")
    return found


def _in_blocks(model: nn.Module, places: tuple[str, ...]) -> tuple[str, ...]:
    """Full names of ``places`` in every block: ``output.dense`` alone would also match ``attention.output.dense``."""
    return tuple(f"{block}.{place}" for block in blocks(model) for place in places)


# --- bottlenecks -----------------------------------------------------------------------------------------------------


def bottleneck(h: Tensor, W_down: Tensor, b_down: Tensor, W_up: Tensor, b_up: Tensor) -> Tensor:
    """W_up f(W_down h + b_down) + b_up with f = GELU: (..., d) → (..., m) → (..., d).

    ``W_down`` is (m, d), ``W_up`` (d, m). Source: Houlsby et al. (2019), section 2.1; lesson 08, section 3.
    """
    return F.linear(F.gelu(F.linear(h, W_down, b_down)), W_up, b_up)


class Bottleneck(Tuned):
    """y = h + bottleneck(h) with h = base(x). ``removed`` leaves h alone, as if the adapter were not there.

    The weights are drawn from a normal distribution of standard deviation ``std``, cut off at two of them; biases are 0.
    Source: Houlsby et al. (2019), section 2.1 and 3.6; lesson 08, section 3.
    """

    unmergeable = (
        "a non-linear function stands between its two matrices, so no weight of the base can do its work"
    )
    removed = False

    def __init__(self, base: nn.Module, d: int, size: int, std: float) -> None:
        super().__init__(base)
        new = next(base.parameters())
        new = new.new_empty(0, dtype=wide(new.dtype))
        self.W_down, self.b_down = nn.Parameter(new.new_empty(size, d)), nn.Parameter(new.new_zeros(size))
        self.W_up, self.b_up = nn.Parameter(new.new_empty(d, size)), nn.Parameter(new.new_zeros(d))
        for W in (self.W_down, self.W_up):
            nn.init.trunc_normal_(W, std=std, a=-2 * std, b=2 * std)

    def change(self, h: Tensor) -> Tensor:
        h = h.to(self.W_down.dtype)
        return bottleneck(h, self.W_down, self.b_down, self.W_up, self.b_up)

    def forward(self, x: Tensor) -> Tensor:
        h = self.base(x)
        return h if self.removed else (h + self.change(h)).to(h.dtype)


class ParallelBottleneck(Bottleneck):
    """Feed-forward sublayer plus ``scale`` · bottleneck(x), where x is what the sublayer reads.

    ``base`` is a whole feed-forward module (Llama: x) or its second half (BERT: hidden, x, which adds x itself).
    ``W_up`` starts at 0. Source: He et al. (2022), section 3.3; lesson 08, section 4.
    """

    def __init__(self, base: nn.Module, d: int, size: int, scale: float) -> None:
        super().__init__(base, d, size, std=d**-0.5)
        nn.init.zeros_(self.W_up)
        self.scale = scale

    def forward(self, *inputs: Tensor) -> Tensor:
        *hidden, x = inputs
        if self.removed:
            return self.base(*inputs)
        delta = self.scale * self.change(x)
        return self.base(*hidden, (x + delta).to(x.dtype)) if hidden else (self.base(x) + delta).to(x.dtype)


@contextmanager
def without_adapters(model: nn.Module, layers: tuple[int, ...]) -> Iterator[None]:
    """The model without the bottlenecks of these blocks (0 is the lowest), for as long as the ``with`` lasts.

    Raises TrainingError where a block has none. Source: Houlsby et al. (2019), section 3.6; lesson 08, section 9.
    """
    names = list(blocks(model))
    chosen: list[Bottleneck] = []
    for layer in layers:
        block = model.get_submodule(names[layer]) if 0 <= layer < len(names) else nn.Module()
        found = [module for module in block.modules() if isinstance(module, Bottleneck)]
        if not found:
            raise TrainingError(f"layer {layer} has no adapters: choose among 0 … {len(names) - 1}")
        chosen += found
    try:
        for module in chosen:
            module.removed = True
        yield
    finally:
        for module in chosen:
            module.removed = False


@dataclass(frozen=True)
class Houlsby(Method):
    """Bottlenecks of ``size`` behind the last linear layer of both sublayers, before the residual is added; the model's
    own LayerNorms train too, as in the paper.

    ``targets`` replaces the default places. With init ``std`` near 0 the model starts as it was.
    """

    size: int = 64
    std: float = 1e-3
    targets: tuple[str, ...] = ()

    def apply(self, model: nn.Module) -> nn.Module:
        for norm in norms(model).values():
            norm.requires_grad_(True)
        targets = self.targets or _in_blocks(model, defaults(model, SUBLAYERS))
        return wrap(model, targets, lambda base: Bottleneck(base, base.out_features, self.size, self.std))


@dataclass(frozen=True)
class Pfeiffer(Method):
    """Bottlenecks of ``size`` behind the feed-forward sublayer only; everything else stays frozen.

    Source: Pfeiffer et al. (2021), AdapterFusion, who found this place by search; they move the residual too, we do not.
    """

    size: int = 64
    std: float = 1e-3
    targets: tuple[str, ...] = ()

    def apply(self, model: nn.Module) -> nn.Module:
        targets = self.targets or _in_blocks(model, defaults(model, SUBLAYERS)[1:])
        return wrap(model, targets, lambda base: Bottleneck(base, base.out_features, self.size, self.std))


@dataclass(frozen=True)
class Parallel(Method):
    """Bottlenecks of ``size`` beside the feed-forward sublayer: they read its input, and ``scale`` times their output is
    added to its output. Starts as an exact copy of the model.
    """

    size: int = 64
    scale: float = 4.0

    def apply(self, model: nn.Module) -> nn.Module:
        for name in _in_blocks(model, defaults(model, FEED_FORWARD)):
            path, _, leaf = name.rpartition(".")
            base = model.get_submodule(name)
            d = [m for m in base.modules() if isinstance(m, nn.Linear)][-1].out_features
            setattr(model.get_submodule(path), leaf, ParallelBottleneck(base, d, self.size, self.scale))
        return model


# --- IA3: a diagonal -------------------------------------------------------------------------------------------------


class Rescaled(Mergeable):
    """l ⊙ (W x + b), or W (l ⊙ x) + b where ``on_input``; l starts at 1, so the model starts as it was.

    ``l`` is a vector, (out,) or (in,): like biases it does not decay, for decay would pull it to 0 and not to 1.
    Source: Liu et al. (2022), section 3.3; lesson 08, section 6.
    """

    def __init__(self, base: nn.Linear, on_input: bool) -> None:
        super().__init__(base)
        self.on_input = on_input
        size = base.in_features if on_input else base.out_features
        self.l = nn.Parameter(base.weight.new_ones(size, dtype=wide(base.weight.dtype)))

    def forward(self, x: Tensor) -> Tensor:
        if self.merged:
            return self.base(x)
        if self.on_input:
            return self.base((x * self.l).to(x.dtype))
        y = self.base(x)
        return (y * self.l).to(y.dtype)

    def merge(self) -> None:
        # a copy, for no division brings back what an entry 0 has wiped out
        self.kept = {name: p.clone() for name, p in self.base.named_parameters()}
        if self.on_input:
            self.base.weight *= self.l
        else:
            self.base.weight *= self.l[:, None]
            if self.base.bias is not None:
                self.base.bias *= self.l

    def unmerge(self) -> None:
        for name, p in self.base.named_parameters():
            p.copy_(self.kept[name])
        del self.kept


@dataclass(frozen=True)
class IA3(Method):
    """A vector of factors on the outputs of keys and values, and on what the feed-forward network hands to its last layer.

    ``feedforward`` names the targets whose *input* is rescaled. The defaults are peft's: on BERT the name
    ``output.dense`` also meets the last layer of the attention.
    """

    targets: tuple[str, ...] = ()
    feedforward: tuple[str, ...] = ()

    peft_type: ClassVar[str] = "IA3"
    names: ClassVar[dict[str, str]] = {"l": "ia3_l"}
    settings: ClassVar[tuple[str, ...]] = ("feedforward_modules", "target_modules")

    def _places(self, model: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if self.targets:
            return self.targets, self.feedforward
        return defaults(model, RESCALED), self.feedforward or defaults(model, INPUT_RESCALED)

    def apply(self, model: nn.Module) -> nn.Module:
        targets, feedforward = self._places(model)
        if strange := sorted(set(feedforward) - set(targets)):
            raise TrainingError(f"feedforward: {strange[0]!r} is not among the targets: add it to targets")
        on_input = {id(m) for m in find(model, feedforward).values()}
        return wrap(model, targets, lambda base: Rescaled(base, id(base) in on_input))

    def tensors(self, model: nn.Module) -> dict[str, Tensor]:
        found = super().tensors(model)
        for path, module in model.named_modules():
            if isinstance(module, Rescaled):  # peft writes a row or a column
                shape = (1, -1) if module.on_input else (-1, 1)
                found[self.file_name(model, f"{path}.l")] = module.l.view(shape)
        return found

    def to_peft(self, model: nn.Module) -> dict[str, Any]:
        targets, feedforward = self._places(model)
        return {"target_modules": list(targets), "feedforward_modules": list(feedforward)}

    @classmethod
    def from_peft(cls, config: dict[str, Any]) -> IA3 | None:
        return cls(peft_targets(config), peft_targets(config, "feedforward_modules"))


# --- the model's own weights -----------------------------------------------------------------------------------------


def norms(model: nn.Module) -> dict[str, nn.Module]:
    """All LayerNorms (RMSNorms) of the model, by full name."""
    return {n: m for n, m in model.named_modules() if type(m).__name__.endswith("Norm")}


@dataclass(frozen=True)
class BitFit(Method):
    """Every bias of the model, or only those of the linear layers named ``targets``.

    Source: Ben Zaken et al. (2022); lesson 08, section 5.
    """

    targets: tuple[str, ...] = ()

    def apply(self, model: nn.Module) -> nn.Module:
        parts = find(model, self.targets) if self.targets else {"": model}
        names = [(f"{part}.{n}".lstrip("."), p) for part, m in parts.items() for n, p in m.named_parameters()]
        new = new_layers(model)
        chosen = [p for n, p in names if n.split(".")[-1] == "bias" and not within(n, new)]
        if not chosen:
            raise TrainingError(
                f"{type(model).__name__} has no biases here, so BitFit has nothing to tune: choose LayerNorms or Lora"
            )
        for bias in chosen:
            bias.requires_grad_(True)
        return model


@dataclass(frozen=True)
class LayerNorms(Method):
    """Gain and bias of every LayerNorm (RMSNorm: gain), or only of those named ``targets``.

    Source: Houlsby et al. (2019), section 3.4, as a baseline; lesson 08, section 5.
    """

    targets: tuple[str, ...] = ()

    peft_type: ClassVar[str] = "LN_TUNING"
    settings: ClassVar[tuple[str, ...]] = ("target_modules",)

    def apply(self, model: nn.Module) -> nn.Module:
        for norm in self._chosen(model).values():
            norm.requires_grad_(True)
        return model

    def _chosen(self, model: nn.Module) -> dict[str, nn.Module]:
        found = norms(model)
        if not found:
            raise TrainingError(f"{type(model).__name__} has no LayerNorm: choose another method")
        return find(model, self.targets, type(next(iter(found.values())))) if self.targets else found

    def file_name(self, model: nn.Module, name: str) -> str:
        path, _, leaf = name.rpartition(".")
        if path in norms(model) and not within(path, new_layers(model)):
            return f"base_model.model.{path}.ln_tuning_layers.{leaf}"
        return super().file_name(model, name)

    def to_peft(self, model: nn.Module) -> dict[str, Any]:
        return {"target_modules": list(self.targets) or sorted({n.split(".")[-1] for n in norms(model)})}

    @classmethod
    def from_peft(cls, config: dict[str, Any]) -> LayerNorms | None:
        return cls(peft_targets(config))


@dataclass(frozen=True)
class TopLayers(Method):
    """The ``k`` highest blocks with all their weights, and what stands above them: pooler or last norm, and the head."""

    k: int = 1

    def apply(self, model: nn.Module) -> nn.Module:
        found = blocks(model)
        if not 1 <= self.k <= len(found):
            raise TrainingError(f"k is {self.k}: the model has {len(found)} layers, choose 1 … {len(found)}")
        for block in list(found.values())[-self.k :]:
            block.requires_grad_(True)
        above = [m for n, m in model.named_modules() if re.fullmatch(r"(\w+\.)?(pooler|norm)", n)]
        for module in above:
            module.requires_grad_(True)
        return model


@dataclass(frozen=True)
class HeadOnly(Method):
    """Nothing but the head. TrainingError for a model without one, such as a causal decoder."""

    def apply(self, model: nn.Module) -> nn.Module:
        if not new_layers(model):
            raise TrainingError(f"{type(model).__name__} has no head of its own: choose another method")
        return model
