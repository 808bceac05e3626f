"""Claims as data, one number per seed, and verdicts on simulated runs whose truth is known."""

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import toy_project as toy
from scipy import stats

from instructlab_repro import claims, experiments, provenance
from instructlab_utils import files
from instructlab_utils.decisions import decide, decide_equivalence, decide_several
from instructlab_utils.errors import ConfigError, RecordError
from instructlab_utils.intervals import (
    Estimate,
    hierarchical_bootstrap,
    holm,
    over_units,
    t_interval,
    t_test,
    tost,
)

ROOT = Path(__file__).resolve().parents[1]
AXES = {
    "task": ["a", "b"],
    "n_train": [10, 20, 40],
    "seed": [0, 1, 2, 3, 4],
    "method": ["new", "old", "third"],
}
PAIR = {
    "kind": "paired_difference",
    "name": "new against old",
    "metric": "accuracy",
    "over": ["task"],
    "a": {"method": "new", "n_train": 10},
    "b": {"method": "old", "n_train": 40},
}
CURVE = {"name": "x", "metric": "accuracy", "over": ["task"], "axis": "n_train"}

EXPERIMENT = """
name = "sim"
title = "A simulation"
notebook = "sim"
revision = 1
claims = ["T1"]
methods = ["new", "old", "third"]
[axes]
task = ["a", "b"]
n_train = [10, 20, 40]
seed = [0, 1, 2, 3, 4]
[resources]
minutes = 1
[[tables]]
title = "Test accuracy"
metric = "accuracy"
"""

HEAD = """
id = "T1"
statement = "Ten are enough."
kind = "{kind}"
lesson = "03"
experiment = "sim"
expected = "unknown"
{more}
[source]
work = "a toy"
place = "its only sentence"
evidence = "asserted"
"""

STATISTIC = """
name = "ten of the new against forty of the old"
kind = "paired_difference"
metric = "accuracy"
over = ["task"]
a = { method = "new", n_train = 10 }
b = { method = "old", n_train = 40 }
"""

DIFFERENCE = (
    HEAD.format(kind="difference", more='direction = "greater"\nthreshold = 0.0') + "[statistic]" + STATISTIC
)


def statistic(fields: dict, **more) -> claims.AnyStatistic:
    """A statistic as a claim's file would give it."""
    holder = claims.Claim.model_validate(
        {"id": "X", "statement": "", "kind": "difference", "lesson": "03", "expected": "unknown"}
        | {"source": {"work": "", "place": "", "evidence": "asserted"}, "statistic": fields | more}
    )
    assert holder.statistic is not None
    return holder.statistic


def grid(value: Callable[[str, int, int, str], float], **more) -> list[dict]:
    """A line for every cell of AXES; ``value`` takes task, size, seed and method."""
    return [
        {"stage": "run", "task": t, "n_train": n, "seed": s, "method": m, "accuracy": value(t, n, s, m), **more}
        for t in AXES["task"] for n in AXES["n_train"] for s in AXES["seed"] for m in AXES["method"]
    ]  # fmt: skip


def numbers(fields: dict, value: Callable[[str, int, int, str], float], **more) -> claims.PerSeed:
    return claims.per_seed(statistic(fields, **more), grid(value), AXES)


def simulated(rng, truth: float, noise: float = 0.02, shared: float = 0.1) -> list[dict]:
    """Lines of two methods on two tasks; they share a large luck per seed, which pairing must remove."""
    luck = rng.normal(0, shared, (5, 2))
    own = rng.normal(0, noise, (5, 2, 2))
    cells = (("old", 40, 0.7), ("new", 10, 0.7 + truth))
    return [
        {"stage": "run", "task": task, "n_train": n, "seed": seed, "method": method,
         "accuracy": mean + luck[seed, i] + own[seed, i, j]}
        for seed in range(5) for i, task in enumerate("ab") for j, (method, n, mean) in enumerate(cells)
    ]  # fmt: skip


# --- one number per seed ---------------------------------------------------------------------------


def test_a_paired_difference_is_the_mean_over_tasks_per_seed():
    lines = simulated(np.random.default_rng(0), 0.1)
    found = claims.per_seed(statistic(PAIR), lines, AXES)
    value = {(x["task"], x["seed"], x["method"]): x["accuracy"] for x in lines}
    by_hand = [sum(value[t, seed, "new"] - value[t, seed, "old"] for t in "ab") / 2 for seed in range(5)]
    np.testing.assert_allclose(found.values, by_hand, atol=1e-12)
    assert found.seeds == (0, 1, 2, 3, 4) and not found.missing
    np.testing.assert_allclose((found.by_task["a"] + found.by_task["b"]) / 2, found.values)


def test_a_seed_that_lacks_a_cell_gives_no_number_and_the_cell_is_named():
    lines = simulated(np.random.default_rng(0), 0.1)
    kept = [x for x in lines if (x["seed"], x["task"], x["method"]) != (2, "b", "old")]
    found = claims.per_seed(statistic(PAIR), kept, AXES)
    assert found.seeds == (0, 1, 3, 4) and len(found.values) == 4
    assert found.missing == ("b · n_train = 40 · seed = 2 · old",)
    other = claims.per_seed(statistic(PAIR, metric="f1"), kept, AXES)
    assert "a · n_train = 10 · seed = 0 · new · its f1" in other.missing and not other.seeds
    assert claims.per_seed(statistic(PAIR), [{**x, "accuracy": None} for x in lines], AXES).seeds == ()


def test_tuning_lines_do_not_count():
    lines = simulated(np.random.default_rng(0), 0.1)
    stray = [{**x, "stage": "tune", "accuracy": 0.0} for x in lines]
    both = [claims.per_seed(statistic(PAIR), found, AXES).values for found in (lines, lines + stray)]
    np.testing.assert_array_equal(*both)


def test_value_ratio_and_range():
    at = {"method": "new", "n_train": 20}
    level = {"kind": "value", "name": "x", "metric": "accuracy", "over": ["task"], "at": at}
    found = numbers(level, lambda t, n, s, m: s + (t == "b") if (n, m) == (20, "new") else np.nan)
    np.testing.assert_allclose(found.values, np.arange(5) + 0.5)
    np.testing.assert_allclose(found.by_task["b"], np.arange(5) + 1)
    ratio = numbers(PAIR, lambda t, n, s, m: 8.0 if m == "new" else 2.0 + 2 * (t == "b"), kind="ratio")
    np.testing.assert_allclose(ratio.values, 1.5)  # log2 of 4 on task a, of 2 on task b
    with pytest.raises(RecordError, match="positive numbers"):
        numbers(PAIR, lambda t, n, s, m: 0.0, kind="ratio")
    spread = {**CURVE, "kind": "range", "axis": "method", "at": {"n_train": 20}}
    height = {"new": 0.5, "old": 0.1, "third": 0.9}
    assert numbers(spread, lambda t, n, s, m: height[m] + s).values == pytest.approx([0.8] * 5)
    assert numbers(spread, lambda t, n, s, m: height[m] + s, values=["new", "old"]).values == pytest.approx(
        [0.4] * 5
    )


def test_a_spread_difference_compares_two_ranges_on_the_same_seed():
    cells = {"a": [("new", 10), ("new", 20), ("new", 40)], "b": [("old", 10), ("third", 10)]}
    fields = {
        "kind": "spread_difference", "name": "x", "metric": "accuracy", "over": ["task"],
        **{side: [{"method": m, "n_train": n} for m, n in found] for side, found in cells.items()},
    }  # fmt: skip
    found = numbers(fields, lambda t, n, s, m: n / 100 if m == "new" else (s / 100 if m == "old" else 0.0))
    np.testing.assert_allclose(found.values, 0.3 - np.arange(5) / 100, atol=1e-12)
    with pytest.raises(ValueError, match="at least 2"):
        numbers(fields | {"b": fields["b"][:1]}, lambda t, n, s, m: 0.0)


def test_a_slope_is_the_least_squares_line():
    fields = {**CURVE, "kind": "slope", "at": {"method": "new"}}
    np.testing.assert_allclose(
        numbers(fields, lambda t, n, s, m: 0.5 + s * n).values, np.arange(5), atol=1e-12
    )
    per_decade = numbers(fields, lambda t, n, s, m: s * np.log10(n) + (t == "a"), log10=True)
    np.testing.assert_allclose(per_decade.values, np.arange(5), atol=1e-12)
    bent = numbers(fields, lambda t, n, s, m: n**2)
    np.testing.assert_allclose(bent.values, stats.linregress([10, 20, 40], [100, 400, 1600]).slope)


def test_a_rank_correlation_is_spearman_s():
    published = {"new": 3.0, "old": 1.0, "third": 2.0}
    fields = {
        **CURVE,
        "kind": "rank_correlation",
        "axis": "method",
        "at": {"n_train": 20},
        "reference": published,
    }
    ours = {"new": 0.9, "old": 0.2, "third": 0.3}
    assert numbers(fields, lambda t, n, s, m: ours[m]).values == pytest.approx([1.0] * 5)
    assert numbers(fields, lambda t, n, s, m: -ours[m]).values == pytest.approx([-1.0] * 5)
    assert numbers(fields, lambda t, n, s, m: 0.5).values == pytest.approx([0.0] * 5)
    two = statistic(fields, reference={}, other="forgetting")
    lines = [{**x, "forgetting": -x["accuracy"]} for x in grid(lambda t, n, s, m: ours[m])]
    assert claims.per_seed(two, lines, AXES).values == pytest.approx([-1.0] * 5)


def test_argmax_is_the_place_of_the_best():
    fields = {**CURVE, "kind": "argmax", "at": {"method": "new"}}
    peak = numbers(fields, lambda t, n, s, m: -abs(n - (10, 20, 40, 20, 20)[s]))
    assert peak.values.tolist() == [10, 20, 40, 20, 20]
    lowest = numbers(fields, lambda t, n, s, m: abs(n - 20), better="lower", log10=True)
    assert lowest.values == pytest.approx([np.log10(20)] * 5)


# --- words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "greater", "less"),
    [
        (0.1, 0.2, "supported", "refuted"),
        (-0.2, -0.1, "refuted", "supported"),
        (-0.1, 0.2, "undecided", "undecided"),
    ],
)
def test_where_the_interval_lies_decides(low, high, greater, less):
    found = Estimate((low + high) / 2, (high - low) / 2 / stats.t.ppf(0.975, 4), 4)
    assert (found.interval().low, found.interval().high) == pytest.approx((low, high))
    assert decide(found, "greater").word == greater
    assert decide(found, "less").word == less


def test_holm_gives_the_published_numbers():
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0]) and holm([0.04]) == pytest.approx([0.04])


def test_p_values_and_intervals_say_the_same():
    rng = np.random.default_rng(0)
    for _ in range(50):
        x = rng.normal(0.01, 0.02, 5)
        assert t_test(x, 0.01) == pytest.approx(stats.ttest_1samp(x, 0.01).pvalue)
        sides = [
            stats.ttest_1samp(x, -0.03, alternative="greater"),
            stats.ttest_1samp(x, 0.03, alternative="less"),
        ]
        assert tost(x, 0.03) == pytest.approx(max(side.pvalue for side in sides))
        interval, narrow = t_interval(x), t_interval(x, 0.9)
        assert (t_test(x, 0.0) < 0.05) == (interval.low > 0 or interval.high < 0)
        assert (tost(x, 0.03) < 0.05) == (-0.03 < narrow.low and narrow.high < 0.03)
    assert t_test([0.1, 0.1]) == 0.0 and np.isnan(t_test([0.1, 0.1], 0.1))
    assert tost([0.0, 0.0], 0.1) == 0.0 and not tost([0.1, 0.1], 0.1) < 0.05


def several(values, sides, k):
    """By the rules of the first edition."""
    parts = [decide(over_units(x), *side) for x, side in zip(values, sides, strict=True)]
    return decide_several(parts, k, edition=1)


def test_several_comparisons_make_one_word():
    good, bad, open_ = (
        np.array([0.9, 1.0, 1.1]) * 10,
        np.array([-0.9, -1.0, -1.1]) * 10,
        np.array([-1.0, 0.0, 1.0]),
    )
    up = ("greater", 0.0)

    def word(*values: np.ndarray, k: int) -> str:
        return several(values, [up] * len(values), k)[0]

    assert word(good, good, k=2) == "supported" and word(good, open_, k=2) == "undecided"
    assert word(good, bad, k=2) == "refuted" and word(bad, open_, k=2) == "refuted"
    assert word(good, bad, open_, k=1) == "supported" and word(bad, bad, open_, k=2) == "refuted"
    assert word(good, bad, open_, k=2) == "undecided"
    _, words, p = several([good, good], [up, ("less", 0.0)], 2)
    assert words == ["supported", "refuted"] and p[0] == pytest.approx(2 * t_test(good))
    weak = np.array([0.1, 0.9, 1.0, 1.4, 0.3])  # significant alone, not among three
    same = np.array([0.0, 0.0])
    assert several([same, same], [up, up], 1)[1] == ["undecided"] * 2
    assert t_test(weak) < 0.05 <= 3 * t_test(weak)
    assert several([weak] * 3, [up] * 3, 1)[1] == ["undecided"] * 3


# --- simulations with known truth ------------------------------------------------------------------


def test_the_t_interval_covers_and_chance_gets_few_verdicts():
    rng, runs = np.random.default_rng(2), 2000
    fixed, inside, wrong, widths = statistic(PAIR), 0, 0, []
    for _ in range(runs):
        found = claims.per_seed(fixed, simulated(rng, 0.05), AXES)
        interval = t_interval(found.values)
        inside += interval.low <= 0.05 <= interval.high
        wrong += decide(over_units(found.values), "greater", 0.05).word != "undecided"
        widths.append(interval.high - interval.low)
    assert 0.93 <= inside / runs <= 0.97
    assert wrong / runs <= 0.06
    assert np.mean(widths) < 0.1  # the shared luck alone has a standard deviation of 0.1


def test_known_truths_get_their_verdicts():
    rng, fixed = np.random.default_rng(1), statistic(PAIR)

    def words(truth: float, threshold: float = 0.0, direction: str = "greater") -> list[str]:
        draws = (claims.per_seed(fixed, simulated(rng, truth), AXES).values for _ in range(100))
        return [decide(over_units(values), direction, threshold).word for values in draws]

    assert words(0.1).count("supported") >= 98 and words(-0.1).count("refuted") >= 98
    assert words(0.1, direction="less").count("refuted") >= 98
    assert set(words(0.1, threshold=0.3)) == {"refuted"}


@pytest.mark.parametrize("seeds", [5, 10])
def test_equivalence_errs_seldom_and_finds_what_is_there(seeds):
    rng, margin = np.random.default_rng(seeds), 0.02

    def words(truth: float, sd: float = 0.01, runs: int = 2000) -> list[str]:
        draws = rng.normal(truth, sd, (runs, seeds))
        return [decide_equivalence(over_units(values), margin) for values in draws]

    for edge in (margin, -margin):
        found = words(edge)
        assert found.count("supported") / 2000 <= 0.06 and found.count("refuted") / 2000 <= 0.06
    assert words(0.0, sd=0.005, runs=200).count("supported") >= 195
    assert words(0.06, runs=200).count("refuted") >= 195
    assert words(0.0, sd=0.05, runs=200).count("supported") <= 12


@pytest.mark.parametrize("correlated", [0.0, 0.9])
def test_holm_keeps_the_family_error(correlated):
    rng, runs, parts = np.random.default_rng(4), 4000, 4
    common = rng.normal(size=(runs, 1, 5)) * np.sqrt(correlated)
    draws = common + rng.normal(size=(runs, parts, 5)) * np.sqrt(1 - correlated)
    sides = [("greater", 0.0)] * parts
    found = [several(list(values), sides, parts) for values in draws]
    assert sum(set(words) != {"undecided"} for _, words, _ in found) / runs <= 0.06
    assert sum(word != "undecided" for word, _, _ in found) / runs <= 0.06
    draws[:, 0] += 20  # one comparison is true, and a false word for one of the others is still rare
    found = [several(list(values), sides, parts) for values in draws]
    assert np.mean([words[0] == "supported" for _, words, _ in found]) >= 0.99
    assert sum(set(words[1:]) != {"undecided"} for _, words, _ in found) / runs <= 0.06


def coverage():
    spec = importlib.util.spec_from_file_location(
        "coverage_of_intervals", ROOT / "benchmarks" / "coverage.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_measured_coverage_is_recorded_and_the_intervals_hold_what_they_aim_at():
    module = coverage()
    stored = json.loads(module.PAGE.read_text(encoding="utf-8"))
    assert stored["simulations"] >= 2000 and stored["examples"] == 400
    assert set(stored["coverage"]) == {"5", "10", "20"} and stored["coverage"] == stored["worlds"]["normal"]
    for world in ("normal", "heavy_tailed"):
        for found in stored["worlds"][world].values():
            assert 0.93 <= found["t_interval"]["these_examples"] <= 0.97
            assert 0.93 <= found["crossed"]["new_examples"] <= 0.98
            assert found["t_interval"]["new_examples"] < 0.935  # seeds alone know nothing of the items' luck
            assert 0.5 < found["hierarchical_bootstrap"]["these_examples"] <= 1  # reported, not gated
    for found in stored["worlds"]["one_in_ten_collapses"].values():
        assert (
            0.8 < found["crossed"]["new_examples"] < 0.94
        )  # reported: no interval mends a run that did not train
    small = module.page(simulations=20, samples=50)
    for world, seeds in ((w, s) for w in stored["worlds"] for s in stored["coverage"]):
        for interval, shares in small["worlds"][world][seeds].items():
            recorded = stored["worlds"][world][seeds][interval]
            assert set(recorded) == set(shares) == {"these_examples", "new_examples", "width"}
            collapsed = world.startswith("one")
            assert collapsed or shares["width"] == pytest.approx(recorded["width"], rel=0.3)


# --- the bootstrap beside it -----------------------------------------------------------------------


def test_the_bootstrap_draws_seeds_and_examples_and_keeps_the_pairs():
    rng = np.random.default_rng(3)
    same = np.full((2, 5, 40), 0.25)
    flat = hierarchical_bootstrap(same, samples=50)
    assert (flat.mean, flat.low, flat.high) == pytest.approx((0.25, 0.25, 0.25))
    cells = rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.6, 0.3], size=(2, 5, 400))
    found = hierarchical_bootstrap(cells, samples=500)
    assert found.low < found.mean < found.high and found.mean == pytest.approx(cells.mean())
    # seeds that differ widen it, although the examples say the same
    split = cells.copy()
    split[:, 0] -= 0.5
    split[:, 1] += 0.5
    wide = hierarchical_bootstrap(split, samples=500)
    assert wide.high - wide.low > 2 * (found.high - found.low)
    assert hierarchical_bootstrap(cells, samples=500) == found


def test_tasks_with_fewer_examples_count_as_much():
    cells = np.full((2, 3, 10), 1.0)
    cells[1] = 0.0
    cells[1, :, 4:] = np.nan
    found = hierarchical_bootstrap(cells, samples=20)
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_examples_are_compared_by_scores_or_by_right_and_wrong():
    axes = AXES | {"task": ["a"], "seed": [0]}
    targets = np.array([0, 1, 1, 0])
    new = {"task": "a", "n_train": 10, "seed": 0, "method": "new"}
    old = {"task": "a", "n_train": 40, "seed": 0, "method": "old"}
    stored = [
        {**new, "predictions": np.array([0, 1, 0, 0]), "targets": targets},
        {**old, "predictions": np.array([1, 0, 1, 0]), "targets": targets},
    ]
    lines = [{**new, "accuracy": 0.75, "loss": 0.4}, {**old, "accuracy": 0.5, "loss": 0.5}]

    def examples(fields: dict, rows: list[dict], seeds: tuple[int, ...] = (0,)) -> list | None:
        one = statistic(fields)
        found = claims.numbers_of(one, claims.example_cells(one, rows, lines, axes, seeds))
        return None if found is None else found.tolist()

    assert examples(PAIR, stored) == [[[1.0, 1.0, -1.0, 0.0]]]
    level = {"kind": "value", "name": "x", "metric": "accuracy", "over": ["task"], "at": PAIR["a"]}
    assert examples(level, stored) == [[[1.0, 1.0, 0.0, 1.0]]]
    assert examples(PAIR, stored, (0, 1)) is None and examples(PAIR, stored[:1]) is None
    assert examples(PAIR | {"kind": "ratio"}, stored) is None
    assert examples(PAIR | {"metric": "loss"}, stored) is None
    scored = [{**new, "scores": np.array([0.3, 0.5])}, {**old, "scores": np.array([0.4, 0.6])}]
    assert examples(PAIR | {"metric": "loss"}, scored) == [[[pytest.approx(-0.1), pytest.approx(-0.1)]]]
    assert examples(PAIR, scored) is None  # their mean is not the accuracy: they score something else


# --- the files -------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project with an experiment of 30 blocks, one claim, and no results."""
    monkeypatch.setenv("INSTRUCTLAB_ROOT", str(tmp_path))
    files = {
        "pyproject.toml": "",
        "data/experiments/sim.toml": EXPERIMENT,
        "data/claims/T1.toml": DIFFERENCE,
        "notebooks/experiments/sim.ipynb": toy.notebook(),
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def write(root: Path, text: str, old: str = "", new: str = "") -> None:
    assert old in text
    (root / "data/claims/T1.toml").write_text(text.replace(old, new, 1), encoding="utf-8")


def record_all(value: Callable[[str, int, int, str], float], schema: int = 2) -> None:
    """Results of every block, as `aggregate` would have written them."""
    experiment = experiments.load("sim").at("laptop")
    known = {tuple(block.coordinates.values()): block for block in experiment.blocks()}
    rows = []
    for line in grid(value, claims=provenance.claims_sha(["T1"]), schema=schema):
        block = known[line["task"], line["n_train"], line["seed"]]
        rows.append({**line, "block": block.id, "key": experiment.key(block)})
    files.write_lines(experiments.results_path("sim"), rows)


def clear(t: str, n: int, s: int, m: str) -> float:
    return 0.5 + 0.2 * (m == "new") + 0.01 * s * (m == "new") + 0.001 * n


SEVERAL = "".join(
    f"""
[[comparisons]]
direction = "greater"
threshold = {threshold}
[comparisons.statistic]{STATISTIC}"""
    for threshold in (0.0, 0.1)
)


def test_a_full_grid_gives_a_verdict_that_json_can_hold(root):
    write(root, DIFFERENCE + "[[secondary]]" + STATISTIC.replace("n_train = 40", "n_train = 10"))
    record_all(clear)
    found = claims.verdict("T1")
    assert found["verdict"] == "supported" and found["seeds"] == [0, 1, 2, 3, 4]
    assert not (found["changed"] or found["outdated"] or found["stale"]) and found["missing"] == []
    assert found["low"] <= found["mean"] <= found["high"] and found["mean"] == pytest.approx(0.19)
    assert found["secondary"][0]["mean"] == pytest.approx(0.22) and found["bootstrap"] is None
    assert json.loads(json.dumps(found)) == found
    text = claims.render(found)
    assert text.startswith(
        "T1: Ten are enough.\nsupported (95% t interval over 5 seeds, claimed to lie above 0;"
    )
    assert "+0.190" in text and "without a vote" in text and "+0.220" in text


def test_equivalence_conjunction_and_k_of_n(root):
    record_all(clear)
    write(root, HEAD.format(kind="equivalence", more="margin = 0.3") + "[statistic]" + STATISTIC)
    found = claims.verdict("T1")
    assert found["verdict"] == "supported" and "two one-sided t tests" in claims.render(found)
    assert "within ±0.3" in claims.render(found)
    write(root, HEAD.format(kind="equivalence", more="margin = 0.02") + "[statistic]" + STATISTIC)
    assert claims.verdict("T1")["verdict"] == "refuted"
    write(root, HEAD.format(kind="conjunction", more="") + SEVERAL)
    found = claims.verdict("T1")
    assert (
        found["verdict"] == "supported" and [c["verdict"] for c in found["comparisons"]] == ["supported"] * 2
    )
    assert found["mean"] is None and found["comparisons"][1]["mean"] == pytest.approx(0.19)
    text = claims.render(found)
    assert "2 of 2 must hold after Holm" in text and "after Holm" in text.splitlines()[2]
    assert json.loads(json.dumps(found)) == found
    write(root, HEAD.format(kind="conjunction", more="") + SEVERAL, "threshold = 0.1", "threshold = 0.9")
    found = claims.verdict("T1")
    assert found["verdict"] == "refuted" and [c["verdict"] for c in found["comparisons"]] == [
        "supported",
        "refuted",
    ]
    write(root, HEAD.format(kind="k-of-n", more="k = 1") + SEVERAL, "threshold = 0.1", "threshold = 0.9")
    assert claims.verdict("T1")["verdict"] == "supported"


def test_without_all_seeds_a_claim_is_not_tested(root):
    record_all(clear)
    path = experiments.results_path("sim")
    lines = [x for x in files.read_lines(path) if (x["block"], x["method"]) != ("b-n40-s2", "old")]
    files.write_lines(path, lines)
    for text in (DIFFERENCE, HEAD.format(kind="conjunction", more="") + SEVERAL):
        write(root, text)
        found = claims.verdict("T1")
        assert found["verdict"] == "not tested" and found["seeds"] == [0, 1, 3, 4]
        assert found["missing"] == ["b · n_train = 40 · seed = 2 · old"]
        assert "missing: 1 runs" in claims.render(found)


@pytest.mark.parametrize("text", [DIFFERENCE, HEAD.format(kind="conjunction", more="") + SEVERAL])
def test_nothing_recorded_is_not_tested(root, text):
    write(root, text)
    found = claims.verdict("T1")
    assert found["verdict"] == "not tested" and found["mean"] is None and not found["outdated"]
    assert "not tested, 0 complete seeds" in claims.render(found)


def test_a_draft_needs_no_statistic_and_is_not_tested(root):
    (root / "data/experiments/sim.toml").unlink()
    write(root, HEAD.format(kind="difference", more=""), 'experiment = "sim"\n')
    found = claims.verdict("T1")
    assert found["verdict"] == "not tested" and found["statistic"] is None
    assert "a draft" in claims.render(found)


def test_an_argument_is_as_good_as_its_test(root):
    (root / "data/experiments/sim.toml").unlink()
    text = HEAD.format(kind="argument", more="") + (
        '[argument]\ntest = "tests/test_x.py::test_y"\ntext = "No such data."\nconclusion = "refuted"\n'
    )
    write(root, text, 'experiment = "sim"\n')
    with pytest.raises(ConfigError, match="argument.test: there is no 'tests/test_x.py::test_y'"):
        claims.verdict("T1")
    (root / "tests").mkdir()
    (root / "tests/test_x.py").write_text("def test_z(): pass\n")
    with pytest.raises(ConfigError, match="argument.test"):
        claims.verdict("T1")
    (root / "tests/test_x.py").write_text("def test_y(): pass\n")
    found = claims.verdict("T1")
    assert found["verdict"] == "refuted" and "by argument: No such data. (tests/" in claims.render(found)


def test_what_changed_since_the_runs_is_flagged(root):
    record_all(clear)
    path = experiments.results_path("sim", "laptop")
    rows = files.read_lines(path)
    files.write_lines(
        path, [*rows, rows[0] | {"stage": "tune", "claims": {"T1": "as it was before the runs"}}]
    )
    assert not claims.verdict("T1")["changed"]
    files.write_lines(path, rows)
    write(root, DIFFERENCE, "threshold = 0.0", "threshold = -0.5")
    found = claims.verdict("T1")
    assert found["changed"] and not found["outdated"] and "text has changed since" in claims.render(found)
    (root / "data/experiments/sim.toml").write_text(EXPERIMENT.replace("revision = 1", "revision = 2"))
    found = claims.verdict("T1")
    assert found["outdated"] and "settings have changed since" in claims.render(found)
    experiment = experiments.load("sim").at("laptop")
    block = experiment.blocks()[-1]
    key = experiment.key(block)
    for status, of, stale in (("different", key, True), ("different", "x", False), ("within", key, False)):
        entry = {"status": status, "key": of, "block": block.id}
        files.write_json(root / "data/results/verified.json", {"sim.laptop": entry})
        assert claims.verdict("T1")["stale"] is stale
    assert claims.ledger()[0]["flags"] == ["changed", "outdated"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('direction = "greater"', 'direction = "more"', "direction"),
        ('direction = "greater"\n', "", "direction: is missing; a claim of the kind 'difference' needs it"),
        ("threshold = 0.0", 'threshold = "0"', "threshold"),
        ("threshold = 0.0", "threshold = 0.0\nmargin = 0.1", "margin: has no place in a claim of the kind"),
        ('kind = "difference"', 'kind = "guess"', "kind"),
        ('kind = "paired_difference"', 'kind = "difference"', "statistic: input tag"),
        ('metric = "accuracy"', "metric = 3", r"statistic\.metric"),
        ("over = [", "under = [", "unknown key 'statistic.under'"),
        (
            "n_train = 10",
            "n_train = 11",
            r"statistic\.a\.n_train: the experiment does not run 11; known: 10, 20, 40",
        ),
        ('method = "old"', 'method = "odd"', r"statistic\.b\.method: the experiment does not run 'odd'"),
        ("n_train = 10", "size = 10", r"statistic\.a: 'size' is not an axis"),
        ('over = ["task"]', 'over = ["tusk"]', r"statistic\.over: 'tusk' is not an axis"),
        ('over = ["task"]', "", r"statistic\.a: says nothing of 'task'"),
        ("n_train = 10", 'n_train = 10, task = "a"', r"statistic\.a: 'task' is named twice"),
        ("n_train = 10", "n_train = 10, seed = 1", r"statistic\.a: 'seed' is not an axis"),
        ('evidence = "asserted"\n', "", "'source.evidence' is missing"),
        ('evidence = "asserted"', 'evidence = "rumour"', r"source\.evidence"),
        ('lesson = "03"', 'lesson = "3"', "lesson"),
        ('id = "T1"', 'id = "T2"', "id is 'T2'"),
        ('expected = "unknown"', 'expected = "unknown"\nconfidence = 95.0', "confidence"),
        ('statement = "Ten', "statement = Ten", "not valid TOML"),
        ('experiment = "sim"\n', "", "experiment: data/experiments/sim.toml lists this claim"),
    ],
)
def test_every_mistake_in_a_claim_is_one_sentence(root, old, new, message):
    write(root, DIFFERENCE, old, new)
    with pytest.raises(ConfigError, match=message) as caught:
        claims.load("T1")
    assert str(caught.value).startswith("data/claims/T1.toml") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ('kind = "slope"\naxis = "task"\nat = { method = "new", n_train = 10 }', "axis: 'task' holds text"),
        ('kind = "argmax"\naxis = "task"\nat = { method = "new", n_train = 10 }', "axis: 'task' holds text"),
        (
            'kind = "slope"\naxis = "size"\nat = { method = "new" }\nover = ["task"]',
            "axis: 'size' is not an axis",
        ),
        (
            'kind = "range"\naxis = "method"\nat = { n_train = 10 }\nover = ["task"]\nlog10 = true',
            "log10: 'method'",
        ),
        (
            'kind = "range"\naxis = "method"\nat = { n_train = 10 }\nover = ["task"]\nvalues = ["odd"]',
            "values: ",
        ),
        (
            'kind = "range"\naxis = "method"\nat = { n_train = 10 }\nover = ["task"]\nvalues = ["new"]',
            "needs 2",
        ),
        (
            'kind = "slope"\naxis = "n_train"\nat = { n_train = 10, method = "new" }\nover = ["task"]',
            "named twice",
        ),
        (
            'kind = "rank_correlation"\naxis = "method"\nat = { n_train = 10 }\nover = ["task"]',
            "either a reference",
        ),
        (
            'kind = "spread_difference"\nover = ["task"]\na = [{ n_train = 10 }]\nb = [{ n_train = 10 }, { n_train = 20 }]',
            r"statistic\.a: list should have at least 2 items",
        ),
        (
            'kind = "rank_correlation"\naxis = "method"\nat = { n_train = 10 }\nover = ["task"]\n'
            "reference = { new = 1, old = 2, odd = 3 }",
            "reference: the experiment does not run 'odd'",
        ),
    ],
)
def test_every_mistake_in_a_curve_is_one_sentence(root, fields, message):
    write(
        root, DIFFERENCE.split("[statistic]")[0] + f'[statistic]\nname = "x"\nmetric = "accuracy"\n{fields}\n'
    )
    with pytest.raises(ConfigError, match=message) as caught:
        claims.load("T1")
    assert str(caught.value).startswith("data/claims/T1.toml: statistic") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "more", "body", "message"),
    [
        ("k-of-n", "k = 3", SEVERAL, "k: 3 is more than there are comparisons"),
        ("k-of-n", "", SEVERAL, "k: is missing"),
        ("conjunction", "", "", "comparisons: is missing"),
        ("equivalence", "margin = -0.1", "[statistic]" + STATISTIC, "margin"),
        ("argument", "", "", "experiment: an argument has no run|argument: is missing"),
    ],
)
def test_every_kind_says_what_it_needs(root, kind, more, body, message):
    write(root, HEAD.format(kind=kind, more=more) + body)
    with pytest.raises(ConfigError, match=message) as caught:
        claims.load("T1")
    assert str(caught.value).startswith("data/claims/T1.toml")


def test_the_experiment_must_list_the_claim(root):
    (root / "data/experiments/sim.toml").write_text(EXPERIMENT.replace('claims = ["T1"]', "claims = []"))
    with pytest.raises(ConfigError, match="sim.toml does not list T1"):
        claims.load("T1")


def test_an_unknown_claim_names_the_known(root):
    with pytest.raises(ConfigError, match=r"unknown claim 'T9'.*known: T1"):
        claims.load("T9")


# --- the ledger ------------------------------------------------------------------------------------


def test_the_ledger_has_a_row_per_claim_and_the_same_bytes(root):
    record_all(clear)
    draft = HEAD.format(kind="difference", more="").replace("T1", "T10").replace('experiment = "sim"\n', "")
    (root / "data/claims/T10.toml").write_text(draft.replace('"03"', '"26"'))
    (root / "data/claims/T2.toml").write_text(draft.replace("T10", "T2"))
    (root / "notebooks/03_loop.ipynb").write_text("{}")
    files.write_text(root / "data/results/tables/sim.md", "a table\n")
    first, second, last = claims.ledger()
    assert [row["claim"] for row in (first, second, last)] == ["T1", "T2", "T10"]
    assert first["verdict"] == "supported" and first["mean"] == pytest.approx(0.19) and first["seeds"] == 5
    assert first["table"] == "data/results/tables/sim.md" and first["lesson"] == "notebooks/03_loop.ipynb"
    assert second["verdict"] == last["verdict"] == "not tested" and last["lesson"] == "planned"
    assert last["table"] is None and last["flags"] == [] and last["mean"] is None
    path = claims.write_ledger()
    assert path == root / "data/results/ledger.json" and files.read_json(path) == claims.ledger()
    before = path.read_bytes()
    assert claims.write_ledger().read_bytes() == before
    write(root, HEAD.format(kind="conjunction", more="") + SEVERAL)
    parts = claims.ledger()[0]["comparisons"]
    assert [part["threshold"] for part in parts] == [0.0, 0.1] and all(part["p"] < 0.05 for part in parts)


def test_a_verdict_and_the_ledger_show_the_same_last_digit(monkeypatch):
    """Some means lie exactly between two digits, where rounding twice and rounding once differ."""
    monkeypatch.delenv("INSTRUCTLAB_ROOT", raising=False)
    rows = [row for row in claims.ledger() if row["mean"] is not None]
    assert rows
    for row in rows:
        assert f": {row['mean']:+.3f} [" in claims.render(claims.verdict(row["claim"])), row["claim"]


def test_the_course_s_own_claims_are_all_there_and_sound(monkeypatch):
    monkeypatch.delenv("INSTRUCTLAB_ROOT", raising=False)
    found = claims.names()
    assert found[:25] == [f"C{i}" for i in range(1, 26)]  # of the articles; the others have another letter
    assert all(re.fullmatch(r"(?!C\d)[A-Z]+\d+", name) for name in found[25:])
    for name in found:
        claim = claims.load(name)  # checks every cell that it names
        assert claim.statement.endswith(".") and 0 <= int(claim.lesson) <= 27
        ours = name in found[:25] or name == "CL1"  # the causal half of C17, in lesson 21
        assert ("(in Chinese, no. 00" in claim.source.work) == ours and claim.source.place
        text = (ROOT / f"data/claims/{name}.toml").read_text(encoding="utf-8")
        is_draft = claim.experiment is None and claim.argument is None
        assert text.startswith("# Draft: no experiment yet.") == is_draft
        if claim.experiment is not None:
            # a bank of wordings that ends after four quarters; thirty articles as units, nothing trained
            least = {"injection": 4, "eight_bits": 3}.get(claim.experiment, 5)
            assert len(experiments.load(claim.experiment).at("laptop").axes["seed"]) >= least
        assert len(provenance.claims_sha([name])[name]) == 64
