# ---
# jupyter:
#   instructlab:
#     id: "10"
#     title: Soft prompts
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 10: soft prompts
#
# Each exercise is a box, a cell for your answer, and a checker in the cell below it. Replace the line that
# raises `NotImplementedError`, then run both cells. A checker that says no also says what probably went
# wrong.
#
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases
# that you do not see here, so test more than the checker does. The page needs no network and no file.
# Exercise 10.5 trains a small decoder and prompts for it, and exercise 10.6 is a project. Each of the two is worth an
# evening.
#
# {{overview}}

# %%
import copy
import functools
import math
import statistics

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from instructlab_utils import checking, intervals

# %% [markdown]
# Exercise 10.5 and exercise 10.6 share a small decoder. Run the cell now, and read it when you come to them.

# %%
WORDS, LONGEST, WIDTH = 24, 8, 32
PAD, ASK, NO, YES = 0, 1, 2, 3  # then 24 words, then the twelve words of the orders


class Decoder(nn.Module):
    """One causal layer with two heads. Vectors (B, L, 32), a mask and positions, both (B, L), to logits (B, L, 40)."""

    def __init__(self):
        super().__init__()
        self.table, self.place = nn.Embedding(4 + WORDS + 12, WIDTH), nn.Embedding(16, WIDTH)
        self.qkv, self.mix = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down, self.dropout = nn.Linear(WIDTH, 96), nn.Linear(96, WIDTH), nn.Dropout(0.1)
        self.norm = nn.LayerNorm(WIDTH)
        for part in (self.table, self.place):
            nn.init.normal_(part.weight, std=0.5)

    def forward(self, vectors, mask, positions):
        B, L, d = vectors.shape
        h = self.dropout(vectors + self.place(positions))
        q, k, v = self.qkv(self.norm(h)).view(B, L, 6, d // 2).transpose(1, 2).chunk(3, 1)
        seen = torch.ones(L, L).tril().bool() & mask[:, None, None, :].bool() | torch.eye(L).bool()
        h = h + self.mix(F.scaled_dot_product_attention(q, k, v, seen).transpose(1, 2).flatten(2))
        h = h + self.down(self.dropout(torch.relu(self.up(h))))
        return h @ self.table.weight.T


def short_texts(n, g, left=False):
    """ids and mask (n, 9); the texts end with ASK. With ``left`` every second row is padded on the left."""
    size, at = torch.randint(3, LONGEST + 1, (n, 1), generator=g), torch.arange(LONGEST + 1)
    ids = torch.where(at == size, ASK, 4 + torch.randint(WORDS, (n, LONGEST + 1), generator=g))
    mask = (at <= size).long()
    shift = (LONGEST - size) * (torch.arange(n)[:, None] % 2 * left)
    turn = (at - shift) % (LONGEST + 1)
    return (ids * mask).gather(1, turn), mask.gather(1, turn)


@functools.cache
def trained_decoder(steps=200):
    """The trained decoder, and the traits of its words (24, 3)."""
    g = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    traits = torch.stack([torch.randperm(WORDS, generator=g) % 2 for _ in range(3)], 1)
    model, orders = Decoder(), 4 + WORDS + torch.arange(12).view(3, 4)
    ids, mask = short_texts(3000, g)
    adam = torch.optim.AdamW(model.parameters(), lr=2e-2)
    for step in range(steps):
        adam.param_groups[0]["lr"] = 2e-2 * min(1, (step + 1) / 20) * (1 - step / steps)
        i, t = torch.randint(3000, (64,), generator=g), torch.randint(3, (64,), generator=g)
        whole, seen = torch.cat([orders[t], ids[i]], 1), F.pad(mask[i], (4, 0), value=1)
        z = model(model.table(whole), seen, torch.arange(13).expand(64, -1))[:, 4:, NO : YES + 1]
        y = traits[ids[i, 0] - 4, t][:, None].expand(-1, 9)  # answer at every word, so that it learns sooner
        adam.zero_grad()
        F.cross_entropy(z[mask[i] > 0], y[mask[i] > 0]).backward()
        adam.step()
    adam.zero_grad()
    model.table.weight.data[orders.flatten()] = 0
    return model.eval(), traits


# %% [markdown]
# ## 10.1 The gradient of a prompt
#
# > ●●○○○ · 10 minutes · practice
#
# A small model takes the *sum* of the prompt vectors $P$, shape $(n, d)$, and the text vectors $x$, shape $(T, d)$, and gives
# logits $z = W h$ with $W$ of shape $(K, d)$. (Lesson 10 took the mean.) The loss is the cross-entropy of class $y$.
#
# Return the gradient of the loss with respect to $P$, in closed form and in the dtype of $P$. No autograd. Logits may be
# thousands apart.


# %% nbgrader={"grade_id": "answer_10_1", "solution": true}
def prompt_gradient(P, x, W, y):
    """The gradient of -log softmax(W h)_y with respect to P, shape (n, d), where h is the sum of all vectors."""
    ### BEGIN SOLUTION
    h = P.sum(0) + x.sum(0)
    residual = torch.softmax(W @ h, -1)
    residual[y] -= 1
    return (W.T @ residual).expand(P.shape)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_10_1", "locked": true}
def by_autograd(P, x, W, y):
    def loss(P):
        return -torch.log_softmax(W @ (P.sum(0) + x.sum(0)), -1)[y]

    return torch.func.grad(loss)(P)


def check_10_1(prompt_gradient):
    call = checking.calls(prompt_gradient)
    g = torch.Generator().manual_seed(0)

    def made(n, T, d, K):
        return [torch.randn(s, generator=g, dtype=torch.float64) / 3 for s in ((n, d), (T, d), (K, d))]

    P, x, W = made(3, 5, 4, 6)
    got, want = call(P, x, W, 2), by_autograd(P, x, W, 2)
    assert getattr(got, "shape", None) == P.shape, (
        f"Shape {tuple(P.shape)} expected, one row per prompt vector, not {checking.shown(got)}."
    )
    checking.form(got, want, "the gradient", dtype=torch.float64)
    probabilities = (W @ (P.sum(0) + x.sum(0))).softmax(-1)
    wrong = {
        "The sign is wrong: probabilities minus the truth, not the reverse.": -want,
        "You took the mean of all vectors, as in the lesson. Here they are added.": by_autograd(
            P / 8, x / 8, W, 2
        )
        / 8,
        "You divided by n + T. Here the vectors are added, not averaged.": want / 8,
        "You divided by n. Here the vectors are added, not averaged.": want / 3,
        "The values are wrong: the text is part of h, too.": by_autograd(P, 0 * x, W, 2),
        "The values are wrong: h is the sum of prompt *and* text.": by_autograd(0 * P, x, W, 2),
        "Nothing is subtracted at place y. The gradient would be the same for each class.": (
            W.T @ probabilities
        ).expand(3, 4),
        "The probabilities are missing: this is only what the right class says.": -W[2].expand(3, 4),
        "You subtract y itself. Subtract one, at place y.": (W.T @ (probabilities - 2)).expand(3, 4),
        "The other classes are missing: the loss holds their logits, too. Each class k brings p_k W_k.": (
            (probabilities[2] - 1) * W[2]
        ).expand(3, 4),
        "These are the logits. Their softmax has to be taken.": (
            W.T @ (W @ (P.sum(0) + x.sum(0))) - W[2]
        ).expand(3, 4),
        "The average of the vectors goes into the softmax. Here they are added.": by_autograd(
            P / 8, x / 8, W, 2
        ),
    }
    says = "The values are wrong: the residual has to go back through W, transposed."
    checking.equal(got, want, "the gradient", wrong, dtype=torch.float64, says=says)
    by_hand = "The values are right, but they need autograd. Write the gradient in closed form."
    with torch.no_grad(), checking.means(RuntimeError, by_hand):
        call(P, x, W, 2)

    def of_the_likeliest(P, x, W, y):
        return by_autograd(P, x, W, (W @ (P.sum(0) + x.sum(0))).argmax().item())

    wrong = {"One is subtracted at the most probable class. Subtract it at y.": of_the_likeliest}
    for sizes, y in (((1, 2, 3, 5), 0), ((4, 1, 2, 3), 2), ((3, 3, 3, 3), 1)):
        says = f"(n, T, d, K) = {sizes}, y = {y}."
        call.agrees(by_autograd, (*made(*sizes), y), name="the gradient", wrong=wrong, says=says)
    says = "Logits thousands apart: take the largest off before exp, or use torch.softmax."
    call.agrees(by_autograd, (2000 * P, x, W, 4), (2000 * P, x, W, 1), name="the gradient", says=says)
    says = "Arguments in float32: so is the gradient."
    single = P.float(), x.float(), W.float(), 5
    call.agrees(by_autograd, single, name="the gradient", dtype=torch.float32, says=says)
    print("10.1 passed. Every row is the same: a sum cannot tell its terms apart.")


check_10_1(prompt_gradient)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# $\partial L / \partial z$ is the vector of probabilities with one subtracted at place $y$.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Each row of $P$ enters $h$ with the factor 1, so all rows of the gradient equal $W^\top (\pi - e_y)$.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 10.2 Attention with a prefix
#
# > ●●●○○ · 15 minutes · graded
#
# Each of the $T$ queries attends to $n$ prefix places and to *all* $T$ places of the text. Scores are scaled by
# $1/\sqrt{d}$, and may be thousands apart. Return two tensors: the outputs, shape $(T, d)$, and for each query its
# $\lambda$, the share of attention that the prefix gets, shape $(T,)$. Both have the dtype of the
# arguments, and gradients must reach all five.


# %% nbgrader={"grade_id": "answer_10_2", "solution": true}
def prefix_attention(Q, K, V, PK, PV):
    """Q, K, V: (T, d); PK, PV: (n, d). Return (outputs (T, d), share of the prefix (T,))."""
    ### BEGIN SOLUTION
    scores = Q @ torch.cat([PK, K]).T / Q.shape[1] ** 0.5
    weights = torch.softmax(scores, -1)
    return weights @ torch.cat([PV, V]), weights[:, : len(PK)].sum(-1)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_10_2", "grade": true, "points": 3, "locked": true}
def made_attention(seed, n, T, d):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, d, generator=g, dtype=torch.float64) for rows in (T, T, T, n, n)]


def wanted_attention(Q, K, V, PK, PV, scale=None):
    scale = Q.shape[1] ** -0.5 if scale is None else scale
    a, b = Q @ PK.T * scale, Q @ K.T * scale
    top = torch.maximum(a.max(1).values, b.max(1).values)[:, None]
    a, b = (a - top).exp(), (b - top).exp()
    A, B = a.sum(1, keepdim=True), b.sum(1, keepdim=True)
    return (a @ PV + b @ V) / (A + B), (A / (A + B))[:, 0]


def check_10_2(prefix_attention):
    call = checking.calls(prefix_attention)
    case = made_attention(0, n=2, T=3, d=4)
    Q, K, V, PK, PV = case
    got, (want, lam) = call(*case), wanted_attention(*case)
    checking.form(got, (want, lam), "(outputs, share)", dtype=torch.float64)
    out, share = got
    a, b = Q @ PK.T / 2, Q @ K.T / 2
    apart = a.softmax(-1) @ PV + b.softmax(-1) @ V
    causal = torch.cat([a, b.masked_fill(torch.ones(3, 3).triu(1).bool(), -math.inf)], 1).softmax(-1)
    both = torch.cat([a, b], 1).softmax(-1)
    down = torch.cat([a, b], 1).softmax(0)
    says = "You normalised prefix and text apart and added the two. They share one softmax: lambda and 1 - lambda."
    wrong = {
        "The scores are not divided by the root of d.": wanted_attention(*case, 1.0)[0],
        "The scores are divided by d. Divide by its root.": wanted_attention(*case, 1 / 4)[0],
        "The scores are divided by the root of the number of places. Divide by the root of the width d.": wanted_attention(
            *case, 5**-0.5
        )[0],
        "The scores are multiplied by the root of d.": wanted_attention(*case, 2.0)[0],
        says: apart,
        f"{says} Their mean is not right, either.": apart / 2,
        "outputs: the prefix is missing.": b.softmax(-1) @ V,
        "outputs: the text is missing.": a.softmax(-1) @ PV,
        "outputs: a query sees *all* places of the text here, later ones, too.": causal @ torch.cat([PV, V]),
        "outputs: the softmax runs over the queries. Each *query* divides its attention among the places.": down
        @ torch.cat([PV, V]),
        "outputs: the keys are where the values should be.": both @ torch.cat([PK, K]),
        "outputs: keys and values are in different orders: prefix first in both, or text first in both.": both
        @ torch.cat([V, PV]),
        "outputs: the scores need a softmax.": torch.cat([a, b], 1) @ torch.cat([PV, V]),
    }
    says = "outputs: one softmax over prefix and text together, times the values of both."
    checking.equal(out, want, "outputs", wrong, says=says)
    wrong = {
        "share: that is the text's share. The prefix has the rest.": 1 - lam,
        "share: add up the weights of the prefix places. You took their mean.": lam / 2,
        "share: add up the weights of *all* prefix places. You took the first only.": both[:, 0],
        "share: the weights of the last places: those are the text's, if the prefix stands in front.": both[
            :, -2:
        ].sum(1),
        "share: this is prefix over text. Divide by both together.": lam / (1 - lam),
        "share: numbers of places say nothing. Add up weights.": torch.full_like(lam, 2 / 5),
        "share: this is the largest weight. Add up all of the prefix.": both[:, :2].max(1).values,
        "share: these are sums of scores. Add up weights, after the softmax.": a.sum(1),
    }
    says = "share: the sum of the weights of the prefix places, for each query."
    checking.equal(share, lam, "share", wrong, says=says)
    print("10.2 passed the visible cases.")


check_10_2(prefix_attention)
### BEGIN HIDDEN TESTS


def hidden_10_2(prefix_attention):
    call = checking.calls(prefix_attention)
    name = "(outputs, share)"
    for seed, n, T, d in ((1, 1, 5, 9), (2, 7, 2, 3), (3, 4, 4, 4), (4, 3, 1, 2)):
        says = f"Wrong for n = {n}, T = {T}, d = {d}."
        call.agrees(wanted_attention, tuple(made_attention(seed, n, T, d)), name=name, says=says)
    says = (
        "Large scores give inf or nan. Use a softmax that subtracts the largest score, that of the query: one maximum for "
        "all queries leaves 0 / 0 to some."
    )
    Q, K, V, PK, PV = made_attention(3, 2, 3, 4)
    for factor in (200.0, 2000.0):
        call.agrees(wanted_attention, (factor * Q, 60 * K, V, PK, PV), name=name, says=says)
        call.agrees(wanted_attention, (factor * Q, K, V, 60 * PK, PV), name=name, says=says)
    says = "The prefix is trained: its gradient must pass."
    call.gradients(wanted_attention, Q, K, V, PK, PV, of=[0, 1, 2, 3, 4], says=says)
    single = tuple(t.float() for t in (Q, K, V, PK, PV))
    says = "Arguments in float32."
    call.agrees(wanted_attention, single, name=name, dtype=torch.float32, says=says)


hidden_10_2(prefix_attention)
### END HIDDEN TESTS

# %% [markdown]
# ## 10.3 The prompt that nobody reads
#
# > ●●●○○ · 15 minutes · practice · bug hunt
#
# This function puts a soft prompt in front of a batch for a model that labels tokens. Training runs, the loss falls, and the
# prompt stays as useless as it was. Find three bugs.
#
# `x` is $(B, T, d)$, `mask` and `labels` are $(B, T)$ (padding has mask 0 and label -100), `P` is $(n, d)$.


# %%
def broken_prepend(x, mask, labels, P):
    rows = P.detach().expand(len(x), -1, -1)
    longer = torch.cat([mask.new_zeros(len(x), len(P)), mask], 1)
    more = torch.cat([labels.new_zeros(len(x), len(P)), labels], 1)
    return torch.cat([rows, x], 1), longer, more


# %% [markdown]
# Write it right. The prompt must be seen, it must receive a gradient, and its places must not be asked for a label. The
# text's vectors keep their graph, and all three tensors their dtype: a mask may also be of type bool.


# %% nbgrader={"grade_id": "answer_10_3", "solution": true}
def prepend(x, mask, labels, P):
    """Return (vectors (B, n + T, d), mask (B, n + T), labels (B, n + T))."""
    ### BEGIN SOLUTION
    B, n = len(x), len(P)
    return (
        torch.cat([P.expand(B, -1, -1), x], 1),
        torch.cat([mask.new_ones(B, n), mask], 1),
        torch.cat([labels.new_full((B, n), -100), labels], 1),
    )
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_10_3", "locked": true}
def by_places(x, mask, labels, P):
    """The three tensors, row by row."""
    n = len(P)
    rows = [torch.cat([P, row]) for row in x]
    seen = [torch.cat([torch.ones(n, dtype=mask.dtype), row]) for row in mask]
    asked = [torch.cat([torch.full((n,), -100), row]) for row in labels]
    return torch.stack(rows), torch.stack(seen), torch.stack(asked)


def check_10_3(prepend):
    call = checking.calls(prepend)
    g = torch.Generator().manual_seed(0)
    x, P = torch.randn(2, 3, 4, generator=g), torch.randn(5, 4, generator=g)
    mask, labels = torch.tensor([[1, 1, 1], [1, 1, 0]]), torch.tensor([[0, 2, 1], [1, 0, -100]])
    got, (vectors, longer, more) = call(x, mask, labels, P), by_places(x, mask, labels, P)
    cut = "The tensors have the length of the text, 3. A prompt makes them longer: n + T = 8, and no text is lost."
    shapes = [tuple(getattr(part, "shape", ())) for part in got] if isinstance(got, list | tuple) else []
    assert shapes != [(2, 3, 4), (2, 3), (2, 3)], cut
    checking.form(got, (vectors, longer, more), "(vectors, mask, labels)")
    rows = P.expand(2, -1, -1)
    wrong = {
        "vectors: the prompt stands in front, the text follows unchanged.": torch.cat([x, rows], 1),
        "vectors: the places of the prompt are empty.": torch.cat([0 * rows, x], 1),
        "vectors: the text is missing. Its vectors follow the prompt.": torch.cat([rows, 0 * x], 1),
        "vectors: the prompt is turned round.": torch.cat([rows.flip(1), x], 1),
        "vectors: the vectors of the prompt are dealt out to the rows. Each row holds all of P, in its order.": (
            torch.cat([P.repeat_interleave(2, 0).view(2, 5, 4), x], 1)
        ),
    }
    says = "vectors: in each row first the prompt, then the text, unchanged."
    checking.equal(got[0], vectors, "vectors", wrong, says=says)
    ones, zeros = torch.ones(2, 5, dtype=torch.int64), torch.zeros(2, 5, dtype=torch.int64)
    behind = "The vectors of the prompt stand in front, and this stands behind."
    wrong = {
        "mask: 0 hides the prompt from every token. Nobody reads it.": torch.cat([zeros, mask], 1),
        "mask: the text keeps its mask, padding included.": torch.cat([ones, ones[:, :3]], 1),
        f"mask: {behind}": torch.cat([mask, ones], 1),
        "mask: -100 is for labels. What is seen has the mask 1.": torch.cat([ones * -100, mask], 1),
        "mask: it is turned round. 1 is what is seen.": 1 - longer,
    }
    checking.equal(got[1], longer, "mask", wrong, says="mask: 1 for the prompt, then that of the text.")
    wrong = {
        "labels: 0 is a class. The places of the prompt would be trained towards it.": torch.cat(
            [zeros, labels], 1
        ),
        "labels: 1 is a class. The places of the prompt would be trained towards it.": torch.cat(
            [ones, labels], 1
        ),
        "labels: -1 is not the number that says no target.": torch.cat([-ones, labels], 1),
        f"labels: {behind}": torch.cat([labels, -100 * ones], 1),
        "labels: those of the text are lost.": torch.full_like(more, -100),
    }
    says = "labels: -100 says that a place has no target; those of the text stay."
    checking.equal(got[2], more, "labels", wrong, says=says)
    says = "P gets no gradient: the graph was cut. Training cannot move it."
    call.gradients(by_places, x, mask, labels, P, of=[3], says=says)
    says = "The vectors of the text lost their graph. A layer below may be trained."
    call.gradients(by_places, x, mask, labels, P, of=[0], says=says)
    says = "mask: padding on the left. The prompt is seen there, too: its mask is 1, no copy of a column of the text's."
    case = x, mask.flip(1), labels.flip(1), P
    checking.equal(call(*case)[1], by_places(*case)[1], "mask", says=says)
    for B, n, T, d in ((1, 2, 6, 3), (4, 3, 2, 5), (3, 1, 1, 1)):
        x, P = torch.randn(B, T, d, generator=g), torch.randn(n, d, generator=g)
        mask = (torch.arange(T) <= torch.arange(B)[:, None]).long()
        case = x, mask, torch.randint(7, (B, T), generator=g), P
        says = f"B = {B}, n = {n}, T = {T}, d = {d}."
        call.agrees(by_places, case, name="(vectors, mask, labels)", says=says)
    got = call(x.double(), mask.bool(), labels[:1, :1].expand(3, 1), P.double())
    for name, tensor, dtype in zip(
        ("vectors", "mask", "labels"), got, (torch.float64, torch.bool, torch.int64), strict=True
    ):
        assert tensor.dtype == dtype, f"{name}: dtype {tensor.dtype}; it was {dtype} before."
    print("10.3 passed. Detached, masked, mislabelled: each of the three alone would have hidden the others.")


check_10_3(prepend)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Ask of each of the three tensors: what does a value of 0 mean there?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `detach` returns the same numbers without their history.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 10.4 Count before you run
#
# > ●●○○○ · 8 minutes · practice · prediction
#
# An encoder has 6 layers of width 384. A soft prompt has 20 places. Predict, with pencil and paper:
#
# - `prompt`: trained numbers of prompt tuning.
# - `deep`: trained numbers of P-Tuning v2 (keys and values at every layer, trained directly).
# - `stored`: numbers that prefix-tuning with a network stores for use, after the network has been thrown away.
# - `no_op`: 1 if a prompt whose vectors are all zero leaves the logits of the model exactly as they were, else 0.


# %% nbgrader={"grade_id": "answer_10_4", "solution": true}
def prediction():
    """Return a dict of four numbers: prompt, deep, stored, no_op."""
    ### BEGIN SOLUTION
    return {"prompt": 7680, "deep": 92160, "stored": 92160, "no_op": 0}
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_10_4", "locked": true}
def check_10_4(prediction):
    mine = checking.predicted(prediction, ("prompt", "deep", "stored", "no_op"))
    one = 20 * 384
    wrong = {
        "prompt: prompt tuning puts vectors at the input only, not in each of six layers.": 6 * one,
        "prompt: keys and values are P-Tuning's. A prompt has one vector per place.": 2 * one,
        "prompt: this is the width. There are 20 places.": 384,
        "prompt: this is the number of places. A vector has 384 numbers.": 20,
    }
    says = "prompt: one vector of the model's width per place, at the input only."
    checking.equal(mine["prompt"], one, "prompt", wrong, says=says)
    wrong = {
        "deep: you counted keys or values. Each layer has both.": 6 * one,
        "deep: there are six layers. The embeddings below are none of them.": 2 * 7 * one,
        "deep: this is one layer. Each of six has its own.": 2 * one,
        "deep: this is the prompt at the input. Each layer has keys and values of its own.": one,
        "deep: keys and values, but no queries: a prefix asks nothing.": 3 * 6 * one,
        "deep: nothing stands at the input beside the keys and values.": (2 * 6 + 1) * one,
    }
    says = "deep: places times layers times two times the width."
    checking.equal(mine["deep"], 12 * one, "deep", wrong, says=says)
    says = "stored: the network is only a way to compute keys and values. What is used later is what it computed."
    wrong = {
        "stored: these are the vectors that go into the network. It is gone: store what it computed.": one,
        "stored: keys *and* values.": 6 * one,
        "stored: something has to be stored: the keys and values that the network computed.": 0,
    }
    checking.equal(mine["stored"], 12 * one, "stored", wrong, says=says)
    wrong = {
        "no_op: a key of zero has the score zero, not minus infinity. It takes its share of every softmax.": 1
    }
    checking.equal(mine["no_op"], 0, "no_op", wrong, says="no_op: 0 or 1.")
    print("10.4 passed.")


check_10_4(prediction)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# $20 \cdot 384 = 7680$. How many such blocks does each method have?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# $e^0 = 1$.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 10.5 An order without words
#
# > ●●●●○ · 70 minutes · graded
#
# Here is a small decoder. A text is a row of three to eight words and ends with `ASK`; then the model says `NO` or `YES`.
# What it says depends on an order of four words in front of the text. It was trained with three orders, one for each of three
# *traits*: does the *first* word of the text have it? The words of the orders are gone: their rows in the table are zero now.
# You get labelled texts and train four vectors in front of them instead. Nothing else may move. Sometimes the labels follow
# one trait. Sometimes they say `YES` where two traits are there at once, and no order ever asked for that.
#
# `trained_decoder()` trains the model once and keeps it (a second or two). `task_10_5(seed)` gives `128` labelled and `200`
# test texts. Half of them are padded on the left, the other half on the right, as happens when two programs write one file.


# %%
WANTED = ((0, 2), (1,), (1, 2), (0, 1), (2,), (0,))  # the traits that must be there, by seed


def task_10_5(seed):
    """ids, mask and labels (0: NO, 1: YES) of 128 texts to learn from, and of 200 to test on."""
    g, traits = torch.Generator().manual_seed(seed), trained_decoder()[1]

    def rows(n):
        ids, mask = short_texts(n, g, left=True)
        first = ids.gather(1, mask.argmax(1, keepdim=True))[:, 0]
        return ids, mask, traits[first - 4][:, WANTED[seed % 6]].all(1).long()

    return rows(128), rows(200)


# %% [markdown]
# Write two functions.
#
# `logits(model, P, ids, mask)` returns the logits of `NO` and `YES`, in this order, at each text's `ASK`: shape $(B, 2)$. The
# $n$ rows of `P` stand in front of all columns, at the positions $0$ to $n - 1$, and all that comes after sees them. The
# words of the text have the positions $n$, $n + 1$, … in their order, wherever the padding stands: left, right or both; the
# positions of padding do not matter. There may be up to five rows in `P`. The model may arrive in either mode; the logits are
# those of evaluation mode. A gradient must reach `P`.
#
# `tune(model, ids, mask, y, generator)` returns a trained `P` of shape $(4, 32)$, without a graph. The model comes in
# training mode, with every `requires_grad` on. When you return, its tensors are bit by bit what they were, and no gradient is
# left in it. Draw all random numbers from `generator`, so that a run can be repeated. The checker uses your `P` with its own
# `logits` and asks for $90\,\%$ on the test texts of *each* seed. A start can end badly, and the seeds below may not show it:
# run `task_10_5` for a dozen others. A call may take fifteen seconds of processor time.


# %% nbgrader={"grade_id": "answer_10_5", "solution": true}
def logits(model, P, ids, mask):
    """P (n, 32), ids and mask (B, T). Return the logits of NO and YES at each text's ASK, (B, 2)."""
    ### BEGIN SOLUTION
    model.eval()
    n, B = len(P), len(ids)
    vectors = torch.cat([P.expand(B, -1, -1), model.table(ids)], 1)
    seen = F.pad(mask, (n, 0), value=1)
    places = (seen.cumsum(1) - 1).clamp(min=0)  # padding on the left repeats a position; nobody sees it
    last = n + (mask * torch.arange(ids.shape[1])).argmax(1)
    return model(vectors, seen, places)[torch.arange(B), last][:, [NO, YES]]
    ### END SOLUTION


def tune(model, ids, mask, y, generator):
    """ids, mask (N, T), y (N,) with 0 and 1. Return the trained prompt (4, 32)."""
    ### BEGIN SOLUTION
    flags = [p.requires_grad for p in model.parameters()]
    model.requires_grad_(False)
    best, steps, rate = (math.inf, None), 100, 0.1
    for _ in range(3):  # some starts end badly: take several, and choose by the labelled texts
        P = (0.5 * torch.randn(4, WIDTH, generator=generator)).requires_grad_()
        optimizer = torch.optim.Adam([P], lr=rate)
        for done in range(steps):
            optimizer.param_groups[0]["lr"] = rate * (1 - done / steps)
            i = torch.randint(len(y), (40,), generator=generator)
            optimizer.zero_grad()
            F.cross_entropy(logits(model, P, ids[i], mask[i]), y[i]).backward()
            optimizer.step()
        with torch.no_grad():
            loss = F.cross_entropy(logits(model, P, ids, mask), y).item()
        best = min(best, (loss, P.detach()), key=lambda pair: pair[0])
        if loss < 0.05:
            break
    for p, flag in zip(model.parameters(), flags, strict=True):
        p.requires_grad_(flag)
    return best[1]
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_10_5", "grade": true, "points": 6, "locked": true}
def read_10_5(model, P, ids, mask, *, hide=False, start=None, columns=False, at="ask", behind=False):
    """The logits, row by row and without padding; the options are what is usually wrong."""
    found, n = [], len(P)
    for row, seen in zip(ids, mask, strict=True):
        words, first = row[seen > 0], int(seen.argmax())
        T = len(words)
        text, begin = model.table(words), (n if start is None else start) + (first if columns else 0)
        parts = [text, P] if behind else [P, text]
        places = [torch.arange(n), torch.arange(begin, begin + T)]
        shown = torch.cat([torch.full((n,), int(not hide)), torch.ones(T, dtype=torch.long)])
        z = model(torch.cat(parts)[None], shown[None], torch.cat(places)[None].clamp(max=15))[0]
        found.append(z[{"ask": -1, "early": T - 1}[at], NO : YES + 1])
    return torch.stack(found)


def check_logits(logits):
    torch.manual_seed(1)
    model = Decoder().eval()
    g = torch.Generator().manual_seed(2)
    P = torch.randn(4, WIDTH, generator=g)
    ids, mask = short_texts(12, g, left=True)
    call = checking.calls(logits, changes=("model",))
    for rows, side in ((ids[::2], "right"), (ids[1::2], "left")):
        seen = mask[1::2] if side == "left" else mask[::2]
        with torch.no_grad():
            want = read_10_5(model, P, rows, seen)
            full = model(
                torch.cat([P.expand(len(rows), -1, -1), model.table(rows)], 1),
                F.pad(seen, (4, 0), value=1),
                (F.pad(seen, (4, 0), value=1).cumsum(1) - 1).clamp(min=0),
            )
            got = call(model, P, rows, seen)
            wrong = {
                "The prompt is hidden: its places have the mask 0.": read_10_5(
                    model, P, rows, seen, hide=True
                ),
                "The prompt is hidden by the mask, and positions counted from the mask begin at 0, too.": read_10_5(
                    model, P, rows, seen, hide=True, start=0
                ),
                "The text kept its positions from 0 on. It begins at n, after the prompt.": read_10_5(
                    model, P, rows, seen, start=0
                ),
                "Padding on the left counts as positions. The first word of the text has the position n.": read_10_5(
                    model, P, rows, seen, columns=True
                ),
                "Padding on the left counts, and the text begins at 0.": read_10_5(
                    model, P, rows, seen, columns=True, start=0
                ),
                "You read the last column. In texts with padding on the right that is padding.": full[
                    :, -1, NO : YES + 1
                ],
                "You read n places too early: the prompt has made the row longer.": read_10_5(
                    model, P, rows, seen, at="early"
                ),
                "The prompt stands after the text.": read_10_5(model, P, rows, seen, behind=True),
                "NO comes first, then YES.": want.flip(1),
                "These are probabilities. Logits are asked for.": want.softmax(1),
            }
            says = f"Padding on the {side}: the logits differ from those of the same texts without padding."
            checking.equal(got, want, "the logits", wrong, tol=1e-4, says=says)
    model.train()
    with torch.no_grad():
        one, two = (call(model, P, ids, mask) for _ in range(2))
    assert torch.equal(one, two), (
        "The model came in training mode, and two calls differ: dropout is on. The logits are those of evaluation mode."
    )
    model.eval()
    says = "P has to be trained:"
    checking.calls(lambda P: logits(model, P, ids, mask)).gradients(
        lambda P: read_10_5(model, P, ids, mask), P, of=[0], says=says
    )
    for n in (1, 5):
        with torch.no_grad():
            want, got = (read(model, P[:1].expand(n, -1), ids, mask) for read in (read_10_5, logits))
        checking.equal(got, want, "the logits", tol=1e-4, says=f"A prompt of {n}.")


def judge_10_5(tune, seed):
    model, before = (
        copy.deepcopy(trained_decoder()[0]).train(),
        copy.deepcopy(trained_decoder()[0].state_dict()),
    )
    (ids, mask, y), (new, seen, truth) = task_10_5(seed)
    call = checking.calls(
        tune, limit=15.0, slow="Fifteen seconds a call: take fewer steps.", changes=("model", "generator")
    )
    P = call(model, ids, mask, y, torch.Generator().manual_seed(seed))
    checking.form(P, torch.zeros(4, WIDTH), "P", dtype=torch.float32)
    assert not P.requires_grad, "P still has a graph. Return P.detach()."
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), (
            f"tune: {name} of the model has moved. Only P trains: freeze the model, and give the optimiser P alone."
        )
    left = [name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()]
    assert not left, (
        f"tune: {left[0]} has a gradient. It was computed for nothing, and somebody else's next step would use it: freeze "
        "the model while you train."
    )
    model.eval()
    with torch.no_grad():
        answers = read_10_5(model, P, new, seen).argmax(1)
    right = (answers == truth).double().mean().item()
    if right < 0.9:
        most = max(truth.double().mean().item(), 1 - truth.double().mean().item())
        with torch.no_grad():
            own = (read_10_5(model, P, ids, mask).argmax(1) == y).double().mean().item()
        told = f"tune: {right:.0%} on test texts, 90 % are asked for, one word for all gives {most:.0%} (seed {seed})."
        assert 0.03 < answers.double().mean() < 0.97, (
            f"{told} This prompt says nearly the same of all texts: the run has collapsed. A smaller rate, or another start?"
        )
        assert own < right + 0.07, (
            f"{told} On the labelled texts it is {own:.0%}: learned by heart. Fewer steps?"
        )
        raise AssertionError(
            f"{told} On the labelled texts it is {own:.0%}, too. Not trained enough, or a start that ended badly? The "
            "labelled texts tell good starts from bad ones."
        )
    return right


def check_10_5(logits, tune):
    check_logits(logits)
    found = [judge_10_5(tune, seed) for seed in (1, 6)]
    print(f"10.5 passed the visible cases: {min(found):.0%} at least, with {4 * WIDTH} numbers.")


check_10_5(logits, tune)
### BEGIN HIDDEN TESTS


def hidden_10_5(logits, tune):
    for seed in (2, 15):
        judge_10_5(tune, seed)
    model, (ids, mask, y) = trained_decoder()[0], task_10_5(7)[0]
    found = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        found.append(tune(copy.deepcopy(model).train(), ids, mask, y, torch.Generator().manual_seed(3)))
    says = "tune: the same generator gave two prompts. Draw all random numbers from it."
    checking.equal(found[1], found[0], "P", says=says)
    with torch.no_grad():
        wide, one = (F.pad(part, (3, 0)) for part in (ids[:6], mask[:6]))
        want, got = read_10_5(model, found[0], ids[:6], mask[:6]), logits(model, found[0], wide, one)
    says = "Padding on both sides: the place of ASK does not follow from the number of words."
    checking.equal(got, want, "the logits", tol=1e-4, says=says)


hidden_10_5(logits, tune)
### END HIDDEN TESTS

# %% [markdown]
# ## 10.6 Project: a study in which some runs fail
#
# > ●●●●● · 165 minutes · practice
#
# Soft prompts have runs that learn nothing. Leave them out, and every method looks good. Put a t interval around two heaps of
# scores, and it may end above one. Compare two ways to train a prompt: two first values (small numbers, large ones, rows of
# words), two lengths, two rates, one start against the best of three. Use the decoder of exercise 10.5, the lesson's encoder,
# or a system of your own. `study()` may take a minute; if your runs take longer, make them in another cell and return the
# recorded scores. Write the claim first: "the accuracy of *bet* is above that of *other* by more than `threshold`". Return a
# dict:
#
# | key | what |
# |:--|:--|
# | `claim` | a sentence that names both arms |
# | `arms` | two different names, your bet first |
# | `threshold` | what the mean difference must pass, $0$ or more |
# | `labels` | how many test items have each label: whole numbers, two at least |
# | `chance` | the accuracy of saying the most frequent label every time |
# | `margin` | a run has *trained* if its accuracy is at least `chance + margin`; above $0$, and said before the runs |
# | `trials` | arm → how many settings were tried; equal |
# | `tuning_seeds`, `seeds` | at least three and at least ten different whole numbers; none is in both |
# | `scores` | arm → the test accuracy of **every** seed, in the order of `seeds` |
# | `collapsed` | arm → how many runs did not train |
# | `trained` | arm → `(share, low, high)`: the share of runs that trained: `intervals.wilson_interval` of lesson 03 |
# | `mean`, `median` | arm → over all runs, the collapsed ones included |
# | `difference`, `low`, `high` | `.mean`, `.low`, `.high` of `intervals.paired_bootstrap(bet, other)` with its defaults |
# | `verdict` | `"did not train"`, `"supported"`, `"refuted"` or `"undecided"` |
#
# The verdict is `"did not train"` if in either arm more than half of the runs collapsed. Then the numbers alone cannot tell a
# bad rate or start from an arm that cannot do it. Say in the ending which of them you believe, and why: look at the accuracy
# on the training texts, and try more updates and other rates. Else it follows from the interval and the threshold. Both arms
# meet the same seeds, so the bootstrap draws seeds, in pairs.
#
# The checker recomputes all numbers. A person reads the rest with this rubric (0 to 2 points a row; 8 of 12 pass): the claim
# could have failed; the rate was tuned for each arm, on other seeds; `margin` has a reason; collapsed runs are looked at
# (what do they say?) and not thrown away; mean and median are both read, and a difference between them is explained; the
# ending says what was not shown.


# %% nbgrader={"grade_id": "answer_10_6", "solution": true}
def study():
    """Return the dict of the table."""
    ### BEGIN SOLUTION
    model, traits = trained_decoder()
    g = torch.Generator().manual_seed(77)
    ids, mask = short_texts(400, g)
    y = traits[ids[:, 0] - 4][:, [1, 2]].all(1).long()
    starts = {"small start": 0.05, "large start": 2.0}

    def scores(std, rate, seeds, steps=60):
        """Test accuracies of one prompt for each seed, all trained in one batch: rows 0 to 99 train, the others test."""
        draws = [torch.Generator().manual_seed(seed) for seed in seeds]
        P = torch.stack([std * torch.randn(4, WIDTH, generator=draw) for draw in draws]).requires_grad_()
        adam = torch.optim.Adam([P], lr=rate)

        def read(rows):
            B, S = rows.shape[1], len(seeds)
            vectors = torch.cat([P[:, None].expand(-1, B, -1, -1), model.table(ids[rows])], 2).flatten(0, 1)
            seen = F.pad(mask[rows], (4, 0), value=1).flatten(0, 1)
            z = model(vectors, seen, torch.arange(13).expand(S * B, -1))
            return z[torch.arange(S * B), seen.sum(1) - 1][:, [NO, YES]]

        for step in range(steps):
            adam.param_groups[0]["lr"] = rate * (1 - step / steps)
            rows = torch.stack([torch.randint(100, (24,), generator=draw) for draw in draws])
            adam.zero_grad()
            (F.cross_entropy(read(rows), y[rows].flatten()) * len(seeds)).backward(inputs=[P])
            adam.step()
        with torch.no_grad():
            rows = torch.arange(100, 400).expand(len(seeds), -1)
            hit = read(rows).argmax(1) == y[rows].flatten()
        return hit.view(len(seeds), -1).double().mean(1).tolist()

    arms, tuning_seeds, seeds, rates = list(starts), [0, 1, 2], list(range(10, 22)), (0.1, 0.5)
    found = {}
    for arm, std in starts.items():
        tried = {rate: sum(scores(std, rate, tuning_seeds)) for rate in rates}
        found[arm] = scores(std, max(tried, key=tried.get), seeds)
    labels = torch.bincount(y[100:]).tolist()
    chance, margin, bar = max(labels) / sum(labels), 0.05, 0.02
    failed = {arm: sum(score < chance + margin for score in found[arm]) for arm in arms}
    shares = {arm: intervals.wilson_interval(len(seeds) - failed[arm], len(seeds)) for arm in arms}
    gap = intervals.paired_bootstrap(found[arms[0]], found[arms[1]])
    verdict = "supported" if gap.low > bar else "refuted" if gap.high < bar else "undecided"
    return {
        "claim": "After 60 steps at its own rate, a small start is more accurate than a large start by more than 2 points: "
        "four vectors, a decoder of one layer, two traits at once.",
        "arms": arms, "threshold": bar, "labels": labels, "chance": chance, "margin": margin,
        "trials": dict.fromkeys(arms, len(rates)), "tuning_seeds": tuning_seeds, "seeds": seeds, "scores": found,
        "collapsed": failed, "trained": {arm: (one.mean, one.low, one.high) for arm, one in shares.items()},
        "mean": {arm: statistics.mean(found[arm]) for arm in arms},
        "median": {arm: statistics.median(found[arm]) for arm in arms},
        "difference": gap.mean, "low": gap.low, "high": gap.high,
        "verdict": "did not train" if max(failed.values()) > len(seeds) / 2 else verdict,
    }  # fmt: skip
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_10_6", "locked": true}
STUDY = (
    "claim arms threshold labels chance margin trials tuning_seeds seeds scores collapsed trained mean median difference low "
    "high verdict"
).split()


def design_10_6(mine):
    """Arms, chance, margin and seeds."""
    arms = list(mine["arms"])
    assert len(set(arms)) == len(arms) == 2, "arms: two different names, your bet first."
    for arm in arms:
        assert arm in mine["claim"], f"claim: {arm!r} does not occur. A claim names what it compares."
    for key in ("trials", "scores", "collapsed", "trained", "mean", "median"):
        assert isinstance(mine[key], dict) and set(mine[key]) == set(arms), f"{key}: one entry for each arm."
    labels = list(mine["labels"])
    assert len(labels) >= 2 and min(labels) >= 0 < sum(labels), "labels: how many test items have each label."
    most, even = max(labels) / sum(labels), 1 / len(labels)
    wrong = {
        "chance: that is one over the number of labels. Saying the most frequent one every time is right more often.": even,
        "chance: that is the rarer label.": min(labels) / sum(labels),
    }
    checking.equal(mine["chance"], most, "chance", wrong, tol=1e-6)
    assert 0 < mine["margin"] < 1 - most, "margin: above 0, and low enough that a run can pass it."
    assert len(set(mine["trials"].values())) == 1, "trials: who may try more settings wins by that alone."
    for key, least in (("tuning_seeds", 3), ("seeds", 10)):
        assert len(set(mine[key])) == len(mine[key]) >= least, f"{key}: at least {least}, no two alike."
    shared = sorted(set(mine["tuning_seeds"]) & set(mine["seeds"]))
    assert not shared, f"seeds: {shared} chose the settings. A setting looks best where it was chosen."
    return arms, most + mine["margin"]


def runs_10_6(mine, arms, bar):
    """Scores as arrays, after a look at all that is said about single arms."""
    n, found = len(mine["seeds"]), {}
    for arm in arms:
        x = found[arm] = np.array(mine["scores"][arm], dtype=float)
        assert x.shape == (n,), (
            f"scores[{arm!r}]: {n} seeds, {x.size} scores. Every run is reported, those that learned nothing, too."
        )
        assert np.isfinite(x).all() and (x >= 0).all() and (x <= 1).all(), "scores: accuracies from 0 to 1."
        failed, good = int((x < bar).sum()), x[x >= bar]
        wrong = {f"collapsed[{arm!r}]: that is the number of runs that trained.": n - failed}
        checking.equal(mine["collapsed"][arm], failed, f"collapsed[{arm!r}]", wrong)
        share = 1 - failed / n
        right, half = intervals.wilson_interval(n - failed, n), 1.959964 * math.sqrt(share * (1 - share) / n)
        got = mine["trained"][arm]
        assert isinstance(got, list | tuple) and len(got) == 3, (
            f"trained[{arm!r}]: (share, low, high) expected."
        )
        if failed:
            wrong = {f"{key}[{arm!r}]: the collapsed runs are left out. They are runs, too.": of(good) if len(good) else 0.0
                for key, of in (("mean", np.mean), ("median", np.median))}  # fmt: skip
        else:
            wrong = {}
        checking.equal(mine["mean"][arm], float(x.mean()), f"mean[{arm!r}]", wrong, tol=1e-6)
        checking.equal(mine["median"][arm], float(np.median(x)), f"median[{arm!r}]", wrong, tol=1e-6)
        plain = "p ± 1.96 standard errors. With few runs, or none that failed, that is wrong: take Wilson's interval."
        for k, want in enumerate((right.mean, right.low, right.high)):
            wrong = {f"trained[{arm!r}]: {plain}": (share, share - half, share + half)[k]} if k else {}
            checking.equal(got[k], want, f"trained[{arm!r}][{k}]", wrong, tol=1e-4)
    return found


def check_10_6(study):
    mine = checking.handed_in(study, STUDY, limit=60.0)
    arms, bar = design_10_6(mine)
    found = runs_10_6(mine, arms, bar)
    bet, other = found[arms[0]], found[arms[1]]
    assert (bet - other).std() > 0, (
        "scores: all differences are the same number. Something is not drawn anew."
    )
    right, t = intervals.paired_bootstrap(bet, other), intervals.t_interval(bet - other)
    flipped = "difference: the bet minus the other arm."
    checking.equal(mine["difference"], right.mean, "difference", {flipped: -right.mean}, tol=1e-6)
    both = (bet >= bar) & (other >= bar)
    rest = intervals.paired_bootstrap(bet[both], other[both]) if both.sum() > 1 else right
    wrong = {
        "low: that is Student's t interval. With scores in two heaps take the bootstrap over seeds.": t.low,
        "low: seeds with a collapsed run are left out. That is the question, not a nuisance.": rest.low,
    }
    checking.equal(mine["low"], right.low, "low", wrong, tol=1e-6)
    checking.equal(mine["high"], right.high, "high", tol=1e-6)
    limit = mine["threshold"]
    assert limit >= 0, "threshold: 0 or more."
    verdict = "supported" if right.low > limit else "refuted" if right.high < limit else "undecided"
    most = max(mine["collapsed"].values())
    if most > len(mine["seeds"]) / 2:
        assert mine["verdict"] == "did not train", (
            f"verdict: {most} of {len(mine['seeds'])} runs of one arm learned nothing. That does not compare two ways "
            "that work: 'did not train'."
        )
    else:
        assert mine["verdict"] == verdict, (
            f"verdict: [{right.low:.3f}, {right.high:.3f}] against {limit:g} says {verdict}."
        )
    print(f"10.6 passed: {mine['verdict']}. Now a person reads the study with the rubric.")


check_10_6(study)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Prompts of many seeds fit into one batch: a tensor $(S, n, d)$, and the rows of one seed after those of another. Twelve runs
# then cost little more than one.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Plot all scores of both arms as dots before you compute anything. If there are two heaps, look at the rate first: are the
# collapsed runs those of one rate?
#
# </details>
#
# {{solution}}
