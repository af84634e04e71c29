"""The paper's own picture, with the same of Gaussian weights in it."""

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaynes_callbacks.figures.curves import SizeWeighted, size_weighted
from jaynes_callbacks.figures.inputs import RowsOfStream, end_and_start
from jaynes_callbacks.figures.look import (
    LIGHT,
    Look,
    blank,
    canvas,
    family_style,
    legend,
    title,
)
from jaynes_callbacks.instruments.record import Record
from jaynes_callbacks.statistics import FAMILY_BY_NAME, LOGNORMAL

__all__ = ["paper_view"]

#: Law of the magnitudes of Gaussian values.
_GAUSSIAN = FAMILY_BY_NAME["half_normal"]


def paper_view(
    record: RowsOfStream,
    start: RowsOfStream | None = None,
    *,
    name: str | None = None,
    look: Look = LIGHT,
) -> Figure:
    """Draw the size-weighted counts over w/max with the lognormal curve fitted as in the paper.

    Dots are bin centre × share of the values / bin width, so that records of different numbers of
    values and bins can be compared.  The solid curve is the paper's A'·LN(μ', σ'), the dashed one
    the expectation for Gaussian weights of the same max/rms.  Where the two curves coincide R²
    cannot tell them apart, so the note above the axes gives both values of R²; see ``paper_*`` in
    ``docs/statistics.md``.

    Args:
        record: with its counts; or records of one stream (see `inputs.Rows`), of which the last is
            drawn against the first.
        start: an earlier record of the same stream, drawn behind.
        name: of the stream, where `record` has several streams.
        look: of the page, `LIGHT` or `DARK`.

    Raises:
        ValueError: if `record` and `start` are of different streams, if the stream is not clear, or
            for records that were kept without their counts.

    Example:
        >>> from jaynes_callbacks.instruments.record import Record
        >>> figure = paper_view(Record(name="fc.weight"))  # nothing measured, nothing drawn
        >>> figure.axes[0].get_xlabel()
        'magnitude / largest magnitude'
    """
    end, earlier = end_and_start(record, start, name)
    figure, (axes,) = canvas(look, [3.3])
    entries: list[tuple[Artist, str]] = []
    now = size_weighted(end)
    before = size_weighted(earlier) if earlier is not None else None
    if before is not None and earlier is not None:
        entries += _dots(axes, before, f"step {earlier.step}", look.muted, filled=False)
    if now is not None:
        entries += _dots(axes, now, f"step {end.step}", look.ink, filled=True)
        entries += _curves(axes, now)
        axes.set_xlim(0, max(part.end for part in (now, before) if part is not None))
    else:
        blank(axes, look, "no values")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("magnitude / largest magnitude")
    axes.set_ylabel("size-weighted density")
    title(axes, look, end, earlier, _note(end))
    legend(figure, look, entries)
    return figure


def _dots(
    axes: Axes, points: SizeWeighted, label: str, color: str, *, filled: bool
) -> list[tuple[Artist, str]]:
    """Draw the data as filled or open dots; return the legend's entry."""
    (dots,) = axes.plot(
        points.x,
        points.data,
        linestyle="",
        marker="o",
        markersize=2.8 if filled else 3.2,
        markerfacecolor=color if filled else "none",
        markeredgecolor=color,
        markeredgewidth=0.6,
    )
    return [(dots, label)]


def _curves(axes: Axes, points: SizeWeighted) -> list[tuple[Artist, str]]:
    """Draw the fit and the Gaussian reference, where they exist; return legend entries."""
    entries: list[tuple[Artist, str]] = []
    for curve, family, label in (
        (points.gaussian, _GAUSSIAN, "Gaussian values, same max/rms"),
        (points.fit, LOGNORMAL, "the paper's fit, A′·LN(μ′, σ′)"),
    ):
        if np.isfinite(curve).any():
            (line,) = axes.plot(points.at, curve, linewidth=1.6, **family_style(family))
            entries.append((line, label))
    return entries


def _note(record: Record) -> str:
    """Return R² of the data and of Gaussian values, or why there is no fit."""
    if not np.isfinite(record.paper_r2):
        return f"no fit: {record.status}"
    gaussian = f"{record.paper_r2_gaussian:.3f}" if np.isfinite(record.paper_r2_gaussian) else "–"
    r2 = f"R² {record.paper_r2:.3f} (random Gaussian values: {gaussian})"
    return f"{r2}, σ′ {record.paper_sigma:.2f}"
