# ---
# jupyter:
#   instructlab:
#     id: regularisers
#     title: Regularisers on fifty and two hundred sentences
#     outcome: one block of the grid behind claims C14 and C12
#     assets: [minilm, vader, bigbench]
#     minutes: {smoke: 0.7, laptop: 6, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `regularisers`: one block
#
# One plain way to fine-tune an encoder on `n_train` film sentences, and nine that are said to overfit less. A block is one
# training size and one seed; all methods see the same film sentences, the same rates, and the same amount of computing (an
# ensemble, that of its members). The grid stands in `data/experiments/regularisers.toml`, the claims that it serves in
# `data/claims/C14.toml` and `C12.toml`; lesson 07 explains the methods. (Related tasks have an experiment of their own now.)
#
# Each method but the plain one and the ensemble has one knob. The stage `tune` tries three values of it, once, on a seed that
# the tables do not use, and looks only at the dev sentences. `run` takes the value that was best there.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
n_train: int = 50  # film sentences to train on
seed: int = 0  # subsample, head, order of batches, dropout, augmentation

# %%
import random
from functools import cache, partial

import numpy as np
import torch

from instructlab_repro.block import fit, open_block, sentences
from instructlab_utils import augmentation, losses, metrics, models, tasks, training
from instructlab_utils.run import Cost

block = open_block("regularisers", profile, stage, n_train=n_train, seed=seed)
settings = block.settings

# %% [markdown]
# ## Data
#
# Training sentences depend on the seed. Dev and test sentences are the same for all seeds. The tweets and editorials of the
# multi-task method have labels of their own, 2 and 3, 4 and 5.

# %%
data = sentences(block, "movie-sentiment", n_train)
films, pad_id = data.examples["train"], data.pad_id


def related(per_film_sentence):
    """As many sentences of the related tasks, half of them tweets, half editorials."""
    found = []
    for head, name in enumerate(("tweet-sentiment", "editorial-sentiment"), start=1):
        part = tasks.subsample(tasks.load(name).splits["train"], per_film_sentence * n_train // 2, seed)
        coded = training.encode(part, data.tokenizer, settings.max_length)
        found += [example | {"labels": example["labels"] + 2 * head} for example in coded]
    return found


# %% [markdown]
# ## Augmentation
#
# Each training sentence gets `copies` changed ones with its label. The word embeddings of the encoder give the neighbours,
# pairs of English and German product reviews the dictionary.


# %%
@cache
def neighbours():
    table = models.load_encoder().get_input_embeddings().weight.detach()
    vocabulary = data.tokenizer.convert_ids_to_tokens(range(len(data.tokenizer)))
    wanted = {word for text in data.rows["train"]["text"] for word in augmentation.words_of(text)}
    return augmentation.nearest_words(table, vocabulary, wanted)


@cache
def dictionaries():
    pairs = tasks.load("products-en-de").splits["train"].select(range(settings.parallel))
    both = [(augmentation.words_of(row["source"]), augmentation.words_of(row["targets"][0])) for row in pairs]
    return augmentation.dictionary(both), augmentation.dictionary([(g, e) for e, g in both])


def changed(change, *how):
    rng, new = random.Random(seed), []
    for row in data.rows["train"]:
        words = augmentation.words_of(row["text"])
        new += [{**row, "text": " ".join(change(words, *how, rng))} for _ in range(settings.copies)]
    return training.encode(new, data.tokenizer, settings.max_length)


# %% [markdown]
# ## The methods
#
# All of them: the same number of updates at the same peak rate, word embeddings frozen. Plain means no dropout, no decay, the
# weights after the last update. R-Drop passes every batch twice, so it makes half as many updates. Several tasks: labels
# 2 t and 2 t + 1 belong to task t, which owns the t-th pair of logits.


# %%
def logits_of(net, batch):
    return net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def smoothed_losses(epsilon, net, batch):
    return losses.cross_entropy(logits_of(net, batch), batch["labels"], epsilon)


def r_drop_losses(alpha, net, batch):
    return losses.r_drop(logits_of(net, batch), logits_of(net, batch), batch["labels"], alpha)


def task_losses(net, batch):
    task, label = batch["labels"] // 2, batch["labels"] % 2
    return losses.cross_entropy(logits_of(net, batch).unflatten(1, (-1, 2))[range(len(task)), task], label)


def trained(examples=films, heads=1, dropout=0.0, **knobs):
    """Logits of the film task by split, what a line says about the training, and its cost."""
    chosen = {"weight_decay": 0.0, "learning_rate": settings.learning_rate, "seed": seed} | knobs
    net = models.load_classifier(2 * heads, seed=chosen["seed"]).to(block.run.device)
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    net.get_input_embeddings().weight.requires_grad_(False)
    net, line, cost = fit(block, net, examples, pad_id, **chosen)
    return {name: z[:, :2] for name, z in data.logits(net, "train", *block.splits).items()}, line, cost


@cache
def member(number):
    """The plain method, with another head and another order of the batches for each number."""
    return trained(seed=seed + 1000 * number)


METHODS = {
    "plain": lambda: member(0),
    "dropout": lambda p: trained(dropout=p),
    "weight_decay": lambda decay: trained(weight_decay=decay),
    "early_stopping": lambda eval_every: trained(dev=data.examples["dev"], eval_every=eval_every),
    "label_smoothing": lambda epsilon: trained(objective=partial(smoothed_losses, epsilon)),
    "r_drop": lambda a: trained(dropout=0.1, steps=settings.steps // 2, objective=partial(r_drop_losses, a)),
    "eda": lambda share: trained(films + changed(augmentation.eda, neighbours(), share)),
    "back_translation": lambda share: trained(
        films + changed(augmentation.back_translate, *dictionaries(), share)
    ),
    "multi_task": lambda n: trained(films + related(n), heads=3, objective=task_losses),
}

# %% [markdown]
# ## What is measured
#
# The gap is the accuracy on the training sentences minus that on the test sentences. `temperature` is fitted on the dev
# sentences; the loss and the calibration error after it say what is left when the confidence has been repaired.


# %%
def loss_of(logits, split):
    return losses.cross_entropy(logits.double(), torch.tensor(data.targets[split])).mean().item()


def measured(logits):
    found, y = data.fields(logits), data.targets
    found |= {f"{split}_loss": loss_of(z, split) for split, z in logits.items()}
    if "test" not in logits:
        return found
    temperature = metrics.fit_temperature(logits["dev"].numpy(), y["dev"])
    z, tempered = logits["test"].double(), logits["test"].double() / temperature
    found |= {"gap": found["train_accuracy"] - found["accuracy"], "temperature": temperature}
    found |= {"ece": metrics.expected_calibration_error(z.softmax(1), y["test"])}
    found |= {"ece_tempered": metrics.expected_calibration_error(tempered.softmax(1), y["test"])}
    return found | {"test_loss_tempered": loss_of(tempered, "test")}


# %% [markdown]
# ## Run
#
# The ensemble averages its members' probabilities. `members` is no model: its line holds the means over the members, to
# compare the ensemble with.


# %%
def ensemble(each):
    """The logarithms of the members' mean probabilities, what their trainings add up to, and cost."""
    shares = {name: [z[name].softmax(1).numpy() for z, *_ in each] for name in each[0][0]}
    mean = {name: torch.tensor(np.log(np.mean(p, axis=0) + 1e-12)) for name, p in shares.items()}
    costs = [cost for *_, cost in each]
    spent = [sum(c.seconds for c in costs), sum(c.cpu_seconds for c in costs)]
    cost = Cost(*spent, max(c.peak_memory_mb for c in costs))
    return mean, {"updates": sum(line["updates"] for _, line, _ in each)}, cost


def means(each):
    """Means of the members' numbers; ``scores``: how many of them are right about each test sentence, as a share."""
    found = [measured(logits) for logits, *_ in each]
    numbers = [name for name, value in found[0].items() if isinstance(value, float)]
    hits = [np.equal(one["predictions"], one["targets"]) for one in found]
    line = {name: float(np.mean([one[name] for one in found])) for name in numbers}
    return line | {"scores": np.mean(hits, axis=0).round(6).tolist(), "updates": each[0][1]["updates"]}


for trial in block.trials():
    if trial.method in METHODS:
        logits, line, cost = METHODS[trial.method](*trial.tuned.values())
    else:
        each = [member(number) for number in range(settings.members)]
        logits, line, cost = ensemble(each)
    fields = means(each) if trial.method == "members" else line | measured(logits)
    block.line(trial, each[0][2] if trial.method == "members" else cost, **fields)

# %% [markdown]
# ## What this block found

# %%
block.close("train_accuracy", "dev_accuracy", "accuracy", "test_loss", "ece")
