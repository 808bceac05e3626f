# ---
# jupyter:
#   instructlab:
#     id: eight_bits
#     title: Eight ways to compute a decoder in int8
#     outcome: one block of the grid behind claim QZ1
#     assets: [smollm2, bbc]
#     minutes: {smoke: 0.6, laptop: 3, gpu: 0.5}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `eight_bits`: one block
#
# How much does a decoder of 135 million weights lose when its linear layers compute with whole numbers of eight bits? Eight
# schemes, those of table 1 of LLM.int8(), on the beginnings of news articles. Nothing is trained. A block is one seed, and a
# seed is ten articles of its own. The grid stands in `data/experiments/eight_bits.toml`, the claim in
# `data/claims/QZ1.toml`; lesson 25 explains the methods.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # run or twin
seed: int = 0  # which articles

# %%
import math

import torch

from instructlab_repro.block import ROUNDING, decoder, open_block
from instructlab_utils import generation, quantisation, tasks

block = open_block("eight_bits", profile, stage, seed=seed)
settings, seeds = block.settings, [int(each) for each in block.spec.axes["seed"]]

# %% [markdown]
# ## Articles
#
# In the order of the content's hash; each seed takes the next ones. A rounding twin moves the embeddings a little.

# %%
net, tokenizer = decoder(block)
if stage == "twin":
    with torch.no_grad():
        net.model.embed_tokens.weight.mul_(1 + ROUNDING)
splits = tasks.load("bbc-topics").splits
rows = sorted((row["id"], row["text"]) for part in ("train", "test") for row in splits[part])
mine = rows[seeds.index(seed) :: len(seeds)][: settings.texts]
ids = [tokenizer(text)["input_ids"][: settings.tokens] for _, text in mine]
print(f"{len(ids)} articles, {sum(map(len, ids))} tokens")


@torch.no_grad()
def loss_of(one):
    """Mean loss a token of one article, all tokens but the first, in nats."""
    row = torch.tensor([one], device=net.device)
    labels = torch.where(torch.arange(len(one), device=net.device) > 0, row, -100)
    batch = {"input_ids": row, "attention_mask": torch.ones_like(row), "labels": labels}
    return generation.causal_losses(net, batch).double().mean().item()


# %% [markdown]
# ## Run

# %%
for trial in block.trials():
    shares = []
    with (
        block.run.measure() as cost,
        quantisation.eight_bit(net, quantisation.SCHEMES.get(trial.method)) as layers,
    ):
        scores = []
        for one in ids:
            scores.append(loss_of(one))
            shares += [layer.outlier_share for layer in layers]
    nll = sum(scores) / len(scores)
    line = {"nll": nll, "perplexity": math.exp(nll), "scores": scores}
    block.line(trial, cost, **line, outlier_share=sum(shares) / max(1, len(shares)))

# %% [markdown]
# ## What this block found

# %%
block.close("nll", "perplexity", "outlier_share")
