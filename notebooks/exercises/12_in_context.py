# ---
# jupyter:
#   instructlab:
#     id: "12"
#     title: Zero-shot, in-context learning, calibration
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 12: zero-shot, in-context learning, calibration
#
# Each exercise is a box, a cell for your answer, and a checker in the cell below it. Replace the line that
# raises `NotImplementedError`, then run both cells. A checker that says no also says what probably went
# wrong.
#
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases
# that you do not see here, so test more than the checker does. Nothing on this page needs a file or a network.
# Exercise 12.6 trains a small network, and exercise 12.7 is a project: each of them is worth an evening.
#
# {{overview}}

# %%
import itertools
import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from instructlab_utils import checking, intervals

# %% [markdown]
# ## 12.1 The probability of an option
#
# > ●●○○○ · 10 minutes · practice
#
# A causal model has read a context and an option behind it: `ids`, shape $(T,)$. Its `logits` have the shape $(T, V)$. The
# last `n` tokens are the option. Return $\log p(o \mid c)$ in nats, a number: the sum over the option's tokens. Logits
# may be thousands apart.


# %% nbgrader={"grade_id": "answer_12_1", "solution": true}
def option_log_prob(logits, ids, n):
    """The log-probability of the last n tokens of ids, given those before them."""
    ### BEGIN SOLUTION
    log_p = torch.log_softmax(logits, -1)
    return log_p[-n - 1 : -1].gather(1, ids[-n:, None]).sum().item()
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_12_1", "locked": true}
def by_terms(logits, ids, n):
    """Term by term, in Python's numbers."""
    T, total = len(ids), 0.0
    for t in range(T - n, T):
        row = logits[t - 1].tolist()
        top = max(row)
        total += row[ids[t]] - top - math.log(sum(math.exp(z - top) for z in row))
    return total


def check_12_1(option_log_prob):
    call = checking.calls(option_log_prob)
    g = torch.Generator().manual_seed(0)
    for T, V, n in ((6, 5, 2), (4, 7, 1), (5, 3, 4), (9, 4, 3)):
        logits, ids = (
            3 * torch.randn(T, V, generator=g, dtype=torch.float64),
            torch.randint(V, (T,), generator=g),
        )
        log_p = logits.log_softmax(-1)
        terms = [log_p[t - 1, ids[t]].item() for t in range(1, T)]  # of the tokens 1 … T - 1
        own = [log_p[t, ids[t]].item() for t in range(T)]
        raw = sum(logits[t - 1, ids[t]].item() for t in range(T - n, T))
        want = sum(terms[-n:])
        wrong = {
            "You read each token at its own place. Position t - 1 predicts token t.": sum(own[-n:]),
            "These are sums of logits. Only log_softmax makes probabilities of them.": raw,
            "You took the mean. The chain rule adds logarithms.": want / n,
            "You added the context's tokens, too.": sum(terms),
            "The first token of the option is missing. The context's last position predicts it.": sum(
                terms[-n:][1:]
            ),
            "The last token of the option is missing. It is predicted, though nobody reads it.": sum(
                terms[-n:-1]
            ),
            "One token of the context is counted, too.": sum(terms[-n - 1 :]),
            "The sign is wrong: that is a loss. A log-probability is below zero.": -want,
            "This is a mean loss. A log-probability is a sum, and below zero.": -want / n,
            "This is the probability. Its logarithm is asked for.": math.exp(want),
            "These are sums of probabilities. Logarithms add up, probabilities do not.": sum(
                map(math.exp, terms[-n:])
            ),
            "The logarithm is to base 2. In nats it is the natural one.": want / math.log(2),
            "These are the *first* n tokens. The option stands at the end.": sum(terms[:n]),
            "You divide by the number of tokens. The chain rule adds logarithms.": want / T,
            "The softmax runs over the positions. At each position it runs over the vocabulary.": logits.log_softmax(
                0
            )[range(T - n - 1, T - 1), ids[T - n :]]
            .sum()
            .item(),
            "You take the most probable tokens. The option's own tokens are asked for.": log_p[
                T - n - 1 : T - 1
            ]
            .max(1)
            .values.sum()
            .item(),
            "You look one position too far back: t - 1 predicts t.": sum(
                log_p[t - 2, ids[t]].item() for t in range(T - n, T)
            ),
        }
        says = "The value is wrong: n terms, the first predicted by the context's last token."
        checking.equal(call(logits, ids, n), want, f"T = {T}, n = {n}: the log-probability", wrong, says=says)
    says = "Logits thousands apart: the logarithm of a softmax is -inf there. Use log_softmax."
    for factor in (200, 2000):
        call.agrees(by_terms, (factor * logits, ids, n), name="the log-probability", says=says)
    says = "Logits in float32."
    call.agrees(by_terms, (logits.float(), ids, 5), name="the log-probability", tol=1e-5, says=says)
    print("12.1 passed. The context's last position speaks first.")


check_12_1(option_log_prob)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The first token of the option stands at place $T - n$. Which row of `logits` predicts it?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `logits[-n - 1 : -1]` has $n$ rows.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 12.2 Calibration without a word for nothing
#
# > ●●●○○ · 15 minutes · graded
#
# Even "N/A" is a wording. Another measure of the bias needs no content-free text: the average that the model says about a
# *batch* of texts without labels. If the labels are about equally frequent in the batch, what the average prefers is bias.
#
# `scores` has the shape $(N, K)$: log-probabilities of $K$ label words behind $N$ texts, *not* normalised over the labels.
# Turn each row into probabilities over the labels; average these probabilities over the batch; divide each row by the
# average; normalise each row. Return the probabilities, shape $(N, K)$, in the dtype of the scores. Scores may be far
# below zero and far apart, but each label is probable behind some text.


# %% nbgrader={"grade_id": "answer_12_2", "solution": true}
def batch_calibration(scores):
    """Probabilities (N, K), calibrated by the mean over the batch."""
    ### BEGIN SOLUTION
    p = torch.softmax(scores, -1)
    q = p / p.mean(0)
    return q / q.sum(-1, keepdim=True)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_12_2", "grade": true, "points": 3, "locked": true}
def made_scores(seed, N, K, shift):
    g = torch.Generator().manual_seed(seed)
    # some texts make all label words unlikely: a constant per row
    return torch.randn(N, K, generator=g).double() * 2 + shift * torch.randn(N, 1, generator=g).double()


def wanted_calibration(scores):
    p = (scores - scores.logsumexp(1, keepdim=True)).exp()
    q = p / (p.sum(0) / len(p))
    return q / q.sum(1)[:, None]


def check_12_2(batch_calibration):
    call = checking.calls(batch_calibration)
    scores = made_scores(0, N=6, K=3, shift=3.0)
    got, want = call(scores), wanted_calibration(scores)
    checking.form(got, want, "the probabilities", dtype=torch.float64)
    p, logs, raw = scores.softmax(-1), scores.log_softmax(-1), scores.exp()

    def rows(q):
        return q / q.sum(1, keepdim=True)

    q = p / p.mean(0)
    wrong = {
        "The columns are normalised, the rows are not: each *text* gets a distribution over the labels.": q
        / q.sum(0),
        "Each row has to add up to one: normalise again after the division.": q,
        "You averaged logarithms. That is a geometric mean; the average of the *probabilities* is asked for.": (
            logs - logs.mean(0)
        ).softmax(-1),
        "You averaged before the rows were normalised: texts that make all words likely drown the others.": rows(
            raw / raw.mean(0)
        ),
        "The average is of the rows before they were normalised, what is divided by it is not.": rows(
            p / raw.mean(0)
        ),
        "You multiplied by the average: the bias is doubled, not removed.": rows(p * p.mean(0)),
        "Nothing is calibrated: these are the probabilities of the model. (A mean over the *labels* is 1/K for each "
        "text. Average over the texts.)": p,
        "The first softmax runs over the texts. Each text gets a distribution over the labels.": rows(
            scores.softmax(0) / scores.softmax(0).mean(0)
        ),
        "The rows are normalised by a second softmax. Divide by their sum.": q.softmax(-1),
        "These are logarithms. Probabilities are asked for.": want.log(),
        "You subtract the average. Divide by it.": rows(p - p.mean(0)),
        "You subtract the average, and cut what falls below zero. Divide by it.": rows(
            (p - p.mean(0)).clamp(min=0)
        ),
        "The average is subtracted, and the softmax taken of that. Divide by it.": (p - p.mean(0)).softmax(
            -1
        ),
        "This is the median. The average is the mean.": rows(p / p.median(0).values),
        "The scores are divided before they become probabilities.": (scores / scores.mean(0)).softmax(-1),
        "The average of the scores is taken off. The average of the *probabilities* is asked for.": (
            scores - scores.mean(0)
        ).softmax(-1),
    }
    says = "The values are wrong: follow the four steps in order."
    checking.equal(got, want, "the probabilities", wrong, says=says)
    print("12.2 passed the visible cases.")


check_12_2(batch_calibration)
### BEGIN HIDDEN TESTS


def hidden_12_2(batch_calibration):
    call = checking.calls(batch_calibration)
    name = "the probabilities"
    for seed, N, K in ((1, 1, 4), (2, 40, 2), (3, 5, 5), (5, 2, 7)):
        case = made_scores(seed, N, K, shift=1.0)
        call.agrees(wanted_calibration, (case,), name=name, says=f"Wrong for N = {N}, K = {K}.")
    says = (
        "Long options have tiny probabilities: exp(-2000) is 0. Use a softmax that subtracts the largest score, that of "
        "each text: one maximum for all texts leaves 0 / 0 to some."
    )
    for far in (200.0, 2000.0):
        case = made_scores(4, 5, 3, shift=1.0)
        call.agrees(wanted_calibration, (case - far,), (case + far,), name=name, says=says)
        apart = case + far * torch.tensor([[0.0], [1.0], [-2.0], [0.5], [3.0]])
        call.agrees(wanted_calibration, (apart,), name=name, says=f"Texts that differ by {far:g}. {says}")
        one = case.clone()
        one[range(5), [0, 1, 2, 0, 1]] += far
        call.agrees(wanted_calibration, (one,), name=name, says=f"Labels that differ by {far:g} in each row.")
    call.agrees(
        wanted_calibration, (case[:4].float(),), name=name, dtype=torch.float32, says="Scores in float32."
    )
    same = torch.zeros(3, 4, dtype=torch.float64)
    call.agrees(wanted_calibration, (same,), name=name, says="Equal scores: equal probabilities.")


hidden_12_2(batch_calibration)
### END HIDDEN TESTS

# %% [markdown]
# ## 12.3 The prompt that asks for something else
#
# > ●●●○○ · 15 minutes · practice · bug hunt
#
# This function builds the texts of a few-shot prompt. Some of its bugs cost accuracy, and one only looks untidy until
# a scorer takes it literally. Find four bugs. A space on the wrong side counts once; one bug shows only without
# demonstrations.
#
# `pairs` holds (text, label number), `words` the label words, without spaces.


# %%
def broken_prompt(pairs, text, words):
    prefix = "\n".join(f"Review: {shown}\nSentiment: {label}" for shown, label in pairs)
    context = f"\n\nReview: {text}\nSentiment: "
    return prefix, context, words


# %% [markdown]
# Write it right. Return `(prefix, context, options)`. `prefix + context + options[k]` must read like one more
# demonstration, with label word $k$. Texts are written as they are, white space included. An empty line separates two
# demonstrations, and the last one from the question; there it may end the prefix or begin the context. The space before a
# label word belongs to the option. The function must also work without any demonstration: then `prefix` is empty, and
# the context begins with its first word.


# %% nbgrader={"grade_id": "answer_12_3", "solution": true}
def prompt(pairs, text, words):
    """(prefix, context, options) of a few-shot prompt for sentiment."""
    ### BEGIN SOLUTION
    prefix = "\n\n".join(f"Review: {shown}\nSentiment: {words[label]}" for shown, label in pairs)
    context = ("\n\n" if pairs else "") + f"Review: {text}\nSentiment:"
    return prefix, context, [f" {word}" for word in words]
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_12_3", "locked": true}
def by_hand(pairs, text, words):
    """Piece by piece."""
    prefix, context = "", ""
    for i, (shown, label) in enumerate(pairs):
        prefix += ("\n\n" if i else "") + "Review: " + shown + "\nSentiment: " + words[label]
        context = "\n\n"
    return prefix, context + "Review: " + text + "\nSentiment:", [" " + word for word in words]


def check_12_3(prompt):
    def call(*case, says=""):
        """The answer, with the empty line before the question in the context."""
        got = checking.calls(prompt)(*case)
        checking.equal(got, by_hand(*case), "(prefix, context, options)", tol=math.inf, says=says)  # its form
        prefix = got[0].rstrip("\n")
        return prefix, got[0][len(prefix) :] + got[1], got[2]

    pairs, words = [("Good fun", 1), ("a bore", 0), ("1 of 5", 0)], ["negative", "positive"]
    (prefix, context, options), want = call(pairs, "Fine", words), by_hand(pairs, "Fine", words)
    assert "Sentiment: 1" not in prefix and "Sentiment: 0" not in prefix, (
        "prefix: it shows label numbers. The model is asked for words, so it must see words."
    )
    assert context == context.rstrip(), (
        "context: it ends in white space. The space belongs to the front of the label word."
    )
    wrong = {
        "options: each label word with the space before it. Yours lack it.": words,
        "options: the space stands behind the word. It belongs before it.": ["negative ", "positive "],
        "options: white space on both sides. Nothing stands behind the word.": [" negative ", " positive "],
        "options: the order is that of words: options[k] belongs to label k.": [" positive", " negative"],
        "options: the line feed stays where the space should be.": ["\nnegative", "\npositive"],
    }
    says = "options: each label word with the space before it."
    checking.equal(options, want[2], "options", wrong, says=says)
    turned = [(shown, 1 - label) for shown, label in pairs]
    wrong = {
        "prefix: demonstrations stand apart by an empty line, like the question does.": want[0].replace(
            "\n\n", "\n"
        ),
        "prefix: an empty line is two line breaks. You have three.": want[0].replace("\n\n", "\n\n\n"),
        "prefix: the demonstrations stand in the order of pairs.": by_hand(pairs[::-1], "", words)[0],
        "prefix: the wrong label words. Label k has words[k].": by_hand(turned, "", words)[0],
        "prefix: the last demonstration is missing.": by_hand(pairs[:-1], "", words)[0],
        "prefix: only the first demonstration is there.": by_hand(pairs[:1], "", words)[0],
        "prefix: two spaces before the label word. The option brings one.": want[0].replace(
            "Sentiment: ", "Sentiment:  "
        ),
        "prefix: the space before the label word is missing. The option brings it.": want[0].replace(
            "Sentiment: ", "Sentiment:"
        ),
        "prefix: the question is in it, too. That is the context.": want[0] + want[1],
        "prefix: it begins with an empty line. Nothing stands before it.": "\n\n" + want[0],
        "prefix: the texts are in lower case. They are written as they are.": want[0].replace("Good", "good"),
    }
    says = "prefix: the three demonstrations, in their order, with their words."
    checking.equal(prefix, want[0], "prefix", wrong, says=says)
    wrong = {
        "context: the empty line before it is missing: the question sticks to the last demonstration.": want[
            1
        ][2:],
        "context: one line break is no empty line. Write two.": want[1][1:],
        "context: an empty line is two line breaks. You have three.": "\n" + want[1],
        "context: an empty line ends the prefix, and one more begins the context.": "\n\n" + want[1],
        "context: the text is in lower case. It is written as it is.": want[1].replace("Fine", "fine"),
    }
    says = "context: an empty line, then the demonstrations' own format."
    checking.equal(context, want[1], "context", wrong, says=says)
    prefix, context, _ = call([], "fine", words)
    checking.equal(prefix, "", "prefix", says="no demonstrations: the prefix is empty.")
    says = "no demonstrations: the context begins with its first word. Nothing stands before an empty line."
    checking.equal(context, "Review: fine\nSentiment:", "context", says=says)
    case = ([("x", 1)], "fine", words)
    says = "A single demonstration: an empty line separates it from the question, too."
    checking.equal(call(*case), by_hand(*case), "(prefix, context, options)", says=says)
    case = ([("x", 1)], "Review: a\nSentiment: b", words)
    says = "The text holds 'Review: ' and 'Sentiment:' itself. Build the context from its parts; search for nothing."
    checking.equal(call(*case), by_hand(*case), "(prefix, context, options)", says=says)
    case = ([("x", 1)], "two\n\nparts", words)
    says = "The text holds an empty line itself, and the context is the whole question: do not cut the finished prompt."
    checking.equal(call(*case), by_hand(*case), "(prefix, context, options)", says=says)
    says = "Texts are written as they are, white space included."
    case = ([(" a\n ", 1)], "b ", words)
    checking.equal(call(*case), by_hand(*case), "(prefix, context, options)", says=says)
    words = ["bad", "so so", "good", "Sentiment"]
    for case in (
        ([("x", 3)], "", words),
        ([(" {text} ", 0), ("a\n\nb", 2), ("", 1), ("Review: 2", 2)], " {words} 100 % ", words),
        ([("A", 0), ("A", 0)], "A", ["A"]),
        ([], "two\nlines", words),
    ):
        says = f"Other texts and words: {checking.shown(case)}."
        checking.equal(call(*case, says=says), by_hand(*case), "(prefix, context, options)", says=says)
    print("12.3 passed. A language model continues what it sees, bugs included.")


check_12_3(prompt)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Print `prefix + context + options[1]` of the broken function, and read it as a person would.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Numbers, line breaks, the side on which a space stands, and `pairs = []`.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 12.4 Options as branches
#
# > ●●●●○ · 20 minutes · graded
#
# A context of `C` tokens has options, of which `sizes[j]` tokens are read. All stand in one row: the context first, then
# the options, one behind the other. Each option has to be computed as if it alone followed the context. A size may be 0,
# and there may be no option.
#
# Return `(places, seen)`: the position ids, int64 of shape $(T,)$, counted from 0, and a bool tensor $(T, T)$: `seen[i, j]`
# says whether token $i$ may look at token $j$.


# %% nbgrader={"grade_id": "answer_12_4", "solution": true}
def tree_row(C, sizes):
    """Position ids (T,) and the mask (T, T) of a context and its options in one row."""
    ### BEGIN SOLUTION
    branch = torch.tensor([0] * C + [j for j, size in enumerate(sizes, start=1) for _ in range(size)])
    places = torch.cat([torch.arange(C), *(C + torch.arange(size) for size in sizes)])
    path = (branch == 0) | (branch[:, None] == branch)
    return places, path & (places <= places[:, None])
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_12_4", "grade": true, "points": 4, "locked": true}
def wanted_row(C, sizes):
    T = C + sum(sizes)
    places, seen, start = list(range(C)), torch.zeros(T, T, dtype=torch.bool), C
    seen[:C, :C] = torch.ones(C, C).tril().bool()
    for size in sizes:
        stop = start + size
        places += range(C, C + size)
        seen[start:stop, :C] = True
        seen[start:stop, start:stop] = torch.ones(size, size).tril().bool()
        start = stop
    return torch.tensor(places, dtype=torch.long), seen


def check_12_4(tree_row):
    call = checking.calls(tree_row)
    got, want = call(3, [2, 1]), wanted_row(3, [2, 1])
    shapes = [tuple(getattr(part, "shape", ())) for part in got] if isinstance(got, list | tuple) else []
    for T, says in {
        7: "the first option counts for all options",
        5: "the last option counts for all options",
    }.items():
        assert shapes != [(T,), (T, T)], f"A row of {T} tokens: the size of {says}. There are 3 + 2 + 1 = 6."
    checking.form(got, want, "(places, seen)")
    places, seen = got
    wrong = {
        message: torch.tensor(value)
        for message, value in {
            "places: they run on through the options. The second option follows the context, not the first "
            "option.": [0, 1, 2, 3, 4, 5],
            "places: an option starts at C, behind the context, not at 0.": [0, 1, 2, 0, 1, 0],
            "places: an option starts at C = 3. You start one later.": [0, 1, 2, 4, 5, 4],
            "places: an option starts at C = 3. You start one earlier.": [0, 1, 2, 2, 3, 2],
            "places: they are counted from 0, not from 1.": [1, 2, 3, 4, 5, 4],
            "places: the tokens of an option follow one another.": [0, 1, 2, 3, 3, 3],
        }.items()
    }
    says = "places: context 0 1 2, then each option from 3 on."
    checking.equal(places, want[0], "places", wrong, dtype=torch.int64, says=says)
    assert seen.dtype == torch.bool, f"seen: bool expected, not {seen.dtype}."
    wrong = {
        "seen: it is turned round. True says that a token may look.": ~want[1],
        "seen: it is transposed. seen[i, j]: token i looks at token j.": want[1].T,
        "seen: a token sees itself, too.": want[1] & ~torch.eye(6, dtype=torch.bool),
    }
    for message, value in wrong.items():
        assert not torch.equal(seen, value), message
    assert not seen[:3, 3:].any(), "seen: the context looks at an option. Then all options know that option."
    assert not seen[5, 3:5].any(), "seen: the second option looks at the first."
    assert not seen[3:5, 5].any(), "seen: the first option looks at the second."
    assert not seen[3, 4], "seen: a token of an option looks at the token behind it."
    assert not seen[:3, :3].triu(1).any(), "seen: the context is causal, too."
    assert seen[:3, :3].equal(want[1][:3, :3]), "seen: a token of the context sees itself and all before it."
    assert seen[3:, :3].all(), "seen: every option sees the whole context."
    assert seen.diagonal().all() and seen[4, 3], "seen: a token sees itself and its own option up to itself."
    checking.equal(seen, want[1], "seen")
    print("12.4 passed the visible cases.")


check_12_4(tree_row)
### BEGIN HIDDEN TESTS


def hidden_12_4(tree_row):
    call = checking.calls(tree_row)
    for C, sizes, says in (
        (4, [3, 3, 3], "Options of one length are still different options."),
        (2, [0, 2, 0], "Of an option of one token nothing is read: size 0."),
        (5, [], "No option at all: the context alone."),
        (1, [1], "A context of one token, an option of one."),
        (1, [4, 2, 4], "Options longer than the context."),
        (7, [1, 1, 2, 5], "Four options."),
        (3, [2], "A single option: a causal row."),
        (5, [0, 0], "Nothing is read of any option."),
    ):
        with (
            checking.means(RuntimeError, says),
            checking.means(ValueError, says),
            checking.means(IndexError, says),
        ):
            places, seen = call(C, sizes)
        want, mask = wanted_row(C, sizes)
        case = f"{says} C = {C}, sizes {sizes}:"
        checking.equal(places, want, "places", dtype=torch.int64, says=case)
        checking.equal(seen, mask, "seen", dtype=torch.bool, says=case)


hidden_12_4(tree_row)
### END HIDDEN TESTS

# %% [markdown]
# ## 12.5 What can calibration do?
#
# > ●●○○○ · 8 minutes · practice · prediction
#
# Predict, with pencil and paper:
#
# - `label`: about a text the model says $(0.8, 0.2)$ for labels 0 and 1; about nothing it says $(0.9, 0.1)$. Which label
#   after calibration?
# - `tokens`: 10 contexts of 20 tokens stand behind a prefix of 100; each has 3 options of 2 tokens. How many tokens does
#   the model read if nothing is read twice and no last token of an option is read?
# - `auc`: two labels. Calibration changes the area under the ROC curve: 1 for yes, 0 for no.
# - `always`: 7 of 10 test texts are positive, and the calibrated model says *negative* to all of them. How many of the ten
#   are right?


# %% nbgrader={"grade_id": "answer_12_5", "solution": true}
def prediction():
    """Return a dict of four whole numbers: label, tokens, auc, always."""
    ### BEGIN SOLUTION
    return {"label": 1, "tokens": 330, "auc": 0, "always": 3}
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_12_5", "locked": true}
def check_12_5(prediction):
    mine = checking.predicted(prediction, ("label", "tokens", "auc", "always"))
    wrong = {"label: 0.8 is a lot, but less than the 0.9 that this label gets for nothing. Divide both.": 0}
    checking.equal(mine["label"], 1, "label", wrong, says="label: 0 or 1.")
    wrong = {
        "tokens: that is one forward pass for each pair.": 10 * 3 * (100 + 20 + 2),
        "tokens: that is one forward pass for each pair. The prefix and each context are read once.": 10
        * 3
        * (100 + 20 + 1),
        "tokens: the last token of an option is only predicted.": 100 + 10 * (20 + 3 * 2),
        "tokens: the prefix stands in front of all contexts. It is read once.": 10 * (100 + 20 + 3),
        "tokens: the prefix is read once, and the last token of an option is only predicted.": 10
        * (100 + 20 + 6),
        "tokens: each context is read once, not for each option.": 100 + 10 * 3 * (20 + 1),
        "tokens: the last token of *each* option is only predicted: three for each context, not one.": 100
        + 10 * (20 + 3 * 2 - 1),
        "tokens: this is one context of ten.": 100 + 20 + 3,
        "tokens: of each option one token is read.": 100 + 10 * 20,
        "tokens: each context has three options.": 100 + 10 * (20 + 1),
        "tokens: the prefix is read, too, once.": 10 * (20 + 3),
        "tokens: no token is left out but the last of each option.": 100 + 10 * (20 + 2),
    }
    says = "tokens: the prefix once, each context once, and what is read of the options."
    checking.equal(mine["tokens"], 330, "tokens", wrong, says=says)
    wrong = {"auc: all log-odds move by the same number. Their order stays.": 1}
    checking.equal(mine["auc"], 0, "auc", wrong, says="auc: 0 or 1.")
    wrong = {
        "always: it says negative. How many are negative?": 7,
        "always: some are negative, and it is right about those.": 0,
        "always: it is not right about all: seven are positive.": 10,
        "always: a constant answer is no coin.": 5,
        "always: count texts. This is a share.": 0.3,
    }
    says = "always: count the negative ones. Calibration can also end in a constant answer."
    checking.equal(mine["always"], 3, "always", wrong, says=says)
    print("12.5 passed.")


check_12_5(prediction)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# $0.8 / 0.9$ against $0.2 / 0.1$.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Of an option of two tokens one is read.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 12.6 Train a model that learns from its prompt
#
# > ●●●●○ · 60 minutes · graded
#
# In-context learning can be seen from nothing. A text shows pairs of symbols, a key and its value, then one of the keys
# again: $k_1\, v_1\, k_2\, v_2 \dots k_n\, v_n\, k_j$. The answer is $v_j$. No weight can know it: which value belongs to
# which key is decided in the text. `Reader` is a network that *can* learn to answer: each place also gets the vector before
# it (in a large model an earlier layer does that), then one attention looks back. Train it.
#
# `train(table, seed)` returns a trained `net`:
#
# - `table`, shape $(40, 24)$, float32, has the vectors of forty symbols, drawn from a standard normal distribution. These
#   are for training; you may draw others, too. How you make texts, where the loss counts, and for how long, is yours.
# - `net(table, ids)` is a `Reader`, or any function or module of that form: for *any* table $(V, 24)$ and int64 ids
#   $(B, 2n + 1)$ it returns finite logits $(B, 2n + 1, V)$. Only the last place is read, and of its logits those of the $n$
#   values in the text: the largest is the answer.
# - The checker asks with **new** symbols, from a table that the net has never seen. Keys and values of a text are $2n$
#   different symbols, each in either role; every key is asked equally often. The mean share of right answers over
#   $n = 2, 4, 6$ must reach $0.95$. The hidden cases ask for as much, with one to twelve pairs and a few hundred symbols.
# - All random numbers come from `seed`: the same table and seed, the same net. You have $30$ seconds of processor time;
#   the solution needs one or two.
#
# To guess among the values gives $1/n$. Perfect answers about the forty symbols are not enough: what does the net know then?


# %%
class Reader(nn.Module):
    """Logits (B, T, V) of the next symbol, for a table (V, 24) and ids (B, T). Place t reads the places up to t."""

    def __init__(self, d=24, width=32, sharpness=8.0):
        super().__init__()
        self.now, self.before = nn.Linear(d, width, bias=False), nn.Linear(d, width, bias=False)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.head, self.sharpness = nn.Linear(width, d, bias=False), sharpness

    def forward(self, table, ids):
        x = table[ids]
        h = self.now(x) + F.pad(self.before(x)[:, :-1], (0, 0, 1, 0))
        q, k = F.normalize(self.q(h), dim=-1), F.normalize(self.k(h), dim=-1)
        o = F.scaled_dot_product_attention(q, k, self.v(h), is_causal=True, scale=self.sharpness)
        return self.head(h + self.out(o)) @ table.T / table.shape[1] ** 0.5


# %% nbgrader={"grade_id": "answer_12_6", "solution": true}
def texts(V, n, rows, generator):
    """ids (rows, 2n + 1), and the answer of each row; you may ask several keys at the end. A helper, not checked itself."""
    ### BEGIN SOLUTION
    drawn = torch.rand(rows, V, generator=generator).argsort(1)[:, : 2 * n]  # another mapping for each row
    keys, values = drawn[:, :n], drawn[:, n:]
    order = torch.rand(rows, n, generator=generator).argsort(1)
    pairs = torch.stack([keys, values], 2).flatten(1)
    return torch.cat([pairs, keys.gather(1, order)], 1), values.gather(1, order)
    ### END SOLUTION


def train(table, seed):
    """table (40, 24). Return the trained net: (table, ids) -> logits."""
    ### BEGIN SOLUTION
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net, steps = Reader(), 180
    adam = torch.optim.Adam(net.parameters(), fused=True)
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = 1.5e-2 * min(1.0, (step + 1) / 20) * (1 - step / steps)
        fresh = torch.randn(
            table.shape, generator=generator
        )  # other vectors each time: none is worth knowing
        ids, answers = texts(len(table), 6, 64, generator)
        z = net(fresh, ids)[:, -answers.shape[1] :]
        adam.zero_grad()
        F.cross_entropy(z.flatten(0, 1), answers.flatten()).backward()
        adam.step()
    return net
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_12_6", "grade": true, "points": 5, "locked": true}
def asked_12_6(net, table, n, seed, rows=600):
    """Share right, the answers as places among the values, the places asked for, and the symbol said of all V."""
    g = torch.Generator().manual_seed(seed)
    drawn = torch.rand(rows, len(table), generator=g).argsort(1)[:, : 2 * n]
    keys, values, place = drawn[:, :n], drawn[:, n:], torch.arange(rows) % n
    ids = torch.cat([torch.stack([keys, values], 2).flatten(1), keys[torch.arange(rows), place, None]], 1)
    with torch.no_grad():
        z = checking.calls(net)(table, ids)
    checking.form(z, torch.zeros(*ids.shape, len(table)), f"the net's logits for n = {n}, V = {len(table)}")
    assert torch.isfinite(z).all(), "The net's logits are not finite."
    said = z[:, -1].gather(1, values).argmax(1)
    return (said == place).double().mean().item(), said, place, z[:, -1].argmax(1), ids


def judge_12_6(train, seed, ns=(2, 4, 6), V=60):
    """The share right with new symbols, or an AssertionError that says what the net has learned instead."""
    g = torch.Generator().manual_seed(seed)
    table, new = torch.randn(40, 24, generator=g), torch.randn(V, 24, generator=g)
    net = checking.calls(train, limit=30.0, slow="Thirty seconds: fewer updates.")(table.clone(), seed)
    assert callable(net), f"The net cannot be called: {checking.shown(net)}."
    found = {n: asked_12_6(net, new, n, seed + n)[0] for n in ns}
    right = sum(found.values()) / len(found)
    if right >= 0.95:
        return right, net, table, new
    own, said, _, spoken, ids = asked_12_6(net, table, 6, seed)
    told = (
        ", ".join(f"n = {n}: {share:.2f}" for n, share in found.items())
        + f". On your forty symbols, n = 6: {own:.2f}."
    )
    said_key = (spoken == ids[:, -1]).double().mean().item()
    assert said_key < 0.5, (
        f"The net repeats the question in {said_key:.0%} of the texts. No shift: the last place predicts the next symbol. "
        + told
    )
    for at, name in ((5, "last"), (0, "first")):
        share = (said == at).double().mean().item()
        assert share < 0.6, (
            f"The net answers with the {name} value in {share:.0%} of the texts, whatever is asked. In your texts, is "
            f"another key asked for than that of the {name} pair? {told}"
        )
    if own < 0.5:
        keys, ends = ids[:, -1], spoken
        same = [
            (ends[keys == k] == ends[keys == k].mode().values).double().mean().item() for k in keys.unique()
        ]
        fixed = sum(same) / len(same)
        assert fixed < 0.6, (
            f"To the same key the net says the same symbol in {fixed:.0%} of the texts, whatever stands in them: it has "
            f"learned one mapping by heart. Draw the mapping anew for each text. {told}"
        )
        raise AssertionError(
            f"The net guesses among the values. {told} Only the symbol after the question can be known; a loss on all other "
            "places is noise. Or too few updates: before it finds the key it learns nothing for a while."
        )
    roles = [asked_12_6(net, table, n, seed)[0] for n in (2, 6)]
    assert roles[1] > 0.9, (
        f"Even of your own symbols only {roles[1]:.2f} are right with six pairs. {told} Was each symbol both key and value "
        "in your texts? Were six pairs among them?"
    )
    raise AssertionError(
        f"{told} It knows these forty vectors, and reads worse with others; 0.95 are asked for. Whatever must not be learned "
        "by heart has to be drawn anew, and not the mapping alone."
    )


def check_12_6(train):
    right, *_ = judge_12_6(train, 1)
    print(f"12.6 passed the visible cases: {right:.2f} right with symbols that it has never seen.")


check_12_6(train)
### BEGIN HIDDEN TESTS


def hidden_12_6(train):
    _, net, table, new = judge_12_6(train, 7, ns=(1, 3, 8, 12), V=300)
    again = checking.calls(train, limit=30.0)(table.clone(), 7)
    with torch.no_grad():
        one, two = (each(new, torch.arange(9)[None]) for each in (net, again))
    assert torch.allclose(one, two, atol=1e-3), (
        "The same table and seed gave two nets: draw all from the seed."
    )


hidden_12_6(train)
### END HIDDEN TESTS

# %% [markdown]
# ## 12.7 Project: does it still depend on the order?
#
# > ●●●●● · 150 minutes · practice
#
# "After calibration the order of the demonstrations matters less." Decide a claim of this kind. `prompted_12_7` is a
# stand-in for a prompted model, so that many draws cost nothing; its biases are those of the lesson, with strengths that
# you do not know. You may put a real model, or the net of exercise 12.6, in its place.
#
# Compare two arms `a` and `b`: raw and calibrated, two and eight demonstrations, one wording of nothing and three. For each
# *draw* (fresh demonstrations, fresh texts) and each order, note for every text whether the answer is right. Then
#
# - `spread` of a draw: accuracy of the best order minus that of the worst. It is never negative;
# - `luck`: the mean spread when order does not matter. Shuffle the answers to *each text* among the orders, again and again;
# - `beyond` of a draw, cross-fitted: for each fold of the texts find the best and the worst order on the *other* folds (of
#   equals the first), and take the difference of their right answers on the fold; add up over the folds, and divide by the
#   number of texts. Without an effect it is zero on average.
#
# Write the claim first: "beyond luck, the order moves the accuracy of *a* more than that of *b*, by more than `threshold`".
# Return a dict:
#
# | key | what |
# |:--|:--|
# | `claim` | a sentence that names `a` and `b` |
# | `a`, `b` | names of two arms |
# | `threshold` | what the difference must pass, $0$ or more |
# | `draws` | at least ten different numbers or names |
# | `right` | for both arms: a list over draws of lists over orders of lists over texts, $0$ or $1$ |
# | `folds` | for each text the number of its fold, from $0$: at least four folds whose sizes differ by one text at most |
# | `spread`, `beyond` | for both arms a list over draws |
# | `luck` | for both arms the mean over draws; it may lie $0.01$ from the checker's own shuffles |
# | `difference`, `low`, `high` | `beyond` of `a` minus that of `b`: mean over draws, its t interval at $0.95$ |
# | `verdict` | `"supported"`, `"refuted"` (the whole interval lies below the threshold) or `"undecided"` |
#
# Both arms have the same orders and texts, at least $4$ orders and $40$ texts a draw. A person reads the rest with this
# rubric ($0$ to $2$ points a row; $8$ of $12$ pass):
#
# | | 0 | 1 | 2 |
# |:--|:--|:--|:--|
# | claim | cannot fail | can fail | names arms, orders, texts, model, measure and direction before the run |
# | threshold | a habit | a reason | says who would do what differently |
# | draws | one text set for all | fresh demonstrations | fresh demonstrations and texts; the number was fixed before |
# | luck | the spread stands alone | luck is printed | luck is explained, and tested where there is no effect |
# | price | accuracy is not looked at | accuracy of both arms | says where the more accurate arm is the less steady one |
# | ending | only success is described | three verdicts | also for which model, orders and wordings this holds |


# %%
def prompted_12_7(draw, orders, texts=60):
    """A prompt with two positive and two negative demonstrations, in several orders.

    orders: permutations of (0, 1, 2, 3); 0 and 1 are the positive ones. Returns the log-odds of *positive* for each order and
    text, those behind a text that says nothing for each order, and the true labels (1 is positive).
    """
    rng = np.random.default_rng(draw)
    y = rng.integers(2, size=texts)
    evidence = (2 * y - 1) * rng.uniform(0.6, 1.4) + rng.normal(size=texts)
    prompt, noise = rng.normal(0, 0.4), rng.normal(0, 0.5, size=(24, texts))
    odds, nothing = [], []
    for order in orders:
        place = sorted(itertools.permutations(range(4))).index(tuple(order))
        sign = [1 if demonstration < 2 else -1 for demonstration in order]
        own = np.random.default_rng((draw, place)).normal(0, 0.4, size=2)
        bias = prompt + 0.6 * sign[-1] + 0.2 * sign[-2] + own[0]
        odds.append(evidence + bias + noise[place])
        nothing.append(bias + own[1])
    return np.array(odds), np.array(nothing), y


EIGHT = sorted(itertools.permutations(range(4)))[::3]
odds, nothing, y = prompted_12_7(0, EIGHT)
print("accuracies of one draw, raw:", ((odds > 0) == y).mean(1).round(2))


# %% nbgrader={"grade_id": "answer_12_7", "solution": true}
def study():
    """Return the dict of the table."""
    ### BEGIN SOLUTION
    a, b, threshold = "raw", "calibrated", 0.03
    draws, folds = list(range(100, 124)), [text % 5 for text in range(60)]
    rng, fold_of = np.random.default_rng(0), np.array(folds)
    right = {a: [], b: []}
    for draw in draws:
        odds, nothing, y = prompted_12_7(draw, EIGHT)
        right[a].append(((odds > 0) == y).astype(int).tolist())
        right[b].append(((odds - nothing[:, None] > 0) == y).astype(int).tolist())

    def spread(table):
        return float(np.ptp(np.mean(table, axis=1)))

    def luck(table):
        shuffled = [spread(rng.permuted(np.array(table), axis=0)) for _ in range(100)]
        return sum(shuffled) / len(shuffled)

    def beyond(table):
        table, total = np.array(table), 0
        for fold in range(5):
            elsewhere = table[:, fold_of != fold].sum(1)
            here = table[:, fold_of == fold].sum(1)
            total += here[elsewhere.argmax()] - here[elsewhere.argmin()]
        return float(total / table.shape[1])

    found = {arm: [beyond(table) for table in right[arm]] for arm in right}
    gain = intervals.t_interval([p - q for p, q in zip(found[a], found[b], strict=True)])
    return {
        "claim": "Beyond luck, the order of four demonstrations moves the raw accuracy more than the calibrated one, by more "
        "than three points: the stand-in, eight orders, 60 texts a draw.",
        "a": a, "b": b, "threshold": threshold, "draws": draws, "right": right, "folds": folds,
        "spread": {arm: [spread(table) for table in right[arm]] for arm in right},
        "luck": {arm: sum(map(luck, right[arm])) / len(draws) for arm in right},
        "beyond": found, "difference": gain.mean, "low": gain.low, "high": gain.high,
        "verdict": "supported" if gain.low > threshold else "refuted" if gain.high < threshold else "undecided",
    }  # fmt: skip
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_12_7", "locked": true}
KEYS = "claim a b threshold draws right folds spread luck beyond difference low high verdict".split()


def crossed_12_7(tables, folds, leak=False):
    """Cross-fitted right answers of the best order minus those of the worst, for each draw and fold; (D, O, N) -> (D, F)."""
    found = []
    for fold in range(folds.max() + 1):
        here, elsewhere = tables[..., folds == fold].sum(2), tables[..., folds != fold].sum(2)
        chosen = here if leak else elsewhere
        best, worst = chosen.argmax(1)[:, None], chosen.argmin(1)[:, None]
        found.append((np.take_along_axis(here, best, 1) - np.take_along_axis(here, worst, 1))[:, 0])
    return np.stack(found, 1)


def lucks_12_7(tables, times=60):
    """The mean spread after shuffling within each text; and that of independent coins, which is something else."""
    rng = np.random.default_rng(0)
    shuffled = np.mean([np.ptp(rng.permuted(tables, axis=1).mean(2), axis=1).mean() for _ in range(times)])
    p = tables.mean((1, 2))[:, None, None]
    coins = np.mean([np.ptp((rng.random(tables.shape) < p).mean(2), axis=1).mean() for _ in range(times)])
    return float(shuffled), float(coins)


def check_12_7(study):
    mine = checking.handed_in(study, KEYS, limit=90.0)
    a, b = mine["a"], mine["b"]
    assert a != b, "a and b are the same arm."
    for name in (a, b):
        assert name in mine["claim"], f"claim: {name!r} does not occur. A claim names what it compares."
    for key in ("right", "spread", "luck", "beyond"):
        assert isinstance(mine[key], dict) and set(mine[key]) == {a, b}, (
            f"{key}: a dict with the two arms as keys."
        )
    D = len(mine["draws"])
    assert len(set(mine["draws"])) == D >= 10, "draws: at least ten, no two alike."
    tables = {arm: np.array(mine["right"][arm]) for arm in (a, b)}
    for arm, table in tables.items():
        assert table.ndim == 3 and len(table) == D and table.shape[1] >= 4 and table.shape[2] >= 40, (
            f"right, {arm}: {D} draws, at least 4 orders and 40 texts; the shape is {table.shape}."
        )
        assert np.isin(table, (0, 1)).all(), f"right, {arm}: each entry is 0 or 1."
        assert len({row.tobytes() for row in table}) == D, (
            f"right, {arm}: two draws are equal in every answer."
        )
    assert tables[a].shape == tables[b].shape, "right: both arms have the same orders and texts."
    N, folds = tables[a].shape[2], np.array(mine["folds"])
    assert folds.shape == (N,), f"folds: one number for each of the {N} texts."
    sizes = np.bincount(folds)
    assert len(sizes) >= 4 and np.ptp(sizes) <= 1, (
        "folds: at least four, from 0 on, of equal size (by one text)."
    )
    found = {arm: crossed_12_7(table, folds) for arm, table in tables.items()}
    for arm, table in tables.items():
        spread = np.ptp(table.mean(2), axis=1).tolist()
        checking.equal(mine["spread"][arm], spread, f"spread of {arm}", tol=1e-6)
        want, coins = lucks_12_7(table)
        told = mine["luck"][arm]
        checking.form(told, 0.0, f"luck of {arm}")
        if abs(told - want) > 0.01:
            assert abs(told - coins) > 0.01, (
                f"luck of {arm}: {told:.3f} is the luck of independent coins. All orders answer the same texts: shuffle the "
                f"answers to each text among the orders, and {want:.3f} is left."
            )
            raise AssertionError(f"luck of {arm}: {told:.3f}; shuffled within each text it is {want:.3f}.")
        beyond = (found[arm].sum(1) / N).tolist()
        leak = (crossed_12_7(table, folds, leak=True).sum(1) / N).tolist()
        wrong = {
            f"beyond of {arm}: the best order is the best on all texts, the fold's too. That is the plain spread.": spread,
            f"beyond of {arm}: chosen and compared on the same fold. Choose on the others.": leak,
        }
        checking.equal(mine["beyond"][arm], beyond, f"beyond of {arm}", wrong, tol=1e-6)
    pairs = (found[a].sum(1) - found[b].sum(1)) / N
    right = intervals.t_interval(pairs)
    flipped = {"difference: b minus a. The claim is about a minus b.": -right.mean}
    checking.equal(mine["difference"], right.mean, "difference", flipped, tol=1e-6)
    half, error = (right.high - right.low) / 2, pairs.std(ddof=1) / math.sqrt(D)
    apart = math.sqrt(sum((each.sum(1) / N).var(ddof=1) for each in found.values()) / D)
    flat = intervals.t_interval(((found[a] - found[b]) / sizes).flatten())
    wrong = {
        "low: the folds of one draw share demonstrations and choices. One difference a draw.": flat.low,
        "low: these are two separate intervals. Both arms have the same draws: take the difference of each.": right.mean
        - half * apart / error,
        "low: that is one standard error. A 95 % t interval is wider.": right.mean - error,
    }
    checking.equal(mine["low"], right.low, "low", wrong, tol=max(1e-6, 1e-3 * half))
    checking.equal(mine["high"], right.high, "high", tol=max(1e-6, 1e-3 * half))
    bar = mine["threshold"]
    assert bar >= 0, "threshold: 0 or more."
    verdict = checking.verdict(mine, right.low, right.high)
    print(
        f"12.7 passed: {verdict}, [{right.low:.3f}, {right.high:.3f}]. Now a person reads it with the rubric."
    )
    for arm, table in tables.items():
        print(
            f"{arm:12s} accuracy {table.mean():.2f}, spread {np.ptp(table.mean(2), axis=1).mean():.3f}, luck "
            f"{mine['luck'][arm]:.3f}, beyond {found[arm].sum() / N / D:.3f}"
        )


check_12_7(study)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Keep `right` as an array (draws, orders, texts). Spread, luck and the cross-fitted distance are functions of one draw's
# table (orders, texts).
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Test `beyond` where you know the answer: a table of coins has a spread, and on average nothing beyond luck.
#
# </details>
#
# {{solution}}
