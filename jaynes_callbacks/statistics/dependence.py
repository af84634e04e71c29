"""Standard errors of the lognormal's gap where values depend on each other.

Weights of one output row share a scale, activations of one sample share an input: an error that
takes every value as independent is too small.  Two errors that keep such clusters whole:

- `clustered_standard_errors`: from the gap's influence function d_k = ln(p̂_k/P_k), without a
  refit; the tests compare it with a bootstrap of rows (tests/statistics/test_dependence.py);
- `jackknife_standard_error`: from counts alone, each group of samples left out once.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from torch.special import log_ndtr

from jaynes_callbacks.counts.grid import FIRST_NONFINITE, FIRST_POSITIVE, codes, log_edges
from jaynes_callbacks.statistics.binned import Binned, occupied_bins
from jaynes_callbacks.statistics.families import LOGNORMAL
from jaynes_callbacks.statistics.fit import Fit, fit_family
from jaynes_callbacks.statistics.goodness import gap
from jaynes_callbacks.statistics.moments import log_moments

__all__ = ["clustered_standard_errors", "jackknife_standard_error", "row_stride"]

#: Fewer rows than this say nothing about the spread between rows.
_FEWEST_ROWS = 10

#: Of a tensor with more values only evenly spread rows are read, but never fewer than so many:
#: the error's own relative error is about 1/√(2 rows).
_ENOUGH_VALUES, _ENOUGH_ROWS = 1 << 18, 256
#: Values that are looked up at once: their temporaries stay in a CPU's cache.
_SLICE = 1 << 17


def clustered_standard_errors(
    tensors: Sequence[Tensor],
    counts: Int64[Tensor, "tensors 4096"],
    apply: Callable[..., Iterable[Any]] = map,
    release: Callable[[Tensor], object] = lambda _: None,
) -> Float64[Tensor, " tensors"]:
    """Estimate the standard error of each tensor's gap; its rows (first dimension) are clusters.

    With S_r the sum of d over row r's n_r values, n of them in all, d̄ = Σ S_r/n and R rows:
    SE² = R/(R − 1) Σ_r (S_r − n_r d̄)²/n² (K.-Y. Liang & S. L. Zeger, Biometrika 73 (1986) 13).
    The fit is stationary, so that the parameters' own error does not enter at first order.

    Of a tensor of more than 2**18 values every k-th row is read, at least 256 of them.  Their error
    times √(rows read/rows) estimates that of all rows, to about 1/√(2·256) = 4 % of itself.

    Args:
        tensors: real floating-point tensors ``[rows, …]``, such as the layers' weights.
        counts: of the same tensors, on the universal grid.
        apply: a function like `map`; that of a pool of threads reads several tensors at once.
        release: called with each part of a tensor after its last use, such as to drop the pages of
            a mapped file.

    Returns:
        Nats per value, on the counts' device; nan where there is no fit, or fewer than two
        dimensions or ten rows.

    Example:
        >>> import torch
        >>> from jaynes_callbacks.counts.counting import count_
        >>> source = torch.Generator().manual_seed(0)
        >>> scales = 1 + torch.rand(400, 1, generator=source)
        >>> weights = scales * torch.randn(400, 50, generator=source)
        >>> counts = torch.zeros(1, 4096, dtype=torch.int64)
        >>> count_(weights, counts, 0)
        >>> error = clustered_standard_errors([weights], counts)
        >>> bool(0.004 < error < 0.007)
        True
    """
    errors = torch.full((len(tensors),), torch.nan, dtype=torch.float64, device=counts.device)
    found = apply(partial(_clustered, release), tensors, _influence_by_code(counts))
    for row, error in enumerate(found):
        errors[row] = error
    return errors


def _clustered(
    release: Callable[[Tensor], object], tensor: Tensor, influence: Float64[Tensor, " 4096"]
) -> Tensor:
    if tensor.dim() < 2 or len(tensor) < _FEWEST_ROWS:
        return influence.new_full((), torch.nan)
    flat = tensor.detach().flatten(1)
    rows = flat[:: row_stride(flat)]
    sums, n = _sums_of_rows(rows, influence.to(tensor.device), release)
    residuals = sums - n * sums.sum() / n.sum()
    variance: Tensor = len(rows) / (len(rows) - 1) * (residuals**2).sum() / n.sum() ** 2
    return (variance * len(rows) / len(flat)).sqrt()


def row_stride(tensor: Tensor) -> int:
    """Return the k of which every k-th row of a large tensor is read."""
    stride = max(1, min(tensor.numel() // _ENOUGH_VALUES, len(tensor) // _ENOUGH_ROWS))
    # Odd: heads and channels come in periods that are powers of two.
    return (stride - 1) | 1


def _sums_of_rows(
    rows: Tensor, influence: Float64[Tensor, " 4096"], release: Callable[[Tensor], object]
) -> Float64[Tensor, "2 rows"]:
    """Return each row's sum of d and its number of values, in blocks: a row may exceed memory."""
    found = influence.new_zeros(2, len(rows))
    height = max(1, _SLICE // max(1, rows.shape[1]))
    for top in range(0, len(rows), height):
        for block in rows[top : top + height].split(_SLICE, dim=1):
            found[:, top : top + height] += _sums_of_block(block, influence)
            release(block)
    return found


def _sums_of_block(block: Tensor, influence: Float64[Tensor, " 4096"]) -> Float64[Tensor, "2 rows"]:
    """Return each row's sum of d, and the number of its values that take part in the fit."""
    code = codes(block)
    takes_part = (code >= FIRST_POSITIVE) & (code < FIRST_NONFINITE)
    by_value = influence.index_select(0, code.flatten()).view(code.shape)
    return torch.stack([by_value.sum(-1), takes_part.sum(-1, dtype=torch.float64)])


def _influence_by_code(
    counts: Int64[Tensor, "streams 4096"],
) -> Float64[Tensor, "streams 4096"]:
    """Return d_k of each stream by code; zero where it has no values, nan for two bins or fewer.

    P_k is the lognormal's whose μ and σ are the mean and the standard deviation of ln w: in closed
    form, so that nothing is fitted while weights are read, and an accelerator is not waited for.
    Ungrouped, that is the maximum of the likelihood; of laws wider than a few bins the errors
    differ from those at the grouped maximum by 1e-6 of themselves.
    """
    positive = counts[:, FIRST_POSITIVE:FIRST_NONFINITE]
    columns = _occupied_columns(positive)
    taken = positive[:, columns].to(torch.float64)
    edges = log_edges(counts.device)[FIRST_POSITIVE:]
    lower, upper = edges[columns], edges[columns + 1]
    share = taken / taken.sum(-1, keepdim=True)
    middle, width2 = (lower + upper) / 2, share @ (upper - lower) ** 2
    mean = (share @ middle)[:, None]
    # Sheppard's correction, as in `log_moments`.
    raw2 = (share * (middle - mean) ** 2).sum(-1)
    std = torch.maximum(raw2 - width2 / 12, width2 / 100).sqrt()[:, None]
    influence = share.log() - _log_normal_mass((lower - mean) / std, (upper - mean) / std)
    influence = torch.where(taken > 0, influence, 0.0)
    few = ((taken > 0).sum(-1) <= len(LOGNORMAL.parameters))[:, None]
    by_code = torch.zeros(counts.shape, dtype=torch.float64, device=counts.device)
    by_code[:, columns + FIRST_POSITIVE] = influence.masked_fill(few, torch.nan)
    return by_code


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


def jackknife_standard_error(
    groups: Int64[Tensor, "groups streams 4096"],
) -> Float64[Tensor, " streams"]:
    """Estimate the standard error of each stream's gap from counts in G disjoint groups of samples.

    With h_g = n/n_g, θ the gap, θ_(g) that with group g left out and τ_g = h_g θ − (h_g − 1) θ_(g):
    SE² = Σ_g (τ_g − τ̄)²/(h_g − 1)/G, the jackknife for groups of unequal size (F. M. T. A. Busing,
    E. Meijer & R. van der Leeden, Stat. Comput. 9 (1999) 3); for equal sizes it is Tukey's,
    (G − 1)/G Σ_g (θ_(g) − mean)².

    Args:
        groups: counts of each group; groups without a count of a stream are ignored for it.

    Returns:
        Nats per value; nan where a fit is missing, or fewer than two groups have counts.

    Raises:
        ValueError: for fewer than two groups.
    """
    number, streams, _ = groups.shape
    if number < 2:
        raise ValueError(f"a jackknife needs at least 2 groups of samples, got {number}")
    size = groups[..., FIRST_POSITIVE:FIRST_NONFINITE].sum(-1).double()
    whole, here = groups.sum(0), size > 0
    gaps = gap(*_lognormal(torch.cat([whole[None], whole - groups]).flatten(0, 1)))
    gaps = gaps.view(-1, streams)
    inverse_share = size.sum(0) / size.where(here, torch.nan)
    pseudo = inverse_share * gaps[0] - (inverse_share - 1) * gaps[1:]
    spread = (pseudo - pseudo.nanmean(0)) ** 2 / (inverse_share - 1)
    missing = (here & gaps[1:].isnan()).any(0) | (here.sum(0) < 2)
    return spread.nanmean(0).sqrt().masked_fill(missing, torch.nan)


def _lognormal(counts: Int64[Tensor, "streams 4096"]) -> tuple[Binned, Fit]:
    """Return the occupied bins and the lognormal fitted to them."""
    binned = occupied_bins(counts)
    return binned, fit_family(LOGNORMAL, binned, log_moments(binned))
