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
import torch

# %% [markdown]
# ## 10.1 The gradient of a prompt
#
# > ●●○○○ · 10 minutes · practice
#
# A small model takes the *sum* of the prompt vectors $P$, shape $(n, d)$, and the text vectors $x$, shape $(T, d)$, and gives
# logits $z = W h$ with $W$ of shape $(K, d)$. (Lesson 10 took the mean.) The loss is the cross-entropy of class $y$.
#
# Return the gradient of the loss with respect to $P$, in closed form. No autograd.


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
def check_10_1(prompt_gradient):
    g = torch.Generator().manual_seed(0)
    P, x, W = (torch.randn(*s, generator=g).double() / 3 for s in ((3, 4), (5, 4), (6, 4)))
    got = prompt_gradient(P.clone(), x, W, 2)
    assert got is not None, "The function returned None. Did you forget return?"
    assert got.shape == P.shape, (
        f"Shape {tuple(P.shape)} expected, one row per prompt vector, not {tuple(got.shape)}."
    )

    def loss(P):
        return -torch.log_softmax(W @ (P.sum(0) + x.sum(0)), -1)[2]

    want = torch.func.grad(loss)(P)
    assert not torch.allclose(got, -want), (
        "The sign is wrong: probabilities minus the truth, not the reverse."
    )
    assert not torch.allclose(got * 8, want), (
        "You divided by n + T. Here the vectors are added, not averaged."
    )
    assert torch.allclose(got, want), (
        "The values are wrong: the residual has to go back through W, transposed."
    )
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
# $1/\sqrt{d}$. Return two tensors: the outputs, shape $(T, d)$, and for each query its $\lambda$, the share of attention that
# the prefix gets, shape $(T,)$.


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
    return [torch.randn(rows, d, generator=g).double() for rows in (T, T, T, n, n)]


def wanted_attention(Q, K, V, PK, PV, scale):
    a = (Q @ PK.T * scale).exp()
    b = (Q @ K.T * scale).exp()
    A, B = a.sum(1, keepdim=True), b.sum(1, keepdim=True)
    return (a @ PV + b @ V) / (A + B), (A / (A + B))[:, 0]


def check_10_2(prefix_attention):
    case = made_attention(0, n=2, T=3, d=4)
    got = prefix_attention(*case)
    assert got is not None, "The function returned None. Did you forget return?"
    assert len(got) == 2, "Two tensors expected: outputs and shares."
    out, share = got
    assert out.shape == (3, 4), f"outputs: shape (3, 4) expected, not {tuple(out.shape)}."
    assert share.shape == (3,), f"share: shape (3,) expected, one number per query, not {tuple(share.shape)}."
    want, lam = wanted_attention(*case, scale=0.5)
    unscaled, _ = wanted_attention(*case, scale=1.0)
    assert not torch.allclose(out, unscaled), "The scores are not divided by the root of d."
    Q, K, V, PK, PV = case
    apart = torch.softmax(Q @ PK.T / 2, -1) @ PV + torch.softmax(Q @ K.T / 2, -1) @ V
    assert not torch.allclose(out, apart), (
        "You normalised prefix and text apart and added the two. They share one softmax: lambda and 1 - lambda."
    )
    assert torch.allclose(out, want), (
        "outputs: one softmax over prefix and text together, times the values of both."
    )
    assert not torch.allclose(share, 1 - lam), "share: that is the text's share. The prefix has the rest."
    assert torch.allclose(share, lam), "share: the sum of the weights of the prefix places, for each query."
    print("10.2 passed.")


check_10_2(prefix_attention)
### BEGIN HIDDEN TESTS


def hidden_10_2(prefix_attention):
    for seed, n, T, d in ((1, 1, 5, 9), (2, 7, 2, 3)):
        case = made_attention(seed, n, T, d)
        out, share = prefix_attention(*case)
        want, lam = wanted_attention(*case, scale=d**-0.5)
        assert torch.allclose(out, want) and torch.allclose(share, lam), (
            f"Wrong for n = {n}, T = {T}, d = {d}."
        )
    big = [t * 60 for t in made_attention(3, 2, 3, 4)]
    out, share = prefix_attention(*big)
    assert torch.isfinite(out).all() and torch.isfinite(share).all(), (
        "Large scores give inf or nan. Use a softmax that subtracts the largest score."
    )


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
# Write it right. The prompt must be seen, it must receive a gradient, and its places must not be asked for a label.


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
def check_10_3(prepend):
    g = torch.Generator().manual_seed(0)
    x, P = torch.randn(2, 3, 4, generator=g), torch.randn(2, 4, generator=g).requires_grad_()
    mask, labels = torch.tensor([[1, 1, 1], [1, 1, 0]]), torch.tensor([[0, 2, 1], [1, 0, -100]])
    got = prepend(x, mask, labels, P)
    assert got is not None, "The function returned None. Did you forget return?"
    vectors, longer, more = got
    assert vectors.shape == (2, 5, 4), f"vectors: shape (2, 5, 4) expected, not {tuple(vectors.shape)}."
    assert torch.equal(vectors[:, 2:], x), "vectors: the prompt stands in front, the text follows unchanged."
    assert torch.equal(vectors[:, :2], P.expand(2, -1, -1)), (
        "vectors: the first places are the prompt, in each row."
    )
    assert vectors.requires_grad, "P gets no gradient: the graph was cut. Training cannot move it."
    assert longer.shape == more.shape == (2, 5), "mask and labels: shape (2, 5) expected."
    assert longer[:, :2].all(), "mask: 0 hides the prompt from every token. Nobody reads it."
    assert torch.equal(longer[:, 2:], mask), "mask: the text keeps its mask, padding included."
    assert not (more[:, :2] == 0).any(), (
        "labels: 0 is a class. The places of the prompt would be trained towards it."
    )
    assert (more[:, :2] == -100).all(), "labels: -100 says that a place has no target."
    assert torch.equal(more[:, 2:], labels), "labels: those of the text stay."
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
    mine = prediction()
    assert mine is not None, "The function returned None. Return your dict."
    assert set(mine) == {"prompt", "deep", "stored", "no_op"}, "Four keys: see the list above."
    assert all(isinstance(value, int) for value in mine.values()), "Four whole numbers expected."
    assert mine["prompt"] == 20 * 384, "prompt: one vector of the model's width per place, at the input only."
    assert mine["deep"] != 6 * 20 * 384, "deep: you counted keys or values. Each layer has both."
    assert mine["deep"] == 2 * 6 * 20 * 384, "deep: places times layers times two times the width."
    assert mine["stored"] == mine["deep"], (
        "stored: the network is only a way to compute keys and values. What is used later is what it computed."
    )
    assert mine["no_op"] != 1, (
        "no_op: a key of zero has the score zero, not minus infinity. It takes its share of every softmax."
    )
    assert mine["no_op"] == 0, "no_op: 0 or 1."
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
