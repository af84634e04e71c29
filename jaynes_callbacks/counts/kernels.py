"""Passes over values: the loops that all counting is made of.

Two passes count a tensor.  The first finds its codes on the universal grid and its largest
magnitude; the second, which needs that magnitude, finds the paper's equal bins.  A large tensor of
8 or 16 bits a value takes one pass: it counts bit patterns, of which there are at most 32,768
without the sign, and both results follow from the patterns exactly.

On the CPU, numba does the passes over 65,536 values or more where it is installed (extra ``fast``,
`jaynes_callbacks.counts.numba_kernels`).  Everything else, fewer values and other devices, is done
by torch.  The counts are the same to the bit either way.

Each pass goes over a tensor in parts, so that its temporaries (float32 copies, codes, positions)
take bounded memory however large the tensor is.
"""

from collections.abc import Iterable
from functools import lru_cache, reduce
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import torch
from jaxtyping import Float32, Int64
from torch import Tensor
from torch.nn.functional import threshold

from jaynes_callbacks.counts.grid import CODES, codes, require_floating_point

__all__ = [
    "FirstPass",
    "code_counts",
    "expand_patterns",
    "first_pass",
    "parts",
    "passes_over",
    "pattern_counts",
    "position_counts",
]

#: Values per part.  On a CPU torch's temporaries stay in the cache, and numba needs none for
#: float32, only a converted copy for other dtypes.
_CPU_PART, _COMPILED_PART, _ACCELERATOR_PART = 1 << 18, 1 << 22, 1 << 24
#: Fewest values for numba.  For fewer it saves nothing, and importing it takes as long as torch
#: takes to count 2**28 values.
_WORTH_COMPILING = 1 << 16
#: Fewest values per bit pattern for counting patterns: evaluating all patterns has a fixed cost.
_WORTH_PATTERNS = 8


class _Words(NamedTuple):
    """How the bit patterns of floats of one size are read as integers.

    Attributes:
        dtype: integer dtype of the same size.
        number: how many patterns are told apart, a power of two; higher bits are cleared.
    """

    dtype: torch.dtype
    number: int


#: By bytes per value.  Of 8-bit floats all bits are kept: some have no sign, or a nan that has one.
_WORDS = {1: _Words(torch.uint8, 1 << 8), 2: _Words(torch.int16, 1 << 15)}


@lru_cache(maxsize=1)
def _compiled_loops() -> ModuleType | None:
    """Import the compiled loops; None where numba is missing or cannot be imported."""
    try:
        return import_module("jaynes_callbacks.counts.numba_kernels")
    except ImportError:
        return None


def _loops_for(values: Tensor) -> ModuleType | None:
    """Return the compiled loops if they can count these values and are worth it."""
    large = values.is_cpu and values.numel() >= _WORTH_COMPILING
    return _compiled_loops() if large and values.is_contiguous() else None


def parts(values: Tensor) -> tuple[Tensor, ...]:
    """Split one-dimensional values into parts of the size that a pass takes, at least one."""
    if not values.is_cpu:
        size = _ACCELERATOR_PART
    else:
        size = _CPU_PART if _loops_for(values) is None else _COMPILED_PART
    return (values,) if values.numel() <= size else torch.split(values, size)


class FirstPass(NamedTuple):
    """Results of the first pass.

    Attributes:
        counts: of the codes on the universal grid.
        maximum: largest finite magnitude; 0 if there is none.
    """

    counts: Int64[Tensor, " 4096"]
    maximum: Float32[Tensor, ""]

    def merge_(self, other: "FirstPass") -> "FirstPass":
        """Take in the results of other values, in place."""
        # New tensors for every part would hinder the reuse of its temporaries' memory.
        self.counts.add_(other.counts)
        torch.maximum(self.maximum, other.maximum, out=self.maximum)
        return self


def first_pass(values: Tensor) -> FirstPass:
    """Count the codes and find the largest magnitude, on the values' device.

    Args:
        values: real floating-point values in one dimension.

    Raises:
        TypeError: if the values are not of a floating-point dtype.
    """
    require_floating_point(values)
    loops = _loops_for(values)
    one_part = _first_pass if loops is None else loops.first_pass
    return reduce(FirstPass.merge_, (FirstPass(*one_part(part)) for part in parts(values)))


def code_counts(values: Tensor) -> Int64[Tensor, " 4096"]:
    """Count the codes alone, which takes torch half the time of `first_pass`.

    Args:
        values: real floating-point values in one dimension.

    Raises:
        TypeError: if the values are not of a floating-point dtype.
    """
    if _loops_for(values) is not None:
        return first_pass(values).counts
    return _total(_bincount(codes(part), CODES) for part in parts(values))


def position_counts(
    values: Tensor, maximum: Float32[Tensor, ""], bins: int
) -> Int64[Tensor, " {bins}"]:
    """Count the finite, non-zero magnitudes in equal bins on [0, maximum].

    Args:
        values: real floating-point values in one dimension.
        maximum: their largest finite magnitude, or that of a tensor of which these are a part.
        bins: number of bins.
    """
    loops = _loops_for(values)
    if loops is None:
        return _total(_position_counts(part, maximum, bins) for part in parts(values))
    factor = (bins / maximum).item()
    return _total(loops.position_counts(part, factor, bins) for part in parts(values))


def passes_over(values: Tensor) -> int:
    """Return how many times counting reads these values: once for bit patterns, else twice."""
    words = _WORDS.get(values.dtype.itemsize) if values.dtype.is_floating_point else None
    return 1 if words is not None and values.numel() >= _WORTH_PATTERNS * words.number else 2


def pattern_counts(values: Tensor) -> Int64[Tensor, " patterns"]:
    """Count how often each bit pattern of 8 bits, or of 16 bits without the sign, occurs.

    Args:
        values: floating-point values of 8 or 16 bits, in one dimension.
    """
    words = _WORDS[values.dtype.itemsize]
    loops = _loops_for(values)
    if loops is not None:
        counts: Tensor = loops.pattern_counts(values.view(words.dtype), words.number)
        return counts
    return _total(
        _bincount(part.view(words.dtype) & (words.number - 1), words.number)
        for part in parts(values)
    )


def expand_patterns(
    patterns: Int64[Tensor, " patterns"], dtype: torch.dtype, bins: int
) -> tuple[FirstPass, Int64[Tensor, " {bins}"]]:
    """Derive the results of both passes from the counts of a dtype's bit patterns.

    Args:
        patterns: counts from `pattern_counts`, added over all of the values.
        dtype: of the values.
        bins: number of equal bins on [0, maximum].

    Returns:
        What `first_pass` and `position_counts` find in the values themselves.
    """
    every = torch.arange(len(patterns), device=patterns.device)
    values = every.to(_WORDS[dtype.itemsize].dtype).view(dtype)
    maximum = _magnitudes(values).mul_(patterns.sign()).amax()
    counts, linear = patterns.new_zeros(CODES), patterns.new_zeros(1 + bins)
    counts.index_add_(0, codes(values), patterns)
    linear.index_add_(0, _positions(values, maximum, bins), patterns)
    return FirstPass(counts, maximum), linear[1:]


def _first_pass(part: Tensor) -> tuple[Tensor, Tensor]:
    """Do what `first_pass` does to one part, in torch."""
    magnitudes = _magnitudes(part)
    maximum = magnitudes.amax() if part.numel() else magnitudes.new_zeros(())
    return _bincount(codes(part), CODES), maximum


def _position_counts(
    part: Tensor, maximum: Float32[Tensor, ""], bins: int
) -> Int64[Tensor, " {bins}"]:
    """Do what `position_counts` does to one part, in torch."""
    return _bincount(_positions(part, maximum, bins), 1 + bins)[1:]


def _positions(part: Tensor, maximum: Float32[Tensor, ""], bins: int) -> Tensor:
    """Return 1 + the equal bin of each magnitude; 0 for what is zero or not finite."""
    # Zeros become -inf, which scaling leaves alone, and fall below the first bin.  Comparing and
    # selecting gives the same and takes three times as long.
    magnitudes = threshold(_magnitudes(part), 0.0, -torch.inf, inplace=True)
    scaled = magnitudes.mul_(bins / maximum).clamp_(-1, bins - 1)
    return scaled.int().add_(1)


def _magnitudes(part: Tensor) -> Float32[Tensor, " values"]:
    """Return the finite magnitudes in float32, a new tensor; zero for what is not finite."""
    return part.to(torch.float32).abs().nan_to_num_(nan=0.0, posinf=0.0)


def _bincount(index: Tensor, size: int) -> Int64[Tensor, " {size}"]:
    """Count how often each integer of [0, size) occurs; no other integer may."""
    if index.is_cuda:
        # bincount reads its maximum back to the host; histc with a given range does not, and on
        # integers it is deterministic.
        return torch.histc(index.to(torch.int32), bins=size, min=0, max=size).to(torch.int64)
    return torch.bincount(index, minlength=size)


def _total(found: Iterable[Tensor]) -> Tensor:
    """Add tensors up, in place of the first."""
    return reduce(Tensor.add_, found)
