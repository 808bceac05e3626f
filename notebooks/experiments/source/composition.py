# ---
# jupyter:
#   instructlab:
#     id: composition
#     title: Programs of one to six steps, in words and in signs, at once and step by step
#     outcome: one block of the grid behind claims C7, C8, EX1, EX2 and EX3
#     assets: []
#     minutes: {smoke: 0.3, laptop: 2, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `composition`: one block
#
# A small language model, trained from scratch, executes programs on lists of four digits. Every program is given in two
# ways, in words (several wordings for each step) or in the signs of lesson 15's language, and executed in two ways: *at
# once*, where the model writes the result of the whole program, or *step by step*, where the engine hands it one step at a
# time and the model writes every intermediate list. One network does all four: same weights, same programs, same inputs.
#
# A block is one seed: one network and its own test items. Trained on one to three steps, tested on one to six. The grid
# stands in `data/experiments/composition.toml`, the claims in `data/claims/`; lesson 15 explains them.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # tune, run or twin
seed: int = 0  # first values, training programs and inputs, test programs and inputs

# %%
import random
from functools import cache

from instructlab_repro import block as blocks
from instructlab_utils import generation, programs, small
from instructlab_utils.programs import Step

block = blocks.open_block("composition", profile, stage, seed=seed)
settings = block.settings

# %% [markdown]
# ## Programs and inputs
#
# All steps keep the length of the list. A drawn item is kept only if each of its steps changes the list, so that the number
# of steps is no number on paper. Inputs with a digit sum that five divides are kept for dev and test.

# %%
shifts = [Step("map", bodies=((Step("add", k), Step("rest", settings.digits)),)) for k in (1, 2)]
STEPS = [Step("reverse"), Step("swap"), Step("sort"), *shifts]


def item(depth, rng, held_out):
    """A program, its input, and the list after each step."""
    while True:
        program = tuple(rng.choice(STEPS) for _ in range(depth))
        given = [rng.randrange(settings.digits) for _ in range(settings.length)]
        trail = [r for r in programs.run(program, given).records if r.depth == 0]
        if (sum(given) % 5 == 0) == held_out and all(r.before != r.after for r in trail):
            return program, given, [r.after for r in trail]


def told(method, program, rng):
    return programs.describe(program, rng.choice) if "natural" in method else programs.render(program)


def shown(numbers):
    return " ".join(map(str, numbers))


# %% [markdown]
# ## Tokens
#
# The vocabulary holds the words of both representations. A prompt is the instruction and the list between two signs.

# %%
texts = [*programs.JOINS, "= |", shown(range(10)), *(programs.render((step,)) for step in STEPS)]
texts += [text for wordings in programs.PHRASES.values() for text in wordings]
words = dict.fromkeys(word for text in texts for word in text.replace("{}", "").split())
tokenizer = small.word_tokenizer(list(words))
END, ids = tokenizer.eos_token_id, tokenizer.get_vocab()


def encoded(text):
    return [ids[word] for word in text.split()]


def example(instruction, given, result):
    before, after = encoded(f"{instruction} = {shown(given)} ="), [*encoded(shown(result)), END]
    return {"input_ids": before + after, "labels": [-100] * len(before) + after}


# %% [markdown]
# ## The network
#
# Half of the training examples are in words, half in signs; a third has one step, a third two, a third three. One network for
# each learning rate: all methods share it, and the dev loss that chooses the rate is the mean over both representations.

# %%
REPRESENTATIONS = ("natural", "symbolic")


def examples(n, draw, held_out):
    kinds = [(REPRESENTATIONS[i % 2], 1 + i // 2 % settings.trained) for i in range(n)]
    drawn = [(method, *item(depth, draw, held_out)) for method, depth in kinds]
    return [example(told(method, p, draw), given, trail[-1]) for method, p, given, trail in drawn]


train = examples(settings.examples, random.Random(f"{seed} train"), False)
dev = examples(settings.dev, random.Random(f"{seed} dev"), True)


@cache
def trained(learning_rate):
    """The network, what a line says of it, and its cost."""
    net = small.small_decoder(len(tokenizer), width=settings.width, window=128, std=settings.std, seed=seed)
    knobs = {"learning_rate": learning_rate, "objective": generation.causal_losses}
    net, line, cost = blocks.fit(block, net.to(block.run.device), train, 0, ends=20, **knobs)
    return net, line | {"dev_loss": net and blocks.completion_scores(net, dev, 0)["nll"]}, cost


# %% [markdown]
# ## Two ways to execute
#
# At once: one call. Step by step: a call for each step, with the list that the model wrote in the call before. A text that
# is no list of the right length is handed on all the same: the model must live with its own mistakes.


# %%
def answers(net, prompts):
    if net is None:  # its loss diverged
        return [""] * len(prompts)
    new, _ = small.sample(net, [encoded(p) for p in prompts], settings.length + 1, END, temperature=0)
    return [" ".join(tokenizer.convert_ids_to_tokens(row)) for row in new]


def executed(net, method, items, draw):
    """What the model writes at the end, and in how many items each list on the way is right."""
    now, right = [shown(given) for _, given, _ in items], [True] * len(items)
    depth = len(items[0][0])
    for first in range(depth) if "steps" in method else [0]:
        last = first + 1 if "steps" in method else depth
        steps = [told(method, p[first:last], draw) for p, *_ in items]
        now = answers(net, [f"{step} = {x} =" for step, x in zip(steps, now, strict=True)])
        right = [r and x == shown(t[last - 1]) for r, x, (*_, t) in zip(right, now, items, strict=True)]
    return now, sum(right) / len(right)


# %% [markdown]
# ## Run
#
# `power` is the d-th power of the accuracy on programs of one step, lesson 00's law. `accuracy_upto` is the mean over depths
# 1 to d. `copy` repeats the input, `last` executes only the last step: what can be right without execution.

# %%
sizes = {d: settings.singles if d == 1 else settings.items for d in block.spec.axes["depth"]}
draw = random.Random(f"{seed} test")
tests = {d: [item(d, draw, True) for _ in range(n)] for d, n in sizes.items()}
cells = [(line, *line["tuned"].values(), line["method"], line["depth"]) for line in block.lines()]
found = {tuple(cell): line["accuracy"] for line, *cell in cells}  # of a block that was interrupted
for trial in block.trials():
    method, depth, line, cost = trial.method, trial.inside["depth"], {}, None
    goal = [shown(trail[-1]) for *_, trail in tests[depth]]
    if method in ("copy", "last"):
        said = [shown(x if method == "copy" else programs.run(p[-1:], x).value) for p, x, _ in tests[depth]]
    else:
        net, line, cost = trained(**trial.tuned)
        said, all_right = executed(net, method, tests[depth], random.Random(f"{seed} {depth} {method[:7]}"))
        line = line | {"whole_trail": all_right}
    accuracy = sum(a == b for a, b in zip(said, goal, strict=True)) / len(goal)
    place = (*trial.tuned.values(), method)
    found[*place, depth] = accuracy
    power, upto = found[*place, 1] ** depth, [found[*place, d] for d in tests if d <= depth]
    line |= {"power": power, "above_power": accuracy - power, "accuracy_upto": sum(upto) / len(upto)}
    block.line(trial, cost if (method, depth) == ("natural", 1) else None, accuracy=accuracy, **line)

# %% [markdown]
# ## What this block found

# %%
block.close("dev_loss", "accuracy", "above_power")
