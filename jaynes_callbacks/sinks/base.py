"""Define a sink: a destination of records, such as a logger, a dataset or figures."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable
from uuid import uuid4

from jaynes_callbacks.instruments.record import SCHEMA
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import Schema

__all__ = ["Recalling", "RunContext", "Sink", "sparing"]

T = TypeVar("T")


@dataclass(frozen=True)
class RunContext:
    """A run, as far as sinks need to know it.

    Attributes:
        run: the run's name, as it stands in the records.
        directory: where the run keeps its files; sinks write to ``directory / "jaynes"`` and
            beside it.  The folder may not be there yet.
        loggers: the host's loggers, whatever their kind.
        resumed_step: the optimizer step a resumed run goes on from, None for a fresh run.
        resumed_directory: the ``directory`` of the run that is continued, if it is known.
        run_id: tells this run from every other, and is the same when it is resumed.
        describe: says what else is known of the run, for readers of its files: builtins
            by name.
        schemas: of the instruments whose frames will come.
    """

    run: str = ""
    directory: Path | None = None
    loggers: Sequence[Any] = ()
    resumed_step: int | None = None
    resumed_directory: Path | None = None
    run_id: str = field(default_factory=lambda: uuid4().hex)
    describe: Callable[[], Mapping[str, Any]] = dict
    schemas: Sequence[Schema[Any]] = (SCHEMA,)


@runtime_checkable
class Sink(Protocol):
    """A destination of records.  Only the main process (rank 0) calls it.

    `write` and `close` are called for each instrument; a frame's schema says which it is and what
    its columns are.  An exception raised in any method is reported once; the sink is then left out,
    and neither the training run nor the other sinks stop.  Wrong arguments belong into the sink's
    constructor.
    """

    def open(self, context: RunContext) -> None:
        """Make ready, before the first record."""

    def write(self, records: Frame[Any], history: Sequence[Any]) -> None:
        """Take the rows of one record; `history` has the instrument's so far, without counts."""

    def close(self, start: Frame[Any], end: Frame[Any], history: Sequence[Any]) -> None:
        """Finish; `start` and `end` are an instrument's first and last record, with counts."""


@runtime_checkable
class Recalling(Protocol):
    """A sink that can give a resumed run's records back; optional."""

    def recall(self, schema: Schema[Any]) -> Frame[Any]:
        """Return what an instrument has recorded up to the step that the run is resumed from.

        Without counts.  Called after `Sink.open`, before the first `Sink.write`.
        """


def sparing(items: Iterable[T], act: Callable[[T], None], what: str = "records") -> list[T]:
    """Let every item act; an exception costs that item its place, and nothing else.

    Args:
        items: sinks or loggers.
        act: what each is to do.
        what: it will get no more of this if it fails, as the warning says.

    Returns:
        The items that did not fail.  Each failure is said in a warning.
    """
    working = []
    for item in items:
        try:
            act(item)
            working.append(item)
        except Exception as error:
            warnings.warn(
                f"{type(item).__name__} gets no more {what} in this run: "
                f"{type(error).__name__}: {error}; training and all else go on, and "
                "monitor.history keeps every record",
                stacklevel=2,
            )
    return working
