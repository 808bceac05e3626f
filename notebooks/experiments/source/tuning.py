# ---
# jupyter:
#   instructlab:
#     id: tuning
#     title: Ways to tune the encoder on one task
#     outcome: one block of every grid "methods × task × seed" on the encoder
#     assets: [minilm, vader, bbc]
#     minutes: {smoke: 0.7, laptop: 5, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Ways to tune the encoder: one block
#
# One notebook for every experiment of this shape. What is tuned how stands in `data/experiments/<experiment>.toml`: a table
# `[methods.NAME]` per method, the tasks, seeds and learning rates. A block is one task and one seed; all its runs see the
# same sentences, in batches of the same order, and start from the same head.
#
# Two stages. `tune` tries the learning rates of each method on seeds that no table uses, and reads dev sentences only.
# `run` takes the best rate and reads the test sentences.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
experiment: str = "lora"  # a file of data/experiments that names this notebook
stage: str = "run"  # tune, run or twin
task: str = "tweet-sentiment"  # a classification task, where the experiment has several
n_train: int = 200  # training sentences, where the experiment varies them
seed: int = 0  # training sentences, order of batches, dropout, head, first values of the methods

# %%
import copy

from instructlab_repro import block as blocks
from instructlab_utils import models, tuners

block = blocks.open_block(experiment, profile, stage, task=task, n_train=n_train, seed=seed)
settings = block.settings
place = {"task": getattr(settings, "task", task), "n_train": getattr(settings, "n_train", n_train)}
data = blocks.sentences(block, **place)
plain = models.load_classifier(len(data.task.labels), seed=seed)

# %% [markdown]
# ## What is measured beside accuracy and loss
#
# An experiment names these in its setting `measure`; in the stage `tune` nothing of it is read. `gap`: accuracy on the
# training sentences minus that on the test sentences. `ablation`: test accuracy without the adapters of the layers `lower`,
# and without those of the layers `upper`, nothing trained again.


# %%
def accuracy_on(net, split):
    return data.accuracy(data.logits(net, split)[split], split)


def gap(net, line):
    found = accuracy_on(net, "train")
    return {"train_accuracy": found, "gap": found - line["accuracy"]}


def ablation(net, _):
    if net is None or not any(isinstance(m, tuners.adapters.Bottleneck) for m in net.modules()):
        return {}
    found = {}
    for part in ("lower", "upper"):
        with tuners.without_adapters(net, tuple(getattr(settings, part))):
            found[f"without_{part}"] = accuracy_on(net, "test")
    return found | {"lower_minus_upper": found["without_lower"] - found["without_upper"]}


MEASURES = {"gap": gap, "ablation": ablation}

# %% [markdown]
# ## Run
#
# `method_parameters` leaves the classification head out, which every method trains. A run whose loss stops being finite
# counts as what its user falls back to: the majority class. In the stage `twin`, which shows what rounding can do, a run
# starts from values that are one part in ten million larger.

# %%
KNOBS = (
    "learning_rate",
    "weight_decay",
    "warmup",
    "steps",
    "batch_size",
)  # of the loop; the rest is the tuner's
head = sum(p.numel() for p in plain.classifier.parameters())
for trial in block.trials():
    table = {**block.spec.method(trial.method, block.block), **trial.inside, **trial.tuned}
    knobs = {name: table.pop(name) for name in KNOBS if name in table}
    net, more = blocks.tuned(copy.deepcopy(plain), table, seed)
    net, line, cost = blocks.fit(
        block, net.to(block.run.device), data.examples["train"], data.pad_id, **more, **knobs
    )
    line |= data.fields(data.logits(net))
    for name in getattr(settings, "measure", ()) if not block.tuning else ():
        line |= MEASURES[name](net, line)
    block.line(trial, cost, **line, method_parameters=line["trainable_parameters"] - head)

# %% [markdown]
# ## What this block found

# %%
block.close("dev_accuracy", "accuracy", "train_loss", "trainable_parameters")
