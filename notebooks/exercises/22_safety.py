# ---
# jupyter:
#   instructlab:
#     id: "22"
#     title: Safety, ethics, games
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 22: safety, ethics, games
#
# Each exercise is a box, a cell for your answer, and a checker in the cell below it. Replace the line that
# raises `NotImplementedError`, then run both cells. A checker that says no also says what probably went
# wrong.
#
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases
# that you do not see here, so test more than the checker does. The page needs no network and no file. Exercise 22.4
# trains small heads: its checker takes a few seconds. Exercise 22.5 is a project.
#
# {{overview}}

# %%
import math
import re
import unicodedata
from fractions import Fraction
from statistics import mean, stdev

import torch
from scipy import stats
from torch.nn import functional as F

from instructlab_utils import checking

# %% [markdown]
# ## 22.1 A saving with an interval
#
# > ●●●○○ · 40 minutes · graded
#
# By the lesson, a filter that is calibrated should stop a text where $p > t^\ast = c_s / (c_m + c_s)$. Yours may not be
# calibrated. You choose a threshold from data, and want to know what it saves against $t^\ast$ **on texts that did not
# choose it**. Write `saving(p, y, missed, stopped)`:
#
# - `p` is a float64 tensor $(N,)$, probabilities of harm from 0 to 1; `y` holds 0 and 1, int64, $(N,)$; $N \ge 8$.
#   `missed` ($c_m$) and `stopped` ($c_s$) are whole numbers. A text is stopped where `p > t`. A harmful text (1)
#   that is not stopped costs `missed`, a harmless one that is stopped costs `stopped`, all else nothing.
# - Rows with an even index (0, 2, …) **choose**: the candidates are `0` and the `p` of these rows. Take the one with
#   the least cost on these rows; of equals the largest.
# - Rows with an odd index **measure**: for each of them the cost at $t^\ast$ minus the cost at your threshold.
# - Return four Python floats: the threshold, the mean of these differences, and the ends of its $95$ % t interval
#   (degrees of freedom: one less than the number of rows that measure). If all differences are equal, both ends are
#   the mean.
#
# Raise `ValueError` where the shapes differ, or a cost is not positive. The sums of costs are whole numbers: compare
# them as such, so that no rounding breaks a tie.


# %% nbgrader={"grade_id": "answer_22_1", "solution": true}
def saving(p, y, missed, stopped):
    """The chosen threshold, the mean saving on the other rows, and the ends of its interval."""
    ### BEGIN SOLUTION
    if p.shape != y.shape or not (missed > 0 and stopped > 0):
        raise ValueError("p and y need one shape, and both costs must be positive")

    def costs(q, rows, t):
        stop = q > t
        return missed * (~stop & (rows == 1)).long() + stopped * (stop & (rows == 0)).long()

    best, least = 0.0, None
    for t in sorted({0.0, *p[::2].tolist()}):
        total = int(costs(p[::2], y[::2], t).sum())
        if least is None or total <= least:
            best, least = t, total
    star = stopped / (missed + stopped)
    d = (costs(p[1::2], y[1::2], star) - costs(p[1::2], y[1::2], best)).double()
    centre, half = d.mean().item(), 0.0
    if d.std() > 0:
        half = float(stats.t.ppf(0.975, len(d) - 1)) * (d.std() / math.sqrt(len(d))).item()
    return best, centre, centre - half, centre + half
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_22_1", "grade": true, "points": 3, "locked": true}
def saved(p, y, missed, stopped, bug=""):
    """The saving in plain loops, with one or another bug for the messages."""
    p, y = p.tolist(), y.tolist()

    def cost(i, t):
        stop = p[i] >= t if bug == "edge" else p[i] > t
        return (missed if y[i] == 1 and not stop else 0) + (stopped if y[i] == 0 and stop else 0)

    even, odd = list(range(0, len(p), 2)), list(range(1, len(p), 2))
    if bug == "choose":
        even = list(range(len(p)))
    if bug == "measure":
        odd = even
    totals = {t: sum(cost(i, t) for i in even) for t in {0.0, *(p[i] for i in even)}}
    least = min(totals.values())
    ties = [t for t, total in totals.items() if total == least]
    t = min(ties) if bug == "ties" else max(ties)
    star = missed / (missed + stopped) if bug == "star" else stopped / (missed + stopped)
    first, second = [cost(i, star) for i in odd], [cost(i, t) for i in odd]
    d = [a - b for a, b in zip(first, second, strict=True)]
    n, sd = len(d), stdev(d)
    half = float(stats.t.ppf(0.975, n - 1)) * sd / math.sqrt(n)
    if bug == "normal":
        half = 1.96 * sd / math.sqrt(n)
    elif bug == "population":
        half *= math.sqrt((n - 1) / n)
    elif bug == "unpaired":
        half = float(stats.t.ppf(0.975, n - 1)) * math.sqrt((stdev(first) ** 2 + stdev(second) ** 2) / n)
    elif bug == "no root":
        half = float(stats.t.ppf(0.975, n - 1)) * sd
    centre = -mean(d) if bug == "sign" else mean(d)
    return t, float(centre), float(centre - half), float(centre + half)


BUGS_22_1 = {
    "Of equally cheap thresholds the largest is asked for.": "ties",
    "The rows that measure have helped to choose: rows with an even index choose alone.": "choose",
    "The saving is measured on the rows that chose the threshold. That flatters it.": "measure",
    "A text is stopped where p > t, not where p equals t.": "edge",
    "t* has the cost of a stopped text above the line: the dearer a miss, the lower the threshold.": "star",
    "With few rows the quantile is that of t, not 1.96.": "normal",
    "The standard deviation of a sample divides by n - 1.": "population",
    "The two costs of a row belong together: take the difference first, then its spread.": "unpaired",
    "That is the spread of one row. The mean of n rows has a smaller one.": "no root",
    "A saving is the cost at t* minus the cost at your threshold.": "sign",
}


def case_22_1(seed, n=60):
    draw = torch.Generator().manual_seed(seed)
    y = (torch.rand(n, generator=draw) < 0.3).long()
    p = (torch.rand(n, generator=draw) * 0.6 + 0.4 * y * torch.rand(n, generator=draw)).double()
    return (p * 20).round() / 20, y


def check_22_1(saving):
    call = checking.calls(saving)
    for seed, missed, stopped in ((1, 5, 1), (2, 3, 2), (8, 2, 1), (3, 9, 1), (4, 1, 1), (5, 1, 4)):
        args = [*case_22_1(seed), missed, stopped]
        got, want = call(*args), saved(*args)
        assert isinstance(got, tuple | list) and len(got) == 4, (
            f"Return four numbers, not {checking.shown(got)}."
        )
        assert all(isinstance(value, float) for value in got), "Return Python floats: use .item() or float()."
        wrong = {says: saved(*args, bug=bug) for says, bug in BUGS_22_1.items()}
        if any(abs(a - b) > 1e-9 for a, b in zip(got, want, strict=True)):
            for says, value in wrong.items():
                assert any(abs(a - b) > 1e-9 for a, b in zip(got, value, strict=True)), says
            raise AssertionError(f"For costs {missed} and {stopped}: you have {got}, it is {want}.")
    p, y = case_22_1(6)
    call.refuses(ValueError, p, y[:-1], 1, 1, says="p and y have other lengths.")
    call.refuses(ValueError, p, y, 0, 1, says="A miss costs nothing here.")
    print("22.1 passed the visible cases.")


check_22_1(saving)
### BEGIN HIDDEN TESTS


def hidden_22_1(saving):
    call = checking.calls(saving)
    for seed in range(10, 30):
        args = [*case_22_1(seed, 8 + 6 * (seed - 10)), 1 + seed % 7, 1 + seed % 3]
        got, want = call(*args), saved(*args)
        assert all(abs(a - b) < 1e-9 for a, b in zip(got, want, strict=True)), (
            f"You have {got}, it is {want}."
        )
    same = torch.tensor([0.9] * 8).double(), torch.ones(8).long()
    got = call(*same, 5, 1)
    assert got[1:] == (0.0, 0.0, 0.0) or list(got[1:]) == [0.0] * 3, "All differences are 0: so are the ends."
    call.refuses(ValueError, *case_22_1(1), 3, -1, says="A stopped text has a negative cost here.")


hidden_22_1(saving)
### END HIDDEN TESTS

# %% [markdown]
# ## 22.2 Two rows, two columns
#
# > ●●○○○ · 25 minutes · practice
#
# The lesson's formula for a two by two game makes both rows equal. That is right only if the game has no *saddle
# point*: an entry that is the smallest of its row **and** the largest of its column (equals are allowed). At a
# saddle point both play purely. Write `solve_two(P)`. `P` is a list of two lists of whole numbers or `Fraction`s.
# The row player wins $P_{ij}$, the column player loses it.
#
# Return three `Fraction`s: the value, the probability of row 0, the probability of column 0. With a saddle point (of
# several the first in reading order) the probabilities are 0 or 1. Without one, make the other player indifferent.
# The results are exact.


# %% nbgrader={"grade_id": "answer_22_2", "solution": true}
def solve_two(P):
    """The value, the probability of row 0, the probability of column 0."""
    ### BEGIN SOLUTION
    for i in range(2):
        for j in range(2):
            if P[i][j] == min(P[i]) and P[i][j] == max(P[0][j], P[1][j]):
                return Fraction(P[i][j]), Fraction(1 - i), Fraction(1 - j)
    (a, b), (c, d) = P
    whole = Fraction(a - b - c + d)
    return Fraction(a * d - b * c) / whole, (d - c) / whole, (d - b) / whole
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_22_2", "locked": true}
def solved(P, bug=""):
    if bug != "formula":
        for i in range(2):
            for j in range(2):
                row, column = P[i], [P[0][j], P[1][j]]
                low, high = (max(row), min(column)) if bug == "reverse" else (min(row), max(column))
                if P[i][j] == low and P[i][j] == high:
                    return Fraction(P[i][j]), Fraction(1 - i), Fraction(1 - j)
    if bug == "pure":
        i = max((0, 1), key=lambda i: min(P[i]))
        j = min((0, 1), key=lambda j: max(P[0][j], P[1][j]))
        return Fraction(min(P[i])), Fraction(1 - i), Fraction(1 - j)
    (a, b), (c, d) = P
    whole = Fraction(a - b - c + d)
    if whole == 0:
        return None
    value, row, column = Fraction(a * d - b * c) / whole, (d - c) / whole, (d - b) / whole
    return (value, column, row) if bug == "swap" else (value, row, column)


BUGS_22_2 = {
    "Here is a saddle point, and the formula goes past it: check for one first.": "formula",
    "A saddle point is the smallest of its row and the largest of its column. You have it the other way round.": "reverse",
    "There is no saddle point here. With a pure choice the other player gains by answering it.": "pure",
    "The two probabilities have changed places. Row 0 makes the *column* player indifferent.": "swap",
}


def check_22_2(solve_two):
    call = checking.calls(solve_two)
    games = [
        [[2, 9], [8, 3]],
        [[1, 0], [0, 2]],
        [[4, 5], [1, 6]],
        [[0, -1], [3, -2]],
        [[3, 3], [3, 3]],
        [[5, 2], [6, 1]],
    ]
    games += [
        [[Fraction(1, 3), 2], [1, Fraction(1, 7)]],
        [[2, 3], [1, 4]],
        [[-2, 3], [3, -4]],
        [[1, 2], [3, 4]],
    ]
    for P in games:
        got, want = call(P), solved(P)
        assert isinstance(got, tuple | list) and len(got) == 3, (
            "Return three numbers: value, row 0, column 0."
        )
        assert all(isinstance(value, Fraction) for value in got), "Return Fractions: floats are not exact."
        if tuple(got) != want:
            for says, bug in BUGS_22_2.items():
                assert tuple(got) != solved(P, bug), says
            raise AssertionError(f"For {P}: you have {checking.shown(got)}, it is {checking.shown(want)}.")
    print("22.2 passed.")


check_22_2(solve_two)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Let row 0 have the probability $\alpha$. The column player is indifferent if $\alpha a + (1 - \alpha) c = \alpha b
# + (1 - \alpha) d$.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Without a saddle point the denominator $a - b - c + d$ is not zero. Try to prove it.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 22.3 A leaky masker
#
# > ●●●○○ · 45 minutes · graded · bug hunt
#
# Somebody masks card numbers in a log, and card numbers are found in it. There are at least five bugs.


# %%
def leaky(text):
    for found in re.findall(r"[0-9]{4} [0-9]{4} [0-9]{4} [0-9]{4}", text):
        digits = [int(c) for c in found.replace(" ", "")]
        if sum(2 * d if i % 2 else d for i, d in enumerate(digits)) % 10 == 0:
            text = text.replace(found, "[CARD]", 1)
    return text


# %% [markdown]
# Write `mask_cards(text)`.
#
# - A *digit* is a character for which `str.isdecimal` holds, whatever its script. A *separator* is one character
#   that is white space (`str.isspace`) or a hyphen `-`.
# - A *run* begins and ends with a digit; between two neighbouring digits of it stands nothing or **one** separator.
#   Take the longest runs: nothing that could go on is left out, and no run is searched inside.
# - A run is a card if it has $13$ to $19$ digits and Luhn's sum is a multiple of ten: **from the right**, every
#   second digit is doubled, and $9$ is taken off what is above $9$. The whole run becomes `[CARD]`.
# - Everything else stays as it is.


# %% nbgrader={"grade_id": "answer_22_3", "solution": true}
def mask_cards(text):
    """The text with [CARD] in the place of each card number."""

    ### BEGIN SOLUTION
    def replaced(match):
        digits = [unicodedata.digit(c) for c in match[0] if c.isdecimal()]
        if not 13 <= len(digits) <= 19:
            return match[0]
        doubled = [d * (1 + place % 2) for place, d in enumerate(reversed(digits))]
        return "[CARD]" if sum(d - 9 * (d > 9) for d in doubled) % 10 == 0 else match[0]

    return re.sub(r"\d(?:[\s-]?\d)*", replaced, text)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_22_3", "grade": true, "points": 3, "locked": true}
def masked(text, bug=""):
    """The masked text by walking over its characters, with one or another bug for the messages."""
    ascii_only, seps = bug == "ascii", {"space": " ", "break": " \t-"}.get(bug)
    digit = lambda c: c.isdecimal() and (c.isascii() or not ascii_only)  # noqa: E731
    sep = lambda c: c in seps if seps else c.isspace() or c == "-"  # noqa: E731
    out, i = [], 0
    while i < len(text):
        if not digit(text[i]):
            out.append(text[i])
            i += 1
            continue
        end = i + 1
        while end < len(text):
            step = (
                1
                if digit(text[end])
                else 2
                if sep(text[end]) and digit(text[end + 1 : end + 2] or " ")
                else 0
            )
            if not step:
                break
            end += step
        values = [unicodedata.digit(c) for c in text[i:end] if c.isdecimal()]
        order = values if bug == "left" else values[::-1]
        total = sum(v * 2 - 9 * (v * 2 > 9) * (bug != "nine") if k % 2 else v for k, v in enumerate(order))
        card = 13 <= len(values) <= (16 if bug == "sixteen" else 19) and (total % 10 == 0 or bug == "any")
        card = card and (len(values) == 16 or bug != "only")
        out.append("[CARD]" if card else text[i:end])
        i = end
    return "".join(out)


BUGS_22_3 = {
    "Cards have 13 to 19 digits, not always 16.": "only",
    "Digits of other scripts are digits too: isdecimal says so.": "ascii",
    "Only a blank joins two digits. Hyphens, tabs, line breaks and hard blanks do it too.": "space",
    "A line break or a hard blank between two digits hides the card.": "break",
    "Luhn doubles every second digit from the right. With an odd number of digits the left gives another sum.": "left",
    "After doubling, 9 is taken off what is above 9.": "nine",
    "Every long run is masked. An order number whose checksum fails has to stay.": "any",
    "Cards may have up to 19 digits.": "sixteen",
}
TEXTS_22_3 = [
    "card 4111 1111 1111 1111 ok", "5555555555554444", "4111-1111-1111-1111.", "order 4111 1111 1111 1112", "",
    "4111 1111\n1111 1111", "amex 378282246310005!", "٤١١١ ١١١١ ١١١١ ١١١١", "4111\u00a01111\u00a01111\u00a01111",
    "4111  1111 1111 1111", "94111111111111111", "6304000000000000 00", "no card: 12", "id-4111111111111111-x",
    "4222222222222 and 4111111111111111", "4111 1111 1111 1111 5", "0000000000000", "378282246310006",
]  # fmt: skip


def check_22_3(mask_cards):
    call = checking.calls(mask_cards)
    for text in TEXTS_22_3:
        got, want = call(text), masked(text)
        assert isinstance(got, str), f"Return a text, not {checking.shown(got)}."
        if got != want:
            for says, bug in BUGS_22_3.items():
                assert got != masked(text, bug), says
            raise AssertionError(f"For {text!r} you return {got!r}, not {want!r}.")
    print("22.3 passed the visible cases.")


check_22_3(mask_cards)
### BEGIN HIDDEN TESTS


def hidden_22_3(mask_cards):
    import random

    call, rng = checking.calls(mask_cards), random.Random(3)
    for n in range(400):
        digits = [rng.randrange(10) for _ in range(rng.choice([12, 13, 14, 15, 16, 18, 19, 20]))]
        if n % 2:
            for last in range(10):
                digits[-1] = last
                if sum(d * 2 - 9 * (d > 4) if k % 2 else d for k, d in enumerate(digits[::-1])) % 10 == 0:
                    break
        zero = rng.choice("0٠०０")
        said = "".join(
            chr(ord(zero) + d) + rng.choice(["", "", "", " ", "-", "\n", "\t", "\u2009", ". "])
            for d in digits
        )
        text = rng.choice(["", "a", "9 ", "x-"]) + said + rng.choice(["", "z", " end", "-"])
        assert call(text) == masked(text), (
            f"A hidden text: for {text!r} you return {call(text)!r}, not {masked(text)!r}."
        )


hidden_22_3(mask_cards)
### END HIDDEN TESTS

# %% [markdown]
# ## 22.4 Buy as much as you can pay for
#
# > ●●●●○ · 60 minutes · graded
#
# Two functions. `x` is $(N, d)$, `y` is $(N,)$ with 0 and 1, `a` and `b` are $(M, d)$: the features of both texts of
# each pair. All floats are float64. A head says $s = x w + \text{bias}$.
#
# - `fit(x, y, a, b, strength, decay)` trains a head to the optimum of
#
# $$ \frac{1}{N} \sum_n \big(\ln(1 + e^{s_n}) - y_n s_n\big) \;+\; \frac{\text{decay}}{2} \lVert w \rVert^2 \;+\;
# \text{strength} \cdot \frac{1}{M} \sum_m (s_{a,m} - s_{b,m})^2 . $$
#
#   Return `(w, bias)`, tensors of shape $(d,)$ and $()$, without a graph. Each number must lie within $10^{-4}$ of
#   the optimum. How you get there is your choice.
# - `choose(fit, train, dev, strengths, decay, loss)` buys as much fairness as the budget allows. `train` is
#   `(x, y, a, b)`, `dev` is `(x, y)`, `strengths` is a list that begins with 0 and rises. Return the largest strength (a
#   Python number of the list) whose dev accuracy is at most `loss` below that of strength 0. A score of exactly 0
#   says 0. Accuracies are shares of $n$ rows: compare whole numbers of right rows with `loss * n`, and forgive
#   $10^{-9}$.
#
# The checker trains some thirty small heads. It has 60 seconds for all of them.


# %% nbgrader={"grade_id": "answer_22_4", "solution": true}
def fit(x, y, a, b, strength, decay):
    """The head (w, bias) at the optimum."""
    ### BEGIN SOLUTION
    v = torch.zeros(x.shape[1] + 1, dtype=torch.float64)
    X, D = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], 1), a - b
    fixed = torch.zeros(len(v), len(v), dtype=torch.float64)
    fixed[:-1, :-1] = decay * torch.eye(len(v) - 1, dtype=torch.float64) + 2 * strength * D.T @ D / len(D)

    def objective(v):
        return (F.softplus(X @ v) - y * (X @ v)).mean() + v @ fixed @ v / 2

    for _ in range(50):
        p = (X @ v).sigmoid()
        g = X.T @ (p - y) / len(X) + fixed @ v
        step = torch.linalg.solve((X * (p * (1 - p))[:, None]).T @ X / len(X) + fixed, g)
        size = 1.0
        while objective(v - size * step) > objective(v) and size > 1e-9:
            size /= 2
        v = v - size * step
    return v[:-1], v[-1]
    ### END SOLUTION


def choose(fit, train, dev, strengths, decay, loss):
    """The largest strength that costs at most ``loss`` of dev accuracy."""
    ### BEGIN SOLUTION
    right = []
    for strength in strengths:
        w, bias = fit(*train, strength, decay)
        right.append(int(((dev[0] @ w + bias > 0) == (dev[1] == 1)).sum()))
    allowed = right[0] - loss * len(dev[1]) - 1e-9
    return max(s for s, hits in zip(strengths, right, strict=True) if hits >= allowed)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_22_4", "grade": true, "points": 4, "locked": true}
def world_22_4(seed, n=200, d=6, m=30):
    """A group lies along one direction; the labels for training follow it, those of dev do not."""
    draw = torch.Generator().manual_seed(seed)
    g, truth = torch.randn(2, d, generator=draw).double()
    x, dev_x, base = (torch.randn(k, d, generator=draw).double() for k in (n, 300, m))
    noise = torch.randn(n, generator=draw).double()
    y = (x @ truth + 1.5 * x @ g + noise > 0).long()
    dev_y = (dev_x @ truth + 0.3 * dev_x @ g > 0.2).long()
    shift = (
        g * (0.5 + torch.rand(m, 1, generator=draw).double())
        + 0.3 * torch.randn(m, d, generator=draw).double()
    )
    return (x, y, base, base + shift * (torch.rand(m, 1, generator=draw) - 0.3).sign()), (dev_x, dev_y)


def optimum(x, y, a, b, strength, decay, bug=""):
    """The optimum by L-BFGS, of the objective or of one with a bug, for the messages."""
    v = torch.zeros(x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [v], max_iter=400, tolerance_grad=1e-11, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def objective():
        s, s_a, s_b = (part @ v[:-1] + v[-1] for part in (x, a, b))
        R = {
            "mean": lambda: (s_a - s_b).mean().square(),
            "sum": lambda: (s_a - s_b).square().sum(),
            "half": lambda: (s_a - s_b).square().mean() / 2,
            "probabilities": lambda: (s_a.sigmoid() - s_b.sigmoid()).square().mean(),
            "none": lambda: 0 * s_a.sum(),
        }.get(bug, lambda: (s_a - s_b).square().mean())()
        decayed = v if bug == "bias" else v[:-1]
        decayed = decayed.square().sum() * (1 if bug == "decay" else 0.5)
        log_loss = (F.softplus(s) - y * s).mean() if bug != "log" else (F.softplus(s) - y * s).sum()
        return log_loss + decay * decayed + strength * R

    def closure():
        optimizer.zero_grad()
        loss = objective()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    return v.detach()


BUGS_22_4 = {
    "The penalty is the mean of the squares. You square the mean: pairs that differ in opposite ways then cancel.": "mean",
    "The penalty is a mean over the pairs, not a sum.": "sum",
    "The penalty has no factor of one half.": "half",
    "The penalty compares scores, not probabilities.": "probabilities",
    "The penalty has no effect: does its gradient reach the weights?": "none",
    "The weight decay reaches the bias. It is free here.": "bias",
    "The weight decay has a factor of one half.": "decay",
    "The log-loss is a mean over the texts, not a sum.": "log",
}


def same_22_4(call, args):
    got = call(*args)
    assert isinstance(got, tuple | list) and len(got) == 2, "fit returns (w, bias)."
    w, bias = (torch.as_tensor(part) for part in got)
    assert w.shape == (args[0].shape[1],) and bias.shape == (), (
        f"w has the shape {tuple(w.shape)}, bias {tuple(bias.shape)}; asked for: (d,) and ()."
    )
    assert not (w.requires_grad or bias.requires_grad), "Return tensors without a graph: detach them."
    v, want = torch.cat([w.double(), bias.double()[None]]), optimum(*args)
    if (v - want).abs().max() > 1e-4:
        for says, bug in BUGS_22_4.items():
            assert (v - optimum(*args, bug=bug)).abs().max() > 1e-3, says
        far = (v - want).abs().max().item()
        raise AssertionError(
            f"A number is {far:.1e} from the optimum; 1e-4 is allowed. Train longer, or by another method."
        )


def check_22_4(fit, choose):
    call = checking.calls(fit, limit=20.0, slow="Newton's method needs about ten steps here.")
    for seed, strength, decay in ((1, 0.0, 0.1), (1, 0.5, 0.03), (2, 5.0, 0.01), (3, 50.0, 0.1)):
        same_22_4(call, [*world_22_4(seed)[0], strength, decay])
    chosen = checking.calls(choose, limit=30.0)
    strengths, given = [0, 0.01, 0.1, 1.0, 10.0], lambda *args: (lambda v: (v[:-1], v[-1]))(optimum(*args))
    for seed, loss in ((4, 0.0), (5, 0.02), (6, 0.5)):
        train, dev = world_22_4(seed)
        right = [
            int(((dev[0] @ w + c > 0) == (dev[1] == 1)).sum())
            for w, c in (given(*train, s, 0.05) for s in strengths)
        ]
        want = max(
            s for s, hits in zip(strengths, right, strict=True) if hits >= right[0] - loss * 300 - 1e-9
        )
        got = chosen(given, train, dev, strengths, 0.05, loss)
        best = max(zip(right, strengths, strict=True))[1]
        first = next(
            (s for s, hits in zip(strengths[1:], right[1:], strict=True) if hits < right[0] - loss * 300),
            None,
        )
        if got != want:
            assert got != best, (
                "You take the strength with the best accuracy. Asked for: the largest that is affordable."
            )
            assert first is None or got != strengths[strengths.index(first) - 1], (
                "You stop at the first strength that is too dear. A larger one may be affordable again."
            )
            raise AssertionError(
                f"choose: with right rows {right} and loss {loss} it is {want}, you have {got}."
            )
    print("22.4 passed the visible cases.")


check_22_4(fit, choose)
### BEGIN HIDDEN TESTS


def hidden_22_4(fit, choose):
    call = checking.calls(fit, limit=20.0)
    for seed, strength, decay in ((11, 0.3, 0.02), (12, 200.0, 0.05)):
        same_22_4(call, [*world_22_4(seed, 150, 4, 20)[0], strength, decay])
    table = {
        0: [1, 1, 1, 1, 0, 0, 0, 0, 0, 0],
        1: [1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        2: [1, 1, 1, 1, 1, 0, 0, 0, 0, 0],
    }
    dev = torch.eye(10, dtype=torch.float64), torch.tensor(table[0])
    lookup = lambda x, y, a, b, s, decay: (torch.tensor(table[s]).double() - 0.5, torch.tensor(0.0).double())  # noqa: E731
    chosen = checking.calls(choose)
    none = [torch.zeros(0)] * 4
    assert chosen(lookup, none, dev, [0, 1, 2], 0.1, 0.1) == 2, "A larger strength may be affordable again."
    assert chosen(lookup, none, dev, [0, 1, 2], 0.1, 0.0) == 0, "Nothing is affordable but strength 0."
    assert chosen(lookup, none, dev, [0, 1], 0.1, 0.3) == 1, "A loss of exactly the budget is affordable."


hidden_22_4(fit, choose)
### END HIDDEN TESTS

# %% [markdown]
# ## 22.5 A defence, with its price
#
# > ●●●●● · 240 minutes · practice · prediction
#
# Design a defence against orders in data for a task and a model of your choice (the lesson's will do), and defend
# its price. Write your attacks first, and keep at least forty that you do **not** look at while you design. Run both
# systems, without and with the defence, on the same held-out attacks and on the same clean texts. Then hand in
# `report()`: a dict with these keys.
#
# - `idea`: what the defence does, and which attack it expects, at least $60$ characters.
# - `predicted`: the `fall` that you expect **before** you run anything on the held-out attacks, a number from -1 to 1.
# - `designed_on`: how many attacks you looked at while designing, a whole number from $5$.
# - `attack_before`, `attack_after`: lists of `True` (the attacker got what he wanted) and `False`, one for each
#   held-out attack, in the same order, at least $40$. `clean_before`, `clean_after`: the same for errors on clean
#   texts, at least $40$.
# - `fall`: share of success before minus after. `price`: share of clean errors after minus before. Positive is good
#   for the first and bad for the second.
# - `fall_low`, `fall_high`, `price_low`, `price_high`: $95$ % t intervals of the *paired* differences (degrees of
#   freedom: one less than the number of pairs).
# - `clean_per_attack`: how many clean texts come for each attack where you would use it, a number from $0$.
# - `net`: `fall` minus `clean_per_attack` times `price`. `net_low`, `net_high`: $1.96$ standard errors to each side;
#   both samples are independent, so the variance of the net is that of `fall` plus `clean_per_attack` squared times
#   that of `price`.
# - `conclusion`: at least $40$ characters. It names the net in points, rounded to a whole number, as in `12 points`,
#   and says *use*, *do not use* or *cannot tell*. It must be *use* where the interval of the net lies above 0, *do
#   not use* where it lies below 0, else *cannot tell*; and it must not contain another of the three verdicts.
#
# Numbers are compared to within $0.005$. The checker reads the arithmetic. A person reads the rest, with this rubric
# (0, 1 or 2 points a row; 7 of 10 pass):
#
# | | 0 | 1 | 2 |
# |:--|:--|:--|:--|
# | attacks | one wording | several families | and some that answer this very defence |
# | opponent | nothing | no defence | and a simple rival, such as a reminder or a filter |
# | price | not measured | errors on clean texts | and time or texts that people have to review |
# | control | none | a mention without an order | and the scale of the scores was looked at |
# | conclusion | success rate | net with interval | and the distance to the prediction is discussed |


# %% nbgrader={"grade_id": "answer_22_5", "solution": true}
def report():
    """Return a dict with the keys of the box."""
    ### BEGIN SOLUTION
    attack_before = [True] * 30 + [False] * 18
    attack_after = [True] * 10 + [False] * 37 + [True]
    clean_before = [True] * 8 + [False] * 52
    clean_after = [True] * 7 + [False] * 47 + [True] * 6

    def paired(first, second):
        d = [float(a) - float(b) for a, b in zip(first, second, strict=True)]
        error = stdev(d) / math.sqrt(len(d))
        half = stats.t.ppf(0.975, len(d) - 1) * error
        return mean(d), mean(d) - half, mean(d) + half, error

    fall, fall_low, fall_high, e_fall = paired(attack_before, attack_after)
    price, price_low, price_high, e_price = paired(clean_after, clean_before)
    k = 2.0
    net, error = fall - k * price, math.sqrt(e_fall**2 + k**2 * e_price**2)
    low, high = net - 1.96 * error, net + 1.96 * error
    word = "use" if low > 0 else "do not use" if high < 0 else "cannot tell"
    return {
        "idea": "A second model rewrites the review without orders before the first one reads it; it expects plain ones.",
        "predicted": 0.5,
        "designed_on": 20,
        "attack_before": attack_before,
        "attack_after": attack_after,
        "clean_before": clean_before,
        "clean_after": clean_after,
        "fall": fall,
        "fall_low": fall_low,
        "fall_high": fall_high,
        "price": price,
        "price_low": price_low,
        "price_high": price_high,
        "clean_per_attack": k,
        "net": net,
        "net_low": low,
        "net_high": high,
        "conclusion": f"With two clean texts for each attack the net is {100 * net:.0f} points: {word}.",
    }
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_22_5", "locked": true}
LISTS_22_5 = ("attack_before", "attack_after", "clean_before", "clean_after")
NUMBERS_22_5 = (
    "fall",
    "fall_low",
    "fall_high",
    "price",
    "price_low",
    "price_high",
    "clean_per_attack",
    "net",
)
KEYS_22_5 = (
    "idea",
    "predicted",
    "designed_on",
    *LISTS_22_5,
    *NUMBERS_22_5,
    "net_low",
    "net_high",
    "conclusion",
)
VERDICTS_22_5 = ("use", "do not use", "cannot tell")


def paired_22_5(first, second):
    """Mean, standard error and half a t interval of the paired differences; half an unpaired one beside them."""
    d = [float(a) - float(b) for a, b in zip(first, second, strict=True)]
    n, q = len(d), float(stats.t.ppf(0.975, len(d) - 1))
    apart = math.sqrt(sum(stdev(map(float, part)) ** 2 for part in (first, second)) / n)
    return mean(d), stdev(d) / math.sqrt(n), q * stdev(d) / math.sqrt(n), q * apart


def check_22_5(report):
    mine = checking.calls(report)()
    assert isinstance(mine, dict), f"Return a dict, not {checking.shown(mine)}."
    missing = [key for key in KEYS_22_5 if key not in mine]
    assert not missing, f"The report lacks {', '.join(missing)}."
    extra = [str(key) for key in mine if key not in KEYS_22_5]
    assert not extra, f"The report has keys that nobody asked for: {', '.join(extra)}."
    for key, least in (("idea", 60), ("conclusion", 40)):
        assert isinstance(mine[key], str) and len(mine[key].strip()) >= least, (
            f"{key}: a text of {least} characters at least."
        )
    for key in ("predicted", "designed_on", *NUMBERS_22_5, "net_low", "net_high"):
        value = mine[key]
        assert isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value), (
            f"{key}: a finite number expected, not {checking.shown(value)}."
        )
    assert mine["designed_on"] == int(mine["designed_on"]) >= 5, "designed_on: a whole number from 5."
    assert -1 <= mine["predicted"] <= 1, "predicted: a share from -1 to 1, as fall is."
    assert mine["clean_per_attack"] >= 0, "clean_per_attack: a number from 0."
    for key in LISTS_22_5:
        value = mine[key]
        assert isinstance(value, list | tuple) and all(isinstance(v, bool) for v in value), (
            f"{key}: a list of True and False."
        )
        assert len(value) >= 40, f"{key}: at least 40 texts, not {len(value)}."
    for kind in ("attack", "clean"):
        first, second = mine[f"{kind}_before"], mine[f"{kind}_after"]
        assert len(first) == len(second), (
            f"{kind}: the same texts without and with the defence, so both lists are equally long."
        )
        assert list(first) != list(second), (
            f"{kind}: both lists are equal, so there is no spread to judge by. Test more texts."
        )

    def near(key, want, wrong):
        if abs(mine[key] - want) > 0.005:
            for message, value in wrong.items():
                assert abs(mine[key] - value) > 1e-3, f"{key}: {message}"
            raise AssertionError(f"{key}: you have {mine[key]:.3f}; from your own lists it is {want:.3f}.")

    fall, e_fall, half_fall, loose_fall = paired_22_5(mine["attack_before"], mine["attack_after"])
    price, e_price, half_price, loose_price = paired_22_5(mine["clean_after"], mine["clean_before"])
    relative = fall / max(mean(map(float, mine["attack_before"])), 1e-9)
    near(
        "fall",
        fall,
        {
            "before minus after: a fall is positive.": -fall,
            "this is relative to what was there before.": relative,
        },
    )
    near("price", price, {"after minus before: a price is positive where errors are added.": -price})
    for key, centre, half, loose in (
        ("fall", fall, half_fall, loose_fall),
        ("price", price, half_price, loose_price),
    ):
        for end, sign in (("low", -1), ("high", 1)):
            near(f"{key}_{end}", centre + sign * half, {
                "the same texts met both systems: take the spread of the paired differences.": centre + sign * loose,
            })  # fmt: skip
    k = mine["clean_per_attack"]
    net, error = fall - k * price, math.sqrt(e_fall**2 + k**2 * e_price**2)
    near(
        "net",
        net,
        {"clean texts are k times as many: multiply the price.": fall - price if k != 1 else math.inf},
    )
    for end, sign in (("low", -1), ("high", 1)):
        near(f"net_{end}", net + sign * 1.96 * error, {
            "the price is a sample too: its variance is missing.": net + sign * 1.96 * e_fall,
            "add variances, not standard errors.": net + sign * 1.96 * (e_fall + k * e_price),
            "k stands squared in the variance.": net + sign * 1.96 * math.sqrt(e_fall**2 + k * e_price**2),
        })  # fmt: skip
    want = "use" if net - 1.96 * error > 0 else "do not use" if net + 1.96 * error < 0 else "cannot tell"
    said = mine["conclusion"].lower()
    bare = said.replace("do not use", "")
    found = [word for word in VERDICTS_22_5 if re.search(rf"\b{word}\b", bare if word == "use" else said)]
    assert f"{100 * net:.0f} points" in said, f"conclusion: it does not name the net, {100 * net:.0f} points."
    assert found == [want], (
        f"conclusion: by the interval of the net the verdict is {want!r}; it says {found or 'none of the three'}."
    )
    print(
        f"22.5 passed: success falls by {100 * fall:.0f} points, clean errors rise by {100 * price:.0f}. Now a person reads."
    )


check_22_5(report)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Keep the two verdicts of each text side by side from the beginning. Paired lists cannot be rebuilt from two shares.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Ask a friend to write the forty held-out attacks, and to read your defence first.
#
# </details>
#
# {{solution}}
