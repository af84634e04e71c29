"""Occupied bins of many streams side by side, on which every statistic works.

A stream occupies a few hundred of the grid's 4079 positive finite bins.  A batch [streams, bins] of
these alone is an order of magnitude smaller than the grid.  Nothing is lost: the gap is a sum over
occupied bins, and each bin keeps its own two edges.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from jaynes_callbacks.counts.grid import FIRST_NONFINITE, FIRST_POSITIVE, log_edges
from jaynes_callbacks.statistics.paper import FEWEST_WEIGHTS

__all__ = ["OPEN", "Binned", "occupied_bins"]

#: ln of a magnitude below every other: the lower edge of a bin that is open to zero.
OPEN = -1e4
#: Fewest counts of a bin of few values.
_FEWEST_COUNTS = 5


class Binned(NamedTuple):
    """Weighted bins of L streams, at most K of each; padding has weight zero.

    Attributes:
        weights: counts of the bins, or counts times a power of w.
        variances: variance of each weight, for bias corrections; of counts the counts themselves.
        lower: ln of the lower edges.
        upper: ln of the upper edges.
    """

    weights: Float64[Tensor, "streams bins"]
    variances: Float64[Tensor, "streams bins"]
    lower: Float64[Tensor, "streams bins"]
    upper: Float64[Tensor, "streams bins"]

    @property
    def total(self) -> Float64[Tensor, " streams"]:
        """Sum of the weights; the number of values if they are counts."""
        return self.weights.sum(-1)

    @property
    def share(self) -> Float64[Tensor, "streams bins"]:
        """Fractions p̂_k of the total; zeros in an empty row."""
        return self.weights / self.total.clamp(min=torch.finfo(torch.float64).tiny)[:, None]

    @property
    def occupied(self) -> Bool[Tensor, "streams bins"]:
        """Mask of the bins that are not padding."""
        return self.weights > 0

    @property
    def occupied_number(self) -> Int64[Tensor, " streams"]:
        """Number of occupied bins of each stream."""
        return self.occupied.sum(-1)

    @property
    def of_few_values(self) -> Bool[Tensor, " streams"]:
        """Mask of the streams whose bins `merged` joins: fewer values than the paper's layers have.

        There the bias of the gap, about 65/n where it is greatest, exceeds 0.002 nats.
        """
        return self.total < FEWEST_WEIGHTS

    @property
    def middle(self) -> Float64[Tensor, "streams bins"]:
        """Middles of the bins in ln w."""
        return (self.lower + self.upper) / 2

    def subset(self, rows: Tensor) -> "Binned":
        """Return some of the streams, by index or mask, cut to the bins that the longest has."""
        used = self.occupied[rows].any(0).nonzero()
        most = int(used[-1]) + 1 if len(used) else 1
        return Binned(*(part[rows, :most] for part in self))

    def shifted(self, distance: Float64[Tensor, " streams"]) -> "Binned":
        """Return the bins of other units: ln w grows by so much."""
        by = distance[:, None]
        return self._replace(lower=self.lower + by, upper=self.upper + by)

    def tilted(self, power: float = 1.0) -> "Binned":
        """Return the size-weighted law: each weight times w**power at the bin's middle in ln w.

        Weights are relative to the mean of ln w, so that they stay finite.
        """
        factor = (power * (self.middle - self._mean_log()[:, None])).exp()
        return self._replace(weights=self.weights * factor, variances=self.variances * factor**2)

    def censored(self, share: float = 0.05) -> "Binned":
        """Merge the lowest bins that hold at least `share` of the weight into one, open to zero."""
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

    def merged(self, streams: Bool[Tensor, " streams"] | None = None) -> "Binned":
        """Join neighbouring bins of some streams until each holds at least five values.

        The bias of the gap is (m − 1 − p)/2n only where every bin may expect some values; a fit to
        many bins of one value, with empty ones between them, has a greater one.  Bins are joined
        from the smallest magnitudes upwards, the empty ones between them included; what is left at
        the top joins the last.  The outermost edges stay where the values end, for that they end
        there tells a uniform law from others: with open ends its gap would fall from 0.42 to 0.32.

        Args:
            streams: whose bins are joined; by default those `of_few_values`.  All other streams
                keep their bins.
        """
        rows = (self.of_few_values if streams is None else streams).nonzero().squeeze(-1)
        if not len(rows):
            return self
        chosen = Binned(*(part[rows] for part in self))
        group = _groups(chosen.weights)
        weights, variances = (
            torch.zeros_like(part).scatter_add_(1, group, part)
            for part in (chosen.weights, chosen.variances)
        )
        ends = torch.full_like(chosen.upper, -torch.inf).scatter_reduce_(
            1, group, chosen.upper.where(chosen.occupied, -torch.inf), "amax"
        )
        # Each begins where the one before it ends.
        begins = torch.cat([chosen.lower[:, :1], ends[:, :-1]], 1)
        used = weights > 0
        # Padding has the edges of the middle bin, where densities are finite.
        middle = used.sum(-1, keepdim=True) // 2
        edges = (part.where(used, part.gather(1, middle)) for part in (begins, ends))
        merged = Binned(weights, variances, *edges)
        whole = Binned(*(part.clone() for part in self))
        for part, new in zip(whole, merged, strict=True):
            part[rows] = new
        return whole

    def _mean_log(self) -> Float64[Tensor, " streams"]:
        return (self.share * self.middle).sum(-1)


def occupied_bins(counts: Int64[Tensor, "streams 4096"]) -> Binned:
    """Gather the occupied bins of the grid's positive finite codes.

    The result is float64 on the counts' device, or on the CPU where the device has no float64.
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


def _groups(weights: Float64[Tensor, "streams bins"]) -> Int64[Tensor, "streams bins"]:
    """Number the groups of neighbouring bins that hold at least five values, stream by stream."""
    counts = weights.cpu().numpy()
    group = np.zeros(counts.shape, dtype=np.int64)
    number, held = (np.zeros(len(counts), dtype=kind) for kind in (np.int64, np.float64))
    for column, here in enumerate(counts.T):
        group[:, column] = number
        held += here
        full = held >= _FEWEST_COUNTS
        number += full
        held[full] = 0
    last = np.maximum(number - 1, 0)[:, None]
    return torch.from_numpy(np.minimum(group, last)).to(weights.device)


def _padding_codes(
    column: Int64[Tensor, " bins"], number: Int64[Tensor, " streams"]
) -> Int64[Tensor, " streams"]:
    """Return each row's median occupied code, where densities are finite; 1 of an empty row."""
    if not len(column):
        return torch.full_like(number, FIRST_POSITIVE)
    median = number.cumsum(0) - number + number // 2
    return column[median.clamp(max=len(column) - 1)] + FIRST_POSITIVE
