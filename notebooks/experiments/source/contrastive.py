# ---
# jupyter:
#   instructlab:
#     id: contrastive
#     title: SetFit at eight labels a class, and further pre-training on a field's text
#     outcome: one block of the grid behind claims C19, ST1 and ST3
#     assets: [minilm, vader]
#     minutes: {smoke: 0.5, laptop: 1, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `contrastive`: one block
#
# Here the encoder itself is trained, its upper layers on kept states of the lower ones. SetFit, fine-tuning with a new head
# and a logistic regression on the frozen encoder learn from eight films a class. Then the encoder is trained further by
# SimCSE on unlabelled text, of the field or of another one, before a logistic regression learns from 50 films. A block is one
# seed. The grid stands in `data/experiments/contrastive.toml`, the claims in `data/claims/`; lesson 20 explains the methods.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # labelled and unlabelled sentences, dropout, test sentences

# %%
import copy
import functools

import torch

from instructlab_repro.block import nudge, open_block
from instructlab_utils import contrast, features, labels, models, tasks

block = open_block("contrastive", profile, stage, seed=seed)
settings, seeds = block.settings, [int(each) for each in block.spec.axes["seed"]]

# %% [markdown]
# ## Sentences
#
# The labelled films are the first of each class in the seed's order, the unlabelled ones come after all that have a label.
# Each seed has test films of its own. What is kept is what enters the lowest trained layer.

# %%
pool, order, test, dev = features.split_pool("movie-sentiment", 3, seed, settings.n_pool)
rows = (
    tasks.subsample(dev, settings.dev, 0)
    if block.tuning
    else tasks.disjoint(test, settings.test, seed, seeds)
)
films, test_y = pool.select(order), torch.tensor(rows["label"])
few, more, y = settings.each * 2, settings.more, torch.tensor(films["label"])
fields = {
    "domain": films["text"][max(few, more) :],
    "other": tasks.load("editorial-sentiment").splits["train"]["text"],
}
encoder, tokenizer = models.load_encoder(), models.load_tokenizer("encoder")
chosen = labels.first_of_each(y[: max(few, more)], [settings.each] * 2).tolist()


@functools.cache
def below(*texts):
    return features.lower_states(encoder, tokenizer, texts, settings.at, settings.max_length)


@torch.no_grad()
def vectors(upper, states, mask):
    parts = zip(states.split(64), mask.split(64), strict=True)
    return contrast.on_sphere(torch.cat([upper(*part) for part in parts]))


# %% [markdown]
# ## Three ways from eight labels a class
#
# All pairs of the labelled films are in each of SetFit's updates; then a logistic regression. Fine-tuning has the same films
# in each update, and a new linear head on the same mean states.


# %%
def new_part():
    part = copy.deepcopy(features.UpperLayers(encoder, settings.at))
    if stage == "twin":
        nudge(part)
    return part


def with_head(upper, texts, labelled, C):
    probe = labels.fit_logistic(vectors(upper, *below(*texts)), labelled, C)
    return labels.judged(probe, vectors(upper, *below(*rows["text"])), test_y)


def from_eight(method, C=1.0, rate=0.0):
    own, texts = y[chosen], [films[i]["text"] for i in chosen]
    upper, states, losses = new_part(), below(*texts), []
    if method == "setfit":
        losses = contrast.descend(
            upper, lambda _: contrast.pair_loss(upper(*states), own), **how(rate, settings.few_steps)
        )
    if method == "full":
        head = torch.nn.Linear(states[0].shape[2], 2)
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
        net = torch.nn.ModuleList([upper, head])
        loss = lambda _: torch.nn.functional.cross_entropy(head(upper(*states)), own)  # noqa: E731
        losses = contrast.descend(net, loss, **how(rate, settings.few_steps))
        with torch.no_grad():
            return labels.judged(lambda s: head(upper(*s)).softmax(1), below(*rows["text"]), test_y), losses
    return with_head(upper, texts, own, C), losses


def how(rate, steps):
    torch.manual_seed(seed)  # dropout
    return {"steps": steps, "rate": rate}


# %% [markdown]
# ## Further pre-training
#
# SimCSE on unlabelled text: each batch goes twice through the upper layers, with two dropout masks.


# %%
def further(method, rate=0.0):
    upper, losses = new_part(), []
    if method in fields:
        n = settings.batch_size
        states, mask = below(*fields[method][: n * settings.steps])

        def loss(step):
            part = slice(n * step, n * (step + 1))
            views = (upper(states[part], mask[part]) for _ in range(2))
            return contrast.info_nce(*views, settings.temperature).mean()

        losses = contrast.descend(upper, loss, **how(rate, settings.steps))
    return with_head(upper, films["text"][:more], y[:more], settings.C), losses


# %% [markdown]
# ## Run

# %%
rates = {trial.method: trial.tuned.get("rate") for trial in block.spec.trials(block.block)}
for trial in block.trials():
    with block.run.measure() as cost:
        knobs = {"rate": rates["domain"]} if trial.method == "other" else trial.tuned
        line, losses = (from_eight if trial.method in ("frozen", "setfit", "full") else further)(
            trial.method, **knobs
        )
    if losses:
        line |= {"first_loss": losses[0], "train_loss": sum(losses[-5:]) / len(losses[-5:])}
    if block.tuning:
        line = {f"dev_{name}" if name in ("loss", "accuracy") else name: x for name, x in line.items()}
    block.line(trial, cost, **line)

# %% [markdown]
# ## What this block found

# %%
block.close("accuracy", "loss", "dev_loss")
