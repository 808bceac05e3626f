"""`doctor`: what this machine offers, what the cache of assets holds, a command for what is wrong, and what to do next."""

from __future__ import annotations

import json
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from instructlab_repro import assets, notebooks, provenance
from instructlab_repro.engine.course import needed_assets
from instructlab_utils import cache
from instructlab_utils.project import clone, text_of

LEAST_MEMORY = 3.0  # GiB; the largest lesson takes nearly that in the smoke profile


def examine(*, deep: bool = False) -> dict[str, Any]:
    """What this machine offers, what the cache holds, and how far the course is.

    Keys: python, platform, versions (package → version or None), locked (the same of requirements.lock), device, cores,
    memory_gb (GiB), gemm_gflops (float32, one thread, in 10⁹ FLOP/s; None without torch), home, free_gb (GB), assets
    (name → {state: "ready" or what is wrong, disk_mb, needed}), clone (its folder or ""), ours (whether make's
    environment runs), course ({} or status → notebooks of the last `course`). ``deep`` compares the SHA-256 of every
    file. ConfigError if data/assets.toml is malformed.
    """
    import psutil

    told, facts, root = provenance.environment(), _measure(), clone()
    facts |= {name: told[name] for name in ("python", "platform")}
    facts["versions"] = dict.fromkeys(provenance.PACKAGES) | told["packages"]
    nowhere = Path(os.devnull)  # no file lies in it
    facts["locked"], facts["course"] = _locked(root or nowhere), _course(root or nowhere)
    facts["cores"] = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts["memory_gb"] = round(psutil.virtual_memory().total / 2**30, 1)
    facts |= {"home": str(cache.home()), "free_gb": round(assets.free_bytes(cache.home()) / 1e9, 1)}
    facts["clone"], facts["ours"] = str(root or ""), Path(sys.prefix) == (root or Path()) / ".venv"
    states = {name: cache.wrong(name, deep=deep) or "ready" for name in assets.catalogue()}
    needed = set(needed_assets()) if root and notebooks.lessons() else set(states)
    held = {name: {"state": states[name], "disk_mb": asset.disk_mb, "needed": name in needed}
            for name, asset in assets.catalogue().items()}  # fmt: skip
    return facts | {"assets": held}


def _locked(root: Path) -> dict[str, str]:
    with suppress(OSError):
        lines = text_of(root / "requirements.lock").splitlines()
        pairs = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
        return {name: pairs[name] for name in provenance.PACKAGES if name in pairs}
    return {}


def _course(root: Path) -> dict[str, int]:
    told: dict[str, int] = {}
    with suppress(OSError, ValueError, KeyError):
        text = text_of(root / "build" / "smoke" / "summary.json")
        for one in json.loads(text)["notebooks"]:
            told[one["status"]] = told.get(one["status"], 0) + 1
    return told


def _measure(n: int = 1024) -> dict[str, Any]:
    """The device, and the speed of float32 products of n × n matrices, the best of several, on one CPU thread."""
    try:
        import torch
        from torch.utils.benchmark import Timer
    except ImportError:
        return {"device": "cpu (torch is not installed)", "gemm_gflops": None}
    times = Timer("a @ a", globals={"a": torch.ones(n, n)}).blocked_autorange(min_run_time=0.2).times
    device = f"cuda ({torch.cuda.get_device_name()})" if torch.cuda.is_available() else "cpu"
    return {"device": device, "gemm_gflops": round(2 * n**3 / min(times) / 1e9, 1)}


def command(report: dict[str, Any], what: str) -> str:
    """The command for setup, course or lab: make's where its environment runs, else that of this Python."""
    if report["ours"] and shutil.which("make"):
        return f"make {what}"
    spelled = {"setup": "pip install -r requirements.lock", "lab": "jupyter lab notebooks"}
    return f"python -m {spelled.get(what, f'instructlab_utils {what}')}"


def remedies(report: dict[str, Any]) -> dict[str, str]:
    """Failed check → what is wrong, and the command that mends it; empty where all is well."""
    found, lacking = {}, {n: a for n, a in report["assets"].items() if a["needed"] and a["state"] != "ready"}
    absent = [name for name, has in report["versions"].items() if not has]
    other = [f"{name} {has} instead of {report['locked'][name]}" for name, has in report["versions"].items()
             if has and has.partition("+")[0] != report["locked"].get(name, has.partition("+")[0])]  # fmt: skip
    if not report["clone"]:
        do = "`git clone` the repository and `make course` in it, or name a clone: `instructlab --root FOLDER …`"
        found["lessons"] = f"are not part of the installed package → {do}"
    if absent or other:
        told = ", ".join([*(f"{name} is absent" for name in absent), *other])
        found["packages"] = f"{told} → `{command(report, 'setup')}`"
    if report["memory_gb"] < LEAST_MEMORY:
        do = f"{command(report, 'course')} {'WORKERS=1' if report['ours'] else '--workers 1'}"
        found["memory"] = f"is below {LEAST_MEMORY:g} GiB, and some lessons need that → `{do}`"
    if (need := 2 * sum(asset["disk_mb"] for asset in lacking.values()) / 1000) > report["free_gb"]:
        do = "set INSTRUCTLAB_HOME to a folder on a larger disk"
        found["disk"] = f"{need:.1f} GB are needed while the assets are fetched → {do}"
    if lacking:
        only = (
            "".join(f" --only {name}" for name in lacking)
            if len(lacking) < len(report["assets"])
            else " --needed"
        )
        program = "python -m instructlab_utils" if report["clone"] else "instructlab"
        found["assets"] = f"{', '.join(lacking)} → `{program} fetch{only}`"
    return found


def next_step(report: dict[str, Any]) -> str:
    """The one thing to do now."""
    wrong, ended = remedies(report), report["course"]
    course, lab = command(report, "course"), command(report, "lab")
    if first := next((wrong[name] for name in ("lessons", "packages", "disk") if name in wrong), ""):
        return first.partition(" → ")[2]
    if "assets" in wrong:
        return f"`{course}`, which fetches what is missing and runs every lesson once"
    if bad := sum(ended.values()) - ended.get("ok", 0):
        return f"`{course}` again; {bad} notebooks did not end well, build/smoke/summary.md names them"
    return f"`{lab}`, and open a lesson" + ("" if ended else f"; or `{course}`, which runs all of them once")


def render(report: dict[str, Any]) -> str:
    """The report as two tables, what is wrong, and the next step: coloured where standard output is a terminal."""
    from rich.console import Console
    from rich.table import Table

    speed = report["gemm_gflops"]
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = 1000  # whoever reads a file or a pipe breaks the lines as he likes
    machine = Table(box=None, pad_edge=False, show_header=False)
    machine.add_row("python", f"{report['python']} on {report['platform']}")
    versions = ", ".join(f"{name} {has or 'absent'}" for name, has in report["versions"].items())
    machine.add_row("packages", versions)
    machine.add_row("device", "{device}, {cores} cores, {memory_gb} GiB of memory".format(**report))
    told = f"{speed} GFLOP/s (float32 product, one thread)" if speed is not None else "not measured"
    machine.add_row("speed", told)
    machine.add_row("lessons", report["clone"] or "not here")
    machine.add_row("cache", "{home}, {free_gb} GB free on its disk".format(**report))
    held = Table("asset", "MB", "state", box=None, pad_edge=False)
    for name, asset in report["assets"].items():
        colour = "green" if asset["state"] == "ready" else "yellow"
        held.add_row(name, f"{asset['disk_mb']:g}", asset["state"], style=colour)
    with console.capture() as text:
        console.print(machine, "", held, "", sep="\n")
        for name, told in remedies(report).items():
            console.print(f"{name}: {told}", style="yellow")
        console.print(f"next: {next_step(report)}", style="bold")
    return "\n".join(line.rstrip() for line in text.get().strip("\n").split("\n"))
