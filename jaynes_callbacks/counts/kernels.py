"""The two passes over values that all counting is made of, in parts that bound the temporaries.

The first finds the codes on the universal grid and the largest magnitude, the second, which needs
that, the paper's equal bins.  Values of 16 bits or fewer take one pass: their bit patterns are
counted, of which there are at most 65,536, and both follow from these exactly.

On the CPU they are counted by numba where it is installed (`counts.numba_kernels`), else by
torch; the counts are the same.
"""

from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from jaynes_callbacks.counts.grid import CODES, codes

__all__ = [
    "FirstPass",
    "code_counts",
    "first_pass",
    "has_patterns",
    "of_patterns",
    "parts",
    "pattern_counts",
    "position_counts",
]

#: Values converted at once.  Bounds the temporaries; on a CPU torch's stay in its caches.
_CPU_PART, _COMPILED_PART, _ACCELERATOR_PART = 1 << 18, 1 << 22, 1 << 24
#: Of fewer values numba saves nothing, and its import costs what torch takes for 2**28.
_WORTH_COMPILING = 1 << 16
#: The integers whose bits are those of a float of so many bytes.
_BITS = {1: torch.uint8, 2: torch.int16}


@lru_cache(maxsize=1)
def _compiled_loops() -> ModuleType | None:
    """The loops of numba, or None where it is missing or cannot be imported."""
    try:
        return import_module("jaynes_callbacks.counts.numba_kernels")
    except ImportError:
        return None


def _loops_for(values: Tensor) -> ModuleType | None:
    large = values.is_cpu and values.numel() >= _WORTH_COMPILING
    return _compiled_loops() if large and values.is_contiguous() else None


def parts(values: Tensor) -> tuple[Tensor, ...]:
    """Values in one dimension in parts of the size that a pass takes; none of no values."""
    if not values.numel():
        return ()
    if not values.is_cpu:
        return torch.split(values, _ACCELERATOR_PART)
    return torch.split(values, _CPU_PART if _loops_for(values) is None else _COMPILED_PART)


class FirstPass(NamedTuple):
    """What one pass over a part finds.

    Attributes:
        counts: of its codes on the universal grid.
        maximum: its largest finite magnitude; 0 if there is none.
    """

    counts: Int64[Tensor, " 4096"]
    maximum: Float32[Tensor, ""]


def first_pass(values: Tensor) -> FirstPass:
    """Codes and largest magnitude, on the values' device.

    Args:
        values: real floating-point values in one dimension.
    """
    loops = _loops_for(values)
    counts = torch.zeros(CODES, dtype=torch.int64, device=values.device)
    maximum = torch.zeros((), dtype=torch.float32, device=values.device)
    for part in parts(values):
        if loops is not None:
            largest = loops.add_codes(_as_float32(part), counts)
        else:
            counts += _bincount(codes(part), CODES)
            largest = _magnitudes(part).amax()
        # In place: results kept between buffers would hinder the reuse of their memory.
        torch.maximum(maximum, largest, out=maximum)
    return FirstPass(counts, maximum)


def code_counts(values: Tensor) -> Int64[Tensor, " 4096"]:
    """The codes alone, which take half the time where numba is not installed."""
    if _loops_for(values) is not None:
        return first_pass(values).counts
    counts = torch.zeros(CODES, dtype=torch.int64, device=values.device)
    for part in parts(values):
        counts += _bincount(codes(part), CODES)
    return counts


def position_counts(
    values: Tensor, maximum: Float32[Tensor, ""], bins: int
) -> Int64[Tensor, " {bins}"]:
    """Counts of equal bins on [0, maximum] of the finite, non-zero magnitudes."""
    loops = _loops_for(values)
    counts = torch.zeros(bins + 1, dtype=torch.int64, device=values.device)
    for part in parts(values):
        if loops is not None:
            loops.add_positions(_as_float32(part), _factor(maximum, bins).item(), counts)
        else:
            counts += _bincount(_positions(part, maximum, bins), bins + 1)
    return counts[:bins]


def has_patterns(dtype: torch.dtype) -> bool:
    """Whether values of this dtype have few enough bit patterns to count these."""
    return dtype.is_floating_point and dtype.itemsize in _BITS


def pattern_counts(values: Tensor) -> Int64[Tensor, " patterns"]:
    """How often each bit pattern of 8 or 16 bits occurs, read as an unsigned integer.

    Args:
        values: of such a dtype, in one dimension.
    """
    number = 1 << (8 * values.element_size())
    counts = torch.zeros(number, dtype=torch.int64, device=values.device)
    loops = _loops_for(values)
    if loops is not None:
        loops.add_patterns(values, counts)
        return counts
    for part in parts(values):
        bits = part.detach().view(_BITS[part.element_size()])
        counts += _bincount(bits.to(torch.int32) & (number - 1), number)
    return counts


def of_patterns(
    patterns: Int64[Tensor, " patterns"], dtype: torch.dtype, bins: int
) -> tuple[FirstPass, Int64[Tensor, " {bins}"]]:
    """Both passes' results from the counts of a dtype's bit patterns."""
    every = torch.arange(len(patterns), device=patterns.device)
    values = every.to(_BITS[dtype.itemsize]).view(dtype)
    maximum = _magnitudes(values).masked_fill(patterns == 0, 0.0).amax()
    counts, linear = patterns.new_zeros(CODES), patterns.new_zeros(bins + 1)
    counts.index_add_(0, codes(values).to(torch.int64), patterns)
    linear.index_add_(0, _positions(values, maximum, bins).to(torch.int64), patterns)
    return FirstPass(counts, maximum), linear[:bins]


def _magnitudes(part: Tensor) -> Float32[Tensor, "..."]:
    """Finite magnitudes in float32; all else is zero."""
    return _as_float32(part).abs().nan_to_num_(nan=0.0, posinf=0.0)


def _bincount(index: Tensor, size: int) -> Int64[Tensor, " {size}"]:
    """How often each integer of [0, size) occurs; nothing may lie outside."""
    if index.is_cuda:
        # bincount reads its maximum back to the host; histc with a given range does not, and on
        # integers it is deterministic.
        return torch.histc(index.to(torch.int32), bins=size, min=0, max=size).to(torch.int64)
    return torch.bincount(index.reshape(-1), minlength=size)


def _positions(part: Tensor, maximum: Float32[Tensor, ""], bins: int) -> Tensor:
    """Equal bin of every magnitude; `bins` for what is zero or not finite."""
    values = _magnitudes(part)
    position = (values * _factor(maximum, bins)).clamp_(max=bins - 1).to(torch.int32)
    return position.masked_fill_(values == 0, bins)


def _factor(maximum: Float32[Tensor, ""], bins: int) -> Float32[Tensor, ""]:
    return bins / maximum


def _as_float32(part: Tensor) -> Float32[Tensor, "..."]:
    return part.detach().to(torch.float32)
