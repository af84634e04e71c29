"""Effective utility over ln w, which is constant at equilibrium."""

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaynes_callbacks.figures.curves import Array, LogHistogram, log_histogram
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
from jaynes_callbacks.instruments.record import Record
from jaynes_callbacks.records.stream import log_label
from jaynes_callbacks.statistics import LOGNORMAL, Binned
from jaynes_callbacks.statistics.equilibrium import effective_utility

__all__ = ["utility_over_magnitude"]

#: Most nats above and below the mean that are shown.
_FARTHEST = 4.0
#: Height of the density's peak as a share of the axes' height.
_PEAK = 0.35


def utility_over_magnitude(
    record: RowsOfStream,
    start: RowsOfStream | None = None,
    *,
    name: str | None = None,
    look: Look = LIGHT,
) -> Figure:
    """Draw the effective utility h(w) of the paper's Eq. 7, less its mean, over ln w.

    At arbitrage equilibrium no agent gains by moving: h is constant, here zero.  Where the line
    lies above zero there are fewer weights than the lognormal has, and moving there would pay.  The
    band is two standard errors wide at each side; the area at the bottom is the density of the
    values.  α and β are those of the fitted lognormal, so that a constant h and a lognormal are
    the same statement (``docs/statistics.md``).

    Args:
        record: with its counts; or records of one stream (see `inputs.Rows`), of which the last is
            drawn against the first.
        start: an earlier record of the same stream, drawn behind, by its own α and β.
        name: of the stream, where `record` has several streams.
        look: of the page, `LIGHT` or `DARK`.

    Raises:
        ValueError: if `record` and `start` are of different streams, if the stream is not clear, or
            for records that were kept without their counts.

    Example:
        >>> from jaynes_callbacks.instruments.record import Record
        >>> utility_over_magnitude(Record(name="fc.weight")).axes[0].get_ylabel()
        'utility h − mean (nats)'
    """
    end, earlier = end_and_start(record, start, name)
    figure, (axes,) = canvas(look, [3.0])
    entries: list[tuple[Artist, str]] = []
    now = log_histogram(end)
    before = log_histogram(earlier) if earlier is not None else None
    if earlier is not None and before is not None:
        (line,) = axes.plot(
            before.middles, _utility(earlier, before), color=look.muted, linewidth=1
        )
        entries.append((line, f"start, step {earlier.step}"))
    if now is None or not np.isfinite([end.alpha, end.beta]).all():
        blank(axes, look, "no values" if now is None else "no lognormal fit")
    else:
        entries = [*_drawn(axes, look, end, now), *entries]
    axes.axhline(0, color=look.ink, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_ylabel("utility h − mean (nats)")
    axes.set_xlabel(printable(log_label(end.variable)))
    title(axes, look, end, earlier, f"spread of utility {end.utility_std:.3f} nats")
    legend(figure, look, entries)
    return figure


def _drawn(
    axes: Axes, look: Look, record: Record, histogram: LogHistogram
) -> list[tuple[Artist, str]]:
    utility = _utility(record, histogram)
    """Draw the utility with its error and the density of the values; return legend entries."""
    widths = np.diff(histogram.edges)
    with np.errstate(divide="ignore"):
        error = 2 / np.sqrt(histogram.density * widths * record.n)
    known = np.where(np.isfinite(error), utility, np.nan)
    axes.fill_between(
        histogram.middles,
        known - error,
        known + error,
        color=LOGNORMAL.color,
        alpha=0.25,
        linewidth=0,
    )
    (line,) = axes.plot(histogram.middles, known, **family_style(LOGNORMAL), linewidth=1.8)
    reach = float(np.clip(1.2 * np.nanmax(np.abs(known), initial=0.2), 0.5, _FARTHEST))
    axes.set_ylim(-reach, reach)
    height = 2 * reach * _PEAK * histogram.density / histogram.density.max()
    area = axes.stairs(
        height - reach, histogram.edges, baseline=-reach, fill=True, color=look.data, zorder=0
    )
    return [(line, f"utility, step {record.step}"), (area, "share of the values")]


def _utility(record: Record, histogram: LogHistogram) -> Array:
    """Return h of each drawn bin less its mean over the values; nan where a bin is empty."""
    mass = torch.from_numpy(histogram.density * np.diff(histogram.edges) * record.n)[None]
    # α and β are of w/max.
    edges = torch.from_numpy(histogram.edges - np.log(record.max))[None]
    binned = Binned(mass, mass, edges[:, :-1], edges[:, 1:])
    alpha, beta = torch.tensor([[record.alpha], [record.beta]], dtype=torch.float64)
    utility = effective_utility(binned, alpha, beta)
    mean = (binned.share * utility).sum(-1, keepdim=True)
    found: Array = torch.where(binned.occupied, utility - mean, torch.nan)[0].numpy()
    return found
