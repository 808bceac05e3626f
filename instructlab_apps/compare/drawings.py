"""Figures of the report as SVG: lines and dots in the page's colours, readable in grey, at 390 pixels, in the dark.

A drawing has a viewBox of 360 units, so that its letters keep a readable size on a telephone. Every text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape

from instructlab_apps.compare.curve import Curve
from instructlab_apps.compare.verdict import Standing, binned
from instructlab_apps.demos.charts import ticks

WIDE, LEFT, RIGHT = 360, 128, 12


def _tag(name: str, text: str = "", **fields: Any) -> str:
    told = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in fields.items())
    return f"<{name}{told}>{escape(text)}</{name}>"


def _frame(height: float, label: str, inner: Sequence[str]) -> Markup:
    head = f'<svg viewBox="0 0 {WIDE} {height:.0f}" role="img" aria-label="{escape(label)}">'
    return Markup(head + "".join(inner) + "</svg>")


def _round(x: float) -> float:
    return round(x, 1)


def forest(found: Sequence[Standing], chosen: str) -> Markup:
    """Accuracy of each method: a dot a seed, a bar for the interval over test texts, the majority as a dashed line."""
    majority = next((one.accuracy.mean for one in found if one.key == "majority"), 0.0)
    ends = [end for one in found for end in (one.accuracy.low, one.accuracy.high, *one.seeds)]
    low, high = max(0.0, min([*ends, majority]) - 0.03), min(1.0, max(ends) + 0.03)
    row, top = 30, 8

    def x(value: float) -> float:
        return _round(LEFT + (WIDE - LEFT - RIGHT) * (value - low) / (high - low))

    bottom, inner = top + row * len(found), []
    for tick in ticks(low, high):
        inner.append(_tag("line", x1=x(tick), x2=x(tick), y1=top, y2=bottom, class_="grid"))
        inner.append(
            _tag("text", f"{100 * tick:.0f}", x=x(tick), y=bottom + 13, text_anchor="middle", class_="tick")
        )
    inner.append(_tag("line", x1=x(majority), x2=x(majority), y1=top, y2=bottom, class_="line dashed"))
    for i, one in enumerate(found):
        y = top + row * (i + 0.5)
        strong = " chosen" if one.key == chosen else ""
        inner.append(_tag("text", one.name, x=LEFT - 8, y=y + 4, text_anchor="end", class_="name" + strong))
        a, b = x(one.accuracy.low), x(one.accuracy.high)
        inner.append(
            _tag("rect", x=a, y=y - 4, width=_round(max(b - a, 1)), height=8, rx=3, class_="bar" + strong)
        )
        for value in one.seeds:
            inner.append(_tag("circle", cx=x(value), cy=y, r=2.6, class_="dot"))
    inner.append(_tag("text", "accuracy, %", x=WIDE - RIGHT, y=bottom + 27, text_anchor="end", class_="tick"))
    said = "; ".join(f"{one.name} {100 * one.accuracy.mean:.1f} %" for one in found)
    return _frame(bottom + 32, f"Accuracy by method: {said}", inner)


def learning(curves: Sequence[Curve], majority: float) -> Markup:
    """Accuracy against the number of labels (log scale); the first curve full, the second dashed, bands ahead in grey."""
    sizes = [n for one in curves for n, *_ in (*one.points, *(one.ahead if one.passed else ()))]
    values = [v for one in curves for point in one.points for v in point[1:]] + [majority]
    values += [v for one in curves if one.passed for point in one.ahead for v in point[1:]]
    low, high = max(0.0, min(values) - 0.03), min(1.0, max(values) + 0.03)
    left, top, bottom = 38, 10, 190
    first, last = math.log(min(sizes)), math.log(max(sizes))

    def x(n: float) -> float:
        return _round(left + (WIDE - left - RIGHT) * (math.log(n) - first) / max(last - first, 1e-9))

    def y(value: float) -> float:
        return _round(bottom - (bottom - top) * (value - low) / (high - low))

    inner = []
    for tick in ticks(low, high):
        inner.append(_tag("line", x1=left, x2=WIDE - RIGHT, y1=y(tick), y2=y(tick), class_="grid"))
        inner.append(
            _tag("text", f"{100 * tick:.0f}", x=left - 5, y=y(tick) + 4, text_anchor="end", class_="tick")
        )
    for n in sorted({point[0] for point in curves[0].points} | {max(sizes)}):
        inner.append(
            _tag("text", f"{n:,}", x=min(x(n), WIDE - 18), y=bottom + 14, text_anchor="middle", class_="tick")
        )
    inner.append(_tag("line", x1=left, x2=WIDE - RIGHT, y1=y(majority), y2=y(majority), class_="line dashed"))
    for i, one in enumerate(curves):
        if one.passed:
            edge = [f"{x(n)},{y(v)}" for n, v, _, _ in one.ahead] + [
                f"{x(n)},{y(v)}" for n, _, _, v in one.ahead[::-1]
            ]
            inner.append(_tag("polygon", points=" ".join(edge), class_="band"))
        path = " ".join(f"{x(n)},{y(mean)}" for n, mean, _, _ in one.points)
        inner.append(_tag("polyline", points=path, class_=f"line curve{' dotted' if i else ''}"))
        for n, mean, worst, best in one.points:
            inner.append(_tag("line", x1=x(n), x2=x(n), y1=y(worst), y2=y(best), class_="line thin"))
            inner.append(
                _tag("circle", cx=x(n), cy=y(mean), r=3 if not i else 2.4, class_="dot" if not i else "ring")
            )
    inner.append(
        _tag("text", "labels to learn from", x=WIDE - RIGHT, y=bottom + 29, text_anchor="end", class_="tick")
    )
    said = "; ".join(f"{one.method} from {one.points[0][1]:.2f} to {one.points[-1][1]:.2f}" for one in curves)
    return _frame(bottom + 36, f"Accuracy by number of labels: {said}", inner)


def reliability(one: Standing) -> Markup:
    """Accuracy against confidence in ten bins; on the diagonal a model is as right as it says. Large dots: many texts."""
    left, top, side = 60, 10, 200
    points = binned(one.sure, one.hits)
    most = max(n for _, _, n in points)

    def x(value: float) -> float:
        return _round(left + side * value)

    def y(value: float) -> float:
        return _round(top + side * (1 - value))

    inner = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        inner.append(_tag("line", x1=left, x2=left + side, y1=y(tick), y2=y(tick), class_="grid"))
        inner.append(
            _tag("text", f"{100 * tick:.0f}", x=left - 5, y=y(tick) + 4, text_anchor="end", class_="tick")
        )
        inner.append(
            _tag(
                "text", f"{100 * tick:.0f}", x=x(tick), y=top + side + 14, text_anchor="middle", class_="tick"
            )
        )
    inner.append(_tag("line", x1=x(0), y1=y(0), x2=x(1), y2=y(1), class_="line dashed"))
    for told, true, n in points:
        inner.append(
            _tag("circle", cx=x(told), cy=y(true), r=_round(2.5 + 6 * (n / most) ** 0.5), class_="dot soft")
        )
    inner.append(
        _tag("text", "confidence, %", x=left + side, y=top + side + 29, text_anchor="end", class_="tick")
    )
    inner.append(_tag("text", "right, %", x=left + 4, y=top + 10, class_="tick"))
    said = "; ".join(f"{told:.2f} says, {true:.2f} right, {n} texts" for told, true, n in points)
    return _frame(top + side + 36, f"Confidence and accuracy of {one.name}: {said}", inner)
