"""The training loop that lesson 03 builds piece by piece.

An *example* is a dict ``{"input_ids": list[int], "labels": int}``, or with a list of labels, one per token (-100: no
target) or per question asked of the text; a *batch* is a dict of tensors. Every mean is divided by the true number of
targets of the whole batch, also when the batch is split into micro-batches or over several processes (``accelerate
launch``). What is learned is an *objective*: a function of model and batch that returns one loss per target.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor, nn

from instructlab_utils.checkpoints import History as History  # what train() returns
from instructlab_utils.checkpoints import RunFolder, must_be_finite
from instructlab_utils.distributed import Shared
from instructlab_utils.errors import TrainingError
from instructlab_utils.guards import must_be_trainable, must_fit, share_of_hits, whole_label
from instructlab_utils.identity import run_identity
from instructlab_utils.losses import cross_entropy, upcast
from instructlab_utils.models import evaluating, mixed_precision

Example = dict[str, Any]
Batch = dict[str, Tensor]
Objective = Callable[[Any, Batch], Tensor]
IGNORED = -100  # the label of a position without a target, as in torch


def encode(dataset: Iterable[dict[str, Any]], tokenizer: Any, max_length: int) -> list[Example]:
    """Tokenise once, without padding. Rows need ``text`` and ``label``; longer texts are cut to ``max_length`` tokens,
    and a typed "[SEP]" is text.

    Source: lesson 03, section 2. TrainingError without rows, and for a label that is not a whole number.
    """
    rows = list(dataset)
    if not rows:
        raise TrainingError("encode() got no rows: the split or the subsample is empty")
    labels = [whole_label(row["label"], f"row {n} of encode()") for n, row in enumerate(rows)]
    how = {"truncation": True, "max_length": max_length, "split_special_tokens": True}
    ids = tokenizer([row["text"] for row in rows], **how)["input_ids"]
    return [{"input_ids": i, "labels": label} for i, label in zip(ids, labels, strict=True)]


def collate(examples: Sequence[Example], pad_id: int) -> Batch:
    """Pad to the longest example of *this* batch.

    Returns ``input_ids`` and ``attention_mask``, int64 of shape (B, T), and ``labels``, int64 of shape (B,).
    Source: lesson 03, section 2.
    """
    longest = max(len(example["input_ids"]) for example in examples)
    input_ids = torch.full((len(examples), longest), pad_id)
    attention_mask = torch.zeros_like(input_ids)
    for row, example in enumerate(examples):
        n = len(example["input_ids"])
        input_ids[row, :n] = torch.tensor(example["input_ids"])
        attention_mask[row, :n] = 1
    labels = torch.tensor([example["labels"] for example in examples])
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def collate_tokens(examples: Sequence[Example], pad_id: int) -> Batch:
    """Like :func:`collate`, for examples whose ``labels`` are lists; further lists, such as ``token_type_ids``, go along.

    Returns int64 tensors by name, each padded to its longest list: ``input_ids`` with ``pad_id``, ``labels`` with -100,
    all others and ``attention_mask`` with 0. Raises TrainingError where a list is longer than its ``input_ids``: the rest
    would be targets at padding. Source: lesson 04, section 2.
    """
    padding = {"input_ids": pad_id, "labels": IGNORED}
    rows = [{"attention_mask": [1] * len(e["input_ids"]), **e} for e in examples]
    if any(len(row[name]) > len(row["input_ids"]) for row in rows for name in row):
        raise TrainingError("an example has more labels, or more of another list, than input_ids")
    batch = {}
    for name in rows[0]:
        width = max(len(row[name]) for row in rows)
        fill = padding.get(name, 0)
        batch[name] = torch.tensor([row[name] + [fill] * (width - len(row[name])) for row in rows])
    return batch


def _batch(examples: Sequence[Example], pad_id: int) -> Batch:
    if isinstance(examples[0]["labels"], list):
        return collate_tokens(examples, pad_id)
    batch = collate(examples, pad_id)
    if more := examples[0].keys() - batch.keys():
        lists = [{name: e[name] for name in ("input_ids", *more)} for e in examples]
        batch |= collate_tokens(lists, pad_id)
    return batch


def length_buckets(
    lengths: Sequence[int], batch_size: int, generator: torch.Generator, window: int = 32
) -> list[list[int]]:
    """One epoch of index batches: shuffled, but each batch holds examples of similar length.

    Shuffle, sort by length inside windows of ``window`` batches, cut, shuffle the batches. Every index occurs once.
    Source: lesson 03, section 2.
    """
    order = torch.randperm(len(lengths), generator=generator).tolist()
    batches = []
    for begin in range(0, len(order), window * batch_size):
        chunk = sorted(order[begin : begin + window * batch_size], key=lambda i: lengths[i])
        batches += [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def batches_by_length(examples: Sequence[Example], batch_size: int) -> list[list[int]]:
    """Indices of all examples in batches, from the shortest to the longest: for work whose order does not matter.

    Source: lesson 03, section 4.
    """
    order = sorted(range(len(examples)), key=lambda i: len(examples[i]["input_ids"]))
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def linear_schedule(step: int, total: int, warmup: int) -> float:
    """Factor of the learning rate for update ``step`` (from 0): up over ``warmup`` updates, then down to 0.

    Equal to ``transformers.get_linear_schedule_with_warmup``. Source: lesson 03, section 3.
    """
    if step < warmup:
        return step / max(1, warmup)
    return max(0.0, (total - step) / max(1, total - warmup))


def cosine_schedule(step: int, total: int, warmup: int) -> float:
    """Factor of the learning rate for update ``step`` (from 0): up over ``warmup`` updates, then half a cosine to 0.

    Equal to ``transformers.get_cosine_schedule_with_warmup`` up to ``total``; beyond it this one stays at 0, while that
    one rises again. Source: Loshchilov and Hutter (2017), without restarts; lesson 02, section 8.
    """
    if step < warmup:
        return step / max(1, warmup)
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Scale all gradients so that their joint Euclidean norm is at most ``max_norm``; returns the norm before.

    Equal to ``torch.nn.utils.clip_grad_norm_``, but in float32 for 16-bit gradients. Source: lesson 03, section 3.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.stack([upcast(g).norm() for g in gradients]).norm().item()
    if norm > max_norm:
        for g in gradients:
            g.mul_(max_norm / (norm + 1e-6))
    return norm


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for AdamW: matrices decay, biases, LayerNorm weights and scalars do not.

    Source: lesson 03, section 3.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def target_losses(model: nn.Module, batch: Batch) -> Tensor:
    """The default objective, for heads of K classes: cross-entropies of the targets that are not -100, shape (n,).

    ``model(...).logits`` is (B, K) for labels of shape (B,), or (B, T, K) for (B, T). Source: lesson 03, section 3.
    """
    logits = model(**{name: tensor for name, tensor in batch.items() if name != "labels"}).logits
    counts = batch["labels"] != -100
    return cross_entropy(logits[counts], batch["labels"][counts])


def training_step(
    model: nn.Module,
    optimizer: Any,
    micro_batches: Sequence[Batch],
    rate: float,
    max_norm: float,
    objective: Objective = target_losses,
) -> tuple[float, float]:
    """One update from one or several micro-batches; returns the mean loss per target and the gradient norm.

    ``objective(model, batch)`` returns one loss per target. Each micro-batch's summed loss is divided by the number of
    targets of *all* of them, so that accumulation equals the full batch. Source: lesson 03, section 3.

    Raises TrainingError, and changes no weight, where no label counts and where the loss or the gradient is not finite.
    """
    total = sum(int((batch["labels"] != -100).sum()) for batch in micro_batches)
    if total == 0:
        raise TrainingError("every label of this batch is -100: nothing to learn from, look at the masking")
    mean_loss = 0.0
    for batch in micro_batches:
        loss = upcast(objective(model, batch)).sum() / total
        loss.backward()
        mean_loss += loss.item()
    norm = clip_gradients(model.parameters(), max_norm)
    if not math.isfinite(mean_loss + norm):
        optimizer.zero_grad()
        raise TrainingError(
            f"the loss is {mean_loss} and its gradient's norm {norm}: lower the rate or look at the batch"
        )
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()
    return mean_loss, norm


def kept_bytes(net: nn.Module, compute: Callable[[nn.Module], Tensor]) -> tuple[int, Tensor]:
    """Bytes that the forward pass ``compute(net)`` keeps for the backward pass, beside the weights; each storage once.

    Returns them with what ``compute`` returned: while it lives, so do the storages, and none is counted twice.
    Source: lesson 11, section 2.
    """
    weights = {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = compute(net)
    return sum(kept.values()), result  # the result keeps the storages alive while we count


@torch.no_grad()
def predict(model: nn.Module, examples: Sequence[Example], pad_id: int, batch_size: int = 64) -> Tensor:
    """Logits of all examples in their own order, float32 of shape (N, K), computed in batches of similar length.

    Source: lesson 03, section 4.
    """
    device = next(model.parameters()).device
    must_fit(model, examples)
    found: dict[int, Tensor] = {}
    with evaluating(model):
        for chosen in batches_by_length(examples, batch_size):
            batch = move(collate([examples[i] for i in chosen], pad_id), device)
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            found |= zip(chosen, logits.float().cpu(), strict=True)
    return torch.stack([found[i] for i in range(len(examples))])


@torch.no_grad()
def token_logits(
    model: nn.Module, examples: Sequence[Example], pad_id: int, batch_size: int = 64
) -> list[Tensor]:
    """Logits of every token of every example, in the examples' order: float32 tensors of shape (T_i, K).

    As :func:`predict`, for heads that answer at each position; the padding is cut off again. Source: lesson 04, section 4.
    """
    device = next(model.parameters()).device
    must_fit(model, examples)
    found: dict[int, Tensor] = {}
    with evaluating(model):
        for chosen in batches_by_length(examples, batch_size):
            batch = move(collate_tokens([examples[i] for i in chosen], pad_id), device)
            logits = model(**{name: tensor for name, tensor in batch.items() if name != "labels"}).logits
            for i, row in zip(chosen, logits.float().cpu(), strict=True):
                found[i] = row[: len(examples[i]["input_ids"])]
    return [found[i] for i in range(len(examples))]


def move(batch: Batch, device: torch.device | str) -> Batch:
    """The batch on ``device``. Source: lesson 03, section 4."""
    return {name: tensor.to(device) for name, tensor in batch.items()}


def batches_of(
    examples: Sequence[Example], batch_size: int, pad_id: int, seed: int, start: int = 0
) -> Iterator[Batch]:
    """Bucketed batches without end; epoch e is drawn from (seed, e), so ``start`` is arithmetic. Lesson 03, sections 2, 5."""
    per_epoch = math.ceil(len(examples) / batch_size)
    lengths = [len(example["input_ids"]) for example in examples]
    epoch, skip = divmod(start, per_epoch)
    while True:
        generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
        for indices in length_buckets(lengths, batch_size, generator)[skip:]:
            yield _batch([examples[i] for i in indices], pad_id)
        epoch, skip = epoch + 1, 0


# --- the loop -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """What a call seldom changes: ``warmup`` as a share of the steps, the gradient norm ``max_norm`` where clipping begins,
    the number of micro-batches of an update. Source: lesson 03, section 3."""

    warmup: float = 0.1
    max_norm: float = 1.0
    accumulation: int = 1


def train(
    model: nn.Module,
    examples: Sequence[Example],
    *,
    steps: int,
    learning_rate: float,
    pad_id: int,
    batch_size: int = 16,
    seed: int = 0,
    weight_decay: float = 0.01,
    recipe: Recipe = Recipe(),
    dev: Sequence[Example] | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    eval_every: int = 0,
    patience: int = 0,
    folder: Path | None = None,
    save_every: int = 0,
    until: int | None = None,
    objective: Objective = target_losses,
    schedule: Callable[[int, int, int], float] = linear_schedule,
    after_step: Callable[[int], None] | None = None,
) -> History:
    """Fine-tune ``model`` in place for ``steps`` updates of ``batch_size`` examples (``recipe.accumulation`` times as many).

    ``objective(model, batch)`` returns one loss per target, ``schedule(step, steps, warmup_steps)`` the factor of the rate;
    ``after_step(step)`` is called after each update, from 0, while the gradients are still there. Every ``eval_every``
    updates the accuracy on ``dev``, or any ``evaluate(model)``, the higher the better, is measured; the best weights come
    back at the end, and ``patience`` evaluations without a gain stop the run. ``folder`` gets a log, and every
    ``save_every`` updates a checkpoint from which the same call resumes to the same bits; ``until`` leaves after that
    update without one, as a kill would. ``accelerate launch`` trains one model. Source: lesson 03, sections 3 to 5.

    Raises TrainingError for an empty training set, labels that are no classes, weights in float16, a loss, gradient or
    weight that is not finite, the folder of another run, or processes that see different runs or checkpoints.
    """
    # a generator can be read but once
    examples = examples if hasattr(examples, "__len__") else list(examples)
    dev = None if evaluate or dev is None else dev if hasattr(dev, "__len__") else list(dev)
    must_be_trainable(model, examples, dev, objective is target_losses)
    device = next(model.parameters()).device
    processes = PartialState(cpu=device.type == "cpu")  # one, unless `accelerate launch` started more
    optimizer = torch.optim.AdamW(parameter_groups(model, weight_decay), lr=learning_rate, fused=True)
    files = RunFolder(folder, processes.is_main_process)
    torch.manual_seed(seed)  # dropout; the batches have their own generator, a checkpoint its own state

    def accuracy(net: nn.Module) -> float:
        return share_of_hits(predict(net, dev or (), pad_id), [e["labels"] for e in dev or ()], "dev")

    score = evaluate or (None if dev is None else accuracy)
    run = {} if folder is None and processes.num_processes == 1 else run_identity(
        model, examples, dev, processes.num_processes, seed=seed, steps=steps, learning_rate=learning_rate,
        batch_size=batch_size, **asdict(recipe), weight_decay=weight_decay, schedule=schedule, objective=objective,
        after_step=after_step, pad_id=pad_id, evaluate=evaluate, looks=(eval_every, patience) if score else None,
    )  # fmt: skip
    history = files.resume(model, optimizer, run)
    begin, end = len(history.losses), steps if until is None else min(until, steps)
    if after_step is not None:
        optimizer.register_step_post_hook(lambda *_: after_step(len(history.losses)))
    stream = batches_of(examples, batch_size, pad_id, seed, begin * recipe.accumulation)
    factors = [] if history.stopped_early else range(begin, end)
    rates = [learning_rate * schedule(step, steps, round(recipe.warmup * steps)) for step in factors]
    model.train()
    for update in _updates(model, optimizer, stream, rates, recipe, objective, seed * steps, begin):
        entry = history.add(*update)
        step = entry["step"]
        if score is not None and eval_every and step % eval_every == 0:
            found = files.look(model, score, history, patience * eval_every)
            entry["dev_score" if evaluate else "dev_accuracy"] = found
        files.log(entry)
        if save_every and (step % save_every == 0 or step == steps or history.stopped_early):
            files.save(model, optimizer, history)
        if history.stopped_early:
            break
    must_be_finite(model, len(history.losses))
    files.restore_best(model)
    model.eval()
    processes.wait_for_everyone()  # until the main process has written
    return history


def _updates(
    model: nn.Module, optimizer: Any, batches: Iterator[Batch], rates: Sequence[float], recipe: Recipe,
    objective: Objective, dropout_seed: int, begin: int,
) -> Iterator[tuple[float, float, float]]:  # fmt: skip
    """One update for each rate; yields mean loss, gradient norm, rate."""
    device, processes = next(model.parameters()).device, PartialState()
    net = model if processes.num_processes == 1 else Shared(model, processes)
    for number, rate in enumerate(rates, begin):
        micro = [move(next(batches), device) for _ in range(recipe.accumulation)]
        if processes.process_index:  # dropout of the other processes; the main one goes on as if alone
            torch.manual_seed((dropout_seed + number) * processes.num_processes + processes.process_index)
        try:
            with mixed_precision(model, device):
                loss, norm = training_step(net, optimizer, micro, rate, recipe.max_norm, objective)
        except TrainingError as error:
            error.args = (f"{error} (update {number + 1})",)
            raise
        yield loss, norm, rate
