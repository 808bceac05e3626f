# ---
# jupyter:
#   instructlab:
#     id: game
#     title: One detector for each text, chosen, mixed or pooled
#     outcome: one block of the grid behind claims GT1 and GT2
#     assets: [minilm, vader]
#     minutes: {smoke: 0.5, laptop: 0.3, gpu: 0.3}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `game`: one block
#
# Six detectors, each trained on one family of attacks. There is time for one of them a text. An attacker chooses the
# family, a defender the detector, or a lottery over detectors. Both plan on some wordings of the attacks; others tell what
# came of it. A block is one seed. The grid stands in `data/experiments/game.toml`, the claims in `data/claims/`; lesson 22
# explains the methods.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # run or twin: there is no tuning, all detectors have one setting
seed: int = 0  # which wordings train, plan and measure

# %%
import random
from functools import cache

import numpy as np
import torch
from sklearn.feature_extraction.text import CountVectorizer

from instructlab_repro.block import ROUNDING, open_block
from instructlab_utils import features, games, injections, labels, tasks

block = open_block("game", profile, stage, seed=seed)
settings, rng = block.settings, random.Random(seed)
bank = injections.load()
families = list(bank.families)

# %% [markdown]
# ## Texts
#
# The texts are the same for all seeds, and their states are kept on disk. A seed draws the parts several times, and averages.

# %%
rows = tasks.subsample(tasks.load("movie-sentiment").splits["train"], 4000, 7)
sentences = [row["text"] for row in rows if len(row["text"].split()) <= 22]
planted = injections.planted(bank, sentences, settings.copies)
clean = sentences[len(planted) : len(planted) + settings.clean]
texts = [text for _, _, text in planted] + clean


def split():
    """(family or "clean", part) → places of texts; the parts are train, plan and measure."""
    found = {}
    for family in families:
        order = rng.sample(range(len(bank.attacks[family])), len(bank.attacks[family]))
        ends = 0, settings.train, settings.train + settings.plan, len(order)
        for part, a, b in zip(("train", "plan", "measure"), ends, ends[1:], strict=False):
            found[family, part] = [
                n for n, (f, i, _) in enumerate(planted) if f == family and i in order[a:b]
            ]
    order = [len(planted) + i for i in rng.sample(range(len(clean)), len(clean))]
    for part, (a, b) in {"train": (0, 0.25), "plan": (0.25, 0.625), "measure": (0.625, 1)}.items():
        found["clean", part] = order[int(a * len(order)) : int(b * len(order))]
    return found


draws = [split() for _ in range(settings.draws)]


@cache
def vectors(kind, draw):
    """(N, d) of all texts; of words, only pairs that occur in the draw's texts for training can count."""
    if kind == "states":
        return features.mean_states(texts, 64) * (1 + ROUNDING * (stage == "twin"))
    known = [texts[n] for (_, part), places in draws[draw].items() if part == "train" for n in places]
    table = CountVectorizer(ngram_range=(2, 2), binary=True).fit(known)
    return torch.from_numpy(table.transform(texts).toarray()).float() * (1 + ROUNDING * (stage == "twin"))


# %% [markdown]
# ## Detectors and payoffs


# %%
def detector(kind, draw, positive):
    """For each part: the share of each family that passes, (6,), and the share of clean sentences that are stopped."""
    x, parts = vectors(kind, draw), draws[draw]
    learn = positive + parts["clean", "train"]
    y = torch.tensor([1] * len(positive) + [0] * len(parts["clean", "train"]))
    predict = labels.fit_logistic(x[learn], y, 1.0, balanced=True)
    least = injections.threshold_at(predict(x[parts["clean", "plan"]])[:, 1], settings.stopped)

    def passes(places):
        return (predict(x[places])[:, 1] <= least).double().mean().item()

    found = {part: [passes(parts[f, part]) for f in families] for part in ("plan", "measure")}
    return found, 1 - passes(parts["clean", "measure"])


@cache
def team(kind, draw, method):
    """M while planning and while measuring, (families, detectors), and what each detector stops of the clean ones."""
    each = [draws[draw][f, "train"] for f in families]
    if method == "pooled":
        each = [[n for part in each for n in part[:: len(families)]]]
    elif method == "all":
        each = [[n for part in each for n in part]]
    found = [detector(kind, draw, part) for part in each]
    plan, measure = (np.array([one[part] for one, _ in found]).T for part in ("plan", "measure"))
    return plan, measure, np.array([stops for _, stops in found])


# %% [markdown]
# ## Run


# %%
def strategies(method, M, draw):
    """The mixed strategies of attacker and defender that are planned on M."""
    if method in ("mixed", "played"):
        found = games.fictitious_play(M, settings.rounds) if method == "played" else games.solve(M)
        return found.attack, found.defence
    q = np.full(M.shape[1], 1 / M.shape[1])
    if method == "shuffled":
        q = games.solve(np.random.default_rng([seed, draw]).permutation(M.ravel()).reshape(M.shape)).defence
    elif method == "pure":
        q = np.eye(M.shape[1])[games.best_pure(M)]
    return np.eye(M.shape[0])[int((M @ q).argmax())], q


for trial in block.trials():
    kind, method, found = trial.inside["kind"], trial.method, []
    with block.run.measure() as cost:
        for draw in range(settings.draws):
            plan, measure, stops = team(kind, draw, method if method in ("pooled", "all") else "team")
            p, q = strategies(method, plan, draw)
            found.append(
                [p @ measure @ q, p @ plan @ q, stops @ q, (measure @ q).max(), float((q > 0.01).sum())]
            )
    line = dict(zip(("passed", "planned", "stops", "worst", "used"), np.mean(found, 0).tolist(), strict=True))
    if method == "mixed":
        line |= {"attack": p.tolist(), "defence": q.tolist(), "payoffs": plan.tolist()}
    block.line(trial, cost, **line)

# %% [markdown]
# ## What this block found

# %%
block.close("passed", "planned", "stops")
