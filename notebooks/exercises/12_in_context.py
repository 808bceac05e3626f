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
# that you do not see here, so test more than the checker does. Nothing on this page needs a model, a data
# set or a network.
#
# {{overview}}

# %%
import torch

# %% [markdown]
# ## 12.1 The probability of an option
#
# > ●●○○○ · 10 minutes · practice
#
# A causal model has read a context and an option behind it: `ids`, shape $(T,)$. Its `logits` have the shape $(T, V)$. The
# last `n` tokens are the option. Return $\log p(o \mid c)$ in nats, as a float: the sum over the option's tokens.


# %% nbgrader={"grade_id": "answer_12_1", "solution": true}
def option_log_prob(logits, ids, n):
    """The log-probability of the last n tokens of ids, given those before them."""
    ### BEGIN SOLUTION
    log_p = torch.log_softmax(logits, -1)
    return log_p[-n - 1 : -1].gather(1, ids[-n:, None]).sum().item()
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_12_1", "locked": true}
def check_12_1(option_log_prob):
    g = torch.Generator().manual_seed(0)
    for T, V, n in ((6, 5, 2), (4, 7, 1), (5, 3, 4)):
        logits, ids = 3 * torch.randn(T, V, generator=g).double(), torch.randint(V, (T,), generator=g)
        got = option_log_prob(logits.clone(), ids.clone(), n)
        assert got is not None, "The function returned None. Did you forget return?"
        assert isinstance(got, float), f"A float expected, not {type(got).__name__}."
        log_p = logits - logits.logsumexp(-1, keepdim=True)
        want = sum(log_p[t - 1, ids[t]].item() for t in range(T - n, T))
        own = sum(log_p[t, ids[t]].item() for t in range(T - n, T))
        raw = sum(logits[t - 1, ids[t]].item() for t in range(T - n, T))
        assert abs(got - own) > 1e-6, "You read each token at its own place. Position t - 1 predicts token t."
        assert abs(got - raw) > 1e-6, (
            "These are sums of logits. Only log_softmax makes probabilities of them."
        )
        if n > 1:
            assert abs(got * n - want) > 1e-6, "You took the mean. The chain rule adds logarithms."
        everything = sum(log_p[t - 1, ids[t]].item() for t in range(1, T))
        if n < T - 1:
            assert abs(got - everything) > 1e-6, "You added the context's tokens, too."
        assert abs(got - want) < 1e-9, (
            "The value is wrong: n terms, the first predicted by the context's last token."
        )
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
# average; normalise each row. Return the probabilities, shape $(N, K)$.


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
    scores = made_scores(0, N=6, K=3, shift=3.0)
    got = batch_calibration(scores.clone())
    assert got is not None, "The function returned None. Did you forget return?"
    assert got.shape == scores.shape, (
        f"Shape {tuple(scores.shape)} expected, one row per text, not {tuple(got.shape)}."
    )
    ones = torch.ones(6).double()
    assert not torch.allclose(got.sum(0), ones[:3]), (
        "The columns are normalised, the rows are not: each *text* gets a distribution over the labels."
    )
    assert torch.allclose(got.sum(1), ones), (
        "Each row has to add up to one: normalise again after the division."
    )
    logs = torch.log_softmax(scores, -1)
    geometric = torch.softmax(logs - logs.mean(0), -1)
    assert not torch.allclose(got, geometric), (
        "You averaged logarithms. That is a geometric mean; the average of the *probabilities* is asked for."
    )
    raw = scores.exp() / scores.exp().mean(0)
    assert not torch.allclose(got, raw / raw.sum(1, keepdim=True)), (
        "You averaged before the rows were normalised: texts that make all words likely drown the others."
    )
    p = torch.softmax(scores, -1)
    assert not torch.allclose(got, p * p.mean(0) / (p * p.mean(0)).sum(1, keepdim=True)), (
        "You multiplied by the average: the bias is doubled, not removed."
    )
    assert torch.allclose(got, wanted_calibration(scores)), (
        "The values are wrong: follow the four steps in order."
    )
    print("12.2 passed.")


check_12_2(batch_calibration)
### BEGIN HIDDEN TESTS


def hidden_12_2(batch_calibration):
    for seed, N, K in ((1, 1, 4), (2, 40, 2), (3, 5, 5)):
        scores = made_scores(seed, N, K, shift=1.0)
        assert torch.allclose(batch_calibration(scores), wanted_calibration(scores)), (
            f"Wrong for N = {N}, K = {K}."
        )
    low = made_scores(4, 5, 3, shift=1.0) - 2000.0
    got = batch_calibration(low)
    assert torch.isfinite(got).all(), (
        "Long options have tiny probabilities: exp(-2000) is 0. Use a softmax that subtracts the largest score."
    )
    assert torch.allclose(got, wanted_calibration(low)), "Wrong for scores far below zero."


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
# demonstration, with label word $k$. Demonstrations are separated by an empty line; the space before a label word belongs
# to the option. The function must also work without any demonstration: then `prefix` is empty, and the context begins with
# its first word.


# %% nbgrader={"grade_id": "answer_12_3", "solution": true}
def prompt(pairs, text, words):
    """(prefix, context, options) of a few-shot prompt for sentiment."""
    ### BEGIN SOLUTION
    prefix = "\n\n".join(f"Review: {shown}\nSentiment: {words[label]}" for shown, label in pairs)
    context = ("\n\n" if pairs else "") + f"Review: {text}\nSentiment:"
    return prefix, context, [f" {word}" for word in words]
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_12_3", "locked": true}
def check_12_3(prompt):
    pairs, words = [("good fun", 1), ("a bore", 0), ("1 of 5", 0)], ["negative", "positive"]
    got = prompt(list(pairs), "fine", list(words))
    assert got is not None, "The function returned None. Did you forget return?"
    assert len(got) == 3, "Three things expected: prefix, context, options."
    prefix, context, options = got
    assert "Sentiment: 1" not in prefix and "Sentiment: 0" not in prefix, (
        "prefix: it shows label numbers. The model is asked for words, so it must see words."
    )
    assert context == context.rstrip(), (
        "context: it ends in white space. The space belongs to the front of the label word."
    )
    assert list(options) == [" negative", " positive"], "options: each label word with the space before it."
    demos = prefix.split("\n\n")
    assert len(demos) == 3, "prefix: demonstrations stand apart by an empty line, like the question does."
    assert demos == [f"Review: {shown}\nSentiment: {words[label]}" for shown, label in pairs], (
        "prefix: the three demonstrations, in their order, with their words."
    )
    assert context == "\n\nReview: fine\nSentiment:", (
        "context: an empty line, then the demonstrations' own format."
    )
    prefix, context, _ = prompt([], "fine", list(words))
    assert prefix == "", "no demonstrations: the prefix is empty."
    assert context == "Review: fine\nSentiment:", (
        "no demonstrations: the context begins with its first word. Nothing stands before an empty line."
    )
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
# the options, one behind the other. Each option has to be computed as if it alone followed the context.
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
    got = tree_row(3, [2, 1])
    assert got is not None, "The function returned None. Did you forget return?"
    assert len(got) == 2, "Two tensors expected: position ids and mask."
    places, seen = got
    assert places.shape == (6,) and seen.shape == (6, 6), (
        "Shapes (6,) and (6, 6) expected for C = 3, sizes [2, 1]."
    )
    assert seen.dtype == torch.bool, f"seen: bool expected, not {seen.dtype}."
    assert places.tolist() != [0, 1, 2, 3, 4, 5], (
        "places: they run on through the options. The second option follows the context, not the first option."
    )
    assert places.tolist() != [0, 1, 2, 0, 1, 0], (
        "places: an option starts at C, behind the context, not at 0."
    )
    assert places.tolist() == [0, 1, 2, 3, 4, 3], "places: context 0 1 2, then each option from 3 on."
    assert not seen[:3, 3:].any(), "seen: the context looks at an option. Then all options know that option."
    assert not seen[5, 3:5].any(), "seen: the second option looks at the first."
    assert not seen[3, 4], "seen: a token of an option looks at the token behind it."
    assert not seen[:3, :3].triu(1).any(), "seen: the context is causal, too."
    assert seen[3:, :3].all(), "seen: every option sees the whole context."
    assert seen.diagonal().all() and seen[4, 3], "seen: a token sees itself and its own option up to itself."
    assert torch.equal(seen, wanted_row(3, [2, 1])[1]), "seen: some entry is wrong."
    print("12.4 passed.")


check_12_4(tree_row)
### BEGIN HIDDEN TESTS


def hidden_12_4(tree_row):
    for C, sizes in ((1, [1]), (4, [3, 3, 3]), (2, [0, 2, 0]), (5, [])):
        places, seen = tree_row(C, sizes)
        want, mask = wanted_row(C, sizes)
        assert places.tolist() == want.tolist(), f"places: wrong for C = {C}, sizes {sizes}."
        assert torch.equal(seen, mask), f"seen: wrong for C = {C}, sizes {sizes}."


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
    mine = prediction()
    assert mine is not None, "The function returned None. Return your dict."
    assert set(mine) == {"label", "tokens", "auc", "always"}, "Four keys: see the list above."
    assert all(isinstance(value, int) for value in mine.values()), "Four whole numbers expected."
    assert mine["label"] != 0, (
        "label: 0.8 is a lot, but less than the 0.9 that this label gets for nothing. Divide both."
    )
    assert mine["label"] == 1, "label: 0 or 1."
    assert mine["tokens"] != 10 * 3 * (100 + 20 + 2), "tokens: that is one forward pass for each pair."
    assert mine["tokens"] != 100 + 10 * (20 + 3 * 2), "tokens: the last token of an option is only predicted."
    assert mine["tokens"] == 330, (
        "tokens: the prefix once, each context once, and what is read of the options."
    )
    assert mine["auc"] != 1, "auc: all log-odds move by the same number. Their order stays."
    assert mine["auc"] == 0, "auc: 0 or 1."
    assert mine["always"] != 7, "always: it says negative. How many are negative?"
    assert mine["always"] == 3, (
        "always: count the negative ones. Calibration can also end in a constant answer."
    )
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
