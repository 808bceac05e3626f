"""The parts of the service by themselves: batches, buckets, keys, the sequential test, drift, queues, replicas, manifests."""

from __future__ import annotations

import asyncio
import json
import math
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from instructlab_apps.service import (
    autoscaling,
    batcher,
    drift,
    keys,
    limits,
    queueing,
    store,
    telemetry,
    versions,
)
from instructlab_utils import masking
from instructlab_utils.errors import ParameterError

ROOT = Path(__file__).resolve().parents[1]


def run(main):
    return asyncio.run(asyncio.wait_for(main, 30))


# --- the batcher --------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 50)), max_size=30), st.integers(1, 9))
def test_a_batch_holds_the_oldest_and_its_nearest(rows, most):
    waiting = [batcher.Waiting(n, key, size, None) for n, (key, size) in enumerate(rows)]
    found = batcher.chosen(waiting, most)
    if not waiting:
        assert found == []
        return
    first = waiting[0]
    same = [each for each in waiting if each.key == first.key]
    assert first in found and len(found) == min(most, len(same)) and all(each in same for each in found)
    assert [each.size for each in found] == sorted(each.size for each in found)
    worst = max(abs(each.size - first.size) for each in found)
    assert all(abs(each.size - first.size) >= worst for each in same if each not in found)


@pytest.fixture
def thread():
    pool = ThreadPoolExecutor(1)
    yield pool
    pool.shutdown()


def test_results_come_back_to_whom_they_belong(thread):
    seen, names = [], set()

    def double(key, items):
        names.add(threading.current_thread().name)
        time.sleep(0.001)
        return [(key, 2 * item) for item in items]

    async def main():
        one = batcher.Batcher(batcher.at_once(double), thread, most=4, seen=lambda n, s: seen.append(n))
        rng = random.Random(0)
        sent = [("ab"[n % 2], [rng.randrange(999) for _ in range(1 + n % 3)]) for n in range(60)]
        got = await asyncio.gather(*(one.submit(items, key, items) for key, items in sent))
        for (key, items), found in zip(sent, got, strict=True):
            assert found == [(key, 2 * item) for item in items]
        await one.close()

    run(main())
    assert max(seen) <= 4 and sum(seen) == 120 and len(seen) < 120 and len(names) == 1


def test_lanes_work_side_by_side_and_never_more_of_them_than_asked():
    at_work, most_at_work, lock = 0, 0, threading.Lock()
    meet = threading.Barrier(2)  # the first two batches are at work together, or this breaks

    def slow(key, items):
        nonlocal at_work, most_at_work
        with lock:
            at_work += 1
            most_at_work = max(most_at_work, at_work)
        if max(items) < 2:
            meet.wait(5)
        time.sleep(0.002)
        with lock:
            at_work -= 1
        return [-item for item in items]

    async def main():
        one = batcher.Batcher(batcher.at_once(slow), pool, lanes=2, most=1)
        assert await asyncio.gather(*(one.submit([n]) for n in range(30))) == [[-n] for n in range(30)]
        last = asyncio.create_task(one.submit([30]))
        await asyncio.sleep(0)
        await one.close()  # what was let in is finished
        assert await last == [-30]

    with ThreadPoolExecutor(4) as pool:
        run(main())
    assert most_at_work == 2 and not meet.broken


def test_one_item_that_fails_does_not_spoil_its_neighbours(thread):
    def fussy(key, items):
        if any(item < 0 for item in items):
            raise ValueError("negative")
        return items

    async def main():
        one = batcher.Batcher(batcher.at_once(fussy), thread, most=8)
        found = await asyncio.gather(*(one.submit([n]) for n in (1, 2, -3, 4)), return_exceptions=True)
        assert [found[i] for i in (0, 1, 3)] == [[1], [2], [4]] and isinstance(found[2], ValueError)
        one.steps = lambda key, items: 1 / 0
        with pytest.raises(ZeroDivisionError):
            await one.submit([1])
        one.steps = batcher.at_once(fussy)
        assert await one.submit([7]) == [7]  # it lives on

    run(main())


def test_full_late_and_closed(thread):
    go = threading.Event()

    async def main():
        one = batcher.Batcher(
            batcher.at_once(lambda key, items: go.wait(5) and items), thread, most=1, room=2
        )
        first = asyncio.create_task(one.submit([1]))
        await asyncio.sleep(0.05)
        rest = [asyncio.create_task(one.submit([n])) for n in (2, 3)]
        await asyncio.sleep(0.01)
        with pytest.raises(batcher.Full) as full:
            await one.submit([4])
        assert full.value.after >= 1 and len(one.waiting) == 2
        rest[0].cancel()  # a client that went away makes room
        await asyncio.sleep(0.01)
        with pytest.raises(batcher.Late):
            await one.submit([9], patience=0.02)
        go.set()
        assert await first == [1] and await rest[1] == [3]
        await one.close()
        with pytest.raises(batcher.Closed):
            await one.submit([5])

    run(main())


def test_a_long_job_lets_short_ones_through(thread):
    order = []

    def long(key, items):
        for n in range(6):
            order.append(f"step {n}")
            time.sleep(0.01)
            yield [(0, "done")] if n == 5 else []

    async def main():
        slow = batcher.Batcher(long, thread)
        quick = batcher.Batcher(batcher.at_once(lambda key, items: order.append("short") or items), thread)
        task = asyncio.create_task(slow.submit(["talk"]))
        await asyncio.sleep(0.015)
        await quick.submit([1])
        assert not task.done() and await task == ["done"]

    run(main())
    assert 0 < order.index("short") < 6 and len(order) == 7


@pytest.mark.parametrize("how", [{"most": 0}, {"lanes": 0}, {"room": 0}, {"pause": -1}, {"pause": math.nan}])
def test_a_batcher_refuses_what_makes_no_sense(thread, how):
    with pytest.raises(ParameterError):
        batcher.Batcher(batcher.at_once(lambda key, items: items), thread, **how)


# --- limits, keys, the store --------------------------------------------------------------------------------------------


def test_a_bucket_lets_its_rate_through():
    now = [0.0]
    bucket = limits.Bucket(2.0, 5.0, lambda: now[0])
    assert [bucket.take() for _ in range(5)] == [0.0] * 5 and bucket.take() == 0.5
    let = 0
    for _ in range(1000):
        now[0] += 0.05
        let += bucket.take() == 0
    assert abs(let - 100) <= 1


@pytest.mark.parametrize(
    ("text", "deep"),
    [
        ("{}", 1),
        ("[[[]]]", 3),
        ('{"a": "[[[[{"}', 1),
        (r'{"a\"[": [1]}', 2),
        ('"[', 1),
        ("", 0),
        (r'["\\", [[]]]', 3),
    ],
)
def test_depth_reads_brackets_outside_strings(text, deep):
    assert limits.depth(text.encode()) == deep


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=80) | st.text(alphabet='{}[]",:\\1n ', max_size=60).map(str.encode))
def test_any_bytes_give_an_object_or_a_refusal(body):
    try:
        assert isinstance(limits.parsed_json(body), dict)
    except limits.Refusal as refusal:
        assert refusal.status == 400 and str(refusal)


def test_keys(tmp_path):
    ring = keys.KeyRing(tmp_path / "k.sqlite")
    made = [ring.create(f"n{n}") for n in range(20)]
    assert len(set(made)) == 20 and all(len(key) == 55 for key in made)
    assert [ring.check(key).name for key in made] == [f"n{n}" for n in range(20)]
    swapped = made[0][:12] + made[1][12:]
    for wrong in (
        "",
        "sk-",
        made[0][:-1],
        made[0] + "a",
        made[0].upper(),
        swapped,
        made[0].replace("sk", "SK"),
    ):
        assert ring.check(wrong) is None
    other = keys.KeyRing(tmp_path / "k.sqlite")
    assert other.revoke(made[3].split("-")[1]) and not other.revoke(made[3].split("-")[1])
    assert ring.check(made[3]) is None and ring.check(made[4]) and ring.count() == 19
    for how in ({"name": ""}, {"name": "x", "scope": "root"}, {"name": "x", "per_minute": 0}):
        with pytest.raises(ParameterError):
            ring.create(**how)
    data = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert not any(key.encode() in data or key.split("-", 2)[2].encode() in data for key in made)


def test_stored_answers(tmp_path):
    now = [0.0]
    kept = store.AnswerStore(tmp_path / "a.sqlite", keep=10, clock=lambda: now[0])
    first, second = (store.Kept("o", "k", "r", 200, body) for body in (b"one", b"two"))
    assert kept.add_all([first]) == [first] and kept.add_all([second, second]) == [first, first]
    assert kept.find("o", "k") == first and kept.find("p", "k") is None
    now[0] = 11
    assert kept.forget() == 1 and kept.find("o", "k") is None
    assert store.fingerprint("/a", {"x": 1, "y": 2}) == store.fingerprint("/a", {"y": 2, "x": 1})
    assert store.fingerprint("/a", {"x": 1}) != store.fingerprint("/b", {"x": 1})


def test_an_excerpt_is_masked_before_it_is_cut():
    text = "x" * 70 + " ada@example.org"
    assert "ada@" in masking.mask(text[:80]) and "ada@" not in telemetry.excerpt(text)
    assert len(telemetry.excerpt("a@example.org " * 50)) == 80
    assert telemetry.route_of("/classify") == "/classify" and telemetry.route_of("/x/../y") == "other"


# --- versions -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "want"), [(0.02, "low"), (0.05, "low"), (0.2, "high"), (0.5, "high")])
def test_walds_test_errs_as_seldom_as_it_says(rate, want):
    rng, said = random.Random(1), []
    for _ in range(600):
        test, told = versions.Sprt(0.05, 0.2), ""
        while not told:
            told = test.feed(rng.random() < rate)
        said.append(told)
    assert said.count(want) / 600 > 0.98


def test_routes_are_shares_and_survive(tmp_path):
    rollout = versions.Rollout(tmp_path / "v.sqlite")
    rollout.add("m", "v1")
    rollout.start("m", "v2", 0.25)
    got = [rollout.version("m", f"caller {n}") for n in range(4000)]
    assert abs(got.count("v2") / 4000 - 0.25) < 0.03
    again = versions.Rollout(tmp_path / "v.sqlite")
    again.add("m", "v9")
    assert (
        again.route("m") == ("v1", "v2", 0.25)
        and [again.version("m", f"caller {n}") for n in range(99)] == got[:99]
    )
    rollout.rollback("m")
    assert {again.version("m", f"caller {n}") for n in range(99)} == {"v1"}
    for call in (
        lambda: rollout.route("x"), lambda: rollout.start("m", "v1", 0.5), lambda: rollout.start("m", "v2", 0),
        lambda: rollout.promote("m"), lambda: versions.Sprt(0.3, 0.2), lambda: versions.Sprt(0.1, 0.2, alpha=0.7),
    ):  # fmt: skip
        with pytest.raises(ParameterError):
            call()


# --- drift --------------------------------------------------------------------------------------------------------------


def test_whitening_is_sklearns():
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 20)) @ rng.normal(size=(20, 20)) + 3
    found, want = drift.whitening(x, 5)(x), PCA(5, whiten=True, svd_solver="full").fit_transform(x)
    assert np.abs(np.abs(found) - np.abs(want)).max() < 1e-8  # a direction may point either way
    assert np.abs(np.cov(found.T) - np.eye(5)).max() < 1e-9
    for bad in (x[:40], np.ones((300, 20)), np.full((300, 20), np.nan), x[0]):
        with pytest.raises(ParameterError):
            drift.whitening(bad, 5)


def test_the_chart_step_by_step_is_the_chart_at_once():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 12))
    alarm = drift.DriftAlarm(drift.whitening(x, 4), math.inf, 0.2)
    values = []
    for row in x:
        alarm.feed(row)
        values.append(alarm.value)
    assert np.abs(np.array(values) - drift.statistics(alarm.whiten(x), 0.2)).max() < 1e-9
    at_once = drift.statistics(alarm.whiten(x), 1.0)
    assert (
        np.abs(at_once - np.square(alarm.whiten(x)).sum(1)).max() < 1e-12
    )  # weight 1 is Hotelling's T² of each alone


def test_the_false_alarm_rate_is_the_stated_one_and_a_shift_rings():
    rng = np.random.default_rng(2)
    reference = rng.normal(size=(3000, 6))
    alarm = drift.learned(reference, k=6, weight=0.1, run=400, seed=3)
    fresh = alarm.whiten(rng.normal(size=(1600, 200, 6)))
    found = drift.run_length(drift.statistics(fresh, 0.1), alarm.threshold)
    assert 280 < found < 560, found
    for shift, most in ((0.7, 45), (2.0, 9)):
        moved = alarm.whiten(rng.normal(size=(800, 200, 6)) + shift * np.eye(6)[0])
        first = drift.first_alarms(drift.statistics(moved, 0.1), alarm.threshold)
        assert np.isfinite(first).all() and np.median(first) < most
    delays = {}
    for weight in (0.05, 1.0):
        limit = drift.threshold_for(alarm.whiten(reference), weight, 400)
        small = alarm.whiten(rng.normal(size=(800, 200, 6)) + 0.7 * np.eye(6)[0])
        delays[weight] = drift.run_length(drift.statistics(small, weight), limit)
    assert delays[0.05] < 0.5 * delays[1.0]  # memory sees small shifts sooner


def test_an_alarm_rings_again_and_again():
    rng = np.random.default_rng(4)
    alarm = drift.learned(rng.normal(size=(1000, 5)), k=3, run=500)
    for row in rng.normal(size=(300, 5)) + 3:
        alarm.feed(row)
    assert alarm.alarms > 20 and alarm.seen == 300
    for how in ({"weight": 0.0}, {"weight": 1.5}, {"run": 3}):
        with pytest.raises(ParameterError):
            drift.threshold_for(np.zeros((10, 2)), **{"weight": 0.1, "run": 100, **how})


# --- queues and replicas ------------------------------------------------------------------------------------------------


def lindley(gaps, services):
    wait, found = 0.0, []
    for n in range(len(gaps)):
        wait = 0.0 if n == 0 else max(0.0, wait + services[n - 1] - gaps[n])
        found.append(wait)
    return np.array(found)


def test_waits_are_lindleys_and_the_formula_finds_their_mean():
    rng = np.random.default_rng(0)
    for n in (1, 2, 500):
        a, s = rng.exponential(1.0, n), rng.gamma(2.0, 0.45, n)
        assert np.abs(queueing.waits(a, s) - lindley(a, s)).max() < 1e-9
    n = 400_000
    for draw, square in ((lambda: np.full(n, 0.7), 0.49), (lambda: rng.exponential(0.7, n), 0.98)):
        found = queueing.waits(rng.exponential(1.0, n), draw()).mean()
        assert abs(found / queueing.pollaczek_khinchine(1.0, 0.7, square) - 1) < 0.06
    assert queueing.pollaczek_khinchine(2.0, 0.5, 0.25) == math.inf
    md1, mm1 = (queueing.pollaczek_khinchine(1.0, 0.7, square) for square in (0.49, 0.98))
    assert abs(mm1 - 0.7 * 0.7 / 0.3) < 1e-12 and abs(md1 - mm1 / 2) < 1e-12
    for call in (
        lambda: queueing.pollaczek_khinchine(-1, 1, 1), lambda: queueing.pollaczek_khinchine(1, 1, 0.5),
        lambda: queueing.waits([1.0], [1.0, 2.0]), lambda: queueing.waits([-1.0], [1.0]),
        lambda: queueing.batched([2.0, 1.0], lambda n: 1.0, 4), lambda: queueing.batched([1.0], lambda n: 1.0, 0),
    ):  # fmt: skip
        with pytest.raises(ParameterError):
            call()


def test_a_batch_of_one_is_the_plain_queue_and_more_carry_more():
    rng = np.random.default_rng(5)
    gaps = rng.exponential(1.0, 4000)
    times = np.cumsum(gaps)
    taken, sizes = queueing.batched(times, lambda n: 0.8, 1)
    assert np.abs(taken - 0.8 - queueing.waits(gaps, np.full(4000, 0.8))).max() < 1e-9 and set(sizes) == {1}
    seconds = lambda n: 0.8 + 0.1 * n  # noqa: E731
    taken, sizes = queueing.batched(times / 4, seconds, 64)  # four times a lone server's limit
    assert sum(sizes) == 4000 and taken.max() < 20
    balance = queueing.batch_in_balance(4.0, 0.8, 0.1)
    assert abs(balance - 4.0 * seconds(balance)) < 1e-12 and 0.7 < np.mean(sizes) / balance < 1.3
    assert (
        queueing.batch_in_balance(10.0, 0.8, 0.1) == math.inf
        and queueing.batch_in_balance(0.1, 0.8, 0.1) == 1
    )


def test_thinning_follows_the_rate():
    times = autoscaling.arrivals_of(lambda t: 5.0 if t < 100 else 20.0, 20.0, 200.0)
    assert abs((times < 100).sum() - 500) < 80 and abs((times >= 100).sum() - 2000) < 160
    assert (np.diff(times) >= 0).all()


def test_fixed_replicas_are_a_queue_and_pay_for_each_second():
    rng = np.random.default_rng(6)
    times, needs = np.cumsum(rng.exponential(0.5, 3000)), rng.gamma(2, 0.6, 3000)
    found = autoscaling.autoscaled(times, needs, target=0.5, cold=0, most=1, least=1)
    gaps = np.diff(times, prepend=0)
    assert np.abs(found.latency - needs - queueing.waits(gaps, needs)).max() < 1e-6
    assert abs(found.paid - times[-1]) <= 15 and set(found.replicas) == {1}


def test_more_replicas_for_more_work_and_a_cold_start_costs_latency():
    times = autoscaling.arrivals_of(lambda t: 2.0 if t < 600 else 40.0, 40.0, 1800.0, seed=1)
    needs = np.random.default_rng(7).choice([0.5, 1.0, 1.5], len(times))
    p95 = {}
    for cold in (0.0, 60.0):
        found = autoscaling.autoscaled(times, needs, target=0.6, cold=cold, most=1000, hold=300)
        p95[cold] = float(np.quantile(found.latency, 0.95))
        late = found.replicas[found.at > 1200]
        assert abs(late.mean() - 40 / 0.6) < 12 and found.replicas[found.at < 600].mean() < 8
    assert p95[60.0] > 2 * p95[0.0]
    calm = autoscaling.autoscaled(times, needs, target=0.3, cold=60.0, first=10)
    assert calm.paid > found.paid and np.quantile(calm.latency, 0.95) < p95[60.0]
    with pytest.raises(ParameterError):
        autoscaling.autoscaled(times, needs, target=1.5, cold=1.0)


def test_recorded_times_are_there():
    for route in ("classify", "chat"):
        times = autoscaling.recorded(route)
        assert len(times) >= 20 and (times > 0).all() and np.isfinite(times).all()
    with pytest.raises(ParameterError):
        autoscaling.recorded("nothing")


# --- what a cluster would need ------------------------------------------------------------------------------------------

MANIFESTS = sorted((ROOT / "deploy").glob("*.yaml"))


def documents():
    return [
        each for path in MANIFESTS for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each
    ]


def checked(*paths):
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--schemafile",
        str(ROOT / "deploy" / "manifest.schema.json"),
    ]
    return subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, timeout=120)


def test_the_manifests_keep_their_schema(tmp_path):
    pieces = []
    for n, each in enumerate(documents()):
        pieces.append(tmp_path / f"{n}.yaml")
        pieces[-1].write_text(yaml.safe_dump(each), encoding="utf-8")
    done = checked(*pieces)
    assert len(pieces) >= 5 and done.returncode == 0, done.stdout


def test_a_manifest_without_limits_is_refused(tmp_path):
    broken = json.loads(json.dumps(next(each for each in documents() if each["kind"] == "StatefulSet")))
    del broken["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(broken), encoding="utf-8")
    done = checked(tmp_path / "broken.yaml")
    assert done.returncode != 0 and "limits" in done.stdout


def test_the_manifests_fit_the_service_and_each_other():
    from instructlab_apps.service.serving import DRAIN

    kinds = {each["kind"]: each for each in documents()}
    pod = kinds["StatefulSet"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    port = container["ports"][0]
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": port["name"]}
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert {"/readyz", "/healthz"} <= set(telemetry.ROUTES)
    assert str(port["containerPort"]) in container["args"]
    labels = pod["metadata"]["labels"].items()
    for kind in ("StatefulSet", "PodDisruptionBudget", "NetworkPolicy"):
        spec = kinds[kind]["spec"]
        chosen = spec.get("selector") or spec["podSelector"]
        assert chosen["matchLabels"].items() <= labels
    assert kinds["Service"]["spec"]["selector"].items() <= labels
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["spec"]["terminationGracePeriodSeconds"] > DRAIN + pause
    assert (
        pod["spec"]["securityContext"]["runAsNonRoot"] is True
        and not pod["spec"]["automountServiceAccountToken"]
    )
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    engine = kinds["InferenceService"]["spec"]["predictor"]
    assert engine["model"]["runtime"] and engine["maxReplicas"] == 1000 > engine["minReplicas"] >= 1


def test_the_image_runs_as_nobody_and_starts_the_command_that_exists():
    lines = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8").splitlines()
    steps = [line.split(" ", 1) for line in lines if line and line[0].isupper()]
    assert steps[0][0] == "FROM" and "@sha256" not in steps[0][1] and ":latest" not in steps[0][1]
    assert [rest for word, rest in steps if word == "USER"] == ["10001:10001"]
    entry = json.loads(next(rest for word, rest in steps if word == "ENTRYPOINT"))
    assert entry[-3:] == ["-m", "instructlab_utils", "serve"]
    assert any(word == "COPY" and "requirements.lock" in rest for word, rest in steps)
