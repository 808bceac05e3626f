"""The protocol's rules in the grid: tuning seeds and extension, methods as tables, twins, guards, editions."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import toy_project as toy

from instructlab_repro import experiments
from instructlab_repro.engine import jobs
from instructlab_repro.experiments.tuning import Tuning, beyond
from instructlab_repro.notebooks import runner
from instructlab_utils import files
from instructlab_utils.errors import ConfigError, ParameterError, RecordError

SECOND = """
[tuning]
at = { n_train = 20 }
seeds = [100, 101, 102]
metric = "dev_loss"
better = "lower"
tie = "dev_accuracy"
same = [["small", "large"]]
[tuning.values]
large = { learning_rate = [1e-3, 3e-3, 1e-2] }
small = { learning_rate = [3e-3, 1e-2, 3e-2] }
"""
BEST = {"large": 1e-4, "small": 0.1, "floor": 1.0}  # two steps below the list, and one above


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRUCTLAB_ROOT", str(tmp_path))
    return toy.make(tmp_path)


@pytest.fixture
def second(root):
    """The toy under the second edition, with a rounding twin."""
    path = root / "data/experiments/toy.toml"
    text = path.read_text(encoding="utf-8")
    start, end = text.index("[tuning]"), text.index("[resources]")
    text = text[:start] + SECOND + "[twin]\n" + text[end:]
    path.write_text(text, encoding="utf-8")
    return root


def edit(root: Path, old: str, new: str) -> None:
    path = root / "data/experiments/toy.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def run(experiment: experiments.Experiment, block: experiments.Block, best=BEST, **more) -> int:
    """Leave what the notebook would have written; returns how many runs that were."""
    rows = []
    for trial in experiment.trials(block):
        rate = trial.tuned.get("learning_rate", 1.0)
        loss = abs(rate / best[trial.method] - 1) + 0.01 * block.coordinates["seed"]
        rows.append(toy.line(experiment, block, trial) | {"dev_loss": loss} | more)
    files.write_lines(block.out / "lines.jsonl", rows)
    toy.write_manifest(block.out)
    return len(rows)


def run_all() -> experiments.Experiment:
    experiment = experiments.load("toy").at("laptop")
    for block in experiment.blocks():
        run(experiment, block)
    assert not experiments.aggregate(experiment, "laptop").missing
    return experiment


# --- extension -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "up", "down"),
    [
        ([1e-3, 3e-3, 1e-2], 3e-2, 3e-4),
        ([3e-3, 1e-2, 3e-2], 0.1, 1e-3),
        ([3e-3, 1e-3], 1e-2, 3e-4),
        ([1e-4, 1e-3, 1e-2], 0.1, 1e-5),
        ([1.0, 2.0, 4.0], 8.0, 0.5),
        ([0.004, 0.01], 0.025, 0.0016),
    ],
)
def test_a_grid_goes_on_in_its_own_steps(values, up, down):
    assert beyond(values, upwards=True) == up and beyond(values, upwards=False) == down


def tuning(rates: list, **more) -> Tuning:
    fields = {"seeds": [1, 2, 3], "metric": "loss", "better": "lower", "values": {"m": {"rate": rates}}}
    return Tuning.model_validate(fields | more)


def tried(found: Tuning, optimum: float) -> list[list[float]]:
    """Every round that a method whose best rate is ``optimum`` goes through."""
    lines: list[dict] = []
    while True:
        rounds = found.called_for("m", lines)
        new = [v for v in rounds[-1] if v not in [line["tuned"] for line in lines]]
        if not new:
            assert found.best("m", lines)["rate"] == min(
                (line["tuned"]["rate"] for line in lines), key=lambda rate: abs(rate - optimum)
            )
            return [[values["rate"] for values in each] for each in rounds]
        lines += [{"tuned": v, "loss": abs(v["rate"] - optimum)} for v in new for _ in found.places["seed"]]


def test_the_best_at_an_edge_calls_for_one_more_at_most_twice_each_way():
    wide = tuning([1e-3, 3e-3, 1e-2])
    given = [1e-3, 3e-3, 1e-2]
    assert tried(wide, 3e-3) == [given]
    assert tried(wide, 3e-4) == [given, [3e-4], [1e-4]]
    assert tried(wide, 3e-2) == [given, [3e-2], [0.1]]
    assert tried(wide, 1.0) == [given, [3e-2], [0.1]] and tried(wide, 1e-9) == [given, [3e-4], [1e-4]]
    assert tried(wide, 1.2e-2) == [given, [3e-2]]


def test_what_cannot_grow_stays_as_it_is():
    assert tried(tuning([0.1, 0.3], limits={"rate": [0, 0.5]}), 1.0) == [[0.1, 0.3]]
    assert tried(tuning([0, 1]), 5) == [[0, 1]] and tried(tuning([3]), 9) == [[3]]
    assert tried(tuning([2, 4]), 9) == [[2, 4], [8], [16]]
    assert tried(tuning([1e-3, 3e-3], seeds=[], at={"seed": 9}), 1.0) == [[1e-3, 3e-3]]


def test_two_knobs_grow_together_and_only_new_pairs_run():
    both = tuning([], values={"m": {"rate": [0.1, 0.3], "decay": [1, 3, 10]}})
    lines = [
        {"tuned": v, "loss": abs(v["rate"] - 1) + abs(v["decay"] - 3)} for v in both.called_for("m", [])[0]
    ]
    assert both.called_for("m", lines)[1] == [{"rate": 1.0, "decay": decay} for decay in (1, 3, 10)]


def test_an_unfinished_round_calls_for_nothing():
    found = tuning([1e-3, 3e-3])
    assert found.called_for("m", [{"tuned": {"rate": 1e-3}, "loss": 0.1}]) == [
        [{"rate": 1e-3}, {"rate": 3e-3}]
    ]


def test_accuracy_breaks_a_tie_of_rounded_means_and_a_diverged_run_is_the_worst():
    def line(rate, loss, accuracy=0.5):
        return {"tuned": {"rate": rate}, "loss": loss, "accuracy": accuracy}

    found = tuning([1.0, 3.0, 10.0], tie="accuracy")
    noisy = 0.1 + 0.2  # 0.30000000000000004
    lines = [line(1.0, noisy), line(3.0, 0.3, 0.6), line(10.0, 0.31, 0.9)]
    assert found.best("m", lines) == {"rate": 3.0}
    assert tuning([1.0, 3.0, 10.0]).best("m", lines) == {"rate": 1.0}  # of equals the first
    # the mean over seeds decides, not the best seed
    lines = [line(1.0, 0.0), line(1.0, 1.0), line(3.0, 0.4), line(3.0, 0.4), line(10.0, float("nan"))]
    assert found.best("m", [*lines, line(10.0, 0.0)]) == {"rate": 3.0}
    assert found.best("m", [*lines, line(3.0, None), line(10.0, 0.0)]) == {"rate": 1.0}


# --- tuning seeds in the grid ------------------------------------------------------------------------


def test_a_tuning_block_per_seed_and_round_comes_before_the_runs(second):
    blocks = experiments.load("toy").at("laptop").blocks()
    ids = [block.id for block in blocks]
    assert ids[:3] == ["tune-a-s100", "tune-a-s101", "tune-a-s102"]
    assert ids[6] == "tune-a-s100-x1" and ids[17] == "tune-b-s102-x2" and ids[18] == "a-n10-s0"
    assert ids[-1] == "twin-a-n10-s0" and len(ids) == 18 + 12 + 1
    known = dict(zip(ids, blocks, strict=True))
    assert known["tune-a-s101-x1"].needs == ("tune-a-s100", "tune-a-s101", "tune-a-s102")
    assert len(known["tune-a-s100-x2"].needs) == 6 and len(known["b-n20-s2"].needs) == 9
    assert known["b-n20-s2"].needs == known["twin-a-n10-s0"].needs[:0] + known["b-n10-s0"].needs
    assert (
        known["tune-a-s101-x1"].parameters["stage"] == "tune-x1" and known["tune-a-s101-x1"].stage == "tune"
    )
    again = (
        experiments.load("toy")
        .at("laptop")
        .block(**{k: v for k, v in known["tune-a-s101-x1"].parameters.items() if k != "profile"})
    )
    assert again == known["tune-a-s101-x1"]


def test_a_value_with_runs_that_did_not_train_comes_after_those_with_fewer(second):
    """A network that fits too closely can have a higher dev loss than one that answers the same to everything."""
    experiment = experiments.load("toy").at("laptop")
    best = {"large": 3e-3, "small": 1e-2, "floor": 1.0}
    for block in (b for b in experiment.blocks() if b.stage == "tune"):
        run(experiment, block, best)
        path = block.out / "lines.jsonl"
        rows = files.read_lines(path)
        for row in rows:
            stuck = row["tuned"].get("learning_rate") == 3e-3 and row["seed"] == 100
            row |= {"first_loss": 1.0, "train_loss": 1.0 if stuck else 0.1}
        files.write_lines(path, rows)
    block = next(b for b in experiment.blocks() if b.stage == "run")
    chosen = {trial.method: trial.tuned.get("learning_rate") for trial in experiment.trials(block)}
    assert chosen["large"] == 1e-3 and chosen["small"] == 1e-2  # 3e-3 has the lowest loss for "large"


def test_a_round_follows_from_the_rounds_before_and_the_runs_take_the_best_of_all(second):
    experiment = experiments.load("toy").at("laptop")
    blocks = {block.id: block for block in experiment.blocks()}
    for seed in (100, 101):
        assert run(experiment, blocks[f"tune-a-s{seed}"]) == 6
    with pytest.raises(RecordError, match="block toy tune-a-s102 --profile laptop"):
        experiment.trials(blocks["tune-a-s100-x1"])
    run(experiment, blocks["tune-a-s102"])
    more = experiment.trials(blocks["tune-a-s100-x1"])
    assert [(t.method, t.tuned["learning_rate"]) for t in more] == [("small", 0.1), ("large", 3e-4)]
    for seed in (100, 101, 102):
        run(experiment, blocks[f"tune-a-s{seed}-x1"])
    last = experiment.trials(blocks["tune-a-s100-x2"])
    assert [(t.method, t.tuned["learning_rate"]) for t in last] == [("small", 0.3), ("large", 1e-4)]
    for seed in (100, 101, 102):
        run(experiment, blocks[f"tune-a-s{seed}-x2"])
    found = {t.method: t.tuned for t in experiment.trials(blocks["a-n10-s1"])}
    assert found == {"floor": {}, "small": {"learning_rate": 0.1}, "large": {"learning_rate": 1e-4}}


def test_a_round_that_nothing_calls_for_ends_without_a_notebook(second, monkeypatch):
    experiment = experiments.load("toy").at("laptop")
    monkeypatch.setattr(runner, "run_notebook", lambda *_, **__: pytest.fail("a notebook was started"))
    inside = {"large": 3e-3, "small": 1e-2, "floor": 1.0}
    for seed in (100, 101, 102):
        run(experiment, experiment.block(stage="tune", task="a", n_train=20, seed=seed), inside)
    assert experiments.run_block("toy", "tune-a-s100-x1", "laptop").status == "ok"
    assert experiments.run_block("toy", "tune-a-s100-x2", "laptop").status == "ok"
    assert {job.name for job in jobs.all_jobs(["toy"], "laptop") if job.done} >= {
        f"toy/tune-a-s{seed}{x}" for seed in (100, 101, 102) for x in ("", "-x1", "-x2")
    }


def test_what_was_chosen_and_how_many_trials_that_took_is_told(second):
    run_all()
    found = experiments.chosen("toy")
    place = (("task", "a"),)
    assert found["large", place] == {"values": {"learning_rate": 1e-4}, "tried": 5, "extended": True}
    assert found["small", place]["values"] == {"learning_rate": 0.1} and ("floor", place) not in found
    shutil.rmtree(second / "build")
    assert all(job.done for job in jobs.all_jobs(["toy"], "laptop")), "committed lines count in every round"


def test_a_smoke_run_tunes_on_one_seed_without_extension(second):
    edit(second, "tuning = { at = { n_train = 5 } }", "tuning = { at = { n_train = 5 } }\n")
    assert [b.id for b in experiments.load("toy").at("smoke").blocks()] == [
        "tune-a-s100", "a-n5-s0", "twin-a-n5-s0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = [100, 101, 102]", "seeds = [100, 101]", r"tuning\.seeds: name at least 3, not 2"),
        (
            "seeds = [100, 101, 102]",
            "seeds = [100, 101, 1]",
            r"tuning\.seeds: seed 1 is also a seed of the grid",
        ),
        ("seeds = [100, 101, 102]", "seeds = [100, 101, 101]", r"tuning\.seeds: write whole numbers"),
        ("at = { n_train = 20 }", "at = { n_train = 20, seed = 9 }", r"tuning\.seeds: 'at' names a seed too"),
        ("[3e-3, 1e-2, 3e-2]", "[1e-3, 1e-2, 1e-1]", r"tuning\.same: 'large' does not go in the same steps"),
        ("[3e-3, 1e-2, 3e-2]", "[3e-3, 1e-2]", r"equally many values, not \[2, 3\]"),
        ('same = [["small",', 'same = [["tiny",', r"tuning\.same: 'tiny' is not one of the methods"),
        (
            "[tuning.values]",
            "[tuning.limits]\nC = [1]\n[tuning.values]",
            r"tuning\.limits\.C: write the least",
        ),
        ("[twin]", "[twin]\nsize = 1", r"twin: 'size' is not one of the axes"),
        ("[twin]", "[twin]\nseed = 77", r"twin\.seed: 77 is not one of the values on the axis"),
        ("[twin]", "[training]\nshare = 1.5\n[twin]", r"training\.share: .*less than or equal to 1"),
    ],
)
def test_mistakes_are_one_sentence(second, old, new, message):
    edit(second, old, new)
    with pytest.raises(ConfigError, match=message) as caught:
        experiments.load("toy")
    assert str(caught.value).startswith("data/experiments/toy.toml") and "\n" not in str(caught.value)


# --- methods as tables -------------------------------------------------------------------------------

TABLES = """
[methods]
floor = { tuner = "none" }
small = { tuner = "Lora", r = 1, total_step = "$steps", size = "$batch_size" }
large = { tuner = "Lora", r = 8 }
"""


@pytest.fixture
def tables(root):
    edit(root, 'methods = ["floor", "small", "large"]\n', "")
    edit(root, "[axes]\n", TABLES + "[axes]\n")
    return root


def test_a_method_is_a_table_whose_settings_are_those_of_the_block(tables):
    experiment = experiments.load("toy").at("laptop")
    assert experiment.methods == ["floor", "small", "large"]
    block = experiment.block(task="a", n_train=10, seed=0)
    assert experiment.method("small", block) == {"tuner": "Lora", "r": 1, "total_step": 3, "size": 2}
    assert experiment.method("large") == {"tuner": "Lora", "r": 8}
    with pytest.raises(ParameterError, match=r"no table \[methods\.tiny\]"):
        experiment.method("tiny")
    with pytest.raises(ParameterError, match=r"\$steps differs between blocks; name one"):
        experiment.method("small")


def test_a_parameter_may_differ_between_the_values_of_an_axis(tables):
    edit(tables, "r = 8 }", 'r = 8, steps = { task = { a = 9, b = "$steps" } } }')
    experiment = experiments.load("toy").at("laptop")
    steps = {
        task: experiment.method("large", experiment.block(task=task, n_train=10, seed=0)) for task in "ab"
    }
    assert steps == {"a": {"tuner": "Lora", "r": 8, "steps": 9}, "b": {"tuner": "Lora", "r": 8, "steps": 3}}
    with pytest.raises(ParameterError, match="steps differs between blocks; name one"):
        experiment.method("large")
    edit(tables, "[methods]", 'inside = ["task"]\n[methods]')  # a block holds both tasks then
    with pytest.raises(
        ConfigError, match=r"methods\.large\.steps: 'task' is not one of the axes that make blocks"
    ):
        experiments.load("toy")


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        ("{ task = { a = 9 } }", r"methods\.large\.steps: no value for task = b"),
        ("{ task = { a = 9, b = 2 }, seed = { 0 = 1, 1 = 1 } }", r"methods\.large\.steps: differs by 2 axes"),
        ("{ size = { a = 9 } }", r"methods\.large\.steps: 'size' is not one of the axes that make blocks"),
        ("{}", r"methods\.large\.steps: differs by 0 axes"),
        ('{ task = { a = 9, b = "$step" } }', r"methods\.large: 'step' is not one of the settings"),
    ],
)
def test_a_parameter_by_an_axis_that_does_not_fit_is_one_sentence(tables, cases, message):
    edit(tables, "r = 8 }", f"r = 8, steps = {cases} }}")
    with pytest.raises(ConfigError, match=message) as caught:
        experiments.load("toy")
    assert str(caught.value).startswith("data/experiments/toy.toml") and "\n" not in str(caught.value)


def test_a_changed_table_runs_that_method_again_and_no_other(tables, monkeypatch):
    experiment = toy.run_all()
    block = experiment.blocks()[-1]
    before = experiment.key(block)
    shutil.rmtree(tables / "build")
    edit(tables, 'large = { tuner = "Lora", r = 8 }', 'large = { tuner = "Lora", r = 9 }')
    changed = experiments.load("toy").at("laptop")
    assert changed.key(block) == before and changed.lines(block) is None
    asked = []

    def run_notebook(path, out, parameters, **_):
        have = files.read_lines(out / "lines.jsonl")
        todo = [t for t in changed.trials(tune) if not any(t.key.items() <= x.items() for x in have)]
        asked.extend(trial.method for trial in todo)
        for trial in todo:
            files.append_line(out / "lines.jsonl", toy.line(changed, tune, trial))
        runner.Manifest("toy", {}, "", "laptop", 0, status="ok").write(out)
        return runner.read_manifest(out)

    monkeypatch.setattr(runner, "run_notebook", run_notebook)
    tune = changed.blocks()[0]
    assert experiments.run_block("toy", tune.id, "laptop").status == "ok" and asked == ["large"] * 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"$steps"', '"$step"', r"methods\.small: 'step' is not one of the settings"),
        ('{ tuner = "none" }', "{ r = 1 }", r"methods\.floor: write a table with tuner"),
        ('{ tuner = "none" }', "3", r"methods\.floor: write a table with tuner"),
        ("floor =", "bad/name =", r"not valid TOML"),
        ("floor =", '"bad/name" =', r"methods: 'bad/name' becomes a file's name"),
    ],
)
def test_a_mistake_in_a_method_is_one_sentence(tables, old, new, message):
    edit(tables, old, new)
    with pytest.raises(ConfigError, match=message):
        experiments.load("toy")


def test_an_experiment_with_a_shared_notebook_tells_it_which_it_is(root):
    assert "experiment" not in experiments.load("toy").at("laptop").blocks()[0].parameters
    edit(root, 'notebook = "toy"', 'notebook = "tuning"')
    assert experiments.load("toy").at("laptop").blocks()[0].parameters["experiment"] == "toy"


# --- twins -------------------------------------------------------------------------------------------


def test_a_twin_repeats_each_method_once_and_is_never_a_result(second):
    experiment = experiments.load("toy").at("laptop")
    for block in experiment.blocks():
        more = {} if block.stage != "twin" else {"accuracy": 0.25, "predictions": [1, 0, *[0, 1] * 3]}
        run(experiment, block, **more)
    twin = experiment.blocks()[-1]
    assert [t.twin for t in experiment.trials(twin)] == [True] * 3
    assert not any(t.twin for t in experiment.trials(experiment.blocks()[-2]))
    found = experiments.aggregate(experiment, "laptop")
    assert not found.missing and len(experiments.results("toy")) == 36 == len(experiments.predictions("toy"))
    assert len(experiments.results("toy", stage="twin")) == 3
    bands = experiments.bands("toy")
    assert set(bands) == set(experiment.methods) and not any(
        "seconds" in m for b in bands.values() for m in b
    )
    runs = {x["method"]: x for x in experiments.results("toy") if x["block"] == "a-n10-s0"}
    assert bands["small"]["accuracy"] == abs(runs["small"]["accuracy"] - 0.25)
    assert bands["small"]["predictions_changed"] == 1 and bands["small"]["test_loss"] == 0
    shutil.rmtree(second / "build")
    assert not experiments.aggregate(experiment, "laptop").changed and experiments.bands("toy") == bands


def test_a_twin_stands_where_the_file_says(second):
    edit(second, "[twin]", '[twin]\nseed = 2\ntask = "b"')
    assert experiments.load("toy").at("gpu").blocks()[-1].id == "twin-b-n10-s2"


# --- runs that did not train -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ({"first_loss": 1.0, "train_loss": 0.95}, True),
        ({"first_loss": 1.0, "train_loss": 0.9}, False),
        ({"first_loss": 1.0, "train_loss": float("nan")}, True),
        ({"first_loss": 1.0, "train_loss": 0.1, "one_class": True}, True),
        ({"first_loss": None, "train_loss": None, "diverged": 1}, True),
        ({"train_loss": 0.7, "one_class": False}, False),
        ({"steps": 0, "one_class": True}, False),  # the majority class trains nothing
        ({"one_class": True, "tuned": {"learning_rate": 1.0}}, True),
    ],
)
def test_a_run_that_kept_its_loss_or_its_one_class_did_not_train(root, line, answer):
    assert experiments.did_not_train({"tuned": {}} | line, experiments.load("toy")) is answer


def test_lines_of_the_first_edition_are_judged_by_their_predictions(root):
    experiment = experiments.load("toy").at("laptop")
    for block in experiment.blocks():
        flat = {"predictions": [1] * 8} if block.coordinates["seed"] == 0 else {}
        toy.run(experiment, block, schema=2, **flat)
    experiments.aggregate(experiment, "laptop")
    assert experiments.untrained("toy") == {m: (4, 12) for m in ("floor", "small", "large")}


# --- editions ----------------------------------------------------------------------------------------


def test_lines_of_the_first_edition_count_until_they_run_again_and_a_mixture_is_told(root):
    experiment = experiments.load("toy").at("laptop")
    for block in experiment.blocks():
        toy.run(experiment, block, schema=2)
    assert experiments.edition(experiments.aggregate(experiment, "laptop").lines) == 1
    shutil.rmtree(root / "build")
    assert all(job.done for job in jobs.all_jobs(["toy"], "laptop"))
    toy.run(experiment, experiment.blocks()[-1])
    found = experiments.aggregate(experiment, "laptop")
    assert not found.missing and experiments.edition(found.lines) == "mixed" == experiments.edition(
        experiments.results("toy")
    )
    newer = [line for line in experiments.results("toy") if line["schema"] == 3]
    assert experiments.edition(newer) == 2 and len(newer) == 3 and experiments.edition([]) is None


# --- reading -----------------------------------------------------------------------------------------


def test_files_are_read_once_per_version_and_a_caller_cannot_spoil_them(root, monkeypatch):
    toy.run_all()
    experiments.results("toy")[0]["accuracy"] = "spoiled"
    experiments.load("toy").axes["seed"].append(7)
    experiments.load("toy").at("laptop").methods.clear()
    assert experiments.results("toy")[0]["accuracy"] != "spoiled"
    assert experiments.load("toy").axes["seed"] == [0, 1, 2] and experiments.load("toy").at("laptop").methods
    with pytest.raises(ValueError, match="read-only"):
        experiments.predictions("toy")[0]["predictions"][0] = 9
    monkeypatch.setattr(files, "read_lines", lambda *_, **__: pytest.fail("read again"))
    assert len(experiments.results("toy")) == 36
    monkeypatch.undo()
    monkeypatch.setenv("INSTRUCTLAB_ROOT", str(root))
    edit(root, 'title = "A toy"', 'title = "Another"')
    assert experiments.load("toy").title == "Another"


def test_a_key_follows_what_changes_results_and_nothing_else(root):
    def keys():
        experiment = experiments.load("toy").at("laptop")
        return [experiment.key(block) for block in experiment.blocks()]

    before = keys()
    edit(root, 'title = "Test accuracy"', 'title = "Accuracy"')
    edit(root, "[axes]", 'notes = ["A note."]\n[axes]')
    edit(root, "small = { C = [1.0, 2.0, 3.0] }", "small = { C = [1.0, 2.0, 4.0] }")
    assert keys() == before, "the values that are tried belong to the trials"
    edit(root, 'metric = "dev_accuracy"', 'metric = "test_loss"')
    assert keys()[:2] == before[:2] and not set(keys()[2:]) & set(before[2:]), (
        "the rule of choice, to the runs"
    )
