# ---
# jupyter:
#   instructlab:
#     id: "06"
#     title: The causal language model
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 06: the causal language model
#
# Each exercise is a box, a cell for your answer, and a checker in the cell below it. Replace the line that
# raises `NotImplementedError`, then run both cells. A checker that says no also says what probably went
# wrong.
#
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases
# that you do not see here, so test more than the checker does. Nothing on this page needs a file or a network.
# Exercise 06.6 trains a small language model, and exercise 06.7 is a project: each of them is worth an evening.
#
# {{overview}}

# %%
import itertools
import math
import random

import torch
from torch import nn
from torch.nn import functional as F

from instructlab_utils import checking, intervals

# %% [markdown]
# ## 06.1 The shift, once
#
# > ●●○○○ · 10 minutes · practice
#
# A causal model returns logits of shape $(B, T, V)$. The labels, of shape $(B, T)$, stand at their own
# tokens; $-100$ marks a token that does not count. Return the mean cross-entropy over all labels that count
# *and* are predicted by something:
#
# $$ \mathcal L = \frac{1}{n} \sum_{b} \sum_{t \ge 2,\; y_{b,t} \ne -100} \ell\big(z_{b,t-1},\, y_{b,t}\big). $$
#
# A row may have no label at all. If no row has one left, raise a `ValueError`: the mean of nothing is a nan. The
# gradient must reach the logits, which may be thousands apart.


# %% nbgrader={"grade_id": "answer_06_1", "solution": true}
def next_token_loss(logits, labels):
    """Mean loss of the next tokens, a scalar tensor; logits (B, T, V), labels (B, T) int64 with -100."""
    ### BEGIN SOLUTION
    predicted, targets = logits[:, :-1], labels[:, 1:]
    counts = targets != -100
    if not counts.any():
        raise ValueError("no label counts: nothing to learn from")
    return F.cross_entropy(predicted[counts], targets[counts])
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_06_1", "locked": true}
def by_positions(logits, labels):
    """The loss of every label that counts, one after the other, and their mean."""
    B, T = labels.shape
    places = [(b, t) for b in range(B) for t in range(1, T) if labels[b, t] != -100]
    return torch.stack(
        [logits[b, t - 1].logsumexp(0) - logits[b, t - 1, labels[b, t]] for b, t in places]
    ).mean()


def check_06_1(next_token_loss):
    call = checking.calls(next_token_loss)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 6, 9, generator=generator, dtype=torch.float64)
    labels = torch.randint(9, (2, 6), generator=generator)
    labels[0, 0], labels[1, :4] = -100, -100  # row 0 has five labels, row 1 two

    def losses(z, y):
        return F.cross_entropy(z.flatten(0, 1), y.flatten(), reduction="none", ignore_index=-100)

    def seam(z, y):
        """Flattened, then shifted."""
        flat = losses(z.flatten(0, 1)[None, :-1], y.flatten()[None, 1:])
        return flat.sum() / (y.flatten()[1:] != -100).sum()

    right = losses(logits[:, :-1], labels[:, 1:])
    wrong = {
        "No shift: you ask for the token that the model has just read. A model passes that test by copying.": losses(
            logits, labels
        ).sum()
        / 7,
        "You shifted the wrong way: the logits at t + 1 are compared with the token at t, which is the past.": losses(
            logits[:, 1:], labels[:, :-1]
        ).sum()
        / (labels[:, :-1] != -100).sum(),
        "You divide by the number of positions. A position with -100 has no loss, so it must not count.": right.sum()
        / right.numel(),
        "You averaged each row first. Then a token of the short row counts more than one of the long row.": (
            right.view(2, 5).sum(1) / torch.tensor([5, 2])
        ).mean(),
        "The labels -100 count as token 0. They are no labels at all: ignore them.": F.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].clamp(min=0).flatten()
        ),
        "You shifted twice: the logits at t are compared with the token at t + 2.": F.cross_entropy(
            logits[:, :-2].flatten(0, 1), labels[:, 2:].flatten()
        ),
        "This is in bits. Nats use the natural logarithm.": right.sum() / 7 / math.log(2),
        "This is the sum. Divide by the number of labels that count.": right.sum(),
        "The sign is wrong: a loss is minus the logarithm of a probability.": -right.sum() / 7,
    }
    got = call(logits, labels)
    checking.equal(got, right.sum() / 7, "the loss", wrong)
    with_seam = labels.clone()
    with_seam[1, 0] = 4
    wrong = {
        "You flattened before you shifted, so the last position of one row predicts the first of the next.": seam(
            logits, with_seam
        )
    }
    says = "A label at the first position changed the loss. Nothing predicts it, so it must not count either."
    checking.equal(call(logits, with_seam), got, "the loss", wrong, says=says)
    empty = labels.clone()
    empty[1] = -100
    says = "One row has no label, the other has five: the mean runs over the five."
    with checking.means(ValueError, f"{says} Raise ValueError only if no label is left in the whole batch."):
        call.agrees(by_positions, (logits, empty), name="the loss", says=says)
    call.gradients(by_positions, logits, labels, of=[0])
    says = (
        "Logits thousands apart: the logarithm of a softmax is -inf there. Use log_softmax or cross_entropy."
    )
    call.agrees(by_positions, (2000 * logits, labels), name="the loss", says=says)
    for shape in ((3, 4, 2), (1, 2, 5), (5, 7, 3)):
        z, y = (
            torch.randn(shape, generator=generator),
            torch.randint(shape[-1], shape[:2], generator=generator),
        )
        y[0, ::3] = -100
        call.agrees(by_positions, (z, y), name="the loss", says=f"Logits of shape {shape}, float32.")
    empty = torch.full_like(labels, -100)
    empty[:, 0] = 3
    call.refuses(ValueError, logits, empty, says="Only the first position has a label: the mean of nothing.")
    print(f"06.1 passed. {got:.3f} nats per label; a uniform guess would cost ln 9 = {math.log(9):.3f}.")


check_06_1(next_token_loss)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `logits[:, :-1]` belongs to `labels[:, 1:]`. Cut along the second axis, while rows are still rows.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Select with a boolean mask: `predicted[counts]` has the shape $(n, V)$, and its mean loss divides by $n$.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 06.2 The model that never stops
#
# > ●●●○○ · 15 minutes · graded · bug hunt
#
# This function makes a batch from prompts and completions, both lists of token ids. It was copied from a
# popular answer. Models trained with it talk for ever. Here the id of padding *is* the id of the end token,
# and a prompt may contain that id too, since chat formats end each turn with it.
#
# Find all the mistakes and write `make_batch`. Each row is prompt, completion, end, then padding. The mask
# is 1 on everything but padding. Labels count the completion and its end, and nothing else. All three are int64. A
# prompt, or a completion, may be empty, and both may hold the id of the end.


# %%
def broken_make_batch(pairs, pad_id):
    """The copied version: three tensors (B, T) by name."""
    rows = [prompt + completion + [pad_id] for prompt, completion in pairs]
    longest = max(map(len, rows))
    input_ids = torch.tensor([row + [pad_id] * (longest - len(row)) for row in rows])
    attention_mask = (input_ids != pad_id).long()
    labels = input_ids.clone()
    labels[input_ids == pad_id] = -100
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


# %% nbgrader={"grade_id": "answer_06_2", "solution": true}
def make_batch(pairs, pad_id):
    """Repair broken_make_batch: input_ids, attention_mask and labels, int64 tensors of shape (B, longest)."""
    ### BEGIN SOLUTION
    rows = [prompt + completion + [pad_id] for prompt, completion in pairs]
    longest = max(map(len, rows))

    def padded(lists, value):
        return torch.tensor([row + [value] * (longest - len(row)) for row in lists])

    return {
        "input_ids": padded(rows, pad_id),
        "attention_mask": padded([[1] * len(row) for row in rows], 0),
        "labels": padded([[-100] * len(p) + c + [pad_id] for p, c in pairs], -100),
    }
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_06_2", "grade": true, "points": 3, "locked": true}
def check_06_2(make_batch):
    call = checking.calls(make_batch)
    want = {
        "input_ids": torch.tensor([[5, 6, 7, 8, 9, 2], [5, 9, 2, 2, 2, 2]]),
        "attention_mask": torch.tensor([[1] * 6, [1, 1, 1, 0, 0, 0]]),
        "labels": torch.tensor([[-100, -100, -100, 8, 9, 2], [-100, 9, 2, -100, -100, -100]]),
    }
    batch = call([([5, 6, 7], [8, 9]), ([5], [9])], pad_id=2)
    longer = isinstance(batch, dict) and getattr(batch.get("input_ids"), "shape", None) == (2, 7)
    assert not longer, (
        "The rows are one too long: one end token a row, and padding up to the longest row only."
    )
    checking.form(batch, want, "batch", dtype=torch.int64)
    ids, labels = batch["input_ids"].tolist(), batch["labels"].tolist()
    assert ids == want["input_ids"].tolist(), f"input_ids: prompt, completion, end, padding: {ids}."
    assert labels[0] != labels[1] or set(labels[0]) == {-100}, (
        "Both rows have the same labels: [row] * B is one list, B times. Make a list for each row."
    )
    assert labels[0][2:5] != [8, 9, 2], "Labels stand at their own tokens. The model shifts them itself."
    assert labels[1][3:] != [2, 2, 2], (
        "Padding counts in the loss. The model would learn to say the end token after the end token."
    )
    assert labels[0][5] != -100 or labels[0][0] == -100, (
        "This still behaves like the copied version: no end is learned, and the prompt counts as well."
    )
    assert labels[0][5] != -100 or labels[1][2] != -100, (
        "No label is an end token. You still mask by the *id*, and the end has the id of padding. Count lengths."
    )
    assert labels[1][2] == 2, (
        "The longest row has its end, the padded row has not: there the end stands before the padding."
    )
    assert labels[0][:3] == [-100] * 3, "The prompt counts in the loss. Somebody else writes the prompt."
    checking.equal(batch["labels"], want["labels"], "labels")
    wrong = {
        "attention_mask hides the end token: it is still made from ids. Make it from lengths.": torch.tensor(
            [[1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0]]
        ),
        "attention_mask shows the padding, too.": torch.ones(2, 6),
        "attention_mask is turned round: 1 is a token that is seen.": 1 - want["attention_mask"],
        "attention_mask hides the prompt. The model must read it.": (want["labels"] != -100).long(),
    }
    checking.equal(batch["attention_mask"], want["attention_mask"], "attention_mask", wrong)
    print("06.2 passed the visible cases. The end is a token like any other: it must be seen, and learned.")


check_06_2(make_batch)
### BEGIN HIDDEN TESTS


def cell_by_cell(pairs, pad_id):
    """The three tables, a cell at a time."""
    T = max(len(p) + len(c) for p, c in pairs) + 1
    batch = {
        name: torch.zeros(len(pairs), T, dtype=torch.int64)
        for name in ("input_ids", "attention_mask", "labels")
    }
    for b, (p, c) in enumerate(pairs):
        for t in range(T):
            token = p[t] if t < len(p) else c[t - len(p)] if t < len(p) + len(c) else pad_id
            real = t <= len(p) + len(c)
            batch["input_ids"][b, t], batch["attention_mask"][b, t] = token, int(real)
            batch["labels"][b, t] = token if real and t >= len(p) else -100
    return batch


def hidden_06_2(make_batch):
    call = checking.calls(make_batch)
    pairs = [([5, 2, 6, 2], [7]), ([5, 2], [8, 9, 7, 7, 7])]  # chat turns end with id 2
    batch = call(pairs, pad_id=2)
    mask, labels = batch["attention_mask"].tolist(), batch["labels"].tolist()
    assert all(0 not in row[: len(p) + len(c) + 1] for row, (p, c) in zip(mask, pairs, strict=True)), (
        "A prompt with an end token inside: the mask hides a real token. Only padding may be hidden."
    )
    assert [row.count(2) for row in labels] == [1, 1], (
        "A prompt with an end token inside: each row must have one end label, behind its completion."
    )
    call.agrees(cell_by_cell, (pairs, 2), name="batch", says="A prompt with an end token inside.")
    for pairs, pad_id, says in (
        (
            [([5], [8, 2, 9])],
            2,
            "A completion with an end token inside: it is a token to learn, like the others.",
        ),
        (
            [([5], [2, 2]), ([1, 1], [9])],
            2,
            "A completion that ends with the id of the end: the end of the row still comes behind it.",
        ),
        (
            [([1, 1], []), ([5], [9])],
            2,
            "An empty completion: its label is the end alone, and the prompt has none.",
        ),
        ([([], [4, 3]), ([0, 9, 8], [7])], 0, "An empty prompt, and the id 0 for the end."),
        ([([3, 4], [7, 7, 1]), ([7, 1], [2]), ([9], [9, 9])], 7, "Another end: use the argument pad_id."),
    ):
        call.agrees(cell_by_cell, (pairs, pad_id), name="batch", dtype=torch.int64, says=says)


hidden_06_2(make_batch)
### END HIDDEN TESTS

# %% [markdown]
# ## 06.3 The nucleus
#
# > ●●●○○ · 25 minutes · practice
#
# Nucleus sampling keeps the *fewest* tokens, most probable first, whose probabilities together reach $p$.
# The token that crosses the line belongs to them. All others get probability zero, and what is left is
# divided by its sum.
#
# Return the probabilities, in the order of the vocabulary and in the dtype of the logits, for a batch of logits. Each
# row has its own nucleus. $p$ lies in $(0, 1]$. Of equally probable tokens any may be the last of the fewest. Logits
# may be thousands apart, and $-\infty$.


# %% nbgrader={"grade_id": "answer_06_3", "solution": true}
def nucleus(logits, p):
    """Probabilities after the nucleus filter; logits (B, V), result (B, V), rows sum to 1."""
    ### BEGIN SOLUTION
    ordered, order = logits.softmax(-1).sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    kept = torch.where(before < p, ordered, torch.zeros_like(ordered))
    result = torch.zeros_like(kept).scatter(-1, order, kept)
    return result / result.sum(-1, keepdim=True)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_06_3", "locked": true}
def by_growing(logits, p):
    """Row by row: tokens are added, the most probable first, until they reach p."""
    rows = []
    for row in logits.double().softmax(-1):
        left, kept = row.clone(), torch.zeros_like(row)
        while kept.sum() < p - 1e-12 and left.max() > 0:
            best = left.argmax()
            kept[best], left[best] = row[best], 0.0
        rows.append(kept / kept.sum())
    return torch.stack(rows).to(logits.dtype)


def check_06_3(nucleus):
    call = checking.calls(nucleus)
    probabilities = torch.tensor(
        [[0.1, 0.4, 0.05, 0.25, 0.2], [0.02, 0.03, 0.9, 0.03, 0.02]], dtype=torch.float64
    )
    logits = probabilities.log() + 3.0  # softmax ignores the constant
    got = call(logits, 0.7)
    checking.form(got, logits, "the probabilities", dtype=torch.float64)
    assert torch.isfinite(got).all(), "nan or inf: did a row lose all its tokens? The best one always stays."
    kept = [row.nonzero().flatten().tolist() for row in got]
    assert (
        not torch.allclose(got.sum(-1), (probabilities * (got > 0)).sum(-1)) or kept == [[0, 1, 2, 3, 4]] * 2
    ), "What is left does not sum to one. Divide it by its sum."
    at_the_wrong_places = (
        "The right number of tokens, at the wrong places: the mask belongs to the *sorted* row. Sort it back."
    )
    wrong = {
        "The first row keeps 0.4 and 0.25: together 0.65, which does not reach 0.7. The token that crosses counts.": [
            [1, 3],
            [2],
        ],
        at_the_wrong_places: [[0, 1, 2], [0]],
        "You compare each single probability with p. It is their *sum* that must reach p.": [[], [2]],
        "Only the most probable token is left in each row. Compare the *sum* of the tokens before with p.": [
            [1],
            [2],
        ],
        "You add up in the order of the vocabulary. The most probable come first: sort.": [
            [0, 1, 2, 3],
            [0, 1, 2],
        ],
        "You keep the same number of tokens in each row. How many there are follows from their sum.": [
            [1, 3, 4],
            [1, 2, 3],
        ],
        "You keep the least probable tokens: sort from the largest down.": [[0, 2, 3, 4], [0, 1, 2, 3, 4]],
    }
    assert kept[0] != [0, 3, 4], (
        "The mask came back by gather(order), at the wrong places: order[i] is the token of rank i, not the rank of "
        "token i. scatter puts it back."
    )
    assert kept[1] != [0], at_the_wrong_places
    assert kept != [[1, 3, 4], []], (
        "You compare each single probability with p. It is their *sum* that must reach p."
    )
    assert kept[0] != [1, 3, 4] or kept[1] != [0, 1, 2, 3, 4], (
        "The second row keeps everything. Each row has its own nucleus; you counted for all rows together."
    )
    checking.equal(kept, [[1, 3, 4], [2]], "the tokens that are kept", wrong)
    want = probabilities * torch.tensor([[0, 1, 0, 1, 1], [0, 0, 1, 0, 0]])
    wrong = {
        "You return which tokens are kept, as 0 and 1. Return their probabilities.": (want > 0).double(),
        "You took a softmax of the probabilities that are left. Divide them by their sum.": torch.where(
            want > 0, want, -torch.inf
        ).softmax(-1),
    }
    checking.equal(
        got, want / want.sum(-1, keepdim=True), "the probabilities", wrong, says="The right tokens."
    )
    halves = torch.tensor([[0.5, 0.25, 0.125, 0.125]], dtype=torch.float64).log()
    assert (call(halves, 0.5) > 0).sum() == 1, (
        "One half is reached by the first token alone, and you kept another one. The *fewest* tokens that reach p."
    )
    got = call(halves, 0.8)
    assert (got > 0).sum() == 3, (
        f"0.5, 0.25 and one 0.125 reach 0.8, and you kept {int((got > 0).sum())} tokens. Two tokens tie at the border: "
        "count places in the sorted row; a threshold on the probability takes both or none."
    )
    checking.equal(
        got.sort(-1).values,
        by_growing(halves, 0.8).sort(-1).values,
        "the sorted probabilities",
        says="A tie.",
    )
    checking.equal(call(logits, 1.0), probabilities, "the probabilities", says="p = 1 keeps everything.")
    assert (call(logits, 1e-6) > 0).sum(-1).tolist() == [1, 1], "However small p is, one token stays."
    got, single = call(logits.float(), 0.7), want.float() / want.float().sum(-1, keepdim=True)
    checking.equal(got, single, "the probabilities", dtype=torch.float32, says="Logits in float32.")
    apart = torch.tensor([[0.0, -200.0, 1.0], [2000.0, 1e4, -1e4], [-torch.inf, 0.5, 0.0]])
    says = "Logits far apart, or minus infinity."
    for p in (0.3, 0.9):
        assert torch.isfinite(call(apart, p)).all(), (
            "nan: exp(10000) is inf, and inf / inf is nan. Use softmax, or take each row's largest logit off before exp."
        )
        call.agrees(by_growing, (apart, p), name="the probabilities", dtype=torch.float32, says=says)
    generator = torch.Generator().manual_seed(3)
    for shape, p in (((3, 7), 0.5), ((1, 4), 0.95), ((6, 2), 0.6), ((4, 30), 0.8)):
        call.agrees(
            by_growing,
            (2 * torch.randn(shape, generator=generator), p),
            name="the probabilities",
            says=f"p = {p}.",
        )
    print("06.3 passed. Where the model is sure, one token is left; where it is not, three.")


check_06_3(nucleus)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# A token stays if the probability of all tokens *before* it, in sorted order, is still below $p$. That is
# `cumsum - itself`.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `sort` returns the order as well. `zeros.scatter(-1, order, sorted_values)` puts sorted values back to
# their places.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 06.4 Numbers that you know before you run
#
# > ●●○○○ · 8 minutes · practice · prediction
#
# Pencil and paper. Put these five numbers into the dict:
#
# - `loss`: the loss per token, in nats, of an untrained model with $V = 32{,}000$ tokens (two decimals),
# - `perplexity`: its perplexity,
# - `steps`: the optimiser steps of a program with 100 training sentences, batches of 8, and 3 epochs, that
#   calls `train_epoch` a second time inside the `print` of every epoch,
# - `logged`: the loss that a program logs if a sentence has 10 real targets at $3.0$ nats each, and its 30
#   padded positions, predicted at $0.2$ nats each, count as well,
# - `positions`: how many positions a model computes to write 5 tokens after a prompt of 10, with a KV cache.


# %% nbgrader={"grade_id": "answer_06_4", "solution": true}
def prediction():
    """Return a dict of five numbers: loss, perplexity, steps, logged, positions."""
    ### BEGIN SOLUTION
    return {"loss": 10.37, "perplexity": 32000, "steps": 78, "logged": 0.9, "positions": 14}
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_06_4", "locked": true}
def check_06_4(prediction):
    mine = checking.predicted(prediction, ("loss", "perplexity", "steps", "logged", "positions"))

    def number(key, want, wrong, says, tol=5e-3):
        checking.equal(mine[key], want, key, wrong, tol=tol, says=says)

    V, batches = 32_000, math.ceil(100 / 8)
    wrong = {
        "loss: these are bits. Nats use the natural logarithm.": math.log2(V),
        "loss: this is log10. Nats use the natural logarithm.": math.log10(V),
        "loss: ln 2 is a coin. This coin has V sides.": math.log(2),
    }
    number("loss", math.log(V), wrong, "loss: all tokens are equally likely, so each costs ln V.")
    wrong = {
        "perplexity: this is the loss itself. Take its exponential.": math.log(V),
        "perplexity: this is a probability. Its inverse is asked for.": 1 / V,
    }
    number("perplexity", V, wrong, "perplexity: exp(ln V), so many equally likely choices.", 0.02)
    wrong = {
        "steps: the call inside the print trains, too.": 3 * batches,
        "steps: the last batch has only four sentences, and is a step.": 3 * 2 * (100 // 8),
        "steps: three epochs, not one.": 2 * batches,
        "steps: the optimiser steps once a batch, not once a sentence.": 3 * 2 * 100,
    }
    number("steps", 6 * batches, wrong, f"steps: 3 epochs, each twice, of {batches} batches.", 1e-6)
    wrong = {
        "logged: that is the true loss. The padded positions pull it down.": 3.0,
        "logged: this is the mean of the two losses. Weigh them by their positions.": 1.6,
        "logged: this is what the padding costs alone.": 0.2,
        "logged: you divide by the 10 real targets. The program divides by all 40 positions.": 3.6,
    }
    number("logged", (10 * 3.0 + 30 * 0.2) / 40, wrong, "logged: 10 positions at 3.0 and 30 at 0.2.")
    wrong = {
        "positions: this is the count without a cache.": sum(range(10, 15)),
        "positions: the last token is written, and never fed back.": 15,
        "positions: the prompt must be read once.": 5,
    }
    number(
        "positions", 14, wrong, "positions: the prompt gives the first token, then one position each.", 1e-6
    )
    print("06.4 passed. Five numbers that need no computer, and that find most mistakes of a first run.")


check_06_4(prediction)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Untrained means: all $V$ tokens equally likely. And 100 sentences in batches of 8 leave a small last batch.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The pass over the prompt already yields the first new token. Each further one costs a single position.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 06.5 Which answer is the most probable?
#
# > ●●●○○ · 15 minutes · graded
#
# A model reads prompt and answer, and returns logits of shape $(B, T, V)$; `labels`, of shape $(B, T)$, hold
# the answer's tokens at their own places and $-100$ on prompt and padding. For each row return
#
# - `total`: $\log p(y \mid x)$, the sum of the log-probabilities of the answer's tokens,
# - `per_token`: the same, divided by the number of the answer's tokens.
#
# The first is a probability, the second is what you compare when answers differ in length. A row without any
# answer token is a `ValueError`. The gradient must reach the logits, which may be thousands apart; where
# they predict no token of the answer they may be anything, $-\infty$ too.


# %% nbgrader={"grade_id": "answer_06_5", "solution": true}
def answer_scores(logits, labels):
    """Two tensors of shape (B,), in nats: total and per_token."""
    ### BEGIN SOLUTION
    log_p, targets = logits[:, :-1].log_softmax(-1), labels[:, 1:]
    answer = targets != -100
    if not answer.any(1).all():
        raise ValueError("a row has no answer token")
    picked = log_p.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    total = picked.masked_fill(~answer, 0.0).sum(1)
    return total, total / answer.sum(1)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_06_5", "grade": true, "points": 3, "locked": true}
def answer_case(seed, spans, T=8, V=6):
    """Random logits; row b has its answer at the positions spans[b]."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(spans), T, V, generator=generator, dtype=torch.float64)
    labels = torch.full((len(spans), T), -100)
    for row, (begin, end) in enumerate(spans):
        labels[row, begin:end] = torch.randint(V, (end - begin,), generator=generator)
    return logits, labels


def by_loops(logits, labels, shift=1):
    """log p of each row's answer, one token after the other."""
    found = []
    for z, y in zip(logits.log_softmax(-1), labels, strict=True):
        found.append(sum(z[t - shift, y[t]] for t in range(shift, len(y)) if y[t] != -100))
    return torch.stack(found)


def check_06_5(answer_scores):
    call = checking.calls(answer_scores)
    logits, labels = answer_case(0, [(3, 8), (4, 6)], T=10)
    want, lengths = by_loops(logits, labels), torch.tensor([5, 2])
    scores = call(logits, labels)
    checking.form(scores, (want, want), "(total, per_token)")
    total, per_token = scores
    wrong = {
        "No shift: the token at t is predicted by the logits at t - 1.": by_loops(logits, labels, shift=0),
        "These are losses. A log-probability is never positive.": -want,
        "These are probabilities. Leave them as logarithms.": want.exp(),
        "total and per_token are turned round.": want / lengths,
        "These are sums of logits. Take log_softmax first: only then they are log-probabilities.": torch.stack(
            [
                logits[b, s - 1 : e - 1].gather(1, labels[b, s:e, None]).sum()
                for b, (s, e) in enumerate([(3, 8), (4, 6)])
            ]
        ),
        "total is in bits. Nats use the natural logarithm.": want / math.log(2),
        "Prompt and padding count, as token 0: -100 was clamped and never masked. Only the answer's tokens count.": by_loops(
            logits, labels.clamp(min=0)
        ),
    }
    checking.equal(total, want, "total", wrong)
    wrong = {
        "per_token: you divide by T, which counts prompt and padding. Divide by the row's answer tokens.": want
        / labels.shape[1],
        "per_token: you divide by T - 1, which counts prompt and padding.": want / (labels.shape[1] - 1),
        "per_token: you divide by the answer tokens of the whole batch. Each row has its own length.": want
        / lengths.sum(),
        "per_token: your lengths are too large by one. Count the answer's tokens, not their border.": want
        / (lengths + 1),
        "per_token: this is a perplexity. Leave the mean as it is.": (-want / lengths).exp(),
        "per_token: you divide by the root of the length. Divide by the length.": want / lengths.sqrt(),
        "per_token: you divide by the number of rows. Each row has its own length.": want / 2,
    }
    checking.equal(per_token, want / lengths, "per_token", wrong)
    call.gradients(lambda z, y: (by_loops(z, y), by_loops(z, y) / lengths), logits, labels, of=[0])
    print("06.5 passed the visible cases. The shorter answer wins by total, which says little about it.")


check_06_5(answer_scores)
### BEGIN HIDDEN TESTS


def hidden_06_5(answer_scores):
    call = checking.calls(answer_scores)
    logits, labels = answer_case(2, [(2, 4), (3, 3)])
    says = "A row without an answer went through. Its mean is 0/0."
    call.refuses(ValueError, logits, labels, says=says)
    for seed, spans, T, V, says in (
        (3, [(2, 4), (3, 9), (1, 2), (5, 9)], 9, 3, "Other sizes."),
        (4, [(1, 2)], 2, 11, "One row of two positions."),
    ):
        logits, labels = answer_case(seed, spans, T, V)
        lengths = torch.tensor([end - begin for begin, end in spans])
        for scale in (1.0, 2000.0):
            want = by_loops(scale * logits, labels)
            if scale > 1:
                says = "Logits thousands apart: the logarithm of a softmax is -inf there. Use log_softmax."
            checking.equal(
                call(scale * logits, labels), (want, want / lengths), "(total, per_token)", says=says
            )
    logits, labels = answer_case(1, [(1, 8), (7, 8), (2, 5)])
    logits[0, 7], logits[2, 6] = -math.inf, -math.inf  # nothing is predicted from these positions
    logits[1, :5, 2] = -math.inf  # a token that the filter took away, where nothing counts
    total, per_token = call(logits, labels)
    assert not total.isnan().any(), (
        "nan: a position that does not count has infinite logits. Multiplying by a mask of zeros does not remove it."
    )
    want = by_loops(logits, labels)
    checking.equal(total, want, "total", says="The answers stand at other places.")
    checking.equal(per_token, want / torch.tensor([7, 1, 3]), "per_token", says="Other lengths.")


hidden_06_5(answer_scores)
### END HIDDEN TESTS

# %% [markdown]
# ## 06.6 Down to the entropy
#
# > ●●●●○ · 55 minutes · graded
#
# A small grammar makes texts: an opening word; two or more fillers, each drawn by the one before it; the closing word that
# belongs to the opening one; the *first* filler once more; the end. Who knows the grammar still cannot say what comes
# next: the best possible loss on fresh texts is the grammar's *entropy*. Train a causal model from scratch until it pays
# at most $0.07$ nats a token more than that, and say what it will pay **before** the checker measures it.
#
# `train(texts, V, seed)` returns a pair `(net, loss)`:
#
# - `texts` are $2000$ lists of word ids from $0$ to $V - 1$. Each has $6$ to `LONGEST` ids, ends with `END`, which is
#   $0$, and has no other $0$. Padding has no id of its own: short texts are filled up with `END`.
# - `net(ids)`, any function or module, takes an int64 tensor $(B, T)$ of such rows, $T \le$ `LONGEST`, and returns finite
#   logits $(B, T, V)$. Row $t$ speaks of token $t + 1$ and may read the tokens $0 \dots t$ only. What it says of a text does
#   not depend on other rows, nor on the padding, and is the same in every call. It is used as you return it.
# - `loss` is your own estimate of the net's loss on fresh texts: the mean over all tokens but the first of each text, the
#   end once, padding never. It may lie at most $0.08$ nats from what the checker finds on $600$ texts of the same grammar.
# - The same texts and the same `seed` give the same net. You have $30$ seconds of processor time; the solution needs
#   one or two.
#
# The checker makes its grammar with a seed; the hidden cases use others, with other words and another $V$. Grammars differ by
# several hundredths, so try a few, and aim lower than the bound. Below are the
# grammar, so that you can make texts to try, and the lesson's block. The cell for your answer has stubs for two
# helpers: use them or throw them away. (A model that sees the words of the future can get below the entropy. That is no
# success.)

# %%
END, LONGEST = 0, 16


class Grammar:
    """One grammar of 20 words or so, drawn from a seed. ``text`` makes a text, ``log_p`` knows its probabilities."""

    def __init__(self, seed):
        draw = random.Random(seed)
        pairs, fillers = draw.randint(4, 6), draw.randint(6, 9)
        self.V = 1 + 2 * pairs + fillers
        words = draw.sample(range(1, self.V), self.V - 1)
        self.opening, self.closing = words[:pairs], words[pairs : 2 * pairs]  # the i-th closes the i-th
        self.fillers = words[2 * pairs :]
        self.stop = draw.uniform(0.15, 0.25)  # the probability that the fillers end, from the second on
        self.first = self._shares(draw)
        self.next = {word: self._shares(draw) for word in self.fillers}

    def _shares(self, draw):
        raw = [math.exp(1.3 * draw.gauss(0, 1)) for _ in self.fillers]
        return {word: r / sum(raw) for word, r in zip(self.fillers, raw, strict=True)}

    def text(self, draw):
        """A list of ids; ``draw`` is a random.Random."""
        pair, fillers = draw.randrange(len(self.opening)), []
        while len(fillers) < 2 or (len(fillers) < LONGEST - 4 and draw.random() > self.stop):
            shares = self.next[fillers[-1]] if fillers else self.first
            fillers += draw.choices(list(shares), list(shares.values()))
        return [self.opening[pair], *fillers, self.closing[pair], fillers[0], END]

    def log_p(self, text):
        """ln p of each token but the first, given all before it."""
        fillers = text[1:-3]
        found = [math.log(self.first[fillers[0]])]
        for i, (old, new) in enumerate(itertools.pairwise(fillers)):
            found.append(math.log(self.next[old][new]) + (math.log(1 - self.stop) if i else 0.0))
        return [*found, math.log(self.stop) if len(fillers) < LONGEST - 4 else 0.0, 0.0, 0.0]


class Block(nn.Module):
    """The lesson's block: x (B, T, d), and seen (T, T), true where query t may read key s."""

    def __init__(self, d, heads):
        super().__init__()
        self.heads, self.norm1, self.norm2 = heads, nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x, seen):
        parts = self.qkv(self.norm1(x)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        x = x + self.out(o.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


# %% nbgrader={"grade_id": "answer_06_6", "solution": true}
class Net(nn.Module):
    """Logits (B, T, V) for ids (B, T). A helper: not checked on its own."""

    def __init__(self, V):
        super().__init__()
        ### BEGIN SOLUTION
        d = 24
        self.words, self.places = nn.Embedding(V, d), nn.Embedding(LONGEST, d)
        for table in (self.words, self.places):
            nn.init.normal_(table.weight, std=0.4)
        self.block, self.norm, self.head = Block(d, 2), nn.LayerNorm(d), nn.Linear(d, V)
        ### END SOLUTION

    def forward(self, ids):
        ### BEGIN SOLUTION
        T = ids.shape[1]
        seen = torch.ones(T, T, dtype=torch.bool).tril()
        x = self.words(ids) + self.places(torch.arange(T))
        return self.head(self.norm(self.block(x, seen)))
        ### END SOLUTION


def batch(texts):
    """ids (B, T) and labels (B, T), the label of place t being the token that it predicts. A helper, too."""
    ### BEGIN SOLUTION
    T = max(map(len, texts))
    ids, labels = torch.full((len(texts), T), END), torch.full((len(texts), T), -100)
    for i, text in enumerate(texts):
        ids[i, : len(text)] = torch.tensor(text)
        labels[i, : len(text) - 1] = torch.tensor(text[1:])  # shifted here, and nowhere else
    return ids, labels
    ### END SOLUTION


def train(texts, V, seed):
    """Return (net, loss): logits for ids, and what you expect it to pay a token on fresh texts."""
    ### BEGIN SOLUTION
    torch.manual_seed(seed)
    net, held_out, own = Net(V), batch(texts[:400]), batch(texts[400:])
    adam, steps = torch.optim.AdamW(net.parameters(), weight_decay=0.1, fused=True), 200
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = 2e-2 * min(1.0, (step + 1) / 20) * (1 - step / steps)
        rows = torch.randint(len(own[0]), (64,))
        ids, labels = (part[rows] for part in own)
        adam.zero_grad()
        F.cross_entropy(net(ids).flatten(0, 1), labels.flatten(), ignore_index=-100).backward()
        adam.step()
    with torch.no_grad():
        ids, labels = held_out
        return net, F.cross_entropy(net(ids).flatten(0, 1), labels.flatten(), ignore_index=-100).item()
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_06_6", "grade": true, "points": 5, "locked": true}
def said_06_6(net, ids, V):
    """The net's logits, with their form checked."""
    with torch.no_grad():
        z = checking.calls(net, slow="Fresh texts are read in one call.")(ids)
    checking.form(z, torch.zeros(*ids.shape, V), "the net's logits")
    assert torch.isfinite(z).all(), "The net's logits are not finite."
    return z.double()


def measured_06_6(net, grammar, texts):
    """Loss and floor of each token but the first, (N, T - 1), NaN where there is none; and the logits."""
    ids = torch.full((len(texts), LONGEST), END)
    floor = torch.full((len(texts), LONGEST - 1), math.nan, dtype=torch.float64)
    for i, text in enumerate(texts):
        ids[i, : len(text)] = torch.tensor(text)
        floor[i, : len(text) - 1] = -torch.tensor(grammar.log_p(text), dtype=torch.float64)
    z = said_06_6(net, ids, grammar.V)
    paid = -z[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    return ids, z, paid, floor


def honest_06_6(net, ids, z, lengths, found, entropy):
    """No look at the future, at other rows, at padding; no dropout; no copy of the input."""
    again = said_06_6(net, ids, z.shape[-1])
    assert torch.allclose(z, again, atol=1e-3), (
        "Two calls with the same rows differ. Is dropout still on? Call eval()."
    )
    other = ids.clone()
    other[:, 3:] = ids[:, 3:].flip(0)
    moved = (said_06_6(net, other, z.shape[-1]) - z)[:, :3].abs().max().item()
    below = f" With the answer in sight it pays {found:.2f} nats; no honest model pays less than the entropy, {entropy:.2f}."
    assert moved < 1e-3, (
        "What the net says at place 2 changes with the words after it: it looks ahead. Where is the causal mask?"
        + below * (found < entropy)
    )
    for i in (0, 1, 2):
        alone = said_06_6(net, ids[i : i + 1, : lengths[i]], z.shape[-1])[0]
        assert torch.allclose(alone, z[i, : lengths[i]], atol=1e-3), (
            "A text alone, without padding, gets other logits than in its batch. Rows must not mix, and padding stands "
            "on the right, where a causal model never looks."
        )
    real = torch.arange(LONGEST)[None] < torch.tensor(lengths)[:, None] - 1
    copied = (z.argmax(-1) == ids)[real].double().mean().item()
    assert copied < 0.5, (
        f"At {copied:.0%} of the places the net says the word that stands there: no shift. Place t predicts token t + 1."
    )


def blame_06_6(grammar, fresh, z, paid, lengths):
    """Which of the words that can be known does the net not know?"""
    rows, ends = torch.arange(len(fresh)), torch.tensor(lengths)
    end, echo = (paid[rows, ends - back].mean().item() for back in (2, 3))
    closing = z[rows, ends - 4][:, grammar.closing].log_softmax(-1)
    which = torch.tensor([grammar.closing.index(text[-3]) for text in fresh])
    far = -closing[rows, which].mean().item()
    assert far < 0.5, (
        f"The closing word belongs to the opening one, and the net hardly knows which: {far:.2f} nats, by luck "
        f"{math.log(len(grammar.closing)):.2f}. How far back can it read?"
    )
    assert end < 1.0, (
        f"The end costs {end:.1f} nats, and it is certain: nothing taught it. END has the id of padding; labels that are "
        "masked by *id* lose it. Count lengths."
    )
    assert echo < 0.4, (
        f"The word before the end is the first filler again. The net pays {echo:.2f} nats for it: it sees which words came, "
        "and not where they stood. Does anything tell it a word's place?"
    )


def judge_06_6(train, seed, count=2000):
    """The loss above the entropy, or an AssertionError that says what is probably missing."""
    grammar, draw = Grammar(seed), random.Random(seed + 1000)
    texts, fresh = ([grammar.text(draw) for _ in range(n)] for n in (count, 600))
    call = checking.calls(train, limit=30.0, slow="Thirty seconds: take fewer updates, or a smaller net.")
    got = call(texts, grammar.V, seed)
    assert isinstance(got, list | tuple) and len(got) == 2, "Return the net and your estimate of its loss."
    net, told = got
    assert callable(net), f"The net cannot be called: {checking.shown(net)}."
    checking.form(told, 0.0, "the estimated loss")
    ids, z, paid, floor = measured_06_6(net, grammar, fresh)
    entropy, real = floor.nanmean().item(), ~floor.isnan()
    found, lengths = paid[real].mean().item(), list(map(len, fresh))
    honest_06_6(net, ids, z, lengths, found, entropy)
    if found - entropy > 0.07:
        blame_06_6(grammar, fresh, z, paid, lengths)
        *_, again, own = measured_06_6(net, grammar, texts[:600])
        heart = (again - own)[~own.isnan()].mean().item()
        assert heart > found - entropy - 0.06, (
            f"{found - entropy:.3f} nats above the entropy on fresh texts, {heart:+.3f} on yours: it has your texts by "
            "heart. Fewer passes, and texts held out that say when to stop."
        )
        raise AssertionError(
            f"{found - entropy:.3f} nats above the entropy, 0.07 are allowed. Yours {heart:+.3f} on your own texts: more "
            "updates, a larger rate that falls to zero, or larger first values of the tables."
        )
    say_06_6(float(told), found, entropy, paid, real)
    return found - entropy, net, texts, grammar


def say_06_6(told, found, entropy, paid, real):
    """Is the learner's own estimate right?"""
    if abs(told - found) <= 0.08:
        return
    known = {
        "padding counts in your estimate. It is easy to predict, and nobody asked for it.": paid.mean().item(),
        "that is in bits. Nats use the natural logarithm.": found / math.log(2),
        "that is the perplexity. Its logarithm is asked for.": math.exp(found),
        "that is the loss of a whole text. Divide by the tokens that count.": (paid * real)
        .sum(1)
        .mean()
        .item(),
    }
    for message, value in known.items():
        assert abs(told - value) > 0.08, (
            f"The net is good. Your estimate, {told:.3f} for {found:.3f}: {message}"
        )
    assert told > entropy - 0.05, (
        f"The net is good. But your estimate, {told:.3f}, lies below the entropy, {entropy:.3f}: nothing can be that good on "
        "fresh texts. On which texts did you measure?"
    )
    raise AssertionError(
        f"The net is good. Your estimate is {told:.3f}, and it pays {found:.3f}. Measure on texts that it was not trained on."
    )


def check_06_6(train):
    over, *_ = judge_06_6(train, 1)
    print(f"06.6 passed the visible cases: {over:.3f} nats a token above the entropy.")


check_06_6(train)
### BEGIN HIDDEN TESTS


def hidden_06_6(train):
    _, net, texts, grammar = judge_06_6(train, 20)
    rows = torch.tensor([text[:6] for text in texts[:50]])
    again = checking.calls(train, limit=30.0)(texts, grammar.V, 20)[0]
    same = torch.allclose(*(said_06_6(each, rows, grammar.V) for each in (net, again)), atol=1e-3)
    assert same, "The same texts and seed gave two nets: draw all from the seed."


hidden_06_6(train)
### END HIDDEN TESTS

# %% [markdown]
# ## 06.7 Project: a study of decoding that can be decided
#
# > ●●●●● · 150 minutes · practice
#
# Which decoder is better? With a real model nobody can say, since nobody knows which of its texts are right. Here the truth
# is known: `prompt_06_7(number)` is a prompt of a small world. A text is its first word and seven more. Behind each word
# only five words are *right*, and the model gives the others some probability, too. `texts_06_7` draws texts with any
# decoder: a function from logits to the weights by which words are drawn. Each prompt has its own model.
#
# Of the texts that a decoder draws for one prompt, equally many for all decoders, count three shares: `right`, the texts
# whose steps are all right; `distinct`, the different texts; `yield`, the *different right* texts. Greedy decoding
# mostly wins the first, and loses the others.
#
# Choose two decoders `a` and `b` with a setting each (temperature, top-k, nucleus, min-p, your own; none may be called
# `plain`), and one measure. Write the claim first: "the *measure* of *a* is above that of *b* by more than `threshold`".
# Choose each setting on dev prompts, compare on others. Return a dict:
#
# | key | what |
# |:--|:--|
# | `claim` | a sentence that names `a`, `b` and the measure |
# | `a`, `b`, `measure` | two names of decoders; `"right"`, `"distinct"` or `"yield"` |
# | `threshold` | what the difference must pass, $0$ or more |
# | `dev`, `prompts` | numbers of prompts, all different: at least $15$ to tune on, at least $30$ to compare on |
# | `settings` | for `a` and `b` the list of settings tried: equally many, at least three |
# | `tried` | for `a` and `b`: a list over settings of lists over the dev prompts of lists of texts |
# | `chosen` | for `a` and `b` the place of the setting whose measure is highest on dev; of equals the first |
# | `texts` | for `a`, `b` and `"plain"` (temperature $1$, nothing cut): a list over `prompts` of lists of texts |
# | `means` | for the same three a dict of all three measures, each the mean over `prompts` |
# | `difference`, `low`, `high` | measure of `a` minus that of `b`: mean over prompts, its t interval at $0.95$ |
# | `verdict` | `"supported"`, `"refuted"` (the whole interval lies below the threshold) or `"undecided"` |
#
# A text is a list of eight ids, and at least ten are drawn for a prompt. Both decoders answer the same prompts, so the unit
# of the interval is the prompt's *difference*. The checker counts all shares again from your texts. A person reads the rest
# with this rubric ($0$ to $2$ points a row; $8$ of $12$ pass):
#
# | | 0 | 1 | 2 |
# |:--|:--|:--|:--|
# | claim | cannot fail | can fail | names decoders, measure, world, number of texts and direction before the run |
# | threshold | a habit | a reason | compares what the gain is worth with what it costs |
# | grids | two guesses | equally many settings | equally many, and both best settings lie between worse ones |
# | price | one measure only | all three | says who would rather have what `a` loses |
# | ends of the scale | missing | `plain` is read | `plain` and greedy are read, and explain what a cut does |
# | ending | only success is described | three verdicts | also what this world lacks: memory, length, an end token |

# %%
WORDS, LENGTH = 24, 8


def prompt_06_7(number):
    """First word; the model's logits behind each word (WORDS, WORDS); bool of the same shape: is the step right?"""
    g = torch.Generator().manual_seed(1)
    order = torch.rand(WORDS, WORDS, generator=g).argsort(1)
    g = torch.Generator().manual_seed(number + 2)
    shares = torch.tensor([0.4, 0.25, 0.15, 0.12, 0.08]).log().expand(WORDS, 5)
    shares = (shares + 1.5 * torch.rand(1, generator=g) * torch.randn(WORDS, 5, generator=g)).softmax(1)
    truth = torch.zeros(WORDS, WORDS).scatter(1, order[:, :5], shares)
    noise = (2 * torch.randn(WORDS, WORDS, generator=g)).softmax(1)
    first = int(torch.randint(WORDS, (1,), generator=g))
    return first, (0.8 * truth + 0.2 * noise).log(), truth > 0


def texts_06_7(number, decoder, seed, count=20):
    """``count`` texts for one prompt; decoder: logits (count, WORDS) -> weights to draw by, of the same shape."""
    first, logits, _ = prompt_06_7(number)
    g = torch.Generator().manual_seed(1000 * number + seed)
    ids = torch.full((count, 1), first)
    while ids.shape[1] < LENGTH:
        ids = torch.cat([ids, torch.multinomial(decoder(logits[ids[:, -1]]), 1, generator=g)], 1)
    return ids.tolist()


def top_k(k):  # a decoder to start from
    return lambda z: z.masked_fill(z < z.topk(k).values[:, -1:], -torch.inf).softmax(-1)


print(texts_06_7(0, top_k(1), seed=0, count=1), "is greedy;", texts_06_7(0, top_k(5), seed=0, count=2))


# %% nbgrader={"grade_id": "answer_06_7", "solution": true}
def study():
    """Return the dict of the table."""
    ### BEGIN SOLUTION
    a, b, measure, threshold = "min-p", "nucleus", "yield", 0.02
    dev, prompts = list(range(16)), list(range(100, 140))

    def min_p(share):
        def decoder(z):
            p = z.softmax(-1)
            return p * (p >= share * p.amax(-1, keepdim=True))

        return decoder

    def nucleus(share):
        def decoder(z):
            p, order = z.softmax(-1).sort(-1, descending=True)
            kept = p * (p.cumsum(-1) - p < share)
            return torch.zeros_like(kept).scatter(-1, order, kept)

        return decoder

    def shares(number, texts):
        *_, right = prompt_06_7(number)
        good = [text for text in texts if all(right[i, j] for i, j in itertools.pairwise(text))]
        counts = len(good), len({*map(tuple, texts)}), len({*map(tuple, good)})
        return dict(zip(("right", "distinct", "yield"), (n / len(texts) for n in counts), strict=True))

    def mean(numbers, lists, what):
        return sum(shares(n, texts)[what] for n, texts in zip(numbers, lists, strict=True)) / len(numbers)

    make = {a: min_p, b: nucleus}
    settings = {a: [0.1, 0.2, 0.3, 0.5], b: [0.8, 0.7, 0.6, 0.4]}
    tried = {d: [[texts_06_7(n, make[d](s), 1) for n in dev] for s in settings[d]] for d in make}
    scores = {d: [mean(dev, lists, measure) for lists in tried[d]] for d in make}
    chosen = {d: scores[d].index(max(scores[d])) for d in make}
    final = {d: make[d](settings[d][chosen[d]]) for d in make} | {"plain": lambda z: z.softmax(-1)}
    texts = {d: [texts_06_7(n, final[d], 2) for n in prompts] for d in final}
    names = ("right", "distinct", "yield")
    means = {d: {what: mean(prompts, texts[d], what) for what in names} for d in texts}
    gains = [
        shares(n, x)[measure] - shares(n, y)[measure]
        for n, x, y in zip(prompts, texts[a], texts[b], strict=True)
    ]
    found = intervals.t_interval(gains)
    return {
        "claim": "The yield of min-p is above that of nucleus by more than 0.02: twenty texts a prompt, this world, each "
        "setting the best of four on 16 other prompts.",
        "a": a, "b": b, "measure": measure, "threshold": threshold, "dev": dev, "prompts": prompts,
        "settings": settings, "tried": tried, "chosen": chosen, "texts": texts, "means": means,
        "difference": found.mean, "low": found.low, "high": found.high,
        "verdict": "supported" if found.low > threshold else "refuted" if found.high < threshold else "undecided",
    }  # fmt: skip
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_06_7", "locked": true}
MEASURES = ("right", "distinct", "yield")
KEYS = (
    "claim a b measure threshold dev prompts settings tried chosen texts means difference low high verdict"
).split()


def shares_06_7(numbers, lists, name, count):
    """The three measures of each prompt, and for each text whether it is right."""
    assert isinstance(lists, list | tuple) and len(lists) == len(numbers), (
        f"{name}: one list of texts for each of the {len(numbers)} prompts."
    )
    rows, hits = [], []
    for number, texts in zip(numbers, lists, strict=True):
        first, _, right = prompt_06_7(number)
        assert len(texts) == count, (
            f"{name}, prompt {number}: {len(texts)} texts, elsewhere {count}. Who draws more finds more: draw equally many."
        )
        ids = torch.tensor(texts)
        assert ids.shape == (count, LENGTH) and ids.min() >= 0 and ids.max() < WORDS, (
            f"{name}, prompt {number}: {LENGTH} ids a text, from 0 to {WORDS - 1}."
        )
        assert (ids[:, 0] == first).all(), f"{name}, prompt {number}: each text begins with the word {first}."
        good = right[ids[:, :-1], ids[:, 1:]].all(1)
        hits.append(good.double().tolist())
        counts = good.sum().item(), len({*map(tuple, texts)}), len({*map(tuple, ids[good].tolist())})
        rows.append([n / count for n in counts])
    return dict(zip(MEASURES, zip(*rows, strict=True), strict=True)), hits


def check_06_7(study):
    mine = checking.handed_in(study, KEYS, limit=90.0)
    a, b, measure, dev, prompts = (mine[key] for key in ("a", "b", "measure", "dev", "prompts"))
    assert a != b and "plain" not in (a, b), "a, b: two different decoders, and none of them is plain."
    assert measure in MEASURES, f"measure: one of {', '.join(MEASURES)}."
    for name in (a, b, measure):
        assert name in mine["claim"], f"claim: {name!r} does not occur. A claim names what it compares."
    assert len(set(dev)) == len(dev) >= 15, "dev: at least 15 prompts, no two alike."
    assert len(set(prompts)) == len(prompts) >= 30, "prompts: at least 30, no two alike."
    assert not set(dev) & set(prompts), (
        "prompts: some are in dev. A setting looks best on the prompts that it was chosen on."
    )
    pair, three = {a, b}, {a, b, "plain"}
    for key, wanted in {
        "settings": pair,
        "tried": pair,
        "chosen": pair,
        "texts": three,
        "means": three,
    }.items():
        assert isinstance(mine[key], dict) and set(mine[key]) == wanted, (
            f"{key}: a dict with the keys {', '.join(sorted(wanted))}."
        )
    sizes = {d: len(mine["settings"][d]) for d in (a, b)}
    assert min(sizes.values()) >= 3, "settings: at least three for each decoder."
    assert sizes[a] == sizes[b], (
        f"settings: {sizes[a]} for {a} and {sizes[b]} for {b}. Who may try more settings wins by that alone."
    )
    count = len(mine["texts"]["plain"][0])
    assert count >= 10, "texts: at least ten for each prompt."
    found = {d: shares_06_7(prompts, mine["texts"][d], f"texts of {d}", count) for d in three}
    for d in (a, b):
        assert len(mine["tried"][d]) == sizes[d], f"tried: one list for each setting of {d}."
        dev_found = [shares_06_7(dev, lists, f"tried of {d}", count)[0] for lists in mine["tried"][d]]
        scores = [sum(each[measure]) for each in dev_found]
        best, at = max(scores), mine["chosen"][d]
        for other in MEASURES:
            own = [sum(each[other]) for each in dev_found]
            assert at == scores.index(best) or own == scores or own.index(max(own)) != at, (
                f"chosen: setting {at} of {d} is the best by {other!r}. The claim is about {measure!r}: choose by that."
            )
        assert at == scores.index(best), (
            f"chosen: on the dev prompts setting {scores.index(best)} of {d} is the best (the first of equals), not {at}. "
            "Did you choose on the prompts that you compare on?"
        )
    want = {
        d: {what: sum(values) / len(values) for what, values in found[d][0].items()} for d in sorted(three)
    }
    pooled = {d: len({tuple(t) for texts in mine["texts"][d] for t in texts}) for d in three}
    for d in want:
        for what, value in want[d].items():
            wrong = {
                f"means, {d}: different texts are counted for each prompt, then averaged. You pooled the prompts.": pooled[
                    d
                ]
                / count
                / len(prompts),
                f"means, {d}: yield counts different texts that are right. You count wrong ones, too.": want[
                    d
                ]["distinct"],
            }
            name = f"means[{d!r}][{what!r}]"
            checking.equal(mine["means"][d][what], value, name, wrong, tol=1e-6)
    x, y = (torch.tensor(found[d][0][measure], dtype=torch.float64) for d in (a, b))
    right = intervals.t_interval((x - y).tolist())
    flipped = {f"difference: {b} minus {a}. The claim is about {a} minus {b}.": -right.mean}
    checking.equal(mine["difference"], right.mean, "difference", flipped, tol=1e-6)
    single = torch.tensor(found[a][1]) - torch.tensor(found[b][1])
    flat = intervals.t_interval(single.flatten().tolist())
    apart = math.sqrt((x.var() + y.var()).item() / len(x))
    half = (right.high - right.low) / 2
    wrong = {
        "low: the texts of one prompt are no independent cases. One difference a prompt.": flat.low,
        "low: these are two separate intervals. Both decoders answer the same prompts: take the difference of each prompt.": (
            right.mean - half * apart / ((x - y).std().item() / math.sqrt(len(x)))
        ),
        "low: that is one standard error. A 95 % t interval is wider.": right.mean
        - (x - y).std().item() / math.sqrt(len(x)),
    }
    checking.equal(mine["low"], right.low, "low", wrong, tol=max(1e-6, 1e-3 * half))
    checking.equal(mine["high"], right.high, "high", tol=max(1e-6, 1e-3 * half))
    bar = mine["threshold"]
    assert bar >= 0, "threshold: 0 or more."
    verdict = checking.verdict(mine, right.low, right.high)
    print(
        f"06.7 passed: {verdict}, [{right.low:.3f}, {right.high:.3f}]. Now a person reads it with the rubric."
    )
    for d in (a, b, "plain"):
        print(f"{d:12s}", ", ".join(f"{what} {value:.2f}" for what, value in want[d].items()))


check_06_7(study)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Write one function that gives the three shares for a prompt and its texts. All else is a mean of them, or a difference.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Before the claim, look at one decoder on the dev prompts: how do `right`, `distinct` and `yield` move with its setting?
# The best yield lies between the extremes. Two decoders at their best may be closer than you think.
#
# </details>
#
# {{solution}}
