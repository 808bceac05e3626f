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
# that you do not see here, so test more than the checker does. Nothing on this page needs a model, a data
# set or a network.
#
# {{overview}}

# %%
import math
import random

import numpy as np
import torch
from torch.nn import functional as F

from instructlab_utils import checking

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
