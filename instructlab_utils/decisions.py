"""From intervals to words: when a claim, or one of several parts of a claim, is supported, refuted or undecided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from instructlab_utils.intervals import Estimate, holm


@dataclass(frozen=True)
class PartWord:
    """The word of one part alone, and the p-values of the tests that would support or refute it. Lesson 03."""

    word: str
    p_for: float
    p_against: float


def decide(
    found: Estimate,
    direction: str,
    threshold: float = 0.0,
    smallest: float | None = None,
    sides: str = "two",
    level: float = 0.95,
) -> PartWord:
    """One part by itself: supported or refuted where the interval lies wholly on one side of the threshold.

    ``direction`` is greater or less. Where the threshold is 0, an effect wholly inside ± ``smallest``, the smallest of
    interest, is refuted, also if its sign is as claimed: it exists in no size that matters. With ``sides`` "one" it is
    supported by the interval at 2 level - 1; what refutes by the other side is always two-sided. ValueError for another
    direction or other sides, a level outside (0, 1), a smallest effect that is not positive. Lesson 03.
    """
    if direction not in ("greater", "less") or sides not in ("one", "two") or not 0 < level < 1:
        raise ValueError(
            f"{direction!r}, {sides!r}, {level}: need greater or less, one or two, a level in (0, 1)"
        )
    if smallest is not None and not smallest > 0:
        raise ValueError(f"the smallest effect of interest is {smallest}: it must be positive")
    p = found.p_value(threshold)
    right = (found.mean > threshold) == (direction == "greater")
    p_for = (p / 2 if sides == "one" else p) if right else 1.0
    small = found.tost(smallest) if smallest is not None and threshold == 0 else 1.0
    p_against = min(small, 1.0 if right else p)
    word = "refuted" if p_against < 1 - level else "supported" if p_for < 1 - level else "undecided"
    return PartWord(word, p_for, p_against)


def decide_equivalence(found: Estimate, margin: float, level: float = 0.95) -> str:
    """supported if two one-sided tests say |mean| < margin, refuted if the interval lies wholly outside.

    ValueError for a margin that is not positive or a level outside (0, 1). Source: Schuirmann (1987). Lesson 03.
    """
    if not (margin > 0 and 0 < level < 1):
        raise ValueError(f"margin {margin}, level {level}: need a positive margin, a level in (0, 1)")
    if found.tost(margin) < 1 - level:
        return "supported"
    interval = found.interval(level)
    return "refuted" if interval.low > margin or interval.high < -margin else "undecided"


def decide_several(
    parts: Sequence[PartWord], k: int, level: float = 0.95, edition: int = 2
) -> tuple[str, list[str], list[float | None]]:
    """The word over several parts of which ``k`` are needed, each part's word, and p-values after Holm.

    Edition 1: a part counts when its two-sided p-value is below 1 - level after Holm. Edition 2: each part has the word
    that it has alone; all needed: supported if each part is (no correction: an intersection-union test),
    refuted if one is after Holm; ``k`` of them needed: both after Holm. There p is None where Holm judges nothing.
    ValueError unless 1 <= k <= number of parts. Sources: Holm (1979); Berger (1982). Lesson 03.
    """
    if not 1 <= k <= len(parts):
        raise ValueError(f"{k} of {len(parts)} parts cannot be needed")
    against, in_favour = (holm([getattr(part, name) for part in parts]) for name in ("p_against", "p_for"))
    both = holm([min(part.p_against, part.p_for) for part in parts])
    after: list[float | None] = []
    words = []
    for i, part in enumerate(parts):
        p = both[i] if edition == 1 else (against if part.word == "refuted" else in_favour)[i]
        judged = edition == 1 or part.word == "refuted" or (part.word == "supported" and k < len(parts))
        after.append(float(p) if judged else None)
        words.append("undecided" if judged and p >= 1 - level else part.word)
    whole = "undecided"
    if words.count("supported") >= k:
        whole = "supported"
    elif words.count("refuted") > len(parts) - k:
        whole = "refuted"
    return whole, words if edition == 1 else [part.word for part in parts], after


def holm_level(p_values: Sequence[float], place: int, level: float) -> float:
    """The level of the interval that Holm's procedure compares with the threshold for the part at ``place``. Lesson 03.

    ValueError for a place outside the family, where a negative one would count from the end.
    """
    if not 0 <= place < len(p_values):
        raise ValueError(f"place {place} of {len(p_values)} p-values")
    rank = int(np.argsort(np.argsort(p_values, kind="stable"), kind="stable")[place])
    return 1 - (1 - level) / (len(p_values) - rank)
