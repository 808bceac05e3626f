# ---
# jupyter:
#   instructlab:
#     id: adapters
#     title: How much of the model must train?
#     outcome: one block of the grid behind lesson 08
#     assets: [minilm, vader, bbc]
#     minutes: {smoke: 0.4, laptop: 2, gpu: 0.5}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `adapters`: one block
#
# Eight choices of what to train, from the head alone to everything, on the same sentences with the same number of updates and
# of learning rates tried. A block is one task and one seed. The grid stands in `data/experiments/adapters.toml`; lesson 08
# explains it.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune or run
task: str = "movie-sentiment"  # a task of instructlab_utils.tasks
seed: int = 0  # training sentences, order of batches, dropout, head, the methods' first values

# %%
import numpy as np
import torch

from instructlab_repro import experiments
from instructlab_utils import metrics, models, start, tasks, training, tuners
from instructlab_utils.errors import TrainingError

run = start("adapters", profile=profile, seed=seed)
spec = experiments.load("adapters").at(run.profile)
block = spec.block(stage=stage, task=task, seed=seed)
settings = spec.settings_of(block)

# %% [markdown]
# ## Data
#
# Training sentences depend on the seed; dev and test sentences are the same for all seeds. Tuning never reads the test
# sentences, and a result never reads the dev sentences.

# %%
corpus = tasks.load(task)
tokenizer = models.load_tokenizer("encoder")
pad_id = tokenizer.pad_token_id
sizes = {"train": settings.n_train} | ({"dev": settings.dev} if stage == "tune" else {"test": settings.test})
rows = {
    name: tasks.subsample(corpus.splits[name], n, seed if name == "train" else 0) for name, n in sizes.items()
}
examples = {name: training.encode(split, tokenizer, settings.max_length) for name, split in rows.items()}
y = {name: np.array(split["label"]) for name, split in rows.items()}
print({name: len(split) for name, split in rows.items()}, f"{settings.steps} updates")

# %% [markdown]
# ## The methods
#
# One line each; lesson 08 builds them. `full` has no method: everything trains.

# %%
TUNERS = {
    "top_1": tuners.TopLayers(1),
    "houlsby_64": tuners.Houlsby(64),
    "houlsby_8": tuners.Houlsby(8),
    "bitfit": tuners.BitFit(),
    "layer_norm": tuners.LayerNorms(),
    "ia3": tuners.IA3(),
    "head_only": tuners.HeadOnly(),
}


def build(method):
    net = models.load_classifier(len(corpus.labels), seed=seed).to(run.device)
    return net if method == "full" else tuners.inject(net, TUNERS[method], seed=seed)


def accuracy(net, name):
    """Accuracy on a split, and the predicted labels."""
    predictions = training.predict(net, examples[name], pad_id).argmax(-1).tolist()
    return metrics.accuracy(y[name], predictions), predictions


# %% [markdown]
# ## What is read off a trained model
#
# Tuning needs the dev accuracy. A result is the test accuracy with its predictions. Two methods also read the training
# sentences again, for the gap between training and test (claim C3). From the larger adapters two pairs of blocks are then
# taken out, one pair at a time, without any training (claim H3).


# %%
def read(net, method):
    if stage == "tune":
        return {"dev_accuracy": accuracy(net, "dev")[0]}
    score, predictions = accuracy(net, "test")
    found = {"accuracy": score, "predictions": predictions, "targets": y["test"].tolist()}
    if method in ("full", "houlsby_64"):
        found["train_accuracy"] = accuracy(net, "train")[0]
        found["gap"] = found["train_accuracy"] - score
    if method == "houlsby_64":
        for name, layers in (("lower", settings.lower), ("upper", settings.upper)):
            with tuners.without_adapters(net, tuple(layers)):
                found[f"without_{name}"] = accuracy(net, "test")[0]
        found["lower_minus_upper"] = found["without_lower"] - found["without_upper"]
    return found


# %% [markdown]
# ## Run
#
# One line per run, on the disk before the next one starts. A run whose loss stops being finite is scored as the untrained
# model.

# %%
for trial in spec.trials(block):
    if run.have(trial.key):
        continue
    torch.manual_seed(seed)
    net, diverged = build(trial.method), 0
    count = sum(p.numel() for p in tuners.trainable(net).values())
    with run.measure() as cost:
        try:
            history = training.train(
                net, examples["train"], steps=settings.steps, pad_id=pad_id, batch_size=settings.batch_size,
                seed=seed, **trial.tuned,
            )  # fmt: skip
        except TrainingError as error:
            print(f"{trial.method}: {error}")
            net, diverged = build(trial.method), 1
    found = read(net, trial.method)
    run.line(
        spec.identity(block) | trial.key,
        **vars(cost),
        **found,
        steps=settings.steps,
        trainable_parameters=count,
        ms_per_step=1000 * cost.cpu_seconds / settings.steps,
        train_loss=None if diverged else float(np.mean(history.losses[-5:])),
        diverged=diverged,
    )
    shown = ", ".join(f"{k} {v:.3f}" for k, v in found.items() if isinstance(v, float))
    print(f"{trial.method:11s} {dict(trial.tuned)}: {shown}; {cost.seconds:.1f} s")

# %% [markdown]
# ## What this block found

# %%
lines = [run.have(trial.key) for trial in spec.trials(block)]
shown = "accuracy" if stage == "run" else "dev_accuracy"
for line in sorted(lines, key=lambda e: -e[shown]):
    print(f"{line['method']:11s} {shown} {line[shown]:.3f}  {line['trainable_parameters']} parameters")
run.record(runs=len(lines))
