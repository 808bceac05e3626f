# ---
# jupyter:
#   instructlab:
#     id: "16"
#     title: Automatic construction of instructions
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 16: automatic construction of instructions
#
# Each exercise is a box, a cell for your answer, and a checker in the cell below it. Replace the line that
# raises `NotImplementedError`, then run both cells. A checker that says no also says what probably went
# wrong.
#
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases
# that you do not see here, so test more than the checker does. Nothing on this page needs a file or a network.
# Exercise 16.4 trains small models for some seconds; exercise 16.5 is an open project.
#
# {{overview}}

# %%
import math
import random
import statistics

from instructlab_utils import checking

# %% [markdown]
# ## 16.1 A filter that does not care who came first
#
# > ●●●○○ · 20 minutes · graded
#
# Self-Instruct keeps a text if it is not too much like one that was kept before. So the first of a group stays: shuffle the
# file, and you get another data set. Write a filter whose result does not depend on the order.
#
# - The tokens of a text are `text.lower().split()`. Two texts of $m$ and $n$ tokens, whose longest common subsequence
#   has $L$ tokens (in the same order, other tokens may stand between), are alike by $F = 2L / (m + n)$. $F$ is 0 if
#   one of the two has no token, and 1 if both have none.
# - Two texts are neighbours if $F$ is at least `threshold`, which is above 0 and at most 1.
# - Texts that a chain of neighbours joins are one group, also where the ends of the chain are no neighbours.
# - Of each group the text with the fewest tokens stays; of several such ones the first in Python's order of strings.
#
# `keep(texts, threshold)` returns the texts that stay, as they were written, each once, sorted. `texts` is a list, may be
# empty, and may hold a text twice. There are at most 80 texts of at most 20 tokens.


# %% nbgrader={"grade_id": "answer_16_1", "solution": true}
def keep(texts, threshold):
    """One text of each group, sorted."""

    ### BEGIN SOLUTION
    def alike(a, b):
        if not a or not b:
            return float(a == b)
        row = [0] * (len(b) + 1)
        for token in a:
            before = row[:]
            for j, other in enumerate(b):
                row[j + 1] = before[j] + 1 if token == other else max(before[j + 1], row[j])
        return 2 * row[-1] / (len(a) + len(b))

    left = {text: text.lower().split() for text in texts}
    kept = []
    while left:
        group, fringe = {}, [next(iter(left))]
        while fringe:
            text = fringe.pop()
            if text in left:
                group[text] = left.pop(text)
                fringe += [other for other, words in left.items() if alike(group[text], words) >= threshold]
        kept.append(min(group, key=lambda text: (len(group[text]), text)))
    return sorted(kept)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_16_1", "grade": true, "points": 4, "locked": true}
def check_16_1(keep):
    call = checking.calls(keep, limit=2)
    pair = ["sort the list now", "Sort The list"]
    wrong = {
        "Both texts of a pair are gone. One of each group stays.": [],
        "The longer text stayed. The one with the fewest tokens is asked for.": pair[:1],
        "Nothing was filtered here. Upper and lower case are the same.": sorted(pair),
        "The text is returned as it was written, with its capitals.": [pair[1].lower()],
    }
    checking.equal(call(pair, 0.7), [pair[1]], "what stays", wrong, says="Two texts with F = 6 / 7.")
    turned = ["one two three four", "four three two one"]
    says = "The same tokens in another order: their longest common subsequence has one token."
    checking.equal(call(turned, 0.7), sorted(turned), "what stays", says=says)
    split = ["take a b c", "take x a y b z c"]
    says = "Four of the tokens are common, in order, with others between: F = 8 / 11. A subsequence may have gaps."
    checking.equal(call(split, 0.7), split[:1], "what stays", says=says)
    part = ["add one", "add one to each of the numbers"]
    says = "F = 4 / 9: the shorter text is a part of the longer, and F is small. Recall or precision alone would be 1."
    checking.equal(call(part, 0.7), part, "what stays", says=says)
    says = "F = 0.5 is at least the threshold 0.5."
    checking.equal(call(["a b", "a c"], 0.5), ["a b"], "what stays", says=says)
    chain = ["a b c", "a b c d e", "c d e f"]  # neighbours: first with second, second with third
    wrong = {
        "Order decides: the second text came after a neighbour of its own and went, and then the third had none. Find the "
        "groups first.": ["a b c", "c d e f"],
    }
    says = "Three texts in a chain are one group."
    checking.equal(call(chain, 0.6), ["a b c"], "what stays", wrong, says=says)
    checking.equal(call([chain[1], chain[0], chain[2]], 0.6), ["a b c"], "what stays", says=says)
    print("16.1 passed the visible cases.")


check_16_1(keep)
### BEGIN HIDDEN TESTS


def common_16_1(a, b, known=None):
    """Longest common subsequence, by recursion with memory."""
    known = {} if known is None else known
    if not a or not b:
        return 0
    if (key := (len(a), len(b))) not in known:
        if a[0] == b[0]:
            known[key] = 1 + common_16_1(a[1:], b[1:], known)
        else:
            known[key] = max(common_16_1(a[1:], b, known), common_16_1(a, b[1:], known))
    return known[key]


def keep_16_1(texts, threshold):
    """Groups by repeated joining of labels."""
    own = sorted(set(texts))
    words = [tuple(text.lower().split()) for text in own]
    label = list(range(len(own)))
    for i in range(len(own)):
        for j in range(i):
            m, n = len(words[i]), len(words[j])
            like = 2 * common_16_1(words[i], words[j]) / (m + n) if m + n else 1.0
            if like >= threshold:
                label = [label[j] if old == label[i] else old for old in label]
    best = {}
    for i in sorted(range(len(own)), key=lambda i: (len(words[i]), own[i])):
        best.setdefault(label[i], own[i])
    return sorted(best.values())


def hidden_16_1(keep):
    call = checking.calls(keep, limit=2)
    says = "Of texts with as few tokens the first in Python's order stays, wherever it stands in the list."
    for texts in (["a b d", "a b c"], ["a b c", "a b d"], ["b a", "B A", "b A"]):
        call.agrees(keep_16_1, (texts, 0.6), name="what stays", says=says)
    says = "A long chain is one group: neighbours of neighbours of neighbours, too."
    steps = [" ".join(f"w{k}" for k in range(i, i + 6 + i % 2)) for i in range(12)]
    for seed in range(4):
        random.Random(seed).shuffle(steps)
        call.agrees(keep_16_1, (list(steps), 0.7), name="what stays", says=says)
    says = "The text with the fewest tokens stays, not the one with the fewest characters."
    call.agrees(
        keep_16_1, (["sort the list a z", "sort the list alphabetically"], 0.6), name="what stays", says=says
    )
    says = "F = 6 / 7. The ratio of difflib can be smaller: it takes the longest block first, and never comes back."
    call.agrees(keep_16_1, (["a b a a", "a a a"], 0.8), name="what stays", says=says)
    for texts, says in (
        ([], "No text at all."),
        (["", "  ", "a"], "Two texts without a token are alike; a text with one is not like them."),
        (["x y", "x y", "X  y"], "A text that is there twice stays at most once; blanks do not count."),
        (["one"], "One text."),
    ):
        call.agrees(keep_16_1, (texts, 0.7), name="what stays", says=says)
    rng = random.Random(16)
    for threshold in (0.35, 0.55, 0.7, 1.0):
        for _ in range(4):
            texts = [" ".join(rng.choices("abcd", k=rng.randint(1, 7))) for _ in range(14)]
            says = f"Texts at random, threshold {threshold}."
            call.agrees(keep_16_1, (texts, threshold), name="what stays", says=says)
            rng.shuffle(texts)
            call.agrees(keep_16_1, (texts, threshold), name="what stays", says=f"Shuffled. {says}")


hidden_16_1(keep)
### END HIDDEN TESTS

# %% [markdown]
# ## 16.2 Kappa by hand
#
# > ●●●○○ · 20 minutes · practice · prediction
#
# Two judges have read the same 100 generated records. Both say good: 85. Only A says good: 5. Only B says good: 5. Both say
# bad: 5. With $P_o$ the share of equal judgements, and $P_e$ the share of equal ones by chance (each judge keeps the own
# share of good), $\kappa = (P_o - P_e) / (1 - P_e)$. For its standard error take
# $\sqrt{P_o (1 - P_o) / n} \, / \, (1 - P_e)$. Predict with a pocket calculator, to three digits:
#
# - `kappa` for this sheet;
# - `error`: its standard error, and `low`: the lower end of the interval, $\kappa - 1.96$ errors;
# - `balanced`: the kappa of another sheet with the same $P_o$: 45, 5, 5, 45;
# - `top`: A calls 95 of 100 good, and B only 75. What is the largest kappa that these two can reach?
# - `items`: how many records, with the shares of the first sheet, until $1.96$ errors are $0.1$?
# - `all_good`: both judges say good 100 times. Kappa is `"0"`, `"1"` or `"undefined"`;
# - `right`: one model judges all records twice, and the two passes agree with $\kappa = 1$. Does that show that the
#   judgements are right, `"yes"` or `"no"`?


# %% nbgrader={"grade_id": "answer_16_2", "solution": true}
def prediction():
    """Return a dict with kappa, error, low, balanced, top, items, all_good, right."""

    ### BEGIN SOLUTION
    def chance(a, b):
        return a * b + (1 - a) * (1 - b)

    rest = 1 - chance(0.9, 0.9)
    kappa, error = (0.9 - 0.82) / rest, math.sqrt(0.9 * 0.1 / 100) / rest
    return {
        "kappa": kappa,
        "error": error,
        "low": kappa - 1.96 * error,
        "balanced": (0.9 - chance(0.5, 0.5)) / (1 - chance(0.5, 0.5)),
        "top": (0.8 - chance(0.95, 0.75)) / (1 - chance(0.95, 0.75)),  # all 75 of B are among the 95 of A
        "items": 100 * (1.96 * error / 0.1) ** 2,
        "all_good": "undefined",
        "right": "no",
    }
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_16_2", "locked": true}
def check_16_2(prediction):
    mine = checking.predicted(
        prediction,
        ("kappa", "error", "low", "balanced", "top", "items"),
        all_good=("0", "1", "undefined"),
        right=("yes", "no"),
    )
    kappa, error = 0.08 / 0.18, 0.03 / 0.18
    wrong = {
        "kappa: this is the agreement. Judges who say good to nearly all agree by chance.": 0.9,
        "kappa: chance is not one half here. Each judge says good 90 times of 100.": 0.8,
        "kappa: agreement on bad counts in the chance, too: 0.9 · 0.9 + 0.1 · 0.1.": 0.09 / 0.19,
        "kappa: divide by what chance leaves, 1 - P_e.": 0.08,
        "kappa: this is the share of equal judgements by chance.": 0.82,
    }
    checking.equal(mine["kappa"], kappa, "kappa", wrong, tol=0.012, says="kappa: (0.9 - 0.82) / (1 - 0.82).")
    wrong = {
        "error: this is the error of the agreement. Kappa divides it by 1 - P_e, and so its error.": 0.03,
        "error: you took kappa for a share. The counted share is the agreement.": math.sqrt(
            kappa * (1 - kappa) / 100
        ),
        "error: you took kappa for the counted share.": math.sqrt(kappa * (1 - kappa) / 100) / 0.18,
        "error: that is the variance. Take the root.": error**2,
        "error: the n is missing.": 0.3 / 0.18,
    }
    checking.equal(
        mine["error"], error, "error", wrong, tol=0.015, says="error: sqrt(0.9 · 0.1 / 100) / 0.18."
    )
    wrong = {
        "low: one error is not the interval. 1.96 of them.": kappa - error,
        "low: this is the upper end.": kappa + 1.96 * error,
        "low: the interval with the error of the agreement is far too narrow.": kappa - 1.96 * 0.03,
    }
    checking.equal(
        mine["low"], kappa - 1.96 * error, "low", wrong, tol=0.03, says="low: kappa - 1.96 errors."
    )
    wrong = {
        "balanced: the same agreement, but chance gives only one half here.": kappa,
        "balanced: this is the agreement.": 0.9,
        "balanced: divide by what chance leaves, one half.": 0.4,
    }
    checking.equal(mine["balanced"], 0.8, "balanced", wrong, tol=0.012, says="balanced: P_e is 0.5.")
    wrong = {
        "top: 1 needs equal shares of good. Twenty records at least are judged differently.": 1.0,
        "top: this is the largest agreement. Put it into kappa.": 0.8,
        "top: you let the judges disagree as much as possible: 70 records good for both.": (0.7 - 0.725)
        / 0.275,
        "top: that is the chance of agreement.": 0.725,
    }
    checking.equal(
        mine["top"], 0.075 / 0.275, "top", wrong, tol=0.015, says="top: B's 75 are all among A's 95."
    )
    wrong = {
        "items: an error shrinks with the *root* of the number of records.": 100 * 1.96 * error / 0.1,
        "items: this is for the error of the agreement, not of kappa.": 100 * (1.96 * 0.03 / 0.1) ** 2,
        "items: 1.96 errors shall be 0.1, not one error.": 100 * (error / 0.1) ** 2,
    }
    checking.equal(
        mine["items"], 100 * (1.96 * error / 0.1) ** 2, "items", wrong, tol=0.02, says="items: solve for n."
    )
    wrong = {
        "all_good: P_o is 1, and so is P_e: 0 / 0. Nobody can tell judges who agree from judges who always say good.": "1",
        "all_good: 0 / 0 is no 0. Report it as undefined, with the counts.": "0",
    }
    checking.equal(mine["all_good"], "undefined", "all_good", wrong)
    wrong = {
        "right: the same mistake made twice is agreement, too. Compare with labels that are known, if only for some.": "yes"
    }
    checking.equal(mine["right"], "no", "right", wrong)
    print("16.2 passed. A hundred records leave kappa between slight and substantial.")


check_16_2(prediction)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Both judges say good with a share of $0.9$. By chance they meet at good with $0.81$, and at bad with $0.01$.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Kappa is a straight line in $P_o$, with the slope $1 / (1 - P_e)$.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 16.3 A pool that knows the test
#
# > ●●●●○ · 30 minutes · graded · bug hunt
#
# A loop in the manner of Self-Instruct: the teacher sees some instructions of the pool and proposes new ones; what is too
# much like something known is dropped. The results on the held-out instructions are wonderful. Find out why, and what else
# is wrong: at least five things. One of them shows only when another one has been mended.


# %%
def broken_grow(seeds, held_out, teacher, alike, target, patience):
    pool = seeds
    counts = {"proposed": 0, "kept": 0, "near_test": 0, "near_pool": 0}
    while len(pool) < target:
        shown = (pool + held_out)[-4:]
        for text in teacher(shown):
            counts["proposed"] += 1
            if any(alike(text, old) for old in seeds):
                counts["near_pool"] += 1
            elif text in held_out:
                counts["near_test"] += 1
            else:
                pool.append(text)
                counts["kept"] += 1
    return pool, counts


# %% [markdown]
# Write it right. `grow` returns `(pool, counts)`. All texts are strings, `alike(a, b)` is symmetric and says whether two
# texts are too much like each other, and `teacher(shown)` returns a list of proposals, which may be empty.
#
# - A seed that is alike to a held-out text raises `ValueError`, before the teacher is called.
# - The pool begins with the seeds, in their order; kept texts follow in theirs. The lists that you are given stay as
#   they are.
# - In each round the teacher is shown a list of the last four texts of the pool (all of them if there are fewer), and
#   nothing else.
# - A proposal that is alike to a held-out text counts as `near_test`; else, one that is alike to a text of the pool
#   *as it is by then* counts as `near_pool`; else it is kept.
# - As soon as the pool has `target` texts, the loop ends: the rest of the round is not looked at, and not counted. With
#   enough seeds the teacher is never called.
# - The loop also ends after `patience` (at least 1) rounds *in a row* in which nothing was kept.
# - `counts` has the four keys from above; `proposed` is the sum of the other three.


# %% nbgrader={"grade_id": "answer_16_3", "solution": true}
def grow(seeds, held_out, teacher, alike, target, patience):
    """(pool, counts) of a loop that keeps the test out."""
    ### BEGIN SOLUTION
    if any(alike(seed, test) for seed in seeds for test in held_out):
        raise ValueError("a seed is alike to a held-out text: the test would not be held out")
    pool, idle = list(seeds), 0
    counts = {"proposed": 0, "kept": 0, "near_test": 0, "near_pool": 0}
    while len(pool) < target and idle < patience:
        size = len(pool)
        for text in teacher(pool[-4:]):
            if len(pool) >= target:
                break
            near = [
                kind
                for kind, old in (("near_test", held_out), ("near_pool", pool))
                if any(alike(text, o) for o in old)
            ]
            counts["proposed"] += 1
            counts[near[0] if near else "kept"] += 1
            if not near:
                pool.append(text)
        idle = 0 if len(pool) > size else idle + 1
    return pool, counts
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_16_3", "grade": true, "points": 5, "locked": true}
class Teacher163:
    """Proposes one batch after the other, then nothing; ``shown`` keeps what it was shown."""

    def __init__(self, batches):
        self.batches, self.shown = [list(batch) for batch in batches], []

    def __call__(self, shown):
        assert len(self.shown) < 200, (
            "The teacher has been asked 200 times. The loop ends after `patience` rounds."
        )
        self.shown.append(list(shown))
        return self.batches.pop(0) if self.batches else []


def alike_16_3(a, b):
    """Texts are alike if their first words are the same."""
    return a.split()[:1] == b.split()[:1]


def check_16_3(grow):
    call = checking.calls(
        grow, limit=0.5, slow="The teacher has no more to say: the loop ends after `patience` rounds."
    )
    seeds, test = ["add numbers", "sort numbers"], ["reverse it", "filter it"]
    teacher = Teacher163(
        [["count all", "add more", "reverse that"], ["drop one", "count one", "take two", "take one"]]
    )
    pool, counts = call(seeds, test, teacher, alike_16_3, 10, 2)
    seen = [text for shown in teacher.shown for text in shown]
    assert not set(seen) & set(test), (
        "The teacher was shown a held-out text. What it writes then is about the test."
    )
    assert "reverse that" not in pool, (
        "'reverse that' is alike to the held-out 'reverse it'. A copy need not be equal: ask `alike`."
    )
    assert "count one" not in pool, (
        "'count one' is alike to 'count all' of the round before. The whole pool counts, not the seeds."
    )
    assert "take one" not in pool, (
        "'take one' is alike to 'take two' of the same round. The pool grows within a round."
    )
    want = ["add numbers", "sort numbers", "count all", "drop one", "take two"]
    checking.equal(pool, want, "the pool", {"The pool begins with the seeds.": want[2:]})
    right = {"proposed": 7, "kept": 3, "near_test": 1, "near_pool": 3}
    checking.equal(counts, right, "counts", says="Seven proposals, each counted once by its fate.")
    checking.equal(
        teacher.shown[:2], [seeds, want[:3]], "what the teacher was shown", says="The last four of the pool."
    )
    checking.equal(
        len(teacher.shown), 4, "the number of rounds", says="Two rounds, and two in which nothing was kept."
    )
    teacher = Teacher163([["a 1", "b 1", "c 1", "d 1"]])
    pool, counts = call(seeds, test, teacher, alike_16_3, 4, 2)
    wrong = {
        "The pool has more texts than the target. Look at the target inside the round.": [
            *seeds,
            "a 1",
            "b 1",
            "c 1",
            "d 1",
        ]
    }
    checking.equal(pool, [*seeds, "a 1", "b 1"], "the pool", wrong, says="A target of four.")
    print("16.3 passed the visible cases.")


check_16_3(grow)
### BEGIN HIDDEN TESTS


def hidden_16_3(grow):
    call = checking.calls(
        grow, limit=0.5, slow="The teacher has no more to say: the loop ends after `patience` rounds."
    )
    seeds, test = ["add numbers", "sort numbers"], ["reverse it", "filter it"]
    _, counts = call(seeds, test, Teacher163([["a 1", "b 1", "c 1", "d 1"]]), alike_16_3, 4, 2)
    says = "What comes after the target was reached is not looked at, and not counted as proposed."
    checking.equal(counts, {"proposed": 2, "kept": 2, "near_test": 0, "near_pool": 0}, "counts", says=says)
    teacher = Teacher163([["a 1"]])
    says = "A seed that is alike to a held-out text makes the test worthless. Nobody would notice."
    call.refuses(ValueError, [*seeds, "filter numbers"], test, teacher, alike_16_3, 5, 2, says=says)
    assert not teacher.shown, "The seeds are looked at before the teacher is called."
    teacher = Teacher163([[], ["a 1"], [], ["b 1"], [], [], ["c 1"]])
    pool, counts = call(seeds, test, teacher, alike_16_3, 9, 2)
    says = "Rounds without a gain count in a row: one that keeps something starts anew."
    checking.equal(pool, [*seeds, "a 1", "b 1"], "the pool", says=says)
    teacher = Teacher163([["a 1"]])
    pool, counts = call(seeds, test, teacher, alike_16_3, 2, 1)
    checking.equal(
        (pool, len(teacher.shown)), (seeds, 0), "(pool, rounds)", says="Enough seeds: no call of the teacher."
    )
    checking.equal(counts, dict.fromkeys(counts, 0), "counts", says="Nothing was proposed.")

    def by_letters(a, b):
        return bool(set(a) & set(b))

    teacher = Teacher163([["xa", "x", "b", "xb"]])
    _, counts = call(["a"], ["x"], teacher, by_letters, 9, 1)
    says = "A proposal that is alike to a held-out text *and* to the pool counts as near_test."
    checking.equal(counts, {"proposed": 4, "kept": 1, "near_test": 3, "near_pool": 0}, "counts", says=says)
    teacher = Teacher163([[f"{k}a x"] for k in range(7)])
    call(["s 1"], [], teacher, alike_16_3, 7, 1)
    says = "The last four texts of the pool, in its order."
    checking.equal(
        teacher.shown[-1], [f"{k}a x" for k in (1, 2, 3, 4)], "what the teacher was shown", says=says
    )
    rng = random.Random(163)
    for _ in range(30):
        words = [f"{rng.choice('abcdefghijkl')} {k}" for k in range(40)]
        batches = [words[k : k + 4] for k in range(0, 40, 4)]
        target, patience = rng.randint(1, 9), rng.randint(1, 3)
        checking.equal(
            call(["m 0", "n 0"], ["a x", "b x"], Teacher163(batches), alike_16_3, target, patience),
            walked_16_3(["m 0", "n 0"], ["a x", "b x"], batches, target, patience),
            "(pool, counts)",
            says=f"Proposals at random, target {target}, patience {patience}.",
        )


def walked_16_3(seeds, test, batches, target, patience):
    """The same by first letters: each letter is kept once, unless the test has it."""
    have, barred = {text[0]: text for text in seeds}, {text[0] for text in test}
    fate, empty = [], 0
    for batch in [*batches, *[[]] * patience]:
        if len(have) >= target or empty == patience:
            break
        before = len(have)
        for text in batch:
            if len(have) < target:
                fate.append("near_test" if text[0] in barred else "near_pool" if text[0] in have else "kept")
                if fate[-1] == "kept":
                    have[text[0]] = text
        empty = 0 if len(have) > before else empty + 1
    counts = {kind: fate.count(kind) for kind in ("kept", "near_test", "near_pool")}
    return list(have.values()), {"proposed": len(fate), **counts}


hidden_16_3(grow)
### END HIDDEN TESTS

# %% [markdown]
# ## 16.4 Sixty-four instructions
#
# > ●●●●○ · 60 minutes · practice
#
# A small decoder learns which step an instruction asks for. A taxonomy has four leaves; `LEAVES` lists the verbs that
# people use for each. An instruction is an opener, a verb and a closer, as `please flip it`, and the label is the leaf; a
# program knows it, so no label is wrong. You may spend 64 instructions. The obvious sampler gives each leaf 16, drawn at
# random. Do better on the *worst leaf*.
#
# `training_set()` returns a list of at most 64 different triples `(opener, verb, closer)`, all from `FREE` (the
# others are the test), at least one for each leaf. The checker trains three models on your set, with seeds of its
# own, and takes for each the accuracy on its worst leaf. The middle one of the three must be at least $0.9$; with
# uniform sets it is about $0.6$. `score(data, seed)` trains one model in about a second and returns the accuracy of
# each leaf: use it, with several seeds.


# %%
LEAVES = {
    "reverse": "reverse flip mirror invert".split(),
    "sort": "sort order arrange rank align tidy".split(),
    "count": "count tally number size measure sum total reckon weigh gauge enumerate compute".split(),
    "filter": (
        "keep drop remove select pick choose exclude omit retain skip discard delete leave strip erase cut save spare "
        "reject accept sift weed screen purge prune cull take hold hide show drain clear trim winnow".split()
    ),
}
OPENERS, CLOSERS = ["please", "now", "first", "kindly", "next"], ["it", "them", "all", "these"]
LEAF_OF = {verb: leaf for leaf, verbs in LEAVES.items() for verb in verbs}
VERBS = list(LEAF_OF)
TEST, FREE = [], []
for i, opener in enumerate(OPENERS):
    for j, verb in enumerate(VERBS):
        for k, closer in enumerate(CLOSERS):
            (FREE if (i + j + 2 * k) % 5 else TEST).append((opener, verb, closer))


def score(data, seed):
    """Train a decoder of one layer on the triples; the accuracy on the test by leaf."""
    import torch

    from instructlab_utils import generation, training
    from instructlab_utils.small import small_decoder, word_tokenizer

    tokenizer = word_tokenizer([*OPENERS, *VERBS, *CLOSERS, *[f"<{leaf}>" for leaf in LEAVES]])
    model = small_decoder(len(tokenizer), width=32, layers=1, window=8, seed=seed)
    examples = [generation.encode_completion(" ".join(x), f" <{LEAF_OF[x[1]]}>", tokenizer) for x in data]
    training.train(
        model, examples, steps=120, learning_rate=1e-2, pad_id=0, batch_size=32, seed=seed,
        objective=generation.causal_losses,
    )  # fmt: skip
    with torch.no_grad():
        logits = model.eval()(torch.tensor([tokenizer.encode(" ".join(x)) for x in TEST])).logits[:, -1]
    said = tokenizer.convert_ids_to_tokens(logits.argmax(-1).tolist())
    hits = {leaf: [] for leaf in LEAVES}
    for text, (_, verb, _) in zip(said, TEST, strict=True):
        hits[LEAF_OF[verb]].append(text == f"<{LEAF_OF[verb]}>")
    return {leaf: statistics.mean(own) for leaf, own in hits.items()}


def uniform(seed):
    """Sixteen instructions for each leaf, at random."""
    rng = random.Random(seed)
    return [rng.choice([x for x in FREE if LEAF_OF[x[1]] == leaf]) for leaf in LEAVES for _ in range(16)]


# %% nbgrader={"grade_id": "answer_16_4", "solution": true}
def training_set():
    """At most 64 triples out of FREE."""
    ### BEGIN SOLUTION
    # Each verb once, and one more context for verbs of the two small leaves, so that no leaf is rare. Contexts at random,
    # so that they tell nothing about the leaf.
    rng = random.Random(0)
    data = []
    for verb in [*VERBS, *LEAVES["reverse"], *LEAVES["sort"][:4]]:
        data.append(rng.choice([x for x in FREE if x[1] == verb and x not in data]))
    return data
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_16_4", "locked": true}
def tells_16_4(data, place):
    """How much better than the majority one guesses the leaf from the word at this place alone."""
    leaves = [LEAF_OF[x[1]] for x in data]
    right = 0
    for word in {x[place] for x in data}:
        own = [leaf for leaf, x in zip(leaves, data, strict=True) if x[place] == word]
        right += max(map(own.count, own))
    return (right - max(map(leaves.count, leaves))) / len(data)


def check_16_4(training_set):
    data = checking.calls(training_set, limit=120, slow="Searching is fine, but return a set.")()
    assert isinstance(data, list | tuple), "Return a list of triples."
    data = [tuple(x) for x in data]
    assert len(data) <= 64, f"{len(data)} instructions. The budget is 64."
    test, free = set(TEST), set(FREE)
    leaked = [x for x in data if x in test]
    assert not leaked, f"{leaked[0]} is a test item. Nobody learns anything from a score on what was trained."
    unknown = [x for x in data if x not in free]
    assert not unknown, f"{unknown[0]} is not in FREE."
    assert len(set(data)) == len(data), (
        "An instruction is there twice. That costs budget and teaches nothing new."
    )
    missing = [leaf for leaf in LEAVES if leaf not in {LEAF_OF[x[1]] for x in data}]
    assert not missing, (
        f"No instruction for {missing[0]!r}: its accuracy is 0, and so is that of the worst leaf."
    )
    own = [min(score(data, seed).values()) for seed in (1, 2, 3)]
    told = f"Worst leaf {statistics.median(own):.2f} (three models: {', '.join(f'{x:.2f}' for x in own)})."
    if statistics.median(own) < 0.9:
        for place, word in ((0, "opener"), (2, "closer")):
            assert tells_16_4(data, place) < 0.2, (
                f"{told} In your set the {word} tells the leaf, so the model need not read the verb. In the test it must. "
                "Cross contexts and leaves."
            )
        seen = {leaf: len({x[1] for x in data} & set(verbs)) / len(verbs) for leaf, verbs in LEAVES.items()}
        worst = min(seen, key=seen.get)
        assert seen[worst] >= 0.8, (
            f"{told} The model has never seen {1 - seen[worst]:.0%} of the verbs of {worst!r}. More contexts for a known "
            "verb do not help those."
        )
        size = {leaf: sum(LEAF_OF[x[1]] == leaf for x in data) for leaf in LEAVES}
        small = min(size, key=size.get)
        assert size[small] > 6, (
            f"{told} All verbs of {small!r} are there, but it has {size[small]} of {len(data)} instructions: some models "
            "hardly ever say a leaf that is so rare. Look at several seeds."
        )
        raise AssertionError(f"{told} 0.9 is asked for. Look at score(data, seed) leaf by leaf.")
    print(f"16.4 passed. {told}")


check_16_4(training_set)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# What does the model know about a verb that it has never seen? Count, leaf by leaf, how many it has never seen in a uniform
# set.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# One instruction teaches a verb. A verb that was never seen is guessed, mostly as the most frequent leaf.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 16.5 Open project: can machines replace the authors?
#
# > ●●●●● · 90 minutes · practice
#
# "Instructions that are constructed automatically can take the place of hand-written ones": claim C22 of this course, which
# nobody has ever measured in the article. Choose a real domain that you know (letters of a town hall, a laboratory's
# protocols, …), and plan a study there that can *decide* it. "As good as" is not "no difference was found": it is a claim
# of *non-inferiority*. The interval of (automatic minus hand-written) has to lie above $-m$, where $m$ is the margin.
#
# Authors differ, and so do runs of a generator. So the units are pairs: one author's set against one set of the generator.
# On each set $S$ models are trained, each is measured on $n$ test items. In your pilot (three authors) it was found:
# `PILOT`. `plan()` returns a dict:
#
# - `domain`: your domain and a task in it, at least 40 characters;
# - `margin`: the loss that a user would accept, between $0.01$ and $0.05$, chosen by what it costs the user. Within
#   $0.002$ of the pilot's mean loss it is refused: the pilot must not choose it;
# - `authors`: the number of pairs, a whole number, at least 6; none of the pilot's authors takes part again;
# - `models`: $S$, trained on each set, at least 3; `items`: $n$, test items, at least 100;
# - `size`: instructions of each set, at least 80, the same for both arms. An author needs three minutes for one;
# - `spread`: the standard deviation of the difference of one pair, $\sqrt{a^2 + 2 s^2 / S + D / n}$ with `PILOT`'s
#   $a$ between pairs, $s$ between models of one set (both arms have $S$ of them), $D$ for the discordant items;
# - `power`: the chance that the study ends with "supported" if there is no difference: `power(margin, spread, authors)`, at
#   least $0.8$;
# - `hours`: what all authors need together, at most 60;
# - `minutes`: what all training takes, both arms, with `PILOT["seconds"]` for a model; at most 60;
# - `labels`: who labels the instructions: `"each its own author"`, `"one labeller for both"` or `"the generator"`;
# - `test`: who writes the test: `"the authors"`, `"the generator"` or `"a third person"`;
# - `filter`: what is dropped before training for being a near-copy of the test: `"from neither"`, `"from the generated"`,
#   `"from both"`.
#
# The numbers `spread`, `power`, `hours` and `minutes` are right within $2\%$.
#
# `verdict(differences, margin)` gets one difference per pair (automatic minus hand-written), and returns
# `"supported"`, `"refuted"` (the loss is larger than the margin) or `"open"`. The checker lets 150 studies run for
# each of three truths. It asks for $70\%$ "supported" where there is no difference, for $70\%$ "refuted" where the
# loss is $2.5$ margins, and allows $8\%$ of each where the loss is exactly the margin.
#
# **Rubric** for the part that a machine does not see, one point each, to be given by a colleague who reads your half
# page: (1) a reason for the margin from the domain: who loses what; (2) how authors are chosen and briefed, and why
# the generator gets no better briefing; (3) how the generator's seeds were written, and by whom: is that not
# hand-written, too? (4) what an author could do with the hours that the generator saves, as the fair comparison at
# equal *cost*; (5) what you would say in public after "open".


# %%
from instructlab_utils import intervals

PILOT = {
    "differences": [-0.035, 0.005, -0.015],  # automatic minus hand-written, three pairs
    "between": 0.02,  # a
    "model": 0.025,  # s
    "discordant": 0.2,  # D
    "seconds": 20,  # to train one model
}


def power(effect, spread, pairs):
    """The chance that the interval of 95 % over the pairs lies above -effect if there is no difference."""
    return intervals.power_of_t(effect, spread / math.sqrt(pairs), pairs - 1)


power(0.03, 0.04, 6)  # for example


# %% nbgrader={"grade_id": "answer_16_5", "solution": true}
def plan():
    """The study as a dict."""
    ### BEGIN SOLUTION
    authors, models, items, size, margin = 12, 6, 1500, 100, 0.03
    spread = math.sqrt(PILOT["between"] ** 2 + 2 * PILOT["model"] ** 2 / models + PILOT["discordant"] / items)
    return {
        "domain": "letters to a town hall: to which office does a letter go, and by when?",
        "margin": margin,
        "authors": authors,
        "models": models,
        "items": items,
        "size": size,
        "spread": spread,
        "power": power(margin, spread, authors),
        "hours": authors * size * 3 / 60,
        "minutes": 2 * authors * models * PILOT["seconds"] / 60,
        "labels": "one labeller for both",
        "test": "a third person",
        "filter": "from both",
    }
    ### END SOLUTION


def verdict(differences, margin):
    """supported, refuted or open."""
    ### BEGIN SOLUTION
    interval = intervals.t_interval(differences)
    if interval.low > -margin:
        return "supported"
    return "refuted" if interval.high < -margin else "open"
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_16_5", "locked": true}
KEYS = "domain margin authors models items size spread power hours minutes labels test filter".split()


def plan_16_5(mine):
    """Each rule of the plan, in the order of the statement."""
    assert isinstance(mine, dict) and set(mine) == set(KEYS), (
        f"Return a dict with the keys {', '.join(KEYS)}."
    )
    assert isinstance(mine["domain"], str) and len(mine["domain"]) >= 40, (
        "domain: a domain and a task, 40 characters."
    )
    margin, seen = mine["margin"], -statistics.mean(PILOT["differences"])
    assert isinstance(margin, float) and 0.01 <= margin <= 0.05, "margin: a share between 0.01 and 0.05."
    assert abs(margin - seen) >= 0.002, (
        f"margin: the pilot's mean loss is {seen:.3f}. A margin that the pilot chose says nothing about what a user accepts."
    )
    a, s, n, size = (mine[key] for key in ("authors", "models", "items", "size"))
    for key, least in (("authors", 6), ("models", 3), ("items", 100), ("size", 80)):
        assert type(mine[key]) is int and mine[key] >= least, f"{key}: a whole number, at least {least}." + (
            " Many models or items of few authors say nothing about authors." if key == "authors" else ""
        )
    parts = PILOT["between"] ** 2, 2 * PILOT["model"] ** 2 / s, PILOT["discordant"] / n
    spread = math.sqrt(sum(parts))
    wrong = {
        "spread: both arms have their own models. The variance of a mean over models counts twice.": math.sqrt(
            parts[0] + parts[1] / 2 + parts[2]
        ),
        "spread: authors differ, too, however many models and items you take.": math.sqrt(
            parts[1] + parts[2]
        ),
        "spread: this is the error over all pairs. One pair's spread is asked for.": spread / math.sqrt(a),
        "spread: that is the variance. Take the root.": spread**2,
    }
    checking.equal(
        mine["spread"], spread, "spread", wrong, tol=0.02, says="spread: sqrt(a² + 2 s² / S + D / n)."
    )
    chance = power(margin, spread, a)
    wrong = {
        "power: it is computed as if each model were a pair. Models of one set share its instructions.": power(
            margin, spread, a * s
        ),
        "power: this is the power for the pilot's loss. The margin is what counts.": power(seen, spread, a),
    }
    checking.equal(
        mine["power"], chance, "power", wrong, tol=0.02, says="power: of margin, spread and authors."
    )
    wrong = {"hours: that is one author. All work.": size * 3 / 60, "hours: those are minutes.": a * size * 3}
    checking.equal(
        mine["hours"], a * size * 3 / 60, "hours", wrong, tol=0.02, says="hours: authors × size × 3 / 60."
    )
    minutes = 2 * a * s * PILOT["seconds"] / 60
    wrong = {
        "minutes: both arms are trained.": minutes / 2,
        "minutes: each set trains S models.": 2 * a * PILOT["seconds"] / 60,
    }
    checking.equal(
        mine["minutes"],
        minutes,
        "minutes",
        wrong,
        tol=0.02,
        says="minutes: 2 × authors × models × seconds / 60.",
    )
    assert a * size * 3 / 60 <= 60, f"hours: {a * size * 3 / 60:.0f} hours of authors are more than 60."
    assert minutes <= 60, f"minutes: {minutes:.0f} of training are more than 60. Fewer models or fewer pairs."
    assert chance >= 0.8, (
        f"power: {chance:.2f}. The study would often end with 'open' though nothing is lost. More pairs help most."
    )
    for key, want, says in (
        ("labels", "one labeller for both", "else you compare labels, and not instructions."),
        ("test", "a third person", "a test by one of the two sides is in that side's words."),
        (
            "filter",
            "from both",
            "an author can have seen the test as well as a generator; filter both arms alike.",
        ),
    ):
        assert mine[key] == want, f"{key}: {says}"


def check_16_5(plan, verdict):
    mine = checking.calls(plan)()
    plan_16_5(mine)
    call, rng, margin = checking.calls(verdict), random.Random(165), mine["margin"]
    share = []
    for truth in (0.0, -margin, -2.5 * margin):
        said = [
            call([rng.gauss(truth, mine["spread"]) for _ in range(mine["authors"])], margin)
            for _ in range(150)
        ]
        known = ("supported", "refuted", "open")
        assert set(said) <= set(known), (
            f"verdict: one of {known}, not {next(s for s in said if s not in known)!r}."
        )
        share.append({word: said.count(word) / len(said) for word in known})
    same, edge, worse = share
    assert edge["supported"] <= 0.08, (
        f"verdict: where the loss is the margin, {edge['supported']:.0%} of the studies say 'supported'. That no difference "
        "was found, or that the mean is above -margin, is not enough: the whole interval has to lie above."
    )
    assert edge["refuted"] <= 0.08, (
        f"verdict: where the loss is the margin, {edge['refuted']:.0%} of the studies say 'refuted'. Not shown is not "
        "refuted: that is 'open', unless the whole interval lies below -margin."
    )
    assert same["supported"] >= 0.7, (
        f"verdict: where there is no difference, only {same['supported']:.0%} of the studies say 'supported'. The claim is "
        "not that the machine is better: the interval has to lie above -margin, not above 0."
    )
    assert worse["refuted"] >= 0.7, (
        f"verdict: where the loss is 2.5 margins, only {worse['refuted']:.0%} of the studies say 'refuted'. A study that "
        "cannot refute decides nothing."
    )
    print(
        f"16.5 passed: power {mine['power']:.2f} for {mine['hours']:.0f} hours of authors. Now the half page, and the rubric."
    )


check_16_5(plan, verdict)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Which of the three parts of the spread can you not make smaller by more models and items? What makes its part in the error
# of the mean smaller?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# One interval over the pairs, and one number to compare its two ends with.
#
# </details>
#
# {{solution}}
