"""Handing records to sinks, so that a failing sink stops neither the run nor the others."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.sinks.base import Recalling, RunContext, Sink, sparing

__all__ = ["Delivery", "run_directory"]


class Delivery:
    """All records of a run so far, and the sinks that get them.

    Args:
        sinks: destinations, each told of every snapshot in this order.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        for sink in sinks:
            if not isinstance(sink, Sink):
                raise TypeError(
                    "a sink has the methods open, write and close "
                    f"(jaynes_callbacks.sinks.base.Sink), got {sink!r}"
                )
        self.sinks = tuple(sinks)
        self.history = Records()
        self.end = Records()
        self._working: list[Sink] = []
        self._run_id = ""

    def begin(self, run_id: str, resumed_step: int | None) -> None:
        """Forget another run's records, or of this run what lies beyond its checkpoint."""
        same = run_id == self._run_id and resumed_step is not None
        until = resumed_step if same and resumed_step is not None else -1
        self._run_id = run_id
        self.history = Records(record for record in self.history if record.step <= until)
        self.end = Records(record for record in self.end if record.step <= until)

    def open(self, context: RunContext) -> None:
        """Open every sink; one that fails is left out and the reason said.

        What a resumed run recorded in another process comes back from a sink that kept it.
        """
        self._working = list(self.sinks)
        self._each(lambda sink: sink.open(context))
        if context.resumed_step is not None and not self.history:
            self.history = self._recalled()

    def take(self, records: Records) -> None:
        """Take one snapshot into the history and hand it on to the sinks that were opened."""
        self.end = records
        self.history += records.without_counts()
        self._each(lambda sink: sink.write(records, self.history))

    def close(self, start: Records) -> None:
        """Let every sink finish."""
        self._each(lambda sink: sink.close(start, self.end, self.history))
        self._working = []

    def __getstate__(self) -> dict[str, Any]:
        # No sink of a copy is open: the run goes on writing through the original's.
        return {**self.__dict__, "_working": []}

    def _recalled(self) -> Records:
        for sink in self._working:
            try:
                if isinstance(sink, Recalling) and (records := sink.recall()):
                    return records
            except Exception as error:
                warnings.warn(
                    f"monitor.history begins where the run is resumed, for {type(sink).__name__} "
                    f"cannot read what came before: {type(error).__name__}: {error}",
                    stacklevel=2,
                )
        return Records()

    def _each(self, act: Callable[[Sink], None]) -> None:
        self._working = sparing(self._working, act)


def run_directory(trainer: Any) -> Path | None:
    """The first logger's directory, or else the trainer's own; None if that is no local path."""
    candidates = [_logger_directory(logger) for logger in trainer.loggers]
    candidates.append(trainer.default_root_dir)
    return next((Path(path) for path in candidates if path and "://" not in str(path)), None)


def _logger_directory(logger: Any) -> Path | str | None:
    """Its ``log_dir``, or what ``save_dir``, name and version make; None for one without files."""
    directory = getattr(logger, "log_dir", None)
    if isinstance(directory, str | Path):
        return directory
    saved = getattr(logger, "save_dir", None)
    if not isinstance(saved, str | Path) or "://" in str(saved):
        return None
    return Path(saved, str(logger.name or ""), str(logger.version or ""))
