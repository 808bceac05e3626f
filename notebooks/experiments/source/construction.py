# ---
# jupyter:
#   instructlab:
#     id: construction
#     title: Instructions by hand and constructed ones
#     outcome: one block of the grid behind claims C22, SI2, SI3, SI5, SI6 and LA1
#     assets: [minilm]
#     minutes: {smoke: 0.3, laptop: 1, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `construction`: one block
#
# A small decoder learns to translate instructions into programs out of sets that differ in where the
# instructions come from: hand-written, constructed and filtered, constructed without a filter, with wrong labels, guided by
# a taxonomy. It is tested on hand-written instructions that no set holds. A block is one seed. The grid stands in
# `data/experiments/construction.toml`, the claims in `data/claims/`; lesson 16 explains the methods.
#
# Two stages. `tune` tries learning rates and looks at the dev instructions; `run` takes the best one and looks at the test.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # the split, the seeds of the construction, its proposals, first values, order of batches

# %%
import random
from functools import cache
from statistics import fmean

import torch

from instructlab_repro import block as blocks
from instructlab_utils import construction, generation, programs, small
from instructlab_utils.project import find_root

block = blocks.open_block("construction", profile, stage, seed=seed)
settings, rng, leaves = block.settings, random.Random(seed), sorted(construction.LEAVES)

# %% [markdown]
# ## Hand-written instructions
#
# Two of each leaf are dev instructions, the same for all seeds. The seed draws the others: as many for the training pool as
# `by_hand` says, in which the leaves take turns, the rest for the test. A program of two steps that stands in the pool
# leaves the test; and one that stands in the test may not be constructed.

# %%
every = construction.load(find_root() / "data" / "instructions" / "lists.jsonl")
mine = [[one for one in every if construction.leaf_of(one.program) == leaf] for leaf in leaves]
dev = [one for some in mine for one in some[:: settings.each_dev]]
drawn = [rng.sample(rest, len(rest)) for some in mine for rest in [[one for one in some if one not in dev]]]
pool = [some[i] for i in range(settings.by_hand) for some in drawn]
taken = {one.program for one in pool if len(one.program) > 1}
test = [one for some in drawn for one in some[settings.by_hand :] if one.program not in taken]
banned = frozenset(programs.render(one.program) for one in test if len(one.program) > 1)
print(f"{len(pool)} by hand for training, {len(dev)} dev, {len(test)} test, {len(banned)} programs held out")

# %% [markdown]
# ## The sets
#
# Every constructed set begins with its hand-written seeds. `skewed` seeds: one of each leaf, and all that three leaves have.
# The sizes of the filtered set are nested.

# %%
n_seeds, largest = settings.seeds_each * len(leaves), max(settings.sizes.values())
whole = [construction.split(one) for one in pool]
rich = rng.sample(leaves, settings.rich)
skewed = [m for i, m in enumerate(whole) if i < len(leaves) or construction.leaf_of(m.program) in rich]


def pairs(made):
    return [(one.text, programs.render(one.program)) for one in made]


@cache
def grown(kind, size):
    """Pairs of text and program, seeds first, and how many proposals each check refused."""
    start = skewed if kind in ("uniform", "taxonomy") else whole[:n_seeds]
    knobs = {"filtered": kind != "unfiltered", "leaves": leaves if kind == "taxonomy" else ()}
    made, left = construction.bootstrap(start, size, random.Random(seed), banned=banned, **knobs)
    return pairs(made), {"n_" + name.split()[-1]: n for name, n in left.items()}


# %% [markdown]
# ## The model
#
# The vectors of the words start as MiniLM's, all else from random values. The decoder reads the words and writes a program.
# An answer is right where its program gives on each of the fresh lists what the right program gives. `skill`: the answer's
# last step is of the right leaf.

# %%
words = construction.vocabulary(one.text for one in every)
tokenizer, vectors = small.word_tokenizer(words), construction.word_vectors(words, settings.width)
lists = construction.inputs(settings.lists, random.Random(seed + 2))


def encoded(rows):
    return [construction.example(*row, tokenizer) for row in rows]


def trained(rows, learning_rate):
    net = small.small_decoder(len(tokenizer), width=settings.width, layers=settings.layers, seed=seed)
    with torch.no_grad():
        net.get_input_embeddings().weight[-len(words) :] = vectors  # the special tokens stand before them
    knobs = {"learning_rate": learning_rate, "objective": generation.causal_losses}
    return blocks.fit(block, net, encoded(rows), 0, **knobs)


def look(net, wanted):
    """What a model makes of hand-written instructions."""
    answers = construction.translate(net, tokenizer, [one.text for one in wanted])
    right, skill = construction.marked(answers, wanted, lists)
    own = [construction.leaf_of(one.program) for one in wanted]
    share = {leaf: fmean(s for s, at in zip(skill, own, strict=True) if at == leaf) for leaf in leaves}
    worst, rare = sorted(share.values()), [share[leaf] for leaf in leaves if leaf not in rich]
    parts = {"worst_leaf": worst[:1], "worst_third": worst[: len(worst) // 3], "rare_leaves": rare}
    found = {f"accuracy_{name}": fmean(shares) for name, shares in (parts | {"skill": skill}).items()}
    found |= {"accuracy": fmean(right), "one_class": len(set(answers)) == 1}
    found |= {f"leaf_{leaf}": x for leaf, x in share.items()}
    return found | {"loss": blocks.completion_scores(net, encoded(pairs(wanted)), 0)["nll"]}


# %% [markdown]
# ## Which set a method learns from
#
# `wrong`: each label after the seeds is, with a probability, that of another row. `self`: the labels are what a model writes
# that learned from the seeds alone, where it can be parsed.


# %%
def set_of(method, learning_rate):
    """Pairs of text and program, and what a line says of them."""
    kind = method if method in ("unfiltered", "uniform", "taxonomy") else "filtered"
    size, others = settings.sizes.get(method, len(pool)), random.Random(seed + 1)
    if method in ("hand", "shuffled"):
        rows, line = pairs(whole), {}
    else:
        rows, line = grown(kind, largest if kind == "filtered" else size)
    start, more = rows[:n_seeds], rows[n_seeds:size]
    if method == "wrong":
        more = [(text, others.choice(rows)[1] if others.random() < settings.wrong else p) for text, p in more]
    if method == "self":
        net = trained(start, learning_rate)[0]
        said = construction.translate(net, tokenizer, [text for text, _ in more])
        line = line | {"right_labels": fmean(a == p for a, (_, p) in zip(said, more, strict=True))}
        more = [(text, a) for a, (text, _) in zip(said, more, strict=True) if construction.parsed(a)]
    if method == "shuffled":
        labels = others.sample([p for _, p in rows], len(rows))
        start, more = [], [(text, p) for (text, _), p in zip(rows, labels, strict=True)]
    return start + more, line


# %% [markdown]
# ## Run

# %%
for trial in block.trials():
    rows, line = set_of(trial.method, **trial.tuned)
    net, found, cost = trained(rows, **trial.tuned)
    line = line | found | {"size": len(rows), "programs": len({program for _, program in rows})}
    if net is not None:
        looked = look(net, dev if block.tuning else test)
        line |= {f"dev_{name}": x for name, x in looked.items()} if block.tuning else looked
    block.line(trial, cost, **line)

# %% [markdown]
# ## What this block found

# %%
block.close("accuracy", "accuracy_skill", "accuracy_worst_third", "loss", "dev_loss")
