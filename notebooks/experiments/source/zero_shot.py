# ---
# jupyter:
#   instructlab:
#     id: zero_shot
#     title: Three ways to score an option, ten tasks, no demonstrations
#     outcome: one block of the grid behind claim SF1
#     assets: [smollm2, bigbench]
#     minutes: {smoke: 0.6, laptop: 2, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `zero_shot`: one block
#
# SmolLM2-135M-Instruct (de-quantised from a 4-bit checkpoint, already tuned on instructions) answers questions with options:
# it scores every option as a continuation of the question, and the highest score is the answer. Three scores share the same
# forward passes. A block is one seed: one of five disjoint samples of each task. The grid stands in
# `data/experiments/zero_shot.toml`, the claim in `data/claims/SF1.toml`; lesson 12 explains the methods.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # there is no tuning: data/experiments/zero_shot.toml says why
seed: int = 0  # which of the disjoint samples

# %%
from functools import cache

import torch

from instructlab_repro import block as blocks
from instructlab_utils import scoring, tasks

block = blocks.open_block("zero_shot", profile, stage, seed=seed)
settings, (net, tokenizer) = block.settings, blocks.decoder(block)
if stage == "twin":
    blocks.nudge(net)

# %% [markdown]
# ## Data
#
# A format per task, and its *premise*: what the format says without the question. PMI asks how probable an option is after
# the premise alone.

# %%
FORMATS = {
    "general-knowledge": ("Question: {}\nAnswer:", "Answer:"),
    "phrase-relatedness": ("Phrase: {}\nA related phrase:", "A related phrase:"),
    "social-iqa": ("{}\nAnswer:", "Answer:"),
    "goal-inference": ("{}", "The most reasonable goal is"),
    "odd-one-out": ("{}\nThe odd word out:", "The odd word out:"),
    "similarities": ("{}\nAnswer:", "Answer:"),
    "code-lines": ("Python code:\n{}\nEnglish language description:", "English language description:"),
    "unit-identification": ("{}", "The result is"),
    "sports": ("Statement: {}\nPlausible or implausible?", "Plausible or implausible?"),
    "implicatures": ("{}\nDoes Speaker 2 mean yes or no?", "Does Speaker 2 mean yes or no?"),
}


def sample(task):
    """This seed's rows: all short ones of the three splits, shuffled once, then cut into disjoint samples."""
    rows = [row for split in tasks.load(task).splits.values() for row in split]
    short = [row for row in rows if len(tokenizer(row["input"])["input_ids"]) <= settings.max_tokens]
    order = torch.randperm(len(short), generator=torch.Generator().manual_seed(0)).tolist()
    n = min(settings.test, len(short) // settings.samples)
    return [short[i] for i in order[seed * n : (seed + 1) * n]]


# %% [markdown]
# ## Scores


# %%
def scored(task):
    """The options' scores after the question and after the premise, the right options, and the cost."""
    rows, (form, premise) = sample(task), FORMATS[task]
    options = [[" " + option for option in row["options"]] for row in rows]
    contexts = [form.format(row["input"].strip()) for row in rows]
    each = {tuple(own): own for own in options}  # some tasks have the same options for every question
    with block.run.measure() as cost:
        behind = scoring.option_log_probs(net, tokenizer, contexts, options)
        alone = scoring.option_log_probs(net, tokenizer, [premise] * len(each), list(each.values()))
    alone = dict(zip(each, alone, strict=True))
    return behind, [alone[tuple(own)] for own in options], [row["answer"] for row in rows], cost


# %% [markdown]
# ## Run
#
# `chosen_tokens` shows what the sum prefers: it falls with every token. For `chance` it is the mean over all options.
# `log_right` is the log-probability of the right option among the options, if the scores were logits.


# %%
def values(rule, behind, alone):
    """What the rule compares, one number an option."""
    divisor = behind.tokens if rule == "mean" else 1
    return behind.log_probs / divisor - (alone.log_probs if rule == "pmi" else 0)


once = cache(scored)
for trial in block.trials():
    method, (behind, alone, answers, cost) = trial.method, once(trial.inside["task"])
    if method == "chance":
        scores = [1 / len(s.tokens) for s in behind]
        tokens = [float(sum(s.tokens)) / len(s.tokens) for s in behind]
        log_right = [-float(torch.tensor(len(s.tokens)).log()) for s in behind]
    else:
        pairs = list(zip(behind, alone, strict=True))
        found = [scoring.choose(s, method, base=b if method == "pmi" else None) for s, b in pairs]
        each = (values(method, *pair).log_softmax(0) for pair in pairs)
        log_right = [float(v[answer]) for v, answer in zip(each, answers, strict=True)]
        scores = [float(c == answer) for c, answer in zip(found, answers, strict=True)]
        tokens = [int(s.tokens[c]) for s, c in zip(behind, found, strict=True)]
    right = [int(s.tokens[answer]) for s, answer in zip(behind, answers, strict=True)]
    block.line(
        trial,
        None if method == "chance" else cost,
        accuracy=sum(scores) / len(scores),
        log_right=sum(log_right) / len(log_right),
        chosen_tokens=sum(tokens) / len(tokens),
        right_tokens=sum(right) / len(right),
        test=len(scores),
        scores=scores,
    )

# %% [markdown]
# ## What this block found

# %%
block.close("accuracy", "chosen_tokens")
