# ---
# jupyter:
#   instructlab:
#     id: regularisers
#     title: Regularisers on two hundred sentences
#     outcome: one block of the grid behind claims C14 and EN1
#     assets: [minilm, vader]
#     minutes: {smoke: 0.5, laptop: 5, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `regularisers`: one block
#
# One plain way to fine-tune an encoder on film sentences until it knows them by heart, and six that are said to overfit less.
# A block is one seed; all methods see the same sentences, at the same rate. The grid stands in
# `data/experiments/regularisers.toml`, the claims that it serves in `data/claims/C14.toml` and `EN1.toml`; lesson 07 explains
# the methods.
#
# Two stages. `tune` tries the values of each knob on seeds that the tables do not use, and reads dev sentences only. `run`
# takes the values whose mean dev loss was lowest, and reads the test sentences.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # subsample, head, order of batches, dropout

# %%
from functools import cache, partial

import numpy as np
import torch

from instructlab_repro.block import fit, open_block, sentences
from instructlab_utils import losses, metrics, models
from instructlab_utils.run import Cost

block = open_block("regularisers", profile, stage, seed=seed)
settings = block.settings
data = sentences(block, "movie-sentiment")
splits = block.splits if block.tuning else ("train", *block.splits)

# %% [markdown]
# ## The methods
#
# Plain means no dropout, no decay, the weights after the last update. R-Drop passes every batch twice, so it makes half as
# many updates. Early stopping looks at the dev loss again and again, and returns the weights where it was lowest.


# %%
def logits_of(net, batch):
    return net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def smoothed_losses(epsilon, net, batch):
    return losses.cross_entropy(logits_of(net, batch), batch["labels"], epsilon)


def r_drop_losses(alpha, net, batch):
    return losses.r_drop(logits_of(net, batch), logits_of(net, batch), batch["labels"], alpha)


def loss_of(logits, split):
    return losses.cross_entropy(logits.double(), torch.tensor(data.targets[split])).mean().item()


def trained(dropout=0.0, **knobs):
    """Logits by split, what a line says about the training, and its cost."""
    chosen = {"weight_decay": 0.0, "learning_rate": settings.learning_rate, "seed": seed} | knobs
    net = models.load_classifier(2, seed=chosen["seed"]).to(block.run.device)
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    net.get_input_embeddings().weight.requires_grad_(False)
    net, line, cost = fit(block, net, data.examples["train"], data.pad_id, **chosen)
    return data.logits(net, *splits), line, cost


def stopped():
    looks = []

    def look(net):
        looks.append(loss_of(data.logits(net, "dev")["dev"], "dev"))
        return -looks[-1]

    logits, line, cost = trained(evaluate=look, eval_every=settings.look_every)
    return logits, line | {"kept_update": settings.look_every * (1 + int(np.argmin(looks)))}, cost


@cache
def member(number):
    """The plain method, with another head and another order of the batches for each number."""
    return trained(seed=seed + 1000 * number)


half = settings.steps // 2
METHODS = {
    "plain": lambda: member(0),
    "dropout": lambda p: trained(dropout=p),
    "weight_decay": lambda decay: trained(weight_decay=decay),
    "early_stopping": stopped,
    "label_smoothing": lambda epsilon: trained(objective=partial(smoothed_losses, epsilon)),
    "r_drop": lambda alpha: trained(settings.r_drop_p, steps=half, objective=partial(r_drop_losses, alpha)),
}

# %% [markdown]
# ## What is measured
#
# `fitted_loss` is the loss on the training sentences when all is done, `gap` the accuracy on them minus that on the test
# sentences. A temperature is fitted on the dev sentences; `test_loss_tempered` and `ece_tempered` say what is left when the
# confidence has been repaired.


# %%
def measured(logits):
    found = data.fields({split: logits[split] for split in block.splits})
    if block.tuning:
        return found
    fitted = data.accuracy(logits["train"], "train")
    found |= {"train_accuracy": fitted, "gap": fitted - found["accuracy"]}
    found |= {"fitted_loss": loss_of(logits["train"], "train")}
    found["temperature"] = metrics.fit_temperature(logits["dev"].numpy(), data.targets["dev"])
    for name, divisor in (("", 1.0), ("_tempered", found["temperature"])):
        z = logits["test"].double() / divisor
        found[f"ece{name}"] = metrics.expected_calibration_error(z.softmax(1), data.targets["test"])
        found[f"test_loss{name}"] = loss_of(z, "test")
    return found


# %% [markdown]
# ## Run
#
# The ensemble averages its members' probabilities. `members` is no model: its line holds the means over the members, to
# compare the ensemble with.


# %%
def ensemble(each):
    """The logarithms of the members' mean probabilities, what their trainings add up to, and cost."""
    mean = {name: torch.stack([z[name].double().softmax(1) for z, *_ in each]).mean(0) for name in splits}
    costs = [cost for *_, cost in each]
    spent = [sum(c.seconds for c in costs), sum(c.cpu_seconds for c in costs)]
    cost = Cost(*spent, max(c.peak_memory_mb for c in costs))
    return {name: p.log() for name, p in mean.items()}, sum(line["updates"] for _, line, _ in each), cost


for trial in block.trials():
    if trial.method in METHODS:
        logits, line, cost = METHODS[trial.method](**trial.tuned)
        block.line(trial, cost, **line, **measured(logits))
        continue
    each = [member(number) for number in range(settings.members)]
    if trial.method == "ensemble":
        logits, updates, cost = ensemble(each)
        block.line(trial, cost, updates=updates, **measured(logits))
    else:
        found = [line | measured(logits) for logits, line, _ in each]
        numbers = [name for name, value in found[0].items() if isinstance(value, float)]
        means = {name: float(np.mean([one[name] for one in found])) for name in numbers}
        block.line(trial, each[0][2], updates=settings.steps, **means)

# %% [markdown]
# ## What this block found

# %%
block.close("train_loss", "dev_loss", "test_loss", "test_loss_tempered", "accuracy")
