from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.run.arguments import default_sinks
from jaynes_callbacks.run.reporting import ReportSink
from jaynes_callbacks.sinks.base import RunContext, Sink
from jaynes_callbacks.sinks.dataset import DatasetSink
from jaynes_callbacks.sinks.figures import FigureSink
from jaynes_callbacks.sinks.trackers import BinnedValues


@pytest.fixture
def deliver() -> Callable[..., list[Sink]]:
    """Hand a run's records to loggers through the default sinks."""

    def hand_on(
        snapshots: Sequence[Records],
        *loggers: Any,
        directory: Path | None = None,
        between: Callable[[int], None] = lambda step: None,
    ) -> list[Sink]:
        wanted = (ReportSink, DatasetSink) if directory is None else ()
        sinks = [
            FigureSink(max_streams=0) if isinstance(sink, FigureSink) else sink
            for sink in default_sinks()
            if not isinstance(sink, wanted)
        ]
        context = RunContext(directory=directory, loggers=loggers)
        for sink in sinks:
            sink.open(context)
        history = Records()
        for records in snapshots:
            history += records.without_counts()
            for sink in sinks:
                sink.write(records, history)
            between(records[0].step)
        for sink in sinks:
            sink.close(snapshots[0], snapshots[-1], history)
        return sinks

    return hand_on


@pytest.fixture
def binned() -> BinnedValues:
    """Six values in three bins."""
    return BinnedValues(np.linspace(0.0, 1.0, 4), np.array([1, 2, 3]), 0.5, 0.1)
