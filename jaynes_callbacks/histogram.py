"""Counting: one pass over a tensor, integer work only, into int64 rows of 4096 codes.

`count_` is the kernel (a `torch.library` custom op, so that compiled models call it without a
graph break) and `MagnitudeHistogram` the torchmetrics state around it.  Counts add: the merge of
two histograms is their sum, on one device or over all ranks.
"""

import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.distributed as dist
from jaxtyping import Float64, Int64
from torch import Tensor
from torchmetrics import Metric

from jaynes_callbacks.grid import CODES, codes

__all__ = ["LinearCounts", "MagnitudeHistogram", "count_", "linear_counts", "subsample"]

#: Values converted at once.  Bounds the temporaries of a count; on a CPU they stay in its caches.
_CPU_SLICE = 1 << 18
_ACCELERATOR_SLICE = 1 << 24


@torch.library.custom_op("jaynes_callbacks::count_", mutates_args=("counts",))
def _count_op(values: Tensor, counts: Tensor, row: int, limit: int) -> None:
    for part in _slices(subsample(values, limit)):
        counts[row] += _bincount(codes(part)).to(counts.device)


@_count_op.register_fake
def _(values: Tensor, counts: Tensor, row: int, limit: int) -> None:
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


def _bincount(code: Tensor) -> Tensor:
    if code.is_cuda:
        # bincount reads its maximum back to the host; histc with a given range does not, and on
        # integers it is deterministic.
        return torch.histc(code.to(torch.int32), bins=CODES, min=0, max=CODES)
    return torch.bincount(code, minlength=CODES)


def _memory_order(values: Tensor) -> Tensor:
    """Flatten without a copy where the tensor is dense in any order of its dimensions."""
    if not values.is_contiguous():
        order = sorted(range(values.dim()), key=values.stride, reverse=True)
        values = values.permute(order)
    return values.reshape(-1)


def _slices(values: Tensor) -> tuple[Tensor, ...]:
    size = _CPU_SLICE if values.is_cpu else _ACCELERATOR_SLICE
    return torch.split(_memory_order(values), size)


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
    return _memory_order(values)[::stride]


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
    parts = [part for part in _slices(values.detach()) if part.numel()]
    zero = torch.zeros((), dtype=torch.float32, device=values.device)
    maximum = torch.stack([zero, *(_finite_magnitudes(part).amax() for part in parts)]).amax()
    counts = torch.zeros(bins, dtype=torch.int64, device=values.device)
    for part in parts:
        magnitudes = _finite_magnitudes(part)
        position = (magnitudes * (bins / maximum)).nan_to_num_(0.0).clamp_(max=bins - 1).long()
        counts.index_add_(0, position, (magnitudes > 0).to(torch.int64))
    return LinearCounts(maximum.to(torch.float64), counts)


def _finite_magnitudes(part: Tensor) -> Tensor:
    return part.to(torch.float32).abs().nan_to_num_(nan=0.0, posinf=0.0)


class MagnitudeHistogram(Metric):
    """Counts of magnitudes on the universal grid, one row per stream.

    State ``counts``: int64 ``[streams, 4096]``, summed over ranks by a single ``all_reduce``.
    Memory: 32 KiB per stream.

    Args:
        streams: how many streams, or their names; histograms of other streams do not merge.
        **kwargs: of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> histogram = MagnitudeHistogram(["first", "second"])
        >>> histogram.update(torch.tensor([0.5, -0.5, 0.0]), "first")
        >>> histogram.update(torch.ones(2, 3), 1)
        >>> histogram.compute().sum(-1).tolist()
        [3, 6]
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = None
    counts: Int64[Tensor, "streams 4096"]

    def __init__(self, streams: int | Sequence[str] = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        names = range(streams) if isinstance(streams, int) else streams
        self.streams: tuple[str, ...] = tuple(str(name) for name in names)
        if len(set(self.streams)) != len(self.streams):
            raise ValueError(f"stream names must differ from each other, got {list(self.streams)}")
        empty = torch.zeros(len(self.streams), CODES, dtype=torch.int64)
        self.add_state("counts", default=empty, dist_reduce_fx="sum")

    def update(self, values: Tensor, stream: int | str = 0) -> None:
        """Count the magnitudes of `values` into `stream` (its row or its name)."""
        count_(values, self.counts, self._row(stream))

    def compute(self) -> Int64[Tensor, "streams 4096"]:
        """The counts so far."""
        return self.counts

    def merge_state(self, incoming_state: "dict[str, Any] | Metric") -> None:
        """Add another histogram's counts; both must hold the same streams."""
        theirs = getattr(incoming_state, "streams", self.streams)
        if theirs != self.streams:
            raise ValueError(
                f"cannot add counts of different streams: {list(self.streams)} here, "
                f"{list(theirs)} there; build both histograms from the same list of streams"
            )
        super().merge_state(incoming_state)

    def _row(self, stream: int | str) -> int:
        row = self.streams.index(stream) if stream in self.streams else stream
        if isinstance(row, str) or not 0 <= row < len(self.streams):
            raise KeyError(f"no stream {stream!r}; there are {list(self.streams)}")
        return row

    def _sync_dist(self, dist_sync_fn: Any = None, process_group: Any = None) -> None:
        # Metric's own sync gathers all ranks' states before it adds them: streams x ranks x 32 KiB.
        if dist_sync_fn is not None and not dist.is_initialized():
            super()._sync_dist(dist_sync_fn, process_group)
            return
        # Metric.sync has put a copy of the rank's own counts aside.
        dist.all_reduce(self.counts, group=cast(Any, process_group or self.process_group))
