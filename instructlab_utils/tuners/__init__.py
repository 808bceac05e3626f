"""Tuning methods written by hand, behind one small interface; the names are not peft's, so that a cell can import both.

``model = tuners.inject(model, tuners.Lora(r=8))`` → train → ``tuners.save(model, folder)``, ``tuners.merge(model)``.
"""

from instructlab_utils.tuners.adapters import (
    IA3,
    BitFit,
    HeadOnly,
    Houlsby,
    LayerNorms,
    Parallel,
    Pfeiffer,
    TopLayers,
    without_adapters,
)
from instructlab_utils.tuners.base import inject, load, merge, save, trainable, unmerge
from instructlab_utils.tuners.lora import Lora

__all__ = [
    "IA3",
    "BitFit",
    "HeadOnly",
    "Houlsby",
    "LayerNorms",
    "Lora",
    "Parallel",
    "Pfeiffer",
    "TopLayers",
    "inject",
    "load",
    "merge",
    "save",
    "trainable",
    "unmerge",
    "without_adapters",
]
