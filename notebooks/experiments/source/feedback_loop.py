# ---
# jupyter:
#   instructlab:
#     id: feedback_loop
#     title: A loop that rewrites instructions by the score of the answers
#     outcome: one block of the grid behind claim C9
#     assets: []
#     minutes: {smoke: 0.2, laptop: 0.6, gpu: 1}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Experiment `feedback_loop`: one block
#
# The rule of lesson 00, for many rounds: an instruction is rewritten, and the rewrite is kept if its answers score better on
# a few development items. The model is frozen and knows some wordings better than others. What counts is measured on fresh
# items in every round. A block is one seed. The grid stands in `data/experiments/feedback_loop.toml`, the claim in
# `data/claims/C9.toml`; lesson 17 discusses it.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
stage: str = "run"  # there is nothing to tune
seed: int = 0  # which wordings are rare, demonstrations, first values, rewrites, items

# %%
import random
from statistics import mean

import torch

from instructlab_repro.block import fit, open_block
from instructlab_utils import generation, preferences, small, wishes

block = open_block("feedback_loop", profile, stage, seed=seed)
settings = block.settings
tokenizer = small.word_tokenizer([*wishes.WORDS, *wishes.MORE_WORDS])
ids = {word: tokenizer.convert_tokens_to_ids(word) for word in (*wishes.WORDS, *wishes.MORE_WORDS)}
digit = {ids[str(d)]: d for d in range(10)}

# %% [markdown]
# ## A model that knows some wordings better
#
# Demonstrations without mistakes. Which of the three wordings of a part is frequent, the seed decides.

# %%
rng = random.Random(seed)
frequency = [rng.sample(settings.shares, 3) for _ in wishes.WORDINGS]


def prompt(wish, wording):
    return [ids[word] for word in wishes.worded(wish, wording).split()]


def shown():
    wish = rng.choice(wishes.wishes())
    wording = tuple(rng.choices(range(3), shares)[0] for shares in frequency)
    return prompt(wish, wording), [ids[str(d)] for d in wishes.demonstration(wish, 0.0, rng)]


prompts, answers = zip(*(shown() for _ in range(settings.rows)), strict=True)
examples = preferences.answer_examples(prompts, answers, tokenizer.eos_token_id, wishes.LONGEST)
model = small.small_decoder(len(tokenizer), window=16, seed=seed)
knobs = {"learning_rate": settings.learning_rate, "objective": generation.causal_losses}
model, trained, training_cost = fit(block, model, examples, 0, **knobs)
print(trained)

# %% [markdown]
# ## Instructions and their score
#
# An instruction is the list of its wishes, one for each first digit that is possible; an item is one of them and an answer.

# %%
instructions = {}
for wish in wishes.wishes():
    instructions.setdefault((wish.order, wish.length, wish.parity), []).append(wish)
instructions = [group for group in instructions.values() if len(group) >= 3]
generator = torch.Generator().manual_seed(seed)


def scores(wordings, items):
    """The share of right answers for each instruction, in its wording, on ``items`` fresh ones."""
    wanted = [rng.choice(group) for group in instructions for _ in range(items)]
    texts = [prompt(w, wordings[i // items]) for i, w in enumerate(wanted)]
    new, _ = small.sample(model, texts, wishes.LONGEST, tokenizer.eos_token_id, generator=generator)
    right = [wishes.right(w, [digit.get(i, -1) for i in y]) for w, y in zip(wanted, new, strict=True)]
    return [mean(right[i : i + items]) for i in range(0, len(right), items)]


# %% [markdown]
# ## The loop
#
# All methods begin with the same wordings.


# %%
def rewritten(wording):
    """The wording with one of its four parts said otherwise."""
    place = rng.randrange(4)
    other = (wording[place] + rng.choice((1, 2))) % 3
    return (*wording[:place], other, *wording[place + 1 :])


def loop(method, texts):
    """Accuracy on fresh items before the first round and after each, and the score by which the text was kept."""
    n = settings.dev.get(method, 0)
    known = scores(texts, n) if n else [0.0] * len(texts)
    found = [(mean(scores(texts, settings.items)), mean(known))]
    for _ in range(settings.rounds):
        drafts = [rewritten(text) for text in texts]
        if n:
            new = scores(drafts, n)
            old = known if method == "remembered" else scores(texts, n)
            better = [a > b for a, b in zip(new, old, strict=True)]
            known = [max(pair) for pair in zip(new, old, strict=True)]
        else:
            better = [method == "random"] * len(texts)
        texts = [b if keep else a for a, b, keep in zip(texts, drafts, better, strict=True)]
        found.append((mean(scores(texts, settings.items)), mean(known)))
    return found


# %% [markdown]
# ## Run

# %%
first = [tuple(rng.randrange(3) for _ in range(4)) for _ in instructions]
print(f"{len(instructions)} instructions; the first is {wishes.worded(instructions[0][0], first[0])!r}")
courses, costs = {}, {}
for trial in block.trials():
    method, place = trial.method, round(trial.inside["part"] * settings.rounds)
    if method not in courses:
        with block.run.measure() as costs[method]:
            courses[method] = loop(method, first)
    accuracy, score = courses[method][place]
    line = {"optimism": score - accuracy} if method in settings.dev else {}
    block.line(trial, costs[method], accuracy=accuracy, instructions=len(instructions), **line, **trained)

# %% [markdown]
# ## What this block found

# %%
block.close("accuracy", "optimism")
