"""Fine-tune MiniLM on a task with the loop of lesson 03, in one process or in several.

    python scripts/train.py --task movie-sentiment --n-train 512 --steps 32 --out build/train
    accelerate launch --multi_gpu --num_processes 2 scripts/train.py --task movie-sentiment --out build/train

Several processes share each batch, on CUDA devices where there are any, else on the CPU. `--out` gets the log, the
checkpoints and the best weights; the same command resumes a run that was killed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from accelerate import PartialState

from instructlab_utils import models, tasks, training

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="movie-sentiment", choices=tasks.names())
    parser.add_argument("--n-train", type=int, default=512, help="training sentences")
    parser.add_argument("--steps", type=int, default=32, help="updates")
    parser.add_argument("--batch-size", type=int, default=16, help="sentences of all processes together")
    parser.add_argument("--dropout", type=float, help="replaces the model's own; 0 makes runs comparable")
    parser.add_argument("--out", type=Path, required=True)
    wanted = parser.parse_args()

    processes = PartialState(cpu=not torch.cuda.is_available())
    task = tasks.load(wanted.task)
    tokenizer, net = models.load_tokenizer("encoder"), models.load_classifier(len(task.labels))
    for module in net.modules():
        if wanted.dropout is not None and isinstance(module, torch.nn.Dropout):
            module.p = wanted.dropout
    train_set = training.encode(tasks.subsample(task.splits["train"], wanted.n_train, 0), tokenizer, 128)
    dev_set = training.encode(tasks.subsample(task.splits["dev"], 200, 0), tokenizer, 128)
    history = training.train(
        net.to(processes.device), train_set, dev=dev_set, steps=wanted.steps, batch_size=wanted.batch_size,
        learning_rate=1e-4, pad_id=tokenizer.pad_token_id, eval_every=wanted.steps, folder=wanted.out, save_every=50,
    )  # fmt: skip
    for step, loss in enumerate(history.losses, start=1):
        processes.print(f"update {step:4d}: loss {loss:.6f}")
    processes.print(f"accuracy on dev, {len(dev_set)} sentences: {history.best_score:.3f}")
