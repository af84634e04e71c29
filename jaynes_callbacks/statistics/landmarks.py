"""Where known laws lie in the plane of the microstructure map (THEORY §3, §4).

The plane is that of skewness and excess kurtosis of ln w.  Neither changes under w → c·w^a, so
that a law's place is the same for y and for Z = y², and for any normalisation; families of one
shape parameter are curves, and laws without one are points.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.special import polygamma

__all__ = ["LogShape", "generalized_gamma_shape", "half_student_t_shape", "landmarks"]

#: |q| beyond which the law is its limit, lognormal or uniform, within 1e-6.
_SMALLEST_Q, _LARGEST_Q = 1e-6, 1e6


class LogShape(NamedTuple):
    """Place of laws in the map.

    Attributes:
        skew: skewness of ln w.
        kurtosis: excess kurtosis of ln w.
    """

    skew: Float64[Tensor, " laws"]
    kurtosis: Float64[Tensor, " laws"]


def generalized_gamma_shape(q: Float64[Tensor, " laws"]) -> LogShape:
    """skew = sgn(q) ψ''(k)/ψ'(k)^{3/2}, excess kurtosis = ψ'''(k)/ψ'(k)², k = q⁻².

    Args:
        q: Prentice's: 0 is the lognormal, 1 every Weibull and the exponential (Laplace weights),
            √2 the half-normal (Gaussian weights), ∞ the uniform; the gamma has its σ here.

    Example:
        >>> import torch
        >>> gaussian = generalized_gamma_shape(torch.tensor([2.0], dtype=torch.float64).sqrt())
        >>> [round(figure.item(), 3) for figure in gaussian]
        [-1.535, 4.0]
    """
    shape = q.abs().clamp(_SMALLEST_Q, _LARGEST_Q) ** -2
    spread = polygamma(1, shape)
    return LogShape(
        q.sign() * polygamma(2, shape) / spread**1.5, polygamma(3, shape) / spread.square()
    )


def half_student_t_shape(dof: Float64[Tensor, " laws"]) -> LogShape:
    """From κ₂ = ¼[ψ'(½) + ψ'(ν/2)], κ₃ = ⅛[ψ''(½) − ψ''(ν/2)], κ₄ = 1/16[ψ'''(½) + ψ'''(ν/2)].

    Args:
        dof: degrees of freedom ν; 1 is the Cauchy, ∞ the half-normal.
    """
    half, tail = torch.full_like(dof, 0.5), dof / 2
    second = (polygamma(1, half) + polygamma(1, tail)) / 4
    third = (polygamma(2, half) - polygamma(2, tail)) / 8
    fourth = (polygamma(3, half) + polygamma(3, tail)) / 16
    return LogShape(third / second**1.5, fourth / second.square())


def landmarks() -> Mapping[str, tuple[float, float]]:
    """Skewness and excess kurtosis of ln w of the laws one knows, by their names for weights.

    >>> skew, kurtosis = landmarks()["Laplace"]
    >>> round(skew, 2), round(kurtosis, 2)
    (-1.14, 2.4)
    """
    q = torch.tensor([0.0, 1.0, math.sqrt(2.0), math.inf], dtype=torch.float64)
    gamma, student = generalized_gamma_shape(q), half_student_t_shape(torch.ones_like(q[:1]))
    skew, kurtosis = (torch.cat(parts).tolist() for parts in zip(gamma, student, strict=True))
    names = ("lognormal", "Laplace", "Gaussian", "uniform", "Cauchy")
    return dict(zip(names, zip(skew, kurtosis, strict=True), strict=True))
