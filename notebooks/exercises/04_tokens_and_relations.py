# ---
# jupyter:
#   instructlab:
#     id: "04"
#     title: Tokens and relations
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 04: tokens and relations
#
# Each exercise is a box, a cell for your answer, and a checker in the cell below it. Replace the line that
# raises `NotImplementedError`, then run both cells. A checker that says no also says what probably went
# wrong.
#
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases
# that you do not see here, so test more than the checker does. The page needs no file and no network.
# Exercise 04.6 trains a small tagger, and exercise 04.7 is a project: each is worth an evening.
#
# {{overview}}

# %%
import itertools
import math
import random

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from instructlab_utils import checking, intervals

# %% [markdown]
# ## 04.1 Labels for pieces
#
# > ●●○○○ · 10 minutes · practice
#
# A tokenizer cut words into pieces. `word_ids` says for each piece which word it comes from, `None` for special
# pieces such as `[CLS]` and for padding. `labels` has one number per word. Give the *first* piece of each word the
# label of the word, and $-100$ to everything else.
#
# The lists may come from a window in the middle of a text: the first word there need not be word 0, and a long text
# has thousands of words.


# %% nbgrader={"grade_id": "answer_04_1", "solution": true}
def align(word_ids, labels):
    """Return a list of int, one label per piece; word_ids is a list of int or None, labels a list of int."""
    ### BEGIN SOLUTION
    aligned, previous = [], None
    for word in word_ids:
        first = word is not None and word != previous
        aligned.append(labels[word] if first else -100)
        previous = word
    return aligned
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_04_1", "locked": true}
def by_sets(word_ids, labels):
    """The same, by the places at which each word occurs first."""
    firsts = {word: i for i, word in reversed(list(enumerate(word_ids)))}
    return [labels[w] if w is not None and firsts[w] == i else -100 for i, w in enumerate(word_ids)]


def check_04_1(align):
    call = checking.calls(align)
    got = call([None, 0, 1, 1, 1, 2, None, None], [5, 6, 0])
    checking.form(got, [0] * 8, "the labels")
    got = list(got)
    assert got[0] != 0 and got[6] != 0, (
        "A special piece has the label 0. That is a target: the model would be trained on [CLS] and padding. "
        "No target is -100."
    )
    wrong = {
        "The labels stand at the front, whatever the pieces are: [CLS] now has the label of the first word. "
        "Look up the word of each piece.": [5, 6, 0, -100, -100, -100, -100, -100],
        "Each piece has its word's label. A word of three pieces would then begin three spans. Only its first "
        "piece may carry the label.": [-100, 5, 6, 6, 6, 0, -100, -100],
        "The label of the second word is not on its first piece. You compare with the next piece, not with the "
        "one before.": [-100, 5, -100, -100, 6, 0, -100, -100],
        "No target is -100, not -1: the loss skips -100 only.": [-1, 5, 6, -100, -100, 0, -1, -1],
        "Word 0 has lost its label: 0 counts as false, or as the word that came before the first. Compare with None, and "
        "let None come before the first.": [
            -100,
            -100,
            6,
            -100,
            -100,
            0,
            -100,
            -100,
        ],
        "Label 0 is lost: 0 counts as false, but it is a label like any other.": [-100, 5, 6] + [-100] * 5,
    }
    checking.equal(got, [-100, 5, 6, -100, -100, 0, -100, -100], "the labels", wrong)
    assert list(call([None, 0, 1, 1, 1, 2, None, None], [5, 6, 0])) == got, (
        "The same call gives other labels the second time: something is remembered from call to call. A default "
        "argument such as seen=set() is made once, not at every call."
    )
    checking.equal(
        call([None, 2, 3, 3, None], [0, 0, 7, 8]),
        [-100, 7, 8, -100, -100],
        "the labels",
        says="A window that begins with word 2 gets the labels of other words. Use the word's number; do not count "
        "the words that you meet.",
    )
    checking.equal(
        call([int(word) for word in "300 300 301 301".split()], list(range(400))),
        [300, -100, 301, -100],
        "the labels",
        says="Words 300 and 301. Equal numbers need not be the same object: compare with == and !=, not with `is`.",
    )
    checking.equal(
        call([None, 0, 1, 1, 2], [3, 3, 3]),
        [-100, 3, 3, -100, 3],
        "the labels",
        says="Neighbouring words with the same label: each has its own. Compare the numbers of the words, not their labels.",
    )
    rng = random.Random(0)
    for words in (1, 6, 11):
        start = rng.randrange(9)
        word_ids = (
            [None] + [w for w in range(start, start + words) for _ in range(rng.randint(1, 3))] + [None]
        )
        labels = [rng.randrange(-1, 5) for _ in range(start + words)]
        call.agrees(by_sets, (word_ids, labels), name="the labels")
    print("04.1 passed. One target per word, and none anywhere else.")


check_04_1(align)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Walk through `word_ids` and remember the value before.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# A piece is the first of its word if its word is not `None` and differs from that of the piece before.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 04.2 The span that gets lost
#
# > ●●●○○ · 15 minutes · practice · bug hunt
#
# This reader of BIO tags works on the example in its author's mail. On real sentences it loses spans, joins spans that
# are two, and invents some. Find three bugs. Read *strictly*: only `B-x` opens a span, only `I-x` with the same `x`
# continues it, a stray `I` belongs to nothing.


# %%
def broken_spans(tags):
    spans, begin, kind = [], None, None
    for i, tag in enumerate(tags):
        if tag == "O":
            if begin is not None:
                spans.append((kind, begin, i))
            begin = None
        elif begin is None:
            begin, kind = i, tag[2:]
    return spans


print(broken_spans(["O", "B-name", "I-name", "O"]))  # fine
print(broken_spans(["O", "B-name", "I-name"]))  # lost
print(broken_spans(["B-name", "B-area", "O"]))  # two, joined
print(broken_spans(["O", "I-name", "O"]))  # invented


# %% nbgrader={"grade_id": "answer_04_2", "solution": true}
def read_spans(tags):
    """Return the spans as a list of (kind, begin, end), in order; end is the index after the last word."""
    ### BEGIN SOLUTION
    spans, begin, kind = [], 0, ""
    for i, tag in enumerate([*tags, "O"]):
        if kind and tag != "I-" + kind:
            spans.append((kind, begin, i))
            kind = ""
        if tag.startswith("B-"):
            begin, kind = i, tag[2:]
    return spans
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_04_2", "locked": true}
def by_every_pair(tags):
    """Every begin and every end, tested."""
    n, found = len(tags), []
    for i, j in itertools.combinations(range(n + 1), 2):
        kind = tags[i][2:]
        inside = all(tag == f"I-{kind}" for tag in tags[i + 1 : j])
        if tags[i].startswith("B-") and inside and (j == n or tags[j] != f"I-{kind}"):
            found.append((kind, i, j))
    return found


def check_04_2(read_spans):
    call = checking.calls(read_spans)

    def read(line, want, wrong, says):
        checking.equal(call(line.split()), want, f"{line}: the spans", wrong, says=says)

    wrong = {"The end is the index of the last word. It is the index *after* it.": [("a", 1, 2)]}
    read("O B-a I-a O", [("a", 1, 3)], wrong, "One span.")
    says = (
        "A span that ends with the sentence is lost or too short. Nothing closes it: add an O, or look once more "
        "after the loop."
    )
    read("O B-a I-a", [("a", 1, 3)], {}, says)
    says = "These are two spans of the same kind: each B opens a new one."
    read("B-a B-a I-a O", [("a", 0, 1), ("a", 1, 3)], {}, says)
    read("B-a I-a B-a", [("a", 0, 2), ("a", 2, 3)], {}, "A B after an I of its kind opens a new span, too.")
    read("B-a B-b O", [("a", 0, 1), ("b", 1, 2)], {}, "The second B closes the first span.")
    says = "A stray I opened a span. That is seqeval's default reading; the strict one lets only B open."
    read("O I-a O B-b O", [("b", 3, 4)], {}, says)
    wrong = {
        "The span went on over the O: I-a continues it only if it follows at once.": [("a", 0, 3)],
        "The I-a after O continues nothing: the span had ended.": [("a", 0, 1), ("a", 2, 3)],
    }
    read("B-a O I-a", [("a", 0, 1)], wrong, "The I-a after O continues nothing.")
    wrong = {
        "B-a I-b I-a became one span. An I of another kind does not continue it: compare the kinds.": [
            ("a", 0, 3)
        ],
        "An I of another kind opened a span. Only B opens one.": [("a", 0, 1), ("b", 1, 2)],
        "The I-a after I-b continues nothing: the span had ended.": [("a", 0, 1), ("a", 2, 3)],
    }
    read("B-a I-b I-a O", [("a", 0, 1)], wrong, "The rest belongs to nothing.")
    says = (
        "An I of another kind does not continue the span, also if the kinds begin alike: compare them whole."
    )
    read("B-a I-ab", [("a", 0, 1)], {}, says)
    says = "A kind may hold a hyphen itself: cut only the first."
    read("B-x-y I-x-y O", [("x-y", 0, 2)], {}, says)
    read("B-x-y I-z-y O", [("x-y", 0, 1)], {}, says)
    read("B-x-y I-x-z O", [("x-y", 0, 1)], {}, says)
    checking.equal(call([]), [], "the spans", says="No tags, no spans.")
    rng = random.Random(1)
    tags = ["O", "B-a", "I-a", "B-ab", "I-ab", "I-x-y", "B-x-y"]
    call.agrees(
        by_every_pair,
        *[([rng.choice(tags) for _ in range(n)],) for n in 5 * [1, 2, 3, 5, 9]],
        name="the spans",
    )
    print("04.2 passed. It reads what seqeval's strict mode reads.")


check_04_2(read_spans)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Which line of `broken_spans` runs when the last tag is `I-name`? Which one looks at the letter before the hyphen?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Two questions for each tag, in this order. Does it *end* the open span (anything but `I-` of the same kind)? Does it
# *open* one (`B-`)? An `O` behind the last tag asks the first question once more.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 04.3 One step of Viterbi
#
# > ●●●○○ · 15 minutes · graded
#
# $\delta_{t-1}(j)$ is the score of the best tag sequence of the first $t-1$ words that ends in label $j$. Go one word
# further:
#
# $$ \delta_t(k) = s_t(k) + \max_j \big( \delta_{t-1}(j) + A(j, k) \big), \qquad
# \beta_t(k) = \arg\max_j \big( \delta_{t-1}(j) + A(j, k) \big). $$
#
# $A$ has a row for the label *before* and a column for the label *after*; forbidden steps are $-\infty$, and scores may
# be thousands apart. $\delta$ has the dtype of the scores, the pointers are int64. Of equally good ways the pointer may
# name any; if all ways are forbidden, $\delta_t(k) = -\infty$. No Python loop.


# %% nbgrader={"grade_id": "answer_04_3", "solution": true}
def viterbi_step(before, scores, transition):
    """Return (delta, pointer), float and int64 of shape (K,); before is (K,), scores (K,), transition (K, K)."""
    ### BEGIN SOLUTION
    value, pointer = (before[:, None] + transition).max(dim=0)
    return value + scores, pointer
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_04_3", "grade": true, "points": 3, "locked": true}
def by_loops(before, scores, transition):
    """The two formulas, label by label."""
    delta, pointer = [], []
    for k in range(len(scores)):
        ways = [before[j] + transition[j, k] for j in range(len(before))]
        pointer.append(max(range(len(ways)), key=lambda j: ways[j]))
        delta.append(ways[pointer[-1]] + scores[k])
    return torch.stack(delta), torch.tensor(pointer)


def check_04_3(viterbi_step):
    call = checking.calls(viterbi_step)
    before, scores = torch.tensor([0.5, 2.0, 1.0]), torch.tensor([0.1, 0.2, 3.0])
    A = torch.tensor([[0.0, 0.3, -1.0], [-0.7, 0.0, 0.2], [0.4, 1.5, 0.0]])
    want, which = by_loops(before, scores, A)
    answer = call(before, scores, A)
    checking.form(answer, (want, which), "(delta, pointer)")
    delta, pointer = answer
    assert not delta.dtype == torch.int64, "The pointer first, delta second? Return (delta, pointer)."
    ways = before[:, None] + A
    wrong = {
        "You took the maximum over the labels after. Rows of A are the labels before: add before as a column, then "
        "go down the rows.": ways.max(dim=1).values + scores,
        "A is turned: you read its rows as the labels after.": (before[:, None] + A.T).max(dim=0).values
        + scores,
        "delta lacks the score of the new word: add s_t(k).": ways.max(dim=0).values,
        "This is the logarithm of a sum: it weighs all ways together. Viterbi wants the best way only.": torch.logsumexp(
            ways, dim=0
        )
        + scores,
        "delta lacks the score of the way so far: add delta before the maximum is taken.": A.max(dim=0).values
        + scores,
        "You add before to the columns. It belongs to the rows, the labels before: before[:, None].": (
            before + A
        )
        .max(dim=0)
        .values
        + scores,
        "You add the new word's scores to the rows. They belong to the label after: add them at the end.": (
            ways + scores[:, None]
        )
        .max(dim=0)
        .values,
        "This is a mean of the ways, weighted by a softmax. Viterbi wants the best way only.": (
            ways.softmax(0) * ways
        ).sum(0)
        + scores,
        "The way is chosen by before alone. The step's own score decides, too.": before.max() + A[1] + scores,
    }
    checking.equal(delta, want, "delta", wrong, dtype=torch.float32)
    says = (
        "pointer tells for each label before which one comes next. It must tell for each label after where the best "
        "way came from."
    )
    wrong = {says: (ways + scores).argmax(dim=1), f"{says} ": ways.argmax(dim=1)}
    checking.equal(pointer, which, "pointer", wrong, dtype=torch.int64)
    print(
        f"04.3 passed the visible cases. delta {[round(x, 1) for x in delta.tolist()]}, from {pointer.tolist()}."
    )


check_04_3(viterbi_step)
### BEGIN HIDDEN TESTS


def hidden_04_3(viterbi_step):
    call = checking.calls(viterbi_step)
    generator = torch.Generator().manual_seed(4)

    def judge(before, scores, A, says):
        want, _ = by_loops(before, scores, A)
        answer = call(before, scores, A)
        checking.form(answer, (want, torch.zeros(len(want))), "(delta, pointer)")
        delta, pointer = answer
        assert not torch.isnan(delta).any(), (
            "There is a nan. Minus infinity times zero is nan: add A, do not multiply with a mask."
        )
        assert not ((delta == -torch.inf) & (want > -torch.inf)).any(), (
            "A score has become minus infinity, though a way is allowed: exp of a score of -200,000 is 0, and its "
            "logarithm is lost. Add the logarithms; take no exp."
        )
        checking.equal(delta, want, "delta", dtype=scores.dtype, says=says)
        assert pointer.dtype == torch.int64, f"pointer: int64 expected, not {pointer.dtype}."
        columns = torch.arange(len(want))
        came = before[pointer] + A[pointer, columns] + scores
        checking.equal(came, want, "the score of the way that pointer names", says=says)

    for K in (2, 5, 7, 1):
        before, scores = torch.randn(K, generator=generator) - 5, torch.randn(K, generator=generator)
        A = torch.where(torch.rand(K, K, generator=generator) < 0.3, -torch.inf, 0.0)
        A[0] = 0.0  # the first label may go anywhere
        judge(
            before,
            scores,
            A,
            "Wrong where a step is forbidden. A forbidden step has the score minus infinity, which no maximum takes; "
            "zero would be a good score among negative ones.",
        )
    before = torch.tensor([0.0, -3e5, -7e5, -2e5], dtype=torch.float64)
    A = torch.zeros(4, 4, dtype=torch.float64)
    A[0, 1:] = -torch.inf
    judge(
        before,
        torch.randn(4, generator=generator, dtype=torch.float64),
        A,
        "Scores that are 200,000 apart: minus infinity is not -1e4 or -1e5, so do not clamp or replace it.",
    )
    A[:, -1] = -torch.inf
    judge(
        before, A[0].nan_to_num(neginf=1.0), A, "A label that no step reaches has the score minus infinity."
    )
    judge(torch.zeros(3), torch.zeros(3), torch.zeros(3, 3), "All ways are equally good.")


hidden_04_3(viterbi_step)
### END HIDDEN TESTS

# %% [markdown]
# ## 04.4 Token accuracy and span F1
#
# > ●●○○○ · 10 minutes · practice · prediction
#
# The truth has four sentences of five words:
#
#     O   B-a I-a O   O
#     B-b I-b I-b O   O
#     O   O   O   O   O
#     O   B-a O   B-b I-b
#
# Predict with pencil and paper:
#
# - `lazy_accuracy`: the token accuracy of a tagger that says `O` everywhere;
# - `lazy_f1`: its span F1;
# - `short_accuracy`: the token accuracy of a tagger that finds every span, but turns the last word of each span of
#   *two or more* words into `O`;
# - `short_f1`: its span F1.

# %%
TRUTH = [line.split() for line in ("O B-a I-a O O", "B-b I-b I-b O O", "O O O O O", "O B-a O B-b I-b")]


# %% nbgrader={"grade_id": "answer_04_4", "solution": true}
def prediction():
    """Return a dict of four numbers: lazy_accuracy, lazy_f1, short_accuracy, short_f1."""
    ### BEGIN SOLUTION
    return {"lazy_accuracy": 12 / 20, "lazy_f1": 0, "short_accuracy": 17 / 20, "short_f1": 0.25}
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_04_4", "locked": true}
def check_04_4(prediction):
    mine = checking.predicted(prediction, ("lazy_accuracy", "lazy_f1", "short_accuracy", "short_f1"))

    def number(name, want, wrong, says):
        checking.equal(mine[name], want, name, wrong, tol=0.006, says=says)

    flat = [tag for tags in TRUTH for tag in tags]
    lazy = flat.count("O") / len(flat)
    wrong = {
        "lazy_accuracy: the tagger is right on every word that is outside. Count them.": 0,
        "lazy_accuracy: this is the share of sentences that are wholly right. The accuracy counts words.": 1
        / 4,
        "lazy_accuracy: this is the share of words inside spans. The tagger is right on the others.": 1
        - lazy,
    }
    number("lazy_accuracy", lazy, wrong, f"lazy_accuracy: {flat.count('O')} of {len(flat)} words are O.")
    wrong = {"lazy_f1: O is not a span. A tagger that finds no span has no hit.": lazy}
    number("lazy_f1", 0, wrong, "lazy_f1: no predicted span, no hit, so F1 is 0.")
    wrong = {
        "short_accuracy: the span of one word stays as it is. Three words are wrong, not four.": 16 / 20,
        "short_accuracy: you count the words inside spans only. Those outside are right, too.": 5 / 8,
    }
    number(
        "short_accuracy",
        17 / 20,
        wrong,
        "short_accuracy: one word is wrong in each span of two or three words.",
    )
    half = "short_f1: a span whose end is wrong is wholly wrong. There is no half point."
    wrong = {
        half: 17 / 20,
        f"{half} ": 1,
        "short_f1: 2·1/(1 + 4)? Predicted are four spans, not one: the short ones count as predictions too.": 2
        / 5,
        "short_f1: no hit at all? The span of one word is found as it is.": 0,
    }
    number("short_f1", 1 / 4, wrong, "short_f1: four true spans, four predicted, one hit: 2·1/(4 + 4).")
    print("04.4 passed. Cutting three words costs 15 points of accuracy and 75 of span F1.")


check_04_4(prediction)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The four true spans: `(a, 1, 3)`, `(b, 0, 3)`, `(a, 1, 2)` and `(b, 3, 5)`, the last two in the fourth sentence.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# $F_1 = 2 \cdot \text{hits} / (\text{true} + \text{predicted})$. A hit has the right kind, begin *and* end.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 04.5 How many sequences are legal?
#
# > ●●●●○ · 20 minutes · graded
#
# There are $m$ kinds of spans, so $K = 2m + 1$ labels: `O`, and `B-x` and `I-x` for each kind. `I-x` may stand only after
# `B-x` or `I-x`, and never first. How many of the $K^T$ sequences of $T$ words are legal?
#
# Viterbi keeps the *best* score of all legal sequences that end in a label. Count them instead: the same recursion, with
# a sum in place of the maximum. Trying all sequences is too slow for the hidden cases, with $m = 9$ and $T = 60$. Python's
# integers are exact; use them.


# %% nbgrader={"grade_id": "answer_04_5", "solution": true}
def count_legal(m, T):
    """Return the number of legal tag sequences (int) of T >= 1 words with m >= 0 kinds of spans."""
    ### BEGIN SOLUTION
    outside, begin, inside = 1, m, 0  # sequences that end in O, in some B, in some I
    for _ in range(T - 1):
        total = outside + begin + inside
        outside, begin, inside = total, m * total, begin + inside
    return outside + begin + inside
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_04_5", "grade": true, "points": 4, "locked": true}
def by_trying(m, T):
    """Every sequence, looked at. Labels: 0 is O, then B and I of each kind in turn."""
    labels = ["O"] + [prefix + str(x) for x in range(m) for prefix in "BI"]

    def legal(sequence):
        pairs = itertools.pairwise(("O", *sequence))
        return all(after[0] != "I" or before in ("B" + after[1:], "I" + after[1:]) for before, after in pairs)

    return sum(legal(sequence) for sequence in itertools.product(labels, repeat=T))


def check_04_5(count_legal):
    call = checking.calls(count_legal)
    wrong = {
        "count_legal(1, 1): I cannot stand first, so O and B remain: 2, not 3.": 3,
        "count_legal(1, 1): 5 is the number for two words. T words need T - 1 steps, since you begin with the first.": 5,
    }
    checking.equal(call(1, 1), 2, "count_legal(1, 1)", wrong, says="O and B.")
    wrong = {
        "count_legal(1, 2): after O there is no I. You look at the first word only.": 6,
        "count_legal(1, 2): a B may stand after a B or an I, since spans may touch.": 4,
    }
    checking.equal(call(1, 2), 5, "count_legal(1, 2)", wrong, says="O O, O B, B O, B B, B I.")
    wrong = {
        "count_legal(2, 2): you allow I-y after B-x. After each B there is one I, that of its own kind: 11.": 13,
        "count_legal(2, 2): the B of one kind may follow the B of the other: 11.": 9,
    }
    checking.equal(call(2, 2), 11, "count_legal(2, 2)", wrong)

    def subtracting(m, T):
        return (2 * m + 1) ** T - m * (2 * m - 1) * (2 * m + 1) ** (T - 2) * (T - 1)

    def with_step(step):
        """The counts that end in O, in a B, in an I, taken one word further."""

        def count(m, T):
            ends = 1, m, 0
            for _ in range(T - 1):
                ends = step(m, *ends)
            return sum(ends)

        return count

    wrong = {
        "An I may follow an I: spans of three words and more are legal.": with_step(
            lambda m, o, b, i: (o + b + i, m * (o + b + i), b)
        ),
        "After an I, O and B may follow as well as another I.": with_step(
            lambda m, o, b, i: (o + b, m * (o + b), b + i)
        ),
        "You subtract the forbidden pairs from all sequences. A sequence with two forbidden pairs is then "
        "subtracted twice.": subtracting,
    }
    call.agrees(by_trying, (1, 3), (2, 3), (1, 5), (3, 3), name="the number", wrong=wrong)
    share = call(2, 5) / 5**5
    print(
        f"04.5 passed the visible cases. With two kinds and five words {share:.0%} of all sequences are legal."
    )


check_04_5(count_legal)
### BEGIN HIDDEN TESTS


def label_by_label(m, T):
    """The recursion over all 2m + 1 labels, in exact integers: O, then B and I of each kind."""
    ways = [1] + [1, 0] * m
    for _ in range(T - 1):
        total = sum(ways)
        ways = [total] + [n for i in range(1, 2 * m, 2) for n in (total, ways[i] + ways[i + 1])]
    return sum(ways)


def hidden_04_5(count_legal):
    call = checking.calls(
        count_legal, limit=3, slow="Do you try all sequences? There are 19^60 of nine kinds and sixty words."
    )
    assert call(0, 7) == 1, "Without any kind there is one sequence: O everywhere."
    assert call(3, 4) == by_trying(3, 4), "Wrong for three kinds and four words."
    for m, T in ((9, 60), (17, 41), (1, 100)):
        many = call(m, T)
        assert many >= 2**63 or T < 60, (
            "The number has overflowed: np.int64 ends at 2^63. Use Python's integers."
        )
        assert isinstance(many, int) and many == label_by_label(m, T), (
            f"{m} kinds and {T} words: the number is not exact. Floats lose digits here; stay with Python's integers."
        )


hidden_04_5(count_legal)
### END HIDDEN TESTS

# %% [markdown]
# ## 04.6 A tagger that reads from left to right
#
# > ●●●●○ · 65 minutes · graded
#
# Orders for a restaurant: some words name a dish, some an area, in spans of one or two words. You get a small net and
# tagged sentences. Train the net, and tag new sentences well. Write
#
# `fit(net, rows, dev, seed) -> (net, extra)` and `tag(net, extra, row) -> tags`
#
# - A row is a dict: `pieces` (numbers of pieces), `words` (for each piece the number of its word) and `tags` (one for each
#   word, from `LABELS`). Rows that are given to `tag` have no `tags`. Piece $0$ is padding; no row holds it.
# - `net` is a module from pieces (B, T), int64, to logits (B, T, 5), in the order of `LABELS`. It reads *from left to
#   right*: the logits at a place depend on this piece and on those before it. Padding on the right is therefore
#   harmless. The checker hands over other nets of this kind, too, such as one that looks at a single piece.
# - Each word has one target, at one of its pieces. Nothing else is a target, and padding is none. Lesson 04 says which
#   piece carries the label. Does its reason hold for this net?
# - In `rows` somebody was in a hurry: about half of the spans were overlooked, and their words are tagged `O`; a long
#   training learns that by heart. There are some eight hundred of them. `dev`, a tenth as large, was tagged with care, like
#   the sentences of the test. `extra` is whatever `tag` needs besides the net; its choice may read `dev`.
# - `tag` returns one tag for each word, and never an illegal sequence: `I-x` only after `B-x` or `I-x`, and never
#   first. This holds for any net, whatever its logits are, also with millions between them.
# - All random draws come from `seed`. You have ten seconds of processor time for each call of `fit`.
#
# The checker wants a span F1 of `BAR` on sentences that neither you nor the net has seen. The best label of each word
# stays far below it, and so does the best legal sequence of the logits as they are.


# %%
LABELS, BAR = ["O", "B-dish", "I-dish", "B-area", "I-area"], 0.75


def sentences(seed, n, overlooked=0.0):
    """Rows with tags. A word has a first piece, sometimes a middle one, and a last one; first pieces say little."""
    draw, rows = random.Random(seed), []

    def word(*endings):
        middle = [draw.randrange(13, 16)] * (draw.random() < 0.3)
        return [draw.randrange(1, 13), *middle, draw.choice(endings)]

    for _ in range(n):
        words, tags = [], []
        while len(words) < 6 or (len(words) < 11 and draw.random() < 0.8):
            kind, u, seen = draw.choice(["dish", "area"]), draw.random(), draw.random() >= overlooked
            if u < 0.12:  # two words: the first may open either kind, the second says which
                words += [word(40, 41), word(42, 43) if kind == "dish" else word(44, 45)]
                tags += [f"B-{kind}", f"I-{kind}"] if seen else ["O", "O"]
            elif u < 0.2:  # a span of one word
                words += [word(46) if kind == "dish" else word(47)]
                tags += [f"B-{kind}"] if seen else ["O"]
            else:  # a word that opens spans may also mean nothing
                words += [word(40, 41) if u < 0.3 else word(*range(24, 40))]
                tags += ["O"]
        owner = [i for i, pieces in enumerate(words) for _ in pieces]
        rows.append({"pieces": [*itertools.chain(*words)], "words": owner, "tags": tags})
    return rows


class LeftToRight(nn.Module):
    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.embed, self.look, self.out = nn.Embedding(48, 12), nn.Conv1d(12, 24, 4), nn.Linear(24, 5)

    def forward(self, pieces):
        seen = F.pad(
            self.embed(pieces).transpose(1, 2), (3, 0)
        )  # a place sees itself and three pieces before
        return self.out(torch.relu(self.look(seen)).transpose(1, 2))


def spans(tags):
    """The spans of strictly read tags, a set of (kind, begin, end)."""
    found, begin, kind = set(), 0, ""
    for i, tag in enumerate([*tags, "O"]):
        if kind and tag != "I-" + kind:
            found.add((kind, begin, i))
            kind = ""
        if tag[0] == "B":
            begin, kind = i, tag[2:]
    return found


def span_f1(truth, guess):
    """Of lists of lists of tags."""
    right, said = ({(i, *s) for i, tags in enumerate(side) for s in spans(tags)} for side in (truth, guess))
    return 2 * len(right & said) / max(1, len(right) + len(said))


# %% nbgrader={"grade_id": "answer_04_6", "solution": true}
def fit(net, rows, dev, seed):
    """Train net on rows. Return (net, extra)."""
    ### BEGIN SOLUTION
    generator = torch.Generator().manual_seed(seed)
    width = max(len(row["pieces"]) for row in rows)
    x, y = torch.zeros(len(rows), width, dtype=torch.int64), torch.full((len(rows), width), -100)
    for i, row in enumerate(rows):
        x[i, : len(row["pieces"])] = torch.tensor(row["pieces"])
        last = list({word: place for place, word in enumerate(row["words"])}.values())
        y[i, last] = torch.tensor([LABELS.index(tag) for tag in row["tags"]])
    optimizer = torch.optim.Adam(net.parameters())
    for step in range(100):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 100)
        i = torch.randint(len(rows), (32,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(net(x[i]).flatten(0, 1), y[i].flatten(), ignore_index=-100).backward()
        optimizer.step()
    truth = [row["tags"] for row in dev]  # how much to take off from O: spans were overlooked
    scores = {off: span_f1(truth, [tag(net, off, row) for row in dev]) for off in (0, 0.5, 1, 1.5, 2, 2.5)}
    return net, max(scores, key=scores.get)
    ### END SOLUTION


def tag(net, extra, row):
    """Return the tags of a row, one for each word."""
    ### BEGIN SOLUTION
    never, numbers = -math.inf, range(len(LABELS))
    step = [[never if b[0] == "I" and a[1:] != b[1:] else 0.0 for b in LABELS] for a in LABELS]
    last = list({word: place for place, word in enumerate(row["words"])}.values())
    with torch.no_grad():
        z = net(torch.tensor([row["pieces"]]))[0, last].double()
    z[:, 0] -= extra
    z, came = z.tolist(), []
    best = [never if label[0] == "I" else score for label, score in zip(LABELS, z[0], strict=True)]
    for scores in z[1:]:
        came.append([max(numbers, key=lambda j, k=k: best[j] + step[j][k]) for k in numbers])
        best = [best[j] + step[j][k] + scores[k] for k, j in enumerate(came[-1])]
    path = [max(numbers, key=best.__getitem__)]
    for pointer in reversed(came):
        path.append(pointer[path[-1]])
    return [LABELS[k] for k in reversed(path)]
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_04_6", "grade": true, "points": 5, "locked": true}
class OnePiece(nn.Module):
    """Looks at one piece only: after training its table shows which pieces were targets."""

    def __init__(self, table=None):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(48, 5) if table is None else table)

    def forward(self, pieces):
        return self.table[pieces]


def without_tags(row):
    return {"pieces": list(row["pieces"]), "words": list(row["words"])}


def tagged(tag, net, extra, rows):
    """The tags of each row, if they are legal."""

    def every(rows):
        return [tag(net, extra, row) for row in rows]

    every.__name__ = "tag"
    found = checking.calls(every)([without_tags(row) for row in rows])
    for row, tags in zip(rows, found, strict=True):
        n = row["words"][-1] + 1
        assert isinstance(tags, list | tuple) and len(tags) == n, (
            f"tag: {n} words need {n} tags, one for each word; you return {checking.shown(tags)}."
        )
        assert set(tags) <= set(LABELS), (
            f"tag: a tag is one of {', '.join(LABELS)}, not {set(tags) - set(LABELS)}."
        )
        for before, after in itertools.pairwise(tags):
            assert after[0] != "I" or before[1:] == after[1:], (
                f"tag: {after} after {before} is illegal. The best label of each word knows nothing of its neighbours."
            )
    for tags in found:
        assert tags[0][0] != "I", (
            f"tag: a sequence begins with {tags[0]}, and nothing stands before it. The first word has a rule of its own."
        )
    return [list(tags) for tags in found]


def fitted(fit, net, rows, dev, seed):
    slow = "A hundred small steps are enough."
    got = checking.calls(fit, limit=10.0, slow=slow, changes=("net",))(net, rows, dev, seed)
    assert isinstance(got, list | tuple) and len(got) == 2 and isinstance(got[0], nn.Module), (
        f"fit: return the net and what else tag needs, not {checking.shown(got)}."
    )
    return got


def check_targets(fit):
    rows, dev = sentences(7, 40, 0.5), sentences(8, 10)
    net, _ = fitted(fit, OnePiece(), rows, dev, 0)
    assert isinstance(net, OnePiece), "fit: train the net that you are given, and return it."
    moved = net.table.detach().abs().sum(1) > 1e-6
    first, middle, last = moved[1:13].any(), moved[13:16].any(), moved[24:].any()
    assert first or middle or last, "fit: no weight has moved."
    assert not moved[0], (
        "fit: the logits at padding were trained. Padding is no word and has no target: -100 there."
    )
    assert last or not first, (
        "fit: you put the label on the first piece of a word. In an encoder each piece sees the whole sentence. This net "
        "reads from left to right: at the first piece it has not read its word yet."
    )
    assert not (first and last), (
        "fit: several pieces of one word are targets. A long word would count more than a short one, and its first pieces "
        "are asked for what they cannot know."
    )
    assert last and not middle, "fit: pieces in the middle of words are targets."


def check_legal(tag, scale, extra):
    for seed in range(6):
        table = scale * torch.randn(48, 5, generator=torch.Generator().manual_seed(seed))
        table[:, 2] += scale * (seed % 3)  # a net in love with I
        tagged(tag, OnePiece(table), extra, sentences(seed, 5))


def judge_04_6(fit, tag, seed):
    """The span F1 on fresh sentences; below the bar, why."""
    rows, dev, test = sentences(seed, 800, 0.5), sentences(seed + 1, 80), sentences(seed + 2, 250)
    net, extra = fitted(fit, LeftToRight(seed), rows, dev, seed)
    check_legal(tag, 3.0, extra)
    truth, guess = [row["tags"] for row in test], tagged(tag, net, extra, test)
    score = span_f1(truth, guess)
    if score < BAR:
        right, said = (
            {(i, *s) for i, tags in enumerate(side) for s in spans(tags)} for side in (truth, guess)
        )
        hits = right & said
        pairs = [[(i, *s) in hits for i, *s in right if s[2] - s[1] == n] for n in (1, 2)]
        one, two = (sum(found) / len(found) for found in pairs)
        recall, precision = len(hits) / len(right), len(hits) / max(1, len(said))
        both = [a == b for t, g in zip(truth, guess, strict=True) for a, b in zip(t, g, strict=True)]
        told = (
            f"Span F1 {score:.2f}, {BAR:g} is asked for (seed {seed}). Precision {precision:.2f}, recall {recall:.2f}, "
            f"token accuracy {sum(both) / len(both):.2f}."
        )
        assert recall > 0.5 or precision < 0.7, (
            f"{told} What you find is right, and you find little: the net learned to overlook, as `rows` do. Half of the "
            "evidence for each span was taken away. Give it back, by as much as `dev` says; token accuracy hardly sees it."
        )
        assert two > one - 0.25, (
            f"{told} Spans of one word: {one:.2f} found, of two words: {two:.2f}. The first word of two cannot know its "
            "kind; only the second does. Take the best legal *sequence*, not one label after the other."
        )
        assert precision > 0.75 * recall, (
            f"{told} You see spans everywhere. Choose on dev, by span F1, how bold to be. Do you already? Then the net knows "
            "the overlooked words by heart: fewer updates, a smaller rate."
        )
        raise AssertionError(
            f"{told} One word {one:.2f}, two words {two:.2f} found. Is the net trained long enough?"
        )
    return score, extra


def check_04_6(fit, tag):
    check_targets(fit)
    score, _ = judge_04_6(fit, tag, 100)
    print(f"04.6 passed the visible cases: span F1 {score:.2f} on fresh sentences.")


check_04_6(fit, tag)
### BEGIN HIDDEN TESTS


def hidden_04_6(fit, tag):
    _, extra = judge_04_6(fit, tag, 200)
    try:
        check_legal(tag, 1e6, extra)
    except AssertionError as error:
        raise AssertionError(
            "tag: logits that are millions apart, and the sequence is illegal. A forbidden step needs minus infinity; a "
            "large number is not large enough."
        ) from error
    rows, tables = sentences(7, 40, 0.5), []
    for state in (1, 2):
        torch.manual_seed(state)
        random.seed(state)
        net, _ = fitted(fit, OnePiece(), rows, sentences(8, 10), 3)
        tables.append(net.table.detach().clone())
    assert torch.equal(*tables), (
        "The same seed gave another net the second time: draw from the seed, not from the global state."
    )
    rows = [{"pieces": [5, 46], "words": [0, 0]}, {"pieces": [5, 44, 7, 13, 42], "words": [0, 0, 1, 1, 1]}]
    tagged(tag, LeftToRight(1), extra, rows)


hidden_04_6(fit, tag)
### END HIDDEN TESTS

# %% [markdown]
# ## 04.7 Project: what does a careless split give away?
#
# > ●●●●● · 150 minutes · practice
#
# A name that stands in a document stands there again and again. Whoever deals *sentences* to training and test puts the
# same names on both sides, and the tagger may have learned them by heart. Whoever deals whole *documents* does not. How
# much does the careless split flatter? And is it the leak that flatters, or are the test sentences just easier? A
# *control* tells: a method that cannot learn names by heart, on the same splits.
#
# Choose a task with documents (the texts of the next cell, your field's texts), a `method` and a `control`. Write the
# claim first: "splitting by sentence flatters *method* more than *control*, by more than `threshold` of F1". `study()`
# returns a dict:
#
# | key | what |
# |:--|:--|
# | `claim` | a sentence of at least $40$ characters that names `method` and `control` |
# | `method`, `control` | two different names |
# | `threshold` | from $0$ to $0.5$ |
# | `seeds` | at least six different whole numbers; each deals anew, and draws its texts anew if they are drawn |
# | `documents` | for each seed: a list with the document of each sentence (strings or numbers), at least eight documents |
# | `train`, `test` | for `"sentence"` and for `"document"`: for each seed the places of the sentences in that list |
# | `counts` | for both methods: for `"sentence"` and `"document"`: for each seed (hits, true spans, predicted spans) |
# | `trials` | for both methods: how many settings were tried, on other seeds; equal |
# | `flattery` | for both methods: F1 of the split by sentence minus F1 of the split by document, mean over the seeds |
# | `difference`, `low`, `high` | flattery of the method minus that of the control: mean, and its $95\,\%$ t interval |
# | `verdict` | `"supported"`: `low` above the threshold; `"refuted"`: `high` below it; else `"undecided"` |
#
# In each seed: no sentence is on both sides; the two splits have equally many training sentences, and at least $30$ test
# sentences each; in the split by document no document is on both sides; in the split by sentence at least half of the
# test sentences come from a document of the training side. Both methods are tested on the same sentences, so their
# numbers of true spans agree. $F_1 = 2 \cdot \text{hits} / (\text{true} + \text{predicted})$, for each seed by itself. The
# **unit** of the interval is the seed: one double difference for each, and they are not all equal. The interval is checked
# to a hundredth of its width, all else to six digits.
#
# The checker recomputes all numbers. A person reads the rest with this rubric (0 to 2 points a row; 8 of 12 pass): the
# claim could have failed; the control could learn everything but names; tuning was fair, and *not* on a split that
# leaks; the number of documents is large enough that a split of documents is no lottery, or the text says that it is
# one; somebody else's published split is judged by what was found; the ending says what was not shown.


# %%
def documents(seed, n=40, sentences=8):
    """A starter: sentences as (document, words, tags). Each document has three names of its own, persons and places."""
    draw, rows = random.Random(seed), []

    def name():
        return "".join(draw.choice("BDFGKLMNPRSTVZ") + draw.choice("aeiou") for _ in range(3)).capitalize()

    for document in range(n):
        cast = [(name(), draw.choice(["person", "place"])) for _ in range(3)]
        for _ in range(sentences):
            words, tags = [], []
            for _ in range(2):
                who, kind = draw.choice(cast)
                clear = {"person": ["said", "asked", "married"], "place": ["near", "in", "towards"]}[kind]
                before = draw.choice(clear if draw.random() < 0.5 else ["saw", "and", "about"])
                words += [*draw.choices(["then", "he", "she", "Monday", "rain", "again"], k=2), before, who]
                tags += ["O", "O", "O", f"B-{kind}"]
            rows.append((document, words, tags))
    return rows


def features(words, i):
    """A starter: what a tagger may look at, for word i."""
    around = ["", *words, ""]
    return [
        ("left", around[i]),
        ("right", around[i + 2]),
        ("capital", words[i][0].isupper()),
        ("word", words[i]),
    ]


# %% nbgrader={"grade_id": "answer_04_7", "solution": true}
def study():
    """Return the dict of the table."""
    ### BEGIN SOLUTION
    from collections import Counter

    method, control, seeds, threshold = "reads the word", "reads around it", list(range(20, 32)), 0.1

    def tagger(rows, seen):
        """Naive Bayes over the features whose kind is in seen."""
        tags, pairs = Counter(), Counter()
        for _, words, truth in rows:
            for i, tag in enumerate(truth):
                tags[tag] += 1
                pairs.update((tag, f) for f in features(words, i) if f[0] in seen)

        def tag(words, i):
            kept = [f for f in features(words, i) if f[0] in seen]
            return max(
                tags,
                key=lambda t: math.log(tags[t]) + sum(math.log((pairs[t, f] + 0.1) / tags[t]) for f in kept),
            )

        return tag

    def counts(rows, train, test, seen):
        tag, hits, true, said = tagger([rows[i] for i in train], seen), 0, 0, 0
        for i in test:
            _, words, truth = rows[i]
            guess = [tag(words, k) for k in range(len(words))]
            hits += sum(a == b != "O" for a, b in zip(guess, truth, strict=True))
            true, said = true + sum(t != "O" for t in truth), said + sum(g != "O" for g in guess)
        return hits, true, said

    kinds = {control: {"left", "right", "capital"}, method: {"left", "right", "capital", "word"}}
    found = {name: {"sentence": [], "document": []} for name in (method, control)}
    owners, train, test = [], {"sentence": [], "document": []}, {"sentence": [], "document": []}
    for seed in seeds:
        rows, draw = documents(seed, 24), random.Random(seed)
        owner = [d for d, _, _ in rows]
        owners.append(owner)
        half = {"sentence": draw.sample(range(len(rows)), len(rows) // 2)}
        kept = set(draw.sample(range(24), 12))
        half["document"] = [i for i, d in enumerate(owner) if d in kept]
        for split, chosen in half.items():
            rest = sorted(set(range(len(rows))) - set(chosen))
            train[split].append(chosen)
            test[split].append(rest)
            for name, seen in kinds.items():
                found[name][split].append(counts(rows, chosen, rest, seen))

    def f1(name, split):
        return np.array([2 * hits / (true + said) for hits, true, said in found[name][split]])

    gains = {name: f1(name, "sentence") - f1(name, "document") for name in kinds}
    interval = intervals.t_interval(gains[method] - gains[control])
    return {
        "claim": f"Splitting by sentence flatters a naive Bayes that {method} more than one that only {control}, by more "
        "than 10 points of F1: 24 documents of eight sentences, each with three names of its own.",
        "method": method, "control": control, "threshold": threshold, "seeds": seeds, "documents": owners, "train": train,
        "test": test, "counts": found, "trials": dict.fromkeys(kinds, 1),
        "flattery": {name: float(gain.mean()) for name, gain in gains.items()},
        "difference": interval.mean, "low": interval.low, "high": interval.high,
        "verdict": "supported" if interval.low > threshold else "refuted" if interval.high < threshold else "undecided",
    }  # fmt: skip
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_04_7", "locked": true}
STUDY = "claim method control threshold seeds documents train test counts trials flattery difference low high verdict".split()
SPLITS = ["sentence", "document"]


def check_splits(mine, k):
    """Who may share what with whom."""
    for key in ("train", "test"):
        assert isinstance(mine[key], dict) and set(mine[key]) == set(SPLITS), (
            f"{key}: a dict with the keys 'sentence' and 'document' expected."
        )
        assert [len(mine[key][split]) for split in SPLITS] == [k, k], (
            f"{key}: a list for each of the {k} seeds."
        )
    assert len(mine["documents"]) == k, f"documents: a list for each of the {k} seeds."
    for s, owner in enumerate(mine["documents"]):
        assert len(set(owner)) >= 8, f"documents: {len(set(owner))} in one seed. At least eight."
        sizes = [len(mine["train"][split][s]) for split in SPLITS]
        assert sizes[0] == sizes[1], (
            f"train: {sizes[0]} sentences by sentence, {sizes[1]} by document. More training would flatter, too."
        )
        for split in SPLITS:
            train, test = mine["train"][split][s], mine["test"][split][s]
            assert len(set(train)) == len(train) and len(set(test)) == len(test), (
                f"{split}: a sentence stands there twice."
            )
            assert set(train) | set(test) <= set(range(len(owner))), (
                f"{split}: places from 0 to {len(owner) - 1} expected."
            )
            assert not set(train) & set(test), f"{split}: a sentence is trained on and tested on."
            assert len(test) >= 30, f"test: {len(test)} sentences in the split by {split}. At least 30."
            known = {owner[i] for i in train}
            shared = sum(owner[i] in known for i in test)
            assert split == "sentence" or not shared, (
                f"document: {shared} test sentences come from documents of the training side. This split leaks as well."
            )
            assert split == "document" or 2 * shared >= len(test), (
                f"sentence: only {shared} of {len(test)} test sentences come from a document of the training side. There is "
                "hardly anything that could leak."
            )


def check_04_7(study):
    mine = checking.handed_in(study, STUDY, limit=60.0)
    names, bar, seeds = [mine["method"], mine["control"]], mine["threshold"], mine["seeds"]
    assert names[0] != names[1], "method and control are the same."
    assert isinstance(mine["claim"], str) and len(mine["claim"]) >= 40, "claim: at least 40 characters."
    for name in names:
        assert name in mine["claim"], f"claim: {name!r} does not occur. A claim names what it compares."
    assert 0 <= bar <= 0.5, "threshold: from 0 to 0.5. Five points of F1 are 0.05."
    assert len(set(seeds)) == len(seeds) >= 6, "seeds: at least six, no two alike."
    for key in ("counts", "trials", "flattery"):
        assert isinstance(mine[key], dict) and set(mine[key]) == set(names), (
            f"{key}: a dict with the keys {names[0]!r} and {names[1]!r} expected."
        )
    assert len(set(mine["trials"].values())) == 1, "trials: who may try more settings wins by that alone."
    check_splits(mine, len(seeds))
    table = np.array([[mine["counts"][name][split] for split in SPLITS] for name in names], dtype=float)
    assert table.shape == (2, 2, len(seeds), 3), "counts: three numbers for each method, split and seed."
    hits, true, said = np.moveaxis(table, -1, 0)
    assert (hits <= np.minimum(true, said)).all() and (true > 0).all() and (hits >= 0).all(), (
        "counts: (hits, true spans, predicted spans); there are no more hits than either."
    )
    assert (true[0] == true[1]).all(), (
        "counts: the two methods met different numbers of true spans. They must be tested on the same sentences."
    )
    f1 = 2 * hits / (true + said)
    gains = f1[:, 0] - f1[:, 1]
    sums = table.sum(2)
    pooled = 2 * sums[..., 0] / (sums[..., 1] + sums[..., 2])
    wrong = {
        "flattery: that is the split by document minus the split by sentence.": -gains.mean(1),
        "flattery: you added the counts of all seeds. Each seed has an F1 of its own.": pooled[:, 0]
        - pooled[:, 1],
    }
    as_dict = {message: dict(zip(names, value.tolist(), strict=True)) for message, value in wrong.items()}
    checking.equal(
        mine["flattery"], dict(zip(names, gains.mean(1).tolist(), strict=True)), "flattery", as_dict, tol=1e-6
    )
    double = gains[0] - gains[1]
    assert double.std() > 1e-9, "All seeds have the same difference. Something is not dealt anew."
    alone = "difference: that is the flattery of the method alone. Test sentences of one split may be easier for anybody: "
    wrong = {
        alone + "take off what the control gains.": gains[0].mean(),
        "difference: control minus method.": -double.mean(),
    }
    checking.equal(mine["difference"], double.mean(), "difference", wrong, tol=1e-6)
    right, error = intervals.t_interval(double), double.std(ddof=1) / math.sqrt(len(seeds))
    room, factor = 0.01 * (right.high - right.low), (right.high - right.mean) / error
    apart = math.sqrt(sum(row.var(ddof=1) for row in f1.reshape(4, -1)) / len(seeds))
    wrong = {
        "low: four means with four errors. The F1 of a seed share its texts: take one double difference a seed.": right.mean
        - factor * apart,
        "low: 1.96 is for a spread that is known. With few seeds it is estimated: Student's t.": right.mean
        - 1.959964 * error,
        "low: that is one standard error. A 95 % t interval is wider.": right.mean - error,
        "low: that is the interval of the method's own flattery, without the control.": intervals.t_interval(
            gains[0]
        ).low,
    }
    checking.near(mine["low"], right.low, "low", wrong, room=room)
    checking.near(mine["high"], right.high, "high", room=room)
    verdict = checking.verdict(mine, right.low, right.high)
    print(f"04.7 passed: {verdict}, {right.mean:.3f}. Now a person reads the study with the rubric.")


check_04_7(study)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Write one function that gives (hits, true, predicted) for (method, training sentences, test sentences). A tagger that
# counts (naive Bayes) needs milliseconds, so that seeds are cheap.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Deal half of the documents, and half of the sentences: then both splits have equally many of each. The control looks at
# the neighbours and never at the word.
#
# </details>
#
# {{solution}}
