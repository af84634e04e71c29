"""A loop as a host: its steps, its loggers, its folder, its ranks."""

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

from jaynes_callbacks.run.folders import logger_directory

__all__ = ["LoopHost", "is_distributed"]

#: Folder of runs that have no other place, a folder for each.
_RUNS = "jaynes_runs"
_log = logging.getLogger(__name__)


@dataclass
class LoopHost:
    """A loop, as a run sees it.

    Attributes:
        step: optimizer steps that are complete.
        epoch: epochs that were said to have ended.
        loggers: of the run.
        folder: of the run's files, where no logger has one.
        optimizers: kinds of the optimizers.
    """

    optimizers: Sequence[str] = ()
    step: int = 0
    epoch: int = 0
    loggers: Sequence[Any] = ()
    folder: Path | None = None

    is_last_batch = False

    @property
    def is_main(self) -> bool:
        """True in the process of rank 0, and without `torch.distributed`."""
        return not is_distributed() or dist.get_rank() == 0

    @property
    def directory(self) -> Path | None:
        """The first logger's folder, or that of the run which is resumed, or a new one."""
        of_loggers = (logger_directory(each) for each in self.loggers)
        found = next((folder for folder in of_loggers if folder is not None), self.folder)
        return found or Path(_RUNS, time.strftime("%Y-%m-%d_%H-%M-%S"))

    def decides_by(self, groups: tuple[str, ...]) -> bool:
        """Return False: whoever decides by numbers reads them when he wants them."""
        return False

    def describe(self) -> Mapping[str, Any]:
        """Return what is known of the loop."""
        world = dist.get_world_size() if is_distributed() else 1
        return {"trainer": {"optimizers": list(self.optimizers), "world_size": world}}

    def publish(self, numbers: Mapping[str, float], *, on_step: bool) -> None:
        """Do nothing: whoever decides by them reads `LoopWatch.numbers`."""

    def say(self, text: str) -> None:
        """Log a message, or write it to standard error where nobody has set up logging."""
        if _log.hasHandlers():
            _log.info("%s", text)
        else:
            sys.stderr.write(f"{text}\n")


def is_distributed() -> bool:
    """Tell whether there is a process group."""
    return dist.is_available() and dist.is_initialized()
