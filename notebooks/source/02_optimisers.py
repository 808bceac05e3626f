# ---
# jupyter:
#   instructlab:
#     id: "02"
#     title: Optimisers and schedules
#     outcome: write the usual optimisers and schedules by hand, and choose a learning rate for a method
#     assets: [minilm, vader]
#     minutes: {smoke: 0.5, laptop: 2, gpu: 2}
#     class_minutes: 180
#     budget:
#       n_train: {smoke: 32, laptop: 200, gpu: 200}
#       finder_steps: {smoke: 4, laptop: 40, gpu: 100}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 02 Optimisers and schedules
#
# **The promise.** Lesson 01 gave you a gradient. This lesson turns it into a step. You write SGD, momentum, Adam, AdamW
# and Adafactor by hand, each in a few lines, and each equal to the library's to the last digits. You see where one
# formula "for all optimisers" is wrong. You learn why Adam's first steps are dangerous, what warm-up and clipping do about
# it, and how to find a learning rate on a real encoder. At the end a grid of runs answers a question that every
# beginner asks: *which rate do I start with?*
#
# | | |
# |---|---|
# | before this | lesson 01 (risk and gradient), Python, a little PyTorch |
# | time | smoke: under a minute · laptop: about two minutes on one core · gpu: not measured yet |
# | memory | under 2 GB |
# | model | MiniLM, 6 layers (`all-MiniLM-L6-v2`), pinned, offline |
# | data | movie-review sentences, each rated by people (Hutto and Gilbert, 2014) |
# | box of lesson 00's chain | *learn from the score*: lesson 01 gave the direction, this lesson the step |
#
# **You will be able to**
#
# - *write* five optimisers from their papers, and *prove* them equal to the library's;
# - *derive* where a penalty in the loss and decay of the weights agree, and *show* where they do not;
# - *predict* the size of Adam's steps: the first one, one without bias correction, one after a strange batch;
# - *explain* warm-up from the noise of the first steps;
# - *find* a learning rate with few updates, and *say* what the curve cannot tell.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
seed: int = 0  # training sentences, head, LoRA's and the prompt's first values, noise of the toys
model: str = ""  # a folder or hub name instead of the pinned encoder
finder_steps: int = 0  # updates of the rate finder; 0 takes the profile's number

# %%
import math
from collections import Counter
from functools import partial

import numpy as np
import torch

from instructlab_utils import intervals, models, plotting, start, tasks, training
from instructlab_utils.losses import cross_entropy

run = start("02", profile=profile, seed=seed)
finder_steps = finder_steps or run.budget.finder_steps
f64 = torch.float64

# %% [markdown]
# ## 1 One formula for everybody
#
# One of the source articles prints a single update, and says that stochastic gradient descent, Adam and others work
# this way:
#
# $$ \theta \;\leftarrow\; \theta - \eta \, \nabla \mathcal L(\theta) - \eta \lambda \, \theta. $$
#
# | symbol | meaning |
# |---|---|
# | $\theta$ | the parameters; $\theta_i$ is one of them |
# | $g$ | the gradient $\nabla \mathcal L(\theta)$ of lesson 01, on one batch |
# | $\eta$ | the learning rate (the papers also write $\alpha$, $\epsilon$ or `lr`) |
# | $\lambda$ | the strength of the weight decay |
# | $t$ | the number of the update, from 1 |
#
# For one of the optimisers below the formula is exactly right. For another it is right in spirit only. Find out which.
#
# All of them get the same interface here: a function that changes $\theta$ in place. What it must remember between
# two updates goes into a dictionary.
#
# SGD (Robbins and Monro, 1951) remembers nothing. **Momentum** (Polyak, 1964) keeps a *velocity* $v$, a decaying sum of
# the past gradients:
#
# $$ v \leftarrow \mu v + g, \qquad \theta \leftarrow \theta - \eta v. $$


# %%
def sgd(theta, g, state, eta):
    """Robbins and Monro (1951)."""
    theta -= eta * g


def momentum(theta, g, state, eta, mu=0.9):
    """Polyak's heavy ball, in torch's form."""
    v = state["v"] = mu * state.get("v", 0.0) + g
    theta -= eta * v


# %% [markdown]
# **Predict.** The gradient is 1 for ever, $\eta = 1$, $\mu = 0.9$. How long is the first step, and how long is a late one?

# %% tags=["nbval-check-output"]
theta, state = torch.zeros(1, dtype=f64), {}
for t in range(1, 101):
    before = theta.clone()
    momentum(theta, torch.ones(1, dtype=f64), state, eta=1.0)
    if t in (1, 2, 10, 100):
        print(f"step {t:3d}: length {(before - theta).item():.3f}")

# %% [markdown]
# **Observe.** The sum of $1 + \mu + \mu^2 + \dots$ is $1 / (1 - \mu)$, here ten. Where gradients keep their direction,
# whoever switches momentum on and keeps the rate has in truth multiplied the rate by ten.
#
# There is a second form. Sutskever et al. (2013) put the rate *into* the velocity: $v \leftarrow \mu v - \eta g$, then
# $\theta \leftarrow \theta + v$. With a constant rate both walk the same path. With a schedule they do not.
#
# **Predict.** After fifty updates the rate drops to zero. Which of the two stops at once?

# %% tags=["nbval-check-output"]
mu, g = 0.9, 1.0
theta_torch = theta_paper = v_torch = v_paper = 0.0
for t in range(1, 101):
    eta = 1.0 if t <= 50 else 0.0
    v_torch, v_paper = mu * v_torch + g, mu * v_paper - eta * g
    theta_torch, theta_paper = theta_torch - eta * v_torch, theta_paper + v_paper
    if t in (50, 51, 100):
        print(f"after {t:3d} updates: torch's form {theta_torch:8.2f}, Sutskever's {theta_paper:8.2f}")

# %% [markdown]
# **Observe.** torch's form obeys the schedule at once. The other coasts on, because its velocity remembers old rates.
# Two programs that say "SGD with momentum" may not be the same program.
#
# ## 2 Adam
#
# Adam (Kingma and Ba, 2015) keeps two running averages: $m$ of the gradient, $v$ of its square (not the velocity of
# section 1; the papers reuse the letter). All operations are per coordinate.
#
# $$ m_t = \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 . $$
#
# Both start at zero, so early they are too small. By how much? Unroll the recursion:
# $m_t = (1 - \beta_1) \sum_{i=1}^{t} \beta_1^{t-i} g_i$. If every $g_i$ has the mean $\bar g$, then $m_t$ has the mean
# $(1 - \beta_1^t) \, \bar g$. So divide:
#
# $$ \hat m_t = \frac{m_t}{1 - \beta_1^t}, \qquad \hat v_t = \frac{v_t}{1 - \beta_2^t}, \qquad
# \theta_t = \theta_{t-1} - \eta \, \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon}. $$


# %%
def adam(theta, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8):
    """Kingma and Ba (2015), algorithm 1."""
    t = state["t"] = state.get("t", 0) + 1
    m = state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * g
    v = state["v"] = beta2 * state.get("v", 0.0) + (1 - beta2) * g**2
    m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
    theta -= eta * m_hat / (v_hat.sqrt() + eps)


# %% [markdown]
# **Predict.** Four weights have the gradients $1000$, $1$, $-0.001$ and $0$. The rate is $\eta = 0.01$. How far does each
# move in the *first* update?

# %% tags=["nbval-check-output"]
theta = torch.zeros(4, dtype=f64)
adam(theta, torch.tensor([1000.0, 1.0, -0.001, 0.0], dtype=f64), {}, eta=0.01)
print("first step:", ", ".join(f"{x:+.5f}" for x in theta))

# %% [markdown]
# **Observe.** At $t = 1$ we have $\hat m = g$ and $\hat v = g^2$. So the step is $-\eta \, g / (|g| + \epsilon)$: its
# size is $\eta$, whatever the gradient. Only the sign is used. The unit of $\eta$ is therefore that of a *weight*, not
# of a gradient. Remember this for section 9.
#
# ### 2.1 Without the correction
#
# **Predict.** Somebody forgets to divide by $1 - \beta^t$. The averages are then too small. Are the first steps too short
# or too long?

# %% tags=["nbval-check-output"]
for t in (1, 2, 5, 12, 100, 1000, 5000):
    factor = (1 - 0.9**t) / math.sqrt(1 - 0.999**t)
    print(f"update {t:4d}: {factor:5.2f} times as long as it should be")

# %% [markdown]
# **Observe.** Too *long*. Both averages are too small, but $v$ fills more slowly, and it stands in the denominator. The
# error lasts for a thousand updates, longer than many fine-tuning runs. Nothing crashes.
#
# ### 2.2 What is epsilon for?
#
# $\epsilon$ looks like a guard against division by zero. Look at a real model. One batch of film sentences, one gradient.

# %%
corpus = tasks.load("movie-sentiment")
rows = tasks.subsample(corpus.splits["train"], run.budget.n_train, seed)
tokenizer = models.load_tokenizer("encoder", model)
train_set = training.encode(rows, tokenizer, 64)
batch = training.move(training.collate(train_set[:16], tokenizer.pad_token_id), run.device)


def loss_of(net, batch):
    """Mean cross-entropy over the batch, a scalar."""
    logits = net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return cross_entropy(logits, batch["labels"]).mean()


net = models.load_classifier(2, seed=seed, model=model).to(run.device)
loss_of(net, batch).backward()

# %% [markdown]
# Now the length of Adam's first step for some groups of weights, in units of $\eta$, with the usual $\epsilon$ and with
# one that is practically zero. **Predict.** It is one nearly everywhere. In which group could it be otherwise?

# %%
groups = {"words": "bert.embeddings.word_embeddings.weight", "classifier": "classifier.weight"}
for part in ("query.weight", "query.bias", "key.weight", "key.bias"):
    groups[f"layer 3, {part}"] = f"bert.encoder.layer.3.attention.self.{part}"
print("weights                median |g|   eps = 1e-8   eps = 1e-16")
for label, name in groups.items():
    g = net.get_parameter(name).grad.double().cpu()
    g = g[g != 0]
    steps = []
    for eps in (1e-8, 1e-16):
        moved = torch.zeros_like(g)
        adam(moved, g, {}, eta=1.0, eps=eps)
        steps.append(moved.abs().median().item())
    print(f"{label:22s} {g.abs().median():10.0e} {steps[0]:12.3f} {steps[1]:13.3f}")
    run.record(**{f"first_step_{label.split()[-1].replace('.', '_')}": steps[0]})
del net

# %% [markdown]
# **Observe.** The bias of the *keys* is different. The attention scores of a query are $q \cdot (k_j + b)$ for all
# positions $j$. The term $q \cdot b$ is the same for every $j$, and softmax ignores a common shift (lesson 01). So this
# gradient is zero in theory. What we see is rounding noise. Without $\epsilon$, Adam blows it up to full steps. With
# $\epsilon$ the weight stays where it is. So $\epsilon$ says: *a gradient far below this size is noise.*
#
# The same number must survive the arithmetic. In half precision it does not:

# %% tags=["nbval-check-output"]
unseen = torch.zeros(1, dtype=torch.float16)  # the gradient of a word that is not in the batch
eps = torch.tensor(1e-8, dtype=torch.float16)
print("eps in float16:", eps.item(), " step of an unseen word:", (unseen / (unseen.sqrt() + eps)).item())

# %% [markdown]
# This is one reason why optimisers keep their state in 32 bits.
#
# ## 3 A valley, seen from above
#
# Take the simplest landscape with one difficulty: $\mathcal L(\theta) = \tfrac12 \theta^\top H \theta$ with the
# curvatures $1$ (flat) and $\kappa = 30$ (steep). Along an axis with the curvature $h$, SGD multiplies the coordinate by
# $1 - \eta h$ in each step. It shrinks only if $|1 - \eta h| < 1$, hence
#
# $$ \eta < \frac{2}{h_{\max}}, \qquad \text{while the flat axis needs about } \frac{1}{\eta \, h_{\min}} \text{ steps.} $$
#
# The steep direction limits the rate, and the flat one pays for it.

# %%
kappa = 30.0


def path(step, steps, angle=0, **knobs):
    """Points (steps + 1, 2) in the axes of the valley, which is turned by `angle` degrees against the coordinates."""
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    Q = torch.tensor([[c, -s], [s, c]], dtype=f64)
    H = Q @ torch.diag(torch.tensor([1.0, kappa], dtype=f64)) @ Q.T
    theta, state, points = Q @ torch.tensor([-4.0, 1.0], dtype=f64), {}, []
    for _ in range(steps + 1):
        points.append(Q.T @ theta)
        step(theta, H @ theta, state, **knobs)
    return torch.stack(points)


# %% [markdown]
# **Predict.** Draw four paths from the left end of the valley to its middle: SGD just below the limit, SGD just above it,
# momentum, Adam. Which one has half of the flat way behind it first?

# %%
walks = {
    "SGD, below the limit": path(sgd, 60, eta=1.9 / kappa),
    "SGD, above the limit": path(sgd, 22, eta=2.03 / kappa),
    "momentum": path(momentum, 60, eta=1 / kappa, mu=0.7),
    "Adam": path(adam, 60, eta=0.1),
}
figure, panels = plotting.axes(2, 2, width=4.4, height=2.1, sharex=True, sharey=True, dpi=75)
x, y = np.meshgrid(np.linspace(-4.6, 2, 80), np.linspace(-2.2, 2.2, 60))
for index, (panel, (name, points)) in enumerate(zip(panels.flat, walks.items(), strict=True)):
    panel.contour(x, y, 0.5 * (x**2 + kappa * y**2), levels=[1, 4, 10, 20, 40], colors="0.8")
    panel.plot(*points.T, **(plotting.style(index) | {"linestyle": "-", "markersize": 3}), linewidth=1)
    panel.plot(0, 0, "k+", markersize=10)
    panel.set(title=name, xlim=(-4.6, 2), ylim=(-2.2, 2.2))
figure.supxlabel("flat direction", fontsize=10)
figure.supylabel("steep direction", fontsize=10)
plotting.show(run, figure, "02_valley")
for name, points in walks.items():
    half = (points[:, 0].abs() < 2).int()
    print(
        f"{name:21s} half of the flat way is done after {int(half.argmax()) if half.any() else 'no'} updates"
    )

# %% [markdown]
# **Observe.** Just below the limit SGD jumps from wall to wall. Just above it, it leaves. Momentum swings, and gets
# further along the flat axis. Adam divides each coordinate by its own gradient size, so both move equally fast at first:
# a diagonal.
#
# Adam works per *coordinate*. Here the valley runs along one. **Predict.** Turn the valley by 45 degrees. Who needs more
# steps now?


# %% tags=["nbval-check-output"]
def needed(step, angle, **knobs):
    """The first update after which the loss is below a ten-thousandth of its start."""
    points = path(step, 2000, angle, **knobs)
    loss = 0.5 * (points[:, 0] ** 2 + kappa * points[:, 1] ** 2)
    done = loss < 1e-4 * loss[0]
    assert done.any(), "2,000 updates did not suffice"
    return int(done.int().argmax())


methods = [("SGD", sgd, {"eta": 1.9 / kappa}), ("momentum", momentum, {"eta": 1 / kappa, "mu": 0.7})]
methods += [("Adam", adam, {"eta": 0.05})]
for name, step, knobs in methods:
    print(
        f"{name:9s} along the axes {needed(step, 0, **knobs):4d} steps, turned {needed(step, 45, **knobs):4d}"
    )

# %% [markdown]
# **Observe.** SGD and momentum do not notice the turn: their steps turn with the valley. Adam does. It is not "SGD with
# better rates", but another geometry, tied to the coordinates that the model happens to have.
#
# ## 4 Two kinds of decay
#
# Back to the article's formula. A penalty $\tfrac\lambda2 \lVert\theta\rVert^2$ in the loss has the gradient
# $\lambda\theta$. We take it in three ways, as in lesson 01: by this formula, by autograd, and by finite differences.

# %%
lam = 0.05
theta = torch.randn(4, dtype=f64, generator=torch.Generator().manual_seed(seed), requires_grad=True)


def penalty(theta):
    return lam / 2 * (theta**2).sum()


closed = lam * theta.detach()
(auto,) = torch.autograd.grad(penalty(theta), theta)
h = 1e-5 * torch.eye(4, dtype=f64)
finite = torch.stack([(penalty(theta + e) - penalty(theta - e)).detach() / 2e-5 for e in h])
assert closed.shape == auto.shape == finite.shape
worst = max((closed - auto).abs().max().item(), (closed - finite).abs().max().item())
assert worst < 1e-9
print(f"largest difference between closed form, autograd and finite differences: {worst:.0e}")

# %% [markdown]
# Put it into SGD: $\theta - \eta (g + \lambda\theta) = \theta - \eta g - \eta\lambda\theta$. That *is* the article's
# formula. For SGD the two are one.
#
# Put it into Adam, and $\lambda\theta$ goes through both averages. It is divided by $\sqrt{\hat v}$, which the gradient
# of the *loss* dominates. A weight with large gradients then hardly decays. Loshchilov and Hutter (2019) therefore take
# the decay out of the gradient, and call the result **AdamW**: *decoupled* weight decay.


# %%
def adamw(theta, g, state, eta, lam=0.01, **knobs):
    """Loshchilov and Hutter (2019), algorithm 2, with torch's convention: the decay is eta times lam."""
    theta -= eta * lam * theta
    adam(theta, g, state, eta, **knobs)


def with_l2(step, lam):
    """The penalty stands in the loss: its gradient is added to g."""
    return lambda theta, g, state, **knobs: step(theta, g + lam * theta, state, **knobs)


def decoupled_sgd(theta, g, state, eta, lam):
    theta -= eta * lam * theta
    sgd(theta, g, state, eta)


# %% [markdown]
# **Broken visibly.** Two coordinates, a steep one ($h = 100$) and a flat one ($h = 0.01$). Both want to be at one:
# $\mathcal L = \tfrac12 \sum_i h_i (\theta_i - 1)^2$. The decay pulls towards zero with $\lambda = 0.05$. Where the
# penalised loss has its minimum, $h (\theta - 1) + \lambda \theta = 0$, so $\theta = h / (h + \lambda)$.
#
# **Predict.** Compute the two numbers. Then: which of the four rows ends there, and where does AdamW end?

# %% tags=["nbval-check-output"]
h = torch.tensor([100.0, 0.01], dtype=f64)
rules = {
    "SGD, L2 in the loss": with_l2(sgd, lam),
    "SGD, decoupled": partial(decoupled_sgd, lam=lam),
    "Adam, L2 in the loss": with_l2(adam, lam),
    "AdamW": partial(adamw, lam=lam),
}
ends = {}
for name, step in rules.items():
    theta, state = torch.zeros(2, dtype=f64), {}
    for _ in range(8000):
        step(theta, h * (theta - 1), state, eta=0.01)
    ends[name] = theta
    print(f"{name:21s} steep {theta[0]:.4f}   flat {theta[1]:.4f}")
print(f"{'h / (h + lam)':21s} steep {(h / (h + lam))[0]:.4f}   flat {(h / (h + lam))[1]:.4f}")
assert torch.allclose(ends["SGD, L2 in the loss"], ends["SGD, decoupled"], atol=1e-12)

# %% [markdown]
# **Observe.** The two SGDs agree. Adam with L2 goes to the same minimum, on another way. AdamW goes elsewhere: no
# $\lambda$ in the loss would give this pair. Its decay pulls with $\eta\lambda|\theta|$ per step, and Adam pushes with up
# to $\eta$ as soon as the gradient points *consistently* one way, however small it is. The flat coordinate wins.
#
# Does that make AdamW the wrong one? Real gradients are mostly noise. So let a weight have *no* preference at all: its
# gradient is pure noise, and decay should make it small. A loud weight (noise of size ten) and a quiet one (a tenth).
#
# **Predict.** Under which rule do the two shrink equally?

# %%
for name in ("Adam, L2 in the loss", "AdamW"):
    left = []
    for loudness in (10.0, 0.1):
        generator = torch.Generator().manual_seed(seed)
        theta, state = torch.ones(20_000, dtype=f64), {}
        for _ in range(300):
            g = loudness * torch.randn(20_000, generator=generator, dtype=f64)
            rules[name](theta, g, state, eta=1e-3)
        left.append(theta.mean().item())
    print(f"{name:21s} of 1 there is left: loud weight {left[0]:.3f}, quiet weight {left[1]:.3f}")
    key = "adamw" if name == "AdamW" else "adam_l2"
    run.record(**{f"{key}_loud": left[0], f"{key}_quiet": left[1]})
print(f"(1 - eta lam)^300 = {(1 - 1e-3 * lam) ** 300:.3f}")

# %% [markdown]
# **Observe.** With L2 in the loss, the noise of a weight decides how much it decays: the loud one hardly at all, the
# quiet one far too fast. With AdamW the decay is $(1 - \eta\lambda)^t$ for everybody. That is the reason for the W. So the
# article's formula is right for SGD, right in spirit for AdamW, and wrong for Adam.
#
# ### 4.1 How much is $\lambda = 0.01$?
#
# In torch the decay of one update is $\eta_t \lambda$ (the paper multiplies only by the schedule's factor). After
# a run, what is left of a weight without gradient is about $\exp(-\lambda \sum_t \eta_t)$. Lesson 03 meets a trap here: the
# articles' `AdamW` came from transformers with $\lambda = 0$, and today's replacement from torch has $\lambda = 0.01$.
#
# **Predict.** Does the swap matter for a thousand updates at `2e-5`?

# %% tags=["nbval-check-output"]
print("updates   rate   lambda   left of a weight without gradient")
for updates, rate, strength in [(1000, 2e-5, 0.01), (1000, 1e-2, 0.01), (100_000, 1e-3, 0.1)]:
    print(f"{updates:7d}  {rate:.0e}  {strength:6.2f}   {math.exp(-strength * updates * rate):.4f}")

# %% [markdown]
# **Observe.** In fine-tuning with a small rate it changes next to nothing (first row). In a long run hardly anything of such
# a weight is left (last row). A decay cannot be judged without the sum of its rates.
#
# ## 5 Adafactor: a second moment that fits
#
# Adam stores two numbers per weight. For a matrix $X \in \mathbb R^{n \times m}$, Adafactor (Shazeer and Stern, 2018)
# stores only the row sums $R$ and the column sums $C$ of the averaged squares, and rebuilds
#
# $$ \hat V_{ij} = \frac{R_i \, C_j}{\sum_k R_k} . $$
#
# This matrix has the right row sums and the right column sums, and it is exact if the true one has rank one. There is
# no first moment. The average is over $\hat\beta_{2t} = 1 - t^{-0.8}$, which is zero at $t = 1$: no bias to correct.
# Finally the *update* is clipped, not the gradient: its root mean square may be at most $d$.


# %%
def rms(x):
    return x.square().mean().sqrt()


def adafactor(X, G, state, alpha, d=1.0, eps1=1e-30):
    """Shazeer and Stern (2018), algorithms 4 (matrices) and 5 (vectors), with a rate alpha given from outside."""
    t = state["t"] = state.get("t", 0) + 1
    beta2 = 1 - t**-0.8
    square = G**2 + eps1
    if G.ndim < 2:
        V = state["V"] = beta2 * state.get("V", 0.0) + (1 - beta2) * square
    else:
        R = state["R"] = beta2 * state.get("R", 0.0) + (1 - beta2) * square.sum(1)
        C = state["C"] = beta2 * state.get("C", 0.0) + (1 - beta2) * square.sum(0)
        V = torch.outer(R, C) / R.sum()
    U = G / V.sqrt()
    X -= alpha * U / max(1.0, rms(U) / d)


# %%
generator = torch.Generator().manual_seed(seed)
G = torch.randn(4, 3, generator=generator, dtype=f64)
state = {}
adafactor(torch.zeros(4, 3, dtype=f64), G, state, alpha=0.1)
V_hat = torch.outer(state["R"], state["C"]) / state["R"].sum()
rows_right = (V_hat.sum(1) - (G**2).sum(1)).abs().max().item()
columns_right = (V_hat.sum(0) - (G**2).sum(0)).abs().max().item()
assert max(rows_right, columns_right) < 1e-12
print(f"row and column sums off by {max(rows_right, columns_right):.0e}; "
      f"entries off by up to {(V_hat - G**2).abs().max():.1f}")  # fmt: skip

shapes = [p.shape for p in models.load_encoder(model=model).parameters()]
two_moments = 2 * sum(math.prod(shape) for shape in shapes)
factored = sum(sum(shape) for shape in shapes)
print(
    f"state for MiniLM in MB of float32: Adam {4 * two_moments / 2**20:.0f}, Adafactor {4 * factored / 2**20:.1f}"
)
run.record(adam_state_mb=4 * two_moments / 2**20, adafactor_state_mb=4 * factored / 2**20)

# %% [markdown]
# **Observe.** The sums are right, single entries are not. The state shrinks to almost nothing. (Our variant is the one
# that people use for fine-tuning: no relative step, no scaling by the parameter's size, no first moment, no decay.)

# %% [markdown]
# ### 5.1 Muon: one length for every direction
#
# Adam looks at each weight alone. But a weight *matrix* is a map, and its gradient $G = U\, \mathrm{diag}(\sigma)\, V^\top$
# has directions. A few $\sigma_i$ are large, and they decide the step. Muon (Jordan et al., 2024) steps along
# $U V^\top$: every direction gets the same length. A singular value decomposition in every update is dear. Five rounds
# of a polynomial come close:
#
# $$ X \leftarrow a X + \big( b\, S + c\, S^2 \big) X, \qquad S = X X^\top . $$
#
# $X$ and $S X$ have the same $U$ and $V$, so each round only sends every $\sigma$ to $a \sigma + b \sigma^3 + c \sigma^5$.
#
# **Predict.** The singular values of a gradient run from one down to a thousandth. Which of them are near one after
# five rounds: all, the large half, or the largest few?


# %%
def newton_schulz(G, rounds=5, a=3.4445, b=-4.7750, c=2.0315):
    """About U V' of G."""
    X = G.T if G.shape[0] > G.shape[1] else G
    X = X / X.norm().clamp(min=1e-7)
    for _ in range(rounds):
        S = X @ X.T
        bS_cSS = torch.addmm(S, S, S, beta=b, alpha=c)  # b S + c S S, rounded once
        X = torch.addmm(X, bS_cSS, X, beta=a)
    return X.T if G.shape[0] > G.shape[1] else X


# %%
generator = torch.Generator().manual_seed(seed)
U, V = (torch.linalg.qr(torch.randn(40, 40, generator=generator, dtype=f64))[0] for _ in range(2))
G = U @ torch.diag(torch.logspace(0, -3, 40, dtype=f64)) @ V.T
figure, panel = plotting.axes(width=5.5, height=2.6, dpi=85)
for index, rounds in enumerate((0, 1, 3, 5)):
    sigma = torch.linalg.svdvals(newton_schulz(G, rounds))
    panel.semilogy(
        range(1, 41), sigma, plotting.LINES[index], color=plotting.COLOURS[index], label=f"{rounds} rounds"
    )
panel.set(xlabel="direction, the strongest first", ylabel="singular value", title="Newton and Schulz at work")
panel.legend(fontsize=8)
plotting.show(run, figure, "02_muon")
print(
    f"after five rounds: {sigma.min():.3f} to {sigma.max():.3f}; above one half: {(sigma > 0.5).sum()} of 40"
)

# %% [markdown]
# **Observe.** Each round lifts small values about threefold, and the large ones hover around one. The weakest
# directions need more rounds than five: look at the right end of the lowest curve. The polynomial does not converge to
# one. It was chosen to be fast, not exact.
#
# The rest is Nesterov's momentum and a factor for tall matrices. Muon is for the matrices of hidden layers. Embeddings,
# heads, gains and biases stay with AdamW. It stores one number per weight, half of Adam's.


# %%
def muon(X, G, state, eta, mu=0.95):
    state["m"] = mu * state.get("m", 0.0) + (1 - mu) * G
    direction = newton_schulz(((1 - mu) * G + mu * state["m"]).bfloat16())  # enough bits for a direction
    X -= eta * max(1.0, X.shape[0] / X.shape[1]) ** 0.5 * direction.to(X.dtype)


# %% [markdown]
# ## 6 With the library
#
# The same gradients for both, for 100 updates, in float64. A gradient is noise around a pull to zero, so it depends on
# where the weights have got to. A matrix and a vector take part, because Adafactor treats them differently.


# %%
def largest_difference(ours, theirs, updates=100, shapes=((6, 4), (5,))):
    """Largest difference of a weight after any update."""
    generator, worst = torch.Generator().manual_seed(seed), 0.0
    mine = [torch.randn(shape, generator=generator, dtype=f64) for shape in shapes]
    twins = [p.clone().requires_grad_() for p in mine]
    optimizer, states = theirs(twins), [{} for _ in mine]
    for _ in range(updates):
        for p, q, state in zip(mine, twins, states, strict=True):
            g = torch.randn(p.shape, generator=generator, dtype=f64) + 0.3 * p
            q.grad = g.clone()
            ours(p, g, state)
        optimizer.step()
        worst = max(worst, *((p - q).abs().max().item() for p, q in zip(mine, twins, strict=True)))
    return worst


# %%
from transformers.optimization import Adafactor

pairs = {
    "SGD": (partial(sgd, eta=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    "SGD + L2": (partial(with_l2(sgd, 0.2), eta=0.1), lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.2)),
    "momentum": (partial(momentum, eta=0.1, mu=0.8), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8)),
    "Adam": (partial(adam, eta=0.1), lambda p: torch.optim.Adam(p, lr=0.1)),
    "Adam + L2": (partial(with_l2(adam, 0.2), eta=0.1), lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.2)),
    "AdamW": (partial(adamw, eta=0.1, lam=0.2), lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.2)),
    "Adafactor": (partial(adafactor, alpha=0.1),
                  lambda p: Adafactor(p, lr=0.1, scale_parameter=False, relative_step=False)),
}  # fmt: skip
found = {name: largest_difference(*pair) for name, pair in pairs.items()}
for name, difference in found.items():
    print(f"{name:10s} largest difference in 100 updates: {difference:.0e}")
assert max(found.values()) < 1e-12
run.record(parity=max(found.values()))

# %%
coarse = largest_difference(
    partial(muon, eta=0.1), lambda p: torch.optim.Muon(p, lr=0.1, weight_decay=0.0), shapes=((6, 4), (4, 9))
)
print(f"Muon       largest difference in 100 updates: {coarse:.0e}")
assert coarse < 1e-12
run.record(muon_parity=coarse)

# %% [markdown]
# ## 7 What clipping does to a step
#
# Lesson 03 writes the function: if the joint norm of all gradients is above a bound, scale them down to it. For SGD that
# bounds the step. For Adam a *constant* factor changes nothing. So why does everybody clip with Adam, too?
#
# **Predict.** All gradients are 1, except one: the fiftieth is 1000, a strange batch. How long are Adam's steps *after*
# it, in units of $\eta$?


# %% tags=["nbval-check-output"]
def step_lengths(bound):
    """Lengths of 8,000 steps of Adam, in units of the rate; gradients are clipped to `bound`."""
    theta, state, lengths = torch.zeros(1, dtype=f64), {}, []
    for t in range(1, 8001):
        before = theta.clone()
        g = torch.tensor([1000.0 if t == 50 else 1.0], dtype=f64)
        adam(theta, g.clamp(max=bound), state, eta=1.0)
        lengths.append((before - theta).item())
    return lengths


free, clipped = step_lengths(math.inf), step_lengths(1.0)
print("update            " + "".join(f"{t:8d}" for t in (49, 50, 60, 100, 1000, 2000, 8000)))
for name, lengths in (("without clipping", free), ("with clipping", clipped)):
    print(f"{name:18s}" + "".join(f"{lengths[t - 1]:8.3f}" for t in (49, 50, 60, 100, 1000, 2000, 8000)))
back = next(t for t, length in enumerate(free, start=1) if t > 60 and length > 0.5)
print(f"without clipping, steps are half as long as before again at update {back}")

# %% [markdown]
# **Observe.** The strange batch itself moves Adam *less* than a normal one. The damage comes later: its square sits in
# $v$, and the weight is all but frozen. In $1 / (1 - \beta_2)$ updates the square fades by a factor of $e$ only, and it was
# $1000^2$ times a normal one: the last line above says how long half a step takes. In SGD a spike throws the model away. In
# Adam it paralyses it. Clipping prevents both.
#
# ## 8 Schedules
#
# ### 8.1 Why warm up?
#
# The articles recommend warm-up, and none of their programs has it. What would it be good for? Section 2 said that
# Adam's first step has full size for every weight, on the evidence of one batch. If the gradient is mostly noise, then so
# is the step.
#
# Let a gradient be a small signal in much noise: mean $0.1$, standard deviation $1$. The useful part of a step is its
# mean. **Predict.** How does its whole size, as the root of the mean square, change from the first update to the last of
# three hundred?

# %%
generator = torch.Generator().manual_seed(seed)
theta, state, sizes = torch.zeros(5000, dtype=f64), {}, []
for _ in range(300):
    before = theta.clone()
    adam(theta, 0.1 + torch.randn(5000, generator=generator, dtype=f64), state, eta=1.0)
    sizes.append((rms(theta - before).item(), (before - theta).mean().item()))
figure, panel = plotting.axes(width=5.5, height=2.6, dpi=85)
for index, (column, label) in enumerate(zip(np.array(sizes).T, ("whole step", "useful part"), strict=True)):
    panel.plot(range(1, 301), column, plotting.LINES[index], color=plotting.COLOURS[3 * index], label=label)
panel.axhline(math.sqrt((1 - 0.9) / (1 + 0.9)), color="black", linestyle=":", label="theory for late noise")
panel.set(xscale="log", xlabel="update", ylabel="in units of the rate", title="Adam's steps in noise")
panel.legend()
plotting.show(run, figure, "02_noise")
run.record(noise_first=sizes[0][0], noise_late=sizes[-1][0])

# %% [markdown]
# **Observe.** The useful part is small and constant. The noise is largest in the first update, where $\hat m$ is one
# gradient. Later $\hat m$ averages some ten gradients, and the noise falls to $\sqrt{(1 - \beta_1) / (1 + \beta_1)}$,
# the dotted line. A warm-up over a few dozen updates makes exactly the noisy steps short. (In a real network a random
# step does harm that later steps must repair; that it *does* is not shown here.) Liu et al. (2020) look at the other
# average: early $\hat v$, too, rests on a few gradients, so $1/\sqrt{\hat v}$ varies much. They see warm-up as a cure for
# that, and derive a factor that needs none.
#
# ### 8.2 And down again
#
# Near the end, noise of the size $\eta$ keeps the weights from settling. So the rate falls: on a line (lesson 03 has
# `linear_schedule`), or on half a cosine (Loshchilov and Hutter, 2017), which stays high for longer and lands softly.


# %% tags=["defines:training.cosine_schedule"]
def cosine_schedule(step, total, warmup):
    if step < warmup:
        return step / max(1, warmup)
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))


# %% [markdown]
# **Predict.** transformers has both schedules. Ours agree with them from the first update to the last. But what does the
# library's cosine do if somebody trains *longer* than planned?

# %%
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from instructlab_utils.training import linear_schedule

dummy = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
theirs = get_cosine_schedule_with_warmup(dummy, 10, 100).lr_lambdas[0]
line = get_linear_schedule_with_warmup(dummy, 10, 100).lr_lambdas[0]
off = max(abs(cosine_schedule(t, 100, 10) - theirs(t)) for t in range(101))
off = max(off, *(abs(linear_schedule(t, 100, 10) - line(t)) for t in range(101)))
assert off == 0
print(f"largest difference in 100 planned updates: {off:.0e}")
print(f"after 150 updates: ours {cosine_schedule(150, 100, 10):.2f}, transformers {theirs(150):.2f}")

# %%
figure, panel = plotting.axes(width=5.5, height=2.6, dpi=85)
steps = range(151)
panel.plot(steps, [linear_schedule(t, 100, 10) for t in steps], color=plotting.COLOURS[0], label="linear")
panel.plot(
    steps, [cosine_schedule(t, 100, 10) for t in steps], "--", color=plotting.COLOURS[3], label="cosine"
)
panel.plot(steps[100:], [theirs(t) for t in steps[100:]], ":", color="black", label="transformers' cosine")
panel.axvline(100, color="0.6", linewidth=1)
panel.set(xlabel="update (100 were planned)", ylabel="factor of the rate", title="Schedules, with warm-up")
panel.legend(loc="upper right", fontsize=8)
plotting.show(run, figure, "02_schedules")

# %% [markdown]
# **Observe.** The library's cosine swings up again. A run that is resumed with too small a `total` is then trained with a
# rising rate, without a word. Ours stays at zero: such a run learns nothing more, and somebody will notice.

# %% [markdown]
# ### 8.3 A schedule that need not know its end
#
# A cosine must know its length before it starts. *Warm-up, stable, decay* (Hu et al., 2024) keeps the rate until
# somebody decides to stop, and then takes it down quickly. From one long stable run you can finish a model at any time.


# %%
def wsd_schedule(step, total, warmup, decay):
    if step < warmup:
        return step / max(1, warmup)
    return min(1.0, max(0.0, (total - step) / max(1, decay)))


# %%
from transformers import get_wsd_schedule

theirs = get_wsd_schedule(
    dummy, num_warmup_steps=10, num_decay_steps=20, num_training_steps=100, decay_type="linear"
)
off = max(abs(wsd_schedule(t, 100, 10, 20) - theirs.lr_lambdas[0](t)) for t in range(101))
assert off < 1e-12
print(f"largest difference to transformers: {off:.0e}")

# %% [markdown]
# **Predict.** A gradient that points to zero, in noise. Three models of different length: one cosine run each, or one
# stable run with three short decays from it. Which way ends lower? Which costs fewer updates?


# %%
def noisy(factors, theta, state):
    """Half the mean square of theta after each update of Adam; the gradient is theta in much noise."""
    losses = []
    for factor in factors:
        adam(
            theta,
            theta + 3 * torch.randn(len(theta), generator=generator, dtype=f64),
            state,
            eta=0.3 * factor,
        )
        losses.append(theta.square().mean().item() / 2)
    return losses


# %%
figure, panel = plotting.axes(width=5.5, height=2.8, dpi=85)
theta, state, stable = torch.ones(2000, dtype=f64), {}, []
for updates in (100, 200, 300):
    stable += noisy([min(1.0, (t + 1) / 10) for t in range(len(stable), updates)], theta, state)
    decay = noisy([1 - t / 60 for t in range(1, 61)], theta.clone(), dict(state))
    cosine = noisy(
        [cosine_schedule(t, updates + 60, 10) for t in range(1, updates + 61)],
        torch.ones(2000, dtype=f64),
        {},
    )
    print(
        f"{updates + 60} updates: cosine {cosine[-1]:.4f}, stable {stable[-1]:.4f}, decayed {decay[-1]:.4f}"
    )
    panel.plot(range(updates, updates + 60), decay, color=plotting.COLOURS[0], linewidth=2)
    panel.plot(cosine, "--", color=plotting.COLOURS[3], linewidth=1)
panel.plot(stable, color=plotting.COLOURS[0], label="stable, and three decays")
panel.plot([], "--", color=plotting.COLOURS[3], label="three cosines")
panel.set(xlabel="update", ylabel="loss", yscale="log", title="One stable run, or three runs")
panel.legend(fontsize=8)
plotting.show(run, figure, "02_wsd")
print("updates paid: cosines", sum(u + 60 for u in (100, 200, 300)), "; stable and decays", 300 + 3 * 60)

# %% [markdown]
# **Observe.** On the plateau the noise holds the loss up; each decay takes more than half of it away. The cosines end lower
# still, and cost more updates: each of them had to know its end. A toy like this shows the mechanism. It does not say
# which schedule is better for a language model.
#
# > **Recall.** Which two averages are empty at the start, and which of them makes the first step noisy?
#
# ## 9 Which rate for which method?
#
# Three ways to tune the encoder on film sentences. *Full* trains all weights. *LoRA* (Hu et al., 2022) adds a small
# product of two matrices to the query and value maps, and trains only that (lesson 09). A *soft prompt* (Lester et al.,
# 2021) is twenty vectors in front of the sentence (lesson 10). Both of the small ones train the classification head, too.
# They come from `peft` here, as black boxes; the experiment notebook says why the prompt starts from words.

# %%
import warnings

import peft

warnings.filterwarnings(
    "ignore", message=".*is_gradient_checkpointing.*"
)  # peft asks transformers in the old way


def build(method):
    """The pinned encoder with a fresh head, ready for one of the three methods."""
    net = models.load_classifier(2, seed=seed, model=model)
    torch.manual_seed(seed)
    if method == "lora":
        config = peft.LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=8, target_modules=["query", "value"])
    if method == "prompt":
        config = peft.PromptTuningConfig(
            task_type="SEQ_CLS", num_virtual_tokens=20, prompt_tuning_init="SAMPLE_VOCAB"
        )
    return (net if method == "full" else peft.get_peft_model(net, config)).to(run.device).train()


# %% [markdown]
# ### 9.1 One gradient already says something
#
# Adam's first step moves every weight by $\eta$ against its gradient's sign. To first order the loss falls by
# $\eta \sum_i |g_i| = \eta \, \lVert g \rVert_1$.
# Many weights, a large sum. Few weights, a small one.
#
# **Predict.** By which factor do the rates differ that promise the same first fall, for full fine-tuning, LoRA and a soft
# prompt?

# %%
LABELS = {"full": "full fine-tuning", "lora": "LoRA", "prompt": "soft prompt"}
for method, label in LABELS.items():
    net = build(method).eval()  # without dropout, one clean gradient
    loss_of(net, batch).backward()
    trained = [p for p in net.parameters() if p.requires_grad]
    norm = sum(p.grad.abs().sum().item() for p in trained)
    count = sum(p.numel() for p in trained)
    print(
        f"{label:17s} {count:9,d} weights, |g|_1 = {norm:7.1f}; a fall of 0.1 takes the rate {0.1 / norm:.0e}"
    )
    run.record(**{f"{method}_l1": norm, f"{method}_rate_first_fall": 0.1 / norm})
del net, trained

# %% [markdown]
# **Observe.** The methods live on different scales, and the gradient knows it before any training. It is only a first
# step on one batch, of course.
#
# ### 9.2 A learning-rate finder
#
# Smith (2017) had a simple idea: train for a few dozen updates while the rate grows from far too small to far too large, and
# watch what happens. His rate grows on a line and he watches the accuracy; here, as in most finders since, it grows
# *exponentially*, and we watch the loss. It stays flat, then falls, then explodes. Single batches are noisy, so we look at a
# running mean, corrected for its empty start. You know the formula: it is Adam's $\hat m$.


# %%
def find_rate(net, steps, lowest=1e-6, highest=1.0, beta=0.8):
    """Rates and smoothed losses, one per update, until the loss is lost."""
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], fused=True)
    batches = training.batches_of(train_set, 16, tokenizer.pad_token_id, seed)
    rates, mean, smooth = np.geomspace(lowest, highest, steps), 0.0, []
    for t, rate in enumerate(rates, start=1):
        optimizer.param_groups[0]["lr"] = rate
        loss = loss_of(net, training.move(next(batches), run.device))
        mean = beta * mean + (1 - beta) * loss.item()
        smooth.append(mean / (1 - beta**t))
        if not smooth[-1] < 3 * smooth[0]:  # also true for nan
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return rates[: len(smooth)], np.array(smooth)


# %% [markdown]
# **Predict.** Mark on a line from `1e-6` to `1` where each of the three losses begins to fall, and where it explodes.

# %%
curves = {method: find_rate(build(method), finder_steps) for method in LABELS}
figure, panel = plotting.axes(width=6.5, dpi=85)
for index, (method, (rates, smooth)) in enumerate(curves.items()):
    lowest = rates[smooth.argmin()]
    panel.plot(rates, smooth, label=LABELS[method], **(plotting.style(index) | {"markersize": 4}))
    print(
        f"{LABELS[method]:17s} smallest loss at the rate {lowest:.0e}; rule of thumb, a tenth: {lowest / 10:.0e}"
    )
    run.record(**{f"{method}_finder": lowest / 10})
panel.axhline(math.log(2), color="black", linestyle=":", linewidth=1, label="ln 2")
panel.set(
    xscale="log", xlabel="learning rate (grows with every update)", ylabel="smoothed loss", ylim=(0.55, 1.1)
)
panel.legend()
plotting.show(run, figure, "02_finder")

# %% [markdown]
# **How to read it.** Take a rate where the loss falls steeply, clearly left of the minimum. A tenth of the rate at the
# minimum is a common rule. The explosion on the right tells the largest rate that you should ever try.
#
# **Its limits.** The loss is that of the *training* batches. The curve lags behind the rate: what you see at a rate was
# earned by smaller ones. A few dozen updates say what is *stable*, not what is best after a thousand. And it is one
# seed, one order of batches. A finder gives the decade. The rest is a small grid, on dev sentences.
#
# ## 10 The experiment: start with `1e-5`?
#
# Two of the articles answer the question about the learning rate. The rate should lie one to two orders of magnitude
# below that of pre-training, and `1e-5` is the place to start. They name no method, and no measurement. This is claim
# **C13** (`data/claims/C13.toml`, written before its runs).
#
# - *Below which rate?* The articles tune BERT, which was pre-trained with `1e-4` (Devlin et al., 2019, appendix A.2). Then
#   `1e-5` is one order below, and the claim agrees with itself. The last stage of our own encoder used `2e-5` (its model
#   card, sentence-transformers). From there `1e-5` would lie outside the claimed range. We take the reading that favours
#   the claim.
# - *The place to start*: whoever starts at `1e-5` and stays there loses at most two points of **test** accuracy to one other
#   rate. That other rate was named before the runs, one for each way to tune.
# - *And with more updates?* The first edition had forty. Then Adam at `1e-5` rarely moves a weight further than
#   $40 \cdot 10^{-5}$, and small rates have no chance. Now there are eighty, and full fine-tuning has also six times as many.
#
# That makes four comparisons, and all must hold. The grid: three ways to tune, five rates in whole decades, ten seeds. All
# rows of a seed share 200 sentences and their order. Each seed has test sentences of its own. A run whose loss is no longer
# finite counts as the majority class.
#
# **Predict.** Fill in the heat map before you see it: three rows of five rates, and a fourth, with more updates, of two.
# Where is the darkest cell of each row? (A star stands for a seed whose run diverged.)

# %%
from instructlab_repro import lesson

lines = [line for line in lesson.results("learning_rates") if "way" in line]  # the majority class has no way
spec = lesson.experiment("learning_rates").at("laptop")
SEEDS, RATES = spec.axes["seed"], [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
WAYS = LABELS | {"full-long": f"full, {spec.settings['long_steps']} updates"}


def grid(metric):
    """Array (ways, rates, seeds) of a field of the recorded runs; NaN where there is no run."""
    found = {(line["way"], line["learning_rate"], line["seed"]): line[metric] for line in lines}
    return np.array([[[found.get((w, r, s), np.nan) for s in SEEDS] for r in RATES] for w in WAYS])


accuracy, dev, diverged = grid("accuracy"), grid("dev_accuracy"), grid("diverged")

# %%
from matplotlib.patches import Rectangle

mean = 100 * accuracy.mean(2)
chosen = np.nan_to_num(dev.mean(2)).argmax(1)
figure, panel = plotting.axes(width=8, height=3.0, dpi=85)
panel.imshow(mean, cmap="Greys", vmin=45, vmax=80, aspect="auto")
for i, j in zip(*np.nonzero(~np.isnan(mean)), strict=True):
    shade = "white" if mean[i, j] > 66 else "black"
    stars = "*" * int(diverged[i, j].sum())
    weight = "bold" if j == chosen[i] else "normal"
    panel.text(j, i, f"{mean[i, j]:.1f}{stars}", ha="center", va="center", color=shade, weight=weight)
    if j == chosen[i]:
        panel.add_patch(Rectangle((j - 0.48, i - 0.46), 0.96, 0.92, fill=False, linewidth=2))
panel.set_xticks(range(len(RATES)), [f"{rate:.0e}" for rate in RATES])
panel.set_yticks(range(len(WAYS)), WAYS.values())
panel.set(xlabel="learning rate", title="Test accuracy (%), mean over seeds; frame: best mean dev accuracy")
panel.grid(False)
plotting.show(run, figure, "02_learning_rates")

# %% [markdown]
# **Observe.** Read the map row by row. Full fine-tuning and LoRA have an island each, and the two lie two decades apart.
# Where full fine-tuning is best, LoRA has learned nothing. Where LoRA is best, full fine-tuning stands on the majority class.
# The soft prompt learns little in eighty updates, whatever the rate. No loss became infinite, not even at the largest rate:
# such a run stays finite, and useless.
#
# A method on its majority class has not failed as a method. It has been given a rate of another scale.
#
# Now the last row. With six times as many updates, `1e-5` has caught up with `1e-4`. A rate is not too small by itself. It is
# too small for a number of updates.
#
# What does it cost to start at `1e-5` and stop there? For each seed: the test accuracy at the rate that *that seed's* dev
# sentences prefer, minus the test accuracy at `1e-5`.

# %%
low = RATES.index(1e-5)
for i, (way, label) in enumerate(WAYS.items()):
    best = np.nan_to_num(dev[i]).argmax(0)
    gain = intervals.t_interval(accuracy[i, best, range(len(SEEDS))] - accuracy[i, low])
    counts = ", ".join(f"{RATES[j]:.0e} ({n} of {len(SEEDS)})" for j, n in Counter(best.tolist()).items())
    print(f"{label:17s} dev prefers {counts}; gain over 1e-5 on test: {gain}")
    if way in LABELS:
        print(f"{'':17s} the finder of section 9 had said {run.metrics[f'{way}_finder']:.0e}")
short = mean[: len(LABELS)]  # with the same number of updates
print(f"points between the best and the worst way to tune at 1e-5: {np.ptp(short[:, low]):.1f}")
print("points between the best and the worst rate of a way:", *(f"{x:.1f}" for x in np.ptp(short, axis=1)))

# %%
print("verdict:", lesson.words("C13"))
run.record(c13_verdict=lesson.words("C13")["C13"])
lesson.folded("learning_rates", "C13")

# %% [markdown]
# **How to read the verdict.** A conjunction falls with a single comparison. Two of the four fell.
#
# - *Full fine-tuning and LoRA, eighty updates*: refuted, by many times the two points.
# - *The soft prompt*: undecided. It is behind, and two points of it were allowed. It has little to lose.
# - *Full fine-tuning, 480 updates*: undecided, and the other way. What is lost there may well be less than two points.
# - *Beside the verdict*: at `1e-5` the methods differ by the first number of points above, and all are near guessing. The
#   rate alone moves LoRA and full fine-tuning by the larger numbers behind it. With its own rate each, the two cannot be told
#   apart here.
# - *The finder* of section 9: compare its lines with those of dev. It costs a few seconds, and it names a decade at best.
#
# Is the advice bad, then? For eighty updates, yes. Who has time for many more, and trains all weights, may start at `1e-5`.
# Here that took six times the time, and ended about where `1e-4` had been after eighty: the last line of the fold.
#
# So a comparison of methods at *one* shared rate compares the rate's luck. Lesson 11 gives every method its own.
#
# ## 11 What we have shown
#
# Printed from this run's record, so that the text cannot disagree with the numbers.

# %%
m = run.metrics
print(f"profile {run.profile}, seed {seed}, {run.device}")
print(f"seven update rules equal to torch and transformers: largest difference {m['parity']:.0e}")
print(f"Adam's first step on the classifier: {m['first_step_classifier']:.3f} of the rate;")
print(f"  on the keys' bias, whose gradient is rounding noise: {m['first_step_key_bias']:.3f}")
print(f"noise of Adam's step: {m['noise_first']:.2f} of the rate at first, {m['noise_late']:.2f} later")
print(f"left after pure noise, loud and quiet: Adam + L2 {m['adam_l2_loud']:.2f}, {m['adam_l2_quiet']:.2f};")
print(f"  AdamW {m['adamw_loud']:.2f}, {m['adamw_quiet']:.2f}")
print(f"optimiser state: Adam {m['adam_state_mb']:.0f} MB, Adafactor {m['adafactor_state_mb']:.1f} MB")
for method, label in LABELS.items():
    first, finder = m[f"{method}_rate_first_fall"], m[f"{method}_finder"]
    print(f"{label:17s} rate by one gradient {first:.0e}, by the finder {finder:.0e}")
print(f"C13 over all seeds: {m['c13_verdict']}")

# %% [markdown]
# **What we have not shown.**
#
# - What many updates do to LoRA and to the prompt. Only full fine-tuning had them, at two rates.
# - Other tasks, encoders and batch sizes. We kept one of each.
# - The rate of a method is not a number of its own. It depends on LoRA's scale `lora_alpha`, on the prompt's first values,
#   on the optimiser, and on the head, which shares it here.
# - That warm-up *helps* a real run. We showed where the noise is, not what it costs.
# - Which optimiser is best. A fair answer needs a rate for each, and a schedule, and seeds.
# - Other newer rules than Muon (Lion, Shampoo). They, too, are a few lines and a state.
#
# **What should I set?**
#
# | you want | set | check |
# |---|---|---|
# | to fine-tune all weights | `torch.optim.AdamW`, a rate between $10^{-5}$ and $10^{-4}$ | try half a decade up and down |
# | a few new numbers (LoRA, a head, a prompt) | ten to a thousand times that rate | the loss moves in the first ten steps |
# | no decay on biases and norms | two parameter groups | count the weights of each group |
# | short training | `get_linear_schedule_with_warmup`, or cosine; some warm-up | the first and the last rate |
# | protection against one bad batch | `clip_grad_norm_` before `step()` | how often it cuts |
# | hidden matrices of a large model | `torch.optim.Muon`, AdamW for the rest | which weight is in which group |
# | a run without a planned end | `get_wsd_schedule` | the loss before and after the decay |
# | less memory for the optimiser | Adafactor | bytes of its state |
# | a rate nobody has tried | the finder of section 9, then three seeds | no seed stays at the larger class |
#
# **Recall.** Answer without scrolling.
#
# 1. The gradient is a thousand times larger than yesterday. What changes in the first step of SGD, and in that of Adam?
# 2. You forget Adam's bias correction. Are the first steps too long or too short, and why?
# 3. For which optimiser are a penalty in the loss and decoupled decay the same? Prove it in one line.
# 4. One batch has a gradient a thousand times too large. What does Adam do in the next hundred updates?
# 5. Why does the same rate train all weights, and leave a soft prompt where it was?
#
# <details><summary>Answers</summary>
#
# 1. SGD's step is a thousand times longer. Adam's first step stays as it was.
# 2. Too long. Both averages start at zero; the root of the second is too small for more steps than the first.
# 3. For SGD without momentum: $\theta - \eta (g + \lambda \theta) = (1 - \eta \lambda)\, \theta - \eta g$.
# 4. It hardly moves: the second moment remembers the batch, and every step is divided by its root.
# 5. Each weight moves by about the rate, so the loss falls by about the rate times the sum of all $|g_i|$. A prompt has
#    few terms in that sum.
#
# </details>
#
# **Exercises.** `notebooks/exercises/02_optimisers.py`; `make classroom` builds the student version.
#
# **References.**
#
# - Devlin, J., Chang, M.-W., Lee, K., and Toutanova, K. (2019). BERT: pre-training of deep bidirectional transformers for
#   language understanding. *NAACL 2019*.
# - Hu, E. J., et al. (2022). LoRA: low-rank adaptation of large language models. *ICLR 2022*.
# - Hu, S., et al. (2024). MiniCPM: unveiling the potential of small language models with scalable training strategies.
#   *COLM 2024*. arXiv:2404.06395.
# - Hutto, C. J., and Gilbert, E. (2014). VADER: a parsimonious rule-based model for sentiment analysis of social media
#   text. *ICWSM 2014*.
# - Jordan, K., et al. (2024). Muon: an optimizer for hidden layers in neural networks. `kellerjordan.github.io/posts/muon`.
# - Kingma, D. P., and Ba, J. (2015). Adam: a method for stochastic optimization. *ICLR 2015*.
# - Lester, B., Al-Rfou, R., and Constant, N. (2021). The power of scale for parameter-efficient prompt tuning. *EMNLP 2021*.
# - Liu, L., et al. (2020). On the variance of the adaptive learning rate and beyond. *ICLR 2020*.
# - Loshchilov, I., and Hutter, F. (2017). SGDR: stochastic gradient descent with warm restarts. *ICLR 2017*.
# - Loshchilov, I., and Hutter, F. (2019). Decoupled weight decay regularization. *ICLR 2019*.
# - Polyak, B. T. (1964). Some methods of speeding up the convergence of iteration methods. *USSR Computational Mathematics
#   and Mathematical Physics* 4(5), 1–17.
# - Robbins, H., and Monro, S. (1951). A stochastic approximation method. *The Annals of Mathematical Statistics* 22(3),
#   400–407.
# - Shazeer, N., and Stern, M. (2018). Adafactor: adaptive learning rates with sublinear memory cost. *ICML 2018*.
# - Smith, L. N. (2017). Cyclical learning rates for training neural networks. *WACV 2017*.
# - Sutskever, I., Martens, J., Dahl, G., and Hinton, G. (2013). On the importance of initialization and momentum in deep
#   learning. *ICML 2013*.
# - sentence-transformers, model card of `all-MiniLM-L6-v2`, on the rate of its last stage of training.
