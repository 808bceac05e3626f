# ---
# jupyter:
#   instructlab:
#     id: completion_loss
#     title: Loss on the completion only, or on all tokens
#     outcome: one block of the grid behind claim L1
#     assets: [smollm2, bigbench]
#     minutes: {smoke: 0.6, laptop: 7, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `completion_loss`: one block
#
# SmolLM2 learns to describe a restaurant from its attributes. One method counts the loss of the description's tokens only,
# the other that of all tokens, prompt included. Both see the same pairs, in the same order, for the same number of updates.
# A block is one seed. The grid stands in `data/experiments/completion_loss.toml`, the claim in `data/claims/L1.toml`;
# lesson 06 explains the methods.
#
# Two stages. `tune` tries three learning rates per method, on three seeds that the table does not use, and looks at the dev
# split. `run` takes the best and looks at the test split.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # training pairs and their order

# %%
import torch

from instructlab_repro.block import completion_scores, fit, open_block
from instructlab_utils import generation, metrics, models, tasks

block = open_block("completion_loss", profile, stage, seed=seed)
settings = block.settings

# %% [markdown]
# ## Data
#
# A training pair is one list of attributes and one of its descriptions. The attributes of a held-out pair never occur in
# training: the splits are made by them. A held-out input comes once, with all its descriptions as references.

# %%
PROMPT = "Describe the restaurant in one sentence.\n{}\nDescription:"
corpus = tasks.load("e2e")


def drawn(split, n, chosen_by):
    """n (prompt, completion) pairs, and all the split's pairs in its order."""
    pairs = [(PROMPT.format(r["source"]), f" {t}") for r in corpus.splits[split] for t in r["targets"]]
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(chosen_by)).tolist()
    return [pairs[i] for i in order[:n]], pairs


train_pairs, _ = drawn("train", settings.steps * settings.batch_size, seed)
held_out = "dev" if block.tuning else "test"
test_pairs, every = drawn(held_out, getattr(settings, held_out), 0)
references = {}
for prompt, completion in every:
    references.setdefault(prompt, []).append(completion.strip())
references = dict(list(references.items())[: settings.inputs])
print(f"{len(train_pairs)} training pairs, {len(test_pairs)} of {held_out}, {len(references)} inputs")

# %% [markdown]
# ## The methods
#
# All start from the same checkpoint. The word embeddings are frozen: they hold a fifth of the weights, few of them are met
# in so few updates, and a step is cheaper without them. The loop is that of lesson 03, with the objective of lesson 06.

# %%
tokenizer = models.load_tokenizer("decoder")
pad_id = tokenizer.pad_token_id
test_set = [generation.encode_completion(*pair, tokenizer) for pair in test_pairs]
net = models.load_decoder(device=block.run.device).float()
net.get_input_embeddings().weight.requires_grad_(False)


def trained(method, learning_rate):
    pairs = [generation.encode_completion(*p, tokenizer, method == "completion_only") for p in train_pairs]
    knobs = {"learning_rate": learning_rate, "objective": generation.causal_losses}
    return fit(block, net, pairs, pad_id, **knobs)[1:]


def texts():
    prompts = [tokenizer(prompt)["input_ids"] for prompt in references]
    found = generation.greedy(net, prompts, settings.max_new_tokens, tokenizer.eos_token_id)
    return [tokenizer.decode(ids).strip() for ids in found]


# %% [markdown]
# ## Run
#
# `nll` is the negative log-likelihood per completion token, end token included: the sum over all held-out completions,
# divided by their number of tokens. Each completion's share of it is stored too, so that the bootstrap can draw completions.

# %%
for trial in block.trials():
    net.load_state_dict(models.load_decoder().state_dict())  # in place: a second model would not fit
    line, cost = trained(trial.method, **trial.tuned)
    found = completion_scores(net.eval(), test_set, pad_id)
    if block.tuning:
        line["dev_loss"] = None if line["diverged"] else found["nll"]
    else:
        written, wanted = texts(), list(references.values())
        line |= {name: getattr(metrics, name)(written, wanted) for name in ("chrf", "bleu", "rouge_l")}
        line |= found | {"words": sum(len(text.split()) for text in written) / len(written)}
        print(f"e.g. {written[0]}")
    block.line(trial, cost, **line)

# %% [markdown]
# ## What this block found

# %%
block.close("dev_loss", "nll", "chrf", "bleu")
