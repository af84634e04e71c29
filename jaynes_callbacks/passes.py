"""The two passes over values that all counting is made of, on one part of a tensor at a time.

The first finds the codes on the universal grid and the largest magnitude, the second, which needs
that, the paper's equal bins.  Values of 16 bits or fewer take one pass: their bit patterns are
counted, of which there are at most 65,536, and both follow from these exactly.

Parts on the CPU are counted by numba where it is installed (`jaynes_callbacks.fast_counting`), else
by torch; the counts are the same.
"""

from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from jaynes_callbacks.grid import CODES, codes

__all__ = [
    "FirstPass",
    "code_counts",
    "first_pass",
    "has_patterns",
    "largest_magnitude",
    "of_patterns",
    "parts",
    "pattern_counts",
    "position_counts",
]

#: Values converted at once.  Bounds the temporaries of a pass; on a CPU they stay in its caches.
_CPU_PART, _ACCELERATOR_PART = 1 << 18, 1 << 24
#: Of fewer values numba saves nothing, and its import costs what torch takes for 2**28.
_WORTH_COMPILING = 1 << 16
#: The integers whose bits are those of a float of so many bytes.
_BITS = {1: torch.uint8, 2: torch.int16}


@lru_cache(maxsize=1)
def _compiled_loops() -> ModuleType | None:
    """The loops of numba, or None where it is missing or cannot be imported."""
    try:
        return import_module("jaynes_callbacks.fast_counting")
    except ImportError:
        return None


def _loops_for(part: Tensor) -> ModuleType | None:
    large = part.is_cpu and part.numel() >= _WORTH_COMPILING
    return _compiled_loops() if large and part.is_contiguous() else None


def parts(values: Tensor) -> tuple[Tensor, ...]:
    """Contiguous values in parts of the size that a pass takes; none of no values."""
    if not values.numel():
        return ()
    return torch.split(values, _CPU_PART if values.is_cpu else _ACCELERATOR_PART)


class FirstPass(NamedTuple):
    """What one pass over a part finds.

    Attributes:
        counts: of its codes on the universal grid.
        maximum: its largest finite magnitude; 0 if there is none.
    """

    counts: Int64[Tensor, " 4096"]
    maximum: Float32[Tensor, ""]


def first_pass(part: Tensor) -> FirstPass:
    """Codes and largest magnitude of a part, on its device.

    Args:
        part: real floating-point values, one at least, and no more than may be converted to float32
            at once.
    """
    loops = _loops_for(part)
    if loops is None:
        return FirstPass(_bincount(codes(part), CODES), largest_magnitude(part))
    counts = torch.zeros(CODES, dtype=torch.int64)
    return FirstPass(counts, loops.add_codes(_as_float32(part), counts))


def code_counts(part: Tensor) -> Int64[Tensor, " 4096"]:
    """The codes alone, which take half the time where numba is not installed."""
    return _bincount(codes(part), CODES) if _loops_for(part) is None else first_pass(part).counts


def position_counts(
    part: Tensor, maximum: Float32[Tensor, ""], bins: int
) -> Int64[Tensor, " {bins}"]:
    """Counts of equal bins on [0, maximum] of a part's finite, non-zero magnitudes."""
    loops = _loops_for(part)
    if loops is None:
        return _bincount(_positions(part, maximum, bins), bins + 1)[:bins]
    counts = torch.zeros(bins + 1, dtype=torch.int64)
    loops.add_positions(_as_float32(part), _factor(maximum, bins).item(), counts)
    return counts[:bins]


def has_patterns(dtype: torch.dtype) -> bool:
    """Whether values of this dtype have few enough bit patterns to count these."""
    return dtype.is_floating_point and dtype.itemsize in _BITS


def pattern_counts(part: Tensor) -> Int64[Tensor, " patterns"]:
    """How often each bit pattern of 8 or 16 bits occurs, read as an unsigned integer."""
    number = 1 << (8 * part.element_size())
    loops = _loops_for(part)
    if loops is not None:
        counts = torch.zeros(number, dtype=torch.int64)
        loops.add_patterns(part, counts)
        return counts
    bits = part.detach().contiguous().view(_BITS[part.element_size()])
    return _bincount(bits.to(torch.int32) & (number - 1), number)


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


def largest_magnitude(part: Tensor) -> Float32[Tensor, ""]:
    """Largest finite magnitude of a part that is not empty."""
    return _magnitudes(part).amax()


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
