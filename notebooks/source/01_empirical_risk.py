# ---
# jupyter:
#   instructlab:
#     id: "01"
#     title: Empirical risk and the gradient of cross-entropy
#     outcome: derive every cross-entropy, check its gradient three ways, catch a wrong sign or denominator
#     assets: [vader]
#     minutes: {smoke: 0.3, laptop: 1, gpu: 1}
#     class_minutes: 150
#     budget:
#       n_max: {smoke: 200, laptop: 3200, gpu: 6400}
#       n_seeds: {smoke: 3, laptop: 5, gpu: 20}
#       steps: {smoke: 100, laptop: 500, gpu: 500}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 01 Empirical risk and the gradient of cross-entropy
#
# **The promise.** Every model in this course learns from one number: an average of cross-entropies. You
# build that number from its types upwards. You derive each loss on paper, write it in a few lines, check
# its gradient three ways, and break it on purpose: with a wrong type, a broadcast shape, a saturated
# sigmoid, a flipped sign, a wrong denominator. Most of these raise no error. At the end you fit a
# classifier by hand on real film reviews and watch what more data, and more steps, do to the distance between
# the risk on the training sentences and the risk on new ones.
#
# | | |
# |---|---|
# | before this | derivatives, chain rule, matrix products, expectations; Python, a little PyTorch |
# | for one line each | Jensen's inequality (section 5), Hessian and singular values (section 12) |
# | time | smoke: under a minute · laptop: about a minute on one core · gpu: the same, nothing here needs one |
# | memory | under 1 GB |
# | data | snippets of film reviews, each rated by people (Hutto and Gilbert, 2014) |
# | box of lesson 00's chain | *scored*: there an answer was right or wrong, here the score gets a gradient |
#
# **You will be able to**
#
# - *write* an empirical risk whose every symbol has a type, and *reject* one that has none;
# - *derive* the gradients of binary, softmax, smoothed and masked cross-entropy, and *check* each by closed
#   form, finite differences and automatic differentiation;
# - *explain* why a naive formula returns infinity, and *repair* it;
# - *predict* the first loss of an untrained classifier, and *say* when the prediction does not hold;
# - *name* the three risks that hide behind the word "mean", and *choose* one;
# - *measure* a generalisation gap on real sentences, with intervals.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu; auto reads INSTRUCTLAB_PROFILE, else laptop
seed: int = 0  # chooses the training sentences of section 12; sections 1 to 11 do not depend on it
n_max: int = 0  # largest training set; 0 takes the profile's number
n_seeds: int = 0  # training sets drawn per size; 0 takes the profile's number
steps: int = 0  # steps of gradient descent per fit; 0 takes the profile's number

# %%
import math
from fractions import Fraction

import torch
import torch.nn.functional as F

from instructlab_utils import expect_error, start
from instructlab_utils.errors import TrainingError
from instructlab_utils.plotting import axes, style

run = start("01", profile=profile, seed=seed)
torch.set_default_dtype(torch.float64)  # for checks; section 3 shows what float32 does
torch.set_printoptions(precision=3, sci_mode=False)

# %% [markdown]
# ## 1 A risk that type-checks
#
# Name the types before the formula.
#
# | symbol | type | in words |
# |---|---|---|
# | $x$ | $\mathcal X$ | what the model is given: a sentence, or an instruction with its text |
# | $y$ | $\mathcal Y = \{0, \dots, K-1\}$ | a label: one of $K$ classes, given by a human, not by the model |
# | $\theta$ | $\Theta$, a space of real numbers | the parameters: all that training may change |
# | $M_\theta$ | $\mathcal X \to \mathbb R^K$ | the model: one real score (*logit*) per class |
# | $\ell$ | $\mathbb R^K \times \mathcal Y \to \mathbb R_{\ge 0}$ | the loss of *one* example |
# | $D$ | $(\mathcal X \times \mathcal Y)^n$ | the data: a *tuple* of $n$ pairs. A set would drop repetitions |
# | $\mathcal L$ | $\Theta \to \mathbb R_{\ge 0}$ | the empirical risk: the mean loss over the data |

# %% [markdown]
# The empirical risk and what training looks for (Vapnik, 1992):
#
# $$ \mathcal L(\theta) = \frac1n \sum_{j=1}^{n} \ell\big(M_\theta(x_j),\, y_j\big), \qquad
#    \hat\theta \in \arg\min_{\theta \in \Theta} \mathcal L(\theta). $$
#
# The index $j$ counts the pairs and does nothing else: the model never sees it. The minimum is taken over
# $\theta$ alone: the data are fixed.
#
# What we *want* to be small is another number: the risk on new pairs,
# $R(\theta) = \mathbb E\,\ell(M_\theta(x), y)$, a mean over the distribution that they come from. Section 12
# estimates how far the two lie apart. Here is the smallest model that has the types, on four sentences.

# %%
data = (("a warm and clever film", 2), ("a film", 1), ("dull and far too long", 0), ("a film", 1))
vocabulary = sorted({word for x, _ in data for word in x.split()})
theta = torch.randn(3, len(vocabulary), generator=torch.Generator().manual_seed(1))


def model(x):
    """A sentence to K = 3 logits: one column of theta per word, summed."""
    return theta[:, [vocabulary.index(word) for word in x.split()]].sum(1)


# %% tags=["nbval-check-output"]
def first_loss(z, y):  # softmax cross-entropy of one example; section 4 derives it
    return z.logsumexp(0) - z[y]


def risk(model, loss, data):  # the formula above, letter by letter
    return torch.stack([loss(model(x), y) for x, y in data]).mean()


print("M(x):", tuple(model("a film").shape), " one loss:", tuple(first_loss(model("a film"), 1).shape))
print(f"risk {risk(model, first_loss, data):.3f} over {len(data)} pairs; a set would keep {len(set(data))}")

# %% [markdown]
# **Predict.** This course tests the claims of five blog articles in Chinese, the *source articles*. They write
# the risk in these ways, and none of the three type-checks. *Which name is missing or used twice, and what
# will Python say?*
#
# 1. The data are $\{(i, y_i)\}_{i=1}^N$ and the loss is $\ell(M_\theta(i), y_i)$.
# 2. $\arg\min_\theta \mathcal L(M_\theta, I, O)$, where $I$ is the input and $O$ the output of the model.
# 3. $\arg\min_\theta \mathcal L(M_\theta, x)$.

# %%
numbered = [(i, y) for i, (_, y) in enumerate(data)]
outputs = [(x, model(x)) for x, _ in data]

with expect_error(AttributeError):  # 1: i is the index and the instruction
    risk(model, first_loss, numbered)
with expect_error(IndexError, match="indices"):  # 2: O is what M returns, and what it is compared with
    risk(model, first_loss, outputs)
with expect_error(TypeError, match="'y'"):  # 3: nobody says what is right
    first_loss(model("a film"))

# %% [markdown]
# **Observe.** Three notations, three crashes: an index was used as a sentence, a vector as a label, and a
# label was missing. A crash is the friendly case.
#
# **Predict.** Now let $O$ have the right type: the class that the model itself prefers,
# $o = \arg\max_k M_\theta(x)_k$. Everything type-checks. Then multiply $\theta$ by a growing constant.
# *What happens to the risk, and to the accuracy against the human labels?*

# %% tags=["nbval-check-output"]
for scale in (1, 10, 100):
    logits = torch.stack([scale * model(x) for x, _ in data])
    own, human = logits.argmax(1), torch.tensor([y for _, y in data])
    losses = [F.cross_entropy(logits, target).item() for target in (own, human)]
    accuracy = (own == human).double().mean().item()
    print(f"scale {scale:3d}: risk to O {losses[0]:.3f}, to y {losses[1]:7.3f}, accuracy {accuracy:.2f}")

# %% [markdown]
# **Observe.** Against its own output the risk goes to zero: a model need only be sure of itself. Against the
# labels the risk grows, and no answer has changed. This is why $y$ must come from outside the model that is
# trained: from people, as here, or from another model.

# %% [markdown]
# ## 2 Binary cross-entropy, symbol by symbol
#
# Two classes need only one logit. From here on $x \in \mathbb R^d$ is a vector of features, the parameters
# are $w \in \mathbb R^d$, and the model returns $z = w^\top x \in \mathbb R$. It says
# $P(y{=}1 \mid x) = p = \sigma(z) = 1/(1+e^{-z})$.
#
# The label $y \in \{0, 1\}$ then has the probability $p^{y}(1-p)^{1-y}$. Minus its logarithm is the loss:
#
# $$ \ell = -\big[\,y \log p + (1-y)\log(1-p)\,\big]. $$
#
# The chain rule has three factors, and each can be done alone. For the second, note that
# $1 - p = e^{-z}/(1+e^{-z})$:
#
# $$ \frac{\partial \ell}{\partial p} = -\frac{y}{p} + \frac{1-y}{1-p} = \frac{p-y}{p(1-p)}, \qquad
#    \frac{dp}{dz} = \frac{e^{-z}}{(1+e^{-z})^2} = p(1-p), \qquad
#    \frac{\partial z}{\partial w} = x. $$
#
# The factor $p(1-p)$ cancels:
#
# $$ \frac{\partial \ell}{\partial z} = p - y, \qquad \frac{\partial \ell}{\partial w} = (p - y)\,x. $$
#
# Error times input: this is the whole of it.

# %% [markdown]
# Now stack $n$ examples: $X \in \mathbb R^{n \times d}$ has the rows $x_i$, and $p, y \in \mathbb R^n$ become
# vectors. The mean over the rows is a matrix product:
#
# $$ \nabla_w \mathcal L = \frac1n \sum_{i=1}^n (p_i - y_i)\, x_i = \tfrac1n X^\top (p - y). $$
#
# **A derivation is a claim, so we test it.** Three computations must agree: the closed form, automatic
# differentiation, and central differences
# $\big(\mathcal L(w + h e_k) - \mathcal L(w - h e_k)\big)/2h$, where $e_k$ is the $k$-th unit vector and $h$
# a small step. The last two know only the loss, the first only our formula.
#
# *Shape first*: broadcasting makes wrong shapes comparable.


# %%
def finite_differences(loss, at, step=1e-5):
    """Central differences of a scalar function, one entry at a time, the shape of ``at``."""
    moves = step * torch.eye(at.numel()).view(-1, *at.shape)
    return torch.stack([loss(at + e) - loss(at - e) for e in moves]).view_as(at) / (2 * step)


# %%
worst = {"autograd": 0.0, "finite differences": 0.0, "checked": 0}


def check_gradient(name, loss, at, closed):
    """AssertionError unless closed form, automatic and finite differences agree."""
    point = at.detach().clone().requires_grad_(True)
    automatic = torch.autograd.grad(loss(point), point)[0]
    numeric = finite_differences(loss, at.detach())
    assert closed.shape == automatic.shape == numeric.shape, "compare shapes before values"
    for kind, other, bound in (("autograd", automatic, 1e-12), ("finite differences", numeric, 1e-8)):
        difference = (closed - other).abs().max().item()
        assert difference < bound, f"{name}: {kind} differs by {difference:.1e}"
        worst[kind] = max(worst[kind], difference)
    worst["checked"] += 1
    print(f"{name:22s} {tuple(at.shape)!s:10s} three ways agree")


# %% tags=["nbval-check-output"]
def naive_bce(z, y):
    p = torch.sigmoid(z)
    return -(y * torch.log(p) + (1 - y) * torch.log(1 - p))


g = torch.Generator().manual_seed(2)
X, w, y = torch.randn(6, 4, generator=g), torch.randn(4, generator=g), torch.tensor([1.0, 0, 0, 1, 1, 0])
z, p = X @ w, torch.sigmoid(X @ w)
check_gradient("d loss / dz", lambda z: naive_bce(z, y).mean(), z, (p - y) / 6)
check_gradient("d loss / dw", lambda w: naive_bce(X @ w, y).mean(), w, X.T @ (p - y) / 6)

# %% [markdown]
# **Predict.** A linear layer returns logits of shape $(n, 1)$; the labels have shape $(n)$. *Does
# `naive_bce` raise? If not, what does the model learn?*

# %% tags=["nbval-check-output"]
column = z[:, None].clone().requires_grad_(True)
wrong = naive_bce(column, y)
(slope,) = torch.autograd.grad(wrong.mean(), column)
print("loss of", tuple(wrong.shape), "pairs:", f"{wrong.mean():.3f} instead of {naive_bce(z, y).mean():.3f}")
assert torch.allclose(slope[:, 0], (p - y.mean()) / 6)
print("n times the gradient is p - mean(y): every example is told the average label")

# %% [markdown]
# **Observe.** No error and a plausible loss. Each logit $z_i$ was paired with each label $y_j$, so its slope
# in the mean over all $n^2$ pairs is
#
# $$ \frac1{n^2}\sum_{j=1}^n (p_i - y_j) = \frac1n\,(p_i - \bar y), \qquad \bar y = \frac1n\sum_{j=1}^n y_j. $$
#
# The best that such a model can learn is how frequent the classes are. The repaired function of section 3
# refuses unequal shapes.

# %% [markdown]
# ## 3 The same formula in float32
#
# **Predict.** Let $y=0$ and $z=20$. The true loss is $\log(1+e^{20})$, a hair above 20, and the gradient is
# $p - y \approx 1$. *What do loss and gradient become in float32, where the numbers next to 1 lie $2^{-24}$
# below and $2^{-23}$ above?*


# %% tags=["nbval-check-output"]
def show(loss, logits=(5.0, 20.0, 200.0)):
    for value in logits:
        z = torch.tensor([value], dtype=torch.float32, requires_grad=True)
        out = loss(z, torch.zeros(1, dtype=torch.float32))
        (slope,) = torch.autograd.grad(out.sum(), z)
        print(f"z = {value:3.0f}: p rounds to 1: {torch.sigmoid(z).item() == 1.0!s:5s} ", end="")
        print(f"loss {out.item():6.2f}  gradient {slope.item():.2f}")


show(naive_bce)

# %% [markdown]
# **Observe.** At 20 the sigmoid rounds to exactly 1. Then $\log(1-p) = -\infty$, and the chain rule
# multiplies $1/(1-p) = \infty$ by $p(1-p) = 0$: not a number. Autograd then multiplies $X^\top$ by the
# vector of these slopes, and there the one entry meets every weight: one confident mistake loses them all.
# (The closed form $p - y$ has no such entry. It is 1 here. Only the road through $1/(1-p)$ breaks.)
#
# The source articles print the gradient with $y/p$ and $(1-y)/(1-p)$. It is correct on paper and fails here.
#
# **Repair.** Cancel on paper what the computer cannot cancel. Use $1 - \sigma(z) = \sigma(-z)$, then
# $\log(1+e^{-z}) = \log(1+e^{z}) - z$:
#
# $$ \ell = y\log(1+e^{-z}) + (1-y)\log(1+e^{z}) = \log(1+e^{z}) - yz
#         = \max(z, 0) - yz + \log\!\big(1+e^{-|z|}\big). $$
#
# The last step takes the larger of $e^0$ and $e^z$ out of the logarithm. No exponential that remains can
# overflow.
#
# Models on a GPU often give logits in bfloat16, which has eight binary digits: from 256 on its neighbours lie 2
# apart, and a sum of losses below 1 grows no more. So every loss of the course widens its logits to float32 first.


# %% tags=["defines:losses.upcast", "defines:losses.binary_cross_entropy", "nbval-check-output"]
def upcast(z):
    """z in float32; float64 stays."""
    return z.to(torch.promote_types(z.dtype, torch.float32))


def binary_cross_entropy(logits, targets):
    """One loss per example; logits and targets have the same shape."""
    if logits.shape != targets.shape:
        raise TrainingError(f"logits {tuple(logits.shape)}, targets {tuple(targets.shape)}: shapes differ")
    if not ((targets >= 0) & (targets <= 1)).all():
        raise TrainingError("a target lies outside [0, 1]: write 0 for no and 1 for yes")
    logits = upcast(logits)
    positive_part = torch.maximum(logits, torch.zeros_like(logits))
    return positive_part - targets * logits + torch.log1p(torch.exp(-logits.abs()))


show(binary_cross_entropy)
check_gradient("stable BCE, dz", lambda z: binary_cross_entropy(z, y).mean(), z, (p - y) / 6)
with expect_error(TrainingError, match="shape"):
    binary_cross_entropy(z[:, None], y)

# %% [markdown]
# **The repair has a trap of its own.** Many write `z.clamp(min=0)` for $\max(z,0)$. The values are equal
# everywhere. *Predict the gradient at $z = 0$, $y = 0$, the very point where zero-initialised weights
# start.* The answer should be $\sigma(0) - 0 = \tfrac12$.


# %% tags=["nbval-check-output"]
def clamped(logits, targets):
    return logits.clamp(min=0) - targets * logits + torch.log1p(torch.exp(-logits.abs()))


zero, no = torch.zeros(1), torch.zeros(1)
for loss in (clamped, binary_cross_entropy):
    at = zero.clone().requires_grad_(True)
    (automatic,) = torch.autograd.grad(loss(at, no).sum(), at)
    numeric = finite_differences(lambda z, loss=loss: loss(z, no).sum(), zero)
    print(f"{loss.__name__:20s} autograd {automatic.item():.1f}, finite differences {numeric.item():.1f}")

# %% [markdown]
# **Observe.** The function is smooth; its two pieces are not. Autograd differentiates the pieces, and at a
# tie each primitive has its own habit: `clamp` passes the whole slope, `maximum` half of it to each side.
# Equal values hide this, and so do random points. Finite differences *at the tie* show it.

# %% [markdown]
# ## 4 Softmax cross-entropy
#
# With $K$ logits $z \in \mathbb R^K$ the model says $p_k = e^{z_k} / \sum_m e^{z_m}$ (*softmax*; Bridle,
# 1990). The loss is $-\log p_y$, and the logarithm undoes the exponential:
#
# $$ \ell(z, y) = -\log p_y = \operatorname{LSE}(z) - z_y, \qquad
#    \operatorname{LSE}(z) = \log\sum_m e^{z_m}. $$
#
# Two derivatives are enough: $\partial \operatorname{LSE}/\partial z_k = e^{z_k}/\sum_m e^{z_m} = p_k$, and
# $\partial z_y/\partial z_k = [k = y]$, which is 1 if $k = y$ and 0 otherwise. Hence, with the unit vector
# $e_y \in \mathbb R^K$,
#
# $$ \frac{\partial \ell}{\partial z_k} = p_k - [k=y], \qquad\text{as a vector}\qquad
#    \frac{\partial\ell}{\partial z} = p - e_y. $$

# %% [markdown]
# **A whole layer.** In $z_i = W x_i + b$ let $i$ count examples, $j$ features, $k$ and $m$ classes:
# $W \in \mathbb R^{K \times d}$ and $b \in \mathbb R^K$. Stack the rows $p_i$ in $P$ and $e_{y_i}$ in $Y$,
# both in $\mathbb R^{n \times K}$. The chain rule with all its indices:
#
# $$ \frac{\partial \mathcal L}{\partial W_{kj}}
#   = \frac1n\sum_{i}\sum_{m} \frac{\partial \ell_i}{\partial z_{im}}\,\frac{\partial z_{im}}{\partial W_{kj}}
#   = \frac1n\sum_i (P_{ik} - Y_{ik})\, x_{ij}, $$
#
# since $z_{im} = \sum_j W_{mj} x_{ij} + b_m$ contains $W_{kj}$ only for $m = k$. In the same way
# $\partial z_{im}/\partial b_k = [m = k]$ and $\partial z_{im}/\partial x_{ij} = W_{mj}$. Therefore
#
# $$ \nabla_W \mathcal L = \tfrac1n (P-Y)^\top X, \qquad
#    \nabla_b \mathcal L = \tfrac1n (P-Y)^\top \mathbf 1, \qquad
#    \nabla_X \mathcal L = \tfrac1n (P-Y)\, W. $$
#
# The last one is what flows on into the network below the head.

# %% [markdown]
# **Stability again.** $e^{1000}$ overflows even in float64. But for every constant $c$,
# $\operatorname{LSE}(z) = c + \operatorname{LSE}(z - c)$. With $c = \max_k z_k$ the largest exponent is 0,
# so the sum lies between 1 and $K$. The value does not depend on $c$, so no gradient has to flow through it:
# `detach`.


# %% tags=["defines:losses.log_sum_exp", "defines:losses.log_softmax"]
def log_sum_exp(z, dim=-1):
    """log of the sum of exp(z) along dim, for every finite z."""
    z = upcast(z)
    shift = z.detach().amax(dim, keepdim=True)
    shift = torch.where(shift.isfinite(), shift, torch.zeros_like(shift))
    return torch.exp(z - shift).sum(dim).log() + shift.squeeze(dim)


def log_softmax(z, dim=-1):
    """Log-probabilities; the shift comes first, so a large common offset costs no digit."""
    z = upcast(z)
    shifted = z - z.detach().amax(dim, keepdim=True)
    return shifted - log_sum_exp(shifted, dim).unsqueeze(dim)


# %% tags=["nbval-check-output"]
extreme = torch.tensor([1000.0, 998.0, -1000.0])
print("naive :", torch.log(torch.exp(extreme) / torch.exp(extreme).sum()).tolist())
print("stable:", [round(value, 3) for value in log_softmax(extreme).tolist()])

offset = torch.tensor([8192.0, 8192.5, 8191.0], dtype=torch.float32)
exact = log_softmax(offset.double() - 8192)
late = offset - log_sum_exp(offset).unsqueeze(-1)
for name, found in (("shift late", late), ("shift first", log_softmax(offset))):
    print(f"float32, {name}: error below one millionth: {bool((found - exact).abs().max() < 1e-6)}")


# %% [markdown]
# **Observe.** The naive formula divides infinity by infinity. The second pair is subtler: near 8192 the
# float32 numbers lie $2^{-10}$ apart. *Shift late* rounds $\operatorname{LSE}(z)$ to that grid. *Shift first*
# subtracts while the differences are still exact.
#
# **Predict**, for the check in the next cell with $n=6$, $d=4$, $K=3$: the shapes of $\nabla_W$, $\nabla_b$
# and $\nabla_X$, and the sum of each row of $P - Y$.


# %% tags=["nbval-check-output"]
def mean_loss(X, W, b):
    log_p = log_softmax(X @ W.T + b)
    return -log_p.gather(1, t[:, None]).mean()


W, b = torch.randn(3, 4, generator=g), torch.randn(3, generator=g)
Z = X @ W.T + b
t = torch.tensor([0, 2, 1, 1, 2, 0])
P, Y = log_softmax(Z).exp(), F.one_hot(t, 3).double()
check_gradient("softmax CE, dW", lambda W: mean_loss(X, W, b), W, (P - Y).T @ X / 6)
check_gradient("softmax CE, db", lambda b: mean_loss(X, W, b), b, (P - Y).mean(0))
check_gradient("softmax CE, dX", lambda X: mean_loss(X, W, b), X, (P - Y) @ W / 6)
print("every row sum of P - Y is zero:", bool((P - Y).sum(1).abs().max() < 1e-12))

# %% [markdown]
# **Observe.** Each row of $P - Y$ sums to zero: what one class gains, the others lose. A constant added to
# all logits can therefore never be learned, which is the shift invariance once more.
#
# There is a longer road to $p - e_y$, through the Jacobian $\partial p_k/\partial z_j = p_k([k=j] - p_j)$;
# walk it once on paper. And the binary loss is the softmax loss of the two logits $(0, z)$; section 11 checks
# it.
#
# **Draw it.** Two classes, two logits, and the right class is 1. *Predict: in which direction does a step
# against the gradient, $e_y - p$, point at each place of the plane? Where is it long?*

# %%
side = torch.linspace(-3, 3, 13)
first, second = torch.meshgrid(side, side, indexing="xy")
plane = torch.stack([first, second], dim=-1)  # every place is a pair of logits
arrows = torch.tensor([0.0, 1.0]) - log_softmax(plane).exp()  # e_y - p, for y = 1
figure, ax = axes(width=4.4, height=4.2, dpi=80)
lines = ax.contour(first, second, -log_softmax(plane)[..., 1], levels=[0.1, 0.5, 1, 2, 4], colors="0.6")
ax.clabel(lines, fontsize=8)
ax.quiver(first, second, arrows[..., 0], arrows[..., 1], color=style(0)["color"], angles="xy", scale=14)
ax.plot(side, side, color="black", linewidth=0.8, linestyle=":")
ax.set(xlabel="logit of the wrong class", ylabel="logit of the right class", aspect="equal")
ax.set_title("Steps against the gradient, and lines of equal loss")
saved = run.figure(figure, "01_logits")
print("longest arrow", f"{arrows.norm(dim=-1).max():.2f}, shortest {arrows.norm(dim=-1).min():.4f}")

# %% [markdown]
# **Observe.** (Grey lines: places of equal loss, in nats. Dotted: equal logits, where $p = \frac12$.) All
# arrows point the same way, up and to the left, since the two entries of $e_y - p$ sum to zero. No arrow has a
# part along the dotted line: the common offset of the logits stays as it is. Below the line, where the model
# prefers the wrong class, the arrows are long; above it they shrink, and never end at a point. Section 6 comes
# back to that.

# %% [markdown]
# **Four names for one number.** Other books reach the same risk by other roads. You will meet the words.
#
# - *Likelihood.* If the pairs are independent, the model gives all labels together the probability
#   $\prod_j p_{y_j}$, the *likelihood* of $\theta$. Minus its logarithm, divided by $n$, is the empirical risk.
#   So the smallest risk is the largest likelihood.
# - *Nats.* We use the natural logarithm. Its unit is the *nat*; a bit is $\ln 2$ nats.
# - *Cross-entropy.* Let $q$ and $p$ be two distributions over the same $K$ outcomes. The cross-entropy is
#   $H(q, p) = -\sum_k q_k \log p_k$, the entropy is $H(q) = H(q, q)$, and their difference is the
#   Kullback–Leibler divergence, $\mathrm{KL}(q \,\Vert\, p) = H(q, p) - H(q)$. It is never negative, and zero
#   only for $p = q$. A label is the target $q = e_y$ with $H(q) = 0$, so its loss is both, $H(q, p)$ and KL.
#   A target may be any $q$: section 6 makes it softer, and in *distillation* another model says it.
# - *Perplexity* is $e^{\mathcal L}$. Whoever spreads the bets evenly over $V$ outcomes has the perplexity $V$.
#   Lesson 06 measures language models by it.

# %% [markdown]
# ## 5 The first loss is about ln V
#
# Before training, what should the loss be? Call the number of classes $V$, since it may be a whole vocabulary.
# With equal logits every class has $p = 1/V$ and the loss is exactly $\ln V$, whatever the labels.

# %% [markdown]
# A random head does not give equal logits. Suppose they are normal with mean zero and variance $s^2$, and
# *independent of the label*. Then $\mathbb E z_y = 0$, so $\mathbb E\,\ell = \mathbb E \operatorname{LSE}(z)$,
# and Jensen's inequality encloses it twice.
#
# - From below, for the convex $e^z$, with the mean $\bar z$ over the classes:
#   $\operatorname{LSE}(z) = \ln V + \ln \frac1V\sum_k e^{z_k} \ge \ln V + \bar z$, and
#   $\mathbb E \bar z = 0$.
# - From above, for the concave logarithm, with $\mathbb E e^{z_k} = e^{s^2/2}$:
#   $\mathbb E \operatorname{LSE}(z) \le \ln \sum_k \mathbb E e^{z_k} = \ln V + \tfrac12 s^2$.
#
# $$ \ln V \;\le\; \mathbb E\,\ell \;\le\; \ln V + \tfrac12 s^2. $$
#
# So the law "first loss $\approx \ln V$" has a condition: small logits ($s \ll 1$) that know nothing about
# the labels.
#
# **Predict.** A head on $d = 384$ features of unit variance, weights of standard deviation $0.02$: what is
# $s$? And for weights of standard deviation 1? Which first loss tells you that the initialisation is wrong?

# %% tags=["nbval-check-output"]
print("      V  std   ln V   first loss   upper bound")
for V, std in ((2, 0.02), (100, 0.02), (30522, 0.02), (30522, 1.0)):
    g = torch.Generator().manual_seed(5)
    features = torch.randn(64, 384, generator=g)
    logits = features @ (std * torch.randn(V, 384, generator=g)).T
    labels = torch.randint(V, (64,), generator=g)
    loss = -log_softmax(logits).gather(1, labels[:, None]).mean().item()
    bound = math.log(V) + 384 * std**2 / 2
    print(f"{V:7d} {std:4.2f} {math.log(V):6.2f} {loss:12.2f} {bound:13.2f}")

# %% [markdown]
# **Observe.** Here $s = 0.02\sqrt{384} \approx 0.4$ for the small weights. The first loss sits near $\ln V$,
# whether $V$ counts sentiments or the words of BERT. (The bounds hold for the mean; a sample of labels may
# fall slightly outside.) For the large weights $s = \sqrt{384} \approx 20$, and the loss is far above.
#
# **Use it as an instrument.** *Too high* at step 0: the logits are too large. *Too low*: the logits already
# know the labels, so the model is not the untrained one that you think it is; or the denominator counts
# positions that have no target (section 9). For a pre-trained language model $\ln V$ is not expected at all:
# its logits do depend on the labels.

# %% [markdown]
# ## 6 Label smoothing moves the optimum to a finite place
#
# With one-hot targets the loss is never zero: the logit gap wants to grow for ever. Label smoothing
# (Szegedy et al., 2016) replaces $e_y$ by $q = (1-\varepsilon)\, e_y + \varepsilon/K$, again $K$
# probabilities, with $0 < \varepsilon < 1$. Since $\sum_k q_k = 1$, the loss and its gradient are
#
# $$ \ell_\varepsilon = -\sum_k q_k \log p_k = \operatorname{LSE}(z) - \sum_k q_k z_k, \qquad
#    \frac{\partial \ell_\varepsilon}{\partial z} = p - q. $$
#
# LSE is convex and the rest is linear in $z$, so the loss is smallest where its gradient is zero: at $p = q$. There
# $z_y - z_k = \ln p_y - \ln p_k$. So the best gap between the right logit and each other one, and the
# smallest possible loss, are
#
# $$ z_y - z_k = \ln\frac{q_y}{q_k} = \ln\frac{1 - \varepsilon + \varepsilon/K}{\varepsilon/K}, \qquad
#    \min_z \ell_\varepsilon = H(q) = -\sum_k q_k \log q_k > 0. $$


# %% tags=["defines:losses.cross_entropy", "nbval-check-output"]
def cross_entropy(logits, targets, smoothing=0.0):
    """One loss per example or position: logits (..., K), targets (...) class indices."""
    if logits.shape[:-1] != targets.shape or not 0 <= smoothing < 1:
        shapes = f"logits {tuple(logits.shape)}, targets {tuple(targets.shape)}"
        raise TrainingError(f"{shapes}, smoothing {smoothing}: need (..., K), (...) and 0 <= smoothing < 1")
    log_p = log_softmax(logits)
    picked = log_p.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    if smoothing == 0:  # 0 · (−inf) would be nan where a logit is −inf
        return -picked
    return -(1 - smoothing) * picked - smoothing * log_p.mean(-1)


for eps in (0.1, 0.5):
    closed = (P - (1 - eps) * Y - eps / 3) / 6
    check_gradient(f"smoothing {eps}", lambda z, eps=eps: cross_entropy(z, t, eps).mean(), Z, closed)

# %% [markdown]
# **Predict.** One example, $K = 4$, gradient descent on the logits alone. *Where does the gap stop for
# $\varepsilon = 0$, and where for $\varepsilon = 0.1$?*

# %% tags=["nbval-check-output"]
K, target = 4, torch.tensor(0)
for eps in (0.0, 0.1):
    q = (1 - eps) * F.one_hot(target, K).double() + eps / K
    z = torch.zeros(K)
    for step in range(1, 4001):
        z = z - 1.0 * (log_softmax(z).exp() - q)  # the closed form is all we need
        if step in (40, 400, 4000):
            print(f"eps {eps}, step {step:4d}: gap {z[0] - z[1]:6.3f}", end="; ")
    print(f"loss {cross_entropy(z, target, eps):.3f}")
print(f"eps 0.1, formula: gap {(q[0] / q[1]).log():.3f}, floor {-(q * q.log()).sum():.3f}")

# %%
gaps = torch.linspace(-1, 8, 91)
logits = torch.stack([gaps, *[torch.zeros_like(gaps)] * (K - 1)], dim=1)
figure, ax = axes(width=5.2, dpi=80)
for i, eps in enumerate((0.0, 0.1, 0.3)):
    curve = cross_entropy(logits, torch.zeros(len(gaps), dtype=torch.long), eps)
    ax.plot(gaps, curve, **style(i), markevery=15, label=rf"$\varepsilon$ = {eps}")
    if eps:
        best = math.log((1 - eps + eps / K) / (eps / K))
        lowest = curve[(gaps - best).abs().argmin()]
        ax.plot(best, lowest, "k*", markersize=13, label="minimum, by formula" if i == 1 else None)
ax.set(xlabel="gap between the right logit and the others", ylabel="loss (nats)", ylim=(0, None))
ax.legend(loc="upper center")
saved = run.figure(figure, "01_label_smoothing")

# %% [markdown]
# **Observe.** Without smoothing the gap grows with the logarithm of the number of steps and has no limit:
# for this example the $\arg\min$ of section 1 is the empty set. With smoothing it stops where the formula
# says. The floor of a smoothed loss is not a failure to learn, and losses with different $\varepsilon$ cannot
# be compared.

# %% [markdown]
# ## 7 One sign
#
# One of the source articles defines the loss of an example with its minus, $\ell = -[\dots]$, and then the
# risk with another one: $\mathcal L = -\frac1N\sum_i \ell_i$.
#
# **Predict.** You minimise this $\mathcal L$ with the correct gradient of it, on two clouds of points in the
# plane, one per class. *What does the training log show: rising or falling? And the accuracy?*

# %%
labels = torch.arange(200).double() % 2
points = torch.randn(200, 2, generator=torch.Generator().manual_seed(7)) + 3 * labels[:, None] - 1.5


# %% tags=["nbval-check-output"]
def descend(sign, steps=60, eta=0.5):  # gradient descent on sign times the risk
    w, history = torch.zeros(2), []
    for _ in range(steps):
        history.append(binary_cross_entropy(points @ w, labels).mean().item())
        w = w - eta * sign * points.T @ (torch.sigmoid(points @ w) - labels) / 200
    return history, ((points @ w > 0) == labels.bool()).double().mean().item()


right, flipped = descend(+1), descend(-1)
for step in (0, 20, 59):
    print(f"step {step:2d}: right {right[0][step]:5.3f}; flipped logs {-flipped[0][step]:8.3f}")
print(f"accuracy: right {right[1]:.2f}, flipped {flipped[1]:.2f}; guessing 0.50")

# %%
figure, ax = axes(width=5.2, dpi=80)
for i, (name, history) in enumerate((("risk as in section 1", right[0]), ("sign flipped", flipped[0]))):
    ax.plot(history, **style(i), markevery=10, label=name)
ax.axhline(math.log(2), color="0.5", linewidth=0.8, linestyle=":")
ax.annotate("ln 2: knows nothing", (35, math.log(2)), xytext=(0, 4), textcoords="offset points")
ax.set(xlabel="step", ylabel="cross-entropy (nats, log scale)", yscale="log")
ax.legend(loc="center right")
saved = run.figure(figure, "01_sign_error")

# %% [markdown]
# **Observe.** The flipped log falls smoothly, as a good log does. The figure shows what it hides: the
# cross-entropy, which is the log with its sign put right, diverges. The model is worse than guessing.
#
# The first symptom is not the curve but the type: $\mathcal L : \Theta \to \mathbb R_{\ge 0}$, and the log
# goes below zero.
#
# **Two lines that contradict each other.** The next line of the same article prints a gradient, and
# that one belongs to the *right* sign. If so, the gradient of the printed risk and the printed gradient are
# opposite. Autograd decides.

# %% tags=["nbval-check-output"]
at = torch.tensor([0.3, -0.2], requires_grad=True)
probability = torch.sigmoid(points @ at)
inner = -(labels * probability.log() + (1 - labels) * (1 - probability).log())
(of_printed_risk,) = torch.autograd.grad(-inner.mean(), at)
printed_gradient = points.T @ (probability - labels).detach() / 200
assert of_printed_risk.shape == printed_gradient.shape
print("they cancel:", bool((of_printed_risk + printed_gradient).abs().max() < 1e-12))
print("and are not zero:", bool(printed_gradient.abs().max() > 0.1))

# %% [markdown]
# ## 8 Weight decay in the update
#
# An article writes one update for "SGD, Adam and others", with a step size $\eta > 0$ and a decay
# $\lambda \ge 0$: $\theta \leftarrow \theta - \eta\nabla\mathcal L - \eta\lambda\theta$. For plain gradient
# descent this is the same as descending a penalised risk, because
# $\nabla \tfrac\lambda2\lVert\theta\rVert^2 = \lambda\theta$:
#
# $$ \theta - \eta\,\nabla\Big(\mathcal L + \tfrac\lambda2\lVert\theta\rVert^2\Big)
#    = (1 - \eta\lambda)\,\theta - \eta\nabla\mathcal L. $$
#
# **Predict.** *Is it also the same for Adam, which divides each coordinate of the gradient by its own
# running size?*


# %%
def train(make, steps=50):
    weight = torch.tensor([2.0, -3.0], requires_grad=True)
    optimiser = make([weight])
    for _ in range(steps):
        optimiser.zero_grad()
        binary_cross_entropy(points @ weight, labels).mean().backward()
        optimiser.step()
    return weight.detach()


by_hand, lr, decay = torch.tensor([2.0, -3.0]), 0.5, 0.1
for _ in range(50):
    gradient = points.T @ (torch.sigmoid(points @ by_hand) - labels) / 200
    by_hand = (1 - lr * decay) * by_hand - lr * gradient


# %% tags=["nbval-check-output"]
def penalised(w):
    return binary_cross_entropy(points @ w, labels).mean() + decay / 2 * (w * w).sum()


closed = points.T @ (torch.sigmoid(points @ by_hand) - labels) / 200 + decay * by_hand
check_gradient("penalised risk", penalised, by_hand, closed)
sgd = train(lambda weights: torch.optim.SGD(weights, lr=lr, weight_decay=decay))
print("SGD with the penalty = decay in the update:", bool((sgd - by_hand).abs().max() < 1e-12))
for kind in (torch.optim.Adam, torch.optim.AdamW):
    print(f"{kind.__name__:5s}", train(lambda weights, kind=kind: kind(weights, lr=0.1, weight_decay=decay)))

# %% [markdown]
# **Observe.** For plain SGD the two are one algorithm. (With momentum they are two: a penalty also enters the
# velocity, the decay in the update does not.) For Adam they are two. Inside the gradient the decay is
# divided by the running size as well: a size below one makes it stronger, a size above one weaker. In the
# print Adam ends at smaller weights than AdamW, which keeps the decay outside (Loshchilov and Hutter, 2019).
# Lesson 02 takes this apart.

# %% [markdown]
# ## 9 Spans and sequences: the same object
#
# *A span* in a text of $L$ tokens is a pair, $\mathcal Y = \{0, \dots, L-1\}^2$. Three articles train a model
# for one span and derive the binary loss for it. That loss has another type: $L$ answers of yes or no, which
# fits a text with several spans. For one span, give every token two logits:
# $z^{\text{start}}, z^{\text{end}} \in \mathbb R^L$. Model start $s$ and end $e$ as independent given $x$ and
# take minus the logarithm:
#
# $$ -\log p(s, e \mid x) = \ell\big(z^{\text{start}}, s\big) + \ell\big(z^{\text{end}}, e\big). $$
#
# *A sequence* of $T$ tokens has the chain rule of probability, with no independence assumed. The logits
# $z_t \in \mathbb R^V$ are computed from $x$ and the tokens before position $t$:
#
# $$ -\log p(y_1 \dots y_T \mid x) = \sum_{t=1}^T -\log p(y_t \mid x, y_{<t})
#    = \sum_{t=1}^T \ell(z_t, y_t). $$
#
# Both are sums of softmax cross-entropies over positions: two positions with $L$ classes, or $T$ positions
# with $V$ classes.

# %% [markdown]
# *A mask* $m_t \in \{0,1\}$ says which positions have a target: padding and prompts have none. Let $C > 0$ be
# the denominator, usually $C = \sum_t m_t$:
#
# $$ \mathcal L = \frac1C\sum_t m_t\,\ell(z_t, y_t), \qquad
#    \frac{\partial\mathcal L}{\partial z_t} = \frac{m_t}{C}\,(p_t - e_{y_t}). $$


# %% tags=["defines:losses.masked_cross_entropy"]
def masked_cross_entropy(logits, targets, denominator=None, ignore_index=-100):
    """Sum over the positions that have a target, divided by a denominator that you can see."""
    if logits.shape[:-1] != targets.shape:
        raise TrainingError(
            f"logits {tuple(logits.shape)}, targets {tuple(targets.shape)}: need (..., V) and (...)"
        )
    counts = targets != ignore_index
    if not counts.any():
        raise TrainingError(f"all {targets.numel()} targets are {ignore_index}: nothing to learn from")
    if denominator is None:
        denominator = counts.sum()
    if not 0 < denominator < math.inf:  # nan is no number either
        raise TrainingError(f"the denominator is {denominator}: it must be positive")
    return cross_entropy(logits[counts], targets[counts]).sum() / denominator


# %% tags=["nbval-check-output"]
g = torch.Generator().manual_seed(9)
tokens = torch.randn(5, 7, generator=g)  # T = 5 positions, V = 7 tokens
answer = torch.tensor([-100, 3, 1, 6, -100])  # a prompt position, three answer tokens, padding
mask = (answer != -100).double()[:, None]
closed = mask * (log_softmax(tokens).exp() - F.one_hot(answer.clamp(min=0), 7)) / 3
check_gradient("masked sequence", lambda z: masked_cross_entropy(z, answer), tokens, closed)
print("gradient at masked positions is exactly zero:", bool((closed[[0, 4]] == 0).all()))

nothing = torch.full((5,), -100)
print("all masked, torch:", F.cross_entropy(tokens, nothing).item())
with expect_error(TrainingError, match="nothing to learn"):
    masked_cross_entropy(tokens, nothing)

# %% tags=["nbval-check-output"]
start_and_end = torch.randn(2, 12, generator=g)  # two positions, L = 12 places in the text
s, e = 4, 6
probability = start_and_end.softmax(1)
span = -torch.log(probability[0, s] * probability[1, e])
assert torch.allclose(span, masked_cross_entropy(start_and_end, torch.tensor([s, e]), denominator=1))
print("span: minus log of the product = sum over 2 positions")

product = math.prod(tokens.softmax(1)[i, answer[i]].item() for i in (1, 2, 3))
assert math.isclose(-math.log(product), masked_cross_entropy(tokens, answer, denominator=1).item())
print("sequence: minus log of the product = sum over 3 positions")

# %% [markdown]
# **Observe.** With denominator 1 the masked function is minus the logarithm of a product of probabilities,
# for the span and for the sequence.
#
# When truncation cuts a whole answer away, every position is masked. torch returns zero over zero, which is
# nan, and so is every average that contains it. We stop with a sentence instead. Which logit predicts which
# token (the shift by one) is the business of lesson 06; here they are already aligned.

# %% [markdown]
# ## 10 Which mean? The denominator question
#
# Four answers have 1, 2, 3 and 18 tokens. Every token of the short ones is *yes*, every token of the long
# one is *no*. The model has a single parameter: $p = \sigma(z)$, the same probability of *yes* everywhere.
# Three people report "the mean loss":
#
# | risk | weight of a token in an answer of $T$ tokens | who does this |
# |---|---|---|
# | token mean | $1/\sum_i T_i$ | a sum over all tokens, divided once |
# | sequence mean | $1/(N\,T)$, $N$ answers | a mean per answer, then a mean |
# | micro-batch mean | $1/(B\,n_b)$, $n_b$ tokens in micro-batch $b$ of $B$ | a mean per micro-batch, then a mean |

# %% [markdown]
# All three are $\sum_t a_t \ell_t$ over all tokens $t$, with weights $a_t > 0$ that sum to one. With
# $y_t = 1$ for *yes* the gradient is $\sum_t a_t (p - y_t) = p - \sum_t a_t y_t$. It is zero where $p$ is the
# weighted share of *yes*: $p^* = \sum_t a_t y_t$.
#
# **Predict.** *Order the three optima. Which of them changes when you cut the same data into other
# micro-batches?*

# %% tags=["nbval-check-output"]
lengths = (1, 2, 3, 18)
labels = [torch.ones(1), torch.ones(2), torch.ones(3), torch.zeros(18)]


def optimum(groups):  # average over the tokens of each group of answers, then over the groups
    parts = [torch.cat([labels[i] for i in group]) for group in groups]
    return sum(Fraction(int(part.sum()), len(part)) for part in parts) / len(parts)


print("token mean     ", optimum([(0, 1, 2, 3)]), "  sequence mean", optimum([(0,), (1,), (2,), (3,)]))
cuts = [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))]
for cut in cuts:
    sizes = " | ".join(" + ".join(str(lengths[i]) for i in group) for group in cut)
    print(f"micro-batch mean {optimum(cut)!s:5s} for the cut {sizes}")

# %% [markdown]
# **Observe.** Three risks, three optima, from one data set. Token and sequence mean are two honest choices:
# "every token counts alike" and "every answer counts alike". The micro-batch mean is neither. Its optimum
# depends on how the data were cut, which no one chose.
#
# **Does the code agree with the theory?** The next cell cuts the data in each way and checks that the
# gradient is $p - p^*$: with the cut's own $p^*$ for the mean of means, and with the token mean's $p^*$ for
# every cut once the denominator is the true one.


# %% tags=["nbval-check-output"]
def accumulated(z, groups, denominator=None):  # what a loop over micro-batches adds up
    total = torch.zeros(())
    for group in groups:
        targets = torch.cat([labels[i] for i in group]).long()
        logits = torch.stack([torch.zeros(()), z]).expand(len(targets), 2)
        part = masked_cross_entropy(logits, targets, denominator)
        total = total + (part / len(groups) if denominator is None else part)
    return total


z = torch.tensor(0.3)
for cut in cuts:
    to_own, to_token_mean = torch.sigmoid(z) - float(optimum(cut)), torch.sigmoid(z) - 1 / 4
    check_gradient("mean of means", lambda z, cut=cut: accumulated(z, cut), z, to_own)
    check_gradient("true denominator", lambda z, cut=cut: accumulated(z, cut, 24), z, to_token_mean)

# %% [markdown]
# **What to do.** Divide by the number of targets of the *whole* batch in every micro-batch: then the cut no
# longer matters. The mistake lived in widely used training code until 2024 (repaired in transformers, pull
# request 34191).
# Lesson 06 meets it again with gradient accumulation on a language model.

# %% [markdown]
# ## 11 With the library
#
# Everything so far has a counterpart in `torch.nn.functional`. We compare values and gradients on the same
# inputs, in both precisions. Where the printed difference is far below the rounding unit of the type, all
# larger entries agree in every digit.


# %%
def difference(ours, theirs, at):
    """Largest difference in value or gradient, relative where the numbers are larger than one."""
    results = []
    for loss in (ours, theirs):
        point = at.clone().requires_grad_(True)
        value = loss(point)
        results.append((value.detach(), torch.autograd.grad(value.sum(), point)[0]))
    return max(((a - b).abs() / b.abs().clamp(min=1)).max().item() for a, b in zip(*results, strict=True))


# %%
some, eps = torch.where(t == 2, -100, t), 0.1
bce, pair = F.binary_cross_entropy_with_logits, lambda z: torch.stack([torch.zeros_like(z), z], -1)
pairs = {
    "log_sum_exp": (log_sum_exp, lambda z: torch.logsumexp(z, -1)),
    "log_softmax": (log_softmax, lambda z: F.log_softmax(z, -1)),
    "cross_entropy": (lambda z: cross_entropy(z, t).mean(), lambda z: F.cross_entropy(z, t)),
    "smoothed": (
        lambda z: cross_entropy(z, t, eps).mean(),
        lambda z: F.cross_entropy(z, t, label_smoothing=eps),
    ),
    "masked": (lambda z: masked_cross_entropy(z, some), lambda z: F.cross_entropy(z, some)),
    "binary": (lambda z: binary_cross_entropy(z, Y.to(z)).mean(), lambda z: bce(z, Y.to(z))),
    "softmax of (0, z)": (lambda z: cross_entropy(pair(z), Y.long()).mean(), lambda z: bce(z, Y.to(z))),
}

# %%
parity = {torch.float64: 0.0, torch.float32: 0.0}
for name, (ours, theirs) in pairs.items():
    found = {dtype: difference(ours, theirs, (3 * Z).to(dtype)) for dtype in parity}
    parity = {dtype: max(parity[dtype], found[dtype]) for dtype in parity}
    print(f"{name:18s}", "  ".join(f"{str(dtype)[6:]} {value:.0e}" for dtype, value in found.items()))
assert parity[torch.float64] < 1e-12 and parity[torch.float32] < 1e-5
run.record(parity_float64=parity[torch.float64], parity_float32=parity[torch.float32])

# %% [markdown]
# ## 12 Experiment: the generalisation gap on real sentences
#
# **Question.** How far apart are the risk that we push down and the risk of the same weights on sentences
# that the model has not seen? What does the training size $n$ do to this *gap*, and what does the number of
# steps do?
#
# The sentences are snippets of film reviews, each rated by people. Features: TF-IDF, one coordinate per word,
# larger the rarer the word is among the sentences; every row of $X$ has length one. The vocabulary comes from
# the text of the training split, without labels. The model is that of section 2.

# %%
import numpy as np
from scipy.sparse.linalg import svds
from scipy.special import expit
from sklearn.feature_extraction.text import TfidfVectorizer

from instructlab_utils.intervals import t_interval
from instructlab_utils.tasks import load, subsample

task = load("movie-sentiment")
train_split, dev_split, test_split = (task.splits[name] for name in ("train", "dev", "test"))
vectoriser = TfidfVectorizer(sublinear_tf=True).fit(train_split["text"])
X_test, y_test = vectoriser.transform(test_split["text"]), torch.tensor(test_split["label"]).double()
X_dev, y_dev = vectoriser.transform(dev_split["text"]), torch.tensor(dev_split["label"]).double()
print(f"{len(train_split)} training and {len(test_split)} test sentences, {X_test.shape[1]} words")
for row in test_split.select(range(3)):
    print(f"  {task.labels[row['label']]:9s} {row['text'][:90]}")

# %% [markdown]
# **A step size from theory.** The derivative of $\frac1n X^\top(p - y)$ is the Hessian
# $\frac1n X^\top \operatorname{diag}(p(1-p))\, X$, and $p(1-p) \le \frac14$. So its largest eigenvalue is at
# most $S = \sigma_{\max}(X)^2/4n$, with the largest singular value $\sigma_{\max}$. Weight decay adds
# $\lambda$ to $S$. With the gradient $g$ and the step $\eta = 1/S$, Taylor's formula gives
#
# $$ \mathcal L(w - \eta g) \le \mathcal L(w) - \eta\lVert g\rVert^2 + \tfrac12 S \eta^2 \lVert g\rVert^2
#    = \mathcal L(w) - \tfrac{1}{2S}\lVert g\rVert^2. $$
#
# Such a step can never raise what it descends. The step size needs no tuning; when to stop is another question.


# %%
def fit(
    X, y, looks, decay
):  # gradient descent, X sparse (n, d); the weights after each number of steps in looks
    largest = svds(X, k=1, v0=np.ones(min(X.shape)), return_singular_vectors=False)[0]
    S = largest**2 / (4 * len(y)) + decay
    w, found = np.zeros(X.shape[1]), []
    for step in range(1, max(looks) + 1):
        w = w - (X.T @ (expit(X @ w) - y) / len(y) + decay * w) / S
        if step in looks:
            found.append(w)
    return found


def risk_of(w, X, y):  # mean cross-entropy without the penalty, accuracy, standard error of the mean
    z = torch.from_numpy(X @ w)
    losses, hits = binary_cross_entropy(z, y), ((z > 0) == y.bool()).double()
    return losses.mean().item(), hits.mean().item(), losses.std().item() / math.sqrt(len(losses))


# %% [markdown]
# **Predict, and write it down.** (a) As $n$ grows from 50, does the *training* risk rise or fall? (b) A
# model that always says $p = \frac12$ has risk $\ln 2$. Is the fitted model better than that on new
# sentences at $n = 50$? (c) With weight decay $\lambda = 10^{-3}$: is the gap smaller? Is the *test* risk
# smaller, at every $n$? All three are asked of the weights after a fixed number of steps; the cell prints it.

# %%
n_max, n_seeds = n_max or run.budget.n_max, n_seeds or run.budget.n_seeds
steps, decays = steps or run.budget.steps, (0.0, 1e-3)
sizes = [50 * 2**i for i in range(20) if 50 * 2**i <= min(n_max, len(train_split))]
looks = sorted({max(1, steps // 100), max(1, steps // 10), steps})
results = np.zeros((len(decays), len(looks), len(sizes), n_seeds, 6))
for i, n in enumerate(sizes):
    for s in range(n_seeds):
        part = subsample(train_split, n, seed + s)
        X_n, y_n = vectoriser.transform(part["text"]), torch.tensor(part["label"]).double()
        for k, decay in enumerate(decays):
            for j, w in enumerate(fit(X_n, y_n.numpy(), looks, decay)):
                on_dev = risk_of(w, X_dev, y_dev)[0]
                results[k, j, i, s] = *risk_of(w, X_n, y_n)[:2], *risk_of(w, X_test, y_test), on_dev
print(
    f"{results[:, 0, ..., 0].size} fits; below: after {steps} steps, means and 95 % intervals over training sets"
)

# %% [markdown]
# **Read** the table one column at a time, from top to bottom. In brackets stand Student's t intervals over
# the training sets that were drawn; lesson 03 explains them.

# %%
train_risk, train_accuracy, test_risk, test_accuracy, test_error, _ = np.moveaxis(results[:, -1], -1, 0)
gap = test_risk - train_risk
print(f"{'decay':>6} {'n':>5}   {'train risk':22}{'test risk':22}{'gap':22}test accuracy")
for k, decay in enumerate(decays):
    for i, n in enumerate(sizes):
        cells = [t_interval(values[k, i]) for values in (train_risk, test_risk, gap, test_accuracy)]
        print(f"{decay:6g} {n:5d}  ", " ".join(f"{cell!s:21}" for cell in cells))

# %%
figure, panels = axes(1, 2, width=4.4, sharey=True, dpi=80)
for k, ax in enumerate(panels):
    for i, (name, values) in enumerate((("train risk", train_risk), ("test risk", test_risk))):
        bands = [t_interval(row) for row in values[k]]
        ax.plot(sizes, [band.mean for band in bands], **style(i), label=name)
        ends = [band.low for band in bands], [band.high for band in bands]
        ax.fill_between(sizes, *ends, color=style(i)["color"], alpha=0.3)
    ax.axhline(math.log(2), color="0.3", linewidth=0.8, linestyle=":", label="ln 2: always one half")
    ax.set(xscale="log", xlabel="training sentences n", title=rf"weight decay $\lambda$ = {decays[k]:g}")
    ax.set_xticks(sizes[::2], labels=[str(n) for n in sizes[::2]])
    ax.minorticks_off()
panels[0].set(ylabel="cross-entropy (nats)", ylim=(0, None))
panels[1].legend(loc="lower right")
saved = run.figure(figure, "01_generalisation_gap")

# %% [markdown]
# **Observe.** (a) The training risk without decay is small and rises with $n$. That is a statement about
# `steps` steps and nothing else. Where a hyperplane separates the classes the plain risk has no minimiser, as
# in section 6: it can be pushed as close to zero as you like, and the number of steps decides how far you
# come. The next cell prints whether our sentences are separated. The decay of section 8 gives a minimiser
# back, since its penalty grows with the weights.
#
# **Let the intervals decide (b) and (c).** Two methods that saw the same training set are compared on it,
# pair by pair. The next cell prints on which side of zero the interval of the differences lies. (b) asks about
# *new* sentences, and the test sentences are a sample, too. So its interval is widened by two standard errors
# of the test mean. (c) compares on the same test sentences and stays as it is.


# %%
def verdict(values, error=0.0):
    """Side of zero of the t interval over the training sets, widened by two standard errors of the test mean."""
    interval = t_interval(values)
    half = math.hypot(interval.high - interval.mean, 2 * error)
    return "yes" if interval.mean > half else "no" if interval.mean < -half else "undecided"


shrinks = verdict(gap[0, 0] - gap[0, -1])
errors = test_error[0].mean(1)
worse = [verdict(row - math.log(2), error) for row, error in zip(test_risk[0], errors, strict=True)]
helps = [verdict(row) for row in test_risk[0] - test_risk[1]]
print(
    f"lowest training accuracy of all fits without decay, after {steps} steps: {train_accuracy[0].min():.4f}"
)
print(f"gap smaller at n = {sizes[-1]} than at n = {sizes[0]}, after {steps} steps: {shrinks}")
for n, *row in zip(sizes, worse, helps, strict=True):
    print(f"n = {n:4d}: test risk above ln 2 without decay: {row[0]:9s} decay lowers the test risk: {row[1]}")

# %% [markdown]
# **Observe.** The first line answers the question of separation. Then (c): a smaller gap is not yet a smaller
# test risk. After this number of steps and for this $\lambda$ the last column changes its answer from one $n$
# to another. So many verdicts, each at the level of one in twenty and uncorrected: a single one may be luck.
#
# **The number of steps on an axis.** The same descent without decay, at the smallest and at the largest $n$,
# ten times as long. *Predict: where do the two training risks end? And the two test risks?*

# %%
ladder = sorted({max(1, round(10 * steps / 10**e)) for e in np.linspace(0, 3, 13)})
paths = np.zeros((2, n_seeds, len(ladder), 2))  # training risk and test risk
for i, n in enumerate((sizes[0], sizes[-1])):
    for s in range(n_seeds):
        part = subsample(train_split, n, seed + s)
        X_n, y_n = vectoriser.transform(part["text"]), torch.tensor(part["label"]).double()
        for j, w in enumerate(fit(X_n, y_n.numpy(), ladder, 0.0)):
            paths[i, s, j] = risk_of(w, X_n, y_n)[0], risk_of(w, X_test, y_test)[0]
gaps = paths[..., 1] - paths[..., 0]
for k in (steps, 10 * steps):
    small, large = gaps[:, :, ladder.index(k)]
    print(
        f"after {k:4d} steps: gap {small.mean():.3f} at n = {sizes[0]}, {large.mean():.3f} at n = {sizes[-1]};",
        end=" ",
    )
    print("difference", t_interval(small - large))

# %%
figure, panels = axes(1, 2, width=4.4, sharey=True, dpi=80)
for ax, n, path in zip(panels, (sizes[0], sizes[-1]), paths, strict=True):
    for i, name in enumerate(("train risk", "test risk")):
        ax.plot(ladder, path[:, :, i].mean(0), **style(i), markersize=4, label=name)
        ax.fill_between(
            ladder, path[:, :, i].min(0), path[:, :, i].max(0), color=style(i)["color"], alpha=0.3
        )
    ax.axhline(math.log(2), color="0.3", linewidth=0.8, linestyle=":", label="ln 2: always one half")
    ax.axvline(steps, color="0.3", linewidth=0.8, linestyle="--", label="where the table stops")
    ax.set(xscale="log", xlabel="steps of gradient descent", title=f"n = {n}, no decay")
panels[0].set(ylabel="cross-entropy (nats)", ylim=(0, None))
panels[0].legend(loc="center left")
saved = run.figure(figure, "01_steps")
for n, path in zip((sizes[0], sizes[-1]), paths[..., 1].mean(1), strict=True):
    print(
        f"n = {n}: lowest mean test risk {path.min():.3f} after {ladder[path.argmin()]} steps, {path[-1]:.3f} at the end"
    )

# %% [markdown]
# **Observe.** (Bands: from the smallest to the largest of the training sets.) Both training risks end near
# zero. At the large $n$ the test risk falls and then rises; at the small $n$ it is lowest where the picture
# begins, and only rises. So the gap in the table is a matter of the dashed line. Read the two lines above the
# figure: at that number of steps the gap is smaller at the large $n$; ten times later the interval of the
# difference contains zero. In these runs more data shrank the gap of a descent that was stopped, and it is
# undecided for the longer one.
#
# Stopping is a choice like $\lambda$, and so it is made on sentences of its own, the *dev* split. *Predict: with
# both chosen there, how much lower is the test risk? Which choice is made most often?*

# %%
print("decay and steps chosen on the dev sentences, for each training set; test risk with that choice")
flat = results.reshape(-1, len(sizes), n_seeds, 6)  # one row for each pair of a decay and a number of steps
options = [f"decay {decay:g}, {k} steps" for decay in decays for k in looks]
for i, n in enumerate(sizes):
    best = flat[:, i, :, 5].argmin(0)
    tuned, most = flat[best, i, range(n_seeds), 2], np.bincount(best).argmax()
    saved_risk = t_interval(test_risk[0, i] - tuned)
    print(f"n = {n:4d}: {tuned.mean():.3f}, below that of the table by {saved_risk}", end="; ")
    print(f"{(best == most).sum()} of {n_seeds} chose {options[most]}")

# %%
part = subsample(train_split, sizes[0], seed)
X_n, y_n = vectoriser.transform(part["text"]), np.array(part["label"])
for k, w in zip((steps, 10 * steps), fit(X_n, y_n, (steps, 10 * steps), 0.0), strict=True):
    p = expit(X_test @ w)
    sure, right = np.maximum(p, 1 - p), (p > 0.5) == y_test.numpy().astype(bool)
    print(f"n = {sizes[0]}, {k:4d} steps: mean confidence {sure[right].mean():.2f} where right, ", end="")
    print(f"{sure[~right].mean():.2f} where wrong; mean loss {-np.log(sure[right]).mean():.2f} and ", end="")
    print(f"{-np.log(1 - sure[~right]).mean():.2f}; accuracy {right.mean():.2f}")

# %% [markdown]
# **Observe.** In the first list each line says how far the choice on dev lowers the test risk, and which pair most
# training sets chose. In the stored run no favourite has the decay: here it was one way to stop early among
# others. A verdict on "decay" at one number of steps is a verdict on that number, too.
#
# The last two lines explain how a test risk above $\ln 2$ can stand beside an accuracy above one half. A right
# answer costs less than $\ln 2$, a wrong one more. This model is about as sure where it is wrong as where it is
# right, and with more steps it is surer of both, while the accuracy stays. Cross-entropy counts that; accuracy
# does not see it.
#
# **What did it learn?** A step against the gradient $X^\top(p - y)/n$ raises the weight of a word for every
# positive sentence that contains it and is not yet believed. So the weights can be read. *Guess three words
# on each side, then look. Does every word that you see express an opinion?*

# %%
(w,) = fit(vectoriser.transform(train_split["text"]), np.array(train_split["label"]), [steps], 0.0)
words, order = vectoriser.get_feature_names_out(), w.argsort()
print("most negative:", ", ".join(words[order[:12]]))
print("most positive:", ", ".join(words[order[::-1][:12]]))

# %% [markdown]
# ## 13 What we showed
#
# Every number below is computed by the cells above.

# %%
run.record(gradients_checked=worst["checked"], worst_autograd=worst["autograd"])
run.record(worst_finite_differences=worst["finite differences"], n_seeds=n_seeds)
run.record(n_small=sizes[0], gap_small=gap[0, 0].mean(), decay_helps_small=helps[0])
run.record(n_large=sizes[-1], gap_large=gap[0, -1].mean(), decay_helps_large=helps[-1], gap_shrinks=shrinks)
run.record(accuracy_large=test_accuracy[0, -1].mean(), n_test=len(test_split), steps=steps)
longer = t_interval(gaps[0, :, -1] - gaps[1, :, -1])
run.record(longer_mean=longer.mean, longer_low=longer.low, longer_high=longer.high)
m = run.metrics
print(f"{m['gradients_checked']} gradients agree three ways; largest difference between closed form and")
print(f"  autograd {m['worst_autograd']:.0e}, and finite differences {m['worst_finite_differences']:.0e}")
print(f"equal to torch within {m['parity_float64']:.0e} (float64), {m['parity_float32']:.0e} (float32)")
print(f"film reviews, the weights after {m['steps']} steps without decay:")
for size in ("small", "large"):
    print(f"  n = {m[f'n_{size}']}: mean gap {m[f'gap_{size}']:.3f} nats,", end=" ")
    print(f"decay lowers the test risk: {m[f'decay_helps_{size}']}")
print(
    f"  gap smaller at the larger n: {m['gap_shrinks']}; after ten times as many steps the difference is",
    end=" ",
)
print(f"{m['longer_mean']:.3f} [{m['longer_low']:.3f}, {m['longer_high']:.3f}]")
print(f"  test accuracy at the larger n: {m['accuracy_large']:.3f}, {m['n_test']} sentences")

# %% [markdown]
# **What we did not show.** That the minimiser of a risk is a *useful* model: cross-entropy is a proxy for
# what people want. That gradients agree everywhere: three computations at a few random points are strong
# evidence, not a proof, and ties need their own check (section 3). That the intervals cover all
# uncertainty: those of the table cover the draw of the training sentences, not the draw of the test sentences,
# and the largest training sets overlap, which makes their bands too narrow. That the gap shrinks with $n$ as
# such, or follows a law: it belongs to weights after a number of steps, and the steps axis shows how much that
# number decides. Anything about the minimiser without decay: where the classes are separated it does not exist.
# What a finer choice of $\lambda$ and steps would give: six pairs were tried. And which of the means of
# section 10 is *right*: this depends on what an error costs you.

# %% [markdown]
# **What should I set?**
#
# | you want | set | check |
# |---|---|---|
# | a loss of classes | `F.cross_entropy(logits, labels)`: logits, not probabilities | the first value is near $\ln K$ |
# | a loss of two classes | `F.binary_cross_entropy_with_logits` | large logits, no infinity |
# | positions that do not count | label $-100$ (`ignore_index`) | how many targets are left |
# | micro-batches | `reduction="sum"`, divided by the targets of the *whole* batch | one large batch gives the same gradient |
# | a finite optimum | `label_smoothing=` | the loss of a sure model |
# | decay that is no gradient | `AdamW(weight_decay=)` | weights without gradient shrink, too |
#
# **Recall.** Close the notebook and answer.
#
# 1. Which type must $\ell$ have, and how does it expose a flipped sign?
# 2. Why do the rows of $P - Y$ sum to zero, and what can the model therefore not learn?
# 3. Your first loss is twice $\ln V$. Name one cause. It is half of $\ln V$. Name another.
# 4. Why has the smoothed loss of section 6 a minimiser where the plain one has none?
# 5. Four answers, three means: which optimum depends on the micro-batches, and what do you divide by
#    instead?
#
# <details><summary>Answers</summary>
#
# 1. A real number that is not negative. A flipped sign gives negative values.
# 2. The rows of $P$ and of $Y$ both sum to one. So a number that is added to all logits is never learned.
# 3. Twice: the logits are too large, the model is sure and wrong. Half: the logits know the labels, or positions that
#    are easy count with.
# 4. Its target lies inside the simplex, so finite logits reach it. A target in a corner is reached by infinite ones
#    only.
# 5. The mean over the means of micro-batches. Divide by the number of all targets of the batch.
#
# </details>
#
# **Exercises.** `notebooks/exercises/01_empirical_risk.py`, each with a checker that explains the likely
# mistake.

# %% [markdown]
# **References**
#
# - J. S. Bridle (1990). Probabilistic interpretation of feedforward classification network outputs, with
#   relationships to statistical pattern recognition. In F. Fogelman Soulié and J. Hérault (eds.),
#   *Neurocomputing: Algorithms, Architectures and Applications*, NATO ASI Series F68, Springer, 227–236.
# - C. J. Hutto and E. Gilbert (2014). VADER: A parsimonious rule-based model for sentiment analysis of
#   social media text. *Proceedings of the Eighth International AAAI Conference on Weblogs and Social Media
#   (ICWSM)*, 216–225.
# - I. Loshchilov and F. Hutter (2019). Decoupled weight decay regularization. *International Conference on
#   Learning Representations (ICLR)*. arXiv:1711.05101.
# - C. Szegedy, V. Vanhoucke, S. Ioffe, J. Shlens and Z. Wojna (2016). Rethinking the Inception architecture
#   for computer vision. *IEEE Conference on Computer Vision and Pattern Recognition (CVPR)*, 2818–2826.
#   arXiv:1512.00567.
# - V. N. Vapnik (1992). Principles of risk minimization for learning theory. *Advances in Neural
#   Information Processing Systems 4 (NIPS 1991)*, 831–838.
