# ---
# jupyter:
#   instructlab:
#     id: preferences
#     title: DPO, IPO and tuning on the chosen answers, from the same pairs
#     outcome: one block of the grid behind claims DP1, DP4, DP5 and DP6
#     assets: []
#     minutes: {smoke: 0.3, laptop: 1, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `preferences`: one block
#
# A small decoder answers wishes such as "rising length 4 from 2 to even" with digits, and a program judges. From pairs of its
# own answers, one right and one wrong, it learns in several ways. A block is one seed. The grid stands in
# `data/experiments/preferences.toml`, the claims in `data/claims/`; lesson 17 explains the methods.
#
# Two stages. `tune` tries learning rates, on seeds that the table does not use, and looks at dev wishes. `run` takes the best
# and looks at test wishes.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # wishes, demonstrations, first values, pairs

# %%
import copy
from statistics import mean

import torch

from instructlab_repro.block import nudge, open_block
from instructlab_utils import preferences, training, wishes

block = open_block("preferences", profile, stage, seed=seed)
settings = block.settings
world, generator = wishes.World(seed), torch.Generator().manual_seed(seed)
base = world.base(seed, steps=settings.base_steps, slip=settings.slip)
held_out = world.dev if block.tuning else world.test

# %% [markdown]
# ## Pairs
#
# Two answers to one wish, of which the judge accepts one. Held-out pairs are made in the same way, from other wishes.


# %%
def pairs_of(wanted):
    """(accepted, refused) answers of the base policy; those that the judge does not tell apart are dropped."""
    drawn = world.draw(base, [wish for wish in wanted for _ in range(2 * settings.draws)], generator)
    judged = [(wishes.right(a.wish, a.digits), a) for a in drawn]
    both = zip(judged[::2], judged[1::2], strict=True)
    return [(a, b) if x > y else (b, a) for (x, a), (y, b) in both if x != y]


def log_probs(net, answers):
    return preferences.answer_log_probs(net, world.batch(answers))


@torch.no_grad()
def both_log_probs(net, pairs):
    """(2, N): of the chosen answers, of the rejected ones."""
    return torch.stack([log_probs(net, side) for side in zip(*pairs, strict=True)])


pairs, test_pairs = pairs_of(world.train)[: settings.pairs], pairs_of(held_out)
reference, test_reference = both_log_probs(base, pairs), both_log_probs(base, test_pairs)
turned = torch.rand(len(pairs), generator=generator) < 0.5
print(f"{len(pairs)} pairs, {len(test_pairs)} held-out pairs")

# %% [markdown]
# ## What is measured
#
# Reward, KL divergence and entropy by drawing answers at temperature 1. The log-ratios on the held-out pairs, also on the
# way.


# %%
@torch.no_grad()
def look(net):
    drawn = world.draw(net, [wish for wish in held_out for _ in range(settings.answers)], generator)
    log_p = torch.tensor([answer.log_prob for answer in drawn])
    reward = sum(wishes.right(a.wish, a.digits) for a in drawn) / len(drawn)
    kl = (log_p - log_probs(base, drawn)).mean().item()
    return {"reward": reward, "kl": kl, "entropy": -log_p.mean().item()}


def look_at_pairs(net):
    """The share in the judge's order (a tie is half a one), and the mean changes of log-probability, chosen and rejected."""
    chosen, rejected = both_log_probs(net, test_pairs) - test_reference
    in_order = (chosen > rejected).double() + (chosen == rejected).double() / 2
    return [in_order.mean().item(), chosen.mean().item(), rejected.mean().item()]


# %% [markdown]
# ## The methods
#
# The rate rises over the first tenth of the updates and falls to 0. Gradients are clipped at norm 1.


# %%
def losses_of(method, net, rows):
    if method == "sft":
        return -log_probs(net, [pairs[i][0] for i in rows])
    now = log_probs(net, [pairs[i][0] for i in rows] + [pairs[i][1] for i in rows])
    chosen, rejected = (now - reference[:, rows].flatten()).chunk(2)
    if method == "shuffled":
        swap = turned[rows]
        chosen, rejected = torch.where(swap, rejected, chosen), torch.where(swap, chosen, rejected)
    loss = preferences.ipo_loss if method == "ipo" else preferences.dpo_loss
    return loss(chosen, rejected, settings.beta[method])


def tuned(method, learning_rate):
    """A tuned copy of the base, its losses, and the looks on the way: [update, share in order, chosen, rejected]."""
    net, found, on_the_way, order = copy.deepcopy(base), [], [], []
    if stage == "twin":
        nudge(net)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.0)
    shuffle = torch.Generator().manual_seed(seed)
    for step in range(settings.steps):
        if len(order) < settings.batch_size:
            order += torch.randperm(len(pairs), generator=shuffle).tolist()
        rows, order = order[: settings.batch_size], order[settings.batch_size :]
        rate = learning_rate * training.linear_schedule(step, settings.steps, settings.steps // 10)
        found.append(preferences.update(net, optimizer, losses_of(method, net, rows).mean(), rate))
        if (step + 1) % (settings.steps // settings.looks) == 0:
            on_the_way.append([step + 1, *look_at_pairs(net)])
    return net, found, on_the_way


# %% [markdown]
# ## Run

# %%
rates = {trial.method: trial.tuned.get("learning_rate") for trial in block.spec.trials(block.block)}
before = look(base)
for trial in block.trials():
    line = {"base_reward": before["reward"]}
    with block.run.measure() as cost:
        if trial.method == "base":
            found, last = before, [0, *look_at_pairs(base)]
        else:
            rate = rates["dpo"] if trial.method == "shuffled" else trial.tuned["learning_rate"]
            net, course, on_the_way = tuned(trial.method, rate)
            found, last = look(net), on_the_way[-1]
            line |= {"updates": settings.steps, "rate": rate, "on_the_way": on_the_way}
            line |= {"first_loss": mean(course[:5]), "train_loss": mean(course[-5:])}
            line["implicit_gain"] = last[1] - on_the_way[0][1]
            line["train_chosen_change"] = (both_log_probs(net, pairs)[0] - reference[0]).mean().item()
    line |= dict(zip(("implicit_accuracy", "chosen_change", "rejected_change"), last[1:], strict=True))
    gain, share = found["reward"] - before["reward"], found["entropy"] / before["entropy"]
    block.line(trial, cost, **found, gain=gain, entropy_share=share, **line)

# %% [markdown]
# ## What this block found

# %%
block.close("reward", "kl", "implicit_accuracy", "chosen_change")
