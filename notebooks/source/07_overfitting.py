# ---
# jupyter:
#   instructlab:
#     id: "07"
#     title: The overfitting laboratory
#     outcome: measure overfitting, build the usual remedies by hand, and say what each of them buys
#     assets: [minilm, vader, bigbench]
#     minutes: {smoke: 0.5, laptop: 3, gpu: 2}
#     class_minutes: 180
#     budget:
#       n_train: {smoke: 32, laptop: 50, gpu: 50}
#       n_dev: {smoke: 24, laptop: 200, gpu: 1000}
#       n_test: {smoke: 32, laptop: 400, gpu: 1800}
#       steps: {smoke: 4, laptop: 96, gpu: 96}
#       look_every: {smoke: 2, laptop: 12, gpu: 6}
#       decay_steps: {smoke: 2, laptop: 10, gpu: 20}
#       n_simulations: {smoke: 20, laptop: 400, gpu: 2000}
#       n_pairs: {smoke: 200, laptop: 4000, gpu: 4000}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 07 The overfitting laboratory
#
# **The question.** Fifty sentences about films. For each we throw a coin: heads means *positive*, tails *negative*. Nobody
# read the sentences. Can a model learn these labels? And if it can, what does a training loss near zero tell you?
#
# We try it on this page. Then we build the remedies that everybody recommends, each with a formula, a few lines of code
# and a test. At the end a grid says what each of them bought.
#
# | | |
# |---|---|
# | before this | lesson 01 (cross-entropy), lesson 03 (the loop, intervals, paired differences) |
# | time | smoke: under a minute · laptop: about three minutes on one core · gpu: not measured yet |
# | memory | under 2 GB |
# | model | MiniLM, 6 layers (`all-MiniLM-L6-v2`), pinned, offline |
# | data | film sentences, rated (Hutto and Gilbert, 2014); product reviews (Kocoń et al., 2021); cards: `data/cards` |
# | box of lesson 00's chain | *learn from the score*, when there is little to learn from |
#
# **You will be able to**
#
# - *tell* overfitting of the loss from overfitting of the accuracy;
# - *derive* dropout's scale, weight decay's pull, the finite optimum under label smoothing, and R-Drop's gradient;
# - *catch* four quiet mistakes;
# - *make* new sentences from old ones, and say which of them lie;
# - *repair* the confidence of a model with one number.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
seed: int = 0  # subsample, head, order of batches, dropout, augmentation
model: str = ""  # a folder or hub name instead of the pinned encoder
learning_rate: float = 1e-4  # peak of the schedule

# %%
import functools
import itertools
import random
from collections import defaultdict

import numpy as np
import torch
from torch.nn import functional as F

from instructlab_utils import intervals, models, plotting, start, tasks, training
from instructlab_utils.arguments import distributions, fraction, listed, scored, whole
from instructlab_utils.characters import is_word, pieces_of_text
from instructlab_utils.errors import TrainingError
from instructlab_utils.losses import cross_entropy, log_softmax

run = start("07", profile=profile, seed=seed)
show = functools.partial(plotting.show, run)

# %% [markdown]
# ## 1 Overfitting, measured
#
# ### 1.1 Fifty coins
#
# Word embeddings stay frozen: half of all weights, and one more small regulariser that we hold fixed. No dropout, no
# decay. The loop is lesson 03's, with a hook: every few updates `look` sees the model.

# %%
task = tasks.load("movie-sentiment")
tokenizer = models.load_tokenizer("encoder", model)
pad_id = tokenizer.pad_token_id
sizes = {"train": (run.budget.n_train, seed), "dev": (run.budget.n_dev, 0), "test": (run.budget.n_test, 0)}
rows = {name: tasks.subsample(task.splits[name], *chosen) for name, chosen in sizes.items()}
examples = {name: training.encode(part, tokenizer, 64) for name, part in rows.items()}
y = {name: torch.tensor(part["label"]) for name, part in rows.items()}
for name, labels in y.items():
    counts = dict(zip(task.labels, labels.bincount(minlength=2).tolist(), strict=True))
    print(f"{name:5s} {len(labels)} of {len(task.splits[name])}: {counts}")
print(rows["train"]["text"][0], "→", task.labels[y["train"][0]])


# %%
def set_dropout(net, p):
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = p


def fresh(head_seed=seed):
    net = models.load_classifier(2, seed=head_seed, model=model).to(run.device)
    set_dropout(net, 0.0)
    net.get_input_embeddings().weight.requires_grad_(False)
    return net


# %%
def fit(net, steps, objective=training.target_losses, decay=0.0, look=None, order=seed, learn=None):
    optimizer = torch.optim.AdamW(training.parameter_groups(net, decay), fused=True)
    batches = training.batches_of(learn or examples["train"], 8, pad_id, order)
    torch.manual_seed(order)
    for step in range(steps + 1):
        if look is not None and step % run.budget.look_every == 0:
            look(step, net)
        if step == steps:
            return net.eval()
        net.train()
        rate = learning_rate * training.linear_schedule(step, steps, round(0.1 * steps))
        batch = training.move(next(batches), run.device)
        training.training_step(net, optimizer, [batch], rate, 1.0, objective)


# %% [markdown]
# **Predict.** Forty-eight updates on fifty coins. The training accuracy afterwards: near a half, or near one?

# %%
coins = torch.randint(2, (len(y["train"]),), generator=torch.Generator().manual_seed(seed))
tossed = [one | {"labels": coin} for one, coin in zip(examples["train"], coins.tolist(), strict=True)]
memorised = fit(fresh(), run.budget.steps // 2, learn=tossed)
for name, part, truth in (("fifty coins", "train", coins), ("dev, labels by people", "dev", y["dev"])):
    z = training.predict(memorised, examples[part], pad_id)
    right = (z.argmax(1) == truth).double().mean().item()
    print(f"{name:21s} accuracy {right:.3f}, loss {cross_entropy(z, truth).mean():.3f}")
    run.record(**{f"coins_{part}": right})
print(f"coins that people agree with by luck {(coins == y['train']).double().mean():.3f}; ", end="")
print(f"larger class of dev: {y['dev'].bincount().max() / len(y['dev']):.3f}")

# %% [markdown]
# **Observe.** All coins are learned by heart, and there was nothing to learn. The second line says what that is worth on
# other sentences. A training loss near zero shows that a model *can* store its labels. It does not show why they are right.
# (Zhang, Bengio et al., 2021, did this with images, and found that the usual regularisers hardly prevent it.)
#
# The letters of this lesson:
#
# | symbol | meaning |
# |---|---|
# | $B, L, d, K$ | sentences in a batch, tokens, width, classes |
# | $z, p, q$ | logits; probabilities; a second distribution (target, or second pass) |
# | $h, m, r$ | an activation; its coin, 0 or 1; the probability of 0 |
# | $w, u, \eta, \lambda$ | weights, Adam's step, learning rate, decay |
# | $i, S$ | number of an update; how many there are |
# | $\varepsilon, \alpha$ | label smoothing; weight of R-Drop's divergence |
# | $e, g$ | an English and a German word (section 5) |
# | $M, J$ | members of an ensemble; tasks |
# | $T$ | temperature, and $s = 1/T$ |
#
# Where does each remedy act? One pass and one update, with shapes:

# %%
figure, axis = plotting.axes(width=8.4, height=2.6, dpi=80)
stations = {"sentences\nn": 0, "word vectors\nB × L × d\n(frozen)": 1, "6 layers\nB × L × d": 2}
stations |= {"logits z\nB × K": 3, "loss\nB": 4, "update of w": 5, "answer p\nB × K": 6}
boxed = {"ha": "center", "va": "center", "fontsize": 8}
for text, at in stations.items():
    axis.annotate("", (at + 0.62, 0), (at + 0.38, 0), arrowprops={"arrowstyle": "->"} if at < 6 else None)
    axis.text(at, 0, text, bbox={"boxstyle": "round", "fc": "white", "ec": "black"}, **boxed)
remedies = {"EDA, back-translation,\nrelated tasks": 0, "dropout": 2, "label smoothing,\nR-Drop": 4}
remedies |= {"ensemble,\ntemperature": 6, "weight decay": 5, "early stopping:\nwhich update's w?": 5.0}
for number, (text, at) in enumerate(remedies.items()):
    up = -1 if number == 5 else 1
    axis.annotate(text, (at, 0.28 * up), (at, 0.85 * up), arrowprops={"arrowstyle": "->", "ls": ":"}, **boxed)
axis.set(xlim=(-0.6, 6.6), ylim=(-1.1, 1.1))
axis.axis("off")
show(figure, "07_where")

# %% [markdown]
# *Figure: from left to right, one training step of eight sentences. Above and below, the remedies. Augmentation changes
# the data, dropout the layers, smoothing and R-Drop the loss, decay and early stopping the weights. Ensemble and
# temperature wait until training is over.*
#
# ### 1.2 Three curves
#
# Back to labels by people. The difference between the loss on other sentences and the training loss is the
# **generalisation gap**. *Overfitting* is the part of training in which the second falls and the first rises.
#
# **Predict.** Draw three curves: the loss on the training sentences, the loss on the dev sentences, the accuracy on the dev
# sentences. Which of them turn around?


# %%
def watch(found, times=1):
    """A hook for fit: appends a row of measures to the list, at every look or at each ``times``-th."""

    def look(step, net):
        if step % (times * run.budget.look_every):
            return
        row = {"step": step}
        for name in ("train", "dev"):
            z = training.predict(net, examples[name], pad_id)
            wrong = z.argmax(1) != y[name]
            row[f"{name}_each"] = cross_entropy(z, y[name])
            row[f"{name}_loss"] = row[f"{name}_each"].mean().item()
            row[f"{name}_accuracy"] = 1 - wrong.double().mean().item()
            row[f"{name}_sure"] = torch.softmax(z[wrong], 1).amax(1).mean().item() if wrong.any() else 0.5
        found.append(row)

    return look


# %%
curves = []
plain = fit(fresh(), run.budget.steps, look=watch(curves))
best = min(curves, key=lambda row: row["dev_loss"])
last = curves[-1]
run.record(
    best_dev_loss=best["dev_loss"], best_dev_step=best["step"], last_dev_loss=last["dev_loss"],
    last_train_loss=last["train_loss"], accuracy_at_best=best["dev_accuracy"], accuracy_at_last=last["dev_accuracy"],
)  # fmt: skip
print(f"dev loss {best['dev_loss']:.3f} after {best['step']} updates, {last['dev_loss']:.3f} at the end")
print(f"dev accuracy {best['dev_accuracy']:.3f} there, {last['dev_accuracy']:.3f} at the end")
early, late = best["dev_each"], last["dev_each"]
rise, worst = late - early, (late - early).topk(max(1, len(late) // 10)).values
print(f"of {len(rise)} dev sentences the loss fell for {(rise < 0).sum()} and rose for {(rise > 0).sum()};")
print(f"sum of all changes {rise.sum():+.1f} nats, of the tenth that rose most {worst.sum():+.1f}")

# %%
step = [row["step"] for row in curves]
figure, panels = plotting.axes(1, 3, width=3.3, height=2.7, dpi=80)
for panel, what in zip(panels, ("loss", "accuracy", "sure"), strict=True):
    for index, name in enumerate(("train", "dev")):
        if (name, what) != ("train", "sure"):
            panel.plot(step, [row[f"{name}_{what}"] for row in curves], label=name, **plotting.style(index))
    panel.set_xlabel("update")
panels[0].set(title="Loss", ylabel="cross-entropy (nats)")
panels[1].set(title="Accuracy")
panels[2].set(title="Confidence where it is wrong", ylabel="probability of the answer")
panels[1].axhline((y["dev"].bincount().max() / len(y["dev"])).item(), color="grey", linestyle=":")
panels[0].legend()
show(figure, "07_overfitting")

# %%
figure, axis = plotting.axes(width=4.6, height=2.7, dpi=80)
for index, (when, losses) in enumerate({best["step"]: early, last["step"]: late}.items()):
    look_of = plotting.style(index) | {"marker": "", "label": f"after {when} updates"}
    axis.plot(sorted(losses.tolist()), **look_of)
axis.axhline(np.log(2), color="grey", linestyle=":")
axis.set(xlabel="dev sentence, from the smallest loss to the largest", ylabel="loss (nats)")
axis.legend(fontsize=8)
show(figure, "07_sentences")

# %% [markdown]
# *First figure: circles training, squares dev; dotted, the larger class. Second figure: the losses of all dev sentences,
# sorted, early and late; dotted, the loss of guessing. A loss above it is a wrong answer.*
#
# **Observe.** Two measures of one model disagree. The dev loss is smallest early; the dev accuracy is higher at the
# end. The third panel and the sentences say why. For most sentences the loss *falls*. But among those that it gets
# wrong the model becomes surer and surer, and a tenth of all sentences weighs more than half of the net rise. Accuracy
# counts a mistake once, however sure. The loss charges $-\log p$ of the truth.
#
# So ask "overfitting of what?" before you ask "how do I stop it?". A remedy can lower the dev loss and leave every answer
# as it was. Section 7 has one that does exactly this, with one number.
#
# > **Recall.** The training loss reaches nearly zero, the dev accuracy is at its best. Is the model overfitted?
#
# ## 2 Noise, a pull, and a stop
#
# ### 2.1 Dropout
#
# Dropout (Srivastava et al., 2014) multiplies each activation $h$ by a coin $m \in \{0, 1\}$ that shows 0 with
# probability $r$. So that the next layer sees the same mean with and without coins, what survives is enlarged:
#
# $$ \tilde h = \frac{m\, h}{1 - r}, \qquad \mathbb E\,\tilde h = \frac{(1-r)\, h}{1-r} = h, \qquad
# \operatorname{Var} \tilde h = \frac{r}{1-r}\, h^2. $$
#
# This is *inverted* dropout: the scale is paid during training, and prediction needs nothing. **Two quiet mistakes.** One
# forgets the scale. The other is a default: the *module* `torch.nn.Dropout` obeys `eval()`, and the *function* of the same
# name cannot know about it.
#
# **Predict.** Twelve layers in a row, each with $r = 0.1$ and without the division: by which factor is the signal larger in
# prediction than in training? And how many zeros do the module and the function make in prediction?


# %%
def dropout(h, m, r):
    return m * h / (1 - r)


h = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
r = 0.25
m = (torch.rand(200_000, 3, generator=torch.Generator().manual_seed(seed)) >= r).double()
h_tilde = dropout(h, m, r)
print("mean", h_tilde.mean(0).numpy().round(2), "against", h.numpy())
print("variance", h_tilde.var(0).numpy().round(2), "against", (r / (1 - r) * h**2).numpy().round(2))
assert torch.allclose(h_tilde.mean(0), h, atol=0.02)
print(f"without the scale, prediction sees a signal {1 / (1 - 0.1) ** 12:.1f} times as large as training did")
ones, layer = torch.ones(1000), torch.nn.Dropout(0.5).eval()
print("module in eval mode, zeros:", int((layer(ones) == 0).sum()), "of 1000")
print("function, zeros:", int((F.dropout(ones, 0.5) == 0).sum()), "of 1000; it needs training=self.training")

# %% [markdown]
# ### 2.2 Weight decay
#
# AdamW (Loshchilov and Hutter, 2019) first shrinks every weight a little, then makes Adam's step $u_i$:
#
# $$ w_{i+1} = (1 - \eta_i \lambda)\, w_i - \eta_i\, u_i. $$
#
# Without a gradient only the pull is left: after $S$ updates a weight has the share $\prod_i (1 - \eta_i \lambda) \approx
# e^{-\lambda \sum_i \eta_i}$ of its size. Under a linear schedule $\sum_i \eta_i \approx \eta S / 2$.
#
# **Predict.** The usual $\lambda$ is $0.01$. What does it do to the weights in a run like ours?


# %%
def share_kept(decay, steps):
    warmup = round(0.1 * steps)
    rates = [learning_rate * training.linear_schedule(i, steps, warmup) for i in range(steps)]
    return np.prod([1 - rate * decay for rate in rates])


for decay in (0.01, 1.0, 10.0, 30.0):
    kept = share_kept(decay, run.budget.steps)
    print(f"λ = {decay:5.2f}: a weight without gradient keeps {kept:.6f} of its size")
few = run.budget.decay_steps  # with real gradients: a short run with decay and one without
nets = {decay: dict(fit(fresh(), few, decay=decay).named_parameters()) for decay in (0.0, 30.0)}
names = [name for name, w in nets[0.0].items() if "encoder" in name and w.ndim > 1]
ratio = np.mean([(nets[30.0][name].norm() / nets[0.0][name].norm()).item() for name in names])
print(f"{len(names)} matrices, {few} updates: share kept {ratio:.4f}, formula {share_kept(30.0, few):.4f}")
run.record(decay_ratio=ratio, decay_predicted=share_kept(30.0, few))

# %% [markdown]
# **Observe.** In the first line, next to nothing. In a run this short the usual strength does not act; the last of the
# four, three thousand times as strong, pulls visibly. On the real model, gradients beside the pull, the formula is close.
# ("L2 in the loss" is the same only for plain gradient descent; Adam divides it by the size of the gradients, see lesson
# 02.)
#
# ### 2.3 Early stopping is an estimator
#
# Look at the dev accuracy $A$ every $k$ updates, and keep the weights of the best look (Prechelt, 1998):
#
# $$ i^* = \arg\max_{i \,\in\, \{0, k, 2k, \dots, S\}} A(w_i), \qquad w^* = w_{i^*} . $$
#
# It costs labelled dev sentences and a forward pass over them at every look. In code one line matters: *copy* the weights.
# `state_dict()` hands out the tensors themselves, and the next update writes into them.


# %%
class KeepBest:
    """A hook for fit: the best dev accuracy so far, its update, and a copy of its weights; among equals the first."""

    best, step, kept = -1.0, None, None

    def __call__(self, step, net):
        right = training.predict(net, examples["dev"], pad_id).argmax(1) == y["dev"]
        if right.double().mean().item() > self.best:
            self.best, self.step = right.double().mean().item(), step
            self.kept = {name: w.detach().clone() for name, w in net.state_dict().items()}


def accuracy_of(net, split):
    return (training.predict(net, examples[split], pad_id).argmax(1) == y[split]).double().mean().item()


keep = KeepBest()
other = fit(fresh(seed + 1), run.budget.steps, order=seed + 1, look=keep)  # another head, another order

# %%
stopped = fresh(seed + 1)
_ = stopped.load_state_dict(keep.kept)
for name, net in {f"after {keep.step} updates, the best look": stopped, "at the end": other}.items():
    print(f"{name:32s} dev {accuracy_of(net, 'dev'):.3f}, test {accuracy_of(net, 'test'):.3f}")
assert accuracy_of(stopped, "dev") == keep.best  # the copy is what was scored
print(f"looks at {len(y['dev'])} sentences each: {run.budget.steps // run.budget.look_every + 1}")
del stopped

# %% [markdown]
# It also tempts: the best dev score lies before you, so you report it.
#
# **Predict.** A model's true accuracy is $0.7$ and never changes. Between two looks it only changes its mind on a fifth
# of the sentences. You look twenty times at 200 dev sentences. What is the best score, on average? What is the test
# accuracy at that look?


# %%
def best_of(looks, n_dev, rng, p=0.7, redrawn=0.2):
    right = rng.random(n_dev) < p
    scores = [right.mean()]
    for _ in range(looks - 1):
        again = rng.random(n_dev) < redrawn
        right = np.where(again, rng.random(n_dev) < p, right)
        scores.append(right.mean())
    return max(scores)


rng = np.random.default_rng(seed)
print("looks   200 dev sentences   50 dev sentences")
for looks in (1, 5, 20, 80):
    means = [np.mean([best_of(looks, n, rng) for _ in range(run.budget.n_simulations)]) for n in (200, 50)]
    print(f"{looks:5d}   {means[0]:17.3f}   {means[1]:16.3f}")
run.record(optimism_80_looks=means[1] - 0.7)

# %% [markdown]
# **Observe.** The true accuracy was the same at every look, so on average the test accuracy of the chosen weights is $0.7$.
# The rest is **optimism**: the maximum of noisy numbers is too large, the more so the more looks there are and the
# fewer dev sentences.
#
# **Repair.** Choose on dev, report on test, once.
#
# > **Recall.** Somebody fits twenty values of dropout and reports the best dev accuracy. Is that different from twenty
# looks?
#
# ## 3 Softer targets
#
# ### 3.1 Label smoothing
#
# Lesson 01 derived the gradient of cross-entropy with respect to the logits: $p - q$, with $q$ the target distribution.
# For a hard label it vanishes only where $p_y = 1$, that is for an infinite logit.
#
# Label smoothing (Szegedy et al., 2016) gives the truth $q_y = 1 - \varepsilon + \varepsilon / K$ and each other class
# $\varepsilon / K$. Now $p = q$ is possible, at a **finite gap** between the logits of the truth and of any other class:
#
# $$ z_y - z_k = \log \frac{q_y}{q_k} = \log \frac{1 - \varepsilon + \varepsilon/K}{\varepsilon/K}
# = \log\Big(1 + \frac{K (1 - \varepsilon)}{\varepsilon}\Big). $$

# %% tags=["nbval-check-output"]
K, epsilon = 2, 0.1
gap = np.log(1 + K * (1 - epsilon) / epsilon)
for smoothing in (0.0, epsilon):
    z = torch.zeros(K, dtype=torch.float64, requires_grad=True)
    shown = []
    for step in range(1, 10_001):
        g = torch.autograd.grad(cross_entropy(z, torch.tensor(0), smoothing), z)[0]
        z = (z - 0.5 * g).detach().requires_grad_(True)
        if step in (10, 100, 1000, 10_000):
            shown.append(f"{(z[0] - z[1]).item():.3f}")
    print(f"ε = {smoothing}: logit gap after 10, 100, 1000, 10000 steps:", ", ".join(shown))
print(f"formula: {gap:.3f}")
assert abs((z[0] - z[1]).item() - gap) < 1e-9

# %% [markdown]
# **Observe.** Without smoothing the gap still grows at the last step; with it, it stops at the formula. That says nothing
# about whether the *answers* on other sentences get better.
#
# ### 3.2 R-Drop
#
# With dropout on, two passes of one sentence give two distributions, $p$ and $q$. R-Drop (Liang et al., 2021) passes
# every batch twice and adds the symmetric Kullback-Leibler divergence. With $\mathrm{KL}(p \,\|\, q) = \sum_k p_k \log
# (p_k / q_k)$,
#
# $$ \tfrac12 \mathrm{KL}(p \,\|\, q) + \tfrac12 \mathrm{KL}(q \,\|\, p)
# = \tfrac12 \sum_k (p_k - q_k)(\log p_k - \log q_k) \;\ge\; 0, $$
#
# since both brackets always have the same sign.


# %% tags=["defines:losses.symmetric_kl", "defines:losses.r_drop"]
def symmetric_kl(a, b):
    if a.shape != b.shape:
        raise TrainingError(f"logits {tuple(a.shape)} and {tuple(b.shape)}: the two passes differ in shape")
    log_p, log_q = log_softmax(a), log_softmax(b)
    p, q = log_p.exp(), log_q.exp()
    return ((p - q) * (log_p - log_q).masked_fill(p + q == 0, 0.0)).sum(-1) / 2


def r_drop(a, b, targets, alpha):
    if not alpha >= 0:  # nan neither
        raise TrainingError(f"alpha is {alpha}: the weight of the divergence is a number, 0 or more")
    return (cross_entropy(a, targets) + cross_entropy(b, targets)) / 2 + alpha * symmetric_kl(a, b)


# %% [markdown]
# The gradient, three ways. Let $l_k = \log p_k - \log q_k$. The derivative of $\mathrm{KL}(p\,\|\,q)$ with respect to
# the logit $a_j$ is $p_j (l_j - \mathrm{KL}(p \,\|\, q))$, since $\partial p_k / \partial a_j = p_k (\delta_{kj} -
# p_j)$ and $\sum_k p_k\, \partial \log p_k / \partial a_j = 0$. And $\mathrm{KL}(q \,\|\, p)$ is a cross-entropy with
# the target $q$, plus a constant, so its derivative is $p_j - q_j$. Together
#
# $$ \frac{\partial}{\partial a_j} = \tfrac12\, p_j \big(l_j - \mathrm{KL}(p \,\|\, q)\big) + \tfrac12\,(p_j - q_j). $$

# %%
generator = torch.Generator().manual_seed(seed)
a, b = (torch.randn(4, 3, dtype=torch.float64, generator=generator).requires_grad_(True) for _ in range(2))
p, q = torch.softmax(a, 1), torch.softmax(b, 1)
l = p.log() - q.log()
closed = (p * (l - (p * l).sum(1, keepdim=True)) + p - q).detach() / 2
auto = torch.autograd.grad(symmetric_kl(a, b).sum(), a)[0]
nudge = 1e-6 * torch.eye(12, dtype=torch.float64).view(12, 4, 3)
finite = [(symmetric_kl(a + e, b) - symmetric_kl(a - e, b)).sum().item() / 2e-6 for e in nudge]
finite = torch.tensor(finite, dtype=torch.float64).view(4, 3)
assert closed.shape == auto.shape == finite.shape
to_auto, to_finite = (closed - auto).abs().max(), (closed - finite).abs().max()
print(f"closed form against autograd {to_auto:.0e}, against differences {to_finite:.0e}")

# %% [markdown]
# **The third quiet mistake.** R-Drop lives on dropout's coins. Our plain model has none.
#
# **Predict.** What is the added term for two passes of the plain model in training mode? And with dropout?

# %%
batch = training.move(training.collate(examples["dev"][:8], pad_id), run.device)


def logits_of(net, batch):
    return net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


plain.train()
for r in (0.1, 0.0):
    set_dropout(plain, r)
    with torch.no_grad():
        kl = symmetric_kl(logits_of(plain, batch), logits_of(plain, batch)).mean()
    print(f"dropout {r}: symmetric KL of two passes {kl:.4f} nats")
_ = plain.eval()

# %% [markdown]
# **Observe.** Zero without coins: $\alpha$ may be anything, and the program runs, with twice the passes, without a word.
#
# And the price. Two passes cost about twice the time. In our grid R-Drop therefore makes half as many updates as the
# others. Equal updates would be unequal work. But halving has a price of its own, and section 8 shows it.
#
# ## 4 More sentences: EDA
#
# Few sentences? Make more. Wei and Zou (2019) change a sentence in one of four ways and keep its label: replace words by
# synonyms, insert synonyms, swap words, delete words. They take synonyms from WordNet. There is none here, so we ask the
# encoder's own table of word embeddings for the nearest neighbours. That is a different thing, as you will see.
#
# What is a word? The pattern `\w+` takes a whole sentence of Chinese for one. Our package's rule knows scripts. (Below,
# `listed` refuses a text in the place of a list of words, `fraction` a share outside $[0, 1]$.)


# %% tags=["defines:augmentation.words_of", "defines:augmentation.nearest_words"]
def words_of(text):
    return pieces_of_text(text.lower())


def nearest_words(table, vocabulary, wanted, k=5, least=3):
    rows = [i for i, w in enumerate(vocabulary) if is_word(w, least)]
    if len(table) < len(vocabulary) or not 0 < k < len(rows):
        raise ValueError(f"{len(table)} rows, {len(vocabulary)} words, {len(rows)} of them whole, k = {k}")
    unit = torch.nn.functional.normalize(table[rows], dim=1)
    asked = [row for row, i in enumerate(rows) if vocabulary[i] in wanted]
    near = (unit[asked] @ unit.T).topk(k + 1).indices[:, 1:].tolist()  # the nearest of all is the word itself
    return {
        vocabulary[rows[a]]: [vocabulary[rows[j]] for j in line] for a, line in zip(asked, near, strict=True)
    }


# %% [markdown]
# **Predict.** What are the nearest neighbours of *good*? Would you put any of them into a sentence with the label
# *positive*?

# %%
table = plain.get_input_embeddings().weight.detach().cpu()
vocabulary = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
POSITIVE = set("good great best exciting funny interesting love perfect strong better".split())
NEGATIVE = set("bad terrible worst boring dull awful hate poor weak worse".split())
near = nearest_words(table, vocabulary, POSITIVE | NEGATIVE)
opposite = [w for w in near if set(near[w]) & (NEGATIVE if w in POSITIVE else POSITIVE)]
for word in ("good", "best", "boring", "hate", "funny", "perfect"):
    print(f"{word:8s} → {', '.join(near[word])}")
print(
    f"{len(opposite)} of {len(near)} opinion words have one of the other side among their five: {', '.join(opposite)}"
)
run.record(opposites=len(opposite), opinion_words=len(near))

# %% [markdown]
# **Observe.** *Good* has *bad* among its five, and the last line counts how often that happens. Nearness in an embedding
# table means "used alike", not "means the same". Such a swap changes the sentence's side and keeps its label: label noise.
#
# The four operations:


# %% tags=["defines:augmentation.replace_words", "defines:augmentation.insert_words"]
def replace_words(words, near, n, rng):
    new = listed(words, "words")
    known = [i for i, word in enumerate(words) if word in near]
    for i in rng.sample(known, min(n, len(known))):
        new[i] = rng.choice(near[new[i]])
    return new


def insert_words(words, near, n, rng):
    new, known = listed(words, "words"), [word for word in words if word in near]
    for _ in range(n if known else 0):
        new.insert(rng.randrange(len(new) + 1), rng.choice(near[rng.choice(known)]))
    return new


# %% tags=["defines:augmentation.swap_words", "defines:augmentation.delete_words"]
def swap_words(words, n, rng):
    new = listed(words, "words")
    for _ in range(n if len(new) > 1 else 0):
        i, j = rng.sample(range(len(new)), 2)
        new[i], new[j] = new[j], new[i]
    return new


def delete_words(words, share, rng):
    old, share = listed(words, "words"), fraction(share, "share")
    return [word for word in old if rng.random() >= share] or [rng.choice(old) for _ in old[:1]]


# %% tags=["defines:augmentation.eda"]
def eda(words, near, share, rng):
    n = max(1, round(fraction(share, "share") * len(words)))
    operation = rng.choice(["replace", "insert", "swap", "delete"])
    if operation == "replace":
        return replace_words(words, near, n, rng)
    if operation == "insert":
        return insert_words(words, near, n, rng)
    return swap_words(words, n, rng) if operation == "swap" else delete_words(words, share, rng)


# %%
texts = rows["train"]["text"]
near = nearest_words(table, vocabulary, {word for text in texts for word in words_of(text)})
rng = random.Random(seed)
for text, label in zip(texts[:3], rows["train"]["label"][:3], strict=True):
    print(f"{task.labels[label]}: {text[:100]}")
    for _ in range(3):
        print("    ", " ".join(eda(words_of(text), near, 0.1, rng))[:100])

# %% [markdown]
# Read them as an annotator. Which would you still give the same label? Which is no sentence any more?
#
# ## 5 Back-translation, with a dictionary learned from scratch
#
# As augmentation, back-translation sends a sentence into another language and back, and what returns is a paraphrase (Xie
# et al., 2020). (The word is older: for Sennrich et al., 2016, it was one way only, to get more pairs for a translator.)
# Today one would ask a language model for paraphrases. We have no good one of either offline. We have pairs of sentences,
# English and German, about products, themselves translated by a machine. From pairs alone one can learn which *words*
# translate each other (Brown et al., 1993).
#
# Let $t(g \mid e)$ be the probability that the English word $e$ becomes the German word $g$. In a pair of sentences
# nobody says which $e$ produced which $g$. **Expectation maximisation** guesses and improves the guess:
#
# - *E step.* For a German word $g$ in a pair, each English word $e$ of that pair gets the share
#   $c(e \to g) = t(g \mid e) \big/ \sum_{e'} t(g \mid e')$.
# - *M step.* Add up the shares over all pairs, and normalise for each $e$: $\;t(g \mid e) = \sum c(e \to g) \big/
#   \sum_{g'} \sum c(e \to g')$.
#
# Each possible link of a $g$ and an $e$ is one entry of the arrays below.


# %% tags=["defines:augmentation.ibm_model_1"]
def ibm_model_1(e, g, place, rounds=5):
    if not len(e) == len(g) == len(place) > 0:
        raise ValueError(
            f"links of length {len(e)}, {len(g)} and {len(place)}: need the same, and at least one"
        )
    width = g.max() + 1
    cells, at = np.unique(e * width + g, return_inverse=True)
    row, t = cells // width, np.ones(len(cells))
    for _ in range(rounds):
        c = t[at] / np.bincount(place, t[at])[place]  # E: how much of this g comes from this e
        count = np.bincount(at, c)
        t = count / np.bincount(row, count)[row]  # M: the share of g in all that e became
    return row, cells % width, t


# %% [markdown]
# **Predict.** Three pairs: *the house = das haus*, *the book = das buch*, *a book = ein buch*. After one round, which is
# larger: $t(\textit{das} \mid \textit{the})$ or $t(\textit{haus} \mid \textit{house})$? And after many?

# %% tags=["nbval-check-output"]
english, german = ["the", "house", "book", "a"], ["das", "haus", "buch", "ein"]
places = [((0, 1), 0), ((0, 1), 1), ((0, 2), 0), ((0, 2), 2), ((3, 2), 3), ((3, 2), 2)]
links = [(e, g, place) for place, (pair, g) in enumerate(places) for e in pair]
e, g, place = map(np.array, zip(*links, strict=True))
for rounds in (1, 2, 5, 50):
    row, column, t = ibm_model_1(e, g, place, rounds)
    shown = {f"t({german[j]}|{english[i]})": p for i, j, p in zip(row, column, t, strict=True)}
    print(
        f"{rounds:2d} rounds:",
        {k: round(float(shown[k]), 2) for k in ("t(das|the)", "t(haus|house)", "t(buch|book)")},
    )
assert shown["t(das|the)"] > 0.99 and shown["t(haus|house)"] > 0.98

# %% [markdown]
# **Observe.** After one round *house* is torn between *das* and *haus*. But *das* stands with *book* too, and in both pairs
# with *the*. So *the* takes over *das*, and what is left for *house* is *haus*. Nobody told the program.
#
# Now the real pairs. The empty word "" stands in every English sentence, for German words that come from nowhere. Then back
# and forth, word by word; both steps draw a translation by its probability.


# %% tags=["defines:augmentation.dictionary"]
def dictionary(pairs, rounds=5, least=0.05):
    number = {}
    e, g, lengths = [], [], []
    for source, target in pairs:
        sides = ["", *listed(source, "source")], listed(target, "target")
        s, t = ([number.setdefault(w, len(number)) for w in side] for side in sides)
        e += s * len(t)
        g += [word for word in t for _ in s]
        lengths += [len(s)] * len(t)
    place, names = np.repeat(np.arange(len(lengths)), lengths), list(number)
    found = defaultdict(dict)
    for i, j, p in zip(*ibm_model_1(np.array(e), np.array(g), place, rounds), strict=True):
        if p >= least and is_word(names[i]) and is_word(names[j]):
            found[names[i]][names[j]] = float(p)
    return dict(found)


# %%
reviews = tasks.load("products-en-de").splits["train"].select(range(run.budget.n_pairs))
pairs = [(words_of(row["source"]), words_of(row["targets"][0])) for row in reviews]
there, back = dictionary(pairs), dictionary([(g, e) for e, g in pairs])
for word in ("good", "film", "story", "boring", "never", "the"):
    best_first = sorted(there.get(word, {}).items(), key=lambda item: -item[1])[:4]
    print(f"{word:7s}", ", ".join(f"{g} {t:.2f}" for g, t in best_first))
known = [word in there for text in texts for word in words_of(text) if word.isalpha()]
print(
    f"{len(there)} English words from {len(pairs)} pairs; they cover {np.mean(known):.2f} of the film sentences' words"
)
run.record(dictionary_words=len(there), dictionary_coverage=np.mean(known))


# %% tags=["defines:augmentation.back_translate"]
def back_translate(words, there, back, share, rng):
    new, share = [], fraction(share, "share")
    for word in listed(words, "words"):
        if rng.random() < share and word in there:
            (middle,) = rng.choices(list(there[word]), list(there[word].values()))
            if middle in back:
                (word,) = rng.choices(list(back[middle]), list(back[middle].values()))
        new.append(word)
    return new


# %%
rng = random.Random(seed)
for text in texts[:4]:
    print(text[:110])
    for share in (0.2, 1.0):
        print(f"   {share:.1f}", " ".join(back_translate(words_of(text), there, back, share, rng))[:105])

# %% [markdown]
# **Observe.** Some words come back as synonyms, some as their neighbours in the sentence. With a share of one, grammar does
# not survive in these lines.
#
# ## 6 Averages and relatives
#
# ### 6.1 Ensembles
#
# Train $M$ models that differ only in head and order, and average their probabilities: $\bar p = \frac1M \sum_m p^{(m)}$
# (Lakshminarayanan et al., 2017). The logarithm is concave, so by Jensen's inequality, for every single example,
#
# $$ -\log \bar p_y \;=\; -\log \frac1M \sum_m p_y^{(m)} \;\le\; \frac1M \sum_m -\log p_y^{(m)}. $$
#
# The ensemble's loss is not above the *mean* loss of its members. This is arithmetic, not an experiment. It says nothing
# about the best member, nothing about accuracy, and nothing about the same work spent on one model.
#
# **Predict.** Two members: the plain model, and section 2.3's with another head and order. The opponent for equal work: one
# model with twice the updates. Which has the lowest test loss?

# %%
longer = fit(fresh(), 2 * run.budget.steps)
z_test = [training.predict(net, examples["test"], pad_id).double() for net in (plain, other, longer)]
p = [torch.softmax(z, 1) for z in z_test]
p.append((p[0] + p[1]) / 2)
nll = [-one[torch.arange(len(one)), y["test"]].log() for one in p]
nll = [nll[0], nll[1], nll[3], nll[2]]  # the first two, together, and the longer run
names = ("first", "second", "the two together", "one, twice the updates")
for name, one, loss in zip(names, (p[0], p[1], p[3], p[2]), nll, strict=True):
    accuracy = (one.argmax(1) == y["test"]).double().mean().item()
    print(f"{name:22s} test loss {loss.mean():.3f}  accuracy {accuracy:.3f}")
excess = (nll[2] - (nll[0] + nll[1]) / 2).max().item()
assert excess <= 1e-9
print(f"largest excess over the members' mean, of all sentences: {excess:.0e}")
run.record(ensemble_loss=nll[2].mean(), members_loss=(nll[0].mean() + nll[1].mean()) / 2)
run.record(longer_loss=nll[3].mean())

# %% [markdown]
# **Observe.** The inequality holds for every sentence, as it must. Hold the line of the ensemble against that of the
# longer run: they cost the same number of updates. Then look at the first member alone: an ensemble need not beat its
# best member. Accuracy has no guarantee. Let three members give the truth, one of two classes, $0.55$, $0.55$ and
# $0.05$. Two are right. The mean is $0.38$, and the ensemble is wrong.
#
# ### 6.2 Related tasks
#
# Film sentences are scarce, but tweets and newspaper editorials have moods, too. **Multi-task** training (Caruana, 1997)
# shares the encoder and gives each task a head of its own. A trick makes $J$ heads out of one: a head with $2 J$ logits,
# of which task $j$ owns the pair $2j, 2j+1$, and the label says both task and class.


# %% tags=["nbval-check-output"]
def task_losses(logits, labels):
    t, label = labels // 2, labels % 2
    pairs = logits.unflatten(1, (-1, 2))
    return cross_entropy(pairs[torch.arange(len(t)), t], label)


logits = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
loss = task_losses(logits, torch.tensor([1, 2, 5]))  # a film, a tweet, an editorial
g = torch.autograd.grad(loss.sum(), logits)[0]
print((g != 0).int().numpy())

# %% [markdown]
# **Observe.** Each row's gradient stays inside its task's pair; the encoder under the heads gets all three. In a batch of the
# same size the relatives take places away from the films. Section 8 asks what that costs, and what they give back.
#
# ## 7 Does it know what it does not know?
#
# ### 7.1 The reliability diagram
#
# The **confidence** of an answer is the largest probability. Sort the test sentences into bins by confidence and compare,
# in each bin $b$ of $n_b$ sentences, the mean confidence with the accuracy. The **expected calibration error** (Naeini et
# al., 2015) is the weighted mean distance,
#
# $$ \mathrm{ECE} = \sum_b \frac{n_b}{N} \big| \mathrm{acc}_b - \mathrm{conf}_b \big|. $$


# %% tags=["defines:metrics.expected_calibration_error"]
def expected_calibration_error(probabilities, targets, bins=10):
    p, y = distributions(probabilities, targets)  # refuses logits, and targets that do not fit
    confidence, hit = p.max(1), p.argmax(1) == y
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(bin_of, hit - confidence, whole(bins, "bins"))  # n_b (accuracy_b - confidence_b)
    return float(np.abs(gaps).sum() / len(p))


# %% [markdown]
# **Predict.** Our plain model has seen its training loss go to zero. On which side of the diagonal will its points lie?
#
# ### 7.2 One number that repairs the confidence
#
# **Temperature scaling** (Guo et al., 2017) divides all logits by one $T > 0$. No answer changes, since the order of the
# logits stays. $T$ is fitted on dev. With $s = 1/T$ the loss is convex in $s$, and its slope has a simple form:
#
# $$ \frac{d}{ds} \Big( \log \sum_k e^{s z_k} - s z_y \Big) = \sum_k p_k z_k - z_y . $$
#
# (We compare the plain model, the same with its temperature, and a model trained with label smoothing.)
#
# A slope that only rises crosses zero at most once. Bisection finds where. (If all answers are right, the slope stays below
# zero and the best $T$ would be 0; the function stops at the end of its range.)


# %% tags=["defines:metrics.fit_temperature"]
def fit_temperature(logits, targets, low=0.01, high=100.0):
    from scipy.special import softmax

    z, y = scored(logits, targets, "logits")
    small, large = 1 / high, 1 / low
    for _ in range(60):
        s = np.sqrt(small * large)
        slope = ((softmax(s * z, axis=1) * z).sum(1) - z[np.arange(len(y)), y]).mean()
        small, large = (s, large) if slope < 0 else (small, s)
    return float(1 / np.sqrt(small * large))


# %%
epsilon = 0.1


def smoothed_losses(net, batch):
    return cross_entropy(logits_of(net, batch), batch["labels"], epsilon)


smooth_curves = []
smoothed = fit(fresh(), run.budget.steps, smoothed_losses, look=watch(smooth_curves, 2))
dev = training.predict(plain, examples["dev"], pad_id)
T = fit_temperature(dev, y["dev"])
z_smoothed = training.predict(smoothed, examples["test"], pad_id).double()
z = {"plain": z_test[0], f"plain, T = {T:.2f}": z_test[0] / T, f"smoothed, ε = {epsilon}": z_smoothed}

# %%
ece = []
for name, one in z.items():
    accuracy = (one.argmax(1) == y["test"]).double().mean().item()
    ece.append(expected_calibration_error(torch.softmax(one, 1), y["test"]))
    loss = cross_entropy(one, y["test"]).mean()
    print(f"{name:18s} accuracy {accuracy:.3f}  loss {loss:.3f}  ECE {ece[-1]:.3f}")
run.record(temperature=T, ece_plain=ece[0], ece_tempered=ece[1], ece_smoothed=ece[2])

# %%
figure, panels = plotting.axes(1, 3, width=3.0, height=3.0, sharex=True, sharey=True, dpi=80)
edges = np.linspace(0.5, 1.0, 6)
for index, (panel, (name, one)) in enumerate(zip(panels, z.items(), strict=True)):
    confidence, answer = torch.softmax(one, 1).max(1)
    right, confidence = (answer == y["test"]).double().numpy(), confidence.numpy()
    inside = [(confidence > low) & (confidence <= low + 0.1) for low in edges[:-1]]
    points = [(confidence[i].mean(), right[i].mean(), i.sum()) for i in inside if i.any()]
    panel.plot([0.5, 1], [0.5, 1], color="black", linestyle=":")
    x, height, n = zip(*points, strict=True)
    panel.plot(x, height, **plotting.style(index))
    for point in points:
        panel.annotate(str(point[2]), point[:2], xytext=(3, -11), textcoords="offset points", fontsize=8)
    panel.set(title=name, xlabel="confidence", xlim=(0.48, 1.02), ylim=(0.0, 1.02))
panels[0].set_ylabel("share of right answers")
show(figure, "07_reliability")

# %% [markdown]
# *Figure: the dotted diagonal is honesty; numbers beside the points count test sentences.*
#
# **Observe.** The plain model's many sure answers lie far below the diagonal. One number, fitted on dev, lowers loss and
# ECE in the printed lines and leaves the accuracy. Compare them with the third line before you believe anybody's sentence
# about smoothing.
#
# **The fourth quiet mistake:** fit $T$ on the test sentences. The reported loss is then the smallest that any $T$ can
# reach.
#
# ### With the library
#
# Everything above once more from torch and scipy, with the largest difference of each. For dropout we read torch's mask
# off its result.

# %%
from scipy.optimize import minimize_scalar

g = torch.Generator().manual_seed(seed)
x = torch.randn(64, 8, generator=g, dtype=torch.float64)
theirs = F.dropout(x, 0.3)
largest = {"dropout": (dropout(x, (theirs != 0).double(), 0.3) - theirs).abs().max().item()}
a, b = torch.randn(2, 64, 3, generator=g, dtype=torch.float64)
log_p, log_q = F.log_softmax(a, 1), F.log_softmax(b, 1)
kl = [F.kl_div(v, u, log_target=True, reduction="none").sum(1) for u, v in ((log_p, log_q), (log_q, log_p))]
largest["symmetric KL"] = (symmetric_kl(a, b) - sum(kl) / 2).abs().max().item()
labels = torch.randint(3, (64,), generator=g)
library = F.cross_entropy(a, labels, label_smoothing=0.1, reduction="none")
largest["label smoothing"] = (cross_entropy(a, labels, 0.1) - library).abs().max().item()


# %%
def dev_loss(s):
    return cross_entropy(dev.double() * s, y["dev"]).mean().item()


found = minimize_scalar(dev_loss, bounds=(0.01, 100), method="bounded", options={"xatol": 1e-9})
largest["1 / temperature"] = abs(found.x - 1 / T)
for name, difference in largest.items():
    print(f"{name:16s} largest difference {difference:.0e}")
assert max(largest["dropout"], largest["symmetric KL"], largest["label smoothing"]) < 1e-12
assert largest["1 / temperature"] < 1e-4
run.record(library_difference=max(largest["dropout"], largest["symmetric KL"], largest["label smoothing"]))

# %% [markdown]
# ## 8 The experiment: what does each of them buy?
#
# The source articles (five Chinese-language blog articles on the "infinite instruction set", see lesson 00) answer "how
# do I avoid overfitting?" with a list, and measure none of it. We wrote two claims down before the first run; a third, on
# related tasks, has an experiment of its own below:
#
# - **C14**: weight decay, dropout and early stopping each raise the test accuracy over the plain run, and an ensemble
#   that of its members. All four must hold, after Holm's correction.
# - **C12**: so do back-translation and EDA, both.
#
# The articles speak of overfitting; test accuracy decides. Losses and gaps are printed beside it. All methods get the
# same film sentences, peak rate and number of updates (R-Drop half). So what does each *see*? **Predict.** At 200 film
# sentences, EDA adds four changed copies of each. How many of the 200 originals does a run of sixty updates pass at all?

# %%
from instructlab_repro import lesson

spec, lines = lesson.experiment("regularisers"), lesson.results("regularisers")
seconds = {m: np.median([e["cpu_seconds"] for e in lines if e["method"] == m] or [0]) for m in spec.methods}
seen = {}
for method in ("plain", "r_drop", "eda", "back_translation", "multi_task", "ensemble"):
    for n in spec.axes["n_train"]:
        steps = spec.settings_by["n_train"]["steps"][str(n)]
        draws = spec.settings["batch_size"] * steps / (2 if method == "r_drop" else 1)
        pool = n * {"eda": 5, "back_translation": 5, "multi_task": 2}.get(method, 1)
        seen[method, n] = (draws / pool, draws / n - draws / pool)  # of an original; of others, for each
        times = ", three times" if method == "ensemble" else ""
        said = f"{draws:3.0f} draws from {pool:4d}, an original {draws / pool:.1f} times{times}"
        print(f"{spec.labels[method]:25s} n = {n:3d}: {said}; {seconds[method]:.0f} CPU seconds")

# %%
figure, panels = plotting.axes(1, 2, width=3.8, height=2.4, sharey=True, dpi=80)
for panel, n in zip(panels, spec.axes["n_train"], strict=True):
    mine = {method: value for (method, size), value in seen.items() if size == n}
    own, others = zip(*mine.values(), strict=True)
    panel.barh(range(len(mine)), own, color=plotting.COLOURS[0], label="original film sentences")
    hatched = {"color": "white", "edgecolor": "black", "hatch": "///", "label": "others"}
    panel.barh(range(len(mine)), others, left=own, **hatched)
    panel.axvline(1, color="black", linestyle=":")
    panel.set(title=f"n = {n}", xlabel="passes for each film sentence", yticks=range(len(mine)))
    panel.set_yticklabels([spec.labels[method] for method in mine])
panels[0].invert_yaxis()
figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
show(figure, "07_sees")

# %%
tuned = lesson.results("regularisers", "tune")
for method in dict.fromkeys(line["method"] for line in tuned):
    tried = [line for line in tuned if line["method"] == method]
    top = max(line["dev_accuracy"] for line in tried)
    ties = [value for line in tried if line["dev_accuracy"] == top for value in line["tuned"].values()]
    by_loss = min(tried, key=lambda line: line["dev_loss"])["tuned"].values()
    said = f"best dev accuracy {top:.3f} at {sorted(ties)}; by dev loss {[*by_loss]}"
    print(f"{spec.labels[method]:25s} {said}; {seconds[method]:.0f} CPU seconds")

# %% [markdown]
# *Figure: how often a run passes each original sentence, and how many passes go to changed or related ones instead. Dotted:
# once. (The ensemble's bar is that of one member.) Below it, what tuning saw.*
#
# **Observe.** At the larger size, EDA and back-translation end before the first epoch does: about half of the originals
# are never seen. This grid cannot tell *less real data* from *changed data*. The ensemble costs three times the seconds
# of the plain run, but its registered opponent is the mean of its members, not one run of three times the length. Early
# stopping pays for its looks: compare its seconds with plain's.
#
# The knobs: three values each, tried once, chosen by dev accuracy. Where several values stand in the brackets, accuracy
# had no opinion, and the first one listed won. The dev loss separates them; it would have chosen the same values, but for
# early stopping's. So mostly the weakest value won, on one seed. For next time: choose by loss, over several seeds, and
# print ties.
#
# **Predict.** Which methods raise the accuracy? Which lower the loss? Write two lists.

# %%
print("verdicts:", verdicts := lesson.words("C14", "C12"))
run.record(**{f"{claim.lower()}_verdict": word for claim, word in verdicts.items()})
score = {(line["method"], line["n_train"], line["seed"]): line for line in lines}
figure, panels = plotting.axes(1, 2, width=3.8, height=3.6, sharey=True, dpi=80)
truth = next((row["targets"] for row in lesson.predictions("regularisers")), [])
for panel, n in zip(panels, spec.axes["n_train"], strict=True):
    found = {m: [score[k]["accuracy"] for k in score if k[:2] == (m, n)] for m in spec.methods}
    plotting.dots(panel, {spec.labels[m]: [100 * v for v in each] for m, each in found.items()}, f"n = {n}")
    if len(truth):
        panel.axvline(100 * np.bincount(truth).max() / len(truth), color="black", linestyle=":")
    panel.set(xlabel="test accuracy (%)", xlim=(48, 80))
show(figure, "07_regularisers")
lesson.folded("regularisers", "C14", "C12")


# %%
def paired(method, n, metric):
    base = "members" if method == "ensemble" else "plain"
    seeds = [s for s in spec.axes["seed"] if {(method, n, s), (base, n, s)} <= score.keys()]
    differences = [score[method, n, s][metric] - score[base, n, s][metric] for s in seeds]
    return intervals.t_interval(differences) if len(differences) > 1 else None


for n in spec.axes["n_train"]:
    mine = [score[key] for key in score if key[:2] == ("plain", n)]
    train, test = (sum(e[k] for e in mine) / max(len(mine), 1) for k in ("train_accuracy", "accuracy"))
    print(f"plain, n = {n}: training accuracy {train:.3f}, test {test:.3f}")
others = [m for m in spec.methods if m not in ("plain", "members")]
metrics = {"accuracy": 100, "test_loss": 1, "ece": 100}
for (metric, scale), n, method in itertools.product(metrics.items(), spec.axes["n_train"], others):
    one = paired(method, n, metric)
    if one is not None and (one.low > 0 or one.high < 0):
        ends = f"{scale * one.mean:+.3f} [{scale * one.low:+.3f}, {scale * one.high:+.3f}]"
        print(f"{metric:9s} n = {n:3d} {spec.labels[method]:25s} {ends}")


# %% [markdown]
# *Figure: a dot for each of five seeds, a bar at their mean; dotted, the larger class of the test sentences.* The lines
# below it pair the seeds (a method minus plain, the ensemble minus its members' mean) and keep the $t$ intervals that
# exclude zero: of eighteen a metric, uncorrected, so about one by luck.
#
# **Observe.** Read the printed lines.
#
# - *Accuracy.* No line has a plus: no method is seen to raise it. EDA, back-translation and R-Drop lower it at both sizes,
#   dropout a little at the larger one. For related tasks the interval holds zero, because their seeds scatter.
# - *Loss.* The ensemble lowers it at both sizes. Section 6 says that it must. Weight decay's lines are a thousandth of a
#   nat. At the larger size dropout, EDA, back-translation, related tasks and R-Drop raise it.
# - *Undecided* is not "equal". Open the fold: for C14's undecided parts the upper end says how much help is still possible.
#   Dropout's *refuted* rests on a $t$ interval; the bootstrap beside it holds zero.
#
# The first two lines: with four times as many sentences plain's test accuracy is higher, by more than any line below moves
# it. But those runs also have half as many updates again.
#
# ### What if they had more time?
#
# One seed, live, fifty sentences, more than twice the grid's updates (for R-Drop more than twice its own). **Predict.**
# Does a method overtake the plain run?


# %%
def r_drop_losses(net, batch):
    return r_drop(logits_of(net, batch), logits_of(net, batch), batch["labels"], 1.0)


paths = {"plain": curves, "label smoothing": smooth_curves}
for name, objective in (("dropout", training.target_losses), ("R-Drop", r_drop_losses)):
    net, passes = fresh(), 2 if name == "R-Drop" else 1
    set_dropout(net, 0.1)
    _ = fit(net, run.budget.steps // passes, objective, look=watch(paths.setdefault(name, []), 2 // passes))
for name, path in paths.items():
    least = min(path, key=lambda row: row["dev_loss"])
    shown = f"lowest dev loss {least['dev_loss']:.3f} at {least['step']:3d}, last {path[-1]['dev_loss']:.3f}"
    print(f"{name:15s} {shown}; last dev accuracy {path[-1]['dev_accuracy']:.3f}")

# %%
figure, panels = plotting.axes(1, 2, width=3.8, height=2.8, dpi=80)
for index, (name, path) in enumerate(paths.items()):
    x = [row["step"] * (2 if name == "R-Drop" else 1) for row in path]
    for panel, what in zip(panels, ("loss", "accuracy"), strict=True):
        panel.plot(x, [row[f"dev_{what}"] for row in path], label=name, **plotting.style(index))
        panel.set(xlabel="passes over a batch", ylabel=f"dev {what}")
for panel in panels:
    panel.axvline(spec.settings_by["n_train"]["steps"]["50"], color="grey", linestyle=":")
panels[0].legend(fontsize=8)
show(figure, "07_longer")

# %% [markdown]
# *Figure: the axis counts passes over a batch; an update of R-Drop is two. Dotted: the grid's number at fifty sentences.*
#
# **Observe.** The printed losses come in two kinds. Plain training and dropout have their lowest loss early and end at
# nearly twice it; label smoothing and R-Drop end close to their lowest. The last accuracies do not follow the losses:
# dropout and label smoothing stand above plain, R-Drop below, by a few sentences of one seed. Such a run asks a question
# for a grid, and answers none. Mosbach et al. (2021) and T. Zhang et al. (2021) found that few-sample fine-tuning is often
# stopped too early.
#
# ### Related tasks, with the films given back
#
# In the grid the relatives took half of the films' passes away, and they had the plain run's rate. So **C25** got an
# experiment of its own: *with two related tasks, a model tuned on a hundred film sentences is more accurate on new ones.*
# All methods pass each film equally often, but for the first control. Beside the films stand three hundred tweets and as
# many editorials, once each. Each method has its own rate, the best of three seeds by dev loss; each of ten seeds has test
# sentences of its own. Two controls: *twice the updates* on films alone, as much computing as with the relatives; and the
# same relatives with their labels *permuted* within each task.
#
# **Predict.** Order the four by test accuracy. What does it mean if permuted labels help, too?

# %%
related = lesson.experiment("related_tasks")
found = {m: [] for m in related.methods}
for line in sorted(lesson.results("related_tasks"), key=lambda line: line["seed"]):
    found[line["method"]].append(line)
print("verdict:", word := lesson.words("C25")["C25"])
run.record(c25_verdict=word)
for what, unit in (("accuracy", 100), ("test_loss", 1), ("gap", 100)):
    for a, b in (("related", "plain"), ("related", "longer"), ("related", "shuffled"), ("shuffled", "plain")):
        each = [unit * (x[what] - y[what]) for x, y in zip(found[a], found[b], strict=True)]
        if len(each) > 1:
            print(f"{what:9s} {related.labels[a]} minus {related.labels[b]}: {intervals.t_interval(each)}")
figure, panel = plotting.axes(width=5.6, height=2.2, dpi=80)
rows = {related.labels[m]: [100 * line["accuracy"] for line in each] for m, each in found.items()}
plotting.dots(panel, rows, "new film sentences")
panel.set(xlabel="test accuracy (%)")
panel.axvline(50, color="black", linestyle=":")
show(figure, "07_related")
lesson.folded("related_tasks", "C25")

# %% [markdown]
# *Figure: a dot for each of ten seeds, a bar at their mean; dotted, a guess.*
#
# **Observe.** *C25 supported*, at the edge: the interval of the first line begins just above zero. So does that against twice
# the updates on films: the additional computing is not the reason. Nor is more text: with permuted labels the same tweets and
# editorials lie clearly behind the true ones, and in the mean behind films alone. What helps is what their labels *mean*.
#
# The loss tells a second story. There permuted labels help nearly as much as true ones. Anything that is learned beside the
# films keeps the model from being so sure of itself. True labels do both.
#
# (The first edition said *undecided*, and it leaned the other way: there the films were passed half as often. So add
# relatives, and take no films away.)
#
# ## 9 What we have shown

# %%
m = run.metrics
print(f"coins learned: {m['coins_train']:.3f}; dev accuracy of that model {m['coins_dev']:.3f}")
print(
    f"dev loss {m['best_dev_loss']:.3f} after {m['best_dev_step']} updates, {m['last_dev_loss']:.3f} at the end"
)
print(f"dev accuracy {m['accuracy_at_best']:.3f} there, {m['accuracy_at_last']:.3f} at the end")
print(f"decay of 30: norms fall to {m['decay_ratio']:.4f}, formula {m['decay_predicted']:.4f}")
print(f"{m['opposites']} of {m['opinion_words']} opinion words have an opposite among their neighbours")
print(
    f"loss of two members {m['members_loss']:.3f}, together {m['ensemble_loss']:.3f}, one longer {m['longer_loss']:.3f}"
)
print(
    f"calibration error {m['ece_plain']:.3f}; with T = {m['temperature']:.2f} {m['ece_tempered']:.3f}", end=""
)
print(f"; smoothed {m['ece_smoothed']:.3f}")

# %% [markdown]
# **What we have not shown.**
#
# - The grid's updates are few. R-Drop suffers most: half of few is very few. No arm has three times the updates, so nobody
#   paid the ensemble's bill.
# - One task, one small encoder with frozen embeddings, in the grid five seeds. Its knobs were chosen once, with ties. C25 has
#   one size, two relatives, and one amount of them.
# - Our synonyms are neighbours and our translator is a word list. The verdict on C12 is about these.
# - Averaging weights over the last updates, and paraphrases by a language model, were not tried. Adapters and adversarial
#   training have lessons of their own, 08 to 11 and 19.
#
# **What should I set?**
#
# | you want | set | check |
# |---|---|---|
# | better answers from fifty sentences | more sentences, more updates | training *and* dev curve |
# | dropout | `hidden_dropout_prob`, `attention_probs_dropout_prob` | `net.train()` for training only |
# | decay that acts in a short run | `weight_decay` near $1 / (\eta S)$ | the printed share of section 2.2 |
# | early stopping | `EarlyStoppingCallback`, `load_best_model_at_end=True` | test once; no dev maximum in a report |
# | honest probabilities | fit $T$ on dev | ECE before and after, accuracy unchanged |
# | softer targets | `label_smoothing_factor` | the loss *without* smoothing |
# | augmentation | originals in every epoch | read twenty changed sentences with their labels |
# | an ensemble | $M$ seeds, mean of probabilities | one model with $M$ times the updates |
# | tuning of knobs | several seeds, dev loss | print ties |
#
# **Recall.** Answer without scrolling.
#
# 1. How can the dev loss rise while the dev accuracy rises, too?
# 2. Why does inverted dropout divide by $1 - r$, and when must it not?
# 3. You fine-tune for 100 updates at a peak rate of $10^{-4}$. Which decay would halve a weight that has no gradient?
# 4. Which of these can temperature scaling change: accuracy, loss, ECE, the order of the answers' confidences?
# 5. Why is the ensemble's log-loss never above the mean of its members', and why does this not hold for the error rate?
#
# <details><summary>Answers</summary>
#
# 1. A few wrong answers become very sure and cost many nats, while other answers turn right.
# 2. So that the mean is the same with and without coins; not in prediction, where nothing is dropped.
# 3. $e^{-\lambda \eta S / 2} = 1/2$ gives $\lambda = 2 \ln 2 / (\eta S)$, about 140.
# 4. Loss and ECE; with two classes not the order of confidences, with more classes that too.
# 5. The logarithm is concave; the error is a step, and two barely right members can be outvoted by a surely wrong one.
#
# In section 1: overfitted in the loss, perhaps; in the accuracy, no. In section 2.3: no, it is the same maximum of noisy
# numbers.
#
# </details>
#
# **Exercises.** `notebooks/exercises/07_overfitting.py`; `make classroom` builds the student version.
#
# **References.**
#
# - Brown, P. F., Della Pietra, S. A., Della Pietra, V. J., and Mercer, R. L. (1993). The mathematics of statistical
#   machine translation: parameter estimation. *Computational Linguistics* 19(2), 263–311.
# - Caruana, R. (1997). Multitask learning. *Machine Learning* 28, 41–75.
# - Guo, C., Pleiss, G., Sun, Y., and Weinberger, K. Q. (2017). On calibration of modern neural networks. *ICML 2017*.
# - Hutto, C. J., and Gilbert, E. (2014). VADER: a parsimonious rule-based model for sentiment analysis of social media
#   text. *ICWSM 2014*.
# - Kocoń, J., Miłkowski, P., and Kanclerz, K. (2021). MultiEmo: multilingual, multilevel, multidomain sentiment analysis
#   corpus of consumer reviews. *ICCS 2021*.
# - Lakshminarayanan, B., Pritzel, A., and Blundell, C. (2017). Simple and scalable predictive uncertainty estimation
#   using deep ensembles. *NeurIPS 2017*.
# - Liang, X., Wu, L., Li, J., et al. (2021). R-Drop: regularized dropout for neural networks. *NeurIPS 2021*.
# - Loshchilov, I., and Hutter, F. (2019). Decoupled weight decay regularization. *ICLR 2019*.
# - Mosbach, M., Andriushchenko, M., and Klakow, D. (2021). On the stability of fine-tuning BERT: misconceptions,
#   explanations, and strong baselines. *ICLR 2021*.
# - Naeini, M. P., Cooper, G. F., and Hauskrecht, M. (2015). Obtaining well calibrated probabilities using Bayesian
#   binning. *AAAI 2015*.
# - Prechelt, L. (1998). Early stopping – but when? In *Neural Networks: Tricks of the Trade*, Springer.
# - Sennrich, R., Haddow, B., and Birch, A. (2016). Improving neural machine translation models with monolingual data.
#   *ACL 2016*.
# - Srivastava, N., Hinton, G., Krizhevsky, A., Sutskever, I., and Salakhutdinov, R. (2014). Dropout: a simple way to
#   prevent neural networks from overfitting. *JMLR* 15, 1929–1958.
# - Szegedy, C., Vanhoucke, V., Ioffe, S., Shlens, J., and Wojna, Z. (2016). Rethinking the Inception architecture for
#   computer vision. *CVPR 2016*.
# - Wei, J., and Zou, K. (2019). EDA: easy data augmentation techniques for boosting performance on text classification
#   tasks. *EMNLP-IJCNLP 2019*.
# - Xie, Q., Dai, Z., Hovy, E., Luong, M.-T., and Le, Q. V. (2020). Unsupervised data augmentation for consistency training.
#   *NeurIPS 2020*.
# - Zhang, C., Bengio, S., Hardt, M., Recht, B., and Vinyals, O. (2021). Understanding deep learning (still) requires
#   rethinking generalization. *Communications of the ACM* 64(3), 107–115.
# - Zhang, T., Wu, F., Katiyar, A., Weinberger, K. Q., and Artzi, Y. (2021). Revisiting few-sample BERT fine-tuning. *ICLR
#   2021*.
