# ---
# jupyter:
#   instructlab:
#     id: recommending
#     title: Films recommended by likes, by titles, and by both
#     outcome: one block of the grid behind claims C24, RE1, RE2 and RE3
#     assets: [minilm, bigbench]
#     minutes: {smoke: 0.5, laptop: 1, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `recommending`: one block
#
# Five films that were liked together; one is hidden, the others are the history. Which film comes next: by popularity, by
# likes together, by titles, by all of it? A block is one seed: one fold of test rows, and a fifth of the titles without
# likes. The grid stands in `data/experiments/recommending.toml`, the claims in `data/claims/`; lesson 26 explains the
# methods.
#
# Two stages. `tune` tries each method's value on tuning rows that no test holds. `run` takes the best.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # which fold, and which titles are cold

# %%
from collections import defaultdict
from functools import cache

import torch

from instructlab_repro.block import ROUNDING, open_block
from instructlab_utils import features, recommending, tasks
from instructlab_utils.tasks import content_id

block = open_block("recommending", profile, stage, seed=seed)
settings = block.settings
data = recommending.likes(row for part in tasks.load("movies").splits.values() for row in part)

# %% [markdown]
# ## Rows and titles
#
# Equal rows stay together. Groups of them go by their content's hash: first to the tuning rows, then to the smallest fold.

# %%
groups = defaultdict(list)
for row, table in enumerate(data.table.bool().tolist()):
    groups[" | ".join(title for title, own in zip(data.titles, table, strict=True) if own)].append(row)
ordered = [groups[name] for name in sorted(groups, key=content_id)]
tuning = [[] for _ in range(3)]
while sum(map(len, tuning)) < settings.dev:
    min(tuning, key=len).extend(ordered.pop(0))
folds = [[] for _ in range(20)]
for group in ordered:
    min(folds, key=len).extend(group)
parts, place = (tuning, seed - 100) if block.tuning else (folds, seed)
asked = parts[place]
others = [row for part in [*tuning, *([] if block.tuning else folds)] if part is not asked for row in part]
others = others[: settings.rows]
train = torch.zeros(len(data.table), dtype=torch.bool)
train[others] = True

# %%
order = sorted(
    range(len(data.titles)), key=lambda i: content_id(f"{seed // settings.parts}:{data.titles[i]}")
)
cold = torch.zeros(len(order), dtype=torch.bool)
cold[order[seed % settings.parts :: settings.parts]] = True
minilm = features.mean_states(data.titles) * (1 + ROUNDING * (stage == "twin"))
blind = torch.randperm(len(cold), generator=torch.Generator().manual_seed(seed))
vectors = {"both_words": recommending.word_vectors(data.titles), "both_permuted": minilm[blind]}
print(f"{len(asked)} rows asked, {len(others)} training rows, {cold.sum()} cold titles of {len(cold)}")

# %% [markdown]
# ## Features, ranker, towers
#
# Neighbours and factors take the values that their own tuning chose; while tuning, the shrinkage is 1 and the rank is 8.

# %%
known = {trial.method: trial.tuned for trial in block.spec.trials(block.block)} if not block.tuning else {}
used = {"shrink": 1.0, "rank": 8.0} | known.get("neighbours", {}) | known.get("factors", {})
columns = {"popularity": [0], "neighbours": [1], "factors": [2], "titles": [3], "both": [0, 1, 2, 3, 4]}
columns |= {"behaviour": [0, 1, 2], "behaviour_copies": [0, 1, 2]} | dict.fromkeys(vectors, columns["both"])


@cache
def questions(kind, about, shrink=used["shrink"], rank=used["rank"]):
    """Questions of the training rows (about "fit"), or of the rows asked."""
    rows, copies = (others if about == "fit" else asked), kind == "behaviour_copies"
    how = {
        "about": "warm" if about == "fit" else about,
        "shrink": shrink,
        "rank": int(rank),
        "copies": copies,
    }
    return recommending.questions(data, rows, train, cold, vectors.get(kind, minilm), **how)


def scorer(method, tuned):
    """From questions to scores (Q, I)."""
    if method == "chance":
        return lambda found: torch.zeros_like(found.features[..., 0])
    if method == "towers":
        copied = data.copies()[asked].any(0)
        return recommending.towers(
            questions("", "fit"), data, minilm, cold, copied, seed, settings.steps, **tuned
        )
    own = {name: value for name, value in tuned.items() if name != "decay"}
    kind = method if method in vectors or method == "behaviour_copies" else ""
    fit, picked = questions(kind, "fit", **own), columns[method]
    ranker = recommending.fit_ranker(
        fit.features[..., picked], fit.allowed, fit.right, tuned.get("decay", 0.01)
    )
    return lambda found: ranker.scores(found.features[..., picked])


# %% [markdown]
# ## Run

# %%
for trial in block.trials():
    with block.run.measure() as cost:
        score, line = scorer(trial.method, trial.tuned), {}
        own = {name: value for name, value in trial.tuned.items() if name in used}
        kind = trial.method if trial.method in vectors or trial.method == "behaviour_copies" else ""
        for about in ("warm",) if block.tuning else ("warm", "cold", "all"):
            found = questions(kind, about, **own)
            told = score(found), found.allowed, found.right
            line[f"ndcg_{about}"] = recommending.expected_gain(*told).mean().item()
            line[f"loss_{about}"] = recommending.choice_losses(*told).mean().item()
    if block.tuning:
        line = {"dev_loss": line["loss_warm"], "dev_ndcg": line["ndcg_warm"]}
    block.line(trial, cost, **{table.metric: None for table in block.spec.tables} | line)

# %% [markdown]
# ## What this block found

# %%
block.close("ndcg_warm", "ndcg_cold", "ndcg_all", "dev_loss")
