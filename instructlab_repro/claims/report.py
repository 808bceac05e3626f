"""Verdicts for a person, and the rows of the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instructlab_repro.claims.claim import names
from instructlab_repro.claims.verdicts import verdict
from instructlab_utils import files
from instructlab_utils.project import find_root

FLAGS = {
    "changed": "the claim's text has changed since these runs started",
    "outdated": "the experiment's code or settings have changed since these runs",
    "stale": "a verification of these runs gave other numbers",
}


def _ends(found: Mapping[str, Any], ends: list[float]) -> str:
    """An interval as text; no end leaves what the statistic cannot leave."""
    least, most = found["bounds"] or (-float("inf"), float("inf"))
    return "[{:+.3f}, {:+.3f}]".format(*(min(max(round(end, 6), least), most) for end in ends))


def _sentence(found: Mapping[str, Any]) -> str:
    if found["mean"] is None:
        return f"{found['statistic']}: not tested, {len(found['seeds'])} complete seeds"
    ends = [found["low"], found["high"]]
    width = f" {_ends(found, ends)}" if ends[0] < ends[1] else ", the same in every run"
    text = f"{found['statistic']}: {round(found['mean'], 6):+.3f}{width}"  # rounded as in the ledger
    if found["bootstrap"] is not None:
        text += f", bootstrap {_ends(found, found['bootstrap'])}"
    if found["basis"] is not None:
        text += f" over {found['basis']}"
    if found["seeds_only"] not in (None, ends):
        text += f", over seeds alone {_ends(found, found['seeds_only'])}"
    if found["ties"]:
        text += f", exact ties in {found['ties']} seeds"
    if (control := found["control"]) and "p" in control:
        text += f", p = {control['p']:.3f} with the arms' labels permuted"
    elif control:
        text += ", with labels permuted {mean:+.3f} [{low:+.3f}, {high:+.3f}]".format(**control)
    tasks = "; ".join(f"{task} {round(value, 6):+.3f}" for task, value in found["by_task"].items())
    return f"{text} ({tasks})" if tasks else text


def _side(found: Mapping[str, Any]) -> str:
    if found.get("margin") is not None:
        return f"within ±{found['margin']:g}"
    return f"{'above' if found['direction'] == 'greater' else 'below'} {found['threshold']:g}"


def _part(part: Mapping[str, Any]) -> str:
    text = f"  {part['verdict']}: {_sentence(part)}; claimed to lie {_side(part)}"
    text += "" if part["p"] is None else f", p = {part['p']:.3f} after Holm"
    return text + (f", interval {_ends(part, part['adjusted'])}" if part.get("adjusted") else "")


def render(found: Mapping[str, Any]) -> str:
    """A verdict for a person: the claim, the word, the intervals that decide, then what stands beside them."""
    rows, parts = [f"{found['claim']}: {found['statement']}"], found["comparisons"]
    word = found["verdict"] if found["why"] is None else f"{found['verdict']}: {found['why']}"
    basis, holm = f"{found['confidence']:.0%} t interval over {len(found['seeds'])} seeds", " after Holm"
    k = found["k"] or len(parts)
    if found["edition"] == 2:
        smallest = f", smallest effect of interest {found['smallest']:g}" if found["smallest"] else ""
        basis = f"{found['confidence']:.0%} interval, edition 2{smallest}"
        holm = ", one refuted after Holm refutes" if k == len(parts) else ""
    if found["argument"] is not None:
        rows.append(f"{word}, by argument: {found['argument']['text']} ({found['argument']['test']})")
    elif found["experiment"] is None:
        rows.append("not tested: a draft, without an experiment")
    elif parts:
        rows.append(f"{word} ({k} of {len(parts)} must hold{holm}; {basis})")
        rows += [_part(part) for part in parts]
    else:
        tests = "two one-sided t tests, " if found["kind"] == "equivalence" else ""
        beside = "; in brackets: each task's mean" if found["by_task"] else ""
        rows += [f"{word} ({tests}{basis}, claimed to lie {_side(found)}{beside})", f"  {_sentence(found)}"]
    if found["secondary"]:
        rows.append("printed beside it, without a vote:")
        rows += [f"  {_sentence(other)}" for other in found["secondary"]]
    if missing := found["missing"]:
        rows.append(f"missing: {len(missing)} runs, the first: {missing[0]}")
    return "\n".join([*rows, *(text for flag, text in FLAGS.items() if found[flag])])


# --- the ledger ------------------------------------------------------------------------------------

KEPT = ("statistic", "verdict", "direction", "bootstrap", "mean", "low", "high", "p", "threshold", "margin")
NEW = ("bounds", "basis", "seeds_only", "adjusted", "control", "ties")  # only edition 2 knows them


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(value, 6) if isinstance(value, float) else value


def _short(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a row keeps of one statistic."""
    row = {key: found[key] for key in KEPT if key in found}
    row |= {key: found[key] for key in NEW if found.get(key)}
    return _rounded(row) | {"seeds": len(found["seeds"])}


def ledger(profile: str = "laptop") -> list[dict[str, Any]]:
    """One row per claim, in the order of their numbers; numbers are rounded to six digits."""
    rows, suffix = [], "" if profile == "laptop" else f".{profile}"
    for found in (verdict(name, profile) for name in names()):
        kept = "claim statement source kind k confidence expected experiment argument"
        row = {key: found[key] for key in kept.split()} | _short(found)
        row |= {key: [_short(part) for part in found[key]] for key in ("comparisons", "secondary")}
        table = f"data/results/tables/{found['experiment']}{suffix}.md"  # written after the ledger
        row["table"] = table if found["edition"] else None
        row |= {key: found[key] for key in ("edition", "why") if found[key] is not None}
        row["missing"] = len(found["missing"])
        row["flags"] = [flag for flag in FLAGS if found[flag]]
        notebooks = sorted(find_root().glob(f"notebooks/{found['lesson']}_*.ipynb"))
        row["lesson"] = f"notebooks/{notebooks[0].name}" if notebooks else "planned"
        rows.append(row)
    return rows


def write_ledger() -> Path:
    """Write data/results/ledger.json: the laptop profile's rows, the same bytes for the same results."""
    return files.write_json(find_root() / "data" / "results" / "ledger.json", ledger())
