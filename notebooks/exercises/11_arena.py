# ---
# jupyter:
#   instructlab:
#     id: "11"
#     title: The arena
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 11: the arena
#
# Each exercise is a box, a cell for your answer, and a checker in the cell below it. Replace the line that
# raises `NotImplementedError`, then run both cells. A checker that says no also says what probably went
# wrong.
#
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases
# that you do not see here, so test more than the checker does. Nothing on this page needs a download or the internet.
# The first four are short. Exercise 11.5 trains small networks (its checker takes a few seconds), and exercise 11.6 is a
# project: an evening each.
#
# {{overview}}

# %%
import functools
import math

import numpy as np
import torch
from torch.nn import functional as F

from instructlab_utils import checking, intervals

# %% [markdown]
# The next cell is for exercise 11.5 and exercise 11.6. Skip it until then. It makes a *world*: a network with two hidden
# layers that learned to tell six clouds of points apart, and a new task. The clouds have turned and moved, two and two of
# them have become one class, and there are few labelled rows. `tuned` tunes the network in one of five ways.

# %%
PARTS = ("W1", "b1", "W2", "b2")  # the network below the head
METHODS = ("bias", "lora1", "lora2", "lora4", "full")


def hidden(net, x):
    """The states under the head. All may have one more axis in front: many networks at once."""
    W1, b1, W2, b2 = net
    return torch.relu(torch.relu(x @ W1.mT + b1) @ W2.mT + b2)


def world(seed, wide=16, width=24, clouds=6):
    """The network's parts, and rows of the new task: train, dev, test, each (x, y) with y in 0, 1, 2."""
    g = torch.Generator().manual_seed(seed)
    size, turn, shift, more = torch.rand(4, generator=g).tolist()
    centres, far, size = torch.randn(clouds, wide, generator=g), torch.zeros(wide), 0.7 * 2**size
    move = torch.eye(wide)

    def points(n):
        k = torch.randint(clouds, (n,), generator=g)
        return size * (centres[k] @ move.T + far + torch.randn(n, wide, generator=g)), k

    shapes = ((width, wide), (1, width), (width, width), (1, width), (clouds, width))
    net = [(torch.randn(*s, generator=g) * (2 / s[1]) ** 0.5).requires_grad_() for s in shapes]
    adam, (x, k) = torch.optim.Adam(net, lr=1e-2), points(400)
    for _ in range(100):
        adam.zero_grad()
        F.cross_entropy(hidden(net[:4], x) @ net[4].T, k).backward()
        adam.step()
    angles, classes = torch.randn(wide, wide, generator=g), torch.randperm(clouds, generator=g) % 3
    move = torch.matrix_exp(0.3 * turn * (angles - angles.T))
    far, rows = 1.5 * shift * torch.randn(wide, generator=g), {}
    for part, n in (("train", 40 + int(40 * more)), ("dev", 200), ("test", 600)):
        x, k = points(n)
        rows[part] = x, classes[k]
    return [w.detach() for w in net[:4]], rows


def fresh(method, net, seeds):
    """What the method trains, one copy for each seed: a new head, and biases, a low-rank update, or all."""
    draws, (width, wide) = [torch.Generator().manual_seed(seed) for seed in seeds], net[0].shape
    many = len(seeds)

    def drawn(*shape):
        return torch.stack([torch.randn(*shape, generator=g) for g in draws])

    trained = {"head": 0.2 * drawn(3, width), "bias": torch.zeros(many, 1, 3)}
    for part, w in zip(PARTS, net, strict=True):
        if method == "full" or (method == "bias" and part in ("b1", "b2")):
            trained[part] = w.repeat(many, 1, 1)
    if method.startswith("lora"):
        r = int(method[4:])
        trained |= {"A1": drawn(r, wide) / wide**0.5, "B1": torch.zeros(many, width, r)}
        trained |= {"A2": drawn(r, width) / width**0.5, "B2": torch.zeros(many, width, r)}
    return trained, draws


def logits(trained, net, x):
    parts = [trained.get(part, w) for part, w in zip(PARTS, net, strict=True)]
    if "A1" in trained:
        parts[0], parts[2] = (
            parts[0] + trained["B1"] @ trained["A1"],
            parts[2] + trained["B2"] @ trained["A2"],
        )
    return hidden(parts, x) @ trained["head"].mT + trained["bias"]


def tuned(method, rates, net, rows, seeds, steps=40, batch=8):
    """Accuracies on dev and test, a dict of tensors (rates, seeds): SGD, all rates and seeds at once."""
    trained, draws = fresh(method, net, seeds)
    x, y = rows["train"]
    batches = torch.stack([torch.randint(len(x), (steps, batch), generator=g) for g in draws], 1)
    trained = {k: w.repeat(len(rates), 1, 1) for k, w in trained.items()}
    step = torch.tensor(rates).repeat_interleave(len(seeds))[:, None, None]
    for chosen in batches.repeat(1, len(rates), 1):
        live = {k: w.requires_grad_() for k, w in trained.items()}
        loss = F.cross_entropy(
            logits(live, net, x[chosen]).flatten(0, 1), y[chosen].flatten(), reduction="sum"
        )
        slopes = torch.autograd.grad(loss / batch, list(live.values()))
        trained = {k: w.detach() - step * slope for (k, w), slope in zip(live.items(), slopes, strict=True)}
    found = {}
    for part in ("dev", "test"):
        right = logits(trained, net, rows[part][0]).argmax(-1) == rows[part][1]
        found[part] = right.double().mean(1).view(len(rates), len(seeds))
    return found


def count(method, net):
    """How many numbers the method trains."""
    return sum(w.numel() for w in fresh(method, net, [0])[0].values())


# %% [markdown]
# ## 11.1 A front with prices
#
# > ●●●○○ · 15 minutes · graded
#
# `rows` is a list of dicts, one per method: `name`, `score` (larger is better), and `cost` (smaller is better). Return the
# *names* on the Pareto front, from the cheapest to the dearest; among equal costs keep the order of `rows`. Equal methods do
# not dominate each other: ties stay. A method whose score is `nan` diverged, and is never on the front. There may be no
# method at all.


# %% nbgrader={"grade_id": "answer_11_1", "solution": true}
def front(rows):
    """Return a list of names."""
    ### BEGIN SOLUTION
    alive = [row for row in rows if not math.isnan(row["score"])]

    def beats(a, b):
        no_worse = a["score"] >= b["score"] and a["cost"] <= b["cost"]
        return no_worse and (a["score"] > b["score"] or a["cost"] < b["cost"])

    kept = [row for row in alive if not any(beats(other, row) for other in alive)]
    return [row["name"] for row in sorted(kept, key=lambda row: row["cost"])]
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_11_1", "grade": true, "points": 3, "locked": true}
def made_rows(*triples):
    return [{"name": name, "score": score, "cost": cost} for name, score, cost in triples]


def check_11_1(front):
    call = checking.calls(front)
    rows = made_rows(
        ("full", 94.0, 900), ("late", 92.0, 200), ("lora", 92.0, 80), ("head", 72.0, 1), ("vera", 90.0, 80)
    )
    got = call(rows)
    assert isinstance(got, list | tuple) and all(isinstance(name, str) for name in got), (
        f"A list of names expected, not {checking.shown(got)}."
    )
    wrong = {
        "vera costs as much as lora and scores less: worse in one, better in none. It is dominated.": [
            "head",
            "lora",
            "vera",
            "full",
        ],
        "late scores as much as lora and costs more: worse in one, better in none. It is dominated.": [
            "head",
            "lora",
            "late",
            "full",
        ],
        "These are the dominated ones. The front has the others.": ["vera", "late"],
        "From the cheapest to the dearest, please.": ["full", "lora", "head"],
        "From the cheapest to the dearest, please. You sort by name.": ["full", "head", "lora"],
        "Only the best score is left. A method stays if no other is at least as good and as cheap.": ["full"],
    }
    both = (
        "vera costs as much as lora and scores less; late scores as much and costs more. Both are dominated."
    )
    assert not {"vera", "late"} <= set(got) or "lora" not in got, both
    checking.equal(got, ["head", "lora", "full"], "the front", wrong)
    twins = made_rows(("b", 80.0, 5), ("a", 80.0, 5), ("c", 79.0, 6))
    says = "Two equal methods do not dominate each other: both stay, in the order of the rows."
    checking.equal(call(twins), ["b", "a"], "the front", says=says)
    print("11.1 passed the visible cases.")


check_11_1(front)
### BEGIN HIDDEN TESTS


def by_prices(rows):
    """Price by price upwards: the best of each price, if it is better than all that is cheaper."""
    names, best = [], -math.inf
    for cost in sorted({row["cost"] for row in rows}):
        scores = [row["score"] for row in rows if row["cost"] == cost and row["score"] == row["score"]]
        top = max(scores, default=-math.inf)
        if top > best:
            names += [row["name"] for row in rows if row["cost"] == cost and row["score"] == top]
            best = top
    return names


def hidden_11_1(front):
    call = checking.calls(front)
    says = "A diverged method has nan as its score, and every comparison with nan is false. Leave it out."
    for rows in (
        made_rows(("ok", 80.0, 5), ("gone", math.nan, 1)),
        made_rows(("gone", math.nan, 5), ("ok", 80.0, 5), ("dear", math.nan, 9), ("best", 81.0, 7)),
        made_rows(("gone", math.nan, 1)),
    ):
        call.agrees(by_prices, (rows,), name="the front", says=says)
    with checking.means(ValueError, "No method at all: an empty front."):
        call.agrees(by_prices, ([],), name="the front", says="No method at all.")
    says = "Scores below zero, as log-likelihoods are: start from minus infinity, or from no score at all, not from 0."
    call.agrees(
        by_prices, (made_rows(("a", -5.0, 1), ("b", -2.0, 2), ("c", -3.0, 3)),), name="the front", says=says
    )
    says = "b scores more than a, by a thousandth: a larger score is larger. Do not round before you compare."
    call.agrees(by_prices, (made_rows(("a", 80.001, 1), ("b", 80.002, 2)),), name="the front", says=says)
    says = "A score of 0 is a score. Only nan has diverged: ask for it, not for what counts as false."
    call.agrees(by_prices, (made_rows(("a", 0.0, 1), ("b", 1.0, 2)),), name="the front", says=says)
    rng = np.random.default_rng(0)
    for n, says in (
        (1, "A single method."),
        (30, "Thirty random methods with many ties."),
        (9, "Below zero."),
    ):
        points = rng.integers(0, 6, (n, 2)) - (3 if n == 9 else 0)
        rows = made_rows(*[(f"{(i * 7) % n}", float(s), int(c)) for i, (s, c) in enumerate(points)])
        call.agrees(by_prices, (rows,), name="the front", says=f"Wrong: {says}")


hidden_11_1(front)
### END HIDDEN TESTS

# %% [markdown]
# ## 11.2 What the best seed adds
#
# > ●●○○○ · 10 minutes · practice
#
# You have recorded $n$ scores. Somebody draws $k$ of them *with replacement* and reports the largest. Return its expected
# value, exactly: no simulation. $k$ may be larger than $n$, and scores may be equal.


# %% nbgrader={"grade_id": "answer_11_2", "solution": true}
def expected_best(scores, k):
    """scores: a list of n floats; k >= 1. Return a number."""
    ### BEGIN SOLUTION
    x = np.sort(np.asarray(scores, dtype=float))
    i = np.arange(1, len(x) + 1)
    return float((x * ((i / len(x)) ** k - ((i - 1) / len(x)) ** k)).sum())
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_11_2", "locked": true}
def by_steps(scores, k):
    """The lowest score, and each step upwards times the probability that the best of k draws is above it."""
    x, n = sorted(scores), len(scores)
    return x[0] + sum((x[i] - x[i - 1]) * (1 - (i / n) ** k) for i in range(1, n))


def check_11_2(expected_best):
    slow = "Does it list all n ** k draws? There are too many for larger k: use a formula."
    call = checking.calls(expected_best, limit=0.5, slow=slow)
    scores = [0.9, 0.5, 0.7, 0.8]
    pairs = [(a, b) for a in scores for b in scores]
    without = [max(a, b) for i, a in enumerate(scores) for j, b in enumerate(scores) if i != j]
    want = sum(map(max, pairs)) / 16
    up = sorted(scores)
    wrong = {
        "You drew without replacement. With replacement the same score can come twice.": sum(without) / 12,
        "The largest of all: that is the limit for very many draws.": 0.9,
        "The formula needs the scores in ascending order.": sum(
            x * (((i + 1) / 4) ** 2 - (i / 4) ** 2) for i, x in enumerate(scores)
        ),
        "This is the mean of one draw. The best of k is larger.": 0.725,
        "This is the expected *worst* of the draws: the scores stand in descending order.": sum(
            map(min, pairs)
        )
        / 16,
        "(i/n)^k is the probability of *at most* the i-th. Take off that of the one before.": sum(
            x * ((i + 1) / 4) ** 2 for i, x in enumerate(up)
        ),
        "The probabilities are shifted by one score: count i from 1.": sum(
            x * ((i / 4) ** 2 - ((i - 1) / 4) ** 2) for i, x in enumerate(up)
        ),
        "The probabilities are shifted by one score: the lowest can be the best of k, too.": sum(
            x * ((i / 4) ** 2 - (max(i - 1, 0) / 4) ** 2) for i, x in enumerate(up)
        ),
        "(i/n)^k is the probability of *at most* the i-th, normalised or not. Take off that of the one before.": sum(
            x * (i + 1) ** 2 for i, x in enumerate(up)
        )
        / sum((i + 1) ** 2 for i in range(4)),
        "This is a quantile. The expected value is a mean.": 0.8,
        "That is for one draw more: the power is k.": by_steps(scores, 3),
    }
    got = call(scores, 2)
    if not math.isclose(float(got), float(call(scores, 2)), rel_tol=1e-12):
        raise AssertionError("Two calls give different numbers. Exactly, please: no simulation.")
    says = "The mean over all 16 ordered pairs:"
    if math.isclose(float(got), want, rel_tol=0.01):
        says = "That is near, and not exact. A simulation, or a rounded number? The mean over all 16 ordered pairs:"
    checking.equal(got, want, "the expected best", wrong, says=says)
    checking.equal(
        call(scores, 1), 0.725, "the expected best", says="For one draw the expected best is the mean."
    )
    rng = np.random.default_rng(0)
    for n, k, says in (
        (4, 3, "Three draws."),
        (7, 2, "Seven scores."),
        (3, 5, "More draws than scores: with replacement that may be."),
        (1, 4, "One score only: it is always the best."),
        (19, 60, "Many draws of many scores."),
        (5, 100_000, "So many draws that the largest score is nearly certain."),
    ):
        call.agrees(by_steps, (rng.random(n).tolist(), k), name="the expected best", says=says)
    says = "Equal scores: each of them is a draw of its own."
    call.agrees(by_steps, ([3, 1, 3, 2, 2], 2), ([7, 7, 7], 3), name="the expected best", says=says)
    says = "Scores below zero, and thousands apart."
    call.agrees(by_steps, ([-2000.0, -3.5, 200.0, -1.0], 3), name="the expected best", says=says)
    print(f"11.2 passed. The mean is 0.725, the best of two {want:.4f}: that gain is bought, not earned.")


check_11_2(expected_best)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The maximum is at most $x$ only if all draws are. What is the probability that it is at most the $i$-th smallest score?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# It is $(i/n)^k$. The probability to be *exactly* the $i$-th is a difference of two of these.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 11.3 The comparison that could not lose
#
# > ●●●○○ · 15 minutes · practice · bug hunt
#
# This function compares a new method with an old one. `runs` maps a method to a dict: learning rate → list of dicts, one per
# seed, each with `dev` and `test` accuracy. It always finds that the new method is better. Find three bugs.


# %%
def broken_compare(runs):
    best = {rate: max(r["test"] for r in seeds) for rate, seeds in runs["new"].items()}
    rate = max(best, key=best.get)
    old_rate = rate if rate in runs["old"] else next(iter(runs["old"]))
    old = [r["test"] for r in runs["old"][old_rate]]
    return {"rate": {"new": rate, "old": old_rate}, "difference": best[rate] - sum(old) / len(old)}


# %% [markdown]
# Write it right: for each method choose its *own* rate by the mean `dev` accuracy over seeds; of equally good rates take the
# smallest. Then return the mean paired difference in `test`, new minus old. The lists have the same seeds in the same order.


# %% nbgrader={"grade_id": "answer_11_3", "solution": true}
def compare(runs):
    """Return {"rate": {"new": rate, "old": rate}, "difference": float}."""

    ### BEGIN SOLUTION
    def mean(seeds, split):
        return sum(r[split] for r in seeds) / len(seeds)

    rate = {
        method: max(sorted(by_rate), key=lambda r: mean(by_rate[r], "dev"))
        for method, by_rate in runs.items()
    }
    new, old = (runs[method][rate[method]] for method in ("new", "old"))
    pairs = [a["test"] - b["test"] for a, b in zip(new, old, strict=True)]
    return {"rate": rate, "difference": sum(pairs) / len(pairs)}
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_11_3", "locked": true}
def made_runs():
    def seeds(dev, test):
        return [{"dev": d, "test": t} for d, t in zip(dev, test, strict=True)]

    new = {
        1e-2: seeds((0.70, 0.74), (0.95, 0.66)),
        1e-3: seeds((0.80, 0.82), (0.80, 0.78)),
        1e-4: seeds((0.80, 0.82), (0.76, 0.79)),
    }
    old = {
        1e-2: seeds((0.50, 0.50), (0.51, 0.50)),
        1e-4: seeds((0.79, 0.81), (0.74, 0.75)),
        1e-5: seeds((0.86, 0.40), (0.79, 0.79)),
    }
    return {"new": new, "old": old}


def by_table(runs):
    """One row per method, rate and seed."""
    rate, score = {}, {}
    for method in ("new", "old"):
        rows = [(sum(s["dev"] for s in seeds), -r) for r, seeds in runs[method].items()]
        rate[method] = -max(rows)[1]
        score[method] = [s["test"] for s in runs[method][rate[method]]]
    return {"rate": rate, "difference": (sum(score["new"]) - sum(score["old"])) / len(score["new"])}


def with_one_rate(runs):
    """The old method gets the rate of the new one, where it was tried."""
    rate = by_table(runs)["rate"]["new"]
    return by_table({**runs, "old": {rate: runs["old"][rate]}} if rate in runs["old"] else runs)


def random_runs(seed, n_seeds, names):
    """Accuracies on dev in halves, so that ties are frequent; the rates in no order."""
    rng = np.random.default_rng(seed)

    def run():
        return {"dev": rng.integers(0, 3) / 2, "test": rng.integers(0, 9) / 8}

    rates = {m: rng.permutation([1e-5, 3e-5, 1e-4, 3e-4, 1e-3])[: 3 + seed % 3].tolist() for m in names}
    return {m: {r: [run() for _ in range(n_seeds)] for r in rates[m]} for m in names}


def check_11_3(compare):
    call = checking.calls(compare)
    runs = made_runs()
    got, want = call(runs), by_table(runs)
    checking.form(got, want, "the comparison")
    rate = got["rate"]
    wrong = {
        "new: 0.01 is best on *test*, by one lucky seed. Choose on dev, by the mean.": 1e-2,
        "new: two rates are equally good on dev. Take the smallest.": 1e-3,
    }
    checking.equal(rate["new"], 1e-4, "the rate of 'new'", wrong)
    wrong = {
        "old: one seed was best there, and test is better. The mean over seeds on dev chooses.": 1e-5,
        "old: the worst dev accuracy is not the choice.": 1e-2,
    }
    says = "old: the old method has a right to its own best rate."
    checking.equal(rate["old"], 1e-4, "the rate of 'old'", wrong, says=says)
    wrong = {
        "difference: those are dev scores. Report test.": 0.81 - 0.80,
        "difference: new minus old, please.": -0.03,
        "difference: these are the best seeds. Take the mean over seeds.": 0.79 - 0.75,
        "difference: this is the worst seed. Take the mean over seeds.": 0.76 - 0.74,
        "difference: this is the sum over seeds. Take the mean.": 0.06,
        "difference: 0.03 is three points; the accuracies are shares.": 3.0,
    }
    checking.equal(got["difference"], want["difference"], "difference", wrong)
    seeds = {1e-3: (0.9, 0.9, 0.1), 1e-4: (0.7, 0.7, 0.7)}
    three = {r: [{"dev": d, "test": d / 2} for d in dev] for r, dev in seeds.items()}
    says = "Three seeds, of which one failed: the mean over seeds chooses, not the median."
    checking.equal(
        call({"new": three, "old": three})["rate"], {"new": 1e-4, "old": 1e-4}, "the rate", says=says
    )
    near = {r: [{"dev": d, "test": d}] for r, d in {1e-3: 0.80004, 1e-4: 0.80001}.items()}
    says = "A larger mean is better, by however little: do not round it before you compare."
    checking.equal(
        call({"new": near, "old": near})["rate"], {"new": 1e-3, "old": 1e-3}, "the rate", says=says
    )
    none = {r: [{"dev": 0.0, "test": 0.0}] for r in (1e-3, 1e-4)}
    says = "No rate learned anything on dev: all are equally good, so take the smallest. Do not start from a score of 0."
    with checking.means(KeyError, says):
        checking.equal(
            call({"new": none, "old": none})["rate"], {"new": 1e-4, "old": 1e-4}, "the rate", says=says
        )
    wrong = {
        "difference: it may be below zero. Keep the sign.": lambda runs: (
            by_table(runs) | {"difference": abs(by_table(runs)["difference"])}
        ),
        "old: it got the rate of the new method. Choose its *own* rate, on its own dev scores.": with_one_rate,
    }
    for seed in range(8):
        case = random_runs(seed, 1 + seed % 4, ["old", "new"])
        says = f"Seeds: {1 + seed % 4}; each method has rates of its own, in no order."
        call.agrees(by_table, (case,), name="the comparison", wrong=wrong, says=says)
    print("11.3 passed. The broken function finds", round(broken_compare(made_runs())["difference"], 3))


check_11_3(compare)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Which split, which statistic over seeds, and whose rate: ask the three questions of both methods.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `max(sorted(rates), key=…)` returns the first, so the smallest, of equally good ones.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 11.4 What freezing saves
#
# > ●●○○○ · 8 minutes · practice · prediction
#
# A model has 22 million weights in 32-bit floats. LoRA trains 100,000 numbers beside them and freezes the rest. Predict:
#
# - `optimiser`: how many floats AdamW keeps for LoRA (its running averages, without the gradients).
# - `disk`: bytes of tensors in LoRA's adapter file.
# - `forward`: 1 if LoRA makes the forward pass of a training update cheaper than in full fine-tuning, else 0.
# - `off`: 1 if switching the adapter off gives the old model back exactly, else 0.


# %% nbgrader={"grade_id": "answer_11_4", "solution": true}
def prediction():
    """Return a dict of four whole numbers: optimiser, disk, forward, off."""
    ### BEGIN SOLUTION
    return {"optimiser": 200_000, "disk": 400_000, "forward": 0, "off": 1}
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_11_4", "locked": true}
def check_11_4(prediction):
    mine = checking.predicted(prediction, ("optimiser", "disk", "forward", "off"))
    wrong = {
        "optimiser: frozen weights have no averages. That is the saving.": 44_000_000,
        "optimiser: frozen weights have no averages; only the adapter's numbers have.": 44_200_000,
        "optimiser: AdamW keeps two averages per trained number.": 100_000,
        "optimiser: the gradients are not counted here.": 300_000,
        "optimiser: these are the numbers and their averages. Count the averages.": 400_000,
        "optimiser: floats, not bytes.": 800_000,
        "optimiser: these are the weights of the model. They are frozen.": 22_000_000,
    }
    says = "optimiser: two floats for each of the trained numbers."
    checking.equal(mine["optimiser"], 200_000, "optimiser", wrong, says=says)
    wrong = {
        "disk: bytes, not numbers. A 32-bit float has four.": 100_000,
        "disk: the whole model is not in the file. It is the same for all adapters.": 88_000_000,
        "disk: the frozen weights are not in the file, only the adapter is.": 88_400_000,
        "disk: that would be 16-bit floats.": 200_000,
        "disk: the file for use has no averages of the optimiser.": 1_200_000,
        "disk: 32 bits are four bytes.": 3_200_000,
        "disk: a 32-bit float has four bytes, a 64-bit one eight.": 800_000,
    }
    says = "disk: the trained numbers alone, four bytes each."
    checking.equal(mine["disk"], 400_000, "disk", wrong, says=says)
    wrong = {"forward: the whole model is still computed, and the adapter on top of it.": 1}
    checking.equal(mine["forward"], 0, "forward", wrong, says="forward: 0 or 1.")
    wrong = {"off: no frozen weight was touched, so nothing is left of the adapter.": 0}
    checking.equal(mine["off"], 1, "off", wrong, says="off: 0 or 1.")
    print("11.4 passed.")


check_11_4(prediction)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Ask of each resource: does it grow with the *trained* numbers, or with all that is computed?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# A 32-bit float has four bytes.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 11.5 Sixty runs to choose with
#
# > ●●●●○ · 45 minutes · graded
#
# A colleague needs *one* setting: a method and its rate. She will tune with it again and again, each time with another seed.
# What counts for her is the mean test accuracy of these runs, and a run that got stuck counts with its accuracy of about a
# third. You may make `trials` runs, then you must name the setting. Write
#
# `choose(settings, run, trials, limit) -> i`
#
# - `settings` is a list of dicts with `name`, `rate` and `trained`, the count of the numbers that it trains. Their order
#   means nothing. Only settings with at most `limit` trained numbers may be chosen (some always are); return the place of
#   yours in the list, an int.
# - `run(i, seed)` tunes with setting `i` and a seed from $0$ to $15$, and returns `{"dev": …, "test": …}`, two accuracies.
#   Each call is a trial, also the same one again. The call after the last trial raises `OverTrials`. `run` is fast; a call of
#   `choose` may take twenty seconds of processor time.
# - `test` is in the record as it is in everybody's. Your choice may not depend on it.
# - The same record must lead to the same choice: if you draw at random, seed your generator.
#
# The checker takes three worlds, and three records of each, with $60$ trials and a limit of $500$. It tunes the setting that
# you chose with $40$ fresh seeds. On average your settings' mean test accuracy may lie at most $1.5$ points below that of the
# best setting allowed, measured with the same $40$ seeds. Three looks at each setting miss by more than two points, one look
# at each by far more. The hidden cases have other worlds, trials and limits. `record(world, trials, draw)` makes what you
# need for your own experiments (`draw` is 0, 1 or 2: other runs); the checker's worlds lie below 100, so stay above.


# %%
RATES = {"bias": (0.1, 0.2, 0.4, 0.8), "full": (0.05, 0.1, 0.2, 0.4)}
RATES |= {f"lora{r}": (0.08, 0.12, 0.18, 0.27, 0.4) for r in (1, 2, 4)}
TRIALS, LIMIT = 60, 500
world_of = functools.cache(world)


class OverTrials(Exception):
    """More runs were asked for than were allowed."""


@functools.cache
def runs_of(number, method):
    """All runs of a method at once, 48 seeds: that takes hardly longer than one."""
    return tuned(method, RATES[method], *world_of(number), range(48))


def fresh_runs(number, setting):
    """Test accuracies of 40 seeds that are in no record."""
    return tuned(setting["name"], (setting["rate"],), *world_of(number), range(1000, 1040))["test"][0]


def record(number, trials=TRIALS, draw=0):
    """(settings, run) of a world: the list, and the metered function."""
    net, _ = world_of(number)
    pairs = [(method, rate) for method in METHODS for rate in RATES[method]]
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(number)).tolist()
    settings = [
        {"name": name, "rate": rate, "trained": count(name, net)}
        for name, rate in map(pairs.__getitem__, order)
    ]
    left = [trials]

    def run(i, seed):
        if not (0 <= i < len(settings) and 0 <= seed < 16 and i % 1 == seed % 1 == 0):
            raise ValueError(f"run({i!r}, {seed!r}): a place in the list and a seed from 0 to 15")
        if not left[0]:
            raise OverTrials(f"{trials} runs were allowed")
        left[0] -= 1
        found, at = (
            runs_of(number, settings[i]["name"]),
            RATES[settings[i]["name"]].index(settings[i]["rate"]),
        )
        return {part: found[part][at, 16 * draw + int(seed)].item() for part in ("dev", "test")}

    return settings, run


# %% nbgrader={"grade_id": "answer_11_5", "solution": true}
def choose(settings, run, trials, limit):
    """Return the place of one setting with at most ``limit`` trained numbers; at most ``trials`` calls of run."""
    ### BEGIN SOLUTION
    alive = [i for i, setting in enumerate(settings) if setting["trained"] <= limit]
    seen = {i: [] for i in alive}

    def mean(i):
        return sum(seen[i]) / max(1, len(seen[i]))

    while len(alive) > 1:  # a run each, then those that fell behind leave; who stays gets more and more runs
        if trials < len(alive) or len(seen[alive[0]]) == 16:
            break
        for i in alive:
            seen[i].append(run(i, len(seen[i]))["dev"])
            trials -= 1
        share = {1: 2, 3: 5, 6: 9}.get(len(seen[alive[0]]))  # after so many looks one of so many stays
        if share:
            alive = sorted(alive, key=mean, reverse=True)[: max(2, len(seen) // share)]
    return max(alive, key=mean)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_11_5", "grade": true, "points": 5, "locked": true}
BEST = {  # (world, limit): the best mean over the 40 fresh seeds among the settings allowed, measured once
    (31, 500): 0.86537, (38, 500): 0.88083, (44, 500): 0.77738, (36, 300): 0.92046, (46, 300): 0.87175,
}  # fmt: skip
STUCK = 0.48  # a guess is right one time in three


def one_record(choose, number, draw, trials, limit):
    """(points behind the best, the choice's fresh runs, what was seen, settings, choice)."""

    def played(blur):
        (settings, run), seen = record(number, trials, draw), []

        def noted(i, seed):
            got = run(i, seed)
            seen.append((i, got["dev"]))
            other = abs(got["test"] + blur * math.sin(1000 * i + 77 * seed))
            return {"dev": got["dev"], "test": min(1.0, other)}

        return call(settings, noted, trials, limit), seen, settings

    call = checking.calls(choose, limit=20, slow="All trials together take about a second.")
    over = f"More than {trials} runs were asked for. The number of trials is an argument."
    with checking.means(OverTrials, over):
        i, seen, settings = played(0.0)
        checking.form(i, 0, "the choice")
        assert 0 <= i < len(settings), f"The choice {i} is no place in the list of {len(settings)} settings."
        size = settings[i]["trained"]
        assert size <= limit, (
            f"The choice trains {size} numbers; {limit} are the limit here. It is an argument."
        )
        assert played(0.0)[0] == i, (
            "The same record, two choices. If you draw at random, seed your generator."
        )
        other = (
            "Only the test accuracies were changed, and your choice with them. The test rows may not choose."
        )
        assert played(0.5)[0] == i, other
    runs = fresh_runs(number, settings[i])
    return BEST[number, limit] - runs.mean().item(), runs, seen, settings, i


def judge_11_5(choose, worlds, trials, limit, bar=0.015):
    found = [one_record(choose, number, draw, trials, limit) for number in worlds for draw in range(3)]
    behind = sum(points for points, *_ in found) / len(found)
    if behind <= bar:
        return behind
    told = f"{100 * behind:.1f} points behind the best setting, on average; {100 * bar:.1f} are allowed."
    looks = [
        [[d for j, d in seen if j == k] for k in range(len(settings))] for _, _, seen, settings, _ in found
    ]
    most = max(len(each) for one in looks for each in one)
    assert most > 1, f"{told} You looked at each setting once. The best of many single runs is mostly lucky."
    for (_, runs, _, settings, i), one in zip(found, looks, strict=True):
        stuck = sum(d < STUCK for d in one[i])
        name = f"{settings[i]['name']} at {settings[i]['rate']:g}"
        assert not stuck, (
            f"{told} You chose {name} though {stuck} of its {len(one[i])} trials got stuck before your eyes; of the fresh "
            f"runs {(runs < STUCK).double().mean():.0%} do. A mean counts them, the best seed and the median do not."
        )
    wasted = sum(len(each) for (_, _, _, settings, _), one in zip(found, looks, strict=True)
                 for setting, each in zip(settings, one, strict=True) if setting["trained"] > limit)  # fmt: skip
    share = wasted / sum(len(seen) for _, _, seen, _, _ in found)
    assert share < 0.05, f"{told} {share:.0%} of your runs went to settings that may not be chosen."
    lost = sum((runs < STUCK).double().mean().item() for _, runs, _, _, _ in found) / len(found)
    chosen = [len(one[i]) for (_, _, _, _, i), one in zip(found, looks, strict=True)]
    spread = [[len(each) for each in one if each] for one in looks]
    even = all(len(each) > 10 and max(each) <= 2 * min(each) for each in spread)
    assert not even, (
        f"{told} You spread the runs evenly, {min(chosen)} or so for each setting. A setting that gets stuck one time in "
        f"five shows nothing of it in {min(chosen)} runs with probability {0.8 ** min(chosen):.2f}. What is far behind "
        "needs no further run."
    )
    assert lost > 0.02, (
        f"{told} Your settings never get stuck, and they learn too little: caution has a price as well."
    )
    raise AssertionError(
        f"{told} Of the fresh runs {lost:.0%} got stuck; you had seen {min(chosen)} to {max(chosen)} runs of your choices."
    )


def check_11_5(choose):
    behind = judge_11_5(choose, (31, 38, 44), TRIALS, LIMIT)
    print(
        f"11.5 passed the visible cases: {max(0.0, 100 * behind):.1f} points behind the best setting, on average."
    )


check_11_5(choose)
### BEGIN HIDDEN TESTS


def hidden_11_5(choose):
    judge_11_5(choose, (36, 46), 45, 300)


hidden_11_5(choose)
### END HIDDEN TESTS

# %% [markdown]
# ## 11.6 Project: an arena of your own
#
# > ●●●●● · 180 minutes · practice
#
# Build an arena: at least three ways to tune, at least two tasks, equal chances for all, and costs beside the scores. Take
# the worlds of exercise 11.5, the models of this lesson, or your own field's. Write the claim first: "*ahead* has a higher
# test accuracy than *behind* by more than `threshold`, on the mean of these tasks". Then tune, run, and return a dict with
# exactly these keys:
#
# - `claim`: a sentence that names `ahead`, `behind` and every task. `ahead`, `behind`: two of the methods. `threshold`: a
#   number, 0 or more.
# - `methods`, `tasks`: lists of different names; at least three methods, at least two tasks.
# - `tuning_seeds`, `seeds`: at least three and at least eight seeds; all different, none in both lists.
# - `tried`: method → task → a dict from a value of the knob (the rate, say) to the list of dev accuracies over the tuning
#   seeds. At least three values, and equally many for every method and task.
# - `chosen`: method → task → the value with the highest *mean* dev accuracy; of equals the smallest.
# - `edge`: the pairs (method, task) whose chosen value is the smallest or the largest that was tried. A list in any order.
# - `score`: method → task → list of test accuracies over `seeds`.
# - `larger`: task → the share of the most frequent class among the test rows.
# - `stuck`: method → task → how many of its scores lie below `larger` plus $0.02$.
# - `cost`: method → what it costs, a number above 0. `unit`: a text that says what is counted: trained numbers, bytes …
# - `difference`, `low`, `high`: score of *ahead* minus *behind*, the mean over tasks and seeds, and the two ends of its t
#   interval at $0.95$.
# - `front`: the methods on the Pareto front of mean score (over tasks and seeds) and cost. A list, the cheapest first; of
#   equally cheap ones in the order of `methods`.
# - `ruled_out`: the methods for which some other that is not dearer is *surely* better: the whole interval of its lead lies
#   above 0. There are many such intervals, so their level is $1 - 0.05 / p$, with $p = M (M - 1) / 2$ pairs of $M$ methods.
#   A list in any order.
# - `verdict`: `"supported"` if the interval of the difference lies above the threshold, `"refuted"` if it lies below, else
#   `"undecided"`.
#
# All accuracies are shares from 0 to 1. All methods see the same training rows. The unit of every interval is the **seed**:
# of each seed take the mean over the tasks first, and pair the methods by seed. A stuck run counts as it is, everywhere. The
# checker recomputes all numbers; it cannot know whether you ran what you report. A person reads the rest with this rubric
# (0, 1 or 2 points a row; 8 of 12 pass):
#
# | | 0 | 1 | 2 |
# |:--|:--|:--|:--|
# | claim | cannot fail | can fail | and the threshold would change what somebody does |
# | chances | rates tried for one method only | equal tries and updates | no value at an edge, or lists widened for all |
# | baseline | none | frozen features, or the larger class | both, and who loses to them is named |
# | costs | one count, since it is easy | the cost that the claim is about | measured; and what the count hides |
# | stuck runs | not looked at | counted | drawn as dots, and their cause was looked for |
# | ending | a winner | a verdict | and what these seeds and tasks cannot say |
#
# The cell below is a start: one row of the table `score`. A page of dots (section 6 of the lesson) belongs to a good project.


# %%
def start_11_6(method="lora2", number=120, rate=0.12, seeds=range(3)):
    """Test accuracies of one method on one world, and the share of the most frequent class."""
    net, rows = world(number)
    share = rows["test"][1].bincount().max().item() / len(rows["test"][1])
    return tuned(method, (rate,), net, rows, seeds)["test"][0].tolist(), share


# %% nbgrader={"grade_id": "answer_11_6", "solution": true}
def arena():
    """Return the dict of the table."""
    ### BEGIN SOLUTION
    methods, tasks = ["bias", "lora1", "lora4"], {"world 117": 117, "world 130": 130}
    rates = {"bias": (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)}
    rates |= dict.fromkeys(("lora1", "lora4"), (0.01, 0.02, 0.04, 0.08, 0.16, 0.32))
    tuning_seeds, seeds = list(range(6)), list(range(400, 420))  # twenty, planned on a pilot with other seeds
    tried, chosen, score, larger, cost = {}, {}, {}, {}, {}
    for task, number in tasks.items():
        net, rows = world(number)
        y = rows["test"][1]
        larger[task] = y.bincount().max().item() / len(y)
        for m in methods:
            dev = tuned(m, rates[m], net, rows, tuning_seeds)["dev"].tolist()
            tried.setdefault(m, {})[task] = dict(zip(rates[m], dev, strict=True))
            mean = {rate: sum(each) for rate, each in tried[m][task].items()}
            best = max(sorted(mean), key=mean.get)
            chosen.setdefault(m, {})[task] = best
            score.setdefault(m, {})[task] = tuned(m, (best,), net, rows, seeds)["test"][0].tolist()
            cost[m] = count(m, net)
    ends = [(m, t) for m in methods for t in tasks if chosen[m][t] in (min(tried[m][t]), max(tried[m][t]))]
    by_seed = {m: np.mean([score[m][t] for t in tasks], 0) for m in methods}
    mean = {m: by_seed[m].mean() for m in methods}
    found = intervals.t_interval(by_seed["lora4"] - by_seed["bias"])

    def dominates(a, b):
        no_worse = mean[a] >= mean[b] and cost[a] <= cost[b]
        return no_worse and (mean[a] > mean[b] or cost[a] < cost[b])

    def surely(a, b):
        return cost[a] <= cost[b] and intervals.t_interval(by_seed[a] - by_seed[b], 1 - 0.05 / 3).low > 0

    bar = 0.02
    return {
        "claim": "On world 117 and world 130 lora4 has a higher test accuracy than bias by more than two points: for less "
        "nobody here would keep more than three times as many numbers for each task.",
        "ahead": "lora4", "behind": "bias", "threshold": bar, "methods": methods, "tasks": list(tasks),
        "tuning_seeds": tuning_seeds, "seeds": seeds, "tried": tried, "chosen": chosen, "edge": ends, "score": score,
        "larger": larger, "cost": cost, "unit": "trained numbers",
        "stuck": {m: {t: sum(x < larger[t] + 0.02 for x in score[m][t]) for t in tasks} for m in methods},
        "difference": found.mean, "low": found.low, "high": found.high,
        "front": sorted((m for m in methods if not any(dominates(o, m) for o in methods)), key=cost.get),
        "ruled_out": [m for m in methods if any(surely(o, m) for o in methods if o != m)],
        "verdict": "supported" if found.low > bar else "refuted" if found.high < bar else "undecided",
    }  # fmt: skip
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_11_6", "locked": true}
ARENA = (
    "claim ahead behind threshold methods tasks tuning_seeds seeds tried chosen edge score larger stuck cost unit "
    "difference low high front ruled_out verdict"
).split()


def nested(table, name, methods, tasks):
    """A dict of dicts, with an entry for each method and task."""
    assert isinstance(table, dict) and set(table) == set(methods), f"{name}: one entry for each method."
    for m in methods:
        assert isinstance(table[m], dict) and set(table[m]) == set(tasks), (
            f"{name}[{m!r}]: one entry for each task."
        )
    return table


def shares(values, n, name):
    """A list of n shares."""
    assert isinstance(values, list | tuple) and len(values) == n, (
        f"{name}: a list with one number for each of {n} seeds."
    )
    for value in values:
        checking.form(value, 0.0, name)
        assert 0 <= value <= 1, f"{name}: an accuracy is a share from 0 to 1, not {value!r}."
    return [float(value) for value in values]


def check_11_6(arena):
    mine = checking.handed_in(arena, ARENA, limit=120.0)
    methods, tasks, ahead, behind = (mine[key] for key in ("methods", "tasks", "ahead", "behind"))
    assert len(set(methods)) == len(methods) >= 3, "methods: at least three, all different."
    assert len(set(tasks)) == len(tasks) >= 2, "tasks: at least two, all different."
    assert {ahead, behind} <= set(methods) and ahead != behind, "ahead, behind: two of the methods."
    for name in (ahead, behind, *tasks):
        assert name in mine["claim"], (
            f"claim: {name!r} does not occur. A claim names what it compares, and where."
        )
    for key, least in (("tuning_seeds", 3), ("seeds", 8)):
        assert len(set(mine[key])) == len(mine[key]) >= least, f"{key}: at least {least}, no two alike."
    both = set(mine["tuning_seeds"]) & set(mine["seeds"])
    assert not both, f"seeds: {sorted(both)} chose the rates. A rate looks best on the runs that chose it."
    tried = nested(mine["tried"], "tried", methods, tasks)
    sizes = {len(tried[m][t]) for m in methods for t in tasks}
    assert len(sizes) == 1, f"tried: {sorted(sizes)} values of the knob. Who may try more wins by that alone."
    assert min(sizes) >= 3, "tried: at least three values of the knob."
    chosen, edge = nested(mine["chosen"], "chosen", methods, tasks), set()
    for m in methods:
        for t in tasks:
            dev = {
                v: shares(x, len(mine["tuning_seeds"]), f"tried[{m!r}][{t!r}]")
                for v, x in tried[m][t].items()
            }
            want = max(sorted(dev), key=lambda v: round(sum(dev[v]), 9))
            lucky = max(sorted(dev), key=lambda v: max(dev[v]))
            wrong = {"chosen: one seed was best there. The mean over the tuning seeds chooses.": lucky}
            checking.equal(
                chosen[m][t], want, f"chosen[{m!r}][{t!r}]", wrong, says="chosen: highest mean on dev."
            )
            edge |= {(m, t)} if want in (min(dev), max(dev)) else set()
    got = {tuple(pair) for pair in mine["edge"]}
    assert got == edge, (
        f"edge: {sorted(edge - got)} missing, {sorted(got - edge)} too much. There the best may lie beyond."
    )
    score, n = nested(mine["score"], "score", methods, tasks), len(mine["seeds"])
    flat = {(m, t): shares(score[m][t], n, f"score[{m!r}][{t!r}]") for m in methods for t in tasks}
    by_seed = {m: np.mean([flat[m, t] for t in tasks], 0) for m in methods}
    for m in methods:
        assert np.ptp(by_seed[m]) > 0, (
            f"score: all seeds of {m!r} have the very same number. Something is not drawn anew."
        )
    assert set(mine["larger"]) == set(tasks), "larger: one share for each task."
    shares([mine["larger"][t] for t in tasks], len(tasks), "larger")
    stuck = nested(mine["stuck"], "stuck", methods, tasks)
    want = {m: {t: sum(x < mine["larger"][t] + 0.02 for x in flat[m, t]) for t in tasks} for m in methods}
    checking.equal(stuck, want, "stuck", {"stuck: a share. The number of runs is asked for.": {
        m: {t: k / n for t, k in each.items()} for m, each in want.items()}})  # fmt: skip
    cost = mine["cost"]
    assert set(cost) == set(methods) and all(cost[m] > 0 for m in methods), (
        "cost: a number above 0 for each method."
    )
    assert isinstance(mine["unit"], str) and mine["unit"].strip(), "unit: say what the cost counts."
    lead = by_seed[ahead] - by_seed[behind]
    alive = [[x for t in tasks for x in flat[m, t] if x >= mine["larger"][t] + 0.02] for m in (ahead, behind)]
    without = [sum(x) / max(1, len(x)) for x in alive]
    wrong = {
        "difference: behind minus ahead. The claim is about ahead minus behind.": -lead.mean(),
        "difference: stuck runs were left out. Whoever uses the method gets them too.": without[0]
        - without[1],
        "difference: these are the best seeds. The mean over all is asked for.": by_seed[ahead].max()
        - by_seed[behind].max(),
        "difference: these are medians over seeds. The mean counts stuck runs as they are.": np.median(
            by_seed[ahead]
        )
        - np.median(by_seed[behind]),
    }
    checking.equal(mine["difference"], float(lead.mean()), "difference", wrong, tol=1e-6)
    right = intervals.t_interval(lead)
    pairs = [a - b for t in tasks for a, b in zip(flat[ahead, t], flat[behind, t], strict=True)]
    unpaired = intervals.over_units([by_seed[ahead], -by_seed[behind]]).interval()
    wrong = {
        "low: tasks times seeds are no independent runs, and a task is not drawn. Of each seed take the mean first.": (
            intervals.t_interval(pairs).low
        ),
        "low: the methods have the same seeds. Take differences seed by seed, then one interval.": right.mean
        - 2 * (unpaired.mean - unpaired.low),
        "low: that is one standard error. A 95 % t interval is wider.": right.mean
        - lead.std(ddof=1) / n**0.5,
        "low: 1.96 belongs to a known spread. With few seeds it is t.": right.mean
        - 1.959964 * lead.std(ddof=1) / n**0.5,
    }
    near = max(1e-9, 1e-3 * (right.high - right.low))
    checking.near(mine["low"], right.low, "low", wrong, room=near)
    checking.near(mine["high"], right.high, "high", room=near)
    mean = {m: float(x.mean()) for m, x in by_seed.items()}

    def front_of(score):
        def beats(a, b):
            return (
                (score[a], -cost[a]) != (score[b], -cost[b]) and score[a] >= score[b] and cost[a] <= cost[b]
            )

        kept = [m for m in methods if not any(beats(o, m) for o in methods)]
        return sorted(kept, key=lambda m: cost[m])

    lucky = {m: float(x.max()) for m, x in by_seed.items()}
    wrong = {"front: that is the front of the best seeds. Means are asked for.": front_of(lucky)}
    wrong["front: that is the front of everybody but those that are surely beaten."] = sorted(
        set(methods) - set(mine["ruled_out"]), key=lambda m: cost[m]
    )
    checking.equal(list(mine["front"]), front_of(mean), "front", wrong)

    def beaten(level):
        def surely(a, b):
            return cost[a] <= cost[b] and intervals.t_interval(by_seed[a] - by_seed[b], level).low > 0

        return {m for m in methods if any(surely(o, m) for o in methods if o != m)}

    got, want = set(mine["ruled_out"]), beaten(1 - 0.05 / (len(methods) * (len(methods) - 1) / 2))
    if got != want:
        assert got != set(methods) - set(front_of(mean)), (
            "ruled_out: who is off the front may be there by luck. Ask for an interval that lies above 0."
        )
        assert got != beaten(0.95), (
            "ruled_out: each of these intervals is wrong one time in twenty, and there are many. Their level is 1 − 0.05 / p."
        )
        raise AssertionError(f"ruled_out: {sorted(want)} expected, not {sorted(got)}.")
    bar = mine["threshold"]
    assert bar >= 0, "threshold: 0 or more."
    verdict = checking.verdict(mine, right.low, right.high)
    print(f"11.6 passed: {verdict}. Now a person reads the arena with the rubric.")


check_11_6(arena)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Write a function that gives the scores of (method, task, rate) over a list of seeds. Everything else is a mean, a choice or
# an interval of what it returns.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Choose the threshold from the cost: how much better must the dearer method be, before you would pay for it? Then look for
# the number of seeds at which the interval is shorter than that.
#
# </details>
#
# {{solution}}
