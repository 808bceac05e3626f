# ---
# jupyter:
#   instructlab:
#     id: pattern_tuning
#     title: Pattern and words or a fresh head, by number of labelled sentences
#     outcome: one block of the grid behind claims E1, LB1 and LB2
#     assets: [smollm2, vader]
#     minutes: {smoke: 0.7, laptop: 3, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `pattern_tuning`: one block
#
# Tuning SmolLM2 on 10, 32 or 320 rated sentences: with a pattern that ends where one of two words must follow, or with a
# fresh linear head, on the bare sentence or on the pattern's text. A block is one size and one seed. The grid stands in
# `data/experiments/pattern_tuning.toml`, the claims in `data/claims/`; lesson 13 explains the methods.
#
# Two stages. `tune` tries three learning rates per method and size, on three seeds that the table does not use, and looks at
# dev sentences. `run` takes the best and looks at the test sentences.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
train: str = "n10"  # how many labelled sentences
seed: int = 0  # training sentences, order of batches, first values of LoRA and head

# %%
import torch

from instructlab_repro.block import fit, open_block
from instructlab_utils import losses, models, patterns, tasks

block = open_block("pattern_tuning", profile, stage, train=train, seed=seed)
settings = block.settings

# %% [markdown]
# ## Data
#
# Short sentences only: half of the cost of a batch is otherwise padding. The lower layers are frozen and read each text once.

# %%
tokenizer = models.load_tokenizer("decoder")
halves = patterns.Halves(tokenizer, at=settings.layer, rank=settings.rank, seed=seed, device=block.run.device)
corpus = tasks.load("movie-sentiment")
splits = {name: halves.short(rows, settings.longest) for name, rows in corpus.splits.items()}
seeds = [int(each) for each in block.spec.axes["seed"]]
held_out = {"dev": tasks.subsample(splits["dev"], settings.dev, 0)}
if not block.tuning:
    held_out["test"] = tasks.disjoint(splits["test"], settings.test, seed, seeds)
print({name: len(rows) for name, rows in (splits | held_out).items()})

# %% [markdown]
# ## The methods
#
# The state of the text's last token goes to the two rows of the output layer that belong to the words, or to a fresh head.
# `swapped` has the words in the wrong order.


# %%
def tuned(method, draw, learning_rate=None):
    """A reader, its pattern, what a line says about its training, and the cost."""
    words = {"swapped": settings.words[::-1], "head": None, "head_in_pattern": None}
    net = patterns.Reader(halves, words.get(method, settings.words), seed)
    pattern = "{}" if method == "head" else settings.pattern
    if method == "zero":
        return net, pattern, {"updates": 0}, None
    examples = halves.encode(tasks.subsample(splits["train"], settings.n, draw), pattern)
    return net, pattern, *fit(block, net, examples, tokenizer.pad_token_id, learning_rate=learning_rate)[1:]


def look(net, rows, pattern):
    """Predicted labels, accuracy and mean loss."""
    z, y = net.logits(rows, pattern), torch.tensor(list(rows["label"]))
    found = z.argmax(-1)
    return found.tolist(), (found == y).double().mean().item(), losses.cross_entropy(z, y).mean().item()


# %% [markdown]
# ## Run
#
# Where the size asks for it, a second draw of training sentences says how far the result moves with the draw.

# %%
for trial in block.trials():
    net, pattern, line, cost = tuned(trial.method, seed, **trial.tuned)
    _, line["dev_accuracy"], line["dev_loss"] = look(net, held_out["dev"], pattern)
    if not block.tuning:
        predicted, accuracy, loss = look(net, held_out["test"], pattern)
        line |= {"accuracy": accuracy, "test_loss": loss, "one_class": len(set(predicted)) == 1}
        line |= {"predictions": predicted, "targets": list(held_out["test"]["label"])}
        if settings.again and trial.method != "zero":
            other = look(tuned(trial.method, seed + 1000, **trial.tuned)[0], held_out["test"], pattern)
            line |= {"moved": abs(other[1] - accuracy), "moved_loss": abs(other[2] - loss)}
    block.line(trial, cost, **line)

# %% [markdown]
# ## What this block found

# %%
block.close("dev_accuracy", "accuracy", "moved")
