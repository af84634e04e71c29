"""The half-normal: magnitudes of Gaussian weights, as Kaiming-normal initialisation draws them."""

import math

from torch import Tensor

from jaynes_callbacks.statistics.binned import Binned
from jaynes_callbacks.statistics.families.base import Parameter, SmoothFamily
from jaynes_callbacks.statistics.moments import LogMoments
from jaynes_callbacks.statistics.quadrature import LogDensity

__all__ = ["HalfNormal"]


class HalfNormal(SmoothFamily):
    """Law of density √(2/π)/s · exp(−w²/2s²)."""

    name = "half_normal"
    label = "half-normal"
    color = "#009e73"
    dashes = "--"
    parameters = (Parameter("scale", "w", "half-normal's scale s, its root mean square"),)

    def start(self, binned: Binned, moments: LogMoments) -> Tensor:
        """Return the root mean square, the maximum-likelihood estimate from raw values."""
        return moments.rms[:, None]

    def log_density(self, parameters: Tensor, x: Tensor) -> LogDensity:
        """Return ln f = ½ ln(2/π) + y − e²ʸ/2 with y = x − ln s."""
        y = x - parameters.log()
        square = (2 * y).exp()
        return LogDensity(math.log(2 / math.pi) / 2 + y - square / 2, (square - 1,))
