"""From lines to a recommendation: scores on the same texts, paired differences, and words that say no more than they show.

A method counts as better than the best baseline where two things hold: the interval of the paired difference over test
texts leaves zero out, corrected for the number of comparisons, and every seed points the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from instructlab_apps.compare.contenders import BY_KEY, CONTENDERS
from instructlab_apps.compare.parts import DEV, LEAST_SEEDS, SEEDS
from instructlab_utils.intervals import Interval, paired_bootstrap, t_interval, wilson_interval
from instructlab_utils.metrics import macro_f1

MARGIN = 0.02  # a difference of two points is what "enough" leaves open
DRAWS = 1000
ENCODERS = ("frozen", "lora", "full")


@dataclass
class Standing:
    """A method on the common test texts: accuracies by seed, an interval over texts and one over seeds, macro F1,
    calibration error, and its price (seconds to train, seconds a text, bytes)."""

    key: str
    name: str
    called: str
    seeds: list[float]
    accuracy: Interval
    over_seeds: Interval
    macro_f1: float
    ece: float
    seconds: float
    per_text: float
    bytes: int
    value: float | None
    edge: bool
    hits: np.ndarray = field(repr=False, default_factory=lambda: np.zeros(0))
    guess: np.ndarray = field(repr=False, default_factory=lambda: np.zeros(0, dtype=int))
    sure: np.ndarray = field(repr=False, default_factory=lambda: np.zeros(0))


@dataclass
class Verdict:
    """``kind`` is none, enough, better or open; ``key`` the method to take; ``headline`` and ``reasons`` for the reader,
    ``caveats`` what it cannot say. ``differences`` are paired, each method minus the best baseline."""

    kind: str
    key: str
    headline: str
    reasons: list[str]
    caveats: list[str]
    baseline: str
    differences: dict[str, Interval]
    agree: dict[str, bool]


def cap(words: str) -> str:
    """With a capital letter, for the beginning of a sentence."""
    return words[:1].upper() + words[1:]


def standings(lines: Sequence[dict[str, Any]], y: np.ndarray, working: np.ndarray) -> list[Standing]:
    """All methods that have finished the common seeds, in order of price. The common seeds are those of the method that
    has fewest; methods that have fewer than three are left out."""
    runs: dict[str, dict[int, dict[str, Any]]] = {}
    for line in lines:
        if line["kind"] == "run":
            runs.setdefault(line["method"], {})[line["seed"]] = line
    runs = {key: mine for key, mine in runs.items() if len(mine) >= LEAST_SEEDS}
    a_text = next((x["seconds"] / max(1, x["texts"]) for x in lines if x["kind"] == "read"), 0.0)
    seeds = sorted(set.intersection(*(set(mine) for mine in runs.values()))) if runs else []
    found = []
    for one in CONTENDERS:
        if one.key not in runs or not seeds:
            continue
        mine = [runs[one.key][seed] for seed in seeds]
        rows = [np.array(line["rows"], dtype=int) for line in mine]
        keep = [working[r] for r in rows]
        place = np.concatenate([r[k] for r, k in zip(rows, keep, strict=True)])
        field_of = {
            name: np.concatenate([np.array(line[name])[k] for line, k in zip(mine, keep, strict=True)])
            for name in ("guess", "sure")
        }
        hits = (field_of["guess"] == y[place]).astype(float)
        per_seed = [
            float((np.array(line["guess"])[k] == y[r[k]]).mean())
            for line, r, k in zip(mine, rows, keep, strict=True)
        ]
        tried = [line["value"] for line in lines if line["kind"] == "trial" and line["method"] == one.key]
        value = mine[0]["value"]
        reading = a_text if one.key == "frozen" else 0.0  # others have it in their own times
        trained_on = (1 - DEV) * (1 - 1 / SEEDS) * working.sum()
        found.append(Standing(
            one.key, one.name, one.called, per_seed, wilson_interval(int(hits.sum()), len(hits)),
            t_interval(per_seed),
            macro_f1(y[place], field_of["guess"]),
            miscalibrated(field_of["sure"], hits),
            float(np.mean([line["seconds"] for line in mine])) + reading * trained_on,
            float(np.mean([line["per_text"] for line in mine])) + reading,
            int(mine[0]["bytes"]), value, bool(tried) and value in (min(tried), max(tried)) and len(tried) > 2,
            hits, field_of["guess"], field_of["sure"],
        ))  # fmt: skip
    return found


def judge(found: Sequence[Standing], dev_loss: dict[str, float], seeds: int) -> Verdict:
    """The recommendation. ``dev_loss`` chooses the best baseline (no test text does), ``seeds`` is how many are compared."""
    by = {one.key: one for one in found}
    trained = [k for k in ("words", "characters") if k in by]
    base = min(trained, key=lambda key: dev_loss.get(key, np.inf)) if trained else "majority"
    others = [one.key for one in found if one.key not in ("majority", base)]
    level = 1 - 0.05 / max(1, len(others) + 1)
    rival = next(
        (key for key in trained if key != base), None
    )  # to be better means: than both kinds of TF-IDF
    gaps = {key: paired_bootstrap(by[key].hits, by[base].hits, DRAWS, level) for key in others}
    above = {one.key: paired_bootstrap(one.hits, by["majority"].hits, DRAWS, level) for one in found
             if one.key != "majority"}  # fmt: skip
    agree = {key: _agree(by[key], by[base]) for key in others}
    beats = [k for k, gap in above.items() if gap.low > 0]
    better = [key for key in others if key != rival and gaps[key].low > 0 and agree[key] and key in beats]
    if rival:
        better = [k for k in better if paired_bootstrap(by[k].hits, by[rival].hits, DRAWS, level).low > 0]
        better += [rival] if gaps[rival].low > 0 and agree[rival] and rival in beats and not better else []
    reasons = [_told(by[key], by[base], gaps[key], agree[key]) for key in others]
    caveats: list[str] = []
    blind = not any(key in by for key in ENCODERS)
    if not beats:
        kind, key = "none", "majority"
        headline = "No method is shown to beat the majority class. Look at labels and texts before you train anything."
        reasons.insert(
            0,
            f"The majority class alone is right for {_share(by['majority'].accuracy.mean)} of the test texts.",
        )
    elif better:
        key = _cheapest_of_the_best(better, by)
        kind = "better"
        headline = (
            f"Take {by[key].called}: better than {by[base].called}, the best method without an encoder."
        )
    elif blind:
        kind, key = "open", base if base in beats else beats[0]
        headline = (
            f"Start with {by[key].called}. Whether an encoder is better was not tried: give more --minutes."
        )
    elif all(gap.high < MARGIN for gap in gaps.values()):
        kind, key = "enough", base if base in beats else beats[0]
        headline = f"{cap(by[key].called)} is enough: no other method is ahead of it by two points or more."
    else:
        kind, key = "open", base if base in beats else beats[0]
        most = max(gaps, key=lambda k: gaps[k].high)
        headline = (
            f"Cannot tell. Start with {by[key].called}, the cheap one: no method is shown to beat it, but "
            f"{by[most].called} may be up to {100 * gaps[most].high:.1f} points ahead."
        )
    caveats += _ahead(key, by)
    if blind and kind != "open":
        caveats.append("No encoder was tried: the time did not pay for one.")
    if seeds < 5:
        caveats.append(f"{seeds} seeds only: how much a run varies is hardly known.")
    return Verdict(kind, key, headline, reasons, caveats, base, gaps, agree)


def _agree(one: Standing, other: Standing) -> bool:
    """Whether ``one`` is ahead in every seed."""
    return all(a > b for a, b in zip(one.seeds, other.seeds, strict=True))


def _cheapest_of_the_best(better: Sequence[str], by: dict[str, Standing]) -> str:
    """Of the methods that beat the baseline the cheapest that is not shown to be worse than the most accurate."""
    top = max(better, key=lambda key: by[key].accuracy.mean)
    for key in [one for one in by if one in better]:  # in order of price
        if key == top or paired_bootstrap(by[top].hits, by[key].hits, DRAWS).low <= 0:
            return key
    return top


def _ahead(key: str, by: dict[str, Standing]) -> list[str]:
    """One sentence for every method that scores higher than the recommended one on the test texts, by either score."""
    said, mine = [], by[key]
    for one in by.values():
        points = 100 * (one.accuracy.mean - mine.accuracy.mean)
        if points > 0:
            low = paired_bootstrap(one.hits, mine.hits, DRAWS).low
            sure = "and the interval leaves zero out" if low > 0 else "which may be luck"
            said.append(
                f"On these test texts {one.called} is {points:.1f} points ahead of {mine.called}, {sure}."
            )
        elif one.macro_f1 > mine.macro_f1 + 0.01:
            said.append(
                f"By macro F1, which counts a rare class like a frequent one, {one.called} is ahead of {mine.called} "
                f"({one.macro_f1:.2f} against {mine.macro_f1:.2f})."
            )
    return said


def _told(one: Standing, base: Standing, gap: Interval, agree: bool) -> str:
    places = f"{100 * gap.mean:+.1f} points [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]".replace("-", "−")
    if gap.low > 0:
        what = "better" if agree else "better on all texts together, but not in every seed"
    elif gap.high < 0:
        what = "worse"
    else:
        what = "not shown to differ"
    return f"{cap(one.called)} against {base.called}: {places}, {what}."


def _share(x: float) -> str:
    return f"{100 * x:.1f} %"


def binned(sure: np.ndarray, hits: np.ndarray, bins: int = 10) -> list[tuple[float, float, int]]:
    """Mean confidence, accuracy and number of texts of each bin that has some, from the unsure to the sure; the bins are
    those of `metrics.expected_calibration_error`."""
    where = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    return [
        (float(sure[where == b].mean()), float(hits[where == b].mean()), int((where == b).sum()))
        for b in range(bins)
        if (where == b).any()
    ]


def miscalibrated(sure: np.ndarray, hits: np.ndarray) -> float:
    """`metrics.expected_calibration_error` from what is kept of each text: confidence and hit, no probabilities."""
    return float(sum(n * abs(told - true) for told, true, n in binned(sure, hits)) / max(1, len(hits)))


def suspects(lines: Sequence[dict[str, Any]], y: np.ndarray, most: int = 25) -> list[dict[str, Any]]:
    """Texts whose label the models contradict with confidence, though none of them has learned from the text.

    Each has ``place``, ``guess``, ``votes`` of ``voters`` and ``sure``, the mean over the voters of p(guess) − p(label);
    only those where more than half of the voters, and two at least if there are two, name the same other class.
    """
    seen: dict[int, list[tuple[int, float, float]]] = {}
    for line in lines:
        if line["kind"] in ("run", "beside") and line["method"] in BY_KEY and line["method"] != "majority":
            for row, guess, sure, own in zip(
                line["rows"], line["guess"], line["sure"], line["own"], strict=True
            ):
                seen.setdefault(row, []).append((guess, sure, own))
    found = []
    for place, votes in seen.items():
        guesses = [guess for guess, _, _ in votes]
        best = max(set(guesses), key=lambda g: (guesses.count(g), -g))
        count = guesses.count(best)
        if best != y[place] and 2 * count > len(votes) and count >= min(2, len(votes)):
            lead = sum((sure if guess == best else 0.0) - own for guess, sure, own in votes) / len(votes)
            found.append({"place": place, "guess": best, "votes": count, "voters": len(votes), "sure": lead})
    return sorted(found, key=lambda one: (-one["sure"], one["place"]))[:most]


def confused(
    one: Standing, y: np.ndarray, names: Sequence[str], most: int = 8
) -> list[tuple[str, str, int, int]]:
    """The commonest mistakes: label, guess, how often, and how many test texts have that label."""
    pairs: dict[tuple[int, int], int] = {}
    for truth, guess in zip(y.tolist(), one.guess.tolist(), strict=True):
        if truth != guess:
            pairs[truth, guess] = pairs.get((truth, guess), 0) + 1
    ordered = sorted(pairs.items(), key=lambda item: -item[1])[:most]
    return [(names[a], names[b], count, int((y == a).sum())) for (a, b), count in ordered]
