# ---
# jupyter:
#   instructlab:
#     id: captions
#     title: Pictures for a small decoder
#     outcome: one block of the grid behind claims C15, ML1, ML2, ML3, ML5 and CG1
#     assets: []
#     minutes: {smoke: 0.3, laptop: 1, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `captions`: one block
#
# A small image encoder, a projector and a small decoder learn to answer instructions about pictures of coloured shapes. Some
# pairs of colour and shape are never shown in training. Which parts learn, in which order, from which pictures and texts is
# what the methods differ in. A block is one seed, with its own plan of held-out pairs, pictures, test scenes and first
# values. The grid stands in `data/experiments/captions.toml`, the claims in `data/claims/`; lesson 23 explains the parts.
#
# `tune` tries learning rates on seeds that the table does not use, and looks at new pictures of shown pairs alone.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # plan of pairs, pictures, scenes, first values, order of batches

# %%
import copy
import random
from functools import cache, partial
from statistics import fmean

import torch

from instructlab_repro import block as blocks
from instructlab_utils import pictures, small, vision

block = blocks.open_block("captions", profile, stage, seed=seed)
settings, KINDS = block.settings, list(pictures.QUESTIONS)
held, PAIRS = pictures.held_out_pairs(seed), pictures.PAIRS

# %% [markdown]
# ## Pictures and texts
#
# Each part has a generator of its own. A test picture may show what a training picture shows; its pixels are others.


# %%
def drawn(part, n, pairs):
    rng = random.Random(f"{seed} {part}")
    return (found := pictures.scenes(n, rng, pairs)), pictures.draw(found, rng.randrange(2**31))


train, images = drawn("train", settings.pictures, PAIRS - held)
shown, unseen = drawn("shown", settings.scenes, PAIRS - held), drawn("unseen", settings.scenes, held)
tokenizer = small.word_tokenizer(pictures.words())
captions = pictures.instructions(train, ["describe"], tokenizer)
instructions = pictures.instructions(train, KINDS, tokenizer)
texts = pictures.instructions(drawn("text", settings.pictures, PAIRS)[0], KINDS, tokenizer, text=True)

# %% [markdown]
# ## The parts
#
# An encoder that has met some pairs or all of them, then frozen: what it makes of a picture is read once. A decoder that has
# read captions in words, or nothing.


# %%
def fit(net, rows, objective, seen, steps, rate):
    knobs = {"steps": steps, "learning_rate": rate, "objective": partial(objective, seen)}
    return blocks.fit(block, net, rows, 0, **knobs)[1]


@cache
def heads(wide=False):
    scenes, seen = drawn("all pairs", settings.pictures, PAIRS) if wide else (train, images)
    torch.manual_seed(seed)
    net, rows = vision.Heads(vision.ConvEncoder(), pictures.VALUES), pictures.attribute_examples(scenes)
    return net, fit(net, rows, vision.head_losses, seen, settings.steps, settings.encoder_rate)


def tokens(seen, wide=False):
    return heads(wide)[0].encoder(seen).detach()


@cache
def decoder(read):
    net = small.small_decoder(len(tokenizer), layers=1, window=64, std=settings.std, seed=seed)
    if read:
        empty, rate = torch.zeros(1, 16, 64), settings.text_rate
        fit(vision.Seeing(net), texts, vision.seeing_losses, empty, settings.steps, rate)
    return net


# %% [markdown]
# ## How the methods learn


# %%
def learned(method, rate):
    alone, seen = method in ("half", "pictures", "joint"), tokens(images, method == "wide")
    steps, align = settings.steps // (2 if method == "half" else 1), settings.align
    if method == "blind":
        seen = seen[torch.randperm(len(seen), generator=torch.Generator().manual_seed(seed))]
    torch.manual_seed(seed)
    net = vision.Seeing(copy.deepcopy(decoder(not alone)))
    if alone or method == "instruct":
        rows = instructions + texts * (method == "joint")
        return net, fit(net, rows, vision.seeing_losses, seen, steps, rate)
    vision.freeze(net.decoder)
    frozen = method == "projector"
    begun = fit(net, captions, vision.seeing_losses, seen, align, rate if frozen else settings.align_rate)
    vision.freeze(net.decoder, frozen=frozen)
    line = fit(net, instructions, vision.seeing_losses, seen, steps - align, rate)
    return net, line | {"first_loss": begun["first_loss"], "updates": steps}


# %% [markdown]
# ## Run
#
# `prior` answers each instruction as most training items do. `heads` reads the encoder's own heads, without a decoder.


# %%
def right(method, net, scenes, seen):
    """The share of right answers for each kind, and the mean log-probability of a right one."""
    if method == "prior":
        found, log_p = torch.tensor(pictures.by_prior(train, scenes, KINDS)), None
    elif method == "heads":
        found, log_p = vision.heads_right(heads()[0], seen, pictures.attributes(scenes)), None
    else:
        rows = pictures.instructions(scenes, KINDS, tokenizer)
        found, log_p = vision.answered(net, rows, tokens(seen, method == "wide"))
    shares = found.view(len(scenes), -1).double().mean(0).tolist()
    return dict(zip(KINDS, shares, strict=True)), log_p if log_p is None else log_p.mean().item()


rates = {trial.method: trial.tuned.get("learning_rate") for trial in block.spec.trials(block.block)}
same = {"blind": "two_stage", "wide": "two_stage", "half": "pictures"}
for trial in block.trials():
    rate = trial.tuned.get("learning_rate", rates.get(same.get(trial.method)))
    net, line = None, dict(heads()[1]) if trial.method == "heads" else {}
    with block.run.measure() as cost:
        if trial.method not in ("prior", "heads"):
            net, line = learned(trial.method, rate)
    old, log_p = right(trial.method, net, *shown)
    line |= {"seen": fmean(old.values()), "seen_log_p": log_p, "dev_loss": log_p and -log_p}
    if not block.tuning:
        new, log_p = right(trial.method, net, *unseen)
        line |= new | {"log_p": log_p, "shape_gap": old["shape"] - new["shape"]}
        line["accuracy"] = fmean(new.values())
        line["shuffled"] = fmean(right(trial.method, net, unseen[0], unseen[1].roll(1, 0))[0].values())
    block.line(trial, cost, **line)

# %% [markdown]
# ## What this block found

# %%
block.close("accuracy", "seen", "shuffled", "shape_gap", "dev_loss")
