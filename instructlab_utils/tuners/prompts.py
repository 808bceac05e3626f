"""The methods of soft prompts: trained vectors at the input, or keys and values at every layer. Taught in lesson 10.

``inject`` returns a model of :mod:`virtual_tokens` around the frozen one; its logits are those of the real tokens only.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from instructlab_utils.errors import TrainingError
from instructlab_utils.losses import upcast
from instructlab_utils.tuners.base import Method, new_layers
from instructlab_utils.tuners.ownership import within
from instructlab_utils.tuners.virtual_tokens import (
    Encoded,
    Plain,
    PrefixModel,
    PromptModel,
    first_keys_and_values,
    first_vectors,
    key_shape,
)

INITS = {"prompt": ("normal", "small", "vocab"), "prefix": ("normal", "zero", "vocab")}


def _check(kind: str, length: int, init: str | tuple[int, ...], known: tuple[str, ...]) -> None:
    if length < 1:
        raise TrainingError(f"{kind}(length={length}): a soft prompt needs at least one position")
    if init not in known if isinstance(init, str) else not init:
        raise TrainingError(f"{kind}(init={init!r}): choose {', '.join(known)} or a tuple of token ids")


def _length(config: dict[str, Any]) -> int:
    """How many virtual tokens peft's configuration asks for, in front of one model."""
    if (parts := config.get("num_transformer_submodules") or 1) != 1:
        raise TrainingError(
            f"num_transformer_submodules = {parts}: only models without a separate decoder are supported"
        )
    return config["num_virtual_tokens"]


@dataclass(frozen=True)
class SoftMethod(Method):
    """What soft prompts have in common: ``length`` virtual positions, and a file that holds the vectors themselves."""

    length: int = 20

    def inside(self, model: nn.Module) -> nn.Module:
        return model.model

    def tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """The vectors, also where a network computes them, and the head: peft saves the same. So a file can be used, but
        a reparametrised run cannot be resumed from it."""
        new, inner = new_layers(model), self.inside(model)
        head = {f"base_model.{n}": p for n, p in inner.named_parameters() if within(n, new)}
        return {"prompt_embeddings": model.encoder(), **head}

    def to_peft(self, model: nn.Module) -> dict[str, Any] | None:
        count, (keys, width) = key_shape(model.model)
        prefix = isinstance(model, PrefixModel)
        return {
            "num_virtual_tokens": self.length,
            "num_layers": count,
            "num_attention_heads": keys if prefix else model.config.num_attention_heads,
            "token_dim": keys * width if prefix else model.config.hidden_size,
            "num_transformer_submodules": 1,
        }


@dataclass(frozen=True)
class PromptTuning(SoftMethod):
    """``length`` input vectors (Lester et al., 2021). ``init``: "normal", N(0, 1) as peft's default; "small", N(0, 0.02²),
    as BERT's own embeddings were first drawn; "vocab", embeddings of words drawn at random; a tuple of token ids, theirs.

    ``after_cls`` puts them behind the first token, so that an encoder's head still reads [CLS]; peft puts them in front.
    """

    init: str | tuple[int, ...] = "normal"
    after_cls: bool = False

    peft_type: ClassVar[str] = "PROMPT_TUNING"
    settings: ClassVar[tuple[str, ...]] = (
        "num_transformer_submodules", "num_virtual_tokens", "prompt_tuning_init", "prompt_tuning_init_text",
        "tokenizer_kwargs", "tokenizer_name_or_path",
    )  # fmt: skip

    def apply(self, model: nn.Module) -> nn.Module:
        _check("PromptTuning", self.length, self.init, INITS["prompt"])
        if self.after_cls and hasattr(model, "lm_head"):
            raise TrainingError("PromptTuning(after_cls=True): a decoder has no [CLS]; leave it out")
        return PromptModel(
            model, Plain(first_vectors(model, self.length, self.init)), self.length, self.after_cls
        )

    def to_peft(self, model: nn.Module) -> dict[str, Any] | None:
        return None if self.after_cls else super().to_peft(model)

    @classmethod
    def from_peft(cls, config: dict[str, Any]) -> PromptTuning | None:
        return cls(_length(config))

    def described(self) -> Method:
        return dataclasses.replace(self, init="normal")


@dataclass(frozen=True)
class PTuning(SoftMethod):
    """``length`` input vectors, the output of a network with two hidden layers of ``hidden`` units (0: the embeddings'
    width), as peft's PromptEncoder with its MLP (Liu et al., 2021)."""

    hidden: int = 0

    peft_type: ClassVar[str] = "P_TUNING"
    settings: ClassVar[tuple[str, ...]] = (
        "encoder_dropout", "encoder_hidden_size", "encoder_num_layers", "encoder_reparameterization_type",
        "num_transformer_submodules", "num_virtual_tokens",
    )  # fmt: skip

    def apply(self, model: nn.Module) -> nn.Module:
        _check("PTuning", self.length, "normal", ("normal",))
        words = model.get_input_embeddings().weight
        words = upcast(words)
        d, h = words.shape[1], self.hidden or words.shape[1]
        E = torch.randn(self.length, d).to(words)
        layers = [nn.Linear(d, h), nn.ReLU(), nn.Linear(h, h), nn.ReLU(), nn.Linear(h, d)]
        return PromptModel(model, Encoded(E, nn.Sequential(*layers).to(words)), self.length)

    @classmethod
    def from_peft(cls, config: dict[str, Any]) -> Any:
        return PromptTuning(_length(config))  # the file holds the result of the network

    def described(self) -> Method:
        return PromptTuning(self.length)


@dataclass(frozen=True)
class DeepPrompts(SoftMethod):
    """``length`` keys and values at every layer, trained directly: P-Tuning v2 (Liu et al., 2022).

    ``init``: "normal", N(0, 1) as peft's default; "zero", which is no no-op, for a key of zero still draws attention;
    "vocab" or a tuple of token ids, the keys and values that the frozen model computes for those tokens.
    ``layers`` (numbers from 0) leaves the others without a prefix; ``shift_positions=False`` starts the text at position 0.
    """

    init: str | tuple[int, ...] = "normal"
    layers: tuple[int, ...] = ()
    shift_positions: bool = True

    peft_type: ClassVar[str] = "PREFIX_TUNING"
    settings: ClassVar[tuple[str, ...]] = (
        "encoder_hidden_size", "num_transformer_submodules", "num_virtual_tokens", "prefix_projection",
    )  # fmt: skip

    def apply(self, model: nn.Module) -> nn.Module:
        _check("DeepPrompts", self.length, self.init, INITS["prefix"])
        layers = _layers(model, self.layers)
        P = first_keys_and_values(model, self.length, self.init, layers)
        return PrefixModel(model, Plain(P), self.length, layers, self.shift_positions)

    def to_peft(self, model: nn.Module) -> dict[str, Any] | None:
        return super().to_peft(model) if self.shift_positions and not self.layers else None

    @classmethod
    def from_peft(cls, config: dict[str, Any]) -> DeepPrompts | None:
        return cls(_length(config), "zero")  # also of a reparametrised one: the file holds its result

    def described(self) -> Method:
        return dataclasses.replace(self, init="zero")


@dataclass(frozen=True)
class PrefixTuning(SoftMethod):
    """``length`` keys and values at every layer, the output of a network with one hidden layer of ``hidden`` units (0: the
    width of the keys), as in Li and Liang (2021) and in peft with ``prefix_projection=True``.

    ``reparametrise=False`` is :class:`DeepPrompts`. ``init``: "normal", or "zero" for the network's last layer.
    """

    reparametrise: bool = True
    init: str = "normal"
    hidden: int = 0
    shift_positions: bool = True

    peft_type: ClassVar[str] = "PREFIX_TUNING"
    settings: ClassVar[tuple[str, ...]] = DeepPrompts.settings

    def plain(self) -> DeepPrompts:
        """The same without the network."""
        return DeepPrompts(self.length, self.init, (), self.shift_positions)

    def apply(self, model: nn.Module) -> nn.Module:
        if not self.reparametrise:
            return self.plain().apply(model)
        _check("PrefixTuning", self.length, self.init, ("normal", "zero"))
        count, (keys, width) = key_shape(model)
        words, d = model.get_input_embeddings().weight, keys * width
        words = upcast(words)
        h = self.hidden or d
        E = torch.randn(self.length, d).to(words)
        mlp = nn.Sequential(nn.Linear(d, h), nn.Tanh(), nn.Linear(h, 2 * count * d)).to(words)
        if self.init == "zero":
            nn.init.zeros_(mlp[-1].weight)
            nn.init.zeros_(mlp[-1].bias)
        return PrefixModel(model, Encoded(E, mlp), self.length, (), self.shift_positions)

    def to_peft(self, model: nn.Module) -> dict[str, Any] | None:
        return self.plain().to_peft(model)

    @classmethod
    def from_peft(cls, config: dict[str, Any]) -> Any:
        return DeepPrompts.from_peft(config)

    def described(self) -> Method:
        return dataclasses.replace(self.plain(), init="zero")


def _layers(model: nn.Module, layers: tuple[int, ...]) -> tuple[int, ...]:
    count = key_shape(model)[0]
    wrong = [number for number in layers if not 0 <= number < count]
    if wrong:
        raise TrainingError(
            f"DeepPrompts(layers={layers}): there is no layer {wrong[0]}, only 0 to {count - 1}"
        )
    return tuple(sorted(set(layers)))
