"""Whose weights are whose: which layers of a model are new, and which weights have a second owner.

New layers train and are saved with every method. A weight with a second owner (an output layer that shares the matrix of
the word embeddings) is never written to. Taught in lessons 08 and 09.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from instructlab_utils.errors import TrainingError

# of a module that is none of transformers' and cannot tell its head
HEADS = ("classifier", "score", "qa_outputs")


def within(name: str, layers: Iterable[str]) -> bool:
    """Whether the parameter or module ``name`` is one of ``layers`` or lies inside one."""
    return any(name == layer or name.startswith(layer + ".") for layer in layers)


def heads(model: nn.Module) -> list[str]:
    """The layers that no checkpoint has trained, by full name, in the model's order: they train with every method.

    These are what ``from_pretrained`` had to draw anew, such as ``classifier``, DistilBERT's ``pre_classifier`` or a pooler
    that the checkpoint lacks. Of a model that no checkpoint fills, or one fills wholly, these are the layers outside the
    pretrained trunk (``base_model``). Empty for a decoder: its output layer is no new one.
    """
    names = [name for name, _ in model.named_parameters()]
    new = drawn_anew(model) or {name for name in names if within(name, _outside_the_trunk(model))}
    return list(dict.fromkeys(_widest(model, name, new) for name in names if name in new))


def drawn_anew(model: nn.Module) -> set[str] | None:
    """The parameters that the loader did not find in the checkpoint; None where none was loaded, or nobody knows."""
    reported = getattr(model, "newly_initialised", None)  # left by models.py; a deep copy keeps it
    if reported is not None:
        return set(reported)
    loaded = {n: getattr(p, "_is_hf_initialized", False) for n, p in model.named_parameters()}
    return {name for name, found in loaded.items() if not found} if any(loaded.values()) else None


def _outside_the_trunk(model: nn.Module) -> list[str]:
    trunk: Any = getattr(model, "base_model", model)
    if trunk is model:
        return [name for name, _ in model.named_children() if name in HEADS]
    output: Any = getattr(model, "get_output_embeddings", lambda: None)()
    return [] if output is not None else [n for n, child in model.named_children() if child is not trunk]


def _widest(model: nn.Module, name: str, new: set[str]) -> str:
    """The largest module around the parameter ``name`` in which all is new, or ``name`` itself."""
    parts = name.split(".")
    for i in range(1, len(parts)):
        path = ".".join(parts[:i])
        if all(f"{path}.{inner}" in new for inner, _ in model.get_submodule(path).named_parameters()):
            return path
    return name


def named_layers(model: nn.Module, endings: Sequence[str]) -> list[str]:
    """All modules whose name ends with one of ``endings``: what peft's ``modules_to_save`` means."""
    return [name for name, _ in model.named_modules() if name and name.endswith(tuple(endings))]


def owners(model: nn.Module) -> dict[int, list[str]]:
    """All names of every parameter, by the address of its first number."""
    found: dict[int, list[str]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        found.setdefault(p.data_ptr() or id(p), []).append(name)
    return found


def must_own(model: nn.Module, modules: Mapping[str, nn.Module], act: str) -> None:
    """TrainingError, with the fix, where a weight of one of ``modules`` of ``model`` has a second owner.

    ``act`` says what would change it, such as "merge() would change".
    """
    found = owners(model)
    for path, module in modules.items():
        for p in module.parameters():
            names = found[p.data_ptr() or id(p)]
            if len(names) > 1:
                mine = next((n for n in names if within(n, [path])), names[-1])
                other = next(n for n in names if n != mine)
                mine, other = (name.replace(".base.", ".") for name in (mine, other))
                raise TrainingError(
                    f"{mine} is tied to {other}, and {act} both: leave the layer out, or give each its own copy first "
                    "with tuners.untie(model)"
                )


def untie(model: nn.Module) -> nn.Module:
    """Give every weight with several owners one copy per owner, in place, and return the model; its outputs stay the same.

    Costs the memory of the copies. The configuration then says ``tie_word_embeddings = False``, so that a saved model is
    loaded untied (T5's configuration cannot say it; there the two different tensors in the file do).
    """
    if (new := drawn_anew(model)) is not None:
        model.newly_initialised = sorted(new)  # copies lose the loader's mark
    for first, *others in owners(model).values():
        p, home = model.get_parameter(first), model.get_submodule(first.rpartition(".")[0])
        for name in others:
            path, _, leaf = name.rpartition(".")
            if model.get_submodule(path) is home:  # the whole module stands in two places
                model.set_submodule(path, copy.deepcopy(home))
            else:
                setattr(model.get_submodule(path), leaf, nn.Parameter(p.detach().clone(), p.requires_grad))
    for part in model.modules():
        if getattr(part, "all_tied_weights_keys", None):
            part.all_tied_weights_keys = {}
    config: Any = getattr(model, "config", None)
    if getattr(config, "tie_word_embeddings", False) and not hasattr(config, "scale_decoder_outputs"):
        config.tie_word_embeddings = False
    return model


def wide(dtype: torch.dtype) -> torch.dtype:
    """float32 for bf16 and fp16, else ``dtype``: what is trained, or computed once for all, must not lose small changes."""
    return torch.promote_types(dtype, torch.float32)
