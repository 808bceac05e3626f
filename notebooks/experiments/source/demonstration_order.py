# ---
# jupyter:
#   instructlab:
#     id: demonstration_order
#     title: Eight orders of the same four demonstrations
#     outcome: one block of the grid behind claims Z2, Z3 and Z4
#     assets: [smollm2, vader, bbc]
#     minutes: {smoke: 0.6, laptop: 2, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `demonstration_order`: one block
#
# SmolLM2-135M-Instruct (de-quantised from a 4-bit checkpoint, already tuned on instructions) sees four solved examples of a
# task, then a text to judge. The same four examples come in several orders; everything else stays. A block is one seed: its
# own demonstrations and its own test texts. The grid stands in `data/experiments/demonstration_order.toml`, the claims in
# `data/claims/`; lesson 12 explains the methods.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # there is no tuning: data/experiments/demonstration_order.toml says why
seed: int = 0  # demonstrations, their orders, test texts

# %%
import itertools
from functools import cache

import torch

from instructlab_repro import block as blocks
from instructlab_utils import scoring, tasks

block = blocks.open_block("demonstration_order", profile, stage, seed=seed)
settings, (net, tokenizer) = block.settings, blocks.decoder(block)
if stage == "twin":
    blocks.nudge(net)

# %% [markdown]
# ## Data
#
# The demonstrations come from the train split and are balanced: of each label as many, or, where there are more labels than
# demonstrations, at most one. The orders are drawn from the 24. All orders are tested on the same texts, this seed's own: the
# first of the test and dev splits in one fixed order, sorted by label and dealt out in twenty shares, one by one.

# %%
FORMATS = {"movie-sentiment": "Review: {}\nSentiment:", "bbc-topics": "Article: {}\nTopic:"}


def short(task, seed, *splits):
    """All short (text, label) pairs of the splits, split by split in the order that ``seed`` draws."""
    corpus, cut = tasks.load(task), settings.words if task == "bbc-topics" else None
    for split in splits:
        rows = corpus.splits[split]
        for i in torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist():
            text = " ".join(rows[i]["text"].split()[:cut])
            if len(tokenizer(text)["input_ids"]) <= settings.max_tokens[task]:
                yield text, rows[i]["label"]


def tested(task):
    """This seed's own test texts, with the labels in the same shares for every seed."""
    every = list(dict.fromkeys(short(task, 0, "test", "dev")))  # no text twice
    return sorted(every[: settings.test * settings.shares], key=lambda pair: pair[1])[seed :: settings.shares]


def balanced(task, n):
    """``n`` pairs of the train split, the first of each label that the seed draws."""
    quota, found = max(1, n // len(tasks.load(task).labels)), []
    for text, label in short(task, seed, "train"):
        if [shown for _, shown in found].count(label) < quota:
            found.append((text, label))
        if len(found) == n:
            return found


def orders(n):
    """All orders of n demonstrations, in an order that the seed draws."""
    every = list(itertools.permutations(range(n)))
    g = torch.Generator().manual_seed(seed)
    return [every[i] for i in torch.randperm(len(every), generator=g).tolist()]


# %% [markdown]
# ## Scores
#
# As in `in_context`: the prefix goes through the model once, after it come the test texts and the content-free texts.


# %%
@cache
def scored(task):
    """By order (J): scores (J, N, K) of the test texts, (J, 3, K) of the content-free ones, shown labels, targets, cost."""
    words, pairs = [" " + label for label in tasks.load(task).labels], balanced(task, settings.demonstrations)
    test, form, found, labels = tested(task), FORMATS[task], [], []
    contexts = ["\n\n" + form.format(text) for text in [*(text for text, _ in test), *settings.content_free]]
    with block.run.measure() as cost:
        for order in orders(len(pairs))[: settings.orders]:
            prefix = "\n\n".join(form.format(pairs[i][0]) + words[pairs[i][1]] for i in order)
            each = scoring.option_log_probs(net, tokenizer, contexts, [words] * len(contexts), prefix=prefix)
            found.append(torch.stack([torch.as_tensor(f.log_probs) for f in each]))
            labels.append([pairs[i][1] for i in order])
    scores, n = torch.stack(found), len(test)
    return scores[:, :n], scores[:, n:], torch.tensor(labels), torch.tensor([y for _, y in test]), cost


# %% [markdown]
# ## How much does the order move?
#
# The best minus the worst of several accuracies is never negative, by luck alone. `beyond_luck` has none of it: the best and
# the worst order are chosen on four fifths of the texts, and compared on the last fifth, five times. Orders that tie share
# the place. `luck` is the plain spread where nothing but luck is at work: the answers to each text are shuffled over the
# orders. `log_odds_sd` needs no right and wrong: how far the log-odds of the right label of one text lie apart over the
# orders (their standard deviation), mean of the texts.


# %%
def beyond_luck(right, folds=5):
    """Best minus worst order on texts that did not choose them; ``right`` is 0 or 1, shape (orders, texts)."""
    fold, found = torch.arange(right.shape[1]) % folds, []
    for part in fold.unique():
        rest = right[:, fold != part].sum(1)
        ends = [right[:, fold == part][rest == end].mean(0) for end in (rest.max(), rest.min())]
        found.append(ends[0] - ends[1])
    return torch.cat(found).mean().item()


def by_luck(right, draws=200):
    """The mean spread of the orders' accuracies when the answers to each text change places."""
    g = torch.Generator().manual_seed(0)
    places = torch.rand(draws, *right.shape, generator=g).argsort(1)
    accuracy = right.expand(draws, -1, -1).gather(1, places).mean(2)
    return (accuracy.max(1).values - accuracy.min(1).values).mean().item()


def log_odds(scores, targets):
    """log p / (1 - p) of the right label among the labels, (J, N)."""
    mine = torch.nn.functional.one_hot(targets, scores.shape[-1]).bool().expand_as(scores)
    return scores.masked_fill(~mine, -torch.inf).amax(-1) - scores.masked_fill(mine, -torch.inf).logsumexp(-1)


# %% [markdown]
# ## Run
#
# `recency_excess`: the share of predictions equal to the *last* demonstration's label, minus the mean of that share over all
# four. A model that likes a label, or likes the shown labels, has none; one that copies the last has. `recency_log_prob` is
# the same in log-probabilities.

# %%
for trial in block.trials():
    scores, free, labels, targets, cost = scored(trial.inside["task"])
    if trial.method == "calibrated":
        both = zip(scores, free, strict=True)
        scores = torch.stack([scoring.contextual_calibration(*each) for each in both])
    log_p, found = scores.log_softmax(-1), scores.argmax(-1)
    right = (found == targets).double()
    shares = (found[:, :, None] == labels[:, None]).double().mean(1)  # of predictions, by order and place
    said = log_p.mean(1).gather(1, labels)  # mean log-probability, by order and place
    accuracy = right.mean(1)
    block.line(
        trial,
        cost,
        accuracy=accuracy.mean().item(),
        spread=(accuracy.max() - accuracy.min()).item(),
        luck=by_luck(right),
        beyond_luck=beyond_luck(right),
        log_odds_sd=log_odds(scores, targets).std(0).mean().item(),
        log_right=log_p[:, range(len(targets)), targets].mean().item(),
        recency_excess=(shares[:, -1] - shares.mean(1)).mean().item(),
        primacy_excess=(shares[:, 0] - shares.mean(1)).mean().item(),
        recency_log_prob=(said[:, -1] - said.mean(1)).mean().item(),
        predictions=found.flatten().tolist(),
        targets=targets.repeat(len(found)).tolist(),
    )

# %% [markdown]
# ## What this block found

# %%
block.close("accuracy", "spread", "luck", "beyond_luck", "log_odds_sd", "recency_excess")
