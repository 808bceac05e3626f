# ---
# jupyter:
#   instructlab:
#     id: clusters
#     title: Instruction tuning and the number of clusters
#     outcome: one block of the grid behind claims C6, F2 and F3
#     assets: []
#     minutes: {smoke: 0.3, laptop: 1, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `clusters`: one block
#
# A small decoder is first trained on sentences about lists, which know ten ways to select a number and four things to say
# about it. Then it is tuned on instructions of 1, 2, 4 or 8 clusters, always on equally many examples, and answers the two
# clusters that are held out. A cluster is a selection: all instructions about "the largest", say. A block is one seed. The
# grid stands in `data/experiments/clusters.toml`, the claims in `data/claims/C6.toml`, `F2.toml` and `F3.toml`; lesson 14
# explains them.
#
# Two stages. `tune` tries learning rates of the tuning and looks at dev lists of the arm's own training clusters, never at a
# held-out cluster. `run` takes the best one.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # held-out clusters, their order, all examples, first values, order of batches

# %%
import random
from itertools import permutations

import numpy as np
import torch

from instructlab_repro import block as blocks
from instructlab_utils import generation, small, training

block = blocks.open_block("clusters", profile, stage, seed=seed)
settings, spec = block.settings, block.spec

# %% [markdown]
# ## Selections, reports, and their words
#
# Five selections by place, five by rank; four reports. The wordings stand in the TOML, in four forms. `statement`: how the
# first training speaks. All content words of an `instruction` stand in statements too; what frames them does not. `name`: two
# words for the task. `none`: the input alone.

# %%
PLACES, RANKS = "first second third fourth last".split(), "smallest lower middle upper largest".split()
REPORTS, FORMS = ("itself", "plus", "even", "above"), settings.forms


def answer(s, r, x):
    y = x[PLACES.index(s)] if s in PLACES else sorted(x)[RANKS.index(s)]
    return [str(y), str((y + 1) % 10), ("yes", "no")[y % 2], ("no", "yes")[y > 4]][REPORTS.index(r)]


texts = [text for form in FORMS.values() for wordings in form.values() for text in wordings]
words = {word for text in [*texts, *PLACES, *RANKS, "0 1 2 3 4 5 6 7 8 9 yes no"] for word in text.split()}
ids = small.word_tokenizer(sorted(words - {"{x}", "{s}"})).get_vocab()

# %% [markdown]
# ## Clusters and lists
#
# The seed holds out one place and one rank, and puts the other eight in an order in which places and ranks take turns.
# `clusters_2` has the first two, and so on: the arms are nested. Lists hold five different digits; those of dev and test are
# set apart, and each seed has test lists of its own.

# %%
rng = random.Random(f"{seed} clusters")
places, ranks = rng.sample(PLACES, 5), rng.sample(RANKS, 5)
HELD_OUT = [places.pop(), ranks.pop()]
ORDER = [cluster for pair in zip(places, ranks, strict=True) for cluster in rng.sample(pair, 2)]
LISTS = random.Random(0).sample(list(permutations(range(10), 5)), 30240)
TEST, DEV, TRAIN = LISTS[:10000], LISTS[10000:12000], LISTS[12000:]
own = [] if block.tuning else TEST[spec.axes["seed"].index(seed) * settings.lists :][: settings.lists]


def item(form, s, r, x, draw):
    """Token ids of a prompt with its answer, which alone counts."""
    prompt = draw.choice(FORMS[form][r]).format(s=s, x=" ".join(map(str, x)))
    tokens = [ids[word] for word in prompt.split()] + [ids[answer(s, r, x)]]
    return {"input_ids": tokens, "labels": [-100] * (len(tokens) - 1) + tokens[-1:]}


def drawn(form, clusters, n, lists, what):
    """n items, in which clusters and reports take turns."""
    draw, k = random.Random(f"{seed} {what}"), len(clusters)
    return [item(form, clusters[i % k], REPORTS[i // k % 4], draw.choice(lists), draw) for i in range(n)]


def tests(form, clusters=HELD_OUT):
    """Every report on every own list."""
    draw = random.Random(f"{seed} test")
    return [item(form, s, r, x, draw) for s in clusters for r in REPORTS for x in own]


# %% [markdown]
# ## The network
#
# The first training is the same for all arms of a seed. Every arm but one starts from its weights.


# %%
def fitted(examples, start=None, **knobs):
    """A network trained on the examples, what a line says of it, and its cost."""
    net = small.small_decoder(len(ids), width=settings.width, std=settings.std, window=32, seed=seed)
    if start is not None:
        net.load_state_dict(start.state_dict())
    knobs |= {"objective": generation.causal_losses, "ends": 20}
    return blocks.fit(block, net.to(block.run.device), examples, 0, **knobs)


@torch.no_grad()
def look(net, items):
    """The most probable tokens against the right ones, and the mean loss of these."""
    predictions, losses = [], []
    for at in range(0, len(items), 256):
        batch = training.move(training.collate_tokens(items[at : at + 256], 0), block.run.device)
        rows, last = range(len(batch["labels"])), batch["attention_mask"].sum(1) - 2
        logits = net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[rows, last]
        right = batch["input_ids"][rows, last + 1]
        losses += torch.log_softmax(logits.double(), -1)[rows, right].neg().tolist()
        predictions += logits.argmax(-1).tolist()
    targets = [one["input_ids"][-1] for one in items]
    found = {"accuracy": float(np.mean(np.equal(predictions, targets))), "nll": float(np.mean(losses))}
    return found | {"predictions": predictions, "targets": targets}


# %% [markdown]
# ## The arms
#
# `name_8` and `none_8`: the same examples in another form, in tuning and test. `random_init`: without the first training.
# `shuffled`: each answer is that of another example of the same report: only the frequencies of answers can be learned.


# %%
def arm(method):
    """The form and the clusters of an arm, and its training examples."""
    clusters = ORDER[: int(method[-1])] if method[-1].isdigit() else ORDER
    form = method[:4] if method[:4] in FORMS else "instruction"
    rows = drawn(form, clusters, settings.examples, TRAIN, "examples")
    for r in range(4) if method == "shuffled" else ():
        mine = [row for i, row in enumerate(rows) if i // len(clusters) % 4 == r]
        for row, y in zip(mine, rng.sample([row["labels"][-1] for row in mine], len(mine)), strict=True):
            row["input_ids"][-1] = row["labels"][-1] = y
    return form, clusters, rows


def measured(net, form):
    """The numbers of a line: the arm's own form on held-out and on trained clusters, and the other forms."""
    numbers = look(net, tests(form)) | {"accuracy_trained": look(net, tests(form, ORDER))["accuracy"]}
    return numbers | {f"accuracy_{other}": look(net, tests(other))["accuracy"] for other in FORMS}


# %% [markdown]
# ## Run
#
# `clusters_8` also holds the slopes over the four arms of this seed: per doubling of the clusters, by least squares.

# %%
first = fitted(drawn("statement", PLACES + RANKS, settings.sentences, TRAIN, "sentences"), **settings.first)
for trial in block.trials():
    form, clusters, rows = arm(trial.method)
    start = None if trial.method == "random_init" else first[0]
    net, line, cost = first if trial.method == "untuned" else fitted(rows, start, **trial.tuned)
    if block.tuning:
        line["dev_loss"] = net and look(net, drawn(form, clusters, settings.dev, DEV, "dev"))["nll"]
    elif net is not None:
        line |= measured(net, form)
    if trial.method == "clusters_8" and not block.tuning:
        done = {t.method: block.run.have(t.key) for t in spec.trials(block.block)} | {"clusters_8": line}
        for metric in ("accuracy", "nll"):
            curve = [done[f"clusters_{n}"][metric] for n in (1, 2, 4, 8)]
            line[f"slope_{metric}"] = float(np.polyfit(range(4), curve, 1)[0])
    block.line(trial, cost, **line)

# %% [markdown]
# ## What this block found

# %%
block.close("accuracy", "nll", "dev_loss", "train_loss")
