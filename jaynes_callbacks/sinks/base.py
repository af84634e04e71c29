"""Define a sink: a destination of records, such as a logger, a dataset or figures."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable
from uuid import uuid4

from jaynes_callbacks.instruments.record import SCHEMA
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import Schema
from jaynes_callbacks.sinks.trackers import Ability, Tracker, tracker_of

__all__ = ["Recalling", "RunContext", "Sink", "sparing"]

T = TypeVar("T")


@dataclass(frozen=True)
class RunContext:
    """A run, as far as sinks need to know it.

    Attributes:
        run: the run's name, as it stands in the records.
        directory: where the run keeps its files; sinks write to ``directory / "jaynes"`` and
            beside it.  The folder may not be there yet.
        loggers: the host's loggers and trackers: whatever `sinks.trackers.tracker_of` recognises.
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

    @cached_property
    def trackers(self) -> tuple[Tracker, ...]:
        """The trackers of the loggers, one object each for all sinks."""
        return tuple(found for each in self.loggers if (found := tracker_of(each)) is not None)

    def trackers_with(self, *abilities: Ability, what: str) -> list[Tracker]:
        """Return the trackers that have any of some abilities.

        One that fails when it is asked has none, and a warning says so.

        Args:
            abilities: any of which is enough.
            what: those that have one will get, as the warning says.
        """
        found: list[Tracker] = []

        def ask(tracker: Tracker) -> None:
            if any(tracker.can(ability) for ability in abilities):
                found.append(tracker)

        sparing(self.trackers, ask, what)
        return found


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
        items: sinks or trackers.
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
            name = item.label if isinstance(item, Tracker) else type(item).__name__
            warnings.warn(
                f"{name} gets no more {what} in this run: "
                f"{type(error).__name__}: {error}; training and all else go on, and "
                "monitor.history keeps every record",
                stacklevel=2,
            )
    return working
