"""A language model small enough to be trained from scratch in seconds: a tokenizer of whole words, a decoder, its samples.

The subject of lessons 15 to 17 where a claim must be decided with many seeds. Taught in lesson 15.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from instructlab_utils.errors import ParameterError, TrainingError
from instructlab_utils.guards import positions
from instructlab_utils.losses import log_softmax

PAD, END, SEP = "<pad>", "<end>", "<sep>"


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are ``words``, separated by blanks, with the special tokens pad (0), end (1) and sep (2).

    An unknown word raises an error when it is encoded: nothing is mapped to a common "unknown" token silently.
    Raises ParameterError for a word that is empty, holds a blank, or is there twice.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    if odd := [w for w in words if not w or w != "".join(w.split()) or w in (PAD, END, SEP)]:
        raise ParameterError(f"{odd[0]!r} cannot be a word of the vocabulary: no blanks, no special token")
    if len(set(words)) != len(words):
        raise ParameterError("the vocabulary holds a word twice: remove one")
    ids = {word: i for i, word in enumerate((PAD, END, SEP, *words))}
    core = Tokenizer(models.WordLevel(ids, unk_token="<none>"))  # not in the vocabulary: encoding raises
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=PAD, eos_token=END, extra_special_tokens=[SEP]
    )


def small_decoder(
    vocabulary: int,
    *,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    window: int = 96,
    std: float = 0.02,
    seed: int = 0,
) -> LlamaForCausalLM:
    """A Llama with random first values: ``width`` d, RMSNorm, rotary positions, SwiGLU of 3 d, tied embeddings; float32.

    Its dropout is 0, so training mode changes nothing. ``window``: positions; ``std``: of the first values of all matrices. A
    narrow network learns sooner from larger ones (0.08 at width 64).
    """
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
        num_attention_heads=heads, max_position_embeddings=window, tie_word_embeddings=True,
        pad_token_id=0, eos_token_id=1, bos_token_id=None, initializer_range=std,
    )  # fmt: skip
    return LlamaForCausalLM(config).float().eval()


@torch.no_grad()
def sample(
    model: nn.Module, prompts: Sequence[Sequence[int]], max_new_tokens: int, eos_id: int, *,
    temperature: float = 1.0, generator: torch.Generator | None = None, allowed: Any = None,
) -> tuple[list[list[int]], list[float]]:  # fmt: skip
    """One completion drawn for each prompt, all at once, with a KV cache; ``temperature`` 0 takes the most probable token.

    ``allowed(i, new)`` may name the ids that can follow the new tokens of prompt ``i`` (constrained decoding, lesson 15);
    all others get probability 0. Prompts are padded on the left.

    Returns the new ids without ``eos_id``, and the log-probability of each completion under the distribution that was
    drawn from, the end token included, in nats (0 with temperature 0).

    Raises ParameterError for an empty prompt or one that grows beyond the model's positions, and where ``allowed`` names
    no token; TrainingError where a logit is NaN.
    """
    if min(map(len, prompts), default=0) == 0:
        raise ParameterError("no prompt, or one without a token: nothing would predict its first new token")
    device, longest = next(model.parameters()).device, max(map(len, prompts))
    if longest + max_new_tokens - 1 > positions(model):
        raise ParameterError(
            f"{longest} tokens and {max_new_tokens} new ones: the model has {positions(model)} positions"
        )
    ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
    new: list[list[int]] = [[] for _ in prompts]
    total, done, cache = torch.zeros(len(prompts), device=device), torch.zeros(len(prompts), dtype=bool), None
    done = done.to(device)
    for _ in range(max_new_tokens):
        places = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        out = model(
            ids,
            attention_mask=mask,
            position_ids=places,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits, cache = out.logits[:, -1].float(), out.past_key_values
        if logits.isnan().any():
            raise TrainingError("a logit is NaN, so no token can be drawn: look at the model's weights")
        if allowed is not None:
            logits = logits + _only(allowed, new, done.tolist(), logits)
        if temperature == 0:
            ids = logits.argmax(-1, keepdim=True)
        else:
            log_p = log_softmax(logits / temperature)
            drawn = torch.multinomial(log_p.exp().cpu(), 1, generator=generator)  # the same on every device
            ids = drawn.to(device)
            total = total + torch.where(done, 0.0, log_p.gather(-1, ids).squeeze(-1))
        for i, (token, over) in enumerate(zip(ids.squeeze(-1).tolist(), done.tolist(), strict=True)):
            if not over and token != eos_id:
                new[i].append(token)
        done = done | (ids.squeeze(-1) == eos_id)
        mask = torch.cat([mask, torch.ones_like(ids)], 1)
        if done.all():
            break
    return new, total.tolist()


def _only(allowed: Any, new: list[list[int]], done: list[bool], logits: Tensor) -> Tensor:
    """0 for the ids that may follow, -inf for all others; rows that have ended stay as they are."""
    penalty = torch.zeros_like(logits)
    for i, over in enumerate(done):
        if not over:
            ids = list(allowed(i, new[i]))
            if not ids:
                raise ParameterError(f"after {len(new[i])} tokens no token is allowed for prompt {i}")
            penalty[i] = -torch.inf
            penalty[i, ids] = 0.0
    return penalty
