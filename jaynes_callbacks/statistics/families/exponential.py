"""Magnitudes of Laplace weights; for iota the Hopfield and Boltzmann prediction (Eq. 35)."""

from torch import Tensor

from jaynes_callbacks.statistics.binned import Binned
from jaynes_callbacks.statistics.families.base import Family, log_difference
from jaynes_callbacks.statistics.moments import LogMoments

__all__ = ["Exponential"]


class Exponential(Family):
    """Density exp(−w/b)/b."""

    name = "exponential"
    parameters = ("scale",)
    positive = (True,)

    def start(self, binned: Binned, moments: LogMoments) -> Tensor:
        """The mean, the maximum-likelihood estimate from raw values."""
        return moments.linear_mean[:, None]

    def log_mass(self, parameters: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """ln(exp(−e_a/b) − exp(−e_b/b)), exact in both tails."""
        return log_difference(-lower.exp() / parameters, -upper.exp() / parameters)
