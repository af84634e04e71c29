"""The exponential: magnitudes of Laplace weights.

For iota it is what the paper derives for Hopfield networks and Boltzmann machines (Eq. 35).
"""

from torch import Tensor

from jaynes_callbacks.statistics.binned import Binned
from jaynes_callbacks.statistics.families.base import Parameter, SmoothFamily
from jaynes_callbacks.statistics.moments import LogMoments
from jaynes_callbacks.statistics.quadrature import LogDensity

__all__ = ["Exponential"]


class Exponential(SmoothFamily):
    """Law of density exp(−w/b)/b."""

    name = "exponential"
    label = "exponential"
    color = "#e69f00"
    dashes = "-."
    parameters = (Parameter("scale", "w", "exponential's scale b, its mean"),)

    def start(self, binned: Binned, moments: LogMoments) -> Tensor:
        """Return the mean, the maximum-likelihood estimate from raw values."""
        return moments.linear_mean[:, None]

    def log_density(self, parameters: Tensor, x: Tensor) -> LogDensity:
        """Return ln f = y − eʸ with y = x − ln b."""
        y = x - parameters.log()
        ratio = y.exp()
        return LogDensity(y - ratio, (ratio - 1,))
