# ---
# jupyter:
#   instructlab:
#     id: "13"
#     title: Prompt-based fine-tuning and prompt search
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 13: prompt-based fine-tuning and prompt search
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
from math import comb

import torch

# %% [markdown]
# ## 13.1 A label is a word
#
# > ●●○○○ · 8 minutes · practice
#
# A model gives logits $z$ over its vocabulary, shape $(N, V)$, at the hole of a pattern. Label $k$ has the word with the
# token id `words[k]`. Return the probabilities of the *labels*, shape $(N, K)$: each row sums to 1. They must be finite for
# logits of any size.


# %% nbgrader={"grade_id": "answer_13_1", "solution": true}
def label_probabilities(z, words):
    """z: (N, V) logits; words: K token ids, label by label. Return (N, K) probabilities."""
    ### BEGIN SOLUTION
    return torch.softmax(z[:, words], -1)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_13_1", "locked": true}
def check_13_1(label_probabilities):
    z = torch.randn(4, 9, generator=torch.Generator().manual_seed(0)).double()
    words = [7, 2, 5]
    got = label_probabilities(z.clone(), list(words))
    assert got is not None, "The function returned None. Did you forget return?"
    assert got.shape == (4, 3), f"Shape (4, 3) expected, one column per label, not {tuple(got.shape)}."
    picked = z.exp()[:, words]
    want = picked / picked.sum(1, keepdim=True)
    assert not torch.allclose(got, z.softmax(-1)[:, words]), (
        "These are shares of the whole vocabulary. All other words must be ignored: normalise over the K words."
    )
    assert not torch.allclose(got, want.log()), "These are logarithms. Probabilities are asked for."
    assert not torch.allclose(got, want[:, [1, 2, 0]]), (
        "The columns are in the order of the token ids. Column k belongs to words[k]."
    )
    large = label_probabilities(z + 2000, list(words))
    assert torch.isfinite(large).all(), (
        "exp(2000) is infinite: use a softmax that subtracts the largest logit."
    )
    assert torch.allclose(got, want), "The values are wrong: a softmax over the K words' logits."
    print("13.1 passed. The model may find other words far more likely: nobody asked it about those.")


check_13_1(label_probabilities)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Pick the columns first, in the order of the labels.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Dividing by the words' sum is the same as a softmax over their logits alone.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 13.2 What the teachers say together
#
# > ●●○○○ · 10 minutes · graded
#
# $P$ patterns scored $N$ unlabelled texts: $s$ has the shape $(P, N, K)$. Pattern $p$ has the weight $w_p$. PET's soft labels
# are
#
# $$ q(x) = \mathrm{softmax}\!\left( \frac{1}{T}\, \frac{\sum_p w_p\, s_p(x)}{\sum_p w_p} \right) . $$
#
# Return $q$, shape $(N, K)$.


# %% nbgrader={"grade_id": "answer_13_2", "solution": true}
def soft_labels(s, w, T):
    """s: (P, N, K) scores; w: (P,) weights; T: temperature. Return (N, K) probabilities."""
    ### BEGIN SOLUTION
    mean = (w[:, None, None] * s).sum(0) / w.sum()
    return torch.softmax(mean / T, -1)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_13_2", "grade": true, "points": 3, "locked": true}
def made_scores(seed, P, N, K):
    g = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(P, N, K, generator=g).double(), 0.2 + torch.rand(P, generator=g).double()


def wanted_labels(s, w, T):
    total = sum(w[p] * s[p] for p in range(len(w)))
    return torch.softmax(total / sum(w) / T, -1)


def check_13_2(soft_labels):
    s, w = made_scores(0, 3, 4, 2)
    got = soft_labels(s.clone(), w.clone(), 2.0)
    assert got is not None, "The function returned None. Did you forget return?"
    assert got.shape == (4, 2), f"Shape (4, 2) expected, one row per text, not {tuple(got.shape)}."
    mixed = (w[:, None, None] / w.sum() * (s / 2).softmax(-1)).sum(0)
    assert not torch.allclose(got, mixed), (
        "You averaged probabilities. PET averages the scores first and takes one softmax at the end."
    )
    assert not torch.allclose(got, wanted_labels(s, torch.ones(3).double(), 2.0)), (
        "All patterns count alike here: the weights are not used."
    )
    assert not torch.allclose(got, wanted_labels(s, w, 2.0 / w.sum())), (
        "The weights are not divided by their sum, so they change the temperature."
    )
    assert not torch.allclose(got, wanted_labels(s, w, 0.5)), (
        "You multiplied by T. A temperature above 1 makes the labels softer."
    )
    assert torch.allclose(got, wanted_labels(s, w, 2.0)), "The values are wrong: follow the formula."
    print("13.2 passed on the open cases.")


check_13_2(soft_labels)

### BEGIN HIDDEN TESTS


def hidden_13_2(soft_labels):
    for seed, P, N, K, T in ((1, 1, 3, 2, 1.0), (2, 5, 1, 4, 3.0), (3, 2, 6, 3, 0.5)):
        s, w = made_scores(seed, P, N, K)
        got = soft_labels(s, w, T)
        assert torch.allclose(got, wanted_labels(s, w, T)), f"Wrong for P = {P}, N = {N}, K = {K}, T = {T}."
    s, w = made_scores(4, 2, 3, 2)
    w[0] = 0.0
    assert torch.allclose(soft_labels(s, w, 1.0), s[1].softmax(-1)), (
        "A pattern of weight 0 must not count at all."
    )


hidden_13_2(soft_labels)
### END HIDDEN TESTS

# %% [markdown]
# ## 13.3 A search that makes things worse
#
# > ●●●○○ · 15 minutes · practice · bug hunt
#
# One step of AutoPrompt on a toy. `E` holds the vectors of $V$ tokens, shape $(V, d)$, `trigger` the ids of $n$ tokens, and
# `loss` is a function of the trigger's vectors, shape $(n, d)$. The step below looks at place `at`, takes the gradient, and
# swaps. The loss goes *up*. Find two bugs.


# %%
def broken_step(E, trigger, at, loss, keep=4):
    vectors = E[trigger].clone().requires_grad_()
    (g,) = torch.autograd.grad(loss(vectors), vectors)
    change = (E - E[trigger[at]]) @ g[at]
    best = change.topk(keep).indices[0].item()
    return [*trigger[:at], best, *trigger[at + 1 :]]


# %% [markdown]
# Write it right: among the `keep` tokens of the smallest first-order change, *try* each one, and return the trigger with the
# smallest true loss. If none is below the loss of `trigger` itself, return `trigger` as it was. Return a list.


# %% nbgrader={"grade_id": "answer_13_3", "solution": true}
def step(E, trigger, at, loss, keep=4):
    """One swap at place ``at``: the best of the ``keep`` most promising tokens, if it lowers the loss."""
    ### BEGIN SOLUTION
    vectors = E[trigger].clone().requires_grad_()
    (g,) = torch.autograd.grad(loss(vectors), vectors)
    change = (E - E[trigger[at]]) @ g[at]
    tried = [list(trigger)]
    for token in change.topk(keep, largest=False).indices.tolist():
        tried.append([*trigger[:at], token, *trigger[at + 1 :]])
    return min(tried, key=lambda ids: loss(E[ids]).item())
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_13_3", "locked": true}
def toy_search(seed):
    g = torch.Generator().manual_seed(seed)
    E, target = torch.randn(12, 3, generator=g).double(), torch.randn(2, 3, generator=g).double()
    return E, [1, 5], lambda vectors: ((vectors - target) ** 2).sum() + torch.sin(4 * vectors).sum()


def wanted_step(E, trigger, at, loss, keep):
    vectors = E[trigger].clone().requires_grad_()
    (g,) = torch.autograd.grad(loss(vectors), vectors)
    order = ((E - E[trigger[at]]) @ g[at]).argsort().tolist()[:keep]
    options = [list(trigger), *([*trigger[:at], j, *trigger[at + 1 :]] for j in order)]
    return min(options, key=lambda ids: loss(E[ids]).item())


def check_13_3(step):
    stayed = 0
    for seed in range(8):
        E, trigger, loss = toy_search(seed)
        for at in (0, 1):
            before = loss(E[trigger]).item()
            got = step(E, list(trigger), at, loss)
            assert got is not None, "The function returned None. Did you forget return?"
            assert isinstance(got, list) and len(got) == 2, "A list of two token ids expected."
            assert got[1 - at] == trigger[1 - at], f"Only place {at} may change."
            after, want = loss(E[got]).item(), wanted_step(E, trigger, at, loss, 4)
            assert got != broken_step(E, trigger, at, loss) or got == want, (
                "The largest first-order change is the worst proposal: a loss should fall."
            )
            assert after <= before, (
                "The loss went up. First order only proposes: a swap counts if the true loss fell."
            )
            stayed += want == trigger
            assert not (got == trigger and want != trigger), (
                "The first proposal failed, and you gave up. Try all of the keep tokens."
            )
            assert got == want, (
                "A better swap was among the proposals: compare their true losses, not their estimates."
            )
    assert stayed, "The cases must hold one in which no swap helps."
    print("13.3 passed. The gradient proposes, the loss decides.")


check_13_3(step)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `topk` takes the largest values unless you tell it otherwise.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Put the old trigger among the candidates. Then the best of all is never worse than it.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 13.4 The best of k candidates
#
# > ●●●○○ · 12 minutes · graded
#
# $N$ candidate instructions have a score on dev and a score on test. Somebody writes only $k$ of them, drawn without
# replacement, and keeps the one with the best *dev* score. Which *test* score can be expected? Sorted by dev score, best
# first, the candidate of rank $r$ is the one that is kept with the probability $\binom{N-r}{k-1} / \binom{N}{k}$: it is
# drawn, and the other $k - 1$ come from those behind it. All dev scores differ.


# %% nbgrader={"grade_id": "answer_13_4", "solution": true}
def best_of(dev, test, k):
    """dev, test: lists of N numbers; k from 1 to N. Return the expected test score, a float."""
    ### BEGIN SOLUTION
    order = sorted(range(len(dev)), key=lambda i: -dev[i])
    N = len(dev)
    return sum(comb(N - r, k - 1) * test[i] for r, i in enumerate(order, 1)) / comb(N, k)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_13_4", "grade": true, "points": 3, "locked": true}
def wanted_best(dev, test, k):
    from itertools import combinations

    kept = [test[max(chosen, key=lambda i: dev[i])] for chosen in combinations(range(len(dev)), k)]
    return sum(kept) / len(kept)


def check_13_4(best_of):
    dev, test = [-2.0, -0.5, -3.0, -1.0], [0.5, 0.4, 0.1, 0.9]
    got = best_of(list(dev), list(test), 2)
    assert got is not None, "The function returned None. Did you forget return?"
    assert abs(got - wanted_best(test, test, 2)) > 1e-9, (
        "You kept the best on test. Nobody can choose it: the choice is made on dev."
    )
    assert abs(got - wanted_best([-d for d in dev], test, 2)) > 1e-9, (
        "The worst dev score wins here. A log-likelihood is better when it is larger."
    )
    powers = [(4 - r + 1) ** 2 - (4 - r) ** 2 for r in range(1, 5)]
    again = sum(p * t for p, t in zip(powers, [0.4, 0.9, 0.5, 0.1], strict=True)) / 16
    assert abs(got - again) > 1e-9, "That is with replacement: the same candidate could be drawn twice."
    assert abs(got - wanted_best(dev, test, 2)) < 1e-9, (
        "The value is wrong: test every pair of candidates by hand."
    )
    assert abs(best_of(list(dev), list(test), 4) - 0.4) < 1e-9, "k = N: the best dev score is always there."
    assert abs(best_of(list(dev), list(test), 1) - sum(test) / 4) < 1e-9, (
        "k = 1: nothing is chosen. It is the mean."
    )
    print("13.4 passed on the open cases.")


check_13_4(best_of)

### BEGIN HIDDEN TESTS


def hidden_13_4(best_of):
    for seed, N in ((1, 1), (2, 3), (3, 7)):
        g = torch.Generator().manual_seed(seed)
        dev, test = torch.randn(N, generator=g).tolist(), torch.rand(N, generator=g).tolist()
        for k in range(1, N + 1):
            assert abs(best_of(dev, test, k) - wanted_best(dev, test, k)) < 1e-9, (
                f"Wrong for N = {N}, k = {k}."
            )


hidden_13_4(best_of)
### END HIDDEN TESTS

# %% [markdown]
# ## 13.5 What a search hides
#
# > ●●○○○ · 8 minutes · practice · prediction
#
# Predict, with pencil and paper:
#
# - `cosine`: for one sentence, the gradient of the loss with respect to the last state, with the right words and with the two
#   words swapped. What is the cosine between the two?
# - `error`: near a token, the step towards another one is halved. By which factor does the *error* of the first-order
#   estimate get smaller?
# - `pairs`: candidates are scored on four times as many dev pairs. By which factor does the optimism of the best get smaller?
# - `pool`: PET's student has read the test sentences, with the teachers' soft labels, before it is tested on them. May its
#   test accuracy be reported: 1 for yes, 0 for no.


# %% nbgrader={"grade_id": "answer_13_5", "solution": true}
def prediction():
    """Return a dict of four whole numbers: cosine, error, pairs, pool."""
    ### BEGIN SOLUTION
    return {"cosine": -1, "error": 4, "pairs": 2, "pool": 0}
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_13_5", "locked": true}
def check_13_5(prediction):
    mine = prediction()
    assert mine is not None, "The function returned None. Return your dict."
    assert set(mine) == {"cosine", "error", "pairs", "pool"}, "Four keys: see the list above."
    assert all(isinstance(value, int) for value in mine.values()), "Four whole numbers expected."
    assert mine["cosine"] != 0, "cosine: both gradients lie on the same line, the difference of the two rows."
    assert mine["cosine"] != 1, "cosine: the words changed places, so the sign of their difference changed."
    assert mine["cosine"] == -1, "cosine: a number from -1 to 1."
    assert mine["error"] != 2, "error: the estimate itself halves. Its error is of second order."
    assert mine["error"] == 4, "error: what first order leaves out grows with the square of the step."
    assert mine["pairs"] != 4, "pairs: a standard error falls with the root of the number of pairs."
    assert mine["pairs"] == 2, "pairs: the optimism is so many standard errors. How does one of them change?"
    assert mine["pool"] != 1, "pool: it would be tested on what its teachers told it there."
    assert mine["pool"] == 0, "pool: 0 or 1."
    print("13.5 passed.")


check_13_5(prediction)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Section 2: the gradient is a multiple of $w_1 - w_0$.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Section 8: $\sigma \sqrt{2 \ln N / m}$.
#
# </details>
#
# {{solution}}
