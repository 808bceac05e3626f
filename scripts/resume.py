"""Puts what is kept of a grid under way to its places, lines and all: ``python scripts/resume.py lora``."""

from __future__ import annotations

import re
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
        before = old.read_text(encoding="utf-8") if old.exists() else ""
        # a draft has no experiment; a claim that is there already was put by an earlier call
        if "\nexperiment = " in before and before != claim.read_text(encoding="utf-8") and not first.exists():
            put(old, first)
        put(claim, old)
    designs = root / "data" / "experiments"
    put(source / f"{name}.toml", designs / f"{name}.toml")
    moved = {claim.stem for claim in (source / "claims").glob("*.toml")}
    for path in sorted(designs.glob("*.toml")):  # a claim belongs to one experiment
        text = path.read_text(encoding="utf-8")
        left = re.sub(
            r"(?m)^((?:claims|verdicts) = [\[{])(.*)([\]}])$", lambda line: _without(line, moved), text
        )
        if path.stem != name and left != text:
            path.write_text(left, encoding="utf-8")
            written.append(path)
    if (source / "notebook.py").exists():  # a grid whose notebook is new too
        put(source / "notebook.py", root / "notebooks" / "experiments" / "source" / f"{name}.py")
    for lines in sorted((source / "lines").glob("*.jsonl")):
        target = root / "build" / "runs" / name / "laptop" / lines.stem / "lines.jsonl"
        if not target.exists():
            put(lines, target)
    return written


def _without(line: re.Match[str], moved: set[str]) -> str:
    """A line of a design, such as ``claims = ["C1", "C2"]``, without the claims that have ``moved``."""
    left = [entry for entry in line[2].strip().split(", ") if entry and entry.split('"')[-2] not in moved]
    space = " " * (line[1].endswith("{") and bool(left))
    return f"{line[1]}{space}{', '.join(left)}{space}{line[3]}"


if __name__ == "__main__":
    for name in sys.argv[1:] or [""]:
        for path in resume(name):
            print(path.relative_to(ROOT))
