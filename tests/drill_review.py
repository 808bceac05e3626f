"""Kill reviewers at random moments and count what became of their decisions: ``python tests/drill_review.py``.

Three processes claim, think and decide; each writes a line to a file of its own, safe on the disk, once the queue has said
that a decision is recorded. A fourth process is killed with SIGKILL, which no program can catch, again and again. In the
end each item has one decision, none that was acknowledged is missing, and the audit says the same.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from instructlab_utils import review  # noqa: E402

LEASE, REVIEWERS = 0.4, 3


def work(path: Path, acknowledged: Path, name: str) -> None:
    """One reviewer: until nothing is left to decide."""
    queue, rng = review.Queue(path, lease=LEASE), random.Random()
    print("ready", flush=True)
    with acknowledged.open("a", encoding="utf-8") as file:
        while (counts := queue.counts())["open"] + counts["leased"]:
            item = queue.claim(name)
            if item is None:
                time.sleep(0.02)
                continue
            time.sleep(rng.uniform(0, 0.004))
            verdict, decision = rng.choice(review.VERDICTS), f"{name}-{item.token}"
            try:
                queue.decide(item, name, verdict, decision)
                queue.decide(item, name, verdict, decision)  # sent twice, as after a lost answer
            except review.ReviewError:
                continue  # the lease was over
            file.write(f"{decision} {item.id} {verdict}\n")
            file.flush()
            os.fsync(file.fileno())


def drill(folder: Path, kills: int, items: int, seed: int = 0) -> dict[str, int]:
    """Run it in ``folder``; what was found, as counts. Each of ``kills`` rounds ends one reviewer with SIGKILL."""
    rng, path = random.Random(seed), folder / "queue.sqlite"
    queue = review.Queue(path, lease=LEASE)
    for i in range(items):
        queue.add(f"item-{i}", f"text {i}", rng.random())

    def started(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, __file__, "--work", str(path), str(folder / f"{name}.txt"), name]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        return process

    processes = {f"reviewer-{i}": started(f"reviewer-{i}") for i in range(REVIEWERS)}
    done = 0
    for number in range(kills):
        time.sleep(rng.uniform(0.01, 0.12))
        name = rng.choice(list(processes))
        process = processes.pop(name)
        alive = process.poll() is None
        if alive:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        done += alive
        processes[f"reviewer-{REVIEWERS + number}"] = started(f"reviewer-{REVIEWERS + number}")
    for process in processes.values():
        assert process.wait(timeout=120) == 0
    recorded = {d["id"]: (d["item"], d["verdict"]) for d in queue.decisions()}
    said = [line.split() for file in folder.glob("reviewer-*.txt") for line in file.read_text().splitlines()]
    said = [line for line in said if len(line) == 3]  # a reviewer may die while it writes its own line
    trail = queue.trail()
    return {
        "kills": done,
        "items": items,
        "decided": queue.counts()["decided"],
        "acknowledged": len(said),
        "lost": sum(recorded.get(d) != (item, verdict) for d, item, verdict in said),
        "twice": len(recorded) - len({item for item, _ in recorded.values()}),
        "unacknowledged": len(recorded) - len({d for d, _, _ in said}),
        "claims": sum(row["what"] == "claim" for row in trail),
        "problems": len(queue.problems()),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
    else:
        with tempfile.TemporaryDirectory() as place:
            found = drill(Path(place), kills=20, items=1500, seed=int(sys.argv[1]) if sys.argv[1:] else 0)
        print(" ".join(f"{name} {count}" for name, count in found.items()))
        sys.exit(
            found["lost"] + found["twice"] + found["problems"] + (found["decided"] != found["items"]) > 0
        )
