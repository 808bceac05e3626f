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
    claim_link,
    drafts,
    experiments,
    glossary,
    ledger,
    lesson_of,
    lessons,
    link,
    notebook_of,
    repeated,
    settings,
    site,
    switch,
    toctree,
    verdict,
    verified,
    way,
)
from book.prose import Mentions, words
from book.translate import LANGUAGE, say, translated
from instructlab_repro.notebooks import exercises
from instructlab_utils.project import text_of


def mentions(at: str, page: str) -> Mentions:
    """What a lesson or an exercise page with the text ``page`` links first: other lessons, its claims, terms."""
    rows: list[tuple[str, str, str, str]] = []
    own = Path(at).name[:2]
    for one in lessons().values():
        if one.id != own:
            called = rf"[Ll]esson {one.id}\b" if LANGUAGE == "en" else f"第{one.id}课"
            rows.append((one.id, one.id, called, f"[{{text}}]({way(notebook_of(one), at)})"))
    for claim in sorted({*ledger(), *drafts()}, key=len, reverse=True):
        told = "" if lesson_of(claim) == own else r"(?:(?<=claim )|(?<=claims )|(?<=论断)|(?<=\*\*))"
        target = claim_link(claim, at).replace(f"[{claim}]", "[{text}]")
        rows.append((claim, claim, rf"{told}{claim}(?![A-Za-z0-9_])", target))
    terms = [row for row in glossary() if row.get("link", True)]
    if LANGUAGE == "zh":
        names = [(re.sub(r"（.*", "", row["zh"]), row["en"]) for row in terms]
        chinese = sorted((pair for pair in names if len(pair[0]) > 1), key=lambda pair: -len(pair[0]))
        for zh, en in chinese:
            edges = [
                r"(?<![A-Za-z0-9.-])" if zh[0].isascii() else "",
                r"(?![A-Za-z0-9-])" if zh[-1].isascii() else "",
            ]
            rows.append((en, zh, edges[0] + re.escape(zh) + edges[1], f"{{{{term}}}}`{{text}} <{en}>`"))
        return Mentions(rows, page, edge="")
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
    for cell in stored["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = translated(one.id, "".join(cell["source"]))
    page = "\n".join(cell["source"] for cell in stored["cells"] if cell["cell_type"] == "markdown")
    spoken, cells, headings = mentions(at, page), [], ""
    for number, cell in enumerate(stored["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            headings = (re.findall(r"^#+ (.+)$", source, re.MULTILINE) or [headings])[-1]
            if number == 0:
                source = re.sub(r"\A(# .+\n)", lambda m: f"{m[1]}\n{_glance(one, at)}\n", source)
            source = re.sub(
                rf"`{BOXES}/(\w+)\.py`", rf"[{say('On a page of their own')}](exercises/\1.py)", source
            )
            cells.append(cell | {"source": spoken.link(site().rewrite(source, at))})
            continue
        cell = copy.deepcopy(cell)
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "text/html" in data:
                up = "../" if LANGUAGE == "en" else "../../"
                told = "".join(data["text/html"])
                told = re.sub(r'href="\.\./LEDGER\.md#', f'href="{up}LEDGER.html#', told)
                if LANGUAGE != "en":  # notes to a table are English: they wait until somebody asks
                    notes = f"<details><summary>{say('Notes to the table')}</summary>"
                    told = re.sub(
                        r"(?:<p><small>.*?</small></p>\s*)+",
                        rf"{notes}\g<0></details>",
                        told,
                        flags=re.DOTALL,
                    )
                data["text/html"] = told
            if "image/png" in data:
                cell["metadata"]["mystnb"] = {"image": {"alt": alt(stored["cells"], number, headings)}}
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
    exercises_page = way(f"{BOXES}/{one.source.stem}.md", at)
    counts = "**Exercises:** [{boxes} boxes, {minutes} minutes]({link})"
    run = say(
        "**Run it:** [two commands]({link}), then `make lab`",
        link=f"{way('index.md', at)}#{say('two-commands')}",
    )
    lines = [*switch(at), run, say(counts, boxes=len(found), minutes=minutes, link=exercises_page)]
    by: dict[str, list[str]] = {"supported": [], "refuted": [], "undecided": [], "not tested": []}
    for claim in claims:
        by[ledger()[claim]["verdict"]].append(claim_link(claim, at))
    if claims:
        told = say("; ").join(f"*{say(word)}* {say(', ').join(names)}" for word, names in by.items() if names)
        lines.append(
            say("**Verdicts, in the [ledger]({link}):** {told}", link=link("LEDGER.md", at), told=told)
        )
    if tables:
        links = ", ".join(f"[{name}]({link(f'{TABLES}/{name}.md', at)})" for name in tables)
        lines.append(say("**Recorded runs:** {links}", links=links))
    told = "\n".join(f"- {line}" for line in lines)
    repository, branch = settings()
    if (
        repository
    ):  # the buttons open the notebook as it is stored, in a machine that has nothing of the course
        first = f"!git clone --depth 1 -b {branch} {repository} course\n%cd course\n%run scripts/colab.py {one.id}"
        how = say(
            "The button *Colab* opens this notebook without the course. Put this into a first cell (not tried by us):"
        )
        told += (
            f"\n\n<details><summary>{say('In Colab')}</summary>\n\n{how}\n\n```\n{first}\n```\n\n</details>"
        )
    return f":::{{container}} glance\n{told}\n:::\n"


def before(one: Any, at: str) -> str:
    """The prerequisites, from the table at the top of a lesson, each lesson a link."""
    cells = json.loads(text_of(one.notebook))["cells"]
    first = translated(one.id, "".join(cells[0]["source"]))
    found = re.search(r"^\| (?:before this|先修) \| (.+?) \|$", first, re.MULTILINE)

    def linked(match: re.Match[str]) -> str:
        other = lessons().get(match[1])
        return f"[{match[0]}]({way(notebook_of(other), at)})" if other else match[0]

    called = r"(?:\blessons? |第)?(?<!\d)(\d\d)(?!\d)课?"
    return re.sub(called, linked, found[1]) if found else say("nothing")


def alt(cells: list[dict[str, Any]], number: int, heading: str) -> str:
    """The figure's caption, before or after its cell; else the titles that its code sets; else the section's."""
    for near in (number + 1, number - 1):
        source = "".join(cells[near]["source"]) if 0 <= near < len(cells) else ""
        if caption := re.search(r"\*?(?:Figure: |图：)(.+?)(?:\*?\n\n|\*?\Z)", source, re.DOTALL):
            return words(caption[1])
    code = "".join(cells[number]["source"])
    titles = re.findall(r"title(?:=|\()\s*f?\"([^\"{}]+)\"", code)
    axes = [f"{axis}: {told}" for axis, told in re.findall(r"([xy])label(?:=|\()\s*f?\"([^\"{}]+)\"", code)]
    told = "; ".join(dict.fromkeys(titles)) or say("of the section “{heading}”", heading=heading)
    return words(say("Figure: {told}. {axes}", told=told, axes=", ".join(dict.fromkeys(axes))))


def _below(code: str, at: str) -> str:
    """Links to the ledger and to tables, below a cell that shows verdicts or a table of a recorded experiment."""
    shown = re.findall(r"lesson\.(?:show|words|folded|verdict|table)\(([^)]*)\)", code)
    names = re.findall(r'"(\w+)"', " ".join(shown))
    claims = " · ".join(verdict(name, at) for name in dict.fromkeys(names) if name in ledger())
    links = " · ".join(
        f"[{name}]({link(f'{TABLES}/{name}.md', at)})"
        for name in dict.fromkeys(names)
        if name in experiments()
    )
    parts = [say("In the ledger: {claims}", claims=claims)] * bool(claims)
    told = " — ".join(parts + [say("Full tables: {links}", links=links)] * bool(links))
    if claims and LANGUAGE != "en":  # the printed words of a verdict are English
        told += f"\n\n{say('How to read the words above')}"
    return f":::{{container}} record\n{told}\n:::" if told else ""


def _verified_lesson(one: Any, stored: dict[str, Any]) -> str:
    printed = "".join(
        "".join(output.get("text", "")) for cell in stored["cells"] for output in cell.get("outputs", ())
    )
    day = changed().get(notebook_of(one))
    full = re.search(r"^\d\d · (profile .+)\n(python .+)$", printed, re.MULTILINE)
    short = re.search(
        r"^(profile \w+, seed \d+)", printed, re.MULTILINE
    )  # where the set-up cell prints nothing
    run = f"{full[1]}; {full[2]}" if full else short[1] if short else say("as in the repository")
    told = "Outputs of this page: {run}; stored on {day}" if day else "Outputs of this page: {run}"
    lines = [say(told, run=run, day=day)]
    names = dict.fromkeys(row["experiment"] for claim, row in ledger().items() if lesson_of(claim) == one.id)
    lines += [say("Recorded runs: {told}", told=repeated(name)) for name in names if name in experiments()]
    return verified(lines, [f"notebooks/source/{one.source.name}"])


# --- exercises ------------------------------------------------------------------------------------


def exercise(path: Path) -> str:
    """The boxes of a lesson as students get them: hints and solutions of practice folded, no hidden case."""
    at, one = f"{BOXES}/{path.stem}.md", lessons()[path.name[:2]]
    cells, parts = exercises.teacher_notebook(path).cells, []
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = translated(one.id, cell.source)
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
        folded = f"<details class='checker'><summary>{say('The checker')}</summary>\n\n{block}\n\n</details>"
        parts.append(folded if grading.get("locked") else block)
    back = "Lesson: [{id} {title}]({link}) · {make}."
    back = say(back, id=one.id, title=title_of(one), link=way(notebook_of(one), at), make=MAKE)
    text, back = "\n\n".join(parts), " · ".join([back, *switch(at)])
    text = re.sub(
        r"^(# .+)$",
        lambda m: f"{m[1]}\n\n:::{{container}} glance\n{back}\n:::",
        text,
        count=1,
        flags=re.MULTILINE,
    )
    # a heading of a box is "09.1 …": its points and stars follow
    lines = [
        say(
            "Each checker accepts the solution and rejects the wrong answers of `tests/answers` (`make test`)."
        )
    ]
    return text + verified(lines, [f"{BOXES}/{path.name}"])


def _stub(body: str) -> str:
    return f"{re.match(r' *', body)[0]}{exercises.STUB}\n"  # type: ignore[index]


def exercise_index() -> str:
    """All boxes of all lessons in one table."""
    stars = (
        "Stars are the difficulty. *Practice* has two hints and a solution, folded; *graded* has hidden cases. "
        "A checker below every answer explains the likely mistake. {make}; "
        "[how grading works](../../TEACHING.md#exercises-and-grading)."
    )
    told = site().rewrite(say(stars, make=MAKE), f"{BOXES}/index.md")
    lines = [
        say("# Exercises"),
        "",
        told,
        "",
        say("| exercise | difficulty | minutes | kind |"),
        "|:--|:--|--:|:--|",
    ]
    for path in exercises.sources().values():
        for box in boxes(path):
            points = say("{points} points", points=box.points) if box.graded else ""
            kind = " · ".join(filter(None, (say(box.kind), say(box.flavour), points)))
            stars = "●" * box.difficulty + "○" * (5 - box.difficulty)
            title = translated(path.name[:2], f"## {box.id} {box.title}").removeprefix("## ")
            lines.append(
                f"| [{title}]({path.stem}.md#{_slug(title)}) | {stars} | {box.minutes} | [{kind}]{{.kind}} |"
            )
    return (
        "\n".join(lines)
        + "\n\n"
        + toctree("", [f"{one.id} {title_of(one)} <{one.source.stem}>" for one in lessons().values()])
    )


def title_of(one: Any) -> str:
    """A lesson's title, without its number."""
    return translated(one.id, f"# {one.id} {one.title}").removeprefix(f"# {one.id} ")


def _slug(title: str) -> str:
    """GitHub's anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
