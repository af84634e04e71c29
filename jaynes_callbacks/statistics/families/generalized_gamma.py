"""The generalized gamma, from lognormal to uniform.

Prentice's log-gamma model (R. L. Prentice, Biometrika 61 (1974) 539).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.special import digamma, polygamma

from jaynes_callbacks.statistics.binned import Binned
from jaynes_callbacks.statistics.families.base import Parameter, SmoothFamily
from jaynes_callbacks.statistics.moments import LogMoments
from jaynes_callbacks.statistics.quadrature import LogDensity

__all__ = ["GeneralizedGamma"]

_LARGEST_Q = 10.0
#: Below this |q| the functions of u = qz are summed as series, which are regular at u = 0.
_SMALL_Q = 0.01
_TERMS = 11
#: u beyond which no mass is left.
_END = 300.0
#: 1/k below which Binet's function is summed as a series, and its coefficients of k⁻¹, k⁻³, ….
_SMALL_RECIPROCAL = 0.1
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)


class GeneralizedGamma(SmoothFamily):
    """Law of w with ln w = μ + σW, W of density |q| kᵏ exp(k(qW − e^{qW}))/Γ(k), k = q⁻².

    q = 0 is the lognormal, q = √2 with σ = 1/√2 the half-normal, q = 1 the Weibull, q = σ the
    gamma; q → ∞ tends to the uniform.  q = 0 alone does not show a lognormal: a folded Cauchy law
    has q = 0 too.  The gap must vanish as well.
    """

    name = "generalized_gamma"
    label = "generalized gamma"
    color = "#8c8c8c"
    dashes = (0, (6, 2, 1, 2))
    parameters = (
        Parameter("mu", "ln w", "generalized gamma's μ", "linear"),
        Parameter("sigma", "ln w", "generalized gamma's σ"),
        Parameter(
            "q",
            "1",
            "Prentice's tilt away from lognormal, in [-10, 10]",
            "linear",
            -_LARGEST_Q,
            _LARGEST_Q,
            column="q",
        ),
    )
    contains_lognormal = True
    skew_limit = 2.0

    def start(self, binned: Binned, moments: LogMoments) -> Tensor:
        """Match three moments: |skewness| = −ψ''(k)/ψ'(k)^{3/2} of ln w rises with |q|, k = q⁻².

        torch's ψ' is good to 5e-10, which is enough for a start.
        """
        device = moments.skew.device
        sizes = torch.linspace(0.0, _LARGEST_Q, 501, dtype=torch.float64, device=device)[1:]
        shapes = sizes**-2
        variances = polygamma(1, shapes)
        skewness = -polygamma(2, shapes) / variances**1.5
        place = torch.searchsorted(skewness, moments.skew.abs().nan_to_num(0.0))
        place = place.clamp(max=len(sizes) - 1)
        size, k = sizes[place], shapes[place]
        q = -moments.skew.sign() * size
        sigma = moments.std * size / variances[place].sqrt()
        return torch.stack([moments.mean - sigma / q * (digamma(k) - k.log()), sigma, q], -1)

    def log_density(self, parameters: Tensor, x: Tensor) -> LogDensity:
        """Return ln f = −ln σ√2π − ς(q²) − z² φ₂(qz) with z = (x − μ)/σ.

        φ₂(u) = (eᵘ − 1 − u)/u² and Binet's function ς(1/k) = ln Γ(k) − (k − ½) ln k + k − ½ ln 2π:
        the density of the class, without terms that grow and cancel as q → 0.
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
    """Values of φ₁ = (eᵘ − 1)/u, φ₂ = (eᵘ − 1 − u)/u² and dφ₂/du."""

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
    """Return Binet's function ς and dς/d(1/k) at 1/k."""
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
