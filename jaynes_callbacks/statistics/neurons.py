"""Variance of ln y within and between neurons, from power sums of each neuron.

With values l_ji = ln y of neuron j, i = 1 … n_j, and the model l_ji = m + r_j + e_ji, where r_j are
scales of the neurons and e_ji have the same law in each, one-way analysis of variance gives

    V_e = Σ_j Σ_i (l_ji − l̄_j)² / Σ_j (n_j − 1)                  within neurons
    V_r = Σ_j (l̄_j − l̄)² / (J − 1) − V_e · mean_j(1/n_j)          between, l̄ the mean of the l̄_j
    share = V_r⁺ / (V_r⁺ + V_e)

J neurons have values.  Both variances are unbiased for independent values (H. Scheffé, The Analysis
of Variance, 1959, chapter 7).  Centring n values by their own mean multiplies the cumulants of e,
summed over the values, by

    κ₃:  n (1 − 1/n)(1 − 2/n)        κ₄:  n (n − 1)((n − 1)³ + 1)/n⁴

which is divided out, so that skewness and excess kurtosis within neurons are those of e.  None of
the figures within neurons changes if a neuron's y is multiplied by a number, y_j → λ_j y_j; share
and V_r do.  A network of ReLUs computes the same function whatever the λ_j if each is divided out
of the weights that follow.
"""

from enum import IntEnum
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

__all__ = ["NeuronMoments", "NeuronStatus", "neuron_moments"]

#: Sums of squares below so much of what was subtracted to get them are rounding errors.
_ROUNDING = 1e-12


class NeuronStatus(IntEnum):
    """Whether all figures of a stream are known; a record's status column shows its `reason`."""

    OK = 0
    EMPTY = 1
    SINGLE_VALUES = 2
    CONSTANT = 3
    ONE_NEURON = 4

    @property
    def reason(self) -> str:
        """Describe what is missing, and why, in one phrase."""
        return _REASONS[self]


_REASONS = {
    NeuronStatus.OK: "ok",
    NeuronStatus.EMPTY: "no finite non-zero value in float32's range",
    NeuronStatus.SINGLE_VALUES: "no neuron has two values",
    NeuronStatus.CONSTANT: "the values of each neuron are equal",
    NeuronStatus.ONE_NEURON: "fewer than two neurons with values: nothing lies between them",
}


class NeuronMoments(NamedTuple):
    """Figures of each stream; nan where `status` says why.

    Attributes:
        neurons: number of neurons.
        dead: how many of them have no finite, non-zero value.
        n: finite, non-zero values of all.
        share: share of the variance of ln y that lies between neurons, from 0 to 1.
        between: standard deviation of the neurons' means of ln y, sampling error taken off.
        within: standard deviation of ln y within neurons.
        skew: skewness of ln y within neurons.
        kurtosis: excess kurtosis of ln y within neurons.
        status: of `NeuronStatus`.
    """

    neurons: Int64[Tensor, " streams"]
    dead: Int64[Tensor, " streams"]
    n: Int64[Tensor, " streams"]
    share: Float64[Tensor, " streams"]
    between: Float64[Tensor, " streams"]
    within: Float64[Tensor, " streams"]
    skew: Float64[Tensor, " streams"]
    kurtosis: Float64[Tensor, " streams"]
    status: Int64[Tensor, " streams"]


def neuron_moments(sums: Float64[Tensor, "streams neurons 6"]) -> NeuronMoments:
    """Compute variances within and between neurons, and the shape of what lies within.

    Args:
        sums: of each neuron the numbers of `jaynes_callbacks.counts.log_powers`: values seen, n,
            Σ l, Σ l², Σ l³, Σ l⁴.  Neurons that have seen no value are padding.

    Example:
        >>> import torch
        >>> logs = torch.tensor([[0.0, 2.0], [10.0, 12.0]], dtype=torch.float64)
        >>> powers = [logs.pow(power).sum(-1) for power in range(5)]
        >>> found = neuron_moments(torch.stack([powers[0], *powers], -1)[None])
        >>> round(found.within.item() ** 2, 6), round(found.between.item() ** 2, 6)  # 50 - 2/2
        (2.0, 49.0)
    """
    seen, n, first, second, third, fourth = sums.unbind(-1)
    active = n > 0
    number = active.sum(-1)
    safe = n.clamp(min=1)
    mean = first / safe
    # Central sums of each neuron from sums about zero.
    squares = (second - first * mean).clamp(min=0)
    cubes = third - mean * (3 * second - 2 * first * mean)
    fourths = fourth - mean * (4 * third - mean * (6 * second - 3 * first * mean))

    freedom = (n - 1).clamp(min=0).sum(-1)
    total = squares.sum(-1)
    variance = total / freedom
    centre = (mean * active).sum(-1) / number
    spread = ((mean - centre[:, None]).square() * active).sum(-1) / (number - 1)
    between = (spread - variance * (active / safe).sum(-1) / number).clamp(min=0)

    of_cubes = ((safe - 1) * (safe - 2) / safe).sum(-1)
    shrunk = 1 - 1 / safe
    of_fourths = ((safe - 1) * ((safe - 1) ** 3 + 1) / safe**3).sum(-1)
    gaussian = 3 * variance.square() * (safe * shrunk.square()).sum(-1)
    skew = cubes.sum(-1) / of_cubes / variance**1.5
    kurtosis = (fourths.sum(-1) - gaussian) / of_fourths / variance.square()

    status = torch.zeros_like(number)
    status[number < 2] = NeuronStatus.ONE_NEURON
    status[total <= _ROUNDING * second.sum(-1)] = NeuronStatus.CONSTANT
    status[freedom == 0] = NeuronStatus.SINGLE_VALUES
    status[number == 0] = NeuronStatus.EMPTY
    varied = (status == NeuronStatus.OK) | (status == NeuronStatus.ONE_NEURON)
    compared = (number >= 2) & (freedom > 0)

    def known(values: Tensor, where: Tensor) -> Tensor:
        return torch.where(where & values.isfinite(), values, torch.nan)

    return NeuronMoments(
        (seen > 0).sum(-1),
        ((seen > 0) & ~active).sum(-1),
        n.sum(-1).to(torch.int64),
        known(between / (between + variance), compared),
        known(between.sqrt(), compared),
        known(variance.sqrt(), freedom > 0),
        known(skew, varied),
        known(kurtosis, varied),
        status,
    )
