"""The counts of streams that are found one by one, while a model runs."""

from collections.abc import Callable

import torch
from jaxtyping import Int64
from torch import Tensor

from jaynes_callbacks.histogram import MagnitudeHistogram
from jaynes_callbacks.record import Stream, Variable
from jaynes_callbacks.sources.ranks import Counted
from jaynes_callbacks.sources.selection import Skipped

__all__ = ["NO_ROW", "Ledger"]

#: In place of a row: this stream is not counted.
NO_ROW = -1


class Ledger:
    """A `MagnitudeHistogram` whose rows are given out to streams as they appear.

    Rows are set aside beforehand (`reserve`), because a compiled graph holds on to the histogram
    that it was traced with.  Memory: 32 KiB per row.

    Args:
        admits: which names get a row.

    Attributes:
        streams: the streams so far; the place of each is its row.
        skipped: the names that got no row, with the reason.
    """

    def __init__(self, admits: Callable[[str], bool]) -> None:
        self.streams: list[Stream] = []
        self.skipped: list[Skipped] = []
        self._admits = admits
        self._rows: dict[str, int] = {}
        self._histogram = MagnitudeHistogram(0)

    @property
    def table(self) -> Int64[Tensor, "rows 4096"]:
        """The counts to add to, reserved rows included."""
        return self._histogram.counts

    @property
    def counts(self) -> Int64[Tensor, "streams 4096"]:
        """What this rank has counted since they were last taken."""
        return self.table[: len(self.streams)]

    def row(self, name: str, shape: tuple[int, ...], variable: Variable) -> int:
        """The row of a stream, given at its first appearance; `NO_ROW` if it is not admitted."""
        if name not in self._rows:
            if self._admits(name):
                self._add(Stream("iota", name, shape, (), variable))
            else:
                self.skip(name, "excluded by pattern")
        return self._rows[name]

    def skip(self, name: str, reason: str) -> None:
        """Give a stream no row; said once."""
        if name not in self._rows:
            self._rows[name] = NO_ROW
            self.skipped.append(Skipped(name, reason))

    def reserve(self, rows: int, device: torch.device) -> None:
        """Have at least so many rows, on this device; what was counted is kept."""
        rows = max(rows, len(self.table))
        if rows == len(self.table) and device == self.table.device:
            return
        # Validation may run in inference mode, whose tensors cannot be added to outside it.
        with torch.inference_mode(False):
            larger = MagnitudeHistogram(rows).to(device)
            larger.counts[: len(self.table)] = self.table
        self._histogram = larger

    def take(self) -> Counted:
        """What this rank has counted since the last time; counting begins anew."""
        taken = Counted(tuple(self.streams), self.counts.clone())
        with torch.inference_mode(False):
            self._histogram.reset()
        return taken

    def _add(self, stream: Stream) -> None:
        self._rows[stream.name] = len(self.streams)
        self.streams.append(stream)
