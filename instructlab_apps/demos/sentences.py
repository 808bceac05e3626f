"""Sentences as unit vectors of the frozen encoder: many at once, kept on disk, or one that a person just wrote, kept nowhere.

Taught in lesson 26.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

LENGTH = 32  # tokens that are read of a sentence
_LOCK = threading.Lock()  # requests run in threads; the encoder is one
_LOADED: list[Any] = []


def kept(texts: Sequence[str]) -> np.ndarray:
    """Unit vectors of fixed texts, float64 of shape (N, 384): `features.mean_states`, which keeps them on disk."""
    from instructlab_utils import features

    return unit(features.mean_states(texts, LENGTH).numpy())


def fresh(texts: Sequence[str]) -> np.ndarray:
    """The same vectors up to rounding, never written to disk: what a person types is nobody's data set."""
    from instructlab_utils import features, models

    with _LOCK:
        if not _LOADED:
            _LOADED.extend([models.load_encoder(), models.load_tokenizer("encoder")])
        encoder, tokenizer = _LOADED
        layers = encoder.config.num_hidden_layers
        return unit(
            features.pooled(*features.lower_states(encoder, tokenizer, texts, layers, LENGTH)).numpy()
        )


def unit(rows: np.ndarray) -> np.ndarray:
    """Each row divided by its length, float64."""
    rows = rows.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
