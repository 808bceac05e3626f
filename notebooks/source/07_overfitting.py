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
# **The promise.** You watch a real encoder learn fifty sentences by heart, and you see three curves that tell three
# different stories about it. Then you build the remedies that everybody recommends: dropout, weight decay, early
# stopping, label smoothing, R-Drop, augmentation, ensembles, related tasks. Each gets a formula, ten lines of code and
# a test. At the end a grid says what each of them bought, with intervals. Some remedies turn out to repair something
# else than you thought.
#
# | | |
# |---|---|
# | before this | lesson 01 (cross-entropy), lesson 03 (the loop, intervals, paired differences) |
# | time | smoke: under a minute · laptop: about three minutes on one core · gpu: not measured yet |
# | memory | under 2 GB |
# | model | MiniLM, 6 layers (`all-MiniLM-L6-v2`), pinned, offline |
# | data | film sentences rated by people (Hutto and Gilbert, 2014); English and German product reviews (Kocoń et al., 2021) |
# | box of lesson 00's chain | *learn from the score*, when there is little to learn from |
#
# **You will be able to**
#
# - *tell* overfitting of the loss from overfitting of the accuracy;
# - *derive* dropout's scale, weight decay's pull, the finite optimum under label smoothing, and R-Drop's gradient;
# - *catch* the four quiet mistakes that switch a regulariser off;
# - *make* new sentences from old ones, and say which of them lie;
# - *repair* the confidence of a model with one number.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
seed: int = 0  # subsample, head, order of batches, dropout, augmentation
model: str = ""  # a folder or hub name instead of the pinned encoder
learning_rate: float = 1e-4  # peak of the schedule

# %%
import random
from collections import defaultdict

import numpy as np
import torch

from instructlab_utils import intervals, models, plotting, start, tasks, training
from instructlab_utils.arguments import distributions, fraction, listed, scored, whole
from instructlab_utils.characters import is_word, pieces_of_text
from instructlab_utils.errors import TrainingError
from instructlab_utils.losses import cross_entropy, log_softmax

run = start("07", profile=profile, seed=seed)

# %% [markdown]
# ## 1 Overfitting, measured
#
# The training loss is a mean over the sentences that the weights were fitted to. The loss on other sentences is what we
# want. The difference is the **generalisation gap**. *Overfitting* is the part of training in which the first falls and
# the second rises.
#
# We take fifty film sentences, the loop of lesson 03, no dropout and no decay. The word embeddings stay frozen, which
# saves time: half of all weights, and one more small regulariser that we hold fixed.

# %%
task = tasks.load("movie-sentiment")
tokenizer = models.load_tokenizer("encoder", model)
pad_id = tokenizer.pad_token_id
sizes = {"train": (run.budget.n_train, seed), "dev": (run.budget.n_dev, 0), "test": (run.budget.n_test, 0)}
rows = {name: tasks.subsample(task.splits[name], *chosen) for name, chosen in sizes.items()}
examples = {name: training.encode(part, tokenizer, 64) for name, part in rows.items()}
y = {name: torch.tensor(part["label"]) for name, part in rows.items()}


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


# %% [markdown]
# The loop, with a hook: every few updates it lets us look at the model.


# %%
def fit(net, steps, objective=training.target_losses, decay=0.0, look=None, order=seed):
    optimizer = torch.optim.AdamW(training.parameter_groups(net, decay), fused=True)
    batches = training.batches_of(examples["train"], 8, pad_id, order)
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
# **Predict.** Draw three curves before you run the cell: the loss on the training sentences, the loss on the dev
# sentences, the accuracy on the dev sentences. Which of them turn around?

# %%
curves = []


def look(step, net):
    row = {"step": step}
    for name in ("train", "dev"):
        z = training.predict(net, examples[name], pad_id)
        wrong = z.argmax(1) != y[name]
        row[f"{name}_loss"] = cross_entropy(z, y[name]).mean().item()
        row[f"{name}_accuracy"] = 1 - wrong.double().mean().item()
        row[f"{name}_sure"] = torch.softmax(z[wrong], 1).amax(1).mean().item() if wrong.any() else 0.5
    curves.append(row)


# %%
plain = fit(fresh(), run.budget.steps, look=look)
for row in curves:
    shown = [f"{name} {row[name]:.3f}" for name in ("train_loss", "dev_loss", "dev_accuracy", "dev_sure")]
    print(f"update {row['step']:3d}  ", "  ".join(shown))

# %%
step = [row["step"] for row in curves]
figure, panels = plotting.axes(1, 3, width=3.4, height=2.9, dpi=85)
for panel, what in zip(panels, ("loss", "accuracy", "sure"), strict=True):
    for index, name in enumerate(("train", "dev")):
        if (name, what) != ("train", "sure"):
            panel.plot(step, [row[f"{name}_{what}"] for row in curves], label=name, **plotting.style(index))
    panel.set_xlabel("update")
panels[0].set(title="Loss", ylabel="cross-entropy (nats)")
panels[1].set(title="Accuracy")
panels[2].set(title="Confidence where it is wrong", ylabel="probability of the answer")
panels[0].legend()
_ = run.figure(figure, "07_overfitting")

# %%
best = min(curves, key=lambda row: row["dev_loss"])
last = curves[-1]
run.record(
    best_dev_loss=best["dev_loss"], best_dev_step=best["step"], last_dev_loss=last["dev_loss"],
    last_train_loss=last["train_loss"], accuracy_at_best=best["dev_accuracy"], accuracy_at_last=last["dev_accuracy"],
    sure_at_best=best["dev_sure"], sure_at_last=last["dev_sure"],
)  # fmt: skip
print(f"dev loss {best['dev_loss']:.3f} after {best['step']} updates, {last['dev_loss']:.3f} at the end")
print(f"dev accuracy {best['dev_accuracy']:.3f} there, {last['dev_accuracy']:.3f} at the end")
print(f"training loss at the end {last['train_loss']:.3f}")

# %% [markdown]
# **Observe.** Two measures of the same model disagree. The dev loss has its minimum early and climbs afterwards. The dev
# accuracy does not follow it down: it stays, or creeps up. The third panel says why. Among the sentences that it gets
# wrong, the model becomes surer and surer. The accuracy counts a mistake once, however sure. The loss charges $-\log p$
# of the truth, and a confident mistake costs many nats.
#
# Compare the two accuracies that the last cell printed. Whoever stops where the dev loss is smallest stops before the
# model has learned what it can. Whoever goes on gets better answers, and worse probabilities.
#
# So ask "overfitting of what?" before you ask "how do I stop it?". A remedy can lower the dev loss and leave every answer
# as it was. Section 7 has a remedy that does exactly this, by construction, with one number.
#
# > **Recall.** The training loss reaches nearly zero, the dev accuracy is at its best. Is the model overfitted?
#
# ## 2 Noise, a pull, and a stop
#
# ### 2.1 Dropout
#
# Dropout (Srivastava et al., 2014) multiplies each activation $h$ by a coin $m \in \{0, 1\}$ that shows 0 with
# probability $p$. So that the next layer sees the same mean with and without coins, what survives is enlarged:
#
# $$ \tilde h = \frac{m\, h}{1 - p}, \qquad \mathbb E\,\tilde h = \frac{(1-p)\, h}{1-p} = h, \qquad
# \operatorname{Var} \tilde h = \frac{p}{1-p}\, h^2. $$
#
# This is *inverted* dropout: the scale is paid during training, and prediction needs nothing.


# %%
def dropout(h, m, p):
    return m * h / (1 - p)


h = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
p = 0.25
m = (torch.rand(200_000, 3, generator=torch.Generator().manual_seed(seed)) >= p).double()
h_tilde = dropout(h, m, p)
print("mean", h_tilde.mean(0).numpy().round(2), "against", h.numpy())
print("variance", h_tilde.var(0).numpy().round(2), "against", (p / (1 - p) * h**2).numpy().round(2))
assert torch.allclose(h_tilde.mean(0), h, atol=0.02)

# %% [markdown]
# **Two quiet mistakes.** One forgets the scale. The other is a default: the *module* `torch.nn.Dropout` obeys `eval()`,
# and the *function* of the same name cannot know about it.
#
# **Predict.** Twelve layers in a row, each with $p = 0.1$ and without the division: by which factor is the signal
# larger in prediction than in training? And how many zeros does each of the two torch calls below make?

# %%
print(f"without the scale, prediction sees a signal {1 / (1 - 0.1) ** 12:.1f} times as large as training did")
F = torch.nn.functional
ones = torch.ones(1000)
layer = torch.nn.Dropout(0.5).eval()
print("module in eval mode, zeros:", int((layer(ones) == 0).sum()), "of 1000")
print("function, zeros:", int((F.dropout(ones, 0.5) == 0).sum()), "of 1000; it needs training=self.training")

# %% [markdown]
# ### 2.2 Weight decay
#
# AdamW (Loshchilov and Hutter, 2019) first shrinks every weight a little, then makes Adam's step $u_t$:
#
# $$ w_{t+1} = (1 - \eta_t \lambda)\, w_t - \eta_t\, u_t. $$
#
# Without a gradient only the pull is left: after $T$ updates a weight has the share $\prod_t (1 - \eta_t \lambda) \approx
# e^{-\lambda \sum_t \eta_t}$ of its size. Under a linear schedule $\sum_t \eta_t \approx \eta T / 2$.
#
# **Predict.** The usual $\lambda$ is $0.01$. What does it do to the weights in a run like ours?

# %%
total = sum(
    learning_rate * training.linear_schedule(t, run.budget.steps, round(0.1 * run.budget.steps))
    for t in range(run.budget.steps)
)
for decay in (0.01, 1.0, 10.0, 30.0):
    print(f"λ = {decay:5.2f}: a weight without gradient keeps {np.exp(-decay * total):.6f} of its size")

# %% [markdown]
# **Observe.** Nothing. In a short fine-tuning run the most recommended regulariser is switched off by its usual strength.
# To act, it must be a thousand times stronger. Does the formula hold on the real model, with real gradients beside the
# pull?

# %%
few = run.budget.decay_steps
norms = {}
for decay in (0.0, 30.0):
    net = fit(fresh(), few, decay=decay)
    norms[decay] = {
        name: w.norm().item() for name, w in net.named_parameters() if w.ndim > 1 and w.requires_grad
    }
ratios = [norms[30.0][name] / norms[0.0][name] for name in norms[0.0] if "encoder" in name]
rates = [learning_rate * training.linear_schedule(t, few, round(0.1 * few)) for t in range(few)]
predicted = np.prod([1 - rate * 30.0 for rate in rates])
print(
    f"{len(ratios)} matrices after {few} updates: norms fall to {np.mean(ratios):.4f} on average; formula {predicted:.4f}"
)
run.record(decay_ratio=np.mean(ratios), decay_predicted=predicted)

# %% [markdown]
# Two remarks. First, the pull goes to *zero*, and a pre-trained weight has no reason to be near zero. Second, "L2
# regularisation" in the loss, $\frac{\lambda}{2}\lVert w \rVert^2$, is the same as decay for plain gradient descent,
# and something else for Adam: its gradient $\lambda w$ is divided by the size of all gradients, so weights with large
# gradients are hardly pulled.

# %%
generator = torch.Generator().manual_seed(seed)
noise = torch.randn(200, 2, generator=generator) * torch.tensor([0.1, 10.0])
for kind, decay in ((torch.optim.AdamW, 1.0), (torch.optim.Adam, 1.0)):
    w = torch.ones(2, requires_grad=True)
    optimizer = kind([w], lr=1e-3, weight_decay=decay)
    for g in noise - noise.mean(0):
        w.grad = g.clone()
        optimizer.step()
    print(
        f"{kind.__name__:6s}", "small gradients: w = {:.2f}, large gradients: w = {:.2f}".format(*w.tolist())
    )

# %% [markdown]
# AdamW pulls both weights alike. Adam with L2 pulls the first, and forgets the second.
#
# ### 2.3 Early stopping is an estimator
#
# Look at the dev score every few updates, keep the best weights (Prechelt, 1998). It costs nothing but dev sentences. And
# it tempts: the best dev score lies before you, so you report it.
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
# **Observe.** The true accuracy was the same at every look, so the test accuracy of the chosen weights is still $0.7$.
# The rest is **optimism**: the maximum of noisy numbers is too large, the more so the more looks there are and the
# fewer dev sentences. Early stopping is fitted to the dev set like any other parameter. Whoever reports the best dev
# score reports a training result.
#
# **Repair.** Choose on dev, report on test, once. The dev set may be used up by choosing. The test set may not.
#
# > **Recall.** Somebody fits twenty values of dropout and reports the best dev accuracy. Is that different from twenty
# looks?
#
# ## 3 Softer targets
#
# ### 3.1 Label smoothing
#
# Lesson 01 derived the gradient of cross-entropy with respect to the logits: $p - q$, with $q$ the target distribution.
# For a hard label, $q$ is one at the truth. Then $p - q$ vanishes only where $p_y = 1$, that is for an infinite logit.
# The weights never have a reason to stop.
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
# **Observe.** Without smoothing the gap grows for ever, like the logarithm of the time. With it the gap stops at the
# formula. Note what this does *not* say: nothing about whether the *answers* on other sentences get better.
#
# ### 3.2 R-Drop
#
# With dropout on, two passes of one sentence give two distributions, $p$ and $q$. A robust model should not depend on the
# coins. R-Drop (Liang et al., 2021) passes every batch twice and adds the symmetric Kullback-Leibler divergence. With
# $\mathrm{KL}(p \,\|\, q) = \sum_k p_k \log (p_k / q_k)$,
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
# (Two passes that do not belong together are an error; broadcasting would have hidden it. A class that both exclude, with
# a logit of minus infinity, adds nothing.)
#
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
for p in (0.1, 0.0):
    set_dropout(plain, p)
    with torch.no_grad():
        kl = symmetric_kl(logits_of(plain, batch), logits_of(plain, batch)).mean()
    print(f"dropout {p}: symmetric KL of two passes {kl:.4f} nats")
_ = plain.eval()

# %% [markdown]
# **Observe.** Exactly zero without coins: $\alpha$ may be anything, and the program runs, twice as slow, without a word.
#
# And the price. Two passes cost twice the time. A fair comparison gives the opponent the same time. In our grid R-Drop
# therefore makes half as many updates as everybody else. A paper that compares equal numbers of updates compares unequal
# amounts of work.
#
# ## 4 More sentences: EDA
#
# Few sentences? Make more. Wei and Zou (2019) change a sentence in one of four ways and keep its label: replace words by
# synonyms, insert synonyms, swap words, delete words. They take synonyms from WordNet. There is none here, so we ask the
# encoder's own table of word embeddings for the nearest neighbours. That is a different thing, as you will see.
#
# What is a word? The pattern `\w+` is an answer for English only: it takes the vowel signs of Hindi for the ends of words,
# and a whole sentence of Chinese for one word. Our package's rule knows scripts. (In the cells below, `listed` refuses a text
# in the place of a list of words, `fraction` a share outside $[0, 1]$.)


# %% tags=["defines:augmentation.words_of"]
def words_of(text):
    return pieces_of_text(text.lower())


# %% tags=["defines:augmentation.nearest_words"]
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
# **Observe.** *Good* and *bad* stand in the same sentences, so their vectors are close. Nearness in an embedding table
# means "used alike", not "means the same". For a sentiment task these are exactly the wrong swaps: the sentence changes
# sides and keeps its label. EDA with a table like this adds label noise.
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
# Read them as an annotator. Which would you still give the same label? Which is no sentence any more? The encoder was
# pre-trained on fluent text, so a shuffled sentence is also a shift of the input.
#
# ## 5 Back-translation, with a dictionary learned from scratch
#
# Back-translation (Sennrich et al., 2016) sends a sentence into another language and back; what returns is a
# paraphrase. We have no translator offline. We have pairs of sentences, English and German, about products, themselves
# translated by a machine. From pairs alone one can learn which *words* translate each other (Brown et al., 1993).
#
# Let $t(g \mid e)$ be the probability that the English word $e$ becomes the German word $g$. In a pair of sentences
# nobody says which $e$ produced which $g$. **Expectation maximisation** guesses and improves the guess:
#
# - *E step.* For a German word $g$ in a pair, each English word $e$ of that pair gets the share
#   $c(e \to g) = t(g \mid e) \big/ \sum_{e'} t(g \mid e')$.
# - *M step.* Add up the shares over all pairs, and normalise for each $e$: $\;t(g \mid e) = \sum c(e \to g) \big/
#   \sum_{g'} \sum c(e \to g')$.
#
# Each link "this $g$, here, may come from this $e$" is one entry of the arrays below.


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
# **Observe.** *haus* occurs only where *house* does, but *das* does too. The word *das* is explained better by *the*,
# which sees it twice; what is left for *house* is *haus*. Nobody told the program.
#
# Now the real pairs. The empty word "" stands in every English sentence, for German words that come from nowhere.


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


# %% [markdown]
# Back and forth, word by word. Both steps draw a translation by its probability.


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
# **Observe.** Some words come back as real synonyms. Some come back as their neighbours in the sentence, because common
# words are everybody's partner. Grammar does not survive. A modern translator would do far better; then the question
# would be whether the translator's pre-training or the augmentation did the work. Ours is at least transparent.
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
# The ensemble's loss is never above the *mean* loss of its members. This is arithmetic, not an experiment. It says
# nothing about the best member, and nothing about accuracy.
#
# **Predict.** A second plain model, another head, another order. By how much do the losses on the test sentences fall?

# %%
other = fit(fresh(seed + 1), run.budget.steps, order=seed + 1)
z_test = [training.predict(net, examples["test"], pad_id).double() for net in (plain, other)]
p = [torch.softmax(z, 1) for z in z_test]
p.append((p[0] + p[1]) / 2)
nll = [-one[torch.arange(len(one)), y["test"]].log() for one in p]
for name, one, loss in zip(("first", "second", "together"), p, nll, strict=True):
    accuracy = (one.argmax(1) == y["test"]).double().mean().item()
    print(f"{name:9s} test loss {loss.mean():.3f}  accuracy {accuracy:.3f}")
excess = (nll[2] - (nll[0] + nll[1]) / 2).max().item()
assert excess <= 1e-9
print(f"largest excess over the members' mean, of all sentences: {excess:.0e}")
run.record(ensemble_loss=nll[2].mean(), members_loss=(nll[0].mean() + nll[1].mean()) / 2)

# %% [markdown]
# **Observe.** The inequality holds for every sentence, as it must. Accuracy has no such guarantee. Let three members
# give the truth, one of two classes, $0.55$, $0.55$ and $0.05$. Two are right. The mean is $0.38$, and the ensemble is
# wrong.
#
# ### 6.2 Related tasks
#
# Film sentences are scarce, but tweets and newspaper editorials have moods, too. **Multi-task** training (Caruana, 1997)
# shares the encoder and gives each task a head of its own. A trick makes two heads out of one: a head with $2 T$ logits,
# of which task $t$ owns the pair $2t, 2t+1$, and the label says both task and class.


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
# **Observe.** Each row's gradient stays inside its task's pair. The heads do not meet; the encoder under them gets all
# three. In the grid the film sentences and the number of updates are the same with and without relatives. So a multi-task
# run passes each film sentence *less* often. If it wins, it wins against that, and with more labelled data.
#
# ## 7 Does it know what it does not know?
#
# ### 7.1 The reliability diagram
#
# The **confidence** of an answer is the largest probability. Among all answers with confidence near $0.8$, about eight
# of ten should be right. Sort the test sentences into bins by confidence and compare, in each bin $b$ of $n_b$
# sentences, the mean confidence with the accuracy. The **expected calibration error** (Naeini et al., 2015) is the
# weighted mean distance,
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
# A slope that only rises crosses zero once. Bisection finds where.


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


# %% [markdown]
# We compare the plain model, the same model with its temperature, and a model trained with label smoothing.

# %%
epsilon = 0.1


def smoothed_losses(net, batch):
    return cross_entropy(logits_of(net, batch), batch["labels"], epsilon)


smoothed = fit(fresh(), run.budget.steps, smoothed_losses)
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
figure, panels = plotting.axes(1, 3, width=3.2, height=3.2, sharex=True, sharey=True, dpi=85)
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
_ = run.figure(figure, "07_reliability")

# %% [markdown]
# **Observe.** The dotted diagonal is honesty. Numbers beside the points count sentences. The plain model's many sure
# answers lie far below: it is overconfident, as section 1 foretold. One number, fitted on dev, moves the points towards
# the diagonal, and not one answer changes. Compare what smoothing does during training: look at its loss, its ECE and
# its accuracy in the printed lines before you believe anybody's sentence about it.
#
# **The fourth quiet mistake:** fit $T$ on the test sentences. The reported loss is then the smallest that any $T$ can
# reach. The damage of a single number is small, so nobody notices; with more numbers it grows, as in section 2.3.
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
# The source articles (five Chinese-language blog articles on the "infinite instruction set") answer the question "how
# do I avoid overfitting?" with a list: data augmentation, L2 regularisation, dropout, early stopping, multi-task
# learning, ensembles. They measure none of it, and their programs contain none of it: the texts promise early stopping,
# the code trains to the last epoch. We wrote three claims down before the first run:
#
# - **C14**: weight decay, dropout and early stopping each raise the test accuracy over the plain run, and an ensemble
#   that of its members. All four must hold, after Holm's correction.
# - **C12**: so do back-translation and EDA, both.
# - **C25**: so does training with two related tasks.
#
# All methods get the same film sentences, the same frozen embeddings, the same peak rate and the same number of updates
# (R-Drop half). Each has one knob, of which three values were tried once, on a seed that the table does not use. An
# ensemble has three members, and is compared with their mean, so its threefold cost is not hidden.
#
# **Predict.** Which of them raise the accuracy? Which lower the loss? Write two lists.

# %%
from instructlab_repro import lesson

spec, lines = lesson.experiment("regularisers"), lesson.results("regularisers")
lesson.table("regularisers", "accuracy", "test_loss")

# %% [markdown]
# The means hide what is paired. For each method: its result minus the plain run's, seed by seed (for the ensemble minus
# its members' mean), with the $t$ interval over seeds.


# %%
score = {(line["method"], line["n_train"], line["seed"]): line for line in lines}
shown_methods = [m for m in spec.methods if m not in ("plain", "members")]


def paired(method, n, metric):
    base = "members" if method == "ensemble" else "plain"
    seeds = [s for s in spec.axes["seed"] if {(method, n, s), (base, n, s)} <= score.keys()]
    differences = [score[method, n, s][metric] - score[base, n, s][metric] for s in seeds]
    return intervals.t_interval(differences) if len(differences) > 1 else None


# %%
def forest(panel, metric, scale, label):
    for index, n in enumerate(spec.axes["n_train"]):
        look_of = plotting.style(index) | {"linestyle": "none"}
        found = {place: paired(method, n, metric) for place, method in enumerate(shown_methods)}
        for place, one in found.items():
            if one is not None:
                at = place + 0.15 * (2 * index - 1)
                ends = scale * np.array([one.low, one.high])
                panel.plot(ends, [at, at], color=look_of["color"], linestyle=plotting.LINES[index])
                panel.plot(scale * one.mean, at, label=f"n = {n}" if place == 0 else None, **look_of)
    panel.axvline(0, color="black", linewidth=1)
    panel.set(xlabel=f"difference in {label}")
    panel.locator_params(axis="x", nbins=5)


# %%
figure, panels = plotting.axes(1, 3, width=3.5, height=4.0, sharey=True, dpi=90)
forest(panels[0], "accuracy", 100, "test accuracy (points)")
forest(panels[1], "test_loss", 1, "test loss (nats)")
forest(panels[2], "ece", 100, "calibration error (points)")
panels[0].set_yticks(range(len(shown_methods)), [spec.labels[m] for m in shown_methods])
panels[0].invert_yaxis()
figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
_ = run.figure(figure, "07_regularisers")

# %% [markdown]
# **Observe.** In the left panel right of the line is better; in the other two, left of it. Circles are the smaller size,
# squares the larger. Read each interval before its point. Then compare the three panels of one method.
#
# - *No remedy raises the accuracy* at either size, as far as five seeds can tell. Several lower it: EDA at both sizes, at
#   the larger one also dropout (a little), back-translation, and R-Drop by far the most. The related tasks lose much on
#   average, and scatter so widely that their interval still holds zero.
# - *The ensemble lowers the loss* at both sizes, with the narrowest intervals of the picture. Section 6 proved that it
#   must. Its accuracy is undecided.
# - *Weight decay, early stopping and label smoothing* hardly move anything. The tuning explains a part of that: it
#   chose the *weakest* value of nearly every knob. (The note under the table lists the values at an edge.) Dev
#   sentences that ask for less of every remedy say that there was little to cure.
#
# Was the plain run overfitted at all? The third table of this experiment (`data/results/tables/`) has its gap: it fits
# nearly all its training sentences and little more than half of the test sentences at the smaller size. Yet what is
# missing there is not restraint. It is sentences: four times as many raise the accuracy by more than any remedy in the
# picture.

# %%
lesson.show("C14", "C12", "C25")
for claim, word in lesson.words("C14", "C12", "C25").items():
    run.record(**{f"{claim.lower()}_verdict": word})

# %% [markdown]
# **Observe.** Read the words of the verdicts with what they rest on. *Undecided* is what an interval that contains zero
# says; with five seeds, an effect of a point or two can hide in it. *Refuted* means that a whole interval lies on the
# wrong side of zero: for that remedy, under this budget, the advice does harm. The lines "without a vote" show the
# losses and gaps beside the accuracies.
#
# Why harm? All methods make the same few updates. Noise makes each update worth less, changed sentences take the place
# of real ones, and related tasks take the place of film sentences. A remedy that pays off over many epochs shows its
# price first. The articles' list may be right for long training. They do not say so, and it is not what most people do
# with fifty examples.
#
# ### The optimism of early stopping, in the record
#
# Section 2.3 simulated it. The grid has it for real: the dev accuracy at the chosen step against the test accuracy of the
# same weights, and the same difference for the plain run, which did not choose.

# %%
for method in ("plain", "early_stopping"):
    mine = [line for line in lines if line["method"] == method]
    gap = [line["dev_accuracy"] - line["accuracy"] for line in mine]
    if len(gap) > 1:
        print(
            f"{spec.labels[method]:15s} dev minus test accuracy {intervals.t_interval(gap)}, {len(gap)} runs"
        )

# %% [markdown]
# The dev and test sentences are the same in all runs, and one of the two sets may simply be easier. So look at the
# *difference* of the two lines.
#
# ## 9 What we have shown
#
# Printed from this run's record.

# %%
m = run.metrics
print(f"profile {run.profile}, seed {seed}, {run.device}, {run.budget.n_train} training sentences")
print(f"training loss at the end {m['last_train_loss']:.3f}")
print(
    f"dev loss {m['best_dev_loss']:.3f} after {m['best_dev_step']} updates, {m['last_dev_loss']:.3f} at the end"
)
print(f"dev accuracy {m['accuracy_at_best']:.3f} there, {m['accuracy_at_last']:.3f} at the end")
print(f"confidence of wrong answers {m['sure_at_best']:.3f} there, {m['sure_at_last']:.3f} at the end")
print(f"decay of 30: norms fall to {m['decay_ratio']:.4f}, formula {m['decay_predicted']:.4f}")
print(f"{m['opposites']} of {m['opinion_words']} opinion words have an opposite among their neighbours")
print(f"two members: loss {m['members_loss']:.3f} on average, {m['ensemble_loss']:.3f} together")
print(f"calibration error {m['ece_plain']:.3f}; with T = {m['temperature']:.2f} {m['ece_tempered']:.3f}")
print(f"calibration error with smoothing {m['ece_smoothed']:.3f}")
print(f"verdicts: C14 {m['c14_verdict']}, C12 {m['c12_verdict']}, C25 {m['c25_verdict']}")

# %% [markdown]
# **What we have not shown.**
#
# - The budget of updates is small and the same for all. Noise such as dropout slows learning; with ten times the
#   updates the order may change. R-Drop suffers most: half of few updates is very few.
# - One task, two sizes, five seeds, one small encoder whose embeddings were frozen. A larger model has more room to
#   overfit.
# - Our synonyms are neighbours and our translator is a word list. The verdict on C12 is about these.
# - Knobs were chosen once, on two hundred dev sentences. That choice is noisy, and the plain run had none to make.
# - Adapters and adversarial training stand on the same list of remedies. They have their own lessons, 08 to 11 and 19.
#
# **Recall.** Answer without scrolling.
#
# 1. How can the dev loss rise while the dev accuracy rises, too?
# 2. Why does inverted dropout divide by $1 - p$, and when must it not?
# 3. You fine-tune for 100 updates at a peak rate of $10^{-4}$. Which decay would halve a weight that has no gradient?
# 4. Which of these can temperature scaling change: accuracy, loss, ECE, the order of the answers' confidences?
# 5. Why is the ensemble's log-loss never above the mean of its members', and why does this not hold for the error rate?
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
