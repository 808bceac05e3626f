# ---
# jupyter:
#   instructlab:
#     id: simcse
#     title: SimCSE on a damaged projection
#     outcome: one block of the grid behind claim C17
#     assets: [minilm, vader, bbc]
#     minutes: {smoke: 0.5, laptop: 0.3, gpu: 0.3}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `simcse`: one block
#
# The contrastive training of the encoder is undone in a way that we know: a projection squeezes most directions of its mean
# states. SimCSE trains the projection on unlabelled films, with dropout as its only augmentation. A block is one seed. The
# grid stands in `data/experiments/simcse.toml`, the claim in `data/claims/C17.toml`; lesson 20 explains the method.
#
# Two stages. `tune` tries rates, on seeds that the table does not use, and asks shortened dev films for their whole selves:
# no label is read. `run` takes the best and looks at test sentences.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # order of the pools, the damage, batches

# %%
import torch

from instructlab_repro.block import ROUNDING, open_block
from instructlab_utils import contrast, features, labels, tasks

block = open_block("simcse", profile, stage, seed=seed)
settings, seeds = block.settings, [int(each) for each in block.spec.axes["seed"]]
few, draw = settings.few, torch.Generator().manual_seed(seed)

# %% [markdown]
# ## Sentences
#
# As in `labels`: every list is encoded as a whole and kept on disk, a seed takes rows of it. The encoder's dropout gives two
# views of each film; leaving a fifth of the words out gives another. The test asks with films that lost more words. The
# features of a rounding twin are moved a little.


# %%
def of(texts, **how):
    return features.mean_states(texts, **how) * (1 + ROUNDING * (stage == "twin"))


def drawn(task, every, n_pool, n_dev, n_test):
    pool, order, test, dev = features.split_pool(task, every, seed, n_pool)
    return (
        pool,
        order,
        tasks.subsample(dev, n_dev, 0) if block.tuning else tasks.disjoint(test, n_test, 0, [0]),
    )


pool, order, tested = drawn("movie-sentiment", 3, **settings.films)
order = order[: settings.pool]
x, y = of(pool["text"])[order], torch.tensor(pool["label"])[order]
masks = [of(pool["text"], dropout=number)[order] for number in (1, 2)]
cut = of(features.shortened(pool["text"]))[order]
every, every_y = of(tested["text"])[: settings.asked], torch.tensor(tested["label"])[: settings.asked]
shorter = of(features.shortened(tested["text"][: settings.asked], settings.left_out))
n, at = (len(every), 0) if block.tuning else (len(every) // len(seeds), seeds.index(seed))
mine = torch.arange(n * at, n * (at + 1))
pool, order, tested = drawn("bbc-topics", 2, **settings.topics)
topics, topics_y = of(pool["text"])[order], torch.tensor(pool["label"])[order]
new_topics, new_y = of(tested["text"]), torch.tensor(tested["label"])
ten = labels.first_of_each(topics_y, [settings.each] * 5)
print(
    f"{len(x)} films, {n} of {len(every)} to find; {len(ten)} topics with a label, {len(new_topics)} to test"
)

# %% [markdown]
# ## The projection
#
# `simcse` pulls the two dropout views together, `same_mask` a view and itself, `deletion` a film and the film without a fifth
# of its words. `whole` is no projection at all.

# %%
middle, damage = x.mean(0), contrast.damaged_projection(x.shape[1], draw, settings.decades)
PAIRS = {"simcse": masks, "same_mask": [masks[0]] * 2, "deletion": [x, cut], "whole_simcse": masks}


def projected(method, tuned):
    """A function from features to unit vectors, and what a line says of its training."""
    W, line = torch.eye(x.shape[1]) if "whole" in method else damage, {}
    if method in PAIRS:
        a, b = (view - middle for view in PAIRS[method])
        how = {name: getattr(settings, name) for name in ("steps", "batch_size", "temperature")}
        W, losses = contrast.train_projection(W, a, b, draw, **tuned, **how)
        line = {"first_loss": losses[0], "train_loss": sum(losses[-5:]) / 5}
    return lambda rows: contrast.on_sphere((rows - middle) @ W.T), line


def look(f):
    """What the vectors are good for."""
    right = contrast.nearest_centre(f(topics[ten]), topics_y[ten], f(new_topics)) == new_y
    again = contrast.found_again(f(shorter[mine]), f(every), mine)
    probe = labels.fit_logistic(f(x[:few]), y[:few], settings.C)
    found = labels.judged(lambda rows: probe(f(rows)), every[mine], every_y[mine])
    found |= {"accuracy_centre": right.double().mean().item(), "scores": right.double().tolist()}
    found |= {"accuracy_found": again.double().mean().item()}
    found["finding_loss"] = (
        contrast.info_nce(f(shorter[mine]), f(every[mine]), settings.temperature).mean().item()
    )
    return found | {"alignment": contrast.alignment(*map(f, masks)), "uniformity": contrast.uniformity(f(x))}


# %% [markdown]
# ## Run

# %%
for trial in block.trials():
    with block.run.measure() as cost:
        f, line = projected(trial.method, trial.tuned)
        line |= look(f)
    if block.tuning:
        line |= {"dev_loss": line["finding_loss"], "dev_accuracy": line["accuracy_found"]}
        line = {name: line[name] for name in ("first_loss", "train_loss", "dev_loss", "dev_accuracy")}
    block.line(trial, cost, **line)

# %% [markdown]
# ## What this block found

# %%
block.close("accuracy_centre", "accuracy_found", "accuracy", "alignment", "uniformity", "dev_loss")
