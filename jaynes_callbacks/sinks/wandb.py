"""Give a Weights & Biases run what it has beside curves: a step axis, final records, a summary.

A logger takes part if its ``experiment`` has ``define_metric`` and a ``summary`` that can be
updated.  Lightning's logger puts the trainer's step into each row; W&B's own counter of rows is
never touched, for it may only grow, and a row behind it would be refused with a warning.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from jaynes_callbacks.instruments.verdict import VERDICTS
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import ColumnType, Schema
from jaynes_callbacks.sinks.base import RunContext, sparing
from jaynes_callbacks.sinks.loggers import able

__all__ = ["WandbSink", "final_numbers"]

_WHAT = "tables and summaries"
_STEP = "trainer/global_step"
#: Groups that are logged whatever is measured, as they begin.
_GROUPS = ("equilibrium/*", "ln_magnitude_*", "log_density_*", "paper_view_*")


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
        groups = [*_GROUPS, *(tag for schema in context.schemas for tag in _groups_of(schema))]
        self._loggers = sparing(
            able(context.loggers, _has_run, _WHAT),
            lambda logger: _define_axis(logger, dict.fromkeys(groups)),
            _WHAT,
        )

    def write(self, records: Frame[Any], history: Sequence[Any]) -> None:
        """Do nothing: curves and histograms come from their own sinks."""

    def close(self, start: Frame[Any], end: Frame[Any], history: Sequence[Any]) -> None:
        """Give the final records and numbers."""
        if len(end):
            sparing(self._loggers, lambda logger: _finish(logger, end), _WHAT)


def final_numbers(records: Frame[Any]) -> dict[str, float]:
    """Return the aggregates, and how many streams have each verdict where any was passed.

    These are under ``equilibrium/<kind>/verdict/<verdict>``.

    Example:
        >>> from jaynes_callbacks.instruments.record import Record, Records
        >>> numbers = final_numbers(Records([Record(gap=0.01, verdict="not emerging")]))
        >>> numbers["equilibrium/weight/verdict/not_emerging"]
        1
    """
    numbers = records.schema.aggregate(records)
    if not records.schema.main:
        return numbers
    for kind in dict.fromkeys(records["kind"].tolist()):
        found = Counter(records.select(kind=kind)["verdict"].tolist())
        for verdict in VERDICTS:
            tag = f"equilibrium/{kind}/verdict/{verdict.replace(' ', '_')}"
            numbers[tag] = found[verdict]
    return numbers


def _groups_of(schema: Schema[Any]) -> list[str]:
    """Return the beginnings of an instrument's tags, with W&B's wildcard."""
    own = [] if schema.main else [f"{schema.instrument}/*"]
    return own + [f"{column.tag_of('*').partition('*')[0]}*" for column in schema.curves]


def _has_run(logger: Any) -> bool:
    run = getattr(logger, "experiment", None)
    return hasattr(run, "define_metric") and hasattr(getattr(run, "summary", None), "update")


def _define_axis(logger: Any, groups: Iterable[str]) -> None:
    """Lightning does so for the runs that it makes, not for one that a user has made before."""
    run = logger.experiment
    run.define_metric(_STEP)
    for group in groups:
        run.define_metric(group, step_metric=_STEP, step_sync=True)


def _finish(logger: Any, end: Frame[Any]) -> None:
    logger.experiment.summary.update(final_numbers(end))
    if hasattr(logger, "log_table"):
        schema = end.schema
        table = end.to_pandas().drop(columns="run")
        for column in schema.columns:
            if column.type is ColumnType.SHAPE:
                table[column.name] = ["×".join(map(str, shape)) for shape in end[column.name]]
        group = "equilibrium" if schema.main else schema.instrument
        logger.log_table(key=f"{group}/records", dataframe=table, step=int(end["step"][0]))
