# ---
# jupyter:
#   instructlab:
#     id: pattern_tuning
#     title: Pattern and words or a fresh head, by number of labelled sentences
#     outcome: one block of the grid behind claims E1, LB1 and LB2
#     assets: [smollm2, vader]
#     minutes: {smoke: 0.7, laptop: 5, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `pattern_tuning`: one block
#
# Tuning SmolLM2 on 10, 32 or 320 rated sentences in two ways: with a pattern that ends where one of two words must follow,
# or with a fresh linear head on the bare sentence. A block is one seed. The grid stands in
# `data/experiments/pattern_tuning.toml`, the claims in `data/claims/`; lesson 13 explains the methods.
#
# Two stages. `tune` tries two learning rates per method at 32 sentences, on two seeds that the table does not use, and looks
# at as many dev sentences. `run` takes the better one for all sizes and looks at the test sentences.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune or run
seed: int = 0  # training sentences, order of batches, first values of LoRA and head

# %%
from functools import cache

import torch

from instructlab_repro.block import open_block
from instructlab_utils import losses, models, patterns, tasks, training

block = open_block("pattern_tuning", profile, stage, seed=seed)
settings = block.settings

# %% [markdown]
# ## Data
#
# Short sentences only: half of the cost of a batch is otherwise padding. `n32-again` is a second draw of 32. The lower
# layers are frozen and read each text once.

# %%
tokenizer = models.load_tokenizer("decoder")
halves = patterns.Halves(tokenizer, at=settings.layer, rank=settings.rank, seed=seed, device=block.run.device)
corpus = tasks.load("movie-sentiment")
splits = {name: halves.short(rows, settings.longest) for name, rows in corpus.splits.items()}
test = tasks.subsample(splits["test"], settings.test, 0)


def drawn(split, train, chosen_by):
    """As many sentences of a split as ``train`` says; "n32-again" is another draw."""
    again = 1000 if train.endswith("-again") else 0
    return tasks.subsample(splits[split], settings.sizes[train], chosen_by + again)


print({name: len(rows) for name, rows in splits.items()}, f"{len(test)} test sentences")

# %% [markdown]
# ## The methods
#
# The state of the text's last token goes to the two rows of the output layer that belong to the words, or to a fresh head.
# `swapped` has the words in the wrong order.


# %%
def fit(method, train, chosen_by, learning_rate=None):
    words = {"swapped": settings.words[::-1], "head": None}.get(method, settings.words)
    net, pattern = patterns.Reader(halves, words, seed), "{}" if method == "head" else settings.pattern
    examples = halves.encode(drawn("train", train, chosen_by), pattern) if method != "zero" else []
    with block.run.measure() as cost:
        if examples:
            training.train(
                net, examples, steps=settings.steps[train], learning_rate=learning_rate, seed=chosen_by,
                pad_id=tokenizer.pad_token_id, batch_size=settings.batch_size[train],
            )  # fmt: skip
    return net, pattern, cost


def look(net, rows, pattern):
    """Predicted labels, accuracy and mean loss."""
    z, y = net.logits(rows, pattern), torch.tensor(list(rows["label"]))
    found = z.argmax(-1)
    return found.tolist(), (found == y).double().mean().item(), losses.cross_entropy(z, y).mean().item()


# %% [markdown]
# ## Run
#
# In the stage `tune` a run is one rate on each of the tuning seeds, and its line holds the means.


# %%
def tested(method, train, **tuned):
    net, pattern, cost = fit(method, train, seed, **tuned)
    return look(net, test, pattern), cost


def on_dev(method, train, **tuned):
    """Mean dev accuracy and loss over the tuning seeds."""
    found = []
    for chosen_by in settings.tuning_seeds:
        net, pattern, cost = fit(method, train, chosen_by, **tuned)
        found.append(look(net, drawn("dev", train, chosen_by), pattern)[1:])
    return torch.tensor(found).mean(0).tolist(), cost


untuned = cache(lambda: tested("zero", ""))  # the same for all sizes
for trial in block.trials():
    method, train = trial.method, trial.inside["train"]
    if stage == "tune":
        (accuracy, loss), cost = on_dev(method, train, **trial.tuned)
        block.line(trial, cost, dev_accuracy=accuracy, dev_loss=loss)
        continue
    (predicted, accuracy, loss), cost = (
        untuned() if method == "zero" else tested(method, train, **trial.tuned)
    )
    targets = list(test["label"])
    block.line(trial, cost, accuracy=accuracy, test_loss=loss, predictions=predicted, targets=targets)

# %% [markdown]
# ## What this block found

# %%
block.close("dev_accuracy", "accuracy", "cpu_seconds")
