"""Tuning methods written by hand, behind one small interface; the names are not peft's, so that a cell can import both.

``model = tuners.inject(model, tuners.Lora(r=8))`` → train → ``tuners.save(model, folder)``, ``tuners.merge(model)``.
"""

from instructlab_utils.tuners.adalora import AdaLora
from instructlab_utils.tuners.adapter_files import load, save
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
from instructlab_utils.tuners.base import extras, inject, merge, trainable, unmerge
from instructlab_utils.tuners.lora import Lora
from instructlab_utils.tuners.ownership import untie
from instructlab_utils.tuners.prompts import DeepPrompts, PrefixTuning, PromptTuning, PTuning
from instructlab_utils.tuners.vera import Vera

__all__ = [
    "IA3",
    "AdaLora",
    "BitFit",
    "DeepPrompts",
    "HeadOnly",
    "Houlsby",
    "LayerNorms",
    "Lora",
    "PTuning",
    "Parallel",
    "Pfeiffer",
    "PrefixTuning",
    "PromptTuning",
    "TopLayers",
    "Vera",
    "extras",
    "inject",
    "load",
    "merge",
    "save",
    "trainable",
    "unmerge",
    "untie",
    "without_adapters",
]
