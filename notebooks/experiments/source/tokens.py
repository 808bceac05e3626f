# ---
# jupyter:
#   instructlab:
#     id: tokens
#     title: Three decodings of one token classifier
#     outcome: one block of the grid behind claim T1
#     assets: [minilm, bigbench]
#     minutes: {smoke: 0.5, laptop: 2, gpu: 1}
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
# `data/experiments/tokens.toml`, the claim in `data/claims/T1.toml`; lesson 04 explains everything.
#
# A block is one corpus and one seed; the training sizes are walked inside it.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune or run
task: str = "e2e-slots"  # a task of instructlab_utils.tasks with one tag per word
seed: int = 0  # subsample, order of batches, dropout, head

# %%
import functools
import time

import numpy as np

from instructlab_repro import experiments
from instructlab_utils import metrics, models, start, tagging, tasks, training

run = start("tokens", profile=profile, seed=seed)
spec = experiments.load("tokens").at(run.profile)
block = spec.block(stage=stage, task=task, seed=seed)
settings = spec.settings_of(block)

# %% [markdown]
# ## Data
#
# Training sentences depend on the seed; the smaller set is part of the larger one. Dev and test sentences are the same for
# all seeds. Long sentences end after `max_words` words, in the truth too. Names in Polish have four types, and capitals
# are marked, as lesson 04 explains.

# %%
corpus = tasks.load(task)
labels = tagging.labels_of(corpus)
tokenizer = models.load_tokenizer("encoder")
pad_id = tokenizer.pad_token_id


def drawn(split, n, chosen_by):
    return tagging.sentences(corpus, split, n, chosen_by, settings.max_words)


rows = {"dev": drawn("dev", settings.dev, 0), "test": drawn("test", settings.test, 0)}
examples = {name: tagging.encode(part, tokenizer, labels) for name, part in rows.items()}
truth = {name: [row["tags"] for row in part] for name, part in rows.items()}
pieces = sum(len(example["input_ids"]) - 2 for example in examples["test"])
words = sum(len(tags) for tags in truth["test"])
print(f"{len(labels)} labels; {len(truth['test'])} test sentences, {words} words in {pieces} pieces")

# %% [markdown]
# ## Train once, read three ways
#
# The word embeddings stay as they are: half of the weights, and a third of the time. Each training size and learning rate
# is trained once; what counts is the row of logits at the first piece of each word.

# %%
measured = {}


@functools.cache
def trained(n_train, learning_rate):
    """Word logits of the dev and the test sentences by name: a list of (words, K) tensors each."""
    net = models.load_tagger(len(labels), seed=seed).to(run.device)
    net.get_input_embeddings().requires_grad_(False)
    train_set = tagging.encode(drawn("train", n_train, seed), tokenizer, labels)
    with run.measure() as measured[n_train, learning_rate]:
        training.train(
            net, train_set, steps=settings.steps[str(n_train)], learning_rate=learning_rate, pad_id=pad_id,
            batch_size=settings.batch_size, seed=seed,
        )  # fmt: skip
    found = {}
    for name, part in examples.items():
        logits = training.token_logits(net, part, pad_id)
        first = [[label != training.IGNORED for label in example["labels"]] for example in part]
        found[name] = [z[mask] for z, mask in zip(logits, first, strict=True)]
    return found


# %%
start_scores, transition_scores = tagging.legal_transitions(labels)


def argmax(z):
    return [labels[k] for k in z.argmax(-1).tolist()]


METHODS = {
    "argmax": argmax,
    "repair": lambda z: tagging.repair(argmax(z)),
    "constrained": lambda z: [labels[k] for k in tagging.viterbi(z, start_scores, transition_scores)],
}


def scores(name, decoded):
    """Everything that a line says about one split."""
    flat = [np.concatenate([np.array(tags) for tags in part]) for part in (truth[name], decoded)]
    right = [
        tagging.spans_of(a) == tagging.spans_of(b) for a, b in zip(truth[name], decoded, strict=True)
    ]  # all spans of a sentence
    return {
        "span_f1": metrics.span_f1(truth[name], decoded),
        "token_accuracy": float((flat[0] == flat[1]).mean()),
        "illegal": float(np.mean([tagging.repair(tags) != tags for tags in decoded])),
        "exact": float(np.mean(right)),
        "scores": [float(x) for x in right],
    }


# %% [markdown]
# ## Run
#
# One line per method and training size, on the disk before the next one starts. A line that an interrupted execution left
# is not computed again. The learning rate is argmax's: the other two read the same model.

# %%
trials = spec.trials(block)
rate = {trial.inside["n_train"]: trial.tuned["learning_rate"] for trial in trials if trial.tuned}
for trial in trials:
    if run.have(trial.key):
        continue
    n_train = trial.inside["n_train"]
    learning_rate = trial.tuned.get("learning_rate", rate[n_train])
    found = trained(n_train, learning_rate)
    begin = time.process_time()
    decoded = {name: [METHODS[trial.method](z) for z in part] for name, part in found.items()}
    decode_seconds = time.process_time() - begin
    run.line(
        spec.identity(block) | trial.key,
        **vars(measured[n_train, learning_rate]),
        **scores("test", decoded["test"]),
        steps=settings.steps[str(n_train)],
        learning_rate=learning_rate,
        dev_span_f1=metrics.span_f1(truth["dev"], decoded["dev"]),
        decode_seconds=round(decode_seconds, 3),
    )
    line = run.have(trial.key)
    print(
        f"n = {n_train:3d}  {trial.method:11s} lr {learning_rate:g}  F1 {line['span_f1']:.3f}  tokens "
        f"{line['token_accuracy']:.3f}  illegal {line['illegal']:.3f}  {line['seconds']:.0f} s"
    )

# %% [markdown]
# ## What this block found

# %%
lines = [run.have(trial.key) for trial in trials]
for line in sorted(lines, key=lambda e: (e["n_train"], -e["span_f1"])):
    print(f"n = {line['n_train']:3d}  {line['method']:11s} F1 {line['span_f1']:.3f}")
run.record(runs=len(lines))
