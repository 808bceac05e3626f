# ---
# jupyter:
#   instructlab:
#     id: "23"
#     title: Multimodal instructions
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 23: multimodal instructions
#
# Each exercise is a box, a cell for your answer, and a checker in the cell below it. Replace the line that raises
# `NotImplementedError`, then run both cells. A checker that says no also says what probably went wrong.
#
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases that you do
# not see here, so test more than the checker does. The page needs no network and no file. Exercise 23.4 trains two
# small networks: its checker takes about ten seconds. Exercise 23.5 is a project.
#
# {{overview}}

# %%
import itertools
import math
import random
from functools import partial

import torch
from scipy import stats
from torch import nn

from instructlab_utils import checking, pictures, speech, training, vision

# %% [markdown]
# ## 23.1 What a token sees
#
# > ●●○○○ · 20 minutes · graded
#
# A stack of convolutions turns a square picture of side $n$ into a grid of tokens. `layers` is a list of
# `(kernel, stride, padding)`, whole numbers; the first layer reads the picture. Return a tuple of three whole numbers:
#
# - the **side** of the grid. A layer makes of a side $m$ the side $\lfloor (m + 2 \cdot \text{padding} -
#   \text{kernel}) / \text{stride} \rfloor + 1$;
# - the **step** in pixels from one token to its neighbour;
# - the **sight**: how many pixels, along one side, can change one token. Padding counts as pixels.
#
# An empty list means that each pixel is a token. Raise `ValueError` where a layer's window is larger than what it
# reads, padding included, or where a kernel or stride is below $1$ or a padding below $0$.


# %% nbgrader={"grade_id": "answer_23_1", "solution": true}
def geometry(n, layers):
    """(side, step, sight) of the tokens."""
    ### BEGIN SOLUTION
    side, step, sight = n, 1, 1
    for kernel, stride, padding in layers:
        if kernel < 1 or stride < 1 or padding < 0 or side + 2 * padding < kernel:
            raise ValueError(f"a layer ({kernel}, {stride}, {padding}) cannot read a side of {side}")
        side = (side + 2 * padding - kernel) // stride + 1
        sight += (kernel - 1) * step
        step *= stride
    return side, step, sight
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_23_1", "grade": true, "points": 2, "locked": true}
def measured(n, layers):
    """The same by experiment, on one line: which inputs have a gradient from a token in the middle?"""
    x = torch.zeros(1, 1, n + 2000, dtype=torch.float64, requires_grad=True)  # wide enough for any sight
    y, side, step = x, n, 1
    for kernel, stride, padding in layers:
        y = nn.functional.conv1d(y, torch.ones(1, 1, kernel, dtype=torch.float64), stride=stride)
        side, step = (side + 2 * padding - kernel) // stride + 1, step * stride
    (g,) = torch.autograd.grad(y[0, 0, 0], x)
    return side, step, int((g != 0).nonzero().max()) + 1


NETS_23_1 = [
    (32, [(3, 2, 1)] * 3),
    (32, [(8, 8, 0)]),
    (224, [(14, 14, 0)]),
    (33, [(5, 1, 2), (3, 2, 1), (4, 3, 0)]),
    (28, []),
]


def check_23_1(geometry):
    call = checking.calls(geometry)
    for n, layers in NETS_23_1:
        side, step, sight = measured(n, layers)
        kernels, strides = [k for k, _, _ in layers], [s for _, s, _ in layers]
        wrong = {
            "The sight is no product of the kernels: windows overlap.": (side, step, math.prod(kernels)),
            "A layer's window counts in the steps of the layers before it, not in pixels.": (
                side,
                step,
                1 + sum(k - 1 for k in kernels),
            ),
            "The steps multiply from layer to layer; they do not add up.": (side, sum(strides), sight),
            "A layer's own stride moves its tokens apart, but does not widen its own window.": (
                side,
                step,
                1 + sum((k - 1) * math.prod(strides[: i + 1]) for i, k in enumerate(kernels)),
            ),
        }
        got = call(n, layers)
        checking.equal(
            tuple(got) if isinstance(got, list) else got, (side, step, sight), f"geometry({n}, …)", wrong
        )
    call.refuses(ValueError, 4, [(8, 1, 0)], says="A window of 8 does not fit into 4 pixels.")
    print("23.1 passed the visible cases.")


check_23_1(geometry)
### BEGIN HIDDEN TESTS


def hidden_23_1(geometry):
    call, rng = checking.calls(geometry), random.Random(5)
    for _ in range(30):
        layers = [(rng.randint(1, 5), rng.randint(1, 3), rng.randint(0, 2)) for _ in range(rng.randint(1, 4))]
        checking.equal(call(300, layers), measured(300, layers), f"geometry(300, {layers})")
    for bad in ((0, 1, 0), (3, 0, 0), (3, 1, -1)):
        says = f"The layer {bad} is none: kernel and stride are 1 or more, padding 0 or more."
        call.refuses(ValueError, 32, [bad], says=says)
    call.refuses(ValueError, 9, [(3, 3, 0), (4, 1, 0)], says="The second layer reads a side of 3.")
    checking.equal(
        call(2, [(4, 1, 1)]), (1, 1, 4), "geometry(2, …)", says="With its padding the window fits."
    )


hidden_23_1(geometry)
### END HIDDEN TESTS

# %% [markdown]
# ## 23.2 Three frames by hand
#
# > ●●●○○ · 30 minutes · practice · prediction
#
# Three frames, three symbols: the blank "–", a, b. Take paper before you take the keyboard.
#
# | frame | – | a | b |
# |:--|:--|:--|:--|
# | 1 | $0.5$ | $0.4$ | $0.1$ |
# | 2 | $0.6$ | $0.3$ | $0.1$ |
# | 3 | $0.5$ | $0.2$ | $0.3$ |
#
# `prediction()` returns a dict:
#
# - `paths_ab`: how many of the $27$ paths write "ab"; `paths_aa`: how many write "aa";
# - `p_a`: the probability of the text "a"; `p_ab`: that of "ab";
# - `greedy`, `best`: the text that the best path writes, and the most probable text, each one of `""`, `"a"`,
#   `"b"`, `"ab"`, `"aa"`;
# - `gamma`: given that the text is "ab", the probability that the path is at the blank in frame 2.
#
# Numbers are compared to within $0.001$.


# %% nbgrader={"grade_id": "answer_23_2", "solution": true}
def prediction():
    """Return a dict with the keys of the box."""
    ### BEGIN SOLUTION
    p = [dict(zip("-ab", row, strict=True)) for row in ((0.5, 0.4, 0.1), (0.6, 0.3, 0.1), (0.5, 0.2, 0.3))]
    texts = {}
    for path in itertools.product("-ab", repeat=3):
        text = "".join(c for i, c in enumerate(path) if c != "-" and (i == 0 or c != path[i - 1]))
        texts.setdefault(text, []).append((path, math.prod(row[c] for row, c in zip(p, path, strict=True))))
    total = {text: sum(q for _, q in paths) for text, paths in texts.items()}
    at_blank = sum(q for path, q in texts["ab"] if path[1] == "-")
    return {
        "paths_ab": len(texts["ab"]),
        "paths_aa": len(texts["aa"]),
        "p_a": total["a"],
        "p_ab": total["ab"],
        "greedy": "",
        "best": max(total, key=total.get),
        "gamma": at_blank / total["ab"],
    }
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_23_2", "locked": true}
def check_23_2(prediction):
    texts = ("", "a", "b", "ab", "aa")
    mine = checking.predicted(
        prediction, ("paths_ab", "paths_aa", "p_a", "p_ab", "gamma"), greedy=texts, best=texts
    )
    log_p = torch.tensor([[0.5, 0.4, 0.1], [0.6, 0.3, 0.1], [0.5, 0.2, 0.3]], dtype=torch.float64).log()
    wrote = [tuple(speech.collapse(path)) for path in itertools.product(range(3), repeat=3)]

    def chance(target):
        return speech.ctc_losses(log_p[None], [target], [3]).neg().exp().item()

    p = log_p.exp()
    blank = (p[0, 1] * p[1, 0] * p[2, 2]).item()
    assert mine["paths_aa"] != 3, "paths_aa: without a blank between them two a's are one. Count again."
    assert mine["paths_aa"] == wrote.count((1, 1)), f"paths_aa: {wrote.count((1, 1))} path writes aa, a–a."
    assert mine["paths_ab"] != 1, (
        "paths_ab: no blank is needed between different letters, and runs are merged."
    )
    assert mine["paths_ab"] == wrote.count((1, 2)), (
        f"paths_ab: {wrote.count((1, 2))} paths: aab, abb, –ab, a–b, ab–."
    )

    def near(key, want, wrong):
        if abs(mine[key] - want) > 1e-3:
            for says, value in wrong.items():
                assert abs(mine[key] - value) > 1e-3, f"{key}: {says}"
            raise AssertionError(f"{key}: you have {mine[key]:.4f}; the paths add up to {want:.4f}.")

    near("p_a", chance([1]), {
        "this is the best single path of the text. All paths of the text add up.": max(
            (p[0, 1] * p[1, 0] * p[2, 0]).item(), (p[0, 0] * p[1, 1] * p[2, 0]).item()),
        "the runs aa–, –aa and aaa write a, too.": (
            p[0, 1] * p[1, 0] * p[2, 0] + p[0, 0] * p[1, 1] * p[2, 0] + p[0, 0] * p[1, 0] * p[2, 1]).item(),
    })  # fmt: skip
    near("p_ab", chance([1, 2]), {"this is the path a–b alone.": blank})
    assert mine["greedy"] == "", "greedy: the best symbol of each frame is the blank, so it writes nothing."
    assert mine["best"] != "", "best: nothing is the best path, but only one path writes it. Compare with a."
    assert mine["best"] == "a", "best: compare the sums of the texts, not single paths."
    near("gamma", blank / chance([1, 2]), {
        "this is the probability of a blank in frame 2 without knowing the text.": 0.6,
        "divide by the probability of the text: it is given.": blank,
        "count the paths by their probabilities, not by their number.": 1 / 5,
    })  # fmt: skip
    print("23.2 passed.")


check_23_2(prediction)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# "ab" has the places –, a, –, b, – to pass, and three frames. List the ways to stand, stay or step, and remember
# that from a you may go to b directly.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# For `gamma`: of the probability of "ab", which share comes from paths whose second symbol is the blank?
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 23.3 A recogniser that hears nothing
#
# > ●●●●○ · 50 minutes · graded · bug hunt
#
# Somebody wrote the features of a recogniser. The network trained on them never gets better than a coin. There are
# five bugs, and none raises an error.


# %%
def broken_features(x, rate, window, hop, bands, floor):
    n = torch.arange(window)
    hann = 0.5 - 0.5 * torch.cos(2 * math.pi * n / (window - 1))
    frames = torch.stack([x[i : i + window] for i in range(0, len(x) - window, hop)])
    spectrum = torch.fft.rfft(frames * hann).abs()
    edges = torch.linspace(0, rate / 2, bands + 2)
    f = torch.arange(window // 2 + 1) * rate / window
    up = (f[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - f[:, None]) / (edges[2:] - edges[1:-1])
    energy = spectrum @ torch.minimum(up, down).clamp(min=0)
    return (energy + floor).log().mean(0)


# %% [markdown]
# Write `features` with the same arguments. `x` has one axis, float32 or float64, and `len(x)` is at least `window`,
# which is even.
#
# - Frame $t$ holds the samples from $t \cdot$ `hop` on. Take **every** whole frame. Its window is the *periodic*
#   Hann window, $h_n = \tfrac12 - \tfrac12 \cos (2 \pi n / \text{window})$.
# - Take the *power* $|X|^2$ at `window` $/ 2 + 1$ frequencies.
# - The `bands` $+ 2$ corners of the triangles are equally far apart in mels, $m = 2595 \log_{10}(1 + f / 700)$,
#   from $0$ Hz to half of the rate. Triangle $b$ rises from $0$ at corner $b$ to $1$ at corner $b + 1$ and falls to
#   $0$ at corner $b + 2$.
# - Add `floor` to the energies and take the natural logarithm. Return all frames: shape (frames, `bands`), the
#   dtype of `x`.
#
# Compute inside in float64 if you like. Raise `ValueError` where a triangle holds none of the frequencies.


# %% nbgrader={"grade_id": "answer_23_3", "solution": true}
def features(x, rate, window, hop, bands, floor):
    """Log-mel energies, (frames, bands)."""
    ### BEGIN SOLUTION
    n = torch.arange(window, dtype=torch.float64)
    hann = 0.5 - 0.5 * torch.cos(2 * math.pi * n / window)
    frames = torch.stack([x[i : i + window] for i in range(0, len(x) - window + 1, hop)]).double()
    power = torch.fft.rfft(frames * hann).abs().square()
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, bands + 2, dtype=torch.float64) / 2595) - 1)
    f = torch.arange(window // 2 + 1, dtype=torch.float64) * rate / window
    up = (f[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - f[:, None]) / (edges[2:] - edges[1:-1])
    filters = torch.minimum(up, down).clamp(min=0)
    if (filters.amax(0) == 0).any():
        raise ValueError("a triangle holds no frequency: fewer bands or a longer window")
    return (power @ filters + floor).log().to(x.dtype)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_23_3", "grade": true, "points": 3, "locked": true}
def reference_23_3(x, rate, window, hop, bands, floor, bug=""):
    """The features with a slow Fourier transform and one triangle after the other; with one bug for the messages."""
    n = torch.arange(window, dtype=torch.float64)
    hann = 0.5 - 0.5 * torch.cos(2 * math.pi * n / (window - (bug == "symmetric")))
    count = (len(x) - window) // hop + 1
    frames = [x[t * hop : t * hop + window].double() * hann for t in range(count - (bug == "last"))]
    angle = 2 * math.pi * torch.outer(n, n[: window // 2 + 1]) / window
    X = torch.stack(frames)
    power = (X @ angle.cos()).square() + (X @ angle.sin()).square()
    power = power.sqrt() if bug == "magnitude" else power
    m = [2595 * math.log10(1 + i * rate / window / 700) for i in range(window // 2 + 1)]
    if bug == "hertz":
        m = [i * rate / window for i in range(window // 2 + 1)]
    width, out = m[-1] / (bands + 1), torch.zeros(len(frames), bands, dtype=torch.float64)
    back = (lambda v: v) if bug in ("hertz", "mel triangles") else (lambda v: 700 * (10 ** (v / 2595) - 1))
    g = m if bug in ("hertz", "mel triangles") else [i * rate / window for i in range(window // 2 + 1)]
    for b in range(bands):
        low, mid, high = (back((b + i) * width) for i in range(3))
        for i, f in enumerate(g):
            weight = (f - low) / (mid - low) if f <= mid else (high - f) / (high - mid)
            out[:, b] += max(0.0, weight) * power[:, i]
    if bug == "clamp":
        return out.clamp(min=floor).log()
    return (out + floor).log10() if bug == "ten" else (out + floor).log()


BUGS_23_3 = {
    "The window is the symmetric one. For frames the periodic one is meant: divide by the window's length.": "symmetric",
    "The last whole frame is missing.": "last",
    "This is the magnitude. The power is its square.": "magnitude",
    "The corners are equally far apart in hertz, not in mels.": "hertz",
    "The corners are right, but the triangles have straight sides in hertz, not in mels.": "mel triangles",
    "The floor is added, not the smallest value.": "clamp",
    "This is the logarithm to base ten.": "ten",
}


def check_23_3(features):
    call, draw = checking.calls(features), torch.Generator().manual_seed(3)
    for length, rate, window, hop, bands in ((400, 8000, 128, 64, 12), (448, 16000, 128, 40, 8)):
        args = (torch.randn(length, generator=draw, dtype=torch.float64), rate, window, hop, bands, 1e-1)
        wrong = {says: reference_23_3(*args, bug=bug) for says, bug in BUGS_23_3.items()}
        got, want = call(*args), reference_23_3(*args)
        assert not (isinstance(got, torch.Tensor) and got.ndim == 1 and len(got) == bands), (
            "The mean over the frames throws time away, and a word is an order in time."
        )
        checking.equal(got, want, "the features", wrong)
    print("23.3 passed the visible cases.")


check_23_3(features)
### BEGIN HIDDEN TESTS


def hidden_23_3(features):
    call, draw = checking.calls(features), torch.Generator().manual_seed(4)
    x = torch.randn(256, generator=draw)
    checking.equal(call(x, 8000, 256, 128, 32, 1e-6), reference_23_3(x, 8000, 256, 128, 32, 1e-6).float(), "one frame",
                   dtype=torch.float32, tol=1e-4)  # fmt: skip
    silence = call(torch.zeros(300, dtype=torch.float64), 8000, 128, 64, 8, 1e-6)
    checking.equal(silence, torch.full((3, 8), math.log(1e-6), dtype=torch.float64), "silence")
    says = "40 bands are too many for a window of 64: some triangle lies between two frequencies."
    call.refuses(ValueError, torch.ones(100), 8000, 64, 32, 40, 1e-6, says=says)


hidden_23_3(features)
### END HIDDEN TESTS

# %% [markdown]
# ## 23.4 Does it look?
#
# > ●●●●○ · 50 minutes · practice
#
# Somebody sells you a model that answers "which shape?". Write the audit. `predict(images)` takes pictures $(N, 3,
# 32, 32)$ and returns class numbers $(N,)$. `labels` are the right ones, $(N,)$, int64, `train_labels` those of the
# training set, any number of them. Return a dict:
#
# - `own`: the share of right answers with each item's own picture;
# - `prior`: the share of right answers of somebody who says the most frequent *training* label every time (of
#   equally frequent ones the smallest number);
# - `other`: the mean share of right answers with another item's picture, over the `shifts` $s = 1, \dots, S$: item
#   $i$ gets the picture of item $(i + s) \bmod N$. All shifts together may not call `predict` more than **once**:
#   another picture's answer is known;
# - `low`, `high`: the $95$ % t interval of the mean over items of the *paired* difference: right with the own
#   picture ($0$ or $1$) minus the item's mean over the shifts;
# - `looks`: `True` where `low` is above $0$.
#
# Where all differences are equal, `low` and `high` are that value. Raise `ValueError` where $S$ is not in $1 \dots
# N - 1$: a shift by $N$ is the own picture again. The checker trains two networks on pictures, one of them on
# shuffled ones, and hands both to your audit.


# %% nbgrader={"grade_id": "answer_23_4", "solution": true}
def audit(predict, images, labels, train_labels, shifts):
    """Return a dict with own, prior, other, low, high and looks."""
    ### BEGIN SOLUTION
    N = len(labels)
    if not 1 <= shifts < N:
        raise ValueError(f"{shifts} shifts of {N} items: choose 1 to {N - 1}")
    said = predict(images)
    own = (said == labels).double()
    other = torch.stack([(said.roll(-s) == labels).double() for s in range(1, shifts + 1)]).mean(0)
    usual = torch.bincount(train_labels).argmax()
    difference = own - other
    half = stats.t.ppf(0.975, N - 1) * (difference.std() / math.sqrt(N)).item()
    mean = difference.mean().item()
    return {
        "own": own.mean().item(),
        "prior": (labels == usual).double().mean().item(),
        "other": other.mean().item(),
        "low": mean - half,
        "high": mean + half,
        "looks": mean - half > 0,
    }
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_23_4", "locked": true}
def sold(blind, steps=250):
    """A network that names shapes, trained on pictures or on shuffled ones; circles are twice as frequent."""
    rng = random.Random(11)
    train = [s for s in pictures.scenes(900, rng) if s.shape in ("circles", "crosses") or rng.random() < 0.5]
    images, labels = pictures.draw(train, 1), [pictures.SHAPES.index(s.shape) for s in train]
    if blind:
        images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]
    torch.manual_seed(2)
    net = vision.Heads(vision.ConvEncoder(32), {"shape": pictures.SHAPES}, width=32)
    rows = [{"input_ids": [0], "labels": [y], "picture": [i]} for i, y in enumerate(labels)]
    how = {"steps": steps, "learning_rate": 3e-3, "pad_id": 0, "batch_size": 32}
    training.train(net, rows, objective=partial(vision.head_losses, images), **how)
    return net, torch.tensor(labels)


def check_23_4(audit):
    test = pictures.scenes(150, random.Random(12))
    images, labels = pictures.draw(test, 2), torch.tensor([pictures.SHAPES.index(s.shape) for s in test])
    call, told = checking.calls(audit, changes=("predict",)), []
    for blind in (False, True):
        net, train_labels = sold(blind)
        asked = []

        @torch.no_grad()
        def predict(x, net=net, asked=asked):
            asked.append(len(x))
            return net(x)["shape"].argmax(1)

        mine = call(predict, images, labels, train_labels, 20)
        assert len(asked) == 1, f"predict was called {len(asked)} times; once is enough."
        said = predict(images)
        own = (said == labels).double()
        each = torch.stack(
            [(said[(torch.arange(150) + s) % 150] == labels).double() for s in range(1, 21)]
        ).mean(0)
        d, sure = own - each, stats.t.ppf(0.975, 149)
        counts = torch.bincount(train_labels)
        half = sure * d.std().item() / math.sqrt(150)
        apart = sure * math.sqrt(own.var().item() / 150 + each.var().item() / 150)
        want = {"own": own.mean().item(), "prior": (labels == counts.argmax()).double().mean().item(),
                "other": each.mean().item(), "low": d.mean().item() - half, "high": d.mean().item() + half}  # fmt: skip
        want["looks"] = want["low"] > 0
        checking.form(mine, want, "the audit")
        wrong = {
            "prior": {
                "this is the most frequent label of the test. A blind model has seen the training labels alone.": (
                    torch.bincount(labels).max() / 150).item(),
                "this is one over the number of classes. The prior knows more.": 1 / len(counts),
                "this is the label's share in training. It is to be right on the test items.": (
                    counts.max() / counts.sum()).item(),
            },
            "low": {
                "each item is its own pair: take the deviation of the differences, not of two separate shares.": (
                    d.mean().item() - apart),
                "this is the deviation of one item, not of the mean.": d.mean().item() - sure * d.std().item(),
            },
        }  # fmt: skip
        for key in want:
            checking.equal(mine[key], want[key], key, wrong.get(key), tol=1e-6)
        told.append(
            f"{'shuffled' if blind else 'own'} pictures: right {mine['own']:.2f}, prior {mine['prior']:.2f}, "
            f"another picture {mine['other']:.2f}, looks: {mine['looks']}"
        )
    still = call(
        lambda x: torch.zeros(len(x), dtype=torch.int64),
        images[:4],
        torch.zeros(4, dtype=torch.int64),
        labels,
        3,
    )
    checking.equal(still["low"], 0.0, "low", says="All differences are 0 here.")
    checking.equal(still["looks"], False, "looks", says="A model that is always right may be blind.")
    for shifts in (0, 4):
        call.refuses(ValueError, lambda x: labels[:4], images[:4], labels[:4], labels, shifts,
                     says=f"{shifts} shifts of 4 items: a shift by 0 or by 4 is the own picture.")  # fmt: skip
    print("23.4 passed.", *told, sep="\n")


check_23_4(audit)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# What the model says about item $i$ with the picture of item $j$ is what it says about item $j$: there is no other
# input.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `torch.roll(x, -s)` puts element $i + s$ at place $i$.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 23.5 Project: a new attribute
#
# > ●●●●● · 150 minutes · practice
#
# Give the shapes of lesson 23 a **size** and find out whether the model combines *size and shape* that it has never
# seen together. Before you draw a picture, write the plan. `plan()` returns a dict with exactly these keys:
#
# - `sizes`: a list of three or four words; `shapes`: a list of three to six words, all different;
# - `held_out`: a list of pairs `(size, shape)`, at least two, at most a third of all pairs. Each size and each
#   shape keeps at least two shown pairs;
# - `pictures`: training pictures, spread evenly over the shown pairs: at least $30$ for each pair;
# - `items`: test items of held-out pairs for each seed, at least $50$;
# - `effect`: the smallest drop that you would call a gap, above $0$, at most $0.5$; `spread`: the standard
#   deviation of a seed's difference (shown minus held-out) that you measured on tuning seeds. It cannot be smaller
#   than luck alone, which for shares near one half is $\sqrt{2 \cdot 0.25 / \text{items}}$, with as many items of
#   shown pairs;
# - `seeds`: how many; `power`: that of a two-sided t test at $5$ % for `effect`, `spread` and `seeds`, from the
#   noncentral t distribution, at least $0.8$;
# - `controls`: a list of at least three texts of ten characters or more. One names *shuffled* pictures, one the
#   *prior*, one the *heads* of the encoder;
# - `predicted`: the drop that you expect, from $-1$ to $1$; `refuted_if`: one sentence of at least $40$ characters:
#   which result would make you say that there is no gap of that size.
#
# The checker recomputes what can be computed. A person reads the rest, and what you found, with this rubric (0, 1
# or 2 points a row; 7 of 10 pass):
#
# | | 0 | 1 | 2 |
# |:--|:--|:--|:--|
# | pictures | size can be read off the count or the place | apart from them | and the sizes are told apart on shown pairs |
# | plan | pairs chosen at will | a rule | and another plan for each seed |
# | controls | none run | one or two | all three, and they agree with the story |
# | where it fails | "the model" | eye or language | shown by an encoder that met all pairs |
# | verdict | the mean | with its interval | decided by the sentence of the plan |


# %% nbgrader={"grade_id": "answer_23_5", "solution": true}
def plan():
    """Return a dict with the keys of the box."""
    ### BEGIN SOLUTION
    effect, spread, seeds = 0.15, 0.12, 10
    shift, sure = effect / spread * math.sqrt(seeds), stats.t.ppf(0.975, seeds - 1)
    power = 1 - stats.nct.cdf(sure, seeds - 1, shift) + stats.nct.cdf(-sure, seeds - 1, shift)
    return {
        "sizes": ["small", "medium", "large"],
        "shapes": ["circles", "squares", "triangles", "crosses"],
        "held_out": [("small", "circles"), ("medium", "squares"), ("large", "triangles")],
        "pictures": 900,
        "items": 100,
        "effect": effect,
        "spread": spread,
        "seeds": seeds,
        "power": float(power),
        "controls": [
            "shuffled pictures in training",
            "the text prior of the training answers",
            "the encoder's own heads",
        ],
        "predicted": 0.3,
        "refuted_if": "If the interval of the drop lies below 0.15, there is no gap of the size that matters to us.",
    }
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_23_5", "locked": true}
PLAN = "sizes shapes held_out pictures items effect spread seeds power controls predicted refuted_if".split()


def check_23_5(plan):
    mine = checking.calls(plan)()
    assert isinstance(mine, dict), f"Return a dict, not {checking.shown(mine)}."
    missing = [key for key in PLAN if key not in mine] + [f"no {key}" for key in mine if key not in PLAN]
    assert not missing, f"The plan lacks, or has too much: {', '.join(map(str, missing))}."

    def number(key, low, high, whole=False):
        checking.form(mine[key], 0.0, key)
        value = float(mine[key])
        assert math.isfinite(value) and low <= value <= high, (
            f"{key}: a number from {low} to {high}, not {mine[key]!r}."
        )
        assert not whole or value == int(value), f"{key}: a whole number, not {mine[key]!r}."
        return value

    for key, low, high in (("sizes", 3, 4), ("shapes", 3, 6)):
        words = mine[key]
        assert isinstance(words, list) and all(isinstance(w, str) and w.strip() for w in words), (
            f"{key}: a list of words."
        )
        assert low <= len(words) <= high and len(set(words)) == len(words), (
            f"{key}: {low} to {high} different words."
        )
    every = set(itertools.product(mine["sizes"], mine["shapes"]))
    held = [tuple(pair) for pair in mine["held_out"]]
    assert set(held) <= every and len(set(held)) == len(held), (
        "held_out: different pairs (size, shape) of your own words."
    )
    assert 2 <= len(held) <= len(every) / 3, f"held_out: 2 to {len(every) // 3} pairs, not {len(held)}."
    shown = every - set(held)
    for place, name in ((0, "sizes"), (1, "shapes")):
        for word in mine[name]:
            n = sum(pair[place] == word for pair in shown)
            assert n >= 2, (
                f"held_out: {word!r} keeps {n} shown pair: a failure could mean that {word!r} itself was not learned."
            )
    each = number("pictures", 1, 1e6, whole=True) / len(shown)
    assert each >= 30, f"pictures: {each:.0f} for each shown pair; 30 at least, held-out pairs get none."
    items, seeds = number("items", 50, 1e5, whole=True), int(number("seeds", 3, 200, whole=True))
    effect, spread = number("effect", 1e-6, 0.5), number("spread", 1e-6, 1.0)
    luck = math.sqrt(2 * 0.25 / items)
    assert spread >= luck - 1e-9, (
        f"spread: {spread:.3f} is less than luck alone gives with {items:.0f} items of each kind, {luck:.3f}."
    )
    shift, sure = effect / spread * math.sqrt(seeds), stats.t.ppf(0.975, seeds - 1)
    want = 1 - stats.nct.cdf(sure, seeds - 1, shift) + stats.nct.cdf(-sure, seeds - 1, shift)
    got = number("power", 0, 1)
    wrong = {
        "this is the power for one seed's spread: with more seeds the mean's error is smaller.": 1 - stats.nct.cdf(
            sure, seeds - 1, effect / spread),
        "this takes the normal distribution. With few seeds the spread itself is uncertain: use t.": 1 - stats.norm.cdf(
            1.96 - shift),
    }  # fmt: skip
    if abs(got - want) > 5e-3:
        for says, value in wrong.items():
            assert abs(got - value) > 2e-3, f"power: {says}"
        raise AssertionError(f"power: you have {got:.3f}; from effect, spread and seeds it is {want:.3f}.")
    assert want >= 0.8, (
        f"power: {want:.2f} is too little. More seeds, more items, or a larger smallest effect."
    )
    texts = mine["controls"]
    assert isinstance(texts, list) and len(texts) >= 3 and all(isinstance(t, str) and len(t.strip()) >= 10 for t in texts), (
        "controls: a list of three texts or more."
    )  # fmt: skip
    for word in ("shuffled", "prior", "heads"):
        assert any(word in t.lower() for t in texts), f"controls: none names {word!r}."
    number("predicted", -1, 1)
    assert isinstance(mine["refuted_if"], str) and len(mine["refuted_if"].strip()) >= 40, (
        "refuted_if: a sentence."
    )
    print(
        f"23.5 passed: {len(shown)} shown pairs, {len(held)} held out, power {want:.2f}. Now a person reads it."
    )


check_23_5(plan)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `stats.nct.cdf(x, df, shift)` is the noncentral t distribution, with `shift` = effect / (spread / √seeds).
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Copy `pictures.draw` and let `r` depend on the size. Keep the number of shapes and the distance between them
# fixed.
#
# </details>
#
# {{solution}}
