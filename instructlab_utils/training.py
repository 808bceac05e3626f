"""The training loop that lesson 03 builds piece by piece.

An *example* is a dict ``{"input_ids": list[int], "labels": int}``, or with a list of labels, one per token (-100: no
target) or per question asked of the text; a *batch* is a dict of tensors. Every mean is divided by the true number of
targets of the whole batch, also when the batch is split into micro-batches or over several processes (``accelerate
launch``). What is learned is an *objective*: a function of model and batch that returns one loss per target.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, reduce
from torch import Tensor, nn

from instructlab_utils.errors import TrainingError
from instructlab_utils.losses import cross_entropy

Example = dict[str, Any]
Batch = dict[str, Tensor]
Objective = Callable[[Any, Batch], Tensor]
IGNORED = -100  # the label of a position without a target, as in torch


def encode(dataset: Iterable[dict[str, Any]], tokenizer: Any, max_length: int) -> list[Example]:
    """Tokenise once, without padding. Rows need ``text`` and ``label``; longer texts are cut to ``max_length`` tokens.

    Source: lesson 03, section 2.
    """
    rows = list(dataset)
    if not rows:
        raise TrainingError("encode() got no rows: the split or the subsample is empty")
    ids = tokenizer([row["text"] for row in rows], truncation=True, max_length=max_length)["input_ids"]
    return [{"input_ids": i, "labels": int(row["label"])} for i, row in zip(ids, rows, strict=True)]


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
    all others and ``attention_mask`` with 0. Source: lesson 04, section 2.
    """
    padding = {"input_ids": pad_id, "labels": IGNORED}
    rows = [{"attention_mask": [1] * len(e["input_ids"]), **e} for e in examples]
    batch = {}
    for name in rows[0]:
        width = max(len(row[name]) for row in rows)
        fill = padding.get(name, 0)
        batch[name] = torch.tensor([row[name] + [fill] * (width - len(row[name])) for row in rows])
    return batch


def _batch(examples: Sequence[Example], pad_id: int) -> Batch:
    plain = isinstance(examples[0]["labels"], int) and examples[0].keys() == {"input_ids", "labels"}
    return (collate if plain else collate_tokens)(examples, pad_id)


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

    Equal to ``torch.nn.utils.clip_grad_norm_``. Source: lesson 03, section 3.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.stack([g.norm() for g in gradients]).norm().item()
    if norm > max_norm:
        for g in gradients:
            g.mul_(max_norm / (norm + 1e-6))
    return norm


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for AdamW: matrices decay, biases and LayerNorm weights (one-dimensional tensors) do not.

    Source: lesson 03, section 3.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0},
    ]


def target_losses(model: nn.Module, batch: Batch) -> Tensor:
    """The default objective, for heads of K classes: cross-entropies of the targets that are not -100, shape (n,).

    ``model(...).logits`` is (B, K) for labels of shape (B,), or (B, T, K) for (B, T). Source: lesson 03, section 3.
    """
    logits = model(**{name: tensor for name, tensor in batch.items() if name != "labels"}).logits
    counts = batch["labels"] != -100
    return cross_entropy(logits[counts].float(), batch["labels"][counts])


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

    Raises TrainingError where no label counts: 0/0 would make every weight NaN.
    """
    total = sum(int((batch["labels"] != -100).sum()) for batch in micro_batches)
    if total == 0:
        raise TrainingError("every label of this batch is -100: nothing to learn from, look at the masking")
    mean_loss = 0.0
    for batch in micro_batches:
        loss = objective(model, batch).sum() / total
        loss.backward()
        mean_loss += loss.item()
    norm = clip_gradients(model.parameters(), max_norm)
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
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    order = sorted(range(len(examples)), key=lambda i: len(examples[i]["input_ids"]))
    pieces = []
    for begin in range(0, len(order), batch_size):
        batch = move(collate([examples[i] for i in order[begin : begin + batch_size]], pad_id), device)
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        pieces.append(logits.float().cpu())
    model.train(was_training)
    return torch.cat(pieces)[torch.tensor(order).argsort()]


@torch.no_grad()
def token_logits(
    model: nn.Module, examples: Sequence[Example], pad_id: int, batch_size: int = 64
) -> list[Tensor]:
    """Logits of every token of every example, in the examples' order: float32 tensors of shape (T_i, K).

    As :func:`predict`, for heads that answer at each position; the padding is cut off again. Source: lesson 04, section 4.
    """
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    order = sorted(range(len(examples)), key=lambda i: len(examples[i]["input_ids"]))
    found: dict[int, Tensor] = {}
    for begin in range(0, len(order), batch_size):
        chosen = order[begin : begin + batch_size]
        batch = move(collate_tokens([examples[i] for i in chosen], pad_id), device)
        logits = model(**{name: tensor for name, tensor in batch.items() if name != "labels"}).logits
        for i, row in zip(chosen, logits.float().cpu(), strict=True):
            found[i] = row[: len(examples[i]["input_ids"])]
    model.train(was_training)
    return [found[i] for i in range(len(examples))]


def _accuracy(model: nn.Module, examples: Sequence[Example], pad_id: int) -> float:
    targets = torch.tensor([example["labels"] for example in examples])
    return (predict(model, examples, pad_id).argmax(-1) == targets).double().mean().item()


def move(batch: Batch, device: torch.device | str) -> Batch:
    """The batch on ``device``."""
    return {name: tensor.to(device) for name, tensor in batch.items()}


def batches_of(
    examples: Sequence[Example], batch_size: int, pad_id: int, seed: int, start: int = 0
) -> Iterator[Batch]:
    """Bucketed batches without end; epoch ``e`` is drawn from (seed, e), so batch ``start`` can be reached by arithmetic."""
    per_epoch = math.ceil(len(examples) / batch_size)
    lengths = [len(example["input_ids"]) for example in examples]
    epoch, skip = divmod(start, per_epoch)
    while True:
        generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
        for indices in length_buckets(lengths, batch_size, generator)[skip:]:
            yield _batch([examples[i] for i in indices], pad_id)
        epoch, skip = epoch + 1, 0


# --- checkpoints: safetensors and JSON only, replaced in one rename ------------------------------------------------


def save_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Write model, optimiser moments, random state and ``state`` so that a kill leaves the old or the new, never half.

    A fresh folder is filled, flushed, and then named in ``latest.json`` by one atomic rename.
    Source: lesson 03, section 5.
    """
    from safetensors.torch import save_file

    name = _step_name(state["step"])
    temporary, final = folder / f"{name}.tmp", folder / name
    for old in (temporary, final):
        shutil.rmtree(old, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(_contiguous(model.state_dict()), temporary / "model.safetensors")
    moments: dict[str, Tensor] = {"random_state": torch.get_rng_state()}
    for index, entry in optimizer.state_dict()["state"].items():
        moments |= {f"{index}.{key}": torch.as_tensor(value) for key, value in entry.items()}
    save_file(_contiguous(moments), temporary / "optimizer.safetensors")
    os.replace(temporary, final)
    _write_json(folder / "latest.json", {"folder": name, **state})
    for old in folder.glob("step-*"):
        if old != final:
            shutil.rmtree(old, ignore_errors=True)


def _step_name(step: int) -> str:
    return f"step-{step:06d}"


def load_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any] | None:
    """Restore what :func:`save_checkpoint` wrote, in place, and return its ``state``; None where there is none.

    TrainingError, with the folder and the fix, where the checkpoint belongs to another model or is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (folder / "latest.json").exists():
        return None
    try:
        state = json.loads((folder / "latest.json").read_text(encoding="utf-8"))
        place = folder / state["folder"]
        model.load_state_dict(load_file(place / "model.safetensors"))
        moments = load_file(place / "optimizer.safetensors")
        entries: dict[int, dict[str, Tensor]] = {}
        for name, tensor in moments.items():
            if name != "random_state":
                index, key = name.split(".", 1)
                entries.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})
        torch.set_rng_state(moments["random_state"])
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(
            f"{folder}: this checkpoint cannot be resumed ({reason}); delete the folder to start again"
        ) from error
    return state


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies that share no memory: safetensors refuses tied tensors, and a checkpoint must not change later."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


def _write_json(path: Path, value: Any) -> None:
    from instructlab_utils.files import write_json

    write_json(path, value)


# --- the loop -------------------------------------------------------------------------------------------------------


@dataclass
class History:
    """What a training run did: the loss of every update, the dev scores, and where the best one was."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    dev: list[tuple[int, float]] = field(default_factory=list)
    best_step: int = 0
    best_score: float = -math.inf
    stopped_early: bool = False


def train(
    model: nn.Module,
    examples: Sequence[Example],
    *,
    steps: int,
    learning_rate: float,
    pad_id: int,
    batch_size: int = 16,
    accumulation: int = 1,
    weight_decay: float = 0.01,
    warmup: float = 0.1,
    max_norm: float = 1.0,
    seed: int = 0,
    dev: Sequence[Example] | None = None,
    eval_every: int = 0,
    patience: int = 0,
    folder: Path | None = None,
    save_every: int = 0,
    until: int | None = None,
    tensorboard: Path | None = None,
    objective: Objective = target_losses,
    schedule: Callable[[int, int, int], float] = linear_schedule,
    evaluate: Callable[[nn.Module], float] | None = None,
    after_step: Callable[[int], None] | None = None,
) -> History:
    """Fine-tune ``model`` in place for ``steps`` updates of ``accumulation`` micro-batches of ``batch_size`` examples.

    ``warmup`` is a fraction of the steps. With ``dev`` and ``eval_every`` the accuracy on ``dev`` is measured every so
    many updates, the best weights are kept and restored at the end, and ``patience`` evaluations without a gain stop
    the run; ``evaluate(model)`` instead of ``dev`` is any other score, the higher the better. ``objective(model, batch)``
    returns one loss per target, ``schedule(step, steps, warmup_steps)`` the factor of the rate; ``after_step(step)`` is
    called after each update, from 0, while the gradients are still there. With ``folder`` there is a JSONL log, and a
    checkpoint every ``save_every`` updates from which the same call resumes to the same bits. ``until`` leaves after
    that update without a last checkpoint, as a kill would.

    Under ``accelerate launch`` the same call trains the same model: the processes share every micro-batch
    (:class:`Shared`), start from the weights of the main process and hold equal weights after each update. Only the main
    process writes. ``folder`` must be one that all of them see; another number of processes may resume it. With dropout
    each process draws its own masks, so one and several processes then agree in distribution only.
    Source: lesson 03, sections 3 to 5.

    Raises TrainingError for an empty training set, a non-finite loss, a checkpoint of another run, or processes that see
    different checkpoints.
    """
    if not examples:
        raise TrainingError("train() got no examples: the split or the subsample is empty")
    device = next(model.parameters()).device
    processes = PartialState(cpu=device.type == "cpu")  # one, unless `accelerate launch` started more
    rank, main = processes.process_index, processes.is_main_process
    optimizer = torch.optim.AdamW(parameter_groups(model, weight_decay), lr=learning_rate, fused=True)
    warmup_steps = round(warmup * steps)
    history, best, done = History(), None, 0
    if after_step is not None:
        optimizer.register_step_post_hook(lambda *_: after_step(len(history.losses)))
    if folder is None:
        torch.manual_seed(seed)  # dropout; the batches have their own generator
    else:
        if main:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(".*.tmp"):  # of a write that a kill cut short
                left.unlink()
        state = load_checkpoint(folder, model, optimizer)
        if state is None:
            torch.manual_seed(seed)
        else:
            if state["seed"] != seed or state["steps"] != steps:
                raise TrainingError(
                    f"{folder}: holds a run with seed {state['seed']} and {state['steps']} steps, not {seed} and "
                    f"{steps}; choose another folder or delete it"
                )
            history, done = History(**state["history"]), state["step"]
            best = _load_best(folder) if history.best_step else None
        if main:
            _cut_log(folder / "log.jsonl", done)
            for left in folder.glob(
                "step-*"
            ):  # of a kill between naming a checkpoint and removing the one before
                if left.name != _step_name(done):
                    shutil.rmtree(left)
        if reduce(torch.tensor(float(done), device=device)).item() != done:  # the mean over the processes
            raise TrainingError(
                f"{folder}: the processes see different checkpoints; name a folder on a disk that all of them share"
            )
    score_of = evaluate or (None if dev is None else partial(_accuracy, examples=dev, pad_id=pad_id))
    shared = model if processes.num_processes == 1 else Shared(model, processes)
    writer = _tensorboard(tensorboard if main else None)
    stream = batches_of(examples, batch_size, pad_id, seed, start=done * accumulation)
    model.train()
    for step in range(done, steps if until is None else min(until, steps)):
        if history.stopped_early:
            break
        micro = [move(next(stream), device) for _ in range(accumulation)]
        rate = learning_rate * schedule(step, steps, warmup_steps)
        if rank:  # dropout of the other processes; the main one goes on as if alone
            torch.manual_seed((seed * steps + step) * processes.num_processes + rank)
        with mixed_precision(model, device):
            loss, norm = training_step(shared, optimizer, micro, rate, max_norm, objective)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} at update {step + 1}: lower the learning rate or look at that batch"
            )
        history.losses.append(loss)
        history.norms.append(norm)
        history.rates.append(rate)
        entry: dict[str, Any] = {"step": step + 1, "loss": loss, "norm": norm, "rate": rate}
        if score_of is not None and eval_every and (step + 1) % eval_every == 0:
            score = score_of(model)
            model.train()
            # The main process's score counts, so that all stop together.
            score = broadcast(torch.tensor(score, dtype=torch.float64, device=device)).item()
            history.dev.append((step + 1, score))
            entry["dev_score" if evaluate else "dev_accuracy"] = score
            if score > history.best_score:
                history.best_step, history.best_score = step + 1, score
                best = _contiguous(model.state_dict())
                _save_best(folder if main else None, best)
            elif patience and step + 1 - history.best_step >= patience * eval_every:
                history.stopped_early = True
        if folder is not None and main:
            with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(entry) + "\n")
            if save_every and ((step + 1) % save_every == 0 or step + 1 == steps or history.stopped_early):
                state = {"step": step + 1, "steps": steps, "seed": seed, "history": asdict(history)}
                save_checkpoint(folder, model, optimizer, state)
        if writer is not None:
            for name, value in entry.items():
                if name != "step":
                    writer.add_scalar(name, value, step + 1)
    if writer is not None:
        writer.close()
    if best is not None:
        model.load_state_dict(best)
    model.eval()
    processes.wait_for_everyone()  # until the main process has written
    return history


class Shared(nn.Module):
    """``model`` in several processes: each computes its rows of a batch (every W-th) and receives the logits of the others.

    So each process sees the loss of the whole batch, with its true denominator. The gradient of a sum is the sum of the
    processes' gradients, but torch's wrapper *averages* them: hence the factor W. A share may be empty: its gradient is 0.
    """

    def __init__(self, model: nn.Module, processes: PartialState) -> None:
        super().__init__()
        self.replica = nn.parallel.DistributedDataParallel(model)  # takes the main process's weights
        self.processes = processes.num_processes
        self.mine = slice(processes.process_index, None, self.processes)

    def forward(self, **inputs: Tensor) -> Any:
        """The replica's output, with the logits of all rows, (B, …), of which only this process's carry gradients."""
        size = len(inputs["input_ids"])
        rows = self.mine if self.mine.start < size else slice(1)  # models want a row, also where none is ours
        output = self.replica(**{name: tensor[rows] for name, tensor in inputs.items()})
        logits = output.logits.new_zeros(size, *output.logits.shape[1:])
        ours = output.logits[: len(logits[self.mine])]
        ours.register_hook(lambda gradient: gradient * self.processes)
        logits[self.mine] = ours.detach()
        logits = reduce(logits, "sum")
        logits[self.mine] = ours
        output.logits = logits
        return output


@contextmanager
def mixed_precision(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Forward passes in bf16 on a CUDA device; weights, gradients and updates stay fp32, and a CPU computes as ever.

    Only the forward pass runs under autocast, as torch's documentation asks.
    """
    if device.type != "cuda":
        yield
        return
    model.forward = torch.autocast(device.type, torch.bfloat16)(model.forward)
    try:
        yield
    finally:
        del model.forward


def _save_best(folder: Path | None, weights: dict[str, Tensor]) -> None:
    if folder is not None:
        from safetensors.torch import save_file

        save_file(weights, folder / "best.safetensors.tmp")
        os.replace(folder / "best.safetensors.tmp", folder / "best.safetensors")


def _load_best(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "best.safetensors")


def _cut_log(path: Path, done: int) -> None:
    """Drop log lines after the checkpoint, so that a resumed log equals an undisturbed one."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            break  # the line that was being written when the run was killed
        if entry["step"] <= done:
            kept.append(line + "\n")
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    os.replace(temporary, path)


def _tensorboard(folder: Path | None) -> Any:
    if folder is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))
