"""Histograms of ln |w| in viewers that have them, made of counts: no tensor is read or copied.

``ln_magnitude_<kind>/<stream>`` is a group of its own.  A logger takes part by what it can do: its
``experiment`` has ``add_histogram_raw`` (TensorBoard's writer) or ``define_metric`` (a W&B run).
"""

import math
from typing import Any

from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.sinks.base import RunContext, sparing
from jaynes_callbacks.sinks.log_histogram import log_histogram
from jaynes_callbacks.sinks.loggers import evenly

__all__ = ["MAX_HISTOGRAMS", "HistogramSink"]

#: Streams with histograms of their own.
MAX_HISTOGRAMS = 16

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
        self._loggers: list[Any] = []
        self._chosen: set[tuple[str, str]] = set()
        self._snapshots = 0
        self._shown_step = -1

    def open(self, context: RunContext) -> None:
        """Take the loggers that can show histograms."""
        self._loggers = list(context.loggers)
        self._chosen, self._snapshots, self._shown_step = set(), 0, -1

    def write(self, records: Records, history: Records) -> None:
        """Show the chosen streams of one snapshot, if it is among those that are shown."""
        if not records:
            return
        self._chosen = self._chosen or {row.key for row in evenly(records, self._max_streams)}
        if _is_shown(self._snapshots):
            self._show(records)
        self._snapshots += 1

    def close(self, start: Records, end: Records, history: Records) -> None:
        """Show the last state, if it has not been."""
        if end and end[0].step != self._shown_step:
            self._show(end)

    def _show(self, records: Records) -> None:
        self._shown_step = records[0].step
        chosen = [record for record in records if record.key in self._chosen]
        self._loggers = sparing(
            self._loggers, lambda logger: _send_all(logger, chosen), "histograms"
        )


def _is_shown(number: int) -> bool:
    """Whether the snapshot of this number is: each to 63, every second to 127, then every fourth.

    >>> [number for number in range(60, 140) if _is_shown(number)][:6]
    [60, 61, 62, 63, 64, 66]
    """
    stride: int = 1 << (number // _DENSE).bit_length()
    return number % stride == 0


def _send_all(logger: Any, records: list[Record]) -> None:
    experiment = getattr(logger, "experiment", None)
    if hasattr(experiment, "add_histogram_raw"):
        for record in records:
            _to_writer(experiment, record)
    elif hasattr(experiment, "define_metric"):
        _to_run(logger, records)


def _to_writer(writer: Any, record: Record) -> None:
    """One summary: the sums are of the record's own moments, not of its bins."""
    if (found := log_histogram(record, _BINS)) is None:
        return
    mean, square = record.log_mean, record.log_std**2 + record.log_mean**2
    writer.add_histogram_raw(
        _tag(record),
        min=float(found.edges[0]),
        max=float(found.edges[-1]),
        num=record.n,
        sum=record.n * mean if math.isfinite(mean) else 0.0,
        sum_squares=record.n * square if math.isfinite(square) else 0.0,
        bucket_limits=found.edges[1:].tolist(),
        bucket_counts=found.counts.tolist(),
        global_step=record.step,
    )


def _to_run(logger: Any, records: list[Record]) -> None:
    """One row of the run's history, at the trainer's step."""
    import wandb  # loaded already, for there is a run

    found = {_tag(record): log_histogram(record, _BINS) for record in records}
    shown = {
        tag: wandb.Histogram(np_histogram=(histogram.counts.tolist(), histogram.edges.tolist()))
        for tag, histogram in found.items()
        if histogram is not None
    }
    if shown:
        logger.log_metrics(shown, step=records[0].step)


def _tag(record: Record) -> str:
    return f"ln_magnitude_{record.kind}/{record.name}"
