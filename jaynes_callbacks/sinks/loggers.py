"""Curves in the viewer that a user already has: any tracker of scalars.

Which columns become curves, and under which tags, is said by each instrument's schema.  Viewers
group tags by what stands before the first slash and sort the groups by name, so a person sees the
overview first, then each kind's streams.  Of magnitudes there are:

==================================  ==========================================================
``equilibrium/<kind>/…``            the few numbers of `instruments.record.aggregates`
``gap_<kind>/<stream>``             the arbitrage gap, nats per value
``gap_<kind>_best_rival/<stream>``  the least gap of a rival: below it, the rival fits better
``q_<kind>/<stream>``               tilt away from the lognormal: 0 lognormal, √2 Gaussian
==================================  ==========================================================

Everything else is in the dataset.
"""

import logging
from collections.abc import Sequence
from typing import Any, TypeVar

from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import Column, Schema
from jaynes_callbacks.sinks.base import RunContext, sparing
from jaynes_callbacks.sinks.trackers import Ability, Tracker, trackers_of
from jaynes_callbacks.sinks.trackers.base import finite

__all__ = ["MAX_STREAM_TAGS", "LoggerSink", "curves_of", "evenly", "room_of"]

#: Most tags of single streams of magnitudes; with overview, histograms and figures, at most 300
#: come from us.
MAX_STREAM_TAGS = 210
#: Of any other instrument, this share of them.
_SHARE_OF_OTHERS = 4

_log = logging.getLogger("jaynes_callbacks")
_Row = TypeVar("_Row")


class _Choice:
    """The columns and the streams of one instrument that have curves."""

    def __init__(self, records: Frame[Any], room: int) -> None:
        self._curves = curves_of(records.schema, len(records), room)
        self._room = room // max(1, len(self._curves))
        self._keys = {record.key for record in evenly(records, self._room)}
        if len(self._keys) < len(records):
            _log.info(
                "%d of %d streams, at even distances, get curves of their own; the overview "
                "and the dataset have all",
                len(self._keys),
                len(records),
            )

    def numbers(self, records: Frame[Any]) -> dict[str, float]:
        """Return the values of all curves; streams that appear later get what room is left."""
        numbers = {}
        keys = list(zip(records["kind"].tolist(), records["name"].tolist(), strict=True))
        for key in keys:
            if len(self._keys) < self._room:
                self._keys.add(key)
        for column in self._curves:
            for (kind, name), value in zip(keys, records[column.name].tolist(), strict=True):
                if (kind, name) in self._keys and value is not None:
                    numbers[f"{column.tag_of(kind)}/{name}"] = value
        return numbers


class LoggerSink:
    """Logs the scalars of every record through every logger and tracker of the host, at its step.

    Where the streams are too many for all curves, each has its first curve only (of magnitudes, the
    gap); where they are too many even for that, streams at even distances over the network have
    theirs.  The choice is made at an instrument's first record, so that every curve is whole.  The
    overview always speaks of all streams.

    Args:
        max_stream_tags: most tags of single streams of magnitudes; of any other instrument a
            quarter of it.

    Raises:
        ValueError: if `max_stream_tags` is negative.
    """

    def __init__(self, max_stream_tags: int = MAX_STREAM_TAGS) -> None:
        if max_stream_tags < 0:
            raise ValueError(f"max_stream_tags must be 0 or more, got {max_stream_tags!r}")
        self._max_stream_tags = max_stream_tags
        self._trackers: list[Tracker] = []
        self._choices: dict[str, _Choice] = {}

    def open(self, context: RunContext) -> None:
        """Take the trackers of scalars; a warning names what is no tracker."""

        def check(target: Any) -> None:
            trackers_of([target])

        sparing(context.loggers, check)
        self._trackers = context.trackers_with(Ability.SCALARS, what="records")
        self._choices = {}

    def write(self, records: Frame[Any], history: Sequence[Any]) -> None:
        """Log one record; what is not finite is left out."""
        if not len(records):
            return
        schema = records.schema
        if schema.instrument not in self._choices:
            room = room_of(schema, self._max_stream_tags)
            self._choices[schema.instrument] = _Choice(records, room)
        numbers = schema.aggregate(records) | self._choices[schema.instrument].numbers(records)
        if shown := finite(numbers):
            step = int(records["step"][0])
            self._trackers = sparing(
                self._trackers, lambda tracker: tracker.log_scalars(shown, step)
            )

    def close(self, start: Frame[Any], end: Frame[Any], history: Sequence[Any]) -> None:
        """Do nothing: the host finishes its trackers."""


def room_of(schema: Schema[Any], max_stream_tags: int) -> int:
    """Return the most tags of single streams that an instrument may have."""
    return max_stream_tags if schema.main else max_stream_tags // _SHARE_OF_OTHERS


def curves_of(schema: Schema[Any], streams: int, room: int) -> tuple[Column, ...]:
    """Return which of a schema's curves each stream gets: all, or where those are too many one."""
    curves = schema.curves
    return curves[: None if streams * len(curves) <= room else 1]


def evenly(records: Sequence[_Row], number: int) -> list[_Row]:
    """Return at most `number` records at even distances, both ends among them."""
    if number >= len(records):
        return list(records)
    rows = list(records)
    last = len(rows) - 1
    return [rows[round(i * last / max(1, number - 1))] for i in range(number)]
