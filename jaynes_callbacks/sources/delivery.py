"""Handing records to sinks, so that a failing sink stops neither the run nor the others."""

from collections.abc import Callable, Sequence

from jaynes_callbacks.record import Records
from jaynes_callbacks.sink import RunContext, Sink, sparing

__all__ = ["Delivery"]


class Delivery:
    """All records of a run so far, and the sinks that get them.

    Args:
        sinks: destinations, each told of every snapshot in this order.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        for sink in sinks:
            if not isinstance(sink, Sink):
                raise TypeError(
                    f"a sink has the methods open, write and close (jaynes_callbacks.sink.Sink), "
                    f"got {sink!r}"
                )
        self.sinks = tuple(sinks)
        self.history = Records()
        self.end = Records()
        self._working: list[Sink] = []

    def open(self, context: RunContext) -> None:
        """Open every sink; one that fails is left out and the reason said."""
        self._working = list(self.sinks)
        self._each(lambda sink: sink.open(context))

    def write(self, records: Records) -> None:
        """Take one snapshot into the history and hand it on."""
        self.end = records
        self.history += records.without_counts()
        self._each(lambda sink: sink.write(records, self.history))

    def close(self, start: Records) -> None:
        """Let every sink finish."""
        self._each(lambda sink: sink.close(start, self.end, self.history))
        self._working = []

    def _each(self, act: Callable[[Sink], None]) -> None:
        self._working = sparing(self._working, act)
