"""A project of a few bytes, for tests of the grid: one experiment, one claim, a notebook of one cell, no model."""

from __future__ import annotations

import json
from pathlib import Path

from instructlab_repro import experiments
from instructlab_utils import files

TOML = """
name = "toy"
title = "A toy"
notebook = "toy"
revision = 1
claims = ["T1"]
methods = ["floor", "small", "large"]
labels = { large = "large_model" }
[axes]
task = ["a", "b"]
n_train = [10, 20]
seed = [0, 1, 2]
[settings]
dev = 5
test = 8
batch_size = 2
[settings_by.n_train]
steps = { 10 = 3, 20 = 4 }
[tuning]
at = { n_train = 20, seed = 9 }
metric = "dev_accuracy"
[tuning.values]
large = { learning_rate = [0.1, 0.2, 0.3] }
small = { C = [1.0, 2.0, 3.0] }
[resources]
minutes = 1
[[tables]]
title = "Test accuracy"
metric = "accuracy"
scale = 100.0
unit = "%"
columns = ["task", "n_train"]
verdicts = { large = "T1" }
[profiles.smoke]
axes = { task = ["a"], n_train = [5], seed = [0] }
settings_by = { n_train = { steps = { 5 = 1 } } }
tuning = { at = { n_train = 5 } }
"""

CLAIM = """
id = "T1"
statement = "Ten are enough."
kind = "difference"
lesson = "03"
experiment = "toy"
direction = "greater"
threshold = 0.0
expected = "supported"
[source]
work = "a toy"
place = "its only sentence"
evidence = "asserted"
[statistic]
name = "ten of the large against twenty of the small"
kind = "paired_difference"
metric = "accuracy"
over = ["task"]
a = { method = "large", n_train = 10 }
b = { method = "small", n_train = 20 }
"""

SOURCE = """# ---
# jupyter:
#   instructlab:
#     id: toy
#     title: A toy
#     outcome: nothing
#     assets: []
#     minutes: {smoke: 1, laptop: 1, gpu: 1}
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---
"""


def notebook(code: str = "x = 1", prose: str = "# Toy") -> str:
    """An .ipynb of one prose cell and one code cell."""
    cells = [
        {"cell_type": "markdown", "id": "p", "metadata": {}, "source": prose},
        {
            "cell_type": "code",
            "id": "c",
            "metadata": {},
            "source": code,
            "outputs": [],
            "execution_count": None,
        },
    ]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def make(root: Path) -> Path:
    """Write the project's files below ``root``; INSTRUCTLAB_ROOT must point there."""
    files = {
        "pyproject.toml": "",
        "data/assets.toml": "",
        "data/experiments/toy.toml": TOML,
        "data/claims/T1.toml": CLAIM,
        "notebooks/experiments/toy.ipynb": notebook(),
        "notebooks/experiments/source/toy.py": SOURCE,
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def line(experiment: experiments.Experiment, block: experiments.Block, trial: experiments.Trial, **more):
    """What the notebook would have written for one run: large is good, small is fair, floor is constant."""
    targets = [0, 1] * 4
    value = trial.tuned.get("learning_rate")
    seed = int(block.coordinates["seed"])
    wrong = {"large": 1 + (seed + (value or 0) != 0.1) % 2, "small": 3, "floor": 4}[trial.method]
    predictions = [1 - t if i < wrong else t for i, t in enumerate(targets)]
    accuracy = sum(p == t for p, t in zip(predictions, targets, strict=True)) / len(targets)
    return {
        **experiment.identity(block),
        **trial.key,
        "steps": 3,
        "accuracy": accuracy,
        "macro_f1": accuracy,
        "dev_accuracy": 1 - abs((value or 0) - 0.2) if trial.method == "large" else 0.5,
        "test_loss": 0.3,
        "trainable_parameters": {"large": 2_500_000, "small": 1_200, "floor": 0}[trial.method],
        "seconds": 1.5,
        "cpu_seconds": 1.25,
        "peak_memory_mb": 70.0,
        "predictions": predictions,
        "targets": targets,
        **more,
    }


def run(
    experiment: experiments.Experiment,
    block: experiments.Block,
    *,
    status: str = "ok",
    skip: str = "",
    **more,
):
    """Leave the files of one finished block under build/, without running anything."""
    block.out.mkdir(parents=True, exist_ok=True)
    trials = [trial for trial in experiment.trials(block) if trial.method != skip]
    files.write_lines(block.out / "lines.jsonl", [line(experiment, block, t, **more) for t in trials])
    write_manifest(block.out, status=status)


def write_manifest(out: Path, *, status: str = "ok", **more) -> None:
    fields = {
        "notebook": "toy.ipynb", "parameters": {}, "code_sha": "", "profile": "laptop", "seed": 0, "status": status,
        "seconds": 2.0, "peak_memory_mb": 77.0, "error": None if status == "ok" else {"name": "E", "message": "boom"},
        "schema": 1,
    }  # fmt: skip
    files.write_json(out / "manifest.json", fields | more)


def run_all(profile: str = "laptop") -> experiments.Experiment:
    """Every block of the toy, finished and collected."""
    experiment = experiments.load("toy").at(profile)
    for block in experiment.blocks():
        run(experiment, block)
    experiments.aggregate(experiment, profile)
    return experiment
