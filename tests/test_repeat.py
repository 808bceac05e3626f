"""Repetitions: what verification accepts and refuses, the bands, and what `explain` says."""

import copy
import json

import numpy as np
import pytest
import toy_project as toy

from instructlab_repro import claims, experiments, provenance
from instructlab_repro.claims import repeat
from instructlab_repro.engine import jobs
from instructlab_utils import files
from instructlab_utils.errors import ConfigError, RecordError

# What a block's notebook does, without a model: its lines are those of toy_project.
CODE = """
import os, pathlib, sys
sys.path.insert(0, {tests!r})
import toy_project as toy
from instructlab_repro import claims, experiments, provenance
from instructlab_utils import files
spec = experiments.load("toy").at(profile)
block = spec.block(stage=stage, task=task, n_train=n_train, seed=seed)
out = pathlib.Path(os.environ["INSTRUCTLAB_RUN_DIR"])
files.write_lines(out / "lines.jsonl", [toy.line(spec, block, t) for t in spec.trials(block)])
"""
PARAMETERS = (
    'profile: str = "laptop"\nstage: str = "run"\ntask: str = "a"\nn_train: int = 10\nseed: int = 0\n'
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRUCTLAB_ROOT", str(tmp_path))
    toy.make(tmp_path)
    cells = json.loads(toy.notebook(code=CODE.format(tests=str(toy.Path(toy.__file__).parent))))
    given = {**cells["cells"][1], "id": "q", "source": PARAMETERS, "metadata": {"tags": ["parameters"]}}
    cells["cells"].insert(1, given)
    cells["metadata"] = {
        "kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"},
        "language_info": {"name": "python"},
    }
    (tmp_path / "notebooks/experiments/toy.ipynb").write_text(json.dumps(cells), encoding="utf-8")
    return tmp_path


def parts(experiment, block, **changes):
    """Recorded lines of a block, and the same lines with ``changes`` in the run of `large`."""
    recorded = experiment.lines(block)
    again = copy.deepcopy(recorded)
    for line in again:
        if line["method"] == "large":
            line.update(changes)
    return recorded, again


@pytest.fixture
def ready(root):
    experiment = toy.run_all()
    return experiment, next(b for b in experiment.blocks() if b.id == "a-n10-s0")


BANDS = {"large": {"accuracy": 0.05, "test_loss": 0.01}}


def test_equal_lines_are_equal_and_timings_do_not_count(ready):
    experiment, block = ready
    times = dict.fromkeys(("seconds", "cpu_seconds", "decode_seconds", "ms_per_step", "peak_memory_mb"), 99.0)
    recorded, again = parts(experiment, block, **times)
    recorded = [line | dict.fromkeys(times, 1.0) for line in recorded]
    found = repeat.compare(experiment, block, recorded, again)
    assert len(found) == 3 and all(each.equal for each in found)
    assert repeat.judge(found, BANDS) == ("equal", [])


def test_a_score_is_compared_as_the_parquet_file_keeps_it(ready, monkeypatch):
    """A third does not survive float32; a repetition with the same third is equal all the same, another number is not."""
    experiment, block = ready
    recorded, again = parts(experiment, block, scores=[1 / 3] * 8)
    for line in again:
        line.pop("predictions")
        line.setdefault("scores", [0.5] * 8)
    stored = [
        {
            **{c: line[c] for c in (*experiment.axes, "method")},
            "scores": np.float32(line["scores"]).astype(float),
        }
        for line in again
    ]
    monkeypatch.setattr(repeat.experiments, "predictions", lambda *_: stored)
    assert all(each.equal for each in repeat.compare(experiment, block, recorded, again))
    next(line for line in again if line["method"] == "large")["scores"] = [1 / 3] * 7 + [0.34]
    changed = [each for each in repeat.compare(experiment, block, recorded, again) if not each.equal]
    assert [(each.method, each.predictions_changed) for each in changed] == [("large", 1)]


@pytest.mark.parametrize(
    ("changes", "elsewhere", "word", "said"),
    [
        ({"test_loss": 0.3 + 1e-7}, True, "within", "inside the band: test_loss +1e-07"),
        ({"test_loss": 0.3 + 1e-12}, False, "different", "other bits on the same hardware: test_loss +1e-12"),
        ({"test_loss": 0.305}, True, "within", "inside the band: test_loss +0.005"),
        ({"test_loss": 0.32}, True, "different", "outside the band in test_loss"),
        ({"accuracy": 0.1}, True, "different", "outside the band in accuracy"),
        ({"predictions": [0] * 8}, False, "different", "4 of 8 predictions"),
    ],
)
def test_a_difference_is_judged_by_the_environment_and_the_bands(ready, changes, elsewhere, word, said):
    experiment, block = ready
    recorded, again = parts(experiment, block, **changes)
    if elsewhere:
        again = [line | {"environment": line["environment"] | {"hardware": "another"}} for line in again]
    found, reasons = repeat.judge(repeat.compare(experiment, block, recorded, again), BANDS)
    assert found == word and any(said in reason for reason in reasons), reasons


@pytest.mark.parametrize(
    ("metric", "new", "word"),
    [("queries", 22.5, "within"), ("queries", 22.6, "different"), ("perplexity", 20.01, "different")],
)
def test_one_example_s_part_of_a_mean_may_differ_where_the_metric_counts_something(
    ready, monkeypatch, metric, new, word
):
    experiment, block = ready  # of eight test examples
    lines = [line | {metric: 20.0} for line in experiments.results("toy")]
    monkeypatch.setattr(repeat.experiments, "results", lambda *_: lines)
    recorded, again = parts(experiment, block, **{metric: new})
    recorded = [line | {metric: 20.0} for line in recorded]
    again = [{metric: 20.0, **line, "environment": line["environment"] | {"torch": "9"}} for line in again]
    assert repeat.judge(repeat.compare(experiment, block, recorded, again), {})[0] == word


def test_a_method_without_a_twin_gets_the_widest_band(ready):
    experiment, block = ready
    recorded, again = parts(experiment, block, test_loss=0.305)
    again = [line | {"environment": line["environment"] | {"torch": "9"}} for line in again]
    comparisons = repeat.compare(experiment, block, recorded, again)
    assert repeat.judge(comparisons, {"other": {"test_loss": 0.01}})[0] == "within"
    assert repeat.judge(comparisons, {"other": {"test_loss": 0.001}})[0] == "different"
    assert repeat.judge(comparisons, {})[0] == "different"


def test_a_method_whose_twin_moves_like_a_seed_is_held_against_the_seeds(ready, monkeypatch):
    experiment, block = ready
    lines = [line | {"accuracy": 0.7 + 0.1 * line["seed"]} for line in experiments.results("toy")]
    monkeypatch.setattr(repeat.experiments, "results", lambda *_: lines)
    values, sd = [0.7, 0.8, 0.9], 0.1

    def word(accuracy: float, twin: float) -> tuple[str, list[str]]:
        recorded, again = parts(experiment, block, accuracy=accuracy)
        again = [line | {"environment": line["environment"] | {"hardware": "another"}} for line in again]
        found = repeat.compare(experiment, block, recorded, again)
        return repeat.judge(found, {"large": {"accuracy": twin * repeat.MARGIN}})

    near, far = (
        float(np.mean(values)) + 5 * sd,
        float(np.mean(values)) + 15 * sd,
    )  # t of 2 degrees of freedom: 9.9
    found, reasons = word(near, 2 * sd)
    assert found == "sensitive, within seeds" and "inside the seeds' range in accuracy" in reasons[0]
    assert word(far, 2 * sd)[0] == "different"
    assert word(near, 0.3 * sd)[0] == "different"  # its twin moves less than a third of a seed: no excuse


@pytest.mark.parametrize(("other", "moved", "wanted"), [(0.2, 0.4, "within"), (0.2, 0.5, "different")])
def test_a_metric_that_the_twin_left_alone_by_luck_is_judged_by_the_method_s_other_metrics(
    ready, monkeypatch, other, moved, wanted
):
    """The twin moves the accuracy by 0.2 of a seed's spread, and no loss: pooled 0.2 / sqrt(2), of which three times."""
    experiment, block = ready
    spread = {"accuracy": lambda s: 0.7 + 0.1 * s, "test_loss": lambda s: 0.3 + 0.01 * s}
    lines = [x | {name: f(x["seed"]) for name, f in spread.items()} for x in experiments.results("toy")]
    monkeypatch.setattr(repeat.experiments, "results", lambda *_: lines)
    recorded, again = parts(experiment, block)
    recorded, again = (
        [x | {name: f(0) for name, f in spread.items()} for x in each] for each in (recorded, again)
    )
    again = [x | {"environment": x["environment"] | {"hardware": "another"}} for x in again]
    next(x for x in again if x["method"] == "large").update(accuracy=0.701, test_loss=0.3 + 0.01 * moved)
    bands = {"large": {"accuracy": repeat.MARGIN * other * 0.1, "test_loss": 0.0}}
    assert repeat.judge(repeat.compare(experiment, block, recorded, again), bands)[0] == wanted


def test_a_result_of_another_processor_makes_nothing_stale(ready, root):
    experiment, block = ready
    entry = {"status": "different", "key": experiment.key(block), "block": block.id}
    for same in (True, False):
        files.write_json(repeat.verified_path(), {"toy.laptop": entry | {"same_environment": same}})
        assert repeat.stale(experiment) is same


def test_a_repetition_without_a_run_is_refused(ready):
    experiment, block = ready
    recorded = experiment.lines(block)
    with pytest.raises(RecordError, match="toy/a-n10-s0: the repetition has no line for large"):
        repeat.compare(experiment, block, recorded, recorded[:-1])


@pytest.mark.slow
def test_verify_runs_the_cheapest_block_again_and_marks_what_differs(ready, root, capsys):
    experiment, _ = ready
    cheap = next(b for b in experiment.blocks() if b.id == "b-n20-s1")
    toy.write_manifest(cheap.out, seconds=0.5)
    experiments.aggregate(experiment, "laptop")
    assert repeat.cheapest(experiment) == cheap
    before = files.read_lines(cheap.out / "lines.jsonl")
    word, text = repeat.verify("toy", "laptop")
    told = capsys.readouterr().err
    assert "toy: runs b-n20-s1 again, about" in told and "toy: 3 of 3 runs after" in told
    entry = repeat.verified()["toy.laptop"]
    # the recorded lines come from this process, the repetition from a kernel: threads may differ, bits may not
    assert word == "equal" and "toy/b-n20-s1: equal in 3 runs" in text, text
    assert entry["status"] == "equal" and entry["key"] == experiment.key(cheap)
    assert files.read_lines(cheap.out / "lines.jsonl") == before and not repeat.stale(experiment)

    wrong = [line | {"accuracy": line["accuracy"] + 0.125} for line in before]
    files.write_lines(cheap.out / "lines.jsonl", wrong)
    word, text = repeat.verify("toy", "laptop")
    assert word == "different" and "accuracy -0.12" in text
    assert repeat.stale(experiment) and "b-n20-s1: different" in claims.explain("toy")
    path = root / "data/experiments/toy.toml"
    path.write_text(path.read_text().replace("revision = 1", "revision = 2"))
    assert not repeat.stale(experiments.load("toy").at("laptop"))  # new settings: it will run anyway


def test_nothing_to_verify_is_one_sentence(root):
    with pytest.raises(RecordError, match="toy: no laptop results to verify; run `make reproduce` first"):
        repeat.verify("toy", "laptop")


@pytest.mark.usefixtures("ready")
def test_the_bands_are_twice_what_the_twins_changed(monkeypatch):
    assert repeat.bands("toy") == {}
    monkeypatch.setattr(repeat.experiments, "bands", lambda *_: {"large": {"test_loss": 0.3}})
    assert repeat.bands("toy") == {"large": {"test_loss": 0.3 * repeat.MARGIN}}


def test_without_twins_a_loss_may_differ_by_what_single_precision_loses(ready):
    experiment, block = ready

    def word(changed: float, **environment: str) -> str:
        recorded, again = parts(experiment, block, test_loss=0.3 * (1 + changed))
        again = [line | {"environment": line["environment"] | environment} for line in again]
        return repeat.judge(repeat.compare(experiment, block, recorded, again), {})[0]

    assert word(2e-5, hardware="another") == "within" and word(5e-4, hardware="another") == "different"
    assert word(2e-5) == "different"  # the same hardware: every bit


# --- explain ----------------------------------------------------------------------------------------


def test_explain_says_what_was_used_and_what_has_changed(ready, root, monkeypatch):
    text = claims.explain("toy")
    assert "14 of 14 blocks have results of today's code and settings" in text
    assert "claim T1: as it stood at the runs" in text and "(now" not in text and "verified: never" in text
    block = claims.explain("toy/a-n10-s0")
    assert "covers today's experiment: yes" in block and "large learning_rate = 0.2" in block
    assert "took: 2 s" in block
    assert claims.explain("data/results/toy.jsonl") == text
    assert claims.explain("T1").splitlines()[1:] == text.splitlines()

    monkeypatch.setattr(provenance, "package_sha", lambda: "0" * 16)
    claim = root / "data/claims/T1.toml"
    claim.write_text(claim.read_text().replace("threshold = 0.0", "threshold = 0.1"))
    path = root / "data/experiments/toy.toml"
    path.write_text(path.read_text().replace("10 = 3", "10 = 5"))
    text = claims.explain("toy")
    assert "8 of 14 blocks" in text and f"(now {'0' * 16})" in text and "claim T1: text changed since" in text
    block = claims.explain("toy/a-n10-s0")
    assert "covers today's experiment: no" in block and "changed since: settings:" in block
    assert f"other than here: package: {provenance.short_environment()['package']}" not in block
    assert "→ " + "0" * 16 in block


def test_explain_of_something_unknown_names_the_known(ready):
    with pytest.raises(ConfigError, match="figures/none.png: not a result; name .*toy, T1"):
        claims.explain("figures/none.png")
    with pytest.raises(ConfigError, match="unknown block 'a-n10-s9' of toy"):
        claims.explain("toy/a-n10-s9")


def test_a_new_function_in_the_package_runs_nothing_again(ready, monkeypatch):
    monkeypatch.setattr(provenance, "package_sha", lambda: "1" * 16)
    assert all(job.done for job in jobs.all_jobs(["toy"], "laptop"))
