# ---
# jupyter:
#   instructlab:
#     id: "20"
#     title: Label efficiency and contrastive learning
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 20: label efficiency and contrastive learning
#
# Each exercise is a box, a cell for your answer, and a checker in the cell below it. Replace the line that
# raises `NotImplementedError`, then run both cells. A checker that says no also says what probably went
# wrong.
#
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases
# that you do not see here, so test more than the checker does. The page needs no network and no file. Exercise 20.4
# trains three small maps: its checker takes some seconds. Exercise 20.5 is a project.
#
# {{overview}}

# %%
import math

import torch
from torch.nn import functional as F

from instructlab_utils import checking, intervals

# %% [markdown]
# ## 20.1 A batch with copies in it
#
# > ●●●○○ · 30 minutes · graded
#
# In a batch of pairs, sentence $i$ and sentence $j$ may be the same text (`ids[i] == ids[j]`). InfoNCE would push them
# apart. Write a loss that does not.
#
# For the direction from `a` to `b`, row $i$ chooses among the rows $j$ of `b` by the softmax of cosine over `temperature`.
# Its right choice is $j = i$. A row $j \ne i$ with the same id is **no choice at all**: neither right nor wrong. The
# direction from `b` to `a` is the same with the roles exchanged. Row $i$'s loss is the mean of its two directions.
#
# Return the losses, float64 of shape (n,), nats.
#
# - `a` and `b` are float64 of shape (n, d), $n \ge 1$; `ids` is a list of n strings or numbers.
# - The temperature may be $0.001$; no loss may be infinite or NaN because of that.
# - A row that has no other choice left has the loss $0$.
# - A row of zeros in `a` or `b` raises `ValueError`: it has no direction.
# - The result has a graph: gradients reach `a` and `b`.


# %% nbgrader={"grade_id": "answer_20_1", "solution": true}
def pair_losses(a, b, ids, temperature):
    """a, b: float64 (n, d); ids: n names of texts. Return the losses, float64 (n,)."""
    ### BEGIN SOLUTION
    if (a.norm(dim=1) == 0).any() or (b.norm(dim=1) == 0).any():
        raise ValueError("a row of zeros has no direction")
    n = len(ids)
    z = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / temperature
    copies = torch.tensor([[i != j and ids[i] == ids[j] for j in range(n)] for i in range(n)])
    z = z.masked_fill(copies, -math.inf)
    there, back = (-torch.log_softmax(table, 1).diagonal() for table in (z, z.T))
    return (there + back) / 2
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_20_1", "grade": true, "points": 3, "locked": true}
def loss_as(a, b, ids, temperature, copies="dropped", ways="mean", scale="over", length=True):
    """The loss with one mistake, or with none."""
    u, v = (F.normalize(x, dim=1) if length else x for x in (a, b))
    z = u @ v.T / temperature if scale == "over" else u @ v.T * temperature
    same = torch.tensor([[p == q for q in ids] for p in ids])
    own = torch.eye(len(ids), dtype=torch.bool)
    parts = []
    for table in (z, z.T):
        kept = table.masked_fill(same & ~own, -math.inf) if copies == "dropped" else table
        right = table.masked_fill(~same, -math.inf).logsumexp(1) if copies == "right" else table.diagonal()
        parts.append(kept.logsumexp(1) - right)
    return {"mean": sum(parts) / 2, "sum": sum(parts), "there": parts[0]}[ways]


def check_20_1(pair_losses):
    call = checking.calls(pair_losses)
    g = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 5, 3, generator=g, dtype=torch.float64)
    ids, tau = ["x", "y", "x", "z", "y"], 0.3
    wrong = {
        "A copy still counts as a wrong choice. Leave it out of the sum.": {"copies": "negatives"},
        "You count a copy as a second right choice. It is no choice at all.": {"copies": "right"},
        "Only the direction from a to b is there.": {"ways": "there"},
        "Take the mean of the two directions, not the sum.": {"ways": "sum"},
        "Divide by the temperature.": {"scale": "times"},
        "These are inner products. Cosines are asked for.": {"length": False},
    }
    known = {says: loss_as(a, b, ids, tau, **how) for says, how in wrong.items()}
    right = loss_as(a, b, ids, tau)
    checking.equal(call(a, b, ids, tau), right, "losses", known, dtype=torch.float64, tol=1e-9)
    lone = call(a[:1], b[:1], ["x"], tau)
    checking.equal(lone, torch.zeros(1).double(), "losses", says="One row alone: the loss is 0.")
    sharp = call(a, b, ids, 0.001)
    assert sharp.isfinite().all(), (
        "At the temperature 0.001 a loss is not finite: exp overflows. Use logsumexp or log_softmax."
    )
    call.refuses(ValueError, a * 0, b, ids, tau, says="A row of zeros has no direction.")
    x = a.clone().requires_grad_()
    assert pair_losses(x, b, ids, tau).requires_grad, "The result has no graph: is there a detach or an item?"
    print("20.1 passed the visible cases.")


check_20_1(pair_losses)
### BEGIN HIDDEN TESTS


def hidden_20_1(pair_losses):
    call = checking.calls(pair_losses)
    g = torch.Generator().manual_seed(2)
    for n, d, tau in ((2, 2, 0.05), (9, 4, 1.0), (6, 1, 0.001)):
        a, b = torch.randn(2, n, d, generator=g, dtype=torch.float64)
        for ids in ([k % 3 for k in range(n)], list(range(n)), [0] * n):
            want = loss_as(a, b, ids, tau)
            says = "All rows are one text: every loss is 0." if len(set(ids)) == 1 else ""
            checking.equal(call(a, b, ids, tau), want, "losses", tol=1e-9, says=says)
    a, b = torch.randn(2, 4, 3, generator=g, dtype=torch.float64)
    b[2] = 0
    call.refuses(ValueError, a, b, [1, 2, 3, 4], 0.1, says="A row of zeros stands in b.")


hidden_20_1(pair_losses)
### END HIDDEN TESTS

# %% [markdown]
# ## 20.2 Eleven doubtful rows that are not one
#
# > ●●●○○ · 30 minutes · graded
#
# A batch by margin alone may hold eleven copies of one doubt. Write a choice that looks at both.
#
# Walk through the rows that are not in `known`, the smallest margin first (the margin is the gap between the two largest
# entries of a row of `p`; of equal margins the earlier row first). **Skip** a row whose cosine with any row of `x` that is
# known *or already chosen* is larger than `most`; else choose it. Stop at `n` chosen rows. If the walk ends before, fill up
# with the skipped rows, in the order in which they were skipped.
#
# Return a list of `n` row numbers, in the order of choice. `known` may be empty. `ValueError` where fewer than `n` rows are
# left. All arguments stay as they are. `p` is float64 (N, K) with $K \ge 2$, `x` float64 (N, d) without a row of zeros.


# %% nbgrader={"grade_id": "answer_20_2", "solution": true}
def choose(p, x, known, n, most):
    """Return n row numbers, none of them in known."""
    ### BEGIN SOLUTION
    if n > len(x) - len(set(known)):
        raise ValueError("fewer rows are left than are asked for")
    best = p.topk(2, 1).values
    order = (best[:, 0] - best[:, 1]).sort(stable=True).indices.tolist()
    unit, chosen, skipped = F.normalize(x, dim=1), [], []
    for row in order:
        if row in known or len(chosen) == n:
            continue
        near = [*known, *chosen]
        far = not near or (unit[near] @ unit[row]).max() <= most
        (chosen if far else skipped).append(row)
    return (chosen + skipped)[:n]
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_20_2", "grade": true, "points": 3, "locked": true}
def chosen_as(p, x, known, n, most, near="both", score="margin", fill="skipped", unit=True):
    """The choice with one mistake, or with none."""
    top = p.topk(2, 1).values
    doubt = {"margin": top[:, 0] - top[:, 1], "top": top[:, 0], "sure": top[:, 1] - top[:, 0]}[score]
    v, chosen, skipped = F.normalize(x, dim=1) if unit else x, [], []
    for row in doubt.sort(stable=True).indices.tolist():
        if row in known or len(chosen) == n:
            continue
        others = {"both": [*known, *chosen], "known": list(known), "chosen": chosen}[near]
        ok = not others or (v[others] @ v[row]).max() <= most
        (chosen if ok else skipped).append(row)
    if fill == "order":
        rest = sorted(set(skipped))
    else:
        rest = [] if fill == "none" else skipped
    return (chosen + rest)[:n]


def check_20_2(choose):
    call = checking.calls(choose)
    p = torch.tensor(
        [
            [0.5, 0.3, 0.2],
            [0.4, 0.39, 0.21],
            [0.45, 0.45, 0.1],
            [0.34, 0.33, 0.33],
            [0.6, 0.2, 0.2],
            [0.4, 0.35, 0.25],
        ]
    ).double()
    angle = torch.tensor([0.0, 10.0, 12.0, 80.0, 170.0, 14.0]).deg2rad().double()
    x = torch.stack([angle.cos(), angle.sin()], 1) * torch.tensor([1.0, 3, 1, 10, 1, 2]).double()[:, None]
    wrong = {
        "A row is too near to one that was chosen before it. You look at the known rows only.": {
            "near": "known"
        },
        "A row is too near to a known one. You look at the chosen rows only.": {"near": "chosen"},
        "The margin is the gap of the two largest. You take the largest alone.": {"score": "top"},
        "You begin with the largest margin, where the head is sure.": {"score": "sure"},
        "These are inner products. A cosine does not grow with the length of a row.": {"unit": False},
    }
    fills = {
        "Fewer rows than asked for: fill up with the skipped ones.": {"fill": "none"},
        "The skipped rows come in the order of their margins, not of their numbers.": {"fill": "order"},
    }
    for known, n, most in (([4], 3, 0.9), ([0], 2, 0.9), ([], 3, 0.9), ([4], 5, 0.9), ([], 6, 0.99)):
        known_wrong = {says: chosen_as(p, x, known, n, most, **how) for says, how in (wrong | fills).items()}
        checking.equal(call(p, x, known, n, most), chosen_as(p, x, known, n, most), "rows", known_wrong)
    call.refuses(ValueError, p, x, [4], 6, 0.9, says="Five rows are left, six are asked for.")
    print("20.2 passed the visible cases.")


check_20_2(choose)
### BEGIN HIDDEN TESTS


def hidden_20_2(choose):
    call = checking.calls(choose)
    g = torch.Generator().manual_seed(3)
    for n_rows, classes, most in ((12, 2, 0.5), (30, 5, 0.0), (30, 4, -0.5), (8, 3, 1.0)):
        p = torch.softmax(torch.randn(n_rows, classes, generator=g, dtype=torch.float64), 1)
        x = torch.randn(n_rows, 3, generator=g, dtype=torch.float64)
        for known in ([], [1, 5, 2], list(range(n_rows - 1))):
            left = n_rows - len(known)
            for n in {0, 1, left // 2, left}:
                want = chosen_as(p, x, known, n, most)
                checking.equal(call(p, x, known, n, most), want, "rows", says=f"{n} of {left} rows.")
    equal_p, same = torch.full((6, 2), 0.5, dtype=torch.float64), torch.ones(6, 2, dtype=torch.float64)
    says = "All rows are equal: the earlier comes first."
    checking.equal(call(equal_p, same, [2], 3, 0.5), [0, 1, 3], "rows", says=says)


hidden_20_2(choose)
### END HIDDEN TESTS

# %% [markdown]
# ## 20.3 Weights that trust the wrong ones
#
# > ●●●●○ · 40 minutes · practice · bug hunt
#
# Somebody wrote one step of learning to reweight for a linear head, and found that it makes things worse. It holds four
# mistakes, and one oddity that is none.


# %%
def broken_step(theta, x, y, clean_x, clean_y, rate):
    hot = F.one_hot(y, len(theta)).to(x.dtype)
    clean_hot = F.one_hot(clean_y, len(theta)).to(x.dtype)
    r = torch.softmax(x @ theta.T, 0) - hot
    virtual = theta - rate * (r.T @ x) / len(x)
    g = (torch.softmax(clean_x @ virtual.T, 1) - clean_hot).T @ clean_x
    u = (r * (x @ g.T)).sum(1)
    w = (u / u.sum()).clamp(min=0)
    return theta - rate * (w[:, None] * r).T @ x, w


# %% [markdown]
# Write it right. `step` returns the new weights of the head, and the weights of the examples: $w_i \propto \max(0, g_c \cdot
# g_i)$ with sum $1$, both gradients taken at `theta`. Where no example helps, all $w_i$ are $0$ and `theta` comes back
# unchanged. Float64; `theta` (K, d), `x` (N, d), `y` int64 (N,).


# %% nbgrader={"grade_id": "answer_20_3", "solution": true}
def step(theta, x, y, clean_x, clean_y, rate):
    """Return (new theta (K, d), w (N,))."""
    ### BEGIN SOLUTION
    hot = F.one_hot(y, len(theta)).to(x.dtype)
    clean_hot = F.one_hot(clean_y, len(theta)).to(x.dtype)
    r = torch.softmax(x @ theta.T, 1) - hot
    g = (torch.softmax(clean_x @ theta.T, 1) - clean_hot).T @ clean_x
    w = (r * (x @ g.T)).sum(1).clamp(min=0)
    if w.sum() > 0:
        w = w / w.sum()
    return theta - rate * (w[:, None] * r).T @ x, w
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_20_3", "locked": true}
def step_as(theta, x, y, cx, cy, rate, dim=1, at="theta", clamp="before", empty="zero", sign=1):
    """The step with one mistake, or with none."""
    hot, clean_hot = (F.one_hot(k, len(theta)).to(x.dtype) for k in (y, cy))
    r = torch.softmax(x @ theta.T, dim) - hot
    place = theta if at == "theta" else theta - rate * (r.T @ x) / len(x)
    g = (torch.softmax(cx @ place.T, 1) - clean_hot).T @ cx
    u = sign * (r * (x @ g.T)).sum(1)
    if clamp == "before":
        w = u.clamp(min=0)
        w = w / w.sum() if w.sum() > 0 or empty == "nan" else w
    elif clamp == "after":
        w = (u / u.sum()).clamp(min=0)
    else:
        w = u.abs() / u.abs().sum()
    return theta - rate * (w[:, None] * r).T @ x, w


def check_20_3(step):
    call = checking.calls(step)
    g = torch.Generator().manual_seed(4)
    theta, x, cx = (torch.randn(n, 4, generator=g, dtype=torch.float64) for n in (3, 9, 5))
    y, cy = torch.arange(9) % 3, torch.arange(5) % 3
    wrong = {
        "The softmax runs over the examples. Each example's classes must sum to 1.": {"dim": 0},
        "The clean gradient is taken after the imagined step. The derivative at ε = 0 needs it at theta.": {
            "at": "virtual"
        },
        "The weights do not sum to 1: first cut the negative ones off, then divide.": {"clamp": "after"},
        "An example that points the other way got its absolute value as weight. It gets 0.": {"clamp": "abs"},
        "The sign is turned round: these are the examples that raise the clean loss.": {"sign": -1},
    }
    args = (theta, x, y, cx, cy, 0.5)
    known = {says: step_as(*args, **how) for says, how in wrong.items()}
    checking.equal(call(*args), step_as(*args), "(theta, w)", known, dtype=torch.float64, tol=1e-9)
    against = (torch.zeros(2, 4).double(), cx[:1], torch.tensor([1]), cx[:1], torch.tensor([0]), 0.5)
    new, w = call(*against)
    assert not w.isnan().any() and not new.isnan().any(), (
        "Where no example helps, 0 is divided by 0. All weights are 0 there, and theta stays."
    )
    checking.equal((new, w), step_as(*against), "(theta, w)", tol=1e-9)
    for seed in range(3):
        g.manual_seed(seed)
        args = (*(torch.randn(n, 6, generator=g, dtype=torch.float64) for n in (4, 20)), torch.arange(20) % 4)
        args = (*args, torch.randn(7, 6, generator=g, dtype=torch.float64), torch.arange(7) % 4, 0.01)
        checking.equal(call(*args), step_as(*args), "(theta, w)", tol=1e-9)
    print("20.3 passed.")


check_20_3(step)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Three of the four can be found by looking at sums: along which axis must what add up to $1$? When is a sum $0$?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The oddity: the clean gradient is a sum and not a mean. What happens to a common factor in the last step?
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 20.4 Forget the writer
#
# > ●●●●○ · 60 minutes · practice
#
# A text has a topic and a writer, and in these vectors the writer is loud. Nobody gives you labels. But you have pairs: row
# $i$ of `a` and row $i$ of `b` are two texts on one topic by two writers, chosen at random. *What you call the same decides
# what the vector forgets.*
#
# `embed(a, b, seed)` learns from the pairs alone, both float32 of shape (n, 12), and returns a function from (m, 12) to
# (m, k), any $k$. The checker builds three worlds, calls it once in each, and then looks at new texts:
#
# - the **topic** must be found by the nearest of five means, each of *two* labelled texts, in at least $0.9$ of the others;
# - the **writer** must not: by the nearest of eight means, each of ten labelled texts, in at most $0.25$.
#
# Means and vectors are compared by the cosine, after the mean of all new texts was taken off. Each call has twenty seconds.


# %% nbgrader={"grade_id": "answer_20_4", "solution": true}
def embed(a, b, seed):
    """a, b: float32 (n, 12), paired row by row. Return a function (m, 12) → (m, k)."""
    ### BEGIN SOLUTION
    torch.manual_seed(seed)
    net = torch.nn.Linear(a.shape[1], 6, bias=False)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(300):
        rows = torch.randperm(len(a))[:256]
        u, v = (F.normalize(net(x[rows]), dim=1) for x in (a, b))
        z, own = u @ v.T / 0.5, torch.arange(len(rows))
        loss = F.cross_entropy(z, own) + F.cross_entropy(z.T, own)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return lambda x: net(x).detach()
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_20_4", "locked": true}
def world(seed, n=1500, asked=800):
    """Pairs on one topic by two writers; new texts, their topics and writers."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g)

    topics, writers = 2 * F.normalize(normal(5, 6)), 5 * F.normalize(normal(8, 6))
    mix = torch.linalg.qr(normal(12, 12))[0]

    def texts(topic, writer):
        parts = (topics[topic] + 0.3 * normal(len(topic), 6), writers[writer] + 0.3 * normal(len(writer), 6))
        return torch.cat(parts, 1) @ mix.T

    def some(size, kinds):
        return torch.randint(kinds, (size,), generator=g)

    topic = some(n, 5)
    a, b = texts(topic, some(n, 8)), texts(topic, some(n, 8))
    topic, writer = some(asked, 5), some(asked, 8)
    return a, b, texts(topic, writer), topic, writer


def found(z, y, kinds, each):
    """Share of the rows, without those that have a label, whose nearest mean is of their own kind."""
    z = F.normalize(z - z.mean(0), dim=1)
    rows = [(y == k).nonzero()[:each, 0] for k in range(kinds)]
    means = F.normalize(torch.stack([z[r].mean(0) for r in rows]), dim=1)
    rest = torch.ones(len(y), dtype=torch.bool)
    rest[torch.cat(rows)] = False
    return ((z[rest] @ means.T).argmax(1) == y[rest]).double().mean().item()


def check_20_4(embed, worlds=(0, 1, 2)):
    call = checking.calls(
        embed, limit=20, slow="A few hundred updates with batches of some hundred pairs suffice."
    )
    for seed in worlds:
        a, b, new, topic, writer = world(seed)
        f = call(a, b, seed)
        assert callable(f), f"Return a function from texts to vectors, not {checking.shown(f)}."
        z = checking.calls(f)(new)
        assert isinstance(z, torch.Tensor) and z.ndim == 2 and len(z) == len(new), (
            f"The function must return a tensor of shape ({len(new)}, k), not {checking.shown(z)}."
        )
        z = z.detach().float()
        assert z.isfinite().all(), "Some vectors are not finite."
        t, w = found(z, topic, 5, 2), found(z, writer, 8, 10)
        told = f"World {seed}: topics {t:.2f}, writers {w:.2f}."
        assert (z - z[0]).abs().max() > 1e-6 * (1 + z.abs().max()), (
            f"{told} All texts have the same vector: a pull and no push. That is collapse."
        )
        assert not (t < 0.9 and w > 0.6), (
            f"{told} The writer is as loud as before. Do the two members of a pair meet in your loss, or each text itself?"
        )
        assert t >= 0.9, (
            f"{told} The writer is gone, and much of the topic too. What keeps different texts apart in your loss?"
        )
        assert w <= 0.25, f"{told} The topic is there, but so is the writer."
    print("20.4 passed.")


check_20_4(embed)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Which two things meet in the diagonal of InfoNCE's table, and which meet off the diagonal?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# A linear map to a few numbers suffices. With five topics, one in five negatives has the same topic; a temperature of one
# half does not care much.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 20.5 Project: a test of what labels cost
#
# > ●●●●● · 120 minutes · practice · prediction
#
# Plan an experiment that decides whether choosing sentences is worth the trouble: margin against random, diversity against
# margin, self-training against ten more labels, or two ways of your own. Run a pilot of at least five seeds, on kept features
# of a task of this course or on a system of your own, and write the plan **before** you run the rest. A simulation needs
# labels, too: somebody labelled the pool, and the test. `plan()` returns a dict with exactly these keys:
#
# - `claim`: one sentence that can turn out false, at least $40$ characters; it holds both names of `arms`. `arms`: two
#   different names, a list or tuple.
# - `pilot`: a dict from at least five seeds (whole numbers) to the differences of the measure, first arm minus second, from
#   $-1$ to $1$, not all equal. `pilot_items`: from how many test items each came, a whole number from $1$.
# - `effect`: the smallest difference that would change what somebody does, above $0$, at most $0.5$. `reason`: why, at least
#   $40$ characters.
# - `seeds`: at least five different whole numbers, none of them in `pilot`. `items`: test items of each seed, of its own, a
#   whole number from $1$.
# - `pool`, `labels`: rows in the pool, and how many of them one arm labels in one seed, whole numbers from $1$; `labels` is
#   at most `pool`. `seconds`: what a person needs for one label, above $0$.
# - `hours`: what a person would need for all labels, within $0.01$ of what the checker computes, and at most $40$.
# - `power`: at least $0.8$, and within $0.01$ of what the checker computes.
#
# **Hours.** Both arms and all seeds draw from one pool, and no row is paid twice: at most all of the pool is labelled, so
# count the smaller of `pool` and $2 \times$ `labels` $\times$ number of seeds. Test items are each seed's own and must all
# have a label. Together, times `seconds`, over $3600$.
#
# **Power.** With $s$ the standard deviation of the pilot (with $n - 1$), the variance of one difference is
# $v = s^2 + \max(0,\ 0.5 / \text{items} - 0.5 / \text{pilot items})$. With $k$ seeds:
# `intervals.power_of_t(effect, sqrt(v / k), k - 1)`.
#
# **Not fitted to the pilot.** An effect within a tenth of the pilot's mean difference (of its size) is refused.
#
# The checker reads the arithmetic. A person reads the rest, with this rubric (0, 1 or 2 points a row; 8 of 12 pass):
#
# | | 0 | 1 | 2 |
# |:--|:--|:--|:--|
# | claim | cannot fail | can fail, but task or budget is missing | names arms, task, classes, labels, measure, direction |
# | effect | a habit | a reason | hours of labelling are compared with the gain |
# | fairness | other starts or heads for the arms | same start | same start, same head, equal tuning, batches as in real use |
# | control | none | random labels or a second random arm | and what it would mean if it gained |
# | endings | one | two | supported, refuted (also: too small to matter), undecided |
# | run | not run | run, and changed afterwards | run as planned; what was looked at later is called exploratory |


# %% nbgrader={"grade_id": "answer_20_5", "solution": true}
def plan():
    """Return a dict with the keys of the list."""
    ### BEGIN SOLUTION
    pilot = {100: 0.012, 101: -0.021, 102: 0.034, 103: 0.005, 104: 0.041, 105: -0.008}
    seeds, items, effect = list(range(200, 230)), 120, 0.025
    spread = torch.tensor(list(pilot.values()), dtype=torch.float64).std().item()
    return {
        "claim": "On a pool of 680 news articles, labelling by margin has a larger area under the learning curve from 20 "
        "to 100 labels than labelling at random, for a logistic regression on kept vectors.",
        "arms": ["by margin", "at random"],
        "pilot": pilot,
        "pilot_items": 120,
        "effect": effect,
        "reason": "Choosing means waiting for a model after each batch, about two hours a project; below that gain ten more "
        "random labels are cheaper.",
        "seeds": seeds,
        "items": items,
        "pool": 680,
        "labels": 100,
        "seconds": 15.0,
        "hours": 15.0 * (min(680, 2 * 100 * len(seeds)) + items * len(seeds)) / 3600,
        "power": intervals.power_of_t(effect, spread / math.sqrt(len(seeds)), len(seeds) - 1),
    }
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_20_5", "locked": true}
PLAN = "claim arms pilot pilot_items effect reason seeds items pool labels seconds hours power".split()


def number_of(value, name, least=-math.inf):
    checking.form(value, 0.0, name)
    assert not isinstance(value, bool) and math.isfinite(value), (
        f"{name}: a finite number expected, not {value!r}."
    )
    assert value >= least, f"{name}: at least {least}, not {value!r}."
    return float(value)


def whole_of(value, name, least=-math.inf):
    got = number_of(value, name, least)
    assert got == int(got), f"{name}: a whole number expected, not {value!r}."
    return int(got)


def check_20_5(plan):
    mine = checking.handed_in(plan, PLAN)
    arms = mine["arms"]
    assert isinstance(arms, list | tuple) and len(arms) == 2 and arms[0] != arms[1], (
        "arms: two different names expected."
    )
    for key in ("claim", "reason"):
        assert isinstance(mine[key], str) and len(mine[key].strip()) >= 40, f"{key}: at least 40 characters."
    for arm in arms:
        assert isinstance(arm, str) and arm.strip() and arm in mine["claim"], (
            f"claim: {arm!r} does not occur. A claim names what it compares."
        )
    assert isinstance(mine["pilot"], dict) and len(mine["pilot"]) >= 5, (
        "pilot: a dict of at least five seeds."
    )
    pilot = {
        whole_of(k, "a seed in pilot"): number_of(x, f"the difference of seed {k}")
        for k, x in mine["pilot"].items()
    }
    values = torch.tensor(list(pilot.values()), dtype=torch.float64)
    assert values.abs().max() <= 1, "pilot: a difference of shares lies between −1 and 1. Are these points?"
    s, mean = values.std().item(), abs(values.mean().item())
    assert s > 1e-9, "pilot: all differences are equal. Something is not drawn anew."
    effect = number_of(mine["effect"], "effect")
    assert 0 < effect <= 0.5, "effect: above 0, at most 0.5."
    assert abs(effect - mean) > mean / 10, (
        f"effect: {effect:g} is fitted to the pilot, whose mean is {mean:.3g} in size. What matters does not follow from it."
    )
    assert isinstance(mine["seeds"], list | tuple), "seeds: a list expected."
    seeds = [whole_of(seed, "a seed") for seed in mine["seeds"]]
    assert len(set(seeds)) == len(seeds) >= 5, "seeds: at least five, each once."
    assert not set(seeds) & set(pilot), (
        "seeds: some were in the pilot. They made you choose this plan, so they cannot judge it."
    )
    sizes = {key: whole_of(mine[key], key, 1) for key in ("items", "pilot_items", "pool", "labels")}
    items, pool, labels, k = sizes["items"], sizes["pool"], sizes["labels"], len(seeds)
    assert labels <= pool, "labels: more than the pool has rows."
    seconds, hours = number_of(mine["seconds"], "seconds"), number_of(mine["hours"], "hours")
    assert seconds > 0, "seconds: above 0."

    def cost(rows, tested):
        return seconds * (rows + tested) / 3600

    once = min(pool, 2 * labels * k)
    wrong_hours = {
        "hours: the test items need labels, too.": cost(once, 0),
        "hours: each seed has test items of its own; you count those of one.": cost(once, items),
        "hours: a row of the pool is paid once, however many seeds choose it.": cost(
            2 * labels * k, items * k
        ),
        "hours: there are two arms.": cost(min(pool, labels * k), items * k),
    }
    want = cost(once, items * k)
    for says, value in wrong_hours.items():
        assert not abs(hours - value) <= 0.01 < abs(want - value), says
    assert abs(hours - want) <= 0.01, f"hours: {want:.2f} expected, not {hours:.2f}."
    assert hours <= 40, f"hours: {hours:.1f} are more than 40. Fewer test items, or fewer seeds?"

    def computed(room, runs, size=effect):
        v = s**2 + room * max(0.0, 0.5 / items - 0.5 / sizes["pilot_items"])
        return intervals.power_of_t(size, math.sqrt(v / runs), k - 1)

    power, right = number_of(mine["power"], "power"), computed(1, k)
    wrong_power = {
        "power: with fewer items than in the pilot luck has more room. Add its variance.": computed(0, k),
        "power: the error of a mean over seeds is smaller than the spread of one: divide by √k.": computed(
            1, 1
        ),
        "power: this is the power for the pilot's mean, not for the effect.": computed(1, k, mean),
    }
    for says, value in wrong_power.items():
        assert not abs(power - value) <= 0.01 < abs(right - value), says
    assert abs(power - right) <= 0.01, f"power: {right:.3f} expected, not {power:.3f}."
    assert power >= 0.8, (
        f"power: {power:.2f} is below 0.8. More seeds, or an effect that you can defend and that is larger."
    )
    print("20.5 passed: the arithmetic holds. Now the rubric.")


check_20_5(plan)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Write the last sentence of your report first, three times: supported, refuted, undecided.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Which of the two costs more labels here: what the arms label, or what tests them?
#
# </details>
#
# {{solution}}
