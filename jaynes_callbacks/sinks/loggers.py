"""Curves in the viewer that a user already has: any logger of Lightning.

A logger needs nothing but ``log_metrics``.  Viewers group tags by what stands before the first
slash and sort the groups by name, so a person sees the overview first, then each kind's streams:

==================================  ==========================================================
``equilibrium/<kind>/…``            the few numbers of `summary.aggregates`
``gap_<kind>/<stream>``             the arbitrage gap, nats per value
``gap_<kind>_best_rival/<stream>``  the least gap of a rival: below it, the rival fits better
``q_<kind>/<stream>``               tilt away from the lognormal: 0 lognormal, √2 Gaussian
==================================  ==========================================================

Everything else is in the dataset.
"""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.instruments.summary import aggregates
from jaynes_callbacks.instruments.verdict import rival_gaps
from jaynes_callbacks.sinks.base import RunContext, sparing

__all__ = ["CURVES", "MAX_STREAM_TAGS", "LoggerSink", "able", "curves_of", "evenly"]

#: Most tags of single streams; with overview, histograms and figures, at most 300 come from us.
MAX_STREAM_TAGS = 210

_log = logging.getLogger("jaynes_callbacks")


def _best_rival(record: Record) -> float:
    return min(rival_gaps(record).values(), default=math.nan)


#: Group of tags of a stream and what it shows, the one that is kept longest first.
CURVES: Mapping[str, Callable[[Record], float]] = {
    "gap_{kind}": lambda record: record.gap,
    "gap_{kind}_best_rival": _best_rival,
    "q_{kind}": lambda record: record.q,
}


class LoggerSink:
    """Logs the scalars of every snapshot through every logger of the trainer, at its step.

    Where the streams are too many for all curves, each has its gap only; where they are too many
    even for that, streams at even distances over the network have theirs.  The choice is made at
    the first snapshot, so that every curve is whole.  The overview always speaks of all streams.

    Args:
        max_stream_tags: most tags of single streams.

    Raises:
        ValueError: if `max_stream_tags` is negative.
    """

    def __init__(self, max_stream_tags: int = MAX_STREAM_TAGS) -> None:
        if max_stream_tags < 0:
            raise ValueError(f"max_stream_tags must be 0 or more, got {max_stream_tags!r}")
        self._max_stream_tags = max_stream_tags
        self._loggers: list[Any] = []
        self._curves: tuple[str, ...] = ()
        self._chosen: set[tuple[str, str]] = set()

    def open(self, context: RunContext) -> None:
        """Take the trainer's loggers."""
        self._loggers = list(context.loggers)
        self._curves, self._chosen = (), set()

    def write(self, records: Records, history: Records) -> None:
        """Log one snapshot; what is not finite is left out."""
        self._choose(records)
        numbers = aggregates(records)
        for record in records:
            if record.key in self._chosen:
                numbers |= self._stream(record)
        finite = {tag: value for tag, value in numbers.items() if math.isfinite(value)}
        if finite:
            step = records[0].step
            self._loggers = sparing(
                self._loggers, lambda logger: logger.log_metrics(finite, step=step)
            )

    def close(self, start: Records, end: Records, history: Records) -> None:
        """Nothing is left to do: the trainer finishes its loggers."""

    def _stream(self, record: Record) -> dict[str, float]:
        return {
            f"{curve.format(kind=record.kind)}/{record.name}": CURVES[curve](record)
            for curve in self._curves
        }

    def _choose(self, records: Records) -> None:
        """Decide at the first snapshot; streams that appear later get what room is left."""
        if not self._curves and records:
            self._curves = curves_of(len(records), self._max_stream_tags)
            self._chosen = {record.key for record in evenly(records, self._room())}
            if len(self._chosen) < len(records):
                _log.info(
                    "%d of %d streams, at even distances, get curves of their own; the overview "
                    "and the dataset have all",
                    len(self._chosen),
                    len(records),
                )
        for record in records:
            if len(self._chosen) < self._room():
                self._chosen.add(record.key)

    def _room(self) -> int:
        """How many streams can have curves."""
        return self._max_stream_tags // max(1, len(self._curves))


def able(loggers: Iterable[Any], can: Callable[[Any], bool], what: str) -> list[Any]:
    """The loggers that can do something; one that fails when asked cannot, and a warning says so.

    Args:
        loggers: of any kind.
        can: asks a logger for an ability, not for its class.
        what: those that can will get, as the warning says.
    """
    found: list[Any] = []
    sparing(loggers, lambda logger: found.append(logger) if can(logger) else None, what)
    return found


def curves_of(streams: int, max_stream_tags: int) -> tuple[str, ...]:
    """Which of `CURVES` each stream gets: all of them, or where those are too many the first."""
    return tuple(CURVES)[: None if streams * len(CURVES) <= max_stream_tags else 1]


def evenly(records: Sequence[Record], number: int) -> list[Record]:
    """At most `number` records at even distances, both ends among them."""
    if number >= len(records):
        return list(records)
    last = len(records) - 1
    return [records[round(i * last / max(1, number - 1))] for i in range(number)]
