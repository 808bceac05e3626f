"""Experiments as data: the grid of data/experiments/<name>.toml, its blocks, keys and results."""

from instructlab_repro.experiments.blocks import Block, Experiment, Trial, notebook_code_sha, notebook_path
from instructlab_repro.experiments.collect import Aggregate, aggregate
from instructlab_repro.experiments.quality import bands, chosen, did_not_train, edition, judged, untrained
from instructlab_repro.experiments.running import find_block, load, names, run_block
from instructlab_repro.experiments.spec import FOLDER, Table, Value
from instructlab_repro.experiments.stored import (
    BULKY,
    EDITIONS,
    bootstrap_path,
    predictions,
    predictions_path,
    results,
    results_path,
    rows_by_block,
)

__all__ = [
    "BULKY", "EDITIONS", "FOLDER", "Aggregate", "Block", "Experiment", "Table", "Trial", "Value", "aggregate", "bands",
    "bootstrap_path", "chosen", "did_not_train", "edition", "find_block", "judged", "load", "names",
    "notebook_code_sha", "notebook_path", "predictions", "predictions_path", "results", "results_path",
    "rows_by_block", "run_block", "untrained",
]  # fmt: skip
