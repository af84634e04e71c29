"""Magnitudes of Gaussian weights: the null of Kaiming-normal initialisation."""

import math

import torch
from torch import Tensor
from torch.special import log_ndtr

from jaynes_callbacks.statistics.binned import Binned
from jaynes_callbacks.statistics.families.base import Family, log_difference
from jaynes_callbacks.statistics.moments import LogMoments

__all__ = ["HalfNormal"]

#: Below this z the mass is a difference of erf, above it one of the upper tails.
_MEDIAN = 0.674


class HalfNormal(Family):
    """Density √(2/π)/s · exp(−w²/2s²)."""

    name = "half_normal"
    parameters = ("scale",)
    positive = (True,)

    def start(self, binned: Binned, moments: LogMoments) -> Tensor:
        """The root mean square, the maximum-likelihood estimate from raw values."""
        return moments.rms[:, None]

    def log_mass(self, parameters: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """ln(erf(z_b/√2) − erf(z_a/√2)); neighbouring edges differ by 3 %, so nothing cancels."""
        low, high = lower.exp() / parameters, upper.exp() / parameters
        central = high < _MEDIAN
        # The branch not taken sees harmless numbers: its gradient must not be 0 · ∞.
        near_low = torch.where(central, low, 0.0) / math.sqrt(2)
        near_high = torch.where(central, high, 1.0) / math.sqrt(2)
        near = (near_high.erf() - near_low.erf()).log()
        far_low, far_high = torch.where(central, 1.0, low), torch.where(central, 2.0, high)
        far = math.log(2) + log_difference(log_ndtr(-far_low), log_ndtr(-far_high))
        return torch.where(central, near, far)
