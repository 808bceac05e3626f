# ---
# jupyter:
#   instructlab:
#     id: "19"
#     title: Robustness
#     outcome: attack a model in embedding space, with words and with characters, defend it, and test its behaviour honestly
#     assets: [minilm, smollm2, vader]
#     minutes: {smoke: 0.5, laptop: 2, gpu: 2}
#     class_minutes: 180
#     budget:
#       n_train: {smoke: 16, laptop: 200, gpu: 200}
#       steps: {smoke: 2, laptop: 60, gpu: 60}
#       batch_size: {smoke: 2, laptop: 8, gpu: 8}
#       n_fresh: {smoke: 4, laptop: 60, gpu: 200}
#       layers: {smoke: 1, laptop: 3, gpu: 6}
#       n_full: {smoke: 16, laptop: 800, gpu: 2000}
#       steps_full: {smoke: 2, laptop: 100, gpu: 200}
#       fillings: {smoke: 1, laptop: 6, gpu: 6}
#       n_wordings: {smoke: 1, laptop: 12, gpu: 60}
#       n_shift: {smoke: 4, laptop: 100, gpu: 300}
#       head_steps: {smoke: 2, laptop: 100, gpu: 300}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 19 Robustness
#
# **The question.** A model reads a review and says *positive*. Change one word, so that a person would say the same. Does
# the verdict flip?
#
# If it does, somebody can *search* for that word. This lesson builds two searches, inside a small ball around the
# embeddings and over words, and tries random changes of characters. It builds the defences that are sold against them
# (adversarial training: FGM, PGD, FreeLB), and compares them with two simple opponents: random noise, and simply more
# training. Then it asks a wider question. Accuracy on a test set is one number; which behaviour does it hide?
#
# | | |
# |---|---|
# | before this | lesson 03 (the loop), lesson 07 (overfitting, synonyms), lesson 12 (scoring with a decoder) |
# | time | smoke: under a minute · laptop: about two minutes on one core · gpu: not measured yet |
# | memory | under 2 GB |
# | model | MiniLM: its first layer, or three; SmolLM2-135M-Instruct for two looks |
# | data | tweets, rated negative or positive; sentences about films and products; our own behavioural tests |
# | box of lesson 00's chain | *score*: before you trust it |
#
# **You will be able to**
#
# - *build* FGM, PGD and FreeLB, and say what each norm, mask and restore is for;
# - *attack* a classifier with words, and count what the attack costs;
# - *judge* whether an attack kept the meaning, before believing its success;
# - *write* behavioural tests that a high accuracy does not pass by itself;
# - *prove* a small statement about all exchanges of words at once.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
seed: int = 0  # tweets, order, dropout, noise, fillings
radius: float = 0.03  # of the ball, as a share of the norm of a text's embeddings
share: float = 0.2  # of the words, at most, may an attack change

# %%
import functools
import itertools
import random
import tomllib
import unicodedata

import torch
from torch.nn import functional as F

from instructlab_repro import lesson
from instructlab_utils import (
    augmentation,
    checklist,
    expect_error,
    models,
    plotting,
    robustness,
    scoring,
    start,
    tasks,
    training,
)
from instructlab_utils.errors import ConfigError
from instructlab_utils.losses import cross_entropy
from instructlab_utils.project import find_root, text_of

run = start("19", profile=profile, seed=seed)
show = functools.partial(plotting.show, run)

# %% [markdown]
# ## 1 One word
#
# The model is small on purpose, so that we can attack it hundreds of times: word embeddings (frozen), the first layer of
# MiniLM, the mean over the tokens, a linear head. For tweets this is enough.

# %%
tokenizer, tweets = models.load_tokenizer("encoder"), tasks.load("tweet-sentiment")
learn = tasks.subsample(tweets.splits["train"], run.budget.n_train, seed)
fresh = tasks.subsample(tweets.splits["dev"], run.budget.n_fresh, seed)
examples, held_out = (training.encode(rows, tokenizer, 24) for rows in (learn, fresh))
labels = torch.tensor(fresh["label"])


def trained(objective=training.target_losses, layers=1, examples=examples, rate=1e-3, steps=run.budget.steps):
    net = robustness.ShortEncoder(layers=layers)
    how = {"steps": steps, "batch_size": run.budget.batch_size, "pad_id": 0, "seed": seed}
    training.train(net, examples, learning_rate=rate, objective=objective, **how)
    return net


plain = trained()
clean = (training.predict(plain, held_out, 0).argmax(1) == labels).float().mean().item()
print(f"{len(fresh)} new tweets: accuracy {clean:.3f}, the larger class {labels.float().mean():.3f}")

# %% [markdown]
# **Predict.** Five ways to say the same about a running skirt. Which verdicts stay?

# %%
read = checklist.reader(plain, tokenizer, 24)
same = [
    "found a great running skirt that is the perfect length .",
    "found a tremendous running skirt that is the perfect length .",
    "found a great running skirt that is the right length .",
    "found a great running skirt that is the perfet length .",
    "I found a great running skirt; it has the perfect length.",
]
p_same = read([augmentation.words_of(text) for text in same])[:, 1]
for text, p in zip(same, p_same.tolist(), strict=True):
    print(f"P(positive) = {p:.3f}  {text}")

# %% [markdown]
# **Observe.** The verdicts stay. But the probability moves although the meaning did not. Here we chose the
# words. Next, the gradient chooses a direction; after that, a search chooses the words.
#
# The letters of this lesson:
#
# | symbol | meaning |
# |---|---|
# | $x$ | the embedded text, one row for each of its tokens: $T \times d$ |
# | $m$ | mask: 1 at real tokens, 0 at padding |
# | $\delta, \epsilon$ | what is added to $x$; the radius, as a share of $\lVert x \rVert$ |
# | $L(x), g$ | loss of a text; its gradient with respect to $\delta$ |
# | $K, \alpha$ | steps of an attack; length of a step, in radii |
# | $p_y$ | probability of the right label |
# | $l, u$ | lower and upper bound of a box |
# | $\sigma, \Pi$ | logistic function; return to the nearest point of the ball |

# %%
figure, axis = plotting.axes(width=5.6, height=3.4, dpi=85)
angle, blue, orange = torch.linspace(0, 6.2832, 200), *plotting.COLOURS[:2]
axis.plot(angle.cos(), angle.sin(), color="black", linewidth=1)
axis.axvline(0.75, color="grey", linestyle="--")
path = [(0, 0), (0.35, 0.35), (0.72, 0.62), (0.93, 0.36)]
arrows = [(a, b, blue, "-") for a, b in itertools.pairwise(path)]
arrows += [((0, 0), (0.71, 0.71), orange, "-"), ((0, 0), (-0.5, 0.87), "grey", ":")]
for a, b, colour, line in arrows:
    axis.annotate("", b, a, arrowprops={"arrowstyle": "->", "color": colour, "lw": 2, "ls": line})
words_at = {"great": (0, 0), "tremendous": (-1.3, -0.6), "good": (-1.5, 0.6), "terrible": (1.9, -0.7)}
axis.plot(*zip(*words_at.values(), strict=True), "o", color="black", markersize=4)
notes = {word: (x - 0.2, y - 0.2) for word, (x, y) in words_at.items()}
notes |= {"FGM: one step": (0.05, 1.08), "PGD: K steps,\nback into the ball": (1.04, -0.3)}
notes |= {"noise": (-1.05, 0.95), "the model's border": (0.79, -1.25)}
for text, at in notes.items():
    axis.text(*at, text, fontsize=8)
axis.set(xlim=(-2, 2.6), ylim=(-1.4, 1.4), aspect="equal")
axis.axis("off")
show(figure, "19_ball")

# %% [markdown]
# *Figure (a drawing, not data; the words' places are invented): the ball is drawn for one word. In the code one ball
# holds all tokens of a text. An attack in embedding space stays inside and need not end on any word. An attack with words
# jumps from one dot to another, far outside the ball. Noise of the same norm seldom points at the border.*
#
# ## 2 One step: FGM
#
# We look for a small $\delta$ that makes the loss large. To first order $L(x + \delta) \approx L(x) + \langle g, \delta
# \rangle$, and among all $\delta$ of one norm the largest inner product is reached along $g$ (Cauchy–Schwarz). That is
# the *fast gradient method* (Miyato et al., 2017):
#
# $$ \delta = \epsilon \lVert x \rVert \, \frac{g}{\lVert g \rVert}, \qquad g = \nabla L(x) . $$
#
# Both norms are those of *one text*, over its real tokens. A norm over the whole batch gives most of the step to the text
# with the largest gradient; padding must not move, and must not count.


# %% tags=["defines:robustness.text_norms", "defines:robustness.scaled"]
def text_norms(x, mask):
    return (x * mask[..., None]).flatten(1).norm(dim=1)[:, None, None]


def scaled(direction, mask, size):
    norms = text_norms(direction, mask)
    return direction * mask[..., None] * (size / norms.clamp(min=1e-12))


# %% [markdown]
# The loss becomes a function of the embeddings. Dropout is a trap: two calls draw two masks, and the gradient would belong
# to another network than the loss. So each call starts the random numbers at one seed.


# %% tags=["defines:robustness.embedded_losses"]
def embedded_losses(net, batch):
    mask, labels = batch["attention_mask"], batch["labels"]
    x = net.get_input_embeddings()(batch["input_ids"]).detach()
    seed = int(torch.randint(2**31, (1,)))

    def losses(moved):
        torch.manual_seed(seed)
        return cross_entropy(net(inputs_embeds=moved, attention_mask=mask).logits, labels)

    return losses, x, mask


# %% tags=["defines:robustness.fgm_losses", "defines:robustness.noise_losses"]
def fgm_losses(radius, net, batch):
    losses, x, mask = embedded_losses(net, batch)
    delta = torch.zeros_like(x, requires_grad=True)
    clean = losses(x + delta)
    (g,) = torch.autograd.grad(clean.sum(), delta, retain_graph=True)
    return (clean + losses(x + scaled(g, mask, radius * text_norms(x, mask)))) / 2


def noise_losses(radius, net, batch):
    losses, x, mask = embedded_losses(net, batch)
    delta = scaled(torch.randn_like(x), mask, radius * text_norms(x, mask))
    return (losses(x) + losses(x + delta)) / 2


# %% [markdown]
# Both are *objectives* for lesson 03's loop: one loss for each text. `noise_losses` is the control: the same norm, the
# same two losses, no gradient. Training with FGM minimises the mean of the clean loss and the loss after the step.
#
# Check the step against a closed form. For a linear model with a logistic loss, $L = \ln(1 + e^{-s})$ with $s = \langle w,
# x \rangle$ and label $+1$, we have $g = -\sigma(-s)\, w$. So $\delta$ must be $-\epsilon \lVert x \rVert\, w / \lVert w
# \rVert$, whatever the size of the loss.

# %%
generator = torch.Generator().manual_seed(seed)
x, w = torch.randn(2, 1, 5, 3, generator=generator).double()
one = torch.ones(1, 5, dtype=torch.float64)
delta = torch.zeros_like(x, requires_grad=True)
loss = F.softplus(-(w * (x + delta)).sum())
(g,) = torch.autograd.grad(loss, delta)
ours = scaled(g, one, 0.1 * text_norms(x, one))
closed = -0.1 * x.norm() * w / w.norm()
print(
    f"from the closed form {(ours - closed).abs().max():.0e}, norm over radius {ours.norm() / x.norm():.6f}"
)

# %% [markdown]
# **Predict.** Four texts in a batch. The model is less sure of one of them, so its gradient is larger. With
# one norm for the whole batch, what share of the radius does each text get?

# %%
batch = training.collate(held_out[:4], 0)
losses, x, mask = embedded_losses(plain, batch)
delta = torch.zeros_like(x, requires_grad=True)
each = losses(x + delta)
(g,) = torch.autograd.grad(each.sum(), delta)
each_radius = text_norms(scaled(g, mask, text_norms(x, mask)), mask) / text_norms(x, mask)
together = text_norms(g / g.norm() * x.norm(), mask) / text_norms(x, mask)
print("loss           ", [f"{value:.3f}" for value in each.tolist()])
print("norm a text    ", [f"{value:.3f}" for value in each_radius.flatten().tolist()])
print("norm of a batch", [f"{value:.3f}" for value in together.flatten().tolist()])

# %% [markdown]
# **Observe.** With one norm for all, the text with the smallest loss hardly moves: training sees it nearly
# clean. The text with the largest loss moves far beyond the radius, although its verdict is right.
#
# Much code on the web attacks the *embedding table* instead: add a step to the weights, compute a second loss, take the
# step back. Then a word that occurs twice moves twice in the same way, and the norm is that of a whole table. It has one more
# trap. **Predict.** After `W += step` and `W -= step`, is `W` what it was?

# %%
W = plain.get_input_embeddings().weight.detach().clone()
kept, step = W.clone(), 0.01 * torch.randn(W.shape, generator=generator)
W += step
W -= step
print(f"taken back by subtraction: {(W != kept).float().mean():.1%} of the numbers differ from before")
W.copy_(kept)
print("taken back from a copy: equal bit for bit,", torch.equal(W, kept))

# %% [markdown]
# **Observe.** Rounding is not undone by the opposite rounding. Our functions never touch the table: they add $\delta$ to
# what was looked up.
#
# ## 3 Several steps: PGD and FreeLB
#
# The loss is not linear. *Projected gradient descent* (Madry et al., 2018) takes $K$ shorter steps, and after each returns
# to the nearest point of the ball:
#
# $$ \delta \leftarrow \Pi\!\left(\delta + \alpha\, \epsilon \lVert x \rVert \frac{g}{\lVert g \rVert}\right), \qquad
# \Pi(\delta) = \delta \cdot \min\!\left(1, \frac{\epsilon \lVert x \rVert}{\lVert \delta \rVert}\right) . $$


# %% tags=["defines:robustness.projected", "defines:robustness.pgd"]
def projected(delta, mask, size):
    norms = text_norms(delta, mask)
    return delta * mask[..., None] * (size / norms.clamp(min=1e-12)).clamp(max=1)


def pgd(losses, x, mask, radius, steps, step=0.5):
    size = radius * text_norms(x, mask)
    delta = torch.zeros_like(x)
    for _ in range(steps):
        delta.requires_grad_()
        (g,) = torch.autograd.grad(losses(x + delta).sum(), delta)
        delta = projected(delta.detach() + scaled(g, mask, step * size), mask, size)
    return delta


# %% [markdown]
# PGD throws away the gradients of the weights on its way. *FreeLB* (Zhu et al., 2020) uses them: it learns from the mean
# of the losses at all $K$ points. The gradient of a mean is the mean of the gradients, so one update has seen $K$ points,
# and dropout is the same at each.


# %% tags=["defines:robustness.pgd_losses", "defines:robustness.freelb_losses"]
def pgd_losses(radius, steps, net, batch):
    losses, x, mask = embedded_losses(net, batch)
    delta = pgd(losses, x, mask, radius, steps)
    return (losses(x) + losses(x + delta)) / 2


def freelb_losses(radius, steps, net, batch):
    losses, x, mask = embedded_losses(net, batch)
    size = radius * text_norms(x, mask)
    delta = scaled(torch.randn_like(x), mask, size * torch.rand_like(size))
    found = []
    for _ in range(steps):
        delta.requires_grad_()
        found.append(losses(x + delta))
        (g,) = torch.autograd.grad(found[-1].sum(), delta, retain_graph=True)
        delta = projected(delta.detach() + scaled(g, mask, 0.5 * size), mask, size)
    return torch.stack(found).mean(0)


# %% [markdown]
# How strong is each attack? **Predict.** Order them by the accuracy that they leave at the radius that was chosen above: a
# random step, one gradient step, five steps of PGD. And does a model that was trained with PGD withstand it?


# %%
def accuracy_in_ball(net, radius, steps, step=0.5):
    """Accuracy of ``net`` on the held-out tweets, moved by PGD; ``steps`` 0: moved at random."""
    batch = training.collate(held_out, 0)
    with models.evaluating(net):
        losses, x, mask = embedded_losses(net, batch)
        if steps:
            delta = pgd(losses, x, mask, radius, steps, step)
        else:
            noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
            delta = scaled(noise, mask, radius * text_norms(x, mask))
        with torch.no_grad():
            z = net(inputs_embeds=x + delta, attention_mask=mask).logits
    return (z.argmax(1) == batch["labels"]).float().mean().item()


# %%
hardened = trained(functools.partial(pgd_losses, radius, 3))
for name, net in {"plain": plain, "with PGD": hardened}.items():
    left = [accuracy_in_ball(net, radius, *how) for how in ((0,), (1, 1.0), (5,))]
    print(f"{name:8s} noise {left[0]:.3f}  FGM {left[1]:.3f}  PGD {left[2]:.3f}")

# %%
radii = [0.0, 0.01, 0.02, 0.03, 0.05]
attacks = {"noise": (0, 0.5), "FGM, one step": (1, 1.0), "PGD, five steps": (5, 0.5)}
figure, panels = plotting.axes(1, 2, width=3.6, height=3.0, dpi=85, sharey=True)
for panel, (name, net) in zip(panels, {"plain": plain, "trained with PGD": hardened}.items(), strict=True):
    for index, (attack, how) in enumerate(attacks.items()):
        values = [accuracy_in_ball(net, r, *how) for r in radii]
        panel.plot(radii, values, label=attack, **plotting.style(index))
    panel.axhline(max(labels.float().mean().item(), 1 - labels.float().mean().item()), color="grey", ls=":")
    panel.set(title=name, xlabel="radius, share of the text's norm", ylim=(0, 1))
panels[0].set(ylabel="accuracy")
panels[0].legend(fontsize=8)
show(figure, "19_radius")

# %% [markdown]
# *Figure: accuracy on new tweets against the radius. Dotted: the larger class. A model that is attacked falls below it,
# since the attack knows the label. One seed; the experiment has ten.*
#
# **Observe.** Noise changes next to nothing, at a radius at which gradients destroy the plain model. One step of FGM does
# nearly as much as five steps of PGD. The model trained with PGD loses less, but it starts lower, and at this radius it
# too falls below the larger class: it does not withstand the attack. In several hundred dimensions a random direction is
# almost at a right angle to the one that hurts.
#
# ## 4 What adversarial training buys
#
# The experiment `adversarial` trains this model in seven ways on 200 tweets, each with a rate of its own, tuned equally.
# The articles say that adversarial training raises robustness *and* prevents overfitting (claim C11). Plain training with
# as many updates gets less computing: FGM passes each batch forward twice. So the main opponent is plain training with
# *twice* the updates. It costs nearly as much as FGM. PGD and FreeLB cost about twice as much as this opponent (see the
# CPU seconds in the table): for them it is too weak. (The articles also name augmentation; lesson 07 measured synonyms
# under C12.) Two more claims. AT2: robustness in the ball does not help against words. AT3: noise of the same norm
# protects against words as well as FGM.
#
# **Predict** three words: supported, refuted or undecided?


# %%
print("verdicts:", lesson.words("C11", "AT2", "AT3"))
titles = {"accuracy": "clean", "embedded": "attack in the ball", "attacked": "attack with words"}
figure, panels = plotting.axes(1, 3, width=2.9, height=2.9, dpi=85, sharey=True)
for panel, (metric, title) in zip(panels, titles.items(), strict=True):
    lesson.dots(panel, "adversarial", metric, f"accuracy: {title}")
    panel.set(xlim=(0, 1))
show(figure, "19_adversarial")
lesson.folded("adversarial", "C11", "AT2", "AT3")

# %% [markdown]
# *Figure: a dot for each seed, a bar at the mean; each seed has tweets of its own.*
#
# **Observe.** *C11 supported, AT2 and AT3 refuted.* Against twice the updates, FGM keeps more tweets right when words are
# exchanged, and its gap between training and test accuracy is smaller. AT2 fails in the good direction: a model that was
# trained in the ball kept more tweets right when words were exchanged. Against plain training with as many updates the
# gain is smaller, because twice the updates made plain training weaker under this attack. Noise of the same norm did less
# than FGM.
#
# Read the small print under the claims before you buy it. Between FGM and plain training with *as many* updates, no
# difference in the gap can be seen: the small gap may come from the small number of updates, not from FGM. On clean
# tweets no gain can be told. And the tuned rates differ: twice the updates took a rate ten times smaller than FGM; plain
# training took the same rate as FGM, and under both attacks its accuracy lies between the two.
#
# There is a stranger row: the majority class, which no attack can move, lies where FGM lies in the right panel. **Predict.**
# Do the hardened models say *positive*, the larger class, more often? (This look was not planned: exploratory.)

# %%
print("                          says positive   right on positive   right on negative")
for method in ("plain", "twice", "noise", "fgm", "pgd", "freelb"):
    lines = [x for x in lesson.predictions("adversarial") if x["method"] == method]
    says, truth = (torch.tensor([x[key].tolist() for x in lines]) for key in ("predictions", "targets"))
    on_each = [(says == truth)[truth == y].float().mean().item() for y in (1, 0)]
    name = lesson.experiment("adversarial").labels[method]
    print(f"{name:26s} {says.float().mean():.3f}           {on_each[0]:.3f}               {on_each[1]:.3f}")

# %% [markdown]
# **Observe.** They do, and they lose on the negative tweets. A part of what looks like robustness is a lean towards the
# larger class. Report both classes, and the majority row *under attack*.
#
# ## 5 An attack with words
#
# Embeddings cannot be typed. A word can. Which words may replace *good*? The nearest in the embedding table, says the
# usual recipe. **Predict.** What is wrong with this list?

# %%
table = plain.get_input_embeddings().weight.detach()
vocabulary = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
asked = {"good", "hate", "yes", "spring", "willing", "film"}
near = augmentation.nearest_words(table, vocabulary, asked, 6)
signs, kept_words = checklist.polarity()
for word, others in near.items():
    left = [o for o in others if o not in kept_words and signs.get(o, 0) == signs.get(word, 0)]
    print(f"{word:8s} {', '.join(others):66s} left: {', '.join(left)}")

# %% [markdown]
# **Observe.** *Good* and *bad* are neighbours: they occur in the same places, and that is all the table knows. A list of
# positive and negative words (`data/suites/polarity.toml`, ours) removes such pairs. It does not know *willing* and
# *unwilling*, nor *spring* and *fall*. TextFooler (Jin et al., 2020) has the same problem, and answers it with special
# vectors and with thresholds.


# %% tags=["defines:robustness.synonyms"]
def synonyms(near, kept, polarity):
    found = {}
    for word, others in near.items():
        sign = polarity.get(word, 0)
        good = [o for o in others if o not in kept and polarity.get(o, 0) == sign]
        if word not in kept and good:
            found[word] = good
    return found


# %% [markdown]
# Next, the search. Step one asks which word matters: delete in turn each word that has neighbours, and see
# how far $p_y$, the probability of the right label, falls. Step two goes through the words in this order and tries all
# neighbours of a word. If one of them flips the verdict, the attack stops. If not, it keeps the exchange that hurts most.

# %%
read_words = [augmentation.words_of(text) for text in fresh["text"]]
near = checklist.neighbours(table, tokenizer, {w for words in read_words for w in words}, 6)
words, y = augmentation.words_of(same[0]), 1
near |= checklist.neighbours(table, tokenizer, set(words), 6)
p_y = read([words])[0, y].item()
places = [i for i, word in enumerate(words) if word in near]
without = read([words[:i] + words[i + 1 :] for i in places])[:, y]
for n in without.argsort().tolist():
    print(f"without {words[places[n]]:10s} p_y {p_y:.3f} → {without[n]:.3f}")

# %% [markdown]
# The package's `word_attack` is these two steps in a loop, with the counting. A *query* is one text that the model reads.
# We log all that it asks and draw the tree.

# %%
asked_of_model = []


def logged(sentences):
    p = read(sentences)
    asked_of_model.extend(zip(sentences, p[:, logged.label].tolist(), strict=True))
    return p


# %%
found = []
for words, y in zip(read_words, fresh["label"], strict=True):
    asked_of_model.clear()
    logged.label = y
    found.append(
        (robustness.word_attack(words, y, logged, near, share=share), words, y, list(asked_of_model))
    )
tried = [line for line in found if line[0].queries > 1]
done = [line for line in tried if line[0].flipped]
changed, words, y, tree = max(done or found, key=lambda line: (len(line[0].changed), line[0].queries))
print(f"{tweets.labels[y]}: {' '.join(words)}")
print(f"flipped {changed.flipped}, {changed.queries} queries: {' '.join(changed.words)}")

# %%
figure, axis = plotting.axes(width=6.4, height=3.0, dpi=85)
depths = [sum(a != b for a, b in zip(s, words, strict=True)) if len(s) == len(words) else -1 for s, _ in tree]
for depth in range(-1, max(depths) + 1):
    at = [i for i, d in enumerate(depths) if d == depth]
    name = "a word deleted" if depth < 0 else f"words exchanged: {depth}"
    axis.plot(at, [tree[i][1] for i in at], label=name, **plotting.style(depth + 1) | {"linestyle": ""})
for i, (sentence, p) in enumerate(tree):  # each child hangs on the best of those one step above
    parents = [j for j in range(i) if depths[j] == depths[i] - 1 and depths[i] > 0]
    chosen = [j for j in parents if sum(a != b for a, b in zip(tree[j][0], sentence, strict=True)) == 1]
    if chosen:
        axis.plot([chosen[-1], i], [tree[chosen[-1]][1], p], color="grey", linewidth=0.6, zorder=0)
axis.axhline(0.5, color="black", linestyle="--", linewidth=1)
axis.set(xlabel="query", ylabel="probability of the right label", ylim=(0, 1))
figure.legend(fontsize=7, loc="outside right upper")
show(figure, "19_search")

# %% [markdown]
# *Figure: one attack as a tree. Each dot is a query. First each word that has neighbours is deleted once. Then each
# candidate is joined by a line to the text that it was made from. Below the dashed line the verdict is wrong.*

# %%
attacked = sum(not line[0].flipped for line in found) / len(found)
queries = sorted(line[0].queries for line in tried)
print(f"accuracy: clean {clean:.3f}, under the attack with words {attacked:.3f}")
if queries:
    print(f"queries a tweet: median {queries[len(queries) // 2]}, most {queries[-1]}")
harder = checklist.reader(hardened, tokenizer, 24)
again = [
    robustness.word_attack(w, y, harder, near, share=share)
    for w, y in zip(read_words, fresh["label"], strict=True)
]
print(
    f"trained with PGD: accuracy under the same attack {sum(not a.flipped for a in again) / len(again):.3f}"
)
run.record(clean=clean, attacked=attacked)

# %% [markdown]
# ### Did the attack keep the meaning?
#
# A success is worth nothing if a person would change the verdict too. We kept fifty successful attacks of this kind and
# judged them, by one rule: *the meaning is kept if a reader would report the same facts (who, what, when, how many) and
# the same feeling*. A broken ending is forgiven. **The judge was the author of this course, a language model**, not a
# person, and knew that these were attacks. **Predict.** How many of fifty kept the meaning?

# %%
audit = tomllib.loads(text_of(find_root() / "data" / "suites" / "audit.toml"))["attack"]
texts = {row["id"]: augmentation.words_of(row["text"]) for row in tweets.splits["dev"]}


def exchanged(attack):
    words = list(texts[attack["id"]])
    for i, new in attack["swaps"].items():
        words[int(i)] = new
    return words


# %%
for n in (3, 23, 41, 4, 14, 15):
    swaps = [f"{texts[audit[n]['id']][int(i)]} → {new}" for i, new in audit[n]["swaps"].items()]
    print(
        "kept" if audit[n]["kept"] else "not kept",
        "|",
        ", ".join(swaps),
        "|",
        " ".join(exchanged(audit[n]))[:70],
    )
kept, grammar = (sum(attack[name] for attack in audit) for name in ("kept", "grammar"))
print(f"of {len(audit)} attacks: meaning kept in {kept}, no new error of grammar in {grammar}")

# %% [markdown]
# So here, with no limit on similarity, *success* counts mostly texts that say something else. Morris et al. (2020) let people
# judge two published attacks, and found the same: they often change the meaning, and bring in errors of grammar. Can a
# program tell which? The usual answer is a threshold on the cosine of two sentence embeddings. Here they are the means of
# MiniLM's last layer.

# %%
encoder = models.load_encoder()
similar = checklist.similarity(encoder, tokenizer, 64)
cosine = torch.tensor([similar(texts[a["id"]], [exchanged(a)])[0] for a in audit])
is_kept = torch.tensor([a["kept"] for a in audit])
above = (cosine[is_kept][:, None] > cosine[~is_kept]).float().mean().item()
print(f"a kept one is more similar than one that is not in {above:.0%} of pairs")
for threshold in (0.95, 0.98):
    passed = cosine >= threshold
    print(
        f"at {threshold}: {int(passed.sum())} of 50 pass, {int((passed & is_kept).sum())} of them kept the meaning"
    )

# %%
figure, axis = plotting.axes(width=5.6, height=2.2, dpi=85)
plotting.dots(
    axis, {"kept": cosine[is_kept].tolist(), "not kept": cosine[~is_kept].tolist()}, "judged meaning"
)
for threshold in (0.95, 0.98):
    axis.axvline(threshold, color="grey", linestyle="--", linewidth=1)
axis.set(xlabel="cosine of the two tweets")
show(figure, "19_audit")

# %% [markdown]
# *Figure: each dot is one of the fifty attacks. Dashed: two thresholds.*
#
# **Observe.** The threshold helps a little and does not decide. Even above the stricter one some texts have lost their
# meaning, and below both many have kept it. A reported success rate without its threshold, and without an audit, says
# little.
#
# ## 6 What accuracy hides
#
# An attack looks for the worst. A *behavioural test* asks for one ability at a time (CheckList, Ribeiro et al., 2020):
#
# - **MFT**, minimum functionality: simple texts whose label is beyond doubt;
# - **INV**, invariance: a change that must not matter (another name, a typo);
# - **DIR**, direction: a change after which a probability must not move the wrong way.
#
# A suite is a file of templates. Ours has fourteen capabilities for sentiment and six for question answering. The runner
# refuses a malformed suite with one sentence.

# %%
suite = checklist.load("data/suites/sentiment.toml")
filled = checklist.cases(suite, run.budget.fillings)
for case in filled[:: max(1, len(filled) // 7)]:
    print(f"{case.test.capability:18s} {case.test.type}  {case.text}  {case.double or '→ ' + case.label}")
broken = run.out / "broken.toml"
broken.write_text(
    'name = "x"\nlabels = ["a", "b"]\n[[tests]]\ncapability = "c"\ntype = "MFT"\ntemplate = "{thinge}"\nlabel = "a"\n'
)
with expect_error(ConfigError, match="has no list of words"):
    checklist.load(broken)

# %% [markdown]
# The examinee has three layers of MiniLM now and has read more tweets. By its accuracy alone, many people
# would use it. **Predict.** Which rows of the matrix are darkest?

# %%
more = training.encode(tasks.subsample(tweets.splits["train"], run.budget.n_full, seed), tokenizer, 24)
full = trained(layers=run.budget.layers, examples=more, rate=3e-4, steps=run.budget.steps_full)
right = (training.predict(full, held_out, 0).argmax(1) == labels).float().mean().item()
failed = checklist.failures(suite, filled, checklist.by_text(checklist.reader(full, tokenizer, 24)))
rates = checklist.rates(filled, failed)
print(f"accuracy on new tweets {right:.3f}; failures of negation {rates['negation', 'MFT']:.3f}")
for case, fails in zip(filled, failed, strict=True):
    if fails and case.test.capability in ("negation", "condition"):
        print("fails:", case.text, "→", case.label)
        break

# %%
capabilities, types = list(dict.fromkeys(c for c, _ in rates)), ["MFT", "INV", "DIR"]
grid = torch.tensor([[rates.get((c, t), float("nan")) for t in types] for c in capabilities])
figure, axis = plotting.axes(width=4.6, height=4.2, dpi=85)
axis.imshow(grid, cmap="Oranges", vmin=0, vmax=1, aspect="auto")
for i, line in enumerate(grid.tolist()):
    for j, rate in enumerate(line):
        if rate == rate:  # not nan
            axis.text(
                j, i, f"{100 * rate:.0f}", ha="center", va="center", color="white" if rate > 0.5 else "black"
            )
axis.set_xticks(range(3), types)
axis.set_yticks(range(len(capabilities)), capabilities, fontsize=8)
axis.set(title="failures, %")
axis.grid(False)
show(figure, "19_checklist")

# %% [markdown]
# *Figure: capability by type of test. A number is the share of cases that fail; an empty cell has no test. One model.*
#
# The experiment `behaviour` repeats this on ten seeds, each with its own tweets and its own fillings. CK1: the model is
# right on more than `0.85` of the tweets and fails more than `0.3` of the negations. One row of the experiment has seen
# seventy-eight negations in training. TF2 is about section 5: with a strict similarity, the attack succeeds at least fifteen
# points less often.

# %%
print("verdicts:", lesson.words("CK1", "TF2"))
figure, panels = plotting.axes(1, 4, width=2.4, height=2.5, dpi=85)
for panel, (metric, title) in zip(
    panels[:3],
    {
        "accuracy": "test accuracy",
        "fails_negation": "negation fails",
        "fails_negation_at_the_end": "at the end",
    }.items(),
    strict=True,
):
    lesson.dots(panel, "behaviour", metric, title, "plain", "negations")
    panel.set(xlim=(-0.03, 1.03))
lesson.dots(panels[3], "behaviour", "success", "attack succeeds", "any", "s95", "s98")
panels[3].set(xlim=(-0.03, 1.03))
show(figure, "19_behaviour")
lesson.folded("behaviour", "CK1", "TF2")

# %% [markdown]
# *Figure: a dot for each seed, a bar at the mean. In the first panel more is better. In the second and third less is
# better: they show failed negations, inside the sentence and at its end. In the last, less means a weaker attack.*
#
# **Observe.** *CK1 supported, TF2 undecided.* The model is right on about nine of ten tweets, and fails about nine of ten
# negations. It seems to judge mostly by single words: a good word usually makes a text positive, even after *not*. The
# row with negations in training shows two more things. The failures of these templates become much rarer, on fillings
# that were never read; but a negation at the end of the sentence still fails mostly. And the *test accuracy* of the two
# cannot be told apart: the test set does not see what was mended.
#
# TF2: the attack succeeds less often under the strict similarity, without doubt. Whether by fifteen points or more cannot
# be told: the interval just reaches across the threshold. A success rate without its threshold still says little.
#
# **Question answering.** The same runner, another examinee: the decoder reads a passage and chooses one of two answers by
# their log-probabilities (lesson 12). **Predict.** Which of the six capabilities does it have?

# %%
decoder, decoder_tokenizer = models.load_decoder(), models.load_tokenizer("decoder")


def chosen_by_decoder(texts, options):
    scored = scoring.option_log_probs(decoder, decoder_tokenizer, texts, options)
    return [line.log_probs.softmax(0).tolist() for line in scored]


questions = checklist.load("data/suites/qa.toml")
qa = checklist.cases(questions, max(1, run.budget.fillings - 2))
qa_rates = checklist.rates(qa, checklist.failures(questions, qa, chosen_by_decoder))
for (capability, kind), rate in qa_rates.items():
    print(f"{capability:24s} {kind}  fails {rate:.2f}")

# %% [markdown]
# **Observe.** Where two answers are offered and both stand in the passage, a coin fails half of the MFTs. Compare with that,
# not with zero. An INV test can be passed by always saying the first: it measures steadiness, not truth.
#
# ## 7 Characters
#
# **Predict.** Three changes that a person hardly sees: a typo, capitals, one word in Cyrillic look-alikes. Which one does
# an *uncased* tokenizer never notice?

# %%
for text in (
    "wonderful day",
    "WONDERFUL DAY",
    "wodnerful day",
    robustness.lookalike("wonderful day", random.Random(1)),
):
    print(f"{text:14s} {tokenizer.tokenize(text)}")
for name, change in checklist.CHANGES.items():
    rows = [{"text": change(r["text"], random.Random(r["id"])), "label": r["label"]} for r in fresh]
    z = training.predict(full, training.encode(rows, tokenizer, 24), 0)
    print(f"{name:10s} accuracy {(z.argmax(1) == labels).float().mean():.3f}, without {right:.3f}")


# %% [markdown]
# A typo breaks a word into pieces; look-alikes break it into even smaller pieces. One random change in a tweet does little on
# average. An attacker does not choose at random. For look-alikes there is a cheap guard: a word that mixes alphabets.
# **Predict.** Which of the three texts below does it miss?


# %%
def mixed_scripts(text):
    """The words of a text whose letters come from more than one alphabet."""
    alphabets = lambda word: {unicodedata.name(c).split()[0] for c in word if c.isalpha()}  # noqa: E731
    return [word for word in text.split() if len(alphabets(word)) > 1]


for text in ("wоndеrful day", "café Москва day", "а wonderful day"):
    print(text, "→", mixed_scripts(text))

# %% [markdown]
# **Observe.** The last text begins with a Cyrillic letter that is a word by itself. No word mixes alphabets, so the guard is
# silent. A guard must look at the neighbours too (exercise 19.2).
#
# ## 8 The same instruction in other words
#
# For a decoder the *instruction* is part of the input, so its wording is one more thing that should not matter. **Predict.**
# Five wordings of one request, the same tweets. On how many tweets do all five agree?

# %%
wordings = [
    "Is the tweet positive or negative?",
    "Decide whether this tweet sounds positive or negative.",
    "What is the sentiment of the message, positive or negative?",
    "Classify the text as positive or negative.",
    "Tell me if the writer feels negative or positive.",
]
some, answers = fresh.select(range(run.budget.n_wordings)), [" negative", " positive"]
chosen = []
for wording in wordings:
    contexts = [f"{wording}\nTweet: {text}\nAnswer:" for text in [*some["text"], "N/A"]]
    scored = scoring.option_log_probs(decoder, decoder_tokenizer, contexts, [answers] * len(contexts))
    chosen.append([scoring.choose(s, "pmi", scored[-1]) for s in scored[:-1]])
    hits = sum(a == b for a, b in zip(chosen[-1], some["label"], strict=True))
    print(f"{hits:2d} of {len(some)} right: {wording}")
agree = sum(len(set(column)) == 1 for column in zip(*chosen, strict=True))
print(f"all five wordings agree on {agree} of {len(some)} tweets")

# %% [markdown]
# **Observe.** No wording is clearly better than a coin on these few tweets, so with these prompts the model
# hardly does the task; and the wordings disagree on many of them. Report both: the mean accuracy, and the share on which
# all agree. (How much *kinds* of wording matter is C5, in lesson 14.)
#
# ## 9 Other texts: shift
#
# Nobody attacks here. The model was trained on tweets, and now reads films and products. **Predict.** Accuracy falls. Does
# the model's confidence fall with it?

# %%
domains = {"tweets": "tweet-sentiment", "products": "product-sentiment", "films": "movie-sentiment"}
curves = {}
for name, task in domains.items():
    rows = tasks.subsample(tasks.load(task).splits["dev"], run.budget.n_shift, seed)
    p = training.predict(full, training.encode(rows, tokenizer, 24), 0).softmax(1)
    hits = (p.argmax(1) == torch.tensor(rows["label"])).float()
    curves[name] = (p.amax(1), hits)
    print(f"{name:9s} accuracy {hits.mean():.3f}, mean confidence {p.amax(1).mean():.3f}")

# %%
figure, axis = plotting.axes(width=4.2, height=3.2, dpi=85)
for index, (name, (confidence, hits)) in enumerate(curves.items()):
    order = confidence.argsort()
    parts = [part for part in order.tensor_split(5) if len(part)]
    points = [(confidence[part].mean().item(), hits[part].mean().item()) for part in parts]
    axis.plot(*zip(*points, strict=True), label=name, **plotting.style(index))
axis.plot([0.5, 1], [0.5, 1], color="grey", linestyle=":")
axis.set(
    xlabel="mean confidence of a fifth of the texts", ylabel="accuracy", xlim=(0.5, 1.01), ylim=(0, 1.05)
)
axis.legend(fontsize=8)
show(figure, "19_shift")

# %% [markdown]
# *Figure: texts in five groups by confidence; on the dotted line a model would be as right as it is sure. Below it, it
# believes too much. Beside CK1 stand the same numbers for ten seeds: on tweets the model is as right as it is sure, on
# films it is far too sure.*
#
# **Observe.** The confidence falls a little, the accuracy much more. A temperature fitted on tweets (lesson 07) would not
# solve this: it has not seen the films.
#
# ## 10 A number that is proved
#
# An attack that fails proves nothing: the next one may succeed. For a small model one can prove a statement about *all*
# exchanges at once. Let the model be a head on the mean of the word embeddings: linear, ReLU, linear. From here on $w$ is
# the embedding of a word. Each word may be exchanged for any word of its set $S(w)$ (itself and its neighbours), and all
# words may change at once; words that are not in the vocabulary are left out. After the first linear layer, a hidden unit
# is a mean over words, so its smallest value is the mean of each word's smallest value:
#
# $$ l = \frac{1}{T} \sum_{i} \min_{w' \in S(w_i)} (W_1 w' + b_1), \qquad u \text{: the same with } \max . $$
#
# The box $[l, u]$ then passes through the other layers. With centre $c = (l + u) / 2$ and half-width $r = (u - l) / 2$:
#
# $$ \text{ReLU: } l' = \max(0, l), \; u' = \max(0, u) ; \qquad \text{linear: } c' = W c + b, \; r' = |W|\, r . $$
#
# This is *interval bound propagation* (for words: Jia et al., 2019). For one hidden unit the bound is exact. For several it
# is only safe: it forgets that one text cannot be worst for all units.


# %%
def word_box(h, A):
    """h (V, k + 1, m): a word's hidden values, then its neighbours'; A (N, V): shares of the words. l, u and the mean."""
    return A @ h.amin(1), A @ h.amax(1), A @ h[:, 0]


def through(layer, l, u):
    """The bounds after ReLU and a linear layer."""
    l, u = l.clamp(min=0), u.clamp(min=0)
    c, r = (l + u) / 2, (u - l) / 2
    c, r = layer(c), r @ layer.weight.abs().T
    return c - r, c + r


# %% [markdown]
# The last number is positive for *positive*; a text is *certified* if its whole interval has the right sign. We train on
# a weighted sum of the clean loss and the loss at the worst end. **Predict.** Put in order: clean accuracy, accuracy
# under a hundred random exchanges, the share that is certified.

# %%
number, k = {word: i for i, word in enumerate(vocabulary)}, 2
many = tasks.subsample(tweets.splits["train"], 5 * run.budget.n_train, seed)
sentences = [
    [[w for w in augmentation.words_of(text) if w in number] or ["[UNK]"] for text in rows["text"]]
    for rows in (many, fresh)
]
known_words = sorted({word for part in sentences for words in part for word in words})
near = checklist.neighbours(table, tokenizer, set(known_words), k)
sets = torch.tensor([[number[o] for o in [w, *near.get(w, []), *[w] * k][: k + 1]] for w in known_words])
place = {word: i for i, word in enumerate(known_words)}
shares = [torch.zeros(len(part), len(known_words)) for part in sentences]
for A, part in zip(shares, sentences, strict=True):
    for n, words in enumerate(part):
        A[n].index_add_(0, torch.tensor([place[w] for w in words]), torch.full((len(words),), 1 / len(words)))
signs_of = [torch.tensor(rows["label"]) * 2.0 - 1 for rows in (many, fresh)]


# %%
def bounds(layers, A):
    l, u, z = word_box(layers[0](table[sets]), A)
    low, high = through(layers[1], l, u)
    return low.squeeze(1), high.squeeze(1), layers[1](z.relu()).squeeze(1)


def certified_head(weight):
    torch.manual_seed(seed)
    layers = torch.nn.ModuleList([torch.nn.Linear(table.shape[1], 16), torch.nn.Linear(16, 1)])
    optimizer, y = torch.optim.AdamW(layers.parameters(), lr=3e-2), signs_of[0]
    for step in range(run.budget.head_steps):
        now = weight * min(1, 2 * step / run.budget.head_steps)
        low, high, z = bounds(layers, shares[0])
        worst = torch.where(y > 0, low, -high)
        loss = ((1 - now) * F.softplus(-y * z) + now * F.softplus(-worst)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return layers


# %%
@torch.no_grad()
def told(layers):
    """Share right, share right under the worst of 100 random exchanges, share certified."""
    low, high, z = bounds(layers, shares[1])
    y, h, sampled = signs_of[1], layers[0](table[sets]), []
    sure, generator = torch.where(y > 0, low, -high) > 0, torch.Generator().manual_seed(seed)
    for words, sign in zip(sentences[1], y, strict=True):
        rows = torch.tensor([place[w] for w in words]).expand(100, -1)
        drawn = h[rows, torch.randint(k + 1, rows.shape, generator=generator)].mean(1)
        sampled.append((sign * layers[1](drawn.relu()) > 0).all())
    sampled = torch.stack(sampled)
    assert not (sure & ~sampled).any(), "a certified text was flipped: the proof is wrong"
    return [share.float().mean().item() for share in (y * z > 0, sampled, sure)]


# %%
curve = {weight: told(certified_head(weight)) for weight in (0.0, 0.2, 0.5, 0.8)}
for weight, (clean_head, sampled, sure) in curve.items():
    print(
        f"weight {weight}: right {clean_head:.3f}, under 100 random exchanges {sampled:.3f}, certified {sure:.3f}"
    )
run.record(certified=max(line[2] for line in curve.values()))

# %%
figure, axis = plotting.axes(width=4.4, height=3.0, dpi=85)
for index, name in enumerate(("clean", "worst of 100 random exchanges", "certified")):
    axis.plot(list(curve), [line[index] for line in curve.values()], label=name, **plotting.style(index))
axis.axhline(max(labels.float().mean().item(), 1 - labels.float().mean().item()), color="grey", linestyle=":")
axis.set(xlabel="weight of the worst case in training", ylabel="share of new tweets", ylim=(0, 1))
axis.legend(fontsize=8)
show(figure, "19_certified")

# %% [markdown]
# *Figure: the truth about the worst exchange lies between the two lower curves. Dotted: the larger class.*
#
# **Observe.** Certified is never above the other two: a certified text cannot be flipped by any draw (the cell would have
# stopped). Training on the worst end raises what can be proved, and in this run it costs no clean accuracy. Beware of the
# cheapest certificate: a head that always says the larger class is certified on the dotted line.
#
# ## 11 What was shown, what was not

# %%
r = run.metrics
print(f"one layer, new tweets: right {r['clean']:.3f}, under the attack with words {r['attacked']:.3f}")
print("verdicts:", lesson.words("C11", "AT2", "AT3", "CK1", "TF2"))
print(
    f"meaning kept in {kept} of {len(audit)} successful attacks; negation fails in {rates['negation', 'MFT']:.0%}"
)

# %% [markdown]
# **What we have not shown.**
#
# - Nothing about large encoders: one layer of MiniLM, or three, and few tweets. Published gains of adversarial training are
#   about larger models and full data sets.
# - One radius. A larger one kept the model at the larger class in a pilot; a smaller one changes less.
# - The attack does not know the defence beyond its answers. An attack that adapts is stronger.
# - Fifty attacks, one judge, who is a language model. Templates by the same author.
#
# **What should I set?**
#
# | you want | set | check |
# |---|---|---|
# | robustness to small moves | `fgm_losses`; PGD if it pays | noise of the same norm, twice the updates |
# | the radius | a share of each text's own norm; begin at `0.01` | training loss falls below that of the larger class |
# | the norm | for each text, over real tokens | padding stays at 0 |
# | embeddings back after a step in the table | from a copy, or never touch the table | `torch.equal` |
# | FreeLB | one dropout mask for all points | the gradient is the mean of the points' |
# | a word attack | share of words, neighbours, similarity threshold, queries | audit fifty successes before reporting |
# | an honest table of attacks | both classes apart | the majority class *under attack* |
# | abilities that matter | a suite of MFT, INV and DIR tests | with each release, beside accuracy |
# | user text from the web | fold spellings, refuse words of mixed alphabets | tokens of an attacked word |
# | a guarantee | small head, boxes, worst case in the loss | certified ≤ attacked ≤ clean |
#
# With a library: `textattack` has the attacks and constraints of section 5, `checklist` that of section 6; both
# download their resources.
#
# **Recall.** Answer without scrolling.
#
# 1. Why does noise of the norm of FGM's step do so little?
# 2. What goes wrong with one gradient norm for a whole batch?
# 3. Why is "twice the updates" the fair opponent of FGM?
# 4. An attack succeeds on nine texts of ten. What must you ask before you believe it?
# 5. Which is larger: certified accuracy, or accuracy under the best attack known?
#
# <details><summary>Answers</summary>
#
# 1. In many dimensions a random direction is almost orthogonal to the gradient, so to first order the loss stays.
# 2. Texts with a small loss hardly move, those with a large one leave the ball.
# 3. FGM passes each batch forward twice, and back even more often. With equal updates it would get more than twice the
#    computing.
# 4. How many words, which similarity, and whether a person would give the old label to the new text.
# 5. The accuracy under an attack. It is an upper bound of the truth, the certificate a lower one.
#
# </details>
#
# **Exercises.** `notebooks/exercises/19_robustness.py`; `make classroom` builds the student version.
#
# **References.**
#
# - Jia, R., Raghunathan, A., Göksel, K., and Liang, P. (2019). Certified robustness to adversarial word substitutions.
#   *EMNLP-IJCNLP 2019*.
# - Jin, D., Jin, Z., Zhou, J. T., and Szolovits, P. (2020). Is BERT really robust? A strong baseline for natural language
#   attack on text classification and entailment. *AAAI 2020*. arXiv:1907.11932.
# - Madry, A., et al. (2018). Towards deep learning models resistant to adversarial attacks. *ICLR 2018*.
# - Miyato, T., Dai, A. M., and Goodfellow, I. (2017). Adversarial training methods for semi-supervised text
#   classification. *ICLR 2017*. arXiv:1605.07725.
# - Morris, J. X., et al. (2020). Reevaluating adversarial examples in natural language. *Findings of EMNLP 2020*.
# - Ribeiro, M. T., Wu, T., Guestrin, C., and Singh, S. (2020). Beyond accuracy: behavioral testing of NLP models with
#   CheckList. *ACL 2020*. arXiv:2005.04118.
# - Zhu, C., et al. (2020). FreeLB: enhanced adversarial training for natural language understanding. *ICLR 2020*.
#   arXiv:1909.11764.
