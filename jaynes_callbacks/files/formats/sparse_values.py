"""Expand the sparse weights of TensorFlow Lite to dense ones.

The dimensions of a sparse tensor are nested in an order that the file states, its blocks' own
dimensions among them.  Each level of the nesting is either dense, so that every place of the level
above has all of its places, or lists those that it has (compressed sparse rows).  Source: the
comments on `SparsityParameters` in TensorFlow's ``schema.fbs``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Level", "Sparsity"]

_Numbers = npt.NDArray[Any]


@dataclass(frozen=True)
class Level:
    """One level of the nesting.

    Attributes:
        size: number of places, if all are there; else None.
        segments: else for each place of the level above the first of `indices` that is its own, and
            at last their number.
        indices: places that are there.
    """

    size: int | None
    segments: _Numbers
    indices: _Numbers


@dataclass(frozen=True)
class Sparsity:
    """Where the stored values of a sparse tensor belong.

    Attributes:
        shape: of the dense tensor.
        order: dimensions from the outermost level inwards; those from ``len(shape)`` on are of
            blocks.
        blocked: which dimension of `shape` each dimension of blocks divides.
        levels: one for each of `order`.

    Raises:
        ValueError: if these do not fit each other.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    blocked: tuple[int, ...]
    levels: Sequence[Level]

    def __post_init__(self) -> None:
        number = len(self.shape) + len(self.blocked)
        fits = sorted(self.order) == list(range(number)) and len(self.levels) == number
        if not fits or len(set(self.blocked)) != len(self.blocked):
            raise ValueError("its sparsity has not the dimensions of its shape")
        if any(not 0 <= each < len(self.shape) for each in self.blocked):
            raise ValueError("its sparsity has blocks of a dimension that it has not")

    def places(self) -> _Numbers:
        """Return the place of each stored value in the dense tensor, in row-major order.

        Raises:
            ValueError: if a place lies outside.
        """
        sizes, steps = self._sizes_and_steps()
        places = np.zeros(1, np.int64)
        for dimension, level in zip(self.order, self.levels, strict=True):
            number, indices = self._below(level, len(places), sizes[dimension])
            places = np.repeat(places, number) + indices * steps[dimension]
            if len(places) > prod(self.shape):
                raise ValueError("its sparsity has more places than its shape")
        return places

    def needed(self, itemsize: int) -> int:
        """Return how many bytes `expand` may take: all values, and the place of each.

        Args:
            itemsize: bytes of a value.
        """
        return prod(self.shape) * (itemsize + np.dtype(np.int64).itemsize)

    def expand(self, values: _Numbers) -> _Numbers:
        """Return the dense tensor.

        Args:
            values: those stored, in the order of the levels.

        Raises:
            ValueError: if there are more or fewer than places.
        """
        places = self.places()
        if len(places) != len(values):
            raise ValueError(f"its sparsity has {len(places):,} places, not {len(values):,}")
        dense = np.zeros(prod(self.shape), values.dtype)
        dense[places] = values
        return dense.reshape(self.shape)

    def _sizes_and_steps(self) -> tuple[list[int], list[int]]:
        """Return the number of places of each dimension, and their distance in the dense tensor."""
        blocks = [1] * len(self.shape)
        for number, dimension in enumerate(self.blocked, len(self.shape)):
            size = self.levels[self.order.index(number)].size
            if not size or self.shape[dimension] % size:
                raise ValueError(f"its blocks do not divide its dimension {dimension}")
            blocks[dimension] = size
        strides = [prod(self.shape[axis + 1 :]) for axis in range(len(self.shape))]
        each = list(zip(self.shape, blocks, strides, strict=True))
        sizes = [size // block for size, block, _ in each]
        steps = [stride * block for _, block, stride in each]
        sizes += [blocks[dimension] for dimension in self.blocked]
        steps += [strides[dimension] for dimension in self.blocked]
        return sizes, steps

    def _below(self, level: Level, above: int, size: int) -> tuple[_Numbers, _Numbers]:
        """Return how many places each place above has, and which, one after the other."""
        if level.size is not None:
            if level.size != size or above * size > prod(self.shape):
                raise ValueError("its sparsity has not the sizes of its shape")
            return np.full(above, size), np.tile(np.arange(size), above)
        segments, indices = level.segments.astype(np.int64), level.indices.astype(np.int64)
        numbers = np.diff(segments)
        fits = len(segments) == above + 1 and segments[0] == 0 and segments[-1] == len(indices)
        if not fits or (numbers < 0).any():
            raise ValueError("its sparsity has not as many places as it says")
        if len(indices) and not (indices.min() >= 0 and indices.max() < size):
            raise ValueError("its sparsity has places outside its shape")
        return numbers, indices
