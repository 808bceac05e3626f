"""The pages that one works through: lessons as they are stored, and their exercises as students get them."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

from book.facts import (
    BOXES,
    MAKE,
    TABLES,
    boxes,
    changed,
    drafts,
    experiments,
    glossary,
    ledger,
    lesson_of,
    lessons,
    notebook_of,
    repeated,
    settings,
    site,
    toctree,
    verdict,
    verified,
    way,
)
from book.prose import Mentions, words
from instructlab_repro.notebooks import exercises
from instructlab_utils.project import text_of


def mentions(at: str, page: str) -> Mentions:
    """What a lesson or an exercise page with the text ``page`` links first: other lessons, its claims, terms."""
    rows: list[tuple[str, str, str, str]] = []
    own = Path(at).name[:2]
    for one in lessons().values():
        if one.id != own:
            rows.append(
                (one.id, one.id, rf"[Ll]esson {one.id}\b", f"[{{text}}]({way(notebook_of(one), at)})")
            )
    for claim in sorted({*ledger(), *drafts()}, key=len, reverse=True):
        told = "" if lesson_of(claim) == own else r"(?:(?<=claim )|(?<=claims )|(?<=\*\*))"
        rows.append((claim, claim, rf"{told}{claim}\b", f"[{{text}}](#{claim.lower()})"))
    terms = [row for row in glossary() if row.get("link", True)]
    spellings = [(word, row["en"]) for row in terms for word in (row["en"], *row.get("also", ()))]
    for word, term in sorted(spellings, key=lambda pair: len(pair[0]), reverse=True):
        case = "(?-i:" if any(letter.isupper() for letter in word[1:]) else "(?i:"
        spelled = re.escape(word).replace(r"\ ", r"\s+")
        rows.append(
            (term, word, rf"{case}{spelled})(?:s|es)?\b(?![-.]\w)", f"{{{{term}}}}`{{text}} <{term}>`")
        )
    return Mentions(rows, page)


def lesson(one: Any) -> str:
    """The stored notebook as JSON, with links, alternative texts, a line below the title and a box at the end."""
    at, stored = notebook_of(one), json.loads(text_of(one.notebook))
    page = "\n".join("".join(cell["source"]) for cell in stored["cells"] if cell["cell_type"] == "markdown")
    spoken, cells, headings = mentions(at, page), [], ""
    for number, cell in enumerate(stored["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            headings = (re.findall(r"^#+ (.+)$", source, re.MULTILINE) or [headings])[-1]
            if number == 0:
                source = re.sub(r"\A(# .+\n)", lambda m: f"{m[1]}\n{_glance(one, at)}\n", source)
            source = re.sub(rf"`{BOXES}/(\w+)\.py`", r"[On a page of their own](exercises/\1.py)", source)
            cells.append(cell | {"source": spoken.link(site().rewrite(source, at))})
            continue
        cell = copy.deepcopy(cell)
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "text/html" in data:
                data["text/html"] = re.sub(
                    r'href="\.\./LEDGER\.md#', 'href="../LEDGER.html#', "".join(data["text/html"])
                )
            if "image/png" in data:
                cell["metadata"]["mystnb"] = {"image": {"alt": _alt(stored["cells"], number, headings)}}
        if "lesson.show(" in source:  # the words of claims: long lines, no columns
            cell["metadata"]["tags"] = [*cell["metadata"].get("tags", ()), "wrapped"]
        cells.append(cell)
        if below := _below(source, at):
            cells.append(_markdown(f"record-{number}", below))
    cells.append(_markdown("verified", _verified_lesson(one, stored)))
    return json.dumps(stored | {"cells": cells}, ensure_ascii=False, indent=1)


def _markdown(name: str, source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source}


def _glance(one: Any, at: str) -> str:
    """Exercises, verdicts and recorded runs of a lesson, in links. Minutes and prerequisites stand in its own table."""
    found = boxes(exercises.sources()[one.id])
    minutes = sum(box.minutes for box in found)
    claims = [claim for claim in ledger() if lesson_of(claim) == one.id]
    tables = dict.fromkeys(e for c in claims if (e := ledger()[c]["experiment"]) in experiments())
    lines = [
        f"**Exercises:** [{len(found)} boxes, {minutes} minutes]({way(f'{BOXES}/{one.source.stem}.md', at)})"
    ]
    by: dict[str, list[str]] = {"supported": [], "refuted": [], "undecided": [], "not tested": []}
    for claim in claims:
        by[ledger()[claim]["verdict"]].append(f"[{claim}](#{claim.lower()})")
    if claims:
        told = "; ".join(f"*{word}* {', '.join(names)}" for word, names in by.items() if names)
        lines.append(f"**Verdicts, in the [ledger]({way('LEDGER.md', at)}):** {told}")
    if tables:
        links = ", ".join(f"[{name}]({way(f'{TABLES}/{name}.md', at)})" for name in tables)
        lines.append(f"**Recorded runs:** {links}")
    told = "\n".join(f"- {line}" for line in lines)
    repository, branch = settings()
    if (
        repository
    ):  # the buttons open the notebook as it is stored, in a machine that has nothing of the course
        first = f"!git clone --depth 1 -b {branch} {repository} course\n%cd course\n%run scripts/colab.py {one.id}"
        how = "The button *Colab* opens this notebook without the course. Put this into a first cell (not tried by us):"
        told += f"\n\n<details><summary>In Colab</summary>\n\n{how}\n\n```\n{first}\n```\n\n</details>"
    return f":::{{container}} glance\n{told}\n:::\n"


def before(one: Any, at: str) -> str:
    """The prerequisites, from the table at the top of a lesson, each lesson a link."""
    found = re.search(r"^# \| before this \| (.+?) \|$", text_of(one.source), re.MULTILINE)

    def link(match: re.Match[str]) -> str:
        other = lessons().get(match[2])
        return f"[{match[0]}]({way(notebook_of(other), at)})" if other else match[0]

    return re.sub(r"\b(lessons? )?(\d\d)\b", link, found[1]) if found else "nothing"


def _alt(cells: list[dict[str, Any]], number: int, heading: str) -> str:
    """The figure's caption, before or after its cell; else the titles that its code sets; else the section's."""
    for near in (number + 1, number - 1):
        source = "".join(cells[near]["source"]) if 0 <= near < len(cells) else ""
        if caption := re.search(r"\*?Figure: (.+?)(?:\*?\n\n|\*?\Z)", source, re.DOTALL):
            return words(caption[1])
    code = "".join(cells[number]["source"])
    titles = re.findall(r"title(?:=|\()\s*f?\"([^\"{}]+)\"", code)
    axes = [f"{axis}: {told}" for axis, told in re.findall(r"([xy])label(?:=|\()\s*f?\"([^\"{}]+)\"", code)]
    told = "; ".join(dict.fromkeys(titles)) or f"of the section “{heading}”"
    return words(f"Figure: {told}. " + ", ".join(dict.fromkeys(axes)))


def _below(code: str, at: str) -> str:
    """Links to the ledger and to tables, below a cell that shows verdicts or a table of a recorded experiment."""
    shown = re.findall(r"lesson\.(?:show|words|folded|verdict|table)\(([^)]*)\)", code)
    names = re.findall(r'"(\w+)"', " ".join(shown))
    claims = [verdict(name) for name in dict.fromkeys(names) if name in ledger()]
    links = [
        f"[{name}]({way(f'{TABLES}/{name}.md', at)})"
        for name in dict.fromkeys(names)
        if name in experiments()
    ]
    parts = [("In the ledger: ", claims), ("Full tables: ", links)]
    told = " — ".join(head + " · ".join(found) for head, found in parts if found)
    return f":::{{container}} record\n{told}\n:::" if told else ""


def _verified_lesson(one: Any, stored: dict[str, Any]) -> str:
    printed = "".join(
        "".join(output.get("text", "")) for cell in stored["cells"] for output in cell.get("outputs", ())
    )
    day = f"; stored on {changed()[notebook_of(one)]}" if notebook_of(one) in changed() else ""
    full = re.search(r"^\d\d · (profile .+)\n(python .+)$", printed, re.MULTILINE)
    short = re.search(
        r"^(profile \w+, seed \d+)", printed, re.MULTILINE
    )  # where the set-up cell prints nothing
    run = f"{full[1]}; {full[2]}" if full else short[1] if short else "as in the repository"
    lines = [f"Outputs of this page: {run}{day}"]
    names = dict.fromkeys(row["experiment"] for claim, row in ledger().items() if lesson_of(claim) == one.id)
    lines += [f"Recorded runs: {repeated(name)}" for name in names if name in experiments()]
    return verified(lines, [f"notebooks/source/{one.source.name}"])


# --- exercises ------------------------------------------------------------------------------------


def exercise(path: Path) -> str:
    """The boxes of a lesson as students get them: hints and solutions of practice folded, no hidden case."""
    at, one = f"{BOXES}/{path.stem}.md", lessons()[path.name[:2]]
    cells, parts = exercises.teacher_notebook(path).cells, []
    spoken = mentions(at, "\n".join(cell.source for cell in cells if cell.cell_type == "markdown"))
    for cell in cells:
        source, grading = cell.source, cell.metadata.get("nbgrader", {})
        if cell.cell_type == "markdown":
            parts.append(spoken.link(site().rewrite(source, at)))
            continue
        if grading.get("solution"):
            source = exercises.SOLUTION.sub(lambda m: _stub(m["body"]), source)
        source = exercises.HIDDEN.sub("", source).strip("\n")
        block = f"```python\n{source}\n```"
        folded = f"<details class='checker'><summary>The checker</summary>\n\n{block}\n\n</details>"
        parts.append(folded if grading.get("locked") else block)
    text, back = "\n\n".join(parts), f"Lesson: [{one.id} {one.title}]({way(notebook_of(one), at)}) · {MAKE}."
    text = re.sub(
        r"^(# .+)$",
        lambda m: f"{m[1]}\n\n:::{{container}} glance\n{back}\n:::",
        text,
        count=1,
        flags=re.MULTILINE,
    )
    # a heading of a box is "09.1 …": its points and stars follow
    lines = [
        "Each checker accepts the solution and rejects the wrong answers of `tests/answers` (`make test`)."
    ]
    return text + verified(lines, [f"{BOXES}/{path.name}"])


def _stub(body: str) -> str:
    return f"{re.match(r' *', body)[0]}{exercises.STUB}\n"  # type: ignore[index]


def exercise_index() -> str:
    """All boxes of all lessons in one table."""
    lines = [
        "# Exercises", "",
        "Stars are the difficulty. *Practice* has two hints and a solution, folded; *graded* has hidden cases. "
        f"A checker below every answer explains the likely mistake. {MAKE}; "
        "[how grading works](../../TEACHING.md#exercises-and-grading).",
        "", "| exercise | difficulty | minutes | kind |", "|:--|:--|--:|:--|",
    ]  # fmt: skip
    for path in exercises.sources().values():
        for box in boxes(path):
            kind = " · ".join(
                filter(None, (box.kind, box.flavour, f"{box.points} points" if box.graded else ""))
            )
            stars = "●" * box.difficulty + "○" * (5 - box.difficulty)
            link = f"[{box.id} {box.title}]({path.stem}.md#{_slug(f'{box.id} {box.title}')})"
            lines.append(f"| {link} | {stars} | {box.minutes} | {kind} |")
    return (
        "\n".join(lines)
        + "\n\n"
        + toctree("", [f"{one.id} {one.title} <{one.source.stem}>" for one in lessons().values()])
    )


def _slug(title: str) -> str:
    """GitHub's anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
