"""The gap of every stream through training."""

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from jaynes_callbacks.figures.layers import (
    FEW,
    HEADINGS,
    Course,
    layer_colors,
    paths_by_kind,
    stream_legend,
)
from jaynes_callbacks.figures.look import LIGHT, Look, blank, canvas, heading, legend
from jaynes_callbacks.instruments.record import Record
from jaynes_callbacks.instruments.verdict import BANDS

__all__ = ["gap_over_steps"]

#: Gaps below this are drawn at it: the logarithmic axis has no zero.
FLOOR = 1e-4


def gap_over_steps(history: Sequence[Record], *, look: Look = LIGHT) -> Figure:
    """The gap of every stream over optimizer steps, one row of axes for each kind.

    Colours run from the network's first layer to its last; circles mark the start; the bands are
    those of the verdict rule (THEORY §7).  Equilibrium lies below.  Of many streams the median is
    drawn in ink.

    Args:
        history: rows of many steps; counts are not needed.
        look: of the page, `LIGHT` or `DARK`.

    Example:
        >>> from jaynes_callbacks.instruments.record import Record
        >>> rows = [Record(name="fc.weight", step=step, gap=0.2 / (step + 1)) for step in range(3)]
        >>> len(gap_over_steps(rows).axes)
        1
    """
    streams = paths_by_kind(history) or {"weight": []}
    figure, rows = canvas(look, [2.9] if len(streams) == 1 else [2.4] * len(streams))
    entries: list[tuple[Artist, str]] = []
    low, high = _limits(history)
    for axes, (kind, paths) in zip(rows, streams.items(), strict=True):
        entries += _streams(axes, look, paths)
        _bands(axes, look, low, high)
        axes.set_ylabel(f"gap of {HEADINGS[kind]} (nats)")
    heading(rows[0], look, "Arbitrage gap: distance to the best lognormal")
    rows[-1].set_xlabel("optimizer step")
    legend(figure, look, entries)
    return figure


def _streams(axes: Axes, look: Look, streams: Sequence[Course]) -> list[tuple[Artist, str]]:
    """All lines as one artist: there may be a thousand."""
    if not streams:
        blank(axes, look, "no records")
        return []
    colors = layer_colors(look, len(streams))
    paths = [[(row.step, _drawn(row.gap)) for row in rows] for rows in streams]
    few = len(streams) <= FEW
    axes.add_collection(LineCollection(paths, colors=colors, linewidths=1.6 if few else 0.9))
    steps, gaps = zip(*(path[0] for path in paths), strict=True)
    axes.scatter(steps, gaps, s=20, facecolors="none", edgecolors=list(map(tuple, colors)))
    entries = stream_legend(streams, colors)
    return entries if few else entries + _median(axes, look, streams)


def _median(axes: Axes, look: Look, streams: Sequence[Course]) -> list[tuple[Artist, str]]:
    gaps: dict[int, list[float]] = {}
    for row in (row for rows in streams for row in rows if np.isfinite(row.gap)):
        gaps.setdefault(row.step, []).append(row.gap)
    steps = sorted(gaps)
    middle = [_drawn(float(np.median(gaps[step]))) for step in steps]
    (line,) = axes.plot(steps, middle, color=look.ink, linewidth=2.2, linestyle="--")
    return [(line, f"{streams[0][0].kind}  median of {len(streams)}")]


def _bands(axes: Axes, look: Look, low: float, high: float) -> None:
    """The display bands, named at the right."""
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


def _limits(history: Sequence[Record]) -> tuple[float, float]:
    """All gaps and all bands, with some room; never below the floor."""
    gaps = [_drawn(row.gap) for row in history if np.isfinite(row.gap)]
    return min([1e-3, *gaps]) / 1.2, max([0.25, *gaps]) * 1.3


def _drawn(gap: float) -> float:
    return gap if np.isnan(gap) else max(gap, FLOOR)
