"""The axis from lognormal to uniform: Prentice's log-gamma model (Biometrika 61 (1974) 539)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.special import digamma, polygamma

from jaynes_callbacks.statistics.binned import Binned
from jaynes_callbacks.statistics.families.base import Parameter, SmoothFamily
from jaynes_callbacks.statistics.landmarks import generalized_gamma_shape
from jaynes_callbacks.statistics.moments import LogMoments
from jaynes_callbacks.statistics.quadrature import LogDensity

__all__ = ["GeneralizedGamma"]

_LARGEST_Q = 10.0
#: Below this |q| the functions of u = qz are summed as series, on which u = 0 is no exception.
_SMALL_Q = 0.01
_TERMS = 11
#: No mass is left here.
_END = 300.0
#: 1/k below which Binet's function is summed as a series, and its coefficients of k⁻¹, k⁻³, ….
_SMALL_RECIPROCAL = 0.1
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)


class GeneralizedGamma(SmoothFamily):
    """x = ln w = μ + σW with W of density |q| kᵏ exp(k(qW − e^{qW}))/Γ(k), k = q⁻².

    q = 0 is the lognormal, q = √2 with σ = 1/√2 the half-normal, q = 1 the Weibull, q = σ the
    gamma; q → ∞ tends to the uniform.  q → 0 alone is no proof of a lognormal: a folded Cauchy law
    has q = 0 too; the gap must vanish as well.
    """

    name = "generalized_gamma"
    parameters = (
        Parameter("mu", "linear"),
        Parameter("sigma"),
        Parameter("q", "linear", -_LARGEST_Q, _LARGEST_Q),
    )
    contains_lognormal = True
    skew_limit = 2.0

    def start(self, binned: Binned, moments: LogMoments) -> Tensor:
        """From the first three moments: skewness sgn(q) ψ''(k)/ψ'(k)^{3/2} falls with q."""
        grid = torch.linspace(0.0, _LARGEST_Q, 501, dtype=torch.float64, device=moments.skew.device)
        shape = grid[1:] ** -2
        spread = polygamma(1, shape)
        skewness = -generalized_gamma_shape(grid).skew
        place = torch.searchsorted(skewness, moments.skew.abs().nan_to_num(0.0))
        place = place.clamp(1, len(shape))
        size, shape = grid[place], shape[place - 1]
        q = -moments.skew.sign() * size
        sigma = moments.std * size / spread[place - 1].sqrt()
        return torch.stack(
            [moments.mean - sigma / q * (digamma(shape) - shape.log()), sigma, q], -1
        )

    def log_density(self, parameters: Tensor, x: Tensor) -> LogDensity:
        """−ln σ√2π − ς(q²) − z² φ₂(qz) with z = (x − μ)/σ.

        φ₂(u) = (eᵘ − 1 − u)/u² and Binet's function ς(1/k) = ln Γ(k) − (k − ½) ln k + k − ½ ln 2π:
        the density above without its cancelling infinities as q → 0.
        """
        mu, sigma, q = parameters[:, :1], parameters[:, 1:2], parameters[:, 2:]
        z = (x - mu) / sigma
        phi = _phi((q * z).clamp(max=_END), q)
        binet, binet_slope = _binet(q * q)
        square = z * z
        value = -(sigma.log() + math.log(2 * math.pi) / 2 + binet) - square * phi.second
        pull = z * phi.first
        by_q = -square * z * phi.second_slope - 2 * q * binet_slope
        return LogDensity(value, (pull / sigma, z * pull - 1, by_q))


class _Phi(NamedTuple):
    """φ₁ = (eᵘ − 1)/u, φ₂ = (eᵘ − 1 − u)/u² and dφ₂/du."""

    first: Tensor
    second: Tensor
    second_slope: Tensor


def _phi(u: Tensor, q: Tensor) -> _Phi:
    small = q.abs() < _SMALL_Q
    away = torch.where(u.abs() < 1e-7, 1e-7, u)
    first = away.expm1() / away
    second = (first - 1) / away
    closed = _Phi(first, second, (first - 2 * second) / away)
    if not small.any():
        return closed
    return _Phi(*map(lambda near, far: torch.where(small, near, far), _phi_series(u), closed))


def _phi_series(u: Tensor) -> _Phi:
    second, slope = torch.zeros_like(u), torch.zeros_like(u)
    for power in reversed(range(_TERMS)):
        slope = slope * u + second
        second = second * u + 1 / math.factorial(power + 2)
    return _Phi(1 + u * second, second, slope)


def _binet(reciprocal: Tensor) -> tuple[Tensor, Tensor]:
    """ς and dς/d(1/k) of 1/k."""
    near = reciprocal.clamp(max=_SMALL_RECIPROCAL)
    value, slope = torch.zeros_like(near), torch.zeros_like(near)
    for order, coefficient in reversed(list(enumerate(_STIRLING))):
        value = value * near**2 + coefficient
        slope = slope * near**2 + coefficient * (2 * order + 1)
    k = reciprocal.clamp(min=_SMALL_RECIPROCAL).reciprocal()
    closed = torch.lgamma(k) - (k - 0.5) * k.log() + k - math.log(2 * math.pi) / 2
    closed_slope = -k * k * (digamma(k) - k.log() + 0.5 / k)
    small = reciprocal < _SMALL_RECIPROCAL
    return torch.where(small, value * near, closed), torch.where(small, slope, closed_slope)
