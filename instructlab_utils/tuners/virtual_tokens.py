"""A frozen model behind virtual tokens: vectors at its input, or keys and values at its layers. Taught in lesson 10.

All of them wrap the whole model, whose weights stay as they are. The methods of ``prompts`` decide which vectors train.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from instructlab_utils.errors import TrainingError
from instructlab_utils.losses import upcast

UNFIT = (
    "assistant_model", "cache_implementation", "past_key_values", "prefill_chunk_size", "prompt_lookup_num_tokens",
)  # fmt: skip


class Plain(nn.Module):
    """The vectors themselves are the parameters: ``P``, (n, width)."""

    def __init__(self, P: Tensor) -> None:
        super().__init__()
        self.P = nn.Parameter(P)

    def forward(self) -> Tensor:
        return self.P


class Encoded(nn.Module):
    """The vectors are the output of a small network of fewer or more parameters: mlp(E), (n, width), with E of (n, d)."""

    def __init__(self, E: Tensor, mlp: nn.Sequential) -> None:
        super().__init__()
        self.E, self.mlp = nn.Parameter(E), mlp

    def forward(self) -> Tensor:
        return self.mlp(self.E)


class SoftPrompt(nn.Module, ABC):
    """A frozen ``model`` behind ``n`` virtual positions, whose vectors the module ``encoder`` returns."""

    unmergeable: ClassVar[str] = "its vectors stand beside the text and change no weight"
    shift = True  # the positions of the text begin behind the virtual ones

    def __init__(self, model: nn.Module, encoder: nn.Module, n: int) -> None:
        super().__init__()
        self.model, self.encoder, self.n = model, encoder, n
        self.config, self.generation_config = model.config, getattr(model, "generation_config", None)

    @property
    def dtype(self) -> torch.dtype:
        """That of the frozen model; the trained vectors are float32 or wider."""
        return self.model.get_input_embeddings().weight.dtype

    @property
    def virtual_positions(self) -> int:
        """How many of the model's positions are taken before the text begins."""
        return self.n * self.shift

    def _longer(self, mask: Tensor | None) -> Tensor | None:
        """The attention mask with ``n`` ones in front, so that no padding of the text hides the prompt."""
        return None if mask is None else torch.cat([mask.new_ones(len(mask), self.n), mask], 1)

    @abstractmethod
    def cache(self, rows: int) -> Any:
        """Keys and values of the virtual positions at every layer, for ``rows`` texts, as a cache of transformers."""

    @torch.no_grad()
    def generate(self, input_ids: Tensor, attention_mask: Tensor | None = None, **settings: Any) -> Any:
        """As the decoder's own ``generate``, with the same settings: the ids of prompt and continuation, (B, T + new).

        The virtual positions wait in the KV cache; no length and no rule about tokens counts them. TrainingError for the
        settings in ``UNFIT``, which need a cache of fixed size or cut it.
        """
        plain, config = self.model.prepare_inputs_for_generation, settings.get("generation_config")
        for name in UNFIT:
            asked = settings.get(name, getattr(config or self.generation_config, name, None))
            if asked is not None and asked != "dynamic":
                raise TrainingError(f"generate({name}=…) leaves no room for virtual positions; drop it")

        @functools.wraps(plain)  # transformers reads its signature
        def prepare(ids: Tensor, **given: Any) -> dict[str, Any]:
            found = plain(ids, **given)
            held = found.get("past_key_values") if given.get("use_cache", True) else None
            if held is None:
                found["past_key_values"] = self.cache(len(ids))
            elif not held.get_seq_length():
                for number, layer in enumerate(self.cache(len(ids)).layers):
                    held.update(layer.keys, layer.values, number)
            if (places := found.get("position_ids")) is not None:
                found["position_ids"] = places + self.n * self.shift
            found["attention_mask"] = self._longer(found.get("attention_mask"))
            return found

        self.model.prepare_inputs_for_generation = prepare
        try:
            return self.model.generate(input_ids, attention_mask=attention_mask, **settings)
        finally:
            del self.model.prepare_inputs_for_generation


class PromptModel(SoftPrompt):
    """``n`` vectors between the word embeddings of the text: in front of it or, with ``after_cls``, behind its first token.

    Source: Lester et al. (2021), section 2; lesson 10, section 3.
    """

    def __init__(self, model: nn.Module, encoder: nn.Module, n: int, after_cls: bool = False) -> None:
        super().__init__(model, encoder, n)
        self.first = 1 if after_cls else 0

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> Any:
        """The model's own output. Logits per token, (B, T, K), leave out the virtual positions.

        A decoder's loss counts a label of the first token, as peft's does: the prompt stands before it.
        """
        mask, n, i = self._longer(attention_mask), self.n, self.first
        if past_key_values is not None and past_key_values.get_seq_length():  # the prompt is in the cache
            places = None if position_ids is None else position_ids + n
            found = dict(attention_mask=mask, position_ids=places, past_key_values=past_key_values)
            return self.model(input_ids=input_ids, **found, **kwargs)
        x = self.model.get_input_embeddings()(input_ids)
        P = self.encoder().to(x.dtype).expand(len(x), -1, -1)
        kwargs |= {"inputs_embeds": torch.cat([x[:, :i], P, x[:, i:]], 1), "attention_mask": mask}
        if past_key_values is not None:
            kwargs["past_key_values"] = past_key_values
        if token_type_ids is not None:
            kwargs["token_type_ids"] = nn.functional.pad(token_type_ids, (n, 0))
        if position_ids is not None:
            places = torch.arange(n, device=x.device).expand(len(position_ids), n)
            kwargs["position_ids"] = torch.cat([places, position_ids + n], 1)
        for name in {"start_positions", "end_positions"} & kwargs.keys():
            kwargs[name] = kwargs[name] + n * (kwargs[name] >= i)
        if hasattr(self.model, "lm_head"):
            return self._decode(input_ids.shape[1], labels, kwargs)
        if labels is not None and labels.ndim == 2:
            kwargs["labels"] = torch.cat(
                [labels[:, :i], labels.new_full((len(x), n), -100), labels[:, i:]], 1
            )
        elif labels is not None:
            kwargs["labels"] = labels
        out = self.model(**kwargs)
        for name in ("logits", "start_logits", "end_logits"):
            values = out.get(name)
            if values is not None and (values.ndim == 3 or name != "logits"):
                out[name] = torch.cat([values[:, :i], values[:, i + n :]], 1) if i else values[:, n:]
        return out

    def _decode(self, T: int, labels: Tensor | None, kwargs: dict[str, Any]) -> Any:
        """A decoder's output: the vocabulary's logits are computed for real positions, and for the last virtual one where
        it predicts a label."""
        kwargs.setdefault("logits_to_keep", T + (labels is not None))
        if labels is not None:
            kwargs["labels"] = nn.functional.pad(labels, (1, 0), value=-100)
        out = self.model(**kwargs)
        out.logits = out.logits[:, -T:]
        return out

    def cache(self, rows: int) -> Any:
        """A decoder reads the prompt alone: to the text behind it, keys and values are all that is left of it."""
        P = self.encoder().to(self.dtype).unsqueeze(0)
        held = self.model(inputs_embeds=P, use_cache=True, logits_to_keep=1).past_key_values
        return _cache(
            [
                (layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1))
                for layer in held.layers
            ]
        )


class PrefixModel(SoftPrompt):
    """``n`` keys and values at every layer of ``layers`` (all by default), in front of those of the text.

    ``shift``: the positions of the text begin at ``n``, as if the prefix were text; else at 0.

    Source: Li and Liang (2021), section 4; Liu et al. (2022), P-Tuning v2; lesson 10, section 5.
    """

    def __init__(
        self, model: nn.Module, encoder: nn.Module, n: int, layers: tuple[int, ...] = (), shift: bool = True
    ) -> None:
        super().__init__(model, encoder, n)
        count, self.shape = key_shape(model)
        self.layers = layers or tuple(range(count))
        self.count, self.shift = count, shift
        for number, attention in attentions(model).items():
            if number not in self.layers:
                attention.register_forward_pre_hook(self._blind, with_kwargs=True)

    def _blind(self, attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A layer without a prefix: its mask hides the virtual positions, so that they get no weight at all."""
        mask, length = (
            kwargs.get("attention_mask"),
            args[0].shape[1] if args else kwargs["hidden_states"].shape[1],
        )
        if mask is None:  # nothing else is hidden
            x = args[0] if args else kwargs["hidden_states"]
            seen = kwargs["past_key_values"].get_seq_length(attention.layer_idx) + length
            mask = x.new_zeros(1, 1, length, seen)
        hidden = False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
        mask = mask.clone()
        mask[..., : self.n] = hidden
        return args, kwargs | {"attention_mask": mask}

    def cache(self, rows: int) -> Any:
        heads_, d = self.shape
        P = self.encoder().to(self.dtype)
        KV = P.view(self.n, 2 * len(self.layers), 1, heads_, d)
        KV = KV.permute(1, 2, 3, 0, 4)  # (2 L', 1, heads, n, d)
        KV = KV.expand(-1, rows, -1, -1, -1)
        found = dict(zip(self.layers, zip(KV[0::2], KV[1::2], strict=True), strict=True))
        nothing = P.new_zeros(1, 1, 1, 1).expand(rows, heads_, self.n, d)
        return _cache([found.get(number, (nothing, nothing)) for number in range(self.count)])

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> Any:
        """The model's own output; the prefix has no logits."""
        if past_key_values is None or not past_key_values.get_seq_length():
            past_key_values = self.cache(len(input_ids))
        if position_ids is not None:
            position_ids = position_ids + self.n * self.shift
        elif not self.shift:
            begin = past_key_values.get_seq_length() - self.n
            position_ids = torch.arange(begin, begin + input_ids.shape[1], device=input_ids.device)[None]
        return self.model(
            input_ids=input_ids,
            attention_mask=self._longer(attention_mask),
            position_ids=position_ids,
            past_key_values=past_key_values,
            **kwargs,
        )


def _cache(pairs: list[tuple[Tensor, Tensor]]) -> Any:
    from transformers import DynamicCache

    return DynamicCache(pairs)


def attentions(model: nn.Module) -> dict[int, nn.Module]:
    """The self-attention modules that write to a KV cache, by their layer's number."""
    found = {m.layer_idx: m for m in model.modules() if isinstance(getattr(m, "layer_idx", None), int)}
    if not found:
        raise TrainingError(f"no layer of {type(model).__name__} has a KV cache: a prefix has no place in it")
    return found


def key_shape(model: nn.Module) -> tuple[int, tuple[int, int]]:
    """Number of layers, and (heads, width) of the keys of one position; heads that share keys count once."""
    config = model.config
    queries = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // queries
    return config.num_hidden_layers, (getattr(config, "num_key_value_heads", None) or queries, width)


def token_ids(model: nn.Module, n: int, init: str | tuple[int, ...]) -> Tensor:
    """``n`` tokens to begin with: drawn from the vocabulary, or those of ``init``, repeated or cut to ``n`` as peft does."""
    vocabulary = model.get_input_embeddings()
    if init == "vocab":
        ids = torch.randint(0, vocabulary.num_embeddings, (n,))
    else:
        ids = torch.tensor([init[i % len(init)] for i in range(n)])
    return ids.to(vocabulary.weight.device)


def first_vectors(model: nn.Module, n: int, init: str | tuple[int, ...]) -> Tensor:
    """The first values of ``n`` input vectors, (n, d). ``init``: see :class:`PromptTuning`."""
    words = model.get_input_embeddings().weight
    words = upcast(words.detach())
    if init == "normal" or init == "small":
        return torch.randn(n, words.shape[1]).to(words) * (1.0 if init == "normal" else 0.02)
    return words[token_ids(model, n, init)].clone()


@torch.no_grad()
def first_keys_and_values(
    model: nn.Module, n: int, init: str | tuple[int, ...], layers: tuple[int, ...]
) -> Tensor:
    """The first values of a prefix, (n, 2 · layers · heads · width): see :class:`DeepPrompts`."""
    from transformers import DynamicCache

    count, (heads_, width) = key_shape(model)
    chosen, words = layers or tuple(range(count)), model.get_input_embeddings().weight
    size, words = (n, 2 * len(chosen) * heads_ * width), upcast(words.detach())
    if init == "normal":
        return torch.randn(size).to(words)
    if init == "zero":
        return words.new_zeros(size)
    cache, training = DynamicCache(), model.training
    model.eval().base_model(input_ids=token_ids(model, n, init)[None], past_key_values=cache)
    model.train(training)
    kept = [cache.layers[number] for number in chosen]
    # (2 L', heads, n, width)
    pairs = torch.stack([t[0] for layer in kept for t in (layer.keys, layer.values)])
    return pairs.permute(2, 0, 1, 3).reshape(size).to(words.dtype)
