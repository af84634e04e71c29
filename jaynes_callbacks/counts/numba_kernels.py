"""The counting loops compiled by numba (extra ``fast``): equal to the torch path to the bit.

Each works on a block that stays in the first cache: one loop that the compiler vectorises writes
where every value belongs, another adds it to one of four tables, so that equal values that follow
each other do not wait for one another's store.  The loops hold no lock of the interpreter.

Only `jaynes_callbacks.counts.counting` calls these; importing this module imports numba.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from jaynes_callbacks.counts.grid import CODES

__all__ = ["add_codes", "add_patterns", "add_positions"]

_BLOCK = 8192
_SIGN_OFF = np.uint32(0x7FFFFFFF)
_INFINITY = np.uint32(0x7F800000)
_SHIFT = np.uint32(19)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at the first call and keep the machine code on disk where there is a place for it."""
    options = {"nogil": True, "boundscheck": False}
    try:
        compiled: Callable[..., Any] = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        # Neither next to this file nor in the user's cache may anything be written.
        compiled = numba.njit(**options)(function)
    return compiled


@_compiled
def _codes(bits, counts):  # type: ignore[no-untyped-def]
    """Count the codes of float32 bit patterns; the largest finite pattern, as an unsigned int."""
    tables = np.zeros((4, CODES), np.int64)
    first, second, third, fourth = tables[0], tables[1], tables[2], tables[3]
    code = np.empty(_BLOCK, np.uint16)
    largest = np.uint32(0)
    for start in range(0, bits.size, _BLOCK):
        size = min(_BLOCK, bits.size - start)
        block = bits[start : start + size]
        for i in range(size):
            magnitude = block[i] & _SIGN_OFF
            code[i] = np.uint16(magnitude >> _SHIFT)
            largest = max(largest, magnitude if magnitude < _INFINITY else np.uint32(0))
        fours = size // 4 * 4
        for i in range(0, fours, 4):
            first[code[i]] += 1
            second[code[i + 1]] += 1
            third[code[i + 2]] += 1
            fourth[code[i + 3]] += 1
        for i in range(fours, size):
            first[code[i]] += 1
    for i in range(CODES):
        counts[i] += first[i] + second[i] + third[i] + fourth[i]
    return largest


@_compiled
def _positions(values, factor, bins, counts):  # type: ignore[no-untyped-def]
    """Count the equal bins of finite, non-zero float32 magnitudes; all others in bin `bins`."""
    tables = np.zeros((4, bins + 1), np.int64)
    first, second, third, fourth = tables[0], tables[1], tables[2], tables[3]
    position = np.empty(_BLOCK, np.uint16)
    last, infinity = np.float32(bins - 1), np.float32(np.inf)
    for start in range(0, values.size, _BLOCK):
        size = min(_BLOCK, values.size - start)
        block = values[start : start + size]
        for i in range(size):
            magnitude = abs(block[i])
            place = magnitude * factor
            place = place if place < last else last
            counted = (magnitude > np.float32(0)) & (magnitude < infinity)
            position[i] = np.uint16(np.int32(place)) if counted else np.uint16(bins)
        fours = size // 4 * 4
        for i in range(0, fours, 4):
            first[position[i]] += 1
            second[position[i + 1]] += 1
            third[position[i + 2]] += 1
            fourth[position[i + 3]] += 1
        for i in range(fours, size):
            first[position[i]] += 1
    for i in range(bins + 1):
        counts[i] += first[i] + second[i] + third[i] + fourth[i]


@_compiled
def _patterns(bits, counts):  # type: ignore[no-untyped-def]
    """Count whole bit patterns of 16 or 8 bits."""
    tables = np.zeros((2, counts.size), np.int64)
    first, second = tables[0], tables[1]
    twos = bits.size // 2 * 2
    for i in range(0, twos, 2):
        first[bits[i]] += 1
        second[bits[i + 1]] += 1
    for i in range(twos, bits.size):
        first[bits[i]] += 1
    for i in range(counts.size):
        counts[i] += first[i] + second[i]


def add_codes(values: Float32[Tensor, " values"], counts: Int64[Tensor, " codes"]) -> Tensor:
    """Add the codes of contiguous values to `counts`; their largest finite magnitude, float32."""
    bits = values.detach().view(torch.int32).numpy().view(np.uint32)
    largest = np.array([_codes(bits, counts.numpy())], dtype=np.uint32)
    return torch.from_numpy(largest.view(np.float32))[0]


def add_positions(
    values: Float32[Tensor, " values"], factor: float, counts: Int64[Tensor, " bins"]
) -> None:
    """Add the bin ``magnitude * factor`` of contiguous values to `counts`, whose last is no bin."""
    _positions(values.detach().numpy(), np.float32(factor), len(counts) - 1, counts.numpy())


def add_patterns(values: Tensor, counts: Int64[Tensor, " patterns"]) -> None:
    """Add the bit patterns of contiguous values of 8 or 16 bits to `counts`."""
    signed, unsigned = {
        1: (torch.int8, np.uint8),
        2: (torch.int16, np.uint16),
    }[values.element_size()]
    _patterns(values.detach().view(signed).numpy().view(unsigned), counts.numpy())
