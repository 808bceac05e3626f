# ---
# jupyter:
#   instructlab:
#     id: arena
#     title: "The arena: every way to tune, on equal terms"
#     outcome: one block of the grid behind lesson 11
#     assets: [minilm, vader, bigbench, bbc]
#     minutes: {smoke: 1.0, laptop: 15, gpu: 3}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `arena`: one block
#
# Full fine-tuning, frozen features and the methods of lessons 08 to 10, on the same sentences, with the same number of
# updates and of learning rates tried. A block is one task and one seed. The grid stands in `data/experiments/arena.toml`;
# lesson 11 explains it.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
task: str = "tweet-sentiment"  # a classification task, or e2e-slots
seed: int = 0  # training sentences, order of batches, dropout, head, the methods' first values

# %%
import functools
import itertools
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from instructlab_repro.block import fit, open_block, tuned
from instructlab_utils import metrics, models, tagging, tasks, training, tuners

block = open_block("arena", profile, stage, task=task, seed=seed)
settings, run = block.settings, block.run

# %% [markdown]
# ## Data
#
# One task labels sentences, the other labels words. The training sentences depend on the seed; dev and test sentences are
# the same for all seeds: of the test split, all there are. The probe's sentences belong to a third task, which no method is
# trained on.

# %%
corpus = tasks.load(task)
per_word = corpus.kind == "tokens"
labels = tagging.labels_of(corpus) if per_word else list(corpus.labels)
tokenizer = models.load_tokenizer("encoder")
pad_id = tokenizer.pad_token_id


def drawn(split, n, chosen_by):
    """Examples for the model, and the label numbers of each sentence: one for every word, or one in all."""
    if per_word:
        rows = tagging.sentences(corpus, split, n, chosen_by, settings.max_words)
        return tagging.encode(rows, tokenizer, labels), [[labels.index(t) for t in row["tags"]] for row in rows]
    rows = tasks.subsample(corpus.splits[split], n, chosen_by)
    return training.encode(rows, tokenizer, settings.max_length), [[label] for label in rows["label"]]


found = {"train": drawn("train", settings.n_train, seed)}
found |= {name: drawn(name, getattr(settings, name), 0) for name in ("dev", "test")}
examples, truth = ({name: part[i] for name, part in found.items()} for i in (0, 1))
probe_splits, n_probe = tasks.load(settings.probe_task).splits, (settings.probe_train, settings.probe_test)
probe_rows = {
    name: tasks.subsample(probe_splits[name], n, 0)
    for name, n in zip(("train", "test"), n_probe, strict=True)
}
probe_examples = {
    name: training.encode(rows, tokenizer, settings.probe_length) for name, rows in probe_rows.items()
}

# %% [markdown]
# ## Reading a model
#
# The score is the accuracy for sentences and span F1 for words; the loss is the mean cross-entropy of a label. `hidden` reads
# the encoder's last layer through a hook, at the positions of the text alone: a soft prompt stands before them.


# %%
def first_pieces(example):
    return [label != training.IGNORED for label in example["labels"]]


def chances(net, name):
    """Log-probabilities (rows, K) of each sentence of a split: a row for every word, or one in all."""
    if net is None:  # the loss diverged: nothing is learned but how often each label comes
        counts = np.bincount(np.concatenate(truth["train"]), minlength=len(labels)) + 1e-12
        return [np.tile(np.log(counts / counts.sum()), (len(row), 1)) for row in truth[name]]
    if per_word:
        pairs = zip(training.token_logits(net, examples[name], pad_id), examples[name], strict=True)
        logits = [z[first_pieces(example)] for z, example in pairs]
    else:
        logits = training.predict(net, examples[name], pad_id)[:, None]
    return [torch.log_softmax(z.double(), -1).numpy() for z in logits]


def read(log_p, name):
    """The score, the loss, and 1 for every sentence that is right as a whole, 0 for the others."""
    ids = [rows.argmax(-1).tolist() for rows in log_p]
    right = [float(a == b) for a, b in zip(truth[name], ids, strict=True)]
    score = float(np.mean(right))
    if per_word:
        score = metrics.span_f1(*([[labels[k] for k in row] for row in each] for each in (truth[name], ids)))
    true = [rows[range(len(y)), y] for rows, y in zip(log_p, truth[name], strict=True)]
    one_class = len(set(itertools.chain(*ids))) == 1
    return {"score": score, "loss": -float(np.concatenate(true).mean()), "scores": right, "one_class": one_class}


class States(torch.nn.Module):
    """A model whose "logits" are the last layer's states of the text, (B, T, 384)."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.train(net.training)

    def forward(self, input_ids, attention_mask):
        encoder = next(m for n, m in self.net.named_modules() if n.endswith("bert.encoder") or n == "encoder")
        seen = []
        hook = encoder.register_forward_hook(lambda _m, _i, out: seen.append(out.last_hidden_state))
        self.net(input_ids=input_ids, attention_mask=attention_mask)
        hook.remove()
        return SimpleNamespace(logits=seen[0][:, -input_ids.shape[1] :])


def hidden(net, part):
    """The last layer's states of the text's tokens: one (T, 384) tensor per example."""
    texts = [{"input_ids": e["input_ids"], "labels": [0] * len(e["input_ids"])} for e in part]
    return training.token_logits(States(net), texts, pad_id)


def logistic(C):
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=500))


def probe(net):
    """Test accuracy of a logistic regression on the mean states of the third task's sentences."""
    x = {name: torch.stack([h.mean(0) for h in hidden(net, part)]) for name, part in probe_examples.items()}
    fitted = logistic(settings.probe_C).fit(x["train"].numpy(), probe_rows["train"]["label"])
    return float(fitted.score(x["test"].numpy(), probe_rows["test"]["label"]))


# %% [markdown]
# ## What a method costs
#
# What somebody stores for this task: the adapter and its head, or the whole model. What training must hold: all weights; for
# every trained one its gradient and AdamW's two averages; and what the forward pass of the longest batch keeps for the
# backward pass, each storage once.


# %%
def bytes_on_disk(net):
    with tempfile.TemporaryDirectory() as folder:
        if getattr(net, "tuner", None) is None:
            save_file({n: t.contiguous() for n, t in net.state_dict().items()}, f"{folder}/model.safetensors")
        else:
            tuners.save(net, folder)
        return sum(file.stat().st_size for file in Path(folder).iterdir())


def held_mb(net):
    """MiB, for the longest of the training sentences."""
    weights = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in net.parameters()}
    chosen = sorted(examples["train"], key=lambda e: len(e["input_ids"]))[-settings.batch_size :]
    batch = training.move(next(training.batches_of(chosen, settings.batch_size, pad_id, seed)), run.device)
    net.train()
    kept, _ = training.kept_bytes(net, lambda net: training.target_losses(net, batch).mean())
    net.eval()
    trained = sum(p.numel() * p.element_size() for p in tuners.trainable(net).values())
    return (sum(weights.values()) + 3 * trained + kept) / 2**20


# %% [markdown]
# ## Frozen features
#
# Logistic regression on the mean of the frozen states, or on the state of each word's first piece. They forget nothing:
# their encoder is the pinned one.


# %%
def fresh():
    return (models.load_tagger if per_word else models.load_classifier)(len(labels), seed=seed)


@functools.cache
def untouched():
    net = fresh().to(run.device)
    with run.measure() as cost:
        states = {"train": hidden(net, examples["train"])}
    return states | {name: hidden(net, examples[name]) for name in ("dev", "test")}, probe(net), cost


def frozen(C):
    states, _, cost = untouched()

    def features(name):
        pairs = zip(states[name], examples[name], strict=True)
        return [h[first_pieces(e)].numpy() if per_word else h.mean(0, keepdim=True).numpy() for h, e in pairs]

    begin = time.process_time()
    model = logistic(C).fit(np.concatenate(features("train")), np.concatenate(truth["train"]))
    seconds = time.process_time() - begin
    weights = model[-1].coef_.size + model[-1].intercept_.size

    def row(x):
        log_p = np.full((len(x), len(labels)), np.log(1e-12))  # of a label that no training sentence has
        log_p[:, model.classes_] = model.predict_log_proba(x)
        return log_p

    log_p = {name: [row(x) for x in features(name)] for name in block.splits}
    batches = -(-len(examples["train"]) // settings.batch_size)
    line = {"updates": 0, "trainable_parameters": weights, "bytes": 4 * weights, "forgetting": 0.0}
    line |= {"ms_per_step": 1000 * (cost.cpu_seconds + seconds) / batches}
    return log_p, line | {"held_mb": sum(p.numel() * 4 for p in fresh().parameters()) / 2**20}, cost


# %% [markdown]
# ## Run
#
# The fall of the probe's accuracy is measured with the adapter switched on.


# %%
def trained(table, learning_rate, steps=settings.steps):
    net, more = tuned(fresh(), table, seed)
    net = net.to(run.device)
    knobs = {"steps": steps, "learning_rate": learning_rate, **more}
    net, line, cost = fit(block, net, examples["train"], pad_id, **knobs)
    log_p = {name: chances(net, name) for name in block.splits}
    if not block.tuning and net is not None:
        line |= {"bytes": bytes_on_disk(net), "held_mb": held_mb(net)}
        line["forgetting"] = untouched()[1] - probe(net)
    return log_p, line, cost


for trial in block.trials():
    table = {**block.spec.method(trial.method, block.block), **trial.tuned}
    if table["tuner"] == "frozen":
        log_p, line, cost = frozen(table["C"])
    else:
        knobs = {name: table.pop(name) for name in ("learning_rate", "steps") if name in table}
        log_p, line, cost = trained(table, **knobs)
    dev = read(log_p["dev"], "dev")
    line |= {"dev_score": dev["score"], "dev_loss": dev["loss"], "one_class": dev["one_class"]}
    if not block.tuning:
        line |= read(log_p["test"], "test")
    block.line(trial, cost, **line)

# %% [markdown]
# ## What this block found

# %%
block.close("dev_score", "dev_loss", "score", "train_loss", "forgetting")
