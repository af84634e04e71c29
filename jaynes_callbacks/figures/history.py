"""The gap of every stream through training."""

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from jaynes_callbacks.figures.curves import Array
from jaynes_callbacks.figures.inputs import Rows, as_frame
from jaynes_callbacks.figures.layers import (
    FEW,
    StreamRows,
    layer_colors,
    over_steps,
    real_column,
    stream_legend,
    streams_by_kind,
)
from jaynes_callbacks.figures.look import LIGHT, Look, blank, canvas, heading, legend, printable
from jaynes_callbacks.instruments.record import BANDS, Record
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.stream import kind_label

__all__ = ["gap_over_steps"]

#: Gaps below this are drawn at it: the logarithmic axis has no zero.
FLOOR = 1e-4


def gap_over_steps(history: Rows, *, look: Look = LIGHT) -> Figure:
    """Draw the gap of every stream over optimizer steps, one row of axes for each kind.

    Colours run from the network's first layer to its last; circles mark the start; dashed lines
    are the limits of `instruments.record.BANDS`, of which 0.02 decides the verdict.  The lower a
    gap, the nearer is the distribution to a lognormal, as it is at equilibrium.  Of more than
    six streams the median is drawn as a dashed line.

    Args:
        history: records of many steps, see `inputs.Rows`; counts are not needed.
        look: of the page, `LIGHT` or `DARK`.

    Example:
        >>> from jaynes_callbacks.instruments.record import Record
        >>> rows = [Record(name="fc.weight", step=step, gap=0.2 / (step + 1)) for step in range(3)]
        >>> len(gap_over_steps(rows).axes)
        1
    """
    frame = as_frame(history)
    gaps = real_column(frame, "gap")
    by_kind = streams_by_kind(frame)
    figure, rows = canvas(look, [2.9] if len(by_kind) == 1 else [2.4] * len(by_kind))
    entries: list[tuple[Artist, str]] = []
    low, high = _limits(gaps)
    for axes, (kind, streams) in zip(rows, by_kind.items(), strict=True):
        entries += _streams(axes, look, frame, gaps, streams)
        _bands(axes, look, low, high)
        axes.set_ylabel(f"gap of {printable(kind_label(kind))} (nats)")
    heading(rows[0], look, "Arbitrage gap: distance to the best lognormal")
    rows[-1].set_xlabel("optimizer step")
    legend(figure, look, entries)
    return figure


def _streams(
    axes: Axes, look: Look, frame: Frame[Record], gaps: Array, streams: Sequence[StreamRows]
) -> list[tuple[Artist, str]]:
    """Draw all lines as one artist, for there may be a thousand; return the legend's entries."""
    if not streams:
        blank(axes, look, "no records")
        return []
    colors = layer_colors(look, len(streams))
    drawn = np.column_stack([frame["step"], np.maximum(gaps, FLOOR)])
    few = len(streams) <= FEW
    paths = [drawn[stream.rows] for stream in streams]
    axes.add_collection(LineCollection(paths, colors=colors, linewidths=1.6 if few else 0.9))
    steps, starts = np.stack([path[0] for path in paths]).T
    axes.scatter(steps, starts, s=20, facecolors="none", edgecolors=list(map(tuple, colors)))
    entries = stream_legend(streams, colors)
    return entries if few else [*entries, _median(axes, look, frame, gaps, streams)]


def _median(
    axes: Axes, look: Look, frame: Frame[Record], gaps: Array, streams: Sequence[StreamRows]
) -> tuple[Artist, str]:
    """Draw the median over the streams at each step; return the legend's entry."""
    steps = np.unique(frame["step"])
    table = over_steps(frame, streams, np.where(np.isfinite(gaps), gaps, np.nan), steps)
    known = np.isfinite(table).any(0)
    middle = np.maximum(np.nanmedian(table[:, known], axis=0), FLOOR)
    (line,) = axes.plot(steps[known], middle, color=look.ink, linewidth=2.2, linestyle="--")
    return line, f"{printable(streams[0].kind)}  median of {len(streams)}"


def _bands(axes: Axes, look: Look, low: float, high: float) -> None:
    """Draw the limits of the display bands, and name the bands at the right."""
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    beneath = low
    for name, limit in BANDS.items():
        above = min(limit, high)
        if above < high:
            axes.axhline(above, color=look.muted, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        axes.text(
            1.015,
            float(np.sqrt(beneath * above)),
            name if name != "no" else "not\nlognormal",
            transform=axes.get_yaxis_transform(),
            color=look.muted,
            fontsize=8,
            va="center",
        )
        beneath = above


def _limits(gaps: Array) -> tuple[float, float]:
    """Return limits of the y axis that hold all gaps and all bands, never below the floor."""
    drawn = np.maximum(gaps[np.isfinite(gaps)], FLOOR)
    return float(drawn.min(initial=1e-3)) / 1.2, float(drawn.max(initial=0.25)) * 1.3
