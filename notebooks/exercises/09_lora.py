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
# that you do not see here, so test more than the checker does. Nothing on this page needs a model, a data
# set or a network.
#
# {{overview}}

# %%
import copy

import numpy as np
import torch
from torch.nn import functional as F

from instructlab_utils import checking


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
