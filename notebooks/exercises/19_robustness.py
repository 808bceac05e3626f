# ---
# jupyter:
#   instructlab:
#     id: "19"
#     title: Robustness
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 19: robustness
#
# Each exercise is a box, a cell for your answer, and a checker in the cell below it. Replace the line that
# raises `NotImplementedError`, then run both cells. A checker that says no also says what probably went
# wrong.
#
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases
# that you do not see here, so test more than the checker does. The page needs no network and no file. Exercise 19.4
# trains small heads: its checker takes about twenty seconds. Exercise 19.5 is a project.
#
# {{overview}}

# %%
import itertools
import math
import random

import torch
from torch import nn
from torch.nn import functional as F

from instructlab_utils import checking

# %% [markdown]
# ## 19.1 Two kinds of balls
#
# > ●●●○○ · 40 minutes · graded
#
# In the lesson each *text* has one ball, so an attack may spend the whole radius on one token. Other methods give each
# *token* a ball of its own. Write **one step** of an attack for both. `x`, `delta` and `g` have the shape $(B, T, d)$:
# embeddings, the movement so far, the gradient of the loss with respect to it. `mask` has the shape $(B, T)$, 1 at
# real tokens, 0 at padding (whole numbers).
#
# - `unit = "text"`: a text has the radius $R =$ `radius` $\cdot \lVert x \rVert$, the Euclidean norm over its real tokens.
#   `unit = "token"`: each real token $t$ has the radius $R_t =$ `radius` $\cdot \lVert x_t \rVert$.
# - Add to `delta` a step of the length `step` $\cdot R$ in the direction of $g$, as measured in the same unit. A unit
#   whose gradient is zero gets no step.
# - Return to the nearest point of each unit's ball.
# - At padding the result is exactly $0$. What stands at padding in `x`, `delta` and `g` may be anything, also `nan` or
#   `inf`, and must not matter.
#
# Return the new `delta` in the dtype of the old one, and change no argument. Gradients can be very small ($10^{-30}$ in
# float64) or very large; the direction is what counts. Raise `ValueError` for another unit.


# %% nbgrader={"grade_id": "answer_19_1", "solution": true}
def move(delta, g, x, mask, radius, step, unit):
    """One step of an attack. Return the new delta, (B, T, d)."""
    ### BEGIN SOLUTION
    if unit not in ("text", "token"):
        raise ValueError(f"unknown unit {unit!r}: text or token")
    real = mask[..., None].bool()
    delta, g, x = (torch.where(real, t, torch.zeros_like(t)) for t in (delta, g, x))
    dims = (1, 2) if unit == "text" else (2,)

    def norm(t):
        top = t.abs().amax(dims, keepdim=True)
        top = torch.where(top > 0, top, torch.ones_like(top))  # no underflow in the squares
        return top * (t / top).square().sum(dims, keepdim=True).sqrt()

    def unit_of(t):
        n = norm(t)
        return t / torch.where(n > 0, n, torch.ones_like(n))

    R = radius * norm(x)
    new = delta + step * R * unit_of(g)
    n = norm(new)
    return new * (R / torch.where(n > R, n, torch.ones_like(n))).where(n > R, torch.ones_like(n))
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_19_1", "grade": true, "points": 3, "locked": true}
def moved(delta, g, x, mask, radius, step, unit, bug=""):
    """The step in plain loops, in float64, with one or another bug for the messages."""
    out = torch.zeros_like(delta, dtype=torch.float64)
    units = []
    for b in range(len(x)):
        real = [t for t in range(x.shape[1]) if mask[b, t]]
        units += [[(b, t) for t in real]] if unit == "text" else [[(b, t)] for t in real]
    if bug == "batch":
        units = [[place for one in units for place in one]]
    for places in units:
        d, grad, own = (torch.cat([t[b, i].double() for b, i in places]) for t in (delta, g, x))
        top = grad.abs().max()
        R = radius * (own.norm() if bug != "plain radius" else 1.0)
        way = (grad / top) / (grad / top).norm() if top > 0 else grad
        if bug == "sign":
            way = grad.sign() / max(1.0, math.sqrt(len(grad)))
        new = d + (-1 if bug == "down" else 1) * step * R * way
        if bug == "step only":
            new = d + step * R * way * min(1.0, 1 / step)
        elif new.norm() > R or bug == "on the sphere":
            new = new * (R / new.norm())
        for (b, t), row in zip(places, new.view(-1, x.shape[2]), strict=True):
            out[b, t] = row
    return out


def case_19_1(seed, dtype=torch.float64, scale=1.0, pad=0.0):
    draw = torch.Generator().manual_seed(seed)
    x, g, delta = (torch.randn(3, 4, 5, generator=draw).to(dtype) for _ in range(3))
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
    for t in (x, g, delta):
        t[mask == 0] = pad
    return [0.05 * delta, scale * g, x, mask]


BUGS_19_1 = {
    "One norm for the whole batch: each text (or token) has a ball and a direction of its own.": "batch",
    "The radius is a share of the norm of x, not a number by itself.": "plain radius",
    "That is a step along the signs of the gradient: the ball of another norm.": "sign",
    "You go down the gradient. An attack makes the loss larger.": "down",
    "Only the step is kept short. The whole movement has to lie in the ball.": "step only",
    "Every movement is scaled to the radius. A point inside the ball stays where it is.": "on the sphere",
}


def check_19_1(move):
    call = checking.calls(move)
    for unit in ("text", "token"):
        for step in (0.1, 0.5, 3.0):
            args = [*case_19_1(1), 0.2, step, unit]
            wrong = {says: moved(*args, bug=bug) for says, bug in BUGS_19_1.items()}
            other = [*args[:-1], "token" if unit == "text" else "text"]
            wrong[f"This is the step of the other unit; {unit!r} was asked for."] = moved(*other)
            want = moved(*args)
            wrong = {says: value for says, value in wrong.items() if not torch.allclose(value, want)}
            checking.equal(call(*args), want, f"delta ({unit}, step {step})", wrong)
    call.refuses(ValueError, *case_19_1(1), 0.2, 0.5, "batch", says="There are two units: text and token.")
    print("19.1 passed the visible cases.")


check_19_1(move)
### BEGIN HIDDEN TESTS


def hidden_19_1(move):
    call = checking.calls(move)
    for unit in ("text", "token"):
        for pad in (7.0, float("nan"), float("inf")):
            args = [*case_19_1(2, pad=pad), 0.1, 0.5, unit]
            got = call(*args)
            checking.form(got, args[0], "delta")
            assert got.isfinite().all(), (
                f"What stands at padding ({pad}) reached the result. 0 times nan is nan."
            )
            assert (got[args[3] == 0] == 0).all(), "At padding the result must be exactly 0."
            checking.equal(got, moved(*args), "delta", says="What stands at padding must not matter.")
        for scale in (1e-30, 1e-200, 1e30):
            args = [*case_19_1(3, scale=scale), 0.1, 0.5, unit]
            says = f"A gradient of the size {scale:g} has a direction: squares underflow, and 1e-12 is not small beside it."
            checking.equal(call(*args), moved(*args), "delta", says=says)
        args = [*case_19_1(4), 0.1, 0.5, unit]
        args[1][0] = 0
        checking.equal(call(*args), moved(*args), "delta", says="A unit without a gradient gets no step.")
        args = [*case_19_1(5, torch.float32), 0.1, 0.5, unit]
        checking.equal(call(*args), moved(*args).float(), "delta", dtype=torch.float32, tol=1e-5)


hidden_19_1(move)
### END HIDDEN TESTS

# %% [markdown]
# ## 19.2 A guard that looks at the neighbours
#
# > ●●○○○ · 30 minutes · practice
#
# The lesson's guard finds words that mix alphabets. It misses a word of which *every* letter was exchanged: a Cyrillic
# `а` in an English text. Write a guard that repairs. `twins` is a dict from foreign letters to the Latin letters that
# they look like; every key and every value is one character.
#
# - A *word* is a longest run of characters that are no white space (as `str.split` has it). Its *letters* are the
#   characters for which `str.isalpha` holds. A *Latin* letter is one of `a` to `z` or `A` to `Z`.
# - A word is **suspicious** if it holds a key of `twins` and at least one Latin letter.
# - A word is **also suspicious** if it has letters, all of them are keys of `twins`, and of the letters in the *other*
#   words of the text more than half are Latin. With no letters in the other words it is not.
# - In suspicious words each key of `twins` becomes its value. Everything else, white space included, stays as it is.
#
# Return the text. A Russian text keeps its Russian words, also those that are made of twins alone.


# %%
TWINS = dict(zip("асеіорхуАСЕОРХ", "aceiopxyACEOPX", strict=True))


# %% nbgrader={"grade_id": "answer_19_2", "solution": true}
def restored(text, twins):
    """The text with the letters of suspicious words replaced."""
    ### BEGIN SOLUTION
    import re

    def latin(letters):
        return sum(c.isascii() for c in letters)

    parts = re.split(r"(\s+)", text)
    letters = [[c for c in part if c.isalpha()] for part in parts]
    for i, part in enumerate(parts):
        own = letters[i]
        others = [c for j, more in enumerate(letters) if j != i for c in more]
        has_twin = any(c in twins for c in part)
        mixed = has_twin and latin(own) > 0
        alone = bool(own) and all(c in twins for c in own) and 2 * latin(others) > len(others)
        if mixed or alone:
            parts[i] = "".join(twins.get(c, c) for c in part)
    return "".join(parts)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_19_2", "locked": true}
def check_19_2(restored):
    call = checking.calls(restored)

    def same(text, want, says, wrong=None):
        got = call(text, TWINS)
        assert isinstance(got, str), f"Return a text, not {checking.shown(got)}."
        for message, value in (wrong or {}).items():
            assert got != value or value == want, message
        assert got == want, f"{says} For {text!r} you return {got!r}, not {want!r}."

    same("what a gооd day", "what a good day", "A word that mixes alphabets is repaired.")
    same("what а good day", "what a good day", "A word of twins alone among Latin words is suspicious.")
    russian = "он рос у сосны"
    same(russian, russian, "The text is Russian: words made of twins stay.",
         {"You replace twins wherever they stand. The text is Russian.": "oн poc y cocны"})  # fmt: skip
    same("а", "а", "One word alone has no neighbours that could say what it is.")
    same("он рос in москва", "он рос in москва", "More than half of the other letters must be Latin.",
         {"Two Latin letters among many Cyrillic ones are no majority.": "он poc in москва"})  # fmt: skip
    same(
        "Москва café",
        "Москва café",
        "Neither word mixes Latin letters with twins, and neither is made of twins alone.",
    )
    same("tеst  \t а\nb ", "test  \t a\nb ", "White space stays as it is.",
         {"White space was joined to single blanks. It has to stay.": "test a b"})  # fmt: skip
    same("оh, nо!", "oh, no!", "Marks belong to a word, and are no letters.")
    same("ab о cоc", "ab o coc", "The neighbours are counted as they stand in the text, before any repair.")
    same("ах ба ab", "ах ба ab",
         "Neighbours are the other words: of the letters in them, two of four are Latin, which is not more than half.",
         {"A word is no neighbour of itself, and half is not more than half.": "ax ба ab"})  # fmt: skip
    same("", "", "An empty text stays empty.")
    same("123 !! а", "123 !! а", "Digits and marks are no letters, so there is nothing to compare with.")
    same("éé é а", "éé é а", "é is a letter, but none of a to z. Here no neighbour has a Latin letter.",
         {"é counts as Latin here. By the box a Latin letter is one of a to z or A to Z.": "éé é a"})  # fmt: skip
    print("19.2 passed.")


check_19_2(restored)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `re.split(r"(\s+)", text)` keeps the white space between the words. Joined, the parts are the text again.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Collect the letters of all words first. Decide word by word on the text *as it came*, not on what is already repaired.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 19.3 Free, and wrong
#
# > ●●●●○ · 60 minutes · graded · bug hunt
#
# Somebody wrote FreeLB for a network `net(x, mask)` that maps embeddings $(B, T, d)$ to logits $(B, K)$. Training with it
# is no better than without. There are five bugs.


# %%
def broken_freelb(net, x, mask, labels, radius, steps, step, start):
    delta, total = start.clone(), 0.0
    for _ in range(steps):
        delta.requires_grad_()
        loss = F.cross_entropy(net(x + delta, mask), labels)
        loss.backward(retain_graph=True)
        g = delta.grad / delta.grad.norm()
        R = radius * x.norm()
        moved = step * R * g
        delta = delta.detach() + moved * min(1.0, (R / moved.norm()).item())
        total = loss
    return total


# %% [markdown]
# Write `freelb` with the same arguments, so that for $k = 0 \dots$ `steps` $- 1$
#
# $$ \ell_k = \mathrm{CE}(\mathrm{net}(x + \delta_k)), \qquad \delta_{k + 1} = \Pi\big(\delta_k + \mathrm{step} \cdot R
# \cdot g_k / \lVert g_k \rVert\big), $$
#
# and the result is $\frac{1}{\mathrm{steps}} \sum_k \ell_k$, one number **for each text**: shape $(B,)$.
#
# - $\delta_0$ is `start` with padding set to $0$. It is inside the ball already. $R$ is `radius` times the norm of the
#   text's own $x$, $g_k$ the gradient of *its own* loss, and all norms are over one text's real tokens (mask 1). $\Pi$ is
#   the projection on the ball of radius $R$. A text whose gradient is 0 stays.
# - `net` may contain dropout. All points must meet **the same** dropout masks, those that the first call of `net` draws.
#   (On a CPU `torch.get_rng_state` and `torch.set_rng_state` do it.) Call `net` exactly `steps` times.
# - Backward through the sum of your result must give the weights the mean of the gradients at the points, and nothing
#   else: no gradient flows through $\delta_k$. Before that, `.grad` of the weights must be what it was.
# - Change no argument. Everything is float64; padding holds finite numbers.


# %% nbgrader={"grade_id": "answer_19_3", "solution": true}
def freelb(net, x, mask, labels, radius, steps, step, start):
    """Mean loss of each text over the points, (B,)."""
    ### BEGIN SOLUTION
    m = mask[..., None].to(x.dtype)

    def norms(t):
        return (t * m).flatten(1).norm(dim=1)[:, None, None]

    R, state, found = radius * norms(x), torch.get_rng_state(), []
    delta = start.detach() * m
    for _ in range(steps):
        delta.requires_grad_()
        torch.set_rng_state(state)
        found.append(F.cross_entropy(net(x + delta, mask), labels, reduction="none"))
        (g,) = torch.autograd.grad(found[-1].sum(), delta, retain_graph=True)
        n = norms(g)
        new = delta.detach() + step * R * g * m / torch.where(n > 0, n, torch.ones_like(n))
        delta = new * (R / norms(new).clamp(min=1e-300)).clamp(max=1)
    return torch.stack(found).mean(0)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_19_3", "grade": true, "points": 5, "locked": true}
class Reader(nn.Module):
    """Mean over the real tokens, one hidden layer with dropout, two logits. Counts its calls."""

    def __init__(self, seed, p, d=4):
        super().__init__()
        torch.manual_seed(seed)
        self.inner, self.outer, self.p, self.calls = nn.Linear(d, 6), nn.Linear(6, 2), p, 0
        self.double()

    def forward(self, x, mask):
        self.calls += 1
        m = mask[..., None].to(x.dtype)
        h = torch.tanh(self.inner(x) + x.roll(1, 1)[..., :1])
        return self.outer(F.dropout((h * m).sum(1) / m.sum(1), self.p))


def freelb_with(net, x, mask, labels, radius, steps, step, start, bugs=()):
    """FreeLB, with bugs for the messages."""
    m = mask[..., None].to(x.dtype)
    real = torch.ones_like(m) if "padding" in bugs else m

    def norms(t):
        n = (t * real).flatten(1).norm(dim=1)[:, None, None]
        return n.square().sum().sqrt().expand_as(n) if "batch" in bugs else n

    R, state, found, delta = radius * norms(x), torch.get_rng_state(), [], start.detach() * real
    for _ in range(steps):
        delta = delta.detach().requires_grad_()
        if "dropout" not in bugs:
            torch.set_rng_state(state)
        found.append(F.cross_entropy(net(x + delta, mask), labels, reduction="none"))
        (g,) = torch.autograd.grad(found[-1].sum(), delta, retain_graph=True)
        way = step * R * g * real / norms(g).clamp(min=1e-300)
        new = delta.detach() + way
        if "step only" in bugs:
            delta = delta.detach() + way * (R / norms(way).clamp(min=1e-300)).clamp(max=1)
        else:
            delta = new * (R / norms(new).clamp(min=1e-300)).clamp(max=1)
    return (
        found[-1]
        if "last" in bugs
        else torch.stack(found).sum(0)
        if "sum" in bugs
        else torch.stack(found).mean(0)
    )


def case_19_3(seed, steps=3, p=0.0, step=0.6):
    draw = torch.Generator().manual_seed(seed)
    x, start = (torch.randn(3, 4, 4, generator=draw).double() for _ in "ab")
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]])
    size = 0.1 * (x * mask[..., None]).flatten(1).norm(dim=1)[:, None, None]
    start = 0.5 * size * start / (start * mask[..., None]).flatten(1).norm(dim=1)[:, None, None]
    return Reader(seed, p), [x, mask, torch.tensor([0, 1, 1]), 0.1, steps, step, start]


BUGS_19_3 = {
    "Only the last point counts. That is PGD: FreeLB learns from all points.": ("last",),
    "The points' losses are added. FreeLB takes their mean, or the rate grows with the steps.": ("sum",),
    "One norm for the whole batch.": ("batch",),
    "The step is kept in the ball, and the sum of the steps leaves it.": ("step only",),
    "Padding moves, or counts in a norm.": ("padding",),
    "Each point meets another dropout mask.": ("dropout",),
}


def compare_19_3(call, seed, says="", **how):
    net, args = case_19_3(seed, **how)
    torch.manual_seed(seed)
    want = freelb_with(net, *args)
    (want_g,) = torch.autograd.grad(want.sum(), net.inner.weight)
    wrong = {}
    for message, bugs in BUGS_19_3.items():
        torch.manual_seed(seed)
        value = freelb_with(net, *args, bugs=bugs)
        if not torch.allclose(value, want, rtol=1e-9):
            wrong[message] = value.detach()
    net.calls = 0
    net.inner.weight.grad = torch.full_like(net.inner.weight, 3.0)
    torch.manual_seed(seed)
    got = call(net, *args)
    if isinstance(got, torch.Tensor) and got.ndim == 0:
        raise AssertionError("One number for each text is asked for, shape (B,), not their mean.")
    checking.equal(got.detach(), want.detach(), "the losses", wrong, says=says, tol=1e-9)
    assert net.calls == args[4], f"net was called {net.calls} times for {args[4]} points."
    assert (net.inner.weight.grad == 3.0).all(), (
        "The weights' .grad was changed before backward: loss.backward() inside adds to it. Use torch.autograd.grad."
    )
    net.inner.weight.grad = None
    assert got.requires_grad, "The result has no gradient: nothing can be learned from it."
    got.sum().backward()
    checking.equal(
        net.inner.weight.grad, want_g, "the gradient of the weights", tol=1e-9,
        says="It is the mean of the gradients at the points; none flows through delta.",
    )  # fmt: skip


def check_19_3(freelb):
    call = checking.calls(freelb)
    compare_19_3(call, 1, "One step: the loss at the start.", steps=1)
    compare_19_3(call, 2, "Three points.")
    compare_19_3(call, 3, "Steps longer than the ball is wide.", step=2.5)
    compare_19_3(call, 4, "With dropout.", p=0.4)
    print("19.3 passed the visible cases.")


check_19_3(freelb)
### BEGIN HIDDEN TESTS


def hidden_19_3(freelb):
    call = checking.calls(freelb)
    for seed in range(10, 16):
        compare_19_3(
            call, seed, "Another network.", steps=2 + seed % 4, p=0.3 * (seed % 2), step=0.2 * (seed - 9)
        )
    net, args = case_19_3(20)
    with torch.no_grad():
        net.outer.weight.zero_()
    got = call(net, *args)
    assert got.isfinite().all(), "A text whose gradient is 0 stays where it is. You divide by 0."


hidden_19_3(freelb)
### END HIDDEN TESTS

# %% [markdown]
# ## 19.4 Prove it
#
# > ●●●●● · 90 minutes · practice
#
# A small world of words. Each word has a vector and a set of words that may replace it. `world(seed)` gives training
# texts and new texts, with labels. Some words say much about the label, but their neighbours say the opposite; others say
# little, and their neighbours the same. Plain training leans on the first kind.


# %%
def world(seed, d=12, kinds=60):
    """vectors (V, d), sets (V, 3), 300 training texts (lists of word numbers) and labels ±1, 300 new texts and labels."""
    draw = torch.Generator().manual_seed(seed)
    rng = random.Random(seed)
    strong, weak = torch.linalg.qr(torch.randn(d, 2, generator=draw).double())[0].T
    side = torch.tensor([1.0, -1.0]).double().repeat(kinds // 2)
    fragile = torch.arange(kinds) % 4 < 2
    base = torch.where(fragile, 2.0, 0.0).double() * side
    base = base[:, None] * strong + torch.where(fragile, 0.0, 0.7).double()[:, None] * side[:, None] * weak
    near = torch.where(fragile, -1.5, 0.0).double()[:, None] * side[:, None] * strong
    near = near + torch.where(fragile, 0.0, 0.7).double()[:, None] * side[:, None] * weak
    noise = [0.08 * torch.randn(kinds, d, generator=draw).double() for _ in range(3)]
    vectors = torch.cat([base + noise[0], near + noise[1], 0.5 * (base + near) + noise[2]]).float()
    sets = torch.tensor(
        [[w, w + kinds, w + 2 * kinds] for w in range(kinds)] + [[w] * 3 for w in range(kinds, 3 * kinds)]
    )

    def texts(n):
        found, labels = [], []
        for _ in range(n):
            y = rng.choice([1, -1])
            own = [w for w in range(kinds) if side[w] == y]
            other = [w for w in range(kinds) if side[w] != y]
            found.append([rng.choice(own if rng.random() < 0.72 else other) for _ in range(9)])
            labels.append(y)
        return found, torch.tensor(labels, dtype=torch.float32)

    return vectors, sets, texts(300), texts(300)


# %% [markdown]
# A head is an `nn.ModuleList` of `nn.Linear` layers with a ReLU between each two of them; the last has one output. It
# reads the *mean* of a text's word vectors, and says positive where its output is above 0. Write two functions.
#
# `interval(layers, vectors, sets, text)` returns bounds (low, high), two floats, on the output over **all** texts in which
# each word $w$ may be any of `sets[w]`. Start as the lesson does: exact bounds on each unit *after the first linear
# layer*, then centre and half-width. With one layer this is exact. Your bounds must contain every exchange, must not be
# wider than these, and must be the output itself, twice, where nothing can be exchanged. An empty text has the mean zero.
#
# `train(vectors, sets, texts, labels, seed)` returns layers of your choice, at least one, trained on the given texts only.
# The checker takes the worlds $100$, $101$ and $102$, new texts, and its own bounds. In the mean over the three, at least
# `CLEAN` of the texts must be right and at least `CERTIFIED` right and certified: the whole interval on the label's
# side. (The solution reaches more; plain training certifies next to nothing.) One training may take fifteen seconds of
# processor time. Draw all random numbers from `seed`. Develop on worlds below $100$.

# %%
CLEAN, CERTIFIED = 0.78, 0.65


# %% nbgrader={"grade_id": "answer_19_4", "solution": true}
def interval(layers, vectors, sets, text):
    """Bounds on the head's output over all exchanges: (low, high)."""
    ### BEGIN SOLUTION
    with torch.no_grad():
        if not len(text):
            l = u = layers[0](torch.zeros(vectors.shape[1]))
        else:
            h = layers[0](vectors[sets[torch.tensor(text)]])  # words, choices, units
            l, u = h.amin(1).mean(0), h.amax(1).mean(0)
        for layer in layers[1:]:
            l, u = l.clamp(min=0), u.clamp(min=0)
            c, r = layer((l + u) / 2), layer.weight.abs() @ ((u - l) / 2)
            l, u = c - r, c + r
        return l.item(), u.item()
    ### END SOLUTION


def train(vectors, sets, texts, labels, seed):
    """An nn.ModuleList of nn.Linear layers."""
    ### BEGIN SOLUTION
    torch.manual_seed(seed)
    layers = nn.ModuleList([nn.Linear(vectors.shape[1], 1)])
    A = torch.zeros(len(texts), len(vectors))
    for n, text in enumerate(texts):
        for w in text:
            A[n, w] += 1 / len(text)
    optimizer = torch.optim.AdamW(layers.parameters(), lr=3e-2)
    for _ in range(300):
        h = layers[0](vectors)[sets].squeeze(2)
        low, high = A @ h.amin(1), A @ h.amax(1)
        loss = F.softplus(-4 * torch.where(labels > 0, low, -high)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return layers
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_19_4", "locked": true}
def bounds_19_4(layers, vectors, sets, text, first="layer"):
    with torch.no_grad():
        chosen = vectors[sets[torch.tensor(text, dtype=torch.long)]]
        if not len(text):
            lows = highs = layers[0](torch.zeros(vectors.shape[1]))
        elif first == "layer":
            h = layers[0](chosen)
            lows, highs = h.amin(1).mean(0), h.amax(1).mean(0)
        else:  # the box around the mean embedding
            l, u = chosen.amin(1).mean(0), chosen.amax(1).mean(0)
            c, r = layers[0]((l + u) / 2), layers[0].weight.abs() @ ((u - l) / 2)
            lows, highs = c - r, c + r
        for layer in layers[1:]:
            l, u = (lows, highs) if first == "no relu" else (lows.clamp(min=0), highs.clamp(min=0))
            c, r = layer((l + u) / 2), layer.weight.abs() @ ((u - l) / 2)
            lows, highs = c - r, c + r
        return lows.item(), highs.item()


def output_19_4(layers, mean):
    for number, layer in enumerate(layers):
        mean = layer(mean.relu() if number else mean)
    return mean.item()


def check_19_4(interval, train):
    vectors, sets, (texts, _), _ = world(7)
    torch.manual_seed(7)
    shapes = [(12, 1), (12, 8, 1), (12, 6, 5, 1)]
    heads = [nn.ModuleList([nn.Linear(a, b) for a, b in itertools.pairwise(shape)]) for shape in shapes]
    call, rng = checking.calls(interval), random.Random(7)
    for layers in heads:
        for text in texts[:6]:
            got, want = call(layers, vectors, sets, text), bounds_19_4(layers, vectors, sets, text)
            checking.form(got, (0.0, 0.0), "(low, high)")
            low, high = got
            for _ in range(200):
                drawn = [int(sets[w][rng.randrange(3)]) for w in text]
                with torch.no_grad():
                    z = output_19_4(layers, vectors[drawn].mean(0))
                assert low - 1e-5 <= z <= high + 1e-5, (
                    f"The exchange {drawn} gives {z:.4f}, outside of [{low:.4f}, {high:.4f}]: these are no bounds."
                )
            loose = bounds_19_4(layers, vectors, sets, text, "box")
            if abs(low - want[0]) + abs(high - want[1]) > 1e-4:
                assert abs(low - loose[0]) + abs(high - loose[1]) > 1e-4, (
                    "Your box stands around the mean embedding, before the first layer. Take each word's smallest and "
                    "largest value after the first layer: the bounds become tighter, and exact for one layer."
                )
            assert abs(low - want[0]) < 1e-4 and abs(high - want[1]) < 1e-4, (
                f"[{low:.4f}, {high:.4f}] is not the interval of the box, [{want[0]:.4f}, {want[1]:.4f}]."
            )
        fixed = [60, 61, 100]  # words that nothing replaces
        with torch.no_grad():
            z = output_19_4(layers, vectors[fixed].mean(0))
        low, high = call(layers, vectors, sets, fixed)
        assert abs(low - z) < 1e-4 and abs(high - z) < 1e-4, (
            "Nothing can be exchanged here: both bounds are the output."
        )
        low, high = call(layers, vectors, sets, [])
        with torch.no_grad():
            z = output_19_4(layers, torch.zeros(12))
        assert abs(low - z) < 1e-4 and abs(high - z) < 1e-4, "An empty text has the mean zero."
    fit = checking.calls(train, limit=15, slow="Compute the bounds of all texts at once: one matrix product.")
    clean, certified = [], []
    for seed in (100, 101, 102):
        vectors, sets, (texts, labels), (new, truth) = world(seed)
        layers = fit(vectors, sets, texts, labels, seed)
        assert (
            isinstance(layers, nn.ModuleList | list)
            and len(layers)
            and all(isinstance(layer, nn.Linear) for layer in layers)
        ), "train returns an nn.ModuleList of nn.Linear layers."
        assert layers[-1].out_features == 1 and layers[0].in_features == 12, "From 12 numbers to one."
        ends = [bounds_19_4(layers, vectors, sets, text) for text in new]
        with torch.no_grad():
            z = [output_19_4(layers, vectors[text].mean(0)) for text in new]
        clean.append(sum((a > 0) == (y > 0) for a, y in zip(z, truth.tolist(), strict=True)) / len(new))
        certified.append(
            sum(
                (low > 0) if y > 0 else (high < 0)
                for (low, high), y in zip(ends, truth.tolist(), strict=True)
            )
            / len(new)
        )
    right, sure = sum(clean) / 3, sum(certified) / 3
    assert right >= CLEAN, (
        f"Right without exchanges: {right:.3f}, asked for {CLEAN}. Always the same answer is right on half."
    )
    assert sure >= CERTIFIED, (
        f"Right {right:.3f}, certified {sure:.3f}, asked for {CERTIFIED}. Clean accuracy is not what is wanted: put the "
        "worst end of the interval into the loss."
    )
    print(f"19.4 passed: right {right:.3f}, certified {sure:.3f}.")


check_19_4(interval, train)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `layers[0](vectors)[sets]` has the shape $(V, 3, m)$: for each word its choices' hidden values. One matrix of word shares
# turns the smallest and the largest of them into bounds for all texts.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# A loss on the worst end alone is enough here. Is a second layer worth its looser bounds?
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 19.5 Project: is it an attack?
#
# > ●●●●● · 150 minutes · practice · prediction
#
# Attack a classifier of your own (the lesson's, or any other), with a search of your own, and find out how many of its
# successes are ones: texts to which a person would still give the old label. Two judges read each success **without
# seeing the model's answer**. `report()` returns a dict with exactly these keys:
#
# - `rule`: how a judge decides, written before judging. A text of at least $60$ characters.
# - `predicted`: the share of successes that you expected to be real, written down before judging: above $0$, below $1$.
# - `attacked`, `flipped`: texts that the model read rightly and that were attacked; how many of them flipped. Whole
#   numbers, $1 \le$ flipped $\le$ attacked.
# - `first`, `second`: the judges' verdicts, two lists of `True` (real) and `False`, of equal length, at least $30$, at
#   most `flipped`.
# - `people`: how many of the two judges are people: $0$, $1$ or $2$. (A language model may judge, and must be named so.)
# - `kappa`: Cohen's kappa of the two lists, $\kappa = (p_o - p_e) / (1 - p_e)$, where $p_o$ is the share of agreement
#   and $p_e$ the agreement that the judges' own shares of `True` would give by chance. Where $p_e = 1$ it does not exist:
#   judge harder texts.
# - `real`: the share of successes that *both* judges call real, above $0$. `corrected`: the corrected success rate,
#   flipped / attacked times `real`.
# - `low`, `high`: a $95$ % interval for `corrected`. With $p$ = flipped / attacked and $q$ = `real` from $m$ judged texts,
#   the logarithm has the variance $\frac{1 - p}{p \cdot \text{attacked}} + \frac{1 - q}{q\, m}$; take $1.96$ standard
#   deviations to each side and go back by the exponential; cut at $1$.
# - `conclusion`: one sentence, at least $40$ characters, that names the corrected rate in percent, rounded to a whole
#   number, as in `31 %`.
#
# Numbers are compared to within $0.005$. The checker reads the arithmetic. A person reads the rest, with this rubric (0, 1
# or 2 points a row; 7 of 10 pass):
#
# | | 0 | 1 | 2 |
# |:--|:--|:--|:--|
# | rule | "same meaning" | names facts or feeling | a stranger could judge with it; doubtful cases are decided |
# | attack | one kind of change | with a constraint | the constraint was varied, and its effect reported |
# | judges | one, or they saw the answers | two, blind | and the disagreements were read and explained |
# | prediction | made afterwards | made before | and the distance is discussed |
# | conclusion | raw success | corrected | corrected, with interval and with what was not judged |


# %% nbgrader={"grade_id": "answer_19_5", "solution": true}
def report():
    """Return a dict with the keys of the box."""
    ### BEGIN SOLUTION
    first = [True] * 18 + [False] * 22
    second = [True] * 14 + [False] * 22 + [True] * 4
    attacked, flipped = 56, 40
    real = sum(a and b for a, b in zip(first, second, strict=True)) / len(first)
    p_o = sum(a == b for a, b in zip(first, second, strict=True)) / len(first)
    a, b = sum(first) / len(first), sum(second) / len(second)
    p_e = a * b + (1 - a) * (1 - b)
    p = flipped / attacked
    error = math.sqrt((1 - p) / (p * attacked) + (1 - real) / (real * len(first)))
    corrected = p * real
    return {
        "rule": "Real if a reader of the changed text alone would give the old label and report the same facts; "
        "broken grammar is forgiven, other names, colours, places and numbers are not. In doubt: not real.",
        "predicted": 0.6,
        "attacked": attacked,
        "flipped": flipped,
        "first": first,
        "second": second,
        "people": 1,
        "kappa": (p_o - p_e) / (1 - p_e),
        "real": real,
        "corrected": corrected,
        "low": corrected * math.exp(-1.96 * error),
        "high": min(1.0, corrected * math.exp(1.96 * error)),
        "conclusion": f"Of the texts attacked, {100 * corrected:.0f} % were flipped by a change that both judges call real.",
    }
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_19_5", "locked": true}
REPORT = (
    "rule predicted attacked flipped first second people kappa real corrected low high conclusion".split()
)


def check_19_5(report):
    mine = checking.calls(report)()
    assert isinstance(mine, dict), f"Return a dict, not {checking.shown(mine)}."
    missing = [key for key in REPORT if key not in mine]
    assert not missing, f"The report lacks {', '.join(missing)}."
    extra = [str(key) for key in mine if key not in REPORT]
    assert not extra, f"The report has keys that nobody asked for: {', '.join(extra)}."

    def number(key):
        checking.form(mine[key], 0.0, key)
        assert not isinstance(mine[key], bool) and math.isfinite(mine[key]), (
            f"{key}: a finite number expected."
        )
        return float(mine[key])

    def whole(key):
        value = number(key)
        assert value == int(value), f"{key}: a whole number expected, not {mine[key]!r}."
        return int(value)

    for key, least in (("rule", 60), ("conclusion", 40)):
        assert isinstance(mine[key], str) and len(mine[key].strip()) >= least, (
            f"{key}: a text of {least} characters at least."
        )
    n, k, people = whole("attacked"), whole("flipped"), whole("people")
    assert 1 <= k <= n, f"flipped: {k} of {n} attacked texts is impossible."
    assert 0 <= people <= 2, "people: 0, 1 or 2 of the two judges."
    lists = []
    for key in ("first", "second"):
        assert isinstance(mine[key], list | tuple) and all(isinstance(v, bool) for v in mine[key]), (
            f"{key}: a list of True and False."
        )
        lists.append(list(mine[key]))
    a, b = lists
    m = len(a)
    assert m == len(b), "first and second: both judges read the same texts, so the lists are equally long."
    assert 30 <= m, f"first: at least 30 judged texts, not {m}."
    assert m <= k, f"first: {m} texts were judged, but only {k} flipped. Only successes are judged."
    assert 0 < number("predicted") < 1, "predicted: a share above 0, below 1."
    agree = sum(x == y for x, y in zip(a, b, strict=True)) / m
    p, q = sum(a) / m, sum(b) / m
    chance = p * q + (1 - p) * (1 - q)
    assert chance < 1, (
        "kappa: both judges said the same of every text, so agreement by chance is certain. Judge harder texts."
    )
    both = sum(x and y for x, y in zip(a, b, strict=True)) / m
    assert both > 0, (
        "real: no text was called real by both judges; there is no logarithm of 0. Judge more texts."
    )
    rate = k / n

    def near(key, want, wrong):
        got = number(key)
        if abs(got - want) > 0.005:
            for message, value in wrong.items():
                assert abs(got - value) > 1e-3, f"{key}: {message}"
            raise AssertionError(f"{key}: you have {got:.3f}; from your own counts it is {want:.3f}.")

    near("kappa", (agree - chance) / (1 - chance), {
        "this is the share of agreement. Two judges who guess agree too.": agree,
        "you subtract what chance gives, but do not divide by what is left.": agree - chance,
        "chance is not one half: it follows from how often each judge says True.": 2 * agree - 1,
    })  # fmt: skip
    near("real", both, {
        "this is one judge's share. Both have to say so.": p,
        "this is the other judge's share. Both have to say so.": q,
        "this is the mean of two judges. Both have to say so.": (p + q) / 2,
        "this is the share of agreement; agreeing on not real counts there too.": agree,
    })  # fmt: skip
    near("corrected", rate * both, {
        "this is the raw success rate.": rate,
        "this is the share of real ones among the judged. It has to be multiplied by the raw success.": both,
        "not every success was judged: multiply the rate, do not count.": both * m / n,
    })  # fmt: skip
    one, two = (1 - rate) / (rate * n), (1 - both) / (both * m)
    plain = 1.96 * math.sqrt(rate * both * (1 - rate * both) / n)

    def ends(error):
        return rate * both * math.exp(-1.96 * error), min(1.0, rate * both * math.exp(1.96 * error))

    want = ends(math.sqrt(one + two))
    for i, key in enumerate(("low", "high")):
        near(key, want[i], {
            "the judged texts are a sample too: their variance is missing.": ends(math.sqrt(one))[i],
            "the attacked texts are a sample too: their variance is missing.": ends(math.sqrt(two))[i],
            "that treats the corrected rate as one share of all attacked texts.": rate * both + (2 * i - 1) * plain,
            "add the variances, not the standard deviations.": ends(math.sqrt(one) + math.sqrt(two))[i],
        })  # fmt: skip
    assert f"{100 * rate * both:.0f} %" in mine["conclusion"], (
        f"conclusion: it does not name the corrected rate, {100 * rate * both:.0f} %."
    )
    told = "no judge was a person" if people == 0 else f"{people} of 2 judges were people"
    print(
        f"19.5 passed: {100 * rate:.0f} % raw, {100 * rate * both:.0f} % corrected; {told}. Now a person reads it."
    )


check_19_5(report)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Shuffle the successes among texts that were not changed at all, so that a judge cannot guess what is expected.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Write `rule` after judging ten texts that you throw away afterwards. The doubtful ones tell you what it has to say.
#
# </details>
#
# {{solution}}
