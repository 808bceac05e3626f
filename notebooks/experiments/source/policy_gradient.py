# ---
# jupyter:
#   instructlab:
#     id: policy_gradient
#     title: GRPO, REINFORCE and rejection sampling at equal samples, and a judge with a hole
#     outcome: one block of the grid behind claims GR1, RH1 and RH2
#     assets: []
#     minutes: {smoke: 0.3, laptop: 1, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `policy_gradient`: one block
#
# A small decoder answers wishes with digits, and a program judges every answer that it draws. Three methods learn from these
# rewards at equal samples and updates. Then the same on a judge with a hole. A block is one seed. The grid stands in
# `data/experiments/policy_gradient.toml`, the claims in `data/claims/`; lesson 17 explains the methods.
#
# Two stages. `tune` tries learning rates, on seeds that the table does not use, and looks at dev wishes. `run` takes the best
# and looks at test wishes.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # wishes, demonstrations, first values, draws

# %%
import copy
from statistics import mean

import torch

from instructlab_repro.block import nudge, open_block
from instructlab_utils import preferences, training, wishes

block = open_block("policy_gradient", profile, stage, seed=seed)
settings = block.settings
world, generator = wishes.World(seed), torch.Generator().manual_seed(seed)
base = world.base(seed, steps=settings.base_steps, slip=settings.slip)
held_out = world.dev if block.tuning else world.test

# %% [markdown]
# ## What is measured
#
# Everything by drawing answers at temperature 1 to wishes that no method was trained on.


# %%
@torch.no_grad()
def look(net, answers):
    """True reward, points of the judge with a hole, KL divergence from the base, entropy, digits too many."""
    drawn = world.draw(net, [wish for wish in held_out for _ in range(answers)], generator)
    log_p = torch.tensor([answer.log_prob for answer in drawn])
    before = preferences.answer_log_probs(base, world.batch(drawn))
    return {
        "reward": mean(wishes.right(a.wish, a.digits) for a in drawn),
        "points": mean(wishes.points(a.wish, a.digits) for a in drawn),
        "kl": (log_p - before).mean().item(),
        "entropy": -log_p.mean().item(),
        "too_long": mean(len(a.digits) - a.wish.length for a in drawn),
    }


# %% [markdown]
# ## The methods
#
# `drawn` gives the answers to one batch of wishes, those to one wish beside each other, and their rewards. The baseline of
# REINFORCE is a running mean of the rewards.


# %%
def drawn(net, judge, draws):
    places = torch.randperm(len(world.train), generator=draws)[: settings.prompts].tolist()
    wanted = [world.train[i] for i in places for _ in range(settings.group)]
    answers = world.draw(net, wanted, draws)
    return answers, torch.tensor([float(judge(a.wish, a.digits)) for a in answers])


def token_log_probs(net, batch):
    logits = net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return preferences.token_log_probs(logits, batch["labels"])


def losses_of(method, net, answers, rewards, baseline):
    batch, beta = world.batch(answers), settings.beta[method]
    log_p, mask = token_log_probs(net, batch)
    if method == "reinforce":
        return preferences.reinforce_loss(log_p.sum(1), rewards, baseline)
    with torch.no_grad():
        reference = token_log_probs(base, batch)[0] if beta else None
    gains = preferences.group_advantages(rewards.view(-1, settings.group)).flatten()
    tokens = preferences.grpo_loss(log_p, log_p.detach(), gains, reference=reference, beta=beta)
    return preferences.answer_mean(tokens, mask)


# %%
def rate_of(learning_rate, step):
    return learning_rate * training.linear_schedule(step, settings.steps, settings.steps // 10)


def tuned(method, learning_rate):
    """A tuned copy of the base, its mean reward in each draw, and the looks on the way."""
    net, found, on_the_way = copy.deepcopy(base), [], []
    if stage == "twin":
        nudge(net)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.0)
    draws, baseline = torch.Generator().manual_seed(seed), 0.5
    judge = wishes.points if method.startswith("hole") else wishes.right
    per_round, pool = settings.steps // settings.rounds, []
    for step in range(settings.steps):
        if method != "rejection":
            answers, rewards = drawn(net, judge, draws)
            loss = losses_of(method, net, answers, rewards, baseline).mean()
            baseline = 0.9 * baseline + 0.1 * rewards.mean().item()
            found.append(rewards.mean().item())
        else:
            if step % per_round == 0:
                rounds = [drawn(net, judge, draws) for _ in range(per_round)]
                found += [rewards.mean().item() for _, rewards in rounds]
                pool = [a for answers, rewards in rounds for a, r in zip(answers, rewards, strict=True) if r]
            chosen = torch.randint(len(pool), (settings.kept,), generator=draws).tolist()
            loss = -preferences.answer_log_probs(net, world.batch([pool[i] for i in chosen])).mean()
        preferences.update(net, optimizer, loss, rate_of(learning_rate, step))
        if (step + 1) % (settings.steps // settings.looks) == 0:
            on_the_way.append([step + 1, *look(net, max(settings.answers // 5, 1)).values()])
    return net, found, on_the_way


# %% [markdown]
# ## Run
#
# The loss that says whether a run trained is minus its judge's mean reward, in the first and in the last five draws.

# %%
rates = {trial.method: trial.tuned.get("learning_rate") for trial in block.spec.trials(block.block)}
before = look(base, settings.answers)
for trial in block.trials():
    line, found = {"base_reward": before["reward"]}, before
    with block.run.measure() as cost:
        if trial.method != "base":
            rate = trial.tuned.get("learning_rate", rates["grpo"])
            net, course, on_the_way = tuned(trial.method, rate)
            found = look(net, settings.answers)
            line |= {"updates": settings.steps, "rate": rate, "on_the_way": on_the_way}
            line |= {"first_loss": -mean(course[:5]), "train_loss": -mean(course[-5:])}
    gain, share = found["reward"] - before["reward"], found["entropy"] / before["entropy"]
    block.line(trial, cost, **found, gain=gain, entropy_share=share, **line)

# %% [markdown]
# ## What this block found

# %%
block.close("reward", "points", "kl", "too_long")
