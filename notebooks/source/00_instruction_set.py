# ---
# jupyter:
#   instructlab:
#     id: "00"
#     title: An instruction set in thirty lines
#     outcome: build a small instruction set, measure it, repair it, and tell an impossible result from a possible one
#     assets: [smollm2]
#     minutes: {smoke: 0.6, laptop: 3, gpu: 1}
#     class_minutes: 90
#     budget:
#       n_dev: {smoke: 2, laptop: 8, gpu: 8}
#       n_test: {smoke: 2, laptop: 32, gpu: 32}
#       max_new_tokens: {smoke: 12, laptop: 12, gpu: 12}
#       batch_size: {smoke: 16, laptop: 16, gpu: 64}
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 00 An instruction set in thirty lines
#
# **The promise.** You write down what an instruction is, so exactly that a machine can refuse a bad one. You build
# the chain around it, five functions of thirty lines in all: written, rendered, answered by a real language model,
# scored, and repaired by what the scores say. You measure the repair on inputs that it never saw. And you learn to
# see when a published number cannot exist.
#
# | | |
# |---|---|
# | before this | Python (dataclasses, lambdas); no deep learning yet |
# | time, by size of the run | smoke: about a minute · laptop: about three minutes · gpu: not measured yet |
# | memory | under 3 GB |
# | model | SmolLM2-135M-Instruct, pinned: a **4-bit** checkpoint, de-quantised, **already instruction-tuned** |
# | data | `data/instructions/lesson00.jsonl`: eight instructions, forty inputs each, written for this course |
# | last verified | `python 3.11`, `torch 2.13`, `transformers 5.23`, CPU |
# | box of the chain | all five, in their simplest form; later lessons replace them (section 8) |
#
# This course grew out of five Chinese-language blog articles about an "infinite instruction set" for language models.
# We call them **the source articles**. Their idea is good. Their programs that we take apart, in lessons 03 and 05,
# stop with an error as printed. The course keeps the idea and repairs the programs.
#
# **You will be able to**
#
# - *define* an instruction as a typed record, and *reject* a malformed one by line number;
# - *count* the programs that a finite core can express, and the meanings they have;
# - *render* an instruction for a chat model, and *find* the tokens that you did not write;
# - *score* answers by program, and *say* how far a count carries;
# - *repair* an instruction by a rule, and *test* the repair on held-out inputs;
# - *prove* from a format string, or from a sample size, that a reported number cannot exist.
#
# **Letters in this lesson**
#
# | symbol | meaning |
# |---|---|
# | $I$, $I_{\text{exec}}$ | an instruction; one in which nothing is left to guess |
# | $q$ | chance that a changed verdict is a change for the better |
# | $p$ | chance that one step of a program is right |
# | $n$, $m$ | inputs; inputs whose verdict changed |
# | $k$, $a$, $D$ | instructions of a core (section 2), right answers (section 10); a reported share is $a / 10^D$ |
# | $d$, $A$ | depth of a program; which type may follow which |

# %% tags=["parameters"]
profile: str = "auto"  # smoke, laptop or gpu
seed: int = 0  # only section 9 draws anything: the weights of a tiny model
model_name: str = ""  # a folder or hub name instead of the pinned decoder
n_test: int = 0  # held-out inputs per instruction; 0 takes the profile's number

# %%
import inspect
import json
import math
import operator
import re
from collections import Counter, namedtuple
from dataclasses import dataclass, replace
from itertools import product
from textwrap import fill

import numpy as np
import torch
from scipy.stats import binomtest

from instructlab_utils import expect_error, intervals, models, plotting, start

run = start("00", profile=profile, seed=seed)
n_dev, n_test = run.budget.n_dev, n_test or run.budget.n_test
print(f"{n_dev} development and {n_test} held-out inputs per instruction")

# %% [markdown]
# ## 1 What is an instruction?
#
# "Is a whale an animal?" is a sentence. It becomes an *instruction* when four things are fixed:
#
# - a **text** with a hole for the input,
# - the **inputs**, each with the answer that we want (we call it *gold*),
# - the **allowed outputs**, if there are only a few,
# - a **check**: a program that says yes or no to an answer. Without it, "it works" has no meaning.
#
# Start with the check. You want to know whether an answer says *no*.
#
# The obvious check looks for the gold text in the answer. *Predict: which of the three answers below does it accept?
# Which should it?*

# %% tags=["nbval-check-output"]
answers = ["No, it is not.", "I do not know.", "Yes or no? That depends."]


def draft(answer, gold):
    return gold in answer.lower()


for answer_text in answers:
    print(f"{draft(answer_text, 'no')!s:5}  {answer_text}")

# %% [markdown]
# **Observe.** All three pass. The word *know* contains *no*, and the third answer hedges. A check that everything
# passes measures nothing. And it flatters: wrong answers pass.
#
# **Repair.** Compare whole words. Where the outputs are listed, exactly one of them may occur, and it must be the
# gold one. (Still words, not meaning: "not positive" passes as *positive*.)


# %%
def words(answer):
    return re.findall(r"\w+", answer.casefold())


def parsed(answer):
    try:
        return json.loads(answer)
    except ValueError:
        return None


CHECKS = {
    "exact": lambda answer, gold, outputs: answer == gold,
    "contains": lambda answer, gold, outputs: gold.casefold() in words(answer),
    "one_of": lambda answer, gold, outputs: set(words(answer)) & set(outputs) == {gold},
    "number": lambda answer, gold, outputs: re.findall(r"-?\d+", answer)[-1:] == [gold],
    "json": lambda answer, gold, outputs: parsed(answer) == json.loads(gold),
}

# %% tags=["nbval-check-output"]
for answer_text in answers:
    print(f"{CHECKS['one_of'](answer_text, 'no', ['yes', 'no'])!s:5}  {answer_text}")
print(CHECKS["json"]('{"city": "Rome"', '{"city": "Rome"}', []), " half an object is no object")

# %% [markdown]
# Now the record. It checks itself when it is made, so many broken instructions never reach the model.


# %%
def require(condition, complaint):
    if not condition:
        raise ValueError(complaint)


@dataclass(frozen=True)
class Instruction:
    name: str
    text: str  # with {input} where the input goes
    check: str  # a key of CHECKS
    dev: list  # (input, gold) pairs that the repair may look at
    test: list  # held-out pairs: measured, never looked at
    outputs: tuple = ()  # the allowed outputs; empty: free text
    rewrites: tuple = ()  # other texts for the same instruction

    def __post_init__(self):
        validate(self)


# %%
def validate(i):
    require(i.check in CHECKS, f"unknown check {i.check!r}, choose one of {', '.join(CHECKS)}")
    require(all("{input}" in text for text in (i.text, *i.rewrites)), "a text has no {input}")
    golds = {gold for _, gold in [*i.dev, *i.test]}
    require(golds <= set(i.outputs or golds), "a gold answer is not among the outputs")


def read(path):
    """One Instruction per line; every complaint names its line."""
    records = []
    for number, line in enumerate(path.open(encoding="utf-8"), start=1):
        try:
            records.append(Instruction(**json.loads(line)))
        except (TypeError, ValueError) as problem:
            raise ValueError(f"{path.name}, line {number}: {problem}") from problem
    return records


# %% [markdown]
# The format is JSONL: one JSON object per line. A line can be added, reviewed and blamed on its own.
#
# *Predict: we spoil line 2 of a two-line file in three ways. What should each message tell you?*

# %% tags=["nbval-check-output"]
good = '{"name": "a", "text": "Say {input}.", "check": "exact", "dev": [["x", "x"]], "test": [["y", "y"]]}'
spoiled = [good.replace("exact", "exakt"), good.replace("{input}", "it"), good.replace('"test"', '"tset"')]
path = run.out / "spoiled.jsonl"
for line in spoiled:
    path.write_text(good + "\n" + line + "\n", encoding="utf-8")
    with expect_error(ValueError, match="line 2"):
        read(path)

instructions = read(run.root / "data" / "instructions" / "lesson00.jsonl")
instructions = [replace(i, dev=i.dev[:n_dev], test=i.test[:n_test]) for i in instructions]
for i in instructions:
    print(f"{i.name:9} {i.check:8} {i.text}")

# %% [markdown]
# **Observe.** File, line, complaint. Remember the third one: a misspelt name is *refused* here. Section 9 shows a
# widely used library that swallows one. The real file is clean: eight instructions.
#
# ## 2 A finite core, and what "infinite" honestly means
#
# The source articles promise an *infinite* instruction set. Nobody can write infinitely many records. But
# programmers know the trick: a small core, and a way to *compose*. Here is a core of eight, each from one type to
# one type.
#
# A program of depth $d$ is a chain of $d$ instructions. There are $k^d$ sequences of $k$ instructions, but most are
# nonsense: you cannot double a word. A sequence is *well-formed* if each instruction takes what the one before
# gives.
#
# Let $A_{st}$ be the number of instructions that take type $s$ and give type $t$. A well-formed program that starts
# with a string is a path through the types, and matrix powers count paths:
#
# $$ N_d \;=\; \sum_t \bigl(A^d\bigr)_{\texttt{str},\,t}. $$
#
# Proof, in one line: $(A^d)_{st} = \sum_u (A^{d-1})_{su} A_{ut}$ extends every path of length $d-1$ by one
# instruction.
#
# *Predict: do the well-formed programs still grow exponentially? With which base?*
#
# A formula deserves a second opinion: the third cell below lists every sequence, and keeps those that fit.

# %%
CORE = {
    "upper": (str, str, str.upper),
    "lower": (str, str, str.lower),
    "reverse": (str, str, lambda s: s[::-1]),
    "first": (str, str, lambda s: s[:1]),
    "last": (str, str, lambda s: s[-1:]),
    "length": (str, int, len),
    "double": (int, int, lambda n: 2 * n),
    "even": (int, bool, lambda n: n % 2 == 0),
}

# %% tags=["nbval-check-output"]
types = [str, int, bool]
A = np.array([[sum(c[:2] == (s, t) for c in CORE.values()) for t in types] for s in types])
print(A)


def well_formed(d):
    """N_d: programs of depth d that start with a string."""
    return int(np.linalg.matrix_power(A, d)[0].sum())


print([well_formed(d) for d in range(1, 8)])


# %% tags=["nbval-check-output"]
def fits(program):
    kinds = [str, *(CORE[name][1] for name in program)]
    return all(CORE[name][0] is kind for name, kind in zip(program, kinds, strict=False))


for d in range(1, 6):
    listed = sum(fits(program) for program in product(CORE, repeat=d))
    assert listed == well_formed(d)
    print(f"depth {d}: {len(CORE) ** d:6} sequences, {listed:5} well-formed")

# %% [markdown]
# **Observe.** The well-formed programs are fewer, but they too multiply by about five at every step (five is the
# largest eigenvalue of $A$; here, exactly, $N_{d+1} = 5N_d + 2$). For every depth there is a deeper program, so the
# set of all programs has no end. That much of "infinite" is true, and it is cheap. Now the question that the source
# articles never ask.
#
# *Predict: how many **different** things do these programs do? Programs that agree on all probe words count once.*


# %% tags=["nbval-check-output"]
def meanings(core, depth, probes=("Ab", "cDE", "Fghij")):
    """Different behaviours on the probe words, reached with 1…d instructions, for d = 1…depth."""
    frontier, seen, counts = {(str, probes)}, set(), []
    for _ in range(depth):
        steps = [(kind, values, core[name]) for kind, values in frontier for name in core]
        frontier = {(c[1], tuple(map(c[2], values))) for kind, values, c in steps if c[0] is kind}
        seen |= frontier
        counts.append(len(seen))
    return counts


strings_only = {name: c for name, c in CORE.items() if c[:2] == (str, str)}
print("programs, strings only:", [len(strings_only) ** d for d in range(1, 9)])
print("meanings, strings only:", meanings(strings_only, 8))
print("meanings, whole core  :", meanings(CORE, 8))

# %%
depths = list(range(1, 11))
curves = {
    "all sequences": [len(CORE) ** d for d in depths],
    "well-formed": [well_formed(d) for d in depths],
    "meanings (depth 1…d)": meanings(CORE, len(depths)),
    "meanings, strings only": meanings(strings_only, len(depths)),
}
figure, ax = plotting.axes(width=6.0, height=3.4, dpi=72)
for i, (label, values) in enumerate(curves.items()):
    ax.semilogy(depths, values, label=label, **plotting.style(i))
ax.set(xlabel="depth d", ylabel="count (log scale)", title="Expressions explode; meanings need not")
ax.legend()
_ = run.figure(figure, "00_growth")

# %% [markdown]
# **Observe.** On strings alone, the programs multiply by five at every step, and the meanings stop at twelve: three
# cases (untouched, upper, lower) times four shapes (whole, reversed, first, last). Probe words can miss a
# difference, never invent one. None was missed: the last case wins, `reverse` swaps `first` and `last`, and case and
# shape do not disturb each other. (For plain English letters: `"ß".upper()` is two letters, which adds meanings.)
# `double` lifts the ceiling. Each step now adds two meanings, one more doubling of the length and one of the number
# one: a line, not an exponential.
#
# *The number of expressions says little about the number of functions.* And neither says anything about
# **competence**, the share that an executor, say a model, gets right. Suppose it gets each step right with
# probability $p$, independently. Then a program of depth $d$ comes out right with probability $p^d$, and falls below
# one half as soon as $d > \ln\tfrac12 / \ln p$.

# %% tags=["nbval-check-output"]
for p in (0.99, 0.95, 0.9, 0.7):
    print(f"p = {p}: below one half from depth {math.floor(math.log(0.5) / math.log(p)) + 1}")

# %% [markdown]
# This is a model, not a result: real errors need be neither independent nor final. One source article claims that
# *any* instruction is executed, however complex. Lesson 15 tests the claim with accuracy against depth.
#
# ## 3 From instruction to executable instruction
#
# One source article writes $Y = M_\theta(I)$: a model $M$ with learned numbers $\theta$ (its *parameters*) turns an
# instruction into an answer. It says that $I$ is first turned into an executable $I_{\text{exec}}$. It never shows
# how. The idea is worth keeping, so here it is: **an instruction is executable when nothing is left to guess.**
#
# For the core of section 2, *compiling* means: look up every name, check every type, then keep only the functions.


# %%
def compile_program(program):
    """I → I_exec: the functions of "reverse | upper", in order. ValueError where a step cannot follow."""
    functions, kind = [], str
    for name in (part.strip() for part in program.split("|")):
        require(name in CORE, f"unknown instruction {name!r}")
        takes, gives, function = CORE[name]
        require(takes is kind, f"{name} takes {takes.__name__}, but gets {kind.__name__}")
        functions.append(function)
        kind = gives
    return functions


def execute(functions, value):
    for function in functions:
        value = function(value)
    return value


# %% tags=["nbval-check-output"]
for program in ("reverse | upper", "last | length | double", "length | even"):
    print(f"{program:24} → {execute(compile_program(program), 'river')!r}")
for program in ("upper | double", "reverse | translate"):
    with expect_error(ValueError):
        compile_program(program)

# %% [markdown]
# A language model reads *tokens*: pieces of text, each with a number, its id. The *tokenizer* cuts the text. So the
# executable form is a row of token ids, plus a rule when to stop. The **chat template** makes it: a small program,
# stored with the tokenizer, that wraps messages in markers.
#
# *Predict: you send six words. How many of the tokens that the model reads did you write? What else is in there?*

# %% tags=["nbval-check-output"]
tokenizer = models.load_tokenizer("decoder", model_name)
tokenizer.padding_side = "left"  # section 4 says why


def render(text, value):
    """I → I_exec: the chat string that the model continues."""
    messages = [{"role": "user", "content": text.replace("{input}", value)}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


yours = "What is the capital of {input}?"
rendered = render(yours, "Italy")
n_yours, n_all = (len(tokenizer(text)["input_ids"]) for text in (yours.replace("{input}", "Italy"), rendered))
print(f"{rendered}\n--- {n_all} tokens, {n_yours} of them yours")

# %% [markdown]
# **Observe.** The template slipped in a system message: a name, a maker, a character. No argument asked for it, no
# warning told you. Every score in this lesson is a score of *your text and theirs together*. So record the rendered
# string with a run.
#
# ## 4 Answered
#
# The model is SmolLM2-135M-Instruct (Allal et al., 2025). Three facts about it belong next to every number below. It has
# 135 million parameters, tiny by today's measure. Its weights were stored with **4 bits** each and de-quantised to
# floats, so its scores may differ from the original's. And it is **already instruction-tuned**, on data that we did not
# inspect: nothing here shows what instruction tuning does (lesson 14 does).
#
# Answering is a loop. The model gives each of the $V$ tokens that it knows a score (a *logit*) for coming next. Take
# the largest, append, repeat. This is *greedy* decoding: nothing is drawn at random. By hand:

# %%
model = models.load_decoder(model_name, run.device)
print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, {model.dtype}, {model.device}")


@torch.inference_mode()
def greedy(prompt, steps):
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"].to(model.device)
    for _ in range(steps):
        token = model(ids).logits[:, -1].argmax(-1, keepdim=True)  # scores (1, V) → the best id (1, 1)
        ids = torch.cat([ids, token], dim=1)
    return ids[0, -steps:].tolist()


by_hand = greedy(render(yours, "France"), 6)
print(repr(tokenizer.decode(by_hand)))

# %% [markdown]
# **With the library.** `generate` does the same, and remembers what it computed for earlier tokens, so that it need
# not read the prompt again for every new token. It must give the same tokens, as long as no two logits are so close
# that rounding decides between them.


# %%
@torch.inference_mode()
def generate(prompts, steps):
    """New token ids, shape (len(prompts), at most steps)."""
    batch = tokenizer(prompts, return_tensors="pt", padding=True).to(model.device)
    ids = model.generate(**batch, max_new_tokens=steps, do_sample=False)
    return ids[:, batch["input_ids"].shape[1] :]


assert generate([render(yours, "France")], 6)[0].tolist() == by_hand
print("hand-written loop and generate: the same 6 tokens")

# %% [markdown]
# ### The padding trap
#
# A batch is a rectangle; short prompts are filled up with *padding*. The model continues from the **last** column.
#
# *Predict: what does the short prompt's answer look like if the padding is on the right, where many tokenizers put
# it?*

# %%
pair = [render(yours, "Italy"), render("Name a colour. " * 4 + "{input}", "Reply with one word.")]
for side in ("right", "left"):
    tokenizer.padding_side = side
    print(f"{side:5}", repr(tokenizer.decode(generate(pair, 8)[0])))
alone = tokenizer.decode(generate(pair[:1], 8)[0])
print("alone", repr(alone))

# %% [markdown]
# **Observe.** Padded on the left, the short prompt is answered as it would be alone (wrongly, but that is its own
# answer). Padded on the right, the model has to continue after the padding: here it prints a line break and ends the
# turn. No exception; the library logged one line.
#
# The same trap has a second jaw. Which token is the padding? The tokenizer also makes an *attention mask*: one for
# each real token, zero for padding.

# %% tags=["nbval-check-output"]
print(f"padding is {tokenizer.pad_token!r}, id {tokenizer.pad_token_id}")
print(f"end of turn is {tokenizer.eos_token!r}, id {tokenizer.eos_token_id}")
texts = [rendered + f"{city}.{tokenizer.eos_token}" for city in ("Rome", "It is the city of Rome itself")]
batch = tokenizer(texts, return_tensors="pt", padding=True)
not_pad = batch["input_ids"] != tokenizer.pad_token_id
ends = batch["input_ids"] == tokenizer.eos_token_id
print("ends kept by `ids != pad`:", (ends & not_pad).sum(1).tolist())
print("ends kept by the attention mask:", (ends & batch["attention_mask"].bool()).sum(1).tolist())

# %% [markdown]
# **Observe.** Padding and end-of-turn are the *same id*. Training hides the padding among the *labels*, the tokens
# to be predicted. Whoever hides them "where the id is padding" hides every end of turn too: the model is never
# taught to stop. Use the attention mask: then each row keeps all of its ends, those of system, user and assistant.
# Lesson 14 will need this.
#
# Now the real thing: many prompts, batches of similar length, and a memory, so that each prompt is answered once. An
# answer is cut after a fixed, small number of tokens.

# %%
ANSWERS = {}  # prompt → answer; valid for this model and this number of steps only


def answer(prompts):
    """Greedy answers in the order of the prompts; prompts of similar length share a batch."""
    queue = sorted(set(prompts) - ANSWERS.keys(), key=len)
    for i in range(0, len(queue), run.budget.batch_size):
        batch = queue[i : i + run.budget.batch_size]
        ids = generate(batch, run.budget.max_new_tokens)
        ANSWERS.update(zip(batch, tokenizer.decode(ids, skip_special_tokens=True), strict=True))
    return [ANSWERS[prompt].strip() for prompt in prompts]


# %% [markdown]
# ## 5 Scored
#
# A score is a row of yes and no, one per input, in the order of the inputs. Keep the row: section 6 compares rows
# input by input. Mean scores cannot show that.


# %%
def score(instruction, text, pairs):
    """One boolean per (input, gold) pair: does the answer pass the check?"""
    replies = answer([render(text, value) for value, _ in pairs])
    check = CHECKS[instruction.check]
    return [check(reply, gold, instruction.outputs) for reply, (_, gold) in zip(replies, pairs, strict=True)]


everything = [render(i.text, value) for i in instructions for value, _ in [*i.dev, *i.test]]
answer(everything)
print(f"{len(ANSWERS)} different prompts answered, at most {run.budget.max_new_tokens} tokens each")
for i in instructions:
    print(f"{i.name:9} {i.dev[1][0][:26]:26} → {answer([render(i.text, i.dev[1][0])])[0]!r}")

# %% [markdown]
# Read these answers before any score. *Predict, for each of the eight instructions: nearly always right, sometimes,
# never?*


# %%
def best_constant(golds):
    return max(golds.count(gold) for gold in golds)


before = {i.name: score(i, i.text, i.test) for i in instructions}
run.record(**{f"before_{name}": sum(row) for name, row in before.items()})
print("instruction  dev    test   95 % interval   best constant answer")
for i in instructions:
    row, constant = before[i.name], best_constant([gold for _, gold in i.test])
    share = intervals.wilson_interval(sum(row), len(row))
    counts = f"{sum(score(i, i.text, i.dev)):3}/{len(i.dev)} {sum(row):4}/{len(row)}"
    print(f"{i.name:11} {counts}   {share.low:.2f} to {share.high:.2f} {constant:11}/{len(row)}")
for i in (i for i in instructions if i.outputs):
    said = [set(words(reply)) & set(i.outputs) for reply in answer([render(i.text, x) for x, _ in i.test])]
    print(i.name, "says", Counter(" and ".join(sorted(labels)) or "none of them" for labels in said))

# %% [markdown]
# **How far does a count carry?** Wilson's interval answers: all shares that would make such a count unsurprising. The
# recipe catches the true share about nineteen times in twenty, for some shares and sizes a little less. It does not
# collapse to a point when every answer passes or none does. It covers *new inputs of the same kind* (as if ours were
# drawn at random), for this text and this model. Lesson 03 has the formula.
#
# **Observe.** A share near one half on a balanced set of two outputs can mean "knows half of them", or "always says
# the same word". The last lines tell which: this model has a favourite word for `animal`, and one for `sentiment`.
# Where the score is no better than the best constant answer, nothing shows that the instruction was followed.
#
# ## 6 Learn from the score
#
# A *feedback rule* changes the instruction set when the scores say so. Ours has four steps:
#
# 1. An instruction **fails** if it passes at most half of its development inputs.
# 2. For a failing instruction there are three rewrites, written by hand with the answers to development inputs in
#    view. None was tried on a held-out input before the file was closed.
# 3. Keep the text with the most passes on the development inputs. On a tie, the earlier one stays.
# 4. Measure the winner once, on the **held-out** inputs, against the old text, input by input.
#
# Step 4 matters because step 3 picks a maximum. The best of four noisy scores tends to look better than it is.


# %%
def repair(instruction, dev):
    """The text with the most passes on dev; the first one wins a tie."""
    texts = [instruction.text, *instruction.rewrites]
    return max(texts, key=lambda text: sum(score(instruction, text, dev)))


failing = [i for i in instructions if 2 * sum(score(i, i.text, i.dev)) <= len(i.dev)]
answer([render(text, value) for i in failing for text in i.rewrites for value, _ in i.dev])
chosen = {i.name: repair(i, i.dev) for i in failing}
for i in failing:
    passes = [sum(score(i, text, i.dev)) for text in (i.text, *i.rewrites)]
    print(f"{i.name:9} passes of {len(i.dev)}: {passes}  →  {chosen[i.name]!r}")

# %% [markdown]
# *Before you look at the held-out inputs, write down: which repairs will hold? Which winner was just lucky?*
#
# We need an interval for a **paired** comparison. Each held-out input was answered twice. Inputs with the same
# verdict both times say nothing about the difference. Let $m$ be the number of inputs whose verdict changed, and $r$
# those that changed from wrong to right. If the old and the new text are equally good on inputs of this kind, each
# change is the toss of a fair coin. So ask: for which $q$ would $r$ heads in $m$ tosses be unsurprising, if heads had
# probability $q$?
#
# $$ \Pr(X \ge r \mid q) \ge \tfrac{\alpha}{2} \quad\text{and}\quad \Pr(X \le r \mid q) \ge \tfrac{\alpha}{2},
# \qquad X \sim \text{Binomial}(m, q). $$
#
# This is Clopper and Pearson's exact interval for $q$, with $\alpha = 0.05$. The repair is distinguishable from luck
# if one half is outside. If $m$ of $n$ verdicts changed again, the accuracy would change by $(2q - 1)\, m / n$.


# %% tags=["nbval-check-output"]
def tail(q, m, counts):
    """P(X in counts) for X ~ Binomial(m, q); q may be an array."""
    return sum(math.comb(m, k) * q**k * (1 - q) ** (m - k) for k in counts)


def exact_interval(r, m, alpha=0.05):
    """All q that r good changes out of m do not contradict."""
    q = np.linspace(0, 1, 100_001)
    unsurprising = np.minimum(tail(q, m, range(r, m + 1)), tail(q, m, range(r + 1))) >= alpha / 2
    return q[unsurprising][0], q[unsurprising][-1]


for r, m in ((5, 5), (6, 6), (9, 12), (3, 9)):
    low, high = exact_interval(r, m)
    library = binomtest(r, m).proportion_ci(method="exact")
    assert max(abs(low - library.low), abs(high - library.high)) < 1e-5
    print(f"{r} of {m} changes are good: q between {low:.3f} and {high:.3f}, as in scipy")

# %% [markdown]
# **Observe.** Five good changes out of five do not exclude a coin. Six out of six do. Scipy solves for the two ends,
# without a grid; the numbers agree to the last grid step.


# %%
def compare(old, new):
    """Repaired, broken, and the exact interval of the share of good changes, for paired rows."""
    r, b = sum(map(operator.lt, old, new)), sum(map(operator.gt, old, new))
    low, high = exact_interval(r, r + b)
    return r, b, low, high, "better" if low > 0.5 else "worse" if high < 0.5 else "undecided"


answer([render(chosen[i.name], value) for i in failing for value, _ in i.test])
after = {i.name: score(i, chosen[i.name], i.test) for i in failing}
run.record(**{f"after_{name}": sum(row) for name, row in after.items()})

# %%
verdicts = {}
print("             dev              held out")
print("instruction  chosen text      before   after  repaired  broken  good changes  verdict")
for i in failing:
    old, new, on_dev = before[i.name], after[i.name], sum(score(i, chosen[i.name], i.dev))
    r, b, low, high, verdict = compare(old, new)
    verdicts[i.name] = "old text kept" if chosen[i.name] == i.text else verdict
    counts = f"{on_dev:6}/{len(i.dev)} {sum(old):14}/{len(old)} {sum(new):4}/{len(new)} {r:8} {b:8}"
    print(f"{i.name:10} {counts}    {low:.2f} to {high:.2f}  {verdicts[i.name]}")

# %%
figure, ax = plotting.axes(width=6.4, height=3.6, dpi=80)
for k, rows in enumerate([before, after]):
    mark = {**plotting.style(3 * k), "linestyle": "none", "fillstyle": "full" if k else "none"}
    for y, name in enumerate(reversed(before)):
        if name in rows:
            share = intervals.wilson_interval(sum(rows[name]), len(rows[name]))
            ax.hlines(y - 0.3 * k, share.low, share.high, color=mark["color"])
            ax.plot(
                share.mean,
                y - 0.3 * k,
                **mark,
                label=["before", "after (failing only)"][k] if y == 0 else None,
            )
ax.set(yticks=range(len(before)), yticklabels=list(before)[::-1], xlabel="share of held-out inputs that pass")
ax.set(xlim=(-0.04, 1.04), title="Before and after the feedback rule (95 % Wilson intervals)")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
_ = run.figure(figure, "00_before_after")

# %% [markdown]
# **Observe.** Read the verdicts, not the wishes. (The figure's intervals are for each share alone; the verdicts come
# from the pairs.) In the stored run:
#
# - `json` is a real repair. In the example above the right city was there, but inside a code fence, and cut off: no
#   parser accepts that. The stop rule is part of $I_{\text{exec}}$.
# - `animal` looked nearly as good: most development inputs passed. On held-out inputs the columns *repaired* and
#   *broken* are both large, and one half is inside the interval.
# - `sum` is a warning. One more pass on the development inputs made the rule change the text, and the held-out count
#   went *down*. One half is still inside, so this is no proof of harm. But the score was *selected* for rising.
# - `sentiment` and `upper` kept their text. They stay in the set as known failures. `upper` has the strictest check:
#   the answer is compared as a whole. The answer to *river* that section 5 printed is a sentence, so it fails
#   whatever its letters are, and the row does not say whether the model could spell the word.
#
# One source article expects its feedback loop to improve accuracy step by step. Ours improved one instruction
# clearly. And the more repairs you test, the more luck you find. Lesson 17 runs such a loop for many rounds.
#
# ## 7 Count the lines
#
# The chain is five functions. Did the title lie?

# %% tags=["nbval-check-output"]
chain = {
    "written": read,
    "rendered": render,
    "answered": answer,
    "scored": score,
    "learn from the score": repair,
}
lines = {box: len(inspect.getsource(function).splitlines()) for box, function in chain.items()}
for box, function in chain.items():
    print(f"{box:21} {function.__name__:7} {lines[box]:2} lines")
print(f"{'together':29} {sum(lines.values()):2} lines, docstrings included")
assert sum(lines.values()) <= 30

# %% [markdown]
# So the title counts these five functions and nothing that they call. The record, its validation, the checks,
# `generate`, the imports, and the comparison on held-out inputs come on top.
#
# ## 8 The map of the course
#
# Every box of the chain is the simplest thing that works. Each later lesson replaces one. Lessons that exist today
# are found by looking into the folder, so this map cannot promise more than there is. (PEFT: parameter-efficient
# fine-tuning.)

# %%
COURSE = {
    "written": "16 Automatic instruction construction; 20 Label efficiency and contrastive learning",
    "rendered": "10 PEFT III: soft prompts; 12 Zero-shot, in-context learning, calibration; "
    "13 Prompt-based fine-tuning and prompt search; 15 The instruction engine; 24 Knowledge: graphs, rules, retrieval",
    "answered": "04 Tokens and relations; 05 Extractive QA; 06 Causal LM loop and generative tasks; "
    "23 Multimodal instructions; 25 Compression and deployment",
    "scored": "03 The classification loop, repaired, and honest evaluation; 19 Robustness; "
    "21 Interpretability and causality; 22 Safety, ethics and games",
    "learn from the score": "01 Empirical risk and the gradient of cross-entropy; 02 Optimisers and schedules; "
    "07 Overfitting laboratory; 08 PEFT I: adapters, IA3, BitFit; 09 PEFT II: LoRA family and AdaLoRA; 11 The PEFT "
    "arena; 14 Instruction tuning and held-out tasks; 17 Feedback loops and preferences; 18 Continual learning",
    "the whole chain": "00 An instruction set in thirty lines; 26 Capstones and the claims ledger",
}
lessons = {box: [title.split(" ", 1) for title in titles.split("; ")] for box, titles in COURSE.items()}
exist = {path.name[:2] for path in (run.root / "notebooks" / "source").glob("[0-9][0-9]_*.py")}

# %%
figure, ax = plotting.axes(width=9.8, height=4.8, dpi=85)
ax.set(xlim=(0, 5), ylim=(-9.5, 1.9), title="Which lesson replaces which box (bold: exists; italic: planned)")
ax.axis("off")
loop = {"arrowstyle": "->", "linestyle": "--", "connectionstyle": "arc3,rad=0.08"}
ax.annotate("", (0.42, 1.1), (4.42, 1.2), arrowprops=loop)
ax.annotate("", (4.98, 0.5), (0, 0.5), arrowprops={"arrowstyle": "->", "lw": 1.5}, zorder=0)
frame = {"boxstyle": "round,pad=0.5", "facecolor": "0.88", "edgecolor": "black"}
for x, (box, titles) in enumerate(lessons.items()):
    left, top = (x, 0.5) if x < 5 else (0, -5.5)
    ax.text(left + 0.42, top, box.replace(" from ", "\nfrom "), ha="center", va="center", bbox=frame)
    for y, (number, title) in enumerate(titles):
        looks = {"weight": "bold"} if number in exist else {"style": "italic", "color": "0.3"}
        label = fill(f"{number} {title}", 30, subsequent_indent="     ")
        ax.text(left, top - 1.4 - y, label, fontsize=7.2, va="center", **looks)
_ = run.figure(figure, "00_map")

# %%
from IPython.display import Markdown

rows = sorted((number, title, box) for box, titles in lessons.items() for number, title in titles)
assert [number for number, _, _ in rows] == [f"{n:02}" for n in range(27)]
table = "| lesson | replaces | today |\n|---|---|---|\n"
table += "\n".join(
    f"| {n} {title} | {box} | {'exists' if n in exist else 'planned'} |" for n, title, box in rows
)
Markdown(table)

# %% [markdown]
# ## 9 A famous mistake: the instruction that nobody refused
#
# BERT is a model that reads a text. To *fine-tune* it is to train it further, so that a number, the *loss*, falls.
# Two of the source articles do so for question answering: the *head*, the last layer, marks where the answer starts
# and ends. They hand the answers over as `labels=`. This head calls them `start_positions=` and `end_positions=`. We
# rebuilt the call on a tiny random BERT.
#
# *Predict: what does a library do with an argument that it does not know?*

# %%
from transformers import BertConfig, BertForQuestionAnswering

torch.manual_seed(run.seed)
tiny = BertConfig(
    vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
)
head = BertForQuestionAnswering(tiny).eval()
ids = torch.randint(100, (4, 12))  # 4 questions of 12 tokens
first, last = torch.tensor([3, 5, 1, 7]), torch.tensor([4, 5, 2, 9])

outputs = head(input_ids=ids, labels=torch.stack([first, last], dim=1))
print("loss:", outputs.loss)
with expect_error(AttributeError, match="backward"):
    outputs.loss.backward()

# %% [markdown]
# **Observe.** transformers 5 *swallowed* the argument: no loss, no error. The program dies on the next line with a
# message about `None`, far from the cause. (Older versions refused it: the very same mistake turned from loud to
# silent.) A loop that only reads the start and end scores would never notice.
#
# It is the misspelt field of section 1 again. Our record refused it because a dataclass knows its fields. Give the
# call the same manners:


# %%
def strict(model, **arguments):
    """Call the model; ValueError for an argument that its forward does not name."""
    known = [name for name in inspect.signature(model.forward).parameters if name != "kwargs"]
    for name in arguments:
        require(name in known, f"{type(model).__name__} does not take {name}=; it takes {', '.join(known)}")
    return model(**arguments)


with expect_error(ValueError, match="labels"):
    strict(head, input_ids=ids, labels=first)
loss = strict(head, input_ids=ids, start_positions=first, end_positions=last).loss
print(f"loss: {loss:.2f}; ln 12 = {math.log(12):.2f}")
with expect_error(Exception, match="no loss"):
    models.must_have_loss(head(input_ids=ids, lables=first))

# %% [markdown]
# The loss is now a number, and a sensible one: a model that knows nothing spreads its bets over 12 positions, and
# pays about $\ln 12$. Lesson 01 derives this, and the package keeps the guard as `models.must_have_loss`.
#
# ## 10 Numbers that cannot exist, and papers that nobody found
#
# One source article prints a program that trains BERT to answer questions. Its evaluation ends in
# `print(f"Accuracy: {acc:.2f}")`. Suppose, it says, that we use the question-answering data of CoNLL-2003; then it
# shows the output `Accuracy: 0.920` and praises it. We need not run it to know three things.
#
# **First: the format string.** *Predict: for which `acc` does `{acc:.2f}` print three decimals?*

# %% tags=["nbval-check-output"]
acc = 0.92
print(f"the program would print {acc:.2f}; the article shows 0.920")
printed = {f"{k / n:.2f}" for n in range(1, 501) for k in range(n + 1)}
print(f"{len(printed)} different outputs for all k/n up to n = 500, all of length {set(map(len, printed))}")
print("0.920 among them:", "0.920" in printed)

# %% [markdown]
# `.2f` means two digits after the point, for every finite number. So the answer is: for none, and the article's output
# was not printed by its program. That is a proof. It does not tell *why*: the program may have been edited later, or the
# output invented.
#
# **Second: the data set.** CoNLL-2003 is a shared task on named-entity recognition: words, tagged as persons,
# places, organisations (Tjong Kim Sang and De Meulder, 2003). It has no questions. There is no "CoNLL-2003 QA" to
# be accurate on.
#
# **Third: the sample size.** An accuracy on $n$ items is $k/n$ with a whole $k$. A text with $D$ decimals, read as
# the whole number $a$ over $10^D$, is *possible* if some $k/n$ rounds to it:
#
# $$ \Bigl|\frac{k}{n} - \frac{a}{10^D}\Bigr| \le \frac{1}{2 \cdot 10^D}
# \quad\Longleftrightarrow\quad 2\,\bigl|k \cdot 10^D - a\,n\bigr| \le n. $$
#
# The second form has whole numbers only: no rounding, no doubt. Both ways to round a tie are allowed. Psychologists
# know it as the **GRIM** test (Brown and Heathers, 2017).
#
# *Predict: does the test convict `0.920` for every test-set size? From which size on is it of no use?*


# %% tags=["nbval-check-output"]
def possible(text, n):
    """Can an accuracy on n items be reported as this text, for instance "0.920"?"""
    whole, decimals = text.split(".")
    D = len(decimals)
    a = int(whole) * 10**D + int(decimals)
    nearest = a * n // 10**D
    return any(2 * abs(k * 10**D - a * n) <= n for k in (nearest, nearest + 1) if k <= n)


for n in range(1, 120):  # every text that Python prints must count as possible
    assert all(possible(f"{k / n:.3f}", n) for k in range(n + 1))
print("0.920 can come from n =", [n for n in range(1, 160) if possible("0.920", n)])

# %%
counts = np.unique(np.geomspace(2, 2000, 60).astype(int)).tolist()
figure, ax = plotting.axes(width=6.0, height=3.2, dpi=72)
for i, D in enumerate((2, 3)):
    texts = [f"{a / 10**D:.{D}f}" for a in range(10**D + 1)]
    shares = [np.mean([possible(text, n) for text in texts]) for n in counts]
    ax.plot(counts, shares, label=f"{D} decimals", markevery=6, **plotting.style(i))
ax.set(xscale="log", xlabel="test items n", ylabel="share of texts that are possible")
ax.set_title("GRIM bites while n is below 10 to the power D")
ax.legend()
_ = run.figure(figure, "00_grim")

# %% [markdown]
# **Observe.** With three decimals the curve reaches one at a thousand items: from there on every text is possible, and
# the test is blunt. A test set of usual size could well give `0.920`. The sample size alone does not convict; the format
# string does. *Use the test that this number could have failed.* Our own counts are printed as counts, so that nobody
# has to guess $n$.
#
# ### Papers that nobody found
#
# A citation is a record, too: an exact **title** (ours are cut for the page), **authors**, a **venue** with year, and
# an **identifier** that a library can resolve. Below are five of the works that the source articles name.


# %% tags=["nbval-check-output"]
Citation = namedtuple("Citation", "title authors venue identifier", defaults=("", "", ""))
cited = [
    Citation("Parameter-Efficient Transfer Learning for NLP", "Houlsby", "ICML 2019", "arXiv:1902.00751"),
    Citation(
        "Adaptive Budget Allocation for Parameter-Efficient …", "Zhang", "ICLR 2023", "arXiv:2303.10512"
    ),
    Citation("Language Models are Unsupervised Multitask Learners", "Radford", "OpenAI report, 2019"),
    Citation("Premier: A Parameter-Efficient Multitask Instruction-Tuned Language Model"),
    Citation("Instruction Tuning: Simplifying Instruction-Free Language Models for Complex …"),
]
for citation in cited:
    missing = [field for field, value in citation._asdict().items() if not value]
    print(f"{citation.title[:52]:52}  missing: {', '.join(missing) or 'nothing'}")
arxiv = re.compile(r"arXiv:\d{2}(0[1-9]|1[0-2])\.\d{4,5}")  # year, month, number: the form, no more
print([bool(arxiv.fullmatch(i)) for i in ("arXiv:1902.00751", "arXiv:2313.01234", "arXiv:19.751")])

# %% [markdown]
# **Observe.** The first two (Houlsby et al., 2019; Zhang et al., 2023) have all their fields. There are three kinds of
# trouble, and none is proof.
#
# - *A missing identifier is not proof.* The third work is real and famous; it appeared as a report, without one.
# - *Another title is not proof.* The source articles cite the second work by a descriptive title ("Adaptive
#   Low-Rank …"), not by its own. Search by authors and year as well.
# - *The last two were not found at all*: no author, venue or identifier is given, and repeated searches for the
#   exact titles returned nothing. We treat them as **unverified**: a claim must not lean on a paper that nobody can open.
#
# The form of an identifier can be checked offline; that it leads to *this* paper cannot. Open it, compare the
# title, and read the sentence that you cite. The source articles say that adapters work "without adding
# parameters". The first paper above adds a few percent per task, and says so in its abstract. A real paper, cited
# for what it denies.
#
# ## 11 What we showed, and what we did not
#
# **What we showed.** The numbers of this run, from its record:

# %%
counts = Counter(verdicts.values())
run.record(answers=len(ANSWERS), held_out=n_test * len(before), failing=len(failing), better=counts["better"])
run.record(worse=counts["worse"], undecided=counts["undecided"], kept=counts["old text kept"])
run.record(passed_before=sum(sum(row) for row in before.values()))
run.record(passed_after=sum(sum(after.get(name, row)) for name, row in before.items()))
m = run.metrics
print(f"{m['answers']} answers by SmolLM2-135M-Instruct (4-bit, de-quantised, already instruction-tuned)")
print(
    f"held-out inputs that pass: {m['passed_before']} before, {m['passed_after']} after, of {m['held_out']}"
)
print(f"{m['failing']} instructions failed. After the rule: {dict(counts)}")
if run.profile == "smoke":
    print("smoke run, not a result")

# %% [markdown]
# Look up which instruction carries the change of the total.
#
# **What we did not show.**
#
# - That the repaired texts are good for *another* model. They were chosen for this one checkpoint, 4-bit and all.
# - That the intervals hold for other *kinds* of input. They cover more nouns, more countries; not riddles.
# - That the rule *learns*. It selects among texts that we wrote. Lessons 13 and 16 let programs write them, lesson 17
#   changes the model.
# - That eight development inputs are enough to choose by. Of three texts that they chose, one held; two stayed undecided.
# - That composition works in a language model. Section 2 counts programs; lesson 15 measures competence against
#   depth.
#
# **What should I set?**
#
# | you want | set | check |
# |---|---|---|
# | an answer from a chat model | `apply_chat_template(..., add_generation_prompt=True)` | print the rendered text once |
# | the same answer every time | `generate(..., do_sample=False)` | two calls, equal ids |
# | many prompts in one batch | `padding_side="left"`, and pass the `attention_mask` | the answer alone and in the batch |
# | labels without padding | mask by the attention mask, never by the padding id | the end of turn is a target |
# | to say that a wording is better | choose on development inputs, measure on held-out ones | count the changed verdicts |
# | to trust a share in a paper | find a whole number of items that gives it | section 10 |
#
# **Recall.** Close the notebook and answer.
#
# 1. Name the four parts of an instruction. Which one turns "it works" into a statement?
# 2. A core has five instructions from strings to strings. How many programs of depth four? Why does that say little about
#    meanings, and meanings little about competence?
# 3. Padding and end-of-turn share an id. What goes wrong if labels are masked by id, and what do you use instead?
# 4. A rewrite wins on eight development inputs. Why measure it again, and why do only the inputs whose verdict
#    changed count?
# 5. A paper reports `0.87` on 15 items. Is that possible? What about `0.85`?
#
# <details><summary>Answers</summary>
#
# 1. The text with a hole, inputs with gold answers, the allowed outputs, the check. The check makes it a statement.
# 2. $5^4$. Two programs may do the same, so there can be far fewer meanings. A model may fail at every step, so no such
#    count says anything of competence.
# 3. The end of turn vanishes from the labels, and the model never learns to stop. Use the attention mask.
# 4. It was chosen for its score, luck included. An input with the same verdict before and after prefers neither text.
# 5. Yes, thirteen of fifteen. No whole number of fifteen rounds to the other.
#
# </details>
#
# **References.**
#
# - Allal et al. (2025). SmolLM2: When Smol Goes Big. `arXiv:2502.02737`.
# - Brown and Heathers (2017). The GRIM test. *Social Psychological and Personality Science* 8(4).
#   `doi:10.1177/1948550616673876`.
# - Clopper and Pearson (1934). The use of confidence or fiducial limits. *Biometrika* 26(4).
# - Houlsby et al. (2019). Parameter-Efficient Transfer Learning for NLP. ICML. `arXiv:1902.00751`.
# - Tjong Kim Sang and De Meulder (2003). Introduction to the CoNLL-2003 Shared Task. ACL Anthology W03-0419.
# - Wilson (1927). Probable inference, the law of succession, and statistical inference. *JASA* 22.
# - Zhang et al. (2023). Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning. ICLR. `arXiv:2303.10512`.
#
# **Exercises:** [exercises/00_instruction_set.py](exercises/00_instruction_set.py). **Next:** lesson 01 opens the
# box *learn from the score*: the loss and its gradient, symbol by symbol.
