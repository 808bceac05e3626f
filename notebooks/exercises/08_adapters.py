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
# that you do not see here, so test more than the checker does. Nothing on this page needs a model, a data
# set or a network.
#
# {{overview}}

# %%
import torch

# %% [markdown]
# ## 08.1 An adapter and its gradient
#
# > ●●●○○ · 20 minutes · graded
#
# An adapter with ReLU: $y = h + W_{\text{up}} \max(0, u) + b_{\text{up}}$ with
# $u = W_{\text{down}} h + b_{\text{down}}$. The rows of $h$ are tokens. Return $y$ and the gradients of a
# loss $L$, given $\delta = \partial L / \partial y$. Write them out, without autograd.
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
    values = case_08_1(n=4, d=5, m=3)
    h, W_down, b_down, W_up, _, delta = values
    kept = [v.clone() for v in values]
    answer = adapter(*values)
    assert answer is not None, "The function returned None. Did you forget return?"
    y, gradients = answer
    want_y, want = truth_08_1(*values)
    u = h @ W_down.T + b_down
    assert all(torch.equal(a, b) for a, b in zip(values, kept, strict=True)), (
        "An argument was changed in place. The caller still needs it."
    )
    assert not torch.allclose(y, want_y - h), "y lacks the skip connection: h itself is part of the output."
    assert torch.allclose(y, want_y), (
        "y is off. First W_down and b_down, then ReLU, then W_up and b_up, then + h."
    )
    assert set(gradients) == set(want), f"Gradients expected of {', '.join(sorted(want))}."
    for name, value in want.items():
        assert gradients[name].shape == value.shape, (
            f"The gradient of {name} has shape {tuple(gradients[name].shape)}, its weight {tuple(value.shape)}."
        )
    assert not torch.allclose(gradients["W_down"], (delta @ W_up).T @ h), (
        "W_down: the slope of ReLU is missing. Where u is negative, nothing passes."
    )
    wrong_slope = (delta @ W_up) * u.clamp(min=0)
    assert not torch.allclose(gradients["W_down"], wrong_slope.T @ h), (
        "W_down: you multiplied with ReLU(u) itself. Its slope is 1 or 0."
    )
    assert torch.allclose(gradients["W_down"], want["W_down"]), "W_down: sum over the tokens of s hᵀ."
    assert torch.allclose(gradients["b_down"], want["b_down"]), "b_down: the sum of s over the tokens."
    assert not torch.allclose(gradients["W_up"], delta.T @ u), (
        "W_up: it is multiplied with ReLU(u), not with u, so its gradient is, too."
    )
    assert torch.allclose(gradients["W_up"], want["W_up"]), (
        "W_up: sum over the tokens of δ aᵀ, with a = ReLU(u)."
    )
    assert not torch.allclose(gradients["b_up"], delta.mean(0)), (
        "b_up: the gradient is a sum over tokens, not a mean. Dividing is the loss's business."
    )
    assert torch.allclose(gradients["b_up"], want["b_up"]), "b_up: the sum of δ over the tokens."
    assert not torch.allclose(gradients["h"], want["h"] - delta), (
        "h: the path through the skip connection is missing. Without it the layers below get almost no gradient."
    )
    assert torch.allclose(gradients["h"], want["h"]), "h: δ itself, plus s through W_down."
    print("08.1 passed the visible cases. All five gradients agree with autograd.")


check_08_1(adapter)
### BEGIN HIDDEN TESTS


def hidden_08_1(adapter):
    square = case_08_1(n=3, d=4, m=4, seed=1)
    y, gradients = adapter(*square)
    want_y, want = truth_08_1(*square)
    assert torch.allclose(y, want_y) and torch.allclose(gradients["W_up"], want["W_up"]), (
        "Wrong where m = d: a transposed matrix no longer fails by its shape."
    )
    zero = case_08_1(n=3, d=4, m=2, seed=2)
    zero[1], zero[2] = torch.zeros_like(zero[1]), torch.zeros_like(zero[2])
    _, gradients = adapter(*zero)
    assert not gradients["b_down"].any(), "At u = 0 the slope is 0 here: u > 0, not u >= 0."
    one = case_08_1(n=1, d=6, m=2, seed=3)
    y, gradients = adapter(*one)
    want_y, want = truth_08_1(*one)
    assert all(torch.allclose(gradients[k], want[k]) for k in want), "Wrong for a single token."


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
    got = prediction()
    assert got is not None, "The function returned None. Did you forget return?"
    assert set(got) == {"houlsby", "layer_norms", "bitfit", "ia3"}, (
        "Keys expected: houlsby, layer_norms, bitfit, ia3."
    )
    d, f, m, layers = 100, 400, 10, 2
    norms = 2 * layers + 1
    assert got["layer_norms"] != norms * d, "layer_norms: a LayerNorm has a gain and a bias, both of width d."
    assert got["layer_norms"] != 2 * layers * 2 * d, "layer_norms: you forgot the one behind the embeddings."
    assert got["layer_norms"] == norms * 2 * d, f"layer_norms: {norms} of them, each with 2d numbers."
    adapters = 2 * layers * (2 * d * m + m + d)
    assert got["houlsby"] != adapters, "houlsby: the LayerNorms train too."
    assert got["houlsby"] != 2 * layers * 2 * d * m + norms * 2 * d, (
        "houlsby: an adapter has two biases, one of width m and one of width d."
    )
    assert got["houlsby"] != adapters // 2 + norms * 2 * d, (
        "houlsby: there is an adapter behind *both* sublayers."
    )
    assert got["houlsby"] == adapters + norms * 2 * d, f"houlsby: {adapters + norms * 2 * d} expected."
    linear = layers * (4 * d + f + d)
    assert got["bitfit"] != linear, "bitfit: a LayerNorm has a bias, too."
    assert got["bitfit"] != layers * 6 * d + norms * d, (
        "bitfit: the bias of the feed-forward network's first layer has its inner width."
    )
    assert got["bitfit"] == linear + norms * d, f"bitfit: {linear + norms * d} expected."
    assert got["ia3"] != layers * 3 * d, (
        "ia3: the third vector has the inner width of the feed-forward network."
    )
    assert got["ia3"] == layers * (2 * d + f), f"ia3: {layers * (2 * d + f)} expected."
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
# receives, $W (l \odot x) + b$. Return the weight and the bias of *one* linear layer that does the same. The
# frozen weights must stay as they are: you may want to unmerge. Some layers have no bias.


# %% nbgrader={"grade_id": "answer_08_3", "solution": true}
def fold(W, b, l, on_input):
    """Return (W', b'); W is (out, in), b (out,) or None, l is (in,) where on_input, else (out,)."""
    ### BEGIN SOLUTION
    if on_input:
        return W * l, b
    return W * l[:, None], None if b is None else b * l
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_08_3", "locked": true}
def check_08_3(fold):
    generator = torch.Generator().manual_seed(0)
    W, b, l, x = (
        torch.randn(s, generator=generator, dtype=torch.float64) for s in ((4, 4), (4,), (4,), (3, 4))
    )  # square: the shapes hide a wrong side
    kept = W.clone(), b.clone()
    linear = torch.nn.functional.linear
    for on_input in (False, True):
        answer = fold(W, b, l, on_input)
        assert answer is not None, "The function returned None. Did you forget return?"
        W_new, b_new = answer
        assert torch.equal(W, kept[0]) and torch.equal(b, kept[1]), (
            "The frozen weight itself was changed. Multiply into a new tensor."
        )
        want = linear(x * l, W, b) if on_input else linear(x, W, b) * l
        side = "columns: each meets one input" if on_input else "rows: each makes one output"
        right, other = (W * l, W * l[:, None]) if on_input else (W * l[:, None], W * l)
        assert not torch.allclose(W_new, other), f"on_input = {on_input}: l scales the {side}."
        assert torch.allclose(W_new, right), f"on_input = {on_input}: the weight is off. l scales the {side}."
        if on_input:
            assert not torch.allclose(b_new, b * l), (
                "on_input = True: the bias comes after the factors, so it stays as it is."
            )
        else:
            assert not torch.allclose(b_new, b), (
                "on_input = False: the factors also multiply the bias, l ⊙ (Wx + b)."
            )
        assert torch.allclose(linear(x, W_new, b_new), want), f"on_input = {on_input}: the outputs differ."
    try:
        bare = fold(W, None, l, False), fold(W, None, l, True)
    except (TypeError, AttributeError):
        raise AssertionError(
            "A layer without a bias fails. Llama has no other ones: return None there."
        ) from None
    assert all(b_new is None for _, b_new in bare), "Without a bias the merged layer has none either: None."
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
# named `head` train, whatever came before. No old gradient may be left. The optimiser knows those parameters
# and no others.


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
    """An encoder, a layer whose name contains "bias", and a head."""

    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Linear(3, 3)
        self.debiaser = torch.nn.Linear(3, 3)
        self.classifier = torch.nn.Linear(3, 2)
        with torch.no_grad():
            for parameter in self.parameters():
                values = torch.randn(
                    parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())
                )
                parameter.copy_(values)

    def forward(self, x):
        return self.classifier(torch.tanh(self.debiaser(torch.tanh(self.encoder(x)))))


def step_08_4(model, optimizer):
    """One update; returns the names of the parameters that moved."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(9))
    (model(x) ** 2).sum().backward()
    optimizer.step()
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


def check_08_4(prepare):
    want = {"encoder.bias", "debiaser.bias", "classifier.weight", "classifier.bias"}
    model = Toy()
    optimizer = prepare(model, "classifier")
    assert optimizer is not None, "The function returned None. Did you forget return?"
    train = {name for name, p in model.named_parameters() if p.requires_grad}
    assert "classifier.weight" in train, (
        "The head's weight is frozen. A head that stays random is the most frequent mistake of all."
    )
    assert "debiaser.weight" not in train, (
        'debiaser.weight trains: "bias" is part of its name, but it is no bias. Compare the last part of the name.'
    )
    assert train == want, (
        f"These should train: {', '.join(sorted(want))}. You have {', '.join(sorted(train))}."
    )
    model = Toy()
    model.requires_grad_(False)
    try:
        prepare(model, "classifier")
    except ValueError:  # an optimiser without parameters
        pass
    train = {name for name, p in model.named_parameters() if p.requires_grad}
    assert train == want, (
        "The model came frozen, and it still is. Freezing alone is not enough: set the flag of what trains, too."
    )
    model = Toy()
    (model(torch.ones(1, 3)) ** 2).sum().backward()  # somebody trained it before
    optimizer = prepare(model, "classifier")
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    frozen = {name: p for name, p in model.named_parameters() if name not in want}
    if any(p.grad is not None for p in frozen.values()):
        moved = step_08_4(model, optimizer) & set(frozen)
        assert not moved, (
            f"{sorted(moved)[0]} is frozen and moved. Its old gradient is still there, and the optimiser holds it."
        )
        raise AssertionError(
            "A frozen parameter still has its old gradient: clipping would count it. Set it to None."
        )
    trained = {name: p for name, p in model.named_parameters() if name in want}
    assert all(p.grad is None or not p.grad.any() for p in trained.values()), (
        "What trains still carries the old gradient: the first update would add the new one to it."
    )
    assert {id(p) for p in trained.values()} <= held, (
        "The optimiser lacks some of what trains: build it after the flags are set, from all that train."
    )
    assert held <= {id(p) for p in trained.values()}, (
        "The optimiser holds frozen parameters. They do not move, but whoever unfreezes one later trains it "
        "unawares: give it only what trains."
    )
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
    got = step_cost(6, [0, 1, 2, 3, 4, 5])
    assert got is not None, "The function returned None. Did you forget return?"
    assert got != 18, "All layers train: 17, not 18. The lowest one need not pass a gradient on."
    assert got == 17, f"All six layers train: 17 expected, not {got}."
    top = step_cost(6, [5])
    assert top != 12, (
        "Only the top layer trains: backward stops there. You let the gradient run to the input."
    )
    assert top == 7, f"Only the top layer trains: six products forward and one for its weight, not {top}."
    bottom = step_cost(6, [0])
    assert bottom != 7, (
        "Only layer 0 trains: the gradient has to travel through the five layers above it, though they are frozen."
    )
    assert bottom == 12, f"Only layer 0 trains: 12 expected, not {bottom}."
    assert step_cost(6, [1, 4]) == 12, f"Layers 1 and 4 train: 12 expected, not {step_cost(6, [1, 4])}."
    print(
        "08.5 passed the visible cases. Training the lowest layer alone costs 12 of 17, training the highest 7."
    )


check_08_5(step_cost)
### BEGIN HIDDEN TESTS


def hidden_08_5(step_cost):
    try:
        nothing = step_cost(5, [])
    except (ValueError, IndexError):
        raise AssertionError(
            "Nothing trains: the forward pass is still there. The smallest of no layers fails."
        ) from None
    assert nothing == 5, f"Nothing trains: only the forward pass, 5 products, not {nothing}."
    assert step_cost(6, [4, 1]) == 12, (
        "The list may come in any order: look for the lowest, do not take the first."
    )
    assert all(step_cost(L, [L - 1]) == L + 1 for L in (1, 2, 9)), "Wrong for another number of layers."


hidden_08_5(step_cost)
### END HIDDEN TESTS
