"""Write through a logger of Lightning's, or of anyone's that has ``log_metrics``.

Scalars go through the logger itself, whatever it writes to; all else goes to the tracker behind
its ``experiment``, if that is one that we know.
"""

import inspect
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaynes_callbacks.sinks.trackers.base import Ability, BinnedValues, Detached, Tracker
from jaynes_callbacks.sinks.trackers.mlflow_run import MlflowRun, metric_name
from jaynes_callbacks.sinks.trackers.summary_writer import SummaryWriterTracker
from jaynes_callbacks.sinks.trackers.wandb_run import WandbRun

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LoggerTracker"]


class LoggerTracker(Tracker):
    """A logger, and the tracker behind it.

    The logger's ``experiment`` is asked for when it is first needed: a logger may make its run or
    its files only then, and may fail to.

    Args:
        logger: the logger.
    """

    name = "other loggers"
    needs = {Ability.SCALARS: "log_metrics"}  # noqa: RUF012

    @classmethod
    def recognises(cls, target: Any) -> bool:
        """Tell whether an object is a logger, without asking it for anything."""
        missing = object()
        return any(
            inspect.getattr_static(target, name, missing) is not missing
            for name in ("log_metrics", "experiment")
        )

    @property
    def label(self) -> str:
        """The logger's class."""
        return type(self._target).__name__

    def can(self, ability: Ability) -> bool:
        """Tell whether the logger, or the tracker behind it, has an ability."""
        if ability is Ability.SCALARS:
            return super().can(ability)
        if ability is Ability.IMAGES and hasattr(self._target, "log_image"):
            return True
        return self._behind.can(ability)

    def log_scalars(self, numbers: Mapping[str, float], step: int) -> None:
        """Log metrics; of MLflow under names that it takes, or else Lightning cuts them."""
        names = {tag: metric_name(tag) for tag in numbers}
        if any(tag != name for tag, name in names.items()) and isinstance(self._behind, MlflowRun):
            numbers = {names[tag]: value for tag, value in numbers.items()}
        self._target.log_metrics(numbers, step=step)

    def log_histograms(self, histograms: Mapping[str, BinnedValues], step: int) -> None:
        """Show distributions in the tracker."""
        self._behind.log_histograms(histograms, step)

    def log_image(self, tag: str, pixels: Any, step: int) -> None:
        """Show an image, by the logger's own method if it has one."""
        if hasattr(self._target, "log_image"):
            self._target.log_image(key=tag, images=[pixels], step=step)
        else:
            self._behind.log_image(tag, pixels, step)

    def lay_out(self, charts: Mapping[str, Mapping[str, Any]]) -> None:
        """Lay out charts in the tracker."""
        self._behind.lay_out(charts)

    def enter(self, numbers: Mapping[str, float], step: int) -> None:
        """Enter final numbers beside the hyperparameters in the tracker."""
        self._behind.enter(numbers, step)

    def define_axes(self, groups: Iterable[str]) -> None:
        """Set the axes of tags in the tracker."""
        self._behind.define_axes(groups)

    def log_table(self, tag: str, table: "pd.DataFrame", step: int) -> None:
        """Show a table in the tracker."""
        self._behind.log_table(tag, table, step)

    def summarise(self, ends: Mapping[str, float], counts: Mapping[str, float], step: int) -> None:
        """Keep final numbers in the tracker."""
        self._behind.summarise(ends, counts, step)

    def log_artifact(self, path: Path) -> None:
        """Keep a copy of a file in the tracker."""
        self._behind.log_artifact(path)

    @cached_property
    def _behind(self) -> Tracker:
        """The tracker behind the logger; without any ability where it is none that we know."""
        logger = self._target
        experiment = getattr(logger, "experiment", None)
        if SummaryWriterTracker.recognises(experiment):
            return SummaryWriterTracker(experiment, owner=logger)
        if WandbRun.recognises(experiment):
            return WandbRun(experiment, log_metrics=getattr(logger, "log_metrics", None))
        run_id = getattr(logger, "run_id", None)
        if MlflowRun.recognises(experiment) and isinstance(run_id, str):
            return MlflowRun(experiment, run_id)
        return Detached(self.label)
