"""The ledger of claims as Markdown: rows of data/results/ledger.json, with the units of the experiments' tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from instructlab_repro import claims, experiments
from instructlab_repro.pages.markdown import grid
from instructlab_repro.strict import read_toml
from instructlab_utils import files
from instructlab_utils.project import find_root

Row = Mapping[str, Any]
VERDICTS = ("supported", "refuted", "undecided", "not tested")
PLAIN = ("ratio", "crossing", "argmax", "rank_correlation")  # numbers of their own, not of the metric
HEAD = """# Ledger of claims

{count} claims: {counts}. A claim is written down before the run that tests it; the t interval over seeds decides.
The words *supported*, *refuted* and *undecided* hold for the models, data and sizes of the experiment, no further.
*Edition* is that of the rules of the verdict. The bootstrap over seeds and examples is printed beside the t interval and
has no vote: where it would say something else, the claim says so. [How a claim is made and read](docs/claims.md).

## Index

{index}"""
DRAFTS = """## Drafts

Claims without an experiment: what would be measured is not yet fixed, or nothing has been run. Each line: the claim, who
says it, on what evidence, and what we expect."""


class Unit(NamedTuple):
    """How a statistic is printed: its numbers times ``scale``; no printed bound lies outside ``least`` to ``most``."""

    scale: float = 1.0
    name: str = ""
    least: float = -math.inf
    most: float = math.inf


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
        if each["kind"] == "rank_correlation":
            found[each["name"]] = Unit(least=-1, most=1)
        elif table is not None and table.unit == "%":
            share = each["kind"] in ("value", "range")
            found[each["name"]] = Unit(100, "%" if each["kind"] == "value" else "points", -(not share), 1)
        elif table is not None:
            found[each["name"]] = Unit(table.scale, table.unit)
    return found


BARE = Unit()


def finding(part: Row, unit: Unit = BARE, *, beside: bool = True, side: bool = False) -> str:
    """ "50 against 800 examples: +26.7 points [+21.8, +31.6]"; with the bootstrap ``beside``, and the claimed ``side``."""
    text, name = part["statistic"] or "", f" {unit.name}".rstrip()
    width = unit.scale * ((part["high"] or 0) - (part["low"] or 0))
    places = max(0, 3 - round(math.log10(unit.scale)))
    places = max(places, 1 - math.floor(math.log10(width))) if width > 0 else places  # two digits if narrow

    def ends(low: float, high: float) -> str:
        kept = (unit.scale * min(max(end, unit.least), unit.most) for end in (low, high))
        return "[{}]".format(", ".join(f"{end:+.{places}f}" for end in kept))

    if part["mean"] is not None:
        text += f": {unit.scale * part['mean']:+.{places}f}{name}"
        text += f" {ends(part['low'], part['high'])}" if part["low"] is not None else ""
        if part["low"] is not None and (part["low"] < unit.least or part["high"] > unit.most):
            text += " (cut at the bound: this t interval is wider than possible)"
    if beside and part["bootstrap"]:
        text += f", bootstrap over seeds and examples {ends(*part['bootstrap'])}"
    if side and part.get("margin") is not None:
        text += f"; claimed to lie within ±{unit.scale * part['margin']:g}{name}"
    elif side and part.get("threshold") is not None:
        where = "above" if part["direction"] == "greater" else "below"
        text += f"; claimed to lie {where} {unit.scale * part['threshold']:g}{name}"
    return text


def _reads(part: Row, low: float, high: float) -> str:
    """The word that an interval alone would give."""
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
    said = []
    for part in row["comparisons"] or [row]:
        if part["low"] is None or part["verdict"] == "not tested":
            continue
        alone = _reads(part, part["low"], part["high"])
        if row["comparisons"] and part["verdict"] == "undecided" != alone:
            said.append(
                f"The interval of “{part['statistic']}” alone excludes the threshold. It is not adjusted for the "
                f"{len(row['comparisons'])} parts; Holm's correction is, and decides."
            )
        if part["bootstrap"] and (other := _reads(part, *part["bootstrap"])) not in ("", alone):
            said.append(f"The bootstrap of “{part['statistic']}” alone would say {other}; it has no vote.")
    return said


def _links(row: Row, *first: str) -> str:
    """The files behind a claim, from the project's root."""
    file = f"{experiments.FOLDER}/{row['experiment']}.toml" if row["experiment"] else ""
    pairs = [("experiment", file), ("table", row["table"]), ("lesson", row["lesson"])]
    return " · ".join([*first, *(f"[{name}]({path})" for name, path in pairs if path and "/" in path)])


def _flagged(row: Row) -> str:
    return f"**{row['verdict']}**" + (f" ({', '.join(row['flags'])})" if row["flags"] else "")


def table(profile: str = "laptop") -> str:
    """Every claim that has been decided or tested, with the numbers behind it and links, as a Markdown table."""
    lines = [["claim", "statement", "verdict", "mean over seeds, 95 % interval", "see"]]
    for row in (row for row in rows(profile) if row["verdict"] != "not tested"):
        unit = units(row)
        parts = [part for part in row["comparisons"] or [row] if part["statistic"]]
        told = [finding(part, unit.get(part["statistic"], BARE), beside=False) for part in parts]
        why = "by argument" if row["argument"] else "<br>".join(told)
        link = f"[{row['claim']}](LEDGER.md#{row['claim'].lower()})"
        lines.append([link, row["statement"], _flagged(row), why, _links(row)])
    return grid(lines, [True] * 5) + "\n"


def chosen(names: tuple[str, ...], profile: str = "laptop") -> str:
    """A few verdicts as a list: the word, the statement, the first number behind it."""
    by_name, told = {row["claim"]: row for row in rows(profile)}, []
    for row in (by_name[name] for name in names if name in by_name):
        part = max(row["comparisons"] or [row], key=lambda part: part["verdict"] == row["verdict"])
        number = finding(part, units(row).get(part["statistic"], BARE), beside=False)
        link = f"[{row['claim']}](LEDGER.md#{row['claim'].lower()})"
        told.append(f"- {_flagged(row)}: “{row['statement']}” Measured: {number} ({link}).")
    return "\n".join(told) + "\n"


def _section(row: Row) -> str:
    """Heading, statement, verdict, source, numbers and links of a claim."""
    level, unit = f"{row['confidence']:.0%} t interval over {row['seeds']} seeds", units(row)
    edition = row.get("edition", 1)

    def told(part: Row, side: bool = False) -> str:
        return finding(part, unit.get(part["statistic"], BARE), side=side)

    items = [
        f"Verdict: **{row['verdict']}** (edition {edition}); expected before the run: {row['expected']}.",
        *(f"Note: {claims.FLAGS[flag]}." for flag in row["flags"]),
        "Source: {work}, {place}. Evidence given there: {evidence}.".format(**row["source"]),
    ]
    if row["argument"]:
        items.append("By argument: {text} ({test})".format(**row["argument"]))
    elif row["comparisons"]:
        count, how = len(row["comparisons"]), ", after Holm's correction" * (edition == 1)
        items.append(f"{row['k'] or count} of {count} must hold{how}; {level}:")
        for part in row["comparisons"]:
            p = f" (p = {part['p']:.3f})" if part.get("p") is not None else ""
            items.append(f"  - {part['verdict']}: {told(part, side=True)}{p}")
    else:
        items.append(f"{told(row, side=True)} ({row['kind']}; {level}).")
    items += _comments(row)
    items += [f"Missing: {row['missing']} runs."] * bool(row["missing"])
    items += ["Beside it, without a vote:"] * bool(row["secondary"])
    items += [f"  - {told(part)}" for part in row["secondary"]]
    items.append(_links(row, f"[claim]({claims.FOLDER}/{row['claim']}.toml)"))
    lines = [item if item.startswith("  -") else f"- {item}" for item in items]
    return "\n\n".join([f"## {row['claim']}", f"**{row['statement']}**", "\n".join(lines)])


def _draft(row: Row) -> str:
    name, source = row["claim"], row["source"]
    return (
        f'- <a id="{name.lower()}"></a>[{name}]({claims.FOLDER}/{name}.toml): {row["statement"]} '
        f"({source['work']}; {source['evidence']}; expected: {row['expected']})"
    )


def page(profile: str = "laptop") -> str:
    """The text of LEDGER.md: an index by verdict, a section per claim with results, the drafts as a list."""
    every = rows(profile)
    drafts = [row for row in every if not row["experiment"] and not row["argument"]]
    words = [row["verdict"] for row in every]
    counts = ", ".join(f"{words.count(word)} {word}" for word in VERDICTS if word in words)
    index = []
    for word in (word for word in VERDICTS if word in words):
        found = [row["claim"] for row in every if row["verdict"] == word and row not in drafts]
        links = [f"[{name}](#{name.lower()})" for name in found]
        links += [f"{len(drafts)} [drafts](#drafts)"] * bool(drafts and word == "not tested")
        index.append(f"- **{word}** ({words.count(word)}): {', '.join(links)}")
    parts = [HEAD.format(count=len(every), counts=counts, index="\n".join(index))]
    parts += [_section(row) for row in every if row not in drafts]
    parts += ["\n\n".join([DRAFTS, "\n".join(map(_draft, drafts))])] if drafts else []
    return "\n\n".join(parts) + "\n"
