# %% [markdown]
# ## 11 How many people can one laptop serve?
#
# A classifier that nobody can reach helps nobody. We put it behind an address, and people come **when they like**. Below are
# recorded times of one text through MiniLM, alone, on one core.
#
# **Predict.** The mean time gives a limit of so many requests a second. At nine tenths of that limit, how long does a person
# wait *before* the model even looks at the text: next to nothing, about one service time, or several?

# %%
import asyncio
import contextlib
import io
import math
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from starlette.testclient import TestClient

from instructlab_apps.service import (
    autoscaling,
    batcher,
    desk,
    drift,
    engines,
    http,
    queueing,
    serving,
    versions,
)
from instructlab_utils import features, tasks

alone = autoscaling.recorded("classify")
S, S2 = alone.mean(), np.square(alone).mean()
print(f"{len(alone)} texts: {1000 * S:.1f} ms on average, so at most {1 / S:.0f} requests a second")

# %% [markdown]
# A person waits for what is left of the others' work. If $A$ seconds pass until the next one comes, and the one before needs
# $S$, then *Lindley's recursion* says $W \leftarrow \max(0,\, W + S - A)$.


# %%
def waits(gaps, services):
    found = np.zeros(len(gaps))
    for n in range(1, len(gaps)):
        found[n] = max(0.0, found[n - 1] + services[n - 1] - gaps[n])
    return found


rng = np.random.default_rng(seed)
for load in (0.5, 0.7, 0.9):
    gaps, services = rng.exponential(S / load, run.budget.n_load), rng.choice(alone, run.budget.n_load)
    simulated = waits(gaps, services)
    assert np.abs(simulated - queueing.waits(gaps, services)).max() < 1e-9
    formula = queueing.pollaczek_khinchine(load / S, S, S2)
    print(
        f"load {load}: wait {simulated.mean() / S:5.2f} service times, by the formula below {formula / S:5.2f}"
    )
run.record(wait_at_nine_tenths=formula / S)

# %% [markdown]
# **Observe.** Several. The formula needs no simulation. You come at a random moment. With probability $\rho = \lambda E[S]$
# somebody is being served; what is left of *their* time is on average $E[S^2] / (2 E[S])$, since long services are met more
# often. In front of you stand $\lambda W$ people (Little's law), each of $E[S]$. So
#
# $$ W = \rho\,\frac{E[S^2]}{2 E[S]} + \lambda W\, E[S] \quad\Longrightarrow\quad
# W = \frac{\lambda\, E[S^2]}{2 (1 - \rho)} \qquad \text{(Pollaczek, 1930; Khinchine, 1932).} $$
#
# | symbol | meaning |
# |---|---|
# | $\lambda$, $\rho$ | requests a second; share of the time that the server works |
# | $S$, $W$ | seconds of service; seconds before it |
# | $a$, $b$ | seconds of a batch, whatever its size; more for each text in it |
# | $z_t$, $r$ | drift: the running mean after request $t$; the weight of the newest |
#
# All of $1/(1-\rho)$ is the price of randomness. Constant services (M/D/1) halve the wait of exponential ones (M/M/1).
#
# **Predict.** The model computes several texts in one product. A batch of $n$ takes about $a + b\,n$. What becomes of the
# limit?

# %%
kept = autoscaling.measured()
sizes, spent = np.array(kept["batch"]["sizes"]), np.array(kept["batch"]["seconds"])
b, a = np.polyfit(sizes, spent, 1, w=1 / spent)
a = max(a, 1e-4)
print(
    f"a = {1000 * a:.1f} ms, b = {1000 * b:.1f} ms: alone at most {1 / (a + b):.0f} a second, in batches {1 / b:.0f}"
)
rate = 0.95 / b
arrivals = np.cumsum(rng.exponential(1 / rate, run.budget.n_load))
taken, batches = queueing.batched(arrivals, lambda n: a + b * n, 64)
balance = queueing.batch_in_balance(rate, a, b)
print(f"at {rate:.0f} a second: batches of {np.mean(batches):.1f} texts; in balance {balance:.1f}")
run.record(batch_limit=1 / b, lone_limit=1 / (a + b))

# %% [markdown]
# **Observe.** The batch grows until as many come as are computed: $n = \lambda (a + b\,n)$, so
# $n = \lambda a / (1 - \lambda b)$. The cost $a$ is shared, and the limit moves from $1/(a+b)$ to $1/b$. Nobody has to wait
# *for* a batch: while one is computed, the next one gathers by itself.

# %%
figure, panels = plotting.axes(1, 2, width=3.9, height=3.1, dpi=85)
rates, curves = np.linspace(0.05, 0.98, 30) / S, {}
for name, square in {"M/M/1": 2 * S * S, "M/D/1": S * S}.items():
    curves[name] = rates, [1000 * (S + queueing.pollaczek_khinchine(x, S, square)) for x in rates]
some = np.linspace(0.1, 0.9, 9) / b
times = [np.cumsum(rng.exponential(1 / x, run.budget.n_load)) for x in some]
curves["batches, simulated"] = (
    some,
    [1000 * queueing.batched(each, lambda n: a + b * n, 64)[0].mean() for each in times],
)
for index, (name, (x, y)) in enumerate(curves.items()):
    panels[0].plot(x, y, label=name, **(plotting.style(index) | ({} if index == 2 else {"marker": ""})))
panels[0].set(xlabel="requests a second", ylabel="mean latency (ms)", yscale="log", title="theory")

# %%
limit = kept["machine"]["limit"]
for index, (server, name) in enumerate({"plain": "pipeline in FastAPI", "ours": "the service below"}.items()):
    rows = [row for row in kept["curve"] if row["server"] == server]
    line = [1000 * row["p95"] for row in rows]
    panels[1].plot([row["rate"] for row in rows], line, label=name, **plotting.style(index))
    held = [row["rate"] for row in rows if row["p95"] <= limit and not row["refused"]]
    cpu = 1000 * sum(row["cpu"] for row in rows) / len(rows)
    print(
        f"{name}: p95 within {1000 * limit:.0f} ms at {held or 'no rate'}; {cpu:.0f} ms of processor a request"
    )
busy = kept["machine"]["load"] / kept["machine"]["cores"]
print(f"recorded with {busy:.1f} programs in line for each core")

# %%
panels[1].axhline(1000 * limit, color="grey", linestyle=":")
panels[1].set(
    xlabel="requests a second", ylabel="95th percentile (ms)", yscale="log", title="measured, two cores"
)
for panel in panels:
    panel.legend(fontsize=7)
show(figure, "25_load")

# %% [markdown]
# *Figure: left, one at a time the latency explodes at the lone limit; batches carry on. Right, the same requests sent to two
# servers by a real client, which shares the two cores. The dotted line is the patience that we allow.*
#
# **Observe.** Theory says *one* thing well: that there is a wall. Its place is measured, on *your* machine, by
# `benchmarks/service.py`. Where other programs stand in line for the cores, latencies tell about them; the processor time of
# a request still tells about the server.
#
# ## 12 The service
#
# FastAPI and uvicorn speak HTTP. Between the door and the model stand small parts, each of which can say no.

# %%
figure, axis = plotting.axes(width=8.4, height=2.5, dpi=85)
doors = "key|rate|size,\nform|stored\nanswer|queue|batch|one thread:\nencoder, heads,\ndecoder".split("|")
told = "401|429|413\n400|same\nbytes|429||then: drift, canary,\nmetrics, masked log".split("|")
for place, (name, no) in enumerate(zip(doors, told, strict=True)):
    x = place + 0.3 * (place == 6)
    box = {"boxstyle": "round,pad=0.4", "facecolor": "0.88" if place == 6 else "white"}
    axis.text(x, 1, name, ha="center", va="center", fontsize=8, bbox=box)
    axis.text(x, 0.1, no, ha="center", va="center", fontsize=8)
    axis.annotate("", (place - 0.32, 1), (place - 0.62, 1), arrowprops={"arrowstyle": "->"})
    if no and place < 6:
        axis.annotate("", (x, 0.3), (x, 0.76), arrowprops={"arrowstyle": "->", "linestyle": "--"})
axis.set(xlim=(-0.8, 7.2), ylim=(0, 1.3))
axis.axis("off")
show(figure, "25_service")

# %% [markdown]
# *Figure: a request goes from left to right; dashed arrows are refusals. What is cheap to refuse stands first: nobody
# computes for a caller without a key.*
#
# The heart is the choice of the next batch. **The oldest is always in it**, so nobody starves. It is filled with those
# nearest in length, so little is spent on padding.


# %%
def chosen(waiting, most):
    if not waiting:
        return []
    first = waiting[0]
    same = [each for each in waiting if each.key == first.key]
    near = sorted(same, key=lambda each: (each is not first, abs(each.size - first.size)))
    return sorted(near[:most], key=lambda each: each.size)


# %%
lengths = [int(n) for n in rng.integers(3, 60, 200)]
line = [batcher.Waiting(n, "", size, None) for n, size in enumerate(lengths)]
assert chosen(line, 8) == batcher.chosen(line, 8)
for name, pick in {"in order": lambda rest: rest[:8], "nearest": lambda rest: chosen(rest, 8)}.items():
    rest, padded = line, 0
    while rest:
        some = pick(rest)
        padded += len(some) * max(each.size for each in some)
        rest = [each for each in rest if each not in some]
    print(f"{name:9s} {padded / sum(lengths):.2f} computed tokens for each real one")

# %% [markdown]
# **Predict.** Thirty requests come at the same moment; the queue has room for twenty. A batch holds eight. How many get an
# answer, and what do the others get: an endless wait, an error after a while, or an error at once?


# %%
def finished(coroutine):
    """Run it in a loop of its own: a notebook's loop is busy with the notebook."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


async def crowd():
    sizes = []
    with ThreadPoolExecutor(1) as thread:
        double = batcher.at_once(lambda key, items: [2 * item for item in items])
        ours = batcher.Batcher(double, thread, most=8, room=20, seen=lambda n, seconds: sizes.append(n))
        found = await asyncio.gather(*(ours.submit([n]) for n in range(30)), return_exceptions=True)
        await ours.close()
    return found, sizes


# %%
found, sizes = finished(crowd())
refused = [each for each in found if isinstance(each, batcher.Full)]
assert [each for each in found if each not in refused] == [[2 * n] for n in range(20)]
print(
    f"{len(found) - len(refused)} answers in batches of {sizes}; {len(refused)} refused, each with: {refused[0]}"
)
run.record(refused_at_once=len(refused))

# %% [markdown]
# **Observe.** At once, with a time to come back: HTTP's code for it is 429. This is *back-pressure*. A queue without an end
# answers everybody too late.
#
# ## 13 Keys, and answers that are given once
#
# Here is the real app, with tiny random models (they answer nonsense, fast). `serve` starts the same one with MiniLM and
# SmolLM2: `python -m instructlab_utils serve`.
#
# **Predict.** We send a chat request twice, at temperature two and without a seed. Then again twice, with the header
# `Idempotency-Key`. Which pairs are equal?

# %%
tiny = engines.smoke_engines()


@contextlib.contextmanager
def service():
    with tempfile.TemporaryDirectory() as folder:
        settings = desk.ServiceSettings(Path(folder), "smoke", drift_run=100, log_to=io.StringIO())
        key = serving.new_key(settings.folder, "reader", "admin", per_minute=1e6)
        with TestClient(http.create(settings, tiny), headers={"Authorization": f"Bearer {key}"}) as client:
            yield client, client.app.state.desk


TALK = {
    "model": "smoke",
    "messages": [{"role": "user", "content": "hello"}],
    "temperature": 2.0,
    "max_tokens": 8,
}

# %%
with service() as (client, inside):
    for head in ({}, {"Idempotency-Key": "order-17"}):
        first, second = (client.post("/v1/chat/completions", json=TALK, headers=head) for _ in range(2))
        print(head, "→ the same bytes:", first.content == second.content)
    run.record(replayed=first.content == second.content)
    reader = client.headers["authorization"].split("-")[1]
    codes = [client.get("/v1/models", headers={"Authorization": "Bearer sk-guess"}).status_code]
    codes += [client.get("/v1/models").status_code]
    serving.revoke(inside.settings.folder, reader)  # as another process would
    codes.append(client.get("/v1/models").status_code)
print(f"a guessed key: {codes[0]}; a good one: {codes[1]}; the same, revoked: {codes[2]}")
assert codes == [401, 200, 401]

# %% [markdown]
# **Observe.** A client that hears nothing cannot know whether its request or our answer was lost. It asks again. The answer
# was on the disk *before* we sent it, so it comes back byte for byte. `tests/drill_service.py` kills the server with
# SIGKILL while ten thousand requests run, and counts what is lost or doubled.
#
# A key is 256 random bits. We keep its SHA-256. A password needs a slow hash, since people choose few of them; nobody
# guesses one of $2^{256}$. The file is asked each time, so a revoked key stops with the next request.
#
# ## 14 A canary, and the way back
#
# A new version gets a small share of the requests first. Which ones? Hash the text: the same text meets the same version.
# Each of its answers is compared with the old version's. Is the rate of disagreement fine ($p_0$) or bad ($p_1$)? *Wald's
# sequential test* adds up log-likelihood ratios, and stops as soon as it knows.


# %%
def verdict(events, p0=0.05, p1=0.2, error=0.01):
    total = 0.0
    for n, bad in enumerate(events, start=1):
        total += math.log(p1 / p0) if bad else math.log((1 - p1) / (1 - p0))
        if abs(total) >= math.log((1 - error) / error):
            return ("bad" if total > 0 else "fine"), n
    return "open", n


for rate in (0.02, 0.05, 0.2, 0.5):
    said = [verdict(rng.random(2000) < rate) for _ in range(300)]
    bad = sum(word == "bad" for word, _ in said) / len(said)
    print(f"disagreement {rate:.2f}: called bad {bad:.2f}, after {np.mean([n for _, n in said]):.0f} answers")

# %% [markdown]
# **Predict.** Version two has its classes swapped by mistake. Half of the texts go to it. How many people meet it?

# %%
broken = engines.LinearHead(
    ("no", "yes"), *(t.flip(0) for t in (tiny[0].heads["smoke-a"]["v1"].weight, torch.zeros(2)))
)
good, tiny[0].heads["smoke-a"]["v2"] = tiny[0].heads["smoke-a"]["v2"], broken
start = {"model": "smoke-a", "action": "start", "version": "v2", "share": 0.5}
with service() as (client, inside):
    print("trial:", client.post("/admin/rollout", json=start).json())
    asked = ({"model": "smoke-a", "texts": [f"text number {n}"]} for n in range(100))
    met = [client.post("/classify", json=each).json()["results"][0]["version"] for each in asked]
    print("after a hundred texts:", versions.Rollout(inside.settings.file).route("smoke-a")._asdict())
tiny[0].heads["smoke-a"]["v2"] = good
print(f"{met.count('v2')} answers came from v2, the last one to text {len(met) - met[::-1].index('v2')}")
run.record(met_the_broken_version=met.count("v2"))
assert met[-1] == "v1" and met.count("v2") < 10

# %% [markdown]
# **Observe.** A handful; then everybody has the old version again, without a person and without a restart. A *better* version
# also disagrees: $p_1$ says how much better you expect it to be.
#
# ## 15 Has what people send changed?
#
# Labels come late or never. Vectors come at once. Whiten them on reference texts, so that each of $k$ directions has mean
# zero and variance one, and keep a running mean (Lowry et al., 1992):
#
# $$ z_t = (1 - r)\, z_{t-1} + r\, u_t, \qquad T_t = \frac{2 - r}{r}\, \lVert z_t \rVert^2 . $$
#
# The factor makes the parts of $T$ have mean one. The alarm rings where $T_t$ exceeds a threshold. Which one? We *simulate*
# streams of reference texts, and take the threshold at which they ring once in so many requests.

# %%
some = {}
for task, n in (("tweet-sentiment", run.budget.n_texts), ("bbc-topics", run.budget.n_texts // 4)):
    rows = tasks.subsample(tasks.load(task).splits["train"], n, seed)["text"]
    some[task] = features.mean_states(rows, 24).double().numpy()
usual, other = some.values()
third = len(usual) // 3
whiten = drift.whitening(usual[:third], 8)
tune, fresh, news = whiten(usual[third : 2 * third]), whiten(usual[2 * third :]), whiten(other)
r, z, T = 0.1, np.zeros(8), []
for u in fresh:
    z = (1 - r) * z + r * u
    T.append((2 - r) / r * np.square(z).sum())
assert np.abs(np.array(T) - drift.statistics(fresh, r)).max() < 1e-9

# %% [markdown]
# **Predict.** From some request on, one text in four is a news article instead of a tweet. How many requests until the
# alarm? Which $r$ is best: one that looks at each text alone ($r = 1$), or one with a long memory?

# %%
goals, length = (50, 100, 200, 400), run.budget.n_steps


def streams(share, count=60):
    moved = rng.random((length, count, 1)) < share
    old, new = (x[rng.integers(len(x), size=(length, count))] for x in (fresh, news))
    return np.where(moved, new, old)


calm, shifted, delays = streams(0.0), streams(0.25), {}
for r in (0.05, 0.2, 1.0):
    limits = [drift.threshold_for(tune, r, goal, streams=60, seed=seed) for goal in goals]
    quiet, moved = drift.statistics(calm, r), drift.statistics(shifted, r)
    delays[r] = [(drift.run_length(quiet, h), drift.run_length(moved, h)) for h in limits]
    print(f"r = {r}: wanted {goals}, until a false alarm {[round(x) for x, _ in delays[r]]},"
          f" until a true one {[round(y) for _, y in delays[r]]}")  # fmt: skip

# %%
figure, panels = plotting.axes(1, 2, width=3.9, height=3.0, dpi=85)
for index, (r, pairs) in enumerate(delays.items()):
    panels[0].plot(*zip(*pairs, strict=True), label=f"$r$ = {r}", **plotting.style(index))
panels[0].set(xlabel="requests until a false alarm", ylabel="until a true one")
panels[0].legend(fontsize=7)
replay = np.concatenate([calm[:100, 0], shifted[:100, 0]])
panels[1].plot(drift.statistics(replay, 0.05), **(plotting.style(0) | {"marker": ""}))
panels[1].axhline(
    drift.threshold_for(tune, 0.05, goals[-1], streams=60, seed=seed), color="black", linestyle=":"
)
panels[1].axvline(100, color="grey", linestyle="--")
panels[1].set(xlabel="request", ylabel="$T$, $r$ = 0.05", yscale="log")
show(figure, "25_drift")
run.record(**{f"delay_{str(r).replace('.', '_')}": pairs[-1][1] for r, pairs in delays.items()})

# %% [markdown]
# *Figure: left, right and low is good: rare false alarms, quick true ones. Right, one replay; the shift begins at the dashed
# line, the dotted one is the threshold.*
#
# **Observe.** The print-out has the order. Look at the false alarms too: what was *wanted* and what *fresh* tweets gave may
# differ, since few reference texts do not hold the rarest ones. And the streams draw texts independently. Real ones come
# in waves, by the hour and by the news, so expect more alarms than simulated. A shift across the $k$ directions is unseen.
#
# ## 16 A thousand replicas
#
# One laptop is not enough: replicas, up to a thousand, started and stopped by Kubernetes' rule, *wanted = busy / target*,
# rounded up. A new one needs a cold start first. **Predict.** Traffic rises fivefold at once. You may pay for a lower
# target, or make the cold start shorter. Which one saves the slowest twentieth?

# %%
talk, until = autoscaling.recorded("chat"), 60.0 * run.budget.n_minutes
low, high = 0.1 * run.budget.n_replicas / talk.mean(), run.budget.n_replicas * 0.5 / talk.mean()


def traffic(t):
    return high if until / 3 < t < 2 * until / 3 else low


came = autoscaling.arrivals_of(traffic, high, until, seed)
needs, found = rng.choice(talk, len(came)), {}
for cold in (5.0, 60.0):
    for target in (0.3, 0.45, 0.6, 0.75, 0.9):
        how = {"target": target, "cold": cold, "first": math.ceil(low * talk.mean() / target), "hold": 60.0}
        day = autoscaling.autoscaled(came, needs, most=1000, **how)
        found[cold, target] = (day.paid / needs.sum(), np.quantile(day.latency, 0.95), day.replicas.max())
print(f"{len(came):,} requests; most replicas at once: {max(most for *_, most in found.values()):.0f}")

# %%
figure, axis = plotting.axes(width=4.8, height=3.2, dpi=85)
for index, cold in enumerate((5.0, 60.0)):
    points = [pair[:2] for (each, _), pair in found.items() if each == cold]
    axis.plot(*zip(*points, strict=True), label=f"cold start {cold:.0f} s", **plotting.style(index))
for (_, target), (paid, p95, _) in found.items():
    axis.annotate(f"{target}", (paid, p95), xytext=(4, 4), textcoords="offset points", fontsize=7)
axis.set(xlabel="seconds paid for each second of work", ylabel="95th percentile (s)", yscale="log")
axis.legend(fontsize=7)
show(figure, "25_replicas")
for (cold, target), (paid, p95, _) in found.items():
    print(f"cold start {cold:4.0f} s, target {target:.2f}: paid {paid:.2f}, p95 {p95:7.2f} s")

# %% [markdown]
# *Figure: each point is a target (the number beside it). Left is cheap, low is fast.*
#
# **Observe.** The two curves cost the same: what differs is when the replicas come. A low target is room that is paid all
# day; a short start is room that comes when it is needed. `deploy/` has the container and the manifests that a cluster would
# need. For more than one machine do not stretch our batcher: KServe scales, and vLLM joins requests *between two tokens*.
#
# **What should I set?**
#
# | you want | do | in a library |
# |---|---|---|
# | many short answers | batch what waits, do not wait for a batch | vLLM `max_num_seqs` |
# | no collapse under load | a short queue and 429 with `Retry-After` | uvicorn `limit_concurrency` |
# | retries without doubles | an idempotency key, stored before it is sent | a unique index |
# | replaceable models | a share by hash, a sequential test, one step back | KServe `canaryTrafficPercent` |
# | to hear of shifts | a running mean of vectors, a simulated threshold | `alibi-detect`, `evidently` |
# | replicas | a target near the knee of *your* curve, short cold starts | HPA `averageUtilization`, `minReplicas` |
# | a private log | mask first, cut afterwards, never log keys | a filter on the handler (lesson 22) |
#
# **Recall.** (a) Why does the wait explode before the server is fully busy? (b) Why is the oldest request always in the next
# batch? (c) When is a fast hash enough? (d) What does a long memory cost a drift alarm?
#
# <details><summary>Answers</summary>
#
# (a) Requests come in clumps; the work of a clump is carried on, and the less idle time there is, the longer. (b) Else a
# text of odd length could wait for ever. (c) For a random secret of 256 bits. (d) It sees large, sudden shifts later, and
# small ones sooner.
#
# </details>
