"""What a measure may be given: type, range and length, checked before anything is computed.

A text is a sequence of texts for Python, and arrays of other shapes broadcast: both give a number, and a wrong one. Each
function returns its argument in the form that is computed with, or raises ValueError or TypeError with one sentence.
From lesson 03 on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def listed(texts: Iterable[str], name: str) -> list[str]:
    """``texts`` as a list of str. Raises TypeError where it is one text, or holds something that is no text."""
    if isinstance(texts, str | bytes | Mapping) or not isinstance(texts, Iterable):
        raise TypeError(f"{name} must be a list of texts, not {texts!r:.60}")
    found = list(texts)
    for i, text in enumerate(found):
        if not isinstance(text, str):
            raise TypeError(f"{name}[{i}] must be a text, not {text!r:.60}")
    return found


def nested(lists: Iterable[Iterable[str]], name: str) -> list[list[str]]:
    """``lists`` as a list of lists of str. Raises TypeError as :func:`listed`, for the outer and for the inner ones."""
    if isinstance(lists, str | bytes | Mapping) or not isinstance(lists, Iterable):
        raise TypeError(f"{name} must be a list of lists of texts, not {lists!r:.60}")
    return [listed(inner, f"{name}[{i}]") for i, inner in enumerate(lists)]


def fraction(share: float, name: str) -> float:
    """``share`` if it lies in 0…1. Raises ValueError where it does not, NaN included."""
    if not 0 <= share <= 1:
        raise ValueError(f"{name} is {share}: choose a number from 0 to 1")
    return share


def whole(n: int, name: str) -> int:
    """``n`` if it is a whole number from 1. Raises ValueError where it is not."""
    if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
        raise ValueError(f"{name} is {n!r}: choose a whole number from 1")
    return int(n)


def array(values: ArrayLike, name: str) -> np.ndarray:
    """Numbers as a NumPy array in double precision, if they are not whole; a tensor of any dtype and device will do.

    Raises TypeError for what holds no numbers, ValueError for rows of unequal length.
    """
    tensor: Any = values
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        tensor = (tensor.double() if tensor.is_floating_point() else tensor).numpy()
    try:
        found = np.asarray(tensor)
    except ValueError:
        raise ValueError(f"{name} must be rows of equal length") from None
    if found.dtype.kind == "O" and all(isinstance(value, Real) for value in found.flat):
        found = found.astype(float)  # fractions, a nullable column of pandas
    if found.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold numbers, not {found.dtype}")
    return found.astype(float) if found.dtype.kind == "f" else found


def classes(targets: ArrayLike, name: str) -> np.ndarray:
    """Class numbers, (n,), int64: whole, from 0, at least one. Raises ValueError, or TypeError as :func:`array`.

    A label of -100 or -1, which means "none", and a share such as 0.7 are no classes.
    """
    y = array(targets, name)
    if y.ndim != 1 or not len(y):
        raise ValueError(f"{name} must be one number for each example, at least one; got shape {y.shape}")
    wrong = ~(np.isfinite(y) & (y >= 0) & (y == np.floor(y)))
    if wrong.any():
        raise ValueError(f"{name}[{wrong.argmax()}] is {y[wrong.argmax()]}: classes are whole numbers from 0")
    return y.astype(np.int64)


def scored(scores: ArrayLike, targets: ArrayLike, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n, K) in double precision, finite, and one class below K for each row. Raises as :func:`classes`."""
    z, y = array(scores, name).astype(float), classes(targets, "targets")
    if z.ndim != 2 or len(z) != len(y):
        raise ValueError(
            f"{name} of shape {z.shape} and {len(y)} targets: need one row of classes for each target"
        )
    if not np.isfinite(z).all():
        raise ValueError(f"{name} hold NaN or an infinite number: mend what made them")
    if y.max() >= z.shape[1]:
        raise ValueError(f"a target is {y.max()}, but {name} have {z.shape[1]} classes, from 0")
    return z, y


def distributions(probabilities: ArrayLike, targets: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, K), each row a distribution, and one class for each. Raises ValueError for logits, else as above.

    Rows may be off 1 by 0.01, for a softmax in bfloat16.
    """
    p, y = scored(probabilities, targets, "probabilities")
    if (p < 0).any() or (abs(p.sum(1) - 1) > 0.01).any():
        raise ValueError(
            "probabilities must be in 0…1 and sum to 1 in each row: take the softmax of logits first"
        )
    return p, y
