"""The columns of any instrument through training."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from textwrap import wrap

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from jaynes_callbacks.figures.curves import Array
from jaynes_callbacks.figures.inputs import Rows, as_frame
from jaynes_callbacks.figures.layers import (
    FEW,
    LineStyle,
    StreamRows,
    layer_colors,
    real_column,
    stream_legend,
    streams_by_kind,
)
from jaynes_callbacks.figures.look import (
    LIGHT,
    Look,
    blank,
    canvas,
    heading,
    legend,
    note,
    printable,
)
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import Column, Row

__all__ = ["columns_over_steps"]

#: Height of the axes of one column, in inches.
_HEIGHT = 1.8
#: Characters in a line of a label at the y axis.
_LONGEST_LABEL = 22
#: Positive values whose largest quotient exceeds this, two decades, have a logarithmic axis.
_DECADES = 100.0
#: Lines of the first kind of streams, the second, and so on.
_LINESTYLES: tuple[LineStyle, ...] = ("-", "--", ":", "-.")

_ByKind = Mapping[str, Sequence[StreamRows]]


def columns_over_steps(history: Rows, *, look: Look = LIGHT) -> Figure:
    """Draw every column that is a curve over optimizer steps, one row of axes for each column.

    A line is a stream.  Colours run from the network's first layer to its last, kinds of streams
    differ in their dashes, and circles mark each stream's first value.  An axis is logarithmic if
    its values are positive and span more than two decades.

    Args:
        history: records of many steps of any instrument, see `inputs.Rows`: their schema says
            which columns are curves (`Schema.curves`), and their labels and units.
        look: of the page, `LIGHT` or `DARK`.

    Example:
        >>> from jaynes_callbacks.instruments.gradients import GradientRecord
        >>> rows = [GradientRecord(kind="update", step=step) for step in range(3)]
        >>> [axes.get_ylabel() for axes in columns_over_steps(rows).axes]
        ['gap (nats)', 'gap best rival (nats)', 'q', '‖Δw‖/‖w‖']
    """
    frame = as_frame(history)
    schema = frame.schema
    columns = schema.curves if len(frame) else ()
    by_kind = streams_by_kind(frame)
    figure, rows = canvas(look, [_HEIGHT] * max(len(columns), 1))
    entries: list[tuple[Artist, str]] = []
    if columns:
        for axes, column in zip(rows, columns, strict=True):
            _draw(axes, look, frame, column, by_kind)
        for streams, linestyle in _with_linestyles(by_kind):
            entries += stream_legend(streams, layer_colors(look, len(streams)), linestyle)
    else:
        blank(rows[0], look, "no curves" if len(frame) else "no records")
    heading(rows[0], look, printable(schema.title or schema.instrument))
    rows[-1].set_xlabel("optimizer step")
    legend(figure, look, entries)
    return figure


def _with_linestyles(by_kind: _ByKind) -> list[tuple[Sequence[StreamRows], LineStyle]]:
    """Return the streams of each kind with the dashes of their lines."""
    return list(zip(by_kind.values(), cycle(_LINESTYLES), strict=False))


def _draw(axes: Axes, look: Look, frame: Frame[Row], column: Column, by_kind: _ByKind) -> None:
    """Draw one column of all streams."""
    axes.set_ylabel(_label(column))
    values = real_column(frame, column.name)
    finite = values[np.isfinite(values)]
    if not finite.size:
        note(axes, look, "no values")
        return
    if 0 < _DECADES * finite.min() < finite.max():
        axes.set_yscale("log")
    points = np.column_stack([frame["step"], np.where(np.isfinite(values), values, np.nan)])
    for streams, linestyle in _with_linestyles(by_kind):
        _streams(axes, look, [points[stream.rows] for stream in streams], linestyle)
    axes.autoscale_view()


def _streams(axes: Axes, look: Look, paths: Sequence[Array], linestyle: LineStyle) -> None:
    """Draw the streams of one kind as one artist, for there may be a thousand."""
    few = len(paths) <= FEW
    colors = layer_colors(look, len(paths))
    axes.add_collection(
        LineCollection(paths, colors=colors, linewidths=1.6 if few else 0.9, linestyles=linestyle)
    )
    first = [path[np.isfinite(path[:, 1])][:1] for path in paths]
    known = [len(start) > 0 for start in first]
    steps, values = np.concatenate(first).T
    edges = list(map(tuple, colors[known]))
    axes.scatter(steps, values, s=20, facecolors="none", edgecolors=edges)


def _label(column: Column) -> str:
    """Return the column's heading with its unit, in lines that fit beside the axes."""
    unit = f" ({column.unit})" if column.unit not in ("", "1") else ""
    return "\n".join(wrap(printable(f"{column.heading}{unit}"), _LONGEST_LABEL))
