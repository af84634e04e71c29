"""The influence of a tensor's rows, columns and single values on its gap.

The gap's influence function at the data is d_k = ln(p̂_k/P_k) in bin k.  The fitted lognormal is
stationary, so that to first order a value in bin k moves the gap by (d_k − d̄)/n.  Sums of that over
rows and over columns are all that standard errors need where rows or columns share a scale
(`statistics.dependence`), and they are few numbers: those of a start can be kept, and subtracted
from those of an end to give the influence on the change.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from torch.special import log_ndtr

from jaynes_callbacks.counts.grid import FIRST_NONFINITE, FIRST_POSITIVE, codes, log_edges
from jaynes_callbacks.statistics.families import LOGNORMAL

__all__ = ["Influence", "influences"]

#: Fewer rows or columns than this say nothing about the spread between them.
_FEWEST_CLUSTERS = 10
#: Of a tensor with more values only evenly spread rows are read, but never fewer than so many, nor
#: than one in √columns: the error's own relative error is about 1/√(2 rows), and what columns share
#: is told from chance from about V_values·√8 of all rows on.
_ENOUGH_VALUES, _ENOUGH_ROWS = 1 << 18, 256
#: Values that are looked up at once: their temporaries stay in a CPU's cache.
_SLICE = 1 << 17
#: Single values that stand for all.
_SINGLE_VALUES = 4096
#: Fractional part of the golden ratio, whose multiples are spread evenly over [0, 1).
_GOLDEN = (math.sqrt(5) - 1) / 2


class Influence(NamedTuple):
    """Influence on the gap of one tensor, in nats; of a difference, on the change of the gap.

    Attributes:
        rows: sum over each row that was read.
        columns: sum over each column (second dimension) of the rows read; none if there are fewer
            than ten columns.
        values: of evenly spread single values of these rows, at most about 4096; 0 where a value
            takes no part in the fit.
        squares: sum of squares over all single values of these rows.
        rows_read: share of the rows that were read.
        values_each: number of values of the rows read that each of `values` stands for.
    """

    rows: Float64[Tensor, " rows"]
    columns: Float64[Tensor, " columns"]
    values: Float64[Tensor, " values"]
    squares: Float64[Tensor, ""]
    rows_read: float
    values_each: float

    def less(self, start: "Influence") -> "Influence | None":
        """Return the influence on the gap's change since `start`; None for another shape.

        The sum of squares is known of a gap, of a change it is estimated by the single values.
        """
        if any(ours.shape != theirs.shape for ours, theirs in zip(self[:3], start[:3], strict=True)):
            return None
        rows, columns, values = (
            ours - theirs.to(ours.device) for ours, theirs in zip(self[:3], start[:3], strict=True)
        )
        squares = self.values_each * (values**2).sum()
        return Influence(rows, columns, values, squares, self.rows_read, self.values_each)

    @property
    def standard_error(self) -> Float64[Tensor, ""]:
        """Two-way cluster-robust standard error of the gap, or of its change, in nats.

        V = V_rows + V_columns − V_values, each the sum of squared influences, the first two times
        R/(R − 1) and C/(C − 1), the last two left out where there are too few columns
        (A. C. Cameron, J. B. Gelbach & D. L. Miller, J. Bus. Econ. Statist. 29 (2011) 238).  What
        rows share is averaged over all rows, read or not, what columns share is not: only V_rows
        is multiplied by the share of rows read.  V_columns − V_values then has a sampling error
        that is large beside V_rows, and counts only from twice that error on.
        """
        variance = self.rows_read * _spread(self.rows)
        if number := len(self.columns):
            excess = _spread(self.columns) - self.squares
            least = self.squares * (2 * math.sqrt(2 / number) if self.rows_read < 1 else 0.0)
            variance = variance + torch.where(excess < least, 0.0, excess)
        return variance.sqrt()


def influences(
    tensors: Sequence[Tensor],
    counts: Int64[Tensor, "tensors 4096"],
    apply: Callable[..., Iterable[Any]] = map,
    release: Callable[[Tensor], object] = lambda _: None,
) -> list[Influence | None]:
    """Compute the influence of rows, columns and single values on the gap of each tensor.

    Of a tensor of more than 2**18 values every k-th row is read, at least 256 of them and one in
    √columns.  Nothing is fitted, and an accelerator is not waited for.

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
    by_code, squares = _influence_by_code(counts)
    return list(apply(partial(_influence, release), tensors, by_code, squares))


def _influence(
    release: Callable[[Tensor], object],
    tensor: Tensor,
    by_code: Float64[Tensor, " 4096"],
    squares: Float64[Tensor, ""],
) -> Influence | None:
    if tensor.dim() < 2 or len(tensor) < _FEWEST_CLUSTERS or not tensor.numel():
        return None
    flat = tensor.detach().flatten(1)
    rows = flat[:: _stride(flat, tensor.shape[1])]
    rows_read = len(rows) / len(flat)
    # Of the rows that were read the share of values is taken to be that of rows.
    by_code, squares = (part.to(tensor.device) / rows_read for part in (by_code, squares))
    by_row, by_column, single = _sums(rows, by_code, release)
    columns = tensor.shape[1] if tensor.shape[1] >= _FEWEST_CLUSTERS else 0
    return Influence(
        by_row,
        by_column.view(tensor.shape[1], -1).sum(-1) if columns else by_column[:0],
        single,
        squares,
        rows_read,
        rows.numel() / max(1, len(single)),
    )


def _spread(sums: Float64[Tensor, " clusters"]) -> Float64[Tensor, ""]:
    """Return the sum of squares, corrected for the mean that was taken off.

    Clusters of which no value takes part, whose sum is zero, do not count.
    """
    number = (sums != 0).sum().clamp(min=2)
    squares: Tensor = (sums**2).sum()
    return squares * number / (number - 1)


def _stride(flat: Tensor, columns: int) -> int:
    most = math.isqrt(columns) if columns >= _FEWEST_CLUSTERS else len(flat)
    stride = max(1, min(flat.numel() // _ENOUGH_VALUES, len(flat) // _ENOUGH_ROWS, most))
    # Odd: heads and channels come in periods that are powers of two.
    return (stride - 1) | 1


def _sums(
    rows: Tensor, by_code: Float64[Tensor, " 4096"], release: Callable[[Tensor], object]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the influence of each row, column and chosen value, in blocks: rows may be long."""
    by_row, by_column = by_code.new_zeros(len(rows)), by_code.new_zeros(rows.shape[1])
    single = [by_code[:0]]
    height = max(1, _SLICE // max(1, rows.shape[1]))
    for top in range(0, len(rows), height):
        left = 0
        for block in rows[top : top + height].split(_SLICE, dim=1):
            found = by_code.index_select(0, codes(block).flatten()).view(block.shape)
            right = left + block.shape[1]
            by_row[top : top + height] += found.sum(1)
            by_column[left:right] += found.sum(0)
            single.append(found.flatten()[_evenly(block.numel(), rows.numel(), found.device)])
            left = right
            release(block)
    return by_row, by_column, torch.cat(single)


def _evenly(number: int, whole: int, device: torch.device) -> Int64[Tensor, " places"]:
    """Return places among `number` values of `whole`, one at an own point of each equal stretch."""
    wanted = max(1, round(number * min(1.0, _SINGLE_VALUES / max(1, whole)))) if number else 0
    stretch = torch.arange(wanted, device=device, dtype=torch.float64)
    within = (stretch * _GOLDEN).frac()
    return ((stretch + within) * (number / max(1, wanted))).long()


def _influence_by_code(
    counts: Int64[Tensor, "streams 4096"],
) -> tuple[Float64[Tensor, "streams 4096"], Float64[Tensor, " streams"]]:
    """Return (d_k − d̄)/n of each stream by code, and the sum of its squares over the values.

    Zero where it has no values, nan for all codes of two bins or fewer.  P_k is the lognormal's whose μ and σ
    are the mean and the standard deviation of ln w: in closed form, so that nothing is fitted while
    weights are read, and an accelerator is not waited for.  Ungrouped, that is the maximum of the
    likelihood; of laws wider than a few bins the errors differ from those at the grouped maximum by
    1e-6 of themselves.
    """
    positive = counts[:, FIRST_POSITIVE:FIRST_NONFINITE]
    columns = _occupied_columns(positive)
    taken = positive[:, columns].to(torch.float64)
    edges = log_edges(counts.device)[FIRST_POSITIVE:]
    lower, upper = edges[columns], edges[columns + 1]
    n = taken.sum(-1, keepdim=True)
    share = taken / n
    middle, width2 = (lower + upper) / 2, share @ (upper - lower) ** 2
    mean = (share @ middle)[:, None]
    # Sheppard's correction, as in `log_moments`.
    raw2 = (share * (middle - mean) ** 2).sum(-1)
    std = torch.maximum(raw2 - width2 / 12, width2 / 100).sqrt()[:, None]
    influence = share.log() - _log_normal_mass((lower - mean) / std, (upper - mean) / std)
    influence = torch.where(taken > 0, influence, 0.0)
    influence = influence - (share * influence).sum(-1, keepdim=True)
    few = ((taken > 0).sum(-1) <= len(LOGNORMAL.parameters))[:, None]
    influence = torch.where(taken > 0, influence / n, 0.0)
    by_code = torch.zeros(counts.shape, dtype=torch.float64, device=counts.device)
    by_code[:, columns + FIRST_POSITIVE] = influence
    return by_code.masked_fill(few, torch.nan), (taken * influence**2).sum(-1)


def _occupied_columns(counts: Int64[Tensor, "streams bins"]) -> Int64[Tensor, " columns"]:
    """Return the bins that any stream occupies; all where the device would be waited for."""
    if counts.is_cpu:
        return counts.any(0).nonzero().squeeze(-1)
    return torch.arange(counts.shape[1], device=counts.device)


def _log_normal_mass(
    low: Float64[Tensor, "streams bins"], high: Float64[Tensor, "streams bins"]
) -> Float64[Tensor, "streams bins"]:
    """Return ln(Φ(high) − Φ(low)), taken in the lower tail, where nothing cancels."""
    low, high = torch.where(low > 0, -high, low), torch.where(low > 0, -low, high)
    whole = log_ndtr(high)
    log_mass: Tensor = whole + (-(log_ndtr(low) - whole).expm1()).log()
    return log_mass
