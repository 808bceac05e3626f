# ---
# jupyter:
#   instructlab:
#     id: lora
#     title: LoRA and its relatives on one task
#     outcome: one block of the grid behind claims C3, LR1, LR3, A1 and D1
#     assets: [minilm, vader]
#     minutes: {smoke: 0.7, laptop: 5, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `lora`: one block
#
# Full fine-tuning against LoRA with several ranks and places, and against LoRA's relatives. A block is one task and one
# seed; all its runs see the same sentences, in batches of the same order, and start from the same head. The grid stands in
# `data/experiments/lora.toml`, the claims in `data/claims/`. Lesson 09 builds every method.
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
from instructlab_utils.tuners.lora import ALL_LINEAR

run = start("lora", profile=profile, seed=seed)
spec = experiments.load("lora").at(run.profile)
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
# $\alpha$ is the same for all ranks, as in the paper. One kind of matrix with rank 16 has as many parameters as two kinds
# with rank 8. AdaLoRA begins with two triplets per
# matrix and ends with one, on average: as many as LoRA of rank 1 on the same matrices.

# %%
every = ALL_LINEAR["bert"]
method_of = {
    "lora_r1": tuners.Lora(1, 8),
    "lora_r8": tuners.Lora(8, 8),
    "lora_r32": tuners.Lora(32, 8),
    "lora_q": tuners.Lora(16, 8, ("query",)),
    "lora_v": tuners.Lora(16, 8, ("value",)),
    "lora_all_r1": tuners.Lora(1, 8, every),
    "dora_r1": tuners.Lora(1, 8, dora=True),
    "adalora": tuners.AdaLora(
        settings.steps, init_r=2, target_r=1, alpha=8, targets=every, tinit=settings.steps // 5,
        tfinal=settings.steps // 4, deltaT=2, orth_reg_weight=0.1,
    ),
}  # fmt: skip

# %% [markdown]
# ## Train and measure
#
# `method_parameters` leaves the classification head out, which every method trains. The early loss is the mean over the
# second quarter of the updates: late enough to differ, early enough to tell who was fast.

# %%
plain = models.load_classifier(len(corpus.labels), seed=seed)
head = sum(p.numel() for p in plain.classifier.parameters())


def fit(method, learning_rate):
    net, more = copy.deepcopy(plain), {}
    if method != "full":
        tuners.inject(net, method_of[method], seed=seed)
        more = tuners.extras(net)
    net.to(run.device)
    trained = sum(p.numel() for p in tuners.trainable(net).values())
    with run.measure() as cost:
        history = training.train(
            net, examples["train"], steps=settings.steps, learning_rate=learning_rate, pad_id=pad_id,
            batch_size=settings.batch_size, seed=seed, **more,
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
