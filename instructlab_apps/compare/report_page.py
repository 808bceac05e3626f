"""The report: one HTML file that needs no network and no script, and a table of the labels to check.

Everything that comes from the reader's file goes through Jinja2's escaping; nothing of it is a link, an image or a style.
"""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from instructlab_apps.compare import drawings, verdict
from instructlab_apps.compare.audit import Findings
from instructlab_apps.compare.contenders import BY_KEY
from instructlab_apps.compare.contest import Contest, shares_of
from instructlab_apps.compare.curve import Curve, learned
from instructlab_apps.compare.intake import Intake
from instructlab_utils import files

SHOWN = 240  # characters of a text in the report


def environment() -> jinja2.Environment:
    """Templates with autoescape; an unknown name is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def report(contest: Contest, data: Intake, found: Findings, told: dict[str, Any]) -> dict[str, Any]:
    """Write ``report.html``, ``labels_to_check.csv`` and ``summary.json`` into the folder; returns the summary.

    ``told`` has ``file``, ``text``, ``label``, ``model`` ("" for the built-in one), ``minutes`` and ``command``.
    """
    y, lines = contest.y, contest.lines
    standing = verdict.standings(lines, y, contest.parts.working)
    losses: dict[str, float] = {}
    for line in lines:
        if line["kind"] == "trial":
            losses[line["method"]] = min(line["dev_loss"], losses.get(line["method"], np.inf))
    seeds = len(standing[0].seeds)
    judged = verdict.judge(standing, losses, seeds)
    chosen = next(one for one in standing if one.key == judged.key)
    tested = np.concatenate([contest.parts.test(seed, working=True) for seed in range(seeds)])
    curves = learning_curves(contest, judged.baseline)
    doubtful = [_shown(one, contest, data, found) for one in verdict.suspects(lines, y)]
    majority = next(one for one in standing if one.key == "majority")
    trained = [one for one in standing if one.key != "majority"]
    best = chosen if chosen.key != "majority" else max(trained, key=lambda one: one.accuracy.mean)
    context = {
        **told, "verdict": judged, "standings": standing, "chosen": chosen, "found": found, "data": data,
        "seeds": seeds, "tests": len(tested), "notes": [line["text"] for line in lines if line["kind"] == "note"],
        "plan": contest.plan, "curves": curves, "suspects": doubtful, "best": best,
        "confused": verdict.confused(best, y[tested], contest.names), "forest": drawings.forest(standing, judged.key),
        "learning": drawings.learning(curves, majority.accuracy.mean) if curves else "",
        "reliability": drawings.reliability(best), "cannot": cannot_say(contest, found, standing, told),
        "used": len(y), "names": contest.names, "counts": shares_of(contest.names, y), "trials": contest.clock.trials,
        "seconds": lines[-1]["elapsed"], "today": datetime.now(UTC).strftime("%Y-%m-%d"), "cut": cut,
        "contradictions": [_contradiction(places, data) for places in found.contradictions[:10]],
        "near_labels": sum(data.label[a] != data.label[b] for a, b in found.near),
        "knob": {key: one.knob for key, one in BY_KEY.items()}, "size": size, "capital": verdict.cap,
        "called": {key: one.called for key, one in BY_KEY.items()}, "seconds_of": seconds,
    }  # fmt: skip
    page = environment().get_template("report.html.j2").render(context)
    files.write_text(contest.folder / "report.html", page)
    files.write_text(contest.folder / "labels_to_check.csv", table_of(doubtful))
    summary = {
        "recommendation": judged.key, "kind": judged.kind, "headline": judged.headline, "caveats": judged.caveats,
        "accuracy": {one.key: one.accuracy.mean for one in standing},
        "macro_f1": {one.key: one.macro_f1 for one in standing}, "seeds": seeds, "tests": len(tested),
        "baseline": judged.baseline, "warnings": found.warnings, "suspects": [one["line"] for one in doubtful],
    }  # fmt: skip
    files.write_json(contest.folder / "summary.json", summary)
    return summary


def learning_curves(contest: Contest, baseline: str) -> list[Curve]:
    """Those of the best TF-IDF and of frozen features, where they have been measured."""
    found = []
    for method in (baseline, "frozen"):
        working = method == "frozen"
        finals = {
            line["seed"]: (
                len(contest.parts.train(line["seed"], working)),
                _hits(line, contest.y),
                len(line["rows"]),
            )
            for line in contest.of("run", method=method)
        }
        if known := contest.of("most", method=method):
            finals = {
                seed: (min(n, known[0]["rows"]), hits, rows) for seed, (n, hits, rows) in finals.items()
            }
        if one := learned(contest.lines, method, finals):
            found.append(one)
    return found


def _hits(line: dict[str, Any], y: np.ndarray) -> float:
    return float((np.array(line["guess"]) == y[line["rows"]]).mean())


def _shown(one: dict[str, Any], contest: Contest, data: Intake, found: Findings) -> dict[str, Any]:
    place = found.keep[one["place"]]
    return {
        "line": data.line[place], "text": data.text[place], "label": data.names[data.label[place]],
        "guess": contest.names[one["guess"]], "votes": one["votes"], "voters": one["voters"], "sure": one["sure"],
    }  # fmt: skip


def _contradiction(places: list[int], data: Intake) -> dict[str, Any]:
    told = sorted({data.names[data.label[i]] for i in places})
    return {"lines": [data.line[i] for i in places][:8], "labels": told, "text": data.text[places[0]]}


def cut(text: str, most: int = SHOWN) -> str:
    """The beginning of a text in one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def size(n: float) -> str:
    """Bytes as a person says them."""
    for unit in ("B", "KB", "MB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "B" or n >= 10 else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} GB"


def seconds(x: float) -> str:
    """Seconds as a person says them."""
    if x < 0.001:
        return f"{1e6 * x:.0f} µs"
    return f"{1000 * x:.0f} ms" if x < 1 else f"{x:.1f} s" if x < 100 else f"{x / 60:.1f} min"


def table_of(doubtful: list[dict[str, Any]]) -> str:
    """The labels to check as CSV. A cell that a spreadsheet would take for a formula gets an apostrophe before it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["line", "label", "models_say", "votes", "voters", "text"])
    for one in doubtful:
        cells = [one["line"], one["label"], one["guess"], one["votes"], one["voters"], one["text"]]
        writer.writerow([harmless(cell) if isinstance(cell, str) else cell for cell in cells])
    return "\ufeff" + out.getvalue()


def harmless(cell: str) -> str:
    """``cell``, with an apostrophe before what spreadsheets compute."""
    return (
        f"'{cell}"
        if cell.lstrip(" \t\r\n")[:1] in ("=", "+", "-", "@") or (cell[:1] in "\t\r\n" and cell)
        else cell
    )


def cannot_say(
    contest: Contest,
    found: Findings,
    standing: list[verdict.Standing],
    told: dict[str, Any],
) -> list[str]:
    """What this comparison does not show, in sentences."""
    said = [
        "Whether the scores hold for texts of another source, another year or another writer: all texts are of one file.",
        "Whether the labels are right: a method that repeats the mistakes of the labels scores well here.",
    ]
    if found.small:
        few = ", ".join(f"“{cut(name, 24)}” ({n})" for name, n in found.small[-5:])
        said.append(
            f"How good any method is on rare labels: {len(found.small)} of {len(contest.names)} have fewer than six "
            f"different texts, such as {few}."
        )
    if edge := [one.name for one in standing if one.edge]:
        said.append(
            f"How good a better setting would be: {contest.clock.trials} values were tried for each method, and the best was "
            f"the smallest or the largest of them for {', '.join(edge)}."
        )
    if contest.clock.trials < 3:
        said.append("How good a better setting would be: only two values were tried for each method.")
    if not told["model"]:
        said.append(
            "What a larger encoder, or one made for this field or language, would do: give one with --model."
        )
    if contest.plan is None or not contest.plan.methods:
        said.append("What tuning an encoder would bring: the time did not pay for it.")
    said.append(
        "How the methods treat groups of people, and what they do under attack: see lessons 19 and 22."
    )
    return said
