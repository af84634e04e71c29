"""Handing records to sinks, so that a failing sink stops neither the run nor the others."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.interrupts import delayed_interrupts
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.history import History
from jaynes_callbacks.records.schema import Array, Schema
from jaynes_callbacks.records.text import counted
from jaynes_callbacks.sinks.base import Recalling, RunContext, Sink, sparing

__all__ = ["Delivery"]

_NO_COUNTS = np.zeros(0, dtype=np.int64)


class Delivery:
    """All records of a run so far, by instrument, and the sinks that get them.

    Args:
        sinks: destinations, each told of every record in this order.
        schemas: of the instruments, by their names.

    Raises:
        TypeError: for what is no sink.
    """

    def __init__(self, sinks: Sequence[Sink], schemas: Mapping[str, Schema[Any]]) -> None:
        for sink in sinks:
            if not isinstance(sink, Sink):
                raise TypeError(
                    "a sink has the methods open, write and close "
                    f"(jaynes_callbacks.sinks.base.Sink), got {sink!r}"
                )
        self.sinks = tuple(sinks)
        self.histories = {name: History(schema) for name, schema in schemas.items()}
        self.ends: dict[str, Frame[Any]] = {}
        self._working: list[Sink] = []
        self._run_id = ""

    def begin(self, run_id: str, resumed_step: int | None) -> None:
        """Forget another run's records, or of this run what lies beyond its checkpoint."""
        same = run_id == self._run_id and resumed_step is not None
        until = resumed_step if same and resumed_step is not None else -1
        self._run_id = run_id
        for history in self.histories.values():
            history.truncate(until)
        self.ends = {
            name: end for name, end in self.ends.items() if len(end) and end["step"][-1] <= until
        }

    def open(self, context: RunContext) -> None:
        """Open every sink; one that fails is left out and the reason said.

        What a resumed run recorded in another process comes back from a sink that kept it.
        """
        self._working = list(self.sinks)
        self._each(lambda sink: sink.open(context))
        if context.resumed_step is not None:
            for history in self.histories.values():
                if not len(history) and len(recalled := self._recalled(history.schema)):
                    history.append(recalled)

    def take(self, name: str, frame: Frame[Any]) -> None:
        """Take one record into the history and hand it on to the sinks that were opened."""
        if not len(frame) and not frame.schema.main:
            return
        history = self.histories[name]
        # A record is in the history and in the dataset, or in neither.
        with delayed_interrupts():
            self.ends[name] = frame
            history.append(frame)
            self._each(lambda sink: sink.write(frame, history))

    def close(self, starts: Mapping[str, Frame[Any]]) -> None:
        """Let every sink finish each instrument."""
        for name, start in starts.items():
            end, history = self.ends.get(name, start), self.histories[name]
            if len(end) or start.schema.main:
                self._each(lambda sink: sink.close(start, end, history))  # noqa: B023
        self._working = []

    def records_of(self, name: str, start: Frame[Any]) -> Frame[Any]:
        """Return an instrument's history, with the counts of the start and of the last record.

        Args:
            name: of the instrument.
            start: the first record of each stream, with its counts.
        """
        frame = self.histories[name].frame()
        known = {
            (row.step, *row.key): row
            for rows in (start, self.ends.get(name, start))
            for row in rows
        }
        keys = list(zip(*(frame[each].tolist() for each in ("step", "kind", "name")), strict=True))
        arrays: dict[str, Array] = {}
        for column in frame.schema.columns:
            if column.type.is_array:
                arrays[column.name] = np.empty(len(frame), dtype=object)
                for place, key in enumerate(keys):
                    values = getattr(known[key], column.name) if key in known else _NO_COUNTS
                    arrays[column.name][place] = values
        frame = frame.replaced(**arrays)
        return Records(frame) if frame.schema.main else frame

    def summary(self, name: str) -> str:
        """Say in a phrase how much an instrument has recorded, for representations of its owner."""
        history, end = self.histories[name], self.ends.get(name)
        if end is None or not len(end):
            return "no record yet"
        rows = f"{counted(len(history), 'row')} to step {history.last_step}"
        return f"{counted(len(end), 'stream')}, {rows}"

    def __getstate__(self) -> dict[str, Any]:
        # No sink of a copy is open: the run goes on writing through the original's.
        return {**self.__dict__, "_working": []}

    def _recalled(self, schema: Schema[Any]) -> Frame[Any]:
        for sink in self._working:
            try:
                if isinstance(sink, Recalling) and len(frame := sink.recall(schema)):
                    return frame
            except Exception as error:
                warnings.warn(
                    f"monitor.history begins where the run is resumed, for {type(sink).__name__} "
                    f"cannot read what came before: {type(error).__name__}: {error}",
                    stacklevel=2,
                )
        return Frame(schema, {})

    def _each(self, act: Callable[[Sink], None]) -> None:
        self._working = sparing(self._working, act)
