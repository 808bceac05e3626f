# ---
# jupyter:
#   instructlab:
#     id: "09"
#     title: The LoRA family and AdaLoRA
#     outcome: derive, build, train, merge and dissect low-rank updates, and say what their published claims are worth here
#     assets: [minilm, vader]
#     minutes: {smoke: 0.6, laptop: 2, gpu: 2}
#     class_minutes: 210
#     budget:
#       n_train: {smoke: 24, laptop: 200, gpu: 200}
#       n_test: {smoke: 16, laptop: 400, gpu: 1000}
#       steps: {smoke: 8, laptop: 80, gpu: 80}
#       n_memory: {smoke: 8, laptop: 32, gpu: 32}
#       memory_steps: {smoke: 4, laptop: 80, gpu: 120}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 09 The LoRA family and AdaLoRA
#
# **The promise.** You change a weight matrix of an encoder with two thin matrices, and derive every gradient of it. You see
# why one of them starts at zero, why the scale in front of them works like a second learning rate, and how a forgotten factor
# survives every test but one. Then you build the relatives: rsLoRA, DoRA, PiSSA, VeRA, AdaLoRA. At the end you open a
# trained update, ask what is in it, and hold each answer against a random control.
#
# | | |
# |---|---|
# | before this | lesson 03 (the loop), lesson 08 (freezing, counting parameters), singular values |
# | time | smoke: under a minute · laptop: about two minutes on one core · gpu: not measured yet |
# | memory | under 3 GB |
# | model | MiniLM, 6 layers (`all-MiniLM-L6-v2`), pinned, offline |
# | data | tweets, each rated by people (Hutto and Gilbert, 2014) |
# | box of lesson 00's chain | *learn from the score*, with few numbers per task |
#
# **You will be able to**
#
# - *derive* the gradients of a low-rank update and check them three ways;
# - *predict* how rank, scale and learning rate act together;
# - *merge* an update exactly, and *save* it with everything that it needs;
# - *build* DoRA, PiSSA, VeRA and AdaLoRA from their formulas, equal to the library;
# - *measure* what an update has learned, against a random control.
#
# **Letters in this lesson**
#
# | symbol | meaning |
# |---|---|
# | $W$, $n$, $m$ | a frozen matrix, its outputs and inputs |
# | $A$, $B$, $r$ | the two thin matrices, their rank |
# | $\alpha$, $s$ | LoRA's constant; the scale $\alpha / r$ |
# | $x$, $h$, $y$ | input; $A x$; output |
# | $g$, $G$ | gradient at the output; what full fine-tuning would see at $W$ |
# | $\eta$ | learning rate |
# | $U$, $\sigma$, $V$ | singular vectors and values of a matrix |
# | $P$, $\Lambda$, $Q$ | AdaLoRA's triplets |

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
seed: int = 0  # training sentences, order of batches, dropout, head, first values of the updates
model: str = ""  # a folder or hub name instead of the pinned encoder
learning_rate: float = 2e-3  # peak of the schedule, for an update with the scale 2

# %%
import copy
import os
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from instructlab_utils import expect_error, models, plotting, start, tasks, training, tuners
from instructlab_utils.errors import TrainingError
from instructlab_utils.tuners.lora import ALL_LINEAR, LoraLinear

run = start("09", profile=profile, seed=seed)
out = Path(os.path.relpath(run.out))

# %% [markdown] tags=["slide"]
# ## 1 A matrix changed by two thin ones
#
# A linear layer computes $y = W x$ with $W \in \mathbb R^{n \times m}$. Full fine-tuning may change all $n\,m$ numbers. LoRA
# (Hu et al., 2022) freezes $W$ and learns a change of rank $r$:
#
# $$ y = W x + s\, B A x, \qquad A \in \mathbb R^{r \times m},\quad B \in \mathbb R^{n \times r},\quad s = \alpha / r. $$
#
# That is $r\,(n + m)$ numbers. The idea: to adapt a trained model to one task, few directions suffice.
#
# **The gradients.** Let $g = \partial \mathcal L / \partial y \in \mathbb R^n$ and $h = A x \in \mathbb R^r$. Since $y_i =
# (Wx)_i + s \sum_j B_{ij} h_j$ and $h_j = \sum_k A_{jk} x_k$,
#
# $$ \frac{\partial \mathcal L}{\partial B_{ij}} = s\, g_i h_j, \qquad
# \frac{\partial \mathcal L}{\partial A_{jk}} = s \sum_i g_i B_{ij}\, x_k . $$
#
# Full fine-tuning would see $G = \partial \mathcal L / \partial W = g\, x^\top$ (summed over the batch). So
#
# $$ \nabla_B = s\, G A^\top, \qquad \nabla_A = s\, B^\top G . $$
#
# LoRA never sees the full gradient. It sees two projections of it.

# %%
n, m, r, alpha = 6, 5, 2, 4.0
generator = torch.Generator().manual_seed(seed)
shapes = ((n, m), (r, m), (n, r), (7, m), (7, n))
W, A, B, x, target = (torch.randn(size, generator=generator, dtype=torch.float64) for size in shapes)
s = alpha / r


def loss(A, B):
    """Half the squared distance to a target, over 7 inputs (the rows of x)."""
    return ((x @ W.T + s * x @ A.T @ B.T - target) ** 2).sum() / 2


g = x @ W.T + s * x @ A.T @ B.T - target  # dL/dy, one row per input
G = g.T @ x
closed = {"A": s * B.T @ G, "B": s * G @ A.T}

# %% [markdown]
# Three ways, shapes first. The loss is quadratic in each matrix, so central differences are exact up to rounding.


# %%
def numeric(f, M, eps=1e-2):
    """Central differences of the scalar f at the matrix M, in float64."""
    grad = torch.zeros_like(M)
    for place in np.ndindex(*M.shape):
        step = torch.zeros_like(M)
        step[place] = eps
        grad[place] = (f(M + step) - f(M - step)) / (2 * eps)
    return grad


# %% tags=["subslide"]
auto = dict(zip("AB", torch.autograd.grad(loss(A.requires_grad_(), B.requires_grad_()), (A, B)), strict=True))
A, B = A.detach(), B.detach()
finite = {"A": numeric(lambda M: loss(M, B), A), "B": numeric(lambda M: loss(A, M), B)}
for name in "AB":
    assert closed[name].shape == auto[name].shape == finite[name].shape
    errors = [(closed[name] - other[name]).abs().max() for other in (auto, finite)]
    assert errors[0] < 1e-10 and errors[1] < 1e-8
    print(f"gradient of {name}: autograd differs by {errors[0]:.0e}, finite differences by {errors[1]:.0e}")

# %% [markdown]
# ## 2 Why B starts at zero
#
# Training should begin at the pre-trained model, so $B A = 0$. Three ways to get there: $A = 0$, $B = 0$, both.
#
# **Predict.** Which of the four starts below leaves the output as it is, and which of them can learn?

# %%
print("A       B        output changes by   |grad A|   |grad B|")
for a, b in ((1, 1), (1, 0), (0, 1), (0, 0)):
    A_, B_ = (a * A).requires_grad_(), (b * B).requires_grad_()
    moved = (s * B_ @ A_).norm().item()
    grads = [part.norm().item() for part in torch.autograd.grad(loss(A_, B_), (A_, B_))]
    words = ["random" if one else "zero" for one in (a, b)]
    print(f"{words[0]:7s} {words[1]:8s} {moved:14.2f} {grads[0]:14.2f} {grads[1]:10.2f}")
assert grads == [0.0, 0.0]

# %% [markdown]
# **Observe.** The formulas say it: $\nabla_A$ carries the factor $B$, $\nabla_B$ the factor $A$. Both zero is a saddle point
# from which no gradient leads away. With one of them zero the output is untouched and the *other* one waits: at the first
# step only $B$ moves, then $A$ joins. LoRA takes $B = 0$.
#
# The whole layer takes ten lines. It must equal the package's, which we take from a model whose values were moved.


# %% tags=["subslide"]
class Lora(torch.nn.Module):
    def __init__(self, base, r, alpha):
        super().__init__()
        self.base, self.s = base, alpha / r
        self.A = torch.nn.Parameter(torch.empty(r, base.in_features))
        self.B = torch.nn.Parameter(torch.zeros(base.out_features, r))
        torch.nn.init.kaiming_uniform_(self.A, a=5**0.5)

    def forward(self, x):
        return self.base(x) + self.s * F.linear(F.linear(x, self.A), self.B)


# %%
task = tasks.load("tweet-sentiment")
plain = models.load_classifier(len(task.labels), seed=seed, model=model)
query = "bert.encoder.layer.0.attention.self.query"


def nudged(method):
    """The encoder with `method`, all trained values moved a little away from the start."""
    net = tuners.inject(copy.deepcopy(plain), method, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in tuners.trainable(net).values():
            p += 0.05 * torch.randn(p.shape, generator=generator)
    return net


# %%
layer = nudged(tuners.Lora(r=8, alpha=16)).get_submodule(query)
mine = Lora(layer.base, r=8, alpha=16)
mine.load_state_dict(layer.state_dict())
x = torch.randn(3, 384, generator=torch.Generator().manual_seed(seed))
print(f"largest difference to the package's layer: {(mine(x) - layer(x)).abs().max():.0e}")
assert torch.allclose(mine(x), layer(x), atol=1e-4)

# %% [markdown]
# Now the whole encoder. `tuners.inject` freezes everything, wraps the query and value matrices of all six layers, and sets
# the head free.
#
# **Predict.** The matrices are $384 \times 384$, twelve of them, $r = 8$. How many trained numbers, without the head?

# %%
net = tuners.inject(copy.deepcopy(plain), tuners.Lora(r=8, alpha=16), seed=seed)
head = sum(p.numel() for p in plain.classifier.parameters())
count = sum(p.numel() for p in tuners.trainable(net).values())
layers = {name: layer for name, layer in net.named_modules() if isinstance(layer, LoraLinear)}
formula = sum(8 * sum(layer.base.weight.shape) for layer in layers.values())
total = sum(p.numel() for p in plain.parameters())
assert count == formula + head
print(f"{len(layers)} layers: {formula:,} numbers and {head} of the head; the model has {total:,}")
run.record(lora_parameters=formula, head_parameters=head, share=count / total)

# %%
tokenizer = models.load_tokenizer("encoder", model)
pad_id = tokenizer.pad_token_id
sizes = {"train": (run.budget.n_train, seed), "test": (run.budget.n_test, 0)}
rows = {name: tasks.subsample(task.splits[name], *chosen) for name, chosen in sizes.items()}
sets = {name: training.encode(part, tokenizer, 24) for name, part in rows.items()}
y_test = torch.tensor(rows["test"]["label"])
batch = training.collate(sets["train"][:8], pad_id)
inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
with torch.no_grad():
    assert torch.equal(net(**inputs).logits, plain(**inputs).logits)  # to the last bit
print("labels:", task.labels, "| with B = 0 the logits equal those of the plain model to the last bit")

# %% [markdown]
# > **Recall.** Why is the gradient of $A$ zero at the first step, and does it stay zero? What would weight decay do to a
# > frozen $W$, and what does it do to $B A$?
#
# ## 3 The scale and the learning rate multiply
#
# Why $\alpha / r$, and not $1$? Someone who tries several ranks wants to keep the learning rate. So look at how the first
# step depends on $r$.
#
# The entries of $A$ are drawn with variance $1/(3m)$. So $\lVert h \rVert$ grows like $\sqrt r$, and with $\nabla_B = s\, g
# h^\top$,
#
# $$ \lVert \nabla_B \rVert \;\propto\; s \sqrt r . $$
#
# AdamW ignores the size of the gradient: its first step moves every entry of $B$ by the rate $\eta$, against its sign. Then
# output $i$ moves by
#
# $$ s\, (\Delta B\, h)_i = - s\, \eta\, \mathrm{sign}(g_i) \sum_j |h_j| \;\propto\; s\, r . $$
#
# | scale $s$ | gradient of $B$ | first step of AdamW |
# |---|---|---|
# | $\alpha / r$, $\alpha$ fixed (LoRA's paper) | $r^{-1/2}$ | $r^0$ |
# | $\alpha / \sqrt r$, $\alpha$ fixed (rsLoRA) | $r^0$ | $r^{1/2}$ |
# | $1$, from $\alpha = r$ (peft's default is $\alpha = 8$) | $r^{1/2}$ | $r^1$ |
#
# rsLoRA (Kalajdzievski, 2023) argues from the gradient: with $\alpha/r$ it fades at high ranks, with $\alpha/\sqrt r$ it does
# not. **Predict.** Will real numbers follow these exponents, through six layers and a head?


# %%
def first_step(r, alpha, rslora=False):
    """Norm of the first gradient of all B, and of the change of the pooled states after one step of AdamW."""
    net = tuners.inject(copy.deepcopy(plain), tuners.Lora(r, alpha, rslora=rslora), seed=seed)
    with torch.no_grad():
        before = net.bert(**inputs).pooler_output
    training.target_losses(net, batch).mean().backward()
    updates = [p for name, p in tuners.trainable(net).items() if name.endswith((".A", ".B"))]
    norm = torch.stack([p.grad.norm() for p in updates]).norm()  # the gradient of A is 0
    torch.optim.AdamW(updates, lr=1e-5, weight_decay=0.0).step()
    with torch.no_grad():
        after = net.bert(**inputs).pooler_output
    return norm.item(), (after - before).norm().item()


# %%
ranks = [2, 4, 8, 16, 32, 64]
conventions = {
    "α / r": [first_step(r, 8) for r in ranks],
    "α / √r": [first_step(r, 8, rslora=True) for r in ranks],
    "α = r": [first_step(r, r) for r in ranks],
}
figure, panels = plotting.axes(1, 2, dpi=85)
titles = ("norm of the gradient of B", "change after AdamW's first step")
for i, (name, values) in enumerate(conventions.items()):
    for ax, series, title in zip(panels, np.array(values).T, titles, strict=True):
        ax.loglog(ranks, series, **plotting.style(i), label=name)
        ax.set(title=title, xlabel="rank r", xticks=ranks, xticklabels=ranks)
        ax.minorticks_off()
panels[0].legend()
_ = run.figure(figure, "09_scale")

# %%
for name, values in conventions.items():
    slopes = np.polyfit(np.log2(ranks), np.log2(values), 1)[0]
    print(f"{name:7s} exponent of the gradient {slopes[0]:+.2f}, of AdamW's first step {slopes[1]:+.2f}")
    key = {"α / r": "lora", "α / √r": "rslora", "α = r": "alpha_r"}[name]
    run.record(**{f"slope_gradient_{key}": slopes[0], f"slope_step_{key}": slopes[1]})

# %% [markdown]
# **Observe.** The exponents are there. The gradient argument and AdamW's step disagree by half a power: with $\alpha / r$ the
# gradient fades *and* the step stays. Later steps mix both, since $A$ moves too.
#
# The practical half is the last row. "We compared ranks at the same learning rate with $\alpha = r$" compares step sizes.
# **A trap in both directions:** whoever fixes $\alpha$ changes the scale with $r$, whoever sets $\alpha = r$ changes the
# step with $r$. Tune the rate for each rank, then compare.
#
# ## 4 Train, merge, save
#
# Two hundred tweets, the loop of lesson 03, eighty updates. `tuners.extras(net)` gives the loop what a method needs beside
# the loss: for LoRA nothing, for AdaLoRA (section 7) a penalty and a call after every update.


# %%
def fit(method, rate=learning_rate, examples=sets["train"], steps=run.budget.steps, until=None):
    """A fresh model with `method`, trained; and what the loop recorded."""
    net = tuners.inject(copy.deepcopy(plain), method, seed=seed).to(run.device)
    history = training.train(
        net, examples, steps=steps, learning_rate=rate, pad_id=pad_id, batch_size=8, seed=seed,
        until=until, **tuners.extras(net),
    )  # fmt: skip
    return net, history


def accuracy(net):
    return (training.predict(net, sets["test"], pad_id).argmax(-1) == y_test).double().mean().item()


# %%
lora, history = fit(tuners.Lora(r=8, alpha=16))
majority = torch.bincount(y_test).max().item() / len(y_test)
run.record(accuracy=accuracy(lora), majority=majority, final_loss=np.mean(history.losses[-5:]))
print(f"LoRA, r = 8: test accuracy {run.metrics['accuracy']:.3f}, majority class {majority:.3f}")

# %% [markdown]
# At inference the two thin matrices cost time. They need not: $W + s B A$ is a matrix like any other. **Merging** adds the
# change once, and the layer is a plain linear layer again.
#
# **Predict.** How far do the logits move when you merge in float32: not at all, in the last digits, visibly?

# %%
inputs = training.move(inputs, run.device)
with torch.no_grad():
    beside = lora(**inputs).logits
    merged = tuners.merge(copy.deepcopy(lora), unload=True)
    inside = merged(**inputs).logits
    back = tuners.unmerge(tuners.merge(copy.deepcopy(lora)))(**inputs).logits
same = [name for name, _ in merged.named_modules()] == [name for name, _ in plain.named_modules()]
assert same and (inside - beside).abs().max() < 1e-4
print(
    f"merged: logits move by {(inside - beside).abs().max():.0e}, the modules are the plain model's: {same}"
)
print(f"merged and unmerged again: {(back - beside).abs().max():.0e}")
run.record(merge_difference=(inside - beside).abs().max())

# %% [markdown]
# **Observe.** Not exact, but rounding only. `unmerge` subtracts what `merge` added, and float32 does not give every last bit
# of $W$ back. Keep the original if you want to merge many adapters in turn.
#
# **The trap: the scale forgotten at the merge.** $W + B A$ runs, has the right shape and the right sign.

# %%
wrong = copy.deepcopy(lora)
with torch.no_grad():
    for layer in wrong.modules():
        if isinstance(layer, LoraLinear):
            layer.base.weight += layer.B @ layer.A  # where is s?
            layer.merged = True
    difference = (wrong(**inputs).logits - beside).abs().max()
scores = {name: accuracy(which) for name, which in (("right", merged), ("without s", wrong))}
print(f"logits move by {difference:.2f}; accuracy", {name: round(score, 3) for name, score in scores.items()})
run.record(forgotten_scale=difference, accuracy_without_scale=scores["without s"])

# %% [markdown]
# **Observe.** The accuracy falls, but to a value that nobody would doubt: half of a good change is a good start. The
# logits tell at once. And with $\alpha = r$, the usual test setting, $s = 1$ and no test can tell. Test a merge with
# $\alpha \neq r$, on logits.
#
# What has to be saved? $A$, $B$, and the head: it was random before training.

# %%
folder = tuners.save(lora, out / "lora")
stored = list(lora.tuner.tensors(lora))
size = sum(file.stat().st_size for file in folder.iterdir())
print(f"{len(stored)} tensors, {size / 1024:.0f} KB; the model itself {4 * total / 2**20:.0f} MB")
print("the last three:", *(name.removeprefix("base_model.model.") for name in stored[-3:]))
again = tuners.load(copy.deepcopy(plain), folder).to(run.device)
with torch.no_grad():
    assert torch.equal(again(**inputs).logits, beside)
run.record(saved_kb=size / 1024)

# %% [markdown]
# **The trap: the head that stays at home.** peft decides by `task_type` whether a head is trained and saved. Without it,
# nothing complains.

# %%
import warnings

import peft

warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")  # peft asks in the old way
config = peft.LoraConfig(r=8, target_modules=["query", "value"])
silent = peft.get_peft_model(copy.deepcopy(plain), config)
trained = [name for name, p in silent.named_parameters() if p.requires_grad and "lora_" not in name]
print("trained beside LoRA's matrices, without task_type:", trained)

# %%
other = models.load_classifier(len(task.labels), seed=seed + 1, model=model)
headless = tuners.load(copy.deepcopy(plain), folder).to(run.device)
with torch.no_grad():
    headless.classifier.weight.copy_(other.classifier.weight)
    headless.classifier.bias.zero_()
run.record(accuracy_headless=accuracy(headless))
print(f"the adapter with another random head: {run.metrics['accuracy_headless']:.3f}")

# %% [markdown]
# **Observe.** A random head need not guess at random: it may read the trained direction backwards. Our `load` refuses a file
# without its head, in one sentence.

# %%
from safetensors.torch import load_file, save_file

tensors = load_file(folder / "adapter_model.safetensors")
beheaded = {name: t for name, t in tensors.items() if "classifier" not in name}
save_file(beheaded, tuners.save(lora, out / "headless") / "adapter_model.safetensors")
with expect_error(TrainingError, match="without its head"):
    tuners.load(copy.deepcopy(plain), out / "headless")

# %% [markdown]
# > **Recall.** Why does a merged model cost nothing extra at inference, and what do you lose by merging? Which single test
# > would have found the forgotten scale?
#
# ## 5 The relatives
#
# ### 5.1 DoRA: length and direction
#
# Liu et al. (2024) split each row $w_i$ of the weight into a length and a direction. LoRA changes the direction, and a
# vector $m$ the length:
#
# $$ w'_i = m_i\, \frac{w_i + s\,(BA)_i}{\lVert w_i + s\,(BA)_i \rVert}, \qquad
# m_i = \lVert w_i \rVert \text{ at the start.} $$
#
# The norm counts as a constant in the gradient. That saves memory, and it drops a term. Whether training uses the new freedom
# is a question for ten seeds: section 8.3.


# %%
def dora_weight(W, A, B, s, m):
    changed = W + s * B @ A
    norm = changed.norm(dim=1).detach()
    return (m / norm)[:, None] * changed


layer = nudged(tuners.Lora(4, 8, dora=True)).get_submodule(query)
ours = F.linear(x, dora_weight(layer.base.weight, layer.A, layer.B, layer.scale, layer.m), layer.base.bias)
print(f"largest difference to the package's layer: {(ours - layer(x)).abs().max():.0e}")
assert torch.allclose(ours, layer(x), atol=1e-4)

# %% [markdown]
# ### 5.2 PiSSA: start with the strongest directions
#
# Meng et al. (2024) do not start from zero. With $W = U\, \mathrm{diag}(\sigma)\, V^\top$ they train the $r$ largest triplets
# and freeze the rest:
#
# $$ A = \sqrt{\sigma_{1..r} / s}\; V_{1..r}^\top, \qquad B = U_{1..r} \sqrt{\sigma_{1..r} / s}, \qquad
# W_{\text{frozen}} = W - s B A . $$
#
# **Predict.** Eight of 384 triplets: what share of $\lVert W \rVert_F^2$ do they carry?


# %%
def pissa(W, r, s):
    U, sigma, Vt = torch.linalg.svd(W, full_matrices=False)
    root = (sigma[:r] / s).sqrt()
    A, B = root[:, None] * Vt[:r], U[:, :r] * root
    return A, B, W - s * B @ A


W0 = plain.get_submodule(query).weight.detach()
A0, B0, rest = pissa(W0, 8, 1.0)
layer = tuners.inject(copy.deepcopy(plain), tuners.Lora(8, 8, init="pissa")).get_submodule(query)
assert torch.allclose(layer.base.weight, rest, atol=1e-5)
share = 1 - (rest.norm() / W0.norm()).item() ** 2
print(f"8 of {len(W0)} triplets carry {share:.0%} of the squared norm of this matrix")
run.record(pissa_share=share)

# %% [markdown]
# Is it faster? Both with rank 8 and $s = 1$, at the *same* learning rate, on the same batches; the mean loss over the second
# quarter of the updates. **Predict.** Why is "the same learning rate" not a fair race here?

# %%
quarter = slice(run.budget.steps // 4, run.budget.steps // 2)
race = {}
for name, init in (("LoRA", "kaiming"), ("PiSSA", "pissa")):
    _, found = fit(tuners.Lora(8, 8, init=init), rate=3e-3, until=run.budget.steps // 2)
    race[name] = float(np.mean(found.losses[quarter]))
print("mean loss in the second quarter:", {name: f"{value:.3f}" for name, value in race.items()})
lengths = {name: p.norm().item() for name, p in (("A", layer.A), ("B", layer.B))}
print("PiSSA starts with |A|, |B| =", {name: round(value, 1) for name, value in lengths.items()})
run.record(early_loss_lora=race["LoRA"], early_loss_pissa=race["PiSSA"])

# %% [markdown]
# **Observe.** Where LoRA starts from $B = 0$, PiSSA starts with two large factors, and $\Delta(BA) \approx \Delta B\, A + B\,
# \Delta A$: the same step in $A$ and $B$ moves the product further. A race at one rate is partly a race of step sizes, as in
# section 3. And this is one seed.
#
# A saved PiSSA adapter holds $A$ and $B$. Who loads it must compute the same residual from the same original $W$; ours and
# peft's `load` both do.
#
# ### 5.3 VeRA: random matrices, trained vectors
#
# Kopiczko et al. (2024) draw *one* pair of random matrices for all layers and never train it. Each layer learns two vectors:
#
# $$ y = W x + b \odot B\, (d \odot A x), \qquad d \in \mathbb R^r,\; b \in \mathbb R^n,\; b = 0 \text{ at the start.} $$
#
# That is $r + n$ numbers per layer instead of $r\,(n + m)$, so the rank may be large.

# %%
net = nudged(tuners.Vera(r=128))
layer = net.get_submodule(query)
A, B, d, b = layer.A, layer.B, layer.d, layer.b
ours = layer.base(x) + b * ((d * (x @ A.T)) @ B.T)
assert torch.allclose(ours, layer(x), atol=1e-4)
projections = {id(part.shared) for part in net.modules() if hasattr(part, "shared")}
vera_count = sum(p.numel() for p in tuners.trainable(net).values()) - head
print(
    f"largest difference: {(ours - layer(x)).abs().max():.0e}; pairs of random matrices: {len(projections)}"
)
print(f"{vera_count:,} trained numbers at r = 128, against {formula:,} of LoRA at r = 8")
run.record(vera_parameters=vera_count)

# %% [markdown]
# ### 5.4 LoRA+: two rates
#
# $A$ and $B$ play different parts: at the first step only $B$ moves, and $A$ decides what it can see. Hayou et al. (2024)
# argue that in wide models $B$ should learn several times as fast as $A$; they propose about sixteen. That is no new
# layer. It is two groups in the optimiser.


# %%
def lora_plus(net, rate, ratio):
    """Parameter groups: B learns `ratio` times as fast as A and the head."""
    fast = [p for name, p in tuners.trainable(net).items() if name.endswith(".B")]
    slow = [p for name, p in tuners.trainable(net).items() if not name.endswith(".B")]
    return [{"params": slow, "lr": rate}, {"params": fast, "lr": ratio * rate}]


# %%
from peft.optimizers import create_loraplus_optimizer

config = peft.LoraConfig(r=8, target_modules=["query", "value"], task_type="SEQ_CLS")
wrapped = peft.get_peft_model(copy.deepcopy(plain), config)
theirs = create_loraplus_optimizer(wrapped, torch.optim.AdamW, lr=1e-4, loraplus_lr_ratio=16)
named = {id(p): name for name, p in wrapped.named_parameters()}
rates = {named[id(p)]: group["lr"] for group in theirs.param_groups for p in group["params"]}
ours = lora_plus(tuners.inject(copy.deepcopy(plain), tuners.Lora(r=8)), 1e-4, 16)
fast = sum(p.numel() for p in ours[1]["params"])
theirs_fast = sum(
    wrapped.get_parameter(n).numel() for n, rate in rates.items() if rate > 1e-4 and "lora_B" in n
)
assert fast == theirs_fast
print(f"numbers that learn 16 times as fast: ours {fast:,}, peft {theirs_fast:,}")
print(
    "what else peft puts among the fast ones:",
    [n.split(".", 2)[-1] for n, rate in rates.items() if rate > 1e-4 and "lora_B" not in n],
)

# %% [markdown]
# **Observe.** The matrices agree. peft's last line is worth a look: the *bias of the head* learns fast too, since the
# function sorts vectors beside $B$. Whether two rates pay is a question of tuning: LoRA+ has one knob more, and a fair
# comparison gives plain LoRA as many trials. It is not measured here.
#
# ### 5.5 QLoRA: a trunk of four bits
#
# A frozen $W$ is only read. Dettmers et al. (2023) store it with four bits a number. Sixteen levels, where? Trained
# weights look like a normal distribution. So NF4 puts the levels where a normal variable has equal shares, with one level
# exactly at zero. Each block of 64 weights is divided by its largest absolute value first.

# %%
from scipy.stats import norm

END = 0.9677083  # the published choice: it sets the inner levels
positive, negative = norm.ppf(np.linspace(END, 0.5, 9)[:-1]), -norm.ppf(np.linspace(END, 0.5, 8)[:-1])
NF4 = np.sort([*negative, 0.0, *positive]) / positive.max()
PUBLISHED = [-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0, 0.0795803,
             0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0]  # fmt: skip
print(f"largest difference to the published table: {np.abs(NF4 - PUBLISHED).max():.0e}")
assert np.abs(NF4 - PUBLISHED).max() < 1e-6
EVEN = np.linspace(-1, 1, 16)  # the same four bits, evenly spread


# %% [markdown]
# **Predict.** The same sixteen codes, evenly spread from minus one to one: is the rounding error larger or smaller than
# with NF4, and by how much?


# %%
def round_to(levels, W, block=64):
    """W with each number replaced by the nearest level, block by block."""
    flat = W.reshape(-1, block)
    scale = flat.abs().amax(1, keepdim=True).clamp(min=1e-12)
    levels = torch.as_tensor(levels, dtype=W.dtype, device=W.device)
    codes = (flat[..., None] / scale[..., None] - levels).abs().argmin(-1)
    return (levels[codes] * scale).reshape(W.shape)


linears = {name: one for name, one in plain.bert.encoder.named_modules() if isinstance(one, torch.nn.Linear)}
figure, panel = plotting.axes(width=6, height=2.6, dpi=85)
flat = linears["layer.0.attention.self.query"].weight.detach().reshape(-1, 64)
panel.hist((flat / flat.abs().amax(1, keepdim=True)).flatten().numpy(), 120, color="0.8")
for index, (name, levels) in enumerate({"NF4": NF4, "evenly spread": EVEN}.items()):
    errors = [
        ((round_to(levels, one.weight) - one.weight).norm() / one.weight.norm()).item()
        for one in linears.values()
    ]
    print(f"{name:14s} relative error of a matrix: {min(errors):.3f} to {max(errors):.3f}")
    panel.plot(
        levels,
        np.full(16, -150 * (index + 1)),
        linestyle="",
        marker="|",
        markersize=9,
        color=plotting.COLOURS[index],
        label=name,
    )
panel.set(xlabel="weight, divided by the largest of its block", ylabel="weights")
panel.legend(fontsize=8)
_ = run.figure(figure, "09_nf4")

# %% [markdown]
# **Observe.** The levels of NF4 stand close where the weights are many. Compare the two printed ranges.
#
# Now take section 4's trained LoRA and round its trunk. (bitsandbytes does this with `load_in_4bit`, keeps the codes
# packed, and rounds the scales too. We keep the scales, and the rounded numbers in float32: what is lost is nearly the
# same, the memory is not. And we round the query and value matrices only.)
#
# **Predict.** How should a four-bit model be merged? Three ways: leave LoRA beside; merge and keep the sum in float32;
# merge and round the sum to NF4 again. Which of them loses the most of what was learned?


# %%
def four_bits(net):
    with torch.no_grad():
        for one in net.modules():
            if isinstance(one, LoraLinear):
                one.base.weight.copy_(round_to(NF4, one.base.weight))
    return net


beside4 = four_bits(copy.deepcopy(lora))
merged4 = tuners.merge(copy.deepcopy(beside4), unload=True)
rounded, kept, off, length = copy.deepcopy(merged4), 0.0, 0.0, 0.0
with torch.no_grad():
    for name, layer in beside4.named_modules():
        if isinstance(layer, LoraLinear):
            learned, weight = layer.delta(), rounded.get_submodule(name).weight
            weight.copy_(round_to(NF4, weight))
            left = weight - layer.base.weight  # what is left of the learned change
            kept, off = kept + (left * learned).sum().item(), off + (left - learned).square().sum().item()
            length += learned.square().sum().item()

# %%
with torch.no_grad():
    reference = beside4(**inputs).logits
    for name, which in {
        "beside": beside4,
        "merged, float32": merged4,
        "merged, rounded again": rounded,
    }.items():
        gap = (which(**inputs).logits - reference).abs().max()
        print(f"{name:22s} logits move by {gap:.0e}, accuracy {accuracy(which):.3f}")
print(
    f"with the float32 trunk: accuracy {run.metrics['accuracy']:.3f} (only query and value are rounded here)"
)
print(
    f"of the learned change {kept / length:.0%} survive; the new rounding error is {(off / length) ** 0.5:.1f} times as long"
)
run.record(nf4_kept=kept / length, nf4_error=(off / length) ** 0.5)

# %% [markdown]
# **Observe.** Beside and in float32 the logits are the same. Rounded again, most of the learned change survives, and an
# error is added that is of the same order as the change. What survives depends on how large it is against the gap of two
# levels: after a few updates (the smoke profile) nearly nothing does. Serve a QLoRA adapter *beside* its trunk, or merge
# into sixteen bits and keep them.
#
# What does it save? Bytes for each weight of the trunk, activations not counted. AdamW in float32 keeps the weight, its
# gradient and two averages.

# %%
share = run.metrics["share"]
for name, bytes_each in {
    "all weights, AdamW, float32": 16,
    "LoRA on a bfloat16 trunk": 2 + 16 * share,
    "QLoRA, one float32 scale a block": 0.5 + 4 / 64 + 16 * share,
}.items():
    print(
        f"{name:33s} {bytes_each:5.2f} bytes a weight: {7e9 * bytes_each / 2**30:4.0f} GiB for seven billion weights"
    )

# %% [markdown]
# ## 6 With the library
#
# Each method is nudged, saved by us, loaded by peft on a fresh encoder, and must give the same logits. The tests also go
# the other way round, compare updates of AdamW, and do all of it for the decoder.

# %%
kinds = {"LoRA": tuners.Lora(8, 16), "rsLoRA": tuners.Lora(8, 16, rslora=True)}
kinds |= {"DoRA": tuners.Lora(8, 16, dora=True), "PiSSA": tuners.Lora(8, 16, init="pissa")}
kinds |= {"VeRA": tuners.Vera(128), "AdaLoRA": tuners.AdaLora(total_step=100, init_r=4, target_r=2)}
for name, method in kinds.items():
    ours = nudged(method).eval()
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(plain), tuners.save(ours, out / name))
    with torch.no_grad():
        a, b = (which.cpu()(**training.move(inputs, "cpu")).logits for which in (ours, theirs))
    difference = ((a - b).abs().max() / b.abs().max()).item()
    assert difference < 1e-4
    run.record(**{f"peft_{name}": difference})
    print(f"{name:8s} largest difference, relative to the largest logit: {difference:.0e}")

# %% [markdown]
# ## 7 AdaLoRA: a budget for the whole model
#
# Why should every matrix get the same rank? Zhang et al. (2023) write the change like a singular value decomposition,
#
# $$ \Delta W = s\, B\, \mathrm{diag}(E)\, A , $$
#
# (they call the three $P$, $\Lambda$, $Q$). A *triplet* is a column of $B$, a value in $E$, a row of $A$. All layers start
# with more triplets than the budget allows. Those that matter least lose their singular value.
#
# **What matters?** For a weight $w$, the sensitivity $|w\, \partial \mathcal L / \partial w|$ estimates what the loss would
# change without it. One batch is noisy, so it is smoothed, and its uncertainty is smoothed too:
#
# $$ \bar I_t = \beta_1 \bar I_{t-1} + (1 - \beta_1)\, I_t, \qquad
# \bar U_t = \beta_2 \bar U_{t-1} + (1 - \beta_2)\, |I_t - \bar I_t| , $$
#
# and the score of a weight is $\bar I \cdot \bar U$. The score of a triplet is that of its $E$, plus the mean over its row of
# $A$, plus the mean over its column of $B$. Two gradients of the real encoder, half a
# batch each, hold our lines against the package's.


# %%
def observe(w, grad, smooth, unsure, beta1=0.85, beta2=0.85):
    now = (w * grad).abs()
    smooth = beta1 * smooth + (1 - beta1) * now
    unsure = beta2 * unsure + (1 - beta2) * (now - smooth).abs()
    return smooth, unsure


def importance(scores):
    """One number per triplet, from the scores of A (r, m), E (r, 1), B (n, r)."""
    return scores["E"][:, 0] + scores["A"].mean(dim=1) + scores["B"].mean(dim=0)


# %%
net = nudged(tuners.AdaLora(total_step=100, init_r=4, target_r=2))
layer, memory = net.get_submodule(query), {name: (0.0, 0.0) for name in "AEB"}
for rows_of in (slice(0, 4), slice(4, 8)):
    net.zero_grad()
    training.target_losses(net, {name: part[rows_of] for name, part in batch.items()}).mean().backward()
    layer.observe(0.85, 0.85)
    for name in "AEB":
        memory[name] = observe(getattr(layer, name).detach(), getattr(layer, name).grad, *memory[name])
ours = importance({name: smooth * unsure for name, (smooth, unsure) in memory.items()})
assert torch.allclose(ours, layer.importance(), rtol=1e-4)
print("scores of four triplets, relative to the largest:", [f"{v:.2f}" for v in ours / ours.max()])

# %% [markdown]
# **How many may stay?** The budget falls with the third power of the time that is left: fast at first, then ever more
# gently. $t_i$ updates nothing happens, and for the last $t_f$ the choice is final:
#
# $$ b(t) = b_T + (b_0 - b_T) \Big( 1 - \frac{t - t_i}{T - t_f - t_i} \Big)^3 . $$


# %%
def budget(t, T, first, last, t_i, t_f):
    if t <= t_i:
        return first
    if t > T - t_f:
        return last
    left = 1 - (t - t_i) / (T - t_f - t_i)
    return int(last + (first - last) * left**3)


# %%
steps = run.budget.steps
method = tuners.AdaLora(
    steps, init_r=4, target_r=2, alpha=8, targets=ALL_LINEAR["bert"], tinit=steps // 5, tfinal=steps // 4,
    deltaT=2, orth_reg_weight=0.1,
)  # fmt: skip
curve = [budget(t, steps, 4 * 36, 2 * 36, steps // 5, steps // 4) for t in range(steps)]
assert curve == [method.budget(t, 36) for t in range(steps)]
print(f"36 matrices: from {curve[0]} triplets to {curve[-1]}")

# %% [markdown]
# $A$ and $B$ should stay orthogonal, or "singular value" means nothing. A penalty is added to the loss, the mean over all of
# them of $\lVert A A^\top - I \rVert_F$ and $\lVert B^\top B - I \rVert_F$ (the paper squares the norms, peft does not). The
# loop calls `update` after each step, while the gradients are still there.
#
# **Predict.** Where will the ranks go: attention or feed-forward, lower or upper layers?

# %%
ada, ada_history = fit(method, rate=1e-2)
places = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
ranks_kept = np.zeros((6, len(places)), dtype=int)
for name, layer in method.layers(ada).items():
    number, place = name.split("encoder.layer.")[1].split(".", 1)
    column = places.index(place.removeprefix("attention.self."))
    ranks_kept[int(number), column] = int(layer.kept.sum())
upper = ranks_kept[3:].mean() - ranks_kept[:3].mean()
ffn = ranks_kept[:, 4:].mean() - ranks_kept[:, :4].mean()
run.record(accuracy_adalora=accuracy(ada), ranks_kept=ranks_kept.sum(), ranks_upper=upper, ranks_ffn=ffn)
print(f"test accuracy {run.metrics['accuracy_adalora']:.3f}; triplets kept: {ranks_kept.sum()}")

# %%
figure, (left, right) = plotting.axes(1, 2, width=3.8, height=3.0, dpi=85)
left.plot(curve, color=plotting.COLOURS[0])
left.set(title="budget", xlabel="update", ylabel="triplets", ylim=(0, None))
right.imshow(ranks_kept, cmap="Blues", vmin=0, vmax=4, aspect="auto")
for i, j in np.ndindex(*ranks_kept.shape):
    right.text(
        j, i, ranks_kept[i, j], ha="center", va="center", color="white" if ranks_kept[i, j] > 2 else "black"
    )
short = ["query", "key", "value", "attention\nout", "ffn in", "ffn out"]
right.set_xticks(range(6), short, rotation=60)
right.set(title="triplets kept", ylabel="layer", yticks=range(6))
right.grid(False)
_ = run.figure(figure, "09_adalora")
print(f"mean triplets: upper half minus lower half {upper:+.2f}, feed-forward minus attention {ffn:+.2f}")

# %% [markdown]
# **Observe.** The paper reports more rank in feed-forward and upper layers. One map of one seed is an anecdote: draw the map
# again with another `seed` before you believe a cell of it. Section 8.3 has ten seeds.
#
# **Two traps of peft's AdaLoRA.** The loss that the model returns *contains* the penalty. And nobody calls
# `update_and_allocate` for you, `Trainer` neither: without it the budget never falls.

# %%
config = peft.AdaLoraConfig(
    task_type="SEQ_CLS", init_r=4, target_r=2, total_step=10, tinit=1, tfinal=2, target_modules=["query"]
)
theirs = peft.get_peft_model(copy.deepcopy(plain), config)
returned = theirs(**batch)
alone = F.cross_entropy(returned.logits, batch["labels"]).item()
print(f"cross-entropy {alone:.2f}, loss that the model returns {returned.loss.item():.2f}")
run.record(penalty_in_loss=returned.loss.item() - alone)

# %%
optimizer = torch.optim.AdamW([p for p in theirs.parameters() if p.requires_grad], lr=1e-3)
for _ in range(10):
    theirs(**batch).loss.backward()
    optimizer.step()
    optimizer.zero_grad()  # and update_and_allocate?
zeros = sum(int((p == 0).sum()) for name, p in theirs.named_parameters() if "lora_E" in name)
print(f"ten updates later, singular values set to 0: {zeros}")

# %% [markdown]
# ## 8 What is inside an update?
#
# ### 8.1 Do two ranks find the same directions?
#
# Let $V_i$ hold the first $i$ right singular vectors of one update, $V'_j$ the first $j$ of another. Their overlap is
#
# $$ \phi(i, j) = \frac{\lVert V_i^\top V'_j \rVert_F^2}{\min(i, j)} \in [0, 1] . $$
#
# It is 1 if the smaller subspace lies in the larger one. A number without a control says nothing: random subspaces of
# $\mathbb R^{384}$ overlap too. So we also compare with an update made of random matrices. (Hu et al. compare $A$; after so
# few updates $A$ still holds its random start, so we compare $\Delta W = s B A$.)

# %%
wide, _ = fit(tuners.Lora(r=32, alpha=64))


def deltas(net):
    return {
        n: layer.delta().detach().cpu() for n, layer in net.named_modules() if isinstance(layer, LoraLinear)
    }


# %% tags=["defines:updates.overlap"]
def overlap(D, E, i, j):
    """phi for all sizes up to i and j, from the right singular vectors of D and E: array (i, j)."""
    V, V_ = (torch.linalg.svd(part).Vh[:k].T for part, k in ((D, i), (E, j)))
    together = (V.T @ V_).square().cumsum(0).cumsum(1)
    smaller = torch.minimum(torch.arange(1, i + 1)[:, None], torch.arange(1, j + 1))
    return (together / smaller).numpy()


small, large = deltas(lora), deltas(wide)
generator = torch.Generator().manual_seed(seed)


def random_update(rank, norm):
    D = torch.randn(384, rank, generator=generator) @ torch.randn(rank, 384, generator=generator)
    return D * (norm / D.norm())


# %%
name = "bert.encoder.layer.5.attention.self.value"
chance = overlap(small[name], random_update(32, 1.0), 8, 32)
learned = overlap(small[name], large[name], 8, 32)
figure, panels = plotting.axes(1, 2, width=4.0, height=2.6, dpi=85)
for ax, values, title in ((panels[0], learned, "r = 8 and r = 32"), (panels[1], chance, "r = 8 and random")):
    picture = ax.imshow(values, vmin=0, vmax=1, aspect="auto", cmap="viridis", extent=(0.5, 32.5, 8.5, 0.5))
    ax.set(title=title, xlabel="j", ylabel="i")
    ax.grid(False)
figure.colorbar(picture, ax=panels, label="overlap φ(i, j)")
_ = run.figure(figure, "09_overlap")

# %%
first = {name: overlap(small[name], large[name], 1, 1)[0, 0] for name in small}
first_random = [overlap(D, random_update(32, 1.0), 1, 1)[0, 0] for D in small.values()]
print(
    f"φ(1, 1), mean of twelve matrices: {np.mean(list(first.values())):.2f}; random {np.mean(first_random):.3f}"
)
for side in ("query", "value"):
    print(f"  {side}: {np.mean([v for name, v in first.items() if side in name]):.2f}")
run.record(overlap_first=np.mean(list(first.values())), overlap_random=np.mean(first_random))

# %% [markdown]
# **Observe.** Two trainings with different ranks share their strongest direction far beyond
# chance. That is the paper's argument for small ranks: what counts is in the first directions. But random matrices are a weak
# opponent. The two runs share more than a task: the same tweets in the same order, the same first head. Section 8.3 takes
# these away.
#
# ### 8.2 Does the update amplify what the weight neglects?
#
# Project $W$ on the directions of the update, $\Delta W = U\, \mathrm{diag}(\sigma)\, V^\top$ with $r$ triplets. The
# **amplification factor** is $\lVert \Delta W \rVert_F / \lVert U^\top W V \rVert_F$: how large the update is, compared with
# what $W$ already does there. Two controls: a random update *of the same norm*, and the $r$ strongest directions of $W$
# itself, scaled to that norm too.
#
# **Predict.** Order the three factors.


# %% tags=["defines:updates.projection"]
def projection(D, W, r):
    """What the weight W does in the first r pairs of directions of its change D: the norm of U^T W V."""
    U, _, Vt = torch.linalg.svd(D)
    return (U[:, :r].T @ W @ Vt[:r].T).norm().item()


# %%
def factor(D, W, r):
    return D.norm().item() / projection(D, W, r)


table = []
for name, D in small.items():
    W = plain.get_submodule(name).weight.detach().cpu()
    A0, B0, _ = pissa(W, 8, 1.0)
    own = B0 @ A0 * (D.norm() / (B0 @ A0).norm())
    table.append([factor(which, W, 8) for which in (D, random_update(8, D.norm()), own)])
learned_factor, random_factor, own_factor = np.mean(table, axis=0)
print(f"learned {learned_factor:.2f}, random {random_factor:.2f}, the weight's own {own_factor:.2f}")
run.record(amplification=learned_factor, amplification_random=random_factor)

# %% [markdown]
# **Observe.** The learned factor lies far above that of the weight's own directions: the update does not repeat what $W$
# does most. But a random update of the same norm has a large factor too, since $W$ does little in almost *any* small
# subspace. In the stored run it is even the larger one, as in the paper's table 7. Hu et al. read it so: the update goes
# along with $W$ a little more than chance does, in directions that $W$ has but does not emphasise. "Amplifies" alone,
# without the random column, would have proved nothing.
#
# ### 8.3 The same, in ten seeds
#
# The experiment `lora_weights` opened nine trained networks in each of ten seeds, trained about as long as here. For the
# overlap it takes away what the two runs share: that the head trains; then tweets, order and first head; then the meaning of
# the labels, which change places.
#
# **Predict.** Which of these costs most of the overlap?

# %%
from instructlab_repro import lesson

lesson.table("lora_weights", "first", "inside", "projection")

# %%
lesson.show("LR4", "LR7", "LR8", "LR9", "LR5")

# %% [markdown]
# **Observe.** The first directions of the two ranks overlap by more than one half. So LR7 holds; its threshold is that
# of Hu et al., who report more than one half as well. In our run above the overlap was far smaller. The recipes differ:
# the experiment keeps $\alpha = 8$ for both ranks, so that the wider update takes steps as small as the narrow one's
# (section 3); above, $\alpha = 2 r$ let it stride. We did not test that this is the reason, but the number belongs to a
# recipe as much as to a model.
#
# And most of it is no trace of the *task* alone. With other tweets, in another order and from another head, less than
# half is left (LR8). The fair opponent of what is left are permuted labels, since they teach nothing but the tweets;
# their overlap is the lowest of all trained rows. But these runs had hardly learned anything when they ended. The rule
# for runs that did not train was written before, so LR9 stays untested instead of supported: a control must be trained
# as hard as what it controls.
#
# All three parts of LR5 hold. One of them is cheap: an amplification above one needs no training, as section 8.2 showed. The
# second is the small one: in the update's directions the weight does a little more than
# in random ones, and far less than in its own strongest.
#
# One more pair of numbers, for DoRA's question of section 5.1. A changed weight has rows $w'_i$ of another length, and of
# another direction:
#
# $$ \Delta_{\text{length}} = \frac1n \sum_i \big|\, \lVert w'_i \rVert - \lVert w_i \rVert \,\big|, \qquad
# \Delta_{\text{direction}} = 1 - \frac1n \sum_i \cos(w'_i, w_i). $$


# %% tags=["defines:updates.lengths_and_directions"]
def lengths_and_directions(W, W0):
    """How far W lies from W0, split as DoRA does: the mean over rows of the change of length, and of 1 - cosine."""
    longer = (W.norm(dim=1) - W0.norm(dim=1)).abs().mean()
    turned = 1 - torch.cosine_similarity(W.double(), W0.double(), dim=1).mean()
    return longer.item(), turned.item()


# %%
for number in (0, 5):
    key = f"bert.encoder.layer.{number}.attention.self.query"
    W0 = plain.get_submodule(key).weight.detach().cpu()
    longer, turned = lengths_and_directions(W0 + small[key], W0)
    print(f"queries of layer {number}, LoRA of section 4: length {longer:.1e}, direction {turned:.1e}")

# %% [markdown]
# **Predict.** Does AdaLoRA's map look alike in ten seeds? And do lengths and directions move together: with all weights free,
# in LoRA, in DoRA?

# %%
lesson.table("lora_weights", "ffn", "upper", "agreement", "tie")

# %%
lesson.show("A2", "A4", "D2")

# %% [markdown]
# **Observe.** The map above was no anecdote: feed-forward matrices keep more triplets than attention, upper layers more than
# lower ones (A2). Two runs agree about the matrices more than they do when the matrices of one change places, and still far
# from completely (A4): trust the sums over groups of the map, not its cells.
#
# D2 falls. In all three methods lengths and directions grow together. Both grow while training goes on, and the
# published picture pools four points in time; that this is the reason was not tested. What is left of it is that LoRA
# ties the two most: almost perfectly, full fine-tuning less, DoRA least.
#
# ## 9 A control: random labels
#
# "Few parameters overfit less" sounds plausible. Give LoRA sentences whose labels are drawn by a coin: there is nothing to
# learn but the sentences themselves.
#
# **Predict.** Rank 1 has some nine thousand numbers and a head. Can it learn a few dozen coin flips by heart?

# %%
generator = torch.Generator().manual_seed(seed)
coins = torch.randint(2, (run.budget.n_memory,), generator=generator).tolist()
lottery = [{**example, "labels": coin} for example, coin in zip(sets["train"], coins, strict=False)]
base_rate = max(coins.count(0), coins.count(1)) / len(coins)
for r in (1, 8):
    net, _ = fit(tuners.Lora(r, 8), rate=3e-3, examples=lottery, steps=run.budget.memory_steps)
    guessed = training.predict(net, lottery, pad_id).argmax(-1)
    share = (guessed == torch.tensor(coins)).double().mean().item()
    run.record(**{f"memorised_r{r}": share})
    print(
        f"r = {r}: {share:.2f} of {len(coins)} coin flips learned by heart (the more frequent side: {base_rate:.2f})"
    )

# %% [markdown]
# **Observe.** What lies above the more frequent side of the coin was memorised. In the stored run that is everything,
# with rank 1 (and a head that trains, too: thirty-two points in so many dimensions are easy to part). A low rank limits
# *how* the model may change, which is something else than how much it can store. So "overfits less" is not a matter of
# counting parameters. It must be measured.
#
# ## 10 The grid
#
# Two tasks now: the mood of tweets, and that of sentences about films, where the two classes are equally frequent and the
# words say less. Two hundred training sentences, eighty updates. The rate of each method comes from section 3's kind of
# search: three seeds that the table does not use, steps of half a decade, the loss on dev sentences, and beyond the list
# where its best value lies at an end. Ten seeds; each has test sentences of its own. So the interval speaks of luck in
# training *and* of the draw of the sentences.
#
# The claims were written down before the first run:
#
# - **C3** (the articles): parameter-efficient tuning reaches full fine-tuning with far fewer parameters, and overfits
#   less. We read: LoRA of rank eight costs less than three points, trains less than an eighth, and has a smaller gap.
# - **LR1**: rank eight lies within three points of full fine-tuning. **LR2**: rank one lies within three points of rank
#   eight.
# - **LR3** (Hu et al.): with equally many parameters, queries *and* values beat queries alone, and values alone.
# - **D1** (Liu et al.): at rank one DoRA beats LoRA. **A1** (Zhang et al.): at one triplet a matrix AdaLoRA beats LoRA.
#
# **Predict.** Order the eight methods on each task. Which claim falls?

# %%
CLAIMS = ("C3", "LR1", "LR2", "LR3", "D1", "A1")
words, lines = lesson.words(*CLAIMS), lesson.results("lora")
print("verdicts:", words)
run.record(**{f"{claim.lower()}_verdict": word for claim, word in words.items()})
figure, panels = plotting.axes(1, 2, width=4.2, height=2.6, sharey=True, dpi=80)
for panel, name in zip(panels, lesson.experiment("lora").axes["task"], strict=True):
    lesson.dots(panel, "lora", "accuracy", name, task=name)
    truth = [label for row in lesson.predictions("lora") if row["task"] == name for label in row["targets"]]
    if truth:
        panel.axvline(max(truth.count(label) for label in set(truth)) / len(truth), color="black", ls=":")
    panel.set(xlabel="test accuracy")
_ = run.figure(figure, "09_lora")

# %% [markdown]
# *Figure: a dot for each of ten seeds, a bar at their mean; dotted, the larger class.*


# %%
def apart(a, b, metric="accuracy"):
    """Paired differences over the seeds, task by task: their means."""
    found = {(e["task"], e["method"], e["seed"]): e[metric] for e in lines}
    for name in lesson.experiment("lora").axes["task"]:
        both = [value - found[name, b, s] for (task, m, s), value in found.items() if (task, m) == (name, a)]
        print(f"{name:15s} {a} minus {b}, {metric}: {100 * sum(both) / max(1, len(both)):+.1f} points")


apart("lora_r8", "full")
apart("lora_r8", "full", "gap")
apart("lora_r8", "full", "train_accuracy")
apart("lora_r1", "lora_r8")
apart("lora_r8", "lora_q")
apart("lora_r8", "lora_v")
apart("dora_r1", "lora_r1")
apart("adalora", "lora_all_r1")
lesson.folded("lora", *CLAIMS)

# %% [markdown]
# **Observe.**
#
# - **C3** and **LR1** are supported. On both tasks LoRA of rank eight loses something to full fine-tuning, and the
#   interval of the mean lies inside the three points that were agreed before. Its gap between training and test is
#   smaller. Read the third pair of lines with that: LoRA also knows fewer of its *training* sentences after eighty
#   updates. It overfits less, and it has fitted less. Which of the two is the reason this grid cannot say.
# - **LR3** is undecided, by one of its parts. Queries alone are far behind, on both tasks. Against values alone both
#   differences are positive, and the interval in the fold holds zero.
# - **LR2**, **D1** and **A1** are *not tested*. In the column *did not train* of the folded table two rows of rank one
#   have more than one run in ten: *q, v* and *everywhere*. A rule that was written before the runs then refuses a verdict,
#   whatever the means say. The means say that on film sentences rank one is points behind rank eight. After eighty updates
#   that may be slowness.
#
# An equivalence (LR1) needs the *whole* interval inside the margin. A conjunction (C3, LR3) is supported only if each
# part is.
#
# ## 11 What we have shown
#
# Printed from this run's record.

# %%
k = run.metrics
slope, rs_slope = k["slope_gradient_lora"], k["slope_gradient_rslora"]
print(f"profile {run.profile}, seed {seed}, {run.device}")
print(f"LoRA trains {k['lora_parameters']:,} numbers and the head: {k['share']:.2%} of the model")
print(f"gradient of B against the rank: exponent {slope:+.2f} with α / r, {rs_slope:+.2f} with α / √r")
print(
    f"merging moves a logit by {k['merge_difference']:.0e}, without the scale by {k['forgotten_scale']:.2f}"
)
print(f"test accuracy {k['accuracy']:.3f}, with a lost head {k['accuracy_headless']:.3f}")
print(f"AdaLoRA: {k['accuracy_adalora']:.3f}, with {k['ranks_kept']} triplets left")
print(f"first direction shared by two ranks: {k['overlap_first']:.2f}, by chance {k['overlap_random']:.3f}")
print(f"amplification {k['amplification']:.2f}, of a random update {k['amplification_random']:.2f}")
print(f"coin flips learned by heart with rank 1: {k['memorised_r1']:.2f}")
print("verdicts:", {name: k[f"{name.lower()}_verdict"] for name in CLAIMS})

# %% [markdown]
# **What we have not shown.**
#
# - The grid has two tasks, short training, and an encoder of six layers. The papers train models that are many times
#   larger, for thousands of updates. AdaLoRA's schedule has little time here, and rank one did not always get going on
#   film sentences.
# - Rates come in steps of half a decade, from three tuning seeds. A method that needs a rate between two of them looks
#   worse than it is.
# - Sections 5, 7, 8 and 9 are one seed each, but for section 8.3. They show mechanisms and orders of magnitude; its ten seeds
#   are one task, one recipe and one small encoder.
# - The overlap depends on where one looks. We averaged twelve matrices and drew one.
# - Nothing here says what happens to *other* abilities of the model. Lesson 11 measures that.
#
# **What should I set?**
#
# | you want | set | check |
# |---|---|---|
# | a first try | `LoraConfig(r=8, lora_alpha=16, target_modules=...)` | before training: the plain model's logits |
# | a head that is saved | `task_type="SEQ_CLS"`, or `modules_to_save=[...]` | its name in the file; logits after reloading |
# | to compare ranks | a tuned rate for each rank | the loss against the rate, one line a rank |
# | high ranks at one rate | `use_rslora=True`, or fix $\alpha$ knowingly | the exponents of section 3 |
# | no cost at prediction | `merge_and_unload()`, in float32 | logits before and after |
# | two rates | `peft.optimizers.create_loraplus_optimizer` | which weights are fast |
# | a trunk of four bits | `BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")` | no merge into four bits |
# | a budget for the model | `AdaLoraConfig(init_r, target_r, total_step)`; `update_and_allocate` | the ranks that are left |
# | a story about an update | a random update of the same norm beside it | section 8's control |
#
# **Recall.** Answer without scrolling.
#
# 1. Write $\nabla_A$ and $\nabla_B$ with the full gradient $G$. What does LoRA not see?
# 2. Why is $A = B = 0$ a bad start, and $B = 0$ a good one?
# 3. You double the rank, $\alpha$ stays. What happens to the gradient of $B$, and to AdamW's first step?
# 4. Which two things must a saved adapter hold beside $A$ and $B$ to give the same answers?
# 5. An amplification factor of a trained update looks large. Which number do you ask for?
#
# <details><summary>Answers</summary>
#
# 1. $s B^\top G$ and $s G A^\top$. LoRA does not see what of $G$ lies outside the two projections.
# 2. With both zero, both gradients are zero: a saddle. With $B = 0$ the output stays, and $B$ can move.
# 3. The gradient of $B$ is divided by $\sqrt 2$. AdamW's first step stays.
# 4. The scale $s$ (rank and $\alpha$) and the trained head.
# 5. The same factor of a random update of the same norm.
#
# </details>
#
# **Exercises.** `notebooks/exercises/09_lora.py`; `make classroom` builds the student version.
#
# **References.**
#
# - Dettmers, T., Pagnoni, A., Holtzman, A., and Zettlemoyer, L. (2023). QLoRA: efficient finetuning of quantized LLMs.
#   *NeurIPS 2023*. arXiv:2305.14314.
# - Hayou, S., Ghosh, N., and Yu, B. (2024). LoRA+: efficient low rank adaptation of large models. *ICML 2024*.
#   arXiv:2402.12354.
# - Hu, E. J., et al. (2022). LoRA: low-rank adaptation of large language models. *ICLR 2022*. arXiv:2106.09685.
# - Hutto, C. J., and Gilbert, E. (2014). VADER: a parsimonious rule-based model for sentiment analysis of social media
#   text. *ICWSM 2014*.
# - Kalajdzievski, D. (2023). A rank stabilization scaling factor for fine-tuning with LoRA. arXiv:2312.03732.
# - Kopiczko, D. J., Blankevoort, T., and Asano, Y. M. (2024). VeRA: vector-based random matrix adaptation. *ICLR 2024*.
#   arXiv:2310.11454.
# - Liu, S.-Y., et al. (2024). DoRA: weight-decomposed low-rank adaptation. *ICML 2024*. arXiv:2402.09353.
# - Meng, F., Wang, Z., and Zhang, M. (2024). PiSSA: principal singular values and singular vectors adaptation of large
#   language models. *NeurIPS 2024*. arXiv:2404.02948.
# - Zhang, Q., et al. (2023). AdaLoRA: adaptive budget allocation for parameter-efficient fine-tuning. *ICLR 2023*.
#   arXiv:2303.10512.
# - Zhang, C., et al. (2017). Understanding deep learning requires rethinking generalization. *ICLR 2017*. On random labels.
