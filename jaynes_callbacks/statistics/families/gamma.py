"""The gamma law, which contains the exponential (k = 1)."""

import torch
from torch import Tensor

from jaynes_callbacks.statistics.binned import Binned
from jaynes_callbacks.statistics.families.base import Parameter, SmoothFamily
from jaynes_callbacks.statistics.moments import LogMoments
from jaynes_callbacks.statistics.quadrature import LogDensity

__all__ = ["Gamma"]


class Gamma(SmoothFamily):
    """Law of density wᵏ⁻¹ exp(−w/θ)/(Γ(k) θᵏ)."""

    name = "gamma"
    label = "gamma"
    color = "#7f6fc9"
    dashes = (0, (1, 1))
    parameters = (
        Parameter("shape", "1", "gamma's shape k", symbol="k"),
        Parameter("scale", "w", "gamma's scale θ"),
    )

    def start(self, binned: Binned, moments: LogMoments) -> Tensor:
        """Approximate the maximum-likelihood estimate from raw values.

        It solves ln k − ψ(k) = ln(mean w) − mean(ln w) = s, so that k is close to
        (3 − s + √((s − 3)² + 24 s))/12 s (T. P. Minka, Estimating a Gamma distribution, 2002).
        """
        s = (moments.linear_mean.log() - moments.mean).clamp(min=1e-6)
        shape = (3 - s + ((s - 3) ** 2 + 24 * s).sqrt()) / (12 * s)
        return torch.stack([shape, moments.linear_mean / shape], -1)

    def log_density(self, parameters: Tensor, x: Tensor) -> LogDensity:
        """Return ln f = k y − eʸ − ln Γ(k) with y = x − ln θ."""
        shape, scale = parameters[:, :1], parameters[:, 1:]
        y = x - scale.log()
        ratio = y.exp()
        value = shape * y - ratio - torch.lgamma(shape)
        return LogDensity(value, (shape * (y - torch.digamma(shape)), ratio - shape))
