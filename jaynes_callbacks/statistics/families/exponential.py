"""Magnitudes of Laplace weights; for iota the Hopfield and Boltzmann prediction (Eq. 35)."""

from torch import Tensor

from jaynes_callbacks.statistics.binned import Binned
from jaynes_callbacks.statistics.families.base import Parameter, SmoothFamily
from jaynes_callbacks.statistics.moments import LogMoments
from jaynes_callbacks.statistics.quadrature import LogDensity

__all__ = ["Exponential"]


class Exponential(SmoothFamily):
    """Density exp(−w/b)/b."""

    name = "exponential"
    parameters = (Parameter("scale"),)

    def start(self, binned: Binned, moments: LogMoments) -> Tensor:
        """The mean, the maximum-likelihood estimate from raw values."""
        return moments.linear_mean[:, None]

    def log_density(self, parameters: Tensor, x: Tensor) -> LogDensity:
        """y − eʸ with y = x − ln b."""
        y = x - parameters.log()
        ratio = y.exp()
        return LogDensity(y - ratio, (ratio - 1,))
