# ---
# jupyter:
#   instructlab:
#     id: "06"
#     title: The causal language model
#     outcome: build, train, decode and score a language model, and say which tokens its loss counts
#     assets: [smollm2, bigbench]
#     minutes: {smoke: 1, laptop: 5, gpu: 5}
#     class_minutes: 240
#     budget:
#       toy_steps: {smoke: 8, laptop: 200, gpu: 200}
#       n_toy_dev: {smoke: 8, laptop: 64, gpu: 64}
#       steps: {smoke: 2, laptop: 24, gpu: 64}
#       batch_size: {smoke: 2, laptop: 4, gpu: 8}
#       n_test: {smoke: 2, laptop: 16, gpu: 32}
#       max_new_tokens: {smoke: 8, laptop: 48, gpu: 48}
#       zero_shot_tokens: {smoke: 6, laptop: 28, gpu: 28}
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

from instructlab_utils import expect_error, metrics, models, start, tasks, training
from instructlab_utils.errors import ParameterError, TrainingError
from instructlab_utils.guards import positions
from instructlab_utils.losses import cross_entropy, log_softmax, upcast
from instructlab_utils.markers import text_ids

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
library.loss_type = "ForCausalLM"  # what it takes anyway, with a warning
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
# > **Which of these is *not* a bug?** The article calls `optimizer.zero_grad()` after `step()`, and it prints the loss of
# > the *test* sentences after every epoch. Decide before you read on.
#
# The first is fine: gradients must be cleared once between two updates, on either side. The second invites you to stop at
# the epoch that looks best, and then the test split has done the dev split's work (lesson 03).
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


# %% tags=["nbval-check-output"]
def visible(T, before=0, attention_mask=None):
    """Booleans that broadcast to (B, heads, T, before + T): may query t read key s?"""
    causal = torch.ones(T, before + T, dtype=torch.bool).tril(before)
    if attention_mask is None:
        return causal
    keys = attention_mask.bool()  # (B, before + T), or (B, T, before + T) for section 5
    return causal & (keys if keys.ndim == 3 else keys[:, None, :])[:, None]


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
# numbers, each row new: there is nothing to learn, and no model can do better than $\ln V$.
#
# **Predict.** Both losses before training, and both after: with the shift, and without.


# %%
def unshifted_losses(model, batch):
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    counts = batch["labels"] != -100
    return cross_entropy(logits[counts], batch["labels"][counts])


def fit_mini(examples, V, objective=causal_losses):
    torch.manual_seed(seed)
    net = MiniGPT(V, 160, d=64, heads=4, layers=2)
    how = dict(steps=run.budget.toy_steps, learning_rate=3e-3, pad_id=0, batch_size=16, seed=seed)
    return net, training.train(net, examples, objective=objective, **how).losses


noise = torch.randint(1, 256, (4096, 24), generator=torch.Generator().manual_seed(seed)).tolist()
noise = [{"input_ids": row, "labels": [-100, *row[1:]]} for row in noise]
for name, objective in {"shifted": causal_losses, "unshifted": unshifted_losses}.items():
    _, losses = fit_mini(noise, 256, objective)
    print(f"{name:10s} first loss {losses[0]:.3f} (ln V = {math.log(256):.3f}), last {losses[-1]:.3f}")
    run.record(**{f"{name}_first": losses[0], f"{name}_last": losses[-1]})

# %% [markdown]
# **Observe.** The shifted loss starts at $\ln V$: an untrained model finds all tokens about equally likely. (Lesson 03 had
# $\ln 2$. It is the cheapest test there is.) The unshifted one starts below: with tied tables the last state still looks
# like the token that was read. Then it collapses, on pure noise. The model learned to copy its input. *A loss that is
# too good is a bug report.*
#
# ## 3 Which tokens count?
#
# Fine-tuning on instructions has two texts: a *prompt* and a *completion*. At test time somebody else writes the prompt.
# So let us count the loss of the completion only, and of a token that says *the end*. `text_ids` tokenises, and refuses
# a text in which somebody has typed that token: it would end the prompt.


# %% tags=["defines:generation.encode_completion"]
def encode_completion(prompt, completion, tokenizer, completion_only=True):
    before = text_ids(prompt, tokenizer, chat=True)
    after = [*text_ids(completion, tokenizer), tokenizer.eos_token_id]
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
restaurants = tasks.load("e2e").splits
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
# Batches need padding, and padding must not count. Many programs write `labels[input_ids == pad_id] = -100`.
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
# on the words of the restaurant sentences. Word 0 is padding *and* end. As in the article, every sentence is padded to
# one width.

# %%
import re


def words_of(text):
    return re.findall(r"\w+|[^\w\s]", text.lower())


found = Counter(w for r in restaurants["train"] for text in r["targets"] for w in words_of(text))
words = ["<end>", "<unknown>", *sorted(word for word, n in found.items() if n > 1)]
number = {word: i for i, word in enumerate(words)}


def sentences(rows):
    texts = [[number.get(w, 1) for w in words_of(text)] for r in rows for text in r["targets"]]
    return [text for text in texts if len(text) < WIDTH]


WIDTH = 48
texts, unseen = sentences(restaurants["train"]), sentences(restaurants["dev"])[: run.budget.n_toy_dev]
print(f"{len(words)} words, {len(texts)} sentences; word by word: {texts[0][:8]}")


# %%
LABELS = {
    "by length": lambda n, ids: [-100, *ids[1 : n + 1], *[-100] * (WIDTH - n - 1)],  # the end counts
    "pad counted": lambda n, ids: [-100, *ids[1:]],
    "by pad id": lambda n, ids: [-100, *(i or -100 for i in ids[1:])],
}


def labelled(texts, how):
    padded = [(len(text), text + [0] * (WIDTH - len(text))) for text in texts]
    return [{"input_ids": ids, "labels": LABELS[how](n, ids)} for n, ids in padded]


@torch.no_grad()
def write(net, ids, steps):
    """Greedy continuation of one list of ids, until word 0."""
    while steps and ids[-1] != 0:
        ids, steps = [*ids, net(torch.tensor([ids])).logits[0, -1].argmax().item()], steps - 1
    return ids


# %% [markdown]
# **Predict.** Which of the three logs the smallest training loss? Which has the smallest *true* loss, per real word of
# unseen sentences, end included? Which of them stop?

# %%
judge = training.collate_tokens(labelled(unseen, "by length"), 0)
toys = {}
for how in LABELS:
    toys[how], losses = fit_mini(labelled(texts, how), len(words))
    with torch.no_grad():
        true = causal_losses(toys[how], judge).mean().item()
    written = [write(toys[how], text[:3], 60) for text in unseen[:8]]
    stopped = sum(ids[-1] == 0 for ids in written)
    print(f"{how:12s} logged {losses[-1]:.3f}   true {true:.3f}   stops in {stopped} of {len(written)}")
    print("  ", " ".join(words[i] for i in written[0][:30]))
    name = how.replace(" ", "_")
    run.record(**{f"{name}_logged": losses[-1], f"{name}_true": true, f"{name}_stopped": stopped})

# %% [markdown]
# **Observe.** (In the laptop profile; in a smoke run the toys have hardly learned anything.) Counting the padding gives by
# far the smallest logged loss: after the end, word 0 follows word 0, and that is easy. The number says little about words,
# since most of what it averages is padding. Masking by id looks fine in the log. But nothing taught it the end: each end
# costs many nats in the true loss, and the text runs on.
#
# > **Recall.** Two loops log different losses per token. What must you know before you prefer the smaller one?
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


# %% tags=["defines:losses.sequence_log_probs", "defines:losses.sequence_losses"]
def sequence_log_probs(logits, labels):
    if logits.ndim != 3 or logits.shape[:-1] != labels.shape:
        raise TrainingError(
            f"logits {tuple(logits.shape)}, labels {tuple(labels.shape)}: need (B, T, V) and (B, T)"
        )
    predicted, targets = logits[:, :-1], labels[:, 1:]
    counts = targets != -100
    if not counts.any(1).all():
        row = int((~counts.any(1)).nonzero()[0])
        raise TrainingError(f"row {row} has no label behind its first position: it holds no response")
    log_p = -cross_entropy(predicted[counts], targets[counts])
    return log_p.new_zeros(counts.shape).masked_scatter(counts, log_p).sum(1)


def sequence_losses(logits, labels):
    return -sequence_log_probs(logits, labels) / (labels[:, 1:] != -100).sum(1)


# %% [markdown]
# Why divide by the length at all? Every further token multiplies by a probability below one. So a longer answer is less
# probable, however good it is. Compare answers of different lengths by `sequence_losses`, not by `sequence_log_probs`.
# (The sum is taken in float32, whatever the model's dtype: `cross_entropy` widens its logits, lesson 01.)
#
# Now the two shortest and the two longest sentences, in micro-batches of three and one, with the toy from section 3.
#
# **Predict.** Which of the three risks are equal here? By how many degrees may their gradients differ?

# %%
by_length = sorted(texts, key=len)
chosen = [by_length[0], by_length[1], by_length[-2], by_length[-1]]
net = toys["by length"].double()
whole = training.collate_tokens(labelled(chosen, "by length"), 0)
micro = [{name: part[rows] for name, part in whole.items()} for rows in ([0, 1, 2], [3])]


def gradient(loss):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])


per_token = causal_losses(net, whole).mean()
per_micro = sum(causal_losses(net, part).mean() for part in micro) / 2
per_sequence = sequence_losses(
    net(whole["input_ids"], whole["attention_mask"]).logits, whole["labels"]
).mean()
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
how = dict(bf16=False, gradient_checkpointing=False, use_cpu=True, per_device_train_batch_size=4)
with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
    settings = SFTConfig(tempfile.mkdtemp(), **how)
    rows = Dataset.from_list([{"prompt": p, "completion": c} for p, c in pairs])
    trainer = SFTTrainer(tiny, settings, train_dataset=rows, processing_class=tokenizer)
    theirs = next(iter(trainer.get_train_dataloader()))

# %%
tiny.eval()
ours = training.collate_tokens(
    [encode_completion(*pair, tokenizer) for pair in pairs], tokenizer.pad_token_id
)
order = theirs["input_ids"].flatten(1).tolist()
ours = {name: part[[ours["input_ids"].tolist().index(row) for row in order]] for name, part in ours.items()}
same = all(torch.equal(ours[name], theirs[name].cpu()) for name in ("input_ids", "labels", "attention_mask"))
with torch.no_grad():
    a, b = causal_losses(tiny, ours).mean().item(), trainer.compute_loss(tiny, dict(theirs)).item()
assert same and abs(a - b) / b < 1e-5
print(f"same tokens, labels and mask: {same}; loss {a:.6f} and {b:.6f}, difference {abs(a - b):.0e}")
run.record(trl_gap=abs(a - b))
del trainer, tiny

# %% [markdown]
# ## 5 Packing
#
# Padding is computed and thrown away. *Packing* fills the rows with several texts instead. It needs three things, and most
# homemade versions have one: a label of $-100$ on each text's first token, positions that start again, and an attention
# mask with *blocks*, so that no text reads its neighbour.
#
# **Predict.** Two texts in one row, with the plain causal mask. Whose logits differ from those without packing?

# %%
first, second = texts[0], texts[1]
row = torch.tensor([first + second])
document = torch.tensor([[0] * len(first) + [1] * len(second)])
with torch.no_grad():
    alone = torch.cat([net(torch.tensor([text])).logits[0] for text in (first, second)])
    leaking = net(row).logits[0]
    places = torch.cat([torch.arange(len(first)), torch.arange(len(second))])[None]
    blocks = document[:, :, None] == document[:, None, :]  # (B, T, T): same text?
    packed = net(row, attention_mask=blocks, places=places).logits[0]
for name, logits in {"plain causal mask": leaking, "blocks and own positions": packed}.items():
    gap = (logits - alone).abs().amax(1)
    print(f"{name:25s} first text {gap[: len(first)].max():.0e}, second {gap[len(first) :].max():.0e}")
assert (packed - alone).abs().max() < 1e-10
run.record(packing_leak=(leaking - alone).abs().max(), packing_gap=(packed - alone).abs().max())

# %% [markdown]
# **Observe.** The first text is safe: causality protects it. The second one reads the first, through attention *and*
# through its shifted positions. With blocks and positions of its own, packing changes nothing but the speed. Library
# models take `position_ids`, but not every attention kernel honours blocks. Test it as above before you trust it.
#
# ## 6 Decoding
#
# ### 6.1 The cache
#
# Generation asks for one token after the other. But causality says that old positions never change. So their keys
# and values can be *kept*: this is the KV cache. A step then computes one position instead of all.
#
# **Predict.** A prompt of 8 words, 24 new ones. How many positions does the model compute without a cache, how many with?


# %%
@torch.no_grad()
def continued(net, ids, steps, cached):
    fed, past, computed = ids, None, 0
    for _ in range(steps):
        out = net(fed, past=past)
        computed += fed.shape[1]
        new = out.logits[:, -1:].argmax(-1)
        ids = torch.cat([ids, new], 1)
        fed, past = (new, out.past) if cached else (ids, None)
    return ids, out.logits[:, -1], computed


(a, z_a, n_a), (b, z_b, n_b) = (continued(net, row[:, :8], 24, cached) for cached in (False, True))
assert torch.equal(a, b) and (z_a - z_b).abs().max() < 1e-10
print(f"same words; positions computed {n_a} against {n_b}; logits differ by {(z_a - z_b).abs().max():.0e}")
run.record(positions_without=n_a, positions_cached=n_b, cache_gap=(z_a - z_b).abs().max())

# %% [markdown]
# ### 6.2 Greedy, for many prompts at once
#
# Prompts have different lengths, but all new tokens should stand in one column. So this time padding goes to the *left*.
# The mask hides it, and positions are counted from the first real token. The function below works for every causal
# model of transformers.


# %% tags=["defines:generation.greedy"]
@torch.no_grad()
def greedy(model, prompts, max_new_tokens, eos_id):
    if min(map(len, prompts), default=0) == 0:
        raise ParameterError("no prompt, or one without a token: nothing would predict its first new token")
    device, longest = next(model.parameters()).device, max(map(len, prompts))
    window = positions(model)
    if longest + max_new_tokens - 1 > window:
        raise ParameterError(
            f"{longest} tokens and {max_new_tokens} new ones: the model has {window} positions"
        )
    ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
    new, cache = ids[:, :0], None
    while new.shape[1] < max_new_tokens and not (new == eos_id).any(1).all():
        places = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        seen = dict(attention_mask=mask, position_ids=places, past_key_values=cache)
        out = model(ids, **seen, use_cache=True, logits_to_keep=1)
        if out.logits.isnan().any():
            raise TrainingError(
                "a logit is NaN, so no token is the most probable: look at the model's weights"
            )
        cache, ids = out.past_key_values, out.logits[:, -1].argmax(-1, keepdim=True)
        new, mask = torch.cat([new, ids], 1), torch.cat([mask, torch.ones_like(ids)], 1)
    return [row[: row.index(eos_id)] if eos_id in row else row for row in new.tolist()]


# %%
random_prompts = [example["input_ids"][:n] for example, n in zip(noise, (3, 9, 6), strict=False)]
ours = greedy(library, random_prompts, 12, eos_id=0)
fixed = dict(do_sample=False, max_new_tokens=12, pad_token_id=0, eos_token_id=0)
for prompt, answer in zip(random_prompts, ours, strict=True):
    theirs = library.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), **fixed)[0]
    assert [*prompt, *answer] == [i for i in theirs.tolist() if i]
print("greedy, three prompts in one batch: the same ids as generate, one by one")

# %% [markdown]
# ### 6.3 Sampling
#
# Greedy always says the most usual thing. Sampling draws the next token from the model's distribution, after a change:
#
# - **temperature** $\tau$: softmax of $z / \tau$. Below one it sharpens, towards greedy; above one it flattens;
# - **top-k**: only the $k$ largest logits survive;
# - **nucleus** (top-p): only the fewest tokens survive that together have probability $p$. Where the model is sure, that is
#   one token; where it is not, many. The probabilities are added in float32, from the rarest up: thousands of small
#   ones would be lost in a sum that is already near one, or in bfloat16.


# %% tags=["defines:generation.top_k_filter", "defines:generation.nucleus_filter"]
def top_k_filter(logits, k):
    if k < 1:
        raise ParameterError(f"top-k would keep {k} tokens: choose 1 or more")
    smallest = logits.topk(min(k, logits.shape[-1])).values[..., -1:]
    return logits.masked_fill(logits < smallest, -math.inf)


def nucleus_filter(logits, p):
    if not 0 < p <= 1:
        raise ParameterError(f"the nucleus would have the probability {p}: choose a number in (0, 1]")
    ordered, order = upcast(logits).sort(-1)  # the rarest first: small numbers meet while the sum is small
    drop = (ordered.softmax(-1).cumsum(-1) <= 1 - p) & (p < 1)
    drop[..., -1] = False
    return logits.masked_fill(drop.scatter(-1, order, drop), -math.inf)


# %% [markdown]
# How undecided is a distribution? Its entropy $H(p) = -\sum_k p_k \log p_k$ says it in nats: $0$ for a certain one, $\ln V$
# for a uniform one, and $e^{H}$ reads as "about so many choices".


# %% tags=["defines:losses.entropy"]
def entropy(logits):
    log_p = log_softmax(logits)
    p = torch.exp(log_p)
    return -(p * log_p.masked_fill(p == 0, 0.0)).sum(-1)


# %% [markdown]
# **Predict.** Order the five lines below by the number of words that can still be drawn.

# %%
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

z = net(torch.tensor([texts[0][:4]])).logits[0, -1:].detach()
changes = {
    "as it is": (z, z),
    "temperature 0.5": (z / 0.5, TemperatureLogitsWarper(0.5)(None, z)),
    "temperature 2": (z / 2, TemperatureLogitsWarper(2.0)(None, z)),
    "top-k, k = 5": (top_k_filter(z, 5), TopKLogitsWarper(5)(None, z)),
    "nucleus, p = 0.9": (nucleus_filter(z, 0.9), TopPLogitsWarper(0.9)(None, z)),
}
print("after:", " ".join(words[i] for i in texts[0][:4]))
for name, (changed, reference) in changes.items():
    gap = (changed.softmax(-1) - reference.softmax(-1)).abs().max().item()
    assert gap < 1e-9
    best = ", ".join(words[i] for i in changed[0].topk(3).indices)
    drawable, choices = int((changed > -math.inf).sum()), entropy(changed).exp().item()
    print(f"{name:17s} {drawable:4d} words left, like {choices:5.1f} choices; first: {best}; gap {gap:.0e}")

# %% [markdown]
# **Observe.** The gap is that to the classes that transformers uses inside `generate`. A temperature never excludes a word;
# it makes the tail rarer. Over a long text a rare event still happens. That is why samplers cut.
#
# ### 6.4 Beam search
#
# Greedy may choose a word whose continuations are all improbable. A beam keeps the $b$ best beginnings. Ended texts are
# compared per token, or the shortest would win. The search stops when no living beginning can beat the ended ones.


# %%
@torch.no_grad()
def beam_search(net, prompt, beams, max_new_tokens, eos_id):
    alive, ended = [(0.0, prompt)], []
    for n in range(1, max_new_tokens + 1):
        log_p = net(torch.tensor([ids for _, ids in alive])).logits[:, -1].log_softmax(-1)
        total, V = log_p + log_p.new_tensor([[score] for score, _ in alive]), log_p.shape[1]
        best = total.flatten().topk(2 * beams)
        best = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        found = [(score, alive[i // V][1] + [i % V]) for score, i in best]
        ended += [(score / n, ids) for score, ids in found[:beams] if ids[-1] == eos_id]
        ended = sorted(ended, reverse=True)[:beams]
        alive = [(score, ids) for score, ids in found if ids[-1] != eos_id][:beams]
        if len(ended) == beams and ended[-1][0] >= alive[0][0] / n:
            break
    return max(ended + [(score / n, ids) for score, ids in alive])[::-1]


# %% [markdown]
# **Predict.** Which has the larger probability per token, the greedy text or the best of four beams? And must it?

# %%
for beams in (1, 4):
    ids, score = beam_search(net, texts[0][:3], beams, 40, eos_id=0)
    print(f"{beams} beam(s): {score:+.3f} nats per new word: {' '.join(words[i] for i in ids)}")
for prompt in random_prompts:
    theirs = library.generate(torch.tensor([prompt]), num_beams=4, **fixed)[0].tolist()
    assert beam_search(mini, prompt, 4, 12, eos_id=0)[0] == theirs
print("four beams, three prompts: the same ids as generate")

# %% [markdown]
# A beam of four looks at more than greedy does, yet it *may* end worse: the greedy beginning can be pushed out of the beam.
# And a more probable text is not a better text. Very probable texts are short and dull (Holtzman et al., 2020).
#
# ## 7 Scoring texts
#
# **Perplexity** is $\exp$ of the loss per token: the number of equally likely choices that would give the same loss. It needs
# no generated text, and compares only models with the same tokens.
#
# For generated texts people compare words with reference texts. **ROUGE-L** (Lin, 2004) takes the longest common
# *sub*sequence: words in the same order, gaps allowed. With $L$ its length, precision is $L$ per word of the text, recall $L$
# per word of the reference, and $F_1 = 2L / (|a| + |b|)$.


# %%
def common_subsequence(a, b):
    """Length of the longest common subsequence, row by row."""
    row = [0] * (len(b) + 1)
    for x in a:
        new = [0]
        for j, y in enumerate(b):
            new.append(row[j] + 1 if x == y else max(row[j + 1], new[j]))
        row = new
    return row[-1]


def rouge_l(text, reference):
    a, b = (re.findall("[a-z0-9]+", t.lower()) for t in (text, reference))
    common = common_subsequence(a, b)
    return 2 * common / (len(a) + len(b)) if common else 0.0


# %% [markdown]
# **BLEU** (Papineni et al., 2002) counts $n$-grams up to length four. A text may not score twice for what a reference says
# once: counts are *clipped*. The four precisions $p_n$ are pooled over the corpus, and their geometric mean is punished when
# the texts are shorter (length $c$) than the closest references (length $r$):
#
# $$ \text{BLEU} = 100 \cdot \min\!\big(1, e^{1 - r/c}\big) \cdot \Big( \prod_{n=1}^{4} p_n \Big)^{1/4}. $$


# %%
def ngrams(words, n):
    return Counter(zip(*(words[i:] for i in range(n)), strict=False))


def clipped_counts(text, references):
    """(hits, total) for n = 1 … 4, and the two lengths; all arguments are lists of words."""
    pairs = []
    for n in range(1, 5):
        allowed = Counter()
        for reference in references:
            allowed |= ngrams(reference, n)  # the larger count
        found = ngrams(text, n)
        pairs.append(((found & allowed).total(), found.total()))
    closest = min((abs(len(r) - len(text)), len(r)) for r in references)[1]
    return [*pairs, (len(text), closest)]


# %% [markdown]
# A precision of zero would make the product zero. sacrebleu's default counts the first such precision as half a hit, the
# next as a quarter of one, and so on. Without a rule like this, BLEU of one sentence is mostly zero.


# %%
def bleu(texts, references):
    """Corpus BLEU of words that are separated by blanks."""
    rows = [
        clipped_counts(t.split(), [r.split() for r in rs]) for t, rs in zip(texts, references, strict=True)
    ]
    *pairs, (c, r) = [tuple(map(sum, zip(*column, strict=True))) for column in zip(*rows, strict=True)]
    if not pairs[0][0] or not all(total for _, total in pairs):
        return 0.0
    logs, share = 0.0, 1.0
    for hits, total in pairs:
        share = share if hits else share / 2
        logs += math.log((hits or share) / total) / 4
    return 100 * min(1.0, math.exp(1 - r / c)) * math.exp(logs)


# %% [markdown]
# ### With the library
#
# BLEU depends on how words are cut (Post, 2018). sacrebleu fixes that, so quote its numbers, not home-made ones.
#
# And the usual cuts are made for English. Our pattern, which is rouge-score's, sees no word in *żółć*, and one and the same
# word in *größe* and *grüße*; sacrebleu's default takes a Chinese sentence for one word. `metrics.rouge_l` and `metrics.bleu`
# look at the script first, and their result says in `.tokenizer` what they did. On English nothing changes.

# %%
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

some = [row for row in restaurants["test"] if len(row["targets"]) > 2][:12]
texts_, references = [row["targets"][0] for row in some], [row["targets"][1:] for row in some]
ours = bleu(texts_, references)
streams = [[r[j] if j < len(r) else None for r in references] for j in range(max(map(len, references)))]
theirs = sacrebleu.corpus_bleu(texts_, streams, tokenize="none").score
a = rouge_l(texts_[0], references[0][0])
b = RougeScorer(["rougeL"]).score(references[0][0], texts_[0])["rougeL"].fmeasure
assert abs(ours - theirs) < 1e-9 and abs(a - b) < 1e-12
print(f"BLEU {ours:.2f}, differs by {abs(ours - theirs):.0e}; ROUGE-L {a:.3f}, differs by {abs(a - b):.0e}")
print(
    f"sacrebleu, words cut its way: BLEU {metrics.bleu(texts_, references):.2f}, chrF {metrics.chrf(texts_, references):.1f}"
)
run.record(human_bleu=metrics.bleu(texts_, references), human_chrf=metrics.chrf(texts_, references))

# %% [markdown]
# Look at these numbers twice: the "generated" texts were *human* descriptions, scored against other people's. That is what
# people reach here. **chrF** (Popović, 2015) compares runs of characters instead of words, so a plural costs little.
#
# **Predict.** The reference is *the pub is family friendly*. Text A says *the pub is not family friendly*, text B says
# *children are welcome here*. Which one scores better?

# %% tags=["nbval-check-output"]
reference = "the pub is family friendly"
for text in ("the pub is not family friendly", "children are welcome here"):
    print(f"ROUGE-L {rouge_l(text, reference):.2f}  {text}")

# %% [markdown]
# **Observe.** Overlap is not truth. These scores compare systems on many texts. They do not tell whether one text is right.
#
# ## 8 A real decoder
#
# SmolLM2-135M-Instruct is a Llama: the same pieces, with RMSNorm for LayerNorm, rotated queries and keys for position
# vectors, and gated feed-forward parts. Two things to know about this checkpoint. It was stored in four bits a weight and
# *de-quantised*, so it is a little worse than the original. And it was already tuned on instructions, so nothing here
# starts from a bare language model.
#
# First, what it can do without any training, with one example each of four tasks. Its chat template wraps the request
# (and adds a system message of its own; lesson 14 looks into that).

# %%
decoder = models.load_decoder(model).float().to(run.device)
TASKS = {
    "xsum": "Summarise this article in one sentence.\n{}",
    "products-en-de": "Translate this sentence into German.\n{}",
    "spider": "Write one SQL query. The question comes first, then the columns.\n{}",
    "schema-dialog": "Write the assistant's next sentence.\n{}",
}


def request(name, row):
    return [{"role": "user", "content": TASKS[name].format(row["source"][:400])}]


# %%
shown = {
    name: min(tasks.load(name).splits["test"], key=lambda r: abs(len(r["source"]) - 300)) for name in TASKS
}
chats = [
    tokenizer.apply_chat_template(request(*one), add_generation_prompt=True)["input_ids"]
    for one in shown.items()
]
answers = greedy(decoder, chats, run.budget.zero_shot_tokens, tokenizer.eos_token_id)
for (name, row), ids in zip(shown.items(), answers, strict=True):
    print(f"{name}: {row['source'][:150]!r}\n   model:     {tokenizer.decode(ids)!r}")
    print(f"   reference: {row['targets'][0][:150]!r}")

# %% [markdown]
# **Read each answer against its source.** Fluent is not the same as right. One example proves nothing about a task; it
# shows which *kind* of mistake to look for. (The German references are machine translations.)
#
# ### Fine-tuning
#
# Now the restaurants. The model is fluent, but it does not know that *this* task wants these attributes, all of them, and
# nothing else. The loop is `training.train` with our objective. The token table stays frozen: it holds a fifth of the
# weights, and so few updates meet few of its rows.

# %%
held_out = restaurants["test"].select(range(run.budget.n_test))
asked = [PROMPT.format(row["source"]) for row in held_out]
prompts = [tokenizer(prompt)["input_ids"] for prompt in asked]
answers = [f" {row['targets'][0]}" for row in held_out]
judged = [encode_completion(*pair, tokenizer) for pair in zip(asked, answers, strict=True)]


def examine(net):
    """Perplexity per completion token, and the greedy texts."""
    losses = [causal_losses(net, training.move(training.collate_tokens([e], 0), run.device)) for e in judged]
    found = greedy(net, prompts, run.budget.max_new_tokens, tokenizer.eos_token_id)
    return torch.cat(losses).mean().exp().item(), [tokenizer.decode(ids).strip() for ids in found]


with torch.no_grad():
    perplexity_before, before = examine(decoder)

# %%
import time

everything = [(row["source"], text) for row in restaurants["train"] for text in row["targets"]]
chosen = torch.randperm(len(everything), generator=torch.Generator().manual_seed(seed)).tolist()
chosen = [everything[i] for i in chosen[: run.budget.steps * run.budget.batch_size]]
pairs = [encode_completion(PROMPT.format(source), f" {text}", tokenizer) for source, text in chosen]
decoder.get_input_embeddings().weight.requires_grad_(False)
start_time = time.perf_counter()
history = training.train(
    decoder, pairs, steps=run.budget.steps, learning_rate=learning_rate, pad_id=tokenizer.pad_token_id,
    batch_size=run.budget.batch_size, seed=seed, objective=causal_losses,
)  # fmt: skip
print(
    f"{run.budget.steps} updates of {run.budget.batch_size} pairs took {time.perf_counter() - start_time:.0f} s"
)
print("loss per completion token:", " ".join(f"{loss:.2f}" for loss in history.losses))

# %% [markdown]
# **Predict.** What changes first: the facts, the style, or the length?

# %%
with torch.no_grad():
    perplexity_after, after = examine(decoder)
for row, old, new in list(zip(held_out, before, after, strict=True))[:4]:
    print(row["source"], f"\n   before: {old[:150]!r}\n   after:  {new!r}\n   human:  {row['targets'][0]!r}")
references = list(held_out["targets"])
for name, score in {"bleu": metrics.bleu, "chrf": metrics.chrf, "rouge_l": metrics.rouge_l}.items():
    a, b = score(before, references), score(after, references)
    print(f"{name:8s} before {a:6.2f}   after {b:6.2f}")
    run.record(**{f"{name}_before": a, f"{name}_after": b})
print(f"perplexity per completion token: before {perplexity_before:.2f}, after {perplexity_after:.2f}")
run.record(perplexity_before=perplexity_before, perplexity_after=perplexity_after)

# %% [markdown]
# **Observe.** (In the laptop profile.) Style and length come first: one sentence, in the manner of the data, and then the
# end. Names and places are copied from the prompt. Now check the attributes one by one: *familyFriendly: no* is an easy one
# to get wrong, and no score above will tell you.
#
# ## 9 The experiment: completion only, or all tokens?
#
# Masking the prompt is the default of trl for prompt-completion data. Is it better? Counting the prompt too gives more
# than twice the tokens to learn from, but they are tokens that nobody will ask for.
#
# We wrote claim **L1** down before the first run (`data/claims/L1.toml`): *training on the completion only gives better
# completions than training on all tokens.* "Better" had to be decided first. It is the loss per token of held-out
# completions, one paired difference per seed. Scores of a few dozen generated texts scatter too much to decide, so they
# stand beside the verdict. Same pairs, same order, same number of updates. Each method tried two learning rates, once,
# on a seed that the table does not use.
#
# **Predict.** Write down the sign of the difference, and whether five seeds will suffice to see it.

# %%
from instructlab_repro import lesson

lesson.table("completion_loss")

# %%
figure = lesson.figure("completion_loss")
figure.set_dpi(90)
_ = run.figure(figure, "06_completion_loss")

# %%
lesson.show("L1")
verdict = lesson.verdict("L1")
run.record(l1_verdict=verdict["verdict"])
if verdict["mean"] is not None:
    run.record(l1_mean=verdict["mean"], l1_low=verdict["low"], l1_high=verdict["high"])

# %% [markdown]
# **Observe.** Read the first interval before the word in front of it. It decides about the claim *as it was written*, and
# not in the direction that we had expected. Then compare its size with the next line, *completion only minus untuned*: the
# choice of the mask matters far less than fine-tuning at all. And the generated texts cannot tell the two apart: their
# intervals contain zero.
#
# Before you conclude that masks are bad, look at the tuning. **Predict.** Did both methods get the same learning rate?

# %%
for line in lesson.results("completion_loss", stage="tune"):
    rate = line["tuned"]["learning_rate"]
    print(f"{line['method']:16s} rate {rate:.0e}   loss per dev completion token {line['nll']:.3f}")

# %% [markdown]
# **Observe.** They did not. For the masked loss the two rates were a near tie, and the rule took the smaller one; for all
# tokens the larger one won clearly. So the comparison is of two *procedures*, mask and tuned rate together. Two rates,
# one seed and a few dev completions were too little tuning, and a part of the difference may be the rate's. The rule was
# fixed before the run, so the verdict stays. What it is worth stands here, beside it.
#
# A second reason why prompts may help *here*: they hold the same names and values as the completions, so to learn them is
# to learn the domain. And the prompts are longer than the completions. Where prompts are varied and completions long, the
# answer may be another.
#
# ## 10 What we have shown
#
# Printed from this run's record, so that the text cannot disagree with the numbers.

# %%
m = run.metrics
print(f"profile {run.profile}, seed {seed}, {run.device}")
print(f"mini-GPT and GPT-2: logits differ by {m['gpt2_logits']:.0e}, gradients by {m['gpt2_gradients']:.0e}")
print(f"without the shift, on noise: loss {m['unshifted_last']:.2f}; with it {m['shifted_last']:.2f}")
for how in ("by_length", "pad_counted", "by_pad_id"):
    logged, true, stopped = (m[f"{how}_{what}"] for what in ("logged", "true", "stopped"))
    print(f"labels {how:12s} logged {logged:.2f}, true {true:.2f}, stops {stopped} times")
print(f"our labels and loss against trl's: difference {m['trl_gap']:.0e}")
print(f"packing: leak {m['packing_leak']:.0e}, with blocks {m['packing_gap']:.0e}")
print(f"cache: {m['positions_cached']} positions instead of {m['positions_without']}")
print(f"SmolLM2: perplexity {m['perplexity_before']:.2f}, after {m['perplexity_after']:.2f};", end=" ")
print(f"chrF {m['chrf_before']:.1f}, after {m['chrf_after']:.1f}")
print(f"L1 over all seeds: {m['l1_verdict']}")

# %% [markdown]
# **What we have not shown.**
#
# - Nothing here was *pre-trained*. The toys learned a few hundred words, and the decoder came trained.
# - Dropout, rotary positions and grouped heads are in real models, and not in our parity test of the pieces.
# - Our sampler draws nothing: we compared distributions, not texts. Whether people prefer sampled texts is another study.
# - BLEU, chrF and ROUGE-L count overlap. We have not counted invented or forgotten attributes.
# - The E2E sentences are public, and the decoder may have met some of them before.
# - Loss per token on held-out completions is one meaning of "better". A user may have another.
#
# **Recall.** Answer without scrolling.
#
# 1. Why must the loss of an untrained model be near $\ln V$, and what does a loss near zero on noise prove?
# 2. Padding and end share an id. Which line makes the model talk for ever, and why does no loss betray it?
# 3. Name the three denominators. Which one changes when you shuffle the micro-batches?
# 4. What do packed rows need besides labels, and how do you test it?
# 5. Why may four beams end with a less probable text than greedy?
#
# **Exercises.** `notebooks/exercises/06_causal_language_model.py`; `make classroom` builds the student version.
#
# **References.**
#
# - Ben Allal, L., et al. (2025). SmolLM2: when Smol goes big. Data-centric training of a small language model.
#   arXiv:2502.02737.
# - Fan, A., Lewis, M., and Dauphin, Y. (2018). Hierarchical neural story generation. *ACL 2018*.
# - Holtzman, A., et al. (2020). The curious case of neural text degeneration. *ICLR 2020*.
# - Lin, C.-Y. (2004). ROUGE: a package for automatic evaluation of summaries. *Text
#   Summarization Branches Out, ACL 2004*.
# - Novikova, J., Dušek, O., and Rieser, V. (2017). The E2E dataset: new challenges for end-to-end generation. *SIGDIAL 2017*.
# - Papineni, K., et al. (2002). BLEU: a method for automatic evaluation of machine translation. *ACL 2002*.
# - Popović, M. (2015). chrF: character n-gram F-score for automatic MT evaluation. *WMT 2015*.
# - Post, M. (2018). A call for clarity in reporting BLEU scores. *WMT 2018*.
# - Radford, A., et al. (2019). Language models are unsupervised multitask learners (GPT-2). OpenAI.
# - Vaswani, A., et al. (2017). Attention is all you need. *NeurIPS 2017*.
# - transformers, issue 34191 (2024), on the denominator under gradient accumulation.
