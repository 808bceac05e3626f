"""Pictures whose right description is known: coloured shapes on grey, drawn by formulas, and instructions about them.

A scene has a count, a colour, a shape and a place. Some pairs of colour and shape can be held out: never drawn for training.
Built in lesson 23; the experiment `captions` uses it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from instructlab_utils import generation, training
from instructlab_utils.errors import ParameterError

COLOURS = {
    "red": (0.85, 0.15, 0.15), "green": (0.15, 0.7, 0.2), "blue": (0.2, 0.3, 0.9),
    "yellow": (0.9, 0.85, 0.2), "purple": (0.65, 0.2, 0.75), "cyan": (0.2, 0.8, 0.85),
}  # fmt: skip
SHAPES = ("circles", "squares", "triangles", "crosses")
COUNTS = {"two": 2, "three": 3, "four": 4}
PLACES = ("left", "right", "top", "bottom")
VALUES = {"count": tuple(COUNTS), "colour": tuple(COLOURS), "shape": SHAPES, "place": PLACES}
QUESTIONS = {
    "count": "how many are there ?",
    "colour": "what colour are they ?",
    "shape": "which shape are they ?",
    "place": "where are they ?",
    "describe": "describe the picture",
}
PAIRS = {(colour, shape) for colour in COLOURS for shape in SHAPES}
SIZE = 32  # pixels, both ways


class Scene(NamedTuple):
    """What a picture shows, in words (lesson 23)."""

    count: str  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    colour: str
    shape: str
    place: str

    @property
    def caption(self) -> str:
        return " ".join(self)

    def answer(self, kind: str) -> str:
        """The right answer to ``QUESTIONS[kind]``."""
        return self.caption if kind == "describe" else str(getattr(self, kind))


def held_out_pairs(seed: int) -> set[tuple[str, str]]:
    """One shape for each colour; each colour and each shape is still met in other pairs. Another seed, another plan.

    Source: lesson 23, section 2.
    """
    rng, shapes = random.Random(f"pairs {seed}"), list(SHAPES)
    rng.shuffle(shapes)
    return {(colour, shapes[i % len(shapes)]) for i, colour in enumerate(COLOURS)}


def scenes(n: int, rng: random.Random, pairs: Iterable[tuple[str, str]] | None = None) -> list[Scene]:
    """``n`` scenes, all values equally frequent; only the given pairs of colour and shape where there are ``pairs``.

    Raises ParameterError for a pair that is none, or no pair at all. Source: lesson 23, section 2.
    """
    chosen = sorted(PAIRS if pairs is None else pairs)
    if not chosen or not set(chosen) <= PAIRS:
        raise ParameterError(f"{chosen} are not pairs of a colour and a shape: see COLOURS and SHAPES")
    drawn = [(rng.choice(VALUES["count"]), rng.choice(chosen), rng.choice(PLACES)) for _ in range(n)]
    return [Scene(count, *pair, place) for count, pair, place in drawn]


def _inside(dx: Tensor, dy: Tensor, r: Tensor) -> Tensor:
    """Which pixels, dx and dy from the middle, belong to each of SHAPES of radius ``r``; booleans, (4, ...)."""
    a, b = dx.abs(), dy.abs()
    circle = dx.square() + dy.square() <= r.square()
    square = torch.maximum(a, b) <= 0.9 * r
    triangle = (dy <= 0.8 * r) & (2 * a <= dy + r)
    cross = (torch.minimum(a, b) <= 0.3 * r) & (torch.maximum(a, b) <= r)
    return torch.stack([circle, square, triangle, cross])


def draw(found: Sequence[Scene], seed: int) -> Tensor:
    """A picture for each scene, float32 in 0…1, (N, 3, 32, 32); ``seed`` draws sizes, shifts, shades and noise.

    Source: lesson 23, section 2.
    """
    generator, N, most = torch.Generator().manual_seed(seed), len(found), max(COUNTS.values())

    def drawn(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    count = torch.tensor([COUNTS[scene.count] for scene in found])[:, None]
    place = torch.tensor([PLACES.index(scene.place) for scene in found])[:, None]
    shape = torch.tensor([SHAPES.index(scene.shape) for scene in found])
    number = torch.arange(most).expand(N, most)
    along = SIZE / 2 + 8 * (number - (count - 1) / 2) + drawn(N, 1) - 0.5
    across = 7 + 3 * (drawn(N, most) - 0.5)
    across = torch.where(place % 2 == 1, SIZE - across, across)  # right and bottom
    cx, cy = torch.where(place < 2, across, along), torch.where(place < 2, along, across)
    r, shade = 3.2 + 0.7 * drawn(N, 1, 1, 1), 0.1 * (drawn(N, 3, 1, 1) - 0.5)
    shade = shade + torch.tensor([COLOURS[scene.colour] for scene in found])[:, :, None, None]
    pixel = torch.arange(SIZE) + 0.5
    pictures = (0.3 * drawn(N, 1, 1, 1)).expand(N, 3, SIZE, SIZE).clone()
    for i in range(most):
        dx, dy = pixel - cx[:, i, None, None], pixel[:, None] - cy[:, i, None, None]
        inside = _inside(dx, dy, r[:, 0])[shape, torch.arange(N)] & (i < count)[:, :, None]
        pictures = torch.where(inside[:, None], shade, pictures)
    return (pictures + 0.05 * torch.randn(pictures.shape, generator=generator)).clamp(0, 1)


def attributes(found: Sequence[Scene]) -> list[list[int]]:
    """The places of each scene's count, colour, shape and place in :data:`VALUES`. Source: lesson 23, section 3."""
    return [[VALUES[name].index(getattr(scene, name)) for name in VALUES] for scene in found]


def attribute_examples(found: Sequence[Scene]) -> list[training.Example]:
    """The examples of `vision.head_losses`: the attributes as labels, picture i for scene i. Source: lesson 23, section 3."""
    return [{"input_ids": y, "labels": y, "picture": [i]} for i, y in enumerate(attributes(found))]


def by_prior(train: Sequence[Scene], found: Sequence[Scene], kinds: Sequence[str]) -> list[list[bool]]:
    """Whether the most frequent answer in ``train`` is right, for each scene and kind: no picture is looked at.

    Source: lesson 23, section 7.
    """
    usual = {kind: Counter(scene.answer(kind) for scene in train).most_common(1)[0][0] for kind in kinds}
    return [[scene.answer(kind) == usual[kind] for kind in kinds] for scene in found]


def words() -> list[str]:
    """All words of captions, questions and answers, sorted. Source: lesson 23, section 4."""
    texts = [*QUESTIONS.values(), *(value for values in VALUES.values() for value in values), "= ."]
    return sorted({word for text in texts for word in text.split()})


def instruction(scene: Scene, kind: str, tokenizer: Any, picture: int = -1) -> training.Example:
    """One example: the question, with labels on the answer and its end alone.

    ``picture``: its place among the pictures. With -1 there is none, and the caption in words stands before the question.
    Source: lesson 23, section 4.
    """
    given = "" if picture >= 0 else f"{scene.caption} . "
    example = generation.encode_completion(f"{given}{QUESTIONS[kind]} =", scene.answer(kind), tokenizer)
    return {**example, "picture": [picture]}


def instructions(
    found: Sequence[Scene], kinds: Sequence[str], tokenizer: Any, *, text: bool = False
) -> list[training.Example]:
    """:func:`instruction` for each scene and each kind, in turn; picture i belongs to scene i.

    Source: lesson 23, section 4.
    """
    places = [-1 if text else i for i in range(len(found))]
    return [
        instruction(scene, kind, tokenizer, i)
        for scene, i in zip(found, places, strict=True)
        for kind in kinds
    ]
