"""The universal magnitude grid: 4096 codes read off the float32 bit pattern.

Take the float32 bits of a value, clear the sign and shift right by 19.  What is left, the 8
exponent bits and the 4 leading mantissa bits, is an integer code in [0, 4096).  Every octave holds
16 bins, the edges are known exactly, and nothing depends on the data, so counts add across
batches, steps, ranks, shards, layers and runs.

======================  ==========================================================
code 0                  exact zeros, and magnitudes below 2**-130
codes 1 .. 4079         finite magnitudes; bin ``c`` is ``[edge(c), edge(c + 1))``
codes 4080 .. 4095      infinities (4080) and not-a-number
======================  ==========================================================

Bins of normal floats (codes 16 and up) are between ln(32/31) = 0.032 and ln(17/16) = 0.061 wide in
ln w.  Values of other dtypes are converted to float32 first; a float64 magnitude that float32
cannot represent is therefore counted as zero or as infinite.
"""

import math
from functools import lru_cache

import torch
from jaxtyping import Float64, Int32
from torch import Tensor

__all__ = [
    "CODES",
    "FIRST_NONFINITE",
    "FIRST_POSITIVE",
    "codes",
    "edges",
    "log_edges",
    "require_floating_point",
]

#: Number of codes on the grid.
CODES = 4096
#: Lowest code of a magnitude that takes part in fits.
FIRST_POSITIVE = 1
#: Lowest code of infinities and not-a-number.
FIRST_NONFINITE = 4080

#: Bits below a code in a float32, and in a bfloat16, which is the upper half of a float32.
_SHIFT, _BFLOAT16_SHIFT = 19, 3
_MANTISSA_BINS = 16
_SMALLEST_EXPONENT = -130


def codes(values: Tensor) -> Int32[Tensor, "..."]:
    """Compute the code of every value on the grid: exact, integer work only.

    Args:
        values: real floating-point tensor of any shape, dtype and strides.

    Returns:
        int32 codes of the same shape, without a graph.

    Raises:
        TypeError: for integer, boolean, complex or quantised tensors.
    """
    require_floating_point(values)
    values = values.detach()
    if values.dtype == torch.bfloat16:
        shifted = values.view(torch.int16).to(torch.int32).bitwise_right_shift_(_BFLOAT16_SHIFT)
    else:
        shifted = values.to(torch.float32).view(torch.int32) >> _SHIFT
    # The shift repeats the sign bit; the mask clears it.
    return shifted.bitwise_and_(CODES - 1)


def require_floating_point(values: Tensor) -> None:
    """Check that magnitudes of these values can be counted.

    Raises:
        TypeError: for integer, boolean, complex or quantised tensors.
    """
    if not values.dtype.is_floating_point:
        raise TypeError(
            f"magnitudes are counted of floating-point tensors, got dtype {values.dtype}; "
            "convert it (for a complex tensor, take its absolute value) before counting"
        )


@lru_cache(maxsize=1)
def _edge_values() -> tuple[float, ...]:
    subnormal = [math.ldexp(c, _SMALLEST_EXPONENT) for c in range(_MANTISSA_BINS)]
    normal = [
        math.ldexp(
            _MANTISSA_BINS + c % _MANTISSA_BINS, c // _MANTISSA_BINS + _SMALLEST_EXPONENT - 1
        )
        for c in range(_MANTISSA_BINS, FIRST_NONFINITE + 1)
    ]
    return tuple(subnormal + normal)


def edges(device: torch.device | str | None = None) -> Float64[Tensor, " 4081"]:
    """Return the lower edge of every finite code and, last, the upper edge 2**128 of code 4079.

    ``edges()[c]`` is the magnitude whose float32 bits are ``c << 19``, exactly.

    >>> from jaynes_callbacks.counts.grid import codes, edges
    >>> import torch
    >>> code = int(codes(torch.tensor(0.3)))
    >>> edges()[code].item(), edges()[code + 1].item()
    (0.296875, 0.3125)
    """
    return torch.tensor(_edge_values(), dtype=torch.float64, device=device)


def log_edges(device: torch.device | str | None = None) -> Float64[Tensor, " 4081"]:
    """Return the natural logarithm of `edges`; ``-inf`` at code 0."""
    return edges(device).log()
