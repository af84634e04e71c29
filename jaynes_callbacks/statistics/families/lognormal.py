"""The lognormal, the law that the theory predicts at arbitrage equilibrium."""

import math

import torch
from torch import Tensor

from jaynes_callbacks.statistics.binned import Binned
from jaynes_callbacks.statistics.families.base import Parameter, SmoothFamily
from jaynes_callbacks.statistics.moments import LogMoments
from jaynes_callbacks.statistics.quadrature import LogDensity

__all__ = ["Lognormal"]


class Lognormal(SmoothFamily):
    """Law of w whose x = ln w is normal with mean μ, standard deviation σ (the paper's Eq. 13)."""

    name = "lognormal"
    label = "lognormal"
    color = "#d55e00"
    dashes = "-"
    parameters = (
        Parameter("mu", "ln w", "lognormal's μ", "linear", column="mu"),
        Parameter("sigma", "ln w", "lognormal's σ", column="sigma", symbol="σ"),
    )
    contains_lognormal = True

    def start(self, binned: Binned, moments: LogMoments) -> Tensor:
        """Return mean and standard deviation of ln w."""
        return torch.stack([moments.mean, moments.std], -1)

    def log_density(self, parameters: Tensor, x: Tensor) -> LogDensity:
        """Return ln f = −z²/2 − ln σ√2π with z = (x − μ)/σ."""
        mu, sigma = parameters[:, :1], parameters[:, 1:]
        z = (x - mu) / sigma
        square = z * z
        value = square * -0.5 - (sigma.log() + math.log(2 * math.pi) / 2)
        return LogDensity(value, (z / sigma, square - 1))
