# ---
# jupyter:
#   instructlab:
#     id: "05"
#     title: Extractive question answering
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 05: extractive question answering
#
# Each exercise is a box, a cell for your answer, and a checker in the cell below it. Replace the line that
# raises `NotImplementedError`, then run both cells. A checker that says no also says what probably went
# wrong.
#
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases
# that you do not see here, so test more than the checker does. The page needs no file and no network.
# Exercise 05.6 trains a small reader, and exercise 05.7 is a project: each is worth an evening.
#
# {{overview}}

# %%
import itertools
import math
import random
import re
import string
import zlib

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from instructlab_utils import checking, intervals

# %% [markdown]
# ## 05.1 From characters to tokens
#
# > ●●○○○ · 12 minutes · practice
#
# A tokenizer returns for each token of `[CLS] question [SEP] context [SEP]` its characters
# (`offset_mapping`, end exclusive) and its text (`sequence_ids`: 0 question, 1 context, None special). The
# answer covers the characters `begin` to `end - 1` of the **context**. Return the first and the last token
# that *touch* it. If a part of the answer lies outside the window, or the window holds nothing of the context,
# return `(0, 0)`.
#
# Annotators cut words in the middle, tokens cannot be cut: half a word still means its whole token.


# %% nbgrader={"grade_id": "answer_05_1", "solution": true}
def token_span(offsets, sequence_ids, begin, end):
    """Return (first, last); offsets is a list of (left, right), sequence_ids a list of 0, 1 or None."""
    ### BEGIN SOLUTION
    context = [i for i, part in enumerate(sequence_ids) if part == 1]
    if not context or begin < offsets[context[0]][0] or end > offsets[context[-1]][1]:
        return 0, 0
    touched = [i for i in context if offsets[i][0] < end and offsets[i][1] > begin]
    return (touched[0], touched[-1]) if touched else (0, 0)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_05_1", "locked": true}
def window_05_1(question, context, seen=(None,)):
    """Offsets and sequence ids of whitespace tokens, as a tokenizer gives them; `seen` cuts the context."""

    def pieces(text):
        return [match.span() for match in re.finditer(r"\S+", text)]

    first, second = pieces(question), pieces(context)[slice(*seen)]
    special = [(0, 0)]
    offsets = special + first + special + second + special
    return offsets, [None] + [0] * len(first) + [None] + [1] * len(second) + [None]


def by_characters(offsets, sequence_ids, begin, end):
    """The tokens that own a character of the answer; none where a character outside the window is asked for."""
    own = {i: range(*offsets[i]) for i, part in enumerate(sequence_ids) if part == 1}
    seen = [c for characters in own.values() for c in characters]
    if not seen or not min(seen) <= begin or not end <= max(seen) + 1:
        return 0, 0
    touched = [i for i, characters in own.items() if set(characters) & set(range(begin, end))]
    return touched[0], touched[-1]


def check_05_1(token_span):
    call = checking.calls(token_span)
    question, context = "Who built it, and when exactly?", "The mill was built by Ada Byron in 1840."
    whole, begin = window_05_1(question, context), context.index("Ada")

    def span(window, first, last, want, wrong, says):
        got = call(*window, first, last)
        checking.form(got, (0, 0), "(first, last)")
        checking.equal(tuple(got), want, f"(first, last) of {context[first:last]!r}", wrong, says=says)

    got = call(*whole, begin, begin + len("Ada Byron"))
    checking.form(got, (0, 0), "(first, last)")
    assert tuple(got) == (5, 6) or not 0 < got[0] <= 7, (
        f"You return {tuple(got)}. Positions 1 to 6 belong to the question: its characters count from 0, too. "
        "Look at sequence_ids."
    )
    wrong = {
        "The last token is one too many: positions are inclusive here, it is `last`, not `last + 1`.": (
            13,
            15,
        ),
        "These are words of the context, counted from 0. Count tokens of the window: [CLS] and the question, too.": (
            5,
            6,
        ),
    }
    wrong |= {
        "These are characters. Return positions of tokens.": (22, 31),
        "Only the first token: the second position belongs to the *last* token that is touched.": (13, 13),
    }
    span(whole, begin, begin + len("Ada Byron"), (13, 14), wrong, "")
    says = "The answer ends where the window ends: it lies inside, since `end` is exclusive."
    span(whole, context.index("1840"), len(context), (16, 16), {}, says)
    says = (
        "The first word of the context. Is an answer at character 0 "
        "an answer? Or did the question answer for the context?"
    )
    span(whole, 0, 3, (8, 8), {}, says)
    says = (
        "The answer ends in the middle of a token. A token that is touched "
        "counts: compare with < and >, do not ask that it lies wholly inside."
    )
    span(whole, begin, begin + len("Ada By"), (13, 14), {}, says)
    says = "The answer begins in the middle of a token. A token that is touched counts, on the left as on the right."
    span(whole, begin + 1, begin + len("Ada Byron"), (13, 14), {}, says)
    says = (
        "The answer ends with a space. The token 'Byron' begins where the answer "
        "ends, and `end` is exclusive: left < end, not <=."
    )
    span(whole, begin, begin + len("Ada "), (13, 13), {}, says)
    says = (
        "The answer begins with a space. The token 'by' ends where the answer begins: right > begin, not >=."
    )
    span(whole, begin - 1, begin + 3, (13, 13), {}, says)
    cut = window_05_1(question, context, (0, 6))
    says = (
        "The window ends after 'Ada', so 'Ada Byron' is not in it. Half an answer is not an answer: (0, 0)."
    )
    span(cut, begin, begin + len("Ada Byron"), (0, 0), {}, says)
    says = "An answer wholly outside the window: (0, 0)."
    span(cut, context.index("1840"), len(context), (0, 0), {}, says)
    late = window_05_1(question, context, (6, None))
    says = "The window begins with 'Byron', so the answer began before it. The left half is missing: (0, 0)."
    span(late, begin, begin + len("Ada Byron"), (0, 0), {}, says)
    says = "A window of the question alone holds nothing of the context: (0, 0)."
    with checking.means(ValueError, says), checking.means(IndexError, says):
        span(window_05_1(question, context, (0, 0)), 0, 3, (0, 0), {}, says)
    for first, last in itertools.combinations(range(0, len(context) + 1, 3), 2):
        cases = [(*window, first, last) for window in (whole, late, window_05_1("Why?", context, (2, 7)))]
        call.agrees(by_characters, *cases, name="(first, last)")
    print("05.1 passed. The label decodes to the answer, and says 'not here' where it must.")


check_05_1(token_span)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# First collect the positions with `sequence_ids == 1`. Everything else happens among them.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Two intervals $[l, r)$ and $[b, e)$ touch exactly if $l < e$ and $r > b$. Before that, compare the answer
# with the left end of the first and the right end of the last context token.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 05.2 The answer between two windows
#
# > ●●●○○ · 15 minutes · practice · bug hunt
#
# The text has ten tokens and the answer is tokens 3 and 4. Windows hold four tokens, and neighbours are meant to share
# two. Yet the reader below never sees the answer whole, and learns something else. Find three bugs.


# %%
def broken_windows(tokens, size, overlap, first, last):
    found = []
    for begin in range(0, len(tokens), size):
        window = tokens[begin : begin + size]
        s = min(max(first - begin, 0), len(window) - 1)
        e = min(max(last - begin, 0), len(window) - 1)
        if last >= begin and first < begin + size:
            found.append((window, s, e))
    return found


for window_demo, s_demo, e_demo in broken_windows("t0 t1 t2 t3 t4 t5 t6 t7 t8 t9".split(), 4, 2, 3, 4):
    print(window_demo, "label:", window_demo[s_demo : e_demo + 1])

# %% [markdown]
# Repair it. Every token is in some window, also the last one; the last window may be shorter, and no window begins where
# its predecessor has already reached the end. A window without the *whole* answer is kept, and says so with the label
# `(-1, -1)`: the model must learn "not here", and at test time nobody knows which windows to drop.


# %% nbgrader={"grade_id": "answer_05_2", "solution": true}
def windows(tokens, size, overlap, first, last):
    """Return a list of (window, s, e): at most `size` tokens, `overlap` shared with the next; s and e count in the window."""
    ### BEGIN SOLUTION
    found = []
    for begin in range(0, max(1, len(tokens) - overlap), size - overlap):
        window = tokens[begin : begin + size]
        inside = begin <= first and last < begin + len(window)
        found.append((window, first - begin, last - begin) if inside else (window, -1, -1))
    return found
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_05_2", "locked": true}
def one_by_one(tokens, size, overlap, first, last):
    """The same windows, each begun `overlap` before the end of the one before."""
    found, end = [], min(size, len(tokens))
    found.append((tokens[:end], first, last) if last < end else (tokens[:end], -1, -1))
    while end < len(tokens):
        begin, end = end - overlap, min(end - overlap + size, len(tokens))
        whole = first >= begin and last < end
        found.append(
            (tokens[begin:end], first - begin, last - begin) if whole else (tokens[begin:end], -1, -1)
        )
    return found


def check_05_2(windows):
    call = checking.calls(windows, slow="Does the loop end? Its step may be 0 or negative.")
    tokens = [f"t{i}" for i in range(10)]
    found = call(tokens, 4, 2, 3, 4)
    assert isinstance(found, list | tuple) and all(
        isinstance(entry, list | tuple) and len(entry) == 3 for entry in found
    ), f"A list of (window, s, e) expected, not {checking.shown(found)}."
    pieces = [list(window) for window, _, _ in found]
    assert all(len(piece) <= 4 for piece in pieces), "A window holds at most `size` tokens."
    missing = set(tokens) - {token for piece in pieces for token in piece}
    assert not missing, (
        f"Tokens are missing: {sorted(missing)}. Windows without the answer are "
        "kept, too, and the last one may be short."
    )
    shared = [len(set(left) & set(right)) for left, right in itertools.pairwise(pieces)]
    assert shared != [0] * len(shared), (
        "Neighbours share nothing: the step is `size`. It must be size - overlap, or an answer on the border is "
        "in no window."
    )
    assert len(set(map(tuple, pieces))) == len(pieces) and not any(
        set(b) <= set(a) for a, b in itertools.pairwise(pieces)
    ), "The last window repeats what its predecessor holds. Stop when the end has been reached."
    checking.equal(
        pieces, [tokens[i : i + 4] for i in (0, 2, 4, 6)], "windows", says="Windows begin at 0, 2, 4, 6."
    )
    labels = [(s, e) for _, s, e in found]
    wrong = {
        "Label (3, 4) counts in the text. In the window it begins at 2, so (1, 2).": (3, 4),
        "e is the position of the last token, not the one after it.": (1, 3),
    }
    checking.equal(labels[1], (1, 2), "the label of the second window, with t3 and t4,", wrong)
    assert labels[0] != (3, 3) and labels[2] != (0, 0), (
        "A window with half of the answer got the other half's border as its label: min and max moved it inside. "
        "The model would learn that 't3' alone is right. Say (-1, -1)."
    )
    says = "A window without the *whole* answer says (-1, -1): both ends must lie inside."
    checking.equal(labels, [(-1, -1), (1, 2), (-1, -1), (-1, -1)], "labels", says=says)
    wrong = {
        "The answer ends with the window's last token, and is whole: `last` is that token, not the one after it.": [
            (tokens[:3], -1, -1)
        ]
    }
    says = "A text that fits is one window."
    checking.equal(call(tokens[:3], 4, 2, 0, 2), [(tokens[:3], 0, 2)], "windows", wrong, says=says)
    says = "A text no longer than `overlap` is in one window, like every text that fits."
    checking.equal(call(tokens[:2], 4, 2, 0, 1), [(tokens[:2], 0, 1)], "windows", says=says)
    says = "Two windows hold t2 and t3 whole: each gets its label, not one of them only."
    labels = [(s, e) for _, s, e in call(tokens, 4, 2, 2, 3)]
    checking.equal(labels, [(2, 3), (0, 1), (-1, -1), (-1, -1)], "labels", says=says)
    pieces = [list(window) for window, _, _ in call(tokens, 5, 1, 3, 4)]
    wrong = {
        "You step by `overlap`. Neighbours then share size - overlap tokens; the step is size - overlap.": [
            tokens[i : i + 5] for i in range(6)
        ],
        "The last tokens are in no window: you keep full windows only. The last one may be shorter.": [
            tokens[:5],
            tokens[4:9],
        ],
        "You moved the last window back until it was full, so it shares more than `overlap` tokens. It may be shorter.": [
            tokens[:5],
            tokens[4:9],
            tokens[5:],
        ],
    }
    says = "Another size or overlap: windows of five that share one begin at 0, 4, 8."
    checking.equal(pieces, [tokens[:5], tokens[4:9], tokens[8:]], "windows", wrong, says=says)
    for first, length in itertools.product(range(9), (1, 2)):
        last = min(first + length - 1, 9)
        held = [w[s : e + 1] for w, s, e in call(tokens, 4, 2, first, last) if s >= 0]
        assert held and all(list(h) == tokens[first : last + 1] for h in held), (
            f"The answer from t{first} to t{last} is no longer than the overlap, and no window holds it whole."
        )
    says = "Another size, overlap or length."
    for n, size, overlap in ((10, 5, 1), (11, 3, 0), (9, 6, 5), (7, 7, 2), (8, 3, 2), (6, 1, 0)):
        cases = [
            ([f"t{i}" for i in range(n)], size, overlap, first, min(first + 1, n - 1)) for first in range(n)
        ]
        call.agrees(one_by_one, *cases, name="windows", says=says)
    print("05.2 passed. Every answer of at most `overlap` tokens is whole in some window.")


check_05_2(windows)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Print the windows for `overlap=2` and `overlap=0`. Do they differ?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The step is `size - overlap`. A window at `begin` still brings a new token if `begin + overlap < len(tokens)`. The label is
# legal only if *both* ends lie inside; `min` and `max` hide that they do not.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 05.3 The best legal span
#
# > ●●●○○ · 20 minutes · graded
#
# Given two logits for each token, find the span $(s, e)$ with the largest $a_s + c_e$ among those that are legal: $s \le e$,
# at most `max_tokens` tokens, both ends in the context. Return `(s, e)`, or `None` where no span is legal. Of equal spans
# return the one that begins first, then the shorter one.
#
# Logits may be of any size, thousands below zero too. Use no loop over pairs of positions: a window has hundreds of
# tokens, and there are thousands of windows.


# %% nbgrader={"grade_id": "answer_05_3", "solution": true}
def best_span(start, end, in_context, max_tokens):
    """Return (s, e) or None; start and end are float arrays (T,), in_context is a bool array (T,)."""
    ### BEGIN SOLUTION
    pairs = np.asarray(start, dtype=float)[:, None] + np.asarray(end, dtype=float)[None, :]
    inside = np.asarray(in_context, dtype=bool)
    legal = np.tril(np.triu(inside[:, None] & inside[None, :]), max_tokens - 1)
    if not legal.any():
        return None
    s, e = np.unravel_index(np.argmax(np.where(legal, pairs, -np.inf)), pairs.shape)
    return int(s), int(e)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_05_3", "grade": true, "points": 3, "locked": true}
def slow_05_3(start, end, in_context, max_tokens):
    best, where = -np.inf, None
    for s in range(len(start)):
        for e in range(s, min(len(start), s + max_tokens)):
            if in_context[s] and in_context[e] and start[s] + end[e] > best:
                best, where = start[s] + end[e], (s, e)
    return where


def check_05_3(best_span):
    call = checking.calls(best_span, none=True)
    context = np.array([False, False, True, True, True, True, False])
    start = np.array([9.0, 0, 2.8, 0, 3.0, 0, 0])
    end = np.array([9.0, 0, 3.0, 0, 0, 2.0, 8.0])
    got = call(start, end, context, 3)
    assert got is not None, "The function returned None, but there are legal spans."
    wrong = {
        "(0, 0) has the largest sum, but it lies outside the context. Mask with in_context.": (0, 0),
        "This span ends before it begins: the two maxima of the context, taken separately. Add all pairs, then mask.": (
            4,
            2,
        ),
        "Only the first token is checked against in_context here; the last one is [SEP].": (4, 6),
        "You fixed the best first token, then took the best last token behind it. The best pair need not hold the "
        "best first token: (2, 2) has 5.8, (4, 5) has 5.0.": (4, 5),
        "The end is one too many: both positions belong to the span.": (2, 3),
    }
    checking.equal(got, (2, 2), "(s, e)", wrong, says="The best legal pair is (2, 2) with 5.8.")
    far = np.zeros(7), np.zeros(7)
    far[0][2] = far[1][5] = 5.0
    says = "From 2 to 5 are four tokens, which max_tokens = 4 allows. Off by one?"
    checking.equal(call(*far, context, 4), (2, 5), "(s, e)", says=says)
    wrong = {
        "From 2 to 5 are four tokens, and max_tokens is 3. Mask what is too long.": (2, 5),
        "Six spans tie at 5.0. Of equal spans take the one that begins first, then the shorter one.": (2, 4),
        "Six spans tie at 5.0. Of equal spans take the one that begins first.": (3, 5),
        "Six spans tie at 5.0. Of equal spans take the one that *begins first*, not the shortest of the last.": (
            5,
            5,
        ),
    }
    checking.equal(call(*far, context, 3), (2, 2), "(s, e) with max_tokens = 3", wrong)
    nothing = call(start, end, np.zeros(7, dtype=bool), 3)
    assert nothing is None, f"No token is in the context, so no span is legal: None, not {nothing}."
    print("05.3 passed the visible cases.")


check_05_3(best_span)
### BEGIN HIDDEN TESTS


def hidden_05_3(best_span):
    call = checking.calls(best_span, none=True)
    rng = np.random.default_rng(0)
    for shift in (-50, 50, -20_000):
        for _ in range(30):
            n = int(rng.integers(1, 12))
            start, end = rng.normal(size=n) + shift, rng.normal(size=n) + shift
            case = start, end, rng.random(n) < 0.7, int(rng.integers(1, 6))
            checking.equal(
                call(*case),
                slow_05_3(*case),
                "(s, e)",
                says=f"Wrong on a random table whose logits are near {shift}. Mask with minus infinity, not with 0 or "
                "-10000: zero would be the largest of all.",
            )
    tie = call(np.zeros(5), np.zeros(5), np.array([False, True, True, True, False]), 2)
    checking.equal(
        tie, (1, 1), "(s, e)", says="All spans tie: the one that begins first, and of those the shortest."
    )
    for _ in range(40):
        n = int(rng.integers(2, 9))
        case = rng.integers(3, size=n) * 1.0, rng.integers(3, size=n) * 1.0, rng.random(n) < 0.8, 3
        says = "A table with equal spans: the one that begins first, and of those the shortest."
        checking.equal(call(*case), slow_05_3(*case), "(s, e)", says=says)
    gap = np.ones(9), np.ones(9), np.array([False, True, False, False, True, True, False, False, True]), 5
    gap[0][1] = gap[1][5] = 4.0
    says = "The ends must lie in the context; what lies between them need not."
    checking.equal(call(*gap), (1, 5), "(s, e)", says=says)


hidden_05_3(best_span)
### END HIDDEN TESTS

# %% [markdown]
# ## 05.4 What do two separate maxima answer?
#
# > ●●○○○ · 8 minutes · practice · prediction
#
# The tokens are `[CLS] who ? [SEP] Ada met Max in Rome [SEP]`, positions 0 to 9; the context is 4 to 8. For each table below
# predict with pencil and paper
#
# - `separate`: the pair (argmax of the start logits, argmax of the end logits) over *all* positions,
# - `joint`: the best legal span, of at most three tokens.
#
# All logits that are not listed are zero.

# %%
TABLES = {
    "swap": ({6: 4.0, 4: 3.5}, {4: 4.0, 6: 2.0}),
    "outside": ({0: 5.0, 8: 3.0}, {0: 5.0, 8: 4.0}),
    "long": ({4: 3.0, 8: 1.5}, {8: 3.0, 5: 2.0}),
}


# %% nbgrader={"grade_id": "answer_05_4", "solution": true}
def prediction():
    """Return a dict: table name → {"separate": (s, e), "joint": (s, e)}."""
    ### BEGIN SOLUTION
    return {
        "swap": {"separate": (6, 4), "joint": (4, 4)},
        "outside": {"separate": (0, 0), "joint": (8, 8)},
        "long": {"separate": (4, 8), "joint": (4, 5)},
    }
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_05_4", "locked": true}
def check_05_4(prediction):
    mine = checking.calls(prediction)()
    checking.form(mine, {name: {"separate": (0, 0), "joint": (0, 0)} for name in TABLES}, "the predictions")
    for name, (first, last) in TABLES.items():
        a, c = (np.array([row.get(t, 0.0) for t in range(10)]) for row in (first, last))
        pairs = {(s, e): a[s] + c[e] for s in range(4, 9) for e in range(s, min(9, s + 3))}
        separate, joint = (int(a.argmax()), int(c.argmax())), max(pairs, key=pairs.get)
        got = {key: tuple(value) for key, value in mine[name].items()}
        assert got["separate"] != separate[::-1] or separate[0] == separate[1], (
            f"{name}: start first, then end; do not put them into order. The decoder does not either."
        )
        assert got["separate"] == separate, (
            f"{name}: the two maxima, over all positions, legal or not, are {separate}."
        )
        assert got["joint"] != (joint[0] - 4, joint[1] - 4), (
            f"{name}: you count from the first token of the context. Positions count from [CLS]; the context is 4 to 8."
        )
        assert name != "long" or got["joint"] != (separate[0], separate[0] + 2), (
            f"long: you cut the span after three tokens. Of all legal pairs {joint} has the largest sum."
        )
        assert got["joint"] != (joint[0], joint[1] + 1), (
            f"{name}: {got['joint']} ends one behind the best span. The second number is the last token itself, as in the "
            "argmax of the end logits."
        )
        assert got["joint"] != separate, (
            f"{name}: {separate} is not legal. Is it in the context, in order, and of at most three tokens?"
        )
        assert pairs.get(got["joint"]) is not None, f"{name}: {got['joint']} is not a legal span."
        assert got["joint"] == joint, (
            f"{name}: {got['joint']} has {pairs[got['joint']]:.1f}, but {joint} has {pairs[joint]:.1f}."
        )
    print("05.4 passed. Empty, outside, too long: three ways to answer nothing with two good maxima.")


check_05_4(prediction)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# For `joint`, write down the few positions with a logit above zero and add pairs: first not after last.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# In `swap` the best first token is 6. Which last token may follow it, and with which sum? Compare with (4, 4) and (4, 6).
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 05.5 Exact match and F1
#
# > ●●●○○ · 18 minutes · graded
#
# Score a predicted text against one or several true answers, as SQuAD does. *Normalise* both sides: lower case; then drop the
# characters of `string.punctuation`; then drop the *words* a, an, the; then split at white space. *Exact match* compares the
# lists of words. $F_1$ is $2n / (|p| + |t|)$ with the $n$ words in common, where a word that occurs twice counts twice only
# if it does so on both sides. Of several true answers the kindest counts, for each score by itself.
#
# No true answer at all means that the text does not answer. Then only an empty prediction is right. Where one side has no
# words left, $F_1$ is the exact match.


# %% nbgrader={"grade_id": "answer_05_5", "solution": true}
def em_f1(prediction, answers):
    """Return (exact match, F1), two floats in 0…1; prediction is a str, answers a list of str, perhaps empty."""
    ### BEGIN SOLUTION
    import re
    import string
    from collections import Counter

    def words(text):
        kept = "".join(c for c in text.lower() if c not in string.punctuation)
        return re.sub(r"\b(a|an|the)\b", " ", kept).split()

    def one(guess, truth):
        exact = float(guess == truth)
        if not guess or not truth:
            return exact, exact
        return exact, 2 * sum((Counter(guess) & Counter(truth)).values()) / (len(guess) + len(truth))

    scores = [one(words(prediction), words(answer)) for answer in answers or [""]]
    return max(em for em, _ in scores), max(f1 for _, f1 in scores)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_05_5", "grade": true, "points": 3, "locked": true}
def check_05_5(em_f1):
    call = checking.calls(em_f1)

    def scores(prediction, answers, want, says, wrong=None):
        name = f"(exact match, F1) of {prediction!r} against {answers}"
        checking.equal(call(prediction, answers), want, name, wrong, says=says)

    scores("Denver Broncos", ["Denver Broncos"], (1.0, 1.0), "Equal texts:")
    says = "Case, punctuation and the article must not matter: normalise both sides."
    scores("the Denver Broncos!", ["denver broncos"], (1.0, 1.0), says)
    scores("denver broncos", ["An denver, Broncos"], (1.0, 1.0), says)
    says = "'theatre' lost its first letters. Drop the *word* the: a pattern with \\b on both sides."
    scores("theatre", ["atre"], (0.0, 0.0), says)
    wrong = {
        "2/3 is the precision (or the share of common among all words). F1 is 2 n / (|p| + |t|) = 4/5.": (
            0.0,
            2 / 3,
        ),
        "1.0 is the recall. F1 is 2 n / (|p| + |t|) = 4/5.": (0.0, 1.0),
        "Exact match compares the words in order: 'broncos of denver' is not 'denver broncos'.": (1.0, 0.8),
    }
    scores("Broncos of Denver", ["Denver Broncos"], (0.0, 0.8), "Two words in common of 3 and 2:", wrong)
    says = "Exact match compares the words *in order*:"
    scores("Broncos Denver", ["Denver Broncos"], (0.0, 1.0), says)
    wrong = {
        "Sets forget how often a word occurs: 'no no no' is not 'no'. Count (Counter & Counter).": (0.0, 1.0),
        "Each 'no' of the prediction finds the same 'no' again. It counts twice only if both sides have two.": (
            0.0,
            1.5,
        ),
    }
    scores("no no no", ["no"], (0.0, 0.5), "One word in common of 3 and 1:", wrong)
    wrong = {
        "'no' stands twice on both sides, so it counts twice. Sets count it once: use Counter.": (0.0, 0.4)
    }
    scores("no no cat", ["no no"], (0.0, 0.8), "Two words in common of 3 and 2:", wrong)
    wrong = {
        "Several truths: the kindest counts, not the mean.": (0.5, (2 / 3 + 1) / 2),
        "Only the first truth is read. Look at all of them.": (0.0, 2 / 3),
    }
    scores("Broncos", ["the Denver Broncos", "Broncos"], (1.0, 1.0), "The second truth fits exactly:", wrong)
    says = "Only the last truth is read. Look at all of them."
    scores("Broncos", ["Broncos", "the Denver Broncos"], (1.0, 1.0), says)
    says = "No true answer: the empty prediction is right, everything else is wrong."
    with checking.means(ValueError, says):
        scores("something", [], (0.0, 0.0), says)
    scores("", [], (1.0, 1.0), says)
    print("05.5 passed the visible cases.")


check_05_5(em_f1)
### BEGIN HIDDEN TESTS


def by_removing(prediction, answers):
    """Every common word is taken off both lists, one after the other."""

    def words(text):
        bare = "".join("" if c in string.punctuation else c for c in text.lower())
        return [word for word in bare.split() if word not in {"a", "an", "the"}]

    best = 0.0, 0.0
    for answer in answers or [""]:
        guess, truth, rest, common = words(prediction), words(answer), words(answer), 0
        for word in guess:
            if word in rest:
                rest.remove(word)
                common += 1
        exact = float(guess == truth)
        f1 = exact if 0 in (len(guess), len(truth)) else common / ((len(guess) + len(truth)) / 2)
        best = max(best[0], exact), max(best[1], f1)
    return best


def hidden_05_5(em_f1):
    call = checking.calls(em_f1)
    says = (
        "'a.b' has to become 'ab': punctuation is dropped, not turned into a space, and before the articles. The other "
        "way round the letter a is taken for an article."
    )
    checking.equal(call("a.b", ["ab"]), (1.0, 1.0), "(exact match, F1)", says=says)
    for prediction, answers, says in (
        (
            "The, cat (a)",
            ["cat"],
            "'The,' and '(a)' are articles with a mark. Drop punctuation first, articles second.",
        ),
        (
            "b c d",
            ["b x y", "b c"],
            "Each score has its own kindest answer: the largest F1, whichever answer the exact match came from.",
        ),
        ("The", ["a"], "No words left on either side: equal, so both scores are 1."),
        ("The", ["cat"], "One side has no words left: F1 is 0, not an error."),
        ("cat", ["", "the"], "One side has no words left: F1 is 0, not an error."),
        ("x  y\n z", ["x y z"], "Any white space separates words."),
        ("it's 5,000 $", ["its 5000"], "Every character of string.punctuation goes, also inside a word."),
        ("an apple a day", ["apple day"], "a, an and the are dropped wherever they stand."),
    ):
        with checking.means(ZeroDivisionError, "One side has no words left: F1 is 0 or 1, not 0 / 0."):
            call.agrees(by_removing, (prediction, answers), name="(exact match, F1)", says=says)
    rng = random.Random(5)
    for _ in range(60):
        texts = [
            " ".join(rng.choices(["the", "A", "b", "b", "c!", "-", "d"], k=rng.randrange(5)))
            for _ in range(4)
        ]
        call.agrees(by_removing, (texts[0], texts[1 : rng.randint(1, 4)]), name="(exact match, F1)")


hidden_05_5(em_f1)
### END HIDDEN TESTS

# %% [markdown]
# ## 05.6 A reader that may say nothing
#
# > ●●●●○ · 75 minutes · graded
#
# Short texts say who did what to which thing: *Lu-Ann built the old mill in May.* A question asks *Who built the mill?*
# The answer is a piece of the text, or it is not there. A tiny reader is given, with room for `ROOM` pieces of text; the
# texts are several times as long. Train it, and answer. Write
#
# `fit(net, rows, dev, seed) -> (net, extra)` and `answer(net, extra, row) -> str`
#
# - A row is a dict with `question`, `context`, `answers` (a list of one text, or empty) and `starts` (its first
#   character). `answer` gets rows without the last two. It returns the answer as it stands in the context, letter by
#   letter, or `""` for *not there*.
# - In `rows`, the training set, every question has an answer. In `dev` and in the test half of them have none: somebody
#   else did this, or it was done to another thing.
# - `pieces(text)` cuts a text as the reader wants it: (number, begin, end) of each piece, in characters.
# - `net(ids, part)` wants two int64 tensors (B, T) and gives logits (B, T, 2), of the first and of the last piece of
#   the answer. `part` is $0$ for the question, $1$ for the text, $-1$ for anything else: place $0$, which is free and
#   means *not here*, separators and padding, whose ids do not matter. More than `ROOM` pieces of text are a `ValueError`.
#   The logits outside of the text mean nothing, but for place $0$.
# - A window is a stretch of the text. Cut them as you like, but what belongs together must lie whole in one of them: each
#   statement from the first piece of its name to its thing, `TOGETHER` pieces at most. A text may also be shorter than a
#   window.
# - Of all legal spans the best one counts. Legal: both ends in the text, the last piece not before the first. Best: the
#   largest sum of its two logits above the two of place $0$, over all windows. The reader must learn *not here*, too. `extra`
#   is whatever `answer` needs besides the net; its choice may read `dev`.
# - All random draws come from `seed`. You have fifteen seconds of processor time for each call of `fit`, and twenty for all
#   of `answer`. `fit` may get another net of this kind, too.
#
# The checker tries `answer` with nets of its own, then wants a share of `BAR` exact answers on fresh texts. Who never
# answers gets about one half, and who always answers gets less.


# %%
ROOM, TOGETHER, BAR = 16, 10, 0.8
FIRST = "Ada Max Lu-Ann O'Neill Zoe Bo-Lin McKay Eve D'Arcy Tom Ivy Jo-Beth".split()
LAST = "Byron Smith-Lee St.Clair O'Hara Novak Li".split()
VERBS = "built sold found painted lost cleaned moved bought".split()
THINGS = "mill boat bridge clock barn tower lamp wagon door bell".split()


def pieces(text):
    """(number, begin, end) of each piece: a run of letters or one sign. Capitals do not count."""
    found = re.finditer(r"[A-Za-z]+|[^A-Za-z\s]", text)
    return [(2 + zlib.crc32(m[0].lower().encode()) % 10**6, *m.span()) for m in found]


def questions(seed, n, unanswerable=0.0):
    """Rows with question, context, answers and starts."""
    draw, rows = random.Random(seed), []
    for _ in range(n):
        verb, thing = draw.choice(VERBS), draw.choice(THINGS)
        verbs, things = [v for v in VERBS if v != verb], [t for t in THINGS if t != thing]
        facts = [(verb, draw.choice(things)) for _ in range(2)] + [
            (draw.choice(verbs), thing) for _ in range(2)
        ]
        facts += [(draw.choice(verbs), draw.choice(things)) for _ in range(draw.randint(3, 7))]
        facts += [(verb, thing)] * (draw.random() >= unanswerable)
        draw.shuffle(facts)
        context, answers, starts = "", [], []
        for fact in facts:
            name = draw.choice(FIRST) + (" " + draw.choice(LAST)) * (draw.random() < 0.4)
            if fact == (verb, thing):
                answers, starts = [name], [len(context)]
            old, end = draw.choice(["", "", "old "]), draw.choice(["", "", " in May", " at last"])
            context += f"{name} {fact[0]} the {old}{fact[1]}{end}. "
        row = {"question": f"Who {verb} the {thing}?", "context": context.strip()}
        rows.append(row | {"answers": answers, "starts": starts})
    return rows


class Reader(nn.Module):
    """Sees which pieces of the text stand in the question, which are "the" or a full stop, and some places around."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.look, self.think = nn.Conv1d(5, 16, 11, padding=5), nn.Conv1d(16, 16, 1)
        self.out, self.none = nn.Conv1d(16, 2, 1), nn.Linear(16, 2)

    def forward(self, ids, part):
        text = part == 1
        if text.sum(1).max() > ROOM:
            raise ValueError(f"{int(text.sum(1).max())} pieces of text: the reader has room for {ROOM}")
        asked = ((ids[:, :, None] == ids[:, None]) & (part == 0)[:, None]).any(2) & text
        the, stop = (text & (ids == pieces(word)[0][0]) for word in ("the", "."))
        x = torch.stack([asked & ~the, the, stop, text & ~asked & ~the & ~stop, ~text], 1).float()
        h = torch.relu(self.think(torch.relu(self.look(x))))
        none = self.none(h.masked_fill(~text[:, None], 0).amax(2))
        return torch.cat([none[:, None], self.out(h).transpose(1, 2)[:, 1:]], 1)


# %% nbgrader={"grade_id": "answer_05_6", "solution": true}
def fit(net, rows, dev, seed):
    """Train net on rows. Return (net, extra)."""
    ### BEGIN SOLUTION
    generator, items, labels = torch.Generator().manual_seed(seed), [], []
    for row in rows:
        begin, end = row["starts"][0], row["starts"][0] + len(row["answers"][0])
        for item in windows(row):
            inside = [k for k, (_, left, right) in enumerate(item[3]) if left < end and right > begin]
            whole = item[3][0][1] <= begin and item[3][-1][2] >= end
            items.append(item)
            labels.append((item[2] + inside[0], item[2] + inside[-1]) if whole else (0, 0))
    ids, part, labels = *batch(items), torch.tensor(labels)
    here, optimizer = (labels[:, 0] > 0).nonzero()[:, 0], torch.optim.Adam(net.parameters())
    for step in range(120):
        optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / 120)
        any_, some = (torch.randint(len(of), (16,), generator=generator) for of in (items, here))
        i = torch.cat([any_, here[some]])  # "not here" is far more frequent: half of the batch has the answer
        optimizer.zero_grad()
        F.cross_entropy(net(ids[i], part[i]), labels[i]).backward()
        optimizer.step()
    found = [best(net, row) for row in dev]

    def right(margin):
        said = [text if score > margin else "" for score, text in found]
        return sum(text in (row["answers"] or [""]) for text, row in zip(said, dev, strict=True))

    return net, max([-math.inf, *[score for score, _ in found]], key=right)


def windows(row):
    """Stretches of the text, each with the question: (ids, part, place of the first piece of text, its pieces)."""
    asked, text = [p[0] for p in pieces(row["question"])], pieces(row["context"])
    found = []
    for begin in range(0, max(1, len(text) - TOGETHER), ROOM - TOGETHER):
        seen = text[begin : begin + ROOM]
        part = [-1] + [0] * len(asked) + [-1] + [1] * len(seen)
        found.append(([0, *asked, 0, *[p[0] for p in seen]], part, len(asked) + 2, seen))
    return found


def batch(items):
    """Windows as two tensors, padded."""
    ids = nn.utils.rnn.pad_sequence([torch.tensor(item[0]) for item in items], True)
    return ids, nn.utils.rnn.pad_sequence([torch.tensor(item[1]) for item in items], True, -1)


def best(net, row):
    """(score, text) of the best span of all windows; the score is what it has more than "not here"."""
    found, items = (-math.inf, ""), windows(row)
    with torch.no_grad():
        logits = net(*batch(items))
    for z, (_, _, first, seen) in zip(logits, items, strict=True):
        start, end = z[first : first + len(seen)].T
        pairs = (start[:, None] + end - z[0].sum()).masked_fill(
            torch.ones(len(seen), len(seen)).tril(-1) > 0, -math.inf
        )
        score, place = pairs.flatten().max(0)
        if score > found[0]:
            s, e = divmod(int(place), len(seen))
            found = score.item(), row["context"][seen[s][1] : seen[e][2]]
    return found
    ### END SOLUTION


def answer(net, extra, row):
    """Return the answer as it stands in the context, or ""."""
    ### BEGIN SOLUTION
    score, text = best(net, row)
    return text if score > extra else ""
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_05_6", "grade": true, "points": 5, "locked": true}
class Spy(nn.Module):
    """Remembers what it was shown. Its logits: of a piece by its number, of "not here" a parameter."""

    def __init__(self, table=None):
        super().__init__()
        self.table, self.seen = table or {}, []
        self.none, self.here = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))

    def forward(self, ids, part):
        count = int((part == 1).sum(1).max())
        assert count <= ROOM, f"The reader has room for {ROOM} pieces of text, and gets {count}."
        self.seen += [i[p == 1].tolist() for i, p in zip(ids, part, strict=True)]
        z = torch.zeros(*ids.shape, 2) + (part == 1)[..., None] * self.here
        for number, logits in self.table.items():
            z = z + (ids == number)[..., None] * torch.tensor(logits)
        return torch.cat([z[:, :1] * 0 + self.none, z[:, 1:]], 1)


def answers_of(answer, net, extra, rows):
    def every(rows):
        return [answer(net, extra, row) for row in rows]

    every.__name__ = "answer"
    given = [{"question": row["question"], "context": row["context"]} for row in rows]
    found = checking.calls(every, limit=20.0)(given)
    for text, row in zip(found, given, strict=True):
        assert isinstance(text, str), (
            f"answer: a text expected, not {checking.shown(text)}. Did you forget return?"
        )
        assert text in row["context"], (
            f"answer: {text!r} does not stand in the context like that. Slice the context by characters; pieces that are put "
            "together again have lost capitals and spaces."
        )
    return found


def fitted(fit, net, rows, dev, seed):
    got = checking.calls(
        fit, limit=15.0, slow="A hundred and fifty small steps are enough.", changes=("net",)
    )(net, rows, dev, seed)
    assert isinstance(got, list | tuple) and len(got) == 2 and isinstance(got[0], nn.Module), (
        f"fit: return the net and what else answer needs, not {checking.shown(got)}."
    )
    return got


def statements(context):
    """(begin, end) of what belongs together, in characters."""
    pattern = rf"(?:^|\. )(\S.*? (?:{'|'.join(VERBS)}) the (?:old )?(?:{'|'.join(THINGS)}))"
    return [m.span(1) for m in re.finditer(pattern, context)]


def check_windows(answer, extra):
    spy, rows = Spy(), questions(3, 8, 0.5)
    for row in rows:
        spy.seen = []
        answers_of(answer, spy, extra, [row])
        text = pieces(row["context"])
        numbers = [p[0] for p in text]
        whole = set()
        for seen in spy.seen:
            at = [i for i in range(len(numbers)) if seen and numbers[i : i + len(seen)] == seen]
            assert at, (
                "The pieces of a window are no stretch of the text: neither cut one out nor change the order."
            )
            whole |= {(s, e) for i in at for s, e in [(i, i + len(seen))]}
        assert whole, "answer: no window was shown to the net."
        assert max(e for _, e in whole) == len(text), (
            f"The end of the text is never read: {len(text)} pieces, the last window ends after {max(e for _, e in whole)}. "
            "An answer there is lost, whatever the net has learned."
        )
        for begin, end in statements(row["context"]):
            own = [i for i, (_, left, right) in enumerate(text) if left < end and right > begin]
            assert any(s <= own[0] and own[-1] < e for s, e in whole), (
                f"No window holds {row['context'][begin:end]!r} whole. Windows have to overlap by what belongs together, "
                "or one of them sees the name and another one the thing."
            )


def check_spans(answer, extra):
    """Best legal spans of a net whose logits are known, far above every margin."""
    number = {word: pieces(word)[0][0] for word in ("ada", "met", "max", "in", "rome", "who")}
    row = {"question": "Who?", "context": "Then Ada met Max in Rome and both were happy there."}

    def said(**table):
        return answers_of(
            answer, Spy({number[word]: logits for word, logits in table.items()}), extra, [row]
        )[0]

    got = said(max=(500.0, 300.0), ada=(450.0, 500.0))
    assert got != "", (
        "answer: the best start is 'Max' and the best end is 'Ada', before it. Two maxima, each for itself, are no span, and "
        "you say nothing. Take the best pair."
    )
    assert got == "Ada", (
        f"answer: {got!r}. The best legal pair begins and ends with 'Ada'; the sum of its two logits is 950."
    )
    got = said(who=(900.0, 900.0), rome=(400.0, 400.0))
    assert got == "Rome", (
        f"answer: {got!r}. The question's own pieces have the highest logits here, and are no answer: 'Rome'."
    )
    got = said(ada=(500.0, 0.0), max=(0.0, 500.0))
    assert got == "Ada met Max", f"answer: {got!r} instead of 'Ada met Max'. Both ends belong to the answer."


def check_negatives(fit):
    net, extra = fitted(fit, Spy(), questions(5, 40), questions(6, 6, 0.5), 0)
    assert isinstance(net, Spy), "fit: train the net that you are given, and return it."
    none, here = net.none.detach().mean(), net.here.detach().mean()
    assert none != 0 or here != 0, "fit: no weight has moved."
    assert none > here, (
        "fit: the net never learns 'not here'. Windows without the answer are examples, too, with the label (0, 0). Without "
        "them it is sure of itself in every window."
    )
    return extra


def judge_05_6(fit, answer, seed, bar):
    rows, dev, test = questions(seed, 160), questions(seed + 1, 60, 0.5), questions(seed + 2, 140, 0.5)
    net, extra = fitted(fit, Reader(seed), rows, dev, seed)
    said = answers_of(answer, net, extra, test)
    asked = [(text, row["answers"][0]) for text, row in zip(said, test, strict=True) if row["answers"]]
    none = [text for text, row in zip(said, test, strict=True) if not row["answers"]]
    invented, refused = sum(t != "" for t in none) / len(none), sum(t == "" for t, _ in asked) / len(asked)
    share = (sum(t == "" for t in none) + sum(t == a for t, a in asked)) / len(test)
    other = sum(t not in ("", a) for t, a in asked) / len(asked)
    told = (
        f"{share:.2f} exact, {bar:g} is asked for (seed {seed}). Of the questions with an answer {refused:.0%} get none and "
        f"{other:.0%} a wrong one; of those without {invented:.0%} get one."
    )
    if share < bar:
        assert invented < 0.35, (
            f"{told} In `rows` every question has an answer. Windows without it teach *not here*; how sure is sure enough, "
            "`dev` tells: choose the margin there, by exact answers, the silent ones counted as right where no answer is."
        )
        assert refused < 0.6, f"{told} You are silent too often. Choose the margin on dev."
        raise AssertionError(
            f"{told} Is the net trained long enough? Do you compare windows by what a span has more than 'not here' in its "
            "own window? A softmax within a window cannot compare windows: it is as sure of the best of nothing."
        )
    if seed == 100:
        check_spans(answer, extra)
    return share


def check_05_6(fit, answer):
    check_windows(answer, check_negatives(fit))
    share = judge_05_6(fit, answer, 100, BAR)
    print(f"05.6 passed the visible cases: {share:.2f} exact on fresh texts.")


check_05_6(fit, answer)
### BEGIN HIDDEN TESTS


def hidden_05_6(fit, answer):
    rows, dev = questions(7, 30), questions(8, 10, 0.5)
    ends = []
    for state in (1, 2):
        torch.manual_seed(state)
        random.seed(state)
        net, extra = fitted(fit, Spy(), rows, dev, 3)
        ends.append(torch.cat([net.none, net.here]).detach())
    assert torch.equal(*ends), "The same seed gave another net the second time: draw from the seed alone."
    short = {"question": "Who?", "context": "Max."}
    spy = Spy({pieces("max")[0][0]: (500.0, 500.0)})
    says = "A text of two pieces, shorter than what windows share, is one window. The net sees nothing, or you say nothing."
    try:
        got = answers_of(answer, spy, extra, [short])[0]
    except AssertionError as error:
        raise AssertionError(says) from error
    assert got == "Max", says
    judge_05_6(fit, answer, 200, BAR - 0.03)


hidden_05_6(fit, answer)
### END HIDDEN TESTS

# %% [markdown]
# ## 05.7 Project: two methods, and two shifts
#
# > ●●●●● · 165 minutes · practice
#
# A reader that is trained at home is used elsewhere. Choose two methods, $A$ and $B$, a home, and two *away* sets that
# differ from it in a way that you can name (the candidates of the next cell, the sets of lesson 05, your field's texts).
# Write the claim first: "trained at home, $B$ is ahead of $A$ by more than `threshold` on *both* away sets", or on *one*
# of them at least. Train both with several seeds, and test all runs on the same questions, from documents that nobody
# trained or tuned on. `study()` returns a dict:
#
# | key | what |
# |:--|:--|
# | `claim` | a sentence of at least $40$ characters that names `a`, `b` and both away sets |
# | `a`, `b` | two different names |
# | `home`, `away` | the name of the home set; a list of the names of two others |
# | `how` | `"both"` or `"one"` |
# | `threshold` | from $0$ to $0.5$ |
# | `tuning_seeds`, `seeds` | at least two and at least four whole numbers, all different |
# | `trials` | a dict: for each method how many settings were tried, equal |
# | `tuned_on` | the name of the set whose dev part chose them: `home` |
# | `documents` | for each set: a list with the document of each question; at least ten documents, none in two sets |
# | `scores` | for both methods: for each set a table (seeds, questions) of exact match or F1, from $0$ to $1$ |
# | `lead` | for each set: score of $B$ minus that of $A$, mean over a document's questions, then over documents and seeds |
# | `low`, `high` | for each set: the $95\,\%$ interval of the lead, for other seeds *and* other documents |
# | `p` | for each away set: the two-sided p-value of the lead against `threshold`; with `"one"` Holm's, for two tests |
# | `verdict` | `"supported"`, `"refuted"` or `"undecided"` |
#
# **The interval.** Questions of one document share its topic and its writer, and all seeds answer the same questions. So
# make a table of the mean lead for each seed (row) and document (column), as an array of shape (1, seeds, documents).
# `intervals.crossed(table)` is the estimate; it has the methods `.interval()` (with `.mean`, `.low`, `.high`) and
# `.p_value(threshold)`. Holm's for two tests: `intervals.holm([p, q])`. The lead is checked
# to six digits, an interval to a hundredth of its width, a p-value to a thousandth.
#
# **The verdict.** With `"both"` the weaker set decides, so nothing is corrected: *supported* if both lower ends lie above
# the threshold, *refuted* if an upper end lies below it. With `"one"` you may pick the luckier set, and that costs:
# *supported* if for some set the lead is above the threshold and Holm's p-value below $0.05$, *refuted* if both upper
# ends lie below it. Else *undecided*. The home set decides nothing.
#
# The checker recomputes all numbers. A person reads the rest with this rubric (0 to 2 points a row; 9 of 14 pass): the
# claim could have failed; the shift is named, and there is a reason why it should matter to these methods; tuning never
# saw an away set; the documents are documents (one writer, one topic), and enough of them; the lead at home is reported,
# and what it says; the question which is more uncertain, seeds or documents, is answered; the ending says what was not
# shown.


# %%
KINDS = ["home", "anywhere", "late"]


def texts(seed, n=30, kind="home", questions=6):
    """A starter: rows (document, X, right). X (5, 4) describes five places in a text that may be the answer.

    Columns: words shared with the question, the right kind of word, length, position (0 is the beginning). At home
    answers tend to stand early, and a reader may learn that. Documents differ in how much the shared words tell.
    """
    g, rows = torch.Generator().manual_seed(1000 * seed + KINDS.index(kind)), []
    for document in range(n):
        tells = 1.2 * torch.rand(1, generator=g).item()
        for _ in range(questions):
            X = torch.randn(5, 4, generator=g)
            X[:, 3] = torch.rand(5, generator=g).sort().values
            chances = {"home": [5.0, 3, 2, 1, 1], "anywhere": [1.0] * 5, "late": [1.0, 1, 2, 3, 5]}[kind]
            right = int(torch.multinomial(torch.tensor(chances), 1, generator=g))
            X[right, :2] += torch.tensor([tells, 0.8])
            rows.append((f"{kind} {seed}/{document}", X, right))
    return rows


def choose(rows, steps, columns):
    """A starter: weights of a softmax over the five places that looks at some columns. Shape (4,)."""
    X, y = torch.stack([x for _, x, _ in rows]), torch.tensor([right for *_, right in rows])
    mask = torch.zeros(4)
    mask[columns] = 1.0
    w = torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.Adam([w], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(X @ (w * mask), y).backward()
        optimizer.step()
    return (w * mask).detach()


# %% nbgrader={"grade_id": "answer_05_7", "solution": true}
def study():
    """Return the dict of the table."""
    ### BEGIN SOLUTION
    a, b, seeds, tuning_seeds, threshold = (
        "all columns",
        "no position",
        [10, 11, 12, 13, 14, 15],
        [1, 2],
        0.02,
    )
    columns, settings = {a: [0, 1, 2, 3], b: [0, 1, 2]}, (15, 30, 60)

    def hits(w, rows):
        X, y = torch.stack([x for _, x, _ in rows]), torch.tensor([right for *_, right in rows])
        return ((X @ w).argmax(1) == y).double()

    tuning = [(texts(t), texts(t + 50)) for t in tuning_seeds]
    steps = {}
    for name in (a, b):
        dev = {
            s: sum(hits(choose(x, s, columns[name]), y).mean().item() for x, y in tuning) for s in settings
        }
        steps[name] = max(dev, key=dev.get)
    test = {kind: texts(900, 60, kind) for kind in KINDS}
    owners = {kind: [document for document, *_ in rows] for kind, rows in test.items()}
    scores = {name: {kind: [] for kind in KINDS} for name in (a, b)}
    for seed in seeds:
        train = texts(seed)
        for name in (a, b):
            w = choose(train, steps[name], columns[name])
            for kind, rows in test.items():
                scores[name][kind].append(hits(w, rows).tolist())
    found = {}
    for kind, owner in owners.items():
        gain, owner = np.subtract(scores[b][kind], scores[a][kind]), np.array(owner)
        table = np.stack([gain[:, owner == d].mean(1) for d in dict.fromkeys(owner.tolist())], 1)
        found[kind] = intervals.crossed(table[None])
    lows, highs = ({kind: getattr(e.interval(), end) for kind, e in found.items()} for end in ("low", "high"))
    away = KINDS[1:]
    verdict = "supported" if min(lows[k] for k in away) > threshold else "undecided"
    verdict = "refuted" if min(highs[k] for k in away) < threshold else verdict
    return {
        "claim": f"Trained at home, a linear reader with {b} is ahead of one with {a} by more than 2 points, both where "
        "answers stand anywhere and where they stand late.",
        "a": a, "b": b, "home": "home", "away": away, "how": "both", "threshold": threshold,
        "tuning_seeds": tuning_seeds, "seeds": seeds, "trials": dict.fromkeys((a, b), len(settings)), "tuned_on": "home",
        "documents": owners, "scores": scores, "lead": {kind: e.mean for kind, e in found.items()},
        "low": lows, "high": highs, "p": {kind: found[kind].p_value(threshold) for kind in away}, "verdict": verdict,
    }  # fmt: skip
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_05_7", "locked": true}
STUDY = (
    "claim a b home away how threshold tuning_seeds seeds trials tuned_on documents scores lead low high p verdict"
).split()


def lead_tables(mine, sets):
    """For each set the lead of B by seed and question, and by seed and document."""
    questions, tables, owners = {}, {}, {}
    for name in sets:
        owner = list(mine["documents"][name])
        a, b = (np.array(mine["scores"][method][name], dtype=float) for method in (mine["a"], mine["b"]))
        shape = (len(mine["seeds"]), len(owner))
        for method, got in ((mine["a"], a), (mine["b"], b)):
            assert got.shape == shape, (
                f"scores[{method!r}][{name!r}]: shape {shape} expected, not {got.shape}."
            )
            assert ((got >= 0) & (got <= 1)).all(), f"scores[{method!r}][{name!r}]: from 0 to 1."
        order = dict.fromkeys(owner)
        assert len(order) >= 10, f"documents[{name!r}]: {len(order)}. At least ten: they are what was drawn."
        for document in order:
            assert document not in owners, (
                f"documents: {document!r} is in {name!r} and in {owners.get(document)!r}. A document belongs to one set."
            )
        owners |= dict.fromkeys(order, name)
        questions[name] = b - a
        places = [[i for i, d in enumerate(owner) if d == document] for document in order]
        tables[name] = np.stack([questions[name][:, at].mean(1) for at in places], 1)
    return questions, tables


def check_05_7(study):
    mine = checking.handed_in(study, STUDY, limit=60.0)
    a, b, home, away, bar, how = (mine[key] for key in ("a", "b", "home", "away", "threshold", "how"))
    assert a != b, "a and b are the same method."
    assert isinstance(away, list | tuple) and len({home, *away}) == 3, (
        "away: two sets, different from each other and from home."
    )
    assert isinstance(mine["claim"], str) and len(mine["claim"]) >= 40, "claim: at least 40 characters."
    for name in (a, b, *away):
        assert name in mine["claim"], (
            f"claim: {name!r} does not occur. A claim names what it compares, and where."
        )
    assert how in ("both", "one"), "how: 'both' or 'one'."
    assert 0 <= bar <= 0.5, "threshold: from 0 to 0.5. Two points are 0.02."
    seeds, tuning = mine["seeds"], mine["tuning_seeds"]
    assert len(set(seeds)) == len(seeds) >= 4, "seeds: at least four, no two alike."
    assert len(set(tuning)) == len(tuning) >= 2, "tuning_seeds: at least two, no two alike."
    assert not set(seeds) & set(tuning), (
        f"seeds: {sorted(set(seeds) & set(tuning))} chose the settings already."
    )
    assert isinstance(mine["trials"], dict) and set(mine["trials"]) == {a, b}, (
        "trials: a dict with the two methods as keys."
    )
    assert mine["trials"][a] == mine["trials"][b] >= 1, (
        "trials: who may try more settings wins by that alone."
    )
    assert isinstance(mine["tuned_on"], str), "tuned_on: one text, the name of the home set."
    assert mine["tuned_on"] == home, (
        f"tuned_on: {mine['tuned_on']!r}. Settings that were chosen away are trained away: the shift is no longer one."
    )
    sets = [home, *away]
    for key in ("documents", "lead", "low", "high"):
        assert isinstance(mine[key], dict) and set(mine[key]) == set(sets), (
            f"{key}: a dict with the keys {', '.join(sets)}."
        )
    assert isinstance(mine["p"], dict) and set(mine["p"]) == set(away), (
        f"p: a dict with the keys {' and '.join(away)}. Home decides nothing."
    )
    questions, tables = lead_tables(mine, sets)
    leads = {name: float(table.mean()) for name, table in tables.items()}
    wrong = {
        "lead: A minus B. The study asks for B minus A.": {name: -x for name, x in leads.items()},
        "lead: the mean over all questions. A document with many would count more: take each document's mean first.": {
            name: float(table.mean()) for name, table in questions.items()
        },
    }
    checking.equal(mine["lead"], leads, "lead", wrong, tol=1e-6)
    estimates = {name: intervals.crossed(table[None]) for name, table in tables.items()}
    right = {name: estimate.interval() for name, estimate in estimates.items()}
    for name in sets:
        assert tables[name].std() > 1e-9, (
            f"{name}: no lead differs from any other. Something is not drawn anew."
        )
        room = 0.01 * (right[name].high - right[name].low)
        near = {
            "questions as if they came one by one. Those of one document share its topic: the document is the unit.": (
                intervals.crossed(questions[name][None]).interval().low
            ),
            "other seeds only. All seeds answer the same questions, so their luck is in each of them.": intervals.t_interval(
                tables[name].mean(1)
            ).low,
            "other documents only. Another training run would give another lead on the same documents.": intervals.t_interval(
                tables[name].mean(0)
            ).low,
            "seeds times documents as independent numbers. Neither is new in every cell.": intervals.t_interval(
                tables[name].ravel()
            ).low,
        }
        for key in ("low", "high"):
            got, want = mine[key][name], getattr(right[name], key)
            checking.form(got, 0.0, f"{key}[{name!r}]")
            if abs(got - want) > room:
                for message, value in near.items():
                    assert key == "high" or abs(got - value) > room, f"low[{name!r}]: {message}"
                raise AssertionError(f"{key}[{name!r}]: you have {got:.4f}; recomputed it is {want:.4f}.")
    raw = {name: estimates[name].p_value(bar) for name in away}
    holm = dict(zip(away, intervals.holm(list(raw.values())).tolist(), strict=True))
    zero = {name: estimates[name].p_value(0.0) for name in away}
    want = raw if how == "both" else holm
    wrong = {
        "p: with 'one' you may pick the luckier of two sets. Correct for two tests (intervals.holm).": raw,
        "p: with 'both' the weaker set decides, so there is nothing to correct.": holm,
        "p: against 0. The claim is about the threshold.": zero,
    }
    for name in away:
        checking.form(mine["p"][name], 0.0, f"p[{name!r}]")
    if any(abs(mine["p"][name] - want[name]) > 1e-3 for name in away):
        for message, value in wrong.items():
            assert any(abs(mine["p"][name] - value[name]) > 1e-3 for name in away), message
        raise AssertionError(f"p: you have {mine['p']}; recomputed it is {want}.")
    if how == "both":
        supported = min(right[name].low for name in away) > bar
        refuted = min(right[name].high for name in away) < bar
    else:
        supported = any(holm[name] < 0.05 and leads[name] > bar for name in away)
        refuted = max(right[name].high for name in away) < bar
    verdict = "supported" if supported else "refuted" if refuted else "undecided"
    shown = ", ".join(f"{name} [{right[name].low:.3f}, {right[name].high:.3f}]" for name in away)
    assert mine["verdict"] == verdict, f"verdict: {shown} against {bar:g}, for {how!r}, says {verdict}."
    print(f"05.7 passed: {verdict}; {shown}. Now a person reads the study with the rubric.")


check_05_7(study)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# One function: (method, seed) → for each set a list of scores. Test texts do not depend on the seed. All else is a mean
# over the table that you get.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `gain[:, owner == d].mean(1)` is a column of the table: the lead of each seed on document `d`. Compare the interval with
# `intervals.t_interval` of the rows' means and of the columns' means: which of the two is nearly as wide?
#
# </details>
#
# {{solution}}
