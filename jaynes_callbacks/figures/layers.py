"""A network's streams as lines, rows and names: what the figures of all streams share."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from jaynes_callbacks.figures.look import Look, printable
from jaynes_callbacks.instruments.record import Kind, Record

__all__ = [
    "FEW",
    "HEADINGS",
    "Course",
    "layer_colors",
    "name_rows",
    "paths_by_kind",
    "stream_legend",
]

#: Rows of one stream, one for each step.
Course = list[Record]

HEADINGS: dict[Kind, str] = {"weight": "weights", "iota": "activations"}
#: Streams of a kind that are named each; of more, the first, the middle and the last.
FEW = 6
#: Longest name beside a row, and rows of which each is named.
_LONGEST, _ALL_NAMED = 24, 40


def paths_by_kind(history: Sequence[Record]) -> dict[Kind, list[Course]]:
    """The streams of each kind, weights before activations, in the network's order.

    >>> from jaynes_callbacks.instruments.record import Record
    >>> rows = [Record(name=name, step=step) for step in range(3) for name in "ab"]
    >>> [len(path) for path in paths_by_kind(rows)["weight"]]
    [3, 3]
    """
    streams: dict[Kind, dict[str, Course]] = {}
    for record in history:
        streams.setdefault(record.kind, {}).setdefault(record.name, []).append(record)
    return {kind: list(streams[kind].values()) for kind in HEADINGS if kind in streams}


def layer_colors(look: Look, number: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """RGBA of each of a number of layers, from the network's first to its last."""
    name, darkest, lightest = look.colormap
    colors: np.ndarray[Any, np.dtype[np.float64]] = colormaps[name](
        np.linspace(darkest, lightest, max(number, 2))
    )[:number]
    return colors


def stream_legend(
    streams: Sequence[Course], colors: np.ndarray[Any, np.dtype[np.float64]]
) -> list[tuple[Artist, str]]:
    """Entries of a kind's streams: each of a few; of many the first, the middle and the last."""
    last = len(streams) - 1
    named = range(len(streams)) if len(streams) <= FEW else (0, len(streams) // 2, last)
    return [
        (
            Line2D([], [], color=tuple(colors[number]), linewidth=1.6),
            f"{streams[number][0].kind}  {printable(streams[number][0].name)}",
        )
        for number in named
    ]


def name_rows(axes: Axes, records: Sequence[Record]) -> None:
    """Names at the y axis of rows 0, 1, …; of many rows, evenly spaced ones."""
    every = -(-len(records) // _ALL_NAMED)
    rows = range(0, len(records), every)
    axes.set_yticks(list(rows), [printable(records[row].name, _LONGEST) for row in rows])
