"""A CUDA device that is none: ``with pretend_cuda():`` code for a GPU runs on the CPU, and a forgotten move fails.

A tensor that was moved to "cuda", or made there, stays in the CPU's memory, but its storage is marked. Its ``device``
is ``cuda:0``; every operation of torch is watched, forward and backward. As on a GPU, marked and unmarked tensors may
not meet without a move (but for numbers, shape (), in elementwise operations, and indices on the CPU), ``numpy()``
refuses, and a CPU generator cannot fill a tensor there. ``torch.cuda`` says that a device with bf16 is there, and
autocast("cuda") is the CPU's.

What it proves: that code moves what it must, with the dtypes of the gpu profile. What it cannot: CUDA's kernels, their
numbers, determinism, memory and speed. Only the thread that enters is watched.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch._dynamo  # it lists torch's functions, and must see the real ones
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

HERE, CPU = torch.device("cuda", 0), torch.device("cpu")
BASE = torch._C.TensorBase
MADE = ("tensor as_tensor asarray scalar_tensor empty zeros ones full arange linspace logspace eye rand randn randint"
        " randperm normal tril_indices triu_indices empty_strided empty_like zeros_like ones_like full_like rand_like"
        " randn_like randint_like").split()  # fmt: skip
MADE_BY_TENSOR = "new_tensor new_empty new_zeros new_ones new_full new_empty_strided".split()
# Operations that take numbers of shape () from the CPU, beside the elementwise ones.
TAKE_NUMBERS = {"index_put", "index_put_", "_index_put_impl_", "fill_", "fill", "masked_fill", "masked_fill_",
                "index_fill", "index_fill_", "where"}  # fmt: skip
TAKE_INDICES = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
CROSS = {"copy_", "_to_copy", "copy"}


class Marks:
    """Which storages lie on the device, and which are undecided: made inside torch, where the mode cannot see for whom.

    A weak reference keeps the address of a dead storage from being used again.
    """

    def __init__(self) -> None:
        self.there: dict[int, StorageWeakRef] = {}
        self.undecided: dict[int, StorageWeakRef] = {}

    def put(self, t: Tensor, where: str) -> None:
        storage = storage_of(t)
        if storage is None:
            return
        for name in ("there", "undecided"):
            table = getattr(self, name)
            table.pop(storage._cdata, None)
            if name == where:
                table[storage._cdata] = StorageWeakRef(storage)
            if len(table) % 1000 == 999:
                for key in [key for key, reference in table.items() if reference.expired()]:
                    del table[key]

    def of(self, t: Tensor) -> str:
        storage = storage_of(t)
        key = None if storage is None else storage._cdata
        return "there" if key in self.there else "undecided" if key in self.undecided else "here"


def storage_of(t: Tensor) -> torch.UntypedStorage | None:
    """The memory of a strided CPU tensor, under what torch.func wraps around it; None for anything else."""
    while torch._C._functorch.is_functorch_wrapped_tensor(t):
        t = torch._C._functorch.get_unwrapped(t)
    if BASE.device.__get__(t) != CPU or BASE.layout.__get__(t) != torch.strided:
        return None
    try:
        return BASE.untyped_storage(t)
    except (
        NotImplementedError,
        RuntimeError,
    ):  # torch's words for a tensor that has no memory, such as FakeTensor's
        return None


marks = Marks()
_explicit: list[None] = []  # not empty while Python asks for a new tensor
_reports: list[Callable[[Exception], None]] = []


def wrong(error: Exception) -> None:
    """Raise, or report and go on as if the move had been made."""
    if not _reports:
        raise error
    _reports[-1](error)


def there(t: Any) -> bool:
    """Whether ``t`` is a tensor on the pretend device."""
    return isinstance(t, Tensor) and marks.of(t) == "there"


class Move(torch.autograd.Function):
    """A copy on the other side; the gradient goes back to where its tensor is."""

    generate_vmap_rule = True

    @staticmethod
    def forward(t: Tensor, to_device: bool) -> Tensor:
        new = t.detach().clone()
        marks.put(new, "there" if to_device else "here")
        return new

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.back = not inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return Move.apply(grad, ctx.back), None


def moved(t: Tensor, device: torch.device | None) -> Tensor:
    """``t`` on ``device``: itself where it is there already."""
    if device is None or device.type not in ("cpu", "cuda") or there(t) == (device.type == "cuda"):
        return t
    return Move.apply(t, device.type == "cuda")


class Watch(TorchDispatchMode):
    """Sees each operation with its arguments; marks what comes out."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        where = [marks.of(t) for t in tensors]
        place = "there" if "there" in where else "here" if "here" in where or not tensors else "undecided"
        if name in CROSS:
            if (
                where[0] == "undecided" and where[-1] != "undecided"
            ):  # pad_sequence makes its result and fills it so
                marks.put(tensors[0], where[-1])
                where[0] = where[-1]
            place = where[0]
        elif "there" in where:
            self.check(func, name, args, tensors, where)
        if place == "there" and (generator := kwargs.get("generator")) is not None:
            wrong(
                RuntimeError(
                    f"Expected a 'cuda' device type for generator but found '{generator.device.type}'"
                )
            )
        out = func(*args, **kwargs)
        if name not in CROSS and place != "undecided":
            for t, w in zip(tensors, where, strict=True):
                if w == "undecided" and t.dim():  # it has met its device; a number may go on to meet another
                    marks.put(t, place)
        known = {storage._cdata for t in tensors if (storage := storage_of(t)) is not None}
        for t in tree_leaves(out):
            if (
                isinstance(t, Tensor)
                and (storage := storage_of(t)) is not None
                and storage._cdata not in known
            ):
                made_inside = not tensors and not _explicit
                marks.put(t, "undecided" if made_inside else place)
        return out

    def check(self, func: Any, name: str, args: Any, tensors: list[Tensor], where: list[str]) -> None:
        strays = [t for t, w in zip(tensors, where, strict=True) if w == "here"]
        if name in TAKE_INDICES:
            indices = {id(t) for t in tree_leaves(args[1]) if isinstance(t, Tensor)}
            if marks.of(args[0]) == "here" and any(there(t) for t in tree_leaves(args[1])):
                wrong(
                    RuntimeError(
                        "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
                    )
                )
                return
            strays = [t for t in strays if id(t) not in indices]
        numbers = (
            torch.Tag.pointwise in func.tags or name in TAKE_NUMBERS or name.startswith("_foreach")
        ) and any(t.dim() for t, w in zip(tensors, where, strict=True) if w == "there")
        both_numbers = torch.Tag.pointwise in func.tags and all(t.dim() == 0 for t in tensors)
        if [t for t in strays if not ((numbers or both_numbers) and t.dim() == 0)]:
            names = {"there": "cuda:0", "here": "cpu", "undecided": "?"}
            found = ", ".join(f"{tuple(t.shape)} on {names[w]}" for t, w in zip(tensors, where, strict=True))
            wrong(
                RuntimeError(
                    "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
                    f"(when checking arguments in method {func}: {found})"
                )
            )


# --- what code sees of it -----------------------------------------------------------------------------------------


def _to(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(original)
    def to(self: Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
        like = args[0] if args and isinstance(args[0], Tensor) else kwargs.pop("other", None)
        if like is not None:
            device, dtype, memory = like.device, like.dtype, None
        else:
            device, dtype, _, memory = torch._C._nn._parse_to(*args, **kwargs)
        if device is not None and device.type not in ("cpu", "cuda"):
            return original(self, device, dtype or self.dtype)
        keep = {} if memory is None else {"memory_format": memory}
        return moved(original(self, dtype or self.dtype, copy=copy, **keep), device)

    return to


def _maker(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function that makes a tensor, with ``device="cuda"`` understood."""

    @functools.wraps(original)
    def make(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        wish = None if device is None else torch.device(device)
        if wish is not None and wish.type not in ("cpu", "cuda"):
            return original(*args, device=wish, **kwargs)
        generator, on_device = kwargs.get("generator"), wish is not None and wish.type == "cuda"
        if on_device and generator is not None and generator.device.type == "cpu":
            wrong(RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'"))
        kwargs.pop("pin_memory", None)  # only a real device has a reader for it
        _explicit.append(None)
        try:
            new = original(*args, **kwargs) if wish is None else original(*args, device=CPU, **kwargs)
        finally:
            _explicit.pop()
        source = args[0] if args and isinstance(args[0], Tensor) else None
        if wish is None:
            copied = original.__name__ in ("as_tensor", "asarray", "tensor", "new_tensor")
            return moved(new, source.device if copied and source is not None else None)
        if source is not None and storage_of(new) is not None and new.data_ptr() == source.data_ptr():
            return moved(new, wish)  # as_tensor of what is a tensor already
        marks.put(new, "there" if on_device else "here")
        return new

    return make


def _numpy(self: Tensor, *args: Any, **kwargs: Any) -> Any:
    if there(self):
        wrong(
            TypeError(
                "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
            )
        )
    return BASE.numpy(self, *args, **kwargs)


def _device(self: Tensor) -> torch.device:
    return HERE if marks.of(self) == "there" else BASE.device.__get__(self)


def _deepcopy(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def deepcopy(self: Tensor, memo: Any) -> Tensor:
        new = original(self, memo)
        if there(self):
            marks.put(new, "there")
        return new

    return deepcopy


def _patches() -> Iterator[Any]:
    """Everything of torch that is replaced, each as a patcher of unittest.mock."""
    _device_constructors()  # a cached set of the functions as they are
    tensor = functools.partial(mock.patch.object, torch.Tensor, create=True)
    yield tensor("device", property(_device))
    yield tensor("is_cuda", property(lambda self: _device(self).type == "cuda"))
    yield tensor("is_cpu", property(lambda self: _device(self).type == "cpu"))
    yield tensor("get_device", lambda self: 0 if there(self) else BASE.get_device(self))
    yield tensor("to", _to(BASE.to))
    yield tensor("cuda", lambda self, *args, **kwargs: moved(self, HERE))
    yield tensor("cpu", lambda self, *args, **kwargs: moved(self, CPU))
    yield tensor("numpy", _numpy)
    yield tensor("__deepcopy__", _deepcopy(torch.Tensor.__deepcopy__))
    for name in MADE_BY_TENSOR:
        yield tensor(name, _maker(getattr(BASE, name)))
    for name in MADE:
        yield mock.patch.object(torch, name, _maker(getattr(torch, name)))

    init = torch.autocast.__init__

    @functools.wraps(init)
    def autocast(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        init(self, "cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    yield mock.patch.object(torch.autocast, "__init__", autocast)
    enabled = torch.is_autocast_enabled
    yield mock.patch.object(
        torch, "is_autocast_enabled", lambda kind="cpu": enabled("cpu" if kind == "cuda" else kind)
    )

    properties = SimpleNamespace(
        name="pretend", major=8, minor=0, total_memory=2**34, multi_processor_count=1, uuid="0", pci_bus_id=0
    )
    nothing = lambda *args, **kwargs: None  # noqa: E731
    answers: dict[str, Any] = {
        "is_available": True, "is_initialized": True, "device_count": 1, "current_device": 0, "memory_allocated": 2**20,
        "max_memory_allocated": 2**20, "memory_reserved": 2**20, "max_memory_reserved": 2**20, "is_bf16_supported": True,
        "get_device_name": "pretend", "get_device_capability": (8, 0), "get_device_properties": properties,
        "mem_get_info": (2**33, 2**34), "memory_stats": {},
    }  # fmt: skip
    for name, answer in answers.items():
        yield mock.patch.object(torch.cuda, name, lambda *args, _answer=answer, **kwargs: _answer)
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats", "set_device", "manual_seed", "manual_seed_all",
                 "ipc_collect", "init", "_lazy_init"):  # fmt: skip
        yield mock.patch.object(torch.cuda, name, nothing)
    yield mock.patch.object(torch.cuda, "get_rng_state", lambda *args: torch.get_rng_state())
    yield mock.patch.object(torch.cuda, "get_rng_state_all", lambda: [torch.get_rng_state()])
    yield mock.patch.object(torch.cuda, "set_rng_state", nothing)
    yield mock.patch.object(torch.cuda, "set_rng_state_all", nothing)


@contextlib.contextmanager
def pretend_cuda(report: Callable[[Exception], None] | None = None) -> Iterator[None]:
    """In the block and in this thread, torch has one CUDA device, which lies in the CPU's memory.

    Mistakes raise what CUDA would raise; with ``report`` they go there, and the work goes on.
    """
    with contextlib.ExitStack() as stack:
        for patch in _patches():
            stack.enter_context(patch)
        if report is not None:
            _reports.append(report)
            stack.callback(_reports.remove, report)
        stack.enter_context(Watch())
        yield


if __name__ == "__main__":
    sys.exit("import pretend_cuda from here; tests/drill_gpu.py rehearses the lessons with it")
