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
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from instructlab_repro import experiments
from instructlab_utils import losses, models, start, tasks, training, tuners

run = start("pet", profile=profile, seed=seed)
spec = experiments.load("pet").at(run.profile)
block = spec.block(stage=stage, seed=seed)
settings = spec.settings_of(block)

# %% [markdown]
# ## Data
#
# The labels of the pool are looked at once, at the end, to say how good the soft ones are.

# %%
corpus = tasks.load("movie-sentiment")
tokenizer = models.load_tokenizer("decoder")
pad_id = tokenizer.pad_token_id


def short(rows):
    lengths = [len(ids) for ids in tokenizer(list(rows["text"]))["input_ids"]]
    return rows.select([i for i, n in enumerate(lengths) if n <= settings.longest])


drawn = tasks.subsample(short(corpus.splits["train"]), settings.labelled + settings.pool, seed)
labelled = drawn.select(range(settings.labelled))
pool = drawn.select(range(settings.labelled, len(drawn)))
test = tasks.subsample(short(corpus.splits["test"]), settings.test, 0)
truth = torch.tensor(list(test["label"]))
print(f"{len(labelled)} labelled, {len(pool)} unlabelled, {len(test)} test sentences")

# %% [markdown]
# ## The lower layers, once per text

# %%
bottom, top = models.split_decoder(models.load_decoder(device=run.device).float(), at=settings.layer)
top = tuners.inject(top, tuners.Lora(settings.rank), seed=seed).to(run.device)
first_values = {name: p.detach().clone() for name, p in tuners.trainable(top).items()}
seen = {}


@torch.no_grad()
def encoded(rows, form="{}"):
    """Examples for the loop: tokens and label. Computes and keeps the states of texts that are new."""
    found = training.encode([{**row, "text": form.format(row["text"])} for row in rows], tokenizer, 128)
    new = sorted((e for e in found if tuple(e["input_ids"]) not in seen), key=lambda e: len(e["input_ids"]))
    for begin in range(0, len(new), 16):
        batch = training.move(training.collate(new[begin : begin + 16], pad_id), run.device)
        states = bottom(**{k: batch[k] for k in ("input_ids", "attention_mask")}).last_hidden_state
        for example, h in zip(new[begin : begin + 16], states, strict=True):
            seen[tuple(example["input_ids"])] = h[: len(example["input_ids"])].clone()
    return found


# %% [markdown]
# ## The models
#
# With words: two rows of the output layer. Without: a fresh head. Each begins from the same first values of LoRA.


# %%
class Reader(nn.Module):
    """The upper layers, and two logits made from the state of the last token."""

    def __init__(self, words=None):
        super().__init__()
        W = top.get_output_embeddings().weight
        self.top, self.head = top, None
        if words is None:
            self.head = nn.Linear(W.shape[1], 2, device=W.device)
            torch.nn.init.normal_(self.head.weight, std=0.02, generator=torch.Generator().manual_seed(seed))
            torch.nn.init.zeros_(self.head.bias)
        else:
            ids = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
            self.register_buffer("rows", W[[i for (i,) in ids]], persistent=False)  # one token each
        with torch.no_grad():
            for name, p in tuners.trainable(top).items():
                p.copy_(first_values[name])

    def forward(self, input_ids, attention_mask):
        lengths = attention_mask.sum(1)
        texts = [tuple(ids[:n].tolist()) for ids, n in zip(input_ids, lengths, strict=True)]
        h = pad_sequence([seen[text] for text in texts], batch_first=True)
        h = self.top.model(inputs_embeds=h, attention_mask=attention_mask).last_hidden_state
        last = h[torch.arange(len(h)), lengths - 1]
        return SimpleNamespace(logits=last @ self.rows.T if self.head is None else self.head(last))


def logits(net, rows, form="{}"):
    return training.predict(net, encoded(rows, form), pad_id, 24).double()


def fit(net, examples, steps, batch_size, rate, **more):
    return training.train(
        net, examples, steps=steps, batch_size=batch_size, learning_rate=rate, pad_id=pad_id, seed=seed, **more
    )  # fmt: skip


# %% [markdown]
# ## PET
#
# A pattern's weight is its accuracy on the labelled sentences before tuning. The scores of the three are averaged with these
# weights, and a softmax with a temperature makes the soft labels. The student's loss is the cross-entropy against them.


# %%
def with_pattern(pattern):
    """Logits on the test sentences and on the pool, after tuning, and the pattern's weight."""
    net, form = Reader(pattern["words"]), pattern["text"]
    before = logits(net, labelled, form).argmax(-1)
    weight = (before == torch.tensor(list(labelled["label"]))).double().mean()
    fit(net, encoded(labelled, form), settings.steps, settings.labelled, settings.rates["pattern"])
    return logits(net, test, form), logits(net, pool, form), weight


def distilled(soft):
    """Logits on the test sentences of a fresh head that has learned ``soft``, (N, 2), on the pool."""
    examples = encoded(pool)
    wanted = {tuple(e["input_ids"]): q for e, q in zip(examples, soft.float(), strict=True)}

    def soft_losses(net, batch):
        ids, mask = batch["input_ids"], batch["attention_mask"]
        q = torch.stack([wanted[tuple(i[:n].tolist())] for i, n in zip(ids, mask.sum(1), strict=True)])
        log_p = losses.log_softmax(net(input_ids=ids, attention_mask=mask).logits)
        return -(q.to(log_p.device) * log_p).sum(-1)

    net, rate = Reader(), settings.rates["head"]
    fit(net, examples, settings.distil_steps, settings.distil_batch, rate, objective=soft_losses)
    return logits(net, test)


# %% [markdown]
# ## Run
#
# All methods share one pass, so the block's lines are written together. The cost is that of the whole block.

# %%
trials = spec.trials(block)
if not all(run.have(trial.key) for trial in trials):
    with run.measure() as cost:
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
        net = Reader()
        fit(net, encoded(labelled), settings.steps, settings.labelled, settings.rates["head"])
        z["head"] = logits(net, test)
    pool_accuracy = (soft.argmax(-1) == torch.tensor(list(pool["label"]))).double().mean().item()
    for trial in (trial for trial in trials if not run.have(trial.key)):
        found = z[trial.method]
        run.line(
            spec.identity(block) | trial.key,
            **vars(cost),
            accuracy=(found.argmax(-1) == truth).double().mean().item(),
            test_loss=losses.cross_entropy(found, truth).mean().item(),
            pool_accuracy=pool_accuracy,
            weights=weights.tolist(),
            predictions=found.argmax(-1).tolist(),
            targets=truth.tolist(),
        )

# %% [markdown]
# ## What this block found

# %%
for line in (run.have(trial.key) for trial in trials):
    print(f"{line['method']:13s} accuracy {line['accuracy']:.3f}, loss {line['test_loss']:.3f}")
print("weights", [round(w, 2) for w in line["weights"]], f"soft labels right: {line['pool_accuracy']:.3f}")
run.record(runs=len(trials))
