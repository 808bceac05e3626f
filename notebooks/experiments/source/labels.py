# ---
# jupyter:
#   instructlab:
#     id: labels
#     title: Self-training, choosing sentences and noisy labels on kept features
#     outcome: one block of the grid behind claims C21, SS1, AL1, AL2 and RW1
#     assets: [minilm, vader, bbc]
#     minutes: {smoke: 0.5, laptop: 0.3, gpu: 0.3}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `labels`: one block
#
# Linear heads on kept features of the frozen encoder. What do unlabelled sentences add to few labels, which sentences are
# worth a label, and what can be saved of wrong labels? A block is one seed. The grid stands in
# `data/experiments/labels.toml`, the claims in `data/claims/`; lesson 20 explains the methods.
#
# Two stages. `tune` tries values, on seeds that the table does not use, and looks at dev sentences. `run` takes the best and
# looks at test sentences.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # order of the pool, flipped labels, random choices

# %%
from functools import partial

import torch

from instructlab_repro.block import ROUNDING, open_block
from instructlab_utils import features, labels, tasks

block = open_block("labels", profile, stage, seed=seed)
settings, seeds = block.settings, [int(each) for each in block.spec.axes["seed"]]
few, both, draw = settings.few, settings.few + settings.noisy, torch.Generator().manual_seed(seed)

# %% [markdown]
# ## Sentences
#
# Every list is encoded as a whole, whatever the seed, and kept on disk. A seed takes rows of it: of the pool in an order of
# its own, of the films to test on a run that no other seed has; all seeds are tested on the same topics. While tuning, the
# dev split takes the place of both. The features of a rounding twin are moved a little.


# %%
def drawn(task, every, n_pool, n_dev, n_test):
    """The pool's rows, and x, y of the pool in this seed's order, and of what is tested on."""
    pool, order, test, dev = features.split_pool(task, every, seed, n_pool)
    rows = tasks.subsample(dev, n_dev, 0) if block.tuning else tasks.disjoint(test, n_test, 0, [0])
    x, new = (
        features.mean_states(part["text"]) * (1 + ROUNDING * (stage == "twin")) for part in (pool, rows)
    )
    return pool, order, x[order], torch.tensor(pool["label"])[order], new, torch.tensor(rows["label"])


pool, order, x, y, test_x, test_y = drawn("movie-sentiment", 3, **settings.films)
cut = features.mean_states(features.shortened(pool["text"]))[order]
n, at = (len(test_x), 0) if block.tuning else (len(test_x) // len(seeds), seeds.index(seed))
test_x, test_y = test_x[n * at : n * (at + 1)], test_y[n * at : n * (at + 1)]
topics = drawn("bbc-topics", 2, **settings.topics)[2:]
rare = labels.first_of_each(y, settings.rare)
rare = (x[rare], y[rare], test_x, test_y)
x, y, cut = x[: settings.pool], y[: settings.pool], cut[few : settings.pool]
print(f"{len(x)} films in the pool, {len(test_x)} to test; {len(topics[0])} topics, {len(topics[2])} to test")

# %% [markdown]
# ## Few labels, with and without the pool; wrong labels
#
# `plain` learns from the flipped and the clean labels alike, `reweight` from the same with weights, `clean` from the clean
# ones alone.

# %%
flipped = torch.cat([torch.zeros(few), torch.rand(settings.noisy, generator=draw) < settings.flips]).bool()
wrong = torch.where(flipped, 1 - y[:both], y[:both])


def pseudo(C, threshold):
    fit, rest = partial(labels.fit_logistic, C=C), x[few:]
    predict, sure, guess = labels.self_train(fit, x[:few], y[:few], rest, threshold)
    right = (guess == y[few:][sure]).double().sum().item()
    return predict, {"sure": len(sure) / len(rest), "sure_right": right / max(1, len(sure))}


def weighted(method, rate, decay):
    rows, clean = (
        slice(few if method == "clean" else both),
        (x[:few], y[:few]) if method == "reweight" else None,
    )
    predict, w, losses = labels.fit_weighted(x[rows], wrong[rows], 2, rate, decay, clean=clean)
    line = {} if clean else {"first_loss": losses[0], "train_loss": losses[-1]}
    return predict, line | ({"on_flipped": w[flipped].sum().item()} if clean else {})


def head(method, tuned):
    """A predictor, and what else a line says."""
    if method in ("clean", "plain", "reweight"):
        return weighted(method, **tuned)
    if method == "self_training":
        return pseudo(**tuned)
    if method == "uda":
        return labels.fit_consistent(x[:few], y[:few], x[few:], cut, **tuned), {}
    if method == "majority":
        return lambda new: torch.bincount(y[:few]).expand(len(new), -1), {}
    rows = slice(None if method == "all_labels" else few)
    labelled = y[:few][torch.randperm(few, generator=draw)] if method == "permuted" else y[rows]
    return labels.fit_logistic(x[rows], labelled, **tuned or {"C": C}), {}


# %% [markdown]
# ## Which sentences to label
#
# Three pools: topics, films, and films where one class is nine times as frequent. `accuracy_POOL` is the mean over the looks
# after the start, the area under the learning curve.


# %%
def curves(kind):
    line = {}
    for name, (a, b, *test) in {"topics": topics, "films": (x, y, test_x, test_y), "rare": rare}.items():
        start = labels.first_of_each(
            b, [max(1, round(settings.start * s.item())) for s in b.bincount() / len(b)]
        )
        fit, chance = partial(labels.fit_logistic, C=C, balanced=True), torch.Generator().manual_seed(seed)
        how = (start.tolist(), settings.batch, settings.looks, *test, chance)
        hits, known = labels.learning_curve(kind, fit, a, b, *how)
        line |= {f"accuracy_{name}": hits[1:].mean().item(), f"curve_{name}": hits.mean(1).tolist()}
        line |= {"scores": hits[1:].mean(0).tolist()} if name == "topics" else {}
        line |= {"accuracy": hits[-1].mean().item()} if name == "films" else {}
        line |= {"rare_found": (b[known] == 1).sum().item()} if name == "rare" else {}
    return line


# %% [markdown]
# ## Run

# %%
C = {trial.method: trial.tuned.get("C") for trial in block.spec.trials(block.block)}.get("supervised")
for trial in block.trials():
    with block.run.measure() as cost:
        if trial.method in labels.ACQUISITIONS:
            line = curves(trial.method)
        else:
            predict, more = head(trial.method, trial.tuned)
            line = labels.judged(predict, test_x, test_y) | more
    if block.tuning:
        line = {"dev_loss": line["loss"], "dev_accuracy": line["accuracy"]}
    block.line(trial, cost, **{table.metric: None for table in block.spec.tables} | line)

# %% [markdown]
# ## What this block found

# %%
block.close("accuracy", "accuracy_topics", "accuracy_rare", "dev_loss")
