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
# that you do not see here, so test more than the checker does. Nothing on this page needs a file or a network.
# Exercise 02.6 trains on five landscapes, and exercise 02.7 is a project: each of them is worth an evening.
#
# {{overview}}

# %%
import math

import torch

from instructlab_utils import checking, intervals

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
    numbers, words = ("sgd", "adam", "uncorrected", "momentum"), ("word_sgd", "word_adam")
    mine = checking.predicted(prediction, numbers, **dict.fromkeys(words, ("stays", "moves")))

    def number(key, want, wrong, says):
        checking.equal(mine[key], want, key, wrong, tol=0.02, says=says)

    wrong = {"sgd: one is Adam's answer. SGD's step follows the size of the gradient.": 1}
    number("sgd", 1000, wrong, "sgd: its step is the rate times the gradient.")
    factor = adams_steps([1000.0])[0] / adams_steps([1.0])[0]
    wrong = {
        "adam: at the first update m_hat is g and the root of v_hat is |g|. What is their quotient?": 1000,
        "adam: you took the root. Numerator and denominator both grow by a thousand.": math.sqrt(1000),
    }
    number("adam", factor, wrong, "adam: the first step has the size of the rate for both.")
    wrong = {
        "uncorrected: m is a tenth of the gradient, right. But v is too small as well, and its root stands "
        "in the denominator.": 0.1,
        "uncorrected: Adam divides by the root of v, not by v.": 0.1 / 0.001,
        "uncorrected: one is the step *with* the correction.": 1,
        "uncorrected: m is too small as well: a tenth of the gradient.": 1 / math.sqrt(0.001),
    }
    number("uncorrected", 0.1 / math.sqrt(0.001), wrong, "uncorrected: (1 - beta1) / sqrt(1 - beta2).")
    wrong = {
        "momentum: this is the second step. The sum of the past goes on growing.": 1.95,
        "momentum: this is the step of an average, as in Adam. Here the velocity is a sum.": 1,
        "momentum: 1 - mu is 0.05, and one divided by it is the answer.": 0.05,
    }
    number("momentum", 20, wrong, "momentum: 1 + mu + mu^2 + ... = 1 / (1 - mu).")
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
# Walk a path with either. The velocity starts at zero, and $g$ is the gradient at the *current* $\theta$. The
# start itself is not part of the list.


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
    call = checking.calls(momentum_path)

    def gradient(theta):
        return 2 * theta - 1

    rates, mu = [0.1, 0.1, 0.1, 0.1, 0.02, 0.02], 0.8
    mine = call(gradient, 3.0, rates, mu, "torch")
    assert not isinstance(mine, float), "torch: one number? Return the list of all positions."
    want = torchs_path(gradient, 3.0, rates, mu)
    assert len(mine) != len(rates) + 1, (
        "torch: one position too many. The start is no position after an update."
    )
    checking.form(mine, want, "torch")
    g = gradient(3.0)
    wrong = {
        "torch: you weight the gradient with 1 - mu, as Adam does. Here the velocity is a sum: mu v + g.": 3.0
        - 0.1 * (1 - mu) * g,
        "torch: the first update did not move. Renew the velocity before you use it.": 3.0,
        "torch: the first update looks ahead, as Nesterov's does, or the velocity starts at the gradient. It starts at "
        "zero, and the first update is the rate times g.": 3.0 - 0.1 * (1 + mu) * g,
        "torch: the first update goes uphill. Take the velocity off.": 3.0 + 0.1 * g,
        "torch: these are velocities. Return the positions.": g,
    }
    checking.equal(mine[0], want[0], "torch: position 1", wrong)
    wrong = {
        "torch: the second update uses the gradient of the start. Ask for it at the current theta.": 3.0
        - 0.1 * (2 + mu) * g,
        "torch: the second update has no velocity. What is kept from one update to the next?": want[0]
        - 0.1 * gradient(want[0]),
        "torch: you take the gradient where the velocity would lead, as Nesterov does. Take it at the current theta.": want[
            0
        ]
        - 0.1 * (mu * g + gradient(want[0] - 0.1 * mu * g)),
    }
    checking.equal(mine[1], want[1], "torch: position 2", wrong)
    wrong = {
        "torch: you use the first rate in every update. Each update has its own.": torchs_path(
            gradient, 3.0, [0.1] * 6, mu
        )
    }
    checking.equal(mine, want, "torch: positions", wrong)
    steady = [0.1] * 5
    same = call(gradient, 3.0, steady, mu, "sutskever")
    checking.form(same, steady, "sutskever")
    assert not math.isclose(same[0], 3.0 + 0.1 * g), (
        "sutskever: the first update goes uphill. The velocity carries the minus already: add it."
    )
    ahead, v = [3.0], 0.0
    for eta in steady:
        v = mu * v - eta * gradient(ahead[-1] + mu * v)
        ahead.append(ahead[-1] + v)
    says = "sutskever: you take the gradient where the velocity would lead, as Nesterov does. Take it at the current theta."
    checking.equal(
        same,
        torchs_path(gradient, 3.0, steady, mu),
        "sutskever",
        {says: ahead[1:]},
        says="With a constant rate both forms must walk the same path.",
    )
    other = call(gradient, 3.0, rates, mu, "sutskever")
    assert not math.isclose(other[-1], want[-1], rel_tol=1e-6), (
        "sutskever: the same path as torch's, although the rate changes. In this form the rate goes into the "
        "velocity, and old gradients keep their old rate."
    )
    checking.equal(
        call(lambda theta: 1.0, 0.0, [1.0, 0.0, 0.0], 0.5, "sutskever"),
        [-1.0, -1.5, -1.75],
        "sutskever",
        says="When the rate drops to zero, the velocity coasts on.",
    )
    for slope, start, rates, mu in (
        (-0.5, 1.5, [0.3, 0.1, 0.7], 0.5),
        (3.0, -2.0, [0.2, 0.0], 0.0),
        (1.0, 4.0, [], 0.9),
    ):
        path = torchs_path(lambda theta, k=slope: k * theta, start, rates, mu)
        got = call(lambda theta, k=slope: k * theta, start, rates, mu, "torch")
        checking.equal(got, path, "torch", says=f"Another gradient, start {start}, rates {rates}, mu = {mu}.")
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
# Write it as in Loshchilov and Hutter, with torch's convention for $\lambda$: the decay takes $\eta \lambda
# \theta$ of the *old* weights. The function returns the new weights and leaves `theta` and `g` as they were;
# all that it remembers is in `state`.


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
    call = checking.calls(adamw, changes=("state",))
    start = torch.tensor([2.0, -3.0, 0.5], dtype=F64)
    g = torch.tensor([4.0, 1e-4, -0.2], dtype=F64)
    first = call(start, g, {}, eta=0.01, lam=0.3)
    checking.form(first, start, "the new weights", dtype=F64)
    assert torch.isfinite(first).all(), "nan at the first update: t counts from 1, since 1 - beta**0 is 0."
    assert torch.equal(first, call(start, g, {}, eta=0.01, lam=0.3)), (
        "Two calls with an empty state differ. All that is remembered belongs into `state`."
    )
    decay, step, full = 0.01 * 0.3 * start, 0.01 * g / (g.abs() + 1e-8), g + 0.3 * start
    roughly = {
        "The decay still goes through the gradient: lam * theta is divided by the root of v, and only its "
        "sign is left. Take it out of g.": 0.01 * full.sign(),
        "No bias correction at all: the first step is more than three times too long.": step
        * 0.1
        / math.sqrt(0.001)
        + decay,
        "m is corrected and v is not: the first step is some thirty times too long.": step / math.sqrt(0.001)
        + decay,
        "v is corrected and m is not: the first step is a tenth of what it should be.": step / 10 + decay,
        "The decay is not multiplied by the rate: it takes lam * theta in every update.": step + 0.3 * start,
        "m and v start at the gradient and at its square, and are then corrected as if they had started at zero. Start "
        "them at zero.": 10 * math.sqrt(0.001) * step + decay,
        "v averages the squares of m. It averages the squares of the gradient.": 10 * step + decay,
        "There is no decay at all.": step,
        "The decay has the wrong sign: the weights grow.": step - decay,
        "The step goes uphill: take it off the weights.": -step + decay,
        "The root is missing: you divide by v itself.": 0.01 * g / (g * g + 1e-8) + decay,
        "epsilon stands inside the root. A gradient of 1e-4 then counts as small, since its square is 1e-8. "
        "Add epsilon after the root.": 0.01 * g / (g * g + 1e-8).sqrt() + decay,
    }
    for message, wrong in roughly.items():
        assert not torch.allclose(start - first, wrong, rtol=1e-2, atol=1e-7), message
    after = {
        "You shrink the weights after the step. The decay takes its part of the *old* weights.": (
            start - step
        )
        * (1 - 0.01 * 0.3)
    }
    says = "The first update is off. Check what goes into g, what happens to v before it is used, where epsilon stands."
    checking.equal(first, start - decay - step, "the new weights", after, says=says)
    runs = (
        (
            (3,),
            {},
            "Does the state keep t, m and v, with m and v as they are *before* the correction? Is beta1 m's?",
        ),
        ((2, 4), {"beta1": 0.7, "beta2": 0.9}, "beta1 and beta2 are arguments."),
        ((5,), {"eps": 0.1}, "eps is an argument."),
    )
    for shape, options, says in runs:
        generator = torch.Generator().manual_seed(len(shape))
        weight = torch.randn(shape, generator=generator, dtype=F64, requires_grad=True)
        mine, state = weight.detach().clone(), {}
        betas = options.get("beta1", 0.9), options.get("beta2", 0.999)
        optimizer = torch.optim.AdamW(
            [weight], lr=0.01, weight_decay=0.3, betas=betas, eps=options.get("eps", 1e-8)
        )
        for update in range(1, 21):
            gradient = math.cos(update) + 0.1 * mine
            weight.grad = gradient.clone()
            optimizer.step()
            mine = call(mine, gradient, state, eta=0.01, lam=0.3, **options)
            checking.equal(
                mine,
                weight.detach(),
                "the weights",
                says=f"{says} {update - 1} updates are right, the next is not:",
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
# - `warmup` may be 0, and it may be `total`. More than `total`, or a floor outside of 0 to 1, is a `ValueError`,
#   whatever the update.


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
    call = checking.calls(factor)
    total, warmup, floor = 12, 4, 0.2
    mine = [call(step, total, warmup, floor) for step in range(total)]
    checking.form(mine, [0.0] * total, "the factors")
    assert mine[0] != 0, (
        "The first update has the factor zero, and its gradient is wasted. It should be 1 / warmup."
    )
    says = "The first of `warmup` updates has the factor 1 / warmup, the last has 1."
    checking.equal(mine[:4], [0.25, 0.5, 0.75, 1.0], "the factors of the warm-up", says=says)
    assert not math.isclose(mine[4], 1.0), (
        "The update after the warm-up repeats the factor 1. Its share p counts the update itself: it is not 0."
    )
    cosine = [0.5 * (1 + math.cos(math.pi * p / 8)) for p in range(1, 9)]
    wrong = {
        "The cosine comes up again at the end: you use a whole period. Half of one leads from 1 to -1.": [
            floor + (1 - floor) * 0.5 * (1 + math.cos(2 * math.pi * p / 8)) for p in range(1, 9)
        ],
        "This is a line, not a cosine.": [1 - (1 - floor) * p / 8 for p in range(1, 9)],
        "You cut the cosine off at floor: the last updates all have the same factor. Squeeze it between 1 and "
        "floor.": [max(floor, c) for c in cosine],
        "The last update has the factor 0. It should have floor: squeeze the cosine between 1 and floor.": cosine,
        "You add floor to the cosine, so that it begins above 1. Squeeze it: floor + (1 - floor) · …": [
            floor + c for c in cosine
        ],
        "The cosine counts all updates. It begins after the warm-up: p is a share of the updates after it.": [
            floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * p / 12)) for p in range(5, 13)
        ],
    }
    curve = [floor + (1 - floor) * c for c in cosine]
    assert not math.isclose(mine[-1], 0.0, abs_tol=1e-9), (
        "The last update has the factor 0. It should have floor."
    )
    says = "floor + (1 - floor) times half of (1 + cos πp):"
    checking.equal(mine[4:], curve, "the factors after the warm-up", wrong, says=says)
    print("02.4 passed the visible cases:", " ".join(f"{x:.2f}" for x in mine))


check_02_4(factor)
### BEGIN HIDDEN TESTS


def hidden_02_4(factor):
    call = checking.calls(factor)
    for step in (12, 13, 20, 50):
        got = call(step, 12, 4, 0.2)
        checking.equal(got, 0.2, f"update {step} of 12", says="Some run goes on longer, and then has floor.")
    with checking.means(ValueError, "You refuse the floor 0 or the floor 1. Both are allowed."):
        low, high = call(3, 5, 2, 0.0), call(2, 5, 1, 1.0)
    checking.equal(low, 0.25, "the factor", says="Wrong with the floor 0.")
    zero = "warmup 0, or warmup equal to total, divides by zero."
    with (
        checking.means(ZeroDivisionError, zero),
        checking.means(ValueError, "You refuse warmup = 0. It is allowed."),
    ):
        none = call(0, 5, 0, 0.0)
    whole = "You refuse warmup = total. It is allowed: the whole run is a warm-up."
    with checking.means(ZeroDivisionError, zero), checking.means(ValueError, whole):
        whole, after = call(3, 4, 4, 0.1), call(4, 4, 4, 0.1)
    checking.equal(none, 0.5 * (1 + math.cos(math.pi / 5)), "the factor", says="Wrong without warm-up.")
    checking.equal((whole, after), (1.0, 0.1), "two factors", says="Wrong when the warm-up is the whole run.")
    checking.equal(high, 1.0, "the factor", says="With floor 1 the rate stays constant.")

    def by_angle(step, total, warmup, floor):
        if step < min(warmup, total):
            return (1 + step) / warmup
        angle = math.pi * min(1.0, (step + 1 - warmup) / max(1, total - warmup))
        return (1 + floor) / 2 + math.cos(angle) * (1 - floor) / 2

    for total, warmup, floor in ((9, 2, 0.05), (1, 0, 0.3), (1, 1, 0.3), (30, 7, 0.0), (3, 3, 0.5)):
        cases = [(step, total, warmup, floor) for step in range(total + 2)]
        call.agrees(by_angle, *cases, name="the factor", says="Another length.")
    for step, warmup, floor in ((0, 6, 0.1), (0, 2, -0.1), (0, 2, 1.5), (5, 6, 0.1), (9, 2, 1.5)):
        says = f"total 5, warmup {warmup}, floor {floor} went through at update {step}. Test the arguments first of all."
        call.refuses(ValueError, step, 5, warmup, floor, says=says)


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
    call = checking.calls(factored)
    generator = torch.Generator().manual_seed(0)
    gradients = [scale * torch.randn(4, 3, generator=generator, dtype=F64) for scale in (1.0, 3.0, 0.1)]
    R, C, G = torch.zeros(4, dtype=F64), torch.zeros(3, dtype=F64), gradients[0]
    returned = call(R, C, G, 1, d=1e9)  # a large d: nothing is clipped
    checking.form(returned, (R, C, G), "(R, C, update)")
    R1, C1, U = returned
    square = G**2
    assert R1.any(), (
        "R is still zero after the first gradient. beta2 is 1 - t^(-0.8), which is 0 at t = 1, so that the average takes "
        "all of the first gradient. Did you take t^(-0.8) itself?"
    )
    assert U.square().mean().sqrt() < 1e6, (
        "An update that was small enough has been scaled up to d. Clipping only makes smaller: max(1, RMS / d)."
    )
    rows, columns = square.sum(1), square.sum(0)
    wrong = {
        "At t = 1 the average must take all of the first gradient: beta2 is 1 - t^(-0.8) = 0 there, not 0.999.": 0.001
        * rows,
        "R holds means. The formula sums over j.": rows / 3,
        "R sums the gradients themselves. Square them first.": G.sum(1),
    }
    checking.equal(R1, rows, "R at t = 1", wrong)
    checking.equal(C1, columns, "C at t = 1", {"C holds means. The formula sums over i.": columns / 4})
    V = torch.outer(rows, columns) / square.sum()
    wrong = {
        "You divide by V itself. Divide by its root.": G / V,
        "The denominator of V is missing: R_i C_j has the unit of a gradient to the fourth.": G
        / (V * square.sum()).sqrt(),
        "You divide by the sum of R and by the sum of C. They are the same number, and it belongs there once.": G
        / (V / square.sum()).sqrt(),
        "You divide by the mean of R. The formula has its sum.": G / (V * 4).sqrt(),
        "You clip at 1, whatever d is.": G / V.sqrt() / (G / V.sqrt()).square().mean().sqrt().clamp(min=1),
        "This is Adam with one number per weight: V must come from R and C alone.": G.sign(),
    }
    checking.equal(U, G / V.sqrt(), "the update at t = 1, not clipped,", wrong)
    U = G / V.sqrt()
    rms = U.square().mean().sqrt()
    wrong = {
        "You clip every entry. Adafactor scales the whole update, by its root mean square: the direction stays.": U.clamp(
            -0.5, 0.5
        ),
        "You scale each row by its own root mean square. The RMS is taken over all entries.": U
        / (U.square().mean(1, keepdim=True).sqrt() / 0.5).clamp(min=1),
        "You divide by the norm. The root *mean* square divides the sum by the number of entries.": U
        / (U.norm() / 0.5),
        "You divide by the largest entry. The RMS is the root of the *mean* square.": U
        / (U.abs().max() / 0.5),
        "This is the standard deviation: it takes the mean off first. The RMS is the root of the mean square.": U
        / (U.std() / 0.5).clamp(min=1),
        "This is the standard deviation: it takes the mean off first. The RMS does not.": U
        / (U.std(correction=0) / 0.5).clamp(min=1),
        "You multiply with d. RMS / d is the factor that the update is divided by.": U
        / (rms * 0.5).clamp(min=1),
        "The update is not clipped at all.": U,
    }
    checking.equal(call(R, C, G, 1, d=0.5)[2], U / (rms / 0.5), "the update with d = 0.5", wrong)
    for t, (G, want) in enumerate(zip(gradients, library_updates(gradients), strict=True), start=1):
        old = R.sum()
        R, C, U = call(R, C, G, t)
        by_old = G / (torch.outer(R, C) / old).sqrt()
        wrong = {
            "You divide by the sum of the *old* R. Inside V all three are new, those of this update.": by_old
            / by_old.square().mean().sqrt().clamp(min=1)
        }
        says = f"Compared with the library. At t = {t} beta2 is {1 - t**-0.8:.3f}."
        checking.equal(U, want, f"update {t}", wrong, says=says)
    print(
        f"02.5 passed the visible cases. Last update: equal to the library's within {(U - want).abs().max():.0e}"
    )


check_02_5(factored)
### BEGIN HIDDEN TESTS


def hidden_02_5(factored):
    call = checking.calls(factored)
    generator = torch.Generator().manual_seed(1)
    G = torch.randn(5, 2, generator=generator, dtype=F64)
    G[3] = 0.0  # a word that is not in the batch
    R, C, U = call(torch.zeros(5, dtype=F64), torch.zeros(2, dtype=F64), G, 1)
    assert torch.isfinite(U).all(), "A row without gradient gives 0 / 0. This is what epsilon_1 is for."
    assert torch.equal(U[3], torch.zeros(2, dtype=F64)), "A row without gradient must not move."
    for shape, d, scale in (((2, 6), 0.3, 1e-3), ((7, 1), 1.0, 1e3), ((1, 4), 0.1, 1e-8)):
        small = [scale * torch.randn(shape, generator=generator, dtype=F64) for _ in range(20)]
        R, C = (torch.zeros(n, dtype=F64) for n in shape)
        for t, (G, want) in enumerate(zip(small, library_updates(small, d=d), strict=True), start=1):
            R, C, U = call(R, C, G, t, d=d)
            checking.equal(
                U, want, f"update {t}", says=f"A matrix of shape {shape}, gradients near {scale}, d = {d}."
            )


hidden_02_5(factored)
### END HIDDEN TESTS

# %% [markdown]
# ## 02.6 One setting for five landscapes
#
# > ●●●●○ · 45 minutes · graded
#
# Write an optimiser of your own: `minimise(gradient, theta, budget)` starts at `theta` (d,), float64, asks for
# `gradient(theta)` at most `budget` times, and returns the best weights that it can find. It sees no loss and not the name
# of the landscape. The same function, with the same numbers in it, must get to the bottom of all five:
#
# | landscape | what is difficult | may be left of the loss |
# |:--|:--|:--|
# | valley | curvatures from $1$ to $300$ | $10^{-4}$ |
# | quiet valley | the same, the loss multiplied by $10^{-4}$ | $10^{-4}$ |
# | noise | each gradient has noise of constant size, at the start about as large as the gradient | $0.01$ |
# | strange batch | one gradient, after the tenth and in the first quarter, is a thousand times too large | $0.005$ |
# | network | a small network, gradients of batches of $30$ | $0.2$ |
#
# "May be left" is the share of the loss at the start, as the mean over two worlds. In all of them the weights and their way
# to the bottom are of the size of one. The budget is $400$ where you can see it. Elsewhere it may be from $200$ to
# $1000$, these losses may be multiplied by any number from $10^{-8}$ to $10^{6}$, and some weights may have the gradient
# zero for ever: they stay where they were. `theta` itself must not be changed. Anything from the lesson is allowed, and
# anything else; only the gradient may look at the landscape.


# %%
def landscapes(seed, unit=1.0):
    """Name → (loss, gradient, start, what may be left). Gradients draw from the world's own generator."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=F64)

    def bowl(curvatures, scale, noise=0.0, strange=0):
        best, calls = draw(len(curvatures)), [0]

        def gradient(theta):
            calls[0] += 1
            slope = curvatures * (theta - best + noise * draw(len(theta)))
            return scale * unit * (1000.0 if calls[0] == strange else 1.0) * slope

        return (
            lambda theta: 0.5 * (curvatures * (theta - best) ** 2).sum().item(),
            gradient,
            best + 1.4 * draw(len(best)),
        )

    steep = torch.logspace(0, math.log10(300), 20, dtype=F64)[torch.randperm(20, generator=g)]
    round_one = torch.logspace(0, 1, 50, dtype=F64)
    points = 1.5 * draw(300, 2)
    labels = (points[:, 0] * points[:, 1] > 0).to(F64)

    def network(theta, rows):
        hidden = torch.tanh(points[rows] @ theta[:32].view(2, 16) + theta[32:48])
        return hidden @ theta[48:64] + theta[64], hidden

    def loss_of_all(theta):
        z, _ = network(theta, range(300))
        return torch.nn.functional.binary_cross_entropy_with_logits(z, labels).item()

    def of_a_batch(theta):
        rows = torch.randint(300, (30,), generator=g)
        z, hidden = network(theta, rows)
        r = unit * (torch.sigmoid(z) - labels[rows]) / 30
        back = torch.outer(r, theta[48:64]) * (1 - hidden**2)
        return torch.cat([(points[rows].T @ back).flatten(), back.sum(0), hidden.T @ r, r.sum()[None]])

    strange = int(torch.randint(15, 40, (1,), generator=g))
    return {
        "valley": (*bowl(steep, 1.0), 1e-4),
        "quiet valley": (*bowl(steep, 1e-4), 1e-4),
        "noise": (*bowl(round_one, 1.0, noise=1.0), 0.01),
        "strange batch": (*bowl(round_one, 1.0, noise=0.3, strange=strange), 0.005),
        "network": (loss_of_all, of_a_batch, 0.5 * draw(65), 0.2),
    }


for name, (loss, gradient, start, _) in landscapes(0).items():
    print(
        f"{name:14s} {len(start)} weights, loss {loss(start):7.2f}, one gradient of length {gradient(start).norm():.2g}"
    )


# %% nbgrader={"grade_id": "answer_02_6", "solution": true}
def minimise(gradient, theta, budget):
    """gradient: (d,) → (d,), may be called `budget` times; theta (d,) float64. Return the weights (d,)."""
    ### BEGIN SOLUTION
    m, v, lengths = torch.zeros_like(theta), torch.zeros_like(theta), []
    for t in range(1, budget + 1):
        slope = gradient(theta)
        length = slope.norm().item()
        usual = sorted(lengths)[len(lengths) // 2] if lengths else length
        if length > 5 * usual > 0:  # a strange batch is cut to what is usual, in whatever unit
            slope = slope * (5 * usual / length)
        lengths.append(slope.norm().item())
        m = 0.9 * m + 0.1 * slope
        v = 0.999 * v + 0.001 * slope * slope
        eta = 0.1 * 0.5 * (1 + math.cos(math.pi * (t - 1) / budget))
        theta = theta - eta * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-30)
    return theta
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_02_6", "grade": true, "points": 5, "locked": true}
class OverBudgetError(Exception):
    """More gradients were asked for than were allowed."""


def descend(minimise, landscape, budget):
    """The share of the loss that is left; where gradients were asked for, and their lengths; the last weights; the loss."""
    loss, gradient, start, _ = landscape
    asked, lengths = [], []

    def metered(theta):
        if len(asked) == budget:
            raise OverBudgetError(f"{budget} gradients were allowed")
        assert isinstance(theta, torch.Tensor) and theta.shape == start.shape, (
            "gradient() takes weights of theta's shape."
        )
        asked.append(theta.detach().clone())
        slope = gradient(asked[-1])
        lengths.append(slope.norm().item())
        return slope

    over = f"More than {budget} gradients were asked for. Count them: one a step, and none for a trial step that is free."
    with checking.means(OverBudgetError, over):
        got = checking.calls(minimise, limit=20.0, changes=("gradient",))(metered, start, budget)
    checking.form(got, start, "the weights", dtype=F64)
    assert asked, "No gradient was asked for."
    return loss(got) / loss(start), asked, lengths, got.detach(), loss


def judge_02_6(minimise, seeds, budget, unit=1.0):
    """AssertionError with the likely reason where more is left than may be."""
    worlds, reached = [landscapes(seed, unit) for seed in seeds], {}
    for name in worlds[0]:
        runs = [descend(minimise, world[name], budget) for world in worlds]
        allowed, share = worlds[0][name][3], sum(run[0] for run in runs) / len(runs)
        reached[name] = share
        if share <= allowed:
            continue
        told = f"{name}: {share:.2g} of the loss is left after {budget} gradients; {allowed:g} may be."
        _, asked, lengths, last, loss = max(runs, key=lambda run: run[0] if run[0] == run[0] else math.inf)
        steps = torch.stack([*asked, last]).diff(dim=0).norm(dim=1)
        k = lengths.index(max(lengths))
        usual, after = steps[max(0, k - 10) : k].mean(), steps[k + 30 : k + 80].mean()
        assert name != "strange batch" or not steps[k] > 20 * usual, (
            f"{told} One step is {steps[k] / usual:.0f} times as long as those before it: the strange batch throws the "
            "weights away."
        )
        assert share < 1.0, (
            f"{told} It runs away, or up. A step of rate times gradient has the unit of a gradient: where the curvature is "
            "h, a rate above 2 / h explodes."
        )
        assert len(asked) > budget / 2, (
            f"{told} You stopped after {len(asked)}. A small gradient is not yet a small loss: it has a unit."
        )
        way = (last - asked[0]).abs().median()
        assert way > 0.1, (
            f"{told} Half of the weights have moved by {way:.1g} or less. The loss of this world is small, and so are its "
            "gradients, not the way to the bottom. What has the unit of a gradient: the rate, a bound, an epsilon?"
        )
        assert name != "strange batch" or after > steps[:10].mean() / 12, (
            f"{told} After it the steps have {after / steps[:10].mean():.0%} of the length of the first ones: its square "
            "sits in the second moment, and all is frozen. Cut it before it gets there, or forget sooner."
        )
        tail = torch.stack(asked[-budget // 4 :]).mean(0)
        assert not (loss(tail) < 0.5 * loss(last) and name in ("noise", "strange batch", "network")), (
            f"{told} The last weights dance around the bottom: the mean of the last quarter of them has less than half of "
            "their loss. What should happen to the rate near the end?"
        )
        raise AssertionError(
            f"{told} Reached so far: {', '.join(f'{k} {v:.2g}' for k, v in reached.items())}."
        )
    return reached


def check_02_6(minimise):
    reached = judge_02_6(minimise, (0, 1), 400)
    print("02.6 passed the visible cases:", ", ".join(f"{k} {v:.1g}" for k, v in reached.items()))


check_02_6(minimise)
### BEGIN HIDDEN TESTS


def hidden_02_6(minimise):
    judge_02_6(minimise, (10,), 400)
    cases = [(800, 1.0, "Twice the budget. Does the schedule know?")]
    cases += [
        (
            400,
            unit,
            "All losses in another unit. What in your step has one? A fixed bound has, and so has epsilon.",
        )
        for unit in (1e6, 1e-8)
    ]
    for budget, unit, says in cases:
        try:
            judge_02_6(minimise, (12,), budget, unit)
        except AssertionError as caught:
            raise AssertionError(f"{str(caught).split(';')[0]}. {says}") from None
    best = torch.tensor([0.5, -1.0, 0.0], dtype=F64)

    def half_dead(theta):
        return torch.where(torch.tensor([True, True, False]), theta - best, 0.0)

    got = checking.calls(minimise, limit=20.0)(half_dead, torch.tensor([0.0, 0.0, 2.5], dtype=F64), 300)
    assert torch.isfinite(got).all(), "A weight whose gradient is always zero becomes nan: 0 divided by 0."
    assert got[2] == 2.5, f"A weight whose gradient is always zero has moved from 2.5 to {got[2]:.3f}."
    assert (got - best)[:2].abs().max() < 0.05, (
        "Three weights, one without a gradient: the other two do not arrive."
    )


hidden_02_6(minimise)
### END HIDDEN TESTS

# %% [markdown]
# ## 02.7 Project: a fair race
#
# > ●●●●● · 150 minutes · practice
#
# Which of two optimisers is better? The lesson says what a fair answer needs: a rate for each, and seeds. Choose two
# (with and without momentum, Adam and AdamW, two schedules, yours of exercise 02.6 and the library's), a task that trains in
# a second, and write the claim first: *after equally many gradients the held-out loss of the first is lower than that of the
# second by more than `threshold`.* Tune both on tuning seeds, and race them on fresh ones. `race()` returns a dict:
#
# | key | what |
# |:--|:--|
# | `claim` | a sentence that names both arms, at least $40$ characters |
# | `arms` | two names, the one that you bet on first |
# | `threshold`, `reason` | a difference of the loss, 0 or more; why just this one (at least $40$ characters) |
# | `gradients` | arm → how many gradients one run costs, those of a look ahead included; equal |
# | `lost` | the loss at which a run is given up: a run that is not finite, or ends higher, counts as this number |
# | `rates` | arm → its rates, rising; at least four, equally many; at least two of them on both lists |
# | `tuning_seeds` | at least three different whole numbers |
# | `tuning` | arm → lists by tuning seed, rate: the held-out loss at the end of the run |
# | `chosen` | arm → the rate with the smallest mean over the tuning seeds (the smaller rate in a tie) |
# | `shared` | rate → mean over the tuning seeds of (second arm minus first), for each rate on both lists |
# | `seeds` | at least eight different whole numbers, none of them a tuning seed |
# | `results` | arm → list by seed: the held-out loss with the chosen rate |
# | `gain`, `low`, `high` | second arm minus first, mean over seeds; its t interval at $0.95$ |
# | `verdict` | `"supported"` (the interval lies above the threshold), `"refuted"` (below) or `"undecided"` |
#
# - A seed draws data, first weights and batches, the same for both arms: so the race is one of pairs.
# - *The edge.* If the chosen rate is the smallest or the largest of its list, the best one may lie outside. The checker
#   refuses: add rates at that end, and equally many to the other arm.
# - `shared` shows what somebody could have reported who gives both arms one rate, and chooses the rate.
#
# The checker recomputes all numbers. A person reads the rest with this rubric (0 to 2 points a row; 8 of 12 pass):
#
# | | 0 | 1 | 2 |
# |:--|:--|:--|:--|
# | claim | cannot fail | can fail | names task, budget, measure, direction and threshold before the run |
# | threshold | a habit | a reason | says what somebody would do otherwise |
# | tuning | one arm at its default | equal numbers of rates | and whatever else differs (schedule, decay, clipping) is said |
# | the task | both arms reach the bottom | one has room | and a longer run was tried: does the order change? |
# | shared rates | not discussed | the signs are read | and which report they would have allowed |
# | ending | only success is described | all three verdicts | also the cost in seconds, and what another task might change |


# %%
def task(seed, rows=200):
    """A start: training rows, held-out rows, first weights of a network with 8 hidden units, and a generator for batches."""
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(2 * rows, 3, generator=g, dtype=F64)
    y = (X[:, 0] * X[:, 1] + 0.5 * X[:, 2] > 0).to(F64)
    return (X[:rows], y[:rows]), (X[rows:], y[rows:]), 0.5 * torch.randn(41, generator=g, dtype=F64), g


def logits_of(w, X):
    hidden = torch.tanh(X @ w[:24].view(3, 8) + w[24:32])
    return hidden @ w[32:40] + w[40], hidden


def loss_of(w, rows):
    """The mean cross-entropy of the network with the weights w (41,)."""
    return torch.nn.functional.binary_cross_entropy_with_logits(logits_of(w, rows[0])[0], rows[1])


def slope_of(w, rows):
    """Its gradient (41,) in closed form: no autograd, so a thousand of them take a moment."""
    z, hidden = logits_of(w, rows[0])
    r = (torch.sigmoid(z) - rows[1]) / len(z)
    back = torch.outer(r, w[32:40]) * (1 - hidden**2)
    return torch.cat([(rows[0].T @ back).flatten(), back.sum(0), hidden.T @ r, r.sum()[None]])


print("held-out loss before training:", [f"{loss_of(task(s)[2], task(s)[1]).item():.3f}" for s in range(3)])


# %% nbgrader={"grade_id": "answer_02_7", "solution": true}
def race():
    """Return the dict of the table."""
    ### BEGIN SOLUTION
    rates = {"Adam": [0.003, 0.01, 0.03, 0.1, 0.3, 1.0], "momentum": [0.01, 0.03, 0.1, 0.3, 1.0, 3.0]}
    tuning_seeds, seeds, updates, lost = [0, 1, 2], list(range(100, 112)), 40, 2.0

    def run(arm, rate, seed):
        train, held_out, w, g = task(seed)
        m, v = torch.zeros_like(w), torch.zeros_like(w)
        for t in range(1, updates + 1):
            i = torch.randint(len(train[1]), (32,), generator=g)
            slope, eta = slope_of(w, (train[0][i], train[1][i])), rate * (1 - (t - 1) / updates)
            if arm == "momentum":
                v = 0.9 * v + slope
                w = w - eta * v
            else:
                m, v = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
                w = w - eta * m / (1 - 0.9**t) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        end = loss_of(w, held_out).item()
        return min(end, lost) if math.isfinite(end) else lost

    tuning = {arm: [[run(arm, rate, seed) for rate in rates[arm]] for seed in tuning_seeds] for arm in rates}
    means = {arm: [sum(column) / 3 for column in zip(*tuning[arm], strict=True)] for arm in rates}
    chosen = {arm: rates[arm][means[arm].index(min(means[arm]))] for arm in rates}
    shared = {
        rate: means["momentum"][rates["momentum"].index(rate)] - means["Adam"][rates["Adam"].index(rate)]
        for rate in rates["Adam"]
        if rate in rates["momentum"]
    }
    results = {arm: [run(arm, chosen[arm], seed) for seed in seeds] for arm in rates}
    found = intervals.t_interval([b - a for a, b in zip(results["Adam"], results["momentum"], strict=True)])
    return {
        "claim": "On the task of this page, after 40 gradients of batches of 32 with a rate that falls on a line, the "
        "held-out loss of Adam is lower than that of momentum (0.9) by more than 0.02, each with its own rate.",
        "arms": ["Adam", "momentum"],
        "threshold": 0.02,
        "reason": "Adam stores one number more a weight. For less than a fiftieth of a nat nobody here would pay that.",
        "gradients": {"Adam": updates, "momentum": updates},
        "lost": lost,
        "rates": rates,
        "tuning_seeds": tuning_seeds,
        "tuning": tuning,
        "chosen": chosen,
        "shared": shared,
        "seeds": seeds,
        "results": results,
        "gain": found.mean,
        "low": found.low,
        "high": found.high,
        "verdict": "supported" if found.low > 0.02 else "refuted" if found.high < 0.02 else "undecided",
    }
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_02_7", "locked": true}
RACE = (
    "claim arms threshold reason gradients lost rates tuning_seeds tuning chosen shared seeds results gain low high verdict"
).split()


def check_plan(mine):
    """What must hold before a number is looked at."""
    arms = mine["arms"]
    assert isinstance(arms, list | tuple) and len(set(arms)) == len(arms) == 2, "arms: two different names."
    for key in ("claim", "reason"):
        assert isinstance(mine[key], str) and len(mine[key].strip()) >= 40, f"{key}: at least 40 characters."
    for arm in arms:
        assert arm in mine["claim"], f"claim: {arm!r} does not occur. A claim names what it compares."
    for key in ("threshold", "lost"):
        assert isinstance(mine[key], int | float) and 0 <= mine[key] < math.inf, (
            f"{key}: a number, 0 or more."
        )
    for key in ("gradients", "rates", "tuning", "chosen", "results"):
        assert isinstance(mine[key], dict) and set(mine[key]) == set(arms), (
            f"{key}: a dict with the two arms as its keys."
        )
    cost = [mine["gradients"][arm] for arm in arms]
    assert cost[0] == cost[1], (
        f"gradients: {cost[0]} and {cost[1]}. Who may look more often sees more: make them equal."
    )
    counts = [len(mine["rates"][arm]) for arm in arms]
    assert counts[0] == counts[1] >= 4, (
        f"rates: {counts[0]} and {counts[1]}. At least four, and equally many for both."
    )
    for arm in arms:
        rates = mine["rates"][arm]
        assert rates[0] > 0 and sorted(set(rates)) == list(rates), f"rates[{arm!r}]: above 0, and rising."
    for key, least in (("tuning_seeds", 3), ("seeds", 8)):
        assert len(set(mine[key])) == len(mine[key]) >= least, f"{key}: at least {least}, no two alike."
    again = set(mine["tuning_seeds"]) & set(mine["seeds"])
    assert not again, (
        f"seeds: {sorted(again)} chose the rates. A rate looks best where it was chosen; take fresh seeds."
    )


def losses(mine, key, shape):
    found = {}
    for arm in mine["arms"]:
        table = torch.tensor(mine[key][arm], dtype=F64)
        assert tuple(table.shape) == shape, (
            f"{key}[{arm!r}]: shape {shape} expected, not {tuple(table.shape)}."
        )
        assert table.isfinite().all() and table.max() <= mine["lost"], (
            f"{key}[{arm!r}]: a loss is not finite or above `lost`. A run that was given up is a result: it is `lost`."
        )
        found[arm] = table
    assert len({tuple(table.flatten().tolist()) for table in found.values()}) == 2, (
        f"{key}: both arms are the same."
    )
    return found


def check_02_7(race):
    mine = checking.handed_in(race, RACE, limit=120.0)
    check_plan(mine)
    first, second = mine["arms"]
    rates, n = mine["rates"], len(mine["seeds"])
    tuning = losses(mine, "tuning", (len(mine["tuning_seeds"]), len(rates[first])))
    results = losses(mine, "results", (n,))
    places = {arm: int(table.mean(0).argmin()) for arm, table in tuning.items()}
    want = {arm: rates[arm][k] for arm, k in places.items()}
    wrong = {
        "chosen: the rate of the single best run. One lucky seed is no reason; take the smallest mean.": {
            arm: rates[arm][int(table.min(0).values.argmin())] for arm, table in tuning.items()
        },
        "chosen: one rate for both arms. The same number is another step for another optimiser.": {
            arm: want[first] for arm in want
        },
        "chosen: one rate for both arms. The same number is another step for another optimiser. ": {
            arm: want[second] for arm in want
        },
    }
    checking.equal(mine["chosen"], want, "chosen", wrong)
    for arm, k in places.items():
        assert 0 < k < len(rates[arm]) - 1, (
            f"chosen: {want[arm]:g} is at the edge of the rates of {arm!r}. The best one may lie outside: add rates there, "
            "and equally many to the other arm."
        )
    both = [rate for rate in rates[first] if rate in rates[second]]
    assert len(both) >= 2, "rates: at least two rates stand on both lists, for `shared`."
    apart = {
        rate: (
            tuning[second].mean(0)[rates[second].index(rate)]
            - tuning[first].mean(0)[rates[first].index(rate)]
        ).item()
        for rate in both
    }
    wrong = {
        "shared: first minus second. As in `gain` it is second minus first.": {
            k: -v for k, v in apart.items()
        }
    }
    checking.equal(mine["shared"], apart, "shared", wrong, tol=1e-5)
    gains = results[second] - results[first]
    mean, error = gains.mean().item(), (gains.std() / math.sqrt(n)).item()
    wrong = {
        "gain: first minus second. The smaller loss is better: second minus first.": -mean,
        "gain: that is the gain on the tuning seeds, where the rates were chosen.": (
            tuning[second].mean(0).min() - tuning[first].mean(0).min()
        ).item(),
        "gain: the median. The interval is one for the mean.": gains.median().item(),
    }
    checking.equal(mine["gain"], mean, "gain", wrong, tol=1e-5)
    right = intervals.t_interval(gains.tolist())
    factor = (right.high - right.mean) / error if error else 0.0
    loose = math.sqrt(sum(table.var().item() for table in results.values()) / n)
    wrong = {
        "low: that is one standard error. A t interval is wider.": mean - error,
        "low: 1.96 belongs to a spread that is known. With few seeds it is estimated: the t interval.": mean
        - 1.96 * error,
        "low: the arms are treated as if they had other seeds. They are pairs: take the differences first.": (
            mean - factor * loose
        ),
        "low: the standard deviation, not divided by the root of the number of seeds.": mean
        - factor * gains.std().item(),
    }
    checking.equal(mine["low"], right.low, "low", wrong, tol=1e-4)
    checking.equal(mine["high"], right.high, "high", tol=1e-4)
    verdict = checking.verdict(mine, right.low, right.high)
    signs = ", ".join(f"{value:+.3f} at {rate:g}" for rate, value in apart.items())
    print(
        f"02.7 passed: {verdict}, gain {right}. With one shared rate: {signs}. Now a person reads the race with the rubric."
    )


check_02_7(race)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Write `run(arm, rate, seed)`, which returns one number. Tuning is a table of it, the race is one column of fresh seeds.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Rates in steps of about three, over two decades and more: then the ends are clearly worse than the middle. Where the
# spread over seeds hides the gain, more seeds help; a better rate does not.
#
# </details>
#
# {{solution}}
