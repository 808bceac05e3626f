"""`make course`: fetch what the lessons need, run every lesson and one block of every experiment, sum up.

One notebook that fails does not stop the others; it is named at the end, with its cell and its exception.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from instructlab_repro import assets, experiments, notebooks
from instructlab_repro.engine import jobs, snakemake
from instructlab_repro.engine.jobs import Job
from instructlab_repro.engine.snakemake import GraphResult
from instructlab_repro.notebooks import runner
from instructlab_repro.pages import grid, show, write_tables
from instructlab_utils import cache
from instructlab_utils.errors import AssetError
from instructlab_utils.files import write_json, write_text
from instructlab_utils.progress import bar_or_lines
from instructlab_utils.project import find_root, shown

ENDED = ("ok", "failed", "aborted")
PREPARE = """import sys; from instructlab_utils import tasks
[tasks.load(name) for name in tasks.names() if tasks.asset_of(name) in sys.argv[1:]]"""


def course_targets(profile: str) -> list[str]:
    """All lessons, and of every experiment the first block that gives results."""
    targets = ["lessons"] if notebooks.lessons() else []
    for name in experiments.names():
        blocks = experiments.load(name).at(profile).blocks()
        targets.append(f"{name}/{next(block.id for block in blocks if block.stage == 'run')}")
    return targets


def needed_assets(names: list[str] | None = None) -> list[str]:
    """The assets that the named lessons and experiments declare (default: all), in the catalogue's order."""
    known = notebooks.everything() if names is None else [notebooks.find(name) for name in names]
    wanted = {asset: one.source.name for one in known for asset in one.assets}
    catalogue = list(assets.catalogue()) if wanted else []
    for asset, source in wanted.items():
        if asset not in catalogue:
            raise AssetError(f"{source} declares {asset!r}, which data/assets.toml does not hold")
    return [asset for asset in catalogue if asset in wanted]


def ready(names: list[str]) -> bool:
    """Whether all these assets lie in the cache, without reading them through."""
    with contextlib.suppress(AssetError):
        return all(cache.folder(name) for name in names)
    return False


def prepare(names: list[str]) -> None:
    """Build the notebooks that are not there, fetch the assets, and make the tasks' splits once, not in a race."""
    if unbuilt := [lesson.id for lesson in notebooks.everything() if not lesson.notebook.exists()]:
        notebooks.build(unbuilt)
    if not names:
        return
    assets.fetch(names, progress=True)
    # in a process of its own: this one waits for the notebooks, and should not hold the libraries' memory
    done = subprocess.run([sys.executable, "-c", PREPARE, *names], stderr=subprocess.PIPE)
    if done.returncode:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise AssetError(f"the tasks could not be prepared: {last.split(': ', 1)[-1]}")


def run_course(profile: str = "smoke", workers: int | None = 2) -> int:
    """Fetch, prepare, run, sum up; the exit code. What is up to date is neither fetched nor run again."""
    _warn_if_out_of_step()
    targets = course_targets(profile)
    wanted = needed_assets()
    had_all = ready(wanted)
    if not had_all:
        print(f"assets: {', '.join(wanted)} (fetched once, into {shown(cache.home())})")
    if not had_all or not all(job.done for job in jobs.all_jobs(targets, profile)):
        prepare(wanted)
    with progress() as on_progress:
        result = snakemake.run_graph(targets, profile, workers, on_progress=on_progress)
    return report(result, profile, fetched=not had_all)


def run_experiments(
    names: list[str],
    profile: str,
    workers: int | None = None,
    *,
    dry_run: bool = False,
    fresh: bool = False,
    executor: str = "local",
) -> int:
    """Run what is missing of the named experiments (default: all); then results, tables, verdicts. The exit code."""
    from instructlab_repro import claims

    _warn_if_out_of_step()
    chosen = names or experiments.names()
    loaded = [experiments.load(name) for name in chosen]
    wanted = jobs.all_jobs(chosen, profile)
    left = [job for job in wanted if fresh or not job.done]
    if dry_run:
        print(plan(wanted, left, workers or 2))  # 2, as profiles/local has it
        return 0
    code = 0
    if left:
        prepare(needed_assets([experiment.notebook for experiment in loaded]))
        planned = [c for one in loaded for c in one.claims if profile != "smoke" and claims.load(c).power]
        tuned = {claims.load(claim).experiment for claim in planned}
        first = [job.name for job in left if "/tune-" in job.name and job.name.split("/")[0] in tuned]
        how: dict[str, Any] = {"fresh": fresh, "executor": executor}
        with progress() as on_progress:
            # what the tuned values let a claim see is said before the results are there
            if first and not fresh:
                snakemake.run_graph(first, profile, workers, executor=executor, on_progress=on_progress)
                print(claims.plan_text(claims.plan(planned, profile)), flush=True)
            result = snakemake.run_graph(chosen, profile, workers, **how, on_progress=on_progress)
        code = report(result, profile, name="reproduce")
    else:
        snakemake.end_killed()
        print(f"The recorded results cover today's experiments: {', '.join(chosen)}; nothing was run.")
    for experiment in loaded:
        found = experiments.aggregate(experiment, profile)
        if found.changed:
            claims.keep_bootstraps(experiment, profile, found.left_out)
        blocks = len({line["block"] for line in found.lines})
        changed = ", changed" if found.changed else ""
        print(f"{shown(found.path)}: {len(found.lines)} runs in {blocks} blocks{changed}")
        for block, reason in found.refused.items():
            print(f"  refused {block}: {reason}", file=sys.stderr)
        if found.missing:
            print(f"  {len(found.missing)} cells missing, the first: {found.missing[0]}", file=sys.stderr)
        for note in found.notes:
            print(f"  {note}", file=sys.stderr)
    return max(code, write_tables(chosen, profile))


def plan(jobs: list[Job], left: list[Job], workers: int) -> str:
    """What would run, how long it should take by earlier runs, and what is there."""
    rows = []
    for job in left:
        time = f"about {job.expected:.0f} s" if job.expected else "never timed"
        rows.append(f"{job.name}: {job.why or 'again'}, {time}")
    text = f"{len(jobs) - len(left)} of {len(jobs)} blocks are there, {len(left)} would run"
    if seconds := sum(job.expected for job in left):
        text += f": about {seconds / workers / 60:.0f} min with {workers} workers by earlier runs"
    if untimed := sum(not job.expected for job in left):
        text += f", {untimed} of them never timed"
    return "\n".join([*rows, text + "."])


def verify_experiments(names: list[str], profile: str, *, dry_run: bool = False) -> int:
    """Run one block of each named experiment (default: all with results) again; 1 if any differs, else 0.

    ``dry_run``: only say of which; 0.
    """
    from instructlab_repro.claims import repeat

    code = 0
    chosen = names or [n for n in experiments.names() if experiments.results(n, profile)]
    if dry_run:
        print("\n".join(f"{name}: a block of it would run again" for name in chosen))
        return 0
    for name in chosen:
        prepare(needed_assets([experiments.load(name).notebook]))
        word, text = repeat.verify(name, profile)
        print(text, file=sys.stderr if word == "different" else sys.stdout)
        code = max(code, int(word == "different"))
    if profile == "laptop":
        write_tables([], profile)  # the ledger says so where something is stale
    return code


# --- for a person who waits -------------------------------------------------------------------------


@contextlib.contextmanager
def progress() -> Iterator[Callable[[list[Job]], None]]:
    """A line for each notebook that has ended; in a terminal also a bar, and what runs at the moment."""
    told: set[str] = set()
    with bar_or_lines(unit="notebook", delay=1) as bar:

        def show(jobs: list[Job]) -> None:
            bar.total = len(jobs)
            for job in jobs:
                if job.status in ENDED and job.name not in told:
                    told.add(job.name)
                    seconds, memory = _cost(job)
                    bar.write(f"{job.name}: {job.status}, {seconds} s, {memory}", file=sys.stderr)
                    bar.update()
            bar.set_postfix_str(", ".join(job.name for job in jobs if job.status == "running"))

        yield show


def report(result: GraphResult, profile: str, *, fetched: bool = False, name: str = "summary") -> int:
    """Print the table and what failed, write it to build/<profile>/<name>.md and .json; returns the exit code."""
    folder = find_root() / "build" / profile
    rows, left = [("notebook", "status", "seconds", "peak memory")], [True, True, False, False]
    entries = []
    for job in sorted([*result.current, *result.ran], key=lambda job: ("/" in job.name, job.name)):
        current = job in result.current
        title = job.name if "/" in job.name else job.notebook.stem
        rows.append((title, f"{job.status}{', up to date' if current else ''}", *_cost(job)))
        facts = {"notebook": job.name, "status": job.status, "up_to_date": current, "error": job.error}
        facts |= {name: getattr(job.manifest, name, None) for name in ("seconds", "peak_memory_mb")}
        entries.append(facts | {"executed": shown(job.out / "executed.ipynb")})
    show(rows, left)
    for job in result.bad:
        print(_failure(job), file=sys.stderr)
    sentence = _sentence(result, folder, fetched)
    print(sentence)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    head = f"# Profile {profile}, {when}\n\n{sentence}\n\n"
    write_text(folder / f"{name}.md", f"{head}{grid(rows, left)}\n")
    seconds = round(result.seconds, 1)
    summary = {"profile": profile, "written": when, "seconds": seconds, "notebooks": entries}
    write_json(folder / f"{name}.json", summary)
    return result.exit_code


def _sentence(result: GraphResult, folder: Path, fetched: bool) -> str:
    if not result.ran:
        got = "the assets were fetched again" if fetched else "nothing was fetched"
        return f"Up to date, all {len(result.current)} notebooks: {got}, nothing was run."
    kept = f", {len(result.current)} more up to date" if result.current else ""
    ended = f"{len(result.bad)} of them did not end well" if result.bad else "all ok"
    where = f"executed notebooks under {shown(folder.parent)}/"
    return f"Notebooks run: {len(result.ran)}, {ended}{kept}, {result.seconds:.0f} s in all; {where}."


def _failure(job: Job) -> str:
    """What went wrong in a job: cell, exception and partial notebook, as the runner tells it."""
    if job.manifest and job.status in ENDED:
        return runner.describe(job.manifest, job.out)
    reason = "cut off" if job.manifest else "not run: it ended too soon, or a job before it failed"
    return f"{job.name}: {reason}"


def _cost(job: Job) -> tuple[str, str]:
    """Seconds and peak memory; empty for a job that did not run."""
    run = job.manifest
    return (f"{run.seconds:.1f}", f"{run.peak_memory_mb:.0f} MB") if run else ("", "")


def _warn_if_out_of_step() -> None:
    """The notebooks run as they are; an author who has edited a source, or a notebook, should hear of it."""
    told = [line.split(": ", 1) for line in notebooks.check()]
    names = sorted({Path(name).name for name, what in told if not what.startswith(("missing", "no source"))})
    if names:
        said = f"note: not in step with their sources, `notebooks --check` says more: {', '.join(names)}"
        print(said, file=sys.stderr)
