"""The summable state around counting: counts add.

The merge of two histograms is their sum, on one device or over all ranks.
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
