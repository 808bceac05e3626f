# ---
# jupyter:
#   instructlab:
#     id: related_tasks
#     title: Film sentences, alone and beside two related tasks
#     outcome: one block of the grid behind claim C25
#     assets: [minilm, vader]
#     minutes: {smoke: 0.5, laptop: 2.5, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `related_tasks`: one block
#
# A few film sentences with labels, and a larger number of tweets and editorials with labels of their own. Does the encoder
# read films better if it learns all three at once? A block is one seed. The grid stands in
# `data/experiments/related_tasks.toml`, the claim in `data/claims/C25.toml`; lesson 07 explains the method.
#
# Two stages. `tune` tries the learning rates of each method on seeds that no table uses, and reads dev sentences only. `run`
# takes the best rate and reads the test sentences.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # sentences of all three tasks, head, order of batches, dropout

# %%
import torch

from instructlab_repro.block import fit, open_block, sentences
from instructlab_utils import losses, models, tasks, training

block = open_block("related_tasks", profile, stage, seed=seed)
settings = block.settings
data = sentences(block, "movie-sentiment")

# %% [markdown]
# ## Three tasks, one head
#
# The labels $2j$ and $2j + 1$ belong to task $j$: films 0, tweets 1, editorials 2. In an epoch of the mixture stand as many
# film sentences as others, so the hundred films stand there several times; the last ones once more.


# %%
def others(permuted):
    """The tweets and editorials of this seed, all labels of a task permuted or not."""
    found, draw = [], torch.Generator().manual_seed(seed)
    for j, name in enumerate(("tweet-sentiment", "editorial-sentiment"), start=1):
        rows = tasks.subsample(tasks.load(name).splits["train"], settings.n_related, seed)
        coded = training.encode(rows, data.tokenizer, settings.max_length)
        order = torch.randperm(len(coded), generator=draw) if permuted else range(len(coded))
        found += [one | {"labels": coded[i]["labels"] + 2 * j} for one, i in zip(coded, order, strict=True)]
    return found


def beside(related):
    """As many films as others: the films again and again, up to their number."""
    films = data.examples["train"]
    times, rest = divmod(len(related), len(films))
    return films * times + films[:rest] + related


def task_losses(net, batch):
    logits = net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    task, label = batch["labels"] // 2, batch["labels"] % 2
    return losses.cross_entropy(logits.unflatten(1, (-1, 2))[range(len(task)), task], label)


# %% [markdown]
# ## The methods
#
# What a method trains on, and how many sentences an update has, in units of `batch_size`, and how many updates, in units of
# `steps`.

# %%
films = data.examples["train"]
METHODS = {
    "plain": (lambda: films, 1, 1),
    "longer": (lambda: films, 1, 2),
    "related": (lambda: beside(others(permuted=False)), 2, 1),
    "shuffled": (lambda: beside(others(permuted=True)), 2, 1),
}


def measured(net):
    """What a line says of the films: their own two logits, the rest of the head left out."""
    found = {name: z[:, :2] for name, z in data.logits(net, "train", *block.splits).items()}
    train = found.pop("train")
    line = data.fields(found)
    if block.tuning:
        return line
    accuracy = data.accuracy(train, "train")
    return line | {"train_accuracy": accuracy, "gap": accuracy - line["accuracy"]}


for trial in block.trials():
    examples, wide, long = METHODS[trial.method]
    net = models.load_classifier(6, seed=seed).to(block.run.device)
    net.get_input_embeddings().weight.requires_grad_(False)
    knobs = {"steps": long * settings.steps, "batch_size": wide * settings.batch_size, **trial.tuned}
    net, line, cost = fit(block, net, examples(), data.pad_id, objective=task_losses, **knobs)
    block.line(trial, cost, **line, **measured(net))

# %% [markdown]
# ## What this block found

# %%
block.close("dev_accuracy", "accuracy", "train_loss", "gap")
