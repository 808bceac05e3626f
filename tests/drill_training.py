"""Kill -9 a training run at random moments; the next call must finish with the bits of an undisturbed run.

``python tests/drill_training.py --times 20`` prints a line per round and exits 1 if any differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS = 60


def job(folder: Path) -> None:
    """The run that gets killed: a tiny BERT on invented sentences, dropout on, dev scores, best weights, checkpoints."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from instructlab_utils import training
    from instructlab_utils.files import write_json

    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    net = BertForSequenceClassification(BertConfig(vocab_size=200, num_labels=2, **sizes))
    rng = random.Random(1)
    examples = []
    for _ in range(96):
        label = rng.randrange(2)
        words = [rng.randrange(100) + 100 * label * (rng.random() < 0.7) for _ in range(rng.randrange(3, 20))]
        examples.append({"input_ids": words, "labels": label})
    history = training.train(
        net, examples[:64], steps=STEPS, learning_rate=3e-3, pad_id=0, batch_size=8, seed=5, dev=examples[64:],
        eval_every=6, folder=folder, save_every=4, recipe=training.Recipe(accumulation=2),
    )  # fmt: skip
    logits = training.predict(net, examples[64:], 0)
    write_json(
        folder / "metrics.json",
        {"best": history.best_score, "losses": history.losses, "logits": logits.tolist()},
    )


def start(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, "--job", str(folder)])


def wait_for(log: Path, lines: int, process: subprocess.Popen[bytes]) -> None:
    """Until the run's log has so many lines, or the run is over."""
    while process.poll() is None and (not log.exists() or log.read_bytes().count(b"\n") < lines):
        time.sleep(0.002)


def fingerprint(folder: Path) -> dict[str, str]:
    """Hash of each file that the run leaves: metrics, log, best weights, checkpoint tensors."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def drill_training(times: int, folder: Path, seed: int = 0) -> list[str]:
    """Run undisturbed once, then ``times`` rounds with one to three kills each; returns what differed."""
    rng, failures = random.Random(seed), []
    calm = folder / "calm"
    assert start(calm).wait() == 0
    expected = fingerprint(calm)
    for turn in range(times):
        place, killed = folder / f"round-{turn}", []
        for _ in range(rng.randint(1, 3)):
            process = start(place)
            # A moment of the run, not of the clock: a loaded machine would otherwise be killed early, an idle one never.
            wait_for(place / "log.jsonl", rng.randrange(STEPS), process)
            time.sleep(rng.uniform(0, 0.03))
            if process.poll() is None:
                process.kill()
                process.wait()
                latest = place / "latest.json"
                killed.append(json.loads(latest.read_text())["step"] if latest.exists() else 0)
        if start(place).wait() != 0:
            failures.append(f"round {turn}: the last call failed (killed at checkpoints {killed})")
        elif (found := fingerprint(place)) != expected:
            names = sorted(name for name in expected | found if expected.get(name) != found.get(name))
            failures.append(f"round {turn}: {', '.join(names)} differ (killed at checkpoints {killed})")
        print(f"training round {turn + 1}/{times}: killed at checkpoints {killed}", flush=True)
    return failures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--job", type=Path)
    arguments = parser.parse_args()
    if arguments.job:
        job(arguments.job)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            failed = drill_training(arguments.times, Path(scratch), arguments.seed)
        print(
            "\n".join(failed)
            or f"training drill: {arguments.times} of {arguments.times} rounds equal, bit for bit"
        )
        sys.exit(bool(failed))
