"""Zero-sum games of two players: fictitious play by hand, the minimax strategy by a linear program.

M is the payoff matrix, float of shape (A, D): what the attacker, who chooses a row, wins and the defender, who chooses a
column, loses. A mixed strategy is a vector of probabilities. Built in lesson 22 (notebooks/source/22_safety.py).

Taught in lesson 22.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from instructlab_utils.arguments import array, whole


@dataclass(frozen=True)
class Solution:
    """``attack`` (A,) and ``defence`` (D,), two mixed strategies; ``low`` ≤ value ≤ ``high``, what they guarantee."""

    attack: np.ndarray
    defence: np.ndarray
    low: float
    high: float


def payoffs(M: ArrayLike) -> np.ndarray:
    """M as float64, (A, D). ValueError where it is no matrix, is empty, or holds something that is not finite."""
    found = array(M, "M").astype(float)
    if found.ndim != 2 or not found.size or not np.isfinite(found).all():
        raise ValueError(
            f"M of shape {found.shape}: need a matrix of finite payoffs, one row and column at least"
        )
    return found


def guarantees(M: ArrayLike, attack: ArrayLike, defence: ArrayLike) -> tuple[float, float]:
    """What the attacker gets at least with ``attack``, and the defender loses at most with ``defence``. Lesson 22, section 9.

    The first is never above the second (weak duality). ValueError for vectors that are no distributions of M's shape.
    """
    M, p, q = payoffs(M), array(attack, "attack").astype(float), array(defence, "defence").astype(float)
    for name, v, n in (("attack", p, M.shape[0]), ("defence", q, M.shape[1])):
        if v.shape != (n,) or not (v >= -1e-9).all() or not abs(v.sum() - 1) < 1e-6:
            raise ValueError(f"{name} is no distribution over {n} choices: {v.tolist()}")
    return float((p @ M).min()), float((M @ q).max())


def best_pure(M: ArrayLike) -> int:
    """The column whose largest entry is smallest: the best single defence; of equals the first. Lesson 22, section 9."""
    return int(payoffs(M).max(0).argmin())


def fictitious_play(M: ArrayLike, rounds: int) -> Solution:
    """Each round both play what is best against the other's past mixture; the strategies are the shares of what was played.

    Source: Brown (1951), convergence Robinson (1951); lesson 22, section 9. Of equally good choices the first is taken.
    """
    M = payoffs(M)
    A, D = np.zeros(M.shape[0]), np.zeros(M.shape[1])
    gains, costs = (
        np.zeros(M.shape[0]),
        np.zeros(M.shape[1]),
    )  # of each row against D, of each column against A
    for _ in range(whole(rounds, "rounds")):
        i, j = int(gains.argmax()), int(costs.argmin())
        A[i] += 1
        D[j] += 1
        gains += M[:, j]
        costs += M[i]
    p, q = A / rounds, D / rounds
    return Solution(p, q, *guarantees(M, p, q))


def solve(M: ArrayLike) -> Solution:
    """The minimax strategies, two linear programs: minimise v with M q ≤ v, q a distribution; and the same for the attacker.

    RuntimeError where the solver gives up. Source: von Neumann (1928), Dantzig (1951); lesson 22, section 9.
    """
    M = payoffs(M)
    defence = _least(M)
    attack = _least(-M.T)
    return Solution(attack, defence, *guarantees(M, attack, defence))


def _least(M: np.ndarray) -> np.ndarray:
    """The distribution q with the smallest max of M q."""
    from scipy.optimize import linprog

    n = M.shape[1]
    scale = max(1.0, float(np.abs(M).max()))
    found = linprog(
        np.r_[np.zeros(n), 1.0],
        A_ub=np.c_[M / scale, -np.ones(M.shape[0])],
        b_ub=np.zeros(M.shape[0]),
        A_eq=np.r_[np.ones(n), 0.0][None],
        b_eq=[1.0],
        bounds=[(0, None)] * n + [(None, None)],
        method="highs",
    )
    if found.status != 0:
        raise RuntimeError(f"the linear program was not solved: {found.message}")
    q = np.clip(found.x[:n], 0, None)
    return q / q.sum()
