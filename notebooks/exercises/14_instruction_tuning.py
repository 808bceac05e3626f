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
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases
# that you do not see here, so test more than the checker does. Nothing on this page needs a model, a data
# set or a network.
#
# {{overview}}

# %%
import math

import torch

# %% [markdown]
# ## 14.1 Another chat template
#
# > ●●○○○ · 10 minutes · practice
#
# A model was tuned with this format: each message is `[ROLE]`, a space, the content, `[/]` and a line feed, where `ROLE`
# is the role in capitals. If the first message is not of the role `system`, a system message with the content `Be
# helpful.` stands in front. With `generation_prompt` the text ends with the start of an answer: `[ASSISTANT]` and a
# space, and nothing behind it.


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
def check_14_1(chat):
    user, answer = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}
    system = {"role": "system", "content": "Be rude."}
    given = [user]
    got = chat(given)
    assert got is not None, "The function returned None. Did you forget return?"
    assert given == [user], (
        "You changed the list that you were given: the caller's conversation is longer now."
    )
    assert got.startswith("[SYSTEM] Be helpful.[/]\n"), (
        "A conversation without a system message gets one: the model was tuned with it in front."
    )
    assert got == "[SYSTEM] Be helpful.[/]\n[USER] Hi[/]\n", (
        "One user message: a tag, space or line feed is off."
    )
    both = chat([system, user, answer])
    assert "Be helpful." not in both, (
        "There is a system message already. The default is for conversations without one."
    )
    assert both == "[SYSTEM] Be rude.[/]\n[USER] Hi[/]\n[ASSISTANT] Yes?[/]\n", (
        "Each turn ends with [/] and a line feed, the last one too."
    )
    asked = chat([system, user], generation_prompt=True)
    assert not asked.endswith("[/]\n"), (
        "generation_prompt: the start of an answer is missing, or you closed it."
    )
    assert asked.endswith("[/]\n[ASSISTANT] "), (
        "generation_prompt: the model's turn begins with [ASSISTANT] and a space."
    )
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
# else.


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
def check_14_2(collate):
    end = 2
    rows = [([5, 6, end, 7], [8, end]), ([9, 7], [8, 8, 8, 8, end])]
    got = collate([(list(p), list(a)) for p, a in rows], end)
    assert got is not None, "The function returned None. Did you forget return?"
    assert len(got) == 3, "Three tensors expected: ids, mask, labels."
    ids, mask, labels = got
    for name, tensor in (("ids", ids), ("mask", mask), ("labels", labels)):
        assert tensor.shape == (2, 7), f"{name}: shape (2, 7) expected, not {tuple(tensor.shape)}."
    assert ids.tolist() == [[5, 6, 2, 7, 8, 2, 2], [9, 7, 8, 8, 8, 8, 2]], (
        "ids: the tokens, then padding on the right."
    )
    assert mask[0, 2] == 1, (
        "mask: the user's end token is real. Hidden by its id, no later token can see where his turn ended."
    )
    assert mask[0, 5] == 1, "mask: the end of the answer is real too."
    assert mask[0, 6] == 0, "mask: the last place of the first row is padding. Only the length can tell."
    assert mask.tolist() == [[1, 1, 1, 1, 1, 1, 0], [1] * 7], "mask: 1 for real tokens, 0 for padding."
    assert labels[0, 5] == end, (
        "labels: the end of the answer has no label. This model will never learn to stop."
    )
    assert labels[0, 6] == -100, "labels: padding has a label. The model would learn to say the end for ever."
    assert (labels[0, :4] == -100).all(), (
        "labels: the prompt counts. The model would learn to talk like the user."
    )
    assert labels.tolist() == [[-100] * 4 + [8, 2, -100], [-100, -100, 8, 8, 8, 8, 2]], (
        "labels: the answer, in its places."
    )
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
# Return the shares, and for each task how often one of its $e_m$ examples is seen on average: $N r_m / e_m$.


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
def close(a, b):
    return len(a) == len(b) and all(math.isclose(x, y, rel_tol=1e-9) for x, y in zip(a, b, strict=True))


def wanted_mixture(sizes, cap, temperature, N):
    weights = [min(e, cap) ** (1 / temperature) for e in sizes]
    shares = [w / sum(weights) for w in weights]
    return shares, [N * r / e for r, e in zip(shares, sizes, strict=True)]


def check_14_3(mixture):
    got = mixture([10, 1000], 1000, 1.0, 505)
    assert got is not None, "The function returned None. Did you forget return?"
    assert len(got) == 2 and len(got[0]) == len(got[1]) == 2, (
        "Two lists expected, with a number for each task."
    )
    assert close(got[0], [10 / 1010, 1000 / 1010]), (
        "No cap, T = 1: the shares are the shares of the examples."
    )
    assert close(got[1], [0.5, 0.5]), (
        "T = 1 without a cap: every example is seen equally often, here half a time."
    )
    shares, seen = mixture([4, 100], 25, 2.0, 700)
    assert not close(shares, [16 / 641, 625 / 641]), (
        "Shares go with the power 1/T. You took T: the large task got more."
    )
    assert not close(shares, [2 / 12, 10 / 12]), (
        "The cap is missing: a task counts as if it had at most K examples."
    )
    assert close(shares, [2 / 7, 5 / 7]), "The shares are wrong: cap first, then the power, then normalise."
    assert not close(seen, [50, 20]), (
        "You divided by the capped size. The cap bounds the share; all 100 examples are still drawn from."
    )
    assert close(seen, [50, 5]), "times seen: draws of the task, divided by its examples."
    print("14.3 passed.")


check_14_3(mixture)
### BEGIN HIDDEN TESTS


def hidden_14_3(mixture):
    for case in (([3, 7, 50], 20, 3.0, 100), ([1, 1], 5, 2.0, 8), ([6, 60_000, 600], 512, 1.0, 4096)):
        shares, seen = mixture(*case)
        want = wanted_mixture(*case)
        assert close(shares, want[0]) and close(seen, want[1]), f"Wrong for {case}."
    try:
        shares, _ = mixture([10, 1000], 10**6, 0.005, 1)
    except OverflowError:
        shares = []
    assert close(shares, [1e-400, 1.0]) or (
        len(shares) == 2 and shares[0] < 1e-12 and abs(shares[1] - 1) < 1e-12
    ), (
        "A small temperature makes the power overflow. Work with logarithms, or with sizes relative to the largest."
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
# the option with the highest *mean* log-probability of its own tokens.


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


def check_14_4(choose):
    got = choose(*item_14_4([[-1.0], [-0.2], [-2.0]]))
    assert got is not None, "The function returned None. Did you forget return?"
    assert int(got) == 1, (
        "Three options of one token: log-probabilities -1.0, -0.2, -2.0. The logits at t predict the token at t + 1, and "
        "raw logits are no log-probabilities."
    )
    assert int(choose(*item_14_4([[-1.0], [-0.6, -0.6, -0.6]]))) != 0, (
        "You compared sums. A longer option has a smaller sum by its length alone: divide by its tokens."
    )
    assert int(choose(*item_14_4([[-0.5], [-0.6, -0.6, -0.6]], context=-5.0))) == 0, (
        "The context's tokens seem to count. All options share them, but divided by a length they differ."
    )
    assert int(choose(*item_14_4([[-3.0, -0.1], [-1.0, -1.2]]))) == 1, (
        "The first token of an option counts, too: the last token of the context predicts it."
    )
    print("14.4 passed.")


check_14_4(choose)
### BEGIN HIDDEN TESTS


def hidden_14_4(choose):
    cases = {
        2: [[-1.0, -1.0], [-0.9, -1.3], [-0.2, -0.4, -1.8]],
        0: [[-0.7, -0.8, -0.9], [-0.85], [-2.5, -0.1, -0.1]],
        1: [[-0.3, -2.0], [-1.1], [-1.2, -1.2, -1.2]],
    }
    for want, options in cases.items():
        assert int(choose(*item_14_4(options))) == want, f"Wrong for the log-probabilities {options}."
    assert int(choose(*item_14_4([[-0.5], [-0.5]], context=0.0, shift=0.0))) == 0, (
        "Of equal options the first one is chosen."
    )


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
    mine = prediction()
    assert mine is not None, "The function returned None. Return your dict."
    assert set(mine) == {"per_task_1", "per_task_8", "chance", "fair", "rows"}, (
        "Five keys: see the list above."
    )
    assert mine["per_task_1"] == 48, "per_task_1: one cluster holds two tasks, and they share 96 examples."
    assert mine["per_task_8"] != 48, (
        "per_task_8: then the arm has 768 examples. More clusters *and* more examples: you could not tell which one helped."
    )
    assert mine["per_task_8"] == 6, (
        "per_task_8: eight clusters hold sixteen tasks, and they share 96 examples."
    )
    assert not math.isclose(mine["chance"], 3 / 10), (
        "chance: you divided 3 tasks by 10 options. Average the three chances, not the numbers of options."
    )
    assert math.isclose(mine["chance"], 1 / 3, abs_tol=0.005), "chance: the mean of 1/2, 1/4 and 1/4."
    assert mine["fair"] == 0, (
        "fair: two sentences that mean the same follow from each other. The tasks are close kin."
    )
    assert mine["rows"] == 0, (
        "rows: their instruction was trained. That measures new inputs, not new instructions."
    )
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
