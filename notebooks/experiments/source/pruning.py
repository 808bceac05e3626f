# ---
# jupyter:
#   instructlab:
#     id: pruning
#     title: Weights, heads and layers taken out of a tuned encoder
#     outcome: one block of the grid behind claim PN1
#     assets: [minilm, bbc]
#     minutes: {smoke: 0.5, laptop: 2, gpu: 0.5}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `pruning`: one block
#
# MiniLM's upper three layers are tuned on news topics. Then weights, heads or layers are taken out at once, more and more.
# What accuracy is left? A block is one seed: one tuned model, and all that is taken out of it. The grid stands in
# `data/experiments/pruning.toml`, the claim in `data/claims/PN1.toml`; lesson 25 explains the methods.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # run or twin
seed: int = 0  # which articles are tuned and tested on, order, first values

# %%
from contextlib import nullcontext

import torch
from torch.nn import functional as F

from instructlab_repro.block import ROUNDING, open_block
from instructlab_utils import features, labels, models, sparsity, tasks

block = open_block("pruning", profile, stage, seed=seed)
settings, seeds = block.settings, [int(each) for each in block.spec.axes["seed"]]

# %% [markdown]
# ## Articles, and a tuned model

# %%
pool, order, test, _ = features.split_pool("bbc-topics", 2, seed, 100_000)
train, held = pool.select(order[: settings.rows]), tasks.disjoint(test, settings.test, seed, seeds)
y, test_y = torch.tensor(train["label"]), torch.tensor(held["label"])
encoder, tokenizer = models.load_encoder(), models.load_tokenizer("encoder")
x, new = (
    features.lower_states(encoder, tokenizer, rows["text"], 3, settings.tokens) for rows in (train, held)
)
torch.manual_seed(seed)
body, head = features.UpperLayers(encoder, 3), torch.nn.Linear(encoder.config.hidden_size, int(y.max()) + 1)
if stage == "twin":
    head.weight.data.mul_(1 + ROUNDING)
weights, scores, found = sparsity.linear_weights(body), {}, []
optimizer = torch.optim.AdamW([*body.parameters(), *head.parameters()], lr=settings.rate)
body.train()
with block.run.measure() as cost:
    for _ in range(settings.steps):
        at = torch.randint(len(y), (settings.batch,))
        loss = F.cross_entropy(head(body(x[0][at], x[1][at])), y[at])
        optimizer.zero_grad()
        loss.backward()
        sparsity.add_movement(scores, weights)
        optimizer.step()
        found.append(loss.item())
body.eval()
layers = body.layers
print(f"{len(y)} articles to tune on, {len(held)} to test on; loss {found[0]:.2f}, then {found[-1]:.2f}")

# %% [markdown]
# ## What is taken out

# %%
gates = torch.ones(len(layers), encoder.config.num_attention_heads, requires_grad=True)
with sparsity.head_gates(layers, gates):
    F.cross_entropy(head(body(*(each[:160] for each in x))), y[:160]).backward()
draw = torch.Generator().manual_seed(seed)
ranked = {
    "magnitude": {name: w.detach().abs() for name, w in weights.items()},
    "random": {name: torch.rand(w.shape, generator=draw) for name, w in weights.items()},
    "movement": scores,
}
means = [features.mean_states(rows["text"], settings.tokens) for rows in (train, held)]


def taken_out(method, level):
    """A context in which that share is out; layers are counted from above."""
    body.layers = layers[: len(layers) - round(level * len(layers))] if method == "layers" else layers
    if method in ranked:
        return sparsity.masked_weights(weights, sparsity.keep_best(ranked[method], level))
    if method == "heads":
        kept = sparsity.keep_best({"heads": gates.grad.abs()}, level)["heads"]
        return sparsity.head_gates(layers, kept.float())
    return nullcontext()


# %% [markdown]
# ## Run

# %%
for trial in block.trials():
    method, level = trial.method, trial.inside["level"]
    if method == "majority":
        z = torch.bincount(y).double().log().repeat(len(held), 1)
    elif method == "frozen":
        z = labels.fit_logistic(means[0], y, 1.0)(means[1]).log()
    else:
        with torch.no_grad(), taken_out(method, level):
            z = head(body(*new))
    line = {
        "accuracy": (z.argmax(1) == test_y).double().mean().item(),
        "loss": F.cross_entropy(z, test_y).item(),
    }
    line |= {"predictions": z.argmax(1).tolist(), "targets": test_y.tolist()}
    plain = method not in ("majority", "frozen")
    line |= (
        {"first_loss": sum(found[:5]) / 5, "train_loss": sum(found[-5:]) / 5} if plain and not level else {}
    )
    block.line(trial, cost if method == "magnitude" and not level else None, **line)

# %% [markdown]
# ## What this block found

# %%
block.close("accuracy", "loss")
