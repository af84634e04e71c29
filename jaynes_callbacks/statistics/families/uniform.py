"""Magnitudes of uniform weights: the null of PyTorch's default (Kaiming-uniform) initialisation."""

import torch
from torch import Tensor

from jaynes_callbacks.statistics.binned import Binned
from jaynes_callbacks.statistics.families.base import Family, Parameter
from jaynes_callbacks.statistics.moments import LogMoments

__all__ = ["Uniform"]


class Uniform(Family):
    """Density 1/a on [0, a].

    The grouped likelihood −n ln a + c_top ln(a − e) of a within the top occupied bin [e, e') is
    greatest at a = e·n/(n − c_top), or at e' if that lies beyond.
    """

    name = "uniform"
    parameters = (Parameter("limit"),)

    def start(self, binned: Binned, moments: LogMoments) -> Tensor:
        """The grouped maximum-likelihood estimate itself."""
        closed = torch.where(binned.occupied, binned.lower, -torch.inf)
        top = closed.argmax(-1, keepdim=True)
        edge, end = (part.gather(-1, top).exp() for part in (binned.lower, binned.upper))
        others = binned.total[:, None] - binned.weights.gather(-1, top)
        return torch.minimum(edge * binned.total[:, None] / others, end)

    def log_mass(self, parameters: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """ln((min(e_b, a) − e_a)/a); −∞ beyond a."""
        limit = parameters
        return ((torch.minimum(upper.exp(), limit) - lower.exp()).clamp(min=0) / limit).log()
