"""Points and curves of one record: its saved counts as densities, and its fits over them."""

from typing import Any, NamedTuple

import numpy as np
import torch

from jaynes_callbacks.counts.grid import FIRST_NONFINITE, FIRST_POSITIVE, log_edges
from jaynes_callbacks.instruments.distribution import counts_of, gaussian_power, paper_bins_of
from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.statistics import (
    FAMILIES,
    LOGNORMAL,
    Family,
    fit_family,
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
    "fitted_parameters",
    "log_histogram",
    "size_weighted",
]

Array = np.ndarray[Any, np.dtype[np.float64]]

#: Lower edges of the grid's bins in ln w; computed once, for each curve needs them.
_EDGES = log_edges("cpu")
#: Quantiles of ln w between which the distribution is drawn.
_LOWEST, _HIGHEST = 0.004, 0.9999
#: Bins of the grid that are drawn beyond them at each side.
_MARGIN = 12
#: Values that a drawn bin should hold on average, so that its relative error is below a fifth.
_ENOUGH = 30
#: Most bins of the grid in one that is drawn.
_COARSEST = 16
#: Points of the smooth curves of the paper's picture.
_CURVE_POINTS = 400


class LogHistogram(NamedTuple):
    """Density of ln w over bins, each of which is one or several bins of the grid.

    Attributes:
        codes: first code of each drawn bin and, last, the code that follows the last bin.
        edges: lower edges of these codes' bins, in ln w.
        density: per unit of ln w; bins that are not drawn hold the rest of the mass.
    """

    codes: np.ndarray[Any, np.dtype[np.int64]]
    edges: Array
    density: Array

    @property
    def middles(self) -> Array:
        """Middles of the bins in ln w."""
        return (self.edges[1:] + self.edges[:-1]) / 2


class FamilyCurve(NamedTuple):
    """A fitted family, drawn over the data.

    Attributes:
        family: the law.
        gap: in nats per value, as the record has it.
        x: middles of bins of the grid, in ln w.
        density: mean density of the law in each of them, per unit of ln w.
        averaged: its mean density in each drawn bin of the histogram.
    """

    family: Family
    gap: float
    x: Array
    density: Array
    averaged: Array


class SizeWeighted(NamedTuple):
    """The paper's size-weighted histogram as a density over w/max.

    Attributes:
        x: middles of the data's bins, w/max.
        data: middle × share of the values / width of each bin.
        at: w/max at which the curves are given.
        fit: the paper's A'·LN(μ', σ') in the same unit; nan where there is no fit.
        gaussian: expectation for Gaussian values of the same max/rms.
        end: w/max below which lie 99.9 % of the data's area.
    """

    x: Array
    data: Array
    at: Array
    fit: Array
    gaussian: Array
    end: float


def log_histogram(record: Record, most_bins: int | None = None) -> LogHistogram | None:
    """Return the bulk of ln w in bins as fine as the number of values allows.

    Args:
        record: with its counts.
        most_bins: most bins to return; None for any number.

    Returns:
        The density, from the 0.4 % to the 99.99 % quantile and a little beyond; None without
        counts of finite, non-zero values.
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
    edges = _EDGES.numpy()[codes]
    within = np.add.reduceat(counts[: ends[-1]], starts)
    return LogHistogram(codes, edges, within / (total * np.diff(edges)))


def fitted_parameters(records: Records, family: Family) -> torch.Tensor:
    """Return the parameters of a family fitted to some records.

    They stand in the records' columns.  Only datasets of version 0.1, and those from before a
    family was added, lack some of them: such records are fitted again, side by side.

    Args:
        records: any number; those without the columns with their counts.
        family: the law.

    Returns:
        Parameters ``[records, parameters]``; nan where there is no fit.
    """
    columns = {name: records[name] for name in family.columns}
    parameters = family.parameters_from(
        {name: np.ma.filled(values, np.nan) for name, values in columns.items()}
    )
    lacking = np.any([np.ma.getmaskarray(values) for values in columns.values()], axis=0)
    if lacking.any():
        binned = occupied_bins(counts_of(records.take(lacking)))
        fit = fit_family(family, binned.merged(), log_moments(binned))
        parameters[torch.from_numpy(lacking)] = fit.parameters
    return parameters


def family_curves(
    record: Record, histogram: LogHistogram, codes: tuple[int, int]
) -> list[FamilyCurve]:
    """Return every family that could be fitted to the record, smallest gap first.

    Args:
        record: whose counts the histogram shows.
        histogram: of the record.
        codes: first and last code of the range to draw, the histogram's or a wider one.
    """
    gaps = {LOGNORMAL.name: record.gap, **record.rival_gaps}
    one = Records([record])
    curves = [
        _family_curve(family, found, gaps.get(family.name, np.nan), histogram, codes)
        for family in FAMILIES
        if bool((found := fitted_parameters(one, family)).isfinite().all())
    ]
    return sorted(curves, key=lambda curve: (np.isnan(curve.gap), curve.gap))


def size_weighted(record: Record) -> SizeWeighted | None:
    """Return the data, the fit and the Gaussian reference of the paper's protocol.

    Weights are counted in the paper's equal bins.  Of activations, and of weights that are spread
    over ranks, only the grid's bins are known; then the density of ln w is drawn, which equals
    magnitude × density of w.

    Args:
        record: with its counts.

    Returns:
        Points and curves; None without counts, or where the maximum is unknown.
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
    at = _centres(_CURVE_POINTS)
    amplitude = record.paper_amplitude * paper_bins_of(record) / record.n
    fit = amplitude * _paper_curve(record, at)
    scale = torch.tensor([record.rms / record.max], dtype=torch.float64)
    power = torch.full_like(scale, gaussian_power(record.variable))
    gaussian: Array = at * gaussian_masses(scale, at.size, power)[0].numpy() * at.size
    return SizeWeighted(x, data, at, fit, gaussian, _end(x, data))


def _centres(bins: int) -> Array:
    """Return the middles of equal bins on [0, 1]."""
    centres: Array = (np.arange(bins) + 0.5) / bins
    return centres


def _end(x: Array, data: Array) -> float:
    """Return w/max below which lie 99.9 % of the area, and a little more; at most 1."""
    area = np.cumsum(data * np.gradient(x)) if x.size > 1 else np.ones(1)
    reach = np.searchsorted(area, 0.999 * area[-1])
    return float(min(1.0, 1.05 * x[min(reach, x.size - 1)]))


def _grouping(per_bin: float) -> int:
    """Return how many bins of the grid make one that is drawn: a power of two."""
    wanted = np.log2(max(_ENOUGH / per_bin, 1.0))
    return int(min(2 ** np.ceil(wanted), _COARSEST))


def _family_curve(
    family: Family,
    parameters: torch.Tensor,
    gap: float,
    histogram: LogHistogram,
    codes: tuple[int, int],
) -> FamilyCurve:
    x, mass, widths = _masses(family, parameters, *codes)
    _, within, _ = _masses(family, parameters, int(histogram.codes[0]), int(histogram.codes[-1]))
    summed = np.add.reduceat(within, histogram.codes[:-1] - histogram.codes[0])
    return FamilyCurve(family, gap, x, mass / widths, summed / np.diff(histogram.edges))


def _masses(
    family: Family, parameters: torch.Tensor, first: int, last: int
) -> tuple[Array, Array, Array]:
    """Return middles in ln w, masses and widths of the grid's bins from one code to another."""
    edges = _EDGES[first : last + 1]
    log_mass = family.log_mass(parameters, edges[None, :-1], edges[None, 1:])
    masses: Array = log_mass[0].exp().nan_to_num().numpy()
    middles: Array = ((edges[1:] + edges[:-1]) / 2).numpy()
    widths: Array = edges.diff().numpy()
    return middles, masses, widths


def _paper_curve(record: Record, centres: Array) -> Array:
    """Return LN(μ', σ') of the paper's fit at some w/max."""
    mu, sigma = torch.tensor([[record.paper_mu], [record.paper_sigma]], dtype=torch.float64)
    curve: Array = paper_curve(torch.from_numpy(centres), mu, sigma)[0].numpy()
    return curve
