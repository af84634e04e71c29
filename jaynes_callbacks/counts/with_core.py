"""Counting a weight and its core together, so that a file is read twice for both.

What is found is what `counting.count` and `two_way.two_way` find, to the bit.  The first reading
counts codes (of 16 bits a value: bit patterns) and sums logarithms by row and column; the second,
which needs the maximum and the effects of the first, counts the paper's bins and the core.  A slice
that was just read lies in the cache when it is read for the other purpose.
"""

import sys
from collections.abc import Callable
from functools import reduce
from typing import Any

from jaxtyping import Int64
from torch import Tensor

from jaynes_callbacks.counts.counting import Apply, TensorCounts, in_turn, memory_order
from jaynes_callbacks.counts.kernels import (
    FirstPass,
    expand_patterns,
    first_pass,
    passes_over,
    pattern_counts,
    position_counts,
)
from jaynes_callbacks.counts.two_way import (
    Effects,
    Layout,
    LogSums,
    core_counts,
    effects_by_reading,
    log_sums,
    two_way,
)

__all__ = ["count_with_core"]


def count_with_core(
    values: Tensor, bins: int, *, slice_size: int = sys.maxsize, apply: Apply = in_turn
) -> tuple[TensorCounts, Int64[Tensor, " 4096"], Effects]:
    """Count a weight, its core, and the effects that were taken off.

    Args:
        values: real floating-point tensor ``[rows, columns, …]``.
        bins: number of the paper's equal bins.
        slice_size: most values in a slice, which is one row at least; all by default.
        apply: as `counting.count` takes it.

    Raises:
        TypeError: if `values` is not of a floating-point dtype.
        ValueError: for fewer than two dimensions.

    Example:
        >>> import torch
        >>> from jaynes_callbacks.counts.counting import count
        >>> weights = torch.randn(64, 32)
        >>> counted, core, _ = count_with_core(weights, 100)
        >>> torch.equal(counted.counts, count(weights).counts), core.sum().item()
        (True, 2048)
    """
    values = values.detach()
    if values.dim() < 2 or not values.numel():
        core, effects = two_way(values)
        empty = first_pass(memory_order(values))
        return TensorCounts(*empty, empty.counts.new_zeros(bins)), core, effects
    layout = Layout.of(values.shape)
    slices = values.split(max(1, slice_size // values[0].numel()))
    has_patterns = passes_over(values) == 1
    first: Callable[[Tensor], Any] = pattern_counts if has_patterns else first_pass

    def read(part: Tensor) -> tuple[Any, LogSums]:
        return first(memory_order(part)), log_sums(part)

    def merged(one: tuple[Any, LogSums], other: tuple[Any, LogSums]) -> tuple[Any, LogSums]:
        (own, sums), (theirs, more) = one, other
        return own.add_(theirs) if has_patterns else own.merge_(theirs), sums.below(more)

    found, sums = reduce(merged, apply(read, slices))
    effects = effects_by_reading(values, layout, sums, slices, apply)
    rows = (effects.mean + effects.rows).split([len(each) for each in slices])

    if has_patterns:
        counted, linear = expand_patterns(found, values.dtype, bins)
        of_core = apply(core_counts, slices, rows, [effects.columns] * len(slices))
        return TensorCounts(*counted, linear), reduce(Tensor.add_, of_core), effects

    counted = FirstPass(*found)

    def read_again(part: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        linear = position_counts(memory_order(part), counted.maximum, bins)
        return linear, core_counts(part, own, effects.columns)

    linear, core = reduce(_added_, apply(read_again, slices, rows))
    return TensorCounts(*counted, linear), core, effects


def _added_(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Add pairs of counts, in place of the first."""
    return one[0].add_(other[0]), one[1].add_(other[1])
