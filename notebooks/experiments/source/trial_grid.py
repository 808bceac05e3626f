# ---
# jupyter:
#   instructlab:
#     id: trial_grid
#     title: Trial grid
#     outcome: one block of the grid in data/experiments/trial_grid.toml
#     assets: []
#     minutes: {smoke: 0.5, laptop: 5, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `trial_grid`: one block
#
# Say what a block is, what its runs share, and what differs.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune or run
task: str = "tweet-sentiment"  # an axis of the grid
seed: int = 0  # what the seed decides

# %%
import numpy as np

from instructlab_repro.block import open_block

block = open_block("trial_grid", profile, stage, task=task, seed=seed)
settings = block.settings

# %% [markdown]
# ## Run
#
# One line for each trial, written before the next one starts. A guess stands here in place of a measurement.

# %%
for trial in block.trials():
    with block.run.measure() as cost:
        guesses = np.random.default_rng(seed).random(settings.test) < 0.5
    found = {"dev_accuracy": float(guesses[: settings.dev].mean()), "dev_loss": float(np.log(2))}
    if stage == "run":
        found["accuracy"] = float(guesses.mean())
    block.line(trial, cost, **found)

# %% [markdown]
# ## What this block found

# %%
block.close("dev_accuracy", "accuracy")
