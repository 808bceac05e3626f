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
# that you do not see here, so test more than the checker does. Nothing on this page needs a model, a data
# set or a network.
#
# {{overview}}

# %%
import math

import numpy as np
import torch

from instructlab_utils import checking

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
# > ●●●●○ · 60 minutes · graded
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
# - The dev rows are a plain sample. They are there to choose by: which decay, how many steps.
# - Features have units. In another unit ($x_j \to a x_j$, $a > 0$) or with another zero ($x_j \to x_j + c$) the model must
#   give the same probabilities. A feature may be constant. A class may have no training row, and then has no say in
#   the result, but `W` and `b` still have $K$ finite rows.
#
# "The same" means: no probability of a new row differs by more than $0.02$, also when the same call is made twice. The
# **bar**: over four worlds of each kind the mean of (risk on new rows minus Bayes risk) is at most $0.1$ nats where the
# clouds are apart, and at most $0.06$ where they nearly coincide. The cell prints what guessing by the shares of the
# classes costs. A fit may take five seconds of processor time.
#
# Weight decay belongs to $W$. Think about what it would do to $b$ before you apply it there.


# %%
def clouds(seed, spread, K=3, d=16, n=90, n_dev=150, n_new=3000):
    """A world: arguments for fit, new rows with labels, their Bayes risk. Each class is ``odds`` times rarer than the last."""
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
print(f"training rows {world_demo[0].shape}, Bayes risk {floor_demo:.3f}; guessing by shares {guess_demo:.3f}")


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
        for step in range(1, 401):
            R = (probabilities(A @ W.T + b) - Y) * w[:, None]
            W, b = W - eta * (R.T @ A + decay * W), b - eta * R.sum(0)
            if step in (30, 100, 400):
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
                "bias": min(np.ptp(model[0] @ m + model[1]) for m in (X.mean(0), weight @ X / weight.sum(), 0 * X[0])),
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
            "that. By which rows did you choose?"
        )
        raise AssertionError(f"{told} The risk on the training rows: {mean['train']:+.3f} against the Bayes risk.")
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
    with checking.means(np.linalg.LinAlgError, "A feature is constant: its standard deviation is 0, and you divide by it."):
        model = fitted(fit, (constant[0], y, weight, constant[1], y_dev, K))
    new = np.where(np.arange(16) == 3, 7.0, X_new)
    assert mean_loss(softmax_of(model, new), y_new) < 0.6, "A constant feature: the model is lost on new rows."
    keep, keep_dev = y < 2, y_dev < 2
    case = X[keep], y[keep], weight[keep], X_dev[keep_dev], y_dev[keep_dev], 4
    says = "Two of four classes have no row. How many there are, K says: not y."
    with checking.means(IndexError, says), checking.means(ValueError, says):
        P = softmax_of(fitted(fit, case), X_new[y_new < 2])
    assert mean_loss(P, y_new[y_new < 2]) < 0.5, "Two of four classes have no row, and the model is lost on the others."
    wide = clouds(31, 0.6, d=120, n=60)
    got = mean_loss(softmax_of(fitted(fit, wide[0]), wide[1]), wide[2])
    assert got < 1.0, f"More features than rows: the risk on new rows is {got:.2f}, above that of knowing nothing."


hidden_01_6(fit)
### END HIDDEN TESTS
