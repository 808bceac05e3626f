# ---
# jupyter:
#   instructlab:
#     id: "15"
#     title: The instruction engine
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 15: the instruction engine
#
# Each exercise is a box, a cell for your answer, and a checker in the cell below it. Replace the line that
# raises `NotImplementedError`, then run both cells. A checker that says no also says what probably went
# wrong.
#
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases
# that you do not see here, so test more than the checker does. Nothing on this page needs a file or a network.
# Exercise 15.4 trains a small model in a second or two; exercise 15.5 is an open project.
#
# {{overview}}

# %%
import math
import random
import re
import statistics

import torch

from instructlab_utils import checking

# %% [markdown]
# ## 15.1 Count before you run
#
# > ●●●○○ · 20 minutes · graded
#
# The language gets a loop: `repeat 3 ( reverse | double )`. Before anything runs, an engine wants to know whether a program
# is right, and how long it will take. Write the function that reads a program and executes nothing.
#
#     program = step { "|" step }
#     step    = a name in TYPES | "repeat" K "(" program ")"
#
# Tokens are separated by blanks; `tokens` below finds them. K is one to nine of the digits `0` to `9`. `TYPES` says what a
# step takes and gives. The body of a `repeat` must give the type that it takes, *whatever K is*: also for 0 and 1.
#
# `plan(text, limit)` returns `(type, steps)`: the type that the program gives for a *list*, and how many steps of `TYPES` a
# run would execute. A `repeat` itself costs nothing. It raises
#
# - `ValueError` with a message that begins with `column C:` for a mistake; C counts from 1. For a token that cannot stand
#   there, C is its column (a token is missing: one behind the last character, as `tokens` has it). For a step that gets the
#   wrong type, C is the column of the step, and of the word `repeat` for a body that gives another type than it takes;
# - `ValueError` with the column of the bracket for the `(` that opens a 21st bracket inside 20 others;
# - `RuntimeError` for a program without a mistake that needs *more than* `limit` steps.
#
# A text has at most one mistake. Programs may need $10^{50}$ steps; `plan` needs no time for that.


# %%
TYPES = {
    "reverse": ("list", "list"),
    "double": ("list", "list"),
    "sum": ("list", "number"),
    "upto": ("number", "list"),
    "square": ("number", "number"),
}
DEEPEST = 20


def tokens(text):
    """(token, column from 1) for each token; at the end an empty one, behind the last character."""
    return [(found[0], found.start() + 1) for found in re.finditer(r"\S+", text)] + [("", len(text) + 1)]


# %% nbgrader={"grade_id": "answer_15_1", "solution": true}
def plan(text, limit):
    """(type, steps) of a program; ValueError "column C: …" for a mistake, RuntimeError beyond the limit."""
    ### BEGIN SOLUTION
    queue = tokens(text)[::-1]  # the next token stands at its end

    def take(fits, what):
        token, at = queue[-1]
        if not fits(token):
            raise ValueError(f"column {at}: {token or 'the end'} cannot stand here; expected {what}")
        if token:
            queue.pop()
        return token, at

    def program(given, depth):
        given, total = step(given, depth)
        while queue[-1][0] == "|":
            queue.pop()
            given, more = step(given, depth)
            total += more
        return given, total

    def step(given, depth):
        name, at = take(lambda t: t in TYPES or t == "repeat", "a step")
        if name != "repeat":
            takes, gives = TYPES[name]
            if takes != given:
                raise ValueError(f"column {at}: {name} needs a {takes}, and gets a {given}")
            return gives, 1
        times, _ = take(lambda t: re.fullmatch("[0-9]{1,9}", t), "a number")
        _, bracket = take(lambda t: t == "(", "(")
        if depth == DEEPEST:
            raise ValueError(f"column {bracket}: more than {DEEPEST} brackets in brackets")
        gives, inside = program(given, depth + 1)
        take(lambda t: t == ")", ")")
        if gives != given:
            raise ValueError(f"column {at}: the body takes a {given} and gives a {gives}")
        return given, int(times) * inside

    found = program("list", 0)
    take(lambda t: t == "", "the end")
    if found[1] > limit:
        raise RuntimeError(f"{found[1]} steps, {limit} are allowed")
    return found
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_15_1", "grade": true, "points": 4, "locked": true}
def column_15_1(call, text, at, says):
    """The call refuses the text, with this column."""
    message = call.refuses(ValueError, text, 100, says=says)
    assert not message.startswith(f"column {at - 1}:"), (
        f"{text!r}: columns count from 1. The mistake is in column {at}."
    )
    assert message.startswith(f"column {at}:"), (
        f"{says} The message begins with 'column {at}:', not {message[:24]!r}. The input: {text!r}."
    )


def check_15_1(plan):
    slow = "Do not run the loops to count them: a product is enough."
    call = checking.calls(plan, limit=0.5, slow=slow)
    text = "repeat 3 ( reverse | repeat 4 ( double ) ) | sum"
    got = call(text, 100)
    wrong = {
        "A loop in a loop: the inner steps are counted once for each round of the outer loop.": ("number", 8),
        "A loop was counted as one round of its body.": ("number", 3),
        "A 'repeat' itself costs nothing. Only the steps of TYPES count.": ("number", 20),
        "The step behind the loop is part of the program, too.": ("list", 15),
    }
    checking.equal(got, ("number", 16), "(type, steps)", wrong, says=f"{text!r}:")
    with checking.means(
        RuntimeError, "The program needs exactly as many steps as the limit. Only more are refused."
    ):
        call(text, 16)
    checking.equal(call("reverse | sum", 100), ("number", 2), "(type, steps)", says="Two plain steps.")
    checking.equal(call("repeat 0 ( reverse )", 0), ("list", 0), "(type, steps)", says="A loop of no rounds.")
    call.refuses(RuntimeError, text, 15, says="16 steps are more than 15.")
    column_15_1(call, "reverse | revers", 11, "An unknown name.")
    column_15_1(call, "reverse |", 10, "A step is missing behind the |.")
    column_15_1(call, "sum | reverse", 7, "A number goes into a step that takes a list.")
    column_15_1(call, "reverse reverse", 9, "A | is missing: all of the text has to be read.")
    says = "The second round of the loop would give a number to a step that takes a list."
    column_15_1(call, "double | repeat 2 ( reverse | sum )", 10, says)
    print("15.1 passed the visible cases.")


check_15_1(plan)
### BEGIN HIDDEN TESTS


def grown_15_1(rng, given, depth):
    """A right program at random: (text, type, steps)."""
    parts, total = [], 0
    for _ in range(rng.randint(1, 3)):
        if depth and rng.random() < 0.4:
            text, gives, inside = grown_15_1(rng, given, depth - 1)
            if gives == given:
                times = rng.choice([0, 1, 2, 7, 999_999_999])
                parts.append(f"repeat {times} ( {text} )")
                total += times * inside
                continue
        name = rng.choice([name for name, kind in TYPES.items() if kind[0] == given])
        parts.append(name)
        given = TYPES[name][1]
        total += 1
    return " | ".join(parts), given, total


def hidden_15_1(plan):
    slow = "Do not run the loops to count them: a product is enough."
    call = checking.calls(plan, limit=0.5, slow=slow)
    rng = random.Random(15)
    for _ in range(150):
        text, kind, total = grown_15_1(rng, "list", 4)
        checking.equal(call(text, total), (kind, total), "(type, steps)", says=f"Wrong for {text!r}.")
        if total:
            call.refuses(RuntimeError, text, total - 1, says=f"{text!r} needs {total} steps.")
    says = "A mistake that stands beyond the limit is a mistake: RuntimeError is for a program without one."
    with checking.means(RuntimeError, says):
        for start, rest in (
            ("repeat 99 ( reverse | double ) | ", "revers"),
            ("repeat 99 ( reverse | double ) | sum | ", "sort"),
            ("reverse | ", "repeat 99 ( reverse | double | sum )"),
        ):
            column_15_1(call, start + rest, len(start) + 1, says)
    text = "repeat 999999999 ( " * 6 + "reverse" + " )" * 6
    checking.equal(call(text, 10**60), ("list", 999_999_999**6), "(type, steps)", says="Six loops.")
    call.refuses(RuntimeError, text, 10**9, says="Six loops of 999999999 rounds are beyond the limit.")
    for times in (0, 1):
        says = f"A body that gives another type is a mistake for K = {times}, too: a type holds for every K."
        column_15_1(call, f"repeat {times} ( sum )", 1, says)
    says = "The body of a loop that never runs is checked, too."
    column_15_1(call, "repeat 0 ( sum | sum )", 18, says)
    says = "The body gets what the step before the loop gives."
    column_15_1(call, "sum | repeat 2 ( double )", 18, says)
    checking.equal(call("sum | repeat 2 ( upto | sum ) | square", 9), ("number", 6), says=says)
    for text, at in (
        ("", 1),
        ("   ", 4),
        ("| reverse", 1),
        ("reverse | | sum", 11),
        ("repeat ( sum )", 8),
        ("repeat 2 sum", 10),
        ("repeat 2 ( )", 12),
        ("repeat 2 ( reverse", 19),
        ("reverse )", 9),
        ("repeat 2 ( reverse ) )", 22),
        ("repeat 2 ( reverse ) sum", 22),
        ("reverse|sum", 1),
        ("Reverse", 1),
        ("3", 1),
        ("repeat 2 ( reverse | )  ", 22),
        ("reverse\n| sum\t| sum", 17),
    ):
        column_15_1(call, text, at, "A mistake in the grammar, or the types.")
    for times in ("-1", "+2", "1.5", "²", "٣", "1_0", "1234567890", "9" * 5000):
        says = f"K is one to nine of the digits 0 to 9, and not {times[:12]!r}."
        column_15_1(call, f"repeat {times} ( reverse )", 8, says)
    says = "Twenty brackets in brackets are allowed."
    open_, close = "repeat 1 ( ", " )"
    checking.equal(call(open_ * 20 + "reverse" + close * 20, 1), ("list", 1), "(type, steps)", says=says)
    says = "The 21st bracket inside 20 others is refused."
    column_15_1(call, open_ * 21 + "reverse" + close * 21, 230, says)
    with checking.means(RecursionError, f"{says} You follow it as deep as it goes, and Python gives up."):
        column_15_1(call, open_ * 5000, 230, says)
    says = "Brackets side by side are not deep."
    text = " | ".join(["repeat 2 ( reverse )"] * 60)
    checking.equal(call(text, 120), ("list", 120), "(type, steps)", says=says)


hidden_15_1(plan)
### END HIDDEN TESTS

# %% [markdown]
# ## 15.2 Is depth six worse than a chain?
#
# > ●●●○○ · 20 minutes · practice · prediction
#
# If a program of $d$ steps is right exactly when all its steps are, and each step is right with probability $p$,
# independently of the others, its accuracy is $p^d$. A model has 184 of 200 programs of depth 1 right, and 98 of 200
# *other* programs of depth 6. Predict with a pocket calculator, to three digits:
#
# - `p6`: the estimate of $p^6$ from depth 1;
# - `error`: the standard error of that estimate by the delta method,
#   $\left|\frac{d\,p^6}{dp}\right|\,\mathrm{se}(\hat p)$ with $\mathrm{se}(\hat p) = \sqrt{\hat p (1 - \hat p) / n}$;
# - `z`: how many standard errors the difference, $\hat p^6$ minus the accuracy at depth 6, is away from 0;
# - `worse`: is depth 6 worse than the chain, at the level of $5\%$, two-sided? `"yes"`, `"no"` (it has been shown
#   that it is not) or `"cannot say"`;
# - `items`: how many programs of depth 1 would be needed, with the same shares and the same 200 at depth 6, for $z = 1.96$;
# - `mixed`: half of the programs are easy ($0.99$ for each of their steps), half hard ($0.85$). Is the accuracy at depth 6
#   `"above"`, `"at"` or `"below"` the sixth power of the mean over the steps, $0.92$?


# %% nbgrader={"grade_id": "answer_15_2", "solution": true}
def prediction():
    """Return a dict with p6, error, z, worse, items, mixed."""
    ### BEGIN SOLUTION
    p, q = 184 / 200, 98 / 200
    chain, deep = (
        36 * p**10 * p * (1 - p),
        q * (1 - q) / 200,
    )  # n times the variance of p^6, and that at depth 6
    return {
        "p6": p**6,
        "error": math.sqrt(chain / 200),
        "z": (p**6 - q) / math.sqrt(chain / 200 + deep),
        "worse": "cannot say",
        "items": math.ceil(chain / (((p**6 - q) / 1.96) ** 2 - deep)),
        "mixed": "above",
    }
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_15_2", "locked": true}
def check_15_2(prediction):
    mine = checking.predicted(
        prediction,
        ("p6", "error", "z", "items"),
        worse=("yes", "no", "cannot say"),
        mixed=("above", "at", "below"),
    )
    p, q, n = 0.92, 0.49, 200
    one, deep = math.sqrt(p * (1 - p) / n), math.sqrt(q * (1 - q) / n)
    chain = 6 * p**5 * one
    gap = p**6 - q
    wrong = {
        "p6: errors do not add up. Each step keeps its share of what was right: a product.": 1 - 6 * (1 - p),
        "p6: a share from 0 to 1, not a percentage.": 100 * p**6,
        "p6: this is the accuracy at depth 6 that was measured. The chain starts from depth 1.": q,
    }
    checking.equal(mine["p6"], p**6, "p6", wrong, tol=0.01, says="p6: 0.92 to the sixth power.")
    wrong = {
        "error: that is the error of p, not of its sixth power. Multiply by the slope.": one,
        "error: six steps, but the slope of p to the 6 is 6 p to the 5, not 6.": 6 * one,
        "error: you treat the sixth power as if it had been counted itself. It was computed from p.": math.sqrt(
            p**6 * (1 - p**6) / n
        ),
        "error: an error is not raised to a power. Multiply it by the slope.": one**6,
        "error: that is the variance. Take the root.": chain**2,
        "error: six steps are not six independent estimates: the same p stands six times.": math.sqrt(6)
        * p**5
        * one,
    }
    checking.equal(mine["error"], chain, "error", wrong, tol=0.015, says="error: 6 p to the 5, times se(p).")
    wrong = {
        "z: you took p to the 6 for a known number. It was estimated from 200 programs: its error counts, too.": gap
        / deep,
        "z: you took the accuracy at depth 6 for a known number. It was counted on 200 programs.": gap
        / chain,
        "z: errors of independent estimates add up as squares.": gap / (chain + deep),
        "z: the sign. The chain comes first, and it is higher.": -gap / math.hypot(chain, deep),
        "z: the error at depth 1 is that of p. The chain has a larger one.": gap / math.hypot(one, deep),
    }
    says = "z: the gap over the root of the sum of both squared errors."
    checking.equal(mine["z"], gap / math.hypot(chain, deep), "z", wrong, tol=0.03, says=says)
    wrong = {
        "worse: z is below 1.96. It looks worse, and these counts do not show it.": "yes",
        "worse: nothing was shown here. A gap of a tenth is well inside the interval, and so is 0.": "no",
    }
    checking.equal(mine["worse"], "cannot say", "worse", wrong)
    room = (gap / 1.96) ** 2 - deep**2
    need = n * chain**2 / room
    wrong = {
        "items: the error at depth 6 stays as it is. Only the other one can shrink.": n
        * chain**2
        / (gap / 1.96) ** 2,
        "items: this scales both samples. Those of depth 6 stay 200.": n
        * (1.96 * math.hypot(chain, deep) / gap) ** 2,
        "items: an error shrinks with the root of the number of programs.": n * chain / math.sqrt(room),
        "items: this is what has to be added. How many are needed in all?": need - n,
    }
    says = "items: solve gap / sqrt(A / items + B) = 1.96."
    checking.equal(mine["items"], need, "items", wrong, tol=0.06, says=says)
    wrong = {
        "mixed: the mean of two sixth powers is not the sixth power of the mean. Compute both.": "at",
        "mixed: a power bends upwards, so the mean of the powers is larger.": "below",
    }
    checking.equal(mine["mixed"], "above", "mixed", wrong)
    print("15.2 passed. And a model at p^d on programs of mixed difficulty is worse than a chain.")


check_15_2(prediction)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The same $\hat p$ stands six times in $\hat p^6$: a small relative error becomes one that is six times as large.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Both sides of the comparison were counted. Add the squares of their errors.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 15.3 The decoder that cannot end
#
# > ●●●●○ · 35 minutes · graded · bug hunt
#
# A grammar has become an automaton over *characters*: `arrows[state][character]` is the next state, 0 is the first state,
# and in the states of `last` a program is complete. A tokenizer writes *tokens*, of one character or of several. The
# function below should name the tokens that may follow `text`. It has four bugs. One of them forbids what is legal.


# %%
END = "<end>"


def automaton_of(steps):
    """(arrows, last) for all programs of these steps, with a | between two steps."""
    arrows, last = [{}], set()
    for step in steps:
        state = 0
        for character in step:
            if character not in arrows[state]:
                arrows[state][character] = len(arrows)
                arrows.append({})
            state = arrows[state][character]
        last.add(state)
        arrows[state]["|"] = 0
    return arrows, last


ARROWS, LAST = automaton_of(["reverse", "sort", "take 1", "take 10", "map(neg)"])
VOCABULARY = [
    END,
    "",
    "re",
    "verse",
    "reversal",
    "sort",
    "take",
    " 1",
    "0",
    "0|",
    "|s",
    "ort",
    "|take",
    "map(",
    "neg",
    "|map",
]


def broken_allowed(text, left, arrows, last, vocabulary):
    state = 0
    for character in text:
        state = arrows[state][character]
    ids = []
    for i, token in enumerate(vocabulary):
        if token == END:
            if state in last:
                ids.append(i)
            continue
        here, fits = state, token[:1] in arrows[state]
        for k, character in enumerate(token):
            if k and here in last:  # the program is complete here
                fits = False
            here = arrows[here].get(character, here)
        if fits:
            ids.append(i)
    return ids


# %% [markdown]
# Write it right. `text` is always the beginning of a program. `left` is the number of tokens that may still be written,
# `END` included. Return the ids (places in `vocabulary`), in ascending order, of exactly those tokens after which the text
# can still become a complete program, with tokens of this vocabulary only, and be closed by `END`, within `left` tokens in
# all. `END` may follow a complete program, though it could go on. A special token is written as an empty string: it may
# never follow. If nothing fits (so for `left` = 0), return an empty list. `left` may be a million, an automaton may have
# states without an arrow, and its arrows may lead in circles.
#
# Then find inputs: `witnesses()` returns two triples `(text, left, token)` for `ARROWS`, `LAST` and `VOCABULARY`. For the
# first, `broken_allowed` *forbids* a token that is legal. For the second it *allows* a token after which no program can be
# ended, however many tokens are left; there `left` is 50, and each character of the token is legal.


# %% nbgrader={"grade_id": "answer_15_3", "solution": true}
def allowed(text, left, arrows, last, vocabulary):
    """The ids of the tokens that may follow, ascending."""

    ### BEGIN SOLUTION
    def walk(state, characters):
        for character in characters:
            state = arrows[state].get(character)
            if state is None:
                return None
        return state

    def moves(state):
        ends = {i: walk(state, token) for i, token in enumerate(vocabulary) if token not in ("", END)}
        return {i: end for i, end in ends.items() if end is not None}

    fewest = (
        dict.fromkeys(last, 1) if END in vocabulary else {}
    )  # tokens from a state to the end, END counted
    ahead = [set(moves(state).values()) for state in range(len(arrows))]
    changed = True
    while changed:  # shortest paths; each round settles the states that are one token further away
        changed = False
        for state, nexts in enumerate(ahead):
            best = min((1 + fewest[s] for s in nexts if s in fewest), default=math.inf)
            if best < fewest.get(state, math.inf):
                fewest[state], changed = best, True
    here = walk(0, text)
    good = {i for i, end in moves(here).items() if 1 + fewest.get(end, math.inf) <= left}
    if here in last and left >= 1:
        good |= {i for i, token in enumerate(vocabulary) if token == END}
    return sorted(good)
    ### END SOLUTION


def witnesses():
    """((text, left, token) that is forbidden and legal, (text, 50, token) that is allowed and hopeless)."""
    ### BEGIN SOLUTION
    return ("take 1", 9, "0|"), ("", 50, "map(")
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_15_3", "grade": true, "points": 5, "locked": true}
def check_15_3(allowed, witnesses):
    slow = "A table of the fewest tokens from each state is enough. It does not depend on left."
    call = checking.calls(allowed, limit=0.5, slow=slow)

    def names(text, left):
        got = call(text, left, ARROWS, LAST, VOCABULARY)
        assert isinstance(got, list | tuple), "Return a list of ids."
        return [VOCABULARY[i] for i in got]

    start, after = names("", 9), names("take 1", 9)
    assert "reversal" not in start, (
        "'reversal': its first character fits, and so do some more. All of them have to."
    )
    assert "" not in start, (
        "An empty token writes nothing, and can be repeated for ever. It may never follow."
    )
    assert "0|" in after, (
        "After 'take 1': '0|' ends the step 'take 10', and goes on. A token may run over such an end."
    )
    assert END in after, "After 'take 1' the program is complete. It may be ended, though it could go on."
    tiny = [{"a": 1, "b": 2}, {"a": 1}, {"b": 2}], {1}
    says = (
        "After 'b' this automaton goes in a circle and is never complete: the decoder cannot end. Forbid 'b'."
    )
    checking.equal(
        call("", 9, *tiny, [END, "a", "b"]), [1], "the ids", {says: [1, 2]}, says="Two states in circles."
    )
    assert "map(" not in start, (
        "'map(' needs a ')', and no token of this vocabulary has one. Look for ways by tokens, not by characters."
    )
    assert "|take" not in names("sort", 1), "left is ignored: with one token left only END may follow 'sort'."
    assert " 1" not in names("take", 1), "left counts END, too: after ' 1' no token is left to end with."
    for text, left, want in (
        ("", 9, ["re", "sort", "take"]),
        ("take 1", 9, [END, "0", "0|", "|s", "|take"]),
        ("take 10", 9, [END, "|s", "|take"]),
        ("sort", 2, [END]),
        ("sort", 3, [END, "|s", "|take"]),
        ("take", 2, [" 1"]),
        ("take 1", 2, [END, "0"]),
        ("rev", 9, []),
    ):
        checking.equal(names(text, left), want, f"the tokens after {text!r} with left = {left}")
    forbidden, hopeless = checking.calls(witnesses)()
    for triple, broken, mine, says in (
        (forbidden, False, True, "witnesses: the first token must be legal, and broken_allowed forbid it."),
        (
            hopeless,
            True,
            False,
            "witnesses: after the second token no program can end; broken_allowed allows it.",
        ),
    ):
        text, left, token = triple
        assert token in VOCABULARY, f"witnesses: {token!r} is no token of VOCABULARY."
        i, given = VOCABULARY.index(token), (text, left, ARROWS, LAST, VOCABULARY)
        assert (i in broken_allowed(*given), i in call(*given)) == (broken, mine), says
    assert hopeless[1] == 50 and hopeless[2] != "reversal", (
        "witnesses: the second with left = 50, and a token whose characters are all legal. A budget is another bug."
    )
    print("15.3 passed the visible cases.")


check_15_3(allowed, witnesses)
### BEGIN HIDDEN TESTS


def fewest_15_3(arrows, last, vocabulary):
    """Tokens from each state to the end, backwards from the end, one layer after the other."""
    edges = []
    for state in range(len(arrows)):
        for token in vocabulary:
            here = state
            for character in token if token not in ("", END) else "\0":
                here = arrows[here].get(character) if here is not None else None
            if here is not None:
                edges.append((state, here))
    layer, depth, found = set(last), 1, {}
    while layer:
        found |= dict.fromkeys(layer, depth)
        depth += 1
        layer = {a for a, b in edges if b in layer} - set(found)
    return found


def allowed_15_3(text, left, arrows, last, vocabulary):
    far, state = fewest_15_3(arrows, last, vocabulary), 0
    for character in text:
        state = arrows[state][character]
    ids = []
    for i, token in enumerate(vocabulary):
        here = state
        for character in "" if token == END else token:
            here = arrows[here].get(character) if here is not None else None
        need = 1 if token == END and state in last else far.get(here, math.inf) + 1
        if token and (token != END or state in last) and need <= left:
            ids.append(i)
    return ids


def random_15_3(seed):
    """An automaton of a few states over a, b, c, a vocabulary, and the beginning of a text."""
    rng = random.Random(seed)
    size = rng.randint(2, 7)
    arrows = [{c: rng.randrange(size) for c in "abc" if rng.random() < 0.55} for _ in range(size)]
    last = {s for s in range(size) if rng.random() < 0.25}
    words = ["".join(rng.choices("abc", k=rng.choice([1, 1, 2, 3]))) for _ in range(6)]
    vocabulary = [*dict.fromkeys(words), END, ""]
    rng.shuffle(vocabulary)
    text, state = "", 0
    for _ in range(rng.randint(0, 4)):
        if arrows[state]:
            character = rng.choice(sorted(arrows[state]))
            text, state = text + character, arrows[state][character]
    return text, arrows, last, vocabulary


def hidden_15_3(allowed, witnesses):
    slow = "A table of the fewest tokens from each state is enough. It does not depend on left."
    call = checking.calls(allowed, limit=0.5, slow=slow)
    long = [{"a": i + 1} for i in range(200)] + [{}], {200}
    says = "A chain of 200 characters, tokens of one and of three: the fewest tokens, not the first way that is found."
    tokens_ = [END, "a", "aaa"]
    for text, left in (("a" * 191, 4), ("a" * 191, 3), ("a" * 198, 3), ("", 69), ("", 68), ("a", 68)):
        call.agrees(allowed_15_3, (text, left, *long, tokens_), name="the ids", says=says)
    for seed in range(60):
        text, *rest = random_15_3(seed)
        for left in (1, 2, 3, 4, 9):
            says = f"An automaton at random, left = {left}."
            call.agrees(allowed_15_3, (text, left, *rest), name="the ids", says=says)
    says = "left = 0: nothing may be written, not even END."
    for text in ("", "sort"):
        checking.equal(call(text, 0, ARROWS, LAST, VOCABULARY), [], "the ids", says=says)
    deep = "left = 1000000: do not follow each of these tokens by a call of its own."
    with checking.means(RecursionError, deep):
        case = "sort|re", 10**6, ARROWS, LAST, VOCABULARY
        call.agrees(allowed_15_3, case, name="the ids", says="Many tokens are left.")
        circle = [{"a": 1, "b": 2}, {"a": 1}, {"b": 2}], {1}
        call.agrees(allowed_15_3, ("", 10**6, *circle, [END, "a", "b"]), name="the ids", says="A circle.")
    says = "Without END in the vocabulary nothing can be ended."
    checking.equal(call("", 9, ARROWS, LAST, VOCABULARY[1:]), [], "the ids", says=says)
    says = "END is a special token, not five characters of the text."
    angle = automaton_of([END, "a"])
    call.agrees(allowed_15_3, ("", 9, *angle, [END, "a", "<"]), name="the ids", says=says)


hidden_15_3(allowed, witnesses)
### END HIDDEN TESTS

# %% [markdown]
# ## 15.4 Constrained is not conditioned
#
# > ●●●●○ · 45 minutes · practice
#
# The model below learns programs from a teacher who knows no types: `sum | sort` is nonsense, and frequent. Constrained
# decoding forbids what cannot become a valid program. But it is *not* the model conditioned on validity. Who starts with
# `sum` throws half of the model's mass away at the next token, and constrained decoding never hears of it: it writes `sum`
# too often.
#
# Let $m_t$ be the probability that the model gives, before the mask, to all allowed tokens together at step $t$, the
# step that writes `END_ID` included. Constrained decoding draws a program $x$ with $q(x) = \prod_t p_t / m_t$, so its
# weight $w(x) = \prod_t m_t$ turns $q$ back into the model: $q(x)\, w(x) = p(x)$. So the mean of $w$ over draws
# estimates $Z$, the mass that the model has on valid programs, and weighted draws estimate the model *given that* the
# program is valid.
#
# - `draw(model, prompt, allowed, n, generator)` draws `n` programs from $q$ (temperature 1, with `torch.multinomial`
#   and the generator). `prompt` is a list of ids; `allowed(ids)` gets the new ids so far, as a list, and returns the
#   list of ids that may follow; `END_ID` is among them where a program may end, and alone where it must. Return
#   `(programs, log_w)`: `n` tuples of ids without `END_ID`, and `n` numbers, the logarithm of the weight of each.
#   Draw all `n` side by side, one token of each at a time: the checker draws thousands.
# - `corrected(programs, log_w)` returns `(log_z, shares)`: the logarithm of the mean weight, and a dict that gives each
#   program that was drawn its share of all the weight, all of its draws added. Weights may be $e^{-2000}$.


# %%
from instructlab_utils import generation, training
from instructlab_utils.small import small_decoder, word_tokenizer

WORDS = ["start", "reverse", "sort", "sum", "take", "1", "2", "|"]
LIST_STEPS = ["reverse", "sort", "take 1", "take 2"]


def trained_15_4(seed=0):
    """A tokenizer, and a decoder of one layer that has seen programs without types."""
    tokenizer, rng = word_tokenizer(WORDS), random.Random(seed)
    steps = [*LIST_STEPS, "sum", "sum", "sum"]
    texts = [" | ".join(rng.choices(steps, k=rng.choice([1, 2, 2]))) for _ in range(600)]
    model = small_decoder(len(tokenizer), width=32, layers=1, window=16, seed=seed)
    examples = [generation.encode_completion("start", f" {text}", tokenizer) for text in texts]
    training.train(
        model,
        examples,
        steps=120,
        learning_rate=1e-2,
        pad_id=0,
        batch_size=32,
        objective=generation.causal_losses,
    )
    return tokenizer, model.eval()


TOKENIZER, MODEL = trained_15_4()
PROMPT, END_ID = TOKENIZER.encode("start"), TOKENIZER.eos_token_id
VALID = [*LIST_STEPS, "sum", *[f"{a} | {b}" for a in LIST_STEPS for b in [*LIST_STEPS, "sum"]]]
VALID_IDS = [tuple(TOKENIZER.encode(text)) for text in VALID]


def allowed_15_4(new):
    """The ids that may follow: those of the valid programs that begin like this."""
    n = len(new)
    return sorted({(*ids, END_ID)[n] for ids in VALID_IDS if list(ids[:n]) == list(new)})


# %% nbgrader={"grade_id": "answer_15_4", "solution": true}
def draw(model, prompt, allowed, n, generator):
    """(programs, log_w) of n draws under the mask."""
    ### BEGIN SOLUTION
    new, log_w = [[] for _ in range(n)], torch.zeros(n)
    alive = list(range(n))
    while alive:
        with torch.no_grad():
            rows = torch.tensor([[*prompt, *new[i]] for i in alive])
            log_p = model(rows).logits[:, -1].log_softmax(-1)
        mask = torch.full_like(log_p, -torch.inf)
        for row, i in enumerate(alive):
            mask[row, allowed(new[i])] = 0.0
        kept = (log_p + mask).logsumexp(-1)
        ids = torch.multinomial((log_p + mask - kept[:, None]).exp(), 1, generator=generator)[:, 0].tolist()
        log_w[alive] += kept
        for i, token in zip(alive, ids, strict=True):
            new[i].append(token)
        alive = [i for i in alive if new[i][-1] != END_ID]
    return [tuple(ids[:-1]) for ids in new], log_w.tolist()
    ### END SOLUTION


def corrected(programs, log_w):
    """(log of the mean weight, share of the weight of each program)."""
    ### BEGIN SOLUTION
    log_w = torch.as_tensor(log_w, dtype=torch.float64)
    shares = {}
    for program, share in zip(programs, log_w.softmax(0).tolist(), strict=True):
        shares[program] = shares.get(program, 0.0) + share
    return log_w.logsumexp(0).item() - math.log(len(programs)), shares
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_15_4", "locked": true}
def exact_15_4(model, prompt, programs, allowed):
    """For each program: log p of the model, and the log of each step's allowed mass."""
    log_p, masses = {}, {}
    for ids in programs:
        with torch.no_grad():
            rows = (
                model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 :].double().log_softmax(-1)
            )
        steps = [*ids, END_ID]
        log_p[ids] = sum(row[token].item() for row, token in zip(rows, steps, strict=True))
        masses[ids] = [row[allowed(list(ids[:k]))].logsumexp(0).item() for k, row in enumerate(rows)]
    return log_p, masses


def check_15_4(draw, corrected):
    fixed = checking.calls(corrected)
    a, b = (4,), (5, 6)
    log_z, shares = fixed([a, b, a, b], [math.log(0.5), math.log(0.25), math.log(0.25), math.log(0.2)])
    wrong = {
        "log_z: you averaged logarithms. The logarithm of the mean weight is asked for.": math.log(0.00625)
        / 4,
        "log_z: this is the sum of the weights. The mean is asked for.": math.log(1.2),
        "log_z: this is the mean weight. Its logarithm is asked for.": 0.3,
    }
    checking.equal(log_z, math.log(0.3), "log_z", wrong, says="Weights 0.5, 0.25, 0.25 and 0.2.")
    wrong = {
        "shares: these are frequencies. A draw counts with its weight.": {a: 0.5, b: 0.5},
        "shares: the last draw of a program replaces the others. Add them.": {a: 0.25 / 1.2, b: 0.2 / 1.2},
        "shares: they add up to the mean weight. Divide by the sum of all weights.": {a: 0.1875, b: 0.1125},
        "shares: one draw of each program was counted. Add the weights of all of its draws.": {
            a: 5 / 9,
            b: 4 / 9,
        },
        "shares: they do not add up to 1. Add a program's weights, then divide by the sum over all draws.": {
            a: 1.25,
            b: 0.75,
        },
        "shares: they add up to the sum of weights. Divide by it.": {a: 0.75, b: 0.45},
    }
    checking.equal(shares, {a: 0.625, b: 0.375}, "shares", wrong, says="Two programs, each drawn twice.")
    says = "Weights of exp(-2000) are 0 as numbers. Take the largest logarithm off first, or use logsumexp."
    with checking.means(ZeroDivisionError, says), checking.means(ValueError, says):
        log_z, shares = fixed([a, b], [-2000.0, -2000.0 + math.log(3)])
    checking.equal(log_z, -2000 + math.log(2), "log_z", says=says)
    checking.equal(shares, {a: 0.25, b: 0.75}, "shares", says=says)

    n = 2000
    call = checking.calls(draw, limit=30, slow="Draw all programs at once, and stop each at END_ID.")
    programs, log_w = call(MODEL, PROMPT, allowed_15_4, n, torch.Generator().manual_seed(4))
    assert len(programs) == len(log_w) == n, f"Return {n} programs and {n} weights."
    assert all(isinstance(ids, tuple) for ids in programs), "A program is a tuple of ids."
    assert not any(END_ID in ids for ids in programs), "A program is returned without END_ID."
    assert set(programs) <= set(VALID_IDS), "A program is not valid: the mask was not used at each step."
    log_p, masses = exact_15_4(MODEL, PROMPT, VALID_IDS, allowed_15_4)
    got = {ids: float(w) for ids, w in zip(programs, log_w, strict=True)}
    for ids in sorted(got, key=len, reverse=True):
        want = sum(masses[ids])
        wrong = {
            "log_w: this is the log-probability of the program. The weight is the mass that was allowed.": log_p[
                ids
            ],
            "log_w: this is log q. The weight is the mass that was allowed, p over q.": log_p[ids] - want,
            "log_w: the sign. A weight is a product of masses below 1.": -want,
            "log_w: the step that writes END_ID has a mass, too.": sum(masses[ids][:-1]),
            "log_w: this is the mass that was thrown away. What was allowed counts.": sum(
                math.log(max(-math.expm1(m), 1e-300)) for m in masses[ids]
            ),
            "log_w: a mean over the steps. The weight is a product over them.": want / len(masses[ids]),
        }
        name = f"log_w of {TOKENIZER.decode(list(ids))!r}"
        checking.equal(
            got[ids], want, name, wrong, tol=2e-3, says="The sum of the logs of the allowed masses."
        )
    q = {ids: math.exp(log_p[ids] - sum(masses[ids])) for ids in VALID_IDS}
    z = sum(math.exp(value) for value in log_p.values())
    p = {ids: math.exp(value) / z for ids, value in log_p.items()}

    def far(from_):
        """The largest distance of a frequency from these probabilities, in standard errors."""
        return max(
            abs(programs.count(ids) / n - from_[ids]) / math.sqrt(from_[ids] * (1 - from_[ids]) / n + 1e-7)
            for ids in VALID_IDS
        )

    assert len(set(programs)) > 5, "All draws are nearly alike. Draw from the distribution, at temperature 1."
    assert far(q) < 6 or far(p) > 6, (
        "These are draws of the model that were repeated until they were valid. That is right for conditioning, and "
        "not what constrained decoding draws."
    )
    assert far(q) < 6, (
        "The frequencies are not those of q. Draw from the allowed tokens, renormalised, at temperature 1."
    )
    again, _ = call(MODEL, PROMPT, allowed_15_4, 20, torch.Generator().manual_seed(4))
    other, _ = call(MODEL, PROMPT, allowed_15_4, 20, torch.Generator().manual_seed(5))
    third, _ = call(MODEL, PROMPT, allowed_15_4, 20, torch.Generator().manual_seed(4))
    assert again == third and again != other, (
        "The draws do not depend on the generator alone. Hand it to multinomial."
    )
    log_z, shares = fixed(programs, log_w)
    first = tuple(TOKENIZER.encode("sum"))
    print(
        f"15.4 passed. Valid mass Z: {math.exp(log_z):.3f}, exactly {z:.3f}. Share of 'sum': drawn ", end=""
    )
    print(f"{programs.count(first) / n:.3f}, corrected {shares[first]:.3f}, exactly {p[first]:.3f}.")


check_15_4(draw, corrected)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `mask` is 0 for allowed ids and minus infinity for others. What is `(log_p + mask).logsumexp(-1)`?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The share of draw $i$ is $w_i / \sum_j w_j$: a softmax of the logarithms.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 15.5 Open project: repair or resample?
#
# > ●●●●● · 90 minutes · practice
#
# A program fails, and the executor says why. You can put the failed attempt and the message into the prompt and ask again
# (*repair*), or throw the attempt away and draw again (*resampling*). Which solves more tasks *for the same money*? Plan a
# study that can decide it, and write the rule that decides. `PILOT` holds what three models showed in a pilot, each on 200
# tasks; both methods had *four calls* per task.
#
# Money is tokens, read and written. A call of resampling reads the prompt and writes an attempt. A call of repair reads the
# prompt and *all* failed attempts with their messages, and writes an attempt. Count a task on which every call fails.
# `power` and `cost` below are given. `plan()` returns a dict:
#
# - `calls`: `{"repair": …, "resampling": …}`, numbers of calls per task, whole, at least 3 each. Their costs per task
#   must be within $5\%$ of each other;
# - `effect`: the smallest difference of solved shares that would matter, between $0.01$ and $0.05$. It is chosen by
#   what it is worth. One that is within $0.005$ of the pilot's mean difference is refused: the pilot must not choose
#   it;
# - `between`: the standard deviation of the true difference from model to model, at least $0.02$ (three models cannot show
#   that it is smaller);
# - `seeds`: a list of the models' seeds: whole numbers, at least ten, no two alike, none of the pilot's;
# - `items`: tasks per model; the same ones for both methods of a model, and fresh for each model;
# - `spread`: the standard deviation of a model's measured difference, $\sqrt{b^2 + D / n}$ with $b$ for `between`,
#   $D$ for the share of tasks that exactly one method solves, and $n$ for `items`;
# - `power`: the chance of seeing `effect`, by the function `power`: at least $0.8$;
# - `tokens`: what all of it costs: per model `PILOT["training"]` tokens, and its tasks by both methods; at most `TOKENS`;
# - `unit`: what is one observation of the test, `"model"`, `"task"` or `"call"`;
# - `control`: the arm that shows whether the *content* of the message helps: `"message of another task"`, `"more calls"` or
#   `"a larger model"`;
# - `guard`: when you say which models "did not train" and are left out: `"before the runs"`, `"after the runs"`, `"never"`.
#
# The numbers `spread`, `power` and `tokens` are right within $2\%$.
#
# `verdict(differences, effect)` gets one difference per model (repair minus resampling) and returns `"supported"`
# (repair solves more), `"refuted"` (it does not gain as much as `effect`) or `"open"`. An interval between 0 and
# `effect` shows both: choose beforehand which word it gets; all are accepted. The checker lets 200 studies
# run: with your plan's spread, where nothing is gained, and where `effect` is. It allows $6\%$ of "supported" where
# nothing is gained, $6\%$ of "refuted" where `effect` is, and asks for at least $70\%$ of the right verdict in both.
#
# **Rubric** for the part that a machine does not see, one point each, to be given by a colleague who reads your half
# page: (1) a reason for `effect` in tokens or in people's time, not in standard errors; (2) what early stopping does
# to "equal cost", as the two methods stop at different calls; (3) which tasks: could repair win only because the
# tasks have errors that a message names?; (4) what happens with models that did not train, and with tasks that nobody
# solves; (5) what result would change your mind, and what you would do after "open".


# %%
from instructlab_utils import intervals

PILOT = {
    "seeds": [100, 101, 102],
    "prompt": 40,  # tokens
    "attempt": 12,
    "message": 14,
    "repair": [0.62, 0.58, 0.66],
    "resampling": [0.57, 0.56, 0.60],
    "discordant": 0.18,  # the share of tasks that exactly one of the two solves
    "training": 500_000,  # tokens for one model
}
TOKENS = 12_000_000


def cost(method, calls):
    """Tokens read and written for one task if every call fails."""
    carried = PILOT["attempt"] + PILOT["message"] if method == "repair" else 0
    return sum(PILOT["prompt"] + PILOT["attempt"] + k * carried for k in range(calls))


def power(effect, spread, models):
    """The chance that a two-sided t test over the models finds the effect, at the level of 5 %."""
    return intervals.power_of_t(effect, spread / math.sqrt(models), models - 1)


power(0.03, 0.04, 10)  # for example


# %% nbgrader={"grade_id": "answer_15_5", "solution": true}
def plan():
    """The study as a dict."""
    ### BEGIN SOLUTION
    calls, seeds, items = {"repair": 4, "resampling": 7}, list(range(12)), 400
    spread = math.sqrt(0.02**2 + PILOT["discordant"] / items)
    per_task = cost("repair", 4) + cost("resampling", 7)
    return {
        "calls": calls,
        "effect": 0.03,
        "between": 0.02,
        "seeds": seeds,
        "items": items,
        "spread": spread,
        "power": power(0.03, spread, len(seeds)),
        "tokens": len(seeds) * (PILOT["training"] + items * per_task),
        "unit": "model",
        "control": "message of another task",
        "guard": "before the runs",
    }
    ### END SOLUTION


def verdict(differences, effect):
    """supported, refuted or open."""
    ### BEGIN SOLUTION
    interval = intervals.t_interval(differences)
    if interval.low > 0:
        return "supported"
    return "refuted" if interval.high < effect else "open"
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_15_5", "locked": true}
KEYS = "calls effect between seeds items spread power tokens unit control guard".split()


def plan_15_5(mine):
    """Each rule of the plan, in the order of the statement."""
    assert isinstance(mine, dict) and set(mine) == set(KEYS), (
        f"Return a dict with the keys {', '.join(KEYS)}."
    )
    calls = mine["calls"]
    assert isinstance(calls, dict) and set(calls) == {"repair", "resampling"}, "calls: a dict with two keys."
    assert all(isinstance(c, int) and 3 <= c <= 50 for c in calls.values()), (
        "calls: whole, and at least 3 each."
    )
    prices = [cost(method, c) for method, c in calls.items()]
    assert calls["repair"] != calls["resampling"], (
        f"calls: as many calls are not as much money: {prices[0]} tokens against {prices[1]}. Repair reads more each time."
    )
    assert max(prices) <= 1.05 * min(prices), (
        f"calls: {prices[0]} tokens against {prices[1]} per task. Equal within 5 %."
    )
    seen = statistics.mean(a - b for a, b in zip(PILOT["repair"], PILOT["resampling"], strict=True))
    effect, between = mine["effect"], mine["between"]
    assert isinstance(effect, float) and 0.01 <= effect <= 0.05, "effect: a share between 0.01 and 0.05."
    assert abs(effect - seen) >= 0.005, (
        f"effect: the pilot found {seen:.3f}. A threshold that the pilot chose says nothing about what matters."
    )
    assert isinstance(between, float) and between >= 0.02, (
        "between: at least 0.02. That the pilot's three models hardly differ does not show that models do not."
    )
    seeds, items = mine["seeds"], mine["items"]
    assert isinstance(seeds, list | tuple | range) and all(type(s) is int for s in seeds), (
        "seeds: a list of ints."
    )
    assert len(seeds) >= 10, f"seeds: {len(seeds)} models. At least ten: tasks of one model are no models."
    assert len(set(seeds)) == len(seeds), (
        "seeds: one is there twice. The same model again is no new observation."
    )
    assert not set(seeds) & set(PILOT["seeds"]), "seeds: a seed of the pilot. Its result is known already."
    assert type(items) is int and items >= 1, "items: a whole number of tasks."
    spread = math.sqrt(between**2 + PILOT["discordant"] / items)
    wrong = {
        "spread: tasks are not all: models differ, too. Add the square of between.": math.sqrt(
            PILOT["discordant"] / items
        ),
        "spread: models are not all: each is measured on n tasks. Add D / n.": between,
        "spread: this is the error of the mean over the models. One model's spread is asked for.": spread
        / math.sqrt(len(seeds)),
        "spread: that is the variance. Take the root.": spread**2,
    }
    checking.equal(
        mine["spread"], spread, "spread", wrong, tol=0.02, says="spread: sqrt(between² + D / items)."
    )
    chance = power(effect, spread, len(seeds))
    wrong = {
        "power: it is computed as if each task were an observation. Models are.": power(
            effect, spread, len(seeds) * items
        ),
        "power: it is computed for the pilot's difference. What counts is the smallest that matters.": power(
            seen, spread, len(seeds)
        ),
    }
    checking.equal(
        mine["power"], chance, "power", wrong, tol=0.02, says="power: of effect, spread and models."
    )
    tokens = len(seeds) * (PILOT["training"] + items * sum(prices))
    wrong = {
        "tokens: the training of the models costs tokens, too.": len(seeds) * items * sum(prices),
        "tokens: both methods work on each task.": len(seeds) * (PILOT["training"] + items * prices[0]),
        "tokens: that is one model. All are paid.": tokens / len(seeds),
    }
    checking.equal(
        mine["tokens"], tokens, "tokens", wrong, tol=0.02, says="tokens: models × (training + tasks)."
    )
    assert tokens <= TOKENS, (
        f"tokens: {tokens} are more than {TOKENS}. Fewer models, fewer tasks, or a larger effect."
    )
    assert chance >= 0.8, (
        f"power: {chance:.2f}. The study would probably end with 'open'. More models, more tasks or a larger effect."
    )
    for key, want, says in (
        (
            "unit",
            "model",
            "the tasks of one model share its weights. One difference per model is one observation.",
        ),
        (
            "control",
            "message of another task",
            "a message that is as long and says nothing true tells content from length.",
        ),
        ("guard", "before the runs", "who leaves models out after seeing results can choose the result."),
    ):
        assert mine[key] == want, f"{key}: {says}"


def check_15_5(plan, verdict):
    mine = checking.calls(plan)()
    plan_15_5(mine)
    call, rng = checking.calls(verdict), random.Random(155)
    counts, studies = {}, 200
    for truth in (0.0, mine["effect"]):
        said = [
            call([rng.gauss(truth, mine["spread"]) for _ in mine["seeds"]], mine["effect"])
            for _ in range(studies)
        ]
        known = ("supported", "refuted", "open")
        assert set(said) <= set(known), (
            f"verdict: one of {known}, not {next(s for s in said if s not in known)!r}."
        )
        counts[truth] = {word: said.count(word) / studies for word in known}
    none, some = counts.values()
    assert none["supported"] <= 0.06, (
        f"verdict: where nothing is gained, {none['supported']:.0%} of the studies say 'supported'. A mean above 0 is not "
        "enough: ask for an interval over the models."
    )
    assert some["refuted"] <= 0.06, (
        f"verdict: where the effect is there, {some['refuted']:.0%} of the studies say 'refuted'. Not seen is not refuted: "
        "that is 'open', unless the interval lies below the effect."
    )
    assert some["supported"] >= 0.7, (
        f"verdict: where the effect is there, only {some['supported']:.0%} of the studies say 'supported'. The claim is that "
        "repair solves more, so compare with 0; effect is for 'refuted'."
    )
    assert none["refuted"] >= 0.7, (
        f"verdict: where nothing is gained, only {none['refuted']:.0%} of the studies say 'refuted'. An interval that lies "
        "below the effect shows that there is no such gain."
    )
    print(
        f"15.5 passed: power {mine['power']:.2f} for {mine['tokens']:,} tokens. Now the half page, and the rubric."
    )


check_15_5(plan, verdict)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Print `cost("repair", k)` and `cost("resampling", k)` for a few $k$. Then try a grid of seeds and items.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# One interval over the models is enough for the verdict. Where does it lie, against 0 and against `effect`?
#
# </details>
#
# {{solution}}
