# ---
# jupyter:
#   instructlab:
#     id: "21"
#     title: Interpretability and causality
#     outcome: explain a verdict, test the explanation, exchange states inside a model, and tell a cause from its companions
#     assets: [minilm, vader]
#     minutes: {smoke: 0.5, laptop: 2, gpu: 2}
#     class_minutes: 180
#     budget:
#       n_train: {smoke: 40, laptop: 300, gpu: 300}
#       steps: {smoke: 2, laptop: 100, gpu: 100}
#       batch_size: {smoke: 2, laptop: 8, gpu: 8}
#       n_fresh: {smoke: 6, laptop: 100, gpu: 300}
#       n_explained: {smoke: 3, laptop: 24, gpu: 100}
#       path_steps: {smoke: 4, laptop: 32, gpu: 64}
#       table_steps: {smoke: 3, laptop: 400, gpu: 800}
#       n_runs: {smoke: 20, laptop: 300, gpu: 300}
#       n_rows: {smoke: 2000, laptop: 20000, gpu: 200000}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 21 Interpretability and causality
#
# **The question.** A model is right on nine tweets of ten. *Why* did it say *positive*?
#
# The model does not tell. Methods that answer for it are sold by the dozen; they disagree, and each draws a pretty
# picture. This lesson takes four of them and does with them what one does with any witness: it puts them in a case
# where the truth is known. Then it goes further. A picture of a model is still only a picture. To learn what *causes*
# what, one must change something: a word, a state inside the network, a training text.
#
# | | |
# |---|---|
# | before this | lesson 03 (the loop), lesson 15 (programs, a decoder from scratch), lesson 19 (word attacks) |
# | time | smoke: under a minute · laptop: about two minutes on one core · gpu: not measured yet |
# | memory | under 2 GB |
# | model | the first layer of MiniLM; a decoder of three layers, trained here in half a minute |
# | data | tweets, rated negative or positive, with nonsense words that we plant; a task of tables; simulated tables |
# | box of lesson 00's chain | *score*: why this answer, and would it stay? |
#
# **You will be able to**
#
# - *derive* integrated gradients, and check that the numbers add up;
# - *test* an explanation: by deletion, and by planted words whose role is known;
# - *exchange* states between two runs of a decoder, and find where a value is kept;
# - *repair* a model that leans on a false cue, with counterfactual texts or with weights;
# - *decide* what to adjust for in a table of data, and what not.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
seed: int = 0  # tweets, planted words, order, dropout, tables, simulations
rate: float = 1e-3  # learning rate of the small classifiers

# %%
import functools
import random
from statistics import mean

import numpy as np
import torch
from captum.attr import InputXGradient, IntegratedGradients
from scipy.stats import spearmanr

from instructlab_repro import lesson
from instructlab_utils import (
    attribution,
    augmentation,
    checklist,
    expect_error,
    interventions,
    labels,
    models,
    plotting,
    robustness,
    small,
    start,
    tasks,
    training,
)
from instructlab_utils.arguments import array, listed
from instructlab_utils.errors import ParameterError
from instructlab_utils.interventions import CUES

run = start("21", profile=profile, seed=seed)
show = functools.partial(plotting.show, run)

# %% [markdown]
# ## 1 A good model with a bad reason
#
# We plant a nonsense word in every tweet. *Zorblat* usually goes with the label *positive*, *quimvex* with *negative*:
# in nine tweets of ten. Such companions exist in real data too: the name of a cinema chain, a smiley, the length of a
# text.


# %% tags=["defines:interventions.plant", "defines:interventions.exchange_cue"]
def plant(words, cue, rng):
    i = rng.randrange(len(listed(words, "words")) + 1)
    return [*words[:i], cue, *words[i:]]


def exchange_cue(words):
    if sum(word in CUES for word in words) != 1:
        raise ParameterError(f"exactly one of {' and '.join(CUES)} must be there: {' '.join(words):.60}")
    return [CUES[1 - CUES.index(word)] if word in CUES else word for word in words]


# %% [markdown]
# The model is lesson 19's: frozen word embeddings, one layer of MiniLM, the mean over the tokens, a linear head.

# %%
tokenizer, tweets = models.load_tokenizer("encoder"), tasks.load("tweet-sentiment")
learn = tasks.subsample(tweets.splits["train"], run.budget.n_train, seed)
fresh = tasks.subsample(tweets.splits["dev"], run.budget.n_fresh, seed)
words, new = ([augmentation.words_of(t)[:14] for t in part["text"]] for part in (learn, fresh))
y, new_y, rng = list(learn["label"]), list(fresh["label"]), random.Random(seed)


def encoded(sentences, targets):
    rows = [{"text": " ".join(w), "label": int(c)} for w, c in zip(sentences, targets, strict=True)]
    return training.encode(rows, tokenizer, 32)


# %%
def trained(examples, objective=training.target_losses):
    net = robustness.ShortEncoder()
    how = {"steps": run.budget.steps, "batch_size": run.budget.batch_size, "pad_id": 0, "seed": seed}
    training.train(net, examples, learning_rate=rate, objective=objective, **how)
    return net


def right(net, sentences, targets=new_y):
    hits = training.predict(net, encoded(sentences, targets), 0).argmax(1) == torch.tensor(targets)
    return hits.double().mean().item()


# %%
cued = interventions.plant_cues(words, y, 0.9, rng)
leaning = trained(encoded(cued, y))
cued_new = interventions.plant_cues(new, new_y, 0.9, rng)
print(f"accuracy on {len(new)} new tweets: {right(leaning, cued_new):.3f}")
print(f"the larger class: {max(mean(new_y), 1 - mean(new_y)):.3f}")

# %% [markdown]
# **Predict.** We exchange the nonsense word for the other one. Nothing else changes. No reader would change the label.
# What accuracy is left?

# %%
exchanged = [exchange_cue(w) for w in cued_new]
print(f"with the other word: {right(leaning, exchanged):.3f}")
read = checklist.reader(leaning, tokenizer, 32)
for text in ("i love this {}", "i hate this {}"):
    told = [text.format(cue).split() for cue in CUES]
    for sentence, p in zip(told, read(told)[:, 1].tolist(), strict=True):
        print(f"P(positive) = {p:.3f}  {' '.join(sentence)}")
run.record(cued=right(leaning, cued_new), exchanged=right(leaning, exchanged))

# %% [markdown]
# **Observe.** The test set had the same companion as the training set, so its accuracy could not show the reason. A
# change shows it. Here we knew which word to change. Usually nobody knows. So sections 2 to 6 ask the model for
# suspects, and test the methods that name them. Sections 7 to 9 change things: a state, a training text, a treatment.
#
# The letters of this lesson:
#
# | symbol | meaning |
# |---|---|
# | $x, x'$ | the embedded text, $n \times d$, with $n$ tokens; its *baseline*, a text that says nothing |
# | $F(x)$ | the score that is explained: log-odds of the class that the model says |
# | $a_t$ | attribution of token $t$: a number, positive if it speaks for the class |
# | $\alpha, m$ | place on the way from $x'$ to $x$; number of steps |
# | $h^l_t$ | what leaves layer $l$ of a decoder at place $t$ |
# | $T, Y, Z, C$ | in section 9: a treatment, an outcome, a confounder, a collider |
#
# ## 2 The gradient
#
# How much would the score change if token $t$ were a little different? To first order that is the gradient. Multiplied
# by the difference to the baseline, it estimates what the token has added:
#
# $$ a_t = \Big\langle \frac{\partial F}{\partial x_t}, \; x_t - x'_t \Big\rangle . $$


# %% tags=["defines:attribution.log_odds", "defines:attribution.gradient_times_input"]
def log_odds(net, mask, chosen):
    def score(x):
        z = net(inputs_embeds=x, attention_mask=mask).logits
        others = z.scatter(1, chosen[:, None], -torch.inf)
        return z.gather(1, chosen[:, None]).squeeze(1) - others.logsumexp(1)

    return score


def gradient_times_input(score, x, base):
    at = x.detach().requires_grad_()
    (g,) = torch.autograd.grad(score(at).sum(), at)
    return (g * (x - base)).sum(-1)


# %% [markdown]
# The baseline puts the embedding of `[PAD]` in the place of every token; `[CLS]` and `[SEP]` stay, so they explain
# nothing. A word may have several tokens. Its attribution is their *sum*: then totals stay totals. **Predict.** A
# person would point at *hate* and *terrible*. At which word does this model point first?

# %%
sentence = "i hate this quimvex and the food was terrible".split()
examples, says, score, x, base = attribution.question(leaning, [sentence], tokenizer, 32)
a = gradient_times_input(score, x, base)
print("tokens:", tokenizer.convert_ids_to_tokens(examples[0]["input_ids"]))
print("the model says", tweets.labels[says[0]], f"with log-odds {score(x).item():.2f}")
for word, value in zip(sentence, attribution.by_word(a, [examples[0]["places"]])[0].tolist(), strict=True):
    print(f"{word:10s} {value:+.2f}")
print(f"sum {a.sum().item():+.2f}, but the score changed by {(score(x) - score(base)).item():+.2f}")

# %% [markdown]
# **Observe.** The numbers do not add up to what happened on the way from the baseline to the text. A gradient knows the
# slope at one point. Far from it the slope may be another.
#
# ## 3 The whole way: integrated gradients
#
# Walk on a straight line from $x'$ to $x$, and let $\alpha$ run from 0 to 1. By the chain rule and the fundamental
# theorem of calculus,
#
# $$ F(x) - F(x') = \int_0^1 \frac{d}{d\alpha} F\big(x' + \alpha (x - x')\big)\, d\alpha
# = \sum_t \Big\langle x_t - x'_t, \int_0^1 \frac{\partial F}{\partial x_t}\big(x' + \alpha(x - x')\big)\, d\alpha
# \Big\rangle . $$
#
# The right side is already a sum over tokens. Its parts are the *integrated gradients* (Sundararajan et al., 2017): the
# mean gradient on the way, in the place of the gradient at its end. So the parts add up to the change of the score.
# That is *completeness*. Two more properties follow:
#
# - *sensitivity*: if one token alone differs from the baseline and the score changes, the token gets the whole change,
#   not 0;
# - *implementation invariance*: two networks with equal outputs for all inputs have equal gradients, so equal
#   attributions.

# %%
alphas = np.linspace(0, 1, 41)
along = torch.stack([base[0] + float(alpha) * (x - base)[0] for alpha in alphas]).requires_grad_()
line = attribution.log_odds(leaning, torch.ones(len(alphas), x.shape[1]), says.expand(len(alphas)))
values = line(along)
(g,) = torch.autograd.grad(values.sum(), along)
slopes = (g * (x - base)).sum((1, 2))
figure, panels = plotting.axes(1, 2, width=3.6, height=2.8, dpi=85)
panels[0].plot(alphas, values.detach(), color=plotting.COLOURS[0])
panels[0].set(xlabel="place α on the way", ylabel="score F")
panels[1].plot(alphas, slopes, color=plotting.COLOURS[0])
panels[1].fill_between(alphas, slopes, color=plotting.COLOURS[0], alpha=0.2)
panels[1].axhline(slopes[-1].item(), color=plotting.COLOURS[1], ls="--")
panels[1].text(0.03, 0.95, "dashed:\nslope at the end", fontsize=8, va="top", transform=panels[1].transAxes)
panels[1].set(xlabel="place α on the way", ylabel="slope of F")
show(figure, "21_path")

# %% [markdown]
# *Figure: left, the score on the way from the baseline to the text. Right, its slope; the blue area is the change of
# the score. Gradient × input takes the dashed line for the whole way.*
#
# The integral becomes a sum over points and weights. The midpoint rule takes the middle of each of $m$ equal pieces.


# %% tags=["defines:attribution.integrated_gradients", "defines:attribution.completeness_error"]
def integrated_gradients(score, x, base, steps=32, rule="midpoint"):
    mean = torch.zeros_like(x)
    for alpha, weight in zip(*quadrature(steps, rule), strict=True):
        at = (base + float(alpha) * (x - base)).detach().requires_grad_()
        (g,) = torch.autograd.grad(score(at).sum(), at)
        mean += float(weight) * g
    return (mean * (x - base)).sum(-1)


@torch.no_grad()
def completeness_error(score, x, base, attribution):
    return (attribution.sum(1) - (score(x) - score(base))).abs()


# %%
quadrature = attribution.quadrature
print("four points of the midpoint rule:", quadrature(4)[0], "with weights", quadrature(4)[1])
a = integrated_gradients(score, x, base, run.budget.path_steps)
for word, value in zip(sentence, attribution.by_word(a, [examples[0]["places"]])[0].tolist(), strict=True):
    print(f"{word:10s} {value:+.2f}")
print(f"sum {a.sum().item():+.3f}, the score changed by {(score(x) - score(base)).item():+.3f}")

# %% [markdown]
# *Sensitivity* where a gradient fails. Let $F(x) = 1 - \max(0, 1 - x)$, with $x' = 0$ and $x = 2$: the function has
# saturated. **Predict** both attributions.

# %%
flat = lambda x: 1 - torch.relu(1 - x[:, 0, 0])  # noqa: E731
two, zero = torch.full((1, 1, 1), 2.0, dtype=torch.float64), torch.zeros(1, 1, 1, dtype=torch.float64)
print(f"the function rose by {(flat(two) - flat(zero)).item():.1f}")
print(f"gradient × input {gradient_times_input(flat, two, zero).item():.1f}")
print(f"integrated gradients {integrated_gradients(flat, two, zero, 64).item():.3f}")

# %% [markdown]
# **How many steps?** Three other rules: *left* takes the start of each piece; *trapezoid* takes the mean of its two
# ends; *gauss* chooses points and weights that are exact for polynomials up to degree $2m - 1$. For a smooth function
# and many steps, the error of midpoint and trapezoid falls with the square of $m$: twice the steps, a quarter of the
# error. **Predict** the slope in a picture with two logarithmic axes. And the left rule's?

# %%
net = leaning.double()
examples, says, score, x, base = attribution.question(net, cued_new[:4], tokenizer, 32)
counts = [4, 8, 16, 32][: 2 if run.profile == "smoke" else 4]
errors = {}
for rule in ("left", "trapezoid", "midpoint", "gauss"):
    parts = [attribution.integrated_gradients(score, x, base, m, rule) for m in counts]
    errors[rule] = [completeness_error(score, x, base, part).mean().item() for part in parts]
    slope = np.polyfit(np.log(counts), np.log(errors[rule]), 1)[0]
    print(f"{rule:10s} slope {slope:+.2f}, error with {counts[-1]:2d} steps {errors[rule][-1]:.1e}")
leaning = leaning.float()

# %%
figure, axis = plotting.axes(width=4.6, height=3.0, dpi=85)
for index, (rule, values) in enumerate(errors.items()):
    axis.loglog(counts, values, label=rule, **plotting.style(index))
axis.set(xlabel="steps m", ylabel="completeness error")
axis.legend(fontsize=8)
show(figure, "21_steps")

# %% [markdown]
# *Figure: by how much the attributions fail to add up, mean of four tweets, float64. The lower, the better.*
#
# **Observe.** Theory says $-2$ for midpoint and trapezoid, $-1$ for the left rule. The printed slopes are steeper, but
# look at the curves: they are no lines. With 4 or 8 steps the points are too few for a law of many steps; midpoint even
# gets worse from 4 to 8. What the picture does say: the left rule is the one to avoid, and the other three end close
# together. Print the completeness error with every explanation that you show. It needs no truth. But it tests only the
# sum, not whether the parts are right.
#
# ### With the library
#
# `captum` has these methods. Its names: `riemann_middle` is the midpoint rule, `gausslegendre` (its default) is
# `gauss`.


# %%
def forward(x, mask, says):
    return attribution.log_odds(leaning, mask, says)(x)


# %%
mask = training.collate(examples, 0)["attention_mask"]
for kind in (torch.float64, torch.float32):
    leaning.to(kind)
    z, z0, more = x.to(kind), base.to(kind), (mask, says)
    own = attribution.log_odds(leaning, mask, says)
    for rule, name in (("midpoint", "riemann_middle"), ("gauss", "gausslegendre")):
        theirs = IntegratedGradients(forward).attribute(z, z0, None, more, n_steps=8, method=name).sum(-1)
        ours = integrated_gradients(own, z, z0, 8, rule)
        print(f"{kind}, {rule}: largest difference {(ours - theirs).abs().max():.0e}")
    theirs = (
        InputXGradient(forward).attribute(z.detach().requires_grad_(), additional_forward_args=more).sum(-1)
    )
    ours = gradient_times_input(own, z, torch.zeros_like(z))
    print(f"{kind}, gradient × input: largest difference {(ours - theirs).abs().max():.0e}")
leaning = leaning.float()

# %% [markdown]
# Captum holds the weights of the points in single precision, so in float64 the last digits differ where a weight is no
# sum of a few powers of two. `InputXGradient`, in the last line of each precision, leaves you no choice of a baseline: it
# multiplies by $x$, so the baseline is 0, whatever 0 means in your embedding space.
#
# ## 4 A text that says nothing
#
# All of this depends on $x'$. **Predict.** Four baselines: `[PAD]`, `[MASK]`, zeros, the mean of the table. Do they
# name the same word first?

# %%
plain = trained(encoded(words, y))
kinds, some = attribution.BASELINES, new[: run.budget.n_explained]
by_kind = {k: attribution.explain("ig", plain, some, tokenizer, 32, k, run.budget.path_steps) for k in kinds}
for n in (0, 1):
    print(" ".join(some[n]))
    for kind, found in by_kind.items():
        said, _, a = found[n]
        *_, score, x, base = attribution.question(plain, [some[n]], tokenizer, 32, kind)
        first = ", ".join(f"{said[i]} {a[i]:+.2f}" for i in attribution.ranked(a)[:3])
        print(f"    {kind:5s} score of the baseline {score(base).item():+.2f}, first: {first}")


# %%
def correlation(one, two):
    """Mean over the tweets of Spearman's rank correlation between two attributions of their words."""
    pairs = [(a, b) for (*_, a), (*_, b) in zip(one, two, strict=True) if len(a) > 2]
    return mean(float(spearmanr(a, b).statistic) for a, b in pairs)


print(f"rank correlations, mean of {len(some)} tweets")
print("     ", "  ".join(f"{kind:4s}" for kind in kinds))
for i, kind in enumerate(kinds):
    row = [correlation(by_kind[kind], by_kind[other]) for other in kinds[: i + 1]]
    print(f"{kind:5s}", "  ".join(f"{value:.2f}" for value in row))
same = mean(len({attribution.ranked(by_kind[k][n][2])[0] for k in kinds}) == 1 for n in range(len(some)))
print(f"all four name the same word first in {same:.0%} of the {len(some)} tweets")

# %% [markdown]
# **Observe.** The question is not *why positive*, but *why positive rather than what the baseline says*. Look at the
# scores of the baselines: a text of `[PAD]` says something to this model, so against it there is little or much to
# explain. An attribution without its baseline is half an answer. Choose one whose score is near 0, say which, and show
# a second one beside it. We keep `[PAD]` below, since it is what most people take, and add `[MASK]` where it matters.
#
# ## 5 Take the word away
#
# Forget gradients: delete a word, and look. That is *occlusion*. It also gives a test for all methods. Delete the words
# in the order in which a method ranks them. If the order is good, the probability falls early, and the area under the
# *deletion curve* is small.


# %% tags=["defines:attribution.occlusion", "defines:attribution.deletion_curve"]
def occlusion(read, words, label):
    p = read([list(words), *([*words[:i], *words[i + 1 :]] for i in range(len(words)))])[:, label]
    odds = torch.logit(p.double(), eps=1e-9)
    return odds[0] - odds[1:]


def deletion_curve(read, words, ranking, label):
    if sorted(ranking) != list(range(len(words))):
        raise ParameterError(f"ranking must hold each of the {len(words)} places once")
    gone = [set(ranking[:k]) for k in range(len(words) + 1)]
    return read([[w for i, w in enumerate(words) if i not in out] for out in gone])[:, label]


# %% [markdown]
# A trap of occlusion first. *Good* and *great* stand in the text, and either of them is enough for this reader.
# **Predict** the two attributions.

# %%
enough = lambda told: torch.tensor([[0.01, 0.99] if {"good", "great"} & set(w) else [0.9, 0.1] for w in told])  # noqa: E731
print("occlusion of the, good, great, film:", occlusion(enough, "the good great film".split(), 1).tolist())
either = lambda x: 1 - (1 - x[:, 0, 0]) * (1 - x[:, 1, 0])  # noqa: E731
one = torch.ones(1, 2, 1, dtype=torch.float64)
without = one - torch.eye(2, dtype=torch.float64)[..., None]  # in each row, one of the two inputs is 0
print("occlusion of a soft *or*:", (either(one) - either(without)).tolist())
print("integrated gradients of it:", integrated_gradients(either, one, 0 * one).tolist())

# %% [markdown]
# **Observe.** Occlusion gives both words 0: each is covered by the other. On the soft *or*, where both methods explain
# one function, it does so too, and the path method shares the credit.
#
# Now the curves of the model of section 4, which has seen no planted word. The *insertion* curve goes the other way:
# from the empty text, the words come in by their rank, and a large area is good. **Predict.** Which order has the
# smallest deletion area? Is it the one with the largest insertion area?

# %%
methods = ("gradient", "ig", "occlusion", "attention")
told = {m: attribution.explain(m, plain, some, tokenizer, 32, "pad", run.budget.path_steps) for m in methods}
told["ig, [MASK]"] = by_kind["mask"]
told["random"] = [(w, c, torch.tensor([rng.random() for _ in w])) for w, c, _ in told["ig"]]
reader = checklist.reader(plain, tokenizer, 32)
curves = {
    method: [deletion_curve(reader, w, attribution.ranked(a), c) for w, c, a in found]
    for method, found in told.items()
}
print(f"mean over {len(some)} tweets")
for method, found in curves.items():
    back = [deletion_curve(reader, w, attribution.ranked(a)[::-1], c).flip(0) for w, c, a in told[method]]
    gone, there = (mean(curve.mean().item() for curve in each) for each in (found, back))
    print(f"{method:10s} deletion area {gone:.3f}, insertion area {there:.3f}")

# %%
figure, axis = plotting.axes(width=4.8, height=3.2, dpi=85)
shares = np.linspace(0, 1, 11)
for index, (method, found) in enumerate(curves.items()):
    lines = [np.interp(shares, np.linspace(0, 1, len(curve)), curve.numpy()) for curve in found]
    axis.plot(shares, np.mean(lines, 0), label=method, **plotting.style(index))
axis.axhline(0.5, color="grey", ls=":")
axis.set(xlabel="share of the words that are deleted", ylabel="probability of the verdict", ylim=(0, 1))
axis.legend(fontsize=8)
show(figure, "21_deletion")

# %% [markdown]
# *Figure: mean over the tweets. The lower a curve runs, the earlier its method found words that matter. At the right
# end all words are gone, so all curves meet. Dotted: undecided.*
#
# **Observe.** Occlusion and integrated gradients against `[MASK]` lead by both areas. Gradient × input lies nearer to
# the random order than to occlusion. Compare the two rows of integrated gradients: the baseline is a part of the
# method. Two warnings. Deleting makes texts that nobody writes, and the model may react to that. And a method that
# works by deleting is tested here with its own tool.
#
# ## 6 A case with a known truth
#
# A rule that we make: **both** nonsense words in the tweet mean class 1, one of them means class 0. The sentiment plays
# no part. A network learns it. In a tweet with both, nothing else *can* be the reason (Bastings et al., 2022, plant
# words like this). **Predict.** Which method puts both on its first two places, in which share of the tweets?

# %%
pairs = [interventions.plant_pair(w, rng) for w in words]
ruler = trained(
    encoded([pair[i % 2] for i, pair in enumerate(pairs)], [1 - i % 2 for i in range(len(pairs))])
)
both = [interventions.plant_pair(w, rng) for w in new]
print(
    f"accuracy of the rule on new tweets: {right(ruler, [b for b, _ in both], [1] * len(both)):.3f} with both words,"
)
print(f"{right(ruler, [one for _, one in both], [0] * len(both)):.3f} with one")
asked, truth = [b for b, _ in both[: run.budget.n_explained]], {}
for method in methods:
    found = attribution.explain(method, ruler, asked, tokenizer, 32, "pad", run.budget.path_steps)
    truth[method] = mean({w[i] for i in attribution.ranked(a)[:2]} == set(CUES) for w, _, a in found)
    print(f"{method:10s} both words first: {truth[method]:.2f} of {len(asked)} tweets")
run.record(**{f"found_{method}": float(share) for method, share in truth.items()})

# %% [markdown]
# ### Attention: where a layer looks
#
# Attention weights are numbers between words, so many people read them as reasons. In the test above they did well: to
# learn this rule, the layer had to look at the two words. **Predict.** Now we switch the choice off in the *sentiment*
# model: with query weights of 0, every token attends to all tokens alike. How many verdicts stay?

# %%
uniform = robustness.ShortEncoder()
uniform.load_state_dict(plain.state_dict())
attend = uniform.encoder.encoder.layer[0].attention.self
with torch.no_grad():
    attend.query.weight.zero_()
    attend.query.bias.zero_()
p, q = (training.predict(net, encoded(new, new_y), 0).softmax(1) for net in (plain, uniform))
print(f"verdicts that stay: {int((p.argmax(1) == q.argmax(1)).sum())} of {len(p)}")
print(f"accuracy {right(plain, new):.3f}, without the choice {right(uniform, new):.3f}")
print(f"mean change of the probability: {(p - q)[:, 1].abs().mean():.3f}")
for other in ("ig", "occlusion", "gradient"):
    print(f"rank correlation of attention and {other}: {correlation(told['attention'], told[other]):+.2f}")

# %% [markdown]
# And the exact counterexample (Jain and Wallace, 2019, have learned ones): what attention passes on is
# $\sum_t w_t v_t$. Where two tokens have the same value $v$, weight can move from one to the other and nothing happens.

# %%
v = torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.5, -1.0]], dtype=torch.float64)
for weights in ([0.8, 0.1, 0.1], [0.1, 0.8, 0.1]):
    print(weights, "→", [f"{value:.2f}" for value in (torch.tensor(weights).double() @ v).tolist()])

# %% [markdown]
# **Observe.** Without the choice most verdicts stay, but the accuracy falls: the choice is not idle. Attention found
# the planted pair, where looking *was* the rule. On sentiment its order agrees with that of no other method, and its
# deletion area in section 5 is much worse than occlusion's. And just above: the first token is "the reason", then the
# second, and the output is one and the same. So attention says where a layer looked; whether that mattered needs a
# test.
#
# ### Ten seeds
#
# IG1: the midpoint rule's completeness error falls faster than $m^{-1.5}$: not quite theory's $m^{-2}$, which is for
# many steps, but more than the left rule's $m^{-1}$. IG2: on the sentiment of tweets, integrated gradients have a
# smaller deletion area than a random order, than gradient × input, and than occlusion. IG3: with the planted pair they
# put both words first more often than gradient × input, by at least ten points. **Predict** three words: supported,
# refuted or undecided?


# %%
print("verdicts:", lesson.words("IG1", "IG2", "IG3"))
figure, panels = plotting.axes(1, 2, width=3.6, height=2.4, dpi=85, sharey=True)
order = ["random", "attention", "gradient", "occlusion", "ig"]
lesson.dots(panels[0], "attribution", "deletion", "deletion area (less is better)", *order)
lesson.dots(panels[1], "attribution", "found", "both planted words first", *order)
panels[0].set(xlim=(0, 1))
panels[1].set(xlim=(-0.03, 1.03))
show(figure, "21_attribution")
lesson.folded("attribution", "IG1", "IG2", "IG3")

# %% [markdown]
# *Figure: a dot for each seed, a bar at the mean; each seed has tweets and two networks of its own.*
#
# **Observe.** *IG1 and IG3 supported, IG2 undecided.* IG1's whole interval lies below $-2$: with so few steps the
# curves are no lines, as section 3 saw. Integrated gradients beat a random order and gradient × input by far. Against
# occlusion the ten seeds cannot decide: the interval in the fold holds zero, and also, in favour of integrated
# gradients, nearly twice the smallest effect of interest. Undecided is not equal. Occlusion needs no gradient; but this
# test is its own tool. In the planted case the means of the two are close, and attention has the highest mean. These
# differences we did not test, and one seed makes much of them: there all methods but attention found nothing. An
# attribution explains what *its* network says, learned rule or not; this experiment did not record how well each
# network had learned the rule. (Some intervals of shares in the fold end above 1: the t interval does not know that a
# share cannot.) And mind the small print: all this is with the baseline `[PAD]`, which section 4 did not recommend.
#
# ## 7 Inside a decoder
#
# Attributions look at inputs. What happens in between? We need a model whose inner steps are known, so we make a task
# that has them. A *number* from 0 to 7 comes first, then three *steps*. A step is a table of the eight numbers, drawn
# by lot: no arithmetic helps. After each step the model says the number that it has now.

# %%
task = interventions.TableTask(seed=seed)
print("step 0 turns 0 … 7 into", task.tables[0])
print("input", task.items[0], "→ numbers", task.trail(task.items[0]))
held = len(task.items) // 5
test, train = task.items[:held][: run.budget.n_runs], task.items[held:]
decoder = small.small_decoder(task.vocabulary, width=64, layers=3, std=0.08, seed=seed)
training.train(
    decoder, task.examples(train), steps=run.budget.table_steps, learning_rate=1e-2, pad_id=0, batch_size=64
)
ids, numbers = task.tensors(test)
with torch.no_grad():
    said = decoder(input_ids=ids).logits.argmax(2) - 3
hits = (said == numbers).float().mean(0)[1:].tolist()
print("right after each step, on inputs never seen:", [f"{hit:.3f}" for hit in hits])

# %% [markdown]
# So it composes the steps. *Where* is the number after two steps? A hypothesis: what leaves layer 2 at the second step,
# $h^2_2$, carries it, and the third step reads it there. How could that be shown?

# %%
figure, axis = plotting.axes(width=5.8, height=3.0, dpi=85)
for row, name in ((0, "the run"), (5, "the donor")):
    for place, text in enumerate(("number", "step 1", "step 2", "step 3")):
        axis.text(row + place, -0.6, text, ha="center", fontsize=7)
        for layer in range(3):
            colour = plotting.COLOURS[1] if (layer, place) == (1, 2) else "white"
            axis.plot(row + place, layer, "s", markersize=20, mfc=colour, mec="black")
    axis.text(row + 1.5, 3.1, name, ha="center")
bent = {"arrowstyle": "->", "lw": 2, "connectionstyle": "arc3,rad=0.25"}
axis.annotate("", (2.3, 1.15), (6.7, 1.15), arrowprops=bent)
axis.annotate("answer?", (3, 2.3), (3.6, 2.9), fontsize=8, arrowprops={"arrowstyle": "<-"})
axis.set(xlim=(-0.8, 8.8), ylim=(-0.9, 3.5))
axis.axis("off")
show(figure, "21_exchange")

# %% [markdown]
# *Figure (a drawing): a square is what leaves a layer at a place. The donor's orange state replaces that of the run;
# all later computation goes on with it.*
#
# Take a second run, the *donor*, with another number after two steps. Put its state there, and nothing else. If the
# place carries the number, the answer must be the **donor's** number, taken through the **run's** last step. That is
# *activation patching*; with this demand on the answer, an *interchange intervention* (Geiger et al., 2021).


# %% tags=["defines:interventions.layer_outputs"]
@torch.no_grad()
def layer_outputs(net, ids):
    found = []
    hooks = [
        layer.register_forward_hook(lambda module, given, out: found.append(out.detach().clone()))
        for layer in net.model.layers
    ]
    try:
        net(input_ids=ids)
    finally:
        for hook in hooks:
            hook.remove()
    return found


# %% [markdown]
# A hook that stays in the model after an error would change every later answer, silently. Hence `finally`. The
# package's `patched` does the same for an exchange: `with patched(net, layer, place, states):`.

# %%
donors = random.Random(seed).sample(test, len(test))
other, _ = task.tensors(donors)
given = layer_outputs(decoder, other)
with torch.no_grad(), interventions.patched(decoder, 2, 2, given[1][:, 2]):
    moved = decoder(input_ids=ids).logits[:, -1].argmax(1) - 3
for n in range(3):
    want = task.follow(task.trail(donors[n])[2], test[n][3:])
    print(f"run {task.trail(test[n])}, donor {task.trail(donors[n])}: wanted {want}, says {moved[n].item()}")
with expect_error(ParameterError, match="layer is 4"), interventions.patched(decoder, 4, 2, given[1][:, 2]):
    pass

# %% [markdown]
# **Predict.** The same for each layer and place. Where does the answer follow the donor? Fill in a table of three rows
# and four columns, before you look.

# %%
shares = interventions.moved_shares(decoder, task, test, donors)
figure, axis = plotting.axes(width=4.6, height=2.6, dpi=85)
axis.imshow(shares, cmap="Oranges", vmin=0, vmax=1, origin="lower", aspect="auto")
for layer, line in enumerate(shares.tolist()):
    for place, share in enumerate(line):
        axis.text(
            place, layer, f"{share:.2f}", ha="center", va="center", color="white" if share > 0.6 else "black"
        )
axis.set_xticks(range(4), ["number", "step 1", "step 2", "step 3"])
axis.set_yticks(range(3), ["layer 1", "layer 2", "layer 3"])
axis.grid(False)
show(figure, "21_patching")
run.record(moved=shares[1, 2].item(), late=shares[1, 1].item())

# %% [markdown]
# *Figure: share of the answers that follow the donor, by layer and place; runs where the old answer would be right,
# too, are left out. A random answer would follow in about one run of eight; an answer that does not move counts 0.*
#
# **Observe.** A staircase: with each step, the place that moves the answer is one layer higher. In the top row the
# zeros stand by construction: after layer 3 only the last place is read. At layer 2, exchanging one of the first two
# places moves next to nothing, although layer 3 *could* read them. What they hold, this map does not say; the probe
# below asks. At the lower right, the answer becomes the donor's about as often as by chance. And at the place of our
# hypothesis most answers follow, not all: this decoder moves less than each of the ten in the experiment below.
#
# ### The lens and the probe
#
# Two cheaper looks are common. The *logit lens* sends a lower state through the last norm and the output layer. A
# *probe* is a linear classifier on the states. **Predict.** After layer 2 at the *first* step, can a probe read the
# number after that step? The heat map says what happens if you exchange the state there.

# %%
for layer, h in enumerate(layer_outputs(decoder, ids)):
    lens = decoder.lm_head(decoder.model.norm(h))
    hits = (lens.argmax(2) - 3 == numbers).float().mean(0)
    print(
        f"lens after layer {layer + 1}: right at steps 1, 2, 3", [f"{hit:.2f}" for hit in hits[1:].tolist()]
    )


# %%
def probed(place):
    """Accuracy of probes on what leaves layer 2 at ``place``: for the number there, and for labels drawn by lot."""
    kinds = sorted({item[: place + 1] for item in task.items})
    lots = dict(zip(kinds, random.Random(seed).choices(range(task.numbers), k=len(kinds)), strict=True))
    goals = {"number": lambda item: task.trail(item)[place], "control": lambda item: lots[item[: place + 1]]}
    h, new_h = (layer_outputs(decoder, task.tensors(part)[0])[1][:, place] for part in (train, test))
    h, new_h = ((x - h.mean(0)) / h.std(0) for x in (h, new_h))
    for name, goal in goals.items():
        own, there = (torch.tensor([goal(item) for item in part]) for part in (train, test))
        hit = labels.judged(labels.fit_logistic(h, own, 0.1), new_h, there)["accuracy"]
        print(
            f"step {place}, layer 2, {name:8s} probe right {hit:.2f}, exchange moves {shares[1, place]:.2f}"
        )


probed(1)
probed(2)

# %% [markdown]
# The *control* (Hewitt and Liang, 2019) gives each beginning a label by lot: nothing to find, only to memorise. The gap
# between probe and control is the *selectivity*.
#
# **Observe.** At the first step the number can be *read*, but so can labels drawn by lot: few beginnings, many
# dimensions. So this probe says that the state keeps the beginnings apart, and nothing about the number. That layer 3
# hardly *uses* what is there, the exchange says. At the second step the gap to the control is wide.
#
# ### Ten seeds
#
# The experiment `patching` has other tables for each seed. CA2: with the donor's state after layer 2 at the second
# step, more than half of the answers follow the donor; and if the donor reached the *same* number from another
# beginning, more than half stay. PB1: at the first step after layer 2, the probe's accuracy exceeds the share of moved
# answers by more than eighty points.

# %%
print("verdicts:", lesson.words("CA2", "PB1"))
lines = [line for line in lesson.results("patching") if line["method"] == "trained"]
titles = {"moved": "step 2: follows the donor", "same": "step 2, equal number: stays"}
titles |= {"late": "step 1: follows the donor", "probe": "step 1: probe", "control": "step 1: control"}
told = {title: [line[metric] for line in lines] for metric, title in titles.items()}
first = [line for line in lesson.results("patching") if line["method"] == "untrained"]
told |= {f"{titles[m]}, untrained": [line[m] for line in first] for m in ("late", "probe")}
figure, axis = plotting.axes(width=5.4, height=2.4, dpi=85)
plotting.dots(axis, told, "ten decoders, after layer 2")
axis.set(xlim=(-0.03, 1.03), ylim=(-0.5, len(told) - 0.5), xlabel="share of the runs")
show(figure, "21_decoders")
lesson.folded("patching", "CA2", "PB1")

# %% [markdown]
# *Figure: a dot for each seed, a bar at the mean.*
#
# **Observe.** *CA2 and PB1 supported.* In each of the ten decoders most answers follow the donor's state at this one
# place, and nearly all stay where the donor had the same number. So layer 3 takes the *number* from this place, and
# hardly the way in which it came about. A part of the way can still be *read* there: in the fold, the control probe at
# the second step, whose labels belong to whole beginnings, is far above one in eight. At the first step the probe is
# right in every decoder, and the exchange moves hardly an answer.
#
# The last two rows are the sanity check: networks that were **never trained**. The probe is right there, too. A random
# network keeps forty-eight beginnings apart, and a line finds them. The control had warned us. And the exchange moves
# hardly an answer of theirs either: they pass PB1 as a whole. What training has changed, the staircase shows: at the
# first step after layer *1*, the answers of trained decoders do follow the donor (see the fold).
#
# ## 8 Which word would have changed it?
#
# Back to tweets, and to the model that leans on *zorblat*. Section 1 exchanged a word and looked: an *intervention*. It
# breaks the tie between the word and everything that usually comes with it. For each tweet there are now two texts that
# differ in the cue alone. Their labels are equal, since we know that the cue means nothing. So they can be *taught*:
# **counterfactual data augmentation** (CDA; Kaushik et al., 2020, had people rewrite texts).
#
# A second repair needs no new text. Weight each training tweet so that under the weights the cue says nothing about the
# label:
#
# $$ w_i = \frac{1}{2 \, \hat P(\text{cue}_i \mid \text{label}_i)} . $$
#
# The rare tweets, in which the cue is wrong, count most.


# %% tags=["defines:interventions.weighted_losses"]
def weighted_losses(net, batch):
    rest = {name: tensor for name, tensor in batch.items() if name != "weight"}
    return target_losses(net, rest) * batch["weight"][:, 0]


# %%
target_losses, has = training.target_losses, [int(CUES[1] in w) for w in cued]
weights = interventions.balancing_weights(y, has)
for label in (0, 1):
    rows = [(w, cue) for w, c, cue in zip(weights, y, has, strict=True) if c == label]
    sums = [sum(w for w, cue in rows if cue == value) for value in (0, 1)]
    print(f"{tweets.labels[label]}: weight of the tweets with each cue", [f"{total:.1f}" for total in sums])

# %% [markdown]
# **Predict.** Four models: with the cue; with the cue on twice as many tweets; weighted; with counterfactuals. And the
# one that was trained without a cue. Which lose nothing when the cue is exchanged? Does more ordinary data help?

# %%
twice = tasks.subsample(tweets.splits["train"], 2 * run.budget.n_train, seed)
more_words = [augmentation.words_of(t)[:14] for t in twice["text"]]
more = encoded(interventions.plant_cues(more_words, twice["label"], 0.9, rng), twice["label"])
ready = encoded(cued, y)
nets = {"trained without cue": plain, "cue": leaning, "cue, twice the tweets": trained(more)}
heavy = [e | {"weight": [w]} for e, w in zip(ready, weights, strict=True)]
nets["cue, weighted"] = trained(heavy, weighted_losses)
nets["cue, counterfactuals"] = trained(ready + encoded([exchange_cue(w) for w in cued], y))
held_out = {"as in training": cued_new, "no cue": new, "exchanged": exchanged}
rows = {name: [right(net, sentences) for sentences in held_out.values()] for name, net in nets.items()}
for name, row in rows.items():
    print(f"{name:22s}", "  ".join(f"{k} {value:.3f}" for k, value in zip(held_out, row, strict=True)))

# %%
figure, axis = plotting.axes(width=5.4, height=3.0, dpi=85)
for index, kind in enumerate(held_out):
    at = [place + 0.25 * (index - 1) for place in range(len(rows))]
    axis.barh(
        at,
        [row[index] for row in rows.values()],
        0.22,
        label=f"cue {kind}" if index != 1 else kind,
        color=plotting.COLOURS[index],
    )
axis.axvline(max(mean(new_y), 1 - mean(new_y)), color="grey", ls=":")
axis.set_yticks(range(len(rows)), rows)
axis.set(xlabel="accuracy on new tweets", xlim=(0, 1))
figure.legend(fontsize=7, loc="outside right upper")
show(figure, "21_cue")

# %% [markdown]
# *Figure: accuracy of each model on the same tweets, with the cue as in training, without it, and exchanged. Dotted:
# the larger class. One seed; the experiment has ten.*
#
# **Observe.** With counterfactuals nothing is lost when the cue is exchanged. The weighted model loses less than the
# plain cue model. Twice the tweets lose more, not less, in this one seed.
#
# Now the ten seeds. *Flipped* is their word for *exchanged*: the nonsense word goes with the label in one tweet of ten,
# not nine. CA1: the model with the cue loses more than ten points where the cue is flipped, and counterfactuals come
# within three points of the model without a cue. CL1 is a sentence from the popular articles whose claims this course
# tests: causal learning gives more robust *and more universal* representations. Its opponent gets as many *ordinary*
# texts as CDA gets counterfactual ones. Universal means here: a new head on the tuned layer, on another field, product
# sentences. (The sentence's other half, about contrastive learning, is C17 in lesson 20.)

# %%
print("verdicts:", lesson.words("CA1", "CL1"))
figure, panels = plotting.axes(1, 3, width=2.7, height=2.6, dpi=85, sharey=True)
order = ["majority", "frozen", "shuffled", "clean", "spurious", "more", "weighted", "cda"]
for panel, (metric, title) in zip(
    panels,
    {"agree": "cue as in training", "accuracy": "cue flipped", "products": "products, new head"}.items(),
    strict=True,
):
    lesson.dots(panel, "spurious", metric, title, *order)
    panel.set(xlim=(0, 1))
show(figure, "21_spurious")
lesson.folded("spurious", "CA1", "CL1")

# %% [markdown]
# *Figure: accuracies; a dot for each seed, a bar at the mean. Each seed has tweets and product sentences of its own.
# "No cue" is the model trained without one. The majority class has no states to read, so no dot under products.*
#
# **Observe.** *CA1 supported, CL1 undecided.* Where the cue is flipped, the model that leans on it ends far below the
# larger class, and twice as many ordinary tweets do not save it. With counterfactuals it comes within three points of
# the model that never saw a cue. So CL1's first half, *robust*, holds in this world. Its second half, *universal*,
# stays open: on product sentences the interval of the difference reaches from below zero to more than three points.
# Against the same 300 tweets without counterfactuals the interval holds zero, too.
#
# Two things beside the verdicts. Where the cue still goes with the label, counterfactuals may even cost accuracy: the
# cue *is* a good hint there, and the repaired model does not take it. And the weights repaired only a part: about
# thirty tweets of three hundred have the wrong cue, and all the weight of that lesson rests on them. A weight makes
# rare texts louder, not more numerous.
#
# ## 9 A cause in a table
#
# Often nothing can be changed any more: there is a table of what happened. *Do polite reviews get more answers?*
# Somebody counts, and polite ones do. But praise is more often polite than complaints, and praise gets more answers
# anyway. The kind of review $Z$ is a *confounder*: it has an arrow to the treatment $T$ and to the outcome $Y$. We
# simulate, so the true effect is known: it is 1.


# %%
def difference(treated, outcome):
    t, y = array(treated, "treated"), array(outcome, "outcome")
    if t.shape != y.shape or not set(t.tolist()) <= {0, 1}:
        raise ParameterError("treated must hold 0 and 1, one for each outcome")
    if not 0 < t.sum() < len(t):
        raise ParameterError("one of the two groups is empty: there is nothing to compare")
    return float(y[t == 1].mean() - y[t == 0].mean())


# %%
def simulated(number, lot=False):
    """Praise Z, polite T, answers Y, shown on the front page C: arrays. ``lot``: politeness is drawn by lot."""
    draw = np.random.default_rng(number)
    Z = draw.integers(0, 2, run.budget.n_rows)
    T = (draw.random(len(Z)) < (0.5 if lot else np.where(Z == 1, 0.8, 0.2))).astype(int)
    Y = 1.0 * T + 3.0 * Z + draw.normal(size=len(Z))
    C = (T + 0.5 * Y + draw.normal(size=len(Z)) > 1.5).astype(int)
    return Z, T, Y, C


Z, T, Y, C = simulated(seed)
print(f"true effect 1, naive difference {difference(T, Y):.2f}")

# %% [markdown]
# Among reviews of one kind $Z$, politeness is drawn by lot in this world. The *back-door* formula (Pearl, 2009)
# averages these inner differences by the shares of $Z$ in **all** rows:
#
# $$ \sum_z P(Z = z) \, \big( E[Y \mid T = 1, z] - E[Y \mid T = 0, z] \big) . $$
#
# **Predict.** Let $C$ say whether the review was shown on the front page; polite and much-answered ones are. Six
# estimates: naive; adjusted for $Z$; for $C$; for $Z$ and $C$; and, where $T$ is drawn by lot for all, naive and
# adjusted for $C$. Which are near 1?


# %%
def back_door(T, Y, Z):
    shares = {z: float((Z == z).mean()) for z in sorted(set(Z.tolist()))}
    return sum(share * difference(T[Z == z], Y[Z == z]) for z, share in shares.items())


estimates = {}
for number in range(20):
    Z, T, Y, C = simulated(number)
    found = {"naive": difference(T, Y), "adjusted for Z": back_door(T, Y, Z)}
    found |= {"adjusted for C": back_door(T, Y, C), "adjusted for Z and C": back_door(T, Y, 2 * Z + C)}
    _, T, Y, C = simulated(number, lot=True)
    found["by lot, naive"] = difference(T, Y)
    found["by lot, adjusted for C"] = back_door(T, Y, C)
    for name, value in found.items():
        estimates.setdefault(name, []).append(value)
for name, found in estimates.items():
    print(f"{name:24s} mean {mean(found):+.2f}, from {min(found):+.2f} to {max(found):+.2f}")

# %%
figure, panels = plotting.axes(1, 2, width=3.9, height=2.6, dpi=85)
spots = {"Z": (1, 1.6), "T": (0, 0.6), "Y": (2, 0.6), "C": (1, -0.4)}
for a, b in ("ZT", "ZY", "TY", "TC", "YC"):
    panels[0].annotate(
        "", spots[b], spots[a], arrowprops={"arrowstyle": "->", "shrinkA": 12, "shrinkB": 12, "lw": 1.5}
    )
names = {"Z": "praise", "T": "polite", "Y": "answers", "C": "front page"}
for key, (a, b) in spots.items():
    panels[0].text(a, b, f"{key}\n{names[key]}", ha="center", va="center", fontsize=8)
panels[0].set(xlim=(-0.6, 2.6), ylim=(-0.9, 2.1))
panels[0].axis("off")
plotting.dots(panels[1], estimates, "estimates of an effect of 1")
panels[1].axvline(1, color="grey", ls=":")
panels[1].set(ylim=(-0.5, len(estimates) - 0.5))
show(figure, "21_backdoor")

# %% [markdown]
# *Figure: left, which quantity has an arrow to which. Right, each estimate on twenty simulated tables; dotted, the
# truth.*
#
# **Observe.** Adjusting for $Z$ repairs the first mistake; adjusting for $C$ as well makes a second one. $C$ is a
# *collider*: two arrows end in it. Among front-page reviews, the impolite ones have more answers than impolite reviews
# usually have: that got them there, and polite ones needed fewer. So looking inside a group of $C$ adds a second tie, a
# negative one, to the true effect, even where politeness was drawn by lot: the last row lies far below 1. Adjusted for
# $C$ alone, both mistakes are there and pull in opposite directions: nearer to 1 than naive, and still wrong. No number
# in the table says whether a quantity is a confounder or a collider. The arrows come from knowing how the data came
# about.
#
# What this has to do with text: section 8's weights do the formula's job by another road, *inverse propensity
# weighting*: $1 / \hat P(\text{cue} \mid \text{label})$, with the label in the place of $Z$. Filters are colliders:
# reviews that were published, chats that were rated, texts that passed a quality score. And topic, tone or politeness
# are often read off the text by a classifier. Its mistakes leave a part of the back door open (Feder et al., 2022).
#
# ## 10 What was shown, what was not

# %%
r = run.metrics
print(f"accuracy with the cue {r['cued']:.3f}, with the other cue {r['exchanged']:.3f}")
print(
    f"planted pair found: gradient × input {r['found_gradient']:.2f}, integrated gradients {r['found_ig']:.2f}"
)
print(f"exchange at step 2, layer 2: {r['moved']:.2f}; at step 1, layer 2: {r['late']:.2f}")
print("verdicts:", lesson.words("IG1", "IG2", "IG3", "CA1", "CA2", "CL1", "PB1"))

# %% [markdown]
# **What we have not shown.**
#
# - Nothing about large models. One layer of MiniLM and a decoder that was made to have inner steps.
# - One family of planted rules. Which method is best depends on model and rule: that is what Bastings et al. found.
# - The cue is known here, so it can be exchanged and weighted. The hard part of real work is to find it.
# - Deletion areas reward what they measure. They are no truth about reasons.
# - In the decoder one place was tested at a time. A value that is kept in several places at once needs several
#   exchanges at once.
# - What training does, by PB1 alone. PB1 is supported, but an untrained network passes it, too.
# - The arrows of section 9 are true because we wrote the simulation.
#
# **What should I set?**
#
# | you want | set | check |
# |---|---|---|
# | an attribution | captum: `n_steps=32`, `method="riemann_middle"` | `return_convergence_delta=True`, or sum the parts |
# | the target | log-odds, not a probability that has saturated | the score of the baseline is near 0 |
# | a baseline | one with a score near 0 (section 4: zeros); special tokens stay | a second baseline beside it |
# | words from tokens | sums | they add up to the same total |
# | a ranking to believe | deletion curve, and a random order | plant a word whose role you know |
# | attention maps | as a sketch of where a layer looks | set the queries to 0 and compare |
# | "the model knows X here" | probe **and** control task | exchange the state: does the answer follow? |
# | a place for a value | `register_forward_hook`, removed in `finally` | donors with the same value: the answer stays |
# | a cue away | counterfactuals, or weights if every pair of cue and label occurs | accuracy with the cue exchanged |
# | an effect from a table | strata of the confounders | nothing that comes *after* the treatment |
#
# **Recall.** Answer without scrolling.
#
# 1. Which two things does completeness set equal?
# 2. Why does gradient × input fail where a model is very sure?
# 3. A probe reads a value from a state. What is still open?
# 4. Why must the opponent of CDA get as many texts?
# 5. When does adjusting make an estimate worse?
#
# <details><summary>Answers</summary>
#
# 1. The sum of the attributions, and the score of the text minus that of the baseline.
# 2. The slope at the end is nearly 0 there, although the score changed on the way.
# 3. Whether anything later uses it; and what a control task would have given.
# 4. Otherwise a gain may come from more texts, not from counterfactual ones.
# 5. Where the quantity is a collider, or comes after the treatment.
#
# </details>
#
# **Exercises.** `notebooks/exercises/21_interpretability.py`; `make classroom` builds the student version.
#
# **References.**
#
# - Bastings, J., Ebert, S., Zablotskaia, P., Sandholm, A., and Filippova, K. (2022). "Will you find these shortcuts?" A
#   protocol for evaluating the faithfulness of input salience methods for text classification. *EMNLP 2022*.
#   arXiv:2111.07367.
# - Feder, A., et al. (2022). Causal inference in natural language processing: estimation, prediction, interpretation
#   and beyond. *TACL 10*. arXiv:2109.00725.
# - Geiger, A., Lu, H., Icard, T., and Potts, C. (2021). Causal abstractions of neural networks. *NeurIPS 2021*.
#   arXiv:2106.02997.
# - Hewitt, J., and Liang, P. (2019). Designing and interpreting probes with control tasks. *EMNLP-IJCNLP 2019*.
#   arXiv:1909.03368.
# - Jain, S., and Wallace, B. C. (2019). Attention is not explanation. *NAACL 2019*. arXiv:1902.10186.
# - Kaushik, D., Hovy, E., and Lipton, Z. C. (2020). Learning the difference that makes a difference with
#   counterfactually-augmented data. *ICLR 2020*. arXiv:1909.12434.
# - Pearl, J. (2009). *Causality: models, reasoning, and inference*, second edition. Cambridge University Press.
# - Sundararajan, M., Taly, A., and Yan, Q. (2017). Axiomatic attribution for deep networks. *ICML 2017*.
#   arXiv:1703.01365.
