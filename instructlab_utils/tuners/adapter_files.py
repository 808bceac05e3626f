"""A method's parameters on disk, in peft's layout, so that either side reads the other's. Taught in lessons 08 and 09."""

from __future__ import annotations

import dataclasses
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from instructlab_utils.errors import TrainingError
from instructlab_utils.tuners.base import (
    CONFIG,
    METHODS,
    TENSORS,
    Mergeable,
    Method,
    inject,
    method_of,
    new_layers,
    task_type,
)
from instructlab_utils.tuners.ownership import drawn_anew, named_layers, within

# what peft's files say about themselves, about first values that training has replaced, or about shapes that the model knows
SAID = (
    "auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "fan_in_fan_out", "inference_mode", "init_ia3_weights",
    "init_weights", "megatron_core", "modules_to_save", "num_attention_heads", "num_layers", "peft_type", "peft_version",
    "qalora_group_size", "revision", "runtime_config", "task_type", "token_dim",
)  # fmt: skip


def save(model: nn.Module, folder: Path | str) -> Path:
    """Write the method's parameters and the head as ``safetensors``, and the configuration as JSON; returns the folder.

    The layout is peft's where peft has the method, so ``PeftModel.from_pretrained`` reads it. TrainingError for a model
    without a method, or one that is merged.
    """
    from safetensors.torch import save_file

    from instructlab_utils.checkpoints import copied
    from instructlab_utils.files import write_json, write_with

    folder, method = Path(folder), method_of(model)
    if any(isinstance(module, Mergeable) and module.merged for module in model.modules()):
        raise TrainingError("the model is merged: call unmerge() before save(), or save the whole model")
    inner, described = method.inside(model), method.described()
    config: dict[str, Any] = {"tuner": type(described).__name__, **dataclasses.asdict(described)}
    new = new_layers(model)
    if model.asked_layers:  # beside those that any model of this kind has
        config["modules_to_save"] = new
    modules = dict(inner.named_modules())
    settings = described.to_peft(model) if all(name in modules for name in new) else None
    if described.peft_type and settings is not None:  # peft saves modules, no single parameters
        config = {
            "peft_type": described.peft_type,
            "task_type": task_type(inner),
            "modules_to_save": new or None,
            "inference_mode": True,
            **settings,
        }
    write = partial(save_file, copied(method.tensors(model)), metadata={"format": "pt"})
    write_with(folder / TENSORS, write)
    write_json(folder / CONFIG, config)
    return folder


def load(model: nn.Module, folder: Path | str) -> nn.Module:
    """Inject the method that ``folder`` describes into the fresh ``model`` and fill in its parameters and new layers.

    The folder may come from :func:`save` or from peft. TrainingError, with the folder and the fix, for a damaged or
    foreign one, for a setting of peft that we lack, and for a file that lacks a new layer: it would silently stay random.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(
            f"{folder}: no adapter can be read here ({reason}); it needs {CONFIG} and {TENSORS}"
        ) from error
    method = read_method(config, folder)
    # peft lists what may be there
    listed = [*(config.get("modules_to_save") or ()), *_embeddings(model, tensors)]
    whole = drawn_anew(model) == set()
    tuned = inject(model, method, modules_to_save=[name for name in listed if named_layers(model, [name])])
    if whole:  # the checkpoint holds a head, and the adapter may have left it alone
        held = [*named_layers(model, tuple(listed)), *(_own_name(name) for name in tensors)]
        left = [layer for layer in new_layers(tuned) if not any(within(name, [layer]) for name in held)]
        for layer in left:
            model.get_submodule(layer).requires_grad_(False)
        tuned.new_layers = [layer for layer in new_layers(tuned) if layer not in left]
    # with bias="all" peft also writes the head that it has replaced
    tensors = {n: t for n, t in tensors.items() if not re.search(r"\.(original_module|modules_to_save)\.", n)}
    for name in sorted(set(method.tensors(tuned)) - set(tensors)):
        if within(_own_name(name), new_layers(tuned)):
            raise TrainingError(
                f"{folder / TENSORS}: {name} is missing: the adapter was saved without its head, which would stay random; "
                "save it again"
            )
    with torch.no_grad():
        method.restore(tuned, tensors, folder / TENSORS)
    return tuned


def _own_name(name: str) -> str:
    """The parameter of a plain model that a name in the file means."""
    return name.removeprefix("base_model.").removeprefix("model.")


def _embeddings(model: nn.Module, tensors: dict[str, Tensor]) -> list[str]:
    """Word embeddings and output layer, where the file holds them: peft saves those of a resized vocabulary unasked."""
    held = {name.removeprefix("base_model.model.").rpartition(".")[0] for name in tensors}
    layers = [getattr(model, f"get_{side}_embeddings", lambda: None)() for side in ("input", "output")]
    return [n for n, m in model.named_modules() if n in held and any(m is layer for layer in layers)]


def read_method(config: dict[str, Any], place: Path) -> Method:
    """The method that an ``adapter_config.json`` describes, ours or peft's.

    Raises TrainingError for a method that we do not have, and for a setting of peft's that ours lacks.
    """
    if "tuner" in config:
        fields = {n: _frozen(value) for n, value in config.items() if n not in ("tuner", "modules_to_save")}
        if config["tuner"] in METHODS:
            try:
                return METHODS[config["tuner"]](**fields)
            except TypeError as error:
                raise TrainingError(f"{place / CONFIG}: {error}; write the fields of that method") from error
    for kind in METHODS.values():
        if kind.peft_type and kind.peft_type == config.get("peft_type"):
            for key, value in config.items():
                if value and value != "none" and key not in SAID and key not in kind.settings:
                    raise TrainingError(
                        f"{place / CONFIG}: {key} = {json.dumps(value)} is a setting of peft that {kind.__name__} lacks: "
                        "train without it, or use peft"
                    )
            try:
                method = kind.from_peft(config)
            except KeyError as error:
                raise TrainingError(f"{place / CONFIG}: the key {error} is missing; save it again") from error
            except TrainingError as error:
                raise TrainingError(f"{place / CONFIG}: {error}") from error
            if method is not None:
                return method
    known = sorted(METHODS)
    name = config.get("tuner") or config.get("peft_type")
    raise TrainingError(f"{place / CONFIG}: {name!r} is not among our methods: {', '.join(known)}")


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value
