# ---
# jupyter:
#   instructlab:
#     id: distillation
#     title: Soft labels, hard labels, and a smoothed teacher, for a student without a layer
#     outcome: one block of the grid behind claims KD1 and KD3
#     assets: [minilm, bbc]
#     minutes: {smoke: 0.5, laptop: 0.5, gpu: 0.3}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `distillation`: one block
#
# A teacher reads news with six frozen layers of MiniLM; a student has only the word vectors. Few articles have a label. What
# does the student learn from the labels, from the labels that the teacher names, and from the teacher's probabilities? A
# block is one seed. The grid stands in `data/experiments/distillation.toml`, the claims in `data/claims/`; lesson 25
# explains the methods.
#
# Two stages. `tune` tries decays and temperatures, and looks at dev articles. `run` takes the best, and test articles.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # which articles have a label, first values

# %%
import torch

from instructlab_repro.block import ROUNDING, open_block
from instructlab_utils import distilling, features, losses, models, tasks

block = open_block("distillation", profile, stage, seed=seed)
settings, draw = block.settings, torch.Generator().manual_seed(seed)

# %% [markdown]
# ## Articles
#
# The pool in the seed's order: the first have labels. While tuning, the dev split takes the place of the test articles. The
# features of a rounding twin are moved a little.

# %%
few, sizes = settings.few, settings.topics
pool, order, test, dev = features.split_pool("bbc-topics", 2, seed, sizes["n_pool"])
held = (
    tasks.subsample(dev, sizes["n_dev"], 0) if block.tuning else tasks.disjoint(test, sizes["n_test"], 0, [0])
)
y, test_y = torch.tensor(pool["label"])[order], torch.tensor(held["label"])
encoder, tokenizer = models.load_encoder(), models.load_tokenizer("encoder")


def seen(part):
    """What the student sees of these texts, and what the teacher sees: (N, d) each."""
    words = features.pooled(*features.lower_states(encoder, tokenizer, part["text"], 0))
    return [each * (1 + ROUNDING * (stage == "twin")) for each in (words, features.mean_states(part["text"]))]


(words, states), (test_words, test_states) = ((each for each in seen(part)) for part in (pool, held))
words, states, classes = words[order], states[order], int(y.max()) + 1
print(f"{few} labelled articles, {len(y) - few} without a label, {len(held)} to look at")

# %% [markdown]
# ## Two teachers
#
# Trained on the labelled articles, with and without label smoothing; `told` holds their logits for the others.


# %%
def taught(smoothing):
    net = distilling.network(states.shape[1], settings.hidden, classes, seed)
    knobs = {"rate": settings.teacher_rate, "decay": settings.teacher_decay, "steps": settings.steps}
    distilling.learn(net, states[:few], y[:few], smoothing=smoothing, **knobs)
    return net.requires_grad_(False)


teachers = {"teacher": taught(0.0), "teacher_smooth": taught(settings.smoothing)}
told = {name: net(states[few:]) for name, net in teachers.items()}

# %% [markdown]
# ## Students


# %%
def student(method, tuned):
    """A student's logits of the held-out articles, and the losses of its training."""
    net, rows = distilling.network(words.shape[1], 0, classes, seed), few
    kept = {"rate": settings.rate, "steps": settings.steps, "decay": tuned["decay"]}
    if method == "all_labels":
        rows = len(y)
    elif method == "pseudo":
        kept |= {"pool": words[few:], "told": told["teacher"].argmax(1)}
    elif method != "hard":
        said = told["teacher_smooth" if method == "soft_smooth" else "teacher"]
        said = said[torch.randperm(len(said), generator=draw)] if method == "permuted" else said
        kept |= {"pool": words[few:], "told": said, "temperature": tuned["temperature"]}
    found = distilling.learn(net, words[:rows], y[:rows], **kept)
    return net(test_words).detach(), found


# %% [markdown]
# ## Run

# %%
known = {trial.method: trial.tuned for trial in block.spec.trials(block.block)}
for trial in block.trials():
    method, line, found = trial.method, {}, None
    with block.run.measure() as cost:
        if method == "majority":
            z = torch.bincount(y[:few], minlength=classes).double().log().repeat(len(held), 1)
        elif method in teachers:
            z = teachers[method](test_states)
            line["told_most"] = told[method].softmax(1).amax(1).mean().item()
        else:
            tuned = trial.tuned or known["soft"]
            at = {"temperature": float(method[1:])} if method[1:].isdigit() else {}
            z, found = student(method, tuned | at)
    line |= {"loss": losses.cross_entropy(z, test_y).mean().item()}
    line |= {"accuracy": (z.argmax(1) == test_y).double().mean().item()}
    if block.tuning:
        line = {"dev_loss": line["loss"], "dev_accuracy": line["accuracy"]}
    else:
        line |= {"predictions": z.argmax(1).tolist(), "targets": test_y.tolist()}
        line |= {"first_loss": found[0], "train_loss": found[-1]} if found else {}
    block.line(trial, cost, **{table.metric: None for table in block.spec.tables} | line)

# %% [markdown]
# ## What this block found

# %%
block.close("accuracy", "loss", "dev_loss")
