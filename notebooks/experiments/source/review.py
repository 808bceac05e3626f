# ---
# jupyter:
#   instructlab:
#     id: review
#     title: A day of a review queue, in five orders
#     outcome: one block of the grid behind claims RQ1 and RQ2
#     assets: [minilm, vader]
#     minutes: {smoke: 0.5, laptop: 0.3, gpu: 0.3}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `review`: one block
#
# A filter sends texts to people, and there are too few people. A day is simulated in five orders of work and three
# capacities, with the scores that a real filter gives to attacks of families that it never saw. A block is one seed. The
# grid stands in `data/experiments/review.toml`, the claims in `data/claims/`; lesson 22 explains the queue.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # run or twin: there is no tuning
seed: int = 0  # arrivals, and the families that the filter knows

# %%
import random

import torch

from instructlab_repro.block import ROUNDING, open_block
from instructlab_utils import features, injections, labels, review, tasks

block = open_block("review", profile, stage, seed=seed)
settings, rng = block.settings, random.Random(seed)
bank = injections.load()

# %% [markdown]
# ## The filter
#
# It learns three families and a quarter of the clean sentences. The queue gets the other families and the other sentences.

# %%
rows = tasks.subsample(tasks.load("movie-sentiment").splits["train"], 4000, 7)
sentences = [row["text"] for row in rows if len(row["text"].split()) <= 22]
planted = injections.planted(bank, sentences, settings.copies)
clean = sentences[len(planted) : len(planted) + settings.clean]
x = features.mean_states([text for _, _, text in planted] + clean, 64) * (1 + ROUNDING * (stage == "twin"))
seen = rng.sample(list(bank.families), len(bank.families) // 2)
known = [n for n, (family, _, _) in enumerate(planted) if family in seen]
others = [n for n, (family, _, _) in enumerate(planted) if family not in seen]
order = [len(planted) + i for i in rng.sample(range(len(clean)), len(clean))]
learn, rest = order[: len(order) // 4], order[len(order) // 4 :]
y = torch.tensor([1] * len(known) + [0] * len(learn))
predict = labels.fit_logistic(x[known + learn], y, 1.0, balanced=True)

# %% [markdown]
# ## The texts of a day
#
# As many harmful ones that one of twenty draws is one.

# %%
bad = max(1, round(len(rest) * settings.harmful / (1 - settings.harmful)))
chosen = rng.sample(others, min(bad, len(others))) + rest
harmful = [n < len(planted) for n in chosen]
scores = predict(x[chosen])[:, 1]
above = (scores[torch.tensor(harmful)][:, None] > scores[~torch.tensor(harmful)]).double().mean().item()
mixed = rng.sample(scores.tolist(), len(scores))
print(f"seen: {', '.join(seen)}; a harmful text scores above a harmless one in {above:.3f} of pairs")

# %% [markdown]
# ## Run

# %%
WORK = {
    "fifo": ("fifo", scores.tolist()),
    "lifo": ("lifo", scores.tolist()),
    "shuffled": ("priority", mixed),
    "priority": ("priority", scores.tolist()),
    "oracle": ("priority", [float(bad) for bad in harmful]),
}
for trial in block.trials():
    way, values = WORK[trial.method]
    how = {name: getattr(settings, name) for name in ("arrivals", "minutes", "deadline")}
    how |= {"reviews": settings.reviews[trial.inside["load"]], "order": way, "seed": seed}
    with block.run.measure() as cost:
        day = review.simulate(values, harmful, **how)
    line = {"missed": day.missed, "wait": day.wait, "left": float(day.left), "items": day.items}
    block.line(trial, cost, **line, harmful=day.harmful, above=above)

# %% [markdown]
# ## What this block found

# %%
block.close("missed", "wait", "left")
