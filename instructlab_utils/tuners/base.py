"""The interface of all tuning methods: freeze, inject, train, merge, save, load.

A *method* is a frozen dataclass with its hyper-parameters. ``inject`` freezes the model, lets the method put its own
parameters into it, and sets the head free again. Files have peft's layout, so that either side reads the other's.
Taught in lesson 08; LoRA merges in lesson 09.
"""

from __future__ import annotations

import dataclasses
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from instructlab_utils.errors import TrainingError
from instructlab_utils.training import target_losses

HEADS = ("classifier", "score", "qa_outputs")  # transformers' names; always trained, always saved
TASK_TYPES = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
    "ForCausalLM": "CAUSAL_LM",
}
CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
METHODS: dict[str, type[Method]] = {}
M = TypeVar("M", bound="Method")


class Tuned(nn.Module):
    """A frozen module ``base`` with trainable parameters around it.

    Either it is :class:`Mergeable`, or its class attribute ``unmergeable`` says why not, as half a sentence.
    """

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base


class Mergeable(Tuned, ABC):
    """One whose parameters can be folded into ``base``; ``merged`` says that they are, for now."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__(base)
        self.merged = False

    @abstractmethod
    def merge(self) -> None:
        """Fold the parameters into ``base``, in place. Called only while ``merged`` is False."""

    @abstractmethod
    def unmerge(self) -> None:
        """Undo :meth:`merge`, up to rounding."""


@dataclass(frozen=True)
class Method(ABC):
    """Hyper-parameters of a tuning method. Subclasses add fields and say how a model is changed.

    ``peft_type`` is peft's name of the method ("" where peft has none), ``names`` maps our parameter names inside a
    :class:`Tuned` module to those in peft's file.
    """

    peft_type: ClassVar[str] = ""
    names: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "apply" in vars(cls):  # else it is only what several methods have in common
            METHODS[cls.__name__] = cls

    @abstractmethod
    def apply(self, model: nn.Module) -> nn.Module:
        """Change ``model``, whose parameters are all frozen, and return the module to train (mostly ``model`` itself)."""

    def inside(self, model: nn.Module) -> nn.Module:
        """The model of transformers: ``model`` itself, unless the method stands around the whole of it."""
        return model

    def described(self) -> Method:
        """The method that a saved file describes: another one where the file holds what a network has computed."""
        return self

    def to_peft(self, model: nn.Module) -> dict[str, Any] | None:
        """peft's configuration of this method, without ``peft_type``, ``task_type`` and ``modules_to_save``; None for a
        variant that peft lacks."""
        return {}

    @classmethod
    def from_peft(cls: type[M], config: dict[str, Any]) -> M | None:
        """The method that peft's configuration describes, or None where it describes another variant."""
        return None

    def tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """What is saved, under the names of peft's file. The tensors share memory with the model."""
        return {self.file_name(model, name): p for name, p in trainable(model).items()}

    def restore(self, model: nn.Module, tensors: dict[str, Tensor], place: Path) -> None:
        """Copy ``tensors``, read from ``place``, into the model."""
        copy_into(self.tensors(model), tensors, place)

    def extras(self, model: nn.Module, objective: Callable[..., Tensor]) -> dict[str, Any]:
        """Keyword arguments that :func:`training.train` needs to train this method towards ``objective``."""
        return {"objective": objective}

    def file_name(self, model: nn.Module, name: str) -> str:
        """The name in peft's file of the parameter ``name`` of ``model``."""
        path, _, leaf = name.rpartition(".")
        if path and isinstance(model.get_submodule(path), Tuned) and leaf in self.names:
            return f"base_model.model.{path}.{self.names[leaf]}"
        return f"base_model.model.{name}"


# --- where a method goes ---------------------------------------------------------------------------------------------


def find(model: nn.Module, targets: Sequence[str], kind: type[nn.Module] = nn.Linear) -> dict[str, nn.Module]:
    """All modules of ``kind`` whose name is one of ``targets`` or ends with ".target", by full name; never the head.

    Raises TrainingError for a target that matches nothing, with the names that exist.
    """
    modules = {n: m for n, m in model.named_modules() if isinstance(m, kind) and n.split(".")[0] not in HEADS}
    found: dict[str, nn.Module] = {}
    for target in targets:
        matching = {n: m for n, m in modules.items() if n == target or n.endswith("." + target)}
        if not matching:
            known = sorted({_short(name) for name in modules})
            raise TrainingError(
                f"no {kind.__name__} named {target!r} in {type(model).__name__}: choose among {', '.join(known)}"
            )
        found |= matching
    return {name: module for name, module in modules.items() if name in found}  # the model's own order


def _short(name: str) -> str:
    """``bert.encoder.layer.0.output.dense`` → ``output.dense``: what follows the layer's number."""
    parts = name.split(".")
    numbers = [i for i, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[numbers[-1] + 1 :] if numbers else parts)


def defaults(model: nn.Module, table: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The row of ``table`` for the model's type. TrainingError, with the fix, for a type that is not in it."""
    kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    if kind not in table:
        raise TrainingError(f"no default targets for a model of type {kind!r}: name them with targets=(…)")
    return table[kind]


def wrap(model: nn.Module, targets: Sequence[str], make: Callable[[Any], Tuned]) -> nn.Module:
    """Replace each module that ``targets`` match (:func:`find`) by ``make(module)``."""
    for name, module in find(model, targets).items():
        path, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(path), leaf, make(module))
    return model


def heads(model: nn.Module) -> list[str]:
    """Names of the model's own heads, such as ["classifier"]; empty for a decoder, whose output layer is no new head."""
    return [name for name, _ in model.named_children() if name in HEADS]


# --- the interface ---------------------------------------------------------------------------------------------------


def inject(model: nn.Module, method: Method, *, seed: int = 0) -> nn.Module:
    """Freeze ``model``, give it the method's parameters, and return the module to train.

    What trains afterwards: the method's parameters and the model's head. First values depend on ``seed`` alone. Soft
    prompts return a new module around the model; all other methods change the model in place and return it.

    Raises TrainingError where the model carries a method already, or a target names no module.
    """
    if (old := getattr(model, "tuner", None)) is not None:
        raise TrainingError(
            f"the model already carries {old}: load a fresh one before you inject another method"
        )
    model.requires_grad_(False)
    names = heads(model)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tuned = method.apply(model)
    for name in names:
        getattr(model, name).requires_grad_(True)
    tuned.tuner = method
    return tuned.train(model.training)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that train, by name, in the model's order. Source: lesson 08, section 2."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def extras(model: nn.Module, objective: Callable[..., Tensor] = target_losses) -> dict[str, Any]:
    """What the method adds to training: ``training.train(model, …, **tuners.extras(model))``.

    For most methods only the objective. AdaLoRA adds a penalty to it, and a call after every update.
    """
    return _method_of(model).extras(model, objective)


def merge(model: nn.Module, *, unload: bool = False) -> nn.Module:
    """Fold the method's parameters into the weights, in place; the outputs stay the same up to rounding.

    With ``unload`` the wrappers go too: what is left is a plain model without extra cost. TrainingError, with the reason,
    for a method that cannot be folded in.
    """
    wrapped = {name: module for name, module in model.named_modules() if isinstance(module, Mergeable)}
    for module in model.modules():  # soft prompts wrap the whole model and are no Tuned
        if reason := getattr(module, "unmergeable", ""):
            raise TrainingError(f"{type(module).__name__} cannot be merged: {reason}")
    with torch.no_grad():
        for name, module in wrapped.items():
            if not module.merged:
                module.merge()
                module.merged = True
            if unload:
                path, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(path), leaf, module.base)
    if unload:
        model.tuner = None
    return model


def unmerge(model: nn.Module) -> nn.Module:
    """Undo :func:`merge`, in place, up to rounding. Training goes on from here."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, Mergeable) and module.merged:
                module.unmerge()
                module.merged = False
    return model


def save(model: nn.Module, folder: Path | str) -> Path:
    """Write the method's parameters and the head as ``safetensors``, and the configuration as JSON; returns the folder.

    The layout is peft's where peft has the method, so ``PeftModel.from_pretrained`` reads it. TrainingError for a model
    without a method, or one that is merged.
    """
    from safetensors.torch import save_file

    from instructlab_utils.files import write_json

    folder, method = Path(folder), _method_of(model)
    if any(isinstance(module, Mergeable) and module.merged for module in model.modules()):
        raise TrainingError("the model is merged: call unmerge() before save(), or save the whole model")
    inner, described = method.inside(model), method.described()
    config: dict[str, Any] = {"tuner": type(described).__name__, **dataclasses.asdict(described)}
    if described.peft_type and (settings := described.to_peft(model)) is not None:
        config = {
            "peft_type": described.peft_type,
            "task_type": task_type(inner),
            "modules_to_save": heads(inner) or None,
            "inference_mode": True,
            **settings,
        }
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {n: t.detach().cpu().clone().contiguous() for n, t in method.tensors(model).items()}
    save_file(tensors, folder / f"{TENSORS}.tmp", metadata={"format": "pt"})
    os.replace(folder / f"{TENSORS}.tmp", folder / TENSORS)
    write_json(folder / CONFIG, config)
    return folder


def load(model: nn.Module, folder: Path | str) -> nn.Module:
    """Inject the method that ``folder`` describes into the fresh ``model`` and fill in its parameters and head.

    The folder may come from :func:`save` or from peft. TrainingError, with the folder and the fix, for a damaged or
    foreign one, and for a file that lacks the head: it would silently stay random.
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
    tuned = inject(model, method)
    with torch.no_grad():
        method.restore(tuned, tensors, folder / TENSORS)
    return tuned


def read_method(config: dict[str, Any], place: Path) -> Method:
    """The method that an ``adapter_config.json`` describes, ours or peft's. TrainingError for one that we do not have."""
    if "tuner" in config:
        fields = {name: _frozen(value) for name, value in config.items() if name != "tuner"}
        if config["tuner"] in METHODS:
            try:
                return METHODS[config["tuner"]](**fields)
            except TypeError as error:
                raise TrainingError(f"{place / CONFIG}: {error}; write the fields of that method") from error
    for kind in METHODS.values():
        if kind.peft_type and kind.peft_type == config.get("peft_type"):
            method = kind.from_peft(config)
            if method is not None:
                return method
    known = sorted(METHODS)
    name = config.get("tuner") or config.get("peft_type")
    raise TrainingError(f"{place / CONFIG}: {name!r} is not among our methods: {', '.join(known)}")


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value


def _method_of(model: nn.Module) -> Method:
    method = getattr(model, "tuner", None)
    if not isinstance(method, Method):
        raise TrainingError(f"this {type(model).__name__} carries no tuning method: call inject() first")
    return method


def task_type(model: nn.Module) -> str | None:
    """peft's name of what the model is for, from its class; None for a bare encoder."""
    return next((t for end, t in TASK_TYPES.items() if type(model).__name__.endswith(end)), None)


def copy_into(ours: dict[str, Tensor], theirs: dict[str, Tensor], place: Path) -> None:
    """Copy each tensor of ``theirs`` into the one of the same name. TrainingError where names or shapes differ."""
    missing, extra = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
    if missing:
        lost = [name for name in missing if any(f".{head}." in name for head in HEADS)]
        why = "was saved without its head, which would stay random" if lost else "belongs to another model"
        raise TrainingError(f"{place}: {(lost or missing)[0]} is missing: the adapter {why}; save it again")
    if extra:
        raise TrainingError(
            f"{place}: {extra[0]} has no place in this model: load the model that it was trained on"
        )
    for name, tensor in ours.items():
        if tensor.shape != theirs[name].shape:
            shapes = f"{tuple(theirs[name].shape)}, and the model needs {tuple(tensor.shape)}"
            raise TrainingError(f"{place}: {name} has shape {shapes}: load the model that it was trained on")
        tensor.copy_(theirs[name])
