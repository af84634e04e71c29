"""Batched grouped maximum likelihood: one damped Newton iteration for every family.

Maximises the mean log-likelihood per value, f(θ) = Σ_k p̂_k ln P_k(θ), over the occupied bins, of
all streams at once.  Gradient and Hessian are exact (derivatives of the family's `log_mass`);
negative curvature is turned around and steps that do not rise are damped (Levenberg), so a stream
either climbs or stands still.  Streams that have arrived leave the batch.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from jaynes_callbacks.statistics.binned import Binned
from jaynes_callbacks.statistics.families import Family
from jaynes_callbacks.statistics.moments import LogMoments
from jaynes_callbacks.statistics.status import Status

__all__ = ["Fit", "fit_family"]

_MAX_ITERATIONS = 100
#: Converged when a Newton step promises less than this, in nats per value.
_TOLERANCE = 1e-13
_LONGEST_STEP = 2.0
_SMALLEST_CURVATURE = 1e-10


class Fit(NamedTuple):
    """A family fitted to L streams; rows whose status is not `Status.CONVERGED` are nan.

    Attributes:
        family: what was fitted.
        parameters: in the family's own order and units.
        log_mass: ln P_k of each occupied bin.
        status: a `Status` per stream.
        iterations: Newton iterations taken.
    """

    family: Family
    parameters: Float64[Tensor, "streams parameters"]
    log_mass: Float64[Tensor, "streams bins"]
    status: Int64[Tensor, " streams"]
    iterations: Int64[Tensor, " streams"]


class _Point(NamedTuple):
    """The objective and its derivatives at one θ per stream."""

    theta: Float64[Tensor, "streams parameters"]
    value: Float64[Tensor, " streams"]
    gradient: Float64[Tensor, "streams parameters"]
    hessian: Float64[Tensor, "streams parameters parameters"]

    def where(self, condition: Tensor, other: "_Point") -> "_Point":
        def choose(ours: Tensor, theirs: Tensor) -> Tensor:
            return torch.where(condition.view(-1, *[1] * (ours.dim() - 1)), ours, theirs)

        return _Point(*map(choose, self, other))

    def take(self, rows: Tensor) -> "_Point":
        return _Point(*(part[rows] for part in self))


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
    status = _eligible(family, binned)
    rows = (status == Status.CONVERGED).nonzero().squeeze(-1)
    parameters = binned.weights.new_full((len(status), len(family.parameters)), torch.nan)
    iterations = torch.zeros_like(status)
    if len(rows):
        eligible = binned.take(rows)
        start = family.start(eligible, LogMoments(*(part[rows] for part in moments)))
        if family.closed_form:
            parameters[rows] = start
        else:
            parameters[rows], arrived, iterations[rows] = _climb(family, eligible, start)
            status[rows[~arrived]] = Status.NOT_CONVERGED
    parameters[status != Status.CONVERGED] = torch.nan
    log_mass = family.log_mass(parameters, binned.lower, binned.upper)
    return Fit(family, parameters, log_mass, status, iterations)


def _eligible(family: Family, binned: Binned) -> Int64[Tensor, " streams"]:
    number = binned.occupied_number
    status = torch.full_like(number, Status.CONVERGED)
    status[number <= len(family.parameters)] = Status.TOO_FEW_BINS
    status[number == 0] = Status.EMPTY
    return status


def _climb(
    family: Family, binned: Binned, start: Tensor
) -> tuple[Tensor, Bool[Tensor, " streams"], Int64[Tensor, " streams"]]:
    positive = torch.tensor(family.positive, device=start.device)
    best = _evaluate(family, binned, torch.where(positive, start.log(), start))
    damping = torch.zeros_like(best.value)
    iterations = torch.zeros_like(best.value, dtype=torch.int64)
    active = torch.arange(len(start), device=start.device)
    for _ in range(_MAX_ITERATIONS):
        here = best.take(active)
        step, promise = _newton_step(here, damping[active])
        # A nan promise (no finite start) never arrives and runs out of iterations.
        going = ~(promise < _TOLERANCE)
        active, here, step = active[going], here.take(going), step[going]
        if not len(active):
            break
        trial = _evaluate(family, binned.take(active), here.theta + step)
        better = (trial.value >= here.value) & trial.hessian.isfinite().all(-1).all(-1)
        for whole, part in zip(best, trial.where(better, here), strict=True):
            whole[active] = part
        damping[active] = torch.where(
            better, damping[active] / 16, damping[active].clamp(min=1e-4) * 8
        )
        iterations[active] += 1
    arrived = torch.ones_like(best.value, dtype=torch.bool)
    arrived[active] = False
    return torch.where(positive, best.theta.exp(), best.theta), arrived, iterations


def _newton_step(point: _Point, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Saddle-free damped Newton step, bounded, and the gain an undamped one would promise."""
    curvature, axes = torch.linalg.eigh((-point.hessian).nan_to_num(nan=1.0))
    curvature = curvature.abs().clamp(min=_SMALLEST_CURVATURE)
    along = (axes.mT @ point.gradient[..., None]).squeeze(-1)
    promise = (along**2 / curvature).sum(-1) / 2
    damped = curvature + damping[:, None] * curvature.amax(-1, keepdim=True)
    step = (axes @ (along / damped)[..., None]).squeeze(-1)
    longest = step.abs().amax(-1, keepdim=True)
    return step * (_LONGEST_STEP / longest.clamp(min=_LONGEST_STEP)), promise


def _evaluate(family: Family, binned: Binned, theta: Tensor) -> _Point:
    positive = torch.tensor(family.positive, device=theta.device)
    with torch.enable_grad():
        theta = theta.detach().requires_grad_()
        natural = torch.where(positive, theta.exp(), theta)
        log_mass = family.log_mass(natural, binned.lower, binned.upper)
        value = (binned.share * log_mass).sum(-1)
        (gradient,) = torch.autograd.grad(value.sum(), theta, create_graph=True)
        rows = [
            torch.autograd.grad(gradient[:, i].sum(), theta, retain_graph=True)[0]
            for i in range(theta.shape[-1])
        ]
    return _Point(theta.detach(), value.detach(), gradient.detach(), torch.stack(rows, -2))
