# ---
# jupyter:
#   instructlab:
#     id: "25"
#     title: Compression and deployment
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 25: compression and deployment
#
# Each exercise is a box, a cell for your answer, and a checker in the cell below it. Replace the line that
# raises `NotImplementedError`, then run both cells. A checker that says no also says what probably went
# wrong.
#
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases
# that you do not see here, so test more than the checker does. The page needs no network and no file.
#
# {{overview}}

# %%
import contextlib
import functools
import io
import math
import pathlib
import sqlite3
import tempfile
import uuid

import torch
from starlette.testclient import TestClient
from torch.nn import functional as F

from instructlab_apps.service import desk, engines, http, serving
from instructlab_utils import checking, intervals

# %% [markdown]
# ## 25.1 Four bits in groups
#
# > ●●○○○ · 20 minutes · graded
#
# Small files use few bits and many scales. `four_bits(w, group)` gets a floating tensor of shape $(R, C)$ and quantises it by
# absmax with codes from $-7$ to $7$: each **row** is cut into runs of `group` neighbours, and each run has its own scale,
# its largest absolute value over $7$. Round to the nearest code (`torch.round`), and return the values that the codes stand
# for, in the shape and dtype of `w`.
#
# - A run of zeros stays zeros. `w` itself is not changed.
# - `ValueError` where `group` is below $1$ or does not divide $C$.


# %% nbgrader={"grade_id": "answer_25_1", "solution": true}
def four_bits(w, group):
    """(R, C) floating → the same, rounded in runs of `group`."""
    ### BEGIN SOLUTION
    if group < 1 or w.shape[1] % group:
        raise ValueError(f"runs of {group} do not fill rows of {w.shape[1]}")
    runs = w.reshape(w.shape[0], -1, group)
    scale = runs.abs().amax(-1, keepdim=True) / 7
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return ((runs / scale).round() * scale).reshape(w.shape)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_25_1", "grade": true, "points": 2, "locked": true}
def rounded_as(w, group, most=7, along="row", cut=False):
    """The rounding with one mistake, or with none."""
    if along == "column":
        return rounded_as(w.T.contiguous(), group, most, cut=cut).T if w.shape[0] % group == 0 else w * 2
    runs = w.reshape(w.shape[0], -1, group) if along == "row" else w[:, None]
    scale = runs.abs().amax(-1, keepdim=True) / most
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    codes = (runs / scale).trunc() if cut else (runs / scale).round()
    return (codes * scale).reshape(w.shape)


def check_25_1(four_bits):
    call = checking.calls(four_bits)
    wrong = {
        "Codes go to 7, so the scale is the largest over 7. You divide by 8.": {"most": 8},
        "You divide by 15: that is the number of codes, not the largest one.": {"most": 15},
        "One scale for each run. You use one for each row.": {"along": "whole"},
        "A run lies in a row. Yours run down the columns.": {"along": "column"},
        "You cut the fraction off. The nearest code is meant.": {"cut": True},
    }
    g = torch.Generator().manual_seed(0)
    for shape, group in (((4, 8), 4), ((2, 6), 2), ((4, 12), 4)):
        w = torch.randn(shape, generator=g, dtype=torch.float64) * torch.arange(1, shape[1] + 1)
        before = w.clone()
        known = {says: rounded_as(w, group, **how) for says, how in wrong.items()}
        checking.equal(call(w, group), rounded_as(w, group), "values", known, tol=1e-6)
        assert torch.equal(w, before), "w itself was changed."
    with_zeros = torch.zeros(2, 4, dtype=torch.float64)
    with_zeros[0, 2:] = torch.tensor([1.0, -7.0], dtype=torch.float64)
    checking.equal(call(with_zeros, 2), with_zeros, "values", says="A run of zeros stays zeros.", tol=1e-6)
    call.refuses(ValueError, torch.ones(2, 6), 4, says="Runs of 4 do not fill rows of 6.")
    print("25.1 passed the visible cases.")


check_25_1(four_bits)
### BEGIN HIDDEN TESTS


def hidden_25_1(four_bits):
    call = checking.calls(four_bits)
    g = torch.Generator().manual_seed(1)
    for dtype in (torch.float32, torch.float64):
        w = torch.randn(3, 10, generator=g, dtype=torch.float64).to(dtype)
        for group in (1, 5, 10):
            checking.equal(
                call(w, group), rounded_as(w, group), "values", says=f"Runs of {group}, {dtype}.", tol=1e-6
            )
    call.refuses(ValueError, torch.ones(2, 6), 0, says="A run of 0 holds nothing.")


hidden_25_1(four_bits)
### END HIDDEN TESTS

# %% [markdown]
# ## 25.2 What a draft is worth
#
# > ●●○○○ · 20 minutes · graded
#
# One pass of speculative decoding. The cache held some tokens; the model then read one more token of the text and the
# `proposal` (a list of ids, perhaps empty). `said` holds what the model itself chooses after that token and after each
# proposed one: `len(proposal) + 1` ids. `accept(said, proposal)` returns a pair:
#
# - the list of ids that greedy decoding appends in this pass: the proposed ones up to the first that the model would not
#   have chosen, and one of the model's own;
# - how many entries must be **dropped** from the cache's end, so that it holds no token that was refused.
#
# `ValueError` where the lengths do not fit.


# %% nbgrader={"grade_id": "answer_25_2", "solution": true}
def accept(said, proposal):
    """The ids to append, and the number of cache entries to drop."""
    ### BEGIN SOLUTION
    if len(said) != len(proposal) + 1:
        raise ValueError("said must have one id more than the proposal")
    a = 0
    while a < len(proposal) and proposal[a] == said[a]:
        a += 1
    return list(said[: a + 1]), len(proposal) - a
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_25_2", "grade": true, "points": 2, "locked": true}
def accepted_as(said, proposal, how=""):
    """The pass with one mistake, or with none."""
    same = [p == s for p, s in zip(proposal, said[:-1], strict=True)]  # said has one more
    a = sum(same) if how == "any" else [*same, False].index(False)
    new = {"own": said[:a], "draft": [*proposal[:a], *(proposal[a : a + 1] or said[a : a + 1])]}
    drop = {"one": len(proposal) - a - 1, "kept": a}
    return list(new.get(how, said[: a + 1])), max(0, drop.get(how, len(proposal) - a))


def check_25_2(accept):
    call = checking.calls(accept)
    wrong = {
        "A token after a refused one was read after a wrong text: it does not count, even if it agrees.": "any",
        "The model's own token at the end is missing: it comes free with every pass.": "own",
        "At the first difference the model's token stands, not the draft's.": "draft",
        "You drop one entry too few: the model's own new token is not in the cache yet.": "one",
        "You drop what was accepted. Drop what was refused.": "kept",
    }
    cases = (
        ([5, 6, 7, 8], [5, 6, 9]),
        ([1, 2, 3, 4], [9, 2, 3]),
        ([3, 4], [3]),
        ([7], []),
        ([4, 4, 4, 1], [4, 5, 4]),
    )
    for said, proposal in cases:
        got, want = call(said, proposal), accepted_as(said, proposal)
        assert isinstance(got, tuple) and len(got) == 2, (
            "Return a pair: the ids, and how many entries to drop."
        )
        for says, how in wrong.items():
            bad = accepted_as(said, proposal, how)
            assert (list(got[0]), got[1]) != bad or bad == want, says
        checking.equal(list(got[0]), want[0], "ids")
        checking.equal(got[1], want[1], "entries to drop")
    call.refuses(ValueError, [1, 2], [1, 2], says="After two proposed ids the model has said three.")
    print("25.2 passed the visible cases.")


check_25_2(accept)
### BEGIN HIDDEN TESTS


def hidden_25_2(accept):
    call = checking.calls(accept)
    g = torch.Generator().manual_seed(2)
    for _ in range(30):
        n = int(torch.randint(6, (1,), generator=g))
        said = torch.randint(3, (n + 1,), generator=g).tolist()
        proposal = torch.randint(3, (n,), generator=g).tolist()
        got, want = call(said, proposal), accepted_as(said, proposal)
        checking.equal((list(got[0]), got[1]), want, "ids and drops", says=f"After {said} and {proposal}.")
    call.refuses(ValueError, [], [], says="After no proposal the model has said one.")


hidden_25_2(accept)
### END HIDDEN TESTS

# %% [markdown]
# ## 25.3 The student that learned nothing new
#
# > ●●●○○ · 30 minutes · practice · bug hunt
#
# Somebody distils a teacher. The loss falls, yet at a temperature above $1$ the student hardly listens to the teacher, and
# the teacher itself changes. `old_loss` below has **four** mistakes. Write `loss` without them:
#
# $$ (1 - \alpha)\,\text{CE}(z, y) + \alpha\, T^2\, \text{KL}\big(\text{softmax}(v/T) \,\|\, \text{softmax}(z/T)\big), $$
#
# both means over rows. `student` $z$ and `teacher` $v$ are logits $(N, K)$, `y` int64 $(N,)$. No gradient may
# flow to `teacher`.


# %%
def old_loss(student, teacher, y, T, alpha):
    hard = F.cross_entropy(student / T, y)
    log_q = F.log_softmax(student / T, -1)
    p = F.softmax(teacher / T, -1)
    soft = F.kl_div(p.log(), log_q.exp(), reduction="batchmean")
    return (1 - alpha) * hard + alpha * soft


# %% nbgrader={"grade_id": "answer_25_3", "solution": true}
def loss(student, teacher, y, T, alpha):
    """A scalar, in nats."""
    ### BEGIN SOLUTION
    log_q = F.log_softmax(student / T, -1)
    p = F.softmax(teacher.detach() / T, -1)
    soft = T**2 * F.kl_div(log_q, p, reduction="batchmean")
    return (1 - alpha) * F.cross_entropy(student, y) + alpha * soft
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_25_3", "locked": true}
def loss_as(z, v, y, T, alpha, squared=True, turned=False, warm=False):
    """The loss with one mistake, or with none."""
    log_q, log_p = F.log_softmax(z / T, -1), F.log_softmax(v / T, -1)
    a, b = (log_q, log_p) if turned else (log_p, log_q)
    soft = (a.exp() * (a - b)).sum(-1).mean() * (T**2 if squared else 1)
    return (1 - alpha) * F.cross_entropy(z / T if warm else z, y) + alpha * soft


def check_25_3(loss):
    call = checking.calls(loss)
    wrong = {
        "The factor T² is missing: at high temperatures the soft part fades.": {"squared": False},
        "KL has the teacher first. In F.kl_div the student's logarithms come first.": {"turned": True},
        "The labels are learned at temperature 1: only the soft part is divided by T.": {"warm": True},
    }
    g = torch.Generator().manual_seed(0)
    for T, alpha in ((4.0, 0.5), (2.0, 0.9), (1.0, 0.3)):
        z, v = (2 * torch.randn(5, 3, generator=g, dtype=torch.float64) for _ in range(2))
        y = torch.randint(3, (5,), generator=g)
        known = {
            says: loss_as(z, v, y, T, alpha, **how) for says, how in wrong.items() if T > 1 or "turned" in how
        }
        checking.equal(call(z, v, y, T, alpha), loss_as(z, v, y, T, alpha), "the loss", known, tol=1e-9)
        z.requires_grad_()
        v.requires_grad_()
        loss(z, v, y, T, alpha).backward()  # not a copy: where do its gradients go?
        moved = v.grad is not None and bool(v.grad.abs().max() > 0)
        assert not moved, "The teacher gets a gradient: detach it, or it learns from its student."
        assert z.grad is not None, "The student gets no gradient."
    print("25.3 passed.")


check_25_3(loss)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `F.kl_div(input, target)` wants *log*-probabilities first, and computes KL(target ‖ exp(input)).
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Which of the two parts has a temperature? And what does a gradient need, to keep its size as $T$ grows?
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 25.4 A client that asks until it knows
#
# > ●●●○○ · 45 minutes · practice
#
# Networks lose requests, and they lose answers. Write a client for the **real service** of the lesson, which the checker runs
# with tiny random models behind a bad line. `ask(post, text, sleep)` returns the label of `text` (the answer's
# `["results"][0]["label"]`).
#
# `post(body, headers)` sends one request: two dicts; the path and the access key are added for you. It returns
# `(status, headers, body)`, the names of the headers in lower case, or raises `ConnectionError`: then nobody knows whether
# the service has computed. The body is `{"model": "smoke-a", "texts": [text]}`. `sleep(seconds)` waits.
#
# - **Once.** The service must compute *one* answer for each call of `ask`, however often it is asked: send an
#   `Idempotency-Key`, up to 200 printable ASCII characters. Two calls of `ask` are two questions, also for the same text.
# - **Again** after `ConnectionError`, after a status from 500 to 599, and after 429; eight tries at most, then raise
#   `TimeoutError`. After 429 wait as many seconds as the header `retry-after` says. After the others wait
#   $0.1 \cdot 2^k$ seconds, where $k$ counts the earlier failures *of that kind* (not those with 429) in this call:
#   $0.1$, $0.2$, $0.4$ … There is no waiting after the eighth try.
# - **Not again** after any other status but 200: raise `ValueError`. The same request would fail for ever.


# %% nbgrader={"grade_id": "answer_25_4", "solution": true}
def ask(post, text, sleep):
    """The label of ``text``, computed once."""
    ### BEGIN SOLUTION
    headers, failures = {"Idempotency-Key": str(uuid.uuid4())}, 0
    for left in range(7, -1, -1):
        try:
            status, told, body = post({"model": "smoke-a", "texts": [text]}, headers)
        except ConnectionError:
            status, told, body = 599, {}, {}
        if status == 200:
            return body["results"][0]["label"]
        if status != 429 and not 500 <= status <= 599:
            raise ValueError(f"status {status}: {body}")
        pause = float(told["retry-after"]) if status == 429 else 0.1 * 2**failures
        failures += status != 429
        if left:
            sleep(pause)
    raise TimeoutError("eight tries, and no answer")
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_25_4", "locked": true}
@functools.cache
def tiny_models():
    return engines.smoke_engines()


class BadLine:
    """The service, and a line that does what ``script`` says: "ok", "lost" (request), "unheard" (answer), a status."""

    def __init__(self, client, script):
        self.client, self.script, self.keys, self.slept, self.sent = client, list(script), [], [], []

    def post(self, body, headers):
        event = self.script.pop(0) if self.script else "ok"
        self.keys.append(dict(headers).get("Idempotency-Key"))
        self.sent.append(body)
        if event == "lost":
            raise ConnectionError("the line is dead")
        if event in (429, 500, 503):
            return event, {"retry-after": "3"} if event == 429 else {}, {"error": {"message": "not now"}}
        found = self.client.post("/classify", json=body, headers=headers)
        if event == "unheard":
            raise ConnectionError("the line is dead")
        return found.status_code, {name.lower(): value for name, value in found.headers.items()}, found.json()

    def sleep(self, seconds):
        self.slept.append(round(float(seconds), 6))


@contextlib.contextmanager
def bad_service():
    """A running service with a key, and the folder of its answers."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        key = serving.new_key(folder, "exercise", per_minute=1e6)
        app = http.create(
            desk.ServiceSettings(folder, "smoke", drift_run=100, log_to=io.StringIO()), tiny_models()
        )
        with TestClient(app, headers={"Authorization": f"Bearer {key}"}) as client:
            yield client, folder / "service.sqlite"


def stored(file):
    """How many answers the service keeps."""
    with contextlib.closing(sqlite3.connect(file)) as db:
        return db.execute("SELECT COUNT(*) FROM answers").fetchone()[0]


def check_25_4(ask):
    call = checking.calls(ask, limit=20, slow="Does it stop after eight tries?")
    with bad_service() as (client, file):
        for text, script in (("a text", []), ("a text", ["lost"]), ("näher", ["unheard", "unheard"])):
            line, before = BadLine(client, script), stored(file)
            got = call(line.post, text, line.sleep)
            assert line.sent[0] == {"model": "smoke-a", "texts": [text]}, (
                "The body is not the one of the box."
            )
            assert None not in line.keys, (
                "A request went out without an Idempotency-Key: its answer is computed anew."
            )
            assert len(set(line.keys)) == 1, (
                "Each try has a key of its own, so the service computes again. Make it once."
            )
            assert stored(file) > before, (
                "This call got an older call's answer: two calls with the same text share a key."
            )
            assert stored(file) == before + 1, "The service has computed more than once for one call."
            assert got in ("no", "yes"), f"Return the label, no or yes, not {checking.shown(got)}."
            vector = tiny_models()[0].vectors("", [text])[0]
            right = ("no", "yes")[int(tiny_models()[0].heads["smoke-a"]["v1"](vector[None]).argmax())]
            assert got == right, "That is not the label that the service has given."
        line = BadLine(client, [429, 429])
        with checking.means(ValueError, "429 means: later. Wait as long as retry-after says, and ask again."):
            call(line.post, "busy", line.sleep)
        assert line.slept != [0.1, 0.2], "After 429 the service itself says how long to wait: retry-after."
        checking.equal(line.slept, [3.0, 3.0], "the waits after 429, 429")
        line = BadLine(client, ["lost", 503, 429, "unheard", 500])
        with checking.means(
            ValueError, "A status of 500 or above is the service's trouble, not yours: ask again."
        ):
            call(line.post, "trouble", line.sleep)
        assert line.slept != [0.1, 0.2, 3.0, 0.8, 1.6], (
            "A 429 does not count as a failure: k stays where it was."
        )
        checking.equal(line.slept, [0.1, 0.2, 3.0, 0.4, 0.8], "the waits after lost, 503, 429, unheard, 500")
        for script in (["lost"] * 8, ["lost"] * 50, [429] * 9):
            line = BadLine(client, script)
            call.refuses(TimeoutError, line.post, "nobody", line.sleep, says="Eight tries have failed.")
            assert len(line.keys) == 8, f"You have tried {len(line.keys)} times; eight is the most."
            assert len(line.slept) == 7, "There is nothing to wait for after the eighth try."
        line = BadLine(client, [])
        says = "An empty text is refused with 400, and always will be."
        call.refuses(ValueError, line.post, "", line.sleep, says=says)
        assert len(line.keys) == 1, (
            "You have sent a request again that was refused with 400. It will fail for ever."
        )
    print("25.4 passed.")


check_25_4(ask)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The key belongs to the *question*, not to the try. Where in your function is it made?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Sort what can happen into three heaps before you write a loop: done, again, never again. Two counters: tries, and
# failures of the kind that doubles the pause.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 25.5 Project: compress something of yours, and say what it cost
#
# > ●●●●● · 120 minutes · practice · prediction
#
# Take a model that you use. Make it smaller or faster: fewer layers, int8, a student, a shorter input. **Before** you
# measure, write down the speed-up that you expect. `project()` returns a dict with exactly these keys:
#
# - `before`, `after`: times of a forward pass in seconds, at least ten each, equally many, positive, measured in **turns**:
#   the pairs `before[i]`, `after[i]` belong to one turn.
# - `bytes`: the sizes of the two files, a pair of whole numbers above $0$.
# - `right_before`, `right_after`: for at least fifty test items, the same for both, whether the answer was right (`bool`).
# - `predicted`: the log2 of the ratio of times, after to before, that you expected: $-1$ is twice as fast.
# - `speed`: the $95$ % interval of the mean of log2(after / before) over turns, a pair, by `intervals.t_interval`.
# - `cost`: the $95$ % interval of the mean difference right after minus right before over items, a pair, likewise; `(0, 0)`
#   where no item differs.
# - `verdict`: `"within"` if `speed` holds `predicted`, else `"outside"`.
# - `worth`: your decision, `True` or `False`, and `why`, a sentence of at least thirty characters.
#
# Numbers within $0.001$ of what the checker computes. The checker reads the arithmetic. A person reads the rest, with this
# rubric (0, 1 or 2 points a row; 7 of 10 pass):
#
# | | 0 | 1 | 2 |
# |:--|:--|:--|:--|
# | model | the lesson's, unchanged | one of your own | and its real inputs, with their lengths |
# | turns | one after the other | turns, first pass not counted | and several processes, or batches |
# | file | computed | written and looked at | and what is in it that was not compressed |
# | test items | those that were tuned on | fresh ones | and the errors that are new were read |
# | decision | none | speed alone | the cost in errors against the gain, with who pays |


# %% nbgrader={"grade_id": "answer_25_5", "solution": true}
def project():
    """Return a dict with the keys of the list."""
    ### BEGIN SOLUTION
    before = [0.100 + 0.001 * (i % 5) for i in range(12)]
    after = [0.060 + 0.001 * (i % 3) for i in range(12)]
    right_before = [i % 8 > 0 for i in range(80)]
    right_after = [i % 8 > 0 and i != 9 for i in range(80)]
    speed = intervals.t_interval([math.log2(b / a) for a, b in zip(before, after, strict=True)])
    cost = intervals.t_interval([float(b) - float(a) for a, b in zip(right_before, right_after, strict=True)])
    return {
        "before": before, "after": after, "bytes": (90_000_000, 58_000_000), "right_before": right_before,
        "right_after": right_after, "predicted": -0.6, "speed": (speed.low, speed.high), "cost": (cost.low, cost.high),
        "verdict": "within" if speed.low <= -0.6 <= speed.high else "outside", "worth": True,
        "why": "One more error in eighty is read by a person anyway; the wait was what users complained about.",
    }  # fmt: skip
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_25_5", "locked": true}
KEYS = "before after bytes right_before right_after predicted speed cost verdict worth why".split()


def interval_of(values):
    if len(set(values)) == 1:
        return values[0], values[0]
    found = intervals.t_interval(values)
    return found.low, found.high


def held_against(value, want, name, known):
    assert len(value) == 2, f"{name}: a pair, low and high."
    near = all(abs(a - b) <= 0.001 for a, b in zip(value, want, strict=True))
    for says, other in known.items():
        assert near or not all(abs(a - b) <= 0.001 for a, b in zip(value, other, strict=True)), says
    assert near, f"{name}: ({want[0]:.3f}, {want[1]:.3f}) expected."


def check_25_5(project):
    mine = checking.handed_in(project, KEYS)
    before, after = list(mine["before"]), list(mine["after"])
    assert len(before) == len(after) >= 10, "before, after: ten turns at least, as many of both."
    assert all(isinstance(t, float) and 0 < t < math.inf for t in before + after), (
        "Times are positive floats."
    )
    assert all(type(n) is int and n > 0 for n in mine["bytes"]) and len(mine["bytes"]) == 2, (
        "bytes: two whole numbers."
    )
    a, b = list(mine["right_before"]), list(mine["right_after"])
    assert len(a) == len(b) >= 50 and all(type(x) is bool for x in a + b), (
        "Fifty test items, True or False each."
    )
    logs = [math.log2(y / x) for x, y in zip(before, after, strict=True)]
    want, ratio = interval_of(logs), interval_of([y / x for x, y in zip(before, after, strict=True)])
    known = {
        "speed: that is before over after. After to before is negative where it became faster.": (
            -want[1],
            -want[0],
        ),
        "speed: this is the ratio itself. Its log2 is asked for.": ratio,
    }
    held_against(mine["speed"], want, "speed", known)
    differences = [float(y) - float(x) for x, y in zip(a, b, strict=True)]
    paired = interval_of(differences)
    known = {"cost: that is before minus after: a loss is negative.": (-paired[1], -paired[0])}
    held_against(mine["cost"], paired, "cost", known)
    inside = "within" if want[0] <= mine["predicted"] <= want[1] else "outside"
    assert mine["verdict"] == inside, (
        f"verdict: {inside!r} expected; speed is ({want[0]:.3f}, {want[1]:.3f})."
    )
    assert type(mine["worth"]) is bool, "worth: True or False. You decide."
    assert isinstance(mine["why"], str) and len(mine["why"]) >= 30, (
        "why: a sentence of thirty characters at least."
    )
    print("25.5 passed: the arithmetic holds. Now the rubric.")


check_25_5(project)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Leave out each version's first pass. Shuffle the order within a turn.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# What is in the file that you did not touch? Print its tensors by size.
#
# </details>
#
# {{solution}}
