"""Markdown: tables, the files of templates/, and the generated blocks of a page.

What stands between the comments `<!-- generated:NAME -->` and `<!-- /generated -->` of a Markdown file is written by the
program, never by hand.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from instructlab_utils import files
from instructlab_utils.errors import ConfigError
from instructlab_utils.project import text_of

GENERATED = re.compile(r"(<!-- generated:(?P<name>[\w.-]+) -->\n)(?P<text>.*?)(<!-- /generated -->)", re.S)
MARK = re.compile(r"<!-- (/?)generated(?::[\w.-]+)? -->")
SIGNS = dict(zip("±<>−·×≤≥†", r"\pm < > - \cdot \times \le \ge \dagger".split(), strict=True))
TEX = str.maketrans(
    {sign: f"\\{sign}" for sign in "&%$#_{}"}
    | {sign: f"${tex}$" for sign, tex in SIGNS.items()}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--"}
    | {"\u00a0": "~", "[": "{[}"}  # a row that begins with [ would be an option of the \\ before it
)
TEX_MARKS = dict(
    variable_start_string="<<", variable_end_string=">>", block_start_string="<%", block_end_string="%>"
)


def escape(cell: str) -> str:
    """A text that may stand in a cell of a Markdown table."""
    return cell.replace("|", r"\|")


def grid(rows: Sequence[Sequence[str]], left: Iterable[bool]) -> str:
    """A Markdown table; the first row is the head, columns of text are set left, numbers right."""
    head, *body = (map(escape, row) for row in rows)
    rule = ["---" if text else "---:" for text in left]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *body))


def show(rows: Sequence[Sequence[str]], left: Sequence[bool]) -> None:
    """Print a table: drawn by rich in a terminal; aligned plain text elsewhere, so that a pipe gets no escapes."""
    if sys.stdout.isatty():
        from rich import box, console, table

        drawn = table.Table(box=box.SIMPLE_HEAD)
        for head, text in zip(rows[0], left, strict=True):
            drawn.add_column(head, justify="left" if text else "right")
        for row in rows[1:]:
            drawn.add_row(*row)
        console.Console(markup=False, highlight=False).print(drawn)
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in (rows[0], ["-" * width for width in widths], *rows[1:]):
        cells = zip(row, widths, left, strict=True)
        print("  ".join(c.ljust(width) if text else c.rjust(width) for c, width, text in cells).rstrip())


@cache
def _world(html: bool, tex: bool) -> jinja2.Environment:
    """Made once: it keeps the templates that it has compiled."""
    world = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=html,
        trim_blocks=True,
        lstrip_blocks=True,
        **(TEX_MARKS if tex else {}),  # type: ignore[arg-type]
    )
    world.filters |= {"tex": lambda text: text.translate(TEX), "cell": escape}
    return world


def render(template: str, **values: Any) -> str:
    """A file of templates/, with the filters ``tex`` and ``cell``; LaTeX's have << >> and <% %> in place of the braces."""
    return _world(".html" in template, ".tex" in template).get_template(template).render(**values)


def blocks_in(text: str) -> dict[str, str]:
    """The generated blocks of a Markdown text by name."""
    return {match["name"]: match["text"] for match in GENERATED.finditer(text)}


def blocks_of(path: str | Path) -> dict[str, str]:
    """Those of a file."""
    return blocks_in(text_of(Path(path)))


def _replaced(path: Path, mapping: Mapping[str, str]) -> tuple[str, list[str]]:
    """The new text, and the names of the blocks that differ."""
    old, different = text_of(path), []
    marks = MARK.findall(old)
    if marks != ["", "/"] * (len(marks) // 2):
        what = "each generated block must be closed by <!-- /generated --> before the next."
        raise ConfigError(f"{path.name}: {what}")

    def fill(match: re.Match[str]) -> str:
        text = f"{mapping[match['name']].strip()}\n" if match["name"] in mapping else match["text"]
        if text != match["text"]:
            different.append(match["name"])
        return f"{match[1]}{text}{match[4]}"

    return GENERATED.sub(fill, old), different


def update_blocks(path: str | Path, mapping: Mapping[str, str]) -> list[str]:
    """Write the blocks that ``mapping`` names into a Markdown file; returns the names that changed.

    Other blocks and all other text stay. ConfigError when a block is not closed.
    """
    new, different = _replaced(Path(path), mapping)
    if different:
        files.write_text(path, new)
    return different


def check_blocks(path: str | Path, mapping: Mapping[str, str]) -> list[str]:
    """One sentence per block that is not what ``mapping`` would write now; changes nothing."""
    name, stale = Path(path).name, _replaced(Path(path), mapping)[1]
    return [f"{name}: the generated block {block!r} is out of date; run `make reproduce`." for block in stale]
