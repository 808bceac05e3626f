# ---
# jupyter:
#   instructlab:
#     id: "14"
#     title: Instruction tuning and held-out tasks
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 14: instruction tuning and held-out tasks
#
# Each exercise is a box, a cell for your answer, and a checker in the cell below it. Replace the line that
# raises `NotImplementedError`, then run both cells. A checker that says no also says what probably went
# wrong.
#
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases that you do not see
# here, so test more than the checker does. Nothing on this page needs a download or the internet. The first five are short.
# Exercise 14.6 tunes a small decoder that the page trains from scratch in seconds, and exercise 14.7 is a project: an
# evening each.
#
# {{overview}}

# %%
import copy
import functools
import math
import random

import torch
from torch import nn
from torch.nn import functional as F

from instructlab_utils import checking, intervals

# %% [markdown]
# ## 14.1 Another chat template
#
# > ●●○○○ · 10 minutes · practice
#
# A model was tuned with this format: each message is `[ROLE]`, a space, the content, `[/]` and a line feed, where `ROLE`
# is the role in capitals. If the first message is not of the role `system`, a system message with the content
# `Be helpful.` stands in front. A content is written as it is. With `generation_prompt` the text ends with the start of
# an answer: `[ASSISTANT]` and a space, and nothing behind it.


# %% nbgrader={"grade_id": "answer_14_1", "solution": true}
def chat(messages, generation_prompt=False):
    """messages: dicts with role and content. Return one text. Do not change the list that you are given."""
    ### BEGIN SOLUTION
    if messages[0]["role"] != "system":
        messages = [{"role": "system", "content": "Be helpful."}, *messages]
    turns = [f"[{turn['role'].upper()}] {turn['content']}[/]\n" for turn in messages]
    return "".join(turns) + ("[ASSISTANT] " if generation_prompt else "")
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_14_1", "locked": true}
def by_hand(messages, generation_prompt=False):
    """Piece by piece."""
    text = "" if messages[0]["role"] == "system" else "[SYSTEM] Be helpful.[/]\n"
    for turn in messages:
        text += "[" + turn["role"].upper() + "] " + turn["content"] + "[/]" + "\n"
    return text + "[ASSISTANT] " * bool(generation_prompt)


def check_14_1(chat):
    call = checking.calls(chat)
    user, answer = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}
    system = {"role": "system", "content": "Be rude."}
    want = "[SYSTEM] Be helpful.[/]\n[USER] Hi[/]\n"
    wrong = {
        "A conversation without a system message gets one: the model was tuned with it in front.": want[24:],
        "The system message stands in front, not behind.": want[24:] + want[:24],
        "The role is written in capitals.": want.replace("SYSTEM", "system").replace("USER", "user"),
        "The role is written in capitals, all of its letters.": want.replace("SYSTEM", "System").replace(
            "USER", "User"
        ),
        "A space stands between the role and the content.": want.replace("] ", "]"),
        "No space stands in front of [/].": want.replace("[/]", " [/]"),
        "Each turn ends with [/] and a line feed, the last one too.": want[:-1],
        "The line feeds are missing: each turn ends with [/] and one.": want.replace("\n", ""),
        "The end [/] of each turn is missing.": want.replace("[/]", ""),
        "An end tag without the role: [/] closes each turn.": "[SYSTEM] Be helpful.[/SYSTEM]\n[USER] Hi[/USER]\n",
        "The default ends with a full stop: Be helpful.": want.replace("helpful.", "helpful"),
        "generation_prompt is false: nobody asked for an answer.": f"{want}[ASSISTANT] ",
        "The contents are missing.": "[SYSTEM] [/]\n[USER] [/]\n",
        "A line feed stands between the role and the content. A space is asked for.": want.replace(
            "] ", "]\n"
        ),
    }
    says = "One user message: a tag, space or line feed is off."
    checking.equal(call([user]), want, "the text", wrong, says=says)
    got, want = call([system, user, answer]), "[SYSTEM] Be rude.[/]\n[USER] Hi[/]\n[ASSISTANT] Yes?[/]\n"
    assert "Be helpful." not in got, (
        "There is a system message already. The default is for conversations without one."
    )
    wrong = {
        "The last turn is closed, too: [/] and a line feed.": want[:-4],
        "Each turn ends with [/] and a line feed; the last one has lost its own.": want[:-1],
    }
    says = "Three messages: a tag, a space or a line feed is off."
    checking.equal(got, want, "the text", wrong, says=says)
    got = call([system, user], generation_prompt=True)
    want = "[SYSTEM] Be rude.[/]\n[USER] Hi[/]\n[ASSISTANT] "
    assert not got.endswith("[/]\n"), (
        "generation_prompt: the start of an answer is missing, or you closed it."
    )
    wrong = {
        "generation_prompt: nothing stands behind the space, no line feed.": f"{want}\n",
        "generation_prompt: a space stands behind [ASSISTANT].": want[:-1],
        "generation_prompt: the role is written in capitals.": want.replace("ASSISTANT", "assistant"),
        "generation_prompt: the answer is left open. Nothing closes it.": f"{want}[/]",
        "generation_prompt: the line feed behind the last turn is missing.": want.replace("\n[ASS", "[ASS"),
    }
    says = "generation_prompt: the model's turn begins with [ASSISTANT] and a space."
    checking.equal(got, want, "the text", wrong, says=says)
    tool = {"role": "tool", "content": "[/] {0}\n 100 %s"}
    spaced, late = {"role": "user", "content": "  two\nlines \n"}, {"role": "system", "content": "Be quick."}
    for case, says in (
        (([user], True), "No system message, and an answer is asked for."),
        (([user, answer, user, answer], False), "Four turns."),
        (([user, answer, spaced], True), "The content is written as it is, white space included."),
        (([tool, {"role": "user", "content": ""}],), "Any role, any content, an empty one too."),
        (([user, late, answer],), "A system message that is not the first: the default stands in front."),
        (([system],), "A system message alone."),
        (([system, user, answer], True), "An answer stands there, and one more is asked for."),
    ):
        call.agrees(by_hand, case, name="the text", says=says)
    print("14.1 passed. A template is a contract: the same text in tuning and in use.")


check_14_1(chat)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Decide about the system message first. Then all messages have one and the same form.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `[default, *messages]` is a new list. `messages.insert(0, default)` is not.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 14.2 The collator that never stops
#
# > ●●●○○ · 15 minutes · practice · bug hunt
#
# `rows` are conversations as (list of prompt ids, list of answer ids); an answer ends with the end token. This tokenizer
# uses the end token as padding, too. The function below fills a batch. Training runs and the loss falls. Find three bugs.


# %%
def broken_collate(rows, pad_id):
    width = max(len(prompt + answer) for prompt, answer in rows)
    ids = torch.full((len(rows), width), pad_id)
    for i, (prompt, answer) in enumerate(rows):
        ids[i, : len(prompt + answer)] = torch.tensor(prompt + answer)
    mask = (ids != pad_id).long()
    labels = ids.masked_fill(ids == pad_id, -100)
    return ids, mask, labels


# %% [markdown]
# Write it right: every real token is visible, padding is not; the labels are the answer with its end token, and nothing
# else. All three are int64. A prompt may be empty, and the id of padding may also be another one.


# %% nbgrader={"grade_id": "answer_14_2", "solution": true}
def collate(rows, pad_id):
    """Return input ids, attention mask and labels, each int64 of shape (B, T); padding on the right, label -100."""
    ### BEGIN SOLUTION
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = torch.full((len(rows), width), pad_id)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for i, (prompt, answer) in enumerate(rows):
        n = len(prompt) + len(answer)
        ids[i, :n] = torch.tensor(prompt + answer)
        mask[i, :n] = 1
        labels[i, len(prompt) : n] = torch.tensor(answer)
    return ids, mask, labels
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_14_2", "locked": true}
def cell_by_cell(rows, pad_id):
    """The three tables, a cell at a time."""
    width = max(len(prompt + answer) for prompt, answer in rows)
    ids, mask, labels = (torch.zeros(len(rows), width, dtype=torch.int64) for _ in range(3))
    for i, (prompt, answer) in enumerate(rows):
        for t in range(width):
            real = t < len(prompt + answer)
            ids[i, t] = (prompt + answer)[t] if real else pad_id
            mask[i, t] = real
            labels[i, t] = ids[i, t] if real and t >= len(prompt) else -100
    return ids, mask, labels


def check_14_2(collate):
    call = checking.calls(collate)
    end = 2
    rows = [([5, 6, end, 7], [8, end]), ([9, 7], [8, 8, 8, 8, end])]
    got, want = call(rows, end), cell_by_cell(rows, end)
    checking.form(got, want, "(ids, mask, labels)", dtype=torch.int64)
    ids, mask, labels = got
    wrong = {
        "ids: padding stands on the right.": torch.tensor([[2, 5, 6, 2, 7, 8, 2], [9, 7, 8, 8, 8, 8, 2]]),
        "ids: padding is pad_id, not -100. That is for labels.": torch.tensor(
            [[5, 6, 2, 7, 8, 2, -100], [9, 7, 8, 8, 8, 8, 2]]
        ),
        "ids: padding is pad_id, not 0.": torch.tensor([[5, 6, 2, 7, 8, 2, 0], [9, 7, 8, 8, 8, 8, 2]]),
    }
    checking.equal(ids, want[0], "ids", wrong, says="ids: the tokens, then padding on the right.")
    assert mask[0, 2] == 1 or mask[0, 0] == 0, (
        "mask: the user's end token is real. Hidden by its id, no later token can see where his turn ended."
    )
    assert mask[0, 5] == 1 or mask[0, 0] == 0, "mask: the end of the answer is real too."
    wrong = {
        "mask: the last place of the first row is padding. Only the length can tell.": torch.ones_like(mask),
        "mask: it is turned round. 1 is what is seen.": 1 - want[1],
        "mask: the prompt has to be seen, too.": (want[2] != -100).long(),
    }
    checking.equal(mask, want[1], "mask", wrong, says="mask: 1 for real tokens, 0 for padding.")
    wrong = {
        "labels: they stand at their own tokens. The model shifts them itself.": torch.tensor(
            [[-100] * 3 + [8, 2, -100, -100], [-100, 8, 8, 8, 8, 2, -100]]
        ),
        "labels: they stand one place too late. The model shifts them itself.": torch.tensor(
            [[-100] * 5 + [8, 2], [-100, -100, -100, 8, 8, 8, 8]]
        ),
        "labels: you counted from the right edge, where the padding stands. The answer ends where its row ends.": (
            torch.tensor([[-100] * 5 + [8, 2], [-100, -100, 8, 8, 8, 8, 2]])
        ),
        "labels: -100 is what does not count, 0 is a token.": want[2].clamp(min=0),
    }
    for message, value in wrong.items():
        assert not torch.equal(labels, value), message
    assert labels[0, 5] == end, (
        "labels: the end of the answer has no label. This model will never learn to stop."
    )
    assert labels[0, 6] == -100, "labels: padding has a label. The model would learn to say the end for ever."
    assert (labels[0, :4] == -100).all(), (
        "labels: the prompt counts. The model would learn to talk like the user."
    )
    checking.equal(labels, want[2], "labels", says="labels: the answer, in its places.")
    for rows, pad_id, says in (
        (
            [([5, 3], [7, 8, end, 9, end]), ([4], [end])],
            end,
            "An end token inside the answer is a label, too.",
        ),
        (
            [([8, 5], [8, 7, end]), ([4, end, 4], [end])],
            end,
            "The answer's first token stands in the prompt, too: do not search for it, count.",
        ),
        (
            [([6], [5, 1]), ([6, 6, 6], [1])],
            9,
            "Padding has an id of its own here: none of its places is seen, and none has a label.",
        ),
        ([([], [4, 3, 1]), ([2, 9], [7, 2, 1]), ([3], [1])], 9, "An empty prompt."),
        ([([3], [4, 0, 1]), ([0, 9], [7, 1]), ([3], [1])], 0, "The id 0 for padding."),
        ([([8, end, 4, 4], [6, end])], end, "A single row: no padding at all."),
    ):
        call.agrees(cell_by_cell, (rows, pad_id), name="(ids, mask, labels)", dtype=torch.int64, says=says)
    print("14.2 passed. Lengths know what is padding. Ids do not.")


check_14_2(collate)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Count the tokens 2 in the first row. How many of them are padding?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# You know two lengths for each row: of the prompt and of the answer. All three tensors follow from them.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 14.3 How often is an example seen?
#
# > ●●●○○ · 15 minutes · graded
#
# Tasks have `sizes`, a list of numbers of examples. A mixture with `cap` $K$ and `temperature` $T$ gives task $m$ the share
# $r_m \propto \min(e_m, K)^{1/T}$. A run draws $N$ examples; inside a task all examples are equally probable.
#
# Return the shares, and for each task how often one of its $e_m$ examples is seen on average: $N r_m / e_m$. The
# temperature may be very small or very large.


# %% nbgrader={"grade_id": "answer_14_3", "solution": true}
def mixture(sizes, cap, temperature, N):
    """Return (shares, times seen), two lists of floats."""
    ### BEGIN SOLUTION
    logs = [math.log(min(e, cap)) / temperature for e in sizes]
    weights = [math.exp(x - max(logs)) for x in logs]
    shares = [w / sum(weights) for w in weights]
    return shares, [N * r / e for r, e in zip(shares, sizes, strict=True)]
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_14_3", "grade": true, "points": 3, "locked": true}
def check_14_3(mixture):
    call = checking.calls(mixture)
    got = call([10, 1000], 1000, 1.0, 505)
    checking.form(got, ([0.0, 0.0], [0.0, 0.0]), "(shares, times seen)")
    shares, seen = [10 / 1010, 1000 / 1010], [0.5, 0.5]
    wrong = {
        "You return the times first. The order is shares, times seen.": seen,
        "The shares do not sum to 1. Divide by their sum.": [10, 1000],
        "The cap binds nobody here. You divide by the cap.": [0.01, 1.0],
        "All tasks get one share. T = 1 keeps the shares of the examples.": seen,
        "The largest task gets all. Is that a softmax of sizes over T? Sizes go to the power 1/T.": [
            0.0,
            1.0,
        ],
    }
    says = "No cap, T = 1: the shares are the shares of the examples."
    checking.equal(got[0], shares, "shares", wrong, says=says)
    says = "T = 1 without a cap: every example is seen equally often, here half a time."
    wrong = {
        "times seen: these are draws of the task. Divide by its examples.": [5.0, 500.0],
        "times seen: N is missing.": [r / e for r, e in zip(shares, (10, 1000), strict=True)],
        "times seen: it is turned round. How often is an example drawn?": [2.0, 2.0],
    }
    checking.equal(got[1], seen, "times seen", wrong, says=says)
    shares, seen = call([4, 2500], 25, 2.0, 700)
    wrong = {
        "Shares go with the power 1/T. You took T: the large task got more.": [16 / 641, 625 / 641],
        "The cap is missing: a task counts as if it had at most K examples.": [2 / 52, 50 / 52],
        "The cap comes first, then the power. You have them in the other order.": [2 / 27, 25 / 27],
        "You took the larger of size and cap. A cap is an upper limit: the smaller one.": [5 / 55, 50 / 55],
        "The temperature is missing, or a factor. Sizes go to the power 1/T.": [4 / 29, 25 / 29],
        "This is a softmax of sizes over T. Sizes go to the power 1/T.": [
            1 / (1 + math.exp(10.5)),
            1 / (1 + math.exp(-10.5)),
        ],
        "The power is applied, the sum is that of before.": [2 / 29, 5 / 29],
        "The shares go to the power 1/T, and no longer sum to 1. Divide by their sum after the power.": [
            (4 / 29) ** 0.5,
            (25 / 29) ** 0.5,
        ],
        "All shares are equal. Large tasks still get more.": [0.5, 0.5],
    }
    says = "The shares are wrong: cap first, then the power, then normalise."
    checking.equal(shares, [2 / 7, 5 / 7], "shares", wrong, says=says)
    wrong = {
        "You divided by the capped size. The cap bounds the share; all 2500 examples are still drawn from.": [
            50,
            20,
        ],
        "times seen: these are draws of the task. Divide by its examples.": [200, 500],
        "times seen: you divided by size to the power 1/T. Divide by the size.": [100, 10],
    }
    says = "times seen: draws of the task, divided by its examples."
    checking.equal(seen, [50, 0.2], "times seen", wrong, says=says)
    print("14.3 passed the visible cases.")


check_14_3(mixture)
### BEGIN HIDDEN TESTS


def by_ratios(sizes, cap, temperature, N):
    """One over the sum of all tasks' weights relative to this one's."""
    capped = [min(e, cap) for e in sizes]
    shares = []
    for mine in capped:
        odds = [(math.log(other) - math.log(mine)) / temperature for other in capped]
        shares.append(0.0 if max(odds) > 700 else 1 / sum(map(math.exp, odds)))
    return shares, [N * r / e for r, e in zip(shares, sizes, strict=True)]


def rounded(sizes, cap, temperature, N):
    shares, _ = by_ratios(sizes, cap, temperature, N)
    return shares, [round(N * r) / e for r, e in zip(shares, sizes, strict=True)]


def hidden_14_3(mixture):
    call = checking.calls(mixture)
    name = "(shares, times seen)"
    wrong = {
        "times seen: you rounded the draws of a task. This is an average, and need not be a whole number.": rounded
    }
    for case in (
        ([3, 7, 50], 20, 3.0, 100),
        ([1, 1], 5, 2.0, 8),
        ([6, 60_000, 600], 512, 1.0, 4096),
        ([12], 5, 2.0, 30),
        ([40, 3, 40, 9, 40], 17, 1.5, 1000),
        ([2, 9, 4], 1, 2.0, 6),
        ([300, 20, 7], 10**6, 1e6, 10),
        ([5, 8], math.inf, 0.5, 3),
    ):
        call.agrees(by_ratios, case, name=name, wrong=wrong, says=f"Wrong for {case}.")
    says = "A small temperature makes the power overflow. Work with logarithms, or with sizes relative to the largest."
    with checking.means(OverflowError, says), checking.means(ZeroDivisionError, says):
        call.agrees(
            by_ratios, ([10, 1000], 10**6, 0.005, 1), ([900, 30, 1000], 2000, 0.01, 7), name=name, says=says
        )


hidden_14_3(mixture)
### END HIDDEN TESTS

# %% [markdown]
# ## 14.4 Rank classification from logits
#
# > ●●●○○ · 20 minutes · graded
#
# For each option $o$ of one item you have `logits`, shape $(T, V)$, of the model on the tokens *context + option*, and
# `ids`, the $T$ tokens themselves. The first `n` of them are the context, the same for all options. Return the index of
# the option with the highest *mean* log-probability of its own tokens, the first one of equally good ones. Logits may be
# thousands apart.


# %% nbgrader={"grade_id": "answer_14_4", "solution": true}
def choose(logits, ids, n):
    """logits: list of (T, V) tensors; ids: list of lists of T ints; n: tokens of the context. Return an int."""
    ### BEGIN SOLUTION
    means = []
    for z, tokens in zip(logits, ids, strict=True):
        log_p = torch.log_softmax(z, -1)
        means.append(sum(log_p[t - 1, tokens[t]].item() for t in range(n, len(tokens))) / (len(tokens) - n))
    return max(range(len(means)), key=means.__getitem__)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_14_4", "grade": true, "points": 4, "locked": true}
def item_14_4(options, V=6, n=2, context=1.0, shift=3.0):
    """Logits that give the k-th token of option o the log-probability options[o][k], and other tokens what is left."""
    all_logits, all_ids = [], []
    for o, wanted in enumerate(options):
        ids = [0, 1, *[2 + (o + k) % (V - 2) for k in range(len(wanted))]]
        z = torch.zeros(len(ids), V, dtype=torch.float64)
        z[0, 1] = context
        for k, value in enumerate(wanted):
            p = math.exp(value)
            row = torch.full((V,), math.log((1 - p) / (V - 1)), dtype=torch.float64)
            row[ids[n + k]] = value
            z[n + k - 1] = row + shift * (o + k)  # a constant per row changes no probability
        all_logits.append(z)
        all_ids.append(ids)
    return all_logits, all_ids, n


def random_item(seed, V, n, lengths, scale=3.0):
    """An item with options of these lengths behind a context of n tokens."""
    g = torch.Generator().manual_seed(seed)
    shared = torch.randint(V, (n,), generator=g).tolist()
    ids = [shared + torch.randint(V, (size,), generator=g).tolist() for size in lengths]
    return [scale * torch.randn(len(row), V, generator=g).double() for row in ids], ids, n


def check_14_4(choose):
    call = checking.calls(choose)
    logits, ids, n = item_14_4([[-1.0], [-0.2], [-2.0], [-1.5], [-1.2]], V=8)
    logits[3][2, ids[3][2]] = 9.0  # behind the last token: nobody may read it
    first = "The first token of an option counts, too: the last token of the context predicts it."
    with checking.means(ZeroDivisionError, first), checking.means(IndexError, first):
        got = call(logits, ids, n)
    checking.form(got, 1, "the index")
    wrong = {
        first: 0,
        "This is the *least* probable option. The highest log-probability wins.": 2,
        "The logits at t predict the token at t + 1. You read each token at its own place.": 3,
        "You compared raw logits. Only log_softmax makes log-probabilities of them.": 4,
    }
    says = "Five options of one token: log-probabilities -1.0, -0.2, -2.0, -1.5, -1.2."
    checking.equal(got, 1, "the index", wrong, says=says)
    got = call(*item_14_4([[-1.0], [-0.5] * 3, [-0.45] * 6]))
    wrong = {
        "You compared sums. A longer option has a smaller sum by its length alone: divide by its tokens.": 0,
        "You divide by more than the option's own tokens. The context's are the same for all, and no part of it.": 1,
    }
    checking.equal(got, 2, "the index", wrong, says="Options of one, three and six tokens.")
    says = "The context's tokens seem to count. All options share them, but divided by a length they differ."
    checking.equal(call(*item_14_4([[-0.5], [-0.6, -0.6, -0.6]], context=-5.0)), 0, "the index", says=says)
    says = "The mean over the tokens is compared, not the best or the worst token."
    options = [[-0.9] * 4, [-0.7, -0.2, -1.2, -0.7], [-0.7, -0.1, -3.1, -0.7]]
    checking.equal(call(*item_14_4(options)), 1, "the index", says=says)
    says = "The mean of the *logarithms* is compared, not that of the probabilities."
    checking.equal(call(*item_14_4([[-1.1, -0.02, -4.0, -1.1], [-1.0] * 4])), 1, "the index", says=says)
    says = "The first token of an option counts, too: the last token of the context predicts it."
    checking.equal(call(*item_14_4([[-3.0, -0.1], [-1.0, -1.2]])), 1, "the index", says=says)
    says = "The last token of an option counts, too: it is predicted, though nobody reads it."
    checking.equal(call(*item_14_4([[-0.1, -3.0], [-0.6, -0.7]])), 1, "the index", says=says)
    print("14.4 passed the visible cases.")


check_14_4(choose)
### BEGIN HIDDEN TESTS


def by_tokens(logits, ids, n):
    """Token by token, in Python's numbers."""
    best = []
    for z, row in zip(logits, ids, strict=True):
        terms = []
        for t in range(n, len(row)):
            scores = z[t - 1].tolist()
            rest = sum(math.exp(s - max(scores)) for s in scores)
            terms.append(scores[row[t]] - max(scores) - math.log(rest))
        best.append(sum(terms) / len(terms))
    return best.index(max(best))


def hidden_14_4(choose):
    call = checking.calls(choose)
    cases = [
        item_14_4([[-1.0, -1.0], [-0.9, -1.3], [-0.2, -0.4, -1.8]]),
        item_14_4([[-0.7, -0.8, -0.9], [-0.85], [-2.5, -0.1, -0.1]]),
        item_14_4([[-0.3, -2.0], [-1.1], [-1.2, -1.2, -1.2]]),
    ]
    call.agrees(by_tokens, *cases, name="the index", says="Three options of several tokens.")
    says = "Of equal options the first one is chosen."
    checking.equal(call(*item_14_4([[-0.5], [-0.5]], context=0.0, shift=0.0)), 0, "the index", says=says)
    for n in (1, 3, 5):
        items = [random_item(seed, 4 + n, n, [1 + (seed * o + n) % 4 for o in range(3)]) for seed in range(2)]
        call.agrees(by_tokens, *items, name="the index", says=f"A context of {n} tokens.")
    for far in (200.0, 2000.0):
        items = [random_item(seed, 7, 2, [3, 1, 2], far) for seed in range(2)]
        says = f"Logits {far:g} apart: the logarithm of a softmax is -inf there. Use log_softmax."
        call.agrees(by_tokens, *items, name="the index", says=says)
    says = "All options are very improbable. Start from minus infinity or from the first option, not from a number."
    checking.equal(call(*item_14_4([[-3e5], [-1.5e5], [-2e5]])), 1, "the index", says=says)
    says = "Options that differ by a ten-thousandth are not equal. Do not round before you compare."
    checking.equal(call(*item_14_4([[-0.5002], [-0.5001]])), 1, "the index", says=says)
    call.agrees(by_tokens, random_item(1, 3, 2, [2]), name="the index", says="A single option.")


hidden_14_4(choose)
### END HIDDEN TESTS

# %% [markdown]
# ## 14.5 Plan a held-out study
#
# > ●●○○○ · 8 minutes · practice · prediction
#
# You have 10 training clusters of 2 tasks each, and 3 held-out tasks with 2, 4 and 4 options, 16 items each. The total is
# fixed at 96 training examples, the same number for every task of an arm. Predict with pencil and paper:
#
# - `per_task_1`: examples of each task when one cluster is trained;
# - `per_task_8`: the same for eight clusters;
# - `chance`: the mean accuracy of guessing over the 3 held-out tasks;
# - `fair`: 1 if it is fair to train on paraphrase tasks ("do these sentences mean the same?") when a held-out task asks
#   whether one sentence follows from another, else 0;
# - `rows`: 1 if holding out *other rows of a trained task* measures generalisation to new instructions, else 0.


# %% nbgrader={"grade_id": "answer_14_5", "solution": true}
def prediction():
    """Return a dict of five numbers: per_task_1, per_task_8, chance, fair, rows."""
    ### BEGIN SOLUTION
    return {"per_task_1": 48, "per_task_8": 6, "chance": 1 / 3, "fair": 0, "rows": 0}
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_14_5", "locked": true}
def check_14_5(prediction):
    mine = checking.predicted(prediction, ("per_task_1", "per_task_8", "chance", "fair", "rows"))
    wrong = {
        "per_task_1: one cluster holds two tasks. Each gets half of the 96.": 96,
        "per_task_1: only the trained cluster shares the 96 examples, not all ten.": 9.6,
        "per_task_1: only the trained cluster's two tasks share the 96 examples, not all twenty.": 4.8,
        "per_task_1: the total is fixed for the arm, not for a task.": 192,
        "per_task_1: held-out tasks get no training example.": 32,
    }
    says = "per_task_1: one cluster holds two tasks, and they share 96 examples."
    checking.equal(mine["per_task_1"], 48, "per_task_1", wrong, says=says)
    wrong = {
        "per_task_8: then the arm has 768 examples. More clusters *and* more examples: you could not tell which "
        "one helped.": 48,
        "per_task_8: eight clusters, but sixteen tasks.": 12,
        "per_task_8: each task has 96 examples then. The total is fixed at 96.": 96,
        "per_task_8: this is the total of another arm. The total is fixed at 96.": 768,
        "per_task_8: only the trained clusters share the 96 examples, not all ten.": 4.8,
    }
    says = "per_task_8: eight clusters hold sixteen tasks, and they share 96 examples."
    checking.equal(mine["per_task_8"], 6, "per_task_8", wrong, says=says)
    wrong = {
        "chance: you divided 3 tasks by 10 options. Average the three chances, not the numbers of options.": 3
        / 10,
        "chance: a share from 0 to 1, not a percentage.": 100 / 3,
        "chance: that is the chance of one task. Average all three.": 1 / 4,
        "chance: that is the chance of the first task. Average all three.": 1 / 2,
        "chance: that is the sum. Average the three chances.": 1.0,
        "chance: you average two chances. Two tasks have four options: count each.": 3 / 8,
        "chance: that is a number of items. A share, from 0 to 1.": 16,
        "chance: that is a product: guessing right in all three.": 1 / 32,
    }
    says = "chance: the mean of 1/2, 1/4 and 1/4."
    checking.equal(mine["chance"], 1 / 3, "chance", wrong, tol=0.015, says=says)
    wrong = {"fair: two sentences that mean the same follow from each other. The tasks are close kin.": 1}
    checking.equal(mine["fair"], 0, "fair", wrong, says="fair: 0 or 1.")
    wrong = {"rows: their instruction was trained. That measures new inputs, not new instructions.": 1}
    checking.equal(mine["rows"], 0, "rows", wrong, says="rows: 0 or 1.")
    print("14.5 passed.")


check_14_5(prediction)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Write the number of tasks of each arm first.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Guessing between two options is right half of the time.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 14.6 Teach a small decoder to answer and to stop
#
# > ●●●●○ · 60 minutes · graded
#
# `pretrained(seed)` trains a decoder from scratch in two seconds. It has read one kind of sentence: some chatter, a place
# word, four letters, one of several marks, then the letter at that place, and a dot. So it knows what *third* means. It has
# never seen an instruction. Now tune it. An instruction is `ASK`, chatter, a place word, four letters, `SAY`; the answer is
# one letter, and then the text ends with `END`. Write
#
# `tune(net, examples, held_out, seed) -> net`
#
# - `net` is the decoder. `net(ids, blocks)`, both (rows, T) int64, gives logits (rows, T, `SIZE`). A place sees itself and
#   the earlier places of its row that have the same number in `blocks`. Change the net in place, and return it.
# - `examples` is a list of dicts: `word` (a name of `NAMES`), `prompt` (ids, up to and with `SAY`) and `answer` (one id,
#   without `END`), sixty for each word, word by word. The id of `END` is 0; put it where a row must be filled, too.
# - `held_out` is a word. It and its twin, the other word for the same place, are what the model is tested on, so neither may
#   be in a row that you train on.
# - Texts must not see each other: in a row, each text has a number of its own in `blocks`.
# - You have `BUDGET` places: each call with gradient costs rows times T, padding included, and without gradient nothing. A
#   call beyond it raises `OverBudget`. `seed` is for your draws.
#
# The checker tunes for three held-out words and wants, on average: $0.88$ of the answers to the trained words right *and*
# followed by `END`; $0.75$ of those to the held-out word and its twin; and $0.85$ of the sentences of the old kind still
# completed with the right letter. Mask what has the id of padding, and no answer ends. Who trains on all tokens gets
# about half of the answers right, or fewer. The hidden cases hold out other words, with lower bars.


# %%
END, ASK, SAY, DOT, PLACES, BUDGET = 0, 1, 2, 3, 4, 3000
NAMES = "first front second next third later last end".split()  # two words for each of four places
WORD, LETTER, CHAT, MARK, SIZE = (
    4,
    12,
    20,
    28,
    34,
)  # where the ids begin: 8 words, 8 letters, 8 chatter tokens, 6 marks
TWIN = {name: NAMES[k ^ 1] for k, name in enumerate(NAMES)}


class OverBudget(Exception):
    """More places were asked for than are left."""


class Decoder(nn.Module):
    """Two layers of attention with rotary positions. ``left``: places that may be trained on; None: as many as you like."""

    def __init__(self, width=32, layers=2, heads=2):
        super().__init__()
        self.heads, self.left, self.log = heads, None, []
        self.E = nn.Parameter(0.3 * torch.randn(SIZE, width))
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width, bias=False) for _ in range(layers))
        self.out = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(layers))
        self.up = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(layers))
        self.down = nn.ModuleList(nn.Linear(3 * width, width) for _ in range(layers))

    def forward(self, ids, blocks):
        if torch.is_grad_enabled() and self.left is not None:
            if ids.numel() > self.left:
                raise OverBudget(f"{ids.numel()} places, {self.left} are left")
            self.left -= ids.numel()
            self.log.append((ids.clone(), blocks.clone()))
        seen = (blocks[:, :, None] == blocks[:, None, :]).tril()[:, None]
        h, d = self.E[ids], self.E.shape[1] // self.heads
        angle = torch.arange(ids.shape[1])[:, None] * 10.0 ** (-4 * torch.arange(d // 2) / d)

        def turned(v):
            a, b = v.chunk(2, -1)
            return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)

        for qkv, out, up, down in zip(self.qkv, self.out, self.up, self.down, strict=True):
            q, k, v = qkv(F.rms_norm(h, h.shape[-1:])).unflatten(2, (3, self.heads, d)).permute(2, 0, 3, 1, 4)
            h = h + out(
                F.scaled_dot_product_attention(turned(q), turned(k), v, seen).transpose(1, 2).flatten(2)
            )
            h = h + down(F.gelu(up(F.rms_norm(h, h.shape[-1:]))))
        return F.rms_norm(h, h.shape[-1:]) @ self.E.T


def sentences(n, chatter, g):
    """Sentences of the old kind, ids (n, T): chatter, word, four letters, mark, letter, dot."""
    letters = LETTER + torch.rand(n, 8, generator=g).argsort(1)[:, :PLACES]
    word = torch.randint(2 * PLACES, (n, 1), generator=g)
    chat, mark = torch.randint(8, (n, chatter), generator=g), torch.randint(6, (n, 1), generator=g)
    parts = [
        CHAT + chat,
        WORD + word,
        letters,
        MARK + mark,
        letters.gather(1, word // 2),
        torch.full((n, 1), DOT),
    ]
    return torch.cat(parts, 1)


@functools.cache
def pretrained(seed, steps=210):
    """A decoder that has read sentences. It is kept: copy it before you change it."""
    torch.manual_seed(seed)
    g, net = torch.Generator().manual_seed(seed), Decoder()
    optimizer = torch.optim.AdamW(net.parameters())
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 5e-3 * min(1, 2 - 2 * step / steps)
        ids = sentences(64, step % 4, g)
        z = net(ids, torch.ones_like(ids))[:, -3:-1]  # the letter and the dot
        optimizer.zero_grad()
        F.cross_entropy(z.flatten(0, 1), ids[:, -2:].flatten()).backward()
        optimizer.step()
    return net


def asked(names, each, g):
    """Examples: ``each`` instructions for each of the words."""
    found = []
    for name in names:
        place = NAMES.index(name) // 2
        for letters in (LETTER + torch.rand(each, 8, generator=g).argsort(1)[:, :PLACES]).tolist():
            length = min(24, int(-6 * torch.rand(1, generator=g).log()))
            chat = (CHAT + torch.randint(8, (length,), generator=g)).tolist()
            prompt = [ASK, *chat, WORD + NAMES.index(name), *letters, SAY]
            found.append({"word": name, "prompt": prompt, "answer": [letters[place]]})
    return found


def score(net, examples):
    """Shares of the answers: right and ended, right letter, ended."""
    lengths = torch.tensor([len(e["prompt"]) for e in examples])
    answers, ids = torch.tensor([e["answer"][0] for e in examples]), torch.full((len(examples), 34), END)
    for row, e in zip(ids, examples, strict=True):
        row[: len(e["prompt"]) + 1] = torch.tensor([*e["prompt"], *e["answer"]])
    with torch.no_grad():
        z = net(ids, torch.ones_like(ids)).argmax(-1)
    place = torch.arange(len(examples))
    right, ended = z[place, lengths - 1] == answers, z[place, lengths] == END
    return [hit.double().mean().item() for hit in (right & ended, right, ended)]


# %% nbgrader={"grade_id": "answer_14_6", "solution": true}
def tune(net, examples, held_out, seed):
    """Tune the net within its budget of places, and return it."""
    ### BEGIN SOLUTION
    draw = random.Random(seed)
    texts = [e for e in examples if e["word"] not in (held_out, TWIN[held_out])]
    draw.shuffle(texts)
    rows, width = [], 64
    row = []
    for e in texts:  # whole texts, as many as fit
        if sum(len(t["prompt"]) + 2 for t in row) + len(e["prompt"]) + 2 > width:
            rows.append(row)
            row = []
        row.append(e)
    updates = net.left // (2 * width)
    optimizer = torch.optim.AdamW(net.parameters())
    for update in range(updates):
        ids, blocks = torch.full((2, width), END), torch.zeros(2, width, dtype=torch.int64)
        labels = torch.full((2, width), -100)
        for r, chosen in enumerate(draw.choices(rows, k=2)):
            at = 0
            for number, e in enumerate(chosen, 1):
                answer = [*e["answer"], END]
                n = len(e["prompt"]) + len(answer)
                ids[r, at : at + n] = torch.tensor([*e["prompt"], *answer])
                blocks[r, at : at + n] = number
                labels[r, at + n - 2 : at + n] = torch.tensor(answer)
                at += n
        optimizer.param_groups[0]["lr"] = 2.5e-3 * (1 - 0.7 * update / updates)
        z = net(ids, blocks)[:, :-1]
        loss = F.cross_entropy(z.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_14_6", "grade": true, "points": 5, "locked": true}
def prompt_loss(net, examples):
    """Mean loss of the prompts' own tokens, the first one left out: how well the net would write prompts."""
    total, count = 0.0, 0
    with torch.no_grad():
        for e in examples[:40]:
            ids = torch.tensor([e["prompt"]])
            z = net(ids, torch.ones_like(ids))[0, :-1]
            total, count = (
                total + F.cross_entropy(z, ids[0, 1:], reduction="sum").item(),
                count + len(ids[0]) - 1,
            )
    return total / count


def audit(log, held_out):
    """What was trained on: refuses held-out words and texts that see each other. Return the share of padding."""
    banned = {WORD + NAMES.index(name): name for name in (held_out, TWIN[held_out])}
    texts = places = 0
    for ids, blocks in log:
        for token, name in banned.items():
            why = (
                "is held out"
                if name == held_out
                else f"is the twin of {held_out!r}: both ask for the same place"
            )
            assert not (ids == token).any(), (
                f"A row that you train on asks for {name!r}, and that word {why}."
            )
        for row, block in zip((ids == ASK).int(), blocks, strict=True):
            for number in block[row == 1].unique():
                assert int(row[block == number].sum()) == 1, (
                    "Two texts have the same number in a row of blocks: the second one reads the first, and nobody will "
                    "put a stranger's text before the prompt in use."
                )
        ends = (ids == END).sum().item()
        texts, places = texts + (ids == ASK).sum().item(), places + ids.numel() - ends
    return 1 - (places + texts) / max(1, sum(ids.numel() for ids, _ in log))


def one_tuning(tune, base, held_out, seed):
    """The tuned net, and its share of unused places and of padding."""
    call = checking.calls(tune, limit=60.0, slow="A tuning takes about half a second.", changes=("net",))
    net, examples = copy.deepcopy(base), asked(NAMES, 60, torch.Generator().manual_seed(seed))
    net.left, over = (
        BUDGET,
        f"More than {BUDGET} places were trained on. Padding counts; net.left says what is left.",
    )
    with checking.means(OverBudget, over):
        got = call(net, examples, held_out, seed)
    assert got is net, "Change the net that you are given in place, and return it."
    used = sum(ids.numel() for ids, _ in net.log)
    assert net.left == BUDGET - used, (
        "net.left and net.log are the checker's counters: leave them as they are."
    )
    padding, left, net.left = audit(net.log, held_out), net.left / BUDGET, None
    assert all(p.isfinite().all() for p in net.parameters()), (
        "A weight is no longer a number: the steps are too large."
    )
    return net, left, padding


def tunings(tune, seed, words):
    """Mean of: held out, trained, their ends, old sentences, unused share, padding, the prompts' own loss, move."""
    torch.manual_seed(seed)
    for held_out in words:  # an untrained net is enough to see what it would be trained on
        one_tuning(tune, Decoder(), held_out, seed)
    base, found = pretrained(seed), []
    for k, held_out in enumerate(words):
        net, left, padding = one_tuning(tune, base, held_out, 100 * seed + k)
        g, pair = torch.Generator().manual_seed(1000 * seed + k), (held_out, TWIN[held_out])
        new, known = asked(pair, 60, g), asked([name for name in NAMES if name not in pair], 30, g)
        old = sentences(200, 2, g)
        moved = [(p - q).norm() / q.norm() for p, q in zip(*map(_weights, (net, base)), strict=True)]
        with torch.no_grad():
            kept = (net(old, torch.ones_like(old))[:, -3].argmax(-1) == old[:, -2]).double().mean().item()
        seen, move = score(net, known), sum(moved).item() / len(moved)
        found.append(
            [score(net, new)[0], seen[0], seen[2], kept, left, padding, prompt_loss(net, known), move]
        )
    return [sum(column) / len(found) for column in zip(*found, strict=True)]


def _weights(net):
    return [p.detach() for p in net.parameters()]


def judge_14_6(tune, seed, words, bars=(0.75, 0.88, 0.85)):
    new, known, ended, old, left, padding, wrote, moved = tunings(tune, seed, words)
    if all(value >= bar for value, bar in zip((new, known, old), bars, strict=True)):
        return new, known, old
    parts = zip(("Held-out words", "trained words", "old sentences"), (new, known, old), bars, strict=True)
    told = ", ".join(f"{name} {value:.2f} ({bar} wanted)" for name, value, bar in parts) + "."
    assert left < 0.3, f"{told} {left:.0%} of the places are left."
    assert wrote > 4.5, (
        f"{told} The prompts were learned: the loss of their own tokens is {wrote:.1f} nats. Most of what you label is "
        "chatter and random letters; two tokens a text are what you want."
    )
    assert moved > 0.05, (
        f"{told} Hardly a weight has moved: by {moved:.1%} of its size. A budget of places wants larger steps."
    )
    assert ended > 0.3, (
        f"{told} The answers do not end. END never had a label, or hardly ever: its id is also that of padding, so a mask by "
        "id loses both. Mask by length."
    )
    assert old >= bars[2], f"{told} What was known before is lost. The steps are too large."
    assert padding < 0.5, (
        f"{told} {padding:.0%} of your places are padding: several texts a row, or rows of about one length."
    )
    raise AssertionError(
        f"{told} How many different texts did you train on, and how often was each word asked for? How large were the steps?"
    )


def check_14_6(tune):
    new, known, old = judge_14_6(tune, 1, ("first", "third", "last"))
    print(
        f"14.6 passed the visible cases: held-out words {new:.2f}, trained words {known:.2f}, old sentences {old:.2f}."
    )


check_14_6(tune)
### BEGIN HIDDEN TESTS


def hidden_14_6(tune):
    judge_14_6(tune, 1, ("next", "end"), (0.5, 0.8, 0.75))


hidden_14_6(tune)
### END HIDDEN TESTS

# %% [markdown]
# ## 14.7 Project: C6 once more, so that it can be decided
#
# > ●●●●● · 180 minutes · practice
#
# The lesson's claim C6 says that more clusters help, at a fixed number of examples. Its grid had one weakness: with the
# clusters grew the number of *different instructions*. Redesign it: examples and instructions are fixed, only the number of
# clusters varies. First a plan with its power, then the run, in a small language whose answers a program computes.
# `study()` returns a dict with exactly these keys. The plan, written before the run:
#
# - `claim`: a sentence that can turn out false, at least $40$ characters. `arms`: a dict from at least three names to
#   different numbers of training clusters. The seed draws which clusters these are, and which are held out.
# - `trials`: a dict from each arm to the number of settings that were tried for it, all equal. `tuning_seeds`: at least
#   three.
# - `pilot`: a dict from at least five seeds to the slope (below) that you found there. `effect`: the smallest slope that
#   would change what somebody does, above 0. (If it differs from the pilot's mean by less than $3\,\%$ of that mean,
#   it counts as copied.) `reason`: why, at least $40$ characters.
# - `seeds`: at least ten; none of them in `pilot` or in `tuning_seeds`, no seed twice.
# - `power`: the chance that a slope of `effect` is found by a two-sided t test at $0.05$, with the error $s / \sqrt k$ of $k$
#   seeds, $s$ the standard deviation of the pilot (with $n - 1$): `intervals.power_of_t(effect, error, k - 1)`. It must
#   be $0.8$ or more; yours may differ by $0.01$ from what this formula gives.
#
# The run:
#
# - `score`: a dict from each arm to its accuracies on held-out clusters, shares, one for each seed. `permuted`: the same
#   for a control, the largest arm with permuted answers (in the language of the start permute the *places*, so that each
#   answer still stands in its square). `chance`: the share that a guess without the instruction gets.
# - `slopes`: for each seed the least-squares slope of the arms' scores on $\log_2$ of their numbers of clusters: what one
#   doubling adds. `mean`, `low`, `high`: of the slopes, with their t interval at $0.95$. The unit is the **seed**: the arms
#   of one seed are not independent.
# - `verdict`: `"refuted"` if the whole interval lies below `effect` (too small to matter, or harmful); else `"supported"`
#   if it lies above 0; else `"undecided"`.
#
# And the first seed in full, so that a program can look:
#
# - `training`: a dict from each arm to its list of triples (instruction, input, answer), three strings. All arms have equally
#   many, and equally many different instructions. `items`: the list of test pairs (instruction, input). `said`: a dict from
#   each arm to the answers that it gave, in the order of `items`.
# - `cluster`: a function from an instruction to its cluster. `truth`: a function from (instruction, input) to the answer.
#
# The checker executes `truth` on all training examples and items, counts clusters and instructions, and recomputes every
# number. The control may not surely lie above chance (its t interval at $0.95$, by more than $0.02$): then the items can be
# answered without the tuning. A person reads the rest with this rubric (0, 1 or 2 points a row; 9 of 14 pass):
#
# | | 0 | 1 | 2 |
# |:--|:--|:--|:--|
# | claim | cannot fail | can fail | names learner, language, total, measure, direction |
# | effect | a habit | a reason | a cost is compared with a gain: somebody would act differently |
# | held out | other rows of trained clusters | other clusters | and what resembles them is held out, too |
# | fixed | examples only | examples and instructions | and somebody else counted them |
# | controls | none | permuted answers | and untrained; what each excludes; the smallest arm against chance |
# | run | changed after a look | as planned | as planned; deviations told, the rest called exploratory |
# | ending | "diversity helps" | a verdict | for this language and learner; what another one might show |
#
# The cell below is a start: a language about a square of nine letters, and a small learner, many networks at once. Its
# instructions name a row and a column, in four wordings each. Take it, change it, or make your own.


# %%
ROWS = ("top upper highest uppermost", "middle halfway second between", "bottom lower lowest nethermost")
COLUMNS = ("left leftmost western port", "central mid inner medial", "right rightmost eastern starboard")
ROW_OF = {word: k for k, words in enumerate(ROWS) for word in words.split()}
COLUMN_OF = {word: k for k, words in enumerate(COLUMNS) for word in words.split()}


def cell_of(instruction):
    """The cluster of an instruction such as "upper left": a place in the square, 0 to 8."""
    row, column = instruction.split()
    return 3 * ROW_OF[row] + COLUMN_OF[column]


def answer_of(instruction, square):
    """square: nine different letters, row by row."""
    return square[cell_of(instruction)]


def learned(trainings, tests, rate=0.1, steps=60):
    """Train one network on each list of triples, and return its answers to the pairs of ``tests`` (one list each).

    The lists of ``trainings`` are equally long, and so are those of ``tests``.

    A network gives each word six numbers, one for each row and one for each column of the square. It adds those of the two
    words; a place gets the number of its row and that of its column; a softmax over the nine places points at one.
    """
    rows, columns = ({word: k for k, word in enumerate(table)} for table in (ROW_OF, COLUMN_OF))

    def places(sets):
        pairs = [[e[0].split() for e in each] for each in sets]
        return [
            torch.tensor([[at[p[k]] for p in each] for each in pairs]) for k, at in ((0, rows), (1, columns))
        ]

    U, V = (torch.zeros(len(trainings), 12, 6, requires_grad=True) for _ in "ab")
    net, (r, c) = torch.arange(len(trainings))[:, None], places(trainings)

    def scores(r, c):
        six = U[net, r] + V[net, c]
        return (six[..., :3, None] + six[..., None, 3:]).flatten(-2)

    goal = torch.tensor([[square.index(answer) for _, square, answer in each] for each in trainings])
    adam = torch.optim.Adam((U, V), lr=rate)
    for _ in range(steps):
        adam.zero_grad()
        F.cross_entropy(scores(r, c).flatten(0, 1), goal.flatten(), reduction="sum").backward()
        adam.step()
    with torch.no_grad():
        ties = 1e-6 * torch.tensor([3.0, 1, 4, 8, 5, 9, 2, 6, 7])
        found = (scores(*places(tests)) + ties).argmax(-1).tolist()
    return [
        [square[k] for k, (_, square) in zip(row, each, strict=True)]
        for row, each in zip(found, tests, strict=True)
    ]


# %% nbgrader={"grade_id": "answer_14_7", "solution": true}
def study():
    """Return the dict of the three lists."""
    ### BEGIN SOLUTION
    arms, wordings, total = {"two": 2, "four": 4, "seven": 7}, 28, 112
    letters = "abcdefghijklmnop"

    def world(seed):
        """The training set of each arm, and the items: clusters, wordings and squares are drawn by the seed."""
        dice = random.Random(seed)
        cells = dice.sample(range(9), 9)
        held_out, open_ = cells[:2], cells[2:]
        all_wordings = [f"{row} {column}" for row in ROW_OF for column in COLUMN_OF]

        def square():
            return "".join(dice.sample(letters, 9))

        training = {}
        for name, many in arms.items():
            asked = []
            for cell in open_[:many]:
                of_cell = [each for each in all_wordings if cell_of(each) == cell]
                asked += dice.sample(of_cell, wordings // many)
            examples = [(text, square()) for text in asked for _ in range(total // wordings)]
            training[name] = [(text, grid, answer_of(text, grid)) for text, grid in examples]
        items = [(each, square()) for _ in range(4) for each in all_wordings if cell_of(each) in held_out]
        return training, items

    def scores(seeds, rate=0.1, permute=False):
        """Accuracies of each arm, one a seed, and the answers of the first seed."""
        worlds, found, said = [world(seed) for seed in seeds], {}, {}
        for name in ["seven"] if permute else arms:
            trainings = [training[name] for training, _ in worlds]
            if permute:  # the answer keeps being a letter of its square, at another example's place
                turned = [random.Random(k).sample(each, len(each)) for k, each in enumerate(trainings)]
                trainings = [
                    [
                        (a, grid, grid[other.index(answer)])
                        for (a, grid, _), (_, other, answer) in zip(each, turn, strict=True)
                    ]
                    for each, turn in zip(trainings, turned, strict=True)
                ]
            answers = learned(trainings, [items for _, items in worlds], rate)
            found[name] = [
                sum(answer_of(*item) == word for item, word in zip(items, words, strict=True)) / len(items)
                for (_, items), words in zip(worlds, answers, strict=True)
            ]
            said[name] = answers[0]
        return found, said, worlds[0]

    def slopes_of(found):
        x = torch.tensor([float(n) for n in arms.values()]).log2().double()
        y = torch.tensor([found[name] for name in arms], dtype=torch.float64)
        x = x - x.mean()
        return (x @ y / x.square().sum()).tolist()

    tuning_seeds = [0, 1, 2]
    rate = max((0.03, 0.1, 0.3), key=lambda rate: sum(map(sum, scores(tuning_seeds, rate)[0].values())))
    pilot_seeds, seeds = list(range(10, 16)), list(range(100, 112))
    pilot = dict(zip(pilot_seeds, slopes_of(scores(pilot_seeds, rate)[0]), strict=True))
    spread = torch.tensor(list(pilot.values()), dtype=torch.float64).std().item()
    effect = 0.1
    score, said, (training, items) = scores(seeds, rate)
    slopes = slopes_of(score)
    found = intervals.t_interval(slopes)
    return {
        "claim": "With 112 examples and 28 instructions, each doubling of the number of clusters raises the accuracy of the "
        "additive learner on held-out places of the square.",
        "arms": arms, "trials": dict.fromkeys(arms, 3), "tuning_seeds": tuning_seeds, "pilot": pilot, "effect": effect,
        "reason": "Somebody must write the instructions of each new cluster by hand. For less than ten of a hundred answers "
        "nobody here would do that.",
        "seeds": seeds, "power": intervals.power_of_t(effect, spread / len(seeds) ** 0.5, len(seeds) - 1), "score": score,
        "permuted": scores(seeds, rate, permute=True)[0]["seven"], "chance": 1 / 9, "slopes": slopes, "mean": found.mean,
        "low": found.low, "high": found.high, "training": training, "items": items, "said": said, "cluster": cell_of,
        "truth": answer_of,
        "verdict": "refuted" if found.high < effect else "supported" if found.low > 0 else "undecided",
    }  # fmt: skip
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_14_7", "locked": true}
STUDY = (
    "claim arms trials tuning_seeds pilot effect reason seeds power score permuted chance slopes mean low high verdict "
    "training items said cluster truth"
).split()


def check_plan(mine):
    """The plan's part: sizes, seeds, effect, power."""
    for key in ("claim", "reason"):
        assert isinstance(mine[key], str) and len(mine[key].strip()) >= 40, (
            f"{key}: a text of at least 40 characters."
        )
    arms, pilot, seeds = mine["arms"], mine["pilot"], list(mine["seeds"])
    assert len(set(arms.values())) == len(arms) >= 3, (
        "arms: at least three, with different numbers of clusters."
    )
    assert set(mine["trials"]) == set(arms), "trials: one entry for each arm."
    assert len(set(mine["trials"].values())) == 1, (
        "trials: the arm that was tried more often wins by that alone."
    )
    assert len(set(mine["tuning_seeds"])) == len(mine["tuning_seeds"]) >= 3, (
        "tuning_seeds: at least three, no two alike."
    )
    assert isinstance(pilot, dict) and len(pilot) >= 5, (
        "pilot: a dict from at least five seeds to their slopes."
    )
    assert len(set(seeds)) == len(seeds) >= 10, "seeds: at least ten, no two alike."
    seen = sorted(set(seeds) & (set(pilot) | set(mine["tuning_seeds"])))
    assert not seen, (
        f"seeds: {seen} were looked at before the plan. They made you choose it, so they cannot judge it."
    )
    x, effect, k = torch.tensor(list(pilot.values()), dtype=torch.float64), float(mine["effect"]), len(seeds)
    assert x.std() > 1e-9, "pilot: all slopes are equal. Something is not drawn anew."
    assert effect > 0, "effect: above 0."
    mean, s = abs(x.mean().item()), x.std().item()
    assert abs(effect - mean) >= 0.03 * mean, (
        f"effect: {effect:g} is fitted to the pilot, whose mean is {mean:.3g}. What matters does not follow from what was "
        "found."
    )

    def power(spread=s, size=effect, runs=k, sides=2):
        return intervals.power_of_t(size, spread / runs**0.5, k - 1, sides)

    known = {
        "power: the error of the mean of k seeds is s divided by the root of k.": power(runs=1),
        "power: a two-sided test is asked for. One side looks stronger.": power(sides=1),
        "power: that is the power for the effect which the pilot found. Compute it for the smallest that matters.": power(
            size=mean
        ),
        "power: the pilot's standard deviation has n − 1 in it.": power(x.std(correction=0).item()),
    }
    checking.near(mine["power"], power(), "power", known, room=0.01)
    assert power() >= 0.8, (
        f"power: {power():.2f}. The study would often end undecided: more seeds, or a larger effect."
    )


def check_language(mine):
    """The first seed in full: executed, counted."""
    arms, training, items = mine["arms"], mine["training"], [tuple(item) for item in mine["items"]]
    assert set(training) == set(mine["said"]) == set(mine["score"]) == set(arms), (
        "training, said, score: the arms are their keys."
    )
    cluster, truth = checking.calls(mine["cluster"]), checking.calls(mine["truth"])
    tested, asked = {cluster(text) for text, _ in items}, {text for text, _ in items}
    for name, many in arms.items():
        of = {cluster(text) for text, _, _ in training[name]}
        assert not of & tested, (
            f"training[{name!r}]: clusters {sorted(of & tested)} are tested, too. Then nothing is held out."
        )
        assert not {text for text, _, _ in training[name]} & asked, (
            f"training[{name!r}]: an instruction of the test is in it."
        )
        assert len(of) == many, f"training[{name!r}]: {len(of)} clusters, and the plan says {many}."
        for text, given, answer in training[name]:
            right = truth(text, given)
            assert answer == right, f"training[{name!r}]: {text!r} of {given!r} is {right!r}, not {answer!r}."
    sizes = {name: len(each) for name, each in training.items()}
    assert len(set(sizes.values())) == 1, f"training: {sizes} examples. Who has more wins by that alone."
    kinds = {name: len({text for text, _, _ in each}) for name, each in training.items()}
    assert len(set(kinds.values())) == 1, (
        f"training: {kinds} different instructions. With the clusters grows the number of wordings: that was the weakness."
    )
    for name in arms:
        assert len(mine["said"][name]) == len(items) > 0, f"said[{name!r}]: one answer for each item."
        hits = [truth(*item) == word for item, word in zip(items, mine["said"][name], strict=True)]
        checking.near(
            mine["score"][name][0],
            sum(hits) / len(hits),
            f"score[{name!r}], first seed, by its own answers",
            {},
            room=1e-6,
        )


def check_14_7(study):
    mine = checking.handed_in(study, STUDY, limit=240.0)
    check_plan(mine)
    check_language(mine)
    arms, k = mine["arms"], len(mine["seeds"])
    y = torch.tensor([list(mine["score"][name]) for name in arms], dtype=torch.float64)
    assert y.shape == (len(arms), k), f"score: {k} numbers for each arm, one a seed."
    assert ((y >= 0) & (y <= 1)).all(), "score: an accuracy is a share from 0 to 1."
    control = intervals.t_interval(list(mine["permuted"]))
    assert len(mine["permuted"]) == k, f"permuted: {k} numbers, one a seed."
    assert control.low <= mine["chance"] + 0.02, (
        f"permuted: {control} against chance {mine['chance']:.3f}. With permuted answers nothing can be learned but their "
        "frequencies: what else do the items give away?"
    )
    numbers = torch.tensor([float(n) for n in arms.values()], dtype=torch.float64)

    def slopes(x):
        x = x - x.mean()
        return x @ y / x.square().sum()

    x = numbers.log2()
    right, ends = slopes(x), [numbers.argmin(), numbers.argmax()]
    known = {
        "slopes: that is the slope for each further cluster. For each doubling: the logarithm to the base 2.": slopes(
            numbers
        ),
        "slopes: that is the natural logarithm. For each doubling it is the base 2.": slopes(numbers.log()),
        "slopes: the largest arm minus the smallest. The slope uses all arms, and counts doublings.": y[
            ends[1]
        ]
        - y[ends[0]],
        "slopes: the sign is turned round.": -right,
    }
    got = torch.tensor([float(slope) for slope in mine["slopes"]], dtype=torch.float64)
    checking.equal(got, right, "slopes", known, tol=1e-6)
    found = intervals.t_interval(right.tolist())
    checking.near(mine["mean"], found.mean, "mean", room=1e-6)
    centred = (x - x.mean())[:, None].expand_as(y)
    rest = y - y.mean() - found.mean * centred
    pooled = (rest.square().sum() / (y.numel() - 2) / centred.square().sum()).sqrt().item()
    error = right.std().item() / k**0.5
    wide = (found.high - found.mean) / error
    known = {
        "low: that is a regression over all arms and seeds as if they were independent runs. One slope a seed.": found.mean
        - 1.96 * pooled,
        "low: that is a regression over all arms and seeds as if they were independent runs. One slope a seed. ": found.mean
        - wide * pooled,
        "low: that is one standard error. A 95 % t interval is wider.": found.mean - error,
    }
    room = max(1e-9, 1e-3 * (found.high - found.low))
    checking.near(mine["low"], found.low, "low", known, room=room)
    checking.near(mine["high"], found.high, "high", room=room)
    effect = mine["effect"]
    verdict = "refuted" if found.high < effect else "supported" if found.low > 0 else "undecided"
    assert mine["verdict"] == verdict, f"verdict: {found} against 0 and {effect:g} says {verdict}."
    print(f"14.7 passed: {verdict}. Now a person reads plan and run with the rubric.")


check_14_7(study)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Write a function that makes one seed's world: which clusters are held out, and for each arm a list of triples. Count
# clusters, instructions and examples of each arm before you train anything.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Two clusters with fourteen wordings each, four with seven, seven with four: 28 instructions each time. The pilot needs the
# same function on other seeds, and gives you one number, the spread of the slopes.
#
# </details>
#
# {{solution}}
