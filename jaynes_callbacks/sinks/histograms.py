"""Histograms of ln |w| in viewers that have them, made of counts: no tensor is read or copied.

``ln_magnitude_<kind>/<stream>`` is a group of its own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jaynes_callbacks.counts.grid import FIRST_NONFINITE, FIRST_POSITIVE, log_edges
from jaynes_callbacks.instruments.record import Record
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import ColumnType
from jaynes_callbacks.sinks.base import RunContext, sparing
from jaynes_callbacks.sinks.loggers import evenly
from jaynes_callbacks.sinks.trackers import Ability, BinnedValues, Tracker

__all__ = ["MAX_HISTOGRAMS", "EvenHistogram", "HistogramSink", "even_histogram"]

#: Streams with histograms of their own.
MAX_HISTOGRAMS = 16

#: This share of the values, the smallest, is put into the first bin: a few tiny weights would
#: otherwise stretch the axis over decades in which nothing can be seen.
_LOWEST_SHARE = 1e-3

_EDGES = log_edges("cpu").numpy()

Floats = np.ndarray[Any, np.dtype[np.float64]]
Integers = np.ndarray[Any, np.dtype[np.int64]]

_WHAT = "histograms"
#: TensorBoard draws 30 bins of whatever it is given; W&B takes up to 512, its own default is 64.
_BINS = 64
#: So many snapshots are shown one by one, of later ones ever fewer.
_DENSE = 64


class HistogramSink:
    """Shows how ln |w| of a few streams is distributed, over steps.

    The streams are chosen at the first snapshot, at even distances over the network, so that each
    can be followed.  Of a run with many records every second, later every fourth, and so on, is
    shown: a file grows with the logarithm of their number.  The last record always is.

    Args:
        max_streams: at most so many streams.

    Raises:
        ValueError: if `max_streams` is negative.

    Example:
        >>> from jaynes_callbacks import EquilibriumMonitor
        >>> from jaynes_callbacks.sinks.loggers import LoggerSink
        >>> monitor = EquilibriumMonitor(sinks=[LoggerSink(), HistogramSink(max_streams=4)])
    """

    def __init__(self, max_streams: int = MAX_HISTOGRAMS) -> None:
        if max_streams < 0:
            raise ValueError(f"max_streams must be 0 or more, got {max_streams!r}")
        self._max_streams = max_streams
        self._trackers: list[Tracker] = []
        self._shown: dict[str, _Shown] = {}

    def open(self, context: RunContext) -> None:
        """Take the trackers that can show histograms."""
        self._trackers = context.trackers_with(Ability.HISTOGRAMS, what=_WHAT)
        self._shown = {}

    def write(self, records: Frame[Any], history: Sequence[Any]) -> None:
        """Show the chosen streams of one record, if it is among those that are shown."""
        if not len(records) or not _has_histograms(records):
            return
        name = records.schema.instrument
        if name not in self._shown:
            chosen = evenly(records, self._max_streams)
            self._shown[name] = _Shown({record.key for record in chosen})
        shown = self._shown[name]
        if _is_shown(shown.snapshots):
            self._show(records, shown)
        shown.snapshots += 1

    def close(self, start: Frame[Any], end: Frame[Any], history: Sequence[Any]) -> None:
        """Show the last state, if it has not been."""
        shown = self._shown.get(end.schema.instrument)
        if shown is not None and len(end) and end["step"][0] != shown.step:
            self._show(end, shown)

    def _show(self, records: Frame[Any], shown: "_Shown") -> None:
        shown.step = int(records["step"][0])
        chosen = [record for record in records if record.key in shown.keys]
        if self._trackers and (binned := _binned(chosen)):
            step = max(record.step for record in chosen)
            self._trackers = sparing(
                self._trackers, lambda tracker: tracker.log_histograms(binned, step), _WHAT
            )


@dataclass
class _Shown:
    """Streams of an instrument that have histograms, and which of its records were shown."""

    keys: set[tuple[str, str]]
    snapshots: int = 0
    step: int = -1


def _has_histograms(records: Frame[Any]) -> bool:
    """Tell whether rows have counts and the moments of ln w that belong to them.

    Cores of weights have none: they are in arbitrary units, and their names are the weights' own.
    """
    counted = any(column.type is ColumnType.CODES for column in records.schema.columns)
    return counted and {"log_mean", "log_std"} <= set(records.schema.by_name)


def _is_shown(number: int) -> bool:
    """Tell whether a record is shown: each up to number 63, every second to 127, then every fourth.

    >>> [number for number in range(60, 140) if _is_shown(number)][:6]
    [60, 61, 62, 63, 64, 66]
    """
    stride: int = 1 << (number // _DENSE).bit_length()
    return number % stride == 0


def _binned(records: Iterable[Record]) -> dict[str, BinnedValues]:
    """Return ln |w| of each record in bins, by its tag; what has no values is left out."""
    found = ((record, even_histogram(record, _BINS)) for record in records)
    return {
        _tag(record): BinnedValues(each.edges, each.counts, record.log_mean, record.log_std)
        for record, each in found
        if each is not None
    }


def _tag(record: Record) -> str:
    return f"ln_magnitude_{record.kind}/{record.name}"


class EvenHistogram(NamedTuple):
    """Counts between edges at equal distances.

    Attributes:
        edges: ``[bins + 1]``, in ln of the tensor's own unit.
        counts: ``[bins]``, values between an edge and the next.
    """

    edges: Floats
    counts: Integers


def even_histogram(record: Record, most_bins: int) -> EvenHistogram | None:
    """Return the record's finite, non-zero values over ln |w|, in bins of equal width.

    The grid's own bins differ in width by up to two, which viewers that draw counts would show as
    steps.  So each bin's count is spread evenly over its width; none is wider than 0.061.

    Args:
        record: with its counts.
        most_bins: at most so many bins, from 1 on.

    Returns:
        Bins from the first occupied place to the last; None where nothing was counted.

    Example:
        >>> import numpy as np
        >>> ones = Record(n=7, codes=np.array([2032]), counts=np.array([7]))
        >>> edges, counts = even_histogram(ones, 64)
        >>> edges.round(3).tolist(), counts.tolist()
        ([0.0, 0.061], [7])
    """
    fits = (record.codes >= FIRST_POSITIVE) & (record.codes < FIRST_NONFINITE)
    codes, counts = record.codes[fits], record.counts[fits]
    if not counts.sum():
        return None
    cumulated = counts.cumsum()
    first = codes[np.searchsorted(cumulated, _LOWEST_SHARE * cumulated[-1], side="right")]
    dense = np.bincount(np.maximum(codes - first, 0), counts)
    grid = _EDGES[first : first + len(dense) + 1]
    edges = np.linspace(grid[0], grid[-1], min(most_bins, len(dense)) + 1)
    below = np.interp(edges, grid, np.concatenate([[0.0], dense.cumsum()]))
    return EvenHistogram(edges, np.diff(np.rint(below).astype(np.int64)))
