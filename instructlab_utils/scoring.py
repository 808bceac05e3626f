"""Which of several options does a causal language model find most probable? No text is generated.

Lesson 12 builds these pieces, one forward pass for every pair of context and option first. Here the work that pairs share
is done once: a *prefix* (demonstrations, an instruction) stays in the KV cache; a context is read once for all of its
options; many contexts stand in one row without padding. A mask keeps each from seeing the others, so the numbers are those
of the pairs one by one, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from instructlab_utils.errors import ParameterError
from instructlab_utils.guards import positions
from instructlab_utils.losses import log_softmax
from instructlab_utils.markers import text_ids

RULES = ("sum", "mean", "pmi")


@dataclass(frozen=True)
class OptionScores:
    """The options of one context: ``log_probs``, summed over an option's tokens, float64 of shape (O,), in nats;
    ``tokens``, their numbers, int64 of shape (O,). ParameterError where a score is NaN. Source: lesson 12, section 3."""

    log_probs: Tensor
    tokens: Tensor

    def __post_init__(self) -> None:
        if self.log_probs.shape != self.tokens.shape or self.log_probs.isnan().any():
            raise ParameterError(
                f"the scores {self.log_probs.tolist()} are NaN or not one an option: look at the logits"
            )


def encode_pair(context: str, option: str, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Token ids of ``context`` and of ``option`` behind it: together, those of ``context + option``.

    White space at the end of the context goes to the option, where byte-pair tokens carry it. The option begins at the
    first token in which the whole differs from the context alone. So a token that spans the border is the option's:
    "if x <" and "= 4" give ``if x`` and ``<= 4``. Where no token does, this is lm-eval's rule, which counts tokens instead.

    Raises ParameterError where either has no token: nothing would predict the option, or there is nothing to predict; where
    the first token of all spans the border; and for a special token in the text, unless it is a chat (`markers.text_ids`).

    Source: lesson 12, section 2.
    """
    before = text_ids(context.rstrip(), tokenizer, chat=True)
    both = text_ids(context + option, tokenizer, chat=True)
    differs = (i for i, (a, b) in enumerate(zip(before, both, strict=False)) if a != b)
    border = next(differs, min(len(before), len(both)))
    empty = "context" if not before else "option" if not option or border == len(both) else ""
    if empty:
        raise ParameterError(f"the {empty} of {context[-40:]!r} + {option!r} has no token: write some text")
    if not border:
        raise ParameterError(
            f"one token spans {context!r} and {option!r}, and none predicts it: write a space between"
        )
    return both[:border], both[border:]


@dataclass(frozen=True)
class _Tree:
    """One context and its options as tokens of a row. ``branch`` is 0 for the context, then 1, 2, … for the options.

    ``reads``: where the logits for the next option token stand. ``targets``: those tokens. ``of``: their option.
    """

    ids: list[int]
    branch: list[int]
    places: list[int]
    reads: list[int]
    targets: list[int]
    of: list[int]


def _tree(context: list[int], options: Sequence[list[int]], start: int) -> _Tree:
    """The last token of an option is only predicted, never read. ``start`` is the position of the context's first token."""
    ids, branch, n = list(context), [0] * len(context), len(context)
    places = list(range(start, start + n))
    reads: list[int] = []
    targets: list[int] = []
    of: list[int] = []
    for number, option in enumerate(options, start=1):
        fed = option[:-1]
        reads += [n - 1, *range(len(ids), len(ids) + len(fed))]
        targets += option
        of += [number - 1] * len(option)
        ids += fed
        branch += [number] * len(fed)
        places += range(start + n, start + n + len(fed))
    return _Tree(ids, branch, places, reads, targets, of)


def _rows(trees: Sequence[_Tree], max_tokens: int) -> Iterator[list[_Tree]]:
    """The trees in order, as many to a row as fit into ``max_tokens``; at least one."""
    row: list[_Tree] = []
    size = 0
    for tree in trees:
        if row and size + len(tree.ids) > max_tokens:
            yield row
            row, size = [], 0
        row.append(tree)
        size += len(tree.ids)
    if row:
        yield row


def _mask(row: Sequence[_Tree], cached: int, dtype: torch.dtype) -> Tensor:
    """(1, 1, T, cached + T): 0 where a token may look, else the smallest number of ``dtype``.

    A token sees the prefix, its own context up to itself, and its own option up to itself.
    """
    tree = torch.tensor([k for k, t in enumerate(row) for _ in t.ids])
    branch = torch.tensor([b for t in row for b in t.branch])
    place = torch.tensor([p for t in row for p in t.places])
    same = tree[:, None] == tree
    path = (branch == 0) | (branch[:, None] == branch)
    seen = same & path & (place <= place[:, None])
    seen = torch.cat([torch.ones(len(tree), cached, dtype=torch.bool), seen], 1)
    return torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)[None, None]


@torch.no_grad()
def option_log_probs(
    model: nn.Module,
    tokenizer: Any,
    contexts: Sequence[str],
    options: Sequence[Sequence[str]],
    *,
    prefix: str = "",
    max_tokens: int = 256,
) -> list[OptionScores]:
    """log p(option | prefix + context) of every option of every context.

    Args:
        model: a Llama-type causal language model of transformers, in eval mode.
        contexts: N texts. Where there is a prefix they carry the separator: "\\n\\nReview: …".
        options: for each context its options, a list of one or more different texts; a leading space belongs to the option.
        prefix: what all contexts share; read once. It must not end in white space.
        max_tokens: how many tokens stand in one row. Longer rows waste attention, shorter ones overhead.

    Returns:
        N scores, the logits taken in float32. Where a token spans the border of a context and one of its options, all of
        this context's options begin at that token, so that they stay comparable: ``tokens`` counts it.

    Raises:
        ParameterError: numbers of contexts and options differ; a text is missing, empty, or holds a special token and is no
        chat; two options of a context become the same tokens; the border between prefix and context falls inside a
        token; prefix, context and option are longer than the model's window: nothing is ever cut.

    Source: lesson 12, section 4. Where no token spans a border, equal to lm-eval's ``loglikelihood``
    (tests/test_scoring.py, benchmarks/RESULTS.md).
    """
    for name, texts in (("contexts", contexts), *(("options", choices) for choices in options)):
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise ParameterError(f"{name}: a list of texts is wanted, not {texts!r:.60}")
    if len(contexts) != len(options):
        raise ParameterError(f"{len(contexts)} contexts, {len(options)} lists of options: give one list each")
    if max_tokens < 1:
        raise ParameterError(f"max_tokens is {max_tokens}: choose 1 or more")
    if prefix != prefix.rstrip():
        raise ParameterError("the prefix ends in white space: let each context begin with it instead")
    shared = text_ids(prefix, tokenizer, chat=True)
    trees = [
        _read(prefix, context, choices, tokenizer, shared)
        for context, choices in zip(contexts, options, strict=True)
    ]
    window = positions(model) if hasattr(model, "config") else tokenizer.model_max_length
    for context, tree in zip(contexts, trees, strict=True):
        if max(tree.places) >= window:
            raise ParameterError(
                f"{context[:40]!r} … needs {max(tree.places) + 1} positions with its prefix and its longest option, the "
                f"model has {window}: shorten the text"
            )
    cache = None
    if shared:
        ids = torch.tensor([shared], device=next(model.parameters()).device)
        cache = model(ids, use_cache=True, logits_to_keep=1).past_key_values
    return [score for row in _rows(trees, max_tokens) for score in _score(model, row, cache, len(shared))]


def _read(prefix: str, context: str, options: Sequence[str], tokenizer: Any, shared: Sequence[int]) -> _Tree:
    """The tree of one context behind the tokens ``shared`` of the prefix. ParameterError as above."""
    if not options:
        raise ParameterError(f"the context {context[-40:]!r} has no option: give at least one")
    pairs = [encode_pair(prefix + context, option, tokenizer) for option in options]
    before = min((before for before, _ in pairs), key=len)  # the others begin with it
    if before[: len(shared)] != shared or len(before) == len(shared):
        raise ParameterError(
            f"the border between prefix and {context[:40]!r} falls inside a token, or nothing follows it: "
            'begin the context with a space or "\\n\\n" and some text'
        )
    after = [(ids + more)[len(before) :] for ids, more in pairs]
    for i, j in combinations(range(len(after)), 2):
        if after[i] == after[j]:
            raise ParameterError(
                f"the options {options[i]!r} and {options[j]!r} of {context[-40:]!r} are the same tokens: leave one out"
            )
    return _tree(before[len(shared) :], after, len(shared))


def _score(model: nn.Module, row: Sequence[_Tree], cache: Any, cached: int) -> Iterator[OptionScores]:
    """One forward pass over the trees of a row, behind the ``cached`` tokens; a score for each tree."""
    device, dtype = next(model.parameters()).device, next(model.parameters()).dtype
    ids = torch.tensor([[token for tree in row for token in tree.ids]], device=device)
    places = torch.tensor([[place for tree in row for place in tree.places]], device=device)
    starts = [sum(len(tree.ids) for tree in row[:k]) for k in range(len(row))]
    reads = [start + read for start, tree in zip(starts, row, strict=True) for read in tree.reads]
    needed, where = torch.tensor(reads).unique(return_inverse=True)
    out = model(
        ids, attention_mask=_mask(row, cached, dtype).to(device), position_ids=places, past_key_values=cache,
        use_cache=cache is not None, logits_to_keep=needed.to(device),
    )  # fmt: skip
    if cache is not None:
        cache.crop(-ids.shape[1])
    log_probs = log_softmax(out.logits[0].float()).cpu()
    targets = torch.tensor([target for tree in row for target in tree.targets])
    each = log_probs[where, targets].double()
    for tree in row:
        own, each = each[: len(tree.targets)], each[len(tree.targets) :]
        index, size = torch.tensor(tree.of), max(tree.of) + 1
        sums = torch.zeros(size, dtype=torch.float64).index_add(0, index, own)
        yield OptionScores(sums, torch.bincount(index, minlength=size))


def choose(scores: OptionScores, rule: str = "sum", base: OptionScores | None = None) -> int:
    """The index of the best option; of equal ones the first.

    ``sum``: log p(option | context). ``mean``: that divided by the option's number of tokens. ``pmi``: that minus
    ``base``, the options' log-probabilities after a context without content.

    Raises ParameterError for an unknown rule, for ``pmi`` without ``base``, for a ``base`` of other options, and where
    a difference is none: NaN is never the best.

    Source: lesson 12, section 3; for ``pmi`` Holtzman et al. (2021), equation 2.
    """
    if rule not in RULES:
        raise ParameterError(f"unknown rule {rule!r}: choose one of {', '.join(RULES)}")
    if rule == "pmi":
        if base is None or base.tokens.tolist() != scores.tokens.tolist():
            raise ParameterError(
                "pmi needs base=…: the scores of the same options after a content-free context"
            )
        values = scores.log_probs - base.log_probs
    else:
        values = scores.log_probs / (scores.tokens if rule == "mean" else 1)
    if values.isnan().any():
        raise ParameterError(f"the values {values.tolist()} are no numbers: an option has no probability")
    return int(values.argmax())


def contextual_calibration(log_probs: Tensor, content_free: Tensor) -> Tensor:
    """Divide each option's probability by what it gets where the input says nothing, and normalise.

    Args:
        log_probs: (N, K), any real scores whose softmax over K is meant.
        content_free: (K,) or (C, K), the same scores for C inputs without content; their probabilities are averaged.

    Returns:
        Calibrated log-probabilities, float64 (N, K): each row's exponentials add up to 1.

    Raises:
        ParameterError: the numbers of options differ; a score is NaN; content_free gives an option the probability 0.

    Source: Zhao et al. (2021), Calibrate Before Use, section 5; lesson 12, section 6.
    """
    if log_probs.shape[-1] != content_free.shape[-1]:
        raise ParameterError(
            f"{log_probs.shape[-1]} options, but {content_free.shape[-1]} in content_free: score the same options"
        )
    base = log_softmax(content_free.double()).reshape(-1, content_free.shape[-1]).exp().mean(0).log()
    calibrated = log_softmax(log_softmax(log_probs.double()) - base)
    if calibrated.isnan().any():
        raise ParameterError(
            "a score is NaN, or content_free gives an option the probability 0: look at both"
        )
    return calibrated
