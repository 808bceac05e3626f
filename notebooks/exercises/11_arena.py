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
# that you do not see here, so test more than the checker does. Nothing on this page needs a model, a data
# set or a network.
#
# {{overview}}

# %%
import math

import numpy as np

from instructlab_utils import checking

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
