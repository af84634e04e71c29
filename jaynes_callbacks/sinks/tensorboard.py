"""Give TensorBoard what it has beside curves: a chart per statistic over all layers, and HParams.

A logger takes part if its ``experiment`` can lay out charts (``add_custom_scalars``) and knows its
directory.  Of a run's layouts TensorBoard heeds the last, so ours is not written where the run's
files hold one already; of its entries of hyperparameters it heeds the first.

Lightning's logger writes the entry when a run begins: if a module or a user gave hyperparameters,
with one metric, ``hp_metric``, a placeholder of -1 (``default_hp_metric=True``).  No column can be
added to it afterwards; so a placeholder that nobody has filled until the end gets the median gap.
With ``default_hp_metric=False`` Lightning writes none, and the entry is ours: all aggregates.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import Column, Schema
from jaynes_callbacks.records.stream import in_order, kind_label
from jaynes_callbacks.sinks.base import RunContext, sparing
from jaynes_callbacks.sinks.loggers import MAX_STREAM_TAGS, able, curves_of, room_of

__all__ = ["TensorBoardSink"]

_WHAT = "charts and hyperparameters"
_LAYOUT, _PLACEHOLDER = "custom_scalars__config__", "hp_metric"


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
        self._boards: list[_Board] = []
        self._others: list[Schema[Any]] = []
        self._laid_out = False

    def open(self, context: RunContext) -> None:
        """Take the loggers that write for TensorBoard."""
        self._laid_out = False
        self._others = [schema for schema in context.schemas if not schema.main]
        self._boards = [_Board(logger) for logger in able(context.loggers, _lays_out, _WHAT)]

    def write(self, records: Frame[Any], history: Sequence[Any]) -> None:
        """Lay out the charts once the streams are known."""
        if len(records) and not self._laid_out:
            self._laid_out = True
            charts = layout(records, self._others, self._max_stream_tags)
            self._boards = sparing(self._boards, lambda board: board.begin(charts), _WHAT)

    def close(self, start: Frame[Any], end: Frame[Any], history: Sequence[Any]) -> None:
        """Enter the final gaps."""
        numbers = end.schema.aggregate(end) if end.schema.main and len(end) else {}
        if numbers and self._hparams:
            step = int(end["step"][0])
            sparing(self._boards, lambda board: board.enter(numbers, step), _WHAT)


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


def _lays_out(logger: Any) -> bool:
    """Lightning's placeholder of a logger answers to every name, with None."""
    writer: Any = getattr(logger, "experiment", None)
    return hasattr(writer, "add_custom_scalars") and isinstance(writer.get_logdir(), str)


class _Board:
    """A logger's writer, and what its files hold already."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._placeholders = 0

    def begin(self, charts: dict[str, dict[str, Any]]) -> None:
        self._placeholders = self._held(_PLACEHOLDER)
        if not self._held(_LAYOUT):
            self._writer.add_custom_scalars(charts)

    def enter(self, numbers: Mapping[str, float], step: int) -> None:
        if self._placeholders:
            if self._placeholders == self._held(_PLACEHOLDER):
                self._writer.add_scalar(_PLACEHOLDER, _headline(numbers), global_step=step)
        elif given := dict(_flat(getattr(self._logger, "hparams", {}))):
            self._enter_all(given, numbers, step)

    def _enter_all(self, given: dict[str, Any], numbers: Mapping[str, float], step: int) -> None:
        # Not `SummaryWriter.add_hparams`: it puts the entry into a run of its own.
        from torch.utils.tensorboard.summary import hparams

        for summary in hparams(given, dict(numbers)):
            self._writer._get_file_writer().add_summary(summary, step)

    @property
    def _writer(self) -> Any:
        return self._logger.experiment

    def _held(self, text: str) -> int:
        """How often the run's files hold a text: cheaper than to parse a million events."""
        self._writer.flush()
        files = Path(self._writer.get_logdir()).glob("*tfevents*")
        return sum(_occurrences(file, text.encode()) for file in files if file.stat().st_size)


def _occurrences(file: Path, text: bytes) -> int:
    with file.open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as content:
        return sum(1 for _ in re.finditer(re.escape(text), content))


def _headline(numbers: Mapping[str, float]) -> float:
    """Return the median gap of the weights, or of activations where no weights are watched."""
    return next(value for tag, value in numbers.items() if tag.endswith("/gap_median"))


def _flat(values: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Nested hyperparameters as Lightning names them, ``optimizer/lr``; what is no number as text.

    >>> dict(_flat({"optimizer": {"lr": 0.1, "betas": [0.9, 0.99]}}))
    {'optimizer/lr': 0.1, 'optimizer/betas': '[0.9, 0.99]'}
    """
    for key, value in (values if isinstance(values, Mapping) else vars(values)).items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}/")
        else:
            yield f"{before}{key}", value if isinstance(value, int | float | str) else str(value)
