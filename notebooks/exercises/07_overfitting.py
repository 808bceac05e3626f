# ---
# jupyter:
#   instructlab:
#     id: "07"
#     title: The overfitting laboratory
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 07: the overfitting laboratory
#
# Each exercise is a box, a cell for your answer, and a checker in the cell below it. Replace the line that
# raises `NotImplementedError`, then run both cells. A checker that says no also says what probably went
# wrong.
#
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases
# that you do not see here, so test more than the checker does. Nothing on this page needs a file or a network.
# Exercise 07.6 trains small networks, and exercise 07.7 is a project: each of them is worth an evening.
#
# {{overview}}

# %%
import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_post_hook

from instructlab_utils import checking, intervals

# %% [markdown]
# ## 07.1 Dropout that keeps the mean
#
# > ●●○○○ · 10 minutes · practice
#
# Write inverted dropout. In training each activation is set to zero with probability $p$, by a coin of its
# own, and what survives is scaled so that the expected value of the result is the input: by a number, not by
# what happened to survive. Outside training the input comes back as it is. The dtype stays, and the gradient
# reaches what survives.
#
# Draw one uniform number per activation: `torch.rand(h.shape, generator=generator)`. The generator makes
# the coins repeatable, and leaves the global random state alone.


# %% nbgrader={"grade_id": "answer_07_1", "solution": true}
def dropout(h, p, training, generator):
    """Return a tensor like h (any shape, floating); p in [0, 1) is the probability of a zero."""
    ### BEGIN SOLUTION
    if not training:
        return h
    kept = torch.rand(h.shape, generator=generator) >= p
    return h * kept / (1 - p)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_07_1", "locked": true}
def check_07_1(dropout):
    call = checking.calls(dropout)

    def coins(seed=0):
        return torch.Generator().manual_seed(seed)

    h, _ = torch.full((40, 500), 2.0), torch.rand(1)  # one draw: no state that a seed leads to
    before = torch.get_rng_state()
    out = call(h, 0.2, True, coins())
    checking.form(out, h, "the result", dtype=torch.float32)
    same = call(h, 0.2, False, coins())
    assert not (same == 0).any(), "Outside training some activations are zero. Prediction must not be random."
    says = (
        "Outside training the input is scaled. Inverted dropout pays the scale in training, so that "
        "prediction needs none."
    )
    checking.equal(same, h, "the result", says=says)
    zeros, survivors = (out == 0).double().mean().item(), out[out != 0]
    assert not 0.75 < zeros < 0.85, "Four fifths are zero: p is the probability of a zero, not of surviving."
    rows = (out != 0).double().mean(1)
    columns = (out != 0).double().mean(0)
    assert rows.std() < 0.1 and columns.std() < 0.2, (
        "Whole rows or columns live or die together. Every activation has a coin of its own."
    )
    assert 0.17 < zeros < 0.23, f"A fifth of the activations should be zero, not {zeros:.0%}."
    assert survivors.std() < 1e-4, (
        f"Survivors of equal size get different sizes, from {survivors.min():.3f} on."
    )
    wrong = {
        "The survivors are not scaled, so the mean falls to 1 - p of the input. The next layer sees "
        "another size in training than in prediction.": 2.0,
        "You divide by p. Survivors are the share 1 - p, so that is what to divide by.": 10.0,
        "You multiply by 1 - p. Survivors must become larger, to make up for the others.": 1.6,
        "You divide by the share that happened to survive. Divide by its expected value, 1 - p.": 2.0
        / (1 - zeros),
    }
    says = "Survivors are divided by 1 - p."
    checking.equal(survivors.mean().item(), 2.5, "a survivor of 2 with p = 0.2", wrong, tol=1e-5, says=says)
    assert torch.equal(out, call(h, 0.2, True, coins())), (
        "Two calls with equal generators differ. Draw the coins from the generator."
    )
    counts = {int((call(h, 0.2, True, coins(seed)) == 0).sum()) for seed in range(4)}
    assert len(counts) > 1 or torch.equal(out, call(h, 0.2, True, coins(1))), (
        f"Each of four calls sets {counts.pop()} activations to zero, no more and no less. Every activation has a coin "
        "of its own, so their number varies."
    )
    assert not torch.equal(out, call(h, 0.2, True, coins(1))), (
        "Two generators, the same coins. Use the argument."
    )
    assert torch.equal(before, torch.get_rng_state()), (
        "You drew from the global random state (or set it), so this call changes every later random number. Draw "
        "from the generator."
    )
    for shape, p, dtype in (
        ((7,), 0.5, torch.float64),
        ((400, 3, 2), 0.9, torch.float32),
        ((300, 2), 0.0, torch.float64),
        ((900, 5), 0.05, torch.float32),
        ((200, 4), 0.25, torch.bfloat16),
        ((200, 4), 0.5, torch.float16),
    ):
        h = torch.randn(shape, generator=coins(5), dtype=dtype)
        out = call(h, p, True, coins(6))
        says = f"Shape {shape}, p = {p}, {dtype}, random input. The dtype stays."
        share = (out == 0).double().mean().item()
        assert len(h) < 100 or abs(share - p) < 0.05, f"{says} The share of zeros is {share:.2f}."
        checking.equal(out, h * (out != 0) / (1 - p), "the result", dtype=dtype, says=says)
        assert p or (out != 0).all(), "p = 0 sets nothing to zero."
    leaf = torch.randn(3, 50, generator=coins(7)).requires_grad_()
    out = dropout(leaf, 0.5, True, coins(8))
    assert out.requires_grad, (
        "No gradient reaches the input: .detach(), .data or a new tensor cuts the graph."
    )
    (gradient,) = torch.autograd.grad(out.sum(), leaf)
    checking.equal(
        gradient, 2.0 * (out != 0), "the gradient", says="1 / (1 - p) where it survives, 0 elsewhere."
    )
    print(f"07.1 passed. Zeros: {zeros:.1%} of {40 * 500}, and every survivor is a quarter larger.")


check_07_1(dropout)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# A uniform number is at least $p$ with probability $1 - p$: that is a survivor.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# $\mathbb E[m h / (1 - p)] = h$ when $m$ is one with probability $1 - p$.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 07.2 R-Drop
#
# > ●●●○○ · 15 minutes · graded
#
# Two passes of the same sentences under different dropout gave the logits `a` and `b`. With $p =
# \operatorname{softmax}(a)$ and $q = \operatorname{softmax}(b)$, return for each sentence
#
# $$ \tfrac12 \big(-\log p_y - \log q_y\big) + \alpha \cdot \tfrac12 \big(\mathrm{KL}(p \,\|\, q) +
# \mathrm{KL}(q \,\|\, p)\big). $$
#
# The gradient must flow into both passes. Logits may be as large as $\pm 1000$; the result stays right, to the
# last of its digits.


# %% nbgrader={"grade_id": "answer_07_2", "solution": true}
def r_drop(a, b, y, alpha):
    """Return a tensor (n,); a and b are (n, K) logits, y is (n,) int64."""
    ### BEGIN SOLUTION
    log_p, log_q = F.log_softmax(a, dim=1), F.log_softmax(b, dim=1)
    rows = torch.arange(len(y))
    truth = -(log_p[rows, y] + log_q[rows, y]) / 2
    kl = ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(1) / 2
    return truth + alpha * kl
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_07_2", "grade": true, "points": 3, "locked": true}
def two_passes(seed, n=6, classes=4):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, n, classes, generator=generator, dtype=torch.float64)
    return a, b, torch.randint(classes, (n,), generator=generator)


def r_drop_of_columns(a, b, y):
    """The loss with alpha = 0.7, but with probabilities over the wrong axis."""
    u, v, at = a.log_softmax(0), b.log_softmax(0), y[:, None]
    return (0.7 * ((u.exp() - v.exp()) * (u - v)).sum(1) - (u + v).gather(1, at)[:, 0]) / 2


def check_07_2(r_drop):
    call = checking.calls(r_drop)
    a, b, y = two_passes(0)
    first, second = F.cross_entropy(a, y, reduction="none"), F.cross_entropy(b, y, reduction="none")
    ce, p, q = (first + second) / 2, a.softmax(1), b.softmax(1)
    forward, backward = (p * (p / q).log()).sum(1), (q * (q / p).log()).sum(1)
    one_way = (
        "This is the divergence in one direction. It changes when a and b are exchanged; the passes are "
        "equals, so take both directions."
    )
    wrong = {
        "You add the two cross-entropies. Take their mean: with alpha = 0 the loss is the ordinary one.": 2
        * ce
        + 0.7 * (forward + backward) / 2,
        one_way: ce + 0.7 * forward,
        f"{one_way} ": ce + 0.7 * backward,
        "Both directions are there, but added. Take half of each.": ce + 0.7 * (forward + backward),
        "This compares logits by squares. Adding a constant to all logits changes nothing in p, and must "
        "change nothing here.": ce + 0.7 * ((a - b) ** 2).mean(1),
        "The sign: you reward two passes that disagree. A divergence is subtracted nowhere.": ce
        - 0.7 * (forward + backward) / 2,
        "Only the first pass meets the truth. Take the mean of both cross-entropies.": first
        + 0.7 * (forward + backward) / 2,
        "alpha multiplies everything. It belongs to the divergences only.": 0.7
        * (ce + (forward + backward) / 2),
        "The divergences are averaged over the sentences. Each sentence has its own.": ce
        + 0.7 * (forward + backward).mean() / 2,
        "You average the logits first. The passes are two predictions: take the mean of their losses.": F.cross_entropy(
            (a + b) / 2, y, reduction="none"
        )
        + 0.7 * (forward + backward) / 2,
        "You average the two probabilities of the truth. Take the mean of the two log-losses.": (
            -((p + q) / 2)[range(len(y)), y].log() + 0.7 * (forward + backward) / 2
        ),
        "This compares both with their mean (Jensen-Shannon). Compare p with q.": ce
        + 0.7 * ((p * (2 * p / (p + q)).log()).sum(1) + (q * (2 * q / (p + q)).log()).sum(1)) / 2,
        "The softmax runs over the sentences. It runs over the classes of one sentence.": r_drop_of_columns(
            a, b, y
        ),
        "alpha is missing: it multiplies the divergences.": ce + (forward + backward) / 2,
        "F.kl_div wants *log*-probabilities as its first argument; you give it probabilities.": ce
        + 0.35 * (q * (q.log() - p) + p * (p.log() - q)).sum(1),
        "The divergences are averaged over the classes. Sum over them.": ce + 0.7 * (forward + backward) / 8,
    }
    want = ce + 0.7 * (forward + backward) / 2
    got = call(a, b, y, 0.7)
    checking.equal(got, want, "the losses", wrong, says="One loss per sentence; the caller chooses the mean.")
    print("07.2 passed the visible cases. Mean loss", f"{got.mean():.4f}")


check_07_2(r_drop)
### BEGIN HIDDEN TESTS


def hidden_07_2(r_drop):
    call = checking.calls(r_drop)

    def with_the_library(a, b, y, alpha):
        u, v = a.log_softmax(1), b.log_softmax(1)
        both = F.kl_div(v, u, log_target=True, reduction="none") + F.kl_div(
            u, v, log_target=True, reduction="none"
        )
        return (
            F.nll_loss(u, y, reduction="none") + F.nll_loss(v, y, reduction="none") + alpha * both.sum(1)
        ) / 2

    a, b, y = two_passes(1, n=5, classes=3)
    call.gradients(
        with_the_library,
        a,
        b,
        y,
        2.0,
        of=[0, 1],
        says="The value is right, the gradient is not: one of the passes was detached. Both learn.",
    )
    large = torch.tensor([[1000.0, 0.0], [-1000.0, 1000.0], [300.0, 100.0]], dtype=torch.float64)
    case = large, -large, torch.tensor([0, 1, 1]), 1.0
    assert torch.isfinite(call(*case)).all(), (
        "With logits of a thousand the loss is not finite: a probability underflowed before its logarithm. "
        "Take log_softmax."
    )
    says = "With logits of a thousand the loss is finite and wrong: something was clamped. Take log_softmax."
    call.agrees(with_the_library, case, name="the losses", says=says)
    call.gradients(with_the_library, *case, of=[0, 1], says=says)
    for n, classes, alpha in ((3, 2, 0.0), (1, 7, 5.0), (8, 5, 0.3)):
        says = f"n = {n}, {classes} classes, alpha = {alpha}."
        call.agrees(with_the_library, (*two_passes(n, n, classes), alpha), name="the losses", says=says)


hidden_07_2(r_drop)
### END HIDDEN TESTS

# %% [markdown]
# ## 07.3 The report that was too good
#
# > ●●●○○ · 15 minutes · practice · bug hunt
#
# A program trained a model, looked at it a few times, and reports one accuracy and one loss. Its numbers
# never survive a second test set. Find three bugs.
#
# `looks` is a list of dicts, one per look in order of time: `step`, and the logits of that moment on `dev`
# and on `test`, arrays of shape $(n, 2)$.


# %%
def accuracy_of(logits, y):
    return float((np.argmax(logits, axis=1) == y).mean())


def loss_of(logits, y, temperature=1.0):
    z = np.asarray(logits) / temperature
    log_p = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
    return float(-log_p[np.arange(len(y)), y].mean())


def best_temperature(logits, y):
    """The temperature on a grid with the smallest loss."""
    return min(np.geomspace(0.1, 10, 81), key=lambda t: loss_of(logits, y, t))


def broken_report(looks, y_dev, y_test):
    scores = [accuracy_of(look["test"], y_test) for look in looks]
    best = looks[int(np.argmax(scores))]
    temperature = best_temperature(best["test"], y_test)
    return {
        "step": best["step"],
        "accuracy": max(accuracy_of(look["dev"], y_dev) for look in looks),
        "temperature": temperature,
        "loss": loss_of(best["test"], y_test, temperature),
    }


# %% [markdown]
# Write it so that everything that is chosen is chosen on dev, and everything that is reported is measured
# on test. The look is chosen by its accuracy; of equally good ones take the first.


# %% nbgrader={"grade_id": "answer_07_3", "solution": true}
def report(looks, y_dev, y_test):
    """Return {"step", "accuracy", "temperature", "loss"} with the three functions above."""
    ### BEGIN SOLUTION
    scores = [accuracy_of(look["dev"], y_dev) for look in looks]
    best = looks[int(np.argmax(scores))]
    temperature = best_temperature(best["dev"], y_dev)
    return {
        "step": best["step"],
        "accuracy": accuracy_of(best["test"], y_test),
        "temperature": temperature,
        "loss": loss_of(best["test"], y_test, temperature),
    }
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_07_3", "locked": true}
def made_looks(seed=3, dev=(24, 32, 28, 32, 29), test=(33, 34, 31, 37, 41), n_dev=40, n_test=50):
    """Looks with so many right answers. Here the second and the fourth are best on dev, the fifth is best on test."""
    rng = np.random.default_rng(seed)
    y_dev, y_test = rng.integers(2, size=n_dev), rng.integers(2, size=n_test)
    looks = []
    for step, (dev_right, test_right) in enumerate(zip(dev, test, strict=True)):
        look = {"step": 10 * (step + 1)}
        for name, y, right, size in (("dev", y_dev, dev_right, 1.5), ("test", y_test, test_right, 4.0)):
            answers = np.where(np.arange(len(y)) < right, y, 1 - y)
            margin = size * (0.5 + rng.random(len(y)))
            look[name] = np.stack([np.where(answers == 0, margin, 0), np.where(answers == 1, margin, 0)], 1)
        looks.append(look)
    return looks, y_dev, y_test


def check_07_3(report):
    call = checking.calls(report)
    looks, y_dev, y_test = made_looks()
    got = call(looks, y_dev, y_test)
    checking.form(got, {"step": 0, "accuracy": 0.0, "temperature": 0.0, "loss": 0.0}, "the report")
    wrong = {
        "step: the fifth look is the best on *test*. Whoever chooses there has nothing left to test with.": 50,
        "step: two looks are equally good on dev. Take the first.": 40,
        "step: this is the number of the look, not its step.": 1,
    }
    checking.equal(got["step"], 20, "step", wrong)
    best = looks[1]
    wrong = {
        "accuracy: this is the best dev score. It is a maximum of several looks, so it is too good by "
        "selection. Report the test accuracy of the chosen look.": 32 / 40,
        "accuracy: this is the best of all test scores, not that of the chosen look.": 41 / 50,
        "accuracy: this is the mean over all looks. Report the chosen one's.": sum((33, 34, 31, 37, 41))
        / 250,
        "accuracy: a share from 0 to 1 is expected, no percentage.": 68,
    }
    checking.equal(got["accuracy"], 34 / 50, "accuracy", wrong)
    on_dev, on_test = best_temperature(best["dev"], y_dev), best_temperature(best["test"], y_test)
    wrong = {
        "temperature: fitted on the test sentences. No temperature can then do better there, so the loss "
        "that you report is no estimate.": on_test,
        "temperature: this is no scaling at all.": 1.0,
        "temperature: fitted at another look. Take the dev sentences of the chosen one.": best_temperature(
            looks[0]["dev"], y_dev
        ),
        "temperature: fitted on dev and test together. Test has one job: to measure.": best_temperature(
            np.concatenate([best["dev"], best["test"]]), np.concatenate([y_dev, y_test])
        ),
    }
    checking.equal(
        got["temperature"], on_dev, "temperature", wrong, says="On the dev sentences of the chosen look."
    )
    wrong = {
        "loss: this is the dev loss. The temperature was fitted there; measure on test.": loss_of(
            best["dev"], y_dev, on_dev
        ),
        "loss: the temperature was found, and then not used.": loss_of(best["test"], y_test),
        "loss: this is the loss at the temperature of the test sentences.": loss_of(
            best["test"], y_test, on_test
        ),
    }
    want = loss_of(best["test"], y_test, on_dev)
    checking.equal(
        got["loss"], want, "loss", wrong, says="The test loss of the chosen look, at the temperature."
    )
    looks, y_dev, y_test = made_looks()
    looks[1]["dev"] = 30 * looks[1]["dev"]
    says = "The second look is the most accurate on dev, and very sure of its errors. The look is chosen by accuracy."
    checking.equal(call(looks, y_dev, y_test)["step"], 20, "step", says=says)
    for seed, dev, test, n_dev, n_test in (
        (1, (20, 15, 29), (9, 12, 11), 30, 17),
        (2, (7, 6, 7, 6), (30, 20, 22, 31), 9, 44),
    ):
        looks, y_dev, y_test = made_looks(seed, dev, test, n_dev, n_test)
        one = looks[dev.index(max(dev))]
        t = best_temperature(one["dev"], y_dev)
        want = {"step": one["step"], "accuracy": test[dev.index(max(dev))] / n_test, "temperature": t}
        want["loss"] = loss_of(one["test"], y_test, t)
        says = f"{len(dev)} looks at {n_dev} dev and {n_test} test sentences."
        checking.equal(call(looks, y_dev, y_test), want, "the report", says=says)
    says = "The second look is better on dev, by one sentence of 4000. Do not round before you compare."
    checking.equal(call(*made_looks(4, (3000, 3001), (9, 7), 4000, 20))["step"], 20, "step", says=says)
    says = "No look is right on dev even once: all are equally good, so the first is taken. Do not start from a score of 0."
    with checking.means(TypeError, says):
        checking.equal(call(*made_looks(5, (0, 0), (9, 7), 5, 20))["step"], 10, "step", says=says)
    broken = broken_report(*made_looks())
    print(f"07.3 passed. Accuracy {got['accuracy']:.3f}; the broken report claimed {broken['accuracy']:.3f}.")
    print(f"Loss {got['loss']:.3f}; the broken report claimed {broken['loss']:.3f}.")


check_07_3(report)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Go through the broken lines and ask of each number: was it *chosen* with this set, or *measured* on it?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Dev has two jobs: to choose the look, and to fit the temperature of that look. Test has one.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 07.4 What an ensemble cannot do
#
# > ●●○○○ · 8 minutes · practice · prediction
#
# An ensemble averages probabilities. Predict with pencil and paper (natural logarithm, two decimals are enough):
#
# - `identical`: five copies of one model. The ensemble's log-loss minus the mean of its members'.
# - `members_loss`: two members give the truth $0.8$ and $0.2$. The mean of their log-losses.
# - `ensemble_loss`: the log-loss of the ensemble of these two.
# - `right`: three members give the truth $0.6$, $0.6$ and $0.2$, and there are two classes. 1 if the ensemble
#   answers right, else 0.


# %% nbgrader={"grade_id": "answer_07_4", "solution": true}
def prediction():
    """Return a dict of four numbers: identical, members_loss, ensemble_loss, right."""
    ### BEGIN SOLUTION
    return {"identical": 0, "members_loss": 0.92, "ensemble_loss": 0.69, "right": 0}
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_07_4", "locked": true}
def check_07_4(prediction):
    mine = checking.predicted(prediction, ("identical", "members_loss", "ensemble_loss", "right"))
    assert not mine["identical"] < 0, (
        "identical: you expect a gain. The mean of five equal numbers is that number. An ensemble lives "
        "on disagreement."
    )
    says = "identical: the mean of five equal probabilities is that probability."
    checking.equal(mine["identical"], 0, "identical", says=says)
    members = -(math.log(0.8) + math.log(0.2)) / 2
    wrong = {
        "members_loss: this is the loss of the mean probability. Here the losses come first, then the mean.": math.log(
            2
        ),
        "members_loss: this is the sum of the two losses. Take their mean.": 2 * members,
        "members_loss: these are bits. Use the natural logarithm.": members / math.log(2),
        "members_loss: a loss is minus the logarithm.": -members,
    }
    says = "members_loss: half of -ln 0.8 - ln 0.2."
    checking.equal(mine["members_loss"], members, "members_loss", wrong, tol=0.02, says=says)
    wrong = {
        "ensemble_loss: this is the mean of the losses again. First average the probabilities.": members,
        "ensemble_loss: these are bits. Use the natural logarithm.": 1.0,
        "ensemble_loss: this is the probability. Its loss is minus the logarithm.": 0.5,
    }
    says = "ensemble_loss: the mean probability is 0.5, and the loss -ln 0.5."
    checking.equal(mine["ensemble_loss"], math.log(2), "ensemble_loss", wrong, tol=0.02, says=says)
    wrong = {
        "right: two of three members are right, but probabilities are averaged, not votes. The third is "
        "very sure.": 1,
        "right: this is the mean probability. Is it more than one half? Answer 1 or 0.": 0.467,
    }
    checking.equal(mine["right"], 0, "right", wrong, tol=1e-3, says="right: 0 or 1.")
    print(f"07.4 passed. Together {math.log(2):.2f}, alone {members:.2f} on average: Jensen's inequality.")


check_07_4(prediction)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Two orders of work: average then logarithm, or logarithm then average. They differ.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# $(0.6 + 0.6 + 0.2)/3 = 1.4/3$. Is that more than one half?
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 07.5 Calibration error
#
# > ●●●○○ · 12 minutes · graded
#
# Sort answers into `bins` bins of equal width over $(0, 1]$ by their confidence, each bin open on the left
# and closed on the right. For each bin that is not empty take the distance between its accuracy and its
# mean confidence. The expected calibration error is the mean of these distances, weighted with the number
# of answers in each bin.


# %% nbgrader={"grade_id": "answer_07_5", "solution": true}
def calibration_error(confidence, right, bins=10):
    """Return a float; confidence (n,) in (0, 1], right (n,) bool, arrays."""
    ### BEGIN SOLUTION
    bin_of = np.ceil(np.asarray(confidence) * bins).astype(int) - 1
    total = 0.0
    for b in range(bins):
        inside = bin_of == b
        if inside.any():
            total += inside.sum() * abs(right[inside].mean() - confidence[inside].mean())
    return float(total / len(right))
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_07_5", "grade": true, "points": 3, "locked": true}
def rounded_error(confidence, right):
    """With bins around 0.6, 0.7 …, the wrong ones."""
    places = np.round(confidence * 10)
    return sum(abs((right - confidence)[places == k].sum()) for k in set(places)) / len(right)


def check_07_5(calibration_error):
    call = checking.calls(calibration_error)
    confidence = np.array([0.62, 0.66, 0.68, 0.64, 0.97, 0.93, 0.72, 0.78])
    right = np.array([True, True, False, True, True, False, True, True])
    gaps = np.array([right[:4].mean() - 0.65, 0.5 - 0.95, 1.0 - 0.75])
    distances, weights = np.abs(gaps), np.array([4, 2, 2]) / 8
    wrong = {
        "All bins count the same. A bin with one answer must not weigh as much as one with a thousand: "
        "weight by the number of answers.": distances.mean(),
        "Overconfident and underconfident bins cancel, as if there were no bins at all: take the distance "
        "of each bin before you add.": abs(weights @ gaps),
        "You divide by the number of bins. Empty bins count nothing: weight by the number of answers.": distances.sum()
        / 10,
        "This is the largest distance. The expected error is their weighted mean.": distances.max(),
        "You average squares. The expected error is the weighted mean of the distances themselves.": math.sqrt(
            weights @ distances**2
        ),
        "This is the Brier score: mean squares of the single answers. Compare the means of each bin.": (
            (confidence - right) ** 2
        ).mean(),
        "This is the mean distance of single answers: no bins at all, or bins with equally many answers in each. Bins "
        "have equal *width*, and each compares its accuracy with its mean confidence.": abs(
            confidence - right
        ).mean(),
        "You round to the nearest edge. A bin runs from edge to edge: (0.6, 0.7] is one.": rounded_error(
            confidence, right
        ),
        "You return a percentage. A share from 0 to 1 is expected.": 100 * weights @ distances,
        "nan: an empty bin has no mean. Skip it.": math.nan,
        "You forgot to divide by the number of answers.": 8 * weights @ distances,
    }
    got = call(confidence, right)
    checking.equal(got, float(weights @ distances), "the calibration error", wrong)
    shifted = np.array([0.61, 0.61, 0.99, 0.99])
    truth = np.array([True, False, True, True])
    wrong = {
        "You compare with the centre of the bin. Compare with the mean confidence of the answers in it.": (
            2 * 0.15 + 2 * 0.05
        )
        / 4
    }
    other = call(shifted, truth)
    checking.equal(other, (2 * 0.11 + 2 * 0.01) / 4, "the calibration error of the second case", wrong)
    print(f"07.5 passed the visible cases. Calibration errors {got:.4f} and {other:.4f}.")


check_07_5(calibration_error)
### BEGIN HIDDEN TESTS


def by_dictionary(confidence, right, bins=10):
    found = {}
    for c, r in zip(confidence.tolist(), right.tolist(), strict=True):
        place = next(k for k in range(1, bins + 1) if c <= k / bins)
        found.setdefault(place, []).append(r - c)
    return sum(abs(sum(differences)) for differences in found.values()) / len(right)


def hidden_07_5(calibration_error):
    call = checking.calls(calibration_error)
    sure = call(np.array([1.0, 1.0, 1.0, 1.0]), np.array([True, False, False, False]))
    says = "Confidence 1.0 falls out of all bins. The last bin is closed on the right."
    checking.equal(sure, 0.75, "the calibration error", says=says)
    got = call(np.array([0.5, 0.55, 0.45]), np.array([True, False, False]), bins=2)
    want = (2 * abs(0.5 - 0.475) + abs(0 - 0.55)) / 3
    says = "A confidence of exactly 0.5 belongs to the lower of two bins: each is closed on the right."
    checking.equal(got, want, "the calibration error", says=says)
    rng = np.random.default_rng(0)
    confidence = 0.5 + rng.random(500) / 2
    right = rng.random(500) < confidence
    says = "With one bin the error is the distance of the overall means. Do you use the argument bins?"
    checking.equal(
        call(confidence, right, 1),
        abs(right.mean() - confidence.mean()),
        "the calibration error",
        tol=1e-4,
        says=says,
    )
    for n, bins, kind in ((60, 7, float), (13, 25, np.float32), (1, 3, float)):
        confidence = (1 - rng.random(n)).astype(kind)  # the whole of (0, 1]
        right = rng.random(n) < 0.6
        says = f"{n} answers in {bins} bins, confidences from {confidence.min():.2f} on."
        call.agrees(
            by_dictionary, (confidence, right, bins), name="the calibration error", tol=1e-4, says=says
        )


hidden_07_5(calibration_error)
### END HIDDEN TESTS

# %% [markdown]
# ## 07.6 Few rows, wrong labels
#
# > ●●●●○ · 60 minutes · graded
#
# A world has three classes, and a class is two clouds. You get $150$ rows of ten numbers. In some worlds all labels are
# right, in others a share is wrong, up to nearly a third; you are not told which. Test rows follow the same law, wrong labels
# included. Who knows clouds and shares pays the *least possible* loss. Write
#
# `learn(x, y, generator) -> nets`
#
# - `x` $(150, 10)$ float32, `y` $(150,)$ int64 from $0$ to $2$. The rows come in no order that you may rely on.
# - `nets` is a list of one to ten modules from (N, 10) to logits (N, 3). The answer is the *mean of their probabilities*.
#   They are used as you hand them over: nobody calls `eval()` for you.
# - In each world you have $800$ updates for everything: search, folds, members. An update is one gradient step: a call of
#   `step()` of an optimizer of `torch.optim` that takes one (so not LBFGS), never by hand. The checker counts them. You also
#   have $20$ seconds of processor time.
# - Draw from `generator`, so that a run can be repeated (`net_07_6` does).
#
# The checker goes through six worlds and wants a mean test loss of at most $0.13$ nats above the least possible. Training
# until the training loss is small lies more than a nat above it. Stopping early on a third of the rows is not enough
# either. The remedies of the lesson are allowed, and others: what you choose, choose on the rows that you have.


# %%
def world_07_6(seed):
    """Rows and labels to learn from; test rows, the true probabilities of their labels, and the least possible loss."""
    g = torch.Generator().manual_seed(seed)
    wrong = (0.0, 0.15, 0.3)[seed % 3]
    centres = (0.8 + 0.4 * torch.rand(1, generator=g)) * torch.randn(6, 10, generator=g)

    def rows(n):
        cloud = torch.randint(6, (n,), generator=g)
        x = centres[cloud] + torch.randn(n, 10, generator=g)
        p = (x @ centres.T - (centres**2).sum(1) / 2).softmax(1)
        p = p[:, :3] + p[:, 3:]  # clouds k and k + 3 are class k
        turned = torch.rand(n, generator=g) < wrong
        y = torch.where(turned, cloud + torch.randint(1, 3, (n,), generator=g), cloud) % 3
        return x, y, (1 - wrong) * p + wrong / 2 * (1 - p)

    x, y, _ = rows(150)
    X, _, p = rows(2000)
    return x, y, X, p, -(p * p.clamp(min=1e-12).log()).sum(1).mean().item()


def net_07_6(generator, dropout=0.0):
    """A fresh small network; its first values are drawn from the generator."""
    torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
    return nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Dropout(dropout), nn.Linear(64, 3))


# %% nbgrader={"grade_id": "answer_07_6", "solution": true}
def learn(x, y, generator):
    """x (150, 10), y (150,). Return a list of nets from (N, 10) to logits (N, 3)."""

    ### BEGIN SOLUTION
    def fit(x, y, steps, decay, dev=None):
        """A net, and its summed loss on the dev rows after every fifth update."""
        net, looks = net_07_6(generator, dropout=0.3), []
        adam = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=decay, fused=True)
        for step in range(1, steps + 1):
            net.train()
            adam.zero_grad()
            near = x + 0.7 * torch.randn(x.shape, generator=generator)  # a row stands for its surroundings
            F.cross_entropy(net(near), y).backward()
            adam.step()
            if dev and step % 5 == 0:
                net.eval()
                with torch.no_grad():
                    looks.append(F.cross_entropy(net(dev[0]), dev[1], reduction="sum").item())
        return net.eval(), looks

    order, scores = torch.randperm(len(x), generator=generator), {}
    for decay in (0.0, 8.0):
        for fold in range(3):
            out = torch.zeros(len(x), dtype=torch.bool)
            out[order[fold::3]] = True
            _, looks = fit(x[~out], y[~out], 40, decay, dev=(x[out], y[out]))
            for i, loss in enumerate(looks):
                scores[decay, 5 * i + 5] = scores.get((decay, 5 * i + 5), 0.0) + loss
    decay, steps = min(scores, key=scores.get)
    return [fit(x, y, steps, decay)[0] for _ in range(5)]  # on all rows
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_07_6", "grade": true, "points": 5, "locked": true}
BUDGET = 800


def mean_07_6(nets, x):
    """The nets' mean probabilities."""
    with torch.no_grad():
        found = [checking.calls(net)(x) for net in nets]
    for z in found:
        checking.form(z, torch.zeros(len(x), 3), "logits of a net")
        assert torch.isfinite(z).all(), "A net's logits are not finite."
    return torch.stack([z.double().softmax(1) for z in found])


def run_07_6(learn, seed, sort=False):
    """Excess on test rows, loss on the learner's own rows against the least possible, updates made, number of nets."""
    x, y, X, p, least = world_07_6(seed)
    if sort:
        x, y = x[y.argsort()], y.sort().values
    made = [0]

    def count(*_):
        made[0] += 1

    call = checking.calls(
        learn, limit=20.0, slow="Twenty seconds a world: fewer updates.", changes=("generator",)
    )
    handle = register_optimizer_step_post_hook(count)
    try:
        nets = call(x, y, torch.Generator().manual_seed(seed))
    finally:
        handle.remove()
    assert made[0] <= BUDGET, (
        f"{made[0]} updates in one world, {BUDGET} are allowed in all, the search included."
    )
    assert isinstance(nets, list | tuple) and all(isinstance(net, nn.Module) for net in nets), (
        f"Return a list of modules, not {checking.shown(nets)}."
    )
    assert 1 <= len(nets) <= 10, f"{len(nets)} nets: one to ten are allowed."
    each = mean_07_6(nets, X)
    assert torch.equal(each, mean_07_6(nets, X)), (
        "A net says something else in each call: dropout is still on. Hand the nets over after eval()."
    )
    assert len(nets) == 1 or (each - each[:1]).abs().max() > 1e-6, (
        f"{len(nets)} nets, and all are the same net. An ensemble lives on disagreement: other first values, rows or noise."
    )
    over = -(p * each.mean(0).clamp(min=1e-12).log()).sum(1).mean().item() - least
    own = -mean_07_6(nets, x).mean(0)[range(len(y)), y].clamp(min=1e-12).log().mean().item()
    return over, own - least, made[0], len(nets)


def judge_07_6(learn, seeds, sort=False):
    runs = [run_07_6(learn, seed, sort) for seed in seeds]
    over, own = (sum(run[i] for run in runs) / len(runs) for i in (0, 1))
    if over <= 0.13:
        return over
    clean, noisy = (
        sum(part) / max(1, len(part))
        for part in (
            [run[0] for run, seed in zip(runs, seeds, strict=True) if seed % 3 == kind] for kind in (0, 2)
        )
    )
    told = f"{over:.3f} nats above the least possible; 0.13 are allowed."
    if sort:
        raise AssertionError(
            f"{told} Here the rows come sorted by label. Were the first or the last rows held out? Shuffle, then cut."
        )
    assert own > -0.35, (
        f"{told} On your own rows the loss is {-own:.2f} nats *below* the least possible: wrong labels are known by heart. A "
        "small training loss says when a net is full, and not when it is good."
    )
    assert not (clean > 0.2 and clean > 3 * noisy), (
        f"{told} With a third of the labels wrong you lie {noisy:.3f} above, with all labels right {clean:.3f}: one strength "
        "of the remedy for all worlds. Choose it in each world, on rows held out."
    )
    made = {run[2] for run in runs}
    assert len(made) > 1 or made.pop() > 300, (
        f"{told} {runs[0][2]} updates in each world: did each world choose? Worlds differ; rows held out say how."
    )
    raise AssertionError(
        f"{told} You made {max(run[2] for run in runs)} of {BUDGET} updates, and handed over {runs[0][3]}. What chooses "
        "by few rows chooses by luck: let each row be held out once (folds), train on all rows in the end, average several "
        "nets, and try more than one remedy."
    )


def check_07_6(learn):
    over = judge_07_6(learn, range(6))
    print(f"07.6 passed the visible cases: {over:.3f} nats above the least possible loss.")


check_07_6(learn)
### BEGIN HIDDEN TESTS


def hidden_07_6(learn):
    judge_07_6(learn, range(6, 9), sort=True)


hidden_07_6(learn)
### END HIDDEN TESTS

# %% [markdown]
# ## 07.7 Project: a remedy that can be decided
#
# > ●●●●● · 180 minutes · practice
#
# The lesson's grid had five seeds, small test sets and knobs chosen on one seed, and left much undecided. Plan a comparison
# that *can* be decided, and run it. Choose a `remedy` and a `baseline` (two of dropout, decay, smoothing, stopping, an
# ensemble, noise, R-Drop, your own, or plain training) and a system that trains in less than a second: the clouds below,
# those of exercise 07.6, your own data. The claim is "the remedy lowers the test loss". Do it in this order, since a number
# that was looked at cannot be planned any more: settings, pilot, effect, power, run. Return a dict:
#
# | key | what |
# |:--|:--|
# | `claim` | a sentence that names `remedy` and `baseline` |
# | `remedy`, `baseline` | two names |
# | `updates` | for both the updates of *one run*, extra passes and members counted: equal whole numbers |
# | `tuning_seeds` | at least three different seeds |
# | `tuning` | for both a dict: setting (a text) → dev losses, one a tuning seed; equally many settings, three or more |
# | `chosen` | for both the setting with the smallest mean dev loss, of equals the first |
# | `pilot` | at least five other seeds → the difference of the test loss, baseline minus remedy |
# | `effect` | the smallest difference, in nats and above $0$, that would change what somebody does |
# | `reason` | why just this one, a text of at least $40$ characters |
# | `seeds` | at least eight seeds for the run; none is in `pilot` or `tuning_seeds` |
# | `power` | of the two-sided t test at $0.05$ with these seeds for a true difference of `effect`: at least $0.8$ |
# | `losses` | for both a list over `seeds` of lists of test losses, one a row: at least $50$ rows, equally many for all |
# | `difference`, `low`, `high` | baseline minus remedy: mean over seeds, its t interval at $0.95$ |
# | `verdict` | see below |
#
# The power follows from the pilot: its standard deviation $s$ (with $n - 1$), $k$ seeds, an error of $s / \sqrt k$, and
# `intervals.power_of_t(effect, error, k - 1)`; within $0.01$. An `effect` within a tenth of the pilot's mean difference is
# refused: what matters does not follow from what was found. Four verdicts: `"supported"` (the interval lies above $0$ and
# is not wholly below `effect`), `"too small"` (above $0$, and wholly below `effect`), `"refuted"` (not above $0$, and
# wholly below `effect`), else `"undecided"`.
#
# A person reads the rest with this rubric ($0$ to $2$ points a row; $8$ of $12$ pass):
#
# | | 0 | 1 | 2 |
# |:--|:--|:--|:--|
# | claim | cannot fail | can fail | names system, rows, noise, budget, measure and direction |
# | baseline | plain training, untuned | tuned | what somebody would really use, and its grid has worse ends |
# | work | counted for one side | equal updates | passes, members and the search are counted, too |
# | effect | a habit | a reason | weighs what the remedy costs against what it gains |
# | order | the run came first | settings, pilot, effect, power, run | what was looked at later is called exploratory |
# | ending | only success is described | four verdicts | also what more rows or cleaner labels might change |


# %%
def rows_07_7(seed, n, noisy=0.2):
    """``n`` rows of ten numbers and their labels: two classes of two clouds each, a fifth of the labels wrong."""
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))  # one world for all seeds
    cloud = torch.randint(4, (n,), generator=g)
    x = centres[cloud] + torch.randn(n, 10, generator=g)
    return x, torch.where(torch.rand(n, generator=g) < noisy, 1 - cloud % 2, cloud % 2)


# %% nbgrader={"grade_id": "answer_07_7", "solution": true}
def study():
    """Return the dict of the table."""
    ### BEGIN SOLUTION
    remedy, baseline, updates = "noise on the rows", "weight decay", 30
    settings = {remedy: ["0.8", "1.6", "2.4"], baseline: ["5.0", "10.0", "30.0"]}

    def one(method, setting, seed, test_seed):
        """The test losses of one run."""
        torch.manual_seed(seed)
        x, y = rows_07_7(seed, 60)
        net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 2))
        decay, noise = (float(setting), 0.0) if method == baseline else (0.0, float(setting))
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=decay, fused=True)
        for _ in range(updates):
            optimizer.zero_grad()
            F.cross_entropy(net(x + noise * torch.randn(x.shape)), y).backward()
            optimizer.step()
        X, Y = rows_07_7(test_seed, 500)
        with torch.no_grad():
            return F.cross_entropy(net(X), Y, reduction="none").tolist()

    def mean(numbers):
        return sum(numbers) / len(numbers)

    tuning_seeds, pilot_seeds, seeds = [1, 2, 3], [11, 12, 13, 14, 15], list(range(21, 33))
    tuning = {
        m: {s: [mean(one(m, s, i, i + 1000)) for i in tuning_seeds] for s in settings[m]} for m in settings
    }
    chosen = {m: min(tuning[m], key=lambda s, m=m: mean(tuning[m][s])) for m in settings}

    def losses(method, seed):
        return one(method, chosen[method], seed, seed + 1000)

    pilot = {i: mean(losses(baseline, i)) - mean(losses(remedy, i)) for i in pilot_seeds}
    spread = torch.tensor(list(pilot.values()), dtype=torch.float64).std().item()
    effect = 0.015
    power = intervals.power_of_t(effect, spread / math.sqrt(len(seeds)), len(seeds) - 1)
    run = {m: [losses(m, i) for i in seeds] for m in settings}
    found = intervals.t_interval([mean(b) - mean(a) for a, b in zip(run[remedy], run[baseline], strict=True)])
    above, small = found.low > 0, found.high < effect
    return {
        "claim": "With 60 rows of four clouds, a fifth of the labels wrong, and 30 updates a run, noise on the rows reaches "
        "a lower test loss than weight decay.",
        "remedy": remedy, "baseline": baseline, "updates": {m: updates for m in settings},
        "tuning_seeds": tuning_seeds, "tuning": tuning, "chosen": chosen, "pilot": pilot, "effect": effect,
        "reason": "Decay is one argument that everybody has; for less than 0.015 nats nobody would add noise to a loader.",
        "seeds": seeds, "power": power, "losses": run, "difference": found.mean, "low": found.low, "high": found.high,
        "verdict": ("too small" if small else "supported") if above else "refuted" if small else "undecided",
    }  # fmt: skip
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_07_7", "locked": true}
KEYS = (
    "claim remedy baseline updates tuning_seeds tuning chosen pilot effect reason seeds power losses difference "
    "low high verdict"
).split()


def check_07_7(study):
    mine = checking.handed_in(study, KEYS, limit=90.0)
    remedy, baseline = mine["remedy"], mine["baseline"]
    assert remedy != baseline, "remedy and baseline are the same method."
    for name in (remedy, baseline):
        assert name in mine["claim"], f"claim: {name!r} does not occur. A claim names what it compares."
    for key in ("updates", "tuning", "chosen", "losses"):
        assert isinstance(mine[key], dict) and set(mine[key]) == {remedy, baseline}, (
            f"{key}: a dict with remedy and baseline as its keys."
        )
    work = [mine["updates"][m] for m in (remedy, baseline)]
    assert work[0] == work[1] >= 1, (
        f"updates: {work[0]} and {work[1]}. Unequal work, and nobody knows whether the remedy helped or the work did."
    )
    three = {key: list(mine[key]) for key in ("tuning_seeds", "pilot", "seeds")}
    for (key, seeds), least in zip(three.items(), (3, 5, 8), strict=True):
        assert len(set(seeds)) == len(seeds) >= least, f"{key}: at least {least} seeds, no two alike."
    assert not set(three["pilot"]) & set(three["tuning_seeds"]), (
        "pilot: some of its seeds chose the settings."
    )
    shared = set(three["seeds"]) & {*three["pilot"], *three["tuning_seeds"]}
    assert not shared, (
        f"seeds: {sorted(shared)} were looked at before. What made you plan this run cannot judge it."
    )
    tried = {m: mine["tuning"][m] for m in (remedy, baseline)}
    assert min(map(len, tried.values())) >= 3, "tuning: at least three settings for each method."
    assert len(tried[remedy]) == len(tried[baseline]), (
        f"tuning: {len(tried[remedy])} settings and {len(tried[baseline])}. Who may try more wins by that alone."
    )
    for m, table in tried.items():
        assert all(len(found) == len(three["tuning_seeds"]) for found in table.values()), (
            f"tuning, {m}: one dev loss for each tuning seed."
        )
        means = {setting: sum(found) / len(found) for setting, found in table.items()}
        best, at = min(means, key=means.get), mine["chosen"][m]
        luckiest = min(table, key=lambda setting, table=table: min(table[setting]))
        assert at == best or at != luckiest, (
            f"chosen, {m}: {at!r} has the best single run. That is its luckiest seed; take the best *mean*, {best!r}."
        )
        assert at == best, f"chosen, {m}: {best!r} has the smallest mean dev loss, and you took {at!r}."
    plan_07_7(mine)
    run_07_7(mine, remedy, baseline)


def plan_07_7(mine):
    """Pilot, effect and power."""
    found = torch.tensor(list(mine["pilot"].values()), dtype=torch.float64)
    assert found.std() > 0, "pilot: all differences are equal. Something is not drawn anew."
    effect, k = mine["effect"], len(mine["seeds"])
    assert effect > 0, "effect: above 0."
    assert isinstance(mine["reason"], str) and len(mine["reason"].strip()) >= 40, (
        "reason: at least 40 characters."
    )
    mean, s = abs(found.mean().item()), found.std().item()
    assert abs(effect - mean) > mean / 10, (
        f"effect: {effect:g} is fitted to the pilot's mean, {mean:.3g}. What matters does not follow from what was found."
    )

    usual = s / math.sqrt(k)

    def power(size=effect, error=usual, df=k - 1, sides=2):
        return intervals.power_of_t(size, error, df, sides)

    wrong = {
        "power: the error of the mean of k seeds is s divided by the root of k.": power(error=s),
        "power: that is for the effect which the pilot found. Compute it for the smallest that matters.": power(
            mean
        ),
        "power: a two-sided test is asked for. One side looks stronger.": power(sides=1),
        "power: the degrees of freedom are those of the run, k − 1, not of the pilot.": power(
            df=len(found) - 1
        ),
        "power: s has n − 1 in it, not n.": power(error=found.std(correction=0).item() / math.sqrt(k)),
    }
    want, told = power(), mine["power"]
    if abs(told - want) > 0.01:
        for message, value in wrong.items():
            assert abs(told - value) > 2e-3 or abs(value - want) <= 0.01, message
        raise AssertionError(
            f"power: you have {told:.3f}; with this spread and these seeds it is {want:.3f}."
        )
    assert want >= 0.8, (
        f"power: {want:.2f}. The run would often end undecided. More seeds, or an effect that matters more."
    )


def run_07_7(mine, remedy, baseline):
    """The interval over seeds, and the verdict."""
    k = len(mine["seeds"])
    tables = {}
    for m in (remedy, baseline):
        sizes = {len(row) for row in mine["losses"][m]}
        assert len(mine["losses"][m]) == k and len(sizes) == 1 and min(sizes) >= 50, (
            f"losses, {m}: one list for each of the {k} seeds, of at least 50 rows, equally many for all."
        )
        tables[m] = torch.tensor(mine["losses"][m], dtype=torch.float64)
        assert torch.isfinite(tables[m]).all() and (tables[m] >= 0).all(), (
            f"losses, {m}: finite numbers, 0 or more."
        )
        assert tables[m].mean(1).std() > 0, f"losses, {m}: all seeds are equal. Something is not drawn anew."
    x, y = tables[baseline], tables[remedy]
    assert x.shape == y.shape, "losses: both methods are tested on equally many rows."
    pairs = x.mean(1) - y.mean(1)
    right = intervals.t_interval(pairs.tolist())
    flipped = {
        "difference: remedy minus baseline. A lower loss is better: take baseline minus remedy.": -right.mean
    }
    checking.equal(mine["difference"], right.mean, "difference", flipped, tol=1e-6)
    half = (right.high - right.low) / 2
    error = pairs.std().item() / math.sqrt(k)
    apart = math.sqrt((x.mean(1).var() + y.mean(1).var()).item() / k)
    wrong = {
        "low: the rows of a seed share one training. Average over them first: the unit is the seed.": intervals.t_interval(
            (x - y).flatten().tolist()
        ).low,
        "low: these are two separate intervals. Both methods share seeds and rows: take each seed's difference.": right.mean
        - half * apart / error,
        "low: that is one standard error. A 95 % t interval is wider.": right.mean - error,
        "low: 1.96 is the normal curve. With few seeds take Student's t.": right.mean - 1.959964 * error,
    }
    checking.equal(mine["low"], right.low, "low", wrong, tol=max(1e-6, 1e-3 * half))
    checking.equal(mine["high"], right.high, "high", tol=max(1e-6, 1e-3 * half))
    above, small = right.low > 0, right.high < mine["effect"]
    verdict = ("too small" if small else "supported") if above else "refuted" if small else "undecided"
    told = f"the interval [{right.low:.4f}, {right.high:.4f}], with {mine['effect']:g} as the smallest effect that matters,"
    assert (verdict, mine["verdict"]) != ("undecided", "refuted"), (
        f"verdict: {told} holds 0 *and* effects that matter. That nothing was found does not show that nothing is there."
    )
    assert (verdict, mine["verdict"]) != ("too small", "supported"), (
        f"verdict: {told} lies above 0 and below what matters: a real effect, too small to act on."
    )
    assert mine["verdict"] == verdict, f"verdict: {told} says {verdict!r}, not {mine['verdict']!r}."
    print(
        f"07.7 passed: {verdict}, [{right.low:.4f}, {right.high:.4f}]. Now a person reads it with the rubric."
    )


check_07_7(study)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Write one function that returns the test losses of (method, setting, seed). Tuning, pilot and run are three loops over it.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Power too low? The spread is yours to lower before the run: larger test sets, the same rows and first values for both
# methods, more seeds. The effect that matters is not yours to raise until it fits.
#
# </details>
#
# {{solution}}
