"""Sources and notebooks: found, built, compared, brought back, and stored with their outputs."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import nbformat
import pytest
from conftest import HEADER, LESSON
from nbformat.v4 import new_code_cell, new_output

from instructlab_repro import notebooks
from instructlab_utils.errors import NotebookError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def built(write_lesson):
    """A lesson whose notebook has outputs."""
    write_lesson()
    (path,) = notebooks.build()
    notebook = nbformat.read(path, 4)
    for number, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), 1):
        cell.execution_count = number
        cell.outputs = [new_output("stream", name="stdout", text="2\n")]
    nbformat.write(notebook, path)
    return path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


# --- finding -------------------------------------------------------------------------------------


def test_lessons_come_in_order_with_what_their_header_says(write_lesson):
    for number in ("03", "00", "01"):
        write_lesson(number=number, title=f"Title {number}")
    found = notebooks.lessons()
    assert list(found) == ["00", "01", "03"]
    assert found["03"].title == "Title 03"
    assert found["03"].minutes == {"smoke": 0.1, "laptop": 0.1, "gpu": 0.1}
    assert found["03"].notebook.name == "03_tiny.ipynb"


@pytest.mark.parametrize(
    "name", ["03", "3", "03_tiny", "notebooks/03_tiny.ipynb", "notebooks/source/03_tiny.py"]
)
def test_a_lesson_is_found_by_each_of_its_names(write_lesson, name):
    write_lesson(number="03")
    assert notebooks.find(name).id == "03"


def test_an_unknown_lesson_names_the_known_ones(write_lesson):
    write_lesson(number="03")
    with pytest.raises(NotebookError, match=r"'04_tiny', did you mean '03_tiny'\?; known: 03"):
        notebooks.find("04_tiny")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("# ---\n# jupyter", "# jupyter", "no header"),
        ('id: "00"', "id: 0", r"00_tiny\.py: instructlab\.id: input should be a valid string, not 0"),
        ("title: Tiny", "title: [Tiny", "not valid YAML"),
        ("#     assets: []\n", "", r"the key 'instructlab\.assets' is missing"),
        (
            "smoke: 0.1",
            "smoke: fast",
            r"instructlab\.minutes\.smoke: input should be a valid number, not 'fast'",
        ),
        ("#   instructlab:", "#   other:", "lacks the block jupyter: instructlab:"),
    ],
)
def test_a_wrong_header_is_one_sentence(write_lesson, old, new, message):
    edit(write_lesson(), old, new)
    with pytest.raises(NotebookError, match=message) as caught:
        notebooks.lessons()
    assert "\n" not in str(caught.value)


def test_two_lessons_with_one_id_are_refused(write_lesson, project):
    write_lesson()
    (project / "notebooks/source/01_other.py").write_text(HEADER.format(id="00", title="x") + LESSON)
    with pytest.raises(NotebookError, match=r"01_other\.py: the id '00' is already that of .*00_tiny\.py"):
        notebooks.lessons()


# --- building ------------------------------------------------------------------------------------


def test_building_twice_changes_nothing(write_lesson):
    write_lesson()
    (path,) = notebooks.build()
    before = path.read_bytes()
    assert notebooks.build() == []
    assert path.read_bytes() == before
    path.unlink()
    notebooks.build()
    assert path.read_bytes() == before, "ids must come from the content, not from chance"


def test_new_prose_keeps_ids_and_outputs(built, write_lesson):
    before = nbformat.read(built, 4).cells
    edit(write_lesson(), "A tiny lesson", "A small lesson")
    assert notebooks.build() == [built]
    after = nbformat.read(built, 4).cells
    assert after[0].source == "# A small lesson"
    assert [cell.id for cell in after] == [cell.id for cell in before]
    assert [c.outputs for c in after[1:]] == [c.outputs for c in before[1:]]


def test_changed_code_loses_its_output_and_no_other(built, write_lesson):
    edit(write_lesson(), "print(1 + 1)", "print(1 + 2)")
    notebooks.build()
    _, parameters, last = nbformat.read(built, 4).cells
    assert last.outputs == [] and last.execution_count is None
    assert parameters.outputs and parameters.execution_count == 1


def test_reformatted_code_keeps_its_output(built, write_lesson):
    edit(write_lesson(), "print(1 + 1)", "print(1+1)  # two")
    notebooks.build()
    assert nbformat.read(built, 4).cells[-1].outputs[0].text == "2\n"


# --- comparing -----------------------------------------------------------------------------------


def test_in_step_means_no_difference(built):
    assert notebooks.check() == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("print(1 + 1)", "print(1 + 3)", "cell 3 (code) differs from the source at 'print(1 + 3)'"),
        ("# # A tiny", "# # A changed", "cell 1 (markdown) differs from the source at '# A changed lesson'"),
        ("print(1 + 1)", "print(1 + 1)\n\nprint(2)", "cell 3 (code) differs from the source at ''"),
        (
            'tags=["nbval-check-output"]',
            'tags=["other"]',
            "cell 3: tags ['nbval-check-output'], in the source",
        ),
        ("title: Tiny", "title: Other", "the header (metadata.instructlab) differs"),
        ('\n# %% tags=["nbval-check-output"]\nprint(1 + 1)\n', "", "3 cells, the source has 2"),
    ],
)
def test_each_kind_of_difference_is_told(built, write_lesson, old, new, said):
    edit(write_lesson(), old, new)
    assert any(said in line for line in notebooks.check()), notebooks.check()


def test_missing_and_stray_notebooks_are_told(built):
    built.rename(built.with_name("05_stray.ipynb"))
    assert notebooks.check() == [
        "notebooks/00_tiny.ipynb: missing; run `make notebooks`",
        "notebooks/05_stray.ipynb: no source; `import` it or delete it",
    ]


# --- back into the source ------------------------------------------------------------------------


def test_importing_an_unedited_notebook_changes_no_byte(built, write_lesson):
    source = write_lesson()
    before = source.read_bytes()
    assert notebooks.import_back(built) == source
    assert source.read_bytes() == before


def test_an_edit_in_jupyter_comes_back_and_nothing_else(built, write_lesson, tmp_path):
    source = write_lesson()
    notebook = nbformat.read(built, 4)
    notebook.cells[-1].source = "print(2 + 2)"
    notebook.cells[-1].metadata["collapsed"] = True
    notebook.cells[-1].metadata["execution"] = {"iopub.status.busy": "now"}
    injected = new_code_cell("seed = 5", metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(2, injected)
    copy = tmp_path / built.name
    nbformat.write(notebook, copy)
    expected = source.read_text().replace("print(1 + 1)", "print(2 + 2)")
    notebooks.import_back(copy)
    assert source.read_text() == expected


def test_importing_something_unknown_is_one_sentence(built, tmp_path):
    other = tmp_path / "other.ipynb"
    other.write_bytes(built.read_bytes())
    with pytest.raises(NotebookError, match=r"unknown lesson or experiment 'other'"):
        notebooks.import_back(other)
    other.write_text('{"cells": [')
    with pytest.raises(NotebookError, match=r"is not a readable notebook"):
        notebooks.import_back(other)


# --- the hash of the code ------------------------------------------------------------------------


def test_code_sha_sees_code_and_nothing_else(built, write_lesson):
    source = write_lesson()
    first = notebooks.code_sha(built)
    assert first == notebooks.code_sha(source)
    edit(source, "A tiny lesson", "Other prose")
    edit(source, 'tags=["nbval-check-output"]', 'tags=["other"]')
    notebook = nbformat.read(built, 4)
    notebook.cells[-1].outputs = []
    notebook.cells[-1].id = "another"
    notebook.cells.insert(2, new_code_cell("seed = 5", metadata={"tags": ["injected-parameters"]}))
    nbformat.write(notebook, built)
    assert notebooks.code_sha(source) == notebooks.code_sha(built) == first
    edit(source, "print(1 + 1)", "print(1 + 2)")
    assert notebooks.code_sha(source) != first


# --- storing outputs -----------------------------------------------------------------------------


def executed(built: Path, **outputs: object) -> Path:
    """A copy as papermill leaves it: an injected cell, timings, widgets, and the given output in the last cell."""
    notebook = nbformat.read(built, 4)
    notebook.metadata["papermill"] = {"duration": 1.0}
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {}}
    notebook.cells.insert(2, new_code_cell("seed = 1", metadata={"tags": ["injected-parameters"]}))
    for number, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), 1):
        cell.execution_count = number
        cell.metadata["papermill"] = {"duration": 0.1}
    notebook.cells[-1].outputs = outputs.get("last", [])
    path = built.parent.parent / "executed.ipynb"
    nbformat.write(notebook, path)
    return path


def test_stored_outputs_are_png_and_text_with_clean_counts(built):
    png = new_output(
        "display_data", data={"image/png": "aGk=", "image/svg+xml": "<svg/>", "text/plain": "fig"}
    )
    bar = new_output(
        "display_data", data={"application/vnd.jupyter.widget-view+json": {}, "text/plain": "0%"}
    )
    value = new_output("execute_result", data={"text/plain": "2"}, execution_count=3)
    notebooks.store_outputs(executed(built, last=[png, bar, value]), notebooks.find("0"))
    stored = nbformat.read(built, 4)
    text = built.read_text()
    assert "svg" not in text and "widget" not in text and "papermill" not in text and "seed = 1" not in text
    assert [cell.execution_count for cell in stored.cells if cell.cell_type == "code"] == [1, 2]
    image, result = stored.cells[-1].outputs
    assert set(image.data) == {"image/png", "text/plain"} and result.execution_count == 2
    assert notebooks.check() == []


def test_an_absolute_path_is_not_stored(built, project):
    before = built.read_bytes()
    out = [new_output("stream", name="stdout", text=f"saved {project}/figures/a.png\n")]
    with pytest.raises(NotebookError, match="code cell 2 prints an absolute path"):
        notebooks.store_outputs(executed(built, last=out), notebooks.find("0"))
    assert built.read_bytes() == before


def test_an_error_output_is_not_stored(built):
    out = [new_output("error", ename="ValueError", evalue="no", traceback=[])]
    with pytest.raises(NotebookError, match="cell 2 holds an error"):
        notebooks.store_outputs(executed(built, last=out), notebooks.find("0"))


def test_outputs_of_other_code_are_not_stored(built, write_lesson):
    ran = executed(built)
    edit(write_lesson(), "print(1 + 1)", "print(1 + 2)")
    with pytest.raises(NotebookError, match="was made from other code"):
        notebooks.store_outputs(ran, notebooks.find("0"))


# --- this repository -----------------------------------------------------------------------------


def test_this_repository_is_in_step(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert notebooks.check() == []


def test_no_text_stands_on_the_marker_of_a_cell():
    """jupytext takes what follows ``# %% [markdown]`` for the cell's title, which no reader sees."""
    lines = [
        (p.name, line)
        for p in sorted((ROOT / "notebooks").rglob("*.py"))
        for line in p.read_text("utf-8").split("\n")
    ]
    markers = [(name, line) for name, line in lines if line.startswith("# %%")]
    assert len(markers) > 1000
    assert [m for m in markers if not re.fullmatch(r"# %%( \[markdown\])?( (tags|nbgrader)=.*)?", m[1])] == []


def stored_lessons() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


@pytest.mark.parametrize("path", stored_lessons(), ids=lambda path: path.stem)
def test_stored_lessons_are_executed_small_and_clean(path):
    notebook = nbformat.read(path, 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run with --store"
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert kinds <= set(notebooks.STORED_TYPES)
    assert "widgets" not in notebook.metadata and "papermill" not in notebook.metadata
    assert path.stat().st_size <= 350_000
    assert "/home/" not in json.dumps(outputs) and "site-packages" not in json.dumps(outputs)
    printed = "".join(output.get("text", "") for output in outputs)
    assert "profile laptop" in printed and "smoke run" not in printed
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4, "a lesson needs pictures"


# --- budgets -------------------------------------------------------------------------------------

BUDGET = "gpu: 0.1}\n#     budget:\n#       steps: {smoke: 2, laptop: 80, gpu: 160}\n"


def test_a_budget_in_the_header_reaches_the_generated_file(write_lesson, project):
    (project / "instructlab_utils").mkdir()
    edit(write_lesson(), "gpu: 0.1}\n", BUDGET)
    assert [path.name for path in notebooks.build()] == ["00_tiny.ipynb", "profiles.toml"]
    table = tomllib.loads((project / "instructlab_utils" / "profiles.toml").read_text(encoding="utf-8"))
    assert table["00"] == {"steps": {"smoke": 2, "laptop": 80, "gpu": 160}}
    assert notebooks.check() == [] and notebooks.build() == []


def test_a_generated_file_edited_by_hand_is_told_and_mended(write_lesson, project):
    (project / "instructlab_utils").mkdir()
    edit(write_lesson(), "gpu: 0.1}\n", BUDGET)
    notebooks.build()
    edit(project / "instructlab_utils" / "profiles.toml", "laptop = 80", "laptop = 90")
    assert notebooks.check() == [
        "instructlab_utils/profiles.toml: differs from the headers; run `make notebooks`"
    ]
    assert [path.name for path in notebooks.build(["00"])] == ["profiles.toml"]
    assert notebooks.check() == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (", gpu: 160", "", "budget.steps: needs one number each for smoke, laptop, gpu"),
        ("gpu: 160", "gpu: 160, tpu: 1", "budget.steps: needs one number each"),
        ("gpu: 160", "gpu: many", "budget.steps.gpu: input should be a valid number, not 'many'"),
        ("gpu: 160", "gpu: true", "budget.steps.gpu: input should be a valid number, not True"),
        ("      steps:", "      2 steps:", "budget.2 steps: string should match pattern .* not '2 steps'"),
        ("budget:\n#       steps: {", "budget: [{", None),
    ],
)
def test_a_wrong_budget_is_one_sentence(write_lesson, old, new, message):
    source = write_lesson()
    edit(source, "gpu: 0.1}\n", BUDGET)
    edit(source, old, new)
    if message is None:
        edit(source, "gpu: 160}", "gpu: 160}]")
        message = "budget: input should be a valid dictionary"
    with pytest.raises(NotebookError, match=message) as caught:
        notebooks.lessons()
    assert "\n" not in str(caught.value)
