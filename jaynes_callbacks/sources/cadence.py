"""When a run is recorded, and when its activations are counted."""

from dataclasses import dataclass
from typing import Literal, get_args

from jaynes_callbacks.schedule import Schedule, every, never

__all__ = ["Cadence", "IotaFrom"]

IotaFrom = Literal["train", "validation"]


@dataclass(frozen=True)
class Cadence:
    """The schedules of a monitor.

    Attributes:
        epoch_is_due: whether a record is due once so many epochs are complete.
        batch_is_due: whether this batch's activations are counted.
        iota_from: whose forwards are counted.
    """

    epoch_is_due: Schedule
    batch_is_due: Schedule
    iota_from: IotaFrom
    _step_is_due: Schedule

    @classmethod
    def of(
        cls,
        every_n_epochs: int | None,
        every_n_steps: int | None,
        iota_every_n_batches: int,
        iota_from: IotaFrom,
    ) -> "Cadence":
        """Check the arguments that a user gave; None stands for never.

        Raises:
            ValueError: for an interval that is no positive integer, or an unknown `iota_from`.
        """
        if iota_from not in get_args(IotaFrom):
            raise ValueError(f"iota_from must be one of {get_args(IotaFrom)}, got {iota_from!r}")
        return cls(
            _schedule(every_n_epochs, "every_n_epochs"),
            every(iota_every_n_batches, what="iota_every_n_batches"),
            iota_from,
            _schedule(every_n_steps, "every_n_steps"),
        )

    def step_is_due(self, before: int, now: int) -> bool:
        """Whether a record fell due after step `before`, up to step `now`.

        Several optimizers step several times in one batch, so a due step may be jumped over.
        """
        return any(self._step_is_due(step) for step in range(before + 1, now + 1))


def _schedule(interval: int | None, what: str) -> Schedule:
    return never if interval is None else every(interval, what=what)
