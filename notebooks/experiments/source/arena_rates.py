# ---
# jupyter:
#   instructlab:
#     id: arena_rates
#     title: What rate and first values move, and what the method moves
#     outcome: one block of the grid behind claim TA1
#     assets: [minilm, vader]
#     minutes: {smoke: 0.6, laptop: 3, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `arena_rates`: one block
#
# A soft prompt with two kinds of first values and four learning rates, beside LoRA and full fine-tuning at their tuned
# rates. Is the spread of one method's settings wider than the gap between two methods? A block is one seed. The grid stands
# in `data/experiments/arena_rates.toml`, the claim in `data/claims/TA1.toml`; lesson 11 explains it.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune or run
seed: int = 0  # training sentences, order of batches, dropout, head, the methods' first values

# %%
import numpy as np

from instructlab_repro import experiments
from instructlab_utils import metrics, models, start, tasks, training, tuners
from instructlab_utils.errors import TrainingError

run = start("arena_rates", profile=profile, seed=seed)
spec = experiments.load("arena_rates").at(run.profile)
block = spec.block(stage=stage, seed=seed)
settings = spec.settings_of(block)

# %% [markdown]
# ## Data
#
# The training sentences depend on the seed. Dev and test sentences are the same for all seeds.

# %%
corpus = tasks.load(settings.task)
tokenizer = models.load_tokenizer("encoder")
sizes = {"train": settings.n_train, "dev": settings.dev, "test": settings.test}
rows = {
    name: tasks.subsample(corpus.splits[name], n, seed if name == "train" else 0) for name, n in sizes.items()
}
truth = {name: np.array(part["label"]) for name, part in rows.items()}
examples = {name: training.encode(part, tokenizer, settings.max_length) for name, part in rows.items()}
print({name: len(part) for name, part in rows.items()}, f"{settings.steps} updates")

# %% [markdown]
# ## Methods
#
# A soft prompt's name holds its settings: the kind of first values and the rate. `normal` draws numbers of scale one, as
# peft does by default; `vocab` copies the embeddings of random words.


# %%
def build(method):
    net = models.load_classifier(len(corpus.labels), seed=seed)
    if method == "full":
        return net
    kind = method.split("_")[0]
    how = tuners.Lora(settings.rank, settings.rank)
    if kind != "lora":
        how = tuners.PromptTuning(settings.length, init=kind)
    return tuners.inject(net, how, seed=seed)


def fit(method, learning_rate):
    """Predicted labels of dev and test (those of an untrained model's fallback where the loss diverged), and the cost."""
    net = build(method).to(run.device)
    with run.measure() as cost:
        try:
            training.train(
                net, examples["train"], steps=settings.steps, learning_rate=learning_rate,
                pad_id=tokenizer.pad_token_id, batch_size=settings.batch_size, seed=seed,
            )  # fmt: skip
        except TrainingError as error:
            print(f"{method}: {error}")
            majority = np.bincount(truth["train"]).argmax()
            return {name: np.full(len(truth[name]), majority) for name in ("dev", "test")}, cost
    split = ("dev", "test")
    return {
        name: training.predict(net, examples[name], tokenizer.pad_token_id).numpy().argmax(1)
        for name in split
    }, cost


# %% [markdown]
# ## Run
#
# One line per run, on the disk before the next one starts.

# %%
for trial in spec.trials(block):
    if run.have(trial.key):
        continue
    learning_rate = trial.tuned.get("learning_rate") or float(trial.method.split("_")[1])
    predicted, cost = fit(trial.method, learning_rate)
    run.line(
        spec.identity(block) | trial.key,
        **vars(cost),
        steps=settings.steps,
        accuracy=metrics.accuracy(truth["test"], predicted["test"]),
        dev_accuracy=metrics.accuracy(truth["dev"], predicted["dev"]),
        predictions=predicted["test"].tolist(),
        targets=truth["test"].tolist(),
    )
    line = run.have(trial.key)
    print(f"{trial.method:13s} at {learning_rate:g}: test {line['accuracy']:.3f}, {line['seconds']:.1f} s")

# %% [markdown]
# ## What this block found

# %%
lines = [run.have(trial.key) for trial in spec.trials(block)]
for line in sorted(lines, key=lambda e: -e["accuracy"]):
    print(f"{line['method']:13s} test {line['accuracy']:.3f}")
run.record(runs=len(lines))
