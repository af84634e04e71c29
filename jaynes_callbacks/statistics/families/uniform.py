"""The uniform: magnitudes of weights as PyTorch initialises them by default (Kaiming-uniform)."""

import torch
from torch import Tensor

from jaynes_callbacks.statistics.binned import Binned
from jaynes_callbacks.statistics.families.base import Family, Parameter
from jaynes_callbacks.statistics.moments import LogMoments

__all__ = ["Uniform"]


class Uniform(Family):
    """Law of density 1/a on [0, a].

    The grouped likelihood −n ln a + c_top ln(a − e) of a within the top occupied bin [e, e') is
    greatest at a = e·n/(n − c_top), or at e' where that is less.
    """

    name = "uniform"
    label = "uniform"
    color = "#cc79a7"
    dashes = ":"
    parameters = (Parameter("limit", "w", "uniform's upper end a"),)

    def start(self, binned: Binned, moments: LogMoments) -> Tensor:
        """Return the grouped maximum-likelihood estimate itself."""
        closed = torch.where(binned.occupied, binned.lower, -torch.inf)
        top = closed.argmax(-1, keepdim=True)
        edge, end = (part.gather(-1, top).exp() for part in (binned.lower, binned.upper))
        others = binned.total[:, None] - binned.weights.gather(-1, top)
        return torch.minimum(edge * binned.total[:, None] / others, end)

    def log_mass(self, parameters: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """Return ln((min(e', a) − e)/a) of a bin [e, e'); −∞ beyond a."""
        limit = parameters
        return ((torch.minimum(upper.exp(), limit) - lower.exp()).clamp(min=0) / limit).log()
