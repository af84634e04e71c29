"""When a run is recorded, and when its activations are counted."""

from dataclasses import dataclass
from typing import Literal, get_args

from jaynes_callbacks.schedule import Schedule, every, schedule_of

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
        every_n_epochs: int | Schedule | None,
        every_n_steps: int | Schedule | None,
        iota_every_n_batches: int,
        iota_from: IotaFrom,
    ) -> "Cadence":
        """Check the arguments that a user gave; None stands for never.

        Raises:
            ValueError: for an interval that is no positive integer, a schedule that takes no step,
                or an unknown `iota_from`.
        """
        if iota_from not in get_args(IotaFrom):
            raise ValueError(f"iota_from must be one of {get_args(IotaFrom)}, got {iota_from!r}")
        return cls(
            schedule_of(every_n_epochs, what="every_n_epochs"),
            every(iota_every_n_batches, what="iota_every_n_batches"),
            iota_from,
            schedule_of(every_n_steps, what="every_n_steps"),
        )

    def step_is_due(self, before: int, now: int) -> bool:
        """Whether a record fell due after step `before`, up to step `now`.

        Several optimizers step several times in one batch, so a due step may be jumped over.
        """
        return any(self._step_is_due(step) for step in range(before + 1, now + 1))
