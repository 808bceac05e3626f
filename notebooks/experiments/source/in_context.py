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
# prompt holds zero to eight solved examples of the task. No weight changes. A block is one seed: its own demonstrations and
# its own test texts of all four tasks. The grid stands in `data/experiments/in_context.toml`, the claims that it serves in
# `data/claims/`; lesson 12 explains the methods.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # there is no tuning: data/experiments/in_context.toml says why
seed: int = 0  # demonstrations, their order, wrong labels, test texts

# %%
from functools import cache

import torch

from instructlab_repro import block as blocks
from instructlab_utils import scoring, tasks

block = blocks.open_block("in_context", profile, stage, seed=seed)
settings, (net, tokenizer) = block.settings, blocks.decoder(block)
if stage == "twin":
    blocks.nudge(net)

# %% [markdown]
# ## Data
#
# A format per task, and the text that stands in it where there is nothing to say. Nothing is trained, so test texts may come
# from every split: one fixed order of all short texts, the test split's first. The first of them are the test texts of all
# seeds, sorted by label and dealt out one by one: no seed shares a text, and each has the labels in the same shares. The
# demonstrations come from the train texts that are left, drawn blindly, so that they may be all of one label.

# %%
FORMATS = {
    "movie-sentiment": ("Review: {}\nSentiment:", "{0}"),
    "bbc-topics": ("Article: {}\nTopic:", "{0}"),
    "vitaminc": ("Passage: {}\nTrue, False, or Neither?", "{0}\nClaim: {0}"),
    "intent": ("{}\nIntent:", "Utterance: {0}"),
}


def shuffled(items, seed):
    return [items[i] for i in torch.randperm(len(items), generator=torch.Generator().manual_seed(seed))]


@cache
def texts_of(task):
    """The short (text, label) pairs by split, each in one fixed order, and the label words."""
    corpus = tasks.load(task)
    labels = list(corpus.labels) or sorted(corpus.splits["train"][0]["options"])
    found = {}
    for split, rows in corpus.splits.items():
        if corpus.labels:  # a topic is judged by the first words of its article
            cut = settings.words if task == "bbc-topics" else None
            pairs = [(" ".join(row["text"].split()[:cut]), row["label"]) for row in rows]
        else:
            pairs = [(row["input"], labels.index(row["options"][row["answer"]])) for row in rows]
        ids = tokenizer([text for text, _ in pairs])["input_ids"]
        short = [pair for pair, own in zip(pairs, ids, strict=True) if len(own) <= settings.max_tokens[task]]
        found[split] = shuffled(short, 0)
    return found, [" " + label.replace("_", " ") for label in labels]


def drawn(task, n):
    """This seed's eight demonstrations, its own n test texts, and the label that is most frequent in the train split."""
    found, _ = texts_of(task)
    every = list(dict.fromkeys([*found["test"], *found["dev"], *found["train"]]))  # no text twice
    tested = sorted(every[: n * settings.shares], key=lambda pair: pair[1])
    left = every[max(settings.test * settings.shares, len(found["test"]) + len(found["dev"])) :]
    frequent = torch.tensor([label for _, label in found["train"]]).bincount().argmax().item()
    return shuffled(left, seed)[:8], tested[seed :: settings.shares], frequent


# %% [markdown]
# ## Scores
#
# The prefix is the solved examples; it goes through the model once. After it come the test texts and the content-free
# texts, each with all label words. A score is the sum of the log-probabilities of a label word's tokens. A *wrong* label is
# drawn from the labels that are not the true one.


# %%
def scored(task, k, wrong=False):
    """Scores (N, K) of the test texts and (3, K) of the content-free ones, shown labels, targets, majority, the cost."""
    shown, test, frequent = drawn(task, settings.test_at.get(str(k), settings.test))
    words, shown = texts_of(task)[1], shown[:k]
    if wrong:
        g = torch.Generator().manual_seed(1000 + seed)
        steps = torch.randint(1, len(words), (k,), generator=g).tolist()
        shown = [(t, (label + step) % len(words)) for (t, label), step in zip(shown, steps, strict=True)]
    form, empty = FORMATS[task]
    texts = [*(text for text, _ in test), *map(empty.format, settings.content_free)]
    contexts = ["\n\n" * (k > 0) + form.format(text) for text in texts]
    prefix = "\n\n".join(form.format(text) + words[label] for text, label in shown)
    with block.run.measure() as cost:
        found = scoring.option_log_probs(net, tokenizer, contexts, [words] * len(contexts), prefix=prefix)
    scores, n = torch.stack([torch.as_tensor(f.log_probs) for f in found]), len(test)
    targets = torch.tensor([label for _, label in test])
    return scores[:n], scores[n:], [label for _, label in shown], targets, frequent, cost


# %% [markdown]
# ## The methods
#
# The oracle looks for a weight per label that makes the most predictions right, by the true labels: label by label, until
# nothing improves, starting from the better of no weights and the calibrated ones. It is cross-fitted: the weights for an
# eighth of the texts are found on the other texts.


# %%
def oracle(scores, targets, starts):
    """The log-weight of each label that the search found."""

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
    return best


def cross_fitted(scores, targets, starts, folds=8):
    """Scores with weights that were found on other texts."""
    found, fold = scores.clone(), torch.arange(len(scores)) % folds
    for part in fold.unique():
        rest = fold != part
        found[~rest] += oracle(scores[rest], targets[rest], starts) if rest.any() else 0
    return found


# %% [markdown]
# ## Run
#
# Methods that share their scores share the cost of them. `log_right`: the log-probability of the right label among the
# labels. `recency_excess`: the share of predictions equal to the last demonstration's label, above its true share;
# `majority_bias`: the same for the most frequent labels of the demonstrations.


# %%
once = cache(scored)
for trial in block.trials():
    (task, k), wrong = trial.inside.values(), trial.method.startswith("wrong")
    fields = dict.fromkeys(["accuracy", "log_right", "top_share", "recency_excess", "majority_bias"])
    cost = None
    if not wrong or k == settings.wrong_labels_at:
        scores, free, shown, targets, frequent, cost = once(task, k, wrong)
        if trial.method == "oracle":
            scores = cross_fitted(
                scores, targets, [torch.zeros_like(scores[0]), -free.softmax(1).mean(0).log()]
            )
        if trial.method.endswith("calibrated"):
            scores = scoring.contextual_calibration(scores, free)
        found, cost = scores.argmax(1), None if trial.method == "majority" else cost
        if cost is None:
            found = torch.full_like(targets, frequent)
        else:
            fields["log_right"] = scores.log_softmax(1)[range(len(targets)), targets].mean().item()
        fields["accuracy"] = (found == targets).double().mean().item()
        fields["top_share"] = (found.bincount().max() / len(found)).item()
        fields |= {"predictions": found.tolist(), "targets": targets.tolist()}
        if k:
            counts = torch.tensor(shown).bincount(minlength=scores.shape[1])
            top, last = counts == counts.max(), shown[-1]
            both = [(y == last).double().mean().item() for y in (found, targets)]
            fields["recency_excess"] = both[0] - both[1]
            fields["majority_bias"] = (top[found].double().mean() - top[targets].double().mean()).item()
    block.line(trial, cost, **fields)

# %% [markdown]
# ## What this block found

# %%
block.close("accuracy", "log_right", "majority_bias")
