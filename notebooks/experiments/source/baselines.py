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
# Two stages. `tune` tries three values of one knob per method, once, on a seed that the table does not use. `run` takes
# the value that was best on the dev sentences.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune or run
task: str = "movie-sentiment"  # a task of instructlab_utils.data
n_train: int = 50  # training sentences
seed: int = 0  # subsample, order of batches, dropout, head, random weights

# %%
import time

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from instructlab_utils import data, metrics, models, start, training
from instructlab_utils.repro import experiments

run = start("baselines", profile=profile, seed=seed)
spec = experiments.load("baselines").at(run.profile)
block = spec.block(stage=stage, task=task, n_train=n_train, seed=seed)

# %% [markdown]
# ## Data
#
# Training sentences depend on the seed. Dev and test sentences are the same for all seeds.

# %%
corpus = data.load(task)
train_rows = data.subsample(corpus.splits["train"], n_train, seed)
dev_rows = data.subsample(corpus.splits["dev"], spec.sizes.dev, 0)
test_rows = data.subsample(corpus.splits["test"], spec.sizes.test, 0)
rows = {"train": train_rows, "dev": dev_rows, "test": test_rows}
y = {name: np.array(split["label"]) for name, split in rows.items()}

tokenizer = models.load_tokenizer("encoder")
pad_id = tokenizer.pad_token_id
longest = spec.budget.max_length[task]
examples = {name: training.encode(split, tokenizer, longest) for name, split in rows.items()}
steps = spec.steps(n_train)
print({name: len(split) for name, split in rows.items()}, f"{steps} updates of {spec.budget.batch_size}")

# %% [markdown]
# ## Frozen features
#
# Three views of the same frozen encoder: the last hidden state of `[CLS]`, the mean over the real tokens, and the pooler
# that the classification head reads.


# %%
@torch.no_grad()
def frozen_features(model, examples):
    """Arrays (N, 384) by name, in the order of `examples`."""
    order = sorted(range(len(examples)), key=lambda i: len(examples[i]["input_ids"]))
    found = {}
    for begin in range(0, len(order), 64):
        chosen = order[begin : begin + 64]
        batch = training.move(training.collate([examples[i] for i in chosen], pad_id), run.device)
        mask = batch["attention_mask"]
        out = model(input_ids=batch["input_ids"], attention_mask=mask)
        hidden = out.last_hidden_state
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        views = zip(hidden[:, 0].cpu(), mean.cpu(), out.pooler_output.cpu(), strict=True)
        found.update(zip(chosen, views, strict=True))
    columns = zip(*(found[i] for i in range(len(examples))), strict=True)
    return dict(zip(("cls", "mean", "pooler"), (torch.stack(c) for c in columns), strict=True))


encoder = models.load_encoder().to(run.device)
views = {name: frozen_features(encoder, part) for name, part in examples.items()}
del encoder

# %% [markdown]
# ## The methods
#
# Each takes the tuned value and returns the logits or scores of the dev and the test sentences, the number of trained
# parameters, and the number of updates. `clock` measures the training alone, without loading and predicting.

# %%
clock = {}


def majority(_):
    clock["begin"] = clock["end"] = time.perf_counter()
    counts = np.bincount(y["train"], minlength=len(corpus.labels)).astype(float)
    return {name: np.tile(counts, (len(y[name]), 1)) for name in ("dev", "test")}, 0, 0


def logistic(features, pipeline):
    clock["begin"] = time.perf_counter()
    pipeline.fit(features["train"], y["train"])
    clock["end"] = time.perf_counter()
    scores = {name: np.log(pipeline.predict_proba(features[name]) + 1e-12) for name in ("dev", "test")}
    last = pipeline[-1]
    return scores, last.coef_.size + last.intercept_.size, 0


def tfidf_lr(c):
    texts = {name: split["text"] for name, split in rows.items()}
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    return logistic(texts, make_pipeline(words, LogisticRegression(C=c, max_iter=2000)))


def frozen_lr(view, c):
    features = {name: part[view].numpy() for name, part in views.items()}
    return logistic(features, make_pipeline(LogisticRegression(C=c, max_iter=2000)))


# %%
def head_only(learning_rate):
    """The linear head of the classifier alone, trained by the loop's optimiser on cached pooler outputs."""
    head = models.load_classifier(len(corpus.labels), seed=seed).classifier
    dropout, labels = torch.nn.Dropout(0.1), torch.tensor(y["train"])
    optimizer = torch.optim.AdamW(training.parameter_groups(head, 0.01), fused=True)
    lengths = [len(example["input_ids"]) for example in examples["train"]]
    torch.manual_seed(seed)
    clock["begin"] = time.perf_counter()
    done, epoch = 0, 0
    while done < steps:
        generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
        for chosen in training.length_buckets(lengths, spec.budget.batch_size, generator)[: steps - done]:
            logits = head(dropout(views["train"]["pooler"][chosen]))
            torch.nn.functional.cross_entropy(logits, labels[chosen]).backward()
            training.clip_gradients(head.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * training.linear_schedule(done, steps, round(0.1 * steps))
            optimizer.step()
            optimizer.zero_grad()
            done += 1
        epoch += 1
    clock["end"] = time.perf_counter()
    with torch.no_grad():
        scores = {name: head(views[name]["pooler"]).numpy() for name in ("dev", "test")}
    return scores, sum(p.numel() for p in head.parameters()), steps


def fine_tuned(learning_rate, pretrained):
    """All weights, from the pre-trained checkpoint or from random ones."""
    net = models.load_classifier(len(corpus.labels), pretrained=pretrained, seed=seed).to(run.device)
    clock["begin"] = time.perf_counter()
    training.train(
        net, examples["train"], steps=steps, learning_rate=learning_rate, pad_id=pad_id,
        batch_size=spec.budget.batch_size, seed=seed,
    )  # fmt: skip
    clock["end"] = time.perf_counter()
    scores = {name: training.predict(net, examples[name], pad_id).numpy() for name in ("dev", "test")}
    return scores, sum(p.numel() for p in net.parameters()), steps


# %%
METHODS = {
    "majority": majority,
    "tfidf_lr": tfidf_lr,
    "frozen_cls_lr": lambda c: frozen_lr("cls", c),
    "frozen_mean_lr": lambda c: frozen_lr("mean", c),
    "head_only": head_only,
    "full": lambda rate: fine_tuned(rate, pretrained=True),
    "random_init": lambda rate: fine_tuned(rate, pretrained=False),
}

# %% [markdown]
# ## Run
#
# One line per run, on the disk before the next one starts. A line that an interrupted execution left is not computed
# again.

# %%
identity = spec.identity(block)
for method, value in spec.trials(block):
    key = {"key": identity["key"], "method": method, "learning_rate": value}
    if run.have(key):
        continue
    scores, trained, updates = METHODS[method](value)
    seconds = clock["end"] - clock["begin"]
    predictions = scores["test"].argmax(1)
    log_p = torch.log_softmax(torch.tensor(scores["test"], dtype=torch.float64), -1)
    run.line(
        key,
        **identity,
        steps=updates,
        accuracy=metrics.accuracy(y["test"], predictions),
        macro_f1=metrics.macro_f1(y["test"], predictions),
        dev_accuracy=metrics.accuracy(y["dev"], scores["dev"].argmax(1)),
        test_loss=-log_p[range(len(y["test"])), y["test"]].mean().item() if method != "majority" else None,
        trainable_parameters=trained,
        seconds=round(seconds, 3),
        seconds_per_step=round(seconds / updates, 4) if updates else None,
        predictions=predictions.tolist(),
        targets=y["test"].tolist(),
    )
    print(f"{method:15s} {value!s:8s} test {run.have(key)['accuracy']:.3f}, trained in {seconds:.1f} s")

# %% [markdown]
# ## What this block found

# %%
lines = [run.have({"key": identity["key"], "method": m, "learning_rate": v}) for m, v in spec.trials(block)]
for line in sorted(lines, key=lambda e: -e["accuracy"]):
    print(f"{line['method']:15s} test {line['accuracy']:.3f}  dev {line['dev_accuracy']:.3f}")
run.record(runs=len(spec.trials(block)))
