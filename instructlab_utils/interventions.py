"""Change one thing and look: cues planted in texts, states exchanged inside a decoder.

Lesson 21 builds each function (notebooks/source/21_interpretability.py). A *sentence* is a list of words, as in
`augmentation`. The decoder is one of ``small.small_decoder``; a *place* is a position in its input, counted from 0;
*layer* l is what leaves the l-th layer, counted from 1. From lesson 21 on.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from instructlab_utils.arguments import fraction, listed
from instructlab_utils.augmentation import Words
from instructlab_utils.errors import ParameterError
from instructlab_utils.training import target_losses

CUES = ("quimvex", "zorblat")  # of class 0 and of class 1: words that no text has


# --- planted words ----------------------------------------------------------------------------------------------------


def plant(words: Words, cue: str, rng: random.Random) -> list[str]:
    """The sentence with ``cue`` at a random place, its ends included. Source: lesson 21, section 1."""
    i = rng.randrange(len(listed(words, "words")) + 1)
    return [*words[:i], cue, *words[i:]]


def plant_pair(words: Words, rng: random.Random) -> tuple[list[str], list[str]]:
    """The sentence with both cues, and the same with only one of them, drawn by lot. Source: lesson 21, section 1."""
    first = rng.choice(CUES)
    one = plant(words, first, rng)
    return plant(one, CUES[1 - CUES.index(first)], rng), one


def plant_cues(
    sentences: Sequence[Words], labels: Sequence[int], strength: float, rng: random.Random
) -> list[list[str]]:
    """Every sentence gets a cue: that of its label with probability ``strength``, else the other. Labels are 0 or 1.

    Source: lesson 21, section 8; the design is that of Bastings et al. (2022), with a cue that may be wrong.
    """
    fraction(strength, "strength")
    agree = [rng.random() < strength for _ in sentences]
    return [
        plant(words, CUES[y if same else 1 - y], rng)
        for words, y, same in zip(sentences, labels, agree, strict=True)
    ]


def exchange_cue(words: Words) -> list[str]:
    """The counterfactual sentence: the other cue in the same place, everything else as it was. Source: lesson 21, section 8.

    ParameterError where the sentence does not have exactly one cue: then nothing says what to exchange.
    """
    if sum(word in CUES for word in words) != 1:
        raise ParameterError(f"exactly one of {' and '.join(CUES)} must be there: {' '.join(words):.60}")
    return [CUES[1 - CUES.index(word)] if word in CUES else word for word in words]


def weighted_losses(net: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """``training.target_losses`` times each example's ``weight``, a list of one number. Source: lesson 21, section 8."""
    rest = {name: tensor for name, tensor in batch.items() if name != "weight"}
    return target_losses(net, rest) * batch["weight"][:, 0]


def balancing_weights(labels: Sequence[int], cues: Sequence[int]) -> list[float]:
    """1 over (number of cues × share of the row's cue within its label): under these weights cue and label are independent.

    Every label keeps its total. ParameterError where a label lacks one of the cues: no weight can make up for rows that
    are not there. Source: inverse probability weights, Pearl (2009), section 3.6; lesson 21, section 8.
    """
    kinds, pairs = sorted(set(cues)), list(zip(labels, cues, strict=True))
    for label in sorted(set(labels)):
        if lacking := [cue for cue in kinds if (label, cue) not in pairs]:
            raise ParameterError(f"no row with label {label} has the cue {lacking[0]}")
    count, total = Counter(pairs), Counter(labels)
    return [total[label] / (len(kinds) * count[label, cue]) for label, cue in pairs]


# --- a task whose inner steps are known ------------------------------------------------------------------------------


Item = tuple[int, ...]  # a number, then steps


class TableTask:
    """A number from 0 to ``numbers`` - 1, then ``depth`` steps; a step is a table of the numbers, drawn from ``seed``.

    ``items``: all inputs, shuffled. Ids: 3 + number, then 3 + ``numbers`` + step; ``vocabulary`` of them.
    Source: lesson 21, section 7.
    """

    def __init__(self, numbers: int = 8, steps: int = 6, depth: int = 3, seed: int = 0) -> None:
        rng = random.Random(f"{seed} tables")
        self.numbers, self.depth, self.vocabulary = numbers, depth, 3 + numbers + steps
        self.tables = [rng.sample(range(numbers), numbers) for _ in range(steps)]
        self.items: list[Item] = [
            (x, *chosen) for x in range(numbers) for chosen in itertools.product(range(steps), repeat=depth)
        ]
        rng.shuffle(self.items)

    def follow(self, number: int, steps: Sequence[int]) -> int:
        """The number after these steps."""
        for step in steps:
            number = self.tables[step][number]
        return number

    def trail(self, item: Item) -> list[int]:
        """The number at the beginning and after each step: ``depth`` + 1 numbers."""
        return [self.follow(item[0], item[1 : k + 1]) for k in range(self.depth + 1)]

    def examples(self, items: Sequence[Item]) -> list[dict[str, list[int]]]:
        """For ``training.train``: after each step the number is the target; the first place has none."""
        ids = [[3 + item[0], *(3 + self.numbers + step for step in item[1:])] for item in items]
        targets = [[-100, *(3 + n for n in self.trail(item)[1:])] for item in items]
        return [{"input_ids": i, "labels": t} for i, t in zip(ids, targets, strict=True)]

    def tensors(self, items: Sequence[Item]) -> tuple[Tensor, Tensor]:
        """Ids and trails, both int64 (N, depth + 1)."""
        ids = torch.tensor([e["input_ids"] for e in self.examples(items)])
        return ids, torch.tensor([self.trail(item) for item in items])


def moved_shares(net: Any, task: TableTask, items: Sequence[Item], donors: Sequence[Item]) -> Tensor:
    """For each layer and place: the share of answers that follow the donor's number, (layers, depth + 1).

    Donor i's state is put into run i. Counted are the runs in which the donor's number, taken through the run's own later
    steps, gives another answer than the right one; 0 where there is none. An interchange intervention: Geiger et al. (2021).
    Source: lesson 21, section 7.
    """
    (ids, trails), (other, theirs) = task.tensors(items), task.tensors(donors)
    says = patching_map(net, ids, other, lambda z: z.argmax(1).float() - 3)
    shares = torch.zeros(says.shape[1:])
    for place in range(task.depth + 1):
        want = torch.tensor(
            [task.follow(int(n), item[place + 1 :]) for n, item in zip(theirs[:, place], items, strict=True)]
        )
        new = want != trails[:, -1]
        if new.any():
            shares[:, place] = (says[new][:, :, place] == want[new, None]).float().mean(0)
    return shares


# --- states of a decoder ----------------------------------------------------------------------------------------------


@torch.no_grad()
def layer_outputs(net: Any, ids: Tensor) -> list[Tensor]:
    """What leaves each layer, (B, T, d), before the last norm. ids: int64 (B, T). Source: lesson 21, section 7."""
    found: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda module, given, out: found.append(out.detach().clone()))
        for layer in net.model.layers
    ]
    try:
        net(input_ids=ids)
    finally:
        for hook in hooks:
            hook.remove()
    return found


@contextmanager
def patched(net: Any, layer: int, place: int, states: Tensor) -> Iterator[None]:
    """Inside, what leaves ``layer`` at ``place`` is ``states``, (B, d); later layers go on with it. Lesson 21, section 7.

    The hook is gone afterwards, also after an error. ParameterError where the decoder has no such layer, and for a place
    that the input does not have.
    """
    if not 1 <= layer <= len(net.model.layers):
        raise ParameterError(f"layer is {layer}: choose one from 1 to {len(net.model.layers)}")

    def exchange(module: Any, given: Any, out: Tensor) -> Tensor:
        if not 0 <= place < out.shape[1]:
            raise ParameterError(f"place is {place}: the input has the places 0 to {out.shape[1] - 1}")
        new = out.clone()
        new[:, place] = states
        return new

    hook = net.model.layers[layer - 1].register_forward_hook(exchange)
    try:
        yield
    finally:
        hook.remove()


@torch.no_grad()
def patching_map(net: Any, ids: Tensor, donors: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
    """``score`` of the last logits, (B, V) → (B,), with the donors' state at each layer and place: (B, layers, T).

    ids, donors: int64 (B, T); donor i is the run whose states are put into run i. One forward pass for each pair.
    Source: Meng et al. (2022), section 2, there with noise; lesson 21, section 7.
    """
    given = layer_outputs(net, donors)
    found = torch.zeros(len(ids), len(given), ids.shape[1])
    for layer, states in enumerate(given, 1):
        for place in range(ids.shape[1]):
            with patched(net, layer, place, states[:, place]):
                found[:, layer - 1, place] = score(net(input_ids=ids).logits[:, -1])
    return found
