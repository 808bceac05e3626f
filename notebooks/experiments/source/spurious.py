# ---
# jupyter:
#   instructlab:
#     id: spurious
#     title: A planted cue of strength 0.9, and what repairs a model that leans on it
#     outcome: one block of the grid behind claims CA1 and CL1
#     assets: [minilm, vader]
#     minutes: {smoke: 0.3, laptop: 1, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `spurious`: one block
#
# Every training tweet gets a nonsense word, in nine of ten cases the one of its label. A model learns to lean on it. What
# happens where the word stands with the other label, and which repair helps: more texts of the same kind, counterfactual
# texts (each also with the other word), or weights? A block is one seed. The grid stands in
# `data/experiments/spurious.toml`, the claims in `data/claims/`; lesson 21 explains the methods.
#
# `tune` tries learning rates on seeds that the table does not use, and looks at dev tweets.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # tweets, cues and their places, order of batches, dropout

# %%
import random
from statistics import mean

import torch

from instructlab_repro.block import fit, open_block
from instructlab_utils import features, interventions, labels, models, robustness, tasks, training
from instructlab_utils.augmentation import words_of

block = open_block("spurious", profile, stage, seed=seed)
settings, seeds = block.settings, [int(each) for each in block.spec.axes["seed"]]
tokenizer, rng = models.load_tokenizer("encoder"), random.Random(seed)

# %% [markdown]
# ## Tweets, with cues
#
# All methods of a seed read the same cues in the same places.

# %%
pool, order, test, dev = features.split_pool("tweet-sentiment", 2, seed, 9999)
own = None if block.tuning else tasks.disjoint(test, settings.test, seed, seeds)
rows = tasks.subsample(dev, settings.dev, 0) if block.tuning else own


def words(part):
    return [words_of(text)[: settings.max_words] for text in part["text"]]


def coded(sentences, targets):
    told = [{"text": " ".join(w), "label": y} for w, y in zip(sentences, targets, strict=True)]
    return training.encode(told, tokenizer, settings.max_length)


learn = pool.select(order[: 2 * settings.n_train])
n, y, new, new_y = settings.n_train, list(learn["label"]), words(rows), list(rows["label"])
cued = interventions.plant_cues(words(learn), y, settings.strength, rng)
held = {"agree": settings.strength, "accuracy": 1 - settings.strength}
held = {name: interventions.plant_cues(new, new_y, strength, rng) for name, strength in held.items()}
held["absent"] = new

# %% [markdown]
# ## The methods

# %%
weights = interventions.balancing_weights(y[:n], [int(interventions.CUES[1] in w) for w in cued[:n]])
plain = coded(cued[:n], y[:n])
TRAIN = {
    "clean": coded(words(learn)[:n], y[:n]),
    "more": coded(cued, y),
    "weighted": [e | {"weight": [w]} for e, w in zip(plain, weights, strict=True)],
    "cda": plain + coded(map(interventions.exchange_cue, cued[:n]), y[:n]),
    "shuffled": [e | {"labels": y} for e, y in zip(plain, rng.sample(y[:n], n), strict=True)],
}
rates = {trial.method: trial.tuned.get("learning_rate") for trial in block.spec.trials(block.block)}


def trained(method, rate):
    net = robustness.ShortEncoder(frozen=int(method == "frozen")).to(block.run.device)
    objective = interventions.weighted_losses if method == "weighted" else training.target_losses
    return fit(block, net, TRAIN.get(method, plain), 0, learning_rate=rate, objective=objective)


# %% [markdown]
# ## What is measured
#
# `effect`: the tweet stays, the cue is exchanged for that of class 1; by how much do the log-odds of class 1 rise? Products:
# a new head on the states of the tuned layer.

# %%
shop = tasks.load("product-sentiment").splits
goods = [tasks.subsample(shop["dev"], settings.products["learn"], 0)]
if not block.tuning:
    goods.append(tasks.disjoint(shop["train"], settings.products["test"], seed, seeds))


def logits(net, sentences):
    return training.predict(net, coded(sentences, new_y), 0)


def states(net, part):
    head, net.head = net.head, torch.nn.Identity()
    found = training.predict(net, training.encode(part, tokenizer, settings.max_length), 0)
    net.head = head
    return found, torch.tensor(part["label"])


def measured(net):
    """Accuracies by kind of test tweet, the effect of the cue, accuracy on products."""
    z = {name: logits(net, sentences) for name, sentences in held.items()}
    found = {name: (each.argmax(1) == torch.tensor(new_y)).double().mean().item() for name, each in z.items()}
    odds = [
        logits(net, [interventions.plant(w, cue, random.Random(i)) for i, w in enumerate(new)])
        for cue in interventions.CUES
    ]
    found["effect"] = (odds[1] - odds[0]).diff(dim=1).mean().item()
    predict = labels.fit_logistic(*states(net, goods[0]), 1.0)
    found["products"] = labels.judged(predict, *states(net, goods[1]))["accuracy"]
    return found | {"predictions": z["accuracy"].argmax(1).tolist(), "targets": new_y}


# %% [markdown]
# ## Run

# %%
for trial in block.trials():
    line, cost, net = dict.fromkeys(table.metric for table in block.spec.tables), None, None
    if trial.method == "majority":
        said = [round(mean(y[:n]))] * len(new)
        right = mean(float(a == b) for a, b in zip(said, new_y, strict=True))
        line |= dict.fromkeys(held, right) | {"effect": 0.0, "predictions": said, "targets": new_y}
    else:
        net, more, cost = trained(trial.method, trial.tuned.get("learning_rate", rates["spurious"]))
        line |= more
    if block.tuning and net is not None:
        z = logits(net, held["absent" if trial.method == "clean" else "agree"])
        line["dev_loss"] = torch.nn.functional.cross_entropy(z, torch.tensor(new_y)).item()
    elif net is not None:
        line |= measured(net)
    line["one_class"] = len(set(line.get("predictions") or [0, 1])) == 1
    block.line(trial, cost, **line)

# %% [markdown]
# ## What this block found

# %%
block.close("agree", "accuracy", "absent", "products", "effect")
