"""Before a grid is started: what effect each claim could see with the planned seeds and items, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from instructlab_repro.claims.claim import Claim, load, names
from instructlab_repro.claims.evidence import estimate, example_cells, numbers_of, own_items
from instructlab_repro.claims.statistic import AnyStatistic, per_seed
from instructlab_repro.claims.verdicts import Runs, recorded
from instructlab_repro.experiments import Experiment
from instructlab_utils.errors import RecordError
from instructlab_utils.intervals import Components, Estimate, components, power_of_t

ENOUGH = 0.8
MOST = 200  # seeds that are tried

Spread = Callable[[int, float], Estimate]  # of so many seeds and so many times the items


def _tuned(experiment: Experiment) -> list[dict[str, Any]] | None:
    """The lines of the tuning with the values that were chosen, as if they were runs; None while it goes on."""
    fixed, kept = experiment.tuning.places if experiment.tuning else {}, []
    try:
        lines = [x for b in experiment.blocks() if b.stage == "tune" for x in experiment.lines(b) or ()]
        for block in (b for b in experiment.blocks() if b.stage == "run"):
            if lines and block.coordinates["seed"] == experiment.axes["seed"][0]:
                for trial in experiment.trials(block):
                    place = {**block.coordinates, **trial.inside, "method": trial.method}
                    asked = {k: v for k, v in place.items() if k not in fixed} | {"tuned": dict(trial.tuned)}
                    kept += [{**x, "stage": "run"} for x in lines if asked.items() <= x.items()]
    except RecordError:
        return None
    return kept


def _on_tuning_seeds(statistic: AnyStatistic, kept: Any, runs: Runs) -> tuple[np.ndarray, str]:
    """The statistic on the tuning seeds, and where: of dev, where the lines lack its metric but have that of dev."""
    axes = {**runs.axes, **(runs.experiment.tuning.places if runs.experiment.tuning else {})}
    for metric in (statistic.metric, f"dev_{statistic.metric.removeprefix('test_')}"):
        found = per_seed(statistic.model_copy(update={"metric": metric}), kept, axes).values
        if len(found) >= 3:
            return found, "tuning seeds" + " on dev" * (metric != statistic.metric)
    return np.zeros(0), ""


def _spread(claim: Claim, statistic: AnyStatistic, runs: Runs, kept: Any) -> tuple[Spread, float, str] | None:
    """The error of a plan, the standard deviation of a seed, and where they come from; None with nothing recorded.

    Runs of another design count only where the tuning of today says nothing.
    """
    tuning, source = _on_tuning_seeds(statistic, kept or [], runs)
    old = runs.outdated()
    lines, earlier = [] if old and source else runs.lines, " of an earlier design" * old
    numbers = per_seed(statistic, lines, runs.axes)
    own, examples = own_items(claim, runs.stored, runs.axes), None
    if len(numbers.seeds) >= 2:
        cells = example_cells(statistic, runs.stored, lines, runs.axes, numbers.seeds)
        examples = numbers_of(statistic, cells)
        if claim.unit != "seed":
            one, basis = estimate(claim, statistic, numbers, examples, own)
            return lambda _, f: Estimate(0.0, one.error / f**0.5, one.df * f), one.error, basis + earlier
    if not source and len(numbers.seeds) < 2:
        return None
    values, source = (tuning, source) if source else (numbers.values, "seeds" + earlier)
    found = Components(float(values.var(ddof=1)), 0.0, 0.0, (len(values) - 1.0, np.inf))
    if examples is not None and not own and examples.shape[2] > 1:
        found = components(examples)
    return lambda k, f: found.estimate(0.0, k, f), float(values.std(ddof=1)), f"{len(values)} {source}"


def _power(claim: Claim, found: Estimate) -> float:
    """The chance that the claim is decided if the effect has the smallest size of interest (equivalence: if it is 0)."""
    assert claim.power is not None
    from scipy import special

    if claim.margin is None:
        sides = 1 if claim.power.sides == "one" else 2
        return power_of_t(claim.power.smallest, found.error, found.df, sides, claim.confidence)
    margin = claim.margin / found.error if found.error else np.inf
    reach = special.stdtr(found.df, margin - special.stdtrit(found.df, claim.confidence))
    return max(0.0, float(2 * reach - 1))


def _missing(claim: Claim, spreads: Sequence[Spread], seeds: int) -> tuple[str, float | None]:
    """What brings the power to 0.8 at the least cost, and how many times the present cost that is."""
    enough = []
    for times in (2**i for i in range(7)):
        for k in range(seeds, MOST + 1) if claim.unit == "seed" else (seeds,):
            if min(_power(claim, spread(k, times)) for spread in spreads) >= ENOUGH:
                enough.append((k * times / seeds, k, times))
                break
    if not enough:
        return f"more than {MOST} seeds", None
    cost, k, times = min(enough)
    unit = "item" if claim.unit == "seed" else claim.unit
    parts = [f"{k} seeds"] * (k > seeds) + [f"{times} times the {unit}s"] * (times > 1)
    return " and ".join(parts), cost


def _hours(experiment: Experiment) -> float | None:
    """CPU hours of the run blocks by earlier runs; None where none was timed."""
    seconds = [experiment.expected_seconds(b) for b in experiment.blocks() if b.stage == "run"]
    known = [each for each in seconds if each is not None]
    return sum(known) * len(seconds) / len(known) / 3600 if known else None


def plan(wanted: Sequence[str] = (), profile: str = "laptop") -> list[dict[str, Any]]:
    """A row per claim (default: all): ``planned`` is False without a [power] table or an experiment.

    ``smallest`` effect, ``sides``, ``spread`` (the least favourable part's), ``source`` of it, ``seeds``, ``items`` of
    each seed (None where no setting says), ``power``, ``missing`` to 0.8 (None: nothing), ``hours`` and
    ``hours_needed``; power and what follows are None where nothing is recorded yet.
    """
    known: dict[str, Any] = {}  # experiment → what its tuning chose, since claims share it
    return [_row(load(name), profile, known) for name in wanted or names()]


def _row(claim: Claim, profile: str, known: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"claim": claim.id, "planned": bool(claim.power and claim.experiment)}
    if claim.power is None or claim.experiment is None:
        return row
    runs = recorded(claim, profile)
    seeds = len(runs.axes["seed"])
    row |= claim.power.model_dump() | {"seeds": seeds, "items": runs.experiment.settings.get("test")}
    row |= {"power": None, "missing": None, "hours": _hours(runs.experiment), "hours_needed": None}
    if claim.experiment not in known:
        known[claim.experiment] = _tuned(runs.experiment)
    kept = known[claim.experiment]
    found = [each for s in claim.deciding if (each := _spread(claim, s, runs, kept)) is not None]
    if not found:
        return row
    row["spread"], row["source"] = max((sd, source) for _, sd, source in found)
    spreads = [spread for spread, _, _ in found]
    row["power"] = min(_power(claim, spread(seeds, 1.0)) for spread in spreads)
    if row["power"] < ENOUGH:
        row["missing"], times = _missing(claim, spreads, seeds)
        row["hours_needed"] = row["hours"] * times if row["hours"] and times else None
    return row


def plan_text(rows: Sequence[dict[str, Any]]) -> str:
    """The plan for a person, a line per claim; claims that are not planned share the last one."""
    text = []
    for row in (row for row in rows if row["planned"]):
        items = f" × {row['items']} items" if row["items"] else ""
        told = f"{row['claim']}: smallest effect {row['smallest']:g}, {row['sides']}-sided, {row['seeds']} seeds{items}"
        if row["power"] is None:
            told += ": power unknown, nothing is recorded yet"
        else:
            told += f", spread {row['spread']:.3g} ({row['source']}): power {row['power']:.2f}"
            told += f", {ENOUGH:g} needs {row['missing']}" if row["missing"] else ""
        hours = [h for h in (row["hours"], row["hours_needed"]) if h is not None]
        text.append(told + f"; {' → '.join(f'{h:.1f}' for h in hours)} CPU hours" * bool(hours))
    if left := [row["claim"] for row in rows if not row["planned"]]:
        text.append(f"not planned, without [power] or experiment: {', '.join(left)}")
    return "\n".join(text)
