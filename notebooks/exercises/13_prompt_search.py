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
# that you do not see here, so test more than the checker does. Nothing on this page needs a download or the internet.
# The first five are short. Exercise 13.6 searches prompts of a model that the page trains in a second, and exercise 13.7 is a
# project: an evening each.
#
# {{overview}}

# %%
import itertools
import math
from math import comb

import torch
from torch import nn
from torch.nn import functional as F

from instructlab_utils import checking, intervals

# %% [markdown]
# ## 13.1 A label is a word
#
# > ●●○○○ · 8 minutes · practice
#
# A model gives logits $z$ over its vocabulary, shape $(N, V)$, at the hole of a pattern. Label $k$ has the word with the
# token id `words[k]`. Return the probabilities of the *labels*, shape $(N, K)$, in the dtype of $z$: each row sums to 1.
# They must be finite for logits of any size, and the gradient must reach $z$.


# %% nbgrader={"grade_id": "answer_13_1", "solution": true}
def label_probabilities(z, words):
    """z: (N, V) logits; words: K token ids, label by label. Return (N, K) probabilities."""
    ### BEGIN SOLUTION
    return torch.softmax(z[:, words], -1)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_13_1", "locked": true}
def by_ratios(z, words):
    """Column by column: one over the sum of all words' odds against this one."""
    return torch.stack([1 / sum((z[:, other] - z[:, word]).exp() for other in words) for word in words], 1)


def check_13_1(label_probabilities):
    call = checking.calls(label_probabilities)
    g = torch.Generator().manual_seed(0)
    z, words = torch.randn(4, 9, generator=g, dtype=torch.float64), [7, 2, 5]
    got, want = call(z, words), by_ratios(z, words)
    assert getattr(got, "shape", None) == (4, 3), (
        f"Shape (4, 3) expected, one column per label, not {checking.shown(got)}."
    )
    wrong = {
        "These are shares of the whole vocabulary. All other words must be ignored: normalise over the K words.": (
            z.softmax(-1)[:, words]
        ),
        "These are logarithms. Probabilities are asked for.": want.log(),
        "The columns are in the order of the token ids. Column k belongs to words[k].": want[:, [1, 2, 0]],
        "These are the first K tokens. Label k has the token words[k].": z[:, :3].softmax(-1),
        "These are logits. Probabilities are asked for.": z[:, words],
        "The softmax runs over the texts. Each row has to sum to 1.": z[:, words].softmax(0),
        "These are not normalised: each row has to sum to 1.": z[:, words].exp(),
        "A sigmoid asks for each word alone. The labels exclude each other: a softmax over the words.": z[
            :, words
        ].sigmoid(),
        "The softmax is taken twice: once over the vocabulary, once over the words.": z.softmax(-1)[
            :, words
        ].softmax(-1),
    }
    says = "The values are wrong: a softmax over the K words' logits."
    checking.equal(got, want, "the probabilities", wrong, dtype=torch.float64, says=says)
    large = "exp(2000) is infinite: use a softmax that subtracts the largest logit."
    checking.equal(
        call(z + 2000, words), want, "the probabilities", says=f"All logits are 2000 larger. {large}"
    )
    checking.equal(call(z - 2000, words), want, "the probabilities", says=f"All are 2000 smaller. {large}")
    other = z.clone()
    other[:, 0] += 2000.0
    says = "Another word is 2000 more likely than the K words. It must not count, nor set what is subtracted."
    floor = "Another word is 2000 more likely than the K words. A floor (clamp, or adding 1e-12) makes them equal."
    wrong = {f"{floor} Pick their logits before the softmax.": torch.full_like(want, 1 / 3)}
    checking.equal(call(other, words), want, "the probabilities", wrong, says=says)
    for far in (200, 2000):
        says = f"The words' logits are {far} apart."
        call.agrees(by_ratios, (far * z, words), name="the probabilities", says=says)
    for N, V, words in ((1, 5, [4, 0]), (6, 6, [1, 3, 2, 0, 5, 4]), (3, 7, [6]), (2, 20, [0, 19, 7, 3])):
        case = torch.randn(N, V, generator=g), words
        says = f"N = {N}, V = {V}, K = {len(words)}, float32."
        call.agrees(by_ratios, case, name="the probabilities", dtype=torch.float32, says=says)
    call.gradients(by_ratios, *case, of=[0], says="The model is trained through these probabilities.")
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
# Return $q$, shape $(N, K)$, in the dtype of $s$. Scores may be thousands apart; a weight may be 0, but not all.


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
    call = checking.calls(soft_labels)
    s, w = made_scores(0, 3, 4, 2)
    got, want = call(s, w, 2.0), wanted_labels(s, w, 2.0)
    checking.form(got, want, "the labels", dtype=torch.float64)
    ones, shares = torch.ones_like(w), w / w.sum()
    mean = (shares[:, None, None] * s).sum(0)
    says = "You averaged probabilities. PET averages the scores first and takes one softmax at the end."
    mixed = (shares[:, None, None] * (s / 2).softmax(-1)).sum(0)
    wrong = {
        says: mixed,
        f"{says} T comes before that softmax.": (mixed / 2).softmax(-1),
        f"{says} And the weights count.": (s / 2).softmax(-1).mean(0),
        "You averaged log-probabilities with the temperature in the wrong place.": (
            (shares[:, None, None] * s.log_softmax(-1)).sum(0).exp()
        ),
        "All patterns count alike here: the weights are not used.": wanted_labels(s, ones, 2.0),
        "The weights are not divided by their sum, so they change the temperature.": wanted_labels(
            s, w, 2.0 / w.sum()
        ),
        "You divide by the number of patterns. Divide by the sum of their weights.": wanted_labels(
            s, w, 2.0 * 3 / w.sum()
        ),
        "You multiplied by T. A temperature above 1 makes the labels softer.": wanted_labels(s, w, 0.5),
        "The temperature is missing.": wanted_labels(s, w, 1.0),
        "T is divided by twice.": wanted_labels(s, w, 4.0),
        "The weights went through a softmax. Divide them by their sum.": wanted_labels(s, w.softmax(0), 2.0),
        "The softmax runs over the texts. Each text gets a distribution over the labels.": (mean / 2).softmax(
            0
        ),
        "These are scores. A softmax makes probabilities of them.": mean / 2,
        "These are logarithms. Probabilities are asked for.": want.log(),
        "The probabilities are divided by T. It belongs inside the softmax.": mean.softmax(-1) / 2,
        "Finished probabilities are divided by T, for a second softmax. Divide the scores, and take one softmax.": (
            mean.softmax(-1) / 2
        ).softmax(-1),
        "Only the pattern of the largest weight is used.": (s[w.argmax()] / 2).softmax(-1),
    }
    checking.equal(got, want, "the labels", wrong, says="The values are wrong: follow the formula.")
    print("13.2 passed the visible cases.")


check_13_2(soft_labels)

### BEGIN HIDDEN TESTS


def hidden_13_2(soft_labels):
    call = checking.calls(soft_labels)
    for seed, P, N, K, T in (
        (1, 1, 3, 2, 1.0),
        (2, 5, 1, 4, 3.0),
        (3, 2, 6, 3, 0.5),
        (5, 4, 4, 4, 7),
        (6, 3, 2, 1, 2),
    ):
        case = *made_scores(seed, P, N, K), T
        says = f"Wrong for P = {P}, N = {N}, K = {K}, T = {T}."
        call.agrees(wanted_labels, case, name="the labels", says=says)
    s, w = made_scores(4, 2, 3, 5)
    w[0] = 0.0
    says = "A pattern of weight 0 must not count at all."
    call.agrees(wanted_labels, (s, w, 1.0), name="the labels", says=says)
    s, w = made_scores(7, 3, 4, 2)
    says = "All weights are 2000 times as large: only their ratios may matter."
    call.agrees(wanted_labels, (s, 2000 * w, 2.0), (s, w / 2000, 2.0), name="the labels", says=says)
    for far in (200.0, 2000.0):
        says = f"Scores {far:g} apart, or {far:g} below zero: take the largest off before exp, or use torch.softmax."
        cases = (far * s, w, 1.0), (s - far, w, 1.0), (s, w, 1 / far)
        call.agrees(wanted_labels, *cases, name="the labels", says=says)
    single = s.float(), w.float(), 2.0
    call.agrees(wanted_labels, single, name="the labels", dtype=torch.float32, says="Arguments in float32.")
    says = "The weights belong to the patterns: another order of both changes nothing."
    call.agrees(wanted_labels, (s.flip(0), w.flip(0), 2.0), name="the labels", says=says)


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
def toy_search(seed, V=12, n=2, d=3):
    g = torch.Generator().manual_seed(seed)
    E, target = torch.randn(V, d, generator=g).double(), torch.randn(n, d, generator=g).double()
    trigger = torch.randperm(V, generator=g)[:n].tolist()
    return E, trigger, lambda vectors: ((vectors - target) ** 2).sum() + torch.sin(4 * vectors).sum()


def first_order(swap, g, at):
    """The change of the loss to first order, for each row of swap."""
    return swap @ g[at]


def proposals(E, trigger, at, loss, keep, rank=first_order):
    """The triggers with the ``keep`` most promising tokens at place ``at``."""
    vectors = E[trigger].clone().requires_grad_()
    (g,) = torch.autograd.grad(loss(vectors), vectors)
    order = rank(E - E[trigger[at]], g, at).argsort().tolist()[:keep]
    return [[*trigger[:at], token, *trigger[at + 1 :]] for token in order]


def wanted_step(E, trigger, at, loss, keep=4, rank=first_order):
    options = [trigger, *proposals(E, trigger, at, loss, keep, rank)]
    return min(options, key=lambda ids: loss(E[ids]).item())


def check_13_3(step):
    call = checking.calls(step)
    cases = [
        (E, trigger, at, loss)
        for seed in range(8)
        for E, trigger, loss in [toy_search(seed)]
        for at in (0, 1)
    ]
    got, want = [call(*case) for case in cases], [wanted_step(*case) for case in cases]
    for ids, (_, trigger, at, _) in zip(got, cases, strict=True):
        assert isinstance(ids, list) and len(ids) == 2, (
            f"A list of two token ids expected, not {checking.shown(ids)}."
        )
        assert ids[1 - at] == trigger[1 - at], f"Only place {at} may change."

    def first(E, trigger, at, loss, keep=4):
        return proposals(E, trigger, at, loss, keep)[0]

    def lower(E, trigger, at, loss, keep=4):
        """The first proposal that lowers the loss."""
        before = loss(E[trigger]).item()
        return next((t for t in proposals(E, trigger, at, loss, keep) if loss(E[t]).item() < before), trigger)

    def latest(E, trigger, at, loss, keep=4):
        """The last proposal that lowers the loss."""
        before = loss(E[trigger]).item()
        found = [t for t in proposals(E, trigger, at, loss, keep) if loss(E[t]).item() < before]
        return [trigger, *found][-1]

    def best(E, trigger, at, loss, keep=4):
        return min(proposals(E, trigger, at, loss, keep), key=lambda ids: loss(E[ids]).item())

    wrong = {
        message: [function(*case) for case in cases]
        for message, function in {
            "The largest first-order change is the worst proposal: a loss should fall.": broken_step,
            "The largest first-order changes are the worst proposals: a loss should fall. Take the smallest.": (
                lambda *case: wanted_step(*case, rank=lambda swap, g, at: -first_order(swap, g, at))
            ),
            "The changes nearest to 0 are no good proposals. Take the smallest: the most negative ones.": (
                lambda *case: wanted_step(*case, rank=lambda swap, g, at: first_order(swap, g, at).abs())
            ),
            "You took the gradient summed over all places. A swap at one place meets the row `at` alone.": (
                lambda *case: wanted_step(*case, rank=lambda swap, g, at: swap @ g.sum(0))
            ),
            "The loss went up. First order only proposes: a swap counts if the true loss fell.": first,
            "The first proposal failed, and you gave up. Try all of the keep tokens.": (
                lambda *case: wanted_step(*case, keep=1)
            ),
            "You take the first proposal that lowers the loss. Take the one with the smallest true loss.": lower,
            "You keep the last proposal that lowers the loss. Keep the one with the smallest true loss.": latest,
            "You take the best proposal, also if the loss of trigger itself is smaller.": best,
            "You tried all tokens. Only the keep most promising ones are tried: a vocabulary has 50,000.": (
                lambda *case: wanted_step(*case, keep=12)
            ),
            "Nothing is ever swapped.": lambda *case: case[1],
        }.items()
    }
    says = "compare the true losses of the proposals and of trigger."
    for ids, right, (E, trigger, at, loss) in zip(got, want, cases, strict=True):
        if ids != right:
            if loss(E[ids]) > loss(E[trigger]):
                says = "The loss went up. First order only proposes: a swap counts if the true loss fell."
            elif ids not in [trigger, *proposals(E, trigger, at, loss, 4)]:
                says = (
                    "You tried a token that is not among the keep most promising ones, by (E - old) · g[at]."
                )
            elif ids == trigger:
                says = "You gave up though a proposal lowers the loss. Try all of the keep tokens."
            else:
                says = (
                    "A better swap was among the proposals: compare their true losses, not their estimates."
                )
            break
    checking.equal(got, want, "the triggers", wrong, says=says)
    for keep, V, n in ((1, 9, 3), (2, 15, 4), (6, 8, 1), (5, 5, 2)):
        cases = []
        for seed in range(4):
            E, trigger, loss = toy_search(10 + seed, V, n, d=4)
            cases.append((E, trigger, (n - 1) * (seed % 2), loss, keep))
        call.agrees(wanted_step, *cases, name="the trigger", says=f"keep = {keep}, V = {V}, n = {n}.")
    E, trigger = torch.eye(5, 3).double(), [3, 0]  # tokens 3 and 4 have the same vector
    says = "Another token has the same vector, so no loss is *below* that of trigger: return it as it was."
    checking.equal(call(E, trigger, 0, lambda v: v.square().sum()), trigger, "the trigger", says=says)
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
# drawn, and the other $k - 1$ come from those behind it. All dev scores differ. There may be a few hundred candidates: too
# many to list all draws.


# %% nbgrader={"grade_id": "answer_13_4", "solution": true}
def best_of(dev, test, k):
    """dev, test: lists of N numbers; k from 1 to N. Return the expected test score, a number."""
    ### BEGIN SOLUTION
    order = sorted(range(len(dev)), key=lambda i: -dev[i])
    N = len(dev)
    return sum(comb(N - r, k - 1) * test[i] for r, i in enumerate(order, 1)) / comb(N, k)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_13_4", "grade": true, "points": 3, "locked": true}
def wanted_best(dev, test, k):
    kept = [test[max(chosen, key=lambda i: dev[i])] for chosen in itertools.combinations(range(len(dev)), k)]
    return sum(kept) / len(kept)


def check_13_4(best_of):
    call = checking.calls(best_of)
    dev, test = [-2.0, -0.5, -3.0, -1.0], [0.5, 0.2, 0.1, 0.9]
    order = [0.2, 0.9, 0.5, 0.1]  # the test scores, the best dev score first
    worst = [-d for d in dev]
    wrong = {
        "You kept the best on test. Nobody can choose it: the choice is made on dev.": wanted_best(
            test, test, 2
        ),
        "The worst dev score wins here. A log-likelihood is better when it is larger.": wanted_best(
            worst, test, 2
        ),
        "That is with replacement: the same candidate could be drawn twice.": sum(
            (9 - 2 * r) * t for r, t in enumerate(order, 1)
        )
        / 16,
        "This is the expected *dev* score. What is it worth on test?": wanted_best(dev, dev, 2),
        "This is the best of all candidates on dev. Only k of them are written.": 0.2,
        "This is the mean of all. Of k candidates the best on dev is kept.": sum(test) / 4,
        "The test scores are not in the order of the dev scores.": (3 * 0.5 + 2 * 0.2 + 1 * 0.1) / 6,
        "The sum is not divided by the number of draws, binom(N, k).": 3 * 0.2 + 2 * 0.9 + 0.5,
        "Ranks count from 1: the best has N - 1 candidates behind it.": (4 * 0.2 + 3 * 0.9 + 2 * 0.5 + 0.1)
        / 6,
        "The k - 1 others come from the N - r behind: binom(N - r, k - 1). You have k there.": (3 * 0.2 + 0.9)
        / 6,
        "The first rank is left out.": (2 * 0.9 + 0.5) / 6,
        "This is the best test score of all.": 0.9,
    }
    says = "The value is wrong: test every pair of candidates by hand."
    checking.equal(call(dev, test, 2), wanted_best(dev, test, 2), "the expected score", wrong, says=says)
    says = "k = N: the best dev score is always there."
    checking.equal(call(dev, test, 4), 0.2, "the expected score", says=says)
    says = "k = 1: nothing is chosen. It is the mean."
    checking.equal(call(dev, test, 1), sum(test) / 4, "the expected score", says=says)
    print("13.4 passed the visible cases.")


check_13_4(best_of)

### BEGIN HIDDEN TESTS


def hidden_13_4(best_of):
    call = checking.calls(best_of)
    g = torch.Generator().manual_seed(1)
    for N in (1, 3, 7):
        dev, test = torch.randn(N, generator=g).tolist(), torch.rand(N, generator=g).tolist()
        cases = [(dev, test, k) for k in range(1, N + 1)]
        call.agrees(wanted_best, *cases, name="the expected score", says=f"Wrong for N = {N}.")
    far = [200.0, -2000.0, 0.0, 2000.0, -1.5], [1, 0, 1, 1, 0]
    cases = [(*far, 2), (*far, 3), (far[0], [-2000.0, 5.5, 0.0, 3.0, 0.0], 2)]
    says = "Scores thousands apart and below zero; equal test scores."
    call.agrees(wanted_best, *cases, name="the expected score", says=says)

    def rank_by_rank(dev, test, k):
        """Each rank's probability from that of the rank before."""
        left, N, kept = 1.0, len(dev), 0.0
        for r, (_, score) in enumerate(sorted(zip(dev, test, strict=True), reverse=True)):
            taken = k / (N - r)  # that this one is drawn, if none before it was
            kept, left = kept + left * taken * score, left * (1 - taken)
            if left <= 0:
                break
        return kept

    slow = "Does it list all draws? 150 of 300 candidates can be drawn in 1e89 ways: use the formula."
    call = checking.calls(best_of, limit=0.5, slow=slow)
    for N, k in ((30, 15), (300, 150), (200, 3)):
        dev, test = torch.randn(N, generator=g).tolist(), torch.rand(N, generator=g).tolist()
        says = f"{k} of {N} candidates."
        call.agrees(rank_by_rank, (dev, test, k), name="the expected score", says=says)


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
    """Return a dict of four numbers: cosine, error, pairs, pool."""
    ### BEGIN SOLUTION
    return {"cosine": -1, "error": 4, "pairs": 2, "pool": 0}
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_13_5", "locked": true}
def check_13_5(prediction):
    mine = checking.predicted(prediction, ("cosine", "error", "pairs", "pool"))
    wrong = {
        "cosine: both gradients lie on the same line, the difference of the two rows.": 0,
        "cosine: the words changed places, so the sign of their difference changed.": 1,
    }
    checking.equal(mine["cosine"], -1, "cosine", wrong, says="cosine: a number from -1 to 1.")
    wrong = {
        "error: the estimate itself halves. Its error is of second order.": 2,
        "error: the factor by which it gets *smaller*: old over new.": 1 / 4,
        "error: the estimate itself halves, and its error is of second order. Write old over new.": 1 / 2,
        "error: of second order, not of third.": 8,
        "error: of second order, and the step is halved once.": 16,
        "error: the first-order estimate is exact for a straight line only.": 1,
    }
    says = "error: what first order leaves out grows with the square of the step."
    checking.equal(mine["error"], 4, "error", wrong, says=says)
    wrong = {
        "pairs: a standard error falls with the root of the number of pairs.": 4,
        "pairs: the factor by which it gets *smaller*: old over new.": 1 / 2,
        "pairs: a standard error falls with the root of the number of pairs. Write old over new.": 1 / 4,
        "pairs: a standard error falls with the root of the number of pairs, not with its square.": 16,
        "pairs: more pairs make each score more exact, so there is less luck to choose from.": 1,
    }
    says = "pairs: the optimism is so many standard errors. How does one of them change?"
    checking.equal(mine["pairs"], 2, "pairs", wrong, says=says)
    wrong = {"pool: it would be tested on what its teachers told it there.": 1}
    checking.equal(mine["pool"], 0, "pool", wrong, says="pool: 0 or 1.")
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

# %% [markdown]
# ## 13.6 A search that must pay for its passes
#
# > ●●●●○ · 60 minutes · graded
#
# Here is a language of $400$ words. Half of them mean a direction, the others mean nothing; nobody tells you what a word
# means. A prompt has four words, and a text is a row $x$ of six numbers. A small network has learned from scratch to read
# both: it gives a logit for "yes". `Language(seed)` trains it in half a second. Now somebody brings a task: $64$ rows, each
# with a label. No word means just this task. Find four words that make the frozen network do it, and say how well it will do
# it. Write
#
# `search(model, x, y, generator) -> (prompt, estimate)`
#
# - `x` is (N, 6) float32, `y` (N,) float32 of zeros and ones; `generator` is for your draws.
# - `model.E`: the vectors of the words, (400, 12). `model.left`: the passes that are left. One row through the network is one
#   pass, forward; backward costs two more.
# - `model.read(prompt, x)`: the logits, (N,), for $N$ passes. `model.slopes(prompt, x, y)`: the gradient of the mean loss
#   (binary cross-entropy with logits) with respect to the four words' vectors, (4, 12), for $3N$ passes. A call that costs
#   more than is left raises `OverBudget`. Both read rows of `x`; any other row is a `ValueError`. A prompt is a list of four
#   ints from 0 to 399; a word may stand in it twice.
# - `estimate`: the accuracy that you promise for rows that nobody has seen, a share.
#
# The checker brings $72$ tasks with `BUDGET` passes each. On *fresh* rows your prompts must have a mean loss of at most
# `BAR`. Random swaps that are kept if the loss falls reach `RANDOM`, with as many passes. And on average your promise may lie
# at most $2.5$ points above the truth, and at most $6$ points below. The hidden cases have other languages, and fewer rows
# and passes.


# %%
WORDS, PLACES, WIDE = 400, 4, 6
BUDGET, BAR, RANDOM = 4000, 0.39, 0.43


class Language(nn.Module):
    """The network, trained on prompts of random words. ``forward(vectors, x)`` wants the prompt's vectors, (…, 4, 12)."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        meaning = torch.randn(WORDS, WIDE) * (torch.rand(WORDS, 1) < 0.5)
        self.E = nn.Parameter(0.5 * torch.randn(WORDS, 12))
        self.mix, self.out = nn.Linear(12 * PLACES, 24), nn.Linear(24, WIDE)
        adam = torch.optim.Adam(self.parameters())
        for step in range(400):
            adam.param_groups[0]["lr"] = 0.02 * (1 - step / 400)
            prompt, x = torch.randint(WORDS, (256, PLACES)), torch.randn(256, WIDE)
            y = ((meaning[prompt].sum(1) * x).sum(1) > 0).float()
            adam.zero_grad()
            F.binary_cross_entropy_with_logits(self(self.E[prompt], x), y).backward()
            adam.step()
        self.requires_grad_(False)

    def forward(self, vectors, x):
        return (self.out(torch.tanh(self.mix(vectors.flatten(-2)))) * x).sum(-1)


class OverBudget(Exception):
    """More passes were asked for than are left."""


class Metered:
    """A language behind a counter. ``log`` keeps what was asked: (prompt, gradient or None)."""

    def __init__(self, net, budget, rows):
        self._net, self._rows = net, rows
        self.E, self.left, self.log = net.E.detach().clone(), budget, []

    def pay(self, passes, prompt, x):
        if not (x[:, None] == self._rows).all(-1).any(1).all():
            raise ValueError("a row that is none of the task's: read rows of x")
        if not (len(prompt) == PLACES and all(0 <= word < WORDS and word % 1 == 0 for word in prompt)):
            raise ValueError(f"{prompt!r} is no prompt: {PLACES} ints from 0 to {WORDS - 1}")
        if passes > self.left:
            raise OverBudget(f"{passes} passes, {self.left} are left")
        self.left -= passes
        return self._net.E[torch.tensor([int(word) for word in prompt])].clone()

    def read(self, prompt, x):
        vectors = self.pay(len(x), prompt, x)
        self.log.append((list(prompt), None))
        return self._net(vectors, x)

    def slopes(self, prompt, x, y):
        vectors = self.pay(3 * len(x), prompt, x).requires_grad_()
        with torch.enable_grad():
            (g,) = torch.autograd.grad(F.binary_cross_entropy_with_logits(self._net(vectors, x), y), vectors)
        self.log.append((list(prompt), g.clone()))
        return g


def brought(g, n=64):
    """A task: n labelled rows, and 2000 fresh ones for the checker."""
    direction = F.normalize(torch.randn(WIDE, generator=g), dim=0)
    x = torch.randn(n + 2000, WIDE, generator=g)
    y = (
        x @ direction + 0.3 * torch.randn(n + 2000, generator=g) > 0
    ).float()  # near the border labels may be wrong
    return x[:n], y[:n], x[n:], y[n:]


# %% nbgrader={"grade_id": "answer_13_6", "solution": true}
def search(model, x, y, generator):
    """Return a prompt, a list of four ints, and the accuracy that you promise for it."""
    ### BEGIN SOLUTION
    held = len(x) // 3  # they judge at the end, and take no part before
    x_held, y_held, x, y = x[:held], y[:held], x[held:], y[held:]
    tries, best, found = 12, math.inf, None

    def loss(prompt):
        return F.binary_cross_entropy_with_logits(model.read(prompt, x), y).item()

    def rich(passes):
        return model.left >= passes + held

    while rich((4 + tries) * len(x)):
        prompt = torch.randint(len(model.E), (4,), generator=generator).tolist()
        now, at, idle = loss(prompt), 0, 0
        while idle < 4 and rich((3 + tries) * len(x)):  # place by place, until no place can be improved
            change = (model.E - model.E[prompt[at]]) @ model.slopes(prompt, x, y)[at]
            idle += 1
            for word in change.topk(tries, largest=False).indices.tolist():
                swapped = [*prompt[:at], word, *prompt[at + 1 :]]
                if (after := loss(swapped)) < now:
                    prompt, now, idle = swapped, after, 0
            at = (at + 1) % 4
        if now < best:  # then from a new start
            best, found = now, prompt
    right = (model.read(found, x_held) > 0) == (y_held > 0)
    return found, right.double().mean().item()
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_13_6", "grade": true, "points": 5, "locked": true}
def searched(search, languages, tasks, rows, budget):
    """For each task: loss and accuracy on fresh rows, the promise, and what the log tells."""
    limit = "A search takes less than a tenth of a second. Do you count the passes?"
    call, found, promises = (
        checking.calls(search, limit=10.0, slow=limit, changes=("model", "generator")),
        [],
        set(),
    )
    over = f"A search asked for more than its {budget} passes. Rows count, not calls, and slopes cost three a row."
    for seed in languages:
        net = Language(seed)
        for task in range(tasks):
            x, y, fresh_x, fresh_y = brought(torch.Generator().manual_seed(1000 * seed + task), rows)
            model = Metered(net, budget, x)
            with checking.means(OverBudget, over):
                got = call(model, x, y, torch.Generator().manual_seed(task))
            assert isinstance(got, list | tuple) and len(got) == 2, "Return the prompt and the estimate."
            prompt, promise = got
            checking.form(list(prompt), [0] * PLACES, "the prompt")
            assert all(0 <= word < WORDS for word in prompt), (
                f"The prompt {prompt} holds a word that is none."
            )
            checking.form(promise, 0.5, "the estimate")
            assert 0 <= promise <= 1, f"The estimate is {promise}: a share from 0 to 1 is asked for."
            promises.add(float(promise))

            def loss(prompt, x=fresh_x, y=fresh_y, net=net):
                return F.binary_cross_entropy_with_logits(net(net.E[torch.tensor(list(prompt))], x), y).item()

            z = net(net.E[torch.tensor(list(prompt))], fresh_x)
            slopes = [(asked, g) for asked, g in model.log if g is not None]
            promised = []
            for (before, g), (tried, other) in itertools.pairwise(model.log):
                at = [k for k in range(PLACES) if tried[k] != before[k]]
                if g is not None and other is None and len(at) == 1:
                    promised.append(float((model.E[tried[at[0]]] - model.E[before[at[0]]]) @ g[at[0]]))
            read = {tuple(asked) for asked, _ in model.log} or {tuple(prompt)}
            regret = loss(prompt, x, y) - min(
                loss(asked, x, y) for asked in list(read)[:: max(1, len(read) // 30)]
            )
            right = ((z > 0) == (fresh_y > 0)).double().mean().item()
            up = sum(change > 0 for change in promised) / max(1, len(promised))
            found.append((loss(prompt), promise - right, len(slopes), up, regret, model.left / budget))
    return *(sum(column) / len(found) for column in zip(*found, strict=True)), promises


def judge_13_6(search, languages, tasks, rows, budget, bar, room):
    loss, optimism, slopes, up, regret, left, promises = searched(search, languages, tasks, rows, budget)
    if loss > bar:
        told = f"Mean loss on fresh rows {loss:.3f}; at most {bar} is asked for."
        assert slopes > 0, (
            f"{told} You never asked for slopes. Random swaps do not get further with these passes."
        )
        assert up < 0.5, (
            f"{told} The first words that you try are those of which the slopes say that the loss will rise."
        )
        assert regret < 0.05, (
            f"{told} You read better prompts than the one that you return, by {regret:.2f} on your own rows. A swap is kept "
            "only if the true loss fell."
        )
        assert slopes > 1.5, (
            f"{told} One gradient, one swap, and {left:.0%} of the passes left: that is a first step."
        )
        assert left < 0.3, (
            f"{told} You stop with {left:.0%} of the passes left. That the most promising swaps of this prompt do not help "
            "does not say that none does: other places, other words, another start."
        )
        raise AssertionError(
            f"{told} All passes are spent. How many rows does a look need, and how many words a place are worth a look?"
        )
    assert optimism <= room, (
        f"You promise {100 * optimism:.1f} points too much, on average. The rows that chose a prompt flatter it: keep some "
        "that take no part in the search."
    )
    assert optimism >= min(-0.06, -room), (
        f"You promise {-100 * optimism:.1f} points too little: that is no estimate."
    )
    assert len(promises) > 1, (
        f"You promise {promises.pop()} for every task. A promise comes from the task's own rows."
    )
    return loss, optimism


def check_13_6(search):
    loss, optimism = judge_13_6(search, (0, 1), 36, 64, BUDGET, BAR, 0.025)
    print(
        f"13.6 passed the visible cases: loss {loss:.3f} (random swaps {RANDOM}), promise {100 * optimism:+.1f} points."
    )


check_13_6(search)
### BEGIN HIDDEN TESTS


def hidden_13_6(search):
    judge_13_6(search, (7,), 24, 40, 3000, 0.46, 0.06)


hidden_13_6(search)
### END HIDDEN TESTS

# %% [markdown]
# ## 13.7 Project: what does the work, the pattern or the words?
#
# > ●●●●● · 150 minutes · practice
#
# Section 4 of the lesson has a square with four corners: bare text or pattern, fresh head or words. It has three draws of
# ten sentences, so it is a picture. Make a result of it, or of another square: two *factors* with two levels each, all four
# combinations, and a claim about one of three numbers. Write $y_{ij}$ for the score with the first factor at level $i$ and
# the second at level $j$, $0$ for low and $1$ for high:
#
# $$ \text{first} = \frac{(y_{10} - y_{00}) + (y_{11} - y_{01})}{2}, \qquad
# \text{second} = \frac{(y_{01} - y_{00}) + (y_{11} - y_{10})}{2}, $$
#
# $$ \text{interaction} = (y_{11} - y_{10}) - (y_{01} - y_{00}) . $$
#
# Whoever compares "pattern and words" with "bare text and head" has $y_{11} - y_{00}$, the sum of first and second, and
# cannot say which of them did it. Write the claim before the runs: "*this number* is larger than `threshold`". Return a
# dict with exactly these keys:
#
# - `claim`: a sentence that names both factors. `factors`: a dict from the name of the first, then of the second, to its pair
#   of levels, low and high. A *cell* is a pair (level of the first, level of the second).
# - `tuning_seeds`, `seeds`: at least three and at least ten seeds; all different, none in both lists. A seed draws the
#   labelled sentences, the test sentences and the first values, the same for all four cells.
# - `tried`: cell → a dict from a value of the knob (the rate, say) to the list of dev accuracies over the tuning seeds. At
#   least three values, and equally many in each cell. `chosen`: cell → the value with the highest mean; of equals the
#   smallest.
# - `score`: cell → list of test accuracies over `seeds`, shares from 0 to 1. `items`: test sentences for each seed and cell.
# - `effects`, `intervals`: the two factors' names and `"interaction"` → the mean over seeds, and the pair of ends of its t
#   interval at $0.95$. The unit is the **seed**: compute the number for each seed, then take the interval of these.
# - `odds`: mean, low and high of the interaction on the scale of log-odds, where a score of $k$ right ones among $n$ items
#   counts as $\ln \frac{k + 1/2}{n - k + 1/2}$. Near the top a step of equal size is worth more there.
# - `scale_matters`: `True` if the interaction's interval contains 0 on one of the two scales and not on the other, or if it
#   lies above 0 on one and below on the other; else `False`.
# - `about`: the key of `effects` that the claim is about. `threshold`: a number. `verdict`: `"supported"` if its interval
#   lies above the threshold, `"refuted"` if it lies below, else `"undecided"`. The other two numbers are exploratory.
#
# The checker recomputes all numbers; it cannot know whether you ran what you report. A person reads the rest with this rubric
# (0, 1 or 2 points a row; 8 of 12 pass):
#
# | | 0 | 1 | 2 |
# |:--|:--|:--|:--|
# | claim | cannot fail | can fail | and its failure would change how somebody prompts |
# | square | a cell differs in more than its two levels | differs in them only | and this was checked, cell by cell |
# | tuning | rates of one cell for all | equal tries in each cell | and dev labels that the user would not have are named |
# | system | the two factors cannot matter, or always do | they can | and a control shows it: swapped words, empty pattern |
# | scale | one scale, no word why | both are reported | and the text says which one answers the claim, and why |
# | ending | a winner | a verdict | exploratory numbers are called so; one system is called one system |
#
# The cell below is a start, and enough for a first square: a small network that has read sentences. After a sentence it
# expects the word of a topic; after a sentence and a mark it expects a word of praise or of blame. `few_shot` tunes it on
# eight labelled sentences a seed, for all seeds at once. Add factors of your own, or take SmolLM2 as the lesson does.


# %%
PLAIN, MARK, BAD, GOOD, TOPIC, SIZE = (
    40,
    40,
    41,
    42,
    43,
    46,
)  # 40 plain words, a mark, 2 label words, 3 topic words


class Knower(nn.Module):
    """A reader that expects, after a sentence of six words, a topic; after the mark, a word of praise or blame."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.mood, self.topic = torch.randn(PLAIN), torch.randn(PLAIN, 3)
        self.E, self.rows = (
            nn.Parameter(0.5 * torch.randn(SIZE, 16)),
            nn.Parameter(0.3 * torch.randn(SIZE, 32)),
        )
        self.mix = nn.Linear(32, 32)
        adam = torch.optim.Adam(self.parameters())
        for step in range(250):
            adam.param_groups[0]["lr"] = 0.02 * (1 - step / 250)
            words, marked = torch.randint(PLAIN, (128, 6)), torch.rand(128) < 0.5
            expected = torch.where(
                marked, BAD + self.praise(words), TOPIC + self.topic[words].sum(1).argmax(1)
            )
            adam.zero_grad()
            state = self.state(words, torch.where(marked, MARK, words[:, -1]))
            F.cross_entropy(state @ self.rows.T, expected).backward()
            adam.step()
        self.requires_grad_(False)

    def praise(self, words):
        """1 for a sentence of praise, 0 for one of blame, by its words (…, 6)."""
        return (self.mood[words].sum(-1) > 0).long()

    def state(self, words, last, change=0.0):
        """The state of the last token, (…, 32)."""
        read = torch.cat([self.E[words].mean(-2), self.E[last]], -1)
        return torch.tanh(read @ (self.mix.weight + change).mT + self.mix.bias)


def few_shot(net, text, rows, rate, seeds, shots=8, steps=30, items=200):
    """Test accuracies, one a seed. text: "bare" or "pattern" (the mark); rows: "head" (random) or "words" (the model's)."""
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]

    def drawn(*shape):
        return torch.stack([torch.randn(*shape, generator=g) for g in draws])

    words = torch.stack([torch.randint(PLAIN, (shots + items, 6), generator=g) for g in draws])
    last = torch.full_like(words[..., 0], MARK) if text == "pattern" else words[..., -1]
    y, A, B = net.praise(words), drawn(2, 32) / 32**0.5, torch.zeros(len(seeds), 32, 2)
    head = 0.1 * drawn(2, 32) if rows == "head" else net.rows[[BAD, GOOD]].repeat(len(seeds), 1, 1)
    trained = [w.requires_grad_() for w in ((A, B, head) if rows == "head" else (A, B))]
    adam = torch.optim.Adam(trained, lr=rate)
    for _ in range(steps):
        z = net.state(words[:, :shots], last[:, :shots], B @ A) @ head.mT
        adam.zero_grad()
        F.cross_entropy(z.flatten(0, 1), y[:, :shots].flatten(), reduction="sum").backward()
        adam.step()
    with torch.no_grad():
        z = net.state(words[:, shots:], last[:, shots:], B @ A) @ head.mT
    return (z.argmax(-1) == y[:, shots:]).double().mean(1).tolist()


print("pattern and words, three seeds:", few_shot(Knower(0), "pattern", "words", 1e-3, range(3)))


# %% nbgrader={"grade_id": "answer_13_7", "solution": true}
def square():
    """Return the dict of the list."""
    ### BEGIN SOLUTION
    net, factors = Knower(0), {"text": ("bare", "pattern"), "rows": ("head", "words")}
    tuning_seeds, seeds, items = [0, 1, 2, 3], list(range(100, 116)), 200
    cells = list(itertools.product(*factors.values()))
    tried = {
        cell: {
            rate: few_shot(net, *cell, rate, tuning_seeds, items=100)
            for rate in (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
        }
        for cell in cells
    }
    chosen = {cell: max(sorted(dev), key=lambda rate: sum(dev[rate])) for cell, dev in tried.items()}
    score = {cell: few_shot(net, *cell, chosen[cell], seeds, items=items) for cell in cells}

    def numbers(y):
        """The three numbers, one a seed; y (2, 2, seeds)."""
        return {
            "text": (y[1, 0] - y[0, 0] + y[1, 1] - y[0, 1]) / 2,
            "rows": (y[0, 1] - y[0, 0] + y[1, 1] - y[1, 0]) / 2,
            "interaction": y[1, 1] - y[1, 0] - y[0, 1] + y[0, 0],
        }

    y = torch.tensor([score[cell] for cell in cells], dtype=torch.float64).view(2, 2, -1)
    right = (y * items).round()
    found = {name: intervals.t_interval(x.tolist()) for name, x in numbers(y).items()}
    logs = numbers(((right + 0.5) / (items - right + 0.5)).log())["interaction"]
    odds = intervals.t_interval(logs.tolist())
    sides = [(x.low > 0) - (x.high < 0) for x in (found["interaction"], odds)]
    text, bar = found["text"], 0.05
    return {
        "claim": "For this network and eight sentences, reading the pattern's text instead of the bare sentence adds more "
        "than five points, averaged over both kinds of rows: then whoever keeps a head should still write the pattern.",
        "factors": factors, "tuning_seeds": tuning_seeds, "seeds": seeds, "tried": tried, "chosen": chosen,
        "score": score, "items": items, "effects": {name: x.mean for name, x in found.items()},
        "intervals": {name: (x.low, x.high) for name, x in found.items()}, "odds": (odds.mean, odds.low, odds.high),
        "scale_matters": sides[0] != sides[1], "about": "text", "threshold": bar,
        "verdict": "supported" if text.low > bar else "refuted" if text.high < bar else "undecided",
    }  # fmt: skip
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_13_7", "locked": true}
SQUARE = (
    "claim factors tuning_seeds seeds tried chosen score items effects intervals odds scale_matters about threshold verdict"
).split()


def three(y):
    """first, second, interaction; y (2, 2, …)."""
    first = (y[1, 0] - y[0, 0] + y[1, 1] - y[0, 1]) / 2
    return first, (y[0, 1] - y[0, 0] + y[1, 1] - y[1, 0]) / 2, y[1, 1] - y[1, 0] - y[0, 1] + y[0, 0]


def check_13_7(square):
    mine = checking.handed_in(square, SQUARE, limit=240.0)
    factors, seeds, n = mine["factors"], mine["seeds"], mine["items"]
    assert isinstance(factors, dict) and len(factors) == 2, (
        "factors: two names, each with its pair of levels."
    )
    assert all(len(set(pair)) == len(pair) == 2 for pair in factors.values()), (
        "factors: two different levels each."
    )
    for name in factors:
        assert name in mine["claim"], f"claim: {name!r} does not occur. A claim names what it varies."
    for key, least in (("tuning_seeds", 3), ("seeds", 10)):
        assert len(set(mine[key])) == len(mine[key]) >= least, f"{key}: at least {least}, no two alike."
    both = set(seeds) & set(mine["tuning_seeds"])
    assert not both, f"seeds: {sorted(both)} chose the knob. A value looks best on the runs that chose it."
    cells = list(itertools.product(*factors.values()))
    for key in ("tried", "chosen", "score"):
        assert set(mine[key]) == set(cells), f"{key}: the four cells are {', '.join(map(str, cells))}."
    sizes = {len(dev) for dev in mine["tried"].values()}
    assert len(sizes) == 1 and min(sizes) >= 3, (
        "tried: at least three values of the knob, equally many in each cell."
    )
    for cell, dev in mine["tried"].items():
        assert all(len(x) == len(mine["tuning_seeds"]) for x in dev.values()), (
            "tried: one accuracy a tuning seed."
        )
        want = max(sorted(dev), key=lambda v: round(sum(dev[v]), 9))
        lucky = max(sorted(dev), key=lambda v: max(dev[v]))
        told = {"chosen: one seed was best there. The mean over the tuning seeds chooses.": lucky}
        checking.equal(
            mine["chosen"][cell], want, f"chosen[{cell}]", told, says="chosen: highest mean on dev."
        )
    y = torch.tensor([mine["score"][cell] for cell in cells], dtype=torch.float64)
    assert y.shape == (4, len(seeds)), f"score: {len(seeds)} accuracies in each cell, one a seed."
    assert ((y >= 0) & (y <= 1)).all(), "score: an accuracy is a share from 0 to 1."
    assert type(n) is int and n > 0, "items: how many test sentences, a whole number."
    k = (y * n).round()
    assert (k - y * n).abs().max() < 1e-6, (
        f"score: with {n} items an accuracy is a whole number divided by {n}."
    )
    assert y.std(1).max() > 0, "score: all seeds have the very same numbers. Something is not drawn anew."
    names, y, k = [*factors, "interaction"], y.view(2, 2, -1), k.view(2, 2, -1)
    for key in ("effects", "intervals"):
        assert set(mine[key]) == set(names), f"{key}: keys expected: {', '.join(names)}."
    for name, x in zip(names, three(y), strict=True):
        mean, got = x.mean().item(), mine["effects"][name]
        m = y.mean(-1)
        known = {
            f"effects: {name}: that is the diagonal, both changes at once.": (m[1, 1] - m[0, 0]).item(),
            f"effects: {name}: the sign is turned round, or the levels.": -mean,
        }
        if name == "interaction":
            known["effects: interaction: half of it. It is the difference of two differences, undivided."] = (
                mean / 2
            )
        else:
            a, b = ((1, 0), (0, 0)) if name == names[0] else ((0, 1), (0, 0))
            c, d = ((1, 1), (0, 1)) if name == names[0] else ((1, 1), (1, 0))
            only = f"effects: {name}: that is its effect at one level of the other factor only. Take the mean of both."
            known |= {only: (m[a] - m[b]).item(), f"{only} ": (m[c] - m[d]).item()}
            known[f"effects: {name}: a sum of two differences. Take their mean."] = 2 * mean
        checking.near(got, mean, f"effects: {name}", known, room=1e-6)
        right = intervals.t_interval(x.tolist())
        low, high = mine["intervals"][name]
        weight = 1.0 if name == "interaction" else 0.5
        spread = weight * y.var(-1).sum().sqrt().item() / len(seeds) ** 0.5
        t = (right.high - mean) / (x.std().item() / len(seeds) ** 0.5)
        binomial = weight * (y * (1 - y)).mean(-1).sum().sqrt().item() / (n * len(seeds)) ** 0.5
        known = {
            f"intervals: {name}: the four cells have the same seeds. Compute the number seed by seed.": mean
            - t * spread,
            f"intervals: {name}: that is one standard error. A 95 % t interval is wider.": 2 * mean
            - mean
            - x.std().item() / len(seeds) ** 0.5,
            f"intervals: {name}: items times seeds are no independent units. The seed is.": mean
            - 1.96 * binomial,
        }
        room = max(1e-9, 1e-3 * (right.high - right.low))
        checking.near(low, right.low, f"intervals: {name}, low", known, room=room)
        checking.near(high, right.high, f"intervals: {name}, high", room=room)
    logs = ((k + 0.5) / (n - k + 0.5)).log()
    each = three(logs)[2]
    odds = intervals.t_interval(each.tolist())
    of_means = three(((k.mean(-1) + 0.5) / (n - k.mean(-1) + 0.5)).log())[2].item()
    assert isinstance(mine["odds"], list | tuple) and len(mine["odds"]) == 3, "odds: mean, low and high."
    known = {
        "odds: log-odds of the mean accuracies. Take them for each seed, then the mean.": of_means,
        "odds: that is the interaction of the accuracies.": three(y)[2].mean().item(),
    }
    for got, want, name in zip(
        mine["odds"], (odds.mean, odds.low, odds.high), ("mean", "low", "high"), strict=True
    ):
        checking.near(
            got,
            want,
            f"odds: {name}",
            known if name == "mean" else {},
            room=max(1e-6, 1e-3 * (odds.high - odds.low)),
        )
    plain = intervals.t_interval(three(y)[2].tolist())
    sides = [(x.low > 0) - (x.high < 0) for x in (plain, odds)]
    assert mine["scale_matters"] == (sides[0] != sides[1]), (
        f"scale_matters: the interaction is {plain} on accuracies and {odds} on log-odds. Do both say the same of 0?"
    )
    assert mine["about"] in names, f"about: one of {', '.join(names)}."
    low, high = mine["intervals"][mine["about"]]
    bar = mine["threshold"]
    verdict = "supported" if low > bar else "refuted" if high < bar else "undecided"
    assert mine["verdict"] == verdict, (
        f"verdict: {mine['about']}, [{low:.3f}, {high:.3f}] against {bar:g}, says {verdict}."
    )
    print(
        f"13.7 passed: {mine['about']} above {bar:g}: {verdict}. Now a person reads the square with the rubric."
    )


check_13_7(square)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Put the scores into an array with the axes first factor, second factor, seed. Then each of the three numbers is one line,
# and gives one value a seed.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Before the real runs, draw the two lines of the square: score against the second factor, one line for each level of the
# first. Parallel lines have no interaction. Which of your lines runs into the ceiling?
#
# </details>
#
# {{solution}}
