# ---
# jupyter:
#   instructlab:
#     id: speech
#     title: "Spoken words: one voice, six voices, noise"
#     outcome: one block of the grid behind claims SP1 and SP2
#     assets: []
#     minutes: {smoke: 0.3, laptop: 1, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `speech`: one block
#
# A small recogniser writes spoken words, letter by letter. It learns from one voice of a synthesiser at many speeds and
# pitches, from six voices, or from six voices of which half of the clips carry noise. Then it hears voices that it has never
# heard. A block is one seed, with its own cast of voices. The grid stands in `data/experiments/speech.toml`, the claims in
# `data/claims/`; lesson 23 explains the parts.
#
# No rate is tuned: the TOML fixes it.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # run or twin
seed: int = 0  # voices, first values, order of batches, noise

# %%
import random
from functools import partial

import torch

from instructlab_repro import block as blocks
from instructlab_utils import speech, training, voices

block = blocks.open_block("speech", profile, stage, seed=seed)
settings, words = block.settings, voices.WORDS[: block.settings.words]
cast = voices.cast(seed)
alphabet = "".join(sorted(set("".join(words))))
generator = torch.Generator().manual_seed(seed)

# %% [markdown]
# ## What is heard


# %%
def heard(who, speeds, pitches=(50,)):
    return voices.clips(words, who, speeds, pitches)


last = settings.test_voices
clips = {
    "one": heard(cast[:1], settings.many_speeds, settings.pitches),
    "several": heard(cast[: settings.voices], settings.speeds),
    "test": heard(cast[-last:], settings.test_speeds),
}
low, high = settings.decibels
clips["noise"] = [
    (word, speech.with_noise(x, random.Random(f"{seed} {i}").uniform(low, high), generator) if i % 2 else x)
    for i, (word, x) in enumerate(clips["several"])
]
clips["noisy"] = [
    (word, speech.with_noise(x, settings.test_decibels, generator)) for word, x in clips["test"]
]
features = {name: [speech.log_mel(x) for _, x in found] for name, found in clips.items()}
texts = {name: [word for word, _ in found] for name, found in clips.items()}
clips["shuffled"], features["shuffled"] = clips["several"], features["several"]
texts["shuffled"] = random.Random(seed).sample(texts["several"], len(texts["several"]))
print({name: len(found) for name, found in clips.items()}, "clips")

# %% [markdown]
# ## Train, and listen


# %%
def examples(name):
    return speech.clip_examples(features[name], texts[name], alphabet)


def trained(name):
    torch.manual_seed(seed)
    net, objective = (
        speech.Recogniser(len(alphabet) + 1),
        partial(speech.clip_losses, speech.padded(features[name])),
    )
    return blocks.fit(
        block, net, examples(name), 0, learning_rate=settings.learning_rate, objective=objective
    )[:2]


@torch.no_grad()
def told(net, name):
    """The share of words that are written rightly, and the CTC loss a letter."""
    if net is None:
        return sum(word == words[0] for word in texts[name]) / len(texts[name]), None
    seen = speech.padded(features[name])
    written = [
        "".join(alphabet[s - 1] for s in speech.best_path(net(seen[i : i + 1, : len(f)])[0]))
        for i, f in enumerate(features[name])
    ]
    right = sum(a == b for a, b in zip(written, texts[name], strict=True)) / len(written)
    losses = speech.clip_losses(seen, net, training.collate_tokens(examples(name), 0))
    return right, losses.sum().item() / sum(map(len, texts[name]))


# %% [markdown]
# ## Run

# %%
for trial in block.trials():
    net, line = None, {}
    with block.run.measure() as cost:
        if trial.method != "guess":
            net, line = trained(trial.method)
    line["accuracy"], line["loss"] = told(net, "test")
    line["noisy"], line["noisy_loss"] = told(net, "noisy")
    block.line(trial, cost, **line)

# %% [markdown]
# ## What this block found

# %%
block.close("accuracy", "noisy", "loss")
