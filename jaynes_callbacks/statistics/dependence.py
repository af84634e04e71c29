"""Standard errors of the lognormal's gap where values depend on each other.

Weights of one output row share a scale, those of one input column too, activations of one sample
share an input: an error that takes every value as independent is too small.  Two errors that keep
such clusters whole:

- `standard_errors_of`: from the gap's influence function (`statistics.influence`), without a refit;
  the tests compare it with a bootstrap of rows (tests/statistics/test_dependence.py);
- `jackknife_standard_error`: from counts alone, each group of samples left out once.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from jaynes_callbacks.counts.grid import FIRST_NONFINITE, FIRST_POSITIVE
from jaynes_callbacks.statistics.binned import Binned, occupied_bins
from jaynes_callbacks.statistics.families import LOGNORMAL
from jaynes_callbacks.statistics.fit import Fit, fit_family
from jaynes_callbacks.statistics.goodness import gap
from jaynes_callbacks.statistics.influence import Influence
from jaynes_callbacks.statistics.moments import log_moments

__all__ = ["jackknife_standard_error", "standard_errors_of"]


def standard_errors_of(
    found: Sequence[Influence | None], device: torch.device
) -> Float64[Tensor, " tensors"]:
    """Return the standard error of each tensor's gap; its rows and columns are clusters.

    See `Influence.standard_error` for the formula and `influences` for what is read of large
    tensors.  Reading every k-th row alone, the error is known to about 1/√(2·256) = 4 % of itself,
    and what columns share to √(2/columns)/(rows read) of the variance of the influence function.

    Args:
        found: of each tensor; None where there is no fit, or fewer than two dimensions or ten rows.
            Rows alone are clusters of fewer than ten columns.
        device: of the result.

    Returns:
        Nats per value; nan for None.

    Example:
        >>> import torch
        >>> from jaynes_callbacks.counts.counting import count_
        >>> from jaynes_callbacks.statistics.influence import influences
        >>> source = torch.Generator().manual_seed(0)
        >>> scales = 1 + torch.rand(400, 1, generator=source)
        >>> weights = scales * torch.randn(400, 50, generator=source)
        >>> counts = torch.zeros(1, 4096, dtype=torch.int64)
        >>> count_(weights, counts, 0)
        >>> error = standard_errors_of(influences([weights], counts), counts.device)
        >>> bool(0.004 < error < 0.007)
        True
    """
    errors = torch.full((len(found),), torch.nan, dtype=torch.float64, device=device)
    for row, each in enumerate(found):
        if each is not None:
            errors[row] = each.standard_error
    return errors


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
    # The whole says whether bins are merged: gaps with a group left out are compared with it.
    few = occupied_bins(whole).of_few_values.repeat(number + 1)
    gaps = gap(*_lognormal(torch.cat([whole[None], whole - groups]).flatten(0, 1), few))
    gaps = gaps.view(-1, streams)
    inverse_share = size.sum(0) / size.where(here, torch.nan)
    pseudo = inverse_share * gaps[0] - (inverse_share - 1) * gaps[1:]
    spread = (pseudo - pseudo.nanmean(0)) ** 2 / (inverse_share - 1)
    missing = (here & gaps[1:].isnan()).any(0) | (here.sum(0) < 2)
    return spread.nanmean(0).sqrt().masked_fill(missing, torch.nan)


def _lognormal(
    counts: Int64[Tensor, "streams 4096"], few: Bool[Tensor, " streams"]
) -> tuple[Binned, Fit]:
    """Return the bins, merged where `few` says so, and the lognormal fitted to them."""
    binned = occupied_bins(counts)
    merged = binned.merged(few)
    return merged, fit_family(LOGNORMAL, merged, log_moments(binned))
