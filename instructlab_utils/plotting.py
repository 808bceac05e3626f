"""One style for all figures: colour-blind safe, readable in grey (every series has its own marker and line style)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
