"""The paper's own protocol, faithfully (THEORY §6), and what random Gaussian weights score by it.

Magnitudes of one layer over their maximum, in equal bins on [0, 1]; the size-weighted count of a
bin is its centre times its count; A'·LN(x; μ', σ') is fitted by least squares, LN the lognormal
density.  A' is linear and is eliminated (variable projection, G. H. Golub & V. Pereyra, SIAM J.
Numer. Anal. 10 (1973) 413); (μ', ln σ') go by Levenberg-Marquardt, all layers at once.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from jaynes_callbacks.grid import FIRST_NONFINITE, FIRST_POSITIVE, edges
from jaynes_callbacks.statistics.status import Status

__all__ = ["PaperFit", "gaussian_linear", "linear_from_counts", "paper_curve", "paper_protocol"]

_MAX_ITERATIONS = 300
#: Converged when a step moves μ' and ln σ' by less than this.
_TOLERANCE = 1e-11
_LONGEST_STEP = 0.5
#: An optimum out here describes no peak within the data: a ramp or a spike in the first bin.
_MU_BOUNDS = (-12.0, 1.0)
_LOG_SIGMA_BOUNDS = (math.log(0.02), math.log(5.0))


class PaperFit(NamedTuple):
    """The paper's figures of L streams; nan where `status` is not `Status.CONVERGED`.

    Attributes:
        r2: coefficient of determination, 1 − Σ(s − ŝ)²/Σ(s − s̄)² over all bins.
        mu: μ' of w/max; of a lognormal layer μ + σ² − ln max.
        sigma: σ'; of a lognormal layer σ.
        amplitude: A'.
        status: a `Status` per stream.
    """

    r2: Float64[Tensor, " streams"]
    mu: Float64[Tensor, " streams"]
    sigma: Float64[Tensor, " streams"]
    amplitude: Float64[Tensor, " streams"]
    status: Int64[Tensor, " streams"]


class _Point(NamedTuple):
    """Residuals and their Jacobian at one (μ', ln σ') per stream."""

    theta: Float64[Tensor, "streams 2"]
    loss: Float64[Tensor, " streams"]
    amplitude: Float64[Tensor, " streams"]
    gradient: Float64[Tensor, "streams 2"]
    normal: Float64[Tensor, "streams 2 2"]


def linear_from_counts(
    counts: Int64[Tensor, "streams 4096"], maximum: Float64[Tensor, " streams"], bins: int
) -> Float64[Tensor, "streams {bins}"]:
    """Equal bins on [0, maximum] made from counts on the grid.

    Each code's count is split in proportion to overlap, as if spread evenly over its bin; the
    part of the highest code beyond the maximum goes to the last bin.
    """
    edge = edges(counts.device)[FIRST_POSITIVE : FIRST_NONFINITE + 1]
    number = counts[:, FIRST_POSITIVE:FIRST_NONFINITE].to(torch.float64)
    below = torch.nn.functional.pad(number.cumsum(-1), (1, 0))
    cut = maximum[:, None] * torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=edge.device)
    cut[:, -1] = torch.inf
    right = torch.searchsorted(edge, cut.contiguous()).clamp(1, len(edge) - 1)
    start, end = edge[right - 1], edge[right]
    part = ((cut - start) / (end - start)).clamp(0, 1)
    cumulative = torch.lerp(below.gather(-1, right - 1), below.gather(-1, right), part)
    return cumulative.diff(dim=-1)


def gaussian_linear(
    max_over_rms: Float64[Tensor, " streams"], bins: int
) -> Float64[Tensor, "streams {bins}"]:
    """Expected shares of Gaussian weights' magnitudes in equal bins on [0, max]."""
    cut = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=max_over_rms.device)
    return torch.erf(cut * max_over_rms[:, None] / math.sqrt(2)).diff(dim=-1)


def paper_curve(
    centres: Float64[Tensor, " bins"],
    mu: Float64[Tensor, " streams"],
    sigma: Float64[Tensor, " streams"],
) -> Float64[Tensor, "streams bins"]:
    """LN(x; μ', σ') = exp(−(ln x − μ')²/2σ'²)/(x σ' √2π)."""
    z = (centres.log() - mu[:, None]) / sigma[:, None]
    return (-(z**2) / 2).exp() / (centres * sigma[:, None] * math.sqrt(2 * math.pi))


def paper_protocol(linear: Float64[Tensor, "streams bins"]) -> PaperFit:
    """Fit the size-weighted counts of all streams at once.

    Args:
        linear: counts (or expected counts) of equal bins on [0, max].

    Returns:
        The paper's figures, with a status instead of a number where the least squares have no
        interior optimum (a uniform layer's ramp), end at a bound or do not converge.
    """
    number = linear.shape[-1]
    centres = (torch.arange(number, dtype=torch.float64, device=linear.device) + 0.5) / number
    scale = (linear * centres).amax(-1, keepdim=True)
    weighted = linear * centres / torch.where(scale > 0, scale, 1.0)
    point, status = _minimise(centres, weighted, _start(centres, weighted))
    occupied = (linear > 0).sum(-1)
    status = torch.where(occupied <= 3, Status.TOO_FEW_BINS, status)
    status = torch.where(occupied == 0, Status.EMPTY, status)
    total = (weighted - weighted.mean(-1, keepdim=True)).square().sum(-1)
    figures = (
        1 - point.loss / total,
        point.theta[:, 0],
        point.theta[:, 1].exp(),
        point.amplitude * scale[:, 0],
    )
    keep = status == Status.CONVERGED
    return PaperFit(*(torch.where(keep, figure, torch.nan) for figure in figures), status)


def _start(centres: Tensor, weighted: Tensor) -> Float64[Tensor, "streams 2"]:
    """Moments of ln x under the curve s(x): LN's own mean and standard deviation."""
    share = weighted / weighted.sum(-1, keepdim=True).clamp(min=1e-300)
    log_x = centres.log()
    mean = (share * log_x).sum(-1)
    spread = (share * (log_x - mean[:, None]) ** 2).sum(-1).sqrt()
    return torch.stack([mean, spread.clamp(0.05, 3.0).log()], -1)


def _evaluate(centres: Tensor, weighted: Tensor, theta: Tensor) -> _Point:
    """Kaufman's form of the projected Jacobian: −(I − ĉĉᵀ) ∂c/∂θ · A, ĉ the unit curve."""
    mu, sigma = theta[:, 0], theta[:, 1].exp()
    curve = paper_curve(centres, mu, sigma)
    norm = curve.norm(dim=-1, keepdim=True).clamp(min=1e-150)
    unit = curve / norm
    projection = (unit * weighted).sum(-1, keepdim=True)
    residual = weighted - projection * unit
    z = (centres.log() - mu[:, None]) / sigma[:, None]
    slopes = torch.stack([unit * z / sigma[:, None], unit * (z**2 - 1)], 1) * projection[:, None]
    slopes = slopes - (slopes * unit[:, None]).sum(-1, keepdim=True) * unit[:, None]
    gradient = (slopes @ residual[..., None]).squeeze(-1)
    loss = residual.square().sum(-1)
    return _Point(theta, loss, (projection / norm).squeeze(-1), gradient, slopes @ slopes.mT)


def _minimise(centres: Tensor, weighted: Tensor, theta: Tensor) -> tuple[_Point, Tensor]:
    best = _evaluate(centres, weighted, theta)
    damping = torch.full_like(best.loss, 1e-3)
    status = torch.full(best.loss.shape, int(Status.NOT_CONVERGED), device=theta.device)
    active = torch.arange(len(theta), device=theta.device)
    for _ in range(_MAX_ITERATIONS):
        here = _Point(*(part[active] for part in best))
        step = _damped_step(here, damping[active])
        trial = _evaluate(centres, weighted[active], here.theta + step)
        better = trial.loss <= here.loss
        for whole, new in zip(best, trial, strict=True):
            whole[active[better]] = new[better]
        damping[active] *= torch.where(better, 0.2, 5.0)
        small = step.abs().amax(-1) < _TOLERANCE
        status[active[small]] = Status.CONVERGED
        out = _outside(best.theta[active])
        status[active[out]] = Status.NO_INTERIOR_OPTIMUM
        active = active[~(small | out)]
        if not len(active):
            break
    return best, status


def _damped_step(point: _Point, damping: Tensor) -> Tensor:
    diagonal = point.normal.diagonal(dim1=-2, dim2=-1).clamp(min=1e-30)
    damped = point.normal + torch.diag_embed(damping[:, None] * diagonal + 1e-300)
    step = torch.linalg.solve_ex(damped, point.gradient)[0].nan_to_num(0.0, 0.0, 0.0)
    longest = step.abs().amax(-1, keepdim=True)
    return step * (_LONGEST_STEP / longest.clamp(min=_LONGEST_STEP))


def _outside(theta: Tensor) -> Tensor:
    mu, log_sigma = theta[:, 0], theta[:, 1]
    low, high = _MU_BOUNDS
    narrow, wide = _LOG_SIGMA_BOUNDS
    return (mu < low) | (mu > high) | (log_sigma < narrow) | (log_sigma > wide)
