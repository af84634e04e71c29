"""Trackers of a loop without a trainer, in the shape that sinks know from Lightning's loggers.

Sinks ask a logger for ``log_metrics``, and its ``experiment`` for what else it can do.
"""

import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "active_loggers",
    "as_loggers",
    "folder_of_run",
    "is_remote",
    "logger_directory",
]

_STEP = "trainer/global_step"


class _WriterLogger:
    """A TensorBoard ``SummaryWriter`` as a logger."""

    def __init__(self, writer: Any) -> None:
        self.experiment = writer

    @property
    def log_dir(self) -> str | None:
        """The writer's folder."""
        return getattr(self.experiment, "log_dir", None)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write a scalar for each number."""
        for tag, value in metrics.items():
            self.experiment.add_scalar(tag, value, global_step=step)


class _WandbLogger:
    """A Weights & Biases run as a logger.

    The step is a column of each row, as Lightning's logger has it: W&B's own counter may only grow,
    and belongs to the user's loop.
    """

    def __init__(self, run: Any) -> None:
        self.experiment = run

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log one row."""
        self.experiment.log({**metrics, _STEP: step})

    def log_image(self, key: str, images: Sequence[Any], step: int | None = None) -> None:
        """Log images, given as arrays of pixels."""
        import wandb  # loaded already, for there is a run

        self.log_metrics({key: [wandb.Image(image) for image in images]}, step)

    def log_table(self, key: str, dataframe: Any, step: int | None = None) -> None:
        """Log a table."""
        import wandb

        self.log_metrics({key: wandb.Table(dataframe=dataframe)}, step)


def as_loggers(trackers: Any) -> tuple[Any, ...]:
    """Return loggers for trackers that a user gave, one or a sequence of them.

    Args:
        trackers: ``SummaryWriter``, a W&B run, or whatever has ``log_metrics``, such as Lightning's
            loggers.

    Raises:
        TypeError: for anything else.
    """
    given = trackers if isinstance(trackers, list | tuple) else [trackers]
    return tuple(_as_logger(each) for each in given)


def active_loggers() -> tuple[Any, ...]:
    """Return a logger for each run that is active in a tracker; no tracker is imported for it."""
    run = getattr(sys.modules.get("wandb"), "run", None)
    return () if run is None else (_WandbLogger(run),)


def logger_directory(logger: Any) -> Path | None:
    """Return ``log_dir``, or what ``save_dir``, name and version make; None without local files."""
    directory = _told(logger, "log_dir")
    if isinstance(directory, str | Path):
        return None if is_remote(directory) else Path(directory)
    saved = _told(logger, "save_dir")
    if not isinstance(saved, str | Path) or is_remote(saved):
        return None
    return folder_of_run(saved, logger)


def folder_of_run(root: str | Path, logger: Any = None) -> Path:
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


def is_remote(path: str | Path) -> bool:
    """Tell whether a path is none of the local file system."""
    return not path or "://" in str(path)


def _as_logger(tracker: Any) -> Any:
    if hasattr(tracker, "log_metrics"):
        return tracker
    if hasattr(tracker, "add_scalar"):
        return _WriterLogger(tracker)
    if hasattr(tracker, "define_metric"):
        return _WandbLogger(tracker)
    raise TypeError(
        "loggers must be SummaryWriters, W&B runs or objects with log_metrics(metrics, step), "
        f"got {tracker!r}"
    )
