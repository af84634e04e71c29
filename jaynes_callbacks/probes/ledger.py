"""Counts of streams that are found one by one while a model runs.

Activations are counted where they happen, since nothing of them is kept: the watch adds to the row
that the ledger gives it.  A checkpoint holds what was counted since the last record, so that a run
which is resumed between two records goes on counting where it was.

What a row holds is up to the watch: counts on the universal grid by default, or any other sums.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.counts.log_powers import float64_device
from jaynes_callbacks.probes.selection import Skipped
from jaynes_callbacks.records.stream import IOTA, Stream

__all__ = ["NO_ROW", "Counted", "Ledger", "pack_counts", "restore_counts"]

#: In place of a row: this stream is not counted.
NO_ROW = -1


class Counted(NamedTuple):
    """Some streams and the counts of each, in one or more groups of samples.

    Attributes:
        streams: that were counted.
        counts: by groups of samples.
        groups: number of each stream's groups, which stand first.
    """

    streams: tuple[Stream, ...]
    counts: Shaped[Tensor, "streams groups *row"]
    groups: tuple[int, ...]


class Ledger:
    """A table of counts whose rows are given out to streams as they appear.

    Rows are set aside beforehand (`reserve`), because a compiled graph holds on to the table that
    it was traced with.  Memory: 32 KiB per row of counts.

    Args:
        admits: which names get a row.
        groups: of samples, among which the counts are dealt (`next_group`): 32 KiB more per group
            and stream that is dealt.
        deals_all: whether the counts of every stream are dealt, or only those of streams of which
            one sample gives several values of a neuron, so that values depend on each other.
        kind: of the streams.
        shape: of a row; by default that of counts on the universal grid.
        dtype: of the table, which is on the CPU if the model's device has no such dtype.

    Attributes:
        group: the one that is counted in.
        skipped: the names that got no row, or lost it, with the reason.
    """

    def __init__(
        self,
        admits: Callable[[str], bool],
        groups: int = 1,
        *,
        deals_all: bool = True,
        kind: str = IOTA,
        shape: tuple[int, ...] = (CODES,),
        dtype: torch.dtype = torch.int64,
    ) -> None:
        self.skipped: list[Skipped] = []
        self._admits, self._kind = admits, kind
        self._rows: dict[str, int] = {}
        #: By row.  A graph may go on counting in a row that a stream has lost, so none moves up.
        self._given: list[Stream] = []
        self._table = torch.zeros(0, *shape, dtype=dtype)
        self.group = 0
        self._groups, self._deals_all = groups, deals_all
        #: Place in `_dealt` of each row whose counts are dealt.
        self._places: dict[int, int] = {}
        self._dealt = torch.zeros(0, groups, *shape, dtype=dtype)

    @property
    def table(self) -> Shaped[Tensor, "rows *row"]:
        """The counts to add to, reserved rows included."""
        return self._table

    @property
    def streams(self) -> list[Stream]:
        """The streams that are counted, in the order in which they appeared."""
        return [stream for stream in self._given if self._rows[stream.name] != NO_ROW]

    @property
    def rows(self) -> int:
        """The number of rows given out, those of streams that lost theirs included."""
        return len(self._given)

    @property
    def counts(self) -> Shaped[Tensor, "streams *row"]:
        """Counts of this rank since they were last taken."""
        return self.grouped.sum(1)

    @property
    def grouped(self) -> Shaped[Tensor, "streams groups *row"]:
        """The same by groups of samples."""
        rows = [self._rows[stream.name] for stream in self.streams]
        groups = self._groups if self._places else 1
        counts = self.table.new_zeros(len(rows), groups, *self.table.shape[1:])
        dealt = [(place, row) for place, row in enumerate(rows) if row in self._places]
        if dealt:
            here = [place for place, _ in dealt]
            counts[here] = self._dealt[[self._places[row] for _, row in dealt]]
        # While a graph is made the table is not enlarged: later rows hold nothing yet.
        reserved = [(place, row) for place, row in enumerate(rows) if row < len(self.table)]
        for group, chosen in (
            (self.group, [pair for pair in reserved if pair[1] in self._places]),
            (0, [pair for pair in reserved if pair[1] not in self._places]),
        ):
            if chosen:
                here, held = (list(each) for each in zip(*chosen, strict=True))
                counts[here, group] += self.table[held]
        return counts

    def next_group(self) -> None:
        """Count what comes into the next group of samples, after the last into the first."""
        if not self._places:
            return
        rows = [row for row in self._places if row < len(self.table)]
        with torch.inference_mode(False):
            self._dealt[[self._places[row] for row in rows], self.group] += self.table[rows]
            self._table[rows] = 0
        self.group = (self.group + 1) % self._groups

    def row(
        self, name: str, shape: tuple[int, ...], variable: str, *, repeats: bool = False
    ) -> int:
        """Return the row of a stream, given at its first appearance; `NO_ROW` for none.

        Args:
            name: of the stream.
            shape: of one sample.
            variable: that is counted.
            repeats: whether one sample gives several values of a neuron.
        """
        if name not in self._rows:
            if self._admits(name):
                self._add(Stream(self._kind, name, shape, (), variable), repeats)
            else:
                self.skip(name, "excluded by pattern")
        return self._rows[name]

    def stream_of(self, row: int) -> Stream | None:
        """Return the stream that has a row; None if it has lost it."""
        stream = self._given[row]
        return stream if self._rows[stream.name] == row else None

    def is_dealt(self, stream: Stream) -> bool:
        """Tell whether a stream's counts are dealt among groups of samples."""
        return self._rows[stream.name] in self._places

    def skip(self, name: str, reason: str) -> None:
        """Give a stream no row, or take its row and counts from it; the first reason stands."""
        if self._rows.get(name) != NO_ROW:
            self._rows[name] = NO_ROW
            self.skipped.append(Skipped(name, reason))

    def reserve(self, rows: int, device: torch.device) -> None:
        """Have at least so many rows, on this device; what was counted is kept."""
        rows = max(rows, len(self.table))
        device = float64_device(device) if self._table.dtype == torch.float64 else device
        if rows == len(self.table) and device == self.table.device:
            return
        # Validation may run in inference mode, whose tensors cannot be added to outside it.
        with torch.inference_mode(False):
            table = self._table.new_zeros(rows, *self._table.shape[1:], device=device)
            table[: len(self._table)] = self._table
            dealt = self._dealt.to(device)
        self._table, self._dealt = table, dealt

    def take(self) -> Counted:
        """Return what this rank has counted since the last time; counting begins anew."""
        streams = self.streams
        groups = tuple(self._groups if self.is_dealt(stream) else 1 for stream in streams)
        taken = Counted(tuple(streams), self.grouped, groups)
        with torch.inference_mode(False):
            self._table.zero_()
            self._dealt.zero_()
        self.group = 0
        return taken

    def resume(self, row: int, places: Int64[Tensor, " n"], counts: Shaped[Tensor, " n"]) -> None:
        """Add counts to a row.

        Args:
            row: of the stream.
            places: indices into the groups of the flattened row, group by group.  If the checkpoint
                had more groups than there are here, they wrap around.
            counts: at these places.
        """
        dealt = row in self._places
        own = (self._dealt[self._places[row]] if dealt else self.table[row]).view(-1)
        own.index_add_(0, places.to(own.device) % own.numel(), counts.to(own.device))

    def _add(self, stream: Stream, repeats: bool) -> None:
        row = self._rows[stream.name] = len(self._given)
        self._given.append(stream)
        if self._groups > 1 and (self._deals_all or repeats):
            self._places[row] = len(self._dealt)
            with torch.inference_mode(False):
                empty = self._dealt.new_zeros(1, *self._dealt.shape[1:])
                self._dealt = torch.cat([self._dealt, empty])


def pack_counts(ledger: Ledger) -> list[dict[str, Any]]:
    """Return one entry per stream: the non-zero places of its row, with their counts.

    CPU tensors and builtins.  Only this process' counts: no rank waits for the others while a
    checkpoint is made.
    """
    counts = ledger.grouped.cpu()
    return [
        {
            "name": stream.name,
            "shape": stream.shape,
            "variable": stream.variable,
            "repeats": ledger.is_dealt(stream),
            "places": (places := row.flatten().nonzero().squeeze(-1)),
            "counts": row.flatten()[places],
        }
        for stream, row in zip(ledger.streams, counts, strict=True)
    ]


def restore_counts(ledger: Ledger, packed: list[dict[str, Any]], group: int) -> None:
    """Add what was packed to the counts of these streams; streams no longer watched are dropped.

    Args:
        ledger: to add to.
        packed: by `pack_counts`.
        group: that was counted in.
    """
    ledger.reserve(ledger.rows + len(packed), ledger.table.device)
    for entry in packed:
        # Version 0.1 did not say so, and dealt all or none.
        repeats = entry.get("repeats", False)
        row = ledger.row(entry["name"], tuple(entry["shape"]), entry["variable"], repeats=repeats)
        if row != NO_ROW:
            ledger.resume(row, entry["places"], entry["counts"])
    ledger.group = group % ledger.grouped.shape[1]
