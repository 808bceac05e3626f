"""Tuning methods written by hand, behind one small interface; the names are not peft's, so that a cell can import both.

``model = tuners.inject(model, tuners.Lora(r=8))`` → train → ``tuners.save(model, folder)``, ``tuners.merge(model)``.
"""

from instructlab_utils.tuners.base import inject, load, merge, save, trainable, unmerge
from instructlab_utils.tuners.lora import Lora
from instructlab_utils.tuners.prompts import DeepPrompts, PrefixTuning, PromptTuning, PTuning

__all__ = [
    "DeepPrompts",
    "Lora",
    "PTuning",
    "PrefixTuning",
    "PromptTuning",
    "inject",
    "load",
    "merge",
    "save",
    "trainable",
    "unmerge",
]
