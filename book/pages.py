"""Ledger, tables, front page, glossary; and all sources of the site, written. Nothing here is run."""

from __future__ import annotations

import fnmatch
import functools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from book.facts import (
    BOTH,
    BOXES,
    TABLES,
    boxes,
    experiments,
    glossary,
    ledger,
    lesson_of,
    lessons,
    notebook_of,
    repeated,
    root,
    site,
    switch,
    text,
    toctree,
    verdict,
    verified,
    way,
)
from book.study import before, exercise, exercise_index, lesson, title_of
from book.translate import LANGUAGE, say
from instructlab_repro.notebooks import exercises
from instructlab_utils.project import text_of

GROUPS = {  # the side bar below lessons, exercises and results: a heading, and files or patterns of files
    "Reference": ("docs/glossary.toml", "docs/claims.md", "docs/how-sure.md", "docs/determinism.md", "docs/arena.md",
                  "docs/tasks.md", "data/cards"),
    "Run it, teach it, add to it": ("docs/reproduce.md", "TEACHING.md", "CONTRIBUTING.md", "docs/[a-z]*.md",
                                    "[A-Z]*[A-Z].md"),
}  # fmt: skip
LEFT_OUT = {"README.md", "LEDGER.md", "docs/glossary.md"}  # they stand elsewhere


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
    if BOTH:  # a reader who came from a Chinese page finds the way back
        found = re.sub(
            r"(\[lesson\]\(notebooks/(\w+)\.ipynb\))", r"\1 [中文](beside:zh/notebooks/\2.html)", found
        )
    lines = ["The verdicts follow from the recorded runs (`make test` computes them again). The page of each "
             f"[experiment]({TABLES}/index.md) says when a block of it was last repeated."]  # fmt: skip
    return found + verified(lines, ["LEDGER.md"])


def table_page(name: str) -> str:
    """Everything recorded of one experiment: what it compares, verdicts, figures and tables, files."""
    spec, at = experiments()[name], f"{TABLES}/{name}.md"
    claims = [claim for claim in spec["claims"] if claim in ledger()]
    ids = {lesson_of(claim) for claim in claims} & set(lessons())
    links = [
        f"[{one.id} {one.title}]({way(notebook_of(one), at)})" for one in lessons().values() if one.id in ids
    ]
    files = [(f"data/experiments/{name}.toml", "the grid")]
    parts = [f"# {spec['title']}", ""]
    parts += [f"- Verdicts: {' · '.join(verdict(claim, at) for claim in claims)}"] * bool(claims)
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
    offered = [f"[{word}]({way(path, at)})" for path, word in files if (root() / path).is_file()]
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
        claims = " · ".join(verdict(c, f"{TABLES}/index.md") for c in spec["claims"] if c in ledger())
        lines.append(f"| [{name}]({name}.md) | {spec['title']} | {claims} |")
    return "\n".join(lines) + "\n\n" + toctree("", list(experiments()))


# --- front page, glossary, the rest ---------------------------------------------------------------


def index_page() -> str:
    """README with a table of lessons that also holds prerequisites and exercises, and the site's contents."""
    lines = [
        say("| lesson | you will be able to | minutes | before this | exercises |"),
        "|:--|:--|--:|:--|:--|",
    ]
    for one in lessons().values():
        own = boxes(exercises.sources()[one.id])
        told = say("{boxes}, {minutes} min", boxes=len(own), minutes=sum(box.minutes for box in own))
        row = [
            f"[{one.id} {title_of(one)}]({notebook_of(one)})", say(one.outcome), f"{one.minutes['laptop']:g}",
            before(one, "index.md"), f"[{told}]({BOXES}/{one.source.stem}.md)",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(row)} |")
    name = "README.md" if LANGUAGE == "en" else f"README.{LANGUAGE}.md"
    readme = text_of(root() / name)
    readme = re.sub(r"(<!-- generated:lessons(?:-zh)? -->\n).*?(?=<!-- /generated)", lambda m: m[1] + "\n".join(lines) + "\n",
                    readme, flags=re.DOTALL)  # fmt: skip
    readme = re.sub(r"<!-- github -->.*?<!-- /github -->", "", readme, flags=re.DOTALL)
    readme = re.sub(r"<!--.*?-->\n?", "", readme)
    start = say(
        "[Lessons](#lessons) · [Exercises](notebooks/exercises) · [Ledger of claims](LEDGER.md) · "
        "[Tables]({tables}) · [Glossary, English and Chinese](docs/glossary.toml)",
        tables=TABLES,
    )
    readme = re.sub(
        r"^(# .+)$", lambda m: f"{m[1]}\n\n:::{{container}} glance\n{start}\n:::", readme, count=1, flags=re.M
    )
    found = site().rewrite(readme, name, "index.md")
    rest = [f"{BOXES}/index", "LEDGER", f"{TABLES}/index", "benchmarks/RESULTS"]
    trees = [
        toctree(say("Lessons"), [notebook_of(one)[: -len(".ipynb")] for one in lessons().values()]),
        toctree(say("Exercises and results"), rest if LANGUAGE == "en" else rest[:1]),
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
        trees.append(toctree(say(title), [os.path.splitext(site().pages[name])[0] for name in names]))
    return found + verified([], [name]) + "\n" + "\n".join(trees)


PINYIN = dict(zip("ABCDEFGHJKLMNOPQRSTWXYZ", (
    0xB0A1, 0xB0C5, 0xB2C1, 0xB4EE, 0xB6EA, 0xB7A2, 0xB8C1, 0xB9FE, 0xBBF7, 0xBFA6, 0xC0AC, 0xC2E8, 0xC4C3, 0xC5B6,
    0xC5BE, 0xC6DA, 0xC8BB, 0xC8F6, 0xCBFA, 0xCDDA, 0xCEF4, 0xD1B9, 0xD4D1), strict=True))  # fmt: skip


def _letter(name: str) -> str:
    """The heading of a Chinese term: GB 2312 has its common characters in the order of their sounds, rare ones behind."""
    code = int.from_bytes(name[0].encode("gb2312", "replace"), "big")
    if code < 0xB0A1 or code > 0xD7FA:
        return name[0].upper() if name[0].isascii() else "…"
    return max(letter for letter, first in PINYIN.items() if first <= code)


def _named(row: dict[str, Any]) -> list[str]:
    """The words under which the glossary holds a term: in Chinese its name there first."""
    return (
        [row["en"]] if LANGUAGE == "en" else list(dict.fromkeys([re.sub(r"（.*", "", row["zh"]), row["en"]]))
    )


def glossary_page() -> str:
    """The terms, letter by letter: their names, one or two sentences, the lesson."""
    numbers = lessons()
    told = (
        "{terms} terms of the course, in English and in Chinese (中英文术语表). On the pages of lessons and "
        "exercises the first use of a term leads here. To mend or add one: `docs/glossary.toml`."
    )
    glance = [":::{container} glance", *switch("docs/glossary.md"), ":::", ""] * bool(
        switch("docs/glossary.md")
    )
    parts = [say("# Glossary"), "", *glance, say(told, terms=len(glossary()))]
    rows, letter, taken = glossary(), "", set[str]()
    if LANGUAGE != "en":
        rows = sorted(rows, key=lambda row: (_letter(row["zh"]), row["zh"].encode("gb2312", "replace")))
    for row in rows:
        first = row["en"][0].upper() if LANGUAGE == "en" else _letter(row["zh"])
        if first != letter:
            parts += [":::"] * bool(letter) + ["", f"## {first}", "", ":::{glossary}"]
            letter = first
        one = numbers.get(row.get("lesson", ""))
        where = say(" [Lesson {id}]({link}).", id=one.id, link=f"../{notebook_of(one)}") if one else ""
        body = " ".join(row["text" if LANGUAGE == "en" else "text_zh"].split())
        names = [name for name in _named(row) if name.lower() not in taken]
        taken |= {name.lower() for name in names}
        more = row["zh"] if LANGUAGE == "en" else "".join(re.findall("（(.+)）", row["zh"]))
        parts += [*names, *([f"  {more}", ""] if more else []), f"  {body}{where}", ""]
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
    for one in lessons().values():
        if not only or one.id in only:
            yield notebook_of(one), functools.partial(lesson, one)
    yield f"{BOXES}/index.md", exercise_index
    for number, path in exercises.sources().items():
        if not only or number in only:
            yield f"{BOXES}/{path.stem}.md", functools.partial(exercise, path)
    if LANGUAGE != "en":
        return  # the rest stands in the English site
    yield "LEDGER.md", ledger_page
    yield f"{TABLES}/index.md", table_index
    for name in experiments():
        if not only or {lesson_of(claim) for claim in experiments()[name]["claims"]} & set(only):
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
    if LANGUAGE == "zh":  # the terms are words, whatever the dictionary of the search knows
        _write(
            root() / "build" / "book" / "words.txt",
            "\n".join(part for row in glossary() for part in re.split("[（）]", row["zh"]) if part).encode(),
        )
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
