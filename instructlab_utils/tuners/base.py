"""The interface of all tuning methods: freeze, inject, train, merge, save, load.

A *method* is a frozen dataclass with its hyper-parameters. ``inject`` freezes the model, lets the method put its own
parameters into it, and sets the head free again. Files have peft's layout, so that either side reads the other's.
Taught in lesson 08; LoRA merges in lesson 09.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from instructlab_utils.errors import TrainingError
from instructlab_utils.training import target_losses
from instructlab_utils.tuners.ownership import heads, must_own, named_layers, within

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
    :class:`Tuned` module to those in peft's file, ``settings`` are the keys of peft's configuration that ``from_peft`` reads.
    """

    peft_type: ClassVar[str] = ""
    names: ClassVar[dict[str, str]] = {}
    settings: ClassVar[tuple[str, ...]] = ()

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
        """The method that peft's configuration describes. TrainingError, without the file's name, for a value we lack."""
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
        outer, _, inner = path.rpartition(".")
        if inner == "base" and isinstance(model.get_submodule(outer), Tuned):
            return f"base_model.model.{outer}.base_layer.{leaf}"
        return f"base_model.model.{name}"


# --- where a method goes ---------------------------------------------------------------------------------------------


def find(model: nn.Module, targets: Sequence[str], kind: type[nn.Module] = nn.Linear) -> dict[str, nn.Module]:
    """All modules of ``kind`` whose name is one of ``targets`` or ends with ".target", by full name; never a new layer.

    Raises TrainingError for a target that matches nothing, with the names that exist.
    """
    new = new_layers(model)
    modules = {n: m for n, m in model.named_modules() if isinstance(m, kind) and not within(n, new)}
    found: dict[str, nn.Module] = {}
    for target in targets:
        matching = {n: m for n, m in modules.items() if n == target or n.endswith("." + target)}
        if not matching:
            known = sorted({_short(name) for name in modules})
            other = [type(m).__name__ for n, m in model.named_modules() if f".{n}".endswith(f".{target}")]
            why = f" (it is a {other[0]})" if other and other[0] != kind.__name__ else ""
            raise TrainingError(
                f"no {kind.__name__} named {target!r} in {type(model).__name__}{why}: choose among "
                f"{', '.join(known) or 'other methods, since it has none'}"
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


def new_layers(model: nn.Module) -> list[str]:
    """Names of the layers that train whole, beside the method: what ``inject`` chose, or would choose (:func:`heads`)."""
    chosen = getattr(model, "new_layers", None)
    return heads(model) if chosen is None else list(chosen)


# --- the interface ---------------------------------------------------------------------------------------------------


def inject(
    model: nn.Module, method: Method, *, seed: int = 0, modules_to_save: Sequence[str] = ()
) -> nn.Module:
    """Freeze ``model``, give it the method's parameters, and return the module to train.

    What trains afterwards: the method's parameters, the model's new layers (:func:`ownership.heads`), and the modules whose
    names end with one of ``modules_to_save``, as in peft; all of it is saved. First values depend on ``seed`` alone. Soft
    prompts return a new module around the model; all other methods change the model in place and return it.

    Raises TrainingError where the model carries a method already, a name matches no module, or a weight that would change
    has a second owner. The model is then as it was.
    """
    if (old := getattr(model, "tuner", None)) is not None:
        raise TrainingError(f"the model already carries {old}: load a fresh one to inject another method")
    if isinstance(modules_to_save, str):
        modules_to_save = (modules_to_save,)
    for name in modules_to_save:
        if not named_layers(model, [name]):
            raise TrainingError(f"modules_to_save: {name!r} ends the name of no module: correct it")
    names = heads(model)
    asked = [n for n in named_layers(model, modules_to_save) if not within(n, names)]
    must_own(model, {n: model.get_submodule(n) for n in asked}, "modules_to_save would change")
    names += asked
    whole = [p for n, p in model.named_parameters() if within(n, names)]
    before = [(p, p.requires_grad) for p in model.parameters()]
    model.new_layers = names
    model.requires_grad_(False)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            tuned = method.apply(model)
    except TrainingError:
        del model.new_layers
        for p, trains in before:
            p.requires_grad_(trains)
        raise
    for p in whole:
        p.requires_grad_(True)
    tuned.new_layers = names
    tuned.asked_layers, tuned.tuner = asked, method
    return tuned.train(model.training)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that train, by name, in the model's order. Source: lesson 08, section 2."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def extras(model: nn.Module, objective: Callable[..., Tensor] = target_losses) -> dict[str, Any]:
    """What the method adds to training: ``training.train(model, …, **tuners.extras(model))``.

    For most methods only the objective. AdaLoRA adds a penalty to it, and a call after every update.
    """
    return method_of(model).extras(model, objective)


def merge(model: nn.Module, *, unload: bool = False) -> nn.Module:
    """Fold the method's parameters into the weights, in place; the outputs stay the same up to rounding.

    With ``unload`` the wrappers go too: what is left is a plain model without extra cost. TrainingError, with the reason,
    for a method that cannot be folded in, and for a weight with a second owner, which would change too; nothing is
    changed then.
    """
    wrapped = {name: module for name, module in model.named_modules() if isinstance(module, Mergeable)}
    for module in model.modules():  # soft prompts wrap the whole model and are no Tuned
        if reason := getattr(module, "unmergeable", ""):
            raise TrainingError(f"{type(module).__name__} cannot be merged: {reason}")
    must_own(model, {f"{n}.base": m.base for n, m in wrapped.items() if not m.merged}, "merge() would change")
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


def peft_targets(config: dict[str, Any], key: str = "target_modules") -> tuple[str, ...]:
    """The names under ``key``, sorted. TrainingError for a regular expression, which is no list of names."""
    if isinstance(config[key], str):
        raise TrainingError(f"{key} = {config[key]!r} is a regular expression: write the names as a list")
    return tuple(sorted(config[key] or ()))


def method_of(model: nn.Module) -> Method:
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
        raise TrainingError(f"{place}: {missing[0]} is missing: it belongs to another model; save it again")
    if extra:
        raise TrainingError(
            f"{place}: {extra[0]} has no place in this model: load the one that it was trained on"
        )
    for name, tensor in ours.items():
        if tensor.shape != theirs[name].shape:
            shapes = f"{tuple(theirs[name].shape)}, and the model needs {tuple(tensor.shape)}"
            raise TrainingError(f"{place}: {name} has shape {shapes}: load the model that it was trained on")
        tensor.copy_(theirs[name])
