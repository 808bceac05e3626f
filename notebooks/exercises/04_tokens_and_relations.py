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
# that you do not see here, so test more than the checker does. Nothing on this page needs a model, a data
# set or a network.
#
# {{overview}}

# %%
import itertools
import random

import torch

from instructlab_utils import checking

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
