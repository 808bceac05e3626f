# ---
# jupyter:
#   instructlab:
#     id: attribution
#     title: "Attributions on tweets: deletion, completeness, and two planted words"
#     outcome: one block of the grid behind claims IG1, IG2 and IG3
#     assets: [minilm, vader]
#     minutes: {smoke: 0.3, laptop: 1, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `attribution`: one block
#
# Two small networks read tweets. One learns their sentiment, the other a rule about two nonsense words that we planted: both
# there means class 1, one of them class 0. Then several methods say which words made the network answer as it did. For the
# first network the answers are tested by deleting words in the order of importance, for the second we know the truth. A
# block is one seed. The grid stands in `data/experiments/attribution.toml`, the claims in `data/claims/`; lesson 21
# explains the methods.
#
# `tune` tries learning rates on seeds that the table does not use, and looks at dev tweets.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # tweets, places of the planted words, order of batches, dropout

# %%
import random
from functools import cache
from statistics import mean

import numpy as np
import torch

from instructlab_repro.block import fit, open_block
from instructlab_utils import (
    attribution,
    checklist,
    features,
    interventions,
    models,
    robustness,
    tasks,
    training,
)
from instructlab_utils.augmentation import words_of

block = open_block("attribution", profile, stage, seed=seed)
settings, seeds = block.settings, [int(each) for each in block.spec.axes["seed"]]
tokenizer, length, rng = models.load_tokenizer("encoder"), settings.max_length, random.Random(seed)

# %% [markdown]
# ## Tweets
#
# A seed learns from the first tweets of its own order of the pool, and is tested on tweets that no other seed reads. While
# tuning, dev tweets take the place of both. `known` and `ruled` are what the two networks learn, `new` what they are asked.


# %%
def words(part):
    return [words_of(text)[: settings.max_words] for text in part["text"]]


pool, order, test, dev = features.split_pool("tweet-sentiment", 2, seed, 9999)
own = None if block.tuning else tasks.disjoint(test, settings.test, seed, seeds)
rows = tasks.subsample(dev, settings.dev, 0) if block.tuning else own
learn = pool.select(order[: settings.n_train])
pairs = [interventions.plant_pair(each, rng) for each in words(learn)]
known = words(learn), learn["label"]
ruled = [pair[i % 2] for i, pair in enumerate(pairs)], [1 - i % 2 for i in range(len(pairs))]
new = {"sentiment": (words(rows), rows["label"])}
new["planted"] = [interventions.plant_pair(each, rng)[0] for each in words(rows)], [1] * len(rows)


def coded(sentences, targets):
    told = [{"text": " ".join(w), "label": y} for w, y in zip(sentences, targets, strict=True)]
    return training.encode(told, tokenizer, length)


# %% [markdown]
# ## The networks


# %%
@cache
def trained(learning_rate):
    """By name: the network, what a line says of its training, its cost; and the mean dev loss of the two."""
    found, losses = {}, []
    for name, told in {"sentiment": known, "planted": ruled}.items():
        net = robustness.ShortEncoder().to(block.run.device)
        found[name] = fit(block, net, coded(*told), 0, learning_rate=learning_rate)
        z = training.predict(found[name][0], coded(*new[name]), 0)
        losses.append(torch.nn.functional.cross_entropy(z, torch.tensor(new[name][1])).item())
    return found, mean(losses)


# %% [markdown]
# ## The methods: an order of the words


# %%
def ordered(method, net, sentences):
    """The words that were read, their places from the most important one on, and the class, for each sentence."""
    name = "gradient" if method == "random" else method
    found = attribution.explain(name, net, sentences, tokenizer, length, steps=settings.ig_steps)
    lots = [torch.tensor([rng.random() if method == "random" else x for x in a]) for *_, a in found]
    return [(w, attribution.ranked(a), c) for (w, c, _), a in zip(found, lots, strict=True)]


def slope(net):
    """Of log error over log steps, in float64, and the error with 32 steps as a share of what is explained."""
    steps, some = [4, 8, 16, 32], new["sentiment"][0][: settings.complete]
    *_, score, x, base = attribution.question(net.double(), some, tokenizer, length)
    parts = [attribution.integrated_gradients(score, x, base, n) for n in steps]
    errors = [attribution.completeness_error(score, x, base, part).mean().item() for part in parts]
    share = errors[3] / (score(x) - score(base)).abs().mean().item()
    net.float()
    return np.polyfit(np.log(steps), np.log(errors), 1)[0].item(), share


# %% [markdown]
# ## Run

# %%
for trial in block.trials():
    line, method, networks = dict.fromkeys(table.metric for table in block.spec.tables), trial.method, {}
    if method != "majority":
        networks, line["dev_loss"] = trained(**trial.tuned)
        line |= networks["sentiment"][1]
    if not block.tuning:
        says = [round(mean(learn["label"]))] * len(rows)
        if networks:
            net, ruler = (networks[name][0] for name in ("sentiment", "planted"))
            says = training.predict(net, coded(*new["sentiment"]), 0).argmax(1).tolist()
        line |= {"predictions": says, "targets": list(rows["label"]), "one_class": len(set(says)) == 1}
        line["accuracy"] = mean(float(a == b) for a, b in zip(says, rows["label"], strict=True))
        if networks:
            read, found = checklist.reader(net, tokenizer, length), ordered(method, net, new["sentiment"][0])
            line["deletion"] = mean(attribution.deletion_curve(read, *each).mean().item() for each in found)
            two = [{w[i] for i in places[:2]} for w, places, _ in ordered(method, ruler, new["planted"][0])]
            line["found"] = mean(float(each == set(interventions.CUES)) for each in two)
        if method == "ig":
            line["slope"], line["error_32"] = slope(net)
    block.line(trial, networks["sentiment"][2] if networks else None, **line)

# %% [markdown]
# ## What this block found

# %%
block.close("accuracy", "deletion", "found", "slope")
