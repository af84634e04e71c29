"""Energy of layers, and how it is spread over neurons, from sums over samples.

In one sample a layer has the energy E = Σ_i Z_i, where Z_i = z_i·y_i of neuron i (Eqs 36-39 of
arXiv 2405.10955).  Take the outputs y as they are, and let the neurons of this layer and of the one
before play a cooperative game, in which a coalition S is worth

    v(S) = Σ_{i ∈ S} b_i y_i + Σ_{i, j ∈ S} w_ij y_i y_j        i of this layer, j of the one before

Everybody together has v = E.  The Shapley value of a neuron, which here is its Banzhaf value too,
since no term has more than two players, is

    φ_i = ½(Z_i + b_i y_i)         φ_j = ½ y_j (Wᵀy)_j         Σ_i φ_i + Σ_j φ_j = E

With the neurons of this layer as the only players it is Z_i, whole.  Both are linear in v, so that
means over samples are the Shapley values of the mean game.  If the outputs were computed anew for
each coalition, contributions would differ.

Shares among n neurons with contributions x_(1) ≤ … ≤ x_(n) (C. Gini, 1912; the factor n/(n − 1) of
G. Deltas, Rev. Econ. Stat. 85 (2003) 226, makes it 1 if one neuron has all):

    G = Σ_k (2k − n − 1) x_(k) / ((n − 1) Σ_k x_(k))

Exponential values have G = ½, lognormal ones erf(σ/2), squares of Gaussian ones 2/π.

Means over S samples differ even of neurons that are alike: with c the standard deviation of a
neuron's energy over samples by its mean, the means of independent neurons are about Gaussian around
one value, with the relative spread s = c/√S.  By chance alone they have G = s/√π, and the share
1 − q + s·n(Φ⁻¹(q)) from the quantile q on (n is the Gaussian density): ¾ + 0.318 s, ½ + 0.399 s.
"""

from enum import IntFlag
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from jaynes_callbacks.statistics.binned import Binned

__all__ = [
    "STRONG",
    "EnergyFigures",
    "EnergyUnknown",
    "Shares",
    "contributions",
    "energy_figures",
    "gini",
    "gini_of_bins",
    "share_from",
    "threshold",
]

#: Strong are neurons whose contribution is at least this quantile of all: the first quartile.
STRONG = 0.25
#: The stronger half.
_HALF = 0.5


class EnergyUnknown(IntFlag):
    """What is not known of a stream; a record's status column shows its `reason`."""

    NONE = 0
    ONE_SAMPLE = 1
    NO_ENERGY = 2
    ONE_NEURON = 4
    NO_BIAS = 8
    NEGATIVE_SUM = 16

    @property
    def reason(self) -> str:
        """Describe what is missing, and why; empty if nothing is."""
        return "; ".join(text for flag, text in _REASONS.items() if flag in self)


_REASONS = {
    EnergyUnknown.ONE_SAMPLE: "fewer than two samples: no spread over samples",
    EnergyUnknown.NO_ENERGY: "no energy: every neuron is dead",
    EnergyUnknown.ONE_NEURON: "a single neuron: no Gini coefficient",
    EnergyUnknown.NO_BIAS: (
        "φ not known: z is not the output of a linear layer or a convolution as it left it "
        "(normalised, added to, pooled, or compiled)"
    ),
    EnergyUnknown.NEGATIVE_SUM: "the sum of φ is not positive: φ has no shares",
}


class Shares(NamedTuple):
    """How a sum is spread over neurons; nan where the sum is not positive.

    Attributes:
        gini: Gini coefficient.
        strong: share of the neurons from the first quartile on.
        top_half: share of the stronger half.
    """

    gini: Float64[Tensor, " streams"]
    strong: Float64[Tensor, " streams"]
    top_half: Float64[Tensor, " streams"]


class EnergyFigures(NamedTuple):
    """Figures of each stream; nan where `unknown` says why.

    Attributes:
        samples: whose energy is finite.
        left_out: samples whose energy is not.
        neurons: number of neurons.
        dead: how many of them have Z = 0 in each sample.
        energy: mean of E over samples.
        energy_std: standard deviation of E over samples.
        unit: mean of Z: E divided by the values in a sample.
        unit_std: standard deviation of E divided by the same.
        of_energy: shares of the neurons in E.
        sample_cv: standard deviation of a neuron's energy over samples, divided by its mean; the
            median over neurons that are not dead.
        phi_share: Σ_i φ_i/E of the layer's own neurons in the game with the layer before.
        of_phi: shares of the neurons in Σ_i φ_i.
        unknown: of `EnergyUnknown`.
    """

    samples: Int64[Tensor, " streams"]
    left_out: Int64[Tensor, " streams"]
    neurons: Int64[Tensor, " streams"]
    dead: Int64[Tensor, " streams"]
    energy: Float64[Tensor, " streams"]
    energy_std: Float64[Tensor, " streams"]
    unit: Float64[Tensor, " streams"]
    unit_std: Float64[Tensor, " streams"]
    of_energy: Shares
    sample_cv: Float64[Tensor, " streams"]
    phi_share: Float64[Tensor, " streams"]
    of_phi: Shares
    unknown: Int64[Tensor, " streams"]


def contributions(
    energies: Float64[Tensor, "*neurons"], bias_products: Float64[Tensor, "*neurons"]
) -> Float64[Tensor, "*neurons"]:
    """Return φ = ½(Z + b·y): the Shapley and Banzhaf value in the game of two layers."""
    return (energies + bias_products) / 2


def gini(
    values: Float64[Tensor, "streams n"], known: Bool[Tensor, "streams n"]
) -> Float64[Tensor, " streams"]:
    """Compute the Gini coefficient of each row; nan for one value or a sum that is not positive.

    Args:
        values: in any order.
        known: which of them count.
    """
    number = known.sum(-1, keepdim=True)
    ordered = torch.where(known, values, torch.inf).sort(-1).values
    rank = torch.arange(1, values.shape[-1] + 1, dtype=torch.float64, device=values.device)
    inside = rank <= number
    ordered = torch.where(inside, ordered, 0.0)
    weighted = ((2 * rank - number - 1) * ordered).sum(-1)
    total, number = ordered.sum(-1), number.squeeze(-1)
    return torch.where((total > 0) & (number > 1), weighted / ((number - 1) * total), torch.nan)


def gini_of_bins(binned: Binned, zeros: Int64[Tensor, " streams"]) -> Float64[Tensor, " streams"]:
    """Compute the Gini coefficient of all values of each stream, zeros included, from its bins.

    Each bin has its values at its middle; that they differ within a bin, at most 6 % wide, adds
    less than 0.0002.

    Args:
        binned: occupied bins in ascending order.
        zeros: number of zeros.
    """
    sums = binned.weights * (binned.lower.exp() + binned.upper.exp()) / 2
    total = sums.sum(-1, keepdim=True)
    reached = sums.cumsum(-1) / total
    share = binned.weights / (binned.total + zeros)[:, None]
    return 1 - (share * (2 * reached - sums / total)).sum(-1)


def threshold(
    values: Float64[Tensor, "rows n"], known: Bool[Tensor, "rows n"], quantile: float
) -> Float64[Tensor, "rows 1"]:
    """Return a quantile of each row, interpolated between its neighbours.

    Args:
        values: in any order.
        known: which of them count; of a row without any the quantile is infinite.
        quantile: from 0 to 1.
    """
    ordered = torch.where(known, values, torch.inf).sort(-1).values
    place = (known.sum(-1, keepdim=True) - 1).clamp(min=0) * quantile
    low = place.floor().long()
    high = (low + 1).clamp(max=values.shape[-1] - 1)
    below, above = ordered.gather(-1, low), ordered.gather(-1, high)
    part = place - low
    return torch.where(part > 0, below + part * (above - below), below)


def share_from(
    values: Float64[Tensor, "streams n"], known: Bool[Tensor, "streams n"], quantile: float
) -> Float64[Tensor, " streams"]:
    """Return what part of each row's sum the values have that reach a quantile of the row.

    nan where the sum is not positive.
    """
    reaches = known & (values >= threshold(values, known, quantile))
    total = torch.where(known, values, 0.0).sum(-1)
    share = torch.where(reaches, values, 0.0).sum(-1) / total
    return torch.where(total > 0, share, torch.nan)


def energy_figures(
    samples: Float64[Tensor, "streams 6"], neurons: Float64[Tensor, "streams neurons 5"]
) -> EnergyFigures:
    """Compute the energies of some streams, and how they are spread over samples and neurons.

    Args:
        samples: sums over samples, see `jaynes_callbacks.counts.energies`.
        neurons: sums of each neuron; those that have seen no sample are padding.

    Example:
        >>> import torch
        >>> samples = torch.tensor([[2.0, 0.0, 4.0, 14.0, 170.0, 2.0]], dtype=torch.float64)
        >>> neurons = [[[2.0, 2.0, 5.0, 17.0, 1.5], [2.0, 1.0, 9.0, 81.0, 3.0]]]
        >>> found = energy_figures(samples, torch.tensor(neurons, dtype=torch.float64))
        >>> found.energy.item(), found.unit.item(), round(found.of_energy.gini.item(), 4)
        (7.0, 3.5, 0.2857)
    """
    number, left_out, values, total, squares, with_bias = samples.unbind(-1)
    seen, active, sums, sums_of_squares, bias_products = neurons.unbind(-1)
    known = seen > 0
    energy, size = total / number, values / number
    several = number > 1
    energy_std = _spread(number, total, squares)
    mean = sums / seen.clamp(min=1)
    phi = contributions(mean, bias_products / seen.clamp(min=1))
    has_bias = (with_bias == number) & (number > 0)
    alive = known & (active > 0) & (mean > 0)
    cv = _spread(seen, sums, sums_of_squares) / mean
    sample_cv = torch.where(alive & several[:, None], cv, torch.nan).nanmedian(-1).values
    of_phi = Shares(*(torch.where(has_bias, each, torch.nan) for each in _shares(phi, known)))
    of_energy = _shares(mean, known)
    own, whole = (torch.where(known, each, 0.0).sum(-1) for each in (phi, mean))

    unknown = torch.zeros_like(number, dtype=torch.int64)
    for flag, rows in (
        (EnergyUnknown.ONE_SAMPLE, ~several),
        (EnergyUnknown.NO_ENERGY, ~(whole > 0)),
        (EnergyUnknown.ONE_NEURON, known.sum(-1) < 2),
        (EnergyUnknown.NO_BIAS, ~has_bias),
        (EnergyUnknown.NEGATIVE_SUM, has_bias & (whole > 0) & ~(own > 0)),
    ):
        unknown[rows] |= int(flag)
    return EnergyFigures(
        number.long(),
        left_out.long(),
        known.sum(-1),
        (known & (active == 0)).sum(-1),
        energy,
        energy_std,
        energy / size,
        energy_std / size,
        of_energy,
        sample_cv,
        torch.where(has_bias & (whole > 0), own / whole, torch.nan),
        of_phi,
        unknown,
    )


def _shares(values: Tensor, known: Tensor) -> Shares:
    return Shares(
        gini(values, known), share_from(values, known, STRONG), share_from(values, known, _HALF)
    )


def _spread(number: Tensor, sums: Tensor, squares: Tensor) -> Tensor:
    """Return the standard deviation of values from their sums; nan for fewer than two."""
    variance = (squares - sums.square() / number) / (number - 1)
    # What is left of equal values is a rounding error.
    exact = torch.where(variance * number < 1e-12 * squares, 0.0, variance)
    return torch.where(number > 1, exact, torch.nan).clamp(min=0).sqrt()
