"""Whole numbers of eight bits instead of floats: by one scale or by many, with a zero point or without, outliers apart.

The products are those of the whole numbers, computed in floating point: this module measures what int8 *loses*, not how
fast a processor's int8 units are. Built in lesson 25, sections 5 and 6. Taught in lesson 25.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from instructlab_utils.errors import ParameterError

OUTLIER = 6.0  # LLM.int8()'s threshold for a value of the hidden states


class Codes(NamedTuple):
    """Whole numbers and what they mean: ``(numbers - zero) * scale``. ``numbers`` is int8, the others broadcast to it."""

    numbers: Tensor
    scale: Tensor
    zero: Tensor

    def values(self) -> Tensor:
        """The numbers as the floats they stand for, in the dtype of ``scale``."""
        return (self.numbers.to(self.scale.dtype) - self.zero) * self.scale


def ends(x: Tensor, dim: int | None = None) -> tuple[Tensor, Tensor]:
    """Smallest and largest value of ``x``, or of each slice along ``dim``, stretched so that 0 lies between; dims are kept.

    Raises ParameterError for no number, or one that is not finite.
    """
    if x.numel() == 0 or not x.isfinite().all():
        raise ParameterError("a tensor to quantise is empty or not finite: no scale fits it")
    dims = tuple(range(x.ndim)) if dim is None else (dim,)
    return x.amin(dims, keepdim=True).clamp(max=0), x.amax(dims, keepdim=True).clamp(min=0)


def absmax(x: Tensor, dim: int | None = None) -> Codes:
    """Scale by the largest absolute value, to -127 … 127; one scale for all of ``x``, or one for each slice along ``dim``.

    A slice of zeros gets the scale 1. Raises ParameterError for no number, or one that is not finite.
    Source: lesson 25, section 5. Equal to ``torch.quantize_per_tensor`` and ``quantize_per_channel`` with the zero point 0.
    """
    low, high = ends(x, dim)
    largest = torch.maximum(-low, high)
    scale = torch.where(largest > 0, largest / 127, 1.0)
    return Codes((x / scale).round().clamp(-127, 127).to(torch.int8), scale, torch.zeros_like(scale))


def zero_point(x: Tensor, dim: int | None = None) -> Codes:
    """Stretch smallest … largest (with 0 between them) over -128 … 127; the code of 0 is exactly ``zero``.

    Raises ParameterError for no number, or one that is not finite. Source: lesson 25, section 5. Equal to torch's with the
    same scale and zero point.
    """
    low, high = ends(x, dim)
    scale = torch.where(high > low, (high - low) / 255, 1.0)
    zero = (-128 - low / scale).round()
    return Codes(((x / scale).round() + zero).clamp(-128, 127).to(torch.int8), scale, zero)


class Scheme(NamedTuple):
    """How a product is quantised: ``asymmetric`` (zero point), by ``rows`` of x and ``columns``, ``outliers`` apart."""

    asymmetric: bool = False
    rows: bool = False
    columns: bool = False
    outliers: bool = False

    def codes(self, x: Tensor, apart: bool) -> Codes:
        """``x`` (…, d) in whole numbers, with a scale for each row where ``apart``."""
        return (zero_point if self.asymmetric else absmax)(x, -1 if apart else None)


# The int8 rows of table 1 of LLM.int8(), in its order.
SCHEMES = {
    "absmax": Scheme(),
    "zeropoint": Scheme(asymmetric=True),
    "row_wise": Scheme(rows=True),
    "vector_wise": Scheme(rows=True, columns=True),
    "zeropoint_vector": Scheme(asymmetric=True, rows=True, columns=True),
    "row_wise_outliers": Scheme(rows=True, outliers=True),
    "llm_int8": Scheme(rows=True, columns=True, outliers=True),
    "zeropoint_llm_int8": Scheme(asymmetric=True, rows=True, columns=True, outliers=True),
}


class EightBitLinear(nn.Module):
    """A linear layer whose weight is kept, and whose input is rounded, in int8 by a :class:`Scheme`.

    ``outlier_share`` is the share of the input's features that the last call computed in floating point.
    Source: lesson 25, section 6.
    """

    def __init__(self, linear: nn.Linear, scheme: Scheme) -> None:
        super().__init__()
        self.linear, self.scheme, self.outlier_share = linear, scheme, 0.0
        codes = scheme.codes(linear.weight.detach(), scheme.columns)
        self.weight, self.scale = codes.numbers.to(codes.scale.dtype) - codes.zero, codes.scale.reshape(-1)

    def forward(self, x: Tensor) -> Tensor:
        """x (…, in) to (…, out)."""
        apart = torch.zeros(x.shape[-1], dtype=torch.bool, device=x.device)
        if self.scheme.outliers:
            apart = (x.abs() >= OUTLIER).flatten(0, -2).any(0)
        self.outlier_share = apart.double().mean().item()
        codes = self.scheme.codes(x.masked_fill(apart, 0.0), self.scheme.rows)
        whole = codes.numbers.to(x.dtype) - codes.zero
        out = (whole @ self.weight.T) * codes.scale * self.scale
        if apart.any():
            out = out + x[..., apart] @ self.linear.weight[:, apart].T
        return out if self.linear.bias is None else out + self.linear.bias


@contextmanager
def eight_bit(net: nn.Module, scheme: Scheme | None) -> Iterator[list[EightBitLinear]]:
    """Inside, all linear layers of ``net`` but the output layer ``lm_head`` compute in int8; None changes nothing.

    Yields the layers that stand in for them; afterwards the old ones are back. Source: lesson 25, section 6.
    """
    places = [
        (parent, name, child)
        for parent in net.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear) and name != "lm_head" and scheme is not None
    ]
    stand_ins = [EightBitLinear(child, scheme) for _, _, child in places if scheme is not None]
    try:
        for (parent, name, _), new in zip(places, stand_ins, strict=True):
            setattr(parent, name, new)
        yield stand_ins
    finally:
        for parent, name, child in places:
            setattr(parent, name, child)


def tensors_of(net: nn.Module) -> dict[str, Tensor]:
    """What a file of ``net`` must hold: its parameters and buffers, and of torch's dynamic int8 layers the int8 weights with
    their scales and biases. Tensors that two layers share are listed once. Source: lesson 25, section 7."""
    found: dict[str, Tensor] = {}
    for name, module in net.named_modules():
        if isinstance(module, torch.ao.nn.quantized.dynamic.Linear):
            weight, bias = module._packed_params._weight_bias()
            each = weight.qscheme() in (torch.per_channel_affine, torch.per_channel_affine_float_qparams)
            scale = weight.q_per_channel_scales() if each else torch.tensor([weight.q_scale()])
            found |= {f"{name}.weight": weight.int_repr(), f"{name}.scale": scale.float()}
            found |= {} if bias is None else {f"{name}.bias": bias.detach()}
    own = (*net.named_parameters(), *net.named_buffers())
    return found | {name: tensor.detach().contiguous().clone() for name, tensor in own}


def file_bytes(tensors: Mapping[str, Tensor]) -> int:
    """The size of a safetensors file with these tensors, in bytes: it is written and looked at."""
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_file(dict(tensors), path)
        return path.stat().st_size
