"""Prompts that a causal language model reads once and answers in several ways: freely, under a constraint, or the answers
are given and their probabilities wanted.

The constraint is a *trie* of token ids: token → trie, with the key ``END`` where an answer may end. Built in lesson 24,
sections 6 and 8.

Taught in lesson 24.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from instructlab_utils.arguments import listed
from instructlab_utils.errors import ParameterError
from instructlab_utils.guards import positions
from instructlab_utils.losses import log_softmax
from instructlab_utils.markers import text_ids
from instructlab_utils.metrics import normalize_answer, squad_em_f1

END = -1  # the key of a trie where an answer may end
Trie = dict[int, Any]

# Two demonstrations of each kind: question, answer, evidence, and for facts the relation that answers it. They are ours.
FACT_DEMOS = (
    (
        "What is the main city of France?",
        "Paris",
        ("capital of France: Paris", "currency of France: Euro"),
        "capital",
    ),
    (
        "On which day was Ada Lovelace born?",
        "1815-12-10",
        ("birth place of Ada Lovelace: London", "birth date of Ada Lovelace: 1815-12-10"),
        "birth date",
    ),
)
PASSAGE_DEMOS = (
    (
        "Who wrote Hamlet?",
        "William Shakespeare",
        ("Hamlet is a tragedy by William Shakespeare, written between 1599 and 1601.",),
    ),
    (
        "When was Ada Lovelace born?",
        "10 December 1815",
        ("Ada Lovelace, born on 10 December 1815 in London, was an English mathematician.",),
    ),
)


def prompt(question: str, evidence: Sequence[str] = (), answer: str = "", asked: str = "Answer") -> str:
    """A question with the lines of evidence before it, and what is ``asked`` for after it: lesson 24's only format."""
    lines = [*listed(evidence, "evidence"), f"Question: {question}", f"{asked}: {answer}".rstrip()]
    return "\n".join(lines)


def demonstrated(kind: str) -> str:
    """The prefix that shows the format: ``closed`` (no evidence), ``facts``, ``relation`` or ``passage``."""
    if kind not in ("closed", "facts", "relation", "passage"):
        raise ParameterError(f"demonstrations of {kind!r}: choose closed, facts, relation or passage")
    if kind == "relation":
        shown = [prompt(q, (), relation, "Relation") for q, _, _, relation in FACT_DEMOS]
    else:
        demos = PASSAGE_DEMOS if kind == "passage" else FACT_DEMOS
        shown = [prompt(each[0], each[2] if kind != "closed" else (), each[1]) for each in demos]
    return "\n\n".join(shown) + "\n\n"


def answer_trie(answers: Iterable[str], tokenizer: Any) -> Trie:
    """The answers as a tree of token ids, each with a space before it, as it stands after "Answer:".

    Raises ParameterError for no answer or an empty one. Source: lesson 24, section 8.
    """
    root: Trie = {}
    for answer in listed(answers, "answers"):
        if not answer.strip():
            raise ParameterError("an answer is empty: it has no token to choose")
        node = root
        for token in text_ids(" " + answer.strip(), tokenizer):
            node = node.setdefault(token, {})
        node[END] = {}
    if not root:
        raise ParameterError("no answer is allowed: give one at least")
    return root


@dataclass(frozen=True)
class Answer:
    """What the model wrote: its ``text``, and ``sure``, the geometric mean of its tokens' probabilities, 0 … 1."""

    text: str
    sure: float


class Reading:
    """A batch of prompts, read once: the keys and values stay in a cache, and each way of answering begins from there.

    ``prefix`` is what all prompts share; it is read once for all of them, and its tokens are made apart from theirs.
    Raises ParameterError for no prompt, one without a token, or one that leaves no room for 32 more.
    Source: lesson 24, sections 6 and 8.
    """

    @torch.no_grad()
    def __init__(self, model: nn.Module, tokenizer: Any, prompts: Sequence[str], prefix: str = "") -> None:
        ids = [text_ids(prompt, tokenizer, chat=True) for prompt in listed(prompts, "prompts")]
        if not ids or not all(ids):
            raise ParameterError("no prompt, or one without a token: nothing would predict its answer")
        shared, width = text_ids(prefix, tokenizer, chat=True), max(map(len, ids))
        self.model, self.tokenizer, self.longest = model, tokenizer, len(shared) + width
        if self.longest + 32 > positions(model):
            raise ParameterError(f"a prompt has {self.longest} tokens: the model reads {positions(model)}")
        self.line = text_ids("\n", tokenizer)[0]
        self.device = next(model.parameters()).device
        self.cache: Any = None
        if shared:
            once = torch.tensor([shared], device=self.device)
            self.cache = model(once, use_cache=True, logits_to_keep=1).past_key_values
            self.cache.batch_repeat_interleave(len(ids))
        left = [[0] * (width - len(each)) for each in ids]
        rows = torch.tensor([pad + each for pad, each in zip(left, ids, strict=True)], device=self.device)
        there = [[1] * len(shared) + pad + [1] * (width - len(pad)) for pad in left]
        self.mask = torch.tensor(there, device=self.device)
        self.first = self._more(rows, self.mask, keep=1)[:, -1]

    def _more(self, ids: Tensor, mask: Tensor, keep: int = 0) -> Tensor:
        """Log-probabilities after the new tokens ``ids`` (B, T), all or the last ``keep``; ``mask`` holds all tokens."""
        places = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        seen = dict(attention_mask=mask, position_ids=places, past_key_values=self.cache)
        out = self.model(ids, **seen, use_cache=True, logits_to_keep=keep)
        self.cache = out.past_key_values
        return log_softmax(out.logits.float())

    @torch.no_grad()
    def answers(self, tries: Sequence[Trie] | None = None, most: int = 10) -> list[Answer]:
        """The most probable next token, again and again, until a line ends or ``most`` tokens are there.

        With ``tries``, one a prompt, only tokens that lead to one of its answers may be chosen, and the probabilities are
        those among the allowed tokens; an answer that is cut off at ``most`` tokens is no allowed one, so give enough.
        Source: lesson 24, section 8. Without tries equal to `generation.greedy`, with them to transformers' ``generate``
        with ``prefix_allowed_tokens_fn``.
        """
        if tries is not None and len(tries) != len(self.first):
            raise ParameterError(f"{len(self.first)} prompts, {len(tries)} tries: give one each")
        nodes, mask, log_p = list(tries or ()), self.mask, self.first
        new: list[list[int]] = [[] for _ in self.first]
        sums, ended = [0.0] * len(new), [False] * len(new)
        for step in range(most):
            if nodes:
                log_p = log_softmax(self._held(log_p, nodes))
            best, tokens = log_p.max(-1)
            for i, token in enumerate(tokens.tolist()):
                if ended[i]:
                    continue
                sums[i] += best[i].item()
                new[i].append(token)
                ended[i] = self._ends(token)
                if nodes and not ended[i]:
                    nodes[i] = nodes[i][token]
            if all(ended) or step + 1 == most:
                break
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
            log_p = self._more(tokens[:, None], mask)[:, -1]
        self._forget()
        texts = [self.tokenizer.decode(each, skip_special_tokens=True).split("\n")[0].strip() for each in new]
        means = (torch.tensor(total / len(each)).exp().item() for total, each in zip(sums, new, strict=True))
        return [Answer(text, mean) for text, mean in zip(texts, means, strict=True)]

    def _forget(self) -> None:
        """Cut the cache back to the prompts."""
        if more := self.cache.get_seq_length() - self.longest:
            self.cache.crop(-more)

    def _ends(self, token: int) -> bool:
        return token == self.tokenizer.eos_token_id or "\n" in self.tokenizer.decode([token])

    def _held(self, log_p: Tensor, nodes: Sequence[Trie]) -> Tensor:
        """The same with -inf for every token that leads to no answer; the end of the line stands for END."""
        held = torch.full_like(log_p, -torch.inf)
        for i, node in enumerate(nodes):
            allowed = [self.line if token == END else token for token in node] or [self.line]
            held[i, allowed] = log_p[i, allowed]
        return held

    @torch.no_grad()
    def log_probs(self, answers: Sequence[str]) -> Tensor:
        """The mean log-probability of the tokens of one given answer a prompt, a space before it: float64 (B,), in nats."""
        if len(answers) != len(self.first):
            raise ParameterError(f"{len(self.first)} prompts, {len(answers)} answers: give one each")
        ids = [text_ids(" " + answer.strip(), self.tokenizer) for answer in listed(answers, "answers")]
        width = max(map(len, ids))
        rows = torch.tensor([each + [0] * (width - len(each)) for each in ids], device=self.device)
        log_p = self.first[:, None]
        if width > 1:
            mask = torch.cat([self.mask, torch.ones_like(rows[:, 1:])], 1)
            log_p = torch.cat([log_p, self._more(rows[:, :-1], mask)], 1)
            self._forget()
        each = log_p.gather(2, rows[..., None])[..., 0].double().cpu()
        there = torch.arange(width) < torch.tensor([len(one) for one in ids])[:, None]
        return (each * there).sum(1) / there.sum(1)


def cited(answer: str, passage: str) -> bool:
    """Whether the answer's words stand in the passage, one after the other, as SQuAD normalises both; False for no word."""
    words = normalize_answer(answer)
    return bool(words) and f" {words} " in f" {normalize_answer(passage)} "


def asked(
    model: nn.Module, tokenizer: Any, questions: Sequence[str], kind: str, lines: Sequence[Sequence[str]] = ()
) -> Reading:
    """The questions as a :class:`Reading` in the format of ``kind`` (:func:`demonstrated`), with their ``lines`` of evidence.

    ParameterError where there are lines, and not one list for each question. Source: lesson 24, section 6.
    """
    if lines and len(lines) != len(questions):
        raise ParameterError(f"{len(questions)} questions, {len(lines)} lists of evidence: give one each")
    what, given = "Relation" if kind == "relation" else "Answer", lines or [()] * len(questions)
    prompts = [prompt(q, each, asked=what) for q, each in zip(questions, given, strict=True)]
    return Reading(model, tokenizer, prompts, demonstrated(kind))


def exact(answers: Sequence[str], truths: Sequence[Sequence[str]]) -> list[float]:
    """1.0 where an answer is one of its right ones, as SQuAD compares, else 0.0 (`metrics.squad_em_f1`)."""
    return [squad_em_f1(answer, truth)[0] for answer, truth in zip(answers, truths, strict=True)]
