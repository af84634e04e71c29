"""The Lightning adapter: when a Trainer's loop opens the watch, takes a snapshot, lets go.

`MonitorHooks` has the hooks and no base class, so that one body serves `lightning` and
`pytorch_lightning`; it imports neither.
"""

import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from jaynes_callbacks.record import Kind, Records
from jaynes_callbacks.schedule import Schedule, every, never
from jaynes_callbacks.sink import RunContext, Sink
from jaynes_callbacks.sources.delivery import Delivery
from jaynes_callbacks.sources.recorder import IOTA_VALUES_PER_CALL, MIN_SIZE, Recorder
from jaynes_callbacks.sources.selection import Coverage, Selection
from jaynes_callbacks.summary import aggregates

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["IotaFrom", "MonitorHooks"]

IotaFrom = Literal["train", "validation"]

_log = logging.getLogger("jaynes_callbacks")


class MonitorHooks:
    """Watches a LightningModule's fit; see `jaynes_callbacks.monitor.Monitor`."""

    def __init__(
        self,
        *,
        kinds: Sequence[Kind] | Kind = ("weight", "iota"),
        include: Sequence[str] | str = "*",
        exclude: Sequence[str] | str = (),
        min_size: int = MIN_SIZE,
        every_n_epochs: int | None = 1,
        every_n_steps: int | None = None,
        iota_every_n_batches: int = 16,
        iota_values_per_call: int = IOTA_VALUES_PER_CALL,
        iota_from: IotaFrom = "train",
        dirpath: str | Path | None = None,
        sinks: Sequence[Sink] = (),
    ) -> None:
        super().__init__()
        if iota_from not in get_args(IotaFrom):
            raise ValueError(f"iota_from must be one of {get_args(IotaFrom)}, got {iota_from!r}")
        Selection.of(kinds, include, exclude, min_size)
        self._options: dict[str, Any] = {
            "kinds": kinds,
            "include": include,
            "exclude": exclude,
            "min_size": min_size,
            "iota_values_per_call": iota_values_per_call,
        }
        self._epoch_is_due = _schedule(every_n_epochs, "every_n_epochs")
        self._step_is_due = _schedule(every_n_steps, "every_n_steps")
        self._batch_is_due = every(iota_every_n_batches, what="iota_every_n_batches")
        self._iota_from = iota_from
        self._dirpath = Path(dirpath) if dirpath is not None else None
        self._delivery = Delivery(sinks)
        self._recorder: Recorder | None = None
        self._recorded_step: int | None = None
        self._step = 0
        self._resumed: dict[str, Any] = {}
        self._directory: Path | None = None

    # What a user reads ----------------------------------------------------------------------

    @property
    def history(self) -> "pd.DataFrame":
        """One row per (step, stream), without the counts; those are in the dataset."""
        return self._delivery.history.to_pandas()

    @property
    def start(self) -> Records:
        """The first record of each stream, with its counts: the state before training."""
        return self._recorder.start if self._recorder else Records()

    @property
    def end(self) -> Records:
        """The last snapshot, with its counts and the verdict on each stream."""
        return self._delivery.end

    @property
    def coverage(self) -> Coverage:
        """What is watched and what is not, with the reasons."""
        return self._recorder.coverage if self._recorder else Coverage((), ())

    @property
    def directory(self) -> Path | None:
        """Where the sinks of the main process write, once a fit has begun."""
        return self._directory

    # Life cycle -----------------------------------------------------------------------------

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Find the streams and put the hooks on; a wrong argument raises here."""
        recorder = Recorder(pl_module, **self._options)
        recorder.attach()
        self._restore(recorder, trainer)
        self._recorder = recorder
        if trainer.is_global_zero:
            self._directory = self._dirpath or _directory(trainer)
            recorder.run = self._directory.name
            self._delivery.open(self._context(trainer))
            _log.info("jaynes_callbacks: %s", recorder.coverage)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Count the weights before the first update."""
        if self._recorder and self._recorded_step is None:
            self._recorder.hold_weights()

    def on_train_batch_start(
        self,
        trainer: Any,
        pl_module: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Open the watch if this batch's activations are to be counted."""
        if not self._recorder or self._iota_from != "train":
            return
        # Every record gets at least one forward: the first after the record before.
        if (
            not self._recorder.has_activations
            or self._batch_is_due(batch_idx)
            or self._step_is_due(trainer.global_step + 1)
        ):
            self._recorder.open()

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        """Close the watch: a checkpointed forward runs again inside backward."""
        self._close_watch()

    def on_train_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """The record of the untouched network after its first forward, then those due by step."""
        self._close_watch()
        step = self._step = trainer.global_step
        if self._recorded_step is None:
            self._record(trainer, step=0)
            self._log_aggregates(pl_module, on_step=True)
        if step != self._recorded_step and step > 0 and self._step_is_due(step):
            self._record(trainer, step)
            self._log_aggregates(pl_module, on_step=True)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """The record due by epoch."""
        if self._epoch_is_due(trainer.current_epoch + 1):
            self._record_once(trainer)
        self._log_aggregates(pl_module, on_step=False)

    def on_validation_batch_start(
        self,
        trainer: Any,
        pl_module: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Open the watch if validation's activations are to be counted."""
        if (
            self._recorder
            and self._iota_from == "validation"
            and not trainer.sanity_checking
            and self._batch_is_due(batch_idx)
        ):
            self._recorder.open()

    def on_validation_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Close the watch."""
        self._close_watch()

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """The last state, and the end of the records."""
        if self._recorded_step is not None:
            self._record_once(trainer)
        self._finish(trainer)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Let go of the model; what was recorded is kept."""
        self._finish(trainer)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Let go of the model, however the fit ended."""
        if self._recorder:
            self._recorder.detach()

    # Resuming -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on: CPU tensors and builtins only."""
        if not self._recorder or self._recorded_step is None:
            return {}
        return {
            "recorder": self._recorder.state_dict(),
            "recorded_step": self._recorded_step,
            "step": self._step,
            "directory": str(self._directory or ""),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state for the fit that is about to begin."""
        self._resumed = dict(state_dict)

    # Recording ------------------------------------------------------------------------------

    def _restore(self, recorder: Recorder, trainer: Any) -> None:
        """Go on where a checkpoint, or an earlier fit of this monitor, left off."""
        if self._resumed:
            recorder.load_state_dict(self._resumed["recorder"])
            self._recorded_step = self._resumed["recorded_step"]
            self._step = self._resumed["step"]
        elif self._recorder and trainer.global_step > 0:
            recorder.load_state_dict(self._recorder.state_dict())
        else:
            self._recorded_step = None
            self._delivery = Delivery(self._delivery.sinks)

    def _context(self, trainer: Any) -> RunContext:
        assert self._recorder is not None
        before = self._resumed.pop("directory", "")
        resumed = self._recorded_step is not None
        return RunContext(
            run=self._recorder.run,
            directory=self._directory,
            loggers=tuple(trainer.loggers),
            resumed_step=self._step if resumed else None,
            resumed_directory=Path(before) if before else None,
        )

    def _record_once(self, trainer: Any) -> None:
        if self._recorder and self._recorded_step != trainer.global_step:
            self._record(trainer, trainer.global_step)

    def _record(self, trainer: Any, step: int) -> None:
        """One snapshot; a failure to measure is said and spares the training."""
        assert self._recorder is not None
        self._recorded_step = step
        try:
            records = self._recorder.snapshot(step=step, epoch=trainer.current_epoch)
        except Exception as error:
            warnings.warn(
                f"no equilibrium record at step {step}: {type(error).__name__}: {error}; "
                "training goes on",
                stacklevel=2,
            )
            return
        if trainer.is_global_zero:
            self._delivery.write(records)
        else:
            self._delivery.end = records

    def _log_aggregates(self, pl_module: Any, *, on_step: bool) -> None:
        """Make the aggregates known to EarlyStopping and ModelCheckpoint; sinks log them."""
        numbers = {k: v for k, v in aggregates(self.end).items() if math.isfinite(v)}
        if numbers:
            pl_module.log_dict(
                numbers, on_step=on_step, on_epoch=not on_step, logger=False, batch_size=1
            )

    def _close_watch(self) -> None:
        if self._recorder:
            self._recorder.close()

    def _finish(self, trainer: Any) -> None:
        if not self._recorder:
            return
        self._recorder.detach()
        if trainer.is_global_zero:
            self._delivery.close(self.start)


def _schedule(interval: int | None, what: str) -> Schedule:
    return never if interval is None else every(interval, what=what)


def _directory(trainer: Any) -> Path:
    """The first logger's directory, or the trainer's own."""
    for logger in trainer.loggers:
        own = getattr(logger, "log_dir", None)
        if own:
            return Path(own)
        if getattr(logger, "save_dir", None):
            return Path(logger.save_dir) / str(logger.name) / str(logger.version)
    return Path(trainer.default_root_dir)
