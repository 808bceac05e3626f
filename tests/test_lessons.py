"""Every entry under **References** is cited: its first surname stands in the lesson above the list."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from instructlab_repro import notebooks

SOURCES = sorted((Path(__file__).resolve().parents[1] / "notebooks" / "source").glob("[0-9][0-9]_*.py"))
LIST = re.compile(r"^\*\*References\.?\*\*", re.MULTILINE)
ENTRY = re.compile(r"^- .*(?:\n  .*)*", re.MULTILINE)


def first_name(entry: str) -> str:
    """The first surname: "van den Oord" of "- van den Oord, A. (2018).", "Vapnik" of "- V. N. Vapnik (1992)."."""
    return re.split(r",| et al\.| and | \(", re.sub(r"^- (?:[^\W\d_]\. )*", "", entry))[0]


def uncited(text: str) -> list[str]:
    """The first names of the entries of which ``text`` says nothing above its list. A lesson has one list."""
    above, below = LIST.split(text)
    names = [first_name(entry) for entry in ENTRY.findall(below)]
    return [name for name in names if not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", above)]


def prose(path: Path) -> str:
    cells = notebooks.from_source(path).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_each_reference_is_cited_above_the_list(path: Path) -> None:
    assert uncited(prose(path)) == []


def test_an_entry_that_nothing_cites_is_told() -> None:
    text = (
        "Liu (2021) and van den Oord et al. (2018); a tool's notes.\n\n**References.**\n\n"
        "- Li, X. L., and Liang, P. (2021). Prefix-tuning.\n- Liu, X., et al. (2021). GPT understands,\n  too.\n"
        "- van den Oord, A. (2018). CPC.\n- C. J. Hutto and E. Gilbert (2014). VADER.\n"
        "- Smith et al. (2020). A title, with Liu.\n- tool, issue 1 (2024), on notes.\n"
    )
    assert uncited(text) == ["Li", "Hutto", "Smith"]
    assert uncited(text.replace("a tool's", "Li, Hutto, Smith and a tool's")) == []
