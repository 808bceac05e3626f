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
stage: str = "run"  # tune or run
task: str = "movie-sentiment"  # a task of instructlab_utils.tasks
n_train: int = 50  # training sentences
seed: int = 0  # subsample, order of batches, dropout, head, random weights

# %%
import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from instructlab_repro import experiments
from instructlab_utils import metrics, models, start, tasks, training

run = start("baselines", profile=profile, seed=seed)
spec = experiments.load("baselines").at(run.profile)
block = spec.block(stage=stage, task=task, n_train=n_train, seed=seed)
settings = spec.settings_of(block)

# %% [markdown]
# ## Data
#
# Training sentences depend on the seed. Dev and test sentences are the same for all seeds. Nobody reads beyond the
# encoder's limit: texts are cut at the last character of its last token, and TF-IDF gets the cut text too.

# %%
corpus = tasks.load(task)
train_rows = tasks.subsample(corpus.splits["train"], n_train, seed)
dev_rows = tasks.subsample(corpus.splits["dev"], settings.dev, 0)
test_rows = tasks.subsample(corpus.splits["test"], settings.test, 0)
rows = {"train": train_rows, "dev": dev_rows, "test": test_rows}
y = {name: np.array(split["label"]) for name, split in rows.items()}

tokenizer = models.load_tokenizer("encoder")
pad_id = tokenizer.pad_token_id
examples = {name: training.encode(split, tokenizer, settings.max_length) for name, split in rows.items()}


def cut(texts):
    found = tokenizer(texts, truncation=True, max_length=settings.max_length, return_offsets_mapping=True)
    return [text[: spans[-2][1]] for text, spans in zip(texts, found["offset_mapping"], strict=True)]


texts = {name: cut(list(split["text"])) for name, split in rows.items()}
print(
    {name: len(split) for name, split in rows.items()}, f"{settings.steps} updates of {settings.batch_size}"
)

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
# parameters, and the number of updates. `measured` holds the cost of the training alone, without loading and predicting.

# %%
measured = {}


def majority():
    with run.measure() as measured["cost"]:
        pass
    counts = np.bincount(y["train"], minlength=len(corpus.labels)).astype(float)
    return {name: np.tile(counts, (len(y[name]), 1)) for name in ("dev", "test")}, 0, 0


def logistic(features, pipeline):
    with run.measure() as measured["cost"]:
        pipeline.fit(features["train"], y["train"])
    scores = {name: np.log(pipeline.predict_proba(features[name]) + 1e-12) for name in ("dev", "test")}
    last = pipeline[-1]
    return scores, last.coef_.size + last.intercept_.size, 0


def tfidf_lr(C):
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    return logistic(texts, make_pipeline(words, LogisticRegression(C=C, max_iter=2000)))


def frozen_lr(view, C):
    features = {name: part[view].numpy() for name, part in views.items()}
    return logistic(features, make_pipeline(LogisticRegression(C=C, max_iter=2000)))


# %%
def head_only(learning_rate):
    """The linear head of the classifier alone, trained by the loop's optimiser on cached pooler outputs."""
    head = models.load_classifier(len(corpus.labels), seed=seed).classifier
    dropout, labels = torch.nn.Dropout(0.1), torch.tensor(y["train"])
    optimizer = torch.optim.AdamW(training.parameter_groups(head, 0.01), fused=True)
    lengths = [len(example["input_ids"]) for example in examples["train"]]
    torch.manual_seed(seed)
    done, epoch = 0, 0
    with run.measure() as measured["cost"]:
        while done < settings.steps:
            generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
            buckets = training.length_buckets(lengths, settings.batch_size, generator)
            for chosen in buckets[: settings.steps - done]:
                logits = head(dropout(views["train"]["pooler"][chosen]))
                torch.nn.functional.cross_entropy(logits, labels[chosen]).backward()
                training.clip_gradients(head.parameters(), 1.0)
                for group in optimizer.param_groups:
                    factor = training.linear_schedule(done, settings.steps, round(0.1 * settings.steps))
                    group["lr"] = learning_rate * factor
                optimizer.step()
                optimizer.zero_grad()
                done += 1
            epoch += 1
    with torch.no_grad():
        scores = {name: head(views[name]["pooler"]).numpy() for name in ("dev", "test")}
    return scores, sum(p.numel() for p in head.parameters()), settings.steps


def fine_tuned(learning_rate, pretrained):
    """All weights, from the pre-trained checkpoint or from random ones."""
    net = models.load_classifier(len(corpus.labels), pretrained=pretrained, seed=seed).to(run.device)
    with run.measure() as measured["cost"]:
        training.train(
            net, examples["train"], steps=settings.steps, learning_rate=learning_rate, pad_id=pad_id,
            batch_size=settings.batch_size, seed=seed,
        )  # fmt: skip
    scores = {name: training.predict(net, examples[name], pad_id).numpy() for name in ("dev", "test")}
    return scores, sum(p.numel() for p in net.parameters()), settings.steps


# %%
METHODS = {
    "majority": majority,
    "tfidf_lr": tfidf_lr,
    "frozen_cls_lr": lambda C: frozen_lr("cls", C),
    "frozen_mean_lr": lambda C: frozen_lr("mean", C),
    "head_only": head_only,
    "full": lambda learning_rate: fine_tuned(learning_rate, pretrained=True),
    "random_init": lambda learning_rate: fine_tuned(learning_rate, pretrained=False),
}

# %% [markdown]
# ## Run
#
# One line per run, on the disk before the next one starts. A line that an interrupted execution left is not computed
# again.

# %%
for trial in spec.trials(block):
    if run.have(trial.key):
        continue
    scores, trained, updates = METHODS[trial.method](**trial.tuned)
    predictions = scores["test"].argmax(1)
    log_p = torch.log_softmax(torch.tensor(scores["test"], dtype=torch.float64), -1)
    run.line(
        spec.identity(block) | trial.key,
        **vars(measured["cost"]),
        steps=updates,
        accuracy=metrics.accuracy(y["test"], predictions),
        macro_f1=metrics.macro_f1(y["test"], predictions),
        dev_accuracy=metrics.accuracy(y["dev"], scores["dev"].argmax(1)),
        test_loss=-log_p[range(len(y["test"])), y["test"]].mean().item()
        if trial.method != "majority"
        else None,
        trainable_parameters=trained,
        predictions=predictions.tolist(),
        targets=y["test"].tolist(),
    )
    line, knobs = run.have(trial.key), ", ".join(f"{k} = {v:g}" for k, v in trial.tuned.items())
    print(f"{trial.method:15s} {knobs:22s} test {line['accuracy']:.3f}, trained in {line['seconds']:.1f} s")

# %% [markdown]
# ## What this block found

# %%
lines = [run.have(trial.key) for trial in spec.trials(block)]
for line in sorted(lines, key=lambda e: -e["accuracy"]):
    print(f"{line['method']:15s} test {line['accuracy']:.3f}  dev {line['dev_accuracy']:.3f}")
run.record(runs=len(lines))
