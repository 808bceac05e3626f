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
from functools import cache

import torch

from instructlab_repro import experiments
from instructlab_utils import models, scoring, start, tasks

run = start("in_context", profile=profile, seed=seed)
spec = experiments.load("in_context").at(run.profile)
block = spec.block(stage=stage, seed=seed)
settings = spec.settings_of(block)
net, tokenizer = models.load_decoder(device=run.device).float(), models.load_tokenizer("decoder")

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
    if task == "bbc-topics":
        return " ".join(row["text"].split()[: settings.words]), row["label"]
    if "label" in row:
        return row["text"], row["label"]
    return row["input"], labels.index(row["options"][row["answer"]])


@cache
def drawn(task, split, n):
    """``n`` pairs of the split and the label words, by the seed."""
    corpus = tasks.load(task)
    rows = corpus.splits[split]
    labels = list(corpus.labels) or sorted(rows[0]["options"])
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    found = []
    for i in order:
        text, label = as_pair(task, rows[i], labels)
        if len(tokenizer(text)["input_ids"]) <= settings.max_tokens:
            found.append((text, label))
        if len(found) == n:
            break
    return found, [" " + label.replace("_", " ") for label in labels]


# %% [markdown]
# ## Scores
#
# The prefix is the solved examples; it goes through the model once. Behind it come the test texts and the content-free
# texts, each with all label words. A score is the sum of the log-probabilities of a label word's tokens.


# %%
def scored(task, k, random_labels=False):
    """Scores (N, K) of the test texts and (3, K) of the content-free ones, the shown labels, and the cost."""
    shown, words = drawn(task, "train", 8)
    shown = shown[:k]
    if random_labels:
        g = torch.Generator().manual_seed(1000 + seed)
        shown = [(text, torch.randint(len(words), (1,), generator=g).item()) for text, _ in shown]
    form, empty = FORMATS[task]
    texts = [text for text, _ in drawn(task, "test", settings.test)[0]]
    texts += [empty.format(nothing) for nothing in settings.content_free]
    contexts = ["\n\n" * (k > 0) + form.format(text) for text in texts]
    prefix = "\n\n".join(form.format(text) + words[label] for text, label in shown)
    with run.measure() as cost:
        found = scoring.option_log_probs(net, tokenizer, contexts, [words] * len(contexts), prefix=prefix)
    scores = torch.stack([torch.as_tensor(f.log_probs) for f in found])
    free = len(settings.content_free)
    return scores[:-free], scores[-free:], [label for _, label in shown], cost


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
            for cut in [cuts[0] - 1, *((cuts[1:] + cuts[:-1]) / 2), cuts[-1] + 1]:
                moved = best.clone()
                moved[c] = cut
                best = moved if right(moved) > right(best) else best
    return scores + best


def predicted(method, scores, free, targets):
    if method == "majority":
        return targets.bincount().argmax().expand(len(targets))
    calibrated = scoring.contextual_calibration(scores, free)
    if method == "oracle":
        starts = [torch.zeros_like(scores[0]), -free.softmax(1).mean(0).log()]
        scores = oracle(scores, targets, starts)
    return (calibrated if method.endswith("calibrated") else scores).argmax(1)


# %% [markdown]
# ## Run
#
# Methods that share their scores share the cost of them. `recency`: share of predictions equal to the last demonstration's
# label; `majority_bias`: to a most frequent label of the demonstrations, minus the same share of the true labels.

# %%
cells = {}
for trial in spec.trials(block):
    if run.have(trial.key):
        continue
    task, k, random_labels = trial.inside["task"], trial.inside["k"], trial.method.startswith("random")
    names = ["accuracy", "top_share", "recency", "recency_excess", "majority_bias"]
    fields = dict.fromkeys(names)
    if not random_labels or k == settings.random_labels_at:
        cell = task, k, random_labels
        if cell not in cells:
            cells[cell] = scored(*cell)
        scores, free, shown, cost = cells[cell]
        targets = torch.tensor([label for _, label in drawn(task, "test", settings.test)[0]])
        found = predicted(trial.method, scores, free, targets)
        fields["accuracy"] = (found == targets).double().mean().item()
        fields["top_share"] = (found.bincount().max() / len(found)).item()
        if k:
            last, counts = shown[-1], torch.tensor(shown).bincount(minlength=scores.shape[1])
            top = counts == counts.max()
            fields["recency"] = (found == last).double().mean().item()
            fields["recency_excess"] = fields["recency"] - (targets == last).double().mean().item()
            fields["majority_bias"] = (top[found].double().mean() - top[targets].double().mean()).item()
        fields |= {"predictions": found.tolist(), "targets": targets.tolist()}
        if trial.method != "majority":
            fields |= vars(cost)
    run.line(spec.identity(block) | trial.key, **fields)
    if fields["accuracy"] is not None:
        print(f"{task:16s} k = {k} {trial.method:24s} {fields['accuracy']:.3f}")

# %% [markdown]
# ## What this block found

# %%
lines = [run.have(trial.key) for trial in spec.trials(block)]
for method in spec.methods:
    means = {
        k: [e["accuracy"] for e in lines if (e["method"], e["k"]) == (method, k)] for k in spec.axes["k"]
    }
    shown = (f"{k}: {sum(v) / len(v):.3f}" for k, v in means.items() if None not in v)
    print(f"{method:24s} mean of the tasks by k  {'  '.join(shown)}")
run.record(runs=len(lines))
