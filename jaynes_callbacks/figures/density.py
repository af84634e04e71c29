"""Density of ln w: the data, every fitted family, and the difference between the two."""

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaynes_callbacks.figures.curves import (
    FamilyCurve,
    LogHistogram,
    family_curves,
    log_histogram,
)
from jaynes_callbacks.figures.inputs import RowsOfStream, end_and_start
from jaynes_callbacks.figures.look import (
    LIGHT,
    Look,
    blank,
    canvas,
    family_style,
    legend,
    printable,
    title,
)
from jaynes_callbacks.instruments.record import Record, verdict_text
from jaynes_callbacks.records.stream import log_label
from jaynes_callbacks.statistics import LOGNORMAL, Family

__all__ = ["log_density"]


def log_density(
    record: RowsOfStream,
    start: RowsOfStream | None = None,
    *,
    name: str | None = None,
    look: Look = LIGHT,
) -> Figure:
    """Draw the density of ln w with all fitted families, start against end, and residuals below.

    On this axis a lognormal is a Gaussian bell.  The legend lists the families by their gap, in
    nats per value.  The lognormal and its best rival have thick lines, and the lower axes show
    data − fit of these two.  A bin is one or several bins of the grid, wider where the values are
    few; the lowest 0.4 % and the highest 0.01 % of the values are mostly not drawn.

    Args:
        record: with its counts; or records of one stream (see `inputs.Rows`), of which the last is
            drawn against the first.
        start: an earlier record of the same stream, drawn as an outline.
        name: of the stream, where `record` has several streams.
        look: of the page, `LIGHT` or `DARK`.

    Raises:
        ValueError: if `record` and `start` are of different streams, if the stream is not clear, or
            for records that were kept without their counts.

    Example:
        >>> from jaynes_callbacks.instruments.record import Record, verdict_text
        >>> figure = log_density(Record(name="fc.weight"))  # nothing measured, nothing drawn
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['density of ln w', 'data − fit']
    """
    end, earlier = end_and_start(record, start, name)
    figure, (upper, lower) = canvas(look, [2.9, 1.2])
    entries: list[tuple[Artist, str]] = []
    now = log_histogram(end)
    before = log_histogram(earlier) if earlier is not None else None
    if now is not None:
        area = upper.stairs(now.density, now.edges, fill=True, color=look.data)
        entries.append((area, f"data, step {end.step}"))
    if before is not None and earlier is not None:
        outline = upper.stairs(before.density, before.edges, color=look.muted, linewidth=0.9)
        entries.append((outline, f"data, step {earlier.step}"))
    if now is not None:
        shown = [now] if before is None else [now, before]
        codes = min(part.codes[0] for part in shown), max(part.codes[-1] for part in shown)
        curves = family_curves(end, now, codes)
        entries += _families(upper, lower, curves, now)
        upper.set_ylim(0, 1.08 * _highest(shown, curves))
    else:
        blank(upper, look, "no values")
    label = printable(log_label(end.variable))
    upper.set_ylabel(f"density of {label}")
    lower.set_ylabel("data − fit")
    lower.set_xlabel(label)
    lower.axhline(0, color=look.muted, linewidth=0.8)
    title(upper, look, end, earlier, _note(end))
    legend(figure, look, entries)
    return figure


def _families(
    upper: Axes, lower: Axes, curves: Sequence[FamilyCurve], data: LogHistogram
) -> list[tuple[Artist, str]]:
    """Draw all families above, and the residuals of the strong ones below.

    Returns:
        The legend's entries.
    """
    entries: list[tuple[Artist, str]] = []
    strong = _strong(curves)
    for curve in curves:
        main = curve.family in strong
        style = family_style(curve.family)
        (line,) = upper.plot(
            curve.x, curve.density, **style, linewidth=1.9 if main else 1.1, zorder=3 if main else 2
        )
        entries.append((line, f"{curve.family.label}  {curve.gap:.3f}"))
        if main:
            lower.stairs(data.density - curve.averaged, data.edges, **style, linewidth=1.2)
    return entries


def _strong(curves: Sequence[FamilyCurve]) -> set[Family]:
    """Return the lognormal and the best of its rivals."""
    rivals = [curve.family for curve in curves if not curve.family.contains_lognormal]
    return {LOGNORMAL, *rivals[:1]}


def _highest(shown: Sequence[LogHistogram], curves: Sequence[FamilyCurve]) -> float:
    """Return the top of the data and of the strong curves; a bad fit may leave the picture."""
    strong = _strong(curves)
    tops = [part.density.max() for part in shown]
    tops += [curve.density.max() for curve in curves if curve.family in strong]
    return float(max(tops))


def _note(record: Record) -> str:
    """Return the record's gap and verdict, or why there are none."""
    if not np.isfinite(record.gap):
        return f"no fit: {record.status}"
    verdict = f", {verdict_text(record)}" if record.verdict else ""
    return f"gap to the lognormal {record.gap:.3f} nats{verdict}"
