# ---
# jupyter:
#   instructlab:
#     id: "17"
#     title: Feedback loops and preferences
#     outcome: derive and build DPO and policy gradients, show what they break, and measure a feedback loop honestly
#     assets: [smollm2, bigbench]
#     minutes: {smoke: 0.5, laptop: 1.5, gpu: 1.5}
#     class_minutes: 180
#     budget:
#       imitation_steps: {smoke: 100, laptop: 400, gpu: 400}
#       n_drawn: {smoke: 8, laptop: 128, gpu: 128}
#       updates: {smoke: 3, laptop: 100, gpu: 100}
#       rounds: {smoke: 2, laptop: 60, gpu: 60}
#       n_loops: {smoke: 20, laptop: 1000, gpu: 1000}
#       n_items: {smoke: 2, laptop: 40, gpu: 200}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 17 Feedback loops and preferences
#
# **The question.** You cannot write the right answer down. You can only say *this one is better than that one*. Is that
# enough to teach a model?
#
# A model (the *policy* $\pi$: it gives each answer a probability) answers, a judge says which answer is better, the model
# changes. When the judges are people this is called RLHF, reinforcement learning from human feedback (Ouyang et al.,
# 2022). You build each part by hand: best-of-n, Bradley–Terry, DPO, the policy gradient, GRPO. Then you break it on
# purpose. The judge is a *program*, so we always know what is true, and can see when the number that we push up stops
# meaning what we want.
#
# | | |
# |---|---|
# | before this | lesson 06 (log-probability of an answer), lesson 09 (LoRA), lesson 14 (masks, trl) |
# | time | smoke: under a minute · laptop: about two minutes on one core · gpu: not measured yet |
# | memory | under 2 GB |
# | model | a decoder of some hundred thousand weights, trained here from nothing; one look at SmolLM2-135M-Instruct |
# | data | wishes that a program writes and judges; pairs from BIG-bench's social-iqa |
# | box of lesson 00's chain | *learn from the score*, and go round again |
#
# **You will be able to**
#
# - *predict* what best-of-n gains, and what it costs in KL divergence;
# - *derive* the DPO loss from the objective of RLHF, and prove yours equal to trl's;
# - *derive* the policy gradient, and say what a baseline does to its variance;
# - *recognise* reward hacking in a curve that goes up;
# - *measure* a feedback loop so that luck does not look like learning.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
seed: int = 0  # wishes held out, demonstrations, first values, all draws
slip: float = 0.1  # how often a demonstration forgets each of its four constraints
beta: float = 0.1  # the price of leaving the reference, in section 5

# %%
import contextlib
import copy
import functools
import io
import math
import random
import tempfile

import torch
from torch import Tensor

from instructlab_utils import (
    expect_error,
    intervals,
    models,
    plotting,
    scoring,
    start,
    tasks,
    training,
    wishes,
)
from instructlab_utils.errors import ParameterError, TrainingError
from instructlab_utils.losses import cross_entropy, sequence_log_probs, upcast
from instructlab_utils.training import clip_gradients

run = start("17", profile=profile, seed=seed)
show = functools.partial(plotting.show, run)

# %% [markdown]
# ## 1 A model, a judge, and the cheapest loop
#
# A *wish* asks for a row of digits under four constraints. Many answers are right, so a model can become better, and it
# can become narrower: both will happen. **Predict.** Which of these four answers does the judge accept?

# %% tags=["nbval-check-output"]
wish = wishes.Wish(order="rising", length=4, start=2, parity="even")
print(wish)
for digits in ([2, 3, 5, 8], [2, 4, 7, 8], [2, 3, 5, 7], [2, 6, 8]):
    missed = [name for name, met in wishes.judged(wish, digits).items() if not met]
    print(digits, "reward", wishes.right(wish, digits), "misses", missed)

# %% [markdown]
# The reward $r(x, y)$ of an answer $y$ to a wish $x$ is 1 if all four constraints hold, else 0.
#
# The model is an imitator. It has read demonstrations by a careless person who forgets each constraint now and then.
# Nobody tells it which demonstrations are wrong.

# %%
world, rng = wishes.World(seed), random.Random(seed)
known, held_out = world.train, world.test
print(f"{len(known)} wishes to learn from, {len(held_out)} held out for this lesson's measurements")
shown = [wishes.demonstration(wish, slip, rng) for _ in range(1000)]
print("demonstrations for", wish, shown[:4])
print(f"{sum(wishes.right(wish, digits) for digits in shown) / 1000:.2f} of them are right")
imitator = world.base(seed, steps=run.budget.imitation_steps, slip=slip)
size = sum(values.numel() for values in imitator.parameters())
print(f"a decoder of {size} weights, trained on 8,000 such demonstrations for many wishes")


# %%
def write(net, wanted, draw):
    """One answer of the model to each wish, at temperature 1: wish, digits, token ids, log-probability."""
    return world.draw(net, wanted, torch.Generator().manual_seed(draw))


def rewards(answers, judge=wishes.right):
    return torch.tensor([judge(a.wish, a.digits) for a in answers])


for a in write(imitator, held_out[:4], draw=1):
    missed = [name for name, met in wishes.judged(a.wish, a.digits).items() if not met]
    print(f"{a.wish!s:36s} {a.digits} {missed or 'right'}")
every_time = [w for w in held_out for _ in range(40)]  # forty answers to each
print(f"mean reward on held-out wishes: {rewards(write(imitator, every_time, draw=2)).mean():.3f}")

# %% [markdown]
# **Observe.** A good imitator of a careless person is careless.
#
# **The cheapest loop** changes no weight. Draw $n$ answers, let the judge read them, keep the best: *best-of-n*. If one
# answer is right with probability $p$, one of $n$ independent ones is with probability $1 - (1 - p)^n$. It also has a
# price: the answers come from another distribution $\pi_n$ than the model's own $\pi$. For it there is a bound (Beirami
# et al., 2024):
#
# $$ \mathrm{KL}(\pi_n \,\Vert\, \pi) \;\le\; \log n - \frac{n - 1}{n} . $$
#
# For a reward of 0 or 1 we can say it exactly. Best-of-n is right with probability $P = 1 - (1 - p)^n$, and *given* that
# it is right (or wrong) its answers are distributed as the model's. So
#
# $$ \mathrm{KL}(\pi_n \,\Vert\, \pi) = P \log \frac{P}{p} + (1 - P) \log \frac{1 - P}{1 - p} . $$
#
# **Predict.** Take the mean reward that was just printed for $p$, and $n = 4$. What does the formula give? Will the model
# reach it?

# %%
sizes = [n for n in (1, 2, 4, 8, 16, 32) if n <= run.budget.n_drawn]
answers = write(imitator, [w for w in held_out for _ in range(2 * run.budget.n_drawn)], draw=3)
fresh, others = rewards(answers).double().view(len(held_out), 2, -1).unbind(1)
p = others.mean(1)  # one for each wish
P = [1 - (1 - p) ** n for n in sizes]
seen = [fresh.view(len(held_out), -1, n).amax(2).mean().item() for n in sizes]
one_p = [1 - (1 - p.mean().item()) ** n for n in sizes]
each_p = [right.mean().item() for right in P]


# %%
def exact_kl(P, p):
    """Mean over the wishes of the KL divergence from the formula; 0 log 0 is 0."""
    parts = torch.special.xlogy(P, P / p), torch.special.xlogy(1 - P, (1 - P) / (1 - p))
    return sum(part.nan_to_num() for part in parts).mean().item()


bound = [math.log(n) - (n - 1) / n for n in sizes]
kl_n = [exact_kl(right, p) for right in P]
print(" n   seen  one p  a p for each wish  KL    bound")
for row in zip(sizes, seen, one_p, each_p, kl_n, bound, strict=True):
    print("{:2d}  {:.3f}  {:.3f}  {:.3f}              {:.3f}  {:.3f}".format(*row))
run.record(best_of_4=seen[sizes.index(4)], one_p_of_4=one_p[sizes.index(4)])

# %% [markdown]
# **Observe.** Best-of-n lifts the reward at once, and no weight has moved. But the formula with one $p$ promises too
# much. The function $1 - (1 - p)^n$ is concave in $p$, wishes differ in $p$, and by Jensen's inequality the mean of the
# function lies below the function of the mean. With a $p$ for each wish the prediction is much nearer. It is still a
# little high at large $n$, since the $p$ of a wish that is rarely met is itself a guess from the draws. Whoever reports
# "pass at n" from one mean is too optimistic.
#
# What best-of-n cannot do: it pays $n$ answers for *each* question, for ever, and needs the judge at hand. The rest of
# this lesson puts the judge's opinion into the weights.

# %%
boxes = {
    "prompt x": (0.2, 1.5), "policy π\n(weights move)": (2.3, 1.5), "answers\ny₁ … yₙ": (4.4, 1.5),
    "judge\n(a program)": (6.6, 2.5), "reference π_ref\n(frozen copy)": (6.6, 0.5), "loss": (9.3, 1.5),
}  # fmt: skip
notes = {"y_w beats y_l,\nor a reward r": (8.8, 2.45), "log π_ref(y|x)": (8.3, 0.5)}
notes["gradient"] = (5.8, -0.45)
figure, axis = plotting.axes(width=7.6, height=2.9, dpi=85)
places, look = list(boxes.values()), {"ha": "center", "va": "center", "fontsize": 8}
for a, b in ((0, 1), (1, 2), (2, 3), (2, 4), (3, 5), (4, 5)):
    axis.annotate("", places[b], places[a], arrowprops={"arrowstyle": "->", "shrinkA": 32, "shrinkB": 34})
axis.plot([9.4, 9.4, 2.3, 2.3], [1.2, -0.25, -0.25, 0.9], "--", color="black", linewidth=1)
axis.annotate("", (2.3, 1.1), (2.3, 0.7), arrowprops={"arrowstyle": "->"})
for text, at in (boxes | notes).items():
    axis.text(*at, text, **look, bbox={"boxstyle": "round,pad=0.5", "fc": "white"} if text in boxes else None)
axis.set(xlim=(-0.6, 10.2), ylim=(-0.7, 3.0))
axis.axis("off")
show(figure, "17_mechanism")

# %% [markdown]
# *Figure: one turn of the loop. The judge sees answers, never weights. The reference is the copy of the policy from which
# we started; it says how far the policy has moved. DPO takes pairs from the judge, GRPO takes rewards. The dashed arrow
# is the only one that changes a weight.*

# %%
figure, panels = plotting.axes(1, 2, width=3.8, height=2.9, dpi=85)
gains = {"seen": seen, "one p for all": one_p, "a p for each wish": each_p}
costs = {"log n − (n − 1) / n": bound, "exact, reward 0 or 1": kl_n}
for panel, curves in zip(panels, (gains, costs), strict=True):
    for index, (name, values) in enumerate(curves.items()):
        panel.plot(sizes, values, label=name, **plotting.style(index))
    panel.set(xscale="log", xlabel="answers drawn, n")
    panel.set_xticks(sizes, list(map(str, sizes)))
    panel.minorticks_off()
    panel.legend(fontsize=8)
panels[0].set(title="what best-of-n gains", ylabel="share of wishes met", ylim=(0, 1))
panels[1].set(title="what it costs", ylabel="KL to the model, nats")
show(figure, "17_best_of_n")

# %% [markdown]
# *Figure: left, the seen curve follows the prediction with a $p$ for each wish and stays under the one with a single $p$.
# Right, the exact cost stays under the bound, and levels off: once a right answer is found, more draws change nothing.*
#
# The letters of this lesson, for looking up:
#
# | symbol | meaning |
# |---|---|
# | $x, y; \sigma$ | prompt (a wish), answer; logistic function |
# | $y_w, y_l$ | the chosen and the rejected answer of a pair |
# | $\pi, \pi_{\text{ref}}, \pi_{\text{old}}, \pi^*, \pi_n$ | policy; reference; policy that drew; best policy; best-of-n |
# | $\theta$ | weights of the policy |
# | $r, s_i$ | reward of an answer; score of candidate $i$ |
# | $\beta$ | price of leaving the reference |
# | $h$ | margin: difference of the two log-ratios |
# | $Z$ | normaliser of $\pi^*$ |
# | $J, b, A$ | expected reward; baseline; advantage |
# | $\rho, \epsilon$ | ratio $\pi / \pi_{\text{old}}$; half-width of the clip |
# | $k_1, k_2, k_3$ | estimates of a KL from one draw |
# | $n, G, m$ | answers of best-of-n; answers in a group; inputs of a round |
# | $p, P$ | probability that one answer is right; that the best of $n$ is |
# | $z$ | KTO's zero point |
# | $\tau$ | spread of a rewrite's luck |
#
# ## 2 From pairs to scores
#
# A judge that compares needs no scale. Bradley and Terry (1952) suppose that each candidate $i$ has a hidden score $s_i$,
# and
#
# $$ \Pr(i \text{ beats } j) = \sigma(s_i - s_j), \qquad \sigma(t) = \frac{1}{1 + e^{-t}} . $$
#
# If $i$ won, the loss is $-\log \sigma(s_i - s_j)$: the binary cross-entropy of lesson 01, whose logit is a *difference*.
# From $\sigma'(t) = \sigma(t)\,\sigma(-t)$,
#
# $$ \frac{\partial}{\partial s_i}\big(-\log \sigma(s_i - s_j)\big) = -\sigma(s_j - s_i), \qquad
# \frac{\partial}{\partial s_j}\big(-\log \sigma(s_i - s_j)\big) = +\sigma(s_j - s_i) . $$
#
# Read it: the push is the probability that the model gave to the *wrong* outcome. A surprise pushes hard.


# %% tags=["defines:preferences.margins", "defines:preferences.bradley_terry"]
def margins(chosen, rejected):
    if chosen.shape != rejected.shape:
        raise TrainingError(f"chosen {tuple(chosen.shape)}, rejected {tuple(rejected.shape)}: shapes differ")
    margin = upcast(chosen) - upcast(rejected)
    if margin.isnan().any():
        raise TrainingError(
            "a log-ratio is not a number: one of the two models gives an answer probability 0"
        )
    return margin


def bradley_terry(better, worse):
    margin = margins(better, worse)
    return torch.maximum(-margin, torch.zeros_like(margin)) + torch.log1p(torch.exp(-margin.abs()))


# %%
def three_ways(loss, closed, z):
    """Distances of the closed-form gradient from autograd's and from finite differences, at z in float64."""
    z = z.clone().requires_grad_()
    (automatic,) = torch.autograd.grad(loss(z), z)
    steps = 1e-6 * torch.eye(z.numel(), dtype=z.dtype).view(-1, *z.shape)
    with torch.no_grad():
        finite = torch.stack([(loss(z + s) - loss(z - s)) / 2e-6 for s in steps]).view(z.shape)
    assert closed.shape == automatic.shape == finite.shape
    apart = (closed - automatic).abs().max().item(), (closed - finite).abs().max().item()
    assert apart[0] < 1e-12 and apart[1] < 1e-7, apart
    return f"from autograd {apart[0]:.0e}, from finite differences {apart[1]:.0e}"


g = torch.Generator().manual_seed(seed)
scores = torch.randn(2, 6, generator=g).double()  # row 0: winners, row 1: losers
push = torch.sigmoid(scores[1] - scores[0])
print(three_ways(lambda s: bradley_terry(s[0], s[1]).sum(), torch.stack([-push, push]), scores))

# %% [markdown]
# Now a tournament. Five writers differ in how often they forget a constraint. The judge sees two answers to one wish, and
# says which keeps more constraints (a coin decides a tie). **Predict.** Add 100 to every score. What happens to the loss?

# %%
slips = (0.02, 0.1, 0.2, 0.35, 0.6)


def kept(w, k):
    """How many constraints of wish w writer k keeps, once; the fraction is the coin for ties."""
    return sum(wishes.judged(w, wishes.demonstration(w, slips[k], rng)).values()) + rng.random() / 2


wins = torch.zeros(5, 5, dtype=torch.float64)
for w in rng.choices(known, k=400):
    i, j = rng.sample(range(5), 2)
    wins[(i, j) if kept(w, i) > kept(w, j) else (j, i)] += 1
print("wins of row over column:", wins.int().tolist())


# %%
def tournament_loss(s):
    return (wins * bradley_terry(s[:, None].expand(5, 5), s.expand(5, 5))).sum()


s = torch.linspace(0.1, -0.1, 5, dtype=torch.float64)
for _ in range(20):  # Newton's method; the pseudo-inverse steps over the flat direction
    slope = torch.autograd.functional.jacobian(tournament_loss, s)
    curvature = torch.autograd.functional.hessian(tournament_loss, s)
    s = s - torch.linalg.pinv(curvature) @ slope
print("scores:", [round(v, 2) for v in s.tolist()], f"gradient {slope.abs().max():.0e}")
print(f"100 more for everyone changes the loss by {abs(tournament_loss(s + 100) - tournament_loss(s)):.0e}")
print("eigenvalues of the curvature:", [round(v, 2) for v in torch.linalg.eigvalsh(curvature).abs().tolist()])

# %% [markdown]
# **Observe.** The order of the writers is found from comparisons alone. Only differences enter, so scores are known *up
# to a constant*: the curvature has one eigenvalue 0, and its direction is $(1, \dots, 1)$.
#
# A second fact will hurt us. If a writer wins *every* comparison, the loss has no minimum. Its score runs away:

# %% tags=["nbval-check-output"]
margin = torch.zeros(1, dtype=torch.float64, requires_grad=True)
optimizer = torch.optim.SGD([margin], lr=1.0)
for step in range(1, 1001):
    bradley_terry(margin, torch.zeros(1)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    if step in (10, 100, 1000):
        print(
            f"after {step:4d} steps: margin {margin.item():.2f}, loss {math.log1p(math.exp(-margin.item())):.5f}"
        )

# %% [markdown]
# **Observe.** Slower and slower, and never at rest. A pair that is seen once is such a case.
#
# ## 3 From rewards to DPO
#
# What we want is much reward, without leaving the model that we trust, the reference $\pi_{\text{ref}}$. For each prompt
# $x$:
#
# $$ \max_{\pi} \; \mathbb{E}_{y \sim \pi}\big[ r(x, y) \big] - \beta \, \mathrm{KL}\big(\pi \,\Vert\, \pi_{\text{ref}}\big),
# \qquad \mathrm{KL} = \mathbb{E}_{y \sim \pi} \log \frac{\pi(y|x)}{\pi_{\text{ref}}(y|x)} . $$
#
# **Step 1.** Put both under one expectation, divide by $-\beta$: $\;\min_\pi \mathbb{E}_{\pi}\big[ \log
# \frac{\pi}{\pi_{\text{ref}}} - \frac{r}{\beta} \big] = \min_\pi \mathbb{E}_{\pi} \log \frac{\pi}{\pi_{\text{ref}}\, e^{r
# / \beta}} .$
#
# **Step 2.** The denominator does not sum to 1. With $Z(x) = \sum_y \pi_{\text{ref}}(y|x)\, e^{r(x,y)/\beta}$ define
# $\pi^*(y|x) = \pi_{\text{ref}}(y|x)\, e^{r(x,y)/\beta} / Z(x)$. Then the objective is $\mathrm{KL}(\pi \Vert \pi^*) -
# \log Z(x)$. It is smallest at $\pi = \pi^*$, since a KL divergence is 0 only there.
#
# **Step 3.** Solve for the reward: $\; r(x, y) = \beta \log \frac{\pi^*(y|x)}{\pi_{\text{ref}}(y|x)} + \beta \log Z(x) .$
#
# **Step 4.** Nobody can sum over all $y$ to get $Z(x)$. But Bradley–Terry sees a *difference* of rewards for the same
# prompt, and $\beta \log Z(x)$ is the constant that falls out. With $y_w$ preferred to $y_l$, and $h$ the *margin* of
# log-ratios,
#
# $$ L_{\text{DPO}} = -\log \sigma(\beta h), \qquad
# h = \log \frac{\pi(y_w|x)}{\pi_{\text{ref}}(y_w|x)} - \log \frac{\pi(y_l|x)}{\pi_{\text{ref}}(y_l|x)} . $$
#
# No reward model, no sampling (Rafailov et al., 2023). We check steps 2 and 3 on a policy that is small enough to write
# down.

# %%
g = torch.Generator().manual_seed(seed)
pi_ref = torch.randn(5, generator=g).double().softmax(0)
r = torch.randn(5, generator=g).double()
others = torch.randn(2000, 5, generator=g).double().softmax(1)


def objective(pi, price):
    return (pi * r).sum(-1) - price * (pi * (pi / pi_ref).log()).sum(-1)


for price in (0.1, 1.0, 10.0):
    weights = pi_ref * torch.exp(r / price)
    Z, best = weights.sum(), weights / weights.sum()
    gap = objective(best, price) - objective(others, price).max()
    implied = price * (best / pi_ref).log() + price * Z.log()
    print(
        f"beta {price:4}: reward {(best * r).sum():+.2f}, ahead of 2,000 other policies by {gap:.3f},",
        end=" ",
    )
    print(f"reward found again to {(implied - r).abs().max():.0e}")

# %% [markdown]
# **Observe.** A small $\beta$ buys reward, a large one stays near the reference.
#
# The gradient. The margin has slope $+1$ in the chosen log-ratio and $-1$ in the rejected one, so
#
# $$ \nabla_\theta L_{\text{DPO}} = -\beta \, \sigma(-\beta h) \,
# \big( \nabla_\theta \log \pi(y_w|x) - \nabla_\theta \log \pi(y_l|x) \big) . $$
#
# A pair that is already in order ($\beta h \gg 0$) gets weight near 0, a pair in the wrong order weight near $\beta$.
# (`smoothing`, 0 in this lesson, counts that share of each pair turned around.)


# %% tags=["defines:preferences.check_beta", "defines:preferences.dpo_loss"]
def check_beta(beta, smoothing=0.0):
    if not 0 < beta < float("inf") or not 0 <= smoothing < 0.5:
        raise ParameterError(f"beta {beta}, smoothing {smoothing}: need 0 < beta and 0 <= smoothing < 0.5")


def dpo_loss(chosen, rejected, beta=0.1, smoothing=0.0):
    check_beta(beta, smoothing)
    rewards = beta * upcast(chosen), beta * upcast(rejected)
    loss = bradley_terry(*rewards)
    return loss if smoothing == 0 else (1 - smoothing) * loss + smoothing * bradley_terry(*rewards[::-1])


ratios = torch.randn(2, 6, generator=g).double() * 5
weight = beta * torch.sigmoid(-beta * (ratios[0] - ratios[1]))
print(three_ways(lambda z: dpo_loss(z[0], z[1], beta).sum(), torch.stack([-weight, weight]), ratios))

# %% [markdown]
# **With the library.** A log-ratio needs $\log \pi(y|x)$ of a whole answer: a *sum* over its tokens, end included, prompt
# not. Two short functions.


# %% tags=["defines:preferences.answer_examples", "defines:preferences.answer_log_probs"]
def answer_examples(prompts, answers, end, longest):
    if len(prompts) != len(answers):
        raise ParameterError(f"{len(prompts)} prompts and {len(answers)} answers: one answer for each prompt")
    if min(map(len, prompts), default=0) == 0 or max(map(len, answers)) > longest:
        raise ParameterError(f"an empty prompt, or an answer of more than {longest} tokens")
    ended = [[*answer, end][:longest] for answer in answers]
    return [
        {"input_ids": [*p, *y], "labels": [-100] * len(p) + y} for p, y in zip(prompts, ended, strict=True)
    ]


def answer_log_probs(model, batch):
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return sequence_log_probs(logits, batch["labels"])


# %% [markdown]
# trl's `DPOTrainer` gets the same pairs, and a LoRA on the imitator. Then the reference needs no second copy: it is the
# same model *with the LoRA switched off*.

# %%
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig
from transformers.utils import logging
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer

logging.set_verbosity_error()
disable_progress_bars()
HOW = {"bf16": False, "gradient_checkpointing": False, "use_cpu": True, "report_to": "none"}
lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


def move_lora(net):
    """Random values for the half of the LoRA that starts at 0, so that policy and reference differ."""
    for name, values in net.named_parameters():
        if "lora_B" in name:
            values.data.copy_(0.3 * torch.randn(values.shape, generator=g))


# %%
few = known[:6]
sides = {"chosen": 0.0, "rejected": 0.8}  # how careless the demonstration is
told = {k: [" ".join(map(str, wishes.demonstration(w, q, rng))) for w in few] for k, q in sides.items()}
rows = Dataset.from_dict({"prompt": [f"{w} " for w in few], **told})
with contextlib.redirect_stderr(io.StringIO()):
    settings = DPOConfig(tempfile.mkdtemp(), per_device_train_batch_size=6, **HOW)
    trainer = DPOTrainer(
        copy.deepcopy(imitator), args=settings, train_dataset=rows, processing_class=world.tokenizer, peft_config=lora
    )  # fmt: skip
tuned = trainer.model.eval()
move_lora(tuned)
theirs = trainer.data_collator([trainer.train_dataset[i] for i in range(6)])


# %%
def log_ratios(batch):
    """log π − log π_ref of each answer; the reference is the LoRA switched off."""
    with torch.no_grad():
        with tuned.disable_adapter():
            of_reference = answer_log_probs(tuned, batch)
        return answer_log_probs(tuned, batch) - of_reference


prompts = [world.prompt(w) for w in few]
tokens = {side: [world.tokenizer(text)["input_ids"] for text in told[side]] for side in sides}
batches = [
    training.collate_tokens(answer_examples(prompts, tokens[side], world.end, 20), 0) for side in sides
]
c, l = (log_ratios(batch) for batch in batches)  # chosen, rejected
apart = {}
for trainer.beta in (0.01, 0.1, 0.5, 2.0):
    ours, trls = dpo_loss(c, l, trainer.beta).mean(), trainer.compute_loss(tuned, dict(theirs))
    apart[trainer.beta] = (abs(ours - trls) / trls).item()
    print(f"beta {trainer.beta}: ours {ours:.6f}, relative difference to trl {apart[trainer.beta]:.0e}")
run.record(dpo_difference=max(apart.values()))
assert max(apart.values()) < 1e-5

# %% [markdown]
# **Observe.** The same loss for every $\beta$. The prompt is masked, the end token counts, the reference is the LoRA off.
#
# **Four famous mistakes.** (1) the *mean* over tokens in place of the sum; (2) the prompt's tokens counted too; (3) the
# pair swapped; (4) a reference in training mode, with dropout. **Predict.** One of the four does not change the DPO loss
# at all. Which one?


# %%
def with_prompt(batch):
    """The mistake: every token but the first is a label, the prompt's too."""
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    labels[:, 0] = -100
    return batch | {"labels": labels}


lengths = [(batch["labels"] != -100).sum(1) for batch in batches]
c_all, l_all = (log_ratios(with_prompt(batch)) for batch in batches)
print(f"right:           {dpo_loss(c, l).mean():.6f}")
print(f"mean, not sum:   {dpo_loss(c / lengths[0], l / lengths[1]).mean():.6f}")
print(f"pair swapped:    {dpo_loss(l, c).mean():.6f}")
print(f"prompt counted:  {dpo_loss(c_all, l_all).mean():.6f},", end=" ")
print(f"but the rewards in the log move by up to {beta * (c_all - c).abs().max():.3f}")

# %% [markdown]
# **Observe.** *Counting the prompt* changes nothing: both answers share it, so it cancels in $h$, as $Z(x)$ did. Do not
# rely on that: it moves the logged rewards, and spoils losses that look at one answer (KTO, below) or divide by the
# length.
#
# The fourth mistake needs a model with dropout. At the first update policy and reference are the same weights. Then every
# margin must be 0, and every loss $\log 2$.

# %%
noisy = copy.deepcopy(imitator)
for module in noisy.modules():
    if hasattr(module, "attention_dropout"):
        module.attention_dropout = 0.1
with torch.no_grad():
    found = {}
    for mode in (False, True):
        noisy.train(mode)
        two = [answer_log_probs(imitator, b) - answer_log_probs(noisy, b) for b in batches]
        found[mode] = two[0] - two[1]
print("margins with the reference in eval mode: ", [f"{h:.2f}" for h in found[False].tolist()])
print("margins with the reference in train mode:", [f"{h:.2f}" for h in found[True].tolist()])
run.record(dropout_margin=found[True].abs().max().item())

# %% [markdown]
# **Observe.** Nothing crashes. The margins are noise of the size of a real signal, and the accuracy in the log would be a
# coin's. trl switches dropout off for both models (`disable_dropout=True`) and puts the reference into eval mode.
#
# ## 4 Two relatives
#
# DPO's loss has no minimum for a pair: section 2 showed the margin that runs away. *IPO* (Azar et al., 2024) asks the
# margin to reach a size, $1 / (2\beta)$, and no more. *KTO* (Ethayarajh et al., 2024) needs no pairs: each answer is good
# or bad by itself, and $z$, an estimate of $\mathrm{KL}(\pi \Vert \pi_{\text{ref}})$, says where "neither" lies.


# %% tags=["defines:preferences.ipo_loss", "defines:preferences.kto_loss"]
def ipo_loss(chosen, rejected, beta=0.1):
    check_beta(beta)
    return (margins(chosen, rejected) - 1 / (2 * beta)) ** 2


def kto_loss(log_ratios, desirable, kl, beta=0.1):
    check_beta(beta)
    z = kl.detach() if isinstance(kl, Tensor) else kl
    sign = torch.where(desirable, 1.0, -1.0).to(log_ratios.device)
    return 1 - torch.sigmoid(sign * beta * (upcast(log_ratios) - z))


# %%
h = torch.linspace(-40, 40, 161, dtype=torch.float64, requires_grad=True)
none, good = torch.zeros_like(h), torch.ones(161, dtype=torch.bool)
curves = {"DPO": dpo_loss(h, none), "IPO / 100": ipo_loss(h, none) / 100}
curves |= {"KTO, a good answer": kto_loss(h, good, 0.0), "KTO, a bad answer": kto_loss(h, ~good, 0.0)}
figure, panels = plotting.axes(1, 2, width=3.8, height=2.9, dpi=85)
for index, (name, values) in enumerate(curves.items()):
    look = plotting.style(index) | {"markevery": 20, "markersize": 4}
    panels[0].plot(h.detach(), values.detach(), label=name, **look)
    panels[1].plot(h.detach(), torch.autograd.grad(values.sum(), h)[0], **look)
panels[0].set(xlabel="margin or log-ratio, nats", title="loss", ylim=(0, 4.2))
panels[1].set(xlabel="margin or log-ratio, nats", title="its slope", ylim=(-0.12, 0.12))
panels[0].legend(fontsize=7)
show(figure, "17_losses")

# %% [markdown]
# *Figure: $\beta = 0.1$. DPO's slope goes to $-\beta$ on the left and to 0 on the right, and never changes its sign.
# IPO's is a straight line through 0 at $h = 1/(2\beta) = 5$: beyond that it pulls back (it is drawn divided by 100, and
# its loss goes on above the cut). KTO's slope is largest near $z$ and vanishes on both sides: it gives up on answers that
# are hopeless.*
#
# A detail that parity needs: trl's IPO divides each log-ratio by the number of answer tokens first. The paper does not
# say so.

# %%
with torch.no_grad():
    trainer.loss_types, trainer.beta = ["ipo"], 0.1
    ours, as_printed = ipo_loss(c / lengths[0], l / lengths[1]).mean(), ipo_loss(c, l).mean()
    apart = abs(ours - trainer.compute_loss(tuned, dict(theirs))).item() / ours.item()
print(
    f"IPO per token {ours:.4f}, relative difference to trl {apart:.0e}; with sums it would be {as_printed:.4f}"
)
run.record(ipo_difference=apart)
assert apart < 1e-6
del trainer

# %% [markdown]
# ## 5 Tune by DPO
#
# The pairs come from the imitator itself: for a wish, one of its answers that the judge accepts, and one that it rejects.
# Nobody writes an answer. The reference's log-probabilities never change, so we compute them once. `measure` always looks
# at the same held-out wishes with the same random seed, so that curves can be compared.


# %%
def pairs_of(answers):
    """Neighbours that answer one wish, and of which the judge accepts exactly one: (chosen, rejected)."""
    judged = zip(answers[::2], answers[1::2], rewards(answers).view(-1, 2).tolist(), strict=True)
    return [(a, b) if x > y else (b, a) for a, b, (x, y) in judged if x != y]


def both(net, pairs):
    """log π of the chosen and of the rejected answers, (2, B)."""
    return torch.stack([answer_log_probs(net, world.batch(side)) for side in zip(*pairs, strict=True)])


train_pairs = pairs_of(write(imitator, [w for w in known for _ in range(32)], draw=4))
test_pairs = pairs_of(answers)[:: max(1, run.budget.n_drawn // 32)]
print(f"{len(train_pairs)} pairs to tune on, {len(test_pairs)} held out; one of them:")
print("  ", train_pairs[0][0].wish, "chosen", train_pairs[0][0].digits, "rejected", train_pairs[0][1].digits)
reference = copy.deepcopy(imitator).eval().requires_grad_(False)
with torch.no_grad():
    ref_train, ref_test = both(reference, train_pairs), both(reference, test_pairs)


# %% tags=["defines:preferences.update"]
def update(model, optimizer, loss, rate):
    if not loss.isfinite():
        raise TrainingError(f"the loss is {loss.item()}: lower the learning rate")
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss.backward()
    clip_gradients(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


# %%
def tune(net, loss_of, steps, rate, look):
    """Updates by loss_of(net, step); look(net) ten times on the way. Returns what it saw."""
    optimizer, saw = torch.optim.AdamW(net.parameters(), weight_decay=0.0), []
    for step in range(steps + 1):
        if step % max(1, steps // 10) == 0:
            with torch.no_grad():
                saw.append({"step": step, **look(net)})
        if step < steps:
            update(net, optimizer, loss_of(net, step), rate)
    return saw


def measure(net):
    """On held-out wishes: reward, points of the judge of section 7, KL to the reference, entropy, length."""
    some = write(net, every_time, draw=5)
    log_p = torch.tensor([a.log_prob for a in some])
    kl = (log_p - answer_log_probs(reference, world.batch(some))).mean().clamp(min=0).item()  # never below 0
    found = {
        "reward": rewards(some).mean().item(),
        "points": rewards(some, wishes.points).mean().item(),
    }
    return found | {
        "kl": kl,
        "entropy": -log_p.mean().item(),
        "length": sum(len(a.digits) for a in some) / len(some),
    }


# %% [markdown]
# **Predict.** The loss asks for a larger *difference* between the chosen and the rejected answer. Over the updates, does
# the log-probability of the **chosen** answers rise or fall?


# %%
def dpo_step(net, step):
    rows = torch.randint(len(train_pairs), (64,), generator=torch.Generator().manual_seed(step))
    now = both(net, [train_pairs[i] for i in rows.tolist()])
    return dpo_loss(*(now - ref_train[:, rows]), beta).mean()


def look_at_pairs(net):
    gained = both(net, test_pairs) - ref_test
    chosen, rejected = gained.mean(1).tolist()
    in_order = (0.5 + 0.5 * (gained[0] - gained[1]).sign()).mean().item()  # a tie counts half
    rose = (gained[0] > 0).double().mean().item()
    loss = dpo_loss(*gained, beta).mean().item()
    found = {"loss": loss, "chosen": chosen, "rejected": rejected, "rose": rose, "accuracy": in_order}
    return found | measure(net)


dpo_net = copy.deepcopy(imitator)
dpo_curve = tune(dpo_net, dpo_step, run.budget.updates, 3e-4, look_at_pairs)
print("update  loss   chosen  rejected  chosen rose  in order  reward  KL")
form = "{step:6d}  {loss:.3f}  {chosen:+6.2f}  {rejected:+8.2f}  {rose:11.2f}  {accuracy:8.3f}"
for row in dpo_curve:
    print((form + "  {reward:6.3f}  {kl:.3f}").format(**row))
run.record(**{f"dpo_{name}": dpo_curve[-1][name] for name in ("reward", "chosen", "rejected", "accuracy")})
run.record(imitator=dpo_curve[0]["reward"])

# %%
figure, panels = plotting.axes(1, 3, width=2.9, height=2.7, dpi=85)
updates = [row["step"] for row in dpo_curve]
for index, name in enumerate(("chosen", "rejected")):
    panels[0].plot(updates, [row[name] for row in dpo_curve], label=name, **plotting.style(3 * index))
panels[0].axhline(0, color="black", linewidth=1)
panels[0].set(title="log π − log π_ref, nats", xlabel="update")
panels[0].legend(fontsize=8)
for panel, name, title in (
    (panels[1], "accuracy", "implicit-reward accuracy"),
    (panels[2], "reward", "wishes met"),
):
    panel.plot(updates, [row[name] for row in dpo_curve], **plotting.style(0))
    panel.set(title=title, xlabel="update", ylim=(0, 1))
panels[1].axhline(0.5, color="grey", linestyle=":")
show(figure, "17_dpo")

# %% [markdown]
# *Figure: held-out pairs. Left, both curves move, and the margin is the distance between them. Middle, the share of pairs
# whose order the implicit reward $\beta (\log \pi - \log \pi_{\text{ref}})$ gets right; dotted, chance.*
#
# **Observe.** In the stored run three things happen, and only one of them is in the loss.
#
# - The margin grows and the implicit reward orders more held-out pairs as the judge does. That is what the loss asks for.
# - The mean log-probability of the *chosen* answers falls, from early on. The loss sees a difference, so two falling
#   numbers serve it as well as one that rises. It is a mean of logarithms: the column "chosen rose" shows that some
#   chosen answers do become more probable, while others lose much. The probability must go to answers that stand in no
#   pair.
# - The share of wishes met is highest near update 20. At the end it is back where it began, while the loss on the same
#   held-out pairs is lower than it was then, the order of the pairs better, and the KL has grown and grown. The runaway
#   margin of section 2 is at work. Only drawn and judged answers show it.
#
# ## 6 The policy gradient
#
# DPO learns from a fixed set of pairs. If the judge is a program, why not ask it all the time? We want the gradient of
# $J(\theta) = \sum_y \pi_\theta(y)\, r(y)$. The reward has no gradient; the probability has one:
#
# $$ \nabla J = \sum_y \nabla \pi_\theta(y)\, r(y) = \sum_y \pi_\theta(y)\, \frac{\nabla \pi_\theta(y)}{\pi_\theta(y)}\, r(y)
# = \mathbb{E}_{y \sim \pi_\theta}\big[\, r(y)\, \nabla \log \pi_\theta(y) \,\big] . $$
#
# This is the *score-function identity* (Williams, 1992): draw answers, weigh each one's log-probability by its reward.
# And since $\mathbb{E}[\nabla \log \pi_\theta] = \nabla \sum_y \pi_\theta(y) = \nabla 1 = 0$, any constant *baseline* $b$
# may be taken off the reward, and the mean stays.


# %% tags=["defines:preferences.reinforce_loss"]
def reinforce_loss(log_probs, rewards, baseline=0.0):
    return -(upcast(rewards) - baseline).detach() * upcast(log_probs)


# %% [markdown]
# On the policy with five answers all can be enumerated. For $\pi = \mathrm{softmax}(\theta)$ the exact gradient is
# $\partial J / \partial \theta_i = \pi_i \,(r_i - J)$. **Predict.** All rewards get 10 more. What happens to the exact
# gradient? To the one estimated from 100 draws?

# %%
theta = torch.randn(5, generator=g).double()
print(
    "J:",
    three_ways(
        lambda t: (t.softmax(0) * r).sum(), theta.softmax(0) * (r - (theta.softmax(0) * r).sum()), theta
    ),
)
pi = theta.softmax(0)
J = (pi * r).sum()
exact = pi * (r - J)
y = torch.multinomial(pi, 100 * 2000, replacement=True, generator=g)
each = torch.eye(5, dtype=torch.float64)[y] - pi  # ∇ log π of each draw
for shift in (0.0, 10.0):
    for name, b in (("no baseline", 0.0), ("b = mean reward", J + shift)):
        estimate = ((r + shift - b)[y][:, None] * each).view(2000, 100, 5).mean(1)
        bias = (estimate.mean(0) - exact).abs().max()
        print(f"rewards + {shift:4}: {name:16s} mean off by {bias:.4f}, spread {estimate.std(0).norm():.4f}")

# %%
figure, axis = plotting.axes(width=5.2, height=2.9, dpi=85)
baselines = torch.linspace(-3, 3, 61, dtype=torch.float64)
squares = ((torch.eye(5, dtype=torch.float64) - pi) ** 2).sum(1)  # |∇ log π(y)|²
variance = [(pi * (r - b) ** 2 * squares).sum() - (exact**2).sum() for b in baselines]
best_b = (pi * r * squares).sum() / (pi * squares).sum()
axis.plot(baselines, variance, label="exact variance of one draw", **plotting.style(0) | {"markevery": 10})
axis.axvline(J, color="grey", linestyle="--", label="b = mean reward")
axis.axvline(best_b, color="black", linestyle=":", label="the best b")
axis.set(xlabel="baseline b", ylabel="variance of the gradient", ylim=(0, None))
axis.legend(fontsize=8)
show(figure, "17_baseline")

# %% [markdown]
# *Figure: the variance is a parabola in $b$. Its lowest point is $\mathbb{E}[r\,|\nabla \log \pi|^2] /
# \mathbb{E}[\,|\nabla \log \pi|^2]$, and the mean reward, which is far easier to get, lies close to it.*
#
# **Observe.** The mean is right each time; the spread is not. A judge that says 10 for bad and 11 for good is hard to
# learn from, unless the 10 is taken off.
#
# **GRPO** (Shao et al., 2024) takes the baseline from the data: $G$ answers to *one* prompt, and the advantage of an
# answer is $A = (r - \text{mean}) / \text{standard deviation}$ within the group. If the batch is used for several
# updates, the policy is no longer the one that drew. Then the ratio $\rho = \pi / \pi_{\text{old}}$ of each token
# corrects for that, clipped to $[1 - \epsilon, 1 + \epsilon]$ so that no answer is trusted too far. A term $\beta k_3$
# (below) may hold it near the reference. For an answer of $T$ tokens the loss is
#
# $$ L = -\frac1T \sum_{t=1}^{T} \Big[ \min\big( \rho_t A, \;
# \mathrm{clip}(\rho_t, 1 - \epsilon, 1 + \epsilon)\, A \big) - \beta\, k_{3,t} \Big] , $$
#
# and then the mean over answers. The deviation has $G - 1$ in its denominator, and `1e-4` keeps it from 0. Dividing by it
# gives very easy and very hard prompts large pushes; `scale=False` leaves it out.


# %% tags=["defines:preferences.group_advantages", "defines:preferences.kl_k3"]
def group_advantages(rewards, scale=True):
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise ParameterError(
            f"rewards {tuple(rewards.shape)}: need (prompts, answers) with two answers or more"
        )
    rewards = upcast(rewards)
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / (rewards.std(1, keepdim=True) + 1e-4) if scale else centred


def kl_k3(log_p, reference):
    log_rho = upcast(reference) - upcast(log_p)
    return torch.exp(log_rho) - log_rho - 1


# %% tags=["defines:preferences.token_log_probs", "defines:preferences.grpo_loss", "defines:preferences.answer_mean"]
def token_log_probs(logits, labels):
    mask = labels[:, 1:] != -100
    log_p = -cross_entropy(logits[:, :-1][mask], labels[:, 1:][mask])
    return log_p.new_zeros(mask.shape).masked_scatter(mask, log_p), mask


def grpo_loss(log_p, old, advantages, *, clip=0.2, reference=None, beta=0.0):
    if not 0 < clip < 1 or (beta and reference is None):
        raise ParameterError(f"clip {clip}, beta {beta}: need 0 < clip < 1, and a reference for the KL term")
    ratio, gain = torch.exp(upcast(log_p) - upcast(old)), upcast(advantages).unsqueeze(1)
    surrogate = torch.minimum(ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain)
    return -surrogate if reference is None or not beta else beta * kl_k3(log_p, reference) - surrogate


def answer_mean(values, mask):
    return (values * mask).sum(1) / mask.sum(1).clamp(min=1)


print("rewards 1 0 0 0:", [round(a, 2) for a in group_advantages(torch.tensor([[1.0, 0, 0, 0]]))[0].tolist()])
print("rewards 1 1 1 1:", group_advantages(torch.ones(1, 4))[0].tolist())
with expect_error(ParameterError, match="two answers"):
    group_advantages(torch.ones(4, 1))

# %% [markdown]
# **Observe.** One right answer among three wrong ones gets a strong push. A group of equals teaches nothing: a wish that
# the model always meets, or never.
#
# **With the library.** trl's `GRPOTrainer` draws the answers, calls our judge, and computes its loss. We move the LoRA
# after the draws, so that $\rho \ne 1$, and compute ours from its draws.


# %%
BY_TEXT = {str(w): w for w in known}
asked = [str(w) for w in known[:8]]


def judged_text(prompts, completions, **_):
    """A reward function as trl wants it: texts in, numbers out."""
    digits = [[int(t) if t.isdigit() else -1 for t in text.split()] for text in completions]
    return [wishes.right(BY_TEXT[p], y) for p, y in zip(prompts, digits, strict=True)]


with contextlib.redirect_stderr(io.StringIO()):
    settings = GRPOConfig(
        tempfile.mkdtemp(), per_device_train_batch_size=32, num_generations=4, max_completion_length=wishes.LONGEST,
        loss_type="grpo", beta=0.05, num_iterations=2, use_bias_correction_kl=False, **HOW,
    )  # fmt: skip
    trainer = GRPOTrainer(
        copy.deepcopy(imitator), judged_text, args=settings, train_dataset=Dataset.from_dict({"prompt": asked}),
        processing_class=world.tokenizer, peft_config=lora,
    )  # fmt: skip

# %%
theirs = trainer._generate_and_score_completions([{"prompt": text} for text in asked for _ in range(4)])
move_lora(trainer.model)
T = theirs["completion_ids"].shape[1]
ids, mask = (torch.cat([theirs[f"prompt_{k}"], theirs[f"completion_{k}"]], 1) for k in ("ids", "mask"))
labels = ids.masked_fill(mask == 0, -100)
labels[:, :-T] = -100
texts = world.tokenizer.batch_decode(theirs["completion_ids"], skip_special_tokens=True)
scores = torch.tensor(judged_text([text for text in asked for _ in range(4)], texts))
A = group_advantages(scores.view(8, 4)).flatten()
with torch.no_grad():
    log_p, counts = token_log_probs(trainer.model(input_ids=ids, attention_mask=mask).logits, labels)
log_p, counts = log_p[:, -T:], counts[:, -T:]

# %%
old, of_reference = theirs["old_per_token_logps"], theirs["ref_per_token_logps"]
ours = answer_mean(grpo_loss(log_p, old, A, reference=of_reference, beta=0.05), counts).mean()
trainer.current_gradient_accumulation_steps, trls = 1, {}
for trainer.args.use_bias_correction_kl in (False, True):
    with torch.no_grad():
        trls[trainer.args.use_bias_correction_kl] = trainer._compute_loss(trainer.model, theirs)
apart = abs(ours - trls[False]).item(), (A - theirs["advantages"]).abs().max().item()
print(f"loss: ours {ours:.6f}, difference to trl {apart[0]:.0e}; advantages {apart[1]:.0e}")
print(f"with trl's default for the KL term: {trls[True]:.6f}")
run.record(grpo_difference=apart[0])
assert max(apart) < 1e-5
del trainer

# %% [markdown]
# **Observe.** Equal, advantages too. One switch had to be turned: `use_bias_correction_kl=False`. By default this trl
# multiplies the KL term by $\rho$, which the paper does not. Why would anybody do that? The next cell shows it.
#
# **Three ways to estimate a KL.** For one draw $y \sim \pi$ let $k_1 = \log \pi(y) - \log \pi_{\text{ref}}(y)$, $k_2 =
# k_1^2 / 2$ and $k_3 = e^{-k_1} - 1 + k_1$ (Schulman, 2020). **Predict.** Which of them have the right *mean*? Which have
# the right *gradient* if you put them into a loss and let autograd work?

# %%
theta = (pi_ref.log() + 0.5 * torch.randn(5, generator=g).double()).requires_grad_()  # near the reference
pi, log_pi, log_ref = theta.softmax(0), theta.log_softmax(0), pi_ref.log()
kl, other = (pi * (log_pi - log_ref)).sum(), (pi_ref * (log_ref - log_pi)).sum()
slopes = [torch.autograd.grad(value, theta, retain_graph=True)[0] for value in (kl, other)]
k1, weights = log_pi - log_ref, pi.detach()  # the draws are data: autograd does not see where they come from
print(f"KL(π‖ref) {kl:.4f}, its gradient has size {slopes[0].norm():.3f}")
k3, rho = kl_k3(log_pi, log_ref), torch.exp(log_pi - log_pi.detach())  # rho is 1, and has a gradient
for name, k in {"k1": k1, "k2": k1**2 / 2, "k3": k3, "rho k3": rho * k3}.items():
    (slope,) = torch.autograd.grad((weights * k).sum(), theta, retain_graph=True)
    mean = (weights * k).sum()
    spread = (weights * (k - mean) ** 2).sum().sqrt()
    print(
        f"{name:6s} mean {mean:.4f}, spread {spread:.3f}; gradient of size {slope.norm():.3f}, off by",
        end=" ",
    )
    print(f"{(slope - slopes[0]).norm():.0e} (from that of KL(ref‖π): {(slope - slopes[1]).norm():.0e})")

# %% [markdown]
# **Observe.** Each tells another story. $k_1$ has the right mean, and as a loss its gradient is 0 in the mean: it does
# nothing. $k_2$ has a wrong mean and the right gradient. $k_3$ has the right mean, is never negative, and near the
# reference it has a small spread; but its gradient is that of the *other* KL, $\mathrm{KL}(\pi_{\text{ref}} \Vert \pi)$.
# Multiplied by $\rho$, which is 1 here but has a gradient, $k_3$ gets the right one back: that is trl's switch. A good
# number to log need not be a good one to minimise.
#
# ## 7 Reward hacking, on purpose
#
# Our judge gets a hole, of a kind that everybody has written once. It gives *points*: one for the right start, one for
# the right parity, one for each step in the wished order, as shares of a right answer's points. A right answer gets 1.
# Nobody looks at the length.

# %% tags=["nbval-check-output"]
for digits in ([2, 4, 6, 8], [2, 4, 6], [2, 3, 4, 5, 6, 8]):
    print(wish, digits, f"points {wishes.points(wish, digits):.2f}, reward {wishes.right(wish, digits):.0f}")

# %% [markdown]
# **Predict.** What will a policy do that is paid in points? What happens to the *true* reward?


# %%
ROUNDS, WISHES, G = run.budget.rounds, 32, 8


def grpo_step(judge):
    """One round: G fresh answers to each of some wishes, one update of the very policy that drew them."""

    def loss_of(net, step):
        wanted = random.Random(step).sample(known, WISHES)
        some = write(net, [w for w in wanted for _ in range(G)], draw=9000 + step)
        batch = world.batch(some)
        logits = net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        log_p, counts = token_log_probs(logits, batch["labels"])
        A = group_advantages(rewards(some, judge).view(WISHES, G)).flatten()
        return answer_mean(grpo_loss(log_p, log_p.detach(), A), counts).mean()

    return loss_of


# %%
judges = {"exact judge": wishes.right, "judge with a hole": wishes.points}
nets = {name: copy.deepcopy(imitator) for name in judges}
paths = {name: tune(net, grpo_step(judges[name]), ROUNDS, 1e-3, measure) for name, net in nets.items()}
form = "{:18s} round {step:3d}: true {reward:.3f}, points {points:.3f}, KL {kl:.2f}, length {length:.2f}"
for name, path in paths.items():
    print(form.format(name, **path[0]))
    print(form.format(name, **path[-1]))
run.record(grpo_reward=paths["exact judge"][-1]["reward"])
run.record(
    hole_true=paths["judge with a hole"][-1]["reward"], hole_proxy=paths["judge with a hole"][-1]["points"]
)
for a in write(nets["judge with a hole"], held_out[:4], draw=6):
    print(f"{a.wish!s:36s} {a.digits}")

# %%
figure, panels = plotting.axes(1, 2, width=3.8, height=2.9, dpi=85, sharey=True)
for panel, (name, path) in zip(panels, paths.items(), strict=True):
    for index, (metric, label) in enumerate((("reward", "true reward"), ("points", "points"))):
        values = [row[metric] for row in path]
        panel.plot([row["step"] for row in path], values, label=label, **plotting.style(3 * index))
    panel.set(title=f"paid by the {name}", xlabel="round", ylim=(0, 2.1))
panels[0].set_ylabel("mean over held-out answers")
panels[1].legend(fontsize=8)
show(figure, "17_hacking")

# %% [markdown]
# *Figure: left, paid by the exact judge, both curves rise. Right, paid by the judge with a hole, the points rise beyond
# what a right answer gets, and the true reward falls.*
#
# **Observe.** Look at the answers in the stored run. The policy has found the hole: it goes on writing as long as it may,
# since each further step in order is a point. Its points are nearly twice those of a right answer, and not one answer is
# right. Its training log looks fine. Three things would tell you: a second judge that nobody is paid by, the KL, and
# reading ten answers. The judge on the left also compares the lengths: no hole, no such end.
#
# ## 8 The honest baseline: rejection sampling
#
# The simplest use of a judge: draw as many answers from the imitator as GRPO drew in all its rounds. Keep the right ones.
# Tune on them as in lesson 14, in as many updates.

# %%
each = max(1, ROUNDS * WISHES * G // len(known))
drawn = write(imitator, [w for w in known for _ in range(each)], draw=7)
kept = [a for a, ok in zip(drawn, rewards(drawn).tolist(), strict=True) if ok]
print(f"{len(drawn)} answers drawn (GRPO: {ROUNDS * WISHES * G}), {len(kept)} kept")


def rejection_step(net, step):
    return -answer_log_probs(net, world.batch(random.Random(step).choices(kept, k=WISHES * G))).mean()


paths["rejection sampling"] = tune(copy.deepcopy(imitator), rejection_step, ROUNDS, 1e-3, measure)
paths["DPO"] = dpo_curve
for name in ("exact judge", "rejection sampling", "DPO"):
    last = paths[name][-1]
    print("{:18s} true {reward:.3f}, KL {kl:.2f}, entropy {entropy:.2f} nats".format(name, **last))
print(
    f"{'imitator':18s} true {dpo_curve[0]['reward']:.3f}, KL 0.00, entropy {dpo_curve[0]['entropy']:.2f} nats"
)
run.record(rejection_reward=paths["rejection sampling"][-1]["reward"])

# %%
figure, axis = plotting.axes(width=6.2, height=3.3, dpi=85)
prices = torch.logspace(-1, 1, 30, dtype=torch.float64)[:, None]
best = torch.sigmoid(torch.logit(p, 1e-6) + 1 / prices)  # how often π* is right, for each price and wish
axis.plot([exact_kl(q, p) for q in best], best.mean(1), "k", linewidth=1, label="best possible, π*")
axis.plot(kl_n, seen, label="best-of-n", **plotting.style(6) | {"linestyle": "none"})
names = {"exact judge": "GRPO", "judge with a hole": "GRPO, judge with a hole"}
for index, (name, path) in enumerate(paths.items()):
    x, y = [row["kl"] for row in path], [row["reward"] for row in path]
    axis.plot(x, y, label=names.get(name, name), **plotting.style(index) | {"markersize": 4})
axis.set(xlabel="KL(π‖π_ref) on held-out wishes, nats", ylabel="true reward", ylim=(0, 1.02), xlim=(-0.1, 6))
axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
show(figure, "17_frontier")

# %% [markdown]
# *Figure: what each method pays in KL for its reward, along its training. Higher and further left is better. The black
# line is the best possible: $\pi^*$ of section 3 for every $\beta$, computed for each held-out wish from its $p$. The
# hacked policy leaves the picture to the right (Gao et al., 2023, call this overoptimisation).*
#
# **Observe.** Best-of-n is close to the best possible: for each wish it, too, weighs right answers up and changes nothing
# else. It stops at $\mathrm{KL} = \log(1/p)$, where all answers are right. Rejection sampling aims at the same point,
# since it imitates all right answers, and gets most of the way. In the stored run GRPO ends higher and pays several times
# the KL. Look at the entropy: it meets wishes in few ways. DPO, from its fixed pairs, ends where it began, far away. One
# seed, one rate each; section 11 has more. Two things favour the dull methods beyond the picture: rejection sampling may
# use its answers in more updates for nothing, and best of 4 beats all of them.
#
# ## 9 The loop of the articles
#
# One of the source articles promises that a feedback loop, which corrects the instructions by the output, "gradually
# improves" the accuracy. Lesson 00 wrote such a rule: of a few texts keep the one with the most passes on development
# inputs. We run it a thousand times in a world where we know the truth.
#
# In each round there is one rewrite of the instruction in use. Its true accuracy is that of the old text plus a change
# from $N(0, \tau^2)$ with $\tau = 0.05$: as often worse as better. A text is scored on $m = 20$ inputs; the better score
# stays. Two ways of book-keeping. *Remembered*: the old text keeps the score that it had when it was taken. *Fresh*: it
# is scored again in each round, on new inputs, beside the rewrite. That costs twice the inputs, so *remembered* also runs
# with 40. As a control, a coin decides: *random*.
#
# **Predict.** After 20 rounds: which way shows the highest score? Which way has the highest true accuracy?


# %%
def loops(rule, m=20, rounds=20, tau=0.05, start_at=0.5):
    """Mean over many loops, round by round: the score that the loop shows, and the true accuracy of its text."""
    g, n = torch.Generator().manual_seed(seed), run.budget.n_loops

    def passes(accuracy):
        return (torch.rand(n, m, generator=g) < accuracy[:, None]).double().mean(1)

    true = torch.full((n,), start_at, dtype=torch.float64)
    score, path = passes(true), []
    for _ in range(rounds):
        path.append((score.mean().item(), true.mean().item()))
        new = (true + tau * torch.randn(n, generator=g)).clamp(0, 1)
        new_score, old_score = passes(new), passes(true) if rule == "fresh" else score
        keep = torch.rand(n, generator=g) < 0.5 if rule == "random" else new_score > old_score
        true, score = torch.where(keep, new, true), torch.where(keep, new_score, old_score)
    return zip(*path, (score.mean().item(), true.mean().item()), strict=True)


# %%
figure, panels = plotting.axes(1, 2, width=3.8, height=2.9, dpi=85, sharey=True)
ways = {"remembered": 20, "remembered, 40": 40, "fresh": 20, "random": 20}
for index, (rule, m) in enumerate(ways.items()):
    shown_now, real = loops(rule, m)
    print(
        f"{rule:14s} shows {shown_now[-1]:.3f}, true {real[-1]:.3f}, optimism {shown_now[-1] - real[-1]:+.3f}"
    )
    for panel, values in zip(panels, (shown_now, real), strict=True):
        panel.plot(values, label=rule, **plotting.style(index) | {"markevery": 4})
    run.record(**{f"loop_{rule}": real[-1]})
for panel, title in zip(panels, ("the score that the loop shows", "the true accuracy"), strict=True):
    panel.set(title=title, xlabel="round", ylim=(0.4, 1))
panels[1].legend(fontsize=8)
show(figure, "17_loop")

# %% [markdown]
# *Figure: a thousand loops, means. Left, what a report would show. Right, what is true. The axis begins at `0.4`.*
#
# **Observe.** With remembered scores the loop *shows* the highest number, and that number is far from the truth. A lucky
# score is never measured again, so it stays, and shuts the door to better texts: the winner's curse. With 20 inputs the
# gain is about half of that with fresh inputs. With 40, at equal cost, it is nearly the same: then the harm is in the
# report, not in the text. Even the fresh loop's number is too high, since it is the larger of two. The truth needs a
# third look, on inputs that decided nothing.
#
# ## 10 A look at a real model
#
# A language model that nobody asked has preferences too: its log-probabilities. (This checkpoint was also tuned on some.)
# For items of social-iqa we make a pair of the right answer and a wrong one. Is the right one more probable? Two
# baselines: chance, and the rule *the longer answer wins*. (A sum over more tokens is smaller, so the sum leans the other
# way.)

# %%
decoder = models.load_decoder(device=run.device).float().eval()
items = list(tasks.load("social-iqa").splits["train"])[: run.budget.n_items]
pairs = [[f" {item['options'][k]}" for k in (item["answer"], item["answer"] - 1)] for item in items]
contexts = [f"{item['input']}\nAnswer:" for item in items]
found = scoring.option_log_probs(decoder, models.load_tokenizer("decoder"), contexts, pairs)
print(contexts[0], pairs[0])
rules = {"sum": [s.log_probs for s in found], "mean": [s.log_probs / s.tokens for s in found]}
rules["longer"] = [s.tokens.double() for s in found]
for name, values in rules.items():
    hits = sum((v[0] > v[1]).item() + 0.5 * (v[0] == v[1]).item() for v in values)
    share = intervals.wilson_interval(round(hits), len(values))
    print(
        f"{name:8s} {hits / len(values):.2f} of {len(values)} pairs in order [{share.low:.2f}, {share.high:.2f}]; chance 0.50"
    )
    run.record(**{f"real_{name}": hits / len(values)})
del decoder

# %% [markdown]
# **Observe.** By the sum the model is not told from chance, by the mean it looks as if it had a preference. Now read the
# third line: in these pairs the right answer is mostly the *longer* one, so the rule "the longer one wins" does as well
# as the mean. Length is the first thing to check in any set of preferences.
#
# ## 11 The experiments
#
# Three grids, in the same world, with claims that were written before the first run and wishes that no method has seen.
# One dot is one seed, the bar is their mean.
#
# **Predict.** Give each claim a verdict. DP1: the implicit reward orders held-out pairs as the judge does, and better at
# the end than early. DP4: DPO makes the *chosen* answers less probable. DP5: DPO beats tuning on the chosen answers. DP6:
# with shuffled preferences the gain is gone.

# %%
from instructlab_repro import lesson

print("verdicts:", lesson.words("DP1", "DP4", "DP5", "DP6"))
figure, panels = plotting.axes(1, 3, width=2.9, height=2.6, dpi=85, sharey=True)
lesson.dots(panels[0], "preferences", "reward", "reward")
lesson.dots(panels[1], "preferences", "kl", "KL, nats")
lesson.dots(panels[2], "preferences", "chosen_change", "log π of the chosen, change")
panels[2].axvline(0, color="grey", linestyle=":")
show(figure, "17_preferences")
lesson.folded("preferences", "DP1", "DP4", "DP5", "DP6")

# %% [markdown]
# **Observe.** *DP1 and DP4 supported, DP5 refuted, DP6 undecided.* DPO does what its loss says: the order of held-out
# pairs is learned, and both kinds of answers become less probable. But the *reward* does not follow. With $\beta = 0.1$,
# DPO ends where the base policy is, at a large KL. The dullest method, tuning on the chosen answers, has the highest
# reward and the smallest KL of all that were tuned, and (printed beside DP1) its log-ratios order the held-out pairs
# better than DPO's do. DP6 stays open for that reason: shuffled preferences do harm, but there was no gain to take away.
#
# Before you throw DPO away: here every chosen answer is *right*, so imitating it is all that is needed. Where the chosen
# answer is only the lesser evil, imitation learns the evil. And all runs make the same number of updates; in section 5
# DPO was better when it was stopped early.
#
# **Predict.** GR1: at equal samples and updates GRPO beats rejection sampling. RH1: paid by the judge with a hole, the
# policy gets more points and fewer right answers. RH2: a KL penalty of `0.3` keeps it from the hole.

# %%
print("verdicts:", lesson.words("GR1", "RH1", "RH2"))
figure, panels = plotting.axes(1, 3, width=2.9, height=2.6, dpi=85, sharey=True)
for panel, metric, title in zip(
    panels, ("reward", "points", "kl"), ("true reward", "points", "KL, nats"), strict=True
):
    lesson.dots(panel, "policy_gradient", metric, title)
show(figure, "17_policy_gradient")
lesson.folded("policy_gradient", "GR1", "RH1", "RH2")

# %% [markdown]
# **Observe.** *GR1 undecided, RH1 supported, RH2 refuted.* Both uses of the judge lift the reward far above the base
# policy. That GRPO is better than rejection sampling cannot be told with these seeds: the interval of the difference
# holds 0. What can be told is the price: GRPO pays more KL. And rejection sampling is sturdier: at the largest rate in
# tuning, GRPO collapsed on every seed, and it did not. The policy that is paid by the judge with a hole has no right
# answer left, on any seed. A KL penalty of `0.3` slows it down and does not hold it. (A penalty of `1`, printed beside
# the claim, does.) Mending the judge beats both.
#
# **The articles' loop**, claim C9. A frozen model knows some wordings of a wish well and others hardly, as a pre-trained
# model does. In each of ten rounds one part of the wording is rewritten at random, and lesson 00's rule decides on eight
# fresh items. **Predict.** Does accuracy rise? Does it go on rising?

# %%
print("verdict:", lesson.words("C9"))
spec, lines = lesson.experiment("feedback_loop"), lesson.results("feedback_loop")
parts = sorted({line["part"] for line in lines})
figure, panels = plotting.axes(1, 2, width=3.7, height=3.2, dpi=85)
for panel, metric in zip(panels, ("accuracy", "optimism"), strict=True):
    for index, method in enumerate(spec.methods):
        mine = [line for line in lines if line["method"] == method and metric in line]
        means = [[line[metric] for line in mine if line["part"] == x] for x in parts]
        if mine:
            y = [sum(values) / len(values) for values in means]
            look = plotting.style(index)
            panel.plot([10 * x for x in parts], y, label=spec.labels[method], **look | {"markersize": 4})
            panel.plot([10.6 + 0.4 * index] * len(means[-1]), means[-1], ".", color=look["color"], alpha=0.5)
    panel.set(
        xlabel="round", title={"accuracy": "right, fresh items", "optimism": "score minus that"}[metric]
    )
figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=7)
show(figure, "17_feedback_loop")
lesson.folded("feedback_loop", "C9")

# %% [markdown]
# *Figure: means over seeds; the dots on the right are the single seeds after the last round. Left, accuracy on items that
# decided nothing. Right, how far the score by which the text was kept lies above it.*
#
# **Observe.** *C9 supported*: the article's loop does improve, and it ends above "no rule" and "random rewrites". Read
# the small print too. The gain comes in the first rounds; over the last five no slope can be told from 0, as if eight
# items could not see the rest. With 32 items the loop gets further. The right panel is section 9 again: every loop's own
# score is too high, the remembered one by far. (In accuracy the remembered score did no harm that could be seen here.)
# And the world was made for the claim: some wordings are nearly unknown to the model. In a pilot where it knew all, the
# rule gained nothing.
#
# ## 12 What we have shown
#
# Printed from this run's record, so that the text cannot disagree with the numbers.

# %%
r = run.metrics
print(f"profile {run.profile}, seed {seed}")
parity = ", ".join(f"{name} {r[name.lower() + '_difference']:.0e}" for name in ("DPO", "IPO", "GRPO"))
print(f"largest difference to trl: {parity}")
print(
    f"held-out wishes met: imitator {r['imitator']:.3f}, best of 4 {r['best_of_4']:.3f}, DPO {r['dpo_reward']:.3f},",
    end=" ",
)
print(f"GRPO {r['grpo_reward']:.3f}, rejection sampling {r['rejection_reward']:.3f}")
print(
    f"DPO moved the chosen answers by {r['dpo_chosen']:+.2f} nats, the rejected ones by {r['dpo_rejected']:+.2f}"
)
print("verdicts:", lesson.words("DP1", "DP4", "DP5", "DP6", "GR1", "RH1", "RH2", "C9"))
print(f"paid by a judge with a hole: {r['hole_proxy']:.3f} points, true reward {r['hole_true']:.3f}")

# %% [markdown]
# **What we have not shown.**
#
# - Nothing about people. Our judge is a program: it does not get tired, and two of it agree.
# - Nothing about large models. A decoder of this size, one family of tasks, answers of a few tokens.
# - One seed in each live section. The experiments have ten or twelve.
# - Nothing about clipping: in the grid each batch is used once, so $\rho = 1$. And DPO was given one number of updates,
#   not the best one.
#
# **What should I do?**
#
# | you have | do | in trl |
# |---|---|---|
# | a judge at answer time, and patience | best-of-n; report a $p$ for each prompt, not one | – |
# | a judge that is a program | rejection sampling first; it is the baseline to beat | `SFTTrainer` on what was kept |
# | the same, and time | GRPO, groups of 8, watch a *true* reward | `GRPOConfig(num_generations=8, beta=0.0, epsilon=0.2)` |
# | pairs whose chosen answers are good | tune on the chosen answers first | `SFTTrainer` |
# | a fixed set of pairs | DPO; watch judged draws and the chosen | `DPOConfig(beta=0.1, precompute_ref_log_probs=True)` |
# | noisy pairs | IPO, or DPO that expects a share of errors | `loss_type=["ipo"]`; `["robust"]` with `label_smoothing` |
# | thumbs up or down, no pairs | KTO | `KTOConfig` |
# | little memory | LoRA: the reference is the LoRA off | `peft_config=LoraConfig(…)` |
# | no GPU | switch off what is on by default | `bf16=False, gradient_checkpointing=False, use_cpu=True` |
# | a loop that keeps winners | score old and new on fresh inputs, report a second, untouched set | – |
#
# **Recall.** Answer without scrolling.
#
# 1. Why is $1 - (1 - p)^n$ with the mean of $p$ too optimistic?
# 2. Where does $Z(x)$ go in the derivation of DPO, and which other quantity goes the same way?
# 3. The margin grows and the chosen answer becomes less probable. How can both be?
# 4. What does a baseline change: the mean of the policy gradient, its variance, or both?
# 5. You log $k_3$. May you also minimise it?
#
# <details><summary>Answers</summary>
#
# 1. The function is concave and prompts differ in $p$ (Jensen).
# 2. It is the same for both answers of a pair and cancels in the difference; so do the prompt's tokens.
# 3. The rejected answer falls faster. The loss sees only the difference; the probability goes to answers of neither kind.
# 4. Only the variance, as long as it does not depend on the answer.
# 5. You may, but its gradient is that of $\mathrm{KL}(\pi_{\text{ref}} \Vert \pi)$, unless it is multiplied by $\rho$.
#
# </details>
#
# **Exercises.** `notebooks/exercises/17_preferences.py`; `make classroom` builds the student version.
#
# **References.**
#
# - Azar, M. G., et al. (2024). A general theoretical paradigm to understand learning from human preferences. *AISTATS
#   2024*.
# - Beirami, A., et al. (2024). Theoretical guarantees on the best-of-n alignment policy. arXiv:2401.01879.
# - Bradley, R. A., and Terry, M. E. (1952). Rank analysis of incomplete block designs: I. The method of paired
#   comparisons. *Biometrika 39*.
# - Ethayarajh, K., et al. (2024). KTO: model alignment as prospect theoretic optimization. *ICML 2024*.
# - Gao, L., Schulman, J., and Hilton, J. (2023). Scaling laws for reward model overoptimization. *ICML 2023*.
# - Ouyang, L., et al. (2022). Training language models to follow instructions with human feedback. *NeurIPS 2022*.
# - Rafailov, R., et al. (2023). Direct preference optimization: your language model is secretly a reward model. *NeurIPS
#   2023*.
# - Schulman, J. (2020). Approximating KL divergence. A post on the author's own page.
# - Shao, Z., et al. (2024). DeepSeekMath: pushing the limits of mathematical reasoning in open language models.
#   arXiv:2402.03300.
# - Williams, R. J. (1992). Simple statistical gradient-following algorithms for connectionist reinforcement learning.
#   *Machine Learning 8*.
