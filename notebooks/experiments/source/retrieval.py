# ---
# jupyter:
#   instructlab:
#     id: retrieval
#     title: Words, vectors, and both, in search of the passage that answers
#     outcome: one block of the grid behind claim RB1
#     assets: [minilm, bigbench]
#     minutes: {smoke: 0.5, laptop: 0.5, gpu: 0.3}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `retrieval`: one block
#
# A question of SQuAD's development set, and all passages of 25 of its 48 articles: where does the passage stand in which the
# answer begins? By words (BM25), by vectors (the mean states of MiniLM, compared by cosine), and by both lists fused.
# Nothing is trained. A block is one seed, and a seed is two articles of its own. The grid stands in
# `data/experiments/retrieval.toml`, the claim in `data/claims/RB1.toml`; lesson 24 explains the methods.
#
# Two stages. `tune` tries BM25's two numbers and the fusion's one, with questions about dev articles. `run` takes the best.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # which articles

# %%
from functools import cache

import torch

from instructlab_repro.block import ROUNDING, open_block
from instructlab_utils import features, retrieval, tasks

block = open_block("retrieval", profile, stage, seed=seed)
settings, seeds = block.settings, [int(each) for each in block.spec.axes["seed"]]

# %% [markdown]
# ## Passages and questions
#
# Two articles for each seed, in the order of their names' hashes; the five dev articles are for the tuning. Passages of all
# these articles are searched, in the smoke profile only the seed's own.

# %%
splits = tasks.load("squad").splits
rows = [row for part in splits.values() for row in part]
articles = {part: sorted(set(splits[part]["group"]), key=tasks.content_id) for part in splits}
others = sorted(articles["train"] + articles["test"], key=tasks.content_id)
place, dealt = (seed - 100, articles["dev"]) if block.tuning else (seeds.index(seed), others)
mine = dealt[place::3] if block.tuning else dealt[place : settings.articles * len(seeds) : len(seeds)]
asked = [row for row in rows if row["group"] in mine]
asked = sorted(asked, key=lambda row: tasks.content_id(row["id"]))[: settings.test]
searched = set(mine) if settings.only_own else {*others[: settings.articles * len(seeds)], *articles["dev"]}
corpus = retrieval.corpus(row for row in rows if row["group"] in searched)
texts, questions = corpus.texts, [row["question"] for row in asked]
right = torch.tensor([corpus.place(row) for row in asked])
print(f"{len(questions)} questions about {mine}, {len(texts)} passages")

# %% [markdown]
# ## Scores

# %%
known = {trial.method: trial.tuned for trial in block.spec.trials(block.block)} if not block.tuning else {}
vectors = features.mean_states(texts, settings.tokens) * (1 + ROUNDING * (stage == "twin"))
dense = retrieval.cosines(features.mean_states(questions, settings.tokens), vectors)


@cache
def by_words(k1=1.5, b=0.75):
    store = retrieval.BM25(texts, k1, b)
    return torch.stack([store.scores(question) for question in questions])


def scores(method, tuned):
    """One score for each question and passage."""
    if method == "dense":
        return dense
    if method == "bm25":
        return by_words(**tuned)
    words = by_words(**known.get("bm25", {}))
    return retrieval.fused([words, dense], **(tuned or known["hybrid"]))


# %% [markdown]
# ## Run
#
# `permuted` is the fusion's list for another question. `chance` is what an order drawn blindly gives, in the mean.

# %%
for trial in block.trials():
    with block.run.measure() as cost:
        if trial.method == "chance":
            line = {f"recall{k}": min(1.0, k / len(texts)) for k in (1, 5, 20)}
        else:
            found = scores(trial.method, trial.tuned)
            shift = len(questions) // 2 if trial.method == "permuted" else 0
            places = retrieval.place_of(found.roll(shift, 0), right)
            line = retrieval.measures(places) | {"scores": (places <= 5).double().tolist()}
    if block.tuning:
        line = {"dev_loss": line["log_place"], "dev_recall5": line["recall5"]}
    block.line(trial, cost, **{table.metric: None for table in block.spec.tables} | line)

# %% [markdown]
# ## What this block found

# %%
block.close("recall1", "recall5", "mrr", "dev_loss")
