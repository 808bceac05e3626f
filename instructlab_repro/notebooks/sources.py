"""Lessons and experiments: found by name, built from their text sources, checked against them.
``source/NN_name.py`` (jupytext py:percent) is what an author edits; ``NN_name.ipynb`` is generated from it,
one way.
"""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructlab_repro.notebooks import budgets
from instructlab_utils.errors import NotebookError
from instructlab_utils.files import write_text
from instructlab_utils.project import PROFILES, closest, find_root, shown

HEADER = re.compile(r"\A# ---\n((?:#.*\n)*?)# ---\n")
INJECTED = ("injected-parameters", "papermill-error-cell-tag")
VOLATILE = ("execution", "papermill", "collapsed", "scrolled", "ExecuteTime", "jupyter", "widgets")
SHOWN = 5  # differences told per notebook
STORED_TYPES = ("text/plain", "text/html", "text/markdown", "text/latex", "image/png")


@dataclass(frozen=True)
class Notebook:
    """A lesson's or experiment's notebook, as its source's header declares it; ``minutes`` and ``budget`` by profile."""

    id: str
    title: str
    outcome: str
    assets: tuple[str, ...]
    minutes: dict[str, float]
    budget: budgets.Budget
    source: Path
    notebook: Path


# --- finding --------------------------------------------------------------------------------------


def read_header(source: Path) -> dict[str, Any]:
    """The YAML header of a source as a dictionary (its ``jupyter`` part). NotebookError if it has none."""
    import yaml

    match, name = HEADER.match(source.read_text(encoding="utf-8")), shown(source)
    if match is None:
        raise NotebookError(f"{name}: no header; the file must begin with a '# ---' block")
    lines = [line[2:] if line.startswith("# ") else line[1:] for line in match.group(1).splitlines()]
    try:
        header = yaml.safe_load("\n".join(lines))["jupyter"]
        header["instructlab"]
    except yaml.YAMLError as error:
        raise NotebookError(f"{name}: the header is not valid YAML ({error})".replace("\n", " ")) from error
    except (TypeError, KeyError) as error:
        raise NotebookError(f"{name}: the header lacks the block jupyter: instructlab:") from error
    return header


def _lesson(source: Path) -> Notebook:
    fields = read_header(source)["instructlab"]
    where = f"{shown(source)}: instructlab"
    for key, kind in (("id", str), ("title", str), ("outcome", str), ("assets", list), ("minutes", dict)):
        if not isinstance(fields.get(key), kind):
            raise NotebookError(
                f"{where}.{key} must be a {kind.__name__}; write it in the header (quote numbers)"
            )
    minutes = fields["minutes"]
    for profile in PROFILES:
        if isinstance(minutes.get(profile), bool) or not isinstance(minutes.get(profile), int | float):
            raise NotebookError(f"{where}.minutes.{profile} must be a number of minutes")
    return Notebook(
        id=fields["id"],
        title=fields["title"],
        outcome=fields["outcome"],
        assets=tuple(fields["assets"]),
        minutes={profile: float(minutes[profile]) for profile in PROFILES},
        budget=budgets.checked(fields.get("budget", {}), where),
        source=source,
        notebook=source.parent.parent / f"{source.stem}.ipynb",
    )


def _collect(folder: Path) -> dict[str, Notebook]:
    found: dict[str, Notebook] = {}
    for source in sorted((folder / "source").glob("*.py")):
        lesson = _lesson(source)
        if lesson.id in found:
            raise NotebookError(
                f"{shown(source)}: the id {lesson.id!r} is already that of {shown(found[lesson.id].source)}"
            )
        found[lesson.id] = lesson
    return found


def lessons() -> dict[str, Notebook]:
    """All lessons by id ("00", "01", …), in order. NotebookError for a bad header."""
    return _collect(find_root() / "notebooks")


def experiment_notebooks() -> dict[str, Notebook]:
    """All experiment notebooks by name, in order. NotebookError for a bad header."""
    return _collect(find_root() / "notebooks" / "experiments")


def everything() -> list[Notebook]:
    """All lessons, then all experiments."""
    return [*lessons().values(), *experiment_notebooks().values()]


def find(name: str | Path) -> Notebook:
    """A lesson or experiment by id ("03", "3"), by name ("03_classification_loop") or by path.

    NotebookError naming the known ones for anything else.
    """
    known = {**lessons(), **experiment_notebooks()}
    stem = Path(name).stem if str(name).endswith((".ipynb", ".py")) else str(name)
    for lesson in known.values():
        if stem in (lesson.id, lesson.source.stem) or (stem.isdigit() and stem.zfill(2) == lesson.id):
            return lesson
    names = [*known, *(lesson.source.stem for lesson in known.values())]
    raise NotebookError(
        f"unknown lesson or experiment {str(name)!r}{closest(stem, names)}; "
        f"known: {', '.join(known) if known else 'none'}"
    )


# --- source -> notebook ---------------------------------------------------------------------------


def from_source(source: Path) -> Any:
    """The notebook of a py:percent source, without outputs; ids come from the content, so builds repeat."""
    import jupytext
    import nbformat

    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata.get("jupytext", {}).get("text_representation", {}).pop("jupytext_version", None)
    notebook.metadata["language_info"] = {"name": "python"}
    used: set[str] = set()
    for cell in notebook.cells:
        count = 0
        while (cell_id := _sha(f"{cell.cell_type}\n{cell.source}\n{count}")[:12]) in used:
            count += 1
        used.add(cell_id)
        cell["id"] = cell_id
    notebook.nbformat_minor = 5
    nbformat.validate(notebook)
    return notebook


def merge(notebook: Any, stored: Any) -> Any:
    """``notebook`` with the ids and outputs of ``stored``, as ``jupytext --update`` does.

    One difference: a cell whose code changed loses its outputs, since they are no longer true.
    """
    from jupytext.combine import combine_inputs_with_outputs

    metadata = notebook.metadata
    stored_by_id = {cell["id"]: cell for cell in stored.cells}
    fresh = [dict(cell.metadata) for cell in notebook.cells]
    merged = combine_inputs_with_outputs(notebook, stored, fmt="py:percent")
    merged.metadata = metadata
    for cell, cell_metadata in zip(merged.cells, fresh, strict=True):
        cell.metadata = type(cell.metadata)(cell_metadata)
        before = stored_by_id.get(cell["id"])
        if cell.cell_type == "code" and before is not None and not _same_code(before.source, cell.source):
            cell.outputs, cell.execution_count = [], None
    used: set[str] = set()
    for cell in merged.cells:
        while cell["id"] in used:
            cell["id"] = _sha(cell["id"])[:12]
        used.add(cell["id"])
    return merged


def build(names: Iterable[str] | None = None) -> list[Path]:
    """Write the notebook of each named source (default: all); returns the paths that changed on disk."""
    import nbformat

    changed = []
    for lesson in _selected(names):
        notebook = from_source(lesson.source)
        if lesson.notebook.exists():
            notebook = merge(notebook, read(lesson.notebook))
        text = nbformat.writes(notebook) + "\n"
        if not lesson.notebook.exists() or lesson.notebook.read_text(encoding="utf-8") != text:
            write_text(lesson.notebook, text)
            changed.append(lesson.notebook)
    return changed + budgets.write(everything())


def check(names: Iterable[str] | None = None) -> list[str]:
    """Where notebooks and sources differ in code, prose, tags or header; an empty list means in step."""
    differences = []
    if names is None and not budgets.in_step(everything()):
        differences.append(f"{shown(budgets.path())}: differs from the headers; run `make notebooks`")
    for lesson in _selected(names):
        where = shown(lesson.notebook)
        if not lesson.notebook.exists():
            differences.append(f"{where}: missing; run `make notebooks`")
            continue
        found = _compare(from_source(lesson.source), read(lesson.notebook))
        differences += [f"{where}: {sentence}" for sentence in found[:SHOWN]]
        if len(found) > SHOWN:
            differences.append(f"{where}: and {len(found) - SHOWN} more differences")
    if names is None:
        known = {lesson.notebook for lesson in _selected(None)}
        for folder in (find_root() / "notebooks", find_root() / "notebooks" / "experiments"):
            for stray in sorted(set(folder.glob("*.ipynb")) - known):
                differences.append(f"{shown(stray)}: no source; `import` it or delete it")
    return differences


def _compare(expected: Any, actual: Any) -> list[str]:
    """The differences of two notebooks as sentences, without their outputs and ids."""
    found = []
    if expected.metadata.get("instructlab") != actual.metadata.get("instructlab"):
        found.append("the header (metadata.instructlab) differs from the source")
    if len(expected.cells) != len(actual.cells):
        found.append(f"{len(actual.cells)} cells, the source has {len(expected.cells)}")
    for number, (want, have) in enumerate(zip(expected.cells, actual.cells, strict=False), 1):
        if want.cell_type != have.cell_type:
            found.append(f"cell {number} is {have.cell_type}, in the source {want.cell_type}")
        elif want.source != have.source:
            line = _first_difference(want.source, have.source)
            found.append(f"cell {number} ({want.cell_type}) differs from the source at {line!r}")
        elif _tags(want) != _tags(have):
            found.append(f"cell {number}: tags {_tags(have)}, in the source {_tags(want)}")
        elif want.metadata.get("nbgrader") != have.metadata.get("nbgrader"):
            found.append(f"cell {number}: its nbgrader metadata differ from the source")
    return found


def import_back(path: str | Path) -> Path:
    """Write what somebody edited in Jupyter back into the source; the header stays as it is written there.

    ``path`` is a lesson's or experiment's notebook, at its own place or a copy of it with the same file name.
    Raises NotebookError if the file is unreadable or no source has its name.
    """
    import jupytext

    path = Path(path)
    notebook = read(path)
    lesson = find(path.name)
    text = lesson.source.read_text(encoding="utf-8")
    header = HEADER.match(text)
    assert header is not None  # find() has read it
    original = from_source(lesson.source)
    notebook.metadata = original.metadata
    notebook.cells = [cell for cell in notebook.cells if not set(_tags(cell)) & set(INJECTED)]
    for cell in notebook.cells:
        for key in VOLATILE:
            cell.metadata.pop(key, None)
    written = jupytext.writes(notebook, fmt="py:percent")
    body = written[HEADER.match(written).end() :]  # type: ignore[union-attr]
    result = header.group(0) + "\n" + body.lstrip("\n")
    if result != text:
        write_text(lesson.source, result)
    return lesson.source


def store_outputs(executed: Path, lesson: Notebook) -> int:
    """Copy the outputs of an executed notebook into the lesson's notebook; returns its size in bytes.

    PNG and text only: no widgets, no SVG, no timings; code cells are counted 1, 2, 3. Raises NotebookError if
    the executed notebook is of other code, holds an error, or prints an absolute path of this machine.
    """
    import nbformat

    result = from_source(lesson.source)
    if lesson.notebook.exists():
        result = merge(result, read(lesson.notebook))
    ran = [cell for cell in read(executed).cells if not set(_tags(cell)) & set(INJECTED)]
    if [cell.source for cell in ran if cell.cell_type == "code"] != [
        cell.source for cell in result.cells if cell.cell_type == "code"
    ]:
        raise NotebookError(
            f"{shown(executed)} was made from other code than {shown(lesson.source)}; run it again"
        )
    outputs = iter([cell for cell in ran if cell.cell_type == "code"])
    private = (str(find_root()), str(Path.home()) + "/")
    count = 0
    for cell in result.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = [kept for output in next(outputs).outputs if (kept := _kept(output)) is not None]
        if not cell.source.strip():
            continue
        count += 1
        cell.execution_count = count
        for output in cell.outputs:
            if output.output_type == "error":
                raise NotebookError(f"{shown(executed)}: cell {count} holds an error; it cannot be stored")
            if output.output_type == "execute_result":
                output.execution_count = count
            if any(path in json.dumps(output, ensure_ascii=False) for path in private):
                raise NotebookError(
                    f"{shown(lesson.source)}: code cell {count} prints an absolute path of this machine; "
                    "print it relative to run.root"
                )
    text = nbformat.writes(result) + "\n"
    write_text(lesson.notebook, text)
    return len(text.encode("utf-8"))


def _kept(output: Any) -> Any | None:
    """The output as it may be stored: only the listed types; None for a widget or an empty rest."""
    if output.output_type not in ("display_data", "execute_result"):
        return output
    if any("widget" in kind for kind in output.data):
        return None
    data = {kind: value for kind, value in output.data.items() if kind in STORED_TYPES}
    output.data = type(output.data)(data)
    output.metadata = type(output.metadata)()
    return output if data else None


# --- reading --------------------------------------------------------------------------------------


def read(path: Path) -> Any:
    """An .ipynb as an nbformat 4.5 notebook. NotebookError if it is missing, not JSON, or not a notebook."""
    import nbformat

    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except FileNotFoundError as error:
        raise NotebookError(f"{shown(path)} does not exist; run `make notebooks`") from error
    except Exception as error:  # nbformat raises a dozen kinds, all meaning the same to the reader
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise NotebookError(f"{shown(path)} is not a readable notebook: {reason}") from error
    return notebook


def status(lesson: Notebook) -> str:
    """How far a lesson is: "source only", "not executed", or executed, with its number of checked cells."""
    if not lesson.notebook.exists():
        return "source only"
    code = [c for c in read(lesson.notebook).cells if c.cell_type == "code" and c.source.strip()]
    if any(cell.execution_count is None for cell in code):
        return "not executed"
    checked = sum("nbval-check-output" in _tags(cell) for cell in code)
    return f"executed; cells checked word for word: {checked}"


def code_sha(path: str | Path) -> str:
    """SHA-256 of the code cells of an .ipynb or a source. Prose, tags, ids and outputs do not count."""
    path = Path(path)
    if path.suffix == ".py":
        cells = from_source(path).cells
    else:
        cells = [cell for cell in read(path).cells if not set(_tags(cell)) & set(INJECTED)]
    code = [cell.source.strip() for cell in cells if cell.cell_type == "code" and cell.source.strip()]
    return _sha(json.dumps(code, ensure_ascii=False))


def _selected(names: Iterable[str] | None) -> list[Notebook]:
    if names is None:
        return everything()
    return [find(name) for name in names]


def _tags(cell: Any) -> list[str]:
    return list(cell.metadata.get("tags", []))


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _same_code(a: str, b: str) -> bool:
    """Equal up to formatting and comments."""
    if a == b:
        return True
    try:
        return ast.dump(ast.parse(a)) == ast.dump(ast.parse(b))
    except SyntaxError:  # an IPython magic
        return False


def _first_difference(want: str, have: str) -> str:
    """The first line of the source's cell that the notebook's cell does not have at that place."""
    pairs = itertools.zip_longest(want.splitlines(), have.splitlines())
    return next((row if row is not None else other for row, other in pairs if row != other), "").strip()[:80]
