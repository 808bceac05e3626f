# ---
# jupyter:
#   instructlab:
#     id: "01"
#     title: Empirical risk and the gradient of cross-entropy
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 01: empirical risk and the gradient of cross-entropy
#
# Each exercise is a box, a cell for your answer, and a checker in the cell below it. Replace the line that
# raises `NotImplementedError`, then run both cells. A checker that says no also says what probably went
# wrong.
#
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases
# that you do not see here, so test more than the checker does. Nothing on this page needs a file or a network.
# Exercise 01.6 fits small models, and exercise 01.7 is a project: each of them is worth an evening.
#
# {{overview}}

# %%
import math

import numpy as np
import torch

from instructlab_utils import checking, intervals

# %% [markdown]
# ## 01.1 A cross-entropy that survives large logits
#
# > ●●○○○ · 10 minutes · practice
#
# For a logit $z$, a target $y \in \{0, 1\}$ and $\sigma(z) = 1/(1 + e^{-z})$, the binary cross-entropy is
#
# $$ \ell(z, y) = -\bigl[\, y \log \sigma(z) + (1 - y) \log(1 - \sigma(z)) \,\bigr]. $$
#
# Typed in like this it fails in float32: $\sigma(20)$ rounds to 1, and $\log 0$ follows. Rewrite it so that
# no step overflows and no digit is lost, and then compute it: for logits up to $\pm 10^4$, small losses and
# the gradient included. Use tensor operations only, not the function of `torch.nn` that does all of it.


# %% nbgrader={"grade_id": "answer_01_1", "solution": true}
def stable_bce(logits, targets):
    """Binary cross-entropy of each example; logits, targets and result are float32 of shape (n,)."""
    ### BEGIN SOLUTION
    larger = torch.maximum(logits, torch.zeros_like(logits))
    return larger - logits * targets + torch.log1p(torch.exp(-logits.abs()))
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_01_1", "locked": true}
def check_01_1(stable_bce):
    call = checking.calls(stable_bce)

    def by_softplus(z, y):
        return torch.nn.functional.softplus((1 - 2 * y) * z)

    z, y = torch.tensor([2.0, 2.0, -1.0, 0.0, -3.0]), torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0])
    want = by_softplus(z, y)
    wrong = {
        "The targets are swapped. A logit of 2 says class 1, so its loss is small when y = 1.": by_softplus(
            z, 1 - y
        ),
        "The sign is wrong. A cross-entropy is never negative.": -want,
    }
    checking.equal(call(z, y), want, "the losses", wrong, dtype=torch.float32, says="Moderate logits:")
    says = "Is a part of the formula detached? max(z, 0) does not cancel, so it has a gradient, too."
    call.gradients(by_softplus, torch.tensor([2.0, -1.0]), torch.tensor([1.0, 1.0]), of=[0], says=says)

    far, y = torch.tensor([100.0, -100.0, 1e4, -1e4]), torch.tensor([0.0, 1.0, 0.0, 1.0])
    got = call(far, y)
    assert torch.isfinite(got).all(), (
        f"Logits of 100 and more give {got.tolist()}. Something overflowed: exp(100) is inf, sigmoid(100) is 1. "
        "Let exp see only numbers that are not positive."
    )
    assert torch.allclose(got, far.abs()), (
        f"The losses of the wrong side at logits ±100 and ±10000 are 100 and 10000, you have {got.tolist()}. They "
        "are finite because you clipped, and a clipped loss has no gradient: the worst mistakes would teach nothing."
    )
    z = torch.tensor([100.0, -100.0, 3.0, 1e4], requires_grad=True)
    y = torch.tensor([0.0, 1.0, 1.0, 1.0])
    (gradient,) = torch.autograd.grad(stable_bce(z, y).sum(), z)
    assert torch.isfinite(gradient).all(), (
        "The values are right, the gradient is nan. torch.where computes both branches and multiplies "
        "the unused one by 0; 0 times inf is nan. Use a formula without branches."
    )
    checking.equal(gradient, torch.sigmoid(z.detach()) - y, "the gradient", says="It is sigmoid(z) - y.")
    z = torch.zeros(1, requires_grad=True)
    (gradient,) = torch.autograd.grad(stable_bce(z, torch.zeros(1)).sum(), z)
    assert torch.allclose(gradient, torch.tensor([0.5])), (
        f"At z = 0 with y = 0 the gradient is 0.5, you have {gradient.item():.1f}. At its corner clamp passes all of "
        "the gradient on; torch.maximum shares it. Weights often start at zero, just there."
    )
    for z, y in ((-20.0, 0.0), (20.0, 1.0), (16.5, 1.0)):
        tiny, want = call(torch.tensor([z]), torch.tensor([y])).item(), math.log1p(math.exp(-abs(z)))
        assert tiny > 0 or y, (
            "At logit -20 with y = 0 the loss is 2e-9, you have 0. 1 + 2e-9 rounds to 1 in float32: use "
            "torch.log1p."
        )
        assert tiny != 0, (
            f"At logit {z:g} with y = 1 the loss is {want:.1e}, you have 0. It drowned in a sum: {z:g} + {want:.0e} "
            f"rounds to {z:g} in float32. Take the large numbers off from each other first, then add the small one."
        )
        checking.equal(tiny, want, f"the loss at logit {z:g}, y = {y:g},", tol=1e-3, says="Digits are lost.")
    print("01.1 passed. Values and gradients hold from -10000 to 10000, and small losses keep their digits.")


check_01_1(stable_bce)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Both logarithms are softplus functions: $-\log \sigma(z) = \log(1 + e^{-z})$ and $-\log(1 - \sigma(z)) =
# \log(1 + e^{z}) = z + \log(1 + e^{-z})$. So $\ell(z, y) = \log(1 + e^{z}) - z y$.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Take the larger of $0$ and $z$ out of the logarithm: $\log(1 + e^{z}) = \max(z, 0) + \log(1 + e^{-|z|})$.
# Now the exponent is never positive. `torch.log1p` does the rest. For the larger of the two take `torch.maximum`: it
# has the right gradient at $z = 0$ too.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 01.2 The gradient of softmax cross-entropy, by hand
#
# > ●●●○○ · 15 minutes · graded
#
# A linear classifier has the weights $W \in \mathbb R^{V \times d}$, and the logits of example $i$ are $W
# x_i$. Its risk is the mean cross-entropy
#
# $$ R(W) = \frac1n \sum_{i=1}^n -\log \operatorname{softmax}(W x_i)_{y_i}. $$
#
# Derive $\partial R / \partial W$ on paper. Then write it, without autograd. It has the shape of $W$. Write
# the softmax out too, and keep it safe for large logits of either sign, in every row of the batch.


# %% nbgrader={"grade_id": "answer_01_2", "solution": true}
def cross_entropy_gradient(W, X, y):
    """Gradient of the mean cross-entropy, shape (V, d), float64; W is (V, d), X (n, d), y (n,) int64."""
    ### BEGIN SOLUTION
    logits = X @ W.T
    weights = (logits - logits.max(dim=1, keepdim=True).values).exp()
    surplus = weights / weights.sum(dim=1, keepdim=True)
    surplus[torch.arange(len(y)), y] -= 1
    return surplus.T @ X / len(y)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_01_2", "grade": true, "points": 3, "locked": true}
def finite_differences(function, W, step=1e-6):
    """Central differences of a scalar function at W, entry by entry."""
    gradient = torch.zeros_like(W)
    for index in np.ndindex(*W.shape):
        shift = torch.zeros_like(W)
        shift[index] = step
        gradient[index] = (function(W + shift) - function(W - shift)) / (2 * step)
    return gradient


def check_01_2(cross_entropy_gradient):
    call = checking.calls(cross_entropy_gradient)
    generator = torch.Generator().manual_seed(1)
    V, d, n = 4, 3, 6
    W = torch.randn(V, d, generator=generator, dtype=torch.float64)
    X = torch.randn(n, d, generator=generator, dtype=torch.float64)
    y = torch.tensor([0, 3, 2, 1, 3, 3])

    def risk(W):
        logits = X @ W.T
        return (logits.logsumexp(1) - logits[torch.arange(n), y]).mean()

    want = finite_differences(risk, W)
    got = call(W, X, y)
    checking.form(got, want, "the gradient", dtype=torch.float64)
    one_hot_part = torch.zeros_like(W).index_add(0, y, X) / n
    wrong = {
        "The sign is wrong: the gradient holds softmax minus one-hot, you have one-hot minus softmax.": -want,
        "This is the gradient of the sum. The risk is a mean: divide by n.": want * n,
        "You also averaged over the classes. Divide by the number of examples, not by n * V.": want / V,
        "You divide by all n * d numbers of X. Divide by the number of examples.": want / d,
        "You divide by the number of features. Divide by the number of examples.": want * n / d,
        "The term of the right class is missing. The risk also has -W[y] · x, and its gradient is minus "
        "the one-hot.": want + one_hot_part,
        "The softmax is missing: only the one-hot part is left.": -one_hot_part,
        "You take 1 off in all the columns that occur in y, in every row. Each row has one right class: its own.": want
        + one_hot_part
        - X.mean(0).expand(V, d),
    }
    last = torch.zeros_like(W)
    for row, label in zip(X, y.tolist(), strict=True):
        last[label] = row
    residuals = (X @ W.T).softmax(1) - torch.eye(V, dtype=torch.float64)[y]
    wrong |= {
        "Of several examples with the same label only one counts: G[y] -= X writes each row of G once. Add them all up.": want
        + one_hot_part
        - last / n,
        "You averaged the residuals and the inputs apart, and multiplied then. Multiply for each example, then average.": (
            torch.outer(residuals.mean(0), X.mean(0))
        ),
    }
    axis = "Over which axis do you normalise? The V rows of the gradient must sum to zero."
    says = axis if got.sum(0).abs().max() > 1e-9 else "Compared with finite differences:"
    checking.equal(got, want, "the gradient", wrong, tol=1e-7, says=says)
    by_hand = "The values are right, but they need autograd. Write the gradient by hand."
    with torch.no_grad(), checking.means(RuntimeError, by_hand):
        call(W, X, y)
    print(
        "01.2 passed the visible cases. Largest distance to finite differences: "
        f"{(got - want).abs().max():.0e}"
    )


check_01_2(cross_entropy_gradient)
### BEGIN HIDDEN TESTS


def hidden_01_2(cross_entropy_gradient):
    call = checking.calls(cross_entropy_gradient)
    generator = torch.Generator().manual_seed(2)
    W = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    X = torch.randn(3, 2, generator=generator, dtype=torch.float64)

    def reference(W, X, y):
        leaf = W.clone().requires_grad_()
        return torch.autograd.grad(torch.nn.functional.cross_entropy(X @ leaf.T, y), leaf)[0]

    y = torch.tensor([1, 0, 1])
    absent = "Classes 2, 3 and 4 have no example here. The number of classes comes from W, not from y."
    with checking.means(RuntimeError, absent):
        call.agrees(reference, (W, X, y), name="the gradient", says=absent)
    y = torch.tensor([1, 4, 0])
    steep, alike = 400 * (W.abs() + 1), 1 + X.abs() / 100
    got = call(steep, alike, y)
    assert torch.isfinite(got).all(), "Large logits give nan. Take each row's largest logit off before exp."
    says = "Finite for large logits, and wrong: clipped logits are all equal. Take each row's largest off instead."
    checking.equal(got, reference(steep, alike, y), "the gradient", says=says)
    apart = torch.tensor([[1000.0, 900.0], [-1000.0, -1100.0], [1.0, 0.5]], dtype=torch.float64)
    got = call(W.abs() + 1, apart, y)
    assert torch.isfinite(got).all(), (
        "Logits near +2000 in one row and near -2000 in another give nan: you took the largest of the whole table "
        "(or column) off, and in the other row every exp is 0. Each row has its own largest logit."
    )
    checking.equal(got, reference(W.abs() + 1, apart, y), "the gradient", says="Rows with logits far apart.")
    for V, d, n in ((2, 7, 3), (6, 1, 4), (3, 4, 1)):
        W = torch.randn(V, d, generator=generator, dtype=torch.float64)
        X = torch.randn(n, d, generator=generator, dtype=torch.float64)
        y = torch.randint(V, (n,), generator=generator)
        call.agrees(reference, (W, X, y), name="the gradient", says=f"V = {V}, d = {d}, n = {n}.")
        call.agrees(reference, (W, X, y * 0), name="the gradient", says="All examples have one class.")


hidden_01_2(cross_entropy_gradient)
### END HIDDEN TESTS

# %% [markdown]
# ## 01.3 The gradient check passes, and the model gets worse
#
# > ●●●○○ · 12 minutes · practice · bug hunt
#
# An article defines a loss $\ell$ that already begins with a minus sign, and then minimises $-\frac1N \sum
# \ell$. The code below does that for logistic regression with weight decay. Its gradient agrees with finite
# differences. It descends. And the accuracy falls.


# %%
def broken_risk(w, X, y, lam):
    p = 1 / (1 + np.exp(-(X @ w)))
    losses = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    risk = -losses.mean() + lam / 2 * (w @ w)
    gradient = X.T @ (y - p) / len(y) + lam * w
    return risk, gradient


rng = np.random.default_rng(0)
X_demo = rng.normal(size=(200, 2))
y_demo = (X_demo @ [2.0, -1.0] + 0.5 * rng.normal(size=200) > 0).astype(float)
w_demo = np.array([0.2, -0.1])
for step in range(4):
    risk_demo, gradient_demo = broken_risk(w_demo, X_demo, y_demo, lam=0.1)
    accuracy = ((X_demo @ w_demo > 0) == y_demo).mean()
    print(f"step {step}: risk {risk_demo:.3f}, accuracy {accuracy:.3f}")
    w_demo = w_demo - 1.0 * gradient_demo

# %% [markdown]
# Before you repair it, say in one sentence why a gradient check cannot find this bug. Then write the
# function so that it returns the mean cross-entropy plus $\frac\lambda2 \lVert w \rVert^2$, and the
# gradient of exactly that.


# %% nbgrader={"grade_id": "answer_01_3", "solution": true}
def repaired_risk(w, X, y, lam):
    """Return (risk, gradient), a float and an array (d,); w is (d,), X is (n, d), y is (n,) of 0 and 1."""
    ### BEGIN SOLUTION
    p = 1 / (1 + np.exp(-(X @ w)))
    losses = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    risk = losses.mean() + lam / 2 * (w @ w)
    gradient = X.T @ (p - y) / len(y) + lam * w
    return risk, gradient
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_01_3", "locked": true}
def check_01_3(repaired_risk):
    call = checking.calls(repaired_risk)
    rng = np.random.default_rng(3)
    X = rng.normal(size=(40, 3))
    y = (X @ [1.0, -2.0, 0.5] > 0).astype(float)
    w = np.array([0.3, 0.2, -0.4])
    answer = call(w, X, y, 0.0)
    checking.form(answer, (0.0, np.zeros(3)), "(risk, gradient)")
    risk, gradient = answer

    def slope(lam):
        """Finite differences of the returned risk."""
        steps = 1e-6 * np.eye(3)
        return np.array([call(w + s, X, y, lam)[0] - call(w - s, X, y, lam)[0] for s in steps]) / 2e-6

    consistent = np.allclose(gradient, slope(0.0), atol=1e-6)
    if risk < 0:
        assert not consistent, (
            f"The risk is {risk:.3f}. A cross-entropy is never negative, so you still maximise it. The "
            "gradient agrees with the risk: "
            "that is why a gradient check stays silent. It compares the two lines with each other, not "
            "with your aim."
        )
        raise AssertionError(
            "You repaired the gradient alone. The risk is still negative, and now the two lines "
            "contradict each other."
        )
    assert not np.allclose(gradient, -slope(0.0), atol=1e-6), (
        "You repaired the risk alone. Its gradient still points the other way, so gradient descent climbs."
    )
    start = call(0 * w, X, y, 0.0)[0]
    wrong = {
        "At w = 0 the risk is log 2 whatever the number of examples. You sum the losses; take the mean.": len(
            y
        )
        * math.log(2)
    }
    checking.equal(start, math.log(2), "the risk", wrong, says="At w = 0 the risk must be log 2.")
    says = "One number for all weights: your mean runs over the features, too. Average over the examples only (axis 0)."
    wrong = {
        says: np.full(3, slope(0.0).mean()),
        "The gradient holds decisions, 0 or 1, where the probabilities belong. That is a perceptron's update.": X.T
        @ ((X @ w > 0) - y)
        / len(y),
    }
    checking.equal(
        gradient,
        slope(0.0),
        "the gradient",
        wrong,
        tol=1e-5,
        says="With lam = 0, against finite differences of your risk:",
    )
    penalty = call(w, X, y, 2.0)[0] - risk
    assert penalty >= 0, (
        "The penalty is negative: you turned the sign of everything. Large weights would be rewarded."
    )
    assert penalty > 0, "lam changes nothing in the risk. The penalty belongs to both, risk and gradient."
    wrong = {
        "With lam = 2 the penalty is |w|²; you add twice as much. Keep the half.": 2 * w @ w,
        "You divide the penalty by the number of examples. Only the losses are averaged.": w @ w / len(y),
    }
    checking.equal(penalty, w @ w, "the penalty", wrong, says="With lam = 2 it is |w|².")
    assert np.allclose(call(w, X, y, 2.0)[1], slope(2.0), atol=1e-6), (
        "With weight decay the gradient does not belong to the risk: the penalty (lam / 2)|w|² has the "
        "gradient lam * w."
    )
    for n, d in ((7, 5), (1, 2)):
        X, y, w = rng.normal(size=(n, d)), rng.integers(2, size=n).astype(float), rng.normal(size=d)
        want = np.logaddexp(0, (1 - 2 * y) * (X @ w)).mean() + 0.35 * np.sum(w**2)
        checking.equal(
            call(w, X, y, 0.7)[0], want, "the risk", says=f"{n} examples with {d} features, lam = 0.7."
        )
    X, y, w = np.array([[4.0, 1.0], [-9.0, 2.0], [0.5, 8.0]]), np.array([0.0, 1.0, 1.0]), np.array([1.0, 0.5])
    chances = 1 / (1 + np.exp(-X @ w))
    want = np.logaddexp(0, (1 - 2 * y) * (X @ w)).mean(), X.T @ (chances - y) / 3
    says = "Probabilities near 0 and 1: a clipped one has no gradient, and the worst mistakes would teach nothing."
    checking.equal(call(w, X, y, 0.0), want, "(risk, gradient)", says=says)
    print(
        "01.3 passed. A gradient check proves that two lines agree. Only the value itself shows that "
        "both are wrong."
    )


check_01_3(repaired_risk)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# What is the smallest value that a cross-entropy can have? What does the broken code print?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Two signs are wrong, and they hide each other: one in the risk, one in the gradient. The weight decay is
# right in both lines. Leave it.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 01.4 The floor under a smoothed loss
#
# > ●●●●○ · 15 minutes · graded
#
# Label smoothing replaces the one-hot target by $q = (1 - \varepsilon)\,\text{one-hot} + \varepsilon / V$:
# the right class gets $1 - \varepsilon + \varepsilon/V$, and each of the others gets $\varepsilon/V$. The
# loss is the cross-entropy $-\sum_c q_c \log p_c$. It cannot reach zero.
#
# Two questions. How low can it get? And at that lowest point, by how much does the logit of the right class
# exceed each of the others? Both have a closed form. Mind the edges: without smoothing the margin is
# infinite, with $\varepsilon = 1$ it is zero.


# %% nbgrader={"grade_id": "answer_01_4", "solution": true}
def smoothing_floor(num_classes, epsilon):
    """Return (floor, margin): the smallest smoothed loss in nats, and the logit margin that reaches it."""
    ### BEGIN SOLUTION
    other = epsilon / num_classes
    right = 1 - epsilon + other
    if epsilon == 0:
        return 0.0, math.inf
    floor = -right * math.log(right) - (num_classes - 1) * other * math.log(other)
    return floor, math.log(right / other)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_01_4", "grade": true, "points": 3, "locked": true}
def smoothed_loss(margin, num_classes, epsilon):
    """The library's smoothed loss when the right class leads by `margin`, and its slope there."""
    lead = torch.tensor(float(margin), dtype=torch.float64, requires_grad=True)
    logits = torch.cat([lead[None], torch.zeros(num_classes - 1, dtype=torch.float64)])
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(0), label_smoothing=epsilon)
    return loss.item(), torch.autograd.grad(loss, lead)[0].item()


def check_01_4(smoothing_floor):
    V, epsilon = 4, 0.1
    answer = checking.calls(smoothing_floor)(V, epsilon)
    checking.form(answer, (0.0, 0.0), "(floor, margin)")
    floor, margin = map(float, answer)
    _, slope = smoothed_loss(margin, V, epsilon)
    lowest = min(smoothed_loss(candidate, V, epsilon)[0] for candidate in np.linspace(0, 8, 81))
    q = 1 - epsilon + epsilon / V, epsilon / V
    spread = -(1 - epsilon) * math.log(1 - epsilon) - epsilon * math.log(epsilon / (V - 1))
    wrong = {
        "The floor is not zero. Zero needs p = 1 on the right class, and then the other classes, which "
        "have weight too, cost infinitely much.": 0.0,
        "You counted the right class alone, and with weight 1. The sum runs over all V classes, each "
        "weighted by q.": -math.log(1 - epsilon + epsilon / V),
        "You gave epsilon to the V - 1 other classes. In this definition (and in PyTorch) the right "
        "class keeps its share epsilon / V.": spread,
        "This is -log(1 - epsilon). The right class has 1 - epsilon + epsilon / V, and the others cost, too.": -math.log(
            1 - epsilon
        ),
        "This is log V minus the floor: how far smoothing is from a uniform target.": math.log(V) - lowest,
        "The other classes count once in your floor. There are V - 1 of them, each with the weight epsilon / V.": -q[
            0
        ]
        * math.log(q[0])
        - q[1] * math.log(q[1]),
        "Your floor is in bits. The loss is in nats: use the natural logarithm.": lowest / math.log(2),
        "The order is turned: you give the margin first. Return (floor, margin).": 3.6109,
    }
    says = (
        "The library's loss, at the best of 81 margins from 0 to 8, comes within a thousandth of the floor."
    )
    checking.equal(floor, lowest, "your floor", wrong, tol=2e-3, says=says)
    assert not math.isclose(margin, math.log((1 - epsilon) / (epsilon / V))), (
        "The margin is the log of the ratio of two probabilities. The right class has 1 - epsilon + "
        "epsilon / V, not 1 - epsilon."
    )
    assert not math.isclose(margin, 1 - epsilon), (
        "Your margin is the difference of the two probabilities. It is a difference of *logits*, and those are "
        "logarithms: take the log of their ratio."
    )
    assert margin > 0, (
        f"Your margin is {margin:.4f}, below zero: by that the others would exceed the right class. Turn the ratio round."
    )
    assert not math.isclose(margin, math.log(q[0] / (1 - q[0]))), (
        "Your margin sets the right class against all others together. A logit stands against that of *one* other "
        "class: divide by the probability of one."
    )
    assert abs(slope) < 1e-6, (
        f"At a margin of {margin:.4f} the loss still has the slope {slope:.1e}. At its minimum the slope "
        "is zero."
    )
    best = smoothed_loss(margin, V, epsilon)[0]
    checking.equal(floor, best, "your floor", says="At your margin the library's loss is another.")
    print(
        f"01.4 passed the visible cases. Floor {floor:.4f}, margin {margin:.3f}: smoothing also bounds "
        "the confidence."
    )


check_01_4(smoothing_floor)
### BEGIN HIDDEN TESTS


def hidden_01_4(smoothing_floor):
    call = checking.calls(smoothing_floor)
    for V, epsilon in ((2, 0.2), (3, 0.05), (1000, 0.1), (7, 0.63), (50_000, 1e-6)):
        floor, margin = call(V, epsilon)
        loss, slope = smoothed_loss(margin, V, epsilon)
        says = f"Wrong for V = {V}, epsilon = {epsilon}."
        if epsilon < 1e-3:
            says += " A small constant inside the logarithm (or a clamp) is not small beside such an epsilon."
        checking.equal(floor, loss, "the floor", says=says)
        assert abs(slope) < 1e-6, f"{says} At your margin {margin} the loss still has a slope."
    floor, margin = call(5, 1.0)
    assert math.isclose(floor, math.log(5), rel_tol=1e-6) and abs(margin) < 1e-6, (
        "epsilon = 1: the target is uniform, the floor is log V."
    )
    says = "epsilon = 0: the floor is 0 and the margin infinite. 0 log 0 counts as 0."
    with checking.means(ValueError, says), checking.means(ZeroDivisionError, says):
        checking.equal(call(3, 0.0), (0.0, math.inf), "(floor, margin)", says=says)


hidden_01_4(smoothing_floor)
### END HIDDEN TESTS

# %% [markdown]
# ## 01.5 What happens to the loss?
#
# > ●●○○○ · 8 minutes · practice · prediction
#
# No code: think, then write down. A softmax classifier has 50 classes, and all its logits are zero at the
# start.
#
# - `at_start`: what is its mean cross-entropy? Give a number.
#
# What does the cross-entropy do, `"falls"`, `"same"` or `"rises"`, when
#
# - `shifted`: we add 7 to every logit,
# - `zeros_doubled`: we double logits that are all zero,
# - `right_doubled`: we double the logits of an example whose right class leads clearly,
# - `wrong_doubled`: we double the logits of an example in which a wrong class leads clearly?
#
# And what does the *accuracy* do, in `accuracy_doubled`, when all logits of all examples are doubled?


# %% nbgrader={"grade_id": "answer_01_5", "solution": true}
def prediction():
    """Return a dict: at_start (float), and five words out of falls, same, rises."""
    ### BEGIN SOLUTION
    return {
        "at_start": math.log(50),
        "shifted": "same",
        "zeros_doubled": "same",
        "right_doubled": "falls",
        "wrong_doubled": "rises",
        "accuracy_doubled": "same",
    }
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_01_5", "locked": true}
def check_01_5(prediction):
    keys = ("shifted", "zeros_doubled", "right_doubled", "wrong_doubled", "accuracy_doubled")
    mine = checking.predicted(prediction, ["at_start"], **dict.fromkeys(keys, ("falls", "same", "rises")))

    def loss(logits, y=0):
        return torch.nn.functional.cross_entropy(
            torch.as_tensor(logits, dtype=torch.float64), torch.tensor(y)
        ).item()

    def word(before, after):
        return "same" if math.isclose(before, after, abs_tol=1e-9) else "falls" if after < before else "rises"

    start = loss([0.0] * 50)
    wrong = {
        "at_start: this is in bits. PyTorch uses the natural logarithm.": math.log2(50),
        "at_start: this is log10. PyTorch uses the natural logarithm.": math.log10(50),
        "at_start: this is the error rate of guessing. Cross-entropy is -log of the probability of the right "
        "class.": 1 - 1 / 50,
        "at_start: this is the probability of the right class. The loss is minus its logarithm.": 1 / 50,
        "at_start: the sign. A loss is minus the logarithm of a probability.": -start,
        "at_start: log 2 belongs to two classes. Here are fifty.": math.log(2),
    }
    says = "at_start: each class has probability 1/50."
    checking.equal(mine["at_start"], start, "at_start", wrong, tol=0.003, says=says)
    row = torch.tensor([2.0, 0.5, -1.0], dtype=torch.float64)
    assert mine["shifted"] == word(loss(row), loss(row + 7)), (
        "shifted: softmax depends on differences of logits only. The factor e^7 cancels."
    )
    assert mine["zeros_doubled"] == word(start, loss([2 * 0.0] * 50)), "zeros_doubled: twice zero is zero."
    assert mine["right_doubled"] == word(loss(row), loss(2 * row)), (
        "right_doubled: doubling makes the softmax sharper, and here it is sharp in the right place."
    )
    assert mine["wrong_doubled"] == word(loss(row, 2), loss(2 * row, 2)), (
        "wrong_doubled: a sharper softmax is more certain of the wrong class. Overconfidence is paid for "
        "in log-probability."
    )
    assert mine["accuracy_doubled"] == "same", (
        "accuracy_doubled: the largest logit stays the largest, so no decision changes. Loss and "
        "accuracy measure different things."
    )
    print(
        f"01.5 passed. The loss starts at log V = {start:.3f}. A first step that logs another value has "
        "a bug before it."
    )


check_01_5(prediction)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Equal logits give equal probabilities. How many are there, and what is minus the logarithm of each?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# With two classes the loss is $\log(1 + e^{-m})$, where $m$ is the logit of the right class minus the
# other. What do a shift and a doubling do to $m$?
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 01.6 A risk near its floor
#
# > ●●●●○ · 75 minutes · graded
#
# $K$ classes, a cloud for each, and a few rows to learn from. Where the clouds are known, the best possible risk is known
# as well: it is the risk of the true probabilities $P(y \mid x)$, the *Bayes risk*. How near does a softmax regression
# come, fitted by a gradient that you write yourself?
#
# `fit(X, y, weight, X_dev, y_dev, K)` returns `W` (K, d) and `b` (K,), both float64; the logits of a row $x$ are
# $Wx + b$. Use NumPy only.
#
# - Rows of frequent classes were thinned out, and a row that was kept stands for several: for `weight` of them, a positive
#   number, not always whole. The risk of the training rows is $\sum_i w_i \ell_i / \sum_i w_i$. So weights that are
#   all multiplied by one constant change nothing.
# - The dev rows are a plain sample. They are there to choose by: which decay, how many steps. A value that was chosen at the
#   edge of its list asks for a longer list.
# - Features have units. In another unit ($x_j \to a x_j$, $a > 0$) or with another zero ($x_j \to x_j + c$) the model must
#   give the same probabilities.
# - A feature may be constant. There may be more features than rows. A class may have no row at all, and `W` and `b` still
#   have $K$ finite rows. In these cases the risk on new rows must only stay below $1$ nat.
#
# "The same" means: no probability of a new row differs by more than $0.02$, also when the same call is made twice. The
# **bar**: over four worlds of each kind the mean of (risk on new rows minus Bayes risk) is at most $0.1$ nats where the
# clouds are apart, and at most $0.06$ where they nearly coincide. The cell prints what guessing by the shares of the
# classes costs. A fit may take five seconds of processor time.
#
# Weight decay belongs to $W$. Think about what it would do to $b$ before you apply it there.


# %%
def clouds(seed, spread, K=3, d=16, n=90, n_dev=150, n_new=2000):
    """Arguments for fit, new rows with labels, their Bayes risk. Each class is ``odds`` times rarer than the last."""
    rng, odds = np.random.default_rng(seed), 6.0
    share = odds ** -np.arange(K) / (odds ** -np.arange(K)).sum()
    centres, zero = spread * rng.normal(size=(K, d)), 2 * rng.normal(size=d)
    unit = 10 ** rng.uniform(-1.5, 1.5, size=d)

    def rows(labels):
        return (centres[labels] + rng.normal(size=(len(labels), d)) + zero) * unit

    y, y_dev, y_new = np.arange(n) % K, rng.choice(K, n_dev, p=share), rng.choice(K, n_new, p=share)
    X, X_dev, X_new = rows(y), rows(y_dev), rows(y_new)
    logits = (X_new / unit - zero) @ centres.T - 0.5 * (centres**2).sum(1) + np.log(share)
    floor = np.mean(np.logaddexp.reduce(logits, axis=1) - logits[np.arange(n_new), y_new])
    return (X, y, 30 * K * share[y], X_dev, y_dev, K), X_new, y_new, floor


world_demo, X_demo_new, y_demo_new, floor_demo = clouds(0, 0.6)
shares_demo = np.bincount(y_demo_new) / len(y_demo_new)
guess_demo = -(shares_demo * np.log(shares_demo)).sum()
print(
    f"training rows {world_demo[0].shape}, Bayes risk {floor_demo:.3f}; guessing by shares {guess_demo:.3f}"
)


# %% nbgrader={"grade_id": "answer_01_6", "solution": true}
def fit(X, y, weight, X_dev, y_dev, K):
    """X (n, d) and X_dev (m, d) float64, y and y_dev int64, weight (n,) positive. Return W (K, d) and b (K,)."""
    ### BEGIN SOLUTION
    w = weight / weight.sum()
    mean = w @ X
    scale = np.sqrt(w @ (X - mean) ** 2)
    scale[scale <= 1e-9 * (1 + abs(mean))] = np.inf  # a constant feature tells nothing
    A, A_dev, Y = (X - mean) / scale, (X_dev - mean) / scale, np.eye(K)[y]

    def probabilities(Z):
        E = np.exp(Z - Z.max(1, keepdims=True))
        return E / E.sum(1, keepdims=True)

    steep = np.linalg.norm((A * w[:, None]).T @ A, 2) / 2 + 0.5
    best = None
    for decay in (0.003, 0.01, 0.03, 0.1, 0.3, 1, 3):
        W, b, eta = np.zeros((K, A.shape[1])), np.zeros(K), 1 / (steep + decay)
        for step in range(1, 201):
            R = (probabilities(A @ W.T + b) - Y) * w[:, None]
            W, b = W - eta * (R.T @ A + decay * W), b - eta * R.sum(0)
            if step in (20, 60, 200):
                Z = A_dev @ W.T + b
                risk = np.mean(np.logaddexp.reduce(Z, axis=1) - Z[np.arange(len(Z)), y_dev])
                if best is None or risk < best[0]:
                    best = risk, W / scale, b - (W / scale) @ mean
    return best[1], best[2]
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_01_6", "grade": true, "points": 5, "locked": true}
def softmax_of(model, X):
    Z = X @ model[0].T + model[1]
    E = np.exp(Z - Z.max(1, keepdims=True))
    return E / E.sum(1, keepdims=True)


def mean_loss(P, y, weight=None):
    return np.average(-np.log(np.maximum(P[np.arange(len(y)), y], 1e-300)), weights=weight)


def fitted(fit, case):
    """What fit returns for one case, tested for its form."""
    slow = "Five seconds a fit: fewer settings, or a longer step."
    got = checking.calls(fit, limit=5.0, slow=slow)(*case)
    assert isinstance(got, list | tuple) and len(got) == 2, "Return W and b."
    there = len(np.unique(case[1]))
    assert there == case[5] or len(got[0]) != there, (
        f"W has {there} rows, one for each class that occurs in y. How many there are, K says: here {case[5]}."
    )
    checking.form(got[0], np.zeros((case[5], case[0].shape[1])), "W", dtype=np.float64)
    checking.form(got[1], np.zeros(case[5]), "b", dtype=np.float64)
    assert np.isfinite(got[0]).all() and np.isfinite(got[1]).all(), (
        "W or b is not finite: a step that is too long, an exp that overflows, or a division by zero."
    )
    return got


def same_01_6(fit, case, X_new):
    """The same model for rows that say the same."""
    X, y, weight, X_dev, y_dev, K = case
    P = softmax_of(fitted(fit, case), X_new)

    def compare(other, X_other, says):
        apart = abs(softmax_of(fitted(fit, other), X_other) - P).max()
        assert apart <= 0.02, f"{says} (A probability differs by {apart:.2f}.)"

    compare(case, X_new, "The same call gives another model. Start at zero, or draw from a fixed seed.")
    says = (
        "All weights times ten, and the model changes. Something is divided by the number of rows. The denominator is "
        "the sum of the weights."
    )
    compare((X, y, 10 * weight, X_dev, y_dev, K), X_new, says)
    even = softmax_of(fitted(fit, (X, y, np.ones(len(y)), X_dev, y_dev, K)), X_new)
    assert abs(even - P).max() > 0.02, (
        "With all weights equal the model is the same as with the given ones: the weights are not used."
    )
    a = np.array([1000.0, 0.001] * X.shape[1])[: X.shape[1]]
    says = (
        "Other units, and the model changes: metres and millimetres must not matter. One step for all features is too "
        "long for one and too short for another, and decay asks for small numbers, whatever their unit."
    )
    compare((X * a, y, weight, X_dev * a, y_dev, K), X_new * a, says)
    c = 50 * X.std(0)
    says = "Other zero points of the features, and the model changes. Take each feature's mean off before you fit."
    compare((X + c, y, weight, X_dev + c, y_dev, K), X_new + c, says)


def judge_01_6(fit, spread, bar, seeds):
    """The mean excess risk over worlds; AssertionError with the likely reason where it is above the bar."""
    found = []
    for seed in seeds:
        case, X_new, y_new, floor = clouds(seed, spread)
        X, y, weight, K = case[0], case[1], case[2], case[5]
        model = fitted(fit, case)
        P, share = softmax_of(model, X), np.bincount(y, weight, K) / weight.sum()
        found.append(
            {
                "excess": mean_loss(softmax_of(model, X_new), y_new) - floor,
                "train": mean_loss(P, y, weight) - floor,
                "shift": abs(np.average(P, axis=0, weights=weight) - share).max(),
                "bias": min(
                    np.ptp(model[0] @ m + model[1]) for m in (X.mean(0), weight @ X / weight.sum(), 0 * X[0])
                ),
            }
        )
    mean = {key: np.mean([one[key] for one in found]) for key in found[0]}
    kind = "apart" if spread > 0.3 else "nearly the same"
    told = f"Clouds that are {kind}: {mean['excess']:.3f} nats above the Bayes risk on new rows; {bar:g} are allowed."
    if mean["excess"] > bar:
        assert mean["bias"] > 1e-9, (
            f"{told} In the middle of the rows all classes have the same logit, however rare they are. There is no bias."
        )
        assert mean["shift"] < 0.03, (
            f"{told} The training rows get probabilities that do not add up to the classes' shares (off by up to "
            f"{mean['shift']:.2f}). Decay on the bias does that: it makes rare classes more probable than they are."
        )
        assert mean["train"] > -0.06, (
            f"{told} The risk on the training rows lies {-mean['train']:.3f} *below* the Bayes risk: nothing true can do "
            "that. Did you choose by the training rows? Or is the list too short, with the choice at its edge?"
        )
        raise AssertionError(
            f"{told} The risk on the training rows: {mean['train']:+.3f} against the Bayes risk."
        )
    return mean["excess"]


def check_01_6(fit):
    case, X_new, _, _ = clouds(7, 0.6)
    same_01_6(fit, case, X_new[:300])
    apart = judge_01_6(fit, 0.6, 0.1, range(8, 12))
    near = judge_01_6(fit, 0.1, 0.06, range(8, 12))
    print(f"01.6 passed the visible cases: {apart:.3f} and {near:.3f} nats above the Bayes risk.")


check_01_6(fit)
### BEGIN HIDDEN TESTS


def hidden_01_6(fit):
    judge_01_6(fit, 0.6, 0.1, range(20, 24))
    judge_01_6(fit, 0.1, 0.06, range(20, 24))
    (X, y, weight, X_dev, y_dev, K), X_new, y_new, _ = clouds(30, 0.6)
    constant = X.copy(), X_dev.copy()
    for part in constant:
        part[:, 3] = 7.0
    with checking.means(
        np.linalg.LinAlgError, "A feature is constant: its standard deviation is 0, and you divide by it."
    ):
        model = fitted(fit, (constant[0], y, weight, constant[1], y_dev, K))
    new = np.where(np.arange(16) == 3, 7.0, X_new)
    assert mean_loss(softmax_of(model, new), y_new) < 1.0, (
        "A constant feature: the model is lost on new rows."
    )
    keep, keep_dev = y < 2, y_dev < 2
    case = X[keep], y[keep], weight[keep], X_dev[keep_dev], y_dev[keep_dev], 4
    P = softmax_of(fitted(fit, case), X_new[y_new < 2])
    assert mean_loss(P, y_new[y_new < 2]) < 1.0, (
        "Two of four classes have no row, and the model is lost on the others."
    )
    wide = clouds(31, 0.6, d=120, n=60)
    got = mean_loss(softmax_of(fitted(fit, wide[0]), wide[1]), wide[2])
    assert got < 1.0, (
        f"More features than rows: the risk on new rows is {got:.2f}; below 1 nat was asked for."
    )


hidden_01_6(fit)
### END HIDDEN TESTS

# %% [markdown]
# ## 01.7 Project: which brake, and for how many rows?
#
# > ●●●●● · 150 minutes · practice
#
# Section 12 left it open whether decay or an early stop lowers the risk on new rows, and for which $n$: six pairs were
# tried, the test sentences were the same for all seeds, and many verdicts were read without a correction. Do it better,
# with data of your own choice: synthetic clouds, the sentences of the lesson, your field's rows. Write the claim first:
# *for each of these sizes the test risk with `remedy` is lower than with `baseline`, by more than `threshold` nats.* An
# arm is a way to choose among options: decays, numbers of steps, smoothings, priors. For every size and seed draw
# new training, dev and test rows, fit each option, and let the dev risk choose. `study()` returns a dict:
#
# | key | what |
# |:--|:--|
# | `claim` | a sentence that names `remedy` and `baseline`, at least $40$ characters |
# | `remedy`, `baseline` | the names of the two arms |
# | `threshold`, `reason` | a number of nats, 0 or more; why just this one (at least $40$ characters) |
# | `sizes` | at least two different numbers of training rows |
# | `seeds` | at least eight different whole numbers |
# | `options` | arm → the names of its options in the order of their strength; at least four, equally many for both arms |
# | `risks` | arm → lists by size, seed, option: (training risk, dev risk, test risk), in nats, without a penalty |
# | `chosen` | arm → lists by size, seed: the place (from 0) of the option with the smallest dev risk, the first in a tie |
# | `edge` | arm → how many of these choices (all sizes and seeds) are the first or the last option |
# | `gain`, `low`, `high` | for each size: test risk of baseline minus that of remedy, mean over seeds; its t interval |
# | `verdicts` | for each size `"supported"` (the interval lies above the threshold), `"refuted"` (below), `"undecided"` |
# | `verdict` | of the claim: `"supported"` if all sizes are, `"refuted"` if at least one size is, else `"undecided"` |
#
# - *Pairs.* Both arms see the same rows of a seed, so the interval is that of the differences. The unit is the seed.
# - *Several sizes.* With $m$ sizes each interval has the level $1 - 0.05/m$, so that all of them together are wrong at
#   most once in twenty times (Bonferroni). `intervals.t_interval(values, level)` computes it.
# - *The edge.* If more than half of an arm's choices lie on the edge of its options, the arm was not given its chance: the
#   checker refuses. Add options at that end (to both arms: who may try more wins by that alone).
#
# The checker recomputes all numbers. A person reads the rest with this rubric (0 to 2 points a row; 8 of 12 pass):
#
# | | 0 | 1 | 2 |
# |:--|:--|:--|:--|
# | claim | cannot fail | can fail | names data, sizes, measure, threshold and direction before the run |
# | threshold | a habit | a reason | compared with what it costs to tune the remedy |
# | options | two guesses | a grid | a grid whose ends are worse than its middle, in both arms |
# | rows | one test set for all seeds | new rows for each seed | and the dev set has a size that one could afford |
# | the minimum | not mentioned | says for how many steps | says where the risk has a minimiser, and how near the fits are |
# | ending | only success is described | all three verdicts | also what another size or another cloud might change |


# %%
def two_clouds(n, seed, d=10, apart=0.5):
    """A start: n rows of two clouds that overlap, X (n, d) and y (n,) of 0 and 1. Rows of different seeds are independent."""
    rng = np.random.default_rng([n, seed])
    y = rng.integers(2, size=n)
    return rng.normal(size=(n, d)) + apart * np.where(y[:, None] == 1, 1, -1) / np.sqrt(
        np.arange(1, d + 1)
    ), y


for n in (20, 2000):  # one direction, (1, 1/√2, …), is enough to know: what could be learned from n rows?
    X_two, y_two = two_clouds(n, 0)
    w_two = X_two.T @ (2 * y_two - 1) / n
    print(f"{n} rows: the difference of the means starts {np.round(w_two[:3], 2)}")


# %% nbgrader={"grade_id": "answer_01_7", "solution": true}
def study():
    """Return the dict of the table."""
    ### BEGIN SOLUTION
    sizes, seeds = [20, 80], list(range(100, 110))
    decays, stops = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0], [1, 3, 10, 30, 100, 300]

    def risk(w, X, y):
        return float(np.logaddexp(0, (1 - 2 * y) * (X @ w[:-1] + w[-1])).mean())

    def path(X, y, decay, looks, length):
        A, w, found = np.c_[X, np.ones(len(y))], np.zeros(X.shape[1] + 1), {}
        pull = np.r_[np.ones(X.shape[1]), 0] * decay
        eta = length / (np.linalg.norm(A, 2) ** 2 / (4 * len(y)) + decay)
        for step in range(1, max(looks) + 1):
            w = w - eta * (A.T @ (1 / (1 + np.exp(-A @ w)) - y) / len(y) + pull * w)
            if step in looks:
                found[step] = w
        return [found[step] for step in looks]

    risks = {"decay": [], "early stop": []}
    for n in sizes:
        rows = {"decay": [], "early stop": []}
        for seed in seeds:
            parts = [two_clouds(n, seed), two_clouds(200, 1000 * n + seed), two_clouds(1000, 1000 * n + seed)]
            fits = {
                "decay": [path(*parts[0], decay, [100], 1.0)[0] for decay in decays],
                "early stop": path(*parts[0], 0.0, stops, 0.2),
            }
            for arm, weights in fits.items():
                rows[arm].append([[risk(w, X, y) for X, y in parts] for w in weights])
        for arm, found in rows.items():
            risks[arm].append(found)
    tables = {arm: np.array(found) for arm, found in risks.items()}  # size, seed, option, part
    chosen = {arm: table[..., 1].argmin(2) for arm, table in tables.items()}
    tests = {
        arm: np.take_along_axis(t[..., 2], chosen[arm][..., None], 2)[..., 0] for arm, t in tables.items()
    }
    gains = tests["early stop"] - tests["decay"]
    threshold = 0.01
    found = [intervals.t_interval(row, 1 - 0.05 / len(sizes)) for row in gains]
    verdicts = [
        "supported" if one.low > threshold else "refuted" if one.high < threshold else "undecided"
        for one in found
    ]
    whole = (
        "supported" if set(verdicts) == {"supported"} else "refuted" if "refuted" in verdicts else "undecided"
    )
    return {
        "claim": "Logistic regression on two overlapping clouds in ten dimensions, n of 20 and 80: with decay (100 steps, "
        "chosen among six) the test risk is lower than with early stop (no decay, six numbers of steps), by more than 0.01.",
        "remedy": "decay",
        "baseline": "early stop",
        "threshold": threshold,
        "reason": "Six decays cost six fits, six stops cost one. A hundredth of a nat is a fiftieth of what a coin loses.",
        "sizes": sizes,
        "seeds": seeds,
        "options": {"decay": [f"{x:g}" for x in decays], "early stop": [f"{k} steps" for k in stops]},
        "risks": risks,
        "chosen": {arm: places.tolist() for arm, places in chosen.items()},
        "edge": {arm: int(((places == 0) | (places == 5)).sum()) for arm, places in chosen.items()},
        "gain": [one.mean for one in found],
        "low": [one.low for one in found],
        "high": [one.high for one in found],
        "verdicts": verdicts,
        "verdict": whole,
    }
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_01_7", "locked": true}
STUDY = (
    "claim remedy baseline threshold reason sizes seeds options risks chosen edge gain low high verdicts verdict"
).split()


def check_01_7(study):
    mine = checking.handed_in(study, STUDY, limit=120.0)
    remedy, baseline, sizes, seeds = (mine[key] for key in ("remedy", "baseline", "sizes", "seeds"))
    arms = [remedy, baseline]
    assert all(isinstance(arm, str) and arm for arm in arms) and remedy != baseline, (
        "remedy, baseline: two names."
    )
    for key in ("claim", "reason"):
        assert isinstance(mine[key], str) and len(mine[key].strip()) >= 40, f"{key}: at least 40 characters."
    for arm in arms:
        assert arm in mine["claim"], f"claim: {arm!r} does not occur. A claim names what it compares."
    bar = mine["threshold"]
    assert isinstance(bar, int | float) and 0 <= bar < math.inf, "threshold: a number of nats, 0 or more."
    assert len(set(sizes)) == len(sizes) >= 2, "sizes: at least two, no two alike."
    assert len(set(seeds)) == len(seeds) >= 8, (
        "seeds: at least eight, no two alike. The same run again is no evidence."
    )
    for key in ("options", "risks", "chosen", "edge"):
        assert isinstance(mine[key], dict) and set(mine[key]) == set(arms), (
            f"{key}: a dict with the two arms as its keys."
        )
    counts = [len(set(mine["options"][arm])) for arm in arms]
    assert min(counts) >= 4, "options: at least four different ones for each arm."
    assert counts[0] == counts[1], (
        f"options: {counts[0]} and {counts[1]}. Who may try more wins by that alone."
    )
    K, tables = counts[0], {}
    for arm in arms:
        table = np.array(mine["risks"][arm], dtype=np.float64)
        shape = len(sizes), len(seeds), K, 3
        assert table.shape == shape, (
            f"risks[{arm!r}]: shape {shape} (size, seed, option, part), not {table.shape}."
        )
        assert (table >= 0).all() and np.isfinite(table).all(), (
            f"risks[{arm!r}]: a risk is a finite number, 0 or more."
        )
        assert (table.std(1).max((0, 1)) > 1e-9).all(), (
            f"risks[{arm!r}]: all seeds have the very same training, dev or test risk. Rows are not drawn anew."
        )
        tables[arm] = table
    train, dev, test = ({arm: table[..., part] for arm, table in tables.items()} for part in range(3))
    return judge_study(mine, train, dev, test, K)


def judge_study(mine, train, dev, test, K):
    remedy, baseline, bar = mine["remedy"], mine["baseline"], mine["threshold"]
    m, seeds = len(mine["sizes"]), len(mine["seeds"])
    want = {arm: rows.argmin(2).tolist() for arm, rows in dev.items()}
    wrong = {
        "chosen: by the test risk. Then the test rows have chosen, and can no longer judge.": {
            arm: rows.argmin(2).tolist() for arm, rows in test.items()
        },
        "chosen: by the training risk. It falls with each step, and says nothing of new rows.": {
            arm: rows.argmin(2).tolist() for arm, rows in train.items()
        },
        "chosen: one option for all seeds. Each seed has dev rows of its own: let them choose.": {
            arm: [[int(row.mean(0).argmin())] * seeds for row in rows] for arm, rows in dev.items()
        },
    }
    checking.equal(mine["chosen"], want, "chosen", wrong)
    edge = {arm: sum(place in (0, K - 1) for row in rows for place in row) for arm, rows in want.items()}
    checking.equal(mine["edge"], edge, "edge")
    for arm, count in edge.items():
        assert count <= m * seeds / 2, (
            f"edge: {count} of {m * seeds} choices of {arm!r} are the first or the last option. The best one may lie "
            "outside; add options there, to both arms equally many."
        )
    picked = {arm: np.take_along_axis(test[arm], np.array(want[arm])[..., None], 2)[..., 0] for arm in test}
    best = {arm: rows.min(2) for arm, rows in test.items()}
    gains = picked[baseline] - picked[remedy]
    wrong = {
        "gain: remedy minus baseline. A smaller risk is better: baseline minus remedy.": (
            -gains.mean(1)
        ).tolist(),
        "gain: the smallest test risk of each arm. Nobody knows it before the test; take the option that dev chose.": (
            (best[baseline] - best[remedy]).mean(1).tolist()
        ),
        "gain: these are dev risks. They chose, so they look better than they are.": (
            (dev[baseline].min(2) - dev[remedy].min(2)).mean(1).tolist()
        ),
    }
    checking.equal(list(mine["gain"]), gains.mean(1).tolist(), "gain", wrong, tol=1e-5)
    right = [intervals.t_interval(row, 1 - 0.05 / m) for row in gains]
    each = [intervals.t_interval(row) for row in gains]
    error = gains.std(1, ddof=1) / math.sqrt(seeds)
    loose = np.sqrt(sum(rows.var(1, ddof=1) for rows in picked.values()) / seeds)
    factor = (right[0].high - right[0].mean) / error[0] if error[0] else 0.0
    wrong = {
        f"low: that is the level 0.95 for each of {m} sizes. Together they are wrong more often: 1 − 0.05 / {m}.": [
            one.low for one in each
        ],
        "low: that is one standard error below the mean. A t interval is wider.": (
            gains.mean(1) - error
        ).tolist(),
        "low: the two arms are treated as if they had other rows. They are pairs: take the differences first.": (
            (gains.mean(1) - factor * loose).tolist()
        ),
    }
    room = {"tol": 1e-4}
    checking.equal(list(mine["low"]), [one.low for one in right], "low", wrong, **room)
    checking.equal(list(mine["high"]), [one.high for one in right], "high", **room)
    verdicts = [
        "supported" if one.low > bar else "refuted" if one.high < bar else "undecided" for one in right
    ]
    against_zero = [
        "supported" if one.low > 0 else "refuted" if one.high < 0 else "undecided" for one in right
    ]
    wrong = {"verdicts: you compare with zero. The claim says: by more than the threshold.": against_zero}
    checking.equal(list(mine["verdicts"]), verdicts, "verdicts", wrong)
    whole = (
        "supported" if set(verdicts) == {"supported"} else "refuted" if "refuted" in verdicts else "undecided"
    )
    assert mine["verdict"] == whole, (
        f"verdict: the sizes say {', '.join(verdicts)}. A claim about each of them stands only if all stand, and falls with "
        f"one: {whole}."
    )
    print(f"01.7 passed: {whole} ({', '.join(verdicts)}). Now a person reads the study with the rubric.")


check_01_7(study)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Write one function that gives three risks for (size, seed, arm, option). All else is a table of its values and a few means.
# One long descent gives all early stops: keep the weights at several steps.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `np.take_along_axis(test, chosen[..., None], 2)` picks the chosen option for each size and seed. Too many choices on
# the edge? The grid must reach from "no brake at all" to "hardly learns anything".
#
# </details>
#
# {{solution}}
