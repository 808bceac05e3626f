# ---
# jupyter:
#   instructlab:
#     id: learning_rates
#     title: Five learning rates, three ways to tune
#     outcome: one block of the grid behind claim C13
#     assets: [minilm, vader]
#     minutes: {smoke: 0.7, laptop: 8, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `learning_rates`: one block
#
# Full fine-tuning, LoRA and a soft prompt, each with the same list of learning rates: a method of the design is a way to tune
# at one rate, so that each has a rounding twin. Two more train full fine-tuning for longer. A block is one seed; all its runs
# see the same sentences, in batches of the same order, and start from the same head. The grid stands in
# `data/experiments/learning_rates.toml`, the claim that it serves in `data/claims/C13.toml`. Lesson 02 explains the rates;
# LoRA is the subject of lesson 09, soft prompts of lesson 10.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # run or twin; nothing is tuned: the rate is the subject
seed: int = 0  # training sentences, order of batches, dropout, head, first values of the methods, test sentences of its own

# %%
import copy

import numpy as np

from instructlab_repro.block import fit, open_block, sentences, tuned
from instructlab_utils import models

block = open_block("learning_rates", profile, stage, seed=seed)
settings = block.settings
data = sentences(block, settings.task)
plain = models.load_classifier(len(data.task.labels), seed=seed)

# %% [markdown]
# ## Run
#
# The soft prompt starts from the embeddings of random words and stands in front. In BERT the classifier reads the first
# position: with a soft prompt that is the first *virtual* token, not `[CLS]`.
#
# Each run starts from fresh weights. Where the loss, or a logit afterwards, is not finite, the run is scored as what its
# user would fall back to: the majority class, which is the first row. A run that keeps its first loss, or gives one class
# to everything, is what the claim is about, and no failure of the experiment. So a line holds neither the first loss nor the
# classes, but which sentences are right.

# %%
for trial in block.trials():
    table = block.spec.method(trial.method, block.block)
    knobs = {name: table.pop(name) for name in ("learning_rate", "steps") if name in table}
    net, line, cost = None, {"train_loss": None}, None
    if trial.method != "majority":
        net, more = tuned(copy.deepcopy(plain), table, seed)
        net, line, cost = fit(
            block, net.to(block.run.device), data.examples["train"], data.pad_id, **knobs, **more
        )
        line |= {"way": trial.method.split("_")[0], "learning_rate": knobs["learning_rate"]}
    line |= data.fields(data.logits(net))
    right = np.equal(line.pop("predictions"), line.pop("targets"))
    for name in ("first_loss", "early_loss", "one_class"):
        line.pop(name, None)
    block.line(trial, cost, **line, scores=right.astype(float).tolist())

# %% [markdown]
# ## What this block found

# %%
block.close("dev_accuracy", "accuracy", "train_loss")
