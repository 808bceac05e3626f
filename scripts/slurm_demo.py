"""The same small grid with real models, once through Slurm and once without: the results must be the same.

    python scripts/slurm_demo.py [--keep FOLDER]

Two clones of this repository's HEAD in a temporary folder, the smoke profile of `baselines` widened there to four seeds
and two training sizes: one tuning block and eight others. Slurm is started by scripts/slurm_single_node.sh unless one
is running, and stopped again if it was started here. Jobs inherit nothing from the caller, as on a strict cluster.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import tomli_w

ROOT = Path(__file__).resolve().parents[1]
SINGLE = ROOT / "scripts" / "slurm_single_node.sh"
SEEDS, SIZES, JOBS = [0, 1, 2, 3], [32, 48], 2
# What may differ between two runs of the same code; everything else must not.
VOLATILE = ("seconds", "cpu_seconds", "block_seconds", "peak_memory_mb")
COSTS = {"CPU seconds", "seconds", "peak memory", "cpu_seconds", "peak_memory_mb"}
MARKS = {".md": "|", ".csv": ",", ".tex": "&"}
FIELDS = "JobID:8,State:14,StartTime:22,EndTime:22,TimeUsed:8,NumCPUs:6,MinMemory:9,WorkDir:300,Comment:200"
# sbatch as a strict site has it: nothing of the caller's environment reaches the job.
SBATCH = """#!/bin/bash
arguments=()
for word in "$@"; do arguments+=("${word/#--export=ALL/--export=NIL}"); done
exec SBATCH "${arguments[@]}"
"""


@dataclass
class Report:
    """What was seen: wall seconds of both runs, Slurm's jobs, files compared, and how they differ."""

    slurm_seconds: float = 0.0
    local_seconds: float = 0.0
    jobs: list[dict[str, str]] = field(default_factory=list)
    at_once: int = 0
    compared: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    block_bytes: list[int] = field(default_factory=list)
    notebook_seconds: list[float] = field(default_factory=list)


def reason_to_skip() -> str:
    """Why no Slurm can be used here; empty where one can."""
    if shutil.which("sinfo") is None:
        return "no `sinfo`: Slurm is not installed"
    try:
        asked = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return "`scontrol ping` does not answer"
    return (
        "" if "is UP" in asked.stdout else "no Slurm controller answers; scripts/slurm_single_node.sh start"
    )


def clone(folder: Path) -> Path:
    """HEAD of this repository with the smoke profile of `baselines` widened to nine blocks."""
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(folder)], check=True)
    path = folder / "data" / "experiments" / "baselines.toml"
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    smoke = document["profiles"]["smoke"]
    smoke["axes"] |= {"n_train": SIZES, "seed": SEEDS}
    smoke["resources"] = smoke.get("resources", {}) | {"minutes": 30}  # a busy machine is not a failure
    smoke["settings_by"]["n_train"]["steps"]["48"] = 3
    path.write_text(tomli_w.dumps(document), encoding="utf-8")
    return folder


def reproduce(folder: Path, executor: str, *, strict: Path | None = None) -> float:
    """Run the grid in ``folder``; wall seconds. RuntimeError with the end of its output when it fails."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("INSTRUCTLAB_", "SLURM_", "PYTHONPATH"))}
    env["INSTRUCTLAB_HOME"] = str(Path(os.environ.get("INSTRUCTLAB_HOME", ROOT / ".cache")).resolve())
    if strict is not None:
        env["PATH"] = os.pathsep.join((str(strict), env["PATH"]))
    words = [sys.executable, "-m", "instructlab_utils", "reproduce", "baselines", "--profile", "smoke"]
    words += ["--executor", executor, "--workers", str(JOBS)]
    begin = time.monotonic()
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode:
        log = folder / "build" / "snakemake.log"
        tail = log.read_text(encoding="utf-8")[-3000:] if log.is_file() else ""
        raise RuntimeError(f"{executor}: code {done.returncode}\n{done.stdout}{done.stderr}\n{tail}")
    return time.monotonic() - begin


def slurm_jobs(folder: Path) -> list[dict[str, str]]:
    """The jobs of ``folder`` that Slurm remembers, in order; there is no slurmdbd, so squeue is asked and not sacct."""
    asked = ["squeue", "--noheader", "--states=all", f"--Format={FIELDS}"]
    text = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    rows = []
    for line in text.splitlines():
        row, at = {}, 0
        for name, width in (part.split(":") for part in FIELDS.split(",")):
            row[name] = line[at : at + int(width)].strip()
            at += int(width)
        if row["WorkDir"] == str(folder):
            rows.append(row)
    return sorted(rows, key=lambda row: int(row["JobID"]))


def most_at_once(jobs: list[dict[str, str]]) -> int:
    """The largest number of jobs that ran in the same second."""
    return max((sum(a["StartTime"] <= b["StartTime"] < a["EndTime"] for a in jobs) for b in jobs), default=0)


def results(folder: Path) -> dict[str, object]:
    """The aggregated files of build/results by name, without what may differ between two runs."""
    found: dict[str, object] = {}
    for path in sorted((folder / "build" / "results").rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".jsonl":
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            for line in lines:
                for key in VOLATILE:
                    line.pop(key, None)
                for key in ("commit", "dirty"):
                    line["environment"].pop(key, None)
            found[name] = lines
        elif path.suffix in MARKS:
            with path.open(encoding="utf-8", newline="") as stream:
                found[name] = without_costs(list(csv.reader(stream, delimiter=MARKS[path.suffix])))
        elif path.suffix == ".parquet":
            found[name] = path.read_bytes()
    return found


def without_costs(rows: list[list[str]]) -> list[list[str]]:
    """A table's rows without the columns of seconds and memory, below each head that names them."""
    kept, width, costs = [], 0, set[int]()
    for row in ([cell.strip(" \\") for cell in row] for row in rows):
        if COSTS & set(row):
            width, costs = len(row), {i for i, cell in enumerate(row) if cell in COSTS}
        kept.append([cell for i, cell in enumerate(row) if len(row) != width or i not in costs])
    return kept


def differences(one: dict[str, object], other: dict[str, object]) -> list[str]:
    """One sentence per file that is not the same in both."""
    found = [f"{name} is only in one of them" for name in sorted(set(one) ^ set(other))]
    for name in sorted(set(one) & set(other)):
        if one[name] != other[name]:
            found.append(f"{name} differs")
    return found


def run(folder: Path) -> Report:
    """Both runs below ``folder``, compared. A Slurm must be running."""
    report = Report()
    real = shutil.which("sbatch")
    assert real is not None
    strict = folder / "bin"
    strict.mkdir(parents=True)
    (strict / "sbatch").write_text(SBATCH.replace("SBATCH", real), encoding="utf-8")
    (strict / "sbatch").chmod(0o755)
    cluster, local = clone(folder / "slurm"), clone(folder / "local")
    report.slurm_seconds = reproduce(cluster, "slurm", strict=strict)
    report.jobs = slurm_jobs(cluster)
    report.at_once = most_at_once(report.jobs)
    report.local_seconds = reproduce(local, "local")
    one, other = results(cluster), results(local)
    report.compared, report.differences = sorted(one), differences(one, other)
    for out in sorted((cluster / "build" / "runs" / "baselines" / "smoke").iterdir()):
        report.block_bytes.append(sum(path.stat().st_size for path in out.iterdir()))
        report.notebook_seconds.append(json.loads((out / "manifest.json").read_text())["seconds"])
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it")
    options = parser.parse_args()
    started = bool(reason_to_skip())
    if started and (code := subprocess.run([SINGLE, "start"]).returncode):
        return code
    folder = (options.keep or Path(tempfile.mkdtemp(prefix="slurm-demo-"))).resolve()
    try:
        report = run(folder)
    finally:
        if started:
            subprocess.run([SINGLE, "stop"])
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    for job in report.jobs:
        block = job["Comment"].rsplit("_", 1)[-1]
        print(
            f"job {job['JobID']:>3} {job['State']:<10} {job['StartTime'][11:]} to {job['EndTime'][11:]}"
            f" {job['TimeUsed']:>5}  {job['NumCPUs']} CPU  {job['MinMemory']:>6}  {block}"
        )
    blocks = len(report.block_bytes)
    print(f"Slurm: {len(report.jobs)} jobs for {blocks} blocks, at most {report.at_once} at once")
    print(
        f"Slurm: {report.slurm_seconds:.0f} s; without: {report.local_seconds:.0f} s; {JOBS} jobs at a time in both"
    )
    spent = ", ".join(f"{seconds:.0f}" for seconds in report.notebook_seconds)
    print(f"seconds of the notebooks under Slurm, kernels included: {spent}")
    print(f"disk per block: {min(report.block_bytes)} to {max(report.block_bytes)} bytes")
    print(f"compared: {', '.join(report.compared)}")
    print("\n".join(report.differences) or "the results are the same")
    return 1 if report.differences else 0


if __name__ == "__main__":
    raise SystemExit(main())
