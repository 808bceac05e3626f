"""What a lesson shows of the recorded experiments: their lines, tables and figures, and the verdicts on claims.

The only module of the engine that a lesson imports. It reads data/results/ and runs nothing.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from instructlab_repro import claims, experiments
from instructlab_repro.pages import tables

if TYPE_CHECKING:
    from IPython.display import HTML

experiment = experiments.load  # the grid: .axes, .methods, .labels, .claims, .at(profile)
predictions = experiments.predictions
untrained = experiments.untrained  # method → runs that did not train, and all runs
verdict = claims.verdict
figure = tables.figure


def results(name: str, stage: str = "run") -> list[dict[str, Any]]:
    """The recorded lines of an experiment's laptop profile; stage "tune" holds what chose the rates. [] before a run."""
    return experiments.results(name, stage=stage)


def table(name: str, *metrics: str) -> HTML:
    """The tables of these metrics (default: the experiment's first), or a sentence where nothing is recorded yet."""
    from IPython.display import HTML

    if not results(name):
        return HTML(f"no results yet: make reproduce EXPERIMENT={name}")
    return HTML("<br>".join(tables.html(name, metric=metric) for metric in metrics or (None,)))


def show(*names: str) -> None:
    """Print these claims with their verdicts, and the intervals that decide."""
    print("\n\n".join(claims.render(verdict(name)) for name in names))


def dots(panel: Any, name: str, metric: str, title: str, *methods: str, **at: Any) -> None:
    """A row for each method (default: all): a dot for each line with the values ``at``, a bar at their mean."""
    from instructlab_utils import plotting

    spec, lines = experiment(name), [x for x in results(name) if all(x.get(k) == v for k, v in at.items())]
    rows = {
        m: [x[metric] for x in lines if x["method"] == m and x.get(metric) is not None]
        for m in methods or spec.methods
    }
    plotting.dots(panel, {spec.labels[m]: values for m, values in rows.items()}, title)


def folded(name: str, *names: str) -> HTML:
    """The claims ``names`` with their intervals, and the table of experiment ``name``, behind one line to open."""
    from IPython.display import HTML

    told = html.escape("\n\n".join(claims.render(verdict(claim)) for claim in names))
    told = f"<pre style='white-space: pre-wrap'>{told}</pre>{table(name).data}"
    return HTML(f"<details><summary>{', '.join(names)}: intervals, and the table</summary>{told}</details>")


def words(*names: str) -> dict[str, str]:
    """Claim → supported, refuted, undecided or not tested."""
    return {name: verdict(name)["verdict"] for name in names}
