"""Effective utility over ln w: flat at equilibrium."""

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaynes_callbacks.figures.curves import Array, LogHistogram, log_histogram
from jaynes_callbacks.figures.look import (
    LIGHT,
    Look,
    blank,
    canvas,
    family_line,
    legend,
    title,
)
from jaynes_callbacks.instruments.record import Record
from jaynes_callbacks.statistics import LOGNORMAL, Binned
from jaynes_callbacks.statistics.equilibrium import effective_utility

__all__ = ["utility_over_magnitude"]

#: Utilities further than this from the mean, in nats, leave the picture.
_FARTHEST = 4.0
#: Height of the evidence's peak in the picture.
_PEAK = 0.35


def utility_over_magnitude(
    record: Record, start: Record | None = None, *, look: Look = LIGHT
) -> Figure:
    """Effective utility h(w) less its mean, over ln w (Eq. 7; THEORY §5).

    At arbitrage equilibrium no agent gains by moving: h is flat, at zero here.  Where the line
    lies above, there are fewer weights than the lognormal has, and moving there would pay; the
    band is twice its standard error.  The area below says where the evidence is: the share of
    the values.  α and β are those of the fitted lognormal, so that flat and lognormal are one
    statement.

    Args:
        record: with its counts.
        start: an earlier record of the same stream, drawn behind, by its own α and β.
        look: of the page, `LIGHT` or `DARK`.

    Example:
        >>> from jaynes_callbacks.instruments.record import Record
        >>> utility_over_magnitude(Record(name="fc.weight")).axes[0].get_ylabel()
        'utility h − mean (nats)'
    """
    figure, (axes,) = canvas(look, [3.0])
    entries: list[tuple[Artist, str]] = []
    now = log_histogram(record)
    before = log_histogram(start) if start is not None else None
    if start is not None and before is not None:
        (line,) = axes.plot(before.middles, _utility(start, before), color=look.muted, linewidth=1)
        entries.append((line, f"start, step {start.step}"))
    if now is None or not np.isfinite([record.alpha, record.beta]).all():
        blank(axes, look, "no values" if now is None else "no lognormal fit")
    else:
        entries = [*_drawn(axes, look, record, now), *entries]
    axes.axhline(0, color=look.ink, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_ylabel("utility h − mean (nats)")
    axes.set_xlabel("ln y" if record.kind == "iota" else "ln w")
    title(axes, look, record, start, f"spread of utility {record.utility_std:.3f} nats")
    legend(figure, look, entries)
    return figure


def _drawn(
    axes: Axes, look: Look, record: Record, histogram: LogHistogram
) -> list[tuple[Artist, str]]:
    utility = _utility(record, histogram)
    widths = np.diff(histogram.edges)
    with np.errstate(divide="ignore"):
        error = 2 / np.sqrt(histogram.density * widths * record.n)
    known = np.where(np.isfinite(error), utility, np.nan)
    style = family_line(LOGNORMAL.name)
    axes.fill_between(
        histogram.middles, known - error, known + error, color=style.color, alpha=0.25, linewidth=0
    )
    (line,) = axes.plot(histogram.middles, known, color=style.color, linewidth=1.8)
    reach = float(np.clip(1.2 * np.nanmax(np.abs(known), initial=0.2), 0.5, _FARTHEST))
    axes.set_ylim(-reach, reach)
    height = 2 * reach * _PEAK * histogram.density / histogram.density.max()
    area = axes.stairs(
        height - reach, histogram.edges, baseline=-reach, fill=True, color=look.data, zorder=0
    )
    return [(line, f"utility, step {record.step}"), (area, "share of the values")]


def _utility(record: Record, histogram: LogHistogram) -> Array:
    """h of each drawn bin less its mean over the values; nan where a bin is empty."""
    mass = torch.from_numpy(histogram.density * np.diff(histogram.edges) * record.n)[None]
    lower, upper = (torch.from_numpy(edges)[None] for edges in _ends(histogram))
    binned = Binned(mass, mass, lower, upper)
    alpha, beta = (torch.tensor([value], dtype=torch.float64) for value in _exponents(record))
    utility = effective_utility(binned, alpha, beta)
    mean = (binned.share * utility).sum(-1, keepdim=True)
    found: Array = torch.where(binned.occupied, utility - mean, torch.nan)[0].numpy()
    return found


def _ends(histogram: LogHistogram) -> tuple[Array, Array]:
    return histogram.edges[:-1].copy(), histogram.edges[1:].copy()


def _exponents(record: Record) -> tuple[float, float]:
    return record.alpha, record.beta
