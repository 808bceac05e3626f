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
# that you do not see here, so test more than the checker does. Nothing on this page needs a model, a data
# set or a network.
#
# {{overview}}

# %%
import math

import numpy as np
import torch
from torch.nn import functional as F

# %% [markdown]
# ## 07.1 Dropout that keeps the mean
#
# > ●●○○○ · 10 minutes · practice
#
# Write inverted dropout. In training each activation is set to zero with probability $p$, by a coin of its
# own, and what survives is scaled so that the mean of the result is the input. Outside training the input
# comes back as it is.
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
    def coins(seed=0):
        return torch.Generator().manual_seed(seed)

    h = torch.full((40, 500), 2.0)
    out = dropout(h, 0.2, True, coins())
    assert out is not None, "The function returned None. Did you forget return?"
    assert out.shape == h.shape, f"Shape {tuple(h.shape)} expected, not {tuple(out.shape)}."
    assert torch.equal(h, torch.full((40, 500), 2.0)), (
        "The input itself was changed. The caller may need it again."
    )
    same = dropout(h, 0.2, False, coins())
    assert not (same == 0).any(), "Outside training some activations are zero. Prediction must not be random."
    assert torch.equal(same, h), (
        "Outside training the input is scaled. Inverted dropout pays the scale in training, so that "
        "prediction needs none."
    )
    zeros, survivors = (out == 0).double().mean().item(), out[out != 0]
    assert not 0.75 < zeros < 0.85, "Four fifths are zero: p is the probability of a zero, not of surviving."
    assert 0.17 < zeros < 0.23, f"A fifth of the activations should be zero, not {zeros:.0%}."
    rows = (out != 0).double().mean(1)
    columns = (out != 0).double().mean(0)
    assert rows.std() < 0.1 and columns.std() < 0.2, (
        "Whole rows or columns live or die together. Every activation has a coin of its own."
    )
    assert not torch.allclose(survivors, torch.tensor(2.0)), (
        "The survivors are not scaled, so the mean falls to 1 - p of the input. The next layer sees "
        "another size in training than in prediction."
    )
    assert not torch.allclose(survivors, torch.tensor(10.0)), (
        "You divide by p. Survivors are the share 1 - p, so that is what to divide by."
    )
    assert torch.allclose(survivors, torch.tensor(2.5)), (
        f"A survivor of 2 becomes 2.5 with p = 0.2, not {survivors[0].item():.3f}."
    )
    assert torch.equal(out, dropout(h, 0.2, True, coins())), (
        "Two calls with equal generators differ. Draw the coins from the generator."
    )
    print(f"07.1 passed. Zeros: {zeros:.1%}; mean {out.mean():.3f} for an input of 2.")


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
# The gradient must flow into both passes. Logits may be as large as a thousand; the result stays finite.


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


def check_07_2(r_drop):
    a, b, y = two_passes(0)
    got = r_drop(a, b, y, 0.7)
    assert got is not None, "The function returned None. Did you forget return?"
    assert tuple(got.shape) == (6,), (
        f"Shape (6,) expected, one loss per sentence, not {tuple(got.shape)}. The caller chooses the mean."
    )
    ce = (F.cross_entropy(a, y, reduction="none") + F.cross_entropy(b, y, reduction="none")) / 2
    p, q = a.softmax(1), b.softmax(1)
    forward, backward = (p * (p / q).log()).sum(1), (q * (q / p).log()).sum(1)

    def same(want):
        return torch.allclose(got, want, atol=1e-9)

    assert not same(2 * ce + 0.7 * (forward + backward) / 2), (
        "You add the two cross-entropies. Take their mean: with alpha = 0 the loss is the ordinary one."
    )
    assert not same(ce + 0.7 * forward) and not same(ce + 0.7 * backward), (
        "This is the divergence in one direction. It changes when a and b are exchanged; the passes are "
        "equals, so take both directions."
    )
    assert not same(ce + 0.7 * (forward + backward)), (
        "Both directions are there, but added. Take half of each."
    )
    assert not same(ce + 0.7 * ((a - b) ** 2).mean(1)), (
        "This compares logits by squares. Adding a constant to all logits changes nothing in p, and must "
        "change nothing here."
    )
    assert not same(ce - 0.7 * (forward + backward) / 2), (
        "The sign: you reward two passes that disagree. A divergence is subtracted nowhere."
    )
    assert same(ce + 0.7 * (forward + backward) / 2), "Some loss differs from the formula."
    print("07.2 passed the visible cases. Mean loss", f"{got.mean():.4f}")


check_07_2(r_drop)
### BEGIN HIDDEN TESTS


def hidden_07_2(r_drop):
    a, b, y = two_passes(1, n=5, classes=3)
    a.requires_grad_(True)
    b.requires_grad_(True)
    loss = r_drop(a, b, y, 2.0).sum()
    grads = torch.autograd.grad(loss, (a, b), allow_unused=True)
    log_p, log_q = a.log_softmax(1), b.log_softmax(1)
    kl = ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum() / 2
    want = torch.autograd.grad(
        (F.cross_entropy(a, y, reduction="sum") + F.cross_entropy(b, y, reduction="sum")) / 2 + 2 * kl, (a, b)
    )
    for mine, theirs in zip(grads, want, strict=True):
        assert mine is not None and torch.allclose(mine, theirs, atol=1e-9), (
            "The value is right, the gradient is not: one of the passes was detached. Both learn."
        )
    large = torch.tensor([[1000.0, 0.0]], dtype=torch.float64)
    got = r_drop(large, -large, torch.tensor([0]), 1.0)
    assert torch.isfinite(got).all(), (
        "With logits of a thousand the loss is not finite: a probability underflowed before its logarithm. "
        "Take log_softmax."
    )


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
# on test. Of equally good looks take the first.


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
def made_looks():
    """Five looks; the second and the fourth are best on dev, the fifth is best on test."""
    rng = np.random.default_rng(3)
    y_dev, y_test = rng.integers(2, size=40), rng.integers(2, size=40)
    looks = []
    for step, (dev_right, test_right) in enumerate([(24, 26), (32, 27), (28, 25), (32, 30), (29, 33)]):
        look = {"step": 10 * (step + 1)}
        for name, y, right, size in (("dev", y_dev, dev_right, 1.5), ("test", y_test, test_right, 4.0)):
            answers = np.where(np.arange(len(y)) < right, y, 1 - y)
            margin = size * (0.5 + rng.random(len(y)))
            look[name] = np.stack([np.where(answers == 0, margin, 0), np.where(answers == 1, margin, 0)], 1)
        looks.append(look)
    return looks, y_dev, y_test


def check_07_3(report):
    looks, y_dev, y_test = made_looks()
    got = report(looks, y_dev, y_test)
    assert got is not None, "The function returned None. Did you forget return?"
    assert set(got) == {"step", "accuracy", "temperature", "loss"}, (
        "Keys expected: step, accuracy, temperature, loss."
    )
    assert got["step"] != 50, (
        "step: the fifth look is the best on *test*. Whoever chooses there has nothing left to test with."
    )
    assert got["step"] != 40, "step: two looks are equally good on dev. Take the first."
    assert got["step"] == 20, f"step: 20 expected, not {got['step']}."
    best = looks[1]
    assert not math.isclose(got["accuracy"], 32 / 40), (
        "accuracy: this is the best dev score. It is a maximum of several looks, so it is too good by "
        "selection. Report the test accuracy of the chosen look."
    )
    assert not math.isclose(got["accuracy"], 33 / 40), (
        "accuracy: this is the best of all test scores, not that of the chosen look."
    )
    assert math.isclose(got["accuracy"], 27 / 40), f"accuracy: 0.675 expected, not {got['accuracy']:.3f}."
    on_dev, on_test = best_temperature(best["dev"], y_dev), best_temperature(best["test"], y_test)
    assert not math.isclose(got["temperature"], on_test), (
        "temperature: fitted on the test sentences. No temperature can then do better there, so the loss "
        "that you report is no estimate."
    )
    assert math.isclose(got["temperature"], on_dev), (
        f"temperature: on the dev sentences of the chosen look it is {on_dev:.3f}."
    )
    assert not math.isclose(got["loss"], loss_of(best["dev"], y_dev, on_dev)), (
        "loss: this is the dev loss. The temperature was fitted there; measure on test."
    )
    assert not math.isclose(got["loss"], loss_of(best["test"], y_test)), (
        "loss: the temperature was found, and then not used."
    )
    assert math.isclose(got["loss"], loss_of(best["test"], y_test, on_dev)), (
        "loss: the test loss of the chosen look, at the temperature."
    )
    broken = broken_report(looks, y_dev, y_test)
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
    mine = prediction()
    assert mine is not None, "The function returned None. Return your dict."
    assert set(mine) == {"identical", "members_loss", "ensemble_loss", "right"}, (
        "Four keys: see the list above."
    )
    assert all(isinstance(value, int | float) for value in mine.values()), "Four numbers expected."
    assert not mine["identical"] < 0, (
        "identical: you expect a gain. The mean of five equal numbers is that number. An ensemble lives "
        "on disagreement."
    )
    assert mine["identical"] == 0, "identical: the mean of five equal probabilities is that probability."
    members = -(math.log(0.8) + math.log(0.2)) / 2
    assert not math.isclose(mine["members_loss"], math.log(2), abs_tol=0.02), (
        "members_loss: this is the loss of the mean probability. Here the losses come first, then the mean."
    )
    assert math.isclose(mine["members_loss"], members, abs_tol=0.02), (
        f"members_loss: half of -ln 0.8 - ln 0.2 is {members:.2f}."
    )
    assert not math.isclose(mine["ensemble_loss"], members, abs_tol=0.02), (
        "ensemble_loss: this is the mean of the losses again. First average the probabilities."
    )
    assert math.isclose(mine["ensemble_loss"], math.log(2), abs_tol=0.02), (
        f"ensemble_loss: the mean probability is 0.5, and -ln 0.5 is {math.log(2):.2f}."
    )
    assert mine["right"] != 1, (
        "right: two of three members are right, but probabilities are averaged, not votes. The third is "
        "very sure."
    )
    assert mine["right"] == 0, "right: 0 or 1."
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
def check_07_5(calibration_error):
    confidence = np.array([0.62, 0.66, 0.68, 0.64, 0.97, 0.93, 0.72, 0.78])
    right = np.array([True, True, False, True, True, False, True, True])
    got = calibration_error(confidence, right)
    assert got is not None, "The function returned None. Did you forget return?"
    assert isinstance(got, float), f"A float is expected, not {type(got).__name__}."
    gaps = {4: right[:4].mean() - 0.65, 2: 0.5 - 0.95, -2: 1.0 - 0.75}
    weights = np.array([4, 2, 2]) / 8
    distances = np.abs(list(gaps.values()))
    assert not math.isclose(got, distances.mean()), (
        "All bins count the same. A bin with one answer must not weigh as much as one with a thousand: "
        "weight by the number of answers."
    )
    assert not math.isclose(got, abs(weights @ np.array(list(gaps.values())))), (
        "Overconfident and underconfident bins cancel, as if there were no bins at all: take the distance "
        "of each bin before you add."
    )
    assert math.isclose(got, weights @ distances), f"{weights @ distances:.4f} expected here, not {got:.4f}."
    shifted = np.array([0.61, 0.61, 0.99, 0.99])
    truth = np.array([True, False, True, True])
    want = (2 * 0.11 + 2 * 0.01) / 4
    other = calibration_error(shifted, truth)
    assert not math.isclose(other, (2 * 0.15 + 2 * 0.05) / 4), (
        "You compare with the centre of the bin. Compare with the mean confidence of the answers in it."
    )
    assert math.isclose(other, want), f"{want:.4f} expected for the second case, not {other:.4f}."
    print(f"07.5 passed the visible cases. Calibration errors {got:.4f} and {other:.4f}.")


check_07_5(calibration_error)
### BEGIN HIDDEN TESTS


def hidden_07_5(calibration_error):
    sure = calibration_error(np.array([1.0, 1.0, 1.0, 1.0]), np.array([True, False, False, False]))
    assert math.isclose(sure, 0.75), (
        "Confidence 1.0 falls out of all bins. The last bin is closed on the right."
    )
    got = calibration_error(np.array([0.5, 0.55, 0.45]), np.array([True, False, False]), bins=2)
    want = (2 * abs(0.5 - 0.475) + abs(0 - 0.55)) / 3
    assert math.isclose(got, want), (
        "A confidence of exactly 0.5 belongs to the lower of two bins: each is closed on the right."
    )
    rng = np.random.default_rng(0)
    confidence = 0.5 + rng.random(500) / 2
    right = rng.random(500) < confidence
    assert math.isclose(calibration_error(confidence, right, 1), abs(right.mean() - confidence.mean())), (
        "With one bin the error is the distance of the overall means. Do you use the argument bins?"
    )


hidden_07_5(calibration_error)
### END HIDDEN TESTS
