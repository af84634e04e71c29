"""The Lightning adapter: when a Trainer's loop opens the watch, takes a snapshot, lets go.

`MonitorHooks` has the hooks and no base class, so that one body serves `lightning` and
`pytorch_lightning`; it imports neither.

A record due by epoch is taken at the end of the epoch's last batch (with activations of validation:
at the end of validation), before any other callback's `on_validation_end` or `on_train_epoch_end`:
early stopping and checkpoints see the figures of this epoch, wherever they stand in the list.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaynes_callbacks.instruments.record import Kind, Records
from jaynes_callbacks.recorder import IOTA_VALUES_PER_CALL, MIN_SIZE, Recorder
from jaynes_callbacks.run.cadence import Cadence, IotaFrom
from jaynes_callbacks.run.delivery import Delivery
from jaynes_callbacks.run.run import WatchedRun
from jaynes_callbacks.schedule import Schedule
from jaynes_callbacks.sinks.base import Sink
from jaynes_callbacks.watch.selection import Coverage, Selection

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MonitorHooks"]


class _Left(NamedTuple):
    """What is read of a run that a copy of its monitor does not follow."""

    start: Records = Records()
    coverage: Coverage = Coverage((), ())
    directory: Path | None = None


class MonitorHooks:
    """Watches a LightningModule's fit; see `jaynes_callbacks.run.monitor.Monitor`."""

    def __init__(
        self,
        *,
        kinds: Sequence[Kind] | Kind = ("weight", "iota"),
        include: Sequence[str] | str = "*",
        exclude: Sequence[str] | str = (),
        min_size: int = MIN_SIZE,
        every_n_epochs: int | Schedule | None = 1,
        every_n_steps: int | Schedule | None = None,
        iota_every_n_batches: int = 16,
        iota_values_per_call: int = IOTA_VALUES_PER_CALL,
        iota_groups: int = 0,
        iota_from: IotaFrom = "train",
        dirpath: str | Path | None = None,
        sinks: Sequence[Sink] = (),
    ) -> None:
        super().__init__()
        Selection.of(kinds, include, exclude, min_size)
        self._options: dict[str, Any] = {
            "kinds": kinds,
            "include": include,
            "exclude": exclude,
            "min_size": min_size,
            "iota_values_per_call": iota_values_per_call,
            "iota_groups": iota_groups,
        }
        self._cadence = Cadence.of(every_n_epochs, every_n_steps, iota_every_n_batches, iota_from)
        self._dirpath = Path(dirpath) if dirpath is not None else None
        self._delivery = Delivery(sinks)
        self._run: WatchedRun | None = None
        self._left = _Left()
        self._resumed: dict[str, Any] = {}
        self._earlier: dict[str, Any] = {}
        self._step = 0
        self._stride = 1
        self._epoch = 0

    # What a user reads ----------------------------------------------------------------------

    @property
    def history(self) -> "pd.DataFrame":
        """One row per (step, stream), without the counts; those are in the dataset.

        After resuming in another process the earlier rows come from the dataset (on the main
        process; without a dataset it begins where the run was resumed).
        """
        self._deliver()
        return self._delivery.history.to_pandas()

    @property
    def start(self) -> Records:
        """The first record of each stream, with its counts: the state before training."""
        self._deliver()
        return self._run.recorder.start if self._run else self._left.start

    @property
    def end(self) -> Records:
        """The last snapshot, with its counts and the verdict on each stream."""
        self._deliver()
        return self._delivery.end

    @property
    def coverage(self) -> Coverage:
        """What is watched and what is not, with the reasons."""
        return self._run.recorder.coverage if self._run else self._left.coverage

    @property
    def directory(self) -> Path | None:
        """Where the sinks of the main process write, once training has begun."""
        return self._run.directory if self._run else self._left.directory

    # Life cycle -----------------------------------------------------------------------------

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Find the streams; a wrong argument raises here."""
        recorder = Recorder(pl_module, **self._options)
        recorder.attach()
        self._earlier = self.state_dict() or self._earlier
        self._run = WatchedRun(recorder, self._delivery, self._dirpath)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Take the weights as the start, or go on where a checkpoint or an earlier fit left off.

        Only here has the trainer restored its step.
        """
        if run := self._live:
            self._step, self._stride = trainer.global_step, 1
            before = self._resumed or (self._earlier if self._step > 0 else {})
            self._resumed, self._earlier = {}, {}
            run.begin(trainer, before or None)

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Open the watch if this batch's activations are to be counted."""
        run = self._live
        if run is None or self._cadence.iota_from != "train":
            return
        # Every record gets at least one forward: the first after the record before.
        if (
            not run.recorder.has_listened
            or self._cadence.batch_is_due(batch_idx)
            or self._cadence.step_is_due(self._step, self._step + self._stride)
        ):
            run.recorder.open(one_forward=True)

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        """Close the watch: in this batch follow no forwards but repeated ones.

        With manual optimization there may be more, for another optimizer.
        """
        if pl_module.automatic_optimization:
            self._close_watch()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The record of the untouched network after its first forward, then those that are due."""
        self._close_watch()
        if not (run := self._live):
            return
        before, self._step = self._step, trainer.global_step
        self._stride = max(1, self._step - before)
        self._epoch = trainer.current_epoch
        if run.recorded_step is None:
            run.record(trainer, before, self._epoch)
        if self._cadence.step_is_due(before, self._step):
            run.record_once(trainer, self._epoch, may_wait=True)
        if trainer.is_last_batch and self._cadence.iota_from == "train":
            self._record_by_epoch(run, trainer)
        run.announce(pl_module, on_step=True)

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Open the watch if validation's activations are to be counted."""
        if (run := self._listening_to_validation(trainer)) and self._cadence.batch_is_due(
            batch_idx
        ):
            run.recorder.open(one_forward=True)

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

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """The record due by epoch, with validation's activations."""
        if (run := self._listening_to_validation(trainer)) and trainer.is_last_batch:
            self._record_by_epoch(run, trainer)
            run.announce(pl_module, on_step=False)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """The record due by epoch, if neither the last batch nor validation has brought it."""
        if run := self._live:
            self._record_by_epoch(run, trainer)
            run.announce(pl_module, on_step=False)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """The last state; here, for at the end of fit the ranks have lost each other."""
        if run := self._live:
            run.record_once(trainer, self._epoch)
            run.outcome = "finished"

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Let go of the model and let the sinks finish."""
        self._finish()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Let go of the model; what was recorded is kept."""
        if run := self._live:
            run.outcome = "interrupted"
        self._finish()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Let go of the model, however the fit ended."""
        self._finish()

    # Resuming -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on: CPU tensors and builtins only."""
        return self._run.state_dict() if self._run else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state for the fit that is about to begin."""
        self._resumed = dict(state_dict)

    # Copying --------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """A copy holds what was recorded, but neither the model nor a hold on its fit."""
        return {
            **self.__dict__,
            "_run": None,
            "_left": _Left(self.start, self.coverage, self.directory),
            "_earlier": self.state_dict(),
        }

    # ----------------------------------------------------------------------------------------

    @property
    def _live(self) -> WatchedRun | None:
        return self._run if self._run and self._run.live else None

    def _listening_to_validation(self, trainer: Any) -> WatchedRun | None:
        of_training = self._cadence.iota_from == "train"
        return None if of_training or trainer.sanity_checking else self._live

    def _record_by_epoch(self, run: WatchedRun, trainer: Any) -> None:
        if self._cadence.epoch_is_due(trainer.current_epoch + 1):
            run.record_once(trainer, trainer.current_epoch)

    def _deliver(self) -> None:
        """Records by step may be waiting for others to be fitted with."""
        if run := self._live:
            run.deliver()

    def _close_watch(self) -> None:
        if run := self._live:
            run.recorder.close()

    def _finish(self) -> None:
        if run := self._live:
            run.finish()
