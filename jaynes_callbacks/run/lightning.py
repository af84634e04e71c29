"""Lightning as a host: its trainer, and the module that it trains.

Nothing here imports Lightning, so that one class serves `lightning` and `pytorch_lightning`.
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaynes_callbacks.instruments import KNOWN
from jaynes_callbacks.run.folders import folder_of_run, is_remote, logger_directory

__all__ = ["LightningHost", "run_directory"]

_OF_TRAINER = ("max_epochs", "max_steps", "precision", "world_size", "accumulate_grad_batches")


class LightningHost:
    """A Lightning trainer and the module that it trains, as a run sees them."""

    def __init__(self, trainer: Any, pl_module: Any) -> None:
        self._trainer, self._module = trainer, pl_module
        # Lightning advises to average what is logged; of ours every rank has the same numbers.
        ours = "|".join(("equilibrium", *KNOWN))
        warnings.filterwarnings("ignore", rf"It is recommended to use `self\.log\('({ours})/")

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

    def decides_by(self, groups: tuple[str, ...]) -> bool:
        """Tell whether a callback or a scheduler monitors one of our aggregates."""
        deciders = [*self._trainer.callbacks, *self._trainer.lr_scheduler_configs]
        return any(str(getattr(each, "monitor", None)).startswith(groups) for each in deciders)

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
    local = (logger_directory(logger) for logger in trainer.loggers)
    if (directory := next((path for path in local if path is not None), None)) is not None:
        return directory
    if is_remote(trainer.default_root_dir):
        return None
    return folder_of_run(trainer.default_root_dir, *trainer.loggers[:1])
