"""Causal language models: examples of prompt and completion, their loss, and decoding.

Lesson 06 builds these pieces. A *prompt* and a *completion* are texts; their tokens are put behind each other, and the
label of a position is its own token where it counts and -100 where it does not. The shift, that position t is predicted
from the positions before it, happens inside the loss and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from instructlab_utils.errors import ParameterError, TrainingError
from instructlab_utils.guards import positions
from instructlab_utils.losses import cross_entropy, upcast
from instructlab_utils.markers import text_ids

if TYPE_CHECKING:
    from instructlab_utils.training import Batch, Example


def encode_completion(prompt: str, completion: str, tokenizer: Any, completion_only: bool = True) -> Example:
    """The tokens of ``prompt``, ``completion`` and the end token, with labels.

    The two texts are tokenised apart, so that no token spans their border. The first token never has a label: nothing
    predicts it. With ``completion_only`` the other prompt tokens have none either.

    Returns ``{"input_ids": list of T ints, "labels": list of T ints}``; the end token is the tokenizer's
    ``eos_token_id`` and is a label. Nothing is cut.

    Raises TrainingError for an empty prompt: then no token predicts the completion's first one. ParameterError for a special
    token in a text: it would end the prompt. A prompt in the chat template's format has its own (`markers.text_ids`).

    Source: lesson 06, section 3.
    """
    before = text_ids(prompt, tokenizer, chat=True)
    after = [*text_ids(completion, tokenizer), tokenizer.eos_token_id]
    if not before:
        raise TrainingError("the prompt is empty: nothing would predict the first token of the completion")
    masked = len(before) if completion_only else 1
    input_ids = before + after
    return {"input_ids": input_ids, "labels": [-100] * masked + input_ids[masked:]}


def causal_losses(model: nn.Module, batch: Batch) -> Tensor:
    """The objective of a causal language model for ``training.train``: one loss per label that is not -100.

    ``batch``: input_ids, attention_mask and labels, int64 of shape (B, T), padded on the right. The label at t is
    compared with the logits at t - 1. Returns float32 of shape (n,), in nats.

    Raises TrainingError where position 0 has a label: nothing predicts it, but it would be counted.

    Source: lesson 06, section 2.
    """
    if (batch["labels"][:, 0] != -100).any():
        raise TrainingError("position 0 has a label, and nothing before it predicts it: set it to -100")
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    predicted, targets = logits[:, :-1], batch["labels"][:, 1:]
    counts = targets != -100
    return cross_entropy(predicted[counts].float(), targets[counts])


@torch.no_grad()
def greedy(
    model: nn.Module, prompts: Sequence[Sequence[int]], max_new_tokens: int, eos_id: int
) -> list[list[int]]:
    """The most probable next token, again and again, for all prompts at once, with a KV cache.

    ``prompts``: lists of token ids, none empty. They are padded on the *left*, so that all next tokens stand in one
    column; the mask and the position ids make the padding invisible. Call it in eval mode.

    Returns a list of new ids for each prompt, without ``eos_id``, at most ``max_new_tokens`` long.

    Raises ParameterError for no prompt, an empty one, or one that grows beyond the model's positions; TrainingError
    where a logit is NaN: then no token is the most probable.

    Source: lesson 06, section 6. Equal to ``model.generate(..., do_sample=False)``.
    """
    if min(map(len, prompts), default=0) == 0:
        raise ParameterError("no prompt, or one without a token: nothing would predict its first new token")
    device, longest = next(model.parameters()).device, max(map(len, prompts))
    window = positions(model)
    if longest + max_new_tokens - 1 > window:
        raise ParameterError(
            f"{longest} tokens and {max_new_tokens} new ones: the model has {window} positions"
        )
    ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
    new, cache = ids[:, :0], None
    while new.shape[1] < max_new_tokens and not (new == eos_id).any(1).all():
        places = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        seen = dict(attention_mask=mask, position_ids=places, past_key_values=cache)
        out = model(ids, **seen, use_cache=True, logits_to_keep=1)
        if out.logits.isnan().any():
            raise TrainingError(
                "a logit is NaN, so no token is the most probable: look at the model's weights"
            )
        cache, ids = out.past_key_values, out.logits[:, -1].argmax(-1, keepdim=True)
        new, mask = torch.cat([new, ids], 1), torch.cat([mask, torch.ones_like(ids)], 1)
    return [row[: row.index(eos_id)] if eos_id in row else row for row in new.tolist()]


def top_k_filter(logits: Tensor, k: int) -> Tensor:
    """The ``k`` largest logits of each row, all others -inf; equals of the smallest kept one are kept too.

    ``logits``: (..., V), floating; shape and dtype stay. Raises ParameterError for ``k`` below 1.

    Source: Fan et al. (2018); lesson 06, section 6. Equal to ``transformers.TopKLogitsWarper``.
    """
    if k < 1:
        raise ParameterError(f"top-k would keep {k} tokens: choose 1 or more")
    smallest = logits.topk(min(k, logits.shape[-1])).values[..., -1:]
    return logits.masked_fill(logits < smallest, -math.inf)


def nucleus_filter(logits: Tensor, p: float) -> Tensor:
    """The fewest most probable tokens that together reach probability ``p``, all other logits -inf.

    ``logits``: (..., V), floating; shape and dtype stay, and so does what is kept. The probabilities are added up in
    float32 (float64 of float64). The most probable token always stays; ``p`` = 1 drops nothing. Of equal logits at the
    border those behind stay. Raises ParameterError for a ``p`` outside (0, 1].

    Source: Holtzman et al. (2020); lesson 06, section 6. Equal to ``transformers.TopPLogitsWarper`` as ``generate``
    calls it, on logits in float32; called on bfloat16 it adds in bfloat16 and cuts elsewhere.
    """
    if not 0 < p <= 1:
        raise ParameterError(f"the nucleus would have the probability {p}: choose a number in (0, 1]")
    ordered, order = upcast(logits).sort(-1)  # the rarest first: small numbers meet while the sum is small
    drop = (ordered.softmax(-1).cumsum(-1) <= 1 - p) & (p < 1)
    drop[..., -1] = False
    return logits.masked_fill(drop.scatter(-1, order, drop), -math.inf)
