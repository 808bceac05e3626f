# ---
# jupyter:
#   instructlab:
#     id: pet
#     title: Three patterns, their ensemble and its distillation
#     outcome: one block of the grid behind claim E2
#     assets: [smollm2, vader]
#     minutes: {smoke: 0.5, laptop: 3, gpu: 1}
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

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # there is nothing to tune
seed: int = 0  # labelled and unlabelled sentences, order of batches, first values of LoRA and head

# %%
import torch

from instructlab_repro.block import fit, open_block
from instructlab_utils import losses, models, patterns, tasks

block = open_block("pet", profile, stage, seed=seed)
settings = block.settings

# %% [markdown]
# ## Data
#
# The labels of the pool are looked at once, at the end, to say how good the soft ones are. The lower layers are frozen and
# read each text once.

# %%
tokenizer = models.load_tokenizer("decoder")
halves = patterns.Halves(tokenizer, at=settings.layer, rank=settings.rank, seed=seed, device=block.run.device)
splits = {
    name: halves.short(rows, settings.longest) for name, rows in tasks.load("movie-sentiment").splits.items()
}
drawn = tasks.subsample(splits["train"], settings.labelled + settings.pool, seed)
labelled = drawn.select(range(settings.labelled))
pool = drawn.select(range(settings.labelled, len(drawn)))
test = tasks.subsample(splits["test"], settings.test, 0)
truth = torch.tensor(list(test["label"]))
print(f"{len(labelled)} labelled, {len(pool)} unlabelled, {len(test)} test sentences")


def tuned(words, examples, rate, steps=settings.steps, batch_size=settings.labelled, **more):
    """A tuned reader: the rows of two words of the output layer, or (None) a fresh head."""
    net, rate = patterns.Reader(halves, words, seed), settings.rates[rate]
    knobs = {"steps": steps, "batch_size": batch_size, "learning_rate": rate, **more}
    fit(block, net, examples, tokenizer.pad_token_id, **knobs)
    return net


# %% [markdown]
# ## PET
#
# A pattern's weight is its accuracy on the labelled sentences before tuning. The scores of the three are averaged with these
# weights, and a softmax with a temperature makes the soft labels. The student's loss is the cross-entropy against them.


# %%
def with_pattern(pattern):
    """Logits on the test sentences and on the pool, after tuning, and the pattern's weight."""
    words, form = pattern["words"], pattern["text"]
    before = patterns.Reader(halves, words, seed).logits(labelled, form).argmax(-1)
    weight = (before == torch.tensor(list(labelled["label"]))).double().mean()
    net = tuned(words, halves.encode(labelled, form), "pattern")
    return net.logits(test, form), net.logits(pool, form), weight


def distilled(soft):
    """Logits on the test sentences of a fresh head that has learned ``soft``, (N, 2), on the pool."""
    examples = halves.encode(pool)
    wanted = {tuple(e["input_ids"]): q for e, q in zip(examples, soft.float(), strict=True)}

    def soft_losses(net, batch):
        ids, mask = batch["input_ids"], batch["attention_mask"]
        q = torch.stack([wanted[tuple(i[:n].tolist())] for i, n in zip(ids, mask.sum(1), strict=True)])
        log_p = losses.log_softmax(net(input_ids=ids, attention_mask=mask).logits)
        return -(q.to(log_p.device) * log_p).sum(-1)

    steps, size = settings.distil_steps, settings.distil_batch
    return tuned(None, examples, "head", steps, size, objective=soft_losses).logits(test)


# %% [markdown]
# ## Run
#
# All methods share one pass, so the block's lines are written together. The cost is that of the whole block.

# %%
if missing := list(block.trials()):
    with block.run.measure() as cost:
        each = {name: with_pattern(pattern) for name, pattern in settings.patterns.items()}
        weights = torch.stack([weight for _, _, weight in each.values()])
        weights = weights / weights.sum()
        on_test, on_pool = (
            sum(w * found[k] for w, found in zip(weights, each.values(), strict=True)) for k in (0, 1)
        )
        soft = (on_pool / settings.temperature).softmax(-1)
        z = {f"pattern_{name}": found[0] for name, found in each.items()}
        z["best_pattern"] = max(z.values(), key=lambda found: (found.argmax(-1) == truth).sum().item())
        z |= {"ensemble": on_test, "pet": distilled(soft)}
        z["head"] = tuned(None, halves.encode(labelled), "head").logits(test)
    right = (soft.argmax(-1) == torch.tensor(list(pool["label"]))).double().mean().item()
    shared = {"pool_accuracy": right, "weights": weights.tolist(), "targets": truth.tolist()}
    for trial in missing:
        found, loss = z[trial.method].argmax(-1), losses.cross_entropy(z[trial.method], truth).mean().item()
        accuracy = (found == truth).double().mean().item()
        block.line(trial, cost, accuracy=accuracy, test_loss=loss, predictions=found.tolist(), **shared)

# %% [markdown]
# ## What this block found

# %%
block.close("accuracy", "test_loss", "pool_accuracy")
