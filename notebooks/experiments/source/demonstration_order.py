# ---
# jupyter:
#   instructlab:
#     id: demonstration_order
#     title: Six orders of the same four demonstrations
#     outcome: one block of the grid behind claims Z2, Z3 and Z4
#     assets: [smollm2, vader, bbc]
#     minutes: {smoke: 0.6, laptop: 2, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `demonstration_order`: one block
#
# SmolLM2-135M-Instruct (de-quantised from a 4-bit checkpoint, already tuned on instructions) sees four solved examples of a
# task, then a text to judge. The same four examples come in six orders; everything else stays. A block is one seed. The grid
# stands in `data/experiments/demonstration_order.toml`, the claims in `data/claims/`; lesson 12 explains the methods.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # there is no tuning: data/experiments/demonstration_order.toml says why
seed: int = 0  # demonstrations, their orders, test sample

# %%
import functools
import itertools

import torch

from instructlab_repro.block import decoder, open_block
from instructlab_utils import scoring, tasks

block = open_block("demonstration_order", profile, stage, seed=seed)
settings, (net, tokenizer) = block.settings, decoder(block)

# %% [markdown]
# ## Data
#
# The demonstrations are balanced: of each label as many, or, where there are more labels than demonstrations, at most one.
# Six different orders of the 24 are drawn. All orders are tested on the same texts.

# %%
FORMATS = {"movie-sentiment": "Review: {}\nSentiment:", "bbc-topics": "Article: {}\nTopic:"}


def drawn(task, split):
    """All short (text, label) pairs of the split, in the order that the seed draws, and the label words."""
    corpus = tasks.load(task)
    rows = corpus.splits[split]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    for row in (rows[i] for i in order):
        text = " ".join(row["text"].split()[: settings.words]) if task == "bbc-topics" else row["text"]
        if len(tokenizer(text)["input_ids"]) <= settings.max_tokens:
            yield text, row["label"]


def balanced(task, n):
    """``n`` pairs of the train split, the first of each label that the seed draws."""
    labels = len(tasks.load(task).labels)
    quota, found = max(1, n // labels), []
    for text, label in drawn(task, "train"):
        if [shown for _, shown in found].count(label) < quota:
            found.append((text, label))
        if len(found) == n:
            return found


def orders(n):
    """All orders of n demonstrations, in an order that the seed draws."""
    every = list(itertools.permutations(range(n)))
    g = torch.Generator().manual_seed(seed)
    return [every[i] for i in torch.randperm(len(every), generator=g).tolist()]


# %% [markdown]
# ## Scores
#
# As in `in_context`: the prefix goes through the model once, behind it come the test texts and the content-free texts.


# %%
def scored(task, order):
    """Scores (N, K) of the test texts and (3, K) of the content-free ones, the labels in order, targets, cost."""
    words = [" " + label for label in tasks.load(task).labels]
    pairs = balanced(task, settings.demonstrations)
    shown = [pairs[i] for i in orders(len(pairs))[order]]
    test = list(itertools.islice(drawn(task, "test"), settings.test))
    form, free = FORMATS[task], settings.content_free
    contexts = ["\n\n" + form.format(text) for text in [*(text for text, _ in test), *free]]
    prefix = "\n\n".join(form.format(text) + words[label] for text, label in shown)
    with block.run.measure() as cost:
        found = scoring.option_log_probs(net, tokenizer, contexts, [words] * len(contexts), prefix=prefix)
    scores = torch.stack([torch.as_tensor(f.log_probs) for f in found])
    labels, targets = [label for _, label in shown], torch.tensor([label for _, label in test])
    return scores[: len(test)], scores[len(test) :], labels, targets, cost


# %% [markdown]
# ## Run
#
# `recency_excess`: the share of predictions equal to the *last* demonstration's label, minus the mean of that share over all
# four. A model that likes a label, or likes the shown labels, has none; one that copies the last has.

# %%
once = functools.cache(scored)
for trial in block.trials():
    scores, free, labels, targets, cost = once(trial.inside["task"], trial.inside["order"])
    if trial.method == "calibrated":
        scores = scoring.contextual_calibration(scores, free)
    found = scores.argmax(1)
    shares = [(found == label).double().mean().item() for label in labels]
    block.line(
        trial,
        cost,
        accuracy=(found == targets).double().mean().item(),
        recency=shares[-1],
        recency_excess=shares[-1] - sum(shares) / len(shares),
        primacy_excess=shares[0] - sum(shares) / len(shares),
        top_share=(found.bincount().max() / len(found)).item(),
        predictions=found.tolist(),
        targets=targets.tolist(),
    )

# %% [markdown]
# ## What this block found

# %%
block.close("accuracy", "recency", "recency_excess")
