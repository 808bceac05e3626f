"""Grids from TOML: mistakes named, keys that follow code and settings only, resumable blocks, strict aggregation."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import toy_project as toy

from instructlab_repro import claims, experiments, provenance
from instructlab_repro.claims import repeat
from instructlab_repro.engine import course, jobs, snakemake
from instructlab_repro.experiments import collect
from instructlab_repro.notebooks import runner
from instructlab_utils import files
from instructlab_utils.errors import ConfigError, ParameterError, RecordError


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRUCTLAB_ROOT", str(tmp_path))
    return toy.make(tmp_path)


def edit(root: Path, old: str, new: str, file: str = "data/experiments/toy.toml") -> None:
    path = root / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def keys(profile: str = "laptop") -> dict[str, str]:
    experiment = experiments.load("toy").at(profile)
    return {block.id: experiment.key(block) for block in experiment.blocks()}


# --- the TOML --------------------------------------------------------------------------------------


def test_the_grid_has_a_block_per_task_size_and_seed_and_one_tuning_block_per_task(root):
    blocks = experiments.load("toy").at("laptop").blocks()
    assert [b.id for b in blocks[:2]] == ["tune-a", "tune-b"] and len(blocks) == 2 + 2 * 2 * 3
    assert {b.needs for b in blocks[2:] if b.coordinates["task"] == "b"} == {("tune-b",)}
    assert all(b.coordinates["seed"] == 9 and b.coordinates["n_train"] == 20 for b in blocks[:2])
    assert blocks[-1].parameters == {
        "profile": "laptop",
        "stage": "run",
        "task": "b",
        "n_train": 20,
        "seed": 2,
    }
    assert blocks[-1].out == root / "build" / "runs" / "toy" / "laptop" / "b-n20-s2"


def test_a_profile_merges_tables_and_replaces_lists(root):
    smoke = experiments.load("toy").at("smoke")
    assert [b.id for b in smoke.blocks()] == ["tune-a", "a-n5-s0"]
    assert smoke.tuning.at == {"n_train": 5, "seed": 9}

    def settings(n):
        return smoke.settings_of(smoke.block(task="a", n_train=n, seed=0))

    assert vars(settings(5)) == {"dev": 5, "test": 8, "batch_size": 2, "steps": 1} and settings(20).steps == 4
    with pytest.raises(
        ConfigError, match=r"settings_by\.n_train\.steps has no entry for n_train = 7; known: 10"
    ):
        settings(7)
    with pytest.raises(ParameterError, match="unknown task 'c'"):
        smoke.block(task="c", n_train=5, seed=0)
    with pytest.raises(ParameterError, match="a block needs task, n_train, seed, not task"):
        smoke.block(task="a")
    with pytest.raises(ParameterError, match="unknown profile 'desk'"):
        experiments.load("toy").at("desk")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("revision = 1", 'revision = "1"', r"revision: .*valid integer, not '1'"),
        ("revision = 1", "revision = true", r"revision: .*valid integer"),
        ("revision = 1\n", "", r"key 'revision' is missing"),
        ("revision = 1", "revison = 1", r"'revis(i)?on'"),
        ("seed = [0, 1, 2]", "seed = [0, 1, -2]", r"axes\.seed: -2 is not a whole number, 0 or more"),
        ("seed = [0, 1, 2]", "seed = [0, 1, true]", r"axes\.seed"),
        ("seed = [0, 1, 2]", "seed = [0, 1, 1]", r"axes\.seed: names something twice"),
        ("seed = [0, 1, 2]", "seed = []", r"axes\.seed: is empty"),
        ("seed = [0, 1, 2]\n", "", r"no axis 'seed'"),
        ("n_train = [10, 20]", 'n_train = [10, "20"]', r"axes\.n_train: mixes types"),
        ('task = ["a", "b"]', 'task = ["a", "../b"]', r"axes\.task: '\.\./b' becomes a file's name"),
        ("[axes]", "[axes]\nmethod = [1]", r"'method' cannot be the name of an axis"),
        (
            "[axes]",
            'inside = ["seed"]\n[axes]',
            r"inside: 'seed' is not one of the axes that a block can loop over",
        ),
        ("seed = 9 }", "seed = 2 }", r"tuning\.at: seed 2 is also a seed of the grid"),
        (", seed = 9 }", " }", r"tuning\.at: no seed"),
        ("{ n_train = 20,", "{ size = 20,", r"tuning\.at: 'size' is not one of the axes"),
        ("= [0.1, 0.2, 0.3]", "= [0.1, 0.2]", r"equally many values, not \[2, 3\]"),
        ("= [0.1, 0.2, 0.3]", "= [0.1, 0.2, 0.2]", r"values\.large\.learning_rate: tries a value twice"),
        ("large = { learning_rate", "huge = { learning_rate", r"'huge' is not one of the methods"),
        ("steps = { 10 = 3, 20 = 4 }", "steps = { 10 = 3 }", r"n_train\.steps: no value for n_train = 20"),
        ("[settings_by.n_train]", "[settings_by.size]", r"settings_by: 'size' is not one of the axes"),
        ("batch_size = 2", "batch_size = 2\nsteps = 3", r"n_train\.steps: stands in settings too"),
        ("minutes = 1", "minutes = 0", r"resources\.minutes: .*greater than 0"),
        ("minutes = 1", "minutes = 1\nminute = 2", r"unknown key 'resources\.minute'"),
        ('metric = "accuracy"\n', "", r"key 'tables\.0\.metric' is missing"),
        (
            'columns = ["task", "n_train"]',
            'columns = ["seed"]',
            r"tables\.0\.columns: 'seed' is not one of the axes that a table can",
        ),
        (
            'verdicts = { large = "T1" }',
            'verdicts = { big = "T1" }',
            r"tables\.0\.verdicts: 'big' is not one",
        ),
        ('labels = { large = "large_model" }', 'labels = { big = "x" }', r"labels: 'big' is not one"),
        ("axes = { task", "axis = { task", r"profiles\.smoke\.axis: .*'axes', 'settings'.*, not 'axis'"),
        (
            "at = { n_train = 5 }",
            "at = { n_train = 6 }",
            r"profiles\.smoke\.settings_by.*: no value for n_train = 6",
        ),
        ("[profiles.smoke]", "[profiles.desk]", r"profiles\.desk"),
        ('name = "toy"', 'name = "tor"', r"name is 'tor', but the file is called 'toy'"),
        ('claims = ["T1"]', 'claims = ["T2"]', r"data/claims/T2\.toml: no such claim"),
        ("[axes]", "[axes", r"not valid TOML"),
    ],
)
def test_every_mistake_is_one_sentence_with_file_and_key(root, old, new, message):
    edit(root, old, new)
    with pytest.raises(ConfigError, match=message) as caught:
        experiments.load("toy")
    text = str(caught.value)
    assert text.startswith("data/") and "\n" not in text


def test_an_unknown_experiment_or_block_names_the_known_ones(root):
    with pytest.raises(ConfigError, match=r"unknown experiment 'toi', did you mean 'toy'\?; known: toy"):
        experiments.load("toi")
    with pytest.raises(ConfigError, match=r"unknown block 'a-n10-s9' of toy.*known: tune-a"):
        experiments.find_block("toy", "a-n10-s9", "laptop")


def test_the_course_s_own_experiments_are_valid_and_their_claims_name_them(monkeypatch):
    monkeypatch.delenv("INSTRUCTLAB_ROOT", raising=False)
    assert "baselines" in experiments.names()
    for name in experiments.names():
        experiment = experiments.load(name)
        assert len(experiment.at("smoke").blocks()) <= 4
        assert experiment.at("laptop").blocks()


# --- keys ------------------------------------------------------------------------------------------


def test_prose_titles_labels_new_seeds_and_resources_leave_the_keys_alone(root):
    before = keys()
    path = root / "notebooks" / "experiments" / "toy.ipynb"
    path.write_text(toy.notebook(prose="# Other words"), encoding="utf-8")
    edit(root, 'title = "A toy"', 'title = "Another"')
    edit(root, "minutes = 1", "minutes = 2")
    edit(root, "seed = [0, 1, 2]", "seed = [0, 1, 2, 3]")
    edit(root, 'large = "large_model"', 'large = "big"')
    edit(root, "steps = { 10 = 3, 20 = 4 }", "steps = { 10 = 3, 20 = 4, 30 = 5 }")
    edit(root, "[axes]\n", "[axes]\n# a comment\n")
    edit(root, '"floor", "small"', '"floor", "another", "small"')
    after = keys()
    assert {name: after[name] for name in before} == before and len(after) == len(before) + 4


def test_code_and_revision_change_every_key(root):
    before = keys()
    path = root / "notebooks" / "experiments" / "toy.ipynb"
    path.write_text(toy.notebook(code="x = 2"), encoding="utf-8")
    changed = keys()
    assert not set(before.values()) & set(changed.values())
    edit(root, "revision = 1", "revision = 2")
    assert not set(changed.values()) & set(keys().values())
    assert not set(keys("smoke").values()) & set(keys().values())


def test_updates_at_one_size_change_the_blocks_of_that_size_only(root):
    before = keys()
    edit(root, "steps = { 10 = 3, 20 = 4 }", "steps = { 10 = 5, 20 = 4 }")
    after = keys()
    assert {name for name in before if before[name] != after[name]} == {n for n in before if "-n10-" in n}


# --- tuning ----------------------------------------------------------------------------------------


def test_the_tuning_metric_chooses_and_of_equals_the_first_that_was_tried(root):
    def chosen(method):
        tried = [line for line in lines if line["method"] == method]
        return experiments.load("toy").at("laptop").tuning.best(method, tried)

    def line(method, knob, value, dev, accuracy=0.0):
        return {"method": method, "tuned": {knob: value}, "dev_accuracy": dev, "accuracy": accuracy}

    rates = [line("large", "learning_rate", v, d, 1 - d) for v, d in ((0.3, 0.8), (0.1, 0.8), (0.2, 0.7))]
    lines = [*rates, line("small", "C", 2.0, 0.6)]
    assert chosen("large") == {"learning_rate": 0.1} and chosen("small") == {"C": 2.0}
    assert chosen("floor") == {}
    edit(root, 'metric = "dev_accuracy"', 'metric = "dev_accuracy"\nbetter = "lower"')
    assert chosen("large") == {"learning_rate": 0.2}


def test_a_run_block_takes_the_tuned_values_and_asks_for_them_when_absent(root):
    experiment = experiments.load("toy").at("laptop")
    tune, run = experiment.blocks()[0], experiment.blocks()[2]
    trials = experiment.trials(tune)
    assert [(t.method, *t.tuned.values()) for t in trials] == [
        ("small", 1.0), ("small", 2.0), ("small", 3.0), ("large", 0.1), ("large", 0.2), ("large", 0.3),
    ]  # fmt: skip
    with pytest.raises(RecordError, match="block toy tune-a --profile laptop"):
        experiment.trials(run)
    toy.run(experiment, tune)
    found = [(t.method, t.tuned) for t in experiment.trials(run)]
    assert found == [("floor", {}), ("small", {"C": 1.0}), ("large", {"learning_rate": 0.2})]


def test_an_axis_inside_makes_no_blocks_but_a_run_for_each_of_its_values(root):
    before = keys()
    edit(root, "[axes]", 'inside = ["shift"]\n[axes]\nshift = ["none", "far"]')
    experiment = experiments.load("toy").at("laptop")
    assert keys() == before  # the notebook's code would change with it; the TOML alone does not decide
    tune, run = experiment.blocks()[0], experiment.blocks()[2]
    assert len(experiment.trials(tune)) == 2 * 6  # tuned for each value, since `at` does not fix the axis
    toy.run(experiment, tune)
    trials = experiment.trials(run)
    assert [(t.method, t.inside["shift"]) for t in trials[:3]] == [
        ("floor", "none"),
        ("floor", "far"),
        ("small", "none"),
    ]
    assert len({files.dumps(t.key) for t in trials}) == len(trials) == 6 and "shift" not in run.parameters
    edit(root, "at = { n_train", 'at = { shift = "none", n_train')
    experiment = experiments.load("toy").at("laptop")
    assert len(experiment.trials(experiment.blocks()[0])) == 6


def test_two_blocks_of_one_name_are_refused(root):
    edit(root, 'task = ["a", "b"]', 'task = ["a", "a-n10"]\nnoise = ["n10-s0", "s0"]')
    with pytest.raises(ConfigError, match="two blocks would be called"):
        experiments.load("toy").at("laptop").blocks()


def test_a_line_records_the_claims_as_they_stood_at_the_start(root):
    experiment = experiments.load("toy").at("laptop")
    stood = provenance.claims_sha(["T1"])
    edit(root, "Ten are enough", "Nine are enough", "data/claims/T1.toml")
    identity = experiment.identity(experiment.blocks()[0])
    assert identity["claims"] == stood != provenance.claims_sha(["T1"])
    assert (
        identity["key"] == experiment.key(experiment.blocks()[0]) and identity["schema"] == provenance.SCHEMA
    )


# --- one block -------------------------------------------------------------------------------------


def fake_notebook(monkeypatch, stop_after: int | None = None, status: str = "ok"):
    """Replace papermill: write the lines that are not there yet, up to ``stop_after`` of them."""
    calls = []

    def run_notebook(path, out, parameters, *, timeout, env, threads):
        assert threads == 1
        calls.append((path.name, timeout, env["INSTRUCTLAB_RUN_DIR"]))
        spec = experiments.load("toy").at(parameters["profile"])
        block = spec.block(**{k: parameters[k] for k in ("stage", "task", "n_train", "seed")})
        have = files.read_lines(out / "lines.jsonl")
        todo = [t for t in spec.trials(block) if not any(t.key.items() <= x.items() for x in have)]
        for trial in todo[:stop_after]:
            files.append_line(out / "lines.jsonl", toy.line(spec, block, trial))
        toy.write_manifest(out, status=status)
        calls[-1] += (len(todo[:stop_after]),)
        return runner.Manifest("toy", {}, "", "laptop", 0, status=status)

    monkeypatch.setattr(runner, "run_notebook", run_notebook)
    monkeypatch.setattr(runner, "read_manifest", lambda out: _manifest(out))
    return calls


def _manifest(out):
    fields = files.read_json(out / "manifest.json")
    if fields.get("schema") != 1:
        raise RecordError(f"{out}: not a manifest of schema 1")
    known = {f: fields[f] for f in ("status", "error", "peak_memory_mb", "seconds")}
    return runner.Manifest("toy", {}, "", "laptop", 0, **known)


def test_a_block_goes_on_where_it_stopped_and_a_finished_one_is_left_alone(root, monkeypatch):
    calls = fake_notebook(monkeypatch, stop_after=4, status="aborted")
    assert experiments.run_block("toy", "tune-a", "laptop").status == "aborted"
    calls = fake_notebook(monkeypatch)
    assert experiments.run_block("toy", "tune-a", "laptop").status == "ok"
    assert calls == [("toy.ipynb", 60, str(root / "build/runs/toy/laptop/tune-a"), 2)]
    assert experiments.run_block("toy", "tune-a", "laptop").status == "ok" and len(calls) == 1
    experiments.run_block("toy", "tune-a", "laptop", fresh=True)
    assert calls[-1][-1] == 6


def test_fresh_repeats_a_block_whose_lines_are_committed_and_else_they_count(root, monkeypatch):
    toy.run_all()
    calls = fake_notebook(monkeypatch)
    for fresh, repeated in ((False, 0), (True, 6)):
        shutil.rmtree(root / "build")
        (job,) = (job for job in jobs.all_jobs(["toy"], "laptop") if job.name == "toy/tune-a")
        snakemake._clear([job], fresh)
        experiments.run_block("toy", "tune-a", "laptop")
        assert calls[-1][-1] == repeated


def test_lines_of_other_code_are_dropped_before_a_block_runs_again(root, monkeypatch):
    calls = fake_notebook(monkeypatch)
    experiments.run_block("toy", "tune-a", "laptop")
    (root / "notebooks/experiments/toy.ipynb").write_text(toy.notebook(code="x = 3"), encoding="utf-8")
    experiments.run_block("toy", "tune-a", "laptop")
    lines = files.read_lines(root / "build/runs/toy/laptop/tune-a/lines.jsonl")
    assert [c[-1] for c in calls] == [6, 6] and len(lines) == 6 and len({x["key"] for x in lines}) == 1


def test_a_notebook_that_ends_without_its_lines_has_failed(root, monkeypatch):
    fake_notebook(monkeypatch, stop_after=2)
    manifest = experiments.run_block("toy", "tune-a", "laptop")
    assert manifest.status == "failed" and "no line for" in manifest.error["message"]


def test_a_damaged_result_line_is_set_aside_and_only_its_run_repeated(root, monkeypatch, capsys):
    calls = fake_notebook(monkeypatch)
    experiments.run_block("toy", "tune-a", "laptop")
    path = root / "build/runs/toy/laptop/tune-a/lines.jsonl"
    rows = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([rows[0], rows[1][:50], *rows[2:]]))
    found, reason = (
        experiments.load("toy").at("laptop").built(experiments.load("toy").at("laptop").blocks()[0])
    )
    assert found is None and "lines.jsonl, line 2" in reason
    experiments.run_block("toy", "tune-a", "laptop")
    assert calls[-1][-1] == 1 and len(files.read_lines(path)) == 6
    assert rows[1][:50] in path.with_suffix(".damaged.txt").read_bytes()
    assert "1 damaged line(s) set aside in lines.damaged.txt" in capsys.readouterr().err


# --- aggregation -----------------------------------------------------------------------------------


def test_a_full_grid_becomes_one_sorted_line_per_run_with_predictions_beside_it(root):
    experiment = toy.run_all()
    found = experiments.aggregate(experiment, "laptop")
    assert not found.missing and not found.refused and not found.changed
    lines = files.read_lines(root / "data/results/toy.jsonl")
    assert len(lines) == 2 * 6 + 12 * 3 == len(found.lines)
    order = [(x["stage"], x["task"], x["n_train"], x["seed"], x["method"]) for x in lines]
    assert {x["block_seconds"] for x in lines} == {2.0}
    assert order == sorted(order) and order[0][0] == "run"
    first = next(x for x in lines if x["method"] == "small" and x["stage"] == "run")
    assert first["tuned"] == {"C": 1.0} and first["peak_memory_mb"] == 70.0
    assert "predictions" not in first and "targets" not in first
    stored = experiments.predictions("toy")
    wanted = {"task": "a", "n_train": 10, "seed": 0, "method": "large"}
    (row,) = (row for row in stored if wanted.items() <= row.items())
    assert len(stored) == 36 and row["targets"].tolist() == [0, 1] * 4 and "scores" not in row
    assert row["predictions"].tolist() == [1, 0, *([0, 1] * 3)]
    assert len(experiments.results("toy")) == 36 and len(experiments.results("toy", stage="tune")) == 12


def test_the_same_runs_give_the_same_bytes_in_any_order(root):
    toy.run_all()
    lines, parquet = root / "data/results/toy.jsonl", root / "data/results/toy.predictions.parquet"
    before = lines.read_bytes(), parquet.read_bytes()
    lines.unlink(), parquet.unlink()
    for path in (root / "build").rglob("lines.jsonl"):
        files.write_lines(path, files.read_lines(path)[::-1])
    assert experiments.aggregate(experiments.load("toy"), "laptop").changed
    assert (lines.read_bytes(), parquet.read_bytes()) == before


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_a_damaged_parquet_file_is_one_sentence(root, share):
    toy.run_all()
    path = experiments.predictions_path("toy")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(RecordError, match=r"toy\.predictions\.parquet: not a readable Parquet") as caught:
        experiments.predictions("toy")
    assert "\n" not in str(caught.value) and "restore it from git" in str(caught.value)


def test_missing_and_refused_blocks_are_named_and_never_averaged(root):
    experiment = experiments.load("toy").at("laptop")
    for block in experiment.blocks():
        if block.id != "a-n10-s0":
            toy.run(experiment, block)
    folder = root / "build/runs/toy/laptop"
    toy.write_manifest(folder / "a-n10-s1", status="failed")
    toy.write_manifest(folder / "a-n20-s0", schema=99)
    rows = files.read_lines(folder / "a-n20-s1/lines.jsonl")
    files.write_lines(folder / "a-n20-s1/lines.jsonl", [row | {"schema": 99} for row in rows])
    files.write_lines(folder / "b-n10-s0/lines.jsonl", files.read_lines(folder / "b-n10-s0/lines.jsonl")[:-1])
    rows = files.read_lines(folder / "b-n10-s1/lines.jsonl")
    files.write_lines(folder / "b-n10-s1/lines.jsonl", [row | {"key": "old"} for row in rows])
    (folder / "b-n10-s2/lines.jsonl").write_bytes(b"{\n{}\n")
    found = experiments.aggregate(experiment, "laptop")
    expected = {
        "a-n10-s1": "failed: boom",
        "a-n20-s0": "schema",
        "a-n20-s1": "schema 99",
        "b-n10-s0": "no line for large",
        "b-n10-s1": "have changed",
        "b-n10-s2": "line 1",
    }
    assert set(found.refused) == set(expected)
    for block, words in expected.items():
        assert words in found.refused[block]
    assert len(found.missing) == 7 * 3 and "a · n_train = 10 · seed = 0 · floor" in found.missing
    assert found.missing and len(found.lines) == 12 + 5 * 3


def test_in_a_fresh_clone_committed_lines_of_the_present_key_count_as_done(root):
    experiment = toy.run_all()
    committed = (root / "data/results/toy.jsonl").read_bytes()
    shutil.rmtree(root / "build")
    found = jobs.all_jobs(["toy"], "laptop")
    assert len(found) == 14 and all(job.done for job in found)
    found = experiments.aggregate(experiment, "laptop")
    assert (
        not found.missing
        and not found.changed
        and (root / "data/results/toy.jsonl").read_bytes() == committed
    )
    edit(root, "steps = { 10 = 3, 20 = 4 }", "steps = { 10 = 5, 20 = 4 }")
    left = [job.name for job in jobs.all_jobs(["toy"], "laptop") if not job.done]
    assert len(left) == 6 and all("-n10-" in name for name in left)
    # one of them runs again: the predictions of the others are kept
    fresh = experiments.load("toy").at("laptop")
    toy.run(fresh, next(b for b in fresh.blocks() if b.id == "a-n10-s0"))
    assert len(experiments.aggregate(fresh, "laptop").missing) == 5 * 3
    assert len(experiments.predictions("toy")) == 7 * 3


def test_a_smoke_run_never_reaches_the_results(root):
    toy.run_all("smoke")
    assert not (root / "data/results").exists() and (root / "build/results/toy.smoke.jsonl").is_file()


def test_scores_may_be_fractions_and_a_run_may_record_none(root):
    experiment = experiments.load("toy").at("laptop")
    for block in experiment.blocks():
        own = {"predictions": None, "targets": None}
        if block.coordinates["task"] == "a":
            own["scores"] = [0.25, 1.0]
        toy.run(experiment, block, **own)
    experiments.aggregate(experiment, "laptop")
    stored = experiments.predictions("toy")
    assert len(stored) == 18 and {row["task"] for row in stored} == {"a"}
    assert all(row["scores"].tolist() == [0.25, 1.0] and "targets" not in row for row in stored)


def test_predictions_over_the_limit_stay_out_of_git(root, monkeypatch):
    monkeypatch.setattr(collect, "MAX_PREDICTIONS", 100)
    experiment = experiments.load("toy").at("laptop")
    for block in experiment.blocks():
        toy.run(experiment, block)
    found = experiments.aggregate(experiment, "laptop")
    assert "was not written" in found.notes[0] and experiments.predictions("toy") == []
    assert len(found.left_out) == 36 and "items" not in claims.verdict("T1")["basis"]
    claims.keep_bootstraps(experiment, "laptop", found.left_out)
    kept = claims.verdict("T1")
    assert experiments.bootstrap_path("toy").is_file() and "items" in kept["basis"]
    monkeypatch.setattr(collect, "MAX_PREDICTIONS", 100_000)
    experiments.results_path("toy").unlink()
    again = experiments.aggregate(experiment, "laptop")
    claims.keep_bootstraps(experiment, "laptop", again.left_out)
    assert not experiments.bootstrap_path("toy").is_file() and claims.verdict("T1") == kept


# --- the graph -------------------------------------------------------------------------------------

# It stands in for `python -m instructlab_utils block EXPERIMENT BLOCK --profile PROFILE`, without a kernel: what the
# block would have written is copied from `prepared`.
WORKER = """#!/bin/bash
[ "$1 $2 $3 $OMP_NUM_THREADS" = "-m instructlab_utils block 1" ] || exit 9
cd "$INSTRUCTLAB_ROOT" && echo "$5" >> calls.txt
if [ -e slow ] && [ "$5" = tune-b ]; then echo $$ > sleeping; sleep 120; fi
mkdir -p "build/runs/$4/$7" && cp -r "prepared/$5" "build/runs/$4/$7/"
if [ -e bad ] && [ "$5" = a-n10-s0 ]; then
    sed -i 's/"status": "ok"/"status": "failed"/; s/"error": null/"error": {"name": "E", "message": "boom"}/' \
        "build/runs/$4/$7/$5/manifest.json"
    exit 1
fi
"""


@pytest.fixture
def engine(root, monkeypatch):
    """The real Snakefile on the toy, with a worker that needs no kernel."""
    repository = Path(experiments.__file__).resolve().parents[2]
    (root / "Snakefile").write_bytes((repository / "Snakefile").read_bytes())
    edit(root, "seed = [0, 1, 2]", "seed = [0]")
    edit(root, "n_train = [10, 20]", "n_train = [10]")
    experiment = experiments.load("toy").at("laptop")
    for block in experiment.blocks():
        toy.run(experiment, block)
    (root / "build/runs/toy/laptop").rename(root / "prepared")
    worker = root / "worker.sh"
    worker.write_text(WORKER, encoding="utf-8")
    worker.chmod(worker.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("INSTRUCTLAB_PYTHON", str(worker))
    return root


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_killed_engine_leaves_nobody_behind_and_the_next_call_does_the_rest(engine):
    (engine / "slow").touch(), (engine / "bad").touch()
    code = "from instructlab_repro.engine import snakemake; snakemake.run_graph(['toy'], 'laptop', 2)"
    first = subprocess.Popen([sys.executable, "-c", code], cwd=Path(experiments.__file__).parents[2])
    deadline = time.monotonic() + 180
    tuned = engine / "build/runs/toy/laptop/tune-a/done"
    while not ((engine / "sleeping").exists() and tuned.exists()):
        assert time.monotonic() < deadline and first.poll() is None
        time.sleep(0.1)
    with pytest.raises(ConfigError, match="another run is at work"):
        snakemake.run_graph(["toy"], "laptop")
    first.send_signal(signal.SIGKILL)
    first.wait()
    orphan = int((engine / "sleeping").read_text())
    os.kill(orphan, 0)  # it is still there

    (engine / "slow").unlink()
    (engine / "calls.txt").unlink()
    seen = []
    result = snakemake.run_graph(
        ["toy"], "laptop", 2, on_progress=lambda jobs: seen.append([j.status for j in jobs])
    )
    with pytest.raises(ProcessLookupError):
        os.kill(orphan, 0)
    status = {job.name: job.status for job in result.ran}
    assert status == {"toy/tune-b": "ok", "toy/a-n10-s0": "failed", "toy/b-n10-s0": "ok"}
    assert [job.name for job in result.current] == ["toy/tune-a"] and result.exit_code == 1
    assert [job.error for job in result.bad] == ["E: boom"] and seen[-1] == ["ok", "failed", "ok"]
    kept = json.loads((engine / "build/runs/toy/laptop/a-n10-s0/manifest.json").read_text())
    assert kept["status"] == "failed" and not (engine / "build/runs/toy/laptop/a-n10-s0/done").exists()

    calls = Counter((engine / "calls.txt").read_text().split())
    # Until the second call ended it, the first one's Snakemake lived on, and may have begun the block that fails.
    assert set(calls) == {"a-n10-s0", "b-n10-s0", "tune-b"} and calls["b-n10-s0"] == calls["tune-b"] == 1
    left = [job for job in jobs.all_jobs(["toy"], "laptop") if not job.done]
    assert [(job.name, job.why) for job in left] == [("toy/a-n10-s0", "its last run failed: boom")]
    done = snakemake.run_graph(["toy/b-n10-s0"], "laptop")
    assert not done.ran and len(done.current) == 2 and done.seconds == 0  # no engine was started


def test_a_dry_run_says_what_is_left_and_starts_nothing(root, monkeypatch, capsys):
    experiment = experiments.load("toy").at("laptop")
    toy.run(experiment, experiment.blocks()[0])
    monkeypatch.setattr(snakemake, "run_graph", lambda *_, **__: pytest.fail("it was started"))
    assert course.run_experiments(["toy"], "laptop", dry_run=True) == 0
    assert "\n1 of 14 blocks are there, 13 would run" in capsys.readouterr().out
    tune, block = jobs.all_jobs(["toy/b-n10-s1"], "laptop")
    assert (tune.name, block.name) == ("toy/tune-b", "toy/b-n10-s1")
    assert block.needs == (root / "build/runs/toy/laptop/tune-b/done",)
    monkeypatch.setattr(repeat, "verify", lambda *_: pytest.fail("it was started"))
    assert course.verify_experiments(["toy"], "laptop", dry_run=True) == 0
    assert capsys.readouterr().out == "toy: a block of it would run again\n"


def test_an_engine_that_cannot_start_is_one_sentence(root):
    (root / "Snakefile").write_text("this is not a rule\n")
    with pytest.raises(ConfigError, match=r"Snakemake could not start: .*snakemake\.log"):
        snakemake.run_graph(["toy"], "laptop")
