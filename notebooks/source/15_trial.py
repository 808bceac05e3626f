# ---
# jupyter:
#   instructlab:
#     id: "15"
#     title: Trial
#     outcome: say here, in one line that begins with a verb, what a reader can do afterwards
#     assets: []
#     minutes: {smoke: 0.5, laptop: 0.5, gpu: 0.5}
#     class_minutes: 120
#     budget:
#       n_numbers: {smoke: 100, laptop: 10000, gpu: 10000}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 15 Trial
#
# **The promise.** Say in three sentences what the reader will have derived, built and measured.
#
# | | |
# |---|---|
# | before this | the lessons and the mathematics that this one needs |
# | time | smoke: under a minute · laptop: under a minute · gpu: not measured yet |
# | memory | under 1 GB |
# | model | none |
# | data | none |
# | box of lesson 00's chain | which of them this lesson opens |
#
# **You will be able to**
#
# - *derive* something;
# - *implement* it, equal to the library's;
# - *measure* it, with an interval.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
seed: int = 0  # the numbers drawn

# %%
import numpy as np

from instructlab_utils import start

run = start("15", profile=profile, seed=seed)

# %% [markdown]
# ## 1 A first section
#
# The derivation, in full. Then the same thing by hand, and the same thing from a library.


# %%
def mean(numbers):
    """The mean of an array, by hand."""
    return sum(numbers) / len(numbers)


numbers = np.random.default_rng(seed).normal(size=run.budget.n_numbers)
difference = abs(mean(numbers) - numbers.mean())
run.record(mean_difference=float(difference))

# %% [markdown]
# **Predict.** How far apart are the two? Write your number down before you run the cell.

# %%
print(f"by hand and from NumPy: {difference:.0e} apart")
assert difference < 1e-9

# %% [markdown]
# **Observe.** Say what the reader has just seen, and why it is so.
#
# ## 2 What the recorded experiments say
#
# Results come from `data/results/`, through one module: `lesson.table("baselines")`, `lesson.figure("baselines")`.

# %%
from instructlab_repro import lesson

lesson.show("C1")

# %% [markdown]
# ## 3 What we have shown
#
# Printed from this run's record, so that the text cannot disagree with the numbers.

# %%
print(f"profile {run.profile}, seed {seed}, {run.device}")
print(f"by hand against the library: {run.metrics['mean_difference']:.0e}")

# %% [markdown]
# **Recall.** Three questions, to be answered without scrolling up.
#
# **Exercises.** `notebooks/exercises/15_trial.py`
#
# **References.**
#
# - Author, A. (year). Title. Where.
