# ---
# jupyter:
#   instructlab:
#     id: soft_prompts
#     title: Soft prompts by first values, length and depth
#     outcome: one block of the grid behind claims PT1, PT2, PT3 and PV1
#     assets: [minilm, vader]
#     minutes: {smoke: 0.7, laptop: 5, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `soft_prompts`: one block
#
# Soft prompts at the input and at every layer, with several kinds of first values, beside LoRA. A block is one task and one
# seed; all its runs see the same sentences, in batches of the same order, and start from the same head. The grid stands in
# `data/experiments/soft_prompts.toml`, the claims in `data/claims/`. Lesson 10 builds every method.
#
# Two stages. `tune` tries three learning rates per method, once, on a seed that the tables do not use. `run` takes the rate
# that was best on the dev sentences.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune or run
task: str = "tweet-sentiment"  # a classification task of instructlab_utils.tasks
seed: int = 0  # training sentences, order of batches, dropout, head, first values of the methods

# %%
import copy

import numpy as np

from instructlab_repro import experiments
from instructlab_utils import metrics, models, start, tasks, training, tuners

run = start("soft_prompts", profile=profile, seed=seed)
spec = experiments.load("soft_prompts").at(run.profile)
block = spec.block(stage=stage, task=task, seed=seed)
settings = spec.settings_of(block)

# %% [markdown]
# ## Data
#
# The training sentences depend on the seed. Dev and test sentences are the same for all seeds. Nobody reads more than the
# first tokens of a sentence that `max_length` allows.

# %%
corpus = tasks.load(task)
sizes = {"train": (settings.n_train, seed), "dev": (settings.dev, 0), "test": (settings.test, 0)}
rows = {name: tasks.subsample(corpus.splits[name], *chosen) for name, chosen in sizes.items()}
y = {name: np.array(part["label"]) for name, part in rows.items()}

tokenizer = models.load_tokenizer("encoder")
pad_id = tokenizer.pad_token_id
examples = {name: training.encode(part, tokenizer, settings.max_length) for name, part in rows.items()}
print({name: len(part) for name, part in rows.items()}, f"{settings.steps} updates of {settings.batch_size}")

# %% [markdown]
# ## The methods
#
# Twenty virtual tokens unless the name says otherwise. Three kinds of first values: numbers of scale one, as peft draws
# them; small numbers, as BERT's embeddings were first drawn; embeddings of random words. `deep` is P-Tuning v2, keys and
# values at every layer, which start as those of random words or as numbers of scale one.

# %%
method_of = {
    "lora": tuners.Lora(8, 8),
    "prompt_normal": tuners.PromptTuning(20, init="normal"),
    "prompt_small": tuners.PromptTuning(20, init="small"),
    "prompt_vocab": tuners.PromptTuning(20, init="vocab"),
    "prompt_1": tuners.PromptTuning(1, init="vocab"),
    "deep": tuners.DeepPrompts(20, init="vocab"),
    "deep_normal": tuners.DeepPrompts(20, init="normal"),
}

# %% [markdown]
# ## Train and measure
#
# `method_parameters` leaves the classification head out, which every method trains. The early loss is the mean over the
# second quarter of the updates: late enough to differ, early enough to tell who was fast.

# %%
plain = models.load_classifier(len(corpus.labels), seed=seed)
head = sum(p.numel() for p in plain.classifier.parameters())


def fit(method, learning_rate):
    net = tuners.inject(copy.deepcopy(plain), method_of[method], seed=seed).to(run.device)
    trained = sum(p.numel() for p in tuners.trainable(net).values())
    with run.measure() as cost:
        history = training.train(
            net, examples["train"], steps=settings.steps, learning_rate=learning_rate, pad_id=pad_id,
            batch_size=settings.batch_size, seed=seed,
        )  # fmt: skip
    return net, history, trained, cost


def accuracy(net, name):
    predictions = training.predict(net, examples[name], pad_id).argmax(-1).numpy()
    return metrics.accuracy(y[name], predictions), predictions.tolist()


# %% [markdown]
# ## Run
#
# One line per run, on the disk before the next one starts. In the tuning stage only the dev sentences are read.

# %%
for trial in spec.trials(block):
    if run.have(trial.key):
        continue
    net, history, trained, cost = fit(trial.method, **trial.tuned)
    found = {"dev_accuracy": accuracy(net, "dev")[0]}
    if stage == "run":
        found["accuracy"], found["predictions"] = accuracy(net, "test")
        found["train_accuracy"] = accuracy(net, "train")[0]
        found |= {"gap": found["train_accuracy"] - found["accuracy"], "targets": y["test"].tolist()}
    early = history.losses[settings.steps // 4 : settings.steps // 2]
    run.line(
        spec.identity(block) | trial.key,
        **vars(cost),
        **found,
        steps=settings.steps,
        early_loss=float(np.mean(early)),
        train_loss=float(np.mean(history.losses[-5:])),
        trainable_parameters=trained,
        method_parameters=trained - head,
    )
    rate = trial.tuned["learning_rate"]
    shown = {name: round(value, 3) for name, value in found.items() if isinstance(value, float)}
    print(f"{trial.method:12s} {rate:7.0e} {shown}, trained in {cost.seconds:.1f} s")

# %% [markdown]
# ## What this block found

# %%
lines = [run.have(trial.key) for trial in spec.trials(block)]
for line in sorted(lines, key=lambda line: -line["dev_accuracy"]):
    print(f"{line['method']:12s} dev {line['dev_accuracy']:.3f}, {line['method_parameters']:,} parameters")
run.record(runs=len(lines))
