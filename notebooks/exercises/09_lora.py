# ---
# jupyter:
#   instructlab:
#     id: "09"
#     title: The LoRA family and AdaLoRA
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 09: the LoRA family and AdaLoRA
#
# Each exercise is a box, a cell for your answer, and a checker in the cell below it. Replace the line that
# raises `NotImplementedError`, then run both cells. A checker that says no also says what probably went
# wrong.
#
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases
# that you do not see here, so test more than the checker does. The page needs no network and no file.
# Exercise 09.6 is a hunt by measuring, exercise 09.7 trains small networks, and exercise 09.8 is a project. Each of
# these three is worth an evening.
#
# {{overview}}

# %%
import copy
import math

import numpy as np
import torch
from torch.nn import functional as F

from instructlab_utils import checking, intervals


def randn(*shape, seed=0):
    """Normal numbers in float64, the same for the same seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# %% [markdown]
# ## 09.1 What the two matrices see
#
# > ●●○○○ · 12 minutes · practice
#
# A batch of $N$ inputs, the rows of `x`, goes through $y = W x + s\, B A x$. The loss has told you its
# gradient with respect to the outputs: row $t$ of `dy` is $\partial \mathcal L / \partial y_t$. Write the
# gradients of $A$ and of $B$, in closed form, without autograd. The loss is already divided by whatever it
# should be divided by: add up over the batch. Return a tuple or a list, first the gradient of $A$, then that of $B$, in
# the dtype of the arguments.


# %% nbgrader={"grade_id": "answer_09_1", "solution": true}
def lora_gradients(x, dy, A, B, s):
    """x (N, m), dy (N, n), A (r, m), B (n, r), scale s. Returns the gradients of A and of B, in their shapes."""
    ### BEGIN SOLUTION
    G = dy.T @ x
    return s * B.T @ G, s * G @ A.T
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_09_1", "locked": true}
def by_autograd(x, dy, A, B, s):
    A, B = A.clone().requires_grad_(), B.clone().requires_grad_()
    return torch.autograd.grad(s * x @ A.T @ B.T, (A, B), dy)


def check_09_1(lora_gradients):
    call = checking.calls(lora_gradients)
    x, dy, A, B, s = randn(5, 4), randn(5, 6, seed=1), randn(3, 4, seed=2), randn(6, 3, seed=3), 1.7
    got, want = call(x, dy, A, B, s), by_autograd(x, dy, A, B, s)
    assert isinstance(got, list | tuple) and len(got) == 2, "Return two gradients: that of A, then that of B."
    assert [tuple(part.shape) for part in got] != [(6, 3), (3, 4)], (
        "You return the gradient of B first. The order is A, then B."
    )
    says = "A gradient has the shape of what it belongs to."
    for name, mine, right in zip("AB", got, want, strict=True):
        assert getattr(mine, "shape", None) == right.shape, (
            f"{name} has shape {tuple(right.shape)}, your gradient {tuple(getattr(mine, 'shape', ()))}. {says}"
        )
    for name, mine, right in zip("AB", got, want, strict=True):
        wrong = {
            f"{name}: the scale s is missing. It stands in front of B A, so it stands in both gradients.": right
            / s,
            f"{name}: the scale s appears twice. y is linear in s.": right * s,
            f"{name}: you divide by s. It stands in front of B A, so it stands in both gradients.": right
            / s**2,
            f"{name}: you divide by the rank. s is the whole scale, alpha / r already.": right / 3,
            f"{name}: no gradient. It is 0 only while the other matrix is 0, as at the start of training.": 0
            * right,
            f"{name}: you took the mean over the batch. The loss was divided already; add up.": right / 5,
            f"{name}: the sign is wrong. dy is the gradient already; the optimiser subtracts, not you.": -right,
            f"{name}: only the first row of the batch counts. Add up over all rows.": by_autograd(
                x[:1], dy[:1], A, B, s
            )["AB".index(name)],
            f"{name}: only the last row of the batch counts. Add up over all rows.": by_autograd(
                x[-1:], dy[-1:], A, B, s
            )["AB".index(name)],
            f"{name}: you add up the batch first, then multiply. A sum of products is no product of sums.": by_autograd(
                x.sum(0, keepdim=True), dy.sum(0, keepdim=True), A, B, s
            )["AB".index(name)],
        }
        checking.equal(mine, right, name, wrong, dtype=torch.float64)
    by_hand = "The values are right, but they need autograd. Write the gradients in closed form."
    with torch.no_grad(), checking.means(RuntimeError, by_hand):
        call(x, dy, A, B, s)
    call.agrees(
        by_autograd, (x, dy, A, 0 * B, s), name="(dA, dB)", says="With B = 0 only B may have a gradient."
    )
    for N, n, m, r in ((1, 2, 7, 3), (6, 4, 4, 4), (3, 3, 2, 1)):
        case = randn(N, m), randn(N, n, seed=1), randn(r, m, seed=2), randn(n, r, seed=3), 0.25
        says = (
            f"N = {N}, n = {n}, m = {m}, r = {r}: where sizes are equal, a transposed matrix fails no shape."
        )
        call.agrees(by_autograd, case, name="(dA, dB)", says=says)
    single = [value.float() for value in (x, dy, A, B)]
    says = "Arguments in float32: so are the gradients."
    call.agrees(by_autograd, (*single, 2), name="(dA, dB)", dtype=torch.float32, says=says)
    print("09.1 passed. With B = 0 the gradient of A is exactly 0, and B moves first.")


check_09_1(lora_gradients)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The gradient of a full weight would be $G = \sum_t \partial\mathcal L/\partial y_t \; x_t^\top$, one matrix
# product of `dy` and `x`.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# $W + s B A$ is the full weight. The chain rule multiplies $G$ by what stands beside the factor you ask for,
# transposed, on the same side.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 09.2 The layer that learns nothing, or too much
#
# > ●●●○○ · 20 minutes · practice · bug hunt
#
# This layer was written in a hurry. It runs, and every shape is right. It holds five mistakes: in what is
# trained, in the first values, in the scale, and in the merge. Find them.


# %%
class BrokenLora(torch.nn.Module):
    def __init__(self, base, r, alpha):
        super().__init__()
        self.base, self.r, self.alpha = base, r, alpha
        self.A = torch.nn.Parameter(torch.zeros(r, base.in_features, dtype=base.weight.dtype))
        self.B = torch.nn.Parameter(torch.zeros(base.out_features, r, dtype=base.weight.dtype))

    def forward(self, x):
        return self.base(x) + self.alpha * F.linear(F.linear(x, self.A), self.B)

    @torch.no_grad()
    def merge(self):
        self.base.weight += self.B @ self.A

    @torch.no_grad()
    def unmerge(self):
        self.base.weight -= self.B @ self.A


# %% [markdown]
# Write it right, as a class inside the function or outside of it; the function returns one layer. Keep `base`
# under that name. The scale is $\alpha / r$. Before training the output is that of `base`. Only $A$ and $B$
# train, and they have the dtype of `base`. `merge` puts the change into the weight of `base` (the same tensor, in place),
# `unmerge` takes it out again, and the output is the same before, between and after. `base` may lack a bias.


# %% nbgrader={"grade_id": "answer_09_2", "solution": true}
def lora_layer(base, r, alpha):
    """A module around the linear layer `base`: forward(x), merge(), unmerge(), parameters A (r, in) and B (out, r)."""

    ### BEGIN SOLUTION
    class LoraLayer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.base, self.s, self.merged = base.requires_grad_(False), alpha / r, False
            self.A = torch.nn.Parameter(torch.randn(r, base.in_features, dtype=base.weight.dtype) / r)
            self.B = torch.nn.Parameter(torch.zeros(base.out_features, r, dtype=base.weight.dtype))

        def forward(self, x):
            y = self.base(x)
            return y if self.merged else y + self.s * F.linear(F.linear(x, self.A), self.B)

        @torch.no_grad()
        def merge(self):
            self.base.weight += self.s * self.B @ self.A
            self.merged = True

        @torch.no_grad()
        def unmerge(self):
            self.base.weight -= self.s * self.B @ self.A
            self.merged = False

    return LoraLayer()
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_09_2", "locked": true}
def check_09_2(lora_layer):
    call = checking.calls(lora_layer)
    base = torch.nn.Linear(5, 4).double()
    plain, x = copy.deepcopy(base), randn(3, 5)
    layer = call(base, 2, 6)
    assert isinstance(layer, torch.nn.Module), f"Return the layer, a Module, not {type(layer).__name__}."
    assert getattr(layer, "base", None) is base, "Keep the layer that you were given, as `base`."
    for name in ("merge", "unmerge"):
        assert callable(getattr(layer, name, None)), f"The layer has no method {name}."
    names = {name for name, p in layer.named_parameters() if p.requires_grad}
    assert "base.weight" not in names, (
        "The base still trains. LoRA freezes it: that is where the memory goes."
    )
    assert "base.bias" not in names, "The bias of the base still trains. LoRA freezes it with the weight."
    assert names == {"A", "B"}, f"A and B should train, and nothing else; you have {sorted(names)}."
    assert layer.A.shape == (2, 5) and layer.B.shape == (4, 2), "A is (r, in), B is (out, r)."
    assert layer.A.dtype == layer.B.dtype == torch.float64, "A and B have another dtype than the base."

    def forward(x):
        return checking.calls(layer.forward)(x)

    assert torch.allclose(forward(x), plain(x), atol=1e-12), (
        "Before training the output differs from the base's. One of A and B must start at 0."
    )
    out = layer(x)
    assert out.requires_grad, (
        "No gradient reaches A and B: forward cuts the graph (.detach(), .data, no_grad)."
    )
    out.square().sum().backward()
    slopes = [p.grad is not None and bool(p.grad.any()) for p in (layer.A, layer.B)]
    assert any(slopes), "Both gradients are 0: A and B start at 0 together, so neither ever moves."
    with torch.no_grad():
        layer.A.copy_(randn(2, 5, seed=1))
        layer.B.copy_(randn(4, 2, seed=2))
    layer.zero_grad()
    layer(x).square().sum().backward()
    assert layer.A.grad is not None and layer.A.grad.any(), "No gradient reaches A once B is not 0."
    assert layer.B.grad is not None and layer.B.grad.any(), "No gradient reaches B once A is not 0."
    change = (layer.B @ layer.A).detach()
    out = forward(x).detach()
    wrong = {
        message: plain(x) + scale * x @ change.T
        for message, scale in {
            "You multiply by alpha. The scale is alpha / r, or every rank learns at its own pace.": 6,
            "The scale is missing: you add B A x as it is.": 1,
            "The scale is r / alpha here, turned round.": 2 / 6,
            "The scale is alpha / sqrt(r) here: that is rsLoRA's.": 6 / 2**0.5,
            "You divide by r twice.": 1.5,
            "You divide by r, and alpha is missing.": 0.5,
            "The change does not reach the output. Compute it from A and B at each call.": 0,
            "The change is subtracted.": -3,
        }.items()
    }
    right = plain(x) + 3 * x @ change.T
    wrong["The output is the change alone: the base's is missing."] = 3 * x @ change.T
    checking.equal(out, right, "the output", wrong, says="W x + b + (alpha / r) B A x.")
    weight = layer.base.weight
    no_graph = (
        "merge writes the graph of A and B into the weight: it is no frozen leaf then. Use torch.no_grad()."
    )
    with checking.means(ValueError, no_graph):
        checking.calls(layer.merge, none=True)()
    assert layer.base.weight is weight, "merge made a new weight. Change the one that is there, in place."
    assert not layer.base.weight.requires_grad, no_graph
    inside = (layer.base.weight - plain.weight).detach()
    wrong = {
        "The merged weight is W + B A: the scale was forgotten at the merge.": change,
        "merge multiplies by alpha. The scale is alpha / r, here too.": 6 * change,
        "merge left the weight as it was.": 0 * change,
        "merge subtracts.": -3 * change,
    }
    checking.equal(inside, 3 * change, "what merge added", wrong, says="Not (alpha / r) B A.")
    wrong = {
        "After merge the change counts twice: once in the weight, once beside it.": right + 3 * x @ change.T,
        "After merge the change is gone.": plain(x),
    }
    checking.equal(forward(x), right, "the output after merge", wrong)
    checking.equal(layer.base.bias, plain.bias, "the bias after merge", says="merge touches the weight only.")
    checking.calls(layer.unmerge, none=True)()
    says = "unmerge does not give the weight back. Subtract what merge added, scale included."
    assert layer.base.weight is weight, "unmerge made a new weight. Change the one that is there, in place."
    checking.equal(layer.base.weight, plain.weight, "the weight", says=says)
    says = "After unmerge the output differs: the change beside the weight is switched off."
    checking.equal(forward(x), right, "the output", says=says)
    layer.merge()
    checking.equal(forward(x), right, "the output", says="Merged once more:")
    for n_in, n_out, r, alpha in ((3, 6, 4, 2), (4, 4, 1, 0.5)):
        base = torch.nn.Linear(n_in, n_out, bias=n_in != 3)
        plain, x = copy.deepcopy(base), randn(2, 7, n_in).float()
        says = (
            f"in = {n_in}, out = {n_out}, r = {r}, alpha = {alpha}, float32, bias: {base.bias is not None}."
        )
        with checking.means(AttributeError, f"{says} A layer without a bias has None there."):
            layer = call(base, r, alpha)
        assert layer.A.shape == (r, n_in) and layer.B.shape == (n_out, r), f"{says} A is (r, in), B (out, r)."
        with torch.no_grad():
            layer.A.copy_(randn(r, n_in, seed=3))
            layer.B.copy_(randn(n_out, r, seed=4))
            right = plain(x) + alpha / r * x @ (layer.B @ layer.A).T
            whole = plain(x) + alpha // r * x @ (layer.B @ layer.A).T
            wrong = {f"{says} The scale alpha // r is a whole number. Divide by /.": whole}
            out = checking.calls(layer.forward)(x)
            checking.equal(out, right, "the output", wrong, dtype=torch.float32, says=says)
            layer.merge()
            checking.equal(layer(x), right, "the output", says=f"{says} After merge:")
    print("09.2 passed. Same output beside, inside, and beside again.")


check_09_2(lora_layer)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Ask of each line: what if $r$ doubles? What if `forward` is called after `merge`? Who has `requires_grad`?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# You need one number, $s = \alpha / r$, in three places, and one flag that says whether the change is in the
# weight.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 09.3 One budget for the whole model
#
# > ●●●○○ · 15 minutes · graded
#
# AdaLoRA has scored every triplet of every matrix. `scores` maps the name of a matrix to an array with one
# score per triplet. Keep the `budget` most important triplets *of the whole model*. Return, for each name, a
# boolean array of the same length. A matrix may lose all its triplets. Exactly `budget` triplets stay, also
# where scores are equal: then the earlier name in the dict wins, and within a matrix the earlier triplet. Scores
# that differ in their last digits are not equal.
#
# A budget below 0 or above the number of triplets is a `ValueError`.


# %% nbgrader={"grade_id": "answer_09_3", "solution": true}
def allocate(scores, budget):
    """Boolean arrays by name: True for the `budget` highest scores of all arrays together."""
    ### BEGIN SOLUTION
    flat = np.concatenate(list(scores.values()))
    if not 0 <= budget <= len(flat):
        raise ValueError(f"budget {budget}: choose from 0 to {len(flat)}")
    kept = np.zeros(len(flat), dtype=bool)
    kept[np.argsort(-flat, kind="stable")[:budget]] = True
    ends = np.cumsum([len(part) for part in scores.values()])[:-1]
    return dict(zip(scores, np.split(kept, ends), strict=True))
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_09_3", "grade": true, "points": 3, "locked": true}
SCORES = {
    "query": np.array([0.1, 0.2, 0.15]),
    "value": np.array([0.9, 0.8, 0.7]),
    "ffn": np.array([0.3, 0.6, 0.05]),
}


def one_by_one(scores, budget):
    """The best of those that are left, again and again."""
    kept = {name: np.zeros(len(part), dtype=bool) for name, part in scores.items()}
    for _ in range(budget):
        left = [(name, i) for name, part in kept.items() for i in range(len(part)) if not part[i]]
        name, i = max(left, key=lambda place: scores[place[0]][place[1]])
        kept[name][i] = True
    return kept


def check_09_3(allocate):
    call = checking.calls(allocate)
    got, want = call(SCORES, 4), one_by_one(SCORES, 4)
    checking.form(got, want, "the masks")
    for name, part in got.items():
        assert part.dtype == bool, f"{name}: a boolean array expected, not {part.dtype}."
    assert list(got) == list(SCORES), "The result has one entry per matrix, in the same order."
    total = sum(map(sum, got.values()))
    assert not all(sum(part) >= 1 for part in got.values()), (
        "Every matrix keeps a triplet. The budget belongs to the model, not to the matrix: query should lose all."
    )
    assert any((got[name] == want[name]).any() for name in want), (
        "True and False are turned round: True is what stays."
    )
    assert total != 5, (
        "Five triplets stay. 'Those that are not masked' and 'those below the threshold' differ by one."
    )
    assert total != 3, "Three triplets stay: the one at the threshold has gone, too. The budget is four."
    less = {name: -part for name, part in SCORES.items()}
    wrong = {
        "You keep the least important. High scores stay.": one_by_one(less, 4),
        "The first triplets stay, whatever their scores.": one_by_one(
            {n: 0 * s for n, s in SCORES.items()}, 4
        ),
    }
    says = f"{total} triplets stay; the budget is 4."
    checking.equal(got, want, "the masks", wrong, says=says)
    print("09.3 passed the visible cases: query lost all its triplets, value none.")


check_09_3(allocate)
### BEGIN HIDDEN TESTS


def hidden_09_3(allocate):
    call = checking.calls(allocate)
    ties = {"a": np.array([0.0, 0.0]), "b": np.array([0.0, 1.0])}
    got = call(ties, 2)
    assert sum(map(sum, got.values())) == 2, (
        "Equal scores: more or fewer triplets stay than the budget says. Rank, do not compare with a threshold."
    )
    every = "The array of each name has as many entries as its scores."
    ragged = {"a": np.array([0.1]), "b": np.array([0.5, 0.4, 0.3])}
    with checking.means(ValueError, f"Matrices may have different ranks. {every}"):
        call.agrees(one_by_one, (ragged, 2), name="the masks", says="Matrices may have different ranks.")

    def by_name(scores, budget):
        kept = one_by_one({name: scores[name] for name in sorted(scores)}, budget)
        return {name: kept[name] for name in scores}

    wrong = {
        "Equal scores: the name that is earlier in the dict wins, not the one earlier in the alphabet.": by_name
    }
    says = "Equal scores: the earlier one wins. Your sort does not keep the order of equals."
    rng, few = np.random.default_rng(0), np.random.default_rng(1)
    tied = [{str(9 - m): few.integers(0, 3, 40 + m) / 4.0 for m in range(4)} for _ in range(2)]
    call.agrees(
        one_by_one, (ties, 2), *[(case, 57) for case in tied], name="the masks", wrong=wrong, says=says
    )
    for budget, says in {0: "A budget of 0 keeps nothing.", 9: "A budget of all triplets keeps all."}.items():
        with checking.means(ValueError, f"{says} That is allowed, and no ValueError."):
            call.agrees(one_by_one, (SCORES, budget), name="the masks", says=says)
    below = {"a": np.array([-3.0, -0.5, -2000.0]), "b": np.array([-1.0, 2000.0])}
    for budget in (1, 2, 3, 4):
        says = "Scores below zero, and thousands apart."
        call.agrees(one_by_one, (below, budget), name="the masks", says=says)
    close = {"a": np.array([0.1, 0.1 + 1e-12]), "b": np.array([0.1 + 2e-12, 0.1 - 1e-12])}
    says = "Scores that differ in the twelfth digit only: they are float64, and float32 makes them equal."
    call.agrees(one_by_one, *[(close, budget) for budget in (1, 2, 3)], name="the masks", says=says)
    one = {"only": rng.random(7)}
    call.agrees(one_by_one, (one, 3), (one, 6), name="the masks", says="A single matrix.")
    many = {f"{m}": rng.random(m + 1).astype(np.float32) for m in range(6)}
    call.agrees(one_by_one, *[(many, budget) for budget in (1, 8, 20)], name="the masks")
    for budget in (-1, 10):
        says = f"A budget of {budget} went through. There are nine triplets."
        call.refuses(ValueError, SCORES, budget, says=says)


hidden_09_3(allocate)
### END HIDDEN TESTS

# %% [markdown]
# ## 09.4 How much do two updates share?
#
# > ●●●○○ · 15 minutes · practice
#
# Two runs have changed the same matrix, by $D$ and by $E$. Let $V_i$ hold the first $i$ right singular vectors
# of $D$ as columns, $V'_j$ the first $j$ of $E$. Write
#
# $$ \phi(i, j) = \frac{\lVert V_i^\top V'_j \rVert_F^2}{\min(i, j)} , $$
#
# a number. The matrices need not be square.


# %% nbgrader={"grade_id": "answer_09_4", "solution": true}
def overlap(D, E, i, j):
    """phi(i, j) of the input directions of D and E, both (n, m): a number from 0 to 1."""
    ### BEGIN SOLUTION
    V, V_ = torch.linalg.svd(D).Vh[:i], torch.linalg.svd(E).Vh[:j]
    return ((V @ V_.T).square().sum() / min(i, j)).item()
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_09_4", "locked": true}
def by_projectors(D, E, i, j):
    """From the eigenvectors of D.T D and E.T E."""
    V, V_ = (torch.linalg.eigh(M.double().T @ M.double()).eigenvectors.flip(1) for M in (D, E))
    shared = sum((V[:, a] @ V_[:, b]) ** 2 for a in range(i) for b in range(j))
    return (shared / min(i, j)).item()


def check_09_4(overlap):
    call = checking.calls(overlap)
    D, E = randn(12, 9), randn(12, 9, seed=1)
    U, _, Vt = torch.linalg.svd(D, full_matrices=False)
    U_, _, Vt_ = torch.linalg.svd(E, full_matrices=False)
    together = (Vt[:2] @ Vt_[:4].T).square().sum().item()
    wrong = {
        "You did not divide. Two subspaces of size 2 and 4 can share at most 2.": together,
        "You divide by the larger size. A line inside a plane would share only half of itself.": together / 4,
        "You divide by i times j: the mean of squares, not the shared part.": together / 8,
        "You divide by i + j. The smaller subspace sets what can be shared.": together / 6,
        "The norm is not squared.": together**0.5 / 2,
        "The norm is squared twice.": together**2 / 2,
        "These are the left singular vectors: output directions. Ask for the right ones.": (
            U[:, :2].T @ U_[:, :4]
        )
        .square()
        .sum()
        .item()
        / 2,
        "svd returns V transposed: its rows are the vectors, you took columns.": (Vt[:, :2].T @ Vt_[:, :4])
        .square()
        .sum()
        .item()
        / 2,
        "These are the *weakest* directions: eigh sorts upwards, svd downwards.": (Vt[-2:] @ Vt_[-4:].T)
        .square()
        .sum()
        .item()
        / 2,
        "This is the sum of absolute values. The squared norm is the sum of squares.": (Vt[:2] @ Vt_[:4].T)
        .abs()
        .sum()
        .item()
        / 2,
        "The products are added before they are squared. A singular vector has no sign of its own.": (
            Vt[:2] @ Vt_[:4].T
        )
        .sum()
        .item()
        ** 2
        / 2,
        "You took the spectral norm, the largest singular value. The Frobenius norm sums all squares.": (
            torch.linalg.matrix_norm(Vt[:2] @ Vt_[:4].T, 2).item() ** 2 / 2
        ),
        "Each vector meets only the one of its own rank. The norm runs over all pairs.": (
            (Vt[:2] * Vt_[:2]).sum(1).square().sum().item() / 2
        ),
        "i and j have changed places.": by_projectors(D, E, 4, 2),
        "You compare D with itself.": 1.0,
    }
    got = call(D, E, 2, 4)
    checking.equal(got, together / 2, "phi(2, 4)", wrong)
    assert not getattr(got, "requires_grad", False) and getattr(got, "ndim", 0) == 0, "Return a number."
    wrong = {
        message: lambda D, E, i, j, size=size: by_projectors(D, E, i, j) * min(i, j) / size(i, j)
        for message, size in {
            "You divide by i, whichever is smaller.": lambda i, j: i,
            "You divide by j, whichever is smaller.": lambda i, j: j,
        }.items()
    }
    cases = (D, E, 5, 3), (D, E, 1, 1), (D, E, 3, 3), (randn(4, 7), randn(4, 7, seed=5), 3, 2)
    call.agrees(by_projectors, *cases, name="phi", wrong=wrong)
    says = "All nine input directions against all nine: they share everything."
    checking.equal(call(D, 7 * randn(12, 12, seed=2) @ D, 9, 9), 1.0, "phi(9, 9)", says=says)
    line = torch.outer(U[:, 0], Vt[0])
    says = "A line that lies inside the other subspace shares all of itself."
    checking.equal(call(line, D, 1, 3), 1.0, "phi(1, 3)", says=says)
    far = torch.eye(12, 9, dtype=torch.float64)
    says = "Two orthogonal directions share nothing."
    got_far = call(far[:, [0]] @ far[[0]], far[:, [1]] @ far[[1]], 1, 1)
    checking.equal(got_far, 0.0, "phi(1, 1)", says=says)
    for scale in (1e-6, 2000.0):
        says = f"D times {scale:g}: the size of an update does not change its directions."
        call.agrees(by_projectors, (scale * D, E, 2, 4), name="phi", says=says)
    print(f"09.4 passed. Two random matrices: phi(2, 4) = {float(got):.2f}, by chance, not by learning.")


check_09_4(overlap)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `torch.linalg.svd(D)` returns `U`, `S` and `Vh`. The *rows* of `Vh` are the right singular vectors, the
# strongest first.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The squared Frobenius norm of a matrix is the sum of the squares of its entries.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 09.5 Ranks, scales, counts
#
# > ●●○○○ · 10 minutes · practice · prediction
#
# A decoder has 10 layers. In each, LoRA changes one matrix of $512 \times 512$ (queries) and one of
# $128 \times 512$ (values, 128 outputs). Predict with pencil and paper:
#
# - `lora`: how many numbers LoRA of rank 4 trains, without a head;
# - `vera`: how many VeRA of rank 256 trains on the same matrices;
# - `gradient`: the rank goes from 4 to 64 with $\alpha$ fixed and $s = \alpha / r$; by what factor does the
#   norm of the first gradient of $B$ change?
# - `adam`: by what factor does the output's change after AdamW's *first* step change?
# - `adam_rslora`: the same with $s = \alpha / \sqrt r$.


# %% nbgrader={"grade_id": "answer_09_5", "solution": true}
def prediction():
    """Return a dict of five numbers: lora, vera, gradient, adam, adam_rslora."""
    ### BEGIN SOLUTION
    return {"lora": 66560, "vera": 11520, "gradient": 0.25, "adam": 1, "adam_rslora": 4}
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_09_5", "locked": true}
def check_09_5(prediction):
    mine = checking.predicted(prediction, ("lora", "vera", "gradient", "adam", "adam_rslora"))
    shapes = [(512, 512), (128, 512)]
    lora = 10 * sum(4 * (n + m) for n, m in shapes)
    vera = 10 * sum(256 + n for n, _ in shapes)
    wrong = {
        "lora: you took both matrices as square. The value matrix has 128 outputs.": 10 * 2 * 4 * (512 + 512),
        "lora: these are all numbers of W. A and B are thin.": 10 * sum(n * m for n, m in shapes),
        "lora: this is A alone, or the queries alone. B has (outputs times rank) more, and values count, too.": 10
        * 4
        * 1024,
        "lora: this is B alone, or the values alone. A has (rank times inputs) more, and queries count, too.": 10
        * 4
        * 640,
        "lora: this is one layer of ten.": lora // 10,
        "lora: the rank is missing.": lora // 4,
        "lora: the rank stands once in each of A and B, not twice.": lora * 4,
    }
    says = "lora: ten layers times r (n + m), added over both matrices."
    checking.equal(mine["lora"], lora, "lora", wrong, says=says)
    wrong = {
        "vera: you count the random matrices. They are frozen; two vectors train.": 10
        * sum(256 * (n + m) for n, m in shapes),
        "vera: you count the random matrices, too. They are frozen; two vectors train.": 10
        * sum(256 * (n + m) for n, m in shapes)
        + vera,
        "vera: this is d alone. b has one number per output.": 10 * 2 * 256,
        "vera: this is b alone. d has one number per rank.": 10 * (512 + 128),
        "vera: b has one number per *output*: 128 for the values.": 10 * 2 * (256 + 512),
        "vera: this is one layer of ten.": vera // 10,
        "vera: its rank is 256, not 4.": 10 * (4 + 512 + 4 + 128),
        "vera: b has one number per output; inputs get none.": 10 * sum(256 + n + m for n, m in shapes),
    }
    says = "vera: ten layers times (r + n), added over both matrices."
    checking.equal(mine["vera"], vera, "vera", wrong, says=says)
    wrong = {
        "gradient: s falls by 16, but the norm of A x grows by 4: it has sixteen times as many entries.": 1
        / 16,
        "gradient: squares add up, so sixteen times as many entries make the norm four times as large. With s / 16 "
        "that is not 1; it would be for the scale alpha / sqrt(r).": 1,
        "gradient: it falls. Write the new norm divided by the old one.": 4,
        "gradient: s falls. Write the new norm divided by the old one.": 16,
    }
    checking.equal(
        mine["gradient"], 1 / 4, "gradient", wrong, says="gradient: s times the norm of A x, so 1 / sqrt(16)."
    )
    wrong = {
        "adam: AdamW's first step does not depend on the size of the gradient. Every entry of B moves by the "
        "rate, and there are sixteen times as many, against s / 16.": 1 / 4,
        "adam: s falls by 16, but sixteen times as many entries of B move.": 1 / 16,
        "adam: sixteen times as many entries of B move, but s falls by 16.": 16,
        "adam: the sum of |h_j| grows with r, not with its root; and s falls by 16.": 4,
    }
    says = "adam: s falls by 16, the sum over the entries of A x has sixteen times as many terms."
    checking.equal(mine["adam"], 1, "adam", wrong, says=says)
    wrong = {
        "adam_rslora: s falls only by 4 now, the sum still grows by 16.": 1,
        "adam_rslora: s falls by 4, too: the sum alone grows by 16.": 16,
        "adam_rslora: s falls by 4, and the sum grows by 16: the change becomes larger.": 1 / 4,
    }
    checking.equal(mine["adam_rslora"], 4, "adam_rslora", wrong, says="adam_rslora: 16 / 4.")
    print("09.5 passed. The lesson measures the three factors on a real encoder.")


check_09_5(prediction)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# LoRA trains $r\,(n + m)$ numbers per matrix, VeRA $r + n$.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# $\lVert h \rVert \propto \sqrt r$ and $\sum_j |h_j| \propto r$. The first gradient is $s\, g h^\top$; the first step of
# AdamW moves output $i$ by $s\, \eta \sum_j |h_j|$.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 09.6 The layers that pass their test
#
# > ●●●●○ · 60 minutes · practice · bug hunt
#
# A colleague has written LoRA layers in many versions. All of them pass the test below. Most of them are wrong, some in three
# ways at once, and one mistake can hide another. You see no source code. You get a function: `make(base, r, alpha)` puts a
# layer around the linear layer `base`. Find the mistakes by measuring.
#
# A layer has the attributes `base`, `A` $(r, \text{in})$ and `B` $(\text{out}, r)$, in the dtype of the base, and the methods
# `merge()`, `unmerge()`, `train()` and `eval()`. A right one does what the lesson says: it adds $\frac{\alpha}{r} B A x$, and
# only $A$ and $B$ train. In training mode it also has a dropout of `0.1` in front of $A$; that is no mistake. It may be $A$
# or $B$ that starts at zero.


# %%
def colleagues_test(make):
    layer, x = make(torch.nn.Linear(4, 4), 4, 4), torch.randn(3, 4)
    before = layer(x)
    layer.merge()
    assert torch.allclose(layer(x), before, atol=1e-2)
    layer.unmerge()
    assert torch.allclose(layer(x), before, atol=1e-2)
    return "all is well"


# %% [markdown]
# Write `diagnose(make)`. It returns a set of names, empty for a right version:
#
# | name | the mistake |
# |:--|:--|
# | `"base"` | a weight or a bias of the base can train |
# | `"start"` | before training the output is not that of the base |
# | `"dead"` | with its first values, neither $A$ nor $B$ gets a gradient other than $0$ |
# | `"cut"` | $A$ or $B$ gets no gradient though neither is $0$ |
# | `"scale"` | the output beside the base is $c\, B A x$ with another $c$ than $\alpha / r$ |
# | `"noise"` | in evaluation mode the same call gives several results |
# | `"merge"` | `merge` adds something else to the weight than $\frac{\alpha}{r} B A$, or nothing |
# | `"twice"` | after `merge` the output is not what the weight, as it is then, makes of $x$ |
# | `"unmerge"` | `unmerge` does not take out what `merge` has put in |
# | `"lost"` | after `merge` and `unmerge` nothing is added beside the base any more |
#
# Each name is about one thing and does not excuse another: if `merge` writes the wrong matrix and `unmerge` takes the same
# matrix out, `"merge"` is there and `"unmerge"` is not. A wrong scale can be $\alpha$, $\alpha$ divided as a whole number,
# $\alpha / \sqrt r$, $r / \alpha$ or $1$; a wrong matrix can also be transposed, where the layer is square. What differs by
# rounding is right. You choose the base, $r$, $\alpha$ and $x$. You may write into `layer.A.data` and `layer.B.data`, and
# call as often as you like; a version makes the same mistakes each time.


# %% nbgrader={"grade_id": "answer_09_6", "solution": true}
def diagnose(make):
    """make(base, r, alpha) returns a LoRA layer. Return the set of its mistakes, by their names in the table."""
    ### BEGIN SOLUTION
    found, r, alpha = set(), 2, 3  # α / r, α, α // r, α / √r, r / α and 1 all differ
    for out in (4, 5):  # a transposed matrix shows in a square layer only
        base = torch.nn.Linear(4, out).double()  # in float64 rounding is out of the way
        layer, x = make(base, r, alpha).eval(), torch.eye(4, dtype=torch.float64)
        W = base.weight.detach().clone()

        def slopes(layer=layer, x=x):
            parts = torch.autograd.grad(layer(x).square().sum(), (layer.A, layer.B), allow_unused=True)
            return [part is not None and bool(part.any()) for part in parts]

        def beside(times, layer=layer, x=x):
            """What the layer adds to its base, as the base is now: (times, 4, out)."""
            with torch.no_grad():
                return torch.stack([layer(x) for _ in range(times)]) - layer.base(x)

        tests = {
            "base": any(p.requires_grad for p in layer.base.parameters()),
            "start": bool(beside(20).abs().max() > 1e-9),
            "dead": not any(slopes()),
        }
        layer.A.data, layer.B.data = randn(r, 4, seed=1), randn(out, r, seed=2)
        change, added = layer.B.data @ layer.A.data, beside(60)
        want = x @ change.T
        c = (added.mean(0) * want).sum() / want.square().sum()  # least squares; the mean hides the noise
        tests |= {
            "cut": not all(slopes()),
            "noise": bool((added - added[0]).abs().max() > 1e-9),
            "scale": bool((c - alpha / r).abs() > 0.2),
        }
        layer.merge()
        inside = base.weight.detach() - W
        tests |= {
            "merge": not torch.allclose(inside, alpha / r * change),
            "twice": bool(beside(20).abs().max() > 1e-9),
        }
        layer.unmerge()
        tests |= {
            "unmerge": not torch.allclose(base.weight, W),
            "lost": bool(beside(20).abs().max() < 1e-9),
        }
        found |= {name for name, there in tests.items() if there}
    return found
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_09_6", "locked": true}
MISTAKES = ("base", "start", "dead", "cut", "scale", "noise", "merge", "twice", "unmerge", "lost")
FACTORS = {
    "alpha / r": lambda alpha, r: alpha / r,
    "alpha": lambda alpha, r: alpha,
    "alpha // r": lambda alpha, r: alpha // r,
    "alpha / sqrt(r)": lambda alpha, r: alpha / r**0.5,
    "r / alpha": lambda alpha, r: r / alpha,
    "1": lambda alpha, r: 1,
    "nothing": lambda alpha, r: 0,
}


def version_09_6(
    frozen=("weight", "bias"), zero="B", cut="", scale="alpha / r", noise=False, merge="alpha / r", turned=False,
    reads=True, unmerge="", clears=True,
):  # fmt: skip
    """A function `make`, and the names of its mistakes. An empty `unmerge` takes out what `merge` has put in."""

    class Version(torch.nn.Module):
        def __init__(self, base, r, alpha):
            super().__init__()
            self.base, self.inside = base, False
            for name, p in base.named_parameters():
                p.requires_grad_(name not in frozen)
            self.c = {key: FACTORS[key or merge](alpha, r) for key in (scale, merge, unmerge)}
            for name, shape in (("A", (r, base.in_features)), ("B", (base.out_features, r))):
                values = 0.01 * torch.randn(shape, dtype=base.weight.dtype)
                setattr(self, name, torch.nn.Parameter(values * (name not in zero)))

        def forward(self, x):
            if self.inside and reads:
                return self.base(x)
            A, B = (p.detach() if name == cut else p for name, p in (("A", self.A), ("B", self.B)))
            seen = F.dropout(x, 0.1, self.training or noise)
            return self.base(x) + self.c[scale] * F.linear(F.linear(seen, A), B)

        @torch.no_grad()
        def merge(self):
            self.base.weight += self.change(merge)
            self.inside = True

        @torch.no_grad()
        def unmerge(self):
            self.base.weight -= self.change(unmerge)
            self.inside = not clears

        def change(self, which):
            product = self.B @ self.A
            square = turned and product.shape[0] == product.shape[1]
            return self.c[which] * (product.T if square else product)

    truth = {
        "base": len(frozen) < 2,
        "start": zero == "",
        "dead": zero == "AB" or zero == cut != "",  # a zero factor stops the other one's gradient
        "cut": cut != "",
        "scale": scale != "alpha / r",
        "noise": noise,
        "merge": merge != "alpha / r" or turned,
        "twice": not reads,
        "unmerge": unmerge not in ("", merge),
        "lost": reads and not clears,
    }
    return Version, {name for name in MISTAKES if truth[name]}


CASES_09_6 = [  # the knobs of a version; what it means if a name is missing (or, with a minus, too much)
    ({}, {
        "-noise": "in training mode a right layer has dropout, so two calls differ. Call eval() first.",
        "-start": "in training mode dropout may be on; call eval(), and compare with the base's output.",
        "-cut": "B is 0 at the start, so the gradient of A is 0. Write values into both, then look.",
        "-dead": "one of the two gradients is 0 at the start, the other is not.",
        "-unmerge": "it adds a matrix and subtracts it again, and float32 does not give each last bit back. Work in "
        "float64, or allow for rounding.",
        "-merge": "what it adds is (alpha / r) B A up to rounding.",
    }),
    ({"zero": "A"}, {
        "-start": "here A starts at 0 and B at random. The product is 0 all the same.",
        "-dead": "here A starts at 0 and B at random, so A gets a gradient.",
        "-cut": "here A starts at 0, so B has no gradient until A has values. Write values into both.",
    }),
    ({"frozen": ()}, {"base": "the weight and the bias of the base can train."}),
    ({"frozen": ("weight",)}, {"base": "the bias of the base can train. A base has two tensors."}),
    ({"zero": "AB"}, {"dead": "A and B are both 0 at the start: neither gradient is anything but 0."}),
    ({"zero": ""}, {"start": "neither A nor B is 0 at the start: small numbers, and the output differs all the same."}),
    ({"cut": "A"}, {"cut": "A gets no gradient, ever. At the start nobody sees it: B is 0 there."}),
    ({"cut": "B"}, {
        "cut": "B gets no gradient.", "dead": "B is 0 and gets no gradient, so A gets nothing but 0: the layer cannot learn.",
    }),
    ({"scale": "alpha"}, {
        "scale": "the output has alpha B A x. Write values into both matrices: while one is 0 no factor shows.",
        "-merge": "the output beside the base has a wrong factor. What merge writes is right: look into the weight.",
        "-twice": "the output changes at merge since the factor beside the base was wrong. After merge it is what the weight "
        "says.",
    }),
    ({"scale": "alpha // r"}, {"scale": "the output has (alpha // r) B A x. Take an alpha that r does not divide."}),
    ({"scale": "alpha / sqrt(r)"}, {"scale": "the output has (alpha / sqrt(r)) B A x. With r = 1 that is the same."}),
    ({"merge": "1"}, {
        "merge": "merge adds B A without a scale. With alpha = r that is right.",
        "-twice": "the output changes at merge since the wrong matrix was written. It is what the weight says: compare it "
        "with that.",
        "-scale": "beside the base the factor is right; it is the merge that has a wrong one.",
        "-unmerge": "it takes out the same matrix that merge has put in, a wrong one.",
    }),
    ({"scale": "alpha", "merge": "alpha"}, {
        "scale": "the output has alpha B A x, and merge writes the same wrong matrix.",
        "merge": "the output has the same wrong factor as the merge, so it stays. Compare the weight before and after.",
    }),
    ({"turned": True}, {
        "merge": "merge adds the transposed of (alpha / r) B A. Only a square layer shows it: others fail by their shape.",
    }),
    ({"merge": "nothing", "reads": False}, {
        "merge": "merge writes nothing, and the output stays because nobody reads the flag.",
        "twice": "after merge the change is still added beside the base. The output stays, since merge writes nothing.",
    }),
    ({"reads": False}, {"twice": "after merge the change is in the weight and still added beside it.",
        "-lost": "the change is still added beside the base."}),
    ({"unmerge": "1"}, {"unmerge": "merge puts in (alpha / r) B A, unmerge takes out B A."}),
    ({"merge": "1", "unmerge": "alpha / r"}, {
        "merge": "merge adds B A; unmerge takes out the right one.",
        "unmerge": "unmerge takes out (alpha / r) B A, which is not what merge has put in.",
    }),
    ({"clears": False}, {"lost": "after unmerge the layer believes that the change is still inside: it adds nothing."}),
    ({"noise": True}, {
        "noise": "dropout stays on in evaluation mode. While A or B is 0 nobody sees it.",
        "-scale": "dropout stays on in evaluation mode, so one call says little about the factor. Take the mean of many.",
    }),
    ({"noise": True, "scale": "1", "merge": "1"}, {"scale": "under the noise of dropout the factor is 1."}),
    ({"zero": "AB", "scale": "r / alpha", "turned": True}, {
        "scale": "A and B are both 0 at the start, and that hides a wrong factor.",
        "merge": "A and B are both 0 at the start, and that hides a wrong merge.",
    }),
]  # fmt: skip


def compare_09_6(diagnose, knobs, notes):
    make, truth = version_09_6(**knobs)
    mine = checking.calls(diagnose)(make)
    assert isinstance(mine, set | frozenset | list | tuple), (
        f"Return a set of names, not {checking.shown(mine)}."
    )
    odd = [name for name in mine if name not in MISTAKES]
    assert not odd, f"{odd[0]!r} is no name of the table."
    for name in MISTAKES:
        if name in truth and name not in mine:
            says = notes.get(name, "another mistake, or your choice of sizes, hides it.")
            raise AssertionError(f"{name!r} is not found in a version with {sorted(truth)}: {says}")
        if name in mine and name not in truth:
            says = notes.get(f"-{name}", "what you measure has another cause.")
            what = f"a version with {sorted(truth)}" if truth else "a right version"
            raise AssertionError(f"{name!r} is found in {what}: {says}")


def check_09_6(diagnose):
    torch.manual_seed(0)
    for knobs, notes in CASES_09_6:
        compare_09_6(diagnose, knobs, notes)
    g = torch.Generator().manual_seed(6)
    draws = {
        "frozen": [("weight", "bias"), ("weight",)], "zero": ["B", "A", "", "AB"], "cut": ["", "A", "B"],
        "scale": list(FACTORS)[:-1], "noise": [False, True], "merge": list(FACTORS), "turned": [False, True],
        "reads": [True, False], "unmerge": ["", "1", "alpha / r"], "clears": [True, False],
    }  # fmt: skip
    for _ in range(12):
        names = [list(draws)[i] for i in torch.randperm(len(draws), generator=g)[:3]]
        knobs = {n: draws[n][int(torch.randint(len(draws[n]), (1,), generator=g))] for n in names}
        compare_09_6(diagnose, knobs, {})
    print(
        f"09.6 passed: {len(CASES_09_6) + 12} versions, and {colleagues_test(version_09_6()[0])} in the colleague's test."
    )


check_09_6(diagnose)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The colleague's test hides nearly all of it, by its choices: $B = 0$, so that nothing is added; $\alpha = r$, so that the
# scale is $1$; and a comparison of outputs, where two wrong things may cancel. Choose against each of these, then look at the
# weight and at the output apart.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# What a layer adds beside its base is `layer(x) - layer.base(x)`. It should be $\frac{\alpha}{r} B A x$ before `merge`,
# nothing after it, and the same again after `unmerge`. With `x = torch.eye(…)` it is a matrix, whose factor you find by least
# squares, and whose mean over many calls has no noise.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 09.7 Six ranks for three matrices
#
# > ●●●●○ · 45 minutes · graded
#
# A small network is frozen. It has three matrices of $16 \times 16$ that read the same input, as queries, keys and values do.
# A new task needs another update of each: $W_i + \Delta_i$. You know that the three ranks add up to **six**, and not more:
# one matrix may need most of them and another none. You may spend six, too. Where?
#
# `world_09_7(seed)` gives you the network, `400` rows `x` with noisy targets `y`, and fresh rows without noise to test on.
# The error of a network is the mean squared error on the fresh rows, divided by that of the untouched network.


# %%
SPLITS = ((4, 1, 1), (1, 4, 1), (1, 2, 3), (0, 2, 4), (5, 0, 1), (2, 2, 2), (0, 6, 0), (3, 3, 0))
NAMES = ("first", "second", "third")


class Small(torch.nn.Module):
    """Three matrices beside each other, and one that mixes what they say: (N, 16) to (N, 24)."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (torch.nn.Linear(16, 16) for _ in range(3))
        self.out = torch.nn.Linear(48, 24)

    def forward(self, x):
        return self.out(torch.cat([torch.tanh(getattr(self, name)(x)) for name in NAMES], 1))


def world_09_7(seed):
    """The frozen network, 400 rows and their noisy targets, 1000 fresh rows and their targets."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=g)

    net = Small().requires_grad_(False)
    for p in net.parameters():
        p.copy_(draw(*p.shape) / p.shape[-1] ** 0.5)
    task = copy.deepcopy(net)
    for name, r in zip(NAMES, SPLITS[seed % 8], strict=True):
        left, right = (torch.linalg.qr(draw(16, 16)).Q[:, :r] for _ in range(2))
        getattr(task, name).weight += 1.5 * left @ right.T
    x, fresh = draw(400, 16), draw(1000, 16)
    return net, x, task(x) + 0.05 * draw(400, 24), fresh, task(fresh)


def error_09_7(net, task, net_before):
    """The mean squared error on fresh rows, as a share of that of the untouched network."""
    x, y = task
    with torch.no_grad():
        return (F.mse_loss(net(x), y) / F.mse_loss(net_before(x), y)).item()


# %% [markdown]
# Write `adapt(net, x, y, generator)`. It trains by LoRA, or in another way of yours, and returns two things:
#
# - `factors`: a dict from the three names to `(A, B, s)` with `A` $(r, 16)$, `B` $(16, r)$ and the scale `s`, a number. A
#   rank may be $0$: then `A` has no row and `B` no column. The three ranks add up to six at most;
# - `merged`: a `Small` whose three weights are $W + s\, B A$ (up to rounding) and whose other tensors are those of `net`.
#
# `net` has other users. When you return, each of its tensors must be **bit by bit** what it was. The checker asks for an
# error of at most $2\,\%$, on several seeds. A call may take eight seconds of processor time. `generator` is for your draws:
# the same generator gives the same result. On the way you may train as many numbers as you like; only what you return is
# counted.


# %% nbgrader={"grade_id": "answer_09_7", "solution": true}
def adapt(net, x, y, generator):
    """Return factors (name -> (A, B, s), ranks together at most 6) and the merged network."""
    ### BEGIN SOLUTION
    rest = {name: p.detach() for name, p in net.named_parameters()}

    def weights(factors):
        return rest | {f"{name}.weight": rest[f"{name}.weight"] + B @ A for name, (A, B) in factors.items()}

    def train(factors, steps, rate):
        factors = {n: tuple(p.clone().requires_grad_() for p in pair) for n, pair in factors.items()}
        adam = torch.optim.Adam([p for pair in factors.values() for p in pair if p.numel()], lr=rate)
        for step in range(steps):
            adam.param_groups[0]["lr"] = rate * (1 - step / steps)
            i = torch.randint(len(x), (128,), generator=generator)
            adam.zero_grad()
            F.mse_loss(torch.func.functional_call(net, weights(factors), (x[i],)), y[i]).backward()
            adam.step()
        return {name: tuple(p.detach() for p in pair) for name, pair in factors.items()}

    wide = {n: (torch.randn(6, 16, generator=generator) / 4, torch.zeros(16, 6)) for n in NAMES}
    wide = train(wide, 100, 3e-2)  # more rank than allowed: where does the task put its directions?
    parts = {name: torch.linalg.svd(B @ A) for name, (A, B) in wide.items()}
    bar = torch.cat([S for _, S, _ in parts.values()]).sort(descending=True).values[6]
    factors = {}
    for name, (U, S, Vh) in parts.items():
        r = int((S > bar).sum())
        root = S[:r].sqrt()
        factors[name] = (root[:, None] * Vh[:r], U[:, :r] * root)
    factors = train(factors, 60, 2e-2)  # what was cut off is missing: let the six directions settle
    merged = copy.deepcopy(net)
    merged.load_state_dict(weights(factors))
    return {name: (A, B, 1.0) for name, (A, B) in factors.items()}, merged
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_09_7", "grade": true, "points": 6, "locked": true}
def factors_09_7(factors):
    """The change that each triple stands for, after a look at types and shapes; and the ranks."""
    assert isinstance(factors, dict) and set(factors) == set(NAMES), (
        f"factors: a dict with the keys {', '.join(NAMES)} expected, not {checking.shown(factors)}."
    )
    ranks, changes = [], {}
    for name in NAMES:
        one = factors[name]
        assert isinstance(one, list | tuple) and len(one) == 3, f"factors[{name!r}]: (A, B, s) expected."
        A, B, s = one
        for what, tensor in (("A", A), ("B", B)):
            assert isinstance(tensor, torch.Tensor) and tensor.ndim == 2, f"{name}: {what} is no matrix."
        assert A.shape[1] == B.shape[0] == 16 and A.shape[0] == B.shape[1], (
            f"{name}: A is (r, 16) and B (16, r); yours have {tuple(A.shape)} and {tuple(B.shape)}."
        )
        checking.form(s, 1.0, f"{name}: s")
        ranks.append(len(A))
        changes[name] = (s * B @ A).detach()
    return ranks, changes


def untouched_09_7(net, before, changes):
    for key, value in net.state_dict().items():
        if torch.equal(value, before[key]):
            continue
        moved = (value - before[key]).abs().max().item()
        change = changes.get(key.removesuffix(".weight"))
        assert moved > 1e-5, (
            f"net: {key} differs from what it was, by {moved:.0e}. You added the change and subtracted it again: float32 "
            "does not give each last bit back. Keep the original, and merge into a copy."
        )
        assert change is None or not torch.allclose(value - before[key], change, atol=1e-4), (
            f"net: {key} holds the change. Somebody else uses this network: merge into a copy of it."
        )
        raise AssertionError(
            f"net: {key} has moved by up to {moved:.2g}. LoRA trains A and B alone; the base is frozen."
        )


def merged_09_7(merged, before, factors, changes):
    assert isinstance(merged, Small), f"merged: a Small expected, not {checking.shown(merged)}."
    for key, value in merged.state_dict().items():
        name = key.removesuffix(".weight")
        if name not in NAMES:
            assert torch.equal(value, before[key]), f"merged: {key} is not that of the net."
            continue
        A, B, s = factors[name]
        wrong = {
            f"merged: {key} has W + B A in it. The scale s was forgotten at the merge.": before[key]
            + (B @ A).detach(),
            f"merged: {key} has s twice in it.": before[key] + s * changes[name],
            f"merged: {key} has the transposed change in it. A square matrix does not complain.": before[key]
            + changes[name].T,
            f"merged: {key} is that of the net. Where is the change?": before[key],
        }
        says = f"merged: {key} is not W + s B A. Was the base trained, too?"
        checking.equal(value, before[key] + changes[name], key, wrong, tol=1e-4, says=says)


def judge_09_7(adapt, seed):
    net, x, y, fresh, target = world_09_7(seed)
    original, before = copy.deepcopy(net), copy.deepcopy(net.state_dict())
    g = torch.Generator().manual_seed(seed)
    slow = "Eight seconds a call: take fewer steps."
    got = checking.calls(adapt, limit=8.0, slow=slow, changes=("net", "generator"))(net, x, y, g)
    assert isinstance(got, list | tuple) and len(got) == 2, "Return two things: factors and merged."
    factors, merged = got
    ranks, changes = factors_09_7(factors)
    told = ", ".join(map(str, ranks))
    assert sum(ranks) <= 6, f"The ranks are {told}: {sum(ranks)} in all, and six are allowed."
    untouched_09_7(net, before, changes)
    merged_09_7(merged, before, factors, changes)
    error = error_09_7(merged, (fresh, target), original)
    assert math.isfinite(error), "The error is no number. Is the learning rate too large?"
    if error > 0.02:
        truth = list(SPLITS[seed % 8])
        left = f"{error:.0%} of the error is left, and 2 % are asked for."
        assert any(change.abs().max() > 1e-6 for change in changes.values()), (
            f"The change is zero: {left} If A and B both start at zero, neither gets a gradient."
        )
        assert ranks != [2, 2, 2] or truth == ranks, (
            f"Two ranks for each: {left} This task does not want equal shares; look where it puts its directions."
        )
        assert 0 not in truth or 0 in ranks, (
            f"The ranks are {told}: {left} Each matrix has got something, and here one needs nothing."
        )
        assert ranks == truth, (
            f"The ranks are {told}: {left} They lie in the wrong places. If you chose among the terms b aᵀ by their size: "
            "several of them can share one direction. The singular values of B A cannot."
        )
        raise AssertionError(f"The ranks {told} are right, but {left} Train longer, or with another rate.")
    return error


def check_09_7(adapt):
    found = [judge_09_7(adapt, seed) for seed in (16, 17)]
    print(
        f"09.7 passed the visible cases: {max(found):.2%} of the error is left, with six ranks of forty-eight."
    )


check_09_7(adapt)
### BEGIN HIDDEN TESTS


def hidden_09_7(adapt):
    for seed in (27, 29, 30):
        judge_09_7(adapt, seed)
    net, x, y, *_ = world_09_7(33)
    twice = []
    for other in (1, 2):
        torch.manual_seed(other)
        twice.append(adapt(copy.deepcopy(net), x, y, torch.Generator().manual_seed(3))[0]["second"][0])
    assert twice[0].shape == twice[1].shape and torch.equal(*twice), (
        "The same generator gave two results: draw from the generator that you are given."
    )


hidden_09_7(adapt)
### END HIDDEN TESTS

# %% [markdown]
# ## 09.8 Project: ten times the rate?
#
# > ●●●●● · 150 minutes · practice
#
# "LoRA wants about ten times the learning rate of full fine-tuning." Many people say so, few have measured it. Test it in a
# system of your own: the network of exercise 09.7, the lesson's encoder, your field's model. Tune both arms with equal
# effort, then compare them at *their* rates. Write the claim first: "the best rate of LoRA is more than `factor` times that
# of full tuning". Return a dict:
#
# | key | what |
# |:--|:--|
# | `claim` | a sentence of at least $40$ characters that says what is compared, in which system; it holds `LoRA` and `full` |
# | `factor` | what the ratio of the best rates must pass, above $0$ |
# | `rates` | at least five rates, rising, each the same number of times the one before; both arms try all of them |
# | `tuning_seeds`, `seeds` | at least five different whole numbers each; none is in both |
# | `tuning` | arm → for each tuning seed a list: one held-out loss for each rate, lower is better |
# | `chosen` | arm → the rate with the lowest *mean* loss over the tuning seeds |
# | `ratio` | **geometric** mean over tuning seeds of (best rate of LoRA / best rate of full), each best for its seed |
# | `ratio_low`, `ratio_high` | its t interval at $0.95$, taken of the logarithms, and then **one step of the grid further** |
# | `losses` | arm → for each of `seeds` the held-out loss at the arm's chosen rate |
# | `gain`, `low`, `high` | loss of full minus loss of LoRA: mean over `seeds`, paired t interval at $0.95$ |
# | `trained` | arm → how many numbers it trains, a count |
# | `verdict_ratio` | `"supported"` (`ratio_low` above `factor`), `"refuted"` (`ratio_high` below it) or `"undecided"` |
# | `verdict_loss` | `"LoRA"`, `"full"` (the whole interval lies on its side of $0$) or `"undecided"` |
#
# The arms are called `LoRA` and `full`. A run that blew up has the loss `math.inf`. Why one step further? A best rate is
# known to half a step only, so the ratio of two is known to one. Without it, five seeds that agree would give an interval of
# width zero. In a grid whose rates rise by the factor $q$ the lower end is divided by $q$, and the upper end is multiplied
# with it. No best rate, of a seed or of the mean, may stand at an edge of the grid: then nobody knows the best rate. Of equal
# losses the lower rate counts.
#
# The checker recomputes all numbers. A person reads the rest with this rubric (0 to 2 points a row; 8 of 12 pass): the claim
# could have failed; both arms had equal steps, batches, schedules and grids; the scale $s$ and the rank are said, since scale
# and rate multiply; held-out rows chose the rate and fresh seeds compared; trained numbers are set beside the losses; the
# ending says what a grid of this step cannot tell and what another optimiser might change.


# %% nbgrader={"grade_id": "answer_09_8", "solution": true}
def study():
    """Return the dict of the table."""
    ### BEGIN SOLUTION
    rates = [0.004 * 2**k for k in range(8)]
    tuning_seeds, seeds = list(range(6)), list(range(20, 28))
    r, steps, batch = 4, 60, 64

    def task(seed):
        """A frozen layer (48, 16), rows to train on and held-out rows: the task is another update of rank 4."""
        g = torch.Generator().manual_seed(seed)
        W, out = torch.randn(48, 16, generator=g) / 4, torch.randn(24, 48, generator=g) / 7
        left, right = (torch.linalg.qr(torch.randn(n, n, generator=g)).Q[:, :r] for n in (48, 16))
        x = torch.randn(2, 300, 16, generator=g)
        y = torch.tanh(x @ (W + 2 * left @ right.T).T) @ out.T
        A = torch.randn(r, 16, generator=g) / 4
        return W, out, x[0], y[0] + 0.1 * torch.randn(300, 24, generator=g), x[1], y[1], A

    def losses(arm, jobs):
        """Held-out losses of many runs at once; a job is a pair of seed and rate. Adam is written out."""
        W, out, x, y, X, Y, A = (
            torch.stack(parts) for parts in zip(*(task(s) for s, _ in jobs), strict=True)
        )
        rate = torch.tensor([rate for _, rate in jobs])[:, None, None]
        train = [A, torch.zeros(len(A), 48, r)] if arm == "LoRA" else [W.clone()]
        m, v = ([torch.zeros_like(p) for p in train] for _ in range(2))
        g = torch.Generator().manual_seed(0)

        def loss(train, x, y):
            weight = W + train[1] @ train[0] if arm == "LoRA" else train[0]
            z = torch.tanh(x @ weight.transpose(1, 2)) @ out.transpose(1, 2)
            return (z - y).square().mean((1, 2))

        for t in range(1, steps + 1):
            i = torch.randint(300, (batch,), generator=g)
            train = [p.detach().requires_grad_() for p in train]
            slopes = torch.autograd.grad(loss(train, x[:, i], y[:, i]).sum(), train)
            for k, slope in enumerate(slopes):
                m[k], v[k] = 0.9 * m[k] + 0.1 * slope, 0.99 * v[k] + 0.01 * slope**2
                step = (m[k] / (1 - 0.9**t)) / ((v[k] / (1 - 0.99**t)).sqrt() + 1e-8)
                train[k] = train[k] - rate * (1 - t / steps) * step
        return loss(train, X, Y).tolist()

    arms, k = ("LoRA", "full"), len(rates)
    tuning, chosen, final, best = {}, {}, {}, {}
    for arm in arms:
        flat = losses(arm, [(s, rate) for s in tuning_seeds for rate in rates])
        tuning[arm] = [flat[i * k : i * k + k] for i in range(len(tuning_seeds))]
        best[arm] = [rates[row.index(min(row))] for row in tuning[arm]]
        means = np.mean(tuning[arm], axis=0)
        chosen[arm] = rates[int(means.argmin())]
        final[arm] = losses(arm, [(s, chosen[arm]) for s in seeds])
    logs = np.log([a / b for a, b in zip(best["LoRA"], best["full"], strict=True)])
    ratio = intervals.t_interval(logs)
    low, high = math.exp(ratio.low) / 2, math.exp(ratio.high) * 2  # the grid's step is 2
    gain = intervals.t_interval(np.array(final["full"]) - np.array(final["LoRA"]))
    return {
        "claim": "In one layer with an update of rank 4, Adam and 60 steps, the best rate of LoRA (s = 1) is more than 10 "
        "times that of full tuning.",
        "factor": 10.0, "rates": rates, "tuning_seeds": tuning_seeds, "seeds": seeds, "tuning": tuning, "chosen": chosen,
        "ratio": math.exp(ratio.mean), "ratio_low": low, "ratio_high": high, "losses": final,
        "gain": gain.mean, "low": gain.low, "high": gain.high, "trained": {"LoRA": r * (48 + 16), "full": 48 * 16},
        "verdict_ratio": "supported" if low > 10 else "refuted" if high < 10 else "undecided",
        "verdict_loss": "LoRA" if gain.low > 0 else "full" if gain.high < 0 else "undecided",
    }  # fmt: skip
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_09_8", "locked": true}
STUDY = (
    "claim factor rates tuning_seeds seeds tuning chosen ratio ratio_low ratio_high losses gain low high trained "
    "verdict_ratio verdict_loss"
).split()
ARMS = ("LoRA", "full")


def table_09_8(mine, key, rows, columns=None):
    """mine[key] as arrays by arm, after a look at its shape."""
    assert isinstance(mine[key], dict) and set(mine[key]) == set(ARMS), (
        f"{key}: a dict with 'LoRA' and 'full'."
    )
    found = {}
    for arm in ARMS:
        table = np.array(mine[key][arm], dtype=float)
        shape = (rows,) if columns is None else (rows, columns)
        assert table.shape == shape, f"{key}[{arm!r}]: shape {shape} expected, not {table.shape}."
        assert not np.isnan(table).any(), f"{key}[{arm!r}]: a loss is nan. A run that blew up has math.inf."
        found[arm] = table
    return found


def grid_09_8(mine):
    rates = np.array(mine["rates"], dtype=float)
    assert rates.ndim == 1 and len(rates) >= 5 and (rates > 0).all(), "rates: at least five, all above 0."
    q = (rates[-1] / rates[0]) ** (1 / (len(rates) - 1))
    assert q > 1 and np.allclose(rates[1:] / rates[:-1], q, rtol=1e-3), (
        "rates: each must be the same number of times the one before. Rates act by their ratios, not by their differences."
    )
    for key in ("tuning_seeds", "seeds"):
        assert len(set(mine[key])) == len(mine[key]) >= 5, f"{key}: at least five, no two alike."
    shared = sorted(set(mine["tuning_seeds"]) & set(mine["seeds"]))
    assert not shared, f"seeds: {shared} chose the rates. A rate looks best where it was chosen."
    return rates, q


def ratio_09_8(mine, rates, q, tuning):
    last, best = len(rates) - 1, {}
    for arm in ARMS:
        own, whole = tuning[arm].argmin(1), int(tuning[arm].mean(0).argmin())
        for place, who in [(whole, "the mean"), *zip(own, mine["tuning_seeds"], strict=True)]:
            assert 0 < place < last, (
                f"tuning: the best rate of {arm} for {who if who == 'the mean' else f'seed {who}'} is the grid's "
                f"{'largest' if place else 'smallest'}. Beyond it nobody has looked: extend the grid, for both arms."
            )
        best[arm] = rates[own]
        wrong = {
            f"chosen: {rates[place]:g} was best for one seed. The mean over the tuning seeds decides.": float(
                rates[place]
            )
            for place in sorted(set(own.tolist()))
        }
        assert isinstance(mine["chosen"], dict) and set(mine["chosen"]) == set(ARMS), (
            "chosen: a rate for each arm."
        )
        checking.equal(mine["chosen"][arm], float(rates[whole]), f"chosen[{arm!r}]", wrong, tol=1e-4)
    ratios = best["LoRA"] / best["full"]
    logs = intervals.t_interval(np.log(ratios))
    flat = intervals.t_interval(ratios)
    wrong = {
        "ratio: that is the arithmetic mean. Of 2 and 1/2 the mean is 1: take that of the logarithms.": flat.mean,
        "ratio: full divided by LoRA.": math.exp(-logs.mean),
        "ratio: these are the rates that the means chose. Take each seed's own best, so that the ratio has an interval.": (
            mine["chosen"]["LoRA"] / mine["chosen"]["full"]
        ),
        "ratio: that is its logarithm.": logs.mean,
    }
    checking.equal(mine["ratio"], math.exp(logs.mean), "ratio", wrong, tol=1e-4)
    low, high = math.exp(logs.low) / q, math.exp(logs.high) * q
    narrow = "the t interval alone. A best rate is known to half a step of the grid: go one step further."
    wrong = {
        f"ratio_low: {narrow}": math.exp(logs.low),
        "ratio_low: the interval of the ratios themselves. Take that of their logarithms, then exp.": flat.low
        / q,
    }
    checking.equal(mine["ratio_low"], low, "ratio_low", wrong, tol=1e-4)
    checking.equal(
        mine["ratio_high"], high, "ratio_high", {f"ratio_high: {narrow}": math.exp(logs.high)}, tol=1e-4
    )
    return low, high


def check_09_8(study):
    mine = checking.handed_in(study, STUDY, limit=60.0)
    claim = mine["claim"]
    assert isinstance(claim, str) and len(claim) >= 40 and all(arm in claim for arm in ARMS), (
        "claim: a sentence of at least 40 characters that holds 'LoRA' and 'full'."
    )
    rates, q = grid_09_8(mine)
    tuning = table_09_8(mine, "tuning", len(mine["tuning_seeds"]), len(rates))
    low, high = ratio_09_8(mine, rates, q, tuning)
    factor = mine["factor"]
    assert factor > 0, "factor: above 0."
    verdict = "supported" if low > factor else "refuted" if high < factor else "undecided"
    assert mine["verdict_ratio"] == verdict, (
        f"verdict_ratio: [{low:.3g}, {high:.3g}] against {factor:g} says {verdict}."
    )
    losses = table_09_8(mine, "losses", len(mine["seeds"]))
    assert all(np.isfinite(found).all() for found in losses.values()), (
        "losses: a run at the chosen rate blew up. Then the rate was not chosen well: tune on more seeds."
    )
    pairs = losses["full"] - losses["LoRA"]
    assert pairs.std() > 0, "losses: all differences are the same number. Something is not drawn anew."
    right, n = intervals.t_interval(pairs), len(pairs)
    checking.equal(
        mine["gain"],
        right.mean,
        "gain",
        {"gain: full minus LoRA, so that a gain is LoRA's.": -right.mean},
        tol=1e-4,
    )
    width, error = (right.high - right.low) / 2, pairs.std(ddof=1) / math.sqrt(n)
    apart = math.sqrt(sum(found.var(ddof=1) for found in losses.values()) / n)
    wrong = {
        "low: the arms are taken as independent. Each seed has both: subtract first, then the interval.": (
            right.mean - width / error * apart
        ),
        "low: that is one standard error.": right.mean - error,
        "low: the normal curve's 1.96. With few seeds take Student's t.": right.mean - 1.959964 * error,
    }
    checking.equal(mine["low"], right.low, "low", wrong, tol=1e-3)
    checking.equal(mine["high"], right.high, "high", tol=1e-3)
    verdict = "LoRA" if right.low > 0 else "full" if right.high < 0 else "undecided"
    assert mine["verdict_loss"] == verdict, (
        f"verdict_loss: [{right.low:.3g}, {right.high:.3g}] against 0 says {verdict}."
    )
    count = mine["trained"]
    assert (
        isinstance(count, dict)
        and set(count) == set(ARMS)
        and all(isinstance(v, int) for v in count.values())
    ), "trained: a whole number for each arm."
    assert 0 < count["LoRA"] < count["full"], (
        "trained: LoRA should train fewer numbers than full tuning; count again."
    )
    print(
        f"09.8 passed: ratio [{low:.2g}, {high:.2g}] against {factor:g}. Now a person reads the study with the rubric."
    )


check_09_8(study)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Begin with one small layer and synthetic rows, so that a run takes milliseconds. Many runs with different rates fit into one
# tensor with an axis more, if you write Adam out.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# A coarse grid makes a wide interval even if all seeds agree. First find the region with a coarse grid on other seeds, then
# take a finer one there, and look at both ends before you look at the ratio.
#
# </details>
#
# {{solution}}
