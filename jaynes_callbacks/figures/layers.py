"""The streams of a network in figures: their rows in a table, their colours, names and legends."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from jaynes_callbacks.figures.curves import Array
from jaynes_callbacks.figures.look import Look, printable
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import Integers
from jaynes_callbacks.records.stream import WEIGHT, in_order

__all__ = [
    "FEW",
    "LineStyle",
    "StreamRows",
    "layer_colors",
    "name_rows",
    "over_steps",
    "real_column",
    "step_ticks",
    "stream_legend",
    "streams_by_kind",
]

#: A line style of matplotlib.
LineStyle = Literal["-", "--", ":", "-."]

#: Up to so many streams of a kind are all named; of more, the first, the middle and the last.
FEW = 6
#: Characters of the longest name beside a row; up to so many rows are all named.
_LONGEST, _ALL_NAMED = 24, 40


class StreamRows(NamedTuple):
    """Where the rows of one stream are in a frame.

    Attributes:
        kind: of the stream.
        name: of the stream.
        rows: indices of its rows, in the frame's order.
    """

    kind: str
    name: str
    rows: Integers


def real_column(frame: Frame[Any], name: str) -> Array:
    """Return a column of numbers; nan where a row has no entry.

    Raises:
        KeyError: if the frame's schema has no such column.
    """
    return np.ma.filled(np.ma.asarray(frame[name], dtype=np.float64), np.nan)


def streams_by_kind(frame: Frame[Any]) -> dict[str, list[StreamRows]]:
    """Return the streams of each kind in the network's order; weights come first.

    Returns:
        Streams by kind, as `records.stream.in_order` sorts kinds.  Of a frame without rows: no
        stream of weights, so that there are axes on which to say so.

    >>> from jaynes_callbacks.instruments.record import Record, Records
    >>> rows = [Record(name=name, step=step) for step in range(3) for name in "ab"]
    >>> [stream.rows.tolist() for stream in streams_by_kind(Records(rows))["weight"]]
    [[0, 2, 4], [1, 3, 5]]
    """
    rows = frame.rows_by_stream()
    streams: dict[str, list[StreamRows]] = {
        kind: [] for kind in in_order(kind for kind, _ in rows) or [WEIGHT]
    }
    for (kind, name), places in rows.items():
        streams[kind].append(StreamRows(kind, name, places))
    return streams


def over_steps(
    frame: Frame[Any], streams: Sequence[StreamRows], values: Array, steps: Integers
) -> Array:
    """Return a column as a table of streams and steps; nan where a stream has no row of a step.

    Args:
        frame: the rows.
        streams: one row of the table each.
        values: one of each row of the frame.
        steps: one column of the table each, sorted.

    Returns:
        Values ``[streams, steps]``.
    """
    place = np.searchsorted(steps, frame["step"])
    table = np.full((len(streams), len(steps)), np.nan)
    for number, stream in enumerate(streams):
        table[number, place[stream.rows]] = values[stream.rows]
    return table


def layer_colors(look: Look, number: int) -> Array:
    """Return the RGBA of each of a number of layers, from the network's first to its last."""
    name, darkest, lightest = look.colormap
    colors: Array = colormaps[name](np.linspace(darkest, lightest, max(number, 2)))[:number]
    return colors


def stream_legend(
    streams: Sequence[StreamRows], colors: Array, linestyle: LineStyle = "-"
) -> list[tuple[Artist, str]]:
    """Return the legend's entries of one kind's streams, see `FEW`."""
    last = len(streams) - 1
    named = range(len(streams)) if len(streams) <= FEW else (0, len(streams) // 2, last)
    return [
        (
            Line2D([], [], color=tuple(colors[number]), linewidth=1.6, linestyle=linestyle),
            f"{printable(streams[number].kind)}  {printable(streams[number].name)}",
        )
        for number in named
    ]


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Write names at the y axis of rows 0, 1, …; of many rows, at evenly spaced ones."""
    every = -(-len(names) // _ALL_NAMED)
    rows = range(0, len(names), every)
    axes.set_yticks(list(rows), [printable(names[row], _LONGEST) for row in rows])


def step_ticks(axes: Axes, steps: Integers) -> None:
    """Write some records' steps at an x axis of records, which need not be evenly spaced."""
    shown = np.unique(np.linspace(0, len(steps) - 1, min(6, len(steps))).round().astype(int))
    axes.set_xticks(shown, [f"{steps[number]:,}" for number in shown])
