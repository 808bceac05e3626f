# ---
# jupyter:
#   instructlab:
#     id: continual
#     title: Four text tasks, one after the other, in one output space
#     outcome: one block of the grid behind claims EW1, EW3, RP1, OL1 and OL3
#     assets: [minilm, vader, bbc, bigbench]
#     minutes: {smoke: 0.3, laptop: 2, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `continual`: one block
#
# A small network on MiniLM's sentence states learns four tasks in turn. Its logits are products with the states of 13 label
# words: one output space, which all tasks share, and no task is named at test time. A block is one seed, with its own
# training sentences, test sentences and first values; every method walks the same tasks in three orders. The grid stands in
# `data/experiments/continual.toml`, the claims in `data/claims/`; lesson 18 explains the methods.
#
# Two stages. `tune` tries strengths on one order and looks at dev sentences. `run` takes the best and looks at the test.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # training and test sentences, first values, order of batches

# %%
from statistics import fmean

import torch
from torch.nn.functional import cross_entropy

from instructlab_repro.block import nudge, open_block
from instructlab_utils import continual, remedies, tasks

block = open_block("continual", profile, stage, seed=seed)
settings, seeds = block.settings, block.spec.axes["seed"]

# %% [markdown]
# ## States and labels
#
# The seed draws its training sentences from a pool whose states are computed once. Test sentences are the seed's own; dev
# sentences are the same for all tuning seeds.


# %%
def states(rows):
    return continual.sentence_states(rows["text"], settings.max_length), torch.tensor(rows["label"])


words, train, held_out = continual.sentence_states(continual.WORDS), {}, {}
for name in continual.TASKS:
    rows = continual.sentences(name)
    x, y = states(tasks.subsample(rows["train"], settings.pool, 0))
    mine = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[: settings.n_train]
    train[name] = x[mine], y[mine]
    own = None if block.tuning else tasks.disjoint(rows["test"], settings.test, seed, seeds)
    held_out[name] = states(own or tasks.subsample(rows["dev"], settings.dev, 0))

# %% [markdown]
# ## What each method is
#
# `joint` sees all tasks at every place of the walk, `shuffled` too, with permuted labels; `frozen` is not trained. `gentle`
# is sequential tuning with a rate of its own.


# %%
def remedy_of(method, strength=0.0, share=0.0, **_):
    kinds = {"ewc": "true", "ewc_emp": "empirical", "l2": "uniform"}
    loras = {"lora": "OneLora", "inclora": "NewLoras", "olora": "NewLoras", "adapters": "AdapterPerTask"}
    if method in kinds:
        return remedies.Ewc(strength, kinds[method])
    if method in loras:
        return getattr(remedies, loras[method])(strength, rank=settings.rank, seed=seed)
    if method in settings.kept:
        return remedies.Replay(share, settings.kept[method])
    return remedies.Lwf(strength) if method == "lwf" else remedies.Remedy()


def stream_of(method, order):
    if method not in ("joint", "shuffled"):
        return [train[name] for name in order]
    x, y = (torch.cat(parts) for parts in zip(*train.values(), strict=True))
    mixed = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    return [(x, y[mixed] if method == "shuffled" else y)] * len(order)


# %% [markdown]
# ## One walk through the tasks


# %%
def look(order):
    def accuracies(net):
        pairs = [(net(held_out[name][0]).argmax(1), held_out[name][1]) for name in order]
        return [(found == y).double().mean().item() for found, y in pairs]

    return accuracies


def walk(method, order, **tuned):
    net, remedy = continual.Trunk(words, seed=seed), remedy_of(method, **tuned)
    if stage == "twin":
        nudge(net)
    family = "lora" if isinstance(remedy, remedies.NewLoras) else "full"
    rate, steps = tuned.get("learning_rate", settings.rates[family]), settings.steps * (method != "frozen")
    found = remedies.learn_in_turn(
        net, stream_of(method, order), remedy, look(order), steps=steps, learning_rate=rate, seed=seed,
        batch_size=settings.batch_size,
    )  # fmt: skip
    return found, remedy


# %% [markdown]
# ## Run
#
# `above_half`: accuracy above the middle between sequential tuning and joint training. `drop`: what the first task has lost.

# %%
seen = {(line["method"], line["order"]): line.get("accuracy") for line in block.lines()}
for trial in block.trials():
    place, order = trial.inside["order"], settings.orders[trial.inside["order"]]
    with block.run.measure() as cost:
        (R, net, ends), remedy = walk(trial.method, order, **trial.tuned)
    with torch.no_grad():
        z = {name: net(held_out[name][0]) for name in order}
    accuracy = continual.final_accuracy(R)
    line = {"loss": fmean(cross_entropy(z[name], held_out[name][1]).item() for name in order)}
    if trial.method != "frozen":
        line |= dict(zip(("first_loss", "train_loss"), map(fmean, zip(*ends, strict=True)), strict=True))
    if block.tuning:
        block.line(trial, cost, dev_loss=line.pop("loss"), dev_accuracy=accuracy, **line)
        continue
    seen[trial.method, place] = accuracy
    before = look(order)(continual.Trunk(words, seed=seed))
    line |= {"bwt": continual.backward_transfer(R), "fwt": continual.forward_transfer(R, before), "matrix": R}
    line |= {
        "drop": R[0][0] - R[-1][0],
        "one_class": len(set(torch.cat([*z.values()]).argmax(1).tolist())) == 1,
    }
    if ("joint", place) in seen and ("sequential", place) in seen:
        line |= {"above_half": accuracy - (seen["joint", place] + seen["sequential", place]) / 2}
    if isinstance(net, remedies.Routed):
        sent = [continual.routed(held_out[name][0], net.centres) == t for t, name in enumerate(order)]
        line |= {"router_accuracy": torch.cat(sent).double().mean().item()}
    if getattr(remedy, "before", None):
        pairs = [(A, t) for A in remedy.before.values() for t in range(1, len(A))]
        line |= {"overlap": sum(continual.subspace_overlap(A[t], A[:t]).item() for A, t in pairs)}
    block.line(trial, cost, accuracy=accuracy, updates=settings.steps * len(order), **line)

# %% [markdown]
# ## What this block found

# %%
block.close("accuracy", "bwt", "dev_loss")
