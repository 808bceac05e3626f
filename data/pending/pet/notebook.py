# ---
# jupyter:
#   instructlab:
#     id: pet
#     title: Three patterns, their ensemble and its distillation
#     outcome: one block of the grid behind claim E2
#     assets: [smollm2, vader]
#     minutes: {smoke: 0.5, laptop: 8, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `pet`: one block
#
# PET on SmolLM2. Each of three patterns is tuned on 10 labelled sentences. Together they give soft labels to a pool of
# unlabelled sentences. A fresh head learns these. A block is one seed. The grid stands in `data/experiments/pet.toml`, the
# claim in `data/claims/E2.toml`; lesson 13 explains the method.
#
# Two stages. `tune` tries three learning rates for each pattern, for a head on the labelled sentences and for the
# distillation, on three seeds that the table does not use, and looks at dev sentences. `run` takes the best and looks at
# the test sentences.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # labelled and unlabelled sentences, order of batches, first values of LoRA and head

# %%
import functools

import torch

from instructlab_repro.block import fit, open_block
from instructlab_utils import losses, models, patterns, tasks, training

block = open_block("pet", profile, stage, seed=seed)
settings = block.settings

# %% [markdown]
# ## Data
#
# The lower layers are frozen and read each text once. A decoder looks back only: what they make of a bare sentence is the
# beginning of what they make of the sentence in a pattern that starts with it.

# %%
tokenizer = models.load_tokenizer("decoder")
halves = patterns.Halves(tokenizer, at=settings.layer, rank=settings.rank, seed=seed, device=block.run.device)
corpus = tasks.load("movie-sentiment")
splits = {name: halves.short(rows, settings.longest) for name, rows in corpus.splits.items()}
drawn = tasks.subsample(splits["train"], settings.labelled + settings.pool, seed)
labelled = drawn.select(range(settings.labelled))
pool = drawn.select(range(settings.labelled, len(drawn)))
if block.tuning:
    held_out = tasks.subsample(splits["dev"], settings.dev, 0)
else:
    held_out = tasks.disjoint(splits["test"], settings.test, seed, block.spec.axes["seed"])


def bare(rows):
    """Keep the states of the sentences without a pattern: the beginnings of those in the pattern that starts with them."""
    short = training.encode(rows, tokenizer, patterns.LONGEST)
    for one, long in zip(short, halves.encode(rows, settings.patterns["b"]["text"]), strict=True):
        begins, whole = tuple(one["input_ids"]), tuple(long["input_ids"])
        assert begins == whole[: len(begins)]
        halves.seen[begins] = halves.seen[whole][: len(begins)]


# %% [markdown]
# ## PET
#
# A pattern's weight is its accuracy on the labelled sentences before tuning. The scores of the three are averaged with these
# weights, and a softmax with a temperature makes the soft labels. The student's loss is the divergence from them: their
# cross-entropy without their own entropy, so that 0 is perfect, with the same gradient.


# %%
def right(z, rows):
    return (z.argmax(-1) == torch.tensor(list(rows["label"]))).double().mean().item()


def tuned(words, examples, learning_rate, **more):
    """A tuned reader (the rows of two words, or None: a fresh head), what a line says of its training, the cost."""
    net, pad_id = patterns.Reader(halves, words, seed), tokenizer.pad_token_id
    return net, *fit(block, net, examples, pad_id, learning_rate=learning_rate, **more)[1:]


def with_pattern(name, learning_rate, *texts):
    """Logits of a tuned pattern on each of ``texts``, its line with its weight, the cost."""
    form, words = settings.patterns[name]["text"], settings.patterns[name]["words"]
    weight = right(patterns.Reader(halves, words, seed).logits(labelled, form), labelled)
    net, line, cost = tuned(words, halves.encode(labelled, form), learning_rate)
    return [net.logits(rows, form) for rows in texts], line | {"weight": weight}, cost


@functools.cache
def teachers():
    """Each pattern, tuned: on the held-out sentences and on the pool. While tuning, all have the same rate."""
    rates = {trial.method: trial.tuned.get("learning_rate") for trial in block.spec.trials(block.block)}
    rates = {name: settings.rate if block.tuning else rates[f"pattern_{name}"] for name in settings.patterns}
    return {name: with_pattern(name, rate, held_out, pool) for name, rate in rates.items()}


def ensemble(place):
    """The patterns' scores, (N, 2), weighted: 0 on the held-out sentences, 1 on the pool."""
    total = sum(line["weight"] for _, line, _ in teachers().values())
    return sum(line["weight"] * scores[place] for scores, line, _ in teachers().values()) / total


def divergence(z, q):
    return (q * (q.log() - losses.log_softmax(z))).sum(-1)


def distilled(learning_rate):
    """Scores on the held-out sentences of a fresh head that has learned the soft labels of the pool, its line, the cost."""
    told, soft = ((ensemble(place) / settings.temperature).softmax(-1) for place in (0, 1))
    bare(pool)
    examples = halves.encode(pool)
    wanted = {tuple(e["input_ids"]): q for e, q in zip(examples, soft.float(), strict=True)}

    def objective(net, batch):
        ids, mask = batch["input_ids"], batch["attention_mask"]
        q = torch.stack([wanted[tuple(i[:n].tolist())] for i, n in zip(ids, mask.sum(1), strict=True)])
        return divergence(net(input_ids=ids, attention_mask=mask).logits, q.to(ids.device))

    more = {"steps": settings.distil_steps, "batch_size": settings.distil_batch, "objective": objective}
    net, line, cost = tuned(None, examples, learning_rate, **more)
    z = net.logits(held_out)
    line |= {"divergence": divergence(z, told).mean().item(), "pool_accuracy": right(soft, pool)}
    line["agreement"] = (z.argmax(-1) == told.argmax(-1)).double().mean().item()
    return settings.temperature * z, line, cost  # scores, as those of the patterns


# %% [markdown]
# ## Run
#
# The labels of the pool are looked at only to say how good the soft ones are.

# %%
bare([*labelled, *held_out])
for trial in block.trials():
    name, rate, line, cost = trial.method.removeprefix("pattern_"), trial.tuned.get("learning_rate"), {}, None
    if name in settings.patterns:
        (z, *_), line, cost = with_pattern(name, rate, held_out) if block.tuning else teachers()[name]
    elif name == "ensemble":
        z = ensemble(0)
    elif name == "pet":
        z, line, cost = distilled(rate)
    else:
        net, line, cost = tuned(None, halves.encode(labelled), rate)
        z = net.logits(held_out)
    accuracy, targets = right(z, held_out), list(held_out["label"])
    loss = losses.cross_entropy(z, torch.tensor(targets)).mean().item()
    if block.tuning:
        line |= {"dev_accuracy": accuracy, "dev_loss": loss}
    else:
        found = z.argmax(-1).tolist()
        line |= {"accuracy": accuracy, "test_loss": loss, "one_class": len(set(found)) == 1}
        line |= {"predictions": found, "targets": targets}
    block.line(trial, cost, **line)

# %% [markdown]
# ## What this block found

# %%
block.close("dev_loss", "accuracy", "agreement", "pool_accuracy")
