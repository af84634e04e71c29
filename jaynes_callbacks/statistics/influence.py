"""The effect on a tensor's gap of leaving out some of its rows, columns or single values.

Standard errors follow from these effects where rows or columns share a scale (the delete-a-group
jackknife, `statistics.dependence`).  They are few numbers: those of a start can be kept, and
subtracted from those of an end to give the effects on the change.

Nothing is fitted anew.  With p the shares of bins, d = ln(p/P) the gap's influence function there,
and q the shares of bins within a group of n_g of the n values, leaving it out is p − ε(q − p) with
ε = n_g/(n − n_g), and to second order lowers the gap by

    ε Σ (q − p) d − ε²/2 [Σ (q − p)²/p − m₁² − (m₂ − 1)²/2],

where m₁, m₂ are the group's means of z and z², z = (ln w − μ)/σ: what the lognormal, fitted anew,
makes up for.  The second term matters: rows of unlike scales are far from p.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from torch.nn.functional import pad
from torch.special import log_ndtr

from jaynes_callbacks.counts.grid import CODES, FIRST_NONFINITE, FIRST_POSITIVE, log_edges
from jaynes_callbacks.counts.groups import BLOCK, GroupCounts
from jaynes_callbacks.statistics.families import LOGNORMAL

__all__ = ["Influence", "influences", "row_stride"]

#: Fewer rows or columns than this say nothing about the spread between them.
_FEWEST_CLUSTERS = 10
#: Most groups of rows, and of columns.
_MOST_GROUPS = 512
#: Of a tensor with more values only evenly spread rows are read, but never fewer than so many, nor
#: than one in √columns.
_ENOUGH_VALUES, _ENOUGH_ROWS = 1 << 18, 256
#: Single values that stand for all.
_SINGLE_VALUES = 4096
#: Fractional part of the golden ratio, whose multiples are spread evenly over [0, 1).
_GOLDEN = (math.sqrt(5) - 1) / 2


class Influence(NamedTuple):
    """What leaving out some values does to the gap of a tensor, or to its change, in nats.

    Attributes:
        rows: effect of each group of rows, of those that were read.
        columns: effect of each group of columns (second dimension); none if there are
            fewer than ten columns.
        values: effect of single values, about 4096 evenly spread ones of the rows that were read.
        squares: sum of squares of the effects of all single values of these rows.
        rows_read: share of the rows that were read.
    """

    rows: Float64[Tensor, " rows"]
    columns: Float64[Tensor, " columns"]
    values: Float64[Tensor, " values"]
    squares: Float64[Tensor, ""]
    rows_read: float

    def less(self, start: "Influence") -> "Influence | None":
        """Return the effects on the gap's change since `start`; None for another shape.

        The sum of squares of a change is estimated as the ends' own sums times the share that is
        left of them among `values`: a few values of the far tail have much of it.
        """
        pairs = list(zip(self[:3], start[:3], strict=True))
        if any(ours.shape != theirs.shape for ours, theirs in pairs):
            return None
        rows, columns, values = (ours - theirs.to(ours.device) for ours, theirs in pairs)
        ends = self.values.square().sum() + start.values.to(values.device).square().sum()
        left = values.square().sum() / ends.clamp(min=torch.finfo(torch.float64).tiny)
        squares = left * (self.squares + start.squares.to(values.device))
        return self._replace(rows=rows, columns=columns, values=values, squares=squares)

    @property
    def standard_error(self) -> Float64[Tensor, ""]:
        """Two-way cluster-robust standard error of the gap, or of its change, in nats.

        V = V_rows + V_columns − V_values, each a jackknife's variance (A. C. Cameron,
        J. B. Gelbach & D. L. Miller, J. Bus. Econ. Statist. 29 (2011) 238); no less than V_rows,
        which is all where there are too few columns.  What rows share is averaged over all rows,
        read or not, what columns share is not: only V_rows is multiplied by the share of rows that
        were read.  The difference of the other two then has a sampling error that is large beside
        V_rows, and counts only from twice that error on.
        """
        variance = self.rows_read * _variance(self.rows)
        if groups := len(self.columns):
            shared = _variance(self.columns) - self.squares
            least = self.squares * (2 * math.sqrt(2 / groups) if self.rows_read < 1 else 0.0)
            variance = variance + torch.where(shared < least, 0.0, shared)
        return variance.sqrt()


class _Shape(NamedTuple):
    """The occupied bins of one tensor, or of several.

    Attributes:
        share: p, of the values.
        deviance: d, less its mean over the values; nan for two bins or fewer.
        place: z of the bin's middle.
        single: what leaving out one value of the bin does to the gap.
        squares: sum of the squares of `single` over all values.
    """

    share: Float64[Tensor, "*tensors bins"]
    deviance: Float64[Tensor, "*tensors bins"]
    place: Float64[Tensor, "*tensors bins"]
    single: Float64[Tensor, "*tensors bins"]
    squares: Float64[Tensor, " *tensors"]


def influences(
    tensors: Sequence[Tensor],
    counts: Int64[Tensor, "tensors 4096"],
    apply: Callable[..., Iterable[Any]] = map,
    release: Callable[[Tensor], object] = lambda _: None,
) -> list[Influence | None]:
    """Compute what leaving out rows, columns and single values does to the gap of each tensor.

    Of a tensor of more than 2**18 values every k-th row is read, at least 256 of them and one in
    √columns.  An accelerator is not waited for.

    Args:
        tensors: real floating-point tensors ``[rows, columns, …]``, such as the layers' weights.
        counts: of the same tensors, on the universal grid.
        apply: a function like `map`; that of a pool of threads reads several tensors at once.
        release: called with each part of a tensor after its last use, such as to drop the pages of
            a mapped file.

    Returns:
        One for each tensor, on its device; nan without a fit; None for fewer than two dimensions or
        ten rows, or without values.
    """
    columns = _occupied_columns(counts[:, FIRST_POSITIVE:FIRST_NONFINITE])
    # Codes that take no part lie beyond the last bin.
    bins = torch.full((CODES,), len(columns), dtype=torch.int64, device=counts.device)
    bins[columns + FIRST_POSITIVE] = torch.arange(len(columns), device=counts.device)
    shapes = [_Shape(*each) for each in zip(*_shapes(counts, columns), strict=True)]
    return list(apply(partial(_influence, release, bins), tensors, shapes))


def _influence(
    release: Callable[[Tensor], object],
    bins: Int64[Tensor, " 4096"],
    tensor: Tensor,
    shape: _Shape,
) -> Influence | None:
    if tensor.dim() < 2 or len(tensor) < _FEWEST_CLUSTERS or not tensor.numel():
        return None
    shape = _Shape(*(part.to(tensor.device) for part in shape))
    flat = tensor.detach().flatten(1)
    columns = tensor.shape[1] if tensor.shape[1] >= _FEWEST_CLUSTERS else 0
    rows = flat[:: row_stride(tensor)]
    by_row, by_column, chosen = _grouped(
        rows, columns, bins.to(tensor.device), len(shape.share), release
    )
    rows_read = len(rows) / len(flat)
    # A value is a greater part of fewer.
    return Influence(
        _effects(by_row, shape),
        _effects(by_column, shape),
        pad(shape.single, (0, 1))[chosen] / rows_read,
        shape.squares / rows_read,
        rows_read,
    )


def _variance(effects: Float64[Tensor, " groups"]) -> Float64[Tensor, ""]:
    """Return the jackknife's variance; groups without values, whose effect is zero, do not count.

    (G − 1)/G Σ (δ_g − δ̄)².
    """
    counts = effects != 0
    number = counts.sum().clamp(min=1)
    spread: Tensor = (((effects - effects.sum() / number) * counts) ** 2).sum()
    return spread * (number - 1) / number


def _effects(grouped: Int64[Tensor, "groups bins"], shape: _Shape) -> Float64[Tensor, " groups"]:
    """Return the gap less the gap without each group; zero of a group without values.

    Args:
        grouped: counts of each group, by bin.
        shape: of the whole tensor.
    """
    counts = grouped.to(torch.float64)
    n = counts.sum(-1)
    part = n / (n.sum() - n)
    share = counts / n.clamp(min=1)[:, None]
    chi_square = share**2 @ torch.where(shape.share > 0, shape.share.reciprocal(), 0.0) - 1
    effects = _effect(
        part,
        share @ shape.deviance,
        chi_square,
        share @ shape.place,
        share @ shape.place**2,
    )
    return torch.where(n > 0, effects, 0.0 * effects)


def _effect(
    part: Tensor, first: Tensor, chi_square: Tensor, mean: Tensor, square: Tensor
) -> Tensor:
    """Return the expansion at the head of this module; `mean` and `square` are m₁ and m₂."""
    second: Tensor = chi_square - mean**2 - (square - 1) ** 2 / 2
    return part * first - part**2 / 2 * second


def row_stride(tensor: Tensor) -> int:
    """Return the k of which every k-th row of a tensor is read."""
    columns = tensor.shape[1]
    most = math.isqrt(columns) if columns >= _FEWEST_CLUSTERS else len(tensor)
    stride = max(1, min(tensor.numel() // _ENOUGH_VALUES, len(tensor) // _ENOUGH_ROWS, most))
    # Odd: heads and channels come in periods that are powers of two.
    return (stride - 1) | 1


def _grouped(
    rows: Tensor,
    columns: int,
    bins: Int64[Tensor, " 4096"],
    number: int,
    release: Callable[[Tensor], object],
) -> tuple[Int64[Tensor, "rows bins"], Int64[Tensor, "columns bins"], Int64[Tensor, " values"]]:
    """Count values by groups of rows and of columns, and return the bins of evenly spread values.

    Args:
        rows: ``[rows, columns × values]``, read in blocks, since a row may exceed memory.
        columns: number of columns; 0 for none that are to be grouped.
        bins: number of each code's bin.
        number: of bins; codes that take no part have one more.
        release: called with each block.
    """
    height, width = rows.shape
    found = GroupCounts(
        bins,
        number,
        _deal(height, height, rows.device),
        _deal(width, columns, rows.device) if columns else None,
        (min(height, _MOST_GROUPS), min(columns, _MOST_GROUPS)),
    )
    chosen = []
    block_height = max(1, BLOCK // max(1, width))
    for top in range(0, height, block_height):
        left = 0
        for block in rows[top : top + block_height].split(BLOCK, dim=1):
            found.add_(block, top, left)
            places = _evenly(block.numel(), rows.numel(), bins.device)
            stretch = block.shape[1]
            chosen.append(found.bins_of(block[places // stretch, places % stretch]))
            left += stretch
            release(block)
    return found.rows, found.columns, torch.cat(chosen)


def _evenly(number: int, whole: int, device: torch.device) -> Int64[Tensor, " places"]:
    """Return places among `number` values of `whole`, each at another point of an equal stretch."""
    wanted = max(1, round(number * min(1.0, _SINGLE_VALUES / whole)))
    stretch = torch.arange(wanted, device=device, dtype=torch.float64)
    return ((stretch + (stretch * _GOLDEN).frac()) * (number / wanted)).long()


def _deal(places: int, clusters: int, device: torch.device) -> Int64[Tensor, " places"]:
    """Return the group of each place: that of its cluster, of which each has equally many places.

    At most 512 groups, to each of which clusters from everywhere are dealt: one of neighbours would
    take what neighbours share for chance.
    """
    cluster = torch.arange(places, device=device) * clusters // max(1, places)
    if clusters <= _MOST_GROUPS:
        return cluster
    return ((cluster.double() * _GOLDEN).frac() * _MOST_GROUPS).long()


def _shapes(counts: Int64[Tensor, "tensors 4096"], columns: Int64[Tensor, " bins"]) -> _Shape:
    """Return the bins of each tensor, in the columns that any of them occupies.

    P_k is the lognormal's whose μ and σ are the mean and the standard deviation of ln w: in closed
    form, so that nothing is fitted while weights are read.  Ungrouped, that is the maximum of the
    likelihood; of laws wider than a few bins the errors differ from those at the grouped maximum by
    1e-6 of themselves.
    """
    taken = counts[:, columns + FIRST_POSITIVE].to(torch.float64)
    edges = log_edges(counts.device)[FIRST_POSITIVE:]
    lower, upper = edges[columns], edges[columns + 1]
    share = taken / taken.sum(-1, keepdim=True).clamp(min=1)
    middle, width2 = (lower + upper) / 2, share @ (upper - lower) ** 2
    mean = (share @ middle)[:, None]
    # Sheppard's correction, as in `log_moments`.
    raw2 = (share * (middle - mean) ** 2).sum(-1)
    std = torch.maximum(raw2 - width2 / 12, width2 / 100).sqrt()[:, None]
    deviance = share.log() - _log_normal_mass((lower - mean) / std, (upper - mean) / std)
    deviance = torch.where(share > 0, deviance, 0.0)
    deviance = deviance - (share * deviance).sum(-1, keepdim=True)
    few = ((taken > 0).sum(-1) <= len(LOGNORMAL.parameters))[:, None]
    deviance = deviance.masked_fill(few, torch.nan)
    place = (middle - mean) / std
    part = 1 / (taken.sum(-1, keepdim=True) - 1).clamp(min=1)
    chi_square = torch.where(share > 0, share.reciprocal(), 0.0) - 1
    single = _effect(part, deviance, chi_square, place, place**2)
    single = single - (share * single).sum(-1, keepdim=True)
    return _Shape(share, deviance, place, single, (taken * single**2).sum(-1))


def _occupied_columns(counts: Int64[Tensor, "tensors bins"]) -> Int64[Tensor, " columns"]:
    """Return the bins that any tensor occupies; all where the device would be waited for."""
    if counts.is_cpu:
        return counts.any(0).nonzero().squeeze(-1)
    return torch.arange(counts.shape[1], device=counts.device)


def _log_normal_mass(
    low: Float64[Tensor, "tensors bins"], high: Float64[Tensor, "tensors bins"]
) -> Float64[Tensor, "tensors bins"]:
    """Return ln(Φ(high) − Φ(low)), taken in the lower tail, where nothing cancels."""
    low, high = torch.where(low > 0, -high, low), torch.where(low > 0, -low, high)
    whole = log_ndtr(high)
    log_mass: Tensor = whole + (-(log_ndtr(low) - whole).expm1()).log()
    return log_mass
