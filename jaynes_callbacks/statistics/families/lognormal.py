"""The theory's prediction."""

import torch
from torch import Tensor
from torch.special import log_ndtr

from jaynes_callbacks.statistics.binned import Binned
from jaynes_callbacks.statistics.families.base import Family, log_difference
from jaynes_callbacks.statistics.moments import LogMoments

__all__ = ["Lognormal"]


class Lognormal(Family):
    """ln w is normal with mean μ and standard deviation σ (the paper's Eq. 13)."""

    name = "lognormal"
    parameters = ("mu", "sigma")
    positive = (False, True)
    contains_lognormal = True

    def start(self, binned: Binned, moments: LogMoments) -> Tensor:
        """Mean and standard deviation of ln w."""
        return torch.stack([moments.mean, moments.std], -1)

    def log_mass(self, parameters: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """ln(Φ(z_b) − Φ(z_a)), mirrored where the upper tail is the smaller one."""
        mu, sigma = parameters[:, :1], parameters[:, 1:]
        low, high = (lower - mu) / sigma, (upper - mu) / sigma
        mirrored = low + high > 0
        inner = torch.where(mirrored, -low, high)
        outer = torch.where(mirrored, -high, low)
        return log_difference(log_ndtr(inner), log_ndtr(outer))
