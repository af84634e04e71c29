"""Least squares of a lognormal curve through points, all streams at once.

By variable projection (G. H. Golub & V. Pereyra, SIAM J. Numer. Anal. 10 (1973) 413): the amplitude
is linear and is solved for exactly at every step, while Levenberg-Marquardt moves the other two
parameters.  These are the coefficients θ of the curve's logarithm, a parabola in
``t = (ln x − m)/s``, where m and s are mean and standard deviation of ln x under the ordinates:

    ``ln φ = θ₁ t − ½ θ₂ t²``,   ``σ² = s²/θ₂``,   ``μ = m + σ² (1 + θ₁/s)``

so that a ramp, whose σ is infinite, is the ordinary point θ₂ = 0 and no limit to be approached.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

__all__ = ["CurveFit", "fit_curve", "paper_curve"]

_ITERATIONS = 100
_SMALL_STEP = 1e-7
_FIRST_DAMPING = 1e-3
_EASE, _TIGHTEN = 0.1, 8.0


class CurveFit(NamedTuple):
    """Result of the least squares of each stream.

    Attributes:
        mu: μ of the curve, in ln x.
        sigma: σ of the curve; nan where its logarithm opens upward.
        converged: whether the last step was negligible.
    """

    mu: Float64[Tensor, " streams"]
    sigma: Float64[Tensor, " streams"]
    converged: Bool[Tensor, " streams"]


class _Points(NamedTuple):
    """Data of the fits.

    Powers of t are combinations of the powers of u = ln x, which all rows share.
    """

    y: Float64[Tensor, "streams points"]
    square: Float64[Tensor, " streams"]
    t_from_u: Float64[Tensor, "streams 5 5"]
    u: Float64[Tensor, "5 points"]

    def rows(self, index: Int64[Tensor, " left"]) -> "_Points":
        return _Points(self.y[index], self.square[index], self.t_from_u[index], self.u)


class _Projection(NamedTuple):
    """Sum of squares with the amplitude at its optimum for θ, and the derivatives of half of it."""

    cost: Float64[Tensor, " streams"]
    gradient: Float64[Tensor, "streams 2"]
    hessian: Float64[Tensor, "streams 2 2"]


def paper_curve(
    x: Float64[Tensor, " points"],
    mu: Float64[Tensor, " streams"],
    sigma: Float64[Tensor, " streams"],
) -> Float64[Tensor, "streams points"]:
    """Return the lognormal density ``LN(x; μ, σ) = exp(−(ln x − μ)²/2σ²)/(x σ √2π)``."""
    z = (x.log() - mu[:, None]) / sigma[:, None]
    return (-0.5 * z**2).exp() / (x * sigma[:, None] * math.sqrt(2.0 * math.pi))


def fit_curve(x: Float64[Tensor, " points"], y: Float64[Tensor, "streams points"]) -> CurveFit:
    """Minimise ``Σ (y − A·LN(x; μ, σ))²`` over A, μ and σ for every row of y.

    Args:
        x: positive abscissae, shared by all streams.
        y: non-negative ordinates of order one, at least two of each row positive.
    """
    log_x = x.log()
    share = y / y.sum(-1, keepdim=True)
    mean = share @ log_x
    std = (share * (log_x - mean[:, None]) ** 2).sum(-1).sqrt()
    exponents = torch.arange(5, device=y.device)[:, None]
    points = _Points(y, (y**2).sum(-1), _standardising(mean, std), log_x**exponents)
    # A lognormal density with these moments of ln x has its peak at t = −s.
    theta, converged = _levenberg_marquardt(points, torch.stack([-std, torch.ones_like(std)], -1))
    variance = std**2 / theta[:, 1]
    return CurveFit(mean + variance * (1.0 + theta[:, 0] / std), variance.sqrt(), converged)


def _standardising(
    mean: Float64[Tensor, " streams"], std: Float64[Tensor, " streams"]
) -> Float64[Tensor, "streams 5 5"]:
    """Return the coefficients of t^k = Σ_j C(k, j) (−m)^(k−j) s^(−k) u^j, k in rows."""
    rows = [
        [math.comb(k, j) * (-mean) ** max(k - j, 0) / std**k for j in range(5)] for k in range(5)
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _project(points: _Points, theta: Float64[Tensor, "streams 2"]) -> _Projection:
    """Solve for the amplitude A; differentiate the remaining cost, ½Σy² − ½⟨φ, y⟩²/⟨φ, φ⟩.

    With ∂φ = φ·(t, −t²/2) every inner product is a moment of φ² or of φ·y over the points.  The
    Hessian is exact, 2A²⟨∂φ, ∂φᵀ⟩ − A⟨∂∂ᵀφ, y⟩ − ⟨φ, φ⟩ ∂A ∂Aᵀ.  Gauss-Newton's JᵀJ converges too
    slowly where the curve fits badly, as on Gaussian weights.
    """
    first, second = theta.new_tensor([1.0, -0.5]), theta.new_tensor([1.0, -0.5, -0.5, 0.25])
    exponent = (theta * first)[:, None] @ points.t_from_u[:, 1:3]
    shape = (exponent.squeeze(1) @ points.u).exp_()
    in_u = torch.stack([shape.square() @ points.u.T, shape.mul_(points.y) @ points.u.T], dim=1)
    with_shape, with_data = (in_u @ points.t_from_u.mT).unbind(1)
    square = with_shape[:, :1]
    amplitude = with_data[:, :1] / square
    slopes_shape, slopes_data = with_shape[:, 1:3] * first, with_data[:, 1:3] * first
    slope = (slopes_data - 2.0 * amplitude * slopes_shape) / square
    bend = amplitude * (2.0 * amplitude * with_shape - with_data)[:, [2, 3, 3, 4]] * second
    hessian = bend.view(-1, 2, 2) - square[..., None] * slope[:, :, None] * slope[:, None]
    cost = points.square - (amplitude * with_data[:, :1]).squeeze(-1)
    return _Projection(cost, amplitude * (amplitude * slopes_shape - slopes_data), hessian)


def _levenberg_marquardt(
    points: _Points, start: Float64[Tensor, "streams 2"]
) -> tuple[Float64[Tensor, "streams 2"], Bool[Tensor, " streams"]]:
    """Minimise the projected cost of all rows; a row that has converged leaves the batch."""
    theta, converged = start.clone(), torch.zeros_like(start[:, 0], dtype=torch.bool)
    row = torch.arange(len(start), device=start.device)
    here, at, damping = start, _project(points, start), torch.full_like(start[:, 0], _FIRST_DAMPING)
    for _ in range(_ITERATIONS):
        step = _damped_step(at, damping)
        trial = _project(points, here + step)
        # A negligible step is taken even if rounding raises the cost: the fit has converged.
        negligible = (step.abs() <= _SMALL_STEP * (1.0 + here.abs())).all(-1)
        better = (trial.cost <= at.cost) | negligible
        here = torch.where(better[:, None], here + step, here)
        at = _Projection(*(_where(better, new, old) for new, old in zip(trial, at, strict=True)))
        damping = damping * torch.where(better, _EASE, _TIGHTEN)
        theta[row], converged[row] = here, negligible
        left = (~negligible).nonzero().squeeze(-1)
        row, here, damping, points = row[left], here[left], damping[left], points.rows(left)
        at = _Projection(*(field[left] for field in at))
        if not len(row):
            break
    return theta, converged


def _damped_step(
    at: _Projection, damping: Float64[Tensor, " streams"]
) -> Float64[Tensor, "streams 2"]:
    """Solve (H + λ·½tr|H|) step = −gradient with H made positive definite; nan where H = 0."""
    h_11, h_12, h_22 = at.hessian[:, 0, 0], at.hessian[:, 0, 1], at.hessian[:, 1, 1]
    mean, radius = (h_11 + h_22) / 2, torch.hypot((h_11 - h_22) / 2, h_12)
    lift = 2.0 * (radius - mean).clamp(min=0.0) + damping * (mean.abs() + radius)
    h_11, h_22 = h_11 + lift, h_22 + lift
    g_1, g_2 = at.gradient.unbind(-1)
    adjugate = torch.stack([h_12 * g_2 - h_22 * g_1, h_12 * g_1 - h_11 * g_2], dim=-1)
    return adjugate / (h_11 * h_22 - h_12**2)[:, None]


def _where(condition: Bool[Tensor, " streams"], new: Tensor, old: Tensor) -> Tensor:
    return torch.where(condition.view(-1, *[1] * (new.dim() - 1)), new, old)
