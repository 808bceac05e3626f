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
    text = f"{found['statistic']}: {round(found['mean'], 6):+.3f} {_ends(found, ends)}"  # rounded as in the ledger
    if found["bootstrap"] is not None:
        text += f", bootstrap {_ends(found, found['bootstrap'])}"
    if found["basis"] is not None:
        text += f" over {found['basis']}"
    if found["seeds_only"] not in (None, ends):
        text += f", over seeds alone {_ends(found, found['seeds_only'])}"
    if found["censored"]:
        text += f", no crossing inside the axis for {found['censored']} seeds"
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


def _word(found: Mapping[str, Any]) -> str:
    return found["verdict"] if found["why"] is None else f"{found['verdict']}: {found['why']}"


def _several(found: Mapping[str, Any], basis: str) -> list[str]:
    parts, k = found["comparisons"], found["k"] or len(found["comparisons"])
    needed = f"{k} of {len(parts)} must hold"
    if found["edition"] != 2:
        needed += " after Holm"
    elif k == len(parts):
        needed += ", one refuted after Holm refutes"
    rows = [f"{_word(found)} ({needed}; {basis})"]
    for part in parts:
        p = "" if part["p"] is None else f", p = {part['p']:.3f} after Holm"
        p += f", interval {_ends(part, part['adjusted'])}" if part.get("adjusted") else ""
        rows.append(f"  {part['verdict']}: {_sentence(part)}; claimed to lie {_side(part)}{p}")
    return rows


def render(found: Mapping[str, Any]) -> str:
    """A verdict for a person: the claim, the word, the intervals that decide, then what stands beside them."""
    rows = [f"{found['claim']}: {found['statement']}"]
    basis = f"{found['confidence']:.0%} t interval over {len(found['seeds'])} seeds"
    if found["edition"] == 2:
        smallest = f", smallest effect of interest {found['smallest']:g}" if found["smallest"] else ""
        basis = f"{found['confidence']:.0%} interval, edition 2{smallest}"
    if found["argument"] is not None:
        text, test = found["argument"]["text"], found["argument"]["test"]
        rows.append(f"{found['verdict']}, by argument: {text} ({test})")
    elif found["experiment"] is None:
        rows.append("not tested: a draft, without an experiment")
    elif found["comparisons"]:
        rows += _several(found, basis)
    else:
        tests = "two one-sided t tests, " if found["kind"] == "equivalence" else ""
        beside = "; in brackets: each task's mean" if found["by_task"] else ""
        rows.append(f"{_word(found)} ({tests}{basis}, claimed to lie {_side(found)}{beside})")
        rows.append(f"  {_sentence(found)}")
    if found["secondary"]:
        rows.append("printed beside it, without a vote:")
        rows += [f"  {_sentence(other)}" for other in found["secondary"]]
    if missing := found["missing"]:
        rows.append(f"missing: {len(missing)} runs, the first: {missing[0]}")
    return "\n".join([*rows, *(text for flag, text in FLAGS.items() if found[flag])])


# --- the ledger ------------------------------------------------------------------------------------

NUMBERS = ("mean", "low", "high", "p", "threshold", "margin")
INTERVALS = ("bootstrap", "seeds_only", "adjusted")


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(value, 6) if isinstance(value, float) else value


def _short(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a row keeps of one statistic; what only edition 2 knows is left out where it is nothing."""
    kept = ("statistic", "verdict", "direction", "censored", "bootstrap", *NUMBERS)
    new = ("bounds", "basis", "seeds_only", "adjusted", "control", "ties")
    row = {key: found[key] for key in kept if key in found} | {
        key: found[key] for key in new if found.get(key)
    }
    return _rounded(row) | {"seeds": len(found["seeds"])}


def _path(pattern: str) -> str | None:
    root = find_root()
    found: list[Path] = sorted(root.glob(pattern))
    return found[0].relative_to(root).as_posix() if found else None


def ledger(profile: str = "laptop") -> list[dict[str, Any]]:
    """One row per claim, in the order of their numbers; numbers are rounded to six digits."""
    rows = []
    for name in names():
        found = verdict(name, profile)
        kept = "claim statement source kind k confidence expected experiment argument"
        row = {key: found[key] for key in kept.split()} | _short(found)
        row |= {key: [_short(part) for part in found[key]] for key in ("comparisons", "secondary")}
        stem = found["experiment"] if profile == "laptop" else f"{found['experiment']}.{profile}"
        row["table"] = (
            f"data/results/tables/{stem}.md" if found["edition"] else None
        )  # written after the ledger
        row |= {key: found[key] for key in ("edition", "why") if found[key] is not None}
        row["missing"] = len(found["missing"])
        row["flags"] = [flag for flag in FLAGS if found[flag]]
        row["lesson"] = _path(f"notebooks/{found['lesson']}_*.ipynb") or "planned"
        rows.append(row)
    return rows


def write_ledger() -> Path:
    """Write data/results/ledger.json: the laptop profile's rows, the same bytes for the same results."""
    return files.write_json(find_root() / "data" / "results" / "ledger.json", ledger())
