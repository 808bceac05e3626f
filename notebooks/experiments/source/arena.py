# ---
# jupyter:
#   instructlab:
#     id: arena
#     title: "The arena: every way to tune, on equal terms"
#     outcome: one block of the grid behind lesson 11
#     assets: [minilm, vader, bigbench, bbc]
#     minutes: {smoke: 1.0, laptop: 15, gpu: 3}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `arena`: one block
#
# Full fine-tuning, frozen features and the methods of lessons 08 to 10, on the same sentences, with the same number of
# updates and of learning rates tried. A block is one task and one seed. The grid stands in `data/experiments/arena.toml`;
# lesson 11 explains it.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune or run
task: str = "tweet-sentiment"  # a classification task, or e2e-slots
seed: int = 0  # training sentences, order of batches, dropout, head, the methods' first values

# %%
import functools
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from instructlab_repro import experiments
from instructlab_utils import metrics, models, start, tagging, tasks, training, tuners
from instructlab_utils.errors import TrainingError

run = start("arena", profile=profile, seed=seed)
spec = experiments.load("arena").at(run.profile)
block = spec.block(stage=stage, task=task, seed=seed)
settings = spec.settings_of(block)

# %% [markdown]
# ## Data
#
# One task labels sentences, the other labels words. The training sentences depend on the seed; dev and test sentences are
# the same for all seeds. The probe's sentences belong to a third task, which no method is trained on.

# %%
corpus = tasks.load(task)
per_word = corpus.kind == "tokens"
labels = tagging.labels_of(corpus) if per_word else list(corpus.labels)
tokenizer = models.load_tokenizer("encoder")
pad_id = tokenizer.pad_token_id


def drawn(split, n, chosen_by):
    """Examples for the model, and the truth: tags of every sentence, or one label each."""
    if per_word:
        rows = tagging.sentences(corpus, split, n, chosen_by, settings.max_words)
        return tagging.encode(rows, tokenizer, labels), [row["tags"] for row in rows]
    rows = tasks.subsample(corpus.splits[split], n, chosen_by)
    return training.encode(rows, tokenizer, settings.max_length), np.array(rows["label"])


sizes = {"train": settings.n_train, "dev": settings.dev, "test": settings.test}
found = {name: drawn(name, n, seed if name == "train" else 0) for name, n in sizes.items()}
examples, truth = ({name: part[i] for name, part in found.items()} for i in (0, 1))

probe_task = tasks.load(settings.probe_task)
probe_rows = {
    name: tasks.subsample(probe_task.splits[name], n, 0)
    for name, n in (("train", settings.probe_train), ("test", settings.probe_test))
}
probe_examples = {
    name: training.encode(r, tokenizer, settings.probe_length) for name, r in probe_rows.items()
}
print({name: len(part) for name, part in examples.items()}, f"{settings.steps} updates")

# %% [markdown]
# ## Reading a model
#
# The score is the accuracy for sentences and span F1 for words. `hidden` reads the encoder's last layer through a hook, at
# the positions of the text alone: a soft prompt stands before them.


# %%
def first_pieces(example):
    return [label != training.IGNORED for label in example["labels"]]


def read(ids, name):
    """The score of the predicted label numbers of a split, and 1 for every sentence that is right as a whole."""
    if not per_word:
        right = np.equal(ids, truth[name])
        return float(right.mean()), right.astype(float).tolist()
    decoded = [[labels[k] for k in row] for row in ids]
    right = [float(list(a) == b) for a, b in zip(truth[name], decoded, strict=True)]
    return metrics.span_f1(truth[name], decoded), right


def predict(net, name):
    if not per_word:
        return training.predict(net, examples[name], pad_id).argmax(-1).tolist()
    pairs = zip(training.token_logits(net, examples[name], pad_id), examples[name], strict=True)
    return [z[first_pieces(example)].argmax(-1).tolist() for z, example in pairs]


@torch.no_grad()
def hidden(net, part):
    """The last layer's states of the text's tokens: one (T, 384) tensor per example."""
    was_training = net.training
    net.eval()
    encoder = next(m for n, m in net.named_modules() if n.endswith("bert.encoder") or n == "encoder")
    states = []
    hook = encoder.register_forward_hook(lambda _m, _i, out: states.append(out.last_hidden_state))
    found = [None] * len(part)
    order = sorted(range(len(part)), key=lambda i: len(part[i]["input_ids"]))
    for begin in range(0, len(order), 64):
        chosen = order[begin : begin + 64]
        keep = [{"input_ids": part[i]["input_ids"], "labels": 0} for i in chosen]
        batch = training.move(training.collate(keep, pad_id), run.device)
        net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        text = states.pop()[:, -batch["input_ids"].shape[1] :].float().cpu()
        for i, row in zip(chosen, text, strict=True):
            found[i] = row[: len(part[i]["input_ids"])]
    hook.remove()
    net.train(was_training)
    return found


def logistic(C):
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=500))


def probe(net):
    """Test accuracy of a logistic regression on the mean states of the third task's sentences."""
    x = {name: torch.stack([h.mean(0) for h in hidden(net, part)]) for name, part in probe_examples.items()}
    fitted = logistic(settings.probe_C).fit(x["train"].numpy(), probe_rows["train"]["label"])
    return float(fitted.score(x["test"].numpy(), probe_rows["test"]["label"]))


# %% [markdown]
# ## The methods
#
# One line each: lessons 08 to 10 build them. All have the model's head too, and `full` has all weights.

# %%
TUNERS = {
    "top_2": tuners.TopLayers(2),
    "houlsby": tuners.Houlsby(64),
    "pfeiffer": tuners.Pfeiffer(64),
    "parallel": tuners.Parallel(64),
    "ia3": tuners.IA3(),
    "bitfit": tuners.BitFit(),
    "layer_norm": tuners.LayerNorms(),
    "lora": tuners.Lora(8, 8),
    "rslora": tuners.Lora(32, 32, rslora=True),
    "dora": tuners.Lora(8, 8, dora=True),
    "pissa": tuners.Lora(8, 8, init="pissa"),
    "vera": tuners.Vera(256),
    "adalora": tuners.AdaLora(
        init_r=12,
        target_r=8,
        total_step=settings.steps,
        tinit=settings.steps // 10,
        tfinal=settings.steps // 4,
    ),
    "prompt": tuners.PromptTuning(20, init="vocab"),
    "prompt_long": tuners.PromptTuning(20, init="vocab"),
    "p_tuning": tuners.PTuning(20),
    "prefix": tuners.PrefixTuning(20),
    "deep": tuners.DeepPrompts(20, init="vocab"),
}


def fresh():
    load = models.load_tagger if per_word else models.load_classifier
    return load(len(labels), seed=seed)


def build(method):
    return fresh() if method == "full" else tuners.inject(fresh(), TUNERS[method], seed=seed)


def bytes_on_disk(net, method):
    """What somebody stores for this task: the adapter and its head, or the whole model."""
    with tempfile.TemporaryDirectory() as folder:
        if method == "full":
            save_file({n: t.contiguous() for n, t in net.state_dict().items()}, f"{folder}/model.safetensors")
        else:
            tuners.save(net, folder)
        return sum(file.stat().st_size for file in Path(folder).iterdir())


# %% [markdown]
# ## What training must hold
#
# All weights; for every trained one its gradient and AdamW's two averages; and what the forward pass of one batch keeps for
# the backward pass, each storage once. The process's own peak stands beside it: it holds Python, the data and whatever the
# allocator has not given back.


# %%
def held_mb(net):
    """MiB, for the first batch of the training sentences."""
    weights = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in net.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    chosen = sorted(examples["train"], key=lambda e: len(e["input_ids"]))[-settings.batch_size :]
    batch = next(training.batches_of(chosen, settings.batch_size, pad_id, seed))
    net.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = training.target_losses(net, training.move(batch, run.device)).mean()
    trained = sum(p.numel() * p.element_size() for p in tuners.trainable(net).values())
    total = sum(weights.values()) + 3 * trained + sum(kept.values())
    del loss
    net.eval()
    return total / 2**20


# %% [markdown]
# ## Train and measure
#
# The probe's fall is measured with the adapter switched on. Frozen features forget nothing: their encoder is the pinned one.


# %%
@functools.cache
def untouched():
    net = fresh().to(run.device)
    with run.measure() as cost:
        states = {"train": hidden(net, examples["train"])}
    states |= {name: hidden(net, examples[name]) for name in ("dev", "test")}
    return states, probe(net), cost


def frozen(C):
    """Logistic regression on the mean of the frozen states, or on the state of each word's first piece."""
    states, _, cost = untouched()

    def features(name):
        pairs = zip(states[name], examples[name], strict=True)
        return [h[first_pieces(e)].numpy() if per_word else h.mean(0, keepdim=True).numpy() for h, e in pairs]

    y = [[labels.index(tag) for tag in tags] for tags in truth["train"]] if per_word else [truth["train"]]
    begin = time.process_time()
    model = logistic(C).fit(np.concatenate(features("train")), np.concatenate(y))
    seconds = time.process_time() - begin
    weights = model[-1].coef_.size + model[-1].intercept_.size
    ids = {name: [model.predict(rows).tolist() for rows in features(name)] for name in read_splits}
    if not per_word:
        ids = {name: [row[0] for row in rows] for name, rows in ids.items()}
    batches = -(-len(examples["train"]) // settings.batch_size)
    found = {
        "steps": 0,
        "trainable_parameters": weights,
        "ms_per_step": 1000 * (cost.cpu_seconds + seconds) / batches,
        "bytes": 4 * weights,
        "held_mb": sum(p.numel() * 4 for p in fresh().parameters()) / 2**20,
        "forgetting": 0.0,
    }
    return ids, found, cost


def tuned(method, learning_rate):
    torch.manual_seed(seed)
    net = build(method).to(run.device)
    steps = settings.long_steps if method.endswith("_long") else settings.steps
    with run.measure() as cost:
        history = training.train(
            net, examples["train"], steps=steps, learning_rate=learning_rate, pad_id=pad_id,
            batch_size=settings.batch_size, seed=seed, **({} if method == "full" else tuners.extras(net)),
        )  # fmt: skip
    ids = {name: predict(net, name) for name in read_splits}
    found = {
        "steps": steps,
        "trainable_parameters": sum(p.numel() for p in tuners.trainable(net).values()),
        "train_loss": float(np.mean(history.losses[-5:])),
        "ms_per_step": 1000 * cost.cpu_seconds / steps,
    }
    if stage == "run":
        found |= {
            "bytes": bytes_on_disk(net, method),
            "held_mb": held_mb(net),
            "forgetting": untouched()[1] - probe(net),
        }
    return ids, found, cost


# %% [markdown]
# ## Run
#
# One line per run, on the disk before the next one starts. Tuning never reads the test sentences. A run whose loss stops
# being finite is scored as what its user falls back to: nothing learned.

# %%
read_splits = ("dev", "test") if stage == "run" else ("dev",)
nothing = {
    n: [[0] * len(row) for row in truth[n]] if per_word else [0] * len(truth[n]) for n in ("dev", "test")
}
for trial in spec.trials(block):
    if run.have(trial.key):
        continue
    try:
        if trial.method == "frozen":
            ids, line, cost = frozen(**trial.tuned)
        else:
            ids, line, cost = tuned(trial.method, **trial.tuned)
    except TrainingError as error:
        print(f"{trial.method}: {error}")
        ids, line, cost = nothing, {"diverged": 1}, None
    read_out = {name: read(ids[name], name) for name in read_splits}
    run.line(
        spec.identity(block) | trial.key,
        **(vars(cost) if cost else {}),
        **line,
        dev_score=read_out["dev"][0],
        **({"score": read_out["test"][0], "scores": read_out["test"][1]} if stage == "run" else {}),
    )
    knobs = ", ".join(f"{k} = {v:g}" for k, v in trial.tuned.items())
    print(f"{trial.method:12s} {knobs:22s} dev {read_out['dev'][0]:.3f}, {cost.seconds if cost else 0:.1f} s")

# %% [markdown]
# ## What this block found

# %%
lines = [run.have(trial.key) for trial in spec.trials(block)]
shown = "score" if stage == "run" else "dev_score"
for line in sorted(lines, key=lambda e: -e[shown]):
    print(f"{line['method']:12s} {shown} {line[shown]:.3f}")
run.record(runs=len(lines))
