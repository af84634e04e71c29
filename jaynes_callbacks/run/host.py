"""Define a host: all that a run needs to know of the trainer around it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Host"]


class Host(Protocol):
    """A trainer, seen from a run under observation.

    Lightning, the Hugging Face Trainer and a plain loop with an optimizer are hosts.  A host
    answers these questions and calls `jaynes_callbacks.run.run.WatchedRun` as its loop goes on; it
    neither measures nor writes.
    """

    @property
    def step(self) -> int:
        """Optimizer steps that are complete."""

    @property
    def epoch(self) -> int:
        """The present epoch, counted from 0."""

    @property
    def is_last_batch(self) -> bool:
        """True if the present batch is the last of its epoch."""

    @property
    def is_main(self) -> bool:
        """True in the process that writes."""

    @property
    def directory(self) -> Path | None:
        """Folder of the run's files; None if it has no local one."""

    @property
    def loggers(self) -> Sequence[Any]:
        """The loggers or trackers of the run, whatever their kind."""

    def decides_by(self, groups: tuple[str, ...]) -> bool:
        """Tell whether something of the host's may decide at any step by numbers of `publish`.

        Args:
            groups: what the tags of these numbers begin with, such as ``equilibrium/``.
        """

    def describe(self) -> Mapping[str, Any]:
        """Return what is known of the run besides its records: builtins by name."""

    def publish(self, numbers: Mapping[str, float], *, on_step: bool) -> None:
        """Make aggregates known to what decides by them, such as early stopping."""

    def say(self, text: str) -> None:
        """Show a message where the host shows its own."""
