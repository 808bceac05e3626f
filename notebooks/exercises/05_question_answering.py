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
# that you do not see here, so test more than the checker does. Nothing on this page needs a model, a data
# set or a network.
#
# {{overview}}

# %%
import itertools
import random
import re
import string

import numpy as np

from instructlab_utils import checking

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
