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
from instructlab_repro.pages.markdown import check_blocks, grid, update_blocks
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


def blocks(profile: str = "laptop", *, measured: bool = False) -> dict[str, str]:
    """The text of the generated blocks by name, links from the root.

    ``measured`` adds ``course``, the table of the last `make course` on this machine; it changes with every run.
    """
    found = {
        "claims": ledger.table(profile),
        "ledger-page": ledger.page(profile),
        "remember": ledger.remember(REMEMBER, profile),
        "lessons": lesson_table(),
        "teaching": teaching_table(),
        "before": before_table(),
        "experiments": experiment_table(profile),
        **tables.generated(profile),
    }
    for name in experiments.names():
        if repeat.study_path(name, profile).is_file():
            found[f"determinism-{name}"] = study_table(name, profile)
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


def experiment_table(profile: str = "laptop") -> str:
    """The experiments: what they compare, which claims they test, and their table."""
    rows = [["experiment", "compares", "claims", "table"]]
    for name in experiments.names():
        experiment = experiments.load(name)
        tested = ", ".join(f"[{claim}](LEDGER.md#{claim.lower()})" for claim in experiment.claims)
        there = bool(experiments.results(name, profile))
        table = f"[{name}](data/results/tables/{name}.md)" if there else "not run yet"
        rows.append([f"[{name}]({experiments.FOLDER}/{name}.toml)", experiment.title, tested, table])
    return grid(rows, [True] * 4) + "\n"


def study_table(name: str, profile: str = "laptop") -> str:
    """The determinism study: per method and condition, how many runs are equal to the last bit, and the band."""
    found, experiment = read_json(repeat.study_path(name, profile)), experiments.load(name).at(profile)
    metrics = [table.metric for table in experiment.tables]
    metrics += ["test_loss"] * any("test_loss" in run["metrics"] for run in found["conditions"][0]["runs"])

    def count(number: int, word: str) -> str:
        return f"{number} {word}{'s' * (number != 1)}"

    def outcome(runs: list[dict[str, Any]]) -> str:
        same = sum(not run["differences"] and not run["predictions_changed"] for run in runs)
        worst = {m: max(abs(run["differences"].get(m, 0.0)) for run in runs) for m in metrics}
        largest = "; largest " + ", ".join(f"{m} {v:.2g}" for m, v in worst.items())
        return f"{same} of {len(runs)} equal" + largest * (same < len(runs))

    heads = [f"{count(c['workers'], 'worker')}, {count(c['threads'], 'thread')}" for c in found["conditions"]]
    rows = [["method", *heads, *(f"band: {metric}" for metric in metrics)]]
    for method in experiment.methods:
        by_condition = [[run for run in c["runs"] if run["method"] == method] for c in found["conditions"]]
        bands = found["bands"][method]
        told = [f"± {bands[metric]:.2g}" if metric in bands else "–" for metric in metrics]
        rows.append([experiment.labels.get(method, method), *map(outcome, by_condition), *told])
    env, threads = found["environment"], count(found["reference"][0], "thread")
    note = (
        f"Blocks {', '.join(found['blocks'])}, run again and compared with the recorded results ({threads}); "
        f"{env['cpu']}, torch {env['torch']}, {found['date']}. A band is {repeat.MARGIN:g} times the largest "
        f"difference seen, and at least one test example, or {repeat.LEAST:g} for a loss."
    )
    return f"{grid(rows, [True] * len(rows[0]))}\n\n{note}\n"


def write_tables(names: list[str], profile: str, *, check: bool = False, measured: bool = False) -> int:
    """Write the tables and figures of the named experiments (default: all), the ledger, and the blocks of the pages.

    ``check`` changes nothing and says which blocks are out of date; the exit code.
    """
    root = find_root()
    if check:
        now = blocks(profile)
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
        now = blocks(profile, measured=measured)
        for page in pages:
            for block in update_blocks(page, for_page(page, now)):
                print(f"{page.name}: block {block!r} renewed")
    return 0
