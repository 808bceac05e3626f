# ---
# jupyter:
#   instructlab:
#     id: pretraining
#     title: Fifty labels with pre-training, eight hundred without
#     outcome: one block of the grid behind claim C1
#     assets: [minilm, vader, bbc]
#     minutes: {smoke: 0.5, laptop: 2, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `pretraining`: one block
#
# Fine-tuning on few labelled texts, against two learners without pre-training on many: the same network from random weights,
# and a logistic regression on TF-IDF. A block is one task and one seed; the few are among the many. The grid stands in
# `data/experiments/pretraining.toml`, the claim in `data/claims/C1.toml`; lesson 03 explains the methods.
#
# Two stages. `tune` tries a few values of one knob per method, on seeds that the table does not use, and looks at the dev
# split. `run` takes the best and looks at the test split.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
task: str = "movie-sentiment"  # a task of instructlab_utils.tasks
seed: int = 0  # training texts, order of batches, dropout, head, random weights

# %%
from types import SimpleNamespace

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from instructlab_repro.block import ROUNDING, fit, open_block, sentences
from instructlab_utils import features, models

block = open_block("pretraining", profile, stage, task=task, seed=seed)
settings = block.settings
few, many = (sentences(block, task, n) for n in (settings.few, settings.many))

# %% [markdown]
# ## Linear models
#
# Nobody reads beyond the encoder's limit: texts are cut at the last character of its last token, and TF-IDF gets the cut
# text too. In the stage `twin` features differ by one part in ten million, as first values do elsewhere.


# %%
def cut(rows):
    how = {"truncation": True, "max_length": settings.max_length, "return_offsets_mapping": True}
    texts = list(rows["text"])
    spans = few.tokenizer(texts, **how)["offset_mapping"]
    return [text[: each[-2][1]] for text, each in zip(texts, spans, strict=True)]


def logistic(data, vectors, C):
    x = {name: part * (1 + ROUNDING * (stage == "twin")) for name, part in vectors.items()}
    with block.run.measure() as cost:
        fitted = LogisticRegression(C=C, max_iter=10_000).fit(x["train"], data.targets["train"])
    logits = {name: torch.tensor(np.log(fitted.predict_proba(x[name]) + 1e-12)) for name in block.splits}
    weights = fitted.coef_.size + fitted.intercept_.size
    return logits, {"updates": 0, "trainable_parameters": weights}, cost


def tfidf(data, C):
    texts = {name: cut(rows) for name, rows in data.rows.items()}
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit(texts["train"])
    return logistic(data, {name: words.transform(part) for name, part in texts.items()}, C)


def frozen(data, C):
    means = {
        name: features.mean_states(list(rows["text"]), settings.max_length).numpy()
        for name, rows in data.rows.items()
    }
    return logistic(data, means, C)


# %% [markdown]
# ## The network, with pre-training and without
#
# Its head reads the mean of the last states, not `[CLS]` through the pooler: from there random weights
# took twice as long in a pilot, or longer, to leave the largest class. Both networks have this head.


# %%
class OnMean(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        net.bert.pooler = None
        self.net = net

    def forward(self, input_ids, attention_mask):
        states = self.net.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mean = features.pooled(states, attention_mask)
        return SimpleNamespace(logits=self.net.classifier(self.net.dropout(mean)))


def network(data, steps, learning_rate, pretrained):
    net = OnMean(models.load_classifier(len(data.task.labels), pretrained=pretrained, seed=seed))
    knobs = {"steps": steps, "learning_rate": learning_rate}
    net, line, cost = fit(block, net.to(block.run.device), data.examples["train"], data.pad_id, **knobs)
    return data.logits(net), line, cost


METHODS = {
    "majority": lambda: (many.logits(None), {"updates": 0, "trainable_parameters": 0}, None),
    "tfidf_few": lambda C: tfidf(few, C),
    "frozen_few": lambda C: frozen(few, C),
    "full_few": lambda learning_rate: network(few, settings.steps, learning_rate, True),
    "tfidf_many": lambda C: tfidf(many, C),
    "random_many": lambda learning_rate: network(many, settings.long_steps, learning_rate, False),
}

# %% [markdown]
# ## Run

# %%
for trial in block.trials():
    logits, line, cost = METHODS[trial.method](**trial.tuned)
    block.line(trial, cost, **line, **many.fields(logits))

# %% [markdown]
# ## What this block found

# %%
block.close("dev_loss", "accuracy", "test_loss")
