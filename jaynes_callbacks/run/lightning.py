"""Lightning as a host, and the callback's hooks.

`MonitorHooks` has the hooks and no base class, so that one body serves `lightning` and
`pytorch_lightning`; nothing here imports either.
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaynes_callbacks.instruments import DEFAULT, made
from jaynes_callbacks.instruments.base import Instrument
from jaynes_callbacks.instruments.tally import PAPER_BINS
from jaynes_callbacks.recorder import IOTA_VALUES_PER_CALL, MIN_SIZE, Recorder
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.stream import IOTA, WEIGHT
from jaynes_callbacks.run.run import IotaFrom, Listening, WatchedRun
from jaynes_callbacks.schedule import Cadence, Schedule, every
from jaynes_callbacks.sinks.base import Sink
from jaynes_callbacks.sinks.delivery import Delivery
from jaynes_callbacks.watch.selection import Coverage, Selection

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LightningHost", "MonitorHooks", "run_directory"]

_OF_TRAINER = ("max_epochs", "max_steps", "precision", "world_size", "accumulate_grad_batches")


class LightningHost:
    """A Lightning trainer and the module that it trains, as a run sees them."""

    def __init__(self, trainer: Any, pl_module: Any) -> None:
        self._trainer, self._module = trainer, pl_module
        # Lightning advises to average what is logged; of ours every rank has the same numbers.
        warnings.filterwarnings("ignore", r"It is recommended to use `self\.log\('equilibrium/")

    @property
    def step(self) -> int:
        """Optimizer steps that are complete."""
        return int(self._trainer.global_step)

    @property
    def epoch(self) -> int:
        """The present epoch, counted from 0."""
        return int(self._trainer.current_epoch)

    @property
    def is_last_batch(self) -> bool:
        """True if the present batch is the last of its epoch."""
        return bool(self._trainer.is_last_batch)

    @property
    def is_main(self) -> bool:
        """True in the process of rank 0."""
        return bool(self._trainer.is_global_zero)

    @property
    def directory(self) -> Path | None:
        """The first logger's directory, or else the trainer's own."""
        return run_directory(self._trainer)

    @property
    def loggers(self) -> Sequence[Any]:
        """The trainer's loggers."""
        return tuple(self._trainer.loggers)

    @property
    def decides_at_any_step(self) -> bool:
        """True if a callback or a scheduler monitors one of our aggregates."""
        deciders = [*self._trainer.callbacks, *self._trainer.lr_scheduler_configs]
        return any(
            str(getattr(each, "monitor", None)).startswith("equilibrium/") for each in deciders
        )

    def describe(self) -> Mapping[str, Any]:
        """Return the trainer's settings and the module's hyperparameters."""
        return {
            "trainer": {name: getattr(self._trainer, name, None) for name in _OF_TRAINER},
            "hyperparameters": dict(getattr(self._module, "hparams", {})),
        }

    def publish(self, numbers: Mapping[str, float], *, on_step: bool) -> None:
        """Log aggregates for `EarlyStopping`, `ModelCheckpoint` and schedulers; sinks log them."""
        self._module.log_dict(
            dict(numbers), on_step=on_step, on_epoch=not on_step, logger=False, batch_size=1
        )

    def say(self, text: str) -> None:
        """Log under the trainer's own logger, which shows messages where it shows its own."""
        namespace, _, _ = type(self._trainer).__module__.partition(".trainer")
        logging.getLogger(f"{namespace}.jaynes_callbacks").info("%s", text)


def run_directory(trainer: Any) -> Path | None:
    """Return the run's own folder; None if the trainer has no local one.

    That is the first logger's directory.  Where no logger keeps local files (MLflow with a server
    or a database) it is the folder of the trainer's root into which `ModelCheckpoint` writes too:
    by the name and the version of the first logger.
    """
    local = (_logger_directory(logger) for logger in trainer.loggers)
    if (directory := next((path for path in local if path is not None), None)) is not None:
        return directory
    if _is_remote(trainer.default_root_dir):
        return None
    return _of_run(trainer.default_root_dir, *trainer.loggers[:1])


def _logger_directory(logger: Any) -> Path | None:
    """Return ``log_dir``, or what ``save_dir``, name and version make; None without local files."""
    directory = _told(logger, "log_dir")
    if isinstance(directory, str | Path):
        return None if _is_remote(directory) else Path(directory)
    saved = _told(logger, "save_dir")
    if not isinstance(saved, str | Path) or _is_remote(saved):
        return None
    return _of_run(saved, logger)


def _of_run(root: str | Path, logger: Any = None) -> Path:
    """Return a logger's folder for the run below a root."""
    name, version = (_told(logger, each) for each in ("name", "version"))
    return Path(root, str(name or ""), str("" if version is None else version))


def _told(logger: Any, attribute: str) -> Any:
    """Return what a logger says of itself; None if it has no such attribute, or fails to say.

    Some make a run on a server when they are first asked.
    """
    try:
        return getattr(logger, attribute, None)
    except Exception as error:
        warnings.warn(
            f"{type(logger).__name__} does not tell its {attribute}: "
            f"{type(error).__name__}: {error}; training goes on",
            stacklevel=2,
        )
        return None


def _is_remote(path: str | Path) -> bool:
    return not path or "://" in str(path)


class _Left(NamedTuple):
    """Results of a run that a copy of its monitor keeps, without a hold on the run."""

    starts: Mapping[str, Frame[Any]]
    coverage: Coverage = Coverage((), ())
    directory: Path | None = None
    dataset: Path | None = None


class MonitorHooks:
    """Watches a LightningModule's fit; see `jaynes_callbacks.run.monitor.Monitor`."""

    def __init__(
        self,
        *,
        instruments: Sequence[str | Instrument[Any]] | str | Instrument[Any] = DEFAULT,
        kinds: Sequence[str] | str = (WEIGHT, IOTA),
        include: Sequence[str] | str = "*",
        exclude: Sequence[str] | str = (),
        min_size: int = MIN_SIZE,
        activations: Mapping[str, str | None] | Sequence[str] | str = (),
        every_n_epochs: int | Schedule | None = 1,
        every_n_steps: int | Schedule | None = None,
        iota_every_n_batches: int = 16,
        iota_values_per_call: int = IOTA_VALUES_PER_CALL,
        iota_groups: int | None = None,
        paper_bins: int = PAPER_BINS,
        iota_from: IotaFrom = "train",
        dirpath: str | Path | None = None,
        sinks: Sequence[Sink] = (),
    ) -> None:
        super().__init__()
        Selection.of(kinds, include, exclude, min_size, activations)
        of_magnitudes = {
            "iota_values_per_call": iota_values_per_call,
            "iota_groups": iota_groups,
            "paper_bins": paper_bins,
        }
        self._instruments = made(instruments, {"magnitudes": of_magnitudes})
        self._options: dict[str, Any] = {
            "kinds": kinds,
            "include": include,
            "exclude": exclude,
            "min_size": min_size,
            "activations": activations,
        }
        self._cadence = Cadence(every_n_epochs, every_n_steps)
        self._listening = Listening(
            every(iota_every_n_batches, what="iota_every_n_batches"), iota_from
        )
        self._dirpath = Path(dirpath) if dirpath is not None else None
        schemas = {each.name: each.schema for each in self._instruments}
        self._delivery = Delivery(sinks, schemas)
        self._main = next(iter(schemas))
        self._run: WatchedRun | None = None
        self._left = _Left({})
        self._resumed: dict[str, Any] = {}
        self._earlier: dict[str, Any] = {}

    # What a user reads ----------------------------------------------------------------------

    @property
    def history(self) -> "pd.DataFrame":
        """One row per (step, stream) of the first instrument, without the counts.

        The counts are in the dataset.  After resuming in another process the earlier rows come from
        the dataset (on the main process; without a dataset it begins where the run was resumed).
        """
        return self.history_of(self._main)

    def history_of(self, instrument: str) -> "pd.DataFrame":
        """Return the history of any of the monitor's instruments, by its name."""
        self._check(instrument)
        return self._delivery.histories[instrument].frame().to_pandas()

    @property
    def records(self) -> Frame[Any]:
        """The same as `Records`, which figures and tables take.

        The first and the last record of each stream have their counts; those of all are in the
        dataset.
        """
        return self.records_of(self._main)

    def records_of(self, instrument: str) -> Frame[Any]:
        """Return the records of any of the monitor's instruments, by its name."""
        self._check(instrument)
        return self._delivery.records_of(instrument, self._start_of(instrument))

    @property
    def start(self) -> Frame[Any]:
        """The first record of each stream, with its counts: the state before training."""
        self._deliver()
        return self._start_of(self._main)

    @property
    def end(self) -> Frame[Any]:
        """The last record, with its counts and the verdict on each stream."""
        self._deliver()
        return self._delivery.ends.get(self._main, self._nothing)

    @property
    def coverage(self) -> Coverage:
        """The streams that are watched and what is not, with the reasons."""
        return self._run.recorder.coverage if self._run else self._left.coverage

    @property
    def directory(self) -> Path | None:
        """Folder into which the sinks of the main process write, once training has begun."""
        return self._run.directory if self._run else self._left.directory

    @property
    def dataset(self) -> Path | None:
        """The run's dataset (``…/jaynes``) on the main process; None if none was written."""
        return self._run.dataset if self._run else self._left.dataset

    def __repr__(self) -> str:
        told = [", ".join(self._delivery.histories), self._delivery.summary(self._main)]
        told += [f"dataset {self.dataset}"] if self.dataset else []
        return f"<{type(self).__name__}: {'; '.join(told)}>"

    # Life cycle -----------------------------------------------------------------------------

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Find the streams; a wrong argument raises here."""
        recorder = Recorder(pl_module, instruments=deepcopy(self._instruments), **self._options)
        recorder.attach()
        self._earlier = self.state_dict() or self._earlier
        self._run = WatchedRun(
            recorder, self._delivery, self._cadence, self._listening, self._dirpath
        )

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Take the model as the start, or go on where a checkpoint or an earlier fit left off.

        Only here has the trainer restored its step.
        """
        if run := self._live:
            before = self._resumed or (self._earlier if trainer.global_step > 0 else {})
            self._resumed, self._earlier = {}, {}
            run.begin(LightningHost(trainer, pl_module), before or None)

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Listen to this batch if its activations are to be counted."""
        if run := self._live:
            run.batch_begins(batch_idx)

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        """Cease to listen: in this batch follow no forwards but repeated ones.

        With manual optimization there may be more, for another optimizer.
        """
        if (run := self._live) and pl_module.automatic_optimization:
            run.forward_ends()

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Show the gradients: Lightning has unscaled them, and clips after this hook."""
        if run := self._live:
            groups = optimizer.param_groups
            run.before_step([parameter for group in groups for parameter in group["params"]])

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Make the records that are due."""
        if run := self._live:
            run.batch_ends()

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Listen to validation if its activations are to be counted."""
        if (run := self._live) and not trainer.sanity_checking:
            run.validation_batch_begins(batch_idx)

    def on_validation_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Cease to listen."""
        if run := self._live:
            run.forward_ends()

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Make the record due by epoch, with validation's activations."""
        if (run := self._live) and not trainer.sanity_checking:
            run.validation_ends()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Make the record due by epoch, if neither the last batch nor validation has."""
        if run := self._live:
            run.epoch_ends()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Take the final record: in `on_fit_end` the process group may already be destroyed."""
        if run := self._live:
            run.training_ends()

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
        """Return what a resumed run needs to go on: CPU tensors and builtins only."""
        return self._run.state_dict() if self._run else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state for the fit that is about to begin."""
        self._resumed = dict(state_dict)

    # Copying --------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Copy what was recorded, but neither the model nor a hold on its fit."""
        run = self._run
        starts = (
            {name: run.recorder.start_of(name) for name in run.recorder.instruments}
            if run
            else self._left.starts
        )
        return {
            **self.__dict__,
            "_run": None,
            "_left": _Left(starts, self.coverage, self.directory, self.dataset),
            "_earlier": self.state_dict(),
        }

    # ----------------------------------------------------------------------------------------

    def _check(self, instrument: str) -> None:
        """Hand on what waits; raise KeyError for an instrument that the monitor does not have."""
        self._deliver()
        if instrument not in self._delivery.histories:
            raise KeyError(
                f"no instrument {instrument!r}; there are {list(self._delivery.histories)}"
            )

    def _start_of(self, instrument: str) -> Frame[Any]:
        if self._run:
            return self._run.recorder.start_of(instrument)
        nothing: Frame[Any] = Frame(self._delivery.histories[instrument].schema, {})
        return self._left.starts.get(instrument, nothing)

    @property
    def _nothing(self) -> Frame[Any]:
        return Frame(self._delivery.histories[self._main].schema, {})

    @property
    def _live(self) -> WatchedRun | None:
        return self._run if self._run and self._run.live else None

    def _deliver(self) -> None:
        """Hand on records by step that wait for others to be computed with."""
        if run := self._live:
            run.deliver()

    def _finish(self) -> None:
        if run := self._live:
            run.finish()
