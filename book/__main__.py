"""Write the sources of the site, then let Sphinx render them into build/book/html. Every warning is an error.

python -m book            all pages, from nothing; where nothing has changed since, it says so and stops
python -m book 09 17      these lessons with their exercises, into build/book/part, for a look while you write
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from book import pages
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


def main(only: list[str]) -> int:
    """The exit status: Sphinx's."""
    start, home = time.monotonic(), find_root() / "book"
    build = find_root() / "build" / "book"
    try:
        mathjax(build / "static" / "mathjax")
    except importlib.metadata.PackageNotFoundError:
        lock = "book/requirements.lock is not installed in this environment"
        print(
            f"error: {lock}; `make book` makes one, or: pip install -r book/requirements.lock",
            file=sys.stderr,
        )
        return 2
    folder = build / "part" if only else build
    source, html = folder / "source", folder / "html"
    number = pages.write(source, only)
    stamp, now = build / "stamp", _sum(source, home)
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
        size = sum(path.stat().st_size for path in html.rglob("*") if path.is_file()) / 2**20
        told = f"{number} pages, {size:.0f} MB, {time.monotonic() - start:.0f} s"
        print(f"{told}: {(html / 'index.html').as_uri()}")
        if not only:
            stamp.write_text(now)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
