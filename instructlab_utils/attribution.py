"""Which words made the model say it: gradient × input, integrated gradients, occlusion, attention, and tests of the answers.

Lesson 21 builds each function (notebooks/source/21_interpretability.py). A *score* maps embedded texts, float (B, T, d), to
one number for each, (B,); an *attribution* is one number for each token, (B, T), or for each word. A model is called as
``net(inputs_embeds=…, attention_mask=…).logits``, as `robustness.ShortEncoder` is. A *reader* maps lists of words to
probabilities, (N, K): ``checklist.reader``. Positive means: speaks for the class that is explained. From lesson 21 on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from instructlab_utils import checklist, models, training
from instructlab_utils.arguments import listed
from instructlab_utils.errors import ParameterError
from instructlab_utils.robustness import Scorer, Words

Score = Callable[[Tensor], Tensor]
BASELINES = ("pad", "mask", "zero", "mean")


# --- words and tokens -----------------------------------------------------------------------------------------------


def encode_words(sentences: Sequence[Words], tokenizer: Any, max_length: int) -> list[dict[str, Any]]:
    """Each list of words as an example for ``training.collate``, with ``words``, those that fit, and ``places``.

    ``places`` names the word that each token belongs to, -1 at the two special tokens. A word that does not fit whole is
    left out, and so are all after it. A typed "[SEP]" is text. Source: lesson 21, section 2.
    """
    how = {"add_special_tokens": False, "split_special_tokens": True}
    found = []
    for words in sentences:
        ids, places = [tokenizer.cls_token_id], [-1]
        kept: list[str] = []
        for word in listed(words, "words"):
            pieces = tokenizer(word, **how)["input_ids"]
            if len(ids) + len(pieces) >= max_length:
                break
            places += [len(kept)] * len(pieces)
            ids += pieces
            kept.append(word)
        ids, places = [*ids, tokenizer.sep_token_id], [*places, -1]
        found.append({"input_ids": ids, "labels": 0, "words": kept, "places": places})
    return found


def _device(net: nn.Module) -> torch.device:
    return next(net.parameters()).device


def by_word(attribution: Tensor, places: Sequence[Sequence[int]]) -> list[Tensor]:
    """Sums over the tokens of each word: a tensor for each text, as long as it has words. Source: lesson 21, section 2.

    Sums, not means: what is complete over tokens stays complete over words. Special tokens and padding are left out.
    """
    found = []
    for row, place in zip(attribution.cpu(), places, strict=True):
        index = torch.tensor([i for i in place if i >= 0], dtype=torch.int64)
        keep = torch.tensor([i >= 0 for i in place], dtype=torch.bool)
        total = torch.zeros(int(index.max()) + 1 if len(index) else 0, dtype=row.dtype)
        found.append(total.index_add(0, index, row[: len(place)][keep]))
    return found


# --- gradients ------------------------------------------------------------------------------------------------------


def log_odds(net: nn.Module, mask: Tensor, chosen: Tensor) -> Score:
    """The score that this lesson explains: log-odds of class ``chosen``, int64 (B,), against all others together.

    Source: lesson 21, section 2.
    """

    def score(x: Tensor) -> Tensor:
        z = net(inputs_embeds=x, attention_mask=mask).logits
        others = z.scatter(1, chosen[:, None], -torch.inf)
        return z.gather(1, chosen[:, None]).squeeze(1) - others.logsumexp(1)

    return score


def baseline(net: nn.Module, x: Tensor, kept: Tensor, kind: str, tokenizer: Any) -> Tensor:
    """A text that says nothing, (B, T, d): every token of ``x`` becomes one vector, except where ``kept`` (B, T) is true.

    ``kind``: "pad" or "mask", the embedding of this token; "zero"; "mean", the mean of the embedding table. Keep the special
    tokens: then they explain nothing. ParameterError for another kind. Source: lesson 21, section 4.
    """
    if kind not in BASELINES:
        raise ParameterError(f"kind is {kind!r}: choose one of {', '.join(BASELINES)}")
    table = net.get_input_embeddings().weight.detach()
    tokens = {"pad": tokenizer.pad_token_id, "mask": tokenizer.mask_token_id}
    if kind in tokens:
        empty = table[tokens[kind]]
    else:
        empty = table.mean(0) if kind == "mean" else torch.zeros_like(table[0])
    return torch.where(kept.bool()[..., None], x, empty.to(x.dtype))


def gradient_times_input(score: Score, x: Tensor, base: Tensor) -> Tensor:
    """⟨gradient at ``x``, x - base⟩ for each token, (B, T): the first-order change. Source: lesson 21, section 2."""
    at = x.detach().requires_grad_()
    (g,) = torch.autograd.grad(score(at).sum(), at)
    return (g * (x - base)).sum(-1)


def quadrature(steps: int, rule: str = "midpoint") -> tuple[np.ndarray, np.ndarray]:
    """Points in [0, 1] and their weights: "left", "right", "midpoint", "trapezoid" or "gauss". Weights sum to 1.

    "trapezoid" has ``steps`` + 1 points. ParameterError for another rule and for less than one step.
    Source: lesson 21, section 3.
    """
    if not isinstance(steps, int) or steps < 1:
        raise ParameterError(f"steps is {steps!r}: choose a whole number from 1")
    n, even = steps, np.full(steps, 1 / steps)
    if rule == "gauss":
        points, weights = np.polynomial.legendre.leggauss(n)
        return (points + 1) / 2, weights / 2
    if rule == "trapezoid":
        weights = np.full(n + 1, 1 / n)
        weights[[0, -1]] /= 2
        return np.arange(n + 1) / n, weights
    shift = {"left": 0.0, "midpoint": 0.5, "right": 1.0}
    if rule not in shift:
        raise ParameterError(f"rule is {rule!r}: choose left, right, midpoint, trapezoid or gauss")
    return (np.arange(n) + shift[rule]) / n, even


def integrated_gradients(
    score: Score, x: Tensor, base: Tensor, steps: int = 32, rule: str = "midpoint"
) -> Tensor:
    """⟨mean gradient on the straight line from ``base`` to ``x``, x - base⟩ for each token, (B, T).

    Their sum over a text approaches score(x) - score(base) as ``steps`` grow. Equal to captum's IntegratedGradients with
    method="riemann_middle". Source: Sundararajan, Taly and Yan (2017), equation 3; lesson 21, section 3.
    """
    mean = torch.zeros_like(x)
    for alpha, weight in zip(*quadrature(steps, rule), strict=True):
        at = (base + float(alpha) * (x - base)).detach().requires_grad_()
        (g,) = torch.autograd.grad(score(at).sum(), at)
        mean += float(weight) * g
    return (mean * (x - base)).sum(-1)


@torch.no_grad()
def completeness_error(score: Score, x: Tensor, base: Tensor, attribution: Tensor) -> Tensor:
    """By how much the attributions of a text fail to sum to score(x) - score(base): |…|, (B,). Lesson 21, section 3."""
    return (attribution.sum(1) - (score(x) - score(base))).abs()


@torch.no_grad()
def attention_received(net: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """How much attention each token gets, (B, T): the mean over layers, heads and the text's real tokens as queries.

    ``net.encoder`` is a transformers encoder; it is switched to the implementation that hands its weights out.
    Source: lesson 21, section 6.
    """
    net.encoder.set_attn_implementation("eager")
    ids, mask = (batch[name].to(_device(net)) for name in ("input_ids", "attention_mask"))
    with models.evaluating(net):
        found = net.encoder(ids, mask, output_attentions=True).attentions
    a = torch.stack(found).mean((0, 2))  # (B, queries, keys)
    return (a * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def question(
    net: nn.Module, sentences: Sequence[Words], tokenizer: Any, max_length: int, kind: str = "pad"
) -> tuple[list[dict[str, Any]], Tensor, Score, Tensor, Tensor]:
    """What has to be explained: the examples of :func:`encode_words`, the classes that ``net`` says, int64 (B,), their
    log-odds as a score, the embedded texts and their baseline of this ``kind``, (B, T, d). Source: lesson 21, section 2.
    """
    examples = encode_words(sentences, tokenizer, max_length)
    batch = training.move(training.collate(examples, tokenizer.pad_token_id), _device(net))
    with models.evaluating(net), torch.no_grad():
        says = net(batch["input_ids"], batch["attention_mask"]).logits.argmax(1)
    x = net.get_input_embeddings()(batch["input_ids"]).detach()
    inner = nn.utils.rnn.pad_sequence([torch.tensor(e["places"]) for e in examples], True, -1) >= 0
    inner = inner.to(x.device)
    return (
        examples,
        says,
        log_odds(net, batch["attention_mask"], says),
        x,
        baseline(net, x, ~inner, kind, tokenizer),
    )


def explain(
    method: str, net: nn.Module, sentences: Sequence[Words], tokenizer: Any, max_length: int,
    kind: str = "pad", steps: int = 32,
) -> list[tuple[list[str], int, Tensor]]:  # fmt: skip
    """For each sentence the words that were read, the class that ``net`` says, and a number for each word.

    ``method``: "gradient" (× input), "ig", "attention" or "occlusion"; ``kind`` is the baseline of the first two, ``steps``
    those of the second. Explained in evaluation mode. ParameterError for another method. Source: lesson 21, section 6.
    """
    if method not in ("gradient", "ig", "attention", "occlusion"):
        raise ParameterError(f"method is {method!r}: choose gradient, ig, attention or occlusion")
    with models.evaluating(net):
        examples, says, score, x, base = question(net, sentences, tokenizer, max_length, kind)
        words, places = [e["words"] for e in examples], [e["places"] for e in examples]
        if method == "occlusion":
            read = checklist.reader(net, tokenizer, max_length)
            found = [occlusion(read, w, int(c)) for w, c in zip(words, says, strict=True)]
        elif method == "attention":
            batch = training.collate(examples, tokenizer.pad_token_id)
            found = by_word(attention_received(net, batch), places)
        elif method == "gradient":
            found = by_word(gradient_times_input(score, x, base), places)
        else:
            found = by_word(integrated_gradients(score, x, base, steps), places)
    return list(zip(words, says.tolist(), found, strict=True))


# --- words taken away -------------------------------------------------------------------------------------------------


def occlusion(read: Scorer, words: Words, label: int) -> Tensor:
    """For each word: how far the log-odds of ``label`` fall when it is deleted, (n,). Source: lesson 21, section 5."""
    p = read([list(words), *([*words[:i], *words[i + 1 :]] for i in range(len(words)))])[:, label]
    odds = torch.logit(p.double(), eps=1e-9)
    return odds[0] - odds[1:]


def deletion_curve(read: Scorer, words: Words, ranking: Sequence[int], label: int) -> Tensor:
    """The probability of ``label`` after the first 0, 1, … n words of ``ranking`` are deleted: (n + 1,).

    ParameterError where ``ranking`` is no order of all words. Source: lesson 21, section 5.
    """
    if sorted(ranking) != list(range(len(words))):
        raise ParameterError(f"ranking must hold each of the {len(words)} places once")
    gone = [set(ranking[:k]) for k in range(len(words) + 1)]
    return read([[w for i, w in enumerate(words) if i not in out] for out in gone])[:, label]


def ranked(attribution: Tensor) -> list[int]:
    """Places from the largest attribution to the smallest; of equals the earlier first. Source: lesson 21, section 5."""
    return attribution.argsort(descending=True, stable=True).tolist()
