"""Counts on the universal grid as the state of a torchmetrics metric.

Counts add, so merging two histograms means adding them, on one device or over all ranks.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from jaxtyping import Int64
from torch import Tensor
from torchmetrics import Metric

from jaynes_callbacks.counts.counting import count_
from jaynes_callbacks.counts.grid import CODES

__all__ = ["MagnitudeHistogram"]


class MagnitudeHistogram(Metric):
    """Counts of magnitudes on the universal grid, one row per stream.

    The state ``counts``, int64 ``[streams, 4096]``, takes 32 KiB per stream and is summed over
    ranks by a single ``all_reduce``.

    Args:
        streams: how many streams, or their names; histograms merge only if their streams are equal.
        **kwargs: passed on to `torchmetrics.Metric`.

    Raises:
        ValueError: if two streams have the same name.

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
        """Add the magnitudes of `values` to a stream's counts.

        Args:
            values: real floating-point tensor of any shape.
            stream: its row or its name.

        Raises:
            KeyError: if there is no such stream.
            TypeError: if `values` is not of a floating-point dtype.
        """
        count_(values, self.counts, self._row(stream))

    def compute(self) -> Int64[Tensor, "streams 4096"]:
        """Return the counts so far."""
        return self.counts

    def merge_state(self, incoming_state: "dict[str, Any] | Metric") -> None:
        """Add another histogram's counts.

        Raises:
            ValueError: if the other one has different streams.
        """
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
        # Metric's own sync would gather all ranks' states before adding: streams x ranks x 32 KiB.
        if dist_sync_fn is not None and not dist.is_initialized():
            super()._sync_dist(dist_sync_fn, process_group)
            return
        # In place: `Metric.sync` has already stored a copy of the rank's own counts.
        dist.all_reduce(self.counts, group=cast(Any, process_group or self.process_group))
