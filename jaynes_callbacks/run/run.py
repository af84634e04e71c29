"""One fit under watch: its recorder, where it goes on from, what is said and handed on."""

import logging
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.instruments.summary import Moment, aggregates
from jaynes_callbacks.recorder import Recorder
from jaynes_callbacks.run.delivery import Delivery, run_directory
from jaynes_callbacks.run.description import describe
from jaynes_callbacks.sinks.base import RunContext

__all__ = ["WatchedRun"]

#: Records that are fitted together, and the most streams of them: 32 KiB each are kept till then.
_GROUP, _GROUP_STREAMS = 16, 256


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
        outcome: ``running``, ``interrupted`` or ``finished``, as readers of its files are told.
    """

    def __init__(self, recorder: Recorder, delivery: Delivery, dirpath: Path | None) -> None:
        self.recorder = recorder
        self.live = True
        self.outcome = "running"
        self.recorded_step: int | None = None
        self.numbers: dict[str, float] = {}
        self.directory: Path | None = None
        self._delivery = delivery
        self._dirpath = dirpath
        self._id = uuid4().hex
        self._announced = False
        self._said: set[str] = set()
        self._counted: list[Moment] = []
        self._may_wait = True

    def begin(self, trainer: Any, before: dict[str, Any] | None) -> None:
        """Start with the untouched weights, or go on from the state of `before`."""
        # Lightning advises to average what is logged; of ours every rank has the same numbers.
        warnings.filterwarnings("ignore", r"It is recommended to use `self\.log\('equilibrium/")
        if before is None:
            self.recorder.begin()
        else:
            self.recorder.load_state_dict(before["recorder"])
            self.recorded_step, self._id = before["recorded_step"], before["id"]
            self.numbers = dict(before["numbers"])
        self._may_wait = not _listens(trainer)
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
            describe=partial(self._described, trainer),
        )
        self._delivery.open(context)

    def _described(self, trainer: Any) -> dict[str, Any]:
        return {"outcome": self.outcome, **describe(trainer, self.recorder)}

    def record(self, trainer: Any, step: int, epoch: int, *, may_wait: bool = False) -> None:
        """One snapshot, on every rank; a failure to measure is said and spares the training.

        Args:
            trainer: of the run.
            step: of the record.
            epoch: likewise.
            may_wait: it need not be fitted and handed on before others have been counted too.
        """
        first, self.recorded_step = self.recorded_step is None, step
        self._sparing(
            "no equilibrium record",
            lambda: self._counted.append(self.recorder.count(step, epoch)),
        )
        if first or not (may_wait and self._may_wait) or self._is_full():
            self.deliver()
        if first and trainer.is_global_zero:
            _logger(trainer).info("jaynes_callbacks: %s", self.recorder.coverage)

    def deliver(self) -> None:
        """Fit what has been counted, all at once, and hand the records on."""
        moments, self._counted = self._counted, []
        if not moments:
            return
        try:
            finished = self.recorder.summarise(moments)
        except Exception:
            # One by one, so that what cannot be fitted costs no other record.
            for moment in moments:
                self._sparing("no equilibrium record", partial(self._deliver_alone, moment))
        else:
            self._deliver(finished)

    def record_once(self, trainer: Any, epoch: int, *, may_wait: bool = False) -> None:
        """One snapshot, unless there is one of this step, or none of the untouched network."""
        if self.recorded_step not in (None, trainer.global_step):
            self.record(trainer, trainer.global_step, epoch, may_wait=may_wait)
        elif not may_wait:
            self.deliver()

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
            self.deliver()
            self._delivery.close(self.recorder.start)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on: CPU tensors and builtins; nothing before a record."""
        self.deliver()
        if self.recorded_step is None:
            return {}
        return {
            "recorder": self.recorder.state_dict(),
            "recorded_step": self.recorded_step,
            "numbers": dict(self.numbers),
            "directory": str(self.directory or ""),
            "id": self._id,
        }

    def _is_full(self) -> bool:
        """By the number of streams alone: an interrupted run groups its records as any other."""
        streams = max((len(moment.streams) for moment in self._counted), default=1)
        return len(self._counted) >= max(1, min(_GROUP, _GROUP_STREAMS // max(1, streams)))

    def _deliver_alone(self, moment: Moment) -> None:
        self._deliver(self.recorder.summarise([moment]))

    def _deliver(self, finished: list[Records]) -> None:
        for records in finished:
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


def _listens(trainer: Any) -> bool:
    """Whether something decides by our numbers at any step."""
    deciders = [*trainer.callbacks, *trainer.lr_scheduler_configs]
    return any(str(getattr(each, "monitor", None)).startswith("equilibrium/") for each in deciders)


def _logger(trainer: Any) -> logging.Logger:
    """A child of the trainer's own logger, which shows its messages where it shows those."""
    namespace, _, _ = type(trainer).__module__.partition(".trainer")
    return logging.getLogger(f"{namespace}.jaynes_callbacks")
