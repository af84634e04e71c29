"""Counts to figures: every statistic, once, for all streams of a snapshot, on their device."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from jaynes_callbacks import statistics
from jaynes_callbacks.counts.grid import FIRST_NONFINITE, FIRST_POSITIVE, edges
from jaynes_callbacks.counts.threads import one_thread
from jaynes_callbacks.instruments.record import Stream, Variable
from jaynes_callbacks.instruments.tally import PAPER_BINS, Tally
from jaynes_callbacks.statistics import (
    GENERALIZED_GAMMA,
    LOGNORMAL,
    RIVALS,
    Binned,
    Fit,
    LogMoments,
    PaperFit,
)

__all__ = ["GAUSSIAN", "PAPER", "PAPER_IOTA_BINS", "Measured", "gaussian_power", "measure"]

#: Equal bins of the paper's protocol for iota.
PAPER_IOTA_BINS = 1000
#: What a status belongs to besides a family.
PAPER, GAUSSIAN = "paper protocol", "Gaussian reference"
_PAPER_FIGURES = ("r2", "mu", "sigma", "amplitude", "r2_gaussian")


class Measured(NamedTuple):
    """Figures of L streams on the device.

    Attributes:
        figures: columns of the record, by name.
        rival_gaps: gap to each family but the lognormal.
        vuong_z: the lognormal against each rival; positive speaks for the lognormal.
        statuses: `Status` of each family's fit, of the paper's protocol and its Gaussian reference,
            and of the lognormal's fits to the tilted and the censored counts.
    """

    figures: Mapping[str, Float64[Tensor, " streams"]]
    rival_gaps: Mapping[str, Float64[Tensor, " streams"]]
    vuong_z: Mapping[str, Float64[Tensor, " streams"]]
    statuses: Mapping[str, Int64[Tensor, " streams"]]


def measure(tally: Tally, streams: Sequence[Stream]) -> Measured:
    """All statistics of the counts; on the CPU in threads that never wait for each other.

    Args:
        tally: the counts.
        streams: of its rows; they differ in where the paper's bins come from, and in what Gaussian
            values they are compared with.
    """
    with one_thread() as threads:
        return _measure(tally, streams, threads)


def _measure(tally: Tally, streams: Sequence[Stream], threads: int) -> Measured:
    binned = statistics.occupied_bins(tally.counts)
    moments = statistics.log_moments(binned)
    fits = statistics.fit_families(binned, moments, threads)
    lognormal = fits[LOGNORMAL.name]
    maximum = _maximum(tally)
    paper = _paper(tally, streams, maximum, moments.rms)
    chances, chance_statuses = _best_chances(binned, moments)
    figures = {
        "max": maximum,
        **_shape(moments),
        # Of bins, and so a little beyond the largest value where all lie in one.
        "rms": torch.minimum(moments.rms, maximum),
        **_of_lognormal(binned, lognormal, tally.errors),
        **chances,
        "q": fits[GENERALIZED_GAMMA.name].parameters[:, 2],
        **{f"paper_{name}": getattr(paper, name) for name in _PAPER_FIGURES},
    }
    return Measured(
        figures,
        {name: statistics.gap(binned, fit) for name, fit in fits.items() if fit is not lognormal},
        {rival.name: statistics.vuong_z(binned, lognormal, fits[rival.name]) for rival in RIVALS},
        {
            **{name: fit.status for name, fit in fits.items()},
            PAPER: paper.status,
            GAUSSIAN: paper.gaussian_status,
            **chance_statuses,
        },
    )


def gaussian_power(variable: Variable) -> float:
    """The power of Gaussian values that a variable is compared with in the paper's protocol.

    Z = z·y goes as the square of the pre-activation, the y of a ReLU as the pre-activation itself.
    """
    return 2.0 if variable == "z*y" else 1.0


def _shape(moments: LogMoments) -> dict[str, Tensor]:
    return {
        "log_mean": moments.mean,
        "log_std": moments.std,
        "log_skew": moments.skew,
        "log_kurtosis": moments.kurtosis,
    }


def _of_lognormal(binned: Binned, fit: Fit, clustered: Tensor) -> dict[str, Tensor]:
    independent = statistics.gap_standard_error(binned, fit)
    mu, sigma = fit.parameters.unbind(-1)
    theory = statistics.equilibrium(binned, mu, sigma)
    return {
        "mu": mu,
        "sigma": sigma,
        "gap": statistics.gap(binned, fit),
        "gap_se": torch.where(clustered.isnan(), independent, clustered),
        **statistics.distances(binned, fit)._asdict(),
        "alpha": theory.alpha,
        "beta": theory.beta,
        "utility_std": theory.utility_std,
        "potential": theory.potential,
        "entropy": theory.entropy,
    }


def _best_chances(
    binned: Binned, moments: LogMoments
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The lognormal's gap where sizes count, and where the smallest values may be noise.

    Figures, and the statuses of the two fits.
    """
    tilted, censored = binned.tilted(), binned.censored()
    tilted_moments = statistics.log_moments(tilted)
    tilted_fit = statistics.fit_family(LOGNORMAL, tilted, tilted_moments)
    # The open bin has no middle: the fit starts from the uncensored moments.
    censored_fit = statistics.fit_family(LOGNORMAL, censored, moments)
    figures = {
        "log_std_tilted": tilted_moments.std,
        "gap_tilted": statistics.gap(tilted, tilted_fit),
        "gap_censored": statistics.gap(censored, censored_fit),
    }
    return figures, {"tilted": tilted_fit.status, "censored": censored_fit.status}


def _maximum(tally: Tally) -> Float64[Tensor, " streams"]:
    """The known maximum, or the upper edge of the highest occupied code; nan if there is none."""
    occupied = tally.counts[:, FIRST_POSITIVE:FIRST_NONFINITE] > 0
    order = torch.arange(FIRST_POSITIVE, FIRST_NONFINITE, device=occupied.device)
    highest = (occupied * order).amax(-1)
    edge = edges(occupied.device)[highest + 1]
    bounded = torch.where(highest > 0, edge, torch.nan)
    return torch.where(tally.maximum.isnan(), bounded, tally.maximum)


def _paper(
    tally: Tally,
    streams: Sequence[Stream],
    maximum: Float64[Tensor, " streams"],
    rms: Float64[Tensor, " streams"],
) -> PaperFit:
    """The paper's protocol on the streams' own bins, or else on bins made from the counts."""
    weighs = torch.tensor([stream.kind == "weight" for stream in streams], device=maximum.device)
    power = maximum.new_tensor([gaussian_power(stream.variable) for stream in streams])
    known = ~tally.maximum.isnan()
    masks = (known, ~known & weighs, ~known & ~weighs)
    own, weights, iota = (mask.nonzero().squeeze(-1) for mask in masks)
    fits = [statistics.paper_protocol(tally.linear[own], maximum[own], rms[own])]
    for rows, bins in ((weights, PAPER_BINS), (iota, PAPER_IOTA_BINS)):
        if len(rows):
            counts = statistics.linear_from_counts(tally.counts[rows], maximum[rows], bins)
            fit = statistics.paper_protocol(
                counts, maximum[rows], rms[rows], split=True, power=power[rows]
            )
            fits.append(fit)
    order = torch.cat([own, weights, iota]).argsort()
    return PaperFit(*(torch.cat(column)[order] for column in zip(*fits, strict=True)))
