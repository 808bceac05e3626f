"""Who learns, who chooses, who tests: texts of one group stay together, and each class is spread as evenly as it can be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SEEDS, LEAST_SEEDS, DEV = 5, 3, 0.2  # a method with fewer seeds than three is not compared


@dataclass(frozen=True)
class Parts:
    """``part`` (n,) is 0 for dev, else 1 + the seed whose test text it is: every text but dev's is tested by one seed.

    ``working`` (n,) marks the texts that the encoder reads; all scores are of these. ``first`` (n,) marks one text of each
    group: dev and test count no near-copy twice.
    """

    part: np.ndarray
    working: np.ndarray
    first: np.ndarray

    def dev(self, working: bool = False) -> np.ndarray:
        """Places of the dev texts, the same for all seeds, never tested."""
        return np.flatnonzero((self.part == 0) & self.first & (self.working | (not working)))

    def test(self, seed: int, working: bool = False) -> np.ndarray:
        """Places of the texts that test ``seed``."""
        return np.flatnonzero((self.part == 1 + seed) & self.first & (self.working | (not working)))

    def train(self, seed: int, working: bool = False) -> np.ndarray:
        """Places of the texts that ``seed`` learns from: all but dev and its test."""
        mine = (self.part != 0) & (self.part != 1 + seed)
        return np.flatnonzero(mine & (self.working | (not working)))


def firsts(group: Sequence[int]) -> np.ndarray:
    """Marks the first text of each group, (n,)."""
    marked = np.zeros(len(group), dtype=bool)
    marked[np.unique(group, return_index=True)[1]] = True
    return marked


def spread(labels: Sequence[int], group: Sequence[int], seed: int = 0) -> np.ndarray:
    """The part of each text, (n,): group by group, the rarest class first, to where its labels are missed most.

    Parts are filled towards 20 % for dev and 16 % for each of five seeds; no group is cut.
    """
    y, rng = np.asarray(labels), np.random.default_rng(seed)
    share = np.array([DEV, *[(1 - DEV) / SEEDS] * SEEDS])
    size = np.bincount(y)
    members: dict[int, list[int]] = defaultdict(list)
    for place, one in enumerate(group):
        members[one].append(place)
    groups = list(members.values())
    jitter = rng.random(len(groups))
    order = sorted(range(len(groups)), key=lambda g: (min(size[y[groups[g]]]), -len(groups[g]), jitter[g]))
    have, all_in = np.zeros((len(share), len(size))), np.zeros(len(share))
    part = np.zeros(len(y), dtype=int)
    tie = rng.random(len(share)) * 1e-6
    for g in order:
        here = groups[g]
        label = y[here][np.argmin(size[y[here]])]
        # a class too small for all parts goes to the seeds first: dev can do without it
        wanted = (
            share * size[label] - have[:, label] - (0.5 if size[label] <= SEEDS else 0.0) * (share == DEV)
        )
        room = share - all_in / len(y)
        best = int(np.argmax(np.round(wanted, 6) + 1e-3 * room + tie))
        part[here] = best
        np.add.at(have[best], y[here], 1)
        all_in[best] += len(here)
    return part


def working_set(part: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """Marks about ``most`` texts or all, (n,): the same share of each part, drawn at random, so that labels keep theirs."""
    if len(part) <= most:
        return np.ones(len(part), dtype=bool)
    rng, marked = np.random.default_rng(seed), np.zeros(len(part), dtype=bool)
    for one in np.unique(part):
        here = rng.permutation(np.flatnonzero(part == one))
        marked[here[: max(2, round(len(here) * most / len(part)))]] = True
    return marked
