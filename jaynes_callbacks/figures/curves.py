"""What is drawn of a record: points and curves, computed by `statistics` from its saved counts."""

from typing import Any, NamedTuple

import numpy as np
import torch

from jaynes_callbacks.counts.grid import FIRST_NONFINITE, FIRST_POSITIVE, log_edges
from jaynes_callbacks.instruments.distribution import PAPER_IOTA_BINS, gaussian_power
from jaynes_callbacks.instruments.record import Record
from jaynes_callbacks.instruments.summary import counts_of
from jaynes_callbacks.instruments.tally import PAPER_BINS
from jaynes_callbacks.statistics import (
    LOGNORMAL,
    Fit,
    fit_families,
    gaussian_masses,
    log_moments,
    occupied_bins,
    paper_curve,
)

__all__ = [
    "Array",
    "FamilyCurve",
    "LogHistogram",
    "SizeWeighted",
    "family_curves",
    "log_histogram",
    "size_weighted",
]

Array = np.ndarray[Any, np.dtype[np.float64]]

#: Shares of the values beyond which the tails of ln w are not drawn.
_LOWEST, _HIGHEST = 0.004, 0.9999
#: Empty bins of the grid drawn beyond them.
_MARGIN = 12
#: Values a drawn bin should hold in the bulk, so that its noise is below a fifth.
_ENOUGH = 30
_COARSEST = 16
#: Points of the smooth curves of the paper's picture.
_CURVE_POINTS = 400


class LogHistogram(NamedTuple):
    """Density of ln w over bins that are whole bins of the grid.

    Attributes:
        codes: lower code of each drawn bin and, last, the upper end of the last one.
        edges: the same in ln w.
        density: per unit of ln w; bins that are not drawn hold the rest of the mass.
    """

    codes: np.ndarray[Any, np.dtype[np.int64]]
    edges: Array
    density: Array

    @property
    def middles(self) -> Array:
        """ln of the bins' geometric middles."""
        return (self.edges[1:] + self.edges[:-1]) / 2


class FamilyCurve(NamedTuple):
    """A fitted family, drawn over the data.

    Attributes:
        name: of the family.
        gap: in nats per value, as the record has it.
        is_rival: whether it is a rival, neither the lognormal nor a law that contains it.
        x: middles of bins of the grid, in ln w.
        density: on them.
        averaged: over the drawn bins of the histogram.
    """

    name: str
    gap: float
    is_rival: bool
    x: Array
    density: Array
    averaged: Array


class SizeWeighted(NamedTuple):
    """The paper's picture, as densities: magnitude × its density, over w/max.

    Attributes:
        x: middles of the data's bins, w/max.
        data: centre × share of the bin / bin width.
        at: where the curves are taken, w/max.
        fit: A'·LN(μ', σ') in the same unit; nan where there is no fit.
        gaussian: what Gaussian values of the same max/rms show in expectation.
        end: w/max below which lies all but a thousandth of the data's area.
    """

    x: Array
    data: Array
    at: Array
    fit: Array
    gaussian: Array
    end: float


def log_histogram(record: Record, most_bins: int | None = None) -> LogHistogram | None:
    """The bulk of ln w, in bins as fine as the number of values allows; None without counts.

    Args:
        record: with its counts.
        most_bins: if given, bins are made wider until there are no more of them.
    """
    counts = counts_of([record])[0, FIRST_POSITIVE:FIRST_NONFINITE].numpy()
    total = counts.sum()
    if not total:
        return None
    below = counts.cumsum() / total
    bulk = np.searchsorted(below, 0.95) - np.searchsorted(below, 0.05) + 1
    width = _grouping(total / bulk)
    low = max(int(np.searchsorted(below, _LOWEST)) - _MARGIN, 0)
    high = min(int(np.searchsorted(below, _HIGHEST)) + _MARGIN, counts.size)
    while most_bins is not None and high - low > most_bins * width:
        width *= 2
    starts = np.arange(low, max(high, low + 1), width)
    ends = np.minimum([*starts[1:], starts[-1] + width], counts.size)
    codes = np.append(starts, ends[-1]) + FIRST_POSITIVE
    edges = log_edges().numpy()[codes]
    within = np.add.reduceat(counts[: ends[-1]], starts)
    return LogHistogram(codes, edges, within / (total * np.diff(edges)))


def family_curves(
    record: Record, histogram: LogHistogram, codes: tuple[int, int]
) -> list[FamilyCurve]:
    """Every family that could be fitted to the record, smallest gap first.

    Args:
        record: with its counts.
        histogram: of the record.
        codes: first and last code of the range to draw, the histogram's or a wider one.
    """
    binned = occupied_bins(counts_of([record]))
    moments = log_moments(binned)
    gaps = {LOGNORMAL.name: record.gap, **record.rival_gaps}
    fits = fit_families(binned, moments).values()
    curves = [
        _family_curve(fit, gaps.get(fit.family.name, np.nan), histogram, codes)
        for fit in fits
        if bool(fit.parameters.isfinite().all())
    ]
    return sorted(curves, key=lambda curve: (np.isnan(curve.gap), curve.gap))


def size_weighted(record: Record) -> SizeWeighted | None:
    """Data, fit and null of the paper's protocol; None without counts.

    Weights were counted in the paper's own bins.  Activations, and weights that are spread over
    ranks, are drawn in the grid's: magnitude × density over w is the density of ln w.
    """
    histogram = log_histogram(record)
    if histogram is None or not 0 < record.max < np.inf:
        return None
    equal = record.paper_counts.astype(np.float64)
    if equal.sum():
        x = _centres(equal.size)
        data = x * equal * equal.size / equal.sum()
    else:
        x, data = np.exp(histogram.middles) / record.max, histogram.density
    bins = PAPER_BINS if record.kind == "weight" else PAPER_IOTA_BINS
    at = _centres(_CURVE_POINTS)
    fit = record.paper_amplitude * _paper_curve(record, at) * bins / record.n
    scale = torch.tensor([record.rms / record.max], dtype=torch.float64)
    power = torch.full_like(scale, gaussian_power(record.variable))
    gaussian: Array = at * gaussian_masses(scale, at.size, power)[0].numpy() * at.size
    return SizeWeighted(x, data, at, fit, gaussian, _end(x, data))


def _centres(bins: int) -> Array:
    centres: Array = (np.arange(bins) + 0.5) / bins
    return centres


def _end(x: Array, data: Array) -> float:
    area = np.cumsum(data * np.gradient(x)) if x.size > 1 else np.ones(1)
    reach = np.searchsorted(area, 0.999 * area[-1])
    return float(min(1.0, 1.05 * x[min(reach, x.size - 1)]))


def _grouping(per_bin: float) -> int:
    """How many bins of the grid make one that is drawn: a power of two."""
    wanted = np.log2(max(_ENOUGH / per_bin, 1.0))
    return int(min(2 ** np.ceil(wanted), _COARSEST))


def _family_curve(
    fit: Fit, gap: float, histogram: LogHistogram, codes: tuple[int, int]
) -> FamilyCurve:
    x, mass, widths = _masses(fit, *codes)
    _, within, _ = _masses(fit, int(histogram.codes[0]), int(histogram.codes[-1]))
    summed = np.add.reduceat(within, histogram.codes[:-1] - histogram.codes[0])
    rival = fit.family is not LOGNORMAL and not fit.family.contains_lognormal
    return FamilyCurve(
        fit.family.name, gap, rival, x, mass / widths, summed / np.diff(histogram.edges)
    )


def _masses(fit: Fit, first: int, last: int) -> tuple[Array, Array, Array]:
    """Middles in ln w, masses and widths of the grid's bins from one code to another."""
    edges = log_edges()[first : last + 1]
    log_mass = fit.family.log_mass(fit.parameters, edges[None, :-1], edges[None, 1:])
    masses: Array = log_mass[0].exp().nan_to_num().numpy()
    middles: Array = ((edges[1:] + edges[:-1]) / 2).numpy()
    widths: Array = edges.diff().numpy()
    return middles, masses, widths


def _paper_curve(record: Record, centres: Array) -> Array:
    mu, sigma = torch.tensor([[record.paper_mu], [record.paper_sigma]], dtype=torch.float64)
    curve: Array = paper_curve(torch.from_numpy(centres), mu, sigma)[0].numpy()
    return curve
