"""The passes of `jaynes_callbacks.counts.two_way` compiled by numba (extra ``fast``).

No logarithm is taken of a value.  ln Π|w| = ln Π mantissas + ln 2 · Σ exponents: the mantissas of a
row, and those of a column, are multiplied in double precision, where 512 factors below 2 have room,
and the logarithm is taken of the products.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.counts.numba_kernels import add_in_turn, compiled

__all__ = ["core_counts", "log_sums"]

_BLOCK = 1024
#: Factors below 2 whose product a double holds.
_FACTORS = 512
_SIGN_OFF = np.uint32(0x7FFFFFFF)
_INFINITY = np.uint32(0x7F800000)
_TINY = np.uint32(0x00800000)
_MANTISSA, _ONE = np.uint32(0x007FFFFF), np.uint32(0x3F800000)
_BIAS = np.int32(127)


def log_sums(
    matrix: Float32[Tensor, "rows columns"],
) -> tuple[
    Float64[Tensor, " rows"],
    Int64[Tensor, " rows"],
    Float64[Tensor, " columns"],
    Int64[Tensor, " columns"],
]:
    """Sum ln|w| by row and by column of contiguous values, and count what takes part."""
    rows, columns = matrix.shape
    found: tuple[Any, ...] = tuple(
        np.zeros(size, dtype)
        for size, dtype in (
            (rows, np.float64),
            (rows, np.int64),
            (columns, np.float64),
            (columns, np.int64),
        )
    )
    _log_sums(matrix.view(torch.int32).numpy().view(np.uint32), *found)
    by_row, row_n, by_column, column_n = map(torch.from_numpy, found)
    return by_row, row_n, by_column, column_n


def core_counts(
    matrix: Float32[Tensor, "rows columns"],
    rows: Float32[Tensor, " rows"],
    columns: Float32[Tensor, " columns"],
) -> Int64[Tensor, " 4096"]:
    """Count the codes of contiguous values, each multiplied by a factor of its row and column."""
    return torch.from_numpy(_core_counts(matrix.numpy(), rows.numpy(), columns.numpy()))


@compiled
def _log_sums(bits, rows, row_n, columns, column_n):  # type: ignore[no-untyped-def]  # noqa: C901
    """Add to the four sums; what takes no part counts as 1, whose logarithm is zero."""
    height, width = bits.shape
    products, powers = np.ones(width), np.zeros(width, np.int32)
    present = np.zeros(width, np.int32)
    patterns = np.empty(_BLOCK, np.uint32)
    mantissas = patterns.view(np.float32)
    ln2 = np.log(2.0)
    for row in range(height):
        for start in range(0, width, _BLOCK):
            size = min(_BLOCK, width - start)
            block = bits[row, start : start + size]
            product, power = products[start : start + size], powers[start : start + size]
            here = present[start : start + size]
            exponent, number = np.int32(0), np.int32(0)
            for i in range(size):
                magnitude = block[i] & _SIGN_OFF
                taken = (magnitude > _TINY) & (magnitude < _INFINITY)
                patterns[i] = (magnitude & _MANTISSA) | _ONE if taken else _ONE
                own = np.int32(magnitude >> np.uint32(23)) - _BIAS if taken else np.int32(0)
                one = np.int32(1) if taken else np.int32(0)
                power[i] += own
                here[i] += one
                exponent += own
                number += one
            for i in range(size):
                product[i] *= np.float64(mantissas[i])
            # Four products in turn: none waits for the one before, and 256 factors go into each.
            first, second, third, fourth = 1.0, 1.0, 1.0, 1.0
            fours = size // 4 * 4
            for i in range(0, fours, 4):
                first *= np.float64(mantissas[i])
                second *= np.float64(mantissas[i + 1])
                third *= np.float64(mantissas[i + 2])
                fourth *= np.float64(mantissas[i + 3])
            for i in range(fours, size):
                first *= np.float64(mantissas[i])
            logs = np.log(first) + np.log(second) + np.log(third) + np.log(fourth)
            rows[row] += logs + exponent * ln2
            row_n[row] += number
        if row % _FACTORS == _FACTORS - 1 or row == height - 1:
            for i in range(width):
                columns[i] += np.log(products[i]) + powers[i] * ln2
                column_n[i] += present[i]
                products[i] = 1.0
                powers[i] = 0
                present[i] = 0


@compiled
def _core_counts(values, rows, columns):  # type: ignore[no-untyped-def]
    """Count the codes of |w| · row factor · column factor."""
    tables = np.zeros((4, CODES), np.int64)
    code, scaled = np.empty(_BLOCK, np.uint16), np.empty(_BLOCK, np.float32)
    bits = scaled.view(np.uint32)
    height, width = values.shape
    tiny = np.float32(2.0**-126)
    for row in range(height):
        factor = rows[row]
        for start in range(0, width, _BLOCK):
            size = min(_BLOCK, width - start)
            block, factors = values[row, start : start + size], columns[start : start + size]
            for i in range(size):
                value = block[i]
                scaled[i] = np.float32(0) if abs(value) <= tiny else value * factor * factors[i]
            for i in range(size):
                code[i] = np.uint16((bits[i] & _SIGN_OFF) >> np.uint32(19))
            add_in_turn(tables, code, size)
    return tables[0] + tables[1] + tables[2] + tables[3]
