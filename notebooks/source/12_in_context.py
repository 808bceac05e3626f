# ---
# jupyter:
#   instructlab:
#     id: "12"
#     title: Zero-shot, in-context learning, calibration
#     outcome: use a frozen language model as a classifier, show its biases, and correct the one that can be corrected
#     assets: [smollm2, vader, bbc, bigbench]
#     minutes: {smoke: 1, laptop: 3, gpu: 1}
#     class_minutes: 180
#     budget:
#       n_questions: {smoke: 1, laptop: 5, gpu: 5}
#       n_pack: {smoke: 3, laptop: 10, gpu: 10}
#       n_live: {smoke: 4, laptop: 40, gpu: 40}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 12 Zero-shot, in-context learning, calibration
#
# **The promise.** So far a task was put into weights. Here it is put into the *text* in front of the question, and no
# weight moves. You turn a language model into a classifier by asking which of several words it finds most probable. You
# derive three scores and see what each of them prefers besides the truth. You make the scoring cheap without changing a
# digit that counts. Then you show demonstrations to the model, watch it copy the most frequent and the last of their
# labels, derive the correction that is known as contextual calibration, and find out what it can and what it cannot repair.
# Three grids, with claims written before the first run, say what is left of "learning from a few examples" at this size.
#
# | | |
# |---|---|
# | before this | lesson 03 (evaluation), lesson 06 (causal models, the KV cache) |
# | time | smoke: about a minute · laptop: about three minutes on one core · gpu: about a minute |
# | memory | under 3 GB |
# | model | SmolLM2-135M-Instruct (de-quantised from a 4-bit file, already tuned on instructions), pinned, offline |
# | data | rated movie sentences (Hutto and Gilbert, 2014), BIG-bench questions; in the grids also BBC articles |
# | box of lesson 00's chain | *an instruction*: here it is made of examples |
#
# **You will be able to**
#
# - *write* a classifier from next-token probabilities, with label words of several tokens;
# - *derive* sum, mean and pointwise mutual information as scores, and say what each prefers;
# - *share* a prefix through the KV cache and pack contexts into rows, with equal numbers;
# - *show* majority, recency and common-token bias on one page;
# - *derive* contextual calibration, and *prove* what it leaves unchanged.
#
# **Letters in this lesson**
#
# | symbol | meaning |
# |---|---|
# | $c$, $o$, $K$ | a context, an answer option, the number of options |
# | $c_0$, $x_0$ | a context that asks nothing, a text that says nothing |
# | $s_{\text{sum}}$, $s_{\text{mean}}$ | scores of an option: log-probability, and that per token |
# | $q_k(x)$, $b_k$, $\hat p_k(x)$ | what a model should say of label $k$ for text $x$; its bias; what it says |
# | $W$ | the diagonal matrix of the calibration |

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
seed: int = 0  # demonstrations and samples of the live parts

# %%
import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from sklearn.metrics import confusion_matrix, roc_auc_score
from torch import Tensor

from instructlab_utils import models, plotting, scoring, start, tasks
from instructlab_utils.errors import ParameterError
from instructlab_utils.losses import log_softmax  # lesson 01
from instructlab_utils.markers import text_ids

run = start("12", profile=profile, seed=seed)
net, tokenizer = models.load_decoder(device=run.device).float(), models.load_tokenizer("decoder")

# %% [markdown]
# ## 1 A label is a word
#
# A causal model answers one question only: which token comes next? So we write a text whose next word *is* the answer.
#
# **Predict.** Which tokens will the model find most probable behind `Review: a lovely, funny film⏎Sentiment:`? How much
# probability will the word *positive* get?


# %%
@torch.no_grad()
def next_tokens(text, n=6):
    """The n most probable next tokens, with their probabilities."""
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"].to(run.device)
    p, which = net(ids, logits_to_keep=1).logits[0, -1].softmax(-1).topk(n)
    return [(tokenizer.decode(i), round(q.item(), 3)) for i, q in zip(which, p, strict=True)]


for film in ("a lovely, funny film", "the plot makes no sense"):
    print(film, next_tokens(f"Review: {film}\nSentiment:"), sep="\n  ")

# %% [markdown]
# **Observe.** The right word is among the first, but it has only a few hundredths of the probability. The rest goes to
# quotes, to capital letters, to whole sentences: *I loved it* says the same as *positive*. All these forms compete for one
# unit of probability. Holtzman et al. (2021) call this *surface form competition*.
#
# The repair: we do not ask what comes next. We ask which of *our* words is the most probable. A map from labels to words is
# called a *verbaliser*; it belongs to the task's definition, like the format of the text around it.
#
# ## 2 The probability of a word with several tokens
#
# A label word may have several tokens $o = (o_1, \dots, o_n)$. Behind a context $c$ the chain rule gives
#
# $$ \log p(o \mid c) \;=\; \sum_{t=1}^{n} \log p(o_t \mid c, o_1, \dots, o_{t-1}) . $$
#
# All terms come from *one* forward pass over $c$ and $o$ together: position $t-1$ predicts token $t$ (lesson 06). What is
# left is where $c$ ends and $o$ begins.
#
# **The version that everybody writes first** ends the context with a space, because that looks tidy, and begins the option
# without one.

# %%
for context, option in (("Sentiment: ", "positive"), ("Sentiment:", " positive")):
    apart = tokenizer.tokenize(context) + tokenizer.tokenize(option)
    print(repr(context), "+", repr(option), "→", apart, " together:", tokenizer.tokenize(context + option))
print(next_tokens("Review: a lovely, funny film\nSentiment: "))

# %% [markdown]
# **Observe.** In this vocabulary the space belongs to the *front of a word* (it is printed as `Ġ`). A space alone is a rare
# token, and behind it the model expects what it has seen behind it: digits. The first version asks for a text that nobody
# writes.
#
# **Repair.** White space at the end of the context moves to the option. Then both are tokenised *together*, and the
# option begins where the tokens first differ from those of the context alone. Mostly that is behind all of these, and then
# it is the rule of lm-eval, the usual tool for such scores. But a token may span the border: `if x <` and `= 4` share
# `<=`. A cut that counts tokens would lose the `=`; ours gives the whole token to the option. (`text_ids` tokenises, and
# refuses a special token that somebody typed.)


# %% tags=["defines:scoring.encode_pair"]
def encode_pair(context, option, tokenizer):
    before = text_ids(context.rstrip(), tokenizer, chat=True)
    both = text_ids(context + option, tokenizer, chat=True)
    differs = (i for i, (a, b) in enumerate(zip(before, both, strict=False)) if a != b)
    border = next(differs, min(len(before), len(both)))
    empty = "context" if not before else "option" if not option or border == len(both) else ""
    if empty:
        raise ParameterError(f"the {empty} of {context[-40:]!r} + {option!r} has no token: write some text")
    if not border:
        raise ParameterError(
            f"one token spans {context!r} and {option!r}, and none predicts it: write a space between"
        )
    return both[:border], both[border:]


# %% [markdown]
# The naive scorer: one forward pass for every pair of context and option.


# %%
@torch.no_grad()
def log_prob(context, option):
    """log p(option | context) in nats, and the number of tokens that went through the model."""
    before, after = encode_pair(context, option, tokenizer)
    logits = net(torch.tensor([before + after], device=run.device)).logits[0]
    log_p = torch.log_softmax(logits[len(before) - 1 : -1], -1)  # these positions predict the option
    return log_p[range(len(after)), after].sum().item(), len(before) + len(after)


for context in ("Review: a lovely, funny film\nSentiment:", "Review: a lovely, funny film\nSentiment: "):
    found = {word: round(log_prob(context, word)[0], 3) for word in (" negative", " positive")}
    print(repr(context[-11:]), found)

# %% [markdown]
# The second line differs: the context's space joined the option's own, and two spaces are something else than one. A rule
# repairs what it knows; the format remains yours.
#
# **With the library.** transformers computes a *mean* loss over the labels that are not -100. Times the number of option
# tokens, with the other sign, it must be our number.

# %%
context, option = "The chemical symbol of gold is", " the two letters Au"
before, after = encode_pair(context, option, tokenizer)
ids = torch.tensor([before + after], device=run.device)
labels = torch.tensor([[-100] * len(before) + after], device=run.device)
with torch.no_grad():
    theirs = -net(input_ids=ids, labels=labels).loss.item() * len(after)
ours = log_prob(context, option)[0]
run.record(library_difference=abs(ours - theirs))
print(f"{len(after)} tokens: by hand {ours:.4f} nats, library {theirs:.4f}, apart {abs(ours - theirs):.0e}")
assert abs(ours - theirs) < 1e-3

# %% [markdown]
# ## 3 Three scores
#
# **Sum.** $s_{\text{sum}}(o) = \log p(o \mid c)$. It is the honest probability of the string. Each further token multiplies
# by a number below one. So a long option starts with a handicap that has nothing to do with the question.
#
# **Mean.** $s_{\text{mean}}(o) = \frac{1}{n} \log p(o \mid c)$. Its exponential is the geometric mean of the factors. Now a
# long option wins when its tail is easy to guess: *computer* makes *science* cheap.
#
# **PMI.** Subtract what the option is worth without the question. With a context $c_0$ that asks nothing ("Answer:"),
#
# $$ s_{\text{pmi}}(o) \;=\; \log p(o \mid c) - \log p(o \mid c_0) . $$
#
# Why is this a good idea? Suppose that $p(o \mid c_0)$ is the option's prior probability $p(o)$. By Bayes' rule
# $p(o \mid c)\, p(c) = p(c \mid o)\, p(o)$, so
#
# $$ \frac{p(o \mid c)}{p(o)} \;=\; \frac{p(c \mid o)}{p(c)} . $$
#
# The denominator on the right is the same for all options. So the option with the highest PMI is the one behind which
# the *question* is most probable. The prior of the option has left the game. If $p(o \mid c_0)$ really is that prior,
# the handicap of length goes with it; section 9 measures what happens when it is only an estimate.
#
# **Predict.** And when the prior was right? Then PMI throws away something true. Which of the three would you use for "What
# colour is the sky?"

# %% tags=["nbval-check-output"]
g = torch.Generator().manual_seed(0)
joint = torch.rand(4, 5, generator=g).double()  # p(c, o): four questions, five options
joint /= joint.sum()
p_c, p_o = joint.sum(1), joint.sum(0)
pmi = (joint / p_c[:, None]).log() - p_o.log()  # log p(o | c) - log p(o)
backwards = (joint / p_o).log() - p_c.log()[:, None]  # log p(c | o) - log p(c)
assert pmi.shape == backwards.shape and (pmi - backwards).abs().max() < 1e-12
print("PMI is symmetric. Options chosen by PMI:", pmi.argmax(1).tolist())
print("options behind which the question is most probable:", (joint / p_o).argmax(1).tolist())
print("most probable options:", joint.argmax(1).tolist())


# %% tags=["defines:scoring.OptionScores"]
@dataclass(frozen=True)
class OptionScores:
    """The options of one context: summed log-probabilities in nats, and numbers of tokens, both (O,)."""

    log_probs: Tensor
    tokens: Tensor

    def __post_init__(self):
        if self.log_probs.shape != self.tokens.shape or self.log_probs.isnan().any():
            raise ParameterError(
                f"the scores {self.log_probs.tolist()} are NaN or not one an option: look at the logits"
            )


def naive_scores(context, options):
    """OptionScores, one forward pass an option."""
    log_probs = [log_prob(context, option)[0] for option in options]
    tokens = [len(encode_pair(context, option, tokenizer)[1]) for option in options]
    return OptionScores(torch.tensor(log_probs), torch.tensor(tokens))


# %% tags=["defines:scoring.choose"]
RULES = ("sum", "mean", "pmi")


def choose(scores, rule="sum", base=None):
    if rule not in RULES:
        raise ParameterError(f"unknown rule {rule!r}: choose one of {', '.join(RULES)}")
    if rule == "pmi":
        if base is None or base.tokens.tolist() != scores.tokens.tolist():
            raise ParameterError(
                "pmi needs base=…: the scores of the same options after a content-free context"
            )
        values = scores.log_probs - base.log_probs
    else:
        values = scores.log_probs / (scores.tokens if rule == "mean" else 1)
    if values.isnan().any():
        raise ParameterError(f"the values {values.tolist()} are no numbers: an option has no probability")
    return int(values.argmax())


# %% [markdown]
# Questions from BIG-bench's general knowledge (Srivastava et al., 2023), each with its own options, picked because the scores
# disagree about them. No demonstrations: *zero-shot*.


# %%
rows = [row for split in tasks.load("general-knowledge").splits.values() for row in split]
picked = ("days are in a leap year", "color is the sky", "largest animal", "study of living", "use to hear")
for row in [row for row in rows if any(part in row["input"] for part in picked)][: run.budget.n_questions]:
    options = [" " + option for option in row["options"]]
    behind = naive_scores(f"Question: {row['input']}\nAnswer:", options)
    alone = naive_scores("Answer:", options)
    answers = {rule: options[choose(behind, rule, alone if rule == "pmi" else None)] for rule in RULES}
    print(row["input"], "right:", row["options"][row["answer"]], answers, sep="\n  ")

# %% [markdown]
# **Observe.** The sum likes the famous and the short; the mean likes compounds that complete themselves; PMI likes what
# nobody would say without the question, right or not. There is no score without a preference of its own. Which one is right
# most often is an empirical question, and a claim (SF1) that section 9 tests on ten tasks.
#
# ## 4 The same work once
#
# The naive scorer reads the context again for each option, and the demonstrations again for each context. Count tokens: $N$
# contexts of $C$ tokens behind a prefix of $P$, each with $K$ options of $n$ tokens, cost
#
# $$ \underbrace{N K (P + C + n)}_{\text{one by one}} \qquad\text{instead of}\qquad
# \underbrace{P + N \big(C + K (n - 1)\big)}_{\text{nothing read twice}} . $$
#
# (The last token of an option is predicted, never read.) **Predict.** How many times cheaper, for $N = 40$, $P = 150$,
# $C = 30$, $K = 2$, $n = 1$?

# %%
N, P, C, K, n = 40, 150, 30, 2, 1
apart, once = N * K * (P + C + n), P + N * (C + K * (n - 1))
print(f"one by one: {apart}, nothing twice: {once}, {apart / once:.1f} times cheaper")

# %% [markdown]
# *Why may the prefix be read once?* In a causal model, position $i$ sees positions $\le i$. So its keys and values do not
# depend on anything that comes later. Check it on the cache itself: two different continuations, one prefix.

# %%
DEMOS = [
    ("warm, clever and moving", "positive"), ("two hours of boredom", "negative"),
    ("I would watch it again", "positive"), ("a dull, noisy mess", "negative"),
]  # fmt: skip


def show(pairs, form="Review: {}\nSentiment:"):
    """Solved examples as one text."""
    return "\n\n".join(f"{form.format(text)} {label}" for text, label in pairs)


def ids_of(text):
    return tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"].to(run.device)


# %%
prefix, P = show(DEMOS), ids_of(show(DEMOS)).shape[1]
with torch.no_grad():
    one, other = (net(ids_of(prefix + more)).past_key_values for more in ("\n\nReview: good", "\n\nA cow."))
apart = max(
    (a.keys[:, :, :P] - b.keys[:, :, :P]).abs().max().item()
    for a, b in zip(one.layers, other.layers, strict=True)
)
print(f"largest difference of the prefix's keys, all layers: {apart:.0e}")
assert apart < 1e-2

# %% [markdown]
# *Why may contexts stand in one row?* Attention has no notion of a row. A token sees what the mask lets it see, at the
# distance that the position ids say. So: give every context the positions that it would have alone behind the prefix, and
# forbid it to look at its neighbours. For a prefix of two tokens and contexts of three and two:


# %% tags=["nbval-check-output"]
def row_of(parts, cached):
    """Position ids (T,) and what each token sees (T, cached + T), for contexts in one row behind a prefix."""
    owner = torch.tensor([i for i, part in enumerate(parts) for _ in part])
    place = torch.cat([torch.arange(len(part)) for part in parts])
    seen = (owner[:, None] == owner) & (place <= place[:, None])
    return cached + place, torch.cat([torch.ones(len(owner), cached, dtype=torch.bool), seen], 1)


places, seen = row_of([[7, 7, 7], [8, 8]], cached=2)
print("positions:", places.tolist())
for row in seen.int().tolist():
    print("  pre", *row[:2], "| first", *row[2:5], "| second", *row[5:])


# %%
names = ["p1", "p2", "a1", "a2", "a3", "b1", "b2"]
figure, ax = plotting.axes(width=4.2, height=2.7, dpi=80)
ax.imshow(seen.int(), cmap="Greys", vmin=0, vmax=1.6)
for (i, j), sees in np.ndenumerate(seen.numpy()):
    ax.text(j, i, "sees" if sees else "", ha="center", va="center", color="white", fontsize=8)
ax.set_xticks(range(7), names)
ax.set_yticks(range(5), [f"{n}, position {p}" for n, p in zip(names[2:], places.tolist(), strict=True)])
ax.set(title="who reads whom in one row", xlabel="prefix p, context a, context b")
ax.grid(False)
_ = run.figure(figure, "12_mask")

# %% [markdown]
# *What to see.* Both contexts read the prefix, each reads its own past, and neither reads the other: the white block below
# `a`. Both begin at the same position, as if the other were not there.
#
# By hand, for label words of one token:


# %%
@torch.no_grad()
def packed(prefix, contexts, words):
    """log p(word | prefix + context), (N, K), for words of one token; the prefix is read once."""
    shared = ids_of(prefix)
    cache = net(shared, use_cache=True).past_key_values
    parts = [ids_of(prefix + context)[0, shared.shape[1] :] for context in contexts]
    places, seen = row_of(parts, shared.shape[1])
    mask = torch.zeros(seen.shape, dtype=net.dtype).masked_fill(~seen, torch.finfo(net.dtype).min)[None, None]
    row = {"attention_mask": mask.to(run.device), "position_ids": places[None].to(run.device)}
    logits = net(torch.cat(parts)[None], past_key_values=cache, **row).logits[0]
    ends = torch.tensor([len(part) for part in parts]).cumsum(0) - 1
    targets = [encode_pair(contexts[0], word, tokenizer)[1][0] for word in words]
    return torch.log_softmax(logits[ends], -1)[:, targets].cpu().double()


# %% [markdown]
# The package's `option_log_probs` does this too, with options of any length as branches of their context, and computes
# logits only where an option is predicted. Three scorers, the same question:

# %%
movies = tasks.load("movie-sentiment")
sample = [r for r in tasks.subsample(movies.splits["dev"], 60, seed) if len(ids_of(r["text"])[0]) <= 48]
sample = sample[: run.budget.n_live]
texts, y = [r["text"] for r in sample], torch.tensor([r["label"] for r in sample])
words = [" negative", " positive"]
few = [f"\n\nReview: {text}\nSentiment:" for text in texts[: run.budget.n_pack]]

clock = [time.perf_counter()]
pairs = [[log_prob(prefix + context, word) for word in words] for context in few]
clock.append(time.perf_counter())
row = packed(prefix, few, words)
clock.append(time.perf_counter())
scored = scoring.option_log_probs(net, tokenizer, few, [words] * len(few), prefix=prefix)
clock.append(time.perf_counter())

# %%
one_by_one = torch.tensor([[score for score, _ in pair] for pair in pairs]).double()
package = torch.stack([each.log_probs for each in scored])
by_hand, apart = (row - one_by_one).abs().max().item(), (package - one_by_one).abs().max().item()
read = sum(size for pair in pairs for _, size in pair)
once = P + sum(len(ids_of(prefix + context)[0]) - P for context in few)
seconds = torch.tensor(clock, dtype=torch.float64).diff().tolist()
print(f"one by one {seconds[0]:.1f} s, one row by hand {seconds[1]:.1f} s, the package {seconds[2]:.1f} s")
print(f"tokens read: {read} and {once}; largest differences: by hand {by_hand:.0e}, package {apart:.0e}")
run.record(packed_difference=apart, by_hand_difference=by_hand, one_by_one=read, in_one_row=once)
assert max(by_hand, apart) < 1e-2

# %% [markdown]
# **Observe.** The same numbers up to rounding, for a fraction of the tokens. From here on we score with the package.


# %%
def scores_of(contexts, words, prefix=""):
    """Summed log-probabilities (N, K) of the same words behind every context."""
    found = scoring.option_log_probs(net, tokenizer, contexts, [words] * len(contexts), prefix=prefix)
    return torch.stack([each.log_probs for each in found])


CONTENT_FREE = ["N/A", "", "[MASK]"]

# %% [markdown]
# ## 5 Demonstrations, and three biases
#
# *In-context learning*: solved examples stand in front of the question, in the question's own format. The hope is that the
# model continues the *mapping*. A cheaper way to continue such a text is to repeat its words. To see which of the two
# happens, ask about nothing: `Review: N/A⏎Sentiment:`. A classifier without bias would say one half.
#
# **Predict.** P and N are a positive and a negative demonstration. Order by the probability of *positive* behind nothing:
# `PPPP`, `NNNN`, `NNPP`, `PPNN`.

# %%
GOOD = "warm, clever and moving/I would watch it again/the actors are wonderful/a lovely, funny film".split(
    "/"
)
BAD = "two hours of boredom/a dull, noisy mess/I walked out/the plot makes no sense".split("/")
orders = ["PPPP", "NPPP", "PPPN", "NNPP", "PNPN", "NPNP", "PPNN", "NNNP", "PNNN", "NNNN"]
nothing = [f"\n\nReview: {text}\nSentiment:" for text in CONTENT_FREE]
p_positive = {}
for order in orders:
    good, bad = iter(GOOD), iter(BAD)
    demos = [(next(good), "positive") if c == "P" else (next(bad), "negative") for c in order]
    p_positive[order] = scores_of(nothing, words, prefix=show(demos)).softmax(1)[:, 1]
for order in sorted(orders, key=lambda o: p_positive[o].mean()):
    print(order, f"{p_positive[order].mean():.2f}", [round(p, 2) for p in p_positive[order].tolist()])

# %%
figure, axis = plotting.axes(width=6.0, dpi=85)
for i, text in enumerate(CONTENT_FREE):
    axis.plot(
        orders, [p_positive[o][i] for o in orders], label=repr(text), **plotting.style(i) | {"linestyle": ""}
    )
axis.plot(orders, [p_positive[o].mean() for o in orders], color="black", label="mean")
axis.axhline(0.5, color="grey", linewidth=1)
axis.set(xlabel="labels of the demonstrations, in order", ylabel="p(positive | nothing)", ylim=(0, 1))
axis.legend(fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.15))
_ = run.figure(figure, "12_nothing")

# %%
mean = {order: p.mean().item() for order, p in p_positive.items()}
for bias, high, low in (
    ("majority", "PPPP", "NNNN"),
    ("last block", "NNPP", "PPNN"),
    ("last against majority", "NNNP", "PPPN"),
    ("alternation", "PNPN", "NPNP"),
):
    print(f"{bias:22s} {high} minus {low}: {mean[high] - mean[low]:+.2f}")
run.record(**{f"nothing_{order.lower()}": mean[order] for order in ("PPPP", "NNNN", "NNNP", "PPPN")})

# %% [markdown]
# **Observe.** No text, and yet an opinion. Averaged over the three ways to say nothing, it follows the label that is
# *frequent* among the demonstrations (majority bias) and the one that stands *last* (recency bias). Where the two
# pull against each other, the last one wins here: three P in front do not make up for one N at the end. And look at
# the last line. `PNPN` ends in N, and the model expects P: it continues the *alternation*. It reads the column of
# labels as a text, which is what it was trained for. None of this is a law. For `N/A` alone, `PPPP` gives *less* to
# positive than `NNNN`. The ways to say nothing disagree even about the sign of a bias: "nothing" is a wording, too.
#
# The third bias needs no demonstration: some label words are common in all texts.

# %%
for form in ("Review: {}\nSentiment:", "{} It was"):
    for verbaliser in ([" negative", " positive"], [" terrible", " great"], [" Negative", " Positive"]):
        p = scores_of([form.format(text) for text in CONTENT_FREE], verbaliser).softmax(1)[:, 1]
        print(f"{form!r:28} {verbaliser}: p(second | nothing) = {p.mean():.2f}")

# %% [markdown]
# **Observe.** *great* wins over *terrible* in both formats; *positive* loses in one and wins in the other. So the preference
# belongs to word *and* format. This cell cannot say how much of it is how common a word is.

# %% [markdown]
# ### 5.1 Who continues a pattern? Induction heads
#
# What inside the model can copy a mapping that it has just read? Take meaning away altogether: random tokens, written
# twice. Nobody can guess the first half. The second half can be copied.
#
# **Predict.** What is the loss of a token in the first half, and in the second? (A blind guess among all tokens costs the
# logarithm of their number.)


# %%
def written_twice(rows, n, seed):
    once = torch.randint(1000, tokenizer.vocab_size, (rows, n), generator=torch.Generator().manual_seed(seed))
    return torch.cat([once, once], 1).to(run.device)


@torch.no_grad()
def loss_of_halves(ids):
    """Mean loss of a token in the first and in the second half; the first token of each half is left out."""
    n = ids.shape[1] // 2
    nll = -log_softmax(net(ids).logits[:, :-1].float()).gather(-1, ids[:, 1:, None])[..., 0]
    return nll[:, : n - 1].mean().item(), nll[:, n:].mean().item()


chosen_on, shown_on = written_twice(4, 24, seed), written_twice(4, 24, seed + 1)
first, second = loss_of_halves(shown_on)
print(
    f"first half {first:.2f} nats a token, second half {second:.2f}; blind {np.log(tokenizer.vocab_size):.2f}"
)

# %% [markdown]
# **Observe.** In the first half the model does worse than a blind guess: it expects a text. In the second half it does
# not copy perfectly, but most of the surprise is gone.
#
# An *induction head* (Olsson et al., 2022) looks back to the last place where the present token stood, and reads the token
# *after* it. At place $t$ of a text of $2n$ tokens that is place $t - n + 1$. So we measure how much of its attention each
# head sends exactly there.

# %%
net.set_attn_implementation("eager")  # the one that returns its weights
with torch.no_grad():
    attentions = net(chosen_on, output_attentions=True).attentions
net.set_attn_implementation("sdpa")
n = chosen_on.shape[1] // 2
t = torch.arange(n, 2 * n)
induction = torch.stack([a[:, :, t, t - n + 1].mean((0, 2)) for a in attentions]).cpu()  # (layers, heads)
figure, panel = plotting.axes(width=7, height=2.6, dpi=85)
image = panel.imshow(induction.T, cmap="Greys", vmin=0, vmax=1, aspect="auto")
panel.set(xlabel="layer", ylabel="head", title="attention sent to the token after the last occurrence")
panel.grid(False)
figure.colorbar(image)
_ = run.figure(figure, "12_induction")
print(
    "largest:",
    [round(v, 2) for v in induction.flatten().topk(5).values.tolist()],
    f"a mean place gets {1 / (1.5 * n):.2f}",
)

# %% [markdown]
# **Observe.** Most heads send next to nothing there. A few send most of what they have. They stand behind the first
# layers: an earlier head must have told each place which token stood before it.
#
# Looking is not causing. So silence the eight strongest heads (of all heads, few), on *new* random tokens. The control
# silences eight others, drawn by lot.
#
# **Predict.** How much of the gain of the second half is lost, and how much with the control?


# %%
from contextlib import ExitStack


def silence(heads):
    """Hooks that set the outputs of the heads (layer, head) to zero; close() removes them."""
    stack, width = ExitStack(), net.config.hidden_size // net.config.num_attention_heads

    def hook(chosen, module, args):
        keep = torch.ones(args[0].shape[-1], device=args[0].device)
        for h in chosen:
            keep[h * width : (h + 1) * width] = 0
        return (args[0] * keep,)

    for layer in {one for one, _ in heads}:
        chosen = [h for one, h in heads if one == layer]
        project = net.model.layers[layer].self_attn.o_proj
        stack.callback(project.register_forward_pre_hook(partial(hook, chosen)).remove)
    return stack


# %%
pairs = [divmod(i, induction.shape[1]) for i in induction.flatten().argsort(descending=True).tolist()]
rng, control = np.random.default_rng(seed), []
for _ in range(5):
    with silence([pairs[i] for i in rng.choice(range(8, len(pairs)), 8, replace=False)]):
        control.append(loss_of_halves(shown_on)[1])
with silence(pairs[:8]):
    without = loss_of_halves(shown_on)
print(f"second half: all heads {second:.2f}, without the eight {without[1]:.2f}, "
      f"without eight others {min(control):.2f} to {max(control):.2f}")  # fmt: skip
print(f"first half:  all heads {first:.2f}, without the eight {without[0]:.2f}")
run.record(copied=second, copied_without=without[1], copied_control=max(control))

# %% [markdown]
# And the demonstrations? The bias of `PPPP` against `NNNN`, and the alternation, again without the eight heads. (Looked at
# afterwards, on one seed: exploratory.)


# %%
def leaning(order):
    good, bad = iter(GOOD), iter(BAD)
    demos = [(next(good), "positive") if c == "P" else (next(bad), "negative") for c in order]
    return scores_of(nothing, words, prefix=show(demos)).softmax(1)[:, 1].mean().item()


for high, low in (("PPPP", "NNNN"), ("PNPN", "NPNP")):
    with silence(pairs[:8]):
        silent = leaning(high) - leaning(low)
    print(f"{high} minus {low}: all heads {mean[high] - mean[low]:+.2f}, without the eight {silent:+.2f}")

# %% [markdown]
# **Observe.** The first two lines are the experiment: hold what the eight heads cost against the range of the control.
# The last two are a look at something else. Copying tokens is one part of learning from demonstrations, and not all of it.

# %% [markdown]
# ## 6 Contextual calibration
#
# Suppose that what the model reports is the truth times a bias that depends on the prompt and the label, but not on the
# text. With $q_k(x)$ for what it should say, and $b_k > 0$ for the bias of label $k$:
#
# $$ \hat p_k(x) \;=\; \frac{b_k\, q_k(x)}{\sum_j b_j\, q_j(x)} . $$
#
# For a text $x_0$ without content it should say $q_k(x_0) = 1/K$ for every label. Put that in: the $1/K$ cancel, and
#
# $$ \hat p_k(x_0) \;=\; \frac{b_k}{\sum_j b_j} . $$
#
# So the content-free text *measures* the bias, up to a factor. Divide by it, and normalise:
#
# $$ q_k(x) \;=\; \frac{\hat p_k(x) / \hat p_k(x_0)}{\sum_j \hat p_j(x) / \hat p_j(x_0)} . $$
#
# Zhao et al. (2021) write the same as a matrix: $q \propto W \hat p$ with $W = \operatorname{diag}(\hat p(x_0))^{-1}$. They
# average $\hat p(x_0)$ over several content-free texts. In logarithms it is one subtraction.


# %% tags=["defines:scoring.contextual_calibration"]
def contextual_calibration(log_probs, content_free):
    if log_probs.shape[-1] != content_free.shape[-1]:
        raise ParameterError(
            f"{log_probs.shape[-1]} options, but {content_free.shape[-1]} in content_free: score the same options"
        )
    base = log_softmax(content_free.double()).reshape(-1, content_free.shape[-1]).exp().mean(0).log()
    calibrated = log_softmax(log_softmax(log_probs.double()) - base)
    if calibrated.isnan().any():
        raise ParameterError(
            "a score is NaN, or content_free gives an option the probability 0: look at both"
        )
    return calibrated


# %% tags=["nbval-check-output"]
g = torch.Generator().manual_seed(1)
q = torch.rand(6, 3, generator=g).double()
q /= q.sum(1, keepdim=True)  # what the model should say about six texts
b = torch.tensor([0.1, 1.0, 7.0]).double()  # the bias of the prompt
reported, about_nothing = (q * b).log(), (torch.ones(3).double() / 3 * b).log()
recovered = contextual_calibration(reported, about_nothing).exp()
assert recovered.shape == q.shape and (recovered - q).abs().max() < 1e-12
print("reported:", reported.argmax(1).tolist(), " calibrated:", recovered.argmax(1).tolist())
print("should be:", q.argmax(1).tolist())

# %% [markdown]
# **Observe.** Under its assumption the method is exact: every prediction was the favoured label, and all of $q$ comes back.
#
# Does the formula look familiar? With one content-free text, $\arg\max_k \big[\log \hat p_k(x) - \log \hat p_k(x_0)\big]$
# is the PMI rule of section 3: $c_0$ is the prompt with nothing in it. What calibration adds is that $c_0$ contains the
# *demonstrations*, and an average over several ways to say nothing.
#
# **Predict.** Four real demonstrations, drawn blindly. Which cell of the confusion table will be the largest before, and
# which after calibration?


# %%
def judge(name, contexts, words, prefix=""):
    """Raw and calibrated scores of the live sample and their AUCs; the last three contexts are content-free."""
    scores = scores_of(contexts, words, prefix)
    both = scores[:-3], contextual_calibration(scores[:-3], scores[-3:])
    auc = [roc_auc_score(y, (s[:, 1] - s[:, 0]).numpy()) for s in both]
    for kind, s in zip(("raw", "calibrated"), both, strict=True):
        found = s.argmax(1)
        right, second = (found == y).double().mean(), found.double().mean()
        print(f"{name:26s} {kind:10s} accuracy {right:.2f}, says {words[1]!r} {second:.2f} of the time")
    print(f"{'':26s} AUC {auc[0]:.2f} before, {auc[1]:.2f} after")
    return *both, auc


# %%
drawn = [r for r in tasks.subsample(movies.splits["train"], 40, 100 + seed) if len(r["text"].split()) < 20]
order = torch.randperm(len(drawn), generator=torch.Generator().manual_seed(seed)).tolist()
shots = [(drawn[i]["text"], movies.labels[drawn[i]["label"]]) for i in order[:4]]
print(show(shots), "\n")
plain = [f"Review: {text}\nSentiment:" for text in texts + CONTENT_FREE]
zero = judge("no demonstration", plain, words)
four = judge("four demonstrations", ["\n\n" + context for context in plain], words, show(shots))
for name, scores in (("raw", four[0]), ("calibrated", four[1])):
    print(f"\nfour demonstrations, {name}: rows are the truth, columns the prediction {movies.labels}")
    print(confusion_matrix(y, scores.argmax(1), labels=[0, 1]))

# %% [markdown]
# **Observe.** Before, the model says *negative* to most of the texts; afterwards *positive* is in front. Read the
# tables, not only the accuracies: a classifier that always says the same word has the accuracy of that word's share,
# whatever it knows. Without demonstrations the calibration made the accuracy *worse*. And read the lines `AUC`: the
# area under the ROC curve (lesson 03) is *the same* before and after. It has to be.
#
# *Proof.* For two labels, calibration adds the same number $\log \hat p_0(x_0) - \log \hat p_1(x_0)$ to every
# log-odds. The order of the texts by log-odds stays, and the area depends on nothing but that order. $\square$
#
# So with two labels calibration moves a threshold, and does nothing else; with $K$ labels it moves $K - 1$ of them.
# It cannot add knowledge; it can only stop hiding it. Whether it moves the threshold to the *right* place is another
# matter: the best place can be seen from labels only.

# %%
assert abs(four[2][0] - four[2][1]) < 1e-12 and abs(zero[2][0] - zero[2][1]) < 1e-12
odds = (four[0][:, 1] - four[0][:, 0]).sort().values
cuts = [odds[0] - 1, *((odds[1:] + odds[:-1]) / 2), odds[-1] + 1]
found = [((four[0][:, 1] - four[0][:, 0] > cut) == (y == 1)).double().mean().item() for cut in cuts]
accuracy = {
    name: (s.argmax(1) == y).double().mean().item()
    for name, s in zip(("raw", "calibrated"), four[:2], strict=True)
}
accuracy["best threshold, seen from the labels"] = max(found)
print({name: round(value, 2) for name, value in accuracy.items()})
run.record(
    auc=four[2][0], raw_four=accuracy["raw"], calibrated_four=accuracy["calibrated"], oracle_four=max(found)
)

# %% [markdown]
# The last number is an *upper bound*: the threshold is fitted on the labels that it is judged on, so some of its height is
# luck. The grids have an *oracle* without this luck: its weights are found on some texts and judged on others.
#
# ## 7 The format is part of the model
#
# This checkpoint was tuned on chats. So a chat format should suit it best. And the label words could be written with a
# capital letter, as an assistant would. **Predict** the worst of the five formats below, and whether its AUC is also the
# worst.

# %%
QUESTION = "Review: {}\nIs the sentiment of this review negative or positive? Answer with one word."
message = [{"role": "user", "content": QUESTION}]
chat = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
head, tail = chat.split(" {}")  # what all chats share goes into the prefix
print(chat)
dialogue = [f" {text}{tail}" for text in texts + CONTENT_FREE]
formats = {
    "plain": (plain, [" negative", " positive"], ""),
    "plain, capital letters": (plain, [" Negative", " Positive"], ""),
    "plain, terrible and great": (plain, [" terrible", " great"], ""),
    "chat": (dialogue, ["negative", "positive"], head),
    "chat, capital letters": (dialogue, ["Negative", "Positive"], head),
}
judged = {name: judge(name, *format) for name, format in formats.items()}

# %%
first = {name: (raw.argmax(1) == y).double().mean().item() for name, (raw, _, _) in judged.items()}
second = {
    name: (calibrated.argmax(1) == y).double().mean().item() for name, (_, calibrated, _) in judged.items()
}
auc = {name: each[0] for name, (_, _, each) in judged.items()}
for name, found in (("raw accuracy", first), ("calibrated accuracy", second), ("AUC", auc)):
    print(
        f"{name:20s} from {min(found.values()):.2f} to {max(found.values()):.2f}, best: {max(found, key=found.get)}"
    )
run.record(
    format_range=max(first.values()) - min(first.values()),
    format_auc_range=max(auc.values()) - min(auc.values()),
)

# %% [markdown]
# **Observe.** One model, one sample, one question, five ways to write it. Much of the spread of the raw accuracy is
# threshold: a format that says *positive* to everything may still order the texts well. The chat format did not suit
# the model best: its two AUCs are the lowest. Whoever reports "the model's accuracy" reports a format with it.
# Whoever chooses the best of many formats on the test data reports their luck, too (lesson 13).
#
# *An illustration in another language.* Eight sentences of our own, four good, four bad. The model was trained on
# English. **Predict:** will it do better with a Chinese frame and Chinese label words, or with an English frame and
# English ones around the Chinese text?

# %%
chinese = """这本书写得很好，我很喜欢。 饭菜好吃，服务也好。 电影非常精彩，值得再看一遍。 房间干净，住得很舒服。
这部电影太无聊了，我睡着了。 东西坏了，客服也不理我。 饭菜难吃，又贵。 房间又脏又吵，不会再来。""".split()
good = torch.tensor([1] * 4 + [0] * 4)
both = {"评论：{}\n情感：": ["负面", "正面"], "Review: {}\nSentiment:": [" negative", " positive"]}
for form, verbaliser in both.items():
    scores = scores_of([form.format(text) for text in chinese + CONTENT_FREE], verbaliser)
    calibrated = contextual_calibration(scores[:-3], scores[-3:])
    right = [(s.argmax(1) == good).sum().item() for s in (scores[:-3], calibrated)]
    size = len(encode_pair(form.format("x"), verbaliser[1], tokenizer)[1])
    print(f"{verbaliser} ({size} tokens): right of 8: raw {right[0]}, calibrated {right[1]}")

# %% [markdown]
# **Observe.** Eight sentences prove nothing, and frame and words changed together. They illustrate that a label word
# is a *string of tokens that the model must know*: a Chinese word costs this vocabulary several tokens, pieces of
# characters that it hardly saw.
#
# ## 8 One draw is not a result
#
# The grids repeat all this: four tasks, twenty draws of demonstrations, each with test texts of its own, zero to eight
# demonstrations; eight orders of the same four demonstrations; ten tasks with options of their own. Nothing was tuned,
# neither format nor words, and the claims were written before the runs. It is their second edition. The first had five draws,
# an oracle that was judged on its own texts, random labels that were right by chance, and spreads that were mostly luck:
# [How far a verdict can be trusted](../docs/how-sure.md) shows both.
#
# - **C4** (from the articles): zero-shot and with four demonstrations, accuracy is above the larger class.
# - **G1**, an *expected negative*: one demonstration is better than none, and eight are better than one. Brown et al. (2020)
#   show it for models up to a thousand times as large.
# - **Z1**: calibration raises four-shot accuracy on at least three of four tasks. **Z5**: it comes within three points of
#   the oracle weights.
# - **Z4**: the order alone moves accuracy by ten points, beyond luck. **Z2**: after calibration the log-odds of the right
#   label depend less on the order. **Z3**: the last label is favoured, on each of two tasks.
# - **G2**: *wrong* labels in all demonstrations cost less than five points. Min et al. (2022) found that *random* labels cost
#   larger models little; ours are all wrong. **SF1**: PMI beats the sum, in the mean of ten tasks.
#
# **Predict.** Give each a verdict before you look.
#
# ## 9 The experiments

# %%
from instructlab_repro import lesson

lines = lesson.results("in_context")
lesson.table("in_context")

# %% [markdown]
# The columns of Zhao et al. are there for their shape (a much larger model, other test sets), and are not ranked with ours.

# %%
names, ks = ["movie-sentiment", "bbc-topics", "vitaminc", "intent"], [0, 1, 4, 8]
figure, panels = plotting.axes(1, 4, width=2.7, height=2.9, sharey=True, dpi=85)
for panel, task in zip(panels, names, strict=True):
    for i, method in enumerate(("raw", "calibrated", "oracle", "majority")):
        own = [line for line in lines if (line["task"], line["method"]) == (task, method)]
        points = [[line["accuracy"] for line in own if line["k"] == k] for k in ks]
        panel.plot(ks, [sum(p) / max(len(p), 1) for p in points], label=method, **plotting.style(i))
        if method in ("raw", "calibrated"):
            for k, each in zip(ks, points, strict=True):
                panel.scatter([k] * len(each), each, s=7, color=plotting.style(i)["color"], alpha=0.6)
    panel.set(title=task, xlabel="demonstrations", xticks=ks, ylim=(0, 1))
panels[0].set_ylabel("accuracy; small dots: draws")
figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
_ = run.figure(figure, "12_accuracy")

# %%
lesson.show("C4", "G1", "Z1", "Z5", "G2")

# %% [markdown]
# **Observe.** Three decided, two not. They are worth reading.
#
# - **C4** is supported in both parts. But a mean hides its tasks. On fact checks the raw scores do not beat the larger class
#   without demonstrations, and lie below it with four; on intents the raw zero-shot prompt says the same label nearly always.
#   And the claim does not say that demonstrations help the raw scores: printed beside it, four against none is no gain.
# - **G1** is refuted, as we expected, by its first part: the first demonstration *costs* accuracy. Eight win a part of it
#   back, and that part is supported. A straight line over all numbers averages the fall and the rise to nothing: so the first
#   edition measured it, and could not decide. After calibration one demonstration is a gain.
# - **Z1** is supported: three of four tasks. On fact checks calibration changes nothing that matters. And look at zero-shot:
#   on films and on fact checks it makes things *worse*. "N/A" is not neutral when no demonstration says what kind of text
#   this is. Where label words differ in length (intents), it repairs that at once.
# - **Z5** is undecided. The first edition refuted it by far, with an oracle that was judged on its own texts: most of that
#   distance was luck. Weights that are found on other texts lie about as far ahead as the claim allows, and the interval
#   holds the threshold. More texts would find better weights, so the true distance is rather larger.
# - **G2** is undecided against our margin. Wrong labels did cost something, since the interval lies above zero, and they cost
#   more after calibration: this model uses the mapping, on intents most of all. Yet with *only* wrong labels and calibration
#   it is still above the larger class. Some of what demonstrations teach is not in their labels.
#
# Now a question that we did not register: what do demonstrations *change*, the ranking or the threshold? The oracle's
# accuracy tells something about the ranking. **Predict:** does it rise with the number of demonstrations as the calibrated
# one does?

# %%
print(f"{'k':24s}", *(f"{k:>6d}" for k in ks))
for method in ("raw", "calibrated", "oracle"):
    for metric in ("accuracy", "top_share"):
        found = {k: [e[metric] for e in lines if (e["method"], e["k"]) == (method, k)] for k in ks}
        means = [sum(each) / len(each) for each in found.values()]
        print(f"{method:11s} {metric:12s}", *(f"{value:6.2f}" for value in means))

# %% [markdown]
# **Observe.** After the fact, so a reading and no verdict: the oracle hardly moves (with one and with eight it had only half
# as many texts to learn from). What the scores know about the texts seems to be there without any demonstration. The bias
# changes more than the knowledge: in the mean of the tasks one demonstration gives one label a larger share, and more of them
# take that back. Calibration lowers the share at every $k$.
#
# **The order.** First a trap. The best minus the worst of several accuracies is never negative. **Predict:** how far do
# eight accuracies on two dozen texts lie apart if the orders do not matter at all?

# %% tags=["nbval-check-output"]
g = torch.Generator().manual_seed(0)
luck = (torch.rand(1000, 8, 24, generator=g) < 0.6).double().mean(2)  # a thousand times eight accuracies
print(f"best minus worst of eight, by luck alone: {(luck.max(1).values - luck.min(1).values).mean():.2f}")

# %% [markdown]
# So a spread says nothing until its luck is known. Two ways out. *Shuffle*: let the answers to each text change places among
# the orders; the spread that is left is luck. *Cross-fit*: choose the best and the worst order on four fifths of the texts,
# and compare them on the last fifth; where orders do not matter, that is zero on average.

# %%
lesson.table("demonstration_order", "accuracy", "spread", "luck", "beyond_luck")

# %%
drawn = [line for line in lesson.results("demonstration_order") if line["method"] == "raw"]
if drawn:
    figure, panels = plotting.axes(1, 2, width=4.2, height=2.8, sharey=True, dpi=75)
    for ax, task in zip(panels, ("movie-sentiment", "bbc-topics"), strict=True):
        for height, key in enumerate(("beyond_luck", "luck", "spread")):
            found = np.array([line[key] for line in drawn if line["task"] == task])
            shift = np.linspace(-0.18, 0.18, len(found))
            ax.plot(found, height + shift, ".", color=plotting.COLOURS[height], alpha=0.7)
            ax.plot([found.mean()] * 2, [height - 0.3, height + 0.3], color="black")
        ax.set(title=task, xlabel="best minus worst of eight orders")
        ax.axvline(0, color="grey", linewidth=0.8)
    panels[0].set_yticks(range(3), ["cross-fitted", "luck alone", "plain"])
    _ = run.figure(figure, "12_orders")

# %% [markdown]
# *What to see.* A dot is a draw, a bar the mean of the draws, raw scores. The plain spread is never near zero, and most of it
# is there by luck alone. The cross-fitted distance scatters widely, below zero too, and its mean lies well above zero.

# %%
lesson.show("Z4", "Z2", "Z3")

# %% [markdown]
# **Observe.** Read the second table against the third: most of the plain spread is luck. Without luck (the fourth) the order
# still moves accuracy by more than ten points, and on each task alone. Whoever tries a few orders and reports the best one
# reports both. Recency is supported on both tasks; on topics it is much weaker. Calibration takes most of it away, and
# raises the mean.
#
# Z2 has a part for each task, and they fall apart. On films the log-odds lie less than half as far apart after calibration.
# On topics they lie as far apart as before: the change is smaller than the smallest one that we said would matter. One part
# is supported, the other is refuted when it stands alone, but not after the correction for two parts: together *undecided*.
# What is left of the spread is not in the bias that a content-free text can see.
#
# **The score.**

# %%
lesson.show("SF1")
lesson.table("zero_shot")

# %% [markdown]
# **Observe.** Supported, as it was written: the mean of ten tasks, with an interval over questions. A mean may live on one of
# its parts. Not registered, but honest to print: the mean with each task left out, with an interval over the five samples.

# %%
from instructlab_utils.intervals import t_interval

own = {(e["task"], e["seed"], e["method"]): e["accuracy"] for e in lesson.results("zero_shot")}
names, seeds = sorted({task for task, _, _ in own}), sorted({seed for _, seed, _ in own})
gain = torch.tensor([[own[t, s, "pmi"] - own[t, s, "sum"] for t in names] for s in seeds]).double()
for i, name in enumerate(names):
    rest = t_interval(gain[:, [j for j in range(len(names)) if j != i]].mean(1).numpy())
    print(f"without {name:20s} {rest.mean:+.3f} [{rest.low:+.3f}, {rest.high:+.3f}]")

# %% [markdown]
# **Observe.** Without the descriptions of code the gains and losses of the other nine tasks cancel. In that task the
# sum falls *below chance*: it takes options that are shorter than the mean (the verdict prints by how many tokens), and both
# other scores repair it. So "PMI beats the sum" is, on these ten tasks, carried by one task, in which length decides. It is
# not all length: on goal-inference PMI gains more than the mean per token. And on social-iqa it clearly loses: there the
# prior of an answer is worth something.

# %% [markdown]
# ## 10 What we have shown
#
# Printed from this run's record, so that the text cannot disagree with the numbers.

# %%
r = run.metrics
print(f"profile {run.profile}, seed {seed}, {run.device}")
print(f"log-probability by hand against the library: {r['library_difference']:.0e} nats apart")
print(f"contexts in rows against one by one: {r['packed_difference']:.0e} nats apart, for", end=" ")
print(f"{r['in_one_row'] / r['one_by_one']:.0%} of the tokens")
print(f"p(positive | nothing): behind PPPP {r['nothing_pppp']:.2f}, behind PPPN {r['nothing_pppn']:.2f}")
print(f"raw accuracies of five formats span {r['format_range']:.2f}, their AUCs {r['format_auc_range']:.2f}")
print("verdicts:", lesson.words("C4", "G1", "G2", "SF1", "Z1", "Z2", "Z3", "Z4", "Z5"))

# %% [markdown]
# **What we have not shown.**
#
# - Nothing about large models. The papers' effects are measured at sizes that do not fit here; ours is the small end.
# - The checkpoint was tuned on instructions, on data that may hold tasks like ours. "No update" is true of this lesson, not
#   of the model's past.
# - One format and one verbaliser per task in the grids. Section 7 shows how much that leaves open.
# - SF1 speaks of a mean over ten tasks. One task carries it, and on several the sum was better.
# - The oracle's weights are found on few texts, so it understates what the best weights could do.
# - Test texts come from the same few collections as the demonstrations, and long ones are left out.
#
# **What should I set?**
#
# | you want | set | check |
# |---|---|---|
# | probabilities of options | sum over the option's tokens; lm-eval calls it `acc` | the space belongs to the option |
# | options of unequal length | mean per token or byte (`acc_norm`), or PMI | which option wins with an empty context |
# | the same prefix once | `past_key_values`, cloned; one mask for all options | logits equal those of the long way |
# | demonstrations | balanced labels, several orders, several draws | the spread, beside its value by luck |
# | calibration | divide by the mean of several texts that say nothing | accuracy moves, AUC does not |
# | a chat model | its template, and the plain text beside it | tokens of the rendered prompt |
#
# **Recall.** Answer without scrolling.
#
# 1. Why does a space at the end of the context ruin the scores, and where does `encode_pair` put it?
# 2. Which options does the sum prefer, which the mean, and what does PMI throw away?
# 3. Which two properties of attention make it exact to read a prefix once and to put contexts into one row?
# 4. Name the three biases, and one measurement for each.
# 5. Why does the AUC not change under calibration? What would have to depend on the text for it to change?
#
# <details><summary>Answers</summary>
#
# 1. A space alone is a rare token, so the model expects something strange after it. `encode_pair` moves it to the front
#    of the option.
# 2. The sum: short and frequent ones. The mean: compounds that finish themselves. PMI throws away a true prior.
# 3. A position sees only earlier ones. What a token sees is given by mask and positions, so the row does not matter.
# 4. Majority (PPPP against NNNN), recency (NNPP against PPNN), common words (two verbalisers behind a text that says
#    nothing).
# 5. It adds one number to all log-odds, and the order of the texts stays. The number would have to depend on the text.
#
# </details>
#
# **Exercises.** `notebooks/exercises/12_in_context.py`; `make classroom` builds the student version.
#
# **References.**
#
# - Brown, T., et al. (2020). Language models are few-shot learners. *NeurIPS 2020*.
# - Holtzman, A., West, P., Shwartz, V., Choi, Y., and Zettlemoyer, L. (2021). Surface form competition: why the highest
#   probability answer isn't always right. *EMNLP 2021*.
# - Hutto, C. J., and Gilbert, E. (2014). VADER: a parsimonious rule-based model for sentiment analysis of social media
#   text. *ICWSM 2014*.
# - Min, S., et al. (2022). Rethinking the role of demonstrations: what makes in-context learning work? *EMNLP 2022*.
# - Olsson, C., et al. (2022). In-context learning and induction heads. *Transformer Circuits Thread*. arXiv:2209.11895.
# - Srivastava, A., et al. (2023). Beyond the imitation game: quantifying and extrapolating the capabilities of language
#   models. *TMLR*.
# - Zhao, Z., Wallace, E., Feng, S., Klein, D., and Singh, S. (2021). Calibrate before use: improving few-shot performance
#   of language models. *ICML 2021*.
