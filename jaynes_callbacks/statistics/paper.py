"""The paper's own protocol: a lognormal curve through the size-weighted counts of equal bins.

Divide the magnitudes of one layer by their maximum and count them in equal bins on [0, 1].  A bin's
*size-weighted count* is its centre × its count.  Least squares fit ``A'·LN(x; μ', σ')`` to these
points, where ``LN`` is the lognormal density (arXiv 2405.10955, its figures and Table II).  R² of
that curve cannot tell a lognormal layer from Gaussian weights, so that the R² that Gaussian weights
of the same max/rms would have is always computed too.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64, Real
from torch import Tensor

from jaynes_callbacks.counts.grid import FIRST_NONFINITE, FIRST_POSITIVE, edges
from jaynes_callbacks.statistics.curve import fit_curve, paper_curve
from jaynes_callbacks.statistics.status import Status

__all__ = [
    "FEWEST_WEIGHTS",
    "PaperFit",
    "gaussian_masses",
    "gaussian_paper_fit",
    "linear_from_counts",
    "paper_curve",
    "paper_protocol",
]

#: The paper leaves out layers of fewer weights, whose R² was poor.
FEWEST_WEIGHTS = 36_864
#: A fit needs so many bins that reach `_REACH` of the peak: its three parameters and one more.
_FEWEST_BINS = 4
_REACH = 1e-3
#: σ' beyond which the curve is a power law on the data and its peak an extrapolation.
_WIDEST = 10.0
#: A curve over fewer bins, by (Σφ)²/Σφ², is a spike between two bin centres.
_FEWEST_BINS_OF_CURVE = 1.01


class PaperFit(NamedTuple):
    """The paper's quantities of L streams; nan where their status is not `Status.CONVERGED`.

    Attributes:
        r2: R² = 1 − Σ(y − ŷ)²/Σ(y − ȳ)² over all bins, empty ones included; y are the
            size-weighted counts, ȳ their plain mean over the bins.
        mu: μ', in ln(w/max).
        sigma: σ'.
        amplitude: A', in w/max × values.
        r2_gaussian: R² of as many Gaussian values of the same max/rms on average.  The scatter of
            their counts is included, which lowers R² of few weights under any law.  nan where
            these have no fit: max/rms below about 1, where they are a ramp, or so large that all
            lie in the first bins.
        status: `Status` codes of the fit to the observed counts.
        gaussian_status: of the fit to the Gaussian weights.
    """

    r2: Float64[Tensor, " streams"]
    mu: Float64[Tensor, " streams"]
    sigma: Float64[Tensor, " streams"]
    amplitude: Float64[Tensor, " streams"]
    r2_gaussian: Float64[Tensor, " streams"]
    status: Int64[Tensor, " streams"]
    gaussian_status: Int64[Tensor, " streams"]


class _Curves(NamedTuple):
    """Result of one least-squares fit a row: r2, mu, sigma and amplitude, and the status."""

    figures: Float64[Tensor, "4 streams"]
    status: Int64[Tensor, " streams"]


def paper_protocol(
    linear: Real[Tensor, "streams bins"],
    maximum: Float64[Tensor, " streams"],
    rms: Float64[Tensor, " streams"],
    *,
    split: bool = False,
    power: Float64[Tensor, " streams"] | None = None,
) -> PaperFit:
    """Fit ``A'·LN(μ', σ')`` to the size-weighted counts of every stream at once.

    A curve without a peak inside (0, 1) (the ramp of uniform weights, or a power law) is no
    lognormal and gets `Status.NO_INTERIOR_OPTIMUM`, whatever its R².  A curve wider than σ' = 10 or
    narrower than the bins gets `Status.AT_BOUND`.  Counts of which fewer than four bins reach a
    thousandth of the peak get `Status.TOO_FEW_BINS`.

    Args:
        linear: counts of equal bins on [0, maximum], from `counts.counting.count` (exact) or
            from `linear_from_counts`.
        maximum: largest magnitude, in the tensor's unit.
        rms: root mean square of the finite, non-zero magnitudes, in the same unit.
        split: whether the counts are from `linear_from_counts`, which smooths their scatter.
        power: power of the Gaussian values that each stream is compared with, as in
            `gaussian_masses`; 1 by default.

    Returns:
        One number a stream, on the device of `linear`.

    Example:
        >>> import torch
        >>> from jaynes_callbacks.counts.counting import count
        >>> weights = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))
        >>> _, maximum, linear = count(weights)
        >>> fit = paper_protocol(linear[None], maximum[None].double(), weights.double().std()[None])
        >>> bool(0.94 < fit.r2 < 0.97), round(fit.sigma.item(), 1)
        (True, 0.6)
    """
    gaussian = gaussian_masses(rms / maximum, linear.shape[-1], power)
    figures, status = _fit(torch.cat([linear.to(torch.float64), gaussian]))
    observed, expected = figures.chunk(2, dim=-1)
    r2, mu, sigma, amplitude = observed
    scatter = _scatter(gaussian, maximum, split=split) / linear.sum(-1)
    return PaperFit(
        r2, mu, sigma, amplitude, _scattered(expected[0], gaussian, scatter), *status.chunk(2)
    )


def linear_from_counts(
    counts: Int64[Tensor, "streams 4096"], maximum: Float64[Tensor, " streams"], bins: int = 100
) -> Float64[Tensor, "streams {bins}"]:
    """Make equal bins on [0, maximum] from the universal grid's counts.

    The count of each code is split in proportion to overlap, as if its values were spread evenly
    over its bin, or in the highest bin up to the maximum.  On 1e6 draws of five laws, and with 100
    or 1000 bins, R² moves by less than 0.0005 against bins of the raw values, μ' and σ' by less
    than 0.001 (tests/statistics/test_paper.py).  Splitting smooths the scatter between neighbouring
    bins, so that R² of few values is higher than on raw values.

    Args:
        counts: on the universal grid.
        maximum: upper end of the bins; the upper edge of the highest occupied code where only
            the counts are known.  Values above it fall into the last bin.
        bins: number of equal bins.
    """
    positive = counts[:, FIRST_POSITIVE:FIRST_NONFINITE].to(torch.float64)
    below = torch.nn.functional.pad(positive.cumsum(-1), (1, 0))
    grid = edges(counts.device)[FIRST_POSITIVE:]
    cuts = maximum[:, None] * _equal_cuts(bins, counts.device)[1:-1]
    code = (torch.searchsorted(grid, cuts, right=True) - 1).clamp(0, positive.shape[-1] - 1)
    lower, upper = grid[code], torch.minimum(grid[code + 1], maximum[:, None])
    share = ((cuts - lower) / (upper - lower)).clamp(0.0, 1.0)
    inner = below.gather(-1, code) + share * positive.gather(-1, code)
    return torch.cat([torch.zeros_like(below[:, :1]), inner, below[:, -1:]], dim=-1).diff(dim=-1)


def _scatter(
    masses: Float64[Tensor, "streams bins"], maximum: Float64[Tensor, " streams"], *, split: bool
) -> Float64[Tensor, " streams"]:
    """Return n Σ_i Var(x_i N_i/n) of the size-weighted shares x_i N_i/n of n multinomial values.

    Linear bins that are split from one code share its scatter evenly, so that their variance is
    smaller by the number of bins that the code is wide.
    """
    bins = masses.shape[-1]
    centres = _centres(bins, masses.device)
    variance = centres**2 * masses * (1 - masses)
    if split:
        grid = edges(masses.device)[FIRST_POSITIVE : FIRST_NONFINITE + 1]
        at = centres * maximum[:, None]
        code = (torch.searchsorted(grid, at, right=True) - 1).clamp(0, len(grid) - 2)
        variance = variance / (grid.diff()[code] * bins / maximum[:, None]).clamp(min=1.0)
    return variance.sum(-1)


def _scattered(
    r2: Float64[Tensor, " streams"],
    masses: Float64[Tensor, "streams bins"],
    scatter: Float64[Tensor, " streams"],
) -> Float64[Tensor, " streams"]:
    """Return the expected R² of shares that scatter around masses which alone have R² = `r2`."""
    weighted = masses * _centres(masses.shape[-1], masses.device)
    spread = ((weighted - weighted.mean(-1, keepdim=True)) ** 2).sum(-1)
    total = spread + scatter * (1 - 1 / masses.shape[-1])
    return 1 - ((1 - r2) * spread + scatter) / total


def _centres(bins: int, device: torch.device) -> Float64[Tensor, " {bins}"]:
    cuts = _equal_cuts(bins, device)
    return (cuts[1:] + cuts[:-1]) / 2


def _equal_cuts(bins: int, device: torch.device) -> Float64[Tensor, " cuts"]:
    return torch.arange(bins + 1, dtype=torch.float64, device=device) / bins


def gaussian_masses(
    scale: Float64[Tensor, " streams"],
    bins: int,
    power: Float64[Tensor, " streams"] | None = None,
) -> Float64[Tensor, "streams {bins}"]:
    """Return the masses of |N|^p in equal bins on [0, 1], N normal with mean 0.

    Args:
        scale: root mean square of |N|^p over the maximum, which is the bins' end 1.
        bins: number of bins.
        power: p of each stream; 1 by default, 2 for Z = z² of Gaussian pre-activations.
    """
    p = torch.ones_like(scale) if power is None else power
    # The mean of N^2p is 2^p Γ(p + ½)/√π.
    log_mean = p * math.log(2.0) + torch.lgamma(p + 0.5) - math.lgamma(0.5)
    unit = (log_mean / 2).exp() / scale
    cuts = _equal_cuts(bins, scale.device)
    return torch.erf((cuts * unit[:, None]) ** (1 / p)[:, None] / math.sqrt(2.0)).diff(dim=-1)


def gaussian_paper_fit(numbers: Sequence[int], bins: int = 100) -> PaperFit:
    """Return the paper's quantities of so many Gaussian values, as they are on average.

    The largest of n values is taken at its median m, for which P(|N| < m)^n = ½.  R² is in
    `r2_gaussian`, which includes the scatter of counts; `r2` is that of the law without it.

    Args:
        numbers: of values of each weight.
        bins: number of equal bins.

    Example:
        >>> fit = gaussian_paper_fit([1_000_000])
        >>> [round(figure.item(), 2) for figure in (fit.r2_gaussian, fit.mu, fit.sigma)]
        [0.95, -1.38, 0.63]
    """
    n = torch.tensor(numbers, dtype=torch.float64)
    scale = 1 / (math.sqrt(2.0) * torch.erfinv(0.5 ** (1 / n)))
    masses = gaussian_masses(scale, bins)
    return paper_protocol(masses * n[:, None], torch.ones_like(scale), scale)


def _fit(counts: Float64[Tensor, "streams bins"]) -> _Curves:
    """Fit the curve to every row; rows that cannot be fitted have nan and a status."""
    centres = _centres(counts.shape[-1], counts.device)
    weighted = counts * centres
    peak = weighted.amax(-1)
    reaching = ((weighted >= _REACH * peak[:, None]) & (weighted > 0)).sum(-1)
    enough = (reaching >= _FEWEST_BINS).nonzero().squeeze(-1)
    found = _fit_full_rows(weighted[enough] / peak[enough, None], centres)
    found.figures[3] *= peak[enough]
    figures = torch.full((4, len(counts)), torch.nan, dtype=torch.float64, device=counts.device)
    figures[:, enough] = torch.where(found.status == Status.CONVERGED, found.figures, torch.nan)
    status = torch.where(peak > 0, int(Status.TOO_FEW_BINS), int(Status.EMPTY))
    status[enough] = found.status
    return _Curves(figures, status)


def _fit_full_rows(
    y: Float64[Tensor, "streams bins"], centres: Float64[Tensor, " bins"]
) -> _Curves:
    """Fit rows that have enough bins; the numbers are the last iterate's, converged or not."""
    mu, sigma, converged = fit_curve(centres, y)
    curve = paper_curve(centres, mu, sigma)
    amplitude = (curve * y).sum(-1) / (curve**2).sum(-1)
    spread = ((y - y.mean(-1, keepdim=True)) ** 2).sum(-1)
    r2 = 1.0 - ((y - amplitude[:, None] * curve) ** 2).sum(-1) / spread
    narrow = curve.sum(-1) ** 2 < _FEWEST_BINS_OF_CURVE * (curve**2).sum(-1)
    # Amplitude not finite: the peak is so far below the first bin that the curve underflows.
    peakless = ~(mu < sigma**2) | ~amplitude.isfinite()
    status = _status(converged, sigma, narrow, peakless)
    return _Curves(torch.stack([r2, mu, sigma, amplitude]), status)


def _status(
    converged: Bool[Tensor, " streams"],
    sigma: Float64[Tensor, " streams"],
    narrow: Bool[Tensor, " streams"],
    peakless: Bool[Tensor, " streams"],
) -> Int64[Tensor, " streams"]:
    status = torch.full_like(sigma, Status.CONVERGED, dtype=torch.int64)
    status[~converged] = Status.NOT_CONVERGED
    # Set after NOT_CONVERGED: a fit that still moves outward is at its bound, not lost.
    status[narrow | (sigma > _WIDEST)] = Status.AT_BOUND
    # The curve's peak is at ln x = μ' − σ'²; sigma is nan where the parabola opens upward.
    status[peakless] = Status.NO_INTERIOR_OPTIMUM
    return status
