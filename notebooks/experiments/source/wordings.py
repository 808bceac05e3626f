# ---
# jupyter:
#   instructlab:
#     id: wordings
#     title: Four wordings of an instruction
#     outcome: one block of the grid behind claim C5
#     assets: [smollm2, bigbench]
#     minutes: {smoke: 0.6, laptop: 2, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `wordings`: one block
#
# Everything but the wording of the instruction is frozen: the model, the items, their options, the rule of choice. A block
# reads its own items of eight tasks. The grid stands in `data/experiments/wordings.toml`, the wordings in
# `data/instructions/`, the claim in `data/claims/C5.toml`; lesson 14 explains them.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # run or twin: there is nothing to tune
seed: int = 10  # which items

# %%
import hashlib
import re
import tomllib
from itertools import zip_longest

import torch

from instructlab_repro import block as blocks
from instructlab_utils import scoring, tasks

block = blocks.open_block("wordings", profile, stage, seed=seed)
settings, (net, tokenizer) = block.settings, blocks.decoder(block)
if stage == "twin":
    blocks.nudge(net)

# %% [markdown]
# ## Items
#
# All rows of a task in one fixed order, in which the answers take turns where they are fixed. The seed's last digit says
# which stretch, so no two seeds share an item. The order begins where the first edition's ended.

# %%
folder = block.run.root / "data" / "instructions"
written = [(folder / name).read_bytes() for name in ("clusters.toml", "complex.toml")]
registry, too_complex = (tomllib.loads(each.decode()) for each in written)
TASKS = {task["name"]: task for task in registry["tasks"]}


def body(name, raw=None):
    """The input as the prompt shows it, without the instruction that some raw inputs carry; by default "N/A"."""
    take, layout = (TASKS[name].get(key, default) for key, default in (("take", "(.*)"), ("layout", "{}")))
    groups = ["N/A"] * re.compile(take).groups if raw is None else re.search(take, raw, re.DOTALL).groups()
    return layout.format(*(group.strip() for group in groups)) + "\nAnswer:"


def turns(lists):
    return [row for group in zip_longest(*lists) for row in group if row is not None]


def items_of(name):
    task, n = tasks.load(name), settings.items[name]
    rows = [row for split in sorted(task.splits) for row in task.splits[split]]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(14)).tolist()
    rows = [rows[i] for i in reversed(order)]
    rows = [row for row in rows if len(tokenizer(body(name, row["input"]))["input_ids"]) <= settings.longest]
    if len({tuple(sorted(row["options"])) for row in rows}) == 1:
        answers = sorted(rows[0]["options"])
        rows = turns([[r for r in rows if r["options"][r["answer"]] == answer] for answer in answers])
    return rows[seed % 10 * n :][:n]


items = {name: items_of(name) for name in block.spec.axes["task"]}
print({name: len(rows) for name, rows in items.items()})
assert all(len(rows) == settings.items[name] for name, rows in items.items())

# %% [markdown]
# ## Scores
#
# The wording is a shared prefix: read once, kept in the KV cache. Behind the input "N/A" all options of the task are read
# at once, as branches of one tree.


# %%
def scores_of(name, wording):
    """For each item the log-probabilities of its options: behind its input, and behind "N/A"."""
    prefix = {"none": "", "complex": too_complex[name]}.get(wording, TASKS[name].get(wording))
    gap, rows = "\n\n" if prefix else "", items[name]
    every = sorted({option for row in rows for option in row["options"]})
    contexts = [gap + body(name), *(gap + body(name, row["input"]) for row in rows)]
    options = [[f" {option}" for option in some] for some in (every, *(row["options"] for row in rows))]
    empty, *found = scoring.option_log_probs(net, tokenizer, contexts, options, prefix=prefix)
    base = dict(zip(every, empty.log_probs.tolist(), strict=True))
    return [
        (one.log_probs, torch.tensor([base[option] for option in row["options"]], dtype=torch.float64))
        for one, row in zip(found, rows, strict=True)
    ]


# %% [markdown]
# ## Run

# %%
for trial in block.trials():
    name = trial.inside["task"]
    with block.run.measure() as cost:
        scores = scores_of(name, trial.method)
    gold = [row["answer"] for row in items[name]]
    found = {"": [ours - base for ours, base in scores], "_sum": [ours for ours, _ in scores]}
    line = {}
    for rule, each in found.items():
        nll = [-torch.log_softmax(x, 0)[y].item() for x, y in zip(each, gold, strict=True)]
        line[f"choice_nll{rule}"] = sum(nll) / len(nll)
        right = [float(x.argmax() == y) for x, y in zip(each, gold, strict=True)]
        line[f"accuracy{rule}"] = sum(right) / len(right)
        line |= {} if rule else {"scores": nll}
    line["chance"] = sum(1 / len(row["options"]) for row in items[name]) / len(gold)
    line["wordings_sha"] = hashlib.sha256(b"".join(written)).hexdigest()
    block.line(trial, cost, **line)

# %% [markdown]
# ## What this block found

# %%
block.close("choice_nll", "accuracy")
