"""Give the report of a run to trackers that keep files, when the run ends."""

import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jaynes_callbacks._extras import MissingExtraError
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.sinks.base import RunContext, sparing
from jaynes_callbacks.sinks.dataset import dataset_of
from jaynes_callbacks.sinks.trackers import Ability, Tracker

__all__ = ["FILE", "ReportSink"]

#: Name of the file that trackers get.
FILE = "report.html"
_WHAT = "report"

_log = logging.getLogger("jaynes_callbacks")


class ReportSink:
    """Writes the report of the run's dataset and hands it to trackers that keep files.

    Without such a tracker, without a dataset or without the extra ``report`` nothing is written.

    Example:
        >>> from jaynes_callbacks import EquilibriumMonitor
        >>> from jaynes_callbacks.sinks.dataset import DatasetSink
        >>> monitor = EquilibriumMonitor(sinks=[DatasetSink(), ReportSink()])
    """

    def __init__(self) -> None:
        self._trackers: list[Tracker] = []
        self._run_id = ""
        self._directory: Path | None = None

    def open(self, context: RunContext) -> None:
        """Take the trackers that keep files."""
        self._run_id, self._directory = context.run_id, context.directory
        self._trackers = context.trackers_with(Ability.ARTIFACTS, what=_WHAT)

    def write(self, records: Frame[Any], history: Sequence[Any]) -> None:
        """Do nothing: the report is of the whole run."""

    def close(self, start: Frame[Any], end: Frame[Any], history: Sequence[Any]) -> None:
        """Write the report when the main instrument ends: by then the dataset has every record.

        Raises:
            OSError, ValueError: if the dataset cannot be read.
        """
        if not end.schema.main or not self._trackers or self._directory is None:
            return
        if (dataset := dataset_of(self._run_id, self._directory)) is None:
            return
        try:
            # Here, not above: only now is the extra needed.
            from jaynes_callbacks.report import read_run, write_report
        except MissingExtraError as error:
            _log.info("%s", error)
            return
        with TemporaryDirectory() as folder:
            path = write_report([read_run(dataset)], Path(folder, FILE))
            sparing(self._trackers, lambda tracker: tracker.log_artifact(path), _WHAT)
