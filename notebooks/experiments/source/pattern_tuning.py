# ---
# jupyter:
#   instructlab:
#     id: pattern_tuning
#     title: Pattern and words or a fresh head, by number of labelled sentences
#     outcome: one block of the grid behind claims E1, LB1 and LB2
#     assets: [smollm2, vader]
#     minutes: {smoke: 0.7, laptop: 5, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `pattern_tuning`: one block
#
# Tuning SmolLM2 on 10, 32 or 320 rated sentences in two ways: with a pattern that ends where one of two words must follow,
# or with a fresh linear head on the bare sentence. A block is one seed. The grid stands in
# `data/experiments/pattern_tuning.toml`, the claims in `data/claims/`; lesson 13 explains the methods.
#
# Two stages. `tune` tries two learning rates per method at 32 sentences, on two seeds that the table does not use, and looks
# at as many dev sentences. `run` takes the better one for all sizes and looks at the test sentences.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune or run
seed: int = 0  # training sentences, order of batches, first values of LoRA and head

# %%
from functools import cache
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from instructlab_repro import experiments
from instructlab_utils import losses, models, start, tasks, training, tuners

run = start("pattern_tuning", profile=profile, seed=seed)
spec = experiments.load("pattern_tuning").at(run.profile)
block = spec.block(stage=stage, seed=seed)
settings = spec.settings_of(block)

# %% [markdown]
# ## Data
#
# Short sentences only: half of the cost of a batch is otherwise padding. `n32-again` is a second draw of 32.

# %%
corpus = tasks.load("movie-sentiment")
tokenizer = models.load_tokenizer("decoder")
pad_id = tokenizer.pad_token_id


def short(rows):
    lengths = [len(ids) for ids in tokenizer(list(rows["text"]))["input_ids"]]
    return rows.select([i for i, n in enumerate(lengths) if n <= settings.longest])


splits = {name: short(rows) for name, rows in corpus.splits.items()}
test = tasks.subsample(splits["test"], settings.test, 0)


def drawn(split, train, chosen_by):
    """As many sentences of a split as ``train`` says; "n32-again" is another draw."""
    again = 1000 if train.endswith("-again") else 0
    return tasks.subsample(splits[split], settings.sizes[train], chosen_by + again)


print({name: len(rows) for name, rows in splits.items()}, f"{len(test)} test sentences")

# %% [markdown]
# ## The lower layers, once per text
#
# They are frozen, so what they make of a text never changes. `seen` keeps it, by the text's tokens.

# %%
bottom, top = models.split_decoder(models.load_decoder(device=run.device).float(), at=settings.layer)
top = tuners.inject(top, tuners.Lora(settings.rank), seed=seed).to(run.device)
first_values = {name: p.detach().clone() for name, p in tuners.trainable(top).items()}
seen = {}


@torch.no_grad()
def encoded(rows, method):
    """Examples for the loop: tokens and label. Computes and keeps the states of texts that are new."""
    form = "{}" if method == "head" else settings.pattern
    found = training.encode([{**row, "text": form.format(row["text"])} for row in rows], tokenizer, 128)
    new = sorted((e for e in found if tuple(e["input_ids"]) not in seen), key=lambda e: len(e["input_ids"]))
    for begin in range(0, len(new), 16):
        batch = training.move(training.collate(new[begin : begin + 16], pad_id), run.device)
        states = bottom(**{k: batch[k] for k in ("input_ids", "attention_mask")}).last_hidden_state
        for example, h in zip(new[begin : begin + 16], states, strict=True):
            seen[tuple(example["input_ids"])] = h[: len(example["input_ids"])].clone()
    return found


# %% [markdown]
# ## The methods
#
# The upper layers read the states; the last one of the text goes to the two rows of the output layer that belong to the
# words, or to a fresh head. `swapped` has the words in the wrong order.


# %%
class Reader(nn.Module):
    """The upper layers, and two logits made from the state of the last token."""

    def __init__(self, method):
        super().__init__()
        ids = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in settings.words]
        rows = top.get_output_embeddings().weight[[i for (i,) in ids]]  # one token each, or this fails
        self.top, self.head = top, None
        self.register_buffer("rows", rows.flip(0) if method == "swapped" else rows, persistent=False)
        if method == "head":
            self.head = nn.Linear(rows.shape[1], 2, device=rows.device)
            torch.nn.init.normal_(self.head.weight, std=0.02, generator=torch.Generator().manual_seed(seed))
            torch.nn.init.zeros_(self.head.bias)

    def forward(self, input_ids, attention_mask):
        lengths = attention_mask.sum(1)
        texts = [tuple(ids[:n].tolist()) for ids, n in zip(input_ids, lengths, strict=True)]
        h = pad_sequence([seen[text] for text in texts], batch_first=True)
        h = self.top.model(inputs_embeds=h, attention_mask=attention_mask).last_hidden_state
        last = h[torch.arange(len(h)), lengths - 1]
        return SimpleNamespace(logits=last @ self.rows.T if self.head is None else self.head(last))


def fit(method, train, chosen_by, learning_rate=None):
    with torch.no_grad():
        for name, p in tuners.trainable(top).items():
            p.copy_(first_values[name])
    net = Reader(method)
    examples = encoded(drawn("train", train, chosen_by), method) if method != "zero" else []
    with run.measure() as cost:
        if examples:
            training.train(
                net, examples, steps=settings.steps[train], learning_rate=learning_rate, pad_id=pad_id,
                batch_size=settings.batch_size[train], seed=chosen_by,
            )  # fmt: skip
    return net, cost


def look(net, rows, method):
    """Predicted labels, accuracy and mean loss."""
    z, y = (
        training.predict(net, encoded(rows, method), pad_id, 24).double(),
        torch.tensor(list(rows["label"])),
    )
    found = z.argmax(-1)
    return found.tolist(), (found == y).double().mean().item(), losses.cross_entropy(z, y).mean().item()


# %% [markdown]
# ## Run
#
# One line per run, on the disk before the next one starts. In the stage `tune` a run is one rate on each of the tuning
# seeds, and its line holds the means.


# %%
@cache
def untuned():
    net, cost = fit("zero", "", seed)
    return look(net, test, "zero"), cost


def tested(method, train, **tuned):
    if method == "zero":
        return untuned()
    net, cost = fit(method, train, seed, **tuned)
    return look(net, test, method), cost


def on_dev(method, train, **tuned):
    """Mean dev accuracy and loss over the tuning seeds."""
    found = []
    for chosen_by in settings.tuning_seeds:
        net, cost = fit(method, train, chosen_by, **tuned)
        found.append(look(net, drawn("dev", train, chosen_by), method)[1:])
    return torch.tensor(found).mean(0).tolist(), cost


for trial in spec.trials(block):
    if run.have(trial.key):
        continue
    method, train = trial.method, trial.inside["train"]
    if stage == "tune":
        (accuracy, loss), cost = on_dev(method, train, **trial.tuned)
        found = {"dev_accuracy": accuracy, "dev_loss": loss}
    else:
        (predicted, accuracy, loss), cost = tested(method, train, **trial.tuned)
        found = {
            "accuracy": accuracy,
            "test_loss": loss,
            "predictions": predicted,
            "targets": list(test["label"]),
        }
    run.line(spec.identity(block) | trial.key, **vars(cost), **found)
    print(f"{method:8s} {train:10s} {dict(trial.tuned)} accuracy {accuracy:.3f}, loss {loss:.3f}")

# %% [markdown]
# ## What this block found

# %%
lines = [run.have(trial.key) for trial in spec.trials(block)]
for line in lines:
    print(f"{line['method']:8s} {line['train']:10s} {line['cpu_seconds']:.0f} s of processor time")
run.record(runs=len(lines))
