# ---
# jupyter:
#   instructlab:
#     id: parts
#     title: "The smallest parts to train: heads, biases, LayerNorms"
#     outcome: one block of the grid behind claims C2, B1 and LN1
#     assets: [minilm, vader, bbc]
#     minutes: {smoke: 0.5, laptop: 2, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `parts`: one block
#
# Is the layer on top all that must be adjusted? A linear head on frozen features has one best fit for each strength of its
# penalty, and logistic regression finds it. So the head cannot have had too few updates. Two kinds of features: the pooler,
# which the model's own head reads, and the mean of the last states. Beside them all biases, all LayerNorms, and all weights.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
task: str = "tweet-sentiment"  # a task of instructlab_utils.tasks
seed: int = 0  # training texts, order of batches, dropout, first values of full fine-tuning's head

# %%
from types import SimpleNamespace

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from instructlab_repro.block import ROUNDING, fit, open_block, sentences, tuned
from instructlab_utils import models, training

block = open_block("parts", profile, stage, task=task, seed=seed)
data = sentences(block, task)

# %% [markdown]
# ## Two views of the frozen encoder


# %%
class Views(torch.nn.Module):
    """The pooler and the mean over the text's tokens side by side, (B, 2 · 384), where a classifier has its logits."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids, attention_mask):
        out, mask = (
            self.encoder(input_ids=input_ids, attention_mask=attention_mask),
            attention_mask[..., None],
        )
        mean = (out.last_hidden_state * mask).sum(1) / mask.sum(1)
        return SimpleNamespace(logits=torch.cat([out.pooler_output, mean], 1))


encoder = Views(models.load_encoder().to(block.run.device))
both = {name: training.predict(encoder, part, data.pad_id) for name, part in data.examples.items()}
views = {name: dict(zip(("pooler", "mean"), part.chunk(2, 1), strict=True)) for name, part in both.items()}

# %% [markdown]
# ## The methods
#
# In the stage `twin` the features of a head differ by one part in ten million, as first values do elsewhere.


# %%
def head(view, C):
    x = {name: part[view].numpy() * (1 + ROUNDING * (stage == "twin")) for name, part in views.items()}
    with block.run.measure() as cost:
        fitted = LogisticRegression(C=C, max_iter=10_000).fit(x["train"], data.targets["train"])
    logits = {name: torch.tensor(np.log(fitted.predict_proba(x[name]) + 1e-12)) for name in block.splits}
    weights = fitted.coef_.size + fitted.intercept_.size
    return (
        logits,
        {"updates": 0, "trainable_parameters": weights, "iterations": int(fitted.n_iter_.max())},
        cost,
    )


def trained(table, learning_rate, **knobs):
    net, more = tuned(models.load_classifier(len(data.task.labels), seed=seed), table, seed)
    net, knobs = net.to(block.run.device), {"learning_rate": learning_rate, **knobs, **more}
    net, line, cost = fit(block, net, data.examples["train"], data.pad_id, **knobs)
    return data.logits(net, *block.splits), line, cost


for trial in block.trials():
    table = block.spec.method(trial.method, block.block)
    knobs = {name: table.pop(name) for name in ("view", "steps") if name in table} | trial.tuned
    logits, line, cost = head(**knobs) if table["tuner"] == "fitted" else trained(table, **knobs)
    block.line(trial, cost, **line, **data.fields(logits))

# %% [markdown]
# ## What this block found

# %%
block.close("dev_loss", "accuracy", "test_loss")
