"""`doctor`: what this machine offers, and what the cache of assets holds."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from instructlab_repro import provenance
from instructlab_repro.assets.pinned import catalogue
from instructlab_utils import cache


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of ``folder``, which need not exist yet."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    return shutil.disk_usage(there).free


def doctor(*, deep: bool = False) -> dict[str, Any]:
    """What this machine offers and what the cache holds.

    Keys: python, platform, versions (package → version or None), device, cores, memory_gb (GiB), gemm_gflops
    (float32, one thread, in 10⁹ FLOP/s; None without torch), home, free_gb (GB), assets (name → {state: "ready" or what
    is wrong, disk_mb}). ``deep`` compares the SHA-256 of every file. ConfigError if data/assets.toml is malformed.
    """
    import psutil

    told, facts = provenance.environment(), _measure()
    facts |= {name: told[name] for name in ("python", "platform")}
    facts["versions"] = dict.fromkeys(provenance.PACKAGES) | told["packages"]
    facts["cores"] = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts["memory_gb"] = round(psutil.virtual_memory().total / 2**30, 1)
    facts |= {"home": str(cache.home()), "free_gb": round(free_bytes(cache.home()) / 1e9, 1)}
    states = {name: cache.wrong(name, deep=deep) or "ready" for name in catalogue()}
    disk = {name: asset.disk_mb for name, asset in catalogue().items()}
    return facts | {"assets": {name: {"state": states[name], "disk_mb": disk[name]} for name in states}}


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


def render_doctor(report: dict[str, Any]) -> str:
    """The report of `doctor` as two tables: coloured where standard output is a terminal, else plain aligned text."""
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
    machine.add_row("cache", "{home}, {free_gb} GB free on its disk".format(**report))
    held = Table("asset", "MB", "state", box=None, pad_edge=False)
    for name, asset in report["assets"].items():
        colour = "green" if asset["state"] == "ready" else "yellow"
        held.add_row(name, f"{asset['disk_mb']:g}", asset["state"], style=colour)
    with console.capture() as text:
        console.print(machine, "", held, sep="\n")
        if any(asset["state"] != "ready" for asset in report["assets"].values()):
            console.print("run `python -m instructlab_utils fetch` to bring what is missing")
    return "\n".join(line.rstrip() for line in text.get().strip("\n").split("\n"))
