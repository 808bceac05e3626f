"""The ledger of claims as Markdown: rows of data/results/ledger.json, with the units of the experiments' tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from instructlab_repro import claims, experiments
from instructlab_repro.pages.markdown import grid, render
from instructlab_repro.strict import read_toml
from instructlab_utils import files
from instructlab_utils.project import find_root

Row = Mapping[str, Any]
Unit = tuple[float, str]  # a statistic is printed times the first, followed by the second
VERDICTS = ("supported", "refuted", "undecided", "not tested")
PLAIN = ("ratio", "argmax", "rank_correlation")  # numbers of their own, not of the metric


def rows(profile: str = "laptop") -> list[dict[str, Any]]:
    """The rows of data/results/ledger.json; computed (which takes a while) where that file does not hold them."""
    path = find_root() / "data" / "results" / "ledger.json"
    return files.read_json(path) if profile == "laptop" and path.is_file() else claims.ledger(profile)


def units(row: Row) -> dict[str, Unit]:
    """Name of a statistic → its unit, from the experiment's table of the same metric; without one, a bare number."""
    path = find_root() / claims.FOLDER / f"{row['claim']}.toml"
    if not row["experiment"] or not path.is_file():
        return {}
    raw = read_toml(path, path.name)
    listed = [raw.get("statistic"), *(part["statistic"] for part in raw.get("comparisons", ()))]
    tables = {table.metric: table for table in experiments.load(row["experiment"]).tables}
    found = {}
    for each in filter(None, [*listed, *raw.get("secondary", ())]):
        table = tables.get(each["metric"]) if each["kind"] not in PLAIN else None
        if table is not None:
            points = table.unit == "%" and each["kind"] != "value"  # a difference of percentages
            found[each["name"]] = (table.scale, "points" if points else table.unit)
    return found


def finding(part: Row, unit: Unit = (1.0, ""), *, beside: bool = True, side: bool = False) -> str:
    """ "50 against 800 examples: +26.7 points [+21.8, +31.6]".

    With what stands ``beside`` the interval (the bootstrap, the seeds alone), and the claimed ``side`` if wanted. No
    printed bound lies outside the statistic's own bounds.
    """
    scale, name = unit[0], f" {unit[1]}".rstrip()
    text, low, high = part["statistic"] or "", part["low"], part["high"]
    least, most = part.get("bounds") or (-math.inf, math.inf)
    width, places = scale * ((high or 0) - (low or 0)), max(0, 3 - round(math.log10(scale)))
    places = max(places, 1 - math.floor(math.log10(width))) if width > 0 else places  # two digits if narrow

    def ends(interval: tuple[float, float]) -> str:
        return "[{}]".format(", ".join(f"{scale * min(max(e, least), most):+.{places}f}" for e in interval))

    if part["mean"] is not None:
        text += f": {scale * part['mean']:+.{places}f}{name}"
    if part["mean"] is not None and low is not None:
        text += f" {ends((low, high))}" + (f" over {part['basis']}" if part.get("basis") else "")
        text += " (cut at the bound: this t interval is wider than possible)" * (low < least or high > most)
    for key, words in (
        ("bootstrap", "bootstrap over seeds and examples"),
        ("seeds_only", "over seeds alone"),
    ):
        text += f", {words} {ends(part[key])}" if beside and part.get(key) else ""
    if side and part.get("margin") is not None:
        text += f"; claimed to lie within ±{scale * part['margin']:g}{name}"
    elif side and part.get("threshold") is not None:
        where = "above" if part["direction"] == "greater" else "below"
        text += f"; claimed to lie {where} {scale * part['threshold']:g}{name}"
    return text + (f"; interval that decides {ends(part['adjusted'])}" if part.get("adjusted") else "")


def _reads(part: Row, interval: tuple[float, float]) -> str:
    """The word that an interval alone would give."""
    low, high = interval
    if part.get("margin") is not None:
        inside, outside = -part["margin"] < low and high < part["margin"], max(low, -high) > part["margin"]
    elif part.get("threshold") is not None:
        inside, outside = low > part["threshold"], high < part["threshold"]
        inside, outside = (inside, outside) if part["direction"] == "greater" else (outside, inside)
    else:
        return ""
    return "supported" if inside else "refuted" if outside else "undecided"


def _comments(row: Row) -> list[str]:
    """Where a printed interval and the verdict seem to disagree, why they do."""
    said, count = [], len(row["comparisons"])
    tested = [part for part in row["comparisons"] or [row] if part["low"] is not None]
    for part in (part for part in tested if part["verdict"] != "not tested"):
        name, alone = part["statistic"], _reads(part, (part["low"], part["high"]))
        if count and part["verdict"] == "undecided" != alone:
            said.append(
                f"The interval of “{name}” alone excludes the threshold. It is not adjusted for the {count} parts; "
                "Holm's correction is, and decides."
            )
        if part["bootstrap"] and (other := _reads(part, part["bootstrap"])) not in ("", alone):
            said.append(f"The bootstrap of “{name}” alone would say {other}; it has no vote.")
    return said


def _links(row: Row, *first: str) -> str:
    """The files behind a claim, from the project's root."""
    file = f"{experiments.FOLDER}/{row['experiment']}.toml" if row["experiment"] else ""
    pairs = [("experiment", file), ("table", row["table"]), ("lesson", row["lesson"])]
    return " · ".join([*first, *(f"[{name}]({path})" for name, path in pairs if path and "/" in path)])


def _told(row: Row, part: Row, **how: bool) -> str:
    return finding(part, units(row).get(part["statistic"], (1.0, "")), **how)


def _flags(row: Row) -> list[str]:
    """What a reader must know of the runs; that edition 1 is outdated stands once, at the head of the ledger."""
    return [flag for flag in row["flags"] if flag != "outdated" or row.get("edition", 1) != 1]


def _word(row: Row) -> str:
    return f"**{row['verdict']}**" + (f" ({', '.join(flags)})" if (flags := _flags(row)) else "")


def table(profile: str = "laptop") -> str:
    """Every claim that was tested, with the numbers behind its verdict and links, as a Markdown table."""
    lines = [["claim", "statement", "verdict", "mean over seeds, 95 % interval", "see"]]
    for row in (row for row in rows(profile) if row["verdict"] != "not tested"):
        parts = [part for part in row["comparisons"] or [row] if part["statistic"]]
        told = "<br>".join(_told(row, part, beside=False) for part in parts)
        link = f"[{row['claim']}](LEDGER.md#{row['claim'].lower()})"
        lines.append([link, row["statement"], _word(row), told or "by argument", _links(row)])
    return grid(lines, [True] * 5) + "\n"


def remember(names: tuple[str, ...], profile: str = "laptop") -> str:
    """A few verdicts as a list: the word, the statement, the number behind it."""
    by_name, told = {row["claim"]: row for row in rows(profile)}, []
    for row in (by_name[name] for name in names if name in by_name):
        part = max(row["comparisons"] or [row], key=lambda part: part["verdict"] == row["verdict"])
        link = f"[{row['claim']}](LEDGER.md#{row['claim'].lower()})"
        number = _told(row, part, beside=False)
        told.append(f"- {_word(row)}: “{row['statement']}” Measured: {number} ({link}).")
    return "\n".join(told) + "\n"


def page(profile: str = "laptop") -> str:
    """The text of LEDGER.md: an index by verdict, a section per claim with results, the drafts as a list."""
    every = rows(profile)
    drafts = [row for row in every if not row["experiment"] and not row["argument"]]
    words: dict[str, list[str]] = {}
    for word in VERDICTS:
        named = [row["claim"] for row in every if row["verdict"] == word and row not in drafts]
        links = [f"[{name}](#{name.lower()})" for name in named]
        links += [f"{len(drafts)} [drafts](#drafts)"] * bool(drafts and word == "not tested")
        words |= {word: links} if links else {}
    count = {word: sum(row["verdict"] == word for row in every) for word in words}
    how = {
        "told": _told,
        "comments": _comments,
        "links": _links,
        "flags": _flags,
        "flag_texts": claims.FLAGS,
        "folder": claims.FOLDER,
    }
    return render("ledger.md.j2", every=every, drafts=drafts, index=words, count=count, **how)
