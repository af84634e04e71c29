"""Give trackers what they have beside curves: the step as an axis, final records, final numbers.

Of W&B the axis is set and the summary filled, MLflow and trackio get the same table and numbers in
their own forms; see `sinks.trackers`.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaynes_callbacks.instruments.verdict import VERDICTS
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import ColumnType, Schema
from jaynes_callbacks.sinks.base import RunContext, sparing
from jaynes_callbacks.sinks.trackers import Ability, Tracker

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SummarySink", "final_numbers"]

_WHAT = "tables and summaries"
#: Groups that are logged whatever is measured, as they begin.
_GROUPS = ("equilibrium/*", "ln_magnitude_*", "log_density_*", "paper_view_*")


class SummarySink:
    """Sets the step axis at the start; at the end gives the final records and numbers.

    The numbers are the final aggregates and the number of streams of each verdict, so that a sweep
    can rank runs by them.

    Example:
        >>> from jaynes_callbacks import EquilibriumMonitor
        >>> from jaynes_callbacks.sinks.loggers import LoggerSink
        >>> monitor = EquilibriumMonitor(sinks=[SummarySink(), LoggerSink()])
    """

    def __init__(self) -> None:
        self._trackers: list[Tracker] = []

    def open(self, context: RunContext) -> None:
        """Take the trackers of tables and summaries, and set the axis of what will be logged."""
        groups = [*_GROUPS, *(tag for schema in context.schemas for tag in _groups_of(schema))]
        trackers = context.trackers_with(Ability.AXES, Ability.TABLE, Ability.SUMMARY, what=_WHAT)

        def define(tracker: Tracker) -> None:
            if tracker.can(Ability.AXES):
                tracker.define_axes(dict.fromkeys(groups))

        self._trackers = sparing(trackers, define, _WHAT)

    def write(self, records: Frame[Any], history: Sequence[Any]) -> None:
        """Do nothing: curves and histograms come from their own sinks."""

    def close(self, start: Frame[Any], end: Frame[Any], history: Sequence[Any]) -> None:
        """Give the final records and numbers."""
        if not len(end) or not self._trackers:
            return
        ends, counts = end.schema.aggregate(end), _verdict_counts(end)
        table, step = _final_table(end), int(end["step"][0])
        group = end.schema.overview

        def finish(tracker: Tracker) -> None:
            if tracker.can(Ability.SUMMARY):
                tracker.summarise(ends, counts, step)
            if tracker.can(Ability.TABLE):
                tracker.log_table(f"{group}/records", table, step)

        self._trackers = sparing(self._trackers, finish, _WHAT)


def final_numbers(records: Frame[Any]) -> dict[str, float]:
    """Return the aggregates, and how many streams have each verdict where any was passed.

    These are under ``equilibrium/<kind>/verdict/<verdict>``.

    Example:
        >>> from jaynes_callbacks.instruments.record import Record, Records
        >>> numbers = final_numbers(Records([Record(gap=0.01, verdict="not emerging")]))
        >>> numbers["equilibrium/weight/verdict/not_emerging"]
        1
    """
    return records.schema.aggregate(records) | _verdict_counts(records)


def _verdict_counts(records: Frame[Any]) -> dict[str, int]:
    """Return how many streams of each kind have each verdict; nothing of other instruments."""
    numbers: dict[str, int] = {}
    if not records.schema.main:
        return numbers
    for kind in dict.fromkeys(records["kind"].tolist()):
        found = Counter(records.select(kind=kind)["verdict"].tolist())
        for verdict in VERDICTS:
            numbers[f"equilibrium/{kind}/verdict/{verdict.replace(' ', '_')}"] = found[verdict]
    return numbers


def _groups_of(schema: Schema[Any]) -> list[str]:
    """Return the beginnings of an instrument's tags, with W&B's wildcard."""
    own = [] if schema.main else [f"{schema.instrument}/*"]
    return own + [f"{column.tag_of('*').partition('*')[0]}*" for column in schema.curves]


def _final_table(end: Frame[Any]) -> "pd.DataFrame":
    """Return the rows of a record without the run's name, shapes as text."""
    table = end.to_pandas().drop(columns="run")
    for column in end.schema.columns:
        if column.type is ColumnType.SHAPE:
            table[column.name] = ["×".join(map(str, shape)) for shape in end[column.name]]
    return table
