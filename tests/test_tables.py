"""Tables in a paper's shape from recorded lines, and text blocks that cannot drift from them."""

import csv
import io
import re
from html.parser import HTMLParser
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import toy_project as toy

from instructlab_repro import claims, experiments
from instructlab_repro.pages import ledger, markdown, notes, readme, tables
from instructlab_utils import files
from instructlab_utils.errors import ConfigError, RecordError
from instructlab_utils.intervals import t_interval

NBSP = "\u00a0"
PAPER = """
[[tables.paper]]
source = "Doe (2020), Table 2"
model = "Big"
data = "their_task"
metric = "exact match"
evidence = "read in the paper"
values = { "T & F" = { large = 99.9, small = 80.0 } }
"""
SECOND = """
[[tables]]
title = "Loss"
metric = "test_loss"
better = "lower"
columns = ["n_train"]
decimals = 3
"""
ROW = {
    "claim": "T1", "statement": "Ten are enough.", "source": {"work": "a toy", "place": "nowhere", "evidence": "asserted"},
    "kind": "difference", "k": None, "confidence": 0.95, "expected": "supported", "experiment": "toy", "argument": None,
    "statistic": "ten against twenty", "verdict": "supported", "direction": "greater", "threshold": 0.0, "margin": None,
    "mean": 0.267, "low": 0.2181, "high": 0.3155, "p": None, "seeds": 3, "comparisons": [], "missing": 0,
    "flags": [], "secondary": [], "bootstrap": None, "table": None, "lesson": "planned",
}  # fmt: skip
DRAFT = ROW | dict.fromkeys(("experiment", "statistic", "mean", "low", "high", "threshold", "direction"))


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRUCTLAB_ROOT", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    toy.make(tmp_path)
    files.write_json(tmp_path / "data/results/ledger.json", [ROW])
    return tmp_path


def set_numbers(
    root, values: dict[tuple[str, str, int], list[float | None]], field: str = "accuracy"
) -> None:
    """Replace a number in the results file by (method, task, n_train)."""
    path = root / "data/results/toy.jsonl"
    lines = files.read_lines(path)
    for line in lines:
        cell = (line["method"], line["task"], line["n_train"])
        if line["stage"] == "run" and cell in values:
            line[field] = values[cell][line["seed"]]
    files.write_lines(path, lines)


def edit(root, old: str, new: str) -> None:
    path = root / "data/experiments/toy.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def add_table(root, text: str) -> None:
    edit(root, "[profiles.smoke]\n", text + "[profiles.smoke]\n")


def plain(text: str) -> str:
    return text.replace(NBSP, " ")


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# --- numbers ---------------------------------------------------------------------------------------


def test_cells_are_mean_sd_and_t_interval_over_seeds(root):
    toy.run_all()
    values = [0.5, 0.6, 0.9]
    set_numbers(root, {("large", "a", 10): values})
    cell = tables.summarise("toy").cells["large", "a", 10]
    assert cell.mean == pytest.approx(np.mean(values)) and cell.sd == pytest.approx(np.std(values, ddof=1))
    assert cell.interval == t_interval(values)
    assert "66.7 ± 20.8" in plain(tables.markdown("toy"))
    assert "[15.0, 100.0]" in plain(tables.html("toy"))  # 118.4 is no accuracy


def test_bold_marks_the_best_and_what_the_same_seeds_cannot_tell_from_it(root):
    toy.run_all()
    best = [0.80, 0.70, 0.90]
    near = [0.79, 0.71, 0.88]  # differences 1, -1, 2 points: contains zero
    worse = [0.75, 0.66, 0.85]  # differences 5, 4, 5 points: wide overlap, yet always worse
    set_numbers(root, {("large", "a", 10): best, ("small", "a", 10): near, ("floor", "a", 10): worse})
    cells = tables.summarise("toy").cells
    assert [cells[m, "a", 10].best for m in ("large", "small", "floor")] == [True, True, False]
    # unpaired, the intervals of best and worst overlap: only pairing tells them apart
    assert cells["floor", "a", 10].interval.high > cells["large", "a", 10].interval.low
    row = next(r for r in tables.markdown("toy").splitlines() if r.startswith("| large_model"))
    assert "**80.0 ± 10.0**" in plain(row)
    edit(root, 'title = "Test accuracy"', 'title = "Test accuracy"\nbetter = "lower"')
    cells = tables.summarise("toy").cells
    assert [cells[m, "a", 10].best for m in ("large", "small", "floor")] == [False, False, True]
    assert "lower is better" in tables.markdown("toy")


def test_one_seed_has_no_interval_and_one_best(root):
    edit(root, "seed = [0, 1, 2]", "seed = [0]")
    toy.run_all()
    set_numbers(root, {("large", "a", 10): [0.9], ("small", "a", 10): [0.8]})
    cells = tables.summarise("toy").cells
    assert cells["large", "a", 10].interval is None and cells["large", "a", 10].best
    assert not cells["small", "a", 10].best
    assert "| **90.0** |" in tables.markdown("toy") and "±" not in tables.markdown("toy")
    assert "one seed" in tables.markdown("toy") and "In brackets" not in tables.html("toy")


def test_an_axis_outside_the_columns_is_averaged_within_each_seed(root):
    edit(root, 'columns = ["task", "n_train"]', 'columns = ["n_train"]')
    toy.run_all()
    set_numbers(root, {("large", "a", 10): [0.5, 0.6, 0.7], ("large", "b", 10): [0.7, 0.6, 0.9]})
    summary = tables.summarise("toy")
    assert summary.cells["large", 10].values == pytest.approx((0.6, 0.6, 0.8))
    assert "Each seed is the mean over task." in notes.notes(summary)[0]
    assert {r["task"] for r in rows_of(tables.to_csv("toy"))} == {"all"}
    path = root / "data/results/toy.jsonl"
    kept = [x for x in files.read_lines(path) if (x["task"], x["n_train"], x["seed"]) != ("b", 10, 2)]
    files.write_lines(path, kept)
    summary = tables.summarise("toy")
    assert summary.missing["large", 10] == "large_model, n = 10: seed 2 (1 of 2 runs)"


def test_by_default_every_axis_but_the_seed_makes_columns(root):
    edit(root, 'columns = ["task", "n_train"]\n', "")
    toy.run_all()
    assert tables.summarise("toy").columns == list(product("ab", (10, 20)))


def test_a_cell_with_a_missing_seed_is_left_out_and_named(root):
    experiment = toy.run_all()
    (root / "build/runs/toy/laptop/b-n20-s1/lines.jsonl").unlink()
    experiments.results_path("toy").unlink()
    experiments.aggregate(experiment, "laptop")
    summary = tables.summarise("toy")
    assert len(summary.cells) == 9 + 3 and ("large", "b", 20) not in summary.cells  # 3: the majority class
    assert summary.missing["large", "b", 20] == "large_model, b, n = 20: seed 1" and len(summary.missing) == 3
    assert (
        tables.markdown("toy").count("| missing |") == 3 and tables.html("toy").count("<td>missing</td>") == 3
    )
    for text in (tables.markdown("toy"), tables.html("toy")):
        assert "not averaged: floor, b, n = 20: seed 1; small" in text
    assert r"large\_model, b, n = 20: seed 1" in tables.latex("toy") and "missing &" not in tables.latex(
        "toy"
    )
    gap = [r for r in rows_of(tables.to_csv("toy")) if (r["task"], r["n_train"]) == ("b", "20")]
    assert {(r["seeds"], r["mean"]) for r in gap} == {("0", "")}


def test_a_metric_that_a_method_does_not_have_is_a_dash_and_not_missing(root):
    add_table(root, SECOND)
    toy.run_all()
    everywhere = {("floor", task, n): [None] * 3 for task, n in product("ab", (10, 20))}
    set_numbers(root, everywhere | {("small", "a", 10): [0.3, None, 0.3]}, "test_loss")
    summary = tables.summarise("toy", metric="test_loss")
    assert set(summary.missing) == {("small", 10)}
    assert summary.entry("floor", (10,)).text == "–" and summary.entry("small", (10,)).text == "missing"
    set_numbers(root, {("small", "a", 10): [0.3, float("nan"), 0.3]}, "test_loss")
    assert set(tables.summarise("toy", metric="test_loss").missing) == {("small", 10)}


def test_nothing_or_strange_lines_are_refused(root):
    with pytest.raises(RecordError, match="no results yet; run `make reproduce`"):
        tables.markdown("toy")
    toy.run_all()
    path = root / "data/results/toy.jsonl"
    lines = files.read_lines(path)
    files.write_lines(path, [line | {"schema": 7} for line in lines])
    with pytest.raises(RecordError, match="schema 7"):
        tables.markdown("toy")
    del lines[0]["accuracy"]
    files.write_lines(path, lines)
    with pytest.raises(RecordError, match="no 'accuracy' in the run of floor, block a-n10-s0"):
        tables.markdown("toy")
    with pytest.raises(
        ConfigError, match=r"toy\.toml: 0 tables of 'speed', not one; its tables are of: accuracy"
    ):
        tables.markdown("toy", metric="speed")


# --- costs and notes -------------------------------------------------------------------------------


def test_costs_are_told_at_the_end_of_the_longest_numeric_axis(root):
    toy.run_all()
    set_numbers(
        root, {("large", "a", 20): [30.0, 40.0, 50.0], ("large", "b", 20): [41.0, 42.0, 60.0]}, "cpu_seconds"
    )
    set_numbers(root, {("small", "a", 10): [7, 1200, 1200]}, "trainable_parameters")
    text = plain(tables.markdown("toy"))
    assert "| 2.5 M | 42 |" in text and "| 7 – 1.2 k | 1.2 |" in text  # 41.5, halves to even
    assert "memory" not in text  # a process's peak grows from run to run
    held = {("small", "a", 10): [100.0, 2048.0, 100.0], ("large", "a", 10): [70.0, 70.0, 70.0]}
    set_numbers(root, held, "held_mb")
    text = plain(tables.markdown("toy"))
    assert "| held in training |" in text and "| 42 | 70 MB |" in text and "| 1.2 | 2.0 GB |" in text
    assert "CPU seconds: median run at n = 20" in text
    row = next(r for r in rows_of(tables.to_csv("toy")) if r["method"] == "large")
    assert (row["cpu_seconds"], row["seconds"], row["trained_min"]) == ("41.5", "", "2500000")


def test_on_a_gpu_wall_time_counts_and_the_notes_say_so(root, monkeypatch):
    monkeypatch.setattr(claims, "ledger", lambda profile: [ROW | {"verdict": profile}])
    experiment = experiments.load("toy").at("gpu")
    for block in experiment.blocks():
        toy.run(experiment, block)
    experiments.aggregate(experiment, "gpu")
    text = plain(tables.markdown("toy", "gpu"))
    assert "| seconds |" in text and "Wall seconds (on a GPU the CPU waits)" in text and "of the GPU" in text
    assert "| 2.5 M | 1.5 |" in text and "): gpu |" in text  # a verdict of the gpu profile, not the file's


def test_the_notes_say_how_it_was_run_and_where_the_tuning_hit_an_edge(root):
    toy.run_all()
    text = tables.markdown("toy")
    assert "over 3 seeds" in text and "8 test examples" in text and "threads" in text
    assert "| C 1† of 3 |" in text and "| rate 0.2 of 3 |" in text  # 0.2 lies inside 0.1 to 0.3
    assert "†: the chosen value lies at the edge of what was tried" in text
    assert "revision" not in text
    edit(root, "revision = 1", "revision = 2")
    assert "Runs of revision 1; the experiment is at revision 2." in tables.markdown("toy")


def test_the_notes_name_what_learned_nothing(root):
    edit(root, '"floor"', '"majority"')
    experiment, rows = experiments.load("toy").at("laptop"), []
    for block in experiment.blocks():
        small = 0.49 if block.coordinates["n_train"] == 10 else 0.8
        scores = {"majority": 0.5, "small": small + block.coordinates["seed"] / 100, "large": 0.9}
        for method, accuracy in scores.items() if block.stage == "run" else ():
            trial = experiments.Trial("k", method, {}, {"C": 2.0, "learning_rate": 0.2})
            known = experiments.Trial("k", "floor", {}, trial.tuned)
            rows.append(toy.line(experiment, block, known) | {"method": method, "accuracy": accuracy})
    files.write_lines(root / "data/results/toy.jsonl", rows)
    assert "as far as these seeds can tell: small (a, n = 10; b, n = 10)." in tables.markdown("toy")
    edit(root, 'columns = ["task", "n_train"]', 'columns = ["n_train"]')
    edit(root, "n_train = [10, 20]", "n_train = [10]")
    assert "as far as these seeds can tell: small." in tables.markdown("toy")  # of one column nothing is said


def store(root, rows: list[tuple[str, list[int]]]) -> None:
    """Predictions for task a, ten examples, every seed; half of the eight targets are 1, and one more."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    targets, found = [0, 0, 0, 1, 1, 1, 1, 1], []
    for (method, answers), seed in product(rows, range(3)):
        at = {"task": "a", "n_train": 10, "seed": seed, "method": method}
        found.append(at | {"predictions": answers, "targets": targets})
    parquet.write_table(pa.Table.from_pylist(found), experiments.predictions_path("toy"))


def test_a_run_of_one_class_did_not_train_and_is_never_bold_and_the_majority_has_a_row(root):
    toy.run_all()
    good, lucky = [0, 0, 0, 1, 1, 1, 0, 0], [1] * 8
    store(root, [("large", lucky), ("small", good), ("floor", good)])
    set_numbers(root, {("large", "a", 10): [0.625] * 3, ("small", "a", 10): [0.75] * 3})
    before = {key: cell.best for key, cell in tables.summarise("toy").cells.items()}
    assert before["small", "a", 10] and not before["large", "a", 10]
    set_numbers(root, {("small", "a", 10): [0.5] * 3, ("floor", "a", 10): [0.5] * 3})
    summary = tables.summarise("toy")
    assert not summary.cells["large", "a", 10].best and summary.cells["small", "a", 10].best
    assert summary.untrained == {"large": "3\u00a0of\u00a012"}
    text = plain(tables.markdown("toy"))
    assert "| did not train |" in text and "| majority class | 62.5 ± 0.0 | – | – | – |" in text
    assert "did not train; no bold there" in text
    assert "± 0.0 means that every seed gave the same number" in text and "large_model" in text.split("±")[-1]


# --- paper, verdict --------------------------------------------------------------------------------


def test_published_numbers_stand_apart_and_are_never_ranked(root):
    add_table(root, PAPER)
    toy.run_all()
    groups = tables.summarise("toy").groups()
    assert [g.title for g in groups] == ["paper: Big, their_task [1]", "ours: a", "ours: b", "", "", ""]
    assert [e.text for e in groups[0].rows["large"] + groups[0].rows["floor"]] == ["99.9", "–"]
    assert not any(entry.best for row in groups[0].rows.values() for entry in row)
    best = {k: c.best for k, c in tables.summarise("toy").cells.items()}
    edit(root, PAPER, "")
    assert {k: c.best for k, c in tables.summarise("toy").cells.items()} == best
    add_table(root, PAPER)
    footnote = "[1] Doe (2020), Table 2: exact match, as printed; read in the paper. Not ranked with ours"
    for text in (tables.markdown("toy"), tables.html("toy"), tables.latex("toy").replace("{[}", "[")):
        assert footnote in text
    last = rows_of(tables.to_csv("toy"))[-2:]
    assert [(r["group"][:18], r["method"], r["mean"], r["best"]) for r in last] == [
        ("paper: Big, their_", "large", "99.9", ""),
        ("paper: Big, their_", "small", "80.0", ""),
    ]
    edit(root, 'verdicts = { large = "T1" }', 'verdicts = { large = "T9" }')
    with pytest.raises(ConfigError, match=r"tables\.verdicts: 'T9' is not one of the claims"):
        tables.markdown("toy")
    edit(root, "large = 99.9", "huge = 99.9")
    with pytest.raises(ConfigError, match=r"tables\.paper: 'huge' is not one of the methods"):
        tables.markdown("toy")


def test_the_verdict_links_to_the_ledger(root):
    toy.run_all()
    assert "| [T1](../LEDGER.md#t1): supported |" in tables.markdown("toy")
    assert '<a href="LEDGER.md#t1">T1</a>: supported</td>' in tables.html("toy", root="")
    assert "T1: supported" in tables.latex("toy")
    row = next(r for r in rows_of(tables.to_csv("toy")) if r["method"] == "large")
    assert (row["claim"], row["verdict"]) == ("T1", "supported")


# --- forms -----------------------------------------------------------------------------------------


def grids(text: str) -> list[list[list[str]]]:
    """The tables of a Markdown text: rows of cells."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE)
    return [[re.split(r"(?<!\\)\|", row)[1:-1] for row in block.splitlines()] for block in blocks]


def test_markdown_is_cut_between_groups_and_rectangular(root):
    add_table(root, PAPER)
    edit(root, 'large = "large_model"', 'large = "large|model"')
    toy.run_all()
    found = grids(tables.markdown("toy"))
    assert len(found) == 2
    for table in found:
        assert len({len(row) for row in table}) == 1 and len(table[0]) - 1 <= tables.WIDTH and len(table) == 6
    assert [cell.strip() for cell in found[0][0]] == [
        "method", "paper: Big, their_task [1]<br>T & F", "ours: a<br>n = 10", "ours: a<br>n = 20",
        "ours: b<br>n = 10", "ours: b<br>n = 20", "chosen, of tried",
    ]  # fmt: skip
    assert [cell.strip() for cell in found[1][1]] == [
        "---",
        "---:",
        "---:",
        "---",
    ]  # the verdict is text


class Reader(HTMLParser):
    """Width of every row in columns, and what the tags claim."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.rows, self.below, self.scopes, self.tags = [], [], 0, [], set()
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags |= {tag, *found}
        if tag == "tr":
            self.rows.append(self.below)
            self.below = 0
        if tag in ("td", "th"):
            self.rows[-1] += int(found.get("colspan", 1))
            self.below += int(found.get("rowspan", 1)) - 1
        if tag == "th":
            self.scopes.append(found["scope"])
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("paper", [PAPER, ""])
def test_html_is_well_formed_accessible_and_without_colours(root, paper):
    add_table(root, paper)
    edit(root, 'large = "large_model"', 'large = "<large> & co"')
    toy.run_all()
    text = tables.html("toy")
    reader = Reader(text)
    assert set(reader.rows) == {10 if paper else 9} and len(reader.rows) == 2 + 4
    assert reader.scopes.count("row") == 4 and reader.scopes.count("colgroup") == (3 if paper else 2)
    assert "&lt;large&gt; &amp; co" in text and "<caption" in text and ">Test accuracy (%)</caption>" in text
    assert not reader.tags & {"script", "style", "class", "onclick"} ^ {"style"}
    assert "background" not in text and "#" not in re.sub(r"LEDGER\.md#", "", text) and len(text) < 6000


def test_latex_uses_booktabs_and_has_the_same_number_of_columns_everywhere(root):
    add_table(root, PAPER)
    edit(root, 'large = "large_model"', 'large = "[large]_model"')
    toy.run_all()
    text = tables.latex("toy")
    assert (
        text.startswith(r"\begin{tabular}{lrrrrrrrrl}") and r"{[}large]\_model" in text and r"$\pm$" in text
    )
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\cmidrule(lr){3-4}", r"\cmidrule(lr){5-6}"):
        assert rule in text
    rows = [row for row in text.splitlines() if row.endswith(r"\\")]
    spans = [sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", row)) for row in rows]
    widths = [len(re.findall(r"(?<!\\)&", row)) + span + 1 for row, span in zip(rows, spans, strict=True)]
    assert len(rows) == 2 + 4 and set(widths) == {10} and r"T \& F" in text
    assert text.isascii()
    depth = np.cumsum([{"{": 1, "}": -1}.get(c, 0) for c in re.sub(r"\\[{}]", "", text)])
    assert depth[-1] == 0 and depth.min() == 0


def test_csv_holds_every_cell_unrounded_to_the_reader(root):
    toy.run_all()
    rows = rows_of(tables.to_csv("toy"))
    assert (
        len(rows) == 4 * 2 * 2
        and {r["seeds"] for r in rows} == {"3"}
        and {r["group"] for r in rows} == {"ours"}
    )
    summary = tables.summarise("toy")
    for row in rows:
        cell = summary.cells[row["method"], row["task"], int(row["n_train"])]
        assert float(row["mean"]) == pytest.approx(cell.mean, abs=1e-9)
        assert float(row["high"]) == pytest.approx(cell.interval.high, abs=1e-9)
        assert row["best"] == str(int(cell.best))


def test_the_figure_has_a_panel_per_task_and_every_series_differs_in_grey(root):
    toy.run_all()
    panels = tables.figure("toy").axes
    assert [p.get_title() for p in panels] == ["a", "b"]
    assert panels[0].get_ylabel() == "Test accuracy (%)"
    for panel in panels:
        looks = {(line.get_marker(), line.get_linestyle()) for line in panel.get_lines()}
        assert len(panel.get_lines()) == len(looks) == 3 and len(panel.collections) == 3
        assert panel.get_xscale() == "linear"  # 10 to 20
    summary = tables.summarise("toy")
    heights = panels[0].get_lines()[2].get_ydata()
    np.testing.assert_allclose(heights, [100 * summary.cells["large", "a", n].mean for n in (10, 20)])


def test_a_figure_without_a_numeric_axis_shows_dots_with_intervals(root):
    edit(root, 'columns = ["task", "n_train"]', 'columns = ["task"]')
    toy.run_all()
    panels, cells = tables.figure("toy").axes, tables.summarise("toy").cells
    assert [p.get_title() for p in panels] == ["a", "b"]
    assert panels[1].figure.get_supxlabel() == "Test accuracy (%)"
    assert [t.get_text() for t in panels[0].get_yticklabels()] == ["floor", "small", "large_model"]
    dot, bar = panels[0].get_lines()[2], panels[0].collections[2]
    assert dot.get_xdata() == pytest.approx(100 * cells["large", "a"].mean)
    ends = cells["large", "a"].interval
    assert bar.get_segments()[0][:, 0] == pytest.approx([100 * ends.low, 100 * ends.high])


def test_write_leaves_four_files_per_table_and_the_same_bytes_twice(root):
    add_table(root, SECOND)
    toy.run_all()
    written = tables.write("toy")
    stems = ("toy", "toy.test_loss")
    wanted = [f"data/results/tables/{stem}.{form}" for stem in stems for form in ("md", "csv", "tex")]
    names = [path.relative_to(root).as_posix() for path in written]
    assert names == [*wanted, *(f"figures/{stem}.png" for stem in stems)]
    before = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in tables.write("toy")] == before and before[6][:4] == b"\x89PNG"
    assert "(../../../LEDGER.md#t1)" in written[0].read_text(encoding="utf-8")
    assert "Loss" in written[3].read_text(encoding="utf-8")
    assert "table-toy.test_loss" in tables.generated()


# --- the ledger ------------------------------------------------------------------------------------


def test_the_ledger_has_a_row_per_claim_with_its_links(root):
    links = {
        "table": "data/results/tables/toy.md",
        "lesson": "notebooks/03_x.ipynb",
        "flags": ["outdated", "changed"],
    }
    parts = [ROW | {"statistic": "first"}, ROW | {"statistic": "second", "mean": None}]
    rows = [
        ROW | links,
        DRAFT | {"claim": "T2", "verdict": "not tested"},
        ROW | {"claim": "T3", "comparisons": parts},
    ]
    files.write_json(root / "data/results/ledger.json", rows)
    lines = ledger.table().splitlines()
    assert lines[1] == "| --- | --- | --- | --- | --- |"  # text is set left
    assert lines[2].startswith(
        "| [T1](LEDGER.md#t1) | Ten are enough. | **supported** (changed) | ten against twenty: "
    )
    assert (
        "+0.267 [+0.218, +0.316] | [experiment](data/experiments/toy.toml) · [table](data/results/tables/toy.md)"
        in lines[2]
    )
    assert lines[2].endswith(" · [lesson](notebooks/03_x.ipynb) |")
    assert (
        "| first: +0.267 [+0.218, +0.316]<br>second |" in lines[3] and len(lines) == 4
    )  # a draft has no row


def test_the_page_tells_all_of_a_claim(root, monkeypatch):
    monkeypatch.setattr(claims, "FLAGS", {"stale": "other numbers", "outdated": "old"})
    beside = ROW | {"statistic": "beside", "bootstrap": [0.1, 0.4]}
    narrow = {"mean": 0.0012345, "low": 0.0012, "high": 0.0013, "margin": 0.02, "threshold": None}
    parts = [ROW | {"statistic": "first", "p": 0.0123}, ROW | narrow]
    argued = DRAFT | {"claim": "T3", "argument": {"text": "It follows.", "test": "tests/x.py"}}
    rows = [
        ROW | {"flags": ["stale"], "secondary": [beside], "missing": 2},
        DRAFT | {"claim": "T2", "verdict": "not tested"},
        argued,
        ROW | {"claim": "T4", "comparisons": parts, "k": 1, "flags": ["outdated"], "edition": 2, "why": "so"},
    ]
    files.write_json(root / "data/results/ledger.json", rows)
    text = ledger.page()
    assert "4 claims: 3 supported, 1 not tested." in text
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    index, *sections, drafts = sections
    assert [section.split("\n")[0] for section in sections] == ["T1", "T3", "T4"]  # anchors #t1 …
    assert (
        "- **supported** (3): [T1](#t1), [T3](#t3), [T4](#t4)\n- **not tested** (1): 1 [drafts](#drafts)"
        in index
    )
    assert '- <a id="t2"></a>[T2](data/claims/T2.toml): Ten are enough. (a toy; asserted; expected' in drafts
    for words in (
        "Verdict: **supported** (edition 1); expected before the run: supported.", "Note: other numbers.", "Missing: 2 runs.",
        "Source: a toy, nowhere. Evidence given there: asserted.", "claimed to lie above 0 (difference; 95% t interval",
        "without a vote:\n  - beside: +0.267 [+0.218, +0.316], bootstrap over seeds and examples [+0.100, +0.400]",
        "[claim](data/claims/T1.toml) · [experiment](data/experiments/toy.toml)",
    ):  # fmt: skip
        assert words in sections[0]
    assert "By argument: It follows. (tests/x.py)" in sections[1] and "[experiment]" not in sections[1]
    assert "Note: old." in sections[2] and "(edition 2), so;" in sections[2] and "Holm" not in sections[2]
    assert (
        "1 of 2 must hold" in sections[2]
        and "first: +0.267 [+0.218, +0.316]; claimed to lie above 0 (p = 0.012)" in text
    )
    assert "+0.00123 [+0.00120, +0.00130]; claimed to lie within ±0.02" in sections[2]


@pytest.mark.parametrize(("edition", "shown"), [(1, False), (2, True), ("mixed", True)])
def test_only_of_the_first_edition_outdated_is_not_said_again(root, edition, shown):
    row = ROW | {"edition": edition, "flags": ["outdated"]}
    files.write_json(root / "data/results/ledger.json", [row])
    assert ("**supported** (outdated)" in ledger.table()) == shown
    assert ledger.page()


def test_numbers_have_units_and_no_impossible_bound():
    share, bounds = (100.0, "points"), [-1.0, 1.0]
    part = ROW | {"bootstrap": [0.2, 0.3]}
    assert (
        ledger.finding(part, share, side=True)
        == "ten against twenty: +26.7 points [+21.8, +31.6], bootstrap over seeds and examples [+20.0, +30.0]; "
        "claimed to lie above 0 points"
    )
    wide = ledger.finding(ROW | {"mean": 0.4, "low": -0.43, "high": 1.23, "bounds": bounds})
    assert "[-0.430, +1.000] (cut at the bound" in wide and "1.23" not in wide


def test_the_page_says_why_an_interval_and_a_verdict_disagree(root):
    parts = [ROW | {"statistic": "first", "verdict": "undecided"}, ROW | {"statistic": "second"}]
    rows = [
        ROW | {"claim": "T1", "kind": "conjunction", "comparisons": parts, "verdict": "undecided"},
        ROW | {"claim": "T2", "bootstrap": [-0.1, 0.4], "edition": 2},
    ]
    files.write_json(root / "data/results/ledger.json", rows)
    first, second = ledger.page().split("## T")[1:]
    assert "The interval of “first” alone excludes the threshold. It is not adjusted for the 2 parts" in first
    assert "interval of “second”" not in first and "bootstrap of" not in first
    assert "The bootstrap of “ten against twenty” alone would say undecided; it has no vote." in second
    assert "(edition 2)" in second


def test_a_table_for_a_pipe_is_plain_text(capsys):
    markdown.show([("name", "n"), ("a", "10"), ("long", "7")], [True, False])
    assert capsys.readouterr().out == "name   n\n----  --\na     10\nlong   7\n"


def test_a_table_for_a_terminal_is_drawn(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    markdown.show([("name", "n"), ("[a]", "10")], [True, False])
    drawn = capsys.readouterr().out
    assert "[a]" in drawn and "10" in drawn and "----" not in drawn and "─" in drawn


def test_the_blocks_are_those_of_the_pages(root):
    toy.run_all()
    found = readme.blocks()
    lists = {"claims", "ledger-page", "remember", "lessons", "experiments", "teaching", "before"}
    lists |= {"power", "editions", "repetitions"}
    assert set(found) == lists | {"table-toy"}
    assert "(LEDGER.md#t1)" in found["table-toy"] and found["claims"] == ledger.table()
    inside = readme.for_page(root / "docs" / "x.md", found)
    assert "(../LEDGER.md#t1)" in inside["table-toy"] and "(../data/experiments/toy.toml)" in inside["claims"]
    page = root / "LEDGER.md"
    page.write_text("<!-- generated:ledger-page -->\n<!-- /generated -->\n", encoding="utf-8")
    assert markdown.update_blocks(page, found) == ["ledger-page"] and markdown.check_blocks(page, found) == []
    assert "## T1" in page.read_text(encoding="utf-8")


def test_write_tables_renews_the_ledger_first_then_tables_and_pages(root, capsys):
    toy.run_all()
    for name, block in (("README.md", "claims"), ("LEDGER.md", "ledger-page")):
        (root / name).write_text(f"<!-- generated:{block} -->\n<!-- /generated -->\n", encoding="utf-8")
    assert readme.write_tables([], "laptop", check=True) == 1
    assert "LEDGER.md: the generated block 'ledger-page' is out of date" in capsys.readouterr().err
    assert readme.write_tables([], "laptop") == 0
    (row,) = files.read_json(root / "data/results/ledger.json")
    assert row["statistic"] == "ten of the large against twenty of the small" and row["table"].endswith(
        "toy.md"
    )
    text = (root / row["table"]).read_text(encoding="utf-8")
    assert f"#t1): {row['verdict']} |" in text and row["verdict"] in (root / "LEDGER.md").read_text(
        encoding="utf-8"
    )
    assert readme.write_tables([], "laptop", check=True) == 0


def test_the_committed_ledger_page_is_generated_and_up_to_date(monkeypatch):
    page = Path(__file__).resolve().parents[1] / "LEDGER.md"
    monkeypatch.setenv("INSTRUCTLAB_ROOT", str(page.parent))
    assert markdown.GENERATED.fullmatch(page.read_text(encoding="utf-8").strip())["name"] == "ledger-page"
    assert markdown.check_blocks(page, {"ledger-page": ledger.page()}) == []


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
    assert markdown.check_blocks(page, {"one": "new"}) == [
        "README.md: the generated block 'one' is out of date; run `make reproduce`."
    ]
    assert page.read_text() == PAGE
    assert markdown.update_blocks(page, {"one": "new\n\n", "two": r"a\1b", "absent": "x"}) == ["one", "two"]
    assert page.read_text() == PAGE.replace("old", "new").replace("two -->\n", "two -->\na\\1b\n")
    assert markdown.update_blocks(page, {"one": "new", "two": r"a\1b"}) == []
    assert markdown.check_blocks(page, {"one": "new"}) == []


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
        markdown.update_blocks(page, {"one": "x", "two": "y"})
    assert page.read_text() == text
