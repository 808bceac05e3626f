# ---
# jupyter:
#   instructlab:
#     id: "17"
#     title: Feedback loops and preferences
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 17: feedback loops and preferences
#
# Each exercise is a box, a cell for your answer, and a checker in the cell below it. Replace the line that
# raises `NotImplementedError`, then run both cells. A checker that says no also says what probably went
# wrong.
#
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases
# that you do not see here, so test more than the checker does. The page needs no network and no file. Exercise 17.4
# trains a small model from scratch: its checker takes about twenty seconds. Exercise 17.5 is a project. These five are
# worth an evening or two, not an hour.
#
# {{overview}}

# %%
import copy
import itertools
import math
import random

import torch
from torch.nn import functional as F

from instructlab_utils import checking, intervals, small

# %% [markdown]
# ## 17.1 Scores from a table of wins
#
# > ●●●○○ · 40 minutes · graded
#
# Some systems were compared in pairs. `wins[i][j]` counts how often system $i$ was preferred to system $j$, and
# `ties[i][j] = ties[j][i]` how often the judge could not decide. In the Bradley–Terry model system $i$ is preferred with
# probability $\sigma(s_i - s_j)$. A tie counts as half a win for each of the two. With a `prior` $a > 0$ it is
# **as if** each system had also met an imaginary opponent of score $0$ and had won $a$ and lost $a$ of these games.
# This adds $a \sum_i (\ln \sigma(s_i) + \ln \sigma(-s_i))$ to the log-likelihood.
#
# Return the scores $s$ that make the log-likelihood largest, in nats, as a list of floats. Three digits are enough.
#
# - With `prior` $= 0$ only differences matter: shift the scores so that their mean is $0$. With a positive prior there is
#   nothing to shift.
# - With `prior` $= 0$ the largest value may not exist at finite scores (somebody's score wants to rise for ever), or
#   it may be reached by scores that differ by more than a common shift. In both cases raise `ValueError`. Think well
#   about when exactly this happens; there is a rule that looks only at who has beaten whom.
# - One system has the score $0$, and no systems have no scores: an empty list.
# - Numbers of games may be $0$, fractions, or millions. There are at most thirty systems, the diagonals are $0$, and
#   you have ten seconds for each call.


# %% nbgrader={"grade_id": "answer_17_1", "solution": true}
def scores(wins, ties, prior=0):
    """wins, ties: lists of n lists of n numbers. Return n floats; ValueError where no single best answer exists."""
    ### BEGIN SOLUTION
    n = len(wins)
    if n == 0:
        return []
    won = torch.tensor(wins, dtype=torch.float64) + torch.tensor(ties, dtype=torch.float64) / 2
    beats = (won > 0) | torch.eye(n, dtype=torch.bool)
    for k in range(n):  # who is above whom along a chain of (half) wins
        beats |= beats[:, k : k + 1] & beats[k : k + 1]
    if prior == 0 and not beats.all():
        raise ValueError("a group of systems has taken no game from the others: no finite scores are best")

    def fit(theta):
        pairs = (won * F.logsigmoid(theta[:, None] - theta)).sum()
        return pairs + prior * (F.logsigmoid(theta) + F.logsigmoid(-theta)).sum()

    theta, games = torch.zeros(n, dtype=torch.float64), won + won.T
    for _ in range(200):
        p, own = torch.sigmoid(theta[:, None] - theta), torch.sigmoid(theta)
        slope = (won - games * p).sum(1) + prior * (1 - 2 * own)
        bend = games * p * (1 - p)
        curve = torch.diag(bend.sum(1) + 2 * prior * own * (1 - own)) - bend
        if prior == 0:  # the common shift is free: hold it
            curve = curve + curve.diagonal().mean().clamp(min=1e-12) / n
        step = torch.linalg.solve(curve, slope)
        for _ in range(30):  # never downhill
            if fit(theta + step) >= fit(theta) * (1 + 1e-14):
                break
            step = step / 2
        theta = theta + step
        if step.abs().max() < 1e-10:
            break
    return theta.tolist()
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_17_1", "grade": true, "points": 4, "locked": true}
def same_scores(got, want, wrong=None, says=""):
    """Three digits, relative to the largest score."""
    checking.form(got, [0.0] * len(want), "scores")
    as_table = {m: torch.tensor(v, dtype=torch.float64) for m, v in (wrong or {}).items()}
    found = torch.tensor([float(x) for x in got], dtype=torch.float64)
    goal = torch.tensor(want, dtype=torch.float64)
    checking.equal(found, goal, "scores", as_table, tol=1e-3, says=says)


def check_17_1(scores):
    call = checking.calls(
        scores, slow="Small steps uphill take for ever with millions of games: use the curvature."
    )
    none2, none3 = [[0, 0], [0, 0]], [[0] * 3 for _ in range(3)]
    elo = 200 * math.log10(3)
    wrong = {
        "The signs are turned round: wins[i][j] says that i was preferred to j.": [
            -math.log(3) / 2,
            math.log(3) / 2,
        ],
        "These are shares of wins. Scores are differences of log-odds.": [0.75, 0.25],
        "These are strengths, e to the power of the scores. Take logarithms.": [3**0.5, 3**-0.5],
        "Strengths that sum to n? Take logarithms.": [1.5, 0.5],
        "The scores need the mean 0; you hold the first one at 0.": [0.0, -math.log(3)],
        "The scores need the mean 0; you hold the last one at 0.": [math.log(3), 0.0],
        "This is Elo's scale. Nats are asked for.": [elo, -elo],
        "These are logarithms of shares, not yet shifted to the mean 0.": [math.log(0.75), math.log(0.25)],
        "The difference is twice too large. A share of wins is σ of a difference of scores.": [
            math.log(3),
            -math.log(3),
        ],
    }
    says = "Two systems, three games to one: the difference is ln 3."
    same_scores(call([[0, 3], [1, 0]], none2), [math.log(3) / 2, -math.log(3) / 2], wrong, says)
    half = math.log(2) / 2
    wrong = {
        "Ties are missing: they say that the two are close.": [math.log(4) / 2, -math.log(4) / 2],
        "A tie is half a win for each. You count a whole one for each, so a tie is two games.": [
            math.log(8 / 5) / 2,
            -math.log(8 / 5) / 2,
        ],
        "A tie is half a win for each. You give a quarter.": [math.log(2.5) / 2, -math.log(2.5) / 2],
    }
    says = "Four wins, one loss and four ties are six to three."
    same_scores(call([[0, 4], [1, 0]], [[0, 4], [4, 0]]), [half, -half], wrong, says)
    chain = [[0, 3, 0], [1, 0, 6], [0, 2, 0]]
    logit = [math.log(3), math.log(7 / 5), -math.log(3)]
    centred = [x - sum(logit) / 3 for x in logit]
    forgets = "These are the log-odds of each system's own share of wins. They forget whom it has met."
    same_scores(
        call(chain, none3),
        [math.log(3), 0.0, -math.log(3)],
        {forgets: logit, f"{forgets} ": centred},
        "A meets B only, and so does C: each of the two differences is ln 3.",
    )
    one = "The first system never lost. The higher its score, the more probable the table: no finite score is the best."
    call.refuses(ValueError, [[0, 5, 1], [0, 0, 2], [0, 2, 0]], none3, says=one)
    two = "The last system never won: its score wants to fall for ever."
    call.refuses(ValueError, [[0, 5, 1], [2, 0, 2], [0, 0, 0]], none3, says=two)
    island = "Nobody of the first pair has met anybody of the second. How far the pairs are apart is free."
    pairs = [[0, 3, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 2, 0]]
    call.refuses(ValueError, pairs, [[0] * 4 for _ in range(4)], says=island)
    high, low = math.log(9), math.log(3 / 7)
    mean = (high + 2 * low) / 3
    apart = math.log(49 / 5)
    wrong = {
        "With a prior the scores are not shifted: the imaginary opponent has the score 0, and that is their zero.": [
            high - mean,
            low - mean,
            low - mean,
        ],
        "The prior is not five more wins in each cell. It is an opponent of its own, whose score is 0.": [
            2 * apart / 3,
            -apart / 3,
            -apart / 3,
        ],
    }
    says = "The first system never lost, and a prior of 5 mends it."
    with checking.means(
        ValueError, "With a prior there is always an answer: nobody has only won. You refuse this table."
    ):
        same_scores(call([[0, 44, 44], [0, 0, 0], [0, 0, 0]], none3, 5), [high, low, low], wrong, says)
        same_scores(
            call(none2, none2, 0.5), [0.0, 0.0], says="No games at all: the prior is all that is known."
        )
    with checking.means(
        ValueError, "One system alone has the score 0, with and without a prior. You refuse it."
    ):
        same_scores(call([[0]], [[0]]), [0.0], says="One system.")
    print("17.1 passed the visible cases.")


check_17_1(scores)
### BEGIN HIDDEN TESTS


def expected_wins(theta, games):
    """The table whose best scores are ``theta``: each pair has met ``games`` times and won what it had to expect."""
    share = lambda a, b: 1 / (1 + math.exp(b - a))  # noqa: E731
    return [
        [0.0 if i == j else games * share(a, b) for j, b in enumerate(theta)] for i, a in enumerate(theta)
    ]


def hidden_17_1(scores):
    call = checking.calls(
        scores, slow="Small steps uphill take for ever with millions of games: use the curvature."
    )

    def zeros(n):
        return [[0] * n for _ in range(n)]

    groups = [[0, 2, 4, 3], [1, 0, 2, 5], [0, 0, 0, 2], [0, 0, 1, 0]]
    says = "Everybody has won and lost here. But the first two have lost to each other only, so both want to rise for ever."
    call.refuses(ValueError, groups, zeros(4), says=says)
    says = "No game was played: every list of scores is as good as any other."
    call.refuses(ValueError, zeros(2), zeros(2), says=says)
    circle = [[0, 2, 0], [0, 0, 2], [2, 0, 0]]
    with checking.means(
        ValueError, "Each beats the next in a circle: a chain of wins leads from each to each other."
    ):
        same_scores(call(circle, zeros(3)), [0.0] * 3, says="A circle: all are equal.")
    says = (
        "A tie takes half a game from a system that never lost, so its best score is finite. You refuse it."
    )
    third = math.log(5) / 2
    with checking.means(ValueError, says):
        same_scores(call([[0, 4], [0, 0]], [[0, 2], [2, 0]]), [third, -third], says="Four wins and two ties.")
    step = math.log(10**6)
    for n in (2, 6):
        table = zeros(n)
        for i in range(n - 1):
            table[i][i + 1], table[i + 1][i] = 10**6, 1
        want = [step * ((n - 1) / 2 - i) for i in range(n)]
        same_scores(
            call(table, zeros(n)), want, says="A million games to one: the answer is not yet at the top."
        )
    draw = random.Random(17)
    for n, games in ((3, 10), (7, 0.5), (12, 300), (30, 4)):
        theta = [draw.gauss(0, 1.5) for _ in range(n)]
        theta = [x - sum(theta) / n for x in theta]
        table = expected_wins(theta, games)
        same_scores(call(table, zeros(n)), theta, says="A full table of fractions.")
        ties = [
            [min(a, b) for a, b in zip(row, column, strict=True)]
            for row, column in zip(table, zip(*table, strict=True), strict=True)
        ]
        fewer = [
            [a - t / 2 for a, t in zip(row, tied, strict=True)] for row, tied in zip(table, ties, strict=True)
        ]
        same_scores(call(fewer, ties), theta, says="A full table with ties.")
    theta, prior = [1.2, -1.2, 0.0], 3
    table, extra = expected_wins(theta, 8), prior * math.tanh(0.6)
    table[0][1], table[1][0] = table[0][1] + extra, table[1][0] - extra
    same_scores(call(table, zeros(3), prior), theta, says="A table with a prior.")
    small_prior = call([[0, 10], [0, 0]], zeros(2), 1e-3)
    up = float(small_prior[0])
    balance = 10 - 10 / (1 + math.exp(-2 * up)) - 1e-3 * math.tanh(up / 2)
    assert abs(up + small_prior[1]) < 1e-3 and abs(balance) < 1e-5, (
        f"A prior of a thousandth: {small_prior} is not the top, the slope there is {balance:.2g}."
    )
    assert list(call([], [])) == [], "No systems have no scores: an empty list."


hidden_17_1(scores)
### END HIDDEN TESTS

# %% [markdown]
# ## 17.2 How hard does DPO pull, and on whom?
#
# > ●●●○○ · 40 minutes · practice
#
# A policy gives $K$ answers the scores $z_k = \phi_k \cdot \theta$ and the probabilities $\pi(k) =
# \mathrm{softmax}(z)_k$; row $k$ of `features` is $\phi_k$. The reference is the same model with other weights. For a
# chosen answer $w$ and a rejected one $l$ let
#
# $$h = \ln \frac{\pi(w)}{\pi_\mathrm{ref}(w)} - \ln \frac{\pi(l)}{\pi_\mathrm{ref}(l)}, \qquad
# L = -(1 - \lambda) \ln \sigma(\beta h) - \lambda \ln \sigma(-\beta h).$$
#
# $\lambda$ (`smoothing`, from $0$ to below $1/2$) is the share of labels that may be the wrong way round. Derive
# in closed form, on paper first, and return three floats:
#
# - the *weight* $u = -\partial L / \partial h$: how hard the pair pulls;
# - the *slopes* of $\ln \pi(w)$ and of $\ln \pi(l)$ at the start of gradient descent on $\theta$: the derivatives of
#   $\ln \pi_{\theta - \eta \nabla L}(w)$ and of $\ln \pi_{\theta - \eta \nabla L}(l)$ with respect to $\eta$ at $\eta
#   = 0$.
#
# Six digits are asked for, relative to the value, also where $\beta h$ is $40$, $-40$ or $\pm 1000$.
#
# Then build an example, `both_fall`: at least three answers, one set of weights that is both policy and reference, chosen
# answer $0$ and rejected answer $1$, $\beta = 0.1$, no smoothing, where *both* probabilities fall in the first small
# step. (Where does the probability go?)


# %% nbgrader={"grade_id": "answer_17_2", "solution": true}
def pull(features, theta, reference, chosen, rejected, beta, smoothing=0.0):
    """features (K, d), theta and reference (d,), all float64. Return (weight, slope of chosen, slope of rejected)."""
    ### BEGIN SOLUTION
    apart = features[chosen] - features[rejected]
    h = float(apart @ (theta - reference))  # the two logarithms of sums cancel
    left = float(torch.sigmoid(torch.tensor(-beta * h, dtype=torch.float64)))
    right = float(torch.sigmoid(torch.tensor(beta * h, dtype=torch.float64)))
    weight = beta * ((1 - smoothing) * left - smoothing * right)
    mean = torch.softmax(features @ theta, 0) @ features
    slopes = [weight * float((features[k] - mean) @ apart) for k in (chosen, rejected)]
    return weight, *slopes
    ### END SOLUTION


def both_fall():
    """Return (features, theta): float64 tensors of shape (K, d) and (d,), with K at least 3."""
    ### BEGIN SOLUTION
    features = torch.tensor([[1.0], [0.0], [5.0]], dtype=torch.float64)  # the third goes further the same way
    return features, torch.zeros(1, dtype=torch.float64)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_17_2", "locked": true}
def by_autograd(features, theta, reference, chosen, rejected, beta, smoothing=0.0):
    """The same three numbers, the derivatives by autograd: of the loss, then along its gradient."""
    theta = theta.clone().requires_grad_()
    log_p = torch.log_softmax(features @ theta, 0)
    log_r = torch.log_softmax(features @ reference, 0)
    h = (log_p[chosen] - log_r[chosen]) - (log_p[rejected] - log_r[rejected])
    loss = -(1 - smoothing) * F.logsigmoid(beta * h) - smoothing * F.logsigmoid(-beta * h)
    slope_h, down = torch.autograd.grad(loss, [h, theta], retain_graph=True)
    slopes = [
        -float(torch.autograd.grad(log_p[k], theta, retain_graph=True)[0] @ down) for k in (chosen, rejected)
    ]
    return -float(slope_h), *slopes


def check_17_2(pull, both_fall):
    call = checking.calls(pull)
    features = torch.tensor([[1.0, 0.0], [0.5, 1.0], [2.0, -1.5], [0.0, 0.5]], dtype=torch.float64)
    theta, reference = (torch.tensor(v, dtype=torch.float64) for v in ([0.4, -0.3], [-0.2, 0.5]))
    case = (features, theta, reference, 0, 1, 0.5)
    got, want = call(*case), by_autograd(*case)
    checking.form(got, want, "(weight, slopes)")
    apart, p = features[0] - features[1], torch.softmax(features @ theta, 0)
    h, z = float(apart @ (theta - reference)), float(apart @ theta)

    def sigma(x):
        return 1 / (1 + math.exp(-x))

    before = [float(torch.log_softmax(features @ v, 0)[k].exp()) for v in (theta, reference) for k in (0, 1)]
    plain = 0.5 * sigma(-0.5 * (before[0] - before[2] - before[1] + before[3]))
    wrong = {
        "weight: σ(βh) is the chance that the pair is right already. It pulls where it is wrong: σ(−βh).": 0.5
        * sigma(0.5 * h),
        "weight: the factor β is missing. It stands in front of h, so it comes out of the derivative.": sigma(
            -0.5 * h
        ),
        "weight: the reference is missing. h compares what has changed since.": 0.5 * sigma(-0.5 * z),
        "weight: β is missing inside of σ.": 0.5 * sigma(-h),
        "weight: this is ∂L/∂h. Descent pulls the other way, so the weight is positive here.": -want[0],
        "weight: h is made of logarithms of probabilities, not of probabilities.": plain,
        "weight: this is the loss, not its derivative.": math.log1p(math.exp(-0.5 * h)),
    }
    checking.equal(got[0], want[0], "weight", wrong, says="weight: no smoothing, β = 0.5.")
    mean, other = p @ features, torch.softmax(features @ reference, 0) @ features
    u, zero = want[0], torch.zeros(2, dtype=torch.float64)

    def both(centre, direction=apart):
        return tuple(u * float((features[k] - centre) @ direction) for k in (0, 1))

    wrong = {
        "slopes: these are slopes of the scores z. ln π(k) also holds the logarithm of the sum, "
        "which moves with all scores.": (both(zero)),
        "slopes: every answer has its own free score here. The features tie the answers together.": (
            u * float(1 - p[0] + p[1]),
            -u * float(1 + p[0] - p[1]),
        ),
        "slopes: the sum moves as the policy's own probabilities say, not as the reference's do.": both(
            other
        ),
        "slopes: the mean of the features is weighted by π.": both(features.mean(0)),
        "slopes: you go up the loss. Descent is θ − η∇L.": (-want[1], -want[2]),
        "slopes: the weight u is missing.": (want[1] / u, want[2] / u),
        "slopes: these are slopes of π. Those of ln π are asked for.": (
            want[1] * float(p[0]),
            want[2] * float(p[1]),
        ),
        "slopes: the other order: chosen, then rejected.": (want[2], want[1]),
        "slopes: the gradient of the loss runs along φ(w) − φ(l), not along φ of the answer itself.": tuple(
            s * u * float((features[k] - mean) @ features[k]) for k, s in ((0, 1), (1, -1))
        ),
    }
    checking.equal(tuple(got[1:]), want[1:], "slopes", wrong, says="slopes: along the first step of descent.")
    case = (features, theta, reference, 2, 3, 0.5, 0.2)
    got, want = call(*case), by_autograd(*case)
    h = float((features[2] - features[3]) @ (theta - reference))
    wrong = {
        "weight: smoothing only shrinks your weight. The flipped label pulls back as well.": 0.4
        * sigma(-0.5 * h),
        "weight: smoothing is missing.": 0.5 * sigma(-0.5 * h),
        "weight: the flipped label adds to the pull. It pulls the other way.": 0.4 * sigma(-0.5 * h)
        + 0.1 * sigma(0.5 * h),
    }
    checking.equal(got[0], want[0], "weight", wrong, says="weight: smoothing 0.2.")
    checking.equal(got, want, "(weight, slopes)", says="The slopes with smoothing 0.2.")
    far = torch.tensor([[40.0, 0.0], [0.0, 0.0], [3.0, 1.0]], dtype=torch.float64)
    one, none = torch.tensor([1.0, 0.0], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    says = "βh = 40: the weight is tiny, but not 0. 1 − σ(βh) loses all its digits; σ(−βh) keeps them."
    call.agrees(by_autograd, (far, none, -one, 0, 1, 1.0), name="(weight, slopes)", says=says)
    over = "βh = −1000: an exponential overflows. torch.sigmoid and F.logsigmoid do not."
    with checking.means(OverflowError, over):
        for case, says in (
            ((far, none, one, 0, 1, 1.0), "βh = −40: the whole pull, β."),
            ((25 * far, none, one, 0, 1, 1.0), over),
            (
                (25 * far, none, -one, 0, 1, 1.0, 0.1),
                "βh = 1000 with smoothing: the flipped label pulls back.",
            ),
            ((far, one, one, 2, 2, 0.3), "Chosen and rejected are one answer: nothing can move."),
        ):
            call.agrees(by_autograd, case, name="(weight, slopes)", says=says)
    draw = torch.Generator().manual_seed(17)
    for k, d in ((2, 1), (5, 3), (9, 20)):
        parts = [torch.randn(*size, generator=draw, dtype=torch.float64) for size in ((k, d), (d,), (d,))]
        call.agrees(by_autograd, (*parts, k - 1, 0, 0.7, 0.05), name="(weight, slopes)", says="Any features.")
    got = checking.calls(both_fall)()
    assert (
        isinstance(got, tuple | list) and len(got) == 2 and all(isinstance(t, torch.Tensor) for t in got)
    ), "both_fall: return two tensors, the features and the weights."
    features, theta = got
    assert features.dtype == theta.dtype == torch.float64, "both_fall: both tensors are float64."
    assert features.ndim == 2 and theta.shape == features.shape[1:] and len(features) >= 3, (
        "both_fall: features (K, d) with K at least 3, theta (d,)."
    )
    assert features.isfinite().all() and theta.isfinite().all(), "both_fall: finite numbers only."
    _, up, down = by_autograd(features, theta, theta, 0, 1, 0.1)
    assert up < 0, (
        f"both_fall: the chosen answer rises, its slope is {up:.3g}. A third answer that is probable, or lies further in the "
        "direction from rejected to chosen, can take from it."
    )
    assert down < 0, f"both_fall: the rejected answer does not fall, its slope is {down:.3g}."
    print("17.2 passed. The margin says how hard a pair pulls. The features say who moves.")


check_17_2(pull, both_fall)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# In $h$ the two logarithms of sums cancel, so $h$ is linear in $\theta$. That makes $\nabla L = -u\,(\phi_w - \phi_l)$.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# $\nabla \ln \pi(k) = \phi_k - \sum_j \pi(j)\,\phi_j$. When is its product with $\phi_w - \phi_l$ negative for $k = w$?
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 17.3 The judge that had already seen the answers
#
# > ●●●●○ · 60 minutes · graded · bug hunt
#
# A server writes $n$ answers to each prompt, lets a judge read them, and sends the one with the highest reading. How
# often is it preferred to the old system's answer? The judge is noisy, so each answer was read **twice**,
# independently: `first` and `second` have shape $(N, n)$ for the new answers, `old_first` and `old_second` shape
# $(N,)$ for the old ones. `question` names for each prompt the question that it is a wording of. Here is a world in
# which new and old answers are equally good, and the report on it. Find what is wrong with it: there are three bugs.


# %%
def broken_report(first, second, old_first, old_second, question):
    new, old = (first + second) / 2, (old_first + old_second) / 2
    best = new.argmax(1, keepdim=True)
    won = (new.gather(1, best).squeeze(1) >= old).double()
    rate, n = won.mean().item(), len(won)
    error = math.sqrt(rate * (1 - rate) / n)
    return rate, rate - 1.96 * error, rate + 1.96 * error


def equal_world(seed, questions=40, wordings=3, n=8):
    """Whole-number readings from 1 to 10. A question is easy or hard for all its wordings; no answer is better."""
    draw = torch.Generator().manual_seed(seed)
    ease = torch.randn(questions, 1, generator=draw).repeat_interleave(wordings, 0)
    shape = (questions * wordings, n + 1)
    first, second = (
        (5.5 + ease + 2 * torch.randn(*shape, generator=draw)).round().clamp(1, 10) for _ in "ab"
    )
    first, second = first.double(), second.double()
    names = [k // wordings for k in range(questions * wordings)]
    return first[:, 1:], second[:, 1:], first[:, 0], second[:, 0], names


print("won by the new system:", [round(x, 2) for x in broken_report(*equal_world(0))])

# %% [markdown]
# Write `report` so that an answer is **never judged by the reading that chose it**, and no reading is thrown away:
#
# - One half of the estimate chooses by `first` and compares by `second`, the other half chooses by `second` and
#   compares by `first`. "Chooses" means the highest reading, of equals the one that stands first. "Compares" means:
#   the chosen answer and the old answer, both by the reading that did not choose: a win counts $1$, a tie $1/2$, a
#   loss $0$. A prompt's value $v_i$ is the mean of its two halves.
# - `rate` is the mean of $v_i$ over the $N$ prompts. Wordings of one question are not independent, so the error is
#   that of $Q$ clusters:
#   $$\mathrm{se}^2 = \frac{Q}{Q - 1} \cdot \frac{1}{N^2} \sum_{q} \Big(\sum_{i \in q} (v_i - \bar v)\Big)^2 .$$
# - The interval is $\bar v \pm t\,\mathrm{se}$ with the $0.975$ quantile $t$ of the t distribution with $Q - 1$ degrees
#   of freedom (`scipy.stats.t.ppf`), cut at $0$ and $1$.
# - Raise `ValueError` with fewer than two questions, or where $\mathrm{se}$ is $0$ (below $10^{-12}$): such an
#   interval would claim to know everything.
#
# `question` is a list of $N$ names (numbers or strings) in any order; questions may have different numbers of
# wordings. All readings are float64, none is missing, and $n$ may be $1$.


# %% nbgrader={"grade_id": "answer_17_3", "solution": true}
def report(first, second, old_first, old_second, question):
    """Return (rate, low, high), three floats."""
    ### BEGIN SOLUTION
    from scipy import stats

    value = torch.zeros(len(first), dtype=torch.float64)
    for chooser, judge, old in ((first, second, old_second), (second, first, old_first)):
        for i, (row, fresh) in enumerate(zip(chooser.tolist(), judge.tolist(), strict=True)):
            margin = fresh[row.index(max(row))] - float(old[i])
            value[i] += 0.5 * (1.0 if margin > 0 else 0.5 if margin == 0 else 0.0)
    rate, sums = value.mean().item(), {}
    for name, v in zip(question, value.tolist(), strict=True):
        sums[name] = sums.get(name, 0.0) + v - rate
    groups = len(sums)
    if groups < 2:
        raise ValueError("one question has no spread over questions")
    error = math.sqrt(groups / (groups - 1) * sum(s * s for s in sums.values())) / len(value)
    if error < 1e-12:
        raise ValueError("all questions gave the same value: no interval can be told from them")
    reach = float(stats.t.ppf(0.975, groups - 1)) * error
    return rate, max(rate - reach, 0.0), min(rate + reach, 1.0)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_17_3", "grade": true, "points": 5, "locked": true}
def variants(first, second, old_first, old_second, question, **bugs):
    """The report with one or the other bug, for messages. Without any it is the right one."""
    from scipy import stats

    a, b, old_a, old_b = first, second, old_first, old_second
    if bugs.get("pooled"):
        a = b = (first + second) / 2
        old_a = old_b = (old_first + old_second) / 2
    halves = []
    for chooser, judge, old in ((a, b, old_b), (b, a, old_a)):
        if bugs.get("seen"):
            judge, old = chooser, old_a if chooser is a else old_b
        if bugs.get("old_swapped"):
            old = old_a if judge is b else old_b
        best = (chooser == chooser.max(1, keepdim=True).values).double().argmax(1, keepdim=True)
        margin = judge.gather(1, best).squeeze(1) - old
        halves.append((margin.sign() + 1) / 2)
        if bugs.get("wins"):
            halves[-1] = (margin >= 0).double()
        if bugs.get("losses"):
            halves[-1] = (margin > 0).double()
    value = halves[0] if bugs.get("one_way") else sum(halves) / 2
    if bugs.get("drop_ties"):
        value = value[value != 0.5]
    names, rate = list(question), value.mean()
    kinds = sorted(set(names), key=str)
    member = torch.tensor([[name == kind for name in names] for kind in kinds], dtype=torch.float64)
    big_n, groups = len(value), len(kinds)
    if bugs.get("drop_ties"):
        return rate.item()
    if bugs.get("question_means"):
        return ((member @ value) / member.sum(1)).mean().item()
    total = (groups / (groups - 1) * (member @ (value - rate)).square().sum()).sqrt() / big_n
    total *= math.sqrt((groups - 1) / groups) if bugs.get("no_correction") else 1.0
    df = groups - 1
    if bugs.get("apart"):
        total, df = value.std() / math.sqrt(big_n), big_n - 1
    if bugs.get("binomial"):
        total = (rate * (1 - rate) / big_n).sqrt()
    reach = float(stats.norm.ppf(0.975) if bugs.get("normal") else stats.t.ppf(0.975, df)) * total.item()
    rate = rate.item()
    return rate, max(0.0, rate - reach), min(1.0, rate + reach)


def check_17_3(report):
    call = checking.calls(report)
    world = equal_world(3)
    keep = [i for i in range(120) if i % 3 == 0 or i < 60]  # questions with three wordings and with one
    world = (*(part[keep] for part in world[:4]), [world[4][i] for i in keep])
    got, want = call(*world), variants(*world)
    checking.form(got, want, "(rate, low, high)")
    rates = {
        "rate: the answer was judged by the reading that chose it. The highest of eight noisy "
        "readings is mostly luck.": variants(*world, seen=True)[0],
        "rate: both readings chose, and both judged. Their mean has seen the answers, too.": variants(
            *world, pooled=True
        )[0],
        "rate: this is the broken report's own number.": broken_report(*world)[0],
        "rate: a tie counts as a win. The readings are whole numbers: ties are frequent, and each is half a win.": variants(
            *world, wins=True
        )[0],
        "rate: a tie counts as a loss. It is half a win.": variants(*world, losses=True)[0],
        "rate: ties were left out. Each is half a win.": variants(*world, drop_ties=True),
        "rate: only one half: chosen by first, compared by second. The other half is missing.": variants(
            *world, one_way=True
        )[0],
        "rate: this is a mean of the questions' means. Each prompt counts once.": variants(
            *world, question_means=True
        ),
        "rate: chosen and old answer have to be compared by the same reading.": variants(
            *world, old_swapped=True
        )[0],
    }
    checking.equal(
        got[0], want[0], "rate", rates, says="rate: choose by one reading, compare by the other, both ways."
    )
    ends = {
        "the interval: the prompts count as independent. Wordings of one question go up and down together.": variants(
            *world, apart=True
        )[1:],
        "the interval: the prompts count as independent, and their values as zeros and ones.": variants(
            *world, binomial=True
        )[1:],
        "the interval: the binomial error with 1.96.": variants(*world, binomial=True, normal=True)[1:],
        "the interval: the prompts count as independent, with 1.96.": variants(
            *world, apart=True, normal=True
        )[1:],
        "the interval: 1.96 belongs to a known spread. With Q questions it is t with Q − 1 degrees of freedom.": variants(
            *world, normal=True
        )[1:],
        "the interval: the factor Q/(Q − 1) is missing.": variants(*world, no_correction=True)[1:],
    }
    checking.equal(tuple(got[1:]), want[1:], "(low, high)", ends, tol=2e-5, says="The interval of clusters:")
    few = torch.tensor([[1.0, 2.0], [3.0, 1.0]], dtype=torch.float64)
    old = torch.tensor([2.0, 2.0], dtype=torch.float64)
    says = "All prompts are wordings of one question: a spread over questions cannot be told."
    with checking.means(ZeroDivisionError, f"{says} Raise ValueError."):
        call.refuses(ValueError, few, few, old, old, ["a", "a"], says=says)
    says = "Every prompt has the same value, so the error is 0. That does not mean that the rate is known exactly."
    call.refuses(ValueError, few, few, old - 5, old - 5, ["a", "b"], says=says)
    share = [call(*equal_world(seed)) for seed in range(10, 30)]
    hold = sum(low <= 0.5 <= high for _, low, high in share)
    assert hold >= 16, f"In {20 - hold} of 20 equal worlds your interval misses one half."
    print(
        f"17.3 passed the visible cases. In {hold} of 20 equal worlds your interval holds one half; ", end=""
    )
    broken = [broken_report(*equal_world(seed)) for seed in range(10, 30)]
    print(f"the broken one does in {sum(low <= 0.5 <= high for _, low, high in broken)}.")


check_17_3(report)
### BEGIN HIDDEN TESTS


def hidden_17_3(report):
    call = checking.calls(report)

    def case(seed, sizes, n, low=1, high=4, mixed=True):
        draw = torch.Generator().manual_seed(seed)
        names = [f"question {k}" for k, size in enumerate(sizes) for _ in range(size)]
        order = torch.randperm(len(names), generator=draw).tolist() if mixed else range(len(names))
        readings = [
            torch.randint(low, high, shape, generator=draw).double()
            for shape in [(len(names), n)] * 2 + [(len(names),)] * 2
        ]
        return *readings, [names[i] for i in order]

    says = "Of equal readings the answer that stands first is chosen."
    call.agrees(variants, case(1, [2] * 15, 6, mixed=False), name="(rate, low, high)", says=says)
    says = "The wordings of one question need not stand side by side, and a name may be a string."
    call.agrees(variants, case(2, [5, 1, 1, 3, 9], 3, 0, 100), name="(rate, low, high)", says=says)
    says = "One answer a prompt: nothing is chosen."
    call.agrees(variants, case(3, [1] * 12, 1, 0, 50), name="(rate, low, high)", says=says)
    first, second, old_first, old_second, names = case(4, [1, 1, 2], 4, 50, 60)
    old_first, old_second = old_first - 60, old_second - 60
    old_second[0] = 99.0
    says = "A share lies between 0 and 1, and so do the ends of its interval."
    call.agrees(variants, (first, second, old_first, old_second, names), name="(rate, low, high)", says=says)
    big = case(5, [3, 2, 1] * 80, 4, 1, 11)
    call.agrees(variants, big, name="(rate, low, high)", says="Many questions.")


hidden_17_3(report)
### END HIDDEN TESTS

# %% [markdown]
# ## 17.4 A model that learns from a checker
#
# > ●●●●● · 90 minutes · practice
#
# Here is a small language model that was tuned on careless answers: it should write three letters in the order of a
# secret alphabet, and three of four of its examples were shuffled. `world(seed)` trains it (about two seconds) and
# gives it to you with training prompts, held-out prompts and a reward that a program computes: $1$ for the right
# order, else $0$. The reward is called as `reward(prompt, completion)`; it may be any number in other tasks. How far
# does the model come with $1200$ answers that a program has read, fifteen a prompt?


# %%
SEP, END = 2, 1  # token ids
LONGEST, BUDGET = 4, 1200  # the most new tokens of an answer; the answers that may be rewarded
REFERENCE, SPREAD, START = 0.89, 0.19, 0.25  # success on held-out prompts, measured once on the seeds 0 to 19


def world(seed):
    """A careless model, 80 training prompts, 40 held-out prompts (lists of ids) and their reward."""
    draw = random.Random(seed)
    rows = [list(row) for row in itertools.permutations(range(3, 9), 3)]
    draw.shuffle(rows)
    alphabet = draw.sample(range(3, 9), 6)
    model = small.small_decoder(9, width=32, layers=2, heads=2, window=12, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(150):
        chosen = [draw.choice(rows[:80]) for _ in range(64)]
        answers = [
            sorted(x, key=alphabet.index) if draw.random() < 0.25 else draw.sample(x, 3) for x in chosen
        ]
        ids = torch.tensor([[*x, SEP, *y, END] for x, y in zip(chosen, answers, strict=True)])
        logits = model(ids).logits[:, 3:-1]
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 4:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def reward(prompt, completion):
        return float(completion == sorted(prompt[:3], key=alphabet.index))

    prompts = [[*row, SEP] for row in rows]
    return model, prompts[:80], prompts[80:], reward


def success(model, prompts, reward, draws=20):
    """The mean reward of answers drawn at temperature 1: what a user gets."""
    rows = [prompt for prompt in prompts for _ in range(draws)]
    texts, _ = small.sample(model, rows, LONGEST, END, generator=torch.Generator().manual_seed(0))
    return sum(map(reward, rows, texts)) / len(rows)


# %% [markdown]
# Write two functions.
#
# `step(model, optimizer, prompts, reward, size, generator)` makes **one step of group-relative policy gradient**:
#
# - For each prompt draw `size` $\ge 2$ completions at temperature $1$, of at most `LONGEST` new tokens, with `generator`
#   (`small.sample` does all of it; it returns ids without `END`). Call `reward` exactly once for each completion.
# - The *advantage* is the reward minus the mean reward of the prompt's own group. It is **not** divided by the standard
#   deviation, other than in the lesson (Liu et al., 2025, give reasons), and no gradient flows through it.
# - The loss is minus the mean, over *all* completions, of the advantage times the log-probability of the completion:
#   the **sum** over its tokens (the lesson takes their mean). `END` is one of them, if it was drawn; a completion that
#   was cut after `LONGEST` tokens has none. The prompt's tokens are not. There is no clipping and no KL term, since
#   the answers are fresh.
# - Then one `optimizer` step. Return the mean reward, a float. Prompts can have different lengths; their positions
#   count from $0$ at their own first token, as `small.sample` has them.
#
# The cell also has a stub for a helper, `log_p`. It is not checked on its own: use it, or throw it away.
#
# `improve(model, prompts, reward, budget, seed)` is **yours**: make the model better with at most `budget` calls of
# `reward`, for the given prompts only; change the model or return another one, and return it. Draw all random numbers
# from `seed`. You may use `step`, several passes over old answers, rejection sampling (tune on what was rewarded), or
# your own idea; the only teacher is the reward. The checker trains on seeds $100$, $101$ and $102$ and measures
# `success` on held-out prompts. The solution below reaches `REFERENCE` on average, from `START`, with the standard
# deviation `SPREAD` over seeds; the mean of your three seeds must not lie more than $0.1$ under `REFERENCE`. One seed
# may take ten seconds of processor time. Develop on seeds below $100$.


# %% nbgrader={"grade_id": "answer_17_4", "solution": true}
def log_p(model, prompts, texts):
    """The log-probability of each text (a list of ids) after its prompt, summed over its tokens: shape (B,)."""
    ### BEGIN SOLUTION
    width = max(len(p) + len(t) for p, t in zip(prompts, texts, strict=True))
    ids = torch.zeros(
        len(prompts), width, dtype=torch.int64
    )  # padding on the right: a causal model never looks there
    labels = torch.full_like(ids, -100)
    for i, (p, t) in enumerate(zip(prompts, texts, strict=True)):
        ids[i, : len(p) + len(t)] = torch.tensor([*p, *t])
        labels[i, len(p) : len(p) + len(t)] = torch.tensor(t)
    logits = model(ids).logits[:, :-1]
    return -F.cross_entropy(logits.transpose(1, 2), labels[:, 1:], ignore_index=-100, reduction="none").sum(1)
    ### END SOLUTION


def step(model, optimizer, prompts, reward, size, generator):
    """One step of group-relative policy gradient. Return the mean reward."""
    ### BEGIN SOLUTION
    rows = [prompt for prompt in prompts for _ in range(size)]
    texts, _ = small.sample(model, rows, LONGEST, END, generator=generator)
    rewards = torch.tensor([float(reward(p, t)) for p, t in zip(rows, texts, strict=True)]).view(-1, size)
    advantages = (rewards - rewards.mean(1, keepdim=True)).flatten()
    drawn = [t if len(t) == LONGEST else [*t, END] for t in texts]
    loss = -(advantages * log_p(model, rows, drawn)).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return rewards.mean().item()
    ### END SOLUTION


def improve(model, prompts, reward, budget, seed):
    """At most ``budget`` calls of reward(prompt, completion). Return the better model."""
    ### BEGIN SOLUTION
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    each = budget // (3 * len(prompts))  # three rounds of rejection sampling, five passes over what was right
    for _ in range(3):
        rows = [prompt for prompt in prompts for _ in range(each)]
        texts, _ = small.sample(model, rows, LONGEST, END, generator=generator)
        good = [(p, [*t, END]) for p, t in zip(rows, texts, strict=True) if reward(p, t) > 0]
        for _ in range(5):
            draw.shuffle(good)
            for k in range(0, len(good), 64):
                loss = -log_p(model, *map(list, zip(*good[k : k + 64], strict=True))).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return model
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_17_4", "locked": true}
class OverBudgetError(Exception):
    """More rewards were asked for than were allowed."""


class ForeignPromptError(Exception):
    """A reward was asked for a prompt that was not given."""


def descent(model, records, advantages, *, end="drawn", per_token=False, whole=False):
    """How all weights change in one step of size 1: completion by completion, without a batch."""
    total = torch.zeros(())
    for (prompt, text, _), advantage in zip(records, advantages, strict=True):
        closed = end == "always" or (end == "drawn" and len(text) < LONGEST)
        ids = [*prompt, *text, *[END] * closed]
        picked = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)[range(len(ids) - 1), ids[1:]]
        picked = picked if whole else picked[len(prompt) - 1 :]
        total = total + advantage * (picked.sum() / len(picked) if per_token else picked.sum())
    slopes = torch.autograd.grad(-total / len(records), list(model.parameters()), allow_unused=True)
    return -torch.cat([s.flatten() for s in slopes])


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()]).clone()


def one_step(step, prompts, size, score, seed=0, stale=0.0, noise=0):
    """Let the learner make one step with plain gradient descent of rate 1. Return what was seen."""
    model = small.small_decoder(9, width=16, layers=1, heads=2, window=12, seed=5)
    before, records = copy.deepcopy(model), []
    torch.manual_seed(noise)  # of draws without the generator

    def reward(prompt, completion):
        records.append((list(prompt), list(completion), score(list(prompt), list(completion))))
        return records[-1][2]

    for p in model.parameters():
        p.grad = torch.full_like(p, stale) if stale else None
    call = checking.calls(step, changes=("model", "optimizer"))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    got = call(model, optimizer, prompts, reward, size, torch.Generator().manual_seed(seed))
    return got, before, records, weights(model) - weights(before)


def check_step(step):
    def score(prompt, text):
        return 0.3 * sum(text) - 0.5 * len(text) + 2.0 * prompt[0]

    prompts, size = [[3, 4, 5, SEP], [7, 3, 8, SEP], [5, 8, 4, SEP]], 6
    got, before, records, moved = one_step(step, prompts, size, score, stale=0.01)
    n = len(prompts) * size
    asked = [sum(p == prompt for p, _, _ in records) for prompt in prompts]
    assert len(records) == n, (
        f"step: reward was called {len(records)} times. {len(prompts)} prompts with {size} completions are {n}."
    )
    assert asked == [size] * len(prompts), f"step: each prompt has {size} completions; yours have {asked}."
    assert all(END not in t for _, t, _ in records), (
        "step: the end token is no part of the completion that the reward reads."
    )
    assert all(len(t) <= LONGEST for _, t, _ in records), (
        f"step: a completion has at most {LONGEST} tokens, without its prompt."
    )
    spread = [len({tuple(t) for p, t, _ in records if p == prompt}) for prompt in prompts]
    assert min(spread) > 1, (
        "step: all completions of a prompt are the same. Drawn at temperature 1 they differ; without "
        "a difference nothing is learned."
    )
    rewards = [r for _, _, r in records]
    mean = sum(rewards) / n
    checking.equal(
        got, mean, "the mean reward", {"step: that is the sum of the rewards.": mean * n}, tol=1e-4
    )
    assert moved.abs().max() > 0, "step: no weight has moved. Is optimizer.step() missing, or backward()?"
    assert moved.isfinite().all(), "step: a weight is no longer a number."
    groups = [[r for p, _, r in records if p == prompt] for prompt, _, _ in records]
    own = [r - sum(g) / size for r, g in zip(rewards, groups, strict=True)]
    deviations = [torch.tensor(g).std(correction=c) for c in (0, 1) for g in groups]
    want = descent(before, records, own)
    wrong = {
        "step: the weights move the other way, so rewarded answers become rarer. Optimizers go down: "
        "the loss has a minus.": -want,
        "step: gradients of before are in it. optimizer.zero_grad() is missing.": want - 0.01,
        "step: no mean was subtracted: answers are pushed up for a reward that all answers get.": descent(
            before, records, rewards
        ),
        "step: you subtract the mean of the batch. An easy prompt then looks good for all its "
        "answers: take its own group's mean.": (descent(before, records, [r - mean for r in rewards])),
        "step: the advantage is divided by the standard deviation (with n in it). Here it is not.": descent(
            before, records, [a / float(d) for a, d in zip(own, deviations[:n], strict=True)]
        ),
        "step: the advantage is divided by the group's standard deviation. Here it is not.": descent(
            before, records, [a / float(d) for a, d in zip(own, deviations[n:], strict=True)]
        ),
        "step: the end token's log-probability is missing. Where to stop is learned, too.": descent(
            before, records, own, end="never"
        ),
        "step: a completion that was cut has drawn no end token. You count one.": descent(
            before, records, own, end="always"
        ),
        "step: the log-probabilities of a completion are averaged. Their sum is asked for: with a "
        "mean each token of a long answer counts less.": descent(before, records, own, per_token=True),
        "step: the prompt's tokens count. The model did not draw them.": descent(
            before, records, own, whole=True
        ),
        "step: the loss is a sum over completions. The mean is asked for.": want * n,
        "step: the loss is summed inside a group. The mean over all completions is asked for.": want * size,
        "step: only answers above the mean are in it. The others push down.": descent(
            before, records, [max(a, 0) for a in own]
        ),
    }
    says = "step: the weights do not move as the completions that were rewarded say."
    checking.equal(moved, want, "the change of the weights", wrong, tol=2e-3, says=says)
    _, _, again, _ = one_step(step, prompts, size, score, noise=1)
    assert again == records, (
        "step: the same generator gives other completions. Draw with the generator that you are given."
    )
    _, _, _, still = one_step(step, prompts, size, lambda prompt, text: 0.7)
    assert still.isfinite().all(), (
        "step: all rewards are equal, and the weights are no numbers any more: a division by 0."
    )
    assert still.abs().max() < 1e-6, (
        "step: all rewards are equal, so there is nothing to learn. Yet weights move."
    )
    mixed = [[3, 4, 5, 6, 7, SEP], [7, SEP], [SEP, 5, 8]]
    for given, size, says in (
        (
            mixed,
            5,
            "step: prompts of different lengths. Does padding get a position, a weight in attention or a label?",
        ),
        ([[6, 3, SEP]], 2, "step: one prompt with two completions."),
    ):
        _, before, records, moved = one_step(step, given, size, score, seed=3)
        own = []
        for prompt, _, r in records:
            group = [other for p, _, other in records if p == prompt]
            own.append(r - sum(group) / len(group))
        checking.equal(moved, descent(before, records, own), "the change of the weights", tol=2e-3, says=says)


def metered(reward, prompts, budget):
    """The reward with a counter: for these prompts only, and so many times only."""
    known, count = {tuple(p) for p in prompts}, [0]

    def read(prompt, completion):
        if tuple(prompt) not in known:
            raise ForeignPromptError(f"the prompt {list(prompt)} was not given")
        count[0] += 1
        if count[0] > budget:
            raise OverBudgetError(f"{budget} rewards were allowed")
        return reward(prompt, completion)

    return read, count


def check_improve(improve):
    slow = "Fewer passes, or larger batches."
    call = checking.calls(improve, limit=10, slow=slow, changes=("model", "reward"))
    reached = []
    over = f"improve: more than {BUDGET} rewards were asked for. Every call counts, and so does every round."
    foreign = "improve: a reward was asked for a prompt that was not given. Pass the prompt whole, without the answer."
    for seed in (100, 101, 102):
        model, prompts, held_out, reward = world(seed)
        before = success(model, held_out, reward)
        read, count = metered(reward, prompts, BUDGET)
        with checking.means(OverBudgetError, over), checking.means(ForeignPromptError, foreign):
            better = call(model, prompts, read, BUDGET, seed)
        assert isinstance(better, torch.nn.Module), (
            f"improve: return the model, not {checking.shown(better)}."
        )
        assert count[0], "improve: no reward was asked for. From what did the model learn?"
        reached.append(success(better, held_out, reward))
        told = f"Seed {seed}: {before:.2f} before, {reached[-1]:.2f} after."
        assert reached[-1] > before - 0.05, (
            f"improve: it has become worse. {told} Steps that are too large, a sign, or learning from wrong answers do that."
        )
        assert reached[-1] > before + 0.1, (
            f"improve: hardly anything was learned. {told} Are the steps too small, or does what is "
            "learned not depend on the reward?"
        )
    mean = sum(reached) / len(reached)
    assert mean >= REFERENCE - 0.1, (
        f"improve: {mean:.2f} on held-out prompts; the reference has {REFERENCE:.2f} from as many "
        "rewards. Is each answer used "
        "only once, and all of the budget spent?"
    )
    return mean


def check_17_4(step, improve):
    check_step(step)
    mean = check_improve(improve)
    print(
        f"17.4 passed. {mean:.2f} on held-out prompts with {BUDGET} rewards; the reference has {REFERENCE:.2f}."
    )


check_17_4(step, improve)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `step`: repeat each prompt `size` times, so that the rewards can be seen as a table with one row a prompt. For the
# log-probabilities pad on the right: a token of a causal model never looks at what comes after it, so only the labels
# must leave padding out.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `improve`: what is dear here is a reward, not an update. A step that looks at an answer once and throws it away
# wastes it.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 17.5 Project: a plan that can be wrong
#
# > ●●●●● · 120 minutes · practice · prediction
#
# Plan an experiment with two ways to learn from rewards, and plan it so that it can be *decided*. For example: rejection
# sampling against `step` of exercise 17.4 with equally many rewards; many answers a prompt against many prompts; with
# and without division by the standard deviation; DPO on pairs of right and wrong answers against tuning on the right
# ones. Run a pilot of at least five seeds with `world` and `success` (or with a system of your own), and write the
# plan **before** you run the rest. `plan()` returns a dict with exactly these keys:
#
# - `claim`: one sentence that can turn out false. A text of at least $40$ characters that holds both names of `arms`.
# - `arms`: the two procedures, the one that you bet on first. A list or tuple of two different names, not empty.
# - `control`: a third arm that must gain nothing, such as one with shuffled rewards. A name that is none of the
#   arms, not empty and not `none`. `control_gain`: the gain over the start that you expect of it, the number $0$.
# - `trials`: how many settings were tried for each arm. A dict with the two arms as keys; whole numbers, at least $1$,
#   equal. `tuning_seeds`: the seeds on which these were chosen, a list of at least three different whole numbers.
# - `pilot`: the differences of held-out success, first arm minus second, on equal seeds. A dict from at least five seeds
#   (whole numbers) to numbers from $-1$ to $1$ that are not all equal. `pilot_items`: the number of different held-out
#   prompts that each success of the pilot was computed from, a whole number, at least $1$.
# - `effect`: the smallest difference that would change what somebody does. A number above $0$, at most $0.5$. `reason`:
#   why just this one, a text of at least $40$ characters.
# - `seeds`: the seeds of the experiment. A list of at least five different whole numbers; none of them is in `pilot`
#   or in `tuning_seeds`. `items`: the number of different held-out prompts for each seed and arm, a whole
#   number, at least $1$.
# - `looks`: how often you will test: $1$, or more if you may stop early. A whole number, at least $1$.
# - `power`: the chance that a true difference of `effect` is found. At least $0.8$, and within $0.01$ of what the
#   checker computes.
#
# **The power.** Let $s$ be the standard deviation of the pilot's differences (with $n - 1$). With fewer items than in
# the pilot luck has more room, so the planned variance of one difference is $v = s^2 + \max(0,\ 0.5/\text{items} -
# 0.5/\text{pilot items})$: two shares, each with a variance of at most $0.25$ an item. More items than in the pilot
# are not rewarded. With $k$ seeds the error is $\sqrt{v / k}$. The test is a two-sided t test with $k - 1$ degrees of
# freedom at the level $0.05 / \text{looks}$ (Bonferroni). `intervals.power_of_t(effect, error, df, sides, level)` does
# the rest; its `level` is $1$ minus that level.
#
# **Not fitted to the pilot.** An effect that lies within a tenth of the pilot's mean difference (of its size, whatever
# its sign), or equals one of the pilot's differences, is refused: what would matter does not follow from what was
# found. If the two agree by chance, choose a value outside of it that you can defend as well.
#
# The checker reads the arithmetic. A person reads the rest, with this rubric (0, 1 or 2 points a row; 9 of 14 pass):
#
# | | 0 | 1 | 2 |
# |:--|:--|:--|:--|
# | claim | cannot fail | can fail, but system or budget is missing | names arms, system, budget, measure, direction |
# | effect | a habit ("five points") | a reason | a cost is compared with a gain: somebody would act differently |
# | control | does not fit the claim | fits | fits, and the text says what it would mean if it gained |
# | fair arms | settings tried for one arm | equally many trials | and equal rewards, the spent computing time reported |
# | items | those of training, or those that chose the settings | held out | held out and fresh for every seed |
# | endings | only success is described | two | supported, refuted (also: too small to matter), undecided |
# | run | not run | run, and changed afterwards | run as planned; what was looked at later is called exploratory |


# %% nbgrader={"grade_id": "answer_17_5", "solution": true}
def plan():
    """Return a dict with the keys of the table."""
    ### BEGIN SOLUTION
    pilot = {100: 0.5, 101: 0.53875, 102: 0.17625, 103: 0.3275, 104: 0.51625}
    effect, seeds = 0.1, list(range(200, 224))
    spread = torch.tensor(list(pilot.values()), dtype=torch.float64).std().item()
    return {
        "claim": "With 1200 rewards, rejection sampling in three rounds reaches a higher held-out success than policy "
        "gradient with one pass, in the small decoder of 17.4.",
        "arms": ["rejection sampling", "policy gradient"],
        "control": "rejection sampling with shuffled rewards",
        "control_gain": 0,
        "trials": {"rejection sampling": 3, "policy gradient": 3},
        "tuning_seeds": [0, 1, 2],
        "pilot": pilot,
        "pilot_items": 40,
        "effect": effect,
        "reason": "Rejection sampling needs a store of answers and many times the updates. For less than ten answers "
        "more of a hundred nobody here would build and run that.",
        "seeds": seeds,
        "items": 40,
        "looks": 1,
        "power": intervals.power_of_t(effect, spread / math.sqrt(len(seeds)), len(seeds) - 1),
    }
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_17_5", "locked": true}
PLAN = (
    "claim arms control control_gain trials tuning_seeds pilot pilot_items effect reason seeds items looks power"
).split()


def check_17_5(plan):
    mine = checking.calls(plan)()
    assert isinstance(mine, dict), f"Return a dict, not {checking.shown(mine)}."
    missing = [key for key in PLAN if key not in mine]
    assert not missing, f"The plan lacks {', '.join(missing)}."
    extra = [str(key) for key in mine if key not in PLAN]
    assert not extra, f"The plan has keys that nobody asked for: {', '.join(extra)}."

    def number(value, name):
        checking.form(value, 0.0, name)
        assert not isinstance(value, bool) and math.isfinite(value), (
            f"{name}: a finite number expected, not {value!r}."
        )
        return float(value)

    def whole(value, name, least=1):
        got = number(value, name)
        assert got == int(got), f"{name}: a whole number expected, not {value!r}."
        assert got >= least, f"{name}: at least {least}, not {value!r}."
        return int(got)

    def seeds_of(key, least):
        assert isinstance(mine[key], list | tuple), (
            f"{key}: a list of seeds expected, not {checking.shown(mine[key])}."
        )
        got = [whole(seed, f"a seed in {key}", -math.inf) for seed in mine[key]]
        assert len(set(got)) == len(got), (
            f"{key}: a seed stands there twice. The same run again is no further evidence."
        )
        assert len(got) >= least, f"{key}: at least {least} seeds, not {len(got)}."
        return got

    def text(key, least):
        assert isinstance(mine[key], str), f"{key}: a text expected, not {checking.shown(mine[key])}."
        assert len(mine[key].strip()) >= least, (
            f"{key}: at least {least} characters, not {len(mine[key].strip())}."
        )
        return mine[key].strip()

    arms = mine["arms"]
    assert (
        isinstance(arms, list | tuple)
        and len(arms) == 2
        and all(isinstance(a, str) and a.strip() for a in arms)
    ), "arms: two names expected."
    assert arms[0] != arms[1], "arms: both are the same procedure."
    claim = text("claim", 40)
    for arm in arms:
        assert arm in claim, f"claim: {arm!r} does not occur. A claim names what it compares."
    control = text("control", 1)
    assert control.lower() != "none", (
        "control: without one a gain may come from the updates alone. Name an arm that must gain nothing."
    )
    assert control not in arms, (
        "control: that is one of the two arms. The comparison is no control: it may gain as well."
    )
    assert number(mine["control_gain"], "control_gain") == 0, (
        "control_gain: not 0. An arm that may gain something is a comparison. Of a control you expect 0."
    )
    trials = mine["trials"]
    assert isinstance(trials, dict) and set(trials) == set(arms), (
        "trials: a dict with the two arms as its keys."
    )
    tried = [whole(trials[arm], f"trials of {arm}") for arm in arms]
    assert tried[0] == tried[1], (
        f"trials: {tried[0]} settings for one arm and {tried[1]} for the other. The arm that was "
        "tried more often wins by that alone."
    )
    tuning = seeds_of("tuning_seeds", 3)
    assert isinstance(mine["pilot"], dict), "pilot: a dict from seeds to differences."
    pilot = {
        whole(seed, "a seed in pilot", -math.inf): number(x, f"the pilot's difference for seed {seed}")
        for seed, x in mine["pilot"].items()
    }
    assert len(pilot) >= 5, (
        f"pilot: at least five seeds, not {len(pilot)}. The spread of a few numbers is hardly known."
    )
    found = torch.tensor(list(pilot.values()), dtype=torch.float64)
    assert found.abs().max() <= 1, (
        "pilot: a difference of two shares lies between −1 and 1. Are these points of a hundred?"
    )
    assert found.std() > 1e-9, (
        "pilot: all differences are equal. That shows no spread; something is not drawn anew."
    )
    items, pilot_items = whole(mine["items"], "items"), whole(mine["pilot_items"], "pilot_items")
    effect = number(mine["effect"], "effect")
    assert 0 < effect <= 0.5, "effect: a share above 0, at most 0.5. Five points of a hundred are 0.05."
    text("reason", 40)
    mean = abs(found.mean().item())
    assert abs(effect - mean) > mean / 10, (
        f"effect: {effect:g} is fitted to the pilot, whose mean difference is {mean:.3g} in size. "
        "What matters does not follow "
        "from what was found; and a lucky pilot makes the experiment too small."
    )
    assert not any(abs(effect - abs(x)) < 1e-9 for x in pilot.values()), (
        f"effect: {effect:g} is one of the pilot's differences. A bar that was laid where somebody has jumped is no bar."
    )
    seeds = seeds_of("seeds", 5)
    shared = sorted(set(seeds) & set(pilot))
    assert not shared, (
        f"seeds: {shared} were in the pilot. They made you choose this plan, so they cannot judge it."
    )
    shared = sorted(set(seeds) & set(tuning))
    assert not shared, f"seeds: {shared} chose the settings. A setting looks best where it was chosen."
    k, looks, power = len(seeds), whole(mine["looks"], "looks"), number(mine["power"], "power")

    def computed(spread, room=True, runs=k, tests=looks, size=effect, sides=2):
        v = spread**2 + max(0.0, 0.5 / items - 0.5 / pilot_items) * room
        return intervals.power_of_t(size, math.sqrt(v / runs), k - 1, sides, 1 - 0.05 / tests)

    s = found.std().item()
    want = computed(s)
    sure = 0.5 * math.erfc(-(effect / (s / math.sqrt(k)) - 1.959964) / math.sqrt(2))
    near = {
        "power: each of several looks can be wrong. The level is 0.05 divided by their number.": computed(
            s, tests=1
        ),
        "power: fewer items than in the pilot add noise of their own to every difference.": computed(
            s, room=False
        ),
        "power: the error of the mean of k seeds is s divided by the root of k. You left that out.": computed(
            s, runs=1
        ),
        "power: a two-sided test is asked for. One side looks stronger.": computed(s, sides=1),
        "power: that is the power for the effect which the pilot found. Compute it for the smallest that matters.": computed(
            s, size=mean
        ),
        "power: the standard deviation of the pilot has n − 1 in it, not n.": computed(
            found.std(correction=0).item()
        ),
        "power: that is the normal curve. With few seeds the spread is estimated: the t test.": sure,
    }
    if abs(power - want) > 0.01:
        for message, value in near.items():
            assert abs(power - value) > 2e-3 or abs(value - want) <= 0.01, message
        raise AssertionError(
            f"power: you have {power:.3f}; with this spread, these seeds, items and looks it is {want:.3f}."
        )
    assert power >= 0.8, (
        f"power: {want:.2f}. The experiment would often end undecided. More seeds, a larger effect "
        "that matters, or another system."
    )
    print(f"17.5 passed: power {want:.2f} with {k} seeds. Now a person reads the plan with the rubric.")


check_17_5(plan)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Write the last sentence of your report first, three times: for a supported claim, a refuted one, and an undecided one.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The pilot gives you one number, the spread. Start with `effect`, then raise the number of seeds until the power is
# high enough.
#
# </details>
#
# {{solution}}
