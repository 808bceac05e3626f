# ---
# jupyter:
#   instructlab:
#     id: program_writing
#     title: A small model writes programs, free, constrained, repaired and drawn again
#     outcome: one block of the grid behind claims CD1, CD2 and PR1
#     assets: []
#     minutes: {smoke: 0.3, laptop: 2, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `program_writing`: one block
#
# A small language model, trained from scratch on few examples, translates instructions in words into programs of lesson 15's
# language. Then one and the same network decodes in six ways: *free*; constrained by the *grammar*; constrained by grammar
# and types (*typed*); free, and where the program is invalid the error goes into the prompt for a second try (*repair*);
# free, and where the program is invalid others are drawn for at least as many tokens (*resample*); by the grammar, and then
# repaired (*both*).
#
# A block is one seed: one network, its own test items. The grid stands in `data/experiments/program_writing.toml`, the claims
# in `data/claims/`; lesson 15 explains them.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # first values, training programs, test programs and inputs, draws

# %%
import random
from functools import cache

import torch

from instructlab_repro import block as blocks
from instructlab_utils import generation, grammars, programs, small, writing

block = blocks.open_block("program_writing", profile, stage, seed=seed)
settings = block.settings

# %% [markdown]
# ## Examples
#
# Two thirds are pairs of an instruction and its program. The others show, after the instruction, a program that was broken at
# one word and what the parser or the type check says about it; the answer is the right program.


# %%
def prompt(instruction, wrong=None):
    return f"{instruction} :" + ("" if wrong is None else f" {wrong} ; {writing.fault(wrong)} :")


def pair(rng, depth, repaired):
    program = writing.draw(rng, depth)
    text, asked = programs.render(program), programs.describe(program, rng.choice)
    return prompt(asked, writing.broken(rng, text) if repaired else None), text


def pairs(part, n):
    rng = random.Random(f"{seed} {part}")
    return [pair(rng, 1 + i % settings.trained, i // settings.trained % 3 == 0) for i in range(n)]


train, dev = pairs("train", settings.examples), pairs("dev", settings.dev)
known = [*programs.JOINS, *(text for texts in programs.PHRASES.values() for text in texts)]
known += [*programs.RELATIONS.values(), *writing.SIGNS, *map(str, range(100)), ": ; the it"]
known += [asked for asked, _ in pairs("words", 900)]  # with the words of the errors
words = dict.fromkeys(word for text in known for word in text.replace("{}", "").split())
tokenizer = small.word_tokenizer(list(words))


def example(asked, text):
    before = writing.ids_of(asked, tokenizer)
    after = [*writing.ids_of(text, tokenizer), tokenizer.eos_token_id]
    return {"input_ids": before + after, "labels": [-100] * len(before) + after}


# %% [markdown]
# ## The network


# %%
@cache
def trained(learning_rate):
    """The network, what a line says of it, and its cost."""
    net = small.small_decoder(len(tokenizer), width=settings.width, window=256, std=settings.std, seed=seed)
    knobs = {"learning_rate": learning_rate, "objective": generation.causal_losses, "ends": 20}
    examples, held_out = ([example(*each) for each in part] for part in (train, dev))
    net, line, cost = blocks.fit(block, net.to(block.run.device), examples, 0, **knobs)
    return net, line | {"dev_loss": net and blocks.completion_scores(net, held_out, 0)["nll"]}, cost


# %% [markdown]
# ## Six ways to decode
#
# Tokens are counted as read or written. `resample` draws where the first program is invalid, until it has spent at least as
# many on the item as `repair`; the first valid draw counts.

# %%
MACHINES = {"grammar": grammars.Stacks(), "typed": grammars.Stacks(typed=True), "both": grammars.Stacks()}


def again(net, asked, found, items, **how):
    """Write the programs of ``items`` anew, and add what it costs."""
    prompts = [writing.ids_of(asked[i], tokenizer) for i in items]
    new = writing.write(net, tokenizer, prompts, settings.longest, **how) if net else [""] * len(items)
    for i, ids, text in zip(items, prompts, new, strict=True):
        found[i] = text, found[i][1] + len(ids) + len(text.split()) + 1


def invalid(found):
    return [i for i, (text, _) in enumerate(found) if writing.fault(text)]


@cache
def decoded(learning_rate, method, length):
    """A program and its cost in tokens for each item."""
    net, asked = trained(learning_rate)[0], [item[0] for item in tests[length]]
    if method in ("free", "grammar", "typed"):
        found = [("", 0)] * len(asked)
        again(net, asked, found, range(len(asked)), machine=MACHINES.get(method))
        return found
    found = list(decoded(learning_rate, "grammar" if method == "both" else "free", length))
    if method == "resample":
        budget, draw = decoded(learning_rate, "repair", length), torch.Generator().manual_seed(seed)
        while wrong := [i for i in invalid(found) if found[i][1] < budget[i][1]]:
            again(net, asked, found, wrong, temperature=settings.temperature, generator=draw)
    elif wrong := invalid(found):
        asked = [prompt(a[:-2], text) for a, (text, _) in zip(asked, found, strict=True)]
        again(net, asked, found, wrong, machine=MACHINES.get(method))
    return found


# %% [markdown]
# ## Run
#
# A program is right if it gives what the reference gives on eight fresh lists, an error for an error. `half_gain` is what
# the method adds to the share of right programs, minus half of what it adds to the share of valid ones.


# %%
def item(rng, length):
    """A prompt, inputs, and what the reference gives for them."""
    asked, text = pair(rng, rng.randint(*settings.lengths[length]), False)
    inputs = [[rng.randrange(10) for _ in range(n)] for n in (2, 3, 4, 5, 5, 6, 6, 7)]
    return asked, inputs, writing.outputs(text, inputs)


def shares(rate, method, length):
    """Of right and of valid programs, and tokens for an item."""
    found = decoded(rate, method, length)
    right = [writing.outputs(t, x) == y for (t, _), (_, x, y) in zip(found, tests[length], strict=True)]
    return [
        sum(right) / len(right),
        1 - len(invalid(found)) / len(found),
        sum(n for _, n in found) / len(found),
    ]


rng = random.Random(f"{seed} test")
tests = {length: [item(rng, length) for _ in range(settings.items)] for length in block.spec.axes["length"]}
for trial in block.trials():
    length, rate = trial.inside["length"], trial.tuned["learning_rate"]
    right, valid, tokens = shares(rate, trial.method, length)
    free = shares(rate, "free", length)
    line = {"accuracy": right, "valid": valid, "tokens": tokens}
    line["half_gain"] = right - free[0] - (valid - free[1]) / 2
    cost = trained(rate)[2] if (trial.method, length) == ("free", "seen") else None
    block.line(trial, cost, **line, **trained(rate)[1])

# %% [markdown]
# ## What this block found

# %%
block.close("dev_loss", "accuracy", "valid", "tokens", "half_gain")
