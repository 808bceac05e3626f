# ---
# jupyter:
#   instructlab:
#     id: patching
#     title: States exchanged inside a decoder that executes three steps
#     outcome: one block of the grid behind claims CA2 and PB1
#     assets: []
#     minutes: {smoke: 0.3, laptop: 0.5, gpu: 0.5}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `patching`: one block
#
# A small decoder gets a number and three steps, and says the number after each step. A step is a table that nobody can
# guess. Where is the number after two steps kept, and does the network use it there? We exchange states between runs, and
# compare with what a probe reads. A block is one seed: its own tables, inputs and first values. The grid stands in
# `data/experiments/patching.toml`, the claims in `data/claims/`; lesson 21 explains the methods.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # tables, held-out inputs, donors, first values, order of batches

# %%
import itertools
import random

import torch

from instructlab_repro.block import fit, open_block
from instructlab_utils import interventions, labels, small

block = open_block("patching", profile, stage, seed=seed)
settings, rng = block.settings, random.Random(f"{seed} patching")

# %% [markdown]
# ## Inputs
#
# A fifth of all inputs is held out; of these a quarter is for dev.

# %%
task = interventions.TableTask(settings.numbers, settings.tables, settings.depth, seed)
held = len(task.items) // 5
train, dev, test = task.items[held:], task.items[: held // 4], task.items[held // 4 : held]
part = dev if block.tuning else test
ids, numbers = task.tensors(part)

# %% [markdown]
# ## Exchanges
#
# `same`: donors that reached the same number after two steps from another beginning; after layer 2, at the second step.


# %%
def stays(net):
    pairs = [(i, j) for i, j in itertools.permutations(range(len(test)), 2) if test[i][:3] != test[j][:3]]
    chosen = rng.sample([(i, j) for i, j in pairs if numbers[i, 2] == numbers[j, 2]], len(test))
    i, j = (list(side) for side in zip(*chosen, strict=True))
    given = interventions.layer_outputs(net, ids[j])[1][:, 2]
    right = answers(net)[i, -1] == numbers[i, -1]
    with torch.no_grad(), interventions.patched(net, 2, 2, given):
        same = net(input_ids=ids[i]).logits[:, -1].argmax(1) - 3 == numbers[i, -1]
    return same[right].double().mean().item() if right.any() else 0.0


def exchanged(net):
    """The shares of answers that follow the donor, at the places that the claims name."""
    shares = interventions.moved_shares(net, task, test, rng.sample(test, len(test)))
    found = {"moved": shares[1, 2].item(), "late": shares[1, 1].item(), "first": shares[0, 1].item()}
    shares[1, 2] = 0
    return found | {"elsewhere": shares[:, :-1].max().item(), "same": stays(net)}


# %% [markdown]
# ## Probes


# %%
def probed(net, place):
    """Accuracy of a probe on what leaves layer 2 at ``place``: for the number there, and for control labels."""
    kinds, found = sorted({item[: place + 1] for item in task.items}), []
    lots = {kind: i % task.numbers for i, kind in enumerate(rng.sample(kinds, len(kinds)))}
    states = [
        interventions.layer_outputs(net, task.tensors(items)[0])[1][:, place] for items in (train, test)
    ]
    for label in (lambda item: task.trail(item)[place], lambda item: lots[item[: place + 1]]):
        y, truth = (torch.tensor([label(item) for item in items]) for items in (train, test))
        found.append(labels.judged(labels.fit_logistic(states[0], y, 1.0), states[1], truth)["accuracy"])
    return found


# %% [markdown]
# ## Run


# %%
def answers(net):
    with torch.no_grad():
        return net(input_ids=ids).logits.argmax(2) - 3


for trial in block.trials():
    line, cost, net = dict.fromkeys(table.metric for table in block.spec.tables), None, None
    how = {"width": settings.width, "layers": settings.layers, "std": settings.std, "seed": seed}
    said = task.tensors(train)[1][:, -1].mode().values.expand(len(part))
    if trial.method != "majority":
        net = small.small_decoder(task.vocabulary, **how)
    if trial.method == "trained":
        net, more, cost = fit(block, net, task.examples(train), 0, ends=20, **trial.tuned)
        line |= more
    if net is not None:
        said = answers(net)[:, -1]
        with torch.no_grad():
            z = net(input_ids=ids).logits[:, 1:].flatten(0, 1)
        line["dev_loss"] = torch.nn.functional.cross_entropy(z, 3 + numbers[:, 1:].flatten()).item()
    if not block.tuning:
        line |= {"predictions": said.tolist(), "targets": numbers[:, -1].tolist()}
        line["accuracy"] = (said == numbers[:, -1]).double().mean().item()
        if net is not None:
            line |= exchanged(net)
            line["probe"], line["control"] = probed(net, 1)
            line["probe_second"], line["control_second"] = probed(net, 2)
            line["unused"] = line["probe"] - line["late"]
    block.line(trial, cost, **line)

# %% [markdown]
# ## What this block found

# %%
block.close("accuracy", "moved", "same", "late", "probe", "control")
