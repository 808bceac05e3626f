# ---
# jupyter:
#   instructlab:
#     id: "02"
#     title: Optimisers and schedules
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 02: optimisers and schedules
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

import torch

F64 = torch.float64

# %% [markdown]
# ## 02.1 How long is a step?
#
# > ●●○○○ · 8 minutes · practice · prediction
#
# No code: think, then write down. All optimisers have their usual settings ($\beta_1 = 0.9$,
# $\beta_2 = 0.999$, $\epsilon = 10^{-8}$).
#
# A gradient of one is replaced by a gradient of a thousand. By which factor does the *first* step grow
#
# - `sgd`: with SGD,
# - `adam`: with Adam?
#
# Two more numbers, in units of the rate:
#
# - `uncorrected`: the first step of an Adam that forgets the bias correction, when the gradient is one;
# - `momentum`: a late step of momentum with $\mu = 0.95$, when the gradient has always been one.
#
# A word occurs in the first batch and in no later one, so its vector has the gradient zero from the second
# update on. There is no weight decay. What does the vector do in the second update, `"stays"` or `"moves"`,
#
# - `word_sgd`: with SGD,
# - `word_adam`: with Adam?


# %% nbgrader={"grade_id": "answer_02_1", "solution": true}
def prediction():
    """Return a dict: sgd, adam, uncorrected, momentum (numbers), word_sgd, word_adam ("stays" or "moves")."""
    ### BEGIN SOLUTION
    return {
        "sgd": 1000,
        "adam": 1,
        "uncorrected": (1 - 0.9) / math.sqrt(1 - 0.999),
        "momentum": 1 / (1 - 0.95),
        "word_sgd": "stays",
        "word_adam": "moves",
    }
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_02_1", "locked": true}
def adams_steps(gradients):
    """Lengths of torch's Adam steps for a list of gradients, in units of the rate."""
    weight, lengths = torch.zeros(1, dtype=F64, requires_grad=True), []
    optimizer = torch.optim.Adam([weight], lr=1.0)
    for g in gradients:
        before = weight.item()
        weight.grad = torch.tensor([g], dtype=F64)
        optimizer.step()
        lengths.append(abs(weight.item() - before))
    return lengths


def check_02_1(prediction):
    mine = prediction()
    assert mine is not None, "The function returned None. Return your dict."
    numbers, words = ("sgd", "adam", "uncorrected", "momentum"), ("word_sgd", "word_adam")
    assert set(mine) == {*numbers, *words}, f"Keys expected: {', '.join((*numbers, *words))}."
    assert all(isinstance(mine[key], int | float) for key in numbers), f"{', '.join(numbers)}: numbers."
    assert {mine[key] for key in words} <= {"stays", "moves"}, f"{' and '.join(words)}: stays or moves."

    def near(key, value):
        return math.isclose(mine[key], value, rel_tol=0.02)

    assert near("sgd", 1000), "sgd: its step is the rate times the gradient."
    factor = adams_steps([1000.0])[0] / adams_steps([1.0])[0]
    assert not near("adam", 1000), (
        "adam: at the first update m_hat is g and the root of v_hat is |g|. What is their quotient?"
    )
    assert near("adam", factor), (
        f"adam: the first step has the size of the rate for both. Factor {factor:.2f}."
    )
    assert not near("uncorrected", 0.1), (
        "uncorrected: m is a tenth of the gradient, right. But v is too small as well, and its root stands "
        "in the denominator."
    )
    assert not near("uncorrected", 0.1 / 0.001), "uncorrected: Adam divides by the root of v, not by v."
    assert near("uncorrected", 0.1 / math.sqrt(0.001)), "uncorrected: (1 - beta1) / sqrt(1 - beta2)."
    assert not near("momentum", 1.95), (
        "momentum: this is the second step. The sum of the past goes on growing."
    )
    assert near("momentum", 20), "momentum: 1 + mu + mu^2 + ... = 1 / (1 - mu)."
    assert mine["word_sgd"] == "stays", "word_sgd: no gradient, no step."
    second = adams_steps([1.0, 0.0])[1]
    assert mine["word_adam"] == "moves", (
        f"word_adam: m remembers the first batch, so the vector moves on, by {second:.2f} of the rate."
    )
    print(f"02.1 passed. In its second update the absent word still moves by {second:.2f} of the rate.")


check_02_1(prediction)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Write $m_1$, $v_1$, $\hat m_1$ and $\hat v_1$ for a gradient $g$ on paper.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# For `word_adam`: what is $m_2$ when $g_2 = 0$?
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 02.2 One momentum, two programs
#
# > ●●○○○ · 12 minutes · practice
#
# Two forms of momentum are in use:
#
# - `"torch"`: $v \leftarrow \mu v + g$, then $\theta \leftarrow \theta - \eta_t v$;
# - `"sutskever"`: $v \leftarrow \mu v - \eta_t g$, then $\theta \leftarrow \theta + v$.
#
# Walk a path with either. The velocity starts at zero, and $g$ is the gradient at the *current* $\theta$.


# %% nbgrader={"grade_id": "answer_02_2", "solution": true}
def momentum_path(gradient, theta, rates, mu, form):
    """Return the list of positions after each update, len(rates) floats.

    gradient is a function of theta (float), rates has one rate per update, form is "torch" or "sutskever".
    """
    ### BEGIN SOLUTION
    v, positions = 0.0, []
    for eta in rates:
        g = gradient(theta)
        if form == "torch":
            v = mu * v + g
            theta = theta - eta * v
        else:
            v = mu * v - eta * g
            theta = theta + v
        positions.append(theta)
    return positions
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_02_2", "locked": true}
def torchs_path(gradient, theta, rates, mu):
    weight, positions = torch.tensor([theta], dtype=F64, requires_grad=True), []
    optimizer = torch.optim.SGD([weight], lr=1.0, momentum=mu)
    for eta in rates:
        optimizer.param_groups[0]["lr"] = eta
        weight.grad = torch.tensor([gradient(weight.item())], dtype=F64)
        optimizer.step()
        positions.append(weight.item())
    return positions


def check_02_2(momentum_path):
    def gradient(theta):
        return 2 * theta - 1

    def same(a, b):
        return len(a) == len(b) and all(math.isclose(x, y, abs_tol=1e-9) for x, y in zip(a, b, strict=True))

    rates, mu = [0.1, 0.1, 0.1, 0.1, 0.02, 0.02], 0.8
    mine = momentum_path(gradient, 3.0, rates, mu, "torch")
    assert mine is not None, "The function returned None. Did you forget return?"
    assert len(mine) == len(rates), f"One position per update: {len(rates)} expected, not {len(mine)}."
    want = torchs_path(gradient, 3.0, rates, mu)
    assert not math.isclose(mine[0], 3.0 - 0.1 * (1 - mu) * gradient(3.0), abs_tol=1e-9), (
        "torch: you weight the gradient with 1 - mu, as Adam does. Here the velocity is a sum: mu v + g."
    )
    assert not math.isclose(mine[0], 3.0, abs_tol=1e-9), (
        "torch: the first update did not move. Renew the velocity before you use it."
    )
    assert not math.isclose(mine[1], 3.0 - 0.1 * (2 + mu) * gradient(3.0), abs_tol=1e-9), (
        "torch: the second update uses the gradient of the start. Ask for it at the current theta."
    )
    assert same(mine, want), f"torch: the positions are {[round(x, 3) for x in want]}."
    steady = [0.1] * 6
    assert same(
        momentum_path(gradient, 3.0, steady, mu, "torch"),
        momentum_path(gradient, 3.0, steady, mu, "sutskever"),
    ), "With a constant rate both forms must walk the same path."
    other = momentum_path(gradient, 3.0, rates, mu, "sutskever")
    assert not same(other, want), (
        "sutskever: the same path as torch's, although the rate changes. In this form the rate goes into the "
        "velocity, and old gradients keep their old rate."
    )
    coasting = momentum_path(lambda theta: 1.0, 0.0, [1.0, 0.0, 0.0], 0.5, "sutskever")
    assert same(coasting, [-1.0, -1.5, -1.75]), (
        "sutskever: when the rate drops to zero, the velocity coasts on: -1, -1.5, -1.75."
    )
    print(
        f"02.2 passed. After the rate has dropped: torch's form {want[-1]:.3f}, Sutskever's {other[-1]:.3f}."
    )


check_02_2(momentum_path)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Three lines in the loop: the gradient, the velocity, the position. Their order matters.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Check by hand: gradient one, rates 1, 0, 0 and $\mu = 0.5$. Which form moves after the first update?
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 02.3 The AdamW that is not one
#
# > ●●●○○ · 15 minutes · practice · bug hunt
#
# This function is called AdamW, runs, and trains. Find three bugs. (One more line looks odd, and is right.)


# %%
def broken_adamw(theta, g, state, eta, lam, beta1=0.9, beta2=0.999, eps=1e-8):
    """The new weights; theta and g are tensors, state is a dict that starts empty."""
    t = state["t"] = state.get("t", 0) + 1
    g = g + lam * theta
    m = state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * g
    v = state["v"] = beta2 * state.get("v", 0.0) + (1 - beta2) * g * g
    m_hat = m / (1 - beta1**t)
    return theta - eta * m_hat / torch.sqrt(v + eps)


theta_demo, state_demo = torch.tensor([1.0, 1.0], dtype=F64), {}
theta_demo = broken_adamw(theta_demo, torch.tensor([1.0, 1e-3], dtype=F64), state_demo, eta=0.01, lam=0.1)
print("both weights should move by 0.01 + 0.01 * 0.1:", 1 - theta_demo)

# %% [markdown]
# Write it as in Loshchilov and Hutter, with torch's convention for $\lambda$. The function returns the new
# weights and leaves `theta` as it was.


# %% nbgrader={"grade_id": "answer_02_3", "solution": true}
def adamw(theta, g, state, eta, lam, beta1=0.9, beta2=0.999, eps=1e-8):
    """Return the new weights; state is a dict that starts empty and remembers t, m and v."""
    ### BEGIN SOLUTION
    t = state["t"] = state.get("t", 0) + 1
    m = state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * g
    v = state["v"] = beta2 * state.get("v", 0.0) + (1 - beta2) * g * g
    m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
    return theta - eta * lam * theta - eta * m_hat / (v_hat.sqrt() + eps)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_02_3", "locked": true}
def check_02_3(adamw):
    start = torch.tensor([2.0, -3.0, 0.5], dtype=F64)
    g = torch.tensor([4.0, 1e-4, -0.2], dtype=F64)
    theta = start.clone()
    first = adamw(theta, g, {}, eta=0.01, lam=0.3)
    assert first is not None, "The function returned None. Return the new weights."
    assert torch.equal(theta, start), "theta itself was changed. Return new weights instead."
    moved, decay = start - first, 0.01 * 0.3 * start
    step, full = 0.01 * g / (g.abs() + 1e-8), g + 0.3 * start

    def is_step(candidate):
        return torch.allclose(moved, candidate, rtol=1e-2, atol=1e-7)

    assert not is_step(0.01 * full.sign()), (
        "The decay still goes through the gradient: lam * theta is divided by the root of v, and only its "
        "sign is left. Take it out of g."
    )
    assert not is_step(step * 0.1 / math.sqrt(0.001) + decay), (
        "No bias correction at all: the first step is more than three times too long."
    )
    assert not is_step(step / math.sqrt(0.001) + decay), (
        "m is corrected and v is not: the first step is some thirty times too long."
    )
    assert not is_step(step + 0.3 * start), (
        "The decay is not multiplied by the rate: it takes lam * theta in every update."
    )
    assert not is_step(step), "There is no decay at all."
    assert not is_step(0.01 * g / (g * g + 1e-8).sqrt() + decay), (
        "epsilon stands inside the root. A gradient of 1e-4 then counts as small, since its square is 1e-8. "
        "Add epsilon after the root."
    )
    assert is_step(step + decay), (
        "The first update is off. Check three places: what goes into g, what happens to v before it is used, "
        "and where epsilon stands."
    )
    weight, mine, state = start.clone().requires_grad_(), start.clone(), {}
    optimizer = torch.optim.AdamW([weight], lr=0.01, weight_decay=0.3)
    for update in range(1, 21):
        gradient = g * math.cos(update) + 0.1 * mine
        weight.grad = gradient.clone()
        optimizer.step()
        mine = adamw(mine, gradient, state, eta=0.01, lam=0.3)
        assert torch.allclose(mine, weight.detach(), atol=1e-10), (
            f"The first {update - 1} updates are right, the next is not. Does the state keep t, m and v, with m and "
            "v as they are *before* the correction?"
        )
    print(f"02.3 passed. Largest distance to torch after 20 updates: {(mine - weight).abs().max():.0e}")


check_02_3(adamw)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Three places: what goes into $g$, what happens to $v$ before it is used, where $\epsilon$ stands. (`g * g` is
# right: it is `g**2`.)
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The demo weights have gradients $1$ and $10^{-3}$. After one right update both have moved by the rate,
# plus the rate times $\lambda$.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 02.4 A schedule that wastes no update
#
# > ●●○○○ · 15 minutes · graded
#
# The library's warm-up gives the very first update the factor zero: it computes a gradient and throws it
# away. And its cosine ends at zero, so that the last updates do nothing either. Write one that avoids both.
# Updates are counted from 0 to `total - 1`.
#
# - *Warm-up*: on a line. The first of `warmup` updates has the factor `1 / warmup`, the last has 1.
# - *Then* half a cosine, from just below 1 down to `floor`, which the update `total - 1` reaches exactly. With
#   $p$ the share of these updates that are done, this one included:
#   $\text{floor} + (1 - \text{floor}) \cdot \tfrac12 (1 + \cos \pi p)$.
# - *After* `total - 1`: `floor`.
# - `warmup` may be 0, and it may be `total`. More than `total`, or a floor outside of 0 to 1, is a `ValueError`.


# %% nbgrader={"grade_id": "answer_02_4", "solution": true}
def factor(step, total, warmup, floor):
    """Return the factor of the rate (float) for update `step`, counted from 0."""
    ### BEGIN SOLUTION
    if warmup > total or not 0 <= floor <= 1:
        raise ValueError(
            f"warmup {warmup} of {total} updates, floor {floor}: choose warmup <= total, floor in 0..1"
        )
    if step >= total:
        return floor
    if step < warmup:
        return (step + 1) / warmup
    p = (step - warmup + 1) / (total - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * p))
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_02_4", "grade": true, "points": 3, "locked": true}
def check_02_4(factor):
    total, warmup, floor = 12, 4, 0.2
    mine = [factor(step, total, warmup, floor) for step in range(total)]
    assert None not in mine, "The function returned None for some update. Return a float on every path."
    assert mine[0] != 0, (
        "The first update has the factor zero, and its gradient is wasted. It should be 1 / warmup."
    )
    want = [0.25, 0.5, 0.75, 1.0]
    assert mine[:4] == want, f"Warm-up: {want} expected, not {[round(x, 3) for x in mine[:4]]}."
    assert not math.isclose(mine[4], 1.0), (
        "The update after the warm-up repeats the factor 1. Its share p counts the update itself: it is not 0."
    )
    assert mine[-1] < 0.5, (
        "The cosine comes up again at the end: you use a whole period. Half of one leads from 1 to -1."
    )
    assert not math.isclose(mine[-1], 0.0, abs_tol=1e-9), (
        "The last update has the factor 0. It should have floor."
    )
    straight = [1 - (1 - floor) * p / 8 for p in range(1, 9)]
    assert not all(math.isclose(a, b) for a, b in zip(mine[4:], straight, strict=True)), (
        "This is a line, not a cosine."
    )
    cut = [max(floor, 0.5 * (1 + math.cos(math.pi * p / 8))) for p in range(1, 9)]
    assert not all(math.isclose(a, b) for a, b in zip(mine[4:], cut, strict=True)), (
        "You cut the cosine off at floor: the last updates all have the same factor. Squeeze it between 1 and floor."
    )
    curve = [floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * p / 8)) for p in range(1, 9)]
    assert all(math.isclose(a, b, abs_tol=1e-9) for a, b in zip(mine[4:], curve, strict=True)), (
        f"After the warm-up: {[round(x, 3) for x in curve]} expected, not {[round(x, 3) for x in mine[4:]]}."
    )
    print("02.4 passed the visible cases:", " ".join(f"{x:.2f}" for x in mine))


check_02_4(factor)
### BEGIN HIDDEN TESTS


def hidden_02_4(factor):
    for step in (12, 13, 20, 50):
        got = factor(step, 12, 4, 0.2)
        assert math.isclose(got, 0.2), (
            f"Update {step} of 12: floor expected, not {got:.3f}. Some run goes on longer."
        )
    try:
        none, whole = factor(0, 5, 0, 0.0), factor(3, 4, 4, 0.1)
    except ZeroDivisionError:
        raise AssertionError("warmup 0, or warmup equal to total, divides by zero.") from None
    assert math.isclose(none, 0.5 * (1 + math.cos(math.pi / 5))), "Wrong without warm-up."
    assert whole == 1.0 and factor(4, 4, 4, 0.1) == 0.1, "Wrong when the warm-up is the whole run."
    assert factor(2, 5, 1, 1.0) == 1.0, "With floor 1 the rate stays constant after the warm-up."
    for warmup, floor in ((6, 0.1), (2, -0.1), (2, 1.5)):
        try:
            factor(0, 5, warmup, floor)
        except ValueError:
            continue
        raise AssertionError(f"total 5, warmup {warmup}, floor {floor} went through. Raise ValueError.")


hidden_02_4(factor)
### END HIDDEN TESTS

# %% [markdown]
# ## 02.5 Adafactor's memory
#
# > ●●●○○ · 20 minutes · graded
#
# For a matrix of $n \times m$ weights, Adafactor keeps $n + m$ numbers instead of $nm$. Write its update from
# the running row sums $R$ and column sums $C$ of the squared gradients:
#
# $$ \hat\beta_{2t} = 1 - t^{-0.8}, \qquad
# R_t = \hat\beta_{2t} R_{t-1} + (1 - \hat\beta_{2t}) \, \textstyle\sum_j (G_{ij}^2 + \epsilon_1), \qquad
# C_t \text{ likewise over } i, $$
#
# $$ \hat V_{ij} = \frac{R_i C_j}{\sum_k R_k}, \qquad U = \frac{G}{\sqrt{\hat V}}, \qquad
# \hat U = \frac{U}{\max(1, \operatorname{RMS}(U) / d)} . $$
#
# $\epsilon_1 = 10^{-30}$. The root mean square (RMS) is taken over all entries of $U$. Leave `R`, `C` and `G` as they are.


# %% nbgrader={"grade_id": "answer_02_5", "solution": true}
def factored(R, C, G, t, d=1.0):
    """Return the new R (n,), the new C (m,) and the clipped update (n, m); t counts from 1."""
    ### BEGIN SOLUTION
    beta2 = 1 - t**-0.8
    square = G**2 + 1e-30
    R = beta2 * R + (1 - beta2) * square.sum(1)
    C = beta2 * C + (1 - beta2) * square.sum(0)
    U = G / (torch.outer(R, C) / R.sum()).sqrt()
    return R, C, U / max(1.0, U.square().mean().sqrt().item() / d)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_02_5", "grade": true, "points": 4, "locked": true}
def library_updates(gradients, d=1.0):
    """What transformers' Adafactor does to a zero matrix with the rate 1: the list of its updates."""
    from transformers.optimization import Adafactor

    weight, updates = torch.zeros_like(gradients[0], requires_grad=True), []
    optimizer = Adafactor([weight], lr=1.0, clip_threshold=d, scale_parameter=False, relative_step=False)
    for G in gradients:
        before = weight.detach().clone()
        weight.grad = G.clone()
        optimizer.step()
        updates.append(before - weight.detach())
    return updates


def check_02_5(factored):
    generator = torch.Generator().manual_seed(0)
    gradients = [scale * torch.randn(4, 3, generator=generator, dtype=F64) for scale in (1.0, 3.0, 0.1)]
    R, C, G = torch.zeros(4, dtype=F64), torch.zeros(3, dtype=F64), gradients[0].clone()
    kept = R.clone(), C.clone(), G.clone()
    returned = factored(R, C, G, 1, d=1e9)  # a large d: nothing is clipped
    assert returned is not None, "The function returned None. Return R, C and the update."
    R1, C1, U = returned
    assert all(torch.equal(a, b) for a, b in zip((R, C, G), kept, strict=True)), (
        "R, C or G was changed in place. Make new tensors."
    )
    shapes = tuple(R1.shape), tuple(C1.shape), tuple(U.shape)
    assert shapes == ((4,), (3,), (4, 3)), (
        f"Shapes (4,), (3,), (4, 3) expected, not {shapes}. Which axis do you sum over?"
    )
    square = G**2
    assert U.square().mean().sqrt() < 1e6, (
        "An update that was small enough has been scaled up to d. Clipping only makes smaller: max(1, RMS / d)."
    )
    assert not torch.allclose(R1, 0.001 * square.sum(1)), (
        "At t = 1 the average must take all of the first gradient: beta2 is 1 - t^(-0.8) = 0 there, not 0.999."
    )
    assert torch.allclose(R1, square.sum(1)) and torch.allclose(C1, square.sum(0)), (
        "At t = 1: R and C are the plain sums."
    )
    V = torch.outer(square.sum(1), square.sum(0)) / square.sum()
    assert not torch.allclose(U, G / V), "You divide by V itself. Divide by its root."
    assert not torch.allclose(U, G / (V * square.sum()).sqrt()), (
        "The denominator of V is missing: R_i C_j has the unit of a gradient to the fourth."
    )
    assert not torch.allclose(U, G / (V / square.sum()).sqrt()), (
        "You divide by the sum of R and by the sum of C. They are the same number, and it belongs there once."
    )
    assert torch.allclose(U, G / V.sqrt()), "The update before clipping is off at t = 1."
    _, _, U = factored(R, C, G, 1, d=0.5)
    assert not torch.allclose(U, (G / V.sqrt()).clamp(-0.5, 0.5)), (
        "You clip every entry. Adafactor scales the whole update, by its root mean square: the direction stays."
    )
    for t, (G, want) in enumerate(zip(gradients, library_updates(gradients), strict=True), start=1):
        R, C, U = factored(R, C, G, t)
        assert torch.allclose(U, want, atol=1e-9), (
            f"Update {t} differs from the library's by {(U - want).abs().max():.1e}."
        )
    print(
        f"02.5 passed the visible cases. Last update: equal to the library's within {(U - want).abs().max():.0e}"
    )


check_02_5(factored)
### BEGIN HIDDEN TESTS


def hidden_02_5(factored):
    generator = torch.Generator().manual_seed(1)
    G = torch.randn(5, 2, generator=generator, dtype=F64)
    G[3] = 0.0  # a word that is not in the batch
    R, C, U = factored(torch.zeros(5, dtype=F64), torch.zeros(2, dtype=F64), G, 1)
    assert torch.isfinite(U).all(), "A row without gradient gives 0 / 0. This is what epsilon_1 is for."
    assert torch.equal(U[3], torch.zeros(2, dtype=F64)), "A row without gradient must not move."
    small = [1e-3 * torch.randn(2, 6, generator=generator, dtype=F64) for _ in range(30)]
    R, C = torch.zeros(2, dtype=F64), torch.zeros(6, dtype=F64)
    for t, (G, want) in enumerate(zip(small, library_updates(small, d=0.3), strict=True), start=1):
        R, C, U = factored(R, C, G, t, d=0.3)
        assert torch.allclose(U, want, atol=1e-9), f"Wrong at update {t} with d = 0.3."


hidden_02_5(factored)
### END HIDDEN TESTS
