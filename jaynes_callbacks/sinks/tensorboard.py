"""Give TensorBoard what it has beside curves: a chart per statistic over all layers, and HParams.

How both are written is told by `sinks.trackers.summary_writer`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import Column, Schema
from jaynes_callbacks.records.stream import in_order, kind_label
from jaynes_callbacks.sinks.base import RunContext, sparing
from jaynes_callbacks.sinks.loggers import MAX_STREAM_TAGS, curves_of, room_of
from jaynes_callbacks.sinks.trackers import Ability, Tracker

__all__ = ["TensorBoardSink"]

_WHAT = "charts and hyperparameters"


class TensorBoardSink:
    """Lays out TensorBoard's Custom Scalars, and enters the run's final gaps into its HParams.

    Args:
        max_stream_tags: as given to `LoggerSink`: which curves there are.
        hparams: whether to make an entry; if you make one of your own after training, say False.

    Example:
        >>> from jaynes_callbacks import EquilibriumMonitor
        >>> from jaynes_callbacks.sinks.loggers import LoggerSink
        >>> monitor = EquilibriumMonitor(sinks=[LoggerSink(), TensorBoardSink(hparams=False)])
    """

    def __init__(self, max_stream_tags: int = MAX_STREAM_TAGS, *, hparams: bool = True) -> None:
        self._max_stream_tags = max_stream_tags
        self._hparams = hparams
        self._trackers: list[Tracker] = []
        self._others: list[Schema[Any]] = []
        self._laid_out = False

    def open(self, context: RunContext) -> None:
        """Take the trackers that can lay out charts."""
        self._laid_out = False
        self._others = [schema for schema in context.schemas if not schema.main]
        self._trackers = context.trackers_with(Ability.CHARTS, what=_WHAT)

    def write(self, records: Frame[Any], history: Sequence[Any]) -> None:
        """Lay out the charts once the streams are known."""
        if len(records) and not self._laid_out:
            self._laid_out = True
            charts = layout(records, self._others, self._max_stream_tags)
            self._trackers = sparing(self._trackers, lambda tracker: tracker.lay_out(charts), _WHAT)

    def close(self, start: Frame[Any], end: Frame[Any], history: Sequence[Any]) -> None:
        """Enter the final gaps."""
        numbers = end.schema.aggregate(end) if end.schema.main and len(end) else {}
        if numbers and self._hparams:
            step = int(end["step"][0])
            sparing(self._trackers, lambda tracker: _enter(tracker, numbers, step), _WHAT)


def layout(
    records: Frame[Any],
    others: Sequence[Schema[Any]] = (),
    max_stream_tags: int = MAX_STREAM_TAGS,
) -> dict[str, dict[str, Any]]:
    """Return categories of charts, each with regular expressions of tags, for `add_custom_scalars`.

    Args:
        records: the first record.
        others: schemas of further instruments, whose streams are not known yet.
        max_stream_tags: as given to `LoggerSink`.

    Example:
        >>> from jaynes_callbacks.instruments.record import Record, Records
        >>> charts = layout(Records([Record(name="fc.weight")]))
        >>> charts["equilibrium: weights"]["gap to the lognormal, nats"]
        ['Multiline', ['(.*-)?gap_weight/.*']]
    """
    schema = records.schema
    kinds = in_order(records["kind"].tolist())
    curves = curves_of(schema, len(records), room_of(schema, max_stream_tags))
    overview = {
        "median and worst gap, nats": _multiline("equilibrium/.*/gap_.*"),
        **{
            f"share of {kind_label(kind)} in each band": _multiline(f"equilibrium/{kind}/share_.*")
            for kind in kinds
        },
    }
    of_kinds = {f"equilibrium: {kind_label(kind)}": _charts(curves, kind) for kind in kinds}
    of_others = {each.title or each.instrument: _charts(each.curves, "[^/]*") for each in others}
    return {"equilibrium: overview": overview, **of_kinds, **of_others}


def _charts(curves: Sequence[Column], kind: str) -> dict[str, Any]:
    """Return one chart for each curve, of all streams of the kinds that match."""
    return {each.chart_title: _multiline(f"{each.tag_of(kind)}/.*") for each in curves}


def _multiline(tags: str) -> list[Any]:
    """Return a chart of all tags that match, with or without a prefix of Lightning's."""
    return ["Multiline", [f"(.*-)?{tags}"]]


def _enter(tracker: Tracker, numbers: Mapping[str, float], step: int) -> None:
    if tracker.can(Ability.HYPERPARAMETERS):
        tracker.enter(numbers, step)
