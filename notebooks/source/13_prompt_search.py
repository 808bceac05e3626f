# ---
# jupyter:
#   instructlab:
#     id: "13"
#     title: Prompt-based fine-tuning and prompt search
#     outcome: turn a task into a sentence with a hole, tune through it, and search for better prompts without self-deception
#     assets: [smollm2, vader]
#     minutes: {smoke: 1, laptop: 7, gpu: 2}
#     class_minutes: 180
#     budget:
#       n_labelled: {smoke: 4, laptop: 10, gpu: 10}
#       draws: {smoke: 1, laptop: 3, gpu: 10}
#       n_pool: {smoke: 4, laptop: 32, gpu: 200}
#       n_test: {smoke: 6, laptop: 60, gpu: 400}
#       steps: {smoke: 1, laptop: 20, gpu: 20}
#       n_dev: {smoke: 3, laptop: 16, gpu: 64}
#       rounds: {smoke: 1, laptop: 12, gpu: 30}
#       candidates: {smoke: 3, laptop: 14, gpu: 48}
#       proposals: {smoke: 2, laptop: 6, gpu: 12}
#       n_items: {smoke: 2, laptop: 24, gpu: 28}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 13 Prompt-based fine-tuning and prompt search
#
# **The question.** Ten labelled film sentences, and a language model that has read a part of the web. Whether a sentence
# praises a film, it has probably known for a long time. How do you *ask*?
#
# A fresh head begins with random rows and must learn from ten sentences where "positive" lies. You build three answers to
# this waste: a *pattern* that turns the label into the next word (PET, LM-BFF), a search for *tokens* by gradient
# (AutoPrompt), and a search for *instructions* by likelihood (APE). Two of the three choose the best of many by a number
# measured on a few examples. You derive what such a choice hides.
#
# | | |
# |---|---|
# | before this | lesson 06 (KV cache), lesson 09 (LoRA), lesson 10 (gradients of inputs), lesson 12 (scores of options) |
# | time | smoke: about a minute · laptop: about seven minutes on one core · gpu: not measured yet |
# | memory | under 3 GB |
# | model | SmolLM2-135M-Instruct: a 4-bit checkpoint, de-quantised, already tuned on instructions |
# | data | rated film sentences (Hutto and Gilbert, 2014); 352 pairs of words written for this course |
# | box of lesson 00's chain | *the instruction*: who writes it, and how anybody knows that it is good |
#
# **You will be able to**
#
# - *write* a pattern and a verbaliser, and say what they give to the first gradient;
# - *tune* the upper layers only, with everything below computed once;
# - *distil* an ensemble of patterns through soft labels, and derive their gradient;
# - *derive* the first-order score of a swap of tokens, check it three ways, and say when it lies;
# - *separate* what a search found from what it merely selected.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
seed: int = 0  # sentences, first values, order of batches, candidates
rate: float = 4e-3  # peak of the learning rate, for words
head_rate: float = 1e-2  # the same for fresh heads

# %%
import functools
import itertools
import json
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM

from instructlab_repro import lesson
from instructlab_utils import expect_error, losses, models, plotting, scoring, start, tasks, training, tuners
from instructlab_utils.generation import causal_losses

run = start("13", profile=profile, seed=seed)
show = functools.partial(plotting.show, run)
tokenizer = models.load_tokenizer("decoder")
net = models.load_decoder(device=run.device).float().requires_grad_(False)
W = net.get_output_embeddings().weight

# %% [markdown]
# We write each sentence into a form and look only at two words that could come next. No label is used.
#
# **Predict.** Of ten sentences, how many are right?

# %%
corpus = tasks.load("movie-sentiment")
PATTERN, WORDS_OF = "Review: {}\nSentiment:", [" negative", " positive"]
two = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in WORDS_OF]
hits = 0
for row in tasks.subsample(corpus.splits["train"], 10, 3):
    with torch.no_grad():
        ids = tokenizer(PATTERN.format(row["text"]), return_tensors="pt").to(run.device)
        p = net(**ids, logits_to_keep=1).logits[0, -1, two].softmax(-1)
    hits += int(p.argmax()) == row["label"]
    print(f"{WORDS_OF[row['label']]:10s} p(positive) = {p[1]:.2f}  {row['text'][:80]}")
print(f"right: {hits} of 10, without a single label")

# %% [markdown]
# **Observe.** The model knows a good deal about the task before any training. What the question looked like matters; that is
# this lesson. Its letters:
#
# | symbol | meaning |
# |---|---|
# | $x, T, y, K$ | a text, its number of tokens, its label, the number of labels |
# | $P, v$ | pattern: writes $x$ into a sentence; verbaliser: gives each label a word |
# | $h, d$ | state of the last token, of width $d$ |
# | $W, w_y$ | output layer $V \times d$; its row of the word of label $y$ |
# | $z, \pi$ | logits; probabilities of the two words |
# | $s_j, a_j, q, \tau$ | scores of pattern $j$, its weight, soft labels, temperature |
# | $t, E, g$ | a trigger token, the embeddings $V \times d$, the gradient of a token's vector |
# | $c, N, m$ | a candidate instruction, how many there are, pairs that judge them |
# | $\rho$ | correlation of two candidates' luck |

# %%
figure, axis = plotting.axes(width=8.2, height=2.7, dpi=85)
blue, grey = plotting.COLOURS[0], "#D9D9D9"
boxes = [
    ("pattern P(x)\nT tokens", 0, "white"),
    ("embeddings and\n20 layers, frozen:\ncomputed once", 2, grey),
]
boxes += [
    ("kept states\nT × d", 4, "white"),
    ("10 layers\n+ LoRA", 5.7, blue),
    ("last state h\nd", 7.3, "white"),
]
for text, x in [(text, x) for text, x, _ in boxes]:
    colour = dict((a, c) for a, _, c in boxes)[text]
    axis.text(x, 0, text, ha="center", va="center", fontsize=8, color="white" if colour == blue else "black",
              bbox={"boxstyle": "square,pad=0.5", "fc": colour})  # fmt: skip
ways = {"rows of two words, frozen\nW_v: 2 × d": (0.9, grey), "a fresh head, random\n2 × d": (-0.9, blue)}
for text, (y, colour) in ways.items():
    axis.text(9.6, y, text, ha="center", va="center", fontsize=8, color="white" if colour == blue else "black",
              bbox={"boxstyle": "square,pad=0.5", "fc": colour})  # fmt: skip
    axis.annotate("", (8.5, y * 0.8), (7.9, 0), arrowprops={"arrowstyle": "->"})
    axis.annotate("", (11.6, y * 0.4), (10.8, y), arrowprops={"arrowstyle": "->"})
for a, b in ((0.75, 1.1), (2.95, 3.4), (4.6, 5.15), (6.25, 6.65)):
    axis.annotate("", (b, 0), (a, 0), arrowprops={"arrowstyle": "->"})
axis.text(12.0, 0, "logits z\n2", ha="center", va="center", fontsize=8)
axis.set(xlim=(-0.9, 12.5), ylim=(-1.6, 1.6))
axis.axis("off")
show(figure, "13_pattern")

# %% [markdown]
# *Figure (a drawing): the way of one sentence. Blue trains, grey is frozen. Above: two rows of the output layer. Below: two
# random rows, which train as well.*
#
# ## 1 A sentence with a hole
#
# A language model does one thing: it says which token comes next. A *pattern* makes a classification task of this kind. It is
# a function $P$ that writes the text $x$ into a sentence with a hole at its end. A *verbaliser* $v$ gives each label $y$ one
# word of the vocabulary. Together they are a *pattern–verbaliser pair* (Schick and Schütze, 2021):
#
# $$ p(y \mid x) = \frac{\exp z_{v(y)}}{\sum_{y'} \exp z_{v(y')}}, \qquad z = W\, h\big(P(x)\big), $$
#
# where $h$ is the last state and $W$ the output layer. All rows of $W$ but the words' are ignored.

# %%
# pattern, the word of label 0, the word of label 1
PAIRS = {
    "a": (PATTERN, WORDS_OF),
    "b": ("{} It was", [" terrible", " great"]),
    "c": ("{} All in all, the film is", [" bad", " good"]),
}

# %% [markdown]
# **The trap in the verbaliser.** A label needs *one* token, or the formula above compares the beginning of one word with the
# whole of another. Whether a word is one token depends on the space in front of it.


# %%
def word_ids(words):
    """The token of each word. Raises ValueError for a word that is not one token."""
    ids = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
    for word, tokens in zip(words, ids, strict=True):
        if len(tokens) != 1:
            raise ValueError(f"{word!r} is {len(tokens)} tokens: choose a word that is one")
    return [token for (token,) in ids]


print(word_ids([" terrible", " great"]))
with expect_error(ValueError, match="is 2 tokens"):
    word_ids(["terrible", "great"])

# %% [markdown]
# **Predict.** The sentence below is good news for the film. For which of the three pairs will its word win? And how much of
# the probability do the two words get, of all words that could come next?

# %%
sentence = "A quiet film that stays with you for days."
with torch.no_grad():
    for name, (pattern, words) in PAIRS.items():
        ids = tokenizer(pattern.format(sentence), return_tensors="pt").to(run.device)
        z = net(**ids, logits_to_keep=1).logits[0, -1]
        p, two = z.softmax(-1), z[word_ids(words)].softmax(-1)
        likely = [tokenizer.decode([i]) for i in z.topk(3).indices.tolist()]
        print(
            f"{name}: p({words[1]!r}) = {two[1]:.2f}; both words have {p[word_ids(words)].sum():.1%};", likely
        )

# %% [markdown]
# **Observe.** The two words need not be what the model would say. Renormalising over them asks the only question that we
# have: which of the *two*? All three pairs choose the right word here, and all are about equally sure. Section 5 shows that
# over many sentences they are not equally good.
#
# ## 2 What words give to a gradient
#
# Write the loss of one sentence with label $y$, and differentiate with respect to the last state. With
# $\pi = \mathrm{softmax}(W_v h)$ over the words' rows $W_v$, and $1_y$ the one-hot vector of $y$, lesson 01 gives
#
# $$ L = -\log \pi_y, \qquad \frac{\partial L}{\partial h} = W_v^\top (\pi - 1_y) . $$
#
# Two labels: $\pi - 1_y$ is $(1 - \pi_y)$ times $(+1, -1)$ or $(-1, +1)$. So for a sentence of label 1
#
# $$ \frac{\partial L}{\partial h} = -(1 - \pi_1)\,\big(w_1 - w_0\big) . $$
#
# The only direction in which the last state is pushed is the difference of two rows. For words, pre-training made this
# difference. For a fresh head it is a difference of random rows: the layers below are told to move, but nobody knows yet
# where "positive" lies. (The head's rows learn too, and have to.)
#
# **Predict.** What happens to this gradient when the two words are swapped?

# %% tags=["nbval-check-output"]
g = torch.Generator().manual_seed(0)
h, rows, y = torch.randn(6, generator=g).double(), torch.randn(2, 6, generator=g).double(), 1
loss_of = lambda h: -torch.log_softmax(rows @ h, -1)[y]  # noqa: E731
pi = (rows @ h).softmax(-1)
closed = rows.T @ (pi - F.one_hot(torch.tensor(y), 2))
automatic = torch.func.grad(loss_of)(h)
finite = torch.stack([(loss_of(h + e) - loss_of(h - e)) / 2e-6 for e in 1e-6 * torch.eye(6).double()])
assert closed.shape == automatic.shape == finite.shape
assert (closed - automatic).abs().max() < 1e-12 and (closed - finite).abs().max() < 1e-8
along = torch.cosine_similarity(closed, rows[0] - rows[1], dim=0)
print(f"three ways, one gradient; cosine with w_0 - w_1: {along:.3f}")
swapped = torch.func.grad(lambda h: -torch.log_softmax(rows.flip(0) @ h, -1)[y])(h)
print(f"words swapped: cosine {torch.cosine_similarity(swapped, rows[0] - rows[1], dim=0):.3f},", end=" ")
print(f"length {swapped.norm():.3f} instead of {closed.norm():.3f}")

# %% [markdown]
# **Observe.** Swapped words turn the gradient around; its length changes from $1 - \pi_1$ to $\pi_1$ times that of $w_1 -
# w_0$. All that the model knows is still there, and the first update works against it. Same pattern, same rows, wrong
# names.
#
# ## 3 The lower layers, once
#
# Tuning a decoder on one core is slow. We freeze the lower twenty of thirty layers and put LoRA (lesson 09) into the upper
# ten. What a frozen layer makes of a text never changes, so it is computed *once per text* and kept. This is a smaller
# thing than the papers do (they train all weights of an encoder), and every number below is about this smaller thing.
#
# By hand, the border is an entry of `hidden_states`; the package has `split_decoder`.

# %%
AT = 20
bottom, top = models.split_decoder(net, at=AT)
both = tokenizer([sentence, "Dull."], padding=True, return_tensors="pt", padding_side="right").to(run.device)
with torch.no_grad():
    whole = net(**both, output_hidden_states=True)
    kept = bottom(**both).last_hidden_state
    above = top(inputs_embeds=kept, attention_mask=both["attention_mask"]).logits
real = both["attention_mask"].bool()
apart = max(
    (kept - whole.hidden_states[AT])[real].abs().max().item(),
    ((above - whole.logits)[real].abs().max() / whole.logits.abs().max()).item(),
)
print(f"largest difference at the border and at the output: {apart:.0e}")
run.record(split_difference=apart)
assert apart < 1e-5

# %%
top = tuners.inject(top, tuners.Lora(r=8), seed=seed).to(run.device)
first_values = {name: p.detach().clone() for name, p in tuners.trainable(top).items()}
seen = {}


# %%
@torch.no_grad()
def encoded(rows, pattern="{}"):
    """Examples for the loop; the states of their texts are computed and kept in ``seen``, by the text's tokens."""
    texts = [{"text": pattern.format(row["text"]), "label": row["label"]} for row in rows]
    examples = training.encode(texts, tokenizer, 96)
    new = sorted(
        (e for e in examples if tuple(e["input_ids"]) not in seen), key=lambda e: len(e["input_ids"])
    )
    for begin in range(0, len(new), 16):
        batch = training.move(training.collate(new[begin : begin + 16], 0), run.device)
        states = bottom(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        for example, h in zip(new[begin : begin + 16], states, strict=True):
            seen[tuple(example["input_ids"])] = h[: len(example["input_ids"])].clone()
    return examples


# %% [markdown]
# The model to tune: the upper layers read the kept states, and two rows make two logits of the last one. The rows are those
# of words, frozen, or small random numbers, trained.


# %%
def last_states(input_ids, attention_mask):
    """The state of each text's last token, (B, d), from the kept states of its tokens."""
    lengths = attention_mask.sum(1)
    texts = [tuple(ids[:n].tolist()) for ids, n in zip(input_ids, lengths, strict=True)]
    h = pad_sequence([seen[text] for text in texts], batch_first=True)
    h = top.model(inputs_embeds=h, attention_mask=attention_mask).last_hidden_state
    return h[torch.arange(len(h)), lengths - 1]


# %%
class Reader(nn.Module):
    """Two logits from the last state. Building one sets LoRA back to its first values."""

    def __init__(self, words=None):
        super().__init__()
        with torch.no_grad():
            for name, p in tuners.trainable(top).items():
                p.copy_(first_values[name])
        drawn = 0.02 * torch.randn(2, W.shape[1], generator=torch.Generator().manual_seed(seed))
        rows = drawn.to(W.device) if words is None else W[word_ids(words)].clone()
        self.top, self.rows = top, nn.Parameter(rows, requires_grad=words is None)

    def forward(self, input_ids, attention_mask):
        return SimpleNamespace(logits=last_states(input_ids, attention_mask) @ self.rows.T)


# %% [markdown]
# ## 4 Ten sentences, live
#
# Words or random rows? That is one question. Pattern or bare sentence? That is another one. A fresh head usually reads the
# bare sentence. Whoever compares it with "pattern and words" has changed two things. So we train all combinations, and the
# swapped words, on several draws of ten sentences, with the same number of updates, all ten in each batch. The test
# sentences are the same for all.
#
# **Predict.** Order the five accuracies. Which change matters more, that of the text or that of the rows?


# %%
def short(split, n, chosen_by):
    """``n`` sentences of at most 24 tokens: half of the cost of a batch is otherwise padding."""
    rows = corpus.splits[split]
    lengths = [len(ids) for ids in tokenizer(list(rows["text"]))["input_ids"]]
    return tasks.subsample(rows.select([i for i, m in enumerate(lengths) if m <= 24]), n, chosen_by)


# %%
drawn = short("train", run.budget.n_labelled + run.budget.n_pool, seed)
labelled = drawn.select(range(run.budget.n_labelled))
pool = drawn.select(range(run.budget.n_labelled, len(drawn)))  # its labels are not used for training
test = short("test", run.budget.n_test, 0)
truth = torch.tensor(list(test["label"]))
print(f"{len(labelled)} labelled, {len(pool)} unlabelled, {len(test)} test sentences")


# %%
def tuned(pattern="{}", words=None, learning_rate=rate, steps=run.budget.steps, sentences=None):
    """A model tuned on the sentences; without words: a fresh head."""
    reader, sentences = Reader(words), labelled if sentences is None else sentences
    if steps:
        training.train(
            reader, encoded(sentences, pattern), steps=steps, learning_rate=learning_rate, pad_id=0,
            batch_size=len(sentences), seed=seed,
        )  # fmt: skip
    return reader


# %%
def logits(reader, rows, pattern="{}"):
    return training.predict(reader, encoded(rows, pattern), 0, 24).double()


def accuracy(z):
    return (z.argmax(-1) == truth).double().mean().item()


# %%
pattern, words = PAIRS["a"]
arms = {  # name: text, rows, rate
    "bare, fresh head": ("{}", None, head_rate),
    "bare, words": ("{}", words, rate),
    "pattern, fresh head": (pattern, None, head_rate),
    "pattern, words": (pattern, words, rate),
    "pattern, words swapped": (pattern, words[::-1], rate),
}
draws = [
    labelled,
    *(short("train", run.budget.n_labelled, seed + 10 + j) for j in range(run.budget.draws - 1)),
]
shown = {"pattern, untuned": [logits(tuned(pattern, words, steps=0), test, pattern)]}
for name, (text, rows, how_fast) in arms.items():
    made = (tuned(text, rows, how_fast, sentences=draw) for draw in draws)
    shown[name] = [logits(reader, test, text) for reader in made]
for name, found in shown.items():
    each, loss = (
        [accuracy(z) for z in found],
        losses.cross_entropy(torch.cat(found), truth.repeat(len(found))),
    )
    print(f"{name:23s} {sum(each) / len(each):.3f}  {[round(a, 2) for a in each]}  loss {loss.mean():.2f}")
mean = {name: sum(map(accuracy, found)) / len(found) for name, found in shown.items()}
run.record(**{f"arm_{i}": mean[name] for i, name in enumerate(arms)})

# %%
larger = max(truth.double().mean().item(), 1 - truth.double().mean().item())
figure, axis = plotting.axes(width=5.4, height=2.6, dpi=85)
plotting.dots(
    axis, {name: list(map(accuracy, found)) for name, found in shown.items()}, "test accuracy, ten sentences"
)
axis.axvline(larger, color="grey", linestyle="--", linewidth=1)
show(figure, "13_two_by_two")
text_gain = mean["pattern, fresh head"] - mean["bare, fresh head"]
print(f"the head gains {text_gain:+.3f} by the pattern's text alone;", end=" ")
print(
    f"words instead of the head, on the pattern: {mean['pattern, words'] - mean['pattern, fresh head']:+.3f}"
)
print(
    f"swapped words minus the head on the pattern: {mean['pattern, words swapped'] - mean['pattern, fresh head']:+.3f}"
)

# %% [markdown]
# *Figure: a dot for each draw of ten sentences, a bar at the mean; dashed: the larger class. The untuned pattern has no
# draw.*
#
# **Observe.** A few draws and a few dozen test sentences: a picture, not a result. Read the three printed differences. The
# first is what the text of the pattern alone gives to a fresh head. The second is what the words add where both read the
# same text. The third compares wrong words with no words, again on the same text. Whoever subtracts "bare, fresh head" from
# "pattern, words" has the sum of the first two. Section 9 has the grid, in which the head reads the bare sentence only.
#
# ## 5 PET: patterns teach a classifier
#
# Which pattern is best? With ten labels you cannot afford to find out. PET (Schick and Schütze, 2021) does not ask. It tunes
# *each* pattern on the labelled sentences, lets all of them label a pool of *unlabelled* ones, and trains one ordinary
# classifier on what they say. With the scores $s_j(x) \in \mathbb R^K$ of pattern $j$, and weights $a_j$:
#
# $$ s(x) = \frac{\sum_j a_j\, s_j(x)}{\sum_j a_j}, \qquad q(x) = \mathrm{softmax}\big(s(x) / \tau\big) . $$
#
# $a_j$ is the pattern's accuracy on the labelled sentences *before* it was tuned on them, $\tau = 2$. The labels $q$ are
# *soft*: "seven to three for positive" is more than "positive". The classifier's loss is the cross-entropy against them:
#
# $$ L = -\sum_k q_k \log p_k, \qquad p = \mathrm{softmax}(z) . $$
#
# Its gradient, symbol by symbol. $\log p_k = z_k - \log \sum_j e^{z_j}$, so
# $\partial \log p_k / \partial z_i = \delta_{ki} - p_i$, and with $\sum_k q_k = 1$
#
# $$ \frac{\partial L}{\partial z_i} = -\sum_k q_k (\delta_{ki} - p_i) = p_i - q_i . $$
#
# The formula of lesson 01, with $q$ where the one-hot vector was.


# %%
def soft_labels(scores, weights, temperature):
    """q, (N, K), from the patterns' scores, (P, N, K), and their weights, (P,)."""
    s = torch.einsum("p,pnk->nk", weights / weights.sum(), scores)
    return (s / temperature).softmax(-1)


def soft_cross_entropy(z, q):
    """One loss per row: -sum_k q_k log p_k, for logits z and soft labels q, both (N, K)."""
    return -(q * losses.log_softmax(z)).sum(-1)


# %% tags=["nbval-check-output"]
g = torch.Generator().manual_seed(1)
z, s = torch.randn(4, 3, generator=g).double(), torch.randn(2, 4, 3, generator=g).double()
q = soft_labels(s, torch.tensor([0.9, 0.6]).double(), 2.0)
total = lambda z: soft_cross_entropy(z, q).sum()  # noqa: E731
steps = 1e-6 * torch.eye(12).double().view(12, 4, 3)
finite = torch.stack([(total(z + e) - total(z - e)) / 2e-6 for e in steps]).view(4, 3)
closed, automatic = z.softmax(-1) - q, torch.func.grad(total)(z)
assert closed.shape == automatic.shape == finite.shape
assert (closed - automatic).abs().max() < 1e-12 and (closed - finite).abs().max() < 1e-8
library = F.cross_entropy(z, q, reduction="none")
assert (soft_cross_entropy(z, q) - library).abs().max() < 1e-12
print("p - q three ways; the loss equals torch's cross_entropy with probabilities as targets")

# %% [markdown]
# **The trap.** torch's function takes class numbers *or* probabilities, and decides by the type of the second argument. Give
# it the teacher's *logits*, which have the right shape and type, and it computes something.

# %% tags=["nbval-check-output"]
least = -(q * q.log()).sum(-1).mean()
print(f"smallest possible loss with soft labels, their entropy: {least:.2f}")
for shift in (0, 3, -3):
    print(f"logits plus {shift:2d} as targets: loss {F.cross_entropy(z, s[0] + shift):6.2f}")
assert F.cross_entropy(z, s[0]) < least

# %% [markdown]
# **Observe.** No error. A number that is added to all logits changes no probability, but it changes this loss: too small,
# too large, or negative. Check that the rows of the targets sum to one. Now PET, live and small.
#
# **Predict.** Will the distilled head be better than the head that saw ten labels? Better than the best of the patterns?


# %%
def taught(pattern, words):
    """One teacher: its scores on pool and test, and its weight."""
    untuned = logits(tuned(pattern, words, steps=0), labelled, pattern).argmax(-1)
    weight = (untuned == torch.tensor(list(labelled["label"]))).double().mean()
    reader = tuned(pattern, words)
    return logits(reader, pool, pattern), logits(reader, test, pattern), weight


on_pool, on_test, weights = map(torch.stack, zip(*[taught(*pair) for pair in PAIRS.values()], strict=True))
q = soft_labels(on_pool, weights, 2.0)
print(
    "weights", [round(w, 2) for w in weights.tolist()], "first soft labels", q[:3].round(decimals=2).tolist()
)

# %%
examples = encoded(pool)
wanted = {tuple(e["input_ids"]): row for e, row in zip(examples, q.float(), strict=True)}


def against_soft(reader, batch):
    ids, mask = batch["input_ids"], batch["attention_mask"]
    rows = [wanted[tuple(i[:n].tolist())] for i, n in zip(ids, mask.sum(1), strict=True)]
    return soft_cross_entropy(reader(ids, mask).logits, torch.stack(rows).to(ids.device))


student = Reader()
_ = training.train(
    student, examples, steps=run.budget.steps, learning_rate=head_rate, pad_id=0, batch_size=8, seed=seed,
    objective=against_soft,
)  # fmt: skip
# %%
ensemble = torch.einsum("p,pnk->nk", weights / weights.sum(), on_test)
found = {**{f"pattern {n}": z for n, z in zip(PAIRS, on_test, strict=True)}, "ensemble": ensemble}
found |= {"fresh head, 10 labels": shown["bare, fresh head"][0], "PET: distilled head": logits(student, test)}
for name, z in found.items():
    print(f"{name:22s} accuracy {accuracy(z):.2f}")

# %% [markdown]
# **Observe.** One draw, and few test sentences: a picture, and no ranking. Compare the spread of the three patterns with the
# ensemble, and the two heads with each other. The student never saw a label; it saw what the teachers made of ten. In the
# paper the pool holds thousands of texts, here a few dozen. The pool must not be the test set: a student that has read the
# test sentences has been told by its teachers what to say there.
#
# ## 6 A search among tokens: the gradient
#
# A person wrote the patterns. AutoPrompt (Shin et al., 2020) lets the gradient write: it puts $n$ *trigger* tokens
# $t_1, \dots, t_n$ into the input and looks for those that lower the loss, while the model stays frozen. Tokens are not
# numbers. So write a token as a one-hot row $u_i \in \{0, 1\}^V$. Its vector is $e_i = E^\top u_i$, and the chain rule gives
#
# $$ \frac{\partial L}{\partial u_i} = E\, \frac{\partial L}{\partial e_i} = E\, g_i . $$
#
# One backward pass gives $g_i$, and one product gives a number for *every* token of the vocabulary. To first order, putting
# token $w$ in place of $t$ changes the loss by
#
# $$ L(w) - L(t) \approx (E_w - E_t) \cdot g_i . $$
#
# Ebrahimi et al. (2018) call such a swap a *HotFlip*. Three ways again, on a small Llama with random weights in float64.

# %%
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=19, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, pad_token_id=0, initializer_range=0.5, tie_word_embeddings=False,
)  # fmt: skip
toy = LlamaForCausalLM(config).double().eval()
for part in (*toy.model.layers, toy.model):
    for name in ("input_layernorm", "post_attention_layernorm", "norm"):
        if hasattr(part, name):  # transformers' own norm computes in float32, whatever it is given
            setattr(part, name, nn.RMSNorm(16, eps=config.rms_norm_eps, dtype=torch.float64))
_ = toy.requires_grad_(False)

# %%
toy_E, text, trigger = toy.get_input_embeddings().weight, torch.tensor([3, 7, 5]), torch.tensor([2, 11])


def toy_loss(u):
    """Cross-entropy of word 4 against word 9 after text and trigger; u holds the trigger's one-hot rows, (2, 19)."""
    vectors = torch.cat([toy_E[text], u @ toy_E])[None]
    z = toy(inputs_embeds=vectors).logits[0, -1, [4, 9]]
    return -torch.log_softmax(z, -1)[0]


# %% tags=["nbval-check-output"]
u = F.one_hot(trigger, 19).double()
e = toy_E[trigger].clone().requires_grad_()
z = toy(inputs_embeds=torch.cat([toy_E[text], e])[None]).logits[0, -1, [4, 9]]
(g,) = torch.autograd.grad(-torch.log_softmax(z, -1)[0], e)
closed = g @ toy_E.T  # through the embedding matrix
automatic = torch.func.grad(toy_loss)(u)
steps = 1e-5 * torch.eye(38).double().view(38, 2, 19)
finite = torch.stack([(toy_loss(u + s) - toy_loss(u - s)) / 2e-5 for s in steps]).view(2, 19)
assert closed.shape == automatic.shape == finite.shape
assert (closed - automatic).abs().max() < 1e-12 and (closed - finite).abs().max() < 1e-6
print("closed form, autograd and finite differences agree:", tuple(closed.shape))

# %% [markdown]
# **How far does first order reach?** A swap is not a small step. Walk from $E_t$ towards $E_w$ by a fraction
# $\varepsilon$ and compare the true change of the loss with $\varepsilon\, (E_w - E_t) \cdot g$.
#
# **Predict.** By which factor does the *error* fall when $\varepsilon$ is halved? And which $\varepsilon$ does a swap have?

# %%
w, at = 14, 0
predicted = ((toy_E[w] - toy_E[trigger[at]]) @ g[at]).item()
for epsilon in (1, 1 / 2, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128):
    moved = u.clone()
    moved[at] = (1 - epsilon) * u[at] + epsilon * F.one_hot(torch.tensor(w), 19)
    change = (toy_loss(moved) - toy_loss(u)).item()
    print(f"epsilon {epsilon:.3f}: change {change:+.4f}, first order {epsilon * predicted:+.4f},"
          f" error {abs(change - epsilon * predicted):.5f}")  # fmt: skip

# %% [markdown]
# **Observe.** Near the token, halving the step divides the error by about four, as Taylor promises. A swap is
# $\varepsilon = 1$, and there the promise is void. So the gradient may only *propose*. Every proposal has to be tried.
#
# ## 7 A search among tokens: live
#
# We put three trigger tokens *behind* the sentence. Attention looks back, never forward, so the keys and values of the
# sentence do not depend on the trigger: they are computed once, and a candidate costs three tokens per sentence.


# %%
@torch.no_grad()
def read(rows):
    """KV cache of the sentences, their mask, their labels."""
    batch = training.move(training.collate(training.encode(rows, tokenizer, 96), 0), run.device)
    seen_so_far = dict(attention_mask=batch["attention_mask"], use_cache=True)
    return (
        net.model(batch["input_ids"], **seen_so_far).past_key_values,
        batch["attention_mask"],
        batch["labels"],
    )


# %%
def trigger_logits(kept, vectors):
    """Logits of the two words after each sentence and the trigger's vectors, (n, d)."""
    cache, mask, _ = kept
    n, B = len(vectors), len(mask)
    out = net.model(
        inputs_embeds=vectors.expand(B, -1, -1), attention_mask=torch.cat([mask, mask.new_ones(B, n)], 1),
        position_ids=mask.sum(1, keepdim=True) + torch.arange(n, device=mask.device),
        past_key_values=cache, use_cache=True,
    )  # fmt: skip
    cache.crop(-n)  # forget the trigger
    return out.last_hidden_state[:, -1] @ W[word_ids(PAIRS["a"][1])].T


def trigger_loss(kept, vectors):
    return losses.cross_entropy(trigger_logits(kept, vectors), kept[2]).mean()


# %%
Reader()  # sets LoRA back: from here on the model is the untuned one
net.requires_grad_(False)
E = net.get_input_embeddings().weight
dev_rows = short("train", run.budget.n_dev, 500 + seed)
kept_dev, kept_test = read(dev_rows), read(test)

# %%
manual = tokenizer("\nSentiment:", add_special_tokens=False)["input_ids"]
start_ids = tokenizer(" the the the", add_special_tokens=False)["input_ids"]
with torch.no_grad():
    baseline = {
        split: trigger_loss(k, E[manual]).item() for split, k in (("dev", kept_dev), ("test", kept_test))
    }
    one = tokenizer(dev_rows[0]["text"] + "\nSentiment:", return_tensors="pt").to(run.device)
    direct = net(**one).logits[0, -1, word_ids(PAIRS["a"][1])]
    apart = (trigger_logits(kept_dev, E[manual])[0] - direct).abs().max().item()
print(f"with the cache and without: largest difference {apart:.0e}; written by hand: {baseline}")
assert apart < 1e-3
run.record(cache_difference=apart)

# %% [markdown]
# Each round takes the gradient, draws some candidates among the most promising tokens of each place, tries them on the dev
# sentences, and keeps the best if it is better. As a control, we also try as many swaps drawn at *random*, and keep none of
# them. We look at the test sentences after every round, and never use what we see.


# %%
def first_order(E, trigger, g):
    """(n, V): the estimated change of the loss for each token in each place."""
    return g @ E.T - (g * E[trigger]).sum(1, keepdim=True)


WORDS = [tokenizer.decode([i]) for i in range(len(E))]
allowed = [i for i, t in enumerate(WORDS) if t[0] == " " and t[1:].isascii() and t[1:].isalpha()]
allowed = torch.tensor(sorted(set(allowed) - set(word_ids(PAIRS["a"][1]))), device=E.device)
dice = torch.Generator().manual_seed(seed)


# %%
def proposals(trigger, keep=64):
    """Swaps (place, token, estimated change), drawn from the ``keep`` most promising ones of each place."""
    vectors = E[trigger].clone().requires_grad_()
    (g,) = torch.autograd.grad(trigger_loss(kept_dev, vectors), vectors)
    change = first_order(E, trigger, g)[:, allowed]
    best = change.topk(keep, largest=False).indices.tolist()
    swaps = [(at, j) for at, row in enumerate(best) for j in row]
    drawn = torch.randperm(len(swaps), generator=dice)[: run.budget.candidates].tolist()
    return [(at, allowed[j].item(), change[at, j].item()) for at, j in (swaps[i] for i in drawn)]


# %% [markdown]
# **Predict.** Will the loss on the test sentences fall with the loss on the dev sentences? And how often will a random swap
# help, compared with a proposed one?

# %%
trigger, tried, blind, path = list(start_ids), [], [], []
places = torch.Generator().manual_seed(seed + 1)
with torch.no_grad():
    now = trigger_loss(kept_dev, E[trigger]).item()
    path.append((now, trigger_loss(kept_test, E[trigger]).item()))
for _ in range(run.budget.rounds):
    swaps = proposals(trigger)
    with torch.no_grad():
        options = [[*trigger[:at], token, *trigger[at + 1 :]] for at, token, _ in swaps]
        after = [trigger_loss(kept_dev, E[option]).item() for option in options]
        random_ids = allowed[
            torch.randint(len(allowed), (len(swaps),), generator=places).to(allowed.device)
        ].tolist()
        where = torch.randint(len(trigger), (len(swaps),), generator=places).tolist()
        others = [
            [*trigger[:at], token, *trigger[at + 1 :]] for at, token in zip(where, random_ids, strict=True)
        ]
        blind += [trigger_loss(kept_dev, E[other]).item() - now for other in others]
        tried += [(change, value - now) for (_, _, change), value in zip(swaps, after, strict=True)]
        if min(after) < now:
            now, trigger = min(after), options[after.index(min(after))]
        path.append((now, trigger_loss(kept_test, E[trigger]).item()))
    print(f"dev {path[-1][0]:.3f}  test {path[-1][1]:.3f}  {tokenizer.decode(trigger)!r}")

# %%
figure, (left, right) = plotting.axes(1, 2, dpi=85)
for index, name in enumerate(("dev, searched on", "test")):
    values = [pair[index] for pair in path]
    right.plot(range(len(values)), values, label=name, **plotting.style(index))
    split = name[:3] if index == 0 else "test"
    right.axhline(
        baseline[split], color=plotting.COLOURS[index], linewidth=1, linestyle=(0, (1, 2 + 3 * index))
    )
right.set(xlabel="round", ylabel="loss (nats); dotted: by hand")
right.legend(fontsize=8)
left.scatter(*zip(*tried, strict=True), s=12, color="black", alpha=0.5)
left.axline((0, 0), slope=1, color="grey", linewidth=1)
left.set(xlabel="first-order change", ylabel="true change of the dev loss (nats)")
show(figure, "13_trigger")

# %%
estimate, true = torch.tensor(tried).T
with torch.no_grad():
    z_dev, z_test = (trigger_logits(k, E[trigger]) for k in (kept_dev, kept_test))
right_dev = (z_dev.argmax(-1) == kept_dev[2]).double().mean().item()
apart_before, apart_now = (path[i][1] - path[i][0] for i in (0, -1))  # test loss minus dev loss
gap = apart_now - apart_before
print(f"correlation of estimate and truth: {torch.corrcoef(torch.stack([estimate, true]))[0, 1]:.2f}")
helped = [int((torch.as_tensor(x) < 0).sum()) for x in (true, blind)]
print(
    f"swaps that helped: {helped[0]} of {len(true)} proposed by the gradient, {helped[1]} of {len(blind)} random ones"
)
print(f"loss at the end: dev {path[-1][0]:.3f}, test {path[-1][1]:.3f}; by hand {baseline}")
print(
    f"accuracy: dev {right_dev:.2f}, test {accuracy(z_test.cpu()):.2f}; test loss minus dev loss:"
    f" {apart_before:+.2f} nats before the search, {apart_now:+.2f} after"
)
run.record(trigger_gap=gap, helped=helped[0], helped_blind=helped[1])

# %% [markdown]
# **Observe.** The dev curve falls by construction. What the search bought is the test curve; compare its end with the
# prompt that a person wrote (the line *loss at the end*). Most of the swaps shown here were *predicted* to help; the points
# do not lie on the line, and few lie below zero. Compare the count with that of the random swaps before you thank the
# gradient. A part of the distance between dev and test was there before the search, as the two sets of sentences differ;
# what the search added is its *optimism gap*.
#
# *Figure. Left: a dot for each proposed swap; on the grey line the first-order change would be exact. Right: dotted, the
# prompt that a person wrote.*
#
# Two more questions to the trigger: is it language, and does it survive being written down?


# %%
texts = [row["text"] for row in dev_rows][:4]


@torch.no_grad()
def perplexity(ids):
    """exp of the mean loss of the tokens ``ids`` behind the first dev sentences."""
    before = [tokenizer(text)["input_ids"] for text in texts]
    examples = [{"input_ids": b + ids, "labels": [-100] * len(b) + ids} for b in before]
    batch = training.move(training.collate_tokens(examples, 0), run.device)
    return causal_losses(net, batch).mean().exp().item()


# %%
again = tokenizer(tokenizer.decode(trigger), add_special_tokens=False)["input_ids"]
ratio = perplexity(trigger) / perplexity(manual)
print(f"{tokenizer.decode(trigger)!r}: {ratio:,.0f} times the perplexity of what a person wrote")
print("written down and read again, the tokens are", "the same" if again == trigger else f"others: {again}")
run.record(perplexity_ratio=ratio)

# %% [markdown]
# ## 8 A search among instructions
#
# Tokens that nobody can read are hard to trust. APE (Zhou et al., 2023) searches among *sentences*. A model reads some
# pairs and proposes instructions $c$; each is scored by what it makes the model believe of other pairs,
#
# $$ \hat s(c) = \frac{1}{m} \sum_{i=1}^{m} \log p(y_i \mid c, x_i), $$
#
# and the best is kept. The score is that of lesson 12, with the instruction as the shared prefix. The pairs of this
# section were written for this course: countries with their capitals and nationalities, adjectives with their opposites
# and comparatives.

# %%
path_of_pairs = run.root / "data" / "instructions" / "induction.jsonl"
pairs = [json.loads(line) for line in path_of_pairs.read_text(encoding="utf-8").splitlines()]
order = torch.randperm(44, generator=torch.Generator().manual_seed(seed)).tolist()
capital = [p for p in pairs if p["task"] == "capital"]
demonstrations, dev_pairs, test_pairs = (
    [capital[i] for i in order[a:b]] for a, b in ((0, 4), (4, 16), (16, 16 + run.budget.n_items))
)

# %%
shown_pairs = "\n\n".join(f"Input: {p['input']}\nOutput: {p['answer']}" for p in demonstrations)
SOLVED = "Input: cat\nOutput: cats\n\nInput: box\nOutput: boxes\n\nInstruction: Write the plural of the word.\n\n###\n\n"
prompt = tokenizer(SOLVED + shown_pairs + "\n\nInstruction:", return_tensors="pt").to(run.device)
torch.manual_seed(seed)
out = net.generate(
    **prompt, do_sample=True, temperature=0.8, top_k=0, top_p=0.9, num_return_sequences=run.budget.proposals,
    max_new_tokens=16, pad_token_id=tokenizer.pad_token_id,
)  # fmt: skip
new = tokenizer.batch_decode(out[:, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
own = [text.strip().split("\n")[0].strip() for text in new]
print(own)

# %% [markdown]
# **Predict.** The sentences above come from a model of 135 million weights that looked at four capitals. Which of the
# candidates below will the likelihood prefer?


# %%
def log_likelihoods(instruction, chosen):
    """Log-probability of each right answer, in nats, (m,)."""
    contexts = [f"\n\nInput: {p['input']}\nOutput:" for p in chosen]
    answers = [[f" {p['answer']}"] for p in chosen]
    scores = scoring.option_log_probs(net, tokenizer, contexts, answers, prefix=instruction)
    return torch.stack([s.log_probs[0] for s in scores]).double()


candidates = ["Write the capital of the country.", "Your task: write the capital of the country.", "", *own]
on_pairs = {c: log_likelihoods(c, dev_pairs) for c in dict.fromkeys(candidates)}
table = [
    (each.mean().item(), log_likelihoods(c, test_pairs).mean().item(), c) for c, each in on_pairs.items()
]
for on_dev, on_test_pairs, text in sorted(table, reverse=True):
    print(f"dev {on_dev:6.2f}  test {on_test_pairs:6.2f}  {text!r}")
agree = torch.corrcoef(torch.stack(list(on_pairs.values())))
rho = ((agree.sum() - len(agree)) / (len(agree) ** 2 - len(agree))).item()
print(f"mean correlation of two candidates over the dev pairs: {rho:.2f}")

# %% [markdown]
# **Observe.** In the stored run the score does not reward the sentence that says what is meant: an instruction that has
# nothing to do with capitals comes first, the empty one second, and the right one only behind them. The likelihood of an
# answer may also measure how much the prompt looks like a list of single words. (The grid below uses a longer proposal
# prompt, four tasks and twelve candidates.)
#
# **What selection hides.** Suppose that all $N$ candidates are *equally* good, and that each $\hat s$ is the truth plus
# normal noise of standard deviation $\sigma / \sqrt m$. Let $X_1, \dots, X_N$ be standard normal and $M$ the largest. For
# any $\lambda > 0$ Jensen gives $e^{\lambda\, \mathbb E M} \le \mathbb E\, e^{\lambda M} \le \sum_j \mathbb E\, e^{\lambda
# X_j} = N e^{\lambda^2/2}$. Take logarithms, divide by $\lambda$, choose $\lambda = \sqrt{2 \ln N}$: then $\mathbb E M \le
# \sqrt{2 \ln N}$.
#
# All candidates are judged on the *same* pairs, so their noise is correlated, say by $\rho$. Write it as $\sqrt\rho\, Z +
# \sqrt{1-\rho}\, \varepsilon_j$. The common luck $Z$ of the pairs moves all of them; only the rest can be selected:
#
# $$ \text{optimism} \le \sigma \sqrt{2\,(1 - \rho) \ln N / m} . $$

# %% tags=["nbval-check-output"]
g = torch.Generator().manual_seed(2)
for N, r in itertools.product((2, 12, 100), (0.0, 0.8)):
    common, alone = torch.randn(20_000, 1, generator=g), torch.randn(20_000, N, generator=g)
    noise = r**0.5 * common + (1 - r) ** 0.5 * alone
    optimism, bound = (
        noise.max(1).values.mean().item(),
        (2 * (1 - r) * torch.tensor(float(N)).log()).sqrt().item(),
    )
    print(
        f"N = {N:3d}, correlation {r}: the best looks better by {optimism:.1f} standard errors (bound: {bound:.1f})"
    )

# %% [markdown]
# **Observe.** More candidates make the gap grow slowly, more pairs make it shrink as a root, and shared pairs make it
# smaller: the correlation that the last cell but one printed is high. Both searches of this lesson pay this price. What a
# search is worth can only be read on examples that took no part in it.
#
# ## 9 The experiments
#
# The claims were written before the first run.
#
# - **E1** (PET): with 10 labelled sentences, pattern and words beat a fresh head by more than 10 points; with 320 the lead is
#   below 2 points. **LB1** (LM-BFF; Gao et al., 2021): with 16 sentences of each label, the pattern's result moves less with
#   the draw. **LB2**: swapped words cost more than 5 points at 32 sentences.
# - **E2** (PET): the distilled classifier is at most 2 points below the best pattern. *Expected to fail* here: the pool
#   holds 64 texts.
# - **AE1** (APE): of six instructions written by hand, the likelihood selects one that beats their mean, and the one that
#   their author would have taken. **AE3**: six instructions that this model proposed beat six by hand, both selected by
#   likelihood. *Expected to fail* at this size.
#
# Task: film sentences, negative or positive, about as many of each; 120 test sentences, the same for all seeds.
#
# **Predict.** Give each a verdict before you look.

# %%
print("verdicts:", lesson.words("E1", "LB1", "LB2", "E2"))
SIZES = {"n10": 10, "n32": 32, "n320": 320}
results, labels = lesson.results("pattern_tuning"), lesson.experiment("pattern_tuning").labels
targets = lesson.predictions("pattern_tuning")[0]["targets"]
majority = max(targets.mean(), 1 - targets.mean())
figure, (axis, panel) = plotting.axes(1, 2, width=4.6, height=3.3, dpi=85)
for index, method in enumerate(labels):
    mine = [
        (SIZES[e["train"]], e["accuracy"]) for e in results if e["method"] == method and e["train"] in SIZES
    ]
    means = [torch.tensor([a for n, a in mine if n == size]).mean() for size in SIZES.values()]
    look = plotting.style(index)
    axis.plot(list(SIZES.values()), means, label=labels[method], **look)
    axis.scatter(*zip(*mine, strict=True), s=10, color=look["color"], marker=look["marker"], alpha=0.4)
axis.set(
    xscale="log", xlabel="labelled sentences", ylabel="test accuracy; small marks: seeds", ylim=(0.45, 1.06)
)
axis.legend(fontsize=7, loc="upper left", ncols=2)
names = lesson.experiment("pet").labels
taught_by = {names[m]: [e["accuracy"] for e in lesson.results("pet") if e["method"] == m] for m in names}
plotting.dots(panel, taught_by, "10 labels: patterns, ensemble, student")
axis.axhline(majority, color="grey", linestyle="--", linewidth=1)
panel.axvline(majority, color="grey", linestyle="--", linewidth=1)
show(figure, "13_pattern_tuning")
lesson.folded("pattern_tuning", "E1", "LB1", "LB2")

# %%
lesson.folded("pet", "E2")

# %% [markdown]
# *Figure: left `pattern_tuning`, right `pet`; small marks are seeds, bars are means; dashed: the larger class.*
#
# **Observe.** *E1 refuted, LB1 and LB2 supported, E2 refuted.* The intervals stand in the folded lines.
#
# - *The head does not catch up on this axis.* At 320 sentences the pattern is still ahead by far more than two points,
#   and the tuned head cannot be told from the *untuned* pattern, which saw no label. We had written E1 after a wrong
#   reading of PET's table. There the distilled classifier is, at a thousand examples, level with plain training on one
#   task of four, about two points ahead on two, and twelve ahead on the fourth. (E1's first part is undecided: its
#   interval just includes ten points.)
# - *Two changes at once.* This grid's head reads the *bare* sentence. So E1 and LB1 compare "pattern and words" with
#   "bare and head", as the papers do. How much of the lead is the text of the pattern, section 4 shows for a few draws.
#   In the same way, that swapped words cannot be told from the bare head (LB2's folded lines) does not mean that wrong
#   words cost nothing: the equal comparison is with a head on the *pattern*.
# - *The spread.* LB1: two draws of 32 sentences move the head's accuracy more than the pattern's. For the cross-entropy the
#   interval contains zero.
# - *Where PET loses.* Not in the ensemble, which cannot be told from the best pattern, although nobody had to know which one
#   that is. The loss comes with the distillation, on 64 texts.
#
# One reservation: the rates of this grid were chosen on 64 dev labels. Whoever has only ten labels has no 64 for that. Perez,
# Kiela and Cho (2021) call it *true* few-shot learning when no such labels are used.

# %% [markdown]
# And the instructions. The test items have four options: the right answer, the answer of a *sibling* task to the same
# input (for "France": Paris or French), and two answers that belong to other inputs. Without an instruction nothing
# speaks against the sibling. Ten seeds, each with test pairs of its own.
#
# Which opponents? The mean of *all* twelve candidates would be diluted by weak proposals: a search that beats it has beaten
# nobody. So the search among six by hand must beat the mean of these six, and the one that their author put first
# before any run. ("By hand": by this course's author, which is itself a large language model. The first edition's results
# were known when three of the six were added.)

# %%
print("verdicts:", lesson.words("AE1", "AE3"))
searched, names = lesson.results("instruction_search"), lesson.experiment("instruction_search").labels
kinds = list(dict.fromkeys(e["task"] for e in searched))
figure, panels = plotting.axes(1, len(kinds), width=2.3, height=2.6, dpi=85, sharey=True)
for panel, kind in zip(panels, kinds, strict=True):
    found = {
        names[m]: [e["accuracy"] for e in searched if (e["method"], e["task"]) == (m, kind)] for m in names
    }
    plotting.dots(panel, found, kind)
    panel.axvline(0.25, color="grey", linestyle="--", linewidth=1)
    panel.set(xlim=(0, 1.03))
show(figure, "13_search")
lesson.folded("instruction_search", "AE1", "AE3")

# %% [markdown]
# *Figure: accuracy on pairs that took no part in the choice; a dot for each seed, a bar at the mean; dashed: a guess among
# four.*
#
# **Observe.** *AE1 supported, AE3 refuted.* On other pairs, the selected instruction is ahead of the mean of the six, and of
# what their author would have taken. Read the tasks before you rejoice.
#
# - *The second part lives on one task.* Nearly all of the lead over the author's choice comes from the capitals. "Write the
#   capital of the country." is about as bad there as no instruction, and both are below a guess among four: the nationality
#   wins. On opposites the likelihood selects the author's choice in every seed. On the two others it selects another
#   wording, and the interval of the difference contains zero. That the plain wording for capitals is bad was known from the
#   first edition.
# - *Ten seeds, one choice.* Of the six by hand, each task has the same winner in every seed. Twelve pairs are enough to find
#   it. But then the interval speaks of other pairs, and says nothing of six other wordings.
# - *Who proposed it?* AE3 is refuted, as expected at this size. Six against six, the model's own are weaker in the mean and
#   after selection, and of all twelve the likelihood takes nearly always one by hand.
# - *Is a better instruction left in the twelve?* The row "best on test" chooses with the test labels, so a part of its lead
#   is luck. Even so it is a few points ahead at most.

# %% [markdown]
# **How many candidates does one need?** (AE2, a draft: the paper's curve goes much further than our twelve.) From the
# stored scores of all candidates, the expected test accuracy of the best of $k$ by dev score is an exact sum. Sort the
# $N$ candidates by dev score; the one of rank $r$ is the best of a random subset of $k$ with probability
# $\binom{N-r}{k-1} / \binom{N}{k}$.


# %%
def best_of(dev, test, k):
    """Expected test score of the candidate with the best dev score among k drawn without replacement."""
    from math import comb

    ranked = [t for _, t in sorted(zip(dev, test, strict=True), key=lambda pair: -pair[0])]
    N = len(ranked)
    return sum(comb(N - r, k - 1) * t for r, t in enumerate(ranked, 1)) / comb(N, k)


# %%
full = [line for line in searched if line["method"] == "mean"]
figure, axis = plotting.axes(dpi=85, width=5.2)
parts = {"all twelve": slice(0, 12), "six by hand": slice(0, 6), "the model's own": slice(6, 12)}
for index, (label, part) in enumerate(parts.items()):
    rows = [(e["dev_all"][part], e["accuracy_all"][part]) for e in full]
    sizes = range(1, len(rows[0][0]) + 1) if rows else []
    curve = [sum(best_of(*row, k) for row in rows) / len(rows) for k in sizes]
    axis.plot(list(sizes), curve, label=label, **plotting.style(index))
axis.set(xlabel="candidates, of which the best by dev score is taken", ylabel="expected test accuracy")
axis.legend(fontsize=8)
show(figure, "13_instructions")

# %% [markdown]
# *Figure.* The search among six by hand stays ahead of the search among twelve that hold them: weak candidates take
# places of better ones. The best of all twelve catches up only at the end.
#
# ## 10 What we have shown
#
# Printed from this run's record, so that the text cannot disagree with the numbers.

# %%
r = run.metrics
print(f"profile {run.profile}, seed {seed}, {run.device}")
print(f"lower and upper layers apart against the whole: {r['split_difference']:.0e}")
print(f"trigger behind a cache against one pass: {r['cache_difference']:.0e}")
print(
    f"swaps that helped: {r['helped']} proposed by the gradient, {r['helped_blind']} random, of equally many"
)
print("ten sentences:", {name: round(r[f"arm_{i}"], 3) for i, name in enumerate(arms)})
print(f"optimism gap of the trigger: {r['trigger_gap']:+.2f} nats; perplexity x {r['perplexity_ratio']:,.0f}")
print("verdicts:", lesson.words("E1", "LB1", "LB2", "E2", "AE1", "AE3"))

# %% [markdown]
# **What we have not shown.**
#
# - Whether a trigger beats hand-written prompts (AP1). A grid with enough sentences costs hours on one core; we ran one
#   search on a few sentences, to see how it works and how it fails.
# - Anything about tuning all weights. Our grids tune a third of the layers, with LoRA.
# - Demonstrations beside the pattern, which LM-BFF adds; the language-model loss beside the words, which PET adds (E3);
#   several generations of teachers and students.
# - Anything about large proposers. APE's proposers are a thousand times as large as ours.
# - That the film sentences are new to the model. It was tuned on instructions before we got it, on data that nobody here
#   has seen.
#
# **What should I set?**
#
# | you want | set | check |
# |---|---|---|
# | labels as words | one token a word, with its space: `" great"` | `len(tokenizer(word)["input_ids"]) == 1` |
# | a fresh head all the same | let it read the *pattern* too | head on the bare sentence as a row |
# | the best of several patterns | all of them: average the logits | the ensemble against each |
# | soft labels in torch | `F.cross_entropy(z, q)` with probabilities | `q.sum(-1)` is one |
# | few labels, an encoder | SetFit (lesson 20) | frozen features with a logistic regression |
# | learning rates with ten labels | from another task | no dev labels that a user would not have |
# | a search among tokens | GCG (Zou et al., 2023): gradients propose, losses decide | as many random swaps; fresh sentences |
# | a search among instructions | OPRO (Yang et al., 2024), GEPA (Agrawal et al., 2025) | fresh pairs; your own instruction |
# | to report the best of $N$ | the number of tries, $\rho$, the score on fresh examples | the bound of section 8 |
#
# **Recall.** Answer without scrolling.
#
# 1. Along which direction does a pattern with two words push the last state? Along which does a fresh head, at the first
#    update?
# 2. Why may the lower layers be computed once per text, but once per text *and pattern*?
# 3. Write the gradient of the soft cross-entropy. When is it zero?
# 4. Why is a good first-order score no reason to accept a swap?
# 5. You tried 100 prompts on 50 examples and report the best. What do you print beside it?
#
# <details><summary>Answers</summary>
#
# (1) Along $w_1 - w_0$, the difference of two words' rows; along the difference of two random rows. (2) They are frozen, so
# their output depends on the tokens alone; another pattern makes other tokens. (3) $p - q$; where the model's probabilities
# equal the soft labels. (4) It is true near the token; a swap is the whole step, and few proposals lower the loss. (5) The
# number of tries, and the score on examples that took no part in the choice.
#
# </details>
#
# **Exercises.** `notebooks/exercises/13_prompt_search.py`; `make classroom` builds the student version.
#
# **References.**
#
# - Agrawal, L. A., et al. (2025). GEPA: reflective prompt evolution can outperform reinforcement learning. arXiv:2507.19457.
# - Ebrahimi, J., Rao, A., Lowd, D., and Dou, D. (2018). HotFlip: white-box adversarial examples for text classification.
#   *ACL 2018*.
# - Gao, T., Fisch, A., and Chen, D. (2021). Making pre-trained language models better few-shot learners. *ACL 2021*.
# - Hutto, C. J., and Gilbert, E. (2014). VADER: a parsimonious rule-based model for sentiment analysis of social media text.
#   *ICWSM 2014*.
# - Perez, E., Kiela, D., and Cho, K. (2021). True few-shot learning with language models. *NeurIPS 2021*. arXiv:2105.11447.
# - Schick, T., and Schütze, H. (2021). Exploiting cloze-questions for few-shot text classification and natural language
#   inference. *EACL 2021*.
# - Shin, T., Razeghi, Y., Logan IV, R. L., Wallace, E., and Singh, S. (2020). AutoPrompt: eliciting knowledge from
#   language models with automatically generated prompts. *EMNLP 2020*.
# - Yang, C., et al. (2024). Large language models as optimizers (OPRO). *ICLR 2024*. arXiv:2309.03409.
# - Zhou, Y., et al. (2023). Large language models are human-level prompt engineers. *ICLR 2023*.
# - Zou, A., et al. (2023). Universal and transferable adversarial attacks on aligned language models. arXiv:2307.15043.
