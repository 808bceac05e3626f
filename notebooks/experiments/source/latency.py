# ---
# jupyter:
#   instructlab:
#     id: latency
#     title: Bytes and seconds of a pruned and of a quantised encoder
#     outcome: one block of the grid behind claims C16 and PN2
#     assets: [minilm]
#     minutes: {smoke: 0.5, laptop: 0.6, gpu: 0.5}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `latency`: one block
#
# Seven versions of one encoder take turns on one thread: as it is, with layers and heads cut out, with zeros, in a sparse
# format, in int8. How long is a forward pass, how large the file? Nothing is trained; a block is one process. The grid stands
# in `data/experiments/latency.toml`, the claims in `data/claims/`; lesson 25 explains the methods.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # only run: there is nothing to tune
seed: int = 0  # the process, and the order of the turns

# %%
import copy
import random
import statistics
import time
import warnings

import torch

from instructlab_repro.block import open_block
from instructlab_utils import models, quantisation, sparsity

block = open_block("latency", profile, stage, seed=seed)
settings, batches = block.settings, [int(each) for each in block.spec.axes["batch"]]

# %% [markdown]
# ## Seven versions

# %%
warnings.simplefilter("ignore")  # torch.ao and sparse tensors announce that they will change
dense = models.load_classifier(2)


def shallow(heads=None):
    net = copy.deepcopy(dense)
    net.bert.encoder.layer = net.bert.encoder.layer[:4]
    for layer in net.bert.encoder.layer if heads else ():
        sparsity.slice_heads(layer, range(heads))
    return net


def zeros(share):
    net = copy.deepcopy(dense)
    weights = sparsity.linear_weights(net)
    masks = sparsity.keep_best({name: w.abs() for name, w in weights.items()}, share)
    for name, weight in weights.items():
        weight.data.mul_(masks[name])
    return net


class CompressedRows(torch.nn.Module):
    def __init__(self, linear):
        super().__init__()
        self.weight, self.bias = linear.weight.detach().to_sparse_csr(), linear.bias.detach()

    def forward(self, x):
        return (self.weight @ x.flatten(0, -2).T).T.unflatten(0, x.shape[:-1]) + self.bias


def compressed(net):
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, torch.nn.Linear):
                setattr(parent, name, CompressedRows(child))
    return net


int8 = torch.ao.quantization.quantize_dynamic(dense, {torch.nn.Linear}, dtype=torch.qint8)
nets = {
    "dense": dense,
    "layers": shallow(),
    "cut": shallow(8),
    "zeros_50": zeros(0.5),
    "zeros_90": zeros(0.9),
}
nets |= {"sparse_90": compressed(zeros(0.9)), "int8": int8}


def stored(net):
    """What its file holds; of compressed rows the values and both lists of places."""
    found = quantisation.tensors_of(net)
    for name, part in net.named_modules():
        if isinstance(part, CompressedRows):
            w = part.weight
            places = {"rows": w.crow_indices().int(), "columns": w.col_indices().int()}
            found |= {f"{name}.values": w.values(), f"{name}.bias": part.bias}
            found |= {f"{name}.{k}": v for k, v in places.items()}
    return found


sizes = {name: quantisation.file_bytes(stored(net)) for name, net in nets.items()}

# %% [markdown]
# ## Turns

# %%
times, order = {(name, n): [] for name in nets for n in batches}, random.Random(seed)
ids = torch.randint(
    1000, 20000, (max(batches), settings.tokens), generator=torch.Generator().manual_seed(seed)
)
turns = [(name, n) for name in nets for n in batches]
with torch.no_grad(), block.run.measure() as cost:
    for turn in range(settings.turns + 1):
        order.shuffle(turns)
        for name, n in turns:
            begin = time.perf_counter()
            nets[name](input_ids=ids[:n], attention_mask=torch.ones_like(ids[:n]))
            times[name, n] += [time.perf_counter() - begin] * (turn > 0)

# %% [markdown]
# ## Run

# %%
for trial in block.trials():
    seconds = statistics.median(times[trial.method, trial.inside["batch"]])
    block.line(trial, None, forward_seconds=seconds, file_bytes=sizes[trial.method])

# %% [markdown]
# ## What this block found

# %%
block.close("forward_seconds", "file_bytes")
