"""Magnitudes of Gaussian weights: the null of Kaiming-normal initialisation."""

import math

from torch import Tensor

from jaynes_callbacks.statistics.binned import Binned
from jaynes_callbacks.statistics.families.base import Parameter, SmoothFamily
from jaynes_callbacks.statistics.moments import LogMoments
from jaynes_callbacks.statistics.quadrature import LogDensity

__all__ = ["HalfNormal"]


class HalfNormal(SmoothFamily):
    """Density √(2/π)/s · exp(−w²/2s²)."""

    name = "half_normal"
    parameters = (Parameter("scale"),)

    def start(self, binned: Binned, moments: LogMoments) -> Tensor:
        """The root mean square, the maximum-likelihood estimate from raw values."""
        return moments.rms[:, None]

    def log_density(self, parameters: Tensor, x: Tensor) -> LogDensity:
        """½ ln(2/π) + y − e²ʸ/2 with y = x − ln s."""
        y = x - parameters.log()
        square = (2 * y).exp()
        return LogDensity(math.log(2 / math.pi) / 2 + y - square / 2, (square - 1,))
