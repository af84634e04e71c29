"""The mean log-likelihood per value of grouped data, of many streams at once, and its derivatives.

f(θ) = Σ_k p̂_k ln P_k(θ) over the occupied bins, in the parameters' coordinates.  The gradient is
exact.  The Hessian is taken by differences of a gradient: of f's own where the law changes much
within a bin, else of the density's at the middles of bins two by two, which misses f's by a share
(2 width/σ)²/12.
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

#: Difference of the coordinates by which the Hessian is taken.
_DIFFERENCE = 1e-6


class _Merged(NamedTuple):
    """Neighbouring bins taken together, each group at the mean of its values."""

    share: Float64[Tensor, "streams groups"]
    middle: Float64[Tensor, "streams groups"]

    @classmethod
    def pairs(cls, binned: Binned) -> "_Merged":
        """Bins two by two: enough for a Hessian, at half the price."""
        return cls(binned.share, binned.middle).halved()

    def halved(self) -> "_Merged":
        odd = self.share.shape[1] % 2
        share = pad(self.share, (0, odd))
        middle = torch.cat([self.middle, self.middle[:, -odd:][:, :odd]], 1)
        # Strided halves: a reduction over a dimension of two costs several times as much.
        second, total = share[:, 1::2], share[:, ::2] + share[:, 1::2]
        beyond = (middle[:, 1::2] - middle[:, ::2]) * second / total
        return _Merged(total, middle[:, ::2] + beyond.nan_to_num_(nan=0.0))

    def take(self, rows: Tensor) -> "_Merged":
        return _Merged(*(part[rows] for part in self))


class Likelihood(NamedTuple):
    """f of streams that are fitted together.

    Attributes:
        family: the law.
        binned: the occupied bins.
        share: their fractions p̂.
        merged: the same bins two by two.
        sharp: whether the Hessian is f's own.
    """

    family: SmoothFamily
    binned: Binned
    share: Float64[Tensor, "streams bins"]
    merged: _Merged
    sharp: bool

    @classmethod
    def of(cls, family: SmoothFamily, binned: Binned, *, sharp: bool) -> "Likelihood":
        """Of a family and the bins of streams."""
        return cls(family, binned, binned.share, _Merged.pairs(binned), sharp)

    def take(self, rows: Tensor) -> "Likelihood":
        """Some streams only."""
        return self.of(self.family, self.binned.take(rows), sharp=self.sharp)

    def at(self, theta: Float64[Tensor, "streams coordinates"]) -> Point:
        """f, its gradient and its Hessian."""
        around = _around(theta)
        if self.sharp:
            mass = self._repeated(len(around)).mass(around.flatten(0, 1), REPORT_NODES)
            gradients = slopes = _means(mass.score, self.share)
        else:
            mass = self.mass(theta, FIT_NODES)
            gradients = _means(mass.score, self.share)
            slopes = _means(
                _densities(self.family, around, self.merged.middle).score, self.merged.share
            )
        value = (self.share * mass.log_mass[: len(theta)]).sum(-1)
        return Point(theta.clone(), value, gradients[0], _hessian(slopes))

    def mass(self, theta: Float64[Tensor, "streams coordinates"], nodes: int) -> BinMass:
        """ln P_k of each bin and its derivatives, by so many nodes a bin."""
        natural = self.family.natural(theta)
        return bin_mass(
            self.family.log_density, natural, self.binned.lower, self.binned.upper, nodes
        )

    def _repeated(self, times: int) -> "Likelihood":
        """The same streams so many times over."""
        return self._replace(binned=Binned(*(part.repeat(times, 1) for part in self.binned)))


class CoarseLikelihood(NamedTuple):
    """The density's mean logarithm at the middles of bins four by four: f within a few thousandths.

    An objective for the first steps from a start that is far off.
    """

    family: SmoothFamily
    merged: _Merged

    @classmethod
    def of(cls, likelihood: Likelihood) -> "CoarseLikelihood":
        """Of the same streams."""
        return cls(likelihood.family, likelihood.merged.halved())

    def take(self, rows: Tensor) -> "CoarseLikelihood":
        """Some streams only."""
        return self._replace(merged=self.merged.take(rows))

    def at(self, theta: Float64[Tensor, "streams coordinates"]) -> Point:
        """The function, its gradient and its Hessian."""
        around = _around(theta)
        at = _densities(self.family, around, self.merged.middle)
        slopes = _means(at.score, self.merged.share)
        value = (self.merged.share * at.value[: len(theta)]).sum(-1)
        return Point(theta.clone(), value, slopes[0], _hessian(slopes))


def _around(
    theta: Float64[Tensor, "streams coordinates"],
) -> Float64[Tensor, "times streams coordinates"]:
    """θ itself and a difference along each coordinate, side by side: one call for all of them."""
    directions = torch.eye(theta.shape[-1], dtype=theta.dtype, device=theta.device)[:, None]
    return torch.cat([theta[None], theta + _DIFFERENCE * directions])


def _densities(family: SmoothFamily, around: Tensor, middle: Tensor) -> LogDensity:
    return family.log_density(family.natural(around.flatten(0, 1)), middle.repeat(len(around), 1))


def _means(
    score: "Tensor | tuple[Tensor, ...]", share: Float64[Tensor, "streams bins"]
) -> Float64[Tensor, "times streams coordinates"]:
    """Means over the values, of as many repetitions of the streams as there are."""
    parts = [part.unflatten(0, (-1, len(share))) * share for part in score]
    return torch.stack([part.sum(-1) for part in parts], -1)


def _hessian(
    slopes: Float64[Tensor, "times streams coordinates"],
) -> Float64[Tensor, "streams coordinates coordinates"]:
    """Symmetric, from the gradients at `_around`'s points."""
    hessian = (slopes[1:] - slopes[0]).permute(1, 2, 0) / _DIFFERENCE
    return (hessian + hessian.mT) / 2
