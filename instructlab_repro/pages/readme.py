"""What the program writes into README.md, LEDGER.md and docs/, block by block, and the tables beside them."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instructlab_repro import claims, experiments, notebooks
from instructlab_repro.claims import repeat
from instructlab_repro.notebooks import exercises
from instructlab_repro.pages import ledger, tables
from instructlab_repro.pages.markdown import check_blocks, grid, render, update_blocks
from instructlab_utils.files import read_json
from instructlab_utils.project import find_root

REMEMBER = ("C23", "LR6", "H3", "Z3", "AE3")  # decided beyond doubt; README tells them
LINK = re.compile(r"\]\((?!https?:|#)")


def paths() -> list[Path]:
    """The pages with generated blocks that exist: README.md, LEDGER.md, TEACHING.md, docs/*.md."""
    root = find_root()
    found = [root / "README.md", root / "LEDGER.md", root / "TEACHING.md", *sorted(root.glob("docs/*.md"))]
    return [path for path in found if path.is_file()]


def for_page(page: Path, blocks: Mapping[str, str]) -> Mapping[str, str]:
    """The blocks, whose links start at the project's root, with links that start at the page's folder."""
    if page.parent == find_root():
        return blocks
    return {name: LINK.sub("](../", text) for name, text in blocks.items()}


def blocks(*, measured: bool = False) -> dict[str, str]:
    """The text of the generated blocks by name, of the laptop's results, links from the root.

    ``measured`` adds ``course``, the table of the last `make course` on this machine; it changes with every run.
    """
    found = {
        "claims": ledger.table(),
        "ledger-page": ledger.page(),
        "remember": ledger.remember(REMEMBER),
        "lessons": lesson_table(),
        "teaching": teaching_table(),
        "before": before_table(),
        "experiments": experiment_table(),
        **tables.generated(),
    }
    for name in experiments.names():
        if repeat.study_path(name).is_file():
            found[f"determinism-{name}"] = study_table(name)
    if measured and (path := find_root() / "build" / "smoke" / "summary.md").is_file():
        found["course"] = path.read_text(encoding="utf-8").split("\n\n", 1)[1]
    return found


def lesson_table() -> str:
    """The lessons: what you will be able to do, and the minutes on a laptop."""
    rows = [["lesson", "you will be able to", "minutes"]]
    for lesson in notebooks.lessons().values():
        link = f"[{lesson.id} {lesson.title}](notebooks/{lesson.notebook.name})"
        rows.append([link, lesson.outcome, f"{lesson.minutes['laptop']:g}"])
    return grid(rows, [True, True, False]) + "\n"


def teaching_table() -> str:
    """For a teacher: the minutes of each lesson in class, those of its exercises, and their graded points."""
    rows = [["lesson", "reading and running, in class", "exercises, minutes", "graded points"]]
    sources = exercises.sources()
    for lesson in notebooks.lessons().values():
        boxes = exercises.load(sources[lesson.id]) if lesson.id in sources else []
        minutes = notebooks.read_header(lesson.source)["instructlab"].get("class_minutes", "?")
        sums = [sum(box.minutes for box in boxes), sum(box.points for box in boxes)]
        rows.append([f"{lesson.id} {lesson.title}", f"{minutes} minutes", *map(str, sums)])
    return grid(rows, [True, False, False, False]) + "\n"


def before_table() -> str:
    """What each lesson expects of its reader, as its first cell says it."""
    rows = [["for", "you need"]]
    for lesson in notebooks.lessons().values():
        said = re.search(r"^# \| before this \| (.+) \|$", lesson.source.read_text("utf-8"), re.MULTILINE)
        rows.append([lesson.id, said[1] if said else ""])
    return grid(rows, [True, True]) + "\n"


def experiment_table() -> str:
    """The experiments: what they compare, which claims they test, and their table."""
    rows = [["experiment", "compares", "claims", "table"]]
    for name in experiments.names():
        experiment = experiments.load(name)
        tested = ", ".join(f"[{claim}](LEDGER.md#{claim.lower()})" for claim in experiment.claims)
        there = experiments.results(name)
        table = f"[{name}](data/results/tables/{name}.md)" if there else "not run yet"
        rows.append([f"[{name}]({experiments.FOLDER}/{name}.toml)", experiment.title, tested, table])
    return grid(rows, [True] * 4) + "\n"


def study_table(name: str, profile: str = "laptop") -> str:
    """The determinism study: per method and condition, how many runs are equal to the last bit, and the band."""
    found, experiment = read_json(repeat.study_path(name, profile)), experiments.load(name).at(profile)
    metrics = [table.metric for table in experiment.tables]
    metrics += ["test_loss"] * any("test_loss" in run["metrics"] for run in found["conditions"][0]["runs"])
    for run in (run for condition in found["conditions"] for run in condition["runs"]):
        run["same"] = not run["differences"] and not run["predictions_changed"]

    def worst(runs: list[dict[str, Any]], metric: str) -> float:
        return max(abs(run["differences"].get(metric, 0.0)) for run in runs)

    values = dict(found=found, experiment=experiment, metrics=metrics, worst=worst)
    return render("determinism.md.j2", **values, margin=repeat.MARGIN, least=repeat.LEAST) + "\n"


def write_tables(names: list[str], profile: str, *, check: bool = False, measured: bool = False) -> int:
    """Write the tables and figures of the named experiments (default: all), the ledger, and the blocks of the pages.

    ``check`` changes nothing and says which blocks are out of date; the exit code.
    """
    root = find_root()
    if check:
        now = blocks()
        stale = [line for page in paths() for line in check_blocks(page, for_page(page, now))]
        print("\n".join(stale), end="\n" * bool(stale), file=sys.stderr)
        return 1 if stale else 0
    if profile == "laptop":
        print(f"wrote {claims.write_ledger().relative_to(root)}")  # first: the tables quote its verdicts
    for name in names or experiments.names():
        if not experiments.results(name, profile):
            print(f"{name}: no {profile} results yet", file=sys.stderr)
            continue
        for path in tables.write(name, profile):
            print(f"wrote {path.relative_to(root)}")
    if profile == "laptop" and (pages := paths()):
        now = blocks(measured=measured)
        for page in pages:
            for block in update_blocks(page, for_page(page, now)):
                print(f"{page.name}: block {block!r} renewed")
    return 0
