"""What a Weights & Biases run gets beside curves: its step axis, the final records, a summary.

A logger takes part if its ``experiment`` has ``define_metric`` and a ``summary`` that can be
updated.  Lightning's logger puts the trainer's step into each row; W&B's own counter of rows is
never touched, for it may only grow, and a row behind it would be refused with a warning.
"""

from collections import Counter
from typing import Any

from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.instruments.summary import aggregates
from jaynes_callbacks.instruments.verdict import VERDICTS
from jaynes_callbacks.sinks.base import RunContext, sparing
from jaynes_callbacks.sinks.loggers import able

__all__ = ["WandbSink", "final_numbers"]

_WHAT = "tables and summaries"
_STEP = "trainer/global_step"
#: All groups that are logged, as they begin.
_GROUPS = ("equilibrium/*", "gap_*", "q_*", "ln_magnitude_*", "log_density_*", "paper_view_*")
_TABLE = "equilibrium/records"


class WandbSink:
    """Sets the step axis at the start; at the end gives the table of the final records.

    The run's summary gets the final aggregates and the number of streams of each verdict, so that
    a sweep can rank runs by them.

    Example:
        >>> from jaynes_callbacks import EquilibriumMonitor
        >>> from jaynes_callbacks.sinks.loggers import LoggerSink
        >>> monitor = EquilibriumMonitor(sinks=[WandbSink(), LoggerSink()])
    """

    def __init__(self) -> None:
        self._loggers: list[Any] = []

    def open(self, context: RunContext) -> None:
        """Take the loggers of W&B runs and define the axis of what will be logged."""
        self._loggers = sparing(able(context.loggers, _has_run, _WHAT), _define_axis, _WHAT)

    def write(self, records: Records, history: Records) -> None:
        """Nothing is to be done: curves and histograms come from their own sinks."""

    def close(self, start: Records, end: Records, history: Records) -> None:
        """Give the final records and numbers."""
        if end:
            sparing(self._loggers, lambda logger: _finish(logger, end), _WHAT)


def final_numbers(records: Records) -> dict[str, float]:
    """The aggregates, and ``equilibrium/<kind>/verdict/<verdict>``: how many streams have it.

    Example:
        >>> from jaynes_callbacks.instruments.record import Record
        >>> numbers = final_numbers(Records([Record(gap=0.01, verdict="not emerging")]))
        >>> numbers["equilibrium/weight/verdict/not_emerging"]
        1
    """
    numbers = aggregates(records)
    for kind in dict.fromkeys(record.kind for record in records):
        found = Counter(record.verdict for record in records.select(kind=kind))
        for verdict in VERDICTS:
            tag = f"equilibrium/{kind}/verdict/{verdict.replace(' ', '_')}"
            numbers[tag] = found[verdict]
    return numbers


def _has_run(logger: Any) -> bool:
    run = getattr(logger, "experiment", None)
    return hasattr(run, "define_metric") and hasattr(getattr(run, "summary", None), "update")


def _define_axis(logger: Any) -> None:
    """Lightning does so for the runs that it makes, not for one that a user has made before."""
    run = logger.experiment
    run.define_metric(_STEP)
    for group in _GROUPS:
        run.define_metric(group, step_metric=_STEP, step_sync=True)


def _finish(logger: Any, end: Records) -> None:
    logger.experiment.summary.update(final_numbers(end))
    if hasattr(logger, "log_table"):
        table = end.to_pandas().drop(columns="run")
        table["shape"] = ["×".join(map(str, record.shape)) for record in end]
        logger.log_table(key=_TABLE, dataframe=table, step=end[0].step)
