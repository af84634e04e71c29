"""What a source hands its records to: the protocol that loggers, datasets and figures follow."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaynes_callbacks.record import Records

__all__ = ["RunContext", "Sink"]


@dataclass(frozen=True)
class RunContext:
    """What a run offers to sinks.

    Attributes:
        run: the run's name, as it stands in the records.
        directory: where the run keeps its files; sinks write below ``directory / "jaynes"``.
        loggers: the trainer's loggers, whatever their kind.
        resumed_step: the optimizer step a resumed run goes on from, None for a fresh run.
        resumed_directory: the ``directory`` of the run that is continued, if it is known.
    """

    run: str = ""
    directory: Path | None = None
    loggers: Sequence[Any] = ()
    resumed_step: int | None = None
    resumed_directory: Path | None = None


@runtime_checkable
class Sink(Protocol):
    """A destination of records.  Only the main process (rank 0) calls it.

    An exception raised in `write` or `close` is reported once and stops neither the training run
    nor the other sinks; one raised in `open` for a wrong argument stops the run at setup.
    """

    def open(self, context: RunContext) -> None:
        """Make ready, before the first record; wrong arguments raise here."""

    def write(self, records: Records, history: Records) -> None:
        """Take one snapshot; `history` holds all rows so far without their counts."""

    def close(self, start: Records, end: Records, history: Records) -> None:
        """Finish; `start` and `end` are the first and the last snapshot, with their counts."""
