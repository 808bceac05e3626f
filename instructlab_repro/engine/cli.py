"""The commands of ``python -m instructlab_utils``.

Exit codes: 0 ok, 1 a notebook failed, 2 wrong input, 3 aborted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from instructlab_repro import notebooks
from instructlab_repro.notebooks import kernels
from instructlab_utils import progress
from instructlab_utils.errors import CourseError, ParameterError
from instructlab_utils.project import PROFILES, find_root, resolve_profile, shown

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
# A full or protected disk; a path that is a file where a folder is meant, too long, or none of this system's.
DISK = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EEXIST,
        errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP}  # fmt: skip

Profile = Annotated[str, typer.Option(callback=resolve_profile, help="smoke, laptop or gpu")]
Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...")]
Check = Annotated[bool, typer.Option("--check", help="change nothing; exit 1 if something is stale")]
Pairs = Annotated[list[str] | None, typer.Option("--parameter", "-p", metavar="KEY VALUE", help="repeatable")]
Workers = Annotated[int | None, typer.Option(min=1, help="jobs at a time; else the executor's")]


@app.callback()
def about(
    root: Annotated[Path | None, typer.Option(help="a clone of the repository; else the one here")] = None,
) -> None:
    """Lessons on instructions and language models: fetch what they need, run them, reproduce results."""
    if root and not (root / "data" / "assets.toml").is_file():
        raise ParameterError(f"--root {root} is no clone of the repository: it has no data/assets.toml")
    os.environ.update({"INSTRUCTLAB_ROOT": str(root.resolve())} if root else {})


def main(argv: list[str] | None = None) -> None:
    """Run a command; a CourseError becomes one line on stderr and exit code 2."""
    args = _join_parameters(sys.argv[1:] if argv is None else argv)
    if argv is None:  # a command line, not a program's call
        chosen = kernels.chosen_environment(threads=None)
        os.environ.clear()
        os.environ.update(chosen)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # a forked process has another's streams, in UTF-8
            getattr(stream, "reconfigure", dict)(errors="replace")  # a terminal or pipe of another encoding
    try:
        script = Path(sys.argv[0]).stem == "instructlab" or any("-completion" in arg for arg in args)
        app(args=args, prog_name="instructlab" if script else "python -m instructlab_utils")
    except CourseError as error:
        said = str(error)
    except OSError as error:
        if error.errno not in DISK:
            raise
        where = f" at {error.filename}" if error.filename else ""
        said = f"cannot write{where}: {error.strerror}; nothing half-written is left"
    print(f"error: {said}", file=sys.stderr)
    raise SystemExit(2)


def _join_parameters(args: list[str]) -> list[str]:
    """``-p key value``, as papermill has it, becomes ``-p key=value``."""
    joined, rest = [], iter(args)
    for arg in rest:
        joined.append(arg)
        if arg in ("-p", "--parameter") and (key := next(rest, None)) is not None:
            value = None if "=" in key else next(rest, None)
            joined.append(key if value is None else f"{key}={value}")
    return joined


def _run(name: str, out: Path, profile: str, given: dict[str, str], **limits: Any) -> notebooks.Manifest:
    """Run one lesson or experiment notebook, given what was typed, and say how it ended."""
    lesson = notebooks.find(name)
    values = notebooks.check_parameters(notebooks.inspect_notebook(lesson.notebook), given, parse=True)
    limits["timeout"] = limits["timeout"] or max(900.0, 5 * 60 * lesson.minutes[profile])
    limits |= {"env": {"INSTRUCTLAB_PROFILE": profile}, "progress": progress.moves()}
    manifest = notebooks.run_notebook(lesson.notebook, out, values, **limits)
    _say(manifest, out)
    return manifest


def _say(manifest: notebooks.Manifest, out: Path) -> None:
    stream = sys.stdout if manifest.status == "ok" else sys.stderr
    print(notebooks.describe(manifest, out), file=stream)


@app.command()
def run(
    lesson: Annotated[str, typer.Argument(help="a lesson's number or name, or an experiment's name")],
    parameter: Pairs = None,
    profile: Profile = "auto",
    store: Annotated[bool, typer.Option("--store", help="keep the outputs in the lesson's notebook")] = False,
    timeout: Annotated[float | None, typer.Option(min=1, help="seconds for the whole notebook")] = None,
    threads: Annotated[int, typer.Option(min=1, help="more than one changes the last digits")] = 1,
    out: Annotated[Path | None, typer.Option(help="folder for the executed notebook, its results")] = None,
) -> None:
    """Run one notebook headlessly, its parameters checked."""
    given = dict(pair.partition("=")[::2] for pair in parameter or [])
    if empty := [pair for pair in parameter or [] if "=" not in pair]:
        raise ParameterError(f"-p {empty[0]} has no value; write -p {empty[0]} VALUE")
    if store and given:
        raise ParameterError("--store keeps the outputs of the default parameters; leave out -p")
    if store and profile != "laptop":
        raise ParameterError("--store keeps outputs of the laptop profile only; leave out --profile")
    notebooks.build([lesson])
    found = notebooks.find(lesson)
    out = out or find_root() / "build" / "run" / profile / found.source.stem
    manifest = _run(lesson, out, profile, given, timeout=timeout, threads=threads)
    if store and manifest.status == "ok":
        size = notebooks.store_outputs(out / manifest.executed, found)
        print(f"stored in notebooks/{found.notebook.name}, {size / 1000:.0f} KB")
    raise typer.Exit(manifest.exit_code)


@app.command("lesson-job", hidden=True)
def lesson_job(name: str, profile: Profile = "auto", timeout: float | None = None) -> None:
    """One lesson, as the Snakefile calls it."""
    lesson = notebooks.find(name)
    if not lesson.notebook.exists():
        notebooks.build([name])
    out = find_root() / "build" / profile / lesson.source.stem
    raise typer.Exit(_run(name, out, profile, {}, timeout=timeout).exit_code)


@app.command(hidden=True)
def block(experiment: str, block_id: str, profile: Profile = "auto", fresh: bool = False) -> None:
    """One block of an experiment, as the Snakefile calls it."""
    from instructlab_repro import experiments

    _, found = experiments.find_block(experiment, block_id, profile)
    manifest = experiments.run_block(experiment, block_id, profile, fresh=fresh)
    _say(manifest, found.out)
    raise typer.Exit(manifest.exit_code)


@app.command()
def course(profile: Profile = "smoke", workers: Workers = 2) -> None:
    """Fetch what the lessons need; run every lesson and one block of every experiment."""
    from instructlab_repro.engine.course import run_course

    raise typer.Exit(run_course(profile, workers))


@app.command()
def reproduce(
    names: Names = None,
    profile: Profile = "laptop",
    workers: Workers = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would run")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="run everything again")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="run a block of each again, and compare")] = False,
    executor: Annotated[str, typer.Option(help="local, slurm, or a Snakemake profile's folder")] = "local",
) -> None:
    """Run what is missing of the experiments, then write results, tables and verdicts."""
    from instructlab_repro.engine import course

    chosen = names or []
    if verify:
        raise typer.Exit(course.verify_experiments(chosen, profile, dry_run=dry_run))
    code = course.run_experiments(chosen, profile, workers, dry_run=dry_run, fresh=fresh, executor=executor)
    raise typer.Exit(code)


@app.command()
def explain(
    result: Annotated[str, typer.Argument(help="an experiment, EXPERIMENT/BLOCK, a claim, or results")],
    profile: Profile = "laptop",
) -> None:
    """Say what a result was made from, and what has changed since."""
    from instructlab_repro import claims as ledger

    print(ledger.explain(result, profile))


@app.command()
def fetch(
    only: Annotated[list[str] | None, typer.Option(help="an asset's name; may be repeated")] = None,
    needed: Annotated[bool, typer.Option("--needed", help="only what the present lessons need")] = False,
) -> None:
    """Bring the pinned models and data into the cache, verified."""
    from instructlab_repro import assets
    from instructlab_repro.engine.course import needed_assets

    for name, folder in assets.fetch(needed_assets() if needed else only or None).items():
        print(f"{name}: {folder}")


@app.command("notebooks")
def notebooks_command(
    names: Names = None,
    check: Check = False,
    discard: Annotated[
        bool, typer.Option("--discard", help="drop edits made in Jupyter; copies stay")
    ] = False,
) -> None:
    """Turn the text sources into notebooks; ids and outputs stay."""
    if check:
        differences = notebooks.check(names or None)
        print(*differences, sep="\n", end="\n" * bool(differences), file=sys.stderr)
        print(f"{len(differences)} differences" if differences else "notebooks and sources are in step")
        raise typer.Exit(1 if differences else 0)
    changed = [f"wrote {path.name}" for path in notebooks.build(names or None, discard=discard)]
    print("\n".join(changed) or "all notebooks are in step with their sources")


@app.command("import")
def import_command(notebook: Annotated[Path, typer.Argument(help="as edited in Jupyter")]) -> None:
    """Bring a notebook's edits back into its text source."""
    source = notebooks.import_back(notebook)
    notebooks.build([source.stem], discard=True)
    print(f"wrote {source.name}; look at `git diff` before you commit")


@app.command()
def new(
    kind: Annotated[str, typer.Argument(help="lesson, experiment, claim or task")],
    name: Annotated[str, typer.Argument(help="as 15_alignment, label_noise, C31 or causal-pairs")],
    notebook: Annotated[bool, typer.Option("--notebook", help="an experiment's own notebook")] = False,
) -> None:
    """Write the skeleton of a lesson, an experiment, a claim or a task."""
    from instructlab_repro.engine import new as skeletons

    for path in skeletons.new(kind, name, own_notebook=notebook):
        print(f"fill in {shown(path)}")
    print(f"then: {skeletons.next_step(kind, name)}")


@app.command("list")
def list_command() -> None:
    """The lessons and experiments, what they are for, and the minutes of each profile."""
    from instructlab_repro.pages import show

    for title, entries in (("lesson", notebooks.lessons()), ("experiment", notebooks.experiment_notebooks())):
        rows = [[title, "title", "what for", *PROFILES]]
        for e in entries.values():
            rows.append([e.id, e.title, e.outcome, *(f"{e.minutes[p]:g} min" for p in PROFILES)])
        show(rows, [True] * 3 + [False] * len(PROFILES))


@app.command()
def claims(
    names: Names = None,
    profile: Profile = "laptop",
    plan: Annotated[bool, typer.Option("--plan", help="effect, power and cost before a run")] = False,
) -> None:
    """The verdict on every claim, from the recorded results."""
    from instructlab_repro import claims as ledger

    if plan:
        print(ledger.plan_text(ledger.plan(names or (), profile)))
        return
    for name in names or ledger.names():
        print(ledger.render(ledger.verdict(name, profile)))


@app.command()
def table(
    names: Names = None,
    profile: Profile = "laptop",
    check: Check = False,
    measured: Annotated[bool, typer.Option("--measured", help="also the last `course` of here")] = False,
) -> None:
    """Write tables and figures from the recorded results, and the generated blocks of all pages."""
    from instructlab_repro.pages import write_tables

    raise typer.Exit(write_tables(names or [], profile, check=check, measured=measured))


@app.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
def bench(options: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """Measure the training loop against others; options go to benchmarks/bench.py."""
    raise typer.Exit(_script("benchmarks/bench.py", *(options or [])))


@app.command()
def classroom(out: Annotated[Path, typer.Option(help="for all files")] = Path("build/classroom")) -> None:
    """Make the student versions of the exercises, and grade two submissions as a proof."""
    from instructlab_repro.engine import classroom

    classroom.classroom(find_root() / out)


@app.command()
def drill(times: Annotated[int, typer.Option(min=1, help="rounds of each kind")] = 20, seed: int = 0) -> None:
    """Faults at random moments of a fetch, a training run and `reproduce`; the next call must finish with equal results."""
    kinds = ("fetch", "training", "reproduce")
    words = ("--times", str(times), "--seed", str(seed))
    raise typer.Exit(max(_script(f"tests/drill_{kind}.py", *words) for kind in kinds))


def _script(path: str, *arguments: str) -> int:
    """Run one of the repository's scripts; CourseError where it is not there (an installed package alone)."""
    import subprocess

    script = find_root() / path
    if not script.is_file():
        raise CourseError(f"{path} is not here; run this inside a clone of the repository")
    return subprocess.run([sys.executable, str(script), *arguments], cwd=find_root()).returncode
