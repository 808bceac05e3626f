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
from collections import defaultdict
from functools import cache

import torch

from instructlab_repro import block as blocks
from instructlab_utils import construction, generation, programs, small
from instructlab_utils.project import find_root

block = blocks.open_block("construction", profile, stage, seed=seed)
settings, rng = block.settings, random.Random(seed)

# %% [markdown]
# ## Hand-written instructions
#
# Two of each leaf are dev instructions, the same for all seeds. The seed draws the others: as many for the training pool as
# `by_hand` says, the rest for the test. A program of two steps that stands in the pool leaves the test; and one that stands
# in the test may not be constructed.

# %%
every = construction.load(find_root() / "data" / "instructions" / "lists.jsonl")
leaves = defaultdict(list)
for one in every:
    leaves[construction.leaf_of(one.program)].append(one)
dev = [one for mine in leaves.values() for one in mine[:: settings.each_dev]]
drawn = {leaf: rng.sample([one for one in mine if one not in dev], len(mine) - len(mine[:: settings.each_dev]))
         for leaf, mine in leaves.items()}  # fmt: skip
pool = [mine[i] for i in range(settings.by_hand) for mine in drawn.values()]  # the leaves take turns
taken = {programs.render(one.program) for one in pool if len(one.program) > 1}
test = [
    one
    for mine in drawn.values()
    for one in mine[settings.by_hand :]
    if programs.render(one.program) not in taken
]
banned = frozenset(programs.render(one.program) for one in test if len(one.program) > 1)
print(f"{len(pool)} by hand for training, {len(dev)} dev, {len(test)} test, {len(banned)} programs held out")

# %% [markdown]
# ## The sets
#
# Every constructed set begins with its hand-written seeds. `skewed` seeds: one of each leaf, and all that three leaves have.
# The sizes of the filtered set are nested.

# %%
size, n_seeds = len(pool), settings.seeds_each * len(leaves)
whole = [construction.split(one) for one in pool]
rich = rng.sample(sorted(leaves), settings.rich)
skewed = whole[: len(leaves)] + [
    made for made in whole[len(leaves) :] if construction.leaf_of(made.program) in rich
]  # fmt: skip


@cache
def grown(kind):
    """A constructed set and its counts."""
    start = skewed if kind in ("uniform", "taxonomy") else whole[:n_seeds]
    wanted = max(settings.sizes.values()) if kind == "filtered" else settings.sizes[kind]
    return construction.bootstrap(
        start, wanted, random.Random(seed), filtered=kind != "unfiltered", banned=banned,
        leaves=sorted(leaves) if kind == "taxonomy" else (),
    )  # fmt: skip


def pairs(made):
    return [(one.text, programs.render(one.program)) for one in made]


def wrong(rows, share):
    """Each label behind the seeds is, with this probability, that of another row."""
    others = random.Random(seed + 1)
    return rows[:n_seeds] + [
        (text, others.choice(rows)[1] if others.random() < share else program)
        for text, program in rows[n_seeds:]
    ]  # fmt: skip


# %% [markdown]
# ## The model
#
# The vectors of the words start as MiniLM's, all else from random values. The decoder reads the words and writes a program.
# An answer is right where its program gives on each of the fresh lists what the right program gives. `skill`: the answer's
# last step is of the right leaf.

# %%
words = construction.vocabulary(one.text for one in every)
tokenizer, known = small.word_tokenizer(words), construction.word_vectors(words, settings.width)
knobs = {"objective": generation.causal_losses}
lists = construction.inputs(settings.lists, random.Random(seed + 2))


def trained(rows, learning_rate):
    examples = [construction.example(*row, tokenizer) for row in rows]
    net = small.small_decoder(len(tokenizer), width=settings.width, layers=settings.layers, seed=seed)
    with torch.no_grad():
        net.get_input_embeddings().weight[-len(words) :] = known  # the special tokens stand before them
    return blocks.fit(block, net, examples, 0, learning_rate=learning_rate, **knobs)


def look(net, wanted):
    """What a model makes of hand-written instructions."""
    answers = construction.translate(net, tokenizer, [one.text for one in wanted])
    read = [construction.parsed(answer) for answer in answers]
    right, skill = defaultdict(list), defaultdict(list)
    for program, one in zip(read, wanted, strict=True):
        leaf = construction.leaf_of(one.program)
        right[leaf].append(program is not None and construction.same(program, one.program, lists))
        skill[leaf].append(program is not None and construction.LEAF_OF.get(str(program[-1])) == leaf)
    shares = {leaf: sum(found) / len(found) for leaf, found in skill.items()}
    examples = [construction.example(one.text, programs.render(one.program), tokenizer) for one in wanted]
    worst = sorted(shares.values())[: len(shares) // 3]
    rare = [shares[leaf] for leaf in shares if leaf not in rich]
    return {
        "accuracy": sum(map(sum, right.values())) / len(wanted),
        "accuracy_skill": sum(map(sum, skill.values())) / len(wanted),
        "accuracy_worst_leaf": min(shares.values()),
        "accuracy_worst_third": sum(worst) / len(worst),
        "accuracy_rare_leaves": sum(rare) / len(rare),
        "valid": sum(program is not None for program in read) / len(wanted),
        "loss": blocks.completion_scores(net, examples, 0)["nll"],
        "one_class": len(set(answers)) == 1,
    }


# %% [markdown]
# ## Which set a method learns from


# %%
@cache
def taught(learning_rate):
    """The constructed instructions with programs that a model writes which learned from the seeds alone."""
    net = trained(pairs(whole[:n_seeds]), learning_rate)[0]
    made = grown("filtered")[0][n_seeds:]
    answers = construction.translate(net, tokenizer, [one.text for one in made])
    rows = [(one.text, said) for one, said in zip(made, answers, strict=True) if construction.parsed(said)]
    right = [said == programs.render(one.program) for one, said in zip(made, answers, strict=True)]
    return pairs(whole[:n_seeds]) + rows[: settings.sizes["self"] - n_seeds], sum(right) / max(1, len(right))


def set_of(method, learning_rate):
    """Pairs of text and program, and what a line says of them."""
    if method == "self":
        rows, share = taught(learning_rate)
        return rows, {"right_labels": share}
    if method in ("hand", "shuffled"):
        rows = pairs(whole)
        said = random.Random(seed).sample([program for _, program in rows], len(rows))
        return (
            rows if method == "hand" else [(text, s) for (text, _), s in zip(rows, said, strict=True)]
        ), {}
    made, left = grown(method if method in ("unfiltered", "uniform", "taxonomy") else "filtered")
    rows = pairs(made[: settings.sizes.get(method, size)])
    counts = {f"n_{name.removeprefix('refused: ').replace(' ', '_')}": n for name, n in left.items()}
    return (wrong(rows, settings.wrong) if method == "wrong" else rows), counts


# %% [markdown]
# ## Run

# %%
for trial in block.trials():
    rows, line = set_of(trial.method, **trial.tuned)
    net, found, cost = trained(rows, **trial.tuned)
    line |= found | {"size": len(rows), "programs": len({program for _, program in rows})}
    if net is not None:
        scores = look(net, dev if block.tuning else test)
        held_out = "dev" if block.tuning else "test"
        line |= {"one_class": scores.pop("one_class"), f"{held_out}_loss": scores.pop("loss")}
        line |= {f"dev_{name}": x for name, x in scores.items()} if block.tuning else scores
    block.line(trial, cost, **line)

# %% [markdown]
# ## What this block found

# %%
block.close("accuracy", "accuracy_skill", "accuracy_worst_third", "test_loss", "dev_loss")
