"""What was counted of some streams at one moment: all that the statistics ever see."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from jaynes_callbacks.counts.counting import count_, linear_counts
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.statistics import clustered_standard_errors, jackknife_standard_error

__all__ = [
    "PAPER_BINS",
    "Tally",
    "counts_of_tensors",
    "reason_not_to_count",
    "tally_of_counts",
    "tally_of_groups",
    "tally_of_tensors",
]

#: Equal bins of the paper's protocol for weights; the paper does not state its own.
PAPER_BINS = 100


class Tally(NamedTuple):
    """Counts of L streams, and what only the values themselves could tell.

    Attributes:
        counts: magnitudes on the universal grid.
        maximum: largest finite magnitude, nan where only the counts know it (iota, and weights
            that are spread over ranks).
        linear: the paper's own equal bins on [0, maximum]; a row of zeros where they are to be
            made from the counts.
        errors: cluster-robust standard error of the lognormal's gap, nan where it is not known.
    """

    counts: Int64[Tensor, "streams 4096"]
    maximum: Float64[Tensor, " streams"]
    linear: Int64[Tensor, "streams bins"]
    errors: Float64[Tensor, " streams"]

    def joined(self, other: "Tally") -> "Tally":
        """These streams, then the other's, on this one's device, or the other's if it is empty."""
        device = (self if len(self.counts) else other).counts.device
        pairs = zip(self, other, strict=True)
        return Tally(*(torch.cat([ours.to(device), theirs.to(device)]) for ours, theirs in pairs))


def reason_not_to_count(tensor: Tensor) -> str:
    """Why a tensor has no magnitudes to count; empty if it has."""
    if tensor.is_meta:
        return "on the meta device, without values"
    if tensor.is_nested or tensor.layout is not torch.strided:
        return "sparse or nested, without one value per place"
    # Its type guard would have the checker take all other tensors for impossible.
    wraps: bool = is_traceable_wrapper_subclass(tensor)
    if wraps:
        return f"a {type(tensor).__name__}, whose values lie in other tensors (quantised, sharded)"
    if not tensor.dtype.is_floating_point:
        return f"of dtype {tensor.dtype}, not real floating-point"
    return ""


def counts_of_tensors(tensors: Sequence[Tensor]) -> Int64[Tensor, "streams 4096"]:
    """The magnitudes of every tensor as it is now, on the first one's device."""
    device = tensors[0].device if tensors else torch.device("cpu")
    counts = torch.zeros(len(tensors), CODES, dtype=torch.int64, device=device)
    for row, tensor in enumerate(tensors):
        count_(tensor, counts, row)
    return counts


def tally_of_tensors(tensors: Sequence[Tensor]) -> Tally:
    """Count every tensor as it is now, on the first one's device.

    Args:
        tensors: real floating-point tensors; the rows of each are clusters.  A sequence may make
            each of them when it is asked for: none is kept.
    """
    device = tensors[0].device if tensors else torch.device("cpu")
    tally = tally_of_counts(torch.zeros(len(tensors), CODES, dtype=torch.int64, device=device))
    for row, tensor in enumerate(tensors):
        count_(tensor, tally.counts, row)
        tally.maximum[row], tally.linear[row] = linear_counts(tensor, PAPER_BINS)
    return tally._replace(errors=clustered_standard_errors(tensors, tally.counts))


def tally_of_counts(counts: Int64[Tensor, "streams 4096"]) -> Tally:
    """Streams of which nothing but the counts is known."""
    unknown = torch.full((len(counts),), torch.nan, dtype=torch.float64, device=counts.device)
    return Tally(counts, unknown, counts.new_zeros(len(counts), PAPER_BINS), unknown.clone())


def tally_of_groups(groups: Int64[Tensor, "streams groups 4096"]) -> Tally:
    """Streams that were counted in groups of samples, whose spread gives the error of the gap."""
    if groups.shape[1] < 2:
        return tally_of_counts(groups.sum(1))
    errors = jackknife_standard_error(groups.transpose(0, 1))
    return tally_of_counts(groups.sum(1))._replace(errors=errors)
