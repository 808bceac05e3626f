# ---
# jupyter:
#   instructlab:
#     id: "15"
#     title: The instruction engine
#     outcome: run instructions as checked programs with a trail, and let a model write only what a grammar allows
#     assets: [smollm2, minilm, bigbench]
#     minutes: {smoke: 1, laptop: 4, gpu: 3}
#     class_minutes: 180
#     budget:
#       steps: {smoke: 6, laptop: 1400, gpu: 3000}
#       batch: {smoke: 16, laptop: 32, gpu: 64}
#       n_train: {smoke: 96, laptop: 12000, gpu: 40000}
#       n_test: {smoke: 8, laptop: 200, gpu: 1000}
#       soft_steps: {smoke: 3, laptop: 300, gpu: 400}
#       n_prefixes: {smoke: 100, laptop: 1000, gpu: 3000}
#       n_requests: {smoke: 3, laptop: 12, gpu: 12}
#       n_calls: {smoke: 2, laptop: 8, gpu: 8}
#       n_dev: {smoke: 20, laptop: 112, gpu: 112}
#       n_route: {smoke: 30, laptop: 147, gpu: 147}
#       n_functions: {smoke: 2, laptop: 8, gpu: 8}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 15 The instruction engine
#
# **The question.** A language model answers your instruction in fluent sentences. How do you know that it *did* what you
# asked? In this lesson an instruction becomes a *plan*: a small program that can be checked before it runs, that leaves a
# trail, and that is stopped when it goes too far. You write the language, its parser and its executor. You train a small
# model that follows such plans, and see how it fails as the plans grow. You force a real model to write nothing but valid
# plans, and ask what validity is worth.
#
# | | |
# |---|---|
# | before this | lesson 00 (instructions, $p^d$), lesson 06 (decoding), lesson 10 (soft prompts), lesson 14 (chat format) |
# | time | smoke: about a minute · laptop: about four minutes on one core · gpu: not measured yet |
# | memory | under 3 GB |
# | models | a decoder of a tenth of a million weights, trained here; SmolLM2-135M-Instruct (4-bit, de-quantised); MiniLM |
# | data | our own programs; BIG-bench: `intent_recognition` (7 intents, after SNIPS), 8 `list_functions` (Rule, 2020) |
# | box of lesson 00's chain | *make executable* and *run* |
#
# **You will be able to**
#
# - *write* a recursive-descent parser whose errors name a column, and an executor with types, limits and a trail;
# - *derive* accuracy against depth, and *say* when $p^d$ is too pessimistic or too optimistic;
# - *train* a model on words, symbols or soft instructions, with or without intermediate states;
# - *compute* the tokens that a grammar allows, equal to a library, multi-character tokens included;
# - *tell* validity from meaning, repair from resampling, and a program that fits the examples from one that is right;
# - *route* requests to instructions, and refuse where the nearest one is too far.

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
seed: int = 0  # programs drawn, first values, order of batches, samples
learning_rate: float = 3e-3  # peak of the schedule for the small decoder

# %%
import functools
import itertools
import json
import random
import re
from collections import Counter

import numpy as np
import torch
from torch.nn import functional as F

from instructlab_utils import (
    cache,
    chat,
    expect_error,
    generation,
    intervals,
    models,
    plotting,
    programs,
    small,
    start,
    tasks,
    training,
)
from instructlab_utils.errors import ProgramError

run = start("15", profile=profile, seed=seed)
rng = random.Random(seed)
show = functools.partial(plotting.show, run)

# %% [markdown]
# ## 1 Ask, and look
#
# The task needs no knowledge. *Reverse the list 3 1 4 1 5, then keep the first two numbers.*
#
# **Predict.** Will a chat model with 135 million weights get it right? Will you *see* from its answer where it went wrong?

# %%
tokenizer = models.load_tokenizer("decoder")
decoder = models.load_decoder(device=run.device).float().requires_grad_(False)


def ask(requests, max_new_tokens=32):
    """What the chat model answers, greedily, all requests at once."""
    texts = [chat.chat_text(tokenizer, [{"role": "user", "content": r}], True) for r in requests]
    prompts = [tokenizer(text)["input_ids"] for text in texts]
    return [
        tokenizer.decode(i)
        for i in generation.greedy(decoder, prompts, max_new_tokens, tokenizer.eos_token_id)
    ]


tool = 'Answer with one JSON object such as {"name": "get_weather", "arguments": {"city": "Paris"}} and nothing else. '
requests = [
    "Reverse the list 3 1 4 1 5, then keep the first two numbers. Answer with the numbers only.",
    "Reverse the list [3, 1, 4, 1, 5]. Answer with the list only.",
    tool + "Request: How warm is it in Lima?",
]
for request, answer in zip(requests, ask(requests), strict=True):
    print(f"{request}\n    → {answer!r}\n")

# %% [markdown]
# **Observe.** (Greedy decoding: the answers are the same in every profile.) The lists are wrong, one step alone is
# wrong as well, and the JSON object is a sentence about the weather. Nothing in the text says *which step* failed, or
# that anything did. A larger model is right more often. Its answer has the same shape: there is nothing in it to check.
#
# Now the same instruction as a *program*.

# %% tags=["nbval-check-output"]
program = programs.parse("reverse | take 2 | map ( add 1 )")
trace = programs.run(program, [3, 1, 4, 1, 5])
for record in trace.records:
    print(
        f"column {record.at:2}  {'  ' * record.depth}{record.step:16} {record.before!s:16} → {record.after}"
    )
print("value:", trace.value)

# %% [markdown]
# **Observe.** Each line is one step: where it stands in the text, what it got, what it gave. You can audit it with a
# pencil. This is what one of [the source articles](00_instruction_set.ipynb) asks for when it maps an instruction to an
# executable one, $I \to I_{\text{exec}}$, and promises that intermediate states are generated "dynamically". It shows no
# such program. Here is one, with all the stations between.

# %%
text = "if length > 2 then ( take 2 | sum ) else ( sum )"
(step,) = programs.parse(text)
then, otherwise = map(programs.render, step.bodies)
trail = programs.run((step,), [3, 1, 4]).records
stations = {
    "text": (text, ""),
    "tokens": (" ".join(f"{t.text}@{t.at}" for t in programs.tokens(text) if t.text), "an unknown character"),
    "tree": (
        f"if ── {step.measure} {step.test} ── then: {then}\n   └─ else: {otherwise}",
        "what cannot stand here",
    ),
    "types": (
        f"list → [ list → list → number  or  list → number ] → {programs.check((step,))}",
        "types that do not fit",
    ),
    "trail": (
        "\n".join(
            f"{'  ' * r.depth}{r.before} → {r.after}   {r.step if len(r.step) < 12 else 'if …'}"
            for r in trail
        ),
        "a limit, an empty list",
    ),
}
figure, axis = plotting.axes(width=6.8, height=3.9, dpi=72)
for i, (name, (shown, refused)) in enumerate(stations.items()):
    axis.text(0.01, -i, name, weight="bold", va="center")
    axis.text(
        0.13, -i, shown, family="monospace", fontsize=6.5, va="center", bbox=dict(fc="white", ec="black")
    )
    if i:
        axis.annotate("", (0.04, -i + 0.3), (0.04, -i + 0.75), arrowprops=dict(arrowstyle="->"))
        axis.text(0.06, -i + 0.52, f"refuses {refused}", fontsize=7, style="italic", va="center")
axis.set(xlim=(0, 1), ylim=(-4.5, 0.4))
axis.axis("off")
show(figure, "15_stations")

# %% [markdown]
# **Figure.** From text to trail (`take@22`: the token begins in column 22). Between two stations stands what the arrow
# *refuses*. Each refusal happens before the next
# station is reached: no step runs in a program whose types do not fit.
#
# | letter | meaning |
# |---|---|
# | $I$, $I_{\text{exec}}$ | an instruction in words; the program that it becomes |
# | $x$; $s_0, \dots, s_d$ | the input; the states between the steps, $s_0 = x$ |
# | $d$; $p$ | the depth of a program, its number of steps; the probability that one step is right |
# | $E$, $e_w$ | the embedding matrix of the small model; its row for token $w$ |
# | $c_k$ | a *soft instruction*: the trained vector in place of the words of step $k$ |
# | $q$; $A(q)$ | a state of the grammar's automaton; the tokens that may come next there |
# | $p(\cdot)$, $p'(\cdot)$ | a model's distribution of the next token; the same under a mask |
# | $L$; $\eta$; $y_t$ | a loss; a learning rate; the $t$-th token of the answer |
# | $m$ | the probability that a model gives to $A(q)$: what a mask keeps |
# | $u$, $v_r$ | the embedding of a request; of instruction $r$ |
# | $\tau$ | the threshold below which a request is refused |
#
# ## 2 The language
#
# ```
# program = step { "|" step }
# step    = NAME [ NUMBER ] | "map" "(" program ")" | "filter" test
#         | "if" ( MEASURE | "it" ) test "then" "(" program ")" "else" "(" program ")"
# test    = "even" | "odd" | ( ">" | "<" | "=" ) NUMBER
# ```
#
# Braces mean "any number of times", brackets mean "or nothing". Values are whole numbers and lists of them. The names
# stand in one table, with the type that a step takes, the type that it gives, and what it computes.

# %%
from instructlab_utils.programs import (  # not built here: small things
    DEEPEST,
    LONGEST,
    MEASURES,
    STEPS,
    TOKEN,
    Limits,
    Record,
    Step,
    Test,
    Token,
    complaint,
    compute,
    read_if,
    read_number,
    within,
)

for pair in sorted({kind[:2] for kind in STEPS.values()}):
    names = [f"{name} N" if kind.numbered else name for name, kind in STEPS.items() if kind[:2] == pair]
    print(f"{pair[0]:6} → {pair[1]:6}  {', '.join(names)}")

# %% [markdown]
# **Tokens.** A regular expression cuts the text into words, numbers and signs. Its last part, named *other*, catches any
# character that the language does not have. Each token keeps its column: an error without a place is half an error.


# %% tags=["defines:programs.tokens"]
def tokens(text):
    if len(text) > LONGEST:
        raise ProgramError(LONGEST, f"the program has {len(text)} characters; {LONGEST} are allowed")
    found = []
    for match in TOKEN.finditer(text):
        if match["other"]:
            raise ProgramError(match.start() + 1, f"{match[0]!a} is no character of the language")
        found.append(Token(match[0], match.start() + 1))
    return [*found, Token("", len(text) + 1)]


# %% [markdown]
# **Recursive descent.** A *cursor* is a place in these tokens. `take` moves it one token on, if that token may stand here.
# Then the parser is one function for each rule of the grammar, and each function calls those that its rule names.


# %% tags=["defines:programs.Cursor"]
class Cursor:
    def __init__(self, text):
        self.tokens, self.place, self.open = tokens(text), 0, 0

    @property
    def next(self):
        return self.tokens[self.place]

    def take(self, *wanted):
        text, at = self.next
        if text not in wanted:
            raise ProgramError(at, complaint(text, wanted))
        self.place += 1
        return text


# %% tags=["defines:programs.read_program", "defines:programs.read_step"]
def read_program(cursor):
    found = [read_step(cursor)]
    while cursor.next.text == "|":
        cursor.take("|")
        found.append(read_step(cursor))
    return tuple(found)


def read_step(cursor):
    at = cursor.next.at
    name = cursor.take("map", "filter", "if", *STEPS)
    if name == "map":
        return Step(name, bodies=(read_body(cursor),), at=at)
    if name == "filter":
        return Step(name, test=read_test(cursor), at=at)
    if name == "if":
        return read_if(cursor, at)
    return Step(name, read_number(cursor) if STEPS[name].numbered else None, at=at)


# %% [markdown]
# `read_step` calls `read_body`, which calls `read_program`, which calls `read_step`: the circle makes *nested* programs
# possible. It also lets a hostile text dig a hole as deep as Python's stack. So the cursor counts open brackets.


# %% tags=["defines:programs.read_body", "defines:programs.read_test", "defines:programs.parse"]
def read_body(cursor):
    if cursor.open >= DEEPEST:
        raise ProgramError(cursor.next.at, f"more than {DEEPEST} brackets in brackets")
    cursor.open += 1
    cursor.take("(")
    found = read_program(cursor)
    cursor.take(")")
    cursor.open -= 1
    return found


def read_test(cursor):
    relation = cursor.take("even", "odd", ">", "<", "=")
    return Test(relation, read_number(cursor) if relation in "><=" else None)


def parse(text):
    cursor = Cursor(text)
    found = read_program(cursor)
    cursor.take("")  # the end
    return found


# %% [markdown]
# **Predict.** Which column does each of these errors name? One of the five is no error of the grammar.

# %% tags=["nbval-check-output"]
for text in ("reverse | tak 2", "take | reverse", "map ( add 1", "reverse ; sort", "sum | reverse"):
    try:
        print(f"{text:16} is a program:", programs.render(parse(text)))
    except ProgramError as error:
        print(f"{text:16} {error}")

# %% [markdown]
# **Observe.** A typing error gets the nearest name. The end of the text has a column too. And `sum | reverse` is a correct
# *sentence* of the language: the grammar knows nothing of types.
#
# **Types.** Each step takes one type and gives one. A program is well typed if each step takes what the one before gives
# (lesson 00 counted such paths). Bodies are programs, so the check calls itself.


# %% tags=["defines:programs.check", "defines:programs.type_of"]
def check(program, given="list"):
    for step in program:
        given = type_of(step, given)
    return given


def type_of(step, given):
    takes, gives = STEPS[step.name][:2] if step.name in STEPS else ("list", "list")
    takes = "number" if step.measure == "it" else takes
    if given != takes:
        raise ProgramError(step.at, f"{step.name!r} needs a {takes}, and gets a {given}")
    inside = [check(body, "number" if step.name == "map" else given) for body in step.bodies]
    if step.name == "map" and inside != ["number"]:
        raise ProgramError(step.at, f"the body of 'map' gives a {inside[0]}; it must give a number")
    if len(set(inside)) > 1:
        raise ProgramError(
            step.at, f"'then' gives a {inside[0]} and 'else' a {inside[1]}; both must give the same"
        )
    return inside[0] if step.name == "if" else gives


# %% [markdown]
# **The run.** `walk` does the steps one after another. It writes a record for each, checks the value against the limits, and
# counts. `apply` does one step; for `map` and `if` it walks through the body, one level deeper.


# %% tags=["defines:programs.walk", "defines:programs.apply"]
def walk(program, value, limits, records, depth=0):
    for step in program:
        after = within(apply(step, value, limits, records, depth), limits, step.at)
        if len(records) >= limits.steps:
            raise ProgramError(step.at, f"the run needs more than {limits.steps} steps")
        records.append(Record(str(step), step.at, depth, value, after))
        value = after
    return value


def apply(step, value, limits, records, depth):
    if step.name == "map":
        return [walk(step.bodies[0], n, limits, records, depth + 1) for n in value]
    if step.name == "filter":
        return [n for n in value if step.test.holds(n)]
    if step.name == "if":
        n = value if step.measure == "it" else compute(step, str(step.measure), value)
        chosen = step.bodies[0] if step.test.holds(n) else step.bodies[1]
        return walk(chosen, value, limits, records, depth + 1)
    if step.name == "upto" and value > limits.length:  # before the memory is spent
        raise ProgramError(step.at, f"a list of more than {limits.length} numbers")
    return compute(step, step.name, value, *([step.number] if step.number is not None else []))


# %% [markdown]
# `compute` looks a name up in the table. Nothing else of the text ever reaches Python: no `eval`, no `exec`, no attribute.
# That is the whole security argument, and it is a short one.
#
# **Predict.** Here are seven hostile programs. Which are stopped by the tokens, which by the parser, by the types, by the
# executor? Does one of them run?

# %% tags=["nbval-check-output"]
hostile = {
    "python": '__import__ ( "os" )',
    "look-alike": "r\u0435verse",  # its first e is Cyrillic
    "deep": "map ( " * 500,
    "huge number": "map ( add 99999999999999999999 )",
    "types": "sum | twice",
    "memory": " | ".join(["twice"] * 60),
    "time": "sum | upto | map ( upto | map ( upto | sum ) | sum )",
}
for name, text in hostile.items():
    try:
        station = "tokens"
        tokens(text)
        station = "parser"
        found = parse(text)
        station = "types"
        check(found)
        station = "run"
        walk(found, [50, 50, 50], Limits(), [])
    except ProgramError as error:
        print(f"{name:12} stopped by the {station:7} {error}")

# %% [markdown]
# **Observe.** All seven end in one sentence with a column, and not in a traceback. The last two are correct, well-typed
# programs: only *running* shows what they cost. A type system cannot replace a limit.

# %% [markdown]
# ## 3 Composition, and $p^d$
#
# The same source articles promise more: any instruction that follows the rules of a language is understood and carried out,
# however complex it is. For our *executor* that is true by construction, up to its limits. Is it true for a *model*? (Lake
# and Baroni, 2018, asked this of networks that translate commands into actions, and found that they break on longer ones.)
#
# Let a program have $d$ steps, with the true states $s_0 = x, s_1, \dots, s_d$. Suppose that a model does each step right
# with probability $p$, whatever happened before, and that one wrong state spoils all later ones. Then
#
# $$ \Pr(\text{right at depth } d) \;=\; \prod_{k=1}^{d} \Pr(s_k \mid s_{k-1} \text{ right}) \;=\; p^d . $$
#
# Three assumptions hide in one line. The steps may *depend* on each other. An error may be *healed* later (sorting heals a
# wrong order). And a model that writes only the last list never writes any $s_k$: then "a step" is nothing that it does.
# The last one decides most, as you will see.
#
# **Predict.** A model is trained on depths one to three. It gets single steps right almost always. What will it do at depth
# four to six, if it must answer at once? And if an outside loop calls it once for each step?

# %%
POOL = [
    parse(text)[0] for text in ("reverse", "swap", "sort", *(f"map ( add {k} | rest 6 )" for k in (1, 2)))
]


def draw(depth, rng):
    """A program, an input and the states after each step. Every step changes the list."""
    while True:
        program, x = tuple(rng.choice(POOL) for _ in range(depth)), [rng.randrange(6) for _ in range(4)]
        records = [r for r in programs.run(program, x).records if r.depth == 0]
        if all(r.before != r.after for r in records):
            return program, x, [r.after for r in records]


def line(numbers):
    return " ".join(map(str, numbers))


example = (
    parse("reverse | map ( add 2 | rest 6 ) | sort"),
    [3, 1, 4, 1],
    [[1, 4, 1, 3], [3, 0, 3, 5], [0, 3, 3, 5]],
)
print(programs.render(example[0]))
print(programs.describe(example[0], random.Random(0).choice))

# %% [markdown]
# ## 4 A small decoder that carries out instructions
#
# One task in two manners. The instruction is in *symbols*, or in *words* with three wordings for each step and three ways to
# join them. The answer is the last list. The model has two layers of width 64, and starts from random numbers.

# %%
MANNERS = ("symbols", "words")


def texts_of(item, manner, rng):
    """Prompt and completion of one item."""
    program, x, states = item
    told = programs.render(program) if manner == "symbols" else programs.describe(program, rng.choice)
    return f"{told} = {line(x)} =", line(states[-1])


words = {*"=|", *map(str, range(10))}
for _ in range(300):
    for manner in MANNERS:
        words |= set(" ".join(texts_of(draw(2, rng), manner, rng)).split())
words_of = small.word_tokenizer(sorted(words))
for manner in MANNERS:
    print(*texts_of(example, manner, random.Random(0)), sep="  →  ")
print(len(words_of), "tokens")

# %%
made = [
    texts_of(draw(1 + i // 2 % 3, rng), MANNERS[i % 2], rng) for i in range(run.budget.n_train)
]  # depths 1, 2, 3
examples = [generation.encode_completion(*pair, words_of) for pair in made]
body = small.small_decoder(len(words_of), std=0.08, window=160, seed=seed).to(run.device)
with run.measure() as cost:
    history = training.train(
        body, examples, steps=run.budget.steps, learning_rate=learning_rate, pad_id=0, seed=seed,
        batch_size=run.budget.batch, objective=generation.causal_losses,
    )  # fmt: skip
tenth = max(1, run.budget.steps // 10)
print(
    sum(w.numel() for w in body.parameters()), "weights;", f"loss {history.losses[0]:.2f} at first,", end=" "
)
print(f"{sum(history.losses[-tenth:]) / tenth:.3f} at the end (nats a token)")

# %% [markdown]
# Now the test. Fresh programs and lists at each depth. *At once* asks for the last list. *Called* asks once for each step:
# an outside loop hands the model one instruction, and the list that the model wrote before. This is what "dynamic generation
# of intermediate states" can mean when it is made to run.


# %%
def answers(prompts, longest=6):
    """What the small model writes, greedily."""
    ids = [words_of(prompt)["input_ids"] for prompt in prompts]
    new, _ = small.sample(body, ids, longest, words_of.eos_token_id, temperature=0)
    return [words_of.decode(i) for i in new]


def accuracy(items, manner, seed=0):
    """Share of right last lists."""
    pairs = [texts_of(item, manner, random.Random(seed)) for item in items]
    found = answers([prompt for prompt, _ in pairs])
    return sum(f == line(states[-1]) for f, (_, _, states) in zip(found, items, strict=True)) / len(items)


def called(items):
    """Share of right last lists where the model is called once for each step."""
    now = [line(x) for _, x, _ in items]
    for k in range(len(items[0][0])):
        now = answers(
            [f"{programs.render(i[0][k : k + 1])} = {x} =" for i, x in zip(items, now, strict=True)]
        )
    return sum(f == line(states[-1]) for f, (_, _, states) in zip(now, items, strict=True)) / len(items)


# %%
depths, fresh = range(1, 7), random.Random(10_000 + seed)
tests = {d: [draw(d, fresh) for _ in range(run.budget.n_test)] for d in depths}
curves = {f"{manner}, at once": [accuracy(tests[d], manner) for d in depths] for manner in MANNERS}
curves["symbols, called step by step"] = [called(tests[d]) for d in depths]
p = curves["symbols, at once"][0]
curves["p^d, p = symbols at depth 1"] = [p**d for d in depths]
common = [max(Counter(line(i[2][-1]) for i in tests[d]).values()) / run.budget.n_test for d in depths]
curves["the most frequent answer"] = common
for name, values in curves.items():
    print(f"{name:30s}", "  ".join(f"{value:.3f}" for value in values))
run.record(p=p, direct_6=curves["symbols, at once"][5], called_6=curves["symbols, called step by step"][5])

# %%
figure, axis = plotting.axes(width=6.2, height=3.5, dpi=72)
for i, (name, values) in enumerate(curves.items()):
    axis.plot(depths, values, label=name, **plotting.style(i))
axis.axvspan(0.8, 3.5, color="grey", alpha=0.12)
axis.text(0.95, 0.03, "trained", fontsize=8)
axis.set(xlabel="depth d", ylabel="share of right last lists", ylim=(-0.02, 1.02), xlim=(0.8, 6.2))
axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
show(figure, "15_depth")

# %% [markdown]
# **Figure and observe.** Same weights, same programs. Asked for the last list at once, the model falls far below $p^d$, also
# at depths on which it was trained. A model that jumps does not do the steps, and the forecast does not speak of it.
# Called step by step, it stays *above* $p^d$. So the other two assumptions fail as well, in the good direction. Errors
# *depend*: a list that is easy for one step tends to be easy for the next. And some errors are *healed*: two numbers
# change places by mistake, then `sort` comes. Section 10 says how much of the difference is healing.
#
# So the audit trail of section 1 is more than a report: for a model, *written states are the computation*. Scratchpads
# (Nye et al., 2021) let a model write them into its own answer; our loop writes them outside, where each can be checked.
#
# Words do worse than symbols here. One reason can be read in the example of section 3: words have no brackets. Does ", then"
# join two steps of the program, or two steps inside of "change every number"?
#
# **Where does it go wrong?** Look at a few answers of depth four.

# %%
for item in tests[4][:4]:
    prompt, gold = texts_of(item, "symbols", rng)
    states = [line(state) for state in item[2]]
    (wrote,) = answers([prompt])
    print(f"{prompt} wrote {wrote}, gold {gold};", end=" ")
    print(f"it is state {states.index(wrote) + 1} of 4" if wrote in states else "no state on the way")

# %% [markdown]
# ### Soft instructions
#
# Words and symbols are two names for one step. Is there a third, that nobody wrote? A *soft instruction* is a vector $c_k$
# that stands where the words of step $k$ would stand. We freeze the model. Vector $k$ never sees a name. It sees
# inputs and outputs of step $k$, and the vectors alone are trained, by the gradient that lesson 10 derived for soft prompts:
#
# $$ c_k \leftarrow c_k - \eta \, \frac{\partial L}{\partial c_k}, \qquad
# L = -\sum_t \log p\big(y_t \mid c_k, x, y_{<t}\big). $$
#
# **Predict.** Five vectors, no names. Will vector $k$ become step $k$? Will it lie near the embedding of its symbol?

# %%
E = body.get_input_embeddings().weight.detach()
body.requires_grad_(False)
soft = torch.nn.Parameter(
    0.1 * torch.randn(len(POOL), E.shape[1], generator=torch.Generator().manual_seed(seed))
)
bar, equals, end = words_of("| =")["input_ids"] + [words_of.eos_token_id]


def soft_example(item):
    """Tokens and labels of an item; step k is the id len(E) + k."""
    program, x, states = item
    numbers = [POOL.index(step) for step in program]
    told = [i for k in numbers for i in (bar, len(E) + k)][1:]
    before = [*told, equals, *words_of(line(x))["input_ids"], equals]
    after = [*words_of(line(states[-1]))["input_ids"], end]
    return {"input_ids": before + after, "labels": [-100] * len(before) + after}


# %%
def soft_logits(batch):
    inputs = F.embedding(batch["input_ids"], torch.cat([E, soft.to(E.device)]))
    return body(inputs_embeds=inputs, attention_mask=batch["attention_mask"]).logits


optimizer = torch.optim.Adam([soft], lr=0.05)
for _ in range(run.budget.soft_steps):
    drawn = [soft_example(draw(1, rng)) for _ in range(run.budget.batch)]
    batch = training.move(training.collate_tokens(drawn, 0), run.device)
    counts = batch["labels"][:, 1:] != -100
    loss = F.cross_entropy(soft_logits(batch)[:, :-1][counts], batch["labels"][:, 1:][counts])
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print(f"loss of the frozen body with trained vectors: {loss:.3f}")


# %%
@torch.no_grad()
def does(k, n):
    """How often vector k, alone, gives what each step of the pool gives: shape (5,)."""
    items = [draw(1, fresh) for _ in range(n)]
    batch = training.collate_tokens([soft_example(((POOL[k],), x, [[0] * 4])) for _, x, _ in items], 0)
    batch, hits = training.move(batch, run.device), np.zeros(len(POOL))
    start_at = 7  # soft step, sign, four numbers, sign: the answer begins here
    ids = {name: value[:, :start_at] for name, value in batch.items()}
    for _ in range(5):
        new = soft_logits(ids)[:, -1:].argmax(-1)
        ids = {"input_ids": torch.cat([ids["input_ids"], new], 1)}
        ids["attention_mask"] = torch.ones_like(ids["input_ids"])
    for (_, x, _), row in zip(items, ids["input_ids"][:, start_at:].tolist(), strict=True):
        answer = words_of.decode(row[: row.index(end)] if end in row else row)
        hits += [answer == line(programs.run((step,), x).value) for step in POOL]
    return hits / n


behaviour = np.stack([does(k, run.budget.n_test // 2) for k in range(len(POOL))])

# %%
names = [programs.render((step,)) for step in POOL]
rows = {name: words_of(name)["input_ids"] for name in names}
near = (
    F.normalize(soft.detach().cpu(), dim=1)
    @ F.normalize(torch.stack([E[i].mean(0) for i in rows.values()]).cpu(), dim=1).T
)
figure, panels = plotting.axes(1, 2, width=3.6, height=3.0, dpi=72)
for panel, values, title in (
    (panels[0], behaviour, "does what step does"),
    (panels[1], near.numpy(), "cosine to its symbol"),
):
    image = panel.imshow(values, cmap="Greys", vmin=0, vmax=1)
    panel.set_xticks(range(5), [*names[:3], "+ 1", "+ 2"], fontsize=7)
    panel.set_yticks(range(5), [f"c{k}" for k in range(5)])
    panel.grid(False)
    panel.set_title(title, fontsize=9)
    for (i, j), value in np.ndenumerate(values):
        panel.text(
            j,
            i,
            f"{value:.2f}",
            ha="center",
            va="center",
            fontsize=7,
            color="white" if value > 0.5 else "black",
        )
show(figure, "15_soft")
print(f"length of a soft vector {soft.norm(dim=1).mean():.2f}, of an embedding {E.norm(dim=1).mean():.2f}")
others = near[~torch.eye(len(POOL), dtype=bool)]
print(f"cosine to its own symbol, mean {near.diag().mean():.2f}; to the other four {others.mean():.2f}")
run.record(soft=float(np.diag(behaviour).mean()), soft_cosine=float(near.diag().mean()))

# %% [markdown]
# **Figure and observe.** Left: row $k$ is vector $c_k$ used as an instruction; dark on the diagonal means that it does what
# its step does. (Off the diagonal stand also lists on which two steps agree.) In the stored run three vectors work, the
# one for `sort` always. The two whose symbols are eight tokens long work only sometimes. Right: the cosine to the symbol
# (the mean over its tokens); the last line compares it with the cosines to the four other symbols. `reverse` and `sort`
# were found where their words lie, only several times as long; `swap` works too and points elsewhere. Gradient descent
# finds instructions without their names, but nobody can read what it found: a system that must be audited keeps symbols.

# %% [markdown]
# ## 5 A model that can write nothing else
#
# SmolLM2 writes *text*. We want *programs*. Parsing afterwards only tells that it failed. *Constrained decoding* forbids each
# token that no program can go on with (Willard and Louf, 2023). Three parts: the grammar as data, an automaton that reads
# characters, and a walk through the vocabulary.

# %%
plain = [name for name, kind in STEPS.items() if not kind.numbered]
numbered = [name for name, kind in STEPS.items() if kind.numbered]
DIGIT = frozenset("0123456789")
GRAMMAR = {  # rule → alternatives → symbols: a rule, a text, or a set of characters (one of them)
    "<start>": [[" ", "<program>"]],
    "<program>": [["<step>"], ["<step>", " | ", "<program>"]],
    "<step>": [[name] for name in plain]
    + [[f"{name} ", "<number>"] for name in numbered]
    + [["map ( ", "<program>", " )"], ["filter ", "<test>"]]
    + [["if ", "<measure>", " ", "<test>", " then ( ", "<program>", " ) else ( ", "<program>", " )"]],
    "<test>": [["even"], ["odd"], *([f"{sign} ", "<number>"] for sign in "><=")],
    "<measure>": [["it"], *([name] for name in MEASURES)],
    "<number>": [[DIGIT], [DIGIT, "<number>"]],
}

# %% [markdown]
# Brackets nest, so no finite automaton is enough: it would have to count. We keep a *stack* of the symbols that are still
# to come. Several continuations are open at once, so a state $q$ is a **set of stacks**. `opened` replaces rules on top by
# their alternatives until each stack begins with a character (or is empty: here a program may end). `advance` reads one
# character.


# %% tags=["defines:grammars.opened"]
def opened(stacks, grammar):
    found, waiting = set(), list(stacks)
    while waiting:
        stack = waiting.pop()
        if stack and isinstance(stack[0], str) and stack[0] in grammar:
            waiting += [(*choice, *stack[1:]) for choice in grammar[stack[0]]]
        else:
            found.add(stack)
    return frozenset(found)


# %% tags=["defines:grammars.advance"]
def advance(state, character, grammar):
    after = set()
    for top, *rest in filter(None, state):
        if character in top if isinstance(top, frozenset) else top[0] == character:
            after.add(tuple(rest) if isinstance(top, frozenset) or len(top) == 1 else (top[1:], *rest))
    return opened(after, grammar)


# %%
def read(text, grammar=GRAMMAR):
    """The state after a text, from the start."""
    state = opened([("<start>",)], grammar)
    for character in text:
        state = advance(state, character, grammar)
    return state


for text in (" take 2", " re", " reverse sort"):
    print(f"{text!r:16} stacks: {len(read(text))}, may end: {() in read(text)}")

# %% [markdown]
# **From characters to tokens.** The model does not write characters. A token such as ` reverse` is eight of them, and one
# such as `()` ends one symbol and begins the next. A token is allowed if *all* of its characters can be read, one after
# another. So the vocabulary becomes a tree of characters (a *trie*): a branch that the automaton cannot read is cut off with
# all tokens on it.


# %% tags=["defines:grammars.trie", "defines:grammars.allowed"]
def trie(texts):
    root = {}
    for token, text in texts.items():
        node = root
        for character in text:
            node = node.setdefault(character, {})
        node.setdefault("", []).append(token)
    return root


def allowed(state, node, grammar):
    found = list(node.get("", ()))
    for character, below in node.items():
        if character and (after := advance(state, character, grammar)):
            found += allowed(after, below, grammar)
    return found


# %%
special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
token_texts = {i: tokenizer.decode([i]) for i in range(len(tokenizer)) if i not in special}
token_texts = {i: text for i, text in token_texts.items() if text}
root = trie(token_texts)

# %% [markdown]
# **The trap.** Two shorter ways come to mind. *Whole words*: allow the tokens that are a word of the language. *First
# character*: allow a token if its first character can be read.
#
# **Predict.** After ` re` (the model has begun `reverse`), how many of the 49,152 tokens does each of the three allow?

# %% tags=["nbval-check-output"]
state = read(" re")
right = set(allowed(state, root, GRAMMAR))
language = {*STEPS, *programs.WORDS, *"|()<>=0123456789"}
whole = {i for i, text in token_texts.items() if text.strip() in language}
first = {i for i, text in token_texts.items() if advance(state, text[0], GRAMMAR)}
for name, ids in (("whole words", whole), ("first character", first), ("every character", right)):
    print(
        f"{name:16} {len(ids):4} tokens, {len(ids - right):4} of them wrong, {len(right - ids)} missing;",
        end=" ",
    )
    print(sorted(token_texts[i] for i in ids)[:5])
with expect_error(ProgramError, match="cannot stand here"):
    parse((" re" + token_texts[min(first - right)]).strip())

# %% [markdown]
# **Observe.** *Whole words* locks the model out of the language (its count is the same in every state): it may write `sort`
# after `re`, and not `verse`. *First character* lets long tokens through that begin well and go wrong.
#
# **With the library.** `llguidance` does this in Rust, for large grammars. Same language, random walks through it, and at
# each prefix the two sets of tokens. One habit of it you must know: where the next *characters* are forced, it allows only
# the one token that its tokenizer would choose. `no_forcing` turns that off.

# %%
import llguidance
import llguidance.hf

either = lambda names: " | ".join(f'"{name}"' for name in names)  # noqa: E731
RULES = f"""start: " " program
program: step (" | " step)*
step: {either(plain)} | ({either(numbered)}) " " number | "map ( " program " )" | "filter " test
    | "if " measure " " test " then ( " program " ) else ( " program " )"
test: "even" | "odd" | ("> " | "< " | "= ") number
measure: {either(("it", *MEASURES))}
number: /[0-9]+/
"""
library = llguidance.hf.from_tokenizer(tokenizer, n_vocab=len(tokenizer))


def theirs(matcher):
    """The ids that llguidance allows now."""
    bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
    return set(np.flatnonzero(bits[: len(tokenizer)]).tolist())


# %%
class Mask:
    """The allowed tokens after the new tokens of a prompt; each state is worked out once. ``end`` closes a program."""

    def __init__(self, grammar, end):
        self.grammar, self.end, self.known = grammar, end, {}

    def __call__(self, new):
        state = read("".join(token_texts[i] for i in new), self.grammar)
        if state not in self.known:
            more = [self.end] if () in state else []
            self.known[state] = allowed(state, root, self.grammar) + more
        return self.known[state]


mask, sizes, apart = Mask(GRAMMAR, tokenizer.eos_token_id), [], 0
for setting in ('%llguidance {"no_forcing": true}\n', ""):
    new, matcher, differing = [], llguidance.LLMatcher(library, setting + RULES), 0
    for _ in range(run.budget.n_prefixes):
        ours = set(mask(new))
        differing += bool(ours ^ theirs(matcher))
        apart = max(apart, len(ours ^ theirs(matcher)) if setting else 0)
        sizes.append(len(ours))
        new.append(rng.choice(sorted(ours)))
        if new[-1] == tokenizer.eos_token_id or len(new) > 24:
            new, matcher = [], llguidance.LLMatcher(library, setting + RULES)
        else:
            matcher.consume_token(new[-1])
    print(
        f"{'no forcing' if setting else 'as it comes':12} {differing} of {run.budget.n_prefixes} prefixes differ"
    )
print(f"largest difference of two sets without forcing: {apart} tokens; states met: {len(mask.known)}")
run.record(mask_difference=apart)
assert apart == 0

# %%
figure, axis = plotting.axes(width=6.2, height=2.9, dpi=72)
shown, path = " take 2 | map ( add 1 )", []
ids = tokenizer(shown, add_special_tokens=False)["input_ids"]
for k in range(len(ids) + 1):
    path.append(len(mask(ids[:k])))
labels = [tokenizer.decode([i]) for i in ids] + ["end"]
axis.bar(range(len(path)), path, color=plotting.COLOURS[0], edgecolor="black")
for k, n in enumerate(path):
    axis.text(k, n * 1.1, n, ha="center", fontsize=8)
axis.set_xticks(range(len(path)), [f"{label!r}" for label in labels], fontsize=7)
axis.set(
    yscale="log", ylim=(0.5, 300), xlabel="the token that comes next", ylabel="tokens allowed there (log)"
)
show(figure, "15_allowed")

# %% [markdown]
# **Figure.** One program, token by token. Above each token stands how many of the 49,152 were allowed in its place. Where
# the bar is at one, the model is not needed.
#
# ### What the mask throws away
#
# In state $q$ the model gives the allowed tokens together the probability $m$, and the mask divides by it:
#
# $$ p'(t) = \frac{p(t)\,[t \in A(q)]}{m(q)}, \qquad m(q) = \sum_{t \in A(q)} p(t) . $$
#
# A mask never *adds* knowledge. A small $m$ says that the model wanted something else. And the mask looks one token
# ahead: $p'$ is **not** the model's distribution given that the whole text is valid. Two texts are valid, `aa` and `bb`:

# %% tags=["nbval-check-output"]
p_first, p_same = {"a": 0.9, "b": 0.1}, {"a": 0.01, "b": 0.99}
joint = {t: p_first[t] * p_same[t] for t in "ab"}
for t in "ab":
    print(
        f"{t}{t}: masked {p_first[t]:.2f}, given that the text is valid {joint[t] / sum(joint.values()):.2f}"
    )

# %% [markdown]
# **Observe.** The mask walks into `a`, from where the only way on is one that the model thinks absurd. Remember this
# when you read the next answers.
#
# **Validity and meaning.** Twelve requests. SmolLM2 sees four examples, then writes a program: freely, and under the mask.
# *Valid*: it parses and its types fit. *Right*: it also gives the wanted value on eight lists.
#
# **Predict.** Of twelve: how many are valid, how many right, without and with the mask?

# %%
SHOTS = """Request: Reverse the list.
Program: reverse

Request: Sort the list, then take the first 3 numbers.
Program: sort | take 3

Request: Keep the numbers greater than 4.
Program: filter > 4

Request: Add 2 to every number, then give the sum.
Program: map ( add 2 ) | sum

"""
ASKED = {
    "Sort the list.": "sort",
    "Reverse the list, then keep the first 2 numbers.": "reverse | take 2",
    "Give the sum of the numbers.": "sum",
    "Keep the even numbers.": "filter even",
    "Multiply every number by 3.": "map ( times 3 )",
    "Drop the first number, then reverse the list.": "drop 1 | reverse",
    "Keep the numbers less than 5, then count them.": "filter < 5 | length",
    "Take the first 3 numbers, then add 1 to each.": "take 3 | map ( add 1 )",
    "Sort the list, then give the last number.": "sort | last",
    "Remove repeated numbers, then give the largest.": "unique | max",
    "Multiply every number by 2, then add them up.": "map ( times 2 ) | sum",
    "Keep the odd numbers, then reverse the list.": "filter odd | reverse",
}
ASKED = dict(list(ASKED.items())[: run.budget.n_requests])
newline = tokenizer("\n")["input_ids"][0]
LISTS = [random.Random(k).choices(range(10), k=6) for k in range(8)]


# %%
def judge(text, gold):
    """(valid, right, the error or "")."""
    try:
        found = programs.parse(text)
        programs.check(found)
        right = [programs.run(found, x).value for x in LISTS] == [
            programs.run(parse(gold), x).value for x in LISTS
        ]
        return True, right, ""
    except ProgramError as error:
        return False, False, str(error)


def write(prompts, mask=None, temperature=0.0, seed=0, longest=16):
    """What SmolLM2 writes up to the end of the line."""
    ids, g = (
        [tokenizer(prompt)["input_ids"] for prompt in prompts],
        torch.Generator().manual_seed(seed),
    )
    how = dict(temperature=temperature, generator=g, allowed=mask)
    return [tokenizer.decode(new).strip() for new in small.sample(decoder, ids, longest, newline, **how)[0]]


prompts = [f"{SHOTS}Request: {request}\nProgram:" for request in ASKED]
mask = Mask(GRAMMAR, newline)
drafts = {"free": write(prompts), "masked": write(prompts, lambda i, new: mask(new))}
for k, (request, gold) in enumerate(ASKED.items()):
    print(f"{request}  (gold: {gold})")
    for how, texts in drafts.items():
        valid, right, error = judge(texts[k], gold)
        print(f"   {how:7}{texts[k]:42} {'right' if right else 'valid, wrong' if valid else error}")

# %%
for how, texts in drafts.items():
    verdicts = [judge(text, gold) for text, gold in zip(texts, ASKED.values(), strict=True)]
    print(
        f"{how:7} valid {sum(v for v, _, _ in verdicts)}, right {sum(r for _, r, _ in verdicts)} of {len(verdicts)}"
    )
    run.record(
        **{f"{how}_valid": sum(v for v, _, _ in verdicts), f"{how}_right": sum(r for _, r, _ in verdicts)}
    )


@torch.no_grad()
def kept(prompt, text):
    """The mass m before each token of a text, and each token."""
    before, after = tokenizer(prompt)["input_ids"], tokenizer(" " + text)["input_ids"]
    logits = decoder(torch.tensor([before + after], device=run.device)).logits[0, len(before) - 1 :]
    return [p[mask(after[:k])].sum().item() for k, p in enumerate(logits.float().softmax(-1))]


masses = [m for prompt, text in zip(prompts, drafts["masked"], strict=True) for m in kept(prompt, text)]
print(f"m before {len(masses)} tokens of the masked drafts: median {np.median(masses):.3f},", end=" ")
print(f"smallest {min(masses):.1e}; below one half in {np.mean(np.array(masses) < 0.5):.0%}")


# %% [markdown]
# **Observe.** Read the pairs. The mask repairs spelling, and brackets if there is room for them. It does not repair
# understanding: most of what it makes valid is still wrong, and wrong *silently*, since a parser no longer complains. Two
# kinds of failure stay: types (our grammar does not know them) and texts that the limit cuts before their last bracket.
# Validity rises; meaning need not. One of the experiments below measures how far.
#
# ## 6 Repair or try again?
#
# An executor's error says what is wrong and where. A natural loop puts it back into the prompt, and lets the model mend
# its plan. The honest rival spends at most as many tokens on *new* drafts, and takes the first one that is valid. (A repair
# reads its own draft and the error as well, so one repair costs more than one draw.)
#
# **Predict.** Which of the two finds more valid programs? More right ones?

# %%
gold = list(ASKED.values())
failed = [k for k, text in enumerate(drafts["free"]) if not judge(text, gold[k])[0]]
notes = [f" {drafts['free'][k]}\nError: {judge(drafts['free'][k], gold[k])[2]}\nProgram:" for k in failed]
repaired = write([prompts[k] + note for k, note in zip(failed, notes, strict=True)]) if failed else []
cost = sum(
    len(tokenizer(prompts[k] + note + text)["input_ids"])
    for k, note, text in zip(failed, notes, repaired, strict=True)
)
same = sum(text == drafts["free"][k] for k, text in zip(failed, repaired, strict=True))
for k, text in list(zip(failed, repaired, strict=True))[:3]:
    print(f"{drafts['free'][k]!r}: {judge(drafts['free'][k], gold[k])[2]}\n    repaired: {text!r}")
print(f"{same} of {len(failed)} repairs are the old draft, letter by letter")

# %%
spent, again = 0, {k: [] for k in failed}
for turn in range(3):
    if not failed or spent + spent / max(turn, 1) > cost:  # the next draw would cost more than the repair did
        break
    drawn = write([prompts[k] for k in failed], temperature=0.7, seed=seed + turn)
    spent += sum(
        len(tokenizer(prompts[k] + text)["input_ids"]) for k, text in zip(failed, drawn, strict=True)
    )
    for k, text in zip(failed, drawn, strict=True):
        again[k].append(text)
one = {k: next((t for t in texts if judge(t, gold[k])[0]), texts[-1]) for k, texts in again.items()}
outcome = {"repair": dict(zip(failed, repaired, strict=True)), "resample": one}
for name, texts in outcome.items():
    verdicts = [judge(text, gold[k]) for k, text in texts.items()]
    print(
        f"{name:9} valid {sum(v for v, _, _ in verdicts)}, right {sum(r for _, r, _ in verdicts)} of {len(failed)}"
    )
print(f"tokens through the model: repair {cost}, resample {spent}")

# %% [markdown]
# **Observe.** Most repairs are the old draft, letter by letter. A model of this size hardly *uses* the error: a text that has
# just been seen is a probable continuation. A prompt for repair contains the mistake. New draws at least differ. Before
# you build a repair loop, give its tokens to plain resampling, and compare. Section 10 does that with a model that was
# *trained* to repair.

# %% [markdown]
# ## 7 Tool calls
#
# A tool call (Schick et al., 2023) is a program of depth one. Its grammar is a *schema*: which tools there are, which
# arguments each takes, and of which type. The same automaton enforces it. One more idea: an argument of type *text* must be
# **copied from the request**, at most four words in a row. So no *text* can be invented. A number can: the schema demands
# one, and any digit will do. Watch what that does.

# %%
SCHEMA = {
    "get_weather": {"place": "text"},
    "book_restaurant": {"place": "text", "people": "number"},
    "play_music": {"what": "text"},
    "rate_book": {"stars": "number"},
}


def call_grammar(schema, request):
    """The grammar of one JSON object: a tool of the schema with its arguments, texts copied from the request."""
    found = re.findall(r"[\w'.-]+", request)
    spans = sorted({" ".join(found[i:j]) for i in range(len(found)) for j in range(i + 1, i + 5)})
    rules = {"<text>": [[f'"{span}"'] for span in spans], "<number>": [[DIGIT]], "<start>": []}
    for name, arguments in schema.items():
        parts = [
            [f'{", " if k else ""}"{key}": ', f"<{kind}>"] for k, (key, kind) in enumerate(arguments.items())
        ]
        rules["<start>"].append([f' {{"name": "{name}", "arguments": {{', *itertools.chain(*parts), "}}"])
    return rules


print(json.dumps(call_grammar({"rate_book": SCHEMA["rate_book"]}, "five stars"), indent=None, default=sorted))

# %%
intents = tasks.load("intent")
INTENTS = sorted(intents.splits["train"][0]["options"])
print(INTENTS)


def utterances(split, labels, n, seed=0):
    """n shuffled rows of a split with one of these labels: (text, label)."""
    rows = [
        (r["input"].removeprefix("Utterance: "), r["options"][r["answer"]]) for r in intents.splits[split]
    ]
    rows = [row for row in rows if row[1] in labels]
    return random.Random(seed).sample(rows, min(n, len(rows)))


SHOWN = {
    "Will it rain in Oslo?": ("get_weather", {"place": "Oslo"}),
    "A table for two at Luigi's": ("book_restaurant", {"place": "Luigi's", "people": 2}),
    "I want to hear Blue Moon": ("play_music", {"what": "Blue Moon"}),
    "This novel deserves four stars": ("rate_book", {"stars": 4}),
}
CALLS = "".join(
    f"Request: {request}\nCall: {json.dumps({'name': name, 'arguments': arguments})}\n\n"
    for request, (name, arguments) in SHOWN.items()
)
requests = utterances("train", SCHEMA, run.budget.n_calls, seed=2)
turns = [f"{CALLS}Request: {text}\nCall:" for text, _ in requests]
masks = [Mask(call_grammar(SCHEMA, text), newline) for text, _ in requests]
calls = {"free": write(turns, longest=40), "masked": write(turns, lambda i, new: masks[i](new), longest=40)}


# %%
def call_of(text):
    """The tool of a valid call, or None."""
    try:
        call = json.loads(text)
        return call["name"] if call["arguments"].keys() == SCHEMA[call["name"]].keys() else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


for k, (text, label) in enumerate(requests):
    print(f"{text}  ({label})\n   free   {calls['free'][k][:90]!r}\n   masked {calls['masked'][k]}")
for how, texts in calls.items():
    found = [call_of(text) for text in texts]
    hits = sum(f == label for f, (_, label) in zip(found, requests, strict=True))
    print(f"{how:7} valid calls {sum(f is not None for f in found)}, right tool {hits} of {len(requests)}")
    run.record(**{f"calls_{how}_valid": sum(f is not None for f in found), f"calls_{how}_right": hits})

# %% [markdown]
# **Observe.** Every masked answer in the stored run is JSON that a program can act on (a longer one could be cut by the
# limit). Here the mask also helps to find the right *tool*: there are only four names, and free text invents others. The
# arguments tell the other half. Each text is copied from the request, and some are nonsense all the same: a place called
# *Book*. And where the schema demands a number of people, one is invented. A call that is valid and wrong is *more*
# dangerous than a sentence about the weather, because something will happen. So it still needs a check of its meaning: a
# second opinion, a limit, or a person.
#
# ## 8 A router that may refuse
#
# Which instruction does a request want? A router embeds both and takes the nearest. With MiniLM's mean-pooled states, scaled
# to length one, $u$ for the request and $v_r$ for the description of instruction $r$:
#
# $$ \hat r = \arg\max_r \; u^\top v_r, \qquad \text{refuse if } \max_r u^\top v_r < \tau . $$
#
# Another assistant than that of section 7: five of BIG-bench's seven intents (Srivastava et al., 2023; collected for a voice
# assistant by Coucke et al., 2018) are its instructions. The other two, a table among them, are requests that it does *not*
# serve. Without $\tau$ each of them is sent somewhere.

# %%
encoder, words_in = models.load_encoder().to(run.device), models.load_tokenizer("encoder")
SERVED = {
    "add_to_playlist": "Add a song or an artist to a playlist.",
    "get_weather": "Tell the weather forecast of a place.",
    "play_music": "Play a song, an album or an artist.",
    "rate_book": "Rate a book with points or stars.",
    "search_screening_event": "Find the times of a movie in a cinema.",
}
UNKNOWN = [name for name in INTENTS if name not in SERVED]


@torch.no_grad()
def embed(texts):
    """Mean-pooled states of length one, shape (n, 384)."""
    batch = words_in(list(texts), padding=True, truncation=True, return_tensors="pt").to(run.device)
    states, counts = encoder(**batch).last_hidden_state, batch["attention_mask"][..., None]
    return F.normalize((states * counts).sum(1) / counts.sum(1), dim=1).cpu()


v = embed(SERVED.values())
print("not served:", UNKNOWN)

# %% [markdown]
# The threshold is chosen on dev requests: the smallest $\tau$ with which at most one in ten of the accepted requests is
# wrong. On test requests three numbers count. *Coverage*: the share that is accepted. *Risk*: the share of errors among the
# accepted. And how many of the unknown ones were refused.
#
# **Predict.** A request to book a table goes to which of the five, if nothing is refused?


# %%
def routed(split, n):
    """Scores of each request against the five instructions, and the right row (5: none of them)."""
    rows, order = utterances(split, INTENTS, n, seed=1), list(SERVED)
    gold = np.array([order.index(label) if label in SERVED else len(order) for _, label in rows])
    return (embed(text for text, _ in rows) @ v.T).numpy(), gold


def risk_coverage(scores, gold):
    """Thresholds from the largest down, with the coverage and the risk at each."""
    best, guess = scores.max(1), scores.argmax(1)
    order = np.argsort(-best)
    wrong = (guess != gold)[order].cumsum()
    taken = np.arange(1, len(gold) + 1)
    return best[order], taken / len(gold), wrong / taken


tables = [text for text, label in utterances("test", ["book_restaurant"], 40)]
sent = Counter(list(SERVED)[i] for i in (embed(tables) @ v.T).argmax(1).tolist())
print("requests to book a table, nothing refused:", dict(sent))
dev, test = routed("dev", run.budget.n_dev), routed("test", run.budget.n_route)
taus, coverage, risk = risk_coverage(*dev)
good = np.flatnonzero(risk <= 0.1)
tau = taus[good[-1]] if len(good) else taus[0]
scores, gold_rows = test
guess = np.where(scores.max(1) >= tau, scores.argmax(1), len(SERVED))
taken = guess < len(SERVED)
print(f"tau {tau:.3f} from {len(dev[1])} dev requests; {len(gold_rows)} test requests")
errors = (guess != gold_rows)[taken]
print(f"coverage {taken.mean():.3f}, risk {intervals.wilson_interval(errors.sum(), len(errors))},", end=" ")
print(f"unknown requests refused {1 - taken[gold_rows == len(SERVED)].mean():.3f}")
run.record(tau=float(tau), coverage=float(taken.mean()), risk=float(errors.mean()))

# %%
table = np.zeros((6, 6), int)
np.add.at(table, (gold_rows, guess), 1)
short = ["playlist", "weather", "music", "rate", "cinema", "none"]
figure, (left, right_panel) = plotting.axes(1, 2, width=3.7, height=3.1, dpi=72)
left.imshow(table, cmap="Greys")
left.set_xticks(range(6), short, rotation=45, fontsize=7)
left.set_yticks(range(6), short, fontsize=7)
left.grid(False)
left.set(xlabel="sent to", ylabel="wanted")
for (i, j), n in np.ndenumerate(table):
    left.text(
        j, i, n, ha="center", va="center", fontsize=7, color="white" if n > table.max() / 2 else "black"
    )
for i, (name, values) in enumerate({"dev": dev, "test": test}.items()):
    _, x_axis, y_axis = risk_coverage(*values)
    right_panel.plot(x_axis, y_axis, label=name, **plotting.style(i) | dict(marker=""))
right_panel.axhline(0.1, color="grey", linestyle=":", label="wanted risk")
right_panel.axvline(taken.mean(), color="black", linewidth=0.8, label="chosen on dev")
right_panel.set(xlabel="coverage", ylabel="risk", ylim=(0, 1), xlim=(0, 1))
right_panel.legend(fontsize=7)
show(figure, "15_router")

# %% [markdown]
# **Figure and observe.** Left: rows are what was wanted, columns where it went; the last column is *refused*. Right: the
# more requests are accepted, the more of them are wrong, apart from the noisy left end. One threshold gives one point on
# this curve, and the interval printed above says how well these requests know it. What was promised on dev (one error in
# ten) need not hold on test to the last error: a threshold is an estimate too.
#
# ## 9 Automatic programming
#
# Now the other direction: given inputs and outputs, find the program. The articles list *automatic programming* among
# their applications. First without any model. **Enumeration**: all programs of one step, then of two. Most do the same
# as a shorter one. So keep one program for each *behaviour* on the given inputs (*observational equivalence*; lesson 00
# counted such meanings), and grow only these.

# %%
SMALL = range(1, 10)
STEPS_TRIED = [Step(name) for name in plain if STEPS[name].takes == "list"]
STEPS_TRIED += [Step(name, number) for name in ("take", "drop") for number in SMALL]
STEPS_TRIED += [Step("filter", test=Test(sign)) for sign in ("even", "odd")]
STEPS_TRIED += [Step("filter", test=Test(sign, number)) for sign in "><=" for number in SMALL]
STEPS_TRIED += [Step("map", bodies=((Step(name, n),),)) for name in ("add", "times", "rest") for n in SMALL]


def does_to(step, values):
    """What a step makes of each value, as tuples; None where it has no result."""
    try:
        found = [programs.run((step,), list(value)).value for value in values]
        return tuple(tuple(f) if isinstance(f, list) else f for f in found)
    except ProgramError:
        return None


def enumerate_programs(pairs, depth):
    """The first program that fits all pairs (or None), and how many behaviours were kept."""
    goal = tuple(tuple(y) for _, y in pairs)
    level = {tuple(tuple(x) for x, _ in pairs): ()}
    seen = set(level)
    for _ in range(depth):
        after = {}
        for values, program in level.items():
            for step in STEPS_TRIED:
                out = does_to(step, values)
                if out == goal or (
                    out and not isinstance(out[0], tuple) and tuple((o,) for o in out) == goal
                ):
                    return (*program, step), len(seen)
                if out and out not in seen and isinstance(out[0], tuple):
                    seen.add(out)
                    after[out] = (*program, step)
        level = after
    return None, len(seen)


# %% [markdown]
# Eight tasks of BIG-bench's `list_functions` (after Rule, 2020), 32 pairs each. Eight pairs are shown to the search, 24 are
# kept. A task answers with a list always; a number $n$ of ours counts as the list $[n]$.
#
# **Predict.** A program fits all eight pairs. Is it right on the other 24?


# %%
def list_function(name):
    """The 32 pairs of a task."""
    told = json.loads(
        (cache.folder("bigbench") / "list_functions" / name / "task.json").read_text(encoding="utf-8")
    )
    return [(json.loads(e["input"]), json.loads(e["target"])) for e in told["examples"]]


FUNCTIONS = ["c074", "c014", "c165", "c213", "c246", "c013", "c221", "c171"][: run.budget.n_functions]
solved = 0
for name in FUNCTIONS:
    pairs = list_function(name)
    found, behaviours = enumerate_programs(pairs[:8], depth=2)
    if found is None:
        print(
            f"{name}: no program of two steps; {behaviours} behaviours of {len(STEPS_TRIED) ** 2} programs;",
            end=" ",
        )
        print("for example", *pairs[0])
        continue
    values = [programs.run(found, x).value for x, _ in pairs[8:]]
    hits = sum((v if isinstance(v, list) else [v]) == y for v, (_, y) in zip(values, pairs[8:], strict=True))
    solved += hits == 24
    print(f"{name}: {programs.render(found):24} right on {hits} of 24 others; {behaviours} behaviours")
run.record(functions_solved=solved)

# %% [markdown]
# **Observe.** (In the laptop profile.) Pruning is what makes this possible. The last task, which the search could not
# solve, shows it: its behaviours are far fewer than the programs that they stand for, and with depth the gap grows.
# Enumeration knows nothing and finds the shortest program that fits. Shortest and right are two things: one of the eight
# fits its examples and is wrong later. The last task is outside of the language. The search *says* so; a model would answer
# something.
#
# **By a model.** A neural guess could tell the search where to look. We train a second small decoder to write a program from
# three pairs, and use its samples in two ways: the single best guess, and **test feedback**: draw several, run
# each on the given pairs, keep the first that fits. Nothing that it writes reaches Python; it reaches `parse` and `run`.


# %%
def puzzle(rng):
    """Three pairs made by one program of one or two steps; prompt and completion."""
    program, x, _ = draw(rng.choice((1, 2)), rng)
    inputs = [x, *([rng.randrange(6) for _ in range(4)] for _ in range(2))]
    pairs = [(x, programs.run(program, x).value) for x in inputs]
    return pairs, " ; ".join(f"{line(x)} = {line(y)}" for x, y in pairs) + " :", programs.render(program)


guesser = small.small_decoder(len(words_of), std=0.08, window=96, seed=seed).to(run.device)
made = [puzzle(rng)[1:] for _ in range(run.budget.n_train // 2)]
history = training.train(
    guesser, [generation.encode_completion(*pair, words_of) for pair in made], steps=run.budget.steps // 2,
    learning_rate=learning_rate, pad_id=0, seed=seed, batch_size=run.budget.batch, objective=generation.causal_losses,
)  # fmt: skip
print(f"loss {history.losses[0]:.2f} at first, {np.mean(history.losses[-tenth:]):.3f} at the end")


# %%
def fits(text, pairs):
    """Whether a text is a program that gives the output of every pair."""
    try:
        return all(programs.run(programs.parse(text), x).value == y for x, y in pairs)
    except ProgramError:
        return False


puzzles = [puzzle(fresh) for _ in range(run.budget.n_test)]
more = [[(x, programs.run(programs.parse(gold), x).value) for x in LISTS] for _, _, gold in puzzles]
ids = [words_of(prompt)["input_ids"] for _, prompt, _ in puzzles]


def guess_all(temperature, seed=0):
    g = torch.Generator().manual_seed(seed)
    new, _ = small.sample(guesser, ids, 8, words_of.eos_token_id, temperature=temperature, generator=g)
    return [words_of.decode(i) for i in new]


# %%
def share(texts, tests):
    return float(np.mean([fits(text, pairs) for text, pairs in zip(texts, tests, strict=True)]))


given, chosen, draws = [pairs for pairs, _, _ in puzzles], guess_all(0.0), range(1, 17)
shares = [(share(chosen, given), share(chosen, more))]
for k in draws[1:]:
    triples = zip(chosen, guess_all(1.0, seed=k), given, strict=True)
    chosen = [old if fits(old, pairs) else new for old, new, pairs in triples]
    shares.append((share(chosen, given), share(chosen, more)))
print(f"the greedy guess: {shares[0][1]:.3f} right; after {draws[-1]} tested draws: {shares[-1][1]:.3f}")
run.record(guess_1=shares[0][1], guess_n=shares[-1][1])

# %%
figure, axis = plotting.axes(width=5.2, height=3.0, dpi=72)
for i, name in enumerate(("fits the three pairs that it saw", "also right on eight new lists")):
    axis.plot(draws, [pair[i] for pair in shares], label=name, **plotting.style(i))
axis.set(xlabel="programs drawn and tested (1: the greedy guess)", ylabel="share of puzzles", ylim=(0, 1.02))
axis.legend(fontsize=8)
show(figure, "15_feedback")

# %% [markdown]
# **Figure and observe.** Test feedback buys a lot, without any update of the weights: the interpreter is a judge that
# does not err on the tests that it has. Here the two curves lie on each other: in this small world three pairs tell
# all programs apart. In `list_functions` eight pairs did not. Hold some tests back, or you will not know in which
# world you are. Lesson 17 turns this judge into a reward.
#
# ## 10 The experiments
#
# Two articles, two sentences to test, told briefly. One says that *any* instruction that keeps to the rules of a language
# is understood and carried out, however complex it is. The other says that instructions in symbols are more executable than
# instructions in natural language. Neither shows a run ([lesson 00](00_instruction_set.ipynb) has more of both).
#
# **Grid 1, `composition`.** The small decoder of section 4, trained longer, ten seeds, fresh programs for each. One network
# a seed: half of its examples in words, half in symbols ("signs" in the tables).
#
# - **C7** (an article): six steps in words are right at most two points less often than one step.
# - **C8** (an article): one to three steps are right more often in symbols than in words.
# - **EX1**: six steps at once are right less often than $p^6$. **EX2**: with four to six steps, step by step beats at once.
# - **EX3**: six steps, step by step, agree with $p^6$ within three points.
#
# **Grid 2, `program_writing`.** The other direction: a small decoder translates words into programs. Twenty seeds.
#
# - **CD1**: a grammar that also knows the types raises the share of valid programs, and that of right ones by less than
#   half as much.
# - **CD2**: the types give more right programs than the grammar alone.
# - **PR1**: showing the model its error gives more right programs than drawing again, at equal cost in tokens. This model was
#   *trained* on such errors.
#
# All claims were written before the first run. **Predict.** Give each of the eight a verdict before you look.

# %%
from instructlab_repro import lesson

CLAIMS = {"composition": ("C7", "C8", "EX1", "EX2", "EX3"), "program_writing": ("CD1", "CD2", "PR1")}
lines = {name: lesson.results(name) for name in CLAIMS}
for name, claims in CLAIMS.items():
    seeds = {line["seed"] for line in lines[name]}
    print(
        f"{name}, {len(seeds)} seeds:",
        "; ".join(f"{c} {verdict}" for c, verdict in lesson.words(*claims).items()),
    )


# %%
labels = lesson.experiment("composition").labels
figure, axis = plotting.axes(width=6.2, height=3.6, dpi=72)
for i, (method, label) in enumerate(labels.items()):
    cells = {
        d: [x for x in lines["composition"] if x["method"] == method and x["depth"] == d] for d in depths
    }
    if not cells[1]:
        continue
    axis.plot(
        depths,
        [np.mean([x["accuracy"] for x in c]) for c in cells.values()],
        label=label,
        **plotting.style(i),
    )
    for d, c in cells.items():
        axis.scatter([d] * len(c), [x["accuracy"] for x in c], s=6, alpha=0.4, color=plotting.COLOURS[i])
    if method == "natural":
        power = [np.mean([x["power"] for x in c]) for c in cells.values()]
        axis.plot(depths, power, color="black", linewidth=2, alpha=0.6, label="$p^d$, p in words at depth 1")
axis.axvspan(0.8, 3.5, color="grey", alpha=0.12)
axis.set(xlabel="steps d (grey: trained)", ylabel="share of right results", ylim=(-0.02, 1.02))
axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
show(figure, "15_composition")
lesson.folded("composition", *CLAIMS["composition"])

# %%
six = [x for x in lines["composition"] if x["depth"] == 6 and x["method"] == "natural-steps"]
for name, key in (("the last list", "accuracy"), ("every list", "whole_trail"), ("p^6", "power")):
    if six:
        print(
            f"in words, step by step, six steps: {name:14} {np.mean([x[key] for x in six]):.3f} (exploratory)"
        )

# %%
labels = lesson.experiment("program_writing").labels
figure, panels = plotting.axes(1, 2, width=3.9, height=2.9, dpi=72, sharey=True)
for panel, length, title in (
    (panels[0], "seen", "one or two steps (trained)"),
    (panels[1], "longer", "three steps"),
):
    for i, method in enumerate(labels):
        found = [x for x in lines["program_writing"] if x["method"] == method and x["length"] == length]
        for k, metric in enumerate(("valid", "accuracy")):
            values = [x[metric] for x in found]
            panel.scatter(
                values,
                [-i - 0.3 * k] * len(values),
                s=8,
                alpha=0.5,
                color=plotting.COLOURS[k],
                marker="os"[k],
            )
            if values:
                panel.plot([np.mean(values)], [-i - 0.3 * k], marker="|", markersize=14, color="black")
    panel.set(title=title, xlabel="circles: valid; squares: right", xlim=(0, 1.02))
    panel.set_yticks([-i - 0.15 for i in range(len(labels))], list(labels.values()), fontsize=7)
show(figure, "15_writing")
lesson.folded("program_writing", *CLAIMS["program_writing"])

# %% [markdown]
# **Observe.** All eight are decided.
#
# - *Depth.* C7 is refuted, and by far: at once, six steps in words hardly ever come out right; a control that carries
#   out only the last step is no worse. For this network "however complex" ends about where training ended. EX2 says what
#   helps: let it write every list.
# - *$p^d$.* At once it is far too optimistic (EX1). Step by step it is too *pessimistic*: EX3 is refuted in the good
#   direction. The three printed lines, looked at afterwards, say why. *Every* list is right more often than $p^6$: errors
#   depend. The *last* list is right more often still: that part is healing, and it is the larger one.
# - *Symbols.* C8 is supported, by a few points. Mind what was compared: symbols as they are with words as they are, twice
#   as long, in many wordings and without brackets. And "a machine" is one small network.
# - *Validity.* With grammar and types nearly every program is valid, also where programs are longer than trained. The
#   share of *right* ones hardly moves (CD1): a mask cannot know what the model does not know.
# - *Refuted by size.* CD2 and PR1 have intervals above zero. Both gains exist, and are smaller than one point, which was
#   fixed beforehand as the least that matters. Repair did not fail: it is not worth more than new draws, even for a model
#   that was trained to repair.
#
# ## 11 What we have shown

# %%
r = run.metrics
print(f"profile {run.profile}, seed {seed}, {run.device}")
print(f"our masks against llguidance: largest difference {r['mask_difference']} tokens")
print(f"one step at a time {r['p']:.3f}; six steps at once {r['direct_6']:.3f}, called {r['called_6']:.3f}")
print(f"soft instructions that do their step: {r['soft']:.3f}; cosine to the symbol {r['soft_cosine']:.3f}")
print(
    f"programs valid: free {r['free_valid']}, masked {r['masked_valid']}; right: {r['free_right']}, {r['masked_right']}"
)
print(f"router: coverage {r['coverage']:.3f}, risk {r['risk']:.3f}")
print(f"puzzles: one guess {r['guess_1']:.3f}, tested draws {r['guess_n']:.3f}")
print("verdicts:", lesson.words(*sum(CLAIMS.values(), ())))

# %% [markdown]
# **What we have not shown.**
#
# - Nothing about large models. They follow deeper instructions; whether their curve has another *shape* is a question for
#   the same figure with another model in it.
# - The requests of sections 5 to 7 are a dozen. They show *how* things fail. How often is the grid's business.
# - The router knows five sentences. A few labelled requests for each instruction would make it better (lesson 03).
#
# ### What should I do?
#
# | situation | do | switch |
# |---|---|---|
# | a model's output goes into a program | give it a schema, and decode under it | `llguidance`, `outlines`, `xgrammar` |
# | your masks differ from the library's | look for forced tokens first | `%llguidance {"no_forcing": true}` |
# | valid and wrong | measure $m$; a small one says that the model wanted something else | log $\sum_{t \in A(q)} p(t)$ |
# | long instructions | let the model write each state, or call it once a step | a loop around `generate` |
# | a plan fails | first resample at equal tokens; repair only if it wins | `num_return_sequences`, `temperature` |
# | you have tests | draw, run, keep what passes; hold some tests back | never `exec`: an interpreter with limits |
# | many instructions | route, with a threshold from dev, and report risk *and* coverage | cosine of mean-pooled states |
#
# **Recall.** Answer without scrolling.
#
# 1. Which four stations lie between a text and a trail, and what does each refuse?
# 2. Name the three assumptions in $p^d$. Which one fails for a model that answers at once?
# 3. Why is a mask that looks at the first character of a token wrong? And one that allows whole words only?
# 4. Why is $p'$ not the model's distribution given that the text is valid?
# 5. What does a risk–coverage curve show that an accuracy does not?
#
# <details><summary>Answers</summary>
#
# 1. Tokens (unknown characters), tree (what cannot stand here), types (steps that do not fit), run (limits, empty lists).
# 2. Independent steps, no healing, and that the steps are done at all. The last: a model that jumps writes no state.
# 3. A long token can begin well and go wrong. Whole words forbid the pieces into which the tokenizer cuts a word.
# 4. It divides by the mass of the next token only; it does not know whether a good beginning has a good end.
# 5. How many errors are left among what is accepted, for each share that is accepted: what refusing buys.
#
# </details>
#
# **Exercises.** `notebooks/exercises/15_instruction_engine.py`; `make classroom` builds the student version.
#
# **References.**
#
# - Coucke, A., et al. (2018). Snips voice platform: an embedded spoken language understanding system for private-by-design
#   voice interfaces. arXiv:1805.10190. (The seven intents.)
# - Lake, B., and Baroni, M. (2018). Generalization without systematicity: on the compositional skills of sequence-to-sequence
#   recurrent networks. *ICML 2018*.
# - Nye, M., et al. (2021). Show your work: scratchpads for intermediate computation with language models. arXiv:2112.00114.
# - Rule, J. (2020). The child as hacker: building more human-like models of learning. PhD thesis, MIT.
# - Schick, T., et al. (2023). Toolformer: language models can teach themselves to use tools. *NeurIPS 2023*.
# - Srivastava, A., et al. (2023). Beyond the imitation game: quantifying and extrapolating the capabilities of language
#   models. *TMLR*.
# - Willard, B., and Louf, R. (2023). Efficient guided generation for large language models. arXiv:2307.09702.
