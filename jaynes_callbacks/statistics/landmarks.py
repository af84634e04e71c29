"""Where known laws lie in the microstructure map: skewness and excess kurtosis of ln w.

Neither changes under w → c·w^a, so that a law has the same place for y and for Z = y², and under
any normalisation.  Families of one shape parameter are curves, laws without one are points.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

__all__ = [
    "GAUSSIAN_GAP",
    "LogShape",
    "generalized_gamma_shape",
    "half_student_t_shape",
    "landmarks",
]

#: Gap of Gaussian weights N, 0.1630 nats: the entropy of the best lognormal, which is
#: ½ ln(2πe Var ln|N|) + E ln|N| = ½ ln(2πe π²/8) − (γ + ln 2)/2, less that of |N|, ½ ln(πe/2).
GAUSSIAN_GAP = (math.log(math.pi**2 / 2) - float(np.euler_gamma) - math.log(2)) / 2
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

    @classmethod
    def of_cumulants(cls, second: Tensor, third: Tensor, fourth: Tensor) -> "LogShape":
        """Make it from the second, third and fourth cumulant of ln w."""
        return cls(third / second**1.5, fourth / second.square())


def generalized_gamma_shape(q: Float64[Tensor, " laws"]) -> LogShape:
    """Return skew = sgn(q) ψ''(k)/ψ'(k)^{3/2} and excess kurtosis = ψ'''(k)/ψ'(k)², k = q⁻².

    Args:
        q: Prentice's q, on the CPU: 0 is the lognormal, 1 every Weibull and the exponential
            (Laplace weights), √2 the half-normal (Gaussian weights), ∞ the uniform; a gamma law
            has q = σ.

    Example:
        >>> import torch
        >>> gaussian = generalized_gamma_shape(torch.tensor([2.0], dtype=torch.float64).sqrt())
        >>> [round(figure.item(), 3) for figure in gaussian]
        [-1.535, 4.0]
    """
    k = q.abs().clamp(_SMALLEST_Q, _LARGEST_Q) ** -2
    return LogShape.of_cumulants(_polygamma(1, k), q.sign() * _polygamma(2, k), _polygamma(3, k))


def half_student_t_shape(dof: Float64[Tensor, " laws"]) -> LogShape:
    """Return the place of |t|, of which ln w has the cumulants below.

    κ₂ = ¼[ψ'(½) + ψ'(ν/2)], κ₃ = ⅛[ψ''(½) − ψ''(ν/2)], κ₄ = 1/16[ψ'''(½) + ψ'''(ν/2)].

    Args:
        dof: degrees of freedom ν, on the CPU; 1 is the Cauchy, ∞ the half-normal.
    """
    half, tail = torch.full_like(dof, 0.5), dof / 2
    return LogShape.of_cumulants(
        (_polygamma(1, half) + _polygamma(1, tail)) / 4,
        (_polygamma(2, half) - _polygamma(2, tail)) / 8,
        (_polygamma(3, half) + _polygamma(3, tail)) / 16,
    )


def landmarks() -> Mapping[str, tuple[float, float]]:
    """Return skewness and excess kurtosis of ln w of well-known laws, by their names for weights.

    >>> skew, kurtosis = landmarks()["Laplace"]
    >>> round(skew, 2), round(kurtosis, 2)
    (-1.14, 2.4)
    """
    q = torch.tensor([0.0, 1.0, math.sqrt(2.0), math.inf], dtype=torch.float64)
    gamma, student = generalized_gamma_shape(q), half_student_t_shape(torch.ones_like(q[:1]))
    skew, kurtosis = (torch.cat(parts).tolist() for parts in zip(gamma, student, strict=True))
    names = ("lognormal", "Laplace", "Gaussian", "uniform", "Cauchy")
    return dict(zip(names, zip(skew, kurtosis, strict=True), strict=True))


def _polygamma(order: int, x: Float64[Tensor, " laws"]) -> Float64[Tensor, " laws"]:
    """Return ψ^(order)(x) by scipy: torch's ψ' is wrong by up to 5e-10."""
    # Imported here: it takes as long as a tenth of torch, and only maps are drawn with it.
    from scipy.special import polygamma

    return torch.from_numpy(np.asarray(polygamma(order, x.numpy()), dtype=np.float64))
