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
import itertools
from math import comb

import torch

from instructlab_utils import checking

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
