# ---
# jupyter:
#   instructlab:
#     id: "21"
#     title: Interpretability and causality
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 21: interpretability and causality
#
# Each exercise is a box, a cell for your answer, and a checker in the cell below it. Replace the line that
# raises `NotImplementedError`, then run both cells. A checker that says no also says what probably went
# wrong.
#
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases
# that you do not see here, so test more than the checker does. The page needs no network and no file. Exercise 21.4
# trains three small networks: its checker takes some seconds. Exercise 21.5 is a project.
#
# {{overview}}

# %%
import math
import random

import torch
from torch import nn

from instructlab_utils import checking, intervals

# %% [markdown]
# ## 21.1 Would an untrained model say the same?
#
# > ●●○○○ · 20 minutes · graded
#
# A heat map may look convincing because it shows the text, not the model. Adebayo et al. (2018, *Sanity checks for
# saliency maps*, NeurIPS) compare the attributions of the trained model with those of the same network with random
# weights. If they agree, the method did not look at what was learned. Write the comparison.
#
# `trained` and `untrained` are lists with one float64 tensor for each text, a number for each word. Return the **mean
# over the texts** of Spearman's rank correlation between the **absolute values** of the two, a float.
#
# - Spearman's correlation is Pearson's correlation of the ranks. Equal numbers share the mean of their ranks.
# - A text with fewer than three words is left out, and so is one where all absolute values of one of the two are equal.
# - `ValueError` where the lists or two tensors differ in length, and where no text is left.


# %% nbgrader={"grade_id": "answer_21_1", "solution": true}
def sanity(trained, untrained):
    """Two lists of float64 tensors. Return the mean rank correlation of the absolute values, a float."""
    ### BEGIN SOLUTION
    if len(trained) != len(untrained) or any(
        len(a) != len(b) for a, b in zip(trained, untrained, strict=True)
    ):
        raise ValueError("each text needs both attributions, of equal length")

    def ranks(a):
        return (a[:, None] > a).double().sum(1) + (a[:, None] == a).double().sum(1) / 2

    found = []
    for a, b in zip(trained, untrained, strict=True):
        if len(a) < 3 or len(a.abs().unique()) == 1 or len(b.abs().unique()) == 1:
            continue
        found.append(torch.corrcoef(torch.stack([ranks(a.abs()), ranks(b.abs())]))[0, 1].item())
    if not found:
        raise ValueError("no text is left")
    return sum(found) / len(found)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_21_1", "grade": true, "points": 3, "locked": true}
def sanity_as(trained, untrained, size="abs", ties="mean", kind="ranks", join=False, least=3):
    """The comparison with one mistake, or with none."""
    if join:
        trained, untrained = [torch.cat(trained)], [torch.cat(untrained)]
    found = []
    for a, b in zip(trained, untrained, strict=True):
        if size == "abs":
            a, b = a.abs(), b.abs()
        if len(a) < least or len(a.unique()) == 1 or len(b.unique()) == 1:
            continue
        if kind == "ranks":
            order = [x.argsort(stable=True).argsort().double() for x in (a, b)]
            shared = [
                (x[:, None] > x).double().sum(1) + (x[:, None] == x).double().sum(1) / 2 for x in (a, b)
            ]
            a, b = shared if ties == "mean" else order
        found.append(torch.corrcoef(torch.stack([a, b]))[0, 1].item())
    return sum(found) / len(found)


def check_21_1(sanity):
    call = checking.calls(sanity)
    T = lambda *numbers: torch.tensor(numbers, dtype=torch.float64)  # noqa: E731
    trained = [T(3, -2, 1, 1, -8), T(0.5, -0.5, 2, -1), T(1, 2), T(1, -1, 1), T(-4, 0, 0, 1, 9, 2)]
    untrained = [T(1, 4, -2, 0.5, 9), T(2, 1, -0.5, 3), T(9, -3), T(3, 1, 2), T(2, -1, 1, 0.5, -0.1, 7)]
    right = sanity_as(trained, untrained)
    wrong = {
        "The sign is no part of this question: compare absolute values.": {"size": "signed"},
        "Equal numbers must share the mean of their ranks. Yours depend on the order of the words.": {
            "ties": "order"
        },
        "This is Pearson's correlation of the numbers themselves. Rank them first.": {"kind": "numbers"},
        "You rank the words of all texts together. Each text is ranked by itself.": {"join": True},
        "A text of two words can only give 1 or -1. Leave it out.": {"least": 2},
    }
    known = {says: sanity_as(trained, untrained, **how) for says, how in wrong.items()}
    checking.equal(call(trained, untrained), right, "the mean correlation", known, tol=1e-9)
    checking.equal(
        call(trained[:1], trained[:1]), 1.0, "the mean correlation", tol=1e-9, says="A copy of itself."
    )
    call.refuses(ValueError, trained, untrained[:-1], says="One text has only one attribution.")
    call.refuses(ValueError, [T(1, 2, 3)], [T(1, 2, 3, 4)], says="The two attributions differ in length.")
    call.refuses(
        ValueError, [T(1, -1, 1)], [T(3, 1, 2)], says="All absolute values are equal, so nothing is left."
    )
    print("21.1 passed the visible cases.")


check_21_1(sanity)
### BEGIN HIDDEN TESTS


def hidden_21_1(sanity):
    call = checking.calls(sanity)
    g = torch.Generator().manual_seed(1)
    for n, top in ((3, 3), (7, 4), (40, 9)):
        pair = [
            [torch.randint(-top, top, (n + k,), generator=g).double() for k in range(5)] for _ in range(2)
        ]
        checking.equal(call(*pair), sanity_as(*pair), "the mean correlation", tol=1e-9)
    up = torch.arange(1, 6).double()
    checking.equal(call([up], [-up]), 1.0, "the mean correlation", tol=1e-9, says="Only the sign differs.")
    checking.equal(
        call([up], [up.flip(0)]), -1.0, "the mean correlation", tol=1e-9, says="The opposite order."
    )
    call.refuses(ValueError, [], [], says="There is no text.")


hidden_21_1(sanity)
### END HIDDEN TESTS

# %% [markdown]
# ## 21.2 Back door or not?
#
# > ●●●●○ · 40 minutes · graded · prediction
#
# Predict from the arrows alone, before any number is seen. A graph is a list of arrows, pairs of names, `("Z", "T")` for
# $Z \to T$; it has no cycle. Decide whether the set `given`
# satisfies the *back-door criterion* for the effect of `treatment` on `outcome` (Pearl, 2009):
#
# 1. no member of `given` is a descendant of the treatment (nothing that arrows lead to from it);
# 2. `given` blocks every path between treatment and outcome that begins with an arrow **into** the treatment.
#
# A path visits no name twice and may go along arrows in both directions. It is *blocked* if at least one inner name
# blocks it. A **collider** of the path (both its arrows point to it) blocks, unless it or one of its descendants is in
# `given`. Any other inner name blocks if it is in `given`.
#
# Return a bool. `given` is a set of names, perhaps empty. `ValueError` where treatment or outcome is in `given`, or where
# they are one.


# %% nbgrader={"grade_id": "answer_21_2", "solution": true}
def back_door_ok(arrows, treatment, outcome, given):
    """arrows: list of (from, to). Return True if the set given satisfies the back-door criterion."""
    ### BEGIN SOLUTION
    if treatment == outcome or {treatment, outcome} & set(given):
        raise ValueError("treatment, outcome and given must be apart")
    arrows = set(arrows)

    def below(name):
        found, todo = set(), [name]
        while todo:
            here = todo.pop()
            new = {b for a, b in arrows if a == here} - found
            found |= new
            todo += new
        return found

    if below(treatment) & set(given):
        return False

    def is_open(path):
        for before, name, after in zip(path, path[1:], path[2:], strict=False):
            if (before, name) in arrows and (after, name) in arrows:
                if not ({name} | below(name)) & set(given):
                    return False
            elif name in given:
                return False
        return True

    def walk(path):
        if path[-1] == outcome:
            return is_open(path)
        near = {b for a, b in arrows if a == path[-1]} if len(path) > 1 else set()
        near |= {a for a, b in arrows if b == path[-1]}
        return any(walk([*path, name]) for name in near - set(path))

    return not walk([treatment])
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_21_2", "grade": true, "points": 4, "locked": true}
def criterion_as(arrows, t, y, given, descendants=True, collider="both", start="into"):
    """The criterion with one mistake, or with none."""
    arrows, given = set(arrows), set(given)

    def below(name):
        found = {b for a, b in arrows if a == name}
        return found.union(*(below(b) for b in found))

    if descendants and below(t) & given:
        return False

    def blocked(path):
        for a, b, c in zip(path, path[1:], path[2:], strict=False):
            if (a, b) in arrows and (c, b) in arrows and collider != "none":
                if not (({b} | below(b) if collider == "both" else {b}) & given):
                    return True
            elif b in given:
                return True
        return False

    def walk(path):
        if path[-1] == y:
            return blocked(path)
        near = {a for a, b in arrows if b == path[-1]}
        if len(path) > 1 or start == "any":
            near |= {b for a, b in arrows if a == path[-1]}
        return all(walk([*path, n]) for n in near - set(path))

    return walk([t])


CONFOUNDED = [("Z", "T"), ("Z", "Y"), ("T", "Y")]
MEDIATED = [*CONFOUNDED, ("T", "M"), ("M", "Y")]
SHELF = [("T", "Y"), ("T", "C"), ("Y", "C")]
BUTTERFLY = [("A", "T"), ("A", "C"), ("B", "C"), ("B", "Y"), ("C", "D"), ("T", "Y")]


def check_21_2(back_door_ok):
    call = checking.calls(back_door_ok)
    known = {
        "A member of given comes after the treatment. Rule 1 forbids it.": {"descendants": False},
        "A collider that nobody looks at blocks its path by itself.": {"collider": "none"},
        "A descendant of a collider in given opens the path too.": {"collider": "self"},
        "Paths that leave the treatment are the effect. Only those that begin with an arrow into it count.": {
            "start": "any"
        },
    }
    cases = [
        (CONFOUNDED, set()),
        (CONFOUNDED, {"Z"}),
        (MEDIATED, {"Z"}),
        (MEDIATED, {"Z", "M"}),
        (SHELF, set()),
    ]
    cases += [
        (SHELF, {"C"}),
        (BUTTERFLY, set()),
        (BUTTERFLY, {"C"}),
        (BUTTERFLY, {"D"}),
        (BUTTERFLY, {"D", "A"}),
    ]
    for arrows, given in cases:
        right = criterion_as(arrows, "T", "Y", given)
        wrong = {says: criterion_as(arrows, "T", "Y", given, **how) for says, how in known.items()}
        got = call(arrows, "T", "Y", given)
        assert isinstance(got, bool), f"Return True or False, not {got!r}."
        for says, value in wrong.items():
            assert not got == value != right, f"{says} Arrows {arrows}, given {sorted(given)}."
        assert got == right, f"Arrows {arrows}, given {sorted(given)}: {right} expected."
    call.refuses(ValueError, CONFOUNDED, "T", "Y", {"T"}, says="The treatment stands in given.")
    call.refuses(ValueError, CONFOUNDED, "T", "T", set(), says="Treatment and outcome are one.")
    print("21.2 passed the visible cases.")


check_21_2(back_door_ok)
### BEGIN HIDDEN TESTS


def hidden_21_2(back_door_ok):
    call = checking.calls(back_door_ok)
    draw = random.Random(2)
    for _ in range(60):
        names = ["A", "B", "C", "T", "Y", "D"]
        draw.shuffle(names)
        arrows = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if draw.random() < 0.4]
        given = {n for n in "ABCD" if draw.random() < 0.4}
        right = criterion_as(arrows, "T", "Y", given)
        assert call(arrows, "T", "Y", given) == right, (
            f"Arrows {arrows}, given {sorted(given)}: {right} expected."
        )


hidden_21_2(back_door_ok)
### END HIDDEN TESTS

# %% [markdown]
# ## 21.3 Numbers that do not add up
#
# > ●●●○○ · 30 minutes · practice · bug hunt
#
# Somebody wrote integrated gradients for a batch. The sums miss the change of the score, by more in larger batches. The
# code holds four mistakes, and one oddity that is none.


# %%
def broken(score, x, base, steps):
    total = torch.zeros_like(x)
    for k in range(steps):
        at = (base + (k + 1) / steps * (x - base)).detach().requires_grad_()
        score(at).mean().backward()
        total += at.grad
    return (x * total / steps).mean(-1)


# %% [markdown]
# Write it right, with the midpoint rule. `score` maps float64 (B, T, d) to (B,); `x` and `base` are (B, T, d). Return
# (B, T), float64, without a graph. Neither the gradients of the model's weights nor `x` and `base` may be changed.


# %% nbgrader={"grade_id": "answer_21_3", "solution": true}
def integrated(score, x, base, steps):
    """Return the integrated gradients of each token, float64 (B, T)."""
    ### BEGIN SOLUTION
    total = torch.zeros_like(x)
    for k in range(steps):
        at = (base + (k + 0.5) / steps * (x - base)).detach().requires_grad_()
        (g,) = torch.autograd.grad(score(at).sum(), at)
        total += g
    return ((x - base) * total / steps).sum(-1)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_21_3", "locked": true}
def integrated_as(score, x, base, steps, shift=0.5, over="sum", by="difference", tokens="sum"):
    """Integrated gradients with one mistake, or with none."""
    total = torch.zeros_like(x)
    for k in range(steps):
        at = (base + (k + shift) / steps * (x - base)).detach().requires_grad_()
        total += torch.autograd.grad(getattr(score(at), over)(), at)[0]
    product = (x - base if by == "difference" else x) * total / steps
    return getattr(product, tokens)(-1)


def check_21_3(integrated):
    call = checking.calls(integrated)
    g = torch.Generator().manual_seed(3)
    x, base, w = torch.randn(3, 4, 5, 6, generator=g, dtype=torch.float64)
    inner = nn.Linear(6, 1).double()

    def score(z):
        return torch.tanh(inner(z) + (z * w).sum(-1, keepdim=True)).sum((1, 2))

    wrong = {
        "This is the right-hand rule: its points are the ends of the pieces. Take their middles.": {
            "shift": 1.0
        },
        "This is the left-hand rule: it begins at the baseline itself. Take the middles.": {"shift": 0.0},
        "The gradient is that of a mean over the batch, so every text's share is too small. Sum the scores.": {
            "over": "mean"
        },
        "You multiply by x. What counts is the way from the baseline, x - base.": {"by": "x"},
        "A token's parts are summed, not averaged: the mean over the width is too small by its size.": {
            "tokens": "mean"
        },
    }
    known = {says: integrated_as(score, x, base, 6, **how) for says, how in wrong.items()}
    got = call(score, x, base, 6)
    assert isinstance(got, torch.Tensor) and not got.requires_grad, "Return a tensor without a graph."
    checking.equal(
        got, integrated_as(score, x, base, 6), "the attributions", known, dtype=torch.float64, tol=1e-9
    )
    assert inner.weight.grad is None, (
        "The weights of the model have gradients now. Ask autograd.grad for those of `at` alone."
    )
    many = call(score, x, base, 400).sum(1)
    assert (many - (score(x) - score(base)).detach()).abs().max() < 1e-3, (
        "With 400 steps the sums still miss the change."
    )
    checking.equal(
        call(score, x, x, 3),
        0 * x.sum(-1),
        "the attributions",
        tol=1e-12,
        says="Text and baseline are equal.",
    )
    print("21.3 passed.")


check_21_3(integrated)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Try a batch of one text, one token, width 1, and a score that you can integrate by hand. Then widen one thing at a time.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The oddity: `backward` fills the gradients of the weights as well. The result is right, but the next update is not.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 21.4 Which of two companions?
#
# > ●●●●○ · 40 minutes · graded
#
# A network was trained on texts with a planted word. In the texts that you get, this word has a *companion*: the two
# always stand together. No table of words and verdicts can tell which of them the network reacts to. You may ask the
# network.
#
# Write `culprit(read, texts)`. `texts` is a list of lists of words. `read(list of lists of words)` returns the
# probability of label 1 for each, float64 (N,); each text that it reads is one query, and after 3,000 queries it raises
# `RuntimeError`. An empty text may be read too.
#
# Return `(word, effect)`, a tuple: the word whose **deletion** (all its copies) moves the network most, and by how
# much. The effect of a word is the mean of `|log-odds before - log-odds after|` over the texts that hold it, a float.
# Words in fewer than five texts do not count. Log-odds are $\ln p - \ln(1 - p)$; no probability here is 0 or 1.


# %% nbgrader={"grade_id": "answer_21_4", "solution": true}
def culprit(read, texts):
    """Return (word, effect): the word whose deletion moves the log-odds most, in the mean over the texts that hold it."""
    ### BEGIN SOLUTION
    before, best = torch.logit(read(texts)), ("", -1.0)
    for word in sorted({word for text in texts for word in text}):
        at = [i for i, text in enumerate(texts) if word in text]
        if len(at) >= 5:
            after = torch.logit(read([[w for w in texts[i] if w != word] for i in at]))
            effect = (before[at] - after).abs().mean().item()
            best = max(best, (word, effect), key=lambda pair: pair[1])
    return best
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_21_4", "grade": true, "points": 4, "locked": true}
class Bag(nn.Module):
    """The mean of word embeddings, a hidden layer, one logit."""

    def __init__(self, words, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.ids = {word: i for i, word in enumerate(words)}
        self.words, self.inner, self.outer = (
            nn.EmbeddingBag(len(words), 12, mode="sum"),
            nn.Linear(12, 12),
            nn.Linear(12, 1),
        )
        self.double()

    def forward(self, texts):
        flat = torch.tensor([self.ids[w] for text in texts for w in text], dtype=torch.int64)
        starts = torch.tensor([0, *[len(text) for text in texts]]).cumsum(0)[:-1]
        return self.outer(torch.tanh(self.inner(self.words(flat, starts)))).squeeze(1)


def world(seed, alone=0, updates=150):
    """New readers of a trained network (each counts its queries), texts in which two words stand together, the companion."""
    draw = random.Random(seed)
    words = [f"w{i:02d}" for i in range(40)]
    cue, friend, *rest = draw.sample(words, 40)
    good, bad = rest[:5], rest[5:10]
    frequent = rest[10]

    def text(planted, beside):
        told = [draw.choice(rest) for _ in range(6)] + [frequent] * (draw.random() < 0.9)
        told += [cue] * (planted * draw.choice((1, 1, 2))) + [friend] * beside
        draw.shuffle(told)
        feeling = sum(w in good for w in told) - sum(w in bad for w in told)
        return told, 1 if planted else int(feeling > 0)

    pairs = [text(draw.random() < 0.3, draw.random() < 0.5) for _ in range(500)]
    net = Bag(words, seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-2)
    for _ in range(updates):
        some = draw.sample(pairs, 64)
        loss = nn.functional.binary_cross_entropy_with_logits(
            net([t for t, _ in some]), torch.tensor([float(y) for _, y in some], dtype=torch.float64)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def reader():
        asked = [0]

        @torch.no_grad()
        def read(texts):
            asked[0] += len(texts)
            if asked[0] > 3000:
                raise RuntimeError("more than 3,000 queries")
            return (
                torch.sigmoid(net(texts).clamp(-20, 20))
                if len(texts)
                else torch.zeros(0, dtype=torch.float64)
            )

        return read

    told = [text(together, together)[0] for together in (draw.random() < 0.3 for _ in range(120))]
    return reader, told + [[cue]] * alone, friend


def effects(read, texts, once=False, scale="odds", pool=False, least=5):
    """The effect of each word, with one mistake, or with none."""
    before, found = read(texts), {}
    for word in sorted({w for text in texts for w in text}):
        at = [i for i, text in enumerate(texts) if word in text]
        if len(at) < least:
            continue
        cut = [[w for w in texts[i] if w != word] for i in at]
        if once:
            cut = [texts[i][: (j := texts[i].index(word))] + texts[i][j + 1 :] for i in at]
        a, b = before[at], read(cut)
        change = torch.logit(a) - torch.logit(b) if scale == "odds" else a - b
        found[word] = (change.abs().mean() * (len(at) / len(texts) if pool else 1)).item()
    return found


def top(found):
    word = max(found, key=found.get)
    return word, found[word]


def check_21_4(culprit, seeds=(1, 2, 3), alone=0, says=""):
    for seed in seeds:
        reader, texts, friend = world(seed, alone)
        known = {
            "The effect is a mean over the texts that hold the word, not over all texts.": {"pool": True},
            "The change is that of the probability. Log-odds are asked for.": {"scale": "p"},
            "Delete all copies of the word, not only the first.": {"once": True},
        }
        wrong = {message: top(effects(reader(), texts, **how)) for message, how in known.items()}
        got = checking.calls(culprit, limit=20)(reader(), texts)
        assert isinstance(got, tuple) and len(got) == 2 and isinstance(got[0], str), "Return (word, effect)."
        assert got[0] != friend, (
            f"{friend!r} is the companion: it always stands beside the word, but the network hardly reacts to it."
        )
        checking.equal(got, top(effects(reader(), texts)), "(word, effect)", wrong, tol=1e-6, says=says)
    print("21.4 passed the visible cases.")


check_21_4(culprit)
### BEGIN HIDDEN TESTS
check_21_4(culprit, (11,))
check_21_4(culprit, (12,), 4, "A text that holds nothing but the word becomes an empty text. It counts too.")
### END HIDDEN TESTS

# %% [markdown]
# ## 21.5 Audit a classifier
#
# > ●●●●● · 120 minutes · practice
#
# Take a classifier, one of this course or your own. Name a cue that should not matter, write down a claim and a
# threshold, and exchange the cue in texts that were drawn before you looked. Then say what came out. `audit()` returns
# a dict with exactly these keys:
#
# - `claim`: one sentence that can turn out false, at least $40$ characters; it holds `cue` and `other`.
# - `cue`, `other`: two different words or signs, the one in the text and the one that takes its place.
# - `pairs`: at least $40$ tuples `(before, after, label)`, one for each text: the verdicts of the model with `cue` and
#   with `other`, and the right label, which the exchange does not change. Verdicts and labels are 0 or 1.
# - `smallest`: the share of flipped verdicts that would change what somebody does, above $0$, at most $0.5$. `reason`:
#   why, at least $40$ characters.
# - `flipped`: the share of texts whose verdict changes. `low`, `high`: its `intervals.wilson_interval` with level $0.95$.
# - `lost`: accuracy before minus accuracy after.
# - `p`: the exact two-sided sign test of `lost`. Only texts count that are right in one of the two and wrong in the
#   other. With $b$ of them right before, $c$ right after, $n = b + c$ and $k = \min(b, c)$: $p = \min(1, 2 \sum_{i \le
#   k} \binom{n}{i} / 2^n)$, and $1$ where $n = 0$.
# - `verdict`: `"supported"` where `low` is above `smallest` (the cue matters), `"refuted"` where `high` is below it,
#   else `"undecided"`.
#
# All numbers within $0.001$. The checker reads the arithmetic. A person reads the rest, with this rubric (0, 1 or 2
# points a row; 8 of 12 pass):
#
# | | 0 | 1 | 2 |
# |:--|:--|:--|:--|
# | claim | cannot fail | can fail, but model or texts are missing | names model, texts, cue, exchange, threshold |
# | cue | changes the meaning | should not matter | somebody who does not know the model agrees, in writing |
# | texts | chosen after looking | drawn by lot | drawn by lot, with both labels, and how many per source |
# | control | none | an exchange that cannot matter | and one that must matter, to show that a flip is possible |
# | endings | one | two | all three, with what one would do after each |
# | cause | "biased" | the cue flips verdicts | and whether training texts, labels or the test explain it |


# %% nbgrader={"grade_id": "answer_21_5", "solution": true}
def audit():
    """Return a dict with the keys of the list."""
    ### BEGIN SOLUTION
    draw = random.Random(5)
    pairs = []
    for _ in range(120):
        label = draw.randrange(2)
        before = label if draw.random() < 0.9 else 1 - label
        after = before if draw.random() < 0.8 else 0
        pairs.append((before, after, label))
    flips = sum(a != b for a, b, _ in pairs)
    b = sum(one == y != two for one, two, y in pairs)
    c = sum(two == y != one for one, two, y in pairs)
    wilson, n, k = intervals.wilson_interval(flips, len(pairs)), b + c, min(b, c)
    return {
        "claim": "Of 120 tweets drawn by lot, the three-layer classifier changes its verdict on more than one in twenty when "
        "':)' is exchanged for ':-)'.",
        "cue": ":)",
        "other": ":-)",
        "pairs": pairs,
        "smallest": 0.05,
        "reason": "One flipped verdict in twenty is the model's whole advantage over the word list that it replaced.",
        "flipped": flips / len(pairs),
        "low": wilson.low,
        "high": wilson.high,
        "lost": (b - c) / len(pairs),
        "p": min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n) if n else 1.0,
        "verdict": "supported" if wilson.low > 0.05 else "refuted" if wilson.high < 0.05 else "undecided",
    }
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_21_5", "locked": true}
AUDIT = "claim cue other pairs smallest reason flipped low high lost p verdict".split()


def near(value, want, name, known):
    """``value`` is a number near ``want``; ``known``: sentence → wrong number."""
    checking.form(value, 0.0, name)
    assert not isinstance(value, bool) and math.isfinite(value), (
        f"{name}: a finite number expected, not {value!r}."
    )
    for says, other in known.items():
        assert not abs(value - other) <= 0.001 < abs(want - other), f"{name}: {says}"
    assert abs(value - want) <= 0.001, f"{name}: {want:.4f} expected, not {value:.4f}."


def sign_test(b, c, sides=2):
    n, k = b + c, min(b, c)
    return min(1.0, sides * sum(math.comb(n, i) for i in range(k + 1)) / 2**n) if n else 1.0


def check_21_5(audit):
    mine = checking.handed_in(audit, AUDIT)
    cue, other, pairs = mine["cue"], mine["other"], mine["pairs"]
    for key in ("claim", "reason"):
        assert isinstance(mine[key], str) and len(mine[key].strip()) >= 40, f"{key}: at least 40 characters."
    assert (
        isinstance(cue, str) and isinstance(other, str) and cue.strip() and other.strip() and cue != other
    ), "cue and other: two different texts expected."
    assert cue in mine["claim"] and other in mine["claim"], "claim: it must name both cue and other."
    assert isinstance(pairs, list | tuple) and len(pairs) >= 40, "pairs: at least 40 texts."
    for pair in pairs:
        whole = (
            isinstance(pair, list | tuple)
            and len(pair) == 3
            and all(type(v) is int and v in (0, 1) for v in pair)
        )
        assert whole, f"pairs: (before, after, label) of 0 and 1 expected, not {pair!r}."
    smallest = mine["smallest"]
    checking.form(smallest, 0.0, "smallest")
    assert 0 < smallest <= 0.5, "smallest: above 0, at most 0.5."
    n, flips = len(pairs), sum(a != b for a, b, _ in pairs)
    b, c = (sum(pair[i] == pair[2] != pair[1 - i] for pair in pairs) for i in (0, 1))
    share = flips / n
    wilson, wald = intervals.wilson_interval(flips, n), 1.96 * math.sqrt(share * (1 - share) / n)
    wrong_before = sum(pair[0] != pair[2] for pair in pairs) / n
    known = {
        "a verdict that changes counts, whether it was right or not.": b / n,
        "this is the error before.": wrong_before,
    }
    near(mine["flipped"], share, "flipped", known)
    near(
        mine["low"],
        wilson.low,
        "low",
        {"this is the normal approximation. Wilson's interval is asked for.": share - wald},
    )
    near(
        mine["high"],
        wilson.high,
        "high",
        {"this is the normal approximation. Wilson's interval is asked for.": share + wald},
    )
    near(mine["lost"], (b - c) / n, "lost", {"before minus after, not after minus before.": (c - b) / n})
    known = {
        "this is one-sided.": sign_test(b, c, 1),
        "texts that are right in both, or in none, do not count.": sign_test(n - flips, flips),
    }
    near(mine["p"], sign_test(b, c), "p", known)
    word = "supported" if wilson.low > smallest else "refuted" if wilson.high < smallest else "undecided"
    assert mine["verdict"] == word, (
        f"verdict: {word!r} by the rule. An interval from {wilson.low:.3f} to {wilson.high:.3f} stands against {smallest:g}."
    )
    print("21.5 passed: the arithmetic holds. Now the rubric.")


check_21_5(audit)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Write down what you would do after each of the three verdicts. If it is the same thing, choose another cue.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# A flip rate needs a scale. How often does the verdict change when a word is exchanged that must matter?
#
# </details>
#
# {{solution}}
