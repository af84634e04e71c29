"""Batched grouped maximum likelihood: one engine for every family.

Each of `likelihood.Likelihood`'s streams climbs by Newton's method from a start of moments.  A law
is sharp if it is narrow; one with a sharp edge shows it by not arriving.
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
from jaynes_callbacks.statistics.newton import Box, Summit, maximise
from jaynes_callbacks.statistics.quadrature import REPORT_NODES, BinMass
from jaynes_callbacks.statistics.status import Status

__all__ = ["Fit", "fit_families", "fit_family"]

#: Mean bin width over the standard deviation of ln w from which a law is narrow.
_NARROW = 0.2
#: Iterations until a Hessian that is taken at the bins' middles is doubted, and at the most.
_PATIENCE, _MAX_ITERATIONS = 15, 100
#: Threads that gain anything: what Python does between the operations they do one by one.
_MOST_THREADS = 2
#: Bins of a batch that fit a CPU core's cache; an accelerator takes all streams at once.
_CPU_BATCH, _ACCELERATOR_BATCH = 1 << 16, 1 << 24


class Fit(NamedTuple):
    """A family fitted to L streams; nan where the status has no numbers.

    Attributes:
        family: what was fitted.
        parameters: in the family's own order and units.
        standard_errors: of the parameters for independent values, right also where the family is
            wrong (the sandwich; H. White, Econometrica 50 (1982) 1); nan at a bound, and for the
            uniform, whose limit has none.
        log_mass: ln P_k of each occupied bin.
        status: a `Status` per stream; at a bound the numbers are the closed family's optimum.
        iterations: Newton iterations taken.
    """

    family: Family
    parameters: Float64[Tensor, "streams parameters"]
    standard_errors: Float64[Tensor, "streams parameters"]
    log_mass: Float64[Tensor, "streams bins"]
    status: Int64[Tensor, " streams"]
    iterations: Int64[Tensor, " streams"]


def fit_families(binned: Binned, moments: LogMoments, threads: int = 1) -> dict[str, Fit]:
    """Fit every family to all streams.

    Args:
        binned: the occupied bins.
        moments: of the same bins, for the starts.
        threads: at most so many on the CPU, where there are streams enough for them to gain.

    Returns:
        By the family's name, in the order of `families.FAMILIES`.
    """
    many = binned.weights.device.type == "cpu" and binned.weights.numel() > _CPU_BATCH
    # The dearest family stands last: begun first, it leaves the small ones to fill the gaps.
    fits = side_by_side(
        lambda family: fit_family(family, binned, moments),
        FAMILIES[::-1],
        min(threads, _MOST_THREADS) if many else 1,
    )
    return {family.name: fit for family, fit in zip(FAMILIES, fits[::-1], strict=True)}


def fit_family(family: Family, binned: Binned, moments: LogMoments) -> Fit:
    """Fit one family to all streams.

    Args:
        family: a member of `families.FAMILIES`.
        binned: the occupied bins.
        moments: of the same bins, for the start.

    Returns:
        Parameters and bin masses, with a status for each stream; nothing is ever raised for the
        data's sake.
    """
    status = _eligible(family, binned, moments)
    nothing = binned.weights.new_full((len(status), len(family.parameters)), torch.nan)
    unfitted = torch.full_like(binned.weights, torch.nan)
    fit = Fit(family, nothing, nothing.clone(), unfitted, status, torch.zeros_like(status))
    start = family.start(binned, moments)
    for rows, narrow in _batches(binned, moments, status):
        part = binned.take(rows)
        found = (
            _fit_batch(Likelihood.of(family, part, sharp=narrow), start[rows])
            if isinstance(family, SmoothFamily)
            else _closed_form(family, part, start[rows])
        )
        beyond = binned.weights.shape[1] - part.weights.shape[1]
        found = found._replace(log_mass=pad(found.log_mass, (0, beyond), value=-torch.inf))
        for whole, piece in zip(fit[1:], found[1:], strict=True):
            whole[rows] = piece
    return fit


def _eligible(family: Family, binned: Binned, moments: LogMoments) -> Int64[Tensor, " streams"]:
    number = binned.occupied_number
    status = torch.full_like(number, Status.CONVERGED)
    status[moments.skew.abs() >= family.skew_limit] = Status.SKEW_OUT_OF_RANGE
    status[number <= len(family.parameters)] = Status.TOO_FEW_BINS
    status[number == 0] = Status.EMPTY
    return status


def _batches(
    binned: Binned, moments: LogMoments, status: Int64[Tensor, " streams"]
) -> Iterator[tuple[Int64[Tensor, " rows"], bool]]:
    """Eligible rows of like length together, and whether their laws are narrow."""
    number = binned.occupied_number
    narrow = ~((binned.share * (binned.upper - binned.lower)).sum(-1) < _NARROW * moments.std)
    size = _CPU_BATCH if number.device.type == "cpu" else _ACCELERATOR_BATCH
    order = number.argsort()
    order = order[status[order] == Status.CONVERGED]
    for kind in (False, True):
        rows = order[narrow[order] == kind]
        if len(rows):
            parts = rows.split(max(1, size // binned.weights.shape[1]))
            yield from ((part, kind) for part in parts)


def _closed_form(family: Family, binned: Binned, parameters: Tensor) -> Fit:
    steps = torch.zeros_like(binned.occupied_number)
    log_mass = family.log_mass(parameters, binned.lower, binned.upper)
    unknown = torch.full_like(parameters, torch.nan)
    return Fit(family, parameters, unknown, log_mass, steps + Status.CONVERGED, steps)


def _fit_batch(likelihood: Likelihood, start: Float64[Tensor, "streams parameters"]) -> Fit:
    """Climb from `start`; then masses and standard errors with the report's accuracy."""
    family = likelihood.family
    summit = _climb(likelihood, family.coordinates(start))
    natural = family.natural(summit.theta)
    mass = likelihood.mass(summit.theta, REPORT_NODES)
    errors = _standard_errors(likelihood, mass, summit) * family.slopes(natural)
    status = torch.where(summit.bounded.any(-1), int(Status.AT_BOUND), int(Status.CONVERGED))
    status[~summit.arrived] = Status.NOT_CONVERGED
    for figures in (natural, errors, mass.log_mass):
        figures[~summit.arrived] = torch.nan
    return Fit(family, natural, errors, mass.log_mass, status, summit.iterations)


def _climb(likelihood: Likelihood, theta: Float64[Tensor, "streams coordinates"]) -> Summit:
    """To the summit; a law found to be sharp only on the way goes on with the exact Hessian."""
    box = Box(*likelihood.family.bounds(theta.device))
    if likelihood.family.rough_start and not likelihood.sharp:
        # A few steps on merged bins cost as much as one on all.
        theta = maximise(CoarseLikelihood.of(likelihood), theta, box, _PATIENCE).theta
    summit = maximise(likelihood, theta, box, _PATIENCE)
    stuck = (~summit.arrived).nonzero().squeeze(-1)
    if not len(stuck):
        return summit
    exact = likelihood.take(stuck)._replace(sharp=True)
    return summit.replaced(stuck, maximise(exact, summit.theta[stuck], box, _MAX_ITERATIONS))


def _standard_errors(
    likelihood: Likelihood, mass: BinMass, summit: Summit
) -> Float64[Tensor, "streams coordinates"]:
    """√diag(H⁻¹ J H⁻¹/n), J the scores' mean square; of tilted counts n = (Σw)²/ΣV."""
    score = mass.score
    spread = torch.einsum("lk,ilk,jlk->lij", likelihood.share, score, score)
    inverse = torch.linalg.pinv(summit.hessian, hermitian=True)
    n = likelihood.binned.total**2 / likelihood.binned.variances.sum(-1)
    covariance = inverse @ spread @ inverse / n[:, None, None]
    variances: Tensor = covariance.diagonal(dim1=-2, dim2=-1)
    return variances.clamp(min=0).sqrt().masked_fill(summit.bounded, torch.nan)
