"""Pages in another language: their prose, block by block, from the gettext catalogues below ``locales/``.

A block is what blank lines separate: a paragraph, a list, a table. Code, formulas alone and printed outputs stay as they
are. ``locales/zh_CN/LC_MESSAGES/09.po`` holds the blocks of lesson 09 and of its exercises; any editor of gettext opens it.

python -m book messages           the catalogues follow the sources: what is new is empty, what has changed is fuzzy
"""

from __future__ import annotations

import functools
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po, write_po

from instructlab_repro import notebooks
from instructlab_repro.notebooks import exercises
from instructlab_utils import files
from instructlab_utils.project import find_root, text_of

LANGUAGES = {"zh": "zh_CN"}  # the name of the folder on the site, and gettext's
LANGUAGE = os.environ.get("BOOK_LANGUAGE", "en")  # of the pages that this process writes
FENCE = re.compile(r"^(?:`{3,}|~{3,}|\$\$)")
MATHS = r"\$\$.*?\$\$|(?<![\\$])\$(?!\s)[^$]+?(?<!\s)\$"
KEPT = re.compile(rf"(?P<maths>{MATHS})|(?P<code>(?P<tick>`+)(?!`).+?(?<!`)(?P=tick)(?!`))|(?P<tag><[^<>]+>)"
                  r"|(?<=\]\()(?P<link>[^()\s]+)(?=\))|(?P<address>https?://[^\s)>]+)", re.DOTALL)  # fmt: skip


def blocks(markdown: str) -> list[str]:
    """The text cut at blank lines; a fence or a displayed formula is one piece. "\\n\\n".join gives it back."""
    found: list[str] = []
    closing = ""
    for piece in re.split(r"\n{2,}", markdown.strip("\n")):
        if closing:
            found[-1] += "\n\n" + piece
        else:
            found.append(piece)
        for line in piece.split("\n"):
            mark = FENCE.match(line.strip())
            if closing:
                closing = "" if line.strip().endswith(closing) else closing
            elif mark and not (mark[0] == "$$" and line.strip().count("$$") > 1):
                closing = mark[0]
    return found


def spoken(block: str) -> bool:
    """Whether a block says anything: words outside code, mathematics and tags."""
    return not FENCE.match(block) and bool(re.search(r"[A-Za-z]{2}", KEPT.sub("", block)))


def key(block: str) -> str:
    """What a block is known by: where its lines break does not matter."""
    return " ".join(block.split())


def sources(number: str) -> list[str]:
    """The Markdown of the lesson ``number`` and of its exercises, cell by cell."""
    stored = json.loads(text_of(notebooks.lessons()[number].notebook))["cells"]
    cells = [("".join(cell["source"]), cell["cell_type"]) for cell in stored]
    boxes = exercises.teacher_notebook(exercises.sources()[number]).cells
    cells += [(cell.source, cell.cell_type) for cell in boxes]
    return [source for source, kind in cells if kind == "markdown"]


def messages(number: str) -> Iterator[str]:
    """The blocks of a lesson and its exercises that are to be translated, each once."""
    every = (block for source in sources(number) for block in blocks(source) if spoken(block))
    yield from {key(block): block for block in every}.values()


def path_of(language: str, name: str) -> Path:
    """The catalogue of a lesson's number, or of ``site``."""
    return find_root() / "locales" / LANGUAGES[language] / "LC_MESSAGES" / f"{name}.po"


def catalogue(language: str, name: str) -> Catalog:
    """What is stored; an empty one where nothing is."""
    path = path_of(language, name)
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return read_po(io.StringIO(text), locale=LANGUAGES[language])


@functools.cache
def words_of(language: str, name: str) -> dict[str, str]:
    """Block → its translation; fuzzy and empty ones are left out. Nothing for English."""
    if language == "en":
        return {}
    return {
        key(str(m.id)): str(m.string) for m in catalogue(language, name) if m.id and m.string and not m.fuzzy
    }


def translate(markdown: str, words: dict[str, str]) -> str:
    """The text with each block that has a translation in its place."""
    return "\n\n".join(words.get(key(block), block) for block in blocks(markdown)) if words else markdown


def translated(number: str, markdown: str) -> str:
    """The text of a lesson or its exercises in LANGUAGE; a block without a valid translation stays English."""
    return translate(markdown, words_of(LANGUAGE, number))


def say(template: str, **fields: object) -> str:
    """The site's own words in LANGUAGE: ``template`` with its fields in braces, filled."""
    return words_of(LANGUAGE, "site").get(key(template), template).format(**fields)


def store(found: Catalog, language: str, name: str) -> None:
    """Written as gettext writes it, without dates, so that nothing but words changes."""
    out = io.BytesIO()
    write_po(out, found, width=0, omit_header=True, ignore_obsolete=True, no_location=True)
    path = path_of(language, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    head = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=utf-8\\n"\n\n'
    path.write_bytes(head.encode() + out.getvalue())


def write_notebooks(language: str) -> Path:
    """The lessons with their stored outputs and translated prose, to open and to run: below build/, whose path it returns."""
    folder = find_root() / "build" / language / "notebooks"
    for number, one in notebooks.lessons().items():
        stored, words = json.loads(text_of(one.notebook)), words_of(language, number)
        for cell in stored["cells"]:
            if cell["cell_type"] == "markdown":
                told = translate("".join(cell["source"]), words)
                cell["source"] = re.sub(r"\]\((?=\.\./)", "](../../", told)  # two folders further down
        files.write_text(folder / one.notebook.name, json.dumps(stored, ensure_ascii=False, indent=1) + "\n")
    return folder


def names() -> list[str]:
    """The catalogues: a lesson's number each, and the site's own words."""
    return [*notebooks.lessons(), "site"]


def update(language: str, name: str) -> tuple[int, int]:
    """The catalogue follows the sources: what has changed is fuzzy, what is gone goes. (Messages, those without a valid
    translation.) The site's own words stay as they are: their sources are calls of :func:`say`."""
    old = catalogue(language, name)
    if name != "site":
        now = list(messages(name))
        valid = {key(str(m.id)): m for m in old if m.id}
        template = Catalog(locale=LANGUAGES[language])
        for block in now:
            template.add(block)
        old.update(template)  # near ones become fuzzy
        new = Catalog(locale=LANGUAGES[language])
        for block in now:
            found = valid.get(key(block)) or old[block]
            new.add(block, found.string, flags=found.flags)
        store(old := new, language, name)
    every = [m for m in old if m.id]
    return len(every), sum(1 for m in every if not m.string or m.fuzzy)


def kept_apart(block: str) -> dict[str, Counter[str]]:
    """What a translation must hold unchanged: formulas, code, tags, targets of links, and numbers of the prose."""
    found: dict[str, Counter[str]] = {name: Counter() for name in ("maths", "code", "tag", "link", "address")}
    for match in KEPT.finditer(block):
        for name in found:
            if match[name]:
                found[name][match[name] if name == "code" else key(match[name])] += 1
    rest = KEPT.sub(" ", block)
    return found | {"number": Counter(re.findall(r"\d+(?:[.,]\d+)*", rest))}


def wrong(block: str, translated: str) -> list[str]:
    """What a translation lost or made up, in words; [] where it is faithful in all that a machine can see."""
    found, now = kept_apart(block), kept_apart(translated)
    return [
        f"{name}: {dict(found[name] - now[name])} missing, {dict(now[name] - found[name])} new"
        for name in found
        if found[name] != now[name]
    ]
