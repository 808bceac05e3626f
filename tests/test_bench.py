"""The benchmark script: its arithmetic is right, and its page says what its record says."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from instructlab_repro.pages import check_blocks

ROOT = Path(__file__).resolve().parents[1]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return script("bench")


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize(("rows", "tokens"), [(1, 5), (3, 8)])
def test_counted_operations_are_those_of_the_formula(bench: ModuleType, rows: int, tokens: int) -> None:
    from transformers import BertConfig

    layers, hidden, inner, labels = 2, 16, 40, 3
    config = BertConfig(
        vocab_size=50,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=inner,
        num_labels=labels,
    )
    projections = (
        4 * hidden * hidden + 2 * hidden * inner
    )  # query, key, value, output; two feed-forward matrices
    attention = 2 * tokens * hidden  # scores, and their product with the values
    head = hidden * hidden + hidden * labels  # pooler and classifier, on one token per row
    forward = 2 * rows * (layers * tokens * (projections + attention) + head)
    assert (
        bench.count_flops(config)(rows, tokens) == 3 * forward
    )  # the backward pass has two products for each


def test_an_absent_part_is_left_out(bench: ModuleType) -> None:
    text = bench.markdown({"import": {"median": 0.0421}})
    assert "`import instructlab_utils` | 0.042 s | < 0.3 s" in text
    assert "GFLOP" not in text and "make course" not in text


def test_the_page_is_made_from_the_record(bench: ModuleType, results: dict[str, Any]) -> None:
    assert (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8") == bench.page(results)
    assert check_blocks(ROOT / "README.md", {"benchmark": bench.headline(results)}) == []


def test_the_coverage_of_intervals_is_shown_as_it_is_stored() -> None:
    found = json.loads((ROOT / "benchmarks" / "coverage.json").read_text(encoding="utf-8"))
    assert check_blocks(ROOT / "docs" / "how-sure.md", {"coverage": script("coverage").table(found)}) == []


def test_the_record_is_consistent(bench: ModuleType, results: dict[str, Any]) -> None:
    part = results["training"]
    assert part["sentences"] == 512 and part["rounds"] >= 3
    assert {len(seconds) for seconds in part["seconds"].values()} == {part["rounds"]}
    assert sum(part["shares"].values()) == pytest.approx(1)
    speed = part["gflop"]["real"] + part["gflop"]["padding"]
    assert part["gflops"]["executed"] == pytest.approx(speed / part["median"]["ours"])
    assert 0 < part["of_gemm"]["real"] <= part["of_gemm"]["executed"] < 1
    assert results["import"]["median"] < bench.TARGETS["import"]


def test_no_tuning_method_is_slower_or_larger_than_peft_allows(
    bench: ModuleType, results: dict[str, Any]
) -> None:
    part = results["tuners"]
    assert part["rounds"] >= 7 and set(part["methods"]) == set(bench.tuning_pairs())
    for name, row in part["methods"].items():
        assert row["ratio"] >= bench.TARGETS["tuners"], name
        # the loss per target keeps its mask: some hundred bytes
        assert row["kept_mb"]["ours"] <= row["kept_mb"]["peft"] + 2**-10, name


@pytest.mark.parametrize(
    ("arguments", "complaint"), [(["--parts", "nosuch"], "unknown part"), (["--rounds", "0"], "1 or more")]
)
def test_wrong_arguments_are_refused(arguments: list[str], complaint: str) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "bench.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert complaint in done.stderr


def test_ranking_agrees_with_lm_eval_and_is_faster(bench: ModuleType, results: dict[str, Any]) -> None:
    part = results["ranking"]
    assert part["settings"]["none"]["questions"] >= 1000 and len(part["tasks"]) >= 5
    for row in part["settings"].values():
        assert row["same_choice"] >= bench.AGREEMENT["choice"]
        assert row["largest_difference"] <= bench.AGREEMENT["log_prob"]
        assert row["ratio"] >= bench.TARGETS["ranking"]
    assert bench.agreement([[1.0, 2.0], [3.0, 0.0]], [[1.0, 2.5], [0.0, 1.0]]) == (0.5, 3.0)
