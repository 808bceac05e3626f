# ---
# jupyter:
#   instructlab:
#     id: augmentation
#     title: Film sentences and changed copies of them
#     outcome: one block of the grid behind claims C12 and AU1
#     assets: [minilm, vader, bigbench]
#     minutes: {smoke: 0.5, laptop: 4, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `augmentation`: one block
#
# Film sentences with labels, alone and beside changed copies of them: by EDA, and by back-translation with a dictionary. All
# runs make equally many updates. A block is one seed. The grid stands in `data/experiments/augmentation.toml`, the claims in
# `data/claims/C12.toml` and `AU1.toml`; lesson 07 explains the methods.
#
# Two stages. `tune` tries three shares of changed words for each method, on seeds that no table uses, and reads dev sentences
# only. `run` takes the best share and reads the test sentences.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # sentences, changes, head, order of batches, dropout

# %%
import random
from functools import cache

import torch

from instructlab_repro.block import fit, open_block, sentences
from instructlab_utils import augmentation, losses, metrics, models, tasks, training

block = open_block("augmentation", profile, stage, seed=seed)
settings = block.settings
data = sentences(block, "movie-sentiment")
films = data.examples["train"]

# %% [markdown]
# ## Changed copies
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


METHODS = {
    "plain": lambda: films,
    "eda": lambda share: films + changed(augmentation.eda, neighbours(), share),
    "back_translation": lambda share: films + changed(augmentation.back_translate, *dictionaries(), share),
}

# %% [markdown]
# ## Run
#
# The gap is the accuracy on the original training sentences minus that on the test sentences. `scores` are the losses of the
# test sentences, one by one. The temperature is fitted on the dev sentences.


# %%
def measured(net):
    held_out = data.logits(net, *block.splits)
    line = data.fields(held_out)
    if block.tuning:
        return line
    fitted, truth = data.logits(net, "train")["train"], torch.tensor(data.targets["test"])
    accuracy = data.accuracy(fitted, "train")
    line |= {"train_accuracy": accuracy, "gap": accuracy - line["accuracy"]}
    line["fitted_loss"] = losses.cross_entropy(fitted, torch.tensor(data.targets["train"])).mean().item()
    z, temperature = held_out["test"], metrics.fit_temperature(held_out["dev"].numpy(), data.targets["dev"])
    tempered = losses.cross_entropy(z.double() / temperature, truth).mean().item()
    line |= {"temperature": temperature, "test_loss_tempered": tempered}
    return line | {"scores": losses.cross_entropy(z.double(), truth).tolist()}


for trial in block.trials():
    net = models.load_classifier(2, seed=seed).to(block.run.device)
    net.get_input_embeddings().weight.requires_grad_(False)
    examples = METHODS[trial.method](**trial.tuned)
    net, line, cost = fit(block, net, examples, data.pad_id, learning_rate=settings.learning_rate)
    block.line(trial, cost, **line, **measured(net))

# %% [markdown]
# ## What this block found

# %%
block.close("train_loss", "dev_loss", "train_accuracy", "accuracy", "test_loss")
