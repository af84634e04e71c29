"""Occupied bins of many streams side by side: what every statistic works on.

A stream occupies a few hundred of the grid's 4079 positive finite bins.  Gathering those makes a
batch [streams, bins] an order of magnitude smaller than the grid, exactly: the gap is a sum over
occupied bins, and each keeps its own two edges.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from jaynes_callbacks.counts.grid import FIRST_NONFINITE, FIRST_POSITIVE, log_edges

__all__ = ["OPEN", "Binned", "occupied_bins"]

#: ln of a magnitude below every other: the lower edge of a bin that is open to zero.
OPEN = -1e4


class Binned(NamedTuple):
    """Weighted bins of L streams, K at the most; padding has weight zero.

    Attributes:
        weights: counts, or tilted counts, of the bins.
        variances: variance of each weight, for bias corrections; of counts, the counts.
        lower: ln of the lower edges.
        upper: ln of the upper edges.
    """

    weights: Float64[Tensor, "streams bins"]
    variances: Float64[Tensor, "streams bins"]
    lower: Float64[Tensor, "streams bins"]
    upper: Float64[Tensor, "streams bins"]

    @property
    def total(self) -> Float64[Tensor, " streams"]:
        """Sum of the weights; of counts, n."""
        return self.weights.sum(-1)

    @property
    def share(self) -> Float64[Tensor, "streams bins"]:
        """Fractions p̂ of the bins; zeros in an empty row."""
        return self.weights / self.total.clamp(min=torch.finfo(torch.float64).tiny)[:, None]

    @property
    def occupied(self) -> Bool[Tensor, "streams bins"]:
        """Which bins are no padding."""
        return self.weights > 0

    @property
    def occupied_number(self) -> Int64[Tensor, " streams"]:
        """Number of occupied bins of each stream."""
        return self.occupied.sum(-1)

    @property
    def middle(self) -> Float64[Tensor, "streams bins"]:
        """ln of the bins' geometric middles."""
        return (self.lower + self.upper) / 2

    def take(self, rows: Tensor) -> "Binned":
        """Some streams only, by index or mask, and no more bins than the fullest has."""
        used = self.occupied[rows].any(0).nonzero()
        most = int(used[-1]) + 1 if len(used) else 1
        return Binned(*(part[rows, :most] for part in self))

    def tilted(self, power: float = 1.0) -> "Binned":
        """The size-weighted law: each bin's weight times w**power at its geometric middle."""
        factor = (power * (self.middle - self._reference()[:, None])).exp()
        return self._replace(weights=self.weights * factor, variances=self.variances * factor**2)

    def censored(self, share: float = 0.05) -> "Binned":
        """The lowest bins, until they hold at least `share` of the weight, made one open bin."""
        below = self.share.cumsum(-1) - self.share
        merged = (below < share) & self.occupied
        last = merged & ~torch.nn.functional.pad(merged, (0, 1))[:, 1:]

        def collect(part: Tensor) -> Tensor:
            whole = (part * merged).sum(-1, keepdim=True)
            return torch.where(merged, whole * last, part)

        return Binned(
            collect(self.weights),
            collect(self.variances),
            torch.where(last, OPEN, self.lower),
            self.upper,
        )

    def _reference(self) -> Float64[Tensor, " streams"]:
        return (self.share * self.middle).sum(-1)


def occupied_bins(counts: Int64[Tensor, "streams 4096"]) -> Binned:
    """Gather the occupied bins of the grid's positive finite codes.

    Float64 on the counts' device, on the CPU where the device has none.
    """
    if counts.device.type == "mps":
        counts = counts.cpu()
    positive = counts[:, FIRST_POSITIVE:FIRST_NONFINITE]
    row, column = positive.nonzero(as_tuple=True)
    number = positive.count_nonzero(-1)
    position = torch.arange(len(row), device=row.device) - (number.cumsum(0) - number)[row]
    shape = (len(counts), max(1, int(number.max()) if len(counts) else 1))
    code = _padding_codes(column, number)[:, None].repeat(1, shape[1])
    code[row, position] = column + FIRST_POSITIVE
    weights = torch.zeros(shape, dtype=torch.float64, device=counts.device)
    weights[row, position] = positive[row, column].to(torch.float64)
    edges = log_edges(counts.device)
    return Binned(weights, weights, edges[code], edges[code + 1])


def _padding_codes(
    column: Int64[Tensor, " bins"], number: Int64[Tensor, " streams"]
) -> Int64[Tensor, " streams"]:
    """A code in the midst of each row, where every fitted density is tame; 1 for an empty row."""
    if not len(column):
        return torch.full_like(number, FIRST_POSITIVE)
    median = number.cumsum(0) - number + number // 2
    return column[median.clamp(max=len(column) - 1)] + FIRST_POSITIVE
