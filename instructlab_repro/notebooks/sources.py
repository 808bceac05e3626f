"""Lessons and experiments: found by name, built from their text sources, checked against them.
``source/NN_name.py`` (jupytext py:percent) is what an author edits; ``NN_name.ipynb`` is generated from it,
one way.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, WrapValidator

from instructlab_repro.notebooks import budgets
from instructlab_repro.strict import Strict, sentence
from instructlab_utils.errors import NotebookError
from instructlab_utils.files import write_text
from instructlab_utils.project import PROFILES, closest, find_root, shown, text_of

HEADER = re.compile(r"\A# ---\n((?:#.*\n)*?)# ---\n")
INJECTED = {"injected-parameters", "papermill-error-cell-tag"}
VOLATILE = ("papermill", "jupyter")  # of a cell; jupytext leaves out the rest
STAMP = "instructlab_sha"  # in a notebook's metadata: what its cells were when they were generated
SHOWN = 5  # differences told per notebook
STORED_TYPES = ("text/plain", "text/html", "text/markdown", "text/latex", "image/png")


def _as_written(value: Any, check: Callable[[Any], float]) -> Any:
    check(value)
    return value  # 32 stays an int


def _complete(row: dict[str, float]) -> dict[str, float]:
    if set(row) != set(PROFILES):
        raise ValueError(f"needs one number each for {', '.join(PROFILES)}, and nothing else")
    return row


Number = Annotated[float, WrapValidator(_as_written)]
PerProfile = Annotated[dict[str, Number], AfterValidator(_complete)]
Knob = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]


class Notebook(Strict, extra="ignore"):
    """A lesson's or experiment's notebook, as its source's header declares it; ``minutes`` and ``budget`` by profile."""

    id: str
    title: str
    outcome: str
    assets: list[str]
    minutes: PerProfile
    budget: dict[Knob, PerProfile] = {}
    source: Path

    @property
    def notebook(self) -> Path:
        return self.source.parent.parent / f"{self.source.stem}.ipynb"


# --- finding --------------------------------------------------------------------------------------


def read_header(source: Path) -> dict[str, Any]:
    """The YAML header of a source as a dictionary (its ``jupyter`` part). NotebookError if it has none."""
    import yaml

    match, name = HEADER.match(text_of(source)), shown(source)
    if match is None:
        raise NotebookError(f"{name}: no header; the file must begin with a '# ---' block")
    try:
        header = yaml.safe_load(re.sub(r"(?m)^# ?", "", match.group(1)))["jupyter"]
        header["instructlab"]
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise NotebookError(f"{name}: the header is not valid YAML ({reason})") from error
    except (TypeError, KeyError) as error:
        raise NotebookError(f"{name}: the header lacks the block jupyter: instructlab:") from error
    return header


def _collect(folder: Path) -> dict[str, Notebook]:
    found: dict[str, Notebook] = {}
    for source in sorted((folder / "source").glob("*.py")):
        fields = read_header(source)["instructlab"]
        try:
            notebook = Notebook.model_validate({**fields, "source": source})
        except ValidationError as error:
            raise NotebookError(sentence(error, shown(source), "instructlab.")) from None
        if other := found.get(notebook.id):
            taken = f"the id {other.id!r} is already that of {shown(other.source)}"
            raise NotebookError(f"{shown(source)}: {taken}")
        found[notebook.id] = notebook
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
    known, file, name = everything(), Path(name), str(name)
    path = name.endswith((".ipynb", ".py"))
    stem, is_place = file.stem if path else name, path and (file.name != name or file.exists())
    here = {file.resolve(), (find_root() / file).resolve()} if is_place else set()
    for notebook in known:
        if stem in (notebook.id, notebook.source.stem) or (stem.isdigit() and stem.zfill(2) == notebook.id):
            if not here or {notebook.notebook.resolve(), notebook.source.resolve()} & here:
                return notebook
    ids = [notebook.id for notebook in known]
    near = closest(stem, [*ids, *(notebook.source.stem for notebook in known)])
    known_ids = ", ".join(ids) or "none"
    raise NotebookError(f"unknown lesson or experiment {name!r}{near}; known: {known_ids}")


def _selected(names: Iterable[str] | None) -> list[Notebook]:
    return everything() if names is None else [find(name) for name in names]


# --- source -> notebook ---------------------------------------------------------------------------


def from_source(source: Path) -> Any:
    """The notebook of a py:percent source, without outputs; ids come from the content, so builds repeat."""
    import jupytext
    import nbformat

    notebook = jupytext.reads(text_of(source), fmt="py:percent")
    notebook.metadata.get("jupytext", {}).get("text_representation", {}).pop("jupytext_version", None)
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell["id"] = _sha(f"{cell.cell_type}\n{cell.source}\n0")[:12]
    _make_ids_distinct(notebook.cells)
    notebook.nbformat_minor = 5
    nbformat.validate(notebook)
    return notebook


def _updated(lesson: Notebook, *, discard: bool = False) -> Any:
    """The source's notebook with the ids and outputs of the stored one, as ``jupytext --update`` does.

    One difference: a cell whose code changed loses its outputs, since they are no longer true. NotebookError if a
    person has edited the stored one; with ``discard`` a copy of it is kept instead.
    """
    from jupytext.combine import combine_inputs_with_outputs

    notebook, name = from_source(lesson.source), shown(lesson.notebook)
    notebook.metadata[STAMP] = _content(notebook)
    if not lesson.notebook.exists():
        return notebook
    if edited(lesson):
        if not discard:
            us = "python -m instructlab_utils"
            do = f"`{us} import {name}` brings them into it, `{us} notebooks --discard {lesson.id}` keeps a copy"
            raise NotebookError(f"{name} has edits that its source lacks; {do}")
        budgets.keep(lesson.notebook)
    stored = read(lesson.notebook)
    before = {cell["id"]: cell.source for cell in stored.cells}
    merged = combine_inputs_with_outputs(copy.deepcopy(notebook), stored, fmt="py:percent")
    merged.metadata = notebook.metadata
    for cell, written in zip(merged.cells, notebook.cells, strict=True):
        cell.metadata = written.metadata
        if cell.cell_type == "code" and not _same_code(before.get(cell["id"], ""), cell.source):
            cell.outputs, cell.execution_count = [], None
    _make_ids_distinct(merged.cells)
    return merged


def _content(notebook: Any) -> str:
    """SHA-256 of all that a person types into cells; empty cells, ids and outputs do not count."""
    cells = [cell for cell in _written_by_hand(notebook) if cell.source.strip()]
    typed = [[cell.cell_type, cell.source, _tags(cell), cell.get("attachments")] for cell in cells]
    return _sha(json.dumps(typed, ensure_ascii=False, sort_keys=True))


def edited(lesson: Notebook) -> bool:
    """Whether the notebook is neither what its source gives nor what was last generated: somebody typed there."""
    stored = read(lesson.notebook)
    return _content(stored) not in (stored.metadata.get(STAMP), _content(from_source(lesson.source)))


def _make_ids_distinct(cells: list[Any]) -> None:
    used: set[str] = set()
    for cell in cells:
        while cell["id"] in used:
            cell["id"] = _sha(cell["id"])[:12]
        used.add(cell["id"])


def build(names: Iterable[str] | None = None, *, discard: bool = False) -> list[Path]:
    """Write the notebook of each named source (default: all); returns the paths that changed on disk.

    NotebookError if a notebook has edits that its source lacks; with ``discard`` a copy of it is kept.
    """
    import nbformat

    changed = []
    for lesson in _selected(names):
        text = nbformat.writes(_updated(lesson, discard=discard)) + "\n"
        if not lesson.notebook.exists() or lesson.notebook.read_text(encoding="utf-8") != text:
            changed.append(write_text(lesson.notebook, text))
    return changed + budgets.write(everything())


def check(names: Iterable[str] | None = None) -> list[str]:
    """Where notebooks and sources differ in code, prose, tags or header; an empty list means in step."""
    differences, selected = [], _selected(names)
    if names is None and not budgets.in_step(selected):
        differences.append(f"{shown(budgets.path())}: differs from the headers; run `make notebooks`")
    for lesson in selected:
        found = ["missing; run `make notebooks`"]
        if lesson.notebook.exists():
            found = _compare(from_source(lesson.source), read(lesson.notebook))
            found[:0] = ["has edits that its source lacks; import or discard them"] * edited(lesson)
        if len(found) > SHOWN:
            found[SHOWN:] = [f"and {len(found) - SHOWN} more differences"]
        differences += [f"{shown(lesson.notebook)}: {sentence}" for sentence in found]
    if names is None:
        folder = find_root() / "notebooks"
        there = [*sorted(folder.glob("*.ipynb")), *sorted((folder / "experiments").glob("*.ipynb"))]
        known = {lesson.notebook for lesson in selected}
        strays = (shown(stray) for stray in there if stray not in known)
        differences += [f"{stray}: no source; `import` it or delete it" for stray in strays]
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
            pairs = itertools.zip_longest(want.source.splitlines(), have.source.splitlines())
            line = next((row or other or "" for row, other in pairs if row != other), "").strip()[:80]
            found.append(f"cell {number} ({want.cell_type}) differs from the source at {line!r}")
        elif _tags(want) != _tags(have):
            found.append(f"cell {number}: tags {_tags(have)}, in the source {_tags(want)}")
        elif want.metadata.get("nbgrader") != have.metadata.get("nbgrader"):
            found.append(f"cell {number}: its nbgrader metadata differ from the source")
    return found


# --- notebook -> source, and its outputs ------------------------------------------------------------


def import_back(path: str | Path) -> Path:
    """Write what somebody edited in Jupyter back into the source; the header stays as it is written there.

    ``path`` is a lesson's or experiment's notebook, at its own place or a copy of it with the same file name.
    Raises NotebookError if the file is unreadable or no source has its name.
    """
    import jupytext

    notebook = read(Path(path))
    source = find(Path(path).stem).source
    notebook.metadata = from_source(source).metadata
    notebook.cells = _written_by_hand(notebook)
    for cell in notebook.cells:
        for key in VOLATILE:
            cell.metadata.pop(key, None)
    text = text_of(source)
    header = HEADER.match(text)
    assert header is not None  # find() has read it
    body = HEADER.sub("", jupytext.writes(notebook, fmt="py:percent"))
    result = header.group(0) + "\n" + body.lstrip("\n")
    if result != text:
        budgets.keep(source)
        write_text(source, result)
    return source


def store_outputs(executed: Path, lesson: Notebook) -> int:
    """Copy the outputs of an executed notebook into the lesson's notebook; returns its size in bytes.

    PNG and text only: no widgets, no SVG, no timings; code cells are counted 1, 2, 3. Raises NotebookError if
    the executed notebook is of other code, holds an error, or prints an absolute path of this machine.
    """
    import nbformat

    result = _updated(lesson)
    ran = [cell for cell in _written_by_hand(read(executed)) if cell.cell_type == "code"]
    code = [cell for cell in result.cells if cell.cell_type == "code"]
    if [cell.source for cell in ran] != [cell.source for cell in code]:
        reason = f"was made from other code than {shown(lesson.source)}; run it again"
        raise NotebookError(f"{shown(executed)} {reason}")
    for cell, done in zip(code, ran, strict=True):
        cell.outputs = [output for output in done.outputs if _storable(output)]
    private = (str(find_root()), str(Path.home()) + "/")
    for count, cell in enumerate((cell for cell in code if cell.source.strip()), 1):
        cell.execution_count = count
        for output in cell.outputs:
            if output.output_type == "error":
                raise NotebookError(f"{shown(executed)}: cell {count} holds an error; it cannot be stored")
            if output.output_type == "execute_result":
                output.execution_count = count
            if any(path in json.dumps(output, ensure_ascii=False) for path in private):
                reason = "prints an absolute path of this machine; print it relative to run.root"
                raise NotebookError(f"{shown(lesson.source)}: code cell {count} {reason}")
    text = nbformat.writes(result) + "\n"
    write_text(lesson.notebook, text)
    return len(text.encode("utf-8"))


def _storable(output: Any) -> bool:
    """Reduce a shown value to the types that may be stored; False for a widget or an empty rest."""
    if output.output_type not in ("display_data", "execute_result"):
        return True
    widget = any("widget" in kind for kind in output.data)
    for kind in set(output.data) - set(STORED_TYPES):
        del output.data[kind]
    output.metadata.clear()
    return bool(output.data) and not widget


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


def code_sha(path: str | Path) -> str:
    """SHA-256 of the code cells of an .ipynb or a source. Prose, tags, ids and outputs do not count."""
    path = Path(path)
    notebook = from_source(path) if path.suffix == ".py" else read(path)
    code = [cell.source.strip() for cell in _written_by_hand(notebook) if cell.cell_type == "code"]
    return _sha(json.dumps([source for source in code if source], ensure_ascii=False))


def _written_by_hand(notebook: Any) -> list[Any]:
    """The cells that papermill has not put in."""
    return [cell for cell in notebook.cells if not INJECTED & set(_tags(cell))]


def _tags(cell: Any) -> list[str]:
    return list(cell.metadata.get("tags", []))


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _same_code(a: str, b: str) -> bool:
    """Equal up to formatting and comments."""
    try:
        return a == b or ast.dump(ast.parse(a)) == ast.dump(ast.parse(b))
    except SyntaxError:  # an IPython magic
        return False
