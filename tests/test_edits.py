"""What a person types into a notebook in Jupyter is never overwritten: refused, imported, or dropped with a copy kept."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell

from instructlab_repro import notebooks
from instructlab_repro.engine import cli
from instructlab_utils.errors import NotebookError


@pytest.fixture
def built(write_lesson) -> Path:
    write_lesson()
    (path,) = notebooks.build()
    return path


def typed(path: Path, change) -> bytes:
    """Edit the notebook as Jupyter does; its bytes after that."""
    notebook = nbformat.read(path, 4)
    change(notebook.cells)
    nbformat.write(notebook, path)
    return path.read_bytes()


def kept(path: Path) -> list[bytes]:
    return [copy.read_bytes() for copy in sorted((path.parent / "kept").glob("*"))]


EDITS = {
    "a cell added": lambda cells: cells.append(new_code_cell("my_answer = 1")),
    "prose added": lambda cells: cells.insert(1, new_markdown_cell("a note of mine")),
    "a cell changed": lambda cells: cells[-1].update(source="print(40 + 2)"),
    "a cell removed": lambda cells: cells.pop(),
    "an order changed": lambda cells: cells.append(cells.pop(1)),
    "a tag": lambda cells: cells[-1].metadata.update(tags=["mine"]),
    "a picture pasted": lambda cells: cells[0].update(attachments={"a.png": {"image/png": "aGk="}}),
}


@pytest.mark.parametrize("change", EDITS.values(), ids=EDITS)
def test_edits_are_refused_by_every_command_that_would_write(built, project, change):
    after = typed(built, change)
    for command in (["run", "00"], ["run", "00", "--store"], ["notebooks"], ["notebooks", "00"]):
        with pytest.raises(SystemExit) as left:
            cli.main(command)
        assert left.value.code == 2
    with pytest.raises(
        NotebookError, match=r"00_tiny\.ipynb has edits that its source lacks.*import.*--discard 00"
    ):
        notebooks.build()
    assert built.read_bytes() == after and not (project / "build").exists()
    assert (
        "notebooks/00_tiny.ipynb: has edits that its source lacks; import or discard them"
        in notebooks.check()
    )


def test_edits_made_while_the_lesson_ran_are_not_overwritten_by_its_outputs(built, project):
    executed = project / "executed.ipynb"
    executed.write_bytes(built.read_bytes())
    after = typed(built, EDITS["a cell added"])
    with pytest.raises(NotebookError, match="has edits"):
        notebooks.store_outputs(executed, notebooks.find("00"))
    assert built.read_bytes() == after


@pytest.mark.parametrize("edit", ["a cell added", "a cell changed", "a cell removed", "a tag"])
def test_import_brings_edits_into_the_source_and_keeps_the_source_as_it_was(
    built, write_lesson, capsys, edit
):
    before = (built.parent / "source" / "00_tiny.py").read_bytes()
    typed(built, EDITS[edit])
    cells = [(cell.cell_type, cell.source) for cell in nbformat.read(built, 4).cells]
    cli_ends_well("import", built)
    assert [(cell.cell_type, cell.source) for cell in nbformat.read(built, 4).cells] == cells
    assert notebooks.check() == [] and notebooks.build() == []
    assert (
        kept(built) == [before]
        and "a copy of what it was is in notebooks/kept/00_tiny." in capsys.readouterr().err
    )


def test_what_the_source_cannot_hold_is_kept_beside(built):
    after = typed(built, EDITS["a picture pasted"])
    cli_ends_well("import", built)
    assert after in kept(built)


def test_discard_drops_the_edits_and_keeps_a_copy_of_each(built):
    before = built.read_bytes()
    first = typed(built, EDITS["a cell added"])
    cli_ends_well("notebooks", "--discard", "00")
    assert built.read_bytes() == before and kept(built) == [first]
    second = typed(built, EDITS["prose added"])
    cli_ends_well("notebooks", "--discard")
    assert built.read_bytes() == before and sorted(kept(built)) == sorted([first, second])
    cli_ends_well("notebooks", "--discard")  # nothing to drop: nothing kept
    assert len(kept(built)) == 2


def test_a_new_source_is_no_edit_and_outputs_or_an_empty_cell_are_none(built, write_lesson):
    def ran(cells):
        cells[-1].outputs = [nbformat.v4.new_output("stream", text="2\n")]
        cells[-1].execution_count = 1
        cells.append(new_code_cell(""))  # what Jupyter adds after the last cell

    typed(built, ran)
    source = write_lesson()
    source.write_text(source.read_text().replace("# # A tiny", "# # A small"))
    assert notebooks.build() == [built]
    cells = nbformat.read(built, 4).cells
    assert cells[0].source == "# A small lesson" and cells[2].outputs[0].text == "2\n" and kept(built) == []


def test_edits_on_both_sides_are_refused_too(built, write_lesson):
    source = write_lesson()
    source.write_text(source.read_text().replace("# # A tiny", "# # A small"))
    typed(built, EDITS["a cell added"])
    with pytest.raises(NotebookError, match="has edits"):
        notebooks.build()


def test_a_notebook_without_a_stamp_that_differs_counts_as_edited(built, write_lesson):
    notebook = nbformat.read(built, 4)
    del notebook.metadata["instructlab_sha"]
    nbformat.write(notebook, built)
    assert notebooks.build() == [built]  # as the source gives it: only the stamp is added
    nbformat.write(notebook, built)
    source = write_lesson()
    source.write_text(source.read_text().replace("# # A tiny", "# # A small"))
    with pytest.raises(NotebookError, match="has edits"):
        notebooks.build()


def test_a_table_edited_by_hand_is_written_again_and_kept(built, write_lesson, project):
    (project / "instructlab_utils").mkdir()
    source = write_lesson()
    budget = "gpu: 0.1}\n#     budget: {steps: {smoke: 2, laptop: 80, gpu: 160}}\n"
    source.write_text(source.read_text().replace("gpu: 0.1}\n", budget))
    notebooks.build()
    table = project / "instructlab_utils" / "profiles.toml"
    table.write_text(table.read_text() + "# mine\n")
    edited = table.read_bytes()
    assert notebooks.build() == [table] and kept(built) == [edited]


def test_an_executed_notebook_in_which_somebody_worked_is_kept(built, project):
    def change(cells):
        cells[-1].source = "print(40 + 2)"

    cli_ends_well("run", "00")
    executed = project / "build" / "run" / "laptop" / "00_tiny" / "executed.ipynb"
    after = typed(executed, change)
    cli_ends_well("run", "00")
    cli_ends_well("run", "00")
    assert kept(built) == [after] and "40 + 2" not in executed.read_text()


def cli_ends_well(*args: object) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main([str(arg) for arg in args])
    assert not left.value.code
