"""Every page of the site as Markdown or as a notebook, from what the repository holds. Nothing here is run."""

from __future__ import annotations

import copy
import fnmatch
import functools
import json
import os
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from book.prose import Links, Mentions, words
from instructlab_repro import notebooks
from instructlab_repro.notebooks import exercises
from instructlab_utils.project import find_root, text_of

TABLES = "data/results/tables"
BOXES = "notebooks/exercises"
GROUPS = {  # the side bar below lessons, exercises and results: a heading, and files or patterns of files
    "Reference": ("docs/glossary.toml", "docs/claims.md", "docs/how-sure.md", "docs/determinism.md", "docs/arena.md",
                  "docs/tasks.md", "data/cards"),
    "Run it, teach it, add to it": ("docs/reproduce.md", "TEACHING.md", "CONTRIBUTING.md", "docs/[a-z]*.md",
                                    "[A-Z]*[A-Z].md"),
}  # fmt: skip
LEFT_OUT = {"README.md", "LEDGER.md", "docs/glossary.md"}  # they stand elsewhere
MAKE = "`make classroom` writes the notebook to work in, and shows which answers pass"


# --- what there is --------------------------------------------------------------------------------


@functools.cache
def root() -> Path:
    """The repository."""
    return find_root()


def text(path: str) -> str:
    """A file of the repository, without the comments around generated blocks."""
    return re.sub(r"<!--.*?-->\n?", "", text_of(root() / path), flags=re.DOTALL)


@functools.cache
def settings() -> tuple[str, str]:
    """Repository ("" where it is not published) and branch, from book.toml or the shell."""
    found = tomllib.loads(text_of(Path(__file__).with_name("book.toml")))
    repository = os.environ.get("BOOK_REPOSITORY", found["repository"]).rstrip("/")
    return repository, os.environ.get("BOOK_BRANCH", found["branch"])


@functools.cache
def ledger() -> dict[str, dict[str, Any]]:
    """Claim → its row: verdict, experiment, lesson."""
    return {row["claim"]: row for row in json.loads(text_of(root() / "data/results/ledger.json"))}


@functools.cache
def drafts() -> set[str]:
    """Claims that the ledger lists without a section of their own."""
    return set(re.findall(r'<a id="[\w-]+"></a>\[(\w+)\]', text_of(root() / "LEDGER.md")))


@functools.cache
def glossary() -> list[dict[str, Any]]:
    """The terms of docs/glossary.toml, by their English word."""
    rows = tomllib.loads(text_of(root() / "docs" / "glossary.toml"))["term"]
    return sorted(rows, key=lambda row: row["en"].lower())


@functools.cache
def experiments() -> dict[str, dict[str, Any]]:
    """Experiment → its file, for those that have a table."""
    found = {
        path.stem: tomllib.loads(text_of(path))
        for path in sorted((root() / "data/experiments").glob("*.toml"))
    }
    return {name: spec for name, spec in found.items() if (root() / TABLES / f"{name}.md").is_file()}


@functools.cache
def changed() -> dict[str, str]:
    """Path → the day of its last commit; nothing outside git or in a shallow clone, where that day would be wrong."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root(), capture_output=True, text=True, check=True).stdout

    found: dict[str, str] = {}
    try:
        if git("rev-parse", "--is-shallow-repository").strip() != "false":
            return {}
        log = git("log", "--name-only", "--format=%x00%cs")
    except (OSError, subprocess.CalledProcessError):
        return {}
    for commit in log.split("\0")[1:]:
        day, *paths = commit.split("\n")
        for path in filter(None, paths):
            found.setdefault(path, day)
    return found


@functools.cache
def site() -> Links:
    """Where each file of the repository stands in the site."""
    places = {
        "README.md": "index.md",
        "docs/glossary.toml": "docs/glossary.md",
        "data/cards": "data/cards/index.md",
    }
    for lesson in lessons().values():
        places[f"notebooks/source/{lesson.source.name}"] = places[_nb(lesson)] = _nb(lesson)
    for path in exercises.sources().values():
        places[f"{BOXES}/{path.name}"] = f"{BOXES}/{path.stem}.md"
    places |= dict.fromkeys((BOXES, "notebooks"), f"{BOXES}/index.md") | {"notebooks": "index.md"}
    places |= dict.fromkeys((TABLES, "data/results"), f"{TABLES}/index.md")
    labels = {f"LEDGER.md#{claim.lower()}": claim.lower() for claim in {*ledger(), *drafts()}}
    for name, spec in experiments().items():
        places[f"{TABLES}/{name}.md"] = f"{TABLES}/{name}.md"
        for table in spec["tables"][1:]:
            places[f"{TABLES}/{name}.{table['metric']}.md"] = f"{TABLES}/{name}.md"
    for name in ("LEDGER.md", *re.findall(r"\]\((\w+\.md)\b", text("README.md"))):
        places[name] = name  # at the root: what the front page leads to
    for pattern in ("docs/*.md", "benchmarks/*.md", "data/cards/*.md"):
        for path in sorted(root().glob(pattern)):
            places.setdefault(path.relative_to(root()).as_posix(), path.relative_to(root()).as_posix())
    places = {page: page for page in places.values()} | places
    repository, branch = settings()
    return Links(places, labels, lambda path: (root() / path).is_file(), repository, branch)


@functools.cache
def boxes(path: Path) -> list[exercises.Exercise]:
    """The exercises of a source."""
    return exercises.load(path)


@functools.cache
def lessons() -> dict[str, Any]:
    """All lessons by their number."""
    return notebooks.lessons()


def _nb(lesson: Any) -> str:
    return f"notebooks/{lesson.source.stem}.ipynb"


def _claim(claim: str) -> str:
    """ "[C1](#c1) supported" """
    return f"[{claim}](#{claim.lower()}) {ledger().get(claim, {}).get('verdict', 'not tested')}"


def _lesson_of(claim: str) -> str:
    return Path(ledger().get(claim, {}).get("lesson") or "").name[:2]


def _to(page: str, at: str) -> str:
    return os.path.relpath(page, os.path.dirname(at) or ".").replace(os.sep, "/")


def verified(lines: list[str], paths: list[str]) -> str:
    """The box at the end of a page."""
    days = [changed()[path] for path in paths if path in changed()]
    lines = [*lines, *([f"This page's text last changed on {max(days)}."] if days else [])]
    told = "\n".join(f"- {line}" for line in lines)
    return (
        f"\n\n:::{{admonition}} What was last verified\n:class: verified\n\n{told}\n:::\n" if lines else "\n"
    )


def repeated(name: str) -> str:
    """What `reproduce --verify` found for an experiment when it was last asked."""
    found = json.loads(text_of(root() / "data/results/verified.json")).get(f"{name}.laptop")
    if found is None:
        return f"`{name}`: recorded; no block has been repeated yet"
    seen = found["environment"]
    where = f"{seen['cpu']}, torch {seen['torch']}, transformers {seen['transformers']}"
    same = "gave the same bits" if found["status"] == "equal" else f"was {found['status']}"
    return f"`{name}`: block `{found['block']}`, repeated on {found['date']}, {same} ({where})"


# --- lessons --------------------------------------------------------------------------------------


def mentions(at: str, page: str) -> Mentions:
    """What a lesson or an exercise page with the text ``page`` links first: other lessons, its claims, terms."""
    rows: list[tuple[str, str, str, str]] = []
    own = Path(at).name[:2]
    for one in lessons().values():
        if one.id != own:
            rows.append((one.id, one.id, rf"[Ll]esson {one.id}\b", f"[{{text}}]({_to(_nb(one), at)})"))
    for claim in sorted({*ledger(), *drafts()}, key=len, reverse=True):
        told = "" if _lesson_of(claim) == own else r"(?:(?<=claim )|(?<=claims )|(?<=\*\*))"
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
    at, stored = _nb(one), json.loads(text_of(one.notebook))
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
    claims = [claim for claim in ledger() if _lesson_of(claim) == one.id]
    tables = dict.fromkeys(e for c in claims if (e := ledger()[c]["experiment"]) in experiments())
    lines = [
        f"**Exercises:** [{len(found)} boxes, {minutes} minutes]({_to(f'{BOXES}/{one.source.stem}.md', at)})"
    ]
    by: dict[str, list[str]] = {"supported": [], "refuted": [], "undecided": [], "not tested": []}
    for claim in claims:
        by[ledger()[claim]["verdict"]].append(f"[{claim}](#{claim.lower()})")
    if claims:
        told = "; ".join(f"*{word}* {', '.join(names)}" for word, names in by.items() if names)
        lines.append(f"**Verdicts, in the [ledger]({_to('LEDGER.md', at)}):** {told}")
    if tables:
        links = ", ".join(f"[{name}]({_to(f'{TABLES}/{name}.md', at)})" for name in tables)
        lines.append(f"**Recorded runs:** {links}")
    told = "\n".join(f"- {line}" for line in lines)
    repository, branch = settings()
    if (
        repository
    ):  # the buttons open the notebook as it is stored, in a machine that has nothing of the course
        first = f"!git clone --depth 1 -b {branch} {repository} course\n%cd course\n%pip install -q -e ."
        how = "The button *Colab* opens this notebook without the course. Put this into a first cell (not tried by us):"
        told += f"\n\n<details><summary>In Colab</summary>\n\n{how}\n\n```\n{first}\n```\n\n</details>"
    return f":::{{container}} glance\n{told}\n:::\n"


def before(one: Any, at: str) -> str:
    """The prerequisites, from the table at the top of a lesson, each lesson a link."""
    found = re.search(r"^# \| before this \| (.+?) \|$", text_of(one.source), re.MULTILINE)

    def link(match: re.Match[str]) -> str:
        other = lessons().get(match[2])
        return f"[{match[0]}]({_to(_nb(other), at)})" if other else match[0]

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
    claims = [_claim(name) for name in dict.fromkeys(names) if name in ledger()]
    links = [
        f"[{name}]({_to(f'{TABLES}/{name}.md', at)})"
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
    lines = []
    day = f"; stored on {changed()[_nb(one)]}" if _nb(one) in changed() else ""
    if run := re.search(r"^\d\d · (profile .+)\n(python .+)$", printed, re.MULTILINE):
        lines.append(f"Outputs of this page: {run[1]}; {run[2]}{day}")
    elif run := re.search(
        r"^(profile \w+, seed \d+)", printed, re.MULTILINE
    ):  # the set-up cell prints nothing
        lines.append(f"Outputs of this page: {run[1]}{day}")
    names = dict.fromkeys(row["experiment"] for claim, row in ledger().items() if _lesson_of(claim) == one.id)
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
    text, back = "\n\n".join(parts), f"Lesson: [{one.id} {one.title}]({_to(_nb(one), at)}) · {MAKE}."
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


# --- results --------------------------------------------------------------------------------------


def ledger_page() -> str:
    """LEDGER.md with a label for each claim, so that any page can link it."""
    found = site().rewrite(text("LEDGER.md"), "LEDGER.md")
    found = re.sub(
        r"^## (\w+)$",
        lambda m: (f"({m[1].lower()})=\n" if m[1] in ledger() else "") + m[0],
        found,
        flags=re.M,
    )
    found = re.sub(r'^- <a id="([\w-]+)"></a>', r"- (\1)=\n  ", found, flags=re.MULTILINE)
    lines = ["The verdicts follow from the recorded runs (`make test` computes them again). The page of each "
             f"[experiment]({TABLES}/index.md) says when a block of it was last repeated."]  # fmt: skip
    return found + verified(lines, ["LEDGER.md"])


def table_page(name: str) -> str:
    """Everything recorded of one experiment: what it compares, verdicts, figures and tables, files."""
    spec, at = experiments()[name], f"{TABLES}/{name}.md"
    claims = [claim for claim in spec["claims"] if claim in ledger()]
    ids = {_lesson_of(claim) for claim in claims} & set(lessons())
    links = [f"[{one.id} {one.title}]({_to(_nb(one), at)})" for one in lessons().values() if one.id in ids]
    files = [(f"data/experiments/{name}.toml", "the grid")]
    parts = [f"# {spec['title']}", ""]
    parts += [f"- Verdicts: {' · '.join(map(_claim, claims))}"] * bool(claims)
    parts += [f"- Lesson: {', '.join(links)}"] * bool(links)
    for number, table in enumerate(spec["tables"]):
        stem = f"{name}.{table['metric']}" if number else name
        body = text(f"{TABLES}/{stem}.md") if (root() / f"{TABLES}/{stem}.md").is_file() else ""
        if not body:
            continue
        files.append((f"{TABLES}/{stem}.csv", f"{table['metric']} as CSV"))
        parts += ["", f"({name}-{table['metric']})=", f"## {table['title']}", ""]
        if (root() / f"figures/{stem}.png").is_file():
            alt = f"Figure: {table['title']}, by method, with 95 % intervals; the numbers are in the table below."
            parts += [site().rewrite(f"![{alt}](../../../figures/{stem}.png)", at), ""]
        parts.append(site().rewrite(re.sub(r"\A\s*\*\*.+?\*\*\n", "", body), f"{TABLES}/{stem}.md", at))
    offered = [f"[{word}]({_to(path, at)})" for path, word in files if (root() / path).is_file()]
    parts.insert(2 + bool(claims) + bool(links), f"- Files: {' · '.join(offered)}")
    for path, _ in files:
        site().files.add(path)
    return "\n".join(parts) + verified([f"Recorded runs: {repeated(name)}"], [f"data/results/{name}.jsonl"])


def table_index() -> str:
    """All experiments."""
    lines = [
        "# Experiments and their tables", "",
        "One line of the record for each run: seed, versions, hardware, and the hash of every claim that it serves. "
        "Verdicts are explained in [the ledger](../../../LEDGER.md) and in [How a claim is made](../../../docs/claims.md).",
        "", "| experiment | compares | verdicts |", "|:--|:--|:--|",
    ]  # fmt: skip
    for name, spec in experiments().items():
        claims = " · ".join(_claim(claim) for claim in spec["claims"] if claim in ledger())
        lines.append(f"| [{name}]({name}.md) | {spec['title']} | {claims} |")
    return "\n".join(lines) + "\n\n" + toctree("", list(experiments()))


# --- front page, glossary, the rest ---------------------------------------------------------------


def index_page() -> str:
    """README with a table of lessons that also holds prerequisites and exercises, and the site's contents."""
    lines = ["| lesson | you will be able to | minutes | before this | exercises |", "|:--|:--|--:|:--|:--|"]
    for one in lessons().values():
        found = boxes(exercises.sources()[one.id])
        link = f"[{len(found)}, {sum(box.minutes for box in found)} min]({BOXES}/{one.source.stem}.md)"
        title = f"[{one.id} {one.title}]({_nb(one)})"
        lines.append(
            f"| {title} | {one.outcome} | {one.minutes['laptop']:g} | {before(one, 'index.md')} | {link} |"
        )
    readme = text_of(root() / "README.md")
    readme = re.sub(r"(<!-- generated:lessons -->\n).*?(?=<!-- /generated)", lambda m: m[1] + "\n".join(lines) + "\n",
                    readme, flags=re.DOTALL)  # fmt: skip
    readme = re.sub(r"<!--.*?-->\n?", "", readme)
    start = ("[Lessons](#lessons) · [Exercises](notebooks/exercises) · [Ledger of claims](LEDGER.md) · "
             f"[Tables]({TABLES}) · [Glossary, English and Chinese](docs/glossary.toml)")  # fmt: skip
    readme = re.sub(
        r"^(# .+)$", lambda m: f"{m[1]}\n\n:::{{container}} glance\n{start}\n:::", readme, count=1, flags=re.M
    )
    found = site().rewrite(readme, "README.md", "index.md")
    trees = [
        toctree("Lessons", [_nb(one)[: -len(".ipynb")] for one in lessons().values()]),
        toctree(
            "Exercises and results", [f"{BOXES}/index", "LEDGER", f"{TABLES}/index", "benchmarks/RESULTS"]
        ),
    ]
    listed: set[str] = set()
    for title, patterns in GROUPS.items():
        names = [
            path
            for pattern in patterns
            for path in sorted(site().pages)
            if fnmatch.fnmatchcase(path, pattern)
        ]
        names = [path for path in dict.fromkeys(names) if path not in listed | LEFT_OUT]
        listed |= set(names)
        trees.append(toctree(title, [os.path.splitext(site().pages[name])[0] for name in names]))
    return found + verified([], ["README.md"]) + "\n" + "\n".join(trees)


def toctree(caption: str, names: list[str]) -> str:
    """A hidden table of contents: it makes the side bar and the order of previous and next."""
    head = f":caption: {caption}\n" if caption else ""
    return f"```{{toctree}}\n:hidden:\n{head}\n" + "\n".join(names) + "\n```\n"


def glossary_page() -> str:
    """The terms, letter by letter: English, Chinese, one or two sentences, the lesson."""
    numbers = lessons()
    told = (
        f"{len(glossary())} terms of the course, in English and in Chinese (中英文术语表). On the pages of lessons and "
        "exercises the first use of a term leads here. To mend or add one: `docs/glossary.toml`."
    )
    parts = ["# Glossary", "", told]
    letter = ""
    for row in glossary():
        first = row["en"][0].upper()
        if first != letter:
            parts += [":::"] * bool(letter) + ["", f"## {first}", "", ":::{glossary}"]
            letter = first
        one = numbers.get(row.get("lesson", ""))
        where = f" [Lesson {one.id}](../{_nb(one)})." if one else ""
        body = " ".join(row["text"].split())
        parts += [row["en"], f"  {row['zh']}", "", f"  {body}{where}", ""]
    return "\n".join([*parts, ":::"]) + verified([], ["docs/glossary.toml"])


def cards_index() -> str:
    """The data cards."""
    rows = [
        "# Data cards",
        "",
        "Where each data set comes from, who labelled it, its licence, its splits, and examples.",
        "",
    ]
    names = sorted(path.stem for path in (root() / "data/cards").glob("*.md"))
    for name in names:
        what = re.search(r"\*\*What it is:\*\* (.+)", text(f"data/cards/{name}.md"))
        rows.append(f"- [{name}]({name}.md)" + (f": {what[1]}" if what else ""))
    return "\n".join(rows) + "\n\n" + toctree("", names)


def plain_page(path: str) -> str:
    """A page of the repository as it is, with its links led to the site."""
    found = site().rewrite(text(path), path)
    return found + verified([], [path])


# --- all of it ------------------------------------------------------------------------------------


def everything(only: list[str]) -> Iterator[tuple[str, Callable[[], str]]]:
    """(path of a page's source, how to write it)."""
    yield "index.md", index_page
    yield "docs/glossary.md", glossary_page
    yield "LEDGER.md", ledger_page
    for one in lessons().values():
        if not only or one.id in only:
            yield _nb(one), functools.partial(lesson, one)
    yield f"{BOXES}/index.md", exercise_index
    for number, path in exercises.sources().items():
        if not only or number in only:
            yield f"{BOXES}/{path.stem}.md", functools.partial(exercise, path)
    yield f"{TABLES}/index.md", table_index
    for name in experiments():
        if not only or {_lesson_of(claim) for claim in experiments()[name]["claims"]} & set(only):
            yield f"{TABLES}/{name}.md", functools.partial(table_page, name)
    if not only:
        yield "data/cards/index.md", cards_index
    for place, page in site().pages.items():
        if place == page and place.endswith(".md") and place not in LEFT_OUT and not place.startswith(TABLES):
            if not (root() / place).is_file():
                continue  # made above
            if not only or not place.startswith("data/cards"):
                yield place, functools.partial(plain_page, place)


def write(folder: Path, only: list[str]) -> int:
    """Write all sources below ``folder``, touch no file that is the same, remove what is gone; the number of pages."""
    kept, number = set(), 0
    for name, make in everything(only):
        kept.add(_write(folder / name, make().encode()))
        number += 1
    for name in sorted(site().files):
        kept.add(_write(folder / name, (root() / name).read_bytes()))
    for path in folder.rglob("*"):
        if path.is_file() and path not in kept:
            path.unlink()
    return number


def _write(path: Path, content: bytes) -> Path:
    if not path.is_file() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return path
