# ---
# jupyter:
#   instructlab:
#     id: tokens
#     title: Three decodings of one token classifier
#     outcome: one block of the grid behind claims T1 and T2
#     assets: [minilm, bigbench]
#     minutes: {smoke: 0.5, laptop: 3, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `tokens`: one block
#
# One encoder with a token head learns BIO tags from `n_train` sentences. Then its logits are read in three ways: the best
# tag of each word, the same with stray I tags turned into B, and the best *legal* sequence by Viterbi's algorithm. The
# model is the same, and so are the test sentences; the differences are paired as tightly as can be. The grid stands in
# `data/experiments/tokens.toml`, the claims in `data/claims/T1.toml` and `T2.toml`; lesson 04 explains everything.
#
# A block is one corpus and one seed; the training sizes are walked inside it. Two stages. `tune` tries learning rates on
# seeds that no table uses, and reads dev sentences only. `run` takes the best rate of each corpus and size.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
task: str = "e2e-slots"  # a task of instructlab_utils.tasks with one tag per word
seed: int = 0  # subsample, order of batches, dropout, head

# %%
import functools
import time

import numpy as np
import torch

from instructlab_repro.block import fit, open_block
from instructlab_utils import metrics, models, tagging, tasks, training

block = open_block("tokens", profile, stage, task=task, seed=seed)
settings = block.settings

# %% [markdown]
# ## Data
#
# Training sentences depend on the seed; the smaller set is part of the larger one. Dev and test sentences are the same for
# all seeds, of the test split all that hold a span. Long sentences end after `max_words` words, in the truth too. Names in
# Polish have four types, and capitals are marked, as lesson 04 explains.

# %%
corpus = tasks.load(task)
labels = tagging.labels_of(corpus)
tokenizer = models.load_tokenizer("encoder")
pad_id = tokenizer.pad_token_id


def drawn(split, n, chosen_by):
    return tagging.sentences(corpus, split, n, chosen_by, settings.max_words)


rows = {split: drawn(split, getattr(settings, split), 0) for split in block.splits}
examples = {name: tagging.encode(part, tokenizer, labels) for name, part in rows.items()}
truth = {name: [row["tags"] for row in part] for name, part in rows.items()}
print(f"{len(labels)} labels;", {split: len(part) for split, part in rows.items()}, "sentences")

# %% [markdown]
# ## Train once, read three ways
#
# The word embeddings stay as they are: half of the weights, and a third of the time. Each training size and learning rate
# is trained once; what counts is the row of logits at the first piece of each word. The dev loss is the mean over words.


# %%
@functools.cache
def trained(n_train, learning_rate):
    """Word logits of each held-out split: a list of (words, K) tensors; line and cost."""
    net = models.load_tagger(len(labels), seed=seed).to(block.run.device)
    net.get_input_embeddings().requires_grad_(False)
    train_set = tagging.encode(drawn("train", n_train, seed), tokenizer, labels)
    steps = settings.steps[str(n_train)]
    net, line, cost = fit(block, net, train_set, pad_id, steps=steps, learning_rate=learning_rate)
    found = {}
    for name, part in examples.items():
        logits = training.token_logits(net, part, pad_id)
        first = [[label != training.IGNORED for label in example["labels"]] for example in part]
        found[name] = [z[mask] for z, mask in zip(logits, first, strict=True)]
    answers = torch.tensor([labels.index(tag) for tags in truth["dev"] for tag in tags])
    line["dev_loss"] = torch.nn.functional.cross_entropy(torch.cat(found["dev"]).double(), answers).item()
    return found, line | {"learning_rate": learning_rate}, cost


scores = tagging.legal_transitions(labels)
METHODS = {
    "argmax": lambda z: [labels[k] for k in z.argmax(-1).tolist()],
    "repair": lambda z: tagging.repair(METHODS["argmax"](z)),
    "constrained": lambda z: [labels[k] for k in tagging.viterbi(z, *scores)],
}


def read(decoded):
    """Everything that a line says about the test sentences; an exact one has all its spans right.

    Span F1 is 2 Σ hits / Σ spans. `scores` has a number for each sentence: their mean is F1, and their scatter is that of
    the ratio (delta method).
    """
    pairs = list(zip(truth["test"], decoded, strict=True))
    found = [(set(tagging.spans_of(a)), set(tagging.spans_of(b))) for a, b in pairs]
    hits, spans = np.array([(len(a & b), len(a) + len(b)) for a, b in found]).T
    f1 = metrics.span_f1(truth["test"], decoded)
    return {
        "span_f1": f1,
        "token_accuracy": float(np.mean([x == y for a, b in pairs for x, y in zip(a, b, strict=True)])),
        "illegal": float(np.mean([tagging.repair(tags) != tags for tags in decoded])),
        "exact": float(np.mean([a == b for a, b in found])),
        "scores": (f1 + (2 * hits - f1 * spans) / spans.mean()).tolist(),
    }


# %% [markdown]
# ## Run
#
# The learning rate is argmax's: the other two read the same model.

# %%
rate = {t.inside["n_train"]: t.tuned["learning_rate"] for t in block.spec.trials(block.block) if t.tuned}
for trial in block.trials():
    learning_rate = trial.tuned.get("learning_rate", rate[trial.inside["n_train"]])
    found, line, cost = trained(trial.inside["n_train"], learning_rate)
    begin = time.process_time()
    decoded = {name: [METHODS[trial.method](z) for z in part] for name, part in found.items()}
    line = line | {"decode_seconds": round(time.process_time() - begin, 3)}
    line["dev_span_f1"] = metrics.span_f1(truth["dev"], decoded["dev"])
    block.line(trial, cost, **line, **({} if block.tuning else read(decoded["test"])))

# %% [markdown]
# ## What this block found

# %%
block.close("dev_loss", "dev_span_f1", "span_f1", "token_accuracy", "illegal")
