"""Counting whole tensors: integer work only, into int64 rows of 4096 codes.

`count_` and `count_product_` are `torch.library` custom ops, so that compiled models call them
without a graph break.
"""

import math
import sys
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from jaynes_callbacks.counts.kernels import code_counts, first_pass, parts, position_counts

__all__ = ["LinearCounts", "count_", "count_product_", "linear_counts", "memory_order", "subsample"]


@torch.library.custom_op("jaynes_callbacks::count_", mutates_args=("counts",))
def _count_op(values: Tensor, counts: Tensor, row: int, limit: int) -> None:
    counts[row] += code_counts(memory_order(subsample(values, limit))).to(counts.device)


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
        counts[row] += code_counts(product).to(counts.device)


@_count_product_op.register_fake
def _(left: Tensor, right: Tensor, counts: Tensor, row: int, limit: int) -> None:
    return None


def count_(values: Tensor, counts: Tensor, row: int, limit: int = sys.maxsize) -> None:
    """Add the magnitudes of `values` to row `row` of `counts`, in place.

    Args:
        values: real floating-point tensor of any shape and strides.
        counts: int64 ``[streams, 4096]`` to add to; on another device than `values` it costs a
            copy of one row.
        row: the stream's row.
        limit: most values to count, see `subsample`; all by default.

    Raises:
        TypeError: if `values` is not of a floating-point dtype.
    """
    _count_op(values.detach(), counts, row, limit)


def count_product_(
    left: Tensor, right: Tensor, counts: Tensor, row: int, limit: int = sys.maxsize
) -> None:
    """Add the magnitudes of ``left * right``, which is never held whole, to row `row` of `counts`.

    The products are taken in float32, whatever the factors' precision.

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
    """Flatten without a copy where the tensor is dense in any order of its dimensions."""
    if not values.is_contiguous():
        order = sorted(range(values.dim()), key=values.stride, reverse=True)
        values = values.permute(order)
    return values.reshape(-1)


def subsample(values: Tensor, limit: int) -> Tensor:
    """At most `limit` values at a constant stride that favours no row, channel or position.

    The stride is the smallest one that keeps within `limit` and shares no factor with any
    dimension, so that the picked values run through every index of every dimension.

    >>> import torch
    >>> subsample(torch.arange(12.0).view(3, 4), 4).tolist()
    [0.0, 5.0, 10.0]
    """
    total = values.numel()
    if total <= limit:
        return values
    stride = -(-total // limit)
    while math.gcd(stride, total) > 1:
        stride += 1
    return memory_order(values)[::stride]


class LinearCounts(NamedTuple):
    """Magnitudes of one tensor as the paper bins them: equal bins on [0, maximum]."""

    maximum: Float64[Tensor, ""]
    counts: Int64[Tensor, " bins"]


def linear_counts(values: Tensor, bins: int = 100) -> LinearCounts:
    """Bin the finite, non-zero magnitudes over their maximum into `bins` equal bins on [0, 1].

    The paper's own record (THEORY §6): the only one whose grid depends on the data, and so the
    only one that cannot be added over tensors.

    Args:
        values: real floating-point tensor.
        bins: number of bins; the paper does not state its own.

    Returns:
        The largest finite magnitude (0 if there is none) and the int64 counts.
    """
    flat = memory_order(values.detach())
    maximum = first_pass(flat).maximum
    return LinearCounts(maximum.to(torch.float64), position_counts(flat, maximum, bins))
