# ---
# jupyter:
#   instructlab:
#     id: lora_weights
#     title: What stands in trained low-rank updates, and how much of it the task has put there
#     outcome: one block of the grid behind claims A2, A4, D2, LR4, LR5, LR7, LR8 and LR9
#     assets: [minilm, vader]
#     minutes: {smoke: 0.4, laptop: 4, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `lora_weights`: one block
#
# The encoder is trained on tweets in nine ways, and its matrices are opened (lesson 09, sections 5, 7 and 8). A block is one
# seed. Its runs share tweets, order, dropout and the first head, and each has first values of its own; what else `differs`
# stands in the method's table in `data/experiments/lora_weights.toml`. Two methods train nothing: Gaussian matrices, and the
# directions in which the pre-trained weight is strongest. The claims stand in `data/claims/`.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # run or twin
seed: int = 0  # tweets, order, dropout, head, first values, random matrices

# %%
import random
from functools import cache

import numpy as np
import torch
from scipy import stats

from instructlab_repro import block as blocks
from instructlab_utils import models, tasks, training, tuners, updates

block = blocks.open_block("lora_weights", profile, stage, seed=seed)
settings, tokenizer = block.settings, models.load_tokenizer("encoder")
n, other_seed = settings.n_train, 1000 + seed
rows = tasks.subsample(tasks.load("tweet-sentiment").splits["train"], 2 * n, seed)
examples, pad_id = training.encode(rows, tokenizer, settings.max_length), tokenizer.pad_token_id
names = [f"bert.encoder.layer.{i}.attention.self.{kind}" for kind in ("query", "value") for i in range(6)]

# %% [markdown]
# ## A run
#
# A method's table names its tuner, the learning rate `rate`, and under `differs` what is not that of the other runs. At
# four points of the training the matrices are compared with the first ones.


# %%
def read(differs):
    """The run's tweets; where its labels differ, they have changed places."""
    chosen = examples[n:] if "tweets" in differs else examples[:n]
    labels = [example["labels"] for example in chosen]
    if "labels" in differs:
        random.Random(seed).shuffle(labels)
    return [{**example, "labels": label} for example, label in zip(chosen, labels, strict=True)]


def weight(net, name):
    """The matrix that the layer ``name`` multiplies with, as if the method were merged."""
    layer = net.get_submodule(name)
    return (
        (layer.folded(layer.base.weight) if hasattr(layer, "base") else layer.weight).detach().cpu().clone()
    )


plain = models.load_classifier(2, seed=seed)
W0 = {name: weight(plain, name) for name in names}


# %%
@cache
def trained(method):
    """The changes of the twelve matrices, the path of all, the triplets kept, what a line says, the cost."""
    table = block.spec.method(method, block.block)
    differs, rate = table.pop("differs", ()), table.pop("rate")
    order, head = (other_seed if what in differs else seed for what in ("order", "head"))
    net = models.load_classifier(2, seed=head)
    net.get_input_embeddings().weight.requires_grad_(False)
    net, more = blocks.tuned(net, table, 100 * seed + block.spec.methods.index(method))
    net.classifier.requires_grad_("trained head" not in differs)
    path = []

    def look(step):
        if (step + 1) % (settings.steps // 4) == 0:
            path.append([updates.lengths_and_directions(weight(net, name), W0[name]) for name in names])

    knobs = {"after_step": look, "learning_rate": rate, "seed": order, **more}
    done, line, cost = blocks.fit(block, net.to(block.run.device), read(differs), pad_id, **knobs)
    kept = [int(m.kept.sum()) for m in net.modules() if isinstance(m, tuners.adalora.AdaLoraLinear)]
    changes = {} if done is None or kept else {x: weight(net, x) - W0[x] for x in names}
    return changes, np.array(path), kept, line, cost


# %% [markdown]
# What they are held against: random matrices of the same rank, and the weight's own eight strongest directions, both as
# large as the changes of rank 8.


# %%
def reference(method):
    generator, found = torch.Generator().manual_seed(seed), {}
    for name, change in trained("lora_r8")[0].items():
        B, A = (torch.randn(shape, generator=generator) for shape in ((384, 8), (8, 384)))
        U, S, Vt = torch.linalg.svd(W0[name])
        D = B @ A if method == "gaussian" else U[:, :8] * S[:8] @ Vt[:8]
        found[name] = D * (change.norm() / D.norm())
    return found


# %% [markdown]
# ## What is measured
#
# Means over the queries and values of six layers. `first`: the overlap of the strongest right singular vectors with those of
# rank 32. `inside`: how much of the first one lies in the space of all 32. `projection`: the norm of $U^\top W V$; `factor`:
# the norm of the change over it, both as logarithms to the base 2. `tie`: Fisher's z of the correlation of changed lengths
# and changed directions, of the queries at four points; `tie_value`, of the values. `upper`, `ffn`: how many triplets more a
# matrix keeps in the upper three layers, and in the feed-forward part. `agreement`: Kendall's tau of what two runs keep;
# `chance`: how often it is as large when the matrices change places.


# %%
def directions(changes, others):
    phi = [updates.overlap(changes[x], others[x], 1, 32)[0] for x in names]
    sizes = [(updates.projection(changes[x], W0[x], 8), changes[x].norm().item()) for x in names]
    projection, norm = np.log2(sizes).mean(axis=0)
    found = {"first": np.mean([row[0] for row in phi]), "inside": np.mean([row[31] for row in phi])}
    return found | {"projection": projection, "factor": norm - projection}


def z(points):
    return np.arctanh(np.corrcoef(points.reshape(-1, 2).T)[0, 1])


def places(kept, others):
    table = np.array(kept).reshape(6, 6)  # of each layer: query, key, value, output, feed-forward in, out
    found = {"upper": table[3:].mean() - table[:3].mean(), "ffn": table[:, 4:].mean() - table[:, :4].mean()}
    rng = np.random.default_rng(seed)
    drawn = [kept, *(rng.permutation(kept) for _ in range(settings.shuffles))]
    tau = np.nan_to_num([stats.kendalltau(each, others).statistic for each in drawn])
    return found | {"agreement": tau[0], "chance": (tau >= tau[0]).mean()}


# %% [markdown]
# ## Run

# %%
ALL = "first inside projection factor tie tie_value upper ffn agreement chance first_loss train_loss".split()
for trial in block.trials():
    method, found, cost = trial.method, dict.fromkeys(ALL), None
    if method in ("gaussian", "own"):
        found |= directions(reference(method), trained("lora_r32")[0])
    else:
        changes, path, kept, line, cost = trained(method)
        others = trained("adalora_again" if method == "adalora" else "adalora")[2] if kept else []
        found |= line | (places(kept, others) | {"kept": " ".join(map(str, kept))} if others else {})
        found |= {"tie": z(path[:, :6]), "tie_value": z(path[:, 6:])} if len(path) == 4 else {}
        found |= directions(changes, trained("lora_r32")[0]) if changes and method != "lora_r32" else {}
    block.line(trial, cost, **{k: float(v) if isinstance(v, np.floating) else v for k, v in found.items()})

# %% [markdown]
# ## What this block found

# %%
block.close("train_loss", "first", "inside", "projection", "factor", "tie", "upper", "ffn", "agreement")
