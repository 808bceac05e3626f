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

# %% [markdown]
# ## 11.1 A front with prices
#
# > ●●●○○ · 15 minutes · graded
#
# `rows` is a list of dicts, one per method: `name`, `score` (larger is better), and `cost` (smaller is better). Return the
# *names* on the Pareto front, from the cheapest to the dearest; among equal costs keep the order of `rows`. Equal methods do
# not dominate each other: ties stay. A method whose score is `nan` diverged, and is never on the front.


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
    rows = made_rows(("full", 94.0, 900), ("lora", 92.0, 80), ("head", 72.0, 1), ("vera", 90.0, 80))
    got = front(rows)
    assert got is not None, "The function returned None. Did you forget return?"
    assert isinstance(got, list) and all(isinstance(name, str) for name in got), "A list of names expected."
    assert "vera" not in got, (
        "vera costs as much as lora and scores less: worse in one, better in none. It is dominated."
    )
    assert set(got) == {"full", "lora", "head"}, f"On the front are full, lora and head, not {got}."
    assert got == ["head", "lora", "full"], "From the cheapest to the dearest, please."
    twins = front(made_rows(("b", 80.0, 5), ("a", 80.0, 5), ("c", 79.0, 6)))
    assert twins == ["b", "a"], (
        "Two equal methods do not dominate each other: both stay, in the order of the rows."
    )
    print("11.1 passed.")


check_11_1(front)
### BEGIN HIDDEN TESTS


def hidden_11_1(front):
    got = front(made_rows(("ok", 80.0, 5), ("gone", math.nan, 1)))
    assert got == ["ok"], (
        "A diverged method has nan as its score, and every comparison with nan is false. Leave it out."
    )
    rng = np.random.default_rng(0)
    points = rng.integers(0, 6, (30, 2))
    rows = made_rows(*[(str(i), float(s), int(c)) for i, (s, c) in enumerate(points)])
    want = {
        str(i) for i, (s, c) in enumerate(points)
        if not any((t >= s and k <= c) and (t > s or k < c) for t, k in points)
    }  # fmt: skip
    assert set(front(rows)) == want, "Wrong for thirty random methods with many ties."


hidden_11_1(front)
### END HIDDEN TESTS

# %% [markdown]
# ## 11.2 What the best seed adds
#
# > ●●○○○ · 10 minutes · practice
#
# You have recorded $n$ scores. Somebody draws $k$ of them *with replacement* and reports the largest. Return its expected
# value, exactly: no simulation.


# %% nbgrader={"grade_id": "answer_11_2", "solution": true}
def expected_best(scores, k):
    """scores: a list of n floats; k >= 1. Return a float."""
    ### BEGIN SOLUTION
    x = np.sort(np.asarray(scores, dtype=float))
    i = np.arange(1, len(x) + 1)
    return float((x * ((i / len(x)) ** k - ((i - 1) / len(x)) ** k)).sum())
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_11_2", "locked": true}
def check_11_2(expected_best):
    scores = [0.9, 0.5, 0.7, 0.8]
    got = expected_best(scores, 2)
    assert got is not None, "The function returned None. Did you forget return?"
    everything = [max(a, b) for a in scores for b in scores]
    want = sum(everything) / len(everything)
    without = [max(a, b) for i, a in enumerate(scores) for j, b in enumerate(scores) if i != j]
    assert not math.isclose(got, sum(without) / len(without)), (
        "You drew without replacement. With replacement the same score can come twice."
    )
    assert not math.isclose(got, 0.9), "The largest of all: that is the limit for very many draws."
    unsorted = sum(x * (((i + 1) / 4) ** 2 - (i / 4) ** 2) for i, x in enumerate(scores))
    assert not math.isclose(got, unsorted), "The formula needs the scores in ascending order."
    assert math.isclose(got, want), f"{want:.4f} expected, not {got:.4f}: the mean over all 16 ordered pairs."
    assert math.isclose(expected_best(scores, 1), 0.725), "For one draw the expected best is the mean."
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
        1e-2: seeds((0.70, 0.74), (0.95, 0.60)),
        1e-3: seeds((0.80, 0.82), (0.80, 0.78)),
        1e-4: seeds((0.80, 0.82), (0.76, 0.76)),
    }
    old = {
        1e-2: seeds((0.50, 0.50), (0.51, 0.50)),
        1e-4: seeds((0.79, 0.81), (0.74, 0.75)),
        1e-5: seeds((0.86, 0.40), (0.79, 0.79)),
    }
    return {"new": new, "old": old}


def check_11_3(compare):
    got = compare(made_runs())
    assert got is not None, "The function returned None. Did you forget return?"
    assert set(got) == {"rate", "difference"}, "Keys expected: rate, difference."
    rate = got["rate"]
    assert rate["new"] != 1e-2, "new: 0.01 is best on *test*, by one lucky seed. Choose on dev, by the mean."
    assert rate["new"] != 1e-3, "new: two rates are equally good on dev. Take the smallest."
    assert rate["new"] == 1e-4, f"new: the rate 1e-4 expected, not {rate['new']}."
    assert rate["old"] != 1e-5, "old: one seed was best there. The mean over seeds chooses, not the maximum."
    assert rate["old"] == 1e-4, "old: the old method has a right to its own best rate."
    assert not math.isclose(got["difference"], 0.82 - 0.81), "difference: those are dev scores. Report test."
    assert math.isclose(got["difference"], 0.015), f"difference: 0.015 expected, not {got['difference']:.3f}."
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
    mine = prediction()
    assert mine is not None, "The function returned None. Return your dict."
    assert set(mine) == {"optimiser", "disk", "forward", "off"}, "Four keys: see the list above."
    assert all(isinstance(value, int) for value in mine.values()), "Four whole numbers expected."
    assert mine["optimiser"] != 44_000_000, "optimiser: frozen weights have no averages. That is the saving."
    assert mine["optimiser"] != 100_000, "optimiser: AdamW keeps two averages per trained number."
    assert mine["optimiser"] == 200_000, "optimiser: two floats for each of the trained numbers."
    assert mine["disk"] == 400_000, "disk: the trained numbers alone, four bytes each."
    assert mine["forward"] != 1, "forward: the whole model is still computed, and the adapter on top of it."
    assert mine["forward"] == 0, "forward: 0 or 1."
    assert mine["off"] != 0, "off: no frozen weight was touched, so nothing is left of the adapter."
    assert mine["off"] == 1, "off: 0 or 1."
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
