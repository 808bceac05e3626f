"""Puts what is kept of a grid under way to its places, lines and all: ``python scripts/resume.py lora``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PENDING = ROOT / "data" / "pending"


def resume(name: str, root: Path = ROOT) -> list[Path]:
    """Copy what data/pending/``name`` holds into the tree ``root``; returns the files written. A line that is there stays."""
    source, written = PENDING / name, []
    if not name or not source.is_dir():
        waiting = ", ".join(sorted(p.name for p in PENDING.iterdir() if p.is_dir())) or "none"
        raise SystemExit(f"error: data/pending/{name}: there is no such grid; waiting are: {waiting}")

    def put(file: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        written.append(target)

    claims = root / "data" / "claims"
    for claim in sorted((source / "claims").glob("*.toml")):
        old, first = claims / claim.name, claims / "edition-1" / claim.name
        if old.exists() and "\nexperiment = " in old.read_text(encoding="utf-8") and not first.exists():
            put(old, first)
        put(claim, old)
    put(source / f"{name}.toml", root / "data" / "experiments" / f"{name}.toml")
    if (source / "notebook.py").exists():  # a grid whose notebook is new too
        put(source / "notebook.py", root / "notebooks" / "experiments" / "source" / f"{name}.py")
    for lines in sorted((source / "lines").glob("*.jsonl")):
        target = root / "build" / "runs" / name / "laptop" / lines.stem / "lines.jsonl"
        if not target.exists():
            put(lines, target)
    return written


if __name__ == "__main__":
    for name in sys.argv[1:] or [""]:
        for path in resume(name):
            print(path.relative_to(ROOT))
