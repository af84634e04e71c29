"""Mean log-likelihood per value of grouped data, of many streams at once, and its derivatives.

f(θ) = Σ_k p̂_k ln P_k(θ) over the occupied bins, θ being the coordinates of a family's parameters.
The gradient is exact.  The Hessian is made of differences of a gradient.  Where the density changes
much within a bin that gradient is f's own; elsewhere it is that of the mean ln f(x) with every two
bins taken at their middle, which is cheaper and misses f's by a fraction (2 width/σ)²/12.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn.functional import pad

from jaynes_callbacks.statistics.binned import Binned
from jaynes_callbacks.statistics.families import SmoothFamily
from jaynes_callbacks.statistics.newton import Point
from jaynes_callbacks.statistics.quadrature import (
    FIT_NODES,
    REPORT_NODES,
    BinMass,
    LogDensity,
    bin_mass,
)

__all__ = ["CoarseLikelihood", "Likelihood"]

#: Difference of the coordinates from which the Hessian is made.
_DIFFERENCE = 1e-6


class _MergedBins(NamedTuple):
    """Neighbouring bins merged into groups, each represented by the mean of its middles."""

    share: Float64[Tensor, "streams groups"]
    middle: Float64[Tensor, "streams groups"]

    @classmethod
    def pairs(cls, binned: Binned) -> "_MergedBins":
        """Merge bins two by two: accurate enough for a Hessian, at half the cost."""
        return cls(binned.share, binned.middle).halved()

    def halved(self) -> "_MergedBins":
        """Merge the groups two by two."""
        odd = self.share.shape[1] % 2
        share = pad(self.share, (0, odd))
        middle = torch.cat([self.middle, self.middle[:, -odd:][:, :odd]], 1)
        # Strided halves: a reduction over a dimension of two costs several times as much.
        second, total = share[:, 1::2], share[:, ::2] + share[:, 1::2]
        beyond = (middle[:, 1::2] - middle[:, ::2]) * second / total
        return _MergedBins(total, middle[:, ::2] + beyond.nan_to_num_(nan=0.0))

    def subset(self, rows: Tensor) -> "_MergedBins":
        return _MergedBins(*(part[rows] for part in self))


class Likelihood(NamedTuple):
    """f of streams that are fitted together.

    Attributes:
        family: the law.
        binned: the occupied bins.
        share: p̂_k, their fractions of the values.
        merged: the same bins, merged two by two.
        exact_hessian: whether the Hessian is made of f's own gradient.
    """

    family: SmoothFamily
    binned: Binned
    share: Float64[Tensor, "streams bins"]
    merged: _MergedBins
    exact_hessian: bool

    @classmethod
    def of(cls, family: SmoothFamily, binned: Binned, *, exact_hessian: bool) -> "Likelihood":
        """Make the likelihood of a family from the bins of streams."""
        return cls(family, binned, binned.share, _MergedBins.pairs(binned), exact_hessian)

    def subset(self, rows: Tensor) -> "Likelihood":
        """Return the likelihood of some of the streams."""
        return self.of(self.family, self.binned.subset(rows), exact_hessian=self.exact_hessian)

    def at(self, theta: Float64[Tensor, "streams coordinates"]) -> Point:
        """Return f, its gradient and its Hessian."""
        around = _around(theta)
        if self.exact_hessian:
            mass = self._repeated(len(around)).mass(around.flatten(0, 1), REPORT_NODES)
            gradients = for_hessian = _means(mass.score, self.share)
        else:
            mass = self.mass(theta, FIT_NODES)
            gradients = _means(mass.score, self.share)
            densities = _densities(self.family, around, self.merged.middle)
            for_hessian = _means(densities.score, self.merged.share)
        value = (self.share * mass.log_mass[: len(theta)]).sum(-1)
        return Point(theta.clone(), value, gradients[0], _hessian(for_hessian))

    def mass(self, theta: Float64[Tensor, "streams coordinates"], nodes: int) -> BinMass:
        """Return ln P_k of each bin and its derivatives, by quadrature with so many nodes a bin."""
        natural = self.family.natural(theta)
        return bin_mass(
            self.family.log_density, natural, self.binned.lower, self.binned.upper, nodes
        )

    def _repeated(self, times: int) -> "Likelihood":
        """Repeat the streams, one copy after the other."""
        return self._replace(binned=Binned(*(part.repeat(times, 1) for part in self.binned)))


class CoarseLikelihood(NamedTuple):
    """Mean of ln f(x) with every four bins taken at their middle: near f, at a quarter of the cost.

    An objective for the first steps from a start that is far from the estimate; its gradient is
    f's within 2 % (tests/statistics/test_likelihood.py).
    """

    family: SmoothFamily
    merged: _MergedBins

    @classmethod
    def of(cls, likelihood: Likelihood) -> "CoarseLikelihood":
        """Make it for the same streams."""
        return cls(likelihood.family, likelihood.merged.halved())

    def subset(self, rows: Tensor) -> "CoarseLikelihood":
        """Return the likelihood of some of the streams."""
        return self._replace(merged=self.merged.subset(rows))

    def at(self, theta: Float64[Tensor, "streams coordinates"]) -> Point:
        """Return the mean, its gradient and its Hessian."""
        around = _around(theta)
        at = _densities(self.family, around, self.merged.middle)
        gradients = _means(at.score, self.merged.share)
        value = (self.merged.share * at.value[: len(theta)]).sum(-1)
        return Point(theta.clone(), value, gradients[0], _hessian(gradients))


def _around(
    theta: Float64[Tensor, "streams coordinates"],
) -> Float64[Tensor, "times streams coordinates"]:
    """Return θ itself and θ moved along each coordinate: one call then serves all of them."""
    directions = torch.eye(theta.shape[-1], dtype=theta.dtype, device=theta.device)[:, None]
    return torch.cat([theta[None], theta + _DIFFERENCE * directions])


def _densities(family: SmoothFamily, around: Tensor, middle: Tensor) -> LogDensity:
    return family.log_density(family.natural(around.flatten(0, 1)), middle.repeat(len(around), 1))


def _means(
    score: "Tensor | tuple[Tensor, ...]", share: Float64[Tensor, "streams bins"]
) -> Float64[Tensor, "times streams coordinates"]:
    """Average the score over the values, for each repetition of the streams."""
    parts = [part.unflatten(0, (-1, len(share))) * share for part in score]
    return torch.stack([part.sum(-1) for part in parts], -1)


def _hessian(
    gradients: Float64[Tensor, "times streams coordinates"],
) -> Float64[Tensor, "streams coordinates coordinates"]:
    """Return the symmetric Hessian, from the gradients at `_around`'s points."""
    hessian = (gradients[1:] - gradients[0]).permute(1, 2, 0) / _DIFFERENCE
    return (hessian + hessian.mT) / 2
