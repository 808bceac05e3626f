# ---
# jupyter:
#   instructlab:
#     id: "08"
#     title: Adapters, IA3, BitFit
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 08: adapters, IA3, BitFit
#
# Each exercise is a box, a cell for your answer, and a checker in the cell below it. Replace the line that
# raises `NotImplementedError`, then run both cells. A checker that says no also says what probably went
# wrong.
#
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases
# that you do not see here, so test more than the checker does. The page needs no network and no file.
# Exercise 08.6 trains small networks, and exercise 08.7 is a project. Each of the two is worth an evening.
#
# {{overview}}

# %%
import copy

import torch
from torch import nn
from torch.nn import functional as F

from instructlab_utils import checking, intervals

# %% [markdown]
# ## 08.1 An adapter and its gradient
#
# > ●●●○○ · 20 minutes · graded
#
# An adapter with ReLU: $y = h + W_{\text{up}} \max(0, u) + b_{\text{up}}$ with
# $u = W_{\text{down}} h + b_{\text{down}}$. The rows of $h$ are tokens. Return $y$ and the gradients of a
# loss $L$, given $\delta = \partial L / \partial y$, all in the dtype of the arguments. Write them out, without autograd.
#
# A weight is shared by all tokens, so its gradient is a sum over tokens. The slope of ReLU is $1$ where
# $u > 0$, and $0$ elsewhere.


# %% nbgrader={"grade_id": "answer_08_1", "solution": true}
def adapter(h, W_down, b_down, W_up, b_up, delta):
    """Return y (n, d) and a dict with the gradients of W_down (m, d), b_down (m,), W_up (d, m), b_up (d,), h (n, d).

    h and delta have shape (n, d).
    """
    ### BEGIN SOLUTION
    u = h @ W_down.T + b_down
    a = u.clamp(min=0)
    s = (delta @ W_up) * (u > 0)
    gradients = {
        "W_down": s.T @ h,
        "b_down": s.sum(0),
        "W_up": delta.T @ a,
        "b_up": delta.sum(0),
        "h": delta + s @ W_down,
    }
    return h + a @ W_up.T + b_up, gradients
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_08_1", "grade": true, "points": 4, "locked": true}
def case_08_1(n, d, m, seed=0):
    """Random tensors h, W_down, b_down, W_up, b_up, delta in float64."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(n, d), (m, d), (m,), (d, m), (d,), (n, d)]
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]


def truth_08_1(h, W_down, b_down, W_up, b_up, delta):
    leaves = dict(W_down=W_down, b_down=b_down, W_up=W_up, b_up=b_up, h=h)
    leaves = {name: value.clone().requires_grad_() for name, value in leaves.items()}
    u = leaves["h"] @ leaves["W_down"].T + leaves["b_down"]
    y = leaves["h"] + torch.relu(u) @ leaves["W_up"].T + leaves["b_up"]
    return y.detach(), dict(zip(leaves, torch.autograd.grad(y, list(leaves.values()), delta), strict=True))


def check_08_1(adapter):
    call = checking.calls(adapter)
    values = case_08_1(n=4, d=5, m=3)
    h, W_down, b_down, W_up, b_up, delta = values
    answer, truth = call(*values), truth_08_1(*values)
    checking.form(answer, truth, "(y, gradients)", dtype=torch.float64)
    (y, gradients), (want_y, want) = answer, truth
    u = h @ W_down.T + b_down
    wrong = {
        "y lacks the skip connection: h itself is part of the output.": want_y - h,
        "y: the ReLU is missing. Without it the two matrices are one.": h + u @ W_up.T + b_up,
        "y lacks b_up.": want_y - b_up,
        "y lacks b_down: it is added before the ReLU.": h + torch.relu(u - b_down) @ W_up.T + b_up,
        "y: the ReLU stands between the two matrices, not behind them.": h + torch.relu(u @ W_up.T + b_up),
        "y: b_down is added behind the ReLU. It belongs to u.": h
        + (torch.relu(u - b_down) + b_down) @ W_up.T
        + b_up,
    }
    says = "y is off. First W_down and b_down, then ReLU, then W_up and b_up, then + h."
    checking.equal(y, want_y, "y", wrong, says=says)
    passed, alive = delta @ W_up, (u > 0).double()
    slopes = {  # what a wrong slope makes of the gradient at u
        "the slope of ReLU is missing. Where u is negative, nothing passes.": passed,
        "you multiplied with ReLU(u) itself. Its slope is 1 or 0.": passed * torch.relu(u),
        "you multiplied with u. The slope of ReLU is 1 or 0.": passed * u,
        "the slope is 1 where u > 0, and you have 1 where u < 0.": passed * (1 - alive),
        "what comes back is cut by its own sign. ReLU's slope asks for the sign of u.": passed.clamp(min=0),
        "δ has to come back through W_up.": (h @ W_up) * alive,
    }
    right = passed * alive
    mean = "the gradient is a sum over tokens, not a mean. Dividing is the loss's business."
    wrong = {f"W_down: {text}": s.T @ h for text, s in slopes.items()}
    wrong |= {f"W_down: {mean}": want["W_down"] / 4, "W_down: it met h, not δ.": right.T @ delta}
    checking.equal(gradients["W_down"], want["W_down"], "W_down", wrong, says="Sum over the tokens of s hᵀ.")
    wrong = {f"b_down: {text}": s.sum(0) for text, s in slopes.items()}
    wrong |= {f"b_down: {mean}": want["b_down"] / 4}
    checking.equal(gradients["b_down"], want["b_down"], "b_down", wrong, says="The sum of s over the tokens.")
    wrong = {
        "W_up: it is multiplied with ReLU(u), not with u, so its gradient is, too.": delta.T @ u,
        "W_up: it met the slope of ReLU; it is multiplied with ReLU(u).": delta.T @ alive,
        "W_up: the output is h + W_up a, but the gradient of W_up needs δ, not y.": want_y.T @ torch.relu(u),
        f"W_up: {mean}": want["W_up"] / 4,
    }
    says = "Sum over the tokens of δ aᵀ, with a = ReLU(u)."
    checking.equal(gradients["W_up"], want["W_up"], "W_up", wrong, says=says)
    wrong = {f"b_up: {mean}": delta.mean(0), "b_up: y is no gradient. Sum δ.": want_y.sum(0)}
    checking.equal(gradients["b_up"], want["b_up"], "b_up", wrong, says="The sum of δ over the tokens.")
    wrong = {
        "h: the path through the skip connection is missing. Without it the layers below get almost no "
        "gradient.": want["h"] - delta,
        "h: the path through the adapter is missing. δ comes back by both ways.": delta,
        "h: you subtract. The two paths add up.": delta - right @ W_down,
    }
    wrong |= {f"h: {text}": delta + s @ W_down for text, s in slopes.items()}
    wrong |= {f"h, skip missing, too: {text}": s @ W_down for text, s in slopes.items()}
    checking.equal(gradients["h"], want["h"], "h", wrong, says="δ itself, plus s through W_down.")
    by_hand = "The values are right, but they need autograd. Write the gradients out."
    with torch.no_grad(), checking.means(RuntimeError, by_hand):
        call(*values)
    print("08.1 passed the visible cases. All five gradients agree with autograd.")


check_08_1(adapter)
### BEGIN HIDDEN TESTS


def hidden_08_1(adapter):
    call = checking.calls(adapter)
    zero = case_08_1(n=3, d=4, m=2, seed=2)
    zero[1], zero[2] = torch.zeros_like(zero[1]), torch.zeros_like(zero[2])
    call.agrees(truth_08_1, tuple(zero), says="At u = 0 the slope is 0 here: u > 0, not u >= 0.")
    for says, sizes in {
        "m = d: a transposed matrix no longer fails by its shape.": (3, 4, 4),
        "n = d = m.": (3, 3, 3),
        "A single token.": (1, 6, 2),
        "One number in the middle.": (5, 3, 1),
        "More numbers in the middle than outside.": (2, 3, 7),
    }.items():
        call.agrees(truth_08_1, tuple(case_08_1(*sizes, seed=sum(sizes))), says=says)
    large = tuple(2000 * value for value in case_08_1(2, 5, 3, seed=3))
    call.agrees(truth_08_1, large, says="Numbers in the thousands.")
    single = tuple(value.float() for value in case_08_1(6, 2, 4, seed=4))
    call.agrees(truth_08_1, single, dtype=torch.float32, says="Arguments in float32.")


hidden_08_1(adapter)
### END HIDDEN TESTS

# %% [markdown]
# ## 08.2 Count before you train
#
# > ●●○○○ · 10 minutes · practice · prediction
#
# An encoder has $L = 2$ layers of width $d = 100$; the feed-forward network's inner width is $400$. Each
# layer has four $d \times d$ linear layers in the attention and two linear layers in the feed-forward
# network, all with biases, and two LayerNorms. One more LayerNorm stands behind the embeddings. There is no
# pooler, and heads do not count.
#
# How many numbers train?
#
# - `houlsby`: adapters of size $10$ behind both sublayers, and all LayerNorms;
# - `layer_norms`: all LayerNorms;
# - `bitfit`: all biases, those of the LayerNorms included;
# - `ia3`: a vector for the keys, one for the values, one for what the feed-forward network hands to its
#   last layer.
#
# Write four whole numbers. Pencil and paper are enough.


# %% nbgrader={"grade_id": "answer_08_2", "solution": true}
def prediction():
    """Return {"houlsby": …, "layer_norms": …, "bitfit": …, "ia3": …}, four ints."""
    ### BEGIN SOLUTION
    layer_norms = 5 * 2 * 100
    houlsby = 4 * (2 * 100 * 10 + 10 + 100) + layer_norms
    bitfit = 2 * (4 * 100 + 400 + 100) + 5 * 100
    ia3 = 2 * (100 + 100 + 400)
    return {"houlsby": houlsby, "layer_norms": layer_norms, "bitfit": bitfit, "ia3": ia3}
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_08_2", "locked": true}
def check_08_2(prediction):
    got = checking.predicted(prediction, ("houlsby", "layer_norms", "bitfit", "ia3"))
    d, f, m, layers = 100, 400, 10, 2
    norms = 2 * layers + 1
    wrong = {
        "layer_norms: a LayerNorm has a gain and a bias, both of width d.": norms * d,
        "layer_norms: you forgot the one behind the embeddings.": 2 * layers * 2 * d,
        "layer_norms: a gain and a bias each, and one more LayerNorm behind the embeddings.": 2 * layers * d,
        "layer_norms: there are two in each layer.": (layers + 1) * 2 * d,
        "layer_norms: there are two layers.": 3 * 2 * d,
    }
    says = f"layer_norms: {norms} of them, each with 2d numbers."
    checking.equal(got["layer_norms"], norms * 2 * d, "layer_norms", wrong, says=says)
    train, adapters = norms * 2 * d, 2 * layers * (2 * d * m + m + d)
    wrong = {
        "houlsby: the LayerNorms train too.": adapters,
        "houlsby: an adapter has two biases, one of width m and one of width d.": 2 * layers * 2 * d * m
        + train,
        "houlsby: an adapter has two biases, one of width m and one of width d; and the LayerNorms train.": 2
        * layers
        * 2
        * d
        * m,
        "houlsby: the bias behind W_up is missing. It has the width d.": adapters - 2 * layers * d + train,
        "houlsby: the bias behind W_down is missing. It has the width m.": adapters - 2 * layers * m + train,
        "houlsby: there is an adapter behind *both* sublayers of both layers.": adapters // 2 + train,
        "houlsby: these are the adapters of one layer.": adapters // 2,
        "houlsby: this is one adapter.": adapters // 4 + train,
        "houlsby: an adapter goes down to m and up again: two matrices.": adapters
        - 2 * layers * d * m
        + train,
        "houlsby: both biases of an adapter have the width m here; the second one has the width d.": 2
        * layers
        * (2 * d * m + 2 * m)
        + train,
        "houlsby: both biases of an adapter have the width d here; the first one has the width m.": 2
        * layers
        * (2 * d * m + 2 * d)
        + train,
    }
    says = f"houlsby: four adapters of 2dm + m + d = {adapters // 4} numbers, and all LayerNorms."
    checking.equal(got["houlsby"], adapters + train, "houlsby", wrong, says=says)
    linear = layers * (4 * d + f + d)
    wrong = {
        "bitfit: a LayerNorm has a bias, too.": linear,
        "bitfit: the bias of the feed-forward network's first layer has its inner width.": layers * 6 * d
        + norms * d,
        "bitfit: a LayerNorm has a bias, and the feed-forward network's first layer one of its inner width.": layers
        * 6
        * d,
        "bitfit: the LayerNorm behind the embeddings has a bias, too.": linear + 2 * layers * d,
        "bitfit: the gain of a LayerNorm is no bias.": linear + 2 * norms * d,
        "bitfit: the two linear layers of the feed-forward network have biases, too.": layers * 4 * d
        + norms * d,
        "bitfit: the last linear layer of the feed-forward network has a bias, too.": linear
        - layers * d
        + norms * d,
        "bitfit: the last linear layer of the feed-forward network returns d numbers, not 4d.": layers
        * (4 * d + 2 * f)
        + norms * d,
        "bitfit: there are two layers.": linear // 2 + norms * d,
    }
    says = "bitfit: a bias has the width of what its layer returns. Add them up, part by part."
    checking.equal(got["bitfit"], linear + norms * d, "bitfit", wrong, says=says)
    wrong = {
        "ia3: the third vector has the inner width of the feed-forward network, and there are two layers.": layers
        * 3
        * d,
        "ia3: the feed-forward network gets a vector, too, of its inner width.": layers * 2 * d,
        "ia3: that is peft's default on BERT, with a fourth vector (section 6). The statement lists three.": layers
        * (3 * d + f),
        "ia3: each is a vector, one number per feature, not a matrix.": layers * (2 * d * d + f * f),
    }
    says = "ia3: in each layer two vectors of the width d and one of the inner width."
    checking.equal(got["ia3"], layers * (2 * d + f), "ia3", wrong, says=says)
    print("08.2 passed. All four are a small part of the 240,000 numbers that the two layers have.")


check_08_2(prediction)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Draw one layer as a list of its parts, and write the width of each part's output beside it. A bias has the
# width of the output.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Two LayerNorms per layer and one more make five. There are two sublayers in each of two layers, so four
# adapters.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 08.3 Fold the factors in
#
# > ●●○○○ · 12 minutes · practice
#
# IA3 multiplies with a vector $l$, either what a linear layer returns, $l \odot (W x + b)$, or what it
# receives, $W (l \odot x) + b$. Return the weight and the bias of *one* linear layer that does the same, both as new
# tensors of the same dtype, also the one that does not change. The frozen weights must stay as they are: you may
# want to unmerge. Some layers have no bias; then return `None` for it.


# %% nbgrader={"grade_id": "answer_08_3", "solution": true}
def fold(W, b, l, on_input):
    """Return (W', b'); W is (out, in), b (out,) or None, l is (in,) where on_input, else (out,)."""
    ### BEGIN SOLUTION
    if on_input:
        return W * l, None if b is None else b.clone()
    return W * l[:, None], None if b is None else b * l
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_08_3", "locked": true}
def folded(W, b, l, on_input):
    """The same, row by row."""
    rows = [W[i] * (l if on_input else l[i]) for i in range(len(W))]
    bias = None if b is None else b if on_input else torch.stack([x * y for x, y in zip(b, l, strict=True)])
    return torch.stack(rows), bias


def check_08_3(fold):
    call = checking.calls(fold)
    generator = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    W, b, l = randn(4, 4), randn(4), randn(4)  # square: the shapes hide a wrong side
    sides = {False: "rows: each makes one output", True: "columns: each meets one input"}
    for on_input, side in sides.items():
        answer, want = call(W, b, l, on_input), folded(W, b, l, on_input)
        checking.form(answer, want, "(W', b')", dtype=torch.float64)
        case = f"on_input = {on_input}"
        wrong = {
            f"{case}: l scales the {side}.": folded(W, b, l, not on_input)[0],
            f"{case}: W' is W itself. l belongs into it.": W,
            f"{case}: you divide by l. That takes the factors out again.": folded(W, b, 1 / l, on_input)[0],
            f"{case}: IA3 multiplies with l itself, not with 1 + l.": folded(W, b, 1 + l, on_input)[0],
            f"{case}: l is multiplied in twice.": folded(W, b, l * l, on_input)[0],
            f"{case}: l scales one side only.": W * l * l[:, None],
            f"{case}: W' is transposed.": want[0].T,
        }
        checking.equal(answer[0], want[0], f"{case}: W'", wrong, says=f"l scales the {side}.")
        if on_input:
            says = f"{case}: the bias comes after the factors, so it stays as it is."
            wrong = {says: b * l, f"{says} Not W l, either.": b + W @ l}
        else:
            says = f"{case}: the factors also multiply the bias, l ⊙ (Wx + b)."
            wrong = {says: b, f"{says} They do not add to it.": b + l}
        checking.equal(answer[1], want[1], f"{case}: b'", wrong, says=says)
    cases = [
        (randn(n, m), randn(n), randn(m if on_input else n), on_input)
        for n, m in ((2, 3), (5, 2), (1, 4), (3, 1))
        for on_input in (False, True)
    ]
    says = "W is (out, in), and not square here: l has one number per input, or one per output."
    with checking.means(RuntimeError, says):
        call.agrees(folded, *cases, name="(W', b')", says=says)
    bare = "A layer without a bias fails. Llama has no other ones: return None there."
    with checking.means(TypeError, bare), checking.means(AttributeError, bare):
        for W, _, l, on_input in cases:
            says = "Without a bias the merged layer has none either: None."
            call.agrees(folded, (W, None, l, on_input), name="(W', b')", says=says)
    single = randn(3, 2).float(), randn(3).float(), randn(3).float(), False
    call.agrees(
        folded, single, name="(W', b')", dtype=torch.float32, says="A layer in float32 stays in float32."
    )
    W, b, l = randn(4, 3), randn(4), randn(3)
    assert fold(W, b, l, True)[1].data_ptr() != b.data_ptr(), (
        "on_input = True: b' is the frozen b itself, so who changes one changes both. Return a new tensor: b.clone()."
    )
    print("08.3 passed. One linear layer does the work of both, at no cost.")


check_08_3(fold)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `W * l` multiplies column $j$ with $l_j$, for the last axis of `W` meets the only axis of `l`. For rows the
# vector must stand upright: `l[:, None]`.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Write $l \odot (W x + b)$ out for one output $i$: $\; l_i \big(\sum_j W_{ij} x_j + b_i\big)$.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 08.4 The frozen weights that moved
#
# > ●●●○○ · 15 minutes · practice · bug hunt
#
# Somebody wants BitFit: train the biases and the whole head, freeze the rest. The program below runs, and
# still it is wrong in four ways. The model may arrive in any state: after a training step, or frozen by
# somebody else.


# %%
def broken_prepare(model, head):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for name, parameter in model.named_parameters():
        if "bias" not in name:
            parameter.requires_grad = False
    return optimizer


# %% [markdown]
# Write it so that exactly the biases (parameters whose own name is `bias`) and all parameters of the module
# named `head`, a direct child of the model, train, whatever came before. No old gradient may be left. Return an AdamW
# optimiser of rate `0.1` that knows those parameters and no others. No weight moves yet.


# %% nbgrader={"grade_id": "answer_08_4", "solution": true}
def prepare(model, head):
    """Set requires_grad of every parameter, and return an AdamW optimiser (lr 0.1) of those that train.

    head is the name of a child module, such as "classifier".
    """
    ### BEGIN SOLUTION
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.split(".")[-1] == "bias" or name.split(".")[0] == head
        parameter.grad = None
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_08_4", "locked": true}
class Toy(torch.nn.Module):
    """An encoder and a head, and names that look like a bias or like the head."""

    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
        self.encoder.add_module("classifier", torch.nn.Linear(4, 4))
        self.debiaser = torch.nn.Linear(4, 5)
        self.query_bias = torch.nn.Parameter(torch.zeros(5))
        self.classifier_norm = torch.nn.LayerNorm(5)
        self.classifier = torch.nn.Sequential(
            torch.nn.Linear(5, 6), torch.nn.LayerNorm(6), torch.nn.Linear(6, 2)
        )
        generator = torch.Generator().manual_seed(1)
        for parameter in self.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x):
        x = torch.tanh(self.debiaser(torch.tanh(self.encoder(x))) + self.query_bias)
        return self.classifier(self.classifier_norm(x))


def step_08_4(model, optimizer=None):
    """One backward pass and, with an optimiser, one update; returns the names of the parameters that moved."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(9))
    (model(x) ** 2).sum().backward()
    if optimizer:
        optimizer.step()
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


def check_08_4(prepare):
    call = checking.calls(prepare, changes=("model",))
    names = {name for name, _ in Toy().named_parameters()}

    def wanted(head):
        return {name for name in names if name.endswith(".bias") or name.startswith(f"{head}.")}

    def check_flags(model, head, says):
        train = {name for name, p in model.named_parameters() if p.requires_grad}
        missing, extra = sorted(wanted(head) - train), sorted(train - wanted(head))
        assert not missing, f"{says} {missing[0]} should train, and it is frozen."
        assert not extra, f"{says} {extra[0]} trains, and it should be frozen."

    model = Toy()
    optimizer = call(model, "classifier")
    assert isinstance(optimizer, torch.optim.Optimizer), (
        f"Return the optimiser, not {type(optimizer).__name__}."
    )
    train = {name for name, p in model.named_parameters() if p.requires_grad}
    assert "classifier.0.weight" in train or "encoder.0.bias" not in train, (
        "The head's weight is frozen. A head may hold modules of its own, such as classifier.0: take all names that "
        "begin with `classifier.`. A head that stays random is the most frequent mistake of all."
    )
    assert "debiaser.weight" not in train or "encoder.0.weight" in train, (
        'debiaser.weight trains: "bias" is part of its name, but it is no bias. Compare the last part of the name.'
    )
    assert "query_bias" not in train or "encoder.0.weight" in train, (
        "query_bias trains: its own name only ends in bias. Compare the whole last part of the name."
    )
    assert "encoder.1.weight" not in train or "encoder.0.weight" in train, (
        "encoder.1.weight trains: the gain of a LayerNorm is no bias."
    )
    assert "classifier_norm.weight" not in train or "encoder.0.weight" in train, (
        "classifier_norm trains whole: its name begins like the head's, but it is another module. Compare the "
        "whole first part of the name."
    )
    assert "encoder.classifier.weight" not in train or "encoder.0.weight" in train, (
        "encoder.classifier trains whole: the head is a direct child of the model. Compare the *first* part of the name."
    )
    check_flags(model, "classifier", "The biases and the head should train, nothing else.")
    assert all(map(torch.equal, model.parameters(), Toy().parameters())), (
        "prepare moved the weights. It only chooses what trains."
    )
    model = Toy()
    call(model, "debiaser")
    check_flags(model, "debiaser", "Another head, 'debiaser': use the argument head.")
    says = "The model came frozen, and it still is. Freezing alone is not enough: set the flag of what trains, too."
    for left in ("encoder.0.bias", "nothing"):
        model = Toy()
        for name, parameter in model.named_parameters():
            parameter.requires_grad = name == left
        with checking.means(ValueError, says):  # an optimiser without parameters
            optimizer = call(model, "classifier")
        check_flags(model, "classifier", says)
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert {id(p) for p in model.parameters() if p.requires_grad} <= held, (
            "The model came frozen, and the optimiser lacks some of what trains: build it after the flags are set."
        )
    model = Toy()
    step_08_4(model)  # somebody trained it before
    optimizer = call(model, "classifier")
    want = wanted("classifier")
    ids = {id(p) for group in optimizer.param_groups for p in group["params"]}
    held = {name for name, p in model.named_parameters() if id(p) in ids}
    old = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    if old - want:
        moved = step_08_4(model, optimizer) - want
        assert not moved, (
            f"{sorted(moved)[0]} is frozen and moved. Its old gradient is still there, and the optimiser holds it."
        )
        raise AssertionError(
            "A frozen parameter still has its old gradient: clipping would count it. Set it to None."
        )
    assert not old, (
        "What trains still carries the old gradient: the first update would add the new one to it."
    )
    assert want <= held, (
        f"The optimiser lacks {min(want - held)}: build it after the flags are set, from all that train."
    )
    assert held <= want, (
        "The optimiser holds frozen parameters. They do not move, but whoever unfreezes one later trains it "
        "unawares: give it only what trains."
    )
    assert type(optimizer) is torch.optim.AdamW, (
        f"An AdamW optimiser expected, not {type(optimizer).__name__}."
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    assert all(rate == 0.1 for rate in rates), f"A learning rate of 0.1 expected, not {rates[0]:g}."
    assert step_08_4(model, optimizer) == want, (
        "After one update exactly the chosen parameters should have moved."
    )
    print("08.4 passed. What is frozen stays frozen, whatever came before.")


check_08_4(prepare)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `"bias" in "debiaser.weight"` is true. `name.split(".")` gives the parts.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Set `requires_grad` to a Boolean for *every* parameter, set `grad` to None, and only then build the
# optimiser.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 08.5 What a step costs
#
# > ●●●○○ · 12 minutes · graded
#
# A network is a chain of `L` equal linear layers, numbered from 0 at the input. Count products of matrices,
# one unit each:
#
# - forward: one in every layer;
# - the gradient of a layer's weight: one in every layer that *trains*;
# - the gradient of a layer's input: one in every layer through which a gradient must travel to reach a
#   trained layer below. Nobody needs the gradient of what the lowest trained layer receives.
#
# `trained` is a list of layer numbers in any order, perhaps empty.


# %% nbgrader={"grade_id": "answer_08_5", "solution": true}
def step_cost(L, trained):
    """Return the number of products, an int; trained is a list of numbers in 0 … L - 1."""
    ### BEGIN SOLUTION
    if not trained:
        return L
    travelled = L - 1 - min(trained)
    return L + len(trained) + travelled
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_08_5", "grade": true, "points": 2, "locked": true}
def check_08_5(step_cost):
    call = checking.calls(step_cost)
    wrong = {
        "All layers train: 17, not 18. The lowest one need not pass a gradient on.": 18,
        "The gradients of the layers' inputs are missing: five layers must pass one on, trained ones, too, and the "
        "highest, too, since a gradient has to reach the lowest.": 12,
        "Layer 0 trains, and you count the forward pass alone. 0 counts as false: compare with None, or ask whether "
        "the list is empty.": 6,
        "Six products forward, six for the weights, and the gradients through five layers. You lack one of the "
        "three parts.": 11,
    }
    checking.equal(call(6, [0, 1, 2, 3, 4, 5]), 17, "the cost", wrong, says="All six layers train.")
    wrong = {
        "Only the top layer trains: backward stops there. You let the gradient run to the input.": 12,
        "Only the top layer trains, and nothing below it: nobody needs the gradient of its input.": 8,
        "Only the top layer trains: one gradient of a weight, not one in each layer.": 12 + 5,
    }
    says = "Only the top layer trains: six products forward and one for its weight."
    checking.equal(call(6, [5]), 7, "the cost", wrong, says=says)
    wrong = {
        "Only layer 0 trains: the gradient has to travel through the five layers above it, though they are "
        "frozen.": 7,
    }
    checking.equal(call(6, [0]), 12, "the cost", wrong, says="Only layer 0 trains.")
    wrong = {
        "Layers 1 and 4 train: the gradient travels down to the *lowest* of them, past the highest.": 9,
        "Layers 1 and 4 train: the gradient starts at the loss, so it passes layer 5, too.": 11,
        "Layers 1 and 4 train: a gradient travels through layers 5, 4, 3 and 2, through each once.": 13,
    }
    checking.equal(call(6, [1, 4]), 12, "the cost", wrong, says="Layers 1 and 4 train.")
    print(
        "08.5 passed the visible cases. Training the lowest layer alone costs 12 of 17, training the highest 7."
    )


check_08_5(step_cost)
### BEGIN HIDDEN TESTS


def by_layers(L, trained):
    """Layer by layer: forward, its weight, its input."""
    return sum(1 + (i in trained) + any(j < i for j in trained) for i in range(L))


def hidden_08_5(step_cost):
    call = checking.calls(step_cost)
    says = "Nothing trains: the forward pass is still there. The smallest of no layers fails."
    with checking.means(ValueError, says), checking.means(IndexError, says):
        got = call(5, [])
    wrong = {"Nothing trains: no gradient travels anywhere.": 9, "Nothing trains: no gradient travels.": 10}
    checking.equal(got, 5, "the cost", wrong, says="Nothing trains: only the forward pass, 5 products.")
    says = "The list may come in any order: look for the lowest, do not take the first."
    call.agrees(by_layers, (6, [4, 1]), (6, [3, 5, 2]), (6, [2, 4, 0, 1]), name="the cost", says=says)
    cases = [(L, [i for i in range(L) if n >> i & 1]) for L in (1, 2, 4, 9) for n in range(0, 2**L, 3)]
    call.agrees(by_layers, *cases, name="the cost", says="Another number of layers.")


hidden_08_5(step_cost)
### END HIDDEN TESTS

# %% [markdown]
# ## 08.6 What the mean has lost
#
# > ●●●●○ · 40 minutes · graded
#
# A small text encoder gives one vector to each word. It was trained to say of a text whether most words are good, and whether
# most words are about films: two yes-no questions. Now it is frozen, and a new task asks for something else. Some words are
# *odd*: good and not about films, or bad and about films. How many of a text's words are odd: few (at most a third), some, or
# many (more than two thirds)? A head on the mean of the frozen vectors is about as good as guessing. Say in a comment why,
# then mend it with few numbers.
#
# `world_08_6(seed)` trains the encoder (a tenth of a second) and returns it with `400` labelled texts and `1000` test texts,
# each as ids $(N, T)$, a mask $(N, T)$ and labels. Words and their groups are drawn anew for each seed.


# %%
WORDS, LONGEST, WIDTH = 96, 16, 16  # words have the ids 1 to 96; 0 is padding


class Trunk(nn.Module):
    """A vector for each token: ids (B, T) to (B, T, 16)."""

    def __init__(self):
        super().__init__()
        self.table, self.dropout = nn.Embedding(WORDS + 1, WIDTH), nn.Dropout(0.2)
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, ids):
        return self.layer(self.dropout(self.table(ids)))


def texts_08_6(n, groups, g):
    """n texts of 4 to 16 words: ids and mask, and which share of the words is odd."""
    mask = (torch.arange(LONGEST) < torch.randint(4, LONGEST + 1, (n, 1), generator=g)).long()
    odd = torch.rand(n, LONGEST, generator=g) < torch.rand(n, 1, generator=g)
    nth = torch.where(odd, odd.cumsum(1), (~odd).cumsum(1))
    begin = (torch.rand(n, 2, generator=g) < 0.5).gather(1, odd.long())
    good = (nth % 2 == 0) ^ begin  # good and bad take turns among the odd words, and among the others
    film = good ^ odd
    ids = groups[2 * good.long() + film.long(), torch.randint(WORDS // 4, (n, LONGEST), generator=g)]
    return ids * mask, mask, (odd * mask).sum(1) / mask.sum(1)


def world_08_6(seed):
    g = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    groups = (1 + torch.randperm(WORDS, generator=g)).view(4, -1)
    trunk, heads = Trunk(), nn.Linear(WIDTH, 2)
    nn.init.normal_(trunk.table.weight, std=0.05)
    ids = 1 + torch.randint(WORDS, (1000, LONGEST), generator=g)
    yes = torch.stack([torch.isin(ids, groups[2:]), torch.isin(ids, groups[1::2])], 2).double().mean(1) > 0.5
    adam = torch.optim.AdamW([*trunk.parameters(), *heads.parameters()], lr=3e-2, weight_decay=0.05)
    for _ in range(60):
        i = torch.randint(1000, (64,), generator=g)
        adam.zero_grad()
        F.binary_cross_entropy_with_logits(heads(trunk(ids[i]).mean(1)), yes[i].float()).backward()
        adam.step()
    adam.zero_grad()

    def rows(n):
        ids, mask, odd = texts_08_6(n, groups, g)
        return ids, mask, (odd > 1 / 3).long() + (odd > 2 / 3).long()

    return trunk, rows(400), rows(1000)


# %% [markdown]
# Write `adapt(trunk, ids, mask, y, generator)`. It returns a module that takes `(ids, mask)` and returns logits $(N, 3)$. The
# trunk arrives in training mode, and nothing in it is frozen yet. The checker demands of the module:
#
# - the tensors of the trunk that you were given are bit by bit what they were, and so are those of the trunk inside your
#   module, which may be the same one or a copy;
# - all other tensors in its `state_dict()` together have at most `200` numbers, heads and biases included;
# - it comes back in evaluation mode: the same call, the same logits;
# - more padding on the right (id `0`, mask `0`) changes no logit, and a text alone has the logits that it has in a batch;
# - on test texts its accuracy is at least $90\,\%$, as a mean over seeds.
#
# Draw all random numbers from `generator`, so that a run can be repeated. A call may take six seconds of processor time.


# %% nbgrader={"grade_id": "answer_08_6", "solution": true}
def adapt(trunk, ids, mask, y, generator):
    """ids, mask (N, T), y (N,) with 0, 1, 2. Return a module: (ids, mask) -> logits (N, 3)."""

    ### BEGIN SOLUTION
    class Tuned(nn.Module):
        """An adapter for each word, before the mean: there good and film can still meet."""

        def __init__(self, m=4):
            super().__init__()
            self.trunk = trunk.eval().requires_grad_(False)
            self.down, self.up, self.head = nn.Linear(WIDTH, m), nn.Linear(m, WIDTH), nn.Linear(WIDTH, 3)
            for layer, size in ((self.down, 0.25), (self.up, 0.0), (self.head, 0.25)):
                layer.weight.data = size * torch.randn(layer.weight.shape, generator=generator)
                layer.bias.data.zero_()

        def forward(self, ids, mask):
            h = self.trunk(ids)
            h = h + self.up(torch.relu(self.down(h)))
            seen = mask[..., None].to(h.dtype)
            return self.head((h * seen).sum(1) / seen.sum(1))

    model, steps, rate = Tuned(), 200, 3e-2
    adam = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=rate)
    for done in range(steps):
        adam.param_groups[0]["lr"] = rate * (1 - done / steps)
        i = torch.randint(len(y), (64,), generator=generator)
        adam.zero_grad()
        F.cross_entropy(model(ids[i], mask[i]), y[i]).backward()
        adam.step()
    return model.eval()
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_08_6", "grade": true, "points": 6, "locked": true}
def adapted_08_6(adapt, seed):
    """What was returned, and the world, after a look at trunk, count, mode and padding."""
    trunk, (ids, mask, y), test = world_08_6(seed)
    before = copy.deepcopy(trunk.state_dict())
    slow = "Six seconds a call: take fewer steps."
    call = checking.calls(adapt, limit=6.0, slow=slow, changes=("trunk", "generator"))
    model = call(trunk, ids, mask, y, torch.Generator().manual_seed(seed))
    assert isinstance(model, nn.Module), f"Return a module, not {checking.shown(model)}."
    for name, value in trunk.state_dict().items():
        assert torch.equal(value, before[name]), (
            f"The trunk's {name} has moved, by up to {(value - before[name]).abs().max():.2g}. Freeze the trunk first, "
            "then give the optimiser only what is new."
        )
    known = list(before.values())
    new = {
        name: value
        for name, value in model.state_dict().items()
        if not any(value.shape == one.shape and torch.equal(value, one) for one in known)
    }
    count = sum(value.numel() for value in new.values())
    assert count, (
        "The module's state_dict has nothing but the trunk. Is what you trained a part of the module?"
    )
    largest = max(new, key=lambda name: new[name].numel())
    assert count <= 200, (
        f"{count} numbers are not the trunk's, and 200 are allowed. The largest tensor is {largest}. Count weights, biases "
        "and the head."
    )
    with torch.no_grad():
        one, two = model(test[0], test[1]), model(test[0], test[1])
        checking.form(one, torch.zeros(len(test[2]), 3), "the logits", dtype=torch.float32)
        assert one.isfinite().all(), "A logit is no number. Is the learning rate too large?"
        assert torch.equal(one, two), (
            "Two calls with the same texts differ: dropout is still on in the trunk. Return the module in evaluation mode."
        )
        wide = [F.pad(part, (0, 5)) for part in test[:2]]
        says = (
            "The logits change when texts get more padding: what comes after the text has gone into the mean."
        )
        checking.equal(model(*wide), one, "the logits", tol=1e-4, says=says)
    return model, new, (ids, mask, y), test


def accuracy_08_6(model, part):
    with torch.no_grad():
        return (model(*part[:2]).argmax(1) == part[2]).double().mean().item()


def reason_08_6(model, new, train, test, told):
    """Why the accuracy is too low, in a sentence or two."""
    ids, mask, _ = test
    zero = [name for name, value in new.items() if value.ndim == 2 and not value.any()]
    if zero:
        return f"{told} {zero[0]} is zero after all steps: where two matrices both start at zero, neither gets a gradient."

    def averaged(module, args, out):
        return ((out * mask[..., None]).sum(1, keepdim=True) / mask.sum(1)[:, None, None]).expand(out.shape)

    places = torch.arange(ids.shape[1])
    backwards = ids.gather(1, torch.where(mask > 0, mask.sum(1, keepdim=True) - 1 - places, places))
    trunks = [module for module in model.modules() if isinstance(module, Trunk)]
    with torch.no_grad():
        plain, turned = model(ids, mask), model(backwards, mask)
        hooks = [trunk.register_forward_hook(averaged) for trunk in trunks]
        flat = model(ids, mask)
        for hook in hooks:
            hook.remove()
    if not torch.allclose(plain, turned, atol=1e-3):
        return f"{told} Your logits change with the order of the words: you read one place. The task asks for all of them."
    if trunks and torch.allclose(plain, flat, atol=1e-3):
        if all(value.shape[0] == 3 for value in new.values()):
            return f"{told} Only a head is new. In a mean good and bad, films and others are balanced; who was both is lost."
        return f"{told} All that is new stands after the mean. There it is too late: what the mean has lost, no layer finds."
    own = accuracy_08_6(model, train)
    if own > 0.95:
        return f"{told} On the labelled texts it is {own:.0%}: they are learned by heart. Fewer steps, or a smaller rate?"
    return (
        f"{told} It is {own:.0%} on the labelled texts, too: not trained enough. More steps, or another rate?"
    )


def judge_08_6(adapt, seeds):
    found = [adapted_08_6(adapt, seed) for seed in seeds]
    each = [accuracy_08_6(model, test) for model, _, _, test in found]
    mean = sum(each) / len(each)
    told = f"{mean:.0%} on test texts, 90 % are asked for, guessing has 38 %."
    assert mean >= 0.9, reason_08_6(*found[each.index(min(each))], told)
    return mean


def check_08_6(adapt):
    mean = judge_08_6(adapt, (0, 1))
    print(f"08.6 passed the visible cases: {mean:.0%} on test texts.")


check_08_6(adapt)
### BEGIN HIDDEN TESTS


def hidden_08_6(adapt):
    judge_08_6(adapt, (12,))
    model, _, _, (ids, mask, _) = adapted_08_6(adapt, 13)
    with torch.no_grad():
        alone, together = model(ids[:1], mask[:1]), model(ids[:50], mask[:50])[:1]
    says = "A text alone has other logits than in a batch. Other texts may not count."
    checking.equal(alone, together, "the logits", tol=1e-4, says=says)
    ends = []
    for noise in (1, 2):
        trunk, train, _ = world_08_6(13)
        torch.manual_seed(noise)
        ends.append(adapt(trunk, *train, torch.Generator().manual_seed(4))(ids[:9], mask[:9]).detach())
    says = "The same generator gave two results: draw all random numbers from it, first values, too."
    checking.equal(ends[1], ends[0], "the logits", says=says)


hidden_08_6(adapt)
### END HIDDEN TESTS

# %% [markdown]
# ## 08.7 Project: where should the numbers go?
#
# > ●●●●● · 150 minutes · practice
#
# You may train a few numbers in a frozen model. Where, or which ones? Before or after the mean (exercise 08.6), in the lower
# or in the upper layers, biases or LayerNorms or adapters. Choose at least **three** places or methods, call them arms, and
# bet on one. Write the claim first: "*bet* is more accurate than *each* of the others, by more than `threshold`". Any system
# will do: made-up token vectors, the encoder of exercise 08.6, the lesson's. Return a dict:
#
# | key | what |
# |:--|:--|
# | `claim` | a sentence that names all arms |
# | `arms` | at least three different names; the first is your bet |
# | `numbers` | arm → how many numbers it trains; the largest is at most $1.25$ times the smallest |
# | `tasks` | at least two different names |
# | `trials` | arm → how many settings were tried; equal for all arms |
# | `tuning_seeds`, `seeds` | at least three and at least five different whole numbers; none is in both |
# | `scores` | arm → for each of `seeds` a list with one test accuracy for each task |
# | `threshold` | what each difference must pass, $0$ or more |
# | `differences` | other arm → `(mean, low, high)` of bet minus other: mean over tasks first, then a t interval over seeds |
# | `reversals` | a list of pairs `(task, arm)`: there the arm's mean over seeds is *above* the bet's |
# | `verdict` | `"supported"`, `"refuted"` or `"undecided"` |
#
# With several comparisons one of them looks good by luck more often. So each interval has the level $1 - 0.05 / k$, with $k$
# the number of other arms (Bonferroni). The claim says *each*: it is supported if all intervals lie above the threshold,
# refuted if at least one lies below it, and undecided else. A mean over tasks can hide a task in which the order turns round:
# that is what `reversals` is for.
#
# The checker recomputes all numbers. A person reads the rest with this rubric (0 to 2 points a row; 8 of 12 pass): the claim
# could have failed, and there is a reason for the bet; numbers are counted honestly, heads included; tuning was equal, and
# test items chose nothing; the tasks differ in a way that matters for the place; the reversals are explained, or said to be
# unexplained; the ending says what was not shown.


# %% nbgrader={"grade_id": "answer_08_7", "solution": true}
def study():
    """Return the dict of the table."""
    ### BEGIN SOLUTION
    arms, tasks = (
        ("before the mean", "after the mean", "linear, before the mean"),
        ("odd words", "good words"),
    )
    T, d, m = 8, 16, 4

    def data(seed, task, n=200):
        """Token vectors in which good and film are linear; the label: few, some or many words of the wanted kind."""
        g = torch.Generator().manual_seed(100 * seed + tasks.index(task))
        axes = torch.linalg.qr(torch.randn(d, d, generator=g)).Q[:2]
        share = torch.rand(2 * n, 1, generator=g)
        wanted = torch.rand(2 * n, T, generator=g) < share
        nth = torch.where(wanted, wanted.cumsum(1), (~wanted).cumsum(1)) % 2 == 0
        good, film = (wanted, nth) if task == "good words" else (nth, nth ^ wanted)
        h = torch.stack([good, film], 2).float().mul(2).sub(1) @ axes + 0.3 * torch.randn(
            2 * n, T, d, generator=g
        )
        y = (wanted.float().mean(1) * 2.999).long()
        draw = torch.randn(3, d, m, generator=g) / 4
        return h[:n], y[:n], h[n:], y[n:], draw

    def accuracy(arm, jobs, rate, steps=70):
        """Test accuracies of many runs at once, one for each (seed, task)."""
        h, y, H, Y, first = (torch.stack(parts) for parts in zip(*(data(*job) for job in jobs), strict=True))
        down, up = first[:, 0], torch.zeros(len(jobs), m, d)
        head, bias = first[:, 1, :, :3].clone(), torch.zeros(len(jobs), 1, 3)
        train = [p.clone().requires_grad_() for p in (down, up, head, bias)]
        adam, g = torch.optim.Adam(train, lr=rate), torch.Generator().manual_seed(0)

        def change(h, bend):
            low = h @ train[0].view(len(jobs), *[1] * (h.ndim - 3), d, m)
            return h + bend(low) @ train[1].view(len(jobs), *[1] * (h.ndim - 3), m, d)

        def logits(h):
            if arm == "after the mean":
                pooled = change(h.mean(2), torch.relu)
            else:
                pooled = change(h, torch.relu if arm == "before the mean" else lambda low: low).mean(2)
            return pooled @ train[2] + train[3]

        for step in range(steps):
            adam.param_groups[0]["lr"] = rate * (1 - step / steps)
            i = torch.randint(h.shape[1], (32,), generator=g)
            adam.zero_grad()
            (F.cross_entropy(logits(h[:, i]).flatten(0, 1), y[:, i].flatten()) * len(jobs)).backward()
            adam.step()
        return (logits(H).argmax(2) == Y).double().mean(1).view(-1, len(tasks)).tolist()

    tuning_seeds, seeds, rates = [0, 1, 2], [10, 11, 12, 13, 14, 15], (0.02, 0.06)
    scores = {}
    for arm in arms:
        tried = {rate: accuracy(arm, [(s, t) for s in tuning_seeds for t in tasks], rate) for rate in rates}
        best = max(rates, key=lambda rate: torch.tensor(tried[rate]).mean().item())
        scores[arm] = accuracy(arm, [(s, t) for s in seeds for t in tasks], best)
    means = {arm: torch.tensor(table, dtype=torch.float64) for arm, table in scores.items()}
    differences = {}
    for arm in arms[1:]:
        found = intervals.t_interval((means[arms[0]] - means[arm]).mean(1).numpy(), 1 - 0.05 / 2)
        differences[arm] = (found.mean, found.low, found.high)
    turned = [
        (task, arm)
        for k, task in enumerate(tasks)
        for arm in arms[1:]
        if means[arm][:, k].mean() > means[arms[0]][:, k].mean()
    ]
    bar = 0.1
    lows, highs = zip(*((low, high) for _, low, high in differences.values()), strict=True)
    return {
        "claim": "With 179 numbers, an adapter before the mean is more accurate than an adapter after the mean and than a "
        "linear, before the mean, update of equal size, each by more than 10 points, over two ways to count words.",
        "arms": arms, "numbers": dict.fromkeys(arms, 2 * d * m + 3 * d + 3), "tasks": tasks,
        "trials": dict.fromkeys(arms, len(rates)), "tuning_seeds": tuning_seeds, "seeds": seeds, "scores": scores,
        "threshold": bar, "differences": differences, "reversals": turned,
        "verdict": "supported" if min(lows) > bar else "refuted" if min(highs) < bar else "undecided",
    }  # fmt: skip
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_08_7", "locked": true}
STUDY = "claim arms numbers tasks trials tuning_seeds seeds scores threshold differences reversals verdict".split()


def plan_08_7(mine):
    """Names, counts and seeds of the study."""
    arms, tasks = list(mine["arms"]), list(mine["tasks"])
    assert len(set(arms)) == len(arms) >= 3, "arms: at least three different names. The first is your bet."
    assert len(set(tasks)) == len(tasks) >= 2, "tasks: at least two different names. One task is an anecdote."
    for arm in arms:
        assert arm in mine["claim"], f"claim: {arm!r} does not occur. A claim names what it compares."
    for key in ("numbers", "trials", "scores"):
        assert isinstance(mine[key], dict) and set(mine[key]) == set(arms), f"{key}: one entry for each arm."
    count = mine["numbers"]
    assert min(count.values()) >= 1 and max(count.values()) <= 1.25 * min(count.values()), (
        f"numbers: {min(count.values())} to {max(count.values())}. Who trains more may win by that: make them equally large."
    )
    assert len(set(mine["trials"].values())) == 1, "trials: who may try more settings wins by that alone."
    for key, least in (("tuning_seeds", 3), ("seeds", 5)):
        assert len(set(mine[key])) == len(mine[key]) >= least, f"{key}: at least {least}, no two alike."
    shared = sorted(set(mine["tuning_seeds"]) & set(mine["seeds"]))
    assert not shared, f"seeds: {shared} chose the settings. A setting looks best where it was chosen."
    return arms, tasks


def scores_08_7(mine, arms, tasks):
    tables = {}
    for arm in arms:
        tables[arm] = torch.tensor(mine["scores"][arm], dtype=torch.float64)
        shape = (len(mine["seeds"]), len(tasks))
        assert tables[arm].shape == shape, f"scores[{arm!r}]: shape {shape}, not {tuple(tables[arm].shape)}."
        assert ((tables[arm] >= 0) & (tables[arm] <= 1)).all(), "scores: an accuracy lies between 0 and 1."
    assert tables[arms[0]].std(0).max() > 0, (
        "scores: all seeds have the same numbers. Something is not drawn anew."
    )
    return tables


def check_08_7(study):
    mine = checking.handed_in(study, STUDY, limit=60.0)
    arms, tasks = plan_08_7(mine)
    tables, bet, others = scores_08_7(mine, arms, tasks), arms[0], arms[1:]
    assert isinstance(mine["differences"], dict) and set(mine["differences"]) == set(others), (
        "differences: one entry for each arm but the bet."
    )
    level, ends = 1 - 0.05 / len(others), []
    for arm in others:
        pairs = tables[bet] - tables[arm]
        gains = pairs.mean(1).numpy()
        right, naive = intervals.t_interval(gains, level), intervals.t_interval(gains)
        flat, error = (
            intervals.t_interval(pairs.flatten().numpy(), level),
            gains.std(ddof=1) / len(gains) ** 0.5,
        )
        got = mine["differences"][arm]
        assert isinstance(got, list | tuple) and len(got) == 3, (
            f"differences[{arm!r}]: (mean, low, high) expected."
        )
        name = f"differences[{arm!r}]"
        wrong = {"the difference is the bet minus the other arm.": -right.mean}
        checking.equal(got[0], right.mean, f"{name}, mean", wrong, tol=1e-6)
        near = max(1e-6, 1e-3 * (right.high - right.low))
        wrong = {
            f"{name}: a 95 % interval. {len(others)} comparisons share the 5 %: each gets the level {level:.3f}.": naive.low,
            f"{name}: seeds times tasks are no independent runs. Average over the tasks first.": flat.low,
            f"{name}: that is one standard error.": right.mean - error,
        }
        for end, want in ((got[1], right.low), (got[2], right.high)):
            wrong = wrong if want == right.low else {}
            known = [
                message for message, value in wrong.items() if abs(end - value) <= near < abs(value - want)
            ]
            assert abs(end - want) <= near or not known, known[0]
            assert abs(end - want) <= near, f"{name} is [{got[1]:.4f}, {got[2]:.4f}], and should be {right}."
        ends.append(right)
    turned = {
        (task, arm)
        for k, task in enumerate(tasks)
        for arm in others
        if tables[arm][:, k].mean() > tables[bet][:, k].mean()
    }
    told = {tuple(pair) for pair in mine["reversals"]}
    hidden, invented = sorted(turned - told), sorted(told - turned)
    assert not hidden, (
        f"reversals: in {hidden[0][0]!r} the bet lies below {hidden[0][1]!r}. The mean over tasks hides it; you should not."
    )
    assert not invented, f"reversals: {invented[0]} is none."
    bar = mine["threshold"]
    assert bar >= 0, "threshold: 0 or more."
    verdict = (
        "supported"
        if min(e.low for e in ends) > bar
        else "refuted"
        if min(e.high for e in ends) < bar
        else "undecided"
    )
    assert mine["verdict"] == verdict, (
        f"verdict: the claim is about each of {len(others)} comparisons. With a threshold of {bar:g} they say {verdict}."
    )
    print(f"08.7 passed: {verdict}. Now a person reads the study with the rubric.")


check_08_7(study)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Made-up token vectors are enough: two directions that mean something, and noise. Then a run takes a hundredth of a second,
# and you know what each arm can represent and what not.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Choose one task that your bet should win and one that it should not. Where would you be surprised?
#
# </details>
#
# {{solution}}
