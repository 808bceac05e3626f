"""What recorded lines say about themselves: their edition, chosen values, runs that did not train, rounding."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from instructlab_repro.experiments.running import load
from instructlab_repro.experiments.spec import Value, did_not_train, trains
from instructlab_repro.experiments.stored import EDITIONS, predictions, results
from instructlab_utils import files

COSTS = ("seconds", "ms_per_step", "peak_memory_mb")  # how their names end; they differ in every run

EXTENDED = re.compile(r"-s\d+-x\d$")  # the end of the name of a block that extends a tuning grid
Place = tuple[tuple[str, Value], ...]


def edition(lines: Iterable[Mapping[str, Any]]) -> int | str | None:
    """The edition of the protocol that the lines follow: 1, 2 or "mixed"; None without lines."""
    found = {EDITIONS[line["schema"]] for line in lines}
    return next(iter(found), None) if len(found) < 2 else "mixed"


def chosen(name: str, profile: str = "laptop") -> dict[tuple[str, Place], dict[str, Any]]:
    """(method, place) → the ``values`` that its runs used, of how many ``tried``, and whether the grid was ``extended``.

    A place is a pair (axis, value) for each axis that was tuned value by value. Read from the recorded lines, so it
    holds for every edition; where runs of two editions differ, the newer ones count.
    """
    spec = load(name).at(profile)
    fixed = spec.tuning.places if spec.tuning is not None else spec.axes

    def cell(line: Mapping[str, Any]) -> tuple[str, Place]:
        return line["method"], tuple((axis, line[axis]) for axis in spec.axes if axis not in fixed)

    tried: dict[tuple[str, Place], dict[str, bool]] = defaultdict(dict)  # cell → values → by an extension
    for line in results(name, profile, "tune"):
        tried[cell(line)][files.dumps(line["tuned"])] = bool(EXTENDED.search(line["block"]))
    found = {}
    for line in sorted(results(name, profile), key=lambda line: line["schema"]):
        if line["tuned"]:
            each = tried[cell(line)].values()
            found[cell(line)] = {"values": line["tuned"], "tried": len(each), "extended": any(each)}
    return found


def judged(name: str, profile: str = "laptop") -> list[tuple[dict[str, Any], bool]]:
    """Each recorded run of a method that trains, and whether it did not train."""
    spec, found = load(name).at(profile), []
    cells = [*spec.axes, "method"]
    said = {tuple(row[c] for c in cells): row for row in predictions(name, profile)}
    for line in filter(trains, results(name, profile)):
        row = said.get(tuple(line[c] for c in cells), {})
        if "one_class" not in line and {"predictions", "targets"} <= row.keys():
            several = len(set(row["targets"].tolist())) > 1
            line["one_class"] = several and len(set(row["predictions"].tolist())) == 1
        found.append((line, did_not_train(line, spec)))
    return found


def untrained(name: str, profile: str = "laptop") -> dict[str, tuple[int, int]]:
    """Method → how many of its runs did not train, and how many there are; methods that train nothing are left out."""
    runs: dict[str, list[bool]] = defaultdict(list)
    for line, failed in judged(name, profile):
        runs[line["method"]].append(failed)
    return {method: (sum(failed), len(failed)) for method, failed in runs.items()}


def bands(name: str, profile: str = "laptop") -> dict[str, dict[str, float]]:
    """Method → metric → by how much a rounding twin differs from the run that it repeats; {} without twins.

    ``predictions_changed`` is the number of test examples that the twin predicts otherwise.
    """
    found: dict[str, dict[str, float]] = {}
    cells, runs = [*load(name).at(profile).axes, "method", "tuned"], results(name, profile)
    for twin in results(name, profile, "twin"):
        run = next((line for line in runs if all(line[c] == twin[c] for c in cells)), {})
        both = {k: v for k, v in twin.items() if isinstance(v, float) and isinstance(run.get(k), float)}
        moved = {k: abs(v - run[k]) for k, v in both.items() if not k.endswith(COSTS)}
        found[twin["method"]] = moved | {k: v for k, v in twin.items() if k == "predictions_changed"}
    return found
