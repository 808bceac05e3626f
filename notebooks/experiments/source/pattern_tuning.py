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
stage: str = "run"  # tune, run or twin
seed: int = 0  # training sentences, order of batches, first values of LoRA and head

# %%
from functools import cache

import torch

from instructlab_repro.block import fit, open_block
from instructlab_utils import losses, models, patterns, tasks

block = open_block("pattern_tuning", profile, stage, seed=seed)
settings = block.settings

# %% [markdown]
# ## Data
#
# Short sentences only: half of the cost of a batch is otherwise padding. `n32-again` is a second draw of 32. The lower
# layers are frozen and read each text once.

# %%
tokenizer = models.load_tokenizer("decoder")
pad_id = tokenizer.pad_token_id
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
def tuned(method, train, chosen_by, learning_rate=None):
    """A reader, its pattern, what a line says about its training, and the cost."""
    words = {"swapped": settings.words[::-1], "head": None}.get(method, settings.words)
    net, pattern = patterns.Reader(halves, words, seed), "{}" if method == "head" else settings.pattern
    if method == "zero":
        return net, pattern, {"updates": 0}, None
    examples = halves.encode(drawn("train", train, chosen_by), pattern)
    knobs = {"steps": settings.steps[train], "batch_size": settings.batch_size[train], "seed": chosen_by}
    return net, pattern, *fit(block, net, examples, pad_id, learning_rate=learning_rate, **knobs)[1:]


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
untuned = cache(lambda: look(tuned("zero", "", seed)[0], test, settings.pattern))  # the same for all sizes
for trial in block.trials():
    method, train = trial.method, trial.inside["train"]
    if block.tuning:
        found = []
        for chosen_by in settings.tuning_seeds:
            net, pattern, line, cost = tuned(method, train, chosen_by, **trial.tuned)
            found.append(look(net, drawn("dev", train, chosen_by), pattern)[1:])
        line["dev_accuracy"], line["dev_loss"] = torch.tensor(found).mean(0).tolist()
    else:
        net, pattern, line, cost = tuned(method, train, seed, **trial.tuned)
        predicted, accuracy, loss = untuned() if method == "zero" else look(net, test, pattern)
        line |= {"accuracy": accuracy, "test_loss": loss, "one_class": len(set(predicted)) == 1}
        line |= {"predictions": predicted, "targets": list(test["label"])}
    block.line(trial, cost, **line)

# %% [markdown]
# ## What this block found

# %%
block.close("dev_accuracy", "accuracy", "cpu_seconds")
