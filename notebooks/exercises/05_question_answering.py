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

import numpy as np

# %% [markdown]
# ## 05.1 From characters to tokens
#
# > ●●○○○ · 12 minutes · practice
#
# A tokenizer returns for each token of `[CLS] question [SEP] context [SEP]` its characters
# (`offset_mapping`, end exclusive) and its text (`sequence_ids`: 0 question, 1 context, None special). The
# answer covers the characters `begin` to `end - 1` of the **context**. Return the first and the last token
# that *touch* it. If a part of the answer lies outside the window, return `(0, 0)`.
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
def window_05_1(question, context, seen=None):
    """Offsets and sequence ids of whitespace tokens, as a tokenizer gives them; `seen` tokens of the context."""

    def pieces(text):
        found, at = [], 0
        for word in text.split():
            at = text.index(word, at)
            found.append((at, at + len(word)))
            at += len(word)
        return found

    first, second = pieces(question), pieces(context)[slice(*(seen or (None,)))]
    special = [(0, 0)]
    offsets = special + first + special + second + special
    return offsets, [None] + [0] * len(first) + [None] + [1] * len(second) + [None]


def check_05_1(token_span):
    context = "The mill was built by Ada Byron in 1840."
    whole = window_05_1("Who built it, and when exactly?", context)
    begin = context.index("Ada")
    got = token_span(*whole, begin, begin + len("Ada Byron"))
    assert got is not None, "The function returned None. Did you forget return?"
    assert len(got) == 2, f"Two positions expected: first and last. You returned {got!r}."
    got = tuple(int(i) for i in got)
    assert got != (13, 15), (
        "The last token is one too many: positions are inclusive here, it is `last`, not `last + 1`."
    )
    assert got[0] > 7, (
        f"You return {got}. Positions 1 to 6 belong to the question: its characters count from 0, too. "
        "Look at sequence_ids."
    )
    assert got == (13, 14), f"'Ada Byron' is the tokens 13 and 14 of the window, not {got}."
    first_word = tuple(token_span(*whole, 0, 3))
    assert first_word == (8, 8), (
        f"'The', the first word of the context, is token 8, not {first_word}. Is an answer at character 0 "
        "an answer? Or did the question answer for the context?"
    )
    half = tuple(token_span(*whole, begin, begin + len("Ada By")))
    assert half == (13, 14), (
        f"The answer 'Ada By' ends in the middle of a token; you return {half}. A token that is touched "
        "counts: compare with < and >, do not ask that it lies wholly inside."
    )
    after = tuple(token_span(*whole, begin, begin + len("Ada ")))
    assert after == (13, 13), (
        f"The answer 'Ada ' ends with a space; you return {after}. The token 'Byron' begins where the answer "
        "ends, and `end` is exclusive: left < end, not <=."
    )
    cut = window_05_1("Who built it, and when exactly?", context, (0, 6))
    assert tuple(token_span(*cut, begin, begin + len("Ada Byron"))) == (0, 0), (
        "The window ends after 'Ada', so 'Ada Byron' is not in it. Half an answer is not an answer: (0, 0)."
    )
    assert tuple(token_span(*cut, context.index("1840"), len(context))) == (0, 0), (
        "An answer wholly outside the window: (0, 0)."
    )
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
def check_05_2(windows):
    tokens = [f"t{i}" for i in range(10)]
    found = windows(tokens, 4, 2, 3, 4)
    assert found is not None, "The function returned None. Did you forget return?"
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
    assert pieces == [tokens[0:4], tokens[2:6], tokens[4:8], tokens[6:10]], (
        f"Windows expected at 0, 2, 4, 6. You have {pieces}."
    )
    labels = [(int(s), int(e)) for _, s, e in found]
    assert labels[1] != (3, 4), "Label (3, 4) counts in the text. In the window it begins at 2, so (1, 2)."
    assert labels[1] == (1, 2), (
        f"The second window holds t3 and t4 at its positions 1 and 2, not {labels[1]}."
    )
    assert labels[0] != (3, 3) and labels[2] != (0, 0), (
        "A window with half of the answer got the other half's border as its label: min and max moved it inside. "
        "The model would learn that 't3' alone is right. Say (-1, -1)."
    )
    assert labels == [(-1, -1), (1, 2), (-1, -1), (-1, -1)], f"Labels: {labels}."
    short = windows(tokens[:3], 4, 2, 0, 2)
    assert [(list(w), s, e) for w, s, e in short] == [(tokens[:3], 0, 2)], "A text that fits is one window."
    for first, length in itertools.product(range(9), (1, 2)):
        last = min(first + length - 1, 9)
        held = [w[s : e + 1] for w, s, e in windows(tokens, 4, 2, first, last) if s >= 0]
        assert held and all(list(h) == tokens[first : last + 1] for h in held), (
            f"The answer from t{first} to t{last} is no longer than the overlap, and no window holds it whole."
        )
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
# Use no loop over pairs of positions: a window has hundreds of tokens, and there are thousands of windows.


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
    context = np.array([False, False, True, True, True, True, False])
    start = np.array([9.0, 0, 2.8, 0, 3.0, 0, 0])
    end = np.array([9.0, 0, 3.0, 0, 0, 2.0, 8.0])
    got = best_span(start, end, context, 3)
    assert got is not None, "The function returned None, but there are legal spans."
    got = tuple(int(i) for i in got)
    assert got != (0, 0), "(0, 0) has the largest sum, but it lies outside the context. Mask with in_context."
    assert got != (4, 2), (
        "This span ends before it begins: the two maxima of the context, taken separately. Add all pairs, then mask."
    )
    assert got != (4, 6), "Only the first token is checked against in_context here; the last one is [SEP]."
    assert got != (4, 5), (
        "You fixed the best first token, then took the best last token behind it. The best pair need not hold the "
        "best first token: (2, 2) has 5.8, (4, 5) has 5.0."
    )
    assert got == (2, 2), f"The best legal pair is (2, 2) with 5.8. You return {got}."
    far = np.zeros(7), np.zeros(7)
    far[0][2] = far[1][5] = 5.0
    four, three = (tuple(best_span(*far, context, n)) for n in (4, 3))
    assert four == (2, 5), (
        f"From 2 to 5 are four tokens, which max_tokens = 4 allows; you return {four}. Off by one?"
    )
    assert three != (2, 5), "From 2 to 5 are four tokens, and max_tokens is 3. Mask what is too long."
    assert three in {(2, 2), (3, 5)}, f"With max_tokens = 3 two spans tie at 5.0; you return {three}."
    nothing = best_span(start, end, np.zeros(7, dtype=bool), 3)
    assert nothing is None, f"No token is in the context, so no span is legal: None, not {nothing}."
    print("05.3 passed the visible cases.")


check_05_3(best_span)
### BEGIN HIDDEN TESTS


def hidden_05_3(best_span):
    rng = np.random.default_rng(0)
    for _ in range(60):
        n = int(rng.integers(1, 12))
        start, end = rng.normal(size=n) - 50, rng.normal(size=n) - 50
        context, most = rng.random(n) < 0.7, int(rng.integers(1, 6))
        want, got = slow_05_3(start, end, context, most), best_span(start, end, context, most)
        got = None if got is None else tuple(int(i) for i in got)
        assert got == want, (
            "Wrong on a random table whose logits are all far below zero. Mask with minus infinity, not with 0: zero "
            "would be the largest of all."
        )
    tie = best_span(np.zeros(5), np.zeros(5), np.array([False, True, True, True, False]), 2)
    assert tuple(tie) == (1, 1), "All spans tie: return the one that begins first, and of those the shortest."


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
    mine = prediction()
    assert mine is not None, "The function returned None. Return your dict."
    assert set(mine) == set(TABLES), f"Keys expected: {', '.join(TABLES)}."
    for name, (first, last) in TABLES.items():
        a, c = (np.array([row.get(t, 0.0) for t in range(10)]) for row in (first, last))
        pairs = {(s, e): a[s] + c[e] for s in range(4, 9) for e in range(s, min(9, s + 3))}
        separate, joint = (int(a.argmax()), int(c.argmax())), max(pairs, key=pairs.get)
        got = {key: tuple(value) for key, value in mine[name].items()}
        assert set(got) == {"separate", "joint"}, f"{name}: two keys, separate and joint."
        assert got["separate"] != separate[::-1] or separate[0] == separate[1], (
            f"{name}: start first, then end; do not put them into order. The decoder does not either."
        )
        assert got["separate"] == separate, (
            f"{name}: the two maxima, over all positions, legal or not, are {separate}."
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
    got = em_f1("Denver Broncos", ["Denver Broncos"])
    assert got is not None, "The function returned None. Did you forget return?"
    assert len(got) == 2 and got[0] == got[1] == 1.0, f"Equal texts: (1.0, 1.0) expected, not {got}."

    def scores(prediction, *answers):
        return tuple(round(float(x), 4) for x in em_f1(prediction, list(answers)))

    assert scores("the Denver Broncos!", "denver broncos") == (1.0, 1.0), (
        "Case, punctuation and the article must not matter: normalise both sides."
    )
    assert scores("theatre", "atre") == (0.0, 0.0), (
        "'theatre' lost its first letters. Drop the *word* the: a pattern with \\b on both sides."
    )
    em, f1 = scores("Broncos of Denver", "Denver Broncos")
    assert em == 0.0, "Exact match compares the words in order: 'broncos of denver' is not 'denver broncos'."
    assert f1 != round(2 / 3, 4), (
        "2/3 is the precision (or the share of common among all words). F1 is 2 n / (|p| + |t|) = 4/5."
    )
    assert f1 == 0.8, f"Two words in common of 3 and 2: F1 is 0.8, not {f1}."
    em, f1 = scores("no no no", "no")
    assert f1 != 1.0, (
        "Sets forget how often a word occurs: 'no no no' is not 'no'. Count (Counter & Counter)."
    )
    assert f1 == 0.5, f"One word in common of 3 and 1: F1 is 0.5, not {f1}."
    em, f1 = scores("Broncos", "the Denver Broncos", "Broncos")
    assert f1 != round((2 / 3 + 1) / 2, 4), "Several truths: the kindest counts, not the mean."
    assert (em, f1) == (1.0, 1.0), (
        f"The second truth fits exactly; you return {(em, f1)}. Look at all of them."
    )
    assert scores("something") == (0.0, 0.0) and scores("") == (1.0, 1.0), (
        "No true answer: the empty prediction is right, everything else is wrong."
    )
    print("05.5 passed the visible cases.")


check_05_5(em_f1)
### BEGIN HIDDEN TESTS


def hidden_05_5(em_f1):
    em, f1 = em_f1("a.b", ["ab"])
    assert (em, f1) == (1.0, 1.0), (
        "'a.b' has to become 'ab': punctuation first, articles second. The other way round the letter a is taken for "
        "an article."
    )
    assert tuple(em_f1("The", ["a"])) == (1.0, 1.0), (
        "No words left on either side: equal, so both scores are 1."
    )
    assert tuple(em_f1("The", ["cat"])) == (0.0, 0.0), "One side has no words left: F1 is 0, not an error."
    assert tuple(em_f1("x  y\n z", ["x y z"])) == (1.0, 1.0), "Any white space separates words."


hidden_05_5(em_f1)
### END HIDDEN TESTS
