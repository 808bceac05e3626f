"""What the program writes into README.md, LEDGER.md and docs/, block by block, and the tables beside them."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from instructlab_repro import claims, experiments, notebooks
from instructlab_repro.claims import repeat
from instructlab_repro.notebooks import exercises
from instructlab_repro.pages import ledger, tables
from instructlab_repro.pages.markdown import blocks_in, check_blocks, render, update_blocks
from instructlab_utils.project import find_root, text_of

REMEMBER = ("C23", "LR6", "C1", "Z3", "SA2")  # decided beyond doubt; README tells them
BEFORE = re.compile(r"^# \| before this \| (.+) \|$", re.MULTILINE)  # a line of a lesson's first cell
LINK = re.compile(r"\]\((?!https?:|#)")


def paths() -> list[Path]:
    """The pages that may have generated blocks: those at the root and in docs/."""
    return [path for folder in (".", "docs") for path in sorted((find_root() / folder).glob("*.md"))]


def for_page(page: Path, blocks: Mapping[str, str]) -> Mapping[str, str]:
    """The blocks, whose links start at the project's root, with links that start at the page's folder."""
    if page.parent == find_root():
        return blocks
    return {name: LINK.sub("](../", text) for name, text in blocks.items()}


def blocks(*, measured: bool = False) -> dict[str, str]:
    """The text of the generated blocks by name, of the laptop's results, links from the root.

    ``measured`` adds ``course``, the table of the last `make course` on this machine; it changes with every run.
    """
    found = {
        "claims": ledger.table(),
        "ledger-page": ledger.page(),
        "remember": ledger.remember(REMEMBER),
        **lists(),
        **ledger.sure(),
        **tables.generated(),
    }
    if measured and (path := find_root() / "build" / "smoke" / "summary.md").is_file():
        found["course"] = path.read_text(encoding="utf-8").split("\n\n", 1)[1]
    return found


def lists() -> dict[str, str]:
    """The blocks of templates/lists.md.j2: the lessons, what their teacher and their reader need, the experiments."""
    text = render(
        "lists.md.j2",
        lessons=notebooks.lessons().values(),
        header=lambda lesson: notebooks.read_header(lesson.source)["instructlab"],
        before=lambda lesson: BEFORE.findall(text_of(lesson.source)),
        boxes={name: exercises.load(path) for name, path in exercises.sources().items()},
        grids=[*map(experiments.load, experiments.names())],
        results=experiments.results,
        repeated=lambda grid: repeat.last(grid.at("laptop")),
        bands=experiments.bands,
    )
    return blocks_in(text)


def write_tables(names: list[str], profile: str, *, check: bool = False, measured: bool = False) -> int:
    """Write the tables and figures of the named experiments (default: all), the ledger, and the blocks of the pages.

    ``check`` changes nothing and says which blocks are out of date; the exit code.
    """
    root = find_root()
    if check:
        now = blocks()
        stale = [line for page in paths() for line in check_blocks(page, for_page(page, now))]
        print("\n".join(stale), end="\n" * bool(stale), file=sys.stderr)
        return 1 if stale else 0
    if profile == "laptop":
        print(f"wrote {claims.write_ledger().relative_to(root)}")  # first: the tables quote its verdicts
    for name in names or experiments.names():
        if not experiments.results(name, profile):
            print(f"{name}: no {profile} results yet", file=sys.stderr)
            continue
        for path in tables.write(name, profile):
            print(f"wrote {path.relative_to(root)}")
    if profile == "laptop" and (pages := paths()):
        now = blocks(measured=measured)
        for page in pages:
            for block in update_blocks(page, for_page(page, now)):
                print(f"{page.name}: block {block!r} renewed")
    return 0
