# ---
# jupyter:
#   instructlab:
#     id: regularisers
#     title: Regularisers on fifty and two hundred sentences
#     outcome: one block of the grid behind claims C14, C12 and C25
#     assets: [minilm, vader, bigbench]
#     minutes: {smoke: 0.7, laptop: 6, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `regularisers`: one block
#
# One plain way to fine-tune an encoder on `n_train` film sentences, and nine that are said to overfit less. A block is one
# training size and one seed; all methods see the same film sentences, the same rates, and the same amount of computing (an
# ensemble, that of its members). The grid stands in `data/experiments/regularisers.toml`, the claims that it serves in
# `data/claims/C14.toml`, `C12.toml` and `C25.toml`; lesson 07 explains the methods.
#
# Each method but the plain one and the ensemble has one knob. The stage `tune` tries three values of it, once, on a seed that
# the tables do not use, and looks only at the dev sentences. `run` takes the value that was best there.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune or run
n_train: int = 50  # film sentences to train on
seed: int = 0  # subsample, head, order of batches, dropout, augmentation

# %%
import random
from functools import cache

import numpy as np
import torch

from instructlab_repro import experiments
from instructlab_utils import augmentation, losses, metrics, models, start, tasks, training

run = start("regularisers", profile=profile, seed=seed)
spec = experiments.load("regularisers").at(run.profile)
block = spec.block(stage=stage, n_train=n_train, seed=seed)
settings = spec.settings_of(block)

# %% [markdown]
# ## Data
#
# Training sentences depend on the seed. Dev and test sentences are the same for all seeds. The tweets and editorials of the
# multi-task method have labels of their own, 2 and 3, 4 and 5.

# %%
film = tasks.load("movie-sentiment")
splits = {"train": (n_train, seed), "dev": (settings.dev, 0)}
if stage == "run":
    splits["test"] = (settings.test, 0)
rows = {name: tasks.subsample(film.splits[name], *chosen) for name, chosen in splits.items()}
y = {name: np.array(part["label"]) for name, part in rows.items()}

tokenizer = models.load_tokenizer("encoder")
pad_id = tokenizer.pad_token_id
examples = {name: training.encode(part, tokenizer, settings.max_length) for name, part in rows.items()}


def related(per_film_sentence):
    """As many sentences of the related tasks, half of them tweets, half editorials."""
    found = []
    for head, name in enumerate(("tweet-sentiment", "editorial-sentiment"), start=1):
        task = tasks.load(name)
        assert task.labels == film.labels
        part = tasks.subsample(task.splits["train"], per_film_sentence * n_train // 2, seed)
        coded = training.encode(part, tokenizer, settings.max_length)
        found += [example | {"labels": example["labels"] + 2 * head} for example in coded]
    return found


# %% [markdown]
# ## Augmentation
#
# Each training sentence gets `copies` changed ones with its label. The word embeddings of the encoder give the neighbours,
# pairs of English and German product reviews the dictionary.


# %%
@cache
def neighbours():
    table = models.load_encoder().get_input_embeddings().weight.detach()
    vocabulary = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    wanted = {word for text in rows["train"]["text"] for word in augmentation.words_of(text)}
    return augmentation.nearest_words(table, vocabulary, wanted)


@cache
def dictionaries():
    pairs = tasks.load("products-en-de").splits["train"].select(range(settings.parallel))
    both = [(augmentation.words_of(row["source"]), augmentation.words_of(row["targets"][0])) for row in pairs]
    return augmentation.dictionary(both), augmentation.dictionary([(g, e) for e, g in both])


def augmented(change):
    rng, new = random.Random(seed), []
    for row in rows["train"]:
        words = augmentation.words_of(row["text"])
        new += [{"text": " ".join(change(words, rng)), "label": row["label"]} for _ in range(settings.copies)]
    return examples["train"] + training.encode(new, tokenizer, settings.max_length)


# %% [markdown]
# ## The methods
#
# All of them: the same number of updates at the same peak rate, word embeddings frozen. Plain means no dropout, no decay, the
# weights after the last update. R-Drop passes every batch twice, so it makes half as many updates.


# %%
def logits_of(model, batch):
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def r_drop_losses(alpha):
    return lambda model, batch: losses.r_drop(
        logits_of(model, batch), logits_of(model, batch), batch["labels"], alpha
    )


def smoothed_losses(smoothing):
    return lambda model, batch: losses.cross_entropy(logits_of(model, batch), batch["labels"], smoothing)


def task_losses(model, batch):
    """Labels 2 t and 2 t + 1 belong to task t, which owns the t-th pair of logits."""
    task, label = batch["labels"] // 2, batch["labels"] % 2
    pairs = logits_of(model, batch).unflatten(1, (-1, 2))
    return losses.cross_entropy(pairs[torch.arange(len(task)), task], label)


def fit(train_on, *, head_seed=seed, heads=1, dropout=0.0, steps=settings.steps, **knobs):
    """Logits of the film task by split, what the training cost, and the number of updates."""
    net = models.load_classifier(2 * heads, seed=head_seed).to(run.device)
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    net.get_input_embeddings().weight.requires_grad_(False)
    chosen = {"weight_decay": 0.0, "learning_rate": settings.learning_rate, "seed": head_seed} | knobs
    with run.measure() as cost:
        training.train(net, train_on, steps=steps, pad_id=pad_id, batch_size=settings.batch_size, **chosen)
    asked = examples if stage == "run" else {"dev": examples["dev"]}
    logits = {name: training.predict(net, part, pad_id)[:, :2].numpy() for name, part in asked.items()}
    return logits, cost, steps


# %%
@cache
def member(number):
    """The plain method, with another head and another order of the batches for each number."""
    return fit(examples["train"], head_seed=seed + 1000 * number)


def ensemble():
    found = [member(number) for number in range(settings.members)]
    mean = {
        name: np.log(np.mean([torch.tensor(z[name]).softmax(1).numpy() for z, *_ in found], axis=0) + 1e-12)
        for name in examples
    }
    cost = {field: sum(getattr(c, field) for _, c, _ in found) for field in ("seconds", "cpu_seconds")}
    cost["peak_memory_mb"] = max(c.peak_memory_mb for _, c, _ in found)
    return mean, type(found[0][1])(**cost), sum(steps for *_, steps in found)


films = examples["train"]
METHODS = {
    "plain": lambda: member(0),
    "dropout": lambda p: fit(films, dropout=p),
    "weight_decay": lambda decay: fit(films, weight_decay=decay),
    "early_stopping": lambda eval_every: fit(films, dev=examples["dev"], eval_every=eval_every),
    "label_smoothing": lambda epsilon: fit(films, objective=smoothed_losses(epsilon)),
    "r_drop": lambda alpha: fit(
        films, dropout=0.1, steps=settings.steps // 2, objective=r_drop_losses(alpha)
    ),
    "eda": lambda share: fit(augmented(lambda w, rng: augmentation.eda(w, neighbours(), share, rng))),
    "back_translation": lambda share: fit(
        augmented(lambda w, rng: augmentation.back_translate(w, *dictionaries(), share, rng))
    ),
    "multi_task": lambda related_per_film: fit(
        films + related(related_per_film), heads=3, objective=task_losses
    ),
    "ensemble": ensemble,
}


# %% [markdown]
# ## What is measured
#
# The gap is the accuracy on the training sentences minus that on the test sentences. `temperature` is fitted on the dev
# sentences; the loss and the calibration error after it say what is left when the confidence has been repaired.


# %%
def measured(logits):
    found = {}
    for name, z in logits.items():
        z, classes = torch.tensor(z, dtype=torch.float64), torch.tensor(y[name])
        found[f"{name}_accuracy"] = metrics.accuracy(y[name], z.argmax(1))
        found[f"{name}_loss"] = losses.cross_entropy(z, classes).mean().item()
    if "test" not in logits:
        return found
    z, classes = torch.tensor(logits["test"], dtype=torch.float64), torch.tensor(y["test"])
    temperature = metrics.fit_temperature(logits["dev"], y["dev"])
    return found | {
        "accuracy": found.pop("test_accuracy"),
        "gap": found["train_accuracy"] - metrics.accuracy(y["test"], z.argmax(1)),
        "ece": metrics.expected_calibration_error(z.softmax(1), y["test"]),
        "temperature": temperature,
        "test_loss_tempered": losses.cross_entropy(z / temperature, classes).mean().item(),
        "ece_tempered": metrics.expected_calibration_error((z / temperature).softmax(1), y["test"]),
    }


# %% [markdown]
# ## Run
#
# `members` is no model: its line holds the means over the members of the ensemble, to compare the ensemble with.

# %%
for trial in spec.trials(block):
    if run.have(trial.key):
        continue
    if trial.method == "members":
        each = [member(number) for number in range(settings.members)]
        found = [measured(logits) for logits, *_ in each]
        fields = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
        hits = [logits["test"].argmax(1) == y["test"] for logits, *_ in each]
        fields["scores"] = np.mean(hits, axis=0).round(6).tolist()
        cost, steps = each[0][1], each[0][2]
    else:
        logits, cost, steps = METHODS[trial.method](**trial.tuned)
        fields = measured(logits)
        if stage == "run":
            fields |= {"predictions": logits["test"].argmax(1).tolist(), "targets": y["test"].tolist()}
    run.line(spec.identity(block) | trial.key, **vars(cost), steps=steps, **fields)
    knobs = ", ".join(f"{k} = {v:g}" for k, v in trial.tuned.items())
    print(
        f"{trial.method:16s} {knobs:20s} dev {fields['dev_accuracy']:.3f}, trained in {cost.cpu_seconds:.1f} s"
    )

# %% [markdown]
# ## What this block found

# %%
lines = [run.have(trial.key) for trial in spec.trials(block)]
for line in sorted(lines, key=lambda e: -e.get("accuracy", e["dev_accuracy"])):
    shown = {
        k: line[k] for k in ("train_accuracy", "dev_accuracy", "accuracy", "test_loss", "ece") if k in line
    }
    print(f"{line['method']:16s}", "  ".join(f"{name} {value:.3f}" for name, value in shown.items()))
run.record(runs=len(lines))
