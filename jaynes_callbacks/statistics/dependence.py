"""Standard errors of the lognormal's gap where values depend on each other (THEORY §4).

Weights of one output row share a scale, activations of one sample share an input: counting each
value as independent makes the error too small.  Three ways that keep such clusters whole:

- `clustered_standard_errors`: by the gap's influence function d_k = ln(p̂_k/P_k), without a refit;
- `bootstrap_standard_error`: rows drawn anew and the gap fitted again, the reference;
- `jackknife_standard_error`: each group of samples left out once, from counts alone.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from jaynes_callbacks.counts.grid import CODES, FIRST_NONFINITE, FIRST_POSITIVE, codes
from jaynes_callbacks.statistics.binned import occupied_bins
from jaynes_callbacks.statistics.families import LOGNORMAL
from jaynes_callbacks.statistics.fit import fit_family
from jaynes_callbacks.statistics.goodness import deviance, gap
from jaynes_callbacks.statistics.moments import log_moments

__all__ = ["bootstrap_standard_error", "clustered_standard_errors", "jackknife_standard_error"]

#: Fewer rows than this say nothing about the spread between rows.
_FEWEST_ROWS = 10

#: Of a tensor with more values, evenly spread rows stand for all, but never fewer than so many:
#: the error's own relative error is about 1/√(2 rows).
_ENOUGH_VALUES, _ENOUGH_ROWS = 1 << 18, 256
#: Values that are looked up at once: their temporaries stay in a CPU's cache.
_SLICE = 1 << 17
#: Resamples that are fitted at once, 32 KiB each.
_RESAMPLES = 256


def clustered_standard_errors(
    tensors: Sequence[Tensor],
    counts: Int64[Tensor, "tensors 4096"],
    apply: Callable[..., Iterable[Any]] = map,
    let_go: Callable[[Tensor], object] = lambda _: None,
) -> Float64[Tensor, " tensors"]:
    """Cluster-robust standard error of each tensor's gap, its rows (first dimension) the clusters.

    With S_r the sum of d over row r's n_r values, n of them in all, d̄ = Σ S_r/n and R rows:
    SE² = R/(R − 1) Σ_r (S_r − n_r d̄)²/n² (K.-Y. Liang & S. L. Zeger, Biometrika 73 (1986) 13).
    The fit is stationary, so the parameters' own error does not enter at first order.

    Of a tensor of more than 2**18 values every k-th row is looked at, 256 at least: their error,
    times the root of their share, is that of all, to about 1/√(2·256) = 4 % of itself.

    Args:
        tensors: real floating-point tensors ``[rows, …]``, such as the layers' weights.
        counts: of the same tensors, on the universal grid.
        apply: as `map`; that of a pool of threads looks at several tensors at once.
        let_go: told of each part of a tensor that is done with, such as pages of a mapped file.

    Returns:
        In nats per value, on the counts' device; nan where there is no fit, or fewer than two
        dimensions or ten rows.

    Example:
        >>> import torch
        >>> from jaynes_callbacks.counts.counting import count_
        >>> source = torch.Generator().manual_seed(0)
        >>> scales = 1 + torch.rand(400, 1, generator=source)
        >>> weights = scales * torch.randn(400, 50, generator=source)
        >>> counts = torch.zeros(1, CODES, dtype=torch.int64)
        >>> count_(weights, counts, 0)
        >>> error = clustered_standard_errors([weights], counts)
        >>> bool(0.004 < error < 0.007)
        True
    """
    errors = torch.full((len(tensors),), torch.nan, dtype=torch.float64, device=counts.device)
    found = apply(partial(_clustered, let_go), tensors, _influence_by_code(counts))
    for row, error in enumerate(found):
        errors[row] = error
    return errors


def _clustered(
    let_go: Callable[[Tensor], object], tensor: Tensor, influence: Float64[Tensor, " 4096"]
) -> Tensor:
    if tensor.dim() < 2 or len(tensor) < _FEWEST_ROWS:
        return influence.new_full((), torch.nan)
    flat = tensor.detach().flatten(1)
    rows = flat[:: _stride(flat)]
    sums, n = _sums_of_rows(rows, influence.to(tensor.device), let_go)
    residuals = sums - n * sums.sum() / n.sum()
    variance: Tensor = len(rows) / (len(rows) - 1) * (residuals**2).sum() / n.sum() ** 2
    return (variance * len(rows) / len(flat)).sqrt()


def _sums_of_rows(
    rows: Tensor, influence: Float64[Tensor, " 4096"], let_go: Callable[[Tensor], object]
) -> Float64[Tensor, "2 rows"]:
    """`_row_sums` of all rows, in blocks: a row may be longer than memory."""
    found = influence.new_zeros(2, len(rows))
    height = max(1, _SLICE // max(1, rows.shape[1]))
    for top in range(0, len(rows), height):
        for block in rows[top : top + height].split(_SLICE, dim=1):
            found[:, top : top + height] += _row_sums(block, influence)
            let_go(block)
    return found


def _stride(flat: Tensor) -> int:
    stride = max(1, min(flat.numel() // _ENOUGH_VALUES, len(flat) // _ENOUGH_ROWS))
    # Odd: heads and channels come in periods that are powers of two.
    return (stride - 1) | 1


def bootstrap_standard_error(
    values: Tensor, resamples: int = 400, seed: int = 0
) -> Float64[Tensor, ""]:
    """Standard deviation of the gap over samples of whole rows, drawn with replacement.

    The reference for `clustered_standard_errors`: a refit of each resample, in batches.  Memory is
    8 bytes for each row and occupied code.  Torch's global random state is left alone.

    Args:
        values: real floating-point tensor ``[rows, …]``.
        resamples: how many.
        seed: of the draws.

    Raises:
        ValueError: for a tensor of fewer than two dimensions or fewer than two resamples.
    """
    if resamples < 2:
        raise ValueError(f"a spread needs at least 2 resamples, got {resamples}")
    rows, occupied = _row_counts(_rows_of(values))
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(max(1, len(rows)), (resamples, len(rows)), generator=generator)
    gaps = []
    for part in drawn.split(_RESAMPLES):
        times = torch.zeros(part.shape, dtype=torch.float64)
        times.scatter_add_(1, part, torch.ones_like(times))
        counts = torch.zeros(len(part), CODES, dtype=torch.int64)
        counts[:, occupied] = (times @ rows).round().long()
        gaps.append(_gap_of(counts))
    return torch.cat(gaps).std()


def jackknife_standard_error(
    groups: Int64[Tensor, "groups streams 4096"],
) -> Float64[Tensor, " streams"]:
    """Standard error of each stream's gap from counts kept in G disjoint groups of samples.

    With h_g = n/n_g, θ the gap, θ_(g) that with group g left out and τ_g = h_g θ − (h_g − 1) θ_(g):
    SE² = Σ_g (τ_g − τ̄)²/(h_g − 1)/G, the jackknife for groups of unlike size (F. M. T. A. Busing,
    E. Meijer & R. van der Leeden, Stat. Comput. 9 (1999) 3); of like size it is Tukey's,
    (G − 1)/G Σ_g (θ_(g) − mean)².

    Args:
        groups: counts of each group; of a stream those without a count are left out of account.

    Returns:
        In nats per value; nan where a fit is missing, or fewer than two groups have counts.

    Raises:
        ValueError: for fewer than two groups.
    """
    number, streams, _ = groups.shape
    if number < 2:
        raise ValueError(f"a jackknife needs at least 2 groups of samples, got {number}")
    size = groups[..., FIRST_POSITIVE:FIRST_NONFINITE].sum(-1).double()
    whole, here = groups.sum(0), size > 0
    gaps = _gap_of(torch.cat([whole[None], whole - groups]).flatten(0, 1)).view(-1, streams)
    inverse_share = size.sum(0) / size.where(here, torch.nan)
    pseudo = inverse_share * gaps[0] - (inverse_share - 1) * gaps[1:]
    spread = (pseudo - pseudo.nanmean(0)) ** 2 / (inverse_share - 1)
    missing = (here & gaps[1:].isnan()).any(0) | (here.sum(0) < 2)
    return spread.nanmean(0).sqrt().masked_fill(missing, torch.nan)


def _rows_of(values: Tensor) -> Tensor:
    if values.dim() < 2:
        raise ValueError(
            "rows are clusters, so a tensor of at least 2 dimensions is needed, got shape "
            f"{tuple(values.shape)}; reshape it to [clusters, values]"
        )
    return values.detach().flatten(1)


def _slices_of_rows(flat: Tensor) -> Iterator[Tensor]:
    if flat.numel():
        yield from flat.split(max(1, _SLICE // flat.shape[1]))


def _row_sums(part: Tensor, influence: Float64[Tensor, " 4096"]) -> Float64[Tensor, "2 rows"]:
    """Each row's sum of d, and the number of its values that take part."""
    code = codes(part).int()
    takes_part = (code >= FIRST_POSITIVE) & (code < FIRST_NONFINITE)
    by_value = influence.index_select(0, code.flatten()).view(code.shape)
    return torch.stack([by_value.sum(-1), takes_part.sum(-1, dtype=torch.float64)])


def _row_counts(flat: Tensor) -> tuple[Float64[Tensor, "rows bins"], Int64[Tensor, " bins"]]:
    """Counts of each row, at the codes that any row occupies."""
    parts = [
        torch.stack([torch.bincount(code, minlength=CODES) for code in codes(part).cpu()])
        for part in _slices_of_rows(flat)
    ]
    rows = torch.cat(parts) if parts else torch.zeros(len(flat), CODES, dtype=torch.int64)
    occupied = rows.any(0).nonzero().squeeze(-1)
    return rows[:, occupied].double(), occupied


def _gap_of(counts: Int64[Tensor, "streams 4096"]) -> Float64[Tensor, " streams"]:
    binned = occupied_bins(counts)
    return gap(binned, fit_family(LOGNORMAL, binned, log_moments(binned)))


def _influence_by_code(
    counts: Int64[Tensor, "streams 4096"],
) -> Float64[Tensor, "streams 4096"]:
    """d_k of each stream by code; zero for what is no part of its fit, nan where there is none."""
    binned = occupied_bins(counts)
    influence = deviance(binned, fit_family(LOGNORMAL, binned, log_moments(binned)))
    row, code = counts[:, FIRST_POSITIVE:FIRST_NONFINITE].nonzero(as_tuple=True)
    by_code = torch.zeros(counts.shape, dtype=torch.float64, device=influence.device)
    by_code[row, code + FIRST_POSITIVE] = influence[binned.occupied]
    return by_code
