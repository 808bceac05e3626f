"""What every experiment notebook does the same way: open one block, walk its trials, write a line for each.

``block = open_block("lora", profile, stage, task=task, seed=seed)``, then ``for trial in block.trials():`` compute and
``block.line(trial, cost, accuracy=…)``, at the end ``block.close("accuracy")``. The rest of this module is for the
experiments that train the encoder on labelled sentences: :class:`Sentences`, :func:`tuned`, :func:`fit`.

The only module of the engine that an experiment notebook imports.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from instructlab_repro import experiments
from instructlab_utils import generation, metrics, models, tasks, training, tuners
from instructlab_utils.errors import ConfigError, TrainingError
from instructlab_utils.run import Cost, Run, start

Examples = list[training.Example]
ROUNDING = 1e-7  # by what share a rounding twin's first values differ
ENDS = 5  # updates in the mean of a run's first losses, and of its last


@dataclass(frozen=True)
class OpenBlock:
    """One block while its notebook runs. ``settings`` are those of its TOML, ``run`` the place of its results."""

    run: Run
    spec: experiments.Experiment
    block: experiments.Block
    settings: SimpleNamespace

    @property
    def seed(self) -> int:
        return int(self.block.coordinates["seed"])

    @property
    def tuning(self) -> bool:
        """Whether values are only tried, on dev items: no test item may be read."""
        return self.block.stage == "tune"

    @property
    def splits(self) -> tuple[str, ...]:
        """The held-out splits that this stage may read."""
        return ("dev",) if self.tuning else ("dev", "test")

    def trials(self) -> Iterator[experiments.Trial]:
        """The block's trials without those whose line is there: an interrupted block goes on where it stopped."""
        return (trial for trial in self.spec.trials(self.block) if not self.run.have(trial.key))

    def line(self, trial: experiments.Trial, cost: Cost | None = None, **fields: Any) -> None:
        """Write the trial's line to the disk, before the next trial starts, and print its numbers."""
        spent = vars(cost) if cost else {}
        self.run.line(self.spec.identity(self.block) | trial.key, **spent, **fields)
        place = " ".join(f"{name} = {value}" for name, value in {**trial.inside, **trial.tuned}.items())
        numbers = (f"{name} {value:.3f}" for name, value in fields.items() if isinstance(value, float))
        print(f"{trial.method:16s} {place}", *numbers, f"{cost.seconds:.1f} s" if cost else "", sep="  ")

    def lines(self) -> list[dict[str, Any]]:
        """The lines of all trials, in their order."""
        found = (self.run.have(trial.key) for trial in self.spec.trials(self.block))
        return [line for line in found if line is not None]

    def close(self, *names: str) -> None:
        """Print the fields ``names`` of each line, and record that the block is complete."""
        lines = self.lines()
        for line in lines:
            place = " ".join(str(line[axis]) for axis in self.spec.inside)
            shown = ((name, line[name]) for name in names if line.get(name) is not None)
            print(f"{line['method']:16s} {place}", *(f"{name} {x:.4g}" for name, x in shown), sep="  ")
        self.run.record(runs=len(lines))


def open_block(name: str, profile: str, stage: str, **coordinates: Any) -> OpenBlock:
    """The block of experiment ``name`` at ``coordinates``; those that are no axis of it are left out.

    Seeds everything and says what runs. ParameterError for an unknown place, ConfigError for a mistake in the TOML.
    """
    started = start(name, profile=profile, seed=coordinates["seed"])
    spec = experiments.load(name).at(started.profile)
    place = {axis: value for axis, value in coordinates.items() if axis in spec.outside}
    block = spec.block(stage=stage, **place)
    return OpenBlock(started, spec, block, spec.settings_of(block))


def decoder(block: OpenBlock) -> tuple[Any, Any]:
    """SmolLM2 in fp32, and its tokenizer."""
    return models.load_decoder(device=block.run.device).float(), models.load_tokenizer("decoder")


# --- labelled sentences and the encoder ------------------------------------------------------------------------------


@dataclass
class Sentences:
    """One task's sentences by split: rows, encoded ``examples``, and their labels ``targets``, int64 of shape (N,)."""

    task: tasks.Task
    tokenizer: Any
    max_length: int
    rows: dict[str, Any] = field(default_factory=dict)
    examples: dict[str, Examples] = field(default_factory=dict)
    targets: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, split: str, rows: Any) -> None:
        """Keep and encode the rows of a split."""
        self.rows[split], self.targets[split] = rows, np.array(rows["label"])
        self.examples[split] = training.encode(rows, self.tokenizer, self.max_length)

    @property
    def pad_id(self) -> int:
        return int(self.tokenizer.pad_token_id)

    def logits(self, net: nn.Module | None, *splits: str) -> dict[str, Tensor]:
        """Float32 (N, K) by split, of all but ``train`` where none is named.

        Without a model (its loss diverged), and where one is not finite, they are the log-shares of the labels in
        ``train``: what a user falls back to, the majority class.
        """
        names = splits or tuple(name for name in self.rows if name != "train")
        if net is not None:
            found = {name: training.predict(net, self.examples[name], self.pad_id) for name in names}
            if all(z.isfinite().all() for z in found.values()):
                return found
        labels = torch.tensor(self.targets["train"])
        shares = torch.bincount(labels, minlength=len(self.task.labels)).add(1e-12).div(len(labels)).log()
        return {name: shares.repeat(len(self.targets[name]), 1) for name in names}

    def accuracy(self, logits: Tensor, split: str) -> float:
        return metrics.accuracy(self.targets[split].tolist(), logits.argmax(-1).tolist())

    def fields(self, logits: Mapping[str, Tensor]) -> dict[str, Any]:
        """What a line says of logits (N, K) of ``dev`` and, where it was drawn, ``test``.

        ``dev_accuracy``, ``dev_loss``, ``accuracy``, ``test_loss`` (mean cross-entropies in nats), ``one_class`` (all
        predictions of the test are equal), and the predictions beside the true labels.
        """
        found: dict[str, Any] = {}
        for split, z in logits.items():
            log_p = torch.log_softmax(torch.as_tensor(z, dtype=torch.float64), -1)
            loss = -log_p[range(len(log_p)), self.targets[split]].mean().item()
            found |= {f"{split}_accuracy": self.accuracy(z, split), f"{split}_loss": loss}
        if "test" in logits:
            predictions = logits["test"].argmax(-1).tolist()
            found |= {"accuracy": found.pop("test_accuracy"), "one_class": len(set(predictions)) == 1}
            found |= {"predictions": predictions, "targets": self.targets["test"].tolist()}
        return found


def sentences(block: OpenBlock, task: str, n_train: int | None = None) -> Sentences:
    """Train, dev and (in the stage ``run``) test sentences of a task, by the block's settings.

    The seed draws the training sentences. Dev sentences are the same for all seeds; test sentences too where
    ``test_items`` is "shared", and where it is "own" each seed of the grid has others, none of them twice.
    """
    settings, corpus = block.settings, tasks.load(task)
    found = Sentences(corpus, models.load_tokenizer("encoder"), settings.max_length)
    found.add("train", tasks.subsample(corpus.splits["train"], n_train or settings.n_train, block.seed))
    for split in block.splits:
        rows, n = corpus.splits[split], getattr(settings, split)
        if split == "test" and getattr(settings, "test_items", "shared") == "own":
            seeds = [int(seed) for seed in block.spec.axes["seed"]]
            found.add(split, tasks.disjoint(rows, n, block.seed, seeds))
        else:
            found.add(split, tasks.subsample(rows, n, 0))
    print({split: len(rows) for split, rows in found.rows.items()}, f"of {task}")
    return found


# --- a model, tuned as a table of the TOML says ------------------------------------------------------------------------


def tuned(net: nn.Module, table: Mapping[str, Any], seed: int) -> tuple[nn.Module, dict[str, Any]]:
    """``net`` with the method of a ``[methods.NAME]`` table, and what it adds to the arguments of ``training.train``.

    ``tuner = "full"`` trains all weights, "head" the head alone, any other name is a class of
    :mod:`instructlab_utils.tuners` with the table's other entries as its parameters.
    Raises ConfigError for an unknown class or parameter.
    """
    kind = {"head": "HeadOnly"}.get(table["tuner"], table["tuner"])
    if kind == "full":
        return net, {}
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items() if k != "tuner"}
    try:
        method = getattr(tuners, kind)(**values)
    except (AttributeError, TypeError) as error:
        raise ConfigError(f"methods: tuner = {kind!r} with {', '.join(values)}: {error}") from None
    net = tuners.inject(net, method, seed=seed)
    return net, tuners.extras(net)


def nudge(net: nn.Module) -> None:
    """Move every trainable first value by one part in ten million: a rounding twin, which shows what rounding can do."""
    with torch.no_grad():
        for parameter in tuners.trainable(net).values():
            parameter.mul_(1 + ROUNDING)


def fit(
    block: OpenBlock, net: nn.Module, examples: Examples, pad_id: int, ends: int = ENDS, **knobs: Any
) -> tuple[nn.Module | None, dict[str, Any], Cost]:
    """Train ``net``, nudged before in the stage ``twin``, for the block's ``steps`` of ``batch_size``.

    ``knobs`` go to ``training.train``. Returns the model (None where the loss stopped being finite), what a line says
    about the training, and its cost: ``updates``, ``trainable_parameters``, ``diverged``, the mean losses ``first_loss``
    and ``train_loss`` of the first and last ``ends`` updates, ``early_loss`` of the second quarter; None if it diverged.
    """
    defaults = {name: getattr(block.settings, name, None) for name in ("steps", "batch_size")}
    chosen = {**defaults, "seed": block.seed, **knobs}
    if block.block.stage == "twin":
        nudge(net)
    history, steps = None, chosen["steps"]
    trained = sum(parameter.numel() for parameter in tuners.trainable(net).values())
    with block.run.measure() as cost:
        try:
            history = training.train(net, examples, pad_id=pad_id, **chosen)
        except TrainingError as error:
            if not str(error).startswith("the loss is"):  # a mistake, not a run that diverged
                raise
            print(error)
    found = {"updates": steps, "trainable_parameters": trained, "diverged": int(history is None)}
    found |= {"ms_per_step": 1000 * cost.cpu_seconds / steps}
    if history is None:
        return None, found | dict.fromkeys(("first_loss", "early_loss", "train_loss")), cost
    second = slice(steps // 4, max(steps // 2, steps // 4 + 1))
    parts = {"first_loss": slice(ends), "early_loss": second, "train_loss": slice(-ends, None)}
    found |= {name: float(np.mean(history.losses[part])) for name, part in parts.items()}
    return net, found, cost


@torch.no_grad()
def completion_scores(net: nn.Module, examples: Examples, pad_id: int) -> dict[str, Any]:
    """``nll``: loss per token over all completions, end tokens included, in nats; ``scores``: each completion's share."""
    found, device = [], next(net.parameters()).device
    for example in examples:
        batch = training.move(training.collate_tokens([example], pad_id), device)
        token_losses = generation.causal_losses(net, batch).double().cpu()
        found.append([token_losses.sum().item(), len(token_losses)])
    sums, counts = torch.tensor(found, dtype=torch.float64).T
    return {"nll": (sums.sum() / counts.sum()).item(), "scores": (sums / counts.mean()).tolist()}
