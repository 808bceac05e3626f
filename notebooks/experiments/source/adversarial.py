# ---
# jupyter:
#   instructlab:
#     id: adversarial
#     title: Adversarial training, random noise and more updates, under two attacks
#     outcome: one block of the grid behind claims C11, AT2 and AT3
#     assets: [minilm, vader]
#     minutes: {smoke: 0.3, laptop: 1.5, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `adversarial`: one block
#
# The first layer of MiniLM and a linear head learn the sentiment of a few tweets: plainly, with twice the updates, with
# random noise on the embeddings, and with three kinds of adversarial training. Then two attacks try to change the verdict
# on tweets that the model reads for the first time: one moves the embeddings inside a small ball, one exchanges words. A
# block is one seed. The grid stands in `data/experiments/adversarial.toml`, the claims in `data/claims/`; lesson 19
# explains the methods.
#
# `tune` tries learning rates, on seeds that the table does not use, and looks at dev tweets.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # tweets, order of batches, dropout, noise

# %%
import random
from functools import partial
from statistics import mean

import torch

from instructlab_repro.block import fit, open_block, sentences
from instructlab_utils import augmentation, checklist, models, robustness, training

block = open_block("adversarial", profile, stage, seed=seed)
settings = block.settings
data = sentences(block, "tweet-sentiment")
split = block.splits[-1]
rows = data.rows[split].select(range(min(settings.attacked[split], len(data.rows[split]))))
labels = torch.tensor(rows["label"])

# %% [markdown]
# ## The methods
#
# All have frozen word embeddings, the same radius where there is one, and the same number of updates, except *twice*.

# %%
radius, k = settings.radius, settings.ascent
OBJECTIVES = {
    "noise": partial(robustness.noise_losses, radius),
    "fgm": partial(robustness.fgm_losses, radius),
    "pgd": partial(robustness.pgd_losses, radius, k),
    "freelb": partial(robustness.freelb_losses, radius, k),
}
rates = {trial.method: trial.tuned.get("learning_rate") for trial in block.spec.trials(block.block)}


def trained(method, rate):
    examples = data.examples["train"]
    if method == "shuffled":
        drawn = random.Random(seed).sample([e["labels"] for e in examples], len(examples))
        examples = [e | {"labels": label} for e, label in zip(examples, drawn, strict=True)]
    net = robustness.ShortEncoder(frozen=int(method == "frozen")).to(block.run.device)
    knobs = {"learning_rate": rate, "objective": OBJECTIVES.get(method, training.target_losses)}
    knobs["steps"] = settings.steps * (2 if method == "twice" else 1)
    return fit(block, net, examples, data.pad_id, **knobs)


# %% [markdown]
# ## The attacks
#
# Inside the ball: five steps of PGD on the loss of the right label. With words: the greedy search, at most one word of five.
# Neighbours come from MiniLM's word embeddings, without the pairs of words that `data/suites/polarity.toml` rules out.

# %%
sentences_read = [augmentation.words_of(text) for text in rows["text"]]
table = models.load_encoder().get_input_embeddings().weight.detach()
near = checklist.neighbours(table, data.tokenizer, {w for words in sentences_read for w in words}, settings.k)


def embedded(net):
    """Accuracy at the worst point that PGD finds in the ball."""
    chosen = data.examples[split][: len(rows)]
    batch = training.move(training.collate(chosen, data.pad_id), block.run.device)
    with models.evaluating(net):
        losses, x, mask = robustness.embedded_losses(net, batch)
        delta = robustness.pgd(losses, x, mask, radius, 5)
        with torch.no_grad():
            z = net(inputs_embeds=x + delta, attention_mask=mask).logits
    return (z.argmax(1) == batch["labels"]).double().mean().item()


def attacked(net):
    """Accuracy after the word attack, queries a tweet, and the share of words changed where it succeeded."""
    read = checklist.reader(net, data.tokenizer, settings.max_length)
    found = [
        robustness.word_attack(words, int(label), read, near, share=settings.share)
        for words, label in zip(sentences_read, labels, strict=True)
    ]
    done = [(a, w) for a, w in zip(found, sentences_read, strict=True) if a.flipped and a.changed]
    return {
        "attacked": mean(float(not a.flipped) for a in found),
        "queries": mean(float(a.queries) for a in found),
        "changed": mean([len(a.changed) / len(w) for a, w in done] or [0.0]),
        "flipped": len(done) / max(1, sum(a.queries > 1 for a in found)),
    }


# %% [markdown]
# ## Run
#
# A model that attacks cannot move (the majority class, or a run that diverged) keeps its accuracy.

# %%
for trial in block.trials():
    net, line, cost = None, {}, None
    if trial.method != "majority":
        net, line, cost = trained(trial.method, trial.tuned.get("learning_rate", rates["plain"]))
    logits = data.logits(net, "train", *block.splits)
    line |= data.fields(logits)
    right = (logits[split][: len(rows)].argmax(1) == labels).double().mean().item()
    still = {"attacked": right, "queries": 1.0, "changed": 0.0, "flipped": 0.0}
    line |= {"embedded": right if net is None else embedded(net), **(still if net is None else attacked(net))}
    line["gap"] = line["train_accuracy"] - line["accuracy" if "accuracy" in line else "dev_accuracy"]
    block.line(trial, cost, **line)

# %% [markdown]
# ## What this block found

# %%
block.close("accuracy", "embedded", "attacked", "gap")
