# ---
# jupyter:
#   instructlab:
#     id: growing
#     title: A growing set of instructions
#     outcome: one block of the grid behind claim C10
#     assets: []
#     minutes: {smoke: 0.3, laptop: 1, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `growing`: one block
#
# A small decoder, from scratch, learns to execute instructions on a list of four digits. In each round a new kind of
# instruction comes, in words, three wordings each; the interpreter of lesson 15 knows the right answers. Six ways to go on
# make equally many updates a round. A block is one seed, with its own examples, test lists and first values. The grid stands
# in `data/experiments/growing.toml`, the claim in `data/claims/`; lesson 18 explains the ways.
#
# No rate is tuned: the TOML fixes them.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # run or twin
seed: int = 0  # examples, test lists, first values, order of batches

# %%
import copy
import random
from functools import cache
from statistics import fmean, mode

from instructlab_repro import block as blocks
from instructlab_utils import continual, generation, programs, small, tuners

block = blocks.open_block("growing", profile, stage, seed=seed)
settings, seeds = block.settings, block.spec.axes["seed"]
KINDS = {kind: [programs.parse(text) for text in texts] for kind, texts in settings.kinds.items()}

# %% [markdown]
# ## Instructions, lists, answers
#
# Lists whose digit sum five divides are test lists, all others training lists. The test lists are dealt out to the seeds.


# %%
def fits(given, split):
    share = int("".join(map(str, given))) // 5 % len(seeds)
    mine = split != "test" or seeds[share] == seed
    return mine and (sum(given) % 5 == 0) == (split == "test")


def items(kind, split, n):
    rng = random.Random(f"{seed} {kind} {split}")
    return continual.asked(KINDS[kind], n, rng, lambda given: fits(given, split))


train = {kind: items(kind, "train", settings.examples) for kind in KINDS}
held_out = {kind: items(kind, "test", settings.items) for kind in KINDS}
words = continual.asked_words(row for rows in train.values() for row in rows)
tokenizer = small.word_tokenizer(words)


def decoder():
    return small.small_decoder(len(tokenizer), layers=1, window=32, std=settings.std, seed=seed)


# %% [markdown]
# ## Training, and the router
#
# The router counts words: an instruction goes to the kind whose mean count is nearest.


# %%
def trained(net, rows, learning_rate):
    knobs = {"learning_rate": learning_rate, "objective": generation.causal_losses}
    net, line, _ = blocks.fit(block, net, continual.asked_examples(rows, tokenizer), 0, **knobs)
    return net, line


@cache
def first_round():
    return trained(decoder(), train[next(iter(KINDS))], settings.rate)


def parts_of(nets, rows):
    """Place of a network → the rows that the router sends to it; all to the only one where there is one."""
    router = continual.WordRouter([[row.text for row in train[kind]] for kind in list(KINDS)[: len(nets)]])
    sent = router([row.text for row in rows])
    return {i: [row for row, at in zip(rows, sent, strict=True) if at == i] for i in sorted(set(sent))}


def accuracy(nets, rows):
    right = 0
    for i, part in parts_of(nets, rows).items():
        prompts = [tokenizer(row.prompt)["input_ids"] for row in part]
        new, _ = small.sample(nets[i], prompts, 5, tokenizer.eos_token_id, temperature=0)
        right += sum(tokenizer.decode(ids) == row.answer for ids, row in zip(new, part, strict=True))
    return right / len(rows)


# %% [markdown]
# ## Six ways to go on
#
# `retrain` begins from the first values in each round, on all examples so far. `continue` and `gentle` see the new kind only.
# With `replay` half of the examples come from the few that were kept of each kind. `all` goes on with all examples so far.
# `adapters` gives each new kind a LoRA on the network of the first round.


# %%
def rounds(method):
    """The accuracy matrix, the networks at the end, and what a line says of each round's losses."""
    nets, R, ends, rate = [], [], [], settings.rates.get(method, settings.rate)
    for t, kind in enumerate(KINDS):
        earlier, n = list(train.values())[:t], len(train[kind])
        few = [row for rows in earlier for row in rows[: settings.kept]]
        old = {"continue": [], "gentle": [], "replay": (few * n)[:n]}
        old = old.get(method, [row for rows in earlier for row in rows])
        net, line = first_round()
        if t and method == "adapters":
            lora = tuners.Lora(8, 8, targets=settings.targets)
            net = tuners.inject(copy.deepcopy(net), lora, seed=seed + t)
            net, line = trained(net, train[kind], rate)
        elif t:
            start = decoder() if method == "retrain" else copy.deepcopy(nets[-1])
            net, line = trained(start, [*train[kind], *old], rate)
        nets = [*nets, net] if method == "adapters" else [net]
        R.append([accuracy(nets, rows) for rows in held_out.values()])
        ends.append((line["first_loss"], line["train_loss"]))
    return R, nets, dict(zip(("first_loss", "train_loss"), map(fmean, zip(*ends, strict=True)), strict=True))


# %% [markdown]
# ## Run
#
# `guess` answers each kind with the most frequent answer of its training examples, without a model.

# %%
common = [mode(row.answer for row in rows) for rows in train.values()]
guessed = [fmean(a == row.answer for row in held_out[kind]) for a, kind in zip(common, KINDS, strict=True)]
for trial in block.trials():
    R, nets, line = [guessed] * len(KINDS), [], {}
    with block.run.measure() as cost:
        if trial.method != "guess":
            R, nets, line = rounds(trial.method)
            line["updates"] = settings.steps * len(KINDS)
    parts = [
        (nets[i], rows) for each in held_out.values() if nets for i, rows in parts_of(nets, each).items()
    ]
    examples = [(net, continual.asked_examples(rows, tokenizer)) for net, rows in parts]
    losses = [blocks.completion_scores(net, some, 0)["nll"] for net, some in examples]
    if nets:
        line["loss"] = fmean(losses)
    if len(nets) > 1:
        sent = [len(parts_of(nets, rows).get(i, [])) for i, rows in enumerate(held_out.values())]
        line["router_accuracy"] = sum(sent) / (len(KINDS) * settings.items)
    line |= {"accuracy": continual.final_accuracy(R), "bwt": continual.backward_transfer(R), "matrix": R}
    block.line(trial, cost, **line)

# %% [markdown]
# ## What this block found

# %%
block.close("accuracy", "bwt", "loss")
