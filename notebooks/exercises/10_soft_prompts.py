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
# that you do not see here, so test more than the checker does. Nothing on this page needs a model, a data
# set or a network.
#
# {{overview}}

# %%
import math

import torch

from instructlab_utils import checking

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
