"""The film recommender: likes, titles, and both, with a reason for each suggestion, and what it does with a new title.

Nothing about a visitor is kept: the liked films stand in the page's address.

Taught in lesson 26.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from instructlab_apps.demos.page import Demo, View
from instructlab_repro import lesson
from instructlab_utils import features, recommending, tasks
from instructlab_utils.errors import ParameterError
from instructlab_utils.project import closest

MOST = 12  # liked films that a visitor may name
LONGEST = 120  # characters of a title
SHOWN = 8
ROWS = 200  # on whose questions the two rankers are fitted
SETTINGS: dict[str, Any] = {"shrink": 1.0, "rank": 8}
DECAY = 0.01
STARTERS = ("The Lion King", "Toy Story", "Aladdin")
METHODS = ("chance", "popularity", "neighbours", "behaviour", "titles", "both")


@dataclass(frozen=True)
class Suggestion:
    """A film, the ranker's probability among all films on offer, and why, in a sentence."""

    title: str
    chance: float
    why: str


@dataclass(frozen=True)
class Newcomer:
    """What a title that nobody has liked gets: its place among ``offered`` by likes alone and by both, and its models.

    ``first`` and ``last``: by likes alone it is level with other titles without evidence, so it has a span of places.
    ``models``: titles most like it by text, with their cosines.
    """

    title: str
    offered: int
    first: int
    last: int
    by_both: int
    models: tuple[tuple[str, float], ...]


class FilmRecommender:
    """Two rankers over 152 films, fitted when it is made (some seconds): ``by_likes`` and ``by_both``."""

    def __init__(self, rows: int = ROWS) -> None:
        found = tasks.load("movies").splits.values()
        self.data = recommending.likes(row for part in found for row in part)
        self.vectors = normalize(features.mean_states(self.data.titles).double(), dim=1)
        nobody = torch.zeros(len(self.data.titles), dtype=torch.bool)
        everyone = torch.ones(len(self.data.table), dtype=torch.bool)
        self.inherit = recommending.heirs(self.vectors, ~nobody)
        step = max(1, len(everyone) // rows)
        asked = recommending.questions(
            self.data, range(0, len(everyone), step), everyone, nobody, self.vectors, **SETTINGS
        )
        behaviour, told = slice(0, len(recommending.BEHAVIOUR)), (asked.allowed, asked.right, DECAY)
        self.by_likes = recommending.fit_ranker(asked.features[..., behaviour], *told)
        self.by_both = recommending.fit_ranker(asked.features, *told)

    def number(self, title: str) -> int:
        """The place of a title in the list. ParameterError for one that it does not hold."""
        lower = {known.lower(): i for i, known in enumerate(self.data.titles)}
        if title.lower() not in lower:
            near = closest(title, self.data.titles)
            raise ParameterError(f"no film {title[:60]!r} in the list{near or ';'} choose one of the titles")
        return lower[title.lower()]

    def _history(self, liked: Sequence[int]) -> Tensor:
        history = torch.zeros(1, len(self.data.titles), dtype=torch.float64)
        history[0, list(liked)] = 1
        return history

    def evidence(self, liked: Sequence[int]) -> Tensor:
        """The five features of every film for this history, float64 (I, 5). ParameterError for no film."""
        if not liked:
            raise ParameterError("no liked film: name one at least")
        history = self._history(liked)
        known = recommending.behaviour(self.data.table, history, **SETTINGS)
        return recommending.evidence(known, history, self.vectors, self.inherit)[0]

    def suggest(self, liked: Sequence[int], by: str = "both", most: int = SHOWN) -> list[Suggestion]:
        """The best films that are not liked yet, by "popularity", "likes" or "both"."""
        found = self.evidence(liked)
        if by == "both":
            scores = self.by_both.scores(found)
        elif by == "likes":
            scores = self.by_likes.scores(found[:, : len(recommending.BEHAVIOUR)])
        else:
            scores = found[:, 0]
        scores[list(liked)] = -torch.inf
        chance = scores.softmax(0)
        best = scores.sort(descending=True, stable=True).indices[:most].tolist()
        return [Suggestion(self.data.titles[i], float(chance[i]), self.why(i, liked)) for i in best]

    def why(self, film: int, liked: Sequence[int]) -> str:
        """The strongest single reason: a liked film that stands in the same lists, or one with a title like it."""
        history = list(liked)
        together = (self.data.table.T @ self.data.table)[film, history]
        alike = self.vectors[history] @ self.vectors[film]
        friend, twin = int(together.argmax()), int(alike.argmax())
        said = f"{int(self.data.table[:, film].sum())} lists hold it"
        if together[friend] > 0:
            said += f", {int(together[friend])} of them with {self.data.titles[history[friend]]}"
        return said + f". Its title is nearest to {self.data.titles[history[twin]]} ({alike[twin]:.2f})."

    def newcomer(self, title: str, vector: Tensor, liked: Sequence[int]) -> Newcomer:
        """Where a title without any like would stand. ``vector``: the encoder's, (d,)."""
        known, unit = self.evidence(liked), normalize(vector.double(), dim=0)
        alike = self.vectors @ unit
        share = (alike / 0.1).softmax(0)
        user = normalize(self.vectors[list(liked)].mean(0), dim=0)
        no_likes = torch.zeros(len(recommending.BEHAVIOUR), dtype=torch.float64)
        own = torch.cat([no_likes, torch.stack([user @ unit, known[:, 1] @ share])])
        others = torch.ones(len(self.data.titles), dtype=torch.bool)
        others[list(liked)] = False
        n = len(recommending.BEHAVIOUR)
        likes, mine = self.by_likes.scores(known[others, :n]), self.by_likes.scores(own[:n])
        both, ours = self.by_both.scores(known[others]), self.by_both.scores(own)
        models = alike.sort(descending=True).indices[:3].tolist()
        return Newcomer(
            title,
            int(others.sum()) + 1,
            int((likes > mine).sum()) + 1,
            int((likes >= mine).sum()) + 1,
            int((both > ours).sum()) + 1,
            tuple((self.data.titles[i], float(alike[i])) for i in models),
        )


# --- the page ---------------------------------------------------------------------------------------------------------


class _Pages:
    """Views and actions; the liked films stand in the address as ``likes=3.17``."""

    def __init__(self, found: FilmRecommender) -> None:
        self.found = found

    def liked(self, query: Mapping[str, str]) -> list[int]:
        """The films of an address. ParameterError where it names none of ours."""
        told = query.get("likes")
        if told is None:
            return [self.found.number(title) for title in STARTERS]
        parts = [part for part in told.split(".") if part][:MOST]
        if not all(part.isascii() and part.isdigit() for part in parts):
            raise ParameterError("the address does not hold numbers of films: begin at the first page")
        numbers = list(dict.fromkeys(map(int, parts)))
        if any(number >= len(self.found.data.titles) for number in numbers):
            raise ParameterError("the address holds a film that is not in the list: begin at the first page")
        return numbers

    @staticmethod
    def address(liked: Sequence[int], path: str = "/") -> str:
        return f"{path}?likes={'.'.join(map(str, liked))}"

    def shared(self, query: Mapping[str, str]) -> dict[str, Any]:
        liked = self.liked(query)
        titles = self.found.data.titles
        return {
            "liked": [(number, titles[number]) for number in liked],
            "likes": ".".join(map(str, liked)),
            "titles": titles,
            "longest": LONGEST,
            "full": len(liked) >= MOST,
        }

    def first(self, query: Mapping[str, str]) -> dict[str, Any]:
        values = self.shared(query)
        liked = [number for number, _ in values["liked"]]
        lists = {by: self.found.suggest(liked, by) if liked else [] for by in ("popularity", "likes", "both")}
        return values | {"lists": lists}

    def new(self, query: Mapping[str, str]) -> dict[str, Any]:
        values, title = self.shared(query), query.get("title", "").strip()[:LONGEST]
        liked = [number for number, _ in values["liked"]]
        if not title or not liked:
            return values | {"title": title, "newcomer": None}
        from instructlab_apps.demos import sentences

        vector = torch.from_numpy(sentences.fresh([title])[0])
        return values | {"title": title, "newcomer": self.found.newcomer(title, vector, liked)}

    def worth(self, query: Mapping[str, str]) -> dict[str, Any]:
        spec, rows = lesson.experiment("recommending"), []
        for method in METHODS:
            lines = [line for line in lesson.results("recommending") if line["method"] == method]
            if lines:
                means = [sum(line[key] for line in lines) / len(lines) for key in ("ndcg_warm", "ndcg_cold")]
                rows.append((spec.labels[method], *means))
        return self.shared(query) | {"rows": rows, "verdict": lesson.words("C24")["C24"]}

    def add(self, form: Mapping[str, str]) -> str:
        liked = self.liked(form)
        if len(liked) >= MOST:
            raise ParameterError(f"{MOST} films are the most: take one away first")
        return self.address(list(dict.fromkeys([*liked, self.found.number(form.get("film", ""))])))

    def remove(self, form: Mapping[str, str]) -> str:
        gone = form.get("number", "")
        return self.address([number for number in self.liked(form) if str(number) != gone])

    def try_new(self, form: Mapping[str, str]) -> str:
        from urllib.parse import urlencode

        title = form.get("title", "").strip()
        if not title or len(title) > LONGEST:
            raise ParameterError(f"write a title of 1 to {LONGEST} characters")
        return f"{self.address(self.liked(form), '/new')}&{urlencode({'title': title})}"


def build() -> Demo:
    """The demo, its vectors computed and its rankers fitted."""
    pages = _Pages(FilmRecommender())
    return Demo(
        name="recommender",
        title="Film recommender",
        about="152 films in 500 lists of five that were liked together (BIG-bench, after MovieLens); of their texts only "
        "the titles are known. Lesson 26 says what it is worth. Nothing that you enter is kept.",
        views=(
            View("/", "Suggestions", "recommender.html.j2", pages.first),
            View("/new", "A new film", "recommender_new.html.j2", pages.new),
            View("/worth", "What it is worth", "recommender_worth.html.j2", pages.worth),
        ),
        actions={"add": pages.add, "remove": pages.remove, "new": pages.try_new},
    )
