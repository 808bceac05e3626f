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
# should be divided by: add up over the batch.


# %% nbgrader={"grade_id": "answer_09_1", "solution": true}
def lora_gradients(x, dy, A, B, s):
    """x (N, m), dy (N, n), A (r, m), B (n, r), scale s. Returns the gradients of A and of B, in their shapes."""
    ### BEGIN SOLUTION
    G = dy.T @ x
    return s * B.T @ G, s * G @ A.T
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_09_1", "locked": true}
def check_09_1(lora_gradients):
    x, dy, A, B, W, s = (
        randn(5, 4),
        randn(5, 6, seed=1),
        randn(3, 4, seed=2),
        randn(6, 3, seed=3),
        randn(6, 4),
        1.7,
    )
    A_, B_ = A.clone().requires_grad_(), B.clone().requires_grad_()
    y = x @ W.T + s * x @ A_.T @ B_.T
    want = torch.autograd.grad((y * dy).sum(), (A_, B_))
    got = lora_gradients(x, dy, A, B, s)
    assert got is not None, "The function returned None. Did you forget return?"
    assert len(got) == 2, "Return two gradients: that of A, then that of B."
    assert [tuple(part.shape) for part in got] != [(6, 3), (3, 4)], (
        "You return the gradient of B first. The order is A, then B."
    )
    for name, mine, M, right in zip("AB", got, (A, B), want, strict=True):
        assert mine.shape == M.shape, (
            f"{name} has shape {tuple(M.shape)}, your gradient {tuple(mine.shape)}. A gradient has the shape "
            "of what it belongs to."
        )
        assert not torch.allclose(mine * s, right), (
            f"{name}: the scale s is missing. It stands in front of B A, so it stands in both gradients."
        )
        assert not torch.allclose(mine, right * s), f"{name}: the scale s appears twice. y is linear in s."
        assert not torch.allclose(mine * len(x), right), (
            f"{name}: you took the mean over the batch. The loss was divided already; add up."
        )
    for name, mine, right in zip("AB", got, want, strict=True):
        assert torch.allclose(mine, right), f"{name}: off by up to {(mine - right).abs().max():.1e}."
    zero = lora_gradients(x, dy, A, torch.zeros_like(B), s)
    assert not zero[0].any() and zero[1].any(), "With B = 0 only B may have a gradient."
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
# train. `merge` puts the change into the weight of `base` (the same tensor, in place), `unmerge` takes it out
# again, and the output is the same before, between and after.


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
    base = torch.nn.Linear(5, 4).double()
    plain, x = copy.deepcopy(base), randn(3, 5)
    layer = lora_layer(base, r=2, alpha=6)
    assert layer is not None, "The function returned None. Return the layer."
    assert getattr(layer, "base", None) is base, "Keep the layer that you were given, as `base`."
    names = {name for name, p in layer.named_parameters() if p.requires_grad}
    assert {"base.weight", "base.bias"}.isdisjoint(names), (
        "The base still trains. LoRA freezes it: that is where the memory goes."
    )
    assert names == {"A", "B"}, f"A and B should train, and nothing else; you have {sorted(names)}."
    assert layer.A.shape == (2, 5) and layer.B.shape == (4, 2), "A is (r, in), B is (out, r)."
    assert torch.allclose(layer(x), plain(x), atol=1e-12), (
        "Before training the output differs from the base's. One of A and B must start at 0."
    )
    layer(x).square().sum().backward()
    assert layer.A.grad.any() or layer.B.grad.any(), (
        "Both gradients are 0: A and B start at 0 together, so neither ever moves."
    )
    with torch.no_grad():
        layer.A.copy_(randn(2, 5, seed=1))
        layer.B.copy_(randn(4, 2, seed=2))
    change = layer.B @ layer.A
    out = layer(x)
    scale = ((out - plain(x)).norm() / (x @ change.T).norm()).item()
    assert abs(scale - 6) > 1e-6, (
        "You multiply by alpha. The scale is alpha / r, or every rank learns at its own pace."
    )
    assert abs(scale - 1) > 1e-6, "The scale is missing: you add B A x as it is."
    assert torch.allclose(out, plain(x) + 3 * x @ change.T), f"The scale is {scale:.2f}; alpha / r is 3."
    weight = layer.base.weight
    layer.merge()
    assert layer.base.weight is weight, "merge made a new weight. Change the one that is there, in place."
    inside = (layer.base.weight - plain.weight).detach()
    assert not torch.allclose(inside, change.detach()), (
        "The merged weight is W + B A: the scale was forgotten at the merge."
    )
    assert torch.allclose(inside, 3 * change.detach()), "The merged weight is not W + (alpha / r) B A."
    assert not torch.allclose(layer(x), plain(x) + 6 * x @ change.T), (
        "After merge the change counts twice: once in the weight, once beside it."
    )
    assert torch.allclose(layer(x), out), "After merge the output differs."
    layer.unmerge()
    assert torch.allclose(layer.base.weight, plain.weight), (
        "unmerge does not give the weight back. Subtract what merge added, scale included."
    )
    assert torch.allclose(layer(x), out), (
        "After unmerge the output differs: the change beside the weight is switched off."
    )
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
# where scores are equal: then the earlier name in the dict wins, and within a matrix the earlier triplet.
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


def check_09_3(allocate):
    before = copy.deepcopy(SCORES)
    got = allocate(SCORES, 4)
    assert got is not None, "The function returned None. Did you forget return?"
    assert list(got) == list(SCORES), "The result has one entry per matrix, in the same order."
    for name, part in got.items():
        assert np.asarray(part).dtype == bool, f"{name}: a boolean array expected."
        assert len(part) == len(SCORES[name]), f"{name}: one entry per triplet."
    assert all(np.array_equal(SCORES[name], before[name]) for name in SCORES), (
        "You changed the scores themselves."
    )
    kept = {name: np.asarray(part).tolist() for name, part in got.items()}
    total = sum(map(sum, kept.values()))
    assert total != 5, (
        "Five triplets stay. 'Those that are not masked' and 'those below the threshold' differ by one."
    )
    assert not all(sum(part) >= 1 for part in kept.values()), (
        "Every matrix keeps a triplet. The budget belongs to the model, not to the matrix: query should lose all."
    )
    assert not kept["query"][0] or kept["value"][0], "You keep the least important. High scores stay."
    assert total == 4, f"{total} triplets stay, the budget is 4."
    assert kept == {"query": [False] * 3, "value": [True] * 3, "ffn": [False, True, False]}, (
        f"You keep {kept}."
    )
    print("09.3 passed the visible cases: query lost all its triplets, value none.")


check_09_3(allocate)
### BEGIN HIDDEN TESTS


def hidden_09_3(allocate):
    def total(kept):
        return sum(int(np.sum(part)) for part in kept.values())

    ties = {"a": np.array([0.0, 0.0]), "b": np.array([0.0, 1.0])}
    kept = allocate(ties, 2)
    assert total(kept) == 2, (
        "Equal scores: more or fewer triplets stay than the budget says. Rank, do not compare with a threshold."
    )
    assert [list(map(bool, part)) for part in kept.values()] == [[True, False], [False, True]], (
        "Equal scores: the earlier one wins. Your sort does not keep the order of equals."
    )
    assert total(allocate(SCORES, 0)) == 0, "A budget of 0 keeps nothing."
    assert total(allocate(SCORES, 9)) == 9, "A budget of all triplets keeps all."
    ragged = {"a": np.array([0.1]), "b": np.array([0.5, 0.4, 0.3])}
    kept = allocate(ragged, 2)
    assert [len(part) for part in kept.values()] == [1, 3] and total(kept) == 2, (
        "Matrices may have different ranks."
    )
    for wrong in (-1, 10):
        try:
            allocate(SCORES, wrong)
        except ValueError:
            continue
        raise AssertionError(f"A budget of {wrong} went through. There are nine triplets: raise ValueError.")


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
# $$ \phi(i, j) = \frac{\lVert V_i^\top V'_j \rVert_F^2}{\min(i, j)} . $$


# %% nbgrader={"grade_id": "answer_09_4", "solution": true}
def overlap(D, E, i, j):
    """phi(i, j) of the input directions of D and E, both (n, m): a float from 0 to 1."""
    ### BEGIN SOLUTION
    V, V_ = torch.linalg.svd(D).Vh[:i], torch.linalg.svd(E).Vh[:j]
    return ((V @ V_.T).square().sum() / min(i, j)).item()
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_09_4", "locked": true}
def check_09_4(overlap):
    D, E = randn(12, 9), randn(12, 9, seed=1)
    U, _, Vt = torch.linalg.svd(D, full_matrices=False)
    U_, _, Vt_ = torch.linalg.svd(E, full_matrices=False)
    got = overlap(D, E, 2, 4)
    assert got is not None, "The function returned None. Did you forget return?"
    together = (Vt[:2] @ Vt_[:4].T).square().sum().item()
    assert not np.isclose(got, together), (
        "You did not divide. Two subspaces of size 2 and 4 can share at most 2."
    )
    assert not np.isclose(got, together / 4), (
        "You divide by the larger size. A line inside a plane would share only half of itself."
    )
    assert not np.isclose(got, together / 8), (
        "You divide by i times j: the mean of squares, not the shared part."
    )
    assert not np.isclose(got, np.sqrt(together) / 2), "The norm is not squared."
    left = (U[:, :2].T @ U_[:, :4]).square().sum().item() / 2
    assert not np.isclose(got, left), (
        "These are the left singular vectors: output directions. Ask for the right ones."
    )
    rows = (Vt[:, :2].T @ Vt_[:, :4]).square().sum().item() / 2
    assert not np.isclose(got, rows), "svd returns V transposed: its rows are the vectors, you took columns."
    assert np.isclose(got, together / 2), f"phi(2, 4) is {together / 2:.3f}, you have {float(got):.3f}."
    assert isinstance(got, float), f"A float expected, not {type(got).__name__}."
    same = overlap(D, 7 * randn(12, 12, seed=2) @ D, 9, 9)
    assert np.isclose(same, 1.0), "All nine input directions against all nine: they share everything."
    line = overlap(torch.outer(U[:, 0], Vt[0]), D, 1, 3)
    assert np.isclose(line, 1.0), "A line that lies inside the other subspace shares all of itself."
    far = torch.eye(12, 9, dtype=torch.float64)
    assert np.isclose(overlap(far[:, [0]] @ far[[0]], far[:, [1]] @ far[[1]], 1, 1), 0.0), (
        "Two orthogonal directions share nothing."
    )
    print(f"09.4 passed. Two random matrices: phi(2, 4) = {got:.2f}, by chance, not by learning.")


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
    mine = prediction()
    assert mine is not None, "The function returned None. Return your dict."
    assert set(mine) == {"lora", "vera", "gradient", "adam", "adam_rslora"}, "Five keys: see the list above."
    assert all(isinstance(value, int | float) for value in mine.values()), "Five numbers expected."
    shapes = [(512, 512), (128, 512)]
    lora = 10 * sum(4 * (n + m) for n, m in shapes)
    vera = 10 * sum(256 + n for n, _ in shapes)
    assert mine["lora"] != 10 * 2 * 4 * (512 + 512), (
        "lora: you took both matrices as square. The value matrix has 128 outputs."
    )
    assert mine["lora"] != 10 * sum(n * m for n, m in shapes), (
        "lora: these are all numbers of W. A and B are thin."
    )
    assert mine["lora"] != 10 * 4 * 1024, "lora: this is A alone. B has (outputs times rank) more."
    assert mine["lora"] == lora, "lora: ten layers times r (n + m), added over both matrices."
    assert mine["vera"] != 10 * sum(256 * (n + m) for n, m in shapes), (
        "vera: you count the random matrices. They are frozen; two vectors train."
    )
    assert mine["vera"] != 10 * 2 * 256, "vera: this is d alone. b has one number per output."
    assert mine["vera"] == vera, "vera: ten layers times (r + n), added over both matrices."
    assert mine["gradient"] != 1 / 16, (
        "gradient: s falls by 16, but the norm of A x grows by 4: it has sixteen times as many entries."
    )
    assert mine["gradient"] != 1, "gradient: that would be the scale alpha / sqrt(r)."
    assert mine["gradient"] == 1 / 4, "gradient: s times the norm of A x, so 1 / sqrt(16)."
    assert mine["adam"] != 1 / 4, (
        "adam: AdamW's first step does not depend on the size of the gradient. Every entry of B moves by the rate."
    )
    assert mine["adam"] == 1, (
        "adam: s falls by 16, the sum over the entries of A x has sixteen times as many terms."
    )
    assert mine["adam_rslora"] != 1, "adam_rslora: s falls only by 4 now, the sum still grows by 16."
    assert mine["adam_rslora"] == 4, "adam_rslora: 16 / 4."
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
