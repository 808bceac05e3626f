# ---
# jupyter:
#   instructlab:
#     id: baselines
#     title: Baselines for three sentence tasks
#     outcome: one block of the grid behind claim C1
#     assets: [minilm, vader, bbc]
#     minutes: {smoke: 0.7, laptop: 5, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `baselines`: one block
#
# Seven ways to learn one task from `n_train` sentences. A block is one task, one training size and one seed; all methods
# see the same sentences in the same block, so their differences are paired. The grid stands in
# `data/experiments/baselines.toml`, the claim that it serves in `data/claims/C1.toml`; lesson 03 explains the methods.
#
# Two stages. `tune` tries a few values of one knob per method, once, on a seed that the table does not use. `run` takes
# the value that was best on the dev sentences.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
task: str = "movie-sentiment"  # a task of instructlab_utils.tasks
n_train: int = 50  # training sentences
seed: int = 0  # subsample, order of batches, dropout, head, random weights

# %%
from types import SimpleNamespace

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from instructlab_repro.block import fit, open_block, sentences
from instructlab_utils import metrics, models, training

block = open_block("baselines", profile, stage, task=task, n_train=n_train, seed=seed)
settings = block.settings

# %% [markdown]
# ## Data
#
# Training sentences depend on the seed. Dev and test sentences are the same for all seeds. Nobody reads beyond the
# encoder's limit: texts are cut at the last character of its last token, and TF-IDF gets the cut text too.

# %%
data = sentences(block, task, n_train)
classes, tokenizer = len(data.task.labels), data.tokenizer


def cut(texts):
    found = tokenizer(texts, truncation=True, max_length=settings.max_length, return_offsets_mapping=True)
    return [text[: spans[-2][1]] for text, spans in zip(texts, found["offset_mapping"], strict=True)]


texts = {name: cut(list(split["text"])) for name, split in data.rows.items()}

# %% [markdown]
# ## Frozen features
#
# Three views of the same frozen encoder: the last hidden state of `[CLS]`, the mean over the real tokens, and the pooler
# that the classification head reads.


# %%
class Views(torch.nn.Module):
    """The three views side by side, (B, 3 · 384), where a classifier has its logits."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids, attention_mask):
        out = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        hidden, mask = out.last_hidden_state, attention_mask
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return SimpleNamespace(logits=torch.cat([hidden[:, 0], mean, out.pooler_output], 1))


encoder = Views(models.load_encoder().to(block.run.device))
views = {
    name: dict(
        zip(("cls", "mean", "pooler"), training.predict(encoder, part, data.pad_id).chunk(3, 1), strict=True)
    )
    for name, part in data.examples.items()
}
del encoder

# %% [markdown]
# ## The methods
#
# Each takes the tuned value and returns the logits or scores of the held-out sentences by split, what its line says, and
# the cost of the training alone, without loading and predicting. `head_only` trains the classifier's linear head by the same
# loop, on cached pooler outputs.


# %%
def logistic(features, pipeline):
    with block.run.measure() as cost:
        pipeline.fit(features["train"], data.targets["train"])
    scores = {s: torch.tensor(np.log(pipeline.predict_proba(features[s]) + 1e-12)) for s in block.splits}
    weights = pipeline[-1].coef_.size + pipeline[-1].intercept_.size
    return scores, {"updates": 0, "trainable_parameters": weights}, cost


def tfidf_lr(C):
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    return logistic(texts, make_pipeline(words, LogisticRegression(C=C, max_iter=2000)))


def frozen_lr(view, C):
    features = {name: part[view].numpy() for name, part in views.items()}
    return logistic(features, make_pipeline(LogisticRegression(C=C, max_iter=2000)))


def head_only(learning_rate):
    head = models.load_classifier(classes, seed=seed).classifier
    pooled, numbered = views["train"]["pooler"], enumerate(data.examples["train"])

    def head_losses(net, batch):
        logits = net(pooled[batch["row"][:, 0]])
        return torch.nn.functional.cross_entropy(logits, batch["labels"][:, 0], reduction="none")

    rows = [{**example, "labels": [example["labels"]], "row": [i]} for i, example in numbered]
    net = torch.nn.Sequential(torch.nn.Dropout(0.1), head)
    net, line, cost = fit(block, net, rows, data.pad_id, learning_rate=learning_rate, objective=head_losses)
    with torch.no_grad():
        return {name: head(views[name]["pooler"]) for name in block.splits}, line, cost


def fine_tuned(learning_rate, pretrained):
    net = models.load_classifier(classes, pretrained=pretrained, seed=seed).to(block.run.device)
    net, line, cost = fit(block, net, data.examples["train"], data.pad_id, learning_rate=learning_rate)
    return data.logits(net), line, cost


METHODS = {
    "majority": lambda: (data.logits(None), {"updates": 0, "trainable_parameters": 0}, None),
    "tfidf_lr": tfidf_lr,
    "frozen_cls_lr": lambda C: frozen_lr("cls", C),
    "frozen_mean_lr": lambda C: frozen_lr("mean", C),
    "head_only": head_only,
    "full": lambda learning_rate: fine_tuned(learning_rate, pretrained=True),
    "random_init": lambda learning_rate: fine_tuned(learning_rate, pretrained=False),
}

# %% [markdown]
# ## Run

# %%
for trial in block.trials():
    scores, line, cost = METHODS[trial.method](**trial.tuned)
    line |= data.fields(scores)
    if "test" in scores:
        line["macro_f1"] = metrics.macro_f1(data.targets["test"], line["predictions"])
    block.line(trial, cost, **line)

# %% [markdown]
# ## What this block found

# %%
block.close("dev_accuracy", "accuracy", "macro_f1", "test_loss")
