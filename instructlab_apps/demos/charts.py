"""Line charts as SVG text, drawn by code and coloured by the page's style sheet, so that they fit light and dark.

Taught in lesson 26.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from instructlab_utils.errors import ParameterError

WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 40, 16, 46, 40
KINDS = ("", "second", "third")  # of a line: whole, dashed, dotted, so that grey is enough to tell them apart


@dataclass(frozen=True)
class Line:
    """A named line; ``xs`` and ``ys`` of one length, finite."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]


def percent(share: float) -> str:
    """A share as the pages write it: ``percent(0.256)`` is "26 %"."""
    return f"{100 * share:.0f} %"


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) within low … high, ``most`` at the most."""
    span = high - low
    if not (np.isfinite(span) and span > 0 and most >= 2):
        raise ParameterError(f"no ticks from {low} to {high}: give two finite ends, the lower one first")
    power = 10.0 ** np.floor(np.log10(span / most))
    step = next(power * k for k in (1, 2, 5, 10, 20) if span / (power * k) <= most - 1)
    return [
        float(round(k * step, 10))
        for k in range(int(np.ceil(low / step - 1e-9)), int(high / step + 1e-9) + 1)
    ]


def chart(
    lines: Sequence[Line],
    *,
    told: str,
    x: str,
    y: str,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    limit: tuple[str, float] | None = None,
    marks: Sequence[tuple[float, str]] = (),
    areas: Sequence[tuple[float, float]] = (),
) -> Markup:
    """The chart as an ``<svg role="img">`` whose text alternative is ``told``.

    ``x``, ``y``: names of the axes; ranges are fixed by the caller, and what lies outside is drawn at the border. ``limit``:
    a named horizontal line. ``marks``: places on the x axis with a letter, each a triangle at the top. ``areas``: shaded
    stretches of the x axis. ParameterError for more lines than kinds, uneven or infinite coordinates.
    """
    if len(lines) > len(KINDS) or any(len(line.xs) != len(line.ys) for line in lines):
        raise ParameterError(f"{len(lines)} lines: draw {len(KINDS)} at most, each with as many xs as ys")
    if not all(np.isfinite([*line.xs, *line.ys]).all() for line in lines):
        raise ParameterError("a coordinate is not finite: leave that point out")

    def across(value: float) -> float:
        share = (min(max(value, x_range[0]), x_range[1]) - x_range[0]) / (x_range[1] - x_range[0])
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def down(value: float) -> float:
        share = (min(max(value, y_range[0]), y_range[1]) - y_range[0]) / (y_range[1] - y_range[0])
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    floor, parts = HEIGHT - BOTTOM, []
    for begin, end in areas:
        left, right = across(begin), across(end)
        parts.append(
            f'<rect class="area" x="{left}" y="{TOP}" width="{round(right - left, 1)}" height="{floor - TOP}"/>'
        )
    for value in ticks(*y_range):
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down(value)}" y2="{down(value)}"/>'
        )
        parts.append(f'<text x="{LEFT - 6}" y="{down(value) + 4}" text-anchor="end">{value:g}</text>')
    for value in ticks(*x_range):
        parts.append(f'<text x="{across(value)}" y="{floor + 16}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>')
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x)}</text>'
    )
    if limit:
        level = down(limit[1])
        parts.append(f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{level}" y2="{level}"/>')
    at = LEFT
    for kind, line in zip(KINDS, lines, strict=False):
        points = " ".join(f"{across(a)},{down(b)}" for a, b in zip(line.xs, line.ys, strict=True))
        parts.append(f'<polyline class="line {kind}" points="{points}"/>')
        parts.append(f'<line class="line {kind}" x1="{at}" x2="{at + 24}" y1="14" y2="14"/>')
        parts.append(f'<text x="{at + 30}" y="18">{escape(line.name)}</text>')
        at += 46 + 7 * len(line.name)
    if limit:
        parts.append(f'<line class="limit" x1="{at}" x2="{at + 24}" y1="14" y2="14"/>')
        parts.append(f'<text x="{at + 30}" y="18">{escape(limit[0])}</text>')
    parts.append(f'<text x="4" y="34">{escape(y)}</text>')
    for place, letter in marks:
        middle = across(place)
        parts.append(f'<path class="mark" d="M{middle - 5},{TOP - 6} h10 l-5,9 z"/>')
        parts.append(f'<text class="strong" x="{middle + 7}" y="{TOP + 3}">{escape(letter)}</text>')
    head = f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(told)}">'
    return Markup(f"{head}{''.join(parts)}</svg>")  # every text in it is escaped above
