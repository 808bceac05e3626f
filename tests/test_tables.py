"""Tables in a paper's shape from recorded lines, and text blocks that cannot drift from them."""

import csv
import io

import numpy as np
import pytest
import toy_project as toy

from instructlab_utils.errors import ConfigError, RecordError
from instructlab_utils.metrics import t_interval
from instructlab_utils.repro import experiments, record, tables


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRUCTLAB_ROOT", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    return toy.make(tmp_path)


def set_accuracy(root, values: dict[tuple[str, str, int], list[float]]) -> None:
    """Replace accuracies in the results file by (method, task, n_train)."""
    path = root / "data/results/toy.jsonl"
    lines = record.read_lines(path)
    for line in lines:
        cell = (line["method"], line["task"], line["n_train"])
        if line["stage"] == "run" and cell in values:
            line["accuracy"] = values[cell][line["seed"]]
    record.write_lines(path, lines)


def test_cells_are_mean_sd_and_t_interval_over_seeds(root):
    toy.run_all()
    values = [0.5, 0.6, 0.9]
    set_accuracy(root, {("large", "a", 10): values})
    cell = tables.summarise("toy").cells["large", "a", 10]
    assert cell.mean == pytest.approx(np.mean(values)) and cell.sd == pytest.approx(np.std(values, ddof=1))
    assert cell.interval == t_interval(values)
    text = tables.markdown("toy")
    assert "66.7 ± 20.8" in text and "[15.0, 118.4]" in text


def test_bold_marks_the_best_and_what_the_same_seeds_cannot_tell_from_it(root):
    toy.run_all()
    best = [0.80, 0.70, 0.90]
    set_accuracy(
        root,
        {
            ("large", "a", 10): best,
            ("small", "a", 10): [0.79, 0.71, 0.88],  # differences 1, -1, 2 points: contains zero
            ("floor", "a", 10): [
                0.75,
                0.66,
                0.85,
            ],  # differences 5, 4, 5 points: wide overlap, yet always worse
        },
    )
    cells = tables.summarise("toy").cells
    assert [cells[m, "a", 10].best for m in ("large", "small", "floor")] == [True, True, False]
    # unpaired, the intervals of best and worst overlap: only pairing tells them apart
    assert cells["floor", "a", 10].interval.high > cells["large", "a", 10].interval.low
    row = next(r for r in tables.markdown("toy").splitlines() if r.startswith("| large_model"))
    assert "**80.0 ± 10.0**" in row


def test_a_cell_with_a_missing_seed_is_left_out_and_named(root):
    experiment = toy.run_all()
    (root / "build/runs/toy/laptop/b-n20-s1/lines.jsonl").unlink()
    experiments.results_path("toy").unlink()
    experiments.aggregate(experiment, "laptop")
    summary = tables.summarise("toy")
    assert len(summary.cells) == 9 and ("large", "b", 20) not in summary.cells
    assert "large_model, b, n = 20: seed 1" in summary.missing and len(summary.missing) == 3
    text = tables.markdown("toy")
    assert text.count("missing |") == 3 and "- large_model, b, n = 20: seed 1" in text
    assert "% missing: large\\_model" not in tables.latex("toy") and "% missing: large_model" in tables.latex(
        "toy"
    )
    rows = list(csv.DictReader(io.StringIO(tables.to_csv("toy"))))
    gap = [r for r in rows if (r["task"], r["n_train"]) == ("b", "20")]
    assert {(r["seeds"], r["mean"]) for r in gap} == {("0", "")}


def test_csv_holds_every_cell_unrounded_to_the_reader(root):
    toy.run_all()
    rows = list(csv.DictReader(io.StringIO(tables.to_csv("toy"))))
    assert len(rows) == 3 * 2 * 2 and {r["seeds"] for r in rows} == {"3"}
    summary = tables.summarise("toy")
    for row in rows:
        cell = summary.cells[row["method"], row["task"], int(row["n_train"])]
        assert float(row["mean"]) == pytest.approx(cell.mean, abs=1e-6)
        assert float(row["high"]) == pytest.approx(cell.interval.high, abs=1e-6)
        assert row["best"] == str(int(cell.best))


def test_latex_uses_booktabs_and_has_the_same_number_of_columns_everywhere(root):
    toy.run_all()
    text = tables.latex("toy")
    assert text.startswith(r"\begin{tabular}{lrrrrrr}") and r"large\_model" in text and r"$\pm$" in text
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\cmidrule(lr){2-3}", r"\cmidrule(lr){4-5}"):
        assert rule in text
    rows = [row for row in text.splitlines() if row.endswith(r"\\") and "multicolumn" not in row]
    assert len(rows) == 4 and {row.count("&") for row in rows} == {6}


def test_the_notes_say_how_it_was_run_and_where_the_tuning_hit_an_edge(root):
    toy.run_all()
    text = tables.markdown("toy")
    assert "over 3 seeds" in text and "8 test examples" in text and "threads" in text
    assert "small (a 1, b 1)" in text and "large_model (" not in text  # 0.2 lies inside 0.1 to 0.3
    assert "| 2.5 M | 1.5 |" in text and "| 1.2 k |" in text


def test_the_notes_name_what_learned_nothing(root):
    toy_toml = root / "data/experiments/toy.toml"
    toy_toml.write_text(toy_toml.read_text().replace('"floor"', '"majority"'))
    experiment = experiments.load("toy").at("laptop")
    rows = []
    for block in experiment.blocks():
        small = 0.49 if block.n_train == 10 else 0.8
        scores = {"majority": 0.5, "small": small + block.seed / 100, "large": 0.9}
        if block.stage == "run":
            rows += [
                toy.line(experiment, block, "floor", None) | {"method": method, "accuracy": accuracy}
                for method, accuracy in scores.items()
            ]
    record.write_lines(root / "data/results/toy.jsonl", rows)
    text = tables.markdown("toy")
    assert "as far as these seeds can tell: small (a 10, b 10)." in text


def test_nothing_or_strange_lines_are_refused(root):
    with pytest.raises(RecordError, match="no results yet; run `make reproduce`"):
        tables.markdown("toy")
    toy.run_all()
    path = root / "data/results/toy.jsonl"
    lines = record.read_lines(path)
    record.write_lines(path, [line | {"schema": 7} for line in lines])
    with pytest.raises(RecordError, match="schema 7"):
        tables.markdown("toy")
    for line in lines:
        del line["accuracy"]
    record.write_lines(path, lines)
    with pytest.raises(RecordError, match="no field 'accuracy'"):
        tables.markdown("toy")


def test_the_figure_has_a_panel_per_task_and_every_series_differs_in_grey(root):
    toy.run_all()
    drawing = tables.figure("toy")
    panels = drawing.axes
    assert [p.get_title() for p in panels] == ["a", "b"]
    for panel in panels:
        looks = {(line.get_marker(), line.get_linestyle()) for line in panel.get_lines()}
        assert len(panel.get_lines()) == len(looks) == 3 and len(panel.collections) == 3
    summary = tables.summarise("toy")
    heights = panels[0].get_lines()[2].get_ydata()
    np.testing.assert_allclose(heights, [100 * summary.cells["large", "a", n].mean for n in (10, 20)])


def test_write_leaves_four_files_and_the_same_bytes_twice(root):
    toy.run_all()
    written = tables.write("toy")
    names = [path.relative_to(root).as_posix() for path in written]
    folder = "data/results/tables/toy"
    assert names == [f"{folder}.md", f"{folder}.csv", f"{folder}.tex", "figures/toy.png"]
    before = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in tables.write("toy")] == before and before[3][:4] == b"\x89PNG"


def test_the_ledger_has_a_row_per_claim(root):
    assert "| T1 | Ten are enough. | **not tested** |" in tables.ledger()
    toy.run_all()
    assert "**supported**" in tables.ledger()
    assert set(tables.generated()) == {"claims", "table-toy"}


# --- generated blocks ------------------------------------------------------------------------------

PAGE = """# Title

<!-- generated:one -->
old
<!-- /generated -->
Between.
<!-- generated:two -->
<!-- /generated -->
"""


def test_blocks_are_replaced_and_nothing_else(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(PAGE)
    assert tables.check_blocks(page, {"one": "new"}) == [
        "README.md: the generated block 'one' is out of date; run `make reproduce`."
    ]
    assert page.read_text() == PAGE
    assert tables.update_blocks(page, {"one": "new\n\n", "two": r"a\1b", "absent": "x"}) == ["one", "two"]
    assert page.read_text() == PAGE.replace("old", "new").replace("two -->\n", "two -->\na\\1b\n")
    assert tables.update_blocks(page, {"one": "new", "two": r"a\1b"}) == []
    assert tables.check_blocks(page, {"one": "new"}) == []


@pytest.mark.parametrize(
    "text",
    [
        "<!-- generated:one -->\nopen\n",
        "text\n<!-- /generated -->\n",
        "<!-- generated:one -->\n<!-- generated:two -->\n<!-- /generated -->\n",
    ],
)
def test_unbalanced_blocks_are_refused_and_the_file_stays(tmp_path, text):
    page = tmp_path / "README.md"
    page.write_text(text)
    with pytest.raises(ConfigError, match=r"README\.md"):
        tables.update_blocks(page, {"one": "x", "two": "y"})
    assert page.read_text() == text
