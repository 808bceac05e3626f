"""Claims as data, one number per seed, and verdicts on simulated runs whose truth is known."""

import json

import numpy as np
import pytest
import toy_project as toy

from instructlab_utils.errors import ConfigError
from instructlab_utils.metrics import Interval, t_interval
from instructlab_utils.repro import claims, experiments, record

STATISTIC = claims.PairedDifference(
    kind="paired_difference",
    name="a against b",
    metric="accuracy",
    over="task",
    a=claims.Cell(method="new", n_train=50),
    b=claims.Cell(method="old", n_train=800),
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRUCTLAB_ROOT", str(tmp_path))
    return toy.make(tmp_path)


def simulated(rng, truth: float, seeds: int = 5, noise: float = 0.02, shared: float = 0.1) -> list[dict]:
    """Lines of two methods on two tasks; they share a large luck per seed, which pairing must remove."""
    lines = []
    for seed in range(seeds):
        for task in ("a", "b"):
            luck = rng.normal(0, shared)
            for method, n, mean in (("old", 800, 0.7), ("new", 50, 0.7 + truth)):
                accuracy = mean + luck + rng.normal(0, noise)
                cell = {"task": task, "n_train": n, "seed": seed, "method": method}
                lines.append({"stage": "run", "accuracy": accuracy, **cell})
    return lines


def word(lines: list[dict], threshold: float = 0.0, direction: str = "greater") -> str:
    numbers = claims.per_seed(STATISTIC, lines, ["a", "b"], sorted({line["seed"] for line in lines}))
    return claims.decide(t_interval(numbers.values), threshold, direction)


def test_one_number_per_seed_is_the_mean_over_tasks_of_the_paired_difference():
    lines = simulated(np.random.default_rng(0), 0.1, seeds=3)
    numbers = claims.per_seed(STATISTIC, lines, ["a", "b"], [0, 1, 2])
    value = {(x["task"], x["seed"], x["method"]): x["accuracy"] for x in lines}
    by_hand = [
        sum(value[task, seed, "new"] - value[task, seed, "old"] for task in "ab") / 2 for seed in range(3)
    ]
    np.testing.assert_allclose(numbers.values, by_hand, atol=1e-12)
    assert numbers.seeds == (0, 1, 2) and not numbers.missing
    np.testing.assert_allclose((numbers.by_task["a"] + numbers.by_task["b"]) / 2, numbers.values)


def test_a_seed_that_lacks_a_cell_gives_no_number_and_the_cell_is_named():
    lines = [
        x
        for x in simulated(np.random.default_rng(0), 0.1)
        if (x["seed"], x["task"], x["method"]) != (2, "b", "old")
    ]
    numbers = claims.per_seed(STATISTIC, lines, ["a", "b"], list(range(5)))
    assert numbers.seeds == (0, 1, 3, 4) and len(numbers.values) == 4
    assert numbers.missing == ("b · n = 800 · seed 2 · old",)


def test_tuning_lines_do_not_count():
    lines = simulated(np.random.default_rng(0), 0.1)
    stray = [{**x, "stage": "tune", "accuracy": 0.0} for x in lines]
    assert word(lines + stray) == word(lines)


@pytest.mark.parametrize(
    ("low", "high", "greater", "less"),
    [
        (0.1, 0.2, "supported", "refuted"),
        (-0.2, -0.1, "refuted", "supported"),
        (-0.1, 0.2, "undecided", "undecided"),
        (0.0, 0.2, "undecided", "undecided"),
        (-0.2, 0.0, "undecided", "undecided"),
    ],
)
def test_where_the_interval_lies_decides(low, high, greater, less):
    interval = Interval((low + high) / 2, low, high)
    assert claims.decide(interval, 0.0, "greater") == greater
    assert claims.decide(interval, 0.0, "less") == less


def test_known_truths_get_their_verdicts_and_chance_gets_few():
    rng = np.random.default_rng(1)
    verdicts = {truth: [word(simulated(rng, truth)) for _ in range(300)] for truth in (0.1, -0.1, 0.0)}
    assert verdicts[0.1].count("supported") >= 295 and verdicts[-0.1].count("refuted") >= 295
    wrong = len(verdicts[0.0]) - verdicts[0.0].count("undecided")
    assert wrong / 300 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)  # three standard errors above the level
    assert {word(simulated(rng, 0.1), threshold=0.3) for _ in range(20)} == {"refuted"}


def test_the_t_interval_covers_and_pairing_removes_the_shared_luck():
    rng = np.random.default_rng(2)
    inside, widths = 0, []
    for _ in range(1000):
        numbers = claims.per_seed(STATISTIC, simulated(rng, 0.05), ["a", "b"], list(range(5)))
        interval = t_interval(numbers.values)
        inside += interval.low <= 0.05 <= interval.high
        widths.append(interval.high - interval.low)
    assert 0.93 <= inside / 1000 <= 0.97
    assert np.mean(widths) < 0.1  # the shared luck alone has a standard deviation of 0.1


def test_the_bootstrap_draws_seeds_and_examples_and_keeps_the_pairs():
    rng = np.random.default_rng(3)
    same = np.full((2, 5, 40), 0.25)
    flat = claims.hierarchical_bootstrap(same, samples=50)
    assert (flat.mean, flat.low, flat.high) == pytest.approx((0.25, 0.25, 0.25))
    grid = rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.6, 0.3], size=(2, 5, 400))
    found = claims.hierarchical_bootstrap(grid, samples=500)
    assert found.low < found.mean < found.high and found.mean == pytest.approx(grid.mean())
    # seeds that differ widen it, although the examples say the same
    split = grid.copy()
    split[:, 0] -= 0.5
    split[:, 1] += 0.5
    wide = claims.hierarchical_bootstrap(split, samples=500)
    assert wide.high - wide.low > 2 * (found.high - found.low)
    assert claims.hierarchical_bootstrap(grid, samples=500) == found


def test_tasks_with_fewer_examples_count_as_much():
    grid = np.full((2, 3, 10), 1.0)
    grid[1] = 0.0
    grid[1, :, 4:] = np.nan
    found = claims.hierarchical_bootstrap(grid, samples=20)
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_examples_are_compared_by_right_and_wrong():
    targets = np.array([0, 1, 1, 0])
    stored = {
        ("a", 50, 0, "new"): (np.array([0, 1, 0, 0]), targets),
        ("a", 800, 0, "old"): (np.array([1, 1, 1, 0]), targets),
    }
    grid = claims.example_differences(STATISTIC, stored, ["a"], [0])
    assert grid.tolist() == [[[1.0, 0.0, -1.0, 0.0]]]
    assert claims.example_differences(STATISTIC, stored, ["a"], [0, 1]) is None


# --- the files -------------------------------------------------------------------------------------


def test_a_full_grid_gives_a_verdict_that_json_can_hold(root):
    toy.run_all()
    found = claims.verdict("T1")
    assert found["verdict"] == "supported" and found["seeds"] == [0, 1, 2] and not found["changed"]
    assert found["low"] <= found["mean"] <= found["high"] and found["bootstrap"][0] <= found["bootstrap"][1]
    assert json.loads(json.dumps(found)) == found
    text = claims.render(found)
    assert text.startswith("T1: Ten are enough.\nsupported (95% t interval over 3 seeds")
    assert f"{found['mean']:+.3f}" in text


def test_without_all_seeds_a_claim_is_not_tested(root):
    experiment = toy.run_all()
    (root / "build/runs/toy/laptop/b-n20-s2/lines.jsonl").unlink()
    experiments.results_path("toy").unlink()
    experiments.aggregate(experiment, "laptop")
    found = claims.verdict("T1")
    assert found["verdict"] == "not tested" and found["seeds"] == [0, 1]
    assert found["missing"] == ["b · n = 20 · seed 2 · small"] and "missing: 1 runs" in claims.render(found)


def test_nothing_recorded_is_not_tested(root):
    found = claims.verdict("T1")
    assert found["verdict"] == "not tested" and found["mean"] is None
    assert "not tested, 0 complete seeds" in claims.render(found)


def test_a_claim_whose_text_changed_after_the_run_is_seen(root):
    toy.run_all()
    path = root / "data/claims/T1.toml"
    path.write_text(path.read_text().replace("threshold = 0.0", "threshold = -0.5"))
    found = claims.verdict("T1")
    assert found["changed"] and "has changed since" in claims.render(found)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('direction = "greater"', 'direction = "more"', "direction"),
        ("threshold = 0.0", 'threshold = "0"', "threshold"),
        ('kind = "paired_difference"', 'kind = "difference"', r"statistic\.kind"),
        ("n_train = 10", "n_train = 0", r"statistic\.a\.n_train"),
        ('evidence = "none"\n', "", "'evidence' is missing"),
        ('id = "T1"', 'id = "T2"', "id is 'T2'"),
        ('source = "a toy"', 'source = "a toy"\nconfidence = 95.0', "confidence"),
        ('source = "a toy"', 'source = "a toy', "not valid TOML"),
    ],
)
def test_every_mistake_in_a_claim_is_one_sentence(root, old, new, message):
    path = root / "data/claims/T1.toml"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ConfigError, match=message) as caught:
        claims.load("T1")
    assert str(caught.value).startswith("data/claims/T1.toml") and "\n" not in str(caught.value)


def test_an_unknown_claim_names_the_known(root):
    with pytest.raises(ConfigError, match=r"unknown claim 'T9'.*known: T1"):
        claims.load("T9")


def test_the_course_s_own_claims_name_cells_that_their_experiment_runs(monkeypatch):
    monkeypatch.delenv("INSTRUCTLAB_ROOT", raising=False)
    assert "C1" in claims.names()
    for name in claims.names():
        claim = claims.load(name)
        experiment = experiments.load(claim.experiment).at("laptop")
        assert name in experiment.claims and len(experiment.axes.seed) >= 5
        for statistic in (claim.statistic, *claim.secondary):
            for cell in (statistic.a, statistic.b):
                assert cell.method in experiment.methods and cell.n_train in experiment.axes.n_train
        assert len(record.claims_sha([name])[name]) == 64
