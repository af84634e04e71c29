"""The parts of a table of streams, whatever was measured: headings, cells, rows and sparklines."""

import math
from typing import NamedTuple

import numpy as np

from jaynes_callbacks.records.schema import Array

__all__ = [
    "SPARK_HEIGHT",
    "Cell",
    "Heading",
    "StreamRow",
    "sort_key",
    "sparkline",
]

#: Width and height of the box that a sparkline is drawn in.
_WIDTH, SPARK_HEIGHT = 110, 24
#: Most points of a sparkline.
_POINTS = 60


class Heading(NamedTuple):
    """The heading of a column.

    Attributes:
        text: as it is printed.
        meaning: the tooltip.
    """

    text: str
    meaning: str


class Cell(NamedTuple):
    """One cell of a table.

    Attributes:
        text: as it is printed.
        key: what the column is sorted by; rows with an empty key come last.
        is_number: whether the text is a figure, which is not broken into lines.
        spark: points of the sparkline below the text; empty for none.
    """

    text: str
    key: float | str
    is_number: bool = False
    spark: str = ""


class StreamRow(NamedTuple):
    """One stream's row of a table.

    Attributes:
        number: place of the stream in the network's order.
        kind: of the stream, such as ``weight``.
        name: of the stream.
        cells: one for each column, the first being the stream's name.
        outcome: what the last cell says, as a word to filter by; None where nothing is judged.
        status: the reason why figures are missing; None where the table has no such column.
        words: what the outcome rests on, in a sentence.
    """

    number: int
    kind: str
    name: str
    cells: tuple[Cell, ...]
    outcome: str | None = None
    status: str | None = None
    words: str = ""


def sort_key(value: float) -> float | str:
    """Return a figure to sort by; an unknown one becomes empty, which is sorted last."""
    return value if math.isfinite(value) else ""


def sparkline(steps: Array, heights: Array) -> str:
    """Return the points of a polyline, thinned to at most 60, of which the last is kept.

    Args:
        steps: in increasing order.
        heights: from the top of the box, one for each step.

    Returns:
        ``x,y`` pairs for SVG's ``points``; empty if they span no two steps.

    >>> sparkline(np.array([0, 5, 10]), np.array([0.0, 12.0, 24.0]))
    '0,0.0 55,12.0 110,24.0'
    """
    stride = max(1, -(-len(steps) // _POINTS))
    kept = np.arange(len(steps) - 1, -1, -stride)[::-1]
    steps, heights = steps[kept], heights[kept]
    if len(steps) < 2 or steps[0] == steps[-1]:
        return ""
    across = _WIDTH * (steps - steps[0]) / (steps[-1] - steps[0])
    return " ".join(
        f"{x:.0f},{y:.1f}" for x, y in zip(across.tolist(), heights.tolist(), strict=True)
    )
