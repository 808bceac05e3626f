"""The ledger of claims as Markdown: rows of data/results/ledger.json, with the units of the experiments' tables."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from instructlab_repro import claims, experiments
from instructlab_repro.pages.markdown import blocks_in, grid, render
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


def unit(row: Row, name: str) -> Unit:
    """The unit of a claim's statistic: that of its experiment's table of the same metric; without one, a bare number."""
    if not row["experiment"] or row["claim"] not in claims.names():
        return 1.0, ""
    listed = {each.name: each for each in claims.load(row["claim"]).statistics.values()}
    tables = {table.metric: table for table in experiments.load(row["experiment"]).tables}
    statistic = listed.get(name)
    if statistic is None or statistic.kind in PLAIN or statistic.metric not in tables:
        return 1.0, ""
    table = tables[statistic.metric]
    points = table.unit == "%" and statistic.kind != "value"  # a difference of percentages
    return table.scale, "points" if points else table.unit


BESIDE = {"bootstrap": "bootstrap over seeds and examples", "seeds_only": "over seeds alone"}


def finding(part: Row, unit: Unit = (1.0, ""), *, beside: bool = True, side: bool = False) -> str:
    """ "50 against 800 examples: +26.7 points [+21.8, +31.6]".

    With what stands ``beside`` the interval (the bootstrap, the seeds alone), and the claimed ``side`` if wanted. No
    printed bound lies outside the statistic's own bounds.
    """
    scale, name = unit[0], f" {unit[1]}".rstrip()
    text, mean, low, high = part["statistic"] or "", part["mean"], part["low"], part["high"]
    least, most = part.get("bounds") or (-math.inf, math.inf)
    width, places = scale * ((high or 0) - (low or 0)), max(0, 3 - round(math.log10(scale)))
    places = max(places, 1 - math.floor(math.log10(width))) if width > 0 else places  # two digits if narrow

    def ends(interval: tuple[float, float]) -> str:
        return "[{}]".format(", ".join(f"{scale * min(max(e, least), most):+.{places}f}" for e in interval))

    if mean is not None:
        text += f": {scale * mean:+.{places}f}{name}"
    if mean is not None and low is not None:
        told = f" {ends((low, high))}" + (f" over {part['basis']}" if part.get("basis") else "")
        text += told if low < high else ", the same in every run"
        text += " (cut at the bound: this t interval is wider than possible)" * (low < least or high > most)
    for key in (key for key in BESIDE if beside and part.get(key)):
        text += f", {BESIDE[key]} {ends(part[key])}"
    if side and part.get("margin") is not None:
        text += f"; claimed to lie within ±{scale * part['margin']:g}{name}"
    elif side and part.get("threshold") is not None:
        where = "above" if part["direction"] == "greater" else "below"
        text += f"; claimed to lie {where} {scale * part['threshold']:g}{name}"
    return text + (f"; interval that decides {ends(part['adjusted'])}" if part.get("adjusted") else "")


def _reads(part: Row, interval: tuple[float, float]) -> str:
    """The word that an interval alone would give."""
    if part.get("margin") is not None:
        least, most = -part["margin"], part["margin"]
    elif part["direction"] == "greater":
        least, most = part["threshold"], math.inf
    else:
        least, most = -math.inf, part["threshold"]
    low, high = interval
    inside, outside = least < low and high < most, high < least or most < low
    return "supported" if inside else "refuted" if outside else "undecided"


def _links(row: Row, *first: str) -> str:
    """The files behind a claim, from the project's root."""
    file = f"{experiments.FOLDER}/{row['experiment']}.toml" if row["experiment"] else ""
    pairs = [("experiment", file), ("table", row["table"]), ("lesson", row["lesson"])]
    return " · ".join([*first, *(f"[{name}]({path})" for name, path in pairs if path and "/" in path)])


def _told(row: Row, part: Row, **how: bool) -> str:
    return finding(part, unit(row, part["statistic"]), **how)


def _flags(row: Row) -> list[str]:
    """What a reader must know of the runs; that edition 1 is outdated stands once, at the head of the ledger."""
    return [flag for flag in row["flags"] if flag != "outdated" or row.get("edition", 1) != 1]


def _word(row: Row) -> str:
    return f"**{row['verdict']}**" + (f" ({', '.join(flags)})" if (flags := _flags(row)) else "")


def _anchor(row: Row) -> str:
    return f"[{row['claim']}](LEDGER.md#{row['claim'].lower()})"


def table() -> str:
    """Every claim that was tested, with the numbers behind its verdict and links, as a Markdown table."""
    lines = [["claim", "statement", "verdict", "mean over seeds, 95 % interval", "see"]]
    for row in (row for row in rows() if row["verdict"] != "not tested"):
        parts = [part for part in row["comparisons"] or [row] if part["statistic"]]
        told = "<br>".join(_told(row, part, beside=False) for part in parts)
        lines.append([_anchor(row), row["statement"], _word(row), told or "by argument", _links(row)])
    return grid(lines, [True] * 5) + "\n"


def remember(names: tuple[str, ...]) -> str:
    """A few verdicts as a list: the word, the statement, and the number or the argument behind it."""
    by_name, told = {row["claim"]: row for row in rows()}, []
    for row in (by_name[name] for name in names if name in by_name):
        if row["argument"]:
            why = f"By argument: {row['argument']['text']}"
        else:
            part = max(row["comparisons"] or [row], key=lambda part: part["verdict"] == row["verdict"])
            why = f"Measured: {_told(row, part, beside=False)}"
        told.append(f"- {_word(row)}: “{row['statement']}” {why} ({_anchor(row)}).")
    return "\n".join(told) + "\n"


def page() -> str:
    """The text of LEDGER.md: an index by verdict, a section per claim with results, the drafts as a list."""
    every = rows()
    drafts = [row for row in every if not row["experiment"] and not row["argument"]]
    named = [(row["verdict"], row["claim"]) for row in every if row not in drafts]
    index = {word: [f"[{c}](#{c.lower()})" for w, c in named if w == word] for word in VERDICTS}
    index["not tested"] += [f"{len(drafts)} [drafts](#drafts)"] * bool(drafts)
    index = {word: links for word, links in index.items() if links}
    count = {word: sum(row["verdict"] == word for row in every) for word in index}
    tools = dict(told=_told, reads=_reads, links=_links, flags=_flags, flag_texts=claims.FLAGS)
    return render("ledger.md.j2", every=every, drafts=drafts, index=index, count=count, **tools)


def sure() -> dict[str, str]:
    """The blocks of templates/how-sure.md.j2: the planned power of each claim; the first edition beside the second."""
    path, after = find_root() / claims.FOLDER / "edition-1" / "verdicts.json", defaultdict(list)
    known = {name: claims.load(name) for name in claims.names()}
    for row in (row for row in rows() if row.get("edition") == 2 and row["claim"] in known):
        edition = known[row["claim"]].edition
        after[(edition and edition.first) or row["claim"]].append(row)
    values = dict(first=files.read_json(path) if path.is_file() else {}, after=after, known=known)
    plans = [plan | {"of": known[plan["claim"]]} for plan in claims.plan() if plan["planned"]]
    tools = dict(finding=finding, told=_told, unit=unit, minutes=_minutes)
    return blocks_in(render("how-sure.md.j2", plans=plans, **values, **tools))


def _minutes(experiment: str) -> float:
    """What all recorded blocks of an experiment took, tuning and twins with them."""
    blocks = experiments.rows_by_block(experiment).values()
    return sum(lines[0].get("block_seconds", 0) for lines in blocks) / 60
