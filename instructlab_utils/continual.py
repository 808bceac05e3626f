"""One task after the other: how to measure forgetting, and what the remedies for it are made of.

``R[i][j]`` is the accuracy on task j after training on task i, both counted from 0: the accuracy matrix. Built and checked
in lesson 18; the experiments `continual` and `growing` use it.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from instructlab_utils import cache, generation, models, programs, tasks, training
from instructlab_utils.errors import ParameterError, TrainingError
from instructlab_utils.losses import log_softmax

if TYPE_CHECKING:
    from datasets import Dataset

Matrix = Sequence[Sequence[float]]

# --- the accuracy matrix ----------------------------------------------------------------------------------------------


def square(R: Matrix) -> Tensor:
    """The accuracy matrix as float64, (T, T). ParameterError where it is not square. Source: lesson 18, section 2."""
    if not len(R) or any(len(row) != len(R) for row in R):
        shape = f"{len(R)} rows, {sorted({len(row) for row in R})} columns"
        raise ParameterError(f"an accuracy matrix has a row and a column for each task: {shape}")
    return torch.tensor(R, dtype=torch.float64)


def final_accuracy(R: Matrix) -> float:
    """ACC: the mean accuracy over all tasks after the last. Source: Lopez-Paz and Ranzato (2017); lesson 18, section 2."""
    return square(R)[-1].mean().item()


def backward_transfer(R: Matrix) -> float:
    """BWT: the mean over all tasks but the last of R[T-1][j] - R[j][j]; negative where the model forgets.

    Raises ParameterError for a single task. Source: Lopez-Paz and Ranzato (2017); lesson 18, section 2.
    """
    found = square(R)
    if len(found) < 2:
        raise ParameterError("one task has no backward transfer: nothing was learned after it")
    return (found[-1] - found.diagonal())[:-1].mean().item()


def forward_transfer(R: Matrix, before: Sequence[float]) -> float:
    """FWT: the mean over all tasks but the first of R[j-1][j] - before[j]: what a task gains before it was trained on.

    ``before``: accuracies of the model that no task has trained. Raises ParameterError for a single task, or another
    number of tasks. Source: Lopez-Paz and Ranzato (2017); lesson 18, section 2.
    """
    found = square(R)
    if len(found) < 2 or len(before) != len(found):
        raise ParameterError(f"{len(found)} tasks, {len(before)} accuracies before: need two tasks or more")
    return (found.diagonal(1) - torch.tensor(before, dtype=torch.float64)[1:]).mean().item()


# --- a model on cached states, one output space for all tasks ---------------------------------------------------------

TASKS = {
    "films": "movie-sentiment",
    "topics": "bbc-topics",
    "questions": "ni-question-type",
    "tweets": "tweet-sentiment",
}
WORDS = (
    "negative", "positive", "business", "entertainment", "politics", "sports", "tech",
    "entity", "humans", "date", "quantity", "event", "location",
)  # fmt: skip


def sentences(name: str) -> dict[str, Dataset]:
    """The splits of one of :data:`TASKS`: id, group, text, and label, a place in :data:`WORDS`; other labels are left out.

    Source: lesson 18, section 1.
    """
    from datasets import Dataset

    corpus = tasks.load(TASKS[name])

    def word(row: dict[str, Any]) -> str:
        return str(corpus.labels[row["label"]] if corpus.labels else row["options"][row["answer"]].lower())

    found = {}
    for split, rows in corpus.splits.items():
        kept = [(row, WORDS.index(word(row))) for row in rows if word(row) in WORDS]
        columns = [
            {"id": r["id"], "group": r["group"], "text": r.get("text", r.get("input")), "label": k}
            for r, k in kept
        ]
        found[split] = Dataset.from_list(columns)
    return found


@torch.no_grad()
def sentence_states(texts: Iterable[str], max_length: int = 32) -> Tensor:
    """MiniLM's mean over each text's tokens, divided by its norm, (N, 384); computed once, then read from the cache folder.

    ``max_length``: in tokens. The file's name is the hash of all that the states depend on. Source: lesson 18, section 1.
    """
    rows = [{"text": text, "label": 0} for text in texts]
    told = [
        cache.pin(cache.entry(models.ROLES["encoder"])),
        str(max_length),
        *(str(row["text"]) for row in rows),
    ]
    key = hashlib.sha256("\0".join(told).encode()).hexdigest()[:24]
    stored = cache.home() / "states" / f"{key}.pt"
    if stored.exists():
        return torch.load(stored)
    tokenizer, net = models.load_tokenizer("encoder"), models.load_encoder()
    examples = training.encode(rows, tokenizer, max_length)
    found = torch.zeros(len(examples), net.config.hidden_size)
    for places in training.batches_by_length(examples, 32):
        batch = training.collate([examples[i] for i in places], int(tokenizer.pad_token_id))
        mask = batch["attention_mask"].unsqueeze(-1)
        h = net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        found[places] = (h * mask).sum(1) / mask.sum(1)
    found = nn.functional.normalize(found)
    stored.parent.mkdir(parents=True, exist_ok=True)
    part = stored.with_suffix(f".{os.getpid()}")
    torch.save(found, part)
    os.replace(part, stored)  # two notebooks may compute the same states at once
    return found


class Trunk(nn.Module):
    """Logits s (h + W2 gelu(W1 h + b1) + b2) E^T for the sentence states h; W2 and b2 start at 0.

    ``words``: (K, d), the states of the label words; E are these, centred, of norm 1, and frozen. So the untrained model
    answers with the label whose word lies nearest, and all tasks share one output space. Source: lesson 18, section 1.
    """

    def __init__(self, words: Tensor, *, hidden: int = 128, scale: float = 10.0, seed: int = 0) -> None:
        super().__init__()
        d = words.shape[1]
        self.W1, self.W2, self.scale = nn.Linear(d, hidden), nn.Linear(hidden, d), scale
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.W1.weight.normal_(0.0, 3 / d**0.5, generator=generator)
            for values in (self.W1.bias, self.W2.weight, self.W2.bias):
                values.zero_()
        self.register_buffer("E", nn.functional.normalize(words - words.mean(0)))

    def forward(self, h: Tensor) -> Tensor:
        return self.scale * (h + self.W2(nn.functional.gelu(self.W1(h)))) @ self.E.T


# --- what the remedies are made of ------------------------------------------------------------------------------------


def traced(net: nn.Module, x: Tensor) -> tuple[Tensor, list[tuple[str, Tensor, Tensor]]]:
    """The logits of x, and for each call of a linear layer its name, its input a (N, in), and its output z (N, out).

    Raises TrainingError where there is no such layer. Source: lesson 18, section 5.
    """
    called: list[tuple[str, Tensor, Tensor]] = []

    def hook(name: str) -> Any:
        return lambda _module, inputs, z: called.append((name, inputs[0].detach(), z))

    layers = [(name, module) for name, module in net.named_modules() if isinstance(module, nn.Linear)]
    hooks = [module.register_forward_hook(hook(name)) for name, module in layers]
    try:
        logits = net(x)
    finally:
        for handle in hooks:
            handle.remove()
    if not called:
        raise TrainingError(f"{type(net).__name__} calls no linear layer: there is nothing to measure")
    return logits, called


def fisher(net: nn.Module, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
    """The diagonal of the Fisher information for the weights of all linear layers, by the parameters' names.

    Args:
        net: logits (N, K) for x; each linear layer is called once, on (N, in), and the rows do not mix.
        x: (N, d). ``y``: (N,), int64: with labels the *empirical* Fisher, without them the true one.

    Returns:
        Mean over the rows of Σ_k q_k (∇ log p_k)², where q is p itself, or 1 for the label and 0 else. A row's gradient of a
        weight matrix is an outer product δ aᵀ, and so is its square: no row's gradient is stored.

    Raises:
        TrainingError: the net calls no linear layer.

    Source: Kirkpatrick et al. (2017), Kunstner et al. (2019); lesson 18, section 5.
    """
    logits, called = traced(net, x)
    log_p = log_softmax(logits)
    q = log_p.detach().exp() if y is None else nn.functional.one_hot(y, log_p.shape[1]).to(log_p.dtype)
    layers = {name for name, *_ in called}
    F = {n: torch.zeros_like(v) for n, v in net.named_parameters() if n.rpartition(".")[0] in layers}
    for k in range(log_p.shape[1]):
        deltas = torch.autograd.grad(log_p[:, k].sum(), [z for *_, z in called], retain_graph=True)
        for (name, a, _), delta in zip(called, deltas, strict=True):
            squared = q[:, k, None] * delta.square() / len(x)
            F[f"{name}.weight"] += squared.T @ a.square()
            if f"{name}.bias" in F:
                F[f"{name}.bias"] += squared.sum(0)
    return F


def quadratic_penalty(net: nn.Module, old: dict[str, Tensor], weights: dict[str, Tensor]) -> Tensor:
    """½ Σ_i F_i (θ_i − θ*_i)²: EWC with the Fisher as ``weights`` F, plain L2 to the ``old`` values θ* where all are 1.

    A scalar; 0 at the old values. Raises TrainingError where the names differ. Source: Kirkpatrick et al. (2017), equation 3;
    lesson 18, section 5.
    """
    now = {name: p for name, p in net.named_parameters() if name in weights}
    if now.keys() != weights.keys() or not weights.keys() <= old.keys():
        odd = sorted((weights.keys() ^ now.keys()) | (weights.keys() - old.keys()))
        raise TrainingError(f"{odd[0]} has a weight but no value, now or before")
    total = sum((weights[name] * (p - old[name]).square()).sum() for name, p in now.items())
    return torch.as_tensor(total) / 2


def distillation(new: Tensor, old: Tensor, temperature: float = 2.0) -> Tensor:
    """τ² KL(softmax(old / τ) ‖ softmax(new / τ)), one value per row: the new model is to answer as the old one does.

    ``new``, ``old``: logits (N, K); no gradient flows into ``old``. With τ² the gradient's size hardly depends on τ.
    Raises TrainingError where the shapes differ, or τ is not positive. Source: Li and Hoiem (2016); Hinton et al. (2015);
    lesson 18, section 6.
    """
    if new.shape != old.shape or not temperature > 0:
        shapes = f"new {tuple(new.shape)}, old {tuple(old.shape)}"
        raise TrainingError(f"{shapes}, temperature {temperature}: need equal shapes and a positive number")
    log_q, log_p = log_softmax(new / temperature), log_softmax(old.detach() / temperature)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(-1)


def subspace_overlap(A: Tensor, before: Sequence[Tensor]) -> Tensor:
    """Σ_i Σ_jk (A_i Aᵀ)_jk² over the matrices A_i of earlier LoRAs: 0 where no direction that A reads was read before.

    ``A`` and each of ``before``: (r, in). The authors' code takes absolute values in place of squares. Raises TrainingError
    for another width. Source: Wang et al. (2023), O-LoRA; lesson 18, section 7.
    """
    if any(A_i.shape[1] != A.shape[1] for A_i in before):
        raise TrainingError(
            f"A reads {A.shape[1]} numbers, an earlier one does not: they belong to other layers"
        )
    parts = [(A_i.detach() @ A.T).square().sum() for A_i in before]
    return torch.stack(parts).sum() if parts else A.new_zeros(())


def routed(h: Tensor, centres: Tensor) -> Tensor:
    """The task of each state, (N,): that of the nearest centre. ``centres``: (T, d), the mean state of each task.

    Source: lesson 18, section 8.
    """
    return torch.cdist(h, centres).argmin(1)


# --- instructions for lists of digits, a new kind in each round -------------------------------------------------------


class Asked(NamedTuple):
    """An instruction in words, the list that it is about, and the right answer, all as text (lesson 18)."""

    text: str
    given: str
    answer: str

    @property
    def prompt(self) -> str:
        return f"{self.text} = {self.given} ="


def asked(
    options: Sequence[programs.Program], n: int, rng: random.Random, fits: Callable[[list[int]], bool]
) -> list[Asked]:
    """``n`` instructions drawn from the wordings of ``options``, each for a list of four digits that ``fits``.

    The interpreter gives the answers, so none is wrong. Source: lesson 18, section 9.
    """
    found: list[Asked] = []
    while len(found) < n:
        program, given = rng.choice(options), [rng.randrange(10) for _ in range(4)]
        if fits(given):
            answer = programs.run(program, given).value
            numbers = answer if isinstance(answer, list) else [answer]
            text = programs.describe(program, rng.choice)
            found.append(Asked(text, " ".join(map(str, given)), " ".join(map(str, numbers))))
    return found


def asked_words(rows: Iterable[Asked]) -> list[str]:
    """The words of the instructions, all digits and the sign between the parts, sorted. Source: lesson 18, section 9."""
    return sorted({word for row in rows for word in row.text.split()} | {"=", *map(str, range(10))})


def asked_examples(rows: Iterable[Asked], tokenizer: Any) -> list[training.Example]:
    """Prompt and answer as token ids, with labels on the answer and its end alone. Source: lesson 18, section 9."""
    return [generation.encode_completion(row.prompt, row.answer, tokenizer) for row in rows]


class WordRouter:
    """Sends an instruction to the kind whose mean count of words lies nearest; ``kinds``: texts of each kind, one or more.

    Words that no kind has are not counted. Source: lesson 18, section 9.
    """

    def __init__(self, kinds: Sequence[Sequence[str]]) -> None:
        self.words = sorted({word for texts in kinds for text in texts for word in text.split()})
        self.centres = torch.stack([self.counts(texts).mean(0) for texts in kinds])

    def counts(self, texts: Sequence[str]) -> Tensor:
        """How often each word stands in each text, (N, V), float32."""
        found = [Counter(text.split()) for text in texts]
        return torch.tensor([[float(one[word]) for word in self.words] for one in found])

    def __call__(self, texts: Sequence[str]) -> list[int]:
        return routed(self.counts(texts), self.centres).tolist() if len(texts) else []
