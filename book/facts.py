"""What the repository holds, and where each file of it stands in the site."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

from book.prose import Links
from book.translate import LANGUAGE, say
from instructlab_repro import notebooks
from instructlab_repro.notebooks import exercises
from instructlab_utils.project import find_root, text_of

TABLES = "data/results/tables"
BOXES = "notebooks/exercises"
# Both languages are made, and their pages lead to each other.
BOTH = os.environ.get("BOOK_LANGUAGES") == "all"
# Beside lessons and exercises, what a site in another language has itself.
OWN = ("index.md", "docs/glossary.md")
MAKE = say("`make classroom` writes the notebook to work in, and shows which answers pass")


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
        ("README.md" if LANGUAGE == "en" else f"README.{LANGUAGE}.md"): "index.md",
        "docs/glossary.toml": "docs/glossary.md",
        "data/cards": "data/cards/index.md",
    }
    for lesson in lessons().values():
        places[f"notebooks/source/{lesson.source.name}"] = places[notebook_of(lesson)] = notebook_of(lesson)
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
    elsewhere = {"README.zh.md": "zh/index.html"} if BOTH else {}
    if LANGUAGE != "en":  # lessons, exercises, glossary and front page; the rest stands in the English site
        own = {path for path, page in places.items() if page.startswith("notebooks/") or page in OWN}
        elsewhere = {path: f"{os.path.splitext(places[path])[0]}.html" for path in places.keys() - own}
        elsewhere["README.md"] = "index.html"
        places = {path: places[path] for path in own}
    home = "" if LANGUAGE == "en" else LANGUAGE
    repository, branch = settings()
    return Links(places, labels, lambda path: (root() / path).is_file(), elsewhere, home, repository, branch)


@functools.cache
def boxes(path: Path) -> list[exercises.Exercise]:
    """The exercises of a source."""
    return exercises.load(path)


@functools.cache
def lessons() -> dict[str, Any]:
    """All lessons by their number."""
    return notebooks.lessons()


def notebook_of(lesson: Any) -> str:
    return f"notebooks/{lesson.source.stem}.ipynb"


def link(page: str, at: str) -> str:
    """Where the page ``at`` finds ``page``, a path of the repository with or without an anchor."""
    return site().place(way(page, at), at, at) or page


def switch(at: str) -> list[str]:
    """The same page in the other language, as a list of at most one link."""
    other, name = ("zh/", "中文") if LANGUAGE == "en" else ("", "English")
    return [f"[{name}]({site().beside(f'{other}{os.path.splitext(at)[0]}.html', at)})"] if BOTH else []


def claim_link(claim: str, at: str) -> str:
    """ "[C1](#c1)" """
    return f"[{claim}]({link(f'LEDGER.md#{claim.lower()}', at)})"


def verdict(claim: str, at: str) -> str:
    """ "[C1](#c1) supported" """
    return f"{claim_link(claim, at)} {say(ledger().get(claim, {}).get('verdict', 'not tested'))}"


def lesson_of(claim: str) -> str:
    return Path(ledger().get(claim, {}).get("lesson") or "").name[:2]


def way(page: str, at: str) -> str:
    return os.path.relpath(page, os.path.dirname(at) or ".").replace(os.sep, "/")


def verified(lines: list[str], paths: list[str]) -> str:
    """The box at the end of a page."""
    days = [changed()[path] for path in paths if path in changed()]
    lines = [*lines, *([say("This page's text last changed on {day}.", day=max(days))] if days else [])]
    told = "\n".join(f"- {line}" for line in lines)
    return (
        f"\n\n:::{{admonition}} {say('What was last verified')}\n:class: verified\n\n{told}\n:::\n"
        if lines
        else "\n"
    )


def repeated(name: str) -> str:
    """What `reproduce --verify` found for an experiment when it was last asked."""
    found = json.loads(text_of(root() / "data/results/verified.json")).get(f"{name}.laptop")
    if found is None:
        return say("`{name}`: recorded; no block has been repeated yet", name=name)
    seen = found["environment"]
    where = f"{seen['cpu']}, torch {seen['torch']}, transformers {seen['transformers']}"
    same = "`{name}`: block `{block}`, repeated on {date}, gave the same bits ({where})"
    other = "`{name}`: block `{block}`, repeated on {date}, was {status} ({where})"
    return say(
        same if found["status"] == "equal" else other,
        where=where,
        name=name,
        **{**found, "status": say(found["status"])},
    )


def toctree(caption: str, names: list[str]) -> str:
    """A hidden table of contents: it makes the side bar and the order of previous and next."""
    head = f":caption: {caption}\n" if caption else ""
    return f"```{{toctree}}\n:hidden:\n{head}\n" + "\n".join(names) + "\n```\n"
