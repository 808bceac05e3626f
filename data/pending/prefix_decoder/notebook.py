# ---
# jupyter:
#   instructlab:
#     id: prefix_decoder
#     title: A prompt at the input or a prefix at every layer, on the decoder
#     outcome: one block of the grid behind claim P3
#     assets: [smollm2, bigbench]
#     minutes: {smoke: 0.7, laptop: 3, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `prefix_decoder`: one block
#
# Prompt tuning and a prefix of keys and values at every layer, equally long, on SmolLM2: attributes of a restaurant in, a
# sentence out. A block is one seed. The grid stands in `data/experiments/prefix_decoder.toml`, the claim in
# `data/claims/P3.toml`; lesson 10 explains the methods.
#
# Two stages. `tune` tries the learning rates of each method on seeds that the table does not use, and looks at the dev split.
# `run` takes the best one and looks at the test split.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # training pairs, their order, the words that prompt and prefix start from

# %%
import torch

from instructlab_repro.block import completion_scores, fit, open_block
from instructlab_utils import generation, models, tasks, tuners

block = open_block("prefix_decoder", profile, stage, seed=seed)
settings = block.settings

# %% [markdown]
# ## Data
#
# The seed draws the training pairs. The held-out pairs are the same for all seeds, and their attributes never occur in
# training.

# %%
PROMPT = "Describe the restaurant in one sentence.\n{}\nDescription:"
corpus = tasks.load("e2e")
tokenizer = models.load_tokenizer("decoder")


def drawn(split, n, chosen_by):
    pairs = [(PROMPT.format(r["source"]), f" {t}") for r in corpus.splits[split] for t in r["targets"]]
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(chosen_by)).tolist()
    return [generation.encode_completion(*pairs[i], tokenizer) for i in order[:n]]


train_set = drawn("train", settings.steps * settings.batch_size, seed)
split = "dev" if block.tuning else "test"
held_out = drawn(split, getattr(settings, split), 0)
print(f"{len(train_set)} training pairs, {len(held_out)} held-out pairs, {settings.steps} updates")

# %% [markdown]
# ## The methods
#
# Both start from words: the prompt from their embeddings, the prefix from the keys and values that the model computes for
# them. `untuned` is the model without either.

# %%
METHODS = {
    "prompt": tuners.PromptTuning(settings.length, init="vocab"),
    "prefix": tuners.DeepPrompts(settings.length, init="vocab"),
}

# %% [markdown]
# ## Run
#
# `nll` is the negative log-likelihood per completion token, end token included; while tuning it is the dev loss. Each
# completion's share of it is stored too, so that the interval speaks of completions as well as of seeds.

# %%
for trial in block.trials():
    net, line, cost = models.load_decoder(device=block.run.device).float(), {"updates": 0}, None
    if trial.method == "untuned":
        line["trainable_parameters"] = 0
    else:
        net = tuners.inject(net, METHODS[trial.method], seed=seed).to(block.run.device)
        net, line, cost = fit(
            block, net, train_set, tokenizer.pad_token_id, objective=generation.causal_losses, **trial.tuned
        )
    found = completion_scores(net.eval(), held_out, tokenizer.pad_token_id) if net else {"nll": None}
    block.line(trial, cost, **line, **({"dev_loss": found["nll"]} if block.tuning else found))

# %% [markdown]
# ## What this block found

# %%
block.close("dev_loss", "nll", "train_loss")
