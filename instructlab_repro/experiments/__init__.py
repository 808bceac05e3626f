"""Experiments as data: the grid of data/experiments/<name>.toml, its blocks, keys and results."""

from instructlab_repro.experiments.blocks import (
    Block,
    Experiment,
    Trial,
    find_block,
    load,
    names,
    notebook_code_sha,
    notebook_path,
    run_block,
)
from instructlab_repro.experiments.collect import Aggregate, aggregate
from instructlab_repro.experiments.spec import FOLDER, Table, Value
from instructlab_repro.experiments.stored import (
    BULKY,
    bootstrap_path,
    predictions,
    predictions_path,
    results,
    results_path,
    rows_by_block,
)

key = Experiment.key

__all__ = [
    "BULKY",
    "FOLDER",
    "Aggregate",
    "Block",
    "Experiment",
    "Table",
    "Trial",
    "Value",
    "aggregate",
    "bootstrap_path",
    "find_block",
    "key",
    "load",
    "names",
    "notebook_code_sha",
    "notebook_path",
    "predictions",
    "predictions_path",
    "results",
    "results_path",
    "rows_by_block",
    "run_block",
]
