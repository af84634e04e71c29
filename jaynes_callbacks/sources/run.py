"""One fit under watch: its recorder, where it goes on from, what is said and handed on."""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from jaynes_callbacks.record import Records
from jaynes_callbacks.sink import RunContext
from jaynes_callbacks.sources.delivery import Delivery, run_directory
from jaynes_callbacks.sources.recorder import Recorder
from jaynes_callbacks.summary import aggregates

__all__ = ["WatchedRun"]


class WatchedRun:
    """Records of one run, from its first batch to its end, through interruptions.

    Args:
        recorder: of the run's model.
        delivery: where records go; it may hold those of an earlier fit of the same run.
        dirpath: where sinks write; by default the first logger's directory.

    Attributes:
        live: whether the fit goes on.
        recorded_step: of the last record, None before the first.
        numbers: the last record's aggregates.
        directory: where the sinks of the main process write.
    """

    def __init__(self, recorder: Recorder, delivery: Delivery, dirpath: Path | None) -> None:
        self.recorder = recorder
        self.live = True
        self.recorded_step: int | None = None
        self.numbers: dict[str, float] = {}
        self.directory: Path | None = None
        self._delivery = delivery
        self._dirpath = dirpath
        self._id = uuid4().hex
        self._announced = False
        self._said: set[str] = set()

    def begin(self, trainer: Any, before: dict[str, Any] | None) -> None:
        """Start with the untouched weights, or go on from the state of `before`."""
        if before is None:
            self.recorder.begin()
        else:
            # A checkpoint holds rank 0's counts alone: several ranks begin to count anew.
            alone: dict[str, Any] = {"counted": []} if trainer.world_size > 1 else {}
            self.recorder.load_state_dict({**before["recorder"], **alone})
            self.recorded_step, self._id = before["recorded_step"], before["id"]
            self.numbers = dict(before["numbers"])
        resumed = None if before is None else trainer.global_step
        self._delivery.begin(self._id, resumed)
        if not trainer.is_global_zero:
            return
        self.directory = self._dirpath or run_directory(trainer)
        self.recorder.run = self.directory.name if self.directory else ""
        earlier = before["directory"] if before else ""
        context = RunContext(
            run=self.recorder.run,
            directory=self.directory,
            loggers=tuple(trainer.loggers),
            resumed_step=resumed,
            resumed_directory=Path(earlier) if earlier else None,
            run_id=self._id,
        )
        self._delivery.open(context)

    def record(self, trainer: Any, step: int, epoch: int) -> None:
        """One snapshot, on every rank; a failure to measure is said and spares the training."""
        first, self.recorded_step = self.recorded_step is None, step
        self._sparing(
            "no equilibrium record", lambda: self._deliver(self.recorder.snapshot(step, epoch))
        )
        if first and trainer.is_global_zero:
            _logger(trainer).info("jaynes_callbacks: %s", self.recorder.coverage)

    def record_once(self, trainer: Any, epoch: int) -> None:
        """One snapshot, unless there is one of this step, or none of the untouched network."""
        if self.recorded_step not in (None, trainer.global_step):
            self.record(trainer, trainer.global_step, epoch)

    def announce(self, pl_module: Any, *, on_step: bool) -> None:
        """Make new aggregates known to EarlyStopping and ModelCheckpoint; sinks log them."""
        if self._announced or not self.numbers:
            return
        self._announced = True
        self._sparing(
            "aggregates are not logged",
            lambda: pl_module.log_dict(
                self.numbers, on_step=on_step, on_epoch=not on_step, logger=False, batch_size=1
            ),
        )

    def finish(self) -> None:
        """Let go of the model and let the sinks finish."""
        if self.live:
            self.live = False
            self.recorder.detach()
            self._delivery.close(self.recorder.start)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on: CPU tensors and builtins; nothing before a record."""
        if self.recorded_step is None:
            return {}
        return {
            "recorder": self.recorder.state_dict(),
            "recorded_step": self.recorded_step,
            "numbers": dict(self.numbers),
            "directory": str(self.directory or ""),
            "id": self._id,
        }

    def _deliver(self, records: Records) -> None:
        self._delivery.take(records)
        self.numbers |= aggregates(records)
        self._announced = False

    def _sparing(self, what: str, act: Callable[[], Any]) -> None:
        try:
            act()
        except Exception as error:
            if what not in self._said:
                warnings.warn(
                    f"{what}: {type(error).__name__}: {error}; training goes on", stacklevel=2
                )
            self._said.add(what)


def _logger(trainer: Any) -> logging.Logger:
    """A child of the trainer's own logger, which shows its messages where it shows those."""
    namespace, _, _ = type(trainer).__module__.partition(".trainer")
    return logging.getLogger(f"{namespace}.jaynes_callbacks")
