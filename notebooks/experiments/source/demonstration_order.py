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
import itertools

import torch

from instructlab_repro import experiments
from instructlab_utils import models, scoring, start, tasks

run = start("demonstration_order", profile=profile, seed=seed)
spec = experiments.load("demonstration_order").at(run.profile)
block = spec.block(stage=stage, seed=seed)
settings = spec.settings_of(block)
net, tokenizer = models.load_decoder(device=run.device).float(), models.load_tokenizer("decoder")

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
    with run.measure() as cost:
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
cells = {}
for trial in spec.trials(block):
    if run.have(trial.key):
        continue
    cell = trial.inside["task"], trial.inside["order"]
    if cell not in cells:
        cells[cell] = scored(*cell)
    scores, free, labels, targets, cost = cells[cell]
    if trial.method == "calibrated":
        scores = scoring.contextual_calibration(scores, free)
    found = scores.argmax(1)
    shares = [(found == label).double().mean().item() for label in labels]
    accuracy = (found == targets).double().mean().item()
    run.line(
        spec.identity(block) | trial.key,
        **vars(cost),
        accuracy=accuracy,
        recency=shares[-1],
        recency_excess=shares[-1] - sum(shares) / len(shares),
        primacy_excess=shares[0] - sum(shares) / len(shares),
        top_share=(found.bincount().max() / len(found)).item(),
        predictions=found.tolist(),
        targets=targets.tolist(),
    )
    print(f"{cell[0]:16s} order {cell[1]} {trial.method:12s} {accuracy:.3f}  last label {shares[-1]:.3f}")

# %% [markdown]
# ## What this block found

# %%
lines = [run.have(trial.key) for trial in spec.trials(block)]
for task in spec.axes["task"]:
    for method in spec.methods:
        found = [e["accuracy"] for e in lines if (e["task"], e["method"]) == (task, method)]
        print(f"{task:16s} {method:12s} accuracy from {min(found):.3f} to {max(found):.3f}")
run.record(runs=len(lines))
