# ---
# jupyter:
#   instructlab:
#     id: knowledge
#     title: Facts, passages, constrained answers and rules
#     outcome: one block of the grid behind claims C18, KG1, KG2, KG3 and RB2
#     assets: [smollm2, minilm, bigbench, bbc, vader]
#     minutes: {smoke: 0.8, laptop: 1.5, gpu: 0.5}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `knowledge`: one block
#
# Two ways to give a network knowledge from outside. A frozen decoder answers questions about a graph of facts (WebNLG) and
# about passages (SQuAD): from its weights alone, with what a search finds, with the right and with a wrong passage, and under
# a constraint that the graph gives. And linear heads on kept features of MiniLM learn yes-or-no outputs from few labels, with
# and without a rule in their loss. A block is one seed; each has test items of its own. The grid stands in
# `data/experiments/knowledge.toml`, the claims in `data/claims/`; lesson 24 explains the methods.
#
# Two stages. `tune` tries values for the heads, on seeds that the table does not use, and looks at dev texts. `run` takes the
# best and looks at test texts. The decoder is not tuned.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # questions, texts with a label

# %%
from functools import cache

from instructlab_repro import block as blocks
from instructlab_utils import answering, graphs, labels, reading, retrieval, rules, tasks

block = blocks.open_block("knowledge", profile, stage, seed=seed)
settings, seeds = block.settings, [int(each) for each in block.spec.axes["seed"]]
tiny = 1 + blocks.ROUNDING * (stage == "twin")

# %% [markdown]
# ## Heads
#
# Topics: exactly one of five bits. Ratings of films: not very bad, good, very good, each of which implies the one before it.
# The wrong rules say "exactly two of five", and the implications the other way round.

# %%
RULES = {
    "": ("topics", rules.exactly(5), rules.exactly(5, 2), settings.few),
    "_ratings": ("ratings", rules.chain(3), rules.chain(3).flip(1), settings.few_ratings),
}
drawn = cache(rules.texts)


def head(method, tuned, name):
    """What a line says of one head."""
    texts, allowed, wrong, few = RULES[name]
    sizes = (settings.dev, None) if block.tuning else (settings.test, tuple(seeds))
    x, y, new, right = drawn(texts, seed, settings.pool, *sizes)
    if method == "majority":
        shares = y[:few].bincount(minlength=len(allowed)).double() / few
        return labels.judged(lambda rows: shares.expand(len(rows), -1), new, right)
    if method == "softmax":
        return labels.judged(labels.fit_logistic(x[:few] * tiny, y[:few], tuned["C"]), new, right)
    how = {"seed": seed, "steps": settings.steps} | tuned
    fit, losses = rules.fit_arm(method, x * tiny, y[:few], allowed, wrong, **how)
    return rules.judged(fit(new), allowed, right) | {"first_loss": losses[0], "train_loss": losses[-1]}


# %% [markdown]
# ## Questions
#
# Of the graph: subjects with four objects or more, in our wording. Of the passages: SQuAD, by article; the wrong passage is
# the best of those in which no answer stands. All prompts of a kind are read once.


# %%
@cache
def model():
    net, tokenizer = blocks.decoder(block)
    if stage == "twin":
        blocks.nudge(net)
    return net, tokenizer


@cache
def of_graph_items():
    graph = graphs.webnlg()
    mine = graphs.own_questions(graph, settings.questions, seed, seeds)
    return answering.GraphQuestions(*model(), graph, mine, settings.facts, settings.most)


@cache
def passage_items():
    splits = tasks.load("squad").splits
    mine = list(tasks.disjoint(splits["test"], settings.rows, seed, seeds))
    return mine, *retrieval.choices(mine, [row for part in splits.values() for row in part])


# %% [markdown]
# ## Answers
#
# `facts_permuted` holds the answers of `facts` against another question's: a control. `chance` picks an object of the
# subject blindly.


# %%
def of_graph(method):
    items = of_graph_items()
    if method == "chance":
        chances = [1 / len(items.graph.reach(q.subject)) for q in items.questions]
        return {"exact": sum(chances) / len(chances)}
    arm = method.removesuffix("_permuted")
    right = items.right(items.answers(arm), int(arm != method))
    line = {"exact": sum(right) / len(right), "right_graph": right, "found_graph": items.found}
    return line | ({"log_right": items.log_right(arm)} if method in ("closed", "facts") else {})


def of_passages(method):
    rows, passages, found = passage_items()
    lines = passages.get(method, ())
    said, right, log_right = answering.with_passages(*model(), rows, lines, settings.most)
    given = zip(said, lines or [[""]] * len(said), strict=True)
    lists = {"right": right, "found": found, "sure": [answer.sure for answer in said]}
    lists["cited"] = [float(reading.cited(answer.text, line[0])) for answer, line in given]
    return {"exact_squad": sum(right) / len(right), "log_squad": log_right.mean().item()} | lists


# %% [markdown]
# ## Run

# %%
GRAPH = ("closed", "closed_entity", "facts", "facts_entity", "query", "facts_permuted", "chance")
SQUAD = ("closed", "retrieved", "gold", "wrong")
known = {trial.method: trial.tuned for trial in block.spec.trials(block.block)}
for trial in block.trials():
    method, like = trial.method, {"permuted": "no_rule", "wrong_rule": "rule"}.get(trial.method, trial.method)
    with block.run.measure() as cost:
        line = of_graph(method) if method in GRAPH else {}
        line |= of_passages(method) if method in SQUAD else {}
        for name in RULES if not line else ():
            found = head(method, trial.tuned or known[like], name)
            line |= {f"{key}{name}": value for key, value in found.items()}
    if block.tuning:
        line = {"dev_loss": (line["loss"] + line["loss_ratings"]) / 2, "dev_accuracy": line["accuracy"]}
    block.line(trial, cost, **{table.metric: None for table in block.spec.tables} | line)

# %% [markdown]
# ## What this block found

# %%
block.close("exact", "exact_squad", "accuracy", "violations", "dev_loss")
