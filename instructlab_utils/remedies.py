"""Remedies for forgetting behind one small interface, and the loop that learns task after task with one of them.

A remedy is asked four times: ``begin`` before a task, ``mix`` and ``penalty`` in each step, ``end`` after the task. What it
keeps between the tasks is its price. Taught in lesson 18; the experiment `continual` compares them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from instructlab_utils import tuners
from instructlab_utils.continual import distillation, fisher, quadratic_penalty, routed, subspace_overlap
from instructlab_utils.losses import cross_entropy

Labelled = tuple[Tensor, Tensor]  # states (N, d) and labels (N,)


@dataclass
class Remedy:
    """Sequential tuning, which keeps nothing. Source: lesson 18, section 1."""

    strength: float = 0.0

    def begin(self, net: nn.Module) -> nn.Module:
        """The model to train on the next task."""
        return net

    def mix(self, X: Tensor, Y: Tensor, draws: torch.Generator) -> Labelled:
        """The batch to learn from in place of the one that was drawn from the task."""
        return X, Y

    def penalty(self, net: nn.Module, X: Tensor, z: Tensor) -> Tensor | float:
        """What is added to the loss; ``z``: the logits of the batch."""
        return 0.0

    def end(self, net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
        """Keep what is needed of the task, and give the model that is tested and goes on."""
        return net


@dataclass
class Replay(Remedy):
    """Keep the first ``kept`` share of each task; ``strength``: the share of later batches that is drawn from there.

    Source: lesson 18, section 4.
    """

    kept: float = 0.01
    memory: list[Labelled] = field(default_factory=list)

    def mix(self, X: Tensor, Y: Tensor, draws: torch.Generator) -> Labelled:
        if not self.memory:
            return X, Y
        x, y = (torch.cat(parts) for parts in zip(*self.memory, strict=True))
        n = round(self.strength * len(X))
        i = torch.randint(len(x), (n,), generator=draws)
        return torch.cat([X[n:], x[i]]), torch.cat([Y[n:], y[i]])

    def end(self, net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
        n = max(1, round(self.kept * len(x)))
        self.memory.append((x[:n], y[:n]))
        return net


@dataclass
class Ewc(Remedy):
    """A spring on each weight, as stiff as the Fishers of the earlier tasks sum up to, tied to its value after the last one.

    ``kind``: "true", "empirical", or "uniform" (every spring has the stiffness 1). Source: lesson 18, section 5.
    """

    kind: str = "true"
    old: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)

    def penalty(self, net: nn.Module, X: Tensor, z: Tensor) -> Tensor | float:
        return self.strength * quadratic_penalty(net, self.old, self.weights) if self.weights else 0.0

    def end(self, net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
        self.old = {name: p.detach().clone() for name, p in net.named_parameters()}
        if self.kind == "uniform":
            self.weights = {name: torch.ones_like(p) for name, p in self.old.items()}
        else:
            F = fisher(net, x, y if self.kind == "empirical" else None)
            self.weights = {name: F[name] + self.weights.get(name, 0) for name in F}
        return net


@dataclass
class Lwf(Remedy):
    """Learning without forgetting: on the new sentences, answer about the earlier tasks' labels as the old model did.

    Source: lesson 18, section 6.
    """

    old: nn.Module | None = None
    labels: list[int] = field(default_factory=list)

    def penalty(self, net: nn.Module, X: Tensor, z: Tensor) -> Tensor | float:
        if self.old is None:
            return 0.0
        with torch.no_grad():
            before = self.old(X)
        return self.strength * distillation(z[:, self.labels], before[:, self.labels]).mean()

    def end(self, net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
        self.old, self.labels = copy.deepcopy(net), sorted({*self.labels, *y.tolist()})
        return net


@dataclass
class NewLoras(Remedy):
    """A new LoRA for each task; after it the LoRA is merged and its A kept. With a ``strength`` it is O-LoRA.

    Source: lesson 18, section 7.
    """

    targets: tuple[str, ...] = ("W1", "W2")
    rank: int = 8
    seed: int = 0
    before: dict[str, list[Tensor]] = field(default_factory=dict)

    def begin(self, net: nn.Module) -> nn.Module:
        seed = self.seed + sum(map(len, self.before.values()))
        return tuners.inject(net, tuners.Lora(r=self.rank, alpha=self.rank, targets=self.targets), seed=seed)

    def overlap(self, net: nn.Module) -> Tensor:
        """The sum over the layers of what the LoRA's A shares with the earlier ones."""
        parts = [subspace_overlap(net.get_submodule(w).A, self.before.get(w, [])) for w in self.targets]
        return torch.stack(parts).sum()

    def penalty(self, net: nn.Module, X: Tensor, z: Tensor) -> Tensor | float:
        return self.strength * self.overlap(net) if self.strength else 0.0

    def end(self, net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
        for w in self.targets:
            self.before.setdefault(w, []).append(net.get_submodule(w).A.detach().clone())
        return tuners.merge(net, unload=True)


@dataclass
class OneLora(NewLoras):
    """Sequential tuning of a single LoRA: what O-LoRA must beat. Source: lesson 18, section 7."""

    def begin(self, net: nn.Module) -> nn.Module:
        return net if getattr(net, "tuner", None) else super().begin(net)

    def end(self, net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
        return net


class Routed(nn.Module):
    """One network a task; each state goes to the one whose centre, (d,), is nearest. Source: lesson 18, section 8."""

    def __init__(self, nets: Sequence[nn.Module], centres: Sequence[Tensor]) -> None:
        super().__init__()
        self.nets, self.centres = nn.ModuleList(nets), torch.stack(list(centres))

    def forward(self, h: Tensor) -> Tensor:
        each = torch.stack([net(h) for net in self.nets])
        return each[routed(h, self.centres), torch.arange(len(h))]


@dataclass
class AdapterPerTask(NewLoras):
    """A LoRA for each task on the same untrained base, never touched again, and a router by the tasks' mean states.

    Source: lesson 18, section 8.
    """

    base: nn.Module | None = None
    nets: list[nn.Module] = field(default_factory=list)
    centres: list[Tensor] = field(default_factory=list)

    def begin(self, net: nn.Module) -> nn.Module:
        self.base = self.base or copy.deepcopy(net)
        adapter = tuners.Lora(r=self.rank, alpha=self.rank, targets=self.targets)
        return tuners.inject(copy.deepcopy(self.base), adapter, seed=self.seed + len(self.nets))

    def end(self, net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
        self.nets.append(net)
        self.centres.append(x.mean(0))
        return Routed(self.nets, self.centres)


class Learned(NamedTuple):
    """After the last task: the accuracy matrix, the model, and each task's mean loss in its first and last five steps."""

    R: list[list[float]]
    net: nn.Module
    ends: list[tuple[float, float]]


def learn_in_turn(
    net: nn.Module, stream: Sequence[Labelled], remedy: Remedy, look: Callable[[nn.Module], list[float]], *,
    steps: int, learning_rate: float, batch_size: int = 32, seed: int = 0,
) -> Learned:  # fmt: skip
    """``steps`` updates with Adam on each task of the stream in turn; ``look`` gives the accuracy on every task.

    ``net`` is changed. The losses of :class:`Learned` are without the penalty. Source: lesson 18, section 1.
    """
    draws, R, ends = torch.Generator().manual_seed(seed), [], []
    for x, y in stream:
        net, losses = remedy.begin(net), []
        optimizer = torch.optim.Adam(tuners.trainable(net).values(), lr=learning_rate)
        for _ in range(steps):
            i = torch.randint(len(x), (batch_size,), generator=draws)
            X, Y = remedy.mix(x[i], y[i], draws)
            z = net(X)
            loss = cross_entropy(z, Y).mean()
            losses.append(loss.item())
            optimizer.zero_grad()
            (loss + remedy.penalty(net, X, z)).backward()
            optimizer.step()
        net = remedy.end(net, x, y)
        with torch.no_grad():
            R.append(look(net))
        few = min(5, steps) or 1
        ends.append((sum(losses[:few]) / few, sum(losses[-few:]) / few))
    return Learned(R, net, ends)
