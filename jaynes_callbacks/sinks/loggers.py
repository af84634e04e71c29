"""Curves in the viewer that a user already has: any logger of Lightning.

A logger needs nothing but ``log_metrics``.  Tags are few, and grouped so that the overview comes
first:

=============================  ===============================================================
``equilibrium/<kind>/…``       median gap, worst gap, share of lognormal-like streams
``gap_<kind>/<stream>``        the arbitrage gap of each stream, nats per value
``log_skew_<kind>/<stream>``   skewness of ln w: 0 lognormal, −1.14 Laplace, −1.54 Gaussian
``rival_gap_<kind>/<stream>``  gap of the best rival: below ``gap`` means that a rival fits better
=============================  ===============================================================

Everything else is in the dataset.
"""

import math
from collections.abc import Sequence
from typing import Any

from jaynes_callbacks.record import Record, Records
from jaynes_callbacks.sink import RunContext, sparing
from jaynes_callbacks.summary import aggregates

__all__ = ["LoggerSink", "scalars"]

#: Streams with curves of their own; three tags each keep the whole under 300.
MAX_STREAMS = 96


class LoggerSink:
    """Logs scalars through every logger of the trainer.

    Args:
        max_streams: how many streams get curves of their own; of more, those that stood first in
            the model are kept, alternating between its beginning and its end.
    """

    def __init__(self, max_streams: int = MAX_STREAMS) -> None:
        if max_streams < 0:
            raise ValueError(f"max_streams must be 0 or more, got {max_streams!r}")
        self._max_streams = max_streams
        self._loggers: list[Any] = []

    def open(self, context: RunContext) -> None:
        """Take the trainer's loggers."""
        self._loggers = list(context.loggers)

    def write(self, records: Records, history: Records) -> None:
        """Log one snapshot at its optimizer step."""
        numbers = scalars(records, self._max_streams)
        if numbers:
            step = records[0].step
            self._loggers = sparing(
                self._loggers, lambda logger: logger.log_metrics(numbers, step=step)
            )

    def close(self, start: Records, end: Records, history: Records) -> None:
        """Nothing is left to do: the trainer finishes its loggers."""


def scalars(records: Sequence[Record], max_streams: int = MAX_STREAMS) -> dict[str, float]:
    """The finite numbers of one snapshot, by tag."""
    numbers = aggregates(records)
    for record in _ends_first(records)[:max_streams]:
        rivals = [gap for gap in record.rival_gaps.values() if not math.isnan(gap)]
        curves = {
            "gap": record.gap,
            "log_skew": record.log_skew,
            "rival_gap": min(rivals, default=math.nan),
        }
        for curve, value in curves.items():
            numbers[f"{curve}_{record.kind}/{record.name}"] = value
    return {tag: value for tag, value in numbers.items() if math.isfinite(value)}


def _ends_first(records: Sequence[Record]) -> list[Record]:
    """First, last, second, last but one, …: what is kept of a deep network shows both its ends."""
    forward, backward = iter(records), reversed(records)
    mixed = [record for pair in zip(forward, backward, strict=True) for record in pair]
    return list({record.key: record for record in mixed}.values())
