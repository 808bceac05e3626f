# ---
# jupyter:
#   instructlab:
#     id: "06"
#     title: The causal language model
#     outcome: build, train, decode and score a language model, and say which tokens its loss counts
#     assets: [smollm2, bigbench]
#     minutes: {smoke: 1, laptop: 5, gpu: 5}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 06 The causal language model
#
# **The promise.** You build a small GPT in five pieces and prove that it *is* GPT-2, to the last digit that floats allow.
# You decide which tokens its loss counts, and see a model that never learns to stop because of one innocent line. You
# write the decoders by hand: greedy, sampling, beam. Then you fine-tune a real decoder with 135 million weights, and
# watch it turn a list of attributes into a sentence.
#
# | | |
# |---|---|
# | before this | lessons 01 (cross-entropy) and 03 (the loop) |
# | time | smoke: about a minute · laptop: about five minutes on one core · gpu: not measured yet |
# | memory | under 4 GB |
# | model | a mini-GPT from scratch; SmolLM2-135M-Instruct, pinned, offline |
# | data | restaurant descriptions, and one example each of four other tasks, from BIG-bench |
# | box of lesson 00's chain | *generated*: from an instruction to a text |
#
# **You will be able to**
#
# - *build* a causal transformer and prove it equal to the library's, gradients included;
# - *choose* the labels, and explain what goes wrong when padding and end share a token;
# - *name* the risk that your denominator minimises;
# - *decode* with a cache, greedily, by sampling and with a beam;
# - *score* texts with BLEU and ROUGE-L, and know what these numbers miss.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
seed: int = 0  # random weights, training pairs, order of batches
model: str = ""  # a folder or hub name instead of the pinned decoder
learning_rate: float = 2e-4  # peak of the schedule for the real decoder

# %%
import math
from collections import Counter
from types import SimpleNamespace

import torch
from torch import nn

from instructlab_utils import data, expect_error, generation, metrics, models, start, training
from instructlab_utils.errors import TrainingError
from instructlab_utils.losses import cross_entropy

run = start("06", profile=profile, seed=seed)

# %% [markdown]
# ## 1 A program that cannot speak
#
# One of the source articles (five Chinese-language blog articles on the "infinite instruction set") prints a program
# that "fine-tunes GPT-3". It cannot start. The weights of GPT-3 were never published, and no library has the class.

# %%
with expect_error(ImportError, match="GPT3ForCausalLM"):
    from transformers import GPT3ForCausalLM  # noqa: F401

# %% [markdown]
# We put a tiny random GPT-2 in its place, so that the other errors show. The article calls the model with
# `input_ids` alone, and then `loss.backward()`.

# %%
from transformers import GPT2Config, GPT2LMHeadModel

sizes = dict(vocab_size=256, n_positions=160, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
config = GPT2Config(**sizes, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
torch.manual_seed(seed)
library = GPT2LMHeadModel(config)
ids = torch.randint(1, 256, (4, 12))

with expect_error(AttributeError, match="backward"):
    library(input_ids=ids).loss.backward()

# %% [markdown]
# Without `labels` there is no loss, so `loss` is `None`. Suppose that somebody repairs this. Here is the article's main
# loop, in our words. Its `train_epoch` has no `return`.
#
# **Predict.** There are four batches. The loop below crashes. After how many optimiser steps?

# %% tags=["nbval-check-output"]
optimizer, done = torch.optim.AdamW(library.parameters()), Counter()


def train_epoch(net, batches):
    for batch in batches:
        net(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        done["steps"] += 1


with expect_error(TypeError, match="unsupported format string"):
    for epoch in range(3):
        train_epoch(library, ids.split(1))
        print(f"epoch {epoch}: {train_epoch(library, ids.split(1)):.3f}")
print(done["steps"], "steps before the crash")

# %% [markdown]
# **Observe.** Eight, not four. The call inside the f-string *trains again*. Python formats the `None` only after the
# second epoch is over.
#
# The obvious repair, a `return`, silences the exception and leaves the quiet half of the bug: every epoch is two. Such a
# program runs for years. It reports three epochs, trains six, and its learning rate schedule ends half way.

# %% tags=["nbval-check-output"]
def train_epoch_repaired(net, batches):
    train_epoch(net, batches)
    return 0.0  # a loss; its value plays no part here


done.clear()
for _epoch in range(3):
    train_epoch_repaired(library, ids.split(1))
    _ = f"loss {train_epoch_repaired(library, ids.split(1)):.3f}"
print("reported: 3 epochs of 4 batches; optimiser steps:", done["steps"])

# %% [markdown]
# **Repair.** Call once, keep the value, print the value. And count steps: a number that you can predict is a test.
#
# ## 2 A language model in five pieces
#
# A text is a sequence of tokens $x_1, \dots, x_T$ from a vocabulary of $V$. The chain rule of probability needs no model:
#
# $$ p(x_1, \dots, x_T) = \prod_{t=1}^{T} p(x_t \mid x_1, \dots, x_{t-1}). $$
#
# A *causal* language model is one network for all factors. At every position it reads what stands there and before, and
# returns $V$ logits for the *next* token. All positions are computed at once. So the network must be built in a way that
# no position can look ahead.
#
# **Piece 1: who sees whom.** A matrix of booleans: row $t$ says which positions $s$ the position $t$ may read, $s \le t$.
# An attention mask hides padding on top of that. (`before` counts positions from earlier calls; section 6 needs it.)


# %%
def visible(T, before=0, attention_mask=None):
    """Booleans that broadcast to (B, heads, T, before + T): may query t read key s?"""
    causal = torch.ones(T, before + T, dtype=torch.bool).tril(before)
    if attention_mask is None:
        return causal
    keys = attention_mask.bool()  # (B, before + T), or (B, T, before + T) for section 5
    return causal & (keys if keys.ndim == 3 else keys[:, None, :])[:, None]


# %% tags=["nbval-check-output"]
print(visible(4).int())

# %% [markdown]
# **Piece 2: attention.** Each position makes a query $q_t$, a key $k_t$ and a value $v_t$, of width $d_h$ in each head:
#
# $$ o_t = \sum_{s} a_{ts} v_s, \qquad a_{ts} = \operatorname{softmax}_s\!\Big( \frac{q_t \cdot k_s}{\sqrt{d_h}} \Big)
# \text{ over the visible } s. $$
#
# "Over the visible" is done with a huge negative score. Not with $-\infty$: a row that sees nothing at all (a padded
# position) would give $0/0$, and one nan spoils everything that touches it.


# %%
class Attention(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(d, 3 * d), nn.Linear(d, d)

    def forward(self, x, seen, past=None):
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        if past is not None:  # keys and values of earlier calls
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])  # (B, heads, T, S)
        a = scores.masked_fill(~seen, torch.finfo(scores.dtype).min).softmax(-1)
        return self.out((a @ v).transpose(1, 2).flatten(2)), (k, v)


# %% [markdown]
# **Piece 3: the block.** Attention moves information between positions, the feed-forward part works on each position
# alone. Both *add* to the stream $x$, and both read it through a LayerNorm. (The norm comes first: "pre-LN".)


# %%
class Block(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(d), Attention(d, heads)
        self.norm2, self.up, self.down = nn.LayerNorm(d), nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x, seen, past=None):
        y, kept = self.attention(self.norm1(x), seen, past)
        x = x + y
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x)), approximate="tanh")), kept


# %% [markdown]
# **Piece 4: what the model owns.** A vector for each token and one for each position, the blocks, a last norm. Small
# random weights, as GPT-2 has them.


# %%
class Weights(nn.Module):
    def __init__(self, V, length, d, heads, layers):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(V, d), nn.Embedding(length, d)
        self.blocks = nn.ModuleList(Block(d, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(d)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)


# %% [markdown]
# **Piece 5: from tokens to logits.** The output layer is the token table again, transposed ("tied"): the logit of a token
# is the inner product of its vector with the last state.


# %%
class MiniGPT(Weights):
    def forward(self, input_ids, attention_mask=None, places=None, past=None):
        T, before = input_ids.shape[1], past[0][0].shape[2] if past else 0
        places = torch.arange(before, before + T) if places is None else places
        seen = visible(T, before, attention_mask)
        x, kept = self.tokens(input_ids) + self.positions(places), []
        for block, kv in zip(self.blocks, past or [None] * len(self.blocks), strict=True):
            x, kv = block(x, seen, kv)
            kept.append(kv)
        return SimpleNamespace(logits=self.norm(x) @ self.tokens.weight.T, past=kept)


# %% [markdown]
# ### With the library
#
# That is all of GPT-2, but for dropout. To prove it, copy the library's weights. One trap: GPT-2 stores its matrices as
# (in, out), `nn.Linear` as (out, in). The square ones would fit without the transpose, and be wrong.


# %%
def copy_weights(theirs, ours):
    """The order of the parameters is the same; matrices of the blocks are transposed."""
    with torch.no_grad():
        for (name, source), target in zip(theirs.named_parameters(), ours.parameters(), strict=True):
            target.copy_(source.T if ".c_" in name and source.ndim == 2 else source)


library = GPT2LMHeadModel(config).double()
mini = MiniGPT(256, 160, d=32, heads=4, layers=2).double()
copy_weights(library, mini)

# %% [markdown]
# **Predict.** Two rows, the second with padding on the right. Where must the logits agree, and where may they not?

# %%
ids = torch.randint(1, 256, (2, 20), generator=torch.Generator().manual_seed(seed))
mask = torch.ones_like(ids)
mask[1, 14:] = 0
real = mask.bool()
ours = mini(ids, attention_mask=mask).logits[real]
theirs = library(ids, attention_mask=mask).logits[real]
labels = torch.randint(256, (len(ours),), generator=torch.Generator().manual_seed(seed))
g_ours = torch.autograd.grad(cross_entropy(ours, labels).mean(), mini.tokens.weight)[0]
g_theirs = torch.autograd.grad(cross_entropy(theirs, labels).mean(), library.transformer.wte.weight)[0]
assert ours.shape == theirs.shape and g_ours.shape == g_theirs.shape
logit_gap, gradient_gap = (ours - theirs).abs().max().item(), (g_ours - g_theirs).abs().max().item()
assert logit_gap < 1e-12 and gradient_gap < 1e-12
print(f"largest difference of a logit {logit_gap:.0e}, of a gradient of the token table {gradient_gap:.0e}")
run.record(gpt2_logits=logit_gap, gpt2_gradients=gradient_gap)

# %% [markdown]
# The gradient of the token table runs through *every* piece, so it tests all of them. (`tests/test_lesson_06.py` compares
# the gradients of all parameters.) The logits *at* padded positions are never used, so they may be anything.
#
# Now the property that gives the model its name.
#
# **Predict.** Change the last of 20 tokens. Which rows of the logits change?

# %% tags=["nbval-check-output"]
changed = ids.clone()
changed[:, -1] = 7
moved = (mini(ids).logits - mini(changed).logits).abs().amax((0, 2)) > 1e-12
print("positions whose logits changed:", moved.nonzero().flatten().tolist())

# %% [markdown]
# Only the last. A model that could look ahead would have nothing to learn: the answer would stand in its input.
#
# ### The loss, and the shift
#
# The negative log-likelihood of a text is a sum of cross-entropies, one per predicted token:
#
# $$ -\log p(x_2, \dots, x_T \mid x_1) = \sum_{t=2}^{T} \ell(z_{t-1}, x_t),
# \qquad \ell(z, y) = \log \textstyle\sum_k e^{z_k} - z_y. $$
#
# Mind the indices. The logits at $t-1$ are compared with the token at $t$. This is *the shift*. It must happen exactly once.
# The course does it here and nowhere else: labels stand *at their own token*, and `causal_losses` moves them. (One of the
# articles derives a *binary* cross-entropy for its language model. With $V$ possible tokens that is another problem.)


# %% tags=["defines:generation.causal_losses"]
def causal_losses(model, batch):
    if (batch["labels"][:, 0] != -100).any():
        raise TrainingError("position 0 has a label, and nothing before it predicts it: set it to -100")
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    predicted, targets = logits[:, :-1], batch["labels"][:, 1:]
    counts = targets != -100
    return cross_entropy(predicted[counts].float(), targets[counts])


# %% [markdown]
# **What if the shift is forgotten?** Then the model is asked for the token that it has just read. Make the text random
# numbers, in which there is nothing to learn: no model can do better on *unseen* noise than $\ln V$.
#
# **Predict.** Both losses before training, and both after: with the shift, and without.


# %%
def unshifted_losses(model, batch):
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    counts = batch["labels"] != -100
    return cross_entropy(logits[counts], batch["labels"][counts])


def fit_mini(examples, objective=causal_losses, steps=run.budget.toy_steps):
    torch.manual_seed(seed)
    net = MiniGPT(256, 160, d=64, heads=4, layers=2)
    how = dict(steps=steps, learning_rate=3e-3, pad_id=0, batch_size=16, seed=seed)
    return net, training.train(net, examples, objective=objective, **how).losses


noise = torch.randint(1, 256, (512, 24), generator=torch.Generator().manual_seed(seed)).tolist()
noise = [{"input_ids": row, "labels": [-100, *row[1:]]} for row in noise]
for name, objective in {"shifted": causal_losses, "unshifted": unshifted_losses}.items():
    _, losses = fit_mini(noise, objective)
    print(f"{name:10s} first loss {losses[0]:.3f} (ln V = {math.log(256):.3f}), last {losses[-1]:.3f}")
    run.record(**{f"{name}_first": losses[0], f"{name}_last": losses[-1]})

# %% [markdown]
# **Observe.** Both start at $\ln V$: an untrained model finds all tokens equally likely. (Lesson 03 had $\ln 2$. It is the
# cheapest test there is.) Then the unshifted loss collapses on pure noise. The model learned to copy its input. *A loss
# that is too good is a bug report.*
#
# ## 3 Which tokens count?
#
# Fine-tuning on instructions has two texts: a *prompt* and a *completion*. At test time somebody else writes the prompt.
# So let us count the loss of the completion only, and of a token that says *the end*.


# %% tags=["defines:generation.encode_completion"]
def encode_completion(prompt, completion, tokenizer, completion_only=True):
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    after = tokenizer(completion, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    if not before:
        raise TrainingError("the prompt is empty: nothing would predict the first token of the completion")
    masked = len(before) if completion_only else 1
    input_ids = before + after
    return {"input_ids": input_ids, "labels": [-100] * masked + input_ids[masked:]}


# %% [markdown]
# The data are restaurants: attributes in, a sentence out. People wrote several sentences for most lists of attributes. No
# list of the test split occurs in training.

# %%
PROMPT = "Describe the restaurant in one sentence.\n{}\nDescription:"
restaurants = data.load("e2e").splits
print({name: len(rows) for name, rows in restaurants.items()}, "lists of attributes")
row = restaurants["train"][0]
print(row["source"], *row["targets"][:3], sep="\n   ")

tokenizer = models.load_tokenizer("decoder", model)
example = encode_completion("area: riverside\nDescription:", " It lies at the river.", tokenizer)
for token, label in zip(example["input_ids"], example["labels"], strict=True):
    print(f"{token:6d} {label:6d}  {tokenizer.decode([token])!r}")

# %% [markdown]
# The first column goes into the model, the second is what the loss counts. Prompt and completion were tokenised *apart*.
# Had we tokenised the joined text and searched the border afterwards, a token might span it.
#
# ### The innocent line
#
# Batches need padding, and padding must not count. Half of the web writes `labels[input_ids == pad_id] = -100`.
#
# **Predict.** What does that line do to the row above? Look at its last token, then run the cell.

# %%
print("pad", tokenizer.pad_token_id, "end", tokenizer.eos_token_id, repr(tokenizer.eos_token))
batch = training.collate_tokens([example], tokenizer.pad_token_id)
by_pad_id = batch["input_ids"].masked_fill(batch["input_ids"] == tokenizer.pad_token_id, -100)
print("last label by length:", example["labels"][-1], "  by pad id:", by_pad_id[0, -1].item())
assert by_pad_id[0, -1] == -100 and example["labels"][-1] == tokenizer.eos_token_id

# %% [markdown]
# **Observe.** Many decoders have no token of their own for padding, and borrow the end token. SmolLM2 does. Then masking by
# *id* erases the end as well. No exception, no odd loss. The model just never learns to stop.
#
# The opposite mistake is the article's: `labels = input_ids`, padding included. Let us measure both, with three mini-GPTs
# on the bytes of the restaurant sentences. (Byte 0 is padding *and* end.) As in the article, every sentence is padded to
# one width.


# %%
def bytes_of(rows):
    return [list(text.encode())[:150] for r in rows for text in r["targets"][:3]]


WIDTH = 160
LABELS = {
    "by length": lambda n, ids: [-100, *ids[1 : n + 1], *[-100] * (WIDTH - n - 1)],  # the end counts
    "pad counted": lambda n, ids: [-100, *ids[1:]],
    "by pad id": lambda n, ids: [-100, *(i or -100 for i in ids[1:])],
}


def labelled(texts, how):
    padded = [(len(text), text + [0] * (WIDTH - len(text))) for text in texts]
    return [{"input_ids": ids, "labels": LABELS[how](n, ids)} for n, ids in padded]


# %%
@torch.no_grad()
def write(net, ids, steps):
    """Greedy continuation of one list of ids, until byte 0."""
    while steps and ids[-1] != 0:
        ids, steps = [*ids, net(torch.tensor([ids])).logits[0, -1].argmax().item()], steps - 1
    return ids


# %% [markdown]
# **Predict.** Which of the three logs the smallest training loss? Which has the smallest *true* loss, per real byte of
# unseen sentences, end included? Which of them stop?

# %%
texts, unseen = bytes_of(restaurants["train"]), bytes_of(restaurants["dev"])[: run.budget.n_toy_dev]
judge = training.collate_tokens(labelled(unseen, "by length"), 0)
toys = {}
for how in LABELS:
    toys[how], losses = fit_mini(labelled(texts, how))
    with torch.no_grad():
        true = causal_losses(toys[how], judge).mean().item()
    written = [write(toys[how], text[:8], 120) for text in unseen[:8]]
    stopped = sum(ids[-1] == 0 for ids in written)
    print(f"{how:12s} logged {losses[-1]:.3f}   true {true:.3f}   stops in {stopped} of {len(written)}")
    name = how.replace(" ", "_")
    run.record(**{f"{name}_logged": losses[-1], f"{name}_true": true, f"{name}_stopped": stopped})

# %% [markdown]
# **Observe.** Counting the padding gives the smallest logged loss: after the end, byte 0 follows byte 0, and that is easy.
# The same weights are *worse* on real bytes, because those were a minority of the loss. Masking by id looks fine in the
# log. But nothing taught it the end: each missing end costs many nats, and the text runs on. (In a smoke run the toys
# have hardly learned anything.)
#
# > **Recall.** Two loops log 0 and 2 nats per token. What must you know before you prefer the first?
#
# ## 4 Three denominators
#
# Losses are summed, and a sum must be divided by something. Let batch $b$ have the sequences $i$ with $n_i$ counted tokens
# and the summed loss $S_i$. Three common choices are three different *risks*:
#
# $$ \frac{\sum_i S_i}{\sum_i n_i} \;\text{(per token)}, \qquad
# \frac1M \sum_{m} \frac{\sum_{i \in m} S_i}{\sum_{i \in m} n_i} \;\text{(per micro-batch)}, \qquad
# \frac1B \sum_i \frac{S_i}{n_i} \;\text{(per sequence)}. $$
#
# The first gives each token the same weight, the third each sequence. The second is neither: it depends on which sequences
# happen to share a micro-batch. It is what "average the batch losses" computes, in the articles and, until 2024, in much
# used libraries.
#
# For the third, and for every method that compares whole answers, we need $\log p(y \mid x) = -S_i$ of each row.


# %% tags=["defines:losses.sequence_log_probs"]
def sequence_log_probs(logits, labels):
    predicted, targets = logits[:, :-1], labels[:, 1:]
    counts = targets != -100
    if not counts.any(1).all():
        row = int((~counts.any(1)).nonzero()[0])
        raise TrainingError(f"row {row} has no label behind its first position: it holds no response")
    rows = counts.nonzero()[:, 0]
    log_p = -cross_entropy(predicted[counts], targets[counts])
    return log_p.new_zeros(len(labels)).index_add(0, rows, log_p)


# %% tags=["defines:losses.sequence_losses"]
def sequence_losses(logits, labels):
    return -sequence_log_probs(logits, labels) / (labels[:, 1:] != -100).sum(1)


# %% [markdown]
# Why divide by the length at all? Every further token multiplies by a probability below one. So a longer answer is less
# probable, however good it is. Compare answers of different lengths by `sequence_losses`, not by `sequence_log_probs`.
#
# Now four descriptions of very different lengths, in two micro-batches, with the toy from section 3.
#
# **Predict.** Which of the three risks is the largest here? Then: in which direction do their gradients point?

# %%
by_length = sorted(texts, key=len)
chosen = [by_length[0], by_length[1], by_length[-2], by_length[-1]]
net = toys["by length"].double()
whole = training.collate_tokens(labelled(chosen, "by length"), 0)
micro = [{name: part[rows] for name, part in whole.items()} for rows in ([0, 1], [2, 3])]


def gradient(loss):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])


per_token = causal_losses(net, whole).mean()
per_micro = sum(causal_losses(net, part).mean() for part in micro) / 2
per_sequence = sequence_losses(net(whole["input_ids"], whole["attention_mask"]).logits, whole["labels"]).mean()
g = {"token": gradient(per_token), "micro-batch": gradient(per_micro), "sequence": gradient(per_sequence)}
for name, loss in zip(g, (per_token, per_micro, per_sequence), strict=True):
    angle = torch.rad2deg(torch.cosine_similarity(g[name], g["token"], dim=0).clamp(-1, 1).acos()).item()
    print(f"per {name:12s} {loss:.3f}   gradient at {angle:3.0f} degrees to that per token")
    run.record(**{f"angle_{name.replace('-', '_')}": angle})

# %% [markdown]
# **Observe.** Three numbers, three directions, no error message. Which one is *right* depends on what you want. Which one
# you *have* must be a decision.
#
# **Repair for accumulation.** Divide every micro-batch's sum by the number of labels of the *whole* batch. That is what
# `training.training_step` does since lesson 03. A batch without any label is an error there, and not a nan.

# %%
total = sum(int((part["labels"] != -100).sum()) for part in micro)
accumulated = sum(gradient(causal_losses(net, part).sum() / total) for part in micro)
assert accumulated.shape == g["token"].shape
gap = (accumulated - g["token"]).abs().max().item() / g["token"].abs().max().item()
assert gap < 1e-5
print(f"accumulated against full batch: largest relative difference {gap:.0e}")
nothing = {**whole, "labels": torch.full_like(whole["labels"], -100)}
with expect_error(TrainingError, match="-100"):
    training.training_step(net, optimizer, [nothing], 1e-3, 1.0, causal_losses)
run.record(accumulation_gap=gap)

# %% [markdown]
# ### With the library
#
# `trl` is the usual library for supervised fine-tuning (SFT). For data with a prompt and a completion it masks the prompt,
# unless you say otherwise. Same pairs, a tiny random model: are the labels the same, and the loss? (`bf16=False`: its
# default would use a number format for which most CPUs have no units.)

# %%
import contextlib
import io
import tempfile

from datasets import Dataset
from transformers.utils import logging
from trl import SFTConfig, SFTTrainer

logging.disable_progress_bar()
pairs = [(PROMPT.format(r["source"]), f" {r['targets'][0]}") for r in restaurants["train"].select(range(4))]
tiny = GPT2LMHeadModel(GPT2Config(**{**sizes, "vocab_size": len(tokenizer)}))
settings = SFTConfig(
    tempfile.mkdtemp(), bf16=False, gradient_checkpointing=False, use_cpu=True, per_device_train_batch_size=4
)
with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
    rows = Dataset.from_list([{"prompt": p, "completion": c} for p, c in pairs])
    trainer = SFTTrainer(tiny, settings, train_dataset=rows, processing_class=tokenizer)
    theirs = next(iter(trainer.get_train_dataloader()))

# %%
tiny.eval()
ours = training.collate_tokens([encode_completion(*pair, tokenizer) for pair in pairs], tokenizer.pad_token_id)
order = theirs["input_ids"].flatten(1).tolist()
ours = {name: part[[ours["input_ids"].tolist().index(row) for row in order]] for name, part in ours.items()}
same = all(torch.equal(ours[name], theirs[name].cpu()) for name in ("input_ids", "labels", "attention_mask"))
with torch.no_grad():
    a, b = causal_losses(tiny, ours).mean().item(), trainer.compute_loss(tiny, dict(theirs)).item()
assert same and abs(a - b) / b < 1e-5
print(f"same tokens, labels and mask: {same}; loss {a:.6f} and {b:.6f}, difference {abs(a - b):.0e}")
run.record(trl_gap=abs(a - b))
del trainer, tiny
