"""The counts of streams that are found one by one, while a model runs."""

from collections.abc import Callable

import torch
from jaxtyping import Int64
from torch import Tensor

from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.counts.metric import MagnitudeHistogram
from jaynes_callbacks.instruments.record import Stream, Variable
from jaynes_callbacks.watch.ranks import Counted
from jaynes_callbacks.watch.selection import Skipped

__all__ = ["NO_ROW", "Ledger"]

#: In place of a row: this stream is not counted.
NO_ROW = -1


class Ledger:
    """A `MagnitudeHistogram` whose rows are given out to streams as they appear.

    Rows are set aside beforehand (`reserve`), because a compiled graph holds on to the histogram
    that it was traced with.  Memory: 32 KiB per row.

    Args:
        admits: which names get a row.
        groups: of samples, among which the counts are dealt (`next_group`).  With more than one
            there are as many tables again.

    Attributes:
        streams: the streams so far; the place of each is its row.
        group: the one that is counted in.
        skipped: the names that got no row, with the reason.
    """

    def __init__(self, admits: Callable[[str], bool], groups: int = 1) -> None:
        self.streams: list[Stream] = []
        self.skipped: list[Skipped] = []
        self._admits = admits
        self._rows: dict[str, int] = {}
        self._histogram = MagnitudeHistogram(0)
        self.group = 0
        self._dealt = torch.zeros(0, groups if groups > 1 else 0, CODES, dtype=torch.int64)

    @property
    def table(self) -> Int64[Tensor, "rows 4096"]:
        """The counts to add to, reserved rows included."""
        return self._histogram.counts

    @property
    def counts(self) -> Int64[Tensor, "streams 4096"]:
        """What this rank has counted since they were last taken."""
        return self.grouped.sum(1)

    @property
    def grouped(self) -> Int64[Tensor, "streams groups 4096"]:
        """The same by groups of samples."""
        own = self.table[: len(self.streams), None]
        if not self._dealt.shape[1]:
            return own.clone()
        counts = self._dealt[: len(self.streams)].clone()
        counts[:, self.group] += own[:, 0]
        return counts

    def next_group(self) -> None:
        """Count what comes into the next group of samples, after the last into the first."""
        if groups := self._dealt.shape[1]:
            self._dealt[:, self.group] += self.table
            with torch.inference_mode(False):
                self._histogram.reset()
            self.group = (self.group + 1) % groups

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
            dealt = self._dealt.new_zeros(rows, *self._dealt.shape[1:], device=device)
            dealt[: len(self._dealt)] = self._dealt
        self._histogram, self._dealt = larger, dealt

    def take(self) -> Counted:
        """What this rank has counted since the last time; counting begins anew."""
        taken = Counted(tuple(self.streams), self.grouped)
        with torch.inference_mode(False):
            self._histogram.reset()
        self._dealt.zero_()
        self.group = 0
        return taken

    def resume(self, row: int, places: Int64[Tensor, " n"], counts: Int64[Tensor, " n"]) -> None:
        """Add counts to a row.

        Args:
            row: of the stream.
            places: codes within the groups, group by group; of other groups than here are, they go
                round.
            counts: at these places.
        """
        own = (self._dealt if self._dealt.shape[1] else self.table)[row].view(-1)
        own.index_add_(0, places.to(own.device) % own.numel(), counts.to(own.device))

    def _add(self, stream: Stream) -> None:
        self._rows[stream.name] = len(self.streams)
        self.streams.append(stream)
