"""Write the sources of the site, then let Sphinx render them into build/book/html. Every warning is an error.

python -m book            all pages in English, then in Chinese (html/zh); where nothing has changed, it says so
python -m book 09 17      these lessons with their exercises, into build/book/part, for a look while you write
python -m book messages   the catalogues of translations follow the sources: what is new is empty, what changed is fuzzy
python -m book notebooks  the lessons with Chinese prose, to run: build/zh/notebooks

BOOK_LANGUAGE=zh: these lessons in Chinese. BOOK_LANGUAGE=en: the English site alone.
"""

from __future__ import annotations

import filecmp
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from book import pages, translate
from instructlab_utils.project import find_root

MATHJAX = (
    "sphinx-mathjax-offline"  # MathJax 3.2.2 as a package of pip's; we need its files, not its extension
)
NEEDED = ("tex-chtml.js", "output/chtml/fonts/", "input/tex/extensions/")


def mathjax(target: Path) -> None:
    """MathJax into a folder, as far as pages of ours need it."""
    for file in importlib.metadata.files(MATHJAX) or ():
        _, found, name = str(file).replace("\\", "/").partition("static/mathjax/")
        if found and name.startswith(NEEDED):
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                shutil.copyfile(str(file.locate()), path)


def _sum(*folders: Path) -> str:
    """A hash of everything that Sphinx reads, and of the versions that it is."""
    found = hashlib.sha256(os.environ.get("BOOK_REPOSITORY", "").encode())
    for path in sorted(path for folder in folders for path in folder.rglob("*") if path.is_file()):
        if path.suffix != ".pyc":
            found.update(path.as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def shared(html: Path) -> None:
    """What a site in another language has twice, figures and scripts, is taken from the English one beside it."""
    above = html.parent
    same = {
        path
        for folder in ("_static", "_images")
        for path in (html / folder).rglob("*")
        if path.is_file()
        and (above / path.relative_to(html)).is_file()
        and filecmp.cmp(path, above / path.relative_to(html), shallow=False)
    }
    names = {path.relative_to(html).as_posix() for path in same}

    def up(match: re.Match[str]) -> str:
        return f'{match[1]}../{match[2]}"' if match[2].partition("?")[0] in names else match[0]

    for page in html.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        page.write_text(
            re.sub(r'((?:src|href)="(?:\.\./)*)(_(?:static|images)/[^"]*)"', up, text), encoding="utf-8"
        )
    for path in same:
        path.unlink()


def light(html: Path) -> None:
    """Names, punctuation and blanks of code lose their tags: they have the colour of plain code, in the light theme and in
    the dark one, and they are a third of all pages."""
    for page in html.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        page.write_text(re.sub(r'<span class="(?:n|p|w)">([^<]*)</span>', r"\1", text), encoding="utf-8")


def render(only: list[str], language: str) -> int:
    """Pages of one language, in a process of their own language; the exit status: Sphinx's."""
    start, home = time.monotonic(), find_root() / "book"
    build = find_root() / "build" / "book"
    folder = build / "part" if only else build / language
    source, html = folder / "source", folder / "html" if only else build / "html"
    if language != "en":
        html /= language
    number = pages.write(source, only)
    stamp, now = build / f"stamp-{language}", _sum(source, home)
    if not only and stamp.is_file() and stamp.read_text() == now and (html / "index.html").is_file():
        print(f"up to date: {(html / 'index.html').as_uri()}")
        return 0
    stamp.unlink(missing_ok=True)
    shutil.rmtree(html, ignore_errors=True)
    with tempfile.TemporaryDirectory() as trees:
        command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-c", str(home), "-d", trees]
        command += [] if only else ["-W", "--keep-going"]
        status = subprocess.run([*command, str(source), str(html)], check=False).returncode
    if not status:
        for path in html.rglob("*.map"):  # for those who change the theme's scripts: three megabytes
            path.unlink()
        light(html)
        if language != "en" and not only:
            shared(html)
        size = sum(path.stat().st_size for path in html.rglob("*") if path.is_file()) / 2**20
        told = f"{number} pages, {size:.0f} MB, {time.monotonic() - start:.0f} s"
        print(f"{told}: {(html / 'index.html').as_uri()}")
        if not only:
            stamp.write_text(now)
    return status


def main(only: list[str]) -> int:
    """The exit status: 0 where all is well."""
    if only == ["messages"]:
        found = {name: translate.update("zh", name) for name in translate.names()}
        left = {name: missing for name, (_, missing) in found.items() if missing}
        print(
            f"{sum(number for number, _ in found.values())} messages, without a valid translation: {left or 0}"
        )
        return int(bool(left))
    if only == ["notebooks"]:
        print(*(translate.write_notebooks(language) for language in translate.LANGUAGES), sep="\n")
        return 0
    try:
        mathjax(find_root() / "build" / "book" / "static" / "mathjax")
    except importlib.metadata.PackageNotFoundError:
        lock = "book/requirements.lock is not installed in this environment"
        print(
            f"error: {lock}; `make book` makes one, or: pip install -r book/requirements.lock",
            file=sys.stderr,
        )
        return 2
    if only or "BOOK_LANGUAGE" in os.environ:
        return render(only, translate.LANGUAGE)
    for language in ("en", *translate.LANGUAGES):
        own = {**os.environ, "BOOK_LANGUAGE": language, "BOOK_LANGUAGES": "all"}
        status = subprocess.run([sys.executable, "-m", "book"], env=own, check=False).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
