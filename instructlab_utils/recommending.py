"""Recommending from what was liked together, from titles, and from both with one ranker. Taught in lesson 26.

A table of likes has N rows (lists of films that somebody liked) and I titles. A *question* is one row with one of its
titles hidden: the others are its history. No question may see a row that shares `NEAR` titles with its own: such a row
is nearly a copy, and often holds the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from instructlab_utils.errors import DataError, ParameterError

NEAR = 4  # titles that two rows share before one counts as a copy of the other
COMMAS = ("Lock, Stock & Two Smoking Barrels", "Monsters, Inc")  # titles that hold the sign between titles
BEHAVIOUR = ("popularity", "neighbours", "factors")
TEXT = ("titles", "inherited")


@dataclass(frozen=True)
class Likes:
    """Who liked what (lesson 26, section 5). ``titles``: I names, sorted; ``table``: float64 (N, I) of 0 and 1.

    ``asked``: int64 (N,), the title that the file asks for; ``options``: its four options, the right one among them.
    ``memo`` keeps what behaviour said of a question, so that other texts can be tried without counting again.
    """

    titles: list[str]
    table: Tensor
    asked: Tensor
    options: list[list[str]]
    memo: dict[tuple[Any, ...], Tensor] = field(default_factory=dict, repr=False, compare=False)

    def copies(self) -> Tensor:
        """Which rows share `NEAR` titles or more, bool (N, N); each row with itself too."""
        return self.table @ self.table.T >= NEAR


def titles_of(line: str) -> list[str]:
    """The titles of a line ``A, B, C, D:`` in their order (lesson 26). DataError for an empty one."""
    line = line.rstrip(": ")
    for title in COMMAS:
        line = line.replace(title, title.replace(", ", "\0"))
    found = [part.strip().replace("\0", ", ") for part in line.split(", ")]
    if not all(found):
        raise DataError(f"{line[:60]!r}: an empty title; write titles, with a comma between them")
    return found


def likes(rows: Iterable[Mapping[str, Any]]) -> Likes:
    """The table of a task of kind choice whose inputs are lists of titles: history and right option are liked (lesson 26).

    Raises DataError for no row.
    """
    kept = sorted(rows, key=lambda row: row["id"])
    asked = [row["options"][row["answer"]] for row in kept]
    lists = [[*titles_of(row["input"]), title] for row, title in zip(kept, asked, strict=True)]
    titles = sorted({title for each in lists for title in each})
    if not titles:
        raise DataError("no row of likes: give the rows of the task movies")
    number = {title: i for i, title in enumerate(titles)}
    table = torch.zeros(len(kept), len(titles), dtype=torch.float64)
    for row, each in enumerate(lists):
        table[row, [number[title] for title in each]] = 1
    right = torch.tensor([number[title] for title in asked])
    return Likes(titles, table, right, [list(row["options"]) for row in kept])


# --- what behaviour says ---------------------------------------------------------------------------------------------


def popularity(table: Tensor) -> Tensor:
    """ln(1 + times liked) of each title: table (N, I) of 0 and 1; (I,). Source: lesson 26, section 6."""
    return table.sum(0).log1p()


def neighbours(table: Tensor, shrink: float = 0.0) -> Tensor:
    """Item-kNN: how alike two titles' columns are, (I, I), 0 on the diagonal and where nothing was liked together.

    The cosine of two columns of 0 and 1 is their common count over the root of the product of their counts; ``shrink`` is
    added below, so that a pair seen once is not believed at once. Raises ParameterError for a shrink below 0.
    Source: Sarwar et al. (2001), with a shrinkage as in Bell and Koren (2007); lesson 26, section 6.
    """
    if not shrink >= 0:
        raise ParameterError(f"shrink is {shrink}: choose 0 or more")
    common, count = table.T @ table, table.sum(0)
    below = (count[:, None] * count).sqrt() + shrink
    return torch.where(common > 0, common / below.clamp(min=1e-12), 0.0).fill_diagonal_(0)


def factors(table: Tensor, rank: int) -> Tensor:
    """V (I, rank), orthonormal: table @ V @ V.T is the best approximation of that rank (Eckart and Young, 1936).

    Unweighted matrix factorisation without decay ends here, by whatever way it goes. Raises ParameterError for a rank
    outside 1 … I. Source: lesson 26, section 6.
    """
    if not 1 <= rank <= table.shape[1]:
        raise ParameterError(f"rank is {rank}: choose 1 to {table.shape[1]}, the number of titles")
    return torch.linalg.eigh(table.T @ table).eigenvectors[:, -rank:]


# --- what titles say -------------------------------------------------------------------------------------------------


def word_vectors(titles: Sequence[str]) -> Tensor:
    """Unit vectors of the titles' words, each weighted by its rarity, float64 (I, W): the control for a text model."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    found = TfidfVectorizer(token_pattern=r"\b\w+\b", sublinear_tf=True).fit_transform(titles)
    return torch.from_numpy(found.toarray())


def heirs(vectors: Tensor, known: Tensor, heat: float = 0.1) -> Tensor:
    """From whom a title inherits, (I, I): row i is a softmax over the ``known`` titles but itself.

    Of the cosines over ``heat``; vectors (I, d), known bool (I,). A title that nobody has liked yet takes over, by text,
    what is known of the likes of others.
    Raises ParameterError where fewer than two titles are known, or ``heat`` is not positive. Source: lesson 26, section 7.
    """
    if known.sum() < 2 or not heat > 0:
        raise ParameterError(
            f"{int(known.sum())} known titles, heat {heat}: give two or more, and heat above 0"
        )
    unit = normalize(vectors.double(), dim=1)
    alike = unit @ unit.T / heat
    hidden = ~known[None] | torch.eye(len(known), dtype=torch.bool)
    return alike.masked_fill(hidden, -torch.inf).softmax(1)


# --- questions and their features ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Questions:
    """Q questions: ``features`` float64 (Q, I, 5) in the order `BEHAVIOUR`, `TEXT`; ``allowed`` bool (Q, I); ``right`` (Q,).

    ``row``: int64 (Q,), from which row of the table each question is.
    """

    features: Tensor
    allowed: Tensor
    right: Tensor
    row: Tensor


def behaviour(table: Tensor, history: Tensor, shrink: float = 1.0, rank: int = 8) -> Tensor:
    """The features `BEHAVIOUR` of every title for every history, float64 (H, I, 3), from the rows ``table`` (N, I).

    ``history`` (H, I) of 0 and 1, one title at least in each. Source: lesson 26, section 6.
    """
    share = history / history.sum(1, keepdim=True)
    likely, basis = share @ neighbours(table, shrink), factors(table, rank)
    return torch.stack([popularity(table).expand(len(history), -1), likely, history @ basis @ basis.T], -1)


def evidence(known: Tensor, history: Tensor, vectors: Tensor, inherit: Tensor) -> Tensor:
    """All five features, float64 (H, I, 5): ``known`` (H, I, 3) of `behaviour`, and `TEXT` from the titles.

    Unit ``vectors`` (I, d) and `heirs` (I, I); ``history`` (H, I) as above. Source: lesson 26, section 7.
    """
    share = history / history.sum(1, keepdim=True)
    alike = normalize(share @ vectors, dim=1) @ vectors.T
    return torch.cat([known, torch.stack([alike, known[..., 1] @ inherit.T], -1)], -1)


def questions(
    data: Likes,
    rows: Sequence[int],
    train: Tensor,
    cold: Tensor,
    vectors: Tensor,
    *,
    about: str = "warm",
    shrink: float = 1.0,
    rank: int = 8,
    copies: bool = False,
) -> Questions:
    """Every liked title of ``rows`` asked for in turn, with features from the rows ``train`` (bool (N,)) and the titles.

    Titles with ``cold`` (bool (I,)) have no likes: they are taken out of every row that is counted and of every history.
    ``about`` "warm" asks for the other titles and offers those that the row does not hold; "cold" asks for cold titles
    among cold ones; "all" asks for each among all. ``vectors`` (I, d) are the titles'. With ``copies`` rows that are
    nearly this one stay in, which leaks. Raises ParameterError where nothing is asked. Source: lesson 26, sections 5 to 7.
    """
    if about not in ("warm", "cold", "all"):
        raise ParameterError(f"about is {about!r}: choose warm, cold or all")
    near, warm = data.copies(), (~cold).double()
    unit, inherit = normalize(vectors.double(), dim=1), heirs(vectors, ~cold)
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for row in rows:
        own = data.table[row].bool()
        wanted = own & {"warm": ~cold, "cold": cold, "all": torch.ones_like(cold)}[about]
        asked = wanted.nonzero()[:, 0]
        history = (data.table[row] * warm).repeat(len(asked), 1)
        history[torch.arange(len(asked)), asked] = 0
        asked, history = asked[history.sum(1) > 0], history[history.sum(1) > 0]
        seen = train.clone() if copies else train & ~near[row]
        seen[row] = False
        key = (row, about, shrink, rank, seen.numpy().tobytes(), cold.numpy().tobytes())
        if key not in data.memo:
            data.memo[key] = behaviour(data.table[seen] * warm, history, shrink, rank)
        parts = evidence(data.memo[key], history, unit, inherit)
        offered = (~own | torch.nn.functional.one_hot(asked, len(own)).bool()) & (
            {"warm": ~cold, "cold": cold, "all": torch.ones_like(cold)}[about]
        )
        found.append((parts, offered, asked, torch.full_like(asked, row)))
    if not sum(len(each[2]) for each in found):
        raise ParameterError(f"no question about {about} titles in {len(rows)} rows: give more rows")
    return Questions(*(torch.cat(each) for each in zip(*found, strict=True)))


# --- one ranker ------------------------------------------------------------------------------------------------------


def choice_losses(scores: Tensor, allowed: Tensor, right: Tensor) -> Tensor:
    """Minus the log of the right title's softmax share among the allowed ones, (Q,).

    Scores and allowed (Q, I), right (Q,). Source: lesson 26, section 7.
    """
    held = scores.masked_fill(~allowed, -torch.inf)
    return held.logsumexp(1) - held.gather(1, right[:, None])[:, 0]


@dataclass(frozen=True)
class Ranker:
    """Weights (F,) and scales (F,) of a linear ranker; ``scores`` gives features (…, F) their sum, (…)."""

    weights: Tensor
    scale: Tensor

    def scores(self, features: Tensor) -> Tensor:
        return features / self.scale @ self.weights


def fit_ranker(features: Tensor, allowed: Tensor, right: Tensor, decay: float, most: int = 50) -> Ranker:
    """The weights that make the right titles most probable: mean `choice_losses` plus ``decay`` / 2 times their squares.

    Features (Q, I, F) are divided by their standard deviation. The loss is convex, so Newton's steps, halved where the loss
    would rise, end at its only minimum. Raises ParameterError where ``decay`` is not positive or no question is given.
    Source: McFadden (1974), the conditional logit; lesson 26, section 7.
    """
    if not decay > 0 or not len(right):
        raise ParameterError(
            f"decay is {decay}, {len(right)} questions: give a decay above 0, and one question"
        )
    scale = features[allowed].std(0, correction=0).clamp(min=1e-9)
    x, weights = features / scale, torch.zeros(features.shape[-1], dtype=features.dtype)
    picked = x[torch.arange(len(right)), right]

    def value(w: Tensor) -> Tensor:
        return choice_losses(x @ w, allowed, right).mean() + decay / 2 * w @ w

    for _ in range(most):
        p = (x @ weights).masked_fill(~allowed, -torch.inf).softmax(1)
        mean = torch.einsum("qi,qif->qf", p, x)
        slope = (mean - picked).mean(0) + decay * weights
        if slope.abs().max() < 1e-10:
            break
        bent = torch.einsum("qi,qif,qig->fg", p, x, x) / len(right) - mean.T @ mean / len(right)
        step, size = torch.linalg.solve(bent + decay * torch.eye(len(weights), dtype=x.dtype), slope), 1.0
        while value(weights - size * step) > value(weights) and size > 1e-8:
            size /= 2
        weights = weights - size * step
    return Ranker(weights, scale)


def expected_gain(scores: Tensor, allowed: Tensor, right: Tensor, first: int = 10) -> Tensor:
    """nDCG in the first so many places, (Q,), the mean over all orders of titles with equal scores.

    Scores and allowed (Q, I), right (Q,). One right title: the gain is 1 / log2(1 + place). Whoever scores all titles alike
    gets what a blind order gets, and no more. Raises ParameterError for NaN. Source: lesson 26, section 5.
    """
    if scores.isnan().any():
        raise ParameterError("a score is NaN: it has no place in an order")
    own = scores.gather(1, right[:, None])
    above = (allowed & (scores > own)).sum(1)
    equal = (allowed & (scores == own)).sum(1)  # the right one among them
    places = torch.arange(1, scores.shape[1] + 1)
    gains = torch.where(places <= first, 1 / (1 + places.double()).log2(), 0.0)
    total = torch.cat([torch.zeros(1, dtype=torch.float64), gains.cumsum(0)])
    return (total[above + equal] - total[above]) / equal


def towers(
    fit: Questions,
    data: Likes,
    vectors: Tensor,
    cold: Tensor,
    copied: Tensor,
    seed: int,
    steps: int,
    rate: float,
    rank: int = 8,
    heat: float = 0.1,
) -> Callable[[Questions], Tensor]:
    """Two towers with one weight, W = I + BA of rank ``rank``: the cosine of W times the history's mean and W times a title.

    Trained on the questions ``fit`` whose row is not ``copied`` (bool (N,)), by the mean `choice_losses` of the cosine over
    ``heat``, with Adam. Vectors (I, d); ``cold`` titles leave the histories. Returns a function from questions to scores
    (Q, I). Raises ParameterError where every row is copied. Source: lesson 26, section 7.
    """
    unit, warm = normalize(vectors.float(), dim=1), (~cold).float()
    g = torch.Generator().manual_seed(seed)
    down = (torch.randn(unit.shape[1], rank, generator=g) / unit.shape[1] ** 0.5).requires_grad_()
    up = torch.zeros(rank, unit.shape[1], requires_grad=True)

    def scores(asked: Questions, keep: Tensor) -> Tensor:
        history = data.table[asked.row[keep]].float() * warm
        history[torch.arange(len(history)), asked.right[keep]] = 0
        user = history @ unit
        user, items = user + user @ down @ up, unit + unit @ down @ up
        return normalize(user, dim=1) @ normalize(items, dim=1).T / heat

    kept = (~copied[fit.row]).nonzero()[:, 0]
    if not len(kept):
        raise ParameterError("every training row is nearly a test row: give other rows")
    optimizer = torch.optim.Adam([down, up], lr=rate)
    for _ in range(steps):
        loss = choice_losses(scores(fit, kept), fit.allowed[kept], fit.right[kept]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def score(asked: Questions) -> Tensor:
        with torch.no_grad():
            return scores(asked, torch.arange(len(asked.right))).double()

    return score
