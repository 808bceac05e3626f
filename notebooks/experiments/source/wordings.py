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
# Everything but the wording of the instruction is frozen: the model, the items, their options, the rule of choice. A block is
# one seed; it reads its own items of eight tasks. The grid stands in `data/experiments/wordings.toml`, the wordings in
# `data/instructions/clusters.toml`, the claim in `data/claims/C5.toml`; lesson 14 explains them.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # there is nothing to tune
seed: int = 0  # which items

# %%
import hashlib
import re
import tomllib
from itertools import zip_longest

import torch

from instructlab_repro.block import decoder, open_block
from instructlab_utils import scoring, tasks
from instructlab_utils.project import find_root

block = open_block("wordings", profile, stage, seed=seed)
settings, (net, tokenizer) = block.settings, decoder(block)

# %% [markdown]
# ## Items
#
# All rows of a task in one fixed order, in which the answers take turns where they are fixed. Seed s takes the s-th stretch,
# so no two seeds share an item.

# %%
written = (find_root() / "data" / "instructions" / "clusters.toml").read_bytes()
TASKS = {task["name"]: task for task in tomllib.loads(written.decode())["tasks"]}


def body(name, raw):
    """The input as the prompt shows it: without the instruction that some raw inputs carry."""
    groups = re.search(TASKS[name].get("take", "(.*)"), raw, re.DOTALL).groups()
    return TASKS[name].get("layout", "{}").format(*(group.strip() for group in groups)) + "\nAnswer:"


def fits(name, row):
    longest = max(row["options"], key=len)
    text = f"{TASKS[name]['clear']}\n\n{body(name, row['input'])} {longest}"
    return len(tokenizer(text)["input_ids"]) <= settings.max_length


def turns(lists):
    return [row for group in zip_longest(*lists) for row in group if row is not None]


def items_of(name):
    task = tasks.load(name)
    rows = [row for split in sorted(task.splits) for row in task.splits[split]]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(14)).tolist()
    rows = [rows[i] for i in order]
    if len({tuple(sorted(row["options"])) for row in rows}) == 1:
        answers = sorted(rows[0]["options"])
        rows = turns([[r for r in rows if r["options"][r["answer"]] == answer] for answer in answers])
    first, found = seed * settings.items, []
    for row in rows:
        if len(found) == first + settings.items:
            break
        if fits(name, row):
            found.append(row)
    return found[first:]


items = {name: items_of(name) for name in block.spec.axes["task"]}
print({name: len(rows) for name, rows in items.items()})
assert all(len(rows) == settings.items for rows in items.values())

# %% [markdown]
# ## Scores
#
# The wording is a shared prefix: read once, kept in the KV cache. `choice_nll` is the cross-entropy of the right option in
# the softmax over the options' log-probabilities per token. Single predictions are not kept: the bootstrap beside a verdict
# is for items that all seeds share, and here none is shared.


# %%
def scores_of(name, wording):
    prefix = "" if wording == "none" else TASKS[name][wording]
    gap = "\n\n" if prefix else ""
    return scoring.option_log_probs(
        net, tokenizer, [gap + body(name, row["input"]) for row in items[name]],
        [[f" {option}" for option in row["options"]] for row in items[name]], prefix=prefix,
    )  # fmt: skip


# %% [markdown]
# ## Run

# %%
for trial in block.trials():
    name = trial.inside["task"]
    with block.run.measure() as cost:
        scores = scores_of(name, trial.method)
    gold = [row["answer"] for row in items[name]]
    per_token = [one.log_probs / one.tokens for one in scores]
    nll = [-torch.log_softmax(x, 0)[y].item() for x, y in zip(per_token, gold, strict=True)]
    right = [int(scoring.choose(s, "mean") == y) for s, y in zip(scores, gold, strict=True)]
    by_sum = [int(scoring.choose(s, "sum") == y) for s, y in zip(scores, gold, strict=True)]
    block.line(
        trial,
        cost,
        accuracy=sum(right) / len(right),
        accuracy_sum=sum(by_sum) / len(by_sum),
        choice_nll=sum(nll) / len(nll),
        chance=sum(1 / len(row["options"]) for row in items[name]) / len(gold),
        wordings_sha=hashlib.sha256(written).hexdigest(),
    )

# %% [markdown]
# ## What this block found

# %%
block.close("accuracy", "choice_nll")
