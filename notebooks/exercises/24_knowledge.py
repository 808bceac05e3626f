# ---
# jupyter:
#   instructlab:
#     id: "24"
#     title: "Knowledge: search, graphs and rules"
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 24: knowledge
#
# Each exercise is a box, a cell for your answer, and a checker in the cell below it. Replace the line that
# raises `NotImplementedError`, then run both cells. A checker that says no also says what probably went
# wrong.
#
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases
# that you do not see here, so test more than the checker does. The page needs no network and no file. Exercise 24.4
# trains heads in three worlds: its checker takes some seconds. Exercise 24.5 is a project.
#
# {{overview}}

# %%
import itertools
import math

import torch
from torch.nn import functional as F

from instructlab_utils import checking, intervals

# %% [markdown]
# ## 24.1 Fuse lists that are cut
#
# > ●●○○○ · 20 minutes · graded
#
# Real searches return their first few hits, not an order of everything. Fuse such lists by reciprocal rank: an item at place
# $r$ (from $1$) of a list adds $1 / (k + r)$ to its score; a list in which it does not stand adds **nothing**.
#
# `fuse(lists, k)` gets a list of lists of names (strings), best first; lists may have different lengths, and may be empty.
# Return all names that occur, best first, each once, as a list. Of equal scores the name that comes first in the alphabet
# (Python's order of strings) stands first. Scores are equal if they differ by less than $10^{-12}$.
#
# - A name that stands twice in *one* list raises `ValueError`. So does a `k` at $-1$ or below.
# - No list at all, or only empty ones, give `[]`.


# %% nbgrader={"grade_id": "answer_24_1", "solution": true}
def fuse(lists, k):
    """lists of names, best first → all names, best first."""
    ### BEGIN SOLUTION
    if k <= -1 or any(len(set(names)) < len(names) for names in lists):
        raise ValueError("k is too small, or a name stands twice in a list")
    score = {}
    for names in lists:
        for place, name in enumerate(names, start=1):
            score[name] = score.get(name, 0.0) + 1 / (k + place)
    return sorted(score, key=lambda name: (-round(score[name], 12), name))
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_24_1", "grade": true, "points": 2, "locked": true}
def fused_as(lists, k, first=1, missing="nothing", by="reciprocal", ties="name"):
    """The fusion with one mistake, or with none."""
    names = list(dict.fromkeys(name for each in lists for name in each))
    score = dict.fromkeys(names, 0.0)
    for each in lists:
        for name in names:
            if name in each:
                place = each.index(name) + first
            elif missing == "end":
                place = len(each) + first
            else:
                continue
            score[name] += {"reciprocal": 1 / (k + place), "places": -place, "best": 0}[by]
            if by == "best":
                score[name] = max(score[name], 1 / (k + place))
    last = (lambda name: name) if ties == "name" else names.index
    return sorted(names, key=lambda name: (-round(score[name], 12), last(name)))


def check_24_1(fuse):
    call = checking.calls(fuse)
    wrong = {
        "Places begin at 1, yours begin at 0.": {"first": 0},
        "A list without the name adds nothing. You put the name behind its end.": {"missing": "end"},
        "You added up places. Each place adds 1 / (k + place).": {"by": "places"},
        "You keep the best list only. The lists' shares are added.": {"by": "best"},
        "Of equal scores the alphabet decides, not the order in which the names came.": {"ties": "came"},
    }
    cases = (
        ([["a", "b", "c"], ["c", "d"], ["e", "c", "b"]], 60),
        ([["q", "a"], ["b", "a"], ["z"], ["y", "x", "w", "v", "b"]], 0.5),
        ([["m", "z", "c"], ["z", "m"], ["k"]], 1),
        ([["d", "c"], ["c", "d"], ["b"]], 0),
    )
    for lists, k in cases:
        known = {says: fused_as(lists, k, **how) for says, how in wrong.items() if k or how != {"first": 0}}
        checking.equal(call(lists, k), fused_as(lists, k), "names", known)
    checking.equal(call([], 60), [], "names", says="No list gives no name.")
    call.refuses(ValueError, [["a", "b", "a"]], 60, says="A name stands twice in one list.")
    print("24.1 passed the visible cases.")


check_24_1(fuse)
### BEGIN HIDDEN TESTS


def hidden_24_1(fuse):
    call = checking.calls(fuse)
    g = torch.Generator().manual_seed(1)
    for n, some, k in ((6, 2, 60), (9, 4, 0.3), (5, 1, -0.5), (12, 6, 2)):
        lists = []
        for _ in range(some):
            order = torch.randperm(n, generator=g).tolist()[: int(torch.randint(n + 1, (1,), generator=g))]
            lists.append([chr(97 + i) for i in order])
        checking.equal(call(lists, k), fused_as(lists, k), "names", says="Lists of other lengths.")
    checking.equal(call([[], []], 60), [], "names", says="Empty lists give no name.")
    for k in (-1, -3.0):
        call.refuses(
            ValueError, [["a"]], k, says="k is -1 or below: a place would count endlessly, or backwards."
        )


hidden_24_1(fuse)
### END HIDDEN TESTS

# %% [markdown]
# ## 24.2 As many answers as the risk allows
#
# > ●●●○○ · 30 minutes · graded
#
# Your model may keep silent. On dev questions you know how sure it was and whether it was right. Choose the threshold.
#
# A threshold $t$ answers every question with `sure` $\ge t$. It is **allowed** if the upper end of the $95$ % Wilson
# interval of its share of *wrong* answers (among those that are answered) is at most `risk`.
# `intervals.wilson_interval(count, n)` gives an interval with `.low` and `.high`.
#
# `threshold(sure, right, risk)` returns the allowed threshold that answers most questions, as a float: one of the values in
# `sure`. Return `None` where no threshold is allowed: then the model must keep silent.
#
# - `sure` is a list of floats, `right` a list of `True` and `False`, equally long, one entry at least. `0 < risk < 1`.
# - Questions that are equally sure are answered together, or not at all.
# - A threshold that answers more may be allowed where one that answers fewer is not: look at all of them.


# %% nbgrader={"grade_id": "answer_24_2", "solution": true}
def threshold(sure, right, risk):
    """The lowest allowed threshold, or None."""
    ### BEGIN SOLUTION
    for t in sorted(set(sure)):
        answered = [ok for s, ok in zip(sure, right, strict=True) if s >= t]
        if intervals.wilson_interval(answered.count(False), len(answered)).high <= risk:
            return float(t)
    return None
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_24_2", "grade": true, "points": 3, "locked": true}
def threshold_as(
    sure, right, risk, bound="high", among="answered", ties="together", stop=False, counts=False
):
    """The threshold with one mistake, or with none."""
    allowed = None
    for t in sorted(set(sure), reverse=True):
        picked = [ok for s, ok in zip(sure, right, strict=True) if (s >= t if ties == "together" else s > t)]
        n = len(picked) if among == "answered" else len(right)
        if not picked:
            continue
        wrong = intervals.wilson_interval(picked.count(counts), n)
        if getattr(wrong, bound) <= risk:
            allowed = float(t)
        elif stop:
            break
    return allowed


def check_24_2(threshold):
    call = checking.calls(threshold, none=True)
    wrong = {
        "You hold the share itself against the risk. Its upper end must be below.": {"bound": "mean"},
        "You hold the lower end against the risk.": {"bound": "low"},
        "The share is among the answered questions, not among all.": {"among": "all"},
        "A question that is exactly as sure as the threshold is answered, too.": {"ties": "apart"},
        "You stop at the first threshold that is not allowed. A lower one may be.": {"stop": True},
        "You count right answers. The risk is the share of wrong ones.": {"counts": True},
    }
    sure = [0.99 - 0.01 * i for i in range(40)]
    right = [i not in (0, 22, 31, 33, 35, 36, 38) for i in range(40)]
    blocks = ([0.9] * 12 + [0.8] * 12 + [0.5] * 6, [True] * 11 + [False] + [True] * 12 + [False] * 6)
    dip = ([0.9] * 20 + [0.8] * 10 + [0.7] * 60, [True] * 24 + [False] * 6 + [True] * 60)
    possible, failed, answered = list(wrong), "", False
    for a, b, risk in (
        (sure, right, 0.25),
        (sure, right, 0.35),
        (*blocks, 0.2),
        (*blocks, 0.35),
        (*dip, 0.25),
    ):
        got, want = call(a, b, risk), threshold_as(a, b, risk)
        answered = answered or got is not None
        possible = [says for says in possible if threshold_as(a, b, risk, **wrong[says]) == got]
        failed = failed or (
            f"threshold is {got}, and should be {want}, at a risk of {risk}." if got != want else ""
        )
    assert answered, "You return None in every case. Did you forget return?"
    assert not failed, possible[0] if possible else failed
    assert call([0.7, 0.6], [False, False], 0.1) is None, "No threshold is allowed here: return None."
    print("24.2 passed the visible cases.")


check_24_2(threshold)
### BEGIN HIDDEN TESTS


def hidden_24_2(threshold):
    call = checking.calls(threshold, none=True)
    g = torch.Generator().manual_seed(2)
    for n, risk in ((1, 0.9), (3, 0.5), (60, 0.3), (200, 0.2), (200, 0.05)):
        sure = (torch.rand(n, generator=g) * 12).round().div(12).tolist()
        right = [bool(torch.rand(1, generator=g) < 0.5 + s / 2) for s in sure]
        got, want = call(sure, right, risk), threshold_as(sure, right, risk)
        assert got == want, (
            f"threshold is {got}, and should be {want}; {n} questions in any order, many equally sure."
        )
    got = call([0.3, 0.3, 0.3, 0.3], [True] * 4, 0.6)
    assert got == 0.3 and isinstance(got, float), (
        "All questions are equally sure: they are answered together."
    )


hidden_24_2(threshold)
### END HIDDEN TESTS

# %% [markdown]
# ## 24.3 The search that prefers silence
#
# > ●●●○○ · 30 minutes · practice · bug hunt
#
# Somebody wrote BM25 for a small help desk, and its first hits are odd. It holds four mistakes, and one oddity that is none.


# %%
def broken_bm25(passages, question, k1, b):
    N, total = len(passages), sum(len(words) for words in passages)
    scores = []
    for words in passages:
        score = 0.0
        for w in set(question):
            n, f = sum(other.count(w) for other in passages), words.count(w)
            idf = math.log((N - n + 0.5) / (n + 0.5))
            length = len(words) / total
            score += idf * f * (k1 + 1) / (f + k1 * (1 - b) + b * length)
        scores.append(score)
    return torch.tensor(scores, dtype=torch.float64)


# %% [markdown]
# Write it right. `bm25` returns float64 (N,). `passages` is a list of lists of words, `question` a list of words.
#
# - The idf is Lucene's: $\ln\big(1 + (N - n_w + \tfrac12) / (n_w + \tfrac12)\big)$, with $n_w$ the number of *passages*
#   with the word.
# - A word that stands twice in the question counts twice. A word that no passage has counts nothing.
# - The length is that of the passage over the mean length. Passages may be empty: they score $0$. Not all of them are.
# - $k_1 \ge 0$ (it may be $0$) and $0 \le b \le 1$.


# %% nbgrader={"grade_id": "answer_24_3", "solution": true}
def bm25(passages, question, k1, b):
    """Scores of all passages, float64 (N,)."""
    ### BEGIN SOLUTION
    N, mean = len(passages), sum(len(words) for words in passages) / len(passages)
    scores = []
    for words in passages:
        score = 0.0
        for w in question:
            n, f = sum(w in other for other in passages), words.count(w)
            if f:
                idf = math.log(1 + (N - n + 0.5) / (n + 0.5))
                score += idf * f * (k1 + 1) / (f + k1 * (1 - b + b * len(words) / mean))
        scores.append(score)
    return torch.tensor(scores, dtype=torch.float64)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_24_3", "locked": true}
def bm25_as(
    passages, question, k1, b, idf="lucene", counts="passages", asked="all", length="mean", inside=True
):
    """The scores with one mistake, or with none."""
    N, total = len(passages), sum(len(words) for words in passages)
    found = []
    for words in passages:
        score = 0.0
        for w in question if asked == "all" else sorted(set(question)):
            n = sum(w in p if counts == "passages" else p.count(w) for p in passages)
            f = words.count(w)
            odds = (N - n + 0.5) / (n + 0.5)
            value = math.log(1 + odds) if idf == "lucene" else math.log(max(odds, 1e-9))
            ell = len(words) / (total / N if length == "mean" else total)
            under = f + (k1 * (1 - b + b * ell) if inside else k1 * (1 - b) + b * ell)
            score += value * f * (k1 + 1) / under if f else 0.0
        found.append(score)
    return torch.tensor(found, dtype=torch.float64)


def check_24_3(bm25):
    call = checking.calls(bm25)
    texts = "the cat sat on the mat|dogs bark at the cat and the cat runs|a dog|the the the end|cat".split(
        "|"
    )
    passages = [text.split() for text in texts]
    wrong = {
        "This idf is below 0 for a word in most passages, so silence wins. Use Lucene's.": {
            "idf": "robertson"
        },
        "n counts passages, not occurrences.": {"counts": "all"},
        "A word that the question repeats counts again.": {"asked": "once"},
        "The length is divided by the mean length, not by the length of all.": {"length": "total"},
        "A bracket: k1 multiplies 1 − b and b times the length.": {"inside": False},
    }
    for question, k1, b in (
        (["cat", "the", "cat"], 1.5, 0.75),
        (["dog", "the"], 0.5, 1.0),
        (["bark", "cat"], 4.0, 0.3),
    ):
        known = {says: bm25_as(passages, question, k1, b, **how) for says, how in wrong.items()}
        checking.equal(
            call(passages, question, k1, b), bm25_as(passages, question, k1, b), "scores", known, tol=1e-9
        )
    with checking.means(
        ZeroDivisionError, "0 is divided by 0: at k1 = 0 a word that is not there has no share."
    ):
        got = call([*passages, []], ["cat", "unicorn"], 0.0, 0.75)
    checking.equal(
        got, bm25_as([*passages, []], ["cat", "unicorn"], 0.0, 0.75), "scores", dtype=torch.float64, tol=1e-9
    )
    print("24.3 passed.")


check_24_3(bm25)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Score one passage without any word of the question, and one with a word that stands everywhere. Which is higher, and why?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The oddity: the factor $k_1 + 1$ is the same for all passages and words. What would change without it?
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 24.4 A relation has exactly one type
#
# > ●●●●○ · 60 minutes · practice
#
# A network looks at a sentence and says one bit $a$, "a relation is told here", and $K$ bits, one for each type. The rule:
# **if $a$, then exactly one type; if not $a$, then none.** Two functions.
#
# `log_holds(a, t)`: the logarithm of the probability that the rule holds, float64 (N,), for logits `a`, float64 (N,), and
# `t`, float64 (N, K), $K \ge 1$. Logits may be as large as $\pm 800$: nothing may become infinite or NaN, gradients
# included. The result has a graph.
#
# `train(x, bits, pool, seed)`: x float32 (n, d) with `bits` float32 (n, 1 + K), first $a$, then the types; `pool` float32
# (m, d), sentences without bits. Return a function from (m, d) to logits (m, 1 + K). The checker builds three worlds, with
# $30$ known sentences and $600$ in the pool, and looks at new ones, each bit decided alone at logit $0$:
#
# - at least $0.8$ of the sentences obey the rule, and at least $0.75$ have all bits right.
#
# Training on the thirty sentences alone (a linear head, until its loss is low) obeys it in fewer. Each call has twenty
# seconds.


# %% nbgrader={"grade_id": "answer_24_4", "solution": true}
def log_holds(a, t):
    """ln P(a and exactly one type, or neither), float64 (N,)."""
    ### BEGIN SOLUTION
    one = a + torch.logsumexp(t, 1)
    none = torch.zeros_like(a)
    return torch.logaddexp(one, none) - F.softplus(a) - F.softplus(t).sum(1)
    ### END SOLUTION


def train(x, bits, pool, seed):
    """Return a function from (m, d) to logits (m, 1 + K)."""
    ### BEGIN SOLUTION
    torch.manual_seed(seed)
    head = torch.nn.Linear(x.shape[1], bits.shape[1])
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(300):
        z = head(pool).double()
        loss = F.binary_cross_entropy_with_logits(head(x), bits) - 0.3 * log_holds(z[:, 0], z[:, 1:]).mean()
        loss = loss + 1e-3 * head.weight.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return lambda new: head(new).detach()
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_24_4", "locked": true}
def log_as(a, t, rule="both"):
    """By all worlds, with one mistake or with none."""
    K = t.shape[1]
    z = torch.cat([a[:, None], t], 1)
    fits = {
        "both": lambda w: sum(w[1:]) == w[0],
        "implies": lambda w: not w[0] or sum(w[1:]) == 1,
        "at least": lambda w: bool(w[0]) == (sum(w[1:]) > 0),
        "one": lambda w: sum(w[1:]) == 1,
        "at most": lambda w: sum(w[1:]) <= w[0],
    }[rule]
    worlds = torch.tensor([w for w in itertools.product((0, 1), repeat=K + 1) if fits(w)]).double()
    return torch.logsumexp(z @ worlds.T, 1) - F.softplus(z).sum(1)


def relations(seed, n=30, m=600, new=400, K=4, d=24):
    """Sentences as vectors: with no relation, or with one of K types."""
    g = torch.Generator().manual_seed(seed)
    centres = 2.6 * F.normalize(torch.randn(K + 1, d, generator=g), dim=1)
    kind = torch.cat([torch.arange(n) % (K + 1), torch.randint(K + 1, (m + new,), generator=g)])
    x = centres[kind] + 0.55 * torch.randn(n + m + new, d, generator=g)
    bits = F.one_hot(kind, K + 1).float()
    bits[:, 0] = (kind > 0).float()
    return x[:n], bits[:n], x[n : n + m], x[n + m :], bits[n + m :]


def check_24_4(log_holds, train):
    call = checking.calls(log_holds)
    wrong = {
        "Where a is false you allow any types. The rule says: none.": "implies",
        "You allow several types at once. Exactly one.": "at least",
        "You ask for exactly one type, whatever a says.": "one",
        "You allow a without any type.": "at most",
    }
    g = torch.Generator().manual_seed(3)
    for n, K in ((6, 3), (2, 1), (5, 7)):
        a, t = torch.randn(n, generator=g).double(), torch.randn(n, K, generator=g).double()
        known = {says: log_as(a, t, rule) for says, rule in wrong.items()}
        known["This is the probability. Its logarithm is asked for."] = log_as(a, t).exp()
        known["The sign is turned round: this is the loss."] = -log_as(a, t)
        checking.equal(call(a, t), log_as(a, t), "log P", known, dtype=torch.float64, tol=1e-9)
    big = torch.tensor([800.0, -800.0, 800.0, -800.0]).double()
    types = torch.tensor([[800.0, -800], [-800, -800], [-800, -800], [800, 800]]).double()
    leaf = big.clone().requires_grad_()
    got = log_holds(leaf, types)
    assert isinstance(got, torch.Tensor) and got.isfinite().all(), (
        "At logits of ±800 the result is not finite. Add logarithms."
    )
    checking.equal(got.detach(), log_as(big, types), "log P", tol=1e-9, says="At logits of ±800.")
    assert got.requires_grad, "The result has no graph: is there a detach or an item?"
    (slope,) = torch.autograd.grad(got.sum(), leaf)
    assert slope.isfinite().all(), "At logits of ±800 a gradient is NaN."
    learn = checking.calls(
        train, limit=20, slow="A linear head and a few hundred updates of the whole batch suffice."
    )
    for seed in range(3):
        x, bits, pool, new, truth = relations(seed)
        f = learn(x, bits, pool, seed)
        assert callable(f), f"Return a function from vectors to logits, not {checking.shown(f)}."
        z = checking.calls(f)(new)
        checking.form(z, truth, "logits")
        on = z > 0
        obeys = (on[:, 1:].sum(1) == on[:, 0]).double().mean().item()
        all_right = (on == (truth > 0)).all(1).double().mean().item()
        told = f"World {seed}: {obeys:.2f} obey the rule, {all_right:.2f} have all bits right."
        assert not (obeys > 0.95 and all_right < 0.4), (
            f"{told} A head that says the same to everybody obeys, too."
        )
        assert obeys >= 0.8, f"{told} What would the {len(pool)} sentences without bits say to your loss?"
        assert all_right >= 0.75, f"{told} The rule is obeyed, but by the wrong worlds. Is it too heavy?"
    print("24.4 passed.")


check_24_4(log_holds, train)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Take $\prod (1 + e^{z_i})$ out. What is left of the allowed worlds is $1$ (nothing is on) and one term for each type.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Known sentences say which world; the pool says only that it is one of the allowed ones. Weigh the second below the first.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 24.5 Project: a search of your own that may keep silent
#
# > ●●●●● · 120 minutes · practice · prediction
#
# Take a text that you know well: a manual, a recipe book, your thesis. Cut it into passages, write questions, among them some
# that it does **not** answer, and predict how good a search will be before you look at the test questions. `project()`
# returns a dict with exactly these keys:
#
# - `passages`: at least twelve different texts. `dev`, `test`: lists of pairs `(question, place)`, at least twelve in
#   `dev` and sixteen in `test`; `place` is the number of the passage that answers, or `None`. In each list at least a
#   quarter and at most three quarters are `None`. No question stands twice, and none stands word for word in a passage.
# - `search`: a function from a question and the list of passages to a list of scores, one a passage, finite numbers. It
#   may not look at the answers.
# - `threshold`: a number. The system answers with the best passage (of equals the first) where its score is at least this.
# - `price`: what a wrong answer costs, if a silence where there *is* an answer costs $1$; above $0$.
# - `predicted`: the share of test questions that you expected to be treated rightly, from $0$ to $1$, written down before.
# - `coverage`, `risk`: on the test questions, the share that is answered, and the share of wrong ones among them ($0$ where
#   none is answered), within $0.001$ of what the checker computes.
# - `interval`: the $95$ % Wilson interval of `risk` as a pair, within $0.001$; `(0, 1)` where nothing is answered.
# - `recall`: of the test questions that have an answer, the share whose passage is the best, whatever the threshold.
# - `verdict`: `"within"` if the Wilson interval of the share that was treated rightly holds `predicted`, else `"outside"`.
#
# **Rightly** treated: the right passage, or silence where there is none. A wrong answer: any other passage, or any passage
# where there is none. **The threshold** must be as good as any on *dev*: the checker computes `price` × wrong answers +
# silences where there is an answer, for your threshold and for every score that occurs as a best score on dev, and for
# silence throughout.
#
# The checker reads the arithmetic. A person reads the rest, with this rubric (0, 1 or 2 points a row; 7 of 10 pass):
#
# | | 0 | 1 | 2 |
# |:--|:--|:--|:--|
# | text | copied from the lesson | of your own | and the passages stand alone |
# | questions | share the passage's words | some do not | most do not, and somebody else wrote the test |
# | unanswerable | nonsense | off the subject | near misses: the right subject, no answer |
# | price | a habit | a reason | what a wrong answer costs the user is compared with silence |
# | prediction | none, or written afterwards | a number | a number with a reason, and what its failure would teach |


# %% nbgrader={"grade_id": "answer_24_5", "solution": true}
def project():
    """Return a dict with the keys of the list."""
    ### BEGIN SOLUTION
    subjects = "tea bread soup rice beans fish eggs cheese apples plums honey salt".split()
    passages = [
        f"Keep the {word} in box {n} and warm it for {n + 3} minutes." for n, word in enumerate(subjects)
    ]

    def search(question, passages):
        words = question.lower().replace("?", "").split()
        return [float(sum(w in text.lower().replace(".", "").split() for w in words)) for text in passages]

    def asked(form, known, unknown):
        found = [(form.format(subjects[n]), n) for n in known]
        return found + [(form.format(word), None) for word in unknown]

    dev = asked("How long must {} cook?", range(8), "lentils pears onions leeks".split())
    test = asked("Where do I find {} at home?", range(2, 12), "garlic ginger pepper chives mint sage".split())
    threshold, price = 1.0, 2.0
    best = [(max(search(q, passages)), place) for q, place in test]
    answered = sum(score >= threshold for score, _ in best)
    interval = intervals.wilson_interval(0, answered)
    return {
        "passages": passages, "dev": dev, "test": test, "search": search, "threshold": threshold, "price": price,
        "predicted": 0.9, "coverage": answered / len(test), "risk": 0.0, "interval": (interval.low, interval.high),
        "recall": 1.0, "verdict": "within",
    }  # fmt: skip
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_24_5", "locked": true}
KEYS = "passages dev test search threshold price predicted coverage risk interval recall verdict".split()


def number_of(value, name, low=-math.inf, high=math.inf):
    checking.form(value, 0.0, name)
    assert not isinstance(value, bool) and math.isfinite(value), (
        f"{name}: a finite number expected, not {value!r}."
    )
    assert low <= value <= high, f"{name}: from {low} to {high}, not {value!r}."
    return float(value)


def questions_of(pairs, name, least, passages):
    assert isinstance(pairs, list) and len(pairs) >= least, f"{name}: a list of at least {least} pairs."
    for pair in pairs:
        assert isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str), (
            f"{name}: {pair!r} is no pair."
        )
        known = pair[1] is None or (type(pair[1]) is int and 0 <= pair[1] < len(passages))
        assert known, f"{name}: {pair[1]!r} is no number of a passage, and not None."
        assert not any(pair[0].lower() in text.lower() for text in passages), (
            f"{name}: {pair[0]!r} stands in a passage word for word. That is a leak, no search."
        )
    silent = sum(place is None for _, place in pairs) / len(pairs)
    assert 0.25 <= silent <= 0.75, (
        f"{name}: {silent:.2f} of the questions have no answer; a quarter to three quarters."
    )
    return pairs


def treated(pairs, search, passages):
    """For each question: its best score, whether that passage is right, and whether there is an answer."""
    found = []
    for question, place in pairs:
        scores = search(question, list(passages))
        assert isinstance(scores, list) and len(scores) == len(passages), (
            "search: one score a passage, as a list."
        )
        values = [number_of(score, "a score") for score in scores]
        best = values.index(max(values))
        found.append((values[best], best == place, place is not None))
    return found


def check_24_5(project):
    mine = checking.handed_in(project, KEYS)
    passages = mine["passages"]
    assert isinstance(passages, list) and len(set(passages)) == len(passages) >= 12, (
        "passages: twelve different ones."
    )
    dev = questions_of(mine["dev"], "dev", 12, passages)
    test = questions_of(mine["test"], "test", 16, passages)
    names = [question for question, _ in dev + test]
    assert len(set(names)) == len(names), (
        "A question stands twice. One that chose the threshold cannot test it."
    )
    search = checking.calls(mine["search"])
    t, price = number_of(mine["threshold"], "threshold"), number_of(mine["price"], "price", 1e-9)
    predicted = number_of(mine["predicted"], "predicted", 0, 1)

    def cost(t):
        wrong = sum(score >= t and not ok for score, ok, _ in on_dev)
        return price * wrong + sum(score < t and there for score, _, there in on_dev)

    on_dev, on_test = treated(dev, search, passages), treated(test, search, passages)
    least = min(cost(each) for each in [*(score for score, _, _ in on_dev), math.inf])
    assert cost(t) <= least + 1e-9, (
        f"threshold: it costs {cost(t):g} on dev, another one {least:g}. Choose it on dev."
    )
    answered = [ok for score, ok, _ in on_test if score >= t]
    wrong, n = answered.count(False), len(answered)
    share = wrong / n if n else 0.0
    known = {
        "risk: wrong answers are counted among the answered questions, not among all.": wrong / len(test),
        "risk: this is the share of right answers.": 1 - share,
    }
    risk = number_of(mine["risk"], "risk", 0, 1)
    for says, value in known.items():
        assert not abs(risk - value) <= 0.001 < abs(share - value), says
    assert abs(risk - share) <= 0.001, f"risk: {share:.3f} expected, not {risk:.3f}."
    coverage = number_of(mine["coverage"], "coverage", 0, 1)
    assert abs(coverage - n / len(test)) <= 0.001, (
        f"coverage: {n / len(test):.3f} expected, not {coverage:.3f}."
    )
    around = intervals.wilson_interval(wrong, n) if n else None
    want = (around.low, around.high) if around else (0.0, 1.0)
    checking.form(list(mine["interval"]), [0.0, 0.0], "interval")
    apart = max(abs(a - b) for a, b in zip(mine["interval"], want, strict=True))
    assert apart <= 0.001, (
        f"interval: ({want[0]:.3f}, {want[1]:.3f}) expected. It is Wilson's, of the answered questions."
    )
    there = [ok for _, ok, answerable in on_test if answerable]
    recall = number_of(mine["recall"], "recall", 0, 1)
    assert abs(recall - sum(there) / len(there)) <= 0.001, (
        f"recall: {sum(there) / len(there):.3f} expected, not {recall:.3f}: of those with an answer, whatever the threshold."
    )
    rightly = sum(ok if score >= t else not answerable for score, ok, answerable in on_test)
    both = intervals.wilson_interval(rightly, len(test))
    inside = "within" if both.low <= predicted <= both.high else "outside"
    assert mine["verdict"] == inside, (
        f"verdict: {inside!r} expected. {rightly} of {len(test)} were treated rightly: [{both.low:.3f}, {both.high:.3f}]."
    )
    print("24.5 passed: the arithmetic holds. Now the rubric.")


check_24_5(project)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Begin with BM25. Its scores grow with the number of words in the question: is one threshold right for long and short ones?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Near misses are what hurts. Which number tells a passage that answers from one that is only about the same subject?
#
# </details>
#
# {{solution}}
