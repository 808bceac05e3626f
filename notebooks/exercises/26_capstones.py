# ---
# jupyter:
#   instructlab:
#     id: "26"
#     title: Capstones and the ledger
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 26: capstones and the ledger
#
# Each exercise is a box, a cell for your answer, and a checker in the cell below it. Replace the line that
# raises `NotImplementedError`, then run both cells. A checker that says no also says what probably went
# wrong.
#
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases
# that you do not see here, so test more than the checker does. The page needs no network and no file. Exercise 26.4
# trains towers in three worlds: its checker takes some seconds. Exercise 26.5 is a project.
#
# {{overview}}

# %%
import math

import torch
from torch.nn import functional as F

from instructlab_utils import checking, intervals

# %% [markdown]
# ## 26.1 What equal scores are worth
#
# > ●●○○○ · 20 minutes · graded
#
# A recommender gives each title a score. The **reciprocal rank** of the right title at place $r$ (from $1$) is $1 / r$.
# Where titles have *equal* scores, take the mean of it over all orders of the equal ones.
#
# `reciprocal(scores, right)` gets a list of numbers and the number of the right title in it (from $0$). Return that mean, a
# float. Scores are equal if they are `==`.
#
# - A score that is NaN has no place: raise `ValueError`. Infinite scores are allowed.
# - The list may have thousands of titles: do not go through the orders one by one.


# %% nbgrader={"grade_id": "answer_26_1", "solution": true}
def reciprocal(scores, right):
    """Mean of 1 / place of the right title over all orders of equal scores."""
    ### BEGIN SOLUTION
    if any(score != score for score in scores):
        raise ValueError("a score is NaN")
    above = sum(score > scores[right] for score in scores)
    equal = sum(score == scores[right] for score in scores)
    return sum(1 / place for place in range(above + 1, above + equal + 1)) / equal
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_26_1", "grade": true, "points": 2, "locked": true}
def reciprocal_as(scores, right, how="mean"):
    """The mean with one mistake, or with none."""
    above = sum(score > scores[right] for score in scores)
    equal = sum(score == scores[right] for score in scores)
    earlier = sum(score == scores[right] for score in scores[:right])
    return {
        "mean": sum(1 / place for place in range(above + 1, above + equal + 1)) / equal,
        "best": 1 / (above + 1),
        "worst": 1 / (above + equal),
        "middle": 1 / (above + (equal + 1) / 2),
        "order": 1 / (above + earlier + 1),
        "zero": sum(1 / place for place in range(above + 1, above + equal)) / max(1, equal - 1),
    }[how]


def check_26_1(reciprocal):
    call = checking.calls(reciprocal)
    wrong = {
        "You give the right title the best place of its equals. So a recommender that knows nothing wins.": "best",
        "You give the right title the worst place among its equals.": "worst",
        "You take 1 / (the mean place). The mean of 1 / place is more: 1 / place is convex.": "middle",
        "You let the order of the list decide among equals.": "order",
        "The right title is one of its equals, too: you count them without it.": "zero",
    }
    for scores, right in (
        ([3.0, 1.0, 1.0, 1.0, 1.0, 0.0], 2),
        ([0.5] * 4, 2),
        ([2.0, 2.0, 1.0, 5.0, 1.0, 1.0, 1.0], 4),
    ):
        known = {says: reciprocal_as(scores, right, how) for says, how in wrong.items()}
        checking.equal(call(scores, right), reciprocal_as(scores, right), "the mean", known)
    checking.equal(call([4.0, 2.0, 3.0], 1), 1 / 3, "the mean", says="Without equals it is 1 / place.")
    call.refuses(ValueError, [1.0, math.nan], 0, says="A NaN is larger than nothing and equal to nothing.")
    print("26.1 passed the visible cases.")


check_26_1(reciprocal)
### BEGIN HIDDEN TESTS


def hidden_26_1(reciprocal):
    call = checking.calls(reciprocal, limit=3.0, slow="Do not go through the orders.")
    scores = [float(i % 7) for i in range(4000)]
    checking.equal(call(scores, 17), reciprocal_as(scores, 17), "the mean", says="Thousands of titles.")
    many = [-math.inf, 2.0, -math.inf, math.inf]
    checking.equal(call(many, 2), (1 / 3 + 1 / 4) / 2, "the mean", says="Infinite scores can be equal.")
    checking.equal(call([0.0], 0), 1.0, "the mean", says="One title stands first.")


hidden_26_1(reciprocal)
### END HIDDEN TESTS

# %% [markdown]
# ## 26.2 The price of a verdict
#
# > ●●○○○ · 25 minutes · graded
#
# A ledger has an interval $[l, u]$ around the mean $(l + u) / 2$, from `n` seeds. The claim says *above* a threshold. If
# the mean stays where it is, the half-width shrinks with the root of the number of seeds. How many seeds in **all** does
# it take until the interval lies wholly on one side of the threshold, on either? It may touch it.
#
# `price(low, high, threshold, n)` returns that number, an `int`, the smallest one, and never less than `n`: what is decided
# already costs nothing more. Return `None` where no number will do. Numbers that differ by less than $10^{-9}$ are equal:
# $64.0000000001$ seeds are $64$.
#
# - `low > high`, or `n` below $2$: raise `ValueError`.


# %% nbgrader={"grade_id": "answer_26_2", "solution": true}
def price(low, high, threshold, n):
    """Seeds in all until the interval is decided, or None."""
    ### BEGIN SOLUTION
    if low > high or n < 2:
        raise ValueError("an interval from low to high, and two seeds or more")
    distance, half = abs((low + high) / 2 - threshold), (high - low) / 2
    if distance < 1e-9:
        return None if half > 1e-9 else n
    return max(n, math.ceil(n * (half / distance) ** 2 - 1e-9))
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_26_2", "grade": true, "points": 2, "locked": true}
def price_as(low, high, threshold, n, power=2, whole=False, more=False, free=True, zero=False, down=False):
    """The price with one mistake, or with none."""
    mean, half = (low + high) / 2, ((high - low) if whole else (high - low) / 2)
    distance = abs(mean - (0.0 if zero else threshold))
    if distance < 1e-9:
        return None
    total = n * (half / distance) ** power
    total = math.floor(total) if down else math.ceil(total - 1e-9)
    total = max(n, total) if free else total
    return total - n if more else total


def check_26_2(price):
    call = checking.calls(price, none=True)
    wrong = {
        "The half-width falls with the root of the number of seeds: the ratio is squared.": {"power": 1},
        "You take the whole width. From mean to end it is the half.": {"whole": True},
        "You return how many seeds are missing. Asked is how many in all.": {"more": True},
        "What is decided already costs nothing more, and n seeds are there: never less than n.": {
            "free": False
        },
        "You measure the distance to 0, not to the threshold.": {"zero": True},
        "You round down: with one seed less the interval still holds the threshold.": {"down": True},
    }
    cases = ((-0.01, 0.05, 0.0, 10), (-0.24, 0.03, -0.02, 5), (0.1, 0.3, 0.0, 8), (-0.3, 0.1, 0.03, 7))
    for case in cases:
        known = {says: price_as(*case, **how) for says, how in wrong.items()}
        got = call(*case)
        assert got is not None, f"{case}: None, though a number of seeds will do here. Did you forget return?"
        checking.equal(got, price_as(*case), "seeds", known)
        assert type(got) is int, f"An int, not {type(got).__name__}: there are no broken seeds."
    with checking.means(
        ZeroDivisionError, "The mean may lie at the threshold: then no number will do, None."
    ):
        got = call(-0.2, 0.2, 0.0, 10)
    assert got is None, (
        "The mean lies at the threshold. The interval shrinks around it for ever: return None."
    )
    call.refuses(ValueError, 0.2, 0.1, 0.0, 10, says="This interval ends before it begins.")
    print("26.2 passed the visible cases.")


check_26_2(price)
### BEGIN HIDDEN TESTS


def hidden_26_2(price):
    call = checking.calls(price, none=True)
    assert call(-0.3, 0.5, 0.0, 4) == 64, "64.0000000001 seeds are 64."
    assert call(0.1, 0.3, 0.3, 16) == 16, "The interval touches the threshold: that is allowed."
    for case in ((0.0, 0.4, -0.1, 12), (-0.6, 0.2, 0.1, 16), (0.5, 1.5, 1.3, 9), (-2.0, -1.0, 0.0, 6)):
        checking.equal(call(*case), price_as(*case), "seeds", says="Other sides, other thresholds.")
    call.refuses(ValueError, 0.1, 0.2, 0.0, 1, says="One seed has no interval.")


hidden_26_2(price)
### END HIDDEN TESTS

# %% [markdown]
# ## 26.3 The recommender that is always right
#
# > ●●●○○ · 40 minutes · practice · bug hunt
#
# Somebody measured a recommender, and it was wonderful. The evaluation below holds four mistakes, and one habit that is
# none.


# %%
def broken_hits(lists, k):
    titles = {title for each in lists for title in each}
    found = asked = 0
    for own in lists:
        for right in own:
            history = [title for title in own if title != right]
            together = {t: sum(t in each and h in each for each in lists for h in history) for t in titles}
            above = sum(together[t] > together[right] for t in titles)
            if together[right]:
                asked += 1
                found += above < k
    return found / asked


# %% [markdown]
# Write it right. `hits(lists, k)` gets lists of different titles (strings) and returns the mean over all questions, a
# float:
#
# - Each title of each list is asked for once; the others of the list are the *history*. A list with one title asks nothing.
# - A title's score: over the titles of the history, the number of **other** lists that hold both, added up. A list with
#   the same titles as the question's own, in whatever order, is a copy: it is not counted for that question.
# - On offer are all titles of all lists, without those of the history.
# - A question is worth the chance that the right title is among the first `k`, over all orders of equal scores.
# - `k` is at least $1$. Where nothing is asked raise `ValueError`.


# %% nbgrader={"grade_id": "answer_26_3", "solution": true}
def hits(lists, k):
    """The mean chance that the hidden title is among the first k."""
    ### BEGIN SOLUTION
    sets = [frozenset(each) for each in lists]
    titles, worth = frozenset().union(*sets), []
    for own in sets:
        others = [each for each in sets if each != own]
        for right in own if len(own) > 1 else ():
            history = own - {right}
            score = {t: sum(len(history & each) for each in others if t in each) for t in titles - history}
            above = sum(value > score[right] for value in score.values())
            equal = sum(value == score[right] for value in score.values())
            worth.append(min(max(k - above, 0), equal) / equal)
    if not worth:
        raise ValueError("nothing is asked")
    return sum(worth) / len(worth)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_26_3", "locked": true}
def hits_as(lists, k, own_row=False, copies=False, offered=False, ties="mean", only_known=False):
    """The mean with some mistakes, or with none."""
    sets = [frozenset(each) for each in lists]
    titles, worth = frozenset().union(*sets), []
    for place, own in enumerate(sets):
        kept = [e for i, e in enumerate(sets) if (own_row or i != place) and (copies or own_row or e != own)]
        for right in own if len(own) > 1 else ():
            history = own - {right}
            on_offer = titles if offered else titles - history
            score = {t: sum(len(history & each) for each in kept if t in each) for t in on_offer}
            above = sum(value > score[right] for value in score.values())
            equal = sum(value == score[right] for value in score.values())
            if only_known and not score[right]:
                continue
            worth.append(float(above < k) if ties == "best" else min(max(k - above, 0), equal) / equal)
    return sum(worth) / max(1, len(worth))


SHELF = [each.split() for each in (
    "a b c d", "d c b a", "a b e", "c d f", "e f g", "a g", "b c h", "h i", "i j k", "j k a", "l", "d e a", "e d a",
)]  # fmt: skip


def check_26_3(hits):
    call = checking.calls(hits)
    wrong = {
        "The question's own list is counted: in it the answer stands beside its history.": {"own_row": True},
        "A copy of the list is counted: it holds the answer, too.": {"copies": True},
        "Titles of the history are on offer. Nobody needs them, and they take the first places.": {
            "offered": True
        },
        "Among equals the right title gets the best place.": {"ties": "best"},
        "Titles that nothing is known of are left out. They are the hard questions.": {"only_known": True},
    }
    for lists, k in ((SHELF, 1), (SHELF, 2), (SHELF[2:], 3), (SHELF[:7], 1)):
        known = {says: hits_as(lists, k, **how) for says, how in wrong.items()}
        checking.equal(call(lists, k), hits_as(lists, k), "the mean", known)
    call.refuses(ValueError, [["a"], ["b"]], 1, says="Lists with one title ask nothing.")
    print("26.3 passed.")


check_26_3(hits)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Give it lists in which no title stands twice. Nothing can be known then. What does the broken one say?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The habit that is none: asking for *every* title of a list in turn, and not only for the last. What would speak against
# it if the lists had an order in time?
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 26.4 Towers for films that nobody has liked
#
# > ●●●●○ · 60 minutes · practice
#
# Sixty films have vectors of sixteen numbers, "from their texts". What people like hangs on some directions of these
# vectors, and the loudest directions are not among them. Twelve films are *cold*: they stand in no list. *What is liked
# together teaches which directions count, also for films that nobody has liked.*
#
# `train(vectors, lists, seed)` gets float32 (60, 16) and the lists, int64 (n, 5), each row five different films that
# somebody liked. Return a function from histories, int64 (m, 5), to scores (m, 60), the larger the better. The checker
# builds three worlds, calls it once in each, and asks for cold films among the cold ones:
#
# - in the mean of the three worlds the right film is among the first three of twelve in at least $0.6$ of the questions.
#
# The cosine of the mean vector finds it in less than half. Each call has twenty seconds.


# %% nbgrader={"grade_id": "answer_26_4", "solution": true}
def train(vectors, lists, seed):
    """Return a function from histories (m, 5) to scores (m, 60)."""
    ### BEGIN SOLUTION
    torch.manual_seed(seed)
    net = torch.nn.Linear(vectors.shape[1], 8, bias=False)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    liked = torch.zeros(len(vectors), dtype=torch.bool)
    liked[lists.reshape(-1)] = True
    for step in range(300):
        t, out = step % lists.shape[1], net(vectors)
        rest = torch.cat([lists[:, :t], lists[:, t + 1 :]], 1)
        scores = (out[rest].mean(1) @ out.T).masked_fill(~liked, -1e9).scatter(1, rest, -1e9)
        loss = F.cross_entropy(scores, lists[:, t]) + 1e-3 * net.weight.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    out = net(vectors).detach()
    return lambda histories: out[histories].mean(1) @ out.T
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_26_4", "locked": true}
def world(seed, films=60, size=16, people=600, asked=300):
    """Vectors, lists of films with likes, the cold films, histories, and the cold film of each."""
    g = torch.Generator().manual_seed(seed)
    taste, noise = torch.randn(films, 4, generator=g), torch.randn(films, size - 4, generator=g)
    turn = torch.linalg.qr(torch.randn(size, size, generator=g)).Q
    cold = torch.randperm(films, generator=g)[:12]
    warm = torch.ones(films)
    warm[cold] = 0

    def wishes(n):
        return (1.5 * torch.randn(n, 4, generator=g) @ taste.T).softmax(1)

    lists = torch.multinomial(wishes(people) * warm, 5, generator=g)
    wanted = wishes(asked)
    histories = torch.multinomial(wanted * warm, 5, generator=g)
    right = torch.multinomial(wanted[:, cold], 1, generator=g)[:, 0]
    return torch.cat([0.5 * taste, 1.5 * noise], 1) @ turn, lists, cold, histories, right


def check_26_4(train):
    call = checking.calls(train, limit=20.0, slow="Use fewer steps, or all lists at once.")
    shares = []
    for seed in (1, 2, 3):
        vectors, lists, cold, histories, right = world(seed)
        score = call(vectors, lists, seed)
        assert callable(score), f"train returns a function, not {type(score).__name__}."
        found = checking.calls(score)(histories)
        checking.form(found, torch.zeros(len(histories), len(vectors)), "scores")
        assert found.isfinite().all(), "A score is not finite."
        among = found[:, cold].double()
        own = among.gather(1, right[:, None])
        above, equal = (among > own).sum(1), (among == own).sum(1)
        assert (equal < 12).any(), (
            "All cold films have the same score. Films without likes need their vectors: learn a map of those, not a "
            "vector for each film."
        )
        shares.append(((3 - above).clamp(min=0).minimum(equal) / equal).mean().item())
    mean = sum(shares) / len(shares)
    unit = F.normalize(vectors, dim=1)
    frozen = F.normalize(vectors[histories].mean(1), dim=1) @ unit[cold].T
    alike = torch.corrcoef(torch.stack([frozen.flatten().double(), among.flatten()]))[0, 1].item()
    said = f"The right cold film is among the first three in {mean:.2f}; 0.6 is asked."
    assert mean >= 0.6 or alike < 0.8, (
        f"{said} Your scores are nearly the cosines of the vectors. The loud directions still decide: train on the lists."
    )
    assert mean >= 0.6, (
        f"{said} What is liked together must come out near each other, and what is not must not."
    )
    print(f"26.4 passed: {mean:.2f} among the first three.")


check_26_4(train)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# One linear map for both towers. Hide one film of each list, and let a softmax over the films with likes choose it.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The cold films stand in no list. If they are in the softmax's sum, what does the loss teach about them?
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 26.5 Project: a claim that can lose
#
# > ●●●●● · 150 minutes · practice · prediction
#
# Take a sentence about language models, software or learning that promises something: from an advertisement, an article, a
# talk. Turn it into a claim that a run can contradict, write down what you expect, run it, and accept the verdict.
# `project()` returns a dict with exactly these keys:
#
# - `sentence`: what was promised, word for word. `claim`: what you test. `forbids`: the outcome that would contradict it.
#   Texts of $30$ characters or more, all different.
# - `measure`: a function from a seed to a finite number, the same for the same seed: claimed method minus baseline, on
#   that seed's own data. `control`: the same where the claimed method *cannot* be better, for example with shuffled labels.
# - `seeds`: at least ten different whole numbers.
# - `threshold`: the claim says that the mean of `measure` is **above** it. `smallest`: the smallest effect that would
#   matter, above $0$: an effect within `smallest` of the threshold, on either side, is too small.
# - `predicted`: `"supported"`, `"refuted"` or `"undecided"`, written down before.
# - `interval`: the $95$ % t interval of the mean of `measure` over the seeds, a pair, within $10^{-6}$.
# - `verdict`: *supported* if the interval lies wholly above the threshold; else *refuted* if it lies wholly below the
#   threshold, or wholly within the effects that are too small; else *undecided*.
# - `seeds_needed`: how many seeds in all would decide an open interval if the mean stays (exercise 26.2; for one that is
#   decided, or that *no* number will decide, the number of seeds that you have).
#
# The control's interval over the same seeds must hold $0$: if it does not, your measurement finds what is not there.
# All calls together have thirty seconds.
#
# The checker reads the arithmetic. A person reads the rest, with this rubric (0, 1 or 2 points a row; 7 of 10 pass):
#
# | | 0 | 1 | 2 |
# |:--|:--|:--|:--|
# | sentence | nobody said it | found, with its source | found, and people act on it |
# | claim | means something else | means a part of it | means it, and says what was run: sizes, data, method |
# | forbids | nothing | "no difference" | an outcome that somebody expects |
# | baseline and control | none that could win | a fair one | tuned as much as the claimed method; a control that could fail |
# | verdict | defended | reported | reported, with what would change your mind and its price |


# %% nbgrader={"grade_id": "answer_26_5", "solution": true}
def project():
    """Return a dict with the keys of the list."""

    ### BEGIN SOLUTION
    def accuracy(seed, told):
        g = torch.Generator().manual_seed(seed)
        y = torch.randint(2, (260,), generator=g)
        x = torch.randn(260, 20, generator=g) + 0.35 * (2 * y[:, None] - 1) * told
        means = torch.stack([x[:60][y[:60] == k].mean(0) for k in (0, 1)])
        return (torch.cdist(x[60:], means).argmin(1) == y[60:]).double().mean().item()

    def measure(seed):
        few = torch.zeros(20)
        few[:5] = 1
        return accuracy(seed, torch.ones(20)) - accuracy(seed, few)

    def control(seed):
        return accuracy(seed, torch.zeros(20)) - accuracy(seed + 1000, torch.zeros(20))

    seeds = tuple(range(12))
    found = intervals.t_interval([measure(seed) for seed in seeds])
    return {
        "sentence": "The more you know about your customers, the better you predict what they do.",
        "claim": "A nearest-mean rule from 60 people is more accurate with 20 telling features than with 5.",
        "forbids": "Fifteen more features, each as telling as the first five, leave the accuracy where it was.",
        "measure": measure, "control": control, "seeds": seeds, "threshold": 0.0, "smallest": 0.02,
        "predicted": "supported", "interval": (found.low, found.high), "verdict": "supported", "seeds_needed": 12,
    }  # fmt: skip
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_26_5", "locked": true}
KEYS = (
    "sentence claim forbids measure control seeds threshold smallest predicted interval verdict seeds_needed"
)


def number_of(value, name):
    checking.form(value, 0.0, name)
    assert not isinstance(value, bool) and math.isfinite(value), f"{name}: a finite number, not {value!r}."
    return float(value)


def measured(function, seeds, name):
    call = checking.calls(function, limit=30.0)
    found = [number_of(call(seed), f"{name}({seed})") for seed in seeds]
    again = number_of(call(seeds[0]), name)
    assert again == found[0], (
        f"{name}: the same seed gives {found[0]:.6f} and then {again:.6f}. Seed everything."
    )
    return found


def decided(low, high, threshold, smallest):
    if low > threshold:
        return "supported"
    small = threshold - smallest < low and high < threshold + smallest
    return "refuted" if high < threshold or small else "undecided"


def check_26_5(project):
    mine = checking.calls(project, limit=30.0)()
    assert isinstance(mine, dict) and set(mine) == set(KEYS.split()), (
        f"Return a dict with the keys {KEYS.replace(' ', ', ')}."
    )
    texts = [mine[name] for name in ("sentence", "claim", "forbids")]
    assert all(isinstance(text, str) and len(text.strip()) >= 30 for text in texts), (
        "sentence, claim and forbids: texts of 30 characters or more."
    )
    assert len({text.strip().lower() for text in texts}) == 3, (
        "sentence, claim and forbids say the same. What was promised is rarely what can be tested."
    )
    seeds = mine["seeds"]
    assert isinstance(seeds, tuple | list) and all(type(seed) is int for seed in seeds), (
        "seeds: whole numbers."
    )
    assert len(set(seeds)) == len(seeds) >= 10, "seeds: ten different ones at least."
    threshold, smallest = number_of(mine["threshold"], "threshold"), number_of(mine["smallest"], "smallest")
    assert smallest > 0, (
        "smallest: above 0. An effect of any size would matter? Then nothing can be refuted by being small."
    )
    values, without = measured(mine["measure"], seeds, "measure"), measured(mine["control"], seeds, "control")
    assert len(set(values)) > 1, (
        "measure gives the same for every seed: nothing varies, so no interval says anything."
    )
    assert len(set(without)) > 1, "control gives the same for every seed: a control that cannot fail is none."
    empty = intervals.t_interval(without)
    assert empty.low <= 0 <= empty.high, (
        f"The control's interval is [{empty.low:.3f}, {empty.high:.3f}]: it finds an effect where none can be."
    )
    want = intervals.t_interval(values)
    checking.form(list(mine["interval"]), [0.0, 0.0], "interval")
    apart = max(abs(a - b) for a, b in zip(mine["interval"], (want.low, want.high), strict=True))
    spread = torch.tensor(values, dtype=torch.float64).std().item()
    assert not abs(mine["interval"][1] - mine["interval"][0] - 2 * spread) < 1e-4 < apart, (
        "interval: mean and standard deviation tell how seeds differ, not where the mean lies."
    )
    assert apart <= 1e-6, f"interval: ({want.low:.6f}, {want.high:.6f}) expected, the t interval of the mean."
    words = ("supported", "refuted", "undecided")
    assert mine["predicted"] in words, f"predicted: one of {', '.join(words)}."
    right = decided(want.low, want.high, threshold, smallest)
    assert mine["verdict"] == right, (
        f"verdict: {right!r} expected for [{want.low:.3f}, {want.high:.3f}] and the threshold {threshold:g}. "
        "What you hoped for is the key predicted."
    )
    n, needed = len(seeds), len(seeds)
    distance, half = abs((want.low + want.high) / 2 - threshold), (want.high - want.low) / 2
    if right == "undecided" and distance > 1e-9:
        needed = max(n, math.ceil(n * (half / distance) ** 2 - 1e-9))
    assert mine["seeds_needed"] == needed, (
        f"seeds_needed: {needed} expected, {n} times the square of {half:.4f} / {distance:.4f} where it is open."
    )
    print("26.5 passed: the arithmetic holds. Now the rubric.")


check_26_5(project)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Begin with *forbids*. If you find nothing that the sentence forbids, look for the smallest change of words that makes
# it forbid something.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# A good control breaks the link and leaves all else: shuffled labels, the claimed method twice, vectors dealt blindly.
#
# </details>
#
# {{solution}}
