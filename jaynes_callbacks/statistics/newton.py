"""Newton's method for many small maximisation problems at once, within bounds.

Steps are saddle-free: negative curvature is taken by its absolute value, so that every step is a
direction of ascent (Y. Dauphin et al., NeurIPS 27 (2014) 2933).  A step after which the function
is lower is not taken and the next one is shorter.  A coordinate at a bound that the step would
cross is kept there.  Problems that have converged leave the batch.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

__all__ = ["Bounds", "Objective", "Optimum", "Point", "maximise"]

#: A problem has converged when a Newton step promises a smaller gain; that step is still taken.
_TOLERANCE = 1e-10
#: Largest change of a coordinate in one step.
_LONGEST_STEP = 2.0
_SMALLEST_CURVATURE = 1e-10
#: A coordinate so close to its bound, relative to the bound, is put on it.
_ROUNDING = 1e-9
#: Factors of the step's length after a step that was taken, and after one that was not.
_LENGTHEN, _SHORTEN = 4.0, 0.5


class Point(NamedTuple):
    """Value and derivatives of each problem's function at one θ."""

    theta: Float64[Tensor, "problems coordinates"]
    value: Float64[Tensor, " problems"]
    gradient: Float64[Tensor, "problems coordinates"]
    hessian: Float64[Tensor, "problems coordinates coordinates"]

    def where(self, condition: Bool[Tensor, " problems"], other: "Point") -> "Point":
        """Return this point where the condition holds, the other one elsewhere."""

        def choose(ours: Tensor, theirs: Tensor) -> Tensor:
            return torch.where(condition.view(-1, *[1] * (ours.dim() - 1)), ours, theirs)

        return Point(*map(choose, self, other))

    def subset(self, rows: Tensor) -> "Point":
        """Return some of the problems, by index or mask."""
        return Point(*(part[rows] for part in self))


@runtime_checkable
class Objective(Protocol):
    """Functions to maximise, one a problem, independent of each other."""

    def at(self, theta: Float64[Tensor, "problems coordinates"]) -> Point:
        """Return values, gradients and Hessians; approximate Hessians only slow convergence."""

    def subset(self, rows: Tensor) -> "Objective":
        """Return some of the problems, by index or mask."""


class Bounds(NamedTuple):
    """Bounds of the coordinates, the same for all problems; infinite where there is none."""

    low: Float64[Tensor, " coordinates"]
    high: Float64[Tensor, " coordinates"]

    def clamp(self, theta: Tensor) -> Tensor:
        """Put coordinates that are beyond a bound, or within rounding of it, on the bound."""
        theta = torch.where(theta <= self.low + _ROUNDING * self.low.abs(), self.low, theta)
        return torch.where(theta >= self.high - _ROUNDING * self.high.abs(), self.high, theta)

    def reached(self, theta: Tensor) -> Bool[Tensor, "problems coordinates"]:
        """Tell which coordinates are on a bound."""
        return (theta <= self.low) | (theta >= self.high)

    def blocked(self, theta: Tensor, step: Tensor) -> Bool[Tensor, "problems coordinates"]:
        """Tell which coordinates are on a bound that the step would cross."""
        return ((theta <= self.low) & (step < 0)) | ((theta >= self.high) & (step > 0))

    def shorten(self, theta: Tensor, step: Tensor) -> Tensor:
        """Shorten the step to the first bound in its way."""
        room = torch.where(step < 0, self.low - theta, self.high - theta) / step
        reach = torch.where(step == 0, 1.0, room).amin(-1, keepdim=True)
        return step * reach.clamp(max=1.0)


class Optimum(NamedTuple):
    """Result of the maximisation of each problem.

    Attributes:
        theta: the coordinates.
        at_bound: whether each coordinate is on a bound.
        converged: whether the tolerance was reached.
        iterations: number of steps tried.
    """

    theta: Float64[Tensor, "problems coordinates"]
    at_bound: Bool[Tensor, "problems coordinates"]
    converged: Bool[Tensor, " problems"]
    iterations: Int64[Tensor, " problems"]

    def replaced(self, rows: Int64[Tensor, " rows"], later: "Optimum") -> "Optimum":
        """Return these results with later ones for some problems, their iterations added."""
        later = later._replace(iterations=self.iterations[rows] + later.iterations)
        return Optimum(
            *(whole.index_copy(0, rows, part) for whole, part in zip(self, later, strict=True))
        )


def maximise(
    objective: Objective,
    start: Float64[Tensor, "problems coordinates"],
    bounds: Bounds,
    iterations: int,
) -> Optimum:
    """Maximise every problem's function from `start`, within the bounds.

    Args:
        objective: the functions.
        start: θ to begin at; put within the bounds.
        bounds: of the coordinates.
        iterations: the most steps a problem may try.

    Returns:
        The highest point of each problem; one whose function is nan at the start never converges.
    """
    best = objective.at(bounds.clamp(start))
    length = torch.ones_like(best.value)
    tried = torch.zeros_like(best.value, dtype=torch.int64)
    active = torch.arange(len(start), device=start.device)
    for _ in range(iterations):
        here = best.subset(active)
        step, promise = _bounded_step(here, length[active], bounds)
        ahead = bounds.clamp(here.theta + step)
        converged = promise < _TOLERANCE
        best.theta[active[converged]] = ahead[converged]
        if converged.any():
            active, here, ahead = active[~converged], here.subset(~converged), ahead[~converged]
            if not len(active):
                break
            objective = objective.subset(~converged)
        trial = objective.at(ahead)
        better = (trial.value >= here.value) & trial.hessian.isfinite().all(-1).all(-1)
        for whole, part in zip(best, trial.where(better, here), strict=True):
            whole[active] = part
        factor = torch.where(better, _LENGTHEN, _SHORTEN)
        length[active] = (length[active] * factor).clamp(max=1.0)
        tried[active] += 1
    converged = torch.ones_like(tried, dtype=torch.bool)
    converged[active] = False
    return Optimum(best.theta, bounds.reached(best.theta), converged, tried)


def _bounded_step(point: Point, length: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """Return the step within the bounds, and the gain that a whole Newton step promises."""
    none = torch.zeros_like(point.theta, dtype=torch.bool)
    step, promise = _newton_step(point, length, none)
    blocked = bounds.blocked(point.theta, step)
    if blocked.any():
        step, promise = _newton_step(point, length, blocked)
    return bounds.shorten(point.theta, step), promise


def _newton_step(point: Point, length: Tensor, blocked: Tensor) -> tuple[Tensor, Tensor]:
    """Return a saddle-free step in the coordinates that are not blocked, and its promised gain."""
    gradient = point.gradient.masked_fill(blocked, 0.0)
    fixed = blocked[:, None] | blocked[..., None]
    curvature = torch.where(
        fixed, torch.eye(blocked.shape[-1], device=blocked.device), -point.hessian
    )
    size, axes = torch.linalg.eigh(curvature.nan_to_num(nan=1.0))
    size = size.abs().clamp(min=_SMALLEST_CURVATURE)
    along = (axes.mT @ gradient[..., None]).squeeze(-1)
    promise = (along**2 / size).sum(-1) / 2
    step = (axes @ (along / size)[..., None]).squeeze(-1)
    longest = step.abs().amax(-1).clamp(min=_LONGEST_STEP)
    return step * (length * _LONGEST_STEP / longest)[:, None], promise
