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
# If no such label is left, raise a `ValueError`: the mean of nothing is a nan.


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
def check_06_1(next_token_loss):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 6, 9, generator=generator, dtype=torch.float64)
    labels = torch.randint(9, (2, 6), generator=generator)
    labels[0, 0], labels[1, :4] = -100, -100  # row 0 has five labels, row 1 two
    got = next_token_loss(logits, labels)
    assert got is not None, "The function returned None. Did you forget return?"
    assert torch.is_tensor(got) and got.ndim == 0, "Return a scalar tensor."

    def near(value):
        return math.isclose(got.item(), float(value), rel_tol=1e-9)

    def losses(z, y):
        return F.cross_entropy(z.flatten(0, 1), y.flatten(), reduction="none", ignore_index=-100)

    right = losses(logits[:, :-1], labels[:, 1:])
    assert not near(losses(logits, labels).sum() / 7), (
        "No shift: you ask for the token that the model has just read. A model passes that test by copying."
    )
    assert not near(losses(logits[:, 1:], labels[:, :-1]).sum() / (labels[:, :-1] != -100).sum()), (
        "You shifted the wrong way: the logits at t + 1 are compared with the token at t, which is the past."
    )
    flat = losses(logits.flatten(0, 1)[None, :-1], labels.flatten()[None, 1:])
    with_seam = labels.clone()
    with_seam[1, 0] = 4
    seam = losses(logits.flatten(0, 1)[None, :-1], with_seam.flatten()[None, 1:])
    moved = next_token_loss(logits, with_seam)
    assert not math.isclose(moved.item(), (seam.sum() / (len(flat.nonzero()) + 1)).item(), rel_tol=1e-9), (
        "You flattened before you shifted, so the last position of one row predicts the first of the next."
    )
    assert not near(right.sum() / right.numel()), (
        "You divide by the number of positions. A position with -100 has no loss, so it must not count."
    )
    rows = right.view(2, 5).sum(1) / torch.tensor([5, 2])
    assert not near(rows.mean()), (
        "You averaged each row first. Then a token of the short row counts more than one of the long row."
    )
    assert near(right.sum() / 7), f"{got:.4f} instead of {right.sum() / 7:.4f}."
    assert math.isclose(moved.item(), got.item(), rel_tol=1e-9), (
        "A label at the first position changed the loss. Nothing predicts it, so it must not count either."
    )
    empty = torch.full_like(labels, -100)
    empty[:, 0] = 3
    try:
        next_token_loss(logits, empty)
    except ValueError:
        pass
    else:
        raise AssertionError(
            "Only the first position has a label, and you returned a number. Raise ValueError."
        )
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
# is 1 on everything but padding. Labels count the completion and its end, and nothing else.


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
    batch = make_batch([([5, 6, 7], [8, 9]), ([5], [9])], pad_id=2)
    assert batch is not None, "The function returned None. Return the dict."
    names = ["attention_mask", "input_ids", "labels"]
    assert sorted(batch) == names, f"Keys expected: {', '.join(names)}."
    for name in names:
        assert tuple(batch[name].shape) == (2, 6), (
            f"{name}: shape (2, 6) expected, {tuple(batch[name].shape)} found."
        )
    ids, mask, labels = (batch[name].tolist() for name in ("input_ids", "attention_mask", "labels"))
    assert ids == [[5, 6, 7, 8, 9, 2], [5, 9, 2, 2, 2, 2]], (
        f"input_ids: prompt, completion, end, padding: {ids}."
    )
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
    assert labels == [[-100, -100, -100, 8, 9, 2], [-100, 9, 2, -100, -100, -100]], f"labels: {labels}."
    assert mask != [[1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0]], (
        "attention_mask hides the end token: it is still made from ids. Make it from lengths."
    )
    assert mask == [[1] * 6, [1, 1, 1, 0, 0, 0]], f"attention_mask: {mask}."
    print("06.2 passed the visible cases. The end is a token like any other: it must be seen, and learned.")


check_06_2(make_batch)
### BEGIN HIDDEN TESTS


def hidden_06_2(make_batch):
    pairs = [([5, 2, 6, 2], [7]), ([5, 2], [8, 9, 7, 7, 7])]  # chat turns end with id 2
    kept = [(list(p), list(c)) for p, c in pairs]
    batch = make_batch(pairs, pad_id=2)
    assert pairs == kept, "make_batch changed the lists that it was given. The next epoch uses them again."
    mask, labels = batch["attention_mask"].tolist(), batch["labels"].tolist()
    assert all(0 not in row[: len(p) + len(c) + 1] for row, (p, c) in zip(mask, pairs, strict=True)), (
        "A prompt with an end token inside: the mask hides a real token. Only padding may be hidden."
    )
    assert mask == [[1] * 6 + [0, 0], [1] * 8], f"attention_mask: {mask}."
    assert [row.count(2) for row in labels] == [1, 1], (
        "A prompt with an end token inside: each row must have one end label, behind its completion."
    )
    want = [[-100] * 4 + [7, 2, -100, -100], [-100, -100, 8, 9, 7, 7, 7, 2]]
    assert labels == want, f"labels of a prompt with an end token inside: {labels}."


hidden_06_2(make_batch)
### END HIDDEN TESTS

# %% [markdown]
# ## 06.3 The nucleus
#
# > ●●●○○ · 15 minutes · practice
#
# Nucleus sampling keeps the *fewest* tokens, most probable first, whose probabilities together reach $p$.
# The token that crosses the line belongs to them. All others get probability zero, and what is left is
# divided by its sum.
#
# Return the probabilities, in the order of the vocabulary, for a batch of logits. Each row has its own
# nucleus. $p$ lies in $(0, 1]$.


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
def check_06_3(nucleus):
    probabilities = torch.tensor(
        [[0.1, 0.4, 0.05, 0.25, 0.2], [0.02, 0.03, 0.9, 0.03, 0.02]], dtype=torch.float64
    )
    logits = probabilities.log() + 3.0  # softmax ignores the constant
    got = nucleus(logits, 0.7)
    assert got is not None, "The function returned None. Did you forget return?"
    assert got.shape == logits.shape, f"Shape {tuple(logits.shape)} expected, {tuple(got.shape)} found."
    assert torch.isfinite(got).all(), "nan or inf: did a row lose all its tokens? The best one always stays."
    kept = [row.nonzero().flatten().tolist() for row in got]
    assert (
        not torch.allclose(got.sum(-1), (probabilities * (got > 0)).sum(-1)) or kept == [[0, 1, 2, 3, 4]] * 2
    ), "What is left does not sum to one. Divide it by its sum."
    assert kept != [[1, 3], [2]], (
        "The first row keeps 0.4 and 0.25: together 0.65, which does not reach 0.7. The token that crosses counts."
    )
    assert kept != [[0, 1, 2], [0]] and kept[1] != [0], (
        "The right number of tokens, at the wrong places: the mask belongs to the *sorted* row. Sort it back."
    )
    assert kept[0] != [1, 3, 4] or kept[1] != [0, 1, 2, 3, 4], (
        "The second row keeps everything. Each row has its own nucleus; you counted for all rows together."
    )
    assert kept != [[1, 3, 4], []] and kept != [[], [2]], (
        "You compare each single probability with p. It is their *sum* that must reach p."
    )
    assert kept == [[1, 3, 4], [2]], f"Kept are {kept}, and should be [[1, 3, 4], [2]]."
    want = probabilities * torch.tensor([[0, 1, 0, 1, 1], [0, 0, 1, 0, 0]])
    assert torch.allclose(got, want / want.sum(-1, keepdim=True)), (
        "The right tokens, with other probabilities."
    )
    halves = torch.tensor([[0.5, 0.25, 0.125, 0.125]], dtype=torch.float64).log()
    assert (nucleus(halves, 0.5) > 0).sum() == 1, (
        "One half is reached by the first token alone, and you kept another one. The *fewest* tokens that reach p."
    )
    assert torch.allclose(nucleus(logits, 1.0), probabilities), "p = 1 keeps everything."
    assert (nucleus(logits, 1e-6) > 0).sum(-1).tolist() == [1, 1], "However small p is, one token stays."
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
    mine = prediction()
    assert mine is not None, "The function returned None. Return your dict."
    keys = {"loss", "perplexity", "steps", "logged", "positions"}
    assert set(mine) == keys, "Five keys: see the list above."
    assert all(isinstance(value, int | float) for value in mine.values()), "Five numbers expected."

    def near(key, value, tolerance=5e-3):
        return math.isclose(mine[key], value, rel_tol=tolerance)

    V = 32_000
    assert not near("loss", math.log2(V)), "loss: these are bits. Nats use the natural logarithm."
    assert not near("loss", math.log(2)), "loss: ln 2 is a coin. This coin has V sides."
    assert near("loss", math.log(V)), "loss: all tokens are equally likely, so each costs ln V."
    assert not near("perplexity", math.log(V)), "perplexity: this is the loss itself. Take its exponential."
    assert near("perplexity", V, 0.02), "perplexity: exp(ln V), so many equally likely choices."
    batches = math.ceil(100 / 8)
    assert mine["steps"] != 3 * batches, "steps: the call inside the print trains, too."
    assert mine["steps"] != 3 * 2 * (100 // 8), (
        "steps: the last batch has only four sentences, and is a step."
    )
    assert mine["steps"] == 2 * 3 * batches, f"steps: 3 epochs, each twice, of {batches} batches."
    assert not near("logged", 3.0), "logged: that is the true loss. The padded positions pull it down."
    assert not near("logged", 1.6), (
        "logged: this is the mean of the two losses. Weigh them by their positions."
    )
    assert near("logged", (10 * 3.0 + 30 * 0.2) / 40), "logged: 10 positions at 3.0 and 30 at 0.2."
    assert mine["positions"] != sum(range(10, 15)), "positions: this is the count without a cache."
    assert mine["positions"] != 15, "positions: the last token is written, and never fed back."
    assert mine["positions"] != 5, "positions: the prompt must be read once."
    assert mine["positions"] == 10 + 4, "positions: the prompt gives the first token, then one position each."
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
# answer token is a `ValueError`.


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
    logits, labels = answer_case(0, [(3, 8), (4, 6)])
    scores = answer_scores(logits, labels)
    assert scores is not None, "The function returned None. Return total and per_token."
    total, per_token = scores
    want, lengths = by_loops(logits, labels), torch.tensor([5, 2])
    assert total.shape == per_token.shape == (2,), "Two tensors of shape (B,): one number for each row."
    assert not torch.allclose(total, by_loops(logits, labels, shift=0)), (
        "No shift: the token at t is predicted by the logits at t - 1."
    )
    assert not torch.allclose(total, -want), "These are losses. A log-probability is never positive."
    assert not torch.allclose(total, want.exp()), "These are probabilities. Leave them as logarithms."
    assert torch.allclose(total, want), f"total: {total.tolist()} instead of {want.tolist()}."
    assert not torch.allclose(per_token, want / labels.shape[1]), (
        "per_token: you divide by T, which counts prompt and padding. Divide by the row's answer tokens."
    )
    assert not torch.allclose(per_token, want / lengths.sum()), (
        "per_token: you divide by the answer tokens of the whole batch. Each row has its own length."
    )
    assert not torch.allclose(per_token, want / (lengths + 1)), (
        "per_token: your lengths are too large by one. Count the answer's tokens, not their border."
    )
    assert torch.allclose(per_token, want / lengths), f"per_token: {per_token.tolist()}."
    print("06.5 passed the visible cases. The shorter answer wins by total, which says little about it.")


check_06_5(answer_scores)
### BEGIN HIDDEN TESTS


def hidden_06_5(answer_scores):
    logits, labels = answer_case(1, [(1, 8), (7, 8), (2, 5)])
    logits[0, 7], logits[2, 6] = -math.inf, -math.inf  # nothing is predicted from these positions
    logits[1, :5, 2] = -math.inf  # a token that the filter took away, where nothing counts
    total, per_token = answer_scores(logits, labels)
    assert not total.isnan().any(), (
        "nan: a position that does not count has infinite logits. Multiplying by a mask of zeros does not remove it."
    )
    want = by_loops(logits, labels)
    assert torch.allclose(total, want), "total is wrong where the answers stand at other places."
    assert torch.allclose(per_token, want / torch.tensor([7, 1, 3])), "per_token is wrong for other lengths."
    logits, labels = answer_case(2, [(2, 4), (3, 3)])
    try:
        answer_scores(logits, labels)
    except ValueError:
        pass
    else:
        raise AssertionError("A row without an answer went through. Its mean is 0/0: raise ValueError.")


hidden_06_5(answer_scores)
### END HIDDEN TESTS
