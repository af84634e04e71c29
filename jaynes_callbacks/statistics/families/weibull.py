"""The Weibull, which contains the exponential (c = 1) and the Rayleigh law (c = 2)."""

import math

import torch
from torch import Tensor

from jaynes_callbacks.statistics.binned import Binned
from jaynes_callbacks.statistics.families.base import Parameter, SmoothFamily
from jaynes_callbacks.statistics.moments import LogMoments
from jaynes_callbacks.statistics.quadrature import LogDensity

__all__ = ["Weibull"]

#: y beyond which no mass is left; the square of its exponential is still finite.
_END = 300.0


class Weibull(SmoothFamily):
    """Law of density (c/λ)(w/λ)ᶜ⁻¹ exp(−(w/λ)ᶜ)."""

    name = "weibull"
    label = "Weibull"
    color = "#8a8f2a"
    dashes = (0, (3, 1, 1, 1))
    parameters = (
        Parameter("shape", "1", "Weibull's shape c", symbol="c"),
        Parameter("scale", "w", "Weibull's scale λ"),
    )

    def start(self, binned: Binned, moments: LogMoments) -> Tensor:
        """Match var ln w = π²/6c², then take the maximum-likelihood λ for that c, λᶜ = mean wᶜ."""
        shape = math.pi / math.sqrt(6) / moments.std
        power = binned.share.log() + shape[:, None] * binned.middle
        return torch.stack([shape, (torch.logsumexp(power, -1) / shape).exp()], -1)

    def log_density(self, parameters: Tensor, x: Tensor) -> LogDensity:
        """Return ln f = ln c + y − eʸ with y = c (x − ln λ)."""
        shape, scale = parameters[:, :1], parameters[:, 1:]
        y = (shape * (x - scale.log())).clamp(max=_END)
        excess = y.exp() - 1
        return LogDensity(shape.log() - 1 + y - excess, (1 - y * excess, shape * excess))
