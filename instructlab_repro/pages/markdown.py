"""The ledger of claims as Markdown, and the generated blocks of the project's pages.

Text between the comments `<!-- generated:NAME -->` and `<!-- /generated -->` of a Markdown file is written by the
program, never by hand.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from instructlab_repro import claims, experiments
from instructlab_utils import files
from instructlab_utils.errors import ConfigError
from instructlab_utils.project import find_root

BLOCK = re.compile(r"(<!-- generated:(?P<name>[\w.-]+) -->\n)(?P<text>.*?)(<!-- /generated -->)", re.DOTALL)
BOUND = re.compile(r"<!-- (?:generated:[\w.-]+|/generated) -->")


def grid(rows: list[list[str]], left: Iterable[bool]) -> str:
    """A Markdown table; the first row is the head, columns of text are set left, numbers right."""
    head, *body = ([cell.replace("|", r"\|") for cell in row] for row in rows)
    rule = ["---" if text else "---:" for text in left]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *body))


def ledger_rows(profile: str = "laptop") -> list[dict[str, Any]]:
    """The rows of data/results/ledger.json; computed (which takes a while) where that file does not hold them."""
    path = find_root() / "data" / "results" / "ledger.json"
    return files.read_json(path) if profile == "laptop" and path.is_file() else claims.ledger(profile)


def _finding(part: Mapping[str, Any], side: bool = False) -> str:
    """ "50 against 800 examples: +0.267 [+0.218, +0.316]"; with the claimed ``side`` if wanted."""
    text, width = part["statistic"] or "", (part["high"] or 0) - (part["low"] or 0)
    places = max(3, 1 - math.floor(math.log10(width))) if width > 0 else 3  # two digits of a narrow interval
    ends = [
        ("", part["low"], part["high"]),
        (", bootstrap over seeds and examples ", *(part["bootstrap"] or (None, None))),
    ]
    if part["mean"] is not None:
        shown = [
            f"{name}[{low:+.{places}f}, {high:+.{places}f}]" for name, low, high in ends if low is not None
        ]
        text += f": {part['mean']:+.{places}f} {''.join(shown)}"
    if side and part.get("margin") is not None:
        text += f"; claimed to lie within ±{part['margin']:g}"
    elif side and part.get("threshold") is not None:
        text += (
            f"; claimed to lie {'above' if part['direction'] == 'greater' else 'below'} {part['threshold']:g}"
        )
    return text


def _links(row: Mapping[str, Any], *first: str) -> str:
    """The files behind a claim, from the project's root."""
    grid = f"{experiments.FOLDER}/{row['experiment']}.toml" if row["experiment"] else ""
    pairs = [("experiment", grid), ("table", row["table"]), ("lesson", row["lesson"])]
    written = [f"[{name}]({path})" for name, path in pairs if path and "/" in path]
    return " · ".join([*first, *written])


def ledger(profile: str = "laptop") -> str:
    """Every claim with its verdict, the numbers behind it and links, as a Markdown table."""
    rows = [["claim", "statement", "verdict", "mean over seeds, 95 % interval", "see"]]
    for row in ledger_rows(profile):
        parts = [part | {"bootstrap": None} for part in row["comparisons"] or [row] if part["statistic"]]
        flags = f" ({', '.join(row['flags'])})" if row["flags"] else ""
        name, word = (
            row["claim"],
            row["verdict"] if row["verdict"] == "not tested" else f"**{row['verdict']}**",
        )
        why = "by argument" if row["argument"] else "<br>".join(map(_finding, parts))
        rows.append([f"[{name}](LEDGER.md#{name.lower()})", row["statement"], word + flags, why, _links(row)])
    return grid(rows, [True] * 5) + "\n"


def ledger_page(profile: str = "laptop") -> str:
    """The text of LEDGER.md: a section per claim."""
    rows = ledger_rows(profile)
    words = [row["verdict"] for row in rows]
    counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    parts = [
        "# Ledger of claims",
        f"{len(rows)} claims: {counts}. A claim is written down before the run that tests it; the t interval over seeds "
        "decides. The words *supported*, *refuted* and *undecided* hold for the models, data and sizes of the "
        "experiment, no further.",
    ]
    for row in rows:
        level = f"{row['confidence']:.0%} t interval over {row['seeds']} seeds"
        items = [f"Verdict: **{row['verdict']}**; expected before the run: {row['expected']}."]
        items += [f"Note: {claims.FLAGS[flag]}." for flag in row["flags"]]
        items.append("Source: {work}, {place}. Evidence given there: {evidence}.".format(**row["source"]))
        if row["argument"]:
            items.append("By argument: {text} ({test})".format(**row["argument"]))
        elif not row["experiment"]:
            items.append("A draft: the statistic and the experiment are not yet fixed.")
        elif row["comparisons"]:
            count = len(row["comparisons"])
            items.append(f"{row['k'] or count} of {count} must hold, after Holm's correction; {level}:")
            for part in row["comparisons"]:
                p = f" (p = {part['p']:.3f})" if part.get("p") is not None else ""
                items.append(f"  - {part['verdict']}: {_finding(part, side=True)}{p}")
        else:
            items.append(f"{_finding(row, side=True)} ({row['kind']}; {level}).")
        if row["missing"]:
            items.append(f"Missing: {row['missing']} runs.")
        items += ["Beside it, without a vote:"] * bool(row["secondary"])
        items += [f"  - {_finding(part)}" for part in row["secondary"]]
        items.append(_links(row, f"[claim]({claims.FOLDER}/{row['claim']}.toml)"))
        lines = [item if item.startswith("  -") else f"- {item}" for item in items]
        parts += [f"## {row['claim']}", f"**{row['statement']}**", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


# --- generated blocks ------------------------------------------------------------------------------


def _replaced(path: Path, mapping: Mapping[str, str]) -> tuple[str, str, list[str]]:
    """Old text, new text, and the names of the blocks that differ."""
    old = path.read_text(encoding="utf-8")
    if len(BOUND.findall(old)) != 2 * len(BLOCK.findall(old)):
        raise ConfigError(
            f"{path.name}: a generated block is not closed by <!-- /generated -->, or not opened."
        )
    different = []

    def fill(match: re.Match[str]) -> str:
        name = match["name"]
        if BOUND.search(match["text"]):
            raise ConfigError(f"{path.name}: the generated block {name!r} holds another; close it first.")
        if name not in mapping:
            return match[0]
        text = f"{mapping[name].strip()}\n"
        if text != match["text"]:
            different.append(name)
        return f"{match[1]}{text}{match[4]}"

    return old, BLOCK.sub(fill, old), different


def update_blocks(path: str | Path, mapping: Mapping[str, str]) -> list[str]:
    """Write the blocks that ``mapping`` names into a Markdown file; returns the names that changed.

    Other blocks and all other text stay. ConfigError when a block is not closed.
    """
    path = Path(path)
    _, new, different = _replaced(path, mapping)
    if different:
        files.write_text(path, new)
    return different


def check_blocks(path: str | Path, mapping: Mapping[str, str]) -> list[str]:
    """One sentence per block that is not what ``mapping`` would write now; changes nothing."""
    path = Path(path)
    _, _, different = _replaced(path, mapping)
    return [
        f"{path.name}: the generated block {name!r} is out of date; run `make reproduce`."
        for name in different
    ]
