"""The script that recomputes every verdict agrees with the ledger, and it would say so if it did not."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import recompute
import test_claims as sim

from instructlab_repro import claims, experiments
from instructlab_repro.pages import blocks_of

ROOT = Path(__file__).resolve().parents[1]
root = sim.root  # the fixture: a project with one experiment and one claim


def test_every_committed_verdict_is_recomputed():
    assert recompute.disagreements(ROOT) == []


def test_nothing_of_this_project_is_imported():
    text = (ROOT / "tests" / "recompute.py").read_text(encoding="utf-8")
    assert "import instructlab" not in text and "from instructlab" not in text
    assert len(text.splitlines()) <= 400


@pytest.fixture
def copy(tmp_path):
    """The data of two claims of a small experiment, to be spoilt."""
    for folder in ("data/claims", "data/results", "data/experiments"):
        (tmp_path / folder).mkdir(parents=True)
    results = [
        f"results/{name}" for name in ("zero_shot.jsonl", "zero_shot.predictions.parquet", "ledger.json")
    ]
    for name in ["claims/SF1.toml", "experiments/zero_shot.toml", *results]:
        shutil.copy(ROOT / "data" / name, tmp_path / "data" / name)
    assert recompute.disagreements(tmp_path) == []
    return tmp_path / "data"


def test_a_changed_line_is_seen(copy):
    path = copy / "results/zero_shot.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    chosen = next(line for line in lines if line["method"] == "pmi" and line["stage"] == "run")
    chosen["accuracy"] += 0.01
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    said = recompute.disagreements(copy.parent)  # the questions no longer have the mean that the line states
    assert said[0] == "SF1: the ledger says 'supported', recomputed 'not tested'"
    assert said[1].startswith("SF1, part 1, mean: the ledger says ")


def test_a_changed_verdict_and_an_absent_row_are_seen(copy, monkeypatch, capsys):
    path = copy / "results/ledger.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    (row,) = [row for row in rows if row["claim"] == "SF1"]
    row["verdict"] = "refuted"
    path.write_text(json.dumps(rows), encoding="utf-8")
    assert recompute.disagreements(copy.parent) == ["SF1: the ledger says 'refuted', recomputed 'supported'"]
    path.write_text("[]", encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["recompute.py", str(copy.parent)])
    assert recompute.main() == 1 and capsys.readouterr().out.startswith("SF1: the ledger says 'nothing'")


def test_the_worked_example_of_the_page_is_what_the_script_writes():
    place = importlib.util.spec_from_file_location("how_sure", ROOT / "benchmarks" / "how_sure.py")
    script = importlib.util.module_from_spec(place)
    place.loader.exec_module(script)
    text = script.block()
    assert blocks_of(script.PAGE)["worked-example"].strip() == text.strip(), "run benchmarks/how_sure.py"
    _, numbers = script.numbers()
    found = [np.nan_to_num(task[:, ~np.isnan(task).all(axis=0)]) for task in numbers]
    other = recompute.crossed(found, None)
    one = script.intervals(numbers)["seeds and items"]
    assert other.interval(0.95) == pytest.approx((one.low, one.high))
    assert 0 < script.PICTURE.stat().st_size < 100_000


# --- worlds that no committed line shows -----------------------------------------------------------

KINDS = {
    "paired_difference": 'over = ["task"]\na = { method = "new", n_train = 10 }\nb = { method = "old", n_train = 40 }',
    "value": 'over = ["task"]\nat = { method = "new", n_train = 10 }',
    "ratio": 'over = ["task"]\na = { method = "new", n_train = 10 }\nb = { method = "old", n_train = 40 }',
    "slope": 'over = ["task"]\naxis = "n_train"\nlog10 = true\nat = { method = "new" }',
    "range": 'over = ["task"]\naxis = "method"\nat = { n_train = 10 }',
    "argmax": 'over = ["task"]\naxis = "n_train"\nat = { method = "new" }',
    "rank_correlation": 'over = ["task"]\naxis = "method"\nat = { n_train = 10 }\nother = "cost"',
    "spread_difference": 'over = ["task"]\na = [{ method = "new", n_train = 10 }, { method = "old", n_train = 40 }]\n'
    'b = [{ method = "new", n_train = 40 }, { method = "third", n_train = 40 }]',
}  # fmt: skip


def claim(kind: str, several: int, unit: str, more: str, threshold: float) -> str:
    """A claim with one part, with three that are all needed, or with three of which two are."""
    statistic = f'name = "x"\nkind = "{kind}"\nmetric = "accuracy"\n{KINDS[kind]}\n'
    side = f'direction = "greater"\nthreshold = {threshold}\n'
    word = ("difference", "conjunction", "k-of-n")[several]
    lines = {0: side, 1: "", 2: "k = 2\n"}[several] + f'unit = "{unit}"\n'
    body = sim.HEAD.format(kind=word, more=lines)
    if several:
        for i, direction in enumerate(("greater", "less", "greater")):
            side = f'direction = "{direction}"\nthreshold = {threshold + (0.02 * i if threshold else 0.0)}\n'
            body += f"[[comparisons]]\n{side}[comparisons.statistic]\n{statistic}".replace('"x"', f'"x{i}"')
    else:
        body += f"[statistic]\n{statistic}"
    return body + f"[power]\nsmallest = 0.05\n{more}"


@pytest.mark.parametrize("kind", KINDS)
def test_other_units_and_shared_items_are_recomputed(root, kind, monkeypatch):
    """Random worlds of the second edition: own and shared items, all units, one part or several, runs that failed."""
    monkeypatch.setattr(claims.evidence, "SHUFFLES", 2)
    rng, seen = np.random.default_rng(len(kind)), set()
    units = ["seed", "task"] + ["item"] * (kind in ("paired_difference", "value"))
    units += ["method"] if kind == "rank_correlation" else []
    for world in range(12):
        unit, own, gain = units[world % len(units)], bool(world % 2), rng.choice([0.0, 0.02, 0.2])
        more = ("items = true\n" if own else "") + 'sides = "one"\n' * (world % 5 == 0)
        threshold = float(rng.choice([0.0, 0.5 if kind == "value" else 0.1]))
        (root / "data/claims/T1.toml").write_text(
            claim(kind, world % 3, unit, more, threshold), encoding="utf-8"
        )
        ease = rng.normal(0, 0.5, 30)
        rows, answered = [], {}
        for t in sim.AXES["task"]:
            for n in sim.AXES["n_train"]:
                for s in sim.AXES["seed"]:
                    for m in sim.AXES["method"]:
                        luck = rng.normal(0, 0.1) + gain * (m == "new")
                        right = ease + luck + rng.normal(0, 0.5, 30) > (-0.3 if m == "third" else -0.2)
                        truth = rng.integers(0, 2, 30) if own else np.arange(30) % 2
                        answered[t, n, s, m] = right
                        predictions = np.where(right, truth, 1 - truth).astype(np.int32)
                        place = {"task": t, "n_train": n, "seed": s, "method": m}
                        rows.append(place | {"predictions": predictions, "targets": truth.astype(np.int32)})
        sim.record_all(lambda *at, said=answered: float(said[at].mean()), schema=3)
        path = experiments.results_path("sim")
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for line in lines:
            line |= {"cost": round(float(rng.normal()), 3), "first_loss": 1.0, "tuned": {}}
            line["train_loss"] = (
                0.95 if line["method"] == "new" and line["seed"] == 4 and world % 7 == 6 else 0.2
            )
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        pd.DataFrame(rows).to_parquet(path.with_suffix(".predictions.parquet"))
        claims.write_ledger()
        assert recompute.disagreements(root) == [], (kind, unit, own, world)
        found = claims.verdict("T1")
        seen |= {found["verdict"], *(part["basis"] for part in found["comparisons"] or [found])}
    assert len(seen) > 2, seen  # several words, several units
    if kind in ("paired_difference", "value"):
        assert any("shared items" in each for each in seen) and any("60 items" in each for each in seen), seen
