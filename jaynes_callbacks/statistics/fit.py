"""Batched grouped maximum likelihood: one engine for every family.

Maximise each stream's likelihood (`likelihood.Likelihood`) by Newton's method (`newton.maximise`),
starting from estimates by moments.  A family without a smooth density gives its estimate in closed
form.  A fit that does not converge says so by its status; no data raise an exception.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from torch.nn.functional import pad

from jaynes_callbacks.counts.threads import side_by_side
from jaynes_callbacks.statistics.binned import Binned
from jaynes_callbacks.statistics.families import FAMILIES, Family, SmoothFamily
from jaynes_callbacks.statistics.likelihood import CoarseLikelihood, Likelihood
from jaynes_callbacks.statistics.moments import LogMoments
from jaynes_callbacks.statistics.newton import Bounds, Optimum, maximise
from jaynes_callbacks.statistics.status import Status

__all__ = ["Fit", "fit_families", "fit_family"]

#: Mean bin width over the standard deviation of ln w from which the Hessian must be exact.
_COARSE_BINS = 0.2
#: Iterations with the approximate Hessian, after which the exact one takes over, and with that one.
_APPROXIMATE_ITERATIONS, _EXACT_ITERATIONS = 15, 100
#: More threads gain nothing: Python's work between torch's operations is done by one at a time.
_MOST_THREADS = 2
#: Bins of a batch that fit a CPU core's cache; an accelerator takes all streams at once.
_CPU_BATCH, _ACCELERATOR_BATCH = 1 << 16, 1 << 24


class Fit(NamedTuple):
    """A family fitted to L streams; nan where the status has no numbers.

    Attributes:
        family: the law.
        parameters: estimates in the order and units of `family.parameters`.
        log_mass: ln P_k of each occupied bin.
        status: a `Status` per stream; at a bound the numbers are the optimum within the bounds.
        iterations: Newton iterations tried; 0 for a closed form.
    """

    family: Family
    parameters: Float64[Tensor, "streams parameters"]
    log_mass: Float64[Tensor, "streams bins"]
    status: Int64[Tensor, " streams"]
    iterations: Int64[Tensor, " streams"]


def fit_families(binned: Binned, moments: LogMoments, threads: int = 1) -> dict[str, Fit]:
    """Fit every family to all streams.

    Args:
        binned: the occupied bins.
        moments: of the same bins, for the starts.
        threads: the most threads to use on the CPU; more than one only for a large batch.

    Returns:
        Fits by the family's name, in the order of `families.FAMILIES`.
    """
    large = binned.weights.device.type == "cpu" and binned.weights.numel() > _CPU_BATCH
    # The most expensive family stands last: begun first, it leaves the small ones to fill the gaps.
    fits = side_by_side(
        lambda family: fit_family(family, binned, moments),
        FAMILIES[::-1],
        min(threads, _MOST_THREADS) if large else 1,
    )
    return {family.name: fit for family, fit in zip(FAMILIES, fits[::-1], strict=True)}


def fit_family(family: Family, binned: Binned, moments: LogMoments) -> Fit:
    """Fit one family to all streams.

    Args:
        family: a member of `families.FAMILIES`, or any other law.
        binned: the occupied bins.
        moments: of the same bins, for the start.

    Returns:
        Parameters and bin masses, with a status for each stream.
    """
    status = _status_before(family, binned, moments)
    fit = Fit(
        family,
        binned.weights.new_full((len(status), len(family.parameters)), torch.nan),
        torch.full_like(binned.weights, torch.nan),
        status,
        torch.zeros_like(status),
    )
    start = family.start(binned, moments)
    for rows, coarse in _batches(binned, moments, status):
        part = binned.subset(rows)
        found = (
            _maximum_likelihood(Likelihood.of(family, part, exact_hessian=coarse), start[rows])
            if isinstance(family, SmoothFamily)
            else _closed_form(family, part, start[rows])
        )
        beyond = binned.weights.shape[1] - part.weights.shape[1]
        found = found._replace(log_mass=pad(found.log_mass, (0, beyond), value=-torch.inf))
        for whole, piece in zip(fit[1:], found[1:], strict=True):
            whole[rows] = piece
    return fit


def _status_before(
    family: Family, binned: Binned, moments: LogMoments
) -> Int64[Tensor, " streams"]:
    """Give a reason to streams that cannot be fitted, `Status.CONVERGED` to all others."""
    number = binned.occupied_number
    status = torch.full_like(number, Status.CONVERGED)
    status[moments.skew.abs() >= family.skew_limit] = Status.SKEW_OUT_OF_RANGE
    status[number <= len(family.parameters)] = Status.TOO_FEW_BINS
    status[number == 0] = Status.EMPTY
    return status


def _batches(
    binned: Binned, moments: LogMoments, status: Int64[Tensor, " streams"]
) -> Iterator[tuple[Int64[Tensor, " rows"], bool]]:
    """Yield rows to fit, those of similar length together, and whether their bins are coarse."""
    number = binned.occupied_number
    width = (binned.share * (binned.upper - binned.lower)).sum(-1)
    coarse = ~(width < _COARSE_BINS * moments.std)
    size = _CPU_BATCH if number.device.type == "cpu" else _ACCELERATOR_BATCH
    order = number.argsort()
    order = order[status[order] == Status.CONVERGED]
    for kind in (False, True):
        rows = order[coarse[order] == kind]
        if len(rows):
            parts = rows.split(max(1, size // binned.weights.shape[1]))
            yield from ((part, kind) for part in parts)


def _closed_form(family: Family, binned: Binned, parameters: Tensor) -> Fit:
    none = torch.zeros_like(binned.occupied_number)
    log_mass = family.log_mass(parameters, binned.lower, binned.upper)
    return Fit(family, parameters, log_mass, none + Status.CONVERGED, none)


def _maximum_likelihood(
    likelihood: Likelihood, start: Float64[Tensor, "streams parameters"]
) -> Fit:
    """Maximise from `start`; then compute the masses with the accuracy of a report."""
    family, binned = likelihood.family, likelihood.binned
    optimum = _maximise(likelihood, family.coordinates(start))
    parameters = family.natural(optimum.theta)
    log_mass = family.log_mass(parameters, binned.lower, binned.upper)
    status = torch.where(optimum.at_bound.any(-1), int(Status.AT_BOUND), int(Status.CONVERGED))
    status[~optimum.converged] = Status.NOT_CONVERGED
    for figures in (parameters, log_mass):
        figures[~optimum.converged] = torch.nan
    return Fit(family, parameters, log_mass, status, optimum.iterations)


def _maximise(likelihood: Likelihood, theta: Float64[Tensor, "streams coordinates"]) -> Optimum:
    """Find the optimum; streams that the approximate Hessian leads nowhere go on with the exact."""
    bounds = Bounds(*likelihood.family.bounds(theta.device))
    if likelihood.family.rough_start and not likelihood.exact_hessian:
        # A few steps on merged bins cost as much as one on all.
        coarse = CoarseLikelihood.of(likelihood)
        theta = maximise(coarse, theta, bounds, _APPROXIMATE_ITERATIONS).theta
    optimum = maximise(likelihood, theta, bounds, _APPROXIMATE_ITERATIONS)
    left = (~optimum.converged).nonzero().squeeze(-1)
    if not len(left):
        return optimum
    exact = likelihood.subset(left)._replace(exact_hessian=True)
    return optimum.replaced(left, maximise(exact, optimum.theta[left], bounds, _EXACT_ITERATIONS))
