# ---
# jupyter:
#   instructlab:
#     id: in_context
#     title: Demonstrations in the prompt, with and without calibration
#     outcome: one block of the grid behind claims C4, G1, G2, Z1 and Z5
#     assets: [smollm2, vader, bbc, bigbench]
#     minutes: {smoke: 0.8, laptop: 3, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `in_context`: one block
#
# SmolLM2-135M-Instruct (de-quantised from a 4-bit checkpoint, already tuned on instructions) chooses among label words. Its
# prompt holds zero to eight solved examples of the task. No weight changes. A block is one seed: demonstrations and test
# sample of all four tasks. The grid stands in `data/experiments/in_context.toml`, the claims that it serves in
# `data/claims/`; lesson 12 explains the methods.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # there is no tuning: data/experiments/in_context.toml says why
seed: int = 0  # demonstrations, their order, random labels, test sample

# %%
import itertools
from functools import cache

import torch

from instructlab_repro.block import decoder, open_block
from instructlab_utils import scoring, tasks

block = open_block("in_context", profile, stage, seed=seed)
settings, (net, tokenizer) = block.settings, decoder(block)

# %% [markdown]
# ## Data
#
# A format per task, and the text that stands in it where there is nothing to say. Demonstrations come from the train split
# and are drawn blindly, so that they may be all of one label. The test sample comes from the test split. Long texts are
# not drawn.

# %%
FORMATS = {
    "movie-sentiment": ("Review: {}\nSentiment:", "{0}"),
    "bbc-topics": ("Article: {}\nTopic:", "{0}"),
    "vitaminc": ("Passage: {}\nTrue, False, or Neither?", "{0}\nClaim: {0}"),
    "intent": ("{}\nIntent:", "Utterance: {0}"),
}


def as_pair(task, row, labels):
    """(text, number of the label); a topic is judged by the first words of its article."""
    if "options" in row:
        return row["input"], labels.index(row["options"][row["answer"]])
    words = row["text"].split()[: settings.words]
    return " ".join(words) if task == "bbc-topics" else row["text"], row["label"]


@cache
def drawn(task, split, n):
    """``n`` pairs of the split and the label words, by the seed."""
    corpus = tasks.load(task)
    rows = corpus.splits[split]
    labels = list(corpus.labels) or sorted(rows[0]["options"])
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    pairs = (as_pair(task, rows[i], labels) for i in order)
    short = (pair for pair in pairs if len(tokenizer(pair[0])["input_ids"]) <= settings.max_tokens)
    return list(itertools.islice(short, n)), [" " + label.replace("_", " ") for label in labels]


# %% [markdown]
# ## Scores
#
# The prefix is the solved examples; it goes through the model once. Behind it come the test texts and the content-free
# texts, each with all label words. A score is the sum of the log-probabilities of a label word's tokens.


# %%
def scored(task, k, random_labels=False):
    """Scores (N, K) of the test texts and (3, K) of the content-free ones, the shown labels, and the cost."""
    (shown, words), (test, _) = drawn(task, "train", 8), drawn(task, "test", settings.test)
    shown = shown[:k]
    if random_labels:
        g = torch.Generator().manual_seed(1000 + seed)
        shown = [(text, torch.randint(len(words), (1,), generator=g).item()) for text, _ in shown]
    form, empty = FORMATS[task]
    texts = [*(text for text, _ in test), *map(empty.format, settings.content_free)]
    contexts = ["\n\n" * (k > 0) + form.format(text) for text in texts]
    prefix = "\n\n".join(form.format(text) + words[label] for text, label in shown)
    with block.run.measure() as cost:
        found = scoring.option_log_probs(net, tokenizer, contexts, [words] * len(contexts), prefix=prefix)
    scores = torch.stack([torch.as_tensor(f.log_probs) for f in found])
    return scores[: len(test)], scores[len(test) :], [label for _, label in shown], cost


# %% [markdown]
# ## The methods
#
# The oracle looks for a weight per label that makes the most predictions right, on the test labels themselves: label by
# label, until nothing improves, starting from the better of no weights and the calibrated ones. So it is never below them.


# %%
def oracle(scores, targets, starts):
    """Scores with the log-weight of each label that the search found."""

    def right(bias):
        return ((scores + bias).argmax(1) == targets).sum().item()

    best, before = max(starts, key=right), -1
    while right(best) > before:
        before = right(best)
        for c in range(scores.shape[1]):
            others = scores + best
            others[:, c] = -torch.inf
            cuts = (others.max(1).values - scores[:, c]).sort().values  # here an item turns to label c
            cuts = [cuts[0] - 1, *((cuts[1:] + cuts[:-1]) / 2), cuts[-1] + 1]
            best = max([best, *(best.index_fill(0, torch.tensor(c), cut) for cut in cuts)], key=right)
    return scores + best


# %% [markdown]
# ## Run
#
# Methods that share their scores share the cost of them. `recency`: share of predictions equal to the last demonstration's
# label; `majority_bias`: to a most frequent label of the demonstrations, minus the same share of the true labels.


# %%
once = cache(scored)
for trial in block.trials():
    (task, k), random_labels = trial.inside.values(), trial.method.startswith("random")
    fields = dict.fromkeys(["accuracy", "top_share", "recency", "recency_excess", "majority_bias"])
    cost = None
    if not random_labels or k == settings.random_labels_at:
        scores, free, shown, cost = once(task, k, random_labels)
        targets = torch.tensor([label for _, label in drawn(task, "test", settings.test)[0]])
        if trial.method == "oracle":
            scores = oracle(scores, targets, [torch.zeros_like(scores[0]), -free.softmax(1).mean(0).log()])
        if trial.method.endswith("calibrated"):
            scores = scoring.contextual_calibration(scores, free)
        majority = targets.bincount().argmax().expand(len(targets))
        found = majority if trial.method == "majority" else scores.argmax(1)
        fields["accuracy"] = (found == targets).double().mean().item()
        fields["top_share"] = (found.bincount().max() / len(found)).item()
        fields |= {"predictions": found.tolist(), "targets": targets.tolist()}
        if k:
            last, counts = shown[-1], torch.tensor(shown).bincount(minlength=scores.shape[1])
            top, recency = counts == counts.max(), (found == last).double().mean().item()
            fields["recency"] = recency
            fields["recency_excess"] = recency - (targets == last).double().mean().item()
            fields["majority_bias"] = (top[found].double().mean() - top[targets].double().mean()).item()
    block.line(trial, None if trial.method == "majority" else cost, **fields)

# %% [markdown]
# ## What this block found

# %%
block.close("accuracy", "recency", "majority_bias")
