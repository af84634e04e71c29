"""The passes compiled by numba (extra ``fast``); they equal those in torch to the bit.

Each loop works on a block of values that stays in the first-level cache.  One inner loop, which the
compiler vectorises, computes the bin of every value.  A second one adds them to one of four tables
in turn, because adding to the same place twice in a row would have to wait for the first store.
The loops release the global interpreter lock, so that threads count in parallel.

Importing this module imports numba; only `jaynes_callbacks.counts.kernels` does so, when it is
first needed.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from jaynes_callbacks.counts.grid import CODES

__all__ = ["first_pass", "pattern_counts", "position_counts"]

_BLOCK = 8192
_SIGN_OFF = np.uint32(0x7FFFFFFF)
_INFINITY = np.uint32(0x7F800000)
_SHIFT = np.uint32(19)


def first_pass(part: Tensor) -> tuple[Int64[Tensor, " 4096"], Float32[Tensor, ""]]:
    """Count the codes of contiguous values and find their largest finite magnitude."""
    bits = part.to(torch.float32).view(torch.int32).numpy().view(np.uint32)
    counts, largest = _codes(bits)
    maximum = np.array([largest], np.uint32).view(np.float32)
    return torch.from_numpy(counts), torch.from_numpy(maximum)[0]


def position_counts(part: Tensor, factor: float, bins: int) -> Int64[Tensor, " {bins}"]:
    """Count contiguous values in the bin ``magnitude * factor``, or the last one if it is beyond.

    Zeros and values that are not finite are in no bin.
    """
    counts = _positions(part.to(torch.float32).numpy(), np.float32(factor), bins)
    return torch.from_numpy(counts)[:bins]


def pattern_counts(words: Tensor, number: int) -> Int64[Tensor, " patterns"]:
    """Count contiguous integers of 8 or 16 bits, modulo a power of two."""
    unsigned = words.numpy().view({1: np.uint8, 2: np.uint16}[words.element_size()])
    return torch.from_numpy(_patterns(unsigned, number))


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at the first call, and cache the machine code on disk where that is possible."""
    options = {"nogil": True, "boundscheck": False}
    try:
        compiled: Callable[..., Any] = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        # Neither the directory of this file nor the user's cache directory is writable.
        compiled = numba.njit(**options)(function)
    return compiled


@compiled
def add_in_turn(tables, bins, size):  # type: ignore[no-untyped-def]
    """Count the first `size` bins in four tables, of which the next takes the next."""
    first, second, third, fourth = tables[0], tables[1], tables[2], tables[3]
    fours = size // 4 * 4
    for i in range(0, fours, 4):
        first[bins[i]] += 1
        second[bins[i + 1]] += 1
        third[bins[i + 2]] += 1
        fourth[bins[i + 3]] += 1
    for i in range(fours, size):
        first[bins[i]] += 1


@compiled
def _codes(bits):  # type: ignore[no-untyped-def]
    """Count the codes of float32 bit patterns; find the bits of the largest finite magnitude."""
    tables = np.zeros((4, CODES), np.int64)
    code = np.empty(_BLOCK, np.uint16)
    largest = np.uint32(0)
    for start in range(0, bits.size, _BLOCK):
        size = min(_BLOCK, bits.size - start)
        block = bits[start : start + size]
        for i in range(size):
            magnitude = block[i] & _SIGN_OFF
            code[i] = np.uint16(magnitude >> _SHIFT)
            largest = max(largest, magnitude if magnitude < _INFINITY else np.uint32(0))
        add_in_turn(tables, code, size)
    return tables[0] + tables[1] + tables[2] + tables[3], largest


@compiled
def _positions(values, factor, bins):  # type: ignore[no-untyped-def]
    """Count the equal bins of finite, non-zero float32 magnitudes; all others in bin `bins`."""
    tables = np.zeros((4, bins + 1), np.int64)
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
        add_in_turn(tables, position, size)
    return tables[0] + tables[1] + tables[2] + tables[3]


@compiled
def _patterns(words, number):  # type: ignore[no-untyped-def]
    """Count unsigned integers modulo `number`, a power of two."""
    tables = np.zeros((2, number), np.int64)
    first, second = tables[0], tables[1]
    kept = words.dtype.type(number - 1)
    twos = words.size // 2 * 2
    for i in range(0, twos, 2):
        first[words[i] & kept] += 1
        second[words[i + 1] & kept] += 1
    for i in range(twos, words.size):
        first[words[i] & kept] += 1
    return first + second
