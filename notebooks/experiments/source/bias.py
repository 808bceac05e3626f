# ---
# jupyter:
#   instructlab:
#     id: bias
#     title: A penalty on pairs that differ in one word, and its rivals
#     outcome: one block of the grid behind claims C20, SA1 and SA4
#     assets: [minilm, vader]
#     minutes: {smoke: 0.5, laptop: 0.3, gpu: 0.3}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `bias`: one block
#
# A linear head on kept features learns the sentiment of film sentences, and with it a bias that somebody planted: neutral
# sentences about a person whose label follows the person's group. A penalty asks for equal scores where only the group's word
# differs. How much of the gap is left for words and templates that training never saw, and what does it cost? A block is one
# seed. The grid stands in `data/experiments/bias.toml`, the claims in `data/claims/`; lesson 22 explains the methods.
#
# Two stages. `tune` tries weight decays, on seeds that the table does not use, and looks at dev sentences. `run` takes the
# best and looks at test sentences.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # order of the pool, halves of words and templates, planted labels

# %%
import torch

from instructlab_repro.block import ROUNDING, open_block
from instructlab_utils import fairness, features, tasks
from instructlab_utils.losses import cross_entropy

block = open_block("bias", profile, stage, seed=seed)
settings, seeds = block.settings, [int(each) for each in block.spec.axes["seed"]]
draw = torch.Generator().manual_seed(seed)

# %% [markdown]
# ## Film sentences and pairs
#
# Every list is encoded as a whole, whatever the seed, and kept on disk. Each seed has film sentences of its own to test on.

# %%
films = settings.films
pool, order, test, dev = features.split_pool("movie-sentiment", 3, seed, films["n_pool"])
rows = (
    tasks.subsample(dev, films["n_dev"], 0) if block.tuning else tasks.disjoint(test, films["n_test"], 0, [0])
)
moved = 1 + ROUNDING * (stage == "twin")
x, new_x = (features.mean_states(part["text"]) * moved for part in (pool, rows))
x, y, new_y = x[order], torch.tensor(pool["label"])[order], torch.tensor(rows["label"])
x, y = x[: settings.few], y[: settings.few]
n, at = (len(new_x), 0) if block.tuning else (len(new_x) // len(seeds), seeds.index(seed))
new_x, new_y = new_x[n * at : n * (at + 1)], new_y[n * at : n * (at + 1)]

suite = fairness.load()
words = [word for pair in suite.pairs for word in pair] + ["person"]
filled = [(t, word, t.replace(fairness.PLACE, word)) for t in suite.templates for word in words]
states = features.mean_states([text for _, _, text in filled]) * moved
vector = {text: v for (_, _, text), v in zip(filled, states, strict=True)}
blank = {text: t.replace(fairness.PLACE, "person") for t, _, text in filled}
learn, held_out = fairness.halves(suite, seed)
(a, b), (new_a, new_b) = (
    [torch.stack([vector[pair[side]] for pair in part]) for side in (0, 1)] for part in (learn, held_out)
)
print(f"{len(x)} films, {len(learn)} pairs; to test: {len(new_x)} films, {len(held_out)} pairs")

# %% [markdown]
# ## The planted labels

# %%
chosen = torch.randperm(len(learn), generator=draw)[: settings.reports]
second = torch.rand(len(chosen), generator=draw) < 0.5  # whose word stands in the sentence
follows = torch.rand(len(chosen), generator=draw) < settings.follows
planted = torch.where(follows, second, ~second).long()
coin = (torch.rand(len(chosen), generator=draw) < 0.5).long()
said = torch.where(second[:, None], b[chosen], a[chosen])
other = torch.where(second[:, None], a[chosen], b[chosen])
without = torch.stack([vector[blank[learn[i][0]]] for i in chosen.tolist()])
mixed = torch.randperm(len(a), generator=draw)

# %% [markdown]
# ## The methods


# %%
def head(method, decay):
    """The head's weights, bias and losses."""
    reports, labels = said, planted
    if method in ("natural", "natural_penalty"):
        reports, labels = said[:0], planted[:0]
    elif method == "unbiased":
        labels = coin
    elif method == "swapped":
        reports, labels = torch.cat([said, other]), torch.cat([planted, planted])
    elif method == "blind":
        reports = without
    pairs = (a, a[mixed]) if method == "same_group" else (a, b)
    strength = settings.strengths.get(method, 0.0)
    return fairness.fit_fair(torch.cat([x, reports]), torch.cat([y, labels]), decay, *pairs, strength)


# %% [markdown]
# ## Run
#
# A majority class has one score for all texts: its gap has no scale, and no pair has two verdicts.

# %%
decays = {trial.method: trial.tuned.get("decay") for trial in block.spec.trials(block.block)}
for trial in block.trials():
    method, line = trial.method, {}
    with block.run.measure() as cost:
        if method == "majority":
            s, line = torch.full((len(new_x),), y.double().mean().logit().item()).double(), {"flips": 0.0}
        else:
            w, bias, losses = head(method, trial.tuned.get("decay") or 10 * decays["plain"])
            s, s_a, s_b = (part.double() @ w + bias for part in (new_x, new_a, new_b))
            line = {
                "gap": fairness.gap(s_a, s_b, s),
                "flips": ((s_a > 0) != (s_b > 0)).double().mean().item(),
            }
            line |= {
                "signed": ((s_b - s_a).mean() / s.std()).item(),
                "penalty": fairness.pair_penalty(s_a, s_b).item(),
            }
            line |= {"first_loss": losses[0], "train_loss": losses[-1]}
    z = torch.stack([torch.zeros_like(s), s], 1)
    line |= {"accuracy": ((s > 0) == (new_y > 0)).double().mean().item()}
    line |= {"loss": cross_entropy(z, new_y).mean().item()}
    if block.tuning:
        line |= {"dev_loss": line.pop("loss"), "dev_accuracy": line.pop("accuracy")}
    else:
        line |= {"predictions": (s > 0).long().tolist(), "targets": new_y.tolist()}
    missing = {} if block.tuning else {table.metric: None for table in block.spec.tables}
    block.line(trial, cost, **missing | line)

# %% [markdown]
# ## What this block found

# %%
block.close("gap", "accuracy", "flips", "dev_loss")
