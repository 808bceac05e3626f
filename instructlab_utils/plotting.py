"""One style for all figures: colour-blind safe, readable in grey (every series has its own marker and line style).

From lesson 00 on.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from instructlab_utils.run import Run

# Okabe and Ito's palette (2008), ordered so that neighbours also differ in lightness.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000", "#999933")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":", "-", "--", "-.", ":")
RC = {
    "figure.dpi": 110,
    "savefig.dpi": 110,
    "savefig.bbox": "tight",
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}
_ANGLES = [
    math.radians(degrees)
    for degrees in (0, 180, 45, 135, 315, 225, 90, 270, 20, 160, 200, 340, 70, 110, 250, 290)
]
_LINE = {"arrowstyle": "-", "linewidth": 0.4, "color": "grey", "shrinkA": 0, "shrinkB": 2}


def style(index: int) -> dict[str, Any]:
    """Colour, marker and line style of series ``index``, for ``ax.plot(**style(i))``."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": LINES[index % len(LINES)],
    }


def axes(
    rows: int = 1, columns: int = 1, *, width: float = 4.2, height: float = 3.2, **kwargs: Any
) -> tuple[Figure, Any]:
    """A figure and its axes in the course's style; width and height are inches per panel."""
    import matplotlib.pyplot as plt

    plt.rcParams.update(RC)
    return plt.subplots(rows, columns, figsize=(width * columns, height * rows), **kwargs)


def show(run: Run, figure: Figure, name: str) -> None:
    """Save the figure as ``name`` and show it in 128 colours, so that the stored notebook stays small (lesson 15)."""
    import matplotlib.pyplot as plt
    from IPython.display import Image as Picture
    from IPython.display import display
    from PIL import Image

    data = io.BytesIO()
    Image.open(run.figure(figure, name)).convert("RGB").quantize(128).save(data, "PNG", optimize=True)
    plt.close(figure)
    display(Picture(data.getvalue()))


def dots(panel: Any, values: Mapping[str, Sequence[float]], title: str) -> None:
    """One row for each name, from the top: a dot for each of its values (one a seed), a bar at their mean (lesson 17)."""
    names = list(values)[::-1]
    for place, name in enumerate(names):
        found = list(values[name])
        panel.plot(found, [place] * len(found), "o", color=COLOURS[0], alpha=0.5, markersize=4)
        if found:
            panel.plot(sum(found) / len(found), place, "|", color="black", markersize=16, markeredgewidth=2)
    panel.set(title=title, yticks=range(len(names)), yticklabels=names, ylim=(-0.5, max(1, len(names)) - 0.5))
    panel.tick_params(axis="y", labelsize=7)


def label_points(
    panel: Any, x: Sequence[float], y: Sequence[float], texts: Sequence[str], **kwargs: Any
) -> None:
    """Write ``texts`` beside the points, each where it covers no other text and no point, tied to it by a thin line.

    Call it last: the limits of ``panel`` are fixed here. ``kwargs`` go to ``panel.annotate``. Where no free place is left,
    the one with the least overlap is taken. ValueError for a point that is not finite: it has no place.
    """
    if not all(map(math.isfinite, [*x, *y])):
        raise ValueError("a point is not finite: leave it out, or say in words where it would be")
    from matplotlib.transforms import Bbox

    panel.figure.draw_without_rendering()
    panel.set(xlim=panel.get_xlim(), ylim=panel.get_ylim())
    inside, dots = panel.get_window_extent(), panel.transData.transform(list(zip(x, y, strict=True)))
    taken, pixels = [Bbox.from_bounds(a - 4, b - 4, 8, 8) for a, b in dots], panel.figure.dpi / 72
    around = [(r * math.cos(t), r * math.sin(t)) for r in (9, 14, 20, 27, 35, 45, 60, 80) for t in _ANGLES]
    style = {"ha": "center", "va": "center", "fontsize": 7, **kwargs}
    for (a, b), at, text in zip(dots, zip(x, y, strict=True), texts, strict=True):
        trial = panel.text(0, 0, text, **style)
        width, height = trial.get_window_extent().size + 2
        trial.remove()
        found = []
        for dx, dy in around:
            box = Bbox.from_bounds(a + pixels * dx - width / 2, b + pixels * dy - height / 2, width, height)
            lost = width * height - _shared(box, inside) + sum(_shared(box, other) for other in taken)
            found.append((round(lost), (dx, dy), box))
        _, place, box = min(found, key=lambda each: each[0])  # of equals the nearest
        note = panel.annotate(text, at, place, textcoords="offset points", arrowprops=_LINE, **style)
        note.set_in_layout(False)
        taken.append(box)


def _shared(a: Any, b: Any) -> float:
    """The area in pixels that two boxes have in common."""
    width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
    return max(width, 0.0) * max(height, 0.0)
