"""Recognise trackers: what a user or a trainer hands over, and runs that are active.

What is handed over is known by its methods, and no tracker's package is imported here: whoever
hands a run over has imported it.
"""

import sys
from collections.abc import Iterable
from typing import Any

from jaynes_callbacks.sinks.trackers.base import STEP, Ability, BinnedValues, Tracker
from jaynes_callbacks.sinks.trackers.lightning_logger import LoggerTracker
from jaynes_callbacks.sinks.trackers.mlflow_run import MlflowRun
from jaynes_callbacks.sinks.trackers.summary_writer import SummaryWriterTracker
from jaynes_callbacks.sinks.trackers.trackio_run import TrackioRun
from jaynes_callbacks.sinks.trackers.wandb_run import WandbRun

__all__ = [
    "STEP",
    "TRACKERS",
    "Ability",
    "BinnedValues",
    "LoggerTracker",
    "MlflowRun",
    "SummaryWriterTracker",
    "Tracker",
    "TrackioRun",
    "WandbRun",
    "active_trackers",
    "tracker_of",
    "trackers_of",
]

#: All that there are, in the order of the table in docs/loggers.md.
TRACKERS: tuple[type[Tracker], ...] = (
    SummaryWriterTracker,
    WandbRun,
    MlflowRun,
    TrackioRun,
    LoggerTracker,
)


def tracker_of(target: Any) -> Tracker | None:
    """Return the tracker of an object; None for one that cannot be recognised.

    Args:
        target: a logger of Lightning's or of that kind, a `SummaryWriter`, a `wandb.Run`, a run of
            trackio's, an `mlflow.ActiveRun`, a pair of an `mlflow.MlflowClient` and a run's id, or
            a `Tracker`.
    """
    if isinstance(target, Tracker):
        return target
    if LoggerTracker.recognises(target):
        return LoggerTracker(target)
    for kind in (SummaryWriterTracker, WandbRun, TrackioRun):
        if kind.recognises(target):
            return kind(target)
    match target:
        case (client, str(run_id)) if MlflowRun.recognises(client):
            return MlflowRun(client, run_id)
    return MlflowRun.of_run(target) if MlflowRun.recognises_run(target) else None


def trackers_of(targets: Iterable[Any]) -> list[Tracker]:
    """Return the tracker of each object; see `tracker_of`.

    Raises:
        TypeError: naming the object that cannot be recognised.
    """
    found = []
    for target in targets:
        if (tracker := tracker_of(target)) is None:
            raise TypeError(
                "expected a logger with log_metrics, a SummaryWriter, a wandb.Run, a run of "
                "trackio's, an mlflow.ActiveRun or a pair (MlflowClient, run id), "
                f"got {target!r}"
            )
        found.append(tracker)
    return found


def active_trackers() -> list[Tracker]:
    """Return the runs of W&B, trackio and MLflow that are active in this process.

    Packages that nobody has imported have none, and are not imported.
    """
    found: list[Tracker] = []
    if (run := getattr(sys.modules.get("wandb"), "run", None)) is not None:
        found.append(WandbRun(run))
    current = getattr(sys.modules.get("trackio.context_vars"), "current_run", None)
    if current is not None and (run := current.get()) is not None:
        found.append(TrackioRun(run))
    active_run = getattr(sys.modules.get("mlflow"), "active_run", None)
    if active_run is not None and (run := active_run()) is not None:
        found.append(MlflowRun.of_run(run))
    return found
