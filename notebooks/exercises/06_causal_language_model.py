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
# that you do not see here, so test more than the checker does. Nothing on this page needs a model, a data
# set or a network.
#
# {{overview}}

# %%
import math

import torch
from torch.nn import functional as F

from instructlab_utils import checking

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
