# ---
# jupyter:
#   instructlab:
#     id: "03"
#     title: The classification loop, repaired, and honest evaluation
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 03: the classification loop, repaired, and honest evaluation
#
# Each exercise is a box, a cell for your answer, and a checker in the cell below it. Replace the line that
# raises `NotImplementedError`, then run both cells. A checker that says no also says what probably went
# wrong.
#
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases
# that you do not see here, so test more than the checker does. The page needs no file and no network.
# Exercise 03.6 trains a small model and kills it, and exercise 03.7 is a project: each is worth an evening.
#
# {{overview}}

# %%
import copy
import io
import itertools
import math
import random

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from instructlab_utils import checking, intervals

# %% [markdown]
# ## 03.1 Batches that waste little
#
# > ●●●○○ · 20 minutes · practice
#
# Two functions turn tokenized sentences into good batches.
#
# `collate` pads the sentences of one batch to the *longest of that batch*. It leaves the features
# themselves as they are: the next epoch uses them again.
#
# `length_buckets` decides which sentences share a batch. Sentences of similar length belong together, for
# then there is little to pad. Every index occurs exactly once; only one batch may be smaller than the
# others. The order of the batches is shuffled: a model that sees all short sentences first learns the wrong
# thing first. The same seed gives the same batches, another seed another order, and the global random state
# stays as it was.


# %% nbgrader={"grade_id": "answer_03_1", "solution": true}
def collate(features, pad_id):
    """Pad dicts of input_ids, token_type_ids (lists of int) and label (int) into one batch of int64 tensors.

    Returns input_ids, token_type_ids (padded with 0) and attention_mask of shape (batch, longest), labels (batch,).
    """
    ### BEGIN SOLUTION
    longest = max(len(feature["input_ids"]) for feature in features)

    def padded(rows, value):
        return torch.tensor([row + [value] * (longest - len(row)) for row in rows])

    return {
        "input_ids": padded([f["input_ids"] for f in features], pad_id),
        "token_type_ids": padded([f["token_type_ids"] for f in features], 0),
        "attention_mask": padded([[1] * len(f["input_ids"]) for f in features], 0),
        "labels": torch.tensor([f["label"] for f in features]),
    }
    ### END SOLUTION


def length_buckets(lengths, batch_size, seed):
    """Return a list of batches, each a list of indices into lengths."""
    ### BEGIN SOLUTION
    rng = random.Random(seed)
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], rng.random()))
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    rng.shuffle(batches)
    return batches
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_03_1", "locked": true}
def check_03_1_collate(collate):
    call = checking.calls(collate)
    features = [
        {"input_ids": [101, 7, 102], "token_type_ids": [0, 0, 0], "label": 2},
        {"input_ids": [101, 8, 102, 9, 102], "token_type_ids": [0, 0, 0, 1, 1], "label": 0},
        {"input_ids": [101, 102], "token_type_ids": [0, 0], "label": 1},
    ]
    rows = [[101, 7, 102, 50, 50], [101, 8, 102, 9, 102], [101, 102, 50, 50, 50]]
    want = {
        "input_ids": torch.tensor(rows),
        "token_type_ids": torch.tensor([[0] * 5, [0, 0, 0, 1, 1], [0] * 5]),
        "attention_mask": torch.tensor([[1, 1, 1, 0, 0], [1] * 5, [1, 1, 0, 0, 0]]),
        "labels": torch.tensor([2, 0, 1]),
    }
    batch = call(features, pad_id=50)
    ids = batch["input_ids"] if isinstance(batch, dict) and "input_ids" in batch else None
    assert not torch.is_tensor(ids) or tuple(ids.shape) != (3, 128), (
        "You pad to a fixed length. The longest sentence of the batch decides."
    )
    checking.form(batch, want, "batch", dtype=torch.int64)
    got, labels = batch["input_ids"].tolist(), batch["labels"].tolist()
    assert sorted(got) == sorted(rows), f"input_ids: the tokens, then pad_id on the right. You have {got}."
    assert (got, labels) == (rows, [2, 0, 1]), (
        f"The rows have the labels {labels}, in an order that is not theirs. "
        "Keep the order of the features, or a label lands on another sentence."
    )
    wrong = {"attention_mask is made from ids or turned round.": 1 - want["attention_mask"]}
    says = "attention_mask: 1 on a real token, 0 on padding, from the lengths."
    checking.equal(batch["attention_mask"], want["attention_mask"], "attention_mask", wrong, says=says)
    wrong = {
        "The segment of the second sentence is lost: token_type_ids must be padded like input_ids, not "
        "made up of zeros.": torch.zeros(3, 5),
        "token_type_ids are padded with pad_id. There are only the segments 0 and 1: pad with 0.": torch.where(
            want["attention_mask"] > 0, want["token_type_ids"], 50
        ),
    }
    checking.equal(batch["token_type_ids"], want["token_type_ids"], "token_type_ids", wrong)
    inside = [{"input_ids": [0, 5, 0, 0], "token_type_ids": [1, 1, 0, 1], "label": 7}]
    batch = call([*inside, features[1]], pad_id=0)
    checking.equal(
        batch["attention_mask"],
        torch.tensor([[1, 1, 1, 1, 0], [1] * 5]),
        "attention_mask",
        says="A real token may have the id of padding, here 0. The mask follows from lengths.",
    )
    batch = call(inside, pad_id=0)
    assert batch["labels"].tolist() == [7] and batch["token_type_ids"].tolist() == [[1, 1, 0, 1]], (
        "A batch of one sentence: its label and its segments as they are."
    )


def check_03_1_buckets(length_buckets):
    call = checking.calls(length_buckets)
    lengths = [random.Random(i).randint(3, 60) for i in range(50)]
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    state = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    batches = call(lengths, 8, seed=1)
    assert isinstance(batches, list) and batches and hasattr(batches[0], "__len__"), (
        f"length_buckets: a list of lists of indices expected, not {checking.shown(batches)}."
    )
    batches = [list(batch) for batch in batches]
    indices = [i for batch in batches for i in batch]
    assert set(indices) <= set(range(50)), (
        f"{max(indices)} is no index into 50 lengths. Return the places of the sentences, not their lengths."
    )
    assert len(set(indices)) == len(indices), (
        "Some index occurs twice. Let the last batch be smaller; do not fill it up. (And equal lengths have several "
        "indices: list.index finds only the first.)"
    )
    assert sorted(indices) == list(range(50)), (
        "Some indices are missing. 50 is not a multiple of 8: keep the rest."
    )
    assert sorted(map(len, batches)) == [2] + [8] * 6, (
        f"Batch sizes: {sorted(map(len, batches))}, not six of 8 and one of 2."
    )
    assert {tuple(sorted(batch)) for batch in batches} != {
        tuple(range(50))[k : k + 8] for k in range(0, 50, 8)
    }, (
        "The batches are 0 to 7, 8 to 15 and so on: neighbours in the file, or places in the *sorted* list. Sort the "
        "sentences by length, and return their own indices."
    )
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    assert padded < 1.35 * sum(lengths), (
        f"Padding costs {padded / sum(lengths) - 1:.0%} extra. Shuffle the batches, not the sentences: "
        "sort by length first."
    )
    longest = [max(lengths[i] for i in batch) for batch in batches]
    assert longest != sorted(longest) and longest != sorted(longest, reverse=True), (
        "The batches come in the order of their lengths. Shuffle the list of batches."
    )
    now = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert state[:2] == now[:2] and torch.equal(state[2], now[2]), (
        "You used the global random state, so this call changes every later random number. Make a "
        "random.Random(seed)."
    )
    again = [list(batch) for batch in call(lengths, 8, seed=1)]
    assert again == batches, "Same seed, other batches. Make a new random.Random(seed) in every call."
    orders = {str([list(batch) for batch in call(lengths, 8, seed=s)]) for s in range(5)}
    assert len(orders) != 1, "Five seeds, one order. The seed of the epoch must reach the shuffle."
    assert len(orders) == 5, (
        f"Five seeds, {len(orders)} orders. Shuffle all batches with random.Random(seed)."
    )
    for n, size in ((23, 5), (12, 4), (3, 7), (21, 5)):
        sizes = [len(batch) for batch in call(lengths[:n], size, seed=2)]
        assert sum(sizes) == n and sorted(sizes)[1:] == [size] * (len(sizes) - 1) and max(sizes) <= size, (
            f"{n} sentences in batches of {size}: the sizes are {sizes}. Use the argument batch_size, and drop nothing."
        )
    print(
        f"03.1 passed. Padding costs {padded / sum(lengths) - 1:.0%} extra, and every sentence comes "
        "exactly once."
    )


check_03_1_collate(collate)
check_03_1_buckets(length_buckets)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `row + [pad_id] * missing` makes a new list. `row.extend(…)` and `row += …` change the old one.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Three steps: sort the indices by length, cut the sorted list into slices of `batch_size`, shuffle the
# slices with `random.Random(seed)`.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 03.2 Accumulate with the true denominator
#
# > ●●●○○ · 15 minutes · graded
#
# A batch is too large for the memory, so it comes in micro-batches. Their numbers of targets differ: the
# target $-100$ means "no target here". The gradient must be that of one mean over *all* targets of *all*
# micro-batches, whatever the cut:
#
# $$ \mathcal L(\theta) = \frac{1}{\sum_b n_b} \sum_b \sum_{t=1}^{n_b} \ell_{b,t}(\theta). $$
#
# Run the model and call `backward` once for each micro-batch: only one graph is in memory at a time. Start from fresh
# gradients, and leave the weights and the mode of the model alone. Logits may be thousands apart. A batch
# without a single target is a `ValueError`, not a nan.


# %% nbgrader={"grade_id": "answer_03_2", "solution": true}
def accumulate(model, micro_batches):
    """Fill .grad with the gradient of the mean loss over all targets, and return that mean loss (float).

    micro_batches is a list of (x, y); model(x) gives logits of shape (n, V); y is (n,) int64 with -100 for no target.
    """
    ### BEGIN SOLUTION
    total = sum(int((y != -100).sum()) for _, y in micro_batches)
    if total == 0:
        raise ValueError("no target in the whole batch: every label is -100")
    model.zero_grad()
    mean = 0.0
    for x, y in micro_batches:
        part = F.cross_entropy(model(x), y, ignore_index=-100, reduction="sum") / total
        part.backward()
        mean += part.item()
    return mean
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_03_2", "grade": true, "points": 3, "locked": true}
def toy_batch(sizes, masked, seed=0):
    """Micro-batches of the given sizes; the first `masked[b]` targets of micro-batch b are -100."""
    generator = torch.Generator().manual_seed(seed)
    micro_batches = []
    for size, hidden in zip(sizes, masked, strict=True):
        y = torch.randint(4, (size,), generator=generator)
        y[:hidden] = -100
        micro_batches.append((torch.randn(size, 3, generator=generator, dtype=torch.float64), y))
    return micro_batches


def toy_model(seed=0, scale=1.0):
    model = torch.nn.Linear(3, 4, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return model


def in_one_go(model, micro_batches):
    """Loss and gradients of weight and bias, the whole batch at once."""
    x, y = (torch.cat(parts) for parts in zip(*micro_batches, strict=True))
    loss = F.cross_entropy(model(x), y)
    return loss.item(), *torch.autograd.grad(loss, [model.weight, model.bias])


def check_03_2(accumulate):
    call = checking.calls(accumulate)
    model, batch = toy_model(), toy_batch(sizes=(2, 18, 5), masked=(0, 3, 1))
    loss, want, bias = in_one_go(model, batch)
    fresh = []
    hook = model.register_forward_pre_hook(
        lambda *_: fresh.append(model.weight.grad is None or not model.weight.grad.any())
    )
    returned = call(model, batch)
    hook.remove()
    assert model.weight.grad is not None, (
        "There is no gradient. Did you call backward? Or zero_grad after it?"
    )
    got = model.weight.grad.clone()
    parts = [in_one_go(model, [part])[1] for part in batch]
    targets, positions = sum(int((y != -100).sum()) for _, y in batch), sum(len(y) for _, y in batch)
    counts = [int((y != -100).sum()) for _, y in batch]
    as_zero = in_one_go(model, [(x, y.clamp(min=0)) for x, y in batch])[1] * positions / targets
    wrong = {
        "You weigh the mean of a micro-batch by its positions. Weigh it by its targets.": sum(
            part * len(y) for part, (_, y) in zip(parts, batch, strict=True)
        )
        / positions,
        "The targets -100 count as class 0. They are no targets at all: ignore them.": as_zero,
        "This is the mean of the micro-batch means. A target in the micro-batch of 2 counts far more "
        "than one in the micro-batch of 18. Divide by the targets of the whole batch.": sum(parts)
        / len(parts),
        "You added the means of the micro-batches. Nothing divides by the number of targets.": sum(parts),
        "This is the gradient of the sum. Divide by the number of targets.": want * targets,
        "You divide by the number of micro-batches. Divide by the number of targets.": want
        * targets
        / len(parts),
        "You divide by the number of positions. Those with -100 carry no loss, so they must not count.": want
        * targets
        / positions,
        "Only the last micro-batch left a trace. zero_grad belongs before the loop, not into it.": parts[-1]
        * counts[-1]
        / targets,
    }
    checking.equal(got, want, "the gradient of the weight", wrong, tol=1e-6)
    checking.equal(model.bias.grad, bias, "the gradient of the bias", tol=1e-6)
    assert fresh != [True] * len(batch), (
        "The gradient is right, but you call backward once, at the end. All graphs then live at the same "
        "time, and memory was the reason to cut the batch."
    )
    assert len(fresh) == len(batch), (
        f"The model ran {len(fresh)} times for {len(batch)} micro-batches. Each pass costs: one for each is enough."
    )
    call(model, batch)
    assert torch.allclose(model.weight.grad, want), (
        "A second call adds to the first one's gradients. Start with zero_grad."
    )
    assert not isinstance(returned, torch.Tensor), (
        f"Return a float, not {type(returned).__name__}: a tensor would keep its graph alive."
    )
    checking.equal(
        returned,
        loss,
        "what you return",
        tol=1e-6,
        says="The gradient is right, but you return not the mean over all targets:",
    )
    says = "A second call adds to the first one's."
    checking.equal(model.bias.grad, bias, "the gradient of the bias", tol=1e-6, says=says)
    assert model.training, "The model came in training mode and left in evaluation mode. Leave it as it is."
    model.eval()
    call(model, batch)
    assert not model.training, (
        "The model came in evaluation mode and left in training mode. Leave it as it is."
    )
    print(
        "03.2 passed the visible cases. Largest distance to the batch in one go: "
        f"{(got - want).abs().max():.0e}"
    )


check_03_2(accumulate)
### BEGIN HIDDEN TESTS


def hidden_03_2(accumulate):
    call = checking.calls(accumulate)
    model = toy_model(1)
    batch = toy_batch(sizes=(4, 3, 6), masked=(1, 3, 0), seed=1)
    loss, want, _ = in_one_go(model, batch)
    says = "One micro-batch has no target, the others have some: the batch is fine. Raise only if no target is left at all."
    with checking.means(ValueError, says):
        returned = call(model, batch)
    assert math.isfinite(returned) and torch.isfinite(model.weight.grad).all(), (
        "One micro-batch has no target, and the result is nan: its own mean is 0/0. Sum the losses, then "
        "divide by the targets of the whole batch."
    )
    says = "Wrong when a micro-batch has no target."
    checking.equal(model.weight.grad, want, "the gradient", tol=1e-6, says=says)
    checking.equal(returned, loss, "the loss", tol=1e-6, says=says)
    call(model, [(x[i : i + 1], y[i : i + 1]) for x, y in batch for i in range(len(y))])
    says = "The gradient depends on how the batch is cut."
    checking.equal(model.weight.grad, want, "the gradient", tol=1e-6, says=says)
    steep, batch = toy_model(2, scale=1000.0), toy_batch(sizes=(7, 2), masked=(0, 1), seed=3)
    loss, want, _ = in_one_go(steep, batch)
    returned = call(steep, batch)
    says = "Logits thousands apart: the logarithm of a softmax is -inf there. Use F.cross_entropy or log_softmax."
    checking.equal(returned, loss, "the loss", tol=1e-6, says=says)
    checking.equal(steep.weight.grad, want, "the gradient", tol=1e-6, says=says)
    says = "A batch without any target went through. Its mean is 0/0."
    call.refuses(ValueError, model, toy_batch(sizes=(2, 3), masked=(2, 3)), says=says)


hidden_03_2(accumulate)
### END HIDDEN TESTS

# %% [markdown]
# ## 03.3 The accuracy that depends on the batch size
#
# > ●●○○○ · 12 minutes · practice · bug hunt
#
# The same model, the same ten examples, and yet the result changes with the batch size, and from call to
# call. Find three bugs.


# %%
def broken_evaluate(model, batches):
    loss = accuracy = 0.0
    for x, y in batches:
        logits = model(x)
        loss += F.cross_entropy(logits, y).item()
        accuracy += (logits.argmax(dim=1) == y).float().mean().item()
    return {
        "loss": loss / len(batches),
        "accuracy": accuracy / len(batches),
        "n": len(batches) * len(batches[0][1]),
    }


torch.manual_seed(0)
x_demo, y_demo = torch.randn(10, 4), torch.randint(2, (10,))
model_demo = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2))
for batch_size in (10, 4, 4):
    batches_demo = list(zip(x_demo.split(batch_size), y_demo.split(batch_size), strict=True))
    print(f"batches of {batch_size}:", broken_evaluate(model_demo, batches_demo))

# %% [markdown]
# Write it so that the result depends on the model and the examples only. No graph is recorded. Afterwards
# the model and each of its parts are in the mode in which they came: somebody may be in the middle of training
# it, with a part of it frozen in evaluation mode.


# %% nbgrader={"grade_id": "answer_03_3", "solution": true}
def evaluate(model, batches):
    """Return {"loss", "accuracy", "n"}: means over all examples, and their number; batches is a list of (x, y)."""
    ### BEGIN SOLUTION
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    loss, right, n = 0.0, 0, 0
    with torch.no_grad():
        for x, y in batches:
            logits = model(x)
            loss += F.cross_entropy(logits, y, reduction="sum").item()
            right += int((logits.argmax(dim=1) == y).sum())
            n += len(y)
    for part, mode in modes:
        part.training = mode
    return {"loss": loss / n, "accuracy": right / n, "n": n}
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_03_3", "locked": true}
class Probe(torch.nn.Module):
    """The logits are the input itself. It notes whether it ran in training mode or with a graph recorded."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(1.0))
        self.graph = self.trained = False

    def forward(self, x):
        self.graph = self.graph or torch.is_grad_enabled()
        self.trained = self.trained or self.training
        return self.scale * x


def check_03_3(evaluate):
    call = checking.calls(evaluate)
    y = torch.tensor([0] * 9 + [1])
    x = torch.stack(
        [torch.full((10,), 1.0), torch.linspace(-1, 0.8, 10)], dim=1
    )  # always says class 0: right 9 times
    batches = list(zip(x.split(4), y.split(4), strict=True))
    model = Probe()
    got = call(model, batches)
    checking.form(got, {"loss": 0.0, "accuracy": 0.0, "n": 10}, "the result")
    assert not model.trained, (
        "The model was in training mode, so dropout was on, or batch normalisation if you switched only dropout off. Call "
        "model.eval() first."
    )
    wrong = {
        "accuracy is the mean of the batch means: 4/4, 4/4 and 1/2 give 0.833. The last batch has only two "
        "examples and must not weigh as much as four. Count the right ones.": 2.5 / 3,
        "accuracy: you return the number of right ones. Divide by n.": 9,
        "accuracy: this is the error rate. Count the right ones.": 0.1,
        "accuracy: a share from 0 to 1 is expected, no percentage.": 90,
        "accuracy: the last batch is missing.": 1.0,
    }
    if got["n"] != 12:
        checking.equal(got["accuracy"], 0.9, "accuracy", wrong, says="9 of 10 are right.")
    wrong = {
        "n is 10, not 3 batches of 4. The last batch is smaller: add up len(y).": 12,
        "n is the number of examples, not of batches.": 3,
    }
    checking.equal(got["n"], 10, "n", wrong)
    want = F.cross_entropy(x, y).item()
    ragged = [F.cross_entropy(a, b).item() for a, b in batches]
    wrong = {
        "accuracy is right, but loss is still a mean of batch means. F.cross_entropy(…, "
        "reduction='sum'), then divide by n.": sum(ragged) / 3,
        "loss: you add the means of the batches and divide by n.": sum(ragged) / 10,
        "loss: you return the sum. Divide by n.": want * 10,
    }
    checking.equal(got["loss"], want, "loss", wrong, tol=1e-5)
    assert not model.graph, (
        "The numbers are right, but a graph was recorded for each batch. Use torch.no_grad()."
    )
    assert model.training, (
        "The model came in training mode and left in evaluation mode: dropout is now off for the rest of "
        "training. Restore it."
    )
    model.eval()
    call(model, batches)
    assert not model.training, (
        "The model came in evaluation mode and left in training mode. Restore the mode you found."
    )
    for seed, sizes, classes, scale in (
        (1, (1, 6, 3), 5, 1.0),
        (2, (3,), 3, 1000.0),
        (3, (2, 2, 2, 7), 4, 3.0),
    ):
        generator = torch.Generator().manual_seed(seed)
        x = scale * torch.randn(sum(sizes), classes, generator=generator)
        y = torch.randint(classes, (sum(sizes),), generator=generator)
        right = sum(int(row[label] == row.max()) for row, label in zip(x, y.tolist(), strict=True))
        want = {"loss": F.cross_entropy(x, y).item(), "accuracy": right / len(y), "n": len(y)}
        says = f"Batches of {sizes}, {classes} classes, logits up to {x.abs().max():.0f}."
        got = call(model, list(zip(x.split(sizes), y.split(sizes), strict=True)))
        checking.equal(got, want, "the result", tol=1e-5, says=says)
    whole = torch.nn.Sequential(Probe(), torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Dropout(0.5)))
    frozen, other = whole.train()[1]
    frozen.eval()
    call(whole, batches)
    assert not frozen.training, (
        "A part that was frozen in evaluation mode came back in training mode: model.train(was) switches every part. "
        "Note the mode of each of model.modules(), and restore each."
    )
    assert whole.training and whole[0].training and other.training, (
        "One part was in evaluation mode, and now others are, too."
    )
    print("03.3 passed. The result no longer depends on the batch size, the mode or the call.")


check_03_3(evaluate)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Ten examples in batches of four: the sizes are 4, 4 and 2. Which weight does an example of the last batch
# get in a mean of three means?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Keep three running sums: of losses, of right answers, of examples. Divide once, at the end.
# `part.training` holds the mode of a part, `model.modules()` lists the model and all its parts.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 03.4 Is B better than A?
#
# > ●●●○○ · 15 minutes · graded
#
# Two models answer the same test items. B gets four items in a hundred more. Is that luck? The items are
# hard or easy for *both* models, so look at the pairs: resample the **items** with replacement, and in
# every resample take the difference of the two accuracies on *those* items. The quantiles $0.025$ and
# $0.975$ of these differences are the bounds of the $95\,\%$ percentile interval.
#
# Use `np.random.default_rng(seed)`, and no loop over items.


# %% nbgrader={"grade_id": "answer_03_4", "solution": true}
def paired_bootstrap(correct_a, correct_b, resamples=4000, seed=0):
    """Return (difference, low, high) of accuracy B minus accuracy A, three floats.

    correct_a and correct_b are bool arrays of shape (n,): did A (B) answer item i correctly?
    """
    ### BEGIN SOLUTION
    gain = np.asarray(correct_b, dtype=float) - np.asarray(correct_a, dtype=float)
    rng = np.random.default_rng(seed)
    items = rng.integers(len(gain), size=(resamples, len(gain)))
    low, high = np.quantile(gain[items].mean(axis=1), [0.025, 0.975])
    return float(gain.mean()), float(low), float(high)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_03_4", "grade": true, "points": 3, "locked": true}
def check_03_4(paired_bootstrap):
    call = checking.calls(paired_bootstrap)
    n = 400
    a = np.arange(n) % 5 > 0  # A is right on 80 %
    b = a.copy()
    b[0:120:5] = True  # 24 items won
    b[1:41:5] = False  # 8 items lost
    answer = call(a, b)
    checking.form(answer, (0.0, 0.0, 0.0), "(difference, low, high)")
    difference, low, high = answer
    assert difference > 0, (
        "B is better here, so the difference is positive: accuracy of B minus accuracy of A."
    )
    wrong = {
        "The difference is a number of items. Accuracies are shares: divide by n.": 16,
        "The difference is divided by the accuracy of A. Subtract, no more.": 0.05,
        "The difference is in percent. Accuracies are shares.": 4.0,
        "Items that only A has right count for B: xor and abs lose the sign. Subtract numbers, b - a.": np.mean(
            a != b
        ),
    }
    says = "Take it from the items themselves. Do not take it from the resamples."
    checking.equal(difference, 0.04, "the difference", wrong, says=says)
    assert low <= high, f"The bounds are turned round: low is {low:.4f}, high is {high:.4f}."
    assert low < high or math.isclose(low, difference), (
        "All resamples are the same: low equals high, and is not the difference. Make the generator once, before the loop."
    )
    gain = b.astype(float) - a.astype(float)
    assert abs((low + high) / 2 - gain[gain != 0].mean()) > 0.05, (
        "You drew only from the items on which A and B differ. Where they agree the difference is 0, and that counts, too."
    )
    assert low <= difference <= high, (
        f"The interval [{low:.4f}, {high:.4f}] does not hold the difference {difference:.4f}."
    )
    ratio = (high - low) / (2 * 1.96 * gain.std() / math.sqrt(n))
    unpaired = math.sqrt(a.var() + b.var()) / gain.std()
    assert ratio > 0.01, (
        "The interval has no width. You resampled without replacement: each time the same items in "
        "another order."
    )
    assert not 0.9 < ratio / unpaired < 1.1, (
        f"The interval is {ratio:.1f} times too wide. You drew other items for A than for B. Both models "
        "answer the same items: use one set of indices for both."
    )
    assert ratio < 1.5, (
        f"The interval is {ratio:.1f} times wider than it should be. Smallest and largest resample? Or resamples "
        "of fewer items than there are?"
    )
    assert not ratio < 0.3, (
        "The interval is far too narrow. The spread of the resampled means is the standard error; do not "
        "divide it by sqrt(n) again."
    )
    assert not 0.45 < ratio < 0.57, (
        "The interval is half as wide as it should be: one standard deviation, or the quartiles. Use 2.5 "
        "% and 97.5 %."
    )
    assert not 0.76 < ratio < 0.91, (
        "This is the 90 % interval: 5 % on either side. For 95 % leave 2.5 % on either side."
    )
    assert not 1.25 < ratio < 1.38, "This is the 99 % interval. For 95 % leave 2.5 % on either side."
    assert 0.91 < ratio < 1.12, f"The interval has {ratio:.2f} times the width that was expected."
    says = "A and B exchanged: A is better now, so the difference is negative."
    checking.equal(call(b, a)[0], -0.04, "the difference", says=says)
    assert tuple(call(a, b)) == tuple(answer), (
        "Two calls with the same seed differ. Use np.random.default_rng(seed)."
    )
    _, low, high = call(a, b, resamples=1)
    assert low == high, (
        "One resample has one difference, so both bounds are that one. Use the argument resamples."
    )
    print(
        f"03.4 passed the visible cases. Difference {difference:.3f}, 95 % interval [{answer[1]:.3f}, {answer[2]:.3f}]."
    )
    print(f"Without the pairs it would be {unpaired:.1f} times as wide.")


check_03_4(paired_bootstrap)
### BEGIN HIDDEN TESTS


def hidden_03_4(paired_bootstrap):
    call = checking.calls(paired_bootstrap)
    same = np.array([True, False, True, True])
    checking.equal(
        call(same, same), (0.0, 0.0, 0.0), "(difference, low, high)", says="Two identical models: no width."
    )
    one = np.zeros(12, dtype=bool)
    one[3] = True
    difference, low, high = call(np.zeros(12, dtype=bool), one)
    assert low >= 0 or not math.isclose(high, 2 * difference), (
        "You reflected the quantiles at the difference, 2 d - q. The percentile interval is the quantiles themselves."
    )
    assert low >= 0, (
        "B never loses an item here, so no resample has a negative difference. Your lower bound is "
        "negative: take quantiles, not a multiple of the standard deviation."
    )
    last = np.arange(5) == 4
    _, _, high = call(np.zeros(5, dtype=bool), last)
    assert high > 0, "The last item is never drawn: rng.integers(n) already ends before n."
    a, b = np.arange(400) % 3 > 0, np.arange(400) % 4 > 0
    results = {tuple(call(a, b, resamples=200, seed=s)) for s in range(4)}
    assert len(results) > 1, "Four seeds, one result. Pass the seed to the generator."
    np.random.seed(0)
    before = np.random.get_state()[1].tolist(), np.random.get_state()[2]
    call(a, b)
    assert (np.random.get_state()[1].tolist(), np.random.get_state()[2]) == before, (
        "You drew from numpy's global state, so this call changes every later random number. Use your "
        "own generator."
    )
    rng = np.random.default_rng(9)
    for n in (60, 1500):
        a, b = rng.random(n) < 0.5, rng.random(n) < 0.6
        gain = b.astype(float) - a
        difference, low, high = call(a, b, resamples=2000, seed=5)
        checking.equal(difference, gain.mean(), "the difference", says=f"{n} items.")
        ratio = (high - low) / (3.92 * gain.std() / math.sqrt(n))
        assert 0.85 < ratio < 1.15, (
            f"With {n} items the interval has {ratio:.2f} times the width expected. Draw as many items as there are."
        )
    _, low, _ = call(np.zeros(12, dtype=bool), one)
    checking.equal(low, 0.0, "low", says="Draw from all items, not only from those where the models differ:")


hidden_03_4(paired_bootstrap)
### END HIDDEN TESTS

# %% [markdown]
# ## 03.5 What does padding to 128 cost?
#
# > ●●○○○ · 8 minutes · practice · prediction
#
# Eight sentences have the token counts below. Batches hold four. Predict with pencil and paper how many
# *positions* the model computes in one epoch, padding included, when
#
# - `to_128`: every sentence is padded to 128,
# - `in_order`: each batch is padded to its longest sentence, and the batches are taken in the order below,
# - `by_length`: as before, but the four shortest sentences make one batch and the four longest the other.
#
# Attention compares each position of a sentence with each other, so a sentence padded to $L$ costs $L^2$
# scores. In `attention_ratio` put how many times more scores `to_128` needs than `by_length` (one decimal
# is enough).

# %%
LENGTHS = [7, 12, 9, 30, 8, 11, 28, 10]


# %% nbgrader={"grade_id": "answer_03_5", "solution": true}
def prediction():
    """Return a dict of four numbers: to_128, in_order, by_length, attention_ratio."""
    ### BEGIN SOLUTION
    return {"to_128": 1024, "in_order": 232, "by_length": 160, "attention_ratio": 32.8}
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_03_5", "locked": true}
def check_03_5(prediction):
    mine = checking.predicted(prediction, ("to_128", "in_order", "by_length", "attention_ratio"))

    def widths(lengths):
        """The padded length of every sentence, batches of four."""
        return [max(lengths[i - i % 4 : i - i % 4 + 4]) for i in range(len(lengths))]

    in_order, by_length, real = widths(LENGTHS), widths(sorted(LENGTHS)), sum(LENGTHS)
    to_128 = [128] * len(LENGTHS)
    wrong = {
        "to_128: this is one sentence a batch. A batch holds four rows of 128.": 2 * 128,
        "to_128: this is one batch. There are two.": 4 * 128,
    }
    checking.equal(mine["to_128"], sum(to_128), "to_128", wrong, says="to_128: eight rows of 128.")
    wrong = {
        f"in_order: {real} is the number of real tokens. A row is as long as its batch's longest.": real,
        "in_order: the longest of the batch counts, not the longest of all eight.": 8 * max(LENGTHS),
        "in_order: you add the longest sentences. Each batch has four rows of that length.": sum(in_order)
        / 4,
        "in_order: this is the answer to by_length. Here the batches are cut in the order given.": sum(
            by_length
        ),
    }
    says = "in_order: four times the longest of the first batch, plus four times that of the second."
    checking.equal(mine["in_order"], sum(in_order), "in_order", wrong, says=says)
    wrong = {
        "by_length: you removed all padding. Similar lengths are not equal lengths: the shortest rows "
        "are still filled up.": real
    }
    says = "by_length: sort, cut after the fourth, and take four times each longest."
    checking.equal(mine["by_length"], sum(by_length), "by_length", wrong, says=says)
    positions = sum(to_128) / sum(by_length)
    wrong = {
        "attention_ratio: this is the ratio of positions. Scores grow with the square of the length, so "
        "square each row first.": positions,
        "attention_ratio: you squared the ratio of the totals. Square each row's length, then add, then "
        "divide.": positions**2,
        "attention_ratio: you compare with in_order. The question is to_128 against by_length.": sum(
            w * w for w in to_128
        )
        / sum(w * w for w in in_order),
    }
    wrong |= {
        "attention_ratio: you square the real lengths. In by_length, too, rows are filled up to their longest: square "
        "the padded lengths.": sum(w * w for w in to_128) / sum(w * w for w in LENGTHS)
    }
    ratio = sum(w * w for w in to_128) / sum(w * w for w in by_length)
    checking.equal(mine["attention_ratio"], ratio, "attention_ratio", wrong, tol=0.02)
    print(
        f"03.5 passed. Real tokens: {real}. Padded to 128, {1 - real / sum(to_128):.0%} of the positions "
        "are empty;"
    )
    print(
        f"in batches by length {1 - real / sum(by_length):.0%}. The lesson measures what that means in "
        "seconds."
    )


check_03_5(prediction)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# A batch is a rectangle: rows times the length of the longest row. Add up the two rectangles.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Scores: $8 \cdot 128^2$ against $4 \cdot L_1^2 + 4 \cdot L_2^2$, where $L_1$ and $L_2$ are the longest
# sentences of the two sorted batches.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 03.6 Killed, and taken up again
#
# > ●●●●○ · 75 minutes · graded
#
# `straight` in the next cell trains a small network. It is right, and it forgets everything when the power goes. Write
#
# `resumable(net, train, dev, steps, seed, disk) -> net`
#
# Undisturbed, it does what `straight` does, to the last bit. In addition it saves a *checkpoint* on `disk` after every
# `SAVE` updates, and after the look where both fall on one update. When it was killed and is called again with the same
# disk, it goes on from the last checkpoint that is whole, and ends with the same bits as if nothing had happened. (What was
# written and not yet renamed need not count as one.)
#
# - The power may go at any moment: before an update, between two operations on the disk, in the middle of a write. A
#   write that is cut leaves a part of its bytes under its name, and nothing of what stood there before. A rename is one
#   stroke: it happens or it does not.
# - At most the updates since the last whole checkpoint are done again. A run that is taken up may be killed, too.
# - Only the disk survives. The checker calls you again with a net of *other* first values, with random generators of
#   torch and Python that stand elsewhere, and in any order: the next call may belong to another run. If no checkpoint
#   is whole, train the net that you are given from the start.
# - Only tensors and plain values go onto the disk, as bytes: `torch.save` writes into an `io.BytesIO`, and
#   `torch.load(io.BytesIO(data))` reads it. Python's generator has `getstate` and `setstate`, torch's
#   `torch.get_rng_state` and `torch.set_rng_state`.
# - The net is any module with parameters, buffers and dropout, the optimiser is the one of `straight`, and `steps` is
#   at least `LOOK`. An update is one pass of the net in training mode; do no others.
#
# The checker watches the rows that go in, the dropout masks and the weights before each update. So it can say what you
# forgot. Change nothing in the arithmetic of `straight`: another order of two operations gives other bits.


# %%
SAVE, LOOK = 8, 5  # updates between two checkpoints, and between two looks at dev


class Disk:
    """What survives: bytes under names."""

    def __init__(self):
        self.files = {}

    def names(self):
        return sorted(self.files)

    def read(self, name):
        return self.files[name]

    def write(self, name, data):
        self.files[name] = bytes(data)

    def rename(self, old, new):
        self.files[new] = self.files.pop(old)


def fresh(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))


def clouds(seed, n=120):
    """Rows of three overlapping clouds: (x, y) to train on, and (x, y) to look at."""
    g = torch.Generator().manual_seed(seed)
    centres, y = torch.randn(3, 6, generator=g), torch.randint(3, (n + 60,), generator=g)
    x = centres[y] + 1.2 * torch.randn(n + 60, 6, generator=g)
    return (x[:n], y[:n]), (x[n:], y[n:])


def straight(net, train, dev, steps, seed):
    """Train, halve the rate after a look that is worse than the one before, and return the best weights on dev."""
    (x, y), order = train, random.Random(seed)
    torch.manual_seed(seed)  # dropout draws from here
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.1)
    left, rate, before, lowest, best = [], 0.1, math.inf, math.inf, None
    for step in range(steps):
        if len(left) < 16:  # a new epoch; what is left of the old one is dropped
            left = order.sample(range(len(x)), len(x))
        batch, left = left[:16], left[16:]
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 10)
        net.train()
        optimizer.zero_grad()
        F.cross_entropy(net(x[batch]), y[batch]).backward()
        optimizer.step()
        if (step + 1) % LOOK == 0:
            net.eval()
            with torch.no_grad():
                loss = F.cross_entropy(net(dev[0]), dev[1]).item()
            if loss < lowest:
                lowest, best = loss, copy.deepcopy(net.state_dict())
            if loss > before:
                rate = rate / 2
            before = loss
    net.load_state_dict(best)
    return net


# %% nbgrader={"grade_id": "answer_03_6", "solution": true}
def resumable(net, train, dev, steps, seed, disk):
    """As straight, with checkpoints on disk; goes on from there. Return the net with the best weights."""
    ### BEGIN SOLUTION
    (x, y), order = train, random.Random(seed)
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.1)
    now = {"step": 0, "left": [], "rate": 0.1, "before": math.inf, "lowest": math.inf, "best": None}
    if "checkpoint" in disk.names():
        held = torch.load(io.BytesIO(disk.read("checkpoint")))
        net.load_state_dict(held["net"])
        optimizer.load_state_dict(held["optimizer"])
        order.setstate(held["order"])
        torch.set_rng_state(held["dropout"])
        now = held["now"]
    while now["step"] < steps:
        if len(now["left"]) < 16:
            now["left"] = order.sample(range(len(x)), len(x))
        batch, now["left"] = now["left"][:16], now["left"][16:]
        for group in optimizer.param_groups:
            group["lr"] = now["rate"] * min(1.0, (now["step"] + 1) / 10)
        net.train()
        optimizer.zero_grad()
        F.cross_entropy(net(x[batch]), y[batch]).backward()
        optimizer.step()
        now["step"] += 1
        if now["step"] % LOOK == 0:
            net.eval()
            with torch.no_grad():
                loss = F.cross_entropy(net(dev[0]), dev[1]).item()
            if loss < now["lowest"]:
                now["lowest"], now["best"] = loss, copy.deepcopy(net.state_dict())
            if loss > now["before"]:
                now["rate"] /= 2
            now["before"] = loss
        if now["step"] % SAVE == 0:
            held = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "now": now}
            held |= {"order": order.getstate(), "dropout": torch.get_rng_state()}
            data = io.BytesIO()
            torch.save(held, data)
            disk.write("new", data.getvalue())
            disk.rename("new", "checkpoint")
    net.load_state_dict(now["best"])
    return net
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_03_6", "grade": true, "points": 5, "locked": true}
class KilledError(BaseException):
    """The power is off. No `except Exception` catches it, as in life."""


class Plug(Disk):
    """The disk of one run. The power goes at the operation `cut` (a number from 0), and then nothing works any more."""

    def __init__(self, files=None, cut=None):
        super().__init__()
        self.files, self.cut, self.off, self.log = dict(files or {}), cut, False, []

    def alive(self, what=""):
        if self.off:
            raise KilledError
        if what:
            self.log.append(what)
            if len(self.log) - 1 == self.cut:
                self.off = True
                return False
        return True

    def names(self):
        self.alive()
        return super().names()

    def read(self, name):
        self.alive()
        assert name in self.files, f"disk.read({name!r}): there is no such file, only {sorted(self.files)}."
        return super().read(name)

    def write(self, name, data):
        whole = self.alive("write")
        assert isinstance(data, bytes | bytearray | memoryview), "disk.write takes a name and bytes."
        super().write(name, data if whole else data[: len(data) // 2])
        self.alive()

    def rename(self, old, new):
        whole = self.alive("rename")
        assert old in self.files, (
            f"disk.rename({old!r}, …): there is no such file, only {sorted(self.files)}."
        )
        if whole:
            super().rename(old, new)
        self.alive()


def watched(function, net, train, dev, steps, seed, disk=None, kill=None):
    """Run it. Return the state of the net that came back (None if killed) and what was seen before each update."""
    seen, masks = [], []
    disk = disk or Plug()

    def before(module, inputs):
        if disk.off or (module.training and len(seen) == kill):
            disk.off = True
            raise KilledError
        if module.training:
            state = {name: value.detach().clone() for name, value in module.state_dict().items()}
            seen.append({"rows": inputs[0].detach().clone(), "state": state, "operations": len(disk.log)})

    def dropped(module, inputs, output):
        if module.training:
            masks.append((output == 0).detach().clone())

    hooks = [net.register_forward_pre_hook(before)]
    hooks += [m.register_forward_hook(dropped) for m in net.modules() if isinstance(m, nn.Dropout)]
    try:
        if function is straight:
            result = straight(net, train, dev, steps, seed)
        else:
            call = checking.calls(function, changes=("net", "disk"))
            result = call(net, train, dev, steps, seed, disk)
            assert isinstance(result, nn.Module), f"Return the net, not {checking.shown(result)}."
    except KilledError:
        result = None
    finally:
        for hook in hooks:
            hook.remove()
    for entry, mask in zip(seen, masks, strict=False):
        entry["mask"] = mask
    return (None if result is None else copy.deepcopy(result.state_dict())), seen


def same(one, other, names=None):
    return all(torch.equal(one[name], other[name]) for name in names or one)


class Course:
    """A run as it should be. A learner's run is compared with it, update by update."""

    def __init__(self, seed, steps=45, n=120):
        self.seed, self.steps, (self.train, self.dev) = seed, steps, clouds(seed, n)
        self.best, self.seen = watched(straight, fresh(seed), self.train, self.dev, steps, seed)
        self.parameters = [name for name, _ in fresh(seed).named_parameters()]

    def run(self, function, disk, kill=None, first=None):
        net = fresh(self.seed + 500 if first is None else first)
        torch.manual_seed(4321 + self.seed)
        random.seed(4321 + self.seed)
        return watched(function, net, self.train, self.dev, self.steps, self.seed, disk, kill)

    def undisturbed(self, function):
        """Return for each update how many operations on the disk came before it."""
        disk = Plug()
        state, seen = self.run(function, disk, first=self.seed)
        self.compare(state, seen, 0, "Undisturbed")
        counts = [entry["operations"] for entry in seen]
        assert counts[2 * SAVE] > counts[2 * SAVE - 1], (
            f"Nothing was written to the disk after update {2 * SAVE}. A checkpoint is due after every SAVE updates."
        )
        return counts

    def killed(self, function, kill, first=None):
        """Killed before update `kill`, and taken up."""
        disk = Plug()
        self.run(function, disk, kill, self.seed)
        state, seen = self.run(function, Plug(disk.files), first=first)
        self.compare(state, seen, kill // SAVE * SAVE, f"Killed before update {kill}")

    def cut(self, function, operation, done, first=None):
        """Killed in an operation on the disk, and taken up; `done` updates were in a whole checkpoint before."""
        disk = Plug(cut=operation)
        self.run(function, disk, first=self.seed)
        when = f"Killed while saving, in operation {operation} of the run, a {disk.log[-1]}"
        try:
            state, seen = self.run(function, Plug(disk.files), first=first)
        except AssertionError as error:
            says = (
                "what is on the disk cannot be read. A file that was cut stands under the name that you read. Write under "
                "another name, then rename."
                if done
                else "no checkpoint was whole yet, and you read one. That the disk is not empty proves nothing: ask for the "
                "name that only a whole one has."
            )
            raise AssertionError(f"{when}: {says} ({error.__cause__ or error})") from error
        try:
            self.compare(state, seen, done, when)
        except AssertionError as error:
            raise AssertionError(
                f"{when}: the run goes on with parts of two moments, or with nothing at all. Several files are never of "
                "one moment, and a file that is written again is gone for a while. Put all into one file under another "
                "name, and rename it at the end."
            ) from error

    def compare(self, state, seen, done, when):
        """AssertionError with the first thing that differs from the run as it should be."""
        assert seen, f"{when}: no update was done, and {self.steps - done} were missing."
        start = seen[0]["state"]
        at = [k for k, entry in enumerate(self.seen) if same(start, entry["state"], self.parameters)]
        assert at, (
            f"{when}: the first update meets weights that the right run never had. Were they loaded into this net? It "
            "comes with other first values."
        )
        k = at[0]
        assert same(start, self.seen[k]["state"]), (
            f"{when}: the parameters were restored, the buffers were not: BatchNorm's running means and its count. "
            "net.state_dict() holds both."
        )
        assert k >= done, (
            f"{when}: the run goes on after {k} updates, and {done} could have been on the disk. A checkpoint is due "
            "after every SAVE updates, and the newest one counts."
        )
        for i, (mine, right) in enumerate(zip(seen, self.seen[k:], strict=False)):
            here = f"{when}, at update {k + i}"
            self.step(here, i, mine, right, self.seen[k + i - 1]["state"])
        assert len(seen) == self.steps - k, (
            f"{when}: after number {k} come {len(seen)} updates, and {self.steps - k} were missing. Does the checkpoint "
            "hold the number of updates that are done?"
        )
        assert same(state, self.best), (
            f"{when}: all updates are right, other weights than the best on dev come back. "
            + (
                "Does the checkpoint hold `lowest` and the best weights?"
                if done
                else "Is `best` a copy? net.state_dict() holds the very tensors that go on moving."
            )
        )

    def step(self, here, i, mine, right, before):
        if i > 0 and not same(mine["state"], right["state"]):
            states = mine["state"], right["state"]
            own, want = (torch.cat([(s[n] - before[n]).flatten() for n in self.parameters]) for s in states)
            factor = (own @ want / (want @ want)).item()
            assert (own - factor * want).norm() > 1e-3 * own.norm(), (
                f"{here}: the step before it went the right way and was {factor:.3g} times as long as it should be. Are "
                "`rate`, `before` and the number of the update in the checkpoint?"
            )
            raise AssertionError(
                f"{here}: from the same weights, with the same rows and the same mask, the step before it went elsewhere. "
                "The averages of the optimiser are missing."
            )
        assert mine["rows"].shape == right["rows"].shape, (
            f"{here}: a pass in training mode with {len(mine['rows'])} rows. Is a look at dev done without net.eval()?"
        )
        if not torch.equal(mine["rows"], right["rows"]):
            assert i == 0, (
                f"{here}: the rows were right until the epoch ended, and the next one has another order. The state of "
                "`order` is missing: order.getstate()."
            )
            raise AssertionError(
                f"{here}: other rows. The epoch was not over when the power went: `left` belongs to the checkpoint."
            )
        assert torch.equal(mine["mask"], right["mask"]), (
            f"{here}: right rows, and dropout drops other units. The state of torch's generator is missing, or something "
            "drew from it after it was restored."
        )


def check_03_6(resumable):
    course = Course(3)
    counts = course.undisturbed(resumable)
    for kill in (21, 29, 43):
        course.killed(resumable, kill)
    course.killed(resumable, 3, first=course.seed)
    for operation in range(counts[2 * SAVE - 1], counts[2 * SAVE]):
        course.cut(resumable, operation, SAVE)
    print("03.6 passed the visible cases: the same bits after every kill.")


check_03_6(resumable)
### BEGIN HIDDEN TESTS


def hidden_03_6(resumable):
    course = Course(11, steps=37, n=100)
    counts = course.undisturbed(resumable)
    for operation in range(counts[SAVE]):
        course.cut(
            resumable, operation, 0, first=course.seed
        )  # the very first checkpoint: nothing is whole yet
    disk = Plug()
    for kill in (19, 4, 11):  # counted from where it goes on
        course.run(resumable, disk, kill, course.seed if kill == 19 else None)
        disk = Plug(disk.files)
    state, seen = course.run(resumable, disk)
    course.compare(state, seen, 24, "Killed three times")
    runs = [(Course(seed, steps=30), Plug()) for seed in (12, 13, 14)]
    for one, disk in runs:
        one.run(resumable, disk, 20, one.seed)
    for one, disk in reversed(runs):
        state, seen = one.run(resumable, Plug(disk.files))
        when = "Three runs were killed, and are taken up in another order"
        try:
            one.compare(state, seen, 16, when)
        except AssertionError as error:
            raise AssertionError(f"{when}: something is kept outside of the disk.") from error


hidden_03_6(resumable)
### END HIDDEN TESTS

# %% [markdown]
# ## 03.7 Project: is B better than A?
#
# > ●●●●● · 165 minutes · practice
#
# Choose two classifiers of your own, $A$ and $B$, and a task (the reviews of the next cell, the data of lesson 03, your
# field's texts). Say first how large a difference must be to matter. Tune both alike, on seeds of their own. Then compare
# them on fresh seeds: each seed has its own training rows and its own test rows, and both classifiers get the same ones.
# `study()` returns a dict:
#
# | key | what |
# |:--|:--|
# | `claim` | a sentence of at least $40$ characters that names `a` and `b` |
# | `a`, `b` | two different names |
# | `margin` | the smallest difference of accuracy that would change what somebody does: above $0$, at most $0.2$ |
# | `reason` | why just this one, at least $40$ characters |
# | `tuning_seeds` | at least three different whole numbers |
# | `dev` | for `a` and for `b`: a dict from at least three settings, equally many, to a dev accuracy for each tuning seed |
# | `chosen` | for `a` and for `b`: the setting with the best mean dev accuracy, the first of equal ones |
# | `seeds` | at least eight different whole numbers, none of them a tuning seed |
# | `train`, `test` | for each seed the names of its rows (strings, numbers or tuples); at least $30$ in each `test` |
# | `hits` | for `a` and for `b`: for each seed a list of $0$ and $1$, in the order of `test` |
# | `difference` | accuracy of $B$ minus accuracy of $A$, mean over the seeds |
# | `low`, `high` | its $95\,\%$ t interval, two-sided |
# | `low90`, `high90` | its $90\,\%$ t interval, two-sided |
# | `power` | the chance that a true difference of `margin` is found with so many seeds, two-sided, at $0.05$ |
# | `verdict` | `"equivalent"`, `"better"`, `"worse"` or `"undecided"` |
#
# No row may be trained on and tested on, in any seed, and no row may be tested on in two seeds. The **unit** of both
# intervals is the seed: one difference for each, and they are not all equal. With $s$ the standard deviation of these
# differences and $k$ seeds, `intervals.power_of_t(margin, s / sqrt(k), k - 1)` is the power. The difference is checked to
# six digits, an interval to a hundredth of its width, the power to a thousandth.
#
# **The verdict.** *Equivalent*: the $90\,\%$ interval lies inside of $(-m, m)$, with $m$ the margin. (That is two
# one-sided tests at $0.05$; Schuirmann, 1987.) Only if this is not so: *better* if the whole $95\,\%$ interval lies above
# $0$, *worse* if it lies below. Better is better than nothing; whether it is more than $m$, you say in the ending. Else
# *undecided*, and then the power tells whether you could have known more.
#
# The checker recomputes all numbers. A person reads the rest with this rubric (0, 1 or 2 points a row; 9 of 14 pass):
#
# | | 0 | 1 | 2 |
# |:--|:--|:--|:--|
# | claim | cannot fail | can fail, but task or number of rows is missing | names both, task, rows, measure, direction |
# | margin | a habit ("five points") | a reason | a cost is compared with the gain: somebody would act differently |
# | opponent | $A$ is a straw man | a usual baseline | the strongest that one evening allows |
# | tuning | one was tried more often | equally many settings | and settings that both need, none at the edge of its list |
# | independence | seeds share training rows, not mentioned | shared, and said what follows | fresh rows for every seed |
# | ending | only the verdict | what it does not show | and what would be needed to know it |
# | run | not run | run, and changed afterwards | run as planned; what was looked at later is called exploratory |


# %%
GOOD = "fine warm bright clever moving fresh sharp lovely".split()
BAD = "dull cold flat silly empty stale loud weak".split()
OTHER = "film plot scene actor end song light story music hour man woman town road sea voice".split()


def reviews(seed, n):
    """A starter: n short texts, each a list of words, and their labels, 1 for good and 0 for bad."""
    draw, texts, labels = random.Random(seed), [], []
    for _ in range(n):
        label, text = draw.randrange(2), []
        while len(text) < 8:
            praise = label == (draw.random() < 0.75)  # not every word agrees with the label
            if draw.random() < 0.5:
                text.append(draw.choice(OTHER))
            elif draw.random() < 0.1:
                text += ["not", draw.choice(BAD if praise else GOOD)]
            else:
                text.append(draw.choice(GOOD if praise else BAD))
        texts.append(text)
        labels.append(label)
    return texts, labels


def ridge(X, labels, decay):
    """A starter: weights of the least squares with decay on the signs of the labels. X (n, d) float64 → (d,)."""
    signs = 2.0 * np.asarray(labels) - 1
    return X.T @ np.linalg.solve(X @ X.T + decay * np.eye(len(X)), signs)


# %% nbgrader={"grade_id": "answer_03_7", "solution": true}
def study():
    """Return the dict of the table."""
    ### BEGIN SOLUTION
    a, b, settings = "single words", "words and pairs", (1.0, 4.0, 16.0, 64.0)
    tuning_seeds, seeds, margin = [1, 2, 3], list(range(100, 116)), 0.02

    def features(text, pairs):
        return [*text, *(itertools.pairwise(text) if pairs else [])]

    def hits(name, decay, seed):
        texts, labels = reviews(seed, 300)
        rows = [features(text, name == b) for text in texts]
        place = {f: i for i, f in enumerate(dict.fromkeys(f for row in rows[:150] for f in row))}
        X = np.zeros((300, len(place)))
        for i, row in enumerate(rows):
            for f in row:
                if f in place:
                    X[i, place[f]] += 1
        w = ridge(X[:150], labels[:150], decay)
        return [int((x @ w > 0) == y) for x, y in zip(X[150:], labels[150:], strict=True)]

    dev = {n: {d: [float(np.mean(hits(n, d, s))) for s in tuning_seeds] for d in settings} for n in (a, b)}
    chosen = {n: max(dev[n], key=lambda d: np.mean(dev[n][d])) for n in (a, b)}
    found = {n: [hits(n, chosen[n], s) for s in seeds] for n in (a, b)}
    gains = np.mean(found[b], 1) - np.mean(found[a], 1)
    wide, narrow = intervals.t_interval(gains), intervals.t_interval(gains, 0.9)
    verdict = "better" if wide.low > 0 else "worse" if wide.high < 0 else "undecided"
    if -margin < narrow.low and narrow.high < margin:
        verdict = "equivalent"
    return {
        "claim": f"On reviews of some eight words, with 150 to train on, a ridge classifier that counts {b} is more accurate "
        f"than one that counts {a}.",
        "a": a, "b": b, "margin": margin,
        "reason": "Pairs make the table many times as large. For less than two more right answers of a hundred we would not "
        "pay that memory.",
        "tuning_seeds": tuning_seeds, "dev": dev, "chosen": chosen, "seeds": seeds,
        "train": [[(s, i) for i in range(150)] for s in seeds],
        "test": [[(s, i) for i in range(150, 300)] for s in seeds],
        "hits": found, "difference": float(gains.mean()), "low": wide.low, "high": wide.high,
        "low90": narrow.low, "high90": narrow.high,
        "power": intervals.power_of_t(margin, float(gains.std(ddof=1)) / math.sqrt(len(seeds)), len(seeds) - 1),
        "verdict": verdict,
    }  # fmt: skip
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_03_7", "locked": true}
STUDY = (
    "claim a b margin reason tuning_seeds dev chosen seeds train test hits difference low high low90 high90 power verdict"
).split()


def whole_numbers(mine, key, least):
    got = mine[key]
    assert isinstance(got, list | tuple) and all(
        isinstance(s, int | np.integer) and not isinstance(s, bool) for s in got
    ), f"{key}: a list of whole numbers expected, not {checking.shown(got)}."
    assert len(set(got)) == len(got), (
        f"{key}: one stands there twice. The same run again is no further evidence."
    )
    assert len(got) >= least, f"{key}: at least {least}, not {len(got)}."
    return list(got)


def check_tuning(mine, names):
    tuning = whole_numbers(mine, "tuning_seeds", 3)
    for key in ("dev", "chosen", "hits"):
        assert isinstance(mine[key], dict) and set(mine[key]) == set(names), (
            f"{key}: a dict with the keys {names[0]!r} and {names[1]!r} expected."
        )
    sizes = [len(mine["dev"][name]) for name in names]
    assert min(sizes) >= 3, "dev: at least three settings for each classifier."
    assert sizes[0] == sizes[1], (
        f"dev: {sizes[0]} settings for {names[0]!r} and {sizes[1]} for {names[1]!r}. Who may try more wins by that alone."
    )
    for name in names:
        means = {}
        for setting, scores in mine["dev"][name].items():
            assert len(scores) == len(tuning), (
                f"dev[{name!r}][{setting!r}]: {len(scores)} accuracies for {len(tuning)} tuning seeds."
            )
            assert all(0 <= x <= 1 for x in scores), f"dev[{name!r}]: an accuracy lies between 0 and 1."
            means[setting] = float(np.mean(scores))
        best = max(means, key=means.get)
        assert mine["chosen"][name] == best, (
            f"chosen[{name!r}]: {mine['chosen'][name]!r} has {means.get(mine['chosen'][name], math.nan):.3f} on dev, and "
            f"{best!r} has {means[best]:.3f}. Who chooses by the test rows reports a maximum."
        )
    return tuning


def check_rows(mine, names, seeds):
    for key in ("train", "test"):
        assert len(mine[key]) == len(seeds), f"{key}: a list for each of the {len(seeds)} seeds."
    test = [row for rows in mine["test"] for row in rows]
    assert min(map(len, mine["test"])) >= 30, "test: at least 30 rows for each seed."
    assert len(set(test)) == len(test), (
        "test: a row is tested on twice, or in two seeds. Then the seeds share its luck, and the interval is too narrow."
    )
    shared = set(test) & {row for rows in mine["train"] for row in rows}
    assert not shared, f"{len(shared)} rows are trained on and tested on, such as {next(iter(shared))!r}."
    for name in names:
        got = [len(hits) for hits in mine["hits"][name]]
        assert got == [len(rows) for rows in mine["test"]], (
            f"hits[{name!r}]: a 0 or 1 for each row of `test`."
        )
        assert {float(hit) for hits in mine["hits"][name] for hit in hits} <= {0.0, 1.0}, (
            f"hits[{name!r}]: only 0 and 1."
        )


def check_03_7(study):
    mine = checking.handed_in(study, STUDY, limit=60.0)
    names = [mine["a"], mine["b"]]
    assert names[0] != names[1], "a and b are the same classifier."
    for key in ("claim", "reason"):
        assert isinstance(mine[key], str) and len(mine[key]) >= 40, f"{key}: at least 40 characters."
    for name in names:
        assert name in mine["claim"], f"claim: {name!r} does not occur. A claim names what it compares."
    margin = mine["margin"]
    assert 0 < margin <= 0.2, "margin: above 0, at most 0.2. Two points of a hundred are 0.02."
    tuning = check_tuning(mine, names)
    seeds = whole_numbers(mine, "seeds", 8)
    assert not set(seeds) & set(tuning), (
        f"seeds: {sorted(set(seeds) & set(tuning))} chose the settings. A setting looks best where it was chosen."
    )
    check_rows(mine, names, seeds)
    shares = {name: np.array([np.mean(hits) for hits in mine["hits"][name]]) for name in names}
    gains = shares[names[1]] - shares[names[0]]
    assert gains.std() > 1e-9, "All seeds have the same difference. Something is not drawn anew."
    k, mean, s = len(seeds), gains.mean(), gains.std(ddof=1)
    flipped = {"difference: A minus B. The study asks for B minus A.": -mean}
    checking.equal(mine["difference"], mean, "difference", flipped, tol=1e-6)
    wide, narrow = intervals.t_interval(gains), intervals.t_interval(gains, 0.9)
    hits = ([np.array(row, dtype=float) for row in mine["hits"][name]] for name in names)
    items = np.concatenate([b - a for a, b in zip(*hits, strict=True)])
    pooled = 1.959964 * items.std(ddof=1) / math.sqrt(len(items))
    both = math.sqrt(sum(shares[name].var(ddof=1) for name in names) / k)
    error = s / math.sqrt(k)
    near = {
        "low: that is the interval over test rows, as if all seeds were one run. The unit is the seed.": mean
        - pooled,
        "low: with the two variances added the pairs are lost. Take one difference for each seed.": mean
        - (wide.mean - wide.low) * both / error,
        "low: 1.96 is for a spread that is known. With few seeds it is estimated: Student's t.": mean
        - 1.959964 * error,
        "low: that is one standard error. A 95 % t interval is wider.": mean - error,
        "low: the standard deviation of one seed. The mean of k seeds has s divided by the root of k.": mean
        - (wide.mean - wide.low) * math.sqrt(k),
        "low: that is the 90 % interval.": narrow.low,
    }

    def close(key, want, near, room=0.01 * (wide.high - wide.low)):
        got = mine[key]
        checking.form(got, 0.0, key)
        if abs(got - want) > room:
            for message, value in near.items():
                assert abs(got - value) > room or abs(value - want) <= room, message
            raise AssertionError(f"{key}: you have {got:.4f}; recomputed it is {want:.4f}.")

    close("low", wide.low, near)
    close("high", wide.high, {})
    again = "low90: that is the 95 % interval. Two one-sided tests at 0.05 belong to the 90 % interval."
    close("low90", narrow.low, {again: wide.low})
    close("high90", narrow.high, {})
    seen = "power: that is for the difference that you found. It says no more than the p-value does; take the margin."
    one = "power: a two-sided test is asked for. One side looks stronger."
    near = {
        seen: intervals.power_of_t(mean, error, k - 1),
        one: intervals.power_of_t(margin, error, k - 1, sides=1),
        "power: the error of the mean of k seeds is s divided by the root of k.": intervals.power_of_t(
            margin, s, k - 1
        ),
    }
    close("power", intervals.power_of_t(margin, error, k - 1), near, 1e-3)
    if -margin < narrow.low and narrow.high < margin:
        verdict = "equivalent"
    else:
        verdict = "better" if wide.low > 0 else "worse" if wide.high < 0 else "undecided"
    shown = f"95 % [{wide.low:.3f}, {wide.high:.3f}], 90 % [{narrow.low:.3f}, {narrow.high:.3f}], margin {margin:g}"
    assert (mine["verdict"], verdict) != ("equivalent", "undecided"), (
        f"verdict: that 0 lies in the interval does not make the two equivalent. {shown}: the difference may still matter. "
        "undecided."
    )
    assert mine["verdict"] == verdict, f"verdict: {shown} says {verdict}."
    print(f"03.7 passed: {verdict}. Now a person reads the study with the rubric.")


check_03_7(study)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Write one function that gives the list of hits for (classifier, setting, seed). Tuning, test and pairs are loops over it.
# It must draw its rows from the seed alone, so that both classifiers get the same ones.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Run two seeds first and look at the spread of the difference. `intervals.power_of_t` then says how many seeds your margin
# needs. Choose the number before you look at the mean.
#
# </details>
#
# {{solution}}
