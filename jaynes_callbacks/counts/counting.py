"""Counting the magnitudes of whole tensors.

- `count` finds all that is recorded of a weight: codes on the universal grid, the maximum, and the
  paper's equal bins.  It counts a tensor at once or slice by slice, with the same result.
- `count_` and `count_product_` add codes to a row of a table.  They are `torch.library` custom ops,
  so that a compiled model calls them without a graph break.

Everything is integer work, and integers add in any order.
"""

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial, reduce
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from jaynes_callbacks.counts.kernels import (
    FirstPass,
    code_counts,
    expand_patterns,
    first_pass,
    parts,
    passes_over,
    pattern_counts,
    position_counts,
)

__all__ = [
    "Apply",
    "TensorCounts",
    "coprime_stride",
    "count",
    "count_",
    "count_product_",
    "in_turn",
    "memory_order",
    "reason_not_countable",
    "subsample",
]

_Result = TypeVar("_Result")


class TensorCounts(NamedTuple):
    """The magnitudes of one tensor, counted on its device.

    Attributes:
        counts: on the universal grid, zeros and values that are not finite included.
        maximum: largest finite magnitude; 0 if there is none.
        linear: the finite, non-zero magnitudes in equal bins on [0, maximum], as the paper bins
            them.  The only counts whose grid depends on the data, so the only ones that cannot be
            added over tensors.
    """

    counts: Int64[Tensor, " 4096"]
    maximum: Float32[Tensor, ""]
    linear: Int64[Tensor, " bins"]


class Apply(Protocol):
    """How slices are gone over: by `in_turn`, or for instance with a pool of threads."""

    def __call__(
        self,
        function: Callable[..., _Result],
        slices: Sequence[Tensor],
        /,
        *others: Sequence[Any],
    ) -> Iterable[_Result]:
        """Yield the function's result for each slice, in the order of the slices.

        Args:
            function: of a slice, and of one of each of the others.
            slices: of a tensor.
            others: as long as `slices`.
        """
        ...


def in_turn(
    function: Callable[..., _Result], slices: Sequence[Tensor], /, *others: Sequence[Any]
) -> Iterable[_Result]:
    """Go over slices one after the other."""
    return map(function, slices, *others)


def count(
    values: Tensor, bins: int = 100, *, slice_size: int = sys.maxsize, apply: Apply = in_turn
) -> TensorCounts:
    """Count the magnitudes of a tensor, on the universal grid and in the paper's equal bins.

    Reads the values twice, since the equal bins need the maximum; large tensors of 8 or 16 bits a
    value once (`jaynes_callbacks.counts.kernels.passes_over`).  The counts depend neither on the
    slices nor on `apply`.

    Args:
        values: real floating-point tensor of any shape and strides.
        bins: number of equal bins; the paper does not state its own.
        slice_size: most values in a slice; all by default.
        apply: calls a function with every slice, once for each time the values are read.  It may
            do so in several threads, on another device, and with something before and after.

    Returns:
        The counts, on the device where `apply` evaluates the function: by default the values' own.

    Raises:
        TypeError: if `values` is not of a floating-point dtype.

    Example:
        >>> import torch
        >>> found = count(torch.tensor([0.0, 0.5, -2.0]), bins=4)
        >>> found.counts.sum().item(), found.maximum.item(), found.linear.tolist()
        (3, 2.0, [0, 1, 0, 1])
    """
    flat = memory_order(values.detach())
    slices = (flat,) if flat.numel() <= slice_size else flat.split(slice_size)
    if passes_over(flat) == 1:
        patterns = reduce(Tensor.add_, apply(pattern_counts, slices))
        first, linear = expand_patterns(patterns, flat.dtype, bins)
    else:
        first = reduce(FirstPass.merge_, apply(first_pass, slices))
        second = partial(position_counts, maximum=first.maximum, bins=bins)
        linear = reduce(Tensor.add_, apply(second, slices))
    return TensorCounts(*first, linear)


def reason_not_countable(tensor: Tensor) -> str | None:
    """Say why a tensor has no magnitudes to count; None if it has."""
    # Not public in torch, so not imported with this module.
    from torch.utils._python_dispatch import is_traceable_wrapper_subclass

    if tensor.is_meta:
        return "on the meta device, without values"
    if tensor.is_nested or tensor.layout is not torch.strided:
        return "sparse or nested, without one value per place"
    # Its type guard would have the checker take all other tensors for impossible.
    wraps: bool = is_traceable_wrapper_subclass(tensor)
    if wraps:
        return f"a {type(tensor).__name__}, whose values lie in other tensors (quantised, sharded)"
    if not tensor.dtype.is_floating_point:
        return f"of dtype {tensor.dtype}, not real floating-point"
    if not _is_convertible(tensor.dtype):
        return f"of dtype {tensor.dtype}, which torch cannot convert"
    return None


@cache
def _is_convertible(dtype: torch.dtype) -> bool:
    """Tell whether torch has a kernel that converts values of this type to float32."""
    try:
        torch.empty(1, dtype=dtype).to(torch.float32)
    except (RuntimeError, NotImplementedError):
        return False
    return True


@torch.library.custom_op("jaynes_callbacks::count_", mutates_args=("counts",))
def _count_op(values: Tensor, counts: Tensor, row: int, limit: int) -> None:
    counts[row].add_(code_counts(memory_order(subsample(values, limit))).to(counts.device))


@_count_op.register_fake
def _(values: Tensor, counts: Tensor, row: int, limit: int) -> None:
    return None


@torch.library.custom_op("jaynes_callbacks::count_product_", mutates_args=("counts",))
def _count_product_op(left: Tensor, right: Tensor, counts: Tensor, row: int, limit: int) -> None:
    if left.stride() != right.stride():
        left = torch.empty_like(right, dtype=left.dtype).copy_(left)
    pairs = zip(
        *(parts(memory_order(subsample(each, limit))) for each in (left, right)), strict=True
    )
    for ours, theirs in pairs:
        product = ours.to(torch.float32) * theirs.to(torch.float32)
        counts[row].add_(code_counts(product).to(counts.device))


@_count_product_op.register_fake
def _(left: Tensor, right: Tensor, counts: Tensor, row: int, limit: int) -> None:
    return None


def count_(values: Tensor, counts: Tensor, row: int, limit: int = sys.maxsize) -> None:
    """Add the magnitudes of `values` to row `row` of `counts`, in place.

    Args:
        values: real floating-point tensor of any shape and strides.
        counts: int64 ``[streams, 4096]`` to add to; if it is on another device than `values`, one
            row is copied.
        row: the stream's row.
        limit: most values to count, see `subsample`; all by default.

    Raises:
        TypeError: if `values` is not of a floating-point dtype.
    """
    _count_op(values.detach(), counts, row, limit)


def count_product_(
    left: Tensor, right: Tensor, counts: Tensor, row: int, limit: int = sys.maxsize
) -> None:
    """Add the magnitudes of ``left * right`` to row `row` of `counts`, in place.

    The products are computed in float32, whatever the factors' precision, and part by part, so
    that they never take the memory of a whole tensor.

    Args:
        left: real floating-point tensor.
        right: another of the same shape, in any strides.
        counts: int64 ``[streams, 4096]`` to add to.
        row: the stream's row.
        limit: most products to count, see `subsample`; all by default.

    Raises:
        TypeError: if the factors are not of a floating-point dtype.
    """
    _count_product_op(left.detach(), right.detach(), counts, row, limit)


def memory_order(values: Tensor) -> Tensor:
    """Flatten a tensor; without a copy if it is dense in some order of its dimensions."""
    if not values.is_contiguous():
        order = sorted(range(values.dim()), key=values.stride, reverse=True)
        values = values.permute(order)
    return values.reshape(-1)


def subsample(values: Tensor, limit: int) -> Tensor:
    """Take at most `limit` values at a constant stride that favours no row, channel or position.

    The stride is the smallest one that takes no more than `limit` and shares no factor with any
    dimension, so that the values come from every index of every dimension.

    >>> import torch
    >>> subsample(torch.arange(12.0).view(3, 4), 4).tolist()
    [0.0, 5.0, 10.0]
    """
    total = values.numel()
    return values if total <= limit else memory_order(values)[:: coprime_stride(total, limit)]


def coprime_stride(total: int, limit: int) -> int:
    """Return the smallest stride that takes at most `limit` of `total` and is coprime to it.

    >>> coprime_stride(12, 4)
    5
    """
    stride = -(-total // limit)
    while math.gcd(stride, total) > 1:
        stride += 1
    return stride
