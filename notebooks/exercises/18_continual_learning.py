# ---
# jupyter:
#   instructlab:
#     id: "18"
#     title: Continual learning
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 18: continual learning
#
# Each exercise is a box, a cell for your answer, and a checker in the cell below it. Replace the line that
# raises `NotImplementedError`, then run both cells. A checker that says no also says what probably went
# wrong.
#
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases
# that you do not see here, so test more than the checker does. The page needs no network and no file. Exercise 18.4
# trains small networks, and exercise 18.5 is a project. These five are worth an evening or two, not an hour.
#
# {{overview}}

# %%
import copy
import math

import torch
from torch import nn
from torch.nn import functional as F

from instructlab_utils import checking, intervals

# %% [markdown]
# ## 18.1 A matrix with holes
#
# > ●●●○○ · 30 minutes · graded
#
# Nobody measures everything. `R[i][j]` is the accuracy on task $j$ after training on task $i$, or `None` where it was not
# measured; `before[j]` is the accuracy of the untrained model. Return a dict of four numbers:
#
# - `acc`: the mean of the last row;
# - `bwt`: the mean over all tasks but the last of (last row minus diagonal);
# - `forgetting` (Chaudhry et al., 2018): the mean over all tasks but the last of *the best accuracy that the task had* at any
#   time from its own training to the one before the last, minus the last row. A task that was never better than at the
#   end has a negative value. What was not measured cannot be the best;
# - `fwt`: the mean of (accuracy right before the task's own training, minus `before`) over the tasks, from the second on, for
#   which it was measured.
#
# For a single task there is no `bwt` and no `forgetting`: `None`. Where nothing is left to average, `fwt` is `None`, too.
# Raise `ValueError` where `R` is empty or not square, where `before` has another length, and where the diagonal or the last
# row has a hole. An accuracy may be `0`.


# %% nbgrader={"grade_id": "answer_18_1", "solution": true}
def report(R, before):
    """R: T lists of T floats or None; before: T floats. Return a dict: acc, bwt, forgetting, fwt."""
    ### BEGIN SOLUTION
    T = len(R)
    if T == 0 or len(before) != T or any(len(row) != T for row in R):
        raise ValueError("a row and a column for each task, and an accuracy before")
    if None in R[-1] or any(R[j][j] is None for j in range(T)):
        raise ValueError("the diagonal and the last row must be measured")

    def mean(numbers):
        return sum(numbers) / len(numbers) if numbers else None

    best = [max(R[i][j] for i in range(j, T - 1) if R[i][j] is not None) for j in range(T - 1)]
    ahead = [R[j - 1][j] - before[j] for j in range(1, T) if R[j - 1][j] is not None]
    return {
        "acc": mean(R[-1]),
        "bwt": mean([R[-1][j] - R[j][j] for j in range(T - 1)]),
        "forgetting": mean([top - R[-1][j] for j, top in enumerate(best)]),
        "fwt": mean(ahead),
    }
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_18_1", "grade": true, "points": 4, "locked": true}
def check_18_1(report):
    call = checking.calls(report)
    R = [[0.8, 0.5, 0.375], [0.9, 0.75, 0.5], [0.6, 0.25, 1.0]]
    got = call(R, [0.5, 0.25, 0.25])
    want = {"acc": (0.6 + 0.25 + 1.0) / 3, "bwt": -0.35, "forgetting": 0.4, "fwt": 0.25}
    checking.form(got, want, "the report")
    wrong = {
        "acc: that is the mean of the diagonal: each task right after its own training.": (0.8 + 0.75 + 1)
        / 3,
        "acc: that is the mean of the whole matrix.": sum(map(sum, R)) / 9,
    }
    checking.equal(got["acc"], want["acc"], "acc", wrong)
    wrong = {
        "bwt: the last task has no backward transfer. Divide by one task less.": -0.7 / 3,
        "bwt: that is the other sign. Forgetting makes it negative.": 0.35,
    }
    checking.equal(got["bwt"], want["bwt"], "bwt", wrong)
    wrong = {
        "forgetting: that is −bwt. The first task was best one task later: 0.9, not 0.8.": 0.35,
        "forgetting: the last task cannot be forgotten yet. Divide by one task less.": 0.8 / 3,
        "forgetting: best minus last, not last minus best.": -0.4,
    }
    checking.equal(got["forgetting"], want["forgetting"], "forgetting", wrong)
    wrong = {
        "fwt: that is the row of the first task. Take the row just before each task's own.": 0.1875,
        "fwt: you forgot to take off what the untrained model can do.": 0.5,
        "fwt: the first task has nothing before it. Divide by one task less.": 0.5 / 3,
    }
    checking.equal(got["fwt"], want["fwt"], "fwt", wrong)
    one = call([[0.5]], [0.25])
    says = "One task: acc is 0.5, all else None."
    checking.equal(one, {"acc": 0.5, "bwt": None, "forgetting": None, "fwt": None}, "the report", says=says)
    call.refuses(ValueError, [[0.5, 0.5], [0.5]], [0.5, 0.5], says="A row is too short.")
    print("18.1 passed the visible cases.")


check_18_1(report)
### BEGIN HIDDEN TESTS


def hidden_18_1(report):
    call = checking.calls(report)
    holes = [[0.5, None, 0.25, 0.0], [None, 0.75, 0.5, None], [0.25, None, 0.5, 0.5], [0.5, 1.0, 0.5, 0.75]]
    with checking.means(TypeError, "There is a hole in this matrix: None cannot be compared or subtracted."):
        got = call(holes, [0.0, 0.5, 0.25, 0.25])
    wrong = {
        "A hole is no accuracy of 0. Leave the task out of fwt.": (-0.5 + 0.25 + 0.25) / 3,
        "fwt: divide by the number of tasks that were measured.": 0.5 / 3,
    }
    checking.equal(got["fwt"], 0.25, "fwt", wrong)
    wrong = {
        "forgetting: a task that is best at the end has a negative value; you stop at 0, or count the end as well.": 0.0
    }
    checking.equal(got["forgetting"], -0.25 / 3, "forgetting", wrong, says="The holes are above and below.")
    early = [[0.5, 0.9], [0.5, 0.8]]
    says = "forgetting: 0.9 was on the second task before it was learned, and the second is the last."
    checking.equal(call(early, [0.5, 0.5])["forgetting"], 0.0, "forgetting", says=says)
    early = [[0.5, 0.9, 0.0], [0.5, 0.8, 0.0], [0.5, 0.8, 0.5]]
    wrong = {"forgetting: the best counts from the task's own training on. 0.9 came before it.": 0.05}
    checking.equal(call(early, [0.5] * 3)["forgetting"], 0.0, "forgetting", wrong)
    says = "Nothing before its own training was measured: fwt is None."
    checking.equal(call([[0.5, None], [0.25, 0.5]], [0.5, 0.5])["fwt"], None, "fwt", says=says)
    for R, before, says in (
        ([], [], "There is no task."),
        ([[0.5, 0.5], [None, 0.5]], [0.5, 0.5], "The last row has a hole."),
        ([[None, 0.5], [0.5, 0.5]], [0.5, 0.5], "The diagonal has a hole."),
        ([[0.5]], [0.5, 0.5], "`before` has an accuracy too many."),
    ):
        call.refuses(ValueError, R, before, says=says)


hidden_18_1(report)
### END HIDDEN TESTS

# %% [markdown]
# ## 18.2 Five bugs in an EWC
#
# > ●●●○○ · 40 minutes · practice · bug hunt
#
# This EWC runs, lowers no accuracy, and protects hardly anything. There are five bugs in it. Write both functions again:
#
# - `remember(net, x, memory)` after each task returns `{"F": …, "old": …}`, both dicts by the names of the parameters. `F` is
#   the diagonal of the *true* Fisher on the rows of `x` (mean over the rows, expectation over the model's own labels),
#   plus the `F` of `memory`, which is `None` after the first task. `old` are the weights of now.
# - `penalty(net, memory)` is $\frac12 \sum_i F_i (\theta_i - \theta_i^*)^2$, and gradients flow into `net`.
#
# What is in `memory` must not change when the net is trained on. Afterwards the net's `.grad` must be as before. The net is
# any module from (N, d) to logits (N, K) whose rows do not mix, not linear layers alone. Slow is allowed.


# %%
def broken_remember(net, x, memory):
    log_p = torch.log_softmax(net(x), 1)
    loss = -log_p.gather(1, log_p.argmax(1, keepdim=True)).mean()
    loss.backward()
    squares = {name: p.grad**2 for name, p in net.named_parameters()}
    return {"F": squares, "old": dict(net.named_parameters())}


def broken_penalty(net, memory):
    parts = [memory["F"][name] * (p - memory["old"][name]) ** 2 for name, p in net.named_parameters()]
    return sum(part.mean() for part in parts) / 2


# %% nbgrader={"grade_id": "answer_18_2", "solution": true}
def remember(net, x, memory):
    """net: logits (N, K) for x (N, d); memory: None, or what this function returned. Return the new memory."""
    ### BEGIN SOLUTION
    names, values = zip(*net.named_parameters(), strict=True)
    squares = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    for row in x:
        log_p = torch.log_softmax(net(row[None])[0], 0)
        for k in range(len(log_p)):
            slopes = torch.autograd.grad(log_p[k], values, retain_graph=True)
            for name, slope in zip(names, slopes, strict=True):
                squares[name] += log_p[k].detach().exp() * slope**2 / len(x)
    if memory is not None:
        squares = {name: squares[name] + memory["F"][name] for name in names}
    return {"F": squares, "old": {name: p.detach().clone() for name, p in net.named_parameters()}}
    ### END SOLUTION


def penalty(net, memory):
    """Return a scalar tensor."""
    ### BEGIN SOLUTION
    total = 0.0
    for name, p in net.named_parameters():
        total = total + (memory["F"][name] * (p - memory["old"][name]) ** 2).sum()
    return total / 2
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_18_2", "locked": true}
def net_18_2(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def fishers_18_2(net, x):
    """The true Fisher by torch.func, and what the bugs make of it."""
    weights = {name: p.detach() for name, p in net.named_parameters()}

    def log_probs(weights, one):
        return torch.log_softmax(torch.func.functional_call(net, weights, (one[None],))[0], 0)

    J = torch.func.vmap(torch.func.jacrev(log_probs), (None, 0))(weights, x)
    p = torch.softmax(net(x), 1).detach()
    top = p.argmax(1)
    each = {name: torch.einsum("nk,nk...->n...", p, g**2) for name, g in J.items()}
    return {
        "true": {name: g.mean(0) for name, g in each.items()},
        "sum": {name: g.sum(0) for name, g in each.items()},
        "top": {name: (g[range(len(x)), top] ** 2).mean(0) for name, g in J.items()},
        "squared mean": {name: g[range(len(x)), top].mean(0) ** 2 for name, g in J.items()},
        "even": {name: (g**2).mean((0, 1)) for name, g in J.items()},
        "per row": {name: torch.einsum("nk,nk...->k...", p, g).square().mean(0) for name, g in J.items()},
    }


def check_18_2(remember, penalty):
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(2)).double()
    net = net_18_2(0)
    known = fishers_18_2(net, x)
    got = checking.calls(remember, changes=("net",))(net, x, None)
    checking.form(
        got, {"F": known["true"], "old": {n: p.detach() for n, p in net.named_parameters()}}, "the memory"
    )
    assert all(p.grad is None for p in net.parameters()), (
        "The net's .grad is no longer empty: the next task's first step would use it. Use torch.autograd.grad."
    )
    wrong = {
        "F: you square the gradient of a mean. Square the gradient of each row.": known["squared mean"],
        "F: only the most probable label counts for you. The true Fisher takes the expectation over all labels.": known[
            "top"
        ],
        "F: all labels count the same for you. Weight them by the model's probabilities.": known["even"],
        "F: that is the sum over the rows, not their mean.": known["sum"],
    }
    checking.equal(got["F"], known["true"], "F", wrong)
    old = {name: p.detach().clone() for name, p in net.named_parameters()}
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.25)
    says = "old: it moves with the net. You keep the parameters themselves, not a copy."
    checking.equal({n: v.detach() for n, v in got["old"].items()}, old, "old", says=says)
    assert not any(v.requires_grad for v in got["old"].values()), "old: cut it from the graph, with detach()."
    want = sum((known["true"][n] * 0.0625).sum() for n in old) / 2
    value = checking.calls(penalty, changes=("net",))(net, got)
    wrong = {
        "penalty: the half is missing.": 2 * want,
        "penalty: a mean over each matrix. A spring on each weight is a sum.": sum(
            (known["true"][n] * 0.0625).mean() for n in old
        )
        / 2,
        "penalty: F stands outside of the square.": sum((known["true"][n] ** 2 * 0.0625).sum() for n in old)
        / 2,
    }
    checking.equal(torch.as_tensor(value).detach(), want, "penalty", wrong)
    slopes = torch.autograd.grad(value, list(net.parameters()))
    for slope, (name, f) in zip(slopes, known["true"].items(), strict=True):
        checking.equal(slope, 0.25 * f, f"the gradient of the penalty for {name}")
    second = checking.calls(remember, changes=("net",))(net, x[:2], got)
    now = fishers_18_2(net, x[:2])["true"]
    both = {n: now[n] + known["true"][n] for n in now}
    wrong = {"F: the first task's Fisher is gone after the second. Add the two up.": now}
    checking.equal(second["F"], both, "F after two tasks", wrong)
    says = "The first memory has changed: make a new one."
    checking.equal(got["F"], known["true"], "F of the first memory", says=says)
    print("18.2 passed.")


check_18_2(remember, penalty)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Read each line aloud with its shape. Where is one number made of many rows? Where does a dict hold the very tensors that
# the optimizer will change?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The five: argmax in place of an expectation; the square of a mean; the earlier tasks' Fisher is dropped; the old weights
# are no copies; a mean in place of a sum in the penalty. (And `backward` leaves gradients behind.)
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 18.3 Springs, with a pencil
#
# > ●●●○○ · 20 minutes · practice · prediction
#
# One weight $\theta$. The tasks' losses are $\ell_1 = \frac32 \theta^2$, $\ell_2 = \frac12 (\theta - 4)^2$ and
# $\ell_3 = (\theta - 7)^2$. Training always goes to the exact minimum. The Fisher of a task is the curvature of its loss,
# and $\lambda = 1$. Predict where $\theta$ ends:
#
# - `joint`: tasks 1 and 2 together;
# - `ewc`: task 1, then task 2 with EWC;
# - `mistake`: the same, with the square of the *mean* gradient at the end of task 1 as the Fisher;
# - `uniform`: task 1, then task 2 with a spring of stiffness 1;
# - `summed`: task 1, 2 as in `ewc`, then task 3 with *one* spring: both Fishers added up, tied to where $\theta$ is after
#   task 2;
# - `separate`: the same with *two* springs: each task's Fisher, tied to where $\theta$ was after that task;
# - `exact`: which of the two, `"summed"` or `"separate"`, is where joint training on all three ends?


# %% nbgrader={"grade_id": "answer_18_3", "solution": true}
def prediction():
    """Return a dict: joint, ewc, mistake, uniform, summed, separate (numbers), exact ("summed" or "separate")."""
    ### BEGIN SOLUTION
    return {
        "joint": 1, "ewc": 1, "mistake": 4, "uniform": 2, "summed": 3, "separate": 2.5, "exact": "summed",
    }  # fmt: skip
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_18_3", "locked": true}
def check_18_3(prediction):
    numbers = ["joint", "ewc", "mistake", "uniform", "summed", "separate"]
    mine = checking.predicted(prediction, numbers, exact=("summed", "separate"))
    at = {
        "joint": (1, {"joint: that is the middle of 0 and 4. The first task is three times as stiff.": 2,
                      "joint: you swapped the weights of the two tasks.": 3}),
        "ewc": (1, {"ewc: nothing was pulled back for you. The spring has the stiffness 3.": 4,
                    "ewc: that is a spring of stiffness 1. The curvature of task 1 is 3.": 2,
                    "ewc: the half in the penalty belongs to a spring of stiffness 3; you took 1.5.": 1.6}),
        "mistake": (4, {"mistake: at the minimum of task 1 the mean gradient is 0, so nothing holds.": 1,
                        "mistake: at the minimum the gradient is 0. Then which spring is left?": 0}),
        "uniform": (2, {"uniform: stiffness 1 against curvature 1: half way between 0 and 4.": 1}),
        "summed": (3, {"summed: the stiffness is 3 + 1, task 3 has the curvature 2.": 4,
                       "summed: the curvature of task 3 is 2, not 1.": 2.2}),
        "separate": (2.5, {"separate: the second spring is tied to where θ was after task 2, which is 1, not 4.": 3}),
    }  # fmt: skip
    for key, (want, wrong) in at.items():
        checking.equal(mine[key], want, key, wrong)
    assert mine["exact"] == "summed", (
        "exact: joint training ends at (3·0 + 1·4 + 2·7) / 6. Compare it with your two numbers."
    )
    print("18.3 passed. For quadratic losses EWC with one summed spring forgets nothing at all.")


check_18_3(prediction)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The minimum of a sum of springs is the mean of their ends, weighted by their stiffness.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# $\theta$ after task 2 lies at 1: it already knows where tasks 1 and 2 together want to be.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 18.4 Sixteen rows of memory
#
# > ●●●●○ · 60 minutes · graded
#
# Four tasks arrive, two new classes each, eight classes in all; at the end all eight are asked for, and nobody names the
# task. Rows have 16 numbers, a class is a cloud around its centre. You see each task once. Write
#
# `learn(net, memory, x, y, generator) -> (net, memory)`
#
# - `net` is a module from (N, 16) to logits (N, 8), already trained on the earlier tasks; you may change it in place;
# - `memory` is `None` at the first task, and from then on what you returned: a pair of tensors, rows (M, 16) float32 and
#   labels (M,) int64, with at most **16** rows in all. Nothing else survives: the checker copies the net's weights into a new
#   module between the tasks;
# - `generator` is for your draws, so that a run can be repeated.
#
# The checker walks through the tasks with three seeds and wants a mean accuracy of $80\,\%$ at the end. Sequential tuning
# gets about half of the test rows right. You have four seconds a task. What is a *row* of memory is up to you.


# %%
def tasks_18_4(seed, n=200):
    """Four tasks of two classes: training rows and labels, and test rows and labels of all classes so far."""
    g = torch.Generator().manual_seed(seed)
    centres = 0.9 * torch.randn(8, 16, generator=g)
    found = []
    for t in range(4):
        y = 2 * t + torch.randint(2, (n,), generator=g)
        found.append((centres[y] + torch.randn(n, 16, generator=g), y))
    y = torch.randint(8, (800,), generator=g)
    return found, (centres[y] + torch.randn(800, 16, generator=g), y)


def fresh_18_4(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 8))


# %% nbgrader={"grade_id": "answer_18_4", "solution": true}
def learn(net, memory, x, y, generator):
    """x (N, 16), y (N,). Return the net and the new memory: (rows, labels), at most 16 rows."""
    ### BEGIN SOLUTION
    old_x, old_y = memory if memory is not None else (x[:0], y[:0])
    adam = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(200):
        i = torch.randint(len(x), (32,), generator=generator)
        X, Y = x[i], y[i]
        if len(old_x):
            j = torch.randint(len(old_x), (96,), generator=generator)
            noise = torch.randn(96, 16, generator=generator)  # a stored mean stands for its cloud
            X, Y = torch.cat([X, old_x[j] + noise]), torch.cat([Y, old_y[j]])
        adam.zero_grad()
        F.cross_entropy(net(X), Y).backward()
        adam.step()
    classes = y.unique()
    means = torch.stack([x[y == k].mean(0) for k in classes])
    return net, (torch.cat([old_x, means]), torch.cat([old_y, classes]))
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_18_4", "grade": true, "points": 5, "locked": true}
def walk_18_4(learn, seed):
    """The accuracy on all classes at the end, that on each task's classes, and the sum of the logits."""
    call = checking.calls(
        learn, limit=4.0, slow="Four seconds a task: take fewer steps.", changes=("net", "generator")
    )
    stream, (X, Y) = tasks_18_4(seed)
    net, memory, g = fresh_18_4(seed), None, torch.Generator().manual_seed(seed)
    for t, (x, y) in enumerate(stream):
        got = call(net, memory, x, y, g)
        assert isinstance(got, list | tuple) and len(got) == 2, "Return the net and the memory."
        after, memory = got
        assert isinstance(after, nn.Module), f"The net is no module: {checking.shown(after)}."
        assert isinstance(memory, list | tuple) and len(memory) == 2, "The memory is a pair: rows and labels."
        rows, labels = memory
        checking.form(rows, rows.new_zeros(len(rows), 16), "rows of memory", dtype=torch.float32)
        checking.form(labels, labels.new_zeros(len(rows)), "labels of memory", dtype=torch.int64)
        assert len(rows) <= 16, f"The memory has {len(rows)} rows after task {t + 1}: 16 are allowed in all."
        memory = (rows.detach().clone(), labels.detach().clone())
        net = fresh_18_4()
        net.load_state_dict(copy.deepcopy(after.state_dict()))
    with torch.no_grad():
        z = net(X)
    right = (z.argmax(1) == Y).double()
    parts = [right[(Y == 2 * t) | (Y == 2 * t + 1)].mean().item() for t in range(4)]
    return right.mean().item(), parts, z.sum().item()


def judge_18_4(learn, seeds):
    found = [walk_18_4(learn, seed) for seed in seeds]
    mean = sum(whole for whole, *_ in found) / len(found)
    parts = [sum(each[t] for _, each, _ in found) / len(found) for t in range(4)]
    shown = ", ".join(f"{part:.0%}" for part in parts)
    if mean < 0.8:
        assert parts[3] > 0.5, f"The last task itself is not learned: the four tasks end at {shown}."
        assert max(parts[:2]) > 0.3, (
            f"Nothing is left of the first two tasks ({shown}). Is the memory trained on, too?"
        )
        assert parts[0] > 0.3, f"The first task is lost ({shown}): its rows have left the memory."
        assert parts[1] > 0.3, f"The memory kept the first task's rows only ({shown}). Leave room for others."
        raise AssertionError(f"{mean:.0%} at the end, 80 % are asked for. The four tasks end at {shown}.")
    return mean


def check_18_4(learn):
    mean = judge_18_4(learn, (0, 1, 2))
    print(f"18.4 passed the visible cases: {mean:.0%} on all eight classes.")


check_18_4(learn)
### BEGIN HIDDEN TESTS


def hidden_18_4(learn):
    judge_18_4(learn, (11, 12))
    ends = [walk_18_4(learn, 5)[2] for _ in range(2)]
    assert ends[0] == ends[1], "The same seed gave two results: draw from the generator that you are given."


hidden_18_4(learn)
### END HIDDEN TESTS

# %% [markdown]
# ## 18.5 Project: a study of forgetting that can be decided
#
# > ●●●●● · 180 minutes · practice
#
# Choose a remedy and a stream of your own (synthetic data, the tasks of lesson 18, your field's data), at least three tasks.
# Write the claim first: "the backward transfer of *remedy* is above that of *baseline* by more than `threshold`". Run it,
# with joint training beside it, for at least three orders and five seeds. Return a dict:
#
# | key | what |
# |:--|:--|
# | `claim` | a sentence that names `remedy` and `baseline` |
# | `remedy`, `baseline` | names of two methods in `R` |
# | `threshold` | what the difference of the BWT must pass, 0 or more |
# | `orders` | at least three different orders: tuples of the task numbers 0 … T − 1 |
# | `seeds` | at least five different ones |
# | `R` | method (one is `"joint"`) → list over seeds of lists over orders of $T \times T$ matrices in *training* order |
# | `trials` | for each method but `"joint"`: how many settings were tried, on other seeds; all equal |
# | `kept` | for each method but `"joint"`: numbers kept between tasks beside the network (a count) |
# | `acc` | for each method the mean ACC over seeds and orders |
# | `difference`, `low`, `high` | BWT of the remedy minus that of the baseline: mean over seeds, its t interval at $0.95$ |
# | `verdict` | `"supported"`, `"refuted"` (the whole interval lies below the threshold) or `"undecided"` |
#
# The unit of the interval is the **seed**: average over the orders first, since the orders of one seed share test items and
# first values. The checker recomputes all numbers. A person reads the rest with this rubric (0 to 2 points a row; 8 of 12
# pass): the claim could have failed; the bench is hard enough (the baseline loses more than ten points of the first task);
# tuning was fair; what is kept is counted honestly; the output space is shared; the ending says what was not shown.


# %% nbgrader={"grade_id": "answer_18_5", "solution": true}
def study():
    """Return the dict of the table."""
    ### BEGIN SOLUTION
    orders, seeds = [(0, 1, 2), (2, 0, 1), (1, 2, 0)], [10, 11, 12, 13, 14]

    def one(method, order, seed):
        g = torch.Generator().manual_seed(seed)
        centres = 1.5 * torch.randn(6, 8, generator=g)
        y = [2 * t + torch.randint(2, (60,), generator=g) for t in range(3)]
        train = [(centres[k] + torch.randn(60, 8, generator=g), k) for k in y]
        test = [(centres[k] + torch.randn(60, 8, generator=g), k) for k in y]
        W = torch.zeros(6, 9, requires_grad=True)
        optimizer, R, old = torch.optim.Adam([W], lr=0.1), [], []
        for t in order:
            rows = [train[t], *[(x[:5], k[:5]) for x, k in old]] if method == "replay" else [train[t]]
            rows = train if method == "joint" else rows
            x, k = (torch.cat(parts) for parts in zip(*rows, strict=True))
            for _ in range(30):
                optimizer.zero_grad()
                F.cross_entropy(x @ W[:, :8].T + W[:, 8], k).backward()
                optimizer.step()
            old.append(train[t])
            z = [(a @ W[:, :8].T + W[:, 8]).argmax(1) == b for a, b in (test[j] for j in order)]
            R.append([hit.double().mean().item() for hit in z])
        return R

    methods = ("joint", "sequential", "replay")
    R = {m: [[one(m, order, seed) for order in orders] for seed in seeds] for m in methods}

    def bwt(R):
        return sum(R[-1][j] - R[j][j] for j in range(2)) / 2

    gains = [
        sum(bwt(a) - bwt(b) for a, b in zip(*pair, strict=True)) / 3
        for pair in zip(R["replay"], R["sequential"], strict=True)
    ]
    found = intervals.t_interval(gains)
    acc = {m: sum(sum(r[-1]) / 3 for each in R[m] for r in each) / 15 for m in methods}
    return {
        "claim": "The backward transfer of replay with five rows a task is above that of sequential tuning by more than "
        "5 points: three tasks of two clouds each, a linear softmax, 30 steps.",
        "remedy": "replay", "baseline": "sequential", "threshold": 0.05, "orders": orders, "seeds": seeds, "R": R,
        "trials": {"replay": 1, "sequential": 1}, "kept": {"replay": 2 * 5 * 9, "sequential": 0}, "acc": acc,
        "difference": sum(gains) / 5, "low": found.low, "high": found.high,
        "verdict": "supported" if found.low > 0.05 else "refuted" if found.high < 0.05 else "undecided",
    }  # fmt: skip
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_18_5", "locked": true}
KEYS = "claim remedy baseline threshold orders seeds R trials kept acc difference low high verdict".split()


def check_18_5(study):
    mine = checking.handed_in(study, KEYS, limit=60.0)
    remedy, baseline, R, orders, seeds = (mine[key] for key in ("remedy", "baseline", "R", "orders", "seeds"))
    assert remedy != baseline, "remedy and baseline are the same method."
    assert isinstance(R, dict) and {remedy, baseline, "joint"} <= set(R), (
        "R: the remedy, the baseline and 'joint' must be there. Without joint training nobody knows what could be reached."
    )
    for name in (remedy, baseline):
        assert name in mine["claim"], f"claim: {name!r} does not occur. A claim names what it compares."
    T = len(orders[0])
    assert T >= 3, "orders: at least three tasks."
    assert all(sorted(order) == list(range(T)) for order in orders), "orders: each one holds every task once."
    assert len(set(map(tuple, orders))) == len(orders) >= 3, "orders: at least three, no two alike."
    assert len(set(seeds)) == len(seeds) >= 5, "seeds: at least five, no two alike."
    for method, found in R.items():
        shape = tuple(torch.tensor(found, dtype=torch.float64).shape)
        assert shape == (len(seeds), len(orders), T, T), (
            f"R[{method!r}]: shape {(len(seeds), len(orders), T, T)}, not {shape}."
        )
    tables = {method: torch.tensor(found, dtype=torch.float64) for method, found in R.items()}
    assert all(((t >= 0) & (t <= 1)).all() for t in tables.values()), "R: an accuracy lies between 0 and 1."
    spread = tables[baseline].std(0).max().item()
    assert spread > 0, "R: all seeds have the very same numbers. Something is not drawn anew."
    others = set(R) - {"joint"}
    assert set(mine["trials"]) == set(mine["kept"]) == others, (
        "trials, kept: one entry for each method but 'joint'."
    )
    assert len(set(mine["trials"].values())) == 1, "trials: who may try more settings wins by that alone."
    want = {method: t[..., -1, :].mean().item() for method, t in tables.items()}
    wrong = {
        "acc: that is the mean of all entries. ACC is the last row's.": {
            m: t.mean().item() for m, t in tables.items()
        }
    }
    checking.equal(mine["acc"], want, "acc", wrong, tol=1e-6)
    bwt = {m: (t[..., -1, :] - t.diagonal(dim1=-2, dim2=-1))[..., :-1].mean(-1) for m, t in tables.items()}
    pairs = bwt[remedy] - bwt[baseline]
    gains = pairs.mean(1)
    flipped = "difference: baseline minus remedy. The claim is about remedy minus baseline."
    checking.equal(
        mine["difference"], gains.mean().item(), "difference", {flipped: -gains.mean().item()}, tol=1e-6
    )
    right, flat = intervals.t_interval(gains.tolist()), intervals.t_interval(pairs.flatten().tolist())
    apart = (right.high - right.low) / 3.92
    wrong = {
        "low: seeds times orders are no independent runs. Average over the orders first.": flat.low,
        "low: that is one standard error. A 95 % t interval is wider.": gains.mean().item()
        - gains.std().item() / math.sqrt(len(gains)),
    }
    checking.equal(mine["low"], right.low, "low", wrong, tol=max(1e-6, 1e-3 * apart))
    checking.equal(mine["high"], right.high, "high", tol=max(1e-6, 1e-3 * apart))
    bar = mine["threshold"]
    assert bar >= 0, "threshold: 0 or more."
    verdict = checking.verdict(mine, right.low, right.high)
    print(f"18.5 passed: {verdict}. Now a person reads the study with the rubric.")


check_18_5(study)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Start with synthetic clouds and a linear softmax: a run takes a tenth of a second, so that seeds and orders are cheap.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Write a function that gives one matrix for (method, order, seed). All else is a mean over it.
#
# </details>
#
# {{solution}}
