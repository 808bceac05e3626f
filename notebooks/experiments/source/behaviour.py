# ---
# jupyter:
#   instructlab:
#     id: behaviour
#     title: What accuracy hides, and how strict an attack is
#     outcome: one block of the grid behind claims CK1 and TF2
#     assets: [minilm, vader]
#     minutes: {smoke: 0.5, laptop: 2, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `behaviour`: one block
#
# The first three layers of MiniLM learn the sentiment of tweets. Then they are examined: by the suite of behavioural tests in
# `data/suites/sentiment.toml`, by typos and look-alikes, on films and products, and by an attack that exchanges words under
# three thresholds of similarity. A block is one seed. The grid stands in `data/experiments/behaviour.toml`, the claims in
# `data/claims/`; lesson 19 explains the methods.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # tweets, order of batches, dropout, fillings of the templates

# %%
import random
from functools import cache
from statistics import mean

import torch

from instructlab_repro.block import fit, open_block, sentences
from instructlab_utils import augmentation, checklist, models, robustness, tasks, training

block = open_block("behaviour", profile, stage, seed=seed)
settings = block.settings
data = sentences(block, "tweet-sentiment")
seeds = [int(s) for s in block.spec.axes["seed"]] + [int(s) for s in settings.tuning_seeds]
suite, number = checklist.load("data/suites/sentiment.toml"), seeds.index(seed)
filled = checklist.cases(suite, settings.fillings, number)

# %% [markdown]
# ## Training
#
# `negations` learns seventy-eight more sentences: the suite's templates of negation with fillings that no seed is tested on.


# %%
@cache
def trained(method, rate):
    examples = data.examples["train"]
    if method == "negations":
        more = checklist.cases(suite, settings.taught, settings.taught_number)
        rows = [
            {"text": c.text, "label": suite.labels.index(c.label)}
            for c in more
            if c.test.capability == "negation"
        ]
        examples = examples + training.encode(rows, data.tokenizer, settings.max_length)
    net = robustness.ShortEncoder(layers=settings.layers).to(block.run.device)
    return fit(block, net, examples, data.pad_id, learning_rate=rate)


rates = {trial.method: trial.tuned.get("learning_rate") for trial in block.spec.trials(block.block)}

# %% [markdown]
# ## Examination
#
# `over` is the mean probability of the predicted label minus the accuracy: what the model believes too much.


# %%
def looked(net, rows, change=None):
    """Accuracy and overconfidence on the rows, each text changed first."""
    rows = [{"text": r["text"], "label": r["label"]} for r in rows]
    if change:
        rows = [r | {"text": checklist.CHANGES[change](r["text"], random.Random(r["text"]))} for r in rows]
    p = training.predict(
        net, training.encode(rows, data.tokenizer, settings.max_length), data.pad_id
    ).softmax(1)
    right = (p.argmax(1) == torch.tensor([r["label"] for r in rows])).double().mean().item()
    return right, p.amax(1).double().mean().item() - right


def examined(net):
    read = checklist.by_text(checklist.reader(net, data.tokenizer, settings.max_length))
    found = checklist.rates(filled, checklist.failures(suite, filled, read))
    line = {f"fails_{capability.replace(' ', '_')}": rate for (capability, _), rate in found.items()}
    if block.tuning:
        return line
    for change in ("typo", "lookalike"):
        line[f"accuracy_{change}"] = looked(net, data.rows["test"], change)[0]
    line["over_tweets"] = looked(net, data.rows["test"])[1]
    for name in ("movie", "product"):
        test = tasks.load(f"{name}-sentiment").splits["test"]
        own = tasks.disjoint(test, settings.shifted, seed, seeds)
        line[f"accuracy_{name}"], line[f"over_{name}"] = looked(net, own)
    return line


# %% [markdown]
# ## The attack
#
# On tweets that the model reads rightly. `least` is the smallest cosine between the embeddings that the untouched MiniLM
# gives the original and the changed tweet.


# %%
@cache
def tools():
    encoder, rows = models.load_encoder(), data.rows["test"].select(range(settings.attacked))
    words = [augmentation.words_of(text) for text in rows["text"]]
    table = encoder.get_input_embeddings().weight.detach()
    near = checklist.neighbours(table, data.tokenizer, {w for s in words for w in s}, settings.k)
    return words, rows["label"], near, checklist.similarity(encoder, data.tokenizer, 64)


def attacked(net, least):
    words, labels, near, similar = tools()
    read = checklist.reader(net, data.tokenizer, settings.max_length)
    how = {"share": settings.share, "similar": similar if least > -1 else None, "least": least}
    tried = [robustness.word_attack(w, y, read, near, **how) for w, y in zip(words, labels, strict=True)]
    done = [a for a in tried if not a.flipped or a.changed]  # read rightly before
    found = {"success": mean([float(a.flipped) for a in done] or [0.0])}
    found |= {"queries": mean([float(a.queries) for a in done] or [0.0])}
    return found | {"attacked": mean(float(not a.flipped) for a in tried)}


# %% [markdown]
# ## Run

# %%
nothing = dict.fromkeys(["success", "queries", *("accuracy", "fails_negation")[: 2 * (not block.tuning)]])
for trial in block.trials():
    method, rate = trial.method, trial.tuned.get("learning_rate", rates["plain"])
    if method == "majority":
        block.line(trial, None, **nothing | data.fields(data.logits(None, *block.splits)))
        continue
    net, line, cost = trained("negations" if method == "negations" else "plain", rate)
    if method in settings.least:
        block.line(trial, None, **nothing | attacked(net, settings.least[method]))
    else:
        line = nothing | line | data.fields(data.logits(net, *block.splits)) | examined(net)
        block.line(trial, cost, **line)

# %% [markdown]
# ## What this block found

# %%
block.close("accuracy", "fails_negation", "success")
