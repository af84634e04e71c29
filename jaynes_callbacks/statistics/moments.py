"""Moments of the magnitudes and of their logarithms, from counts.

Moments of ln w take every bin at its geometric middle; Sheppard's corrections remove what the
bins' width adds (at most 0.0002 of the variance).  The slope of the density within a bin remains:
it moves the moments by less than 0.001 for laws as wide as those of `landmarks`.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from jaynes_callbacks.counts.grid import FIRST_NONFINITE, FIRST_POSITIVE
from jaynes_callbacks.statistics.binned import Binned

__all__ = ["LogMoments", "Totals", "log_moments", "totals"]


class Totals(NamedTuple):
    """Numbers of values: n that take part in fits, exact zeros, and infinite or nan."""

    n: Int64[Tensor, " streams"]
    zeros: Int64[Tensor, " streams"]
    nonfinite: Int64[Tensor, " streams"]


class LogMoments(NamedTuple):
    """Moments of each stream; nan where there is nothing to average.

    Attributes:
        mean: of ln w.
        std: of ln w; at least a tenth of the bin's width.
        skew: of ln w; nan where all values lie in one bin.
        kurtosis: excess kurtosis of ln w; nan where all values lie in one bin.
        linear_mean: of w.
        rms: of w.
    """

    mean: Float64[Tensor, " streams"]
    std: Float64[Tensor, " streams"]
    skew: Float64[Tensor, " streams"]
    kurtosis: Float64[Tensor, " streams"]
    linear_mean: Float64[Tensor, " streams"]
    rms: Float64[Tensor, " streams"]


def totals(counts: Int64[Tensor, "streams 4096"]) -> Totals:
    """Count the finite non-zero values, the zeros and the non-finite ones."""
    return Totals(
        counts[:, FIRST_POSITIVE:FIRST_NONFINITE].sum(-1),
        counts[:, :FIRST_POSITIVE].sum(-1),
        counts[:, FIRST_NONFINITE:].sum(-1),
    )


def log_moments(binned: Binned) -> LogMoments:
    """Compute moments of ln w, w, w² (W. F. Sheppard, Proc. London Math. Soc. 29 (1898) 353)."""
    share = torch.where(binned.total[:, None] > 0, binned.share, torch.nan)
    mean = (share * binned.middle).sum(-1)
    centred = binned.middle - mean[:, None]
    raw2, third, raw4 = ((share * centred**power).sum(-1) for power in (2, 3, 4))
    width2 = (share * (binned.upper - binned.lower) ** 2).sum(-1)
    # The correction may leave nothing of the variance of a law that is narrower than its bin.
    second = torch.maximum(raw2 - width2 / 12, width2 / 100)
    fourth = raw4 - raw2 * width2 / 2 + 7 * width2**2 / 240
    spread = torch.where(binned.occupied_number > 1, second, torch.nan)
    low, high = binned.lower.exp(), binned.upper.exp()
    square = (low**2 + low * high + high**2) / 3
    return LogMoments(
        mean,
        spread.sqrt(),
        third / spread**1.5,
        fourth / spread**2 - 3,
        (share * (low + high) / 2).sum(-1),
        (share * square).sum(-1).sqrt(),
    )
