"""Slides of the lessons, by nbconvert and reveal.js, from the stored outputs: build/book/slides/NN.html. Nothing is run.

python -m book.slides             all lessons
python -m book.slides 09 17       these
python -m book.slides --plain     without the speaker's notes, which come from teaching/NN.md: for students

A rule picks: promise and aims, how each section begins, each **Predict** with what was printed or drawn below it, the
other figures, and the lists at the end. A cell's tag stands above the rule: ``slide`` shows the whole cell (of code:
source and output) on slides of its own, to the right of the others, ``subslide`` below the last one, ``notes`` puts it into
the speaker's notes, ``skip`` leaves it out.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from book import study
from book.facts import lessons, notebook_of, root
from book.prose import LINK
from instructlab_utils.errors import NotebookError
from instructlab_utils.project import text_of

MOST, LINES, WIDTH = 30, 13, 84  # slides of a lesson; lines of a slide, and characters of a line
PRINTED, BESIDE, COLUMNS = 12, 4, 130  # lines of printed text, alone and beside a figure, and characters
ROWS, CHARACTERS = 15, 100  # of a table
TAGS = ("slide", "subslide", "notes", "skip")
HEADING = re.compile(r"(#{1,3}) (.+)")
PREDICT = re.compile(r"(?:> )?\*\*Predict\b")
CLOSING = re.compile(r"\*\*((?:What should I set|Recall|What we (?:have|did) not show)[^*]*?)[.:]?\*\*\s*")
ANNOUNCES = (":", ",")  # the end of a paragraph that a list or a formula follows
CUT = {  # the marks between the parts of a block, and what goes before them on each slide
    "list": re.compile(r"\n(?=[-*] |\d+\. )"),
    "table": re.compile(r"\n"),
    "text": re.compile(r"(?<=[.!?]) (?=[A-Z*])|(?<=[.!?])\n(?=[A-Z*])"),
}


@dataclass
class Slide:
    """``rank``: where a lesson has too many slides, those with the largest rank go first; those with 0 stay."""

    kind: str  # "slide", to the right of the others, or "subslide", below the last one
    rank: int
    text: str = ""
    code: str = ""
    outputs: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    closing: bool = False

    @property
    def room(self) -> float:
        """The lines that are left."""
        return LINES - sum(lines(block) for block in blocks(self.text)[1:])

    @property
    def empty(self) -> bool:
        """A title, and nothing below it?"""
        return not (self.code or self.outputs or "\n" in self.text)

    def close(self) -> None:
        """Without a last line that announces what no longer fitted; of an answer, what shows most."""
        while (parts := self.text.rpartition("\n\n"))[2].endswith(ANNOUNCES) and parts[0]:
            self.text = parts[0]
        figures = [output for output in self.outputs if drawn(output)]
        tables = [output for output in self.outputs if "text/html" in output.get("data", {})]
        best = figures or tables[:1]
        text = "".join(output["text"] for output in self.outputs if output["output_type"] == "stream")
        if text and (not best or text.count("\n") <= BESIDE):
            best.insert(0, {"output_type": "stream", "name": "stdout", "text": clipped(text, PRINTED)})
        self.outputs = best


def drawn(output: dict[str, Any]) -> bool:
    return "image/png" in output.get("data", {})


# --- what stands on a slide ----------------------------------------------------------------------------


def blocks(source: str) -> list[str]:
    """The paragraphs, lists, tables, formulas and headings of a Markdown text; folded answers are left out."""
    source = re.sub(r"<details>.*?</details>|<!--.*?-->", "", source, flags=re.DOTALL)
    source = re.sub(r"(?<=[.!?:)*]) *\n?(?<=\s)(?=\*\*Predict\b)", "\n\n", source)  # also in mid-paragraph
    source = LINK.sub(lambda m: m[0] if m["target"].startswith("http") else m["text"], source)
    parts = re.split(r"\n\s*\n|\n(?=\$\$ )|(?<= \$\$)\n", re.sub(r"^(#+ .+)$", r"\1\n", source, flags=re.M))
    return [part.strip("\n") for part in parts if part.strip()]


def lines(block: str) -> float:
    """About how many lines of a slide a block takes."""
    if block.startswith("$$"):
        return 2.4 + 1.4 * block.count("\\\\")
    if block.startswith("|"):
        return 1.2 * sum(1 + (len(row) > 1.3 * WIDTH) for row in block.split("\n")[2:]) + 1.2
    return 0.5 + sum(-(-len(" ".join(part.split())) // WIDTH) for part in CUT["list"].split(block))


def pieces(block: str, room: float = LINES) -> list[str]:
    """A block cut at sentences, items or rows, so that each piece fits into ``room`` lines."""
    kind = "table" if block.startswith("|") else "list" if re.match(r"[-*] |\d+\. ", block) else "text"
    if lines(block) <= room or block.startswith(("$$", "```")):
        return [block]
    parts = CUT[kind].split(block)
    head = "\n".join(parts[:2]) + "\n" if kind == "table" else ""
    between, found = " " if kind == "text" else "\n", [head]
    for part in parts[2:] if head else parts:
        longer = found[-1] + between + part if found[-1] not in ("", head) else head + part
        if found[-1] not in ("", head) and lines(longer) > room:
            found.append(head + part)
        else:
            found[-1] = longer
    return found


def packed(found: list[str], title: str, room: float = LINES) -> list[str]:
    """Blocks on as few slides as hold them, in order, each under the title; what announces stays with what follows."""
    slides: list[list[str]] = [[]]
    for block in itertools.chain.from_iterable(pieces(one, room) for one in found):
        if slides[-1] and sum(map(lines, [*slides[-1], block])) > room:
            announced = len(slides[-1]) > 1 and slides[-1][-1].endswith(ANNOUNCES)
            slides.append([slides[-1].pop()] if announced else [])
        slides[-1].append(block)
    return ["\n\n".join([f"### {title}", *slide]) for slide in slides]


def shown(cells: list[dict[str, Any]], number: int, title: str) -> list[dict[str, Any]]:
    """The outputs of a cell that have a place on a slide: printed text cut to what fits, figures, short tables."""
    found: list[dict[str, Any]] = []
    for output in cells[number].get("outputs", ()):
        data = output.get("data", {})
        if "image/png" in data:
            picture = {"image/png": data["image/png"]}
            alt = study.alt(cells, number, title)
            found.append({"output_type": "display_data", "data": picture, "metadata": {"alt": alt}})
        elif "text/html" in data:
            table = re.search(r"<table.*?</table>", "".join(data["text/html"]), re.DOTALL)
            if table and _short(table[0]):
                text = re.sub(r"</?a\b[^>]*>", "", table[0])
                found.append({"output_type": "display_data", "data": {"text/html": text}, "metadata": {}})
        elif output["output_type"] == "stream" and output["name"] == "stdout":
            found.append({"output_type": "stream", "name": "stdout", "text": "".join(output["text"])})
    return found


def _short(table: str) -> bool:
    """Has an HTML table few and short rows?"""
    rows = [re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL) for row in table.split("</tr>")]
    height = sum(1 + any("<br" in cell for cell in row) for row in rows)
    plain = [[len(re.sub(r"<br.*|<[^>]*>", "", cell, flags=re.DOTALL)) for cell in row] for row in rows]
    width = sum(max(column) for column in itertools.zip_longest(*plain, fillvalue=0))
    return height <= ROWS and width <= CHARACTERS


def clipped(text: str, room: int) -> str:
    """Printed text of at most so many lines; an ellipsis says that there was more."""
    kept: list[str] = []
    for line in text.rstrip("\n").split("\n"):
        room -= max(1, -(-len(line) // COLUMNS))
        if room < 0:
            return "\n".join([*kept, "…"])
        kept.append(line)
    return "\n".join(kept)


# --- which slides a lesson has -------------------------------------------------------------------------


def spoken(page: str) -> dict[str, list[str]]:
    """Section → what a teacher's page says of each of its predictions, in order; "" → its first paragraphs."""
    found = {"": ["\n\n".join(blocks(page.partition("\n## ")[0])[1:])]}
    predictions = re.search(r"^## Predictions\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    for part in re.split(r"^### ", predictions[1], flags=re.M)[1:] if predictions else ():
        title, _, body = part.partition("\n")
        found[title.strip()] = re.findall(r"^- (\*They say.+?)(?=\n- |\n\n|\Z)", body, re.M | re.S)
    return found


def deck(cells: list[dict[str, Any]], page: str = "") -> list[Slide]:
    """The slides of a lesson, at most 30. NotebookError where its tags ask for more."""
    said = spoken(page) if page else {}
    found = _first(cells[0], said.get("", []))
    title, opening, question = (
        "",
        None,
        None,
    )  # the section, its slide while it may grow, a Predict without its answer
    for number, cell in enumerate(cells[1:], 1):
        source, tags = "".join(cell["source"]), cell["metadata"].get("tags", ())
        tag = next((tag for tag in TAGS if tag in tags), "")
        if cell["cell_type"] == "code" and tag != "skip":
            outputs = shown(cells, number, title)
            figures = [output for output in outputs if drawn(output)]
            if tag in ("slide", "subslide"):
                found.append(Slide(tag, 0, f"### {title}", source.rstrip("\n"), outputs))
                figures = []
            elif question:
                figures = figures if any(map(drawn, question.outputs)) else figures[1:]
                question.outputs += [output for output in outputs if output not in figures]
                question.rank = min(question.rank, 1 if any(map(drawn, question.outputs)) else 2)
            elif opening and "What we" in title:
                opening.outputs += outputs
                figures = []
            found += [Slide("subslide", 2, f"### {title}", outputs=[figure]) for figure in figures]
            opening = None
            question = None if tag else question
            continue
        question = None
        if tag == "notes":
            found[-1].notes.append(source)
        elif tag in ("slide", "subslide"):
            parts: list[tuple[str, list[str]]] = [(title, [])]
            for block in blocks(source):
                if heading := HEADING.fullmatch(block):
                    title = heading[2]
                    parts.append((title, []))
                else:
                    parts[-1][1].append(block)
            texts = [text for name, part in parts if part for text in packed(part, name)]
            found += [Slide(tag if text is texts[0] else "subslide", 0, text) for text in texts]
        if tag:
            opening = None
            continue
        for block in blocks(source):
            closing = CLOSING.match(block)
            if heading := HEADING.fullmatch(block):
                title, high = heading[2], heading[1] == "##"
                opening = Slide("slide" if high else "subslide", 0 if high else 3, f"### {title}")
                found.append(opening)
            elif PREDICT.match(block):
                if opening is None or opening.room < LINES / 2:
                    found.append(Slide("subslide", 2, f"### {title}"))
                    opening = found[-1]
                opening.text += f"\n\n{block}"
                opening.notes += said.get(title, [])[:1]
                said[title] = said.get(title, [])[1:]
                question, opening = opening, None
            elif closing:
                rank = 1 if closing[1].startswith(("Recall", "What should")) else 3
                opening = Slide("subslide", rank, f"### {closing[1]}", closing=True)
                found.append(opening)
                opening.text += f"\n\n{block[closing.end() :]}".rstrip()
            elif block.startswith("**Observe") and found[-1].outputs:
                found[-1].notes.append(block)
                opening = None
            elif block.startswith(("**References", "**Exercises")) or opening is None:
                opening = None
            elif opening.closing:  # a list or a table that is wanted whole
                texts = packed(blocks(f"{opening.text}\n\n{block}")[1:], opening.text.split("\n")[0][4:])
                opening.text = texts[0]
                found += [Slide("subslide", opening.rank, text) for text in texts[1:]]
                opening = None if block[0] in "|-1" else opening
            else:
                piece = block if "\n" in opening.text else pieces(block)[0]
                opening.text += f"\n\n{piece}" if lines(piece) <= opening.room else ""
                opening = opening if piece == block and opening.text.endswith(piece) else None
    return _few(found)


def _first(cell: dict[str, Any], notes: list[str]) -> list[Slide]:
    """Title with promise, aims, letters: from the first cell."""
    found = blocks("".join(cell["source"]))
    promise = next((block for block in found[1:] if not block.startswith("|")), "")
    slides = [Slide("slide", 0, f"{found[0]}\n\n{pieces(promise, LINES - 3)[0]}", notes=notes)]
    for begin, rank in (("**You will", 0), ("**Letters", 4)):
        for at, block in enumerate(found[:-1]):
            if block.startswith(begin):
                texts = packed([found[at + 1]], block.strip("*"), LINES + 2)
                slides += [Slide("subslide", rank, text) for text in texts]
    return slides


def _few(found: list[Slide]) -> list[Slide]:
    """Without titles that have nothing below them, and without what goes first where there are too many."""
    begins = False
    for slide in found:
        slide.close()
        slide.kind = "slide" if begins else slide.kind
        begins = slide.empty and slide.kind == "slide"
    found = [slide for slide in found if not slide.empty]
    while len(found) > MOST:
        begin = [sum(slide.kind == "slide" for slide in found[: at + 1]) for at in range(len(found))]
        at = max(range(len(found)), key=lambda at: (found[at].rank, begin.count(begin[at]), at))
        if not found[at].rank:
            raise NotebookError(
                f"{len(found)} slides are certain, at most {MOST} may be: tag fewer cells `slide`"
            )
        if found[at].kind == "slide" and at + 1 < len(found):
            found[at + 1].kind = "slide"
        del found[at]
    return found


def notebook(slides: list[Slide], plain: bool = False) -> dict[str, Any]:
    """What nbconvert takes: one Markdown cell a slide, the answer to a prediction as a fragment, notes."""
    cells: list[dict[str, Any]] = []

    def add(kind: str, cell: str, source: str, **more: Any) -> None:
        about = {"slideshow": {"slide_type": kind}, **more.pop("metadata", {})}
        cells.append({"cell_type": cell, "id": f"s{len(cells)}", "source": source, "metadata": about, **more})

    for slide in slides:
        add(slide.kind, "markdown", slide.text)
        if slide.notes and not plain:  # before the fragment, else they would belong to the answer
            add("notes", "markdown", "\n\n".join(slide.notes))
        if slide.code or slide.outputs:
            kind = "fragment" if PREDICT.search(slide.text) else "-"
            about = {"metadata": {"transient": {"remove_source": not slide.code}}}
            add(kind, "code", slide.code, outputs=slide.outputs, execution_count=None, **about)
    about = {"language_info": {"name": "python", "pygments_lexer": "python3"}}
    return {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}


# --- rendering -----------------------------------------------------------------------------------------


def reveal(target: Path) -> None:
    """reveal.js as the package of pip's brings it: its core and the speaker's window."""
    for file in importlib.metadata.files("sphinx-revealjs") or ():
        _, found, name = str(file).replace("\\", "/").partition("_static/revealjs/")
        if found and name in (
            "LICENSE",
            "dist/reset.css",
            "dist/reveal.css",
            "dist/reveal.js",
            "plugin/notes/notes.js",
        ):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), target / name)


def render(slides: list[Slide], title: str, plain: bool = False) -> str:
    """A deck as one page, beside the folders reveal/ and mathjax/."""
    import nbformat
    from nbconvert.exporters import SlidesExporter
    from pygments.formatters import HtmlFormatter

    exporter = SlidesExporter(
        extra_template_basedirs=[str(Path(__file__).parent)], template_name="reveal_offline"
    )
    exporter.exclude_anchor_links = exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    found = notebook(slides, plain)
    found["metadata"]["title"] = title
    style = HtmlFormatter(style="a11y-high-contrast-light").get_style_defs(".highlight")
    text, _ = exporter.from_notebook_node(nbformat.from_dict(found), {"book": {"style": style}})
    return text


def main(words: list[str]) -> int:
    """The exit status."""
    from book.__main__ import mathjax

    plain, names = "--plain" in words, [word for word in words if word != "--plain"]
    if unknown := [name for name in names if name not in lessons()]:
        print(f"error: no lesson {unknown[0]}; there are {', '.join(lessons())}", file=sys.stderr)
        return 2
    target = root() / "build" / "book" / "slides"
    if not names:
        shutil.rmtree(target, ignore_errors=True)
    try:
        mathjax(target / "mathjax")
        reveal(target / "reveal")
    except importlib.metadata.PackageNotFoundError as error:
        print(f"error: {error}; `make slides` installs book/requirements.lock", file=sys.stderr)
        return 2
    for one in (lessons()[name] for name in names or lessons()):
        page = root() / "teaching" / f"{one.id}.md"
        cells = json.loads(text_of(root() / notebook_of(one)))["cells"]
        try:
            slides = deck(cells, text_of(page) if page.is_file() else "")
        except NotebookError as error:
            print(f"error: {one.source.name}: {error}", file=sys.stderr)
            return 1
        (target / f"{one.id}.html").write_text(
            render(slides, f"{one.id} {one.title}", plain), encoding="utf-8"
        )
        print(f"{one.id}  {len(slides):2} slides  {one.title}")
    print((target / f"{one.id}.html").as_uri())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
